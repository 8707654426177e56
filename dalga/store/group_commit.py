"""
What is asked for at about the same time, in one transaction.

A commit waits for the disk, and each statement for the network. So what comes while a transaction
runs waits, and goes together into the next, for which those that the last one answered are given a
moment to ask again (`COMPANY`): under load many requests share what one would cost, and a lone one
waits for nobody. What would have to wait for a row that somebody has locked is left out and done by
itself (`LOCKED`), so that it holds up no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from datetime import datetime
from enum import Enum
from typing import Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall

from dalga.errors import StoreUnavailable
from dalga.log import logger
from dalga.store.dialect import Cursor
from dalga.store.transactions import STOPPING, Abandoned, Busy, Call, Conflict, Transactions

log = logger(__name__)

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")

#: Requests that go into one transaction at most.
LIMIT = 100

#: Requests that are looked at for that; some may be of a key that is under way.
SEEN = 10 * LIMIT

#: How long a transaction may take, in seconds, until what waits for it is begun beside it: it may
#: be waiting for a row that somebody has locked.
SLOW = 0.05

#: How long those that a transaction answered are given to ask again, in seconds, and how long who
#: does so waits for the others.
COMPANY = 0.002


class Locked(Enum):
    """In the place of a result: somebody has the row locked, so it is to be done by itself."""

    LOCKED = "locked"


LOCKED = Locked.LOCKED


class _Request(Generic[A, R]):
    """An argument, and who waits for its result."""

    def __init__(self, argument: A) -> None:
        self.argument = argument
        self.abandoned = False
        #: Is told of it.
        self.group: _Group[A, R] | None = None
        self.answer: Deferred[R] = Deferred(lambda _: self._abandon())

    def _abandon(self) -> None:
        if self.group is None:
            self.abandoned = True
        else:
            self.group.give_up(self)


class _Group(Call, Generic[A, R]):
    """The requests of one transaction, as its thread and their callers see them."""

    def __init__(self, requests: list[_Request[A, R]], writes: bool) -> None:
        super().__init__()
        self._requests = requests
        self._writes = writes
        if len(requests) > 1:
            self.busy_attempts = 1  # those that are not in the way are not to wait any longer
        self.transaction: Deferred[list[R | Exception | Locked]] | None = None
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

    def check(self) -> None:
        """See `Call.check`. What somebody has given up meanwhile must not be written (P4)."""
        super().check()
        if self._writes and any(request.abandoned for request in self.included):
            raise Conflict("somebody has given up")

    def give_up(self, request: _Request[A, R]) -> None:
        """One is abandoned; where all are, the transaction waits for its turn no longer."""
        with self.lock:
            request.abandoned = True
        if self.transaction is not None and all(one.abandoned for one in self._requests):
            self.transaction.cancel()


class Together(Generic[A, R]):
    """
    :param work: called in a thread with a cursor, the database's time and arguments; gives a
        result, or an exception, for each of them. Where it raises, each is tried alone, and so is
        what it gives `LOCKED` for, which it does only where there are several.
    :param key: of what is written: what has the same key is done one after the other, in the order
        in which it came. None where it is only read.
    """

    def __init__(
        self,
        transactions: Transactions,
        work: Callable[[Cursor, datetime, list[A]], list[R | Exception | Locked]],
        key: Callable[[A], Hashable] | None = None,
    ) -> None:
        self._transactions = transactions
        self._work = work
        self._key = key
        self._waiting: deque[_Request[A, R]] = deque()
        #: What is under way, by its key.
        self._taken: dict[Hashable, _Request[A, R]] = {}
        #: Transactions under way that are not slow, and one that is about to begin.
        self._running = 0
        #: How many may want to go into the next: those that waited at the end of the last, and
        #: those that were answered by it.
        self._expected = 0
        self._ended_at = 0.0
        self._soon: IDelayedCall | None = None
        self._closed = False

    def run(self, argument: A) -> Deferred[R]:
        """
        Have `argument` done. Cancelling the Deferred abandons it, as in `Transactions.run`.

        :raises StoreUnavailable: if the database can't do it now.
        """
        if self._closed:
            return fail(StoreUnavailable(STOPPING))
        request: _Request[A, R] = _Request(argument)
        self._waiting.append(request)
        # Not the request's own Deferred: a callback of the caller's that waits for something would
        # hold up what lets the key go.
        answer: Deferred[R] = Deferred(lambda _: request.answer.cancel())
        request.answer.chainDeferred(answer)
        self._begin_soon()
        return answer

    def close(self) -> None:
        """Begin no more. What waits fails; what is under way goes on to its end."""
        self._closed = True
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        while self._waiting:
            request = self._waiting.popleft()
            if not request.answer.called:
                request.answer.errback(StoreUnavailable(STOPPING))

    def _begin_soon(self) -> None:
        # Not at once: what else the reactor has read by now comes along.
        if self._waiting and not self._running:
            self._running += 1
            if self._transactions.reactor.seconds() >= self._ended_at + COMPANY:
                self._expected = 0
            delay = COMPANY if len(self._waiting) < self._expected else 0
            self._soon = self._transactions.reactor.callLater(delay, self._begin)
        elif self._soon is not None and len(self._waiting) == self._expected:
            self._soon.reset(0)

    def _begin(self) -> None:
        self._soon = None
        requests = self._next()
        if requests:
            Deferred.fromCoroutine(self._together(requests)).addErrback(
                lambda failure: log.failure("unexpected", failure)
            )
        else:
            self._running -= 1  # what is left waits for one of its key

    def _ended(self, answered: int) -> None:
        """One of those that are running is not any more, or slow: begin the next."""
        self._running -= 1
        self._expected = min(LIMIT, len(self._waiting) + answered)
        self._ended_at = self._transactions.reactor.seconds()
        self._begin_soon()

    def _next(self) -> list[_Request[A, R]]:
        """Those that have waited longest, and are still wanted, and whose key is free."""
        found: list[_Request[A, R]] = []
        left: deque[_Request[A, R]] = deque()
        for _ in range(min(SEEN, len(self._waiting))):
            if len(found) == LIMIT:
                break
            request = self._waiting.popleft()
            if request.abandoned:
                continue
            (found if self._take(request) else left).append(request)
        self._waiting.extendleft(reversed(left))
        return found

    def _take(self, request: _Request[A, R]) -> bool:
        """Whether nobody has the request's key."""
        if self._key is None:
            return True
        key = self._key(request.argument)
        if self._taken.setdefault(key, request) is not request:
            return False
        request.answer.addBoth(self._let_go, key)
        return True

    def _let_go(self, result: T, key: Hashable) -> T:
        """Its answer is there, or it is given up, and will not be written."""
        del self._taken[key]
        self._begin_soon()
        return result

    async def _together(self, requests: list[_Request[A, R]]) -> None:
        slow = False
        timer: IDelayedCall

        def give_way() -> None:
            nonlocal timer, slow
            if not self._transactions.has_room:  # another would but wait for a connection
                timer = self._transactions.reactor.callLater(SLOW, give_way)
                return
            slow = True
            self._ended(answered=0)

        timer = self._transactions.reactor.callLater(SLOW, give_way)
        group = _Group(requests, writes=self._key is not None)
        try:
            self._each_alone(await self._attempt(group))
        except (Abandoned, CancelledError):
            pass  # nobody waits for an answer
        except Exception as error:
            # What may have been written must not be written once more (P4).
            if len(requests) == 1 or group.committing or not self._blames_one(error):
                for request in requests:
                    if not request.answer.called:
                        request.answer.errback(error)
            else:
                self._each_alone(requests)
        finally:
            if timer.active():
                timer.cancel()
            if not slow:
                self._ended(answered=len(requests))

    def _each_alone(self, requests: list[_Request[A, R]]) -> None:
        # At once, so that one that waits for a lock holds up no other.
        for request in requests:
            Deferred.fromCoroutine(self._alone(request)).addErrback(
                lambda failure: log.failure("unexpected", failure)
            )

    async def _alone(self, request: _Request[A, R]) -> None:
        try:
            await self._attempt(_Group([request], writes=self._key is not None))
        except Exception as error:
            if not request.answer.called:
                request.answer.errback(error)

    async def _attempt(self, group: _Group[A, R]) -> list[_Request[A, R]]:
        """:return: those that have to be done by themselves."""

        def work(cursor: Cursor, now: datetime, since: float) -> list[R | Exception | Locked]:
            return self._work(cursor, now, group.include())

        group.transaction = self._transactions.run_call(work, group)
        results = await group.transaction
        locked = []
        for request, result in zip(group.included, results, strict=True):
            if request.answer.called:
                continue
            if isinstance(result, Locked):
                locked.append(request)
            elif isinstance(result, Exception):
                request.answer.errback(result)
            else:
                request.answer.callback(result)
        return locked

    def _blames_one(self, error: Exception) -> bool:
        """Whether others than the one that it is about might do."""
        return not isinstance(error, StoreUnavailable) or isinstance(error, Busy)
