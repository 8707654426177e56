"""What a server's settings, an account's rights and missing tables come to at the start."""

from __future__ import annotations

import os
import re
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any

from twisted.internet.defer import gatherResults

from dalga import database
from dalga.config.sections import MySQLConfig
from dalga.errors import StartupError, TableExists
from dalga.model.delivery import MOST_PAYLOAD
from dalga.model.key import JobKey
from dalga.model.run import Reschedule
from dalga.store.dialect import BY_ID
from dalga.store.runsql import RunStatements
from dalga.store.schema import BESIDE
from dalga.store.table import JobsTable
from tests.lists import by_key
from tests.servers import start_server
from tests.stores import LONG, NOW, EngineTestCase, each_engine, server

#: All tables, by name.
TABLES = ("dalga", "dalga_alive_6", *(f"dalga{suffix}" for suffix in BESIDE))

KEYS = [JobKey("check_feed", str(number)) for number in range(3)]


async def walk(case: EngineTestCase, store: JobsTable) -> None:
    """All that a daemon does with a table."""
    await gatherResults([store.put(key, NOW) for key in KEYS])
    page = await store.page(by_key(None, None, 9))
    case.assertEqual([job.key for job in page.jobs], KEYS)
    await store.trigger(KEYS[0])
    dues = await store.due_within(timedelta(seconds=2), 9)
    case.assertEqual(len(dues.times), 3)
    claimed = await store.claim(9, LONG)
    case.assertEqual(sorted(run.key for run in claimed.runs), KEYS)
    later = claimed.now + timedelta(minutes=1)
    await case.record(store, [(run, Reschedule(later, later)) for run in claimed.runs])
    await store.disable(KEYS[1])
    await store.enable(KEYS[1])
    await store.announce("gone")
    case.sql("UPDATE dalga_alive_6 SET seen = '2020-01-01 00:00:00.000000'")
    await store.announce("here")
    await store.depart("here")
    case.assertEqual(case.sql("SELECT COUNT(*) FROM dalga_alive_6"), [(0,)])
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
        hostile = (
            "SET autocommit = 1, completion_type = 'RELEASE', unique_checks = 0, "
            "time_zone = '+05:30'"
        )
        self.set_for_all("init_connect", hostile)
        self.config = replace(self.config, max_open_conns=2)
        store = self.open_store()

        def look(cursor: Any, now: datetime, since: float) -> Any:
            cursor.execute("SELECT @@autocommit, @@unique_checks, @@time_zone, CONNECTION_ID()")
            return cursor.fetchall()[0]

        before = await store._run_lane.run(look)
        self.assertEqual(before[:3], (0, 1, "+00:00"))
        self.assertEqual(await store._run_lane.run(look), before)


