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

#: As `REST` and `REST_FACTOR`, of a count that nobody waits for. Who looks at metrics looks each
#: few seconds, and for ever: such counts take a hundredth of the time at most.
SELDOM = 60.0
SELDOM_FACTOR = 100


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
        #: How long the last count in the background took, in seconds.
        self._took = 0.0
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

    def refresh(self) -> None:
        """
        Begin a count in the background, if the last began so long ago that it may be worth it:
        `SELDOM` seconds, or `SELDOM_FACTOR` times what it took.
        """
        since = self._reactor.seconds() - self._last_began
        if self._last is None or since >= max(SELDOM, SELDOM_FACTOR * self._took):
            self._begin()

    def known(self) -> tuple[Tally, float] | None:
        """The last count, and how long ago it began (seconds); None if none has ended yet."""
        if self._last is None:
            return None
        return self._last, max(0.0, self._reactor.seconds() - self._last_began)

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
            self._took = self._reactor.seconds() - began
            self._not_before = began + max(REST, REST_FACTOR * self._took)

    def _failed(self, failure: Failure) -> None:
        if failure.check(StoreUnavailable, CancelledError) is None:
            log.failure("the jobs could not be counted", failure)

    def _ended(self, _: None) -> None:
        self._count = None
