"""
When a job runs. Pure: arithmetic on aware UTC datetimes, no clock.

A schedule answers one question: which is its first time after an instant? Intervals are counted
from an *anchor*: the instant at which the job was scheduled, or was to run first. The table's
column ``schedule`` holds a schedule as a short text (`Schedule.text`).
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

#: The last instant that a schedule can name: datetime and DATETIME both end with the year 9999.
END_OF_TIME = datetime.max.replace(tzinfo=UTC)

#: The longest exact interval, in seconds: 136 years, which the Go releases keep in 32 bits.
MAX_INTERVAL = 2**32 - 1

#: How far ahead a cron expression's next time is looked for, in years: cronsim's own limit. The
#: longest distance of two times is 40 years: that of 29 Februaries on one day of the week.
YEARS_AHEAD = 50

#: The smallest unit of instants and of elapsed time.
MICROSECOND = timedelta(microseconds=1)

_SECOND = timedelta(seconds=1)
_UTC = Zone()


@dataclass(frozen=True, slots=True)
class Once:
    """Runs once."""

    zone: Zone = _UTC
    text = ""

    def next_after(self, anchor: datetime, after: datetime) -> Occurrence | None:
        """There is no next run."""
        return None


@dataclass(frozen=True, slots=True)
class Every:
    """
    Runs each `interval`, which is elapsed time: a minute is sixty seconds, whatever clocks show.
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

        However many times there are up to `after`, they are passed over in one step.

        :return: None if the time would be past the year 9999.
        """
        passed = max(0, (after - anchor) // self.interval)
        try:
            return Occurrence(anchor + (passed + 1) * self.interval)
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True)
class Calendar:
    """
    Runs each `duration`, which has a calendar part. Years to days are counted on the wall clock of
    `zone`, hours to seconds are elapsed time added to that.

    Each run is counted from the anchor, so that ends of months do not drift: the months after
    31 January are 28 February, 31 March, 30 April.
    """

    duration: Duration
    zone: Zone = _UTC

    @property
    def text(self) -> str:
        return self.duration.text

    def next_after(self, anchor: datetime, after: datetime) -> Occurrence | None:
        """
        The first time ``anchor + n * duration`` (n >= 1) that is later than `after`.

        Bisection finds it in a few steps, however many times there are up to `after`.

        :return: None if the time would be past the year 9999.
        """
        try:
            start = self.zone.wall(anchor)
        except OverflowError:
            return None
        # The time with this number is past `after`, whatever clock changes there are.
        most = (after - anchor).days // (28 * self.duration.months + self.duration.days) + 5
        later = bisect_right(range(most), after, key=lambda n: self._earliest(start, n))
        # The time before may be in an overlap, with its second pass still to come.
        for n in count(max(1, later - 1)):
            times = self._times(start, n, self.zone)
            if times is None:
                break
            for found in times:
                if found.at > after:
                    return found
        return None

    def _earliest(self, start: datetime, n: int) -> datetime:
        """The `n`-th time by the rules shift and first. It grows with `n`, as bisection needs."""
        times = self._times(start, n, Zone(self.zone.location))
        return times[0].at if times else END_OF_TIME

    def _times(self, start: datetime, n: int, zone: Zone) -> list[Occurrence] | None:
        """The instants of the `n`-th time: none, one or two; None past the year 9999."""
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

    The expression has five fields, or six with seconds in front, as crontab(5) of Debian has it.
    The rules for clock changes are those of Debian's cron(8), unless the zone has others:

    | the minute or the hour begins with a star (a wildcard) | in a gap | in an overlap |
    | no, as `30 3 * * *` | runs at the clock change | runs in the first pass |
    | yes, as `0 * * * *` | does not run | runs in both passes: an hourly job makes no pause |

    :param text: as `cron_from_text` gives it.
    """

    text: str
    zone: Zone = _UTC

    def next_after(self, anchor: datetime, after: datetime) -> Occurrence | None:
        """
        The first time that is later than `after`. The anchor is not used.

        :return: None if there is no time within `YEARS_AHEAD` years, or before the year 9999.
        """
        zone = self.clock
        try:
            wall = zone.wall(after)
            change = zone.change(wall)
        except OverflowError:
            return None
        best = self._first(zone, wall, after)
        if change and zone.overlap in (Overlap.LAST, Overlap.BOTH):
            # Times that the first pass is past come once more in the second pass.
            again = self._first(zone, change.start - _SECOND, after)
            best = min((found for found in (best, again) if found), default=None)
        if best is None:
            return None
        return Occurrence(best.at, best.dst if self._is_named(zone, best) else None)

    @property
    def is_wildcard(self) -> bool:
        """Whether the minute or the hour begins with a star: the job has no particular time."""
        minute, hour = self.text.split()[-5:-3]
        return minute.startswith("*") or hour.startswith("*")

    @property
    def clock(self) -> Zone:
        """The zone with Debian's rules, unless a user has chosen others."""
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
            # The time is in a gap that is skipped, or in an overlap whose pass is over. Go on with
            # the wall times behind the gap or the overlap.
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
        """Whether the user should hear that a clock change moved or chose the time."""
        if found.dst is Dst.GAP:
            # Not if the time that it was moved to is one of the schedule's own.
            wall = zone.wall(found.at)
            return self._following(wall - _SECOND) != wall
        return not self.is_wildcard or self.zone.overlap is not None


Schedule = Once | Every | Calendar | Cron


@lru_cache(maxsize=4096)
def schedule_from_text(text: str, zone: Zone = _UTC) -> Schedule:
    """
    Read the text of a schedule, as `Schedule.text` wrote it.

    :param text: a cron expression (with spaces), a duration, or nothing for a one-off job.
    :raises ValueError: for another text. The message is a sentence on what was found.
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
    :param duration: positive, and at most `MAX_INTERVAL` seconds if it is exact.
    :raises ValueError: for another duration. The message follows on "it ...".
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
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    # Not strftime(), which leaves a year before 1000 unpadded. Nor isoformat() of it all: the zone
    # takes a third of the time, and each POST has such a header.
    return f"{instant.date().isoformat()}T{instant.time().isoformat('seconds')}Z"


def exact_timestamp(instant: datetime) -> str:
    """An instant in RFC 3339, UTC, with its fraction of a second if it has one."""
    return timestamp(instant).removesuffix("Z") + fraction_of_second(instant) + "Z"


def fraction_of_second(time: datetime) -> str:
    """A time's fraction of a second with the dot in front; empty for a whole second."""
    return f".{time.microsecond:06}".rstrip("0").rstrip(".")


def add(instant: datetime, delay: timedelta) -> datetime | None:
    """`instant` plus `delay`; None if that is outside the years 1 to 9999."""
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