@each_engine(globals(), only=("mariadb", "mysql"))
class TrialTests(EngineTestCase):
    """What the daemon could not do without is found at the start, and said in a sentence."""

    config: MySQLConfig
    timeout = 120

    def refusal(self) -> str:
        """The sentence with which a daemon does not start; the table is as before."""
        before = self.rows()
        sentence = str(self.assertRaises(StartupError, self.make_store().open))
        self.assertNotIn("\n", sentence)
        self.assertEqual(self.rows(), before)
        return sentence

    def rows(self) -> list[Any]:
        """All that is in the tables."""
        with closing(server(self.engine).connect_as_root(database=self.config.db)) as root:
            cursor = root.cursor()
            found = []
            for table in TABLES:
                cursor.execute(f"SELECT * FROM {table}")
                found.append(cursor.fetchall())
        return found

    def administer(self, *statements: str) -> None:
        with closing(server(self.engine).connect_as_root(database=self.config.db)) as root:
            for statement in statements:
                root.cursor().execute(statement)

    def test_nothing_is_left(self) -> None:
        self.open_store()
        self.assertEqual(self.rows(), [()] * len(TABLES))

    def test_binlog_format(self) -> None:
        """With the log by statements the engines refuse what is read as committed only."""
        own = start_server(self.engine, ["--log-bin", "--binlog-format=STATEMENT"])
        self.addCleanup(own.stop)
        name = own.create_database()
        self.config = replace(self.config, host=own.host, port=own.port, db=name)
        store = self.make_store()
        store.create_table()
        sentence = str(self.assertRaises(StartupError, store.open))
        self.assertIn("can't write to the table `dalga` and those beside it in ", sentence)
        self.assertIn("BINLOG_FORMAT = STATEMENT", sentence)
        self.assertTrue(sentence.endswith("; set binlog_format = ROW, or MIXED, on the server"))
        with closing(own.connect_as_root()) as root:
            root.cursor().execute("SET GLOBAL binlog_format = 'MIXED'")
        self.make_store().open()

    def test_rights(self) -> None:
        """Each that is missing is named, on each of the tables."""
        self.make_store().create_table()
        name = f"few_{os.urandom(4).hex()}"
        self.administer(
            f"CREATE USER '{name}'@'127.0.0.1' IDENTIFIED BY 'a'",
            f"GRANT SELECT ON {self.config.db}.* TO '{name}'@'127.0.0.1'",
        )
        self.addCleanup(self.administer, f"DROP USER '{name}'@'127.0.0.1'")
        self.config = replace(self.config, user=name, password="a")
        grant = "GRANT {} ON {}.{} TO '{}'@'127.0.0.1'"
        *first, last = (f"`{table}`" for table in sorted(TABLES))
        tables = f"{', '.join(first)} and {last}"
        cure = f"; grant SELECT, INSERT, UPDATE and DELETE on {tables} to user '{name}'"
        rights = ("INSERT", "UPDATE", "DELETE")
        missing = {(right, table) for right in rights for table in TABLES}
        while missing:
            sentence = self.refusal()
            self.assertIn(f" command denied to user '{name}'", sentence)
            self.assertTrue(sentence.endswith(cure), sentence)
            told, _, where = sentence.partition(" command denied ")
            # MySQL names one right, MariaDB all that the statement lacks; MySQL no database.
            (table,) = re.findall(r"for table (?:`\w+`\.)?['`](\w+)['`]", where)
            right = next(each for each in rights if each in told and (each, table) in missing)
            self.administer(grant.format(right, self.config.db, table, name))
            missing.remove((right, table))
        self.make_store().open()

    def test_tables_that_may_not_be_made(self) -> None:
        name = f"few_{os.urandom(4).hex()}"
        self.administer(
            f"CREATE USER '{name}'@'127.0.0.1' IDENTIFIED BY 'a'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {self.config.db}.* TO '{name}'@'127.0.0.1'",
        )
        self.addCleanup(self.administer, f"DROP USER '{name}'@'127.0.0.1'")
        self.config = replace(self.config, user=name, password="a")
        sentence = str(self.assertRaises(StartupError, self.make_store().create_table))
        self.assertIn(f"CREATE command denied to user '{name}'", sentence)
        cure = f"; grant CREATE on the tables of database '{self.config.db}' to user '{name}'"
        self.assertTrue(sentence.endswith(cure), sentence)

    def test_a_table_that_may_not_be_seen(self) -> None:
        self.make_store().create_table()
        name = f"few_{os.urandom(4).hex()}"
        self.administer(
            f"CREATE USER '{name}'@'127.0.0.1' IDENTIFIED BY 'a'",
            f"GRANT ALL ON {self.config.db}.dalga TO '{name}'@'127.0.0.1'",
        )
        self.addCleanup(self.administer, f"DROP USER '{name}'@'127.0.0.1'")
        self.config = replace(self.config, user=name, password="a")
        sentence = self.refusal()
        self.assertIn("there is no table `dalga_alive_6` in ", sentence)
        self.assertIn(f"that user '{name}' may use: create it with", sentence)

    def test_triggers(self) -> None:
        """One that refuses is quoted; one that changes what is written is noticed."""
        self.make_store().create_table()
        refuses = "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no jobs on Sundays'"
        for event, table in [
            ("INSERT", "dalga"),
            ("UPDATE", "dalga"),
            ("DELETE", "dalga"),
            ("INSERT", "dalga_alive_6"),
            ("DELETE", "dalga_alive_6"),
            *product(("INSERT", "DELETE"), TABLES[2:]),
            *(("UPDATE", table) for table in TABLES[4:]),
        ]:
            self.administer(f"CREATE TRIGGER t BEFORE {event} ON {table} FOR EACH ROW {refuses}")
            self.assertTrue(self.refusal().endswith(": no jobs on Sundays"))
            self.administer("DROP TRIGGER t")
        for event, table, change in [
            ("INSERT", "dalga", "SET NEW.scheduled = NOW()"),
            ("INSERT", "dalga", "SET NEW.body = LOWER(CONVERT(NEW.body USING utf8mb4))"),
            ("UPDATE", "dalga", "SET NEW.error = 'none'"),
            ("UPDATE", "dalga", "SET NEW.started = NULL"),
            ("UPDATE", "dalga", "SET NEW.disabled = 1"),
            ("UPDATE", "dalga", "SET NEW.error = LEFT(NEW.error, 9)"),
            ("UPDATE", "dalga", "SET NEW.token = IF(NEW.attempts > 1, REPEAT('x', 16), NEW.token)"),
            ("UPDATE", "dalga", "SET NEW.version = 7"),
            ("INSERT", "dalga_details", "SET NEW.payload = LEFT(NEW.payload, 9)"),
            ("INSERT", "dalga_tags", "SET NEW.tag = 'tag'"),
            ("UPDATE", "dalga_keys", "SET NEW.version = 7"),
            ("INSERT", "dalga_runs", "SET NEW.started = NULL"),
            ("INSERT", "dalga_runs", "SET NEW.jobkey = 7"),
            ("UPDATE", "dalga_alerts", "SET NEW.content = LEFT(NEW.content, 9)"),
            ("INSERT", "dalga_incidents", "SET NEW.since = NOW()"),
            ("INSERT", "dalga_expected", "SET NEW.silent = NULL"),
            ("UPDATE", "dalga_stats", "SET NEW.duration = ''"),
            ("UPDATE", "dalga_actions", "SET NEW.error = 'none'"),
        ]:
            self.administer(f"CREATE TRIGGER t BEFORE {event} ON {table} FOR EACH ROW {change}")
            self.assertIn("does not keep what is written to it", self.refusal(), change)
            self.administer("DROP TRIGGER t")
        self.make_store().open()

    def test_rows_that_are_not_found_again(self) -> None:
        """Each claim would have to read its rows a second time, and nobody would know why."""
        self.make_store().create_table()
        sql = self.make_store()._runsql
        lost = sql._take(f"{BY_ID} AND body IN ([%(found)s, ...])")
        self.patch(RunStatements, "take_found", lost)
        self.assertIn("does not find the rows again that it has read", self.refusal())
        self.patch(RunStatements, "_found", "NULL")
        self.assertIn("a claim can't read the text of a row", self.refusal())

    def test_columns_of_another_type(self) -> None:
        """As a tool that copies databases may make them."""
        self.make_store().create_table()
        for change, back in [
            ("MODIFY anchor DATETIME NOT NULL", "MODIFY anchor DATETIME(6) NOT NULL"),
            ("MODIFY due DATETIME", "MODIFY due DATETIME(6)"),
            ("MODIFY started DATETIME", "MODIFY started DATETIME(6)"),
            ("MODIFY error VARCHAR(99)", "MODIFY error VARCHAR(255)"),
            ("MODIFY error VARCHAR(255) CHARSET latin1", "MODIFY error VARCHAR(255)"),
            (
                "MODIFY body VARCHAR(255) COLLATE utf8mb4_general_ci NOT NULL",
                "MODIFY body VARBINARY(1020) NOT NULL",
            ),
            ("MODIFY token BINARY(8)", "MODIFY token BINARY(16)"),
            ("MODIFY version INT UNSIGNED NOT NULL", "MODIFY version BIGINT UNSIGNED NOT NULL"),
            ("ADD owner VARCHAR(20) NOT NULL", "DROP owner"),
        ]:
            self.administer(f"ALTER TABLE dalga {change}")
            self.refusal()
            self.administer(f"ALTER TABLE dalga {back}")
        for table, change, back in [
            ("details", "MODIFY payload MEDIUMTEXT", "MODIFY payload MEDIUMBLOB"),
            ("details", "MODIFY payload TINYBLOB", "MODIFY payload MEDIUMBLOB"),
            ("details", "MODIFY members VARCHAR(9)", "MODIFY members MEDIUMTEXT"),
            (
                "tags",
                "MODIFY tag VARCHAR(64) COLLATE utf8mb4_general_ci",
                "MODIFY tag VARBINARY(256)",
            ),
            ("keys", "MODIFY digest BINARY(20) NOT NULL", "MODIFY digest BINARY(32) NOT NULL"),
            ("keys", "MODIFY version INT NOT NULL", "MODIFY version BIGINT UNSIGNED NOT NULL"),
        ]:
            self.administer(f"ALTER TABLE dalga_{table} {change}")
            self.refusal()
            self.administer(f"ALTER TABLE dalga_{table} {back}")
        self.make_store().open()

    def test_a_server_that_only_reads(self) -> None:
        own = start_server(self.engine)
        self.addCleanup(own.stop)
        name = own.create_database()
        self.config = replace(self.config, host=own.host, port=own.port, db=name)
        self.make_store().create_table()
        with closing(own.connect_as_root()) as root:
            root.cursor().execute("SET GLOBAL read_only = 1")
        sentence = str(self.assertRaises(StartupError, self.make_store().open))
        self.assertTrue(sentence.endswith("; it has to be a server that takes writes"), sentence)
        own.terminate()
        own.start(["--innodb-read-only=1"])
        self.assertRaises(StartupError, self.make_store().open)

    def test_packets(self) -> None:
        """Statements that the server would not take are missed before one is that long."""
        self.make_store().create_table()
        self.addCleanup(self.administer, "SET GLOBAL max_allowed_packet = 16777216")
        self.administer("SET GLOBAL max_allowed_packet = 524288")
        self.assertIn("set max_allowed_packet = 16M on the server", self.refusal())
        self.administer("SET GLOBAL max_allowed_packet = 1048576")
        self.make_store().open()
        # The payloads that the configuration allows have to fit, too.
        dialect = database.server(self.config, max_payload=MOST_PAYLOAD)
        with closing(dialect.connect()) as connection:
            error = self.assertRaises(StartupError, dialect.check_table, connection.cursor())
        self.assertIn(f"up to {2 * MOST_PAYLOAD + 2**17}: set max_allowed_packet", str(error))

    def test_sessions(self) -> None:
        """An account that may have fewer than an instance uses is told by what to make that do."""
        self.make_store().create_table()
        name = f"few_{os.urandom(4).hex()}"
        self.administer(
            f"CREATE USER '{name}'@'127.0.0.1' IDENTIFIED BY 'a' WITH MAX_USER_CONNECTIONS 3",
            f"GRANT ALL ON {self.config.db}.* TO '{name}'@'127.0.0.1'",
        )
        self.addCleanup(self.administer, f"DROP USER '{name}'@'127.0.0.1'")
        self.config = replace(self.config, user=name, password="a")
        sentence = self.refusal()
        self.assertIn(f"user '{name}' may have 3 sessions at once at database ", sentence)
        self.assertIn("set maxOpenConns = 3 in [mysql], or raise max_user_connections", sentence)
        for workers, do in [
            (2, "set maxOpenConns = 1 in [mysql], or raise"),
            (4, "set workers = 3 and maxOpenConns = 1, or raise"),
        ]:
            mysql = database.server(self.config, workers)
            with closing(mysql.connect()) as connection:
                cursor = connection.cursor()
                error = self.assertRaises(StartupError, mysql.check_table, cursor)
            expected = f"and {workers} workers have up to 7 each: {do} max_user_connections"
            self.assertIn(expected, str(error))
        self.config = replace(self.config, max_open_conns=3)
        self.make_store().open()

    def test_storage_engines(self) -> None:
        """What has no transactions is refused before anything is written to it."""
        self.make_store().create_table()
        # The keys are too long for MySQL's.
        tables = ["dalga", "dalga_alive_6"] if self.engine == "mariadb" else ["dalga_alive_6"]
        for table in tables:
            self.administer(f"ALTER TABLE {table} ENGINE = MyISAM")
            sentence = self.refusal()
            self.assertIn(f"the table `{table}` in ", sentence)
            self.assertTrue(sentence.endswith(f"ALTER TABLE `{table}` ENGINE = InnoDB"), sentence)
            self.administer(f"ALTER TABLE {table} ENGINE = InnoDB")

    def test_a_lock(self) -> None:
        """What is over soon, such as a backup's lock, keeps no daemon from starting."""
        self.make_store().create_table()
        with closing(self.connect()) as stranger:
            cursor = stranger.cursor()
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            cursor.execute("SELECT COUNT(*) FROM dalga")
            cursor.fetchall()
            self.make_store().open()
            stranger.rollback()
            cursor.execute("LOCK TABLES dalga WRITE, dalga_alive_6 WRITE")
            self.make_store().open()


