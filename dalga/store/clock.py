"""
The database's clock, as far as it can be known between two queries (P8).

`steady_seconds` is what the daemon measures durations with: it goes on while the machine sleeps and
can't be set. The wall clock of the machine is used for nothing but the log's timestamps, and to say
how far it is from the database's clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

#: A reading gives way to any newer one once it is this old, in seconds: clocks drift, and are set.
FRESH = 10.0

#: A clock that goes back by more than this was set back. The clocks of a cluster's servers differ
#: by less, and NTP corrects a clock by less.
SET_BACK = timedelta(seconds=1)


def steady_seconds() -> float:
    """Seconds since a fixed moment, suspended time included (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


if not hasattr(time, "CLOCK_BOOTTIME"):  # not Linux
    steady_seconds = time.monotonic


def wall_clock() -> datetime:
    """The time by the clock of this machine, aware UTC."""
    return datetime.now(UTC)


class _Reading(NamedTuple):
    """The database's time, and when the query that read it was sent and answered (seconds)."""

    time: datetime
    sent: float
    received: float

    def at(self, seconds: float) -> datetime:
        return self.time + timedelta(seconds=seconds - self.received)


class DatabaseClock:
    """
    The database's time now, from readings that queries brought along.

    A reading was taken between sending its query and receiving its answer. Counting it as of the
    receipt makes the estimate late by at most that round trip, and never early: a timer set by it
    finds its job due. The reading with the shortest round trip of the last seconds is used.

    :param seconds: a steady clock; it is called from the database threads too.
    :param wall_clock: the clock of this machine: an aware UTC datetime.
    """

    def __init__(
        self, seconds: Callable[[], float], wall_clock: Callable[[], datetime] = wall_clock
    ) -> None:
        self.seconds = seconds
        self._wall_clock = wall_clock
        #: In one attribute, so that any thread may ask for the time.
        self._best: _Reading | None = None
        #: How often it was found that the database's clock has been set back.
        self.set_backs = 0

    def observe(self, reading: datetime, sent: float, received: float) -> None:
        """
        :param reading: the database's time, aware UTC.
        :param sent: when the query was sent, in seconds of `seconds`.
        :param received: when its answer was there.
        """
        best, trip = self._best, received - sent
        if best is None:
            self._best = _Reading(reading, sent, received)
            return
        #: By how much the estimate is ahead of the reading, when that was received.
        ahead = (best.time - reading).total_seconds() + (received - best.received)
        if ahead - trip > SET_BACK.total_seconds():
            self.set_backs += 1
        if (
            trip <= best.received - best.sent
            or received - best.received > FRESH
            # The estimate is outside what this reading allows: the database's clock was set.
            or not 0.0 <= ahead <= trip
        ):
            self._best = _Reading(reading, sent, received)

    def now(self) -> datetime:
        """
        The database's time, aware UTC.

        :raises RuntimeError: before the first reading.
        """
        return self.at(self.seconds())

    @property
    def offset(self) -> float:
        """The database's time minus that of this machine's clock, in seconds."""
        return (self.now() - self._wall_clock()).total_seconds()

    def until(self, instant: datetime) -> float:
        """Seconds from now until `instant`, negative once it is past."""
        return (instant - self.now()).total_seconds()

    def at(self, seconds: float) -> datetime:
        """
        The same for another moment, in seconds of `seconds`.

        :raises RuntimeError: before the first reading.
        """
        if self._best is None:
            raise RuntimeError("the database's time has not been read yet")
        return self._best.at(seconds)
