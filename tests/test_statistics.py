"""When this instance writes its sums, and when old sums are folded."""

from __future__ import annotations

from datetime import timedelta

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.outages import Outages
from dalga.dispatch.statistics import (
    FOLDED,
    FOLDING_INTERVAL,
    FOLDING_PATIENCE,
    LAST_WRITE,
    WRITE_INTERVAL,
    Statistics,
)
from dalga.dispatch.sums import Sums
from dalga.metrics import PathLabels
from dalga.model.statistics import Scope
from dalga.store import Recorded
from tests.fakes import FakeStore
from tests.test_sums import closed, end


class StatisticsTests(SynchronousTestCase):
    """Over a fake store, by the steady clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FakeStore(self.clock.seconds)
        self.store._read_clock()
        self.outages = Outages(self.clock, 20.0)
        self.sums = Sums("web1", PathLabels())
        self.is_busy = False
        self.statistics = Statistics(
            self.clock,
            self.store,
            self.outages,
            self.sums,
            lambda: self.is_busy,
            lambda: None,
        )

    def run_for(self, seconds: float, step: float = 0.05) -> None:
        """As the scheduler's timer does."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            for query in self.statistics.queries:
                at = query.at(self.clock.seconds())
                if at is not None and at <= self.clock.seconds():
                    query.begin()

    def count(self, runs: int = 1) -> None:
        self.sums.ended([end()] * runs, self.store.time)

    def written(self) -> int:
        """How many runs the store knows of."""
        sums = self.store.written_sums.items()
        return sum(counted.runs for (_, key), counted in sums if key.scope is Scope.ENDPOINT)

    def test_now_and_again(self) -> None:
        """At once after a rest, and else each 10 s, if there is something to write."""
        self.run_for(1)
        self.assertEqual(self.store.called("write_sums"), [])
        self.count()
        self.run_for(0.1)
        self.assertEqual(self.written(), 1)
        self.count(2)
        self.run_for(WRITE_INTERVAL - 1)
        self.assertEqual(self.written(), 1)
        self.run_for(1.1)
        self.assertEqual(self.written(), 3)
        self.store.calls.clear()
        self.run_for(3 * WRITE_INTERVAL)
        self.assertEqual(self.store.called("write_sums"), [])
        self.count()
        self.run_for(0.1)
        self.assertEqual(self.written(), 4)

    def test_a_mistake(self) -> None:
        """P6: it is logged, and what follows on the record goes on."""
        self.patch(self.sums, "ended", lambda ends, now: 1 / 0)
        self.statistics.recorded(Recorded(), self.store.time)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_runs_without_an_end(self) -> None:
        """They are written as all others, and a mistake in one holds up nothing."""
        self.statistics.ended([closed(), closed("b")], self.store.time)
        self.run_for(0.1)
        self.assertEqual(self.written(), 2)
        self.patch(self.sums, "closed", lambda runs, now: 1 / 0)
        self.statistics.ended([closed()], self.store.time)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_runs_that_may_have_ended(self) -> None:
        """The store finds out with the next write, and again until the database answers."""
        self.store.unsure_ends = 2
        self.store.away = {"settle"}
        self.run_for(3)
        self.assertGreater(len(self.store.called("settle")), 1)
        self.store.away = set()
        self.run_for(3)
        self.assertFalse(self.store.unsettled)
        self.store.calls.clear()
        self.run_for(3 * WRITE_INTERVAL)
        self.assertEqual(self.store.called("settle"), [])
        self.store.unsure_ends = 1
        self.assertIsNone(self.successResultOf(self.write_last()))
        self.assertFalse(self.store.unsettled)

    def test_during_a_backlog(self) -> None:
        """It is written all the same."""
        self.is_busy = True
        self.count()
        self.run_for(0.1)
        self.assertEqual(self.written(), 1)

    def test_the_database_is_away(self) -> None:
        """Nothing is lost, and nothing counts twice."""
        self.store.away = {"write_sums"}
        for _ in range(200):
            self.count()
            self.run_for(1.0, step=0.5)
        self.assertEqual(self.written(), 0)
        self.store.away = set()
        self.run_for(2.0)
        self.assertEqual(self.written(), 200)
        self.assertEqual(len(self.store.written_sums), 2 * 4)  # two scopes, four minutes

    def test_at_a_stop(self) -> None:
        """What is counted is written at once."""
        self.count(2)
        self.assertIsNone(self.successResultOf(self.write_last()))
        self.assertEqual(self.written(), 2)

    def test_at_a_stop_during_a_write(self) -> None:
        """The write that is under way ends first."""
        self.count(2)
        self.store.hold("write_sums")
        self.run_for(0.1)
        self.count(3)
        last = self.write_last()
        self.assertNoResult(last)
        self.store.release("write_sums")
        self.assertIsNone(self.successResultOf(last))
        self.assertEqual(self.written(), 5)

    def test_at_a_stop_without_the_database(self) -> None:
        """The stop does not wait for it."""
        self.count()
        self.store.away = {"write_sums"}
        self.run_for(0.1)
        self.successResultOf(self.write_last())
        self.assertEqual(len(self.store.called("write_sums")), 1)

    def test_at_a_stop_with_a_database_that_does_not_answer(self) -> None:
        self.count()
        self.store.hold("write_sums")
        last = self.write_last()
        self.clock.advance(LAST_WRITE - 0.1)
        self.assertNoResult(last)
        self.clock.advance(0.2)
        self.assertIsNone(self.successResultOf(last))

    def write_last(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.statistics.write_last())

    def test_folding(self) -> None:
        """A few at a time, until all old sums are folded, and those that are too old removed."""
        self.store.old_sums, self.store.oldest_hours = 3 * FOLDED + 5, FOLDED + 5
        self.run_for(FOLDING_INTERVAL - 1)
        self.assertEqual(self.store.called("fold_sums"), [])
        self.run_for(3)
        self.assertEqual((self.store.old_sums, self.store.oldest_hours), (0, 0))
        limits = {call.argument for call in self.store.called("fold_sums")}
        self.assertEqual(limits, {FOLDED})
        folded = len(self.store.called("fold_sums"))
        self.run_for(FOLDING_INTERVAL - 5)
        self.assertEqual(len(self.store.called("fold_sums")), folded)

    def test_folding_waits_for_the_end_of_a_backlog(self) -> None:
        """P7. But not for ever."""
        self.is_busy = True
        self.store.old_sums = 5
        self.run_for(FOLDING_INTERVAL + FOLDING_PATIENCE - 5, step=0.5)
        self.assertEqual(self.store.old_sums, 5)
        self.is_busy = False
        self.run_for(2)
        self.assertEqual(self.store.old_sums, 0)
        self.is_busy = True
        self.store.old_sums = 5
        self.run_for(FOLDING_INTERVAL + FOLDING_PATIENCE + 5, step=0.5)
        self.assertEqual(self.store.old_sums, 0)

    def test_minutes_that_are_dropped(self) -> None:
        """P10: those that wait when the database is back are written."""
        self.store.away = {"write_sums"}
        for _ in range(70):
            self.count()
            self.store.set_by += timedelta(minutes=1)
        self.run_for(2 * WRITE_INTERVAL)
        self.store.away = set()
        self.run_for(2)
        self.assertEqual(self.written(), 61)
