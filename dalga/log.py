"""
Dalga's loggers: twisted.logger's, without the debug level unless ``--debug`` asks for it. And the
owner of work that nobody waits for: the log.

twistd's own log observers write each event that they are given. So the choice is made here, before
the observers.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEventAsClassicLogText,
    globalLogPublisher,
)
from zope.interface import implementer

#: The levels that are logged.
_levels = {LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical}


class _Logger(Logger):
    """
    Twisted's logger, with the choice of level in it. An event is made and handed on at a fifth of
    what Twisted's logger behind Twisted's filter takes.
    """

    def emit(self, level: LogLevel, format: str | None = None, **event: object) -> None:
        """Hand an event to the observers, if its level is logged."""
        if level in _levels:
            event["log_logger"] = self
            event["log_level"] = level
            event["log_namespace"] = self.namespace
            event["log_source"] = self.source
            event["log_format"] = format
            event["log_time"] = time.time()
            self.observer(event)


def logger(namespace: str) -> Logger:
    """
    The logger of a module.

    :param namespace: the module's name.
    """
    return _Logger(namespace, observer=globalLogPublisher)


def log_debug() -> None:
    """Log the debug level, too, from now on."""
    _levels.add(LogLevel.debug)


def debugging() -> bool:
    """
    Whether the debug level is logged. Ask this before an event that is too frequent to be put into
    words in vain.
    """
    return LogLevel.debug in _levels


def own(work: Coroutine[Deferred[Any], Any, None], log: Logger) -> None:
    """
    Run a coroutine that nobody waits for, and that handles its own errors.

    :param log: is told an error that the coroutine does not handle.
    """
    Deferred.fromCoroutine(work).addErrback(lambda failure: log.failure("unexpected", failure))


def say_past_the_log(text: str) -> None:
    """
    Write a line to the standard error at once; a signal's handler may do that. The line is lost if
    nobody takes it: the disk is full, or the pipe's reader is gone or stands still.
    """
    with suppress(OSError, ValueError):
        _, free, _ = select.select([], [2], [], 0)
        if free:
            os.write(2, f"dalga: {text}\n".encode())


@implementer(ILogObserver)
class LineObserver:
    """
    Writes events as `twisted.logger.textFileLogObserver` does, at a tenth of the cost where an
    event is plain. The format of a plain event needs `str.format` alone, and the time is put into
    words once a second. There is a line for each POST, so the log is a good part of a job's cost.
    Any thread may call it.

    :param write: writes text to where the lines go, and leaves none of it in a buffer.
    :param soon: calls the function that it is given in the reactor's next turn, so that the lines
        of one turn are written together; or at once, if there may be no such turn.
    :param tag: stands behind the time in each line, and begins with a space: which process it is.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        soon: Callable[[Callable[[], None]], object],
        tag: str = "",
    ) -> None:
        self._write = write
        self._soon = soon
        self._lines: deque[str] = deque()
        #: Whether `soon` is to call `flush`.
        self._asked = False
        self._tag = tag
        self._second = 0
        #: The time that lines of `_second` begin with, and the tag.
        self._time = ""
        #: Whether a line is being made or written. A signal's handler may find it true.
        self._busy = False
        #: Ends the process, once all lines are written. None until a signal asks for the end.
        self._end: Callable[[], NoReturn] | None = None

    def __call__(self, event: LogEvent) -> None:
        """Take an event: called by Twisted with each of them."""
        self._busy = True
        self._add(self._line(event))

    def pass_on(self, lines: str) -> None:
        """Write whole lines that another process has made."""
        self._busy = True
        self._add(lines)

    def _add(self, lines: str) -> None:
        self._lines.append(lines)
        if not self._asked:
            self._asked = True
            self._soon(self.flush)
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
        self._asked = False
        lines = []
        try:
            # One by one, as other threads may add lines meanwhile.
            while True:
                lines.append(self._lines.popleft())
        except IndexError:
            pass
        try:
            self._write("".join(lines))
        except (OSError, ValueError):
            pass  # the disk is full, or nobody reads any more: a line on that would fail as well
        self._rest()

    def _line(self, event: LogEvent) -> str:
        if "log_failure" in event or not str(event.get("log_namespace")).startswith("dalga"):
            return self._classic(event)
        try:
            text = event["log_format"].format_map(event)
        except Exception:
            # Twisted's words say what is wrong with the event.
            return self._classic(event)
        second = int(event["log_time"])
        if second != self._second:
            # In this order, as other threads compare the second.
            now = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))
            self._time = now + self._tag
            self._second = second
        text = text.replace("\n", "\n\t")
        return f"{self._time} [{event['log_namespace']}#{event['log_level'].name}] {text}\n"

    def _classic(self, event: LogEvent) -> str:
        """The lines of Twisted's own formatter, with the tag behind their time."""
        return (formatEventAsClassicLogText(event) or "").replace(" [", f"{self._tag} [", 1)
