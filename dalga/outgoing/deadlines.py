"""
Deadlines of POSTs. Nearly all POSTs end before their deadline.

If each POST had a timer of the reactor, nearly all would be made, sorted in and cancelled in vain.
So POSTs that have the same time-out stand in one queue, in the order in which they began. Their
deadlines have the same order. So each queue has one timer of the reactor, for its first POST::

    time-out   deadlines          timer
    30 s       10.2  10.3  10.7   at 10.2
    5 s        3.1   3.1          at 3.1

A POST that ends in time leaves its queue, and the timer stays as it is. When the timer fires, it is
set again for the first POST that is left. If none is left, the queue and its timer are removed.

Each job may have a time-out of its own. So if there are more than `MOST_QUEUES`, a queue and its
timer are removed as soon as the queue is empty.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall

#: At most this many queues stay while they are empty.
MOST_QUEUES = 100


class Bounded(Protocol):
    """A POST, or anything else that has a deadline."""

    def too_late(self) -> None:
        """Called at the deadline."""


class Deadlines:
    """
    :param reactor: deadlines are measured with its ``seconds``, which never go back.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        #: By time-out in seconds: the queue, which has each deadline in the reactor's seconds.
        self._queues: dict[float, dict[Bounded, float]] = {}
        self._timers: dict[float, IDelayedCall] = {}
        self._closed = False

    def add(self, bounded: Bounded, timeout: float, began: float) -> float:
        """
        Have `Bounded.too_late` called `timeout` seconds after it began, and never before.

        :param began: in the reactor's seconds; a moment ago, as its request was written since.
        :return: the deadline, in the reactor's seconds.
        """
        queue = self._queues.get(timeout)
        if queue is None:
            queue = self._queues[timeout] = {}
            left = max(0.0, began + timeout - self._reactor.seconds())
            self._timers[timeout] = self._reactor.callLater(left, self._fire, timeout)
        deadline = queue[bounded] = began + timeout
        return deadline

    def remove(self, bounded: Bounded, timeout: float) -> None:
        """Take it out of its queue, if it is still there."""
        queue = self._queues.get(timeout)
        if queue is not None:
            queue.pop(bounded, None)
            if not queue and (self._closed or len(self._queues) > MOST_QUEUES):
                self._give_up(timeout)

    @property
    def pending(self) -> bool:
        """Whether there is a POST that has not ended."""
        return any(self._queues.values())

    def close(self) -> None:
        """From now on, remove the timer of each queue that is empty at once."""
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
        # Whoever is told may end another POST, or begin some, so the queue is in order by now.
        for bounded in late:
            bounded.too_late()
