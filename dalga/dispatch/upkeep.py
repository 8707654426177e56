"""
What an instance does besides its runs: heartbeats, corrections after a clock was set back, and the
removal of what nobody needs any more.

A *heartbeat* writes into the instance table that this instance is alive, and counts the others. No
run depends on it: the table tells people, and an upgrade, which daemons there are. The count tells
`outlook.py` whether there is anybody to leave a lead to, and to share a burst with.

A *correction* moves the due times that were written while the database's clock was ahead. They
would hold up their jobs. `dalga.model.setback` says which times are moved, and where to.

A *cleaning* removes Idempotency-Keys whose time is over, a few in each transaction. It waits while
there is a backlog of runs.

`Upkeep` sets no timer: the scheduler's timer begins its `queries`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from dalga.dispatch.lead import Lead
from dalga.dispatch.outages import CLEANING, CORRECTION, HEARTBEAT, Outages
from dalga.dispatch.query import Query, after_backlog
from dalga.log import logger
from dalga.model.instance import About
from dalga.model.setback import Reach
from dalga.store import Recorded, Store
from dalga.store.clock import SET_BACK

log = logger(__name__)

#: From one heartbeat of an instance to the next, in seconds.
HEARTBEAT_INTERVAL = 10.0

#: From one look for old keys to the next, in seconds.
CLEANING_INTERVAL = 60.0

#: How many old keys one transaction removes, at most. It takes some 8 ms.
CLEANED = 200

#: After as many, there may be more: they are removed so much later, in seconds. So 3,000 a second
#: can go.
CLEANING_PAUSE = 0.05

#: While there is a backlog, a cleaning waits for its end, but no longer than this, in seconds.
CLEANING_PATIENCE = 600.0

#: Time limit (seconds) for removing this instance from the instance table at shutdown. A row that
#: is left there is forgotten later, with those of instances that died.
DEPARTURE = 1.0


class Upkeep:
    """
    See the module's text.

    :param instance: what this instance calls itself.
    :param reach: how far ahead of the database's time anything is written, at most.
    :param busy: tells whether there are more due runs than this instance can claim now.
    :param moved: is called when a correction has moved due times.
    :param changed: is called when a query is over, and another may be wanted.
    :param about: gives what this instance says of itself, but for how long a heartbeat takes.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        store: Store,
        outages: Outages,
        instance: str,
        reach: Reach,
        lead: Lead,
        busy: Callable[[], bool],
        moved: Callable[[], None],
        changed: Callable[[], None],
        about: Callable[[], About],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._outages = outages
        self._instance = instance
        self._reach = reach
        self._lead = lead
        self._busy = busy
        self._moved = moved
        self._changed = changed
        self._about = about
        #: When this instance began, by the database's clock.
        self._since = store.clock.now()
        #: When the last heartbeat began (seconds of the reactor's clock), and how long the one took
        #: that succeeded last (seconds).
        self._announced_at = 0.0
        self._latency: float | None = None
        self._heartbeats = Query(
            HEARTBEAT,
            outages,
            self._heartbeat_when,
            self._announce,
            self._announced,
            self._heartbeat_ended,
        )
        corrections = Query(
            CORRECTION, outages, self._correct_when, self._correct, self._corrected, changed
        )
        cleanings = Query(CLEANING, outages, self._clean_when, self._clean, self._cleaned, changed)
        self.queries: tuple[Query[Any], ...] = (self._heartbeats, corrections, cleanings)
        #: When the next heartbeat is written, in seconds of the reactor's clock.
        self._next_heartbeat = reactor.seconds()
        #: When old keys are next looked for, in seconds of the reactor's clock.
        self._next_cleaning = reactor.seconds() + CLEANING_INTERVAL
        #: How often ends of runs were written that have to be corrected (`recorded`).
        self._late_ends = 0
        #: What `_reasons` gave when the last correction began that came to its end.
        self._corrected_for = (0, 0)
        self._stopping = False
        #: Fires when the heartbeat under way has ended: `depart` waits for it.
        self._heartbeat_over: Deferred[None] | None = None

    def reconfigure(self, reach: Reach) -> None:
        """Correct times by another reach from now on."""
        self._reach = reach

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
        if self._heartbeats.under_way:  # the heartbeat would add this instance to the table again
            self._heartbeat_over = Deferred()
            await self._heartbeat_over
        await self._store.depart(self._instance)

    # Heartbeats

    def _heartbeat_when(self, now: float) -> float:
        return self._next_heartbeat

    def _announce(self) -> Deferred[int]:
        self._announced_at = self._reactor.seconds()
        about = self._about()._replace(latency=self._latency)
        return self._store.announce(self._instance, self._since, about)

    def _announced(self, others: int) -> None:
        self._lead.others = others
        now = self._reactor.seconds()
        self._latency = now - self._announced_at
        self._next_heartbeat = now + HEARTBEAT_INTERVAL

    def _heartbeat_ended(self) -> None:
        over, self._heartbeat_over = self._heartbeat_over, None
        if over is not None:
            over.callback(None)
        self._changed()

    # A clock that was set back

    def recorded(self, recorded: Recorded) -> None:
        """
        A batch of ends is written. Where a user changed a job during a run, and the clock was set
        back in that same run, the next run may be written by the clock that was ahead. The
        correction has seen no more than the row's lease: so another one is made.
        """
        if changed := (*recorded.revised, *recorded.overridden):
            ahead = self._store.clock.now() + SET_BACK
            if any(end.run.claimed > ahead for end in changed):
                self._late_ends += 1

    def _reasons(self) -> tuple[int, int]:
        """How many reasons for a correction there have been: set-backs, and batches of ends."""
        return self._store.clock.set_backs, self._late_ends

    def _correct_when(self, now: float) -> float | None:
        return now if self._reasons() != self._corrected_for else None

    def _correct(self) -> Deferred[tuple[int, int] | None]:
        return Deferred.fromCoroutine(self._correct_all())

    async def _correct_all(self) -> tuple[int, int] | None:
        """
        Move what is to be moved, a piece of the table at a time.

        :return: the reasons that the times are corrected for; None if a stop came before the end.
        """
        reasons = self._reasons()
        last = await self._store.correct(self._reach, None)
        while last is not None and not self._stopping:
            last = await self._store.correct(self._reach, last)
        return reasons if last is None else None

    def _corrected(self, reasons: tuple[int, int] | None) -> None:
        if reasons is not None:
            self._corrected_for = reasons
            self._moved()
            log.warn("the database's clock was set back: jobs that it would hold up were moved")

    # Old keys

    def _clean_when(self, now: float) -> float:
        wanted = self._next_cleaning
        return after_backlog(wanted, now, self._busy, wanted + CLEANING_PATIENCE)

    def _clean(self) -> Deferred[int]:
        return self._store.forget_keys(CLEANED)

    def _cleaned(self, removed: int) -> None:
        pause = CLEANING_INTERVAL if removed < CLEANED else CLEANING_PAUSE
        self._next_cleaning = self._reactor.seconds() + pause
