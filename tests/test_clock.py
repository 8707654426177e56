"""The database's time between two queries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dalga.store.clock import FRESH, DatabaseClock, steady_seconds

START = datetime(2014, 11, 11, 22, 10, 40, tzinfo=UTC)


class DatabaseClockTests(SynchronousTestCase):
    """P8: what is known of the database's clock."""

    def setUp(self) -> None:
        self.steady = Clock()
        self.steady.advance(5000)
        self.began = self.steady.seconds()
        #: What the database's clock is ahead of `START` plus the time gone by.
        self.set_by = timedelta(0)
        self.clock = DatabaseClock(self.steady.seconds)

    @property
    def true(self) -> datetime:
        """The database's time."""
        return START + self.set_by + timedelta(seconds=self.steady.seconds() - self.began)

    def test_offset(self) -> None:
        """How far the database's clock is ahead of the machine's."""
        machine = START
        clock = DatabaseClock(self.steady.seconds, lambda: machine)
        clock.observe(START + timedelta(seconds=2), self.began, self.began)
        self.assertEqual(clock.offset, 2.0)
        machine += timedelta(seconds=7)
        self.steady.advance(5)
        self.assertEqual(clock.offset, 0.0)

    def read(self, there: float = 0.0, back: float = 0.0) -> None:
        """Ask the database for its time, over a network that takes so many seconds each way."""
        sent = self.steady.seconds()
        self.steady.advance(there)
        reading = self.true
        self.steady.advance(back)
        self.clock.observe(reading, sent, self.steady.seconds())

    def late(self) -> float:
        """How many seconds the estimate is late."""
        return (self.true - self.clock.now()).total_seconds()

    def test_before_the_first_reading(self) -> None:
        """P8: without a reading there is no time: the machine's own is never taken for it."""
        self.assertRaises(RuntimeError, self.clock.now)
        self.assertRaises(RuntimeError, self.clock.until, START)

    def test_goes_on(self) -> None:
        """P8: between two readings the time goes on with the steady clock."""
        self.read()
        self.steady.advance(2.5)
        self.assertEqual(self.clock.now(), START + timedelta(seconds=2.5))
        self.assertEqual(self.clock.until(START + timedelta(seconds=10)), 7.5)
        self.assertEqual(self.clock.until(START), -2.5)

    def test_never_early(self) -> None:
        """P7: the estimate is late by at most the round trip, so that a timer finds its job due."""
        for there, back in ((0.0, 0.5), (0.5, 0.0), (0.25, 0.25)):
            self.clock = DatabaseClock(self.steady.seconds)
            self.read(there, back)
            self.assertEqual(self.late(), back)

    @given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 9000))))
    def test_never_early_after_many(self, trips: list[tuple[int, int, int]]) -> None:
        """P7: however good and bad readings follow each other, the estimate is never early."""
        self.setUp()
        longest = 0.0
        for there, back, pause in trips:
            self.read(there / 1000, back / 1000)
            longest = max(longest, (there + back) / 1000)
            self.steady.advance(pause / 1000)
            # The steady clock's seconds are floats, the estimate has microseconds.
            self.assertGreaterEqual(self.late(), -0.00001)
            self.assertLessEqual(self.late(), longest + 0.00001)

    def test_the_shorter_round_trip_wins(self) -> None:
        """P8: a reading that took long does not replace one that was quick; a quicker one does."""
        self.read(0.25, 0.25)
        self.read(0.0625, 0.0625)
        self.assertEqual(self.late(), 0.0625)
        self.read(0.5, 0.25)
        self.assertEqual(self.late(), 0.0625)

    def test_a_better_bound_wins(self) -> None:
        """P8: a slow reading that shows the estimate to be late is taken all the same."""
        self.read(0.0, 0.25)
        self.assertEqual(self.late(), 0.25)
        self.read(0.5, 0.0)
        self.assertEqual(self.late(), 0.0)

    def test_set(self) -> None:
        """P8: a database clock that was set an hour back or ahead is followed at once."""
        for hours in (-1, 1):
            self.read()
            self.set_by += timedelta(hours=hours)
            self.read(0.5, 0.5)
            self.assertEqual(self.late(), 0.5, f"set by {hours} hours")

    def test_drift(self) -> None:
        """P8: a reading gives way to any newer one once it is old, so drift does not add up."""
        self.read()
        for _ in range(100):
            self.steady.advance(FRESH)
            self.set_by += timedelta(milliseconds=10)  # the steady clock is slow by a thousandth
            self.read(0.25, 0.25)
            self.assertLess(abs(self.late()), 0.5)

    def test_old_gives_way(self) -> None:
        """P8: even a consistent reading replaces an old one, not a fresh one."""
        self.read()
        self.set_by -= timedelta(seconds=0.125)  # within what the next readings allow
        self.steady.advance(FRESH - 1)
        self.read(0.125, 0.375)
        self.assertEqual(self.late(), -0.125)
        self.steady.advance(2)
        self.read(0.125, 0.375)
        self.assertEqual(self.late(), 0.375)

    def test_steady_seconds(self) -> None:
        """The steady clock does not go back."""
        first = steady_seconds()
        self.assertGreaterEqual(steady_seconds(), first)
