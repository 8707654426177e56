"""What the store makes of errors: whose they are, and what they say of the transaction."""

from __future__ import annotations

import errno
import sqlite3
import struct
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Any

import pymysql
from pymysql.connections import MysqlPacket  # type: ignore[attr-defined]  # not in its stubs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from dalga.config.sections import MySQLConfig
from dalga.errors import StoreUnavailable
from dalga.model.key import JobKey
from dalga.model.run import Delete, Disable, GiveBack, Reschedule, Retry, Run, Stop, Verdict
from dalga.store import Recorded
from dalga.store.dialect import Trouble
from dalga.store.mysql import MySQL
from dalga.store.rows import was_recorded
from dalga.store.selected import Marks
from dalga.store.sqlite import SQLite
from dalga.store.table import JobsTable
from dalga.store.transactions import CONFLICT_ATTEMPTS, Conflict
from tests.erring import ErringProxy
from tests.examples import MINUTE, RUN, ended
from tests.stores import (
    EACH_MINUTE,
    LONG,
    NOW,
    OVER,
    EngineTestCase,
    each_engine,
    each_verdict,
    server,
)

KEY = JobKey("check_feed", "1234")
COMMIT = b"\x03COMMIT"


def said(number: int, words: str = "words", state: str = "HY000") -> pymysql.MySQLError:
    """An error of the server's, as PyMySQL raises it."""
    content = b"\xff" + number.to_bytes(2, "little") + f"#{state}{words}".encode()
    try:
        MysqlPacket(content, "utf8").raise_for_error()
    except pymysql.MySQLError as error:
        return error
    raise AssertionError(number)


def misread(content: bytes) -> Exception:
    """What PyMySQL comes to when it reads what no server would say."""
    try:
        MysqlPacket(content, "utf8").read_length_coded_string()
        MysqlPacket(content, "utf8").read_struct("<I")
    except Exception as error:
        return error
    raise AssertionError(content)


