"""
What each daemon takes: CPU, threads, files, memory, and sessions on the database's servers; and
how long it needs to stop. What is more than a daemon may need is objected to, in any scenario.

A thread takes a sample of each daemon now and again, from outside: proc(5), and SHOW PROCESSLIST by
an administrator's connection. Each daemon has an account of its own on the server, so that sessions
that it has abandoned count as its own for as long as the server keeps them.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import time
from typing import Any, Protocol

import pymysql

from bench.machine import Process
from tests.servers import Server

#: Between two samples, in seconds.
PAUSE = 0.25

#: How long the server may take to answer the watcher, in seconds. One that is held does not.
PATIENCE = 2.0


#: CPU is judged over windows of so many seconds.
WINDOW = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a daemon may take."""

    #: Seconds of CPU a second, where nothing is to be done.
    idle: float = 0.02
    #: Seconds of CPU for each thing that is done: a POST, a request.
    each: float = 0.005
    #: Seconds of CPU in each window beyond these, for what is done now and again.
    slack: float = 0.4
    threads: int = 40
    files: int = 300
    #: The most that it ever has, in MB.
    memory: float = 200.0
    #: For how many seconds more sessions than ``maxOpenConns`` may be there: the server needs a
    #: moment to see that one was closed.
    crowded: float = 1.0
    #: Seconds for a stop, beyond ``shutdownTimeout``.
    stop: float = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A daemon at a moment."""

    #: Since the epoch, in seconds.
    at: float
    #: Seconds of CPU since it began, of all its threads.
    cpu: float
    threads: int = 0
    files: int = 0
    #: The most that it has had so far, in MB.
    memory: float = 0.0


@dataclass(slots=True)
class Usage:
    """What was seen of one daemon since it listens."""

    samples: list[Sample] = field(default_factory=list)
    #: When how many sessions of its account were on the servers.
    sessions: list[tuple[float, int]] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.samples:
            return "was not seen"
        first, last = self.samples[0], self.samples[-1]
        return (
            f"{last.cpu - first.cpu:.2f} s of CPU in {last.at - first.at:.0f} s, "
            f"{max(one.threads for one in self.samples)} threads, "
            f"{max(one.files for one in self.samples)} files, {last.memory:.0f} MB, "
            f"{max((number for _, number in self.sessions), default=0)} sessions"
        )


class Watched(Protocol):
    """What the watch has to know of an instance."""

    #: Its account on the server.
    account: str
    #: Where it listens; empty until it does.
    address: str
    #: None while it runs.
    status: int | None
    usage: Usage

    @property
    def pid(self) -> int:
        """Of its process."""


class Watch:
    """
    Takes samples in a thread of its own, until it is stopped.

    :param instances: gives those that are to be looked at now.
    :param servers: gives the servers that they may have sessions on now.
    """

    def __init__(
        self, instances: Callable[[], Sequence[Watched]], servers: Callable[[], Sequence[Server]]
    ) -> None:
        self._instances = instances
        self._servers = servers
        self._connections: dict[Server, Any] = {}
        self._over = Event()
        self._thread = Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Blocks for as long as a server does not answer."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(PAUSE):
            self.look()
        for connection in self._connections.values():
            with contextlib.suppress(Exception):
                connection.close()

    def look(self) -> None:
        """Once."""
        instances = [one for one in self._instances() if one.status is None and one.address]
        for instance in instances:
            # It has ended meanwhile: then it has no process, or none that Twisted knows of.
            with contextlib.suppress(OSError, KeyError, TypeError):
                instance.usage.samples.append(sample(instance.pid))
        asked = time()
        counts: Counter[str] = Counter()
        servers = self._servers()
        for server in servers:
            counts.update(self._accounts(server))
        if servers and time() - asked < PATIENCE:
            for instance in instances:
                instance.usage.sessions.append((asked, counts[instance.account]))

    def _accounts(self, server: Server) -> list[str]:
        """Who has the sessions of a server; nobody where it does not answer."""
        try:
            if server not in self._connections:
                self._connections[server] = server.connect_as_root(
                    connect_timeout=PATIENCE, read_timeout=PATIENCE, autocommit=True
                )
            cursor = self._connections[server].cursor()
            cursor.execute("SHOW PROCESSLIST")
            return [row[1] for row in cursor.fetchall()]
        except (pymysql.Error, OSError):
            connection = self._connections.pop(server, None)
            with contextlib.suppress(Exception):
                connection.close()
            return []


def sample(pid: int) -> Sample:
    """
    Of a process.

    :raises OSError: if it is not there any more; KeyError where it is about to go.
    """
    process = Process(pid)
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return Sample(time(), process.cpu(), int(stat[17]), files, process.peak_memory())


# What is too much


def overworked(samples: Sequence[Sample], done: Sequence[float], limits: Limits) -> list[str]:
    """
    Whether a daemon took more CPU than what it did needs.

    :param done: when it did something, in order, since the epoch.
    """
    worst: tuple[float, str] = (0.0, "")
    until = 0
    for first in samples:
        while until < len(samples) - 1 and samples[until].at < first.at + WINDOW:
            until += 1
        last = samples[until]
        took, span = last.cpu - first.cpu, last.at - first.at
        # What was asked for may have been done a moment before it was seen to be.
        number = bisect_left(done, last.at + 0.5) - bisect_left(done, first.at - 0.5)
        excess = took - (limits.slack + limits.idle * span + limits.each * number)
        if excess > worst[0]:
            worst = (
                excess,
                f"took {took:.1f} s of CPU in {span:.0f} s, in which it did {number} things",
            )
        if until == len(samples) - 1:
            break
    return [worst[1]] if worst[1] else []


def overcrowded(sessions: Sequence[tuple[float, int]], most: int, limits: Limits) -> list[str]:
    """
    Whether a daemon had more sessions than it may for longer than a moment.

    :param most: how many it may have; 0 for any number.
    """
    since, highest, longest = None, 0, 0.0
    for at, number in sessions:
        if not most or number <= most:
            since = None
            continue
        since = at if since is None else since
        longest, highest = max(longest, at - since), max(highest, number)
    if longest <= limits.crowded:
        return []
    return [f"had up to {highest} sessions on the database's server, for {longest:.0f} s"]


def oversized(samples: Sequence[Sample], limits: Limits) -> list[str]:
    """Whether a daemon had more threads, files or memory than it needs."""
    found = []
    for what, values, limit in (
        ("threads", [one.threads for one in samples], limits.threads),
        ("open files", [one.files for one in samples], limits.files),
        ("MB", [one.memory for one in samples], limits.memory),
    ):
        if (most := max(values, default=0)) > limit:
            found.append(f"had {most:.0f} {what}")
    return found


def overstayed(took: float, grace: float, limits: Limits) -> list[str]:
    """
    Whether a stop took longer than is promised.

    :param took: from SIGTERM to the end, in seconds.
    :param grace: ``shutdownTimeout``, in seconds.
    """
    return [f"took {took:.1f} s to stop"] if took > grace + limits.stop else []
