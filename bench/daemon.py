"""The Dalga that is measured, and what a case runs it with."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.databases import Database
from bench.machine import CHECKOUT, NotHere, Process, clean_environment, cpu_of, ended, wait_until
from bench.sink import Sink

Figures = dict[str, float]

#: POSTs that a daemon, or a reference, has under way at most: the default.
CONNECTIONS = 100

#: The scripts that start a daemon, each in the folder of its Python.
SCRIPTS = {"twistd": ("twistd", "-n", "--pidfile=", "dalga"), "dalga": ("dalga",)}


@dataclass(frozen=True)
class Program:
    """A checkout's Dalga."""

    checkout: Path = CHECKOUT
    #: One of `SCRIPTS`.
    script: str = "twistd"

    @property
    def python(self) -> str:
        """This Python for this checkout; the one in .venv for another checkout."""
        if self.checkout == CHECKOUT:
            return sys.executable
        return os.fspath(self.checkout / ".venv" / "bin" / "python")

    def daemon(self, profile: str | None = None) -> list[str]:
        """
        The command that runs the daemon, without Dalga's options.

        :param profile: the file that cProfile writes to.
        """
        script, *arguments = SCRIPTS[self.script]
        profiler = ["-m", "cProfile", "-o", profile] if profile else []
        return [
            self.python,
            *profiler,
            os.fspath(Path(self.python).with_name(script)),
            *arguments,
        ]

    def run_module(self, name: str, *arguments: str) -> str:
        """
        Run a module of the checkout's bench, and give what it prints.

        :raises NotHere: if the checkout has none of that name, as older code may not.
        """
        if not (self.checkout / "bench" / f"{name}.py").exists():
            raise NotHere(f"there is no bench/{name}.py in {self.checkout}")
        done = subprocess.run(
            [self.python, "-m", f"bench.{name}", *arguments],
            check=True,
            cwd=self.checkout,
            stdout=subprocess.PIPE,
            text=True,
            env={**clean_environment(), "PYTHONPATH": os.fspath(self.checkout)},
        )
        return done.stdout

    def takes(self, option: str) -> bool:
        """Whether the daemon has an option, by what it says to --help."""
        done = subprocess.run(
            [*self.daemon(), "--help"],
            check=True,
            capture_output=True,
            text=True,
            cwd=self.checkout,
            env=clean_environment(),
        )
        return re.search(rf"{option}\b", done.stdout) is not None

    def has_section(self, name: str) -> bool:
        """Whether its configuration has a section, by the example in its checkout."""
        example = (self.checkout / "dalga.ini.example").read_text(encoding="utf-8")
        return f"\n[{name}]\n" in example


@dataclass
class Bench:
    """What a case is run with."""

    database: Database
    sink: Sink
    folder: Path
    #: Each case's length, of its full length: 1 for all of it.
    scale: float = 1.0
    profile: str | None = None
    program: Program = field(default_factory=Program)
    #: Sections of the daemon's configuration, as they are in the file.
    settings: str = ""

    def with_section(self, name: str, **keys: object) -> Bench:
        """
        The same with a section more.

        :raises NotHere: if the daemon's configuration has none of that name.
        """
        if not self.program.has_section(name):
            raise NotHere(f"the daemon in {self.program.checkout} has no section [{name}]")
        lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
        return replace(self, settings=f"{self.settings}[{name}]\n{lines}")

    def jobs(self, count: int) -> int:
        """So many, or fewer where the run is a short one."""
        return max(100, int(count * self.scale))

    def seconds(self, duration: float) -> float:
        """So long, or shorter where the run is a short one."""
        return max(3.0, duration * self.scale)


class Daemon(Process):
    """A running Dalga. Its CPU and its memory are those of all processes of it."""

    def __init__(self, pid: int, port: int, started: float) -> None:
        super().__init__(pid)
        self.port = port
        #: When its process was started, in seconds since the epoch.
        self.started = started

    def cpu(self) -> float:
        """Seconds of CPU so far, of the daemon and of the processes that it has started."""
        return super().cpu() + cpu_of(self.descendants())

    def peak_memory(self) -> float:
        """The sum of what each of these processes had at most, in MB."""
        return super().peak_memory() + sum(child.peak_memory() for child in self.descendants())

    def ask(self, method: str, target: str) -> int:
        """Make a request, read the answer to its end, and give its status."""
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            line = f"{method} {target} HTTP/1.1\r\n"
            client.sendall(f"{line}Host: localhost\r\nConnection: close\r\n\r\n".encode())
            return int(client.makefile("rb").read().split(maxsplit=2)[1])


def new_table(bench: Bench) -> None:
    """A new table without jobs, and a sink that has seen none."""
    bench.database.renew()
    run_dalga(bench, "--create-table")
    bench.sink.forget()


def run_dalga(bench: Bench, *arguments: str) -> None:
    ini = os.fspath(write_ini(bench))
    command = [bench.program.python, "-m", "dalga", "--config", ini, *arguments]
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=bench.program.checkout,
        env=clean_environment(),
    )


def write_ini(bench: Bench) -> Path:
    ini = bench.folder / "dalga.ini"
    ini.write_text(
        f"{bench.database.configuration}[listen]\nport = 0\n[jobs]\nmaxRunning = {CONNECTIONS}\n"
        f"[endpoint]\nbaseurl = {bench.sink.url}\n{bench.settings}"
    )
    return ini


@contextlib.contextmanager
def running_dalga(bench: Bench, name: str = "one", *options: str) -> Iterator[Daemon]:
    """
    A daemon, from when it listens.

    :param name: of its log.
    :param options: Dalga's, besides --config.
    """
    log = bench.folder / f"dalga-{name}.log"
    command = [*bench.program.daemon(bench.profile), "--config", os.fspath(write_ini(bench))]
    started = time.time()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options],
            stdout=output,
            stderr=output,
            cwd=bench.program.checkout,
            env=clean_environment(),
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
