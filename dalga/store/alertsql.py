"""
The SQL of alerts, of incidents, and of jobs that are expected to succeed now and then. As
`dalga.store.statements`, it executes none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from dalga.model.alert import Event
from dalga.store.dialect import Dialect
from dalga.store.parameters import R, Select, Statement, columns
from dalga.store.schema import ALERTS, EXPECTED, INCIDENTS

#: Alerts that wait to be sent are counted up to this.
PENDING_COUNTED = 1_000

#: The id of an alert is octets. On SQLite, a stranger's id may be text or a number: both stand
#: before all octets.
_BY_OCTETS = "id >= X''"


class NewAlert(NamedTuple):
    """An alert; each field is a column."""

    id: bytes
    event: str
    endpoint: Any
    path: Any
    body: Any
    target: Any
    made: Any
    due: Any
    content: str


class DueAlert(NamedTuple):
    """An alert that is to be sent."""

    id: Any
    event: Any
    endpoint: Any
    path: Any
    body: Any
    target: Any
    made: Any
    attempts: Any
    content: Any


class Subject(NamedTuple):
    """A job's path and body; both empty for an alert about no job."""

    path: Any
    body: Any


class PendingAlert(NamedTuple):
    """An alert that waits to be sent, or is being sent under a lease."""

    id: Any
    endpoint: Any
    target: Any
    path: Any
    body: Any
    due: Any
    token: Any


class UntakenAlert(NamedTuple):
    """An alert that nobody has taken."""

    id: Any
    target: Any


class OpenSummary(NamedTuple):
    """A summary that is not sent yet."""

    id: Any
    content: Any


class KeptAlert(NamedTuple):
    """An alert as a list shows it."""

    id: Any
    target: Any
    due: Any
    attempts: Any
    sent: Any
    error: Any
    content: Any


class SentLately(NamedTuple):
    """How many alerts were sent since a time, and when the first of them was."""

    number: int
    first: Any


class IdRow(NamedTuple):
    """The id of an alert."""

    id: Any


class Marked(NamedTuple):
    """What the end of a run makes of its job's streak."""

    row_id: Any
    row_token: Any
    new_streak: Any
    new_alerted: Any


class ToldRow(NamedTuple):
    """A job's row, to tell of the job if nobody was told yet."""

    path: Any
    body: Any
    alerted: Any
    options: Any


class ExpectedRow(NamedTuple):
    """A job that is expected to succeed; each field is a column."""

    id: Any
    path: Any
    body: Any
    silent: Any


class SilentRow(NamedTuple):
    """A job that is silent, and the columns of its row, which are None if the row is gone."""

    id: Any
    path: Any
    body: Any
    silent: Any
    job: Any
    options: Any
    disabled: Any
    standing: Any
    override: Any
    alerted: Any
    due: Any


class IncidentRow(NamedTuple):
    """An incident; each field is a column."""

    name: Any
    since: Any
    instance: Any


class DueSince(NamedTuple):
    """The earliest due time of all jobs."""

    due: Any


class Number(NamedTuple):
    """How many."""

    number: int


