"""
Older tables for tests of upgrades, and Dalga as it will be with the next schema version.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dalga.config.sections import SQLiteConfig
from dalga.database import server
from dalga.errors import StartupError
from dalga.model.key import JobKey
from dalga.store import mysql, schema, sqlite, sqlitefile, versions
from dalga.store import upgrade as room
from dalga.store.dialect import Dialect
from dalga.store.sqlite import SQLite
from tests.daemons import CHECKOUT
from tests.stores import LONG, EngineTestCase

OLD = Path(__file__).parent / "old_tables"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def going_back(words: str) -> list[str]:
    """The block of statements in docs/upgrading.md that has such words, and is about going back."""
    text = (CHECKOUT / "docs" / "upgrading.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^ {4}.*\n)+", text[text.index("## Going back") :], re.MULTILINE)
    (block,) = (block for block in blocks if words in block)
    return [statement.strip() for statement in block.split(";") if statement.strip()]


#: What becomes of jobs: schedule, location, scheduled, next run. The last is None for a job that is
#: disabled.
Expected = dict[tuple[str, str], tuple[str, str, datetime, datetime | None]]


def plain(schedule: str, next_run: str, location: str = "UTC") -> Any:
    return schedule, location, at(next_run), at(next_run)


class UpgradeTestCase(EngineTestCase):
    """A test on an older table."""

    def run_file(self, name: str) -> None:
        """Run the statements of a file as a stranger would."""
        statements = (OLD / name).read_text(encoding="utf-8").split(";\n")
        with closing(self.connect()) as connection:
            for statement in filter(None, map(str.strip, statements)):
                connection.cursor().execute(statement)
            connection.commit()

    def dialect(self) -> Dialect:
        config = self.config
        if isinstance(config, SQLiteConfig):
            return SQLite(config.path)
        return server(config)

    def upgrade(self, dry_run: bool = False, dialect: Dialect | None = None) -> str:
        """Upgrade the table; gives all that is said."""
        return "\n".join(room.upgrade(dialect or self.dialect(), dry_run))

    def refused(self, dialect: Dialect | None = None) -> str:
        """Upgrade the table, which is refused; gives why."""
        return str(self.assertRaises(StartupError, self.upgrade, dialect=dialect))

    def names(self) -> list[str]:
        """The names of the database's tables."""
        if self.engine == "sqlite":
            return [
                name for (name,) in self.sql("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
        return [name for (name,) in self.sql("SHOW TABLES")]

    def tables(self) -> dict[str, Any]:
        """A dump of the database: each table's definition and rows."""
        if self.engine == "sqlite":
            names = self.sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
            version = self.sql("PRAGMA user_version")
            tables = {
                name: (sql, sorted(map(repr, self.sql(f"SELECT * FROM {name}"))))
                for name, sql in names
                if sql.startswith("CREATE TABLE")
            }
            return {**tables, "": (sorted(names), version)}
        with closing(self.connect()) as connection:
            cursor = connection.cursor()

            def found(statement: str) -> list[Any]:
                cursor.execute(statement)
                return list(cursor.fetchall())

            return {
                name: (
                    found(f"SHOW CREATE TABLE {name}"),
                    sorted(map(repr, found(f"SELECT * FROM {name}"))),
                )
                for (name,) in found("SHOW TABLES")
            }

    def definition(self, table: str = "dalga") -> list[str]:
        """How a table is defined."""
        if self.engine == "sqlite":
            found = self.sql(
                "SELECT sql FROM sqlite_master WHERE tbl_name = %s ORDER BY sql", (table,)
            )
            return [str(sql) for (sql,) in found]
        ((_, sql),) = self.sql(f"SHOW CREATE TABLE {table}")
        return [line for line in sql.splitlines() if not line.startswith(") ENGINE")] + [
            word for word in sql.split(") ENGINE")[1].split() if "AUTO_INCREMENT" not in word
        ]

    async def jobs(self, expected: Expected) -> Expected:
        """What the store has of these jobs."""
        store = self.make_store()
        store.open()
        found: Expected = {}
        for path, body in expected:
            job = await self.job(store, JobKey(path, body))
            found[path, body] = (
                job.schedule.text,
                job.schedule.zone.location,
                job.scheduled,
                job.next_run,
            )
            self.assertEqual(job.disabled, job.due is None)
        counts = await store.counts()
        self.assertEqual(counts.total, len(expected))
        return found

    async def due(self) -> list[tuple[str, str]]:
        """The keys of what is due, as a claim gives them."""
        claimed = await self.make_store().claim(100, LONG)
        self.assertEqual({run.attempt for run in claimed.runs}, {1})
        return [(run.key.path, run.key.body) for run in claimed.runs]


#: For each number that it reads, a process of its own upgrades the table of the arguments and kills
#: itself at that step. Its status is printed.
_FORKS = """
import os, signal, sys, traceback
from dalga.store.mysql import MySQL
from dalga.store.sqlite import SQLite
engine, *arguments = sys.argv[1:]

def run(last):
    steps = []
    def step(name):
        steps.append(name)
        if len(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)
    if engine == "sqlite":
        dialect = SQLite(*arguments)
    else:
        host, port, *others = arguments
        dialect = MySQL([(host, int(port))], *others)
    upgrade(dialect, step)

for line in sys.stdin:
    child = os.fork()
    if not child:
        status = 1
        try:
            run(int(line))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class KilledTestCase(UpgradeTestCase):
    """A test of upgrades that are killed."""

    #: Python text with a function `upgrade`, which gets a dialect and a function to call at each
    #: step with a text.
    upgrade_script: str

    def setUp(self) -> None:
        super().setUp()
        config = self.config
        if isinstance(config, SQLiteConfig):
            arguments = [config.path]
        else:
            arguments = [config.host, str(config.port), config.db, config.table]
            arguments += [config.user, config.password]
        #: Forks a process for each upgrade, so that Dalga is imported once.
        self.forks = subprocess.Popen(
            [sys.executable, "-c", self.upgrade_script + _FORKS, self.engine, *arguments],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.forks.communicate, timeout=60)

    def kill(self, step: int) -> bool:
        """Whether the upgrade is killed at that step; else it is through."""
        assert self.forks.stdin is not None and self.forks.stdout is not None
        self.forks.stdin.write(f"{step}\n")
        self.forks.stdin.flush()
        status = int(self.forks.stdout.readline())
        if status != -signal.SIGKILL:
            self.assertEqual(status, 0)
        return status != 0


#: The schema version after this one.
NEXT = schema.VERSION + 1


class LaterVersion:
    """
    Dalga as it will be with the next schema version, as long as the block runs: the same columns.
    """

    def __enter__(self) -> None:
        self.kept: list[tuple[Any, str, Any]] = []
        for name, value in {
            "VERSION": NEXT,
            "COMMENT": f"dalga schema {NEXT}",
            "HEARTBEATS": f"_alive_{NEXT}",
            "HEARTBEATS_OF": {**schema.HEARTBEATS_OF, NEXT: f"_alive_{NEXT}"},
            "STATEMENTS": {
                **versions.STATEMENTS,
                schema.VERSION: {
                    "mysql": f"ALTER TABLE {{table}} COMMENT = 'dalga schema {NEXT}'",
                    "sqlite": f"PRAGMA user_version = {NEXT}",
                },
            },
        }.items():
            for module in (schema, mysql, sqlite, sqlitefile, versions, room):
                if hasattr(module, name):
                    self.kept.append((module, name, getattr(module, name)))
                    setattr(module, name, value)

    def __exit__(self, *failure: object) -> None:
        for module, name, value in self.kept:
            setattr(module, name, value)


#: Is called with a statement.
Watch = Callable[[str], object]

#: How statements begin that change something.
_CHANGE = re.compile(r"(ALTER|CREATE|DROP|INSERT|UPDATE) |PRAGMA user_version =")


class _Cursor:
    def __init__(self, cursor: Any, before: Watch, after: Watch) -> None:
        self._cursor = cursor
        self._before = before
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, sql: str, *arguments: Any) -> Any:
        if not _CHANGE.match(sql):
            return self._cursor.execute(sql, *arguments)
        self._before(sql)
        result = self._cursor.execute(sql, *arguments)
        self._after(sql)
        return result


class _Connection:
    def __init__(self, connection: Any, *watches: Watch) -> None:
        self._connection = connection
        self._watches = watches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def cursor(self) -> _Cursor:
        return _Cursor(self._connection.cursor(), *self._watches)


def watched(dialect: Dialect, before: Watch, after: Watch = lambda sql: None) -> Dialect:
    """The dialect, which tells of each statement of an upgrade that changes something."""
    upgrading = dialect.upgrading

    @contextmanager
    def watching() -> Iterator[Any]:
        with upgrading() as connection:
            yield _Connection(connection, before, after)

    vars(dialect)["upgrading"] = watching
    return dialect
