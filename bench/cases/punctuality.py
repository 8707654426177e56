"""Cases of how late jobs arrive."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import quantiles

from bench.daemon import Bench, Figures, new_table, running_dalga
from bench.databases import COMMITS
from bench.machine import wait_until
from bench.references import bare
from bench.sink import check


def punctual_spread(bench: Bench) -> Figures:
    """300 jobs a second, spread over each second."""
    return _punctual(bench, lambda number: number / 300)


def punctual_burst(bench: Bench) -> Figures:
    """300 jobs that are due at the same instant, each second."""
    return _punctual(bench, lambda number: number // 300)


def _punctual(bench: Bench, after: Callable[[int], float]) -> Figures:
    new_table(bench)
    count = int(300 * bench.seconds(60))
    began = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=15)
    dues = {f"job{n}": began + timedelta(seconds=after(n)) for n in range(count)}
    bench.database.insert(dues.items())
    with running_dalga(bench) as daemon:
        if datetime.now(UTC) > began - timedelta(seconds=1):
            raise SystemExit("the jobs were due before the daemon was there")
        time.sleep(max(0.0, began.timestamp() - time.time() - 0.5))
        cpu, database_cpu = daemon.cpu(), bench.database.cpu()
        commits = bench.database.counter(COMMITS)
        wait_until(lambda: bench.sink.count() >= count, "all jobs to arrive", 0.5)
        wait_until(lambda: bench.database.count() == 0, "all to be recorded")
        cpu, database_cpu = daemon.cpu() - cpu, bench.database.cpu() - database_cpu
        commits = bench.database.counter(COMMITS) - commits
    arrivals = bench.sink.arrivals()
    check(arrivals, count)
    late = [(arrival.at - dues[arrival.path].timestamp()) * 1000 for arrival in arrivals]
    # nginx cuts off what is less than a millisecond.
    if min(late) < -2:
        raise SystemExit(f"a job arrived {-min(late):g} ms before its time")
    return {
        **percentiles(late),
        "daemon_cpu_ms_per_job": cpu / count * 1000,
        "database_cpu_ms_per_job": database_cpu / count * 1000,
        "transactions_per_job": commits / count,
    }


def percentiles(milliseconds: list[float]) -> Figures:
    cuts = quantiles(milliseconds, n=100)
    return {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(milliseconds)}


def immediate(bench: Bench) -> Figures:
    """
    From the 201 of a PUT with immediate until the POST, while other jobs are due at half the rate
    of a bare treq loop.
    """
    new_table(bench)
    seconds = bench.seconds(20)
    half = bare(bench) / 2
    bench.sink.forget()
    began = datetime.now(UTC) + timedelta(seconds=8)
    count = int(half * seconds)
    bench.database.insert((f"job{n}", began + timedelta(seconds=n / half)) for n in range(count))
    answered: dict[str, float] = {}
    with running_dalga(bench) as daemon:
        time.sleep(max(0.0, began.timestamp() - time.time()) + 1)
        for number in range(int(seconds - 2) * 20):
            target = f"/jobs/now{number}/bench?one-off=true&immediate=true"
            if daemon.ask("PUT", target) != 201:
                raise SystemExit("a PUT was not answered by 201")
            answered[f"now{number}"] = time.time()
            time.sleep(0.05)
        wait_until(lambda: bench.database.count() == 0, "all to be recorded")
    arrivals = bench.sink.arrivals()
    check(arrivals, count + len(answered))
    waits = [
        (arrival.at - answered[arrival.path]) * 1000
        for arrival in arrivals
        if arrival.path in answered
    ]
    return {**percentiles(waits), "background_per_second": half}
