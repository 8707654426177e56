"""
What a user does to one job that is there: triggers, enables, disables or deletes it. `jobs.py` and
the actions on many jobs share it.

A change to a job during a run leaves `due` and `token` to that run, and writes an `Override` for
the run's end (P3, P4).
"""

from __future__ import annotations

from datetime import datetime

from dalga.errors import JobDisabled, JobOver
from dalga.model.delivery import Disabling
from dalga.model.job import Job, Standing, UnreadableJob
from dalga.model.key import RawKey
from dalga.model.record import Result
from dalga.model.schedule import timestamp
from dalga.store.details import DetailRows
from dalga.store.dialect import Cursor, Dialect
from dalga.store.extras import OPEN, is_open, kinds_of
from dalga.store.keyed import KeyedRows
from dalga.store.recording import Recording
from dalga.store.statements import Statements
from dalga.store.transactions import Conflict


class Changes:
    """Each method runs within a transaction of its caller. `now` is the database's time."""

    def __init__(
        self,
        dialect: Dialect,
        sql: Statements,
        rows: KeyedRows,
        details: DetailRows,
        recording: Recording,
    ) -> None:
        self._dialect = dialect
        self._sql = sql
        self._rows = rows
        self._details = details
        self._recording = recording

    def trigger(self, cursor: Cursor, now: datetime, key: RawKey) -> Job:
        """
        See `Store.trigger`.

        :raises JobOver: also once the row is written: the caller rolls back.
        """
        at = self._dialect.instant(now)
        where = self._rows.key(key)._asdict()
        triggered = self._sql.trigger.execute(cursor, now=at, **where)
        row, job = self._rows.read_readable(cursor, key, now)
        if triggered:
            check_until(job, job.scheduled)
            # The new run takes the place of one that waits for its retry. A run that is under way
            # has its end yet.
            if row.token is None and is_open(row.extras):
                self._recording.close(cursor, [row.id], Result.OVERRIDDEN, now)
                self._recording.unmark(cursor, [row.id], OPEN)
            return job
        if job.standing is Standing.DONE:
            raise JobOver(
                f"the job with path {key.path!r} and body {key.body!r} is done: PUT it anew, "
                "or delete it"
            )
        if job.disabled:
            raise JobDisabled(
                f"the job with path {key.path!r} and body {key.body!r} is disabled: enable it "
                "first, with PATCH and enable=true"
            )
        raise Conflict("enabled between two statements")

    def enable(self, cursor: Cursor, now: datetime, key: RawKey) -> Job | UnreadableJob:
        """See `Store.enable`."""
        at = self._dialect.instant(now)
        self._sql.enable.execute(cursor, now=at, **self._rows.key(key)._asdict())
        return self._rows.note_disabling(cursor, key, now, None)

    def disable(
        self, cursor: Cursor, now: datetime, key: RawKey, reason: str | None, by: str | None
    ) -> Job | UnreadableJob:
        """See `Store.disable`."""
        self._rows.disable(cursor, key, now)
        return self._rows.note_disabling(cursor, key, now, Disabling(now, reason, by))

    def delete(self, cursor: Cursor, now: datetime, key: RawKey) -> None:
        """See `Store.delete`."""
        where = self._rows.key(key)._asdict()
        at = self._dialect.instant(now)
        if self._sql.delete_idle.execute(cursor, now=at, **where):
            return
        if self._sql.delete_leased.execute(cursor, now=at, **where):
            return
        # A row that was deleted during a run whose lease is over is removed, too.
        for _, row in self._rows.select(cursor, self._sql.find_all, (key,)):
            deleted = self._sql.delete_idle_row.execute(
                cursor, id=row.id, extras=row.extras, now=at
            )
            if not deleted:
                raise Conflict("claimed, released or written between two statements")
            self._details.remove(cursor, [row.id], kinds_of(row.extras))
            if is_open(row.extras):
                self._recording.close(cursor, [row.id], Result.CANCELLED, now)


def check_until(job: Job, scheduled: datetime) -> None:
    """:raises JobOver: if a triggered run that is scheduled for this time is after the `until`."""
    until = job.options.until
    if until is not None and scheduled > until:
        raise JobOver(
            f"the job with path {job.key.path!r} and body {job.key.body!r} has until "
            f"{timestamp(until)}, which is past: there is no new run of it, unless you PUT it with "
            "a later one"
        )
