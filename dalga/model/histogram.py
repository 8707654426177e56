"""
Histograms of durations: how many lie between each two of some bounds. Pure.

An example, with the bounds 1, 2 and 5 ms, and the durations 0.4, 1, 1.5, 4 and 9 ms::

    a bucket up to      1 ms   2 ms   5 ms   more
    has as many            2      1      1      1

A bucket has its upper bound in it, and not its lower one. What always holds: the sum of two
histograms is the histogram of all their durations. So sums of minutes and of instances can be added
up to those of a day.

A quantile that is read off a histogram is not exact. It lies in the same bucket as the true one
(the nearest rank: of 100 durations, the 99th in order is p99). So the two differ by less than the
bucket is wide: by a factor of less than `FACTOR`, or by less than the lowest bound. Of durations
above the highest bound no more is known than that.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from functools import cache
from math import ceil, inf

#: Upper bounds of the buckets of lateness, in seconds: 1 ms to 1 h.
LATENESS_BOUNDS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0),
)

#: Upper bounds of the buckets of the durations of attempts, in seconds: 5 ms to 5 min.
DURATION_BOUNDS = (
    *(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0),
)

#: A bound is at most this many times the bound before it.
FACTOR = 3

#: A bucket as text: its upper bound in milliseconds, and its count.
#: A count has no more digits than this.
DIGITS = 18
_BUCKET = re.compile(rf"([0-9]{{1,12}}):([0-9]{{1,{DIGITS}}})")


class Histogram:
    """
    See the module's text.

    :param bounds: the upper bounds of the buckets, in seconds, ascending. One more bucket is behind
        the last bound.
    :param counts: of the buckets, in their order; a list that becomes the histogram's own.
    """

    __slots__ = ("bounds", "counts")

    def __init__(self, bounds: tuple[float, ...], counts: list[int] | None = None) -> None:
        self.bounds = bounds
        #: How many durations are in each bucket. Where each microsecond counts, a caller adds to it
        #: as `add` does.
        self.counts = [0] * (len(bounds) + 1) if counts is None else counts

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return self.bounds == other.bounds and self.counts == other.counts

    def __repr__(self) -> str:
        return f"Histogram({self.text()!r})"

    @property
    def total(self) -> int:
        """How many durations there are."""
        return sum(self.counts)

    def add(self, seconds: float) -> None:
        """Count a duration, in seconds. What is less than 0 counts as 0."""
        self.counts[bisect_left(self.bounds, seconds)] += 1

    def merge(self, other: Histogram) -> None:
        """Count all durations of another histogram with the same bounds, too."""
        if self.bounds != other.bounds:
            raise ValueError("the histograms have different bounds")
        counts = self.counts
        for number, count in enumerate(other.counts):
            if count:
                counts[number] += count

    def add_text(self, text: str) -> None:
        """
        Count all durations of a histogram that is given as `text` gives it. A bucket with a bound
        that is not one of these bounds counts in the bucket that this bound lies in.

        :raises ValueError: if the text is no histogram. Some of it may be counted then.
        """
        places, counts = _places(self.bounds), self.counts
        for bucket in text.split():
            bound, _, count = bucket.partition(":")
            place = places.get(bound)
            if place is None or len(count) > DIGITS or not count.isdecimal():
                place, count = _place(bucket, self.bounds)
            counts[place] += int(count)

    def quantile(self, share: float) -> float | None:
        """
        An estimate of a quantile, in seconds; None if there are no durations.

        Within a bucket, the durations are taken to be evenly spread. For what lies above the
        highest bound, the estimate is the highest bound.

        :param share: from 0 to 1, such as 0.99 for p99.
        """
        total = self.total
        if not total:
            return None
        rank = max(1, ceil(share * total))
        lower, below = 0.0, 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if below + count >= rank:
                return lower + (bound - lower) * (rank - below) / count
            lower, below = bound, below + count
        return lower

    def text(self) -> str:
        """
        The buckets that are not empty, such as ``1:2 2:1 5:1 +:1``: each has its upper bound in
        milliseconds, so that a version with other bounds can read it.
        """
        return " ".join(
            f"{_bound_text(bound)}:{count}"
            for bound, count in zip((*self.bounds, inf), self.counts, strict=True)
            if count
        )


def histogram_of(text: str, bounds: tuple[float, ...]) -> Histogram:
    """
    What `Histogram.text` wrote.

    :raises ValueError: if the text is no histogram.
    """
    read = Histogram(bounds)
    read.add_text(text)
    return read


def merged(histograms: Iterable[Histogram], bounds: tuple[float, ...]) -> Histogram:
    """The sum of histograms, all with these bounds."""
    summed = Histogram(bounds)
    for each in histograms:
        summed.merge(each)
    return summed


@cache
def _places(bounds: tuple[float, ...]) -> dict[str, int]:
    """The places of buckets, by their bounds as text."""
    return {_bound_text(bound): place for place, bound in enumerate((*bounds, inf))}


def _place(bucket: str, bounds: tuple[float, ...]) -> tuple[int, str]:
    """The place and the count of a bucket, as text, with any bound. :raises ValueError: if none."""
    found = _BUCKET.fullmatch(bucket)
    if found is None:
        raise ValueError(f"{bucket!r} is no bucket of a histogram")
    return bisect_left(bounds, int(found[1]) / 1000), found[2]


def _bound_text(bound: float) -> str:
    return "+" if bound == inf else f"{bound * 1000:.0f}"
