"""
The cases: each is one run, from a new table on, that gives figures by name.

Each checks as it measures: every job has arrived, and none twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import quantiles

from bench.databases import Database, text
from bench.machine import CHECKOUT, Process, clean_environment, ended, wait_until
from bench.sink import Arrival, Sink

Figures = dict[str, float]

#: POSTs that a daemon, or the reference, has under way at most: the default.
CONNECTIONS = 100

#: Jobs that a drain is made of.
BACKLOG = 20_000

# What the server counts.
QUERIES, COMMITS, ROLLBACKS = "Questions", "Com_commit", "Com_rollback"
LOCK_WAITS = "Innodb_row_lock_waits"

MILLION = 1_000_000
#: How the daemon may be started, by the script beside this Python.
PROGRAMS = {"twistd": ("twistd", "-n", "--pidfile=", "dalga"), "dalga": ("dalga",)}
DAY = "86400"


@dataclass
class Bench:
    """What a case is run with."""

    database: Database
    sink: Sink
    folder: Path
    #: By how much of its usual length each case is shortened; 1 for not at all.
    scale: float = 1.0
    profile: str | None = None
    #: The program that runs the daemon: one of `PROGRAMS`.
    program: str = "twistd"

    def jobs(self, count: int) -> int:
        """So many, or fewer where the run is a short one."""
        return max(100, int(count * self.scale))

    def seconds(self, duration: float) -> float:
        """So long, or shorter where the run is a short one."""
        return max(3.0, duration * self.scale)


class Daemon(Process):
    """A running Dalga."""

    def __init__(self, pid: int, port: int, started: float) -> None:
        super().__init__(pid)
        self.port = port
        #: When its process was started, in seconds since the epoch.
        self.started = started

    def ask(self, method: str, target: str) -> int:
        """Make a request and give the answer's status."""
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(
                f"{method} {target} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
            )
            return int(client.makefile("rb").readline().split()[1])


def new_table(bench: Bench) -> None:
    """A new table without jobs, and a sink that has seen none."""
    bench.database.renew()
    run_dalga(bench, "--create-table")
    bench.sink.forget()


def run_dalga(bench: Bench, *arguments: str) -> None:
    command = [sys.executable, "-m", "dalga", "--config", str(write_ini(bench)), *arguments]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, cwd=CHECKOUT, env=clean_environment()
    )


def write_ini(bench: Bench) -> Path:
    ini = bench.folder / "dalga.ini"
    ini.write_text(
        f"{bench.database.configuration}[listen]\nport = 0\n[jobs]\nmaxRunning = {CONNECTIONS}\n"
        f"[endpoint]\nbaseurl = {bench.sink.url}\n"
    )
    return ini


@contextlib.contextmanager
def running_dalga(bench: Bench, name: str = "one") -> Iterator[Daemon]:
    """A daemon, from when it listens."""
    log = bench.folder / f"dalga-{name}.log"
    profiler = ["-m", "cProfile", "-o", bench.profile] if bench.profile else []
    script, *arguments = PROGRAMS[bench.program]
    command = [sys.executable, *profiler, os.fspath(Path(sys.executable).with_name(script))]
    command += [*arguments, "--config", os.fspath(write_ini(bench))]
    started = time.time()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=CHECKOUT, env=clean_environment()
        )
    with ended(process):

        def port() -> int | None:
            if process.poll() is not None:
                raise SystemExit(f"the daemon ended:\n{log.read_text()}")
            _, found, rest = log.read_text().partition(" listens on http://127.0.0.1:")
            return int(rest.partition("/")[0]) if found and "/" in rest else None

        wait_until(lambda: port() is not None, "the daemon to listen", 0.005)
        yield Daemon(process.pid, port() or 0, started)
    if process.returncode != 0:
        raise SystemExit(f"the daemon ended with {process.returncode}:\n{log.read_text()[-2000:]}")


def check(arrivals: Sequence[Arrival], expected: int) -> None:
    """:raises SystemExit: unless so many jobs have arrived, each once."""
    times = Counter(arrival.path for arrival in arrivals)
    if len(times) != expected or len(arrivals) != expected:
        twice = sum(count > 1 for count in times.values())
        raise SystemExit(
            f"{expected} jobs were expected, each once; {len(times)} arrived, {twice} of them twice"
        )


def rate(arrivals: Sequence[Arrival]) -> float:
    """Arrivals a second, from the first to the last."""
    times = [arrival.at for arrival in arrivals]
    return (len(times) - 1) / (max(times) - min(times))


def bare(bench: Bench, count: int) -> float:
    """How many POSTs a second treq alone makes to the same sink, right now."""
    bench.sink.forget()
    arguments = [f"{bench.sink.url}bare", str(count), str(CONNECTIONS)]
    subprocess.run([sys.executable, "-m", "bench.bare", *arguments], check=True, cwd=CHECKOUT)
    arrivals = bench.sink.arrivals()
    check(arrivals, count)
    return rate(arrivals)


