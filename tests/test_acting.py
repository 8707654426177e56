"""When the batches of actions are made, and what is told of them."""

from __future__ import annotations

from twisted.logger import LogLevel

from dalga.dispatch.acting import (
    BACKLOG_PAUSE,
    FORGET_INTERVAL,
    FORGOTTEN,
    LOOK,
    PATIENCE,
    PAUSE,
)
from dalga.model.action import Action, ActionRequest, ActionState, Do
from dalga.model.listing import Filters
from dalga.store import Batch
from tests.fakes import EPOCH
from tests.test_dispatch import SchedulerTestCase

REQUEST = ActionRequest(Do.TRIGGER, Filters(path="p"))


def batch(state: ActionState = ActionState.ACTING, held_up: bool = False) -> Batch:
    return Batch(Action(id="1", request=REQUEST, state=state, made=EPOCH), (), held_up)


class ActingTests(SchedulerTestCase):
    def times(self) -> list[float]:
        """When batches were made, in seconds from the first one on."""
        calls = self.store.called("act")
        return [call.at - calls[0].at for call in calls]

    def cases(self) -> list[bool]:
        """Of each batch, whether it was to be made in any case."""
        return [call.argument[1] for call in self.store.called("act")]

    def test_now_and_then(self) -> None:
        """P5: an instance goes on with the actions of one that died."""
        self.start()
        began = self.clock.seconds()
        self.go(3 * LOOK + 1)
        self.assertEqual([call.at - began for call in self.store.called("act")], [5, 10, 15])
        self.assertEqual(self.cases(), [False] * 3)

    def test_one_that_was_begun_here(self) -> None:
        """At once, a batch after the other; the log has its end."""
        self.start(slots=10)
        self.store.batches = [batch(), batch(), batch(ActionState.DONE)]
        self.scheduler.expect_action()
        self.go(1)
        for time, expected in zip(self.times(), (0, PAUSE, 2 * PAUSE, 3 * PAUSE), strict=True):
            self.assertAlmostEqual(time, expected)
        self.go(LOOK)
        self.assertEqual(len(self.times()), 5)
        (line,) = (each for each in self.logged(LogLevel.info) if each.startswith("action "))
        self.assertIn("{what} is {state}", line)

    def test_how_many_a_batch_acts_on(self) -> None:
        """A quarter of the slots, 1 to 100."""
        for slots, limit in ((1, 1), (3, 1), (10, 2), (100, 25), (4000, 100)):
            self.store.calls.clear()
            self.start(slots=slots)
            self.scheduler.expect_action()
            self.go(0)
            (call,) = self.store.called("act")
            self.assertEqual(call.argument, (limit, False))
            self.scheduler.stop_claiming()

    def test_jobs_that_a_batch_has_made_due(self) -> None:
        """P7: they are claimed at once."""
        self.start(scan=1000.0)
        self.go(1)
        self.store.insert("a")
        self.assertEqual(self.endpoint.under_way, [])
        self.store.batches = [batch()._replace(dues=[self.store.time])]
        self.scheduler.expect_action()
        self.go(0)
        self.assertEqual(self.endpoint.under_way, ["a"])

    def test_behind_a_backlog(self) -> None:
        """P7: no batch while there are more due runs than slots, but slowly all the same."""
        self.start()
        for number in range(200):
            self.store.insert(f"job{number}")
        self.go(2)
        self.store.batches = [batch()] * 9
        self.scheduler.expect_action()
        self.go(PATIENCE - 1)
        self.assertEqual(self.times(), [])
        self.go(PATIENCE + 2)
        self.assertEqual(self.cases(), [True, True])

    def test_behind_a_backlog_in_the_table(self) -> None:
        """The store tells of it: the due jobs may be those of a path that claims leave out."""
        self.start()
        self.store.batches = [batch(), *[batch(held_up=True)] * 1000]
        self.scheduler.expect_action()
        self.go(PATIENCE - 1)
        self.assertAlmostEqual(self.times()[2] - self.times()[1], BACKLOG_PAUSE)
        self.assertEqual(set(self.cases()), {False})
        self.go(2)
        self.assertIn(True, self.cases())

    def test_a_database_that_is_away(self) -> None:
        self.start()
        self.store.away = {"act"}
        self.scheduler.expect_action()
        self.go(LOOK)
        self.store.away = set()
        self.store.batches = [batch(ActionState.DONE)]
        self.go(LOOK)
        self.assertEqual(self.store.batches, [])

    def test_a_stop(self) -> None:
        """It begins no other batch."""
        self.start()
        self.store.batches = [batch()] * 9
        self.scheduler.expect_action()
        self.go(0)
        self.scheduler.stop_claiming()
        self.go(LOOK)
        self.assertEqual(len(self.times()), 1)

    def test_old_actions(self) -> None:
        self.start(scan=600.0)
        self.go(FORGET_INTERVAL + 1)
        self.assertEqual(
            [call.argument for call in self.store.called("forget_actions")], [FORGOTTEN]
        )
