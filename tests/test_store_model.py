"""
The store against a model: whatever two instances and the API do to a few jobs, in any order.

The model is `tests.fakes.FakeStore`, a store over a dict, which is thereby held to the contract
too; the promises that can be told from outside are checked besides. Each transaction is run at
once, in a time of the test's own; those that meet in the middle are in test_store_faults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import cycle
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from dalga.metrics import OTHER
from dalga.model.action import ActionRequest, Do
from dalga.model.duration import Duration, seconds
from dalga.model.job import Job, Standing
from dalga.model.key import JobKey
from dalga.model.listing import Filters, Query, Sort
from dalga.model.options import CatchUp, IfExists, OnFailure
from dalga.model.permit import Author
from dalga.model.plan import ScheduleRequest
from dalga.model.run import (
    Delete,
    Disable,
    GiveBack,
    Reschedule,
    Retry,
    Run,
    Skip,
    Stop,
    Verdict,
    lease_of,
)
from dalga.model.state import State
from dalga.store import actions, listing
from dalga.store.clock import DatabaseClock
from dalga.store.dialect import Dialect
from dalga.store.group_commit import GATHER
from dalga.store.sqlite import SQLite
from dalga.store.table import JobsTable
from dalga.store.transactions import Call, Timed
from tests.examples import ended
from tests.fakes import EPOCH, FakeStore
from tests.lists import by_key
from tests.stores import EACH_MINUTE, NOW, OVER, EngineTestCase, each_engine

HOUR = timedelta(hours=1)
TIMEOUT = 10.0
LEASE = lease_of(TIMEOUT)

KEYS = [JobKey("a", "1"), JobKey("b", "1")]
LISTS = [
    *(Filters(states=frozenset({state})) for state in State),
    *(Filters(states=frozenset(State), sort=sort) for sort in Sort),
    Filters(due_before=EPOCH + HOUR),
]
DUE = replace(EACH_MINUTE, immediate=True)
#: Who asks the first instance, and who the second one; in walks of such a length that this many
#: go into it, as names take more statements.
AUTHORS, NAMED = (None, Author("ann", "192.0.2.7")), 4
REQUESTS = [
    NOW,
    DUE,
    EACH_MINUTE,
    ScheduleRequest(interval=seconds(7), immediate=True, count=2, catch_up=CatchUp.ALL),
    ScheduleRequest(interval=Duration(months=1, text="P1M"), location="Europe/Istanbul"),
    ScheduleRequest(cron="* * * * *", max_lateness=timedelta(0)),
    ScheduleRequest(interval=seconds(7), immediate=True, until=EPOCH + HOUR / 4),
    ScheduleRequest(one_off=True, first_run=EPOCH - HOUR),
    ScheduleRequest(one_off=True, first_run=EPOCH + HOUR),
    ScheduleRequest(interval=seconds(7), jitter=HOUR / 60),
    replace(DUE, if_exists=IfExists.UPDATE),
    replace(DUE, if_exists=IfExists.UPDATE, count=1),
    replace(EACH_MINUTE, if_exists=IfExists.UPDATE, until=EPOCH + HOUR / 4),
    replace(EACH_MINUTE, if_exists=IfExists.UPDATE, on_failure=OnFailure.STOP),
    replace(DUE, if_exists=IfExists.KEEP),
    ScheduleRequest(cron="* * * * *", if_exists=IfExists.KEEP),
]
#: Actions on many jobs.
ACTIONS = [
    ActionRequest(Do.TRIGGER, Filters(), all=True, expect_at_most=1),
    ActionRequest(Do.TRIGGER, Filters(states=frozenset({State.FAILED, State.DISABLED}))),
    ActionRequest(Do.DISABLE, Filters(prefix="a"), reason="a sale"),
    ActionRequest(Do.ENABLE, Filters(), all=True),
    ActionRequest(Do.DELETE, Filters(path="b"), dry_run=True),
    ActionRequest(Do.DELETE, Filters(states=frozenset({State.FAILED}))),
]


#: The clock by which requests are gathered; `result_of` lets its time go by.
REACTOR = Clock()


class Noting:
    """A cursor at which a transaction notes the runs that it ends. Nobody is told of them."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self.noted: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class Inline:
    """
    What a store needs of `dalga.store.transactions.Transactions`: each is run at once.

    :param now: the database's time.
    """

    def __init__(self, dialect: Dialect, now: Callable[[], datetime]) -> None:
        self.reactor = REACTOR
        self._dialect = dialect
        self._now = now
        self._connection = dialect.connect()
        if isinstance(dialect, SQLite):
            dialect._wall_clock = now
            self._connection.execute("PRAGMA synchronous = OFF")  # nobody pulls the plug here

    def run(
        self, work: Callable[[Any, datetime, float], Any], operation: str = OTHER
    ) -> Deferred[Any]:
        return self.run_call(work, Call())

    def run_call(
        self, work: Callable[[Any, datetime, float], Any], call: Call, operation: str = OTHER
    ) -> Deferred[Any]:
        def timed(cursor: Any) -> Timed[Any]:
            return Timed(work(cursor, self._now(), 0.0), None, 0.0, 0.0)

        return self.run_timed(timed, call)

    def run_timed(
        self,
        work: Callable[[Any], Timed[Any]],
        call: Call | None = None,
        operation: str = OTHER,
    ) -> Deferred[Any]:
        cursor = Noting(self._connection.cursor())
        if not isinstance(self._dialect, SQLite):
            cursor.execute(f"SET SESSION timestamp = {self._now().timestamp():.6f}")
        self._dialect.begin(cursor)
        try:
            result = work(cursor).result
            (call or Call()).commit()
        except Exception as error:
            self._connection.rollback()
            return fail(error)
        self._connection.commit()
        return succeed(result)

    def read(
        self,
        fetch: Callable[[Any], list[Any]],
        result: Callable[[list[Any], datetime], Any],
        operation: str = OTHER,
    ) -> Deferred[Any]:
        def work(cursor: Any, now: datetime, since: float) -> Any:
            return result(fetch(cursor), now)

        return self.run(work)

    def close(self) -> Deferred[None]:
        self._connection.close()
        return succeed(None)


