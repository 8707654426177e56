"""
Where the lines of the log go: the standard output, or a file that is rotated as twistd rotates its.

    standard_output    of the dalga command
    of_twistd          where twistd would write them, by twistd's own options
    text_to_syslog     the same for syslog, by an observer of twistd's
    to_function        where a function writes them, such as to another process

twistd's own observer of syslog takes text alone. Where the lines are JSON, an observer of ours
gives them to syslog.
"""

from __future__ import annotations

import re
import signal
import sys
import syslog
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from typing import Any, cast

from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    PredicateResult,
)
from twisted.python.logfile import LogFile
from twisted.python.syslog import SyslogObserver
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

from dalga.errors import StartupError
from dalga.lines import JsonLines
from dalga.log import Form, LineObserver, is_left_out, leaves_out

#: syslog's priority of a line, by its level.
_PRIORITIES = {
    "debug": syslog.LOG_DEBUG,
    "info": syslog.LOG_INFO,
    "warn": syslog.LOG_WARNING,
    "error": syslog.LOG_ERR,
    "critical": syslog.LOG_CRIT,
}
#: The level of a line of `JsonLines`, which begins with its time.
_LEVEL = re.compile(r'\{"time": "[^"]*", "level": "(\w+)"')


def standard_output(reactor: Any, form: Form) -> LineObserver:
    """An observer that writes lines to the standard output, as it is now."""
    output = sys.stdout
    if isinstance(output, TextIOWrapper):
        # A line with a letter that the output's encoding lacks is not to be lost.
        output.reconfigure(errors="backslashreplace")

    def write(text: str) -> None:
        output.write(text)
        output.flush()

    return _observer(write, reactor, form)


def of_twistd(options: Mapping[str, Any], reactor: Any, form: Form) -> LineObserver | None:
    """
    An observer that writes lines where twistd would. None where twistd itself is to choose: by
    `--logger`, by `--syslog` for text, or as it refuses to write to the standard output of a
    daemon.

    :param options: twistd's own. Another program's, or none, give None.
    :raises StartupError: if the file can't be opened.
    """
    if "nodaemon" not in options or options["logger"]:
        return None
    if options["syslog"]:
        return _syslog(options["prefix"], reactor, form) if isinstance(form, JsonLines) else None
    path = options["logfile"]
    if options["nodaemon"] and path in (None, "", "-"):
        return standard_output(reactor, form)
    return None if path == "-" else _file(path or "twistd.log", reactor, form)


def text_to_syslog(options: Mapping[str, Any]) -> ILogObserver | None:
    """
    twistd's observer for `--syslog`, without what is left out (`dalga.log.log_from`). None where
    twistd's own does as well.

    :param options: twistd's own.
    """
    if not options.get("syslog") or not leaves_out():
        return None
    observer = LegacyLogObserverWrapper(cast(Any, SyslogObserver(options["prefix"]).emit))

    @implementer(ILogFilterPredicate)
    def choose(event: LogEvent) -> Any:
        return PredicateResult.no if is_left_out(event) else PredicateResult.maybe

    return FilteringLogObserver(observer, [choose])


def to_function(write: Callable[[str], object], reactor: Any, form: Form) -> LineObserver:
    """
    An observer that gives its lines to a function.

    :param write: called with whole lines.
    """
    return _observer(write, reactor, form)


def _syslog(prefix: str, reactor: Any, form: Form) -> LineObserver:
    """An observer that gives syslog a message for each line, with the priority of its level."""
    syslog.openlog(prefix, 0, syslog.LOG_USER)

    def write(text: str) -> None:
        for line in text.splitlines():
            level = _LEVEL.match(line)
            syslog.syslog(_PRIORITIES[level[1]] if level else syslog.LOG_INFO, line)

    return _observer(write, reactor, form)


def _file(path: str, reactor: Any, form: Form) -> LineObserver:
    """An observer that writes lines to a file. It is rotated by its size, and at each SIGUSR1."""
    try:
        file = LogFile.fromFullPath(path)
    except OSError as error:
        raise StartupError(
            f"log file {path!r} can't be opened ({error.strerror}): name another one with "
            "twistd's --logfile, or let this user write to it and to its folder"
        ) from error
    # As twistd does: a handler that is there stays.
    if signal.getsignal(signal.SIGUSR1) in (None, signal.SIG_DFL):
        signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(file.rotate))
    return _observer(lambda text: file.write(text.encode(errors="backslashreplace")), reactor, form)


def _observer(write: Callable[[str], object], reactor: Any, form: Form) -> LineObserver:
    """
    An observer that writes the lines of each turn of the reactor together. Before the reactor runs,
    and after it, each line is written at once, as the process may end without a turn.
    """

    def soon(flush: Callable[[], None]) -> None:
        if not reactor.running:
            flush()
        elif isInIOThread():
            reactor.callLater(0, flush)
        else:
            reactor.callFromThread(flush)

    observer = LineObserver(write, soon, form)
    # The last turn's lines: twistd may end itself by a signal.
    reactor.addSystemEventTrigger("after", "shutdown", observer.flush)
    return observer
