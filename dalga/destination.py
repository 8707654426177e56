"""
Where the lines of the log go: the standard output, or a file that is rotated as twistd rotates its.

    standard_output    of the dalga command
    of_twistd          where twistd would write them, by twistd's own options
    to_function        where a function writes them, such as to another process
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from typing import Any

from twisted.python.logfile import LogFile
from twisted.python.threadable import isInIOThread

from dalga.errors import StartupError
from dalga.log import LineObserver


def standard_output(reactor: Any) -> LineObserver:
    """An observer that writes lines to the standard output, as it is now."""
    output = sys.stdout
    if isinstance(output, TextIOWrapper):
        # A line with a letter that the output's encoding lacks is not to be lost.
        output.reconfigure(errors="backslashreplace")

    def write(text: str) -> None:
        output.write(text)
        output.flush()

    return _observer(write, reactor)


def of_twistd(options: Mapping[str, Any], reactor: Any) -> LineObserver | None:
    """
    An observer that writes lines where twistd would. None where twistd itself is to choose: by
    `--logger` or `--syslog`, or as it refuses to write to the standard output of a daemon.

    :param options: twistd's own. Another program's, or none, give None.
    :raises StartupError: if the file can't be opened.
    """
    if "nodaemon" not in options or options["logger"] or options["syslog"]:
        return None
    path = options["logfile"]
    if options["nodaemon"] and path in (None, "", "-"):
        return standard_output(reactor)
    return None if path == "-" else _file(path or "twistd.log", reactor)


def to_function(write: Callable[[str], object], tag: str, reactor: Any) -> LineObserver:
    """
    An observer that gives its lines to a function.

    :param write: called with whole lines.
    :param tag: see `LineObserver`.
    """
    return _observer(write, reactor, tag)


def _file(path: str, reactor: Any) -> LineObserver:
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
    return _observer(lambda text: file.write(text.encode(errors="backslashreplace")), reactor)


def _observer(write: Callable[[str], object], reactor: Any, tag: str = "") -> LineObserver:
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

    observer = LineObserver(write, soon, tag)
    # The last turn's lines: twistd may end itself by a signal.
    reactor.addSystemEventTrigger("after", "shutdown", observer.flush)
    return observer
