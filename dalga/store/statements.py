"""
The SQL of the jobs table and of the table of instances, as all engines take it.

Each statement is made once for a dialect; `dalga.store.parameters` says how its parameters are
written and given. The NamedTuples here are the rows of values that a statement takes. This module
executes no statement.

One trap decides the order of some SET lists. MySQL assigns from left to right, so that a later
expression sees an earlier column's new value. SQLite, like the standard, shows old values only. For
the same result on both, ``token`` stands first, then ``override``, then ``due``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, NamedTuple

from dalga.model.job import AT_REST, Standing
from dalga.model.record import Shelf
from dalga.model.run import Cause
from dalga.store.dialect import OWN, Dialect, SharedValues
from dalga.store.extras import OPEN, STALE, DetailsRow
from dalga.store.parameters import R, Select, Statement, columns
from dalga.store.rows import MAX_COUNT, MAX_VERSION, Override
from dalga.store.schema import DETAILS, EXPECTED, KEYS, RUNS, TAGS
from dalga.store.selected import (
    CountsRow,
    DueRow,
    DueTime,
    FoundText,
    InstanceRow,
    InstancesRow,
    JobRow,
    KeptRow,
    KeyRow,
    LeaseRow,
    LeaseText,
    LockedRow,
    Marks,
    NowRow,
    NumberRow,
    OpenRow,
    RunRow,
    TextRow,
    TokenRow,
    WholeRow,
)

#: A run of the job is under way.
LEASED = "token IS NOT NULL AND due > %(now)s"

#: The job waits for a user, and has no due time.
RESTS = f"(standing IN ({', '.join(str(int(each)) for each in AT_REST)}))"

#: The job's schedule is a calendar (P1M) or a cron expression, which have times of their own. For
#: all others a trigger is where elapsed time is counted from.
BY_THE_CLOCK = (
    "(INSTR(schedule, ' ') > 0 OR SUBSTR(schedule, 1, 1) = 'P' AND SUBSTR(schedule, 2, 1) <> 'T')"
)

#: The row of a job that is as a PUT has read it.
AS_FOUND = f"""
            WHERE path = %(path)s AND body = %(body)s
            AND schedule = %(found_schedule)s
            AND location = %(found_location)s
            AND options = %(found_options)s
            AND disabled = %(found_disabled)s
            AND version = %(found_version)s
            AND extras = %(found_extras)s
            AND override <> {Override.DELETED}"""

#: The row that a claim has taken.
MINE = "WHERE id = %(id)s AND token = %(token)s"

#: The row of a job that the user has not deleted.
BY_KEY = f"WHERE path = %(path)s AND body = %(body)s AND override <> {Override.DELETED}"

#: The rows of jobs, by `KeyValues`.
ANY_KEY = "[path = %(path)s AND body = %(body)s OR ...]"

#: The rows with one of these ids.
ANY_ID = "id IN ([%(id)s, ...])"

#: The records on the shelf OPEN of the jobs with one of these ids.
OPEN_ROWS = f"failed = {int(Shelf.OPEN)} AND at = 0 AND job IN ([%(id)s, ...])"

#: The rows whose path is none of these.
WITHOUT = "AND path NOT IN ([%(path)s, ...])"


class KeyValues(NamedTuple):
    """The job's key."""

    path: Any
    body: Any


class OldKey(NamedTuple):
    """A row of the table of keys."""

    path: Any
    idempotency: Any


class FoundRow(NamedTuple):
    """A row that a claim has found, and takes if its `FoundText` is still the same."""

    id: int
    found: bytes


class NewRow(NamedTuple):
    """A row for a job; each field is a column."""

    path: Any
    body: Any
    schedule: Any
    location: Any
    options: Any
    anchor: Any
    scheduled: Any
    due: Any
    version: Any
    extras: Any


class NewDetails(NamedTuple):
    """A row of details; each field is a column."""

    id: Any
    path: Any
    body: Any
    members: Any
    payload: Any


class NewTag(NamedTuple):
    """A tag of a job; each field is a column."""

    tag: Any
    path: Any
    body: Any
    id: Any


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


