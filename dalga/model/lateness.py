"""
What is too late to begin, and which time of a job's grid is next, by its options. Pure.

"Now" comes in as an argument. What becomes of the job is decided in `run`.
"""

from __future__ import annotations

from datetime import datetime

from dalga.model.grid import Grid
from dalga.model.options import CatchUp, Options
from dalga.model.schedule import MICROSECOND
from dalga.model.zone import Occurrence


def is_too_late(options: Options, since: datetime, now: datetime) -> bool:
    return options.lateness is not None and now - since > options.lateness


def first_in_time(grid: Grid, scheduled: datetime, now: datetime) -> Occurrence | None:
    """The first time after one that is too late which is to come, or late but not too late."""
    lateness = grid.options.lateness
    assert lateness is not None
    # No earlier than the year 1, as the one that is too late comes before it.
    return grid.next_after(max(scheduled, now - lateness - MICROSECOND))


def next_time(grid: Grid, scheduled: datetime, now: datetime) -> Occurrence | None:
    """The time after one at which there was a run: the next regular one, unless all are made up."""
    made_up = grid.options.catch_up is CatchUp.ALL
    return grid.next_after(scheduled if made_up else max(scheduled, now))


def within(options: Options, time: Occurrence | datetime | None) -> datetime | None:
    """A run's time, unless it is past the last one that there may be."""
    at = time.at if isinstance(time, Occurrence) else time
    if at is None or (options.until is not None and at > options.until):
        return None
    return at
