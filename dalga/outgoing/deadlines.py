"""
Deadlines, of which hardly any is ever reached.

A timer of the reactor's for each POST would be made, sorted in and cancelled in vain. So POSTs that
have the same time-out stand in one queue, in the order in which they began. That is the order of
their deadlines, too, so the reactor has one timer for each queue, for the first one in it::

    time-out   deadlines          timer
    30 s       10.2  10.3  10.7   at 10.2
    5 s        3.1   3.1          at 3.1

A POST that ends in time leaves its queue, and the timer stays as it is. When the timer fires, it is
set again for the first POST that is left, and a queue without POSTs is given up.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall


class Bounded(Protocol):
    """What has a deadline."""

    def too_late(self) -> None:
        """Called at the deadline."""


class Deadlines:
    """
    :param reactor: deadlines are measured with its ``seconds``, which never go back.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        #: By time-out in seconds: what waits, with its deadline in the reactor's seconds.
        self._queues: dict[float, dict[Bounded, float]] = {}
        self._timers: dict[float, IDelayedCall] = {}
        self._closed = False

    def add(self, bounded: Bounded, timeout: float, now: float) -> float:
        """
        Have `Bounded.too_late` called `timeout` seconds after now, and never before.

        :param now: in the reactor's seconds.
        :return: the deadline, in the reactor's seconds.
        """
        queue = self._queues.get(timeout)
        if queue is None:
            queue = self._queues[timeout] = {}
            self._timers[timeout] = self._reactor.callLater(timeout, self._fire, timeout)
        deadline = queue[bounded] = now + timeout
        return deadline

    def remove(self, bounded: Bounded, timeout: float) -> None:
        """Forget it, if it is not forgotten already."""
        queue = self._queues.get(timeout)
        if queue is not None:
            queue.pop(bounded, None)
            if self._closed and not queue:
                self._give_up(timeout)

    def close(self) -> None:
        """Leave no timer from now on where nothing waits for it."""
        self._closed = True
        for timeout in [timeout for timeout, queue in self._queues.items() if not queue]:
            self._give_up(timeout)

    def _give_up(self, timeout: float) -> None:
        del self._queues[timeout]
        self._timers.pop(timeout).cancel()

    def _fire(self, timeout: float) -> None:
        queue = self._queues[timeout]
        now = self._reactor.seconds()
        late: list[Bounded] = []
        for bounded, deadline in queue.items():
            if deadline > now:
                again = self._reactor.callLater(deadline - now, self._fire, timeout)
                self._timers[timeout] = again
                break
            late.append(bounded)
        else:
            del self._queues[timeout], self._timers[timeout]
        for bounded in late:
            queue.pop(bounded, None)
        # What one of them leads to may end another, or begin some.
        for bounded in late:
            bounded.too_late()
