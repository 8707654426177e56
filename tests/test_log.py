"""The log: its lines are those of Twisted's own observer, or JSON, and its levels can be chosen."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any, NoReturn, cast

from twisted.logger import ILogObserver, Logger, LogLevel, globalLogPublisher, textFileLogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dalga.lines import TextLines
from dalga.log import LineObserver, debugging, log_from, logger
from tests.fakes import noting


class LineObserverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.output = StringIO()
        self.later: list[Callable[[], None]] = []
        self.observer = LineObserver(
            lambda text: self.output.write(text), self.later.append, TextLines()
        )

    def test_as_twisted_writes_it(self) -> None:
        """Each line is as `textFileLogObserver` has it, whatever the event."""
        times = iter(1_415_743_900.75 + step / 3 for step in range(99))
        expected = StringIO()
        twisted: Any = textFileLogObserver(expected)

        def both(event: Any) -> None:
            event["log_time"] = next(times)
            self.observer(dict(event))
            twisted(dict(event))

        for namespace in ("dalga.dispatch.scheduler", "twisted.web"):
            log = Logger(namespace, observer=cast(ILogObserver, both))
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

    def test_of_a_worker(self) -> None:
        """Its number stands behind the time, in each line."""
        lines = TextLines().of_worker(2)
        for namespace in ("dalga.x", "twisted.web"):
            events: list[Any] = []
            Logger(namespace, observer=noting(events)).info("a line")
            _, rest = lines.lines(events[0]).split(" ", 1)
            self.assertEqual(rest, f"worker 2 [{namespace}#info] a line\n")

    def test_whose_it_is(self) -> None:
        """What Twisted says of a connection or the like is marked as Twisted marks it."""
        expected = StringIO()
        twisted: Any = textFileLogObserver(expected)
        for observer in (twisted, self.observer):
            log = Logger("twisted.web", observer=observer)
            log.info("a line", log_system="HTTPChannel,1,127.0.0.1", log_time=0.0)
        self.observer.flush()
        self.assertIn("[HTTPChannel,1,127.0.0.1]", self.output.getvalue())
        self.assertEqual(self.output.getvalue()[24:], expected.getvalue()[24:])

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


class LeaveTests(SynchronousTestCase):
    """A signal's handler that ends the process, wherever it interrupts the observer."""

    def setUp(self) -> None:
        self.output = StringIO()
        self.ended: list[str] = []
        self.observer = LineObserver(
            lambda text: self.output.write(text), lambda flush: None, TextLines()
        )
        self.log = Logger("dalga", observer=self.observer)

    def interrupt(self) -> None:
        """What the handler does."""

        def end() -> NoReturn:
            self.ended.append(self.output.getvalue())
            raise SystemExit

        self.observer.leave(end)

    def lines(self) -> list[str]:
        """The last words of the lines that had been written at the end."""
        (written,) = self.ended
        return [line.split()[-1] for line in written.splitlines()]

    def test_between_lines(self) -> None:
        """What is there is written, and that is the end."""
        self.log.info("one")
        self.assertRaises(SystemExit, self.interrupt)
        self.assertEqual(self.lines(), ["one"])

    def test_in_a_line(self) -> None:
        """The line that is being made is the last."""
        self.log.info("one")

        class Told:
            def __str__(told) -> str:
                self.interrupt()
                self.assertEqual(self.ended, [])
                return "two"

        self.assertRaises(SystemExit, self.log.info, "{told}", told=Told())
        self.assertEqual(self.lines(), ["one", "two"])

    def test_in_lines_of_another_process(self) -> None:
        """They are taken whole before the end."""
        went_on: list[str] = []

        def soon(flush: Callable[[], None]) -> None:
            self.interrupt()
            went_on.extend(self.ended or ["nothing has ended"])

        self.observer = LineObserver(lambda text: self.output.write(text), soon, TextLines())
        self.assertRaises(SystemExit, self.observer.pass_on, "one\nand two\n")
        self.assertEqual((self.lines(), went_on), (["one", "two"], ["nothing has ended"]))

    def test_in_the_writing(self) -> None:
        """It is finished, and what has been logged meanwhile follows; nothing is there twice."""
        write = self.output.write

        def interrupted(text: str) -> int:
            self.output.write = write  # type: ignore[method-assign]
            written = write(text[:20])
            self.interrupt()
            self.assertEqual(self.ended, [])
            self.observer._lines.append(TextLines().lines({**event, "log_format": "three"}))
            return written + write(text[20:])

        events: list[Any] = []
        Logger("dalga", observer=noting(events)).info("x")
        (event,) = events
        self.log.info("one")
        self.log.info("two")
        self.output.write = interrupted  # type: ignore[method-assign]
        self.assertRaises(SystemExit, self.observer.flush)
        self.assertEqual(self.lines(), ["one", "two", "three"])


class LoggerTests(SynchronousTestCase):
    def test_as_twisted_makes_them(self) -> None:
        """Events are those of Twisted's logger, for any observer: `--logger` may name one."""
        events: list[Any] = []
        ours, twisted = logger("dalga.somewhere"), Logger("dalga.somewhere")
        self.assertIs(ours.observer, twisted.observer)
        ours.observer = twisted.observer = noting(events)
        failure = Failure(ValueError("broken"))
        for log in (ours, twisted):
            log.info("{path!r}: {late:.0f} s late", path="a", late=1.5)
            log.failure("unexpected", failure)
            log.emit(LogLevel.warn)
        for event in events:
            self.assertIn(event.pop("log_logger"), (ours, twisted))
            self.assertIsInstance(event.pop("log_time"), float)
        self.assertEqual(len(events), 6)
        self.assertEqual(events[:3], events[3:])


class LevelTests(SynchronousTestCase):
    """From which level on there are lines."""

    def setUp(self) -> None:
        self.addCleanup(log_from, "info")

    def test_of_dalga(self) -> None:
        """Info and above unless another level is asked for; what is left out makes no event."""
        events: list[Any] = []
        globalLogPublisher.addObserver(noting(events))
        self.addCleanup(globalLogPublisher.removeObserver, noting(events))
        log = logger("dalga.somewhere")
        names = ["debug", "info", "warn", "error", "critical"]

        def said() -> list[str]:
            events.clear()
            for name in names:
                log.emit(LogLevel.levelWithName(name), name)
            return [event["log_format"] for event in events]

        self.assertEqual((said(), debugging()), (names[1:], False))
        for number, name in enumerate(names[:4]):
            log_from(name)
            self.assertEqual((said(), debugging()), (names[number:], name == "debug"))

    def test_of_others(self) -> None:
        """Twisted's lines are left out below the level, but for its few at the debug level."""
        written: list[str] = []
        observer = LineObserver(written.append, lambda flush: flush(), TextLines())
        names = ["debug", "info", "warn", "error"]

        def said() -> list[str]:
            written.clear()
            for name in names:
                Logger("twisted.web", observer=observer).emit(LogLevel.levelWithName(name), name)
            return [line.split()[-1] for line in written]

        for level, expected in (
            ("debug", names),
            ("info", names),
            ("warn", names[2:]),
            ("error", names[3:]),
        ):
            log_from(level)
            self.assertEqual(said(), expected)
