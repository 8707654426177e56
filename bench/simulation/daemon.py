"""A daemon: the real scheduler over transactions and POSTs that cost what was measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from types import MappingProxyType
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed

from bench.simulation.endpoint import Endpoint
from bench.simulation.machine import MS, Cores, Interpreter, Reactor, Then, Time, at
from bench.simulation.table import COMMIT, Database, Row
from dalga.dispatch.scheduler import Pace, Scheduler
from dalga.metrics import Metrics
from dalga.model.instance import About
from dalga.model.key import JobKey
from dalga.model.options import Options
from dalga.model.run import End, Outcome, Run, RunPolicy, lease_of
from dalga.model.schedule import Once
from dalga.model.statistics import MinuteSums
from dalga.store import Batch, Claimed, Dues, Recorded
from dalga.store.clock import DatabaseClock

T = TypeVar("T")

#: CPU of a daemon for a POST, log and judgement included: what is left of the 0.32 ms of a drained
#: job without its share of claims and records, as below; and of the 0.246 ms that a job costs where
#: other work keeps the machine's cores awake (docs/scaling.md).
POST, POST_AWAKE = 0.26 * MS, 0.19 * MS
#: Of that, until the request is put together, and for the write, which comes in a later turn of the
#: reactor; the rest is for the answer. Measured: 0.069, 0.019 and 0.079 ms of `Endpoint.post`; what
#: is not in there, such as the log, is counted with the answer.
PREPARES, WRITES = 0.36, 0.10

#: CPU for a transaction, and for each row that it claims and later records: of the daemon, and of
#: the database. Measured: to claim and record one row takes 1.21 and 0.98 ms, and of 50 rows each
#: 0.067 and 0.080 ms, of 200 rows 0.041 and 0.049 ms.
TRANSACTION_HERE, ROW_HERE = 0.58 * MS, 0.040 * MS
TRANSACTION_THERE, ROW_THERE = 0.47 * MS, 0.050 * MS
#: How much of a row's cost the claim is. Measured: of 50 to 1,000 rows a claim takes 1.7 to 3.0
#: times as long as a record.
CLAIMS = 0.7

#: The same for a transaction that finds nothing to write, and for each due time that a scan reads.
#: Measured: a scan of one row takes 0.64 and 0.15 ms, of 1,000 rows 3.10 and 0.50 ms; an empty
#: claim takes 0.39 ms of the daemon's.
LOOK_HERE, LOOK_THERE = 0.5 * MS, 0.15 * MS
TIME_HERE, TIME_THERE = 0.0025 * MS, 0.00035 * MS
#: CPU of the database for each locked row that a claim passes over. Measured: 5,000 of them 0.5 ms.
PASSED_OVER = 0.0001 * MS


Step = Callable[[Then], object]


def follow(steps: Generator[Step, None, None]) -> None:
    """Run what is a step after the other, each of which says when it is done."""

    def go() -> None:
        step = next(steps, None)
        if step is not None:
            step(go)

    go()


class SimulatedStore:
    """
    What `Scheduler` needs of `dalga.store.Store`: the statements of each transaction, one after the
    other, in a thread that needs the interpreter before and after each. Each job has a path of its
    own, so no claim and no scan passes over any.

    :param trip: seconds from daemon to database and back, beyond what both compute.
    :param others: how many other daemons a heartbeat finds alive.
    """

    def __init__(
        self, time: Time, here: Interpreter, database: Database, trip: float, others: int
    ) -> None:
        self.clock = DatabaseClock(lambda: time.now)
        self.clock.observe(at(time.now), time.now, time.now)
        self._time, self._here, self._database, self._trip = time, here, database, trip
        self._others = others

    def claim(
        self,
        limit: int,
        timeout: float,
        without: Collection[str] = (),
        timeouts: Mapping[str, float] = MappingProxyType({}),
    ) -> Deferred[Claimed]:
        """The time, find, take, read, commit: the five statements of the code that was measured."""
        deferred: Deferred[Claimed] = Deferred()
        database = self._database
        lease = lease_of(timeout)

        def steps() -> Generator[Step, None, None]:
            sent = self._time.now
            transaction = database.begin(self._here)
            yield from self._ask(LOOK_HERE / 3, LOOK_THERE / 2)
            now = at(self._time.now)
            yield from self._ask(LOOK_HERE / 3, LOOK_THERE / 2)
            found, passed = database.find(transaction, limit, now)
            full = len(found) == limit
            if not database.skip_locked:
                yield lambda go: database.lock_all(transaction, found, go)
                found = [row for row in found if row.due <= now and row.id in database.rows]
            runs: list[Run] = []
            if not found:
                database.counts["empty claims"] += 1
                yield from self._ask(LOOK_HERE / 3, passed * PASSED_OVER)
                database.end(transaction)
                yield from self._answer(deferred, Claimed([], now, full), 0.0, now, sent)
                return
            here = (TRANSACTION_HERE - LOOK_HERE * 2 / 3) / 3
            there = TRANSACTION_THERE - LOOK_THERE + len(found) * ROW_THERE * CLAIMS
            yield from self._ask(here, there / 2 + passed * PASSED_OVER)
            yield from self._ask(here, there / 2)

            def take() -> None:
                lease_ends = sent + lease.total_seconds()
                dues = [row.due for row in found]
                token = database.take(found, now + lease)
                for row, due in zip(found, dues, strict=True):
                    runs.append(_run(row, due, token, now, lease_ends, timeout))

            yield from self._ask(here, 0.0)
            yield lambda go: database.commit(transaction, take, go)
            work = len(found) * ROW_HERE * CLAIMS
            yield from self._answer(deferred, Claimed(runs, now, full), work, now, sent)

        follow(steps())
        return deferred

    def record(self, ends: list[End]) -> Deferred[Recorded]:
        """The time, read, write, commit."""
        deferred: Deferred[Recorded] = Deferred()
        database, count = self._database, len(ends)
        here = (TRANSACTION_HERE + count * ROW_HERE * (1 - CLAIMS)) / 4
        there = (TRANSACTION_THERE + count * ROW_THERE * (1 - CLAIMS)) / 3

        def steps() -> Generator[Step, None, None]:
            sent = self._time.now
            transaction = database.begin(self._here)
            yield from self._ask(here, there)
            now = at(self._time.now)
            yield from self._ask(here, there)
            yield from self._ask(here, there)
            recorded = Recorded()
            yield from self._ask(here, 0.0)
            yield lambda go: database.commit(
                transaction, lambda: database.write(ends, recorded), go
            )
            yield from self._answer(deferred, recorded, 0.0, now, sent)

        follow(steps())
        return deferred

    def due_within(
        self, within: timedelta, limit: int, without: Collection[str] = ()
    ) -> Deferred[Dues]:
        """The time, read, commit."""
        deferred: Deferred[Dues] = Deferred()
        database = self._database

        def steps() -> Generator[Step, None, None]:
            sent = self._time.now
            transaction = database.begin(self._here)
            yield from self._ask(LOOK_HERE / 3, LOOK_THERE)
            now = at(self._time.now)
            dues = database.due_within(within, limit, now)
            count = len(dues.times)
            database.counts["scans"] += 1
            database.counts["times scanned"] += count
            yield from self._ask(LOOK_HERE / 3, count * TIME_THERE)
            yield from self._ask(LOOK_HERE / 3, 0.0)
            database.end(transaction)
            yield from self._answer(deferred, dues, count * TIME_HERE, now, sent)

        follow(steps())
        return deferred

    def act(
        self, limit: int, endpoints: Collection[str], instance: str, in_any_case: bool
    ) -> Deferred[Batch]:
        """There are no actions. What a look for them costs is left out: one in 5 s."""
        return succeed(Batch())

    def announce(self, instance: str, since: datetime, about: About) -> Deferred[int]:
        """The time, count, write, commit."""
        return self._write(self._others)

    #: No user does anything here.
    unsettled = False

    def settle(self) -> Deferred[None]:
        """There is nothing to settle."""
        return succeed(None)

    def write_sums(self, sums: MinuteSums) -> Deferred[None]:
        """The time, write, commit."""
        return self._write(None)

    def fold_sums(self, limit: int) -> Deferred[int]:
        """There are no old sums. What a look for them costs is left out: one in 60 s."""
        return succeed(0)

    def forget_sums(self, limit: int) -> Deferred[int]:
        """As `fold_sums`."""
        return succeed(0)

    def _write(self, result: T) -> Deferred[T]:
        """A transaction of a few rows that no other transaction waits for."""
        deferred: Deferred[T] = Deferred()

        def steps() -> Generator[Step, None, None]:
            sent = self._time.now
            transaction = self._database.begin(self._here)
            yield from self._ask(TRANSACTION_HERE, TRANSACTION_THERE)
            now = at(self._time.now)
            yield lambda go: self._database.commit(transaction, lambda: None, go)
            yield from self._answer(deferred, result, 0.0, now, sent)

        follow(steps())
        return deferred

    def _ask(self, here: float, there: float) -> Generator[Step, None, None]:
        """Send a statement and have it answered."""
        yield lambda go: self._here.thread(here, go)
        yield lambda go: self._time.after(self._trip, go)
        yield lambda go: self._database.compute(there, go)

    def _answer(
        self, deferred: Deferred[Any], result: object, work: float, now: datetime, sent: float
    ) -> Generator[Step, None, None]:
        """Read what came, in the thread, and hand it to the reactor."""
        yield lambda go: self._here.thread(work, go)
        self.clock.observe(now, sent, self._time.now)
        yield lambda go: self._here.turn(0.0, go)
        deferred.callback(result)


def _run(
    row: Row, due: datetime, token: bytes, now: datetime, lease_ends: float, timeout: float
) -> Run:
    return Run(
        row=row.id,
        token=token,
        key=JobKey(f"job{row.id}", "bench"),
        schedule=Once(),
        options=Options(),
        anchor=row.scheduled,
        scheduled=row.scheduled,
        due=due,
        waited=False,
        id=str(row.id),
        attempt=row.attempts,
        started=now,
        successes=0,
        claimed=now,
        lease_ends=lease_ends,
        payload=b"bench",
        timeout=timeout,
    )


@dataclass(frozen=True)
class Site:
    """What the daemons run on."""

    daemons: int = 1
    #: CPU of a daemon for a POST, in seconds.
    post: float = POST
    #: Cores of the one machine that carries all; 0 for a machine to each daemon, with a core.
    shared_cores: float = 0
    #: Cores of the database's own machine.
    database_cores: float = 8
    #: Processes of others on the shared machine that never rest.
    others: int = 0
    #: A round trip between daemon and database, in seconds, beyond what both compute.
    trip: float = 0.0
    #: A flush of the database's log, in seconds.
    commit: float = COMMIT
    #: How long the endpoint takes for an answer, in seconds.
    answers_after: float = 0.0
    #: As `dalga.dispatch.scheduler.Pace` has them.
    slots: int = 100
    timeout: float = 10.0
    #: Whether the engine has SKIP LOCKED; else claims wait for each other's locks.
    skip_locked: bool = True
    seed: int = 1


class Daemon:
    """A `Scheduler`, and the interpreter that it shares with its database threads."""

    def __init__(
        self,
        time: Time,
        cores: Cores,
        database: Database,
        endpoint: Endpoint,
        site: Site,
        number: int,
    ) -> None:
        self._database, self._endpoint, self._number = database, endpoint, number
        self._cost = site.post
        self.interpreter = Interpreter(time, cores)
        reactor: Any = Reactor(time, self.interpreter)
        store: Any = SimulatedStore(time, self.interpreter, database, site.trip, site.daemons - 1)
        pace = Pace(slots=site.slots, timeout=site.timeout, scan=1.0)
        random, name = Random(number), f"daemon{number}"
        self._scheduler = Scheduler(
            reactor, store, self, pace, RunPolicy(), random, name, metrics=Metrics()
        )

    def start(self) -> None:
        self.interpreter.turn(0.0, self._scheduler.start)

    def die(self) -> None:
        """At once, as by SIGKILL."""
        self.interpreter.alive = False
        self._database.connection_lost(self.interpreter)

    def post(self, run: Run) -> Deferred[Outcome]:
        """Make a POST: put it together in this turn, write it in a later one, take the answer."""
        outcome: Deferred[Outcome] = Deferred()
        here, cost = self.interpreter, self._cost

        def answer() -> None:
            here.turn(
                (1 - PREPARES - WRITES) * cost, lambda: outcome.callback(Outcome(200, elapsed=0.0))
            )

        def write() -> None:
            here.turn(WRITES * cost, lambda: self._endpoint.post(run, self._number, answer))

        here.now(PREPARES * cost, write)
        return outcome
