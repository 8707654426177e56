"""Whose turn it is: a crowd in one queue keeps nobody of the other waiting."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from dalga.store.turns import Queue, Turns
from tests.lists import by_key
from tests.stores import LONG, EngineTestCase, each_engine


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns = Turns(1)
        self.order: list[str] = []
        self.waiting: dict[str, Deferred[None]] = {}

    def wait(self, name: str, queue: Queue) -> None:
        self.waiting[name] = self.turns.acquire(queue)
        self.waiting[name].addCallback(lambda _: self.order.append(name))

    def test_the_example(self) -> None:
        """The one in the module's text."""
        self.wait("get", Queue.API)
        for name in ("list1", "list2", "list3"):
            self.wait(name, Queue.API)
        for name in ("claim", "record"):
            self.wait(name, Queue.SCHEDULER)
        for _ in range(6):
            self.turns.release()
        self.assertEqual(self.order, ["get", "claim", "list1", "record", "list2", "list3"])
        self.assertEqual(self.turns.free, 1)

    def test_neither_starves(self) -> None:
        """P7, and the other way round: a call waits for one of the other queue."""
        for crowd, lone in ((Queue.API, Queue.SCHEDULER), (Queue.SCHEDULER, Queue.API)):
            self.order.clear()
            for number in range(50):
                self.wait(f"crowd {number}", crowd)
            self.wait("lone", lone)
            for _ in range(51):
                self.turns.release()
            self.assertLessEqual(self.order.index("lone"), 2)
            self.assertEqual(self.turns.free, 1)

    def test_cancelled(self) -> None:
        """Who waits no more has no turn."""
        self.wait("a", Queue.API)
        self.wait("b", Queue.API)
        self.wait("c", Queue.API)
        self.waiting["b"].cancel()
        self.failureResultOf(self.waiting["b"], CancelledError)
        self.turns.release()
        self.assertEqual(self.order, ["a", "c"])
        self.turns.release()
        self.assertEqual(self.turns.free, 1)

    def test_the_close_is_last(self) -> None:
        self.wait("a", Queue.SCHEDULER)
        self.wait("close", Queue.CLOSE)
        self.wait("b", Queue.API)
        self.wait("c", Queue.SCHEDULER)
        for _ in range(3):
            self.turns.release()
        self.assertEqual(self.order, ["a", "c", "b", "close"])

    def test_several_connections(self) -> None:
        self.turns = Turns(2)
        for name in "abc":
            self.wait(name, Queue.API)
        self.assertEqual(self.order, ["a", "b"])
        self.turns.release()
        self.assertEqual(self.order, ["a", "b", "c"])


@each_engine(globals(), only=("sqlite",))
class ClaimTests(EngineTestCase):
    """SQLite's only connection."""

    async def test_a_claim_goes_before_lists(self) -> None:
        """P7: a claim waits for no queue of the API's."""
        store = self.open_store()
        order: list[str] = []

        def noted(name: str, call: Deferred[Any]) -> Deferred[Any]:
            return call.addCallback(lambda _: order.append(name))

        calls = [noted("list", store.page(by_key(None, None, 9))) for _ in range(9)]
        calls.append(noted("claim", store.claim(9, LONG)))
        for call in calls:
            await call
        self.assertLess(order.index("claim"), 3)

    async def test_a_close_leaves_nobody_waiting(self) -> None:
        """Calls that wait at the close end as those that come after it."""
        store = self.open_store()
        calls = [store.page(by_key(None, None, 9)) for _ in range(5)] + [store.claim(9, LONG)]
        ended: list[Any] = []
        for call in calls:
            call.addBoth(ended.append)
        await store.close()
        for call in calls:
            await call
        self.assertEqual(len(ended), 6)
