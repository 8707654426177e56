"""
How fast does a daemon work off a backlog? How little does an idle one take?

    make bench
    .venv/bin/python -m bench.drain [--engine sqlite|mariadb|mysql] [--idle] ...

README.md beside this file says what is measured, and how. The last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

from tests.servers import ENGINES, Server, start_server

CHECKOUT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 300.0  # seconds for any one step

INSERT = (
    "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due) "
    "VALUES (%s, %s, '', %s, %s, %s)"
)


class Database(ABC):
    """Where the jobs are; `configuration` is its section of the ini file."""

    configuration = ""
    version = ""

    @abstractmethod
    def renew(self) -> None:
        """Throw all away."""

    @abstractmethod
    def insert(self, count: int, due: datetime) -> None:
        """Put one-off jobs into the table, with their number as the body."""

    @abstractmethod
    def left(self) -> int:
        """How many jobs are in the table."""


def rows(count: int, due: datetime) -> Iterator[tuple[str, ...]]:
    at = due.strftime("%Y-%m-%d %H:%M:%S.%f")
    return (("bench", str(number), at, at, at) for number in range(count))


class ServerDatabase(Database):
    """On a private MariaDB or MySQL."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.version = server.version

    def renew(self) -> None:
        name = self._server.create_database("bench")
        self.configuration = (
            f"[mysql]\nhost = {self._server.host}\nport = {self._server.port}\ndb = {name}\n"
            f'user = {self._server.user}\npassword = "{self._server.password}"\n'
        )

    def insert(self, count: int, due: datetime) -> None:
        with self._server.connect(database="bench") as connection, connection.cursor() as cursor:
            cursor.executemany(INSERT, rows(count, due))
            connection.commit()
            cursor.execute("ANALYZE TABLE dalga")

    def left(self) -> int:
        with self._server.connect(database="bench") as connection, connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM dalga")
            ((count,),) = cursor.fetchall()
        return int(count)


class FileDatabase(Database):
    """In an SQLite file."""

    version = sqlite3.sqlite_version

    def __init__(self, folder: Path) -> None:
        self._path = folder / "bench.sqlite"
        self.configuration = f"[sqlite]\npath = {self._path}\n"

    def renew(self) -> None:
        for path in self._path.parent.glob("bench.sqlite*"):
            path.unlink()

    def insert(self, count: int, due: datetime) -> None:
        with contextlib.closing(sqlite3.connect(self._path)) as connection, connection:
            connection.executemany(INSERT.replace("%s", "?"), rows(count, due))

    def left(self) -> int:
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            ((count,),) = connection.execute("SELECT COUNT(*) FROM dalga")
        return int(count)


@contextlib.contextmanager
def running_database(engine: str, folder: Path) -> Iterator[Database]:
    if engine == "sqlite":
        yield FileDatabase(folder)
        return
    with start_server(engine) as server:
        yield ServerDatabase(server)


@contextlib.contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Leave no process behind."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class SinkClient:
    """Our end of ``sink.py``."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self._port = port

    def _ask(self, method: str) -> bytes:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        connection.request(method, "/report")
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def reset(self) -> None:
        self._ask("DELETE")

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self._ask("GET"))
        return report

    def rate(self, count: int) -> float:
        """Jobs a second, from the first arrival to the last; each has to have come exactly once."""
        report = self.report()
        if report["jobs"] != count or report["more_than_once"]:
            raise SystemExit(f"{count} jobs were expected, each once; what arrived is: {report}")
        return (count - 1) / float(report["seconds"])


@contextlib.contextmanager
def running_sink() -> Iterator[SinkClient]:
    command = [sys.executable, "-m", "bench.sink"]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with ended(process), process.stdout:
        yield SinkClient(int(process.stdout.readline()))


class Daemon:
    """A running dalga, seen from outside."""

    def __init__(self, pid: int) -> None:
        self._proc = Path("/proc", str(pid))

    def cpu(self) -> float:
        """Seconds of CPU so far, of all its threads."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self, key: str) -> float:
        """VmRSS (now) or VmHWM (the most there was), in MiB."""
        for line in (self._proc / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return int(value.split()[0]) / 1024
        raise KeyError(key)


def dalga(ini: Path, *options: str, profile: str | None = None) -> list[str]:
    profiler = ["-m", "cProfile", "-o", profile] if profile else []
    return [sys.executable, *profiler, "-m", "dalga", "--config", str(ini), *options]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DALGA_")}


@contextlib.contextmanager
def running_dalga(
    options: argparse.Namespace, database: Database, sink: SinkClient, folder: Path, due: datetime
) -> Iterator[Daemon]:
    """A daemon on a new table with jobs in it, from when it begins to claim."""
    database.renew()
    ini, log = folder / "dalga.ini", folder / "dalga.log"
    ini.write_text(
        f"{database.configuration}[listen]\nport = 0\n[endpoint]\nbaseurl = {sink.url}\n"
        f"[jobs]\nmaxRunning = {options.connections}\n"
    )
    common: dict[str, Any] = {"cwd": CHECKOUT, "env": environment()}
    subprocess.run(dalga(ini, "--create-table"), check=True, stdout=subprocess.DEVNULL, **common)
    database.insert(options.jobs, due)
    sink.reset()
    with log.open("wb") as output:
        command = dalga(ini, profile=options.profile)
        process = subprocess.Popen(command, stdout=output, stderr=output, **common)
    with ended(process):

        def ready() -> bool:
            if process.poll() is not None:
                raise SystemExit(f"the daemon ended:\n{log.read_text()}")
            return b" listens on " in log.read_bytes()

        wait_until(ready, "the daemon to listen", 0.02)
        yield Daemon(process.pid)
    if process.returncode != 0:
        raise SystemExit(f"the daemon ended with {process.returncode}:\n{log.read_text()[-2000:]}")


def wait_until(condition: Callable[[], bool], what: str, pause: float) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE:g} s for {what}, in vain")
        time.sleep(pause)


