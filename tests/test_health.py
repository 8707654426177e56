"""`/health`, `/ready`, `/metrics`: what they say, and when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import StoreUnavailable
from dalga.health import HOLDS, PATIENCE, TICK, Health
from dalga.metrics import Counts, Metrics
from dalga.sharing import SharedNumbers

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Asked:
    """A store that answers when it is told to."""

    def __init__(self) -> None:
        self.looks: list[Deferred[datetime]] = []

    def now(self) -> Deferred[datetime]:
        """See `Store.now`."""
        self.looks.append(Deferred())
        return self.looks[-1]


class HealthTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = Asked()
        self.metrics = Metrics()
        self.scrapes = 0
        self.health = self.make()

    def make(self, shared: SharedNumbers | None = None, place: int | None = None) -> Health:
        store: Any = self.store
        return Health(store, self.clock, self.metrics, maybeDeferred, self.scraped, shared, place)

    def scraped(self) -> None:
        self.scrapes += 1


class ReadyTests(HealthTestCase):
    def test_ready(self) -> None:
        ready = self.health.ready()
        self.assertNoResult(ready)
        self.store.looks[0].callback(NOW)
        self.assertIsNone(self.successResultOf(ready))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_look_for_all(self) -> None:
        """However many ask: also those that ask a moment later."""
        asked = [self.health.ready() for _ in range(5)]
        self.store.looks[0].callback(NOW)
        self.assertEqual([self.successResultOf(each) for each in asked], [None] * 5)
        self.clock.advance(HOLDS / 2)
        self.assertIsNone(self.successResultOf(self.health.ready()))
        self.assertEqual(len(self.store.looks), 1)
        self.clock.advance(HOLDS)
        self.assertNoResult(self.health.ready())
        self.assertEqual(len(self.store.looks), 2)

    def test_away(self) -> None:
        """The reason is the store's; and once the database is back, the instance is ready."""
        ready = self.health.ready()
        self.store.looks[0].errback(StoreUnavailable("nobody listens"))
        self.assertEqual(self.successResultOf(ready), "nobody listens")
        self.clock.advance(HOLDS)
        ready = self.health.ready()
        self.store.looks[1].callback(NOW)
        self.assertIsNone(self.successResultOf(ready))

    def test_silent(self) -> None:
        """The first to ask waits for so long, and all others no more, until there is an answer."""
        ready = self.health.ready()
        self.clock.advance(PATIENCE - 0.1)
        self.assertNoResult(ready)
        self.clock.advance(0.1)
        reason = self.successResultOf(ready)
        assert reason is not None
        self.assertIn("has not answered within 2 seconds", reason)
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(self.health.ready()), reason)
        self.assertEqual(len(self.store.looks), 1)
        self.store.looks[0].callback(NOW)
        self.assertIsNone(self.successResultOf(self.health.ready()))

    def test_stopping(self) -> None:
        self.health.stop()
        self.assertEqual(self.successResultOf(self.health.ready()), "a stop has begun")
        self.assertEqual(self.store.looks, [])

    def test_client_is_gone(self) -> None:
        """The others get their answer."""
        gone, other = self.health.ready(), self.health.ready()
        gone.cancel()
        self.failureResultOf(gone)
        self.store.looks[0].callback(NOW)
        self.assertIsNone(self.successResultOf(other))

    def test_mistake(self) -> None:
        """A fault of Dalga is logged, and is no reason to be silent."""
        ready = self.health.ready()
        self.store.looks[0].errback(KeyError("ours"))
        self.assertIn("ours", self.successResultOf(ready) or "")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_close(self) -> None:
        """The end of the instance leaves nothing behind."""
        self.health.start()
        ready = self.health.ready()
        self.health.close()
        self.successResultOf(ready)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class NumbersTests(HealthTestCase):
    def ticks(self) -> Counts:
        value = self.metrics.numbers()["dalga_reactor_tick_seconds"][()]
        assert isinstance(value, Counts)
        return value

    def test_ticks(self) -> None:
        """One that comes late says by how much."""
        self.health.start()
        for _ in range(4):
            self.clock.advance(TICK)
        self.assertEqual((sum(self.ticks().buckets), self.ticks().sum), (4, 0.0))
        self.clock.advance(TICK + 3.0)
        self.assertEqual((sum(self.ticks().buckets), self.ticks().sum), (5, 3.0))

    def test_text(self) -> None:
        body, kind = self.successResultOf(self.health.exposed(""))
        self.assertIn(b"dalga_leases_lost_total 0.0\n", body)
        self.assertTrue(kind.startswith("text/plain"))
        self.assertEqual(self.scrapes, 1)

    def test_one_thread_at_a_time(self) -> None:
        """P7: however many ask. Nothing is written for a client that is gone."""
        threads: list[Deferred[tuple[bytes, str]]] = []

        def in_thread(work: Callable[[], tuple[bytes, str]]) -> Deferred[tuple[bytes, str]]:
            threads.append(Deferred())
            return threads[-1]

        self.patch(self.health, "_in_thread", in_thread)
        first, gone, second = (self.health.exposed("") for _ in range(3))
        self.assertEqual(len(threads), 1)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertEqual(len(threads), 1)
        threads[0].errback(KeyError("ours"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(len(threads), 2)
        threads[1].callback((b"x", "text"))
        self.assertEqual(self.successResultOf(second), (b"x", "text"))

    def test_mistake_in_a_number(self) -> None:
        """Whoever asks is told, and the next one is answered."""
        broken = [True]

        def slots() -> int:
            return 1 // (not broken)

        self.metrics.gauge("dalga_slots", slots)
        self.failureResultOf(self.health.exposed(""), ZeroDivisionError)
        broken.clear()
        self.successResultOf(self.health.exposed(""))

    def test_workers(self) -> None:
        """Whichever is asked shows the numbers of all."""
        shared = SharedNumbers(2, self.clock.seconds)
        self.addCleanup(shared.close)
        first = self.make(shared, 1)
        self.metrics = Metrics()
        self.metrics.leases_lost = 7
        second = self.make(shared, 2)
        second.start()
        self.clock.advance(TICK)
        body, _ = self.successResultOf(first.exposed(""))
        self.assertIn(b'dalga_leases_lost_total{worker="1"} 0.0\n', body)
        self.assertIn(b'dalga_leases_lost_total{worker="2"} 7.0\n', body)

    def test_no_counter_goes_down(self) -> None:
        """Two scrapes within a second that come to different workers."""
        shared = SharedNumbers(2, self.clock.seconds)
        self.addCleanup(shared.close)
        metrics = self.metrics
        first = self.make(shared, 1)
        first.start()
        self.metrics = Metrics()
        second = self.make(shared, 2)
        self.clock.advance(TICK)
        metrics.leases_lost = 5
        for asked in (first, second):
            body, _ = self.successResultOf(asked.exposed(""))
            self.assertIn(b'dalga_leases_lost_total{worker="1"} 5.0\n', body)

    def test_shared_each_second(self) -> None:
        shared = SharedNumbers(2, self.clock.seconds)
        self.addCleanup(shared.close)
        written: list[float] = []
        self.patch(shared, "write", lambda place, numbers: written.append(self.clock.seconds()))
        self.make(shared, 2).start()
        self.clock.pump([TICK] * 12)
        self.assertEqual(written, [1000.25, 1001.25, 1002.25])
