"""Time, cores that are shared, a Python that does one thing at a time, and its reactor."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

MS = 0.001

#: How long Python computes while another thread waits: sys.getswitchinterval().
SWITCH = 5 * MS
#: How late a timer is: epoll waits for whole milliseconds, rounded up, so half of one on average.
TICK = 0.5 * MS

#: The database's time when the simulation begins.
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)

Then = Callable[[], object]


def at(seconds: float) -> datetime:
    """A moment of the simulation as the database's time."""
    return EPOCH + timedelta(seconds=seconds)


class Delayed:
    """A call to come; Twisted's IDelayedCall, as far as it is used."""

    def __init__(self, time: Time, delay: float, call: Then) -> None:
        self._time, self._call = time, call
        self._active = True
        self._when = self._after(delay)
        time.expect(self._when, self.come)

    def _after(self, delay: float) -> float:
        return self._time.now + (delay + TICK if delay > 0 else 0.0)

    def active(self) -> bool:
        return self._active

    def getTime(self) -> float:
        return self._when

    def cancel(self) -> None:
        self._active = False

    def reset(self, delay: float) -> None:
        before, self._when = self._when, self._after(delay)
        if self._when < before:
            self._time.expect(self._when, self.come)

    def come(self) -> None:
        """Its time may have come, or have been put off since."""
        if self._active and self._when <= self._time.now:
            self._active = False
            self._call()
        elif self._active:
            self._time.expect(self._when, self.come)


class Time:
    """Simulated seconds, and what is to happen then."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Then]] = []
        self._number = 0

    def expect(self, when: float, call: Then) -> None:
        self._number += 1
        heapq.heappush(self._events, (max(when, self.now), self._number, call))

    def after(self, delay: float, call: Then) -> None:
        self.expect(self.now + delay, call)

    def run(self, over: Callable[[], bool], limit: float) -> None:
        """Go on until `over`, for `limit` simulated seconds at most."""
        deadline = self.now + limit
        while not over():
            if not self._events or self._events[0][0] > deadline:
                self.now = deadline
                return
            self.now, _, call = heapq.heappop(self._events)
            call()


class Cores:
    """
    The cores of a machine, shared evenly by all that can run, as the kernel's scheduler does over a
    few milliseconds.

    :param others: processes of others that always can run.
    """

    def __init__(self, time: Time, count: float, others: int = 0) -> None:
        self._time, self._count, self._others = time, count, others
        #: What each of those that run has been given since the beginning.
        self._given = 0.0
        self._since = 0.0
        self._running: list[tuple[float, int, Then]] = []
        self._number = 0

    def run(self, work: float, then: Then) -> None:
        """Run something that takes `work` seconds of one core."""
        self._settle()
        self._number += 1
        heapq.heappush(self._running, (self._given + work, self._number, then))
        self._look_ahead()

    def _settle(self) -> None:
        self._given += (self._time.now - self._since) * self._rate
        self._since = self._time.now

    @property
    def _rate(self) -> float:
        return min(1.0, self._count / max(1, len(self._running) + self._others))

    def _look_ahead(self) -> None:
        if self._running:
            number = self._number
            wait = (self._running[0][0] - self._given) / self._rate
            self._time.after(max(0.0, wait), lambda: self._come(number))

    def _come(self, number: int) -> None:
        if number != self._number:
            return  # others have come or gone since, and it was calculated anew
        self._settle()
        self._number += 1
        _, _, then = heapq.heappop(self._running)
        self._look_ahead()
        then()


class Interpreter:
    """
    One thing at a time: a daemon's Python, or the nginx's only process.

    What is queued by `turn` comes in order. A database thread is let in between two of them, as
    each send and receive of the reactor lets go of the interpreter. What a turn itself goes on with
    (`now`) is computed without that, for `SWITCH` at most.
    """

    def __init__(self, time: Time, cores: Cores) -> None:
        self._time, self._cores = time, cores
        self._turns: deque[tuple[float, Then]] = deque()
        self._this_turn: deque[tuple[float, Then]] = deque()
        self._threads: deque[tuple[float, float, Then]] = deque()
        self._busy = False
        self.alive = True
        #: CPU seconds used so far.
        self.used = 0.0

    def turn(self, work: float, then: Then) -> None:
        self._turns.append((work, then))
        self._next()

    def thread(self, work: float, then: Then) -> None:
        self._threads.append((self._time.now, work, then))
        self._next()

    def now(self, work: float, then: Then) -> None:
        """Called within a turn."""
        self._this_turn.append((work, then))

    def _next(self) -> None:
        if self._busy or not self.alive:
            return
        waited = self._time.now - self._threads[0][0] if self._threads else 0.0
        if self._this_turn and waited < SWITCH:
            work, then = self._this_turn.popleft()
        elif self._threads:
            _, work, then = self._threads.popleft()
        elif self._turns:
            work, then = self._turns.popleft()
        else:
            return
        self._busy = True
        self.used += work
        self._cores.run(work, lambda: self._ended(then))

    def _ended(self, then: Then) -> None:
        if not self.alive:
            return
        then()
        self._busy = False
        self._next()


class Reactor:
    """A daemon's reactor: its timers wait until the interpreter has time for them."""

    def __init__(self, time: Time, interpreter: Interpreter) -> None:
        self._time, self._interpreter = time, interpreter

    def seconds(self) -> float:
        return self._time.now

    def callLater(self, delay: float, call: Callable[..., object], *args: object) -> Delayed:
        turn = self._interpreter.turn
        return Delayed(self._time, delay, lambda: turn(0.0, lambda: call(*args)))
