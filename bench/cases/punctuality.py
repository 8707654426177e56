"""Cases of how late jobs arrive."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import quantiles

from bench.daemon import Bench, Figures, new_table, running_dalga
from bench.databases import COMMITS, DELETES
from bench.machine import wait_until
from bench.references import bare
from bench.sink import check


def punctual_spread(bench: Bench) -> Figures:
    """300 jobs a second, spread over each second."""
    return _punctual(bench, lambda number: number / 300)


def punctual_many(bench: Bench) -> Figures:
    """300 jobs a second, spread over each second, and eight daemons on one table."""
    return _punctual(bench, lambda number: number / 300, daemons=8)


def punctual_burst(bench: Bench) -> Figures:
    """300 jobs that are due at the same instant, each second."""
    return _punctual(bench, lambda number: number // 300)


def punctual_burst_many(bench: Bench) -> Figures:
    """300 jobs that are due at the same instant, each second, and eight daemons on one table."""
    return _punctual(bench, lambda number: number // 300, daemons=8)


def punctual_burst_3000(bench: Bench) -> Figures:
    """3,000 jobs that are due at the same instant, every five seconds."""
    return _punctual(bench, lambda number: number // 3000 * 5, 600)


def _punctual(
    bench: Bench, after: Callable[[int], float], per_second: int = 300, daemons: int = 1
) -> Figures:
    """
    :param after: when a job is due, in seconds after the first job, by its number.
    :param per_second: how many jobs are due in each second, on average.
    """
    new_table(bench)
    count = int(per_second * bench.seconds(60))
    # Daemons learn of each other by their second heartbeats, 10 s after they have started.
    began = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=13 + 2 * daemons)
    dues = {f"job{n}": began + timedelta(seconds=after(n)) for n in range(count)}
    bench.database.insert(dues.items())
    with contextlib.ExitStack() as running:
        processes = [
            running.enter_context(running_dalga(bench, f"{number}")) for number in range(daemons)
        ]
        if datetime.now(UTC) > began - timedelta(seconds=1):
            raise SystemExit("the jobs were due before the daemons were there")
        time.sleep(max(0.0, began.timestamp() - time.time() - 0.5))
        counted = (COMMITS, DELETES)
        cpu, database_cpu = sum(daemon.cpu() for daemon in processes), bench.database.cpu()
        commits, deletes = (bench.database.counter(name) for name in counted)
        wait_until(lambda: bench.sink.count() >= count, "all jobs to arrive", 0.5)
        wait_until(lambda: bench.database.count() == 0, "all to be recorded")
        cpu = sum(daemon.cpu() for daemon in processes) - cpu
        database_cpu = bench.database.cpu() - database_cpu
        commits = bench.database.counter(COMMITS) - commits
        deletes = bench.database.counter(DELETES) - deletes
    arrivals = bench.sink.arrivals()
    check(arrivals, count)
    late = [(arrival.at - dues[arrival.path].timestamp()) * 1000 for arrival in arrivals]
    # nginx cuts off what is less than a millisecond.
    if min(late) < -2:
        raise SystemExit(f"a job arrived {-min(late):g} ms before its time")
    # Each record deletes rows. Each daemon makes a scan a second.
    scans = daemons * (after(count - 1) + 0.5)
    return {
        **percentiles(late),
        "daemon_cpu_ms_per_job": cpu / count * 1000,
        "database_cpu_ms_per_job": database_cpu / count * 1000,
        "transactions_per_job": commits / count,
        "claims_per_job": (commits - deletes - scans) / count,
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
