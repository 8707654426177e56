"""
The sums of this instance on their way to the store, and the upkeep of the sums of all instances.

A *write* brings what `sums.py` has counted to the table: at once, if the last write was
`WRITE_INTERVAL` ago or longer, else when that time is over; and at a stop. Writes go on while there
is a backlog of runs: each takes some milliseconds. While the database is away, `sums.py` keeps what
is not written.

A *folding* adds up old sums of minutes to sums of hours, and removes sums that are older still, a
few in each transaction. It waits while there is a backlog of runs (P7).

`Statistics` sets no timer: the scheduler's timer begins its `queries`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dalga.dispatch.outages import FOLDING, WRITE, Outages
from dalga.dispatch.query import Query, after_backlog
from dalga.dispatch.sums import Sums
from dalga.log import logger
from dalga.model.record import EndedRun
from dalga.store import Recorded, Store

log = logger(__name__)

#: From one write of sums to the next, in seconds. A kill loses as much.
WRITE_INTERVAL = 10.0

#: Time limit (seconds) of the last write, at a stop.
LAST_WRITE = 1.0

#: From one look for old sums to the next, in seconds.
FOLDING_INTERVAL = 60.0

#: How many old sums one transaction folds, or removes, at most. It takes some 5 ms.
FOLDED = 50

#: After a transaction that has found some, there may be more: the next one comes so much later, in
#: seconds.
FOLDING_PAUSE = 0.05

#: While there is a backlog, a folding waits for its end, but no longer than this, in seconds.
FOLDING_PATIENCE = 600.0


class Statistics:
    """
    See the module's text.

    :param sums: what this instance has counted.
    :param busy: tells whether there are more due runs than this instance can claim now.
    :param changed: is called when a query is over, and another may be wanted.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        store: Store,
        outages: Outages,
        sums: Sums,
        busy: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._outages = outages
        self._sums = sums
        self._busy = busy
        self._changed = changed
        self._writes = Query(
            WRITE, outages, self._write_when, self._write, self._written, self._write_ended
        )
        foldings = Query(FOLDING, outages, self._fold_when, self._fold, self._folded, changed)
        self.queries: tuple[Query[Any], ...] = (self._writes, foldings)
        #: When the next query of each kind is wanted, in seconds of the reactor's clock.
        self._next_write = reactor.seconds()
        self._next_folding = reactor.seconds() + FOLDING_INTERVAL
        #: How many minutes were dropped that the log tells of.
        self._told = 0
        #: Fires when the write under way has ended: `write_last` waits for it.
        self._write_over: Deferred[None] | None = None

    def recorded(self, recorded: Recorded, now: datetime) -> None:
        """Count the ends of a batch. A mistake here holds up nothing that follows (P6)."""
        try:
            self._sums.ended(recorded.results, now)
        except Exception:
            log.failure("the statistics lack some runs", Failure())

    def ended(self, runs: Sequence[EndedRun], now: datetime) -> None:
        """Count runs that have no `End`. A mistake here holds up nothing that follows (P6)."""
        try:
            self._sums.closed(runs, now)
        except Exception:
            log.failure("the statistics lack some runs", Failure())

    async def write_last(self) -> None:
        """Write what is not written yet, unless the database is away. No run ends any more."""
        if self._outages.away:
            return
        written = Deferred.fromCoroutine(self._write_last())
        try:
            await written.addTimeout(LAST_WRITE, self._reactor)
        except Exception as error:
            log.warn("the statistics lack the last runs of this instance: {error}", error=error)

    async def _write_last(self) -> None:
        if self._writes.under_way:
            self._write_over = Deferred()
            await self._write_over
        await self._write_all()

    # Writes

    def _write_when(self, now: float) -> float | None:
        # A write of nothing would ask nobody, and be taken for an answer of the database.
        is_nothing = self._sums.is_saved and not self._store.unsettled
        return None if is_nothing else self._next_write

    def _write(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._write_all())

    async def _write_all(self) -> None:
        if self._sums.dropped > self._told:
            log.error(
                "the statistics lack {count} minutes, which could not be written for too long",
                count=self._sums.dropped - self._told,
            )
            self._told = self._sums.dropped
        if self._store.unsettled:
            await self._store.settle()
        for minute in self._sums.unsaved():
            await self._store.write_sums(minute)
            self._sums.saved(minute)

    def _written(self, result: None) -> None:
        self._next_write = self._reactor.seconds() + WRITE_INTERVAL

    def _write_ended(self) -> None:
        over, self._write_over = self._write_over, None
        if over is not None:
            over.callback(None)
        self._changed()

    # Foldings

    def _fold_when(self, now: float) -> float:
        wanted = self._next_folding
        return after_backlog(wanted, now, self._busy, wanted + FOLDING_PATIENCE)

    def _fold(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self._fold_some())

    async def _fold_some(self) -> int:
        """:return: how many sums were found; 0 if all are folded and removed."""
        return await self._store.fold_sums(FOLDED) or await self._store.forget_sums(FOLDED)

    def _folded(self, found: int) -> None:
        pause = FOLDING_PAUSE if found else FOLDING_INTERVAL
        self._next_folding = self._reactor.seconds() + pause
