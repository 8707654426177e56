"""
The signals that end the daemon.

    SIGTERM, SIGINT     stop in order, with status 0
    SIGHUP              the service decides
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


def take_signals(
    reactor: Any,
    hang_up: Callable[[Callable[[], None]], None],
    leave: Callable[[Callable[[], NoReturn]], None],
    begin: Callable[[], object] | None = None,
) -> None:
    """
    Take the signals from now on.

    twistd's own handlers, and Python's, would have the process killed by the same signal once more
    after the stop. A second signal leaves the running runs to their leases.

    :param hang_up: called with each SIGHUP; is given a function that stops as SIGTERM does.
    :param leave: has the last log lines written, and then calls the function that it is given.
    :param begin: begins the stop, in the reactor's thread; `reactor.stop` if not given.
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
