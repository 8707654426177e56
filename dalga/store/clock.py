"""
The database's clock, as far as it can be known between two queries (P8).

`steady_seconds` is what the daemon measures durations with: it goes on while the machine sleeps and
can't be set. The wall clock of the machine is used for nothing but the log's timestamps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

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


class DatabaseClock:
    """
    The database's time now, from readings that queries brought along.

    A reading was taken between sending its query and receiving its answer. Counting it as of the
    receipt makes the estimate late by at most that round trip, and never early: a timer set by it
    finds its job due. The reading with the shortest round trip of the last seconds is used.

    :param seconds: a steady clock; it is called from the database threads too.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self._reading: datetime | None = None
        self._sent = 0.0
        self._received = 0.0
        #: How often it was found that the database's clock has been set back.
        self.set_backs = 0

    def observe(self, reading: datetime, sent: float, received: float) -> None:
        """
        :param reading: the database's time, aware UTC.
        :param sent: when the query was sent, in seconds of `seconds`.
        :param received: when its answer was there.
        """
        if self._reading is not None and self._at(sent) - reading > SET_BACK:
            self.set_backs += 1
        if (
            self._reading is None
            or received - sent <= self._received - self._sent
            or received - self._received > FRESH
            # The estimate is outside what this reading allows: the database's clock was set.
            or not reading <= self._at(received) <= reading + timedelta(seconds=received - sent)
        ):
            self._reading, self._sent, self._received = reading, sent, received

    def now(self) -> datetime:
        """
        The database's time, aware UTC.

        :raises RuntimeError: before the first reading.
        """
        return self._at(self.seconds())

    def until(self, instant: datetime) -> float:
        """Seconds from now until `instant`, negative once it is past."""
        return (instant - self.now()).total_seconds()

    def _at(self, seconds: float) -> datetime:
        if self._reading is None:
            raise RuntimeError("the database's time has not been read yet")
        return self._reading + timedelta(seconds=seconds - self._received)
