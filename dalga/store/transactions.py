"""
Run a function in a database transaction, in a thread of its lane, and again where that helps.

A transaction is run again if it met a conflict with another transaction, or a connection that the
server had closed while it was idle. The caller sees nothing of that. If another run can't help now,
the error becomes `StoreUnavailable`. No thread sleeps, and nothing here waits for the database to
come back: callers know better how long they may wait.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from datetime import datetime
from functools import partial
from random import Random
from threading import Lock
from typing import Any, Generic, NamedTuple, Self, TypeVar

from twisted.enterprise import adbapi
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from dalga.errors import DalgaError, StoreUnavailable
from dalga.log import logger
from dalga.metrics import OTHER, Metrics
from dalga.store.clock import DatabaseClock, steady_seconds
from dalga.store.dialect import Cursor, Dialect, Trouble
from dalga.store.parameters import R, Select
from dalga.store.selected import NowRow
from dalga.store.threads import Threads
from dalga.store.turns import Queue, Turns

log = logger(__name__)
T = TypeVar("T")

#: How often a transaction is run in all, if it meets a conflict each time.
CONFLICT_ATTEMPTS = 10
#: How often a transaction is run in all, if a lock is not released in time each time.
BUSY_ATTEMPTS = 2
#: A transaction that loses its connection is run again until this long (seconds) after it was
#: asked for, and at most once for each connection: all of them may have died unseen while idle.
LOST_PATIENCE = 3.0

#: The results of transactions: see `dalga_db_transactions_total` in `dalga.metrics`.
OK, REFUSED, AGAIN, BUSY = "ok", "refused", "again", "busy"
ABANDONED, UNAVAILABLE, FAILED = "abandoned", "unavailable", "failed"

#: Why no transaction is begun any more, as the message of a `StoreUnavailable`.
STOPPING = "this instance is stopping"


class Timed(NamedTuple, Generic[T]):
    """A result, with a reading of the database's clock that was made on the way to it."""

    result: T
    #: The database's time (aware, UTC). It was read between `sent` and `received`. None if the
    #: statement that would have read it gave no rows.
    now: datetime | None
    #: Just before the statement that reads the time was sent, in steady seconds.
    sent: float
    #: Just after the statement's rows were received, in steady seconds.
    received: float


class Conflict(Exception):
    """
    Roll the transaction back, and run it again: rows have changed since it read them, or one of the
    requests that it does was abandoned.
    """


class Abandoned(Exception):
    """Nobody wants the transaction any more; it is rolled back."""


class Busy(StoreUnavailable):
    """Other transactions held rows for too long. A transaction on other rows may succeed."""


class Call:
    """
    How far a transaction has come. Its thread and the reactor's thread agree on that here.

    Either the caller gives up first, and nothing is committed; or the COMMIT begins first, and goes
    on to its end. `lock` decides which of the two is first.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self._abandoned = False
        #: Whether the COMMIT was begun. An error after that does not say whether it was done.
        self.committing = False
        #: How often the transaction is run in all, if a lock is not released in time each time.
        self.busy_attempts = BUSY_ATTEMPTS
        #: What the transaction, as it was run last, has noted.
        self.noted: list[Any] = []

    def abandon(self) -> None:
        """The caller has given up: called in the reactor's thread."""
        with self.lock:
            self._abandoned = True

    def commit(self) -> None:
        """
        Called right before the COMMIT, in the database's thread.

        :raises Abandoned: if the caller has given up.
        """
        with self.lock:
            self.check()
            self.committing = True

    def check(self) -> None:
        """Called under the lock. :raises Abandoned: if the caller has given up."""
        if self._abandoned:
            raise Abandoned


class LastLoss:
    """
    When a connection to the database was last found to be dead. All lanes of a store have the same.

    Idle connections mostly die together: a server is replaced, or a middlebox forgets them and
    tells nobody. A connection that last worked before the last loss is therefore made anew instead
    of used, or each of them would cost a caller the driver's time-out. Set and read in the database
    threads.
    """

    def __init__(self) -> None:
        #: In steady seconds; 0.0 if no connection was lost yet.
        self.at = 0.0


