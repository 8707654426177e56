"""
Stores for tests, over each engine that the run was asked to cover.

``DALGA_TEST_ENGINES`` names the engines (a comma list of sqlite, mariadb and mysql). A server is
started once, when the first test needs it, and ends with the process; each test has a database of
its own. A server that can't be had is an error, never a skipped test.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

from twisted.trial.unittest import TestCase

from dalga.config.sections import MySQLConfig, SQLiteConfig
from dalga.database import build_store
from dalga.model.duration import seconds
from dalga.model.job import Job
from dalga.model.key import JobKey, RawKey
from dalga.model.plan import ScheduleRequest
from dalga.model.run import (
    LEASE_MARGIN,
    Delete,
    Disable,
    Finish,
    GiveBack,
    Reschedule,
    Retry,
    Run,
    Skip,
    Stop,
    Verdict,
)
from dalga.store.table import JobsTable
from tests.examples import ended
from tests.servers import Cluster, Server, start_server

LABELS = {"sqlite": "SQLite", "mariadb": "MariaDB", "mysql": "MySQL"}
ASKED = [
    name.strip()
    for name in os.environ.get("DALGA_TEST_ENGINES", "sqlite,mariadb").split(",")
    if name.strip()
]

#: Time-outs (seconds): one whose lease is over at once, and one whose lease outlasts any test.
OVER = -LEASE_MARGIN
LONG = 600.0

NOW = ScheduleRequest(one_off=True, immediate=True)
EACH_MINUTE = ScheduleRequest(interval=seconds(60))


def each_verdict(now: datetime) -> list[Verdict]:
    """One of each kind; the times are a minute ahead."""
    later = now + timedelta(minutes=1)
    return [
        Delete(),
        Reschedule(later, later),
        Reschedule(later, later, "given up"),
        Skip(later),
        Retry(later, "500"),
        Stop("given up"),
        Finish(),
        Disable(later, later, "x"),
        GiveBack(),
    ]


_servers: dict[str, Server] = {}


def server(engine: str) -> Server:
    """The server of this run."""
    if engine not in _servers:
        _servers[engine] = start_server(engine)
    return _servers[engine]


_clusters: list[Cluster] = []


def cluster() -> Cluster:
    """The Galera cluster of this run. Whoever takes a node away brings it back."""
    if not _clusters:
        _clusters.append(Cluster())
    return _clusters[0]


class EngineTestCase(TestCase):
    """A test over one engine; `each_engine` makes the classes that trial finds."""

    engine: str
    timeout = 60

    def setUp(self) -> None:
        self.random = Random(20141111)
        self.config = self.make_database()
        self.stores: list[JobsTable] = []
        self.addCleanup(self.close_stores)

    def make_database(self) -> MySQLConfig | SQLiteConfig:
        """A fresh database without a table."""
        if self.engine == "sqlite":
            folder = tempfile.mkdtemp(prefix="dalga-test-")
            self.addCleanup(shutil.rmtree, folder)
            return SQLiteConfig(os.path.join(folder, "dalga.sqlite"))
        host = server(self.engine)
        name = host.create_database()
        self.addCleanup(host.drop_database, name)
        return MySQLConfig(host.host, host.port, name, "dalga", host.user, host.password)

    @property
    def on_server(self) -> MySQLConfig:
        """The configuration, of a test that is about servers."""
        assert isinstance(self.config, MySQLConfig)
        return self.config

    @property
    def on_sqlite(self) -> SQLiteConfig:
        """The configuration, of a test that is about SQLite."""
        assert isinstance(self.config, SQLiteConfig)
        return self.config

    def make_store(self, guarded: bool = False) -> JobsTable:
        """One more instance's store on the test's table, not opened."""
        from twisted.internet import reactor

        store = build_store(self.config, reactor, self.random)
        if not guarded:
            store._guard = None  # the contract holds for many, also where the daemon allows but one
        self.stores.append(store)
        return store

    def open_store(self) -> JobsTable:
        """One more instance's store, with the table made."""
        store = self.make_store()
        if len(self.stores) == 1 and self.engine != "sqlite":
            store.create_table()
        store.open()
        return store

    async def record(self, store: JobsTable, verdicts: Sequence[tuple[Run, Verdict]]) -> list[Run]:
        """Record where nothing is locked; gives the runs whose verdict does not count."""
        recorded = await store.record([ended(run, verdict) for run, verdict in verdicts])
        self.assertEqual((recorded.postponed, recorded.already), ([], []))
        return [end.run for end in recorded.lost + recorded.overridden]

    async def close_stores(self) -> None:
        for store in self.stores:
            await store.close()

    def sql(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run SQL as a stranger would, and commit."""
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            if self.engine == "sqlite":
                statement = statement.replace("%s", "?")
            cursor.execute(statement, parameters)
            rows = list(cursor.fetchall())
            connection.commit()
        return rows

    def connect(self) -> Any:
        """A stranger's connection."""
        if isinstance(self.config, SQLiteConfig):
            return sqlite3.connect(self.config.path, timeout=10)
        return server(self.engine).connect(database=self.config.db)

    def index(self, statement: str, arguments: list[object]) -> object:
        """By which index a server would find a statement's rows; None: it reads them all."""
        form = "FORMAT=TRADITIONAL " if self.engine == "mysql" else ""
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(f"EXPLAIN {form}{statement.strip()}", arguments)
            columns = [column[0] for column in cursor.description]
            return dict(zip(columns, cursor.fetchall()[0], strict=True))["key"]

    def in_the_past(self, *keys: str) -> list[RawKey]:
        """Insert one-off jobs that are overdue, the first one longest; gives their keys."""
        made = []
        for number, name in enumerate(keys):
            key = RawKey(name, "body")
            text = self.key(name)
            due = f"2020-01-01 00:{number // 60:02}:{number % 60:02}.000000"
            self.sql(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
                " VALUES (%s, %s, '', %s, %s, %s)",
                (text, self.key("body"), due, due, due),
            )
            made.append(key)
        return made

    async def due_now(self, store: JobsTable, key: JobKey, **asked: Any) -> Run:
        """Put a job that is due, each minute unless something else is asked for, and claim it."""
        await store.put(key, replace(EACH_MINUTE, immediate=True, **asked))
        return await self.claim_one(store, key)

    async def claim_one(self, store: JobsTable, key: RawKey, timeout: float = LONG) -> Run:
        """Claim all that is due, which has to be that job and no other."""
        (run,) = (await store.claim(9, timeout)).runs
        self.assertEqual(run.key, key)
        return run

    def end_leases(self) -> None:
        """As if the time had gone by."""
        self.sql("UPDATE dalga SET due = '2020-01-01 00:00:00.000000' WHERE token IS NOT NULL")

    def key(self, text: str) -> Any:
        """A path or body as a column's value."""
        return text if self.engine == "sqlite" else text.encode()

    async def job(self, store: JobsTable, key: RawKey) -> Job:
        """A job that has to be there and readable."""
        job = await store.get(key)
        assert isinstance(job, Job), job
        return job


def each_engine(
    namespace: dict[str, Any], only: Sequence[str] = tuple(LABELS)
) -> Callable[[type], type]:
    """
    Put a subclass for each engine that was asked for into a test module.

    :param namespace: the module's globals.
    :param only: the engines that the tests are about.
    """

    def decorate(case: type) -> type:
        for engine in ASKED:
            if engine not in only:
                continue
            name = f"{LABELS[engine]}{case.__name__}"
            namespace[name] = type(
                name,
                (case,),
                {"engine": engine, "__module__": case.__module__, "__doc__": case.__doc__},
            )
        # The case itself has no engine, so trial must not find it.
        return type(case.__name__, (), {})

    return decorate
