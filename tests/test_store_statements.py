"""The statements of the store: the names of their parameters, and of the columns they give."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

import dalga.store
from dalga.errors import JobNotFound
from dalga.model.delivery import Method
from dalga.model.idempotency import Idempotency
from dalga.model.key import JobKey, RawKey
from dalga.model.options import IfExists
from dalga.model.permit import Author
from dalga.model.precondition import Precondition
from dalga.model.record import EndedRun, Result
from dalga.model.retry import RetryPolicy
from dalga.model.run import Delete, End, Reschedule, Retry
from dalga.model.setback import Reach
from dalga.store import runs as store_runs
from dalga.store.actionsql import ActionStatements
from dalga.store.alertsql import AlertStatements
from dalga.store.closings import Closed
from dalga.store.detailsql import DetailStatements
from dalga.store.dialect import Dialect
from dalga.store.extras import DetailsRow
from dalga.store.mysql import MySQL
from dalga.store.parameters import Select, Statement
from dalga.store.runsql import RunStatements
from dalga.store.selected import JobRow, PageRow, TextRow, WholeRow
from dalga.store.sqlite import SQLite
from dalga.store.statements import Statements
from dalga.store.table import JobsTable
from tests.examples import ended
from tests.lists import by_key
from tests.stores import EACH_MINUTE, LONG, NOW, OVER, EngineTestCase, each_engine, each_verdict

BOTH = (IfExists.UPDATE, IfExists.KEEP)
HOUR = timedelta(hours=1)
PAST = "2020-01-01 00:00:00.000000"
FUTURE = "2100-01-01 00:00:00.000000"

#: The statements that the walk of `ExecutedTests` executes, by where a store has them.
PARTS = {"_sql": Statements, "_runsql": RunStatements, "_detailsql": DetailStatements}

#: All classes of statements.
ALL = (*PARTS.values(), ActionStatements, AlertStatements)


class Pair(NamedTuple):
    """A row of values."""

    path: object
    body: object


class Turned(NamedTuple):
    """The same in another order."""

    body: object
    path: object


def names(kind: type) -> list[str]:
    """The names of a class's statements, which are made once."""
    return [name for name, value in vars(kind).items() if isinstance(value, cached_property)]


def statement_of(made: Select[Any] | Statement) -> Statement:
    return made.statement if isinstance(made, Select) else made


class ParametersTests(SynchronousTestCase):
    """From names to places."""

    def test_text_and_values(self) -> None:
        """Each value comes to the places of its name, and each row to its own."""
        a, b = Pair("a", 1), Pair("b", 2)
        rows: Sequence[object]
        values: Mapping[str, object]
        for sql, rows, values, expected in (
            ("SELECT 1", [], {}, ("SELECT 1", [])),
            ("SET a = %(x)s,\n  b = %(y)s", [], {"y": 2, "x": 1}, ("SET a = ?, b = ?", [1, 2])),
            ("%(now)s %(id)s %(now)s", [], {"now": 1, "id": 2}, ("? ? ?", [1, 2, 1])),
            ("id IN ([%(id)s, ...])", [7], {}, ("id IN (?)", [7])),
            ("id IN ([%(id)s, ...])", [7, 8, 9], {}, ("id IN (?, ?, ?)", [7, 8, 9])),
            ("VALUES [(%(path)s, %(body)s), ...]", [a, b], {}, ("VALUES (?, ?), (?, ?)", [*a, *b])),
            ("([p = %(path)s AND %(body)s OR ...])", [a], {}, ("(p = ? AND ?)", [*a])),
            (
                "([p = %(path)s AND %(body)s OR ...])",
                [a, b],
                {},
                ("(p = ? AND ? OR p = ? AND ?)", [*a, *b]),
            ),
            (
                "[SELECT %(path)s AS p, %(body)s AS b UNION ALL SELECT %(path)s, %(body)s"
                " UNION ALL ...]",
                [a, b, a],
                {},
                ("SELECT ? AS p, ? AS b UNION ALL SELECT ?, ? UNION ALL SELECT ?, ?", [*a, *b, *a]),
            ),
            (
                "t = %(now)s AND id IN ([%(id)s, ...]) AND u = %(token)s OR t < %(now)s",
                [7, 8],
                {"now": 1, "token": 2},
                ("t = ? AND id IN (?, ?) AND u = ? OR t < ?", [1, 7, 8, 2, 1]),
            ),
            (
                "t = %(now)s AND p IN ([%(path)s, ...]) AND b IN ([%(body)s, ...]) AND t < %(now)s",
                [a, b, a],
                {"now": 1},
                (
                    "t = ? AND p IN (?, ?, ?) AND b IN (?, ?, ?) AND t < ?",
                    [1, "a", "b", "a", 1, 2, 1, 1],
                ),
            ),
        ):
            self.assertEqual(Statement(sql, "?").bound(rows, values), expected, sql)

    def test_what_a_statement_does_not_take(self) -> None:
        """Whatever is missing, too much or in another order is refused, by name."""
        one, many = "a = %(x)s", "a = %(x)s AND p IN ([(%(path)s, %(body)s), ...])"
        rows: Sequence[object]
        values: Mapping[str, object]
        for sql, rows, values, words in (
            (one, [], {}, r"\['x'\] were given as \[\]"),
            (one, [], {"y": 1}, r"\['x'\] were given as \['y'\]"),
            (one, [], {"x": 1, "y": 2}, r"\['x'\] were given as \['x', 'y'\]"),
            (one, [1], {"x": 1}, "takes none"),
            (many, [], {"x": 1}, "no rows"),
            (many, [Pair(1, 2)], {}, r"\['x'\] were given as \[\]"),
            (many, [Turned(1, 2)], {"x": 1}, r"of \('path', 'body'\) .* as rows of \('body'"),
        ):
            with self.assertRaisesRegex(TypeError, words):
                Statement(sql, "?").bound(rows, values)

    def test_rows_that_are_not_alike(self) -> None:
        with self.assertRaisesRegex(ValueError, "have the names"):
            Statement("[SELECT %(a)s AS a UNION ALL SELECT %(b)s UNION ALL ...]", "?")

    def test_parts_of_several_names(self) -> None:
        """Of several parts that are repeated, each has one name: a row's value has one place."""
        with self.assertRaisesRegex(ValueError, "one name each"):
            Statement("a IN ([%(a)s, ...]) AND b IN ([(%(b)s, %(c)s), ...])", "?")


