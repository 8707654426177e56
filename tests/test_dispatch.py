"""The scheduler: what it claims when, what it POSTs, and that every outcome is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import timedelta
from itertools import pairwise
from random import Random
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch import posts, recorder, waiting
from dalga.dispatch.claimsize import HELD
from dalga.dispatch.elsewhere import NAMES, QUIET, Elsewhere
from dalga.dispatch.outages import AWAY_PAUSE, CLAIM, MISTAKES_TOLD, OTHERS_FIRST
from dalga.dispatch.posts import Posts
from dalga.dispatch.pruning import Keeping
from dalga.dispatch.recorder import LOCKED_PAUSE, RECORD_DELAY, RECORD_LIMIT
from dalga.dispatch.scheduler import SCAN_LIMIT, Pace, Scheduler
from dalga.dispatch.upkeep import (
    CLEANED,
    CLEANING_INTERVAL,
    CLEANING_PATIENCE,
    CLEANING_PAUSE,
    DEPARTURE,
)
from dalga.dispatch.waiting import SHARE_PATIENCE, SLOT_PATIENCE
from dalga.errors import JobDisabled, JobNotFound, StoreUnavailable
from dalga.log import log_from
from dalga.metrics import Counts, Metrics
from dalga.model.answers import Meaning
from dalga.model.delivery import Delivery, Method, Payload
from dalga.model.job import Job, Standing
from dalga.model.key import JobKey
from dalga.model.options import CatchUp, IfExists, OnFailure, Options
from dalga.model.plan import ScheduleRequest
from dalga.model.retry import RetryPolicy
from dalga.model.run import (
    LEASE_MARGIN,
    Delete,
    Disable,
    GiveBack,
    Outcome,
    Reschedule,
    Retry,
    Run,
    RunPolicy,
    Skip,
    Stop,
    Verdict,
    lease_of,
)
from dalga.model.schedule import Every
from dalga.model.setback import Reach
from dalga.model.why import Held, Here
from dalga.store import Claimed, Due, Recorded, Store
from tests.examples import RUN, ended
from tests.fakes import EPOCH, FakeEndpoint, FakeStore, noting
from tests.lists import by_key
from tests.stores import EACH_MINUTE, LONG, NOW, OVER, EngineTestCase

TIMEOUT = 10.0
MINUTE = timedelta(minutes=1)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


class SchedulerTestCase(SynchronousTestCase):
    """A scheduler on a clock of the test's, with a fake store and a fake endpoint."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = FakeStore(self.clock.seconds)
        self.endpoint = FakeEndpoint(self.clock.seconds)
        self.metrics = Metrics()
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(noting(self.events))
        self.addCleanup(globalLogPublisher.removeObserver, noting(self.events))

    def start(
        self,
        slots: int = 10,
        scan: float = 1.0,
        jitter: float = 0.0,
        retry: RetryPolicy | None = None,
        policy: RunPolicy | None = None,
        timeouts: Mapping[str, float] = MappingProxyType({}),
        max_rows: int = 10_000_000,
    ) -> None:
        """Start a scheduler, and let it claim for the first time."""
        self.scheduler = Scheduler(
            self.clock,
            self.store,
            self.endpoint,
            Pace(slots=slots, timeout=TIMEOUT, scan=scan, timeouts=timeouts),
            policy or RunPolicy(retry or RetryPolicy(jitter=jitter)),
            Random(20141111),
            "web1",
            metrics=self.metrics,
            keeping=Keeping(max_rows=max_rows),
        )
        self.scheduler.start()
        self.go(0)

    def go(self, duration: float) -> None:
        """Let time go by, from one timer to the next; no timer may be busy without end."""
        end = self.clock.seconds() + duration
        for _ in range(2000):
            times = [call.getTime() for call in self.clock.getDelayedCalls()]
            if not times or min(times) > end:
                self.clock.advance(max(0.0, end - self.clock.seconds()))
                return
            self.clock.advance(max(0.0, min(times) - self.clock.seconds()))
        self.fail("the timers never come to rest")

    def logged(self, level: LogLevel) -> list[str]:
        """What dalga logged at a level, as format strings."""
        return [
            event["log_format"]
            for event in self.events
            if event["log_level"] is level and event["log_namespace"].startswith("dalga")
        ]

    def times(self) -> list[float]:
        """When each POST was begun, in seconds of the clock."""
        return [at for _, at in self.endpoint.posts]

    def deliver(self, delivery: Delivery) -> None:
        """Have runs that are claimed from now on say this."""
        taken = FakeStore._taken
        octets = b"" if delivery.payload is None else delivery.payload.octets

        def take(*arguments: Any) -> Run:
            return taken(self.store, *arguments)._replace(delivery=delivery, payload=octets)

        self.patch(self.store, "_taken", take)

    def drain(self, grace: float) -> Deferred[int]:
        self.scheduler.stop_claiming()
        return Deferred.fromCoroutine(self.scheduler.drain(grace))

    def recorded(self) -> list[list[str]]:
        """The paths of each record, in the order in which the store was given them."""
        return [[end.run.key.path for end in call.argument] for call in self.store.called("record")]


