"""
When a job runs. Pure arithmetic on aware UTC datetimes: no clock, no I/O.

A schedule answers one question: which time comes after a time? Its grid begins at an *anchor*: the
instant at which the job was scheduled, or was to run first. A schedule is stored as a short text
(`Schedule.text`), which is what the table's ``schedule`` column holds.
"""

from __future__ import annotations

import calendar
from bisect import bisect_right
from dataclasses import dataclass, replace
from datetime import MAXYEAR, UTC, datetime, timedelta
from functools import lru_cache
from itertools import count

from cronsim import CronSim

from dalga.model.cron import cron_from_text
from dalga.model.duration import Duration, duration_from_text
from dalga.model.zone import Dst, Gap, Occurrence, Overlap, Zone

#: The last instant that a schedule can name; year 9999 is where datetime and DATETIME both end.
END_OF_TIME = datetime.max.replace(tzinfo=UTC)

#: The longest exact interval, in seconds: that of a 32-bit count (136 years), as in the Go
#: releases.
MAX_INTERVAL = 2**32 - 1

#: How far ahead a cron expression's next time is looked for: cronsim's own limit. All there can be
#: come sooner; the longest wait is that for a 29 February on a given day of the week, 40 years.
YEARS_AHEAD = 50

#: What instants and elapsed times are whole numbers of.
MICROSECOND = timedelta(microseconds=1)

_SECOND = timedelta(seconds=1)
_UTC = Zone()


@dataclass(frozen=True, slots=True)
class Once:
    """Runs once; nothing comes after."""

    zone: Zone = _UTC
    text = ""

    def next_after(self, anchor: datetime, after: datetime) -> Occurrence | None:
        """There is no next run."""
        return None


@dataclass(frozen=True, slots=True)
class Every:
    """
    Runs each `interval`, which is elapsed time: a minute is sixty seconds whatever the clocks on
    the wall do.
    """

    interval: timedelta
    zone: Zone = _UTC

    @property
    def text(self) -> str:
        whole, fraction = divmod(self.interval, timedelta(seconds=1))
        return (
            str(whole)
            if not fraction
            else f"PT{whole}.{fraction.microseconds:06}".rstrip("0") + "S"
        )

    def next_after(self, anchor: datetime, after: datetime) -> Occurrence | None:
        """
        The first time of the grid ``anchor + n * interval`` (n >= 1) that is later than `after`.

        Times that went by meanwhile are passed over in one step, however many they are.

        :return: None where it would be past the year 9999.
        """
        passed = max(0, (after - anchor) // self.interval)
        try:
            return Occurrence(anchor + (passed + 1) * self.interval)
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True)
class Calendar:
    """
    Runs each `duration` that has a calendar part: days and what is longer are wall-clock time in
    `zone`, the rest is elapsed time on top of it.

    Every run is counted from the anchor, so that ends of months do not drift: 31 January and a
    month each time are 28 February, 31 March, 30 April.
    """

    duration: Duration
    zone: Zone = _UTC

    @property
    def text(self) -> str:
        return self.duration.text

    def next_after(self, anchor: datetime, after: datetime) -> Occurrence | None:
        """
        The first time ``anchor + n * duration`` (n >= 1) that is later than `after`.

        Found by bisection, in a few steps however many times went by.

        :return: None where it would be past the year 9999.
        """
        try:
            start = self.zone.wall(anchor)
        except OverflowError:
            return None
        # So many are enough to be past it, with room for any clock change.
        most = (after - anchor).days // (28 * self.duration.months + self.duration.days) + 5
        later = bisect_right(range(most), after, key=lambda n: self._earliest(start, n))
        # The one before may be in an overlap, with its second pass still to come.
        for n in count(max(1, later - 1)):
            times = self._times(start, n, self.zone)
            if times is None:
                break
            for found in times:
                if found.at > after:
                    return found
        return None

    def _earliest(self, start: datetime, n: int) -> datetime:
        """When the `n`-th time would be if all were shifted and the first; this grows with `n`."""
        times = self._times(start, n, Zone(self.zone.location))
        return times[0].at if times else END_OF_TIME

    def _times(self, start: datetime, n: int, zone: Zone) -> list[Occurrence] | None:
        """The `n`-th time: none, one or two; None where it is past the year 9999."""
        try:
            wall = _add_months(start, n * self.duration.months) + timedelta(
                days=n * self.duration.days
            )
            exact = n * self.duration.exact
            return [Occurrence(at + exact, dst) for at, dst in zone.instants(wall)]
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True)
class Cron:
    """
    Runs when the clock of `zone` shows a time that a cron expression names.

    The expression is of five fields, or six with seconds in front, as crontab(5) of Debian has it.
    So are the rules for clock changes, cron(8)'s, where the zone has no others: what runs at a
    particular time is shifted out of a gap and runs in the first pass of an overlap; where the
    minute or the hour begins with a star (a wildcard) it skips the gap and runs in both passes, so
    that an hourly job does not pause.

    :param text: as `cron_from_text` gives it.
    """

    text: str
    zone: Zone = _UTC

    def next_after(self, anchor: datetime, after: datetime) -> Occurrence | None:
        """
        The first time that is later than `after`; the anchor plays no part.

        :return: None where there is none in fifty years, or before the year 9999.
        """
        zone = self.clock
        try:
            wall = zone.wall(after)
            change = zone.change(wall)
        except OverflowError:
            return None
        best = self._first(zone, wall, after)
        if change and zone.overlap in (Overlap.LAST, Overlap.BOTH):
            # What the first pass has behind it is still to come in the second.
            again = self._first(zone, change.start - _SECOND, after)
            best = min((found for found in (best, again) if found), default=None)
        if best is None:
            return None
        return Occurrence(best.at, best.dst if self._is_named(zone, best) else None)

    @property
    def is_wildcard(self) -> bool:
        """Whether cron(8) counts it among the jobs that have no particular time."""
        minute, hour = self.text.split()[-5:-3]
        return minute.startswith("*") or hour.startswith("*")

    @property
    def clock(self) -> Zone:
        """The zone with Debian's rules where nobody has chosen others."""
        if not self.is_wildcard:
            return self.zone
        return replace(
            self.zone, gap=self.zone.gap or Gap.SKIP, overlap=self.zone.overlap or Overlap.BOTH
        )

    def _first(self, zone: Zone, wall: datetime, after: datetime) -> Occurrence | None:
        """The first instant later than `after` at which the clock shows a time after `wall`."""
        last_year = wall.year + YEARS_AHEAD
        while (following := self._following(wall)) and following.year <= last_year:
            for found in zone.instants(following):
                if found.at > after:
                    return found
            # In a gap that is skipped, or an overlap whose pass is over: go on behind it.
            change = zone.change(following)
            if change is None:
                break
            wall = change.end - _SECOND
        return None

    def _following(self, wall: datetime) -> datetime | None:
        """The first wall time after `wall`."""
        try:
            return next(CronSim(self.text, wall.replace(fold=0)), None)
        except OverflowError:
            return None

    def _is_named(self, zone: Zone, found: Occurrence) -> bool:
        """Whether a clock change has had a part in it that the user should hear of."""
        if found.dst is Dst.GAP:
            # Unless the time that it moved to is one of the schedule's own.
            wall = zone.wall(found.at)
            return self._following(wall - _SECOND) != wall
        return not self.is_wildcard or self.zone.overlap is not None


