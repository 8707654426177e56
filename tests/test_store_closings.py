"""
Runs that a user ends between two attempts, or after their instance was lost: the store tells of
each of them once, in few statements.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from random import Random
from threading import Event
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.threads import deferToThread

from dalga.errors import JobOver, StoreUnavailable
from dalga.model.action import ActionRequest, Do
from dalga.model.duration import seconds
from dalga.model.key import JobKey
from dalga.model.listing import Filters
from dalga.model.options import IfExists
from dalga.model.plan import ScheduleRequest
from dalga.model.record import EndedRun, HistoryMode, Result
from dalga.model.run import GiveBack, Outcome, Reschedule, Retry, Run, judge
from dalga.store import Recorded
from dalga.store.changes import Changes
from dalga.store.puts import Puts
from dalga.store.table import JobsTable
from dalga.store.transactions import Conflict, _Connection, _Transaction
from tests.examples import EXACT, HOUR, ended
from tests.stores import EACH_MINUTE, LONG, EngineTestCase, each_engine

KEY = JobKey("a/é", "1")

OVERRIDDEN, CANCELLED = Result.OVERRIDDEN, Result.CANCELLED


class ClosingsTestCase(EngineTestCase):
    """A store whose runs that end without an `End` are noted in `told`."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[EndedRun] = []

    def open_store(self) -> JobsTable:
        store = super().open_store()
        store.tell(self.told.extend)
        return store

    async def fail_once(self, store: JobsTable, run: Run, now: bool = False) -> Recorded:
        """Record a failure, after which the run is due again in an hour, or now."""
        at = store.clock.now()
        end = judge(run, Outcome(503, 0.25), at, EXACT, Random(1))
        due = at - timedelta(minutes=1) if now else at + HOUR
        return await store.record([end._replace(verdict=Retry(due, "503"))])

    async def retrying(self, store: JobsTable, key: JobKey, attempts: int = 1, **of: Any) -> None:
        """A job whose run has failed so often, and waits for its next attempt."""
        run = await self.due_now(store, key, **of)
        for number in range(1, attempts):
            await self.fail_once(store, run, now=True)
            run = await self.claim_one(store, key)
            self.assertEqual(run.attempt, number + 1)
        await self.fail_once(store, run)

    def closed(self) -> int:
        """How many records there are of runs that users have ended."""
        codes = OVERRIDDEN.code, CANCELLED.code
        ((number,),) = self.sql(f"SELECT COUNT(*) FROM dalga_runs WHERE result IN {codes}")
        return int(number)


