"""
The contract of `dalga.store.Store` on what is said of a job and how its runs end: enable, disable,
trigger, and each verdict, before, during and after a run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

from twisted.internet.defer import Deferred

from dalga.errors import JobDisabled, JobNotFound, JobOver
from dalga.model.duration import duration_from_text, seconds
from dalga.model.job import Job, Standing, UnreadableJob
from dalga.model.key import JobKey
from dalga.model.plan import ScheduleRequest
from dalga.model.run import (
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
    missed,
)
from dalga.store.table import JobsTable
from tests.stores import (
    EACH_MINUTE,
    LONG,
    NOW,
    OVER,
    EngineTestCase,
    each_engine,
    each_verdict,
)

KEY = JobKey("check_feed", "1234")
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AFTER = datetime(2100, 1, 31, 9, tzinfo=UTC)
UNTIL_2026 = '{"until":"2026-01-01T00:00:00+00:00"}'
#: How a time is written in a column.
COLUMN = "%Y-%m-%d %H:%M:%S.%f"


@each_engine(globals())
class EnableTests(EngineTestCase):
    """Disabled, and enabled again."""

    async def test_disabled(self) -> None:
        """A disabled job is due no more, however long it waits, and keeps its scheduled time."""
        store = self.open_store()
        (key,) = self.in_the_past("a")
        before = await self.job(store, key)
        job = await store.disable(key)
        assert isinstance(job, Job)
        self.assertEqual(
            (job.disabled, job.due, job.next_run, job.scheduled),
            (True, None, None, before.scheduled),
        )
        self.assertEqual(await store.get(key), job)
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual((await store.due_within(MINUTE, 9)).times, [])

    async def test_enabled(self) -> None:
        """Enabled, it is due at its scheduled time: before those who are due since then (P6)."""
        store = self.open_store()
        first, second = self.in_the_past("a", "b")
        before = await store.get(first)
        await store.disable(first)
        self.assertEqual(await store.enable(first), before)
        runs = (await store.claim(9, LONG)).runs
        self.assertEqual([run.key for run in runs], [first, second])

    async def test_twice(self) -> None:
        """Both are idempotent: to say it again changes nothing."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, Retry(run.claimed + MINUTE, "500"))])
        enabled = await store.get(KEY)
        self.assertEqual(await store.enable(KEY), enabled)
        disabled = await store.disable(KEY)
        self.assertEqual(await store.disable(KEY), disabled)
        await store.enable(KEY)
        enabled = await store.get(KEY)
        self.assertEqual(await store.enable(KEY), enabled)

    async def test_no_such_job(self) -> None:
        """What is not there can't be enabled or disabled; nor what was deleted during its run."""
        store = self.open_store()
        await self.assertFailure(store.enable(KEY), JobNotFound)
        await self.assertFailure(store.disable(KEY), JobNotFound)
        run = await self.due_now(store, KEY)
        await store.delete(KEY)
        await self.assertFailure(store.disable(KEY), JobNotFound)
        await self.assertFailure(store.enable(KEY), JobNotFound)
        await self.record(store, [(run, Retry(run.claimed, "500"))])
        self.assertEqual((await store.counts()).total, 0)

    async def test_a_run_that_has_begun(self) -> None:
        """P2: the run that was tried again goes on as the same when the job is enabled, at once."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, Retry(run.claimed + MINUTE, "500"))])
        await store.disable(KEY)
        job = await store.enable(KEY)
        assert isinstance(job, Job)
        self.assertEqual((job.attempts, job.error, job.due), (1, "500", run.scheduled))
        again = await self.claim_one(store, KEY)
        self.assertEqual((again.id, again.scheduled, again.attempt), (run.id, run.scheduled, 2))
        # It is given up so long after this attempt: nobody tried while it was disabled.
        self.assertEqual(again.started, again.claimed)

    async def test_put_enables(self) -> None:
        """A PUT makes a disabled job run, idle or under a lease."""
        store = self.open_store()
        await store.put(KEY, NOW)
        await store.disable(KEY)
        self.assertFalse((await store.put(KEY, NOW)).disabled)
        run = await self.claim_one(store, KEY)
        await store.disable(KEY)
        self.assertFalse((await store.put(KEY, NOW)).disabled)
        self.assertEqual(await self.record(store, [(run, Delete())]), [run])
        await self.claim_one(store, KEY)

    async def test_trigger(self) -> None:
        """A disabled job is not triggered: that is refused, and changes nothing."""
        store = self.open_store()
        await store.put(KEY, EACH_MINUTE)
        job = await store.disable(KEY)
        error = await self.assertFailure(store.trigger(KEY), JobDisabled)
        self.assertIn("'check_feed'", str(error))
        self.assertIn("enable=true", str(error))
        self.assertEqual(await store.get(KEY), job)

    async def test_trigger_during_a_run(self) -> None:
        """Nor is one that was disabled during the run that is under way."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await store.disable(KEY)
        await self.assertFailure(store.trigger(KEY), JobDisabled)
        later = run.claimed + MINUTE
        self.assertEqual(await self.record(store, [(run, Reschedule(later, later))]), [])

    async def test_delete(self) -> None:
        """A disabled job can be deleted, idle or under a lease."""
        store = self.open_store()
        await store.put(KEY, NOW)
        await store.disable(KEY)
        await store.delete(KEY)
        self.assertEqual((await store.counts()).total, 0)
        run = await self.due_now(store, KEY)
        await store.disable(KEY)
        await store.delete(KEY)
        await self.assertFailure(store.get(KEY), JobNotFound)
        self.assertEqual(await self.record(store, [(run, Stop("500"))]), [run])
        self.assertEqual((await store.counts()).total, 0)

    async def test_disabled_during_a_run(self) -> None:
        """P3, P4: that run goes on to its end, and however it ends the job stays disabled."""
        store, other = self.open_store(), self.open_store()
        for number in range(len(each_verdict(datetime.now(UTC)))):
            key = JobKey("job", str(number))
            run = await self.due_now(store, key)
            verdict = each_verdict(run.claimed)[number]
            job = await other.disable(key)
            assert isinstance(job, Job)
            self.assertEqual((job.running, job.disabled, job.next_run), (True, True, None))
            self.assertEqual((await other.claim(9, LONG)).runs, [])
            self.assertEqual(await self.record(store, [(run, verdict)]), [])
            job = await self.job(store, key)
            self.assertEqual((job.running, job.disabled, job.due), (False, True, None), verdict)
            # All the rest is as the verdict has it, and comes out when the job is enabled.
            await store.enable(key)
            job = await self.job(store, key)
            expected = {
                Reschedule: (run.claimed + MINUTE, run.claimed + MINUTE),
                Skip: (run.claimed + MINUTE, run.claimed + MINUTE),
                Disable: (run.claimed + MINUTE, run.claimed + MINUTE),
                Retry: (run.scheduled, run.scheduled),
                Stop: (run.scheduled, None),
                # The job has runs to come, so it stays.
                Delete: (run.scheduled + MINUTE, run.scheduled + MINUTE),
                Finish: (run.scheduled, None),
                GiveBack: (run.scheduled, run.scheduled),
            }[type(verdict)]
            self.assertEqual((job.scheduled, job.due), expected, verdict)
            self.assertEqual(job.standing is Standing.STOPPED, isinstance(verdict, Stop))
            self.assertEqual(job.standing is Standing.DONE, isinstance(verdict, Finish))
            await store.delete(key)

    async def test_disabled_and_enabled_during_a_run(self) -> None:
        """Both during one run are as if nothing had been said."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, Retry(run.claimed, "500"))])
        again = await self.claim_one(store, KEY)
        before = await store.get(KEY)
        await store.disable(KEY)
        self.assertEqual(await store.enable(KEY), before)
        self.assertEqual(await self.record(store, [(again, Retry(again.claimed, "500"))]), [])
        third = await self.claim_one(store, KEY)
        self.assertEqual((third.id, third.attempt, third.started), (run.id, 3, run.started))

    async def test_disabled_during_a_run_that_dies(self) -> None:
        """
        P4, P5: nobody runs it when the lease is over. Enabled, it goes on as the same run, with the
        attempt of that lease counted, and no other.
        """
        store, other = self.open_store(), self.open_store()
        run = await self.due_now(store, KEY)
        await store.disable(KEY)
        self.end_leases()
        self.assertTrue((await self.job(other, KEY)).disabled)
        for _ in range(2):
            self.assertEqual((await other.claim(9, LONG)).runs, [])
        job = await self.job(other, KEY)
        self.assertEqual((job.due, job.running, job.attempts), (None, False, 1))
        self.assertEqual(await self.record(store, [(run, Delete())]), [run])
        await other.enable(KEY)
        again = await self.claim_one(other, KEY)
        self.assertEqual((again.id, again.attempt, again.scheduled), (run.id, 2, run.scheduled))

    async def test_enabled_before_the_dead_run_is_found(self) -> None:
        """P5: enabled after the lease's end, it is due at once; the late end changes nothing."""
        store, other = self.open_store(), self.open_store()
        for verdict in each_verdict(datetime.now(UTC)):
            run = await self.due_now(store, KEY)
            await store.disable(KEY)
            self.end_leases()
            await other.enable(KEY)
            self.assertEqual(await self.record(store, [(run, verdict)]), [run])
            again = await self.claim_one(other, KEY)
            self.assertEqual((again.id, again.attempt), (run.id, 2))
            await self.record(other, [(again, Delete())])

    async def test_disabled_after_the_lease(self) -> None:
        """P4: disabled when the lease is over, it stays so; the late end changes nothing."""
        store = self.open_store()
        for verdict in each_verdict(datetime.now(UTC)):
            run = await self.due_now(store, KEY)
            await store.trigger(KEY)
            self.end_leases()
            job = await store.disable(KEY)
            assert isinstance(job, Job)
            self.assertEqual((job.due, job.running), (None, False))
            self.assertEqual(self.sql("SELECT token, override FROM dalga"), [(None, 0)])
            self.assertEqual(await self.record(store, [(run, verdict)]), [run])
            self.assertEqual(await store.get(KEY), job)

    async def test_scheduled_anew_then_disabled_during_a_run(self) -> None:
        """P4: both hold: the end of the run makes nothing due, and enabled it has its new time."""
        store = self.open_store()
        for dies in (False, True):
            run = await self.due_now(store, KEY)
            put = await store.put(KEY, EACH_MINUTE)
            await store.disable(KEY)
            if dies:
                self.end_leases()
                self.assertEqual((await store.claim(9, LONG)).runs, [])
            self.assertEqual(await self.record(store, [(run, Delete())]), [run])
            job = await self.job(store, KEY)
            self.assertEqual((job.due, job.disabled, job.running), (None, True, False))
            job = await self.enabled(store)
            self.assertEqual((job.scheduled, job.due), (put.scheduled, put.scheduled))
            self.assertEqual(job.attempts, 0)
            await store.trigger(KEY)
            new = await self.claim_one(store, KEY)
            self.assertNotEqual(new.id, run.id)
            await self.record(store, [(new, Delete())])

    async def test_triggered_then_disabled_during_a_run(self) -> None:
        """P4: the one more run that was asked for is there when the job is enabled."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        triggered = await store.trigger(KEY)
        await store.disable(KEY)
        self.assertEqual(await self.record(store, [(run, Delete())]), [run])
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        await store.enable(KEY)
        new = await self.claim_one(store, KEY)
        self.assertEqual((new.scheduled, new.attempt), (triggered.scheduled, 1))
        self.assertNotEqual(new.id, run.id)

    async def test_said_then_disabled_and_enabled_during_a_run(self) -> None:
        """P4: what was said before is not forgotten: the run's end does not undo it."""
        store = self.open_store()
        at = datetime(2030, 1, 1, tzinfo=UTC)
        ends: list[Verdict] = [Delete(), Retry(at, "500"), Reschedule(at, at), Stop("500")]
        ends.append(Disable(at, at, "x"))
        says: list[Callable[[], Deferred[Job]]] = [
            lambda: store.put(KEY, EACH_MINUTE),
            lambda: store.trigger(KEY),
        ]
        for said in says:
            for end in ends:
                run = await self.due_now(store, KEY)
                job = await said()
                await store.disable(KEY)
                await store.enable(KEY)
                self.assertEqual(await self.record(store, [(run, end)]), [run])
                left = await self.job(store, KEY)
                self.assertEqual(left.scheduled, job.scheduled)
                assert left.due is not None
                self.assertLess(left.due - job.scheduled, MINUTE)
                self.assertEqual(
                    (left.attempts, left.error, left.standing), (0, None, Standing.SOUND)
                )

    async def test_stopped_and_disabled(self) -> None:
        """One is never taken for the other: a job that had stopped is enabled as one that has."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, Stop("500"))])
        stopped = await self.job(store, KEY)
        self.assertFalse(stopped.disabled)
        await store.disable(KEY)
        await self.assertFailure(store.trigger(KEY), JobDisabled)
        self.assertEqual(await store.enable(KEY), stopped)
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        await store.trigger(KEY)
        again = await self.claim_one(store, KEY)
        self.assertEqual((again.id, again.attempt), (run.id, 2))

    async def test_set_aside(self) -> None:
        """
        P6: what can't be understood can be disabled, is not made to run by enabling it, and is set
        aside all the same when it is due.
        """
        store = self.open_store()
        (key,) = self.in_the_past("bad")
        self.sql("UPDATE dalga SET schedule = 'often'")
        await store.claim(9, LONG)
        for say in (store.enable, store.disable, store.disable):
            self.assertIsInstance(await say(key), UnreadableJob)
            self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual((await store.counts()).set_aside, 0)
        self.assertIsInstance(await store.enable(key), UnreadableJob)
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertEqual((await store.counts()).set_aside, 1)

    async def test_any_number_is_yes(self) -> None:
        """What SQL may have made of the column: anything but 0 is disabled, and can be enabled."""
        store = self.open_store()
        (key,) = self.in_the_past("a")
        self.sql("UPDATE dalga SET disabled = 7")
        self.assertTrue((await self.job(store, key)).disabled)
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        await self.assertFailure(store.trigger(key), JobDisabled)
        await store.enable(key)
        await self.claim_one(store, key)

    async def enabled(self, store: JobsTable) -> Job:
        job = await store.enable(KEY)
        assert isinstance(job, Job)
        return job


@each_engine(globals())
class TriggerTests(EngineTestCase):
    """Run it now."""

    async def test_goes_on_from_there(self) -> None:
        """Elapsed time is counted from the trigger, however its interval is written."""
        store = self.open_store()
        fraction = ScheduleRequest(interval=duration_from_text("PT90.5S"))
        for request in (EACH_MINUTE, fraction, replace(EACH_MINUTE, first_run=LONG_AGO)):
            await store.put(KEY, request)
            job = await store.trigger(KEY)
            self.assertEqual((job.anchor, job.due), (job.scheduled, job.scheduled))
            self.assertLess(abs(job.scheduled - store.clock.now()), timedelta(seconds=5))

    async def test_one_run_more(self) -> None:
        """A calendar and cron keep what they are counted from, and the times that they have."""
        store = self.open_store()
        first = datetime(2026, 1, 31, 9, tzinfo=UTC)
        for request in (
            ScheduleRequest(interval=duration_from_text("P1M"), first_run=first),
            ScheduleRequest(interval=duration_from_text("p1dt1h"), first_run=first),
            ScheduleRequest(interval=duration_from_text("P2W"), first_run=LONG_AFTER),
            ScheduleRequest(cron="0 9 31 * *", first_run=LONG_AFTER),
        ):
            put = await store.put(KEY, request)
            for during in (False, True):
                if during:
                    run = await self.claim_one(store, KEY)
                job = await store.trigger(KEY)
                self.assertLess(abs(job.scheduled - store.clock.now()), timedelta(seconds=5))
                self.assertEqual((job.anchor, job.options), (put.anchor, put.options), request)
                self.assertEqual(await self.job(store, KEY), job)
            await self.record(store, [(run, Delete())])
            again = await self.claim_one(store, KEY)
            self.assertEqual((again.anchor, again.scheduled), (put.anchor, job.scheduled))
            await store.delete(KEY)
            await self.record(store, [(again, Delete())])

    async def test_a_run_that_is_tried_again(self) -> None:
        """A job between two attempts gets a run of its own now, which takes the other's place."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, Retry(run.claimed + MINUTE, "500"))])
        job = await store.trigger(KEY)
        self.assertEqual((job.attempts, job.error), (0, None))
        new = await self.claim_one(store, KEY)
        self.assertNotEqual(new.id, run.id)
        self.assertEqual((new.attempt, new.started), (1, new.claimed))

    async def test_stopped(self) -> None:
        """
        P2: a job that has stopped on a run runs that one again, as the same: id, scheduled time,
        attempts. When it is given up is counted anew, and what comes after it is as it was.
        """
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, Stop("500"))])
        stopped = await self.job(store, KEY)
        self.assertEqual(
            (stopped.standing, stopped.error, stopped.due, stopped.next_run),
            (Standing.STOPPED, "500", None, None),
        )
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        job = await store.trigger(KEY)
        self.assertEqual((job.standing, job.error), (Standing.SOUND, None))
        self.assertEqual((job.anchor, job.scheduled), (stopped.anchor, stopped.scheduled))
        again = await self.claim_one(store, KEY)
        self.assertEqual(
            (again.id, again.scheduled, again.attempt, again.anchor),
            (run.id, run.scheduled, 2, run.anchor),
        )
        self.assertEqual(again.started, again.claimed)

    async def test_gone_on_after_a_failed_run(self) -> None:
        """A job that went on gets a new run, and is shown as failed until one succeeds."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        later = run.claimed + MINUTE
        await self.record(store, [(run, Reschedule(later, later, "500"))])
        job = await store.trigger(KEY)
        self.assertEqual((job.standing, job.error), (Standing.FAILED, "500"))
        new = await self.claim_one(store, KEY)
        self.assertNotEqual(new.id, run.id)
        await self.record(store, [(new, Reschedule(later, later))])
        job = await self.job(store, KEY)
        self.assertEqual((job.standing, job.error), (Standing.SOUND, None))

    async def test_during_a_run(self) -> None:
        """
        P3, P4: during a run it is for one more run after that one, however that one ends; a success
        still counts.
        """
        store = self.open_store()
        for verdict in each_verdict(datetime.now(UTC)):
            run = await self.due_now(store, KEY)
            triggered = await store.trigger(KEY)
            self.assertTrue(triggered.running)
            self.assertEqual((await store.claim(9, LONG)).runs, [])
            self.assertEqual(await self.record(store, [(run, verdict)]), [run])
            job = await self.job(store, KEY)
            succeeded = isinstance(verdict, Reschedule) and verdict.error is None
            self.assertEqual(job.successes, int(succeeded), verdict)
            self.assertEqual(
                (job.scheduled, job.standing, job.running),
                (triggered.scheduled, Standing.SOUND, False),
            )
            new = await self.claim_one(store, KEY)
            self.assertEqual((new.attempt, new.successes), (1, int(succeeded)))
            self.assertNotEqual(new.id, run.id)
            await self.record(store, [(new, Delete())])

    async def test_asked_for_during_a_run(self) -> None:
        """
        P4: a run that had to wait for the one before is no later than that made it, so it is not
        skipped as too late; left lying from then on, it is. A time in the past is late as ever.
        """
        options = ScheduleRequest(interval=seconds(60), max_lateness=10 * SECOND)
        now = replace(options, immediate=True)
        cases: list[tuple[str, Callable[[JobsTable], Deferred[Job]], bool]] = [
            ("trigger", lambda store: store.trigger(KEY), True),
            ("now", lambda store: store.put(KEY, now), True),
            ("past", lambda store: store.put(KEY, replace(options, first_run=LONG_AGO)), False),
        ]
        for (name, say, waits), dies, given_back in product(cases, (False, True), (False, True)):
            with self.subTest(name, dies=dies, given_back=given_back):
                store = self.open_store()
                await store.put(KEY, now)
                run = await self.claim_one(store, KEY)
                asked = await say(store)
                self.assertEqual(asked.waited, waits)
                # As if that had been an hour ago.
                self.sql(f"UPDATE dalga SET scheduled = '{LONG_AGO:{COLUMN}}'")
                if dies:
                    self.sql(f"UPDATE dalga SET due = '{run.claimed:{COLUMN}}'")
                else:
                    self.assertEqual(await self.record(store, [(run, Delete())]), [run])
                new = await self.claim_one(store, KEY)
                self.assertEqual((new.scheduled, new.waited), (LONG_AGO, waits))
                if given_back:
                    await self.record(store, [(new, GiveBack())])
                    self.assertEqual((await self.job(store, KEY)).waited, waits)
                    self.assertEqual((await self.job(store, KEY)).due, new.due)
                    again = await self.claim_one(store, KEY)
                    self.assertEqual((again.due, again.waited, again.attempt), (new.due, waits, 1))
                    new = again
                self.assertEqual(missed(new) is None, waits)
                late = new._replace(claimed=new.due + 11 * SECOND)
                self.assertIsInstance(missed(late), Skip)
                await store.delete(KEY)
                await self.record(store, [(new, Delete())])

    async def test_scheduled_anew_and_triggered_during_a_run(self) -> None:
        """A job that was scheduled anew counts from then on, in whatever order both are said."""
        store = self.open_store()
        for order in ("p", "pt", "tp", "ptt", "tpt"):
            run = await self.due_now(store, KEY)
            for said in order:
                await (store.put(KEY, EACH_MINUTE) if said == "p" else store.trigger(KEY))
            later = run.claimed + MINUTE
            await self.record(store, [(run, Reschedule(later, later))])
            self.assertEqual((await self.job(store, KEY)).successes, 0, order)
            await store.delete(KEY)

    async def test_during_a_run_that_dies(self) -> None:
        """P5: if the instance dies the lease's end brings the run that was asked for."""
        store, other = self.open_store(), self.open_store()
        run = await self.due_now(store, KEY)
        triggered = await store.trigger(KEY)
        self.end_leases()
        new = await self.claim_one(other, KEY)
        self.assertNotEqual(new.id, run.id)
        self.assertEqual((new.scheduled, new.attempt), (triggered.scheduled, 1))
        self.assertEqual(await self.record(store, [(run, Delete())]), [run])

    async def test_past_until(self) -> None:
        """No new run is scheduled for a time after until; one that failed before is run again."""
        store = self.open_store()
        (key,) = self.in_the_past("a")
        self.sql("UPDATE dalga SET schedule = '60', options = %s", (UNTIL_2026,))
        before = await self.job(store, key)
        await self.assertFailure(store.trigger(key), JobOver)
        self.assertEqual(await self.job(store, key), before)
        run = await self.claim_one(store, key)
        await self.assertFailure(store.trigger(key), JobOver)
        self.assertEqual(await self.record(store, [(run, Stop("500"))]), [])
        job = await store.trigger(key)
        self.assertEqual((job.scheduled, job.standing), (run.scheduled, Standing.SOUND))
        again = await self.claim_one(store, key)
        self.assertEqual((again.id, again.attempt), (run.id, 2))

    async def test_a_one_off_job_ahead_of_its_time(self) -> None:
        """What is still to come once comes now instead."""
        store = self.open_store()
        first = datetime(2100, 1, 1, tzinfo=UTC)
        await store.put(KEY, ScheduleRequest(one_off=True, first_run=first))
        await store.trigger(KEY)
        run = await self.claim_one(store, KEY)
        self.assertLess(run.scheduled, first)