class Statements:
    """The SQL for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._table = dialect.table
        self._keys = dialect.named(KEYS)
        self._runs = dialect.named(RUNS)

    # What the API reads

    @cached_property
    def get(self) -> Select[JobRow]:
        return self._select(
            JobRow,
            f"""
            SELECT {columns(JobRow)} FROM {self._table}
            WHERE override <> {Override.DELETED} AND ({ANY_KEY})
            """,
        )

    @cached_property
    def find_all(self) -> Select[KeyRow]:
        return self._select(KeyRow, f"SELECT {columns(KeyRow)} FROM {self._table} WHERE {ANY_KEY}")

    @cached_property
    def find_rows(self) -> Select[JobRow]:
        return self._select(JobRow, f"SELECT {columns(JobRow)} FROM {self._table} WHERE {ANY_KEY}")

    @cached_property
    def counts(self) -> Select[CountsRow]:
        # By id, the one order in which no row moves while others are counted.
        dialect = self._dialect
        return self._select(
            CountsRow,
            f"""
            SELECT
                (SELECT COUNT(*) FROM {dialect.heartbeats} WHERE seen > %(alive)s) AS instances,
                (SELECT MIN(due) FROM {self._table}{dialect.by_due} WHERE due <= %(now)s) AS oldest,
                COUNT(*) AS total,
                COUNT(is_pending) AS pending,
                COUNT(is_set_aside) AS set_aside,
                COUNT(is_running) AS running,
                MAX(id) AS last
            FROM (
                SELECT id,
                    CASE WHEN due <= %(now)s THEN 1 END AS is_pending,
                    CASE WHEN due IS NULL AND disabled = 0 AND NOT {RESTS}
                        THEN 1 END AS is_set_aside,
                    CASE WHEN {LEASED} AND due <= %(last_lease)s THEN 1 END AS is_running
                FROM {self._table}{dialect.by_id}
                WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
            ) AS counted
            """,
        )

    @cached_property
    def now(self) -> Select[NowRow]:
        return self._select(NowRow, self._dialect.now)

    # What a PUT writes

    @cached_property
    def put(self) -> Statement:
        return self._dialect.prepare(self._insert + self._upsert)

    @cached_property
    def add(self) -> Statement:
        unless_there = (
            f" {self._dialect.on_conflict('path, body')} disabled = {self._table}.disabled"
        )
        return self._dialect.prepare(self._insert + unless_there)

    @property
    def _insert(self) -> str:
        values = ", ".join(f"%({name})s" for name in NewRow._fields)
        return f"""
            INSERT INTO {self._table} ({", ".join(NewRow._fields)}) VALUES [({values}), ...]"""

    @property
    def _upsert(self) -> str:
        new = self._dialect.proposed
        return f"""
            {self._dialect.on_conflict("path, body")}
                token = CASE WHEN due > %(now)s THEN token END,
                override = CASE WHEN {LEASED} THEN
                    CASE {new("scheduled")} WHEN %(now)s
                    THEN {Override.RUN_NOW} ELSE {Override.RESCHEDULED} END
                    ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due ELSE {new("due")} END,
                schedule = {new("schedule")},
                location = {new("location")},
                options = {new("options")},
                anchor = {new("anchor")},
                scheduled = {new("scheduled")},
                run = NULL,
                started = NULL,
                attempts = 0,
                error = NULL,
                successes = 0,
                skipped = 0,
                standing = {Standing.SOUND},
                disabled = 0,
                cause = {Cause.SCHEDULE},
                version = {self._newer(new("version"))},
                extras = {self._marked(new("extras"))}
            """

    @staticmethod
    def _newer(version: str) -> str:
        """An expression: the version of a job that is written over."""
        return f"""CASE WHEN version >= {version} AND version < {MAX_VERSION}
                    THEN version + 1 ELSE {version} END"""

    @staticmethod
    def _marked(extras: str) -> str:
        """An expression: the extras of a job that is written over, until `settle`."""
        return f"CASE WHEN extras = 0 THEN {extras} ELSE {extras} | {STALE} | (extras & {OPEN}) END"

    @cached_property
    def lock(self) -> Select[LockedRow]:
        # By the index of keys, as everybody else who goes by a key: no deadlocks.
        return self._select(
            LockedRow,
            f"""
            SELECT {columns(LockedRow)} FROM {self._table}{self._dialect.by_key}
            WHERE {ANY_KEY}{self._dialect.skip_locked}
            """,
        )

    @cached_property
    def amend(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                schedule = %(schedule)s,
                location = %(location)s,
                options = %(options)s,
                version = {self._newer("%(version)s")},
                extras = %(extras)s
            {AS_FOUND}
            AND scheduled = %(scheduled)s
            """)

    @cached_property
    def hold(self) -> Statement:
        """Changes nothing: compares, and locks where there are locks."""
        return self._dialect.prepare(
            f"UPDATE {self._table}{self._dialect.by_key} SET disabled = disabled {AS_FOUND}"
        )

    @cached_property
    def hold_deleted(self) -> Statement:
        """The same as `hold` for a job that was deleted during a run."""
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET disabled = disabled
            WHERE path = %(path)s AND body = %(body)s AND override = {Override.DELETED}
            """)

    @cached_property
    def hold_version(self) -> Statement:
        """Changes nothing: compares, and locks where there are locks."""
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET disabled = disabled
            {BY_KEY} AND version = %(version)s
            """)

    # The tables of details and tags

    @cached_property
    def read_details(self) -> Select[DetailsRow]:
        return self._select(DetailsRow, self._with_details(DetailsRow._fields[:3]))

    @cached_property
    def read_whole(self) -> Select[WholeRow]:
        """Jobs with their details, read as one."""
        return self._select(WholeRow.read, self._with_details(JobRow._fields))

    def _with_details(self, names: Iterable[str]) -> str:
        """:param names: the columns of the jobs table that are given before those of details."""
        dialect = self._dialect
        octets = (
            f"{dialect.length('beside.members')} + COALESCE({dialect.length('beside.payload')}, 0)"
        )
        fits = f"CASE WHEN {octets} <= (job.extras >> 8) << 10 THEN"
        return f"""
            SELECT
                {", ".join(f"job.{name} AS {name}" for name in names)},
                beside.id AS details,
                {fits} beside.members END AS members,
                {fits} beside.payload END AS payload
            FROM {self._table} AS job
            LEFT JOIN {dialect.named(DETAILS)} AS beside ON beside.id = job.id
            WHERE job.id IN ([%(id)s, ...])
            """

    @cached_property
    def put_details(self) -> Statement:
        new = self._dialect.proposed
        return self._dialect.prepare(f"""
            {self._insert_into(DETAILS, NewDetails)}
            {self._dialect.on_conflict("id")}
                path = {new("path")},
                body = {new("body")},
                members = {new("members")},
                payload = {new("payload")}
            """)

    @cached_property
    def put_tags(self) -> Statement:
        # A row may be there that somebody has left behind.
        new = self._dialect.proposed
        return self._dialect.prepare(f"""
            {self._insert_into(TAGS, NewTag)}
            {self._dialect.on_conflict("tag, path, body")} id = {new("id")}
            """)

    def _insert_into(self, suffix: str, row: type[tuple[Any, ...]]) -> str:
        names: tuple[str, ...] = row._fields  # type: ignore[attr-defined]
        values = ", ".join(f"%({name})s" for name in names)
        table = self._dialect.named(suffix)
        return f"INSERT INTO {table} ({columns(row)}) VALUES [({values}), ...]"

    @cached_property
    def delete_details(self) -> Statement:
        return self._dialect.delete_by_index(DETAILS, "PRIMARY")

    @cached_property
    def delete_tags(self) -> Statement:
        return self._dialect.delete_by_index(TAGS, "id")

    @cached_property
    def delete_expected(self) -> Statement:
        return self._dialect.delete_by_index(EXPECTED, "PRIMARY")

    @cached_property
    def find_details(self) -> Select[NumberRow]:
        return self._ids_in(DETAILS, "PRIMARY")

    @cached_property
    def lock_details(self) -> Select[NumberRow]:
        return self._ids_in(DETAILS, "PRIMARY", self._dialect.skip_locked)

    @cached_property
    def find_tags(self) -> Select[NumberRow]:
        return self._ids_in(TAGS, "id")

    @cached_property
    def lock_tags(self) -> Select[NumberRow]:
        return self._ids_in(TAGS, "id", self._dialect.skip_locked)

    def _ids_in(self, suffix: str, index: str, lock: str = "") -> Select[NumberRow]:
        """The ids of jobs in another table, once for each of its rows."""
        dialect = self._dialect
        return self._select(
            NumberRow,
            f"""
            SELECT id AS number FROM {dialect.named(suffix)}{dialect.by_index(index)}
            WHERE {ANY_ID}{lock}
            """,
        )

    @cached_property
    def settle(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_id} SET extras = extras & ~{STALE} WHERE {ANY_ID}
            """)

    @cached_property
    def set_extras(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_id} SET extras = %(extras)s WHERE id = %(id)s
            """)

    # What else a user does to a job

    @cached_property
    def trigger(self) -> Statement:
        # A run that the job has stopped on is run again, as the same; else it is a new one.
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                token = CASE WHEN due > %(now)s THEN token END,
                override = CASE WHEN {LEASED} THEN
                    CASE WHEN override IN ({Override.RESCHEDULED}, {Override.RUN_NOW})
                    THEN {Override.RUN_NOW} ELSE {Override.TRIGGERED} END
                    ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due ELSE %(now)s END,
                anchor = CASE WHEN standing = {Standing.STOPPED} OR {BY_THE_CLOCK}
                    THEN anchor ELSE %(now)s END,
                scheduled = CASE standing WHEN {Standing.STOPPED} THEN scheduled ELSE %(now)s END,
                run = CASE standing WHEN {Standing.STOPPED} THEN run END,
                attempts = CASE standing WHEN {Standing.STOPPED} THEN attempts ELSE 0 END,
                error = CASE standing WHEN {Standing.FAILED} THEN error END,
                started = NULL,
                cause = CASE standing WHEN {Standing.STOPPED} THEN cause ELSE {Cause.MANUAL} END,
                standing = CASE WHEN standing IN ({Standing.STOPPED}, {Standing.ASIDE})
                    THEN {Standing.SOUND} ELSE standing END
            {BY_KEY} AND disabled = 0 AND standing <> {Standing.DONE}
            """)

    @cached_property
    def enable(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                token = CASE WHEN due > %(now)s THEN token END,
                override = CASE WHEN {LEASED} THEN override ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due
                    WHEN NOT {RESTS} THEN scheduled END,
                started = CASE WHEN {LEASED} THEN started END,
                error = CASE WHEN attempts > 0
                    OR standing IN ({Standing.FAILED}, {Standing.STOPPED}) THEN error END,
                standing = CASE standing WHEN {Standing.ASIDE}
                    THEN {Standing.SOUND} ELSE standing END,
                disabled = 0
            {BY_KEY} AND disabled <> 0
            """)

    @cached_property
    def disable(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                token = CASE WHEN due > %(now)s THEN token END,
                override = CASE WHEN {LEASED} THEN override ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due END,
                disabled = 1
            {BY_KEY}
            """)

    @cached_property
    def delete_idle(self) -> Statement:
        """Of a job that has nothing in other tables."""
        return self._dialect.prepare(f"""
            DELETE FROM {self._table} WHERE path = %(path)s AND body = %(body)s
            AND (token IS NULL OR due IS NULL OR due <= %(now)s) AND extras = 0
            """)

    @cached_property
    def delete_idle_row(self) -> Statement:
        return self._dialect.prepare(f"""
            DELETE FROM {self._table} WHERE id = %(id)s
            AND (token IS NULL OR due IS NULL OR due <= %(now)s)
            """)

    @cached_property
    def delete_leased(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET override = {Override.DELETED}
            WHERE path = %(path)s AND body = %(body)s AND {LEASED}
            """)

    # The table of keys

    @cached_property
    def find_key(self) -> Select[KeptRow]:
        return self._select(
            KeptRow,
            f"""
            SELECT {columns(KeptRow)} FROM {self._keys}
            WHERE path = %(path)s AND idempotency = %(idempotency)s
            """,
        )

    @cached_property
    def keep_key(self) -> Statement:
        """Changes nothing if the key is there."""
        return self._dialect.prepare(f"""
            INSERT INTO {self._keys} (path, idempotency, digest, body, version, made)
            VALUES (
                %(path)s, %(idempotency)s, %(digest)s, %(body)s, %(version)s, %(made)s
            )
            {self._dialect.on_conflict("path, idempotency")} made = {self._keys}.made
            """)

    @cached_property
    def renew_key(self) -> Statement:
        """Writes over a key that is as it was found."""
        return self._dialect.prepare(f"""
            UPDATE {self._keys} SET
                digest = %(digest)s,
                body = %(body)s,
                version = %(version)s,
                made = %(made)s
            WHERE path = %(path)s AND idempotency = %(idempotency)s AND made = %(found)s
            """)

    @cached_property
    def old_keys(self) -> Select[OldKey]:
        return self._select(
            OldKey,
            f"""
            SELECT {columns(OldKey)} FROM {self._keys}
            WHERE made <= %(before)s ORDER BY made LIMIT %(limit)s
            """,
        )

    @cached_property
    def forget_keys(self) -> Statement:
        return self._dialect.prepare(f"""
            DELETE FROM {self._keys} WHERE made <= %(before)s
            AND ([path = %(path)s AND idempotency = %(idempotency)s OR ...])
            """)

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
            f"SELECT {self._row_text(self._found)} AS text FROM {self._table} WHERE {ANY_ID}",
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
        return self._take(f"{ANY_ID} AND {self._found} IN ([%(found)s, ...])")

    @cached_property
    def take(self) -> Statement:
        """Takes rows that are due, however they are."""
        return self._take(f"{ANY_ID} AND due <= %(now)s")

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
        return self._select(DueRow, f"SELECT {columns(DueRow)} FROM {self._table} WHERE {ANY_ID}")

    @cached_property
    def read_taken(self) -> Select[RunRow]:
        return self._select(
            RunRow,
            f"""
            SELECT {columns(RunRow)} FROM {self._table}
            WHERE {ANY_ID} AND token = %(token)s
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
            WHERE {ANY_ID} AND {dialect.same_version}{dialect.skip_locked}
            """,
        )

    @cached_property
    def read_odd_leases(self) -> Select[LeaseRow]:
        return self._select(
            LeaseRow, f"SELECT {columns(LeaseRow)} FROM {self._table} WHERE {ANY_ID}"
        )

    @cached_property
    def read_tokens(self) -> Select[TokenRow]:
        return self._select(
            TokenRow, f"SELECT {columns(TokenRow)} FROM {self._table} WHERE {ANY_ID}"
        )

    @cached_property
    def read_marks(self) -> Select[Marks]:
        return self._select(Marks, f"SELECT {columns(Marks)} FROM {self._table} WHERE {ANY_ID}")

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
        return self._select(
            OpenRow,
            f"""
            SELECT {columns(OpenRow)} FROM {self._runs}{self._dialect.by_index("PRIMARY")}
            WHERE {OPEN_ROWS}
            """,
        )

    @cached_property
    def find_open(self) -> Select[NumberRow]:
        return self._open_jobs("")

    @cached_property
    def lock_open(self) -> Select[NumberRow]:
        return self._open_jobs(self._dialect.skip_locked)

    def _open_jobs(self, lock: str) -> Select[NumberRow]:
        by_key = self._dialect.by_index("PRIMARY")
        return self._select(
            NumberRow,
            f"SELECT job AS number FROM {self._runs}{by_key} WHERE {OPEN_ROWS}{lock}",
        )

    @cached_property
    def find_waiting(self) -> Select[KeyRow]:
        """The job's row, if it has an open row, and no run of it is under way."""
        return self._select(
            KeyRow,
            f"""
            SELECT {columns(KeyRow)} FROM {self._table} {BY_KEY}
            AND token IS NULL AND (extras & {OPEN}) <> 0
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
    def mark_open(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_id} SET extras = extras | {OPEN} WHERE {ANY_ID}
            """)

    @cached_property
    def unmark_open(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_id} SET extras = extras & ~{OPEN} WHERE {ANY_ID}
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

    # The table of instances

    @cached_property
    def announce(self) -> Statement:
        return self._dialect.prepare(f"""
            INSERT INTO {self._dialect.heartbeats} (id, seen, since, about)
            VALUES (%(id)s, %(seen)s, %(since)s, %(about)s)
            {self._dialect.on_conflict("id")}
                seen = {self._dialect.proposed("seen")},
                about = {self._dialect.proposed("about")}
            """)

    @cached_property
    def instances(self) -> Select[InstanceRow]:
        return self._select(
            InstanceRow,
            f"""
            SELECT {columns(InstanceRow)} FROM {self._dialect.heartbeats}
            WHERE seen > %(alive)s ORDER BY id LIMIT %(limit)s
            """,
        )

    @cached_property
    def depart(self) -> Statement:
        return self._dialect.prepare(f"DELETE FROM {self._dialect.heartbeats} WHERE id = %(id)s")

    @cached_property
    def forget(self) -> Statement:
        return self._dialect.prepare(
            f"DELETE FROM {self._dialect.heartbeats} WHERE seen <= %(seen)s"
        )

    @cached_property
    def count_instances(self) -> Select[InstancesRow]:
        return self._select(
            InstancesRow,
            f"""
            SELECT
                COUNT(CASE WHEN seen <= %(seen)s THEN 1 END) AS gone,
                COUNT(CASE WHEN seen > %(seen)s AND id <> %(id)s THEN 1 END) AS others
            FROM {self._dialect.heartbeats}
            """,
        )

    @cached_property
    def count_ahead(self) -> Select[NumberRow]:
        return self._select(
            NumberRow,
            f"SELECT COUNT(*) AS number FROM {self._dialect.heartbeats} WHERE seen > %(seen)s",
        )

    def _select(self, row: Callable[..., R], sql: str) -> Select[R]:
        return Select(row, self._dialect.prepare(sql))


def _unless_disabled(due: str) -> str:
    return f"CASE disabled WHEN 0 THEN {due} END"
