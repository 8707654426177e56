"""What a server's settings, an account's rights and missing tables come to at the start."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from twisted.internet.defer import gatherResults

from dalga.config import MySQLConfig
from dalga.job import JobKey, Reschedule
from dalga.store.table import JobsTable
from tests.stores import LONG, NOW, EngineTestCase, each_engine, server

KEYS = [JobKey("check_feed", str(number)) for number in range(3)]


async def walk(case: EngineTestCase, store: JobsTable) -> None:
    """All that a daemon does with a table."""
    await gatherResults([store.put(key, NOW) for key in KEYS])
    page = await store.page(None, None, 9)
    case.assertEqual([job.key for job in page.jobs], KEYS)
    await store.trigger(KEYS[0])
    dues = await store.upcoming(timedelta(seconds=2), 9)
    case.assertEqual(len(dues.times), 3)
    claimed = await store.claim(9, LONG)
    case.assertEqual(sorted(run.key for run in claimed.runs), KEYS)
    later = claimed.now + timedelta(minutes=1)
    await case.record(store, [(run, Reschedule(later, later)) for run in claimed.runs])
    await store.disable(KEYS[1])
    await store.enable(KEYS[1])
    await store.announce("gone")
    case.sql("UPDATE dalga_heartbeats SET seen = '2020-01-01 00:00:00.000000'")
    await store.announce("here")
    await store.depart("here")
    case.assertEqual(case.sql("SELECT COUNT(*) FROM dalga_heartbeats"), [(0,)])
    counts = await store.counts()
    case.assertEqual((counts.total, counts.pending, counts.running), (3, 0, 0))
    for key in KEYS:
        await store.delete(key)
    case.assertEqual(case.sql("SELECT COUNT(*) FROM dalga"), [(0,)])


@each_engine(globals())
class WalkTests(EngineTestCase):
    """Without any strange settings."""

    async def test_walk(self) -> None:
        await walk(self, self.open_store())


#: What an administrator may have set for all sessions, by who has it, and what may come of it.
SETTINGS = {
    "": [
        "sql_safe_updates = 1",
        "sql_select_limit = 1",
        "max_join_size = 1, sql_big_selects = 0",
        "unique_checks = 0, foreign_key_checks = 0",
        "completion_type = 'CHAIN'",
        "completion_type = 'RELEASE'",
        "timestamp = 1000000000",
        "time_zone = '+05:30'",
        "sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'",
        "sql_auto_is_null = 1",
        "innodb_lock_wait_timeout = 100000",
        "autocommit = 1",
        "NAMES latin5",
        "collation_connection = utf8mb4_bin",
        "SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SESSION TRANSACTION READ ONLY",
    ],
    "mariadb": [
        "sql_mode = 'ORACLE'",
        "old_mode = 'ZERO_DATE_TIME_CAST', old = 1",
        "innodb_snapshot_isolation = 1",
        "sql_if_exists = 1",
        "optimizer_switch = 'derived_merge=off,derived_with_keys=off,index_merge=off'",
    ],
    "mysql": [
        "optimizer_switch = 'derived_merge=off,index_merge=off,prefer_ordering_index=off'",
    ],
}


@each_engine(globals(), only=("mariadb", "mysql"))
class SessionTests(EngineTestCase):
    """Whatever is set for all sessions, ours do what they always do."""

    config: MySQLConfig

    def connect(self) -> Any:
        """An administrator's connection, for which there is no init_connect."""
        usual = "SET SESSION TRANSACTION READ WRITE"
        return server(self.engine).connect_as_root(database=self.config.db, init_command=usual)

    def set_for_all(self, name: str, value: object) -> Any:
        """Set a server's variable; gives what it was."""
        with server(self.engine).connect_as_root() as root:
            cursor = root.cursor()
            cursor.execute(f"SELECT @@GLOBAL.{name}")
            ((before,),) = cursor.fetchall()
            cursor.execute(f"SET GLOBAL {name} = %s", (value,))
        return before

    async def test_settings(self) -> None:
        self.make_store().create_table()
        self.addCleanup(self.set_for_all, "init_connect", "")
        for setting in [*SETTINGS[""], *SETTINGS[self.engine]]:
            self.set_for_all("init_connect", f"SET {setting}")
            try:
                store = self.make_store()
                store.open()
                await walk(self, store)
                await store.close()
            except Exception as error:
                raise AssertionError(f"with {setting}: {error!r}") from error

    async def test_global_settings(self) -> None:
        """As in the server's configuration; these are looked at where a session begins."""
        read_only = "transaction_read_only" if self.engine == "mysql" else "tx_read_only"
        settings = [(read_only, 1), ("autocommit", 0), ("completion_type", 2)]
        if self.engine == "mysql":
            settings.append(("sql_require_primary_key", 1))
        for name, value in settings:
            before = self.set_for_all(name, value)
            self.addCleanup(self.set_for_all, name, before)
        await walk(self, self.open_store())

    async def test_transactions(self) -> None:
        """Each is one, and the session outlives it, whatever PyMySQL was told at the log-in."""
        self.addCleanup(self.set_for_all, "autocommit", self.set_for_all("autocommit", 0))
        self.addCleanup(self.set_for_all, "init_connect", "")
        hostile = "SET autocommit = 1, completion_type = 'RELEASE', unique_checks = 0"
        self.set_for_all("init_connect", hostile)
        self.config = replace(self.config, max_open_conns=2)
        store = self.open_store()

        def look(cursor: Any, now: datetime, since: float) -> Any:
            cursor.execute("SELECT @@autocommit, @@unique_checks, CONNECTION_ID()")
            return cursor.fetchall()[0]

        before = await store._runs.run(look)
        self.assertEqual(before[:2], (0, 1))
        self.assertEqual(await store._runs.run(look), before)
