"""
Wall times and instants: which time the clock of a place shows, and when. Pure.

Where clocks change, a wall time may not exist (a gap) or exist twice (an overlap). In Riga, clocks
go from 03:00 to 04:00 on 29 March 2026: 03:30 is in a gap. On 25 October they go from 04:00 back to
03:00: 03:30 is in an overlap. A `Zone` says which instants such a wall time means.

The zones are those of the IANA database, as `zoneinfo` has them.
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

#: Names of zoneinfo that mean another zone on each machine, or no place's time.
_NOT_ZONES = frozenset({"localtime", "posixrules", "Factory"})

_SECOND = timedelta(seconds=1)


class Gap(StrEnum):
    """Which instant a wall time in a gap means."""

    #: The instant of the clock change, at which the first wall time after the gap is shown.
    SHIFT = "shift"
    #: No instant: a schedule has no run then.
    SKIP = "skip"


class Overlap(StrEnum):
    """Which instants a wall time in an overlap means: of the first pass, of the last, or both."""

    FIRST = "first"
    LAST = "last"
    BOTH = "both"


class Dst(StrEnum):
    """Which clock change moved or chose a time."""

    GAP = "gap"
    OVERLAP = "overlap"


class Occurrence(NamedTuple):
    """A time of a schedule."""

    #: Aware, UTC.
    at: datetime
    #: None if no clock change moved or chose the time.
    dst: Dst | None = None


class Change(NamedTuple):
    """A clock change that leaves a gap or an overlap."""

    #: Aware, UTC.
    at: datetime
    #: The offsets from UTC before and after the change.
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
        """The first wall time after the gap or overlap (naive)."""
        return self.at.replace(tzinfo=None) + max(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Zone:
    """
    A place's clock.

    :param location: an IANA name that `check_location` lets pass.
    :param gap: None if nobody has chosen.
    :param overlap: None if nobody has chosen.
    """

    location: str = "UTC"
    gap: Gap | None = None
    overlap: Overlap | None = None

    def wall(self, instant: datetime) -> datetime:
        """
        The time that the clock shows at an instant.

        :return: a naive datetime, whose ``fold`` is 1 in the second pass of an overlap.
        :raises OverflowError: if the wall time is outside the years 1 to 9999.
        """
        return instant.astimezone(_zone_info(self.location)).replace(tzinfo=None)

    def local(self, instant: datetime) -> datetime:
        """
        An instant as an aware datetime of this zone; of UTC if this zone's time is outside the
        years 1 to 9999.
        """
        try:
            return instant.astimezone(_zone_info(self.location))
        except OverflowError:
            return instant.astimezone(UTC)

    def change(self, wall: datetime) -> Change | None:
        """
        The clock change whose gap or overlap has a wall time.

        :param wall: naive.
        :return: None if the wall time exists once, as nearly all do.
        :raises OverflowError: if the instant is outside the years 1 to 9999.
        """
        info = _zone_info(self.location)
        # By PEP 495, fold 0 has the offset before the change, and fold 1 the offset after it. That
        # holds in gaps, too.
        before = _offset(wall.replace(tzinfo=info, fold=0))
        after = _offset(wall.replace(tzinfo=info, fold=1))
        if before == after:
            return None
        # The change is at `early`, or later by at most as much as the clock is set.
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
        The instants that a wall time means, by the rules of this zone: none, one, or two.

        :param wall: naive.
        :return: in the order of time. Empty, too, if an instant is outside the years 1 to 9999.
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
    """:raises ValueError: if there is no such zone. The message follows on "it ..."."""
    if name in _locations():
        return
    close = difflib.get_close_matches(name[:80], _locations(), n=1, cutoff=0.7)
    advice = "it takes one such as Europe/Istanbul or UTC"
    if close:
        advice = f"did you mean {close[0]}?"
    raise ValueError(f"is no time zone of the IANA database; {advice}")


def forget_zones() -> None:
    """Forget all zones that were looked up, as zoneinfo has another copy of the database now."""
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