def posts(bench: Bench) -> Figures:
    """POSTs alone: as a daemon makes them, by treq alone, and by a protocol that does no more."""
    count = bench.jobs(5 * BACKLOG)
    ours, ours_cpu = _posts(bench, "ours", count)
    treq, treq_cpu = _posts(bench, "treq", count // 10)
    lean, lean_cpu = _posts(bench, "lean", count)
    return {
        "posts_per_second": ours,
        "bare_treq_per_second": treq,
        "lean_per_second": lean,
        "ratio": ours / treq,
        "ratio_of_cpu": treq_cpu / ours_cpu,
        "cpu_ms_per_post": ours_cpu,
        "bare_treq_cpu_ms_per_post": treq_cpu,
        "lean_cpu_ms_per_post": lean_cpu,
    }


def _posts(bench: Bench, way: str, count: int) -> tuple[float, float]:
    """How many a second, and milliseconds of CPU for each: see `bench.posts`."""
    bench.sink.forget()
    arguments = [way, bench.sink.url, str(count), str(CONNECTIONS)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.posts", *arguments],
        check=True,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
    )
    check(bench.sink.arrivals(), count)
    took = json.loads(done.stdout)
    return count / took["seconds"], took["cpu"] / count * 1000


# Drains


def drain(bench: Bench) -> Figures:
    """One-off jobs that are all due."""
    return _drain(bench, bench.jobs(BACKLOG))


def drain_periodic(bench: Bench) -> Figures:
    """Periodic jobs that are all due: rescheduled, not deleted."""
    return _drain(bench, bench.jobs(BACKLOG), schedule=DAY)


def drain_among_million(bench: Bench) -> Figures:
    """The same with and without a million jobs in the table that are not due."""
    count = bench.jobs(BACKLOG)
    without = _drain(bench, count)
    among = _drain(bench, count, waiting=bench.jobs(MILLION))
    return {**among, "ratio_to_drain": among["jobs_per_second"] / without["jobs_per_second"]}


def _drain(
    bench: Bench, count: int, schedule: str = "", waiting: int = 0, limit: float | None = None
) -> Figures:
    """:param limit: seconds after which it is broken off and counted."""
    new_table(bench)
    now = datetime.now(UTC)
    if waiting:
        bench.database.insert_many("waiting", waiting, DAY, now + timedelta(days=1))
    bench.database.insert_many("job", count, schedule, now - timedelta(minutes=1))
    with running_dalga(bench) as daemon:
        began = time.monotonic()
        cpu, database_cpu = daemon.cpu(), bench.database.cpu()
        commits = bench.database.counter(COMMITS)

        def over() -> bool:
            return bench.sink.count() >= count or (
                limit is not None and time.monotonic() - began > limit
            )

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
    found = rate(arrivals)
    reference = bare(bench, bench.jobs(BACKLOG))
    return {
        "jobs_per_second": found,
        "bare_treq_per_second": reference,
        "ratio": found / reference,
        "daemon_cpu_ms_per_job": cpu / len(arrivals) * 1000,
        "database_cpu_ms_per_job": database_cpu / len(arrivals) * 1000,
        "transactions_per_job": commits / len(arrivals),
        "peak_memory_mb": peak,
    }


def growth(bench: Bench) -> Figures:
    """How the rate of a drain changes with what is due."""
    few = _drain(bench, bench.jobs(10_000))["jobs_per_second"]
    more = _drain(bench, bench.jobs(100_000))["jobs_per_second"]
    many = _drain(bench, bench.jobs(MILLION), limit=bench.seconds(60))["jobs_per_second"]
    return {
        "at_10_thousand": few,
        "at_100_thousand": more,
        "at_1_million": many,
        "ratio": many / few,
    }


def two_daemons(bench: Bench) -> Figures:
    """Two daemons on one table, against one."""
    count = bench.jobs(BACKLOG)
    alone = _drain(bench, count)["jobs_per_second"]
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


# Punctuality


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
    """From the 201 of a PUT with immediate until the POST, while the daemon is half busy."""
    new_table(bench)
    seconds = bench.seconds(20)
    half = bare(bench, bench.jobs(BACKLOG)) / 2
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


# The API


def api_put(bench: Bench) -> Figures:
    """New jobs over 16 connections."""
    new_table(bench)
    count = bench.jobs(20_000)
    target = "/jobs/job%d/1234?interval=86400"
    figures = _api(bench, "PUT", count, target, "201")
    if bench.database.count() != count:
        raise SystemExit("not all jobs are in the table")
    return figures


def api_get(bench: Bench) -> Figures:
    """One of 20,000 jobs, over 16 connections."""
    new_table(bench)
    count = bench.jobs(20_000)
    target = "/jobs/job%d/bench"
    bench.database.insert_many("job", count, DAY, datetime.now(UTC) + timedelta(days=1))
    return _api(bench, "GET", count, target, "200")


def _api(bench: Bench, method: str, count: int, target: str, status: str) -> Figures:
    with running_dalga(bench) as daemon:
        cpu, database_cpu = daemon.cpu(), bench.database.cpu()
        found = load(daemon.port, method, count, target, status)
        cpu, database_cpu = daemon.cpu() - cpu, bench.database.cpu() - database_cpu
    with empty_route() as port:
        reference = load(port, method, count, target, status)
    return {
        "per_second": found,
        "empty_route": reference,
        "ratio": found / reference,
        "daemon_cpu_ms_per_request": cpu / count * 1000,
        "database_cpu_ms_per_request": database_cpu / count * 1000,
    }


def load(port: int, method: str, count: int, target: str, status: str) -> float:
    """Requests a second, all of which have to be answered by a status."""
    arguments = [str(port), method, str(count), "16", target]
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", *arguments],
        check=True,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
    )
    result = json.loads(done.stdout)
    if result["statuses"] != {status: count}:
        raise SystemExit(f"{count} answers with {status} were expected, not {result['statuses']}")
    return count / float(result["seconds"])


