"""
A clock that was set back: where the times go that were written while it was ahead. Pure.

A job of every 5 s that ran at 10:00:00 is scheduled for 10:00:05. The clock was an hour ahead, and
is set back to 09:00:00 now. Without a correction the job would wait for an hour.

If a time is further ahead than a daemon ever writes it, it is moved to where it would be written
now:

| a time | is moved to |
| a run of an interval of elapsed time | the first time of its grid after now |
| a run of cron, or of an interval of days and more | the first of its times after now |
| the next attempt of a run | now |
| a run that a user asked for during another run | now |
| the end of a lease | the end of a lease that begins now |

A clock that was set back shows some times twice. A job may have had its run at such a time already,
and is not to run at that time again. So these times stay:

| a time | stays |
| a run of elapsed time | if it is two intervals away or less (its first run: and its jitter) |
| a run of cron, with a star for the minute or the hour | if it is one of the next two times |
| a run of another cron, or of an interval of days and more | if it is no later than the first of
  its times after now and `WAS_WRONG` |
| a time that a user has given | always: nobody can tell by which clock it was meant |

So a job of 9:30 each day, which ran at 9:30, waits for the next day if the clock is set back from
9:40 to 9:00. If the clock is set back by more than `WAS_WRONG`, it was wrong before, and the job
goes by the new time. These are the rules of Debian's cron(8), "Daylight Saving Time and other time
changes".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from dalga.model.grid import Grid, offset_of
from dalga.model.job import Job, Standing
from dalga.model.retry import RetryPolicy
from dalga.model.run import End, Reschedule
from dalga.model.schedule import Cron, Every

#: A clock that is set back by more than this was wrong before. See the module's text.
WAS_WRONG = timedelta(hours=3)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far ahead of the database's time a daemon writes a time at the most."""

    #: The end of a lease.
    lease: timedelta
    #: The next attempt of a run, by the configuration. A job may have longer delays of its own.
    retry: RetryPolicy
    #: The largest factor by which an interval is multiplied.
    variation: float = 1.0


class Times(NamedTuple):
    """The columns of a row that hold its times."""

    anchor: datetime
    scheduled: datetime
    due: datetime


def corrected(job: Job, now: datetime, reach: Reach) -> Times | None:
    """
    A job's times after the clock was set back; None if they stay as they are.

    :param now: the database's time.
    """
    anchor, scheduled, due = job.anchor, job.scheduled, job.due
    if due is None:
        return None
    if job.running:
        return Times(anchor, scheduled, now + reach.lease) if due - now > reach.lease else None
    if job.attempts:
        longest = job.delivery.retry.over(reach.retry).longest
        return Times(anchor, scheduled, now) if due - now > longest else None
    if due != scheduled:
        return _asked_for(job, due, now)
    has_run = job.successes or job.skipped or job.standing is not Standing.SOUND
    if not (has_run or scheduled > anchor):
        return None  # a user may have given the time of the first run
    grid = Grid(job.schedule, job.options, anchor, offset_of(job.key, job.options))
    back = _back(grid, scheduled, now, reach)
    try:
        return Times(_anchor(grid, back), scheduled - back, scheduled - back) if back else None
    except OverflowError:
        return None  # there are no times before the year 1


def _asked_for(job: Job, due: datetime, now: datetime) -> Times | None:
    """
    `corrected` for a run that became due when the run before it ended, by the clock that was ahead.

    If a user asked for it during that run, it still runs at once. Otherwise it is a missed time
    that is made up for (`CatchUp.ALL`), and is due once its own time has come.
    """
    if due <= now:
        return None
    if job.waited:
        counts_from_it = isinstance(job.schedule, Every)
        return Times(now if counts_from_it else job.anchor, now, now)
    return Times(job.anchor, job.scheduled, max(job.scheduled, now))


def timely(end: End, now: datetime, reach: Reach) -> End:
    """
    The end of a run during which the clock was set back, with a corrected time of the next run.

    :param end: the end that `dalga.model.run.judge` gives.
    """
    run, verdict = end.run, end.verdict
    if run.claimed <= now or not isinstance(verdict, Reschedule):
        return end
    if end.outcome is not None and end.outcome.next_run is not None:
        return end  # a time that the endpoint has given
    grid = run.grid._replace(anchor=verdict.anchor)
    back = _back(grid, verdict.scheduled, now, reach)
    if not back:
        return end
    scheduled, anchor = verdict.scheduled - back, _anchor(grid, back)
    return end._replace(verdict=verdict._replace(scheduled=scheduled, anchor=anchor))


def _anchor(grid: Grid, back: timedelta) -> datetime:
    """The anchor after a run was moved back. Only intervals of elapsed time move their anchor."""
    return grid.anchor - back if isinstance(grid.schedule, Every) else grid.anchor


def _back(grid: Grid, scheduled: datetime, now: datetime, reach: Reach) -> timedelta:
    """By how much the pending run is moved back; 0 if it stays."""
    schedule, first_run = grid.schedule, grid.options.first_run
    if not isinstance(schedule, Every):
        first = _first_shown(grid, scheduled, now)
        return timedelta() if first is None else scheduled - first
    if first_run is not None and first_run > now:
        return timedelta()
    wait = scheduled - now
    if scheduled - grid.anchor <= schedule.interval + grid.offset:
        wait -= grid.offset  # the first run after a PUT or a POST is later by its offset
    if wait <= 2 * reach.variation * schedule.interval:
        return timedelta()
    back = wait // schedule.interval * schedule.interval
    return back if wait > back else back - schedule.interval


def _first_shown(grid: Grid, scheduled: datetime, now: datetime) -> datetime | None:
    """The first of a calendar's or cron's times after `now`; None if `scheduled` stays."""
    first = grid.next_after(now)
    if first is None:
        return None
    if isinstance(grid.schedule, Cron) and grid.schedule.is_wildcard:
        later = grid.next_after(first.at)
    else:
        later = grid.next_after(now + WAS_WRONG)
    return None if later is None or later.at >= scheduled else first.at