class NamesTests(SynchronousTestCase):
    """All statements, as they are made for each dialect."""

    def test_the_same_for_each_dialect(self) -> None:
        for kind in ALL:
            sqlite, mysql = (kind(dialect) for dialect in dialects())
            for name in names(kind):
                one, other = (statement_of(getattr(sql, name)) for sql in (sqlite, mysql))
                self.assertEqual((one.names, one.row), (other.names, other.row), name)

    def test_each_value_has_a_name(self) -> None:
        """No SQL has a place without one, but for what the driver itself makes of rows."""
        found = [
            (path.name, line.strip())
            for path in sorted(Path(dalga.store.__path__[0]).glob("*.py"))
            for line in path.read_text(encoding="utf-8").splitlines()
            if re.search(r"(?<!\))%s|[=<>,] \?|\(\?[,)]", line)
        ]
        self.assertEqual(
            found,
            [
                ("mysql.py", 'return Statement(sql, "%s")'),
                ("upgrade.py", "f\"VALUES ({', '.join(['%s'] * len(Row._fields))})\""),
            ],
        )


#: Statements that nobody needs where there is one writer.
FOR_SERVERS = (
    "take_found",
    "hold_row",
    *("find_details", "lock_details", "find_tags", "lock_tags"),
)


@each_engine(globals())
class ExecutedTests(EngineTestCase):
    """All statements, as their callers execute them."""

    async def test_each_statement(self) -> None:
        """
        Each is executed with the parameters that it takes, or it would raise; and each SELECT gives
        the columns, in their order, that the NamedTuple has.
        """
        executed: set[Statement] = set()
        selected: set[Statement] = set()
        bound: Callable[..., Any] = Statement.bound
        fetch: Callable[..., Any] = Select.fetch

        def note_bound(statement: Statement, *arguments: Any) -> Any:
            executed.add(statement)
            return bound(statement, *arguments)

        def note_fetched(select: Select[Any], cursor: Any, *rows: Any, **values: Any) -> Any:
            given = fetch(select, cursor, *rows, **values)
            names = tuple(column[0] for column in cursor.description)
            fields: tuple[str, ...] = getattr(select._row, "_fields", ())
            if select._row == PageRow.read:
                fields = (*PageRow._fields[:-1], *JobRow._fields)
            if select._row == WholeRow.read:
                fields = (*JobRow._fields, *DetailsRow._fields[3:])
            if select._row == TextRow.read:
                fields = ("text",)
            self.assertEqual(names, fields)
            selected.add(select.statement)
            return given

        self.patch(Statement, "bound", note_bound)
        self.patch(Select, "fetch", note_fetched)
        await self.walk()
        for part, name in [(part, name) for part, kind in PARTS.items() for name in names(kind)]:
            made = getattr(getattr(self.stores[0], part), name)
            if name in FOR_SERVERS and self.stores[0]._dialect.one_writer:
                continue
            self.assertIn(statement_of(made), executed, name)
            if isinstance(made, Select):
                self.assertIn(made.statement, selected, name)

    async def walk(self) -> None:
        """Do everything to jobs that there is to do."""
        store = self.open_store()  # with the trial at the start
        await self.users(store)
        await self.ends(store)
        await self.claims(store)
        await self.keys(store)
        await self.details(store)
        await self.retries(store)
        await store.now()
        await store.counts()
        self.sql(
            "INSERT INTO dalga_alive_6 (id, seen) VALUES ('gone', '2020-01-01 00:00:00.000000')"
        )
        await store.announce("here")
        await store.instances(9)
        await store.depart("here")
        self.insert("ahead", schedule="5", scheduled=FUTURE, due=FUTURE)
        await store.correct(Reach(lease=HOUR, retry=RetryPolicy(max_interval=HOUR)), None)

    async def users(self, store: JobsTable) -> None:
        key, other = JobKey("a", "1"), JobKey("a", "2")
        update, keep = (replace(EACH_MINUTE, if_exists=each) for each in BOTH)
        await store.put(key, EACH_MINUTE)
        await store.put(other, update)  # where nothing is there
        await store.put(key, replace(update, count=9))
        await store.put(key, replace(NOW, if_exists=IfExists.UPDATE))
        page = await store.page(by_key("a", None, 1))
        await store.page(by_key(None, page.last, 1))
        await store.disable(key, author=Author("ci", "127.0.0.1"))
        await store.enable(key)
        await store.trigger(key)
        (run,) = (await store.claim(1, LONG, ["b"])).runs
        await store.delete(key)
        await store.put(key, keep)  # where it was deleted during a run
        await store.due_within(HOUR, 9)
        await store.due_within(HOUR, 9, ["b"])
        await self.record(store, [(run, Delete())])
        await store.delete(other)
        with self.assertRaises(JobNotFound):
            await store.get(other)
        await store.delete(other)  # which is not there

    async def ends(self, store: JobsTable) -> None:
        for number, verdict in enumerate(each_verdict(await store.now())):
            key = JobKey("b", str(number))
            run = await self.due_now(store, key)
            await self.record(store, [(run, verdict)])
            self.assertEqual(len((await store.record([ended(run, verdict)])).lost), 1)
            await store.delete(key)
        key = JobKey("c", "1")
        run = await self.due_now(store, key)
        await self.record(store, [(run, Reschedule(run.claimed, run.anchor))])
        run = await self.claim_one(store, key)
        await store.trigger(key)
        await self.record(store, [(run, Delete())])
        (run,) = (await store.claim(9, LONG)).runs
        await store.delete(key)
        store._runs._unsure.add((run.row, run.token))
        await self.record(store, [(run, Delete())])
        store._runs._unsure.add((run.row, run.token))
        recorded = await store.record([End(run, None, Delete())])
        self.assertEqual(len(recorded.already), 1)

    async def keys(self, store: JobsTable) -> None:
        request = Idempotency.of("key", b"request")
        for name in ("1", "2"):
            made = await store.once(JobKey("e", name), NOW, request)
            self.assertTrue(made.is_new)
            self.sql("UPDATE dalga_keys SET made = '2020-01-01 00:00:00.000000'")
        self.assertEqual(await store.forget_keys(9), 1)
        for name in ("1", "2"):
            await store.delete(JobKey("e", name))

    async def details(self, store: JobsTable) -> None:
        """What jobs have in other tables."""
        key = JobKey("f", "1")
        said = replace(
            NOW, description="a", tags=("b",), method=Method.GET, expect_within=timedelta(hours=1)
        )
        put = await store.put(key, said)
        await store.page(by_key("f", None, 1))
        await store.disable(key, "c", Precondition(frozenset((put.version,))))
        await store.put(key, said)
        await store.delete(key)
        run = await self.due_now(store, key, description="a", tags=("b",))
        await self.record(store, [(run, Delete())])

    async def retries(self, store: JobsTable) -> None:
        """A run that fails twice, and is replaced then."""
        key = JobKey("h", "1")
        run = await self.due_now(store, key)
        for _ in range(2):
            await self.record(store, [(run, Retry(run.claimed, "500"))])
            run = await self.claim_one(store, key)
        await self.record(store, [(run, Retry(run.claimed, "500"))])
        await store.trigger(key)
        await store.delete(key)
        closed = Closed(EndedRun("h", "default", Result.OVERRIDDEN, 3), job=1, at=1)
        store._closings.ended([closed], is_certain=False)
        await store.settle()

    async def claims(self, store: JobsTable) -> None:
        deleted, disabled = JobKey("d", "1"), JobKey("d", "2")
        await store.put(deleted, NOW)
        await store.put(disabled, NOW)
        await store.claim(9, LONG)
        await store.delete(deleted)
        await store.disable(disabled)
        self.end_leases()
        self.insert("unreadable", schedule="?")
        self.insert("early", scheduled=FUTURE)
        self.assertEqual((await store.claim(9, OVER)).runs, [])
        # What can't be read as a text is read by columns.
        await store.put(JobKey("d", "3"), NOW)
        self.patch(store_runs, "run_from_text", lambda *_: None)
        self.patch(store_runs, "lease_from_text", lambda _: None)
        (run,) = (await store.claim(9, LONG)).runs
        await self.record(store, [(run, Delete())])

    def insert(self, path: str, **columns: str) -> RawKey:
        """A row that is due."""
        values = {"schedule": "", "anchor": PAST, "scheduled": PAST, "due": PAST, **columns}
        named = {"path": self.key(path), "body": self.key("1"), **values}
        places = ", ".join(["%s"] * len(named))
        self.sql(f"INSERT INTO dalga ({', '.join(named)}) VALUES ({places})", list(named.values()))
        return RawKey(path, "1")


def dialects() -> tuple[Dialect, Dialect]:
    return SQLite(":memory:"), MySQL([("localhost", 3306)], "dalga", "dalga", "dalga", "")
