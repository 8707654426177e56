"""What the store does when the database, or another session, gets in its way."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event, Thread, get_ident
from typing import Any
from weakref import finalize

from twisted.internet import reactor
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    gatherResults,
    succeed,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import blockingCallFromThread, deferToThread

from dalga.config.sections import Config, ListenConfig, MySQLConfig
from dalga.errors import StartupError, StoreUnavailable, TableExists
from dalga.model.delivery import Payload
from dalga.model.duration import seconds
from dalga.model.key import JobKey, RawKey
from dalga.model.options import IfExists
from dalga.model.run import Delete, Reschedule, Retry, Run, Verdict
from dalga.model.schedule import Every, Once
from dalga.service import make_service
from dalga.store import Recorded, sqlite, threads
from dalga.store.clock import steady_seconds
from dalga.store.dialect import Trouble
from dalga.store.mysql import LONGEST_STATEMENT
from dalga.store.runsql import RunStatements
from dalga.store.sqlite import SQLite
from dalga.store.table import JobsTable
from dalga.store.transactions import Conflict
from tests.examples import THEN, ended
from tests.servers import start_server
from tests.stores import EACH_MINUTE, LONG, NOW, EngineTestCase, each_engine, server

KEY = JobKey("check_feed", "1234")
HOUR = timedelta(hours=1)
DUE = replace(EACH_MINUTE, immediate=True)
PAST = "2020-01-01 00:00:00.000000"


@each_engine(globals())
class ClockTests(EngineTestCase):
    """P8: whose clock counts."""

    async def test_the_databases_clock_decides(self) -> None:
        """P8: with a database an hour ahead, first runs and claims go by its time."""
        store = self.make_store()
        dialect: Any = store._dialect
        ahead = datetime.now(UTC) + HOUR
        if isinstance(dialect, SQLite):
            dialect._wall_clock = lambda: ahead
        else:
            set_up = dialect.set_up

            def set_up_ahead(connection: Any) -> None:
                set_up(connection)
                connection.cursor().execute(f"SET SESSION timestamp = {ahead.timestamp():.6f}")

            dialect.set_up = set_up_ahead
            store.create_table()
        store.open()
        job = await store.put(KEY, EACH_MINUTE)
        self.assertLess(abs(job.scheduled - ahead - timedelta(minutes=1)), timedelta(seconds=5))
        self.assertLess(abs(store.clock.now() - ahead), timedelta(seconds=5))
        # Due half an hour from now here, half an hour ago there.
        half = (ahead - HOUR / 2).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
        self.sql("UPDATE dalga SET due = %s, scheduled = %s", (half, half))
        (run,) = (await store.claim(9, LONG)).runs
        self.assertLess(abs(run.claimed - ahead), timedelta(seconds=5))


@each_engine(globals())
class ThreadTests(EngineTestCase):
    """The threads of a lane, and the reactor's."""

    async def test_a_cursor_is_let_go_of_in_its_thread(self) -> None:
        """P7: the reactor's thread would wait for SQLite, if it were the one to let go."""
        store = self.open_store()
        worked: list[int] = []
        let_go: list[int] = []

        def work(cursor: Any, now: datetime, since: float) -> None:
            worked.append(get_ident())
            finalize(cursor._cursor, lambda: let_go.append(get_ident()))
            cursor.execute("SELECT id FROM dalga")
            raise KeyError("a mistake")

        # The error is held, with all that its traceback holds.
        self.assertTrue(await self.assertFailure(store._run_lane.run(work), KeyError))
        self.assertEqual(let_go, worked)
        self.assertNotEqual(worked, [get_ident()])

    async def test_no_thread_left(self) -> None:
        """
        P5: a system that has no thread left is an outage that ends: neither the lane nor one of its
        turns is lost.
        """

        class NoThread(Thread):
            def start(self) -> None:
                raise RuntimeError("can't start new thread")

        store = self.open_store()
        patched = self.patch(threads, "Thread", NoThread)
        for _ in range(9):  # more than a lane has threads
            error = await self.assertFailure(store.claim(9, LONG), StoreUnavailable)
            self.assertIn("can't start new thread", str(error))
        patched.restore()
        self.assertEqual((await store.claim(9, LONG)).runs, [])


def before(test: EngineTestCase, store: JobsTable, statement: str, done: str) -> list[str]:
    """Have a stranger do something before a statement is made, once; gives its name then."""
    hooked: list[str] = []

    parts = (store._sql, store._runsql, store._detailsql)
    (sql,) = (each for each in parts if hasattr(type(each), statement))
    statements: Any = type(sql)

    class Hooked(statements):  # type: ignore[misc]  # whichever class it is
        def __getattribute__(self, name: str) -> Any:
            if name == statement and not hooked:
                hooked.append(name)
                test.sql(done)
            return super().__getattribute__(name)

    sql.__class__ = Hooked  # all parts of the store have the same one
    return hooked


@each_engine(globals(), only=("mysql",))
class InBetweenTests(EngineTestCase):
    """
    What happens between two statements of one transaction, where the first has locked nothing:
    MariaDB keeps the lock of a row that it has but looked at.
    """

    async def test_enabled_between_two_statements(self) -> None:
        """P4: a trigger that finds a job disabled, and then enabled, is for an enabled job."""
        store = self.open_store()
        await store.put(KEY, EACH_MINUTE)
        await store.disable(KEY)
        hooked = before(self, store, "get", "UPDATE dalga SET disabled = 0, due = scheduled")
        job = await store.trigger(KEY)
        self.assertEqual(hooked, ["get"])
        self.assertLess(abs(job.scheduled - store.clock.now()), timedelta(seconds=5))
        self.assertEqual([run.key for run in (await store.claim(9, LONG)).runs], [KEY])

    async def test_recorded_between_two_statements(self) -> None:
        """P4: a job whose run ends while it is being deleted is deleted all the same."""
        store = self.open_store()
        await store.put(KEY, NOW)
        await store.claim(9, LONG)
        ended = "UPDATE dalga SET token = NULL, due = scheduled"
        hooked = before(self, store, "delete_leased", ended)
        await store.delete(KEY)
        self.assertEqual(hooked, ["delete_leased"])
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])


