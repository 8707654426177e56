"""What the store counts: its transactions, by what they do and what came of them."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any

import pymysql
from twisted.internet import reactor

from dalga.database import build_store
from dalga.errors import JobNotFound, StoreUnavailable
from dalga.metrics import Counts, Metrics
from dalga.model.key import JobKey
from dalga.model.run import Delete
from dalga.store.table import JobsTable
from dalga.store.transactions import Conflict
from tests.stores import EACH_MINUTE, LONG, EngineTestCase, each_engine

KEY = JobKey("reports", "daily")


@each_engine(globals())
class TransactionMetricsTests(EngineTestCase):
    """Each transaction is counted once, when it has ended."""

    def make_store(self, guarded: bool = False) -> JobsTable:
        self.metrics = Metrics()
        store = build_store(self.config, reactor, self.random, metrics=self.metrics)
        store._guard = None
        self.stores.append(store)
        return store

    def counted(self) -> dict[tuple[str, ...], Any]:
        return dict(self.metrics.numbers()["dalga_db_transactions_total"])

    async def test_operations(self) -> None:
        """By the scheduler and by the API, those of a group once."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, Delete())])
        await self.assertFailure(store.trigger(KEY), JobNotFound)
        await store.claim(1, LONG)
        await store.now()
        await store.put(KEY, EACH_MINUTE)
        await store.get(KEY)
        await store.announce("web1")
        self.assertEqual(
            self.counted(),
            {
                ("put", "ok"): 2,
                ("claim", "ok"): 2,
                ("record", "ok"): 1,
                ("trigger", "refused"): 1,
                ("now", "ok"): 1,
                ("get", "ok"): 1,
                ("heartbeat", "ok"): 1,
            },
        )
        spread = self.metrics.numbers()["dalga_db_transaction_duration_seconds"]["put",]
        assert isinstance(spread, Counts)
        self.assertEqual(sum(spread.buckets), 2)
        self.assertGreater(spread.sum, 0.0)

    async def test_results(self) -> None:
        """A conflict is run again; a mistake of ours is not; a store that is closed refuses."""
        store = self.open_store()
        lane, tries = store._api_lane, [Conflict(), Conflict(), None, KeyError("ours")]

        def work(cursor: Any, now: datetime, since: float) -> None:
            if (error := tries.pop(0)) is not None:
                raise error

        await lane.run(work, "get")
        await self.assertFailure(lane.run(work, "get"), KeyError)
        self.assertEqual(
            self.counted(), {("get", "again"): 2, ("get", "ok"): 1, ("get", "failed"): 1}
        )
        self.assertEqual(self.metrics.database_is_up, True)

    async def test_abandoned(self) -> None:
        """Nobody waits any more."""
        store = self.open_store()
        asked = store._api_lane.run(lambda cursor, now, since: None, "list")
        asked.cancel()
        await self.assertFailure(asked, Exception)
        self.assertEqual(self.counted(), {("list", "abandoned"): 1})

    async def test_away(self) -> None:
        """The gauge says that the database is away, and that it is back."""
        store = self.open_store()
        dialect = store._dialect
        connect, away = dialect.connect, [True]

        gone: Exception = (
            sqlite3.OperationalError("disk I/O error")
            if self.engine == "sqlite"
            else pymysql.err.OperationalError(2003, "Can't connect")
        )

        def refuse() -> Any:
            if away:
                raise gone
            return connect()

        self.patch(dialect, "connect", refuse)
        await self.assertFailure(store.now(), StoreUnavailable)
        self.assertEqual(self.metrics.database_is_up, False)
        self.assertEqual(self.counted()["now", "unavailable"], 1)
        away.clear()
        await store.now()
        self.assertEqual(self.metrics.database_is_up, True)
