"""Deadlines in queues: each reached at its time, or left in time, by one timer for a queue."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dalga.outgoing.deadlines import MOST_QUEUES, Deadlines


class Waiter:
    """Notes when it was too late."""

    def __init__(self, clock: Clock, then: Callable[[], object] = lambda: None) -> None:
        self._clock = clock
        self._then = then
        self.late: list[float] = []

    def too_late(self) -> None:
        self.late.append(self._clock.seconds())
        self._then()


class DeadlineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)

    def add(self, waiter: Waiter, timeout: float) -> float:
        return self.deadlines.add(waiter, timeout, self.clock.seconds())

    def timers(self) -> list[float]:
        return sorted(call.getTime() for call in self.clock.getDelayedCalls())

    def test_each_at_its_time(self) -> None:
        """P3: never before, and by one timer for those that have the same time-out."""
        waiters = [Waiter(self.clock) for _ in range(6)]
        for number, waiter in enumerate(waiters):
            timeout = 10.0 if number % 2 else 3.0
            deadline = self.add(waiter, timeout)
            self.assertEqual(deadline, self.clock.seconds() + timeout)
            self.clock.advance(0.25)
        self.assertEqual(self.timers(), [3.0, 10.25])
        for _ in range(60):
            self.clock.advance(0.25)
        expected = [3.0, 10.25, 3.5, 10.75, 4.0, 11.25]
        self.assertEqual([waiter.late for waiter in waiters], [[at] for at in expected])
        self.assertEqual(self.timers(), [])

    def test_in_time(self) -> None:
        """What is removed is not called; its timer is set again for the first one that is left."""
        first, second, third = (Waiter(self.clock) for _ in range(3))
        self.add(first, 5.0)
        self.clock.advance(1)
        self.add(second, 5.0)
        self.clock.advance(1)
        self.add(third, 5.0)
        self.deadlines.remove(first, 5.0)
        self.deadlines.remove(first, 5.0)
        self.deadlines.remove(second, 5.0)
        self.assertEqual(self.timers(), [5.0])
        self.clock.advance(3)
        self.assertEqual(self.timers(), [7.0])
        self.clock.advance(2)
        self.assertEqual([each.late for each in (first, second, third)], [[], [], [7.0]])

    def test_time_outs_of_which_each_is_another(self) -> None:
        """P10: there are no more timers than `MOST_QUEUES` when nothing is under way."""
        under_way = Waiter(self.clock)
        self.add(under_way, 5.0)
        waiters = [Waiter(self.clock) for _ in range(3 * MOST_QUEUES)]
        for number, waiter in enumerate(waiters):
            self.add(waiter, 10.0 + number)
        self.assertEqual(len(self.timers()), 1 + len(waiters))
        for number, waiter in enumerate(waiters):
            self.deadlines.remove(waiter, 10.0 + number)
        self.assertEqual(len(self.timers()), MOST_QUEUES)
        again = Waiter(self.clock)
        self.add(again, 10.0)
        self.clock.advance(10)
        self.assertEqual((under_way.late, again.late), ([10.0], [10.0]))
        self.clock.advance(10 + len(waiters))
        self.assertEqual((self.timers(), [each.late for each in waiters if each.late]), ([], []))

    def test_a_reactor_that_comes_late(self) -> None:
        """All whose time has come by then are told, whatever the first of them leads to."""
        second = Waiter(self.clock)
        new = Waiter(self.clock)

        def end_the_second() -> None:
            self.deadlines.remove(second, 5.0)
            self.add(new, 5.0)

        first = Waiter(self.clock, end_the_second)
        last = Waiter(self.clock)
        for waiter in (first, second):
            self.add(waiter, 5.0)
        self.clock.advance(8)
        self.add(last, 5.0)
        # One that was told so already ends what it is told about by itself.
        self.assertEqual([first.late, second.late, last.late], [[8.0], [8.0], []])
        self.clock.advance(5)
        self.assertEqual([new.late, last.late], [[13.0], [13.0]])

    def test_close(self) -> None:
        """No timer is left where nothing waits, from then on; what waits is told."""
        done, under_way = Waiter(self.clock), Waiter(self.clock)
        for waiter, timeout in ((done, 5.0), (under_way, 6.0)):
            self.add(waiter, timeout)
        self.deadlines.remove(done, 5.0)
        self.deadlines.close()
        self.assertEqual(self.timers(), [6.0])
        again = Waiter(self.clock)
        self.add(again, 5.0)
        self.deadlines.remove(again, 5.0)
        self.assertEqual(self.timers(), [6.0])
        self.clock.advance(6)
        self.assertEqual((done.late, under_way.late), ([], [6.0]))
        self.assertEqual(self.timers(), [])

    def test_close_after_a_timer_was_set_again(self) -> None:
        """It is the new timer that is cancelled."""
        first, second = Waiter(self.clock), Waiter(self.clock)
        self.add(first, 5.0)
        self.clock.advance(1)
        self.add(second, 5.0)
        self.clock.advance(4)
        self.assertEqual(self.timers(), [6.0])
        self.deadlines.remove(second, 5.0)
        self.deadlines.close()
        self.assertEqual((first.late, self.timers()), ([5.0], []))
