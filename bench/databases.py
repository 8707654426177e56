"""Where the jobs of a benchmark are: on a private server, or in an SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.machine import Process
from tests.servers import Server, start_server

# What the server counts.
QUERIES, COMMITS, ROLLBACKS = "Questions", "Com_commit", "Com_rollback"
LOCK_WAITS = "Innodb_row_lock_waits"
# Statements that a record deletes rows by.
DELETES = "Com_delete_multi"

MILLION = 1_000_000
#: A day, as the schedule of a job.
DAY = "86400"

INSERT = (
    "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
    " VALUES (%s, 'bench', %s, %s, %s, %s)"
)

INSERT_MANY = (
    "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
    " WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last}) SELECT"
)


class Database(ABC):
    """A database, whose table the daemon has made."""

    #: Its section of the ini file.
    configuration = ""
    version = ""
    #: Where it runs; None without a server.
    server: Server | None = None

    @abstractmethod
    def renew(self) -> None:
        """Throw all away."""

    @abstractmethod
    def cpu(self) -> float:
        """Seconds of CPU that the server has taken so far; 0 where there is none."""

    @abstractmethod
    def counter(self, name: str) -> int:
        """What the server has counted so far (SHOW GLOBAL STATUS); 0 where there is none."""

    @abstractmethod
    def connect(self) -> contextlib.AbstractContextManager[Any]:
        """A connection of one's own."""

    @abstractmethod
    def prepare(self, sql: str) -> str:
        """SQL as the driver takes it."""

    @abstractmethod
    def insert_many(self, prefix: str, count: int, schedule: str, due: datetime) -> None:
        """Put `count` jobs into the table that are all due then, by the quickest way there is."""

    @abstractmethod
    def prepare_recursion(self, cursor: Any, depth: int) -> None:
        """Let a session's WITH RECURSIVE repeat so often, and its || concatenate."""

    @abstractmethod
    def analyze(self, *tables: str) -> None:
        """Let a server learn how many rows of which values there are. SQLite is not told."""

    def insert(self, jobs: Iterable[tuple[str, datetime]], schedule: str = "") -> None:
        """Put jobs, each a path and its due time, into the table."""
        with self.connect() as connection:
            cursor = connection.cursor()
            rows = ((path, schedule, *[text(due)] * 3) for path, due in jobs)
            cursor.executemany(self.prepare(INSERT), rows)
            connection.commit()

    def count(self, where: str = "1 = 1", table: str = "dalga") -> int:
        """How many rows of a table there are of a kind."""
        with self.connect() as connection:
            cursor = connection.cursor()
            cursor.execute(f"SELECT COUNT(*) FROM {table} WHERE {where}")
            ((found,),) = cursor.fetchall()
        return int(found)


class ServerDatabase(Database):
    """On a private MariaDB or MySQL."""

    def __init__(self, server: Server) -> None:
        self.server = self._server = server
        assert server.pid is not None
        self._process = Process(server.pid)
        self.version = server.version

    def renew(self) -> None:
        name = self._server.create_database("bench")
        self.configuration = (
            f"[mysql]\nhost = {self._server.host}\nport = {self._server.port}\ndb = {name}\n"
            f'user = {self._server.user}\npassword = "{self._server.password}"\n'
        )

    def cpu(self) -> float:
        return self._process.cpu()

    def counter(self, name: str) -> int:
        with self.connect() as connection:
            cursor = connection.cursor()
            cursor.execute("SHOW GLOBAL STATUS LIKE %s", (name,))
            ((_, found),) = cursor.fetchall()
        return int(found)

    def connect(self) -> contextlib.AbstractContextManager[Any]:
        return self._server.connect(database="bench")

    def prepare(self, sql: str) -> str:
        return sql

    def prepare_recursion(self, cursor: Any, depth: int) -> None:
        name = "max_recursive_iterations" if "Maria" in self.version else "cte_max_recursion_depth"
        cursor.execute(f"SET SESSION {name} = {depth + 1}")
        cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',PIPES_AS_CONCAT')")

    def analyze(self, *tables: str) -> None:
        with self.connect() as connection:
            cursor = connection.cursor()
            for table in tables:
                cursor.execute(f"ANALYZE TABLE {table}")

    def insert_many(self, prefix: str, count: int, schedule: str, due: datetime) -> None:
        with self.connect() as connection:
            cursor = connection.cursor()
            self.prepare_recursion(cursor, count)
            numbers = INSERT_MANY.format(last=count - 1)
            cursor.execute(
                f"{numbers} CONCAT(%s, i), 'bench', %s, %s, %s, %s FROM n",
                (prefix, schedule, *[text(due)] * 3),
            )
            connection.commit()
        self.analyze("dalga")


class FileDatabase(Database):
    """In an SQLite file."""

    version = sqlite3.sqlite_version

    def __init__(self, folder: Path) -> None:
        self._path = folder / "bench.sqlite"
        self.configuration = f"[sqlite]\npath = {self._path}\n"

    def renew(self) -> None:
        for path in self._path.parent.glob("bench.sqlite*"):
            path.unlink()

    def cpu(self) -> float:
        return 0.0

    def counter(self, name: str) -> int:
        return 0

    def connect(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.closing(sqlite3.connect(self._path, timeout=30))

    def prepare(self, sql: str) -> str:
        return sql.replace("%s", "?")

    def prepare_recursion(self, cursor: Any, depth: int) -> None:
        pass  # neither has to be said

    def analyze(self, *tables: str) -> None:
        pass  # a daemon's file is not analyzed either

    def insert_many(self, prefix: str, count: int, schedule: str, due: datetime) -> None:
        with self.connect() as connection:
            connection.execute(
                f"{INSERT_MANY.format(last=count - 1)} ? || i, 'bench', ?, ?, ?, ? FROM n",
                (prefix, schedule, *[text(due)] * 3),
            )
            connection.commit()


def text(instant: datetime) -> str:
    """A time as both take it."""
    return instant.strftime("%Y-%m-%d %H:%M:%S.%f")


@contextlib.contextmanager
def running_database(engine: str, folder: Path) -> Iterator[Database]:
    """A database that is gone afterwards."""
    if engine == "sqlite":
        folder.mkdir()
        yield FileDatabase(folder)
        return
    with start_server(engine) as server:
        yield ServerDatabase(server)
