"""
Run a function in a database transaction, in one of adbapi's threads, and again where that helps.

A conflict with another transaction, or an idle connection that the server has closed, is nothing
that a caller should see. What can't be mended here and now becomes `StoreUnavailable`. Nothing
sleeps in a thread, and nothing waits for the database to come back: callers know better how long
that may take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from random import Random
from threading import Lock
from typing import Any, TypeVar

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred, DeferredSemaphore, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from dalga.errors import StoreUnavailable
from dalga.log import logger
from dalga.store.clock import DatabaseClock, steady_seconds
from dalga.store.dialect import Cursor, Dialect, Trouble

log = logger(__name__)
T = TypeVar("T")

#: A result, the database's time, and from when until when, by the steady clock, that was asked for.
_Timed = tuple[T, datetime, float, float]

#: How often a transaction that met a conflict is run in all.
CONFLICT_ATTEMPTS = 10
#: How often one that waited for a lock in vain is.
BUSY_ATTEMPTS = 2
#: How long one that loses its connection is run again, in seconds: as many times as there are
#: connections that may have died unseen while they were idle, unless the server is slow to say so.
LOST_PATIENCE = 3.0

#: Why nothing is done any more.
STOPPING = "this instance is stopping"


class Conflict(Exception):
    """What was read is no longer what is there: run the transaction again."""


class Abandoned(Exception):
    """Nobody wants the transaction any more; it is rolled back."""


class Busy(StoreUnavailable):
    """Others were in the way for too long; a transaction on other rows may do."""


class Call:
    """How far a transaction has come, as its thread and its caller tell each other."""

    def __init__(self) -> None:
        #: Between the two threads.
        self.lock = Lock()
        self._abandoned = False
        self.committing = False
        #: How often it is run in all where it waits for a lock in vain.
        self.busy_attempts = BUSY_ATTEMPTS

    def abandon(self) -> None:
        """The caller has given up: called in the reactor's thread."""
        with self.lock:
            self._abandoned = True

    def commit(self) -> None:
        """
        The next thing will be the COMMIT: called in the database's thread.

        :raises Abandoned: if the caller has given up.
        """
        with self.lock:
            self.check()
            self.committing = True

    def check(self) -> None:
        """Called under the lock. :raises Abandoned: if the caller has given up."""
        if self._abandoned:
            raise Abandoned


class _Connection(adbapi.Connection):
    """A connection that is thrown away where it is of no more use, instead of rolled back."""

    _connection: Any
    _pool: Any
    #: Set by who knows that a new connection may do better: this one is dead, or its server has
    #: become one that only reads.
    useless = False

    def commit(self) -> None:
        try:
            self._connection.commit()
            self._pool.works()
        except Exception as error:
            self.useless = bool(self._pool.is_spent_by(error))
            raise

    def rollback(self) -> None:
        try:
            if not self.useless:
                self._connection.rollback()
                self._pool.works()
                return
        except Exception:
            pass  # dead, as it turns out
        self._pool.disconnect(self._connection)


class _Transaction(adbapi.Transaction):
    _connection: _Connection

    def drop_connection(self) -> None:
        """Have the connection thrown away at the end of this transaction, which fails."""
        self._connection.useless = True


class _Pool(adbapi.ConnectionPool):
    """adbapi's, but for who makes a connection."""

    connectionFactory = _Connection
    transactionFactory = _Transaction
    connections: dict[int, Any]

    def __init__(self, dialect: Dialect, **settings: Any) -> None:
        super().__init__(dialect.module, **settings)  # type: ignore[no-untyped-call]
        self._dialect = dialect
        #: When each thread's connection last worked, in steady seconds.
        self._worked: dict[int, float] = {}

    def works(self) -> None:
        """This thread's connection has just answered."""
        self._worked[self.threadID()] = steady_seconds()  # type: ignore[no-untyped-call]

    def is_spent_by(self, error: Exception) -> bool:
        """Whether a new connection may do better than the one that has met an error."""
        trouble = self._dialect.trouble(error)
        if trouble is Trouble.LOST:
            self._dialect.lost_at = steady_seconds()
        return trouble in (Trouble.LOST, Trouble.UNAVAILABLE)

    def _close(self, connection: Any) -> None:
        super()._close(connection)  # type: ignore[no-untyped-call]
        self._dialect.left(connection)

    def connect(self) -> Any:
        """
        This thread's connection. One that has been idle since before another was found to be dead
        is made anew: mostly they died together, and it would be silent until the time-out.
        """
        thread = self.threadID()  # type: ignore[no-untyped-call]
        connection = self.connections.get(thread)
        if connection is not None and self._worked.get(thread, 0.0) < self._dialect.lost_at:
            self.disconnect(connection)  # type: ignore[no-untyped-call]
            connection = None
        if connection is None:
            connection = self.connections[thread] = self._dialect.connect()
            self.works()
        return connection


