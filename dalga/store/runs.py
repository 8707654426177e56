"""
Runs: which are due, claims of them, and what becomes of each. `dalga.store.Store` says what each
call does.

A claim is a lease in the ``due`` column: it moves ``due`` to the lease's end and writes a fresh
``token``. A row is *leased* while it has a token and its due time is to come. Nothing here rests on
row locks, nor on SKIP LOCKED: each write compares what it goes by, and a transaction that finds
something else runs again (`Conflict`). What users do to jobs is in `dalga.store.jobs`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from dalga.log import logger
from dalga.model.job import UnreadableJob
from dalga.model.run import Delete, End, GiveBack, Reschedule, Retry, Run, Skip, Stop, revised
from dalga.model.setback import Reach, corrected
from dalga.store import Claimed, Due, Dues, Recorded
from dalga.store.clock import DatabaseClock
from dalga.store.dialect import Cursor, Dialect
from dalga.store.rows import (
    MAX_ERROR,
    WAITED,
    JobRow,
    Marks,
    Override,
    RunRow,
    Unreadable,
    is_true,
    options_of,
    read_job,
    read_run,
    shown_key,
    was_recorded,
)
from dalga.store.statements import Batch, Statements
from dalga.store.transactions import Call, Conflict, Transactions

log = logger(__name__)

#: Rows that are looked at in one transaction after the clock was set back.
CORRECTED = 500


class Runs:
    """
    Claims, and what becomes of them.

    :param lane: the transactions of the scheduler.
    :param token: makes the random token of a claim, `TOKEN_LENGTH` bytes.
    """

    def __init__(
        self,
        dialect: Dialect,
        clock: DatabaseClock,
        sql: Statements,
        lane: Transactions,
        token: Callable[[], bytes],
    ) -> None:
        self._dialect = dialect
        self._clock = clock
        self._sql = sql
        self._lane = lane
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

        def dues(rows: list[tuple[Any, ...]], now: datetime) -> Dues:
            times = []
            for _, value in rows:
                if value is None:
                    break  # the one row that is always there: nothing is due up to then
                try:
                    times.append(self._dialect.read_instant(value))
                except ValueError:
                    times.append(now)  # no time, but due: a claim will set it aside
            return Dues(times, max(times) if len(times) == limit else horizon)

        arguments = (self._dialect.instant(horizon), *map(self._dialect.key, without), limit)
        return self._lane.read(self._sql.due_within(len(without)), arguments, dues)

    def claim(
        self, limit: int, lease: timedelta, without: Collection[str] = ()
    ) -> Deferred[Claimed]:
        """See `Store.claim`."""

        def work(cursor: Cursor, now: datetime, since: float) -> tuple[Claimed, list[str]]:
            at = self._dialect.instant(now)
            paths = map(self._dialect.key, without)
            cursor.execute(self._sql.find_due(len(without)), (at, *paths, limit))
            found = {row[0]: row[1:] for row in cursor.fetchall()}
            order = list(found)
            if not order:
                return Claimed([], now, full=False), []
            token = self._token()
            cursor.execute(
                self._sql.take(len(order)),
                (
                    self._dialect.instant(now + lease),
                    token,
                    token,
                    at,
                    *order,
                    at,
                ),
            )
            # Only now are the rows this transaction's own: what is read here is what was taken.
            cursor.execute(self._sql.read_taken(len(order)), (*order, token))
            taken = {row[0]: RunRow(*row, *found[row[0]]) for row in cursor.fetchall()}
            lease_ends = since + lease.total_seconds()
            runs, problems = [], []
            for row in (taken[id] for id in order if id in taken):
                if row.override == Override.DELETED:
                    cursor.execute(self._sql.drop, (row.id, token))
                    continue
                try:
                    if is_true("disabled", row.disabled):
                        cursor.execute(self._sql.park, (row.id, token))
                        continue
                    run = read_run(row, token, now, lease_ends, self._dialect.read_instant)
                except Unreadable as problem:
                    cursor.execute(self._sql.set_aside, (str(problem)[:MAX_ERROR], row.id, token))
                    problems.append(f"row {row.id} is set aside: {problem}")
                    continue
                # What has begun goes on, though the database's clock was set back meanwhile.
                if run.scheduled > now and run.attempt == 1:
                    cursor.execute(self._sql.postpone, (row.id, token))
                    continue
                runs.append(run)
            return Claimed(runs, now, full=len(order) == limit), problems

        def report(result: tuple[Claimed, list[str]]) -> Claimed:
            claimed, problems = result
            for problem in problems:
                log.error("{problem}", problem=problem)
            return claimed

        return self._lane.run(work).addCallback(report)

    def correct(self, reach: Reach, after: Due | None) -> Deferred[Due | None]:
        """See `Store.correct`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Due | None:
            instant = self._dialect.instant
            due, id = after or (now, 0)
            cursor.execute(self._sql.ahead, (instant(due), instant(due), id, CORRECTED))
            rows = cursor.fetchall()
            last: Due | None = None
            for id, path, body, *columns in rows:
                row = JobRow(*columns)
                with suppress(ValueError):  # a time that is none
                    last = self._dialect.read_instant(row.due), id
                job = read_job(row, shown_key(path, body), now, self._dialect.read_instant)
                if isinstance(job, UnreadableJob) or job.due is None:
                    continue
                times = corrected(job, now, reach)
                if times is not None:
                    # What was changed meanwhile stays as it is.
                    was = map(instant, (job.due, job.scheduled, job.anchor))
                    cursor.execute(self._sql.correct, (*map(instant, times), id, *was))
            return last if len(rows) == CORRECTED else None

        return self._lane.run(work)

    def record(self, ends: list[End]) -> Deferred[Recorded]:
        """See `Store.record`."""
        if not ends:
            return succeed(Recorded())

        claims = {(end.run.row, end.run.token) for end in ends}
        unsure = {row for row, _ in claims & self._unsure}
        call = Call()

        def work(cursor: Cursor, now: datetime, since: float) -> Recorded:
            recorded = Recorded()
            others = self._record_held(cursor, now, ends, recorded)
            already = self._recorded_already(cursor, others, unsure)
            for end in others:
                (recorded.already if end.run.row in already else recorded.lost).append(end)
            return recorded

        def failed(failure: Failure) -> Failure:
            if call.committing:
                self._unsure |= claims
            return failure

        def done(recorded: Recorded) -> Recorded:
            self._unsure -= claims
            return recorded

        return self._lane.run_call(work, call).addCallbacks(done, failed)

    def _record_held(
        self, cursor: Cursor, now: datetime, ends: list[End], recorded: Recorded
    ) -> list[End]:
        """
        Write the ends of the runs whose rows have still the run's token.

        :param recorded: gets these ends, and those of rows that are locked.
        :return: the ends of runs whose rows have another token, or are gone.
        """
        leases, locked = self._read_leases(cursor, [end.run for end in ends])
        others: list[End] = []
        batches: defaultdict[Batch, list[tuple[object, ...]]] = defaultdict(list)
        for end in ends:
            run = end.run
            token, override, options = leases.get(run.row, (b"", Override.NONE, ""))
            if run.row in locked:
                recorded.postponed.append(end)
                continue
            if token != run.token:
                others.append(end)
                continue
            if override == Override.NONE:
                by_now = _by_now(end, options, now)
                (recorded.written if by_now == end else recorded.revised).append(by_now)
                batch, values = self._end(by_now, now)
            else:
                recorded.overridden.append(end)
                batch, values = self._overridden(override, end, now)
            batches[batch].append((run.row, run.token, *values))
        for batch, rows in batches.items():
            cursor.execute(batch(len(rows)), [value for values in rows for value in values])
            if cursor.rowcount != len(rows):
                raise Conflict("a lease changed hands between two statements")
        return others

    def _read_leases(
        self, cursor: Cursor, runs: list[Run]
    ) -> tuple[dict[int, tuple[bytes, int, object]], set[int]]:
        """
        What the rows of runs hold, by their ids: the token, the `Override` and the options. And
        the rows that have the run's token, but are locked by somebody.
        """
        rows = [run.row for run in runs]
        cursor.execute(self._sql.read_leases(len(rows)), rows)
        leases = {
            row: (bytes(token or b""), override, options)
            for row, token, override, options in cursor.fetchall()
        }
        missing = [row for row in rows if row not in leases]
        if not missing:
            return leases, set()
        cursor.execute(self._sql.read_tokens(len(missing)), missing)
        held = {row: bytes(token or b"") for row, token in cursor.fetchall()}
        return leases, {run.row for run in runs if held.get(run.row) == run.token}

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
        cursor.execute(self._sql.read_marks(len(asked)), [end.run.row for end in asked])
        marks = {row: Marks(*columns) for row, *columns in cursor.fetchall()}
        return {end.run.row for end in asked if was_recorded(end, marks.get(end.run.row))}

    def _end(self, end: End, now: datetime) -> tuple[Batch, tuple[object, ...]]:
        """The statement that writes an end, and what it takes with each row."""
        instant, sql, run = self._dialect.instant, self._sql, end.run
        match end.verdict:
            case Delete():
                return sql.delete_rows, ()
            case Reschedule(scheduled, anchor, error):
                # One that went by already goes behind those who wait: they have a turn (P6).
                due = max(scheduled, now)
                return sql.reschedule_rows, (
                    *map(instant, (scheduled, anchor, due)),
                    error and error[:MAX_ERROR],
                )
            case Skip(scheduled):
                return sql.skip_rows, (instant(scheduled),)
            case Retry(due, error):
                return sql.retry_rows, (instant(due), error[:MAX_ERROR])
            case GiveBack():
                before = Override.TRIGGERED if run.waited else Override.NONE
                return sql.give_back_rows, (run.attempt - 1, instant(run.due), int(before))
            case Stop(error):
                return sql.stop_rows, (error[:MAX_ERROR],)

    def _overridden(
        self, override: int, end: End, now: datetime
    ) -> tuple[Batch, tuple[object, ...]]:
        """The same for what the user did to the job meanwhile (P4)."""
        if override == Override.DELETED:
            return self._sql.bury_rows, ()
        # A PUT counts afresh; any other override leaves a success one.
        succeeded = isinstance(end.verdict, Reschedule) and end.verdict.error is None
        counted = int(succeeded and override == Override.TRIGGERED)
        if override in WAITED:
            return self._sql.yield_rows, (override, self._dialect.instant(now), override, counted)
        return self._sql.yield_rows, (override, None, int(Override.NONE), counted)


def _by_now(end: End, options: object, now: datetime) -> End:
    """An end by the options that the row has now. Mostly nobody has changed them."""
    try:
        chosen = options_of(options)
    except Unreadable:
        return end  # somebody's SQL; the next claim says so
    return end if chosen == end.run.options else revised(end, chosen, now)