Schedule = Once | Every | Calendar | Cron


@lru_cache(maxsize=4096)
def schedule_from_text(text: str, zone: Zone = _UTC) -> Schedule:
    """
    Read back what `Schedule.text` wrote.

    :param text: a cron expression, if it has a space in it; else a duration, or nothing for a
        one-off job.
    :raises ValueError: with a sentence on what was found instead.
    """
    if text == "":
        return Once(zone)
    try:
        if " " in text:
            return Cron(cron_from_text(text, stored=True), zone)
        return periodic(duration_from_text(text), zone)
    except ValueError as problem:
        raise ValueError(f"schedule is {text[:40]!r}, which {problem}") from None


def periodic(duration: Duration, zone: Zone = _UTC) -> Every | Calendar:
    """
    :param duration: more than nothing.
    :raises ValueError: for nothing, or too much; the text follows on "it ...".
    """
    if not duration:
        raise ValueError("is no time at all")
    if not duration.is_exact:
        return Calendar(duration, zone)
    if duration.exact > timedelta(seconds=MAX_INTERVAL):
        raise ValueError(f"is longer than {MAX_INTERVAL} seconds")
    return Every(duration.exact, zone)


def timestamp(instant: datetime) -> str:
    """An instant in RFC 3339, UTC, cut off to whole seconds."""
    # Not strftime(), which leaves a year before 1000 unpadded.
    return instant.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def exact_timestamp(instant: datetime) -> str:
    """An instant in RFC 3339, UTC, with its fraction of a second where there is one."""
    return timestamp(instant).removesuffix("Z") + fraction_of_second(instant) + "Z"


def fraction_of_second(time: datetime) -> str:
    """The digits of a time past the second, with the dot; nothing where there are none."""
    return f".{time.microsecond:06}".rstrip("0").rstrip(".")


def add(instant: datetime, delay: timedelta) -> datetime | None:
    """`instant` plus `delay`, or None where that is outside the years 1 to 9999."""
    try:
        return instant + delay
    except OverflowError:
        return None


def _add_months(wall: datetime, months: int) -> datetime:
    """:raises OverflowError: past the year 9999."""
    years, month = divmod(wall.month - 1 + months, 12)
    year = wall.year + years
    if year > MAXYEAR:
        raise OverflowError
    day = min(wall.day, calendar.monthrange(year, month + 1)[1])
    return wall.replace(year=year, month=month + 1, day=day)
