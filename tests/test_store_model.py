"""
The store against a model: whatever two instances and the API do to a few jobs, in any order.

The model is `tests.fakes.FakeStore`, a store over a dict, which is thereby held to the contract
too; the promises that can be told from outside are checked besides. Each transaction is run at
once, in a time of the test's own; those that meet in the middle are in test_store_faults.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from dalga.duration import Duration, seconds
from dalga.errors import DalgaError
from dalga.job import (
    CatchUp,
    Delete,
    Failed,
    Job,
    JobKey,
    Release,
    Reschedule,
    Retry,
    Run,
    ScheduleRequest,
    Skip,
    Stop,
    Verdict,
)
from dalga.store.clock import DatabaseClock
from dalga.store.dialect import Dialect
from dalga.store.sqlite import SQLite
from dalga.store.table import JobsTable
from dalga.store.transactions import Call
from tests.fakes import EPOCH, FakeStore
from tests.stores import EACH_MINUTE, NOW, EngineTestCase, each_engine

HOUR = timedelta(hours=1)
LEASE = timedelta(seconds=20)

KEYS = [JobKey("a", "1"), JobKey("a", "2"), JobKey("b", "1")]
REQUESTS = [
    NOW,
    replace(EACH_MINUTE, immediate=True),
    EACH_MINUTE,
    ScheduleRequest(interval=seconds(7), immediate=True, count=2, catch_up=CatchUp.ALL),
    ScheduleRequest(interval=Duration(months=1, text="P1M"), location="Europe/Istanbul"),
    ScheduleRequest(cron="* * * * *", max_lateness=timedelta(0)),
    ScheduleRequest(one_off=True, first_run=EPOCH - HOUR),
    ScheduleRequest(one_off=True, first_run=EPOCH + HOUR),
]


class Inline:
    """
    What a store needs of `dalga.store.transactions.Transactions`: each is run at once.

    :param now: the database's time.
    """

    def __init__(self, dialect: Dialect, now: Callable[[], datetime]) -> None:
        self.reactor = Clock()
        self._dialect = dialect
        self._now = now
        self._connection = dialect.connect()
        if isinstance(dialect, SQLite):
            self._connection.execute("PRAGMA synchronous = OFF")  # nobody pulls the plug here

    def run(self, work: Callable[[Any, datetime, float], Any]) -> Deferred[Any]:
        return self.run_call(work, Call())

    def run_call(self, work: Callable[[Any, datetime, float], Any], call: Call) -> Deferred[Any]:
        cursor = self._connection.cursor()
        self._dialect.begin(cursor)
        try:
            result = work(cursor, self._now(), 0.0)
            call.commit()
        except DalgaError as error:
            self._connection.rollback()
            return fail(error)
        self._connection.commit()
        return succeed(result)

    def close(self) -> Deferred[None]:
        self._connection.close()
        return succeed(None)


def result_of(answer: Deferred[Any]) -> Any:
    """What a Deferred that has fired came to; of an error, which kind."""
    results: list[Any] = []
    answer.addBoth(results.append)
    (result,) = results
    error = getattr(result, "value", None)
    return type(error) if isinstance(error, Exception) else result


def verdicts(now: datetime) -> st.SearchStrategy[Verdict]:
    """What may be recorded of a run; times are near the database's."""
    times = st.sampled_from((-60, -1, 0, 1, 60)).map(lambda late: now + timedelta(seconds=late))
    errors = st.sampled_from(("500", "timeout"))
    return st.one_of(
        st.builds(Delete),
        st.builds(Reschedule, times, times),
        st.builds(Reschedule, times, times, errors),
        st.builds(Skip, times),
        st.builds(Retry, times, errors),
        st.builds(Release),
        st.builds(Stop, errors),
    )


