"""When a job runs: arithmetic on instants, to both ends of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.schedule import END_OF_TIME, MAX_INTERVAL, Every, Once, add, schedule_from_text

START = datetime(2014, 11, 11, 22, 10, 40, tzinfo=UTC)
SECOND = timedelta(seconds=1)

instants = st.datetimes(timezones=st.just(UTC))
intervals = st.integers(1, MAX_INTERVAL).map(lambda count: timedelta(seconds=count))


class EveryTests(SynchronousTestCase):
    """A periodic schedule."""

    def test_examples(self) -> None:
        """P9: the next run is the first of the grid that is to come, however late the last."""
        minute = Every(timedelta(minutes=1))
        for late, following in (
            (-3600, 60),  # a clock that was set back: one interval on, never the same run again
            (0, 60),
            (0.5, 60),
            (59.999999, 60),
            (60, 120),
            (60.000001, 120),
            (3600, 3660),
            (3601, 3660),
            (10**9, 1_000_000_020),
        ):
            now = START + timedelta(seconds=late)
            self.assertEqual(
                minute.next_after(START, now), START + timedelta(seconds=following), late
            )

    @given(instants, instants, intervals)
    def test_on_the_grid(self, scheduled: datetime, now: datetime, interval: timedelta) -> None:
        """P9: the next run is later than now and on the grid, and the first that is both."""
        following = Every(interval).next_after(scheduled, now)
        if following is None:
            self.assertGreater(max(scheduled, now), END_OF_TIME - interval)
            return
        self.assertGreater(following, now)
        self.assertGreater(following, scheduled)
        self.assertEqual((following - scheduled) % interval, timedelta(0))
        before = following - scheduled - interval
        self.assertTrue(not before or scheduled + before <= now)

    @given(st.integers(1, 50), st.integers(-(10**8), 10**9))
    def test_as_a_loop(self, count: int, late: int) -> None:
        """P9: the one step over the missed runs comes to where counting them would."""
        interval = timedelta(seconds=count)
        now = START + timedelta(microseconds=late)
        slow = START + interval
        while slow <= now:
            slow += interval
        self.assertEqual(Every(interval).next_after(START, now), slow)

    def test_no_drift(self) -> None:
        """A thousand runs that each end a little late stay on the grid."""
        schedule, scheduled = Every(7 * SECOND), START
        for _ in range(1000):
            following = schedule.next_after(scheduled, scheduled + 1.5 * SECOND)
            assert following is not None
            scheduled = following
        self.assertEqual(scheduled, START + 7000 * SECOND)

    def test_year_9999(self) -> None:
        """A run that would be past the year 9999 is none, rather than an error."""
        last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
        self.assertEqual(Every(SECOND).next_after(last - SECOND, last - SECOND), last)
        self.assertIsNone(Every(SECOND).next_after(last, last))
        self.assertIsNone(Every(SECOND).next_after(START, END_OF_TIME))
        self.assertIsNone(Every(timedelta(seconds=MAX_INTERVAL)).next_after(last, START))
        earliest = datetime.min.replace(tzinfo=UTC)
        self.assertIsNone(Every(SECOND).next_after(earliest, END_OF_TIME))

    def test_once(self) -> None:
        """Nothing comes after the one run of a one-off job."""
        self.assertIsNone(Once().next_after(START, START))


class TextTests(SynchronousTestCase):
    """A schedule as the table holds it."""

    @given(intervals)
    def test_there_and_back(self, interval: timedelta) -> None:
        """What is written is read back the same."""
        self.assertEqual(schedule_from_text(Every(interval).text), Every(interval))

    def test_once(self) -> None:
        """A one-off job's interval is the empty text."""
        self.assertEqual(schedule_from_text(Once().text), Once())

    def test_poison(self) -> None:
        """P6: what Dalga has not written is refused in a sentence that shows it."""
        for text in (
            "0",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1\n",
            "1.5",
            "1e3",
            "often",
            "\u0663",
            "4294967296",
        ):
            error = self.assertRaises(ValueError, schedule_from_text, text)
            self.assertIn(repr(text), str(error))
        long = str(self.assertRaises(ValueError, schedule_from_text, "9" * 10_000))
        self.assertLess(len(long), 200)


class AddTests(SynchronousTestCase):
    """Instants that may be past the end."""

    @given(instants, st.timedeltas())
    def test_add(self, instant: datetime, delay: timedelta) -> None:
        """A sum is the sum, or None; it never raises."""
        total = add(instant, delay)
        if total is not None:
            self.assertEqual(total - instant, delay)
