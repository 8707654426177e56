"""Cases of many jobs that are all due when the daemon starts."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event

from bench.daemon import Bench, Daemon, Figures, new_table, running_dalga, write_ini
from bench.databases import COMMITS, DAY, LOCK_WAITS, MILLION, ROLLBACKS, text
from bench.machine import NotHere, wait_until
from bench.references import bare, lean
from bench.sink import check, rate

#: Jobs that a drain is made of.
BACKLOG = 20_000


def drain(bench: Bench) -> Figures:
    """One-off jobs that are all due, without records of the runs."""
    return _beside_references(bench, drained(_without_history(bench), bench.jobs(BACKLOG)))


def _without_history(bench: Bench) -> Bench:
    """As is, where the code is too old to have any."""
    has_history = bench.program.has_section("history")
    return bench.with_section("history", mode="off") if has_history else bench


def drain_history(bench: Bench) -> Figures:
    """The same with and without a record of each run."""
    count = bench.jobs(BACKLOG)
    recording = bench.with_section("history", mode="all")
    without = drained(_without_history(bench), count)
    figures = drained(recording, count)
    if (records := bench.database.count("result = 0", "dalga_runs")) != count:
        raise SystemExit(f"{count} runs have {records} records")
    more = {
        name.replace("_per_job", "_more_per_job"): figures[name] - without[name]
        for name in ("daemon_cpu_ms_per_job", "database_cpu_ms_per_job")
    }
    ratio = figures["jobs_per_second"] / without["jobs_per_second"]
    return {**figures, "ratio_to_drain": ratio, **more}


def drain_periodic(bench: Bench) -> Figures:
    """Periodic jobs that are all due: rescheduled, not deleted."""
    return _beside_references(bench, drained(bench, bench.jobs(BACKLOG), schedule=DAY))


def drain_among_million(bench: Bench) -> Figures:
    """The same with and without a million jobs in the table that are not due."""
    count = bench.jobs(BACKLOG)
    without = drained(bench, count)
    among = drained(bench, count, waiting=bench.jobs(MILLION))
    return {**among, "ratio_to_drain": among["jobs_per_second"] / without["jobs_per_second"]}


def drained(
    bench: Bench,
    count: int,
    schedule: str = "",
    waiting: int = 0,
    limit: float | None = None,
    options: tuple[str, ...] = (),
    scraped: bool = False,
) -> Figures:
    """
    Drain so many jobs.

    :param schedule: of each; without one they are one-off.
    :param waiting: jobs in the table that are not due.
    :param limit: seconds after which the drain is broken off and what has arrived is counted.
    :param options: the daemon's.
    :param scraped: whether the daemon is asked for its metrics each second.
    """
    new_table(bench)
    now = datetime.now(UTC)
    if waiting:
        bench.database.insert_many("waiting", waiting, DAY, now + timedelta(days=1))
    bench.database.insert_many("job", count, schedule, now - timedelta(minutes=1))
    with running_dalga(bench, "one", *options) as daemon:
        began = time.monotonic()
        cpu, database_cpu = daemon.cpu(), bench.database.cpu()
        commits = bench.database.counter(COMMITS)

        def over() -> bool:
            return bench.sink.count() >= count or (
                limit is not None and time.monotonic() - began > limit
            )

        with _scraped(daemon) if scraped else contextlib.nullcontext():
            wait_until(over, "all jobs to arrive")
            done = bench.sink.count()
            if done >= count:
                unrecorded = f"due <= '{text(now)}' OR token IS NOT NULL"
                wait_until(lambda: bench.database.count(unrecorded) == 0, "all to be recorded")
        cpu, database_cpu = daemon.cpu() - cpu, bench.database.cpu() - database_cpu
        commits = bench.database.counter(COMMITS) - commits
        peak = daemon.peak_memory()
    arrivals = bench.sink.arrivals()
    check(arrivals, count if done >= count else len({arrival.path for arrival in arrivals}))
    rows = bench.database.count("path LIKE 'job%'")
    if done >= count and rows != (count if schedule else 0):
        raise SystemExit(f"{rows} jobs are left in the table")
    return {
        "jobs_per_second": rate(arrivals),
        "daemon_cpu_ms_per_job": cpu / len(arrivals) * 1000,
        "database_cpu_ms_per_job": database_cpu / len(arrivals) * 1000,
        "transactions_per_job": commits / len(arrivals),
        "peak_memory_mb": peak,
    }


def _beside_references(bench: Bench, figures: Figures) -> Figures:
    """A drain's figures, and what they are of the two references, measured right behind it."""
    treq, least = bare(bench), lean(bench)
    return {
        **figures,
        "bare_treq_per_second": treq,
        "lean_per_second": least,
        "ratio": figures["jobs_per_second"] / treq,
        "of_lean": figures["jobs_per_second"] / least,
    }


