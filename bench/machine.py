"""What the benchmarks start, and what it costs: processes, their CPU and their memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")

#: Seconds for any one step.
PATIENCE = 600.0


class NotHere(Exception):
    """What a case needs is not on this machine."""


class Process:
    """A running process, seen from outside (proc(5))."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._proc = Path("/proc", str(pid))

    def cpu(self) -> float:
        """Seconds of CPU so far, of all its threads."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def descendants(self) -> Iterator[Process]:
        """The processes that it has started, and those that they have started."""
        parents: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # one that ended meanwhile
                fields = stat.read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        generation = parents.get(self.pid, [])
        while generation:
            yield from map(Process, generation)
            generation = [child for pid in generation for child in parents.get(pid, ())]

    def forget_peak(self) -> None:
        """From now on `peak_memory` is the most that it has from now on."""
        (self._proc / "clear_refs").write_text("5")

    def peak_memory(self) -> float:
        """The most memory that it had (VmHWM), in MB."""
        for line in (self._proc / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "VmHWM":
                return int(value.split()[0]) * 1024 / 1e6
        raise KeyError("VmHWM")


class OtherWork:
    """How much of the machine's CPU other processes than this one and its own take from now on."""

    def __init__(self) -> None:
        self._began, self._taken = time.monotonic(), cpu_of_all() - cpu_of_ours()

    def percent(self) -> float:
        """Of all cores together, since it was made."""
        elapsed = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        taken = cpu_of_all() - cpu_of_ours() - self._taken
        return max(0.0, taken) / elapsed * 100


def cpu_of_all() -> float:
    """
    Seconds of CPU that were taken since the machine began; by its host for other machines, too
    (proc(5): steal).
    """
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    user, nice, system, _idle, _iowait, *interrupts_and_steal = map(int, fields[1:9])
    return (user + nice + system + sum(interrupts_and_steal)) / TICKS


def cpu_of_ours() -> float:
    """Seconds of CPU of this process, and of all that it has started, ended or not."""
    return sum(os.times()[:4]) + cpu_of(Process(os.getpid()).descendants())


def cpu_of(processes: Iterable[Process]) -> float:
    """Seconds of CPU so far of those that still run."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += process.cpu()
    return total


def wait_until(condition: Callable[[], bool], what: str, pause: float = 0.05) -> None:
    """Ask again and again, for `PATIENCE` at most."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE:g} s for {what}, in vain")
        time.sleep(pause)


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


def clean_environment() -> dict[str, str]:
    """The environment, without what would configure a daemon."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DALGA_")}
