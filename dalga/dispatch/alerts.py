"""
The sending of alerts, and the look at what there is to be told of beside the ends of runs.

    record, claim ──▶ the table of alerts ◀── the looks: silent jobs, endpoints, lag
                            │ claimed under leases, by any instance
                            ▼
                      `Alerts._send` ──▶ the target's webhook

What always holds: an alert is sent until its target has taken it, for a day at most. It takes no
slot of runs, and no claim or record waits for it: POSTs of alerts are made a few at a time, and
their transactions are the API's.

Where there is no target, nothing is asked of the database. `Alerts` sets no timer: the scheduler's
timer begins its `queries`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime

from dalga.dispatch.outages import ALERTS, LOOK, SIGN_OF_LIFE, Outages
from dalga.dispatch.pulse import Pulse, Tally
from dalga.dispatch.query import Query
from dalga.log import logger
from dalga.metrics import Metrics, Numbers
from dalga.model.alert import Alert, Event, slack
from dalga.model.retry import RetryPolicy
from dalga.model.schedule import exact_timestamp
from dalga.store import Store
from dalga.store.outbox import Outbox, Parcel, Settled, Watch

log = logger(__name__)

#: Alerts that are sent at once, at most.
AT_ONCE = 10

#: From one look for alerts of other instances, or that are due again, to the next, in seconds.
POLL = 5.0

#: From an alert of this instance's to its sending, in seconds. Others join it meanwhile.
SOON = 0.05

#: From one look at endpoints, lag and silent jobs to the next, in seconds.
LOOK_INTERVAL = 5.0

#: Transactions of one look at silent jobs, at most. Each looks at some of them.
SILENCES = 40

#: When an alert is sent again that did not arrive.
AGAIN = RetryPolicy(
    interval=timedelta(seconds=2),
    multiplier=2.0,
    max_interval=timedelta(minutes=10),
    jitter=0.1,
)

#: From one sign of life to the next, in seconds.
BEAT = 60.0

#: From one removal of old alerts to the next, in seconds; and how many it removes, at most.
CLEANING = 600.0
CLEANED = 200

#: How long the first due job has waited (seconds) for the scheduler to be late, and to be in time
#: again; and for how long that has to be so at all looks.
LATE = 60.0
IN_TIME = 30.0
LATE_FOR = 60.0

#: From the begin of an incident of an endpoint to its end, in seconds, at least.
DOWN_FOR = 60.0

#: How long a stop waits for the POSTs of alerts that it has cut off, in seconds.
CLOSING = 1.0

LAGGING = "scheduler.lagging"
_DOWN = "endpoint.down "


class Arrival(Protocol):
    """What a POST came to: see `dalga.outgoing.webhook`."""

    @property
    def arrived(self) -> bool: ...

    @property
    def words(self) -> str: ...


class Unsent(NamedTuple):
    """The `Arrival` of what was POSTed to nobody."""

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


@dataclass(frozen=True)
class Alerting:
    """Where alerts are sent, and what is POSTed to while all is well."""

    #: By their names.
    targets: Mapping[str, Target] = field(default_factory=dict)
    monitor: Webhook | None = None


#: Alerts are sent nowhere.
NO_ALERTING = Alerting()


class Alerts:
    """
    See the module's text.

    :param random: for the pauses between attempts.
    :param instance: what this instance calls itself.
    :param works: tells whether claims and records work.
    :param busy: tells whether there are more due runs than this instance can claim now.
    :param changed: is called when a query is over, or another may be wanted.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        store: Store,
        outages: Outages,
        random: Random,
        alerting: Alerting,
        instance: str,
        works: Callable[[], bool],
        busy: Callable[[], bool],
        metrics: Metrics,
        changed: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._random = random
        self._alerting = alerting
        #: What `alerting` was before: an alert may have been claimed by it.
        self._former = alerting
        self._instance = instance
        self._works = works
        self._busy = busy
        self._metrics = metrics
        self._changed = changed
        now = reactor.seconds()
        self._sending = Query(
            ALERTS, outages, self._send_when, self._send, self._sent, self._send_ended
        )
        self._looking = Query(LOOK, outages, self._look_when, self._look, self._looked, changed)
        self._beating = Query(
            SIGN_OF_LIFE, outages, self._beat_when, self._beat, self._beaten, changed
        )
        metrics.gauge(
            "dalga_alerts_pending", lambda: self._pending if self._alerting.targets else None
        )
        self._next_send = now
        self._next_look = now + LOOK_INTERVAL
        self._next_beat = now
        self._next_cleaning = now + CLEANING
        #: How many alerts the store had written when the last sending began.
        self._written = 0
        #: POSTs that are under way.
        self._posts: set[Deferred[Any]] = set()
        #: Fires when the sending under way has ended: `close` waits for it.
        self._send_over: Deferred[None] | None = None
        self._pending = 0
        self._pulse = Pulse()
        #: The names of the incidents that were open at the last look.
        self._open: set[str] = set()
        #: Since when the scheduler has been late at all looks, in seconds of the reactor's clock.
        self._late_since: float | None = None
        #: Whether the last sign of life arrived.
        self._beat_arrived = True
        self._closing = False

    @property
    def queries(self) -> tuple[Query[Any], ...]:
        """The kinds of queries that there are with the present targets and monitor."""
        of_targets = (self._sending, self._looking) if self._alerting.targets else ()
        of_monitor = () if self._alerting.monitor is None else (self._beating,)
        return (*of_targets, *of_monitor)

    def reconfigure(self, alerting: Alerting) -> None:
        """
        Send alerts there from now on. `queries` are others after that. A POST under way goes on.
        """
        self._former, self._alerting = self._alerting, alerting
        now = self._reactor.seconds()
        self._next_send = now
        if alerting.monitor is not self._former.monitor:
            self._next_beat = now

    @property
    def _outbox(self) -> Outbox:
        return self._store.outbox

    def recorded(self) -> None:
        """A record or a claim is over: send the alerts that it may have written."""
        if not self._alerting.targets or self._sending.under_way:
            return  # the end of the sending looks once more
        if self._outbox.written != self._written:
            self._next_send = min(self._next_send, self._reactor.seconds() + SOON)

    async def close(self) -> None:
        """
        Cut off what is being sent: it is sent again after the next start, or by another instance.
        """
        self._closing = True
        for post in list(self._posts):
            post.cancel()
        if self._sending.under_way:
            self._send_over = Deferred()
            self._send_over.addTimeout(CLOSING, self._reactor, lambda result, timeout: None)
            await self._send_over

    # Sending

    def _send_when(self, now: float) -> float:
        return self._next_send

    def _send(self) -> Deferred[float | None]:
        return Deferred.fromCoroutine(self._send_some())

    async def _send_some(self) -> float | None:
        """
        Send some of the alerts that are due.

        :return: after how many seconds there may be more; None if that is not known.
        """
        self._written = self._outbox.written
        parcels = await self._outbox.claim(AT_ONCE)
        if not parcels:
            return None
        arrivals = await gatherResults([self._post(parcel) for parcel in parcels])
        settled = [self._settled(*each) for each in zip(parcels, arrivals, strict=True)]
        await self._outbox.settle(settled)
        if len(parcels) == AT_ONCE:
            return 0.0
        again = [each.again.total_seconds() for each in settled if each.again is not None]
        return min(again, default=None)

    def _post(self, parcel: Parcel) -> Deferred[Any]:
        # The claim may have gone by the targets of a moment ago, or of the next moment.
        name = parcel.target
        target = self._alerting.targets.get(name) or self._former.targets.get(name)
        if target is None:
            return succeed(Unsent(False, "there is no such target any more"))
        text = slack(_members(parcel.content)) if target.is_slack else parcel.content
        post = target.webhook.post(text, parcel.id.hex())
        self._posts.add(post)
        if self._closing:
            post.cancel()

        def over(arrival: Any) -> Any:
            self._posts.discard(post)
            return arrival

        return post.addBoth(over)

    def _settled(self, parcel: Parcel, arrival: Arrival) -> Settled:
        event = str(_members(parcel.content).get("event", ""))
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

    def _sent(self, more: float | None) -> None:
        pause = POLL if more is None else min(more, POLL)
        self._next_send = self._reactor.seconds() + pause

    def _send_ended(self) -> None:
        over, self._send_over = self._send_over, None
        if over is not None:
            over.callback(None)
        self.recorded()
        self._changed()

    # What there is to be told of

    def _look_when(self, now: float) -> float:
        return self._next_look

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look_at_all())

    async def _look_at_all(self) -> None:
        watch = await self._outbox.watch()
        self._pending = watch.pending
        await self._look_at_endpoints(watch)
        await self._look_at_lag(watch)
        for _ in range(SILENCES):
            if not await self._outbox.silences():
                break
        now = self._reactor.seconds()
        if now >= self._next_cleaning and not self._busy():
            found = await self._outbox.forget(CLEANED)
            self._next_cleaning = now + (CLEANING if found < CLEANED else 0.0)

    async def _look_at_endpoints(self, watch: Watch) -> None:
        now, pulse = self._reactor.seconds(), self._pulse
        for name in self._open.symmetric_difference(watch.incidents):
            pulse.forget(name.removeprefix(_DOWN))
        self._open = set(watch.incidents)
        pulse.take(now, _tallies(self._metrics.numbers()))
        for endpoint in pulse.endpoints:
            name = f"{_DOWN}{endpoint}"
            began = watch.incidents.get(name)
            if began is None:
                if pulse.is_down(endpoint, now):
                    alert = Alert(Event.ENDPOINT_DOWN, watch.now, endpoint=endpoint)
                    await self._outbox.begin(name, alert._replace(since=watch.now))
            elif (watch.now - began).total_seconds() >= DOWN_FOR and pulse.is_up(endpoint, now):
                alert = Alert(Event.ENDPOINT_UP, watch.now, endpoint=endpoint)
                await self._outbox.end(name, alert)

    async def _look_at_lag(self, watch: Watch) -> None:
        now, lag = self._reactor.seconds(), watch.lag.total_seconds()
        if lag < LATE:
            self._late_since = None
        elif self._late_since is None:
            self._late_since = now
        is_open = LAGGING in watch.incidents
        if self._late_since is not None and now - self._late_since >= LATE_FOR and not is_open:
            alert = Alert(Event.LAGGING, watch.now, since=watch.now - watch.lag)
            await self._outbox.begin(LAGGING, alert)
        elif is_open and lag < IN_TIME:
            await self._outbox.end(LAGGING, Alert(Event.CAUGHT_UP, watch.now))

    def _looked(self, nothing: None) -> None:
        self._next_look = self._reactor.seconds() + LOOK_INTERVAL
        self.recorded()

    # Signs of life

    def _beat_when(self, now: float) -> float:
        return self._next_beat

    def _beat(self) -> Deferred[Any]:
        self._next_beat = self._reactor.seconds() + BEAT
        return Deferred.fromCoroutine(self._beat_once())

    async def _beat_once(self) -> Arrival | None:
        monitor = self._alerting.monitor
        if monitor is None or not self._works():
            return None
        text = {
            "event": "heartbeat",
            "at": exact_timestamp(self._store.clock.now()),
            "instance": self._instance,
        }
        post = monitor.post(json.dumps(text))
        self._posts.add(post)
        try:
            arrival: Arrival = await post
        finally:
            self._posts.discard(post)
        return arrival

    def _beaten(self, arrival: Arrival | None) -> None:
        if arrival is None:
            return
        self._metrics.alert("heartbeat", "sent" if arrival.arrived else "failed")
        if not arrival.arrived and self._beat_arrived and not self._closing:
            log.warn("the POST to heartbeatUrl did not arrive: {words}", words=arrival.words)
        self._beat_arrived = arrival.arrived


def _members(text: str) -> dict[str, Any]:
    """The JSON of an alert; nothing of what is none (P6)."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _tallies(numbers: Numbers) -> dict[str, Tally]:
    """By endpoint, of the numbers of attempts."""
    found: dict[str, Tally] = {}
    for (endpoint, _, kind), number in numbers.get("dalga_attempts_total", {}).items():
        assert isinstance(number, int)
        before = found.get(endpoint, Tally())
        failed = number if kind else 0
        found[endpoint] = Tally(before.attempts + number, before.failed + failed)
    return found