@each_engine(globals())
class ToldTests(ClosingsTestCase):
    """What is told of, and what is not."""

    async def test_what_users_do(self) -> None:
        store = self.open_store()
        doings: dict[str, tuple[Callable[[JobKey], Deferred[Any]], Result | None]] = {
            "put": (lambda key: store.put(key, EACH_MINUTE), OVERRIDDEN),
            "patch": (lambda key: store.patch(key, lambda job: HOURLY), OVERRIDDEN),
            "trigger": (store.trigger, OVERRIDDEN),
            "delete": (store.delete, CANCELLED),
            "update": (lambda key: store.put(key, UPDATE), None),
            "disable": (store.disable, None),
            "enable": (store.enable, None),
        }
        for number, (name, (do, result)) in enumerate(doings.items(), 1):
            key = JobKey(name, "1")
            await self.retrying(store, key, number, endpoint="other")
            await do(key)
            expected = [] if result is None else [EndedRun(name, "other", result, number)]
            self.assertEqual(self.told, expected, name)
            await do(key)  # no run waits for an attempt any more
            self.assertEqual(self.told, expected, name)
            self.told.clear()
            await store.delete(key)
            self.told.clear()

    async def test_a_group_of_puts(self) -> None:
        """Those of a group are told of together, and others are not."""
        store = self.open_store()
        keys = [JobKey(f"p{number}", "1") for number in range(4)]
        for number, key in enumerate(keys[:3], 1):
            await self.retrying(store, key, number)
        first = store.put(JobKey("first", "1"), EACH_MINUTE)  # a group of its own
        await gatherResults([first, *(store.put(key, EACH_MINUTE) for key in keys)])
        expected = [EndedRun(f"p{n}", "default", OVERRIDDEN, n + 1) for n in range(3)]
        self.assertEqual(sorted(self.told), expected)

    async def test_an_action(self) -> None:
        """One on many jobs: each of them."""
        store = self.open_store()
        for name in ("1", "2"):
            await self.retrying(store, JobKey("p", name))
        await store.begin_action(ActionRequest(Do.DELETE, Filters(path="p")))
        while (await store.act(9, ["default"], "one", True)).action is not None:
            self.sql("UPDATE dalga_actions SET due = made WHERE due IS NOT NULL")
        self.assertEqual(self.told, [EndedRun("p", "default", CANCELLED, 1)] * 2)

    async def test_instances_that_are_lost(self) -> None:
        """A claim drops the rows of deleted jobs, and another run's end closes what is left."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await store.delete(KEY)
        self.end_leases()
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual(self.told, [EndedRun(KEY.path, "default", CANCELLED, 1)])
        self.told.clear()
        run = await self.due_now(store, KEY)
        await self.fail_once(store, run, now=True)
        await self.claim_one(store, KEY)
        await store.delete(KEY)
        self.end_leases()
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual(self.told, [EndedRun(KEY.path, "default", CANCELLED, 1)])
        self.told.clear()
        run = await self.due_now(store, KEY)
        await self.fail_once(store, run, now=True)
        await self.claim_one(store, KEY)
        await store.put(KEY, NOW_AND_HOURLY)
        self.end_leases()
        self.assertEqual(self.told, [])  # it is not over yet, as far as anybody knows
        run = await self.claim_one(store, KEY)
        await store.record([ended(run, Reschedule(run.claimed + HOUR, run.anchor))])
        self.assertEqual(self.told, [EndedRun(KEY.path, "default", OVERRIDDEN, 1)])

    async def test_ends(self) -> None:
        """A run with an end is not told of: whoever has recorded the end counts it."""
        store = self.open_store()
        await self.retrying(store, KEY)
        self.sql("UPDATE dalga SET due = '2020-01-01 00:00:00.000000'")
        run = await self.claim_one(store, KEY)
        await store.put(KEY, NOW_AND_HOURLY)
        end = ended(run, GiveBack())
        self.assertEqual((await store.record([end])).results, [(end, OVERRIDDEN)])
        run = await self.claim_one(store, KEY)
        await self.fail_once(store, run, now=True)
        run = await self.claim_one(store, KEY)
        await store.record([ended(run, Reschedule(run.claimed + HOUR, run.anchor))])
        self.assertEqual(self.told, [])

    async def test_without_a_history(self) -> None:
        """Nothing is kept of a run between its attempts, so nobody knows that there was one."""
        from twisted.internet import reactor

        from dalga.database import build_store

        self.open_store()
        store = build_store(self.config, reactor, self.random, history=HistoryMode.OFF)
        store._guard = None
        self.stores.append(store)
        store.open()
        store.tell(self.told.extend)
        await self.retrying(store, KEY)
        await store.put(KEY, EACH_MINUTE)
        self.assertEqual((self.told, self.closed()), ([], 0))


UPDATE = ScheduleRequest(interval=EACH_MINUTE.interval, if_exists=IfExists.UPDATE, description="x")
HOURLY = ScheduleRequest(interval=seconds(3600))
NOW_AND_HOURLY = ScheduleRequest(interval=seconds(3600), immediate=True)


@each_engine(globals())
class OnceTests(ClosingsTestCase):
    """Each of them once, whatever becomes of the transaction."""

    async def test_refused(self) -> None:
        """What is rolled back has ended nothing."""
        store = self.open_store()
        await self.retrying(store, KEY)
        with patch("dalga.store.changes.check_until", side_effect=JobOver("over")):
            await self.assertFailure(store.trigger(KEY), JobOver)
        self.assertEqual((self.told, self.closed(), store.unsettled), ([], 0, False))

    async def test_run_again(self) -> None:
        """A transaction that meets a conflict, and is run again."""
        store = self.open_store()
        for kind, method, do in (
            (Changes, "trigger", store.trigger),
            (Changes, "delete", store.delete),
            (Puts, "settle", lambda key: store.put(key, EACH_MINUTE)),
        ):
            await self.retrying(store, KEY)
            work: Any = getattr(kind, method)
            left = [Conflict("changed"), Conflict("changed")]

            def conflicting(*given: Any, work: Any = work, left: Any = left, **named: Any) -> Any:
                result = work(*given, **named)
                if left:
                    raise left.pop()
                return result

            with patch.object(kind, method, conflicting):
                await do(KEY)
            self.assertEqual((left, len(self.told), self.closed()), ([], 1, 1), method)
            self.assertFalse(store.unsettled)
            self.told.clear()
            self.sql("DELETE FROM dalga")
            self.sql("DELETE FROM dalga_runs")

    async def test_given_up_during_the_commit(self) -> None:
        """It is committed, though nobody waits for it any more."""
        store = self.open_store()
        doings: list[Callable[[], Deferred[Any]]] = [
            partial(store.put, KEY, EACH_MINUTE),
            partial(store.trigger, KEY),
        ]
        for do in doings:
            await self.retrying(store, KEY)
            begun, go_on = Event(), Event()
            commit = _Connection.commit

            def slow(
                connection: Any, begun: Event = begun, go_on: Event = go_on, commit: Any = commit
            ) -> None:
                begun.set()
                go_on.wait(10)
                commit(connection)

            with patch.object(_Connection, "commit", slow):
                doing: Deferred[Any] = do()
                await deferToThread(begun.wait, 10)
                failing = self.assertFailure(doing, CancelledError)
                doing.cancel()
                await failing
                self.assertEqual(self.told, [])
                go_on.set()
                await store.now()
            while not self.told:
                await store.now()
            self.assertEqual(self.told, [EndedRun(KEY.path, "default", OVERRIDDEN, 1)])
            self.told.clear()
            await store.delete(KEY)

    async def test_a_commit_without_an_answer(self) -> None:
        """Whether it was done is found out, and told once."""
        store = self.open_store()
        for is_done in (True, False):
            doings: list[Callable[[], Deferred[Any]]] = [
                partial(store.put, KEY, EACH_MINUTE),
                partial(store.trigger, KEY),
                partial(store.delete, KEY),
            ]
            for do in doings:
                await self.retrying(store, KEY)
                with patch.object(_Connection, "commit", self.losing(is_done)):
                    await self.assertFailure(do(), StoreUnavailable)
                self.assertEqual((self.told, self.closed()), ([], int(is_done)))
                self.assertTrue(store.unsettled)
                with patch.object(_Connection, "commit", self.losing(False)):
                    await self.assertFailure(store.settle(), StoreUnavailable)
                with patch.object(_Connection, "commit", side_effect=ZeroDivisionError):
                    await self.assertFailure(store.settle(), ZeroDivisionError)
                self.assertTrue(store.unsettled)
                for _ in range(2):
                    await store.settle()
                    self.assertFalse(store.unsettled)
                    self.assertEqual(len(self.told), int(is_done))
                self.told.clear()
                self.sql("DELETE FROM dalga")
                self.sql("DELETE FROM dalga_runs")

    def losing(self, is_done: bool) -> Callable[[Any], None]:
        """A COMMIT whose answer is lost; its connection is dead then."""
        commit = _Connection.commit

        def lost(connection: Any) -> None:
            if is_done:
                commit(connection)
            connection.useless = True
            raise OSError("cut")

        return lost


@each_engine(globals())
class StatementsTests(ClosingsTestCase):
    """How many statements a request takes, the COMMIT not counted: each is a way there and back."""

    async def count(self, doing: Callable[[], Deferred[Any]]) -> int:
        """The statements of a request."""
        statements: list[str] = []

        def execute(cursor: Any, sql: str, *given: Any) -> Any:
            statements.append(sql)
            return cursor._cursor.execute(sql, *given)

        with patch.object(_Transaction, "execute", execute, create=True):
            await doing()
        # How SQLite begins, which has no way to go.
        return len([sql for sql in statements if not sql.startswith(("BEGIN", "PRAGMA"))])

    async def test_requests(self) -> None:
        store = self.open_store()
        doings: dict[str, tuple[Callable[[], Deferred[Any]], int, int]] = {
            # of a job that waits for its next run, and of one that waits for its next attempt
            "put": (lambda: store.put(KEY, EACH_MINUTE), 3, 7),
            "trigger": (lambda: store.trigger(KEY), 3, 7),
            "delete": (lambda: store.delete(KEY), 2, 8),
            "update": (lambda: store.put(KEY, UPDATE), 5, 5),
            "disable": (lambda: store.disable(KEY), 5, 5),
        }
        counted = {}
        for name, (do, *_) in doings.items():
            await store.put(KEY, EACH_MINUTE)
            idle = await self.count(do)
            await store.delete(KEY)
            await self.retrying(store, KEY)
            counted[name] = idle, await self.count(do)
            await store.delete(KEY)
        self.assertEqual(counted, {name: (idle, open) for name, (_, idle, open) in doings.items()})

    async def test_a_group_of_puts(self) -> None:
        """It takes no more, however many of its jobs wait for an attempt."""
        store = self.open_store()
        keys = [JobKey(f"p{number}", "1") for number in range(4)]
        for key in keys[:3]:
            await self.retrying(store, key)

        def put_all() -> Deferred[Any]:
            return gatherResults([store.put(key, EACH_MINUTE) for key in keys])

        servers = self.engine != "sqlite"
        self.assertEqual(await self.count(put_all), 10 if servers else 7)

    async def test_attempts(self) -> None:
        """A run that fails, fails again, and succeeds."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        counted = []
        for status in (503, 503, 200):
            end = judge(run, Outcome(status, 0.1), store.clock.now(), EXACT, Random(1))
            if status == 503:
                end = end._replace(verdict=Retry(store.clock.now() - HOUR, "503"))
            counted.append(await self.count(lambda end=end: store.record([end])))  # type: ignore[misc]
            if status == 503:
                run = await self.claim_one(store, KEY)
        # On SQLite the INSERT of a record is none of these.
        expected = [3, 4, 6] if self.engine == "sqlite" else [4, 5, 7]
        self.assertEqual(counted, expected)
