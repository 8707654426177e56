"""
Alerts about jobs, written in the transaction of what they tell of: the record of a run, or a claim
that sets a row aside.

An example, of a job whose ``alert_after`` is 3::

    record of        row before          row after            alert
    a 2nd failure    streak 1, told -    streak 2, told -
    a 3rd failure    streak 2, told -    streak 3, told F     job.failing
    a 4th failure    streak 3, told F    streak 4, told F
    a success        streak 4, told F    streak 0, told -     job.recovered

What always holds: the alert and what the row says was told are committed together, or neither is.
So a job is told of once an incident, whatever is killed.

An alert's id begins with the microseconds since 1970 (database's clock) at which the alert was
made: 6 octets of milliseconds, and 2 octets of the microseconds in the last of these. So ids go up
with the time, also of two alerts that were made in one millisecond: lists, removals and the order
of a job's alerts go by the ids.

`dalga.store.alerttable` sends what is written here. `dalga.store.lookout` writes the other alerts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from dalga.model.alert import Alert, Event, Targets, content
from dalga.model.answers import FAILURES
from dalga.model.key import RawKey
from dalga.model.options import Options
from dalga.model.run import Delete, End, Finish, reason
from dalga.model.streak import Streak, Told, after
from dalga.store.alertsql import AlertStatements, ExpectedRow, Marked, NewAlert
from dalga.store.dialect import Cursor, Dialect
from dalga.store.extras import EXPECTED
from dalga.store.rows import MAX_ERROR, Unreadable, options_of, shown_key
from dalga.store.selected import LeaseRow
from dalga.store.transactions import Conflict
from dalga.store.values import whole

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Noted(NamedTuple):
    """The end of a run, about to be written."""

    #: The end as the record writes it.
    end: End
    #: What the job's row held when the record read the row.
    lease: LeaseRow
    #: Whether a user has scheduled or triggered the job during the run.
    overridden: bool


class AlertRows:
    """
    Each method runs within a transaction of its caller.

    :param targets: where this instance sends alerts.
    :param random: gives random octets, 8 or more.
    """

    #: The name of this instance. An alert's member ``instance`` is this name.
    instance = ""
    #: How many alerts this instance has written, those of transactions that were rolled back
    #: included.
    written = 0

    def __init__(
        self,
        dialect: Dialect,
        sql: AlertStatements,
        targets: Targets,
        random: Callable[[], bytes],
    ) -> None:
        self._dialect = dialect
        self._sql = sql
        self._random = random
        self.targets = targets

    def after_ends(self, cursor: Cursor, now: datetime, ends: Sequence[Noted]) -> None:
        """
        Write what the ends of runs make of their jobs' streaks, and the alerts that are due. Must
        be called before the record writes the jobs' rows: a row is found by its run's token, which
        the record removes.
        """
        marks, expected = [], []
        alerts: list[tuple[str, Alert]] = []
        for end, lease, overridden in ends:
            run = end.run
            before = streak_of(lease)
            streak, event = after(end, before, run.options.alert_after, overridden)
            if event is not None:
                target = self.targets.of_job(run.options.alert_url, run.options.endpoint)
                if target is not None:
                    alerts.append((target, _of_end(end, event, now, before, streak, overridden)))
                elif streak.told:
                    # There is no target, so nobody was told. A later configuration may tell.
                    streak = streak._replace(told=before.told)
            is_gone = isinstance(end.verdict, Delete | Finish) and not overridden
            if streak != before and not is_gone:
                marks.append(Marked(run.row, run.token, streak.failed, int(streak.told)))
            if is_gone or not is_expected(lease) or end.meaning is None:
                continue
            if end.meaning not in FAILURES:
                within = _present(lease, run.options).expect_within
                if within is not None:
                    expected.append(self._expectation(run.row, RawKey(*run.key), now + within))
        if marks and self._sql.mark_rows.execute(cursor, marks) != len(marks):
            raise Conflict("a lease changed hands between two statements")
        if expected:
            self._sql.expect.execute(cursor, expected)
        self.add(cursor, now, alerts)

    def expect(
        self, cursor: Cursor, now: datetime, jobs: Sequence[tuple[int, RawKey, timedelta]]
    ) -> None:
        """
        Write that jobs are expected to succeed, after a PUT of the jobs.

        :param jobs: the id of each job's row, the job's key, and the longest time from now to the
            next success.
        """
        if jobs:
            rows = [self._expectation(id, key, now + within) for id, key, within in jobs]
            self._sql.expect.execute(cursor, rows)

    def _expectation(self, id: int, key: RawKey, silent: datetime) -> ExpectedRow:
        path, body = map(self._dialect.key, key)
        return ExpectedRow(id, path, body, self._dialect.instant(silent))

    def set_aside(self, cursor: Cursor, now: datetime, id: int, words: str) -> None:
        """
        Write that a claim sets a job's row aside, because the row can't be understood. The job is
        told of once an incident.

        :param words: what is wrong with the row.
        """
        if not self.targets.names:
            return
        rows = self._sql.read_told.fetch(cursor, id=id)
        if not rows or whole(rows[0].alerted) & Told.PROBLEM:
            return
        key = shown_key(rows[0].path, rows[0].body)
        options = Options()
        try:
            options = options_of(rows[0].options)
        except Unreadable:
            pass
        target = self.targets.of_job(options.alert_url, options.endpoint)
        if target is not None:
            self._sql.tell.execute(cursor, id=id, told=int(Told.PROBLEM))
            alert = Alert(Event.JOB_PROBLEM, now, key, options.endpoint, error=words[:MAX_ERROR])
            self.add(cursor, now, [(target, alert)])

    def add(self, cursor: Cursor, now: datetime, alerts: Sequence[tuple[str, Alert]]) -> None:
        """
        Write alerts. Each is due at once.

        :param alerts: each alert behind the name of its target.
        """
        key, at = self._dialect.key, self._dialect.instant(now)
        self.written += len(alerts)
        rows = []
        for target, alert in alerts:
            id = self.new_id(now)
            job = alert.job
            rows.append(
                NewAlert(
                    id,
                    str(alert.event),
                    key(alert.endpoint or ""),
                    None if job is None else key(job.path),
                    None if job is None else key(job.body),
                    key(target),
                    at,
                    at,
                    content(alert, id.hex(), self.instance),
                )
            )
        if rows:
            self._sql.add.execute(cursor, rows)

    def new_id(self, now: datetime) -> bytes:
        """A new alert's id, 16 octets: see the module's text."""
        return id_at(now) + self._random()[:8]


def id_at(instant: datetime) -> bytes:
    """The first 8 octets of the ids of alerts that were made at an instant."""
    milliseconds, rest = divmod(instant - _EPOCH, _MILLISECOND)
    return milliseconds.to_bytes(6) + rest.microseconds.to_bytes(2)


def streak_of(lease: LeaseRow) -> Streak:
    """The streak in a job's row. A column that holds no count is taken for 0 (P6)."""
    return Streak(whole(lease.streak), Told(whole(lease.alerted) & 15))


