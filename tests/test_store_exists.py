"""
The contract of `dalga.store.Store.put` on if-exists: what an application that PUTs its jobs at each
start may rely on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from dalga.errors import InvalidRequest, JobSetAside
from dalga.model.duration import duration_from_text
from dalga.model.job import Job, Standing, UnreadableJob
from dalga.model.key import JobKey
from dalga.model.options import CatchUp, IfExists, OnFailure
from dalga.model.plan import ScheduleRequest
from dalga.model.run import Delete, Reschedule, Retry, Run, Skip, Stop, Verdict
from dalga.model.schedule import Every
from dalga.store.rows import Override
from dalga.store.table import JobsTable
from tests.stores import EACH_MINUTE, NOW, EngineTestCase, each_engine
from tests.test_store_faults import before

KEY = JobKey("check_feed", "1234")
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BOTH = (IfExists.UPDATE, IfExists.KEEP)
PAST = datetime(2026, 1, 31, 9, tzinfo=UTC)
LATER = datetime(2100, 1, 31, 9, tzinfo=UTC)

#: One of each kind, each as an application might have it.
KINDS = {
    "interval": EACH_MINUTE,
    "interval, at once": replace(EACH_MINUTE, immediate=True),
    "interval, from a time on": replace(EACH_MINUTE, first_run=LATER),
    "months": ScheduleRequest(interval=duration_from_text("P1M"), first_run=LATER),
    "cron": ScheduleRequest(cron="0 9 * * MON-FRI", location="Europe/Riga"),
    "jitter": ScheduleRequest(cron="0 * * * *", jitter=HOUR),
    "once": ScheduleRequest(one_off=True, first_run=LATER),
    "once, in a while": ScheduleRequest(one_off=True, interval=duration_from_text("PT1H")),
    "once, now": NOW,
}


class ExistsTestCase(EngineTestCase):
    """PUTs on what is there."""

    def row(self) -> Any:
        """All that stands in the one row that there is."""
        (row,) = self.sql("SELECT * FROM dalga")
        return row

    async def ended(self, store: JobsTable, end: Callable[[Run], Verdict]) -> Run:
        """A job of each minute whose first run has ended so."""
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, end(run))])
        return run

    def states(self, store: JobsTable) -> dict[str, Callable[[], Awaitable[Any]]]:
        """What makes a job of each minute stand as it may."""

        async def disabled() -> None:
            await store.put(KEY, EACH_MINUTE)
            await store.disable(KEY)

        async def triggered_during_a_run() -> None:
            await self.due_now(store, KEY)
            await store.trigger(KEY)

        return {
            "waits": lambda: store.put(KEY, EACH_MINUTE),
            "is late": lambda: store.put(KEY, replace(EACH_MINUTE, immediate=True)),
            "runs": lambda: self.due_now(store, KEY),
            "is tried again": lambda: self.ended(store, lambda run: Retry(run.claimed, "500")),
            "has run": lambda: self.ended(
                store, lambda run: Reschedule(run.claimed + MINUTE, run.anchor)
            ),
            "was skipped": lambda: self.ended(store, lambda run: Skip(run.claimed + MINUTE)),
            "has gone on": lambda: self.ended(
                store, lambda run: Reschedule(run.claimed + MINUTE, run.anchor, "500")
            ),
            "has stopped": lambda: self.ended(store, lambda run: Stop("500")),
            "is disabled": disabled,
            "was triggered": triggered_during_a_run,
        }


@each_engine(globals())
class ExistsTests(ExistsTestCase):
    """One PUT after another."""

    async def test_not_there(self) -> None:
        """Where there is no such job it is scheduled, as by any PUT."""
        for rule in BOTH:
            for name, request in KINDS.items():
                store = self.open_store()
                job = await store.put(KEY, replace(request, if_exists=rule))
                self.assertEqual(await store.get(KEY), job, name)
                self.assertEqual((job.due, job.attempts), (job.scheduled, 0), name)
                if request.immediate:
                    await self.claim_one(store, KEY)
                self.end_leases()
                self.sql("DELETE FROM dalga")
                await store.close()

    async def test_the_same_again(self) -> None:
        """P2: a job that is PUT as it is stays as it is, and that is the answer."""
        store = self.open_store()
        for rule in BOTH:
            for name, request in KINDS.items():
                asked = replace(request, if_exists=rule)
                job = await store.put(KEY, asked)
                row = self.row()
                for _ in range(2):
                    self.assertEqual(await store.put(KEY, asked), job, name)
                    self.assertEqual(self.row(), row, name)
                await store.delete(KEY)

    async def test_in_each_state(self) -> None:
        """So does one that runs, is tried again, has stopped, is disabled and so on."""
        store = self.open_store()
        for rule in BOTH:
            for name, make in self.states(store).items():
                await make()
                row, job = self.row(), await store.get(KEY)
                for immediate in (False, True):
                    asked = replace(EACH_MINUTE, if_exists=rule, immediate=immediate)
                    self.assertEqual(await store.put(KEY, asked), job, name)
                    self.assertEqual(self.row(), row, name)
                self.sql("DELETE FROM dalga")

    async def test_kept_whatever_is_asked_for(self) -> None:
        """`keep` changes nothing, be it another schedule or other options."""
        store = self.open_store()
        for make in self.states(store).values():
            await make()
            row, job = self.row(), await store.get(KEY)
            for request in (*KINDS.values(), replace(EACH_MINUTE, count=7)):
                asked = replace(request, if_exists=IfExists.KEEP)
                self.assertEqual(await store.put(KEY, asked), job)
            self.assertEqual(self.row(), row)
            self.sql("DELETE FROM dalga")

    async def test_other_options(self) -> None:
        """`update` writes what else is asked for, and nothing of what the job has come to."""
        store = self.open_store()
        for name, make in self.states(store).items():
            await make()
            before = await self.job(store, KEY)
            token = self.sql("SELECT token, override, run, started FROM dalga")
            for options in (
                {"count": 7, "until": LATER},
                {"catch_up": CatchUp.ALL, "max_lateness": HOUR},
                {"on_failure": OnFailure.STOP, "location": "Asia/Tokyo"},
                {},
            ):
                asked = replace(EACH_MINUTE, if_exists=IfExists.UPDATE, **options)
                job = await store.put(KEY, asked)
                self.assertEqual(job.options.count, options.get("count"))
                self.assertEqual(job.options.until, options.get("until"))
                self.assertEqual(job.options.max_lateness, options.get("max_lateness"))
                self.assertEqual(job.schedule.zone.location, options.get("location", "UTC"))
                self.assertEqual(
                    replace(job, options=before.options, schedule=before.schedule), before, name
                )
            self.assertEqual(job, before)
            self.assertEqual(self.sql("SELECT token, override, run, started FROM dalga"), token)
            self.sql("DELETE FROM dalga")

    async def test_another_schedule(self) -> None:
        """`update` with another one reschedules, as a PUT does; a disabled job stays disabled."""
        store = self.open_store()
        each_hour = ScheduleRequest(interval=duration_from_text("1h"))
        for name, make in self.states(store).items():
            await make()
            before = await self.job(store, KEY)
            job = await store.put(KEY, replace(each_hour, if_exists=IfExists.UPDATE))
            self.assertEqual(job.schedule, Every(HOUR))
            self.assertLess(abs(job.scheduled - store.clock.now() - HOUR), timedelta(seconds=5))
            self.assertEqual(
                (job.attempts, job.error, job.standing, job.successes, job.skipped),
                (0, None, Standing.SOUND, 0, 0),
                name,
            )
            self.assertEqual((job.running, job.disabled), (before.running, before.disabled), name)
            self.assertEqual(job.next_run, None if before.disabled else job.scheduled, name)
            self.assertEqual(await store.get(KEY), job)
            self.sql("DELETE FROM dalga")

    async def test_reschedule(self) -> None:
        """`reschedule` is what a PUT does that says nothing."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, Retry(run.claimed, "500"))])
        await store.disable(KEY)
        job = await store.put(KEY, replace(EACH_MINUTE, if_exists=IfExists.RESCHEDULE))
        self.assertEqual((job.attempts, job.disabled), (0, False))
        self.assertGreater(job.scheduled, run.claimed)

    async def test_an_end_that_is_before_the_next_run(self) -> None:
        """An `until` that leaves no time for the run that the job has is refused; no other is."""
        store = self.open_store()
        job = await store.put(KEY, EACH_MINUTE)
        asked = replace(EACH_MINUTE, if_exists=IfExists.UPDATE)
        # A new job's first run, a minute from now, would be too late by now.
        await store.put(KEY, replace(asked, until=job.scheduled))
        row = self.row()
        error = await self.assertFailure(
            store.put(KEY, replace(asked, until=job.scheduled - MINUTE / 60)), InvalidRequest
        )
        self.assertIn("before the job's next run at ", str(error))
        self.assertEqual(self.row(), row)

    async def test_a_count_that_is_reached(self) -> None:
        """A `count` that leaves no run is refused, but for a run that has begun."""
        store = self.open_store()
        await self.ended(store, lambda run: Reschedule(run.claimed + MINUTE, run.anchor))
        asked = replace(EACH_MINUTE, if_exists=IfExists.UPDATE)
        row = self.row()
        error = await self.assertFailure(store.put(KEY, replace(asked, count=1)), InvalidRequest)
        self.assertEqual(
            str(error), "count is 1, and the job has had as many runs that succeeded: delete it"
        )
        self.assertEqual(self.row(), row)
        await store.put(KEY, replace(asked, count=2))
        await store.trigger(KEY)
        run = await self.claim_one(store, KEY)
        await store.put(KEY, replace(asked, count=1))
        await self.record(store, [(run, Retry(run.claimed, "500"))])
        self.assertEqual((await store.put(KEY, replace(asked, count=1))).attempts, 1)

    async def test_set_aside(self) -> None:
        """What can't be understood is written anew by `update`; to keep it is refused."""
        store = self.open_store()
        for column, value in (("schedule", "often"), ("options", "{")):
            await store.put(KEY, EACH_MINUTE)
            self.sql(f"UPDATE dalga SET {column} = %s", (value,))
            row = self.row()
            error = await self.assertFailure(
                store.put(KEY, replace(EACH_MINUTE, if_exists=IfExists.KEEP)), JobSetAside
            )
            self.assertIn("schedule it anew with PUT", str(error))
            self.assertEqual(self.row(), row)
            self.assertIsInstance(await store.get(KEY), UnreadableJob)
            await store.put(KEY, replace(EACH_MINUTE, if_exists=IfExists.UPDATE))
            await self.job(store, KEY)


