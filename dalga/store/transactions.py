"""
Run a function in a database transaction, in one of adbapi's threads, and again where that helps.

A conflict with another transaction, or an idle connection that the server has closed, is nothing
that a caller should see. What can't be mended here and now becomes `StoreUnavailable`. Nothing
sleeps in a thread, and nothing waits for the database to come back: callers know better how long
that may take.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any, TypeVar

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from dalga.errors import StoreUnavailable
from dalga.log import logger
from dalga.store.clock import DatabaseClock
from dalga.store.dialect import Cursor, Dialect, Trouble

log = logger(__name__)
T = TypeVar("T")

#: How often a transaction that met a conflict is run in all.
CONFLICT_ATTEMPTS = 10
#: How often one that waited for a lock in vain is.
BUSY_ATTEMPTS = 2
#: How long one that loses its connection is run again, in seconds: as many times as there are
#: connections that may have died unseen while they were idle, unless the server is slow to say so.
LOST_PATIENCE = 3.0


class Conflict(Exception):
    """What was read is no longer what is there: run the transaction again."""


class _Connection(adbapi.Connection):
    """A connection that is thrown away where it is of no more use, instead of rolled back."""

    _connection: Any
    #: Set by who knows that a new connection may do better: this one is dead, or its server has
    #: become one that only reads.
    useless = False

    def rollback(self) -> None:
        try:
            if not self.useless:
                self._connection.rollback()
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
    connectionFactory = _Connection
    transactionFactory = _Transaction


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
        self._reactor = reactor
        self._dialect = dialect
        self._clock = clock
        self._random = random
        self._threads = threads
        self._running: set[Deferred[Any]] = set()
        self._closed = False
        self._read_time = dialect.prepare("SELECT UTC_TIMESTAMP(6)")
        module, arguments = dialect.connection_arguments()
        self._pool: Any = _Pool(  # type: ignore[no-untyped-call]
            module,
            cp_reactor=reactor,
            cp_openfun=dialect.set_up,
            cp_noisy=False,
            cp_min=1,
            cp_max=threads,
            **arguments,
        )

    def run(self, work: Callable[[Cursor, datetime, float], T]) -> Deferred[T]:
        """
        :param work: called in a thread with a cursor, the database's time, and a moment of the
            steady clock (seconds) that is no later than that time. It may be called more than once.
        :raises StoreUnavailable: if the database can't do it now.
        """
        if self._closed:
            return fail(StoreUnavailable("this instance is stopping"))
        done = Deferred.fromCoroutine(self._run(work))
        self._running.add(done)

        def forget(result: Any) -> Any:
            self._running.discard(done)
            return result

        return done.addBoth(forget)

    async def close(self) -> None:
        """Wait for what is running, then close the connections."""
        self._closed = True
        while self._running:
            ended: Deferred[None] = Deferred()
            next(iter(self._running)).addBoth(_pass_on, ended)
            await ended
        self._pool.close()

    async def _run(self, work: Callable[[Cursor, datetime, float], T]) -> T:
        attempt = 0
        began = self._clock.seconds()
        while True:
            attempt += 1
            try:
                result, now, sent, received = await self._pool.runInteraction(self._timed, work)
            except Exception as error:
                if not self._worth_another(error, attempt, self._clock.seconds() - began):
                    raise
                log.debug("transaction runs again after {error}", error=error)
            else:
                self._clock.observe(now, sent, received)
                return result  # type: ignore[no-any-return]
            # Out of step with the other party of a conflict, and longer each time.
            pause = self._random.uniform(0, 0.005 * 2 ** min(attempt, 6))
            await deferLater(self._reactor, pause)

    def _worth_another(self, error: Exception, attempt: int, elapsed: float) -> bool:
        """:raises StoreUnavailable: where the database can't be used now."""
        if isinstance(error, Conflict):
            return attempt < CONFLICT_ATTEMPTS
        match self._dialect.trouble(error):
            case None:
                return False
            case Trouble.CONFLICT if attempt < CONFLICT_ATTEMPTS:
                return True
            case Trouble.BUSY if attempt < BUSY_ATTEMPTS:
                return True
            case Trouble.LOST if attempt <= self._threads and elapsed < LOST_PATIENCE:
                return True
        raise StoreUnavailable(
            f"{self._dialect.where()} can't be used now: {describe(error)}"
        ) from error

    def _timed(
        self, cursor: Cursor, work: Callable[[Cursor, datetime, float], T]
    ) -> tuple[T, datetime, float, float]:
        try:
            self._dialect.begin(cursor)
            sent = self._clock.seconds()
            cursor.execute(self._read_time)
            ((value,),) = cursor.fetchall()
            received = self._clock.seconds()
            now = self._dialect.read_instant(value)
            return work(cursor, now, sent), now, sent, received
        except Exception as error:
            if self._dialect.trouble(error) in (Trouble.LOST, Trouble.UNAVAILABLE):
                cursor.drop_connection()
            raise


def _pass_on(result: T, then: Deferred[None]) -> T:
    then.callback(None)
    return result


def describe(error: Exception) -> str:
    """A driver's exception in one line: the server's words, without the number and the tuple."""
    words = error.args[1] if len(error.args) > 1 else (error.args or (error,))[0]
    return " ".join(str(words).split()) or type(error).__name__
