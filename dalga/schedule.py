"""
When a job runs. Pure arithmetic on aware UTC datetimes: no clock, no I/O.

A schedule answers one question: which time comes after a time? It is stored as a short text
(`Schedule.text`), which is what the table's ``interval`` column holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

#: The last instant that a schedule can name; year 9999 is where datetime and DATETIME both end.
END_OF_TIME = datetime.max.replace(tzinfo=UTC)

#: The longest interval, in seconds: that of a 32-bit count (136 years), as in the Go releases.
MAX_INTERVAL = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Once:
    """Runs once; nothing comes after."""

    text = ""
    seconds = 0

    def next_after(self, scheduled: datetime, now: datetime) -> datetime | None:
        """There is no next run."""
        return None


@dataclass(frozen=True, slots=True)
class Every:
    """
    Runs each `interval`, counted from the scheduled time of the run before, so it does not drift.

    The interval is elapsed time: a minute is sixty seconds whatever the clocks on the wall do.
    """

    interval: timedelta

    @property
    def seconds(self) -> int:
        return round(self.interval.total_seconds())

    @property
    def text(self) -> str:
        return str(self.seconds)

    def next_after(self, scheduled: datetime, now: datetime) -> datetime | None:
        """
        The first time of the grid ``scheduled + n * interval`` (n >= 1) that is later than `now`.

        Times that went by meanwhile are passed over in one step, however many they are.

        :return: an aware UTC datetime; None where it would be past the year 9999.
        """
        missed = max(0, (now - scheduled) // self.interval)
        try:
            return scheduled + (missed + 1) * self.interval
        except OverflowError:
            return None


Schedule = Once | Every


def schedule_from_text(text: str) -> Schedule:
    """
    Read back what `Schedule.text` wrote.

    :raises ValueError: with a sentence on what was found instead.
    """
    if text == "":
        return Once()
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 0 < int(text) <= MAX_INTERVAL:
        raise ValueError(
            f"interval is {text[:40]!r}: it takes whole seconds from 1 to {MAX_INTERVAL}, "
            "or nothing for a one-off job"
        )
    return Every(timedelta(seconds=int(text)))


def timestamp(instant: datetime) -> str:
    """An instant in RFC 3339, UTC, cut off to whole seconds."""
    # Not strftime(), which leaves a year before 1000 unpadded.
    return instant.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def add(instant: datetime, delay: timedelta) -> datetime | None:
    """`instant` plus `delay`, or None where that is past the year 9999."""
    try:
        return instant + delay
    except OverflowError:
        return None
