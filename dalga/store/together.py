"""
What is asked for at about the same time, in one transaction.

A commit waits for the disk, and each statement for the network. So what comes while a transaction
runs waits, and goes together into the next: under load many requests share what one would cost, and
a lone one waits for nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from dalga.errors import StoreUnavailable
from dalga.log import logger
from dalga.store.dialect import Cursor
from dalga.store.transactions import Abandoned, Busy, Call, Conflict, Transactions

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
        self.answer: Deferred[R] = Deferred(lambda _: self._abandon())

    def _abandon(self) -> None:
        self.abandoned = True


class _Group(Call, Generic[A, R]):
    """The requests of one transaction, as its thread and their callers see them."""

    def __init__(self, requests: list[_Request[A, R]]) -> None:
        super().__init__()
        self._requests = requests
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

    def commit(self) -> None:
        """See `Call.commit`. What somebody has given up meanwhile must not be written (P4)."""
        if any(request.abandoned for request in self.included):
            raise Conflict("somebody has given up")
        super().commit()


class Together(Generic[A, R]):
    """
    :param work: called in a thread with a cursor, the database's time and arguments; gives a
        result, or an exception, for each of them. What it raises undoes all, and each is then tried
        alone.
    :param key: what must not be twice in one transaction.
    """

    def __init__(
        self,
        transactions: Transactions,
        work: Callable[[Cursor, datetime, list[A]], list[R | Exception]],
        key: Callable[[A], Hashable] | None = None,
    ) -> None:
        self._transactions = transactions
        self._work = work
        self._key = key
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
        if self._waiting and not self._running:
            self._running += 1
            Deferred.fromCoroutine(self._together(self._next())).addErrback(
                lambda failure: log.failure("unexpected", failure)
            )

    def _next(self) -> list[_Request[A, R]]:
        """Those that have waited longest, no key twice."""
        found: list[_Request[A, R]] = []
        left: deque[_Request[A, R]] = deque()
        keys = set()
        while self._waiting and len(found) < LIMIT:
            request = self._waiting.popleft()
            key = id(request) if self._key is None else self._key(request.argument)
            if key in keys:
                left.append(request)
            else:
                keys.add(key)
                found.append(request)
        left.extend(self._waiting)
        self._waiting = left
        return found

    async def _together(self, requests: list[_Request[A, R]]) -> None:
        slow: list[bool] = []

        def give_way() -> None:
            slow.append(True)
            self._running -= 1
            self._begin()

        timer: IDelayedCall = self._transactions.reactor.callLater(SLOW, give_way)
        group = _Group(requests)
        try:
            await self._attempt(group)
        except Abandoned:
            pass  # nobody waits for an answer
        except Exception as error:
            if len(requests) == 1 or not self._blames_one(error):
                for request in requests:
                    if not request.answer.called:
                        request.answer.errback(error)
            else:
                for request in requests:
                    await self._alone(request)
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

        results = await self._transactions.run_call(work, group)
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