class ClaimTests(SchedulerTestCase):
    """When rows are claimed, and which."""

    def test_on_time(self) -> None:
        """P7: a due job is claimed at its time, not at the next scan."""
        for number, after in enumerate((5.25, 5.375, 7.125)):
            self.store.insert(f"job{number}", self.store.time + seconds(after))
        self.start()
        began = self.clock.seconds()
        self.go(8)
        times = [at - began for _, at in self.endpoint.posts]
        for at, due in zip(times, (5.25, 5.375, 7.125), strict=True):
            self.assertLess(abs(at - due), 0.001)

    def test_nothing_due_no_claim(self) -> None:
        """P10: where nothing is due the database is asked by scans only, not by claims."""
        self.store.insert("far", self.store.time + timedelta(hours=1))
        self.start()
        self.go(20)
        self.assertEqual(len(self.store.called("claim")), 1)
        self.assertLess(len(self.store.called("due_within")), 23)

    def test_own_job(self) -> None:
        """P7: a job that this instance has written is POSTed at its time, not at the next scan."""
        self.start()
        self.go(0.125)
        due = self.store.time + seconds(0.25)
        self.store.insert("mine", due)
        self.scheduler.expect(due)
        self.go(0.25)
        self.assertEqual(self.endpoint.paths, ["mine"])

    def test_own_job_that_is_due(self) -> None:
        """P7: one that is due already is POSTed at once."""
        self.start()
        self.go(0.125)
        self.store.insert("mine")
        self.scheduler.expect(self.store.time)
        self.go(0)
        self.assertEqual(self.endpoint.paths, ["mine"])

    def test_anothers_job(self) -> None:
        """P5: a job that another instance has written is seen by the next scan."""
        self.start()
        self.go(0.125)
        self.store.insert("theirs")
        self.go(1)
        self.assertEqual(self.endpoint.paths, ["theirs"])

    def test_own_job_during_a_claim(self) -> None:
        """P7: a job written while a claim is under way is claimed next, not at the next scan."""
        self.start()
        self.go(0.125)
        self.store.insert("first")
        self.store.hold("claim")
        self.scheduler.expect(self.store.time)
        self.go(0.001)
        self.store.insert("second")
        self.scheduler.expect(self.store.time)
        self.store.release("claim")
        self.go(0)
        self.assertEqual(self.endpoint.paths, ["first", "second"])

    def test_locked_rows_are_not_claimed_busily(self) -> None:
        """P10: due rows that nobody can take cost a claim at a scan, not one after the other."""
        for number in range(SCAN_LIMIT + 1):
            self.store.insert(f"job{number}", self.store.time - seconds(5))
        claims: list[int] = []

        def nothing(limit: int, *_: object) -> Deferred[Claimed]:
            claims.append(limit)
            return succeed(Claimed([], self.store.time, full=False))

        self.store.claim = nothing  # type: ignore[assignment, method-assign]
        self.start()
        self.go(10)
        self.assertLess(len(claims), 25)
        self.assertLess(len(self.store.called("due_within")), 25)

    def test_retry_on_time(self) -> None:
        """P7, P2: a failed run is POSTed again at its retry's time, as the same run."""
        self.store.insert("a")
        self.start()
        self.endpoint.answer("a", 500)
        self.go(0.5)
        (first, began), (second, again) = self.endpoint.posts
        self.assertLess(abs(again - began - 0.5), 0.001)
        self.assertEqual((first.id, first.attempt + 1), (second.id, second.attempt))

    def test_next_run_on_time(self) -> None:
        """P7: a periodic job's next run is at its time, though it comes before the next scan."""
        self.store.insert("a", schedule=Every(seconds(1)))
        self.start(scan=5)
        self.go(0.5)
        self.endpoint.answer("a")
        self.go(0.5)
        times = [at for _, at in self.endpoint.posts]
        self.assertLess(abs(times[1] - times[0] - 1), 0.001)

    def test_oldest_first(self) -> None:
        """P6: due jobs start in due order, however they were written."""
        for late in (3, 1, 4, 2, 5):
            self.store.insert(f"late{late}", self.store.time - seconds(late))
        self.start(slots=2)
        while self.endpoint.under_way:
            self.endpoint.answer(self.endpoint.under_way[0])
            self.go(0.05)
        self.assertEqual(self.endpoint.paths, ["late5", "late4", "late3", "late2", "late1"])

    def test_what_breaks_behind_an_end(self) -> None:
        """P6: a mistake there is logged, and frees no slot a second time."""
        self.store.insert("a")
        self.start()
        self.patch(self.scheduler._slots, "_slot_freed", lambda: 1 / 0)
        self.endpoint.answer("a")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_slots(self) -> None:
        """P10: never are more POSTs under way than there are slots, and none stays empty."""
        for number in range(30):
            self.store.insert(f"job{number}")
        self.start(slots=7)
        random = Random(1)
        while self.endpoint.under_way:
            self.assertLessEqual(len(self.endpoint.under_way), 7)
            self.assertEqual(self.scheduler.running, len(self.endpoint.under_way))
            self.endpoint.answer(random.choice(self.endpoint.under_way))
            self.go(0.05)
            left = 30 - len(self.endpoint.posts)
            if left:
                self.assertEqual(len(self.endpoint.under_way), 7)
        self.assertEqual(len(self.endpoint.posts), 30)

    def test_what_is_known_of_a_job(self) -> None:
        """Which run is under way here, which waits for what, and which path has its share."""
        for number in range(10):
            self.store.insert("a", body=str(number))
        self.start(slots=5)
        key, other = JobKey("a", "0"), JobKey("b", "x")
        running = self.scheduler.look(key)
        self.assertEqual(running, Here(Held.RUNNING, 4, True, 5, 1))
        waiting = [self.scheduler.look(JobKey("a", str(number))).held for number in range(10)]
        self.assertEqual(waiting[:5], [*[Held.RUNNING] * 4, Held.FOR_SHARE])
        self.assertEqual(self.scheduler.look(other), Here(None, 0, False, 5, 1))
        for number in range(8):
            self.store.insert("b", body=str(number))
        self.go(0.1)
        self.assertEqual(self.scheduler.look(other), Here(None, 1, False, 5, 0))
        self.assertTrue(self.scheduler.look(key).path_at_limit)

    def test_a_claim_asks_for_the_free_slots(self) -> None:
        """P5, P10: no more rows are claimed than can be POSTed now."""
        for number in range(5):
            self.store.insert(f"job{number}")
        self.start(slots=4)
        self.endpoint.answer("job1")
        self.go(0.05)
        self.assertEqual([call.argument for call in self.store.called("claim")], [4, 1])

    def test_backlog(self) -> None:
        """P6: a backlog is claimed until a claim is not full; then a scan sees what comes next."""
        for number in range(SCAN_LIMIT * 2):
            self.store.insert(f"job{number}", self.store.time - seconds(1))
        soon = self.store.time + seconds(0.25)
        self.store.insert("soon", soon)
        self.start(slots=SCAN_LIMIT - 1, scan=60)
        for _ in range(2):
            for path in self.endpoint.under_way:
                self.endpoint.answer(path)
            self.go(0.02)
        for path in self.endpoint.under_way:
            self.endpoint.answer(path)
        self.go(0.25)
        self.assertEqual(len(self.endpoint.posts), SCAN_LIMIT * 2 + 1)
        self.assertLess(abs(self.endpoint.posts[-1][1] - 1000.25), 0.001)
        self.assertLess(len(self.store.called("claim")), 8)

    def test_claim_failure(self) -> None:
        """P5: a claim that fails is made again after a pause, and again; logged once."""
        self.start()
        self.store.away = {"claim", "due_within"}
        self.store.insert("a")
        self.scheduler.expect(self.store.time)
        self.go(5)
        times = [call.at for call in self.store.called("claim")[1:]]
        self.assertGreater(len(times), 3)
        for earlier, later in pairwise(times):
            self.assertGreaterEqual(later - earlier, AWAY_PAUSE)
        self.assertEqual(len(self.logged(LogLevel.error)), 1)
        self.store.away = set()
        self.go(AWAY_PAUSE)
        self.assertEqual(self.endpoint.paths, ["a"])
        self.assertIn("the database is back", self.logged(LogLevel.info))

    def test_claim_failure_alone(self) -> None:
        """P5: the pause holds, and the log keeps quiet, where scans go on working meanwhile."""
        self.store.away = {"claim"}
        self.store.insert("a")
        self.start()
        self.go(4.5)
        times = [call.at for call in self.store.called("claim")]
        self.assertLessEqual(len(times), 5)
        self.assertEqual(len(self.logged(LogLevel.error)), 1)

    def test_scan_failure(self) -> None:
        """P5: a scan that fails is made again after a pause."""
        self.store.away = {"due_within"}
        self.start()
        self.go(5)
        self.store.away = set()
        self.store.insert("a", self.store.time + seconds(2.5))
        self.go(2.5)
        self.assertEqual(self.endpoint.paths, ["a"])

    def test_claim_breaks(self) -> None:
        """P5: not even a mistake of ours ends the claims."""
        claim = self.store.claim
        self.store.claim = lambda *arguments: 1 / 0  # type: ignore[assignment]
        self.store.insert("a")
        self.start()
        self.assertGreaterEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.store.claim = claim  # type: ignore[method-assign]
        self.go(AWAY_PAUSE)
        self.assertEqual(self.endpoint.paths, ["a"])

    def test_claim_breaks_for_long(self) -> None:
        """P10: the same mistake over and over leaves one line in the log, until all was well."""
        self.store.claim = lambda *arguments: 1 / 0  # type: ignore[assignment]
        self.store.insert("a")
        self.start()
        self.go(30)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_run_that_breaks(self) -> None:
        """P6: a run that our arithmetic chokes on is left to its lease; the others start."""
        keys = [self.store.insert(name) for name in ("a", "bad", "b")]
        self.patch(posts, "missed", lambda run: 1 / 0 if run.key == keys[1] else None)
        self.start()
        self.assertEqual(self.endpoint.paths, ["a", "b"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.scheduler.running, 2)

    def test_runs_that_end_at_once(self) -> None:
        """P2, P6: hundreds of runs that wait, each of which ends as it starts, take no depth."""
        for number in range(600):
            self.store.insert(f"job{number}")
        self.patch(self.endpoint, "post", lambda run: succeed(Outcome(200, 0.0)))
        self.start(slots=300)
        self.go(1)
        self.assertEqual(self.store.rows, {})
        self.assertEqual(self.scheduler.running, 0)
        self.assertEqual([event for event in self.events if "log_failure" in event], [])

    def test_a_start_that_breaks(self) -> None:
        """P5, P6: a mistake in the start of a run keeps no later run from its start."""
        bad = self.store.insert("bad")
        started = Posts.start

        def start(posts: Posts, run: Run, freed: Callable[[Run], None]) -> None:
            if run.key == bad:
                raise ZeroDivisionError
            started(posts, run, freed)

        self.patch(Posts, "start", start)
        self.start()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.store.insert("good")
        self.go(10)
        self.assertEqual(self.endpoint.paths, ["good"])

    def test_an_end_that_breaks(self) -> None:
        """P6: so is one whose end it chokes on; its slot is free at once."""
        self.patch(posts, "judge", lambda *arguments: 1 / 0)
        self.store.insert("bad")
        self.store.insert("good")
        self.start(slots=1, scan=60)
        self.endpoint.answer("bad")
        self.go(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.endpoint.under_way, ["good"])

    def test_an_end_that_breaks_at_a_stop(self) -> None:
        """P5: nothing is left to wait for, although no record will tell so."""
        self.patch(posts, "judge", lambda *arguments: 1 / 0)
        self.store.insert("bad")
        self.start()
        drained = self.drain(10)
        self.assertNoResult(drained)
        self.endpoint.answer("bad")
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_end_that_is_not_taken(self) -> None:
        """P6, P7: the slot and the share are free, too, if the recorder breaks on an end."""
        self.patch(recorder.Recorder, "add", lambda *arguments: 1 / 0)
        for name in ("bad", "good"):
            self.store.insert("same path", body=name)
        self.start(slots=1, scan=60)
        for number in (1, 2):
            self.endpoint.answer("same path")
            self.go(0)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1, number)
        self.assertEqual((len(self.endpoint.posts), self.scheduler.running), (2, 0))

    def test_a_late_claim(self) -> None:
        """P3: a claim that comes back too late for a POST within its lease is not POSTed."""
        self.store.insert("late")
        self.store.hold("claim")
        self.start()
        self.clock.advance(LEASE_MARGIN + 0.001)
        self.store.release("claim")
        self.assertEqual(self.endpoint.posts, [])
        self.assertEqual(self.scheduler.running, 0)
        # P5: its lease ends and it runs, with one attempt more.
        self.go(TIMEOUT + 2)
        self.assertEqual([run.attempt for run, _ in self.endpoint.posts], [2])

    def test_a_late_claim_of_two(self) -> None:
        """P3: each run's own time-out says whether its POST can still end within its lease."""
        claim = self.store.claim

        def own_timeouts(limit: int, timeout: float, *more: Any) -> Deferred[Claimed]:
            def change(claimed: Claimed) -> Claimed:
                first, *others = claimed.runs
                return replace(claimed, runs=[first._replace(timeout=1.0), *others])

            return claim(limit, timeout, *more).addCallback(change)

        self.store.claim = own_timeouts  # type: ignore[assignment, method-assign]
        self.store.insert("short", self.store.time - seconds(1))
        self.store.insert("long")
        self.store.hold("claim")
        self.start(scan=60)
        self.clock.advance(LEASE_MARGIN + 1)
        self.store.release("claim")
        self.assertEqual(self.endpoint.paths, ["short"])

    def test_a_claim_just_in_time(self) -> None:
        """P3: one that leaves the POST all its time is."""
        self.store.insert("late")
        self.store.hold("claim")
        self.start()
        self.clock.advance(LEASE_MARGIN)
        self.store.release("claim")
        self.assertEqual(self.endpoint.paths, ["late"])

    def test_the_lease_covers_the_post(self) -> None:
        """P3: the lease that a claim asks for is longer than a POST takes at most."""
        self.store.insert("a")
        self.start()
        ((run, _),) = self.endpoint.posts
        self.assertGreater(run.lease_ends, self.clock.seconds() + TIMEOUT)
        row = self.store.find(run.key)
        assert row is not None and row.due is not None
        self.assertGreater(row.due, self.store.time + seconds(TIMEOUT))

    def test_still_running(self) -> None:
        """P3, P8: a row whose lease the database's clock has jumped over is not started twice."""
        self.store.insert("a")
        self.start()
        self.store.set_by = timedelta(hours=1)
        self.go(5)
        self.assertGreater(len(self.store.called("claim")), 1)
        self.assertEqual(self.endpoint.paths, ["a"])
        self.assertEqual(self.scheduler.running, 1)
        self.assertTrue(any("still running" in line for line in self.logged(LogLevel.warn)))

    def test_the_end_of_one_still_running(self) -> None:
        """P2: a run whose lease the database's clock has jumped over is recorded as it ends."""
        key = self.store.insert("a")
        self.start()
        self.store.set_by = timedelta(hours=1)
        self.go(5)
        self.endpoint.answer("a")
        self.go(2 * TIMEOUT + LEASE_MARGIN)
        self.assertEqual(self.endpoint.paths, ["a"])
        self.assertIsNone(self.store.find(key))

    def test_the_run_after_one_still_running(self) -> None:
        """P2: the next run is recorded under its own lease."""
        key = self.store.insert("a", schedule=Every(MINUTE))
        self.start()
        self.store.set_by = timedelta(hours=1)
        self.go(5)
        for _ in range(2):
            self.endpoint.answer("a")
            self.go(60)
        row = self.store.find(key)
        assert row is not None
        self.assertEqual((row.successes, len(self.endpoint.posts)), (2, 3))

    def test_another_run_of_one_still_running(self) -> None:
        """P2, P4: a run that was asked for meanwhile is not taken for the one under way."""
        key = self.store.insert("a")
        self.start()
        (row,) = self.store.rows.values()
        row.run = None  # as a POST or a PUT leaves it
        self.store.set_by = timedelta(hours=1)
        self.go(5)
        self.endpoint.answer("a")
        self.go(2 * TIMEOUT + LEASE_MARGIN)
        first, second = (run for run, _ in self.endpoint.posts)
        self.assertNotEqual(first.id, second.id)
        self.assertIsNotNone(self.store.find(key))

    def test_the_databases_clock(self) -> None:
        """P8: when the database's clock is set back, its time decides, from the next scan on."""
        self.start()
        self.store.set_by = timedelta(hours=-1)
        self.store.insert("a", self.store.time + seconds(2.5))
        self.go(2.375)
        self.assertEqual(self.endpoint.posts, [])
        self.go(0.25)
        self.assertEqual(self.endpoint.paths, ["a"])
        self.assertLess(len(self.store.called("claim")), 5)

    def test_a_clock_that_was_set_back(self) -> None:
        """P5, P8: what an hour that never was would hold up goes on, without a restart."""
        self.start()
        ahead = self.store.time + timedelta(hours=1)
        often = self.store.insert("often", ahead, Every(seconds(5)))
        next(row for row in self.store.rows.values() if row.key == often).successes = 1
        self.store.insert("cron", ahead)
        self.go(2)
        self.assertEqual(self.store.called("correct"), [])
        self.store.set_by = timedelta(seconds=-30)
        self.store.away = {"correct"}
        self.go(2)
        self.store.away = set()
        self.go(6)
        self.assertEqual(self.endpoint.paths, ["often"])
        done = len(self.store.called("correct"))
        self.go(10)
        self.assertEqual(len(self.store.called("correct")), done)
        reach = self.store.called("correct")[-1].argument
        self.assertEqual(reach.lease, lease_of(TIMEOUT))
        self.assertTrue(any("was set back" in line for line in self.logged(LogLevel.warn)))

    def test_a_correction_that_breaks(self) -> None:
        """A mistake of ours is told once, however often it is tried again; scans go on (P5)."""
        self.start()
        self.store.set_by = timedelta(hours=-1)
        correct = self.store.correct

        def broken(reach: Reach, after: Due | None) -> Any:
            correct(reach, after)
            return fail(ZeroDivisionError())

        self.store.correct = broken  # type: ignore[method-assign]
        scans = len(self.store.called("due_within"))
        self.go(10)
        self.assertGreater(len(self.store.called("due_within")), scans + 3)
        self.assertIn(len(self.store.called("correct")), range(5, 12))  # one a second
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.logged(LogLevel.error), [])
        self.assertEqual(self.logged(LogLevel.warn), [])
        self.store.correct = correct  # type: ignore[method-assign]
        self.go(3)
        self.assertEqual(
            len([line for line in self.logged(LogLevel.warn) if "set back" in line]), 1
        )

    def holding_corrections(self) -> tuple[list[Due | None], list[Deferred[Due | None]]]:
        """Have the store's corrections wait for the test: where each goes on from, and its end."""
        places: list[Due | None] = []
        ends: list[Deferred[Due | None]] = []

        def correct(reach: Reach, after: Due | None) -> Deferred[Due | None]:
            places.append(after)
            ends.append(Deferred())
            return ends[-1]

        self.store.correct = correct  # type: ignore[method-assign]
        return places, ends

    def test_a_correction_in_pieces(self) -> None:
        """One at a time, to its end; a set-back meanwhile is corrected for by another one."""
        places, ends = self.holding_corrections()
        self.start()
        self.store.set_by = timedelta(hours=-1)
        self.go(5)
        self.assertEqual(places, [None])
        there = (self.store.time, 7)
        ends[0].callback(there)
        self.go(5)
        self.assertEqual(places, [None, there])
        self.store.set_by = timedelta(hours=-2)
        self.go(2)
        scans = len(self.store.called("due_within"))
        ends[1].callback(None)
        self.go(0)
        self.assertEqual(len(self.store.called("due_within")), scans + 1)  # to see what was moved
        self.assertEqual(places, [None, there, None])
        self.scheduler.stop_claiming()
        ends[2].callback(there)
        self.go(5)
        self.assertEqual(places, [None, there, None])  # the next start begins anew
        told = [line for line in self.logged(LogLevel.warn) if "was set back" in line]
        self.assertEqual(len(told), 1)

    def test_a_correction_that_fails(self) -> None:
        """It is tried again after a pause, which is no longer or shorter than for all else."""
        for scan, expected in ((0.125, range(5, 8)), (30.0, range(5, 8))):
            self.store = FakeStore(self.clock.seconds)
            self.start(scan=scan)
            self.store.away = {"correct"}
            self.store.set_by = timedelta(hours=-1)
            self.go(scan)
            before = len(self.store.called("correct"))
            self.assertGreater(before, 0)
            self.go(6 * AWAY_PAUSE)
            self.assertIn(len(self.store.called("correct")) - before, expected, scan)
            self.scheduler.stop_claiming()

    def test_a_scan_beside_a_correction_that_fails(self) -> None:
        """The pause is for all: also where a scan ends right then."""
        places, ends = self.holding_corrections()
        self.start()
        self.store.set_by = timedelta(hours=-1)
        self.go(2)
        self.store.hold("due_within")
        self.go(2)
        ends[0].errback(StoreUnavailable("away"))
        self.store.release("due_within")
        self.go(AWAY_PAUSE / 2)
        self.assertEqual(places, [None])
        self.go(AWAY_PAUSE)
        self.assertEqual(places, [None, None])

    def test_how_far_ahead_a_correction_reaches(self) -> None:
        """Up to the longest that this daemon lets a job wait."""
        retry = RetryPolicy(jitter=0.5)
        policy = RunPolicy(retry, randomization_factor=0.25)
        pace = Pace(slots=1, timeout=TIMEOUT, scan=1.0)
        self.scheduler = Scheduler(
            self.clock,
            self.store,
            self.endpoint,
            pace,
            policy,
            Random(1),
            "web1",
            metrics=self.metrics,
        )
        self.scheduler.start()
        self.go(0)
        self.store.set_by = timedelta(hours=-1)
        self.go(2)
        reach = self.store.called("correct")[-1].argument
        self.assertEqual(reach, Reach(lease_of(TIMEOUT), retry, 1.25))

    def test_mistakes_are_forgotten(self) -> None:
        """P10: so many are remembered, and one that comes again is told in a line."""
        self.start()
        outages = self.scheduler._outages
        for number in range(MISTAKES_TOLD + 1):
            self.assertTrue(outages.mistake("a test", ValueError(number)))
        self.assertFalse(outages.mistake("a test", ValueError(number)))
        self.assertTrue(outages.mistake("a test", ValueError(0)))
        self.flushLoggedErrors(ValueError)
        for _ in range(2):
            outages.failed("a test", ZeroDivisionError())
            outages.answered("a test")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.logged(LogLevel.error), ["{what} broke again: {error!r}"])

    def test_a_clock_that_is_set_back_during_a_run(self) -> None:
        """P8: its next run, too, is where the corrected clock has it."""
        self.store.insert("often", self.store.time, Every(seconds(5)))
        self.start()
        self.go(1)
        self.store.set_by = timedelta(hours=-2)
        self.go(2)
        self.endpoint.answer("often")
        self.go(6)
        self.assertEqual(self.endpoint.paths, ["often", "often"])

    def test_a_job_changed_in_a_run_in_which_the_clock_is_set_back(self) -> None:
        """P5, P8: nor does a run wait that the change brings, however intervals are counted."""
        key = JobKey("a", "body")
        update = IfExists.UPDATE
        once = replace(EACH_MINUTE, count=1)
        stops = replace(EACH_MINUTE, on_failure=OnFailure.STOP)
        goes_on = replace(EACH_MINUTE, on_failure=OnFailure.CONTINUE, if_exists=update)
        give_up = RetryPolicy(stop_after=timedelta())
        for policy in (
            RunPolicy(give_up),
            RunPolicy(give_up, fixed_intervals=False),
            RunPolicy(give_up, randomization_factor=0.5),
        ):
            for before, during, status in (
                (once, replace(once, count=2, if_exists=update), 200),
                (stops, goes_on, 500),
                (once, EACH_MINUTE, 200),
            ):
                self.setUp()
                self.store.put(key, replace(before, immediate=True))
                self.start(policy=policy)
                self.store.put(key, during)
                self.go(1)
                self.store.set_by = timedelta(hours=-2)
                self.go(2)
                self.endpoint.answer("a", status)
                self.go(180)
                self.assertEqual(len(self.endpoint.posts), 2, (policy, during))

    def test_after_an_outage(self) -> None:
        """P9: a periodic job that was due for an hour runs once, then at its regular time."""
        began = self.store.time
        self.store.insert("a", began - timedelta(hours=1, seconds=-10), Every(MINUTE))
        self.start()
        for _ in range(100):
            if self.endpoint.under_way:
                self.endpoint.answer("a")
            self.go(1)
        scheduled = [run.scheduled for run, _ in self.endpoint.posts]
        late = began - timedelta(hours=1, seconds=-10)
        self.assertEqual(scheduled, [late, began + seconds(10), began + seconds(70)])

    def test_catching_up_on_all(self) -> None:
        """
        P3, P6: where each missed time is made up for, they are run one after the other without a
        wait, and what is due besides has its turn before the next of them.
        """
        began = self.store.time
        every = Options(catch_up=CatchUp.ALL)
        self.store.insert("all", began - seconds(29.5), Every(seconds(1)), every)
        self.store.insert("overdue", began - seconds(10))
        self.store.insert("soon", began + seconds(1.25))
        self.start(slots=1, scan=60)
        for _ in range(32):
            self.assertEqual(len(self.endpoint.under_way), 1)
            self.endpoint.answer(self.endpoint.under_way[0])
            self.go(0.0625)
        posts = dict(zip(self.endpoint.paths, self.times(), strict=True))
        self.assertEqual(self.endpoint.paths[:3], ["all", "overdue", "all"])
        self.assertLess(posts["soon"] - self.times()[0], 1.25 + 2 * 0.0625)
        scheduled = [run.scheduled for run, _ in self.endpoint.posts if run.key.path == "all"]
        self.assertEqual(scheduled[:30], [began - seconds(29.5 - n) for n in range(30)])
        self.go(60)
        self.assertEqual(len(self.endpoint.posts), 33)

    def test_too_late(self) -> None:
        """A run that is too late is skipped and counted, and the next one is on time."""
        began = self.store.time
        options = Options(max_lateness=seconds(5))
        key = self.store.insert("a", began - seconds(30), Every(MINUTE), options)
        once = self.store.insert("once", began - seconds(30), options=options)
        self.start()
        self.assertEqual(self.endpoint.posts, [])
        self.go(RECORD_DELAY)
        self.assertIsNone(self.store.find(once))
        row = self.store.find(key)
        assert row is not None
        self.assertEqual((row.scheduled, row.skipped, row.successes), (began + seconds(30), 1, 0))
        self.assertEqual(len([line for line in self.logged(LogLevel.warn) if "skipped" in line]), 2)
        self.go(30)
        self.assertEqual(self.endpoint.paths, ["a"])

    def test_asked_for_during_a_run(self) -> None:
        """A run that had to wait is begun however long that was; it is late by what comes then."""
        options = Options(max_lateness=seconds(5))
        key = self.store.insert("a", schedule=Every(MINUTE), options=options)
        self.start(scan=60)
        for away in (0, 20):
            self.go(1)
            self.store.trigger(key)
            self.go(8)
            self.store.away = {"claim"} if away else set()
            self.endpoint.answer("a")
            self.go(away)
            self.store.away = set()
            self.go(2)
        self.assertEqual(len(self.endpoint.posts), 2)
        (skipped,) = [event for event in self.events if "skipped" in event["log_format"]]
        self.assertAlmostEqual(skipped["late"], 20, delta=2)

    def test_skip(self) -> None:
        """Where missed times are to be skipped a run may be a minute late, and no later."""
        began = self.store.time
        skip = Options(catch_up=CatchUp.SKIP)
        for late in (60, 60.5):
            hourly = Every(timedelta(hours=1))
            self.store.insert(f"late{late}", began - seconds(late), hourly, skip)
        self.start()
        self.assertEqual(self.endpoint.paths, ["late60"])
        self.go(RECORD_DELAY)
        row = self.store.find(JobKey("late60.5", "body"))
        assert row is not None
        self.assertEqual(row.due, began + timedelta(hours=1) - seconds(60.5))

    def test_enabled_again(self) -> None:
        """P9: a job that is enabled after an hour follows its rule, and never loops."""
        for rule, expected in (
            (CatchUp.ONE, [30, 3630, 3690]),  # the one run that stands for all, late
            (CatchUp.SKIP, [3570, 3630, 3690]),  # none that is more than a minute late
            (CatchUp.ALL, [30 + 60 * n for n in range(62)]),
        ):
            began = self.store.time
            options = Options(catch_up=rule)
            key = self.store.insert(rule, began + seconds(30), Every(MINUTE), options)
            posted = len(self.endpoint.posts)
            self.start(scan=60)
            self.go(10)
            self.store.disable(key)
            self.go(3590)
            self.assertEqual(len(self.endpoint.posts), posted)
            self.store.enable(key)
            self.scheduler.expect(began + seconds(30))
            for _ in range(1000):
                if self.endpoint.under_way:
                    self.endpoint.answer(rule)
                self.go(0.1)
            scheduled = [run.scheduled for run, _ in self.endpoint.posts[posted:]]
            self.assertEqual(scheduled, [began + seconds(after) for after in expected], rule)
            self.scheduler.stop_claiming()
            self.store.rows.clear()

    def test_a_run_that_has_begun_is_not_too_late(self) -> None:
        """P2: what was POSTed once is tried until it is done, however late that is."""
        self.store.insert("a", schedule=Every(MINUTE), options=Options(max_lateness=seconds(5)))
        self.start()
        self.go(8)
        self.endpoint.answer("a", 500)
        self.go(1)
        self.assertEqual([run.attempt for run, _ in self.endpoint.posts], [1, 2])


