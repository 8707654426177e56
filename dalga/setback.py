"""
Times that were written while the database's clock was ahead, once it has been set back.

A job of every 5 s that ran at 10:00:00 is scheduled for 10:00:05. If it was 9 o'clock in truth, and
the clock is set right then, the job would wait for an hour. So what is further ahead than this
daemon ever writes it is moved to where it would be written now:

- a run of an interval of elapsed time, to the first time of its grid that the clock shows;
- the next attempt of a run, to now;
- the end of a lease, to that of a lease that begins now.

A time that somebody has given stays as it is, as do times of the calendar and of cron: nobody can
tell whether they are meant. So does what waits no longer than two intervals, as after a clock that
was set back by a second: such a run may have been made already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from dalga.job import Failed, Job, Options, Reschedule, Run
from dalga.schedule import Every, Schedule


@dataclass(frozen=True, slots=True)
class Reach:
    """How far ahead of the database's time something is written at the most."""

    #: A lease's end.
    lease: timedelta
    #: The next attempt of a run.
    retry: timedelta
    #: By what intervals are multiplied at the most.
    variation: float = 1.0


class Times(NamedTuple):
    """The columns of a row that say when."""

    anchor: datetime
    scheduled: datetime
    due: datetime


def corrected(job: Job, now: datetime, reach: Reach) -> Times | None:
    """
    Where a job's times go, after the clock was set back; None where they stay.

    :param now: the database's time.
    """
    anchor, scheduled, due = job.anchor, job.scheduled, job.due
    if due is None or due <= now:
        return None
    if job.running:
        return Times(anchor, scheduled, now + reach.lease) if due - now > reach.lease else None
    if job.attempts:
        return Times(anchor, scheduled, now) if due - now > reach.retry else None
    has_run = job.successes or job.skipped or job.failed is not Failed.NO
    if due != scheduled or not (has_run or scheduled > anchor):
        return None  # the first run may well have been asked for at that time
    back = _back(job.schedule, job.options, scheduled, now, reach)
    try:
        return Times(anchor - back, scheduled - back, scheduled - back) if back else None
    except OverflowError:
        return None  # nobody has run before the year 1


def timely(run: Run, verdict: Reschedule, now: datetime, reach: Reach) -> Reschedule:
    """
    The same for what comes after a run during which the clock was set back.

    :param verdict: as `dalga.job.judge` gives it.
    """
    if run.claimed <= now:
        return verdict
    scheduled, anchor = verdict.scheduled, verdict.anchor
    back = _back(run.schedule, run.options, scheduled, now, reach)
    return replace(verdict, scheduled=scheduled - back, anchor=anchor - back) if back else verdict


def _back(
    schedule: Schedule, options: Options, scheduled: datetime, now: datetime, reach: Reach
) -> timedelta:
    """By how much a run that is waited for goes back: a whole number of intervals, or nothing."""
    first_run = options.first_run
    if not isinstance(schedule, Every) or (first_run is not None and first_run > now):
        return timedelta()
    if scheduled - now <= 2 * reach.variation * schedule.interval:
        return timedelta()
    back = (scheduled - now) // schedule.interval * schedule.interval
    return back if scheduled - back > now else back - schedule.interval
