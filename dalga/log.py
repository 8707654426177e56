"""
Dalga's loggers: twisted.logger's, with the debug level left out unless it is asked for.

twistd's own log observers write whatever they are given, so the choice is made here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn, TextIO

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
    :param namespace: the module's name.
    """
    return Logger(namespace, observer=FilteringLogObserver(globalLogPublisher, [_levels]))


def log_debug() -> None:
    """From now on, log the debug level too."""
    _levels.setLogLevelForNamespace("dalga", LogLevel.debug)


def debugging() -> bool:
    """Whether the debug level is logged: for what is too frequent to be put into words in vain."""
    return _levels.logLevelForNamespace("dalga") is LogLevel.debug


@implementer(ILogObserver)
class LineObserver:
    """
    Writes events as `twisted.logger.textFileLogObserver` does, for a tenth of its cost where an
    event is plain: its format needs nothing but `str.format`, and the time of a second is worded
    once. There is a line for each POST, so it is a good part of all that is done for a job.

    :param output: lines that have to be on their way are flushed by `soon`.
    :param soon: calls what it is given when the reactor has a moment, so that the lines of one turn
        go out together.
    """

    def __init__(self, output: TextIO, soon: Callable[[Callable[[], None]], object]) -> None:
        self._output = output
        self._soon = soon
        self._lines: list[str] = []
        self._second = 0
        self._time = ""
        #: Whether a line is being made or written. A signal's handler may see it true.
        self._busy = False
        #: Ends the process; called when all lines are written. None until a signal wants that.
        self._end: Callable[[], NoReturn] | None = None

    def __call__(self, event: LogEvent) -> None:
        """Called with each event."""
        self._busy = True
        if not self._lines:
            self._soon(self.flush)
        self._lines.append(self._line(event))
        self._rest()

    def leave(self, end: Callable[[], NoReturn]) -> None:
        """
        Write what is there, and call `end`. For a signal's handler: where that has interrupted this
        very object, the line or the writing is finished first, after the handler has returned.
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
        """Write what is there."""
        self._busy = True
        text, self._lines = "".join(self._lines), []
        try:
            self._output.write(text)
            self._output.flush()
        except (OSError, ValueError):
            pass  # the disk is full, or nobody reads any more: to log that would be to begin anew
        self._rest()

    def _line(self, event: LogEvent) -> str:
        if "log_failure" in event or not str(event.get("log_namespace")).startswith("dalga"):
            return formatEventAsClassicLogText(event) or ""
        try:
            text = event["log_format"].format(**event)
        except Exception:
            # Which says what is wrong with it.
            return formatEventAsClassicLogText(event) or ""
        second = int(event["log_time"])
        if second != self._second:
            self._second = second
            self._time = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))
        text = text.replace("\n", "\n\t")
        return f"{self._time} [{event['log_namespace']}#{event['log_level'].name}] {text}\n"
