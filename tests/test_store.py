"""The contract of `dalga.store.Store`, unchanged over SQLite, MariaDB and MySQL."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from random import Random
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import capturedLogs, formatEvent

from dalga.errors import InvalidRequest, JobNotFound, JobSetAside
from dalga.model.duration import seconds
from dalga.model.job import Job, Standing, UnreadableJob
from dalga.model.key import JobKey
from dalga.model.plan import ScheduleRequest, plan
from dalga.model.run import Delete, GiveBack, Reschedule, Retry, Run, lease_of
from dalga.model.schedule import Every, Once
from dalga.store import Claimed
from dalga.store import runs as store_runs
from dalga.store.table import JobsTable
from tests.examples import THEN, ended
from tests.lists import by_key
from tests.stores import EACH_MINUTE, LONG, NOW, OVER, EngineTestCase, each_engine

KEY = JobKey("check_feed", "1234")
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
IN_2030 = datetime(2030, 1, 1, tzinfo=UTC)
#: The columns of text.
TEXTS = ("schedule", "location", "options", "path", "body")


@each_engine(globals())
class ScheduleTests(EngineTestCase):
    """What the API does to jobs."""

    async def test_a_new_job(self) -> None:
        """A job that is put is there, with its first run an interval from the database's now."""
        store = self.open_store()
        put = await store.put(KEY, EACH_MINUTE)
        self.assertEqual(put.schedule, Every(MINUTE))
        self.assertLess(abs(put.scheduled - store.clock.now() - MINUTE), timedelta(seconds=5))
        self.assertEqual((put.due, put.running, put.attempts), (put.scheduled, False, 0))
        self.assertEqual(await store.get(KEY), put)

    async def test_put_is_committed_when_it_answers(self) -> None:
        """P1: another connection sees the row as soon as put has answered."""
        store = self.open_store()
        await store.put(KEY, EACH_MINUTE)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(1,)])

    async def test_put_again(self) -> None:
        """
        A second put of the same key reschedules the one job and forgets what the first went
        through.
        """
        store = self.open_store()
        await store.put(KEY, NOW)
        (run,) = (await store.claim(9, LONG)).runs
        await self.record(store, [(run, Retry(run.claimed, "500"))])
        job = await store.put(KEY, EACH_MINUTE)
        self.assertEqual((job.schedule, job.attempts, job.error), (Every(MINUTE), 0, None))
        self.assertEqual((await store.counts()).total, 1)

    async def test_keys_are_exact(self) -> None:
        """Keys that differ in a byte are different jobs; the longest ones fit."""
        store = self.open_store()
        names = [
            "job",
            "Job",
            "job ",
            " job",
            "jób",
            "jo\u0301b",
            "ß",
            "ss",
            "\U0001f600" * 255,
            "0",
            "00",
        ]
        keys = [JobKey(name, name) for name in names] + [
            JobKey("job", "Job"),
            JobKey("a", "x\0y\n"),
        ]
        for number, key in enumerate(keys, start=1):
            await store.put(key, ScheduleRequest(interval=seconds(number)))
        for number, key in enumerate(keys, start=1):
            self.assertEqual(
                (await self.job(store, key)).schedule, Every(timedelta(seconds=number))
            )

    async def test_times_to_the_ends(self) -> None:
        """The first and the last instants that a request can name are kept to the microsecond."""
        store = self.open_store()
        for first in (
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(999, 2, 3, 4, 5, 6, 7, tzinfo=UTC),
            datetime(2026, 1, 1, 0, 0, 0, 999999, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        ):
            await store.put(KEY, ScheduleRequest(first_run=first, one_off=True))
            self.assertEqual((await self.job(store, KEY)).due, first)

    async def test_a_refused_request_changes_nothing(self) -> None:
        """A request that the plan refuses leaves the job as it was."""
        store = self.open_store()
        before = await store.put(KEY, EACH_MINUTE)
        over = ScheduleRequest(interval=seconds(60), until=datetime(2020, 1, 1, tzinfo=UTC))
        await self.assertFailure(store.put(KEY, over), InvalidRequest)
        self.assertEqual(await store.get(KEY), before)

    async def test_no_such_job(self) -> None:
        """Asking for or triggering what is not there says so; deleting it is no error."""
        store = self.open_store()
        await self.assertFailure(store.get(KEY), JobNotFound)
        await self.assertFailure(store.trigger(KEY), JobNotFound)
        await store.delete(KEY)

    async def test_a_job_is_written_in_the_order_of_the_calls(self) -> None:
        """P4: also where nobody waits for a call's end, as where a client has hung up."""
        store = self.open_store()
        put, deleted = store.put(KEY, EACH_MINUTE), store.delete(KEY)
        await put
        await deleted
        await self.assertFailure(store.get(KEY), JobNotFound)
        put, disabled, enabled = store.put(KEY, EACH_MINUTE), store.disable(KEY), store.enable(KEY)
        triggered, last = store.trigger(KEY), store.put(KEY, NOW)
        first = await put
        self.assertFalse(first.disabled)
        self.assertTrue((await self.readable(disabled)).disabled)
        self.assertFalse((await self.readable(enabled)).disabled)
        self.assertLess((await triggered).scheduled, first.scheduled)
        written = await last  # a GET that comes before that need not see it
        self.assertEqual(await store.get(KEY), written)

    async def readable(self, call: Deferred[Job | UnreadableJob]) -> Job:
        job = await call
        assert isinstance(job, Job)
        return job

    async def test_delete(self) -> None:
        """A deleted job is gone."""
        store = self.open_store()
        await store.put(KEY, EACH_MINUTE)
        await store.put(JobKey("other", "1234"), EACH_MINUTE)
        await store.delete(KEY)
        await self.assertFailure(store.get(KEY), JobNotFound)
        self.assertEqual((await store.counts()).total, 1)

    async def test_trigger(self) -> None:
        """A triggered job is due now and keeps its schedule, which goes on from there."""
        store = self.open_store()
        await store.put(KEY, EACH_MINUTE)
        job = await store.trigger(KEY)
        (run,) = (await store.claim(9, LONG)).runs
        self.assertEqual(
            (run.key, run.schedule, run.scheduled), (KEY, Every(MINUTE), job.scheduled)
        )
        self.assertLess(abs(job.scheduled - store.clock.now()), timedelta(seconds=5))

    async def test_pages(self) -> None:
        """All jobs, a page at a time, in the order of path and body, whenever they were written."""
        store = self.open_store()
        names = ["c", "a", "d", "b", "e"]
        self.in_the_past(*names)
        self.sql("UPDATE dalga SET schedule = 'often' WHERE path = %s", (self.key("a"),))
        await store.put(JobKey("c", "body"), EACH_MINUTE)
        await store.put(JobKey("c", "a"), EACH_MINUTE)
        seen = [[job.key.path for job in page] for page in await self.pages(store, None, 2)]
        self.assertEqual(seen, [["a", "b"], ["c", "c"], ["d", "e"]])
        page = await store.page(by_key("a", None, 9))
        self.assertEqual((len(page.jobs), page.last), (1, None))
        self.assertIsInstance(page.jobs[0], UnreadableJob)
        self.assertEqual((await store.page(by_key("A", None, 9))).jobs, [])
        # Deleted during its run, and a key that is no text.
        await store.claim(2, LONG)
        (running,) = [
            job for job in (await store.page(by_key(None, None, 9))).jobs if job.key.path == "d"
        ]
        assert isinstance(running, Job) and running.running
        await store.delete(running.key)
        value = "CAST(x'ff' AS TEXT)" if self.engine == "sqlite" else "x'ff'"
        self.sql(f"UPDATE dalga SET path = {value} WHERE path = %s", (self.key("e"),))
        page = await store.page(by_key(None, None, 9))
        self.assertEqual([job.key.path for job in page.jobs], ["a", "b", "c", "c", "\ufffd"])

    async def pages(
        self, store: JobsTable, path: str | None, limit: int
    ) -> list[list[Job | UnreadableJob]]:
        """All pages of a list."""
        page = await store.page(by_key(path, None, limit))
        pages = [page.jobs]
        while page.last is not None:
            page = await store.page(by_key(path, page.last, limit))
            pages.append(page.jobs)
            self.assertLess(len(pages), 999)
        return pages

    async def test_any_key_has_its_place(self) -> None:
        """Each job is on one page, whatever the key's octets, and in the order of these."""
        store = self.open_store()
        texts = [
            "a",
            "a ",
            "A",
            "aa",
            "\0",
            "\0\0",
            "ä",
            "a\u0308",
            "z",
            "\U0001f430",
            "\ud7ff",
            "\uff5e",
        ]
        keys = [JobKey(path, body) for path in texts if "\0" not in path for body in texts]
        await gatherResults(
            [store.put(key, EACH_MINUTE) for key in self.random.sample(keys, len(keys))]
        )
        # What only a stranger writes.
        broken = ["x'ff'", "x'61'", "x'c3'"]
        if self.engine == "sqlite":
            broken += [f"CAST({value} AS TEXT)" for value in ("x'ff'", "x'c3'")]
        due = "2020-01-01 00:00:00.000000"
        for path, body in [*product(broken, broken), *product(["'a'"], broken)]:
            if self.engine == "sqlite" or "x'61'" not in (path, body):
                self.sql(
                    "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
                    f" VALUES ({path}, {body}, '', %s, %s, %s)",
                    (due, due, due),
                )
        ((total,),) = self.sql("SELECT COUNT(*) FROM dalga")
        for limit in (1, 7):
            pages = await self.pages(store, None, limit)
            self.assertEqual(sum(map(len, pages)), total)
            listed = [
                job.key
                for page in pages
                for job in page
                if isinstance(job, Job) and job.schedule == Every(MINUTE)
            ]
            octets = sorted((key.path.encode(), key.body.encode()) for key in keys)
            self.assertEqual([(key.path.encode(), key.body.encode()) for key in listed], octets)
        of_a = [job.key.body for page in await self.pages(store, "a", 2) for job in page]
        self.assertEqual(len(of_a), len(texts) + (5 if self.engine == "sqlite" else 2))

    async def test_counts(self) -> None:
        """All, due, and set aside."""
        store = self.open_store()
        self.in_the_past("a", "b", "c")
        await store.put(KEY, EACH_MINUTE)
        self.sql("UPDATE dalga SET schedule = 'often' WHERE path = %s", (self.key("a"),))
        await store.claim(1, LONG)
        counts = await store.counts()
        self.assertEqual((counts.total, counts.pending, counts.set_aside), (4, 2, 1))
        self.flushErrors()

    async def test_a_crowd_of_puts(self) -> None:
        """Many puts of few keys at once end in as many jobs as keys, and no error."""
        store, other = self.open_store(), self.open_store()
        keys = [JobKey("crowd", str(number % 5)) for number in range(100)]
        await gatherResults(
            [(store, other)[n % 2].put(key, EACH_MINUTE) for n, key in enumerate(keys)],
            consumeErrors=True,
        )
        self.assertEqual((await store.counts()).total, 5)

    def flushErrors(self) -> None:
        """Poison is logged as an error without a traceback, which trial does not count."""
        self.assertEqual(self.flushLoggedErrors(), [])


@each_engine(globals())
class ClaimTests(EngineTestCase):
    """Who runs what, and when."""

    async def test_oldest_first(self) -> None:
        """P6: a claim takes the longest due, in that order, and no more than it was asked for."""
        store = self.open_store()
        keys = self.in_the_past("c", "a", "d", "b")
        # The last to be written is the longest due, and no index gives that order.
        for second, key in enumerate(reversed(keys)):
            due = f"2020-01-01 00:00:{second:02}.000000"
            self.sql("UPDATE dalga SET due = %s WHERE path = %s", (due, self.key(key.path)))
        if self.engine == "sqlite":
            self.sql("DROP INDEX dalga_due")
        else:
            self.sql("ALTER TABLE dalga DROP INDEX due, ADD INDEX due (attempts)")
        keys.reverse()
        claimed = await store.claim(3, LONG)
        self.assertEqual([run.key for run in claimed.runs], keys[:3])
        self.assertTrue(claimed.full)
        claimed = await store.claim(3, LONG)
        self.assertEqual([run.key for run in claimed.runs], keys[3:])
        self.assertFalse(claimed.full)

    async def test_not_before_its_time(self) -> None:
        """What is not due is not taken."""
        store = self.open_store()
        await store.put(KEY, EACH_MINUTE)
        claimed = await store.claim(9, LONG)
        self.assertEqual((claimed.runs, claimed.full), ([], False))

    async def test_a_lease_holds(self) -> None:
        """P3: what one instance has claimed, no other gets."""
        store, other = self.open_store(), self.open_store()
        self.in_the_past("a")
        self.assertEqual(len((await store.claim(9, LONG)).runs), 1)
        self.assertEqual((await other.claim(9, LONG)).runs, [])
        self.assertTrue((await self.job(store, JobKey("a", "body"))).running)

    async def test_a_lease_ends(self) -> None:
        """
        P5, P2: a lease that is over lets the next one take the same run: same id, one attempt more.
        """
        store, other = self.open_store(), self.open_store()
        self.in_the_past("a")
        (first,) = (await store.claim(9, OVER)).runs
        self.assertFalse((await self.job(store, first.key)).running)
        (second,) = (await other.claim(9, LONG)).runs
        self.assertEqual((first.id, first.attempt), (second.id, 1))
        self.assertEqual((second.scheduled, second.attempt), (first.scheduled, 2))
        self.assertNotEqual(first.token, second.token)

    async def test_taken_over(self) -> None:
        """A claim says how many leases have ended without a record, however it reads the rows."""
        store, other = self.open_store(), self.open_store()
        for unusual in (False, True):
            if unusual:
                self.patch(store_runs, "run_from_text", lambda *_: None)
            self.in_the_past("a", "b", "c")
            claimed = await store.claim(2, OVER)
            self.assertEqual((len(claimed.runs), claimed.taken_over), (2, 0))
            retried = claimed.runs[0]
            await self.record(store, [(retried, Retry(claimed.now - MINUTE, "500"))])
            claimed = await other.claim(9, LONG)
            self.assertEqual((len(claimed.runs), claimed.taken_over), (3, 1))
            await self.record(other, [(run, Delete()) for run in claimed.runs])

    async def test_the_lease_is_counted_from_before_the_claim(self) -> None:
        """P3: the end that the instance goes by is no later than the row's."""
        store = self.open_store()
        self.in_the_past("a")
        (run,) = (await store.claim(9, LONG)).runs
        due = (await self.job(store, run.key)).due
        assert due is not None
        left_here = run.lease_ends - store.clock.seconds()
        left_there = (due - (await store.claim(9, LONG)).now).total_seconds()
        self.assertLess(left_here, left_there + 0.5)
        self.assertLess(abs(left_here - lease_of(LONG).total_seconds()), 5)

    async def test_a_lease_is_shorter_by_a_slow_look(self) -> None:
        """P3: the database may have told its time just as it was asked for the rows."""
        store = self.open_store()
        self.in_the_past("a")
        seconds, find = store.clock.seconds, store._runs._sql.find_due(False)
        late = 0.0

        def fetch(*arguments: Any, **values: Any) -> list[Any]:
            nonlocal late
            rows = find.fetch(*arguments, **values)
            late = 100.0
            return rows

        slow = SimpleNamespace(fetch=fetch)
        self.patch(store.clock, "seconds", lambda: seconds() + late)
        self.patch(store._runs._sql, "find_due", lambda without: slow)
        (run,) = (await store.claim(9, LONG)).runs
        left = run.lease_ends - store.clock.seconds()
        self.assertLessEqual(left, lease_of(LONG).total_seconds() - 100.0)

    async def test_each_run_has_its_own_lease(self) -> None:
        """
        P3: rows that are claimed together may have endpoints with time-outs of their own, also rows
        that are read column by column. An endpoint that nobody knows has the default's.
        """
        store, other = self.open_store(), self.open_store()
        self.in_the_past("a", "b", "c", "d")
        for row, endpoint in zip(self.ids()[1:], ("b", "c", "gone"), strict=True):
            options = f'{{"endpoint":"{endpoint}"}}'
            self.sql("UPDATE dalga SET options = %s WHERE id = %s", (options, row))
        own = {"b": 60.0, "c": 120.0}
        for read_as in ("text", "columns"):
            if read_as == "columns":
                self.patch(store_runs, "run_from_text", lambda *_: None)
            claimed = await store.claim(9, LONG, timeouts=own)
            self.assertEqual([run.key.path for run in claimed.runs], ["a", "b", "c", "d"])
            self.assertEqual([run.timeout for run in claimed.runs], [LONG, 60.0, 120.0, LONG])
            await self.check_leases(store, other, claimed)

    async def check_leases(self, store: JobsTable, other: JobsTable, claimed: Claimed) -> None:
        """Each run of a claim of one-off jobs has the lease of its time-out. Ends the runs."""
        self.assertEqual([run.payload for run in claimed.runs], [b"body"] * 4)
        since = {run.lease_ends - lease_of(run.timeout).total_seconds() for run in claimed.runs}
        self.assertLess(max(since) - min(since), 0.001)
        for run in claimed.runs:
            due = (await self.job(store, run.key)).due
            self.assertEqual(due, claimed.now + lease_of(run.timeout))
        self.assertEqual((await other.claim(9, LONG)).runs, [])
        given_back = [(run, GiveBack()) for run in claimed.runs]
        self.assertEqual(await self.record(store, given_back), [])

    def ids(self) -> list[Any]:
        """The ids of all rows, in due order."""
        return [id for (id,) in self.sql("SELECT id FROM dalga ORDER BY due")]

    async def test_put_together(self) -> None:
        """P1, P3, P4: jobs of all kinds that are put in one transaction are each as if alone."""
        store = self.open_store()
        await store.put(JobKey("there", "b"), EACH_MINUTE)
        runs = {name: await self.due_now(store, JobKey(name, "b")) for name in ("anew", "now")}
        asked = {
            "fresh": EACH_MINUTE,
            "there": NOW,
            "anew": replace(EACH_MINUTE, interval=seconds(7)),
            "now": replace(EACH_MINUTE, immediate=True),
        }
        never = replace(EACH_MINUTE, until=datetime(2020, 1, 1, tzinfo=UTC))
        refused, *puts = (
            store.put(JobKey(name, "b"), request)
            for name, request in {"never": never, **asked}.items()
        )
        await self.assertFailure(refused, InvalidRequest)
        for (name, request), put in zip(asked.items(), puts, strict=True):
            job = await put
            self.assertEqual(await store.get(JobKey(name, "b")), job, name)
            self.assertEqual(job.schedule, plan(request, job.anchor).schedule, name)
            self.assertEqual((job.running, job.waited), (name in runs, name == "now"), name)
        await self.assertFailure(store.get(JobKey("never", "b")), JobNotFound)
        await self.claim_one(store, JobKey("there", "b"))
        ended = [(run, Delete()) for run in runs.values()]
        self.assertEqual(len(await self.record(store, ended)), 2)
        (again,) = (await store.claim(9, LONG)).runs
        self.assertEqual((again.key.path, again.waited), ("now", True))

    async def test_a_crowd_of_claims(self) -> None:
        """
        P3: instances that claim at once share the work; nothing is lost and nothing taken twice.
        """
        stores = [self.open_store(), self.open_store()]
        keys = self.in_the_past(*(f"job{number}" for number in range(60)))
        taken: list[JobKey] = []
        while len(taken) < 60:
            answers = await gatherResults(
                [s.claim(7, LONG) for s in stores * 2], consumeErrors=True
            )
            new = [run.key for claimed in answers for run in claimed.runs]
            self.assertTrue(new, "rows are due but nobody gets them")
            taken += new
        self.assertEqual(sorted(taken), sorted(keys))

    async def test_without(self) -> None:
        """P6: paths that are left out are passed over, these and no others, by claims and scans."""
        store = self.open_store()
        keys = self.in_the_past("a", "A", "\xe9", "a ", "b", "ab", "c")
        without = ["a", "\xe9", "b", "nowhere"]
        dues = await store.due_within(timedelta(0), 3, without)
        self.assertEqual([due.second for due in dues.times], [1, 3, 5])
        for limit, expected, full in ((3, [1, 3, 5], True), (3, [6], False), (3, [], False)):
            claimed = await store.claim(limit, LONG, without)
            self.assertEqual([run.key for run in claimed.runs], [keys[n] for n in expected])
            self.assertEqual(claimed.full, full)
        dues = await store.due_within(timedelta(0), 3, without)
        self.assertEqual(dues.times, [])
        claimed = await store.claim(3, LONG)
        self.assertEqual([run.key for run in claimed.runs], [keys[0], keys[2], keys[4]])

    async def test_due_within(self) -> None:
        """The due times up to a horizon, in order; a full list ends where it ends."""
        store = self.open_store()
        self.in_the_past("a", "b", "c")
        await store.put(KEY, ScheduleRequest(interval=seconds(1)))
        await store.put(JobKey("far", "off"), EACH_MINUTE)
        dues = await store.due_within(timedelta(seconds=30), 100)
        self.assertEqual(len(dues.times), 4)
        self.assertEqual(dues.times, sorted(dues.times))
        ahead = dues.horizon - store.clock.now()
        self.assertLess(abs(ahead - timedelta(seconds=30)), timedelta(seconds=5))
        dues = await store.due_within(timedelta(seconds=30), 2)
        self.assertEqual(dues.horizon, datetime(2020, 1, 1, 0, 0, 1, tzinfo=UTC))

    async def test_poison(self) -> None:
        """P6: rows that can't be understood are set aside and shown; the others run on."""
        store = self.open_store()
        keys = self.in_the_past("bad", "../x", "good", "a\nb", "empty", "fine", "much")
        self.sql("UPDATE dalga SET schedule = 'often' WHERE path = %s", (self.key("bad"),))
        self.sql("UPDATE dalga SET schedule = '-1' WHERE path = %s", (self.key("much"),))
        self.sql("UPDATE dalga SET body = '' WHERE path = %s", (self.key("empty"),))
        with capturedLogs() as events:
            claimed = await store.claim(7, LONG)
        said = {(event["path"], event["body"]): formatEvent(event) for event in events}
        bad = ["bad", "../x", "a\nb", "empty", "much"]
        self.assertEqual(said.keys(), {(path, "" if path == "empty" else "body") for path in bad})
        line = said["bad", "body"]
        self.assertRegex(line, r"^'bad' 'body': row \d+ is set aside: .*'often'")
        self.assertEqual([run.key.path for run in claimed.runs], ["good", "fine"])
        self.assertTrue(claimed.full)  # what is due behind them is not left to the next scan
        shown = await store.get(keys[0])
        assert isinstance(shown, UnreadableJob), shown
        self.assertIn("'often'", shown.problem)
        self.assertEqual((await store.counts()).set_aside, 5)
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        # It is one's own to mend.
        healed = await store.put(JobKey(*keys[0]), NOW)
        self.assertEqual([run.key for run in (await store.claim(9, LONG)).runs], [healed.key])
        await store.delete(keys[1])
        self.assertEqual((await store.counts()).set_aside, 3)

    async def test_odd_values(self) -> None:
        """P6: a value that no Dalga has written is poison too, and a full counter stays full."""
        store = self.open_store()
        odd = []  # where columns have types of their own, there is less to go wrong
        if self.engine == "sqlite":
            odd += [
                "run = 'short'",
                "run = 1.5",
                "run = 1000000000000000",
                "attempts = 9e999",
                "attempts = 'many'",
            ]
        keys = self.in_the_past(*(f"odd{number}" for number in range(len(odd))), "full", "said")
        for number, assignment in enumerate(odd):
            self.sql(f"UPDATE dalga SET {assignment} WHERE path = %s", (self.key(f"odd{number}"),))
        self.sql("UPDATE dalga SET attempts = 4294967295 WHERE path = 'full'")
        self.sql("UPDATE dalga SET override = 3 WHERE path = 'said'")
        runs = (await store.claim(99, LONG)).runs
        self.assertEqual([run.key for run in runs], keys[-2:])
        self.assertEqual(runs[0].attempt, 4294967295)
        self.assertEqual((await store.counts()).set_aside, len(odd))
        self.assertEqual(await self.record(store, [(run, Delete()) for run in runs]), [])

    async def test_text_and_columns(self) -> None:
        """P6: a claim makes the same of rows whether it reads them as texts or by columns."""
        store, slow = self.open_store(), self.open_store()
        text = "CAST(x'{}' AS TEXT)" if self.engine == "sqlite" else "x'{}'"
        odd = [
            *(f"{column} = " + text.format("610A62") for column in TEXTS),
            *(f"{column} = " + text.format("610062") for column in TEXTS),
            *(f"{column} = " + text.format("61E962") for column in ("path", "body")),
            *(f"{column} = " + text.format("61F09F998262") for column in ("path", "body")),
            # As if these were the path, the body, and what is before them.
            "path = " + text.format("610A340A78"),
            "body = " + text.format("780A340A61"),
            "schedule = " + text.format("36300A5554430A"),
            "schedule = '60'",
            "schedule = 'P1M', location = 'Europe/Istanbul', options = '{\"count\":3}'",
            "location = 'Nowhere'",
            "options = '{'",
            "options = '[1]'",
            *(f"override = {number}" for number in range(6)),
            "disabled = 1",
            "disabled = 7",
            *(f"standing = {number}" for number in range(6)),
            "attempts = 1",
            *(f"{column} = 4294967295" for column in ("attempts", "successes", "skipped")),
            "run = x'00112233445566778899aabbccddeeff'",
            "started = '2020-01-02 00:00:00.000001'",
            "scheduled = '2100-01-01 00:00:00.000000'",
            "scheduled = '2100-01-01 00:00:00.000000', attempts = 1",
            "anchor = '2019-01-01 00:00:00.000000'",
        ]
        if self.engine == "sqlite":  # where columns have types of their own, there is less to see
            numbers = ("override", "disabled", "standing", "attempts", "successes", "skipped")
            for value in ("x'33'", "x'30'", "1.5", "'many'", "-1", "4294967296", "9e999", "''"):
                odd += [f"{column} = {value}" for column in numbers]
            for value in ("x'33'", "1.5", "'NULL'", "''", "'2020-01-02'", "'00112233445566778'"):
                odd += [f"{column} = {value}" for column in ("run", "started", "scheduled", "due")]
            odd += [f"{column} = CAST('x' AS BLOB)" for column in TEXTS]
            odd += [f"run = '{'0' * 16}'", f"run = '{'A' * 32}'", "run = 1000000000000000"]
        found = []
        for claims in (store, slow):
            for number, assignment in enumerate(odd):
                (key,) = self.in_the_past(f"odd{number}")
                self.sql(f"UPDATE dalga SET {assignment} WHERE path = %s", (self.key(key.path),))
            first = min(self.ids())
            if claims is slow:
                self.patch(store_runs, "run_from_text", lambda *_: None)
            claims._runs._token = partial(bytes, range(16))
            claimed = await claims.claim(len(odd), LONG)
            ids = {f"-{run.row}": f"-{run.row - first}" for run in claimed.runs}
            at = claimed.now
            runs = [
                run._replace(
                    row=run.row - first,
                    id=run.id.replace(f"-{run.row}", ids[f"-{run.row}"]),
                    claimed=THEN,
                    started=THEN if run.started == at else run.started,
                    lease_ends=0.0,
                )
                for run in claimed.runs
            ]
            columns = (
                "HEX(path), HEX(body), run, attempts, error, standing, disabled, token, override"
            )
            rows = self.sql(f"SELECT id - {first}, {columns}, due IS NULL FROM dalga ORDER BY id")
            found.append((runs, rows))
            self.flushLoggedErrors()
            self.sql("DELETE FROM dalga")
        self.assertGreater(len(found[0][0]), 10)
        self.assertEqual(found[0][0], found[1][0])
        self.assertEqual(found[0][1], found[1][1])

    async def test_a_column_that_is_null(self) -> None:
        """P6: somebody has changed the table. A row that lacks a value is set aside, alone."""
        store = self.open_store()
        if self.engine == "sqlite":
            self.sql("ALTER TABLE dalga DROP COLUMN location")
            self.sql("ALTER TABLE dalga ADD COLUMN location TEXT")
        else:
            self.sql("ALTER TABLE dalga MODIFY location VARCHAR(255) NULL")
        bad, good = self.in_the_past("bad", "good")
        utc = self.key("UTC")
        self.sql("UPDATE dalga SET location = %s", (utc,))
        self.sql("UPDATE dalga SET location = NULL WHERE path = %s", (self.key("bad"),))
        await self.claim_one(store, good)
        self.assertIsInstance(await store.get(bad), UnreadableJob)

    async def test_an_error_that_is_no_text(self) -> None:
        """P6: what stands in for an error message does not keep a job from being shown."""
        store = self.open_store()
        self.in_the_past("a")
        bad = "CAST(x'ff' AS TEXT)" if self.engine == "sqlite" else "'\ufffd'"
        self.sql(f"UPDATE dalga SET error = {bad}")
        self.assertEqual((await self.job(store, JobKey("a", "body"))).error, "\ufffd")

    async def test_trigger_what_is_set_aside(self) -> None:
        """A job that can't be understood can't be triggered, and the refusal says why."""
        store = self.open_store()
        (key,) = self.in_the_past("bad")
        self.sql("UPDATE dalga SET schedule = 'often'")
        error = await self.assertFailure(store.trigger(key), JobSetAside)
        self.assertIn("'often'", str(error))

    async def test_bytes_that_are_no_text(self) -> None:
        """P6: a key that is not UTF-8 is set aside like any other poison."""
        store = self.open_store()
        (_, good) = self.in_the_past("bad", "good")
        value = "CAST(x'ff' AS TEXT)" if self.engine == "sqlite" else "x'ff'"
        self.sql(f"UPDATE dalga SET path = {value} WHERE path = %s", (self.key("bad"),))
        self.assertEqual([run.key for run in (await store.claim(9, LONG)).runs], [good])
        self.assertEqual((await store.counts()).set_aside, 1)

    async def test_times_that_are_none(self) -> None:
        """P6: so is a row with a time that is none."""
        store = self.open_store()
        (_, good) = self.in_the_past("bad", "good")
        none = "0" if self.engine == "sqlite" else "0000-00-00 00:00:00"
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            if self.engine != "sqlite":
                cursor.execute("SET SESSION sql_mode = ''")
            cursor.execute(
                f"UPDATE dalga SET scheduled = '{none}', due = '{none}' WHERE path = 'bad'"
            )
            connection.commit()
        self.assertEqual(len((await store.due_within(MINUTE, 9)).times), 2)
        self.assertEqual([run.key for run in (await store.claim(9, LONG)).runs], [good])
        self.assertEqual((await store.counts()).set_aside, 1)


@each_engine(globals())
class RecordTests(EngineTestCase):
    """What the end of a run writes."""

    async def test_reschedule(self) -> None:
        """
        A done run of a periodic job leaves it due at its next time, with a clean slate and a new
        id: whether its times are counted from another instant now, or from the same.
        """
        store = self.open_store()
        for number, name in enumerate(("a", "b")):
            (key,) = self.in_the_past(name)
            run = await self.claim_one(store, key)
            later = run.claimed + MINUTE
            given_up = Reschedule(later, run.anchor, "500")
            self.assertEqual(await self.record(store, [(run, given_up)]), [])
            await store.trigger(key)
            run = await self.claim_one(store, key)
            await self.record(store, [(run, Retry(run.claimed, "500"))])
            run = await self.claim_one(store, key)
            later = run.claimed + MINUTE
            anchor = (later, run.anchor)[number]
            self.assertEqual(await self.record(store, [(run, Reschedule(later, anchor))]), [])
            job = await self.job(store, key)
            self.assertEqual((job.anchor, job.due, job.scheduled), (anchor, later, later))
            self.assertEqual((job.attempts, job.error, job.standing), (0, None, Standing.SOUND))
            self.assertEqual((job.running, job.successes), (False, 1))
            past = "2020-01-01 00:00:00.000000"
            self.sql("UPDATE dalga SET scheduled = %s, due = %s WHERE token IS NULL", (past, past))
            following = await self.claim_one(store, key)
            self.assertNotEqual(following.id, run.id)
            self.assertEqual((following.attempt, following.started), (1, following.claimed))

    async def test_reschedule_for_a_missed_time(self) -> None:
        """P6: a time that has gone by is due now: behind the runs that are waiting."""
        store = self.open_store()
        a, b = self.in_the_past("a", "b")
        (run,) = (await store.claim(1, LONG)).runs
        await self.record(store, [(run, Reschedule(run.scheduled, run.anchor))])
        claims = [await store.claim(1, LONG) for _ in range(2)]
        self.assertEqual([run.key for claim in claims for run in claim.runs], [b, a])

    async def test_reschedule_what_was_disabled(self) -> None:
        """P4: a job that was disabled during its run is not due at its next time."""
        store = self.open_store()
        for key, anchor in zip(self.in_the_past("a", "b"), (None, IN_2030), strict=True):
            run = (await store.claim(1, LONG)).runs[0]
            await store.disable(key)
            await self.record(store, [(run, Reschedule(IN_2030, anchor or run.anchor))])
            job = await self.job(store, key)
            self.assertEqual((job.due, job.scheduled, job.running), (None, IN_2030, False))

    async def test_retry(self) -> None:
        """
        P2: a failed run is due again at its retry, as the same run: same id, same scheduled time.
        """
        store = self.open_store()
        self.in_the_past("a")
        (run,) = (await store.claim(9, LONG)).runs
        self.assertEqual(await self.record(store, [(run, Retry(run.claimed, "x" * 999))]), [])
        job = await self.job(store, run.key)
        self.assertEqual((job.due, job.attempts, job.error), (run.claimed, 1, "x" * 255))
        (again,) = (await store.claim(9, LONG)).runs
        self.assertEqual((again.id, again.scheduled, again.attempt), (run.id, run.scheduled, 2))

    async def test_delete(self) -> None:
        """A job that is over is gone."""
        store = self.open_store()
        self.in_the_past("a")
        (run,) = (await store.claim(9, LONG)).runs
        self.assertEqual(await self.record(store, [(run, Delete())]), [])
        await self.assertFailure(store.get(run.key), JobNotFound)

    async def test_a_retry_is_no_lease(self) -> None:
        """P4: between two attempts a job is not running: put and delete act at once."""
        store = self.open_store()
        self.in_the_past("a", "b")
        runs = (await store.claim(9, LONG)).runs
        later = runs[0].claimed + MINUTE
        self.assertEqual(await self.record(store, [(run, Retry(later, "500")) for run in runs]), [])
        a, b = (run.key for run in runs)
        job = await self.job(store, a)
        self.assertEqual((job.due, job.running), (later, False))
        put = await store.put(a, EACH_MINUTE)
        self.assertEqual((put.due, put.running), (put.scheduled, False))
        await store.delete(b)
        self.assertEqual((await store.counts()).total, 1)

    async def test_many_at_once(self) -> None:
        """One batch closes runs of all kinds, each as it should."""
        store = self.open_store()
        self.in_the_past(*(f"job{number}" for number in range(50)))
        runs = (await store.claim(50, LONG)).runs
        later = runs[0].claimed + MINUTE
        verdicts = [
            (run, (Delete(), Reschedule(later + n * MINUTE, later), Retry(later, str(n)))[n % 3])
            for n, run in enumerate(runs)
        ]
        Random(1).shuffle(verdicts)
        self.assertEqual(await self.record(store, verdicts), [])
        for n, run in enumerate(runs):
            if n % 3 == 0:
                await self.assertFailure(store.get(run.key), JobNotFound)
            elif n % 3 == 1:
                self.assertEqual((await self.job(store, run.key)).due, later + n * MINUTE)
            else:
                self.assertEqual((await self.job(store, run.key)).error, str(n))

    async def test_a_lost_lease(self) -> None:
        """P2, P3: who has lost the lease has no say; who holds it has."""
        store, other = self.open_store(), self.open_store()
        self.in_the_past("a")
        (lost,) = (await store.claim(9, OVER)).runs
        (held,) = (await other.claim(9, LONG)).runs
        for verdict in (
            Delete(),
            Reschedule(lost.claimed, lost.claimed),
            Retry(lost.claimed, "500"),
        ):
            self.assertEqual(await self.record(store, [(lost, verdict)]), [lost])
        self.assertTrue((await self.job(store, held.key)).running)
        self.assertEqual(await self.record(other, [(held, Delete())]), [])

    async def test_a_lease_that_nobody_wanted(self) -> None:
        """
        P2: an outcome that comes after the lease's end still counts if nobody has taken the row.
        """
        store = self.open_store()
        self.in_the_past("a")
        (run,) = (await store.claim(9, OVER)).runs
        self.assertEqual(await self.record(store, [(run, Delete())]), [])
        self.assertEqual((await store.counts()).total, 0)

    async def test_put_during_a_run(self) -> None:
        """P4: the new schedule survives the end of the run. P3: it waits for that end."""
        store = self.open_store()
        for verdict in (Delete(), Reschedule(IN_2030, IN_2030), None):
            await store.put(KEY, NOW)
            (run,) = (await store.claim(9, LONG)).runs
            put = await store.put(KEY, ScheduleRequest(interval=seconds(7), immediate=True))
            self.assertEqual((put.running, put.schedule), (True, Every(7 * SECOND)))
            self.assertEqual((await store.claim(9, LONG)).runs, [])
            self.assertEqual(
                await self.record(store, [(run, verdict or Retry(run.claimed, "500"))]), [run]
            )
            (again,) = (await store.claim(9, LONG)).runs
            self.assertEqual((again.schedule, again.scheduled), (Every(7 * SECOND), put.scheduled))
            self.assertEqual(again.attempt, 1)
            self.assertNotEqual(again.id, run.id)
            self.assertEqual(await self.record(store, [(again, Delete())]), [])

    async def test_put_during_a_run_that_dies(self) -> None:
        """P4, P5: if the instance dies, the lease's end brings the new schedule, not a run."""
        store = self.open_store()
        await store.put(KEY, NOW)
        await store.claim(9, LONG)
        put = await store.put(KEY, EACH_MINUTE)
        self.end_leases()
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        job = await self.job(store, KEY)
        self.assertEqual((job.due, job.running, job.attempts), (put.scheduled, False, 0))

    async def test_delete_during_a_run(self) -> None:
        """P4: a job that was deleted during its run stays deleted, however the run ends."""
        store = self.open_store()
        for verdict in (Delete(), Reschedule(IN_2030, IN_2030), None):
            await store.put(KEY, NOW)
            (run,) = (await store.claim(9, LONG)).runs
            await store.delete(KEY)
            await self.assertFailure(store.get(KEY), JobNotFound)
            await self.assertFailure(store.trigger(KEY), JobNotFound)
            await store.delete(KEY)
            self.assertEqual(
                await self.record(store, [(run, verdict or Retry(run.claimed, "500"))]), [run]
            )
            self.assertEqual((await store.counts()).total, 0)

    async def test_delete_during_a_run_that_dies(self) -> None:
        """P4, P5: so it does if the instance dies."""
        store = self.open_store()
        await store.put(KEY, NOW)
        await store.claim(9, LONG)
        await store.delete(KEY)
        self.end_leases()
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual((await store.counts()).total, 0)

    async def test_delete_and_put_during_a_run(self) -> None:
        """P3, P4: a job that comes back during the run of its namesake waits for that run's end."""
        store = self.open_store()
        await store.put(KEY, NOW)
        (run,) = (await store.claim(9, LONG)).runs
        await store.delete(KEY)
        put = await store.put(KEY, NOW)
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual(await self.record(store, [(run, Delete())]), [run])
        (again,) = (await store.claim(9, LONG)).runs
        self.assertEqual((again.scheduled, again.schedule), (put.scheduled, Once()))

    async def test_trigger_during_a_run(self) -> None:
        """P3, P4: a trigger during a run is one more run, after that one."""
        store = self.open_store()
        await store.put(KEY, NOW)
        (run,) = (await store.claim(9, LONG)).runs
        self.assertTrue((await store.trigger(KEY)).running)
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual(await self.record(store, [(run, Delete())]), [run])
        self.assertEqual(len((await store.claim(9, LONG)).runs), 1)

    async def test_put_after_the_lease(self) -> None:
        """P4: a put on a lease that is over starts afresh, and the late end changes nothing."""
        store = self.open_store()
        await store.put(KEY, NOW)
        (run,) = (await store.claim(9, OVER)).runs
        put = await store.put(KEY, EACH_MINUTE)
        self.assertFalse(put.running)
        self.assertEqual(await self.record(store, [(run, Delete())]), [run])
        self.assertEqual(await store.get(KEY), put)

    async def test_a_crowd(self) -> None:
        """
        Claims, records, puts and deletes of the same rows at once end well: no error, nothing
        stuck.
        """
        stores = [self.open_store(), self.open_store()]
        keys = [JobKey("crowd", str(number)) for number in range(20)]
        for key in keys:
            await stores[0].put(key, NOW)

        async def record_all(store: JobsTable, runs: list[Run]) -> None:
            left = [ended(run, Reschedule(run.claimed, run.claimed)) for run in runs]
            while left:
                left = (await store.record(left)).postponed

        async def work(number: int) -> None:
            store, random = stores[number % 2], Random(number)
            for _ in range(6):
                runs = (await store.claim(10, LONG)).runs
                touched = random.sample(keys, 4)
                calls: list[Deferred[Any]] = [store.put(key, NOW) for key in touched[:3]]
                calls.append(store.delete(touched[3]))
                calls.append(Deferred.fromCoroutine(record_all(store, runs)))
                await gatherResults(calls, consumeErrors=True)

        await gatherResults([Deferred.fromCoroutine(work(n)) for n in range(4)], consumeErrors=True)
        for key in keys:
            await stores[0].put(key, NOW)
        self.assertEqual(len((await stores[0].claim(50, LONG)).runs), 20)
