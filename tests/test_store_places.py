"""How many sessions there are on the server, those included that the daemon has given up."""

from __future__ import annotations

import itertools
import select
import socket
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from threading import Event, Thread, Timer
from typing import Any

import pymysql
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dalga.config.sections import MySQLConfig
from dalga.errors import StoreUnavailable
from dalga.model.key import JobKey
from dalga.store import places, session
from dalga.store.places import FORGOTTEN, LOOK_PAUSE, Places, Session
from dalga.store.session import Limits
from dalga.store.table import JobsTable
from tests.stores import EACH_MINUTE, LONG, EngineTestCase, each_engine, server

KEY = JobKey("check_feed", "1234")


class Connection:
    """What is needed of PyMySQL's, over a socket whose other end is the test's."""

    def __init__(self, id_: int, processes: dict[int, str]) -> None:
        self._sock, self.server = socket.socketpair()
        self.open = True
        self.id = id_
        #: What the server has: ids, and the hosts they come from.
        self.processes = processes
        self.processes[id_] = "localhost"

    def thread_id(self) -> int:
        return self.id

    def cursor(self) -> Connection:
        return self

    def execute(self, statement: str) -> None:
        if statement.startswith("KILL "):
            self.processes.pop(int(statement.removeprefix("KILL ")))

    def fetchall(self) -> list[tuple[Any, ...]]:
        return [(id_, "dalga", host, "db") for id_, host in self.processes.items()]

    def close(self) -> None:
        self._sock.close()
        self.open = False


