"""
Whose turn it is to have one of a lane's connections.

There are two queues, which take turns. The scheduler's transactions wait in one, the API's in the
other. An example, with one connection, while a GET of the API has it::

    the API's queue        list1 list2 list3
    the scheduler's        claim record
    the order              claim list1 record list2 list3

What always holds: before a transaction of the scheduler, at most as many of the API's have a turn
as of the scheduler's own, and one more (P7). The other way round it is the same, so neither queue
keeps the other waiting for ever.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from twisted.internet.defer import Deferred, succeed


class Queue(IntEnum):
    """Who waits."""

    SCHEDULER = 0
    API = 1
    #: The end of the lane, behind all others.
    CLOSE = 2


class Turns:
    """:param count: how many connections there are."""

    def __init__(self, count: int) -> None:
        self.free = count
        #: Whether the lane begins no transaction any more.
        self.closed = False
        self._queues: tuple[deque[Deferred[None]], ...] = tuple(deque() for _ in Queue)
        #: The queue whose turn it is, if both wait.
        self._next = Queue.SCHEDULER

    def acquire(self, queue: Queue) -> Deferred[None]:
        """
        Wait for a connection. Cancelling the Deferred ends the waiting.

        :return: fires when one is the caller's, until `release`.
        """
        if self.free:
            self.free -= 1
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._queues[queue].remove)
        self._queues[queue].append(waiting)
        return waiting

    def release(self) -> None:
        """Give a connection back: the next in turn has it."""
        other = Queue(1 - self._next)
        for queue in (self._next, other, Queue.CLOSE):
            if self._queues[queue]:
                self._next = Queue.API if queue is Queue.SCHEDULER else Queue.SCHEDULER
                self._queues[queue].popleft().callback(None)
                return
        self.free += 1
