"""
Alerts: written in the transaction of what they are about, and sent from a table by whichever
instance claims them. `dalga.store.Outbox` says what each call does.

`AlertRows` writes. It is called within the transactions that record runs and set rows aside, so
that the alert is there exactly if what it tells of is.

`AlertTable` has the transactions of the sender. An alert is claimed as a run is: its column ``due``
moves to the end of a lease, so that of an instance that dies another one takes over. It may come
twice then, with the same id.

An alert's id begins with the milliseconds since 1970 at which it was made, so ids go up with the
time: lists and removals go by the ids.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from dalga.log import logger
from dalga.model.alert import Alert, AlertState, Event, KeptAlert, Targets, content, summary
from dalga.model.answers import FAILURES
from dalga.model.job import Standing
from dalga.model.key import RawKey
from dalga.model.options import Options
from dalga.model.run import Delete, End, Finish, reason
from dalga.model.streak import Streak, Told, after
from dalga.store.alertsql import (
    AlertStatements,
    ExpectedRow,
    Marked,
    NewAlert,
    SilentRow,
)
from dalga.store.dialect import Cursor, Dialect
from dalga.store.extras import EXPECTED
from dalga.store.outbox import Parcel, Settled, Watch
from dalga.store.rows import MAX_ERROR, Override, Unreadable, options_of, shown_key
from dalga.store.selected import LeaseRow
from dalga.store.transactions import Conflict, Transactions

log = logger(__name__)

#: How long a claim of an alert holds. A POST of it takes 10 s at most.
LEASE = timedelta(seconds=60)

#: The alerts of one endpoint that are sent in a minute, each by itself, at most.
AT_ONCE = 20
MINUTE = timedelta(minutes=1)

#: These are in no summary. An endpoint that is down makes its jobs fail, and their alerts would
#: hide the one that says why. There are few of these: an endpoint is down for a minute at least.
_BY_THEMSELVES = frozenset({Event.SUMMARY, Event.ENDPOINT_DOWN, Event.ENDPOINT_UP})

#: Due alerts that one transaction looks at, at most. It takes some 8 ms.
LOOKED_AT = 100

#: An alert that did not arrive is sent again for so long.
LASTS = timedelta(hours=24)

#: How long alerts are kept.
KEPT = timedelta(days=7)

#: Silent jobs that are looked at in one transaction, at most.
SILENCES = 25

#: Incidents of endpoints and of the scheduler that are read, at most.
INCIDENTS = 1_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Noted(NamedTuple):
    """The end of a run that is written."""

    #: As it is written.
    end: End
    #: What the row held.
    lease: LeaseRow
    #: Whether a user has scheduled or triggered the job during the run.
    overridden: bool


class AlertRows:
    """
    Each method runs within a transaction of its caller.

    :param targets: where alerts are sent.
    :param random: gives random octets, 10 or more.
    """

    #: The name of this instance, by which alerts say who has seen what they tell of.
    instance = ""
    #: How many alerts were written, by transactions that may have been rolled back then.
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
        What the ends of runs make of their jobs' streaks, and the alerts that are due. To be called
        before the rows are written: it finds them by the tokens of the runs.
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
                    streak = streak._replace(told=before.told)  # nobody was told
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
        A PUT: jobs are expected to succeed within so long from now.

        :param jobs: the ids of their rows, their keys, and how long.
        """
        if jobs:
            rows = [self._expectation(id, key, now + within) for id, key, within in jobs]
            self._sql.expect.execute(cursor, rows)

    def _expectation(self, id: int, key: RawKey, silent: datetime) -> ExpectedRow:
        path, body = map(self._dialect.key, key)
        return ExpectedRow(id, path, body, self._dialect.instant(silent))

    def set_aside(self, cursor: Cursor, now: datetime, id: int, words: str) -> None:
        """A row is set aside, as nobody can understand it: that is told of once an incident."""
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
        Write alerts, which are due at once.

        :param alerts: each with the name of its target.
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
        """An alert's id, 16 octets."""
        return id_at(now) + self._random()[:10]


