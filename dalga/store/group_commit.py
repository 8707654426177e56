"""
Group commit: requests that come at about the same time share one transaction.

A transaction waits for the disk once, at its COMMIT, and for the network at each statement. So of
one kind of request (PUTs, or GETs) one group at a time is in a transaction, and requests that come
meanwhile are the next group. With the times in milliseconds::

    0   A comes                  [A] begins in the reactor's next turn
    1   B and C come             they wait
    4   [A] is committed         A's client is answered, and has `GATHER` to send its next request
    5   A's client sends D       the three that were expected are there: [B C D] begins

Without `GATHER`, a crowd of clients would split into halves that take turns, in twice as many
transactions. A group waits for it only while fewer requests are there than are expected, so a
client that is alone never waits.

What always holds:

- Each request has a result of its own. One that is refused is refused alone.
- Writes of the same key (the same job) are done one after the other, in the order in which they
  came. A write's key is reserved from the beginning of its group until its answer, or until its
  caller gives up; a COMMIT that is under way then still has the row's lock.
- A write whose caller gave up before the COMMIT is not committed (P4): its group's transaction is
  run again without it. A read that was given up disturbs nobody.
- What may have been committed is not run again (P4).

What breaks a group, and what becomes of its requests:

- Somebody else has locked a request's row: the work function answers `LOCKED` for it, and it is
  done in a transaction of its own.
- The transaction takes longer than `SLOW`, as where it waits for a lock that can't be skipped: the
  next group begins beside it, if a connection is free.
- The work function raises, or waits for a lock in vain: each request is tried alone.
- The database can't be used, or the COMMIT fails for good: all requests of the group fail.
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

#: How many requests one group has at most.
MAX_GROUP = 100

#: How many waiting requests are looked at to make a group, at most. It is more than `MAX_GROUP`, as
#: those whose key is reserved are passed over.
MAX_SEARCH = 10 * MAX_GROUP

#: A transaction that has taken this long (seconds) no longer holds up the next group.
SLOW = 0.05

#: How long (seconds) clients that were just answered get to send their next request, before the
#: next group begins without it.
GATHER = 0.002


class Locked(Enum):
    """In the place of a result: somebody else has locked the row, so try this request alone."""

    LOCKED = "locked"


LOCKED = Locked.LOCKED


class _Request(Generic[A, R]):
    """An argument, and the Deferred of its result."""

    def __init__(self, argument: A) -> None:
        self.argument = argument
        self.abandoned = False
        #: The last group that it was put into; None while it waits for its first.
        self.group: _Group[A, R] | None = None
        self.answer: Deferred[R] = Deferred(lambda _: self._abandon())

    def _abandon(self) -> None:
        if self.group is None:
            self.abandoned = True
        else:
            self.group.give_up(self)


class _Group(Call, Generic[A, R]):
    """
    The requests of one transaction.

    Callers abandon requests in the reactor's thread, while the transaction's thread reads which
    are wanted. The lock of `Call` decides what is abandoned before the COMMIT.
    """

    def __init__(self, requests: list[_Request[A, R]], writes: bool) -> None:
        super().__init__()
        self._requests = requests
        self._writes = writes
        if len(requests) > 1:
            # A second wait for the same lock would hold up the requests that don't need it.
            self.busy_attempts = 1
        self.transaction: Deferred[list[R | Exception | Locked]] | None = None
        for request in requests:
            request.group = self
        #: The requests that were still wanted when the work function was last called.
        self.included: list[_Request[A, R]] = []

    def include(self) -> list[A]:
        """
        The arguments of the requests that are still wanted. Called in the transaction's thread,
        each time that it is run.

        :raises Abandoned: if no request is wanted any more.
        """
        self.included = [request for request in self._requests if not request.abandoned]
        if not self.included:
            raise Abandoned
        return [request.argument for request in self.included]

    def check(self) -> None:
        """
        See `Call.check`.

        :raises Conflict: if a write was abandoned after `include`: it must not be committed (P4),
            so the transaction is run again, without it.
        """
        super().check()
        if self._writes and any(request.abandoned for request in self.included):
            raise Conflict("somebody has given up")

    def give_up(self, request: _Request[A, R]) -> None:
        """Abandon a request. Where all are abandoned, so is the transaction."""
        with self.lock:
            request.abandoned = True
        if self.transaction is not None and all(one.abandoned for one in self._requests):
            self.transaction.cancel()


class GroupCommit(Generic[A, R]):
    """
    One kind of request (all PUTs, say), done in groups. See the module's text.

    :param transactions: where the groups' transactions are run.
    :param work: does the requests of one group. It is called in a database thread with a cursor,
        the database's time (aware, UTC) and their arguments, maybe more than once, and returns for
        each argument, in order, its result or the exception that refuses it. `LOCKED` in the place
        of a result has the request tried alone; work must not return it for a single argument.
    :param key: the key of a write. None if the requests only read.
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
        #: Requests that are in no group yet, in the order in which they came.
        self._waiting: deque[_Request[A, R]] = deque()
        #: The request that each key is reserved for.
        self._reserved: dict[Hashable, _Request[A, R]] = {}
        #: Whether there is a group that is about to begin, or whose transaction is under way and
        #: not slow: the next group waits for its end.
        self._occupied = False
        #: How many requests are worth waiting for: those that waited when the last group ended, and
        #: one more from each client that it answered. At most `MAX_GROUP`.
        self._expected = 0
        #: When that was, in the reactor's seconds.
        self._ended_at = 0.0
        #: Begins the next group.
        self._beginning: IDelayedCall | None = None
        self._closed = False

    def run(self, argument: A) -> Deferred[R]:
        """
        Do one request. Cancelling the Deferred abandons it, as in `Transactions.run`.

        :raises StoreUnavailable: if the database can't do it now.
        """
        if self._closed:
            return fail(StoreUnavailable(STOPPING))
        request: _Request[A, R] = _Request(argument)
        self._waiting.append(request)
        # Not the request's own Deferred: a caller's callback that returns a Deferred would keep the
        # request's later callbacks from running, and one of them frees the key.
        answer: Deferred[R] = Deferred(lambda _: request.answer.cancel())
        request.answer.chainDeferred(answer)
        self._begin_soon()
        return answer

    def close(self) -> None:
        """Begin no more groups. Waiting requests fail; transactions under way go on."""
        self._closed = True
        if self._beginning is not None and self._beginning.active():
            self._beginning.cancel()
        while self._waiting:
            request = self._waiting.popleft()
            if not request.answer.called:
                request.answer.errback(StoreUnavailable(STOPPING))

    def _begin_soon(self) -> None:
        """Begin the next group when its requests are there, unless one is under way."""
        # Never at once: requests that the reactor reads in this same turn are to be in the group.
        if self._waiting and not self._occupied:
            self._occupied = True
            if self._transactions.reactor.seconds() >= self._ended_at + GATHER:
                self._expected = 0
            delay = GATHER if len(self._waiting) < self._expected else 0
            self._beginning = self._transactions.reactor.callLater(delay, self._begin)
        elif self._beginning is not None and len(self._waiting) == self._expected:
            self._beginning.reset(0)

    def _begin(self) -> None:
        self._beginning = None
        requests = self._next_group()
        if requests:
            Deferred.fromCoroutine(self._run_group(requests)).addErrback(
                lambda failure: log.failure("unexpected", failure)
            )
        else:
            self._occupied = False  # all keys are reserved: `_free_key` begins the next group

    def _group_ended(self, answered: int) -> None:
        """
        The group is done, or slow: begin the next.

        :param answered: how many clients have an answer now, and may send another request.
        """
        self._occupied = False
        self._expected = min(MAX_GROUP, len(self._waiting) + answered)
        self._ended_at = self._transactions.reactor.seconds()
        self._begin_soon()

    def _next_group(self) -> list[_Request[A, R]]:
        """
        The requests that have waited longest and whose keys are free, which are reserved then.
        Abandoned ones are dropped, the others stay in their order.
        """
        found: list[_Request[A, R]] = []
        left: deque[_Request[A, R]] = deque()
        for _ in range(min(MAX_SEARCH, len(self._waiting))):
            if len(found) == MAX_GROUP:
                break
            request = self._waiting.popleft()
            if request.abandoned:
                continue
            (found if self._reserve_key(request) else left).append(request)
        self._waiting.extendleft(reversed(left))
        return found

    def _reserve_key(self, request: _Request[A, R]) -> bool:
        """Reserve a request's key for it; False if another request has it."""
        if self._key is None:
            return True
        key = self._key(request.argument)
        if self._reserved.setdefault(key, request) is not request:
            return False
        request.answer.addBoth(self._free_key, key)
        return True

    def _free_key(self, result: T, key: Hashable) -> T:
        """A request has been answered or abandoned: the next with its key may begin."""
        del self._reserved[key]
        self._begin_soon()
        return result

    async def _run_group(self, requests: list[_Request[A, R]]) -> None:
        slow = False
        timer: IDelayedCall

        def begin_next_beside() -> None:
            nonlocal timer, slow
            if not self._transactions.has_room:  # the next would only wait for a connection
                timer = self._transactions.reactor.callLater(SLOW, begin_next_beside)
                return
            slow = True
            self._group_ended(answered=0)

        timer = self._transactions.reactor.callLater(SLOW, begin_next_beside)
        group = _Group(requests, writes=self._key is not None)
        try:
            self._run_each_alone(await self._transact(group))
        except (Abandoned, CancelledError):
            pass  # all of its requests were abandoned
        except Exception as error:
            # What may have been committed must not be run again (P4).
            if len(requests) == 1 or group.committing or not self._may_do_alone(error):
                for request in requests:
                    if not request.answer.called:
                        request.answer.errback(error)
            else:
                self._run_each_alone(requests)
        finally:
            if timer.active():
                timer.cancel()
            if not slow:
                self._group_ended(answered=len(requests))

    def _run_each_alone(self, requests: list[_Request[A, R]]) -> None:
        # All at once, so that one that waits for a lock holds up no other.
        for request in requests:
            Deferred.fromCoroutine(self._run_alone(request)).addErrback(
                lambda failure: log.failure("unexpected", failure)
            )

    async def _run_alone(self, request: _Request[A, R]) -> None:
        try:
            await self._transact(_Group([request], writes=self._key is not None))
        except Exception as error:
            if not request.answer.called:
                request.answer.errback(error)

    async def _transact(self, group: _Group[A, R]) -> list[_Request[A, R]]:
        """
        Run a group's transaction, and answer its requests.

        :return: the requests that are locked, and have no answer yet.
        """

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

    def _may_do_alone(self, error: Exception) -> bool:
        """
        Whether the requests of a group that failed may do one by one: one of them is to blame, or
        the lock on its row. It is no help where the database itself can't be used.
        """
        return not isinstance(error, StoreUnavailable) or isinstance(error, Busy)