@each_engine(globals(), only=("mariadb", "mysql"))
class ConcurrencyTests(EngineTestCase):
    """Sessions that meet on the same rows."""

    async def test_a_claim_does_not_rest_on_locks(self) -> None:
        """P3: rows that another takes between finding and taking are not taken twice."""
        keys = self.claimable("a", "b", "c")
        store, other = self.open_store_without_locks(), self.stores[0]
        taken: list[Any] = []

        def between() -> bytes:
            # In the claim's thread, after it has found its rows and before it takes them.
            with closing(self.connect()) as connection:
                cursor = connection.cursor()
                cursor.execute(
                    "UPDATE dalga SET token = 'somebody else 16', run = 'somebody else 16', "
                    "attempts = 1, started = UTC_TIMESTAMP(6), "
                    "due = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR "
                    "WHERE path IN ('a', 'b')"
                )
                connection.commit()
            taken.append(True)
            return b"0123456789abcdef"

        store._runs._token = between
        runs = (await store.claim(9, LONG)).runs
        self.assertTrue(taken)
        self.assertEqual([run.key for run in runs], keys[2:])
        self.assertEqual((await other.claim(9, LONG)).runs, [])

    async def test_a_claim_reads_what_it_has_taken(self) -> None:
        """P4: a job that was scheduled anew between finding and taking runs as it is now."""
        self.claimable("a")
        store = self.open_store_without_locks()

        def between() -> bytes:
            with closing(self.connect()) as connection:
                connection.cursor().execute("UPDATE dalga SET schedule = '7'")
                connection.commit()
            return b"0123456789abcdef"

        store._runs._token = between
        (run,) = (await store.claim(9, LONG)).runs
        self.assertEqual(run.schedule.text, "7")

    async def test_changed_between_two_statements(self) -> None:
        """
        P3, P4: whatever is done to a job between finding and taking, this claim and the next are as
        if that had been done before.
        """
        again = replace(EACH_MINUTE, interval=seconds(7), immediate=True)
        until = replace(DUE, until=THEN + 100 * 365 * HOUR * 24, if_exists=IfExists.UPDATE)
        for said, change in (
            ("put", lambda store, key: store.put(key, EACH_MINUTE)),
            ("put, to run now", lambda store, key: store.put(key, again)),
            ("updated", lambda store, key: store.put(key, until)),
            ("triggered", lambda store, key: store.trigger(key)),
            ("disabled", lambda store, key: store.disable(key)),
            ("deleted", lambda store, key: store.delete(key)),
            ("claimed", lambda store, key: store.claim(1, LONG)),
        ):
            for begun in (False, True):
                with self.subTest(said, begun=begun):
                    await self.check_changed(change, begun)

    async def check_changed(
        self, change: Callable[[JobsTable, JobKey], Deferred[Any]], begun: bool
    ) -> None:
        """
        :param begun: whether the job is in a run whose lease is over.
        """
        store, other = self.open_store_without_locks(), self.stores[0]
        anywhere: Any = reactor
        found = []
        for between in (False, True):
            await other.put(KEY, DUE)
            await other.put(JobKey("other", "job"), DUE)
            if begun:
                self.assertEqual(len((await other.claim(2, LONG)).runs), 2)
                self.end_leases()
            hooked: list[object] = []

            def token(hooked: list[object] = hooked) -> bytes:
                # In the claim's thread, after it has found its rows and before it takes them.
                if not hooked:
                    hooked.append(blockingCallFromThread(anywhere, change, other, KEY))
                return os.urandom(16)

            if between:
                store._runs._token = token
            else:
                await change(other, KEY)
            runs = (await store.claim(9, LONG)).runs
            self.assertEqual(len(hooked), int(between))
            runs += (await other.claim(9, LONG)).runs
            own = {
                run.key: (
                    run.schedule,
                    run.options,
                    run.attempt,
                    run.waited,
                    run.successes,
                    run.scheduled < run.started,
                    run.scheduled == run.anchor,
                    run.due == run.scheduled,
                )
                for run in runs
            }
            rows = self.sql("SELECT path, token IS NULL, attempts, override, disabled FROM dalga")
            found.append((own, sorted(rows)))
            self.assertEqual(len(own), len(runs))
            self.assertIn(JobKey("other", "job"), own)
            self.sql("DELETE FROM dalga")
        self.assertEqual(*found)

    async def test_changed_after_the_record_has_looked(self) -> None:
        """
        P3, P4: whatever is done to a job between a record's statements, the job is as if that had
        been done before.
        """
        again = replace(EACH_MINUTE, interval=seconds(7), immediate=True)
        now = datetime.now(UTC)
        for verdict in (Delete(), Reschedule(now + HOUR, now), Retry(now + HOUR, "500")):
            for said, change in (
                ("put", lambda store, key: store.put(key, EACH_MINUTE)),
                ("put, to run now", lambda store, key: store.put(key, again)),
                ("triggered", lambda store, key: store.trigger(key)),
                ("disabled", lambda store, key: store.disable(key)),
                ("deleted", lambda store, key: store.delete(key)),
                ("claimed", lambda store, key: store.claim(1, LONG)),
            ):
                for over in (False, True):
                    with self.subTest(said, verdict=verdict, over=over):
                        await self.check_recorded(change, verdict, over)

    async def check_recorded(
        self, change: Callable[[JobsTable, JobKey], Deferred[Any]], verdict: Verdict, over: bool
    ) -> None:
        """
        :param over: whether the lease of the run is over.
        """
        store, other = self.open_store_without_locks(), self.stores[0]
        anywhere: Any = reactor
        found = []
        for between in (False, True):
            for key in (KEY, JobKey("other", "job")):
                await other.put(key, replace(DUE, count=1))
            runs = (await store.claim(2, LONG)).runs
            if over:
                self.end_leases()
            hooked: list[object] = []
            if between:
                read_leases = store._runs._read_leases

                def looked(
                    *arguments: Any,
                    hooked: list[object] = hooked,
                    read_leases: Callable[..., Any] = read_leases,
                ) -> Any:
                    leases = read_leases(*arguments)
                    if not hooked:
                        hooked.append(blockingCallFromThread(anywhere, change, other, KEY))
                    return leases

                self.patch(store._runs, "_read_leases", looked)
            else:
                await change(other, KEY)
            recorded = await store.record([ended(run, verdict) for run in runs])
            self.assertEqual(len(hooked), int(between))
            rows = self.sql(
                "SELECT path, schedule, options, token IS NULL, run IS NULL, attempts, error,"
                " override, disabled, due > UTC_TIMESTAMP(6) + INTERVAL 50 MINUTE,"
                " due < UTC_TIMESTAMP(6) FROM dalga"
            )
            became = [
                sorted(end.run.key for end in ends)
                for ends in (
                    recorded.written,
                    recorded.revised,
                    recorded.overridden,
                    recorded.lost,
                    recorded.postponed,
                )
            ]
            found.append((sorted(rows), became))
            self.sql("DELETE FROM dalga")
        self.assertEqual(*found)

    async def test_updated_after_the_record_has_looked(self) -> None:
        """
        P4: new options of a job whose end is being recorded count after that. Of all that is done
        to a job, the UPDATE of a record does not compare this: the lock of the row decides.
        """
        store, other = self.open_store(), self.open_store()
        await store.put(KEY, replace(DUE, count=1))
        (run,) = (await store.claim(9, LONG)).runs
        read_leases, puts = store._runs._read_leases, list[Deferred[Any]]()
        anywhere: Any = reactor
        update = replace(EACH_MINUTE, count=5, if_exists=IfExists.UPDATE)

        def meanwhile() -> Any:
            puts.append(other.put(KEY, update))
            return Deferred.fromCoroutine(self.until_waiting())

        def looked(*arguments: Any) -> Any:
            leases = read_leases(*arguments)
            blockingCallFromThread(anywhere, meanwhile)
            return leases

        self.patch(store._runs, "_read_leases", looked)
        self.assertEqual(await self.record(store, [(run, Delete())]), [])
        await puts.pop()
        self.assertEqual((await self.job(store, KEY)).options.count, 5)

    async def test_scheduled_anew_between_two_statements(self) -> None:
        """P4: a verdict does not write over what was said after the record had looked."""
        for statement, verdict in (
            ("reschedule_rows", Reschedule(THEN, THEN)),
            ("succeed_rows", Reschedule(THEN, datetime(2020, 1, 1, tzinfo=UTC))),
            ("delete_rows", Delete()),
        ):
            for said, left in (("1", [(0,)]), ("2", [])):
                store = self.open_store_without_locks()
                self.in_the_past("a")
                (run,) = (await store.claim(9, LONG)).runs
                hooked = before(self, store, statement, f"UPDATE dalga SET override = {said}")
                end = ended(run, verdict)
                recorded = await store.record([end])
                self.assertEqual((hooked, recorded.overridden), ([statement], [end]))
                self.assertEqual(self.sql("SELECT override FROM dalga"), left)
                self.assertEqual(
                    self.sql("SELECT id FROM dalga WHERE scheduled > '2020-01-02'"), []
                )
                self.sql("DELETE FROM dalga")

    async def test_put_anew_after_the_record_has_looked(self) -> None:
        """P4: a job that was deleted, and in between put anew, stays."""
        store = self.open_store_without_locks()
        (key,) = self.in_the_past("a")
        (run,) = (await store.claim(9, LONG)).runs
        await store.delete(key)
        hooked = before(self, store, "bury_rows", "UPDATE dalga SET override = 1")
        self.assertEqual(await self.record(store, [(run, Delete())]), [run])
        self.assertEqual(hooked, ["bury_rows"])
        self.assertEqual(self.sql("SELECT override FROM dalga"), [(0,)])

    async def test_deleted_after_the_record_has_looked(self) -> None:
        """P4: what was deleted in between is not brought back by the end of its run."""
        store = self.open_store_without_locks()
        (key,) = self.in_the_past("a")
        (run,) = (await store.claim(9, LONG)).runs
        await store.trigger(key)
        hooked = before(self, store, "yield_rows", "UPDATE dalga SET override = 2")
        self.assertEqual(await self.record(store, [(run, Delete())]), [run])
        self.assertEqual(hooked, ["yield_rows"])
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])

    async def test_round_trips(self) -> None:
        """A claim takes three statements, and a record four, however many rows they are of."""
        store = self.open_store()
        await store.claim(9, LONG)  # which makes a connection
        self.assertEqual(await self.asked(lambda: store.claim(9, LONG)), 2)
        for names in ("a", "abcdefgh"):
            self.in_the_past(*names)
            self.assertEqual(await self.asked(lambda: store.claim(9, LONG)), 3)
            self.end_leases()
            runs = (await store.claim(9, LONG)).runs
            self.assertEqual([run.attempt for run in runs], [2] * len(names))
            ends = [ended(run, Delete()) for run in runs]
            self.assertEqual(await self.asked(partial(store.record, ends)), 4)

    async def test_round_trips_of_jobs_with_payloads(self) -> None:
        """They take one more to claim; and a PUT of another job over them, or the end, a few."""
        store = self.open_store()
        await store.claim(9, LONG)  # which makes a connection
        await store.delete(KEY)  # which makes another one, for the API
        said = replace(NOW, payload=Payload(b"a"), tags=("b", "c"))
        for request, puts, claims, ends in ((NOW, (4, 4), 3, 4), (said, (6, 9), 4, 10)):
            for statements in puts:
                put = partial(store.put, KEY, request)
                self.assertEqual(await self.asked(put), statements)
            self.assertEqual(await self.asked(partial(store.get, KEY)), 4 + (request is said))
            claimed: list[Run] = []

            async def claim(claimed: list[Run] = claimed) -> None:
                claimed += (await store.claim(9, LONG)).runs

            self.assertEqual(await self.asked(lambda: Deferred.fromCoroutine(claim())), claims)
            record = partial(store.record, [ended(run, Delete()) for run in claimed])
            self.assertEqual(await self.asked(record), ends)

    async def test_long_rows(self) -> None:
        """P5: no statement of a claim is longer than servers take, however long its rows are."""
        self.open_store()
        name = "\N{GRINNING FACE}" * 250
        jobs = (
            f"('{name}{number:05}', '{name}', '', '{PAST}', '{PAST}', '{PAST}')"
            for number in range(800)
        )
        self.sql(
            "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
            f" VALUES {', '.join(jobs)}"
        )
        self.addCleanup(self.limit_packets, 16 * LONGEST_STATEMENT)
        self.limit_packets(LONGEST_STATEMENT)
        runs = (await self.open_store().claim(1000, LONG)).runs
        self.assertEqual([run.attempt for run in runs], [1] * 800)

    def limit_packets(self, size: int) -> None:
        """Have new sessions take statements of so many bytes at most."""
        with closing(server(self.engine).connect_as_root()) as root:
            root.cursor().execute(f"SET GLOBAL max_allowed_packet = {size}")

    async def asked(self, call: Callable[[], Deferred[Any]]) -> int:
        """How many statements the server gets."""
        with closing(self.connect()) as stranger:
            cursor = stranger.cursor()
            counts = []
            for each in (lambda: succeed(None), call):
                await each()
                cursor.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
                ((_, number),) = cursor.fetchall()
                counts.append(int(number))
        return counts[1] - counts[0] - 1

    async def test_a_conflict_is_run_again(self) -> None:
        """P3: a transaction that finds something else than it went by is undone and runs again."""
        store = self.open_store()
        tried: list[bool] = []

        def work(cursor: Any, now: datetime, since: float) -> int:
            tried.append(True)
            if len(tried) == 1:
                cursor.execute(
                    "INSERT INTO dalga (path, body, schedule, anchor, scheduled)"
                    " VALUES ('a', 'b', '', '2020-01-01 00:00:00.000000',"
                    " '2020-01-01 00:00:00.000000')"
                )
                raise Conflict("first time")
            return len(tried)

        self.assertEqual(await store._run_lane.run(work), 2)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])

    async def test_rows_that_matched_are_counted(self) -> None:
        """What rowcount says is how many rows matched, not how many look different."""
        store = self.open_store()
        self.in_the_past("a")

        def work(cursor: Any, now: datetime, since: float) -> int:
            cursor.execute("UPDATE dalga SET attempts = attempts")
            return int(cursor.rowcount)

        self.assertEqual(await store._run_lane.run(work), 1)

    async def test_locked_rows_are_passed_over(self) -> None:
        """P6: rows that a stranger has locked hold up neither the claim nor the other rows."""
        keys = self.claimable("a", "b")
        store = self.stores[0]
        with closing(self.connect()) as stranger:
            stranger.cursor().execute("SELECT * FROM dalga WHERE path = 'a' FOR UPDATE")
            self.assertEqual([run.key for run in (await store.claim(9, LONG)).runs], keys[1:])
            stranger.rollback()
        self.assertEqual([run.key for run in (await store.claim(9, LONG)).runs], keys[:1])

    async def test_rows_are_found_by_their_ids(self) -> None:
        """
        P7: where few rows are due, or there are few, the optimizer would come upon all of them,
        and wait for the one that a stranger has locked.
        """
        for paths in ("abc", "abcdefgh"):
            keys = self.claimable(*paths)
            store = self.stores[-1]
            with closing(self.connect()) as stranger:
                last = "SELECT * FROM dalga WHERE path = %s FOR UPDATE"
                stranger.cursor().execute(last, paths[-1])
                runs = (await store.claim(9, LONG).addTimeout(1, reactor)).runs
                self.assertEqual([run.key for run in runs], keys[:-1])
                ends = [ended(run, Delete()) for run in runs]
                recorded = await store.record(ends).addTimeout(1, reactor)
                self.assertEqual((recorded.written, recorded.postponed), (ends, []))
                stranger.rollback()
            self.sql("DELETE FROM dalga")

    async def test_a_claim_locks_what_it_takes(self) -> None:
        """
        P7: where all of the table is due, as after an outage, the optimizer would sort it, lock all
        of it for a few rows, and leave nothing to the claims of other instances meanwhile.
        """
        store: Any = self.open_store()
        with closing(self.connect()) as other:
            other.cursor().executemany(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
                f" VALUES (%s, 'body', '', '{PAST}', '{PAST}', '{PAST}')",
                [(f"{number}",) for number in range(2000)],
            )
            other.commit()
            store._runsql.find_due(without=False).fetch(other.cursor(), limit=2)
            runs = (await store.claim(2, LONG)).runs
            self.assertEqual([run.key.path for run in runs], ["2", "3"])

    async def test_a_locked_row_holds_up_no_other_record(self) -> None:
        """P2: verdicts are written around a row that a stranger has locked, and that one later."""
        self.claimable("a", "b")
        store = self.stores[0]
        locked, free = (await store.claim(9, LONG)).runs
        with closing(self.connect()) as stranger:
            stranger.cursor().execute("SELECT * FROM dalga WHERE path = 'a' FOR UPDATE")
            waits, free_end = ended(locked, Delete()), ended(free, Delete())
            recorded = await store.record([waits, free_end])
            self.assertEqual((recorded.written, recorded.postponed), ([free_end], [waits]))
            stranger.rollback()
        self.assertEqual((await store.counts()).total, 1)
        self.assertEqual(await self.record(store, [(locked, Delete())]), [])
        self.assertEqual((await store.counts()).total, 0)

    async def test_a_locked_row_beside_a_job_holds_up_no_other_record(self) -> None:
        """The same for a row of details or of tags, and for the claim of a job that is deleted."""
        store = self.open_store()
        request = replace(NOW, tags=("a", "b"), description="c")
        request = replace(NOW, tags=("a", "b"), description="c")
        for table in ("dalga_details", "dalga_tags WHERE tag = 'b'"):
            for path in ("a", "b"):
                await store.put(JobKey(path, "1"), request)
            locked, free = (await store.claim(9, LONG)).runs
            which = f"{table} {'AND' if 'WHERE' in table else 'WHERE'} id = {locked.row}"
            with closing(self.connect()) as stranger:
                stranger.cursor().execute(f"SELECT * FROM {which} FOR UPDATE")
                waits, free_end = ended(locked, Delete()), ended(free, Delete())
                recorded = await store.record([waits, free_end])
                self.assertEqual((recorded.written, recorded.postponed), ([free_end], [waits]))
                # The end of another instance's run, which the user has deleted, is not heard of.
                await store.delete(locked.key)
                self.end_leases()
                self.assertEqual((await store.claim(9, LONG)).runs, [])
                stranger.rollback()
            self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(1,)])
            self.end_leases()
            self.assertEqual((await store.claim(9, LONG)).runs, [])
            for name in ("dalga", "dalga_details", "dalga_tags"):
                self.assertEqual(self.sql(f"SELECT COUNT(*) FROM {name}"), [(0,)])

    async def test_a_locked_row_of_another(self) -> None:
        """P2: a row that another instance has claimed since is not waited for."""
        self.claimable("a")
        store = self.stores[0]
        (run,) = (await store.claim(9, LONG)).runs
        self.sql("UPDATE dalga SET token = 'somebody else 16'")
        with closing(self.connect()) as stranger:
            stranger.cursor().execute("SELECT * FROM dalga FOR UPDATE")
            end = ended(run, Delete())
            self.assertEqual(await store.record([end]), Recorded(lost=[end], results=[(end, None)]))

    def test_words_find_rows_by_their_keys(self) -> None:
        """
        P7: by their due times the optimizer would come upon all that run, where it takes these for
        few, which is a matter of chance; there is only the plan to be looked at.
        """
        self.claimable("a")
        sql: Any = self.stores[0]._sql
        for statement in (sql.trigger, sql.enable, sql.disable, sql.delete_leased):
            self.assertEqual(statement.names, {"path", "body", "now"})
            values = {"path": "a", "body": "body", "now": "2100-01-01"}
            self.assertEqual(self.index(*statement.bound((), values)), "job", statement)

    def test_leases_are_found_by_their_ids(self) -> None:
        """
        P7: where most of a small table is asked for the optimizer would go through all of it, and
        lock for a moment what others' claims and records then pass over.
        """
        self.claimable(*"abcdefghij")
        sql: Any = self.stores[0]._runsql
        for count in (5, 9):
            bound = sql.read_leases.statement.bound(range(count), {})
            self.assertEqual(self.index(*bound), "PRIMARY")

    async def test_a_locked_row_holds_up_no_other_word(self) -> None:
        """P7: a job that runs is deleted, though another's row that is due later is locked."""
        keys = self.claimable(*"abcdefgh")
        store = self.stores[0]
        self.assertEqual(len((await store.claim(9, LONG)).runs), 8)
        with closing(self.connect()) as stranger:
            stranger.cursor().execute("SELECT * FROM dalga WHERE path = 'c' FOR UPDATE")
            for key in (keys[0], keys[7]):
                for word in (store.disable, store.enable, store.trigger, store.delete):
                    await word(key).addTimeout(1, reactor)
            stranger.rollback()
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga WHERE override = 2"), [(2,)])

    async def test_a_locked_row_holds_up_no_other_put(self) -> None:
        """
        P7: of jobs that are put together only the one whose row somebody has locked, or has just
        deleted, waits for that.
        """
        store = self.open_store()
        one = "FROM dalga WHERE path = 'a' AND body = 'body'"
        for lock in (f"SELECT * {one} FOR UPDATE", f"DELETE {one}"):
            self.in_the_past("a", "b")
            with closing(self.connect()) as stranger:
                stranger.cursor().execute(lock)
                puts = {path: store.put(JobKey(path, "body"), EACH_MINUTE) for path in "abcd"}
                for path in "bcd":
                    self.assertEqual((await puts.pop(path)).key, JobKey(path, "body"))
                self.assertEqual([path for path, put in puts.items() if put.called], [])
                stranger.rollback()
            for put in puts.values():
                self.assertEqual((await put).schedule, Every(timedelta(minutes=1)))
            self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga WHERE schedule = '60'"), [(4,)])
            self.sql("DELETE FROM dalga")

    async def test_a_job_that_somebody_adds_meanwhile(self) -> None:
        """P7: nor do those wait for long that share a transaction with what a stranger adds."""
        store = self.open_store()
        for path, leased, ending in (("b", True, "commit"), ("c", False, "rollback")):
            with closing(self.connect()) as stranger:
                stranger.cursor().execute(
                    "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due, token) VALUES"
                    " (%s, 'body', '', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), '2100-01-01', %s)",
                    (path, b"t" * 16 if leased else None),
                )
                puts = [store.put(JobKey(name, "body"), EACH_MINUTE) for name in ("a", path, "z")]
                await self.until_waiting()
                self.assertEqual([put for put in puts if put.called], [])
                getattr(stranger, ending)()
            for put in puts:
                job = await put
                self.assertEqual(await store.get(job.key), job)
                self.assertEqual(job.running, leased and job.key.path == path)
            self.sql("DELETE FROM dalga")

    async def test_a_stranger_who_adds_and_does_not_end(self) -> None:
        """P7: those that share a transaction with what he adds are put without it after a while."""
        store = self.open_store()
        with closing(self.connect()) as stranger:
            stranger.cursor().execute(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled) "
                "VALUES ('b', 'body', '', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))"
            )
            puts = {path: store.put(JobKey(path, "body"), EACH_MINUTE) for path in "abc"}
            for path in "ac":
                await puts[path]
            self.assertFalse(puts["b"].called)
            stranger.rollback()
        self.assertEqual((await puts["b"]).key.path, "b")

    async def test_puts_together_and_alone(self) -> None:
        """Jobs are locked in one order by all who go by their keys: none loses a deadlock."""
        stores = [self.open_store(), self.open_store()]
        keys = [JobKey("job", f"{number * 7919 % 100:02}") for number in range(40)]
        await gatherResults([stores[0].put(key, EACH_MINUTE) for key in keys])
        conflicts = []
        for store in stores:
            dialect: Any = store._dialect
            trouble = dialect.trouble

            def counted(error: Exception, trouble: Any = trouble) -> Any:
                found = trouble(error)
                if found is Trouble.CONFLICT:
                    conflicts.append(error)
                return found

            self.patch(dialect, "trouble", counted)
        for turn in range(12):
            alone = (
                stores[1].trigger(key) if number % 2 else stores[1].disable(key)
                for number, key in enumerate(keys[turn:] + keys[:turn])
            )
            await gatherResults([*(stores[0].put(key, EACH_MINUTE) for key in keys)])
            together: list[Deferred[Any]] = [stores[0].put(key, EACH_MINUTE) for key in keys]
            await DeferredList([*together, *alone], consumeErrors=True)
        self.assertEqual(conflicts, [])

    async def test_later_words_of_a_key(self) -> None:
        """P4: a PUT that waits beside others is not overtaken by a later one of its own job."""
        store = self.open_store()
        with closing(self.connect()) as stranger:
            stranger.cursor().execute(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled) "
                "VALUES ('b', 'body', '', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))"
            )
            key = JobKey("k", "body")
            first = [store.put(JobKey("b", "body"), EACH_MINUTE), store.put(key, EACH_MINUTE)]
            await self.until_waiting()
            last = store.put(key, NOW)
            await store.put(JobKey("c", "body"), EACH_MINUTE)
            self.assertFalse(last.called)
            stranger.rollback()
            await gatherResults([*first, last])
        self.assertEqual((await self.job(store, key)).schedule, Once())

    async def test_a_lock_that_is_held_too_long(self) -> None:
        """A put that waits for a stranger's lock in vain is refused; it goes through later."""
        self.claimable("a")
        store = self.stores[0]
        key = JobKey("a", "body")
        with closing(self.connect()) as stranger:
            stranger.cursor().execute("SELECT * FROM dalga WHERE path = 'a' FOR UPDATE")
            await self.assertFailure(store.put(key, NOW), StoreUnavailable)
            stranger.rollback()
        await store.put(key, NOW)

    async def test_a_deadlock_is_run_again(self) -> None:
        """A transaction that loses a deadlock is run again, unseen by its caller."""
        self.claimable("a", "b")
        store = self.stores[0]
        tried: list[bool] = []

        def one_after_the_other(cursor: Any, now: datetime, since: float) -> None:
            tried.append(True)
            for path in ("a", "b"):
                cursor.execute("UPDATE dalga SET error = 'x' WHERE path = %s", (path,))

        with closing(self.connect()) as stranger:
            cursor = stranger.cursor()
            # Heavier than the store's transaction, so that the store is the one that loses.
            for number in range(100):
                cursor.execute(
                    "INSERT INTO dalga (path, body, schedule, anchor, scheduled) "
                    f"VALUES ('x', {number}, '', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))"
                )
            cursor.execute("SELECT id FROM dalga WHERE path = 'b' FOR UPDATE")
            updating = store._run_lane.run(one_after_the_other)
            await self.until_waiting()

            def close_the_circle() -> None:
                cursor.execute("SELECT id FROM dalga WHERE path = 'a' FOR UPDATE")
                stranger.rollback()

            await deferToThread(close_the_circle)
            await updating
        self.assertEqual(len(tried), 2)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga WHERE error = 'x'"), [(2,)])

    async def test_killed_connections(self) -> None:
        """P5: connections that die are replaced, unseen by the caller."""
        store = self.open_store()
        await store.put(KEY, NOW)
        # All connections of the API's lane, and at least one of the other.
        await gatherResults([store.now() for _ in range(20)])
        await store.claim(0, LONG)
        with closing(self.connect()) as stranger:
            cursor = stranger.cursor()
            cursor.execute(
                "SELECT id FROM information_schema.processlist "
                "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            )
            victims = [row[0] for row in cursor.fetchall()]
            self.assertGreater(len(victims), 2)
            for victim in victims:
                cursor.execute(f"KILL {int(victim)}")
        await store.get(KEY)
        (run,) = (await store.claim(9, LONG)).runs
        self.assertEqual(await self.record(store, [(run, Delete())]), [])

    async def test_a_commit_whose_reply_is_lost(self) -> None:
        """P4: what may have been written is not written again: it may have run and be gone."""
        store = self.open_store()
        tried: list[bool] = []

        def work(cursor: Any, now: datetime, since: float) -> None:
            tried.append(True)
            cursor.execute("SELECT CONNECTION_ID()")
            ((connection,),) = cursor.fetchall()
            with closing(server(self.engine).connect_as_root()) as root:
                root.cursor().execute(f"KILL {int(connection)}")

        await self.assertFailure(store._api_lane.run(work), StoreUnavailable)
        self.assertEqual(len(tried), 1)

    async def test_what_is_abandoned_is_not_written(self) -> None:
        """P4: a write whose caller has given up leaves no trace, wherever it was then."""
        store = self.open_store()
        begun, go_on = Event(), Event()
        kept: list[Any] = []

        def work(cursor: Any, now: datetime, since: float) -> None:
            begun.set()
            go_on.wait(10)
            cursor.execute("DELETE FROM dalga")

        await store.put(KEY, EACH_MINUTE)
        writing = [store._api_lane.run(work) for _ in range(9)]
        await deferToThread(begun.wait, 10)
        for write in writing:
            write.addErrback(lambda failure: kept.append(failure.trap(CancelledError)))
            write.cancel()
        self.assertEqual(len(kept), 9)
        go_on.set()
        await store.close()
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(1,)])

    async def test_a_server_that_only_reads(self) -> None:
        """P5: a connection whose server takes no writes any more is left for a new one."""
        store = self.open_store()

        def only_read(cursor: Any, now: datetime, since: float) -> None:
            cursor.execute("SET SESSION TRANSACTION READ ONLY")

        await gatherResults([store._api_lane.run(only_read) for _ in range(20)])
        for _ in range(20):
            try:
                await store.put(KEY, NOW)
                break
            except StoreUnavailable:
                pass
        else:
            self.fail("the sessions that only read are still in use")

    async def test_sessions_are_set_up(self) -> None:
        """The store's sessions read committed data only, in UTC, and don't wait long for locks."""
        store = self.open_store()
        name = "tx_isolation" if self.engine == "mariadb" else "transaction_isolation"

        def look(cursor: Any, now: datetime, since: float) -> Any:
            cursor.execute(
                f"SELECT @@{name}, @@time_zone, @@innodb_lock_wait_timeout, @@autocommit"
            )
            return cursor.fetchall()

        ((isolation, zone, wait, autocommit),) = await store._run_lane.run(look)
        self.assertEqual((isolation, zone, wait, autocommit), ("READ-COMMITTED", "+00:00", 3, 0))

    def claimable(self, *names: str) -> list[RawKey]:
        """Overdue jobs in an opened store's table."""
        self.open_store()
        return self.in_the_past(*names)

    def open_store_without_locks(self) -> JobsTable:
        """A store on an engine that knows no locking reads."""
        store = self.make_store() if self.stores else self.open_store()
        sql: Any = store._runsql
        dialect: Any = copy(store._dialect)
        dialect.skip_locked = ""
        without = RunStatements(dialect)
        sql.find_due, sql.read_leases = without.find_due, without.read_leases
        store.open()
        return store

    async def until_waiting(self) -> None:
        """Wait until some session waits for a lock."""
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        with closing(server(self.engine).connect_as_root()) as root:
            cursor = root.cursor()
            for _ in range(50):
                cursor.execute(
                    "SELECT COUNT(*) FROM information_schema.innodb_trx "
                    "WHERE trx_state = 'LOCK WAIT'"
                )
                if cursor.fetchall() != ((0,),):
                    return
                # MariaDB renews this view only when nobody has read it for 0.1 s.
                await deferLater(reactor, 0.2)
        self.fail("nobody waits for a lock")


