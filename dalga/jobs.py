"""
What the API can do to jobs. HTTP is not known here, nor SQL: `dalga.web` asks, the store does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dalga.errors import DalgaError, StoreUnavailable
from dalga.job import (
    Job,
    JobKey,
    ScheduleRequest,
    UnreadableJob,
    check_length,
    check_path,
    check_request,
)
from dalga.log import logger
from dalga.schedule import timestamp
from dalga.store import Store

log = logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Status:
    """Counts of the moment."""

    #: Runs that this instance has under way.
    running_jobs: int
    #: Rows in the table, those set aside included.
    total_jobs: int
    #: Jobs that are due and that no instance has taken yet.
    pending_jobs: int
    #: Rows that could not be understood and won't run until they are scheduled anew or deleted.
    set_aside_jobs: int


class Jobs:
    """
    :param store: an opened store.
    :param written: is told when a job that was written is to run, so that the scheduler is there.
    :param running: the number of runs that this instance has under way.
    :param patience: how long a caller waits for the database, in seconds.
    """

    def __init__(
        self,
        store: Store,
        reactor: IReactorTime,
        written: Callable[[datetime], None],
        running: Callable[[], int],
        patience: float = 4.0,
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._written = written
        self._running = running
        self._patience = patience

    async def schedule(self, key: JobKey, request: ScheduleRequest) -> Job:
        """
        Write a job, or write over the one that is there. Returns after the commit (P1).

        :raises InvalidRequest: for a key or a request that is refused.
        :raises StoreUnavailable: if the database can't be reached; the job may have been written or
            not.
        """
        check_length("path", key.path)
        check_length("body", key.body)
        check_path(key.path)
        check_request(request)
        return await self._shielded(self._store.put(key, request).addCallback(self._scheduled))

    async def get(self, key: JobKey) -> Job | UnreadableJob:
        """
        :raises JobNotFound: if there is none.
        :raises StoreUnavailable: if the database can't be reached.
        """
        return await self._shielded(self._store.get(key))

    async def trigger(self, key: JobKey) -> Job:
        """
        Have a job run now, or, if a run is under way, once more as soon as that has ended. A
        periodic job goes on from there.

        :raises JobNotFound: if there is none.
        :raises StoreUnavailable: if the database can't be reached.
        """
        return await self._shielded(self._store.trigger(key).addCallback(self._triggered))

    async def cancel(self, key: JobKey) -> None:
        """
        Delete a job; it is no error if there is none.

        :raises StoreUnavailable: if the database can't be reached.
        """
        await self._shielded(self._store.delete(key).addCallback(self._cancelled, key))

    async def status(self) -> Status:
        """:raises StoreUnavailable: if the database can't be reached."""
        counts = await self._shielded(self._store.counts())
        return Status(self._running(), counts.total, counts.pending, counts.set_aside)

    # Called after the commit, whether or not anybody still waits for the answer.

    def _scheduled(self, job: Job) -> Job:
        log.info(
            "{path!r} {body!r}: scheduled {how}, first run {first}",
            path=job.key.path,
            body=job.key.body,
            how=f"every {job.schedule.seconds} s" if job.schedule.seconds else "once",
            first=timestamp(job.scheduled),
        )
        # Not the due time, which is the lease's end where a run is under way.
        self._written(job.scheduled)
        return job

    def _triggered(self, job: Job) -> Job:
        log.info("{path!r} {body!r}: triggered", path=job.key.path, body=job.key.body)
        self._written(job.scheduled)
        return job

    def _cancelled(self, _: None, key: JobKey) -> None:
        log.info("{path!r} {body!r}: cancelled", path=key.path, body=key.body)

    def _shielded(self, work: Deferred[T]) -> Deferred[T]:
        """
        Wait for `work`, but not for ever, and let it go on to its end where the client hung up and
        Klein cancelled its handler.

        When the time is over it is abandoned: the client is told that it failed, and may say
        something else, which a late end of this must not undo (P4).
        """
        waiting: Deferred[T] = Deferred()

        def give_up() -> None:
            if not waiting.called:
                waiting.errback(
                    StoreUnavailable(
                        f"the database did not answer within {self._patience:g} seconds"
                    )
                )
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
