"""
Jobs: what users do to jobs, and see of jobs. `dalga.store.Store` says what each call does.

What is done to a job while a run of it is under way leaves the row to that run, and says so in
`Override` for the end of the run (P3, P4). The runs themselves are in `dalga.store.runs`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from dalga.errors import InvalidRequest, JobDisabled, JobNotFound, JobOver, JobSetAside
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import JobKey
from dalga.model.options import IfExists
from dalga.model.plan import Plan, ScheduleRequest, amended, plan
from dalga.model.schedule import timestamp
from dalga.store import PIECE, Counts, Page, Position
from dalga.store.dialect import Cursor, Dialect
from dalga.store.group_commit import LOCKED, GroupCommit, Locked
from dalga.store.rows import JobRow, Override, read_job, shown_key, terms_text, text
from dalga.store.schema import ALIVE, MAX_LEASE
from dalga.store.statements import Batch, Statements
from dalga.store.transactions import Conflict, Transactions


class _Put(NamedTuple):
    """One call of `Jobs.put`."""

    key: JobKey
    request: ScheduleRequest
    variation: float

    @property
    def minds_what_is_there(self) -> bool:
        """Whether the job that is there decides what is written: `if_exists` is update or keep."""
        return self.request.if_exists in (IfExists.UPDATE, IfExists.KEEP)

    def planned(self, now: datetime) -> Plan:
        """:raises InvalidRequest: see `dalga.model.plan.plan`."""
        return plan(self.request, now, self.variation, self.key)


class _Found(NamedTuple):
    """A row where a job is to be written."""

    row: JobRow
    #: None where it was deleted during a run that goes on.
    job: Job | UnreadableJob | None

    @property
    def is_disabled(self) -> bool:
        return isinstance(self.job, Job) and self.job.disabled

    @property
    def compared(self) -> tuple[object, ...]:
        """What a PUT goes by, and has to be as it was read when it is written."""
        row = self.row
        names = ("schedule", "location", "options")
        return (*(text(name, getattr(row, name)) for name in names), row.disabled)


class _Todo(NamedTuple):
    """What is to be written of PUTs, each key in one of four ways."""

    #: The rows of those that mind what is there.
    found: dict[JobKey, _Found]
    #: Whatever is there.
    plans: dict[JobKey, Plan]
    #: Only where nothing is there.
    added: dict[JobKey, Plan]
    #: Only while the row is as it was found: scheduled anew,
    over: dict[JobKey, Plan]
    #: or with other terms, its runs as they are.
    terms: dict[JobKey, Plan]

    def leave_out(self, key: JobKey) -> None:
        """Don't write it."""
        for group in (self.plans, self.over, self.terms):
            group.pop(key, None)

    @property
    def keys(self) -> set[JobKey]:
        """Those that are written."""
        return {*self.plans, *self.added, *self.over, *self.terms}


