"""
The store over one database: it opens and closes, and hands each call to the part whose duty it is.

`dalga.store.jobs` does what users do to jobs, `dalga.store.runs` what the scheduler does to runs,
`dalga.store.history` reads what is kept of runs,
`dalga.store.instances` keeps who is alive.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Protocol

from twisted.internet.defer import Deferred

from dalga.errors import StartupError
from dalga.model.action import Action, ActionRequest
from dalga.model.alert import NO_TARGETS, Targets
from dalga.model.audit import AuditPage, AuditQuery
from dalga.model.idempotency import Idempotency
from dalga.model.instance import UNKNOWN, About, Instance
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import JobKey, RawKey
from dalga.model.listing import Page, Query
from dalga.model.permit import Author, Limits, Permit
from dalga.model.plan import ScheduleRequest
from dalga.model.precondition import Precondition
from dalga.model.record import HistoryMode, Shelf
from dalga.model.run import End
from dalga.model.runid import RunId
from dalga.model.runlist import ListedRun, RunPage, RunQuery
from dalga.model.setback import Reach
from dalga.model.statistics import MinuteSums, Scope
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
from dalga.store.actions import Actions
from dalga.store.alerts import AlertRows
from dalga.store.alertsql import AlertStatements
from dalga.store.alerttable import AlertTable
from dalga.store.audit import Audit, AuditRows
from dalga.store.audited import Audited
from dalga.store.changes import Changes
from dalga.store.clock import SET_BACK, DatabaseClock
from dalga.store.closings import Closings, Told
from dalga.store.details import DetailRows
from dalga.store.detailsql import DetailStatements
from dalga.store.dialect import Cursor, Dialect
from dalga.store.history import History
from dalga.store.instances import Instances
from dalga.store.jobs import Jobs
from dalga.store.keyed import KeyedRows
from dalga.store.listing import Listing
from dalga.store.lookout import LookoutTables
from dalga.store.pruning import Pruning
from dalga.store.puts import Puts
from dalga.store.recording import Recording
from dalga.store.replays import Replays
from dalga.store.rows import TOKEN_LENGTH
from dalga.store.runs import Runs
from dalga.store.runsql import RunStatements
from dalga.store.schema import MAX_LEASE
from dalga.store.statements import Statements
from dalga.store.stats import Stats
from dalga.store.transactions import Transactions
from dalga.store.trial import Trial
from dalga.store.upgrade import upgrade


class Guard(Protocol):
    """Keeps a second daemon away from the same database, where that is needed."""

    def acquire(self) -> None:
        """:raises StartupError: if another has it."""

    def release(self) -> None:
        """Let others have it."""


class JobsTable:
    """
    The `dalga.store.Store` over a dialect.

    Claims and records have connections of their own, so that a crowd at the API can't keep a due
    job waiting. An embedded database has but one connection for all: there the two take turns
    (`dalga.store.turns`).

    :param run_lane: transactions for the scheduler.
    :param api_lane: transactions for the API; may be the same object.
    :param token: makes the random token of a claim, `TOKEN_LENGTH` bytes.
    :param targets: where alerts are sent.
    :param history: which runs get a record.
    """

    def __init__(
        self,
        dialect: Dialect,
        clock: DatabaseClock,
        run_lane: Transactions,
        api_lane: Transactions,
        guard: Guard | None = None,
        token: Callable[[], bytes] = lambda: os.urandom(TOKEN_LENGTH),
        targets: Targets = NO_TARGETS,
        history: HistoryMode = HistoryMode.ALL,
    ) -> None:
        self.clock = clock
        self._dialect = dialect
        self._run_lane = run_lane
        self._api_lane = api_lane
        self._guard = guard
        self._sql = sql = Statements(dialect)
        self._runsql = runsql = RunStatements(dialect)
        self._detailsql = detailsql = DetailStatements(dialect)
        details = DetailRows(dialect, detailsql)
        rows = KeyedRows(dialect, sql, details)
        alertsql = AlertStatements(dialect)
        self._alerts = alerts = AlertRows(dialect, alertsql, targets, token)
        self.outbox = AlertTable(dialect, alertsql, api_lane, alerts, token)
        self.lookout = LookoutTables(dialect, alertsql, api_lane, alerts)
        self._recording = recording = Recording(dialect, runsql, history)
        audit = AuditRows(dialect)
        puts = Puts(dialect, sql, rows, details, alerts, recording, audit)
        audited = Audited(rows, Changes(dialect, sql, rows, details, recording), audit)
        self._audit = Audit(dialect, api_lane)
        self._history = History(dialect, api_lane)
        self._pruning = Pruning(dialect, api_lane)
        self._jobs = Jobs(dialect, sql, api_lane, rows, puts, audited, self._history, audit)
        self._listing = Listing(dialect, api_lane, details)
        self._replays = Replays(
            dialect, sql, api_lane, rows, details, puts, self._history, audit, token
        )
        self._actions = Actions(
            dialect,
            sql,
            api_lane,
            rows,
            audited,
            self._listing,
            self._history,
            self._replays,
            audit,
            token,
        )
        self._runs = Runs(dialect, clock, runsql, run_lane, details, alerts, recording, token)
        self._closings = Closings(runsql, api_lane)
        for lane in (run_lane, api_lane):
            lane.noted = self._closings.ended
        self._instances = Instances(dialect, sql, run_lane, api_lane)
        self._stats = Stats(dialect, api_lane)
        self._trial = Trial(dialect, clock, sql, runsql, detailsql, rows, puts, token)

    def reconfigure(self, targets: Targets, history: HistoryMode) -> None:
        """
        Send alerts to these targets, and give these runs a record, from now on. A transaction that
        is under way may go by the former settings, or by these.
        """
        self._alerts.targets = targets
        self._recording.mode = history

    def takes_payloads(self, longest: int) -> bool:
        """
        Whether payloads of this length (octets) can be kept, as far as the start has found: see
        `Dialect.takes_payloads`.
        """
        return self._dialect.takes_payloads(longest)

    def called(self, instance: str) -> None:
        """Say what this instance calls itself."""
        self._alerts.instance = instance
        self._recording.instance = instance

    def tell(self, told: Told) -> None:
        """
        Say who is told of runs that end without an `End`.

        :param told: is called in the reactor's thread, and must not fail.
        """
        self._closings.told = told

    # Open and close

    def open(self) -> None:
        """See `Store.open`."""
        last_write = self._dialect.last_write()  # before we write
        self._at_start(partial(self._check_at_start, last_write), self._trial.run)

    def _check_at_start(self, last_write: datetime | None, cursor: Cursor) -> None:
        """
        Check the tables, and read the database's clock for the first time.

        :param last_write: when the database was last written to, as `Dialect.last_write` gives it.
        :raises StartupError: if a table is not there, or not as we make it.
        """
        self._dialect.check_table(cursor)
        sent = self.clock.seconds()
        cursor.execute("SELECT UTC_TIMESTAMP(6)")
        ((value,),) = cursor.fetchall()
        self.clock.observe(self._dialect.read_instant(value), sent, self.clock.seconds())
        if last_write is not None and last_write > self.clock.now() + SET_BACK:
            self.clock.set_backs += 1  # while no daemon was there to see it

    def create_table(self) -> str:
        """See `Store.create_table`."""
        made: list[str] = []
        self._at_start(lambda cursor: made.extend(self._dialect.create_table(cursor)))
        *first, last = reversed(made)
        which = f"tables {', '.join(first)} and {last}" if first else f"table {last}"
        return f"created the {which} in {self._dialect.where()}"

    def upgrade_table(self, dry_run: bool) -> Generator[str, None, None]:
        """See `Store.upgrade_table`."""
        if self._guard is not None:
            self._guard.acquire()
        try:
            yield from upgrade(self._dialect, dry_run)
        finally:
            if self._guard is not None:
                self._guard.release()

    def _at_start(
        self, work: Callable[[Cursor], None], trial: Callable[[Cursor], None] | None = None
    ) -> None:
        """
        Run one transaction, blocking, on its own connection; say in one sentence what fails.

        :param trial: another one, to be rolled back.
        """
        if self._guard is not None:
            self._guard.acquire()
        try:
            with closing(self._dialect.connect()) as connection:
                cursor = connection.cursor()
                self._dialect.begin(cursor)
                work(cursor)
                connection.commit()
                if trial is not None:
                    self._dialect.begin(cursor)
                    trial(cursor)
                    connection.rollback()
        except Exception as error:
            if self._guard is not None:
                self._guard.release()
            sentence = self._dialect.explain(error)
            if sentence is None:
                raise
            raise StartupError(sentence) from error

    def where(self) -> str:
        """The database, as a person would name it."""
        return self._dialect.where()

    def close(self) -> Deferred[None]:
        """See `Store.close`."""

        self._jobs.close()

        async def close() -> None:
            await self._run_lane.close()
            if self._api_lane is not self._run_lane:
                await self._api_lane.close()
            if self._guard is not None:
                self._guard.release()

        return Deferred.fromCoroutine(close())

    # What users do to jobs

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
        return self._jobs.put(key, request, variation, precondition, author, permit)

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
        return self._jobs.patch(key, change, variation, precondition, author, permit)

    def once(
        self,
        key: JobKey,
        request: ScheduleRequest,
        idempotency: Idempotency | None,
        author: Author | None = None,
    ) -> Deferred[Made]:
        """See `Store.once`."""
        return self._jobs.once(key, request, idempotency, author)

    def forget_keys(self, limit: int) -> Deferred[int]:
        """See `Store.forget_keys`."""
        return self._jobs.forget_keys(limit)

    def get(self, key: RawKey) -> Deferred[Job | UnreadableJob]:
        """See `Store.get`."""
        return self._jobs.get(key)

    def show(self, key: RawKey, with_change: bool = False) -> Deferred[Shown]:
        """See `Store.show`."""
        return self._jobs.show(key, with_change)

    def runs(self, query: RunQuery) -> Deferred[RunPage]:
        """See `Store.runs`."""
        return self._history.page(query)

    def run(self, run_id: RunId) -> Deferred[ListedRun]:
        """See `Store.run`."""
        return self._history.run(run_id)

    def page(self, query: Query) -> Deferred[Page]:
        """See `Store.page`."""
        return self._listing.page(query)

    def trigger(
        self, key: RawKey, author: Author | None = None, permit: Permit | None = None
    ) -> Deferred[Job]:
        """See `Store.trigger`."""
        return self._jobs.trigger(key, author, permit)

    def enable(
        self,
        key: RawKey,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job | UnreadableJob]:
        """See `Store.enable`."""
        return self._jobs.enable(key, precondition, author, permit)

    def disable(
        self,
        key: RawKey,
        reason: str | None = None,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job | UnreadableJob]:
        """See `Store.disable`."""
        return self._jobs.disable(key, reason, precondition, author, permit)

    def delete(
        self,
        key: RawKey,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[None]:
        """See `Store.delete`."""
        return self._jobs.delete(key, precondition, author, permit)

    def replay(
        self,
        run_id: RunId,
        endpoints: Collection[str],
        author: Author | None = None,
        limits: Limits | None = None,
    ) -> Deferred[Job]:
        """See `Store.replay`."""
        return self._replays.replay(run_id, endpoints, author, limits)

    def begin_action(
        self, request: ActionRequest, author: Author | None = None
    ) -> Deferred[Action]:
        """See `Store.begin_action`."""
        return self._actions.begin(request, author)

    def action(self, id: str) -> Deferred[Action]:
        """See `Store.action`."""
        return self._actions.get(id)

    def actions(self, limit: int) -> Deferred[list[Action]]:
        """See `Store.actions`."""
        return self._actions.newest(limit)

    def stop_action(self, id: str, author: Author | None = None) -> Deferred[Action]:
        """See `Store.stop_action`."""
        return self._actions.stop(id, author)

    def act(
        self, limit: int, endpoints: Collection[str], instance: str, in_any_case: bool = False
    ) -> Deferred[Batch]:
        """See `Store.act`."""
        return self._actions.act(limit, endpoints, instance, in_any_case)

    def forget_actions(self, limit: int) -> Deferred[int]:
        """See `Store.forget_actions`."""
        return self._actions.forget(limit)

    def audit(self, query: AuditQuery) -> Deferred[AuditPage]:
        """See `Store.audit`."""
        return self._audit.page(query)

    def forget_entries(self, keep: timedelta, limit: int) -> Deferred[int]:
        """See `Store.forget_entries`."""
        return self._audit.forget(keep, limit)

    def counts(self, after: int = 0, limit: int = PIECE) -> Deferred[Counts]:
        """See `Store.counts`."""
        return self._jobs.counts(after, limit)

    # What the scheduler does

    def prune(
        self, shelf: Shelf, keep: timedelta, surplus: int | None, limit: int
    ) -> Deferred[Pruned]:
        """See `Store.prune`."""
        return self._pruning.prune(shelf, keep, surplus, limit)

    def survey(self, shelf: Shelf, before: int | None, limit: int) -> Deferred[Surveyed]:
        """See `Store.survey`."""
        return self._pruning.survey(shelf, before, limit)

    def now(self) -> Deferred[datetime]:
        """See `Store.now`."""
        return self._api_lane.read(self._sql.now.fetch, lambda rows, now: now, "now")

    def announce(
        self, instance: str, since: datetime | None = None, about: About = UNKNOWN
    ) -> Deferred[int]:
        """See `Store.announce`."""
        return self._instances.announce(instance, since, about)

    def instances(self, limit: int) -> Deferred[list[Instance]]:
        """See `Store.instances`."""
        return self._instances.instances(limit)

    def depart(self, instance: str) -> Deferred[None]:
        """See `Store.depart`."""
        return self._instances.depart(instance)

    def due_within(
        self, within: timedelta, limit: int, without: Collection[str] = ()
    ) -> Deferred[Dues]:
        """See `Store.due_within`."""
        return self._runs.due_within(within, limit, without)

    def claim(
        self,
        limit: int,
        timeout: float,
        without: Collection[str] = (),
        timeouts: Mapping[str, float] = MappingProxyType({}),
    ) -> Deferred[Claimed]:
        """See `Store.claim`."""
        return self._runs.claim(limit, timeout, without, timeouts)

    def correct(self, reach: Reach, after: Due | None) -> Deferred[Due | None]:
        """See `Store.correct`."""
        if self._guard is None:
            # Other instances' runs may take longer than ours.
            reach = replace(reach, lease=MAX_LEASE)
        return self._runs.correct(reach, after)

    def record(self, ends: list[End]) -> Deferred[Recorded]:
        """See `Store.record`."""
        return self._runs.record(ends)

    # Statistics

    @property
    def unsettled(self) -> bool:
        """See `Store.unsettled`."""
        return self._closings.unsettled

    def settle(self) -> Deferred[None]:
        """See `Store.settle`."""
        return self._closings.settle()

    def write_sums(self, sums: MinuteSums) -> Deferred[None]:
        """See `Store.write_sums`."""
        return self._stats.write(sums)

    def fold_sums(self, limit: int) -> Deferred[int]:
        """See `Store.fold_sums`."""
        return self._stats.fold(limit)

    def forget_sums(self, limit: int) -> Deferred[int]:
        """See `Store.forget_sums`."""
        return self._stats.forget(limit)

    def oldest_sums(self, scope: Scope) -> Deferred[OldestSums]:
        """See `Store.oldest_sums`."""
        return self._stats.oldest(scope)

    def sums(self, asked: SumsAsked) -> Deferred[SumsFound]:
        """See `Store.sums`."""
        return self._stats.sums(asked)
