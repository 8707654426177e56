"""
What PUTs write: many jobs in one transaction. Each is new, or written over the job that is there,
or written only if the job that is there is still as it was read (`if_exists`). `dalga.store.jobs`
gathers the PUTs that share a transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from dalga.errors import (
    Forbidden,
    InvalidRequest,
    JobNotFound,
    JobSetAside,
    PreconditionFailed,
)
from dalga.model.audit import Changed, Verb
from dalga.model.fields import Terms
from dalga.model.job import Job, UnreadableJob, endpoint_of, readable
from dalga.model.key import JobKey, job_not_found
from dalga.model.options import IfExists
from dalga.model.patch import replanned
from dalga.model.permit import Author, Permit
from dalga.model.plan import Plan, ScheduleRequest, amended, as_it_was, plan
from dalga.model.precondition import Precondition
from dalga.model.record import Result
from dalga.store import Change
from dalga.store.alerts import AlertRows
from dalga.store.audit import AuditRows
from dalga.store.details import READ_AT_ONCE, DetailRows, Written
from dalga.store.dialect import Cursor, Dialect
from dalga.store.extras import (
    OPEN,
    STALE,
    Details,
    details_text,
    extras_of,
    fitting,
    has_details,
    is_detailed,
    is_open,
    weight_of,
)
from dalga.store.group_commit import LOCKED, Locked
from dalga.store.keyed import KeyedRows, version_of
from dalga.store.recording import NO_ROWS, OpenRows, Recording
from dalga.store.rows import Override, read_job, terms_text, text, version_at
from dalga.store.selected import JobRow
from dalga.store.statements import NewRow, Statements
from dalga.store.transactions import Conflict

#: Why a PUT may write nothing.
_REFUSALS = (Forbidden, InvalidRequest, JobNotFound, JobSetAside, PreconditionFailed)


class Put(NamedTuple):
    """One call of `Jobs.put` or `Jobs.patch`."""

    key: JobKey
    #: Of a PATCH, until `of`: what makes the request of the job that is there.
    request: ScheduleRequest | Change
    variation: float
    precondition: Precondition | None = None
    permit: Permit | None = None
    #: Whether `of` has made the request.
    is_patch: bool = False
    #: Who stands with it in the audit list, and as what; None for no entry there.
    author: Author | None = None
    verb: Verb = Verb.PUT

    @property
    def minds_what_is_there(self) -> bool:
        """
        Whether the job that is there decides what is written, or whether anything is; or has to be
        known for the audit list.
        """
        return (
            self.precondition is not None
            or self.permit is not None
            or self.if_exists is not IfExists.RESCHEDULE
            or self.author is not None
        )

    @property
    def if_exists(self) -> IfExists:
        if not isinstance(self.request, ScheduleRequest):
            return IfExists.UPDATE
        return self.request.if_exists or IfExists.RESCHEDULE

    def is_hidden(self, found: _Found) -> bool:
        """
        Whether a PATCH is to go on as if nothing were there.

        :raises Forbidden: if there is a job that the caller may not change.
        """
        if self.permit is None or found.job is None:
            return False
        endpoint = endpoint_of(found.job)
        if not isinstance(self.request, ScheduleRequest) and self.permit.hides(self.key, endpoint):
            return True
        self.permit.check_name(self.key, endpoint)
        return False

    def of(self, found: _Found | None) -> Put:
        """
        The PUT that a PATCH comes to; a PUT as it is.

        :param found: the row that is there.
        :raises JobNotFound: if a PATCH finds no job.
        :raises JobSetAside: if a PATCH finds a row that can't be understood.
        :raises InvalidRequest: if the change can't be made.
        """
        if isinstance(self.request, ScheduleRequest):
            return self
        if found is None or found.job is None:
            raise job_not_found(self.key)
        request = self.request(readable(found.job))
        return self._replace(request=replace(request, if_exists=IfExists.UPDATE), is_patch=True)

    def planned(self, now: datetime) -> Plan:
        """:raises InvalidRequest: see `dalga.model.plan.plan`."""
        assert isinstance(self.request, ScheduleRequest)  # see `of`
        return plan(self.request, now, self.variation, self.key)

    def replanned(self, job: Job | UnreadableJob | None, now: datetime) -> Plan:
        """
        The plan where a job is there, and is scheduled anew.

        :raises InvalidRequest: as `planned` does.
        """
        if self.is_patch and isinstance(job, Job):
            assert isinstance(self.request, ScheduleRequest)  # see `of`
            return replanned(job, self.request, now, self.variation)
        return self.planned(now)

    def amended(self, job: Job, now: datetime) -> Plan | None:
        """:raises InvalidRequest: see `dalga.model.plan.amended`."""
        assert isinstance(self.request, ScheduleRequest)  # see `of`
        return amended(job, self.request, now)


class _Found(NamedTuple):
    """A row where a job is to be written."""

    row: JobRow
    #: None if the job was deleted during a run that is still under way.
    job: Job | UnreadableJob | None

    @property
    def disabled(self) -> Job | None:
        """The job, if it is disabled."""
        return self.job if isinstance(self.job, Job) and self.job.disabled else None

    @property
    def compared(self) -> dict[str, object]:
        """The columns that must be as they were read when the PUT is written, as parameters."""
        row = self.row
        return {
            "found_schedule": text("schedule", row.schedule),
            "found_location": text("location", row.location),
            "found_options": text("options", row.options),
            "found_disabled": row.disabled,
            "found_version": row.version,
            "found_extras": row.extras,
        }


class _Todo(NamedTuple):
    """What is to be written of PUTs. Each job is in one of `plans`, `added`, `over` and `terms`."""

    #: The rows that were read, of the PUTs that mind what is there.
    found: dict[JobKey, _Found]
    #: Jobs that are written whatever is there.
    plans: dict[JobKey, Plan]
    #: Jobs that are written only if nothing is there.
    added: dict[JobKey, Plan]
    #: Jobs that are scheduled anew, if their rows are still as they were read.
    over: dict[JobKey, Plan]
    #: Jobs that get other terms and keep their runs, if their rows are still as they were read.
    terms: dict[JobKey, Plan]
    #: Those of `over` that stay disabled.
    disabled: set[JobKey]

    def leave_out(self, key: JobKey) -> None:
        """Don't write this job."""
        for group in (self.plans, self.over, self.terms):
            group.pop(key, None)

    @property
    def as_expected(self) -> set[JobKey]:
        """Jobs that keep their runs, and whose next success is awaited as before."""
        return {
            key
            for key, terms in self.terms.items()
            if isinstance(job := self.found[key].job, Job)
            and job.options.expect_within == terms.options.expect_within
        }

    @property
    def written(self) -> dict[JobKey, Plan]:
        """All jobs that are written."""
        return {**self.plans, **self.added, **self.over, **self.terms}


