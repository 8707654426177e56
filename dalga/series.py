"""
Series of sums, for `/stats`: read piece by piece, and added up to points.

A piece is a transaction that reads a few steps (minutes or hours), as many as have some `PIECE`
sums together. What always holds: no transaction reads more than that, unless one step alone has
more; an answer is made of at most `MAX_SUMS` sums and has at most `MAX_POINTS` points (P10), or is
refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from dalga.model.histogram import Histogram
from dalga.model.permit import Limits
from dalga.model.statistics import (
    HOUR,
    MAX_POINTS,
    MAX_SUMS,
    MINUTE,
    Scope,
    StatsQuery,
    Sum,
    floor,
    too_many_points,
    too_many_sums,
)
from dalga.store import Store, SumsAsked

#: About how many sums one transaction reads. It takes some 5 ms.
PIECE = 500

#: After a piece, others have the connection and the interpreter for so long, in seconds a sum. The
#: piece takes about as long (P7).
REST = 0.00001

#: How many steps a piece has at first, and at most. Where they have few sums, the next piece has
#: twice as many.
STEPS, MOST_STEPS = 16, 500

#: Points that are made of sums without a pause. It takes a millisecond.
AT_ONCE = 50


class Quantiles(NamedTuple):
    """Estimates in seconds; see `dalga.model.histogram`. None where nothing is known."""

    p50: float | None
    p90: float | None
    p99: float | None

    @classmethod
    def of(cls, histogram: Histogram) -> Quantiles:
        return cls(*(histogram.quantile(share) for share in (0.5, 0.9, 0.99)))


class Point(NamedTuple):
    """The runs of one step of a series."""

    #: When the step begins (aware, UTC).
    at: datetime
    runs: int
    attempts: int
    lateness: Quantiles
    duration: Quantiles


@dataclass(frozen=True, slots=True)
class Series:
    """An answer to a query."""

    query: StatsQuery
    #: By the name that `StatsQuery.series` gives, in its order: the points with runs, the first one
    #: in front.
    points: dict[str, list[Point]]


async def read_series(
    store: Store,
    reactor: IReactorTime,
    query: StatsQuery,
    endpoints: Collection[str],
    limits: Limits | None = None,
) -> Series:
    """
    :param endpoints: the names of all endpoints: the index of a path begins with one of these.
    :param limits: only the runs of jobs within these are counted; None for all.
    :raises InvalidRequest: if that takes too many sums, or gives too many points.
    :raises StoreUnavailable: if the database can't be reached.
    """
    found = await _Reading(store, reactor, query, _parts(query, endpoints, limits)).sums()
    points: dict[str, list[Point]] = {}
    for number, ((name, at), counted) in enumerate(sorted(found.items(), key=_place)):
        if number % AT_ONCE == AT_ONCE - 1:
            await deferLater(reactor, 0)  # what is due goes first (P7)
        points.setdefault(name, []).append(
            Point(
                at,
                counted.runs,
                counted.attempts,
                Quantiles.of(counted.lateness),
                Quantiles.of(counted.duration),
            )
        )
    return Series(query, points)


class _Part(NamedTuple):
    """Some of the sums that a query needs, which are read by themselves: a range of the index."""

    scope: Scope
    #: None for the sums of all endpoints.
    endpoint: str | None
    #: With what the paths begin; empty for all paths.
    prefix: str = ""


def _parts(query: StatsQuery, endpoints: Collection[str], limits: Limits | None) -> list[_Part]:
    """
    What is read for a query. No part reads a sum that is not counted, nor one of another part. So
    how long an answer takes, and whether it is refused as too long, says nothing about others.
    """
    named = sorted(endpoints) if query.endpoint is None else [query.endpoint]
    if limits is None:
        by_endpoint = query.path is not None and query.endpoint is None
        return [_Part(query.scope, each) for each in (named if by_endpoint else [query.endpoint])]
    if query.path is not None:
        return [_Part(Scope.PATH, each) for each in named if limits.have(query.path, each)]
    of_each = {each: limits.prefixes(each) for each in named}
    by_path = query.scope is Scope.PATH or any(of_each.values())
    scope = Scope.PATH if by_path else Scope.ENDPOINT
    return [
        _Part(scope, endpoint, prefix)
        for endpoint, prefixes in of_each.items()
        for prefix in (("",) if prefixes is None else prefixes)
    ]


def _place(item: tuple[tuple[str, datetime], Sum]) -> tuple[str, datetime]:
    return item[0]


class _Reading:
    """One answer's sums as they are read."""

    def __init__(
        self,
        store: Store,
        reactor: IReactorTime,
        query: StatsQuery,
        parts: Sequence[_Part],
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._query = query
        self._parts = parts
        self._found: dict[tuple[str, datetime], Sum] = {}
        self._rows = 0

    async def sums(self) -> dict[tuple[str, datetime], Sum]:
        """By the names of series, and where the points begin."""
        query = self._query
        if not self._parts:
            return {}
        oldest = await self._store.oldest_sums(self._parts[0].scope)
        if query.step >= HOUR and oldest.hour is not None:
            await self._read(HOUR, max(query.begin, oldest.hour))
        if oldest.minute is not None:
            await self._read(MINUTE, max(query.begin, oldest.minute))
        return self._found

    async def _read(self, step: timedelta, begin: datetime) -> None:
        """Read all sums of minutes, or of hours."""
        begin = floor(begin, step)
        times = [begin + step * number for number in range(-((begin - self._query.end) // step))]
        for part in self._parts:
            await self._read_times(step, times, part)

    async def _read_times(self, step: timedelta, times: list[datetime], part: _Part) -> None:
        size, first = STEPS, 0
        while first < len(times):
            some = times[first : first + size]
            asked = SumsAsked(
                self._query, step, some, part.scope, part.endpoint, PIECE, part.prefix
            )
            found = await self._store.sums(asked)
            if not found.is_whole and len(some) > 1:
                size = len(some) // 2
                continue
            if not found.is_whole:
                found = await self._store.sums(asked._replace(limit=MAX_SUMS - self._rows))
            self._rows += found.rows
            if not found.is_whole or self._rows > MAX_SUMS:
                raise too_many_sums(self._query, some[0])
            for place, counted in found.sums.items():
                if place in self._found:
                    self._found[place].add(counted)
                else:
                    self._found[place] = counted
            if len(self._found) > MAX_POINTS:
                raise too_many_points(self._query)
            first += len(some)
            if found.rows:
                await deferLater(self._reactor, REST * found.rows)
            if found.rows < PIECE // 4:
                size = min(2 * size, MOST_STEPS)