class TroubleTests(SynchronousTestCase):
    """P2: an error that is on no list is one of a database that can't be used now."""

    def test_mysql(self) -> None:
        dialect = MySQL([("127.0.0.1", 1)], "test", "dalga", "root", "")
        for error, expected in [
            (said(9001, "Max connect timeout reached while reaching hostgroup 0"), "UNAVAILABLE"),
            (said(1105, "Unknown error"), "UNAVAILABLE"),
            (said(1105, "vttablet: rpc error: code = Unavailable"), "UNAVAILABLE"),
            (said(1105, "context deadline exceeded"), "UNAVAILABLE"),
            (said(3100, "Error on observer while running replication hook"), "UNAVAILABLE"),
            (said(3797, "The table is being altered"), "UNAVAILABLE"),
            (said(1317, "Query execution was interrupted", "70100"), "UNAVAILABLE"),
            (said(1180, "Got error 1 during COMMIT"), "UNAVAILABLE"),
            (said(1203, "too many connections", "42000"), "UNAVAILABLE"),
            (said(1227, "access denied", "42000"), "UNAVAILABLE"),
            (said(1146, "no such table", "42S02"), "LOST"),
            (said(610, "a proxy's own"), "UNAVAILABLE"),
            (said(8501, "execution result undetermined"), "UNAVAILABLE"),
            (said(9005, "Region is unavailable"), "UNAVAILABLE"),
            (said(1613, "the branch timed out", "XA106"), "UNAVAILABLE"),
            (said(65535), "UNAVAILABLE"),
            # What says that the transaction was rolled back
            (said(1213, "Deadlock found", "40001"), "CONFLICT"),
            (said(1020, "Record has changed since last read"), "CONFLICT"),
            (said(3101, "Plugin instructed the server to rollback", "40000"), "CONFLICT"),
            (said(3101, "the same through a proxy"), "CONFLICT"),
            (said(1105, "serialization failure", "40001"), "CONFLICT"),
            (said(1105, "statement completion unknown", "40003"), "UNAVAILABLE"),
            (said(9007, "Write conflict, txnStartTS=1"), "CONFLICT"),
            (said(8022, "Error: KV error safe to retry"), "CONFLICT"),
            (said(1105, "transaction was rolled back"), "CONFLICT"),
            (
                said(
                    1317,
                    "rpc error: code = Aborted desc = transaction 15: ended at 2026-11-30 "
                    "01:02:03.4 UTC (exceeded timeout: 30s)",
                    "70100",
                ),
                "CONFLICT",
            ),
            (said(1317, "code = Aborted desc = transaction 1: not found", "70100"), "UNAVAILABLE"),
            # Others
            (said(1205, "Lock wait timeout exceeded"), "BUSY"),
            (said(1927, "Connection was killed", "70100"), "LOST"),
            (pymysql.InterfaceError(0, ""), "LOST"),
            (pymysql.InternalError("Packet sequence number wrong"), "LOST"),
            (ConnectionResetError(errno.ECONNRESET, "reset"), "LOST"),
            (misread(b"\xfe"), "LOST"),
            (misread(b"\x00ab"), "LOST"),
            # Mistakes of ours
            (said(1064, "You have an error in your SQL syntax", "42000"), None),
            (said(1054, "Unknown column", "42S22"), None),
            (said(1136, "Column count doesn't match value count", "21S01"), None),
            (said(1176, "Key 'due' doesn't exist in table", "42000"), None),
            (said(1406, "Data too long", "22001"), None),
            (said(1062, "Duplicate entry", "23000"), None),
            (said(1644, "a trigger says no", "45000"), None),
            (pymysql.ProgrammingError("execute() first"), None),
            (TypeError("not enough arguments for format string"), None),
            (KeyError("a key"), None),
            (struct.error("ours"), None),
        ]:
            expected_trouble = None if expected is None else Trouble[expected]
            self.assertIs(dialect.trouble(error), expected_trouble, repr(error))

    def test_wrong_arguments(self) -> None:
        """What PyMySQL refuses to send is a mistake, though PyMySQL's code raises it."""
        dialect = MySQL([("127.0.0.1", 1)], "test", "dalga", "root", "")
        cursor = pymysql.connect(defer_connect=True).cursor()
        for arguments in ((1,), (1, 2, 3)):
            with self.assertRaises((TypeError, pymysql.ProgrammingError)) as raised:
                cursor.execute("SELECT %s, %s", arguments)
            self.assertIsNone(dialect.trouble(raised.exception))

    def test_sqlite(self) -> None:
        dialect = SQLite("dalga.sqlite")

        def coded(code: int) -> sqlite3.Error:
            error = sqlite3.OperationalError("words")
            error.sqlite_errorcode = code
            return error

        for error, expected in [
            (coded(sqlite3.SQLITE_BUSY), Trouble.BUSY),
            (coded(sqlite3.SQLITE_BUSY_SNAPSHOT), Trouble.BUSY),
            (coded(sqlite3.SQLITE_NOMEM), Trouble.UNAVAILABLE),
            (coded(sqlite3.SQLITE_INTERRUPT), Trouble.UNAVAILABLE),
            (coded(sqlite3.SQLITE_PROTOCOL), Trouble.UNAVAILABLE),
            (coded(sqlite3.SQLITE_SCHEMA), Trouble.UNAVAILABLE),
            (coded(sqlite3.SQLITE_AUTH), Trouble.UNAVAILABLE),
            (coded(sqlite3.SQLITE_IOERR_FSYNC), Trouble.UNAVAILABLE),
            (coded(99), Trouble.UNAVAILABLE),
            (OSError(errno.EMFILE, "Too many open files"), Trouble.UNAVAILABLE),
            (sqlite3.DatabaseError("no number"), Trouble.UNAVAILABLE),
            (coded(sqlite3.SQLITE_ERROR), None),
            (coded(sqlite3.SQLITE_CONSTRAINT_UNIQUE), None),
            (coded(sqlite3.SQLITE_TOOBIG), None),
            (coded(sqlite3.SQLITE_MISUSE), None),
            (sqlite3.ProgrammingError("Incorrect number of bindings supplied"), None),
            (KeyError("a key"), None),
        ]:
            self.assertIs(dialect.trouble(error), expected, repr(error))
        with closing(sqlite3.connect(":memory:")) as connection:
            for statement, expected in [
                ("SELECT * FROM dalga", Trouble.UNAVAILABLE),
                ("SELECT nothing", None),
                ("SELEKT", None),
            ]:
                with self.assertRaises(sqlite3.Error) as raised:
                    connection.execute(statement)
                self.assertIs(dialect.trouble(raised.exception), expected, statement)