class ElsewhereTests(SchedulerTestCase):
    """Runs whose endpoint this instance has not (P11)."""

    BILLING = Options(endpoint="billing")

    def warnings(self) -> list[str]:
        return [line for line in self.logged(LogLevel.warn) if "is not in the config" in line]

    def test_not_posted_and_not_lost(self) -> None:
        """P2, P6: it is claimed now and then, and its attempts and failures are as they were."""
        here, at = self.store.time, seconds(0)
        self.store.insert("a", options=self.BILLING)
        self.start()
        (row,) = self.store.rows.values()
        for pause in (1, 1, 2, 4, 8, 16, 30, 30):
            at += seconds(pause)
            self.go(0.25)
            self.assertEqual(row.due, here + at)
            self.assertEqual((row.token, row.attempts, row.error, row.standing), (None, 0, None, 0))
            self.go(pause - 0.25)
        self.assertEqual(self.endpoint.posts, [])

    def test_it_comes_back(self) -> None:
        """P2: with the endpoint, the same run begins, as its first attempt."""
        self.store.insert("a", options=self.BILLING)
        self.start()
        self.go(40)
        self.drain(1)
        (row,) = self.store.rows.values()
        run = row.run
        assert run is not None
        self.start(timeouts={"billing": 5.0})
        self.go(30)
        self.assertEqual(self.endpoint.paths, ["a"])
        ((posted, _),) = self.endpoint.posts
        self.assertEqual((posted.attempt, posted.timeout), (1, 5.0))
        self.assertEqual(posted.id, f"{run.decode()}-1")

    def test_no_poison(self) -> None:
        """P6: due rows of an endpoint that is not there hold up nobody, not even with one slot."""
        for number in range(50):
            self.store.insert(f"job{number}", self.store.time - seconds(60), options=self.BILLING)
        self.store.insert("a")
        self.start(slots=1)
        self.go(1)
        self.assertEqual(self.endpoint.paths, ["a"])

    def test_one_line_for_each_endpoint(self) -> None:
        for number in range(5):
            self.store.insert(f"a{number}", options=self.BILLING)
            self.store.insert(f"b{number}", options=Options(endpoint="mail"))
        self.start()
        self.go(QUIET - 60)
        self.assertEqual(len(self.warnings()), 2)
        self.go(120)
        self.assertEqual(len(self.warnings()), 4)

    def test_many_names(self) -> None:
        """P10: no more names are remembered than there can be lines for."""
        elsewhere = Elsewhere(self.clock, {"default"}, lambda: None)
        for number in range(3 * NAMES):
            elsewhere.end(RUN._replace(options=Options(endpoint=f"e{number}")))
            self.assertLessEqual(len(elsewhere._told), NAMES)

    def test_too_late(self) -> None:
        """A run that is too late is skipped wherever its endpoint is."""
        options = Options(endpoint="billing", max_lateness=seconds(20))
        self.store.insert("a", schedule=Every(MINUTE), options=options)
        self.start()
        self.go(40)
        (row,) = self.store.rows.values()
        self.assertEqual(row.skipped, 1)

    def test_while_it_runs(self) -> None:
        """P3: a run that is under way is not given back, or it could be POSTed once more."""
        key = self.store.insert("a")
        self.start()
        row = self.store.find(key)
        assert row is not None
        row.due, row.options = self.store.time, self.BILLING  # as by a clock that jumped ahead
        self.go(5)
        self.assertNotEqual(row.token, None)
        self.endpoint.answer("a")
        self.go(1)
        self.assertEqual(self.store.rows, {})

    def test_others_are_let_in_front(self) -> None:
        """The instance that found it quicker than the others leaves them the longest lead."""
        self.store.insert("a", options=self.BILLING)
        self.start()
        self.go(0.1)
        lead = self.scheduler._outlook.lead
        lead.others = 1
        self.assertEqual(lead.seconds, 0.032)

    def test_the_longest_time_out(self) -> None:
        """P2, P3: what goes by the leases of all runs goes by the longest."""
        pace = Pace(slots=1, timeout=10.0, scan=1.0, timeouts={"a": 5.0, "b": 60.0})
        self.assertEqual(pace.longest_timeout, 60.0)
        self.assertEqual(replace(pace, timeouts={}).longest_timeout, 10.0)
        self.start(timeouts={"slow": 60.0})
        self.assertEqual(self.scheduler._outages._lease, lease_of(60.0).total_seconds())


