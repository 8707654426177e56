"""
What the API can do with jobs. `dalga.web` asks, `dalga.store` does: neither HTTP nor SQL is here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredLock,
    maybeDeferred,
    succeed,
)
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dalga.allowed import ALLOWED_BY_DEFAULT, Allowed, EndpointShown
from dalga.counting import Counting
from dalga.errors import DalgaError, JobSetAside, StoreUnavailable
from dalga.log import logger
from dalga.model.action import (
    Action,
    ActionRequest,
    ActionState,
    Do,
    action_not_found,
    filter_to_json,
)
from dalga.model.address import DEFAULT_ENDPOINT
from dalga.model.alert import KeptAlert, concerns
from dalga.model.audit import AuditPage, AuditQuery
from dalga.model.idempotency import Idempotency
from dalga.model.instance import Instance
from dalga.model.job import HIDDEN_PROBLEM, Job, UnreadableJob, endpoint_of, readable
from dalga.model.key import JobKey, RawKey, job_not_found
from dalga.model.listing import Page, Query
from dalga.model.name import RANDOM_OCTETS, generated_name
from dalga.model.options import IfExists
from dalga.model.patch import patched
from dalga.model.permit import Caller, Scope
from dalga.model.plan import RawRequest, ScheduleRequest, plan, times_of
from dalga.model.precondition import Precondition
from dalga.model.runid import RunId, run_not_found
from dalga.model.runlist import ListedRun, RunPage, RunQuery
from dalga.model.schedule import MICROSECOND, Cron, Every, Once, Schedule, timestamp
from dalga.model.state import State, state_of
from dalga.model.statistics import StatsQuery
from dalga.model.why import Here, Lag, Why, why
from dalga.model.zone import Occurrence, Zone
from dalga.series import Series, read_series
from dalga.store import PIECE, Made, Shown, Store, Tally

log = logger(__name__)
T = TypeVar("T")

#: The scope that an action takes, by what it does to each.
_NEEDED = {
    Do.REPLAY: Scope.TRIGGER,
    Do.TRIGGER: Scope.TRIGGER,
    Do.ENABLE: Scope.WRITE,
    Do.DISABLE: Scope.WRITE,
    Do.DELETE: Scope.WRITE,
}

#: How many of the newest actions, or alerts, are looked at for those that a caller may see.
LOOKED_AT = 500

#: How many instances are listed, at most.
MOST_INSTANCES = 1000


@dataclass(frozen=True, slots=True)
class Status:
    """
    Counts of the moment.

    In a large table, `running_jobs`, `total_jobs`, `pending_jobs` and `set_aside_jobs` are from the
    last count in the background; None until the first such count has ended.
    """

    #: The name of this instance, as the endpoint gets it.
    instance_id: str
    #: The number of runs that this instance has under way.
    instance_running_jobs: int
    #: The number of runs that all instances have under way.
    running_jobs: int | None
    #: The number of rows in the table, with the rows that are set aside.
    total_jobs: int | None
    #: The number of jobs that are due and that no instance has claimed yet.
    pending_jobs: int | None
    #: The number of instances on this table that had a heartbeat lately.
    total_instances: int
    #: For how long the oldest pending job has been due, in seconds.
    lag: float
    #: The number of rows that can't be understood. They won't run until a PUT mends them.
    set_aside_jobs: int | None
    #: The version of the time zone database that this instance uses; None if it is unknown.
    tzdata: str | None
    #: How long ago the count began, in seconds; 0 for counts of the moment, None for no count yet.
    counts_age: float | None
    #: Which worker of its daemon this instance is, from 1 on; None if the daemon has no workers.
    worker: int | None = None
    #: How many workers the daemon has.
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class Timetable:
    """Run times, and the zone by whose clock they are shown."""

    zone: Zone
    times: list[Occurrence]


#: Makes a timetable in another thread, as that would keep the reactor busy for too long.
InThread = Callable[[Callable[[], Timetable]], Deferred[Timetable]]


class Operations:
    """
    Each method that a request leads to takes its caller, and raises `Forbidden` for what that
    caller may not do.

    :param store: an opened store.
    :param reactor: for the time limit of calls.
    :param written: called with the due time of each job that was written, so that the scheduler
        wakes in time.
    :param running: gives the number of runs that this instance has under way.
    :param acting: called when an action was written, so that the scheduler makes its first batch.
    :param look: gives what this instance knows of a job's run.
    :param instance: the name of this instance.
    :param patience: the time limit of a call to the database, in seconds.
    :param in_thread: makes timetables. Some take a fifth of a second, and no due POST should wait
        for that (P7).
    :param variation: draws the factor for a job's first interval; see `plan`.
    :param random_octets: gives so many random octets, for generated names.
    :param tzdata: the version of the time zone database that is used.
    :param piece: see `Counting`.
    :param allowed: what the configuration allows jobs.
    :param certificates: gives, by the names of the endpoints, when the certificate ends that the
        endpoint has shown. An endpoint that has shown none is not there.
    :param worker: which worker of its daemon this instance is, and of how many; None if the daemon
        has no workers.
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
        random_octets: Callable[[int], bytes] = os.urandom,
        piece: int = PIECE,
        worker: tuple[int, int] | None = None,
        allowed: Allowed = ALLOWED_BY_DEFAULT,
        look: Callable[[RawKey], Here] = lambda key: Here(),
        acting: Callable[[], None] = lambda: None,
        certificates: Callable[[], Deferred[Mapping[str, datetime]]] = lambda: succeed({}),
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._written = written
        self._running = running
        self._look = look
        self._acting = acting
        self.certificates = certificates
        self._instance = instance
        self._patience = patience
        self._in_thread = in_thread
        self._variation = variation
        self._tzdata = tzdata
        self._random_octets = random_octets
        self._worker = worker or (None, None)
        self.allowed = allowed
        self._counting = Counting(store, reactor, piece)
        # One timetable at a time: each thread that computes slows the reactor's thread down.
        self._turn = DeferredLock()

    def reconfigure(self, allowed: Allowed, variation: Callable[[], float]) -> None:
        """Go by these from now on: see the class."""
        self.allowed = allowed
        self._variation = variation

    async def schedule(
        self,
        caller: Caller,
        key: RawKey,
        request: RawRequest,
        precondition: Precondition | None = None,
    ) -> Job:
        """
        Write a job, or write over the job that is there. Returns after the commit (P1).

        :raises InvalidRequest: for a key or a request that is refused.
        :raises PreconditionFailed: if the precondition does not hold.
        :raises StoreUnavailable: if the database can't be reached. Whether the job was written is
            not known then.
        """
        permit = caller.permit(Scope.WRITE, key.path)
        caller.check(Scope.WRITE, key.path, request.endpoint or DEFAULT_ENDPOINT)
        valid = JobKey(*key)
        self.allowed.check(request)
        asked = ScheduleRequest.of(request)
        put = self._store.put(valid, asked, self._variation(), precondition, caller.author, permit)
        then = (caller, request.if_exists)
        put.addCallbacks(self._scheduled, _hide, then, {}, (caller, key.path))
        return await self._shielded(put)

    async def patch(
        self,
        caller: Caller,
        key: RawKey,
        given: Mapping[str, Any],
        precondition: Precondition | None = None,
    ) -> Job:
        """
        Change some of a job's parameters. Its times stay, unless its schedule is what changes.

        :param given: see `dalga.model.patch.patched`.
        :raises JobNotFound: if there is none.
        :raises JobSetAside: if the job's row can't be understood.
        :raises InvalidRequest: for a change that is refused.
        :raises PreconditionFailed: if the precondition does not hold.
        :raises StoreUnavailable: if the database can't be reached. Whether the job was changed is
            not known then.
        """
        permit = caller.permit(Scope.WRITE, key.path)

        def change(job: Job) -> ScheduleRequest:
            request = patched(job, given)
            caller.check(Scope.WRITE, key.path, request.endpoint or DEFAULT_ENDPOINT)
            self.allowed.check_change(request, given)
            return ScheduleRequest.of(request)

        changed = self._store.patch(
            JobKey(*key), change, self._variation(), precondition, caller.author, permit
        )
        changed.addCallbacks(self._patched, _hide, (caller, given), {}, (caller, key.path))
        return await self._shielded(changed)

    async def once(
        self, caller: Caller, path: str, request: RawRequest, idempotency: Idempotency | None
    ) -> Job:
        """
        Write a job with a generated name as its body. Returns after the commit (P1).

        :param idempotency: see `Store.once`.
        :return: the job as it was written, by this request or by an earlier one with the same key.
        :raises InvalidRequest: for a path or a request that is refused.
        :raises IdempotencyReused: see `Store.once`.
        :raises StoreUnavailable: if the database can't be reached. Whether the job was written is
            not known then.
        """
        caller.check(Scope.WRITE, path, request.endpoint or DEFAULT_ENDPOINT)
        name = generated_name(self._store.clock.now(), self._random_octets(RANDOM_OCTETS))
        key = JobKey(path, name)
        self.allowed.check(request)
        made = self._store.once(key, ScheduleRequest.of(request), idempotency, caller.author)
        return await self._shielded(made.addCallback(self._made, caller))

    async def get(self, caller: Caller, key: RawKey) -> Job | UnreadableJob:
        """
        :raises JobNotFound: if there is none.
        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check_might(Scope.READ, key.path)
        job = await self._shielded(self._store.get(key))
        self._check_seen(caller, key, job)
        if isinstance(job, UnreadableJob) and not caller.may(Scope.READ_SECRETS, key.path):
            return replace(job, problem=HIDDEN_PROBLEM)
        return job

    async def show(self, caller: Caller, key: RawKey) -> Shown:
        """
        A job with its last run.

        :raises JobNotFound: if there is none.
        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check_might(Scope.READ, key.path)
        shown = await self._shielded(self._store.show(key, caller.author is not None))
        self._check_seen(caller, key, shown.job)
        last = shown.last_run
        if last is not None and not caller.may(Scope.READ, key.path, last.endpoint):
            return shown._replace(last_run=None)
        return shown

    def _check_seen(self, caller: Caller, key: RawKey, job: Job | UnreadableJob) -> None:
        """:raises JobNotFound: for a job that the caller may not see."""
        if not caller.may(Scope.READ, key.path, endpoint_of(job)):
            raise job_not_found(key)

    async def runs(self, caller: Caller, query: RunQuery) -> RunPage:
        """
        See `Store.runs`.

        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check_might(Scope.READ, query.filters.path)
        filters = replace(query.filters, limits=caller.limits(Scope.READ))
        return await self._shielded(self._store.runs(replace(query, filters=filters)))

    async def run(self, caller: Caller, run_id: RunId) -> ListedRun:
        """
        A run with all that is known of it.

        :raises RunNotFound: see `Store.run`.
        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check_might(Scope.READ)
        run = await self._shielded(self._store.run(run_id))
        if not caller.may(Scope.READ, run.record.path, run.record.endpoint):
            raise run_not_found(run_id)
        return run

    async def page(self, caller: Caller, query: Query) -> Page:
        """
        See `Store.page`.

        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check_might(Scope.READ, query.filters.path)
        filters = replace(query.filters, limits=caller.limits(Scope.READ))
        return await self._shielded(self._store.page(replace(query, filters=filters)))

    async def alerts(self, caller: Caller, limit: int) -> list[KeptAlert]:
        """
        See `Outbox.newest`.

        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check_might(Scope.READ)
        if caller.may(Scope.READ):
            return await self._shielded(self._store.outbox.newest(limit))
        newest = await self._shielded(self._store.outbox.newest(LOOKED_AT))
        seen = [kept for kept in newest if caller.may(Scope.READ, *concerns(kept.members))]
        return seen[:limit]

    def endpoints(self, caller: Caller) -> list[EndpointShown]:
        """The endpoints of the configuration that jobs may have which the caller may see."""
        caller.check_might(Scope.READ)
        return [
            endpoint
            for endpoint in self.allowed.endpoints
            if caller.might(Scope.READ, endpoint=endpoint.name)
        ]

    async def trigger(self, caller: Caller, key: RawKey) -> Job:
        """
        Have a job run now, or, if a run of it is under way, once more as soon as that has ended.

        Intervals of elapsed time are counted from then on. A calendar and cron keep their times. A
        job that has stopped on a failed run tries that run again.

        :raises JobNotFound: if there is no such job.
        :raises JobDisabled: if the job is disabled.
        :raises JobOver: if the job's `until` is past.
        :raises StoreUnavailable: if the database can't be reached.
        """
        permit = caller.permit(Scope.TRIGGER, key.path)
        triggered = self._store.trigger(key, caller.author, permit)
        triggered.addCallbacks(self._triggered, _hide, (caller,), {}, (caller, key.path))
        return await self._shielded(triggered)

    async def enable(
        self, caller: Caller, key: RawKey, precondition: Precondition | None = None
    ) -> Job | UnreadableJob:
        """
        Let a disabled job run again. Its catch-up rule says what becomes of times missed meanwhile.

        :raises JobNotFound: if there is none.
        :raises PreconditionFailed: if the precondition does not hold.
        :raises StoreUnavailable: if the database can't be reached.
        """
        permit = caller.permit(Scope.WRITE, key.path)
        enabled = self._store.enable(key, precondition, caller.author, permit)
        return await self._shielded(enabled.addCallback(self._enabled, caller))

    async def disable(
        self,
        caller: Caller,
        key: RawKey,
        reason: str | None = None,
        precondition: Precondition | None = None,
    ) -> Job | UnreadableJob:
        """
        Keep a job from running. A run that is under way goes on to its end.

        :param reason: is shown with the job, and in the log.
        :raises JobNotFound: if there is none.
        :raises PreconditionFailed: if the precondition does not hold.
        :raises StoreUnavailable: if the database can't be reached.
        """
        permit = caller.permit(Scope.WRITE, key.path)
        disabled = self._store.disable(key, reason, precondition, caller.author, permit)
        return await self._shielded(disabled.addCallback(self._disabled, caller, reason))

    async def why(self, caller: Caller, key: RawKey) -> Why:
        """
        Why a job is not running now.

        :raises JobNotFound: if there is no such job.
        :raises StoreUnavailable: if the database can't be reached.
        """
        job = await self.get(caller, key)
        now = self._store.clock.now()
        lag = Lag()
        if state_of(job, now) is State.WAITING:
            counts = await self._shielded(self._store.counts(0, 0))
            lag = Lag(counts.lag, counts.instances)
        no_endpoint = self.allowed.problem(job) if isinstance(job, Job) else None
        return why(job, now, self._look(key), lag, no_endpoint)

    async def run_times(
        self, caller: Caller, key: RawKey, limit: int, after: datetime | None
    ) -> Timetable:
        """
        The next `limit` run times of a job after `after`, or after now.

        :raises JobNotFound: if there is no such job.
        :raises JobSetAside: if the job's row can't be understood.
        :raises InvalidRequest: see `dalga.model.plan.Plan.times`.
        :raises StoreUnavailable: if the database can't be reached.
        """
        job = readable(await self.get(caller, key))
        now = self._store.clock.now()

        def work() -> Timetable:
            times = times_of(job, after or now, now)
            return Timetable(job.schedule.zone, list(islice(times, limit)))

        return await self._timetable(work)

    async def preview(
        self, caller: Caller, request: RawRequest, limit: int, after: datetime | None
    ) -> Timetable:
        """
        The first `limit` run times after `after` of a job that would be scheduled now.

        If `after` is past, the job would be scheduled then, so that a preview can show what past
        clock changes did.

        :raises InvalidRequest: for a request that is refused.
        :raises StoreUnavailable: if the database, whose clock counts, can't be reached.
        """
        caller.check_might(Scope.READ, endpoint=request.endpoint or DEFAULT_ENDPOINT)
        self.allowed.check(request)
        now = await self._shielded(self._store.now())
        then = now if after is None else min(after, now)

        def work() -> Timetable:
            planned = plan(ScheduleRequest.of(request), then)
            times = planned.times(now - MICROSECOND if after is None else after, then)
            return Timetable(planned.schedule.zone, list(islice(times, limit)))

        return await self._timetable(work)

    async def cancel(
        self, caller: Caller, key: RawKey, precondition: Precondition | None = None
    ) -> None:
        """
        Delete a job. It is no error if there is no such job.

        :raises PreconditionFailed: if the precondition does not hold.
        :raises StoreUnavailable: if the database can't be reached.
        """
        permit = caller.permit(Scope.WRITE, key.path)
        deleted = self._store.delete(key, precondition, caller.author, permit)
        await self._shielded(deleted.addCallback(self._cancelled, caller, key))

    async def replay(self, caller: Caller, run_id: RunId) -> Job:
        """
        Repeat a run that has ended, as a job of its own. Returns after the commit (P1).

        :raises RunNotFound: if there is no such run.
        :raises RunUnderWay: if the run has not ended.
        :raises ReplayImpossible: if its request can't be made again.
        :raises JobSetAside: if the row of its job can't be understood.
        :raises StoreUnavailable: if the database can't be reached. Whether the job was written is
            not known then.
        """
        caller.check_might(Scope.TRIGGER)
        limits = caller.limits(Scope.TRIGGER)
        made = self._store.replay(run_id, self.allowed.names, caller.author, limits)
        made.addCallbacks(self._replayed, _hide, (caller,), {}, (caller, None))
        return await self._shielded(made)

    async def act(self, caller: Caller, request: ActionRequest) -> Action:
        """
        Begin an action on many jobs or runs. Returns after the commit (P1), before it is done.

        :raises StoreUnavailable: if the database can't be reached. Whether the action was begun is
            not known then.
        """
        scope = _NEEDED[request.do]
        caller.check_might(scope, request.filters.path)
        limited = replace(request, limits=caller.limits(scope))
        begun = self._store.begin_action(limited, caller.author)
        return await self._shielded(begun.addCallback(self._begun, caller))

    async def action(self, caller: Caller, id: str) -> Action:
        """
        :raises ActionNotFound: if there is no such action.
        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check_might(Scope.READ)
        action = await self._shielded(self._store.action(id))
        if not _is_seen(caller, action):
            raise action_not_found(id)
        return action

    async def actions(self, caller: Caller, limit: int) -> list[Action]:
        """
        The actions that were begun last, the newest first.

        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check_might(Scope.READ)
        if caller.may(Scope.READ):
            return await self._shielded(self._store.actions(limit))
        newest = await self._shielded(self._store.actions(LOOKED_AT))
        return [action for action in newest if _is_seen(caller, action)][:limit]

    async def stop_action(self, caller: Caller, id: str) -> Action:
        """
        End an action after the batch that is under way.

        :raises ActionNotFound: if there is no such action.
        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check_might(Scope.TRIGGER)
        # What it does, and to what, stays as it is.
        action = await self._shielded(self._store.action(id))
        scope = Scope.WRITE if action.request is None else _NEEDED[action.request.do]
        if not _is_for(action, caller, scope):
            if not _is_seen(caller, action):
                raise action_not_found(id)
            caller.check(scope)
        stopped = self._store.stop_action(id, caller.author)
        return await self._shielded(stopped.addCallback(self._stopped, caller))

    async def audit(self, caller: Caller, query: AuditQuery) -> AuditPage:
        """
        See `Store.audit`.

        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check(Scope.ADMIN)
        return await self._shielded(self._store.audit(query))

    async def status(self, caller: Caller) -> Status:
        """
        Counts of the moment.

        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check(Scope.READ)
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
            worker=self._worker[0],
            workers=self._worker[1],
        )

    def count(self) -> None:
        """Have the jobs counted in the background, if the last count is old."""
        self._counting.refresh()

    def counted(self) -> tuple[Tally, float] | None:
        """The last count of all jobs, and its age in seconds; None if there is none yet."""
        return self._counting.known()

    def now(self) -> datetime:
        """The database's time, as far as it is known without asking."""
        return self._store.clock.now()

    async def statistics(self, caller: Caller, query: StatsQuery) -> Series:
        """
        Series of counts, lateness and durations of runs, as far as instances have written them.

        :raises InvalidRequest: if that takes too many sums, or gives too many points.
        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check_might(Scope.READ, query.path)
        endpoints = [endpoint.name for endpoint in self.allowed.endpoints]
        limits = caller.limits(Scope.READ)
        series = read_series(self._store, self._reactor, query, endpoints, limits)
        return await self._shielded(Deferred.fromCoroutine(series))

    async def instances(self, caller: Caller) -> list[Instance]:
        """
        The instances with a heartbeat of late, `MOST_INSTANCES` at most.

        :raises StoreUnavailable: if the database can't be reached.
        """
        caller.check(Scope.READ)
        return await self._shielded(self._store.instances(MOST_INSTANCES))

    @property
    def instance(self) -> str:
        """The name of this instance."""
        return self._instance

    def stop(self) -> None:
        """Stop counting in the background."""
        self._counting.stop()

    # These are called after the commit, whether or not anybody still waits for the answer.

    def _scheduled(self, job: Job, caller: Caller, if_exists: IfExists | None) -> Job:
        if if_exists in (IfExists.UPDATE, IfExists.KEEP):
            what = "put with if-exists={if_exists}: {how}, next run {first}"
        else:
            what = "scheduled {how}, first run {first}"
        _tell(
            caller,
            job.key,
            what,
            how=_how(job.schedule),
            if_exists=if_exists,
            first="none" if job.next_run is None else timestamp(job.next_run),
        )
        # While a run is under way, the due time is the lease's end. The next run may be sooner.
        if job.next_run is not None:
            self._written(job.next_run)
        return job

    def _patched(self, job: Job, caller: Caller, given: Mapping[str, Any]) -> Job:
        _tell(
            caller,
            job.key,
            "changed {what}, next run {next}",
            what=", ".join(name.replace("_", "-") for name in given) or "nothing",
            next="none" if job.next_run is None else timestamp(job.next_run),
        )
        if job.next_run is not None:
            self._written(job.next_run)
        return job

    def _made(self, made: Made, caller: Caller) -> Job:
        if made.is_new:
            return self._scheduled(made.job, caller, None)
        _tell(caller, made.job.key, "asked for again, and made already")
        return made.job

    def _triggered(self, job: Job, caller: Caller) -> Job:
        _tell(caller, job.key, "triggered")
        self._written(job.scheduled)
        return job

    def _enabled(self, job: Job | UnreadableJob, caller: Caller) -> Job | UnreadableJob:
        _tell(caller, job.key, "enabled")
        if isinstance(job, Job) and job.due is not None:
            self._written(job.scheduled)
        return job

    def _disabled(
        self, job: Job | UnreadableJob, caller: Caller, reason: str | None
    ) -> Job | UnreadableJob:
        _tell(caller, job.key, "disabled{why}", why="" if reason is None else f": {reason}")
        return job

    def _cancelled(self, _: None, caller: Caller, key: RawKey) -> None:
        _tell(caller, key, "cancelled")

    def _replayed(self, job: Job, caller: Caller) -> Job:
        _tell(caller, job.key, "replays the run {run}", run=job.delivery.replay_of)
        if job.due is not None:
            self._written(job.due)
        return job

    def _begun(self, action: Action, caller: Caller) -> Action:
        assert action.request is not None
        log.info(
            "action {action}" + _by(caller) + ": {what} of {filter}{dry}{why}",
            action=action.id,
            what=action.request.do,
            filter=json.dumps(filter_to_json(action.request.filters), ensure_ascii=False),
            dry=", a dry run" if action.request.dry_run else "",
            why="" if action.request.reason is None else f": {action.request.reason}",
            by=caller.name or None,
        )
        self._acting()
        return action

    def _stopped(self, action: Action, caller: Caller) -> Action:
        if action.state is ActionState.STOPPED:
            log.info(
                "action {action}" + _by(caller) + ": stopped by a user",
                action=action.id,
                by=caller.name or None,
            )
        return action

    def _timetable(self, work: Callable[[], Timetable]) -> Deferred[Timetable]:
        made = self._turn.acquire().addCallback(lambda _: self._make(work))
        return self._shielded(made, "the list of run times was not there")

    def _make(self, work: Callable[[], Timetable]) -> Deferred[Timetable]:
        """Make a timetable. The next one has its turn when the thread has ended, not before."""
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
        Wait for `work` up to the time limit.

        If the client hangs up, Klein cancels the waiting, and `work` goes on to its end. If the
        time is over, `work` is cancelled: the client is told that it failed, and a late end of it
        must not undo what the client asks for next (P4).
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


def _hide(failure: Failure, caller: Caller, path: str | None) -> Failure:
    """
    A failure without what is wrong with a row, for a caller who may not see what the row has.

    :param path: the job's; None if it is not known.
    """
    if failure.check(JobSetAside) and not caller.may(Scope.READ_SECRETS, path):
        return Failure(
            JobSetAside(
                f"the job can't be understood ({HIDDEN_PROBLEM}): schedule it anew with PUT, or "
                "delete it"
            )
        )
    return failure


def _is_for(action: Action, caller: Caller, scope: Scope) -> bool:
    """Whether a caller has a scope on all that an action is done to."""
    limits = caller.limits(scope)
    return limits is None or (action.request is not None and action.request.is_for(limits))


def _is_seen(caller: Caller, action: Action) -> bool:
    return _is_for(action, caller, Scope.READ)


def _how(schedule: Schedule) -> str:
    """A schedule in the words of the log."""
    match schedule:
        case Once():
            return "once"
        case Every():
            return f"every {schedule.interval.total_seconds():g} s"
        case Cron():
            return f"at {schedule.text!r} in {schedule.zone.location}"
        case _:
            return f"every {schedule.text} in {schedule.zone.location}"


def _tell(caller: Caller, key: RawKey, words: str, **values: object) -> None:
    """
    Log what became of a job.

    :param words: the format of the sentence behind the job's key.
    """
    log.info(
        "{path!r} {body!r}" + _by(caller) + ": " + words,
        path=key.path,
        body=key.body,
        by=caller.name or None,
        **values,
    )


def _by(caller: Caller) -> str:
    """The part of a line's format that says who did it, where callers have names."""
    return " by {by}" if caller.name else ""
