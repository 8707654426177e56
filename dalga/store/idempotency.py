"""
Jobs that are made once for each Idempotency-Key: `Store.once`.

A key's row is written in the transaction that writes the job, so there are both or neither. It has
what the answer was made of besides the request: the job's generated name and version, and the time.
By these the answer to the first request can be made again, also when the job is gone.

What always holds: of two requests with one key, one writes the row and the other one finds it. If
both look for it before either has written it, the second INSERT waits for the first transaction,
changes nothing, and reads the first one's row. Its own transaction is then rolled back, and run
again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from dalga.errors import IdempotencyReused, shown
from dalga.model.audit import Verb
from dalga.model.idempotency import LIFETIME, Idempotency
from dalga.model.job import Job
from dalga.model.key import JobKey
from dalga.model.permit import Author
from dalga.model.plan import ScheduleRequest
from dalga.store import Made
from dalga.store.dialect import Cursor, Dialect
from dalga.store.group_commit import Locked
from dalga.store.puts import Put, Puts, as_planned
from dalga.store.selected import KeptRow
from dalga.store.statements import OldKey, Statements
from dalga.store.transactions import Busy, Conflict
from dalga.store.values import octets


class Once(NamedTuple):
    """One call of `Store.once` with an `Idempotency`."""

    key: JobKey
    request: ScheduleRequest
    idempotency: Idempotency
    author: Author | None = None


class Keys:
    """
    The table of keys. Each method runs within a transaction of its caller.

    :param puts: writes the jobs.
    """

    def __init__(self, dialect: Dialect, sql: Statements, puts: Puts) -> None:
        self._dialect = dialect
        self._sql = sql
        self._puts = puts

    def once(self, cursor: Cursor, now: datetime, once: Once) -> Made:
        """See `Store.once`."""
        where = self._where(once)
        kept = self._find(cursor, where)
        made = None if kept is None else self._dialect.read_instant(kept.made)
        if kept is not None and made is not None and made > now - LIFETIME:
            return Made(self._again(once, kept, made), is_new=False)
        put = Put(once.key, once.request, 1.0, author=once.author, verb=Verb.ONCE)
        (job,) = self._puts.write(cursor, now, [put])
        if not isinstance(job, Job):
            raise _refusal(job)
        values = {
            "digest": once.idempotency.digest,
            "body": self._dialect.key(once.key.body),
            "version": job.version,
            "made": self._dialect.instant(now),
        }
        if made is not None:
            found = self._dialect.instant(made)
            if self._sql.renew_key.execute(cursor, found=found, **where, **values) != 1:
                raise Conflict("the key was used between two statements")
        else:
            self._sql.keep_key.execute(cursor, **where, **values)
            # Read, as the drivers count differently where a row is there already.
            kept = self._find(cursor, where)
            if kept is None or octets(kept.body) != once.key.body.encode():
                raise Conflict("the key was used between two statements")
        return Made(job, is_new=True)

    def forget(self, cursor: Cursor, now: datetime, limit: int) -> int:
        """See `Store.forget_keys`."""
        before = self._dialect.instant(now - LIFETIME)
        old = self._sql.old_keys.fetch(cursor, before=before, limit=limit)
        if old:
            # A key that was used again meanwhile stays.
            rows = [
                OldKey(*(self._dialect.key(octets(part).decode()) for part in row)) for row in old
            ]
            self._sql.forget_keys.execute(cursor, rows, before=before)
        return len(old)

    def _where(self, once: Once) -> dict[str, object]:
        key = self._dialect.key
        return {"path": key(once.key.path), "idempotency": key(once.idempotency.key)}

    def _find(self, cursor: Cursor, where: dict[str, object]) -> KeptRow | None:
        rows = self._sql.find_key.fetch(cursor, **where)
        return rows[0] if rows else None

    def _again(self, once: Once, kept: KeptRow, made: datetime) -> Job:
        """
        The job as it was when it was made.

        :raises IdempotencyReused: if it was made for another request.
        """
        if bytes(kept.digest) != once.idempotency.digest:
            raise IdempotencyReused(
                f"the Idempotency-Key {shown(once.idempotency.key)} was given with another request "
                "in the last 24 hours: give each request a key of its own, and repeat a request "
                "just as it was"
            )
        key = JobKey(once.key.path, octets(kept.body).decode())
        job = as_planned(key, Put(key, once.request, 1.0).planned(made), made)
        return replace(job, version=int(kept.version))


def _refusal(result: Exception | Locked) -> Exception:
    """Of a PUT alone in its transaction, which waits for a lock."""
    return Busy("another session has locked the row") if isinstance(result, Locked) else result
