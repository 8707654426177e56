"""
Times that were written while the database's clock was ahead, once it has been set back.

A job of every 5 s that ran at 10:00:00 is scheduled for 10:00:05. If it was 9 o'clock in truth, and
the clock is set right then, the job would wait for an hour. So what is further ahead than this
daemon ever writes it is moved to where it would be written now:

- a run of an interval of elapsed time, to the first time of its grid that the clock shows;
- a run of cron, or of an interval of days and more, to the first of its times that the clock shows;
- the next attempt of a run, and a run that somebody asked for during another, to now;
- the end of a lease, to that of a lease that begins now.

A run may have been made already at the time that the clock shows once more. Two rules keep it from
being made again for a small change:

- A run stays that is at most two intervals away (plus its jitter, before the first run), or that
  is one of the next two times of a cron expression. A clock set back by a second moves nothing.
- A particular time of the day, such as 9:30, stays unless the clock was set back by more than
  `WAS_WRONG`, which is a correction. That is the rule of Debian's cron(8), "Daylight Saving Time
  and other time changes"; what has a star for the minute or the hour goes by the new time at once.

A time that somebody has given stays as it is: nobody can tell whether it is meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from dalga.model.grid import Grid, offset_of
from dalga.model.job import Failed, Job
from dalga.model.run import End, Reschedule
from dalga.model.schedule import Cron, Every

#: A clock that is set back by more than this was wrong before, by cron(8) of Debian.
WAS_WRONG = timedelta(hours=3)


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
    if due is None:
        return None
    if job.running:
        return Times(anchor, scheduled, now + reach.lease) if due - now > reach.lease else None
    if job.attempts:
        return Times(anchor, scheduled, now) if due - now > reach.retry else None
    if due != scheduled:
        return _asked_for(job, due, now)
    has_run = job.successes or job.skipped or job.failed is not Failed.NO
    if not (has_run or scheduled > anchor):
        return None  # the first run may well have been asked for at that time
    grid = Grid(job.schedule, job.options, anchor, offset_of(job.key, job.options))
    back = _back(grid, scheduled, now, reach)
    try:
        return Times(_anchor(grid, back), scheduled - back, scheduled - back) if back else None
    except OverflowError:
        return None  # nobody has run before the year 1


def _asked_for(job: Job, due: datetime, now: datetime) -> Times | None:
    """
    The same for a run that became due when the one before it ended: by the clock that was ahead.

    Either somebody has asked for it during that run, and it is still to run at once; or it is one
    of many to make up for (`CatchUp.ALL`), and is due once its own time has come.
    """
    if due <= now:
        return None
    if job.waited:
        counts_from_it = isinstance(job.schedule, Every)
        return Times(now if counts_from_it else job.anchor, now, now)
    return Times(job.anchor, job.scheduled, max(job.scheduled, now))


def timely(end: End, now: datetime, reach: Reach) -> End:
    """
    The end of a run during which the clock was set back, with the next run where it goes then.

    :param end: as `dalga.model.run.judge` gives it.
    """
    run, verdict = end.run, end.verdict
    if run.claimed <= now or not isinstance(verdict, Reschedule):
        return end
    grid = replace(run.grid, anchor=verdict.anchor)
    back = _back(grid, verdict.scheduled, now, reach)
    if not back:
        return end
    scheduled, anchor = verdict.scheduled - back, _anchor(grid, back)
    return end._replace(verdict=replace(verdict, scheduled=scheduled, anchor=anchor))


def _anchor(grid: Grid, back: timedelta) -> datetime:
    """What intervals are counted from after a run has gone back: the calendar has its own times."""
    return grid.anchor - back if isinstance(grid.schedule, Every) else grid.anchor


def _back(grid: Grid, scheduled: datetime, now: datetime, reach: Reach) -> timedelta:
    """By how much a run that is waited for goes back; nothing where it stays."""
    schedule, first_run = grid.schedule, grid.options.first_run
    if not isinstance(schedule, Every):
        first = _first_shown(grid, scheduled, now)
        return timedelta() if first is None else scheduled - first
    if first_run is not None and first_run > now:
        return timedelta()
    wait = scheduled - now
    if scheduled - grid.anchor <= schedule.interval + grid.offset:
        wait -= grid.offset  # the first after a PUT or a POST waits for the jitter as well
    if wait <= 2 * reach.variation * schedule.interval:
        return timedelta()
    back = wait // schedule.interval * schedule.interval
    return back if wait > back else back - schedule.interval


def _first_shown(grid: Grid, scheduled: datetime, now: datetime) -> datetime | None:
    """The first of a calendar's or cron's times after `now`; None where `scheduled` stays."""
    first = grid.next_after(now)
    if first is None:
        return None
    if isinstance(grid.schedule, Cron) and grid.schedule.is_wildcard:
        later = grid.next_after(first.at)
    else:
        later = grid.next_after(now + WAS_WRONG)
    return None if later is None or later.at >= scheduled else first.at
