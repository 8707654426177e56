"""
The times of a job: those of its schedule, from its first-run on, and later by its offset. Pure.

A grid knows nothing of now: which of its times are too late, and which is next, is in `lateness`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dalga.model.key import JobKey
from dalga.model.options import Options
from dalga.model.schedule import MICROSECOND, Calendar, Cron, Schedule, add
from dalga.model.zone import Occurrence

_BEGINNING = datetime.min.replace(tzinfo=UTC)


def offset_of(key: JobKey, options: Options) -> timedelta:
    """
    By how much a job's runs come later than its schedule's times: less than its jitter, to the
    microsecond, and the same each time, in each instance and after each PUT.

    It is that part of the jitter which the first 64 bits of the key's SHA-256 are of 2^64, so that
    jobs are spread evenly. The NUL keeps ("a", "bc") and ("ab", "c") apart; no path has one.
    """
    if options.jitter is None:
        return timedelta()
    digest = hashlib.sha256(f"{key.path}\0{key.body}".encode()).digest()
    return (options.jitter // MICROSECOND * int.from_bytes(digest[:8]) >> 64) * MICROSECOND


@dataclass(frozen=True, slots=True)
class Grid:
    """
    The times of a job: those of its schedule, from its first-run on, each later by `offset`.

    So they keep their order and their distances, there is one for each of the schedule's, and an
    offset that is longer than an interval does no harm. A schedule never hears of the offset: it is
    asked for what comes after an earlier time.
    """

    schedule: Schedule
    options: Options
    #: The time that intervals are counted from.
    anchor: datetime
    offset: timedelta = timedelta()

    def next_after(self, after: datetime) -> Occurrence | None:
        """The first time that is later than `after`; None where there is none."""
        found = self._regular(add(after, -self.offset) or _BEGINNING)
        at = found and add(found.at, self.offset)
        return Occurrence(at, found.dst) if found and at else None

    def _regular(self, after: datetime) -> Occurrence | None:
        """
        The same of the schedule's own times.

        A run that was asked for ahead of `first_run` does not make the times begin earlier. For
        elapsed time it does: that is counted from it.
        """
        begin = self.options.first_run
        if begin is None or begin <= after or not isinstance(self.schedule, Calendar | Cron):
            return self.schedule.next_after(self.anchor, after)
        if isinstance(self.schedule, Calendar):
            return Occurrence(begin)
        return self.schedule.next_after(begin, begin - MICROSECOND)