@each_engine(globals())
class RunTests(ExistsTestCase):
    """During a run."""

    async def test_the_run_goes_on(self) -> None:
        """P2, P4: its end counts, and what is tried again is the same run, by the new options."""
        store, other = self.open_store(), self.open_store()
        for count in (None, 7):
            run = await self.due_now(store, KEY)
            asked = replace(EACH_MINUTE, if_exists=IfExists.UPDATE, count=count)
            await other.put(KEY, asked)
            self.assertEqual(await self.record(store, [(run, Retry(run.claimed, "500"))]), [])
            await other.put(KEY, replace(asked, on_failure=OnFailure.STOP))
            again = await self.claim_one(other, KEY)
            self.assertEqual((again.id, again.attempt, again.started), (run.id, 2, run.started))
            self.assertEqual(again.options.on_failure, OnFailure.STOP)
            end = Reschedule(again.claimed + MINUTE, again.anchor)
            self.assertEqual(await self.record(other, [(again, end)]), [])
            job = await self.job(other, KEY)
            self.assertEqual((job.scheduled, job.successes), (end.scheduled, 1))
            await store.delete(KEY)

    async def test_the_end_goes_by_the_new_options(self) -> None:
        """P4: a run that was to be the last is not, or the other way round, as was said then."""
        store, other = self.open_store(), self.open_store()
        cases: list[tuple[dict[str, Any], dict[str, Any], Verdict | None, bool]] = [
            ({"count": 1}, {"count": 2}, Delete(), False),
            ({"count": 1}, {}, Delete(), False),
            ({"count": 1}, {"count": 1}, Delete(), True),
            ({"count": 5}, {"count": 1}, None, True),
            ({}, {"until": True}, None, True),
        ]
        for old, new, ends, gone in cases:
            run = await self.due_now(store, KEY, **old)
            if "until" in new:
                new = {"until": run.scheduled + MINUTE / 2}
            await other.put(KEY, replace(EACH_MINUTE, if_exists=IfExists.UPDATE, **new))
            verdict = ends or Reschedule(run.scheduled + MINUTE, run.anchor)
            self.assertEqual(await self.record(store, [(run, verdict)]), [])
            rows = self.sql("SELECT successes FROM dalga")
            self.assertEqual(rows, [] if gone else [(1,)], (old, new))
            if not gone:
                job = await self.job(store, KEY)
                self.assertEqual(job.scheduled, run.scheduled + MINUTE)
            await store.delete(KEY)

    async def test_options_that_nobody_can_read(self) -> None:
        """P5: what somebody's SQL has made of them meanwhile keeps no end from being written."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        self.sql("UPDATE dalga SET options = '{'")
        end = Reschedule(run.claimed + MINUTE, run.anchor)
        self.assertEqual(await self.record(store, [(run, end)]), [])
        self.assertIsInstance(await store.get(KEY), UnreadableJob)

    async def test_deleted_during_it(self) -> None:
        """P3, P4: a job that was deleted is not there: it is scheduled, and runs after that end."""
        store, other = self.open_store(), self.open_store()
        for rule in BOTH:
            run = await self.due_now(store, KEY)
            await store.delete(KEY)
            job = await other.put(KEY, replace(EACH_MINUTE, if_exists=rule))
            self.assertEqual((job.running, job.attempts), (True, 0))
            self.assertEqual(await self.record(store, [(run, Delete())]), [run])
            self.assertEqual((await self.job(store, KEY)).due, job.scheduled)
            await store.delete(KEY)

    async def test_rescheduled_and_triggered(self) -> None:
        """P4: what was said before during the run still holds after an `update`."""
        store = self.open_store()
        each_hour = ScheduleRequest(interval=duration_from_text("1h"))
        cases: list[tuple[Callable[[], Deferred[Job]], ScheduleRequest]] = [
            (lambda: store.put(KEY, each_hour), each_hour),
            (lambda: store.trigger(KEY), EACH_MINUTE),
        ]
        for say, asked in cases:
            run = await self.due_now(store, KEY)
            said = await say()
            update = replace(asked, if_exists=IfExists.UPDATE, max_lateness=MINUTE)
            job = await store.put(KEY, update)
            self.assertEqual(job.scheduled, said.scheduled)
            self.assertEqual(await self.record(store, [(run, Delete())]), [run])
            job = await self.job(store, KEY)
            self.assertEqual((job.scheduled, job.running), (said.scheduled, False))
            self.assertEqual(job.options.max_lateness, MINUTE)
            await store.delete(KEY)


@each_engine(globals())
class GroupCommitTests(ExistsTestCase):
    """Many at a time."""

    async def test_all_kinds_at_once(self) -> None:
        """PUTs of each rule share transactions, and each comes to what it would by itself."""
        store = self.open_store()
        keys = [JobKey("job", f"{number:02}") for number in range(24)]
        for key in keys[:18]:
            await store.put(key, EACH_MINUTE)
        found = [await self.job(store, key) for key in keys[:18]]
        asked: list[ScheduleRequest] = []
        for number in range(24):
            rule = (IfExists.RESCHEDULE, *BOTH)[number % 3]
            change = ({}, {"count": 7}, {"interval": duration_from_text("1h")})[number // 3 % 3]
            asked.append(replace(EACH_MINUTE, if_exists=rule, **change))
        jobs = await gatherResults(
            [store.put(key, request) for key, request in zip(keys, asked, strict=True)]
        )
        for number, (key, request, job) in enumerate(zip(keys, asked, jobs, strict=True)):
            self.assertEqual(await store.get(key), job)
            same = request.interval == EACH_MINUTE.interval
            if number >= 18:
                self.assertEqual(job.options.count, request.count)
            elif request.if_exists is IfExists.KEEP:
                self.assertEqual(job, found[number])
            elif request.if_exists is IfExists.UPDATE and same:
                self.assertEqual(job, replace(found[number], options=job.options))
                self.assertEqual(job.options.count, request.count)
            else:
                self.assertGreater(job.scheduled, found[number].scheduled)

    async def test_one_key_at_once(self) -> None:
        """P4: PUTs of one key come one after the other: the last options are those that stay."""
        store = self.open_store()
        jobs = await gatherResults(
            [
                store.put(KEY, replace(EACH_MINUTE, if_exists=rule, count=count))
                for count in range(1, 8)
                for rule in BOTH
            ]
        )
        self.assertEqual({job.scheduled for job in jobs}, {jobs[0].scheduled})
        self.assertEqual([job.options.count for job in jobs[::2]], list(range(1, 8)))
        self.assertEqual((await self.job(store, KEY)).options.count, 7)

    async def test_instances_that_start_together(self) -> None:
        """P2: of what all of them add, each job is there once, with one first run."""
        stores = [self.open_store() for _ in range(3)]
        for rule in BOTH:
            keys = [JobKey(rule, str(number)) for number in range(40)]
            request = replace(EACH_MINUTE, immediate=True, if_exists=rule)
            put = await gatherResults([store.put(key, request) for store in stores for key in keys])
            firsts = {(job.key, job.scheduled) for job in put}
            self.assertEqual(len(firsts), 40)


@each_engine(globals(), only=("mariadb", "mysql"))
class InBetweenTests(ExistsTestCase):
    """What others do between two statements of a PUT, and to rows that it comes upon."""

    async def test_added(self) -> None:
        """P4: a job that somebody has added meanwhile is one that is there."""
        at = f"'{PAST:%Y-%m-%d %H:%M:%S}'"
        for rule in BOTH:
            store = self.open_store()
            hooked = before(
                self,
                store,
                "add",
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
                f" VALUES ('check_feed', '1234', '60', {at}, {at}, {at})",
            )
            job = await store.put(KEY, replace(EACH_MINUTE, if_exists=rule, count=7))
            self.assertEqual(hooked, ["add"])
            self.assertEqual((job.scheduled, job.due), (PAST, PAST))
            self.assertEqual(job.options.count, 7 if rule is IfExists.UPDATE else None)
            self.assertEqual(await store.get(KEY), job)
            self.sql("DELETE FROM dalga")

    async def test_changed(self) -> None:
        """P4: what somebody has changed meanwhile is looked at again."""
        other = "UPDATE dalga SET schedule = '3600'"
        each_hour = ScheduleRequest(interval=duration_from_text("1h"))
        for statement, asked, is_kept in (
            ("amend", replace(EACH_MINUTE, count=7), False),
            ("hold", each_hour, True),
        ):
            store = self.open_store()
            job = await store.put(KEY, EACH_MINUTE)
            hooked = before(self, store, statement, other)
            again = await store.put(KEY, replace(asked, if_exists=IfExists.UPDATE))
            self.assertEqual(hooked, [statement])
            self.assertEqual(again.scheduled == job.scheduled, is_kept)
            self.assertEqual(again.schedule, Every(MINUTE if asked.count else HOUR))
            self.assertEqual(await store.get(KEY), again)

    async def test_other_terms(self) -> None:
        """P4: so are the other columns that tell a schedule from another."""
        each_day = ScheduleRequest(interval=duration_from_text("P1D"))
        for change in (
            "schedule = 'P2D'",
            "location = 'Asia/Tokyo'",
            "options = '{\"jitter\": 9.0}'",
        ):
            store = self.open_store()
            job = await store.put(KEY, each_day)
            hooked = before(self, store, "amend", f"UPDATE dalga SET {change}")
            asked = replace(each_day, count=7, if_exists=IfExists.UPDATE)
            again = await store.put(KEY, asked)
            self.assertEqual(hooked, ["amend"])
            self.assertEqual((again.schedule, again.options.count), (job.schedule, 7))
            # Anew, as what had come between was another schedule.
            self.assertGreater(again.scheduled, job.scheduled, change)
            self.assertEqual(await store.get(KEY), again)

    async def test_deleted_during_a_run(self) -> None:
        """P4: nothing is written to a job that was deleted meanwhile, with the end of its run."""
        store = self.open_store()
        await self.due_now(store, KEY)
        hooked = before(self, store, "amend", f"UPDATE dalga SET override = {Override.DELETED}")
        asked = replace(EACH_MINUTE, count=7, if_exists=IfExists.UPDATE)
        job = await store.put(KEY, asked)
        self.assertEqual(hooked, ["amend"])
        self.assertEqual(job.options.count, 7)
        self.assertEqual((await self.job(store, KEY)).options.count, 7)

    async def test_gone_on(self) -> None:
        """An `until` is looked at again where the job has gone on to a later run meanwhile."""
        store = self.open_store()
        job = await store.put(KEY, EACH_MINUTE)
        hooked = before(
            self,
            store,
            "amend",
            "UPDATE dalga SET scheduled = scheduled + INTERVAL 1 MINUTE, due = scheduled",
        )
        asked = replace(EACH_MINUTE, if_exists=IfExists.UPDATE, until=job.scheduled)
        await self.assertFailure(store.put(KEY, asked), InvalidRequest)
        self.assertEqual(hooked, ["amend"])
        self.assertIsNone((await self.job(store, KEY)).options.until)

    async def test_disabled(self) -> None:
        """P4: one that was disabled meanwhile stays so."""
        store = self.open_store()
        await store.put(KEY, EACH_MINUTE)
        before(self, store, "hold", "UPDATE dalga SET disabled = 1, due = NULL")
        each_hour = ScheduleRequest(interval=duration_from_text("1h"), if_exists=IfExists.UPDATE)
        job = await store.put(KEY, each_hour)
        self.assertEqual((job.schedule, job.disabled, job.due), (Every(HOUR), True, None))

    async def test_gone(self) -> None:
        """P4: one whose run has ended since it was deleted is added anew."""
        for rule in BOTH:
            store = self.open_store()
            await self.due_now(store, KEY)
            await store.delete(KEY)
            hooked = before(self, store, "hold_deleted", "DELETE FROM dalga")
            job = await store.put(KEY, replace(EACH_MINUTE, if_exists=rule))
            self.assertEqual(hooked, ["hold_deleted"])
            self.assertEqual((job.running, job.due), (False, job.scheduled))
            await store.delete(KEY)

    async def test_scheduled_anew_since_it_was_deleted(self) -> None:
        """P4: somebody's PUT in between counts: the job is there again."""
        store = self.open_store()
        await self.due_now(store, KEY)
        await store.delete(KEY)
        change = f"UPDATE dalga SET override = {Override.RESCHEDULED}, schedule = '3600'"
        hooked = before(self, store, "hold_deleted", change)
        job = await store.put(KEY, replace(EACH_MINUTE, if_exists=IfExists.KEEP))
        self.assertEqual(hooked, ["hold_deleted"])
        self.assertEqual(job.schedule, Every(HOUR))

    async def test_a_locked_row(self) -> None:
        """P7: a PUT with nothing to change waits for nobody; one that has holds up no other."""
        store = self.open_store()
        job = await store.put(KEY, EACH_MINUTE)
        with closing(self.connect()) as stranger:
            stranger.cursor().execute(
                "SELECT * FROM dalga FORCE INDEX (job)"
                " WHERE path = 'check_feed' AND body = '1234' FOR UPDATE"
            )
            for rule in BOTH:
                asked = replace(EACH_MINUTE, if_exists=rule)
                self.assertEqual(await store.put(KEY, asked), job)
            waits = store.put(KEY, replace(EACH_MINUTE, if_exists=IfExists.UPDATE, count=7))
            await gatherResults(
                [
                    store.put(JobKey("other", str(number)), replace(EACH_MINUTE, if_exists=rule))
                    for number in range(9)
                    for rule in BOTH
                ]
            )
            self.assertNoResult(waits)
            stranger.rollback()
        self.assertEqual((await waits).options.count, 7)
