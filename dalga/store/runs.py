"""
Runs: which are due, claims of them, and what becomes of each. `dalga.store.Store` says what each
call does.

A claim is a lease in the ``due`` column: it moves ``due`` to the lease's end and writes a fresh
``token``. A row is *leased* while it has a token and its due time is to come. No claim rests on row
locks or on SKIP LOCKED: each write compares what it goes by, and a transaction that finds something
else runs again (`Conflict`). A record does the same, except that a row lock keeps the job's options
as the record has read them. What users do to jobs is in `dalga.store.jobs`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from dalga.log import logger
from dalga.model.answers import Meaning
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import MAX_KEY_LENGTH, RawKey
from dalga.model.record import Result, result_of
from dalga.model.run import (
    Delete,
    Disable,
    End,
    Finish,
    GiveBack,
    Reschedule,
    Retry,
    Run,
    Skip,
    Stop,
    lease_of,
    revised,
)
from dalga.model.setback import Reach, corrected
from dalga.store import Claimed, Due, Dues, Recorded
from dalga.store.alerts import AlertRows, Noted, is_expected
from dalga.store.clock import DatabaseClock
from dalga.store.details import DetailRows
from dalga.store.dialect import Cursor, Dialect
from dalga.store.extras import DELIVERY, fitting, is_open, kinds_of, weight_of
from dalga.store.parameters import Statement, in_parts
from dalga.store.recording import Ending, Recording
from dalga.store.rows import (
    MAX_ERROR,
    WAITED,
    Override,
    Unreadable,
    is_true,
    lease_from_text,
    options_of,
    read_job,
    read_run,
    run_from_text,
    shown_key,
    timeout_of,
    was_recorded,
)
from dalga.store.runsql import (
    Disabled,
    Ended,
    EndRow,
    Finished,
    FoundRow,
    GivenBack,
    Rescheduled,
    Retried,
    RunStatements,
    Skipped,
    Stopped,
    Succeeded,
    Yielded,
)
from dalga.store.selected import DueRow, DueTime, JobRow, LeaseRow, RunRow, TextRow
from dalga.store.transactions import Call, Conflict, Timed, Transactions

log = logger(__name__)

#: To look up a member of an enum takes a call of Python, and each run would do so.
_SUCCEED, _SUCCEEDED = Meaning.SUCCEED, Result.SUCCEEDED

#: Rows that are looked at in one transaction after the clock was set back.
CORRECTED = 500

#: What one UPDATE of a claim compares with rows, at most, in octets. The driver quotes it, which
#: may make it twice as long: with all else, the UPDATE is shorter than `mysql.LONGEST_STATEMENT`.
COMPARED = 2**18

#: The details that one claim reads, in octets, unless the first row has more (P10).
DETAILS = 2**21


class _Problem(NamedTuple):
    """Why a row was set aside."""

    row: int
    #: The job's key, as far as it is text.
    key: RawKey
    words: str


@dataclass
class _Claim:
    """A claim that has found rows."""

    #: Of its leases.
    token: bytes
    #: The database's time.
    now: datetime
    #: A moment of the steady clock (seconds), no later than `now`.
    since: float
    #: How long a POST may take (seconds) to an endpoint that the next does not name.
    timeout: float
    #: How long a POST may take (seconds), by the name of its endpoint.
    timeouts: Mapping[str, float]
    #: See `Claimed.full`.
    full: bool = False
    #: The `extras` of the rows that are taken, where they have any, by the ids of the rows.
    extras: dict[int, int] = field(default_factory=dict)
    #: The ids of rows that an earlier claim had taken, and whose lease has ended.
    leased: set[int] = field(default_factory=set)
    #: For the log: which rows can't be understood.
    problems: list[_Problem] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """The details of the rows that are taken, in octets."""
        return sum(weight_of(extras, DELIVERY) for extras in self.extras.values())

    def lease_ends(self, timeout: float) -> float:
        """
        When a lease ends, in seconds of the steady clock.

        :param timeout: how long the run's POST may take, in seconds.
        """
        return self.since + lease_of(timeout).total_seconds()


class _Leases(NamedTuple):
    """What a record has read."""

    #: What rows hold, by their ids.
    read: dict[int, LeaseRow | None]
    #: Rows with the run's token that somebody has locked, or whose details or tags are locked.
    locked: set[int]
    #: The rest is a `Timed` without its result.
    now: datetime | None
    sent: float
    received: float

    def timed(self, recorded: Recorded) -> Timed[Recorded]:
        return Timed(recorded, self.now, self.sent, self.received)


class _ToWrite(NamedTuple):
    """What a record writes."""

    recorded: Recorded
    #: Ends of runs whose rows have another token, or are gone.
    others: list[End]
    batches: defaultdict[Statement, list[EndRow]]
    #: Of jobs that are removed: the ids of their rows, by which kinds of rows they have in other
    #: tables.
    gone: defaultdict[int, list[int]]
    #: Ends that are more than another success of a job that is well.
    noted: list[Noted]
    #: The ends that are written, with what their runs came to.
    endings: list[Ending]
    #: The ids of those rows of jobs that have a record on the shelf OPEN.
    opened: list[int]

    @classmethod
    def nothing(cls) -> _ToWrite:
        """To be filled."""
        return cls(Recorded(), [], defaultdict(list), defaultdict(list), [], [], [])


class Runs:
    """
    Claims, and what becomes of them.

    :param lane: the transactions of the scheduler.
    :param details: of the jobs.
    :param alerts: that ends of runs, and rows that are set aside, give rise to.
    :param recording: writes the records of runs.
    :param token: makes the random token of a claim, `TOKEN_LENGTH` bytes.
    """

    def __init__(
        self,
        dialect: Dialect,
        clock: DatabaseClock,
        sql: RunStatements,
        lane: Transactions,
        details: DetailRows,
        alerts: AlertRows,
        recording: Recording,
        token: Callable[[], bytes],
    ) -> None:
        self._dialect = dialect
        self._clock = clock
        self._sql = sql
        self._lane = lane
        self._details = details
        self._alerts = alerts
        self._recording = recording
        self._token = token
        #: Row and token of the runs whose record's COMMIT got no answer, until they are settled: at
        #: most as many as the scheduler keeps ends.
        self._unsure: set[tuple[int, bytes]] = set()

    def due_within(
        self, within: timedelta, limit: int, without: Collection[str] = ()
    ) -> Deferred[Dues]:
        """See `Store.due_within`."""

        # One statement, as this is what an idle daemon does: so the horizon goes by the estimate of
        # the database's time. It is what was asked for, so it holds even where that is wrong.
        horizon = self._clock.now() + within

        def dues(rows: list[DueTime], now: datetime) -> Dues:
            times = []
            for row in rows:
                if row.due is None:
                    break  # the one row that is always there: nothing is due up to then
                try:
                    times.append(self._dialect.read_instant(row.due))
                except ValueError:
                    times.append(now)  # no time, but due: a claim will set it aside
            return Dues(times, max(times) if len(times) == limit else horizon)

        def fetch(cursor: Cursor) -> list[DueTime]:
            paths = list(map(self._dialect.key, without))
            find = self._sql.due_within(bool(paths))
            return find.fetch(cursor, paths, horizon=self._dialect.instant(horizon), limit=limit)

        return self._lane.read(fetch, dues, "scan")

    def claim(
        self, limit: int, timeout: float, without: Collection[str], timeouts: Mapping[str, float]
    ) -> Deferred[Claimed]:
        """See `Store.claim`."""

        def work(cursor: Cursor) -> Timed[tuple[Claimed, list[_Problem]]]:
            paths = list(map(self._dialect.key, without))
            sent = self._clock.seconds()
            rows = self._sql.find_due(bool(paths)).fetch(cursor, paths, limit=limit)
            received = self._clock.seconds()
            if not rows:
                # Nothing told the time. The estimate is no later than the look at the rows.
                nothing = Claimed([], self._clock.at(sent), full=False)
                return Timed((nothing, []), None, sent, received)
            claim = _Claim(self._token(), rows[0].now, sent, timeout, timeouts)
            claim.full = len(rows) == limit
            runs = self._take_found(cursor, claim, rows)
            taken_over = claim.leased and sum(run.row in claim.leased for run in runs)
            claimed = Claimed(runs, claim.now, claim.full, taken_over or 0)
            return Timed((claimed, claim.problems), claim.now, sent, received)

        def report(result: tuple[Claimed, list[_Problem]]) -> Claimed:
            claimed, problems = result
            for row, (path, body), words in problems:
                log.error(
                    "{path!r} {body!r}: row {row} is set aside: {problem}",
                    path=path[:MAX_KEY_LENGTH],
                    body=body[:MAX_KEY_LENGTH],
                    row=row,
                    problem=words,
                )
            return claimed

        return self._lane.run_timed(work, operation="claim").addCallback(report)

    def _take_found(self, cursor: Cursor, claim: _Claim, rows: list[TextRow]) -> list[Run]:
        """
        Take rows as they were found, by an UPDATE that compares all that was read. Only rows that
        are unusual, or that somebody has changed meanwhile, are read once more.

        :param rows: in due order.
        :return: the runs in them, in the same order.
        """
        found: dict[int, Run] = {}
        unusual: list[int] = []
        groups: defaultdict[float, list[FoundRow]] = defaultdict(list)
        for row in rows:
            read = run_from_text(
                row, claim.token, claim.now, claim.since, claim.timeout, claim.timeouts
            )
            if read is None:
                unusual.append(row.id)
                continue
            run, extras, leased = read
            if leased:
                claim.leased.add(row.id)
            if extras:
                if not fitting([weight_of(extras, DELIVERY)], DETAILS, claim.weight):
                    claim.full = True
                    break
                claim.extras[row.id] = extras
            found[row.id] = run
            groups[run.timeout].append(FoundRow(row.id, row.columns))
        changed = 0
        for timeout, group in sorted(groups.items()):
            lease = self._lease(claim, timeout)
            if self._dialect.one_writer:
                changed += self._sql.take.execute(cursor, [row.id for row in group], **lease)
            else:
                for part in in_parts(group, lambda row: len(row.found), COMPARED):
                    changed += self._sql.take_found.execute(cursor, part, **lease)
        if changed != len(found):
            unusual = [row.id for row in rows]
        if unusual:
            found = self._take_unusual(cursor, claim, unusual, found)
        if claim.extras:
            self._deliver(cursor, claim, found)
        return [found[row.id] for row in rows if row.id in found]

    def _deliver(self, cursor: Cursor, claim: _Claim, runs: dict[int, Run]) -> None:
        """
        Give the runs that were taken what their jobs' details say. A row whose details can't be
        understood is set aside, and its run left out.
        """
        wanted = [id for id, extras in claim.extras.items() if id in runs and extras & DELIVERY]
        for id, details in self._details.read_own(cursor, wanted).items():
            if isinstance(details, ValueError):
                self._set_aside(cursor, claim, id, runs[id].key, details)
                del runs[id]
            else:
                run, payload = runs[id], details.delivery.payload
                octets = run.payload if payload is None else payload.octets
                runs[id] = run._replace(delivery=details.delivery, payload=octets)

    def _take_unusual(
        self, cursor: Cursor, claim: _Claim, ids: list[int], found: dict[int, Run]
    ) -> dict[int, Run]:
        """
        Take rows that are still due, however they are, and read what was taken.

        :param ids: of the rows. Some may have been taken already.
        :param found: the runs of rows as they were found. Those that are not in `ids` were taken.
        :return: all runs that were taken, by the ids of their rows.
        """
        runs = {id: found[id] for id in found.keys() - set(ids)}
        due = {row.id: row for row in self._sql.read_due.fetch(cursor, ids)}
        runs |= {id: found[id] for id, row in due.items() if row.token == claim.token}
        claim.extras = {id: extras for id, extras in claim.extras.items() if id in runs}
        left = [due[id] for id in ids if id in due and id not in runs]
        claim.leased.update(row.id for row in left if row.token is not None)
        some = fitting([weight_of(row.extras, DELIVERY) for row in left], DETAILS, claim.weight)
        claim.full = claim.full or some < len(left)
        groups: defaultdict[float, list[int]] = defaultdict(list)
        for row in left[:some]:
            groups[timeout_of(row, claim.timeout, claim.timeouts)].append(row.id)
        for timeout, group in sorted(groups.items()):
            lease = self._lease(claim, timeout)
            self._sql.take.execute(cursor, group, **lease)
            # Only now are the rows this transaction's own: what is read here was taken.
            for taken in self._sql.read_taken.fetch(cursor, group, token=claim.token):
                run = self._run_in(cursor, claim, taken, due[taken.id], timeout)
                if run is not None:
                    runs[taken.id] = run
                    if taken.extras:
                        claim.extras[taken.id] = taken.extras
        return runs

    def _lease(self, claim: _Claim, timeout: float) -> dict[str, object]:
        """What a statement writes that takes rows, by the names of its parameters."""
        instant = self._dialect.instant
        return {
            "now": instant(claim.now),
            "token": claim.token,
            "lease_ends": instant(claim.now + lease_of(timeout)),
        }

    def _run_in(
        self, cursor: Cursor, claim: _Claim, row: RunRow, before: DueRow, timeout: float
    ) -> Run | None:
        """
        The run in a row that was taken.

        :param before: the row as it was before.
        :return: None if there is nothing to POST. The row is let go then: it is deleted, parked as
            disabled, set aside, or postponed to its scheduled time.
        """
        sql, token, now = self._sql, claim.token, claim.now
        if row.override == Override.DELETED:
            kinds = kinds_of(row.extras)
            # Else a claim drops the row when this lease has ended.
            locked = self._details.locked(cursor, [row.id], kinds)
            held = self._recording.hold(cursor, [row.id] if is_open(row.extras) else [])
            if not locked and not held.locked:
                sql.drop.execute(cursor, id=row.id, token=token)
                self._details.remove(cursor, [row.id], kinds)
                self._recording.lost(cursor, row, token, held.rows, now)
            return None
        try:
            if is_true("disabled", row.disabled):
                sql.park.execute(cursor, id=row.id, token=token)
                return None
            ends, read_instant = claim.lease_ends(timeout), self._dialect.read_instant
            run = read_run(row, before, token, now, timeout, ends, read_instant)
        except Unreadable as problem:
            self._set_aside(cursor, claim, row.id, shown_key(row.path, row.body), problem)
            return None
        # A run that has begun goes on, though the database's clock was set back meanwhile.
        if run.scheduled > now and run.attempt == 1:
            sql.postpone.execute(cursor, id=row.id, token=token)
            return None
        return run

    def _set_aside(
        self, cursor: Cursor, claim: _Claim, id: int, key: RawKey, problem: ValueError
    ) -> None:
        error = str(problem)[:MAX_ERROR]
        self._sql.set_aside.execute(cursor, id=id, token=claim.token, error=error)
        claim.problems.append(_Problem(id, key, str(problem)))
        self._alerts.set_aside(cursor, claim.now, id, error)

    def correct(self, reach: Reach, after: Due | None) -> Deferred[Due | None]:
        """See `Store.correct`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Due | None:
            instant = self._dialect.instant
            due, id = after or (now, 0)
            rows = self._sql.ahead.fetch(cursor, due=instant(due), id=id, limit=CORRECTED)
            last: Due | None = None
            for row in rows:
                with suppress(ValueError):  # a time that is none
                    last = self._dialect.read_instant(row.due), row.id
                key = shown_key(row.path, row.body)
                job = self._job_ahead(cursor, row, key, now)
                if isinstance(job, UnreadableJob) or job.due is None:
                    continue
                times = corrected(job, now, reach)
                if times is not None:
                    # What was changed meanwhile stays as it is.
                    self._sql.correct.execute(
                        cursor,
                        id=row.id,
                        anchor=instant(times.anchor),
                        scheduled=instant(times.scheduled),
                        due=instant(times.due),
                        found_anchor=instant(job.anchor),
                        found_scheduled=instant(job.scheduled),
                        found_due=instant(job.due),
                    )
            return last if len(rows) == CORRECTED else None

        return self._lane.run(work, "correct")

    def _job_ahead(
        self, cursor: Cursor, row: JobRow, key: RawKey, now: datetime
    ) -> Job | UnreadableJob:
        """
        The job in a row that is to be corrected. Its details are read where it waits for a retry:
        they may say how long it may wait. One job at a time, as each may have a payload (P10).
        """
        job = read_job(row, key, now, self._dialect.read_instant)
        if isinstance(job, UnreadableJob) or not job.attempts or job.running:
            return job
        if not row.extras & DELIVERY:
            return job
        details = self._details.read(cursor, [row])[row.id]
        return read_job(row, key, now, self._dialect.read_instant, details)

    def record(self, ends: list[End]) -> Deferred[Recorded]:
        """See `Store.record`."""
        if not ends:
            return succeed(Recorded())

        claims = {(end.run.row, end.run.token) for end in ends}
        unsure = {row for row, _ in claims & self._unsure}
        call = Call()

        def work(cursor: Cursor) -> Timed[Recorded]:
            leases = self._read_leases(cursor, [end.run for end in ends])
            recorded, others = self._record_held(cursor, ends, leases)
            already = self._recorded_already(cursor, others, unsure)
            for end in others:
                is_written = end.run.row in already
                (recorded.already if is_written else recorded.lost).append(end)
                recorded.results.append((end, result_of(end) if is_written else None))
            return leases.timed(recorded)

        def failed(failure: Failure) -> Failure:
            if call.committing:
                self._unsure |= claims
            return failure

        def done(recorded: Recorded) -> Recorded:
            self._unsure -= claims
            return recorded

        return self._lane.run_timed(work, call, "record").addCallbacks(done, failed)

    def _record_held(
        self, cursor: Cursor, ends: list[End], leases: _Leases
    ) -> tuple[Recorded, list[End]]:
        """
        Write the ends of the runs whose rows have still the run's token, and their records.

        :return: what became of these ends, and of those of rows that are locked; and the ends of
            runs whose rows have another token, or are gone.
        """
        to_write = self._to_write(ends, leases)
        locked: set[int] = set()
        for kinds, ids in to_write.gone.items():
            locked |= self._details.locked(cursor, ids, kinds)
        held = self._recording.hold(cursor, to_write.opened)
        locked |= held.locked
        if locked:
            leases.locked.update(locked)
            to_write = self._to_write(ends, leases)
        if to_write.noted:
            now = leases.now or self._clock.at(leases.sent)
            self._alerts.after_ends(cursor, now, to_write.noted)
        for statement, rows in to_write.batches.items():
            if statement.execute(cursor, rows) != len(rows):
                raise Conflict("a lease changed hands between two statements")
        for kinds, ids in to_write.gone.items():
            self._details.remove(cursor, ids, kinds)
        if to_write.endings:
            now = leases.now or self._clock.at(leases.sent)  # there if there are leases
            self._recording.write(cursor, to_write.endings, held, now)
        return to_write.recorded, to_write.others

    def _to_write(self, ends: list[End], leases: _Leases) -> _ToWrite:
        """What is to be written of ends, and what becomes of each then."""
        recorded, others, batches, gone, noted, endings, opened = to_write = _ToWrite.nothing()
        now = leases.now or self._clock.at(leases.sent)  # there if there are leases
        for end in ends:
            row = end.run.row
            lease = leases.read.get(row)
            if row in leases.locked:
                recorded.postponed.append(end)
                continue
            if lease is None or lease.token != end.run.token:
                others.append(end)
                continue
            if lease.override == Override.NONE:
                by_now = _by_now(end, lease, now)
                written = by_now is end or by_now == end
                (recorded.written if written else recorded.revised).append(by_now)
                statement, values = self._end(by_now, now)
                result = _SUCCEEDED if by_now.meaning is _SUCCEED else result_of(by_now)
                if (
                    by_now.meaning is not _SUCCEED
                    or lease.streak
                    or lease.alerted
                    or (lease.extras and is_expected(lease))
                ):
                    noted.append(Noted(by_now, lease, overridden=False))
            else:
                by_now = end
                recorded.overridden.append(end)
                statement, values = self._overridden(lease.override, end, now)
                result = result_of(end, True, lease.override == Override.DELETED)
                if lease.override != Override.DELETED:
                    noted.append(Noted(end, lease, overridden=True))
            batches[statement].append(values)
            recorded.results.append((by_now, result))
            endings.append((by_now, result, lease))
            if lease.extras:
                if isinstance(values, Ended):
                    gone[kinds_of(lease.extras)].append(row)
                if is_open(lease.extras):
                    opened.append(row)
        return to_write

    def _read_leases(self, cursor: Cursor, runs: list[Run]) -> _Leases:
        """What the rows of runs hold, and which rows have the run's token but are locked."""
        ids = [run.row for run in runs]
        sent = self._clock.seconds()
        rows = self._sql.read_leases.fetch(cursor, ids)
        received = self._clock.seconds()
        read = {row.id: lease_from_text(row) for row in rows}
        if None in read.values():
            odd = [id for id, lease in read.items() if lease is None]
            read |= {lease.id: lease for lease in self._sql.read_odd_leases.fetch(cursor, odd)}
        leases = _Leases(read, set(), rows[0].now if rows else None, sent, received)
        missing = [id for id in ids if id not in read]
        if missing:
            held = {row.id: row.token for row in self._sql.read_tokens.fetch(cursor, missing)}
            leases.locked.update(run.row for run in runs if held.get(run.row) == run.token)
        return leases

    def _recorded_already(
        self, cursor: Cursor, ends: list[End], unsure: Collection[int]
    ) -> set[int]:
        """
        The rows that an earlier record has written, of some that have another token by now.

        :param unsure: rows that an earlier COMMIT without an answer was about.
        """
        asked = [end for end in ends if end.run.row in unsure]
        if not asked:
            return set()
        found = self._sql.read_marks.fetch(cursor, [end.run.row for end in asked])
        marks = {row.id: row for row in found}
        return {end.run.row for end in asked if was_recorded(end, marks.get(end.run.row))}

    def _end(self, end: End, now: datetime) -> tuple[Statement, EndRow]:
        """The statement that writes an end, and what it takes with each row."""
        instant, sql = self._dialect.instant, self._sql
        run, row, token = end.run, end.run.row, end.run.token
        match end.verdict:
            case Delete():
                return sql.delete_rows, Ended(row, token)
            case Finish():
                return sql.finish_rows, Finished(
                    row,
                    token,
                    succeeded=int(end.meaning is Meaning.SUCCEED),
                    skips=int(end.outcome is None),
                )
            case Reschedule(scheduled, anchor, error):
                at = instant(scheduled)
                # One that went by already goes behind those who wait: they have a turn (P6).
                due = at if scheduled >= now else instant(now)
                if error is None and anchor == run.anchor:
                    return sql.succeed_rows, Succeeded(row, token, at, due)
                return sql.reschedule_rows, Rescheduled(
                    row,
                    token,
                    next_scheduled=at,
                    next_anchor=instant(anchor),
                    next_due=due,
                    last_error=error and error[:MAX_ERROR],
                )
            case Skip(scheduled):
                return sql.skip_rows, Skipped(row, token, next_scheduled=instant(scheduled))
            case Retry(due, error):
                return sql.retry_rows, Retried(
                    row,
                    token,
                    next_due=instant(due),
                    last_error=error[:MAX_ERROR],
                    open_bit=self._recording.open_bit,
                )
            case GiveBack(until):
                return sql.give_back_rows, GivenBack(
                    row,
                    token,
                    attempts_before=run.attempt - 1,
                    due_before=instant(until or run.due),
                    override_before=int(Override.TRIGGERED if run.waited else Override.NONE),
                )
            case Disable(scheduled, anchor, words):
                return sql.disable_rows, Disabled(
                    row,
                    token,
                    next_scheduled=instant(scheduled),
                    next_anchor=instant(anchor),
                    last_error=words[:MAX_ERROR],
                )
            case Stop(error):
                return sql.stop_rows, Stopped(row, token, last_error=error[:MAX_ERROR])

    def _overridden(self, override: int, end: End, now: datetime) -> tuple[Statement, EndRow]:
        """
        The statement that writes the end of a run during which a user did something to the job
        (P4), and what it takes with each row.
        """
        row, token = end.run.row, end.run.token
        if override == Override.DELETED:
            return self._sql.bury_rows, Ended(row, token)
        # A PUT counts afresh; any other override leaves a success one.
        succeeded = isinstance(end.verdict, Reschedule) and end.verdict.error is None
        waits = override in WAITED
        return self._sql.yield_rows, Yielded(
            row,
            token,
            override_read=override,
            next_due=self._dialect.instant(now) if waits else None,
            override_kept=override if waits else int(Override.NONE),
            succeeded=int(succeeded and override == Override.TRIGGERED),
        )


def _by_now(end: End, lease: LeaseRow, now: datetime) -> End:
    """
    An end as it is by what the user has done to the job during the run. Mostly that is nothing.

    :param lease: what the row holds now.
    """
    run = end.run
    try:
        chosen = options_of(lease.options)
    except Unreadable:
        return end  # somebody's SQL; the next claim says so
    if chosen is run.options or chosen == run.options:
        # `revised` by the same options changes no verdict but a removal.
        if not isinstance(end.verdict, Delete):
            return end
        if lease.version == run.version and not lease.disabled:
            return end
    return revised(end, chosen, now)
