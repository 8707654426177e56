"""P7, P10: what a page of jobs costs in a large table: no more than it shows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from dalga.model.key import Position
from dalga.store.table import JobsTable
from tests.stores import EngineTestCase, each_engine

ROWS = 20_000
LIMIT = 50

#: The first page, one in the middle, and one at the end of a path; of all jobs, and of a path.
ASKED = [
    (path, after)
    for path in (None, "large")
    for after in (
        None,
        Position(b"large", b"00100"),
        Position(b"large", b"15000"),
        Position(b"large", b"99999"),
    )
]


class LargeTableTestCase(EngineTestCase):
    """A table of which nothing may read more than it was asked for."""

    def fill(self) -> JobsTable:
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
            connection.commit()
            # What the optimizer then knows of the table must not lead it astray.
            cursor.execute("ANALYZE" if self.engine == "sqlite" else "ANALYZE TABLE dalga")
            cursor.fetchall()
            connection.commit()
        return store

    def check_cost(self, statement: str, parameters: list[object], rows: int) -> None:
        """:param rows: how many may be read."""
        cost = self.sqlite_cost if self.engine == "sqlite" else self.server_cost
        cost(statement.strip(), parameters, rows)

    def server_cost(self, statement: str, parameters: list[object], rows: int) -> None:
        """By the optimizer's plans, and by what the storage engine was asked for."""
        form = "FORMAT=TRADITIONAL " if self.engine == "mysql" else ""
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(f"EXPLAIN {form}{statement}", parameters)
            columns = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                plan = dict(zip(columns, row, strict=True))
                self.assertNotIn("filesort", plan["Extra"] or "")
                self.assertNotIn("temporary", plan["Extra"] or "")
            before = self.counters(cursor)
            cursor.execute(statement, parameters)
            cursor.fetchall()
            after = self.counters(cursor)
            read = sum(after[name] - before[name] for name in after if name.startswith("Handler"))
            self.assertLessEqual(read, rows, (statement, parameters))
            self.assertEqual(after["Sort_rows"], before["Sort_rows"])

    def counters(self, cursor: Any) -> dict[str, int]:
        cursor.execute(
            "SHOW SESSION STATUS WHERE Variable_name = 'Sort_rows' OR Variable_name IN "
            "('Handler_read_first', 'Handler_read_key', 'Handler_read_last', 'Handler_read_next',"
            " 'Handler_read_prev', 'Handler_read_rnd')"
        )
        return {name: int(value) for name, value in cursor.fetchall()}

    def sqlite_cost(self, statement: str, parameters: list[object], rows: int) -> None:
        """By the plan, and by the steps of SQLite's machine."""
        with closing(self.connect()) as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            self.assertNotIn("TEMP B-TREE", str(plan))
            self.assertLess(steps(connection, statement, parameters), 100 * rows)


@each_engine(globals())
class PageCostTests(LargeTableTestCase):
    """Were rows sorted, or passed over, this would take a second where there are 500,000."""

    def ranges(self, store: JobsTable) -> list[tuple[str, list[object]]]:
        """All statements that `ASKED` comes to, and their parameters."""
        return [
            store._sql.page(condition).statement.bound((), {**values, "limit": LIMIT + 1})
            for path, after in ASKED
            for condition, values in store._jobs._ranges(path, after)
        ]

    async def test_pages(self) -> None:
        """Each row is listed once, in order."""
        store = self.fill()
        after, keys = None, []
        while True:
            page = await store.page(None, after, 1000)
            keys += [job.key for job in page.jobs]
            if page.last is None:
                break
            after = page.last
        self.assertEqual(len(keys), ROWS)
        self.assertEqual(keys, sorted(keys))

    async def test_no_page_sorts_or_passes_over_rows(self) -> None:
        store = self.fill()
        for statement, parameters in self.ranges(store):
            self.check_cost(statement, parameters, LIMIT + 3)


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


def steps(connection: sqlite3.Connection, statement: str, parameters: list[object]) -> int:
    """How many instructions SQLite runs for a statement, to the next hundred."""
    counted = [0]

    def count() -> None:
        counted[0] += 100

    connection.set_progress_handler(count, 100)
    connection.execute(statement, parameters).fetchall()
    connection.set_progress_handler(None, 0)
    return counted[0]
