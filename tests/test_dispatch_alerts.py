"""The sending of alerts, and the looks, on a clock of the test's."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.alerts import (
    BEAT,
    CLEANING,
    DOWN_FOR,
    LATE,
    LATE_FOR,
    LOOK_INTERVAL,
    Alerting,
)
from dalga.dispatch.outages import AWAY_PAUSE, LONG_AWAY_PAUSE
from dalga.dispatch.pulse import LASTS, Pulse, Tally
from dalga.dispatch.scheduler import Pace, Scheduler
from dalga.dispatch.sending import AT_ONCE, POLL, SOON, Target
from dalga.errors import StoreUnavailable
from dalga.metrics import Metrics
from dalga.model.alert import Event
from dalga.model.key import JobKey
from dalga.model.retry import RetryPolicy
from dalga.model.run import RunPolicy
from dalga.outgoing.webhook import Arrival
from dalga.store import Recorded
from dalga.store.outbox import Forgotten, Parcel, Taken
from tests.fakes import FakeEndpoint, FakeStore, noting
from tests.stores import NOW

HOUR = timedelta(hours=1)


class EveryCall(set[str]):
    """The names of all calls of a store."""

    def __contains__(self, name: object) -> bool:
        return True


class FakeWebhook:
    """It notes each POST, and answers at once, unless it is told to wait."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, str | None]] = []
        self.arrival = Arrival(True, "it answered 200")
        self.waits = False
        #: POSTs that the test answers.
        self.all_waiting: list[Deferred[Any]] = []

    def post(self, text: str, id: str | None = None) -> Deferred[Any]:
        self.posts.append((text, id))
        if not self.waits:
            return succeed(self.arrival)
        self.waiting: Deferred[Any] = Deferred()
        self.all_waiting.append(self.waiting)
        return self.waiting.addErrback(lambda failure: Arrival(False, "cancelled"))

    def answer_all(self) -> None:
        """Answer the POSTs that wait, and all others at once."""
        self.waits = False
        waiting, self.all_waiting = self.all_waiting, []
        for each in waiting:
            each.callback(self.arrival)


def parcel(
    number: int, target: str = "default", attempt: int = 1, lasts: timedelta = HOUR
) -> Parcel:
    content = json.dumps({"event": "job.failing", "message": "m"})
    return Parcel(bytes([number]) * 16, b"t", target, content, attempt, lasts)


class AlertsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = FakeStore(self.clock.seconds)
        self.outbox, self.lookout = self.store.outbox, self.store.lookout
        self.metrics = Metrics()
        self.endpoint = FakeEndpoint(self.clock.seconds)
        self.attempts: dict[tuple[str, ...], float] = {}
        self.webhook, self.ops, self.monitor = FakeWebhook(), FakeWebhook(), FakeWebhook()
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(noting(self.events))
        self.addCleanup(globalLogPublisher.removeObserver, noting(self.events))

    def start(self, alerting: Alerting | None = None) -> None:
        targets = {"default": Target(self.webhook), "ops": Target(self.ops, is_slack=True)}
        self.scheduler = Scheduler(
            self.clock,
            self.store,
            self.endpoint,
            Pace(slots=10, timeout=10.0, scan=1.0),
            RunPolicy(RetryPolicy(jitter=0)),
            Random(20141111),
            "web1",
            metrics=self.metrics,
            alerting=alerting or Alerting(targets),
        )
        # In the place of what the scheduler counts.
        self.metrics.source(lambda: {"dalga_attempts_total": self.attempts})
        self.scheduler.start()
        self.go(0)

    def go(self, duration: float) -> None:
        """Let time go by, from one timer to the next."""
        end = self.clock.seconds() + duration
        for _ in range(5000):
            times = [call.getTime() for call in self.clock.getDelayedCalls()]
            if not times or min(times) > end:
                self.clock.advance(max(0.0, end - self.clock.seconds()))
                return
            self.clock.advance(max(0.0, min(times) - self.clock.seconds()))
        self.fail("the timers never come to rest")

    def warnings(self) -> list[str]:
        return [each["log_format"] for each in self.events if each["log_level"] is LogLevel.warn]

    def told(self) -> list[Event]:
        return [alert.event for alert in self.lookout.alerts]