@each_engine(globals(), only=("mariadb", "mysql"))
class ServerTests(EngineTestCase):
    """A table that is not whole, and a server of one's own that dies."""

    def test_an_index_that_is_missing(self) -> None:
        """What statements need by name is missed at the start, not by each of them."""
        self.open_store()
        for index, definition in (("job", "UNIQUE KEY job (path, body)"), ("due", "KEY due (due)")):
            self.sql(f"ALTER TABLE dalga DROP INDEX {index}")
            cure = f"ALTER TABLE `dalga` ADD {definition}"
            self.assertEqual(
                str(self.assertRaises(StartupError, self.make_store().open)),
                f"the table `dalga` in database {self.on_server.db!r} at {self.on_server.host}:"
                f"{self.on_server.port} has no index {index}: put it back with {cure}",
            )
            self.sql(cure)
            self.make_store().open()

    async def test_a_server_that_dies(self) -> None:
        """P1, P5: what was acknowledged outlives a kill; calls fail soon, then all is well."""
        own = start_server(self.engine)
        self.addCleanup(own.stop)
        name = own.create_database()
        self.config = MySQLConfig(own.host, own.port, name, "dalga", own.user, own.password)
        store = self.make_store()
        store.create_table()
        store.open()
        await store.put(KEY, NOW)
        (run,) = (await store.claim(9, LONG)).runs
        await store.put(JobKey("other", "job"), EACH_MINUTE)
        own.kill()
        error = await self.assertFailure(store.get(KEY), StoreUnavailable)
        self.assertIn(f"{own.host}:{own.port}", str(error))
        await self.assertFailure(store.claim(9, LONG), StoreUnavailable)
        await self.assertFailure(store.record([ended(run, Delete())]), StoreUnavailable)
        await deferToThread(own.start)
        self.assertEqual((await store.counts()).total, 2)
        self.assertEqual(await self.record(store, [(run, Delete())]), [])
        self.assertEqual((await store.counts()).total, 1)


