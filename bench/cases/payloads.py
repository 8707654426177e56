"""A case of jobs whose payloads are large."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from statistics import median
from typing import NamedTuple

from bench.daemon import Bench, Daemon, Figures, new_table, running_dalga
from bench.machine import wait_until
from bench.sink import check

#: Jobs with a payload that are due at the same instant, and as many plain jobs beside them.
TOGETHER = 100
#: Octets of each payload: the most that a daemon takes by default.
SIZE = 64 * 1024
#: Seconds from one instant to the next.
APART = 5
#: Seconds from the first PUT to the first instant: for the PUTs, and for the start of a daemon.
AHEAD = 12


def payloads(bench: Bench) -> Figures:
    """
    100 jobs with 64 KiB each, and 100 plain jobs, are due at the same instant, each 5 s: what the
    payloads cost the daemon of memory, and how late the plain jobs are by them.
    """
    rounds = max(1, int(bench.seconds(30) / APART))
    plain = _rounds(bench, rounds, None)
    late = _rounds(bench, rounds, "x" * SIZE)
    return {
        "memory_above_idle_mb": late.memory,
        "plain_last_ms": median(late.last),
        "plain_last_ms_without": median(plain.last),
        # Of the middle round, as the worst says more of the machine than of Dalga.
        "plain_later_by_ms": median(late.last) - median(plain.last),
        "daemon_cpu_ms_per_round": late.cpu / rounds * 1000,
        "daemon_cpu_ms_per_round_without": plain.cpu / rounds * 1000,
    }


class Rounds(NamedTuple):
    """What some rounds came to."""

    #: How late the last of each round's plain jobs arrived, in milliseconds.
    last: list[float]
    #: What the daemon had at most above what it had while it was idle, in MB.
    memory: float
    #: Seconds of CPU that the daemon took for all of them.
    cpu: float


def _rounds(bench: Bench, rounds: int, payload: str | None) -> Rounds:
    """:param payload: of half of the jobs; None for none."""
    new_table(bench)
    began = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=AHEAD)
    dues = [began + timedelta(seconds=APART * number) for number in range(rounds)]
    # By a daemon of its own: what its requests take of memory is not a claim's.
    with running_dalga(bench, "first") as daemon:
        for number, due in enumerate(dues):
            _put(daemon, f"large{number}", due, payload)
    named = {f"plain{n}-{i}": due for n, due in enumerate(dues) for i in range(TOGETHER)}
    bench.database.insert(named.items())
    with running_dalga(bench, "second") as daemon:
        # The second heartbeat is not awaited: there is no other daemon.
        time.sleep(max(0.0, began.timestamp() - time.time() - 1))
        if datetime.now(UTC) > began:
            raise SystemExit("the jobs were due before the daemon was there")
        daemon.forget_peak()
        idle, cpu = daemon.peak_memory(), daemon.cpu()
        count = 2 * TOGETHER * rounds
        wait_until(lambda: bench.sink.count() >= count, "all jobs to arrive", 0.5)
        wait_until(lambda: bench.database.count() == 0, "all to be recorded")
        memory, cpu = daemon.peak_memory() - idle, daemon.cpu() - cpu
    arrivals = bench.sink.arrivals()
    check(arrivals, count)
    sent = sum(arrival.size == len(payload or "bench") for arrival in arrivals)
    if sent != (count if payload is None else count // 2):
        raise SystemExit(f"{sent} jobs arrived with the content that they were to have")
    last = dict.fromkeys(dues, 0.0)
    for arrival in arrivals:
        if arrival.path in named:
            due = named[arrival.path]
            last[due] = max(last[due], (arrival.at - due.timestamp()) * 1000)
    return Rounds(list(last.values()), memory, cpu)


def _put(daemon: Daemon, name: str, due: datetime, payload: str | None) -> None:
    """PUT jobs that are due then."""
    client = HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    asked: dict[str, object] = {"one_off": True, "first_run": due.isoformat()}
    if payload is not None:
        asked["payload"] = payload
    for number in range(TOGETHER):
        target = f"/jobs/{name}-{number}/bench"
        client.request("PUT", target, json.dumps(asked), {"Content-Type": "application/json"})
        answer = client.getresponse()
        text = answer.read()
        if answer.status != 201:
            raise SystemExit(f"a PUT was answered by {answer.status}: {text.decode()}")
    client.close()