class LeadTests(SchedulerTestCase):
    """Whose claims come in vain, as another instance is faster."""

    def start_behind(self, *others: str) -> float:
        """
        Start where for 0.2 s another instance takes all jobs, which the scan has found still, and
        then two jobs are due that it does not take.

        :return: the time of the start.
        """
        for other in others:
            self.store.heard_of[other] = self.store.time
        for number in range(1, 61):
            self.store.insert(f"theirs{number}", self.store.time + seconds(number / 300))
        for after in (0.3, 0.4):
            self.store.insert("left", self.store.time + seconds(after), body=f"{after}")
        self.start()
        self.store.rows = {id: row for id, row in self.store.rows.items() if row.key.path == "left"}
        began = self.clock.seconds()
        self.go(0.25)
        return began

    def test_others_are_left_a_lead(self) -> None:
        """P10: one that is never the first claims now and then, not for each job."""
        self.start_behind("web2")
        self.assertLess(len(self.store.called("claim")), 15)

    def test_the_other_is_gone(self) -> None:
        """P5, P7: a job that nobody takes is late by the lead; the next one is on time."""
        began = self.start_behind("web2")
        self.go(0.25)
        late = [at - began - due for at, due in zip(self.times(), (0.3, 0.4), strict=True)]
        self.assertLess(late[0], 0.034)
        self.assertGreater(late[0], 0.030)
        self.assertLess(abs(late[1]), 0.001)

    def test_alone(self) -> None:
        """P7: where no other is alive, jobs that were deleted make no other job late."""
        began = self.start_behind()
        self.go(0.25)
        for at, due in zip(self.times(), (0.3, 0.4), strict=True):
            self.assertLess(abs(at - began - due), 0.001)

    def test_the_others_have_left(self) -> None:
        """P7: a heartbeat that finds no other ends the lead."""
        self.start_behind("web2")
        self.go(1)
        del self.store.heard_of["web2"]
        self.go(10)
        began = self.clock.seconds()
        for after in (0.1, 0.3):
            self.store.insert(f"after{after}", self.store.time + seconds(after))
            self.scheduler.expect(self.store.time + seconds(after))
        self.store.rows = {id: r for id, r in self.store.rows.items() if r.key.path == "after0.3"}
        self.go(1)
        self.assertLess(abs(self.times()[-1] - began - 0.3), 0.0005)


class BurstTests(SchedulerTestCase):
    """More jobs that are due at one instant than there are slots: eight."""

    def burst(self, *others: str, path: str = "job{}") -> list[object]:
        """24 jobs are due; how many rows each claim asks for that finds some."""
        for other in others:
            self.store.heard_of[other] = self.store.time
        due = self.store.time + seconds(0.5)
        for number in range(24):
            self.store.insert(path.format(number), due, body=f"{number:02}")
        self.start(slots=8)
        claims = len(self.store.called("claim"))
        self.go(0.5)
        return [call.argument for call in self.store.called("claim")[claims:]]

    def test_alone(self) -> None:
        """P6, P7: one claim takes them all, and they start in due order as slots become free."""
        self.assertEqual(self.burst(), [24])
        self.assertEqual(self.scheduler.running, 8)
        self.store.hold("claim")
        for number in range(24):
            self.endpoint.answer(f"job{number}")
        self.assertEqual(self.endpoint.paths, [f"job{number}" for number in range(24)])

    def test_slots_that_unwritten_ends_occupied(self) -> None:
        """P7, P10: waiting runs start when the ends are written, though no POST ends meanwhile."""
        self.patch(recorder, "RECORD_LIMIT", 2)
        self.burst()
        self.store.hold("record")
        while self.endpoint.under_way:
            self.endpoint.answer(self.endpoint.under_way[0])
        self.assertEqual(len(self.endpoint.posts), 10)
        self.go(RECORD_DELAY)
        self.store.release("record")
        self.go(0)
        self.assertGreater(len(self.endpoint.posts), 10)

    def test_shared(self) -> None:
        """
        P6, P7: with others alive a claim takes a part; ahead of free slots only if all instances
        have too few slots.
        """
        self.assertEqual(self.burst("web2"), [12])
        self.setUp()
        self.assertEqual(self.burst("web2", "web3"), [8])

    def next_claims(self, path: str, given_back: int) -> list[object]:
        """
        How many rows the claims of a second burst ask for. Of a first burst to this path, so many
        runs were given back, as their slots came too late.
        """
        self.burst(path=path)
        self.go(SLOT_PATIENCE + RECORD_DELAY)
        waiting = [row for row in self.store.rows.values() if row.token is None]
        self.assertEqual(len(waiting), given_back)
        while self.endpoint.under_way:
            self.endpoint.answer(self.endpoint.under_way[0])
            self.go(0.001)
        self.go(1)
        due = self.store.time + seconds(0.5)
        for number in range(24):
            self.store.insert(f"again{number}", due)
            self.scheduler.expect(due)
        claims = len(self.store.called("claim"))
        self.go(0.6)
        return [call.argument for call in self.store.called("claim")[claims:]]

    def test_given_back(self) -> None:
        """P5, P10: runs that find no slot are given back, and the next burst is not claimed so."""
        self.assertEqual(self.next_claims("job{}", given_back=16), [8])

    def test_of_a_path_that_hangs(self) -> None:
        """P5, P10: the same where a path's share of the slots comes too slowly."""
        self.assertEqual(self.next_claims("hangs", given_back=17), [8])


class AheadTests(SchedulerTestCase):
    """
    Where runs end while a claim is made, the next claim takes as many more, or twice as many where
    none is left, so that no slot waits for the database.
    """

    def claim_ahead(self, jobs: int = 20, scan: float = 1.0) -> None:
        """Four slots are taken by POSTs, and all runs more that a claim takes ahead are claimed."""
        for number in range(jobs):
            self.store.insert(f"job{number:02}")
        self.start(slots=4, scan=scan)
        self.store.hold("claim")
        for number in range(4):
            self.endpoint.answer(f"job{number:02}")
            self.go(0)
        self.store.release("claim")
        self.go(0)
        self.assertEqual(self.endpoint.under_way, [f"job{number:02}" for number in range(4, 8)])

    def test_as_many_more(self) -> None:
        """
        P6: what waits for a slot starts at once when there is one, in due order. Three runs ended
        during the second claim, and none was left: the third takes six more than the free slots.
        """
        self.claim_ahead()
        limits = [call.argument for call in self.store.called("claim")]
        self.assertEqual(limits, [4, 1, 3 + 6])
        self.store.hold("claim")
        for number in (4, 5, 6):
            self.endpoint.answer(f"job{number:02}")
        self.assertEqual(self.endpoint.paths[4:], [f"job{number:02}" for number in range(4, 11)])
        self.assertEqual(self.scheduler.running, 4)

    def test_given_back(self) -> None:
        """P5: what waits for a slot in vain is given back, as if it had not been claimed."""
        self.claim_ahead()
        claims = len(self.store.called("claim"))
        self.go(SLOT_PATIENCE + RECORD_DELAY)
        rows = [row for row in self.store.rows.values() if row.token is None]
        self.assertEqual(len(rows), 12)
        self.assertEqual({(row.attempts, row.started) for row in rows}, {(0, None)})
        self.assertEqual({row.due for row in rows}, {row.scheduled for row in rows})
        self.go(1)
        self.assertEqual(len(self.store.called("claim")), claims)
        self.endpoint.answer("job04")
        self.go(0)
        self.assertEqual(self.endpoint.posts[-1][0].attempt, 1)
        self.assertEqual(self.endpoint.under_way[-1], "job08")

    def test_taken_again(self) -> None:
        """P7: what was given back starts as soon as there is a slot, not at the next scan."""
        self.claim_ahead(jobs=10, scan=60)
        self.go(SLOT_PATIENCE + RECORD_DELAY)
        self.assertEqual(len([row for row in self.store.rows.values() if row.token is None]), 2)
        self.endpoint.answer("job04")
        self.go(0)
        self.assertEqual(self.endpoint.under_way[-1], "job08")

    def test_at_a_stop(self) -> None:
        """P5: a stop gives it back at once, and does not wait for it."""
        self.claim_ahead()
        drained = self.drain(5)
        for number in range(4, 8):
            self.endpoint.answer(f"job{number:02}")
        self.go(RECORD_DELAY)
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual(len(self.endpoint.posts), 8)
        self.assertEqual({row.token for row in self.store.rows.values()}, {None})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_a_stop_during_a_claim(self) -> None:
        """P5: what that claim took is given back as soon as it is there; nothing of it starts."""
        for number in range(20):
            self.store.insert(f"job{number:02}")
        self.start(slots=4)
        self.store.hold("claim")
        for number in range(4):
            self.endpoint.answer(f"job{number:02}")
            self.go(0)
        self.store.release("claim")
        self.store.hold("claim")
        self.go(0)
        drained = self.drain(5)
        self.store.release("claim")
        for path in self.endpoint.under_way:
            self.endpoint.answer(path)
        self.go(RECORD_DELAY)
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual(len(self.endpoint.posts), 5)
        self.assertEqual({row.token for row in self.store.rows.values()}, {None})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def claim_too_far_ahead(self) -> None:
        """Of eight slots six end during one claim, and two during the next, which took six more."""
        for number in range(40):
            self.store.insert(f"job{number:02}")
        self.start(slots=8)
        for ends in (7, 2):
            self.store.hold("claim")
            for path in self.endpoint.under_way[:ends]:
                self.endpoint.answer(path)
                self.go(0)
            self.store.release("claim")
            if ends == 7:
                self.store.hold("claim")
            self.go(0)

    def test_a_claim_is_worth_some_rows(self) -> None:
        """
        P10: while claims go ahead, one asks for more than half of what it goes ahead: of four, as
        two runs ended during the last claim and none was left.
        """
        self.claim_too_far_ahead()
        limits = [call.argument for call in self.store.called("claim")]
        self.assertEqual(limits, [8, 1, 12])
        for path in self.endpoint.under_way[:4]:
            self.endpoint.answer(path)
            self.go(0)
        limits = [call.argument for call in self.store.called("claim")]
        self.assertEqual(limits, [8, 1, 12, 3])

    def test_none_ahead_of_payloads(self) -> None:
        """
        P10: while a run waits with a payload as large as all may have that wait, no claim goes
        ahead. As soon as the run has started, one does.
        """
        self.deliver(Delivery(Payload(bytes(HELD))))
        self.claim_too_far_ahead()
        for ends, limits in ((3, [8, 1, 12]), (1, [8, 1, 12, 4])):
            for path in self.endpoint.under_way[:ends]:
                self.endpoint.answer(path)
                self.go(0)
            found = [call.argument for call in self.store.called("claim")]
            self.assertEqual(found, limits)

    def test_none_ahead_once_it_was_in_vain(self) -> None:
        """P10: what was given back, as no slot came, is not claimed again before one does."""
        self.claim_too_far_ahead()
        self.go(3 * SLOT_PATIENCE)
        self.assertEqual(len(self.store.called("claim")), 3)
        self.assertEqual(self.scheduler.running, 8)

    def test_too_late(self) -> None:
        """P3: what has waited for too long when it gets its slot is not POSTed."""
        self.patch(waiting, "SLOT_PATIENCE", 100.0)
        self.claim_ahead()
        self.go(LEASE_MARGIN + 0.5)
        self.endpoint.answer("job04")
        self.assertEqual(len(self.endpoint.posts), 8)
        self.assertTrue(any("not started" in line for line in self.logged(LogLevel.warn)))


