"""Where the POSTs of all daemons arrive."""

from __future__ import annotations

from dataclasses import dataclass

from bench.simulation.machine import MS, Cores, Interpreter, Then, Time, at
from dalga.model.run import Run

#: CPU of the nginx for a POST. Measured: 0.012 ms in drains.
ANSWER = 0.012 * MS


@dataclass(frozen=True)
class Arrival:
    """A POST that has come."""

    at: float
    row: int
    daemon: int
    #: How long after its job was due, in seconds.
    late: float


class Endpoint:
    """
    Where POSTs arrive, of all daemons.

    :param answers_after: seconds that it takes for each.
    """

    def __init__(self, time: Time, cores: Cores, answers_after: float) -> None:
        self._time, self._nginx, self._answers_after = time, Interpreter(time, cores), answers_after
        self.arrivals: list[Arrival] = []
        self._in_flight: set[int] = set()
        #: POSTs that came while another of the same job was under way (P3).
        self.overlaps = 0

    def post(self, run: Run, daemon: int, answered: Then) -> None:
        def arrived() -> None:
            late = (at(self._time.now) - run.scheduled).total_seconds()
            self.arrivals.append(Arrival(self._time.now, run.row, daemon, late))
            self.overlaps += run.row in self._in_flight
            self._in_flight.add(run.row)
            self._time.after(self._answers_after, done)

        def done() -> None:
            self._in_flight.discard(run.row)
            answered()

        self._nginx.turn(ANSWER, arrived)
