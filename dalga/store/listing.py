"""
Lists of jobs, a page at a time. `dalga.model.listing` says which jobs, and by which index.

A page whose filters its index serves reads the rows that it shows, and no others. With further
filters it looks at slices of the index, one after the other, until the page is full, or `SCANNED`
rows have been looked at, or `PATIENCE` is over. In the last two cases it is a partial page, which
ended at the last row that was looked at. A slice takes two statements::

    its rows    SELECT ... FROM (the ids of the slice, by the index alone) JOIN the jobs by id
                WHERE the further filters
    its end     the place of its last row, by the index alone

What always holds: no statement passes over, or sorts, more rows than a slice has (P7, P10).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from dalga.model.job import Job, UnreadableJob
from dalga.model.listing import Filters, Page, Place, Query
from dalga.store.clock import steady_seconds
from dalga.store.details import DetailRows
from dalga.store.dialect import Cursor, Dialect
from dalga.store.extras import NO_DETAILS, Details, fitting, is_detailed, weight_of
from dalga.store.ranges import Ranges
from dalga.store.rows import Override, read_job, shown_key
from dalga.store.selected import JobRow, PageRow
from dalga.store.transactions import Transactions

#: A page begins no slice after it has looked at this many rows in whole slices. (Beside a whole
#: slice, it may have looked at the rest of a path, which was less than a slice.)
SCANNED = 2_000

#: A page begins no slice after this time, in seconds of the steady clock. On SQLite a claim may
#: wait for a page that is under way.
PATIENCE = 0.005

#: How many rows the first slice has at least, and another one at most, unless the page has more.
FIRST, SLICE = 100, 250

#: The details of one page, in octets. A page ends before a job whose details would be more.
PAGED = 2**20


class _Shown(NamedTuple):
    """A job on the page."""

    row: PageRow
    job: Job | UnreadableJob


class _Found(NamedTuple):
    """What becomes a `Page`, without the jobs' details."""

    shown: list[_Shown]
    last: Place | None
    partial: bool = False


class Listed(NamedTuple):
    """A job of a walk, without its details."""

    job: Job | UnreadableJob
    #: Of its definition: see `Job.version`.
    version: Any
    #: Where it is in the order of the walk.
    place: Place


class Walked(NamedTuple):
    """A part of a list that somebody goes through who acts on the jobs."""

    jobs: list[Listed]
    #: Where it ended; None if there are no more jobs behind it.
    last: Place | None


class Listing:
    """
    :param lane: the transactions of the API.
    :param details: of the jobs on the page.
    :param steady: the steady clock, in seconds.
    """

    def __init__(
        self,
        dialect: Dialect,
        lane: Transactions,
        details: DetailRows,
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        self._dialect = dialect
        self._lane = lane
        self._details = details
        self._steady = steady

    def page(self, query: Query) -> Deferred[Page]:
        """See `Store.page`."""
        return self._lane.run(partial(self._page, query), "list")

    def walk(self, query: Query, cursor: Cursor, now: datetime) -> Walked:
        """The jobs of a page, within a transaction of the caller."""
        index = Ranges(self._dialect, query.filters, now)
        found = self._found(query, index, cursor, now)
        jobs = [
            Listed(each.job, each.row.job.version, index.place(each.row)) for each in found.shown
        ]
        return Walked(jobs, found.last)

    def _page(self, query: Query, cursor: Cursor, now: datetime, since: float) -> Page:
        index = Ranges(self._dialect, query.filters, now)
        found = self._found(query, index, cursor, now)
        # The page ends early where its details would be too much (P10).
        some = fitting([weight_of(each.row.job.extras) for each in found.shown], PAGED)
        if some < len(found.shown):
            found = _Found(found.shown[:some], index.place(found.shown[some - 1].row), True)
        jobs = self._with_details(found.shown, query.filters, cursor, now)
        return Page(list(jobs), found.last, found.partial)

    def _with_details(
        self, shown: list[_Shown], filters: Filters, cursor: Cursor, now: datetime
    ) -> Iterator[Job | UnreadableJob]:
        """
        The jobs with their details. Those with some are shown as they are by now, unless they are
        gone, or the list is of them no more.
        """
        detailed = [each.row.job.id for each in shown if is_detailed(each.row.job.extras)]
        whole = self._details.read_whole(cursor, detailed)
        for each in shown:
            if not is_detailed(each.row.job.extras):
                yield each.job
            elif each.row.job.id in whole:
                row, details = whole[each.row.job.id]
                job = self._read(row, now, details)
                if row.override != Override.DELETED and filters.fit_anew(job, now):
                    yield job

    def _found(self, query: Query, index: Ranges, cursor: Cursor, now: datetime) -> _Found:
        limit, until = query.limit, self._steady() + PATIENCE
        ranges = deque(index.ranges(query.after))
        shown: list[_Shown] = []
        scanned, size = 0, max(limit + 1, FIRST)
        while ranges:
            wanted = limit + 1 - len(shown)
            rows = index.rows(ranges[0], size, wanted).fetch(cursor)
            shown += self._shown(query.filters, rows, now)
            if len(shown) > limit:
                return _Found(shown[:limit], index.place(shown[limit - 1].row))
            place: Place | None = None
            if len(rows) == wanted:
                place = index.place(rows[-1])  # some of them are not shown
            elif index.leaves_out:
                ends = index.end(ranges[0], size).fetch(cursor)
                place = index.place_of_end(ends[0]) if ends else None
            if place is None:
                ranges.popleft()  # it had no more rows than these
                continue
            scanned += size
            if scanned >= SCANNED or self._steady() >= until:
                return _Found(shown, place, partial=len(shown) < limit)
            ranges = deque(index.ranges(place))
            size = min(4 * size, SLICE, SCANNED - scanned)
        return _Found(shown, None)

    def _shown(self, filters: Filters, rows: Iterable[PageRow], now: datetime) -> Iterator[_Shown]:
        for row in rows:
            job = self._read(row.job, now)
            if filters.fit(job, now):
                yield _Shown(row, job)

    def _read(
        self, row: JobRow, now: datetime, details: Details | ValueError = NO_DETAILS
    ) -> Job | UnreadableJob:
        key = shown_key(row.path, row.body)
        return read_job(row, key, now, self._dialect.read_instant, details)
