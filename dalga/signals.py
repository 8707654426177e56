"""
The signals that end the daemon.

    SIGTERM, SIGINT     stop in order, with status 0
    SIGHUP              the service decides; one that comes during the start is kept for it
    a second one        ends the process at once, with status 128 and the signal's number
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from dalga.log import say_past_the_log
from dalga.store.clock import steady_seconds

#: Signals within this time (seconds) are one request: timeout(1) and shells send a signal to the
#: process and to its group.
AT_ONCE = 0.5

#: Time limit (seconds) for the last log lines after a second signal: nobody may be reading them.
LAST_LINES = 1.0


def has_terminal() -> bool:
    """
    Whether this process has a controlling terminal. A terminal that was closed is none, and a
    daemon that has detached has none.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


class EarlyHangUps:
    """
    Takes the hang-ups that come before `take_signals`, while the daemon starts: it may have read
    the configuration already. A terminal that is closed ends the process meanwhile, as it would any
    other.
    """

    def __init__(self) -> None:
        #: How many there were.
        self.count = 0
        self._process = os.getpid()
        self._in_terminal = has_terminal()
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            signal.signal(signal.SIGHUP, lambda *_: self._note())

    def _note(self) -> None:
        # A daemon that has detached is another process, and has no terminal to lose.
        is_ours = self._in_terminal and os.getpid() == self._process
        if is_ours and not has_terminal():
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.kill(self._process, signal.SIGHUP)
        else:
            self.count += 1


def take_signals(
    reactor: Any,
    hang_up: Callable[[Callable[[], None]], None],
    leave: Callable[[Callable[[], NoReturn]], None],
    begin: Callable[[], object] | None = None,
    early: EarlyHangUps | None = None,
) -> None:
    """
    Take the signals from now on.

    twistd's own handlers, and Python's, would have the process killed by the same signal once more
    after the stop. A second signal leaves the running runs to their leases.

    :param hang_up: called with each SIGHUP; is given a function that stops as SIGTERM does.
    :param leave: has the last log lines written, and then calls the function that it is given.
    :param begin: begins the stop, in the reactor's thread; `reactor.stop` if not given.
    :param early: if a hang-up has come before, `hang_up` is called for it.
    """
    first: list[float] = []

    def stop(number: int) -> None:
        now = steady_seconds()
        if not first:
            first.append(now)
            reactor.callFromThread(begin or reactor.stop)
        elif now - first[0] > AT_ONCE:
            end = partial(os._exit, 128 + number)
            signal.signal(signal.SIGALRM, lambda *_: end())
            signal.setitimer(signal.ITIMER_REAL, LAST_LINES)
            say_past_the_log("asked to stop again: not waiting any longer")
            leave(end)

    signal.signal(signal.SIGTERM, lambda number, _: stop(number))
    signal.signal(signal.SIGINT, lambda number, _: stop(number))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup(1) wants it
        signal.signal(signal.SIGHUP, lambda number, _: hang_up(partial(stop, number)))
        if early is not None and early.count:
            hang_up(partial(stop, signal.SIGHUP))
