"""
Group commit: requests that come at about the same time share one transaction.

A transaction waits for the network at each statement, and for the disk at its COMMIT. It waits no
longer with a hundred requests than with one. So requests of one kind (all PUTs, or all GETs) are
done in groups. One group at a time is in its transaction, and the requests that come meanwhile are
the next group. With the times in milliseconds::

    0   A comes                  [A] begins in the reactor's next turn
    1   B and C come             they wait
    4   [A] is committed         A's client is answered, and has `GATHER` (2 ms) to ask again
    5   A's client sends D       no other client was answered at 4, so [B C D] begins at once

Without `GATHER`, [B C] would begin at 4 and D would wait for its end: a crowd of clients would
split into halves that take turns, in twice as many transactions. A group waits only for clients
that the last group answered. So a client that is alone never waits for others.

To *abandon* a request is to cancel its Deferred: its caller waits no longer, as the API does after
four seconds. An abandoned request that is in no group yet is never begun. A write that is abandoned
before the COMMIT of its group is not committed. A write that is abandoned during the COMMIT may be
committed or not, and its caller can't know.

What always holds (docs/promises.md lists the promises P1 to P11):

- Each request has a result of its own. One that is refused is refused alone.
- Writes of the same key (the same job) are done one after the other, in the order in which they
  came. They form a line. Only the first write of a line may be under way, and it leaves the line
  when it is answered or abandoned. If it is abandoned during its COMMIT, the next write may begin
  at once: the database makes that wait for the row's lock.
- Writes of other kinds (DELETEs, say) are in no group, and stand in the same lines: see
  `run_ungrouped`. Else a DELETE could overtake a PUT whose client has hung up, and the PUT would
  bring the job back.
- The user's last word wins (P4). A write that comes late could undo what its client has said since.
  So a write that is abandoned before the COMMIT is not committed: the transaction is run again
  without it. And a write whose COMMIT had no answer is not run again: it may have been committed.
- PUTs and GETs are two kinds, and don't wait for each other. A GET that comes after a PUT's answer
  sees what the PUT wrote. A GET that comes before that answer may see it or not.

What breaks a group, and what becomes of its requests:

- Another session (another instance's, or a person's) has locked the row of one request. Where the
  database can skip locked rows, `work` (see `GroupCommit`) answers `LOCKED` for that request. It is
  then tried alone, in a transaction of its own. The others are committed.
- `work` raises, or a lock is not released in time (`Busy`). Nothing of the group is committed, and
  each request is tried alone.
- The database can't be used, or the COMMIT fails, and `Transactions` has given up: all requests of
  the group fail.
- The transaction takes longer than `SLOW` (50 ms), as where it waits for a lock. It goes on. The
  next group begins beside it once the lane has a free connection, looked at every 50 ms. (A *lane*
  is a `Transactions`: a few threads, each with a connection.)

Requests that are tried alone begin at the same time, up to `MAX_GROUP` of them. They take all of
the lane's connections, in the order of the group. The lane's other calls wait behind them, until
they end or are abandoned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from datetime import datetime
from enum import Enum
from itertools import islice
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IDelayedCall

from dalga.errors import StoreUnavailable
from dalga.log import logger, own
from dalga.metrics import OTHER
from dalga.store.dialect import Cursor
from dalga.store.transactions import STOPPING, Abandoned, Busy, Call, Conflict, Transactions

log = logger(__name__)

Argument = TypeVar("Argument")
Result = TypeVar("Result")
T = TypeVar("T")

#: How many requests one group has at most. Not measured: of a hundred, each costs a hundredth of a
#: COMMIT. More would save hardly anything, and hold their rows' locks longer.
MAX_GROUP = 100

#: A transaction that has taken this long (seconds) no longer holds up the next group. Some ten
#: times what a group of 16 PUTs takes (docs/performance.md).
SLOW = 0.05

#: Clients that a group has answered get this long (seconds), from the group's end, to send their
#: next request. Then the next group begins without it. Measured: with 1 ms a crowd sometimes
#: splits, and 4 ms are no better (docs/performance.md).
GATHER = 0.002


class Locked(Enum):
    """In the place of a result: another session has locked the row, so try this request alone."""

    LOCKED = "locked"


LOCKED = Locked.LOCKED


class _Request(Generic[Argument, Result]):
    """
    An argument, and the Deferred of its result.

    :param abandon: is called with the request when the Deferred is cancelled.
    """

    def __init__(
        self, argument: Argument, abandon: Callable[[_Request[Argument, Result]], None]
    ) -> None:
        self.argument = argument
        self.abandoned = False
        #: The last group that it was put into; None while it waits for its first.
        self.group: _Group[Argument, Result] | None = None
        self.answer: Deferred[Result] = Deferred(lambda _: abandon(self))

    @property
    def begun(self) -> bool:
        """Whether it has been put into a group."""
        return self.group is not None


class _UngroupedWrite(Generic[T]):
    """
    A write that is in no group (a DELETE, say), and stands in the line of its key.

    :param write: begins it. Cancelling the Deferred that it gives abandons the write.
    """

    def __init__(self, write: Callable[[], Deferred[T]]) -> None:
        self._write = write
        self._under_way: Deferred[T] | None = None
        self.answer: Deferred[T] = Deferred(lambda _: self._abandon())

    @property
    def begun(self) -> bool:
        """Whether it is under way."""
        return self._under_way is not None

    def begin(self) -> None:
        """Begin it: it is the first of its line. If `write` raises, the write fails."""
        self._under_way = maybeDeferred(self._write)
        self._under_way.addBoth(self._ended)

    def _ended(self, result: Any) -> None:
        if not self.answer.called:
            self.answer.callback(result)  # a Failure makes it fail

    def _abandon(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()


class _Group(Call, Generic[Argument, Result]):
    """
    The requests that one transaction does: several, or one alone.

    Requests are abandoned in the reactor's thread, while the database thread does those that are
    still wanted, and commits them. The lock of `Call` (a thread's lock, none of the database's)
    decides whether a request was abandoned before the COMMIT.
    """

    def __init__(self, requests: list[_Request[Argument, Result]], writes: bool) -> None:
        super().__init__()
        self._requests = requests
        self._writes = writes
        if len(requests) > 1:
            # If a lock is not released in time, each request is tried alone. To wait for the lock a
            # second time would hold up the requests that don't need it.
            self.busy_attempts = 1
        self.transaction: Deferred[Any] | None = None
        for request in requests:
            request.group = self
        #: The requests that the transaction does, as it is run at present.
        self._in_transaction: list[_Request[Argument, Result]] = []

    def wanted(self) -> list[_Request[Argument, Result]]:
        """
        The requests that are not abandoned: to be done now, and noted for `check`. Called in the
        database thread, each time that the transaction is run.

        :raises Abandoned: if there are none.
        """
        self._in_transaction = [request for request in self._requests if not request.abandoned]
        if not self._in_transaction:
            raise Abandoned
        return self._in_transaction

    def check(self) -> None:
        """
        Before the COMMIT, in the database thread and under the lock: see `Call.check`.

        :raises Conflict: if a write was abandoned since the transaction did it. `Transactions` then
            rolls back, and runs the transaction again.
        """
        super().check()
        if self._writes and any(request.abandoned for request in self._in_transaction):
            raise Conflict("a request was abandoned")

    def abandon_one(self, request: _Request[Argument, Result]) -> None:
        """Abandon a request. If all are abandoned by now, the transaction is abandoned, too."""
        with self.lock:
            request.abandoned = True
        if self.transaction is not None and all(one.abandoned for one in self._requests):
            self.transaction.cancel()


class GroupCommit(Generic[Argument, Result]):
    """
    Does one kind of request (all PUTs, say) in groups. The module's text says how.

    :param transactions: where the groups' transactions are run.
    :param work: does the requests of one transaction. It is called in a database thread with a
        cursor, the database's time (aware, UTC) and the arguments, no key twice, and maybe more
        than once. It returns as many results, in the same order: for each argument its result, or
        the exception that refuses it, or `LOCKED`, to have it tried alone. If there is one argument
        only, it is being tried alone: `work` is to wait for the lock, and `LOCKED` refuses it.
    :param key: the key of a write. None if the requests only read.
    :param operation: what a group does, in a word: see `Transactions`.
    """

    def __init__(
        self,
        transactions: Transactions,
        work: Callable[[Cursor, datetime, list[Argument]], list[Result | Exception | Locked]],
        key: Callable[[Argument], Hashable] | None = None,
        operation: str = OTHER,
    ) -> None:
        self._transactions = transactions
        self._work = work
        self._key = key
        self._operation = operation
        #: The requests for the next groups, in the order in which they may begin: a dict, as those
        #: that are abandoned leave from anywhere. Nothing bounds it here: each is an HTTP request
        #: of a connection of its own, and the server bounds those.
        self._waiting: dict[_Request[Argument, Result], None] = {}
        #: By key, the writes without an answer, in the order in which they came. The first is in
        #: `_waiting` or under way; those behind it are neither. No line is empty.
        self._lines: dict[Hashable, deque[_Request[Argument, Result] | _UngroupedWrite[Any]]] = {}
        #: Whether a group's transaction is under way that is not slow: the next waits for its end.
        self._under_way = False
        #: Begins the next group.
        self._timer: IDelayedCall | None = None
        #: The next group begins when this many requests wait: those that waited when the last group
        #: ended, and one more from each client that it answered. At most `MAX_GROUP`.
        self._expected = 0
        #: When the last group ended, in the reactor's seconds.
        self._ended_at = 0.0
        self._closed = False

    def run(self, argument: Argument) -> Deferred[Result]:
        """
        Do one request. Cancelling the Deferred abandons the request.

        :raises StoreUnavailable: if the database can't do it now.
        """
        if self._closed:
            return fail(StoreUnavailable(STOPPING))
        request: _Request[Argument, Result] = _Request(argument, self._abandon)
        if self._key is None:
            self._waiting[request] = None
            self._set_timer()
        else:
            self._join_line(request, self._key(argument))
        return request.answer

    def run_ungrouped(self, key: Hashable, write: Callable[[], Deferred[T]]) -> Deferred[T]:
        """
        Do a write of another kind, in the line of its key: behind the writes of the key that came
        before, and before those that come later. Cancelling the Deferred abandons the write.

        :param write: begins it. Cancelling the Deferred that it gives abandons the write.
        :raises StoreUnavailable: if the database can't do it now.
        """
        if self._closed:
            return fail(StoreUnavailable(STOPPING))
        ungrouped = _UngroupedWrite(write)
        self._join_line(ungrouped, key)
        return ungrouped.answer

    def close(self) -> None:
        """Begin no more writes and groups. Those that wait fail; those under way go on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines = [write for line in self._lines.values() for write in line]
        waiting = [one for one in (*self._waiting, *lines) if not one.begun]
        _refuse(waiting, StoreUnavailable(STOPPING))

    # Before a group: the queue, and the lines of keys

    def _abandon(self, request: _Request[Argument, Result]) -> None:
        """A request's caller has cancelled it. Its `answer` fails right after this."""
        if request.group is not None:
            request.group.abandon_one(request)
        else:
            self._waiting.pop(request, None)  # not there if another of its key is before it

    def _join_line(
        self, write: _Request[Argument, Result] | _UngroupedWrite[Any], key: Hashable
    ) -> None:
        line = self._lines.setdefault(key, deque())
        line.append(write)
        # `_leave_line` is the first callback. If the caller's were before it, and returned a
        # Deferred, the write would stay in its line until that fires.
        write.answer.addBoth(self._leave_line, write, key)
        if line[0] is write:
            self._come_first(write)

    def _leave_line(
        self, answer: T, write: _Request[Argument, Result] | _UngroupedWrite[Any], key: Hashable
    ) -> T:
        """A write is answered or abandoned. If it was the first, the next may begin."""
        line = self._lines[key]
        was_first = line[0] is write
        line.remove(write)
        if not line:
            del self._lines[key]
        elif was_first:
            self._come_first(line[0])
        return answer

    def _come_first(self, write: _Request[Argument, Result] | _UngroupedWrite[Any]) -> None:
        """A write has become the first of its line: begin it, or have it wait for a group."""
        if self._closed:
            return  # `close` is refusing the line, from its front to its end
        if isinstance(write, _UngroupedWrite):
            write.begin()
        else:
            self._waiting[write] = None
            self._set_timer()

    # Groups, one at a time

    def _set_timer(self) -> None:
        """Have the next group begin when its requests are there, unless one is under way."""
        if self._closed or self._under_way or not self._waiting:
            return
        reactor = self._transactions.reactor
        if self._timer is None:
            # Never at once: requests that the reactor reads in this same turn are to be in it.
            left = max(0.0, self._ended_at + GATHER - reactor.seconds())
            delay = left if len(self._waiting) < self._expected else 0.0
            self._timer = reactor.callLater(delay, self._begin)
        elif len(self._waiting) == self._expected:
            self._timer.reset(0)

    def _begin(self) -> None:
        self._timer = None
        requests = list(islice(self._waiting, MAX_GROUP))
        if requests:  # else all were abandoned meanwhile
            for request in requests:
                del self._waiting[request]
            self._under_way = True
            own(self._run_group(requests), log)

    def _allow_next(self, answered: int) -> None:
        """
        Let the next group begin: the last one is done, or is slow and goes on beside it.

        :param answered: how many clients it has just answered: they may send another request.
        """
        self._under_way = False
        self._expected = min(MAX_GROUP, len(self._waiting) + answered)
        self._ended_at = self._transactions.reactor.seconds()
        self._set_timer()

    async def _run_group(self, requests: list[_Request[Argument, Result]]) -> None:
        next_is_allowed = False
        timer: IDelayedCall

        def begin_next_beside() -> None:
            nonlocal timer, next_is_allowed
            if not self._transactions.has_room:  # the next would only wait for a connection
                timer = self._transactions.reactor.callLater(SLOW, begin_next_beside)
                return
            next_is_allowed = True
            self._allow_next(answered=0)

        timer = self._transactions.reactor.callLater(SLOW, begin_next_beside)
        group = self._group(requests)
        try:
            self._run_each_alone(await self._run_transaction(group))
        except (Abandoned, CancelledError):
            pass  # all of its requests were abandoned
        except Exception as error:
            if len(requests) > 1 and not group.committing and _may_succeed_alone(error):
                # Nothing was committed, for certain (P4).
                self._run_each_alone([one for one in requests if not one.abandoned])
            else:
                _refuse(requests, error)
        finally:
            if timer.active():
                timer.cancel()
            if not next_is_allowed:
                self._allow_next(sum(one.answer.called and not one.abandoned for one in requests))

    def _run_each_alone(self, requests: list[_Request[Argument, Result]]) -> None:
        # All at once, so that one that waits for a lock holds up no other.
        for request in requests:
            own(self._run_alone(request), log)

    async def _run_alone(self, request: _Request[Argument, Result]) -> None:
        try:
            await self._run_transaction(self._group([request]))
        except Exception as error:
            _refuse([request], error)

    def _group(self, requests: list[_Request[Argument, Result]]) -> _Group[Argument, Result]:
        return _Group(requests, writes=self._key is not None)

    async def _run_transaction(
        self, group: _Group[Argument, Result]
    ) -> list[_Request[Argument, Result]]:
        """
        Run a group's transaction, and answer its requests.

        :return: the requests whose rows are locked. They have no answer yet.
        """

        def work(
            cursor: Cursor, now: datetime, _steady: float
        ) -> list[tuple[_Request[Argument, Result], Result | Exception | Locked]]:
            requests = group.wanted()
            results = self._work(cursor, now, [request.argument for request in requests])
            # Here, before the COMMIT, a wrong number of results is a mistake without consequences.
            return list(zip(requests, results, strict=True))

        group.transaction = self._transactions.run_call(work, group, self._operation)
        done = await group.transaction
        locked = []
        for request, result in done:
            if request.answer.called:
                continue  # it was abandoned
            if isinstance(result, Locked):
                locked.append(request)
            elif isinstance(result, Exception):
                request.answer.errback(result)
            else:
                request.answer.callback(result)
        # A request is also alone if all others of its group were abandoned.
        if len(done) == 1 and locked:
            _refuse(locked, Busy("another session has locked the row"))
            return []
        return locked


def _refuse(
    requests: Sequence[_Request[Any, Any] | _UngroupedWrite[Any]], error: Exception
) -> None:
    """Answer requests with an error, but for those that have an answer."""
    for request in requests:
        if not request.answer.called:
            request.answer.errback(error)


def _may_succeed_alone(error: Exception) -> bool:
    """
    Whether a request of a group that failed may succeed alone. If the database can't be used, none
    may. Any other error is the fault of one request, or of a lock on its row, and the other
    requests may succeed.
    """
    return isinstance(error, Busy) or not isinstance(error, StoreUnavailable)
