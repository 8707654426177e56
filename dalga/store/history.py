"""
The history of runs, read: lists a page at a time, single runs, the last runs of jobs.

As in `dalga.store.listing`, a page looks at slices of an index, one after the other, until it is
full, or `SCANNED` rows have been looked at, or `PATIENCE` is over. In the last two cases it is a
partial page, which ended at the last row that was looked at.

What always holds: no statement passes over, or sorts, more rows than a slice has (P7, P10).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from dalga.model.key import RawKey
from dalga.model.record import Record, Shelf, job_key
from dalga.model.runid import RunId, run_not_found
from dalga.model.runlist import (
    BEFORE_OPEN,
    ListedRun,
    RunFilters,
    RunPage,
    RunPlace,
    RunQuery,
    RunState,
)
from dalga.store.clock import steady_seconds
from dalga.store.dialect import Cursor, Dialect
from dalga.store.listing import FIRST, PATIENCE, SCANNED, SLICE
from dalga.store.parameters import Select, columns
from dalga.store.records import ended_run, open_run, running_run, with_answer
from dalga.store.runranges import (
    LEASED,
    RECORD,
    OpenRow,
    RecordRow,
    RunningRow,
    RunRanges,
    WholeRecordRow,
)
from dalga.store.schema import RUNS
from dalga.store.transactions import Transactions

#: How many records of one run are read, at most. A run has several where a user triggers a job that
#: has stopped on that run.
OF_ONE_RUN = 10


class _Shown(NamedTuple):
    """A run on the page."""

    run: ListedRun
    place: RunPlace


class History:
    """
    :param lane: the transactions of the API.
    :param steady: the steady clock, in seconds.
    """

    def __init__(
        self,
        dialect: Dialect,
        lane: Transactions,
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        self._dialect = dialect
        self._lane = lane
        self._steady = steady
        self._table = dialect.named(RUNS)

    # Lists

    def page(self, query: RunQuery) -> Deferred[RunPage]:
        """See `Store.runs`."""

        def work(cursor: Cursor, now: datetime, since: float) -> RunPage:
            return self.walk(query, cursor, now)

        return self._lane.run(work, "runs")

    def walk(self, query: RunQuery, cursor: Cursor, now: datetime) -> RunPage:
        """See `Store.runs`. Within a transaction of the caller."""
        limit, filters, until = query.limit, query.filters, self._steady() + PATIENCE
        if filters.is_empty:
            return RunPage([], None)
        index = RunRanges(self._dialect, filters, now)
        groups = deque(filters.ranges(query.after, now))
        shown: list[_Shown] = []
        if query.after is None:
            shown += self._under_way(cursor, index, filters, now, limit + 1)
        scanned, size = 0, max(limit + 1, FIRST)
        while groups and len(shown) <= limit:
            wanted = limit + 1 - len(shown)
            rows = index.rows(groups[0], size, wanted).fetch(cursor)
            shown += self._of_rows(index, filters, rows, now)
            if len(shown) > limit:
                break
            place: RunPlace | None = None
            if len(rows) == wanted:
                place = index.place(_record_of(rows[-1]))  # some of them are not shown
            else:
                ends = index.end(groups[0], size).fetch(cursor)
                place = index.place(ends[0]) if ends else None
            if place is None:
                groups.popleft()  # it had no more rows than these
                continue
            scanned += size
            if scanned >= SCANNED or self._steady() >= until:
                return RunPage([each.run for each in shown], place, len(shown) < limit)
            groups = deque(filters.ranges(place, now))
            size = min(4 * size, SLICE, SCANNED - scanned)
        last = shown[limit - 1].place if len(shown) > limit else None
        return RunPage([each.run for each in shown[:limit]], last)

    def _under_way(
        self, cursor: Cursor, index: RunRanges, filters: RunFilters, now: datetime, limit: int
    ) -> Iterator[_Shown]:
        """The runs that have no record yet: of the `SCANNED` jobs that are due soonest."""
        if not (filters.shows(RunState.RUNNING, now) and filters.shows_first_attempts):
            return
        for row in index.running(SCANNED, limit).fetch(cursor):
            run = running_run(row, self._dialect.read_instant)
            if run is None or not filters.let(run.record):
                continue
            if filters.endpoint in (None, run.record.endpoint):
                yield _Shown(run, BEFORE_OPEN)

    def _of_rows(
        self, index: RunRanges, filters: RunFilters, rows: Iterable[Any], now: datetime
    ) -> Iterator[_Shown]:
        for row in rows:
            run = self._read(row)
            if run is None or not filters.let(run.record):
                continue
            if run.state is None or filters.shows(run.state, now):
                yield _Shown(run, index.place(_record_of(row)))

    def _read(self, row: OpenRow | RecordRow) -> ListedRun | None:
        if isinstance(row, OpenRow):
            return open_run(row, self._dialect.read_instant)
        return ended_run(row, self._dialect.read_instant)

    # Single runs

    def run(self, run_id: RunId) -> Deferred[ListedRun]:
        """See `Store.run`."""

        def work(cursor: Cursor, now: datetime, since: float) -> ListedRun:
            return self.found(cursor, run_id, now)

        return self._lane.run(work, "run")

    def found(self, cursor: Cursor, run_id: RunId, now: datetime) -> ListedRun:
        """See `Store.run`. Within a transaction of the caller."""
        found = self.find(cursor, run_id, now)
        if found is None:
            raise run_not_found(run_id)
        return found

    def find(self, cursor: Cursor, run_id: RunId, now: datetime) -> ListedRun | None:
        """
        A run with all that is known of it; None if there is no record of it, and it is not under
        way. Within a transaction of the caller.
        """
        values = {"run": run_id.token, "job": run_id.row}
        held = self._held.fetch(cursor, now=self._dialect.instant(now), **values)
        # Where there are several, the one on the shelf OPEN is the newest.
        rows = self._of_run.fetch(cursor, **values)
        for row in rows:
            run: ListedRun | None
            if row.record.failed != Shelf.OPEN:
                run = ended_run(row.record, self._dialect.read_instant)
            elif held:
                due, leased = held[0].due, held[0].leased
                run = open_run(OpenRow(row.record, due, leased), self._dialect.read_instant)
            else:
                continue
            # A run whose job had stopped on it may be under way once more.
            if run is not None and not (held and held[0].leased and run.state is None):
                return with_answer(run, row.answer)
        for each in held:
            if each.leased:
                return running_run(each.row, self._dialect.read_instant)
        return None

    @cached_property
    def _of_run(self) -> Select[WholeRecordRow]:
        return self._select(
            WholeRecordRow.read,
            f"""
            SELECT {RECORD}, kept.answer AS answer
            FROM {self._table} AS kept{self._dialect.by_index("run")}
            WHERE kept.run = %(run)s AND kept.job = %(job)s
            ORDER BY CASE kept.failed WHEN {Shelf.OPEN:d} THEN 1 ELSE 0 END DESC, kept.at DESC
            LIMIT {OF_ONE_RUN}
            """,
        )

    @cached_property
    def _held(self) -> Select[_HeldRow]:
        """The row of a job whose pending run, or run under way, is this one."""
        return self._select(
            _HeldRow.read,
            f"""
            SELECT {columns(RunningRow)}, held.due AS due, {LEASED} AS leased
            FROM {self._dialect.table} AS held{self._dialect.by_id}
            WHERE held.id = %(job)s AND held.run = %(run)s
            """,
        )

    # The last runs of jobs

    def last_runs(self, cursor: Cursor, keys: Collection[RawKey]) -> dict[RawKey, Record]:
        """
        Of each job that has one, the last of its runs that have ended; maybe of other jobs, too.
        Within a transaction of the caller.
        """
        if not keys:
            return {}
        numbers = [job_key(*key) for key in keys]
        rows = self._last_runs.fetch(cursor, numbers)
        found: dict[RawKey, Record] = {}
        for row in rows:
            run = ended_run(row, self._dialect.read_instant)
            if run is not None:
                # The number may be that of another job, too.
                found[RawKey(run.record.path, run.record.body)] = run.record
        return found

    @cached_property
    def _last_runs(self) -> Select[RecordRow]:
        by_job = self._dialect.by_index("jobruns")

        def newest(shelf: Shelf) -> str:
            # The order has the whole key, as MySQL sorts all records of the job otherwise.
            return f"""COALESCE((
                    SELECT at FROM {self._table} AS one{by_job}
                    WHERE one.jobkey = of_job AND one.failed = {shelf:d}
                    ORDER BY one.jobkey DESC, one.failed DESC, one.at DESC LIMIT 1
                ), -1)"""

        is_failed = "newest_failed >= newest_fine"
        return self._select(
            RecordRow,
            f"""
            SELECT {RECORD} FROM (
                SELECT of_job,
                    {newest(Shelf.FINE)} AS newest_fine,
                    {newest(Shelf.FAILED)} AS newest_failed
                FROM (
                    [SELECT %(jobkey)s AS of_job UNION ALL SELECT %(jobkey)s UNION ALL ...]
                ) AS jobs
            ) AS newest
            {self._dialect.then_join} {self._table} AS kept{by_job}
            ON kept.jobkey = of_job
                AND kept.failed = CASE WHEN {is_failed} THEN {Shelf.FAILED:d}
                    ELSE {Shelf.FINE:d} END
                AND kept.at = CASE WHEN {is_failed} THEN newest_failed ELSE newest_fine END
            """,
        )

    def _select(self, row: Callable[..., Any], sql: str) -> Select[Any]:
        return Select(row, self._dialect.prepare(sql))


class _HeldRow(NamedTuple):
    """A job's row, and whether it is under a lease."""

    row: RunningRow
    due: Any
    leased: int

    @classmethod
    def read(cls, *found: Any) -> _HeldRow:
        return cls(RunningRow(*found[:-2]), *found[-2:])


def _record_of(row: OpenRow | RecordRow) -> RecordRow:
    return row.record if isinstance(row, OpenRow) else row
