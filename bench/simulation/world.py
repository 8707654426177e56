"""Daemons on their machines, over one table, and what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from statistics import quantiles

from bench.simulation.daemon import Daemon, Site
from bench.simulation.endpoint import Arrival, Endpoint
from bench.simulation.machine import Cores, Time, at
from bench.simulation.table import Database

#: Within how many seconds all daemons are started.
STARTING = 0.5


class World:
    """A site with its table, and what happens there."""

    def __init__(self, site: Site, dues: Iterable[float]) -> None:
        self.site = site
        self.time = Time()
        unlimited = Cores(self.time, 1_000_000)
        shared = Cores(self.time, site.shared_cores, site.others) if site.shared_cores else None
        there = shared or Cores(self.time, site.database_cores)
        self.database = Database(self.time, there, site.commit, site.skip_locked)
        self.endpoint = Endpoint(self.time, shared or unlimited, site.answers_after)
        self.jobs = [self.database.insert(at(due)).id for due in dues]
        self.daemons = [
            Daemon(self.time, shared or unlimited, self.database, self.endpoint, site, number)
            for number in range(site.daemons)
        ]
        random = Random(site.seed)
        for daemon in self.daemons:  # they scan at moments of their own
            self.time.after(random.uniform(0.0, STARTING), daemon.start)

    @property
    def over(self) -> bool:
        """Whether all jobs have been recorded."""
        return not self.database.rows

    def run(self, limit: float = 600.0) -> Result:
        """Until all jobs are recorded, for `limit` simulated seconds at most."""
        self.time.run(lambda: self.over, limit)
        return self.result()

    def result(self) -> Result:
        return Result(
            jobs=len(self.jobs),
            left=len(self.database.rows),
            arrivals=list(self.endpoint.arrivals),
            overlaps=self.endpoint.overlaps,
            counts=dict(self.database.counts),
            daemon_cpu=sum(daemon.interpreter.used for daemon in self.daemons),
            database_cpu=self.database.used,
            ended=self.time.now,
        )


@dataclass(frozen=True)
class Result:
    """What came of it."""

    jobs: int
    left: int
    arrivals: list[Arrival]
    overlaps: int
    counts: dict[str, int]
    daemon_cpu: float
    database_cpu: float
    ended: float

    @property
    def rate(self) -> float:
        """Arrivals a second, from the first to the last."""
        return _rate(self.arrivals)

    @property
    def rate_together(self) -> float:
        """The same while all daemons work, as `two_daemons` in cases.py counts it."""
        return _rate(self.arrivals[len(self.arrivals) // 4 : -len(self.arrivals) // 8])

    def late(self, percent: int) -> float:
        """How late that many of a hundred arrivals are at most, in ms."""
        late = [arrival.late * 1000 for arrival in self.arrivals]
        return max(late) if percent == 100 else quantiles(late, n=100)[percent - 1]

    @property
    def daemon_ms(self) -> float:
        """CPU of all daemons per job, in ms."""
        return self.daemon_cpu / self.jobs * 1000

    @property
    def database_ms(self) -> float:
        return self.database_cpu / self.jobs * 1000

    def per_job(self, count: str) -> float:
        return self.counts.get(count, 0) / self.jobs

    @property
    def shares(self) -> list[int]:
        """How many POSTs each daemon made."""
        return sorted(Counter(arrival.daemon for arrival in self.arrivals).values())

    @property
    def delays(self) -> list[float]:
        """How long after its first POST a job was POSTed again, in seconds."""
        first: dict[int, float] = {}
        return [
            arrival.at - before
            for arrival in self.arrivals
            if (before := first.setdefault(arrival.row, arrival.at)) < arrival.at
        ]


def _rate(arrivals: list[Arrival]) -> float:
    return (len(arrivals) - 1) / (arrivals[-1].at - arrivals[0].at)


def drain(site: Site, jobs: int) -> Result:
    """A backlog."""
    return World(site, [0.0] * jobs).run()


def punctual(site: Site, seconds: int, per_second: int = 300, spread: bool = True) -> Result:
    """Jobs that are spread over each second, or all due at its beginning."""
    apart = 1 / per_second if spread else 0.0
    return World(site, (2 + s + n * apart for s in range(seconds) for n in range(per_second))).run()


def death(site: Site, jobs: int, after: float) -> Result:
    """A backlog, of whose daemons the first dies so many seconds after the beginning."""
    world = World(site, [0.0] * jobs)
    world.time.expect(after, world.daemons[0].die)
    return world.run()