def id_at(instant: datetime) -> bytes:
    """How the ids of the alerts begin that were made then: 6 octets."""
    return ((instant - _EPOCH) // _MILLISECOND).to_bytes(6)


def streak_of(lease: LeaseRow) -> Streak:
    """What a row holds of its job's streak; nothing of what can't be one (P6)."""
    return Streak(whole(lease.streak), Told(whole(lease.alerted) & 15))


def whole(value: object) -> int:
    """A count that a column holds; 0 for anything else."""
    return value if isinstance(value, int) and value > 0 else 0


def is_expected(lease: LeaseRow) -> bool:
    """Whether the job is expected to succeed now and then."""
    return isinstance(lease.extras, int) and bool(lease.extras & EXPECTED)


def _present(lease: LeaseRow, before: Options) -> Options:
    """A job's options, which a user may have changed since the claim."""
    try:
        return options_of(lease.options)
    except Unreadable:
        return before


def _of_end(
    end: End, event: Event, now: datetime, before: Streak, streak: Streak, overridden: bool
) -> Alert:
    """The alert about the end of a run."""
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


class _Due(NamedTuple):
    """An alert that is to be sent."""

    id: bytes
    event: str
    job: RawKey | None
    target: str
    made: datetime
    #: How often it was sent.
    attempts: int
    content: str


class AlertTable:
    """
    The transactions of the sender: `dalga.store.Outbox`.

    :param lane: those of the API, so that claims of runs go first.
    :param token: makes the random token of a claim.
    """

    def __init__(
        self,
        dialect: Dialect,
        sql: AlertStatements,
        lane: Transactions,
        rows: AlertRows,
        token: Callable[[], bytes],
    ) -> None:
        self._dialect = dialect
        self._sql = sql
        self._lane = lane
        self._rows = rows
        self._token = token

    @property
    def targets(self) -> Targets:
        """See `Outbox.targets`."""
        return self._rows.targets

    @property
    def written(self) -> int:
        """See `Outbox.written`."""
        return self._rows.written

    # Sending

    def claim(self, limit: int) -> Deferred[list[Parcel]]:
        """See `Outbox.claim`."""

        def work(cursor: Cursor, now: datetime, since: float) -> list[Parcel]:
            names = [self._dialect.key(name) for name in self.targets.names]
            at = self._dialect.instant(now)
            groups: defaultdict[tuple[str, str], list[_Due]] = defaultdict(list)
            for row in self._sql.due.fetch(cursor, names, now=at, limit=LOOKED_AT):
                made = self._instant(row.made)
                due = _Due(
                    _octets(row.id),
                    _text(row.event),
                    RawKey(*shown_key(row.path, row.body)) if row.path is not None else None,
                    _text(row.target),
                    now if made is None else min(made, now),
                    whole(row.attempts),
                    _text(row.content),
                )
                groups[_text(row.endpoint), due.target].append(due)
            to_send: list[_Due] = []
            for (endpoint, _), group in groups.items():
                to_send += self._in_turn(cursor, now, endpoint, group)
                if len(to_send) >= limit:
                    break  # the next claim looks at the others
            if not to_send:
                return []
            token = self._token()
            lease_ends = self._dialect.instant(now + LEASE)
            del to_send[limit:]
            ids = [row.id for row in to_send]
            lease = {"now": at, "token": token, "lease_ends": lease_ends}
            if self._sql.take.execute(cursor, ids, **lease) != len(ids):
                raise Conflict("an alert was claimed between two statements")
            return [
                Parcel(
                    row.id, token, row.target, row.content, row.attempts + 1, row.made + LASTS - now
                )
                for row in to_send
            ]

        return self._lane.run(work, "alerts")

    def _in_turn(
        self, cursor: Cursor, now: datetime, endpoint: str, group: list[_Due]
    ) -> list[_Due]:
        """
        Which of the due alerts about one endpoint are sent now: `AT_ONCE` in a minute. A summary
        stands for the others, and is sent at the end of that minute. Alerts that were sent before,
        and did not arrive, wait until then, too. `_BY_THEMSELVES` wait for nothing.

        :param group: those to one target.
        """
        instant, sql = self._dialect.instant, self._sql
        key, target = self._dialect.key, group[0].target
        about = {"endpoint": key(endpoint), "target": key(target)}
        minute = {"after": instant(now - MINUTE), "now": instant(now)}
        (lately,) = sql.sent_lately.fetch(cursor, **minute, **about)
        room = AT_ONCE - lately.number
        to_send: list[_Due] = []
        again: list[_Due] = []
        beyond: list[_Due] = []
        for row in group:
            if row.event in _BY_THEMSELVES or room > 0:
                to_send.append(row)
                room -= 1
            else:
                (again if row.attempts else beyond).append(row)
        if again or beyond:
            first = self._instant(lately.first) or now
            until = max(first + MINUTE, now + timedelta(seconds=1))
            if again:
                ids = [row.id for row in again]
                sql.postpone.execute(cursor, ids, now=instant(now), until=instant(until))
            if beyond:
                self._fold(cursor, now, endpoint, beyond, until)
        return to_send

    def _fold(
        self, cursor: Cursor, now: datetime, endpoint: str, rows: list[_Due], until: datetime
    ) -> None:
        """
        Have a summary stand for alerts.

        :param until: when a summary is sent that is made now.
        """
        key, instant, target = self._dialect.key, self._dialect.instant, rows[0].target
        about = {"endpoint": key(endpoint), "target": key(target)}
        open_ones = self._sql.open_summary.fetch(
            cursor,
            now=instant(now),
            until=instant(now + MINUTE),
            event=str(Event.SUMMARY),
            **about,
        )
        before = _members(open_ones[0].content) if open_ones else {}
        id = _octets(open_ones[0].id) if open_ones else self._rows.new_id(now)
        alert = summary(now, endpoint or None, [(row.event, row.job) for row in rows], before)
        text = content(alert, id.hex(), self._rows.instance)
        if open_ones:
            self._sql.rewrite.execute(cursor, id=id, content=text)
        else:
            made = NewAlert(
                *(id, str(alert.event), key(endpoint), None, None, key(target)),
                *(instant(now), instant(until), text),
            )
            self._sql.add.execute(cursor, [made])
        ids = [row.id for row in rows]
        error = f"{AlertState.SUMMARIZED}: {id.hex()} stands for it"
        if self._sql.fold.execute(cursor, ids, now=instant(now), error=error) != len(ids):
            raise Conflict("an alert was claimed between two statements")

    def settle(self, settled: Sequence[Settled]) -> Deferred[None]:
        """See `Outbox.settle`."""

        def work(cursor: Cursor, now: datetime, since: float) -> None:
            for parcel, again, error in settled:
                due = None if again is None else self._dialect.instant(now + again)
                words = None if error is None else error[:MAX_ERROR]
                # The token is compared: another instance may have claimed the alert since.
                self._sql.settle.execute(
                    cursor, id=parcel.id, token=parcel.token, due=due, error=words
                )

        return self._lane.run(work, "alerts")

    # What is looked at now and then

    def watch(self) -> Deferred[Watch]:
        """See `Outbox.watch`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Watch:
            incidents = {}
            for row in self._sql.incidents.fetch(cursor, limit=INCIDENTS):
                try:
                    began = self._dialect.read_instant(row.since)
                except ValueError:
                    began = now
                incidents[_octets(row.name).decode("utf-8", "replace")] = began
            oldest = self._sql.due_first.fetch(cursor, now=self._dialect.instant(now))
            lag = timedelta()
            if oldest:
                with suppress(ValueError):  # no time: a claim will set that row aside
                    lag = now - self._dialect.read_instant(oldest[0].due)
            (pending,) = self._sql.pending.fetch(cursor)
            return Watch(now, incidents, lag, pending.number)

        return self._lane.run(work, "alerts")

    def begin(self, name: str, alert: Alert) -> Deferred[bool]:
        """See `Outbox.begin`."""

        def work(cursor: Cursor, now: datetime, since: float) -> bool:
            key = self._dialect.key
            began = self._dialect.instant(alert.since or now)
            mine = self._rows.new_id(now).hex()
            instance = f"{self._rows.instance} {mine}"
            self._sql.begin.execute(cursor, name=key(name), since=began, instance=key(instance))
            # Read, as the drivers count differently where a row is there already.
            rows = self._sql.incident.fetch(cursor, name=key(name))
            if not rows or _octets(rows[0].instance) != instance.encode():
                return False
            self._send(cursor, now, alert)
            return True

        return self._lane.run(work, "alerts")

    def end(self, name: str, alert: Alert) -> Deferred[bool]:
        """See `Outbox.end`."""

        def work(cursor: Cursor, now: datetime, since: float) -> bool:
            key = self._dialect.key(name)
            rows = self._sql.incident.fetch(cursor, name=key)
            if not rows:
                return False
            began = self._dialect.read_instant(rows[0].since)
            if self._sql.end.execute(cursor, name=key, since=self._dialect.instant(began)) != 1:
                return False
            self._send(cursor, now, alert._replace(since=began))
            return True

        return self._lane.run(work, "alerts")

    def _send(self, cursor: Cursor, now: datetime, alert: Alert) -> None:
        target = self.targets.of_endpoint(alert.endpoint)
        if target is not None:
            self._rows.add(cursor, now, [(target, alert._replace(at=now))])

    def silences(self) -> Deferred[bool]:
        """See `Outbox.silences`."""

        def work(cursor: Cursor, now: datetime, since: float) -> bool:
            at = self._dialect.instant(now)
            rows = self._sql.silent.fetch(cursor, now=at, limit=SILENCES)
            # The job's row first, as all transactions lock it first.
            ids = [row.id for row in rows if row.job is not None]
            free = {row.id for row in self._sql.lock_jobs.fetch(cursor, ids)} if ids else set()
            alerts = [
                told
                for row in rows
                if row.job is None or row.id in free
                if (told := self._silence(cursor, now, row)) is not None
            ]
            self._rows.add(cursor, now, alerts)
            return len(rows) == SILENCES

        return self._lane.run(work, "alerts")

    def _silence(self, cursor: Cursor, now: datetime, row: SilentRow) -> tuple[str, Alert] | None:
        """What is to be told of a job that had no success for too long."""
        sql, at = self._sql, self._dialect.instant(now)
        try:
            options = Options() if row.job is None else options_of(row.options)
        except Unreadable:
            options = Options()
        within = options.expect_within
        is_over = row.job is None or within is None or row.standing == Standing.DONE
        if is_over or row.override == Override.DELETED:
            sql.expect_no_more.execute(cursor, id=row.id, now=at)
            return None
        assert within is not None
        if row.disabled:
            # It does not run, and nobody expects that. Once it is enabled, it has as long as ever.
            until = self._dialect.instant(now + within)
            sql.await_again.execute(cursor, id=row.id, now=at, until=until)
            return None
        # Two instances may have read the row. The first one changes it, and tells of the silence.
        if sql.await_again.execute(cursor, id=row.id, now=at, until=None) != 1:
            return None
        target = self.targets.of_job(options.alert_url, options.endpoint)
        if target is None:
            return None
        sql.tell.execute(cursor, id=row.id, told=int(Told.SILENT))
        alert = Alert(Event.JOB_SILENT, now, shown_key(row.path, row.body), options.endpoint)
        with suppress(ValueError, OverflowError):  # a time that is none, or none that was meant
            since = self._dialect.read_instant(row.silent) - within
            next_run = None if row.due is None else self._dialect.read_instant(row.due)
            alert = alert._replace(since=since, next_run=next_run)
        return target, alert

    def newest(self, limit: int) -> Deferred[list[KeptAlert]]:
        """See `Outbox.newest`."""

        def work(cursor: Cursor, now: datetime, since: float) -> list[KeptAlert]:
            return [self._kept(row) for row in self._sql.newest.fetch(cursor, limit=limit)]

        return self._lane.run(work, "alerts")

    def _kept(self, row: Any) -> KeptAlert:
        error = None if row.error is None else _text(row.error)
        if row.due is not None:
            state = AlertState.WAITING
        elif error is None:
            state = AlertState.SENT
        elif error.startswith(AlertState.SUMMARIZED) and not whole(row.attempts):
            state = AlertState.SUMMARIZED
        else:
            state = AlertState.GIVEN_UP
        return KeptAlert(
            _members(row.content),
            _octets(row.target).decode("utf-8", "replace"),
            state,
            whole(row.attempts),
            self._instant(row.sent),
            error,
        )

    def _instant(self, value: object) -> datetime | None:
        """A time; None for anything that is none (P6)."""
        try:
            return self._dialect.read_instant(value)
        except ValueError:
            return None

    def forget(self, limit: int) -> Deferred[int]:
        """See `Outbox.forget`."""

        def work(cursor: Cursor, now: datetime, since: float) -> int:
            at = self._dialect.instant(now)
            before = id_at(now - LASTS - timedelta(hours=1))
            names = [self._dialect.key(name) for name in self.targets.names]
            rows = self._sql.unclaimed.fetch(cursor, names, now=at, before=before, limit=limit)
            if rows:
                # An instance that has the target would have given them up by now.
                error = "no instance has a target of this name"
                self._sql.give_up.execute(cursor, [row.id for row in rows], now=at, error=error)
            before = id_at(now - KEPT)
            ids = [row.id for row in self._sql.old.fetch(cursor, before=before, limit=limit)]
            if ids:
                self._sql.forget.execute(cursor, last=ids[-1])
            return max(len(rows), len(ids))

        return self._lane.run(work, "alerts")


def _members(value: object) -> dict[str, Any]:
    """The JSON of an alert; nothing of what is none (P6)."""
    try:
        found = json.loads(_text(value))
        json.dumps(found, allow_nan=False)  # which is no JSON
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _octets(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