class AlertStatements:
    """The SQL for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._table = dialect.table
        self._alerts = dialect.named(ALERTS)
        self._expected = dialect.named(EXPECTED)
        self._incidents = dialect.named(INCIDENTS)
        self._by_due = dialect.by_index("alertdue")
        #: For what is written: by another index a server would lock rows of other senders, too.
        self._by_id = dialect.by_index("PRIMARY")

    # Alerts

    @cached_property
    def add(self) -> Statement:
        values = ", ".join(f"%({name})s" for name in NewAlert._fields)
        return self._dialect.prepare(f"""
            INSERT INTO {self._alerts} ({columns(NewAlert)}) VALUES [({values}), ...]
            """)

    @cached_property
    def due(self) -> Select[DueAlert]:
        return self._select(
            DueAlert,
            f"""
            SELECT {columns(DueAlert)} FROM {self._alerts}{self._by_due}
            WHERE due <= %(now)s AND {_BY_OCTETS} AND target IN ([%(target)s, ...])
            ORDER BY due LIMIT %(limit)s{self._dialect.skip_locked}
            """,
        )

    @cached_property
    def pending_of(self) -> Select[PendingAlert]:
        """
        The alerts about some jobs that are not over, of the first ones in due order. No row is
        locked, and rows are given that another session has locked.
        """
        return self._select(
            PendingAlert,
            f"""
            SELECT {columns(PendingAlert)} FROM (
                SELECT {columns(PendingAlert)}, event FROM {self._alerts}{self._by_due}
                WHERE due > %(after)s AND {_BY_OCTETS} ORDER BY due LIMIT %(looked_at)s
            ) AS pending
            WHERE COALESCE(path, '') IN ([%(path)s, ...])
            AND COALESCE(body, '') IN ([%(body)s, ...])
            AND event <> '{Event.SUMMARY}'
            """,
        )

    @cached_property
    def sent_lately(self) -> Select[SentLately]:
        return self._select(
            SentLately,
            f"""
            SELECT COUNT(*) AS number, MIN(sent) AS first
            FROM {self._alerts}{self._dialect.by_index("alertsent")}
            WHERE endpoint = %(endpoint)s AND sent > %(after)s AND sent <= %(now)s
            AND target = %(target)s
            """,
        )

    @cached_property
    def take(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._alerts}{self._by_id} SET
                due = %(lease_ends)s,
                token = %(token)s,
                attempts = attempts + 1,
                sent = %(now)s
            WHERE id IN ([%(id)s, ...]) AND due <= %(now)s
            """)

    @cached_property
    def postpone(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._alerts}{self._by_id} SET due = %(until)s
            WHERE id IN ([%(id)s, ...]) AND due <= %(now)s
            """)

    @cached_property
    def open_summary(self) -> Select[OpenSummary]:
        return self._select(
            OpenSummary,
            f"""
            SELECT {columns(OpenSummary)} FROM {self._alerts}{self._by_due}
            WHERE due > %(now)s AND due <= %(until)s AND event = %(event)s
            AND endpoint = %(endpoint)s AND target = %(target)s AND attempts = 0
            AND {_BY_OCTETS}
            ORDER BY due LIMIT 1{self._dialect.skip_locked}
            """,
        )

    @cached_property
    def rewrite(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._alerts}{self._by_id} SET content = %(content)s
            WHERE id = %(id)s AND attempts = 0
            """)

    @cached_property
    def fold(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._alerts}{self._by_id} SET due = NULL, error = %(error)s
            WHERE id IN ([%(id)s, ...]) AND due <= %(now)s
            """)

    @cached_property
    def settle(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._alerts}{self._by_id} SET due = %(due)s, token = NULL, error = %(error)s
            WHERE id = %(id)s AND token = %(token)s
            """)

    @cached_property
    def newest(self) -> Select[KeptAlert]:
        # The ids go up with the time.
        return self._select(
            KeptAlert,
            f"""
            SELECT {columns(KeptAlert)} FROM {self._alerts} ORDER BY id DESC LIMIT %(limit)s
            """,
        )

    @cached_property
    def untaken(self) -> Select[UntakenAlert]:
        return self._select(
            UntakenAlert,
            f"""
            SELECT {columns(UntakenAlert)} FROM {self._alerts}{self._by_due}
            WHERE due <= %(before)s AND {_BY_OCTETS} AND target NOT IN ([%(target)s, ...])
            ORDER BY due LIMIT %(limit)s{self._dialect.skip_locked}
            """,
        )

    @cached_property
    def give_up(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._alerts} SET due = NULL, token = NULL, error = %(error)s
            WHERE id IN ([%(id)s, ...]) AND due <= %(now)s
            """)

    @cached_property
    def old(self) -> Select[IdRow]:
        return self._select(
            IdRow,
            f"""
            SELECT id FROM {self._alerts}
            WHERE {_BY_OCTETS} AND id < %(before)s ORDER BY id LIMIT %(limit)s
            """,
        )

    @cached_property
    def forget(self) -> Statement:
        return self._dialect.prepare(f"DELETE FROM {self._alerts} WHERE id <= %(last)s")

    @cached_property
    def pending(self) -> Select[Number]:
        return self._select(
            Number,
            f"""
            SELECT COUNT(*) AS number FROM (
                SELECT due FROM {self._alerts}{self._by_due}
                WHERE due IS NOT NULL LIMIT {PENDING_COUNTED}
            ) AS waiting
            """,
        )

    # The streaks of jobs

    @cached_property
    def mark_rows(self) -> Statement:
        return self._dialect.update_rows(
            Marked._fields, "streak = new_streak, alerted = new_alerted", "1 = 1"
        )

    @cached_property
    def read_told(self) -> Select[ToldRow]:
        return self._select(
            ToldRow, f"SELECT {columns(ToldRow)} FROM {self._table} WHERE id = %(id)s"
        )

    @cached_property
    def tell(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_id} SET alerted = alerted | %(told)s
            WHERE id = %(id)s
            """)

    # Jobs that are expected to succeed

    @cached_property
    def expect(self) -> Statement:
        new = self._dialect.proposed
        values = ", ".join(f"%({name})s" for name in ExpectedRow._fields)
        return self._dialect.prepare(f"""
            INSERT INTO {self._expected} ({columns(ExpectedRow)}) VALUES [({values}), ...]
            {self._dialect.on_conflict("id")}
                path = {new("path")},
                body = {new("body")},
                silent = {new("silent")}
            """)

    @cached_property
    def silent(self) -> Select[SilentRow]:
        return self._select(
            SilentRow,
            f"""
            SELECT
                expected.id AS id,
                expected.path AS path,
                expected.body AS body,
                expected.silent AS silent,
                job.id AS job,
                job.options AS options,
                job.disabled AS disabled,
                job.standing AS standing,
                job.override AS override,
                job.alerted AS alerted,
                job.due AS due
            FROM {self._expected} AS expected{self._dialect.by_index("silent")}
            LEFT JOIN {self._table} AS job{self._dialect.by_id} ON job.id = expected.id
            WHERE expected.silent <= %(now)s ORDER BY expected.silent LIMIT %(limit)s
            """,
        )

    @cached_property
    def lock_jobs(self) -> Select[IdRow]:
        return self._select(
            IdRow,
            f"""
            SELECT id FROM {self._table}{self._dialect.by_id}
            WHERE id IN ([%(id)s, ...]){self._dialect.skip_locked}
            """,
        )

    @cached_property
    def await_again(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._expected}{self._by_id} SET silent = %(until)s
            WHERE id = %(id)s AND silent <= %(now)s
            """)

    @cached_property
    def expect_no_more(self) -> Statement:
        return self._dialect.delete_by_index(
            EXPECTED, "PRIMARY", "id = %(id)s AND silent <= %(now)s"
        )

    # Incidents of no single job

    @cached_property
    def incidents(self) -> Select[IncidentRow]:
        return self._select(
            IncidentRow, f"SELECT {columns(IncidentRow)} FROM {self._incidents} LIMIT %(limit)s"
        )

    @cached_property
    def incident(self) -> Select[IncidentRow]:
        return self._select(
            IncidentRow,
            f"SELECT {columns(IncidentRow)} FROM {self._incidents} WHERE name = %(name)s",
        )

    @cached_property
    def begin(self) -> Statement:
        """Changes nothing if the incident is open."""
        return self._dialect.prepare(f"""
            INSERT INTO {self._incidents} (name, since, instance)
            VALUES (%(name)s, %(since)s, %(instance)s)
            {self._dialect.on_conflict("name")} since = {self._incidents}.since
            """)

    @cached_property
    def end(self) -> Statement:
        return self._dialect.prepare(f"""
            DELETE FROM {self._incidents} WHERE name = %(name)s AND since = %(since)s
            """)

    @cached_property
    def due_first(self) -> Select[DueSince]:
        return self._select(
            DueSince,
            f"""
            SELECT due FROM {self._table}{self._dialect.by_due}
            WHERE due <= %(now)s ORDER BY due LIMIT 1
            """,
        )

    def _select(self, row: Callable[..., R], sql: str) -> Select[R]:
        return Select(row, self._dialect.prepare(sql))