class _Connection(adbapi.Connection):
    """adbapi's connection. One that is useless is closed, not rolled back."""

    _connection: Any
    _pool: Any
    #: Whether a new connection may do better: this one is dead, or its server takes no writes any
    #: more.
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

    def __init__(self, pool: _Pool, connection: _Connection) -> None:
        #: What the work function notes: see `Transactions.noted`.
        self.noted: list[Any] = []
        super().__init__(pool, connection)  # type: ignore[no-untyped-call]

    def drop_connection(self) -> None:
        """Have the connection thrown away at the end of this transaction, which fails."""
        self._connection.useless = True


class _Pool(adbapi.ConnectionPool):
    """
    adbapi's pool, with `Threads`. The dialect makes the connections, and `connect` makes old ones
    anew.
    """

    connectionFactory = _Connection
    transactionFactory = _Transaction
    connections: dict[int, Any]
    threadpool: Any

    def __init__(
        self, dialect: Dialect, last_loss: LastLoss, reactor: IReactorTime, threads: int
    ) -> None:
        self._threads = Threads(threads)
        # If the reactor runs already, this calls `start`.
        super().__init__(dialect.module, cp_reactor=reactor)  # type: ignore[no-untyped-call]
        self.threadpool = self._threads
        self._dialect = dialect
        self._last_loss = last_loss
        #: When each thread's connection last worked, in steady seconds.
        self._worked: dict[int, float] = {}

    def start(self) -> None:
        self.threadpool = self._threads
        super().start()  # type: ignore[no-untyped-call]

    def works(self) -> None:
        """This thread's connection has just answered."""
        self._worked[self.threadID()] = steady_seconds()  # type: ignore[no-untyped-call]

    def is_spent_by(self, error: Exception) -> bool:
        """Whether a new connection may do better than the one that has met an error."""
        trouble = self._dialect.trouble(error)
        if trouble is Trouble.LOST:
            self._last_loss.at = steady_seconds()
        return trouble in (Trouble.LOST, Trouble.UNAVAILABLE)

    def _close(self, connection: Any) -> None:
        super()._close(connection)  # type: ignore[no-untyped-call]
        self._dialect.left(connection)

    def connect(self) -> Any:
        """
        This thread's connection, made anew if it last worked before the `LastLoss`.
        """
        thread = self.threadID()  # type: ignore[no-untyped-call]
        connection = self.connections.get(thread)
        if connection is not None and self._worked.get(thread, 0.0) < self._last_loss.at:
            self.disconnect(connection)  # type: ignore[no-untyped-call]
            connection = None
        if connection is None:
            connection = self.connections[thread] = self._dialect.connect()
            self.works()
        return connection