@each_engine(globals())
class MissingTests(EngineTestCase):
    """Tables that are not all there."""

    async def test_signs_of_life(self) -> None:
        """The table of instances is missed at the start, and made again by itself."""
        store = self.open_store()
        await store.put(KEYS[0], NOW)
        await store.close()
        self.sql("DROP TABLE dalga_alive_6")
        if self.engine != "sqlite":
            sentence = str(self.assertRaises(StartupError, self.make_store().open))
            self.assertIn("there is no table `dalga_alive_6` in ", sentence)
            self.assertIn("create it with dalga --config FILE --create-table", sentence)
            said = self.make_store().create_table()
            self.assertTrue(said.startswith("created the table `dalga_alive_6` in "), said)
            self.assertRaises(TableExists, self.make_store().create_table)
        store = self.make_store()
        store.open()
        await store.announce("here")
        self.assertEqual((await store.counts()).instances, 1)
        await self.job(store, KEYS[0])

    def test_all(self) -> None:
        quote = '"' if self.engine == "sqlite" else "`"
        said = self.make_store().create_table()
        self.assertIn(
            "created the tables `dalga`, `dalga_audit`, `dalga_actions`, `dalga_stats`, "
            "`dalga_expected`, `dalga_incidents`, `dalga_alerts`, `dalga_runs`, `dalga_keys`, "
            "`dalga_tags`, `dalga_details` and `dalga_alive_6` in ",
            said.replace(quote, "`"),
        )

    def test_columns(self) -> None:
        """Each that is missing is named."""
        self.open_store()
        for table, columns in [
            ("dalga", ["options"]),
            ("dalga", ["skipped", "override"]),
            ("dalga", ["version", "extras"]),
            ("dalga_alive_6", ["seen"]),
            ("dalga_details", ["members"]),
            ("dalga_keys", ["digest"]),
            ("dalga_runs", ["more", "answer"]),
            ("dalga_stats", ["duration"]),
            ("dalga_audit", ["old", "new"]),
        ]:
            for column in columns:
                self.sql(f"ALTER TABLE {table} DROP COLUMN {column}")
            for start in (self.make_store().open, self.make_store().create_table):
                sentence = str(self.assertRaises(StartupError, start))
                self.assertIn(f"({', '.join(columns)}): restore it from a backup", sentence)
                self.assertIn(table, sentence)
            for name in TABLES:
                self.sql(f"DROP TABLE {name}")
            self.make_store().create_table()