class SendingTests(AlertsTestCase):
    def test_sent_at_the_start_and_now_and_then(self) -> None:
        self.outbox.waiting = [parcel(1)]
        self.start()
        self.assertEqual([id for _, id in self.webhook.posts], ["01" * 16])
        (settled,) = self.outbox.settled
        self.assertEqual((settled.again, settled.error), (None, None))
        self.outbox.waiting = [parcel(2)]
        self.go(POLL)
        self.assertEqual(len(self.webhook.posts), 2)
        counted = self.metrics.numbers()["dalga_alerts_total"]
        self.assertEqual(dict(counted), {("job.failing", "sent"): 2})

    def test_soon_after_it_was_written(self) -> None:
        """By a record of this instance. Nobody waits for the next look at the table."""
        self.start()
        self.outbox.waiting, self.outbox.written = [parcel(1)], 1
        self.scheduler._recorded(Recorded())
        self.go(0.1)
        self.assertEqual(len(self.webhook.posts), 1)

    def test_written_while_others_are_sent(self) -> None:
        """It does not wait for them."""
        self.outbox.waiting = [parcel(1)]
        self.webhook.waits = True
        self.start()
        self.outbox.waiting, self.outbox.written = [parcel(2)], 1
        self.scheduler._alerts.recorded()
        self.scheduler._changed()
        self.go(2 * SOON)
        self.assertEqual(len(self.webhook.posts), 2)
        self.assertEqual(self.outbox.settled, [])
        self.webhook.answer_all()
        self.go(0)
        self.assertEqual(len(self.outbox.settled), 2)

    def test_as_many_as_there_are(self) -> None:
        self.outbox.waiting = [parcel(number) for number in range(3 * AT_ONCE)]
        self.start()
        self.go(0.1)
        self.assertEqual(len(self.webhook.posts), 3 * AT_ONCE)

    def test_a_target_that_does_not_answer(self) -> None:
        """It holds up no other target, and is sent no more than `AT_ONCE` at a time."""
        self.ops.waits = True
        self.outbox.waiting = [parcel(number, "ops") for number in range(2 * AT_ONCE)]
        self.start()
        self.assertEqual(len(self.ops.posts), AT_ONCE)
        self.outbox.waiting += [parcel(100 + number) for number in range(2 * AT_ONCE)]
        self.go(POLL)
        self.assertEqual(len(self.webhook.posts), 2 * AT_ONCE)
        self.assertEqual(len(self.ops.posts), AT_ONCE)
        self.assertEqual({each.parcel.target for each in self.outbox.settled}, {"default"})
        # One of them is over: its room is taken at once.
        self.ops.all_waiting.pop().callback(self.ops.arrival)
        self.go(0)
        self.assertEqual(len(self.ops.posts), AT_ONCE + 1)
        self.ops.answer_all()
        self.go(0)
        self.assertEqual(len(self.ops.posts), 2 * AT_ONCE)
        self.assertEqual(len(self.outbox.settled), 4 * AT_ONCE)

    def test_the_database_is_away_when_an_alert_has_arrived(self) -> None:
        """That is noted later, and the alert has its target's room until then."""
        self.outbox.waiting = [parcel(number) for number in range(AT_ONCE + 1)]
        settle = self.outbox.settle
        self.patch(self.outbox, "settle", lambda settled: fail(StoreUnavailable("away")))
        self.start()
        self.go(3 * POLL)
        self.assertEqual((len(self.webhook.posts), self.outbox.settled), (AT_ONCE, []))
        self.patch(self.outbox, "settle", settle)
        self.go(AWAY_PAUSE)
        self.assertEqual(len(self.webhook.posts), AT_ONCE + 1)
        noted = [each.parcel for each in self.outbox.settled]
        self.assertEqual(noted, [parcel(number) for number in range(AT_ONCE + 1)])

    def test_an_alert_that_breaks_the_sending(self) -> None:
        """P6: it is put back, again and again, and the others are sent."""

        def post(text: str, id: str | None = None) -> Deferred[Any]:
            raise ZeroDivisionError

        self.patch(self.ops, "post", post)
        self.outbox.waiting = [
            *(parcel(number, "ops") for number in range(2 * AT_ONCE)),
            parcel(100),
        ]
        self.start()
        self.go(0)
        self.assertEqual(len(self.outbox.settled), 2 * AT_ONCE + 1)
        self.assertEqual(
            {each.error for each in self.outbox.settled},
            {None, "internal error, which Dalga's log describes"},
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2 * AT_ONCE)

    def test_claims(self) -> None:
        """The next one is made when the last one has said, or an alert is due again."""
        self.start()
        self.outbox.again = timedelta(seconds=3)
        self.go(POLL)
        before = self.outbox.claims
        self.go(3)
        self.assertEqual(self.outbox.claims, before + 1)
        self.outbox.again = None
        self.webhook.arrival = Arrival(False, "it answered 503")
        self.outbox.waiting = [parcel(1)]
        self.go(3)
        (settled,) = self.outbox.settled
        self.outbox.waiting = [parcel(1, attempt=2)]
        assert settled.again is not None
        self.go(settled.again.total_seconds())
        self.assertEqual(len(self.webhook.posts), 2)

    def test_put_off(self) -> None:
        """An alert that waits for an earlier one is claimed in time, whatever comes before."""
        self.webhook.waits = True
        self.outbox.waiting, self.outbox.again = [parcel(1)], timedelta(seconds=1)
        self.start()
        self.outbox.again = None
        # The earlier one has arrived. The claim that follows comes too early.
        self.webhook.answer_all()
        self.go(0)
        self.assertEqual(self.outbox.claims, 2)
        self.outbox.waiting = [parcel(2)]
        self.go(1)
        self.assertEqual(len(self.webhook.posts), 2)

    def test_due_during_a_claim(self) -> None:
        """A claim that began before an alert was due is followed by another one."""
        self.outbox.again = timedelta(seconds=1)
        self.start()
        self.outbox.again = None
        self.outbox.held, self.outbox.written = Deferred(), 1
        held = self.outbox.held
        self.scheduler._alerts.recorded()
        self.scheduler._changed()
        self.go(2)
        self.assertEqual(self.outbox.claims, 2)
        self.outbox.waiting = [parcel(1)]
        held.callback(Taken([], None))
        self.go(0)
        self.assertEqual(len(self.webhook.posts), 1)

    def test_to_each_in_its_format(self) -> None:
        self.outbox.waiting = [parcel(1), parcel(2, "ops")]
        self.start()
        self.assertEqual(json.loads(self.webhook.posts[0][0])["event"], "job.failing")
        self.assertIn("blocks", json.loads(self.ops.posts[0][0]))

    def test_again(self) -> None:
        """Later each time, up to ten minutes; after a day it is given up."""
        self.webhook.arrival = Arrival(False, "it answered 503")
        waits = []
        for attempt in (1, 2, 3, 12):
            self.outbox.waiting = [parcel(1, attempt=attempt)]
            self.start()
            settled = self.outbox.settled.pop()
            self.assertEqual(settled.error, "it answered 503")
            assert settled.again is not None
            waits.append(round(settled.again.total_seconds()))
        self.assertEqual(waits[:3], [2, 4, 8])
        self.assertAlmostEqual(waits[3], 600, delta=61)
        self.outbox.waiting = [parcel(1, attempt=200, lasts=timedelta(seconds=9))]
        self.start()
        self.assertIsNone(self.outbox.settled.pop().again)
        self.assertEqual(len(self.warnings()), 2)  # of the first attempt and the last

    def test_no_target(self) -> None:
        """Nothing is asked of the database."""
        self.outbox.waiting = [parcel(1)]
        self.start(Alerting())
        self.go(600)
        self.assertEqual((self.lookout.looks, self.outbox.claims), (0, 0))

    def test_a_silent_receiver_holds_up_nothing(self) -> None:
        """P7: claims and scans go on."""
        self.webhook.waits = True
        self.outbox.waiting = [parcel(1)]
        self.start()
        before = len(self.store.called("due_within"))
        self.go(10)
        self.assertGreaterEqual(len(self.store.called("due_within")), before + 9)
        self.assertEqual(self.outbox.settled, [])

    def test_a_stop(self) -> None:
        """What is being sent is cut off, and noted as not arrived."""
        self.webhook.waits = True
        self.outbox.waiting = [parcel(1)]
        self.start()
        self.scheduler.stop_claiming()
        self.successResultOf(Deferred.fromCoroutine(self.scheduler.drain(1.0)))
        self.successResultOf(Deferred.fromCoroutine(self.scheduler.depart()))
        (settled,) = self.outbox.settled
        self.assertEqual(settled.error, "cancelled")
        self.assertIsNotNone(settled.again)

    def test_a_stop_during_a_claim(self) -> None:
        """What it takes is put back at once, and not when its lease ends."""
        self.start()
        claimed: Deferred[Taken] = Deferred()
        self.outbox.held = claimed
        self.webhook.waits = True
        self.go(POLL)
        self.scheduler.stop_claiming()
        self.successResultOf(Deferred.fromCoroutine(self.scheduler.drain(1.0)))
        departing = Deferred.fromCoroutine(self.scheduler.depart())
        self.assertNoResult(departing)
        claimed.callback(Taken([parcel(1)], None))
        self.successResultOf(departing)
        self.assertEqual([each.error for each in self.outbox.settled], ["cancelled"])