class Transactions:
    """
    A lane: transactions that have database threads of their own. They never wait for the threads of
    another lane.

    :param random: for the pauses between the attempts of a transaction.
    :param threads: how many transactions may run at once; each has a connection of its own.
    :param last_loss: the same for all lanes of a store.
    :param metrics: counts the transactions, each by its operation: what it does, in a word.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        dialect: Dialect,
        clock: DatabaseClock,
        random: Random,
        threads: int,
        last_loss: LastLoss,
        metrics: Metrics,
    ) -> None:
        self.reactor = reactor
        self._dialect = dialect
        self._clock = clock
        self._random = random
        self._threads = threads
        self._turns = Turns(threads)
        self._queue = Queue.SCHEDULER
        self._read_time = Select(NowRow, dialect.prepare(dialect.now))
        self._pool: Any = _Pool(dialect, last_loss, reactor, threads)
        self._metrics = metrics
        #: Is called in the reactor's thread with what a transaction has noted at its cursor
        #: (`noted`, a list), if it has noted anything, once its COMMIT was begun: whether or not
        #: anybody still waits for it. True says that the COMMIT was done, False that it may have
        #: been. What was certainly not committed is forgotten.
        self.noted: Callable[[list[Any], bool], None] = lambda noted, is_certain: None

    def for_the_api(self) -> Self:
        """
        This lane for the API, where there is but one: the same connections, but the API's
        transactions wait in a queue of their own (see `Turns`). Closing one of the two closes both.
        """
        lane = copy(self)
        lane._queue = Queue.API
        return lane

    def run(
        self, work: Callable[[Cursor, datetime, float], T], operation: str = OTHER
    ) -> Deferred[T]:
        """
        Run a transaction. Cancelling the Deferred abandons it: it is not begun any more, not run
        again, and rolled back, unless its COMMIT is already under way. Else a write that its caller
        has given up could undo a later write.

        :param work: called in a thread with a cursor, the database's time (aware, UTC), and a
            moment of the steady clock (seconds) that is no later than the database's time. It may
            be called more than once.
        :raises StoreUnavailable: if the database can't do it now.
        """
        return self.run_call(work, Call(), operation)

    def run_call(
        self,
        work: Callable[[Cursor, datetime, float], T],
        call: Call,
        operation: str = OTHER,
    ) -> Deferred[T]:
        """`run` with the caller's own `Call`, whose `check` may refuse the COMMIT."""
        return Deferred.fromCoroutine(self._run(partial(self._timed, work), call, operation))

    def run_timed(
        self,
        work: Callable[[Cursor], Timed[T]],
        call: Call | None = None,
        operation: str = OTHER,
    ) -> Deferred[T]:
        """
        `run` with a work function that reads the database's time itself: in the statement that it
        begins with, so that no round trip is made for the time alone.
        """
        return Deferred.fromCoroutine(self._run(work, call or Call(), operation))

    def read(
        self,
        fetch: Callable[[Cursor], list[R]],
        result: Callable[[list[R], datetime], T],
        operation: str = OTHER,
    ) -> Deferred[T]:
        """
        Run one statement that only reads. It reads the database's time, too.

        :param fetch: executes a `Select` of at least one row, whose first column is the database's
            time.
        :param result: makes the result of the rows and that time. Called in a database thread.
        :raises StoreUnavailable: if the database can't do it now.
        """
        work = partial(self._read, fetch, result)
        return Deferred.fromCoroutine(self._run(work, Call(), operation))

    @property
    def has_room(self) -> bool:
        """Whether one more transaction would get a connection at once."""
        return self._turns.free > 0

    async def close(self) -> None:
        """Begin no transaction, wait for the transactions in the threads, close the connections."""
        if self._turns.closed:
            return
        self._turns.closed = True
        for _ in range(self._threads):
            await self._turns.acquire(Queue.CLOSE)
        self._pool.close()

    async def _run(self, work: Callable[[Cursor], Timed[T]], call: Call, operation: str) -> T:
        attempt = 0
        began = self._clock.seconds()
        while True:
            attempt += 1
            if self._turns.closed:
                raise StoreUnavailable(STOPPING)
            call.committing = False
            await self._turns.acquire(self._queue)
            connected = self._clock.seconds()
            try:
                done: Timed[T] = await self._in_thread(work, call)
            except Exception as error:
                ended = self._clock.seconds()
                result = UNAVAILABLE
                try:
                    again = self._worth_another(error, call, attempt, ended - began)
                    result = AGAIN if again else _refusal(error)
                except Busy:
                    result = BUSY
                    raise
                finally:
                    self._metrics.transaction(operation, result, ended - connected)
                if not again:
                    raise
                log.debug("transaction runs again after {error}", error=error)
            else:
                self._metrics.transaction(operation, OK, self._clock.seconds() - connected)
                if done.now is not None:
                    self._clock.observe(done.now, done.sent, done.received)
                return done.result
            # A random pause, so that two transactions in each other's way don't meet again. It is
            # longer each time.
            pause = self._random.uniform(0, 0.005 * 2 ** min(attempt, 6))
            await deferLater(self.reactor, pause)

    def _in_thread(self, work: Callable[[Cursor], Timed[T]], call: Call) -> Deferred[Any]:
        """Run a transaction once. Its thread is busy until it is done, also if it was cancelled."""
        if self._turns.closed:
            self._turns.release()
            return fail(StoreUnavailable(STOPPING))
        waiting: Deferred[Any] = Deferred(lambda _: call.abandon())

        def ended(result: Any) -> None:
            self._turns.release()
            if call.noted and call.committing:
                self._tell(call, result)
            if not waiting.called:
                waiting.callback(result)

        try:
            running = self._pool.runInteraction(self._transaction, work, call)
        except RuntimeError as error:  # the system has no thread left
            self._turns.release()
            return fail(StoreUnavailable(f"{self._dialect.where()} can't be asked: {error}"))
        running.addBoth(ended)
        return waiting

    def _tell(self, call: Call, result: Any) -> None:
        """Hand on what a transaction has noted whose COMMIT was begun."""
        noted, call.noted = call.noted, []
        if not isinstance(result, Failure):
            self.noted(noted, True)
        elif (
            not isinstance(result.value, Exception)
            or self._dialect.trouble(result.value) is not Trouble.CONFLICT
        ):
            self.noted(noted, False)

    def _worth_another(self, error: Exception, call: Call, attempt: int, elapsed: float) -> bool:
        """
        Whether to run a transaction again.

        :param elapsed: since the transaction was asked for, in seconds.
        :raises StoreUnavailable: if the database can't be used now.
        """
        conflict = isinstance(error, Conflict)
        trouble = Trouble.CONFLICT if conflict else self._dialect.trouble(error)
        # If the answer to a COMMIT is lost, the rows may have been written. A job that was written
        # may have run and be gone by now: if it were written once more, it would run once too
        # often. After a conflict, or a lock that was not released in time, nothing was written.
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
        self, cursor: Cursor, work: Callable[[Cursor], Timed[T]], call: Call
    ) -> Timed[T]:
        call.noted = cursor.noted
        try:
            self._dialect.begin(cursor)
            done = work(cursor)
            call.commit()
            return done
        except Exception as error:
            if self._pool.is_spent_by(error):
                cursor.drop_connection()
            else:
                # The error's traceback holds the cursor, and the reactor's thread lets go of the
                # error. SQLite would have that thread wait there until this connection's next
                # statement has ended, which may wait 5 s for a lock of another program (P7).
                cursor.close()
            raise

    def _timed(self, work: Callable[[Cursor, datetime, float], T], cursor: Cursor) -> Timed[T]:
        sent = self._clock.seconds()
        rows = self._read_time.fetch(cursor)
        received = self._clock.seconds()
        now = self._dialect.read_instant(rows[0].now)
        return Timed(work(cursor, now, sent), now, sent, received)

    def _read(
        self,
        fetch: Callable[[Cursor], list[R]],
        result: Callable[[list[R], datetime], T],
        cursor: Cursor,
    ) -> Timed[T]:
        sent = self._clock.seconds()
        rows = fetch(cursor)
        received = self._clock.seconds()
        now = self._dialect.read_instant(rows[0][0])
        return Timed(result(rows, now), now, sent, received)


def _refusal(error: Exception) -> str:
    """The result of a transaction that the database has not refused."""
    if isinstance(error, StoreUnavailable):  # it is stopping, or there is no thread left
        return UNAVAILABLE
    if isinstance(error, DalgaError):
        return REFUSED
    return ABANDONED if isinstance(error, CancelledError | Abandoned) else FAILED


def describe(error: Exception) -> str:
    """A driver's exception in one line: the server's words, without the number and the tuple."""
    words = error.args[1] if len(error.args) > 1 else (error.args or (error,))[0]
    return " ".join(str(words).split()) or type(error).__name__
