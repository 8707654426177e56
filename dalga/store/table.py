"""
The jobs table: what is done to it. The SQL is in `dalga.store.statements`.

A claim is a lease in the ``due`` column: it moves ``due`` to the lease's end and writes a fresh
``token``. A row is *leased* while it has a token and its due time is to come. Nothing here rests on
row locks, nor on SKIP LOCKED: each write compares what it goes by, and a transaction that finds
something else runs again (`Conflict`).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from dalga.errors import (
    InvalidRequest,
    JobDisabled,
    JobNotFound,
    JobOver,
    JobSetAside,
    StartupError,
)
from dalga.log import logger
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import JobKey
from dalga.model.options import IfExists
from dalga.model.plan import Plan, ScheduleRequest, amended, plan
from dalga.model.run import Delete, GiveBack, Reschedule, Retry, Run, Skip, Stop, Verdict, revised
from dalga.model.schedule import timestamp
from dalga.model.setback import Reach, corrected
from dalga.store import PIECE, Claimed, Counts, Due, Dues, Page, Position, Recorded
from dalga.store.clock import SET_BACK, DatabaseClock
from dalga.store.dialect import Cursor, Dialect, Trouble
from dalga.store.group_commit import LOCKED, GroupCommit, Locked
from dalga.store.rows import (
    MAX_ERROR,
    TOKEN_LENGTH,
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
    terms_text,
    text,
    was_recorded,
)
from dalga.store.schema import ALIVE
from dalga.store.statements import Batch, Statements
from dalga.store.transactions import Call, Conflict, Transactions
from dalga.store.upgrade import upgrade

log = logger(__name__)

#: No lease is longer.
MAX_LEASE = timedelta(hours=2)

#: Rows that are looked at in one transaction after the clock was set back.
CORRECTED = 500

#: When the rows are due that the start tries to write: far from all other rows. And a time before
#: which no row is due.
_TRIAL = datetime(9000, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
_LONG_AGO = datetime(1000, 1, 1, tzinfo=UTC)


class Guard(Protocol):
    """Keeps a second daemon away from the same database, where that is needed."""

    def acquire(self) -> None:
        """:raises StartupError: if another has it."""

    def release(self) -> None:
        """Let others have it."""


class _Put(NamedTuple):
    """One call of `JobsTable.put`."""

    key: JobKey
    request: ScheduleRequest
    variation: float

    @property
    def minds_what_is_there(self) -> bool:
        """Whether the job that is there decides what is written: `if_exists` is update or keep."""
        return self.request.if_exists in (IfExists.UPDATE, IfExists.KEEP)

    def planned(self, now: datetime) -> Plan:
        """:raises InvalidRequest: see `dalga.model.plan.plan`."""
        return plan(self.request, now, self.variation, self.key)


class _Found(NamedTuple):
    """A row where a job is to be written."""

    row: JobRow
    #: None where it was deleted during a run that goes on.
    job: Job | UnreadableJob | None

    @property
    def is_disabled(self) -> bool:
        return isinstance(self.job, Job) and self.job.disabled

    @property
    def compared(self) -> tuple[object, ...]:
        """What a PUT goes by, and has to be as it was read when it is written."""
        row = self.row
        names = ("schedule", "location", "options")
        return (*(text(name, getattr(row, name)) for name in names), row.disabled)


class _Todo(NamedTuple):
    """What is to be written of PUTs, each key in one of four ways."""

    #: The rows of those that mind what is there.
    found: dict[JobKey, _Found]
    #: Whatever is there.
    plans: dict[JobKey, Plan]
    #: Only where nothing is there.
    added: dict[JobKey, Plan]
    #: Only while the row is as it was found: scheduled anew,
    over: dict[JobKey, Plan]
    #: or with other terms, its runs as they are.
    terms: dict[JobKey, Plan]

    def leave_out(self, key: JobKey) -> None:
        """Don't write it."""
        for group in (self.plans, self.over, self.terms):
            group.pop(key, None)

    @property
    def keys(self) -> set[JobKey]:
        """Those that are written."""
        return {*self.plans, *self.added, *self.over, *self.terms}


