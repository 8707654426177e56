"""The threads of a lane: whose turn it is, how a result comes back, what a stop waits for."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from threading import Event, get_ident
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dalga.store import threads
from dalga.store.threads import Threads

#: Until something comes that a test waits for, in seconds: it comes at once, or never.
PATIENCE = 10


class ThreadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.threads = Threads(2)
        self.addCleanup(self.threads.stop)
        self.results: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def call(self, function: Any, *arguments: Any, **keywords: Any) -> None:
        self.threads.callInThreadWithCallback(
            lambda *result: self.results.put(result), function, *arguments, **keywords
        )

    def result(self) -> tuple[bool, Any]:
        return self.results.get(timeout=PATIENCE)

    def test_result(self) -> None:
        self.call(divmod, 17, 5)
        self.assertEqual(self.result(), (True, (3, 2)))
        self.call(int, "ff", base=16)
        self.assertEqual(self.result(), (True, 255))

    def test_failure(self) -> None:
        """The thread of a function that fails goes on."""
        for _ in range(3):
            self.call(int, "none")
            ok, failure = self.result()
            self.assertFalse(ok)
            failure.trap(ValueError)

    def test_no_thread_left(self) -> None:
        """P5: while the system has no thread left each call says so; later calls get theirs."""

        class NoThread(threading.Thread):
            def start(self) -> None:
                raise RuntimeError("can't start new thread")

        patched = self.patch(threads, "Thread", NoThread)
        for _ in range(3):
            self.assertRaises(RuntimeError, self.call, int, "1")
        patched.restore()
        for _ in range(3):
            self.call(int, "1")
            self.assertEqual(self.result(), (True, 1))

    def test_one_after_another(self) -> None:
        """Functions of which one at a time is under way have one thread, and so one connection."""
        found = set()
        for _ in range(50):
            self.call(get_ident)
            found.add(self.result()[1])
        self.assertEqual(len(found), 1)
        self.assertNotIn(get_ident(), found)

    def test_next_at_once(self) -> None:
        """A caller that gets a result may have the next function called at once."""
        go_on = Event()
        self.addCleanup(go_on.set)
        self.call(go_on.wait)
        again = lambda ok, result: self.call(divmod, 17, 5)  # noqa: E731
        self.threads.callInThreadWithCallback(again, get_ident)
        self.assertEqual(self.result(), (True, (3, 2)))

    def test_most(self) -> None:
        go_on = Event()
        self.addCleanup(go_on.set)
        self.call(go_on.wait)
        self.call(go_on.wait)
        self.assertRaises(RuntimeError, self.call, go_on.wait)
        go_on.set()
        self.assertEqual([self.result(), self.result()], [(True, True)] * 2)

    def test_stop(self) -> None:
        """A stop waits for the functions under way, and leaves no thread."""
        before = threading.active_count()
        go_on = Event()
        self.call(go_on.wait)
        timer = threading.Timer(0.05, go_on.set)
        timer.start()
        self.threads.stop()
        self.assertEqual(self.results.get_nowait(), (True, True))
        timer.join()
        self.assertEqual(threading.active_count(), before)