class ShareTests(SchedulerTestCase):
    """A path that hangs holds its share of the slots, and the others go on."""

    def insert(self, path: str, count: int) -> None:
        """So many jobs of a path, due one after the other, and before all that come later."""
        first = self.store.time - seconds(60)
        for number in range(count):
            due = first + seconds(number / 1000)
            self.store.insert(path, due, body=str(number))

    def start_others(self, count: int = 10) -> None:
        """Others are due behind them, each of a path of its own."""
        for number in range(count):
            self.store.insert(f"job{number}")

    def given_back(self, path: str) -> int:
        """How many rows of a path are due, as if they had never been claimed."""
        rows = [row for row in self.store.rows.values() if row.key.path == path]
        return len([row for row in rows if (row.token, row.attempts) == (None, 0)])

    def test_a_path_that_hangs(self) -> None:
        """P6, P7: it has four fifths of the slots, and others start before the patience is over."""
        self.insert("dead", 300)
        self.start_others(50)
        self.start(slots=100, scan=60)
        self.go(SHARE_PATIENCE)
        self.assertEqual(self.endpoint.under_way.count("dead"), 80)
        self.assertEqual(len(self.endpoint.under_way), 100)
        for number in range(20):
            self.endpoint.answer(f"job{number}")
            self.go(0.01)
        self.assertEqual(set(self.endpoint.paths), {"dead", *(f"job{n}" for n in range(40))})
        self.assertEqual(self.endpoint.under_way.count("dead"), 80)

    def test_two_that_hang(self) -> None:
        """P6: so it is behind two of them, the second of which is due behind the first."""
        self.insert("dead", 300)
        self.insert("dying", 300)
        self.start_others(11)
        self.start(slots=100, scan=60)
        for _ in range(40):
            self.go(1)
            for path in ("dead", "dying"):
                while path in self.endpoint.under_way:
                    self.endpoint.answer(path, 500)
        self.assertEqual(len([path for path in self.endpoint.paths if "job" in path]), 11)
        self.assertGreater(self.endpoint.paths.count("dying"), 300)

    def test_a_path_that_flows(self) -> None:
        """P6: its jobs run in due order, none is given back, and none of its slots stays empty."""
        self.insert("only", 200)
        self.start(slots=10, scan=60)
        for _ in range(192):
            self.assertEqual(self.endpoint.under_way, ["only"] * 8)
            self.endpoint.answer("only")
            self.go(0.01)
        bodies = [run.key.body for run, _ in self.endpoint.posts]
        self.assertEqual(bodies, [str(number) for number in range(200)])
        self.assertEqual({run.attempt for run, _ in self.endpoint.posts}, {1})
        self.assertEqual({call.without for call in self.store.called("claim")}, {frozenset()})
        ends = [end for call in self.store.called("record") for end in call.argument]
        self.assertNotIn(GiveBack(), [end.verdict for end in ends])

    def test_in_due_order(self) -> None:
        """P6: of those that wait for a share, the oldest that may is the next."""
        for number in range(20):
            for path, later in (("a", 0), ("b", 0.5)):
                due = self.store.time - seconds(30 - number - later)
                self.store.insert(path, due, body=str(number))
        self.start(slots=20, scan=60)
        self.assertEqual(sorted(self.endpoint.under_way), ["a"] * 9 + ["b"] * 9)
        for path in ("a", "b"):
            self.endpoint.answer("b")
            self.assertEqual(self.endpoint.posts[-1][0].key, JobKey(path, "9"))
        while self.endpoint.under_way:
            self.endpoint.answer(self.endpoint.under_way[0])
            self.go(0.01)
        bodies: dict[str, list[str]] = {"a": [], "b": []}
        for run, _ in self.endpoint.posts:
            bodies[run.key.path].append(run.key.body)
        self.assertEqual(bodies, {path: [str(n) for n in range(20)] for path in ("a", "b")})

    def test_given_back(self) -> None:
        """
        P5, P10: what waits for a share in vain is given back, and claimed again, at once, when as
        many runs of its path have ended; no more of it is claimed meanwhile.
        """
        self.insert("dead", 300)
        self.start(slots=100, scan=60)
        self.go(SLOT_PATIENCE + RECORD_DELAY)
        self.assertEqual(self.given_back("dead"), 220)
        claims = len(self.store.called("claim"))
        for _ in range(19):
            self.endpoint.answer("dead")
            self.go(0.125)
        self.assertEqual(self.endpoint.under_way.count("dead"), 61)
        self.assertEqual(self.given_back("dead"), 220)
        self.assertLess(len(self.store.called("claim")), claims + 2)
        self.endpoint.answer("dead")
        self.go(0)
        self.assertEqual(self.endpoint.under_way.count("dead"), 80)
        self.assertEqual(self.endpoint.posts[-1][0].attempt, 1)

    def test_others_leave_room(self) -> None:
        """
        P7: what waits for a share starts when others' runs end and leave it slots, long before one
        of its own does; and no claim is in vain at each of those ends.
        """
        self.start_others(50)
        self.clock.advance(1)
        for number in range(300):
            self.store.insert("dead", body=str(number))
        self.start(slots=100, scan=60)
        self.go(SLOT_PATIENCE + RECORD_DELAY)
        self.assertEqual(self.endpoint.under_way.count("dead"), 40)
        for number in range(50):
            self.endpoint.answer(f"job{number}")
            self.go(0.125)
        self.assertGreater(self.endpoint.under_way.count("dead"), 75)
        of_it = [call for call in self.store.called("claim") if "dead" not in call.without]
        self.assertLess(len(of_it), 6)

    def test_it_comes_back(self) -> None:
        """P5: a path that hung and is well again drains, with nothing left behind."""
        self.insert("dead", 300)
        self.start(slots=100, scan=60)
        self.go(TIMEOUT)
        while self.endpoint.under_way:
            self.endpoint.answer("dead")
            self.go(0.01)
        self.go(RECORD_DELAY)
        self.assertEqual(len(self.endpoint.posts), 300)
        self.assertEqual(self.store.rows, {})

    def test_on_time_behind_a_backlog(self) -> None:
        """P7: more due rows of it than a scan lists don't hide when others are due."""
        self.insert("dead", SCAN_LIMIT + 200)
        self.start()
        began = self.clock.seconds()
        self.go(SHARE_PATIENCE)
        self.store.insert("theirs", self.store.time + seconds(1.375))
        mine = self.store.time + seconds(0.25)
        self.store.insert("mine", mine)
        self.scheduler.expect(mine)
        self.go(2)
        times = {run.key.path: at - began - SHARE_PATIENCE for run, at in self.endpoint.posts}
        self.assertLess(abs(times["mine"] - 0.25), 0.001)
        self.assertLess(abs(times["theirs"] - 1.375), 0.001)

    def test_on_time_when_it_is_back(self) -> None:
        """P7: what a scan left out is looked for as soon as its path has no backlog any more."""
        self.insert("dead", 12)
        self.start(slots=10, scan=2.0)
        self.go(1)
        self.store.insert("dead", self.store.time + seconds(1.375), body="later")
        self.go(1)
        self.assertEqual(self.store.called("due_within")[-1].without, {"dead"})
        for _ in range(12):
            self.endpoint.answer("dead")
            self.go(0.001)
        self.go(1)
        self.assertEqual(len(self.endpoint.posts), 13)
        self.assertLess(abs(self.endpoint.posts[-1][1] - 1002.375), 0.001)

    def test_at_a_stop(self) -> None:
        """P5: a stop gives back at once what waits for a share."""
        self.insert("dead", 10)
        self.start(slots=10)
        drained = self.drain(5)
        for _ in range(8):
            self.endpoint.answer("dead")
        self.go(RECORD_DELAY)
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual(len(self.endpoint.posts), 8)
        self.assertEqual(self.given_back("dead"), 2)


class SignTests(SchedulerTestCase):
    """Heartbeats, which others count."""

    def test_now_and_again(self) -> None:
        """An instance is heard of at once and every ten seconds, however seldom it scans."""
        self.start(scan=3600.0)
        self.go(35)
        began = self.clock.seconds() - 35
        beats = [(call.argument, call.at - began) for call in self.store.called("announce")]
        self.assertEqual(beats, [("web1", 0), ("web1", 10), ("web1", 20), ("web1", 30)])

    def test_after_one_that_took_long(self) -> None:
        """The next is ten seconds after its answer, though nothing else wakes the scheduler."""
        self.store.hold("announce")
        self.start(scan=3600.0)
        self.go(2)
        self.store.release("announce")
        self.go(10)
        first, second = (call.at for call in self.store.called("announce"))
        self.assertEqual(second - first, 12)

    def test_not_heard(self) -> None:
        """P7: a heartbeat that nobody answers, or that fails, holds up no scan and no claim."""
        for trouble in ("held", "away"):
            if trouble == "held":
                self.store.hold("announce")
            else:
                self.store.away = {"announce"}
            self.start()
            self.go(2.125)
            self.store.insert("theirs")
            self.go(1)
            self.assertEqual(self.endpoint.under_way, ["theirs"], trouble)
            self.endpoint.answer("theirs")
            self.scheduler.stop_claiming()
            self.store._held.clear()

    def test_heard_again(self) -> None:
        """What failed is tried again after a pause."""
        self.store.away = {"announce"}
        self.start()
        self.store.away = set()
        self.go(AWAY_PAUSE)
        self.assertEqual(list(self.store.heard_of), ["web1"])

    def depart(self) -> Deferred[None]:
        """Stop, as `dalga.service` does, up to the departure."""
        self.scheduler.stop_claiming()
        return Deferred.fromCoroutine(self.scheduler.depart())

    def test_departure(self) -> None:
        """An instance that stops is counted no more."""
        self.start()
        self.assertEqual(list(self.store.heard_of), ["web1"])
        self.successResultOf(self.depart())
        self.assertEqual(list(self.store.heard_of), [])

    def test_departure_during_a_heartbeat(self) -> None:
        """The heartbeat, written later, would put it on the list again."""
        self.store.hold("announce")
        self.start()
        departed = self.depart()
        self.assertNoResult(departed)
        self.store.release("announce")
        self.successResultOf(departed)
        self.assertEqual(list(self.store.heard_of), [])

    def test_departure_unheard(self) -> None:
        """A stop waits for a database that says nothing for a second, for one that is away not."""
        for held in ("depart", "announce"):
            self.store.hold(held)
            self.start()
            departed = self.depart()
            self.go(DEPARTURE - 0.125)
            self.assertNoResult(departed)
            self.go(0.125)
            self.successResultOf(departed)
            self.store.release(held)
        self.store.away = {"due_within"}
        self.store.hold("depart")
        self.start()
        self.successResultOf(self.depart())

    def test_departure_with_statistics_unheard(self) -> None:
        """Both wait for the database, and at the same time."""
        for held in ("write_sums", "depart"):
            self.store.hold(held)
        key = self.store.insert("a")
        self.start()
        self.endpoint.answer(key.path)
        self.go(0.125)
        departed = self.depart()
        self.go(DEPARTURE - 0.125)
        self.assertNoResult(departed)
        self.go(0.125)
        self.successResultOf(departed)


class CleaningTests(SchedulerTestCase):
    """P10: Idempotency-Keys are not kept for ever."""

    def test_a_few_at_a_time(self) -> None:
        self.store.old_keys = 2 * CLEANED + 1
        self.start()
        self.go(CLEANING_INTERVAL - 1)
        self.assertEqual(self.store.called("forget_keys"), [])
        self.go(3)
        calls = self.store.called("forget_keys")
        self.assertEqual([call.argument for call in calls], [CLEANED] * 3)
        self.assertAlmostEqual(calls[1].at - calls[0].at, CLEANING_PAUSE)
        self.assertEqual(self.store.old_keys, 0)
        self.go(CLEANING_INTERVAL - 3)
        self.assertEqual(len(self.store.called("forget_keys")), 3)
        self.go(3)
        self.assertEqual(len(self.store.called("forget_keys")), 4)

    def test_behind_a_backlog(self) -> None:
        """P7: it waits while there are more due runs than slots, but not for ever."""
        self.start()
        self.go(CLEANING_INTERVAL - 5)
        for number in range(200):
            self.store.insert(f"job{number}")
        self.go(CLEANING_PATIENCE)
        self.assertEqual(self.store.called("forget_keys"), [])
        self.assertEqual(self.store.called("fold_sums"), [])  # see `test_statistics`
        self.go(10)
        self.assertEqual(len(self.store.called("forget_keys")), 1)

    def test_at_the_end_of_a_backlog(self) -> None:
        self.start()
        self.go(CLEANING_INTERVAL - 5)
        keys = [self.store.insert(f"job{number}") for number in range(20)]
        self.go(10)
        self.assertEqual(self.store.called("forget_keys"), [])
        for key in keys:
            self.store.delete(key)
        while self.endpoint.under_way:
            self.endpoint.answer(self.endpoint.under_way[0])
            self.go(0.125)
        self.go(3)
        self.assertEqual(len(self.store.called("forget_keys")), 1)


