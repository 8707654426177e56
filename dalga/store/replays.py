"""
Replays: jobs that repeat runs which have ended. `dalga.model.replay` says what such a job is.

A replay is due when it is made, and not at the time of the run that it repeats: so thousands of
replays stand behind all jobs that are due already (P6, P7).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from dalga.errors import InvalidRequest, JobSetAside, ReplayImpossible, RunUnderWay
from dalga.model.audit import Changed, Verb
from dalga.model.job import Job, UnreadableJob, endpoint_of, readable
from dalga.model.key import JobKey, RawKey
from dalga.model.name import RANDOM_OCTETS, generated_name
from dalga.model.permit import Author, Limits
from dalga.model.plan import Plan
from dalga.model.record import Record
from dalga.model.replay import replay_of
from dalga.model.run import Cause
from dalga.model.runid import RunId, run_not_found
from dalga.store.audit import AuditRows
from dalga.store.details import DetailRows
from dalga.store.dialect import Cursor, Dialect
from dalga.store.extras import fitting, is_detailed, weight_of
from dalga.store.history import History
from dalga.store.keyed import KeyedRows
from dalga.store.parameters import Statement
from dalga.store.puts import Puts
from dalga.store.rows import read_job, version_at
from dalga.store.selected import JobRow
from dalga.store.statements import NewRow, Statements
from dalga.store.transactions import Conflict, Transactions

#: What one transaction writes of payloads and other details, in octets, unless one job has more.
WRITTEN = 2**20

#: Why a run can't be replayed.
Refusal = ReplayImpossible | JobSetAside | InvalidRequest


class Repeated(NamedTuple):
    """What became of some runs."""

    #: The replays, as they stand.
    jobs: list[Job]
    refusals: list[Refusal]


class Replays:
    """
    :param lane: the transactions of the API.
    :param token: makes a random token, of 16 octets.
    """

    def __init__(
        self,
        dialect: Dialect,
        sql: Statements,
        lane: Transactions,
        rows: KeyedRows,
        details: DetailRows,
        puts: Puts,
        history: History,
        audit: AuditRows,
        token: Callable[[], bytes],
    ) -> None:
        self._dialect = dialect
        self._sql = sql
        self._lane = lane
        self._rows = rows
        self._details = details
        self._puts = puts
        self._history = history
        self._audit = audit
        self._token = token

    def replay(
        self,
        run_id: RunId,
        endpoints: Collection[str],
        author: Author | None = None,
        limits: Limits | None = None,
    ) -> Deferred[Job]:
        """See `Store.replay`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Job:
            run = self._history.found(cursor, run_id, now)
            if limits is not None and not limits.have(run.record.path, run.record.endpoint):
                raise run_not_found(run_id)
            if run.state is not None:
                raise RunUnderWay(
                    f"the run {run_id} has not ended (it is {run.state}): wait for its end, or run "
                    "its job now with a POST to it"
                )
            jobs, refusals = self.make(cursor, now, [run.record], endpoints, limits, author)
            if refusals:
                raise refusals[0]
            return jobs[0]

        return self._lane.run(work, "replay")

    # Within a transaction of the caller

    def fitting(self, cursor: Cursor, records: Sequence[Record]) -> int:
        """How many of the first runs one transaction may replay: see `WRITTEN`."""
        rows = self._rows_of(cursor, records)
        found = (rows.get(RawKey(record.path, record.body)) for record in records)
        return fitting([0 if row is None else weight_of(row.extras) for row in found], WRITTEN)

    def make(
        self,
        cursor: Cursor,
        now: datetime,
        records: Sequence[Record],
        endpoints: Collection[str],
        limits: Limits | None,
        author: Author | None,
        action: str | None = None,
    ) -> Repeated:
        """
        Write the replays of runs.

        :param records: of runs that have ended; no more than are `fitting`.
        :param now: the database's time.
        :param endpoints: the names of the endpoints of the configuration.
        :param limits: a job that is not within these is as if it were gone: what it sends now is
            not for whoever asks.
        :param author: stands with each job in the audit list; None for no entries there.
        :param action: the id of the action that has them replayed, for that list.
        """
        jobs = self._jobs_of(cursor, now, records)
        plans: dict[JobKey, Plan] = {}
        refusals: list[Refusal] = []
        for record in records:
            job = jobs.get(RawKey(record.path, record.body))
            if job and limits is not None and not limits.have(record.path, endpoint_of(job)):
                job = None
            name = generated_name(now, self._token()[:RANDOM_OCTETS])
            try:
                planned = replay_of(record, None if job is None else readable(job), now, endpoints)
                plans[JobKey(record.path, name)] = planned
            except (ReplayImpossible, JobSetAside, InvalidRequest) as refusal:
                refusals.append(refusal)
        if not plans:
            return Repeated([], refusals)
        version, due = version_at(now), self._dialect.instant(now)
        new = [
            NewReplay(*self._puts.new_row(key, planned, version)._replace(due=due), Cause.REPLAY)
            for key, planned in plans.items()
        ]
        self._add.execute(cursor, new)
        made = self._puts.settle(cursor, plans, (), now)
        if len(made) != len(plans):
            raise Conflict("a replay is gone as soon as it is made")
        if author is not None:
            replays = [
                Changed(author, Verb.REPLAY, key, new=job, action=action)
                for key, job in made.items()
            ]
            self._audit.write(cursor, now, replays)
        return Repeated(list(made.values()), refusals)

    def _rows_of(self, cursor: Cursor, records: Sequence[Record]) -> dict[RawKey, JobRow]:
        keys = {RawKey(record.path, record.body) for record in records}
        return dict(self._rows.select(cursor, self._sql.get, keys))

    def _jobs_of(
        self, cursor: Cursor, now: datetime, records: Sequence[Record]
    ) -> dict[RawKey, Job | UnreadableJob]:
        """The jobs of runs as they are now, without those that are gone."""
        read_instant = self._dialect.read_instant
        rows = self._rows_of(cursor, records)
        detailed = [row.id for row in rows.values() if is_detailed(row.extras)]
        whole = self._details.read_whole(cursor, detailed)
        found: dict[RawKey, Job | UnreadableJob] = {}
        for key, row in rows.items():
            if not is_detailed(row.extras):
                found[key] = read_job(row, key, now, read_instant)
            elif row.id in whole:
                now_there, details = whole[row.id]
                found[key] = read_job(now_there, key, now, read_instant, details)
        return found

    @cached_property
    def _add(self) -> Statement:
        names = NewReplay._fields
        values = ", ".join(f"%({name})s" for name in names)
        return self._dialect.prepare(f"""
            INSERT INTO {self._dialect.table} ({", ".join(names)}) VALUES [({values}), ...]
            """)


class NewReplay(NamedTuple):
    """A row for a replay: that of a new job, and why there is a run of it."""

    path: Any
    body: Any
    schedule: Any
    location: Any
    options: Any
    anchor: Any
    scheduled: Any
    due: Any
    version: Any
    extras: Any
    cause: Any


assert NewReplay._fields[:-1] == NewRow._fields
