"""Compare the simulation with what was measured, or show what nobody has measured; see --help."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace

from bench.simulation.daemon import POST_AWAKE, Site
from bench.simulation.machine import MS
from bench.simulation.table import COMMIT
from bench.simulation.world import Result, death, drain, punctual

#: What is tolerated: of rates and CPU, and of what depends on moments: lateness, sizes of batches,
#: and how two daemons share with others.
RATES, DETAILS = 0.15, 0.35


@dataclass(frozen=True)
class Check:
    """A figure that was measured, and what the simulation gives."""

    what: str
    measured: float
    simulated: float
    #: By how much of what was measured the simulation may be off; None if it is only shown.
    tolerance: float | None

    @property
    def error(self) -> float:
        return self.simulated / self.measured - 1

    @property
    def held(self) -> bool:
        return self.tolerance is None or abs(self.error) <= self.tolerance

    def __str__(self) -> str:
        tolerance = "" if self.tolerance is None else f"{self.tolerance:.0%}"
        verdict = "" if self.tolerance is None else "held" if self.held else "NOT HELD"
        cells = (
            self.what,
            f"{self.measured:,.4g}",
            f"{self.simulated:,.4g}",
            f"{self.error:+.0%}",
            tolerance,
            verdict,
        )
        return f"| {' | '.join(cells)} |"


def checks(scale: float = 1.0) -> list[Check]:
    """
    The simulation of what was measured: with nothing else on the machine, and among other work, for
    which one process stands that never rests. docs/scaling.md has both.

    :param scale: by how much each is shortened.
    """
    jobs, seconds = int(10_000 * scale), max(3, int(10 * scale))
    quiet = Site(shared_cores=2)
    one, two = drain(quiet, jobs), drain(replace(quiet, daemons=2), 2 * jobs)
    burst, spread = punctual(quiet, seconds, spread=False), punctual(quiet, seconds)
    among = Site(shared_cores=2, others=1, post=POST_AWAKE)
    one_among, two_among = drain(among, jobs), drain(replace(among, daemons=2), 2 * jobs)
    burst_among = punctual(among, seconds, spread=False)
    spread_among = punctual(among, seconds)
    of_one = two_among.rate_together / one_among.rate
    return [
        Check("quiet: drain, jobs/s", 3_254, one.rate, RATES),
        Check("quiet: two daemons, jobs/s", 5_157, two.rate_together, RATES),
        Check("quiet: two daemons, of one", 1.58, two.rate_together / one.rate, RATES),
        Check("quiet: drain, database ms per job", 0.0615, one.database_ms, RATES),
        Check("quiet: two daemons, database ms per job", 0.0677, two.database_ms, RATES),
        Check("quiet: drain, transactions per job", 0.0275, one.per_job("transactions"), DETAILS),
        Check("quiet: burst, p50 ms", 56, burst.late(50), DETAILS),
        Check("quiet: burst, p99 ms", 128, burst.late(99), DETAILS),
        Check("quiet: spread, p50 ms", 2.5, spread.late(50), DETAILS),
        Check("quiet: spread, transactions per job", 1.36, spread.per_job("transactions"), RATES),
        Check("quiet: spread, daemon ms per job", 1.62, spread.daemon_ms, None),
        Check("among other work: drain, jobs/s", 3_537, one_among.rate, RATES),
        Check("among other work: drain, daemon ms per job", 0.246, one_among.daemon_ms, RATES),
        Check("among other work: drain, database ms per job", 0.060, one_among.database_ms, RATES),
        Check("among other work: two daemons, of one", 1.09, of_one, DETAILS),
        Check("among other work: burst, p50 ms", 63, burst_among.late(50), DETAILS),
        Check("among other work: burst, p99 ms", 177, burst_among.late(99), None),
        Check("among other work: spread, p50 ms", 2.0, spread_among.late(50), DETAILS),
        Check("among other work: spread, p99 ms", 16, spread_among.late(99), None),
    ]


# What nobody has measured

DAEMONS = (1, 2, 4, 8, 16, 32)


def show_check() -> bool:
    print("| figure | measured | simulated | error | tolerance | |\n|---|---|---|---|---|---|")
    found = checks()
    for check in found:
        print(check)
    return all(check.held for check in found)


def show(site: Site, result: Result) -> None:
    cells = (
        f"{site.daemons}",
        f"{result.rate:,.0f}",
        f"{result.late(50):,.0f}",
        f"{result.late(99):,.0f}",
        f"{result.daemon_ms:.2f}",
        f"{result.database_ms:.3f}",
        f"{result.database_ms * result.rate / 1000:.1f}",
        f"{result.per_job('flushes'):.3f}",
        f"{result.per_job('transactions'):.3f}",
        f"{result.per_job('empty claims'):.3f}",
        f"{result.per_job('times scanned'):.1f}",
        f"{result.shares[0] / max(1, result.shares[-1]):.2f}",
    )
    print(f"| {' | '.join(cells)} |", flush=True)


HEADER = """\
| daemons | jobs/s | p50 ms | p99 ms | daemon ms/job | database ms/job | its cores | \
flushes/job | transactions/job | empty claims/job | times scanned/job | least/most busy |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulation", description="Simulate many daemons on one database."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    for name, text in (
        ("check", "against what was measured"),
        ("drain", "a backlog"),
        ("steady", "jobs that are spread over each second"),
        ("death", "a daemon dies during a drain"),
    ):
        what.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument("--daemons", type=int, nargs="+", default=DAEMONS)
    parser.add_argument("--rate", type=int, default=1500, help="jobs a second, of each daemon")
    parser.add_argument("--total", type=int, default=0, help="the same of all together")
    parser.add_argument("--cores", type=float, default=16, help="of the database")
    parser.add_argument("--trip", type=float, default=0.2, help="to the database and back, in ms")
    parser.add_argument("--commit", type=float, default=COMMIT / MS, help="a flush, in ms")
    parser.add_argument("--locks-wait", action="store_true", help="an engine without SKIP LOCKED")
    return parser.parse_args()


def main() -> int:
    options = parse()
    if options.check:
        return 0 if show_check() else 1
    print(HEADER)
    for count in options.daemons:
        site = Site(
            daemons=count,
            database_cores=options.cores,
            trip=options.trip * MS,
            commit=options.commit * MS,
            skip_locked=not options.locks_wait,
        )
        if options.drain:
            show(site, drain(site, 4_000 * count))
        elif options.steady:
            show(site, punctual(site, 3, options.total or options.rate * count))
        elif count > 1:
            result = death(replace(site, answers_after=20 * MS), 4_000 * count, after=1.0)
            show(site, result)
            again = result.delays
            print(
                f"{len(again)} POSTs were made again, {max(again, default=0.0):.1f} s later; "
                f"{result.left} jobs are left, {result.overlaps} POSTs overlapped"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
