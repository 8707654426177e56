"""
Wall-clock times and instants: what a clock on the wall of some place shows, and when. Pure.

Where the clocks change, a wall time may not exist (a gap) or exist twice (an overlap). `Zone` says
what is done about it. The zones are those of the IANA database, as `zoneinfo` has them.
"""

from __future__ import annotations

import difflib
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

#: Names that each machine may take for something else, or that are no place's time.
_NOT_ZONES = frozenset({"localtime", "posixrules", "Factory"})

_SECOND = timedelta(seconds=1)


class Gap(StrEnum):
    """What is done about a wall time that does not exist."""

    #: It moves to the first that does: the instant of the clock change.
    SHIFT = "shift"
    #: There is no such time.
    SKIP = "skip"


class Overlap(StrEnum):
    """What is done about a wall time that exists twice."""

    FIRST = "first"
    LAST = "last"
    BOTH = "both"


class Dst(StrEnum):
    """What a clock change had to do with a time."""

    GAP = "gap"
    OVERLAP = "overlap"


class Occurrence(NamedTuple):
    """A time of a schedule."""

    #: Aware, UTC.
    at: datetime
    #: None where no clock change moved or chose the time.
    dst: Dst | None = None


class Change(NamedTuple):
    """A clock change that leaves a gap or an overlap."""

    #: Aware, UTC.
    at: datetime
    #: The offsets from UTC before and after it.
    before: timedelta
    after: timedelta

    @property
    def is_gap(self) -> bool:
        """Whether the clock is set forward."""
        return self.before < self.after

    @property
    def start(self) -> datetime:
        """The first wall time of the gap or overlap (naive)."""
        return self.at.replace(tzinfo=None) + min(self.before, self.after)

    @property
    def end(self) -> datetime:
        """The first wall time that comes after it (naive)."""
        return self.at.replace(tzinfo=None) + max(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Zone:
    """
    A place's clock.

    :param location: an IANA name that `check_location` lets pass.
    :param gap: None where nobody has chosen.
    :param overlap: None where nobody has chosen.
    """

    location: str = "UTC"
    gap: Gap | None = None
    overlap: Overlap | None = None

    def wall(self, instant: datetime) -> datetime:
        """
        What the clock shows at an instant.

        :return: a naive datetime, whose ``fold`` is 1 in the second pass of an overlap.
        :raises OverflowError: where that is outside the years 1 to 9999.
        """
        return instant.astimezone(_zone_info(self.location)).replace(tzinfo=None)

    def local(self, instant: datetime) -> datetime:
        """The instant as an aware datetime of this zone; of UTC, where the zone's has no year."""
        try:
            return instant.astimezone(_zone_info(self.location))
        except OverflowError:
            return instant.astimezone(UTC)

    def change(self, wall: datetime) -> Change | None:
        """
        The clock change in whose gap or overlap a wall time is.

        :param wall: naive.
        :return: None where the wall time exists once, as nearly all do.
        :raises OverflowError: where that is outside the years 1 to 9999.
        """
        info = _zone_info(self.location)
        # What PEP 495 has for each fold, in gaps as in overlaps.
        before = _offset(wall.replace(tzinfo=info, fold=0))
        after = _offset(wall.replace(tzinfo=info, fold=1))
        if before == after:
            return None
        # The change is later than this, by what the clock is set forward or back at most.
        early = _instant(wall.replace(microsecond=0), max(before, after))
        seconds = range(round(abs(after - before) / _SECOND) + 1)
        passed = bisect_left(
            seconds,
            True,
            key=lambda n: _offset((early + n * _SECOND).astimezone(info)) != before,
        )
        return Change(early + passed * _SECOND, before, after)

    def instants(self, wall: datetime) -> list[Occurrence]:
        """
        When the clock shows a wall time, by the rules of this zone: never, once, or twice.

        :param wall: naive.
        :return: in the order of time; nothing where that is outside the years 1 to 9999.
        """
        try:
            change = self.change(wall)
            if change is None:
                offset = _offset(wall.replace(tzinfo=_zone_info(self.location)))
                return [Occurrence(_instant(wall, offset))]
            if change.is_gap:
                return [] if self.gap is Gap.SKIP else [Occurrence(change.at, Dst.GAP)]
            first = Occurrence(_instant(wall, change.before), Dst.OVERLAP)
            last = Occurrence(_instant(wall, change.after), Dst.OVERLAP)
        except OverflowError:
            return []
        match self.overlap:
            case Overlap.BOTH:
                return [first, last]
            case Overlap.LAST:
                return [last]
            case _:
                return [first]


def check_location(name: str) -> None:
    """:raises ValueError: if there is no such zone; the text follows on "it ..."."""
    if name in _locations():
        return
    close = difflib.get_close_matches(name[:80], _locations(), n=1, cutoff=0.7)
    example = f"did you mean {close[0]}?" if close else "such as Europe/Istanbul or UTC"
    raise ValueError(f"is no time zone of the IANA database; {example}")


def forget_zones() -> None:
    """Look up each zone anew: from now on zoneinfo takes them from another copy."""
    _locations.cache_clear()
    _zone_info.cache_clear()


@lru_cache(maxsize=1)
def _locations() -> frozenset[str]:
    return frozenset(available_timezones() - _NOT_ZONES)


@lru_cache(maxsize=1024)
def _zone_info(location: str) -> ZoneInfo:
    return ZoneInfo(location)


def _offset(aware: datetime) -> timedelta:
    offset = aware.utcoffset()
    assert offset is not None
    return offset


def _instant(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC, fold=0)
