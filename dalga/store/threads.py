"""
The threads of a lane, in place of the thread pool that adbapi makes for itself.

Twisted's `ThreadPool` hands each function through a coordinator, a queue in Python and three
closures. Here each thread has a queue in C. Of the idle threads the one that was idle last is
taken, as its connection and its stack are warm; a new thread is made when none is idle.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from twisted.python.failure import Failure


class _Task(NamedTuple):
    """A function for a thread, as `Threads.callInThreadWithCallback` is given it."""

    on_result: Callable[[bool, Any], object]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


#: What a thread waits at. None ends the thread.
_Queue = SimpleQueue[_Task | None]


class Threads:
    """
    As much of `twisted.python.threadpool.ThreadPool` as adbapi needs. Two threads never call its
    methods at once; a lane calls them in the reactor's thread.

    :param most: how many functions may be under way at once; each has a thread of its own.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads: list[tuple[Thread, _Queue]] = []
        #: The queues of the threads that wait. The database threads append, and that is atomic.
        self._idle: list[_Queue] = []

    def start(self) -> None:
        """Nothing to do: each thread is made when it is needed first."""

    def callInThreadWithCallback(
        self,
        on_result: Callable[[bool, Any], object],
        function: Callable[..., Any],
        *arguments: Any,
        **keywords: Any,
    ) -> None:
        """
        Call a function in a thread.

        :param on_result: called in that thread with whether the function succeeded, and with its
            result or its `Failure`. From then on the thread is free.
        :raises RuntimeError: if as many functions as there may be are under way, or if the system
            has no thread left. A later call may get one.
        """
        queue = self._idle.pop() if self._idle else self._new()
        queue.put(_Task(on_result, function, arguments, keywords))

    def stop(self) -> None:
        """End all threads, and wait until the functions under way have ended."""
        for _, queue in self._threads:
            queue.put(None)
        for thread, _ in self._threads:
            thread.join()

    def _new(self) -> _Queue:
        if len(self._threads) == self._most:
            raise RuntimeError(f"{self._most} functions are under way already")
        queue: _Queue = SimpleQueue()
        thread = Thread(target=self._work, args=(queue,), name=f"database-{len(self._threads)}")
        thread.start()
        self._threads.append((thread, queue))
        return queue

    def _work(self, queue: _Queue) -> None:
        """What a thread does."""
        while (task := queue.get()) is not None:
            on_result, function, arguments, keywords = task
            try:
                ok, result = True, function(*arguments, **keywords)
            except BaseException:
                ok, result = False, Failure()
            # Idle first: a caller that gets the result may have the next function called at once.
            self._idle.append(queue)
            on_result(ok, result)
            # Nothing of a transaction is kept until the next one.
            del task, on_result, function, arguments, keywords, result