def drain(
    options: argparse.Namespace, database: Database, sink: SinkClient, folder: Path
) -> dict[str, float]:
    """One run: the daemon, and then the bare client against the same sink."""
    past = datetime.now(UTC) - timedelta(minutes=1)
    with running_dalga(options, database, sink, folder, past) as daemon:
        cpu = daemon.cpu()
        wait_until(lambda: sink.report()["posts"] >= options.jobs, "all jobs to arrive", 0.2)
        wait_until(lambda: database.left() == 0, "all jobs to be recorded", 0.05)
        cpu = daemon.cpu() - cpu
        peak = daemon.memory("VmHWM")
    rate = sink.rate(options.jobs)

    sink.reset()
    numbers = (str(options.jobs), str(options.connections))
    subprocess.run(
        [sys.executable, "-m", "bench.bare", f"{sink.url}bench", *numbers], check=True, cwd=CHECKOUT
    )
    bare = sink.rate(options.jobs)
    return {
        "jobs_per_second": round(rate, 1),
        "bare_treq_per_second": round(bare, 1),
        "ratio": round(rate / bare, 3),
        "cpu_seconds_per_1000_jobs": round(cpu / options.jobs * 1000, 3),
        "peak_rss_mib": round(peak, 1),
    }


def idle(
    options: argparse.Namespace, database: Database, sink: SinkClient, folder: Path
) -> dict[str, float]:
    """One run with nothing to do."""
    future = datetime.now(UTC) + timedelta(days=1)
    with running_dalga(options, database, sink, folder, future) as daemon:
        time.sleep(3)  # let the start be over
        began, cpu = time.monotonic(), daemon.cpu()
        time.sleep(options.seconds)
        cpu = (daemon.cpu() - cpu) / (time.monotonic() - began)
        result = {
            "cpu_percent": round(cpu * 100, 2),
            "rss_mib": round(daemon.memory("VmRSS"), 1),
            "peak_rss_mib": round(daemon.memory("VmHWM"), 1),
        }
    if posts := sink.report()["posts"]:
        raise SystemExit(f"{posts} jobs were POSTed, of which none was due")
    return result


def summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    found = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        found[name] = {"median": median(values), "min": min(values), "max": max(values)}
    return found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.drain", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", *ENGINES), default="mariadb")
    parser.add_argument("--idle", action="store_true", help="measure a daemon with nothing to do")
    parser.add_argument("--jobs", type=int, help="default 20000; with --idle, 100000")
    parser.add_argument("--runs", type=int, help="default 3; with --idle, 1")
    parser.add_argument("--connections", type=int, default=100, help="POSTs at once; default 100")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to watch with --idle")
    parser.add_argument("--profile", metavar="FILE", help="write cProfile's data of the last run")
    options = parser.parse_args(arguments)
    options.jobs = options.jobs or (100_000 if options.idle else 20_000)
    options.runs = options.runs or (1 if options.idle else 3)
    if options.profile:
        options.profile = os.path.abspath(options.profile)
    return options


def main() -> None:
    options = parse()
    measure = idle if options.idle else drain
    runs = []
    with (
        tempfile.TemporaryDirectory(prefix="dalga-bench-") as name,
        running_database(options.engine, Path(name)) as database,
        running_sink() as sink,
    ):
        what = "none of them due" if options.idle else "all due"
        print(f"{options.engine} {database.version}: {options.jobs} jobs, {what}", flush=True)
        for number in range(1, options.runs + 1):
            runs.append(measure(options, database, sink, Path(name)))
            values = ", ".join(f"{key} {value:g}" for key, value in runs[-1].items())
            print(f"run {number}: {values}", flush=True)
        version = database.version
    found = summary(runs)
    for key, value in found.items():
        print(f"{key:28} median {value['median']:g}, {value['min']:g} to {value['max']:g}")
    about = {
        "engine": options.engine,
        "version": version,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "mode": "idle" if options.idle else "drain",
        "jobs": options.jobs,
        "runs": options.runs,
        "connections": options.connections,
        "profiled": bool(options.profile),
    }
    print(json.dumps({**about, **found}))


if __name__ == "__main__":
    main()
