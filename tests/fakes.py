"""
A store in memory and an endpoint that answers when it is told to, for tests of what stands on them.

`FakeStore` has the leases of the real one; `tests.test_dispatch` drives both through one scenario
and wants the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import ILogObserver

from dalga.errors import (
    ActionNotFound,
    JobDisabled,
    JobOver,
    RunNotFound,
    StoreUnavailable,
)
from dalga.model.action import UNDER_WAY, Action, ActionRequest, ActionState, Do
from dalga.model.alert import Alert, KeptAlert, Targets
from dalga.model.answers import Meaning
from dalga.model.audit import AuditPage, AuditQuery
from dalga.model.delivery import NO_NOTES, PLAIN, Delivery, Disabling, Notes
from dalga.model.idempotency import Idempotency
from dalga.model.instance import UNKNOWN, About, Instance
from dalga.model.job import AT_REST, Job, Standing, UnreadableJob
from dalga.model.key import JobKey, RawKey, job_not_found
from dalga.model.listing import Filters, Page, Query
from dalga.model.name import RANDOM_OCTETS, generated_name
from dalga.model.options import IfExists, Options
from dalga.model.patch import replanned
from dalga.model.permit import Author, Limits, Permit
from dalga.model.plan import Plan, ScheduleRequest, amended, plan
from dalga.model.precondition import Precondition
from dalga.model.record import Result, Shelf, result_of
from dalga.model.run import (
    Cause,
    Delete,
    Disable,
    End,
    Finish,
    GiveBack,
    Outcome,
    Reschedule,
    Retry,
    Run,
    Skip,
    Stop,
    lease_of,
    revised,
)
from dalga.model.runid import RunId
from dalga.model.runlist import ListedRun, RunPage, RunQuery
from dalga.model.schedule import Every, Once, Schedule
from dalga.model.setback import Reach, corrected
from dalga.model.statistics import HOUR, MINUTE, MinuteSums, Scope, Sum, SumKey, floor
from dalga.store import (
    PIECE,
    Batch,
    Change,
    Claimed,
    Counts,
    Due,
    Dues,
    Made,
    OldestSums,
    Pruned,
    Recorded,
    Shown,
    SumsAsked,
    SumsFound,
    Surveyed,
)
from dalga.store.clock import DatabaseClock
from dalga.store.outbox import Forgotten, Parcel, Settled, Taken, Watch
from dalga.store.rows import WAITED, Override, version_at
from dalga.store.schema import ALIVE
from tests.lists import fits, page_of

T = TypeVar("T")

#: The fake database's time when the steady clock is at 0.
EPOCH = datetime(2014, 11, 11, 22, 0, 0, tzinfo=UTC)


@dataclass
class Row:
    """A row of the table."""

    id: int
    key: JobKey
    schedule: Schedule
    options: Options
    anchor: datetime
    scheduled: datetime
    due: datetime | None
    token: bytes | None = None
    run: bytes | None = None
    started: datetime | None = None
    attempts: int = 0
    override: int = Override.NONE
    error: str | None = None
    successes: int = 0
    skipped: int = 0
    standing: Standing = Standing.SOUND
    disabled: bool = False
    delivery: Delivery = PLAIN
    notes: Notes = NO_NOTES
    version: int = 0
    cause: Cause = Cause.SCHEDULE
    #: The id of a run that has failed and is to be tried again.
    open_run: str | None = None


@dataclass(frozen=True)
class Call:
    """One call of the store, as it was made."""

    method: str
    #: The steady clock's seconds.
    at: float
    #: A claim's limit, a record's ends.
    argument: Any
    #: The paths that it was to pass over.
    without: frozenset[str] = frozenset()


def noting(events: list[Any]) -> ILogObserver:
    """An observer of logging that notes each event."""
    return cast(ILogObserver, events.append)


class FakeOutbox:
    """
    `dalga.store.Outbox` in memory: what is put into `waiting` is to be sent.
    """

    def __init__(self) -> None:
        self.targets = Targets()
        self.written = 0
        self.waiting: list[Parcel] = []
        self.settled: list[Settled] = []
        self.claims = self.cleanings = 0
        #: What the next claim gives; None for what is waiting.
        self.held: Deferred[Taken] | None = None
        #: When there may be more to take, as each claim says.
        self.again: timedelta | None = None
        #: What each call of `forget` finds.
        self.old: list[Forgotten] = []

    def claim(self, rooms: Mapping[str, int]) -> Deferred[Taken]:
        self.claims += 1
        held, self.held = self.held, None
        if held is not None:
            return held
        left, taken = dict(rooms), []
        for parcel in list(self.waiting):
            if left.get(parcel.target, 0) > 0:
                left[parcel.target] -= 1
                self.waiting.remove(parcel)
                taken.append(parcel)
        return succeed(Taken(taken, self.again))

    def settle(self, settled: Sequence[Settled]) -> Deferred[None]:
        self.settled += settled
        return succeed(None)

    def newest(self, limit: int) -> Deferred[list[KeptAlert]]:
        return succeed([])

    def forget(self, limit: int) -> Deferred[Forgotten]:
        self.cleanings += 1
        return succeed(self.old.pop(0) if self.old else Forgotten(False, (), 0))


class FakeLookout:
    """
    `dalga.store.Lookout` in memory.

    :param now: gives the database's time.
    :param outbox: whose alerts are counted.
    """

    def __init__(self, now: Callable[[], datetime], outbox: FakeOutbox) -> None:
        self._now = now
        self._outbox = outbox
        self.incidents: dict[str, datetime] = {}
        self.alerts: list[Alert] = []
        self.lag = timedelta()
        self.looks = 0
        #: How many transactions look at silent jobs, before there are no more of these.
        self.silent = 0

    def watch(self) -> Deferred[Watch]:
        self.looks += 1
        return succeed(
            Watch(self._now(), dict(self.incidents), self.lag, len(self._outbox.waiting))
        )

    def begin(self, name: str, alert: Alert) -> Deferred[bool]:
        if name in self.incidents:
            return succeed(False)
        self.incidents[name] = alert.since or self._now()
        self.alerts.append(alert)
        return succeed(True)

    def end(self, name: str, alert: Alert) -> Deferred[bool]:
        if name not in self.incidents:
            return succeed(False)
        self.alerts.append(alert._replace(since=self.incidents.pop(name)))
        return succeed(True)

    def silences(self) -> Deferred[bool]:
        self.silent -= self.silent > 0
        return succeed(self.silent > 0)


class FakeStore:
    """
    `dalga.store.Store` over a dict.

    :param seconds: the steady clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.clock = DatabaseClock(seconds, lambda: EPOCH + timedelta(seconds=seconds()))
        #: How far the database's clock has been set since.
        self.set_by = timedelta(0)
        self.rows: dict[int, Row] = {}
        self.calls: list[Call] = []
        #: Of each call that changes something: who has asked for it.
        self.authors: list[Author | None] = []
        #: How many entries of the audit list are too old.
        self.old_entries = 0
        #: The methods that fail with StoreUnavailable, having done nothing.
        self.away: set[str] = set()
        #: The rows whose end breaks the transaction that writes it.
        self.poison: set[int] = set()
        #: Before which rows the database goes away, each but once.
        self.gone_before: set[int] = set()
        #: Row and token of what was recorded though the answer was lost.
        self.unsure: set[tuple[int, bytes]] = set()
        #: Whether the answer to the next record is lost.
        self.answer_is_lost = False
        #: How many runs may have ended by transactions without an answer.
        self.unsure_ends = 0
        #: Rows that somebody else has locked.
        self.locked: set[int] = set()
        #: How many Idempotency-Keys are there to be removed.
        self.old_keys = 0
        #: How many records there are that may be removed, and the times of all, newest first.
        self.old_records = dict.fromkeys(Shelf, 0)
        self.records: dict[Shelf, list[int]] = {shelf: [] for shelf in Shelf}
        #: How long a batch takes, as the store says, in seconds.
        self.prune_seconds = 0.001
        #: What the next batches of actions come to, whatever actions there are.
        self.batches: list[Batch] = []
        self.kept_actions: dict[str, Action] = {}
        #: When each instance was last heard of.
        self.heard_of: dict[str, datetime] = {}
        #: What each instance has told of itself: since when it is there, and the rest.
        self.told: dict[str, tuple[datetime | None, About]] = {}
        #: What is written of the runs of minutes, by the instance.
        self.written_sums: dict[tuple[str, SumKey], Sum] = {}
        #: How many sums are there to be folded, and how many to be removed.
        self.old_sums = self.oldest_hours = 0
        #: The records of runs that have ended: their ids and results, in the order of their ends.
        self.history: list[tuple[str, Result]] = []
        self._held: dict[str, list[tuple[Deferred[Any], Any]]] = {}
        self._seconds = seconds
        self._tokens = 0
        self._last_row = 0
        self.outbox = FakeOutbox()
        self.lookout = FakeLookout(lambda: self.time, self.outbox)
        self._read_clock()

    @property
    def time(self) -> datetime:
        """The database's time."""
        return EPOCH + self.set_by + timedelta(seconds=self._seconds())

    def called(self, method: str) -> list[Call]:
        """The calls of one method."""
        return [call for call in self.calls if call.method == method]

    def hold(self, method: str) -> None:
        """From now on, what `method` does is done, but its answer waits for `release`."""
        self._held.setdefault(method, [])

    def release(self, method: str) -> None:
        """Give the answers that were held back, and hold no more."""
        for answer, result in self._held.pop(method):
            answer.callback(result)

    def insert(
        self,
        path: str,
        due: datetime | None = None,
        schedule: Schedule | None = None,
        options: Options | None = None,
        body: str = "body",
    ) -> JobKey:
        """A row that another instance has written; due now unless said otherwise."""
        key, due = JobKey(path, body), due or self.time
        self._insert(key, schedule or Once(), options or Options(), due, due)
        return key

    def find(self, key: RawKey) -> Row | None:
        """The row of a job that has not been deleted."""
        for row in self.rows.values():
            if row.key == key and row.override != Override.DELETED:
                return row
        return None

    # Store

    def open(self) -> None:
        """See `Store.open`."""

    def create_table(self) -> str:
        """See `Store.create_table`."""
        return "created"

    def close(self) -> Deferred[None]:
        """See `Store.close`."""
        return succeed(None)

    def upgrade_table(self, dry_run: bool) -> Generator[str, None, None]:
        """There is no older table."""
        yield from ()

    def put(
        self,
        key: JobKey,
        request: ScheduleRequest,
        variation: float = 1.0,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job]:
        """See `Store.put`."""
        self.authors.append(author)

        def work() -> Job:
            self._permit(key, permit)
            self._check(key, precondition)
            return self._put(key, request, variation)

        return self._run("put", key, work)

    def patch(
        self,
        key: JobKey,
        change: Change,
        variation: float = 1.0,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job]:
        """See `Store.patch`."""
        self.authors.append(author)

        def work() -> Job:
            self._permit(key, permit)
            self._check(key, precondition)
            job = self._job(self._expect(key))
            request = replace(change(job), if_exists=IfExists.UPDATE)
            return self._put(key, request, variation, job)

        return self._run("patch", key, work)

    def _put(
        self, key: JobKey, request: ScheduleRequest, variation: float, patched: Job | None = None
    ) -> Job:
        row = next((row for row in self.rows.values() if row.key == key), None)
        stays_disabled, disabling = False, None
        is_there = row is not None and row.override != Override.DELETED
        if row is not None and is_there and request.if_exists is IfExists.KEEP:
            return self._job(row)
        if row is not None and is_there and request.if_exists is IfExists.UPDATE:
            terms = amended(self._job(row), request, self.time)
            if terms is not None:
                before = row.schedule, row.options, row.delivery, row.notes
                if before != (terms.schedule, terms.options, terms.delivery, terms.notes):
                    self._write(row, terms)
                return self._job(row)
            stays_disabled, disabling = row.disabled, row.notes.disabled
        if patched is None:
            planned = plan(request, self.time, variation, key)
        else:
            planned = replanned(patched, request, self.time, variation)
        if row is None:
            row = self._insert(
                key, planned.schedule, planned.options, planned.anchor, planned.first
            )
            self._write(row, planned)
            return self._job(row)
        override = Override.RUN_NOW if planned.first == self.time else Override.RESCHEDULED
        self._overridden(row, planned.first, override)
        self._write(row, planned)
        row.anchor = planned.anchor
        row.successes, row.skipped, row.standing, row.disabled = 0, 0, Standing.SOUND, False
        if stays_disabled:
            self._rest(row)
            row.notes = replace(row.notes, disabled=disabling)
        return self._job(row)

    def _write(self, row: Row, terms: Plan) -> None:
        row.schedule, row.options = terms.schedule, terms.options
        row.delivery, row.notes = terms.delivery, terms.notes
        row.version = max(row.version + 1, version_at(self.time))

    def _check(self, key: RawKey, precondition: Precondition | None) -> None:
        if precondition is not None:
            row = self.find(key)
            precondition.check(key, None if row is None else row.version)

    def _permit(self, key: RawKey, permit: Permit | None) -> None:
        row = self.find(key)
        if permit is not None and row is not None:
            permit.check(key, row.options.endpoint)

    def once(
        self,
        key: JobKey,
        request: ScheduleRequest,
        idempotency: Idempotency | None,
        author: Author | None = None,
    ) -> Deferred[Made]:
        """See `Store.once`. Keys are not remembered."""
        self.authors.append(author)

        def work() -> Made:
            planned = plan(request, self.time, 1.0, key)
            row = self._insert(
                key, planned.schedule, planned.options, planned.anchor, planned.first
            )
            self._write(row, planned)
            return Made(self._job(row), is_new=True)

        return self._run("once", key, work)

    def replay(
        self,
        run_id: RunId,
        endpoints: Collection[str],
        author: Author | None = None,
        limits: Limits | None = None,
    ) -> Deferred[Job]:
        """See `Store.replay`. There is no history."""
        self.authors.append(author)
        return fail(RunNotFound("there is no history"))

    def begin_action(
        self, request: ActionRequest, author: Author | None = None
    ) -> Deferred[Action]:
        """See `Store.begin_action`."""
        self.authors.append(author)

        def work() -> Action:
            name = generated_name(self.time, len(self.kept_actions).to_bytes(RANDOM_OCTETS))
            begun = Action(
                id=name,
                request=request,
                state=ActionState.COUNTING,
                made=self.time,
                author=author,
            )
            self.kept_actions[name] = begun
            return begun

        return self._run("begin_action", request, work)

    def action(self, id: str) -> Deferred[Action]:
        """See `Store.action`."""
        return self._run("action", id, lambda: self._action(id))

    def actions(self, limit: int) -> Deferred[list[Action]]:
        """See `Store.actions`."""

        def work() -> list[Action]:
            return [self.kept_actions[id] for id in sorted(self.kept_actions, reverse=True)][:limit]

        return self._run("actions", limit, work)

    def stop_action(self, id: str, author: Author | None = None) -> Deferred[Action]:
        """See `Store.stop_action`."""
        self.authors.append(author)

        def work() -> Action:
            action = self._action(id)
            if action.state in UNDER_WAY:
                action = replace(action, state=ActionState.STOPPED, ended=self.time)
                self.kept_actions[id] = action
            return action

        return self._run("stop_action", id, work)

    def act(
        self, limit: int, endpoints: Collection[str], instance: str, in_any_case: bool = False
    ) -> Deferred[Batch]:
        """
        See `Store.act`. Gives what `batches` has; else it counts the jobs of an action, or acts on
        all of them, whatever the limit.
        """

        def work() -> Batch:
            if self.batches:
                return self.batches.pop(0)
            for id, action in sorted(self.kept_actions.items()):
                if action.state in UNDER_WAY:
                    dues: list[datetime] = []
                    action = replace(self._acted(action, dues), instance=instance)
                    ended = None if action.state in UNDER_WAY else self.time
                    action = self.kept_actions[id] = replace(action, ended=ended)
                    return Batch(action, dues)
            return Batch()

        return self._run("act", (limit, in_any_case), work)

    def _action(self, id: str) -> Action:
        if id not in self.kept_actions:
            raise ActionNotFound(f"there is no action {id!r}")
        return self.kept_actions[id]

    def _acted(self, action: Action, dues: list[datetime]) -> Action:
        """
        An action after its next batch.

        :param dues: gets the due times of the jobs that were written.
        """
        request = action.request
        assert request is not None
        filters, latest = request.walked(action.made), version_at(action.made)
        rows = [
            row
            for row in self.rows.values()
            if isinstance(filters, Filters)  # there is no history
            and row.override != Override.DELETED
            and row.version <= latest
            and fits(self._job(row), filters, self.time)
        ]
        rows.sort(key=lambda row: row.key)
        most = request.expect_at_most
        if action.state is ActionState.COUNTING:
            state = ActionState.DONE if request.dry_run else ActionState.ACTING
            if most is not None and len(rows) > most:
                state = ActionState.REFUSED
            return replace(action, matched=len(rows), state=state)
        state = ActionState.DONE if most is None or len(rows) <= most else ActionState.STOPPED
        done = failed = 0
        for row in rows[:most]:
            try:
                self._do(action, request, row, dues)
                done += 1
            except (JobDisabled, JobOver):
                failed += 1
        return replace(action, state=state, done=done, failed=failed)

    def _do(self, action: Action, request: ActionRequest, row: Row, dues: list[datetime]) -> None:
        """:raises JobDisabled: or JobOver: for a job that can't be triggered."""
        match request.do:
            case Do.TRIGGER:
                self._trigger(row)
                dues.append(self.time)
            case Do.ENABLE:
                self._enable(row)
                if row.due is not None:
                    dues.append(row.scheduled)
            case Do.DISABLE:
                self._disable(row, request.reason, action.author)
            case Do.DELETE:
                self._delete(row)

    def forget_actions(self, limit: int) -> Deferred[int]:
        """See `Store.forget_actions`."""
        return self._run("forget_actions", limit, lambda: 0)

    def forget_keys(self, limit: int) -> Deferred[int]:
        """See `Store.forget_keys`."""

        def work() -> int:
            removed = min(limit, self.old_keys)
            self.old_keys -= removed
            return removed

        return self._run("forget_keys", limit, work)

    def prune(
        self, shelf: Shelf, keep: timedelta, surplus: int | None, limit: int
    ) -> Deferred[Pruned]:
        """See `Store.prune`. Each removal takes `prune_seconds`."""

        def work() -> Pruned:
            old = min(limit, self.old_records[shelf])
            self.old_records[shelf] -= old
            return Pruned(old, self.prune_seconds)

        return self._run("prune", (shelf, keep, surplus, limit), work)

    def survey(self, shelf: Shelf, before: int | None, limit: int) -> Deferred[Surveyed]:
        """See `Store.survey`."""

        def work() -> Surveyed:
            older = [at for at in self.records[shelf] if before is None or at < before][:limit]
            return Surveyed(len(older), older[-1] if older else None, self.prune_seconds)

        return self._run("survey", (shelf, before, limit), work)

    def get(self, key: RawKey) -> Deferred[Job | UnreadableJob]:
        """See `Store.get`."""
        return self._run("get", key, lambda: self._job(self._expect(key)))

    def show(self, key: RawKey, with_change: bool = False) -> Deferred[Shown]:
        """See `Store.show`. There is no history."""
        return self._run("get", key, lambda: Shown(self._job(self._expect(key)), None))

    def runs(self, query: RunQuery) -> Deferred[RunPage]:
        """See `Store.runs`. There is no history."""
        return self._run("runs", query, lambda: RunPage([], None))

    def run(self, run_id: RunId) -> Deferred[ListedRun]:
        """See `Store.run`. There is no history."""
        return fail(RunNotFound("there is no history"))

    def page(self, query: Query) -> Deferred[Page]:
        """See `Store.page`."""

        def work() -> Page:
            there = (row for row in self.rows.values() if row.override != Override.DELETED)
            return page_of(((row.id, self._job(row)) for row in there), query, self.time)

        return self._run("page", query, work)

    def trigger(
        self, key: RawKey, author: Author | None = None, permit: Permit | None = None
    ) -> Deferred[Job]:
        """See `Store.trigger`."""
        self.authors.append(author)

        def work() -> Job:
            self._permit(key, permit)
            row = self._expect(key)
            self._trigger(row)
            return self._job(row)

        return self._run("trigger", key, work)

    def enable(
        self,
        key: RawKey,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job | UnreadableJob]:
        """See `Store.enable`."""
        self.authors.append(author)

        def work() -> Job:
            self._permit(key, permit)
            self._check(key, precondition)
            row = self._expect(key)
            self._enable(row)
            return self._job(row)

        return self._run("enable", key, work)

    def disable(
        self,
        key: RawKey,
        reason: str | None = None,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job | UnreadableJob]:
        """See `Store.disable`."""
        self.authors.append(author)

        def work() -> Job:
            self._permit(key, permit)
            self._check(key, precondition)
            row = self._expect(key)
            self._disable(row, reason, author)
            return self._job(row)

        return self._run("disable", key, work)

    def delete(
        self,
        key: RawKey,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[None]:
        """See `Store.delete`."""
        self.authors.append(author)

        def work() -> None:
            self._permit(key, permit)
            self._check(key, precondition)
            row = next((row for row in self.rows.values() if row.key == key), None)
            if row is not None:
                self._delete(row)

        return self._run("delete", key, work)

    def audit(self, query: AuditQuery) -> Deferred[AuditPage]:
        """See `Store.audit`. It keeps no entries."""
        return self._run("audit", query, lambda: AuditPage([]))

    def forget_entries(self, keep: timedelta, limit: int) -> Deferred[int]:
        """See `Store.forget_entries`."""

        def work() -> int:
            found = min(limit, self.old_entries)
            self.old_entries -= found
            return found

        return self._run("forget_entries", (keep, limit), work)

    def counts(self, after: int = 0, limit: int = PIECE) -> Deferred[Counts]:
        """See `Store.counts`."""

        def work() -> Counts:
            pending = {row.id: row.due for row in self._due(self.time)}
            counted = [row for id, row in sorted(self.rows.items()) if id > after][:limit]
            last = counted[-1].id if counted else after
            return Counts(
                total=len(counted),
                pending=sum(row.id in pending for row in counted),
                set_aside=0,
                running=sum(self._leased(row) for row in counted),
                instances=sum(self._alive(seen) for seen in self.heard_of.values()),
                lag=self.time - min(pending.values(), default=self.time),
                last=last if len(counted) == limit else None,
            )

        return self._run("counts", (after, limit), work)

    def now(self) -> Deferred[datetime]:
        """See `Store.now`."""
        return self._run("now", None, lambda: self.time)

    def announce(
        self, instance: str, since: datetime | None = None, about: About = UNKNOWN
    ) -> Deferred[int]:
        """See `Store.announce`."""

        def work() -> int:
            alive = {name: seen for name, seen in self.heard_of.items() if self._alive(seen)}
            self.heard_of = {**alive, instance: self.time}
            self.told[instance] = since, about
            return len(self.heard_of) - 1

        return self._run("announce", instance, work)

    def correct(self, reach: Reach, after: Due | None) -> Deferred[Due | None]:
        """See `Store.correct`."""

        def work() -> None:
            for row in self.rows.values():
                times = corrected(self._job(row), self.time, reach)
                if times is not None:
                    row.anchor, row.scheduled, row.due = times

        return self._run("correct", reach, work)

    def depart(self, instance: str) -> Deferred[None]:
        """See `Store.depart`."""

        def work() -> None:
            self.heard_of.pop(instance, None)

        return self._run("depart", instance, work)

    def instances(self, limit: int) -> Deferred[list[Instance]]:
        """See `Store.instances`."""

        def work() -> list[Instance]:
            return [
                Instance(name, since, (self.time - self.heard_of[name]).total_seconds(), about)
                for name, (since, about) in sorted(self.told.items())
                if self._alive(self.heard_of[name])
            ][:limit]

        return self._run("instances", limit, work)

    @property
    def unsettled(self) -> bool:
        """See `Store.unsettled`."""
        return self.unsure_ends > 0

    def settle(self) -> Deferred[None]:
        """See `Store.settle`. Tells nobody."""

        def work() -> None:
            self.unsure_ends = 0

        return self._run("settle", None, work)

    def write_sums(self, sums: MinuteSums) -> Deferred[None]:
        """See `Store.write_sums`."""

        def work() -> None:
            for key in sums.gone:
                self.written_sums.pop((sums.instance, key), None)
            for key, counted in sums.rows:
                self.written_sums[sums.instance, key] = counted

        return self._run("write_sums", sums, work)

    def fold_sums(self, limit: int) -> Deferred[int]:
        """See `Store.fold_sums`."""

        def work() -> int:
            folded = min(limit, self.old_sums)
            self.old_sums -= folded
            return folded

        return self._run("fold_sums", limit, work)

    def forget_sums(self, limit: int) -> Deferred[int]:
        """See `Store.forget_sums`."""

        def work() -> int:
            removed = min(limit, self.oldest_hours)
            self.oldest_hours -= removed
            return removed

        return self._run("forget_sums", limit, work)

    def oldest_sums(self, scope: Scope) -> Deferred[OldestSums]:
        """See `Store.oldest_sums`."""

        def work() -> OldestSums:
            of_scope = [key for _, key in self.written_sums if key.scope is scope]
            return OldestSums(
                *(
                    min((key.at for key in of_scope if key.step == step), default=None)
                    for step in (MINUTE, HOUR)
                )
            )

        return self._run("oldest_sums", scope, work)

    def sums(self, asked: SumsAsked) -> Deferred[SumsFound]:
        """See `Store.sums`."""
        query = asked.query

        def fits(key: SumKey) -> bool:
            return (
                (key.scope, key.step) == (asked.scope, asked.step)
                and key.path.startswith(asked.prefix)
                and key.at in asked.times
                and asked.endpoint in (None, key.endpoint)
                and query.path in (None, key.path)
            )

        def work() -> SumsFound:
            rows = [(key, each) for (_, key), each in self.written_sums.items() if fits(key)]
            if len(rows) > asked.limit:
                return SumsFound({}, asked.limit, is_whole=False)
            found: dict[tuple[str, datetime], Sum] = {}
            for key, counted in rows:
                series = query.series(key.endpoint, key.path, key.result)
                found.setdefault((series, floor(key.at, query.step)), Sum()).add(counted)
            return SumsFound(found, len(rows), is_whole=True)

        return self._run("sums", asked, work)

    def due_within(
        self, within: timedelta, limit: int, without: Collection[str] = ()
    ) -> Deferred[Dues]:
        """See `Store.due_within`."""

        def work() -> Dues:
            horizon = self.time + within
            dues = [row.due for row in self._due(horizon, without)][:limit]
            return Dues(dues, dues[-1] if len(dues) == limit else horizon)

        return self._run("due_within", limit, work, without)

    def claim(
        self,
        limit: int,
        timeout: float,
        without: Collection[str] = (),
        timeouts: Mapping[str, float] = MappingProxyType({}),
    ) -> Deferred[Claimed]:
        """See `Store.claim`."""

        def work() -> Claimed:
            now = self.time
            due = self._due(now, without)[:limit]
            self._tokens += 1
            token = b"%016d" % self._tokens
            runs, taken_over = [], 0
            for row in due:
                leased = row.token is not None
                if row.override == Override.DELETED:
                    if row.open_run is None and row.run is not None:
                        row.open_run = f"{row.run.decode()}-{row.id}"
                    self._end_open(row, Result.CANCELLED)
                    del self.rows[row.id]
                    continue
                was_due, waited = row.due, row.override in WAITED
                row.override = Override.NONE
                if row.disabled:
                    row.due, row.token = None, None
                elif row.scheduled > now and not row.attempts:
                    row.due, row.token, row.run, row.attempts = row.scheduled, None, None, 0
                    row.started = None
                else:
                    own = timeouts.get(row.options.endpoint, timeout)
                    if row.options.timeout is not None:
                        own = min(own, row.options.timeout.total_seconds())
                    row.due, row.token, row.run = now + lease_of(own), token, row.run or token
                    row.started, row.attempts = row.started or now, row.attempts + 1
                    runs.append(self._taken(row, now, own, was_due, waited))
                    taken_over += leased
            return Claimed(runs, now, len(due) == limit, taken_over)

        return self._run("claim", limit, work, without)

    def record(self, ends: list[End]) -> Deferred[Recorded]:
        """See `Store.record`."""

        def work() -> Recorded:
            if any(end.run.row in self.poison for end in ends):
                raise RuntimeError("poison")
            if gone := self.gone_before.intersection(end.run.row for end in ends):
                self.gone_before -= gone
                raise StoreUnavailable("the database went away")
            recorded = Recorded()
            for end in ends:
                if end.run.row in self.locked:
                    recorded.postponed.append(end)
                else:
                    self._close(end, recorded)
            if self.answer_is_lost:
                self.answer_is_lost = False
                self.unsure |= {(end.run.row, end.run.token) for end in ends}
                raise StoreUnavailable("the answer to a COMMIT is lost")
            return recorded

        return self._run("record", list(ends), work)

    # Within a transaction

    def _run(
        self,
        method: str,
        argument: Any,
        work: Callable[[], T],
        without: Collection[str] = (),
    ) -> Deferred[T]:
        self.calls.append(Call(method, self._seconds(), argument, frozenset(without)))
        if method in self.away:
            return fail(StoreUnavailable("the database is away"))
        try:
            result = work()
        except Exception as error:
            return fail(error)
        self._read_clock()
        if method not in self._held:
            return succeed(result)
        answer: Deferred[T] = Deferred()
        self._held[method].append((answer, result))
        return answer

    def _read_clock(self) -> None:
        self.clock.observe(self.time, self._seconds(), self._seconds())

    def _insert(
        self,
        key: JobKey,
        schedule: Schedule,
        options: Options,
        anchor: datetime,
        first: datetime,
    ) -> Row:
        self._last_row += 1
        row = Row(self._last_row, key, schedule, options, anchor, first, first)
        self.rows[row.id] = row
        return row

    def _due(self, until: datetime, without: Collection[str] = ()) -> list[Any]:
        """The rows that are due until then, in due order."""
        due = [
            row
            for row in self.rows.values()
            if row.due is not None and row.due <= until and row.key.path not in without
        ]
        return sorted(due, key=lambda row: (row.due, row.id))

    def _alive(self, seen: datetime) -> bool:
        return seen > self.time - ALIVE

    def _leased(self, row: Row) -> bool:
        return row.token is not None and row.due is not None and row.due > self.time

    def _overridden(self, row: Row, first: datetime, override: int) -> None:
        """The user has spoken: a run that is under way keeps its lease, but its end has no say."""
        if self._leased(row):
            row.override = override
        else:
            row.override, row.token, row.due = Override.NONE, None, first
            self._end_open(row, Result.OVERRIDDEN)
        row.cause = Cause.SCHEDULE
        row.scheduled, row.run, row.started, row.attempts = first, None, None, 0
        row.error = None

    def _end_open(self, row: Row, result: Result) -> None:
        """End a run that waits for its next attempt, if there is one."""
        if row.open_run is not None:
            self.history.append((row.open_run, result))
            row.open_run = None

    def _end_run(self, row: Row, end: End, result: Result | None) -> None:
        """Write the record of a run."""
        if row.open_run not in (None, end.run.id):
            self._end_open(row, Result.OVERRIDDEN)
        if result is not None:
            self.history.append((end.run.id, result))
            row.open_run = None
        elif isinstance(end.verdict, Retry):
            row.open_run = end.run.id

    def _trigger(self, row: Row) -> None:
        if row.standing is Standing.DONE:
            raise JobOver(f"the job {row.key} is done")
        if row.disabled:
            raise JobDisabled(f"the job {row.key} is disabled")
        until = row.options.until
        if until is not None and until < self.time and row.standing is not Standing.STOPPED:
            raise JobOver(f"the job {row.key} has no new run any more")
        kept = (row.scheduled, row.anchor, row.run, row.attempts, row.cause)
        error = row.error if row.standing is Standing.FAILED else None
        anew = row.override in (Override.RESCHEDULED, Override.RUN_NOW)
        override = Override.RUN_NOW if anew else Override.TRIGGERED
        self._overridden(row, self.time, override)
        row.anchor = self.time if isinstance(row.schedule, Every | Once) else row.anchor
        row.error = error
        if row.standing is not Standing.STOPPED:
            row.cause = Cause.MANUAL
        else:
            row.scheduled, row.anchor, row.run, row.attempts, row.cause = kept
            row.standing = Standing.SOUND

    def _enable(self, row: Row) -> None:
        if row.disabled:
            row.disabled = False
            row.notes = replace(row.notes, disabled=None)
            if not row.attempts and row.standing in (Standing.SOUND, Standing.ASIDE):
                row.error = None
            if not self._leased(row):
                row.token, row.override, row.started = None, Override.NONE, None
                row.due = None if row.standing in AT_REST else row.scheduled

    def _disable(self, row: Row, reason: str | None, author: Author | None) -> None:
        self._rest(row)
        by = None if author is None else author.name
        disabling = Disabling(self.time, reason, by).after(row.notes.disabled)
        row.notes = replace(row.notes, disabled=disabling)

    def _rest(self, row: Row) -> None:
        row.disabled = True
        if not self._leased(row):
            row.token, row.override, row.due = None, Override.NONE, None

    def _delete(self, row: Row) -> None:
        if self._leased(row):
            row.override = Override.DELETED
        else:
            self._end_open(row, Result.CANCELLED)
            del self.rows[row.id]

    def _taken(
        self, row: Row, now: datetime, timeout: float, was_due: datetime, waited: bool
    ) -> Run:
        assert row.token is not None and row.run is not None and row.started is not None
        payload = row.delivery.payload
        return Run(
            row=row.id,
            token=row.token,
            key=row.key,
            schedule=row.schedule,
            options=row.options,
            anchor=row.anchor,
            scheduled=row.scheduled,
            due=was_due,
            waited=waited,
            id=f"{row.run.decode()}-{row.id}",
            attempt=row.attempts,
            started=row.started,
            successes=row.successes,
            claimed=now,
            lease_ends=self._seconds() + lease_of(timeout).total_seconds(),
            payload=payload.octets if payload else row.key.body.encode(),
            timeout=timeout,
            delivery=row.delivery,
            version=row.version,
            cause=row.cause,
        )

    def _close(self, end: End, recorded: Recorded) -> None:
        """Write the end, and note what became of it."""
        run = end.run
        row = self.rows.get(run.row)
        if row is None or row.token != run.token:
            already = (run.row, run.token) in self.unsure
            (recorded.already if already else recorded.lost).append(end)
            recorded.results.append((end, result_of(end) if already else None))
            return
        if row.override != Override.NONE:
            result = result_of(end, True, row.override == Override.DELETED)
            self._end_run(row, end, result)
            recorded.results.append((end, result))
        if row.override == Override.DELETED:
            recorded.overridden.append(end)
            del self.rows[row.id]
            return
        row.token = None
        if row.override != Override.NONE:
            succeeded = isinstance(end.verdict, Reschedule) and end.verdict.error is None
            row.successes += succeeded and row.override == Override.TRIGGERED
            if row.override in WAITED:
                row.due = self.time
            else:
                row.override, row.due = Override.NONE, row.scheduled
            self._unless_disabled(row)
            recorded.overridden.append(end)
            return
        changed = row.options != run.options
        if isinstance(end.verdict, Delete):
            changed = changed or row.disabled or row.version != run.version
        by_now = revised(end, row.options, self.time) if changed else end
        (recorded.written if by_now == end else recorded.revised).append(by_now)
        result = result_of(by_now)
        self._end_run(row, by_now, result)
        recorded.results.append((by_now, result))
        if not isinstance(by_now.verdict, Retry | GiveBack | Stop):
            row.cause = Cause.SCHEDULE
        match by_now.verdict:
            case Delete():
                del self.rows[row.id]
            case Reschedule(scheduled, anchor, error):
                self._next(row, scheduled)
                row.due = max(scheduled, self.time)
                row.anchor, row.error = anchor, error
                row.standing = Standing.SOUND if error is None else Standing.FAILED
                row.successes += error is None
            case Skip(scheduled):
                self._next(row, scheduled)
                row.skipped += 1
            case Retry(due, error):
                row.due, row.error = due, error
            case GiveBack(until):
                row.due, row.attempts = until or run.due, row.attempts - 1
                row.override = Override.TRIGGERED if run.waited else Override.NONE
                row.started = row.started if row.attempts else None
            case Stop(error):
                row.due, row.error, row.standing = None, error, Standing.STOPPED
            case Finish():
                self._next(row, row.scheduled)
                row.due, row.error, row.standing = None, None, Standing.DONE
                row.successes += end.meaning is Meaning.SUCCEED
                row.skipped += end.outcome is None
            case Disable(scheduled, anchor, words):
                self._next(row, scheduled)
                row.anchor, row.error, row.standing = anchor, words, Standing.SOUND
                row.disabled = True
        self._unless_disabled(row)

    def _next(self, row: Row, scheduled: datetime) -> None:
        row.scheduled = row.due = scheduled
        row.run, row.started, row.attempts = None, None, 0

    def _unless_disabled(self, row: Row) -> None:
        if row.disabled:
            row.due = None

    def _expect(self, key: RawKey) -> Row:
        row = self.find(key)
        if row is None:
            raise job_not_found(key)
        return row

    def _job(self, row: Row) -> Job:
        return Job(
            key=row.key,
            schedule=row.schedule,
            options=row.options,
            anchor=row.anchor,
            scheduled=row.scheduled,
            due=row.due,
            attempts=row.attempts,
            running=self._leased(row),
            error=row.error,
            successes=row.successes,
            skipped=row.skipped,
            standing=row.standing,
            disabled=row.disabled,
            waited=row.override in WAITED,
            delivery=row.delivery,
            notes=row.notes,
            version=row.version,
        )


class FakeEndpoint:
    """
    An endpoint that notes each POST and answers when it is told to.

    :param seconds: the steady clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        #: Each POST that was begun, with the steady clock's seconds.
        self.posts: list[tuple[Run, float]] = []
        self._open: list[tuple[Run, Deferred[Outcome]]] = []

    def post(self, run: Run) -> Deferred[Outcome]:
        """See `dalga.outgoing.endpoint.Endpoint.post`."""
        if any(other.key == run.key for other, _ in self._open):
            raise AssertionError(f"{run.key} is POSTed twice at a time (P3)")
        self.posts.append((run, self._seconds()))
        answer: Deferred[Outcome] = Deferred()
        self._open.append((run, answer))
        return answer

    @property
    def paths(self) -> list[str]:
        """The paths of all POSTs, in the order in which they were begun."""
        return [run.key.path for run, _ in self.posts]

    @property
    def under_way(self) -> list[str]:
        """The paths of the POSTs that have not been answered."""
        return [run.key.path for run, _ in self._open]

    def answer(
        self, path: str, status: int = 200, retry_after: timedelta | datetime | None = None
    ) -> None:
        """Answer the POST to a path."""
        self._take(path).callback(Outcome(status, 0.0, retry_after=retry_after))

    def break_off(self, path: str, error: Exception) -> None:
        """Fail in a way that no endpoint should."""
        self._take(path).errback(error)

    def _take(self, path: str) -> Deferred[Outcome]:
        for position, (run, answer) in enumerate(self._open):
            if run.key.path == path:
                del self._open[position]
                return answer
        raise AssertionError(f"no POST to {path} is under way, but to {self.under_way}")