def is_expected(lease: LeaseRow) -> bool:
    """Whether a job has ``expect-within``: its row says so in ``extras``."""
    return isinstance(lease.extras, int) and bool(lease.extras & EXPECTED)


def _present(lease: LeaseRow, before: Options) -> Options:
    """
    A job's options as the record has read them: a user may have changed the options since the
    claim.

    :param before: the options as the claim has read them, for a row that can't be read any more.
    """
    try:
        return options_of(lease.options)
    except Unreadable:
        return before


def _of_end(
    end: End, event: Event, now: datetime, before: Streak, streak: Streak, overridden: bool
) -> Alert:
    """
    The alert about the end of a run.

    :param before: the job's streak before this end.
    :param streak: the job's streak after this end.
    :param overridden: whether a user has scheduled or triggered the job during the run.
    """
    run, outcome, failed = end.run, end.outcome, end.meaning in FAILURES
    assert outcome is not None and end.meaning is not None
    return Alert(
        event,
        now,
        RawKey(*run.key),
        run.options.endpoint,
        run.id,
        run.scheduled,
        run.attempt,
        streak.failed if failed else before.failed,
        outcome.status,
        end.error_kind,
        reason(outcome, end.meaning)[:MAX_ERROR] if failed else None,
        None if overridden else end.due,
        run.started if failed else None,
    )