class Transactions:
    """
    :param threads: how many transactions may run at once; each has a connection of its own.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        dialect: Dialect,
        clock: DatabaseClock,
        random: Random,
        threads: int,
    ) -> None:
        self.reactor = reactor
        self._dialect = dialect
        self._clock = clock
        self._random = random
        self._threads = threads
        self._free = DeferredSemaphore(threads)
        self._closed = False
        self._read_time = dialect.prepare(dialect.now)
        self._pool: Any = _Pool(dialect, cp_reactor=reactor, cp_min=1, cp_max=threads)

    def run(self, work: Callable[[Cursor, datetime, float], T]) -> Deferred[T]:
        """
        Cancelling the Deferred abandons the transaction: it is not begun any more, not run again,
        and rolled back, unless its COMMIT is already under way. Without that, a write that its
        caller has given up could undo a later one.

        :param work: called in a thread with a cursor, the database's time, and a moment of the
            steady clock (seconds) that is no later than that time. It may be called more than once.
        :raises StoreUnavailable: if the database can't do it now.
        """
        return self.run_call(work, Call())

    def run_call(self, work: Callable[[Cursor, datetime, float], T], call: Call) -> Deferred[T]:
        """`run`, with a say of one's own in whether it is still wanted."""
        return Deferred.fromCoroutine(self._run(partial(self._timed, work), call))

    def read(
        self,
        sql: str,
        arguments: Sequence[object],
        result: Callable[[list[tuple[Any, ...]], datetime], T],
    ) -> Deferred[T]:
        """
        One statement that only reads, and reads the database's time too.

        :param sql: has that in its first column, and always a first row.
        :param result: called in a thread with the rows and that time.
        :raises StoreUnavailable: if the database can't do it now.
        """
        work = partial(self._read, sql, arguments, result)
        return Deferred.fromCoroutine(self._run(work, Call()))

    @property
    def has_room(self) -> bool:
        """Whether one more transaction would have a connection at once."""
        return self._free.tokens > 0

    async def close(self) -> None:
        """Begin no more, wait for what is in the threads, then close the connections."""
        if self._closed:
            return
        self._closed = True
        for _ in range(self._threads):
            await self._free.acquire()
        self._pool.close()

    async def _run(self, work: Callable[[Cursor], _Timed[T]], call: Call) -> T:
        attempt = 0
        began = self._clock.seconds()
        while True:
            attempt += 1
            if self._closed:
                raise StoreUnavailable(STOPPING)
            call.committing = False
            await self._free.acquire()
            try:
                result, now, sent, received = await self._in_thread(work, call)
            except Exception as error:
                if not self._worth_another(error, call, attempt, self._clock.seconds() - began):
                    raise
                log.debug("transaction runs again after {error}", error=error)
            else:
                self._clock.observe(now, sent, received)
                return result  # type: ignore[no-any-return]
            # Out of step with the other party of a conflict, and longer each time.
            pause = self._random.uniform(0, 0.005 * 2 ** min(attempt, 6))
            await deferLater(self.reactor, pause)

    def _in_thread(self, work: Callable[[Cursor], _Timed[T]], call: Call) -> Deferred[Any]:
        """Run it once. The thread is free when it is through, not when nobody waits any more."""
        if self._closed:
            self._free.release()
            return fail(StoreUnavailable(STOPPING))
        waiting: Deferred[Any] = Deferred(lambda _: call.abandon())

        def ended(result: Any) -> None:
            self._free.release()
            if not waiting.called:
                waiting.callback(result)

        self._pool.runInteraction(self._transaction, work, call).addBoth(ended)
        return waiting

    def _worth_another(self, error: Exception, call: Call, attempt: int, elapsed: float) -> bool:
        """:raises StoreUnavailable: where the database can't be used now."""
        conflict = isinstance(error, Conflict)
        trouble = Trouble.CONFLICT if conflict else self._dialect.trouble(error)
        # If the reply to a COMMIT is lost, nobody knows what became of it. What it wrote may have
        # run and be gone by now: once more would be one time too many. A conflict, and a lock that
        # was waited for in vain, say for certain that nothing was written.
        may_be_done = call.committing
        match trouble:
            case None:
                return False
            case Trouble.CONFLICT if attempt < CONFLICT_ATTEMPTS:
                return True
            case Trouble.BUSY if attempt < call.busy_attempts:
                return True
            case Trouble.LOST if attempt <= self._threads and elapsed < LOST_PATIENCE:
                if not may_be_done:
                    return True
        kind = Busy if trouble in (Trouble.CONFLICT, Trouble.BUSY) else StoreUnavailable
        raise kind(f"{self._dialect.where()} can't be used now: {describe(error)}") from error

    def _transaction(
        self, cursor: Cursor, work: Callable[[Cursor], _Timed[T]], call: Call
    ) -> _Timed[T]:
        try:
            self._dialect.begin(cursor)
            done = work(cursor)
            call.commit()
            return done
        except Exception as error:
            if self._pool.is_spent_by(error):
                cursor.drop_connection()
            raise

    def _timed(self, work: Callable[[Cursor, datetime, float], T], cursor: Cursor) -> _Timed[T]:
        _, now, sent, received = self._time(cursor, self._read_time, ())
        return work(cursor, now, sent), now, sent, received

    def _read(
        self,
        sql: str,
        arguments: Sequence[object],
        result: Callable[[list[tuple[Any, ...]], datetime], T],
        cursor: Cursor,
    ) -> _Timed[T]:
        rows, now, sent, received = self._time(cursor, sql, arguments)
        return result(rows, now), now, sent, received

    def _time(
        self, cursor: Cursor, sql: str, arguments: Sequence[object]
    ) -> _Timed[list[tuple[Any, ...]]]:
        """A statement's rows, and the time that stands first in them."""
        sent = self._clock.seconds()
        cursor.execute(sql, arguments)
        rows = cursor.fetchall()
        received = self._clock.seconds()
        return rows, self._dialect.read_instant(rows[0][0]), sent, received


def describe(error: Exception) -> str:
    """A driver's exception in one line: the server's words, without the number and the tuple."""
    words = error.args[1] if len(error.args) > 1 else (error.args or (error,))[0]
    return " ".join(str(words).split()) or type(error).__name__
