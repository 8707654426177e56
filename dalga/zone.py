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

    def repeated(self, wall: datetime) -> timedelta:
        """How far the clock is set back in the overlap that has `wall`; zero if it is in none."""
        first, last = _offsets(wall, self.location)
        return max(timedelta(), first - last)

    def instants(self, wall: datetime) -> list[Occurrence]:
        """
        When the clock shows a wall time, by the rules of this zone: never, once, or twice.

        :param wall: naive.
        :return: in the order of time; nothing where that is outside the years 1 to 9999.
        """
        first, last = _offsets(wall, self.location)
        try:
            if first == last:
                return [Occurrence(_instant(wall, first))]
            if first < last:
                if self.gap is Gap.SKIP:
                    return []
                return [Occurrence(_change(wall, first, last, self.location), Dst.GAP)]
            chosen = {Overlap.LAST: [last], Overlap.BOTH: [first, last]}
            offsets = chosen.get(self.overlap or Overlap.FIRST, [first])
            return [Occurrence(_instant(wall, offset), Dst.OVERLAP) for offset in offsets]
        except OverflowError:
            return []


def check_location(name: str) -> None:
    """:raises ValueError: if there is no such zone; the text follows on "it ..."."""
    if name in _locations():
        return
    close = difflib.get_close_matches(name[:80], _locations(), n=1, cutoff=0.7)
    example = f"did you mean {close[0]}?" if close else "such as Europe/Istanbul or UTC"
    raise ValueError(f"is no time zone of the IANA database; {example}")


@lru_cache(maxsize=1)
def _locations() -> frozenset[str]:
    return frozenset(available_timezones() - _NOT_ZONES)


@lru_cache(maxsize=1024)
def _zone_info(location: str) -> ZoneInfo:
    return ZoneInfo(location)


def _offsets(wall: datetime, location: str) -> tuple[timedelta, timedelta]:
    """
    The offsets from UTC before and after the clock change that `wall` is in the gap or overlap of
    (PEP 495); the same twice where it is in none.
    """
    aware = wall.replace(tzinfo=_zone_info(location), fold=0)
    first, last = aware.utcoffset(), aware.replace(fold=1).utcoffset()
    assert first is not None and last is not None
    return first, last


def _instant(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC, fold=0)


def _change(wall: datetime, before: timedelta, after: timedelta, location: str) -> datetime:
    """The instant of the clock change in whose gap `wall` is."""
    info = _zone_info(location)
    early = _instant(wall.replace(microsecond=0), after)  # still before the change
    seconds = range(round((after - before) / _SECOND) + 1)

    def changed(second: int) -> bool:
        return (early + second * _SECOND).astimezone(info).utcoffset() != before

    return early + bisect_left(seconds, True, key=changed) * _SECOND
