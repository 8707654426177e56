"""
The records of runs, as each engine writes them (P13): one of each run that has ended, whatever
ended it, and in whose transaction.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import gatherResults

from dalga.database import build_store
from dalga.model.answers import Meaning
from dalga.model.attempt import ErrorKind, Saved
from dalga.model.delivery import Payload, PayloadKind
from dalga.model.key import JobKey
from dalga.model.options import IfExists, OnFailure
from dalga.model.plan import ScheduleRequest
from dalga.model.record import HistoryMode, Result, job_key, path_key
from dalga.model.run import End, GiveBack, Outcome, Reschedule, Retry, Run, Skip, judge
from dalga.model.runid import run_id_from_text
from dalga.store import recording
from dalga.store.extras import OPEN
from dalga.store.group_commit import LOCKED
from dalga.store.puts import Put, Puts
from dalga.store.table import JobsTable
from tests.examples import EXACT, HOUR, MINUTE, ended
from tests.stores import EACH_MINUTE, LONG, NOW, OVER, EngineTestCase, each_engine

KEY = JobKey("a/b", "1 é'\\")
COLUMNS = (
    "failed, at, job, run, path, body, pathkey, jobkey, endpoint, cause, result, status, kind,"
    " scheduled, claimed, started, ended, lateness, attempts, instance, error, more, answer"
)


def text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


class RecordingTestCase(EngineTestCase):
    """A test that reads the rows of records as a stranger would."""

    def rows(self, where: str = "1 = 1") -> list[dict[str, Any]]:
        names = COLUMNS.split(", ")
        found = self.sql(f"SELECT {COLUMNS} FROM dalga_runs WHERE {where} ORDER BY failed, at, job")
        return [dict(zip(names, row, strict=True)) for row in found]

    def results(self) -> list[tuple[str, Result | None, int]]:
        """Of each record: the job's path, the result, and the number of attempts."""
        words = tuple(Result)
        return sorted(
            (
                str(text(row["path"])),
                None if row["result"] is None else words[row["result"]],
                int(row["attempts"]),
            )
            for row in self.rows()
        )

    def opened(self) -> tuple[int, int]:
        """How many open rows there are, and how many jobs that say that they have one."""
        ((rows,),) = self.sql("SELECT COUNT(*) FROM dalga_runs WHERE failed = 2")
        ((jobs,),) = self.sql(f"SELECT COUNT(*) FROM dalga WHERE (extras & {OPEN}) <> 0")
        return rows, jobs

    def instant(self, value: Any) -> datetime:
        """A time as a stranger's connection gives it."""
        return datetime.fromisoformat(str(value)).replace(tzinfo=UTC)

    async def end(self, store: JobsTable, run: Run, status: int | None = 200, **others: Any) -> End:
        """Record what an answer comes to, or the lack of one."""
        outcome = Outcome(status, 0.25, **others)
        end = judge(run, outcome, store.clock.now(), EXACT, Random(1))
        recorded = await store.record([end])
        self.assertEqual((recorded.lost, recorded.postponed), ([], []))
        return end

    async def retry(self, store: JobsTable, run: Run, now: bool = True) -> None:
        """Record a failure, after which the run is due again: now, or in an hour."""
        at = store.clock.now()
        end = judge(run, Outcome(503, 0.25), at, EXACT, Random(1))
        due = at - MINUTE if now else at + HOUR
        await store.record([end._replace(verdict=Retry(due, "503 Service Unavailable"))])


