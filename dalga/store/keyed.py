"""
Rows of jobs, found by the jobs' keys. `dalga.store.jobs` and `dalga.store.puts` decide what is
written to them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import TypeVar

from dalga.errors import JobNotFound
from dalga.model.job import Job, UnreadableJob, readable
from dalga.model.key import JobKey, RawKey
from dalga.store.dialect import Cursor, Dialect
from dalga.store.parameters import Select
from dalga.store.rows import JobRow, KeyRow, read_job
from dalga.store.statements import KeyValues, Statements

Row = TypeVar("Row", JobRow, KeyRow)
K = TypeVar("K", bound=RawKey)


class KeyedRows:
    """Each method runs within a transaction of its caller."""

    def __init__(self, dialect: Dialect, sql: Statements) -> None:
        self._dialect = dialect
        self._sql = sql

    def key(self, key: RawKey) -> KeyValues:
        """The path and the body, as parameters."""
        return KeyValues(self._dialect.key(key.path), self._dialect.key(key.body))

    def read(self, cursor: Cursor, key: RawKey, now: datetime) -> Job | UnreadableJob:
        """:raises JobNotFound: if there is none."""
        rows = dict(self.read_rows(cursor, (key,), now))
        if not rows:
            raise not_found(key)
        return rows[key]

    def read_readable(self, cursor: Cursor, key: RawKey, now: datetime) -> Job:
        """
        Read a job after a write to its row.

        :raises JobSetAside: if the row can't be understood. Then the write is rolled back.
        """
        return readable(self.read(cursor, key, now))

    def read_rows(
        self, cursor: Cursor, keys: Collection[K], now: datetime
    ) -> Iterator[tuple[K, Job | UnreadableJob]]:
        for key, row in self.select(cursor, self._sql.get, keys):
            yield key, read_job(row, key, now, self._dialect.read_instant)

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

    def lock(self, cursor: Cursor, keys: Collection[JobKey]) -> set[JobKey]:
        """Lock the rows that no other session has locked, and give their keys."""
        return {key for key, _ in self.select(cursor, self._sql.lock, keys)}

    def disable(self, cursor: Cursor, key: RawKey, now: datetime) -> None:
        at = self._dialect.instant(now)
        self._sql.disable.execute(cursor, now=at, **self.key(key)._asdict())


def not_found(key: RawKey) -> JobNotFound:
    return JobNotFound(f"there is no job with path {key.path!r} and body {key.body!r}")


def octets(text: object) -> bytes:
    """A path or body, as a parameter or as a column's value, to compare the two."""
    return text.encode() if isinstance(text, str) else bytes(text)  # type: ignore[call-overload]