class Puts:
    """
    :param rows: of the jobs that are there.
    :param alerts: for jobs that are expected to succeed now and then.
    :param audit: for PUTs that have an author.
    """

    def __init__(
        self,
        dialect: Dialect,
        sql: Statements,
        rows: KeyedRows,
        details: DetailRows,
        alerts: AlertRows,
        recording: Recording,
        audit: AuditRows,
    ) -> None:
        self._dialect = dialect
        self._sql = sql
        self._rows = rows
        self._details = details
        self._alerts = alerts
        self._recording = recording
        self._audit = audit

    def write(
        self, cursor: Cursor, now: datetime, puts: list[Put]
    ) -> list[Job | Exception | Locked]:
        """
        Write jobs, no key twice. A PUT that is refused is not written, and its answer is the
        refusal. If there are several PUTs, a job whose row another session has locked is left out:
        its answer is `LOCKED`.
        """
        results: dict[JobKey, Job | Exception | Locked] = {}
        todo = self._sorted(cursor, now, puts, results)
        self._add(cursor, todo.added, now)
        plans, rows_open = todo.plans, NO_ROWS
        if len(puts) > 1 and self._dialect.skip_locked:
            # New jobs first: they may have to wait for another session that adds the same job, and
            # other jobs' rows are not to be locked meanwhile.
            there = self._rows.there(cursor, plans)
            new = {key: plans[key] for key in plans if key not in there}
            # The driver counts 1 for a job that was added, 2 for a job that was there by then.
            if self.upsert(cursor, new, now) == len(new):
                # Those with something in other tables are read for the ids of their rows.
                done = [key for key in new if not has_details(new[key])]
                results |= {key: as_planned(key, plans.pop(key), now) for key in done}
            wanted = there.union(todo.over, todo.terms)
            free, rows_open = self._free(cursor, wanted)
            for key in wanted - free:
                results[key] = LOCKED
                todo.leave_out(key)
            plans = {key: plans[key] for key in plans if key in free}
        for key, terms in todo.terms.items():
            self._amend(cursor, key, todo.found[key], terms, now)
        for key in todo.over:
            self._hold(cursor, key, todo.found[key])
        self._hold_disabling(cursor, [todo.found[key] for key in (*todo.terms, *todo.disabled)])
        self.upsert(cursor, plans | todo.over, now)
        for key in todo.disabled.intersection(todo.over):
            self._rows.disable(cursor, key, now)
        written = todo.written
        settled = self.settle(
            cursor, written, todo.added, now, todo.as_expected, todo.terms, rows_open
        )
        results |= settled
        self._audit.write(cursor, now, list(_changed(puts, todo.found, settled)))
        for put in puts:
            # A PUT that keeps what is there keeps what was added meanwhile.
            is_kept = put.if_exists is IfExists.KEEP and not (put.precondition or put.permit)
            if put.key not in results and is_kept:
                for _, job in self._rows.read_rows(cursor, (put.key,), now):
                    results[put.key] = readable(job)
        if len(results) != len(puts):
            raise Conflict("added between two statements")
        return [results[put.key] for put in puts]

    def _free(self, cursor: Cursor, keys: set[JobKey]) -> tuple[set[JobKey], OpenRows]:
        """
        Lock the rows of jobs, and give the keys of those that no other session has locked, with
        their open rows.
        """
        free = self._rows.lock(cursor, keys)
        opened = {row.id: key for key, row in free.items() if is_open(row.extras)}
        held = self._recording.hold(cursor, list(opened))
        return free.keys() - {opened[id] for id in held.locked}, held.rows

    def settle(
        self,
        cursor: Cursor,
        plans: Mapping[JobKey, Plan],
        added: Collection[JobKey],
        now: datetime,
        as_expected: Collection[JobKey] = (),
        going_on: Collection[JobKey] = (),
        rows_open: OpenRows = NO_ROWS,
    ) -> dict[JobKey, Job]:
        """
        Write what jobs have in other tables, once their rows are written.

        :param added: those jobs that were written only if there was no other one.
        :param as_expected: those whose next success is awaited as before.
        :param going_on: those jobs whose runs go on as they were.
        :param rows_open: open rows that this transaction holds.
        :return: all jobs, as they stand now, but for those of `added` that somebody else has added.
        """
        rows = dict(self._rows.select(cursor, self._sql.get, plans))
        for key in added:
            if key in rows and not self._is_ours(cursor, key, rows[key], plans[key], now):
                del rows[key]
        some = [Written(key, row, plans[key]) for key, row in rows.items() if row.extras]
        self._details.settle(cursor, some)
        expected = [
            (each.row.id, each.key, within)
            for each in some
            if (within := each.terms.options.expect_within) and each.key not in as_expected
        ]
        self._alerts.expect(cursor, now, expected)
        # A run that is under way has its end yet.
        replaced = [
            each.row.id
            for each in some
            if is_open(each.row.extras) and each.row.token is None and each.key not in going_on
        ]
        self._recording.close(cursor, replaced, Result.OVERRIDDEN, now, rows_open)
        self._unmark(cursor, some, replaced)
        jobs = {}
        for key, row in rows.items():
            beside = Details(plans[key].delivery, plans[key].notes)
            jobs[key] = readable(read_job(row, key, now, self._dialect.read_instant, beside))
        return jobs

    def _unmark(self, cursor: Cursor, written: Sequence[Written], replaced: Sequence[int]) -> None:
        """
        Take from the rows of jobs the marks of what is there no more.

        :param replaced: the ids of those whose open row is removed.
        """
        marked: defaultdict[int, list[int]] = defaultdict(list)
        for _, row, _ in written:
            bits = row.extras & STALE | (OPEN if row.id in replaced else 0)
            if bits:
                marked[bits].append(row.id)
        for bits, ids in marked.items():
            self._recording.unmark(cursor, ids, bits)

    def _is_ours(
        self, cursor: Cursor, key: JobKey, row: JobRow, planned: Plan, now: datetime
    ) -> bool:
        """Whether the row of a job that was to be added is the one that was added."""
        beside = Details(planned.delivery, planned.notes)
        job = read_job(row, key, now, self._dialect.read_instant, beside)
        if job != as_planned(key, planned, now) or row.version != version_at(now):
            return False
        # Another session may have added the same in the same microsecond, but with another payload.
        if not has_details(planned):
            return bool(row.extras == 0)
        return not self._details.are_there(cursor, row)

    def _sorted(
        self,
        cursor: Cursor,
        now: datetime,
        puts: list[Put],
        results: dict[JobKey, Job | Exception | Locked],
    ) -> _Todo:
        """What is to be written of PUTs. `results` gets the answers of PUTs that write nothing."""
        rows = list(
            self._rows.select(
                cursor,
                self._sql.find_rows,
                [put.key for put in puts if put.minds_what_is_there],
            )
        )
        some = fitting([weight_of(row.extras) for _, row in rows], READ_AT_ONCE)
        results |= {key: LOCKED for key, _ in rows[some:]}  # each is done alone
        found = self._found(cursor, rows[:some], now)
        todo = _Todo(found, {}, {}, {}, {}, set())
        # In the order of the keys, as all transactions add rows: so two transactions that add the
        # same jobs can't each wait for the other.
        for put in sorted(puts, key=lambda put: put.key):
            if put.key in results:
                continue
            try:
                self._sort(put, now, todo, results)
            except _REFUSALS as refusal:
                results[put.key] = refusal
        return todo

    def _sort(
        self,
        put: Put,
        now: datetime,
        todo: _Todo,
        results: dict[JobKey, Job | Exception | Locked],
    ) -> None:
        """
        Find what is to be written of a PUT.

        :raises InvalidRequest: if it is refused, as the other errors are.
        """
        key = put.key
        if not put.minds_what_is_there:
            todo.plans[key] = put.planned(now)
            return
        found = todo.found.get(key)
        if found is not None and put.is_hidden(found):
            found = None
        if put.precondition is not None:
            put.precondition.check(key, version_of(found and found.job))
        put = put.of(found)
        if found is None:
            todo.added[key] = put.planned(now)
            return
        answer, terms = self._decide(put, found.job, now)
        if answer is not None:
            results[key] = answer
        elif terms is not None:
            todo.terms[key] = terms
        elif found.disabled is not None and put.if_exists is IfExists.UPDATE:
            todo.disabled.add(key)
            todo.over[key] = as_it_was(put.replanned(found.disabled, now), found.disabled)
        else:
            todo.over[key] = put.replanned(found.job, now)

    def _found(
        self, cursor: Cursor, rows: Sequence[tuple[JobKey, JobRow]], now: datetime
    ) -> dict[JobKey, _Found]:
        """The rows of the jobs that are there."""
        jobs = dict(self._rows.read_jobs(cursor, rows, now))
        return {
            key: _Found(row, None if row.override == Override.DELETED else jobs[key])
            for key, row in rows
        }

    def _decide(
        self, put: Put, job: Job | UnreadableJob | None, now: datetime
    ) -> tuple[Job | None, Plan | None]:
        """
        What a PUT that minds what is there comes to.

        :param job: None if the job was deleted during a run that is still under way.
        :return: the job, if there is nothing to change; and the terms that the job gets. Both are
            None if the job is scheduled anew.
        :raises InvalidRequest: see `dalga.model.plan.amended`.
        :raises JobSetAside: if the job is to be kept, and its row can't be understood.
        """
        if put.if_exists is IfExists.KEEP and job is not None:
            return readable(job), None
        if put.if_exists is IfExists.RESCHEDULE or not isinstance(job, Job):
            return None, None
        terms = put.amended(job, now)
        if terms and _terms_of(terms) == _terms_of(job):
            return job, None
        return None, terms

    def _amend(
        self, cursor: Cursor, key: JobKey, found: _Found, terms: Plan, now: datetime
    ) -> None:
        """Write a job's terms. Its runs go on as they were."""
        texts = terms_text(terms.schedule, terms.options)
        extras, before = extras_of(terms, details_text(terms)), found.row.extras
        stale = STALE if before & ~OPEN else 0
        # The run is compared, too: `until` was checked against it.
        changed = self._sql.amend.execute(
            cursor,
            scheduled=self._dialect.instant(terms.first),
            version=version_at(now),
            extras=extras | stale | before & OPEN,
            **texts._asdict(),
            **self._rows.key(key)._asdict(),
            **found.compared,
        )
        if changed != 1:
            raise Conflict("changed between two statements")

    def _hold(self, cursor: Cursor, key: JobKey, found: _Found) -> None:
        """Make sure, up to the end of the transaction, that a job is as it was found."""
        if isinstance(found.job, UnreadableJob):
            return  # it can't be compared; the PUT mends it, whatever it is
        where = self._rows.key(key)._asdict()
        if found.job is None:
            held = self._sql.hold_deleted.execute(cursor, **where)
        else:
            held = self._sql.hold.execute(cursor, **where, **found.compared)
        if held != 1:
            raise Conflict("changed between two statements")

    def _hold_disabling(self, cursor: Cursor, found: Collection[_Found]) -> None:
        """
        Make sure of jobs whose rows are locked by now, and that stay disabled, that why and since
        when is as it was found. A PATCH that says this anew changes neither `version` nor, if there
        were details before, `extras`.
        """
        rows = {each.row.id: each.disabled for each in found if is_detailed(each.row.extras)}
        jobs = {id: job for id, job in rows.items() if job is not None}
        for id, details in self._details.read_own(cursor, list(jobs)).items():
            if isinstance(details, Details) and details.notes.disabled != jobs[id].notes.disabled:
                raise Conflict("disabled anew between two statements")

    def _add(self, cursor: Cursor, plans: dict[JobKey, Plan], now: datetime) -> None:
        """Write jobs where nothing is there. A job that was added meanwhile stays."""
        if plans:
            self._sql.add.execute(cursor, self._new_rows(plans, now))

    def upsert(self, cursor: Cursor, plans: dict[JobKey, Plan], now: datetime) -> int:
        """
        Write jobs, new or over the jobs that are there.

        :return: the driver's count: see `write`.
        """
        if not plans:
            return 0
        rows = self._new_rows(plans, now)
        return self._sql.put.execute(cursor, rows, now=self._dialect.instant(now))

    def _new_rows(self, plans: dict[JobKey, Plan], now: datetime) -> list[NewRow]:
        version = version_at(now)
        return [self.new_row(key, planned, version) for key, planned in plans.items()]

    def new_row(self, key: JobKey, planned: Plan, version: int) -> NewRow:
        """The row of a new job."""
        path, body = self._rows.key(key)
        schedule, location, options = terms_text(planned.schedule, planned.options)
        first = self._dialect.instant(planned.first)
        return NewRow(
            path=path,
            body=body,
            schedule=schedule,
            location=location,
            options=options,
            anchor=self._dialect.instant(planned.anchor),
            scheduled=first,
            due=first,
            version=version,
            extras=extras_of(planned, details_text(planned)),
        )


def _changed(
    puts: Sequence[Put], found: Mapping[JobKey, _Found], written: Mapping[JobKey, Job]
) -> Iterator[Changed]:
    """The changes of those PUTs that have an author, and have written a job."""
    for put in puts:
        if put.author is not None and put.key in written:
            there = found.get(put.key)
            old = None if there is None else there.job
            yield Changed(put.author, put.verb, put.key, old, written[put.key])


def as_planned(key: JobKey, planned: Plan, now: datetime) -> Job:
    """
    A new job, as it stands once its plan is written.

    :param now: when it is written.
    """
    return Job(
        key=key,
        schedule=planned.schedule,
        options=planned.options,
        anchor=planned.anchor,
        scheduled=planned.first,
        due=planned.first,
        delivery=planned.delivery,
        notes=planned.notes,
        version=version_at(now),
    )


def _terms_of(terms: Terms) -> tuple[object, ...]:
    return terms.schedule, terms.options, terms.delivery, terms.notes