class JobsTable:
    """
    The `dalga.store.Store` over a dialect.

    Claims and records have connections of their own, so that a crowd at the API can't keep a due
    job waiting; an embedded database has but one connection for all.

    :param run_lane: transactions for the scheduler.
    :param api_lane: transactions for the API; may be the same object.
    :param token: makes the random token of a claim, `TOKEN_LENGTH` bytes.
    """

    def __init__(
        self,
        dialect: Dialect,
        clock: DatabaseClock,
        run_lane: Transactions,
        api_lane: Transactions,
        guard: Guard | None = None,
        token: Callable[[], bytes] = lambda: os.urandom(TOKEN_LENGTH),
    ) -> None:
        self.clock = clock
        self._dialect = dialect
        self._runs = run_lane
        self._api = api_lane
        self._guard = guard
        self._token = token
        self._sql = Statements(dialect)
        self._puts: GroupCommit[_Put, Job] = GroupCommit(
            api_lane, self._put_all, lambda put: put.key
        )
        self._gets: GroupCommit[JobKey, Job | UnreadableJob] = GroupCommit(api_lane, self._read_all)
        #: Row and token of the runs whose record's COMMIT got no answer, until they are settled: at
        #: most as many as the scheduler keeps verdicts.
        self._unsure: set[tuple[int, bytes]] = set()

    # Open and close

    def open(self) -> None:
        """See `Store.open`."""

        last_write = self._dialect.last_write()  # before we write

        def check(cursor: Cursor) -> None:
            self._dialect.check_table(cursor)
            sent = self.clock.seconds()
            cursor.execute(self._dialect.prepare("SELECT UTC_TIMESTAMP(6)"))
            ((value,),) = cursor.fetchall()
            self.clock.observe(self._dialect.read_instant(value), sent, self.clock.seconds())
            if last_write is not None and last_write > self.clock.now() + SET_BACK:
                self.clock.set_backs += 1  # while no daemon was there to see it

        self._at_start(check, self._try)

    def create_table(self) -> str:
        """See `Store.create_table`."""
        made: list[str] = []
        self._at_start(lambda cursor: made.extend(self._dialect.create_table(cursor)))
        which = f"table{'s' * (len(made) > 1)} {' and '.join(reversed(made))}"
        return f"created the {which} in {self._dialect.where()}"

    def upgrade_table(self, dry_run: bool) -> Generator[str, None, None]:
        """See `Store.upgrade_table`."""
        if self._guard is not None:
            self._guard.acquire()
        try:
            yield from upgrade(self._dialect, dry_run)
        finally:
            if self._guard is not None:
                self._guard.release()

    def _at_start(
        self, work: Callable[[Cursor], None], trial: Callable[[Cursor], None] | None = None
    ) -> None:
        """
        Run one transaction, blocking, on its own connection; say in one sentence what fails.

        :param trial: another one, to be rolled back.
        """
        if self._guard is not None:
            self._guard.acquire()
        try:
            with closing(self._dialect.connect()) as connection:
                cursor = connection.cursor()
                self._dialect.begin(cursor)
                work(cursor)
                connection.commit()
                if trial is not None:
                    self._dialect.begin(cursor)
                    trial(cursor)
                    connection.rollback()
        except Exception as error:
            if self._guard is not None:
                self._guard.release()
            sentence = self._dialect.explain(error)
            if sentence is None:
                raise
            raise StartupError(sentence) from error

    def _try(self, cursor: Cursor) -> None:
        """
        Write, in each way that the daemon will, into rows of its own that no claim finds.

        :raises StartupError: with what is in the way: a right that is missing, a setting of the
            server's, a trigger, or columns that keep something else than what was written.
        """
        try:
            self._look_for_set_back(cursor)
            kept = self._write_and_read(cursor)
        except Exception as error:
            trouble = self._dialect.trouble(error)
            if trouble in (Trouble.BUSY, Trouble.CONFLICT):
                return  # locked by somebody, such as a backup: that will be over
            words = self._dialect.explain_write(error)
            if words is None:
                raise
            raise StartupError(words) from error
        if kept is not None:
            raise StartupError(
                f"the table {self._dialect.table} in {self.where()} does not keep what is written "
                f"to it ({kept}), as a trigger or another type of a column may have it: compare "
                "its definition with that of a new one"
            )

    def _look_for_set_back(self, cursor: Cursor) -> None:
        """Whether the clock was set back while no daemon was there to see it."""
        late = self._dialect.instant(self.clock.now() + SET_BACK)
        cursor.execute(self._sql.count_ahead, (late,))
        ((ahead,),) = cursor.fetchall()
        if ahead and not self.clock.set_backs:
            self.clock.set_backs += 1

    def _write_and_read(self, cursor: Cursor) -> str | None:
        """The trial itself. Gives in words what is not read as it was written; None if all is."""
        dialect, sql, token = self._dialect, self._sql, self._token()
        name, text = f"try {token.hex()}", "é\N{SLIGHTLY SMILING FACE}' "
        keys = [JobKey(name, f"{text}{body}") for body in "aA"]  # two, for bytes are compared
        instant = _TRIAL
        planned = plan(ScheduleRequest(one_off=True, first_run=instant), instant)
        for _ in range(2):
            self._upsert(cursor, dict.fromkeys(keys, planned), instant)
        expected = {key: _as_planned(key, planned) for key in keys}
        if dict(self._read_rows(cursor, keys, _TRIAL)) != expected:
            return "two jobs are not read as they were put"
        cursor.execute(sql.find_all(len(keys)), [part for key in keys for part in self._key(key)])
        rows = [row[0] for row in cursor.fetchall()]
        self._lock(cursor, keys)
        at = dialect.instant(instant)
        cursor.execute(sql.find_due(0), (dialect.instant(_LONG_AGO), 1))
        cursor.execute(sql.take(len(rows)), (at, token, token, at, *rows, at))
        counts = [cursor.rowcount]
        cursor.execute(sql.read_taken(len(rows)), (*rows, token))
        try:
            for row in cursor.fetchall():
                columns = RunRow(*(*row, row[7], Override.NONE))
                run = read_run(columns, token, instant, 0.0, dialect.read_instant)
                if run.started != instant:
                    return "a claim does not read what it wrote"
        except Unreadable as problem:
            return str(problem)
        cursor.execute(sql.read_leases(len(rows)), rows)
        error = (text * MAX_ERROR)[:MAX_ERROR]
        ends = [value for row in rows for value in (row, token, at, error)]
        cursor.execute(sql.retry_rows(len(rows)), ends)
        counts.append(cursor.rowcount)
        cursor.execute(sql.take(len(rows)), (at, token, token, at, *rows, at))
        found = [job for _, job in self._read_rows(cursor, keys, instant)]
        if [job.error for job in found if isinstance(job, Job)] != [error] * len(keys):
            return "the error of a run is not read as it was written"
        cursor.execute(sql.delete_rows(len(rows)), [v for row in rows for v in (row, token)])
        counts.append(cursor.rowcount)
        for _ in range(2):
            cursor.execute(sql.announce, (dialect.key(name), at))
        cursor.execute(sql.depart, (dialect.key(name),))
        counts.append(cursor.rowcount * len(keys))
        return None if counts == [len(keys)] * 4 else f"of 2 rows {counts} are said to be changed"

    def where(self) -> str:
        """The database, as a person would name it."""
        return self._dialect.where()

    def close(self) -> Deferred[None]:
        """See `Store.close`."""

        self._puts.close()
        self._gets.close()

        async def close() -> None:
            await self._runs.close()
            if self._api is not self._runs:
                await self._api.close()
            if self._guard is not None:
                self._guard.release()

        return Deferred.fromCoroutine(close())

    # What the API does

    def put(self, key: JobKey, request: ScheduleRequest, variation: float = 1.0) -> Deferred[Job]:
        """See `Store.put`."""
        return self._puts.run(_Put(key, request, variation))

    def get(self, key: JobKey) -> Deferred[Job | UnreadableJob]:
        """See `Store.get`."""
        return self._gets.run(key)

    def page(self, path: str | None, after: Position | None, limit: int) -> Deferred[Page]:
        """See `Store.page`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Page:
            rows: list[Any] = []
            for condition, values in self._ranges(path, after):
                if len(rows) <= limit:
                    cursor.execute(self._sql.page(condition), (*values, limit + 1 - len(rows)))
                    rows += cursor.fetchall()
            jobs = [
                read_job(JobRow(*columns), _key_of(path, body), now, self._dialect.read_instant)
                for _, _, _, path, body, *columns in rows[:limit]
            ]
            if len(rows) <= limit:
                return Page(jobs, None)
            path_is_blob, body_is_blob, _, last_path, last_body, *_ = rows[limit - 1]
            kinds = bool(path_is_blob), bool(body_is_blob)
            return Page(jobs, Position(_octets(last_path), _octets(last_body), *kinds))

        return self._api.run(work)

    def trigger(self, key: JobKey) -> Deferred[Job]:
        """See `Store.trigger`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Job:
            at = self._dialect.instant(now)
            cursor.execute(self._sql.trigger, (at, at, at, at, at, at, *self._key(key)))
            triggered = cursor.rowcount
            job = self._expect(cursor, key, now)
            if triggered:
                _check_until(job)
                return job
            if job.disabled:
                raise JobDisabled(
                    f"the job with path {key.path!r} and body {key.body!r} is disabled: enable it "
                    "first, with PATCH and enable=true"
                )
            raise Conflict("enabled between two statements")

        return self._api.run(work)

    def enable(self, key: JobKey) -> Deferred[Job | UnreadableJob]:
        """See `Store.enable`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Job | UnreadableJob:
            at = self._dialect.instant(now)
            cursor.execute(self._sql.enable, (at, at, at, at, *self._key(key)))
            return self._read(cursor, key, now)

        return self._api.run(work)

    def disable(self, key: JobKey) -> Deferred[Job | UnreadableJob]:
        """See `Store.disable`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Job | UnreadableJob:
            self._disable(cursor, key, now)
            return self._read(cursor, key, now)

        return self._api.run(work)

    def delete(self, key: JobKey) -> Deferred[None]:
        """See `Store.delete`."""

        def work(cursor: Cursor, now: datetime, since: float) -> None:
            where = (*self._key(key), self._dialect.instant(now))
            cursor.execute(self._sql.delete_idle, where)
            if cursor.rowcount:
                return
            cursor.execute(self._sql.delete_leased, where)
            if cursor.rowcount:
                return
            cursor.execute(self._sql.find, self._key(key))
            if cursor.fetchall():
                raise Conflict("claimed or released between two statements")

        return self._api.run(work)

    def now(self) -> Deferred[datetime]:
        """See `Store.now`."""
        return self._api.read(self._sql.now, (), lambda rows, now: now)

    def counts(self, after: int = 0, limit: int = PIECE) -> Deferred[Counts]:
        """See `Store.counts`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Counts:
            at = self._dialect.instant(now)
            last = self._dialect.instant(now + MAX_LEASE)
            alive = self._dialect.instant(now - ALIVE)
            cursor.execute(self._sql.counts, (alive, at, at, at, last, after, limit))
            ((instances, oldest, total, pending, set_aside, running, row),) = cursor.fetchall()
            try:
                lag = now - self._dialect.read_instant(oldest)
            except ValueError:
                lag = timedelta()  # nothing is pending
            more = (after if row is None else int(row)) if total == limit else None
            counted = total, pending, set_aside, running
            return Counts(*counted, instances=instances, lag=lag, last=more)

        return self._api.run(work)

    # What the scheduler does

    def announce(self, instance: str) -> Deferred[None]:
        """See `Store.announce`."""

        def work(cursor: Cursor, now: datetime, since: float) -> None:
            alive = self._dialect.instant(now - ALIVE)
            # Others' rows are locked only where one is to go, and before one's own: two instances
            # never wait for each other.
            cursor.execute(self._sql.count_gone, (alive,))
            ((gone,),) = cursor.fetchall()
            if gone:
                cursor.execute(self._sql.forget, (alive,))
            at = self._dialect.instant(now)
            cursor.execute(self._sql.announce, (self._dialect.key(instance), at))

        return self._runs.run(work)

    def depart(self, instance: str) -> Deferred[None]:
        """See `Store.depart`."""

        def work(cursor: Cursor, now: datetime, since: float) -> None:
            cursor.execute(self._sql.depart, (self._dialect.key(instance),))

        return self._runs.run(work)

    def upcoming(
        self, within: timedelta, limit: int, without: Collection[str] = ()
    ) -> Deferred[Dues]:
        """See `Store.upcoming`."""

        # One statement, as this is what an idle daemon does: so the horizon goes by the estimate of
        # the database's time. It is what was asked for, so it holds even where that is wrong.
        horizon = self.clock.now() + within

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
        return self._runs.read(self._sql.upcoming(len(without)), arguments, dues)

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

        return self._runs.run(work).addCallback(report)

    def correct(self, reach: Reach, after: Due | None) -> Deferred[Due | None]:
        """See `Store.correct`."""

        if self._guard is None:
            # Other instances' runs may take longer than ours.
            reach = replace(reach, lease=MAX_LEASE)

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
                job = read_job(row, _key_of(path, body), now, self._dialect.read_instant)
                if isinstance(job, UnreadableJob) or job.due is None:
                    continue
                times = corrected(job, now, reach)
                if times is not None:
                    # What was changed meanwhile stays as it is.
                    was = map(instant, (job.due, job.scheduled, job.anchor))
                    cursor.execute(self._sql.correct, (*map(instant, times), id, *was))
            return last if len(rows) == CORRECTED else None

        return self._runs.run(work)

    def record(self, verdicts: list[tuple[Run, Verdict]]) -> Deferred[Recorded]:
        """See `Store.record`."""
        if not verdicts:
            return succeed(Recorded())

        claims = {(run.row, run.token) for run, _ in verdicts}
        unsure = {row for row, _ in claims & self._unsure}
        call = Call()

        def work(cursor: Cursor, now: datetime, since: float) -> Recorded:
            recorded = Recorded()
            others = self._record_held(cursor, now, verdicts, recorded)
            already = self._recorded_already(cursor, others, unsure)
            for run, _ in others:
                (recorded.already if run.row in already else recorded.lost).append(run)
            return recorded

        def failed(failure: Failure) -> Failure:
            if call.committing:
                self._unsure |= claims
            return failure

        def done(recorded: Recorded) -> Recorded:
            self._unsure -= claims
            return recorded

        return self._runs.run_call(work, call).addCallbacks(done, failed)

    def _record_held(
        self, cursor: Cursor, now: datetime, verdicts: list[tuple[Run, Verdict]], recorded: Recorded
    ) -> list[tuple[Run, Verdict]]:
        """
        Write what became of the runs whose rows have still the run's token.

        :param recorded: gets the runs whose verdict was not written as it is, and why.
        :return: the runs, with their verdicts, whose rows have another token, or are gone.
        """
        leases, locked = self._read_leases(cursor, [run for run, _ in verdicts])
        others: list[tuple[Run, Verdict]] = []
        batches: defaultdict[Batch, list[tuple[object, ...]]] = defaultdict(list)
        for run, verdict in verdicts:
            token, override, options = leases.get(run.row, (b"", Override.NONE, ""))
            if run.row in locked:
                recorded.postponed.append(run)
                continue
            if token != run.token:
                others.append((run, verdict))
                continue
            if override == Override.NONE:
                by_now = _by_now(run, verdict, options, now)
                if by_now != verdict:
                    recorded.revised.append((run, by_now))
                batch, values = self._end(run, by_now, now)
            else:
                recorded.overridden.append(run)
                batch, values = self._overridden(override, verdict, now)
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
        self, cursor: Cursor, verdicts: list[tuple[Run, Verdict]], unsure: Collection[int]
    ) -> set[int]:
        """
        The rows that an earlier record has written, of some that have another token by now.

        :param unsure: rows that an earlier COMMIT without an answer was about.
        """
        asked = [(run, verdict) for run, verdict in verdicts if run.row in unsure]
        if not asked:
            return set()
        cursor.execute(self._sql.read_marks(len(asked)), [run.row for run, _ in asked])
        marks = {row: Marks(*columns) for row, *columns in cursor.fetchall()}
        return {run.row for run, verdict in asked if was_recorded(run, verdict, marks.get(run.row))}

    def _end(self, run: Run, verdict: Verdict, now: datetime) -> tuple[Batch, tuple[object, ...]]:
        """The statement that writes a verdict, and what it takes with each row."""
        instant, sql = self._dialect.instant, self._sql
        match verdict:
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
        self, override: int, verdict: Verdict, now: datetime
    ) -> tuple[Batch, tuple[object, ...]]:
        """The same for what the user did to the job meanwhile (P4)."""
        if override == Override.DELETED:
            return self._sql.bury_rows, ()
        # A PUT counts afresh; any other override leaves a success one.
        succeeded = isinstance(verdict, Reschedule) and verdict.error is None
        counted = int(succeeded and override == Override.TRIGGERED)
        if override in WAITED:
            return self._sql.yield_rows, (override, self._dialect.instant(now), override, counted)
        return self._sql.yield_rows, (override, None, int(Override.NONE), counted)

    # Within a transaction

    def _ranges(
        self, path: str | None, after: Position | None
    ) -> list[tuple[str, tuple[object, ...]]]:
        """
        Which rows come after a place, as ranges of the key's index, one after the other: of an OR,
        or of a row value, MySQL makes none.
        """
        if after is None:
            return [("", ())] if path is None else [("AND path = %s", (self._dialect.key(path),))]
        known = self._dialect.octets(after.path_is_blob)
        body = self._dialect.octets(after.body_is_blob)
        ranges: list[tuple[str, tuple[object, ...]]] = [
            (f"AND path = {known} AND body > {body}", (after.path, after.body))
        ]
        return ranges if path is not None else [*ranges, (f"AND path > {known}", (after.path,))]

    def _key(self, key: JobKey) -> tuple[object, object]:
        return self._dialect.key(key.path), self._dialect.key(key.body)

    def _put_all(
        self, cursor: Cursor, now: datetime, puts: list[_Put]
    ) -> list[Job | Exception | Locked]:
        """
        Write jobs, each key but once; what is refused is the answer, and not written. Of several
        those whose row somebody has locked are left out.
        """
        results: dict[JobKey, Job | Exception | Locked] = {}
        todo = self._sorted(cursor, now, puts, results)
        self._add(cursor, todo.added)
        plans = todo.plans
        if len(puts) > 1 and self._dialect.skip_locked:
            # New ones first: they may have to wait for somebody who adds the same, and others' rows
            # are not to be locked meanwhile.
            there = self._there(cursor, plans)
            new = {key: plans[key] for key in plans if key not in there}
            # One for each that was added, two for one that somebody had added meanwhile.
            if self._upsert(cursor, new, now) == len(new):
                results |= {key: _as_planned(key, plans.pop(key)) for key in new}
            wanted = there.union(todo.over, todo.terms)
            free = self._lock(cursor, wanted)
            for key in wanted - free:
                results[key] = LOCKED
                todo.leave_out(key)
            plans = {key: plans[key] for key in plans if key in free}
        for key, terms in todo.terms.items():
            self._amend(cursor, key, todo.found[key], terms)
        for key in todo.over:
            self._hold(cursor, key, todo.found[key])
        self._upsert(cursor, plans | todo.over, now)
        for key in todo.over:
            if todo.found[key].is_disabled:
                self._disable(cursor, key, now)
        for key, job in self._read_rows(cursor, todo.keys, now):
            results[key] = self._readable(job, key)
        for put in puts:
            if put.key in todo.added:
                _check_added(put, todo.added[put.key], results.get(put.key))
        return [results[put.key] for put in puts]

    def _sorted(
        self,
        cursor: Cursor,
        now: datetime,
        puts: list[_Put],
        results: dict[JobKey, Job | Exception | Locked],
    ) -> _Todo:
        """What is to be written of PUTs; `results` gets the answers of those that write nothing."""
        found = self._found(cursor, [put.key for put in puts if put.minds_what_is_there], now)
        todo = _Todo(found, {}, {}, {}, {})
        # In the order of the key, in which all transactions add several rows: two that add the
        # same can't each wait for the other.
        for put in sorted(puts, key=lambda put: put.key):
            key = put.key
            try:
                if not put.minds_what_is_there:
                    todo.plans[key] = put.planned(now)
                elif key not in found:
                    todo.added[key] = put.planned(now)
                else:
                    answer, terms = self._decide(put, found[key].job, now)
                    if answer is not None:
                        results[key] = answer
                    elif terms is not None:
                        todo.terms[key] = terms
                    else:
                        todo.over[key] = put.planned(now)
            except (InvalidRequest, JobSetAside) as refusal:
                results[key] = refusal
        return todo

    def _found(
        self, cursor: Cursor, keys: Collection[JobKey], now: datetime
    ) -> dict[JobKey, _Found]:
        """What there is of some jobs."""
        found = {}
        for key, columns in self._select(cursor, self._sql.find_rows, keys):
            row = JobRow(*columns)
            job = read_job(row, key, now, self._dialect.read_instant)
            found[key] = _Found(row, None if row.override == Override.DELETED else job)
        return found

    def _decide(
        self, put: _Put, job: Job | UnreadableJob | None, now: datetime
    ) -> tuple[Job | None, Plan | None]:
        """
        What a PUT comes to that minds what is there.

        :param job: None where it was deleted during a run that goes on.
        :return: the job, where there is nothing to change; else the terms that it gets, or None
            where it is scheduled anew.
        :raises InvalidRequest: see `dalga.model.plan.amended`.
        :raises JobSetAside: if it is to be kept, and can't be understood.
        """
        if put.request.if_exists is IfExists.KEEP and job is not None:
            return self._readable(job, put.key), None
        if not isinstance(job, Job):
            return None, None
        terms = amended(job, put.request, now)
        if terms and (terms.schedule, terms.options) == (job.schedule, job.options):
            return job, None
        return None, terms

    def _amend(self, cursor: Cursor, key: JobKey, found: _Found, terms: Plan) -> None:
        """Write the terms of a job, whose runs go on as they were."""
        texts = terms_text(terms.schedule, terms.options)
        # An `until` was held against the run that the job had.
        scheduled = self._dialect.instant(terms.first)
        values = (*texts, *self._key(key), *found.compared, scheduled)
        cursor.execute(self._sql.amend, values)
        if cursor.rowcount != 1:
            raise Conflict("changed between two statements")

    def _hold(self, cursor: Cursor, key: JobKey, found: _Found) -> None:
        """Make sure, up to the end of the transaction, that a job is as it was found."""
        if isinstance(found.job, UnreadableJob):
            return  # nor can it be compared; it is mended, whatever it is
        if found.job is None:
            cursor.execute(self._sql.hold_deleted, self._key(key))
        else:
            cursor.execute(self._sql.hold, (*self._key(key), *found.compared))
        if cursor.rowcount != 1:
            raise Conflict("changed between two statements")

    def _add(self, cursor: Cursor, plans: dict[JobKey, Plan]) -> None:
        """Write jobs where nothing is there; what somebody has added meanwhile stays."""
        if plans:
            rows = [value for key, planned in plans.items() for value in self._row(key, planned)]
            cursor.execute(self._sql.add(len(plans)), rows)

    def _upsert(self, cursor: Cursor, plans: dict[JobKey, Plan], now: datetime) -> int:
        """Write jobs, new or over those that are there; gives what the driver counts."""
        if not plans:
            return 0
        at = self._dialect.instant(now)
        rows = [value for key, planned in plans.items() for value in self._row(key, planned)]
        cursor.execute(self._sql.put(len(plans)), (*rows, at, at, at, at))
        return int(cursor.rowcount)

    def _row(self, key: JobKey, planned: Plan) -> tuple[object, ...]:
        terms = terms_text(planned.schedule, planned.options)
        anchor, first = map(self._dialect.instant, (planned.anchor, planned.first))
        return (*self._key(key), *terms, anchor, first, first)

    def _disable(self, cursor: Cursor, key: JobKey, now: datetime) -> None:
        at = self._dialect.instant(now)
        cursor.execute(self._sql.disable, (at, at, at, *self._key(key)))

    def _there(self, cursor: Cursor, keys: Collection[JobKey]) -> set[JobKey]:
        """Those of the jobs that are in the table, locked or not."""
        return {key for key, _ in self._select(cursor, self._sql.find_all, keys)}

    def _lock(self, cursor: Cursor, keys: Collection[JobKey]) -> set[JobKey]:
        """Lock those of the jobs that nobody else has locked."""
        return {key for key, _ in self._select(cursor, self._sql.lock, keys)}

    def _read_all(
        self, cursor: Cursor, now: datetime, keys: list[JobKey]
    ) -> list[Job | UnreadableJob | Exception | Locked]:
        found = dict(self._read_rows(cursor, set(keys), now))
        return [found[key] if key in found else _not_found(key) for key in keys]

    def _read(self, cursor: Cursor, key: JobKey, now: datetime) -> Job | UnreadableJob:
        rows = dict(self._read_rows(cursor, (key,), now))
        if not rows:
            raise _not_found(key)
        return rows[key]

    def _read_rows(
        self, cursor: Cursor, keys: Collection[JobKey], now: datetime
    ) -> Iterator[tuple[JobKey, Job | UnreadableJob]]:
        for key, columns in self._select(cursor, self._sql.get, keys):
            yield key, read_job(JobRow(*columns), key, now, self._dialect.read_instant)

    def _select(
        self, cursor: Cursor, statement: Batch, keys: Collection[JobKey]
    ) -> Iterator[tuple[JobKey, list[Any]]]:
        """The rows that there are of some jobs, with what stands in them behind id and key."""
        if not keys:
            return
        wanted = {tuple(map(_octets, self._key(key))): key for key in keys}
        cursor.execute(statement(len(wanted)), [value for key in keys for value in self._key(key)])
        for _, path, body, *columns in cursor.fetchall():
            yield wanted[_octets(path), _octets(body)], columns

    def _expect(self, cursor: Cursor, key: JobKey, now: datetime) -> Job:
        """Read a job that has to be readable, or the write before it is undone."""
        return self._readable(self._read(cursor, key, now), key)

    def _readable(self, job: Job | UnreadableJob, key: JobKey) -> Job:
        if isinstance(job, UnreadableJob):
            raise JobSetAside(
                f"the job with path {key.path!r} and body {key.body!r} can't be understood "
                f"({job.problem}): schedule it anew with PUT, or delete it"
            )
        return job


def _by_now(run: Run, verdict: Verdict, options: object, now: datetime) -> Verdict:
    """A verdict by the options that the row has now. Mostly nobody has changed them."""
    try:
        chosen = options_of(options)
    except Unreadable:
        return verdict  # somebody's SQL; the next claim says so
    return verdict if chosen == run.options else revised(run, verdict, chosen, now)


def _key_of(path: object, body: object) -> JobKey:
    """The key in a row, to show it: as far as it is text."""
    shown = (
        text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        for text in (path, body)
    )
    return JobKey(*shown)


def _not_found(key: JobKey) -> JobNotFound:
    return JobNotFound(f"there is no job with path {key.path!r} and body {key.body!r}")


def _as_planned(key: JobKey, planned: Plan) -> Job:
    """A job that was not there before."""
    return Job(
        key=key,
        schedule=planned.schedule,
        options=planned.options,
        anchor=planned.anchor,
        scheduled=planned.first,
        due=planned.first,
    )


def _check_added(put: _Put, planned: Plan, job: Job | Exception | Locked | None) -> None:
    """:raises Conflict: where somebody has added the job meanwhile, and it is to be looked at."""
    if put.request.if_exists is IfExists.KEEP and job is not None:
        return
    if job != _as_planned(put.key, planned):
        raise Conflict("added between two statements")


def _check_until(job: Job) -> None:
    """:raises JobOver: if the job was triggered after that."""
    until = job.options.until
    if until is not None and job.scheduled > until:
        raise JobOver(
            f"the job with path {job.key.path!r} and body {job.key.body!r} has until "
            f"{timestamp(until)}, which is past: there is no new run of it, unless you PUT it with "
            "a later one"
        )


def _octets(text: object) -> bytes:
    """A path or body, as a parameter or as a column's value, to compare the two."""
    return text.encode() if isinstance(text, str) else bytes(text)  # type: ignore[call-overload]
