"""What the API can do to jobs, and how long it waits for the database."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import (
    InvalidRequest,
    JobDisabled,
    JobNotFound,
    JobSetAside,
    StoreUnavailable,
)
from dalga.model.duration import seconds
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import JobKey, RawKey
from dalga.model.options import IfExists, Options
from dalga.model.permit import OPEN
from dalga.model.plan import RawRequest, ScheduleRequest
from dalga.model.run import Stop
from dalga.model.schedule import Every, Once
from dalga.operations import Operations, Status, Timetable
from tests.examples import ended
from tests.fakes import EPOCH, FakeStore
from tests.lists import by_key

T = TypeVar("T")

KEY = JobKey("check_feed", "1234")
EACH_MINUTE = ScheduleRequest(interval=seconds(60))
MINUTE = timedelta(minutes=1)
PATIENCE = 4.0


class JobsTestCase(SynchronousTestCase):
    """`Operations` over a fake store."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FakeStore(self.clock.seconds)
        self.told: list[datetime] = []
        self.jobs = Operations(
            self.store, self.clock, self.told.append, lambda: 3, "web1", tzdata="2026f"
        )

    def ask(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(work)


class CallTests(JobsTestCase):
    """The calls, with a database that answers."""

    def test_schedule(self) -> None:
        """P1, P7: a job is in the store when the call returns, and the scheduler knows of it."""
        job = self.successResultOf(self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE)))
        row = self.store.find(KEY)
        assert row is not None
        self.assertEqual((job.schedule, job.due), (Every(MINUTE), row.due))
        self.assertEqual(self.told, [self.store.time + MINUTE])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_schedule_with_a_variation(self) -> None:
        """Each job's first interval is multiplied by what was drawn for it."""
        drawn = iter((0.75, 1.25))
        jobs = Operations(self.store, self.clock, print, int, variation=lambda: next(drawn))
        for variation in (0.75, 1.25):
            job = self.successResultOf(self.ask(jobs.schedule(OPEN, KEY, EACH_MINUTE)))
            self.assertEqual(job.due, self.store.time + variation * MINUTE)

    def test_schedule_what_is_there(self) -> None:
        """P7: of a job that is kept the scheduler is told its next run, if it has one."""
        self.successResultOf(self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE)))
        self.clock.advance(5)
        for rule in (IfExists.UPDATE, IfExists.KEEP):
            asked = replace(EACH_MINUTE, if_exists=rule)
            self.told.clear()
            job = self.successResultOf(self.ask(self.jobs.schedule(OPEN, KEY, asked)))
            self.assertEqual((job.due, self.told), (EPOCH + MINUTE, [EPOCH + MINUTE]))
        self.told.clear()
        self.successResultOf(self.ask(self.jobs.disable(OPEN, KEY)))
        self.assertTrue(
            self.successResultOf(self.ask(self.jobs.schedule(OPEN, KEY, asked))).disabled
        )
        self.assertEqual(self.told, [])

    def test_not_before_the_commit(self) -> None:
        """P1: the call does not return, nor is the scheduler told, before the store answers."""
        self.store.hold("put")
        asked = self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE))
        self.assertNoResult(asked)
        self.assertEqual(self.told, [])
        self.store.release("put")
        self.successResultOf(asked)

    def test_during_a_run(self) -> None:
        """P3, P7: the scheduler is told the new first run, not the end of the lease."""
        self.store.insert("check_feed")
        key = JobKey("check_feed", "body")
        self.successResultOf(self.store.claim(9, 60))
        self.clock.advance(1)
        now = ScheduleRequest(one_off=True, immediate=True)
        job = self.successResultOf(self.ask(self.jobs.schedule(OPEN, key, now)))
        self.assertTrue(job.running)
        self.successResultOf(self.ask(self.jobs.trigger(OPEN, key)))
        self.assertEqual(self.told, [self.store.time, self.store.time])

    def test_invalid(self) -> None:
        """P11: a key or a request that is refused never gets to the store."""
        for key, request in (
            (RawKey("", "b"), EACH_MINUTE),
            (RawKey("a", ""), EACH_MINUTE),
            (RawKey("a" * 256, "b"), EACH_MINUTE),
            (RawKey("a", "b" * 256), EACH_MINUTE),
            (RawKey("../a", "b"), EACH_MINUTE),
            (RawKey("a\r\nx: y", "b"), EACH_MINUTE),
            (KEY, RawRequest()),
            (KEY, RawRequest(interval=seconds(0))),
        ):
            self.failureResultOf(self.ask(self.jobs.schedule(OPEN, key, request)), InvalidRequest)
        self.assertEqual((self.store.calls, self.told), ([], []))

    def test_get_and_trigger_and_cancel(self) -> None:
        """The other calls find the job, run it now and remove it, or say that there is none."""
        self.failureResultOf(self.ask(self.jobs.get(OPEN, KEY)), JobNotFound)
        self.failureResultOf(self.ask(self.jobs.trigger(OPEN, KEY)), JobNotFound)
        self.successResultOf(self.ask(self.jobs.cancel(OPEN, KEY)))
        self.successResultOf(self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE)))
        job = self.successResultOf(self.ask(self.jobs.get(OPEN, KEY)))
        assert isinstance(job, Job)
        self.assertEqual(job.due, self.store.time + MINUTE)
        triggered = self.successResultOf(self.ask(self.jobs.trigger(OPEN, KEY)))
        self.assertEqual(triggered.due, self.store.time)
        self.assertEqual(self.told[1:], [self.store.time])
        self.successResultOf(self.ask(self.jobs.cancel(OPEN, KEY)))
        self.assertIsNone(self.store.find(KEY))

    def test_status(self) -> None:
        """The counts of the table, and how many runs this instance has under way."""
        self.store.insert("a")
        self.store.insert("b", self.store.time + MINUTE)
        self.store.insert("c")
        self.store.claim(1, 60)
        self.store.announce("another")
        self.clock.advance(2.5)
        status = self.successResultOf(self.ask(self.jobs.status(OPEN)))
        self.assertEqual(
            status,
            Status(
                instance_id="web1",
                instance_running_jobs=3,
                running_jobs=1,
                total_jobs=3,
                pending_jobs=1,
                total_instances=1,
                lag=2.5,
                set_aside_jobs=0,
                tzdata="2026f",
                counts_age=0.0,
            ),
        )

    def test_disable_and_enable(self) -> None:
        """
        P7: the scheduler is told of a job that is enabled, and of nothing when one is disabled or
        was enabled already.
        """
        self.successResultOf(self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE)))
        self.told.clear()
        disabled = self.successResultOf(self.ask(self.jobs.disable(OPEN, KEY)))
        assert isinstance(disabled, Job)
        self.assertEqual((disabled.disabled, disabled.next_run), (True, None))
        self.failureResultOf(self.ask(self.jobs.trigger(OPEN, KEY)), JobDisabled)
        self.assertEqual(self.told, [])
        enabled = self.successResultOf(self.ask(self.jobs.enable(OPEN, KEY)))
        assert isinstance(enabled, Job)
        self.assertEqual((enabled.disabled, enabled.next_run), (False, self.store.time + MINUTE))
        self.assertEqual(self.told, [self.store.time + MINUTE])

    def test_enable_what_is_not_there(self) -> None:
        """There is no job to change."""
        self.failureResultOf(self.ask(self.jobs.enable(OPEN, KEY)), JobNotFound)
        self.failureResultOf(self.ask(self.jobs.disable(OPEN, KEY)), JobNotFound)

    def test_enable_a_job_that_has_stopped(self) -> None:
        """A job that stopped on a failed run has no time to be told of."""
        self.store.insert(KEY.path)
        key = JobKey(KEY.path, "body")
        (run,) = self.successResultOf(self.store.claim(1, 60)).runs
        self.store.record([ended(run, Stop("500"))])
        self.successResultOf(self.ask(self.jobs.disable(OPEN, key)))
        self.successResultOf(self.ask(self.jobs.enable(OPEN, key)))
        self.assertEqual(self.told, [])

    def test_page(self) -> None:
        """Jobs are listed a page at a time, those of a path by themselves."""
        for path, body in (("a", "2"), ("b", "1"), ("a", "1")):
            self.store.insert(path, body=body)
        page = self.successResultOf(self.ask(self.jobs.page(OPEN, by_key("a", None, 1))))
        self.assertEqual([job.key for job in page.jobs], [JobKey("a", "1")])
        assert page.last is not None
        page = self.successResultOf(self.ask(self.jobs.page(OPEN, by_key("a", page.last, 1))))
        self.assertEqual(([job.key for job in page.jobs], page.last), ([JobKey("a", "2")], None))

    def test_run_times(self) -> None:
        """The times of a job's next runs, after now or after another time."""
        self.successResultOf(self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE)))
        self.clock.advance(90)
        first = self.store.time + MINUTE / 2
        for after, expected in (
            (None, [first, first + MINUTE]),
            (first, [first + MINUTE, first + 2 * MINUTE]),
        ):
            timetable = self.successResultOf(self.ask(self.jobs.run_times(OPEN, KEY, 2, after)))
            self.assertEqual([time.at for time in timetable.times], expected)
        self.failureResultOf(
            self.ask(self.jobs.run_times(OPEN, JobKey("no", "job"), 2, None)), JobNotFound
        )

    def test_run_times_of_what_is_set_aside(self) -> None:
        """A job that can't be understood has no times, and the refusal says why."""
        self.store.get = lambda key: succeed(UnreadableJob(key, "often"))  # type: ignore
        refusal = self.failureResultOf(
            self.ask(self.jobs.run_times(OPEN, KEY, 2, None)), JobSetAside
        )
        self.assertIn("often", str(refusal.value))

    def test_preview(self) -> None:
        """P8: a preview counts from the database's time, and writes nothing."""
        self.clock.advance(5)
        asked = self.jobs.preview(OPEN, EACH_MINUTE, 2, None)
        preview = self.successResultOf(self.ask(asked))
        now = self.store.time
        self.assertEqual([time.at for time in preview.times], [now + MINUTE, now + 2 * MINUTE])
        # A time to come is on the grid from now; a past one is seen as of then.
        for after, first in (
            (now + MINUTE / 2, now + MINUTE),
            (EPOCH - MINUTE / 2, EPOCH + MINUTE / 2),
        ):
            preview = self.successResultOf(self.ask(self.jobs.preview(OPEN, EACH_MINUTE, 2, after)))
            self.assertEqual([time.at for time in preview.times], [first, first + MINUTE])
        self.assertEqual(self.store.rows, {})
        self.failureResultOf(
            self.ask(self.jobs.preview(OPEN, RawRequest(), 2, None)), InvalidRequest
        )