class LookTests(AlertsTestCase):
    def attempt(self, good: int, bad: int, endpoint: str = "billing") -> None:
        for key, number in (((endpoint, "2xx", ""), good), ((endpoint, "5xx", "status"), bad)):
            self.attempts[key] = self.attempts.get(key, 0) + number

    def test_down_and_up(self) -> None:
        self.start()
        self.attempt(100, 0)
        self.go(LOOK_INTERVAL)
        # The restart of an endpoint: all fail, for a moment.
        self.attempt(0, 50)
        self.go(LOOK_INTERVAL)
        self.attempt(50, 0)
        self.go(LOOK_INTERVAL)
        self.assertEqual(self.told(), [])
        for _ in range(3):
            self.attempt(0, 50)
            self.attempt(50, 0, "default")
            self.go(LOOK_INTERVAL)
        self.assertEqual(self.told(), [Event.ENDPOINT_DOWN])
        self.assertEqual(self.lookout.alerts[0].endpoint, "billing")
        # It is well at once, but nobody is told within a minute.
        for _ in range(3):
            self.attempt(10, 0)
            self.go(LOOK_INTERVAL)
        self.assertEqual(self.told(), [Event.ENDPOINT_DOWN])
        for _ in range(round(DOWN_FOR / LOOK_INTERVAL)):
            self.attempt(10, 2)
            self.go(LOOK_INTERVAL)
        self.assertEqual(self.told(), [Event.ENDPOINT_DOWN, Event.ENDPOINT_UP])
        self.assertIsNotNone(self.lookout.alerts[1].since)

    def test_an_incident_that_another_instance_ended(self) -> None:
        """What this one has seen before that does not begin it anew."""
        self.start()
        for _ in range(3):
            self.attempt(0, 50)
            self.go(LOOK_INTERVAL)
        self.assertEqual(self.told(), [Event.ENDPOINT_DOWN])
        self.lookout.incidents.clear()
        self.go(3 * LOOK_INTERVAL)
        self.assertEqual(self.told(), [Event.ENDPOINT_DOWN])

    def test_an_incident_of_before_the_restart(self) -> None:
        """It goes by the table: this process has not seen that the endpoint was down."""
        self.lookout.incidents["endpoint.down billing"] = self.store.time - HOUR
        self.start()
        self.go(2 * LOOK_INTERVAL)
        self.assertEqual(self.told(), [])
        self.attempt(3, 1)
        self.go(LOOK_INTERVAL)
        self.assertEqual(self.told(), [Event.ENDPOINT_UP])

    def test_lag(self) -> None:
        self.start()
        self.lookout.lag = timedelta(seconds=LATE)
        self.go(LATE_FOR - LOOK_INTERVAL)
        self.lookout.lag = timedelta(seconds=LATE - 1)
        self.go(LOOK_INTERVAL)
        self.lookout.lag = timedelta(seconds=LATE + 30)
        self.go(LATE_FOR)
        self.assertEqual(self.told(), [])
        self.go(2 * LOOK_INTERVAL)
        self.assertEqual(self.told(), [Event.LAGGING])
        self.go(600)
        self.assertEqual(self.told(), [Event.LAGGING])
        self.lookout.lag = timedelta(seconds=1)
        self.go(2 * LOOK_INTERVAL)
        self.assertEqual(self.told(), [Event.LAGGING, Event.CAUGHT_UP])

    def test_silent_jobs(self) -> None:
        """All that there are, a few in each transaction."""
        self.start()
        self.lookout.silent = 5
        self.go(LOOK_INTERVAL)
        self.assertEqual(self.lookout.silent, 0)

    def test_alerts_that_no_instance_can_send(self) -> None:
        """Each target is told of once; alerts that are given up, each time."""
        self.start()
        self.outbox.old = [
            Forgotten(True, ("gone",), 0),
            Forgotten(False, ("gone",), 0),
            Forgotten(False, ("gone", "old"), 3),
        ]
        self.go(CLEANING + 2 * LOOK_INTERVAL)
        self.assertEqual((self.outbox.cleanings, len(self.warnings())), (2, 1))
        self.go(CLEANING + LOOK_INTERVAL)
        self.assertEqual((self.outbox.cleanings, len(self.warnings())), (3, 3))

    def test_pending(self) -> None:
        self.start()
        self.outbox.waiting = [parcel(number) for number in range(AT_ONCE + 1)]
        self.webhook.waits = True
        self.go(POLL + 2 * LOOK_INTERVAL)
        self.assertEqual(dict(self.metrics.numbers()["dalga_alerts_pending"]), {(): 1})


