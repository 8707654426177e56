"""Cases of the HTTP interface: requests a second."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from bench.daemon import Bench, Figures, new_table, running_dalga
from bench.databases import DAY
from bench.machine import CHECKOUT, ended


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