def result_of(answer: Deferred[Any]) -> Any:
    """What a Deferred comes to as soon as requests were gathered; of an error, which kind."""
    results: list[Any] = []
    answer.addBoth(results.append)
    REACTOR.advance(GATHER)
    (result,) = results
    error = getattr(result, "value", None)
    return type(error) if isinstance(error, Exception) else result


def verdict(kind: str, late: int, error: str, now: datetime) -> Verdict:
    """How a run ends; its time is near the database's."""
    at = now + timedelta(seconds=late)
    ends: dict[str, Verdict] = {
        "success": Reschedule(at, at),
        "given up": Reschedule(at, at, error),
        "skipped": Skip(at),
        "tried again": Retry(at, error),
        "stopped": Stop(error),
        "given back": GiveBack(),
        "over": Delete(),
        "disabled": Disable(at, at, "x"),
    }
    return ends[kind]


instances = st.integers(0, 1)
keys = st.sampled_from(KEYS)
kinds = (
    "success",
    "success",
    "given up",
    "skipped",
    "tried again",
    "stopped",
    "given back",
    "over",
    "disabled",
)
ends = st.tuples(
    st.sampled_from(kinds), st.sampled_from((-60, -1, 0, 1, 60)), st.sampled_from(("500", "late"))
)
record = st.tuples(st.just("record"), st.integers(0, 9), st.lists(ends, min_size=1, max_size=2))
paths = st.sampled_from(((), (), (), ("a",), ("b", "a")))
timeouts = st.sampled_from((TIMEOUT, TIMEOUT, TIMEOUT, OVER))
clocks = st.sampled_from((-HOUR, -LEASE, 0 * HOUR, 0 * HOUR, LEASE, HOUR / 2))
#: A method of `Machine` and its arguments.
steps = st.one_of(
    st.tuples(st.just("put"), instances, keys, st.sampled_from(REQUESTS)),
    st.tuples(st.just("begin"), instances, keys),
    *(
        st.tuples(st.just("say"), instances, keys, st.just(verb))
        for verb in ("trigger", "enable", "disable")
    ),
    st.tuples(st.just("say"), instances, keys, st.sampled_from(("trigger", "delete"))),
    st.tuples(
        st.just("act"), instances, st.sampled_from(ACTIONS), st.sampled_from((0, 1, 2, 2, 3))
    ),
    st.tuples(st.sampled_from(("announce", "depart")), instances),
    st.tuples(st.just("claim"), instances, st.sampled_from((1, 2, 9)), timeouts, paths),
    *(record, record),
    st.tuples(st.just("wait"), st.sampled_from((0.001, 1, 7, 20, 60, 3600))),
    st.tuples(st.just("set_clock"), clocks),
)


