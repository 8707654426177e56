"""
Dalga's loggers: twisted.logger's, with the choice of level in them. And the owner of work that
nobody waits for: the log.

twistd's own log observers write each event that they are given. So the choice is made here, before
the observers. `dalga.lines` makes the lines.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, globalLogPublisher
from zope.interface import implementer

#: The levels that are logged.
_levels = {LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical}
#: The levels of which what others than Dalga say is left out.
_left_out: set[object] = set()


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


def log_from(level: str) -> None:
    """
    Log this level and those above it, from now on. What others say at the debug level is left out
    only where Dalga's own info is.

    :param level: debug, info, warn or error. Above error there is critical, a mistake of ours.
    """
    order = list(LogLevel.iterconstants())
    first = order.index(LogLevel.levelWithName(level))
    _levels.clear()
    _levels.update(order[first:])
    _left_out.clear()
    if LogLevel.info not in _levels:
        _left_out.update(order[:first])


def leaves_out() -> bool:
    """Whether there are events of others that are not logged."""
    return bool(_left_out)


def is_left_out(event: LogEvent) -> bool:
    """Whether an event of others than Dalga, whose loggers choose themselves, is not logged."""
    return event.get("log_level") in _left_out


def debugging() -> bool:
    """
    Whether the debug level is logged. Ask this before an event that is too frequent to be put into
    words in vain.
    """
    return is_logged(LogLevel.debug)


def is_logged(level: LogLevel) -> bool:
    """Whether a level is logged."""
    return level in _levels


class Form(Protocol):
    """How the lines of the log look."""

    def lines(self, event: LogEvent) -> str:
        """The lines of an event, each with its line feed."""

    def of_worker(self, number: int) -> Form:
        """The same, for the lines of a worker: they say its number."""


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
    Writes each event as lines. There is a line for each POST, so the log is a good part of a job's
    cost. Any thread may call it.

    :param write: writes text to where the lines go, and leaves none of it in a buffer.
    :param soon: calls the function that it is given in the reactor's next turn, so that the lines
        of one turn are written together; or at once, if there may be no such turn.
    :param form: how the lines look.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        soon: Callable[[Callable[[], None]], object],
        form: Form,
    ) -> None:
        self._write = write
        self._soon = soon
        self._lines: deque[str] = deque()
        #: Whether `soon` is to call `flush`.
        self._asked = False
        self.form = form
        self._lines_of = form.lines
        #: Whether a line is being made or written. A signal's handler may find it true.
        self._busy = False
        #: Ends the process, once all lines are written. None until a signal asks for the end.
        self._end: Callable[[], NoReturn] | None = None

    def __call__(self, event: LogEvent) -> None:
        """Take an event: called by Twisted with each of them."""
        self._busy = True
        if _left_out and is_left_out(event):
            self._rest()
        else:
            self._add(self._lines_of(event))

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