@each_engine(globals(), only=("sqlite",))
class FileTests(EngineTestCase):
    """The embedded tables."""

    def test_an_index(self) -> None:
        """It is made again; keys that are not kept apart are none that can be mended."""
        self.open_store()
        indexes = self.indexes()
        for index in ("dalga_due", "dalga_state"):
            self.sql(f"DROP INDEX {index}")
            self.make_store().open()
            self.assertEqual(self.indexes(), indexes)
        ((definition,),) = self.sql("SELECT sql FROM sqlite_master WHERE name = 'dalga'")
        self.sql("DROP TABLE dalga")
        self.sql(definition.replace("UNIQUE (path, body)", "CHECK (1)"))
        sentence = str(self.assertRaises(StartupError, self.make_store().open))
        self.assertIn('can\'t write to the table "dalga" in SQLite file', sentence)
        self.assertIn("UNIQUE constraint", sentence)

    def indexes(self) -> list[Any]:
        return self.sql(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
        )

    def test_a_trigger(self) -> None:
        self.open_store()
        refuses = "BEGIN SELECT RAISE(ABORT, 'no jobs on Sundays'); END"
        self.sql(f"CREATE TRIGGER t BEFORE UPDATE ON dalga {refuses}")
        sentence = str(self.assertRaises(StartupError, self.make_store().open))
        self.assertTrue(sentence.endswith(": no jobs on Sundays"), sentence)
        self.assertEqual(self.sql("SELECT * FROM dalga"), [])
