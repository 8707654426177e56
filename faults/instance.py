"""
A daemon for the bench: the released code, and what is done to it at a point of its own.

    python -m faults.instance --config FILE

FAULTS in the environment holds, as JSON, what to do; Dalga itself knows nothing of it.

``kill``: a point at which the process kills itself when it is there for the time `after`:
``claimed`` (a claim has been committed, and nothing of it begun) or ``answered`` (the endpoint has
answered, and nothing is recorded).
``clock``: seconds by which the process's wall clock is ahead; ``steps`` to have it jump about.
``files``: how many files it may have open, unless it asks for more.
``ticks``: a file for the longest time, in seconds, in which the reactor did nothing else.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.task import LoopingCall

from dalga.__main__ import main
from dalga.store.table import JobsTable

#: How often the reactor is looked at, in seconds.
TICK = 0.01


def kill(point: str, after: int) -> None:
    """Have the process die at a point, when it is there for the time `after`."""
    left = after

    def count(result: Any) -> Any:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    if point == "claimed":
        claim = JobsTable.claim

        def claimed(self: JobsTable, *arguments: Any, **named: Any) -> Any:
            return claim(self, *arguments, **named).addCallback(
                lambda result: count(result) if result.runs else result
            )

        JobsTable.claim = claimed  # type: ignore[method-assign]
    elif point == "answered":
        record = JobsTable.record

        def recorded(self: JobsTable, *arguments: Any, **named: Any) -> Any:
            count(None)
            return record(self, *arguments, **named)

        JobsTable.record = recorded  # type: ignore[method-assign]
    else:
        raise SystemExit(f"there is no point {point!r}")


def set_clock(ahead: float, steps: bool) -> None:
    """Have the process's wall clock be wrong. What is steady goes on as it did."""
    true, random = time.time, Random(ahead)

    def wrong() -> float:
        return true() + ahead + (random.uniform(-3600, 3600) if steps else 0.0)

    time.time = wrong


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

    reactor.callWhenRunning(LoopingCall(tick).start, TICK, now=False)  # type: ignore[attr-defined]


def prepare(wanted: dict[str, Any]) -> None:
    """Do what FAULTS says."""
    if "kill" in wanted:
        kill(wanted["kill"], wanted.get("after", 1))
    if "clock" in wanted:
        set_clock(wanted["clock"], wanted.get("steps", False))
    if "files" in wanted:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted["files"], most))
    if "ticks" in wanted:
        watch_ticks(Path(wanted["ticks"]))


if __name__ == "__main__":
    prepare(json.loads(os.environ.get("FAULTS", "{}")))
    sys.exit(main())