def drain_scraped(bench: Bench) -> Figures:
    """
    A longer drain with all that tells of runs, as a monitor asks for the metrics each second,
    against one without a monitor.
    """
    count = bench.jobs(5 * BACKLOG)
    bench = bench.with_section("alerts", url=f"{bench.sink.url}alerts")
    without = drained(bench, count)
    figures = drained(bench, count, scraped=True)
    more = figures["daemon_cpu_ms_per_job"] - without["daemon_cpu_ms_per_job"]
    ratio = figures["jobs_per_second"] / without["jobs_per_second"]
    return {**figures, "ratio_to_drain": ratio, "daemon_cpu_ms_more_per_job": more}


@contextlib.contextmanager
def _scraped(daemon: Daemon, pause: float = 1.0) -> Iterator[None]:
    """Ask for a daemon's metrics, at once and then every `pause` seconds."""
    over = Event()

    def scrape() -> None:
        while True:
            if (status := daemon.ask("GET", "/metrics")) != 200:
                raise SystemExit(f"GET /metrics was answered by {status}")
            if over.wait(pause):
                return

    with ThreadPoolExecutor(1) as thread:
        scraping = thread.submit(scrape)
        try:
            yield
        finally:
            over.set()
        scraping.result()


def growth(bench: Bench) -> Figures:
    """How the rate of a drain changes with what is due."""
    few = drained(bench, bench.jobs(10_000))["jobs_per_second"]
    more = drained(bench, bench.jobs(100_000))["jobs_per_second"]
    many = drained(bench, bench.jobs(MILLION), limit=bench.seconds(60))["jobs_per_second"]
    return {
        "at_10_thousand": few,
        "at_100_thousand": more,
        "at_1_million": many,
        "ratio": many / few,
    }


def two_daemons(bench: Bench) -> Figures:
    """Two daemons on one table, against one."""
    count = bench.jobs(BACKLOG)
    alone = drained(bench, count)["jobs_per_second"]
    new_table(bench)
    bench.database.insert_many("job", 2 * count, "", datetime.now(UTC) - timedelta(minutes=1))
    before = {name: bench.database.counter(name) for name in (LOCK_WAITS, ROLLBACKS)}
    with running_dalga(bench, "one"), running_dalga(bench, "two"):
        wait_until(lambda: bench.database.count() == 0, "all to be recorded")
    conflicts = {name: bench.database.counter(name) - count for name, count in before.items()}
    arrivals = bench.sink.arrivals()
    check(arrivals, 2 * count)
    # The second comes a little later: what counts is when both work.
    middle = sorted(arrivals)[len(arrivals) // 4 : -len(arrivals) // 8]
    together = rate(middle)
    return {
        "together": together,
        "alone": alone,
        "ratio": together / alone,
        "row_lock_waits": conflicts[LOCK_WAITS],
        # The clients close their connections without one.
        "transactions_rolled_back": conflicts[ROLLBACKS],
    }


def workers(bench: Bench) -> Figures:
    """One daemon of two workers, against one process."""
    if not bench.program.takes("--workers"):
        raise NotHere(f"the daemon in {bench.program.checkout} has no --workers")
    count = bench.jobs(BACKLOG)
    alone = drained(bench, count)
    together = drained(bench, count, options=("--workers", "2"))
    return {
        "together": together["jobs_per_second"],
        "alone": alone["jobs_per_second"],
        "ratio": together["jobs_per_second"] / alone["jobs_per_second"],
        "together_cpu_ms_per_job": together["daemon_cpu_ms_per_job"],
        "alone_cpu_ms_per_job": alone["daemon_cpu_ms_per_job"],
        "peak_memory_mb": together["peak_memory_mb"],
    }


def store_alone(bench: Bench) -> Figures:
    """Claim and record without HTTP, in a process of its own."""
    new_table(bench)
    count = bench.jobs(50_000)
    bench.database.insert_many("job", count, "", datetime.now(UTC) - timedelta(minutes=1))
    database_cpu = bench.database.cpu()
    arguments = [os.fspath(write_ini(bench)), str(count)]
    figures: Figures = json.loads(bench.program.run_module("store", *arguments))
    if bench.database.count():
        raise SystemExit("not all jobs were recorded")
    database_cpu = bench.database.cpu() - database_cpu
    return {**figures, "database_cpu_ms_per_job": database_cpu / count * 1000}