class Machine(RuleBasedStateMachine):
    """
    :param stores: two instances' stores on an empty table.
    :param time: the database's time as both see it, and nobody else.
    """

    def __init__(self, stores: list[JobsTable], time: list[datetime]) -> None:
        super().__init__()
        self.stores = stores
        self.time = time
        time[0] = EPOCH
        self.steady = 0.0
        self.model = FakeStore(lambda: self.steady)
        #: Runs whose end is to be recorded, maybe long after their leases, and by whom.
        self.running: list[tuple[Run, int]] = []
        #: The model's run of each run that was claimed.
        self.twins: dict[tuple[str, int], Run] = {}
        #: Ids of runs here and in the model.
        self.ids: dict[str, str] = {}
        #: Runs that are over, by their ids.
        self.over: set[str] = set()
        #: Who is POSTing what, and until when he may.
        self.in_flight: dict[JobKey, tuple[str, datetime]] = {}

    # The user

    @rule(who=st.integers(0, 1), key=st.sampled_from(KEYS), request=st.sampled_from(REQUESTS))
    def put(self, who: int, key: JobKey, request: ScheduleRequest) -> None:
        self.same(
            self.stores[who].put(key, request),
            self.model.put(key, request),
        )

    @rule(
        who=st.integers(0, 1),
        key=st.sampled_from(KEYS),
        verb=st.sampled_from(("trigger", "enable", "disable", "delete")),
    )
    def say(self, who: int, key: JobKey, verb: str) -> None:
        self.same(getattr(self.stores[who], verb)(key), getattr(self.model, verb)(key))

    # The scheduler

    @rule(
        who=st.integers(0, 1),
        limit=st.integers(1, 4),
        lease=st.sampled_from((LEASE, LEASE, LEASE, timedelta(0))),
    )
    def claim(self, who: int, limit: int, lease: timedelta) -> None:
        found = result_of(self.stores[who].claim(limit, lease))
        expected = result_of(self.model.claim(limit, lease))
        assert (found.full, found.now) == (expected.full, expected.now)
        assert len(found.runs) == len(expected.runs), (found, expected)
        for run, twin in zip(found.runs, expected.runs, strict=True):
            self.twins[run.id, run.attempt] = twin
            assert self.ids.setdefault(run.id, twin.id) == twin.id, "another run, or the same?"
            own = replace(run, row=0, token=b"", id="", lease_ends=0.0)
            assert own == replace(twin, row=0, token=b"", id="", lease_ends=0.0)
            # P3, P2
            _, until = self.in_flight.get(run.key, ("", found.now))
            assert until <= found.now, "twice at a time"
            assert run.id not in self.over, "POSTed again after its 200"
            self.in_flight[run.key] = (run.id, found.now + lease)
            self.running.append((run, who))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), several=st.booleans(), again=st.integers(0, 4))
    def record(self, data: st.DataObject, several: bool, again: int) -> None:
        """Runs end, in time or long after their leases, and now and then their record is lost."""
        which = data.draw(st.integers(0, len(self.running) - 1))
        who = self.running[which][1]
        ended = [item for item in self.running if item[1] == who] if several else []
        ended = ended or [self.running[which]]
        self.running = [item for item in self.running if item not in ended]
        batch = [(run, data.draw(verdicts(self.time[0]))) for run, _ in ended]
        store = self.stores[who]
        for _ in range(2 if again == 0 else 1):
            found = result_of(store.record(batch))
            twins = [(self.twins[run.id, run.attempt], verdict) for run, verdict in batch]
            expected = result_of(self.model.record(twins))
            assert (found.postponed, expected.postponed) == ([], [])
            dropped = sorted(self.ids[run.id] for run in found.dropped)
            assert dropped == sorted(run.id for run in expected.dropped)
            for run, verdict in batch:
                if self.in_flight.get(run.key, ("",))[0] == run.id:
                    del self.in_flight[run.key]
                if run not in found.dropped and isinstance(verdict, Delete | Reschedule | Skip):
                    self.over.add(run.id)

    # The time

    @rule(forward=st.sampled_from((0.001, 1, 7, 20, 60, 3600)))
    def wait(self, forward: float) -> None:
        self.steady += forward
        self.time[0] += timedelta(seconds=forward)

    @rule(ahead=st.sampled_from((-HOUR, -LEASE, 0 * HOUR, LEASE, HOUR / 2)))
    def set_clock(self, ahead: timedelta) -> None:
        """P8: somebody sets the database's clock."""
        self.time[0] += ahead - self.model.set_by
        self.model.set_by = ahead
        # By that clock leases are over sooner or later; the scheduler itself looks after P3 then.
        self.in_flight = {}

    # What holds all the time

    @invariant()
    def looks_the_same(self) -> None:
        for key in KEYS:
            self.same(self.stores[0].get(key), self.model.get(key))
        self.same(self.stores[1].counts(), self.model.counts())
        self.same(self.stores[1].upcoming(HOUR, 9), self.model.upcoming(HOUR, 9))

    def same(self, found: Deferred[Any], expected: Deferred[Any]) -> None:
        assert (ours := result_of(found)) == (theirs := result_of(expected)), (ours, theirs)

    def teardown(self) -> None:
        """P5: once the leases are over, all is as the user has said, with nobody's help."""
        self.wait(24 * 3600.0 * 40)
        taken = {run.key for run in result_of(self.stores[0].claim(99, LEASE)).runs}
        jobs = {key: result_of(self.stores[0].get(key)) for key in KEYS}
        kept = {key: job for key, job in jobs.items() if isinstance(job, Job)}
        for key, job in kept.items():
            waits = job.disabled or job.failed is Failed.STOPPED
            assert (key in taken) is not waits, job
            assert job.running is not waits, job
        counts = result_of(self.stores[0].counts())
        assert (counts.total, counts.running) == (len(kept), len(taken)), (counts, kept)


@each_engine(globals())
class ModelTests(EngineTestCase):
    """P2 to P5, for whatever order things are done in."""

    timeout = 300

    def test_any_order(self) -> None:
        """Two instances and the API leave the table, and answer, as the model does."""
        time = [EPOCH]
        stores = [self.inline_store(time) for _ in range(2)]
        tokens = Random(1)
        for store in stores:
            store._token = lambda: tokens.randbytes(16)
        with closing(self.connect()) as connection:

            def machine() -> Machine:
                connection.cursor().execute("DELETE FROM dalga")
                connection.commit()
                return Machine(stores, time)

            examples, steps = (400, 50) if self.engine == "sqlite" else (40, 50)
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    derandomize=True,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )

    def inline_store(self, time: list[datetime]) -> JobsTable:
        """One more instance's store, whose transactions are run at once."""
        dialect: Any = self.open_store()._dialect
        lane: Any = Inline(dialect, lambda: time[0])
        store = JobsTable(dialect, DatabaseClock(lambda: 0.0), lane, lane)
        self.stores.append(store)
        return store
