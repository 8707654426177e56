"""
What PUTs write: many jobs in one transaction. Each is new, or written over the job that is there,
or written only if the job that is there is still as it was read (`if_exists`). `dalga.store.jobs`
gathers the PUTs that share a transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from dalga.errors import InvalidRequest, JobSetAside
from dalga.model.job import Job, UnreadableJob, readable
from dalga.model.key import JobKey
from dalga.model.options import IfExists
from dalga.model.plan import Plan, ScheduleRequest, amended, plan
from dalga.store.dialect import Cursor, Dialect
from dalga.store.group_commit import LOCKED, Locked
from dalga.store.keyed import KeyedRows
from dalga.store.rows import JobRow, Override, read_job, terms_text, text
from dalga.store.statements import NewRow, Statements
from dalga.store.transactions import Conflict


class Put(NamedTuple):
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
    #: None if the job was deleted during a run that is still under way.
    job: Job | UnreadableJob | None

    @property
    def is_disabled(self) -> bool:
        return isinstance(self.job, Job) and self.job.disabled

    @property
    def compared(self) -> dict[str, object]:
        """The columns that must be as they were read when the PUT is written, as parameters."""
        row = self.row
        return {
            "found_schedule": text("schedule", row.schedule),
            "found_location": text("location", row.location),
            "found_options": text("options", row.options),
            "found_disabled": row.disabled,
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

    def leave_out(self, key: JobKey) -> None:
        """Don't write this job."""
        for group in (self.plans, self.over, self.terms):
            group.pop(key, None)

    @property
    def keys(self) -> set[JobKey]:
        """The keys of all jobs that are written."""
        return {*self.plans, *self.added, *self.over, *self.terms}


class Puts:
    """:param rows: of the jobs that are there."""

    def __init__(self, dialect: Dialect, sql: Statements, rows: KeyedRows) -> None:
        self._dialect = dialect
        self._sql = sql
        self._rows = rows

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
        self._add(cursor, todo.added)
        plans = todo.plans
        if len(puts) > 1 and self._dialect.skip_locked:
            # New jobs first: they may have to wait for another session that adds the same job, and
            # other jobs' rows are not to be locked meanwhile.
            there = self._rows.there(cursor, plans)
            new = {key: plans[key] for key in plans if key not in there}
            # The driver counts 1 for a job that was added, 2 for a job that was there by then.
            if self.upsert(cursor, new, now) == len(new):
                results |= {key: as_planned(key, plans.pop(key)) for key in new}
            wanted = there.union(todo.over, todo.terms)
            free = self._rows.lock(cursor, wanted)
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
                self._rows.disable(cursor, key, now)
        for key, job in self._rows.read_rows(cursor, todo.keys, now):
            results[key] = readable(job)
        for put in puts:
            if put.key in todo.added:
                _check_added(put, todo.added[put.key], results.get(put.key))
        return [results[put.key] for put in puts]

    def _sorted(
        self,
        cursor: Cursor,
        now: datetime,
        puts: list[Put],
        results: dict[JobKey, Job | Exception | Locked],
    ) -> _Todo:
        """What is to be written of PUTs. `results` gets the answers of PUTs that write nothing."""
        found = self._found(cursor, [put.key for put in puts if put.minds_what_is_there], now)
        todo = _Todo(found, {}, {}, {}, {})
        # In the order of the keys, as all transactions add rows: so two transactions that add the
        # same jobs can't each wait for the other.
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
        """The rows of the jobs that are there."""
        found = {}
        for key, row in self._rows.select(cursor, self._sql.find_rows, keys):
            job = read_job(row, key, now, self._dialect.read_instant)
            found[key] = _Found(row, None if row.override == Override.DELETED else job)
        return found

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
        if put.request.if_exists is IfExists.KEEP and job is not None:
            return readable(job), None
        if not isinstance(job, Job):
            return None, None
        terms = amended(job, put.request, now)
        if terms and (terms.schedule, terms.options) == (job.schedule, job.options):
            return job, None
        return None, terms

    def _amend(self, cursor: Cursor, key: JobKey, found: _Found, terms: Plan) -> None:
        """Write a job's terms. Its runs go on as they were."""
        texts = terms_text(terms.schedule, terms.options)
        # The run is compared, too: `until` was checked against it.
        changed = self._sql.amend.execute(
            cursor,
            scheduled=self._dialect.instant(terms.first),
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

    def _add(self, cursor: Cursor, plans: dict[JobKey, Plan]) -> None:
        """Write jobs where nothing is there. A job that was added meanwhile stays."""
        if plans:
            self._sql.add.execute(cursor, self._new_rows(plans))

    def upsert(self, cursor: Cursor, plans: dict[JobKey, Plan], now: datetime) -> int:
        """
        Write jobs, new or over the jobs that are there.

        :return: the driver's count: see `write`.
        """
        if not plans:
            return 0
        rows = self._new_rows(plans)
        return self._sql.put.execute(cursor, rows, now=self._dialect.instant(now))

    def _new_rows(self, plans: dict[JobKey, Plan]) -> list[NewRow]:
        return [self._new_row(key, planned) for key, planned in plans.items()]

    def _new_row(self, key: JobKey, planned: Plan) -> NewRow:
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
        )


def as_planned(key: JobKey, planned: Plan) -> Job:
    """A new job, as it stands once its plan is written."""
    return Job(
        key=key,
        schedule=planned.schedule,
        options=planned.options,
        anchor=planned.anchor,
        scheduled=planned.first,
        due=planned.first,
    )


def _check_added(put: Put, planned: Plan, job: Job | Exception | Locked | None) -> None:
    """:raises Conflict: if another job was added meanwhile, unless the PUT is to keep that."""
    if put.request.if_exists is IfExists.KEEP and job is not None:
        return
    if job != as_planned(put.key, planned):
        raise Conflict("added between two statements")
