"""
Rows of jobs, found by the jobs' keys. `dalga.store.jobs` and `dalga.store.puts` decide what is
written to them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from dalga.model.delivery import Disabling
from dalga.model.job import Job, UnreadableJob, endpoint_of, readable
from dalga.model.key import JobKey, RawKey, job_not_found
from dalga.model.permit import Permit
from dalga.model.precondition import UNREADABLE, Precondition
from dalga.store.details import DetailRows, Written
from dalga.store.dialect import Cursor, Dialect
from dalga.store.extras import NO_DETAILS
from dalga.store.parameters import Select
from dalga.store.rows import Override, read_job
from dalga.store.selected import JobRow, KeyRow
from dalga.store.statements import KeyValues, Statements
from dalga.store.transactions import Conflict
from dalga.store.values import octets

Row = TypeVar("Row", JobRow, KeyRow)
K = TypeVar("K", bound=RawKey)


class KeyedRows:
    """Each method runs within a transaction of its caller."""

    def __init__(self, dialect: Dialect, sql: Statements, details: DetailRows) -> None:
        self._dialect = dialect
        self._sql = sql
        self._details = details

    def key(self, key: RawKey) -> KeyValues:
        """The path and the body, as parameters."""
        return KeyValues(self._dialect.key(key.path), self._dialect.key(key.body))

    def read_readable(self, cursor: Cursor, key: RawKey, now: datetime) -> tuple[JobRow, Job]:
        """
        Read a job, and its row, after a write to the row.

        :raises JobNotFound: if there is none.
        :raises JobSetAside: if the row can't be understood. Then the write is rolled back.
        """
        rows = list(self.select(cursor, self._sql.get, (key,)))
        for (_, row), (_, job) in zip(rows, self.read_jobs(cursor, rows, now), strict=True):
            return row, readable(job)
        raise job_not_found(key)

    def read_rows(
        self, cursor: Cursor, keys: Collection[K], now: datetime
    ) -> Iterator[tuple[K, Job | UnreadableJob]]:
        found = list(self.select(cursor, self._sql.get, keys))
        yield from self.read_jobs(cursor, found, now)

    def read_jobs(
        self, cursor: Cursor, found: Sequence[tuple[K, JobRow]], now: datetime
    ) -> Iterator[tuple[K, Job | UnreadableJob]]:
        """The jobs in rows."""
        details = self._details.read(cursor, [row for _, row in found])
        for key, row in found:
            beside = details.get(row.id, NO_DETAILS)
            yield key, read_job(row, key, now, self._dialect.read_instant, beside)

    def check(
        self,
        cursor: Cursor,
        key: RawKey,
        now: datetime,
        precondition: Precondition | None,
        permit: Permit | None,
    ) -> None:
        """
        Check what a write asks of the job that is there, and hold the job as it is up to the end of
        the transaction.

        :raises PreconditionFailed: if the precondition does not hold.
        :raises JobNotFound: if there is a permit, and no job; and as `Permit.check` does.
        """
        if precondition is None and permit is None:
            return
        job = self._found(cursor, key, now)
        if job is not None and permit is not None and permit.hides(key, endpoint_of(job)):
            job = None
        if job is not None and permit is not None:
            permit.check(key, endpoint_of(job))
        if precondition is not None:
            precondition.check(key, version_of(job))
        if job is None and permit is not None:
            raise job_not_found(key)
        self._hold(cursor, key, job)

    def check_name(
        self,
        cursor: Cursor,
        key: RawKey,
        now: datetime,
        precondition: Precondition | None,
        permit: Permit | None,
    ) -> bool:
        """
        As `check`, for a write that is done whether or not there is a job.

        :return: whether there is one, as far as somebody had to look.
        :raises Forbidden: as `Permit.check_name` does.
        """
        if precondition is None and permit is None:
            return False
        job = self._found(cursor, key, now)
        if job is not None and permit is not None:
            permit.check_name(key, endpoint_of(job))
        if precondition is not None:
            precondition.check(key, version_of(job))
        self._hold(cursor, key, job)
        return job is not None

    def _found(self, cursor: Cursor, key: RawKey, now: datetime) -> Job | UnreadableJob | None:
        for _, row in self.select(cursor, self._sql.get, (key,)):
            return read_job(row, key, now, self._dialect.read_instant)
        return None

    def _hold(self, cursor: Cursor, key: RawKey, job: Job | UnreadableJob | None) -> None:
        """Make sure that a job keeps its definition up to the end of the transaction."""
        if isinstance(job, Job):
            where = self.key(key)._asdict()
            if self._sql.hold_version.execute(cursor, version=job.version, **where) != 1:
                raise Conflict("changed between two statements")

    def held(self, cursor: Cursor, key: RawKey, now: datetime) -> Job | UnreadableJob | None:
        """
        A job, whole, which nobody else changes up to the end of the transaction; None if it was
        deleted during a run that is still under way.

        :raises JobNotFound: if there is none.
        """
        is_held = self._dialect.one_writer or self._sql.hold_row.execute(
            cursor, **self.key(key)._asdict()
        )
        rows = list(self.select(cursor, self._sql.find_rows, (key,)))
        if not rows:
            raise job_not_found(key)
        if not is_held:
            raise Conflict("added between two statements")
        if rows[0][1].override == Override.DELETED:
            return None
        ((_, job),) = self.read_jobs(cursor, rows, now)
        return job

    def select(
        self, cursor: Cursor, statement: Select[Row], keys: Collection[K]
    ) -> Iterator[tuple[K, Row]]:
        """The rows of those of the jobs that are in the table, each with its key."""
        if not keys:
            return
        wanted = {self.key(key): key for key in keys}
        by_octets = {tuple(map(octets, values)): key for values, key in wanted.items()}
        for row in statement.fetch(cursor, list(wanted)):
            yield by_octets[octets(row.path), octets(row.body)], row

    def there(self, cursor: Cursor, keys: Collection[JobKey]) -> set[JobKey]:
        """Those of the jobs that are in the table, locked or not."""
        return {key for key, _ in self.select(cursor, self._sql.find_all, keys)}

    def lock(self, cursor: Cursor, keys: Collection[JobKey]) -> dict[JobKey, KeyRow]:
        """Lock the rows that no other session has locked."""
        return dict(self.select(cursor, self._sql.lock, keys))

    def disable(self, cursor: Cursor, key: RawKey, now: datetime) -> None:
        at = self._dialect.instant(now)
        self._sql.disable.execute(cursor, now=at, **self.key(key)._asdict())

    def note_disabling(
        self, cursor: Cursor, key: RawKey, now: datetime, disabling: Disabling | None
    ) -> Job | UnreadableJob:
        """
        Note of a job whose row is locked since when it is disabled, and why. Of a row that can't be
        understood nothing is noted.

        :param disabling: goes on from what is noted already. None for a job that is enabled.
        :raises JobNotFound: if there is no such job.
        """
        rows = list(self.select(cursor, self._sql.get, (key,)))
        for (_, row), (_, job) in zip(rows, self.read_jobs(cursor, rows, now), strict=True):
            if isinstance(job, UnreadableJob):
                return job
            noted = job.notes.disabled
            if disabling is not None:
                disabling = disabling.after(noted)
            if disabling == noted:
                return job
            job = replace(job, notes=replace(job.notes, disabled=disabling))
            self._details.note(cursor, Written(key, row, job))
            return job
        raise job_not_found(key)


def version_of(job: Job | UnreadableJob | None) -> int | None:
    """The version that a precondition goes by; None if there is no job."""
    if job is None:
        return None
    return job.version if isinstance(job, Job) else UNREADABLE
