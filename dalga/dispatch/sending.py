"""
The sending of alerts: claims from the table, POSTs to the targets, and notes of what came of them.

    the table ──claim──▶ `Sending._post`, a few for each target ──settle──▶ the table

An example, of two targets, one of which does not answer::

    0.0 s    a claim takes 10 alerts to ops and 1 to chat    ops has no room left, chat has 9
    0.1 s    chat answers: what came of that alert is noted  chat has 10
    0.2 s    a claim takes 2 more to chat, and none to ops
    10.0 s   the POSTs to ops have timed out                 ops has 10

What always holds: of the alerts to one target, at most `AT_ONCE` are claimed and not yet noted. No
target waits for another. An alert is sent again until its target has taken it, for a day at most.

`Sending` sets no timer: the scheduler's timer begins its `queries`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from random import Random
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dalga.dispatch.outages import ALERTS, SETTLING, Outages
from dalga.dispatch.query import Query
from dalga.log import logger
from dalga.metrics import Metrics
from dalga.model.alert import slack
from dalga.model.retry import RetryPolicy
from dalga.store import Store
from dalga.store.outbox import Outbox, Parcel, Settled, Taken

log = logger(__name__)

#: Alerts that are sent to one target at once, at most.
AT_ONCE = 10

#: From one claim to the next, in seconds, at most. Other instances may have written alerts.
POLL = 5.0

#: From the writing of an alert by this instance to the claim of that alert, in seconds. One claim
#: takes all alerts that are written meanwhile.
SOON = 0.05

#: How long an alert that did not arrive waits for its next attempt.
AGAIN = RetryPolicy(
    interval=timedelta(seconds=2),
    multiplier=2.0,
    max_interval=timedelta(minutes=10),
    jitter=0.1,
)

#: Time limit (seconds) of the last note, at a stop.
CLOSING = 1.0

_NEVER = float("inf")


class Arrival(Protocol):
    """What a POST came to: see `dalga.outgoing.webhook`."""

    @property
    def arrived(self) -> bool: ...

    @property
    def words(self) -> str: ...


class Unsent(NamedTuple):
    """The `Arrival` of an alert that was not POSTed."""

    arrived: bool
    words: str


class Webhook(Protocol):
    """Where alerts are POSTed to."""

    def post(self, text: str, id: str | None = None) -> Deferred[Any]:
        """:return: fires with an `Arrival`, and never fails."""


class Target(NamedTuple):
    """A target of the configuration."""

    webhook: Webhook
    #: Whether it takes the messages of Slack's incoming webhooks, or else the JSON of alerts.
    is_slack: bool = False


class Sending:
    """
    See the module's text.

    :param random: for the pauses between attempts.
    :param targets: by their names. Without any, nothing is asked of the database.
    :param changed: is called when a query is over, or another may be wanted.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        store: Store,
        outages: Outages,
        random: Random,
        targets: Mapping[str, Target],
        metrics: Metrics,
        changed: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._random = random
        self._targets = targets
        #: The targets before the last reload: an alert may have been claimed for one of them.
        self._former = targets
        self._metrics = metrics
        self._changed = changed
        self._claims = Query(
            ALERTS, outages, self._claim_when, self._claim, self._claimed, self._claim_ended
        )
        self._notes = Query(
            SETTLING, outages, self._settle_when, self._settle, self._settled, self._progressed
        )
        self.queries: tuple[Query[Any], ...] = (self._claims, self._notes)
        #: When the next claim is wanted, in seconds of the reactor's clock.
        self._next_claim = reactor.seconds()
        #: When an alert is due again that did not arrive, or was put off, in seconds of the
        #: reactor's clock: the earliest of these times that the last claim came too early for.
        self._again_at = _NEVER
        #: When the last claim began, in seconds of the reactor's clock.
        self._asked_at = reactor.seconds()
        #: How many alerts the store had written when the last claim began.
        self._written = 0
        #: How many alerts are claimed and not yet noted, by target.
        self._held: Counter[str] = Counter()
        #: POSTs that are under way.
        self._posts: set[Deferred[Any]] = set()
        #: What came of POSTs that are over, to be noted.
        self._over: list[Settled] = []
        #: How many of `_over`, from its beginning, the note under way writes.
        self._noting = 0
        self._closing = False
        #: Fires when a query or a POST is over: `close` waits for all of them.
        self._progress: Deferred[None] | None = None

    @property
    def _outbox(self) -> Outbox:
        return self._store.outbox

    @property
    def holds_alerts(self) -> bool:
        """Whether there are alerts that are claimed and not yet noted."""
        return self._claims.under_way or bool(self._posts) or bool(self._over)

    def reconfigure(self, targets: Mapping[str, Target]) -> None:
        """Send alerts to these targets from now on. A POST under way goes on."""
        self._former, self._targets = self._targets, targets
        self._next_claim = self._reactor.seconds()

    def recorded(self) -> None:
        """A record or a claim is over: send the alerts that it may have written."""
        if self._claims.under_way:
            return  # the end of the claim looks once more
        if self._outbox.written != self._written:
            self._next_claim = min(self._next_claim, self._reactor.seconds() + SOON)

    async def close(self) -> None:
        """
        Cut off what is being sent: it is sent again after the next start, or by another instance.
        """
        self._closing = True
        for post in list(self._posts):
            post.cancel()
        noted = Deferred.fromCoroutine(self._note_last())
        try:
            await noted.addTimeout(CLOSING, self._reactor)
        except Exception as error:
            # Their leases end, and they are sent again.
            log.debug("what came of the last alerts is not noted: {error!r}", error=error)

    def _progressed(self) -> None:
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.callback(None)
        self._changed()

    async def _note_last(self) -> None:
        while self._claims.under_way or self._notes.under_way or self._posts:
            self._progress = Deferred()
            await self._progress
        if self._over:
            await self._outbox.settle(self._over)

    # Claims

    def _claim_when(self, now: float) -> float | None:
        return None if self._closing or not self._targets else self._next_claim

    def _claim(self) -> Deferred[Taken]:
        self._written = self._outbox.written
        self._asked_at = self._reactor.seconds()
        return self._outbox.claim({name: AT_ONCE - self._held[name] for name in self._targets})

    def _claimed(self, taken: Taken) -> None:
        now = self._reactor.seconds()
        if self._again_at <= self._asked_at:
            self._again_at = _NEVER
        if taken.again is not None:
            self._again_at = min(self._again_at, now + taken.again.total_seconds())
        self._next_claim = min(now + POLL, self._again_at)
        for parcel in taken.parcels:
            self._held[parcel.target] += 1
        for parcel in taken.parcels:
            self._post(parcel)

    def _claim_ended(self) -> None:
        self.recorded()
        self._progressed()

    # POSTs

    def _post(self, parcel: Parcel) -> None:
        post = self._begin_post(parcel)
        self._posts.add(post)

        def over(arrival: Arrival) -> None:
            self._posts.discard(post)
            self._over.append(self._judge(parcel, arrival))
            self._progressed()

        post.addCallback(over)
        if self._closing:
            post.cancel()

    def _begin_post(self, parcel: Parcel) -> Deferred[Any]:
        """:return: fires with an `Arrival`, whatever happens."""
        # A reload may have exchanged the targets since the claim began.
        name = parcel.target
        target = self._targets.get(name) or self._former.get(name)
        if target is None:
            return succeed(Unsent(False, "there is no such target any more"))
        try:
            text = slack(members(parcel.content)) if target.is_slack else parcel.content
            return target.webhook.post(text, parcel.id.hex())
        except Exception:
            # The alert is put back as any other, so that it does not hold its target's room.
            log.failure("the alert {alert} can't be sent", Failure(), alert=parcel.id.hex())
            return succeed(Unsent(False, "internal error, which Dalga's log describes"))

    def _judge(self, parcel: Parcel, arrival: Arrival) -> Settled:
        """What becomes of an alert after an attempt to send it."""
        event = str(members(parcel.content).get("event", ""))
        if arrival.arrived:
            self._metrics.alert(event, "sent")
            return Settled(parcel, None, None)
        again = AGAIN.delay(parcel.attempt, self._random, None)
        is_over = again > parcel.lasts
        self._metrics.alert(event, "given_up" if is_over else "failed")
        if is_over or parcel.attempt == 1:
            log.warn(
                "alert {alert} ({event}) did not arrive at the target {target}: {words}; {then}",
                alert=parcel.id.hex(),
                event=event,
                target=parcel.target,
                words=arrival.words,
                then="it is given up" if is_over else "it is sent again for a day",
            )
        return Settled(parcel, None if is_over else again, arrival.words)

    # Notes

    def _settle_when(self, now: float) -> float | None:
        return now if self._over and not self._closing else None

    def _settle(self) -> Deferred[None]:
        self._noting = len(self._over)
        return self._outbox.settle(self._over[: self._noting])

    def _settled(self, result: None) -> None:
        noted, self._over = self._over[: self._noting], self._over[self._noting :]
        now = self._reactor.seconds()
        # Other alerts may have waited for room, or for one of the noted alerts.
        self._next_claim = now
        for parcel, again, _ in noted:
            self._held[parcel.target] -= 1
            if again is not None:
                self._again_at = min(self._again_at, now + again.total_seconds())


def members(text: str) -> dict[str, Any]:
    """The members of an alert's JSON; none if the text is no JSON (P6)."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
