"""
A kind of query that dispatch makes now and then: a claim, a scan, a heartbeat and so on.

They have different reasons, and the same course::

    when(now)     the scheduler's timer asks: when is the next one wanted?
    ask()         that time is there: the query begins
    take(result)  the database has answered
    ended()       the query is over, whether it `succeeded` or not

What always holds: at most one query of a kind is under way, and none begins in the pause that
follows a failure of its kind (`outages.py`). A failure is logged there, and is nobody's error.

A `Query` sets no timer: `Scheduler` has one timer for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

from dalga.dispatch.outages import Outages
from dalga.log import logger, own

log = logger(__name__)
T = TypeVar("T")


class Query(Generic[T]):
    """
    See the module's text.

    :param kind: as `outages.py` names it.
    :param when: gives the time at which the next query is wanted, or None while there is none. It
        gets the present time; both are in seconds of the reactor's clock.
    """

    def __init__(
        self,
        kind: str,
        outages: Outages,
        when: Callable[[float], float | None],
        ask: Callable[[], Deferred[T]],
        take: Callable[[T], None],
        ended: Callable[[], None],
    ) -> None:
        self._kind = kind
        self._outages = outages
        self._when = when
        self._ask = ask
        self._take = take
        self._ended = ended
        self.under_way = False
        #: Whether the last query that ended has succeeded.
        self.succeeded = True

    def at(self, now: float) -> float | None:
        """
        When to begin the next query, in seconds of the reactor's clock; None while one is under
        way, or none is wanted.
        """
        if self.under_way:
            return None
        wanted = self._when(now)
        if wanted is None:
            return None
        not_before = self._outages.not_before(self._kind)
        return wanted if wanted > not_before else not_before

    def begin(self) -> None:
        """Begin a query now. None may be under way."""
        self.under_way = True
        own(self._make(), log)

    async def _make(self) -> None:
        try:
            result = await self._ask()
            self._outages.answered(self._kind)
            self._take(result)
        except Exception as error:
            self.succeeded = False
            self._outages.failed(self._kind, error)
        else:
            self.succeeded = True
        finally:
            self.under_way = False
            self._ended()


def after_backlog(
    wanted: float, now: float, busy: Callable[[], bool], until: float, look: float = 1.0
) -> float:
    """
    When to make a query that due runs go before. All times are in seconds of the reactor's clock.

        wanted   now   busy    until       the query is made at
        10.0      7.0          600.0       10.0
        10.0     12.0   no     600.0       10.0, which is at once
        10.0     12.0   yes    600.0       13.0, if there is no backlog by then
        10.0    600.0   yes    600.0       600.0, which is at once

    :param wanted: when the query is wanted if there is no backlog.
    :param busy: tells whether there is a backlog: more due runs than this instance can claim now.
    :param until: the query waits for the end of a backlog until then at most.
    :param look: from one look at the backlog to the next, in seconds.
    """
    if now >= wanted and busy():
        return min(now + look, until)
    return wanted
