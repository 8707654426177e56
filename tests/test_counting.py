"""What is counted when, and how old it is by then."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dalga.counting import REST, REST_FACTOR, SELDOM, SELDOM_FACTOR, Counting, Present
from dalga.errors import StoreUnavailable
from tests.fakes import FakeStore

PIECE = 10


class CountingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FakeStore(self.clock.seconds)
        self.counting = Counting(self.store, self.clock, PIECE)

    def insert(self, count: int) -> None:
        first = len(self.store.rows)
        for number in range(first, first + count):
            self.store.insert("a", body=str(number))

    def ask(self) -> Deferred[Present]:
        return Deferred.fromCoroutine(self.counting.present())

    def present(self) -> tuple[int | None, float | None]:
        """The total and its age."""
        present = self.successResultOf(self.ask())
        return None if present.counted is None else present.counted.total, present.age

    def asked(self) -> list[object]:
        """What the store was asked to count since this was called last, as (after, limit)."""
        asked = [call.argument for call in self.store.called("counts")]
        self.store.calls.clear()
        return asked

    def pass_by(self, seconds: float) -> None:
        """Let time go by, in small steps, so that each timer has its time."""
        for _ in range(round(seconds / 0.125)):
            self.clock.advance(0.125)

    def test_a_small_table_is_counted_for_each_request(self) -> None:
        for total in (0, 1, 2, PIECE - 1):
            self.insert(total - len(self.store.rows))
            self.assertEqual(self.present(), (total, 0.0))
        self.assertEqual(self.asked(), [(0, PIECE)] * 4)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_large_one_is_counted_in_the_background_piece_by_piece(self) -> None:
        """P7: nobody waits for it, and between two pieces the connection is others'."""
        self.insert(25)
        asked = self.ask()
        self.store.hold("counts")
        self.assertEqual(self.successResultOf(asked).counted, None)
        self.clock.advance(0)
        self.assertEqual(self.asked(), [(0, PIECE), (0, PIECE), (10, PIECE)])
        self.clock.advance(0.25)
        self.store.release("counts")
        self.store.hold("counts")
        self.assertEqual(self.asked(), [])
        self.clock.advance(0.125)
        self.assertEqual(self.asked(), [])
        self.clock.advance(0.125)
        self.assertEqual(self.asked(), [(20, PIECE)])
        self.clock.advance(0.25)
        self.store.release("counts")
        self.assertEqual(self.present(), (25, 0.75))
        # Only what is of this moment was read for that.
        self.assertEqual(self.asked(), [(0, 0)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_count_is_shared(self) -> None:
        """P10: however many ask while it is under way."""
        self.insert(25)
        self.store.hold("counts")
        asked = [self.ask() for _ in range(5)]
        self.store.release("counts")
        for each in asked:
            self.assertEqual(self.successResultOf(each).age, None)
        self.assertEqual(self.asked(), [(0, PIECE)] * 6)
        for _ in range(5):
            self.present()
        self.assertEqual(self.asked(), [(0, 0)] * 5)
        self.pass_by(1)
        self.assertEqual(self.asked(), [(10, PIECE), (20, PIECE)])
        self.assertEqual(self.present()[0], 25)

    def test_not_more_often_than_said(self) -> None:
        """It rests for a time, and for longer where a count takes long; its age says how long."""
        self.insert(25)
        self.present()
        self.pass_by(1)
        self.insert(5)
        self.assertEqual(self.present()[0], 25)
        self.clock.advance(REST - 1.5)
        self.assertEqual(self.present()[0], 25)
        self.asked()
        self.clock.advance(0.5)
        # The first to ask then is told of the last one, and begins another.
        self.assertEqual(self.present(), (25, REST))
        self.store.hold("counts")
        self.clock.advance(0)
        self.clock.advance(3)
        self.store.release("counts")
        self.pass_by(4)
        self.assertEqual(self.asked(), [(0, 0), (0, PIECE), (10, PIECE), (20, PIECE), (30, PIECE)])
        total, age = self.present()
        self.assertEqual(total, 30)
        assert age is not None
        self.assertGreater(age, 6)
        self.clock.advance(REST_FACTOR * 6 - 10)
        self.present()
        self.asked()
        self.pass_by(1)
        self.assertEqual(self.asked(), [])
        self.clock.advance(9)
        self.present()
        self.pass_by(1)
        self.assertEqual(len(self.asked()), 5)
        self.assertLess(self.present()[1] or 99, 2)

    def test_of_whoever_does_not_wait(self) -> None:
        """Metrics are looked at for ever: so their counts are seldom, the longer the seldomer."""
        self.assertEqual(self.counting.known(), None)
        self.insert(25)
        self.counting.refresh()
        self.pass_by(1)
        self.assertEqual(self.asked(), [(0, PIECE), (10, PIECE), (20, PIECE)])
        known = self.counting.known()
        assert known is not None
        self.assertEqual((known[0].total, known[1]), (25, 1.0))
        self.clock.advance(SELDOM - 1.5)
        self.counting.refresh()
        self.assertEqual(self.asked(), [])
        self.clock.advance(0.5)
        self.store.hold("counts")
        self.counting.refresh()
        self.clock.advance(3)
        self.store.release("counts")
        self.pass_by(4)
        self.assertEqual(len(self.asked()), 3)
        self.clock.advance(SELDOM_FACTOR * 3 - 10)
        self.counting.refresh()
        self.assertEqual(self.asked(), [])
        self.clock.advance(SELDOM_FACTOR * 3 + 10)
        self.counting.refresh()
        self.pass_by(1)
        self.assertEqual(len(self.asked()), 3)

    def test_nobody_asks(self) -> None:
        """Then nothing is counted."""
        self.insert(25)
        self.present()
        self.pass_by(1)
        self.asked()
        self.clock.advance(3600)
        self.assertEqual((self.asked(), self.clock.getDelayedCalls()), ([], []))
        self.assertEqual(self.present(), (25, 3601))

    def test_a_table_that_grows_and_shrinks(self) -> None:
        """As long as it is not known better, the last count is shown, with its age."""
        self.insert(5)
        self.assertEqual(self.present(), (5, 0))
        self.clock.advance(30)
        self.insert(20)
        self.assertEqual(self.present(), (5, 30))
        self.pass_by(1)
        self.assertEqual(self.present()[0], 25)
        for row in list(self.store.rows)[3:]:
            del self.store.rows[row]
        self.assertEqual(self.present()[0], 25)
        self.clock.advance(REST)
        self.present()
        self.pass_by(1)
        self.assertEqual(self.present(), (3, 0))
        self.insert(1)
        self.assertEqual(self.present(), (4, 0))

    def test_what_is_of_this_moment(self) -> None:
        """Instances, and how late the oldest job is, whatever the age of the counts."""
        self.insert(25)
        self.present()
        self.pass_by(1)
        self.store.announce("one")
        live = self.successResultOf(self.ask()).live
        self.assertEqual((live.instances, live.lag.total_seconds()), (1, 1.0))

    def test_a_database_that_is_away(self) -> None:
        """A count that fails is made again, not at once; the last one stays, and its age."""
        self.insert(25)
        self.present()
        self.pass_by(1)
        self.clock.advance(REST)
        self.present()
        self.store.away.add("counts")
        self.pass_by(1)
        self.failureResultOf(self.ask(), StoreUnavailable)
        self.store.away.clear()
        self.assertEqual(self.present(), (25, REST + 2))
        self.asked()
        self.pass_by(8)
        self.assertEqual(self.asked(), [])
        self.clock.advance(1)
        self.present()
        self.pass_by(1)
        self.assertEqual(self.present()[1], 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_mistake_of_ours_is_seen(self) -> None:
        """And what asks for counts is answered all the same."""
        self.insert(25)
        self.present()
        self.patch(self.store, "counts", lambda *_: fail(ZeroDivisionError()))
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stop(self) -> None:
        """What is under way ends, between two pieces or in one, and nothing more begins."""
        self.insert(25)
        for held in (False, True):
            self.counting = Counting(self.store, self.clock, PIECE)
            self.present()
            if held:
                self.store.hold("counts")
                self.clock.advance(0)
            self.counting.stop()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            if held:
                self.store.release("counts")
            self.asked()
            self.clock.advance(REST)
            self.assertEqual(self.present(), (None, None))
            self.pass_by(1)
            self.assertEqual(self.asked(), [(0, PIECE)])
        self.assertEqual(self.flushLoggedErrors(), [])