class Jobs:
    """
    Jobs by their keys.

    :param lane: the transactions of the API.
    """

    def __init__(self, dialect: Dialect, sql: Statements, lane: Transactions) -> None:
        self._dialect = dialect
        self._sql = sql
        self._lane = lane
        self._puts: GroupCommit[_Put, Job] = GroupCommit(lane, self._put_all, lambda put: put.key)
        self._gets: GroupCommit[JobKey, Job | UnreadableJob] = GroupCommit(lane, self._read_all)

    def close(self) -> None:
        """Begin no more PUTs and GETs; those that wait fail."""
        self._puts.close()
        self._gets.close()

    def put(self, key: JobKey, request: ScheduleRequest, variation: float = 1.0) -> Deferred[Job]:
        """See `Store.put`."""
        return self._puts.run(_Put(key, request, variation))

    def get(self, key: JobKey) -> Deferred[Job | UnreadableJob]:
        """See `Store.get`."""
        return self._gets.run(key)

    def page(self, path: str | None, after: Position | None, limit: int) -> Deferred[Page]:
        """See `Store.page`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Page:
            rows: list[Any] = []
            for condition, values in self._ranges(path, after):
                if len(rows) <= limit:
                    cursor.execute(self._sql.page(condition), (*values, limit + 1 - len(rows)))
                    rows += cursor.fetchall()
            jobs = [
                read_job(JobRow(*columns), shown_key(path, body), now, self._dialect.read_instant)
                for _, _, _, path, body, *columns in rows[:limit]
            ]
            if len(rows) <= limit:
                return Page(jobs, None)
            path_is_blob, body_is_blob, _, last_path, last_body, *_ = rows[limit - 1]
            kinds = bool(path_is_blob), bool(body_is_blob)
            return Page(jobs, Position(_octets(last_path), _octets(last_body), *kinds))

        return self._lane.run(work)

    def trigger(self, key: JobKey) -> Deferred[Job]:
        """See `Store.trigger`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Job:
            at = self._dialect.instant(now)
            cursor.execute(self._sql.trigger, (at, at, at, at, at, at, *self.key(key)))
            triggered = cursor.rowcount
            job = self._expect(cursor, key, now)
            if triggered:
                _check_until(job)
                return job
            if job.disabled:
                raise JobDisabled(
                    f"the job with path {key.path!r} and body {key.body!r} is disabled: enable it "
                    "first, with PATCH and enable=true"
                )
            raise Conflict("enabled between two statements")

        return self._lane.run(work)

    def enable(self, key: JobKey) -> Deferred[Job | UnreadableJob]:
        """See `Store.enable`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Job | UnreadableJob:
            at = self._dialect.instant(now)
            cursor.execute(self._sql.enable, (at, at, at, at, *self.key(key)))
            return self._read(cursor, key, now)

        return self._lane.run(work)

    def disable(self, key: JobKey) -> Deferred[Job | UnreadableJob]:
        """See `Store.disable`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Job | UnreadableJob:
            self._disable(cursor, key, now)
            return self._read(cursor, key, now)

        return self._lane.run(work)

    def delete(self, key: JobKey) -> Deferred[None]:
        """See `Store.delete`."""

        def work(cursor: Cursor, now: datetime, since: float) -> None:
            where = (*self.key(key), self._dialect.instant(now))
            cursor.execute(self._sql.delete_idle, where)
            if cursor.rowcount:
                return
            cursor.execute(self._sql.delete_leased, where)
            if cursor.rowcount:
                return
            cursor.execute(self._sql.find, self.key(key))
            if cursor.fetchall():
                raise Conflict("claimed or released between two statements")

        return self._lane.run(work)

    def counts(self, after: int = 0, limit: int = PIECE) -> Deferred[Counts]:
        """See `Store.counts`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Counts:
            at = self._dialect.instant(now)
            last = self._dialect.instant(now + MAX_LEASE)
            alive = self._dialect.instant(now - ALIVE)
            cursor.execute(self._sql.counts, (alive, at, at, at, last, after, limit))
            ((instances, oldest, total, pending, set_aside, running, row),) = cursor.fetchall()
            try:
                lag = now - self._dialect.read_instant(oldest)
            except ValueError:
                lag = timedelta()  # nothing is pending
            more = (after if row is None else int(row)) if total == limit else None
            counted = total, pending, set_aside, running
            return Counts(*counted, instances=instances, lag=lag, last=more)

        return self._lane.run(work)

    # Within a transaction

    def _ranges(
        self, path: str | None, after: Position | None
    ) -> list[tuple[str, tuple[object, ...]]]:
        """
        Which rows come after a place, as ranges of the key's index, one after the other: of an OR,
        or of a row value, MySQL makes none.
        """
        if after is None:
            return [("", ())] if path is None else [("AND path = %s", (self._dialect.key(path),))]
        known = self._dialect.octets(after.path_is_blob)
        body = self._dialect.octets(after.body_is_blob)
        ranges: list[tuple[str, tuple[object, ...]]] = [
            (f"AND path = {known} AND body > {body}", (after.path, after.body))
        ]
        return ranges if path is not None else [*ranges, (f"AND path > {known}", (after.path,))]

    def key(self, key: JobKey) -> tuple[object, object]:
        return self._dialect.key(key.path), self._dialect.key(key.body)

    def _put_all(
        self, cursor: Cursor, now: datetime, puts: list[_Put]
    ) -> list[Job | Exception | Locked]:
        """
        Write jobs, each key but once; what is refused is the answer, and not written. Of several
        those whose row somebody has locked are left out.
        """
        results: dict[JobKey, Job | Exception | Locked] = {}
        todo = self._sorted(cursor, now, puts, results)
        self._add(cursor, todo.added)
        plans = todo.plans
        if len(puts) > 1 and self._dialect.skip_locked:
            # New ones first: they may have to wait for somebody who adds the same, and others' rows
            # are not to be locked meanwhile.
            there = self._there(cursor, plans)
            new = {key: plans[key] for key in plans if key not in there}
            # One for each that was added, two for one that somebody had added meanwhile.
            if self.upsert(cursor, new, now) == len(new):
                results |= {key: as_planned(key, plans.pop(key)) for key in new}
            wanted = there.union(todo.over, todo.terms)
            free = self.lock(cursor, wanted)
            for key in wanted - free:
                results[key] = LOCKED
                todo.leave_out(key)
            plans = {key: plans[key] for key in plans if key in free}
        for key, terms in todo.terms.items():
            self._amend(cursor, key, todo.found[key], terms)
        for key in todo.over:
            self._hold(cursor, key, todo.found[key])
        self.upsert(cursor, plans | todo.over, now)
        for key in todo.over:
            if todo.found[key].is_disabled:
                self._disable(cursor, key, now)
        for key, job in self.read_rows(cursor, todo.keys, now):
            results[key] = self._readable(job, key)
        for put in puts:
            if put.key in todo.added:
                _check_added(put, todo.added[put.key], results.get(put.key))
        return [results[put.key] for put in puts]

    def _sorted(
        self,
        cursor: Cursor,
        now: datetime,
        puts: list[_Put],
        results: dict[JobKey, Job | Exception | Locked],
    ) -> _Todo:
        """What is to be written of PUTs; `results` gets the answers of those that write nothing."""
        found = self._found(cursor, [put.key for put in puts if put.minds_what_is_there], now)
        todo = _Todo(found, {}, {}, {}, {})
        # In the order of the key, in which all transactions add several rows: two that add the
        # same can't each wait for the other.
        for put in sorted(puts, key=lambda put: put.key):
            key = put.key
            try:
                if not put.minds_what_is_there:
                    todo.plans[key] = put.planned(now)
                elif key not in found:
                    todo.added[key] = put.planned(now)
                else:
                    answer, terms = self._decide(put, found[key].job, now)
                    if answer is not None:
                        results[key] = answer
                    elif terms is not None:
                        todo.terms[key] = terms
                    else:
                        todo.over[key] = put.planned(now)
            except (InvalidRequest, JobSetAside) as refusal:
                results[key] = refusal
        return todo

    def _found(
        self, cursor: Cursor, keys: Collection[JobKey], now: datetime
    ) -> dict[JobKey, _Found]:
        """What there is of some jobs."""
        found = {}
        for key, columns in self._select(cursor, self._sql.find_rows, keys):
            row = JobRow(*columns)
            job = read_job(row, key, now, self._dialect.read_instant)
            found[key] = _Found(row, None if row.override == Override.DELETED else job)
        return found

    def _decide(
        self, put: _Put, job: Job | UnreadableJob | None, now: datetime
    ) -> tuple[Job | None, Plan | None]:
        """
        What a PUT comes to that minds what is there.

        :param job: None where it was deleted during a run that goes on.
        :return: the job, where there is nothing to change; else the terms that it gets, or None
            where it is scheduled anew.
        :raises InvalidRequest: see `dalga.model.plan.amended`.
        :raises JobSetAside: if it is to be kept, and can't be understood.
        """
        if put.request.if_exists is IfExists.KEEP and job is not None:
            return self._readable(job, put.key), None
        if not isinstance(job, Job):
            return None, None
        terms = amended(job, put.request, now)
        if terms and (terms.schedule, terms.options) == (job.schedule, job.options):
            return job, None
        return None, terms

    def _amend(self, cursor: Cursor, key: JobKey, found: _Found, terms: Plan) -> None:
        """Write the terms of a job, whose runs go on as they were."""
        texts = terms_text(terms.schedule, terms.options)
        # An `until` was held against the run that the job had.
        scheduled = self._dialect.instant(terms.first)
        values = (*texts, *self.key(key), *found.compared, scheduled)
        cursor.execute(self._sql.amend, values)
        if cursor.rowcount != 1:
            raise Conflict("changed between two statements")

    def _hold(self, cursor: Cursor, key: JobKey, found: _Found) -> None:
        """Make sure, up to the end of the transaction, that a job is as it was found."""
        if isinstance(found.job, UnreadableJob):
            return  # nor can it be compared; it is mended, whatever it is
        if found.job is None:
            cursor.execute(self._sql.hold_deleted, self.key(key))
        else:
            cursor.execute(self._sql.hold, (*self.key(key), *found.compared))
        if cursor.rowcount != 1:
            raise Conflict("changed between two statements")

    def _add(self, cursor: Cursor, plans: dict[JobKey, Plan]) -> None:
        """Write jobs where nothing is there; what somebody has added meanwhile stays."""
        if plans:
            rows = [value for key, planned in plans.items() for value in self._row(key, planned)]
            cursor.execute(self._sql.add(len(plans)), rows)

    def upsert(self, cursor: Cursor, plans: dict[JobKey, Plan], now: datetime) -> int:
        """Write jobs, new or over those that are there; gives what the driver counts."""
        if not plans:
            return 0
        at = self._dialect.instant(now)
        rows = [value for key, planned in plans.items() for value in self._row(key, planned)]
        cursor.execute(self._sql.put(len(plans)), (*rows, at, at, at, at))
        return int(cursor.rowcount)

    def _row(self, key: JobKey, planned: Plan) -> tuple[object, ...]:
        terms = terms_text(planned.schedule, planned.options)
        anchor, first = map(self._dialect.instant, (planned.anchor, planned.first))
        return (*self.key(key), *terms, anchor, first, first)

    def _disable(self, cursor: Cursor, key: JobKey, now: datetime) -> None:
        at = self._dialect.instant(now)
        cursor.execute(self._sql.disable, (at, at, at, *self.key(key)))

    def _there(self, cursor: Cursor, keys: Collection[JobKey]) -> set[JobKey]:
        """Those of the jobs that are in the table, locked or not."""
        return {key for key, _ in self._select(cursor, self._sql.find_all, keys)}

    def lock(self, cursor: Cursor, keys: Collection[JobKey]) -> set[JobKey]:
        """Lock those of the jobs that nobody else has locked."""
        return {key for key, _ in self._select(cursor, self._sql.lock, keys)}

    def _read_all(
        self, cursor: Cursor, now: datetime, keys: list[JobKey]
    ) -> list[Job | UnreadableJob | Exception | Locked]:
        found = dict(self.read_rows(cursor, set(keys), now))
        return [found[key] if key in found else _not_found(key) for key in keys]

    def _read(self, cursor: Cursor, key: JobKey, now: datetime) -> Job | UnreadableJob:
        rows = dict(self.read_rows(cursor, (key,), now))
        if not rows:
            raise _not_found(key)
        return rows[key]

    def read_rows(
        self, cursor: Cursor, keys: Collection[JobKey], now: datetime
    ) -> Iterator[tuple[JobKey, Job | UnreadableJob]]:
        for key, columns in self._select(cursor, self._sql.get, keys):
            yield key, read_job(JobRow(*columns), key, now, self._dialect.read_instant)

    def _select(
        self, cursor: Cursor, statement: Batch, keys: Collection[JobKey]
    ) -> Iterator[tuple[JobKey, list[Any]]]:
        """The rows that there are of some jobs, with what stands in them behind id and key."""
        if not keys:
            return
        wanted = {tuple(map(_octets, self.key(key))): key for key in keys}
        cursor.execute(statement(len(wanted)), [value for key in keys for value in self.key(key)])
        for _, path, body, *columns in cursor.fetchall():
            yield wanted[_octets(path), _octets(body)], columns

    def _expect(self, cursor: Cursor, key: JobKey, now: datetime) -> Job:
        """Read a job that has to be readable, or the write before it is undone."""
        return self._readable(self._read(cursor, key, now), key)

    def _readable(self, job: Job | UnreadableJob, key: JobKey) -> Job:
        if isinstance(job, UnreadableJob):
            raise JobSetAside(
                f"the job with path {key.path!r} and body {key.body!r} can't be understood "
                f"({job.problem}): schedule it anew with PUT, or delete it"
            )
        return job


def _not_found(key: JobKey) -> JobNotFound:
    return JobNotFound(f"there is no job with path {key.path!r} and body {key.body!r}")


def as_planned(key: JobKey, planned: Plan) -> Job:
    """A job that was not there before."""
    return Job(
        key=key,
        schedule=planned.schedule,
        options=planned.options,
        anchor=planned.anchor,
        scheduled=planned.first,
        due=planned.first,
    )


def _check_added(put: _Put, planned: Plan, job: Job | Exception | Locked | None) -> None:
    """:raises Conflict: where somebody has added the job meanwhile, and it is to be looked at."""
    if put.request.if_exists is IfExists.KEEP and job is not None:
        return
    if job != as_planned(put.key, planned):
        raise Conflict("added between two statements")


def _check_until(job: Job) -> None:
    """:raises JobOver: if the job was triggered after that."""
    until = job.options.until
    if until is not None and job.scheduled > until:
        raise JobOver(
            f"the job with path {job.key.path!r} and body {job.key.body!r} has until "
            f"{timestamp(until)}, which is past: there is no new run of it, unless you PUT it with "
            "a later one"
        )


def _octets(text: object) -> bytes:
    """A path or body, as a parameter or as a column's value, to compare the two."""
    return text.encode() if isinstance(text, str) else bytes(text)  # type: ignore[call-overload]
