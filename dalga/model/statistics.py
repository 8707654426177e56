"""
Sums of runs: how many there were in a minute or an hour, how late, and how long. Pure.

A *sum* is of the runs that ended in one step (a minute or an hour, by the database's clock), and
that have the same endpoint, path and result. An example, of a minute with five runs on two paths::

    scope      endpoint   path      result       runs   attempts   lateness    duration
    ENDPOINT   default              succeeded       4          4   1:3 2:1     20:4
    ENDPOINT   default              given_up        1          5   5:1         1000:1
    PATH       default    /mail     succeeded       4          4   1:3 2:1     20:4
    PATH       default    /report   given_up        1          5   5:1         1000:1

Each run is in a sum of both scopes. Those of the scope PATH are of the busiest paths of their
minute, `BUSIEST` at most; the rest of the paths have one sum together, whose path is empty.

What always holds: sums can be added up, those of several instances, and those of minutes to those
of an hour.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple

from dalga.model.histogram import DURATION_BOUNDS, LATENESS_BOUNDS, Histogram
from dalga.model.record import Result

#: How many paths have sums of their own in a minute, per instance.
BUSIEST = 100

#: The steps that are kept.
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)

#: Sums of minutes that are older become sums of hours.
MINUTES_KEPT = timedelta(days=2)

#: Sums of hours that are older are removed.
HOURS_KEPT = timedelta(days=30)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Scope(IntEnum):
    """What a sum is of; the table has the numbers."""

    ENDPOINT = 0
    PATH = 1


class SumKey(NamedTuple):
    """Which runs a sum is of."""

    scope: Scope
    #: `MINUTE` or `HOUR`.
    step: timedelta
    #: Where the step begins (aware, UTC).
    at: datetime
    endpoint: str
    #: Empty in the scope ENDPOINT, and for the rest of the paths.
    path: str
    result: Result


class Sum:
    """
    What is counted of runs.

    :param attempts: of these runs, all attempts.
    :param lateness: from a run's time to the start of its first POST. Of a run that was skipped, or
        of which no first POST is known, there is none.
    :param duration: of the POST that ended a run, from its start to its end.
    """

    __slots__ = ("attempts", "duration", "lateness", "runs")

    def __init__(
        self,
        runs: int = 0,
        attempts: int = 0,
        lateness: Histogram | None = None,
        duration: Histogram | None = None,
    ) -> None:
        self.runs = runs
        self.attempts = attempts
        self.lateness = Histogram(LATENESS_BOUNDS) if lateness is None else lateness
        self.duration = Histogram(DURATION_BOUNDS) if duration is None else duration

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sum):
            return NotImplemented
        ours = self.runs, self.attempts, self.lateness, self.duration
        return ours == (other.runs, other.attempts, other.lateness, other.duration)

    def __repr__(self) -> str:
        return f"Sum({self.runs}, {self.attempts}, {self.lateness!r}, {self.duration!r})"

    def add(self, other: Sum) -> None:
        """Count the runs of another sum, too."""
        self.runs += other.runs
        self.attempts += other.attempts
        self.lateness.merge(other.lateness)
        self.duration.merge(other.duration)


class MinuteSums(NamedTuple):
    """What is to be written of one minute of an instance."""

    at: datetime
    #: Whose sums these are: the instance's name.
    instance: str
    #: Sums, each of all runs so far. They take the place of what was written under their keys.
    rows: list[tuple[SumKey, Sum]]
    #: Keys of rows that may have been written before, and that are to be removed.
    gone: list[SumKey]


def floor(instant: datetime, step: timedelta) -> datetime:
    """The latest whole step that is not later; steps are counted from 1970, in UTC."""
    return instant - (instant - _EPOCH) % step


def by_hour(rows: Iterable[tuple[SumKey, Sum]]) -> dict[SumKey, Sum]:
    """Sums of any steps, added up to those of hours."""
    hours: dict[SumKey, Sum] = {}
    for key, counted in rows:
        hour = key._replace(step=HOUR, at=floor(key.at, HOUR))
        hours.setdefault(hour, Sum()).add(counted)
    return hours
