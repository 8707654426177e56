"""
What a user does to one job that is there, as `dalga.store.changes` does it, with an entry in the
audit list where the user has a name. `jobs.py` and the actions on many jobs share it.
"""

from __future__ import annotations

from datetime import datetime

from dalga.errors import JobNotFound
from dalga.model.audit import Changed, Subject, Verb
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import RawKey
from dalga.model.permit import Author
from dalga.store.audit import AuditRows
from dalga.store.changes import Changes
from dalga.store.dialect import Cursor
from dalga.store.keyed import KeyedRows


class Audited:
    """
    Each method runs within a transaction of its caller. `now` is the database's time. Without an
    author it makes no statement of its own. A job that was as it was asked to be gets no entry.

    An `action` is the id of the action that makes the change; None for a call on one job.
    """

    def __init__(self, rows: KeyedRows, changes: Changes, audit: AuditRows) -> None:
        self._rows = rows
        self._changes = changes
        self._audit = audit

    def trigger(
        self,
        cursor: Cursor,
        now: datetime,
        key: RawKey,
        author: Author | None,
        action: str | None = None,
    ) -> Job:
        """See `Store.trigger`. Its entry has no definitions, as a trigger changes none."""
        job = self._changes.trigger(cursor, now, key)
        self._note(cursor, now, Verb.TRIGGER, key, None, None, author, action)
        return job

    def enable(
        self,
        cursor: Cursor,
        now: datetime,
        key: RawKey,
        author: Author | None,
        action: str | None = None,
    ) -> Job | UnreadableJob:
        """See `Store.enable`."""
        old = None if author is None else self._rows.held(cursor, key, now)
        job = self._changes.enable(cursor, now, key)
        if not _is_same(old, job):
            self._note(cursor, now, Verb.ENABLE, key, old, job, author, action)
        return job

    def disable(
        self,
        cursor: Cursor,
        now: datetime,
        key: RawKey,
        reason: str | None,
        author: Author | None,
        action: str | None = None,
    ) -> Job | UnreadableJob:
        """See `Store.disable`."""
        old = None if author is None else self._rows.held(cursor, key, now)
        by = None if author is None else author.name
        job = self._changes.disable(cursor, now, key, reason, by)
        if not _is_same(old, job):
            self._note(cursor, now, Verb.DISABLE, key, old, job, author, action)
        return job

    def delete(
        self,
        cursor: Cursor,
        now: datetime,
        key: RawKey,
        author: Author | None,
        action: str | None = None,
    ) -> None:
        """See `Store.delete`."""
        old = None
        if author is not None:
            try:
                old = self._rows.held(cursor, key, now)
            except JobNotFound:
                return
        self._changes.delete(cursor, now, key)
        if old is not None:
            self._note(cursor, now, Verb.DELETE, key, old, None, author, action)

    def _note(
        self,
        cursor: Cursor,
        now: datetime,
        verb: Verb,
        key: RawKey,
        old: Subject | None,
        new: Subject | None,
        author: Author | None,
        action: str | None,
    ) -> None:
        if author is not None:
            self._audit.write(cursor, now, [Changed(author, verb, key, old, new, action)])


def _is_same(old: Job | UnreadableJob | None, new: Job | UnreadableJob) -> bool:
    """Whether a job is disabled, or is not, as it was. Of a row that can't be read nobody knows."""
    return (
        isinstance(old, Job)
        and isinstance(new, Job)
        and (old.disabled, old.notes.disabled) == (new.disabled, new.notes.disabled)
    )
