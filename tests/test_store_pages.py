"""P7, P10: what a page of jobs costs in a large table: no more than it shows."""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from dalga.model.key import Position
from dalga.model.listing import RARE, Driver, DuePlace, Filters, Place, Sort, StatePlace
from dalga.model.permit import Area, Limits
from dalga.model.state import State
from dalga.store.ranges import Bound, Ranges
from dalga.store.table import JobsTable
from tests.lists import by_key
from tests.stores import EngineTestCase, each_engine

ROWS = 20_000
LIMIT = 50

#: A slice of an index, with filters that the index has not.
SIZE = 500

TIME = datetime(2030, 1, 1, tzinfo=UTC)
EVERY = frozenset({"a", "b", "none"})

#: Lists that an index serves alone, by each index.
PLAIN = [
    Filters(),
    Filters(path="large"),
    Filters(prefix="lar"),
    Filters(path="large", body="00100"),
    Filters(sort=Sort.DUE),
    Filters(due_after=TIME - timedelta(days=1)),
    Filters(due_after=TIME - timedelta(days=1), due_before=TIME + timedelta(days=1)),
    Filters(limits=Limits((Area(("larg", "b")), Area(("a",))))),
]

#: By their paths and by their endpoints.
LIMITS = Limits((Area(("larg", "b"), ("default", "none")), Area((), ("billing",))))

#: Lists with a filter that is looked at for each row of a slice.
FILTERED = [
    Filters(body="none"),
    Filters(contains="none"),
    Filters(endpoint="none"),
    Filters(path="large", contains="none"),
    Filters(path="large", states=frozenset({State.FAILED})),
    Filters(tags=frozenset("a")),
    Filters(tags=EVERY),
    Filters(tags=EVERY, path="large"),
    Filters(tags=frozenset("a"), states=frozenset({State.FAILED})),
    Filters(tags=frozenset("a"), sort=Sort.DUE),
    *(Filters(states=frozenset({state})) for state in State),
    Filters(states=frozenset(State), sort=Sort.DUE),
    Filters(due_before=TIME + timedelta(days=1), path="large", sort=Sort.DUE),
    Filters(limits=LIMITS),
    Filters(limits=LIMITS, prefix="lar"),
    Filters(limits=LIMITS, tags=EVERY),
    Filters(limits=LIMITS, states=frozenset({State.FAILED})),
    Filters(limits=LIMITS, sort=Sort.DUE),
]