class RecordTests(SchedulerTestCase):
    """What becomes of outcomes."""

    def test_retry_after(self) -> None:
        """
        P8: the endpoint's Retry-After is honoured up to the longest backoff; a date in it is judged
        by the database's time.
        """
        self.store.set_by = timedelta(hours=1)
        self.store.insert("a")
        self.start(retry=RetryPolicy(jitter=0, max_interval=seconds(20)))
        at = self.store.time
        for retry_after, expected in (
            (seconds(5), 5),
            (seconds(86400), 20),
            (at + seconds(32.25), 7),  # of which 25.25 have gone by
            (at + seconds(86400), 20),
            (at, 0.5 * 1.5**4),  # has gone by: the backoff it is
        ):
            self.endpoint.answer("a", 503, retry_after)
            self.go(expected - 0.125)
            self.assertEqual(self.endpoint.under_way, [], retry_after)
            self.go(0.25)
            self.assertEqual(self.endpoint.under_way, ["a"], retry_after)

    def test_the_line_of_an_attempt(self) -> None:
        """What the endpoint said, or what went wrong, and after how long."""
        info, warn = LogLevel.info, LogLevel.warn
        for outcome, level, words, then in (
            (Outcome(200, 0.0125), info, "200 OK, after 0.013 s", "next run "),
            (
                Outcome(None, 10.007, "no answer within 10 s"),
                warn,
                "no answer within 10 s, after 10.007 s",
                "again at ",
            ),
            (
                Outcome(201, 0),
                warn,
                "201 Created, which is no success here: see success, after 0.000 s",
                "again at ",
            ),
            (
                Outcome(204, 0),
                info,
                "204 No Content, after 0.000 s",
                "job deleted: the endpoint does not know it",
            ),
            *(
                (
                    Outcome(500, 0, meaning=meaning),
                    level,
                    f"500 Internal Server Error, with Dalga-Verdict: {meaning}, after 0.000 s",
                    then,
                )
                for meaning, level, then in (
                    (Meaning.SUCCEED, info, "next run "),
                    (Meaning.FAIL, warn, "given up, next run "),
                    (Meaning.REMOVE, info, "job done"),
                    (Meaning.DISABLE, info, "job disabled by its endpoint"),
                )
            ),
        ):
            line = f"'a' 'body': {words}, attempt 1; {then}"
            self.store.insert("a", schedule=Every(MINUTE))
            self.start(scan=60)
            self.endpoint._take("a").callback(outcome)
            said = [(formatEvent(event), event["log_level"]) for event in self.events]
            found = [level for text, level in said if text.startswith(line)]
            self.assertEqual(found, [level], said)
            self.scheduler.stop_claiming()
            self.go(1)
            self.store.rows.clear()

    def test_a_method_is_said_where_it_is_not_post(self) -> None:
        """In the lines of an attempt's start and end."""
        log_from("debug")
        self.addCleanup(log_from, "info")
        for number, (method, said) in enumerate(
            ((Method.PUT, "PUT: "), (Method.HEAD, "HEAD: "), (Method.POST, ""))
        ):
            self.deliver(Delivery(Payload(b"x"), method=method))
            self.store.insert(f"p{number}")
            if number == 0:
                self.start(scan=1)
            self.go(1)
            self.endpoint.answer(f"p{number}")
            lines = [formatEvent(event) for event in self.events]
            end = f"'p{number}' 'body': {said}200 OK, after 0.000 s, attempt 1; job done"
            self.assertIn(end, lines)
            start = f"'p{number}' 'body': {said}run "
            [line] = [line for line in lines if line.startswith(start)]
            self.assertTrue(line.endswith(", attempt 1 starts"), line)

    def test_an_end_that_waits_has_no_payload(self) -> None:
        """P10: a database that is away for long holds up ends, not what the requests had."""
        self.deliver(Delivery(Payload(bytes(65536)), headers=(("X", "y"),)))
        self.store.insert("a")
        self.start()
        [(run, _)] = self.endpoint.posts
        self.assertEqual(len(run.payload), 65536)
        self.endpoint.answer("a")
        [end] = self.scheduler._recorder._waiting
        self.assertEqual((end.run.payload, end.run.delivery), (b"", run.delivery.in_brief()))
        self.assertEqual(end.run._replace(payload=run.payload, delivery=run.delivery), run)
        self.go(1)
        self.assertEqual(self.store.rows, {})

    def test_given_up(self) -> None:
        """
        A run that has been tried for long enough is given up: a periodic job goes on with the next,
        or stops, as does a one-off, and shows it; a trigger tries the same run again.
        """
        stop = Options(on_failure=OnFailure.STOP)
        self.store.insert("each", schedule=Every(MINUTE))
        self.store.insert("stops", schedule=Every(MINUTE), options=stop)
        self.store.insert("once")
        self.start(retry=RetryPolicy(jitter=0, stop_after=seconds(2)))
        for _ in range(20):
            for path in self.endpoint.under_way:
                self.endpoint.answer(path, 500)
            self.go(0.25)
        rows = {row.key.path: row for row in self.store.rows.values()}
        began = rows["once"].scheduled
        self.assertEqual(
            {path: (row.standing, row.due, row.error) for path, row in rows.items()},
            {
                "each": (Standing.FAILED, began + MINUTE, "500 Internal Server Error"),
                "stops": (Standing.STOPPED, None, "500 Internal Server Error"),
                "once": (Standing.STOPPED, None, "500 Internal Server Error"),
            },
        )
        first = self.endpoint.posts[0][0]
        attempts = [run.attempt for run, _ in self.endpoint.posts if run.key == first.key]
        self.assertEqual(attempts, [1, 2, 3])
        given_up = len(self.endpoint.posts)
        self.go(30)
        self.assertEqual(len(self.endpoint.posts), given_up)
        self.store.trigger(rows["once"].key)
        self.scheduler.expect(self.store.time)
        self.go(0)
        again = self.endpoint.posts[-1][0]
        self.assertEqual((again.scheduled, again.attempt), (began, 4))
        self.assertIn(again.id, [run.id for run, _ in self.endpoint.posts[:given_up]])
        self.endpoint.answer("once")
        self.go(RECORD_DELAY)
        self.assertNotIn("once", [row.key.path for row in self.store.rows.values()])

    def test_disabled_meanwhile(self) -> None:
        """P4: a job that was disabled during its run stays disabled, whatever the run's end."""
        for number, status in enumerate((200, 500)):
            key = self.store.insert(f"job{number}", schedule=Every(MINUTE))
            self.start()
            self.store.disable(key)
            self.endpoint.answer(key.path, status)
            self.go(120)
            row = self.store.find(key)
            assert row is not None
            self.assertEqual((row.disabled, row.due), (True, None))
            self.scheduler.stop_claiming()
        self.assertEqual(self.endpoint.paths, ["job0", "job1"])

    def test_done(self) -> None:
        """P2: what was done is recorded: a one-off is gone, a periodic job has its next time."""
        once = self.store.insert("once")
        each = self.store.insert("each", schedule=Every(MINUTE))
        self.start()
        began = self.store.time
        self.endpoint.answer("once")
        self.endpoint.answer("each")
        self.go(RECORD_DELAY)
        self.assertIsNone(self.store.find(once))
        row = self.store.find(each)
        assert row is not None
        self.assertEqual((row.due, row.token), (began + MINUTE, None))

    def test_an_outcome_that_cannot_be_written(self) -> None:
        """P2, P5: outcomes are kept and tried again after a pause, in order, none dropped."""
        self.patch(recorder, "RECORD_LIMIT", 2)
        keys = [self.store.insert(f"job{number}") for number in range(4)]
        self.start()
        self.store.away = {"record"}
        for key in keys:
            self.endpoint.answer(key.path)
            self.go(0.75)
        self.go(5)
        attempts = [call.at for call in self.store.called("record")]
        for earlier, later in pairwise(attempts):
            self.assertGreaterEqual(later - earlier, AWAY_PAUSE)
        self.store.away = set()
        self.go(AWAY_PAUSE)
        self.assertEqual(self.recorded()[-2:], [["job0", "job1"], ["job2", "job3"]])
        self.assertEqual(self.store.rows, {})
        self.assertEqual(self.endpoint.paths, [key.path for key in keys])

    def test_no_claims_before_what_is_known_is_written(self) -> None:
        """P2: after an outage longer than the leases, outcomes go first: no run is repeated."""
        keys = [self.store.insert(f"job{number}") for number in range(3)]
        self.start()
        self.store.away = {"record"}
        for key in keys:
            self.endpoint.answer(key.path)
        self.go(TIMEOUT + LEASE_MARGIN + 5)
        self.store.away = set()
        self.go(3)
        self.assertEqual(self.store.rows, {})
        self.assertEqual(self.endpoint.paths, [key.path for key in keys])

    def test_others_outcomes_go_first(self) -> None:
        """P2: after an outage longer than the leases, what others know is written first."""
        keys = [self.store.insert(f"job{number}") for number in range(3)]
        self.start()
        idle = FakeEndpoint(self.clock.seconds)
        other = Scheduler(
            self.clock,
            self.store,
            idle,
            Pace(slots=10, timeout=TIMEOUT, scan=1.0),
            RunPolicy(RetryPolicy(jitter=0.0)),
            Random(20141111),
            "web2",
            metrics=Metrics(),
        )
        self.go(0.5)
        other.start()
        self.go(0.2)
        self.store.away = {"record", "claim", "due_within", "announce"}
        for key in keys:
            self.endpoint.answer(key.path)
        self.go(3 * (TIMEOUT + LEASE_MARGIN) + 0.3)
        self.assertEqual(len(self.store.rows), 3)
        self.store.away = set()
        self.go(AWAY_PAUSE + OTHERS_FIRST)
        self.assertEqual((self.store.rows, self.endpoint.paths), ({}, [key.path for key in keys]))
        self.assertEqual(idle.paths, [])
        new = self.store.insert("new")
        self.go(1)
        self.assertEqual(sorted(self.endpoint.paths[3:] + idle.paths), [new.path])
        other.stop_claiming()

    def test_claims_that_fail_alone(self) -> None:
        """P5: where only claims fail, however long, they are tried again all the same."""
        self.store.insert("a", schedule=Every(seconds(1)))
        self.store.away = {"claim"}
        self.start()
        self.go(2 * (TIMEOUT + LEASE_MARGIN))
        self.store.away = set()
        self.go(AWAY_PAUSE + OTHERS_FIRST)
        self.assertEqual(self.endpoint.paths, ["a"])

    def test_claims_in_a_long_outage(self) -> None:
        """P2: another query than a claim is to find that the database is back."""
        self.start()
        self.store.away = {"record", "claim", "due_within", "announce"}
        self.store.insert("a")
        self.scheduler.expect(self.store.clock.now())
        self.go(2 * (TIMEOUT + LEASE_MARGIN))
        before = len(self.store.called("claim"))
        self.go(60)
        self.assertLessEqual(len(self.store.called("claim")) - before, 2)

    def test_after_a_claim_that_was_away_alone(self) -> None:
        """P7: the others could write all the while, so nothing is left for them to do first."""
        self.start()
        outages = self.scheduler._outages
        for _ in range(2):
            outages.failed(CLAIM, StoreUnavailable("away"))
            self.go(2 * (TIMEOUT + LEASE_MARGIN))
        outages.answered(CLAIM)
        self.assertLessEqual(outages.not_before(CLAIM), self.clock.seconds())

    def test_a_blip_beside_what_fails_for_long(self) -> None:
        """P7: claims don't wait for a scan that failed once while heartbeats fail for long."""
        self.store.away = {"announce"}
        self.start()
        self.go(2 * (TIMEOUT + LEASE_MARGIN))
        self.store.away = {"announce", "due_within"}
        self.go(1.5)
        self.store.away = {"announce"}
        self.go(AWAY_PAUSE)
        self.store.insert("a")
        self.scheduler.expect(self.store.clock.now())
        self.go(0.1)
        self.assertEqual(self.endpoint.paths, ["a"])

    def test_a_locked_row(self) -> None:
        """P2, P5: a verdict whose row is locked waits by itself, and the others are written."""
        keys = [self.store.insert(f"job{number}") for number in range(3)]
        self.start()
        self.store.locked = {1}
        for key in keys:
            self.endpoint.answer(key.path)
        self.go(2)
        self.assertEqual([row.key for row in self.store.rows.values()], keys[:1])
        self.assertLess(len(self.store.called("record")), 15)
        drained = self.drain(10)
        self.go(1)
        self.assertNoResult(drained)
        self.store.locked = set()
        self.go(1)
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual(self.store.rows, {})
        self.assertEqual(len(self.endpoint.posts), 3)

    def test_a_locked_row_beside_a_batch(self) -> None:
        """P2: an end whose row was locked waits for the batch that is being written."""
        for name in ("a", "b"):
            self.store.insert(name)
        self.start()
        self.store.locked = {1}
        self.endpoint.answer("a")
        self.go(RECORD_DELAY)
        self.store.locked = set()
        self.store.hold("record")
        self.endpoint.answer("b")
        self.go(1)
        self.assertEqual(self.recorded(), [["a"], ["b"]])
        self.store.release("record")
        self.go(RECORD_DELAY)
        self.assertEqual(self.recorded(), [["a"], ["b"], ["a"]])
        self.assertEqual(self.store.rows, {})

    def test_one_timer_for_the_next_batch(self) -> None:
        """P5: a batch that a locked row's timer began leaves the timer of the next as it is."""
        for name in ("a", "b", "c"):
            self.store.insert(name)
        self.start(scan=60)
        self.store.locked = {1}
        self.endpoint.answer("a")
        self.go(RECORD_DELAY + LOCKED_PAUSE - RECORD_DELAY / 2)
        self.store.locked = set()
        self.endpoint.answer("b")
        self.store.hold("record")
        self.go(RECORD_DELAY / 2)
        self.endpoint.answer("c")
        self.store.release("record")
        calls: Any = self.clock.getDelayedCalls()
        timers = [call.func for call in calls]
        self.assertEqual(timers.count(self.scheduler._recorder._now), 1)
        self.go(RECORD_DELAY / 2)
        self.assertEqual(self.recorded(), [["a"], ["b", "a"], ["c"]])

    def test_unwritten_outcomes_are_bounded(self) -> None:
        """P10: where records hang, claims stop; no more outcomes pile up than so many."""
        self.patch(recorder, "RECORD_LIMIT", 20)
        for number in range(200):
            self.store.insert(f"job{number}")
        self.start(slots=5)
        self.store.hold("record")
        for _ in range(200):
            for path in list(self.endpoint.under_way):
                self.endpoint.answer(path)
            self.go(0.02)
        self.assertLessEqual(len(self.endpoint.posts), 20 + 2 * 5)

    def test_logged_once(self) -> None:
        """An outage leaves one line when it begins and one when it ends, however long it is."""
        self.store.insert("a")
        self.start()
        self.store.away = {"record", "claim", "due_within"}
        self.endpoint.answer("a")
        self.go(60)
        self.assertEqual(len(self.logged(LogLevel.error)), 1)
        self.store.away = set()
        self.go(AWAY_PAUSE)
        self.assertEqual(self.logged(LogLevel.info).count("the database is back"), 1)

    def test_company(self) -> None:
        """Outcomes that come within a moment are written together, and none waits for longer."""
        for number in range(4):
            self.store.insert(f"job{number}")
        self.start()
        for number in range(4):
            self.assertEqual(len(self.recorded()), number // 2)
            self.endpoint.answer(f"job{number}")
            self.go(RECORD_DELAY / 2)
        self.assertEqual(self.recorded(), [["job0", "job1"], ["job2", "job3"]])

    def test_one_batch_at_a_time(self) -> None:
        """
        Outcomes that come while a record is under way, and in the moment after it, go together into
        the next one.
        """
        for number in range(5):
            self.store.insert(f"job{number}")
        self.start()
        self.store.hold("record")
        for number in range(4):
            self.endpoint.answer(f"job{number}")
            timers = len(self.clock.getDelayedCalls())
            self.assertEqual(timers, 1 if number else 2)  # no timer but the scheduler's is needed
            self.go(0.1)
        self.assertEqual(self.recorded(), [["job0"]])
        self.store.release("record")
        self.go(RECORD_DELAY / 2)
        self.endpoint.answer("job4")
        self.assertEqual(self.recorded(), [["job0"]])
        self.go(RECORD_DELAY / 2)
        self.assertEqual(self.recorded(), [["job0"], ["job1", "job2", "job3", "job4"]])

    def test_batches_are_bounded(self) -> None:
        """
        P10: no transaction takes more outcomes than the limit. A batch that is full follows on the
        one before at once; the rest follow a moment later.
        """
        count = RECORD_LIMIT + 11
        for number in range(count):
            self.store.insert(f"job{number}")
        self.start(slots=count)
        self.store.hold("record")
        self.endpoint.answer("job0")
        self.go(RECORD_DELAY)
        for number in range(1, count):
            self.endpoint.answer(f"job{number}")
        self.store.release("record")
        self.assertEqual([len(paths) for paths in self.recorded()], [1, RECORD_LIMIT])
        self.go(RECORD_DELAY)
        self.assertEqual([len(paths) for paths in self.recorded()], [1, RECORD_LIMIT, 10])

    def test_one_verdict_breaks(self) -> None:
        """P5: a verdict that the store chokes on is left to its lease; the others are written."""
        keys = [self.store.insert(name) for name in ("a", "bad", "b", "c")]
        self.start()
        self.store.poison = {2}
        self.store.hold("record")
        self.endpoint.answer("a")
        self.go(RECORD_DELAY)
        for name in ("bad", "b", "c"):
            self.endpoint.answer(name)
        self.store.release("record")
        self.go(RECORD_DELAY)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual([row.key for row in self.store.rows.values()], [keys[1]])
        self.store.poison = set()
        self.go(TIMEOUT + LEASE_MARGIN + 2)
        self.assertEqual([run.attempt for run, _ in self.endpoint.posts], [1, 1, 1, 1, 2])

    def test_away_in_the_middle(self) -> None:
        """
        P2: a batch that broke is written one by one; what was written before the database went away
        is not written again, and its next run is known.
        """
        for name in ("first", "a", "bad", "b", "c"):
            self.store.insert(name, schedule=Every(seconds(5)))
        self.start(scan=60)
        self.store.poison = {3}
        self.store.hold("record")
        self.endpoint.answer("first")
        self.go(RECORD_DELAY)
        for name in ("a", "bad", "b", "c"):
            self.endpoint.answer(name)
        self.store.gone_before = {4}
        self.store.release("record")
        self.go(RECORD_DELAY)
        batches = [["first"], ["a", "bad", "b", "c"], ["a"], ["bad"], ["b"]]
        self.assertEqual(self.recorded(), batches)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.go(AWAY_PAUSE)
        self.assertEqual(self.recorded(), [*batches, ["b", "c"]])
        self.assertEqual(self.logged(LogLevel.warn), [])
        self.go(4.5)
        self.assertEqual(self.endpoint.paths[5:], ["first", "a", "b", "c"])

    def test_a_mistake_is_logged_once(self) -> None:
        """A mistake that meets each run is in the log once, and by a line for each batch."""
        self.store.poison = {1, 2, 3}
        for name in ("a", "b", "c"):
            self.store.insert(name)
        self.start()
        for name in ("a", "b", "c"):
            self.endpoint.answer(name)
        self.go(RECORD_DELAY)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.go(TIMEOUT + LEASE_MARGIN + 1)
        for name in ("a", "b", "c"):
            self.endpoint.answer(name)
        self.go(RECORD_DELAY)
        self.assertEqual(self.flushLoggedErrors(RuntimeError), [])
        lines = [line for line in self.logged(LogLevel.error) if "can't be recorded" in line]
        self.assertEqual(len(lines), 2)

    def test_the_answer_is_lost(self) -> None:
        """P2: what was recorded without an answer has its next run, and is no lost lease."""
        self.store.insert("a", schedule=Every(seconds(5)))
        self.start(scan=60)
        self.store.answer_is_lost = True
        self.endpoint.answer("a")
        self.go(4.5)
        self.assertEqual(self.recorded(), [["a"], ["a"]])
        self.assertEqual(self.logged(LogLevel.warn), [])
        self.assertEqual(len([line for line in self.logged(LogLevel.info) if "already" in line]), 1)
        self.go(0.5)
        self.assertEqual(self.endpoint.paths, ["a", "a"])

    def test_lost_and_overridden(self) -> None:
        """P4: a lease that was lost, and a job that the user has changed, are two things."""
        first = self.store.insert("a", schedule=Every(MINUTE))
        self.store.insert("b", schedule=Every(MINUTE))
        self.start(scan=60)
        self.store.put(first, EACH_MINUTE)
        self.store.rows[2].token = b"another's"
        self.endpoint.answer("a")
        self.endpoint.answer("b")
        self.go(RECORD_DELAY)
        (lost,) = self.logged(LogLevel.warn)
        self.assertIn("its lease was over", lost)
        (changed,) = [line for line in self.logged(LogLevel.info) if "changes nothing" in line]
        self.assertIn("the job was changed during the run", changed)

    def test_other_options(self) -> None:
        """P4, P7: a run that is not to be the last any more is followed by another, on time."""
        once = replace(EACH_MINUTE, immediate=True, count=1)
        key = JobKey("a", "b")
        self.store.put(key, once)
        self.start(scan=3600)
        self.go(1)
        self.store.put(key, replace(once, count=2, if_exists=IfExists.UPDATE))
        self.endpoint.answer("a")
        self.go(RECORD_DELAY)
        self.assertEqual(
            len([line for line in self.logged(LogLevel.info) if "by those" in line]), 1
        )
        self.go(58)
        self.assertEqual(len(self.endpoint.posts), 1)
        self.go(1)
        first, second = self.times()
        self.assertLess(abs(second - first - 60), 0.001)
        self.endpoint.answer("a")
        self.go(1)
        self.assertEqual(self.store.rows, {})

    def test_dropped(self) -> None:
        """P4, P7: a job that was put during its run runs again as soon as that has ended."""
        key = self.store.insert("a", schedule=Every(MINUTE))
        self.start(scan=60)
        self.go(1)
        self.store.put(key, NOW)
        self.scheduler.expect(self.store.time)
        self.go(1)
        self.assertEqual(self.endpoint.paths, ["a"])
        self.endpoint.answer("a")
        self.go(0.05)
        self.assertEqual(self.endpoint.paths, ["a", "a"])

    def test_a_broken_attempt(self) -> None:
        """P5: an attempt that breaks in our own code is tried again, like any that failed."""
        self.store.insert("a")
        self.start()
        self.endpoint.break_off("a", ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.go(1)
        self.assertEqual([run.attempt for run, _ in self.endpoint.posts], [1, 2])

    def test_a_post_that_raises(self) -> None:
        """P5, P10: a POST that can't even be begun holds no slot, and the others start."""
        post = self.endpoint.post

        def broken(run: Run) -> Any:
            if run.key.path == "bad":
                raise ZeroDivisionError
            return post(run)

        self.endpoint.post = broken  # type: ignore[method-assign]
        self.store.insert("bad")
        self.store.insert("good")
        self.start()
        self.assertGreaterEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.scheduler.running, self.endpoint.paths), (1, ["good"]))


