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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import NamedTuple

from dalga.errors import InvalidRequest
from dalga.model.histogram import DURATION_BOUNDS, LATENESS_BOUNDS, Histogram
from dalga.model.record import Result
from dalga.model.schedule import exact_timestamp

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


# Statistics: series of sums


class Group(StrEnum):
    """What the series of an answer are told apart by."""

    ENDPOINT = "endpoint"
    PATH = "path"
    RESULT = "result"


#: The steps that are taken where none is asked for: the first one that gives few enough points.
STEPS = tuple(
    timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 3 * 60, 12 * 60, 24 * 60, 7 * 24 * 60)
)
FEW = 300

#: How many points an answer has, at most, in all series together.
MAX_POINTS = 1500

#: How many sums are read for an answer, at most.
MAX_SUMS = 50_000

#: The longest step.
MAX_STEP = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class StatsQuery:
    """Which sums are asked for."""

    #: From when, and until when (exclusive); both aware, UTC. The first one is a whole step.
    begin: datetime
    end: datetime
    #: How long a time a point is of.
    step: timedelta
    #: None for one series of all runs.
    group: Group | None = None
    endpoint: str | None = None
    path: str | None = None

    @property
    def scope(self) -> Scope:
        """Which sums tell enough, and are the fewest."""
        by_path = self.path is not None or self.group is Group.PATH
        return Scope.PATH if by_path else Scope.ENDPOINT

    def series(self, endpoint: str, path: str, result: Result) -> str:
        """The name of the series that a sum belongs to."""
        match self.group:
            case Group.ENDPOINT:
                return endpoint
            case Group.PATH:
                return path
            case Group.RESULT:
                return result.value
        return ""


def stats_query(
    now: datetime,
    begin: datetime | None = None,
    end: datetime | None = None,
    step: timedelta | None = None,
    group: Group | None = None,
    endpoint: str | None = None,
    path: str | None = None,
) -> StatsQuery:
    """
    :param now: the database's time.
    :param begin: an hour before the end, if it is not given.
    :param end: now, if it is not given, or is still to come.
    :param step: as long as gives `FEW` points, if it is not given.
    :raises InvalidRequest: if that can't be answered.
    """
    end = now if end is None else min(end, now)
    begin = max(_EPOCH, begin or max(end, _EPOCH + HOUR) - HOUR)
    if begin >= end:
        raise InvalidRequest(
            f"from is {exact_timestamp(begin)}, which is not earlier than "
            f"{'now' if end == now else 'to'}, {exact_timestamp(end)}: give a from that is earlier"
        )
    oldest = floor(now - MINUTES_KEPT, HOUR) + HOUR
    has_minutes = begin >= oldest
    if step is None:
        step = _step(end - begin, HOUR if not has_minutes else MINUTE)
    _check_step(step)
    if step < HOUR and not has_minutes:
        raise InvalidRequest(
            f"step is {_words(step)}, and sums of less than an hour are kept for "
            f"{_words(MINUTES_KEPT)}: give a step of 1h or more, or a from that is not before "
            f"{exact_timestamp(oldest)}"
        )
    begin = floor(begin, step)
    points = -((begin - end) // step)
    if points > MAX_POINTS:
        raise InvalidRequest(
            f"from {exact_timestamp(begin)} to {exact_timestamp(end)} there are {points} times "
            f"{_words(step)}, and an answer has {MAX_POINTS} points at most: give a step of "
            f"{_words(_step_of(end - begin, MAX_POINTS))} or more, or less time"
        )
    return StatsQuery(begin, end, step, group, endpoint, path)


def too_many_points(query: StatsQuery) -> InvalidRequest:
    """The answer to a query whose series have more points than an answer may have."""
    return InvalidRequest(
        f"the series have more than {MAX_POINTS} points together: give a step that is longer than "
        f"{_words(query.step)}, less time, or what else leaves runs out (endpoint, path)"
    )


def too_many_sums(query: StatsQuery, until: datetime) -> InvalidRequest:
    """
    The answer to a query that would read more sums than it may.

    :param until: up to when `MAX_SUMS` would do.
    """
    enough = max(floor(until, MINUTE) - query.begin, MINUTE)
    return InvalidRequest(
        f"that takes more than {MAX_SUMS} sums to be read: give less time, such as "
        f"{_words(enough)}, or what else leaves sums out (endpoint, path, a group other than path)"
    )


def _check_step(step: timedelta) -> None:
    """:raises InvalidRequest: if there are no points of such a length."""
    unit = MINUTE if step < HOUR else HOUR
    if step % unit:
        raise InvalidRequest(
            f"step is {_words(step)}: it takes whole minutes up to an hour, and then whole hours"
        )


def _step(length: timedelta, least: timedelta) -> timedelta:
    """The first one of `STEPS` that gives few points; or one that does, whatever it is."""
    for step in STEPS:
        if step >= least and length <= FEW * step:
            return step
    return _step_of(length, FEW)


def _step_of(length: timedelta, points: int) -> timedelta:
    """The shortest step that gives so many points at most."""
    for unit in (MINUTE, HOUR):
        # One point more begins where the beginning is no whole step.
        step = -(-length // ((points - 1) * unit)) * unit
        if unit is HOUR or step < HOUR:
            return min(step, MAX_STEP)
    raise AssertionError


def _words(length: timedelta) -> str:
    """A duration as a parameter takes it."""
    for unit, letter in ((HOUR, "h"), (MINUTE, "m")):
        if length and not length % unit:
            return f"{length // unit}{letter}"
    return f"{length.total_seconds():g}s"
