"""Other settings for a scheduler that is at work, on a clock of the test's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred

from dalga.dispatch.alerts import NO_ALERTING, Alerting
from dalga.dispatch.pruning import KEPT_BY_DEFAULT, Keeping
from dalga.dispatch.scheduler import Pace
from dalga.dispatch.sending import Target
from dalga.model.answers import Answers, statuses_from_text
from dalga.model.options import Options
from dalga.model.record import Result, Shelf
from dalga.model.retry import RetryPolicy
from dalga.model.run import LEASE_MARGIN, RunPolicy
from dalga.store.outbox import Taken
from tests.test_dispatch import TIMEOUT, SchedulerTestCase, seconds
from tests.test_dispatch_alerts import AlertsTestCase, parcel

NO_JITTER = RetryPolicy(jitter=0)
TO_B = Options(endpoint="b")


class ReconfigureTestCase(SchedulerTestCase):
    def reconfigure(
        self,
        slots: int = 10,
        scan: float = 1.0,
        timeout: float = TIMEOUT,
        policy: RunPolicy | None = None,
        keeping: Keeping = KEPT_BY_DEFAULT,
        **timeouts: float,
    ) -> None:
        pace = Pace(slots, timeout, scan, timeouts)
        self.scheduler.reconfigure(pace, policy or RunPolicy(NO_JITTER), keeping, NO_ALERTING)


class SlotsTests(ReconfigureTestCase):
    def test_more(self) -> None:
        """P7: what waits for a slot starts at once."""
        for number in range(9):
            self.store.insert(f"job{number}")
        self.start(slots=2)
        self.assertEqual(len(self.endpoint.under_way), 2)
        self.reconfigure(slots=6)
        self.go(0)
        self.assertEqual(len(self.endpoint.under_way), 6)

    def test_fewer(self) -> None:
        """P10: POSTs under way go on, and none starts until there are fewer than the slots."""
        for number in range(9):
            self.store.insert(f"job{number}")
        self.start(slots=6)
        self.reconfigure(slots=2)
        self.go(5)
        self.assertEqual(len(self.endpoint.posts), 6)
        for expected in (6, 6, 6, 6, 7, 8, 9):
            self.endpoint.answer(self.endpoint.under_way[0])
            self.go(0.05)
            self.assertEqual(len(self.endpoint.posts), expected)

    def test_what_is_told(self) -> None:
        self.start(slots=6)
        self.reconfigure(slots=2)
        self.assertEqual(self.metrics.numbers()["dalga_slots"], {(): 2})
        self.go(20)
        ((_, about),) = self.store.told.values()
        self.assertEqual(about.slots, 2)


class TimeoutTests(ReconfigureTestCase):
    """P3: a claim's lease and its run's time-out are of one moment."""

    def check_leases(self) -> None:
        for run, at in self.endpoint.posts:
            self.assertLessEqual(at + run.timeout, run.lease_ends)

    def test_longer(self) -> None:
        """A run that was claimed before, and starts after, keeps the time-out of its claim."""
        for number in range(10):
            self.store.insert("a", body=str(number))
        self.start(slots=5)  # the path has a share of four, so a run waits
        self.assertEqual((len(self.endpoint.posts), self.store.rows[5].token is None), (4, False))
        self.reconfigure(slots=6, timeout=3600.0)
        self.assertEqual([run.timeout for run, _ in self.endpoint.posts], [TIMEOUT] * 5)
        self.check_leases()
        self.store.insert("new")
        self.go(1)
        self.assertEqual(self.endpoint.posts[-1][0].timeout, 3600.0)
        self.check_leases()

    def test_a_claim_under_way(self) -> None:
        """Its runs have the time-out that it was asked for."""
        self.start()
        self.go(0.125)
        self.store.insert("a")
        self.store.hold("claim")
        self.scheduler.expect(self.store.time)
        self.go(0)
        self.reconfigure(timeout=3600.0)
        self.store.release("claim")
        self.go(0)
        self.assertEqual([run.timeout for run, _ in self.endpoint.posts], [TIMEOUT])
        self.check_leases()

    def test_shorter(self) -> None:
        """A correction after a clock was set back takes no long lease for one of another clock."""
        self.start(timeouts={"b": 3600.0})
        self.reconfigure()
        lease = self.scheduler._reach.lease
        self.assertEqual(lease, timedelta(seconds=3600 + LEASE_MARGIN))
        self.assertIs(self.scheduler._upkeep._reach, self.scheduler._reach)


class EndpointTests(ReconfigureTestCase):
    def test_removed(self) -> None:
        """P2: a run under way is judged as its endpoint was, and later runs are given back."""
        policy = RunPolicy(
            NO_JITTER,
            named_answers={"b": Answers(success=statuses_from_text("202", or_none=False))},
        )
        self.store.insert("a", options=TO_B)
        self.start(policy=policy, timeouts={"b": 5.0})
        self.reconfigure()
        self.endpoint.answer("a", 202)
        self.go(0.1)
        self.assertEqual([result for _, result in self.store.history], [Result.SUCCEEDED])
        self.store.insert("later", options=TO_B)
        self.go(2)
        self.assertEqual(self.endpoint.paths, ["a"])

    def test_removed_while_a_run_waits(self) -> None:
        """A run that is claimed, and waits for a slot, is not POSTed anywhere else."""
        self.start(slots=1, timeouts={"b": 5.0})
        self.store.insert("a", options=TO_B)
        self.store.insert("b", options=TO_B)
        self.store.insert("c", options=TO_B)
        self.go(1)
        self.assertEqual(self.endpoint.paths, ["a"])
        self.reconfigure(slots=3)
        self.go(3)
        self.assertEqual(self.endpoint.paths, ["a"])

    def test_new(self) -> None:
        """P7: what was given back begins within its pause."""
        self.store.insert("a", options=TO_B)
        self.start()
        self.go(5)
        self.assertEqual(self.endpoint.paths, [])
        self.reconfigure(b=5.0)
        self.go(8)
        self.assertEqual(self.endpoint.paths, ["a"])
        self.assertEqual(self.endpoint.posts[0][0].timeout, 5.0)

    def test_on_time(self) -> None:
        """P7: a reload makes no run late."""
        due = self.store.time + seconds(5)
        self.store.insert("a", due)
        self.start()
        began = self.clock.seconds()
        for _ in range(100):
            self.go(0.0625)
            self.reconfigure()
        ((_, at),) = self.endpoint.posts
        self.assertLess(abs(at - began - 5), 0.001)


class OtherTests(ReconfigureTestCase):
    def test_retry(self) -> None:
        """A run is retried by the policy that its POST began with; the next by the new one."""
        self.store.insert("a")
        self.start()
        self.reconfigure(policy=RunPolicy(RetryPolicy(jitter=0, interval=seconds(4))))
        self.endpoint.answer("a", 500)
        self.go(0.5)
        self.assertEqual(len(self.endpoint.posts), 2)
        self.endpoint.answer("a", 500)
        self.go(3.9)
        self.assertEqual(len(self.endpoint.posts), 2)
        self.go(3)
        self.assertEqual(len(self.endpoint.posts), 3)

    def test_scan(self) -> None:
        """A shorter time between scans holds from now on, not from the next scan on."""
        self.start(scan=3600.0)
        self.go(10)
        before = len(self.store.called("due_within"))
        self.reconfigure(scan=1.0)
        self.go(5.5)
        self.assertEqual(len(self.store.called("due_within")), before + 5)

    def test_history(self) -> None:
        self.start()
        self.reconfigure(keeping=Keeping(fine=timedelta(hours=1)))
        self.go(70)
        kept = {call.argument[0]: call.argument[1] for call in self.store.called("prune")}
        self.assertEqual(kept[Shelf.FINE], timedelta(hours=1))


class AlertsTests(AlertsTestCase):
    def reconfigure(self, alerting: Alerting) -> None:
        pace = Pace(slots=10, timeout=10.0, scan=1.0)
        self.scheduler.reconfigure(pace, RunPolicy(NO_JITTER), KEPT_BY_DEFAULT, alerting)

    def sent(self, webhook: Any) -> list[str]:
        return [id for _, id in webhook.posts]

    def test_the_first_target(self) -> None:
        """Alerts are asked for from then on, though there was no target at the start."""
        self.start(NO_ALERTING)
        self.go(10)
        self.assertNotIn("dalga_alerts_pending", self.metrics.numbers())
        self.outbox.waiting = [parcel(1)]
        self.reconfigure(Alerting({"default": Target(self.webhook)}))
        self.go(0)
        self.assertEqual(self.sent(self.webhook), ["01" * 16])
        self.assertIn("dalga_alerts_pending", self.metrics.numbers())

    def test_another_place(self) -> None:
        self.start()
        self.reconfigure(Alerting({"default": Target(self.ops)}))
        self.outbox.waiting = [parcel(1)]
        self.go(6)
        self.assertEqual((self.sent(self.webhook), self.sent(self.ops)), ([], ["01" * 16]))

    def test_a_target_that_is_gone(self) -> None:
        """An alert that was claimed for it is sent once more; one of long ago is kept (P2)."""
        self.start()
        only_one = Alerting({"default": Target(self.webhook)})
        for number, reloads in ((1, 1), (2, 2)):
            claimed: Deferred[Taken] = Deferred()
            self.outbox.held = claimed
            self.go(6)
            for _ in range(reloads):
                self.reconfigure(only_one)
            claimed.callback(Taken([parcel(number, "ops"), parcel(3)], None))
            self.go(0)
            self.assertEqual(self.sent(self.webhook), ["03" * 16] * number)
            self.reconfigure(Alerting({**only_one.targets, "ops": Target(self.ops)}))
        self.assertEqual(self.sent(self.ops), ["01" * 16])
        lost = next(each for each in self.outbox.settled if each.parcel == parcel(2, "ops"))
        self.assertEqual(lost.error, "there is no such target any more")
        self.assertIsNotNone(lost.again)

    def test_what_came_of_alerts_is_noted_without_any_target(self) -> None:
        self.start()
        self.webhook.waits = True
        self.outbox.waiting = [parcel(1)]
        self.go(6)
        self.reconfigure(NO_ALERTING)
        self.webhook.answer_all()
        self.go(1)
        self.assertEqual([each.parcel for each in self.outbox.settled], [parcel(1)])

    def test_no_target_any_more(self) -> None:
        self.start()
        self.reconfigure(NO_ALERTING)
        self.outbox.waiting = [parcel(1)]
        self.go(60)
        self.assertEqual(self.sent(self.webhook), [])

    def test_the_monitor(self) -> None:
        """It gets a sign of life at once, and the former gets none any more."""
        self.start(Alerting({}, self.monitor))
        self.assertEqual(len(self.monitor.posts), 1)
        self.reconfigure(Alerting({}, self.ops))
        self.go(61)
        self.assertEqual((len(self.monitor.posts), len(self.ops.posts)), (1, 2))
