"""
A daemon for the bench: the released code, and what is done to it at a point of its own.

    python -m faults.instance --config FILE

FAULTS in the environment holds, as JSON, what to do; Dalga itself knows nothing of it.

``kill``: a point at which the process kills itself when it is there for the time `after`:
``claimed`` (a claim has been committed, and nothing of it begun) or ``answered`` (the endpoint has
answered, and nothing is recorded).
``hold``: a file, made later; then the process stops itself (SIGSTOP) when it has ``claimed``.
``clock``: seconds by which the process's wall clock is ahead; ``steps`` to have it jump about.
``files``: how many files it may have open, unless it asks for more.
``lookup``: a file with the number of seconds that it takes to look up `NAMED`, from when it is
looked up; where there is no file, that never ends. The name is this machine's.
``spin``: from so many seconds after the start on, the reactor has always something to do.
``ticks``: a file for the longest time, in seconds, in which the reactor did nothing else.
"""

from __future__ import annotations

import _socket
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.task import LoopingCall

from dalga.__main__ import main
from dalga.store.table import JobsTable

#: How often the reactor is looked at, in seconds.
TICK = 0.01

#: A host that nobody else knows.
NAMED = "jobs.test"

#: How often one that waits for a silent resolver looks whether that is silent still, in seconds.
SILENCE = 0.1

#: In the environment, the bench's process, without which a daemon is not to go on.
BENCH = "FAULTS_BENCH"

PR_SET_PDEATHSIG = 1


def end_with(bench: int) -> None:
    """Have the kernel kill this process when the bench, which started it, has died."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != bench:
        raise SystemExit("the bench is gone")


def when_claimed(act: Callable[[], None]) -> None:
    """Do something each time when runs have been claimed, before any of them begins."""
    claim = JobsTable.claim

    def claimed(self: JobsTable, *arguments: Any, **named: Any) -> Any:
        def then(result: Any) -> Any:
            if result.runs:
                act()
            return result

        return claim(self, *arguments, **named).addCallback(then)

    JobsTable.claim = claimed  # type: ignore[method-assign]


def when_answered(act: Callable[[], None]) -> None:
    """Do something each time when runs have ended, before any of them is recorded."""
    record = JobsTable.record

    def recorded(self: JobsTable, *arguments: Any, **named: Any) -> Any:
        act()
        return record(self, *arguments, **named)

    JobsTable.record = recorded  # type: ignore[method-assign]


POINTS = {"claimed": when_claimed, "answered": when_answered}


def kill(point: str, after: int) -> None:
    """Have the process die at a point, when it is there for the time `after`."""
    left = after

    def count() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    POINTS[point](count)


def hold(wanted: Path) -> None:
    """Have the process stop itself when it has claimed, the next time after a file was made."""

    def stop() -> None:
        if wanted.exists():
            wanted.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)

    when_claimed(stop)


def set_clock(ahead: float, steps: bool) -> None:
    """
    Have the process's wall clock be wrong, for whoever asks it by `time.time` or `datetime.now`.
    What is steady goes on as it did.
    """
    true, random = time.time, Random(ahead)

    def wrong() -> float:
        return true() + ahead + (random.uniform(-3600, 3600) if steps else 0.0)

    time.time = wrong

    class IsAny(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime)

    class Wrong(datetime, metaclass=IsAny):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(wrong(), tz)

    for name, module in list(sys.modules.items()):
        if name.startswith("dalga.") and getattr(module, "datetime", None) is datetime:
            module.datetime = Wrong  # type: ignore[attr-defined]


def set_lookup(speed: Path) -> None:
    """
    Have look-ups of `NAMED` take their time, in the thread that asks, as glibc's do; and be found.
    """
    find = _socket.getaddrinfo  # which all others come to in the end

    def slow(host: Any, *arguments: Any) -> Any:
        flags = arguments[4] if len(arguments) > 4 else 0
        if host not in (NAMED, NAMED.encode()) or flags & _socket.AI_NUMERICHOST:
            return find(host, *arguments)
        while not speed.exists():
            time.sleep(SILENCE)
        time.sleep(float(speed.read_text()))
        return find("127.0.0.1", *arguments)

    _socket.getaddrinfo = slow  # type: ignore[assignment]  # `socket` names no argument


def spin(after: float) -> None:
    """Have the reactor never wait, as where a timer that is due is set again and again."""
    from twisted.internet import reactor

    start = LoopingCall(lambda: None).start
    # Once it runs, as only then does it have the clock that it goes by.
    reactor.callWhenRunning(lambda: reactor.callLater(after, start, 0))


def watch_ticks(path: Path) -> None:
    """Note the longest pause between two turns of the reactor."""
    from twisted.internet import reactor

    last, longest = 0.0, 0.0

    def tick() -> None:
        nonlocal last, longest
        now = time.monotonic()
        if last and now - last - TICK > longest:
            longest = now - last - TICK
            path.write_text(f"{longest:.6f}")
        last = now

    reactor.callWhenRunning(LoopingCall(tick).start, TICK, now=False)


def prepare(wanted: dict[str, Any]) -> None:
    """Do what FAULTS says."""
    if "kill" in wanted:
        kill(wanted["kill"], wanted.get("after", 1))
    if "hold" in wanted:
        hold(Path(wanted["hold"]))
    if "clock" in wanted:
        set_clock(wanted["clock"], wanted.get("steps", False))
    if "lookup" in wanted:
        set_lookup(Path(wanted["lookup"]))
    if "files" in wanted:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted["files"], most))
    if "spin" in wanted:
        spin(wanted["spin"])
    if "ticks" in wanted:
        watch_ticks(Path(wanted["ticks"]))


if __name__ == "__main__":
    if BENCH in os.environ:
        end_with(int(os.environ[BENCH]))
    prepare(json.loads(os.environ.get("FAULTS", "{}")))
    sys.exit(main())