@each_engine(globals())
class VerdictTests(EngineTestCase):
    """What each kind of end writes."""

    async def test_given_up_and_gone_on(self) -> None:
        """A run that was given up is shown, is no success, and the next one is another run."""
        store = self.open_store()
        run = await self.due_now(store, KEY, count=3)
        later = run.claimed + MINUTE
        error = "500 Internal Server Error " * 20
        anchor = run.claimed + MINUTE / 2
        await self.record(store, [(run, Reschedule(later, anchor, error))])
        job = await self.job(store, KEY)
        self.assertEqual((job.standing, job.error), (Standing.FAILED, error[:255]))
        self.assertEqual((job.scheduled, job.due, job.anchor), (later, later, anchor))
        self.assertEqual((job.successes, job.attempts, job.disabled), (0, 0, False))

    async def test_successes(self) -> None:
        """Each success is counted, the next run knows how many there were, and PUT starts anew."""
        store = self.open_store()
        run = await self.due_now(store, KEY, count=3)
        self.assertEqual((run.successes, run.options.count), (0, 3))
        for number in (1, 2):
            await self.record(store, [(run, Reschedule(run.claimed, run.anchor))])
            self.assertEqual((await self.job(store, KEY)).successes, number)
            run = await self.claim_one(store, KEY)
            self.assertEqual(run.successes, number)
        await self.record(store, [(run, Reschedule(run.claimed, run.anchor, "500"))])
        run = await self.claim_one(store, KEY)
        self.assertEqual(run.successes, 2)
        await self.record(store, [(run, Retry(run.claimed, "500"))])
        self.assertEqual((await self.job(store, KEY)).successes, 2)
        self.assertEqual((await store.put(KEY, EACH_MINUTE)).successes, 0)

    async def test_a_full_count_stays_full(self) -> None:
        """P6: a count that has come to its column's end keeps no verdict from being written."""
        store = self.open_store()
        self.in_the_past("a", "b", "c")
        self.sql("UPDATE dalga SET successes = 4294967295, skipped = 4294967295")
        runs = (await store.claim(9, LONG)).runs
        await store.trigger(runs[2].key)
        later = runs[0].claimed + MINUTE
        ends: list[Verdict] = [Reschedule(later, later), Skip(later), Reschedule(later, later)]
        await self.record(store, list(zip(runs, ends, strict=True)))
        for run in runs:
            job = await self.job(store, run.key)
            self.assertEqual((job.successes, job.skipped), (4294967295, 4294967295))

    async def test_skipped(self) -> None:
        """A skipped run is counted, is no success, and leaves what the last one came to."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, Reschedule(run.claimed, run.anchor, "500"))])
        for number in (1, 2):
            run = await self.claim_one(store, KEY)
            later = run.claimed - timedelta(seconds=2 - number)
            self.assertEqual(await self.record(store, [(run, Skip(later))]), [])
            job = await self.job(store, KEY)
            self.assertEqual((job.skipped, job.successes), (number, 0))
            self.assertEqual((job.standing, job.error), (Standing.FAILED, "500"))
            self.assertEqual((job.scheduled, job.due, job.anchor), (later, later, run.anchor))
            self.assertEqual((job.attempts, job.running), (0, False))
        following = await self.claim_one(store, KEY)
        self.assertNotEqual(following.id, run.id)
        self.assertEqual((following.attempt, following.started), (1, following.claimed))
        self.assertEqual((await store.put(KEY, EACH_MINUTE)).skipped, 0)

    async def test_the_next_run_starts_afresh(self) -> None:
        """P2: it is another run, begun when it is claimed: none is given up for the one before."""
        store = self.open_store()
        for end in (
            lambda run: Reschedule(run.claimed, run.anchor),
            lambda run: Reschedule(run.claimed, run.anchor, "500"),
            lambda run: Skip(run.claimed),
        ):
            run = await self.due_now(store, KEY)
            await self.record(store, [(run, Retry(run.claimed, "500"))])
            again = await self.claim_one(store, KEY)
            self.assertEqual((again.id, again.started), (run.id, run.started))
            await self.record(store, [(again, end(again))])
            following = await self.claim_one(store, KEY)
            self.assertNotEqual(following.id, run.id)
            self.assertEqual((following.attempt, following.started), (1, following.claimed))
            await self.record(store, [(following, Delete())])

    async def test_tried_again_after_a_restart(self) -> None:
        """P2: a run keeps its id, its beginning and its attempts, over all restarts."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        for attempt in (2, 3):
            await self.record(store, [(run, Retry(run.claimed, "500"))])
            await store.close()
            store = self.open_store()
            again = await self.claim_one(store, KEY)
            self.assertEqual(
                (again.id, again.started, again.scheduled, again.anchor, again.attempt),
                (run.id, run.started, run.scheduled, run.anchor, attempt),
            )
            self.assertGreater(again.claimed, run.claimed)
            run = again

    async def test_given_back(self) -> None:
        """
        P2: a run that was claimed and not begun is due again at once, as the same, and what it has
        gone through is what it had before.
        """
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, GiveBack())])
        job = await self.job(store, KEY)
        self.assertEqual((job.attempts, job.due, job.running), (0, run.scheduled, False))
        first = await self.claim_one(store, KEY)
        self.assertEqual((first.id, first.attempt, first.started), (run.id, 1, first.claimed))
        await self.record(store, [(first, Retry(first.claimed, "500"))])
        second = await self.claim_one(store, KEY)
        await self.record(store, [(second, GiveBack())])
        self.assertEqual((await self.job(store, KEY)).attempts, 1)
        third = await self.claim_one(store, KEY)
        self.assertEqual((third.id, third.attempt, third.started), (run.id, 2, first.claimed))

    async def test_given_back_for_later(self) -> None:
        """
        P6: a run whose endpoint is elsewhere leaves the due rows for a while. Neither an attempt
        nor a failure is counted, and any instance may claim it then, as the same run.
        """
        store, other = self.open_store(), self.open_store()
        run = await self.due_now(store, KEY, endpoint="billing")
        later = run.claimed + timedelta(seconds=30)
        self.assertEqual(await self.record(store, [(run, GiveBack(later))]), [])
        job = await self.job(store, KEY)
        self.assertEqual(
            (job.due, job.scheduled, job.attempts, job.running, job.error, job.options.endpoint),
            (later, run.scheduled, 0, False, None, "billing"),
        )
        self.assertEqual((await other.claim(9, LONG)).runs, [])
        self.sql("UPDATE dalga SET due = scheduled")
        again = await self.claim_one(other, KEY)
        self.assertEqual((again.id, again.attempt, again.started), (run.id, 1, again.claimed))
        # A failed run keeps its attempts, and when it began. A user's last word counts (P4).
        await self.record(other, [(again, Retry(again.claimed, "500"))])
        second = await self.claim_one(store, KEY)
        await self.record(store, [(second, GiveBack(later))])
        job = await self.job(store, KEY)
        self.assertEqual((job.due, job.attempts, job.error), (later, 1, "500"))
        self.sql("UPDATE dalga SET due = scheduled")
        third = await self.claim_one(store, KEY)
        self.assertEqual((third.id, third.attempt, third.started), (run.id, 2, again.claimed))
        await store.trigger(KEY)
        await self.record(store, [(third, GiveBack(later))])
        self.assertLess(await self.due(store), later)

    async def due(self, store: JobsTable) -> datetime:
        due = (await self.job(store, KEY)).due
        assert due is not None
        return due

    async def test_a_row_with_a_name_that_is_none(self) -> None:
        """P6: somebody's SQL may have written anything; the row is set aside."""
        store = self.open_store()
        for number, name in enumerate(('"http://evil/"', '"A"', "5", "null", "[]", '""')):
            self.in_the_past(f"job{number}")
            options = f'{{"endpoint":{name}}}'
            self.sql("UPDATE dalga SET options = %s WHERE due IS NOT NULL", (options,))
            self.assertEqual((await store.claim(9, LONG)).runs, [], name)
            found = await store.get(JobKey(f"job{number}", "body"))
            assert isinstance(found, UnreadableJob), found
            self.assertIn("options is ", found.problem)
        self.flushLoggedErrors()

    async def test_gets_in_line(self) -> None:
        """P6: who has times to make up for goes behind those who are due, not before them."""
        store = self.open_store()
        one, two = self.in_the_past("a", "b")
        (run,) = (await store.claim(1, LONG)).runs
        past = run.scheduled + timedelta(seconds=1)
        await self.record(store, [(run, Reschedule(past, run.anchor))])
        self.assertEqual((await self.job(store, one)).scheduled, past)
        self.assertEqual([run.key for run in (await store.claim(9, LONG)).runs], [two, one])

    async def test_put_forgets(self) -> None:
        """Scheduled anew, a job that had stopped starts afresh."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, Stop("500"))])
        job = await store.put(KEY, NOW)
        self.assertEqual((job.standing, job.error, job.attempts), (Standing.SOUND, None, 0))
        new = await self.claim_one(store, KEY)
        self.assertEqual((new.attempt, new.started), (1, new.claimed))
        self.assertNotEqual(new.id, run.id)

    async def test_disabled_by_the_answer(self) -> None:
        """
        The run is over and counts neither way: what failed before is forgotten. The answer is kept
        until the job is enabled. Then the job has its next time, as a new run.
        """
        store = self.open_store()
        first = await self.due_now(store, KEY)
        given_up = Reschedule(first.claimed, first.anchor, "500")
        await self.record(store, [(first, given_up)])
        run = await self.claim_one(store, KEY)
        at, anchor = run.claimed + MINUTE, run.claimed - MINUTE
        self.assertEqual(await self.record(store, [(run, Disable(at, anchor, "200 OK" * 99))]), [])
        job = await self.job(store, KEY)
        self.assertEqual((job.disabled, job.due, job.running), (True, None, False))
        self.assertEqual((job.scheduled, job.anchor), (at, anchor))
        self.assertEqual((job.standing, job.error), (Standing.SOUND, ("200 OK" * 99)[:255]))
        self.assertEqual((job.attempts, job.successes), (0, 0))
        await store.enable(KEY)
        job = await self.job(store, KEY)
        self.assertEqual((job.due, job.error), (at, None))
        await store.trigger(KEY)
        again = await self.claim_one(store, KEY)
        self.assertNotEqual(again.id, run.id)

    async def test_all_kinds_at_once(self) -> None:
        """One transaction writes each kind, also where the user has spoken meanwhile."""
        store = self.open_store()
        kinds = each_verdict(datetime.now(UTC))
        says = (None, store.put, store.trigger, store.disable, store.delete)
        keys = self.in_the_past(*(f"job{n:02}" for n in range(len(kinds) * len(says))))
        runs = (await store.claim(99, LONG)).runs
        batch: list[tuple[Run, Verdict]] = []
        overtaken = []
        for n, run in enumerate(runs):
            self.assertEqual(run.key, keys[n])
            say = says[n // len(kinds)]
            if say == store.put:
                await store.put(run.key, EACH_MINUTE)
            elif say is not None:
                await say(run.key)  # type: ignore[call-arg]  # as put is not among these
            if say in (store.put, store.trigger, store.delete):
                overtaken.append(run.key)
            batch.append((run, kinds[n % len(kinds)]))
        dropped = await self.record(store, batch)
        self.assertEqual(sorted(run.key for run in dropped), sorted(overtaken))
        states = {}
        for n, key in enumerate(keys):
            try:
                job = await self.job(store, key)
            except JobNotFound:
                states[n] = "gone"
            else:
                self.assertFalse(job.running)
                states[n] = "waits" if job.due is not None else "rests"
        self.assertEqual(
            [" ".join(states[n + m] for m in range(9)) for n in range(0, len(keys), 9)],
            [
                "gone waits waits waits waits rests rests rests waits",
                "waits waits waits waits waits waits waits waits waits",
                "waits waits waits waits waits waits waits waits waits",
                "gone rests rests rests rests rests rests rests rests",
                "gone gone gone gone gone gone gone gone gone",
            ],
        )


@each_engine(globals())
class LateTests(EngineTestCase):
    """Two instances: one whose lease is over, and one that has taken the run."""

    async def test_a_late_end(self) -> None:
        """P2, P3: an end of any kind that comes after another's claim is dropped."""
        store, other = self.open_store(), self.open_store()
        self.in_the_past("a")
        (late,) = (await store.claim(9, OVER)).runs
        (held,) = (await other.claim(9, LONG)).runs
        before = await store.get(held.key)
        for verdict in each_verdict(late.claimed):
            self.assertEqual(await self.record(store, [(late, verdict)]), [late])
            self.assertEqual(await store.get(held.key), before)
        later = held.claimed + MINUTE
        self.assertEqual(await self.record(other, [(held, Reschedule(later, later))]), [])

    async def test_a_late_end_that_nobody_forestalled(self) -> None:
        """P2: of any kind, it counts as long as nobody has taken the run."""
        store = self.open_store()
        for verdict in each_verdict(datetime.now(UTC)):
            await store.put(KEY, NOW)
            run = await self.claim_one(store, KEY, OVER)
            self.assertEqual(await self.record(store, [(run, verdict)]), [])
            await store.delete(KEY)

    async def test_what_was_said_to_the_other(self) -> None:
        """P4: what is said during the second lease is for that one; the late end can't undo it."""
        store, other = self.open_store(), self.open_store()
        for say in ("disable", "trigger", "delete"):
            for verdict in each_verdict(datetime.now(UTC)):
                await store.put(KEY, NOW)
                late = await self.claim_one(store, KEY, OVER)
                held = await self.claim_one(other, KEY)
                await getattr(store, say)(KEY)
                self.assertEqual(await self.record(store, [(late, verdict)]), [late])
                self.assertEqual((await other.claim(9, LONG)).runs, [])
                self.assertEqual((await store.counts()).running, 1)
                dropped = await self.record(other, [(held, Retry(held.claimed, "500"))])
                self.assertEqual(dropped, [] if say == "disable" else [held])
                self.assertEqual((await store.counts()).total, int(say != "delete"))
                taken = (await store.claim(9, LONG)).runs
                self.assertEqual(len(taken), int(say == "trigger"))
                await self.record(store, [(run, Delete()) for run in taken])
                await store.delete(KEY)

    async def test_a_clock_that_was_set_back(self) -> None:
        """P2, P8: a run that has begun is the same run, though its time is to come once more."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await self.record(store, [(run, Retry(run.claimed, "500"))])
        ahead = datetime(2100, 1, 1).isoformat(sep=" ", timespec="microseconds")
        self.sql("UPDATE dalga SET scheduled = %s", (ahead,))
        again = await self.claim_one(store, KEY)
        self.assertEqual((again.id, again.attempt), (run.id, 2))

    async def test_a_lease_without_an_end(self) -> None:
        """P6: a row that has a token but no due time, which only a stranger writes, can go."""
        store = self.open_store()
        await self.due_now(store, KEY)
        self.sql("UPDATE dalga SET due = NULL")
        await store.delete(KEY)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])

    async def test_something_odd_said(self) -> None:
        """P5: a word that no Dalga knows ends the run like one that was overtaken."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        self.sql("UPDATE dalga SET override = 9")
        self.assertEqual(await self.record(store, [(run, Delete())]), [run])
        await self.claim_one(store, KEY)