class DrainTests(SchedulerTestCase):
    """How it stops."""

    def test_no_more_claims(self) -> None:
        """Once stopped, nothing is claimed any more, whatever becomes due."""
        self.start()
        self.scheduler.stop_claiming()
        self.store.insert("a")
        self.scheduler.expect(self.store.time)
        self.go(100)
        self.assertEqual(self.endpoint.posts, [])
        self.assertEqual(len(self.store.called("claim")), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_store_that_is_closing(self) -> None:
        """What was still to be asked is refused then, which is no outage of the database."""
        self.store.hold("due_within")
        self.start()
        self.successResultOf(self.drain(10))
        ((answer, _),) = self.store._held["due_within"]
        answer.errback(StoreUnavailable("this instance is stopping"))
        self.assertEqual(self.logged(LogLevel.error), [])

    def test_idle(self) -> None:
        """Where nothing runs the drain is over at once."""
        self.start()
        self.assertEqual(self.successResultOf(self.drain(10)), 0)

    def test_running(self) -> None:
        """P2: the drain waits for what runs, and for its record."""
        self.store.insert("a")
        self.store.insert("b")
        self.start()
        self.store.hold("record")
        drained = self.drain(10)
        self.endpoint.answer("a")
        self.endpoint.answer("b", 500)
        self.go(1)
        self.assertNoResult(drained)
        self.store.release("record")
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unrecorded(self) -> None:
        """P2: it waits for outcomes that could not be written yet, too."""
        self.store.insert("a")
        self.start()
        self.store.away = {"record"}
        self.endpoint.answer("a")
        drained = self.drain(10)
        self.go(5)
        self.assertNoResult(drained)
        self.store.away = set()
        self.go(AWAY_PAUSE)
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual(self.store.rows, {})

    def test_grace(self) -> None:
        """It gives up after the grace, and says how many runs it leaves to their leases."""
        for name in ("a", "b", "c"):
            self.store.insert(name)
        self.start()
        self.store.away = {"record"}
        self.endpoint.answer("a")
        drained = self.drain(10)
        self.go(9.5)
        self.assertNoResult(drained)
        self.go(0.5)
        self.assertEqual(self.successResultOf(drained), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        calls = len(self.store.calls)
        self.endpoint.answer("b")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.go(5)
        self.assertEqual(len(self.store.calls), calls)

    def test_a_claim_under_way(self) -> None:
        """
        P5: the runs of a claim under way are given back, and no attempt is counted. A POST could
        wait for a resolver that the stop is not to wait for.
        """
        keys = [self.store.insert(name) for name in ("a", "b")]
        due = self.store.time
        self.store.hold("claim")
        self.start()
        drained = self.drain(10)
        self.store.hold("record")
        self.store.release("claim")
        self.go(RECORD_DELAY)
        self.assertNoResult(drained)  # it waits until that is recorded
        self.store.release("record")
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual(self.endpoint.posts, [])
        for key in keys:
            row = self.store.find(key)
            assert row is not None
            self.assertEqual((row.due, row.token, row.attempts), (due, None, 0))

    def test_a_claim_under_way_of_one_still_running(self) -> None:
        """P3, P8: while its first POST is under way, a run is not given back."""
        key = self.store.insert("a")
        self.start()
        self.store.set_by = timedelta(hours=1)
        self.store.hold("claim")
        self.go(5)
        self.store.hold("record")
        drained = self.drain(10)
        self.store.release("claim")
        self.go(RECORD_DELAY)
        self.assertEqual(self.recorded(), [])
        self.store.release("record")
        self.endpoint.answer("a")
        self.go(RECORD_DELAY)
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertIsNone(self.store.find(key))

    def test_a_claim_that_comes_after_the_grace(self) -> None:
        """P3: nothing is POSTed any more once the drain is over."""
        self.store.insert("a")
        self.store.hold("claim")
        self.start()
        drained = self.drain(5)
        self.go(5)
        self.successResultOf(drained)
        self.store.release("claim")
        self.assertEqual(self.endpoint.posts, [])

    def test_outcomes_that_wait_when_the_grace_is_over(self) -> None:
        """Once the drain is over, nothing more is written: what it left was counted."""
        for name in ("a", "b"):
            self.store.insert(name)
        self.start()
        self.store.hold("record")
        self.endpoint.answer("a")
        self.go(RECORD_DELAY)
        self.endpoint.answer("b")
        drained = self.drain(5)
        self.go(5)
        self.assertEqual(self.successResultOf(drained), 2)
        self.store.release("record")
        self.assertEqual(self.recorded(), [["a"]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_record_that_fails_when_the_grace_is_over(self) -> None:
        """It is not written again: no timer is left, where the database is away or a row locked."""
        for trouble in ("away", "locked"):
            self.store.insert("a")
            self.start()
            self.store.locked = set(self.store.rows) if trouble == "locked" else set()
            self.store.hold("record")
            self.endpoint.answer("a")
            drained = self.drain(5)
            self.go(5)
            self.assertEqual(self.successResultOf(drained), 1)
            ((answer, result),) = self.store._held.pop("record")
            if trouble == "away":
                answer.errback(StoreUnavailable("this instance is stopping"))
            else:
                self.assertEqual(len(result.postponed), 1)
                answer.callback(result)
            self.assertEqual(self.clock.getDelayedCalls(), [], trouble)
            self.store.rows.clear()

    def test_an_outcome_that_waits_for_company_when_the_grace_is_over(self) -> None:
        """The same for one whose record is not begun, and no timer is left."""
        self.store.insert("a")
        self.start()
        drained = self.drain(RECORD_DELAY / 2)
        self.endpoint.answer("a")
        self.go(RECORD_DELAY / 2)
        self.assertEqual(self.successResultOf(drained), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.recorded(), [])


class FakeStoreTests(EngineTestCase):
    """The fake store has the leases of the real one."""

    engine = "sqlite"

    async def test_same_answers(self) -> None:
        """P2, P3, P4, P5: both stores answer the same scenario in the same way."""
        clock = Clock()
        real = await scenario(self.open_store(), lambda: None)
        fake = await scenario(FakeStore(clock.seconds), lambda: clock.advance(0.001))
        self.assertEqual(fake, real)
        self.assertEqual(len(real), 764)


async def scenario(store: Store, tick: Callable[[], None]) -> list[object]:
    """
    Puts, claims and records in all their order, and what can be seen of them.

    :param tick: lets a little time go by, where it does not by itself.
    """
    seen: list[object] = []
    key = JobKey("check_feed", "1234")
    at = EPOCH - timedelta(days=1)

    async def claim(timeout: float) -> list[Run]:
        claimed = await store.claim(2, timeout)
        seen.append([(run.key, run.attempt, run.schedule) for run in claimed.runs])
        seen.append(claimed.full)
        return claimed.runs

    async def look() -> None:
        try:
            job = await store.get(key)
        except JobNotFound:
            seen.append("gone")
        else:
            assert isinstance(job, Job)
            waits = job.due is not None and job.due > store.clock.now()
            seen.append((job.schedule, job.attempts, job.running, job.error, waits))
            seen.append((job.successes, job.skipped, job.standing, job.disabled, job.due is None))
        page = await store.page(by_key(None, None, 1))
        seen.append(([job.key for job in page.jobs], page.last is None))
        counts = await store.counts()
        seen.append((counts.total, counts.pending, counts.running, counts.instances))

    # Oldest first, as many as asked for.
    for day, name in enumerate(("a", "b", "c")):
        first = at + timedelta(minutes=day)
        await store.put(JobKey(name, "x"), ScheduleRequest(first_run=first, one_off=True))
    seen.append((await store.due_within(MINUTE, 2)).times)
    a, b = await claim(LONG)
    (c,) = await claim(OVER)
    (again,) = await claim(LONG)
    seen.append(c.id == again.id)
    seen.append(shape(await store.record([ended(c, Delete())])))
    seen.append(
        shape(await store.record([ended(a, Delete()), ended(b, Delete()), ended(again, Delete())]))
    )
    # Each way a run can end, with what the user may have said meanwhile.
    for verdict in (Delete(), Retry(at, "500"), Reschedule(at, at)):
        await store.put(key, NOW)
        (run,) = await claim(LONG)
        seen.append(shape(await store.record([ended(run, verdict)])))
        await look()
    await store.put(key, NOW)
    (run,) = await claim(LONG)
    await store.put(key, EACH_MINUTE)
    await look()
    seen.append(shape(await store.record([ended(run, Delete())])))
    await look()
    await store.trigger(key)
    (run,) = await claim(LONG)
    await store.trigger(key)
    await claim(LONG)
    seen.append(shape(await store.record([ended(run, Delete())])))
    (run,) = await claim(LONG)
    await store.delete(key)
    await look()
    seen.append(shape(await store.record([ended(run, Retry(at, "500"))])))
    await look()
    # Said during a run whose instance died.
    await store.put(key, NOW)
    await store.claim(1, OVER)
    await store.put(key, EACH_MINUTE)
    await claim(LONG)
    await look()
    await store.delete(key)
    await look()
    # Each way a run can end, where the job is disabled before, during or after it.
    verdicts: list[Verdict] = [
        Retry(at, "500"),
        Reschedule(at, at),
        Reschedule(at, at, "given up"),
        Skip(at),
        GiveBack(),
        Stop("given up"),
        Disable(at, at, "x"),
    ]
    for end in verdicts:
        for during in (None, store.disable, store.enable):
            await store.put(key, NOW)
            (run,) = await claim(LONG)
            if during is not None:
                await store.disable(key)
                await during(key)
            await look()
            seen.append(shape(await store.record([ended(run, end)])))
            await look()
            others = await claim(LONG)
            seen.append([other.id == run.id for other in others])
            await store.record([ended(other, Retry(at, "500")) for other in others])
            await store.disable(key)
            await look()
            seen.append(await refused(store.trigger(key)))
            await store.enable(key)
            await look()
            tick()
            await store.trigger(key)
            (again,) = await claim(OVER)
            seen.append((again.id == run.id, again.attempt, again.scheduled == run.scheduled))
            await store.disable(key)
            await claim(LONG)
            await look()
    # Disabled during a run whose instance died, scheduled anew while it is disabled.
    await store.put(key, NOW)
    await claim(OVER)
    await store.disable(key)
    await claim(LONG)
    await look()
    await store.put(key, NOW)
    (run,) = await claim(LONG)
    await store.disable(key)
    await store.put(key, EACH_MINUTE)
    await look()
    await store.disable(key)
    seen.append(shape(await store.record([ended(run, Delete())])))
    await look()
    await store.delete(key)
    # Heartbeats.
    for instance in ("one", "One", "one"):
        seen.append(await store.announce(instance))
    await look()
    await store.depart("One")
    await store.depart("nobody")
    await look()
    return seen


def shape(recorded: Recorded) -> tuple[int, ...]:
    """How many runs are in each of its lists, which are others' runs in each store."""
    return tuple(len(getattr(recorded, field.name)) for field in fields(recorded))


async def refused(answer: Deferred[Job]) -> bool:
    """Whether a trigger is refused as the job is disabled."""
    try:
        await answer
    except JobDisabled:
        return True
    return False


class MetricsTests(SchedulerTestCase):
    """What dispatch shows of itself."""

    def value(self, name: str, *labels: str) -> object:
        return self.metrics.numbers()[name].get(labels)

    def test_slots(self) -> None:
        self.start(slots=2)
        for number in range(3):
            self.store.insert(f"job{number}")
        self.go(1)
        self.assertEqual(self.value("dalga_slots"), 2)
        self.assertEqual(self.value("dalga_slots_in_use"), 2)
        self.endpoint.answer("job0")
        self.go(0)
        self.assertEqual(self.value("dalga_unrecorded_outcomes"), 1)
        self.go(1)
        self.assertEqual(self.value("dalga_unrecorded_outcomes"), 0)

    def test_runs(self) -> None:
        """Runs and attempts are counted as their ends are recorded."""
        self.start()
        for number in range(2):
            self.store.insert(f"job{number}")
        self.go(1)
        self.endpoint.answer("job0")
        self.endpoint.answer("job1", 500)
        self.go(0)
        self.assertEqual(self.metrics.numbers()["dalga_runs_total"], {})
        self.go(0.1)
        self.assertEqual(self.value("dalga_runs_total", "default", "job0", "succeeded"), 1)
        self.assertEqual(len(self.metrics.numbers()["dalga_runs_total"]), 1)
        self.assertEqual(self.value("dalga_attempts_total", "default", "2xx", ""), 1)
        self.assertEqual(self.value("dalga_attempts_total", "default", "5xx", "status"), 1)

    def test_clock(self) -> None:
        """How far the database's clock is from the machine's."""
        self.start()
        self.assertEqual(self.value("dalga_clock_offset_seconds"), 0.0)
        self.store.set_by = timedelta(seconds=5)
        self.go(2)
        self.assertEqual(self.value("dalga_clock_offset_seconds"), 5.0)

    def test_claims(self) -> None:
        self.start()
        self.store.insert("job")
        self.go(2)
        self.assertEqual(self.value("dalga_claims_total", "taken"), 1)
        self.store.away = {"claim"}
        self.store.insert("another")
        self.go(2)
        self.assertIn(("failed",), self.metrics.numbers()["dalga_claims_total"])
        size = self.metrics.numbers()["dalga_claim_size"][()]
        assert isinstance(size, Counts)
        self.assertEqual(size.sum, 1)

    def test_lag(self) -> None:
        """It grows while nobody claims, and a claim ends it."""
        self.start()
        self.store.away = {"claim"}
        self.store.insert("job")
        self.go(5)
        self.assertEqual(self.value("dalga_lag_seconds"), 5.0)
        self.assertEqual(self.value("dalga_due_jobs"), 1)
        self.store.away = {"due_within", "claim"}
        self.go(5)
        self.assertEqual(self.value("dalga_lag_seconds"), 10.0)
        self.store.away = set()
        self.go(5)
        self.assertEqual(self.value("dalga_lag_seconds"), 0.0)
        self.assertEqual(self.value("dalga_due_jobs"), 0)

    def test_lag_behind_a_claim(self) -> None:
        """Where a claim has left some, the oldest of these is as late as the last that it took."""
        for number in range(30):
            self.store.insert(f"job{number}", self.store.time - seconds(60 - number))
        self.start(slots=1)
        lag = self.value("dalga_lag_seconds")
        assert isinstance(lag, float)
        self.assertTrue(30 < lag <= 60, lag)

    def test_what_is_to_come_is_no_lag(self) -> None:
        self.start()
        self.store.insert("job", self.store.time + seconds(1.9))
        self.go(1.5)
        self.assertEqual(self.value("dalga_lag_seconds"), 0.0)
        self.assertEqual(self.value("dalga_due_jobs"), 0)
        self.assertEqual(self.value("dalga_agenda_entries"), 1)

    def test_leases_lost(self) -> None:
        self.start()
        key = self.store.insert("job")
        self.go(1)
        row = self.store.find(key)
        assert row is not None
        row.token = b"of another claim"
        self.endpoint.answer("job")
        self.go(1)
        self.assertEqual(self.value("dalga_leases_lost_total"), 1)

    def test_takeovers(self) -> None:
        """Runs of an instance that died; a run that is tried again is none."""
        for number in range(2):
            key = self.store.insert(f"job{number}")
            row = self.store.find(key)
            assert row is not None
            row.token, row.attempts = b"of another claim", 1
        self.store.insert("own")
        self.start()
        self.assertEqual(self.value("dalga_takeovers_total"), 2)
        self.endpoint.answer("own", 500)
        self.go(5)
        self.assertEqual([run.key.path for run, _ in self.endpoint.posts].count("own"), 2)
        self.assertEqual(self.value("dalga_takeovers_total"), 2)

    def test_instances(self) -> None:
        self.store.heard_of["web2"] = self.store.time
        self.start()
        self.go(1)
        self.assertEqual(self.value("dalga_instances"), 2)
