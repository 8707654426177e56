"""
Jobs: what users do to jobs, and see of jobs. `dalga.store.Store` says what each call does.

A change to a job during a run leaves `due` and `token` to that run, and writes an `Override` for
the run's end (P3, P4). The runs themselves are in `dalga.store.runs`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from twisted.internet.defer import Deferred

from dalga.model.audit import LastChange, Verb
from dalga.model.idempotency import Idempotency
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import JobKey, RawKey, job_not_found
from dalga.model.permit import Author, Permit
from dalga.model.plan import ScheduleRequest
from dalga.model.precondition import Precondition
from dalga.store import PIECE, Change, Counts, Made, Shown
from dalga.store.audit import AuditRows
from dalga.store.audited import Audited
from dalga.store.details import READ_AT_ONCE
from dalga.store.dialect import Cursor, Dialect
from dalga.store.extras import fitting, weight_of
from dalga.store.group_commit import LOCKED, GroupCommit, Locked
from dalga.store.history import History
from dalga.store.idempotency import Keys, Once
from dalga.store.keyed import KeyedRows
from dalga.store.puts import Put, Puts
from dalga.store.rows import version_at
from dalga.store.schema import ALIVE, MAX_LEASE
from dalga.store.statements import Statements
from dalga.store.transactions import Transactions


class _Asked(NamedTuple):
    """One call of `Jobs.get` or `Jobs.show`."""

    key: RawKey
    with_change: bool = False


class Jobs:
    """
    Jobs by their keys.

    :param lane: the transactions of the API.
    """

    def __init__(
        self,
        dialect: Dialect,
        sql: Statements,
        lane: Transactions,
        rows: KeyedRows,
        puts: Puts,
        audited: Audited,
        history: History,
        audit: AuditRows,
    ) -> None:
        self._dialect = dialect
        self._sql = sql
        self._lane = lane
        self._rows = rows
        self._audited = audited
        self._history = history
        self._audit = audit
        self._keys = Keys(dialect, sql, puts)
        #: Each write of a job goes through this, for the order of the writes of one job.
        self._puts: GroupCommit[Put, Job] = GroupCommit(
            lane, puts.write, lambda put: put.key, "put"
        )
        self._gets: GroupCommit[_Asked, Shown] = GroupCommit(lane, self._read_all, operation="get")

    def close(self) -> None:
        """Begin no more PUTs and GETs; those that wait fail."""
        self._puts.close()
        self._gets.close()

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
        return self._puts.run(Put(key, request, variation, precondition, permit, author=author))

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
        put = Put(key, change, variation, precondition, permit, author=author, verb=Verb.PATCH)
        return self._puts.run(put)

    def once(
        self,
        key: JobKey,
        request: ScheduleRequest,
        idempotency: Idempotency | None,
        author: Author | None = None,
    ) -> Deferred[Made]:
        """See `Store.once`."""
        put = Put(key, request, 1.0, author=author, verb=Verb.ONCE)
        if idempotency is None:
            made = self._puts.run(put)
            return made.addCallback(lambda job: Made(job, is_new=True))
        once = Once(key, request, idempotency, author)

        def work(cursor: Cursor, now: datetime, since: float) -> Made:
            return self._keys.once(cursor, now, once)

        # In a line with the other requests of the key, so that they don't wait for locks.
        line = ("idempotency", key.path, idempotency.key)
        return self._puts.run_ungrouped(line, lambda: self._lane.run(work, "once"))

    def forget_keys(self, limit: int) -> Deferred[int]:
        """See `Store.forget_keys`."""

        def work(cursor: Cursor, now: datetime, since: float) -> int:
            return self._keys.forget(cursor, now, limit)

        return self._lane.run(work, "clean")

    def get(self, key: RawKey) -> Deferred[Job | UnreadableJob]:
        """See `Store.get`."""
        return self._gets.run(_Asked(key)).addCallback(lambda shown: shown.job)

    def show(self, key: RawKey, with_change: bool = False) -> Deferred[Shown]:
        """See `Store.show`."""
        return self._gets.run(_Asked(key, with_change))

    def trigger(
        self, key: RawKey, author: Author | None = None, permit: Permit | None = None
    ) -> Deferred[Job]:
        """See `Store.trigger`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Job:
            self._rows.check(cursor, key, now, None, permit)
            return self._audited.trigger(cursor, now, key, author)

        return self._puts.run_ungrouped(key, lambda: self._lane.run(work, "trigger"))

    def enable(
        self,
        key: RawKey,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job | UnreadableJob]:
        """See `Store.enable`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Job | UnreadableJob:
            self._rows.check(cursor, key, now, precondition, permit)
            return self._audited.enable(cursor, now, key, author)

        return self._puts.run_ungrouped(key, lambda: self._lane.run(work, "enable"))

    def disable(
        self,
        key: RawKey,
        reason: str | None = None,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job | UnreadableJob]:
        """See `Store.disable`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Job | UnreadableJob:
            self._rows.check(cursor, key, now, precondition, permit)
            return self._audited.disable(cursor, now, key, reason, author)

        return self._puts.run_ungrouped(key, lambda: self._lane.run(work, "disable"))

    def delete(
        self,
        key: RawKey,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[None]:
        """See `Store.delete`."""

        def work(cursor: Cursor, now: datetime, since: float) -> None:
            is_there = self._rows.check_name(cursor, key, now, precondition, permit)
            if is_there or permit is None:
                self._audited.delete(cursor, now, key, author)

        return self._puts.run_ungrouped(key, lambda: self._lane.run(work, "delete"))

    def counts(self, after: int = 0, limit: int = PIECE) -> Deferred[Counts]:
        """See `Store.counts`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Counts:
            (row,) = self._sql.counts.fetch(
                cursor,
                now=self._dialect.instant(now),
                alive=self._dialect.instant(now - ALIVE),
                last_lease=self._dialect.instant(now + MAX_LEASE),
                after=after,
                limit=limit,
            )
            try:
                lag = now - self._dialect.read_instant(row.oldest)
            except ValueError:
                lag = timedelta()  # nothing is pending
            last = after if row.last is None else int(row.last)
            return Counts(
                total=row.total,
                pending=row.pending,
                set_aside=row.set_aside,
                running=row.running,
                instances=row.instances,
                lag=lag,
                last=last if row.total == limit else None,
            )

        return self._lane.run(work, "count")

    def _read_all(
        self, cursor: Cursor, now: datetime, asked: list[_Asked]
    ) -> list[Shown | Exception | Locked]:
        rows = list(self._rows.select(cursor, self._sql.get, {each.key for each in asked}))
        some = fitting([weight_of(row.extras) for _, row in rows], READ_AT_ONCE)
        jobs = dict(self._rows.read_jobs(cursor, rows[:some], now))
        last_runs = self._history.last_runs(cursor, jobs)
        found: dict[RawKey, Shown | Locked]
        found = {key: Shown(job, last_runs.get(key)) for key, job in jobs.items()}
        wanted = [each.key for each in asked if each.with_change and each.key in jobs]
        for key, change in self._audit.last_changes(cursor, wanted).items():
            if key in jobs and _is_of(change, jobs[key]):
                found[key] = Shown(jobs[key], last_runs.get(key), change)
        found |= {key: LOCKED for key, _ in rows[some:]}
        return [found[key] if key in found else job_not_found(key) for key, _ in asked]


def _is_of(change: LastChange, job: Job | UnreadableJob) -> bool:
    """Whether nobody without a name has written the job since the change."""
    return not isinstance(job, Job) or version_at(change.at) >= job.version