class LargeTableTestCase(EngineTestCase):
    """A table of which nothing may read more than it was asked for."""

    def fill(self, mixed: bool = False) -> JobsTable:
        """:param mixed: with tags, and rows of all states, due at the same time and at others."""
        store = self.open_store()
        time = "2030-01-01 00:00:00.000000"
        rows = [
            # In an order that is not that of their keys.
            (self.key(path), self.key(f"{number * 7919 % ROWS:05}"), time, time, time)
            for number in range(ROWS)
            for path in [["large", "larger", "a"][number % 100 if number % 100 < 3 else 0]]
        ]
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            places = (
                "?, ?, '60', ?, ?, ?" if self.engine == "sqlite" else "%s, %s, '60', %s, %s, %s"
            )
            cursor.executemany(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
                f" VALUES ({places})",
                rows,
            )
            if mixed:
                self.mix(cursor)
            connection.commit()
            # What the optimizer then knows of the table must not lead it astray.
            cursor.execute("ANALYZE" if self.engine == "sqlite" else "ANALYZE TABLE dalga")
            cursor.fetchall()
            connection.commit()
        return store

    def mix(self, cursor: Any) -> None:
        """Half of the rows have tags, a half have another state, and two thirds other due times."""
        for tag, part in (("a", 2), ("b", 5)):
            cursor.execute(
                f"INSERT INTO dalga_tags SELECT '{tag}', path, body, id FROM dalga"
                f" WHERE id % {part} = 0"
            )
        for standing, rest in ((1, 1), (2, 3), (3, 5), (4, 7)):
            due = "due" if standing == 1 else "NULL"
            cursor.execute(
                f"UPDATE dalga SET standing = {standing}, due = {due} WHERE id % 16 = {rest}"
            )
        cursor.execute("UPDATE dalga SET disabled = 1, due = NULL WHERE id % 16 IN (9, 11)")
        cursor.execute(
            "UPDATE dalga SET due = '2030-01-01 00:00:01.000000'"
            " WHERE due IS NOT NULL AND id % 3 = 0"
        )
        cursor.execute(
            "UPDATE dalga SET due = '2020-01-01 00:00:00.000000'"
            " WHERE due IS NOT NULL AND id % 3 = 1"
        )

    def check_cost(
        self, statement: str, parameters: list[object], rows: int, sorted: int = 0
    ) -> None:
        """
        :param rows: how many may be read.
        :param sorted: how many may be sorted.
        """
        cost = self.sqlite_cost if self.engine == "sqlite" else self.server_cost
        cost(statement.strip(), parameters, rows, sorted)

    def server_cost(self, statement: str, parameters: list[object], rows: int, sorted: int) -> None:
        """By the optimizer's plans, and by what the storage engine was asked for."""
        form = "FORMAT=TRADITIONAL " if self.engine == "mysql" else ""
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(f"EXPLAIN {form}{statement}", parameters)
            columns = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                plan = dict(zip(columns, row, strict=True))
                if not sorted:
                    self.assertNotIn("filesort", plan["Extra"] or "", (statement, parameters))
                    self.assertNotIn("temporary", plan["Extra"] or "")
            before = self.counters(cursor)
            cursor.execute(statement, parameters)
            cursor.fetchall()
            after = self.counters(cursor)
            read = sum(after[name] - before[name] for name in after if name.startswith("Handler"))
            self.assertLessEqual(read, rows, (statement, parameters))
            self.assertLessEqual(after["Sort_rows"] - before["Sort_rows"], sorted, statement)

    def counters(self, cursor: Any) -> dict[str, int]:
        cursor.execute(
            "SHOW SESSION STATUS WHERE Variable_name = 'Sort_rows' OR Variable_name IN "
            "('Handler_read_first', 'Handler_read_key', 'Handler_read_last', 'Handler_read_next',"
            " 'Handler_read_prev', 'Handler_read_rnd')"
        )
        return {name: int(value) for name, value in cursor.fetchall()}

    def sqlite_cost(self, statement: str, parameters: list[object], rows: int, sorted: int) -> None:
        """By the plan, and by the steps of SQLite's machine."""
        with closing(self.connect()) as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            if not sorted:
                self.assertNotIn("TEMP B-TREE", str(plan))
            cost = steps(connection, statement, parameters)
            self.assertLess(cost, 100 * rows, (statement, parameters, plan))


@each_engine(globals())
class PageCostTests(LargeTableTestCase):
    """Were rows sorted, or passed over, this would take a second where there are 500,000."""

    def bound(self, store: JobsTable, filters: Filters, now: datetime) -> list[Bound[Any]]:
        """All statements of the first page, and of one in the middle and one at the end."""
        index = Ranges(store._dialect, filters, now)
        places: dict[Driver, list[Place | None]] = {
            Driver.DUE: [
                None,
                DuePlace(b"2030-01-01 00:00:00.000000", 7000),
                DuePlace(None, 7000),
            ],
            Driver.STATE: [None, StatePlace(0, 2, 7000), StatePlace(1, 0, 7000)],
        }
        of_keys = [None, Position(b"large", b"00100"), Position(b"large", b"99999")]
        ranges = [
            range for after in places.get(filters.driver, of_keys) for range in index.ranges(after)
        ]
        rows: list[Bound[Any]] = [index.rows(range, SIZE, LIMIT + 1) for range in ranges]
        return rows + [index.end(range, SIZE) for range in ranges if index.leaves_out]

    async def test_pages(self) -> None:
        """Each row is listed once, in order."""
        store = self.fill()
        after, keys = None, []
        while True:
            page = await store.page(by_key(None, after, 1000))
            keys += [job.key for job in page.jobs]
            if page.last is None:
                break
            after = page.last
        self.assertEqual(len(keys), ROWS)
        self.assertEqual(keys, sorted(keys))

    async def test_no_page_sorts_or_passes_over_rows(self) -> None:
        store = self.fill(mixed=True)
        now = await store.now()
        for filters in PLAIN:
            for select, values in self.bound(store, filters, now):
                self.check_cost(*select.statement.bound((), values), LIMIT + 3)

    async def test_no_page_looks_at_more_than_a_slice(self) -> None:
        """Of the rows of a slice, some are sorted, and each is looked up once or twice."""
        store = self.fill(mixed=True)
        now = await store.now()
        for filters in FILTERED:
            tags = max(len(filters.tags), 1)
            for select, values in self.bound(store, filters, now):
                self.check_cost(
                    *select.statement.bound((), values), 5 * tags * SIZE, (tags + 1) * SIZE
                )


