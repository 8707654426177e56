"""
The batches of actions on many jobs or runs: when the next one is made, and that old actions are
forgotten.

Each instance looks for an action now and then, and at once when it has taken one from a user. While
there is one, it makes a batch, and another one `PAUSE` later. Batches make jobs due, so none is
made while there is a backlog, of this instance or in the table: the due jobs are run first (P7).
Where the backlog does not end, an action goes on slowly: see `PATIENCE`.

`Acting` sets no timer: the scheduler's timer begins its `queries`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from dalga.dispatch.outages import ACTION, FORGETTING, Outages
from dalga.dispatch.query import Query, after_backlog
from dalga.log import logger
from dalga.model.action import UNDER_WAY, Action
from dalga.store import Batch, Store

log = logger(__name__)

#: From one look for actions to the next, in seconds. Another instance goes on so late with the
#: actions of one that died.
LOOK = 5.0

#: From the end of one batch to the next, in seconds.
PAUSE = 0.05

#: From one look at a backlog to the next, in seconds: while there is an action, and while none is
#: known of.
BACKLOG_PAUSE, BACKLOG_LOOK = 0.25, 1.0

#: While there is a backlog, an action waits so long (seconds) for its end before each batch.
PATIENCE = 30.0

#: How many jobs or runs a batch acts on, at most; and the part of the slots that it may fill.
MOST, SHARE = 100, 4

#: From one look for old actions to the next, in seconds; and how many one transaction removes.
FORGET_INTERVAL, FORGOTTEN = 3600.0, 100


class Acting:
    """
    See the module's text.

    :param slots: how many runs this instance has under way at most.
    :param endpoints: the names of the endpoints of the configuration.
    :param instance: what this instance calls itself.
    :param busy: tells whether there are more due runs than this instance can claim now.
    :param written: is called with the due time of each job that a batch has written.
    :param changed: is called when a query is over, and another may be wanted.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        store: Store,
        outages: Outages,
        slots: int,
        endpoints: Collection[str],
        instance: str,
        busy: Callable[[], bool],
        written: Callable[[datetime], None],
        changed: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self.reconfigure(slots, endpoints)
        self._instance = instance
        self._busy = busy
        self._written = written
        self._changed = changed
        self.queries: tuple[Query[Any], ...] = (
            Query(ACTION, outages, self._act_when, self._act, self._acted, changed),
            Query(FORGETTING, outages, self._forget_when, self._forget, self._forgot, changed),
        )
        now = reactor.seconds()
        #: When the next batch is made, in seconds of the reactor's clock.
        self._next = now + LOOK
        #: Until when it waits for the end of a backlog.
        self._wait_until = now + LOOK + PATIENCE
        #: When old actions are next looked for, in seconds of the reactor's clock.
        self._next_forgetting = now + FORGET_INTERVAL
        #: Whether there was an action at the last look, or is one to begin.
        self._is_known = False

    def reconfigure(self, slots: int, endpoints: Collection[str]) -> None:
        """Go by these settings from now on: see the class."""
        self._limit = max(1, min(MOST, slots // SHARE))
        self._endpoints = endpoints

    def look(self) -> None:
        """There is an action to begin."""
        self._is_known = True
        self._next = self._reactor.seconds()
        self._wait_until = self._next + PATIENCE
        self._changed()

    # Batches

    def _act_when(self, now: float) -> float:
        look = BACKLOG_PAUSE if self._is_known else BACKLOG_LOOK
        return after_backlog(self._next, now, self._busy, self._wait_until, look)

    def _act(self) -> Deferred[Batch]:
        in_any_case = self._reactor.seconds() >= self._wait_until
        return self._store.act(self._limit, self._endpoints, self._instance, in_any_case)

    def _acted(self, batch: Batch) -> None:
        now = self._reactor.seconds()
        self._is_known = batch.action is not None
        for due in batch.dues:
            self._written(due)
        if batch.held_up:
            self._next = now + BACKLOG_PAUSE
            return
        self._next = now + (LOOK if batch.action is None else PAUSE)
        self._wait_until = self._next + PATIENCE
        if batch.action is not None:
            self._log(batch.action)

    def _log(self, action: Action) -> None:
        what = "an action" if action.request is None else action.request.do
        if action.state not in UNDER_WAY:
            log.info(
                "action {action}: {what} is {state}, matched {matched}, done {done}, "
                "failed {failed}{why}",
                action=action.id,
                what=what,
                state=action.state,
                matched=action.matched,
                done=action.done,
                failed=action.failed,
                why="" if action.error is None else f": {action.error}",
            )

    # Old actions

    def _forget_when(self, now: float) -> float:
        return self._next_forgetting

    def _forget(self) -> Deferred[int]:
        return self._store.forget_actions(FORGOTTEN)

    def _forgot(self, removed: int) -> None:
        pause = FORGET_INTERVAL if removed < FORGOTTEN else PAUSE
        self._next_forgetting = self._reactor.seconds() + pause