class PlacesTests(SynchronousTestCase):
    """P10: never more than may be; P5: and none is lost."""

    def setUp(self) -> None:
        self.patch(places, "PATIENCE", 0.0)
        self.patch(places, "ENDING", (0.0, 0.0))
        self.now = 1000.0
        self.processes: dict[int, str] = {}
        self.made: list[Connection] = []
        self.addCleanup(self.close_all)

    def close_all(self) -> None:
        for each in self.made:
            each.server.close()

    def places(self, most: int, spare: bool) -> Callable[[], Connection]:
        self.it = Places(most, spare, lambda: self.now)

        def make() -> Session:
            self.made.append(Connection(len(self.made) + 1, self.processes))
            return Session(self.made[-1])

        return lambda: self.it.open(make)

    def give_up(self, connection: Connection) -> None:
        connection.close()
        self.it.left(connection)

    def refused(self, connect: Callable[[], Connection]) -> None:
        error = self.assertRaises(pymysql.OperationalError, connect)
        self.assertIn("maxOpenConns allows no more", str(error))

    def test_in_use(self) -> None:
        connect = self.places(2, spare=False)
        connect()
        connect()
        self.refused(connect)
        self.assertEqual(len(self.made), 2)

    def test_being_made(self) -> None:
        """One that is being made has its place already."""
        connect = self.places(1, spare=False)

        def make() -> Session:
            self.refused(connect)
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.it.open, make)
        self.assertEqual(self.made, [])
        connect()

    def test_waiting_for_an_end(self) -> None:
        """It is waited for a while, without a look; where all are in use, nothing is waited for."""
        self.patch(places, "PATIENCE", 30.0)
        connect = self.places(1, spare=True)
        first = connect()
        self.give_up(first)
        timer = Timer(0.05, first.server.close)
        timer.start()
        self.addCleanup(timer.join)
        self.assertEqual(connect().id, 2)
        self.assertEqual((self.it._next_look, len(self.made)), (0.0, 2))
        self.patch(select, "poll", None)
        connect = self.places(1, spare=False)
        connect()
        self.refused(connect)

    def test_over_before_it_is_ended(self) -> None:
        """The server says so (1094), and the next one is ended all the same."""
        connect = self.places(2, spare=True)
        for _ in range(2):
            self.give_up(connect())
        execute = Connection.execute

        def kill(connection: Connection, statement: str) -> None:
            if statement == "KILL 1":
                raise pymysql.OperationalError(1094, "Unknown thread id: 1")
            execute(connection, statement)

        self.patch(Connection, "execute", kill)
        self.assertEqual(connect().id, 3)  # in the place of the second
        self.assertEqual(sorted(self.processes), [1, 3])

    def test_given_up(self) -> None:
        """It has its place until the server ends it, and an answer that is late is no end."""
        connect = self.places(1, spare=False)
        first = connect()
        self.give_up(first)
        self.assertEqual(first.server.recv(1), b"")  # nothing more will be sent
        first.server.send(b"a late answer")
        self.refused(connect)
        first.server.close()
        self.assertEqual(connect().id, 2)

    def test_closed_by_others(self) -> None:
        """Whoever closes a connection, its place is free when it is over."""
        connect = self.places(1, spare=False)
        connect().close()
        self.refused(connect)
        self.assertEqual(self.made[0].server.recv(1), b"")
        self.made[0].server.close()
        connect()

    def test_none_is_lost(self) -> None:
        """A connection that can't be made takes no place."""
        connect = self.places(1, spare=False)

        def broken() -> Session:
            raise pymysql.OperationalError(2003, "refused")

        for _ in range(3):
            self.assertRaises(pymysql.OperationalError, self.it.open, broken)
        connect()

    def test_forgotten(self) -> None:
        """Where there is nowhere to look from, after the server's own limits."""
        connect = self.places(1, spare=False)
        self.give_up(connect())
        self.now += FORGOTTEN - 1
        self.refused(connect)
        self.now += 1
        connect()

    def test_not_forgotten(self) -> None:
        """Where there is a place to look from, the server says whether it still has a session."""
        connect = self.places(1, spare=True)
        self.patch(Connection, "execute", lambda self, statement: None)  # KILL does not help
        self.give_up(connect())
        self.now += 2 * FORGOTTEN
        self.refused(connect)

    def test_a_look(self) -> None:
        """What the server still has is ended there, and what it has not is forgotten."""
        connect = self.places(3, spare=True)
        for _ in range(3):
            self.give_up(connect())
        del self.processes[2]
        self.processes[3] = "somebody:4711"
        # Three places are free: of two sessions that it has not, and of one that it has ended.
        self.assertEqual(connect().id, 4)
        self.assertEqual(sorted(self.processes), [3, 4])
        for id_ in (5, 6):
            self.assertEqual(connect().id, id_)
        self.refused(connect)

    def test_one_that_goes_on(self) -> None:
        """
        A KILL closes the socket at once. The session may go on all the same, as one does that waits
        for room on a full disk, and has its place as long as the server has it.
        """
        connect = self.places(1, spare=True)
        self.give_up(connect())

        def kill(connection: Connection, statement: str) -> None:
            if statement == "KILL 1":
                self.made[0].server.close()

        self.patch(Connection, "execute", kill)
        for look in range(1, 4):
            self.refused(connect)
            self.made[look].server.close()
            del self.processes[look + 1]
            self.assertEqual(list(self.processes), [1])
            self.now += LOOK_PAUSE
        del self.processes[1]
        self.assertEqual(connect().id, 5)

    def test_looks_are_rare(self) -> None:
        """One at a time and one a second, and it makes no more sessions than may be."""
        connect = self.places(1, spare=True)
        self.patch(Connection, "execute", lambda self, statement: None)  # KILL takes its time
        self.give_up(connect())
        for _ in range(5):
            self.refused(connect)
        self.assertEqual(len(self.made), 2)
        self.made[1].server.close()
        self.now += LOOK_PAUSE
        self.refused(connect)
        self.assertEqual(len(self.made), 3)

    def test_one_look_at_a_time(self) -> None:
        """Another thread that finds no room meanwhile is refused: there is but one spare place."""
        connect = self.places(1, spare=True)
        self.give_up(connect())
        self.processes.clear()

        def execute(connection: Connection, statement: str) -> None:
            self.refused(connect)

        self.patch(Connection, "execute", execute)
        self.assertEqual(connect().id, 2)

    def test_a_connection_that_was_reset(self) -> None:
        """That is an end as well."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection = Connection(1, {})
            connection._sock.close()
            connection.server.close()
            connection._sock = socket.create_connection(listener.getsockname())
            one = Session(connection)
            self.addCleanup(one.forget)
            connection.close()
            server, _ = listener.accept()
            self.assertFalse(one.is_over())
            # linger(7), for no time: with RST instead of FIN.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            server.close()
            poll = select.poll()
            poll.register(one, select.POLLIN)
            poll.poll(10_000)
            self.assertTrue(one.is_over())

    def test_over_during_a_look(self) -> None:
        """Another thread may see that a session is over while this one asks the server for it."""
        connect = self.places(1, spare=True)
        self.give_up(connect())
        self.processes.clear()

        def execute(connection: Connection, statement: str) -> None:
            self.made[0].server.close()
            self.it._sweep()

        self.patch(Connection, "execute", execute)
        self.assertEqual(connect().id, 2)

    def test_room_is_taken_by_one(self) -> None:
        """What a look makes free is given out once, to whichever thread comes first."""
        connect = self.places(1, spare=True)
        self.give_up(connect())
        self.processes.clear()
        end_left = self.it._end_left

        def overtaken(looker: Session) -> None:
            end_left(looker)
            self.assertEqual(connect().id, 3)

        self.patch(self.it, "_end_left", overtaken)
        self.refused(connect)
        self.assertTrue(self.made[2].open)
        self.assertFalse(self.made[1].open)

    def test_a_look_in_vain(self) -> None:
        """A session that looked and got no answer is counted; there is no other look beside it."""
        connect = self.places(1, spare=True)
        self.give_up(connect())
        lost = pymysql.OperationalError(2013, "The read operation timed out")

        def execute(connection: Connection, statement: str) -> None:
            raise lost

        self.patch(Connection, "execute", execute)
        self.assertRaises(pymysql.OperationalError, connect)
        for _ in range(5):
            self.now += LOOK_PAUSE
            self.refused(connect)
        self.assertEqual(len(self.made), 2)
        self.made[1].server.close()
        self.assertIs(self.assertRaises(pymysql.OperationalError, connect), lost)
        self.assertEqual(len(self.made), 3)

    def test_a_dead_server(self) -> None:
        """TCP finds out that nobody is there any more, and takes no quarter of an hour for that."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connection = Connection(1, {})
            connection._sock.close()
            connection._sock = socket.create_connection(listener.getsockname())
            one = Session(connection)
            self.addCleanup(one.forget)
            self.assertEqual(one.port, str(connection._sock.getsockname()[1]))

            def option(name: str) -> int:
                return one._socket.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

            # Often enough that no firewall on the way forgets a connection that idles.
            self.assertEqual(option("TCP_KEEPIDLE"), 60)
            one.leave(self.now)
            self.assertEqual((option("TCP_KEEPIDLE"), option("TCP_USER_TIMEOUT")), (5, 20_000))
            self.assertEqual((option("TCP_KEEPINTVL"), option("TCP_KEEPCNT")), (5, 3))
            connection._sock.close()
            connection.server.close()