@each_engine(globals())
class ConflictTests(EngineTestCase):
    async def test_without_end(self) -> None:
        """What is never as it was read a moment ago is a database that can't be used now."""
        store = self.open_store()
        tried: list[bool] = []

        def work(cursor: Any, now: datetime, since: float) -> None:
            tried.append(True)
            raise Conflict("again")

        call: Deferred[Any] = store._api_lane.run(work)
        error = await self.assertFailure(call, StoreUnavailable)
        self.assertIn("can't be used now: again", str(error))
        self.assertEqual(len(tried), CONFLICT_ATTEMPTS)


class RecordedTests(SynchronousTestCase):
    """Whether an end was written, where no engine is needed to make the row."""

    def test_what_others_left(self) -> None:
        """P13: neither another instance's retry is this one's stop, nor a DELETE its retry."""
        run = RUN._replace(id="aa-1")
        stop, retry = ended(run, Stop("500")), ended(run, Retry(RUN.due, "500"))
        retried = Marks(1, None, b"\xaa", attempts=2, error="500", standing=0)
        self.assertFalse(was_recorded(stop, retried))
        self.assertTrue(was_recorded(stop, retried._replace(attempts=1, standing=2)))
        self.assertFalse(was_recorded(retry, None))


@each_engine(globals(), only=("mariadb", "mysql"))
class ErringTests(EngineTestCase):
    """A server, and a proxy before it that answers by errors of its own."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        super().setUp()
        host = server(self.engine)
        self.proxy = ErringProxy(reactor, host.host, host.port)
        self.addCleanup(self.proxy.close)
        assert isinstance(self.config, MySQLConfig)
        self.direct = self.config

    def open_behind(self) -> JobsTable:
        """A store behind the proxy."""
        self.make_store().create_table()
        return self.behind()

    def behind(self) -> JobsTable:
        """One more."""
        self.config = replace(self.direct, port=self.proxy.port, ssl_mode="disabled")
        store = self.make_store()
        self.config = self.direct
        return store

    async def open_with_a_run(self) -> tuple[JobsTable, Run]:
        store = self.open_behind()
        store.clock.observe((await store.now()), 0.0, 0.0)
        return store, await self.due_now(store, KEY)

    async def test_on_no_list(self) -> None:
        """P2: every call is one to repeat, and what is recorded later counts."""
        store, run = await self.open_with_a_run()
        for number in (9001, 1105, 3100):
            self.proxy.say(number, "no server is left")
            calls: list[Deferred[Any]] = [
                store.put(KEY, EACH_MINUTE),
                store.get(KEY),
                store.claim(9, LONG),
                store.due_within(MINUTE, 9),
                store.record([ended(run, Delete())]),
                store.announce("web1"),
            ]
            for call in calls:
                error = await self.assertFailure(call, StoreUnavailable)
                self.assertIn("no server is left", str(error))
            self.proxy.stop_saying()
            await store.get(KEY)
        end = ended(run, Delete())
        self.assertEqual((await store.record([end])).written, [end])
        self.assertEqual((await store.counts()).total, 0)

    async def test_rolled_back_at_the_commit(self) -> None:
        """P2, P4: what was certainly not committed is run again, unseen by the caller."""
        store, run = await self.open_with_a_run()
        for number, state, words in (
            (3101, "40000", "Plugin instructed the server to rollback the current transaction."),
            (1213, "40001", "Deadlock found when trying to get lock"),
            (1105, "HY000", "the transaction was rolled back"),
        ):
            before = self.proxy.errors
            self.proxy.say(number, words, COMMIT, state, times=2)
            await store.put(JobKey("other", "job"), EACH_MINUTE)
            self.proxy.say(number, words, COMMIT, state, times=2)
            await self.record(store, [(run, GiveBack())])
            self.assertEqual(self.proxy.errors - before, 4)
            (run,) = (await store.claim(9, LONG)).runs
        self.proxy.say(3101, "again", COMMIT, "40000")
        await self.assertFailure(store.put(KEY, NOW), StoreUnavailable)
        self.assertEqual((await self.job(self.make_store(), KEY)).schedule.text, "60")

    async def test_a_mistake(self) -> None:
        """P2: a mistake of ours is none of the database's."""
        store, run = await self.open_with_a_run()
        self.proxy.say(1054, "Unknown column", b"token")
        await self.assertFailure(store.record([ended(run, Delete())]), pymysql.OperationalError)
        # Not of all statements: a thread that has no connection yet could not make one.
        self.proxy.say(1064, "You have an error in your SQL syntax", b"SKIP LOCKED", "42000")
        await self.assertFailure(store.claim(9, LONG), pymysql.ProgrammingError)

    async def test_recorded_already(self) -> None:
        """P13: a record whose COMMIT was done without an answer is told from a lost lease."""
        store = self.open_behind()
        other = self.make_store()
        for verdict in each_verdict(await store.now()):
            for done in (True, False):
                for claimed_since in (False, True):
                    rests = isinstance(verdict, Stop | Delete | Disable | Reschedule)
                    if rests and claimed_since and done:
                        continue  # not due any more
                    recorded = await self.record_twice(store, other, verdict, done, claimed_since)
                    name = (type(verdict).__name__, done, claimed_since)
                    self.assertEqual(recorded.overridden + recorded.postponed, [], name)
                    expected = (int(not done and claimed_since), int(done))
                    self.assertEqual((len(recorded.lost), len(recorded.already)), expected, name)

    async def test_not_recorded_for_certain(self) -> None:
        """P13: a record that failed before its COMMIT is not asked for again."""
        store, run = await self.open_with_a_run()
        self.proxy.say(1105, "Unknown error", b"token", times=1)
        await self.assertFailure(store.record([ended(run, Delete())]), StoreUnavailable)
        self.assertEqual(store._runs._unsure, set())

    async def record_twice(
        self, store: JobsTable, other: JobsTable, verdict: Verdict, done: bool, claimed_since: bool
    ) -> Recorded:
        """Record a run whose first COMMIT gets an error that says nothing, then once more."""
        run = await self.due_now(store, KEY)
        self.proxy.say(1105, "Unknown error", COMMIT, times=1, done=done)
        await self.assertFailure(store.record([ended(run, verdict)]), StoreUnavailable)
        if claimed_since:
            self.end_leases()
            self.sql("UPDATE dalga SET due = '2020-01-01', scheduled = '2020-01-01'")
            await self.claim_one(other, KEY)
        recorded = await store.record([ended(run, verdict)])
        # Only what got no answer is uncertain.
        self.assertEqual(store._runs._unsure, set())
        self.sql("DELETE FROM dalga")
        return recorded

    async def test_overridden(self) -> None:
        """P4: what the user has said during the run, and a lease that is over, are two things."""
        store, run = await self.open_with_a_run()
        await store.trigger(KEY)
        end = ended(run, Delete())
        self.assertEqual((await store.record([end])).overridden, [end])
        late = await self.claim_one(store, KEY, OVER)
        await self.claim_one(store, KEY)
        end = ended(late, Retry(late.claimed, "500"))
        self.assertEqual((await store.record([end])).lost, [end])