@contextlib.contextmanager
def empty_route() -> Iterator[int]:
    command = [sys.executable, "-m", "bench.empty"]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with ended(process), process.stdout:
        yield int(process.stdout.readline())


# A table of a million


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


def store_alone(bench: Bench) -> Figures:
    """Claim and record without HTTP, in a process of its own."""
    new_table(bench)
    count = bench.jobs(50_000)
    bench.database.insert_many("job", count, "", datetime.now(UTC) - timedelta(minutes=1))
    database_cpu = bench.database.cpu()
    done = subprocess.run(
        [sys.executable, "-m", "bench.store", str(write_ini(bench)), str(count)],
        check=True,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        env={**clean_environment(), "PYTHONPATH": os.fspath(CHECKOUT)},
    )
    figures: Figures = json.loads(done.stdout)
    if bench.database.count():
        raise SystemExit("not all jobs were recorded")
    database_cpu = bench.database.cpu() - database_cpu
    return {**figures, "database_cpu_ms_per_job": database_cpu / count * 1000}


@dataclass(frozen=True)
class Case:
    """A case and the figures that it should reach."""

    run: Callable[[Bench], Figures]
    #: A figure's name, "at least" or "at most", and the bound.
    targets: tuple[tuple[str, str, float], ...] = ()
    engine: str = "mariadb"


AT_LEAST, AT_MOST = "at least", "at most"

CASES = {
    "posts": Case(posts, (("ratio", AT_LEAST, 8.0),), "sqlite"),
    "drain": Case(
        drain,
        (
            ("ratio", AT_LEAST, 1.0),
            ("daemon_cpu_ms_per_job", AT_MOST, 0.34),
            ("database_cpu_ms_per_job", AT_MOST, 0.15),
        ),
    ),
    "drain-periodic": Case(drain_periodic, (("ratio", AT_LEAST, 0.95),)),
    "drain-among-million": Case(drain_among_million, (("ratio_to_drain", AT_LEAST, 0.95),)),
    "drain-sqlite": Case(drain, (("ratio", AT_LEAST, 0.95),), "sqlite"),
    "punctual-spread": Case(
        punctual_spread,
        (("p50_ms", AT_MOST, 5), ("p99_ms", AT_MOST, 25), ("max_ms", AT_MOST, 200)),
    ),
    "punctual-burst": Case(
        punctual_burst,
        (("p50_ms", AT_MOST, 60), ("p99_ms", AT_MOST, 130), ("max_ms", AT_MOST, 200)),
    ),
    "immediate": Case(immediate, (("p50_ms", AT_MOST, 10), ("p99_ms", AT_MOST, 40))),
    "api-put": Case(api_put, (("per_second", AT_LEAST, 2500), ("ratio", AT_LEAST, 0.5))),
    "api-get": Case(api_get, (("ratio", AT_LEAST, 0.7),)),
    "start-million": Case(
        start_million, (("first_post_seconds", AT_MOST, 2), ("peak_memory_mb", AT_MOST, 150))
    ),
    "idle-million": Case(
        idle_million, (("cpu_percent", AT_MOST, 0.5), ("queries_per_second", AT_MOST, 3))
    ),
    "growth": Case(growth, (("ratio", AT_LEAST, 0.9),)),
    "two-daemons": Case(two_daemons, (("ratio", AT_LEAST, 1.2),)),
    "store": Case(store_alone),
}