class IsolationTests(SynchronousTestCase):
    """A server, or a proxy in front of it, that takes the statement and does something else."""

    def test_another_level(self) -> None:
        class Stubborn:
            found: tuple[tuple[str, str], ...] = ()

            def execute(self, statement: str, arguments: object = ()) -> None:
                """Take it."""

            def fetchall(self) -> tuple[tuple[str, str], ...]:
                return self.found

        cursor: Any = Stubborn()
        for name in ("tx_isolation", "transaction_isolation"):
            for level in ("READ-UNCOMMITTED", "REPEATABLE-READ", "SERIALIZABLE"):
                cursor.found = ((name, level),)
                error = self.assertRaises(
                    pymysql.OperationalError, session.set_up, cursor, Limits(3, 9)
                )
                self.assertIn(f"transaction isolation is {level}", str(error))
            cursor.found = ((name, "READ-COMMITTED"),)
            session.set_up(cursor, Limits(3, 9))
        cursor.found = ()
        error = self.assertRaises(pymysql.OperationalError, session.set_up, cursor, Limits(3, 9))
        self.assertIn("transaction isolation is unknown", str(error))


@each_engine(globals(), only=("mariadb", "mysql"))
class SessionTests(EngineTestCase):
    """What SHOW PROCESSLIST has of a store while its statements wait."""

    timeout = 90

    def open_few(self, limit: int = 4) -> JobsTable:
        """A store that gives up an answer after 2 s."""
        assert isinstance(self.config, MySQLConfig)
        self.config = replace(self.config, max_open_conns=limit, read_timeout=2.0)
        return self.open_store()

    def watch(self) -> Callable[[], tuple[int, int]]:
        """
        Count the sessions from now on; gives what gives the most that there were at once, and the
        longest that one has been at one statement, in seconds.
        """
        stop, most = Event(), [0, 0]
        root = server(self.engine).connect_as_root(autocommit=True)

        def count() -> None:
            cursor = root.cursor()
            while not stop.wait(0.01):
                cursor.execute("SHOW PROCESSLIST")
                ours = [row for row in cursor.fetchall() if row[1] == "dalga" and row[3] == db]
                most[0] = max(most[0], len(ours))
                most[1] = max([most[1], *(row[5] for row in ours if row[4] == "Query")])

        db = self.config.db  # type: ignore[union-attr]
        thread = Thread(target=count, daemon=True)
        thread.start()
        self.addCleanup(stop.set)  # also where the test fails

        def end() -> tuple[int, int]:
            stop.set()
            thread.join()
            root.close()
            return most[0], most[1]

        return end

    async def test_locked_tables(self) -> None:
        """
        P10: what a session waits for has an end that the server knows: behind any lock there are no
        more sessions than may be, and none that nobody listens to.
        """
        store = self.open_few()
        for lock in (
            "LOCK TABLES dalga WRITE",
            "FLUSH TABLES WITH READ LOCK",
            "FLUSH TABLES dalga WITH READ LOCK",
        ):
            with closing(server(self.engine).connect_as_root(database=self.config.db)) as stranger:  # type: ignore[union-attr]
                stranger.cursor().execute(lock)
                end = self.watch()
                failures: list[list[tuple[bool, Any]]] = [
                    await DeferredList(
                        [store.put(KEY, EACH_MINUTE), store.claim(9, LONG)], consumeErrors=True
                    )
                    for _ in range(2)
                ]
                most, longest = end()
            for success, failure in itertools.chain(*failures):
                self.assertFalse(success, lock)
                assert isinstance(failure, Failure)
                failure.trap(StoreUnavailable)
                self.assertIn("Lock wait timeout exceeded", str(failure.value))
            self.assertLessEqual(most, 4, lock)
            self.assertLessEqual(longest, 2, lock)
            self.assertEqual(await self.fate(store), [None, None])

    async def fate(self, store: JobsTable) -> list[object]:
        """What comes of a call of each lane."""
        calls: list[Deferred[Any]] = [store.now(), store.announce("web1")]
        ends: list[tuple[bool, Any]] = await DeferredList(calls, consumeErrors=True)
        return [None if success else result.value for success, result in ends]

    def stuck(self, seconds: int) -> Callable[[Any, datetime, float], None]:
        """A transaction in which the server is busy for so long, whatever its limits are."""
        wait = f"DO SLEEP({seconds})"
        if self.engine == "mariadb":
            wait = f"SET STATEMENT max_statement_time = 0 FOR {wait}"
        return lambda cursor, now, since: cursor.execute(wait)

    async def test_a_server_that_knows_no_end(self) -> None:
        """P10, P5: sessions that were given up are counted, and ended from the place kept."""
        store = self.open_few()
        end = self.watch()
        calls = [
            lane.run(self.stuck(60))
            for lane in (store._run_lane, store._api_lane)
            for _ in range(3)
        ]
        failed = await DeferredList(calls, consumeErrors=True)
        self.assertEqual([success for success, _ in failed], [False] * 6)
        while await self.fate(store) != [None, None]:
            pass
        most, longest = end()
        self.assertLessEqual(most, 4)
        self.assertLess(longest, 30)

    async def test_nowhere_to_look_from(self) -> None:
        """P10: the only connection waits for the server's end of what it has given up."""
        store = self.open_few(limit=1)
        end = self.watch()
        await self.assertFailure(store._run_lane.run(self.stuck(6)), StoreUnavailable)
        error = await self.assertFailure(store.now(), StoreUnavailable)
        self.assertIn("maxOpenConns allows no more", str(error))
        while await self.fate(store) != [None, None]:
            pass
        self.assertEqual(end()[0], 1)

    async def test_idle_in_a_transaction(self) -> None:
        """P5: the server lets go the locks of a daemon that is frozen in a transaction."""
        self.patch(session, "IDLE_TRANSACTION", 1)
        self.patch(session, "IDLE", 1)
        store = self.open_store()
        await store.put(KEY, EACH_MINUTE)
        locked, go_on = Event(), Event()

        def freeze(cursor: Any, now: datetime, since: float) -> None:
            if not locked.is_set():
                cursor.execute("SELECT id FROM dalga FOR UPDATE")
                locked.set()
                go_on.wait(20)
            cursor.execute("SELECT 1")

        frozen = store._api_lane.run(freeze)
        await deferToThread(locked.wait, 10)
        with closing(self.connect()) as stranger:
            cursor = stranger.cursor()
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 10")
            await deferToThread(cursor.execute, "SELECT id FROM dalga FOR UPDATE")
            stranger.rollback()
        go_on.set()
        await frozen  # run again, unseen

    def test_limits(self) -> None:
        """Those that the engine has, where the server's own are not stricter."""
        names = {
            "mariadb": ("max_statement_time", "idle_transaction_timeout"),
            "mysql": ("max_execution_time", "wait_timeout"),
        }[self.engine]
        scale = 1000 if self.engine == "mysql" else 1
        idle = session.IDLE if self.engine == "mysql" else session.IDLE_TRANSACTION
        with closing(self.connect()) as connection:
            cursor = connection.cursor()

            def found() -> list[float]:
                cursor.execute(
                    "SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout, "
                    f"@@{names[0]}, @@{names[1]}"
                )
                return [float(value) for value in cursor.fetchall()[0]]

            before = found()
            session.set_up(cursor, Limits(3, 9))
            self.assertEqual(found(), [3, 3, 9 * scale, idle])
            session.unlimit(cursor)
            self.assertEqual(found()[2:], before[2:])
            cursor.execute(f"SET SESSION {names[0]} = {2 * scale}, SESSION {names[1]} = 5")
            session.set_up(cursor, Limits(3, 9))
            self.assertEqual(found(), [3, 3, 2 * scale, 5])
