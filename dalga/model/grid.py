"""
The times of a job: its schedule's times, from its first-run on, each later by its offset. Pure.

A grid does not know what time it is. Which of its times are too late, and which is next, is in
`lateness`.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from dalga.model.key import JobKey
from dalga.model.options import Options
from dalga.model.schedule import MICROSECOND, Calendar, Cron, Schedule, add
from dalga.model.zone import Occurrence

_BEGINNING = datetime.min.replace(tzinfo=UTC)


def offset_of(key: JobKey, options: Options) -> timedelta:
    """
    By how much each run of a job is later than its schedule's time.

    The offset is less than the job's jitter, in whole microseconds. It is the same for each run, in
    each instance and after each PUT: the jitter times the first 64 bits of the key's SHA-256,
    divided by 2^64. So jobs are spread evenly. The NUL tells ("a", "bc") from ("ab", "c"); no path
    has a NUL.
    """
    if options.jitter is None:
        return timedelta()
    digest = hashlib.sha256(f"{key.path}\0{key.body}".encode()).digest()
    return (options.jitter // MICROSECOND * int.from_bytes(digest[:8]) >> 64) * MICROSECOND


class Grid(NamedTuple):
    """
    The times of a job: its schedule's times, from its first-run on, each later by `offset`.

    To find the first time after an instant, the schedule is asked for its first time after that
    instant less the offset. So the job has one time for each of the schedule's, in the same order
    and at the same distances, also if the offset is longer than an interval.
    """

    schedule: Schedule
    options: Options
    #: The time that intervals are counted from.
    anchor: datetime
    offset: timedelta = timedelta()

    def next_after(self, after: datetime) -> Occurrence | None:
        """The first time that is later than `after`; None if there is none."""
        if not self.offset:
            return self._regular(after)
        found = self._regular(add(after, -self.offset) or _BEGINNING)
        at = found and add(found.at, self.offset)
        return Occurrence(at, found.dst) if found and at else None

    def _regular(self, after: datetime) -> Occurrence | None:
        """
        The first of the schedule's own times that is later than `after`.

        If a user triggers the job before its `first_run`, a calendar's and cron's times still begin
        at `first_run`. Elapsed time is counted from the triggered run.
        """
        begin = self.options.first_run
        if begin is None or begin <= after or not isinstance(self.schedule, Calendar | Cron):
            return self.schedule.next_after(self.anchor, after)
        if isinstance(self.schedule, Calendar):
            return Occurrence(begin)
        return self.schedule.next_after(begin, begin - MICROSECOND)