class Machine:
    """
    :param stores: two instances' stores on an empty table.
    :param time: the database's time as both see it, and nobody else.
    :param sql: reads the tables.
    """

    def __init__(
        self, stores: list[JobsTable], time: list[datetime], sql: Callable[[str], list[Any]]
    ) -> None:
        self.stores = stores
        self.sql = sql
        self.time = time
        time[0] = EPOCH
        self.steady = 0.0
        self.model = FakeStore(lambda: self.steady)
        #: Runs whose end is to be recorded, maybe long after their leases, and by whom.
        self.running: list[tuple[Run, int]] = []
        #: The model's run of each run that was claimed.
        self.twins: dict[tuple[str, int], Run] = {}
        #: Who asks each instance.
        self.authors: Sequence[Author | None] = (None, None)
        #: Ids of runs here and in the model.
        self.ids: dict[str, str] = {}
        #: Runs that are over, by their ids.
        self.over: set[str] = set()
        #: By their claims' tokens: what is being POSTed, and until when it may.
        self.in_flight: dict[JobKey, tuple[bytes, datetime]] = {}
        #: Which of `LISTS` is looked at next.
        self.lists = cycle(LISTS)

    # The user

    def put(self, who: int, key: JobKey, request: ScheduleRequest) -> None:
        self.tick()
        author, before = self.authors[who], self.entries(who)
        is_written = self.same(
            self.stores[who].put(key, request, author=author),
            self.model.put(key, request, author=author),
        )
        self.has_entry(before, who, is_written, request.if_exists in (None, IfExists.RESCHEDULE))

    def say(self, who: int, key: JobKey, verb: str) -> None:
        self.wait(0.25)  # no two things are said at the same time
        author, before = self.authors[who], self.entries(who)
        is_done = self.same(
            getattr(self.stores[who], verb)(key, author=author),
            getattr(self.model, verb)(key, author=author),
        )
        self.has_entry(before, who, is_done, verb == "trigger")

    def entries(self, who: int) -> int:
        """How many entries the audit list has; nobody looks where the user has no name."""
        if self.authors[who] is None:
            return 0
        ((count,),) = self.sql("SELECT COUNT(*) FROM dalga_audit")
        return int(count)

    def has_entry(self, before: int, who: int, is_done: bool, always: bool) -> None:
        """
        P13: what a user with a name has changed has one entry, and what was refused has none.

        :param before: how many entries there were.
        :param is_done: whether it was not refused.
        :param always: whether it changes the job in any case.
        """
        more = self.entries(who) - before
        most = int(is_done and self.authors[who] is not None)
        assert most * always <= more <= most, (more, who, is_done, always)

    def act(self, who: int, request: ActionRequest, batches: int) -> None:
        """An action, which is stopped after so many batches unless it is over."""
        both: list[Any] = [self.stores[who], self.model]
        self.wait(0.25)
        begun = [result_of(store.begin_action(request, self.authors[who])) for store in both]
        for _ in range(batches):
            self.wait(0.25)  # a batch is due some time after the one before
            made = [result_of(store.act(9, ("default",), "here", True)) for store in both]
            assert sorted(made[0].dues) == sorted(made[1].dues), made
        ended = [
            result_of(store.stop_action(action.id, self.authors[who]))
            for store, action in zip(both, begun, strict=True)
        ]
        ours, theirs = (replace(action, id="", error=None) for action in ended)
        assert ours == theirs, ended

    # The scheduler

    def begin(self, who: int, key: JobKey) -> None:
        """A job whose run is under way, more often than chance would have it."""
        self.put(who, key, DUE)
        self.claim(who, 9, TIMEOUT)

    def claim(self, who: int, limit: int, timeout: float, without: tuple[str, ...] = ()) -> None:
        self.tick()
        found = result_of(self.stores[who].claim(limit, timeout, without))
        expected = result_of(self.model.claim(limit, timeout, without))
        assert (found.full, found.now) == (expected.full, expected.now)
        assert len(found.runs) == len(expected.runs), (found, expected)
        for run, twin in zip(found.runs, expected.runs, strict=True):
            self.twins[run.id, run.attempt] = twin
            assert self.ids.setdefault(run.id, twin.id) == twin.id, "another run, or the same?"
            own = run._replace(row=0, token=b"", id="", lease_ends=0.0)
            assert own == twin._replace(row=0, token=b"", id="", lease_ends=0.0)
            # P3, P2
            _, until = self.in_flight.get(run.key, (b"", found.now))
            assert until <= found.now, "twice at a time"
            assert run.id not in self.over, "POSTed again after its 200"
            self.in_flight[run.key] = (run.token, found.now + lease_of(run.timeout))
            self.running.append((run, who))

    def announce(self, who: int) -> None:
        for store in (self.stores[who], self.model):
            result_of(store.announce(f"instance {who}"))

    def depart(self, who: int) -> None:
        for store in (self.stores[who], self.model):
            result_of(store.depart(f"instance {who}"))

    def record(self, which: int, endings: list[tuple[str, int, str]]) -> None:
        """
        A run ends, in time or long after its lease, or all that the same instance has under way.
        Now and then the answer to the record is lost, so that it comes twice.
        """
        if not self.running:
            return
        self.tick()
        who = self.running[which % len(self.running)][1]
        over = [item for item in self.running if item[1] == who]
        if len(endings) == 1:
            over = [self.running[which % len(self.running)]]
        self.running = [item for item in self.running if item not in over]
        batch = [
            ended(run, verdict(*endings[number % len(endings)], self.time[0]))
            for number, (run, _) in enumerate(over)
        ]
        store = self.stores[who]
        for _ in range(2 if which == 9 else 1):
            found = result_of(store.record(batch))
            twins = [end._replace(run=self.twins[end.run.id, end.run.attempt]) for end in batch]
            expected = result_of(self.model.record(twins))
            assert (found.postponed, expected.postponed) == ([], [])
            assert (found.already, expected.already) == ([], [])
            for ends, twins_of_them in (
                (found.written, expected.written),
                (found.revised, expected.revised),
                (found.lost, expected.lost),
                (found.overridden, expected.overridden),
            ):
                assert sorted((self.ids[end.run.id], str(end.verdict)) for end in ends) == sorted(
                    (end.run.id, str(end.verdict)) for end in twins_of_them
                )
            dropped = found.lost + found.overridden
            for end in batch:
                run = end.run
                if self.in_flight.get(run.key, (b"",))[0] == run.token:
                    del self.in_flight[run.key]
                if end not in dropped and isinstance(
                    end.verdict, Delete | Disable | Reschedule | Skip
                ):
                    self.over.add(run.id)

    # The time

    def wait(self, forward: float) -> None:
        self.steady += forward
        self.time[0] += timedelta(seconds=forward)

    def set_clock(self, ahead: timedelta) -> None:
        """P8: somebody sets the database's."""
        self.time[0] += ahead - self.model.set_by
        self.model.set_by = ahead
        # By that clock leases are over sooner or later; the scheduler itself looks after P3 then.
        self.in_flight = {}

    # What holds all the time

    def looks_the_same(self) -> None:
        for key in KEYS:
            self.same(self.stores[0].get(key), self.model.get(key))
        for path in (None, "a", "b"):
            assert self.pages(self.stores[0], path) == self.pages(self.model, path)
        filters = next(self.lists)  # all of them each time would take too long
        assert self.walked(self.stores[1], filters) == self.walked(self.model, filters), filters
        self.same(self.stores[1].counts(), self.model.counts())
        for without in ((), ("b",)):
            self.same(
                self.stores[1].due_within(HOUR, 9, without), self.model.due_within(HOUR, 9, without)
            )

    def pages(self, store: JobsTable | FakeStore, path: str | None) -> list[list[Any]]:
        """All jobs, or those of a path: one on the first page, then two on each."""
        page = result_of(store.page(by_key(path, None, 1)))
        pages = [page.jobs]
        while page.last is not None:
            page = result_of(store.page(by_key(path, page.last, 2)))
            pages.append(page.jobs)
        return pages

    def walked(self, store: JobsTable | FakeStore, filters: Filters) -> list[Any]:
        """All jobs of a list, two on each page."""
        page = result_of(store.page(Query(filters, limit=2)))
        jobs = list(page.jobs)
        while page.last is not None:
            page = result_of(store.page(Query(filters, page.last, 2)))
            jobs += page.jobs
        return jobs

    def same(self, found: Deferred[Any], expected: Deferred[Any]) -> bool:
        """:return: whether it was done, and not refused."""
        ours, theirs = result_of(found), result_of(expected)
        assert ours == theirs, (ours, theirs)
        return not isinstance(ours, type)

    def end(self) -> None:
        """P5: once the leases are over, all is as the user has said, with nobody's help."""
        self.check_history()
        self.wait(24 * 3600.0 * 40)
        taken = {run.key for run in result_of(self.stores[0].claim(99, TIMEOUT)).runs}
        jobs = {key: result_of(self.stores[0].get(key)) for key in KEYS}
        kept = {key: job for key, job in jobs.items() if isinstance(job, Job)}
        for key, job in kept.items():
            waits = job.disabled or job.standing is Standing.STOPPED
            assert (key in taken) is not waits, job
            assert job.running is not waits, job
        counts = result_of(self.stores[0].counts())
        assert (counts.total, counts.running) == (len(kept), len(taken)), (counts, kept)

    def tick(self) -> None:
        """No two records are written at the same time."""
        self.wait(0.000001)

    def check_history(self) -> None:
        """P13: each run that ended has one record, with the result that it came to."""
        rows = self.sql("SELECT run, job, result FROM dalga_runs WHERE failed < 2")
        found = sorted((self.ids[f"{bytes(run).hex()}-{job}"], result) for run, job, result in rows)
        expected = sorted((run, result.code) for run, result in self.model.history)
        assert found == expected, (found, expected)


