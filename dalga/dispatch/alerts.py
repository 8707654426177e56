"""
What there is to be told of beside the ends of runs, and signs of life. `sending.py` sends the
alerts.

    record, claim ──▶ the table of alerts ◀── the looks: silent jobs, endpoints, lag
                            │
                            ▼
                       sending.py ──▶ the targets' webhooks

What always holds: an alert takes no slot of runs, and no claim or record waits for an alert. The
transactions here are the API's.

Where there is no target, nothing is asked of the database. `Alerts` sets no timer: the scheduler's
timer begins its `queries`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from dalga.dispatch.outages import LOOK, SIGN_OF_LIFE, Outages
from dalga.dispatch.pulse import Pulse, Tally
from dalga.dispatch.query import Query
from dalga.dispatch.sending import Arrival, Sending, Target, Webhook
from dalga.log import logger
from dalga.metrics import Metrics, Numbers
from dalga.model.alert import Alert, Event
from dalga.model.schedule import exact_timestamp
from dalga.store import Store
from dalga.store.outbox import Forgotten, Lookout, Watch

log = logger(__name__)

#: From one look at endpoints, lag and silent jobs to the next, in seconds.
LOOK_INTERVAL = 5.0

#: Transactions of one look at silent jobs, at most. Each looks at some of them.
SILENCES = 40

#: From one sign of life to the next, in seconds.
BEAT = 60.0

#: From one look for alerts that are old, or that no instance can send, to the next, in seconds; and
#: how many of each a transaction changes, at most.
CLEANING = 60.0
CLEANED = 200

#: How long the first due job has waited (seconds) for the scheduler to be late, and to be in time
#: again; and for how long that has to be so at all looks.
LATE = 60.0
IN_TIME = 30.0
LATE_FOR = 60.0

#: From the begin of an incident of an endpoint to its end, in seconds, at least.
DOWN_FOR = 60.0

#: Targets of which the log tells that no instance has them, at most.
TOLD = 100

LAGGING = "scheduler.lagging"
_DOWN = "endpoint.down "


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
        self._instance = instance
        self._works = works
        self._busy = busy
        self._metrics = metrics
        self._changed = changed
        now = reactor.seconds()
        self._sending = Sending(reactor, store, outages, random, alerting.targets, metrics, changed)
        self._looking = Query(LOOK, outages, self._look_when, self._look, self._looked, changed)
        self._beating = Query(
            SIGN_OF_LIFE, outages, self._beat_when, self._beat, self._beaten, changed
        )
        metrics.gauge(
            "dalga_alerts_pending", lambda: self._pending if self._alerting.targets else None
        )
        self._next_look = now + LOOK_INTERVAL
        self._next_beat = now
        self._next_cleaning = now + CLEANING
        #: The targets that this instance lacks, of which the log has told.
        self._told: set[str] = set()
        #: The sign of life that is being sent.
        self._sign: Deferred[Any] | None = None
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
        of_targets: tuple[Query[Any], ...] = ()
        if self._alerting.targets:
            of_targets = (*self._sending.queries, self._looking)
        elif self._sending.holds_alerts:
            of_targets = self._sending.queries
        of_monitor = () if self._alerting.monitor is None else (self._beating,)
        return (*of_targets, *of_monitor)

    def reconfigure(self, alerting: Alerting) -> None:
        """
        Send alerts there from now on. `queries` are others after that. A POST under way goes on.
        """
        if alerting.monitor is not self._alerting.monitor:
            self._next_beat = self._reactor.seconds()
        self._alerting = alerting
        self._sending.reconfigure(alerting.targets)

    @property
    def _lookout(self) -> Lookout:
        return self._store.lookout

    def recorded(self) -> None:
        """A record or a claim is over: send the alerts that it may have written."""
        if self._alerting.targets:
            self._sending.recorded()

    async def close(self) -> None:
        """
        Cut off what is being sent: it is sent again after the next start, or by another instance.
        """
        self._closing = True
        if self._sign is not None:
            self._sign.cancel()
        await self._sending.close()

    # What there is to be told of

    def _look_when(self, now: float) -> float:
        return self._next_look

    def _look(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._look_at_all())

    async def _look_at_all(self) -> None:
        watch = await self._lookout.watch()
        self._pending = watch.pending
        await self._look_at_endpoints(watch)
        await self._look_at_lag(watch)
        for _ in range(SILENCES):
            if not await self._lookout.silences():
                break
        now = self._reactor.seconds()
        if now >= self._next_cleaning and not self._busy():
            found = await self._store.outbox.forget(CLEANED)
            self._next_cleaning = now + (0.0 if found.has_more else CLEANING)
            self._tell(found)

    def _tell(self, found: Forgotten) -> None:
        """Log that alerts wait which no instance sends, for each target once."""
        for target in found.targets:
            if target not in self._told and len(self._told) < TOLD:
                self._told.add(target)
                log.warn(
                    "alerts to the target {target} wait: this instance has no such target, and no "
                    "other one has sent them in ten minutes; they are given up after a day",
                    target=target,
                )
        if found.given_up:
            log.warn(
                "{number} alerts are given up, as no instance has their target: {targets}",
                number=found.given_up,
                targets=", ".join(found.targets),
            )

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
                    await self._lookout.begin(name, alert._replace(since=watch.now))
            elif (watch.now - began).total_seconds() >= DOWN_FOR and pulse.is_up(endpoint, now):
                alert = Alert(Event.ENDPOINT_UP, watch.now, endpoint=endpoint)
                await self._lookout.end(name, alert)

    async def _look_at_lag(self, watch: Watch) -> None:
        now, lag = self._reactor.seconds(), watch.lag.total_seconds()
        if lag < LATE:
            self._late_since = None
        elif self._late_since is None:
            self._late_since = now
        is_open = LAGGING in watch.incidents
        if self._late_since is not None and now - self._late_since >= LATE_FOR and not is_open:
            alert = Alert(Event.LAGGING, watch.now, since=watch.now - watch.lag)
            await self._lookout.begin(LAGGING, alert)
        elif is_open and lag < IN_TIME:
            await self._lookout.end(LAGGING, Alert(Event.CAUGHT_UP, watch.now))

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
        self._sign = monitor.post(json.dumps(text))
        try:
            arrival: Arrival = await self._sign
        finally:
            self._sign = None
        return arrival

    def _beaten(self, arrival: Arrival | None) -> None:
        if arrival is None:
            return
        self._metrics.alert("heartbeat", "sent" if arrival.arrived else "failed")
        if not arrival.arrived and self._beat_arrived and not self._closing:
            log.warn("the POST to heartbeatUrl did not arrive: {words}", words=arrival.words)
        self._beat_arrived = arrival.arrived


def _tallies(numbers: Numbers) -> dict[str, Tally]:
    """By endpoint, of the numbers of attempts."""
    found: dict[str, Tally] = {}
    for (endpoint, _, kind), number in numbers.get("dalga_attempts_total", {}).items():
        assert isinstance(number, int)
        before = found.get(endpoint, Tally())
        failed = number if kind else 0
        found[endpoint] = Tally(before.attempts + number, before.failed + failed)
    return found
