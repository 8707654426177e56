"""
The removal of old records of runs: the oldest ones of a shelf, in a batch of a bounded number of
rows, by ranges of the primary key.

Several instances may prune one table. The oldest row of a shelf is their mutex::

    A locks row 1, the oldest          and removes the rows 1 to 500
    B finds row 1 to be the oldest     and can lock none before row 2: somebody is at it, so B ends

On a cluster, B may not see the lock. Then the later COMMIT is refused, and runs again.

What always holds: no batch waits for another, and none locks a row that a claim or a record of a
run needs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from dalga.model.record import Shelf
from dalga.store import Pruned, Surveyed
from dalga.store.clock import steady_seconds
from dalga.store.dialect import Cursor, Dialect
from dalga.store.parameters import Select, Statement
from dalga.store.rows import version_at
from dalga.store.schema import RUNS
from dalga.store.transactions import Transactions


class _Place(NamedTuple):
    """A record, on its shelf."""

    at: int
    job: int


class _Piece(NamedTuple):
    """Of some records: how many there are, and the time of the oldest."""

    records: int
    oldest: Any


class Pruning:
    """
    :param lane: the transactions of the API, before which claims go.
    :param steady: the steady clock, in seconds.
    """

    def __init__(
        self,
        dialect: Dialect,
        lane: Transactions,
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        self._dialect = dialect
        self._lane = lane
        self._steady = steady
        self._rows = f"{dialect.named(RUNS)}{dialect.by_index('PRIMARY')}"

    def prune(
        self, shelf: Shelf, keep: timedelta, surplus: int | None, limit: int
    ) -> Deferred[Pruned]:
        """See `Store.prune`."""

        def work(cursor: Cursor, now: datetime, since: float) -> tuple[Pruned, float]:
            began = self._steady()
            return self._prune(cursor, now, shelf, keep, surplus, limit), began

        def committed(done: tuple[Pruned, float]) -> Pruned:
            pruned, began = done
            if self._dialect.one_writer:  # whoever else wants to write has waited for the COMMIT
                pruned = pruned._replace(seconds=self._steady() - began)
            return pruned

        return self._lane.run(work, "prune").addCallback(committed)

    def survey(self, shelf: Shelf, before: int | None, limit: int) -> Deferred[Surveyed]:
        """See `Store.survey`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Surveyed:
            at = version_at(now) + 1 if before is None else before
            values = {"shelf": int(shelf), "before": at, "limit": limit}
            began = self._steady()
            (piece,) = self._piece.fetch(cursor, **values)
            return Surveyed(piece.records, piece.oldest, self._steady() - began)

        return self._lane.run(work, "prune")

    def _prune(
        self,
        cursor: Cursor,
        now: datetime,
        shelf: Shelf,
        keep: timedelta,
        surplus: int | None,
        limit: int,
    ) -> Pruned:
        began = self._steady()
        before = version_at(now - keep)
        if surplus is not None:
            before = max(before, surplus)
        where = {"shelf": int(shelf), "before": before}
        oldest = self._nth.fetch(cursor, number=0, **where)
        if not oldest:
            return Pruned(0, self._steady() - began)
        if not self._dialect.one_writer and self._lock.fetch(cursor, **where) != oldest:
            return Pruned(0, self._steady() - began)  # another instance is at it
        last = self._nth.fetch(cursor, number=limit - 1, **where)
        # Where there are fewer, they are all removed.
        at, job = last[0] if last else _Place(before - 1, _MOST)
        removed = self._delete.execute(cursor, shelf=int(shelf), at=at, job=job)
        return Pruned(removed, self._steady() - began)

    @cached_property
    def _nth(self) -> Select[_Place]:
        return Select(
            _Place,
            self._dialect.prepare(f"""
                SELECT at, job FROM {self._rows}
                WHERE failed = %(shelf)s AND at < %(before)s
                ORDER BY at, job LIMIT 1 OFFSET %(number)s
                """),
        )

    @cached_property
    def _lock(self) -> Select[_Place]:
        return Select(
            _Place,
            self._dialect.prepare(f"""
                SELECT at, job FROM {self._rows}
                WHERE failed = %(shelf)s AND at < %(before)s
                ORDER BY at, job LIMIT 1{self._dialect.skip_locked}
                """),
        )

    @cached_property
    def _delete(self) -> Statement:
        return self._dialect.prepare(f"""
            DELETE FROM {self._dialect.named(RUNS)}
            WHERE failed = %(shelf)s AND at <= %(at)s AND (at < %(at)s OR job <= %(job)s)
            """)

    @cached_property
    def _piece(self) -> Select[_Piece]:
        return Select(
            _Piece,
            self._dialect.prepare(f"""
                SELECT COUNT(*) AS records, MIN(at) AS oldest FROM (
                    SELECT at FROM {self._rows}
                    WHERE failed = %(shelf)s AND at < %(before)s
                    ORDER BY at DESC LIMIT %(limit)s
                ) AS piece
                """),
        )


#: The largest id.
_MOST = 2**63 - 1
