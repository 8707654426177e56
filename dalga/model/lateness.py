"""
Which run is too late to begin, and which time of a job's grid is next, by the job's options. Pure.

"Now", the database's time, is an argument. `run` decides what becomes of the job.
"""

from __future__ import annotations

from datetime import datetime

from dalga.model.grid import Grid
from dalga.model.options import CatchUp, Options
from dalga.model.schedule import MICROSECOND
from dalga.model.zone import Occurrence


def is_too_late(options: Options, since: datetime, now: datetime) -> bool:
    """Whether a run that could have begun at `since` is too late to begin now."""
    return options.lateness is not None and now - since > options.lateness


def first_in_time(grid: Grid, scheduled: datetime, now: datetime) -> Occurrence | None:
    """
    The first time that is not too late to run.

    :param scheduled: an earlier time, which is too late.
    """
    lateness = grid.options.lateness
    assert lateness is not None
    # `now` less the lateness is in the year 1 or later, as `scheduled` is before it.
    return grid.next_after(max(scheduled, now - lateness - MICROSECOND))


def next_time(grid: Grid, scheduled: datetime, now: datetime) -> Occurrence | None:
    """
    The next time of a job that has had its run at `scheduled`.

    It is the first time after `now`. With catch-up=all it is the first time after `scheduled`, even
    if that has gone by.
    """
    made_up = grid.options.catch_up is CatchUp.ALL
    return grid.next_after(scheduled if made_up else max(scheduled, now))


def within(options: Options, time: Occurrence | datetime | None) -> datetime | None:
    """A run's time; None if it is later than `until`."""
    at = time.at if isinstance(time, Occurrence) else time
    if at is None or (options.until is not None and at > options.until):
        return None
    return at
