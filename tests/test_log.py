"""The log: its lines are those of Twisted's own observer, and its levels can be chosen."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

from twisted.logger import Logger, LogLevel, textFileLogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dalga.log import LineObserver


class LineObserverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.output = StringIO()
        self.later: list[Callable[[], None]] = []
        self.observer = LineObserver(self.output, self.later.append)

    def test_as_twisted_writes_it(self) -> None:
        """Each line is as `textFileLogObserver` has it, whatever the event."""
        times = iter(1_415_743_900.75 + step / 3 for step in range(99))
        expected = StringIO()
        twisted: Any = textFileLogObserver(expected)

        def both(event: Any) -> None:
            event["log_time"] = next(times)
            self.observer(dict(event))
            twisted(dict(event))

        for namespace in ("dalga.dispatch", "twisted.web"):
            log = Logger(namespace, observer=both)
            log.info(
                "{path!r} {body!r}: {reason} in {elapsed:.3f} s",
                path="a",
                body="\n",
                reason="200 OK",
                elapsed=1 / 3,
            )
            log.warn("two\nlines and {{braces}}")
            log.error("{nothing}")
            log.error("{nothing!r:>99}", nothing="ünï")
            log.emit(LogLevel.debug, "{call()}", call=lambda: "called")
            log.emit(LogLevel.debug)
            try:
                raise ValueError("broken")
            except ValueError:
                log.failure("a failure: {what}", Failure(), what="this")
            self.observer.flush()
            self.later.clear()
        self.assertEqual(self.output.getvalue(), expected.getvalue())
        self.assertIn("2014-11-11T", expected.getvalue())

    def test_lines_of_one_turn_go_out_together(self) -> None:
        """Nothing is written until the reactor has a moment, and nothing twice."""
        log = Logger("dalga", observer=self.observer)
        log.info("one")
        log.info("two")
        self.assertEqual((self.output.getvalue(), len(self.later)), ("", 1))
        self.later[0]()
        self.assertEqual(len(self.output.getvalue().splitlines()), 2)
        log.info("three")
        self.assertEqual(len(self.later), 2)
        self.later[1]()
        self.assertEqual(len(self.output.getvalue().splitlines()), 3)
