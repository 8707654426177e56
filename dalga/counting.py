"""
How many jobs there are of each kind, for `/status`.

A small table is counted for each request, so that a job that was just written is counted. A large
table is counted in the background, piece by piece, at most once in `REST` seconds, however often
`/status` is asked for. A request gets the last count, with its age.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from dalga.errors import StoreUnavailable
from dalga.log import logger
from dalga.store import Counts, Store, Tally

log = logger(__name__)

#: From the beginning of a count of a large table to the beginning of the next, at least (seconds).
REST = 10.0
#: The same, as a multiple of the duration of the last count.
REST_FACTOR = 20


@dataclass(frozen=True, slots=True)
class Present:
    """How many jobs and instances there are, as far as this instance knows."""

    #: Of this moment: the number of instances, and how late the oldest due job is.
    live: Counts
    #: The last count of all rows; None where no count has ended yet.
    counted: Tally | None
    #: How long ago that count began, in seconds; None where no count has ended yet.
    age: float | None


class Counting:
    """
    Counts the jobs.

    :param store: an opened store.
    :param piece: how many rows one transaction counts, at most. An embedded database has only one
        connection, and runs wait for it during the transaction (P7). A table with fewer rows is a
        small one.
    """

    def __init__(self, store: Store, reactor: IReactorTime, piece: int) -> None:
        self._store = store
        self._reactor = reactor
        self._piece = piece
        #: The last count of all rows, and when the count began, in the reactor's seconds.
        self._last: Tally | None = None
        self._last_began = 0.0
        #: The count that is under way.
        self._count: Deferred[None] | None = None
        #: When the next count may begin, in the reactor's seconds.
        self._not_before = 0.0
        self._stopped = False

    async def present(self) -> Present:
        """
        The counts as they are known now. Reads at most `piece` rows.

        :raises StoreUnavailable: if the database can't be reached.
        """
        now = self._reactor.seconds()
        may_be_small = self._count is None and (
            self._last is None or self._last.total < self._piece
        )
        live = await self._store.counts(0, self._piece if may_be_small else 0)
        if may_be_small and live.last is None:
            self._last, self._last_began = live, now
        else:
            self._begin()
        age = None if self._last is None else max(0.0, self._reactor.seconds() - self._last_began)
        return Present(live, self._last, age)

    def stop(self) -> None:
        """Count no more."""
        self._stopped = True
        if self._count is not None:
            self._count.cancel()

    def _begin(self) -> None:
        if self._stopped or self._count is not None:
            return
        if self._reactor.seconds() >= self._not_before:
            self._count = Deferred.fromCoroutine(self._count_all())
            self._count.addErrback(self._failed)
            self._count.addBoth(self._ended)

    async def _count_all(self) -> None:
        began = self._reactor.seconds()
        total = Tally()
        after: int | None = 0
        try:
            while after is not None:
                sent = self._reactor.seconds()
                found = await self._store.counts(after, self._piece)
                total += found
                after = found.last
                if after is not None:
                    # The connection is left to others for as long as this piece took.
                    await deferLater(self._reactor, self._reactor.seconds() - sent)
            self._last, self._last_began = total, began
        finally:
            took = self._reactor.seconds() - began
            self._not_before = began + max(REST, REST_FACTOR * took)

    def _failed(self, failure: Failure) -> None:
        if failure.check(StoreUnavailable, CancelledError) is None:
            log.failure("the jobs could not be counted", failure)

    def _ended(self, _: None) -> None:
        self._count = None
