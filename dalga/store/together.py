"""
What is read at about the same time, in one transaction.

Each statement waits for the network. So what comes while a transaction runs waits, and goes
together into the next: under load many requests share what one would cost, and a lone one waits for
nobody. It is for reads: a write may have to wait for a lock, which would hold up all that it shares
a transaction with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall

from dalga.errors import StoreUnavailable
from dalga.log import logger
from dalga.store.dialect import Cursor
from dalga.store.transactions import Abandoned, Busy, Call, Transactions

log = logger(__name__)

A = TypeVar("A")
R = TypeVar("R")

#: Requests that go into one transaction at most.
LIMIT = 100

#: How long a transaction may take, in seconds, until what waits for it is begun beside it: it may
#: be waiting for a row that somebody has locked.
SLOW = 0.05


class _Request(Generic[A, R]):
    """An argument, and who waits for its result."""

    def __init__(self, argument: A) -> None:
        self.argument = argument
        self.abandoned = False
        #: Is told of it.
        self.group: _Group[A, R] | None = None
        self.answer: Deferred[R] = Deferred(lambda _: self._abandon())

    def _abandon(self) -> None:
        self.abandoned = True
        if self.group is not None:
            self.group.given_up()


class _Group(Call, Generic[A, R]):
    """The requests of one transaction, as its thread and their callers see them."""

    def __init__(self, requests: list[_Request[A, R]]) -> None:
        super().__init__()
        self._requests = requests
        if len(requests) > 1:
            self.busy_attempts = 1  # those that are not in the way are not to wait any longer
        self.transaction: Deferred[list[R | Exception]] | None = None
        for request in requests:
            request.group = self
        #: Those that are in the transaction.
        self.included: list[_Request[A, R]] = []

    def include(self) -> list[A]:
        """
        What is to be done, as long as somebody wants it: called in the database's thread.

        :raises Abandoned: if nobody does.
        """
        self.included = [request for request in self._requests if not request.abandoned]
        if not self.included:
            raise Abandoned
        return [request.argument for request in self.included]

    def given_up(self) -> None:
        """One is abandoned; where all are, the transaction waits for its turn no longer."""
        if self.transaction is not None and all(one.abandoned for one in self._requests):
            self.transaction.cancel()


class Together(Generic[A, R]):
    """
    :param work: called in a thread with a cursor, the database's time and arguments; gives a
        result, or an exception, for each of them. Where it raises, each is tried alone.
    """

    def __init__(
        self,
        transactions: Transactions,
        work: Callable[[Cursor, datetime, list[A]], list[R | Exception]],
    ) -> None:
        self._transactions = transactions
        self._work = work
        self._waiting: deque[_Request[A, R]] = deque()
        #: Transactions under way that are not slow.
        self._running = 0

    def run(self, argument: A) -> Deferred[R]:
        """
        Have `argument` done. Cancelling the Deferred abandons it, as in `Transactions.run`.

        :raises StoreUnavailable: if the database can't do it now.
        """
        request: _Request[A, R] = _Request(argument)
        self._waiting.append(request)
        self._begin()
        return request.answer

    def _begin(self) -> None:
        if not self._running and (requests := self._next()):
            self._running += 1
            Deferred.fromCoroutine(self._together(requests)).addErrback(
                lambda failure: log.failure("unexpected", failure)
            )

    def _next(self) -> list[_Request[A, R]]:
        """Those that have waited longest, and are still wanted."""
        found: list[_Request[A, R]] = []
        while self._waiting and len(found) < LIMIT:
            request = self._waiting.popleft()
            if not request.abandoned:
                found.append(request)
        return found

    async def _together(self, requests: list[_Request[A, R]]) -> None:
        slow = False
        timer: IDelayedCall

        def give_way() -> None:
            nonlocal timer, slow
            if not self._transactions.has_room:  # another would but wait for a connection
                timer = self._transactions.reactor.callLater(SLOW, give_way)
                return
            slow = True
            self._running -= 1
            self._begin()

        timer = self._transactions.reactor.callLater(SLOW, give_way)
        group = _Group(requests)
        try:
            await self._attempt(group)
        except (Abandoned, CancelledError):
            pass  # nobody waits for an answer
        except Exception as error:
            if len(requests) == 1 or not self._blames_one(error):
                for request in requests:
                    if not request.answer.called:
                        request.answer.errback(error)
            else:
                # At once, so that one that waits for a lock holds up no other.
                await DeferredList(
                    [Deferred.fromCoroutine(self._alone(request)) for request in requests]
                )
        finally:
            if timer.active():
                timer.cancel()
            if not slow:
                self._running -= 1
            self._begin()

    async def _alone(self, request: _Request[A, R]) -> None:
        try:
            await self._attempt(_Group([request]))
        except Exception as error:
            if not request.answer.called:
                request.answer.errback(error)

    async def _attempt(self, group: _Group[A, R]) -> None:
        def work(cursor: Cursor, now: datetime, since: float) -> list[R | Exception]:
            return self._work(cursor, now, group.include())

        group.transaction = self._transactions.run_call(work, group)
        results = await group.transaction
        for request, result in zip(group.included, results, strict=True):
            if request.answer.called:
                continue
            if isinstance(result, Exception):
                request.answer.errback(result)
            else:
                request.answer.callback(result)

    def _blames_one(self, error: Exception) -> bool:
        """Whether others than the one that it is about might do."""
        return not isinstance(error, StoreUnavailable) or isinstance(error, Busy)