@each_engine(globals())
class CountCostTests(LargeTableTestCase):
    """Whoever asks for counts waits for no more rows than a piece has."""

    async def test_a_piece(self) -> None:
        store = self.fill()
        self.sql("UPDATE dalga SET due = '2020-01-01 00:00:00.000000' WHERE id <= 15000")
        time = store._dialect.instant(await store.now())
        for after, limit in ((0, 0), (0, LIMIT), (10_000, LIMIT)):
            # Of a derived table, a server reads each row once more.
            values = {"now": time, "alive": time, "last_lease": time}
            bound = store._sql.counts.statement.bound((), values | {"after": after, "limit": limit})
            self.check_cost(*bound, 2 * limit + 10)

    async def test_all_pieces(self) -> None:
        """Together they are the whole."""
        store = self.fill()
        self.sql("UPDATE dalga SET due = '2020-01-01 00:00:00.000000' WHERE id <= 15000")
        ((pending,),) = self.sql("SELECT COUNT(*) FROM dalga WHERE due < '2021-01-01'")
        totals, after = [], 0
        while True:
            counts = await store.counts(after)
            totals.append((counts.total, counts.pending))
            if counts.last is None:
                break
            after = counts.last
        self.assertEqual(totals, [(10_000, 10_000), (10_000, pending - 10_000), (0, 0)])


@each_engine(globals(), only=("sqlite",))
class RecordCostTests(LargeTableTestCase):
    """P7: on SQLite's only connection, a record looks at the rows of its runs, and at no others."""

    async def test_each_kind_of_end(self) -> None:
        store = self.fill()
        sql = store._runsql
        with closing(self.connect()) as connection:
            for statement in (
                *(sql.delete_rows, sql.bury_rows, sql.succeed_rows, sql.reschedule_rows),
                *(sql.skip_rows, sql.retry_rows, sql.stop_rows, sql.disable_rows),
                *(sql.give_back_rows, sql.yield_rows),
            ):
                row: Any = namedtuple("row", statement.row)  # type: ignore[misc]
                for count in (1, 2, 100):
                    rows = [row(*[None] * len(statement.row))] * count
                    bound = statement.bound(rows, {})
                    plan = str(
                        connection.execute(f"EXPLAIN QUERY PLAN {bound[0]}", bound[1]).fetchall()
                    )
                    self.assertIn("SEARCH dalga USING INTEGER PRIMARY KEY", plan)
                    self.assertNotIn("SCAN dalga", plan)
                    self.assertNotIn("SCAN held", plan)


def steps(connection: sqlite3.Connection, statement: str, parameters: list[object]) -> int:
    """How many instructions SQLite runs for a statement, to the next hundred."""
    counted = [0]

    def count() -> None:
        counted[0] += 100

    connection.set_progress_handler(count, 100)
    connection.execute(statement, parameters).fetchall()
    connection.set_progress_handler(None, 0)
    return counted[0]


@each_engine(globals(), only=("sqlite",))
class PartialIndexTests(EngineTestCase):
    async def test_a_list_by_states_that_few_jobs_are_in_takes_it(self) -> None:
        """SQLite takes it only if the WHERE has the index's own words."""
        store = self.open_store()
        now = await store.now()
        for state in RARE:
            index = Ranges(store._dialect, Filters(states=frozenset({state})), now)
            for range in index.ranges(None):
                select, values = index.end(range, SIZE)
                text, parameters = select.statement.bound((), values)
                with closing(self.connect()) as connection:
                    plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", parameters).fetchall()
                self.assertIn("INDEX dalga_state (disabled=? AND standing=?", str(plan), text)
