"""
The audit list: entries written in the transactions of their changes, read a page at a time, and
removed when they are old.

What always holds: what was committed by a request with a token has one entry, and what was not has
none (P1, P13). An entry is an INSERT in the transaction of its change, so a transaction that is run
again writes it again, and one whose COMMIT had no answer has left both or neither. What was there
before is read in that transaction, once the row of the job is held.

A request without a token makes no statement here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from dalga.model.audit import (
    AuditFilters,
    AuditPage,
    AuditPlace,
    AuditQuery,
    Changed,
    Entry,
    LastChange,
    subject_text,
)
from dalga.model.key import RawKey
from dalga.model.record import job_key
from dalga.store.dialect import Cursor, Dialect
from dalga.store.listing import FIRST, SCANNED, SLICE
from dalga.store.parameters import Select, Statement, columns, in_parts
from dalga.store.rows import MAX_VERSION, version_at
from dalga.store.schema import AUDIT
from dalga.store.transactions import Transactions
from dalga.store.values import text_of, text_or_none

#: What one INSERT has of entries, in octets, unless one entry has more.
WRITTEN = 2**18

#: How many octets the key of an entry's digests has, and those of its nonce.
_SECRET, _NONCE = 32, 8

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NewEntry(NamedTuple):
    """A row of the table."""

    at: int
    nonce: int
    author: Any
    address: Any
    verb: Any
    path: Any
    body: Any
    jobkey: int | None
    action: Any
    old: str | None
    new: str | None


class FoundEntry(NamedTuple):
    """What a list looks at of an entry."""

    at: int
    nonce: int
    author: Any
    verb: Any
    path: Any
    body: Any


class WholeEntry(NamedTuple):
    """An entry as it is shown."""

    at: int
    nonce: int
    author: Any
    address: Any
    verb: Any
    path: Any
    body: Any
    action: Any
    old: Any
    new: Any


class AuditRows:
    """
    Each method runs within a transaction of its caller. `now` is the database's time.

    :param random: gives so many random octets.
    """

    def __init__(self, dialect: Dialect, random: Callable[[int], bytes] = os.urandom) -> None:
        self._dialect = dialect
        self._random = random

    def write(self, cursor: Cursor, now: datetime, changes: Sequence[Changed]) -> None:
        """Write an entry of each change."""
        at = version_at(now)
        rows = [self._row(at, each) for each in changes]
        for part in in_parts(rows, _size, WRITTEN):
            self._add.execute(cursor, part)

    def last_changes(self, cursor: Cursor, keys: Collection[RawKey]) -> dict[RawKey, LastChange]:
        """The newest entry of each job that has one; maybe of other jobs, too."""
        if not keys:
            return {}
        rows = self._last.fetch(cursor, [job_key(*key) for key in keys])
        found: dict[RawKey, LastChange] = {}
        for row in rows:
            # The number may be that of another job, too.
            key, at = _key_of(row), _instant(row.at)
            if key is not None and at is not None:
                found[key] = LastChange(at, text_of(row.author), text_of(row.verb))
        return found

    def _row(self, at: int, changed: Changed) -> NewEntry:
        key, author, secret = changed.key, changed.author, self._random(_SECRET)
        return NewEntry(
            at=at,
            nonce=int.from_bytes(self._random(_NONCE), "big") >> 1,
            author=self._key(author.name),
            address=self._key(author.address),
            verb=self._key(changed.verb),
            path=self._key(key and key.path),
            body=self._key(key and key.body),
            jobkey=None if key is None else job_key(*key),
            action=self._key(changed.action),
            old=subject_text(changed.old, secret),
            new=subject_text(changed.new, secret),
        )

    def _key(self, text: str | None) -> object:
        return None if text is None else self._dialect.key(text)

    @cached_property
    def _add(self) -> Statement:
        values = ", ".join(f"%({name})s" for name in NewEntry._fields)
        return self._dialect.prepare(f"""
            INSERT INTO {self._dialect.named(AUDIT)} ({columns(NewEntry)}) VALUES [({values}), ...]
            """)

    @cached_property
    def _last(self) -> Select[FoundEntry]:
        dialect = self._dialect
        by_job = f"{dialect.named(AUDIT)} AS {{}}{dialect.by_index('auditjob')}"
        # The order has the whole key, as in `dalga.store.history`.
        statement = dialect.prepare(f"""
            SELECT {columns(FoundEntry)} FROM (
                SELECT of_job, (
                    SELECT at FROM {by_job.format("one")} WHERE one.jobkey = of_job
                    ORDER BY one.jobkey DESC, one.at DESC, one.nonce DESC LIMIT 1
                ) AS newest
                FROM (
                    [SELECT %(jobkey)s AS of_job UNION ALL SELECT %(jobkey)s UNION ALL ...]
                ) AS jobs
            ) AS newest
            {dialect.then_join} {by_job.format("kept")} ON kept.jobkey = of_job AND kept.at = newest
            """)
        return Select(FoundEntry, statement)


class Audit:
    """
    The list, for the API.

    :param lane: the transactions of the API.
    """

    def __init__(self, dialect: Dialect, lane: Transactions) -> None:
        self._dialect = dialect
        self._lane = lane
        self._table = dialect.named(AUDIT)

    def page(self, query: AuditQuery) -> Deferred[AuditPage]:
        """See `Store.audit`."""

        def work(cursor: Cursor, now: datetime, since: float) -> AuditPage:
            return self._page(cursor, query)

        return self._lane.run(work, "audit")

    def forget(self, keep: timedelta, limit: int) -> Deferred[int]:
        """See `Store.forget_entries`."""

        def work(cursor: Cursor, now: datetime, since: float) -> int:
            old = self._old.fetch(cursor, before=version_at(now - keep), limit=limit)
            if old:
                self._forget.execute(cursor, old)
            return len(old)

        return self._lane.run(work, "clean")

    def _page(self, cursor: Cursor, query: AuditQuery) -> AuditPage:
        """
        A page looks at the entries in their order, some at a time, until it is full, or `SCANNED`
        have been looked at. (Those of one job have an index of their own.)
        """
        filters, limit = query.filters, query.limit
        found: list[FoundEntry] = []
        place: AuditPlace | None = query.after or _first(filters)
        scanned, size = 0, max(limit + 1, FIRST)
        while place is not None and len(found) <= limit and scanned < SCANNED:
            rows = self._scan(cursor, filters, place, size)
            found += [row for row in rows if _fits(row, filters)]
            scanned += size
            place = AuditPlace(rows[-1].at, rows[-1].nonce) if len(rows) == size else None
            size = min(4 * size, SLICE)
        if len(found) > limit:
            found = found[:limit]
            place = AuditPlace(found[-1].at, found[-1].nonce)
        entries = self._whole(cursor, found)
        return AuditPage(entries, place, place is not None and len(found) < limit)

    def _scan(
        self, cursor: Cursor, filters: AuditFilters, place: AuditPlace, size: int
    ) -> list[FoundEntry]:
        since = 0 if filters.since is None else version_at(filters.since)
        values = {"at": place.at, "nonce": place.nonce, "since": since, "limit": size}
        if filters.path is not None and filters.body is not None:
            jobkey = job_key(filters.path, filters.body)
            return self._of_job.fetch(cursor, jobkey=jobkey, **values)
        return self._newest.fetch(cursor, **values)

    def _whole(self, cursor: Cursor, found: Collection[FoundEntry]) -> list[Entry]:
        """The entries, in their order, but for those that another session has removed since."""
        if not found:
            return []
        places = [AuditPlace(row.at, row.nonce) for row in found]
        rows = {(row.at, row.nonce): row for row in self._get.fetch(cursor, places)}
        entries = [_entry(rows[place]) for place in places if place in rows]
        return [entry for entry in entries if entry is not None]

    @cached_property
    def _newest(self) -> Select[FoundEntry]:
        return self._in_order("PRIMARY", "")

    @cached_property
    def _of_job(self) -> Select[FoundEntry]:
        return self._in_order("auditjob", "jobkey = %(jobkey)s AND ")

    def _in_order(self, index: str, condition: str) -> Select[FoundEntry]:
        order = "jobkey DESC, at DESC, nonce DESC" if condition else "at DESC, nonce DESC"
        return self._select(
            FoundEntry,
            f"""
            SELECT {columns(FoundEntry)} FROM {self._table}{self._dialect.by_index(index)}
            WHERE {condition}at >= %(since)s AND at <= %(at)s
                AND (at < %(at)s OR nonce < %(nonce)s)
            ORDER BY {order} LIMIT %(limit)s
            """,
        )

    @cached_property
    def _get(self) -> Select[WholeEntry]:
        return self._select(
            WholeEntry,
            f"""
            SELECT {columns(WholeEntry)} FROM {self._table}{self._dialect.by_index("PRIMARY")}
            WHERE [at = %(at)s AND nonce = %(nonce)s OR ...]
            """,
        )

    @cached_property
    def _old(self) -> Select[AuditPlace]:
        return self._select(
            AuditPlace,
            f"""
            SELECT {columns(AuditPlace)} FROM {self._table}{self._dialect.by_index("PRIMARY")}
            WHERE at < %(before)s ORDER BY at, nonce LIMIT %(limit)s
            """,
        )

    @cached_property
    def _forget(self) -> Statement:
        where = "[at = %(at)s AND nonce = %(nonce)s OR ...]"
        return self._dialect.delete_by_index(AUDIT, "PRIMARY", where)

    def _select(self, row: Callable[..., Any], sql: str) -> Select[Any]:
        return Select(row, self._dialect.prepare(sql))


def _first(filters: AuditFilters) -> AuditPlace:
    """Before the newest entry that a list shows."""
    if filters.until is None:
        return AuditPlace(MAX_VERSION, MAX_VERSION)
    return AuditPlace(version_at(filters.until) - 1, MAX_VERSION)


def _key_of(row: FoundEntry | WholeEntry) -> RawKey | None:
    if row.path is None or row.body is None:
        return None
    return RawKey(text_of(row.path), text_of(row.body))


def _instant(at: object) -> datetime | None:
    """The time in a column; None for what a stranger has written (P6)."""
    try:
        return _EPOCH + at * _MICROSECOND if isinstance(at, int) else None
    except OverflowError:
        return None


def _fits(row: FoundEntry, filters: AuditFilters) -> bool:
    return filters.fit(_key_of(row), text_of(row.author), text_of(row.verb))


def _entry(row: WholeEntry) -> Entry | None:
    """An entry; None for a stranger's row that is none (P6)."""
    at = _instant(row.at)
    if at is None:
        return None
    return Entry(
        at=at,
        by=text_of(row.author),
        address=text_of(row.address),
        verb=text_of(row.verb),
        key=_key_of(row),
        action=text_or_none(row.action),
        old=_members(row.old),
        new=_members(row.new),
    )


def _members(value: object) -> Mapping[str, Any] | None:
    """A stranger may have written what is no JSON (P6)."""
    try:
        found = json.loads(text_of(value)) if value is not None else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _size(row: NewEntry) -> int:
    """About how many octets the values of a row have: a character of UTF-8 has up to four."""
    return sum(4 * len(each) for each in row if isinstance(each, str | bytes))