class SignsOfLifeTests(AlertsTestCase):
    def test_each_minute(self) -> None:
        self.start(Alerting(monitor=self.monitor))
        self.go(3 * BEAT)
        self.assertEqual(len(self.monitor.posts), 4)
        members = json.loads(self.monitor.posts[0][0])
        self.assertEqual((members["event"], members["instance"]), ("heartbeat", "web1"))

    def test_none_while_claims_or_records_fail(self) -> None:
        for method in ("claim", "due_within", "record"):
            self.setUp()
            self.start(Alerting(monitor=self.monitor))
            self.store.away.add(method)
            self.store.put(JobKey("a", "b"), NOW)
            self.scheduler.expect(self.store.time)
            self.go(1)
            if method == "record":
                self.endpoint.answer("a")
            self.go(1)
            before = len(self.monitor.posts)
            self.go(3 * BEAT)
            self.assertEqual(len(self.monitor.posts), before, method)
            self.store.away.clear()
            self.go(3 * BEAT)
            self.assertGreater(len(self.monitor.posts), before, method)

    def test_none_while_a_scan_gets_no_answer(self) -> None:
        self.start(Alerting(monitor=self.monitor))
        self.store.hold("due_within")
        self.go(3 * BEAT)
        self.assertEqual(len(self.monitor.posts), 1)

    def test_none_is_an_answer_of_the_database(self) -> None:
        """P2: another query than a claim is to find that the database is back."""
        self.start(Alerting(monitor=self.monitor))
        self.store.away = EveryCall()
        self.scheduler.expect(self.store.time)
        self.go(2 * LONG_AWAY_PAUSE)
        before = len(self.store.called("claim"))
        self.go(5 * BEAT)
        claims = [call.at for call in self.store.called("claim")][before - 1 :]
        for earlier, later in pairwise(claims):
            self.assertGreaterEqual(later - earlier, LONG_AWAY_PAUSE)

    def test_what_else_fails(self) -> None:
        """Runs go on all the same, and so do the signs of life."""
        self.start(Alerting(monitor=self.monitor))
        self.store.away.add("announce")
        self.go(3 * BEAT)
        self.assertEqual(len(self.monitor.posts), 4)

    def test_a_monitor_that_takes_none(self) -> None:
        """It is said once."""
        self.monitor.arrival = Arrival(False, "it answered 404")
        self.start(Alerting(monitor=self.monitor))
        self.go(3 * BEAT)
        self.assertEqual(len(self.warnings()), 1)
        self.assertEqual(len(self.monitor.posts), 4)


