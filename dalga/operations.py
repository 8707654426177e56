"""
What the API can do to jobs. HTTP is not known here, nor SQL: `dalga.web` asks, the store does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredLock, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dalga.counting import Counting
from dalga.errors import DalgaError, JobSetAside, StoreUnavailable
from dalga.log import logger
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import JobKey, RawKey
from dalga.model.options import IfExists
from dalga.model.plan import RawRequest, ScheduleRequest, plan, times_of
from dalga.model.schedule import MICROSECOND, Cron, Every, Once, Schedule, timestamp
from dalga.model.zone import Occurrence, Zone
from dalga.store import PIECE, Page, Position, Store

log = logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Status:
    """
    Counts of the moment. Of a large table, `running_jobs`, `total_jobs`, `pending_jobs` and
    `set_aside_jobs` are those of the last count, or None where the first has not ended yet.
    """

    #: What this instance calls itself towards the endpoint.
    instance_id: str
    #: Runs that this instance has under way.
    instance_running_jobs: int
    #: Runs that are under way in all instances.
    running_jobs: int | None
    #: Rows in the table, those set aside included.
    total_jobs: int | None
    #: Jobs that are due and that no instance has taken yet.
    pending_jobs: int | None
    #: Instances on this table that showed signs of life of late.
    total_instances: int
    #: For how long the oldest of the pending jobs has been due, in seconds.
    lag: float
    #: Rows that could not be understood and won't run until they are scheduled anew or deleted.
    set_aside_jobs: int | None
    #: The version of the time zone database that this instance goes by; None if it is unknown.
    tzdata: str | None
    #: How long ago the count began, in seconds; 0 where it is of the moment.
    counts_age: float | None


@dataclass(frozen=True, slots=True)
class Timetable:
    """The times of runs to come, and whose clock they are shown by."""

    zone: Zone
    times: list[Occurrence]


#: Does in another thread what would keep the reactor busy for too long.
InThread = Callable[[Callable[[], Timetable]], Deferred[Timetable]]


class Jobs:
    """
    :param store: an opened store.
    :param written: is told when a job that was written is to run, so that the scheduler is there.
    :param running: the number of runs that this instance has under way.
    :param instance: what this instance calls itself.
    :param patience: how long a caller waits for the database, in seconds.
    :param in_thread: for lists of run times. Some take a fifth of a second, which no due POST
        should have to wait for (P7).
    :param tzdata: the version of the time zone database that is used.
    :param variation: draws by what a job's first interval is multiplied; see `plan`.
    :param piece: see `Counting`.
    """

    def __init__(
        self,
        store: Store,
        reactor: IReactorTime,
        written: Callable[[datetime], None],
        running: Callable[[], int],
        instance: str = "",
        patience: float = 4.0,
        in_thread: InThread = maybeDeferred,
        variation: Callable[[], float] = lambda: 1.0,
        tzdata: str | None = None,
        piece: int = PIECE,
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._written = written
        self._running = running
        self._instance = instance
        self._patience = patience
        self._in_thread = in_thread
        self._variation = variation
        self._tzdata = tzdata
        self._counting = Counting(store, reactor, piece)
        # One list at a time: each thread that computes slows the reactor's down.
        self._turn = DeferredLock()

    async def schedule(self, key: RawKey, request: RawRequest) -> Job:
        """
        Write a job, or write over the one that is there. Returns after the commit (P1).

        :raises InvalidRequest: for a key or a request that is refused.
        :raises StoreUnavailable: if the database can't be reached; the job may have been written or
            not.
        """
        valid = JobKey(*key)
        put = self._store.put(valid, ScheduleRequest.of(request), self._variation())
        return await self._shielded(put.addCallback(self._scheduled, request.if_exists))

    async def get(self, key: RawKey) -> Job | UnreadableJob:
        """
        :raises JobNotFound: if there is none.
        :raises StoreUnavailable: if the database can't be reached.
        """
        return await self._shielded(self._store.get(key))

    async def page(self, path: str | None, after: Position | None, limit: int) -> Page:
        """
        See `Store.page`.

        :raises StoreUnavailable: if the database can't be reached.
        """
        return await self._shielded(self._store.page(path, after, limit))

    async def trigger(self, key: RawKey) -> Job:
        """
        Have a job run now, or, if a run is under way, once more as soon as that has ended. Elapsed
        time goes on from there; a calendar and cron keep their times. A job that has stopped on a
        failed run tries that run again.

        :raises JobNotFound: if there is none.
        :raises JobDisabled: if it is not to run.
        :raises JobOver: if its `until` is past.
        :raises StoreUnavailable: if the database can't be reached.
        """
        return await self._shielded(self._store.trigger(key).addCallback(self._triggered))

    async def enable(self, key: RawKey) -> Job | UnreadableJob:
        """
        Let a disabled job run again; if it is overdue its catch-up rule says what happens.

        :raises JobNotFound: if there is none.
        :raises StoreUnavailable: if the database can't be reached.
        """
        return await self._shielded(self._store.enable(key).addCallback(self._enabled))

    async def disable(self, key: RawKey) -> Job | UnreadableJob:
        """
        Keep a job, but don't run it. A run that is under way goes on to its end.

        :raises JobNotFound: if there is none.
        :raises StoreUnavailable: if the database can't be reached.
        """
        return await self._shielded(self._store.disable(key).addCallback(self._disabled))

    async def run_times(self, key: RawKey, limit: int, after: datetime | None) -> Timetable:
        """
        The next `limit` run times of a job after `after`, or after now.

        :raises JobNotFound: if there is none.
        :raises JobSetAside: if it can't be understood.
        :raises InvalidRequest: see `dalga.model.plan.Plan.times`.
        :raises StoreUnavailable: if the database can't be reached.
        """
        job = await self.get(key)
        if isinstance(job, UnreadableJob):
            raise JobSetAside(
                f"the job with path {key.path!r} and body {key.body!r} can't be understood "
                f"({job.problem}): schedule it anew with PUT, or delete it"
            )
        now = self._store.clock.now()

        def work() -> Timetable:
            times = times_of(job, after or now, now)
            return Timetable(job.schedule.zone, list(islice(times, limit)))

        return await self._timetable(work)

    async def preview(self, request: RawRequest, limit: int, after: datetime | None) -> Timetable:
        """
        The first `limit` run times after `after` of a job that would be scheduled now; or then, if
        that is past: to see what clock changes of the past would have done.

        :raises InvalidRequest: for a request that is refused.
        :raises StoreUnavailable: if the database, whose clock counts, can't be reached.
        """
        now = await self._shielded(self._store.now())
        then = now if after is None else min(after, now)

        def work() -> Timetable:
            planned = plan(ScheduleRequest.of(request), then)
            times = planned.times(now - MICROSECOND if after is None else after, then)
            return Timetable(planned.schedule.zone, list(islice(times, limit)))

        return await self._timetable(work)

    async def cancel(self, key: RawKey) -> None:
        """
        Delete a job; it is no error if there is none.

        :raises StoreUnavailable: if the database can't be reached.
        """
        await self._shielded(self._store.delete(key).addCallback(self._cancelled, key))

    async def status(self) -> Status:
        """:raises StoreUnavailable: if the database can't be reached."""
        present = await self._shielded(Deferred.fromCoroutine(self._counting.present()))
        counted = present.counted
        return Status(
            instance_id=self._instance,
            instance_running_jobs=self._running(),
            running_jobs=None if counted is None else counted.running,
            total_jobs=None if counted is None else counted.total,
            pending_jobs=None if counted is None else counted.pending,
            total_instances=present.live.instances,
            lag=present.live.lag.total_seconds(),
            set_aside_jobs=None if counted is None else counted.set_aside,
            tzdata=self._tzdata,
            counts_age=present.age,
        )

    def stop(self) -> None:
        """Count no more in the background."""
        self._counting.stop()

    # Called after the commit, whether or not anybody still waits for the answer.

    def _scheduled(self, job: Job, if_exists: IfExists | None) -> Job:
        if if_exists in (IfExists.UPDATE, IfExists.KEEP):
            what = "put with if-exists={if_exists}: {how}, next run {first}"
        else:
            what = "scheduled {how}, first run {first}"
        log.info(
            "{path!r} {body!r}: " + what,
            path=job.key.path,
            body=job.key.body,
            how=_how(job.schedule),
            if_exists=if_exists,
            first="none" if job.next_run is None else timestamp(job.next_run),
        )
        # Not the due time, which is the lease's end where a run is under way.
        if job.next_run is not None:
            self._written(job.next_run)
        return job

    def _triggered(self, job: Job) -> Job:
        log.info("{path!r} {body!r}: triggered", path=job.key.path, body=job.key.body)
        self._written(job.scheduled)
        return job

    def _enabled(self, job: Job | UnreadableJob) -> Job | UnreadableJob:
        log.info("{path!r} {body!r}: enabled", path=job.key.path, body=job.key.body)
        if isinstance(job, Job) and job.due is not None:
            self._written(job.scheduled)
        return job

    def _disabled(self, job: Job | UnreadableJob) -> Job | UnreadableJob:
        log.info("{path!r} {body!r}: disabled", path=job.key.path, body=job.key.body)
        return job

    def _cancelled(self, _: None, key: RawKey) -> None:
        log.info("{path!r} {body!r}: cancelled", path=key.path, body=key.body)

    def _timetable(self, work: Callable[[], Timetable]) -> Deferred[Timetable]:
        made = self._turn.acquire().addCallback(lambda _: self._make(work))
        return self._shielded(made, "the list of run times was not there")

    def _make(self, work: Callable[[], Timetable]) -> Deferred[Timetable]:
        """Once it is its turn. The next has its own when the thread is through, not before."""
        made: Deferred[Timetable] = Deferred()

        def through(result: Timetable | Failure) -> None:
            self._turn.release()
            if not made.called:
                made.callback(result)
            elif isinstance(result, Failure) and not result.check(DalgaError):
                log.failure("a list that nobody waits for any more failed", result)

        self._in_thread(work).addBoth(through)
        return made

    def _shielded(
        self, work: Deferred[T], too_late: str = "the database did not answer"
    ) -> Deferred[T]:
        """
        Wait for `work`, but not for ever, and let it go on to its end where the client hung up and
        Klein cancelled its handler.

        When the time is over it is abandoned: the client is told that it failed, and may say
        something else, which a late end of this must not undo (P4).
        """
        waiting: Deferred[T] = Deferred()

        def give_up() -> None:
            if not waiting.called:
                waiting.errback(StoreUnavailable(f"{too_late} within {self._patience:g} seconds"))
            work.cancel()

        timer = self._reactor.callLater(self._patience, give_up)

        def succeeded(result: T) -> None:
            if timer.active():
                timer.cancel()
            if not waiting.called:
                waiting.callback(result)

        def failed(failure: Failure) -> None:
            if timer.active():
                timer.cancel()
            if not waiting.called:
                waiting.errback(failure)
            elif not isinstance(failure.value, DalgaError | CancelledError):
                log.failure("a request that nobody waits for any more failed", failure)

        work.addCallbacks(succeeded, failed)
        return waiting


def _how(schedule: Schedule) -> str:
    """A schedule, as the log has it."""
    match schedule:
        case Once():
            return "once"
        case Every():
            return f"every {schedule.interval.total_seconds():g} s"
        case Cron():
            return f"at {schedule.text!r} in {schedule.zone.location}"
        case _:
            return f"every {schedule.text} in {schedule.zone.location}"
