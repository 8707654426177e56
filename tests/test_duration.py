"""Durations as text, and back."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.duration import Duration, duration_from_text, elapsed_from_text, seconds
from tests.strategies import thorough

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


class ReadTests(SynchronousTestCase):
    """What is read from a text."""

    def test_whole_seconds(self) -> None:
        """Elapsed time of whole seconds is one duration, however it is written."""
        for text, count in (
            ("60", 60),
            ("0", 0),
            ("007", 7),
            ("0" * 30 + "60", 60),
            ("4294967295", 4294967295),
            ("PT60S", 60),
            ("pt60s", 60),
            ("PT1M", 60),
            ("PT1H30M", 5400),
            ("PT36H", 129600),
            ("PT1H0M5S", 3605),
            ("P0DT5S", 5),
            ("PT60.000S", 60),
            ("60.0", 60),
            ("1m", 60),
            ("1h30m", 5400),
            ("1.5h", 5400),
            ("90s", 90),
            ("2000ms", 2),
            ("PT0.5H", 1800),
            ("PT1.5M", 90),
            ("pt1h0,5m", 3630),
        ):
            duration = duration_from_text(text)
            self.assertEqual(duration, seconds(count), text)
            self.assertEqual(duration.text, str(count))
            self.assertTrue(duration.is_exact)

    def test_parts(self) -> None:
        """Days and what is longer are of the calendar, the rest is elapsed time."""
        for text, months, days, exact in (
            ("P1D", 0, 1, 0 * SECOND),
            ("P1W", 0, 7, 0 * SECOND),
            ("P1M", 1, 0, 0 * SECOND),
            ("P1Y", 12, 0, 0 * SECOND),
            ("P1Y2M10DT2H30M", 14, 10, 2.5 * HOUR),
            ("P1DT12H", 0, 1, 12 * HOUR),
            ("P1MT1M", 1, 0, MINUTE),
            ("P0Y1D", 0, 1, 0 * SECOND),
            ("P1DT0.5S", 0, 1, SECOND / 2),
            ("PT0.5S", 0, 0, SECOND / 2),
            ("PT1.000001S", 0, 0, SECOND + timedelta(microseconds=1)),
        ):
            duration = duration_from_text(text)
            self.assertEqual(duration, Duration(months, days, exact, text))
            self.assertEqual(duration.is_exact, not months and not days, text)
            self.assertTrue(duration)

    def test_one_text_for_one_time(self) -> None:
        """Only seconds are shown with a fraction, so that what is shown is read by each version."""
        for text, shown in (
            ("1.5", "PT1.5S"),
            ("1500ms", "PT1.5S"),
            ("0.0006ms", "PT0.000001S"),
            ("PT1.50S", "PT1.5S"),
            ("PT0.0005H", "PT1.8S"),
            ("PT0.000001H", "PT0.0036S"),
            ("P1DT0.5H", "P1DT1800S"),
            ("P1MT0.00005M", "P1MT0.003S"),
        ):
            duration = duration_from_text(text)
            self.assertEqual(duration.text, shown)
            self.assertEqual(duration_from_text(shown), duration)

    def test_a_minute_is_no_month(self) -> None:
        """Go's units are small, ISO 8601's have a P in front."""
        self.assertEqual(duration_from_text("1m").exact, MINUTE)
        self.assertEqual(duration_from_text("P1M").months, 1)
        self.assertRaises(ValueError, duration_from_text, "1M")

    def test_case_and_comma(self) -> None:
        """ISO 8601 lets a comma stand for the point; lower case is taken for what it means."""
        self.assertEqual(duration_from_text("p1dt1,5s"), duration_from_text("P1DT1.5S"))
        self.assertEqual(duration_from_text("p1dt1,5s").text, "P1DT1.5S")

    def test_refused(self) -> None:
        """Anything else is refused, with what is wrong."""
        for problem, texts in (
            ("is no time at all", ("P0D", "PT0S", "P0Y0M0DT0H0M0S", "P0W", "PT0.0S", "0s", "0.0")),
            ("is negative", ("-1", "-PT5S", "-P1D", "P-1D", "PT-5S", "-5m")),
            ("mixes weeks", ("P1M2W", "P2W1D", "P1Y1W", "P1WT1H")),
            ("is longer than any calendar", ("9" * 20, "9" * 5000, "PT99999999999999H")),
            ("has a fraction of a day or more", ("P1.5D", "P0.5M", "P0,5W", "P0.5YT1H", "P1.5D1M")),
            ("has a fraction that is not of its smallest unit", ("PT1.5H30M", "PT1.5M1.5S")),
            ("write 5m for minutes, or P5M for months", ("5M",)),
            ("write P1D", ("1D", "1d")),
            ("write P2W", ("2w",)),
            ("write days and more as ISO 8601 has them", ("2d4h", "1w2d", "1.5d", "1h1d")),
            (
                "is no duration",
                (
                    *("", " ", "P", "PT", "P1", "P1DT", "T1S", "+60", "1e3", "60S", "1m1h", "5 m"),
                    *("PT.5S", ".5", "PT1.S", "1.", "PT0.1234567S", "1.1234567", "P1D1M", "1,5h"),
                    *("PT1S1M", "P1H", "PT1D", "P1M1M", " 60", "60\n", "P1D\n", "P1 D", "P1DT-5H"),
                    *("P\u0663D", "\u0663", "P" + 11 * "9" + "D", "P2026-01-01", "always", "5min"),
                ),
            ),
        ):
            for text in texts:
                error = self.assertRaises(ValueError, duration_from_text, text)
                self.assertIn(problem, str(error), repr(text))

    @given(st.text(st.sampled_from("P0123456789YMWDTHS.,-hms"), max_size=30))
    @thorough(500)
    def test_any_text(self, text: str) -> None:
        """Any text is a duration or refused, and what is read is read again from its own text."""
        try:
            duration = duration_from_text(text)
        except ValueError:
            return
        self.assertEqual(duration_from_text(duration.text), duration)

    def test_nothing(self) -> None:
        """No seconds are no time; more than a calendar has overflow."""
        self.assertFalse(seconds(0))
        self.assertTrue(seconds(1))
        self.assertRaises(OverflowError, seconds, 10**20)

    def test_elapsed(self) -> None:
        """A day is 24 hours, and no time is a duration, too; what needs a calendar is refused."""
        for text, elapsed in (
            ("1.5", 1.5 * SECOND),
            ("PT5M", 5 * MINUTE),
            ("P1DT1H", 25 * HOUR),
            ("P1W", 168 * HOUR),
            *((zero, 0 * SECOND) for zero in ("0", "0.0", "0s", "PT0S", "P0D", "P0Y")),
        ):
            self.assertEqual(elapsed_from_text(text), elapsed, text)
        for text, problem in (
            ("P1M", "has years or months, which are not always as long"),
            ("P1Y1D", "has years or months, which are not always as long"),
            ("P9999999999D", "is longer than any calendar"),
            ("1d", "is no duration: write P1D"),
        ):
            error = self.assertRaises(ValueError, elapsed_from_text, text)
            self.assertEqual(str(error), problem, text)