class PulseTests(SynchronousTestCase):
    """Attempts and failures of each look; whether the endpoint is down then, and up."""

    def test_examples(self) -> None:
        for beats, down, up in [
            ([], False, False),
            ([(10, 10)], False, False),  # one beat
            ([(4, 4), (5, 5)], False, False),  # too few
            ([(4, 4), (6, 6)], True, False),
            ([(100, 0), (50, 50), (50, 50)], True, False),
            ([(100, 0), (50, 45), (50, 45)], True, False),
            ([(100, 0), (50, 44), (50, 45)], False, False),
            ([(20, 20), (0, 0), (2, 2)], True, False),
            ([(50, 50), (50, 50), (10, 5)], False, True),
            ([(50, 50), (50, 50), (10, 6)], True, False),
            ([(50, 50), (50, 50), (1, 0)], True, False),
            ([(1, 0)], False, True),
        ]:
            pulse = Pulse()
            total = Tally()
            for number, (attempts, failed) in enumerate(beats):
                total = Tally(total.attempts + attempts, total.failed + failed)
                pulse.take(float(number), {"a": total})
            self.assertEqual((pulse.is_down("a", 9.0), pulse.is_up("a", 9.0)), (down, up), beats)
            later = 9.0 + LASTS
            self.assertEqual((pulse.is_down("a", later), pulse.is_up("a", later)), (False, False))
            pulse.forget("a")
            self.assertEqual((pulse.is_down("a", 9.0), pulse.is_up("a", 9.0)), (False, False))
