"""
Runs whose endpoint is not in the configuration of this instance.

Another instance may have the endpoint, and the configuration may get it back. So such a run is
given back, and is due again after a pause. No attempt is counted, and no failure is recorded. An
example, of a run that was due at 9:00:00::

    claimed at   9:00:00   9:00:01   9:00:02   9:00:04 ...   9:00:32   9:01:02
    due again    9:00:01   9:00:02   9:00:04   9:00:08 ...   9:01:02   9:01:32

The pause is as long as the run is late, at least `SHORTEST` and at most `LONGEST`. So the run
begins soon where another instance has the endpoint, and costs little where none has.

What always holds: the row leaves the range of due rows with each claim, so it holds up no other job
(P6). It is never set aside.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from datetime import timedelta

from twisted.internet.interfaces import IReactorTime

from dalga.dispatch.loglines import log_elsewhere
from dalga.model.run import End, GiveBack, Run

#: The shortest and the longest pause before such a run is due again.
SHORTEST = timedelta(seconds=1)
LONGEST = timedelta(seconds=30)

#: There is one line in the log for each endpoint in this time, in seconds.
QUIET = 600.0

#: Names of endpoints whose line is remembered, at most (P10).
NAMES = 100


class Elsewhere:
    """
    See the module's text.

    :param endpoints: the names of the endpoints that this instance has.
    :param found: is called for each such run: the other instances are to be quicker.
    """

    def __init__(
        self, reactor: IReactorTime, endpoints: Container[str], found: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._endpoints = endpoints
        self._found = found
        #: When the line on each endpoint was logged, in the reactor's seconds.
        self._told: dict[str, float] = {}

    def reconfigure(self, endpoints: Container[str]) -> None:
        """This instance has these endpoints from now on."""
        self._endpoints = endpoints
        self._told.clear()

    def has(self, run: Run) -> bool:
        """Whether a run's endpoint is not in the configuration of this instance."""
        return run.options.endpoint not in self._endpoints

    def end(self, run: Run) -> End:
        """The end of such a run. The log says so, once in a while."""
        self._found()
        endpoint, now = run.options.endpoint, self._reactor.seconds()
        if now - self._told.get(endpoint, -QUIET) >= QUIET:
            if len(self._told) >= NAMES:
                self._told.clear()
            self._told[endpoint] = now
            log_elsewhere(run)
        pause = min(max(run.claimed - run.scheduled, SHORTEST), LONGEST)
        return End(run, None, GiveBack(run.claimed + pause))
