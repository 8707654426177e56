"""P7, P10: what a page of runs costs in a large table: no more than a slice of it."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta

from dalga.model.answers import Statuses
from dalga.model.attempt import ErrorKind
from dalga.model.key import RawKey
from dalga.model.permit import Area, Limits
from dalga.model.record import Result, Shelf, job_key
from dalga.model.runlist import RunFilters, RunPlace, RunState
from dalga.store.dialect import instant_text
from dalga.store.rows import version_at
from dalga.store.runranges import RunRanges
from dalga.store.table import JobsTable
from tests.records import record_row
from tests.stores import each_engine
from tests.test_store_pages import LIMIT, ROWS, LargeTableTestCase

#: A slice of an index.
SIZE = 500

SECOND = timedelta(seconds=1)


class LargeHistoryTestCase(LargeTableTestCase):
    """A table of `ROWS` records, half of one path, a fourth of them failures."""

    async def fill_history(self) -> JobsTable:
        store = self.open_store()
        self.now = await store.now()
        rows = [
            tuple(
                instant_text(value)
                if isinstance(value, datetime)
                else self.key(value)
                if name in ("path", "body", "endpoint", "instance")
                else value
                for name, value in record_row(
                    self.now - number * SECOND,
                    number + 1,
                    ["large", "small", "large", "a"][number % 4],
                    str(number % 3),
                    Result.GIVEN_UP if number % 4 == 2 else Result.SUCCEEDED,
                ).items()
            )
            for number in range(ROWS)
        ]
        names = record_row(self.now, 1)
        place = "?" if self.engine == "sqlite" else "%s"
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            cursor.executemany(
                f"INSERT INTO dalga_runs ({', '.join(names)})"
                f" VALUES ({', '.join([place] * len(names))})",
                rows,
            )
            connection.commit()
            # What the optimizer then knows of the table must not lead it astray.
            cursor.execute("ANALYZE" if self.engine == "sqlite" else "ANALYZE TABLE dalga_runs")
            cursor.fetchall()
            connection.commit()
        return store


LIMITS = Limits((Area(("larg", "b"), ("default", "none")), Area((), ("billing",))))


@each_engine(globals())
class RunPageCostTests(LargeHistoryTestCase):
    async def test_no_page_looks_at_more_than_a_slice(self) -> None:
        """Of the rows of a slice, some are sorted, and each is looked up once or twice."""
        store = await self.fill_history()
        middle = self.now - (ROWS // 2) * SECOND
        for filters in [
            RunFilters(),
            RunFilters(path="large"),
            RunFilters(path="large", body="1"),
            RunFilters(path="large", results=frozenset({Result.SKIPPED})),
            RunFilters(path="none"),
            RunFilters(prefix="none"),
            RunFilters(body="none"),
            RunFilters(endpoint="none"),
            RunFilters(tags=frozenset({"a", "b"})),
            RunFilters(results=frozenset({Result.SKIPPED})),
            RunFilters(results=frozenset({Result.REMOVED})),
            RunFilters(statuses=Statuses(((404, 404),))),
            RunFilters(error_kinds=frozenset({ErrorKind.DNS})),
            RunFilters(since=middle, endpoint="none"),
            RunFilters(until=middle),
            RunFilters(limits=LIMITS),
            RunFilters(limits=LIMITS, path="large"),
            RunFilters(limits=LIMITS, tags=frozenset({"a", "b"})),
            RunFilters(until=middle, since=middle - SECOND, path="large"),
        ]:
            index = RunRanges(store._dialect, filters, self.now)
            for place in (None, RunPlace(Shelf.FINE, version_at(middle), ROWS)):
                for ranges in filters.ranges(place, self.now):
                    for bound in (index.rows(ranges, SIZE, LIMIT + 1), index.end(ranges, SIZE)):
                        self.check_cost(
                            *bound.select.statement.bound((), bound.values), 8 * SIZE, 6 * SIZE
                        )

    async def test_a_page_that_needs_few_rows_reads_few(self) -> None:
        store = await self.fill_history()
        for filters in (RunFilters(path="large"), RunFilters(), RunFilters(path="a", body="2")):
            index = RunRanges(store._dialect, filters, self.now)
            ranges = filters.ranges(None, self.now)[-1]
            bound = index.rows(ranges, 11, 11)
            self.check_cost(*bound.select.statement.bound((), bound.values), 100, 60)

    async def test_runs_under_way(self) -> None:
        """However many jobs there are."""
        store = self.fill()
        now = await store.now()
        self.sql("UPDATE dalga SET due = %s", (instant_text(now + 60 * SECOND),))
        running = frozenset({RunState.RUNNING})
        for filters in (RunFilters(states=running), RunFilters(path="large", body="00000")):
            bound = RunRanges(store._dialect, filters, now).running(SIZE, LIMIT)
            self.check_cost(*bound.select.statement.bound((), bound.values), 4 * SIZE, SIZE)

    async def test_last_runs(self) -> None:
        store = await self.fill_history()
        statement = store._history._last_runs.statement
        numbers = [job_key(*RawKey("large", str(body))) for body in range(3)]
        numbers += [job_key(*RawKey("none", str(body))) for body in range(97)]
        self.check_cost(*statement.bound(numbers, {}), 600, 200)
