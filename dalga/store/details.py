"""
The rows of jobs in the tables beside the jobs table: details and tags. `dalga.store.extras` says
what they hold, and how a job's own row tells that there are some.

A transaction writes the job's row first, and the other tables then. So whoever has the job's row
locked, as each write does, reads rows that fit it. A reader without a lock reads them together with
the job's row, in one statement, and compares its version with the row that was read before.

A PUT does not know what the job was before: it marks the row as `STALE` if there was anything. Then
`settle` removes the old rows and writes the new ones, and its caller takes the mark away. So a PUT
of a job that has nothing there, over one that had nothing, takes no statement more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dalga.model.fields import Terms
from dalga.model.key import RawKey
from dalga.store.detailsql import DetailStatements, NewDetails, NewTag
from dalga.store.dialect import Cursor, Dialect
from dalga.store.extras import (
    DETAILED,
    EXPECTED,
    NO_DETAILS,
    OPEN,
    STALE,
    TAGGED,
    Details,
    details_text,
    extras_of,
    is_detailed,
    read_details,
)
from dalga.store.parameters import in_parts
from dalga.store.selected import JobRow
from dalga.store.statements import KeyValues
from dalga.store.transactions import Conflict

#: What one INSERT has of details and tags, in octets, unless one row has more. The driver quotes
#: it, which may make it twice as long.
WRITTEN = 2**18

#: What one transaction of GETs, or of PUTs, reads of details, in octets, unless one job has more.
#: The others are done alone (P10).
READ_AT_ONCE = 2**22


class Written(NamedTuple):
    """A job whose row this transaction has written."""

    key: RawKey
    #: As it was read since.
    row: JobRow
    terms: Terms


class DetailRows:
    """Each method runs within a transaction of its caller."""

    def __init__(self, dialect: Dialect, sql: DetailStatements) -> None:
        self._dialect = dialect
        self._sql = sql

    def read(self, cursor: Cursor, rows: Iterable[JobRow]) -> dict[int, Details | ValueError]:
        """
        The details of those jobs that have some, by the ids of their rows, or what is wrong with
        the details.

        :param rows: as they were read before. See `extras.fitting` for how many to give.
        :raises Conflict: if a job was changed or deleted since.
        """
        wanted = {row.id: row for row in rows if is_detailed(row.extras)}
        if not wanted:
            return {}
        found: dict[int, Details | ValueError] = {}
        for row in self._sql.read_details.fetch(cursor, list(wanted)):
            before = wanted[row.id]
            if (row.version, row.extras) != (before.version, before.extras):
                raise Conflict("changed between two statements")
            try:
                found[row.id] = read_details(row)
            except ValueError as problem:
                found[row.id] = problem
        if len(found) != len(wanted):
            raise Conflict("deleted between two statements")
        return found

    def read_whole(
        self, cursor: Cursor, ids: Sequence[int]
    ) -> dict[int, tuple[JobRow, Details | ValueError]]:
        """
        Jobs with their details, as they are now, by the ids of their rows; without those that are
        gone. This never meets a conflict: among many jobs, one is changed all the time.
        """
        found: dict[int, tuple[JobRow, Details | ValueError]] = {}
        for row in self._sql.read_whole.fetch(cursor, ids) if ids else ():
            details: Details | ValueError = NO_DETAILS
            if is_detailed(row.job.extras):
                try:
                    details = read_details(row.details)
                except ValueError as problem:
                    details = problem
            found[row.job.id] = row.job, details
        return found

    def read_own(self, cursor: Cursor, ids: Sequence[int]) -> dict[int, Details | ValueError]:
        """The same of rows that this transaction has written, or locked, and that have details."""
        found: dict[int, Details | ValueError] = {}
        for row in self._sql.read_details.fetch(cursor, ids) if ids else ():
            try:
                found[row.id] = read_details(row)
            except ValueError as problem:
                found[row.id] = problem
        return found

    def are_there(self, cursor: Cursor, row: JobRow) -> bool:
        """Whether there is a row of details of a job, whatever the job's row says."""
        (found,) = self._sql.read_details.fetch(cursor, [row.id])
        return found.details is not None

    def settle(self, cursor: Cursor, written: Sequence[Written]) -> None:
        """
        Have the other tables fit the rows of jobs whose `extras` say that there is something. The
        caller takes the mark STALE away.
        """
        stale = [each.row.id for each in written if each.row.extras & STALE]
        self.remove(cursor, stale, DETAILED | TAGGED)
        self._write_details(cursor, written)
        self._write_tags(cursor, written)

    def note(self, cursor: Cursor, written: Written) -> None:
        """Write a job's notes anew. Its row is locked, and its tags are the same."""
        row, text = written.row, details_text(written.terms)
        extras = extras_of(written.terms, text) | row.extras & OPEN
        self._sql.set_extras.execute(cursor, id=row.id, extras=extras)
        if text is None:
            self.remove(cursor, [row.id], DETAILED)
        else:
            self._write_details(cursor, [written._replace(row=row._replace(extras=extras))])

    def locked(self, cursor: Cursor, ids: Sequence[int], extras: int) -> set[int]:
        """
        Those of some jobs of which another session has locked a row, by the ids of the jobs' rows.
        This transaction has the jobs' own rows locked, so the other session is a stranger's.

        :param extras: which kinds of rows there may be.
        """
        found: set[int] = set()
        if not self._dialect.skip_locked:
            return found
        sql = self._sql
        for kind, find, lock in (
            (DETAILED, sql.find_details, sql.lock_details),
            (TAGGED, sql.find_tags, sql.lock_tags),
        ):
            if extras & kind:
                free = Counter(row.number for row in lock.fetch(cursor, ids))
                found.update(Counter(row.number for row in find.fetch(cursor, ids)) - free)
        return found

    def remove(self, cursor: Cursor, ids: Sequence[int], extras: int) -> None:
        """
        Remove the rows of jobs, by the ids of the jobs' rows.

        :param extras: which kinds of rows there may be.
        """
        if ids and extras & DETAILED:
            self._sql.delete_details.execute(cursor, ids)
        if ids and extras & TAGGED:
            self._sql.delete_tags.execute(cursor, ids)
        if ids and extras & EXPECTED:
            self._sql.delete_expected.execute(cursor, ids)

    def _write_details(self, cursor: Cursor, written: Iterable[Written]) -> None:
        rows = [
            NewDetails(each.row.id, *self._key(each.key), *text)
            for each in written
            if each.row.extras & DETAILED and (text := details_text(each.terms))
        ]
        for part in in_parts(rows, _size, WRITTEN):
            self._sql.put_details.execute(cursor, part)

    def _write_tags(self, cursor: Cursor, written: Iterable[Written]) -> None:
        rows = [
            NewTag(self._dialect.key(tag), *self._key(each.key), each.row.id)
            for each in written
            if each.row.extras & TAGGED
            for tag in each.terms.notes.tags
        ]
        for part in in_parts(rows, _size, WRITTEN):
            self._sql.put_tags.execute(cursor, part)

    def _key(self, key: RawKey) -> KeyValues:
        return KeyValues(self._dialect.key(key.path), self._dialect.key(key.body))


def _size(row: NewDetails | NewTag) -> int:
    """About how many octets the values of a row have."""
    return sum(len(value) for value in row if isinstance(value, str | bytes))