@each_engine(globals())
class RecordingTests(RecordingTestCase):
    """What each end of a run leaves."""

    async def test_a_success(self) -> None:
        """All columns."""
        store = self.open_store()
        store.called("web-1")
        run = await self.due_now(store, KEY)
        end = await self.end(store, run)
        (row,) = self.rows()
        self.assertEqual(
            {name: text(row[name]) for name in ("path", "body", "endpoint", "instance")},
            {"path": KEY.path, "body": KEY.body, "endpoint": "default", "instance": "web-1"},
        )
        self.assertEqual((row["pathkey"], row["jobkey"]), (path_key(KEY.path), job_key(*KEY)))
        self.assertEqual(f"{bytes(row['run']).hex()}-{row['job']}", run.id)
        names = (
            "failed",
            "cause",
            "result",
            "status",
            "kind",
            "attempts",
            "error",
            "more",
            "answer",
        )
        self.assertEqual([row[name] for name in names], [0, 0, 0, 200, 0, 1, None, None, None])
        assert end.ended is not None
        self.assertEqual(self.instant(row["scheduled"]), run.scheduled)
        self.assertEqual(self.instant(row["claimed"]), run.started)
        self.assertEqual(self.instant(row["ended"]), end.ended)
        started = end.ended - timedelta(seconds=0.25)
        self.assertEqual(self.instant(row["started"]), started)
        self.assertEqual(row["lateness"], (started - run.scheduled) // timedelta(milliseconds=1))
        written = (await store.now() - datetime.fromtimestamp(0, run.claimed.tzinfo)) // timedelta(
            microseconds=1
        )
        self.assertTrue(written - 60_000_000 < row["at"] <= written, row["at"])

    async def test_each_result(self) -> None:
        store = self.open_store()
        for path, meaning in {
            "removed": Meaning.REMOVE,
            "disabled": Meaning.DISABLE,
            "given up": Meaning.FAIL,
            "succeeded": Meaning.SUCCEED,
        }.items():
            run = await self.due_now(store, JobKey(path, "1"))
            await self.end(store, run, 299, meaning=meaning)
        run = await self.due_now(store, JobKey("stopped", "1"), on_failure=OnFailure.STOP)
        await self.end(store, run, 299, meaning=Meaning.FAIL)
        run = await self.due_now(store, JobKey("skipped", "1"))
        await store.record([End(run, None, Skip(run.scheduled + HOUR))])
        run = await self.due_now(store, JobKey("given back", "1"))
        await store.record([End(run, None, GiveBack())])
        self.assertEqual(
            self.results(),
            [
                ("disabled", Result.DISABLED, 1),
                ("given up", Result.GIVEN_UP, 1),
                ("removed", Result.REMOVED, 1),
                ("skipped", Result.SKIPPED, 0),
                ("stopped", Result.GIVEN_UP, 1),
                ("succeeded", Result.SUCCEEDED, 1),
            ],
        )
        shelves = {text(row["path"]): row["failed"] for row in self.rows()}
        failed = {"given up", "stopped", "skipped"}
        self.assertEqual(shelves, {path: int(path in failed) for path in shelves})
        (skipped,) = self.rows("result = 4")
        self.assertEqual((skipped["started"], skipped["ended"]), (None, None))

    async def test_a_failure(self) -> None:
        """Why it failed, and the answer, whatever is in it."""
        store = self.open_store()
        run = await self.due_now(store, KEY, payload=Payload(b"x", PayloadKind.TEXT))
        saved = Saved("Server: a\nX-Y: 'é\\", b"\xff\xf0\x9f\x99\x82'\\")
        await self.end(store, run, 500, meaning=Meaning.FAIL, saved=saved)
        (row,) = self.rows()
        self.assertEqual((row["status"], row["kind"]), (500, ErrorKind.STATUS.code))
        self.assertIn("500 Internal Server Error", text(row["error"]))
        self.assertEqual(json.loads(text(row["more"])), {"detailed": True})
        self.assertEqual(
            json.loads(text(row["answer"])),
            {"response_headers": saved.headers, "response_body": saved.text},
        )
        # Of a job that redacts its payload no body is known, and none is made up.
        redacting = await self.due_now(store, JobKey("a", "1"))
        await self.end(store, redacting, 500, meaning=Meaning.FAIL, saved=Saved("X: y", None))
        run_id = run_id_from_text(redacting.id)
        assert run_id is not None
        record = (await store.run(run_id)).record
        self.assertEqual((record.response_headers, record.response_body), ("X: y", None))
        run = await self.due_now(store, JobKey("b", "1"))
        await self.retry(store, run)
        run = await self.claim_one(store, run.key)
        error = "connection refused " * 20
        end = End(
            run,
            Outcome(None, 0.5, error, kind=ErrorKind.CONNECT),
            Reschedule(run.claimed + HOUR, run.anchor, error),
            Meaning.RETRY,
            ended=store.clock.now(),
        )
        await store.record([end])
        (row,) = self.rows("result = 3 AND attempts = 2")
        self.assertEqual((row["status"], row["kind"]), (None, ErrorKind.CONNECT.code))
        self.assertEqual(text(row["error"]), error[:255])

    async def test_many(self) -> None:
        """Successes and failures of one transaction, each with a long answer."""
        store = self.open_store()
        for number in range(40):
            await store.put(JobKey("p", str(number)), NOW)
        runs = (await store.claim(100, LONG)).runs
        saved = Saved("h" * 4096, b"\x00" * 2048)
        ends = [
            judge(
                run,
                Outcome(500 if number % 2 else 200, 0.1, saved=saved, meaning=meaning),
                store.clock.now(),
                EXACT,
                Random(1),
            )
            for number, run in enumerate(runs)
            for meaning in [Meaning.FAIL if number % 2 else Meaning.SUCCEED]
        ]
        recorded = await store.record(ends)
        self.assertEqual(len(recorded.written), 40)
        self.assertEqual(
            [result for _, result in recorded.results], [Result.SUCCEEDED, Result.GIVEN_UP] * 20
        )
        rows = self.rows()
        self.assertEqual([row["failed"] for row in rows], [0] * 20 + [1] * 20)
        body = saved.text
        self.assertEqual({json.loads(text(row["answer"]))["response_body"] for row in rows}, {body})

    async def test_two_records_of_one_time(self) -> None:
        """As a clock that was set back may have it: the transaction runs again, later."""
        store = self.open_store()
        times = iter([7, 7, 8])
        self.patch(recording, "version_at", lambda now: next(times))
        for _ in range(2):
            await self.end(store, await self.due_now(store, KEY))
        self.assertEqual([row["at"] for row in self.rows()], [7, 8])

    async def test_causes(self) -> None:
        """A run that a user asked for, and one that stands for several times."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.end(store, run)
        await store.trigger(KEY)
        run = await self.claim_one(store, KEY)
        await self.retry(store, run)
        await self.end(store, await self.claim_one(store, KEY))
        times = ("scheduled", "anchor", "due")
        self.sql(f"UPDATE dalga SET {', '.join(f'{name} = %s' for name in times)}", (PAST,) * 3)
        await self.end(store, await self.claim_one(store, KEY))
        await store.trigger(KEY)
        run = await self.claim_one(store, KEY)
        await store.trigger(KEY)  # during a run
        await self.end(store, run)
        await store.put(KEY, replace(EACH_MINUTE, immediate=True))
        await self.end(store, await self.claim_one(store, KEY))
        self.assertEqual([row["cause"] for row in self.rows()], [0, 1, 3, 1, 0])

    async def test_what_nobody_asks_for(self) -> None:
        """With failures only, and without a history."""
        for mode, expected in (
            (
                HistoryMode.FAILURES,
                [("bad", Result.GIVEN_UP, 1), ("retried", None, 1)],
            ),
            (HistoryMode.OFF, []),
        ):
            first = self.open_store()
            self.sql("DELETE FROM dalga")
            self.sql("DELETE FROM dalga_runs")
            store = self.with_mode(first, mode)
            await self.end(store, await self.due_now(store, JobKey("good", "1")))
            run = await self.due_now(store, JobKey("bad", "1"))
            await self.end(store, run, 299, meaning=Meaning.FAIL)
            await self.retry(store, await self.due_now(store, JobKey("retried", "1")), now=False)
            run = await self.due_now(store, JobKey("removed", "1"))
            await self.end(store, run, 299, meaning=Meaning.REMOVE)
            await self.retry(store, await self.due_now(store, JobKey("good at last", "1")))
            await self.end(store, await self.claim_one(store, JobKey("good at last", "1")))
            self.assertEqual(self.results(), expected, mode)
            self.assertEqual(self.opened(), (1, 1) if expected else (0, 0))

    async def test_switched_off_meanwhile(self) -> None:
        """A run that has an open row loses it."""
        store = self.open_store()
        await self.retry(store, await self.due_now(store, KEY))
        self.assertEqual(self.opened(), (1, 1))
        off = self.with_mode(store, HistoryMode.OFF)
        await self.end(off, await self.claim_one(off, KEY))
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.opened(), (0, 0))
        await self.retry(store, await self.due_now(store, KEY))
        await off.put(KEY, EACH_MINUTE)
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.opened(), (0, 0))

    async def test_switched_off_and_lost(self) -> None:
        """The claim that removes the row of a deleted job writes no record."""
        store = self.with_mode(self.open_store(), HistoryMode.OFF)
        await self.due_now(store, KEY)
        await store.delete(KEY)
        self.end_leases()
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])

    def with_mode(self, like: JobsTable, mode: HistoryMode) -> JobsTable:
        from twisted.internet import reactor

        store = build_store(self.config, reactor, self.random, history=mode)
        store._guard = None
        self.stores.append(store)
        store.open()
        return store


PAST = "2020-01-01 00:00:00.000000"


@each_engine(globals())
class RetriedTests(RecordingTestCase):
    """Runs that take several attempts."""

    async def test_two_instances(self) -> None:
        """The record has the attempts of both, and the open row is gone."""
        one, other = self.open_store(), self.open_store()
        one.called("one")
        other.called("other")
        first = await self.due_now(one, KEY)
        await self.retry(one, first)
        self.assertEqual(self.opened(), (1, 1))
        (row,) = self.rows()
        self.assertEqual((row["failed"], row["at"], row["result"]), (2, 0, None))
        self.assertEqual(text(row["instance"]), "one")
        second = await self.claim_one(other, KEY)
        await self.retry(other, second)
        self.assertEqual(self.opened(), (1, 1))
        third = await self.claim_one(one, KEY)
        await self.end(one, third)
        self.assertEqual(self.opened(), (0, 0))
        (row,) = self.rows()
        self.assertEqual((row["failed"], row["result"], row["attempts"]), (0, 0, 3))
        self.assertEqual(self.instant(row["claimed"]), first.started)
        self.assertEqual((row["status"], row["kind"], row["error"]), (200, 0, None))
        attempts = json.loads(text(row["more"]))["attempts"]
        self.assertEqual(
            [(each["n"], each["instance"], each.get("status")) for each in attempts],
            [(1, "one", 503), (2, "other", 503), (3, "one", 200)],
        )
        self.assertLess(self.instant(row["started"]), first.claimed + MINUTE)

    async def test_an_instance_that_is_lost(self) -> None:
        """Its attempt counts, and nothing else is known of it."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        self.end_leases()
        again = await self.claim_one(store, KEY)
        end = ended(run, Reschedule(run.claimed + HOUR, run.anchor, None))
        recorded = await store.record([end])
        self.assertEqual(recorded.lost, [end])
        self.assertEqual(recorded.results, [(end, None)])  # it counts where the run ends
        self.assertEqual(self.rows(), [])
        await self.retry(store, again)
        await store.claim(9, OVER)
        await self.end(store, await self.claim_one(store, KEY))
        (row,) = self.rows()
        self.assertEqual((row["result"], row["attempts"]), (0, 4))
        attempts = json.loads(text(row["more"]))["attempts"]
        self.assertEqual([each["n"] for each in attempts], [2, 4])
        self.assertEqual(self.instant(row["claimed"]), run.started)
        self.assertEqual(self.instant(row["started"]), run.started)

    async def test_an_answer_that_was_lost(self) -> None:
        """A COMMIT without an answer is recorded once, whatever ended the run."""
        store = self.open_store()
        for number, status in enumerate((200, 503)):
            run = await self.due_now(store, JobKey(str(number), "1"))
            end = judge(run, Outcome(status, 0.1), store.clock.now(), EXACT, Random(1))
            await store.record([end])
            store._runs._unsure.add((run.row, run.token))
            recorded = await store.record([end])
            self.assertEqual(recorded.already, [end])
            expected = Result.SUCCEEDED if status == 200 else None
            self.assertEqual(recorded.results, [(end, expected)])
        self.assertEqual(self.results(), [("0", Result.SUCCEEDED, 1), ("1", None, 1)])

    async def test_what_a_user_does_meanwhile(self) -> None:
        """While the run waits for its retry: some of it ends the run."""
        store = self.open_store()
        update = replace(EACH_MINUTE, if_exists=IfExists.UPDATE, description="x")
        names = ("put", "trigger", "delete", "patch", "update", "disable")
        for name in names:
            await self.retry(store, await self.due_now(store, JobKey(name, "1")), now=False)
        for name in names:
            key = JobKey(name, "1")
            if name == "put":
                await store.put(key, EACH_MINUTE)
            elif name == "patch":
                await store.patch(key, lambda job: ScheduleRequest(tags=("t",), interval=MINUTES))
            elif name == "update":
                await store.put(key, update)
            else:
                await getattr(store, name)(key)
        self.assertEqual(
            self.results(),
            [
                ("delete", Result.CANCELLED, 1),
                ("disable", None, 1),
                ("patch", None, 1),
                ("put", Result.OVERRIDDEN, 1),
                ("trigger", Result.OVERRIDDEN, 1),
                ("update", None, 1),
            ],
        )
        self.assertEqual(self.opened(), (3, 3))
        self.assertEqual(self.sql("SELECT extras FROM dalga WHERE path = 'put'"), [(0,)])
        await store.enable(JobKey("disable", "1"))
        self.sql("UPDATE dalga SET due = %s WHERE path = 'disable'", (PAST,))
        await self.end_one(store, "disable")
        self.sql("UPDATE dalga SET due = %s WHERE path IN ('update', 'patch')", (PAST,))
        for run in (await store.claim(9, LONG)).runs:
            if run.key.path in ("update", "patch"):
                await self.end(store, run)
        found = [row for row in self.results() if row[0] in ("update", "patch", "disable")]
        self.assertEqual({result for _, result, _ in found}, {Result.SUCCEEDED})
        self.assertEqual({attempts for _, _, attempts in found}, {2})
        self.assertEqual(self.opened(), (0, 0))

    async def end_one(self, store: JobsTable, path: str) -> None:
        for run in (await store.claim(9, LONG)).runs:
            if run.key.path == path:
                await self.end(store, run)

    async def test_what_a_user_does_during_an_attempt(self) -> None:
        """The end of the attempt says what the run came to."""
        store = self.open_store()
        for name, status, attempts, expected in (
            ("put", 503, 1, Result.OVERRIDDEN),
            ("put", 503, 2, Result.OVERRIDDEN),
            ("put", 200, 2, Result.SUCCEEDED),
            ("trigger", 503, 2, Result.OVERRIDDEN),
            ("delete", 503, 1, Result.CANCELLED),
            ("delete", 503, 2, Result.CANCELLED),
            ("delete", 200, 2, Result.SUCCEEDED),
        ):
            key = JobKey(f"{name} {status} {attempts}", "1")
            run = await self.due_now(store, key)
            if attempts == 2:
                await self.retry(store, run)
                run = await self.claim_one(store, key)
            if name == "put":
                await store.put(key, EACH_MINUTE)
            else:
                await getattr(store, name)(key)
            end = judge(run, Outcome(status, 0.1), store.clock.now(), EXACT, Random(1))
            recorded = await store.record([end])
            self.assertEqual(recorded.overridden, [end])
            self.assertEqual(recorded.results, [(end, expected)])
            self.assertIn((key.path, expected, attempts), self.results())
            self.assertEqual(self.opened(), (0, 0), key)
            await store.delete(key)
        self.assertEqual(len(self.results()), 7)

    async def test_given_back_after_a_put(self) -> None:
        """A retry that was claimed, and not begun, ends by what the user did."""
        store = self.open_store()
        await self.retry(store, await self.due_now(store, KEY))
        run = await self.claim_one(store, KEY)
        await store.record([End(run, None, GiveBack())])
        self.assertEqual(self.opened(), (1, 1))
        run = await self.claim_one(store, KEY)
        await store.put(KEY, EACH_MINUTE)
        await store.record([End(run, None, GiveBack())])
        self.assertEqual(self.results(), [(KEY.path, Result.OVERRIDDEN, 1)])
        self.assertEqual(self.opened(), (0, 0))

    async def test_an_instance_that_is_lost_after_a_put(self) -> None:
        """The run that it retried has its record by the end of the next run."""
        store = self.open_store()
        first = await self.due_now(store, KEY)
        await self.retry(store, first)
        await self.claim_one(store, KEY)
        await store.put(KEY, replace(EACH_MINUTE, immediate=True))
        self.end_leases()
        run = await self.claim_one(store, KEY)
        self.assertNotEqual(run.id, first.id)
        await self.end(store, run, 299, meaning=Meaning.FAIL)
        found = {bytes(row["run"]).hex(): row["result"] for row in self.rows()}
        expected = {first.id[:32]: Result.OVERRIDDEN.code, run.id[:32]: Result.GIVEN_UP.code}
        self.assertEqual(found, expected)
        self.assertEqual(self.opened(), (0, 0))

    async def test_a_deleted_job_whose_instance_is_lost(self) -> None:
        """The claim that removes the row writes the record."""
        store = self.open_store()
        for path, attempts in (("first", 1), ("second", 2)):
            run = await self.due_now(store, JobKey(path, "1"))
            if attempts == 2:
                await self.retry(store, run)
                await self.claim_one(store, run.key)
            await store.delete(run.key)
            self.end_leases()
            self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual(
            self.results(), [("first", Result.CANCELLED, 1), ("second", Result.CANCELLED, 1)]
        )
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])

    async def test_a_deleted_job_that_nobody_understands(self) -> None:
        """Somebody's SQL keeps no row from its removal (P6)."""
        store = self.open_store()
        await self.due_now(store, KEY)
        await store.delete(KEY)
        self.end_leases()
        self.sql("UPDATE dalga SET cause = 77")
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])

    async def test_a_run_that_leaves_no_trace(self) -> None:
        """
        A PUT has taken the place of a run whose instance is lost. That run has no record, and none
        is made up in its place when the job is deleted.
        """
        store = self.open_store()
        await self.due_now(store, KEY)
        await store.put(KEY, EACH_MINUTE)
        await store.delete(KEY)
        self.end_leases()
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])

    async def test_stopped_and_triggered(self) -> None:
        """The same run once more has a record once more, and its cause stays."""
        store = self.open_store()
        run = await self.due_now(store, KEY, on_failure=OnFailure.STOP)
        await self.end(store, run, 299, meaning=Meaning.FAIL)
        await store.trigger(KEY)
        again = await self.claim_one(store, KEY)
        self.assertEqual(again.id, run.id)
        await self.end(store, again)
        self.assertEqual(
            self.results(), [(KEY.path, Result.GIVEN_UP, 1), (KEY.path, Result.SUCCEEDED, 2)]
        )
        self.assertEqual({row["cause"] for row in self.rows()}, {0})

    async def test_an_open_row_that_nobody_understands(self) -> None:
        """Somebody's SQL keeps no run from its record (P6)."""
        store = self.open_store()
        attempt = '{"n":1,"at":"0001-01-01T00:00:00+14:00","instance":"","ms":1}'
        changes = ["more = 'x'", "more = NULL", "claimed = claimed, cause = 77", None]
        changes.append(f"""more = '{{"attempts":[{attempt}]}}'""")
        if self.engine == "sqlite":  # a server takes nothing else in these columns
            changes += ["run = 1152921504606846976", "run = -1", "run = 0.5", "lateness = 9e999"]
        for change in changes:
            await self.retry(store, await self.due_now(store, KEY))
            if change is None:
                self.sql("DELETE FROM dalga_runs WHERE failed = 2")
            else:
                self.sql(f"UPDATE dalga_runs SET {change} WHERE failed = 2")
            await self.end(store, await self.claim_one(store, KEY))
        self.assertEqual(self.results(), [(KEY.path, Result.SUCCEEDED, 2)] * len(changes))
        self.assertEqual(self.opened(), (0, 0))

    async def test_an_open_row_that_nobody_knows_of(self) -> None:
        """One that was left behind is written over."""
        store = self.open_store()
        await self.retry(store, await self.due_now(store, KEY))
        self.sql("UPDATE dalga SET extras = 0")
        await self.retry(store, await self.claim_one(store, KEY))
        self.assertEqual(self.results(), [(KEY.path, None, 2)])


