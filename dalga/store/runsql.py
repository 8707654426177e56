"""
The SQL of runs. In the jobs table: which rows are due, claims, records and corrections. In the
table of runs: the rows of runs that are not over.

As in `dalga.store.statements`, each statement is made once for a dialect, and no statement is
executed here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from dalga.model.job import Standing
from dalga.model.record import Shelf
from dalga.model.run import Cause
from dalga.store.dialect import BY_ID, OWN, Dialect, SharedValues
from dalga.store.parameters import R, Select, Statement, columns
from dalga.store.rows import MAX_COUNT, Override
from dalga.store.schema import RUNS
from dalga.store.selected import (
    DueRow,
    DueTime,
    FoundText,
    JobRow,
    LeaseRow,
    LeaseText,
    Marks,
    OpenRow,
    RunRow,
    TextRow,
    TokenRow,
)

#: The row that a claim has taken.
MINE = "WHERE id = %(id)s AND token = %(token)s"

#: The records on the shelf OPEN of the jobs with one of these ids.
OPEN_ROWS = f"failed = {int(Shelf.OPEN)} AND at = 0 AND job IN ([%(id)s, ...])"

#: The rows whose path is none of these.
WITHOUT = "AND path NOT IN ([%(path)s, ...])"


class FoundRow(NamedTuple):
    """A row that a claim has found, and takes if its `FoundText` is still the same."""

    id: int
    found: bytes


# The ends of runs: the row and the token of the run, and what is written.


class Ended(NamedTuple):
    """A run whose row is deleted."""

    row_id: Any
    row_token: Any


class Succeeded(NamedTuple):
    """
    A run that succeeded, and is followed by another one; the anchor stays. Most ends are of this
    kind, and what `Rescheduled` has besides would cost half as much again.
    """

    row_id: Any
    row_token: Any
    next_scheduled: Any
    next_due: Any


class Rescheduled(NamedTuple):
    """A run that is followed by another one, in all other cases."""

    row_id: Any
    row_token: Any
    next_scheduled: Any
    next_anchor: Any
    next_due: Any
    #: Why the run was given up; None for one that succeeded.
    last_error: Any


class Skipped(NamedTuple):
    """A run that was not begun, as too late."""

    row_id: Any
    row_token: Any
    next_scheduled: Any


class Retried(NamedTuple):
    """A run that is tried again."""

    row_id: Any
    row_token: Any
    next_due: Any
    last_error: Any
    #: OPEN if the run gets an open row, else 0.
    open_bit: Any


class Stopped(NamedTuple):
    """A run that was given up, and the job with it."""

    row_id: Any
    row_token: Any
    last_error: Any


class Finished(NamedTuple):
    """The last run of a job that is kept."""

    row_id: Any
    row_token: Any
    #: 1 for a success that counts, else 0.
    succeeded: Any
    #: 1 for a run that was not begun, as too late, else 0.
    skips: Any


class Disabled(NamedTuple):
    """A run that is over, and whose answer has the job disabled."""

    row_id: Any
    row_token: Any
    next_scheduled: Any
    next_anchor: Any
    #: The answer.
    last_error: Any


class GivenBack(NamedTuple):
    """A run that was not begun, for any instance to claim."""

    row_id: Any
    row_token: Any
    attempts_before: Any
    due_before: Any
    override_before: Any


class Yielded(NamedTuple):
    """A run during which the user did something to the job, which counts."""

    row_id: Any
    row_token: Any
    override_read: Any
    #: None for the job's scheduled time.
    next_due: Any
    override_kept: Any
    #: 1 for a success that counts, else 0.
    succeeded: Any


EndRow = (
    Ended
    | Succeeded
    | Rescheduled
    | Skipped
    | Retried
    | Stopped
    | Finished
    | Disabled
    | GivenBack
    | Yielded
)


class RunStatements:
    """The SQL of runs for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._table = dialect.table
        self._runs = dialect.named(RUNS)

    # What a claim does

    def due_within(self, without: bool) -> Select[DueTime]:
        """:param without: whether there are rows of paths to leave out."""
        return self._due_within_without if without else self._due_within

    @cached_property
    def _due_within(self) -> Select[DueTime]:
        return self._dues("")

    @cached_property
    def _due_within_without(self) -> Select[DueTime]:
        return self._dues(WITHOUT)

    def _dues(self, without: str) -> Select[DueTime]:
        # The time is there also where nothing is due.
        return self._select(
            DueTime,
            f"""
            SELECT (SELECT UTC_TIMESTAMP(6)) AS now, due
            FROM (SELECT 1) AS one LEFT JOIN (
                SELECT due FROM {self._table}
                WHERE due <= %(horizon)s {without} ORDER BY due LIMIT %(limit)s
            ) AS dues ON TRUE
            """,
        )

    def find_due(self, without: bool) -> Select[TextRow]:
        """:param without: whether there are rows of paths to leave out."""
        return self._find_due_without if without else self._find_due

    @cached_property
    def _find_due(self) -> Select[TextRow]:
        return self._due_rows("")

    @cached_property
    def _find_due_without(self) -> Select[TextRow]:
        return self._due_rows(WITHOUT)

    def _due_rows(self, without: str) -> Select[TextRow]:
        return self._select(
            TextRow.read,
            f"""
            SELECT {self._row_text(self._found)} AS text
            FROM {self._table}{self._dialect.by_due}
            WHERE due <= (SELECT UTC_TIMESTAMP(6)) AND {self._dialect.same_version} {without}
            ORDER BY due, id LIMIT %(limit)s{self._dialect.skip_locked}
            """,
        )

    @cached_property
    def read_found(self) -> Select[TextRow]:
        """Rows as `find_due` gives them, also if they are not due."""
        return self._select(
            TextRow.read,
            f"SELECT {self._row_text(self._found)} AS text FROM {self._table} WHERE {BY_ID}",
        )

    @property
    def _found(self) -> str:
        """An expression: a row's `FoundText`."""
        dialect = self._dialect
        texts = FoundText(
            due="due",
            leased="(token IS NOT NULL)",
            override=dialect.whole("override"),
            disabled=dialect.whole("disabled"),
            standing=dialect.whole("standing"),
            skipped=dialect.whole("skipped"),
            attempts=dialect.whole("attempts"),
            successes=dialect.whole("successes"),
            version=dialect.whole("version"),
            extras=dialect.whole("extras"),
            cause=dialect.whole("cause"),
            length=dialect.length("body"),
            scheduled="scheduled",
            anchor="anchor",
            started="QUOTE(started)",
            run=dialect.hexadecimal("run"),
            schedule="schedule",
            location="location",
            options="options",
            path="path",
            body="body",
        )
        return dialect.joined(texts)

    def _row_text(self, columns: str) -> str:
        """
        An expression: what `TextRow.read` takes.

        :param columns: an expression, of `Dialect.joined`.
        """
        now = "(SELECT UTC_TIMESTAMP(6))"
        return self._dialect.joined([now, "id", f"COALESCE({columns}, '')"])

    @cached_property
    def take_found(self) -> Statement:
        """Takes rows as they were found, and no others."""
        # A text has the job's key, so no row has the text of another row. The server sorts both
        # lists, which costs less than a derived table of pairs.
        return self._take(f"{BY_ID} AND {self._found} IN ([%(found)s, ...])")

    @cached_property
    def take(self) -> Statement:
        """Takes rows that are due, however they are."""
        return self._take(f"{BY_ID} AND due <= %(now)s")

    def _take(self, condition: str) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_id} SET
                due = %(lease_ends)s,
                token = %(token)s,
                run = COALESCE(run, %(token)s),
                started = COALESCE(started, %(now)s),
                attempts = CASE WHEN disabled = 0 AND attempts < {MAX_COUNT}
                    THEN attempts + 1 ELSE attempts END,
                override = CASE override WHEN {Override.DELETED}
                    THEN {Override.DELETED} ELSE {Override.NONE} END
            WHERE {condition}
            """)

    @cached_property
    def read_due(self) -> Select[DueRow]:
        return self._select(DueRow, f"SELECT {columns(DueRow)} FROM {self._table} WHERE {BY_ID}")

    @cached_property
    def read_taken(self) -> Select[RunRow]:
        return self._select(
            RunRow,
            f"""
            SELECT {columns(RunRow)} FROM {self._table}
            WHERE {BY_ID} AND token = %(token)s
            """,
        )

    @cached_property
    def drop(self) -> Statement:
        return self._dialect.prepare(f"DELETE FROM {self._table} {MINE}")

    @cached_property
    def set_aside(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table} SET
                error = %(error)s,
                token = NULL,
                due = NULL,
                run = NULL,
                started = NULL,
                attempts = 0,
                cause = {Cause.SCHEDULE},
                standing = {Standing.ASIDE},
                disabled = 0
            {MINE}
            """)

    @cached_property
    def postpone(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table} SET
                due = scheduled,
                token = NULL,
                run = NULL,
                started = NULL,
                attempts = 0
            {MINE}
            """)

    @cached_property
    def park(self) -> Statement:
        """Disabled during a run of which nothing was heard."""
        return self._dialect.prepare(f"UPDATE {self._table} SET due = NULL, token = NULL {MINE}")

    # What a record reads

    @cached_property
    def read_leases(self) -> Select[TextRow]:
        dialect = self._dialect
        texts = LeaseText(
            override=dialect.whole("override"),
            token=dialect.hexadecimal("token"),
            disabled=dialect.whole("disabled"),
            version=dialect.whole("version"),
            extras=dialect.whole("extras"),
            streak=dialect.whole("streak"),
            alerted=dialect.whole("alerted"),
            options="options",
        )
        return self._select(
            TextRow.read,
            f"""
            SELECT {self._row_text(dialect.joined(texts))} AS text
            FROM {self._table}{dialect.by_id}
            WHERE {BY_ID} AND {dialect.same_version}{dialect.skip_locked}
            """,
        )

    @cached_property
    def read_odd_leases(self) -> Select[LeaseRow]:
        return self._select(
            LeaseRow, f"SELECT {columns(LeaseRow)} FROM {self._table} WHERE {BY_ID}"
        )

    @cached_property
    def read_tokens(self) -> Select[TokenRow]:
        return self._select(
            TokenRow, f"SELECT {columns(TokenRow)} FROM {self._table} WHERE {BY_ID}"
        )

    @cached_property
    def read_marks(self) -> Select[Marks]:
        return self._select(Marks, f"SELECT {columns(Marks)} FROM {self._table} WHERE {BY_ID}")

    # What the end of a run writes. A job that was disabled meanwhile is due no more (P4). No value
    # may use a column that the same statement assigns: on MySQL this is an UPDATE of two tables,
    # which assigns in no certain order.

    @cached_property
    def delete_rows(self) -> Statement:
        return self._dialect.delete_rows(Ended._fields, f"override = {Override.NONE}")

    @cached_property
    def bury_rows(self) -> Statement:
        return self._dialect.delete_rows(Ended._fields, f"override = {Override.DELETED}")

    @cached_property
    def succeed_rows(self) -> Statement:
        return self._update_rows(
            Succeeded._fields,
            f"""
                due = {_unless_disabled("next_due")},
                scheduled = next_scheduled,
                token = NULL,
                run = NULL,
                started = NULL,
                attempts = 0,
                cause = {Cause.SCHEDULE},
                successes = CASE WHEN successes < {MAX_COUNT}
                    THEN successes + 1 ELSE successes END,
                error = NULL,
                standing = {Standing.SOUND}
            """,
        )

    @cached_property
    def reschedule_rows(self) -> Statement:
        return self._update_rows(
            Rescheduled._fields,
            f"""
                due = {_unless_disabled("next_due")},
                scheduled = next_scheduled,
                anchor = next_anchor,
                token = NULL,
                run = NULL,
                started = NULL,
                attempts = 0,
                cause = {Cause.SCHEDULE},
                successes = CASE WHEN last_error IS NULL AND successes < {MAX_COUNT}
                    THEN successes + 1 ELSE successes END,
                error = last_error,
                standing = CASE WHEN last_error IS NULL
                    THEN {Standing.SOUND} ELSE {Standing.FAILED} END
            """,
        )

    @cached_property
    def skip_rows(self) -> Statement:
        return self._update_rows(
            Skipped._fields,
            f"""
                due = {_unless_disabled("next_scheduled")},
                scheduled = next_scheduled,
                token = NULL,
                run = NULL,
                started = NULL,
                attempts = 0,
                cause = {Cause.SCHEDULE},
                skipped = CASE WHEN skipped < {MAX_COUNT} THEN skipped + 1 ELSE skipped END
            """,
        )

    @cached_property
    def retry_rows(self) -> Statement:
        return self._update_rows(
            Retried._fields,
            f"""
                due = {_unless_disabled("next_due")},
                error = last_error,
                extras = extras | open_bit,
                token = NULL
            """,
        )

    @cached_property
    def stop_rows(self) -> Statement:
        return self._update_rows(
            Stopped._fields,
            f"""
                due = NULL,
                error = last_error,
                token = NULL,
                standing = {Standing.STOPPED}
            """,
        )

    @cached_property
    def finish_rows(self) -> Statement:
        return self._update_rows(
            Finished._fields,
            f"""
                due = NULL,
                token = NULL,
                run = NULL,
                started = NULL,
                attempts = 0,
                cause = {Cause.SCHEDULE},
                successes = CASE WHEN successes < {MAX_COUNT}
                    THEN successes + succeeded ELSE successes END,
                skipped = CASE WHEN skipped < {MAX_COUNT} THEN skipped + skips ELSE skipped END,
                error = NULL,
                standing = {Standing.DONE}
            """,
        )

    @cached_property
    def disable_rows(self) -> Statement:
        return self._update_rows(
            Disabled._fields,
            f"""
                due = NULL,
                scheduled = next_scheduled,
                anchor = next_anchor,
                token = NULL,
                run = NULL,
                started = NULL,
                attempts = 0,
                cause = {Cause.SCHEDULE},
                error = last_error,
                standing = {Standing.SOUND},
                disabled = 1
            """,
        )

    @cached_property
    def give_back_rows(self) -> Statement:
        return self._update_rows(
            GivenBack._fields,
            f"""
                due = {_unless_disabled("due_before")},
                token = NULL,
                attempts = attempts_before,
                override = override_before,
                started = CASE WHEN attempts_before > 0 THEN started END
            """,
        )

    @cached_property
    def yield_rows(self) -> Statement:
        return self._dialect.update_rows(
            Yielded._fields,
            f"""
                due = {_unless_disabled("COALESCE(next_due, scheduled)")},
                token = NULL,
                override = override_kept,
                successes = CASE WHEN successes < {MAX_COUNT}
                    THEN successes + succeeded ELSE successes END
            """,
            "override = override_read",
        )

    def _update_rows(self, fields: tuple[str, ...], assignments: str) -> Statement:
        """The end of runs during which the user did nothing to the job."""
        return self._dialect.update_rows(fields, assignments, f"override = {Override.NONE}")

    # The table of runs

    @cached_property
    def read_open(self) -> Select[OpenRow]:
        return self._open_rows("")

    @cached_property
    def lock_open(self) -> Select[OpenRow]:
        """The open rows that no other session has locked."""
        return self._open_rows(self._dialect.skip_locked)

    def _open_rows(self, lock: str) -> Select[OpenRow]:
        return self._select(
            OpenRow,
            f"""
            SELECT {columns(OpenRow)} FROM {self._runs}{self._dialect.by_index("PRIMARY")}
            WHERE {OPEN_ROWS}{lock}
            """,
        )

    @cached_property
    def remove_open(self) -> Statement:
        return self._dialect.delete_by_index(RUNS, "PRIMARY", OPEN_ROWS)

    @cached_property
    def copy_open(self) -> Statement:
        """Puts open rows on another shelf, too."""
        given = ("failed", "at", "result")
        names = (*OWN, *SharedValues._fields)
        values = (f"%({name})s" if name in given else name for name in names)
        return self._dialect.prepare(f"""
            INSERT INTO {self._runs} ({", ".join(names)})
            SELECT {", ".join(values)} FROM {self._runs}{self._dialect.by_index("PRIMARY")}
            WHERE {OPEN_ROWS}
            """)

    @cached_property
    def unmark(self) -> Statement:
        """Takes bits from the extras of jobs."""
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_id} SET extras = extras & ~%(bits)s WHERE {BY_ID}
            """)

    @cached_property
    def hold_record(self) -> Statement:
        """Changes nothing: tells whether a record was committed, once nobody writes it any more."""
        return self._dialect.prepare(f"""
            UPDATE {self._runs}{self._dialect.by_index("PRIMARY")} SET attempts = attempts
            WHERE failed = {int(Shelf.FAILED)} AND at = %(at)s AND job = %(job)s
            """)

    # What a correction does, after the clock was set back

    @cached_property
    def ahead(self) -> Select[JobRow]:
        return self._select(
            JobRow,
            f"""
            SELECT {columns(JobRow)} FROM {self._table}{self._dialect.by_due}
            WHERE due >= %(due)s AND (due > %(due)s OR id > %(id)s)
            ORDER BY due, id LIMIT %(limit)s
            """,
        )

    @cached_property
    def correct(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_id} SET
                anchor = %(anchor)s,
                scheduled = %(scheduled)s,
                due = %(due)s
            WHERE id = %(id)s
            AND anchor = %(found_anchor)s
            AND scheduled = %(found_scheduled)s
            AND due = %(found_due)s
            """)

    def _select(self, row: Callable[..., R], sql: str) -> Select[R]:
        return Select(row, self._dialect.prepare(sql))


def _unless_disabled(due: str) -> str:
    return f"CASE disabled WHEN 0 THEN {due} END"
