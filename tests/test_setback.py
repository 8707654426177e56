"""A database's clock that was ahead, and is set back: what it would hold up goes on."""

from __future__ import annotations

import os
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.delivery import AS_CONFIGURED, Delivery, Payload
from dalga.model.delivery import Retry as OfJob
from dalga.model.duration import duration_from_text, seconds
from dalga.model.grid import offset_of
from dalga.model.job import Job, Standing
from dalga.model.key import JobKey
from dalga.model.options import Options
from dalga.model.plan import ScheduleRequest
from dalga.model.retry import RetryPolicy
from dalga.model.run import Outcome, Reschedule, Retry
from dalga.model.schedule import Calendar, Cron, Every, Once, Schedule
from dalga.model.setback import Reach, Times, corrected, timely
from dalga.model.zone import Zone
from dalga.store import runs
from dalga.store.rows import read_job
from dalga.store.schema import MAX_LEASE
from dalga.store.table import JobsTable
from tests.examples import RUN, ended
from tests.stores import EACH_MINUTE, EngineTestCase, each_engine

NOW = datetime(2026, 1, 1, 9, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
REACH = Reach(lease=timedelta(seconds=70), retry=RetryPolicy(jitter=0.5))
KEY = JobKey("check_feed", "1234")
EACH_5 = Every(timedelta(seconds=5))


def job(schedule: Schedule, ahead: float, **other: Any) -> Job:
    """One whose next run is so many seconds ahead, after a run an interval before that."""
    at = NOW + timedelta(seconds=ahead)
    before = at - (schedule.interval if isinstance(schedule, Every) else HOUR)
    return replace(Job(KEY, schedule, Options(), before, at, at, successes=7), **other)


class CorrectedTests(SynchronousTestCase):
    """The rule, by examples; times in seconds from the corrected clock's now."""

    def moved(self, waiting: Job) -> float | None:
        """When it is due after the correction; None where it stays."""
        times = corrected(waiting, NOW, REACH)
        if times is None:
            return None
        assert waiting.due is not None
        if not waiting.running and not waiting.attempts:
            # The grid is the same, and its anchor is before the run.
            self.assertEqual(times.scheduled, times.due)
            if isinstance(waiting.schedule, Every):
                self.assertEqual(times.scheduled - times.anchor, waiting.scheduled - waiting.anchor)
        else:
            self.assertEqual(times[:2], (waiting.anchor, waiting.scheduled))
        return (times.due - NOW).total_seconds()

    def test_intervals(self) -> None:
        """P8: one goes on at the first time of its grid, if it would wait longer than ever."""
        for ahead, expected in [
            (3603.5, 3.5),
            (3600, 5),
            (3601, 1),
            (86400 * 365 + 2, 2),
            (10.5, 0.5),
            (10, None),
            (9, None),
            (5, None),
            (-3, None),
        ]:
            self.assertEqual(self.moved(job(EACH_5, ahead)), expected, ahead)
        hourly = Every(HOUR)
        self.assertIsNone(self.moved(job(hourly, 7200)))
        self.assertEqual(self.moved(job(hourly, 7201)), 1)

    def test_varied_intervals(self) -> None:
        """Where intervals are varied, the longest of them is what is usual."""
        varied = replace(REACH, variation=1.5)
        self.assertIsNone(corrected(job(EACH_5, 15), NOW, varied))
        self.assertIsNotNone(corrected(job(EACH_5, 15.5), NOW, varied))

    def test_intervals_with_jitter(self) -> None:
        """The first run waits for its jitter, too; those after it follow by intervals."""
        options = Options(jitter=HOUR)
        offset = offset_of(KEY, options)
        first = NOW + EACH_5.interval + offset
        for ahead, expected in [(0, None), (5, None), (5.5, 0.5), (3600, 5)]:
            at = first + seconds_(ahead)
            anchor = at - EACH_5.interval - offset
            waiting = Job(KEY, EACH_5, options, anchor, at, at)
            moved = self.moved(waiting)
            later = None if expected is None else expected + offset.total_seconds()
            self.assertEqual(moved, later, ahead)
        anchor = NOW - HOUR
        at = anchor + 1000 * EACH_5.interval + offset + seconds_(3)
        waiting = Job(KEY, EACH_5, options, anchor, at, at, successes=7)
        moved = self.moved(waiting)
        assert moved is not None
        self.assertLessEqual(moved, 5)
        # A POST brings one run at once, and the next an interval and the jitter after it.
        run = RUN._replace(schedule=EACH_5, options=options, anchor=NOW, scheduled=NOW, claimed=NOW)
        end = ended(run, Reschedule(first, NOW))
        back = NOW - timedelta(seconds=2)
        self.assertEqual(timely(end, back, REACH), end)

    def test_times_of_a_clock(self) -> None:
        """
        What cron or the calendar names goes by the corrected clock: at once where the minute or the
        hour is a star, and after a correction of more than three hours where it is not, as cron(8)
        of Debian has it. What may have been made already a moment ago stays.
        """
        for cron, ahead, expected in [
            ("* * * * *", 3660, 60),
            ("*/10 * * * * *", 3610, 10),
            ("* * * * *", 180, 60),
            # Set back by a second or two: the next time, or the one after it.
            ("* * * * *", 120, None),
            ("* * * * *", 60, None),
            ("0 * * * *", 2 * 3600, None),
            ("0 * * * *", 3 * 3600, 3600),
            # 9:30 and 10:30, with 9 o'clock on the clock: 9:30 was made by the wrong one.
            ("30 9,10 * * *", 5400, None),
            ("30 9 * * *", 1800, None),
            ("30 9 * * *", 86400 + 1800, None),
            ("30 9 * * *", 10 * 365 * 86400 + 1800 + 2 * 86400, 1800),
            ("0 9-15 * * *", 4 * 3600, None),
            ("0 9-15 * * *", 5 * 3600, 3600),
        ]:
            waiting = job(Cron(cron, Zone("UTC")), ahead)
            self.assertEqual(self.moved(waiting), expected, (cron, ahead))
            times = corrected(waiting, NOW, REACH)
            self.assertEqual(times and times.anchor, expected and waiting.anchor)
        first = NOW - timedelta(days=3) + timedelta(minutes=30)
        daily = Calendar(duration_from_text("P1D"), Zone("UTC"))
        for ahead, expected in [(1800, None), (86400 + 1800, None), (40 * 86400 + 1800, 1800)]:
            self.assertEqual(self.moved(job(daily, ahead, anchor=first)), expected, ahead)
        # Its jitter is a part of each of its times.
        options = Options(jitter=timedelta(seconds=30))
        offset = offset_of(KEY, options).total_seconds()
        waiting = job(Cron("* * * * *", Zone("UTC")), 3660 + offset, options=options)
        self.assertEqual(self.moved(waiting), offset if offset else 60)

    def test_a_retry_by_the_job_s_own_policy(self) -> None:
        """A retry is not early because the job's delays are longer than the configuration's."""
        for retry, ahead, expected in [
            (AS_CONFIGURED, 90, None),
            (AS_CONFIGURED, 90.001, 0),
            (OfJob(max_interval=HOUR), 5400, None),
            (OfJob(max_interval=HOUR), 5400.001, 0),
            (OfJob(max_interval=HOUR, jitter=0), 3600, None),
            (OfJob(max_interval=HOUR, jitter=0), 3600.001, 0),
            (OfJob(interval=HOUR), 5400, None),
            (OfJob(max_interval=timedelta(days=365), jitter=1), 730 * 86400, None),
            (OfJob(max_interval=timedelta(seconds=1)), 1.5, None),
            (OfJob(max_interval=timedelta(seconds=1)), 1.501, 0),
        ]:
            delivery = Delivery(retry=retry)
            due = NOW + timedelta(seconds=ahead)
            waiting = job(EACH_5, -5, due=due, attempts=3, delivery=delivery)
            self.assertEqual(self.moved(waiting), expected, (retry, ahead))

    def test_times_that_were_given(self) -> None:
        """A time of a user's stays, however far ahead it is, and none begins before first-run."""
        given = NOW + 5 * HOUR
        zone = Zone("UTC")
        begins = Options(first_run=given)
        for waiting in [
            job(Once(), 3600, successes=0),
            job(Cron("0 * * * *", zone), 18000, anchor=given, successes=0, options=begins),
            # It was POSTed to run once ahead of its first-run.
            job(Cron("0 * * * *", zone), 18000, options=begins),
            job(Calendar(duration_from_text("P1D"), zone), 18000, options=begins),
            job(EACH_5, 18000, anchor=given, successes=0),
            job(EACH_5, 18000, anchor=given, successes=0, options=Options(first_run=given)),
            # It was POSTed to run once ahead of its first-run.
            job(EACH_5, 18005, options=Options(first_run=given)),
        ]:
            self.assertIsNone(corrected(waiting, NOW, REACH), waiting)
        # It began in the hour that was not, and has run; its first-run is past.
        begun = job(EACH_5, 3603, options=Options(first_run=NOW - HOUR))
        self.assertEqual(self.moved(begun), 3)
        # A PUT of that hour counted from the time that was wrong.
        self.assertEqual(self.moved(job(EACH_5, 3603, successes=0)), 3)
        # It has run; an interval that is varied makes each run the anchor of the next.
        for has_run in ({"successes": 1}, {"skipped": 1}, {"standing": Standing.FAILED}):
            counts: Any = {"successes": 0, **has_run}
            self.assertEqual(
                self.moved(job(EACH_5, 3603, anchor=NOW + seconds_(3603), **counts)), 3
            )

    def test_a_clock_that_was_not_set_back(self) -> None:
        """What a run has led to stays, however far ahead that is."""
        run = RUN._replace(
            schedule=EACH_5, options=Options(), anchor=NOW, scheduled=NOW, claimed=NOW
        )
        end = ended(run, Reschedule(NOW + HOUR + seconds_(3), NOW))
        self.assertEqual(timely(end, NOW, REACH), end)
        earlier = NOW - seconds_(1)
        moved = timely(end, earlier, REACH)
        self.assertEqual((moved.run, moved.outcome), (run, end.outcome))
        self.assertEqual(moved.due, earlier + seconds_(4))
        retry = ended(run, Retry(NOW + HOUR, "500"))
        self.assertEqual(timely(retry, earlier, REACH), retry)
        asked = Outcome(200, 0.1, next_run=NOW + HOUR)
        self.assertEqual(timely(end._replace(outcome=asked), earlier, REACH).verdict, end.verdict)

    def test_attempts_and_leases(self) -> None:
        """P5: what is tried again, or leased, waits no longer than from now."""
        for schedule in (EACH_5, Once(), Cron("* * * * *", Zone("UTC"))):
            self.assertEqual(self.moved(job(schedule, 3600, attempts=2)), 0)
            self.assertIsNone(self.moved(job(schedule, 90, attempts=2)))
            leased = job(schedule, 3600, attempts=1, running=True)
            self.assertEqual(self.moved(leased), 70)
            self.assertIsNone(self.moved(job(schedule, 70, attempts=1, running=True)))

    def test_due_since_the_run_before(self) -> None:
        """P5: a run that became due at the end of another, by the clock that was ahead."""
        at, now = NOW + HOUR, NOW
        cases: list[tuple[Schedule, datetime]] = [
            (EACH_5, now),
            (Cron("0 0 * * *", Zone("UTC")), at),
        ]
        for schedule, anchor in cases:
            # Asked for during the run before: it counts from its own time, which is now.
            asked = Job(KEY, schedule, Options(), at, at, at + seconds_(3), waited=True)
            self.assertEqual(corrected(asked, now, REACH), (anchor, now, now))
            self.assertIsNone(corrected(asked, at + seconds_(3), REACH))
        # One of many to make up for: due now, or when its time comes.
        for scheduled, due in [(-600, 0), (1200, 1200)]:
            behind = Job(KEY, EACH_5, Options(), at, now + seconds_(scheduled), at)
            self.assertEqual(
                corrected(behind, now, REACH),
                (at, now + seconds_(scheduled), now + seconds_(due)),
            )

    def test_what_is_not_due(self) -> None:
        stopped = job(EACH_5, 3600, due=None, standing=Standing.STOPPED)
        self.assertIsNone(corrected(stopped, NOW, REACH))

    def test_the_ends_of_time(self) -> None:
        late = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
        waiting = Job(KEY, Every(timedelta(days=400_000)), Options(), NOW, late, late, successes=1)
        self.assertIsNone(corrected(waiting, NOW, REACH))
        early = datetime(1, 1, 1, tzinfo=UTC)
        waiting = Job(KEY, EACH_5, Options(), early, late, late, successes=1)
        self.assertIsNone(corrected(waiting, NOW, REACH))


def seconds_(number: float) -> timedelta:
    return timedelta(seconds=number)


@each_engine(globals())
class StoreTests(EngineTestCase):
    """The rows of a table."""

    def ahead(self, name: str, by: timedelta, **columns: object) -> JobKey:
        """A row of each five seconds that was written so far ahead."""
        now = datetime.now(UTC).replace(tzinfo=None)
        values = {
            "path": self.key(name),
            "body": self.key("b"),
            "schedule": "5",
            "anchor": now + by - timedelta(seconds=5),
            "scheduled": now + by,
            "due": now + by,
            "successes": 1,
            **columns,
        }
        shown = [
            value.isoformat(sep=" ", timespec="microseconds")
            if isinstance(value, datetime)
            else value
            for value in values.values()
        ]
        marks = ", ".join(["%s"] * len(values))
        self.sql(f"INSERT INTO dalga ({', '.join(values)}) VALUES ({marks})", shown)
        return JobKey(name, "b")

    async def correct(self, store: JobsTable) -> int:
        """Go through all rows; gives how many calls that took."""
        after, calls = None, 0
        while True:
            calls += 1
            after = await store.correct(REACH, after)
            if after is None:
                return calls

    async def wait(self, store: JobsTable, key: JobKey) -> float:
        """Seconds until a job is due."""
        due = (await self.job(store, key)).due
        assert due is not None
        return (due - await store.now()).total_seconds()

    async def test_rows(self) -> None:
        """P5, P8: a piece at a time, each row is moved as the rule says."""
        store = self.open_store()
        self.patch(runs, "CORRECTED", 3)
        waiting = [self.ahead(f"waiting{number}", HOUR) for number in range(7)]
        token = b"t" * 16
        leased = self.ahead("leased", 3 * HOUR, token=token, run=token, attempts=1)
        tried = self.ahead("tried", HOUR, attempts=2, run=token)
        stays = [
            self.ahead("cron", HOUR, schedule="0 0 * * *"),
            self.ahead("once", HOUR, schedule="", successes=0),
            self.ahead("soon", timedelta(seconds=4)),
        ]
        set_aside = self.ahead("unreadable", HOUR, schedule="nonsense")
        before = [await self.job(store, key) for key in stays]
        self.assertGreaterEqual(await self.correct(store), 4)
        for key in waiting:
            self.assertLessEqual(await self.wait(store, key), 5)
        self.assertLessEqual(await self.wait(store, tried), 0)
        lease = REACH.lease if self.engine == "sqlite" and store._guard else MAX_LEASE
        lasts = await self.wait(store, leased)
        self.assertTrue(lease.total_seconds() - 60 < lasts <= lease.total_seconds(), lasts)
        self.assertEqual([await self.job(store, key) for key in stays], before)
        await store.get(set_aside)
        job = await self.job(store, tried)
        self.assertEqual((job.attempts, job.due == job.scheduled), (2, False))

    async def test_a_retry_by_the_job_s_own_policy(self) -> None:
        """A job's retries may be longer than the configuration's, and stay then, as they are."""
        store = self.open_store()
        due = {}
        for name, retry in [
            ("plain", None),
            ("short", OfJob(max_interval=timedelta(minutes=30))),
            ("long", OfJob(interval=HOUR)),
        ]:
            key = JobKey(name, "b")
            request = ScheduleRequest(interval=seconds(5), retry=retry, payload=Payload(b"a"))
            await store.put(key, request)
            at = datetime.now(UTC).replace(tzinfo=None)
            ahead = (at + HOUR).isoformat(sep=" ", timespec="microseconds")
            began = (at - HOUR).isoformat(sep=" ", timespec="microseconds")
            self.sql(
                "UPDATE dalga SET due = %s, scheduled = %s, attempts = 2 WHERE path = %s",
                [ahead, began, self.key(name)],
            )
            due[name] = (await self.job(store, key)).due
        await self.correct(store)
        self.assertLessEqual(await self.wait(store, JobKey("plain", "b")), 0)
        self.assertLessEqual(await self.wait(store, JobKey("short", "b")), 0)
        self.assertEqual((await self.job(store, JobKey("long", "b"))).due, due["long"])

    async def test_rows_of_one_time(self) -> None:
        """However many are due at one time, each is looked at once."""
        store = self.open_store()
        self.patch(runs, "CORRECTED", 3)
        at = (await store.now()).replace(tzinfo=None) + HOUR
        for number in range(7):
            self.ahead(f"cron{number}", HOUR, schedule="0 0 * * *", scheduled=at, due=at)
        key = self.ahead("waiting", HOUR, scheduled=at, due=at, anchor=at - seconds_(5))
        self.assertEqual(await self.correct(store), 3)
        self.assertLessEqual(await self.wait(store, key), 5)

    async def test_a_claim_meanwhile(self) -> None:
        """P4: what was written since it was read stays."""
        store = self.open_store()
        key = self.ahead("waiting", HOUR)
        sql: Any = store._runsql
        statement = sql.correct
        sql.correct = missing = copy(statement)
        text = missing._last.text.replace("WHERE id", "WHERE due < '2020-01-01' AND id")
        missing._last = missing._last._replace(text=text)
        await self.correct(store)
        self.assertGreater(await self.wait(store, key), 3000)
        sql.correct = statement
        await self.correct(store)
        self.assertLess(await self.wait(store, key), 6)

    async def test_other_times_meanwhile(self) -> None:
        """P4: each of a row's times has to be what it was when it was read."""
        store = self.open_store()
        key = self.ahead("waiting", HOUR)
        before = await self.job(store, key)
        soon = await store.now()
        self.patch(runs, "corrected", lambda *_: Times(soon, soon, soon))
        for name in ("anchor", "scheduled", "due"):

            def read(*arguments: Any, name: str = name) -> Any:
                job: Any = read_job(*arguments)
                return replace(job, **{name: getattr(job, name) + seconds_(1)})

            self.patch(runs, "read_job", read)
            await store.correct(REACH, None)
            self.patch(runs, "read_job", read_job)
            self.assertEqual(await self.job(store, key), before, name)
        await store.correct(REACH, None)
        self.assertEqual((await self.job(store, key)).due, soon)

    async def test_signs_of_life_from_the_future(self) -> None:
        """A clock that was set back while no daemon was there to see it is noticed at the start."""
        store = self.open_store()
        self.assertEqual(store.clock.set_backs, 0)
        await store.announce("killed")
        self.sql("UPDATE dalga_alive_6 SET seen = '2090-01-01 00:00:00.000000'")
        store = self.make_store()
        store.open()
        self.assertEqual(store.clock.set_backs, 1)


@each_engine(globals(), only=("sqlite",))
class FileTests(EngineTestCase):
    """The embedded database, whose clock is the machine's."""

    def set_clock(self, store: JobsTable, by: timedelta) -> None:
        dialect: Any = store._dialect
        dialect._wall_clock = lambda: datetime.now(UTC) + by

    async def test_a_time_that_is_none(self) -> None:
        """P6: SQLite keeps whatever somebody writes; it is in no other job's way."""
        store = self.open_store()
        self.patch(runs, "CORRECTED", 2)
        keys = [JobKey("check_feed", str(number)) for number in range(3)]
        for key in keys:
            await store.put(key, EACH_MINUTE)
        self.sql("UPDATE dalga SET due = scheduled, successes = 1")
        self.sql("UPDATE dalga SET due = 'no time' WHERE body = '2'")
        self.set_clock(store, -HOUR)
        after, calls = await store.correct(REACH, None), 1
        while after is not None:
            after, calls = await store.correct(REACH, after), calls + 1
        self.assertEqual(calls, 2)
        now = await store.now()
        for key in keys[:2]:
            due = (await self.job(store, key)).due
            assert due is not None
            self.assertLessEqual(due - now, timedelta(minutes=1))

    async def test_a_clock_that_is_set_back(self) -> None:
        """It is noticed by the next statement; nothing is, where it is set forward."""
        store = self.open_store()
        self.set_clock(store, HOUR)
        await store.now()
        self.assertEqual(store.clock.set_backs, 0)
        await store.put(KEY, replace(EACH_MINUTE, interval=seconds(5), immediate=True))
        (run,) = (await store.claim(9, 60)).runs
        later = await store.now() + timedelta(seconds=5)
        await store.record([ended(run, Reschedule(later, later - timedelta(seconds=5)))])
        other = JobKey("once", "b")
        await store.put(other, ScheduleRequest(one_off=True, immediate=True))
        (run,) = (await store.claim(9, 60)).runs
        await store.record([ended(run, Retry(later, "500"))])
        self.set_clock(store, timedelta())
        now = await store.now()
        self.assertEqual(store.clock.set_backs, 1)
        await store.correct(REACH, None)
        due = (await self.job(store, KEY)).due
        assert due is not None
        self.assertLessEqual(due - now, timedelta(seconds=6))
        (again,) = (await store.claim(9, 60)).runs
        self.assertEqual((again.key, again.id), (other, run.id))

    def test_a_file_from_the_future(self) -> None:
        """As if the clock had been set back between a stop and a start."""
        self.make_store().open()
        store = self.make_store()
        store.open()
        self.assertEqual(store.clock.set_backs, 0)
        later = datetime.now(UTC).timestamp() + 3600
        os.utime(self.on_sqlite.path, (later, later))
        store = self.make_store()
        store.open()
        self.assertEqual(store.clock.set_backs, 1)
