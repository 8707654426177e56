"""
What an instance does besides its runs: signs of life, and corrections after a clock was set back.

No run depends on the signs of life: they tell people, and an upgrade, which daemons there are. A
correction moves the due times that were written while the database's clock was ahead, which would
hold up their jobs (`dalga.model.setback` says which, and where to).

`Upkeep` sets no timer: the scheduler's timer begins its `queries`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from dalga.dispatch.outages import CORRECTION, SIGN, Outages
from dalga.dispatch.query import Query
from dalga.log import logger
from dalga.model.setback import Reach
from dalga.store import Store

log = logger(__name__)

#: From one sign of life of an instance to the next, in seconds.
SIGN_OF_LIFE = 10.0

#: Time limit (seconds) for removing this instance from the instance table at shutdown. A row that
#: is left there is forgotten later, with those of instances that died.
DEPARTURE = 1.0


class Upkeep:
    """
    See the module's text.

    :param instance: what this instance calls itself.
    :param reach: how far ahead of the database's time anything is written, at most.
    :param moved: is called when a correction has moved due times.
    :param changed: is called when a query is over, and another may be wanted.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        store: Store,
        outages: Outages,
        instance: str,
        reach: Reach,
        moved: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._outages = outages
        self._instance = instance
        self._reach = reach
        self._moved = moved
        self._changed = changed
        self._signs = Query(
            SIGN, outages, self._sign_when, self._announce, self._announced, self._sign_ended
        )
        corrections = Query(
            CORRECTION, outages, self._correct_when, self._correct, self._corrected, changed
        )
        self.queries: tuple[Query[Any], ...] = (self._signs, corrections)
        #: When the next sign of life is given, in seconds of the reactor's clock.
        self._next_sign = reactor.seconds()
        #: The value of `DatabaseClock.set_backs` up to which jobs were corrected.
        self._set_backs = 0
        self._stopping = False
        #: `depart` waits for it: that a sign of life has ended.
        self._signed: Deferred[None] | None = None

    def stop(self) -> None:
        """End a correction after its present piece. The next start begins anew."""
        self._stopping = True

    async def depart(self) -> None:
        """Leave the instance table, unless the database is away."""
        if self._outages.away:
            return
        departed = Deferred.fromCoroutine(self._depart())
        try:
            await departed.addTimeout(DEPARTURE, self._reactor)
        except Exception as error:
            log.debug("not taken off the list of instances: {error!r}", error=error)

    async def _depart(self) -> None:
        if self._signs.under_way:  # the sign of life would add this instance to the table again
            self._signed = Deferred()
            await self._signed
        await self._store.depart(self._instance)

    # Sign of life

    def _sign_when(self, now: float) -> float:
        return self._next_sign

    def _announce(self) -> Deferred[None]:
        return self._store.announce(self._instance)

    def _announced(self, _: None) -> None:
        self._next_sign = self._reactor.seconds() + SIGN_OF_LIFE

    def _sign_ended(self) -> None:
        signed, self._signed = self._signed, None
        if signed is not None:
            signed.callback(None)
        self._changed()

    # A clock that was set back

    def _correct_when(self, now: float) -> float | None:
        return now if self._store.clock.set_backs != self._set_backs else None

    def _correct(self) -> Deferred[int | None]:
        return Deferred.fromCoroutine(self._correct_all())

    async def _correct_all(self) -> int | None:
        """
        Move what is to be moved, a piece of the table at a time.

        :return: up to which set-back the times are corrected; None if a stop came before the end.
        """
        set_backs = self._store.clock.set_backs
        last = await self._store.correct(self._reach, None)
        while last is not None and not self._stopping:
            last = await self._store.correct(self._reach, last)
        return set_backs if last is None else None

    def _corrected(self, set_backs: int | None) -> None:
        if set_backs is not None:
            self._set_backs = set_backs
            self._moved()
            log.warn("the database's clock was set back: jobs that it would hold up were moved")
