"""Cases of a daemon that has a million jobs in its table, and nothing to do."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from bench.daemon import Bench, Figures, new_table, running_dalga
from bench.databases import DAY, MILLION, QUERIES
from bench.machine import wait_until


def start_million(bench: Bench) -> Figures:
    """From the start of the process until the first POST, with a million jobs in the table."""
    new_table(bench)
    now = datetime.now(UTC)
    bench.database.insert_many("waiting", bench.jobs(MILLION), DAY, now + timedelta(days=1))
    bench.database.insert([("due", now)])
    with running_dalga(bench) as daemon:
        wait_until(lambda: bench.sink.count() == 1, "the job to arrive")
        peak = daemon.peak_memory()
    (arrival,) = bench.sink.arrivals()
    return {"first_post_seconds": arrival.at - daemon.started, "peak_memory_mb": peak}


def idle_million(bench: Bench) -> Figures:
    """A daemon with nothing to do, and a million jobs in the table."""
    new_table(bench)
    due = datetime.now(UTC) + timedelta(days=1)
    bench.database.insert_many("waiting", bench.jobs(MILLION), DAY, due)
    with running_dalga(bench) as daemon:
        time.sleep(3)  # let the start be over
        began, cpu, queries = time.monotonic(), daemon.cpu(), bench.database.counter(QUERIES)
        time.sleep(bench.seconds(30))
        asked = bench.database.counter(QUERIES) - queries - 1  # our own
        elapsed = time.monotonic() - began
        figures = {
            "cpu_percent": (daemon.cpu() - cpu) / elapsed * 100,
            "queries_per_second": asked / elapsed,
            "peak_memory_mb": daemon.peak_memory(),
        }
    if arrivals := bench.sink.arrivals():
        raise SystemExit(f"{len(arrivals)} jobs were POSTed, of which none was due")
    return figures
