"""Histograms: buckets, sums, texts, and how exact quantiles are."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, inf

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.histogram import (
    DURATION_BOUNDS,
    FACTOR,
    LATENESS_BOUNDS,
    Histogram,
    histogram_of,
    merged,
)

BOUNDS = (0.001, 0.002, 0.005)
DURATIONS = st.lists(st.floats(min_value=0, max_value=10_000), max_size=50)


def histogram(durations: list[float], bounds: tuple[float, ...] = LATENESS_BOUNDS) -> Histogram:
    made = Histogram(bounds)
    for duration in durations:
        made.add(duration)
    return made


class HistogramTests(SynchronousTestCase):
    """Buckets and quantiles."""

    def test_bounds(self) -> None:
        """They go from and to what is promised, and none is more than `FACTOR` times the last."""
        for bounds, first, last in (
            (LATENESS_BOUNDS, 0.001, 3600),
            (DURATION_BOUNDS, 0.005, 300),
        ):
            self.assertEqual((bounds[0], bounds[-1]), (first, last))
            for lower, upper in pairwise(bounds):
                self.assertTrue(lower < upper <= FACTOR * lower, (lower, upper))

    def test_buckets(self) -> None:
        """A bucket has its upper bound in it, and not its lower one."""
        for duration, expected in (
            (-0.5, [1, 0, 0, 0]),
            (0.0, [1, 0, 0, 0]),
            (0.0004, [1, 0, 0, 0]),
            (0.001, [1, 0, 0, 0]),
            (0.00101, [0, 1, 0, 0]),
            (0.005, [0, 0, 1, 0]),
            (0.0051, [0, 0, 0, 1]),
            (inf, [0, 0, 0, 1]),
        ):
            self.assertEqual(histogram([duration], BOUNDS).counts, expected, duration)

    def test_quantiles(self) -> None:
        for counts, share, expected in (
            ([0, 0, 0, 0], 0.5, None),
            ([2, 0, 0, 0], 0.5, 0.0005),
            ([2, 0, 0, 0], 0.99, 0.001),
            ([2, 0, 0, 0], 0.0, 0.0005),
            ([0, 2, 0, 0], 0.5, 0.0015),
            ([1, 1, 2, 0], 0.5, 0.002),
            ([1, 1, 2, 0], 0.75, 0.0035),
            ([1, 1, 2, 0], 1.0, 0.005),
            ([0, 0, 1, 3], 0.99, 0.005),
            ([0, 0, 0, 3], 0.5, 0.005),
        ):
            found = Histogram(BOUNDS, list(counts)).quantile(share)
            if expected is None:
                self.assertIsNone(found)
            else:
                assert found is not None
                self.assertAlmostEqual(found, expected, msg=f"{counts} {share}")

    @given(DURATIONS.filter(bool), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
    def test_how_exact_quantiles_are(self, durations: list[float], share: float) -> None:
        """An estimate lies in the bucket of the true one: within `FACTOR`, or the lowest bound."""
        true = sorted(durations)[max(1, ceil(share * len(durations))) - 1]
        found = histogram(durations).quantile(share)
        assert found is not None
        if true > LATENESS_BOUNDS[-1]:
            self.assertEqual(found, LATENESS_BOUNDS[-1])
        elif true <= LATENESS_BOUNDS[0]:
            self.assertTrue(0 < found <= LATENESS_BOUNDS[0], found)
        else:
            # Rounding may bring the estimate to the lower bound.
            self.assertTrue(true / FACTOR <= found <= FACTOR * true * (1 + 1e-9), (true, found))

    @given(DURATIONS, DURATIONS)
    def test_sums(self, some: list[float], others: list[float]) -> None:
        both = merged([histogram(some), histogram(others)], LATENESS_BOUNDS)
        self.assertEqual(both, histogram(some + others))
        self.assertEqual(both.total, len(some) + len(others))

    def test_histograms_with_other_bounds(self) -> None:
        with self.assertRaises(ValueError):
            Histogram(BOUNDS).merge(Histogram(DURATION_BOUNDS))


class TextTests(SynchronousTestCase):
    """What a column keeps of a histogram."""

    def test_texts(self) -> None:
        for counts, expected in (
            ([0, 0, 0, 0], ""),
            ([2, 1, 1, 1], "1:2 2:1 5:1 +:1"),
            ([0, 0, 70, 0], "5:70"),
        ):
            made = Histogram(BOUNDS, counts)
            self.assertEqual(made.text(), expected)
            self.assertEqual(histogram_of(expected, BOUNDS), made)

    @given(DURATIONS)
    def test_texts_are_read_as_they_were_written(self, durations: list[float]) -> None:
        for bounds in (LATENESS_BOUNDS, DURATION_BOUNDS):
            made = histogram(durations, bounds)
            self.assertEqual(histogram_of(made.text(), bounds), made)

    def test_longest_text(self) -> None:
        """The column is a TEXT, of 64 KiB."""
        text = Histogram(LATENESS_BOUNDS, [10**17] * (len(LATENESS_BOUNDS) + 1)).text()
        self.assertEqual(histogram_of(text, LATENESS_BOUNDS).text(), text)
        self.assertLess(len(text), 2**10)

    def test_other_bounds(self) -> None:
        """Of a version with other bounds, a bucket counts where its bound lies."""
        self.assertEqual(histogram_of("1:2 3:4 5:1 9:5 +:6", BOUNDS).counts, [2, 0, 5, 11])

    def test_no_texts(self) -> None:
        for text in (
            "1",
            "1:",
            ":1",
            "1:-2",
            "x:1",
            "1:2,2:3",
            "1.5:2",
            "1:2:3",
            "+",
            "٣:1",
            f"5:{10**18}",
        ):
            with self.assertRaises(ValueError, msg=text):
                histogram_of(text, BOUNDS)