@each_engine(globals(), only=("sqlite",))
class FileTests(EngineTestCase):
    """The embedded database."""

    async def test_durable_settings(self) -> None:
        """P1: write-ahead log, and an fsync with each commit."""
        store = self.open_store()

        def look(cursor: Any, now: datetime, since: float) -> Any:
            answers = []
            for pragma in ("journal_mode", "synchronous"):
                cursor.execute(f"PRAGMA {pragma}")
                answers += cursor.fetchall()
            return answers

        self.assertEqual(await store._run_lane.run(look), [(b"wal",), (2,)])

    def test_durable_whatever_sqlite_was_built_with(self) -> None:
        """P1: an fsync with each commit is asked for, not left to SQLite's default."""
        store = self.make_store()
        pragmas = ("synchronous", "fullfsync")
        with closing(self.connect()) as connection:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma} = OFF")
            assert isinstance(store._dialect, SQLite)
            store._dialect.set_up(connection)
            found = [connection.execute(f"PRAGMA {pragma}").fetchall() for pragma in pragmas]
        self.assertEqual(found, [[(2,)], [(1,)]])

    async def test_a_payload_is_removed_at_little_cost(self) -> None:
        """
        P7: SQLite does not write zeros over all of it, whatever it was built with. That would hold
        up its only connection.
        """
        store = self.make_store()
        dialect = store._dialect
        assert isinstance(dialect, SQLite)
        set_up = dialect.set_up

        def as_some_builds_do(connection: Any) -> None:
            connection.execute("PRAGMA secure_delete = ON")
            set_up(connection)

        self.patch(dialect, "set_up", as_some_builds_do)
        store.open()
        size = 2**20
        await store.put(KEY, replace(EACH_MINUTE, payload=Payload(bytes(size))))
        log = Path(f"{self.on_sqlite.path}-wal")
        before = log.stat().st_size
        self.assertGreater(before, size)
        await store.delete(KEY)
        self.assertLess(log.stat().st_size - before, size / 4)

    def test_the_steady_clock(self) -> None:
        """P8: the reactor's timers and the leases go by a clock that nobody sets."""
        reactor = MemoryReactorClock()
        service = make_service(Config(database=self.config, listen=ListenConfig(port=0)), reactor)
        for listener in service._fixed.listeners:
            self.addCleanup(listener.close)
        guard = service._fixed.store._guard
        assert guard is not None
        self.addCleanup(guard.release)
        self.assertIs(reactor.seconds, steady_seconds)
        before = steady_seconds()
        self.assertTrue(before <= service._fixed.store.clock.seconds() <= steady_seconds())

    def test_one_daemon_a_file(self) -> None:
        """A second daemon is refused, also by another name of the file, until the first is gone."""
        first, second = self.make_store(guarded=True), self.make_store(guarded=True)
        first.open()
        error = self.assertRaises(StartupError, second.open)
        self.assertIn("in use by another dalga", str(error))
        alias = f"{self.on_sqlite.path}-alias"
        os.symlink(self.on_sqlite.path, alias)
        self.config = type(self.config)(alias)
        self.assertRaises(StartupError, self.make_store(guarded=True).open)
        assert first._guard is not None
        first._guard.release()
        second.open()

    async def refused(self, store: JobsTable, *why: str) -> None:
        """Whatever is asked for is refused for the time being, by a sentence that says why."""
        for _ in range(2):
            calls: list[Deferred[Any]] = [
                store.put(KEY, EACH_MINUTE),
                store.get(KEY),
                store.claim(9, LONG),
            ]
            for call in calls:
                refusal = str(await self.assertFailure(call, StoreUnavailable))
                prefix = f"SQLite file {self.on_sqlite.path!r} can't be used now: "
                self.assertTrue(refusal.startswith(prefix), refusal)
                for part in why:
                    self.assertIn(part, refusal)

    async def open_with_a_job(self) -> tuple[JobsTable, str]:
        """A store with a job that is in the write-ahead log only; also a path to move files to."""
        store = self.open_store()
        await store.put(KEY, EACH_MINUTE)
        return store, f"{self.on_sqlite.path}-elsewhere"

    async def works(self, store: JobsTable, total: int = 1) -> None:
        """What was acknowledged is there, also to strangers, and more is taken."""
        self.assertEqual((await store.counts()).total, total)
        await store.put(JobKey("more", str(total)), EACH_MINUTE)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(total + 1,)])

    async def test_a_file_that_is_removed(self) -> None:
        """P1: nothing is acknowledged that would be lost with the process, nor a file made anew."""
        store, elsewhere = await self.open_with_a_job()
        os.rename(self.on_sqlite.path, elsewhere)
        await self.refused(store, "it was removed", "put it back")
        self.assertFalse(os.path.exists(self.on_sqlite.path))
        os.rename(elsewhere, self.on_sqlite.path)
        await self.works(store)

    async def test_a_file_that_is_replaced(self) -> None:
        """P1: who comes later uses the new one, so jobs are looked for there from then on."""
        store, _ = await self.open_with_a_job()
        for name in self.files():
            os.rename(name, f"{name}-elsewhere")
        self.make_store().open()
        await self.assertFailure(store.counts(), StoreUnavailable)
        self.assertEqual((await store.counts()).total, 0)

    async def test_another_file_under_its_name(self) -> None:
        """P1: what is not the jobs' file is left as it is, and so is what was committed."""
        for content, why in self.others():
            self.config = self.make_database()
            store, elsewhere = await self.open_with_a_job()
            os.rename(self.on_sqlite.path, elsewhere)
            Path(self.on_sqlite.path).write_bytes(content)
            await self.refused(store, why, "put the right one back")
            self.assertEqual(Path(self.on_sqlite.path).read_bytes(), content)
            os.rename(elsewhere, self.on_sqlite.path)
            await self.works(store)

    async def test_another_content(self) -> None:
        """P1: nor is anything acknowledged while something else is written over the file."""
        for content, why in self.others():
            self.config = self.make_database()
            store, elsewhere = await self.open_with_a_job()
            shutil.copyfile(self.on_sqlite.path, elsewhere)
            Path(self.on_sqlite.path).write_bytes(content)
            why = why.replace("another file is in its place", "another database was written over")
            await self.refused(store, why, "put the right one back")
            self.assertEqual(Path(self.on_sqlite.path).read_bytes(), content)
            shutil.copyfile(elsewhere, self.on_sqlite.path)
            await self.works(store)

    def others(self) -> list[tuple[bytes, str]]:
        """What may stand in the file's place, and what is said of it."""
        path = os.path.join(os.path.dirname(self.on_sqlite.path), "other")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE other (id INTEGER)")
        return [
            (b"", "is empty"),
            (b"no database", "is no database"),
            (b"no database" * 1000, "is no database"),
            (Path(path).read_bytes(), "another file is in its place"),
        ]

    async def test_another_database_alone(self) -> None:
        """Somebody else's database that has nothing left beside it is not taken for ours."""
        store, _ = await self.open_with_a_job()
        moved = {name: f"{name}-elsewhere" for name in self.files()}
        for name, other in moved.items():
            os.rename(name, other)
        content = self.others()[-1][0]
        Path(self.on_sqlite.path).write_bytes(content)
        with self.assertRaises(StoreUnavailable):
            await store.get(KEY)
        await self.refused(store, "another database is in its place", "put the right one back")
        self.assertEqual(Path(self.on_sqlite.path).read_bytes(), content)
        for name, other in moved.items():
            os.rename(other, name)
        await self.works(store)

    async def test_the_log_is_removed(self) -> None:
        """P1: what was committed to a -wal that is removed, or replaced, is not lost."""
        for total, (suffix, content) in enumerate(
            [("-wal", None), ("-wal", b""), ("-wal", b"else"), ("-shm", None)], 1
        ):
            store = self.stores[0] if self.stores else (await self.open_with_a_job())[0]
            os.rename(self.on_sqlite.path + suffix, f"{self.on_sqlite.path}-elsewhere")
            if content is not None:
                Path(self.on_sqlite.path + suffix).write_bytes(content)
            error = await self.assertFailure(store.put(KEY, EACH_MINUTE), StoreUnavailable)
            self.assertIn("its -wal or -shm was removed or replaced under dalga", str(error))
            self.assertIn("nothing is lost", str(error))
            await self.works(store, total)

    async def test_the_log_is_removed_behind_a_link(self) -> None:
        """SQLite has it beside the file itself."""
        file = self.on_sqlite.path
        self.config = type(self.config)(f"{file}-alias")
        os.symlink(file, self.on_sqlite.path)
        store, _ = await self.open_with_a_job()
        os.remove(f"{file}-wal")
        error = await self.assertFailure(store.get(KEY), StoreUnavailable)
        self.assertIn("its -wal or -shm was removed", str(error))
        await self.works(store)

    async def test_the_log_is_removed_while_another_reads(self) -> None:
        """P1: where it can't be saved, nothing is acknowledged until it can."""
        self.patch(sqlite, "BUSY_TIMEOUT", 0.5)
        store, _ = await self.open_with_a_job()
        with closing(self.connect()) as stranger:
            stranger.execute("BEGIN")
            stranger.execute("SELECT * FROM dalga").fetchall()
            await store.put(JobKey("other", "job"), EACH_MINUTE)
            os.remove(f"{self.on_sqlite.path}-wal")
            await self.assertFailure(store.put(KEY, EACH_MINUTE), StoreUnavailable)
            error = await self.assertFailure(store.put(KEY, EACH_MINUTE), StoreUnavailable)
            self.assertIn("another program holds the file", str(error))
        await self.assertFailure(store.put(KEY, EACH_MINUTE), StoreUnavailable)
        await self.works(store, 2)

    async def test_a_start_without_the_file(self) -> None:
        """P1: what was committed is not deleted to make a new file, but waits for its own."""
        store, elsewhere = await self.open_with_a_job()
        os.rename(self.on_sqlite.path, elsewhere)
        alias = f"{self.on_sqlite.path}-alias"
        os.symlink(self.on_sqlite.path, alias)
        log = f"{os.path.realpath(self.on_sqlite.path)}-wal"
        for _ in range(2):
            for name in (self.on_sqlite.path, alias):
                dialect = SQLite(name)
                error = self.assertRaises(sqlite3.Error, dialect.connect)
                self.assertEqual(
                    dialect.explain(error),
                    f"can't use SQLite file {name!r}: it is missing or empty, but "
                    f"{log!r} is there, with what was committed last: put back the file that "
                    "belongs to it, or remove it to begin without jobs",
                )
            self.assertRaises(StartupError, self.make_store().open)
            Path(self.on_sqlite.path).touch()
        os.rename(elsewhere, self.on_sqlite.path)
        self.make_store().open()
        await self.works(store)

    async def test_a_checkpoint_that_a_reader_holds_up(self) -> None:
        """P5: it leaves the file shorter than its header says, which is no damage."""
        store, _ = await self.open_with_a_job()
        with closing(self.connect()) as writer, closing(self.connect()) as reader:
            writer.execute("""
                WITH RECURSIVE numbers(n) AS (SELECT 1 UNION SELECT n + 1 FROM numbers LIMIT 500)
                INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)
                SELECT 'path' || n, 'body', '', '2100-01-01', '2100-01-01', '2100-01-01'
                FROM numbers
                """)
            writer.commit()
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM dalga").fetchall()
            writer.execute("UPDATE dalga SET due = '2100-01-02'")
            writer.commit()
            writer.execute("PRAGMA wal_checkpoint")
            ((pages, size),) = writer.execute(
                "SELECT * FROM pragma_page_count, pragma_page_size"
            ).fetchall()
            self.assertLess(os.path.getsize(self.on_sqlite.path), pages * size)
            await self.works(store, 501)
        await self.works(store, 502)

    async def test_a_touched_file(self) -> None:
        """What changes nothing in the file, or is SQLite's own doing, does not matter."""
        store, _ = await self.open_with_a_job()
        os.utime(self.on_sqlite.path)
        await self.works(store)
        self.sql("VACUUM")
        self.sql("PRAGMA wal_checkpoint(TRUNCATE)")
        await self.works(store, 2)

    def files(self) -> list[str]:
        return [self.on_sqlite.path + suffix for suffix in ("", "-wal", "-shm")]

    def test_a_newer_file(self) -> None:
        """A file of another version is left alone."""
        self.make_store().open()
        self.sql("PRAGMA user_version = 99")
        error = self.assertRaises(StartupError, self.make_store().open)
        self.assertIn("schema version 99", str(error))

    def test_create_table_twice(self) -> None:
        """The second time it is there already."""
        self.make_store().create_table()
        self.assertRaises(TableExists, self.make_store().create_table)

    async def test_busy(self) -> None:
        """A stranger who holds the file makes calls fail after a while; then all is well."""
        self.patch(sqlite, "BUSY_TIMEOUT", 0.5)
        store = self.open_store()
        await store.put(KEY, EACH_MINUTE)
        with closing(self.connect()) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            await self.assertFailure(store.put(KEY, EACH_MINUTE), StoreUnavailable)
            stranger.rollback()
        await store.put(KEY, EACH_MINUTE)
