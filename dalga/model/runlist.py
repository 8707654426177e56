"""
Which runs a list shows, in which order, and by which index a page of it is found. Pure.

The order of every list, newest first::

    runs under way on their first attempt       the first page only
    runs that failed and are not over           the shelf OPEN, by the ids of their jobs
    runs that have ended                        the shelves FAILED and FINE together, by the time at
                                                which the record was written

A page is one scan along one index, its *driver*: the rows that the index leads to are looked at one
after the other, and those to which the other filters apply are shown. Each driver has the shelf and
the time behind its key. So a list of failures looks at no success, whichever its driver is. An
example::

    path=mail&result=given_up     the driver is the index of paths; of the path's rows on the shelf
                                  FAILED, newest first, those that were given up are shown

What always holds: a page looks at a bounded number of rows, however many there are (P10), and each
record that is there while the pages are read is on one page.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from dalga.model.answers import Statuses
from dalga.model.attempt import ErrorKind
from dalga.model.permit import Limits, narrowed
from dalga.model.record import Record, Result, Shelf


class RunState(StrEnum):
    """What a run is doing that has not ended."""

    #: An attempt is under way: an instance has claimed it, and the lease has not ended.
    RUNNING = "running"
    #: An attempt failed, and the next one is still to come.
    RETRYING = "retrying"


class RunDriver(StrEnum):
    """The index along which a page is found."""

    #: Of jobs, by path and body.
    JOB = "job"
    #: Of paths.
    PATH = "path"
    #: Of shelves.
    SHELF = "shelf"


class RunPlace(NamedTuple):
    """Where a page ended: behind this row."""

    shelf: Shelf
    #: Microseconds since 1970 by the database's clock; 0 on the shelf OPEN.
    at: int
    #: The id of the job's row.
    job: int


#: Larger than any id: the place before all rows of the shelf OPEN.
MAX_ID = 2**63 - 1
BEFORE_OPEN = RunPlace(Shelf.OPEN, 0, MAX_ID)


class ShelfRange(NamedTuple):
    """The rows of one shelf that a list has still to look at, newest first."""

    shelf: Shelf
    #: No row is newer than this, in microseconds; None for all.
    until: int | None = None
    #: Of the rows of that very time, those whose job's id is less than this; None for all.
    below: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilters:
    """Which runs a list is of. A filter that is None or empty is not there."""

    path: str | None = None
    #: The path begins with this.
    prefix: str | None = None
    body: str | None = None
    endpoint: str | None = None
    #: Runs whose job has any of these tags now.
    tags: frozenset[str] = frozenset()
    #: Runs with any of these results, or in any of these states. Where both are empty, all runs.
    results: frozenset[Result] = frozenset()
    states: frozenset[RunState] = frozenset()
    #: Runs whose last answer had one of these.
    statuses: Statuses | None = None
    #: Runs whose last attempt failed in one of these ways.
    error_kinds: frozenset[ErrorKind] = frozenset()
    #: Runs whose record was written at this time or later, and before that time (aware, UTC). A run
    #: that has not ended is taken for one of now.
    since: datetime | None = None
    until: datetime | None = None
    #: The runs that whoever asks may see: those whose record has such a path and endpoint. None for
    #: all.
    limits: Limits | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the limits leave out all runs, as far as the filters tell."""
        if self.limits is None:
            return False
        if not self.limits.may_have(self.path, self.endpoint):
            return True
        return self.prefix is not None and not narrowed(self.limits.prefixes(), self.prefix)

    def let(self, record: Record) -> bool:
        """Whether a run is within the limits."""
        return self.limits is None or self.limits.have(record.path, record.endpoint)

    @property
    def driver(self) -> RunDriver:
        """The index that leads to the fewest rows, as far as the filters tell."""
        if self.path is None:
            return RunDriver.SHELF
        return RunDriver.PATH if self.body is None else RunDriver.JOB

    @property
    def ended(self) -> tuple[Shelf, ...]:
        """The shelves that have the runs of the list which have ended."""
        if self.states and not self.results:
            return ()
        shelves = {result.shelf for result in self.results or Result}
        if self.error_kinds:
            shelves -= {Shelf.FINE}  # their last attempt did not fail
        return tuple(sorted(shelves, reverse=True))

    def shows(self, state: RunState, now: datetime) -> bool:
        """
        Whether runs in a state may be in the list, by the filters that go by neither the job nor
        the attempts.

        :param now: the database's time (aware, UTC).
        """
        if (self.results or self.states) and state not in self.states:
            return False
        return (self.since is None or self.since <= now) and (
            self.until is None or now < self.until
        )

    @property
    def shows_first_attempts(self) -> bool:
        """Whether a run is in the list of which nothing is known but its job and its claim."""
        return self.statuses is None and not self.error_kinds

    def ranges(self, after: RunPlace | None, now: datetime) -> list[list[ShelfRange]]:
        """
        What is left of the shelves. Ranges of one list are gone through together, by their times.

        :param after: None for all.
        :param now: the database's time (aware, UTC).
        """
        if after is not None and after.shelf is not Shelf.OPEN:
            return [[_behind(after, shelf) for shelf in self.ended]]
        below = None if after is None else after.job
        shows_open = any(self.shows(state, now) for state in RunState)
        open_ranges = [ShelfRange(Shelf.OPEN, 0, below)] if shows_open else []
        ended = [ShelfRange(shelf) for shelf in self.ended]
        return [ranges for ranges in (open_ranges, ended) if ranges]


def _behind(after: RunPlace, shelf: Shelf) -> ShelfRange:
    """The rows of a shelf behind a place, maybe on the other shelf."""
    if shelf == after.shelf:
        return ShelfRange(shelf, after.at, after.job)
    # Of records of the same time, those on the later shelf come first.
    return ShelfRange(shelf, after.at - 1 if shelf > after.shelf else after.at)


#: All runs.
ALL_RUNS = RunFilters()


@dataclass(frozen=True, slots=True)
class RunQuery:
    """A page of a list of runs."""

    filters: RunFilters = ALL_RUNS
    #: Where the page before this one ended; None for the first page.
    after: RunPlace | None = None
    #: How many runs it has at most, 1 or more.
    limit: int = 100


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run of a list, or one by itself."""

    record: Record
    #: None for a run that has ended.
    state: RunState | None = None
    #: When the next attempt is due (aware, UTC); None unless the run is `RETRYING`.
    next_attempt: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some of the runs of a list."""

    #: In the order of the list.
    runs: list[ListedRun]
    #: Where the page ended; None if there are no more runs behind it.
    last: RunPlace | None
    #: Whether it ended with fewer runs than were asked for, as it had looked at many others, or for
    #: long.
    partial: bool = False