@each_engine(globals())
class ModelTests(EngineTestCase):
    """P2 to P5, for whatever order things are done in."""

    timeout = 300

    def test_any_order(self) -> None:
        """Two instances and the API leave the table, and answer, as the model does."""
        # On a busy machine, too, a batch of an action does all that it finds.
        self.patch(actions, "PATIENCE", 60.0)
        self.patch(listing, "PATIENCE", 60.0)
        time = [EPOCH]
        stores = [self.inline_store(time) for _ in range(2)]
        tokens = Random(1)
        for store in stores:
            store._runs._token = lambda: tokens.randbytes(16)
        with closing(self.connect()) as connection:

            @settings(
                max_examples=500 if self.engine == "sqlite" else 40,
                derandomize=True,
                deadline=None,
                database=None,
            )
            @given(st.lists(steps, min_size=20, max_size=60))
            def run(walk: list[tuple[Any, ...]]) -> None:
                connection.cursor().execute("DELETE FROM dalga")
                connection.cursor().execute("DELETE FROM dalga_runs")
                connection.cursor().execute("DELETE FROM dalga_alive_6")
                connection.cursor().execute("DELETE FROM dalga_actions")
                connection.cursor().execute("DELETE FROM dalga_audit")
                connection.commit()
                machine = Machine(stores, time, self.sql)
                if len(walk) % NAMED == 0:
                    machine.authors = AUTHORS
                for name, *arguments in walk:
                    getattr(machine, name)(*arguments)
                    machine.looks_the_same()
                machine.end()

            run()

    def inline_store(self, time: list[datetime]) -> JobsTable:
        """One more instance's store, whose transactions are run at once."""
        dialect: Any = self.open_store()._dialect
        lane: Any = Inline(dialect, lambda: time[0])
        clock: Any = DatabaseClock(lambda: 0.0)
        clock.now = lambda: time[0]
        clock.at = lambda _: time[0]
        store = JobsTable(dialect, clock, lane, lane)
        self.stores.append(store)
        return store