MINUTES = EACH_MINUTE.interval


@each_engine(globals(), only=("sqlite",))
class OddTests(RecordingTestCase):
    """A server takes nothing but numbers as `extras`."""

    async def test_extras_that_nobody_understands(self) -> None:
        """P6: somebody's SQL keeps no run from its record, and no job from its removal."""
        store = self.open_store()
        for odd in ("'x'", "X'01'", "0.5"):
            run = await self.due_now(store, KEY)
            await self.retry(store, run)
            run = await self.claim_one(store, KEY)
            self.sql(f"UPDATE dalga SET extras = {odd}")
            await self.end(store, run)
            self.assertEqual(self.results(), [(KEY.path, Result.SUCCEEDED, 2)])
            self.assertEqual(self.opened(), (0, 0))
            self.sql(f"UPDATE dalga SET extras = {odd}")
            await store.delete(KEY)
            self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])
            self.sql("DELETE FROM dalga_runs")


@each_engine(globals(), only=("mariadb", "mysql"))
class LockedTests(RecordingTestCase):
    """An open row that a stranger has locked."""

    async def test_it_holds_up_no_other(self) -> None:
        """The end of its run waits, and is written afterwards."""
        store = self.open_store()
        held, free = JobKey("held", "1"), JobKey("free", "1")
        for key in (held, free):
            await store.put(key, NOW)
        for run in (await store.claim(9, LONG)).runs:
            await self.retry(store, run)
        runs = {run.key: run for run in (await store.claim(9, LONG)).runs}
        ends = [
            judge(runs[key], Outcome(200, 0.1), store.clock.now(), EXACT, Random(1))
            for key in (held, free)
        ]
        with closing(self.connect()) as stranger:
            stranger.begin()
            stranger.cursor().execute(
                "SELECT * FROM dalga_runs WHERE failed = 2 AND at = 0 AND job = %s FOR UPDATE",
                (runs[held].row,),
            )
            recorded = await store.record(ends)
            self.assertEqual(recorded.postponed, [ends[0]])
            self.assertEqual(recorded.written, [ends[1]])
            self.assertEqual([end for end, _ in recorded.results], [ends[1]])
            stranger.rollback()
        self.assertEqual((await store.record(recorded.postponed)).written, [ends[0]])
        self.assertEqual(
            self.results(), [("free", Result.SUCCEEDED, 2), ("held", Result.SUCCEEDED, 2)]
        )

    async def test_it_holds_up_no_other_put(self) -> None:
        """Of a group of PUTs, the one of that job is tried alone; the others are written."""
        held, other = JobKey("held", "1"), JobKey("other", "1")
        answers: dict[JobKey, object] = {}
        write = Puts.write

        def noted(puts: Puts, cursor: Any, now: datetime, some: list[Put]) -> list[Any]:
            found = write(puts, cursor, now, some)
            for put, answer in zip(some, found, strict=True):
                answers.setdefault(put.key, answer)
            return found

        with patch.object(Puts, "write", noted):
            store = self.open_store()
        await self.retry(store, await self.due_now(store, held), now=False)
        answers.clear()
        with closing(self.connect()) as stranger:
            stranger.begin()
            stranger.cursor().execute("SELECT * FROM dalga_runs WHERE failed = 2 FOR UPDATE")
            first = store.put(JobKey("first", "1"), EACH_MINUTE)  # a group of its own
            waiting, free = (store.put(key, EACH_MINUTE) for key in (held, other))
            await gatherResults([first, free])
            stranger.rollback()
        await waiting
        self.assertIs(answers[held], LOCKED)
        self.assertEqual(self.results(), [("held", Result.OVERRIDDEN, 1)])

    async def test_a_claim_waits_for_none(self) -> None:
        """The row of a deleted job stays until its open row can be closed."""
        store = self.open_store()
        first = await self.due_now(store, KEY)
        await self.retry(store, first)
        await self.claim_one(store, KEY)
        await store.delete(KEY)
        self.end_leases()
        with closing(self.connect()) as stranger:
            stranger.begin()
            stranger.cursor().execute(
                "SELECT * FROM dalga_runs WHERE failed = 2 AND at = 0 AND job = %s FOR UPDATE",
                (first.row,),
            )
            self.assertEqual((await store.claim(9, LONG)).runs, [])
            self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(1,)])
            stranger.rollback()
        self.end_leases()
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual(self.results(), [(KEY.path, Result.CANCELLED, 1)])
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])