class PatienceTests(JobsTestCase):
    """With a database that does not answer, or a client that hangs up."""

    def test_patience(self) -> None:
        """P4: a caller waits four seconds; then the work is abandoned, as the caller is told."""
        abandoned: list[object] = []
        answer: Deferred[Job] = Deferred(abandoned.append)
        self.store.put = lambda *put: answer  # type: ignore[method-assign]
        asked = self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE))
        self.clock.advance(PATIENCE - 0.01)
        self.assertNoResult(asked)
        self.assertEqual(abandoned, [])
        self.clock.advance(0.01)
        self.failureResultOf(asked, StoreUnavailable)
        self.assertEqual((abandoned, self.told), ([answer], []))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_patience_of_all(self) -> None:
        """Each call has the same patience."""
        self.store.insert("a")
        key = JobKey("a", "body")
        for method, call in (
            ("get", self.jobs.get(OPEN, key)),
            ("trigger", self.jobs.trigger(OPEN, key)),
            ("delete", self.jobs.cancel(OPEN, key)),
            ("counts", self.jobs.status(OPEN)),
        ):
            self.store.hold(method)
            asked: Deferred[object] = Deferred.fromCoroutine(call)
            self.clock.advance(PATIENCE)
            self.failureResultOf(asked, StoreUnavailable)
            self.store.release(method)

    def test_lists_of_run_times(self) -> None:
        """P7: they are made in another thread, one after the other, and not waited for for long."""
        self.successResultOf(self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE)))
        threads: list[tuple[Callable[[], Timetable], Deferred[Timetable]]] = []

        def in_thread(work: Callable[[], Timetable]) -> Deferred[Timetable]:
            threads.append((work, Deferred()))
            return threads[-1][1]

        self.jobs = Operations(
            self.store, self.clock, self.told.append, lambda: 0, in_thread=in_thread
        )
        first = self.ask(self.jobs.run_times(OPEN, KEY, 1, None))
        second = self.ask(self.jobs.preview(OPEN, EACH_MINUTE, 1, None))
        third = self.ask(self.jobs.run_times(OPEN, KEY, 1, None))
        first.cancel()  # the client has hung up, and the thread goes on
        self.failureResultOf(first, CancelledError)
        self.assertEqual(len(threads), 1)
        for _ in range(2):
            work, answer = threads.pop()
            answer.callback(work())
        self.assertEqual(
            [time.at for time in self.successResultOf(second).times], [self.store.time + MINUTE]
        )
        self.assertEqual(len(threads), 1)
        self.clock.advance(PATIENCE / 2)
        fourth = self.ask(self.jobs.run_times(OPEN, KEY, 1, None))
        self.clock.advance(PATIENCE / 2)
        refusal = self.failureResultOf(third, StoreUnavailable)
        self.assertIn("list of run times", str(refusal.value))
        # Nobody waits for it any more, but the thread is not through.
        self.assertEqual(len(threads), 1)
        threads.pop()[1].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        work, answer = threads.pop()
        answer.callback(work())
        self.assertEqual(len(self.successResultOf(fourth).times), 1)

    def test_unavailable(self) -> None:
        """A database that can't be reached is said so at once, and the scheduler is not told."""
        self.store.away = {"put"}
        self.failureResultOf(self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE)), StoreUnavailable)
        self.assertEqual((self.told, self.clock.getDelayedCalls()), ([], []))

    def test_the_client_hangs_up(self) -> None:
        """P1, P7: a client that hangs up stops its waiting, not the work, nor the telling."""
        cancelled: list[object] = []
        answer: Deferred[Job] = Deferred(cancelled.append)
        self.store.put = lambda *put: answer  # type: ignore[method-assign]
        asked = self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE))
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(cancelled, [])
        answer.callback(
            Job(KEY, Once(), Options(), self.store.time, self.store.time, self.store.time)
        )
        self.assertEqual(self.told, [self.store.time])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_client_hangs_up_and_the_time_is_over(self) -> None:
        """Both ends of the waiting in a row do no harm."""
        self.store.hold("put")
        asked = self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE))
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.clock.advance(PATIENCE)
        self.store.release("put")
        self.assertEqual(self.told, [])

    def test_a_late_failure(self) -> None:
        """What fails when nobody waits any more is logged, unless it is the database's absence."""
        for error, logged in ((ZeroDivisionError(), 1), (StoreUnavailable("away"), 0)):
            answer: Deferred[Job] = Deferred()
            self.store.put = lambda *put, answer=answer: answer  # type: ignore
            asked = self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE))
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
            answer.errback(error)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), logged)

    def test_a_late_refusal(self) -> None:
        """A refusal that nobody waits for any more is the client's affair, no failure to log."""
        for error in (JobNotFound("no job"), InvalidRequest("year 9999")):
            answer: Deferred[Job] = Deferred()
            self.store.trigger = lambda *key, answer=answer: answer  # type: ignore
            asked = self.ask(self.jobs.trigger(OPEN, KEY))
            asked.cancel()
            self.failureResultOf(asked, CancelledError)
            answer.errback(error)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_other_errors(self) -> None:
        """A mistake of ours comes to the caller as it is, once."""
        self.store.put = lambda *put: fail(ZeroDivisionError())  # type: ignore
        self.failureResultOf(
            self.ask(self.jobs.schedule(OPEN, KEY, EACH_MINUTE)), ZeroDivisionError
        )
        self.assertEqual(self.flushLoggedErrors(), [])
