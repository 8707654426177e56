"""
Dalga's loggers: twisted.logger's, without the debug level unless ``--debug`` asks for it. And the
owner of work that nobody waits for: the log.

twistd's own log observers write each event that they are given. So the choice is made here, before
the observers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TextIO

from twisted.internet.defer import Deferred
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEventAsClassicLogText,
    globalLogPublisher,
)
from zope.interface import implementer

_levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)


def logger(namespace: str) -> Logger:
    """
    The logger of a module.

    :param namespace: the module's name.
    """
    return Logger(namespace, observer=FilteringLogObserver(globalLogPublisher, [_levels]))


def log_debug() -> None:
    """Log the debug level, too, from now on."""
    _levels.setLogLevelForNamespace("dalga", LogLevel.debug)


def debugging() -> bool:
    """
    Whether the debug level is logged. Ask this before an event that is too frequent to be put into
    words in vain.
    """
    return _levels.logLevelForNamespace("dalga") is LogLevel.debug


def own(work: Coroutine[Deferred[Any], Any, None], log: Logger) -> None:
    """
    Run a coroutine that nobody waits for, and that handles its own errors.

    :param log: is told an error that the coroutine does not handle.
    """
    Deferred.fromCoroutine(work).addErrback(lambda failure: log.failure("unexpected", failure))


@implementer(ILogObserver)
class LineObserver:
    """
    Writes events as `twisted.logger.textFileLogObserver` does, at a tenth of the cost where an
    event is plain. The format of a plain event needs `str.format` alone, and the time is put into
    words once a second. There is a line for each POST, so the log is a good part of a job's cost.

    :param output: where the lines go.
    :param soon: calls the function that it is given in the reactor's next turn, so that the lines
        of one turn are written together.
    """

    def __init__(self, output: TextIO, soon: Callable[[Callable[[], None]], object]) -> None:
        self._output = output
        self._soon = soon
        self._lines: list[str] = []
        self._second = 0
        self._time = ""
        #: Whether a line is being made or written. A signal's handler may find it true.
        self._busy = False
        #: Ends the process, once all lines are written. None until a signal asks for the end.
        self._end: Callable[[], NoReturn] | None = None

    def __call__(self, event: LogEvent) -> None:
        """Take an event: called by Twisted with each of them."""
        self._busy = True
        if not self._lines:
            self._soon(self.flush)
        self._lines.append(self._line(event))
        self._rest()

    def leave(self, end: Callable[[], NoReturn]) -> None:
        """
        Write the lines that are there, and call `end`. Called by a signal's handler. Where the
        signal has interrupted this very object, the line or the writing is finished first, after
        the handler has returned.
        """
        self._end = end
        if not self._busy:
            self._rest()

    def _rest(self) -> None:
        self._busy = False
        if self._end is not None:
            end, self._end = self._end, None
            self.flush()
            end()

    def flush(self) -> None:
        """Write the lines that are there."""
        self._busy = True
        text, self._lines = "".join(self._lines), []
        try:
            self._output.write(text)
            self._output.flush()
        except (OSError, ValueError):
            pass  # the disk is full, or nobody reads any more: a line on that would fail as well
        self._rest()

    def _line(self, event: LogEvent) -> str:
        if "log_failure" in event or not str(event.get("log_namespace")).startswith("dalga"):
            return formatEventAsClassicLogText(event) or ""
        try:
            text = event["log_format"].format(**event)
        except Exception:
            # Twisted's words say what is wrong with the event.
            return formatEventAsClassicLogText(event) or ""
        second = int(event["log_time"])
        if second != self._second:
            self._second = second
            self._time = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))
        text = text.replace("\n", "\n\t")
        return f"{self._time} [{event['log_namespace']}#{event['log_level'].name}] {text}\n"
