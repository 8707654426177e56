"""
POSTs and nothing else, as fast as one process makes them, in one of three ways:

    python -m bench.posts WAY URL COUNT CONNECTIONS

    ours  a daemon's: `dalga.outgoing.endpoint.Endpoint`, treq and the agent below it
    treq  treq over Twisted's own agent
    lean  a protocol that writes bytes, gives what comes to llhttp, and has a deadline for each
          POST: no treq, no TLS, no limits and no words for what goes wrong

Prints, as JSON, the seconds of CPU and of the clock that the POSTs took, without the process's
start.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from resource import RUSAGE_SELF, getrusage
from typing import Any
from urllib.parse import urlsplit

from httptools import HttpResponseParser
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from dalga.model.key import JobKey
from dalga.model.options import Options
from dalga.model.run import Outcome, Run
from dalga.model.schedule import Once
from dalga.outgoing.endpoint import Endpoint
from dalga.outgoing.trust import Trust

BODY = "bench"

#: Of each POST, in seconds.
TIMEOUT = 60.0


#: Begins to POST; each Deferred fires when one of the connections has no more to do.
Begin = Callable[[], list[Deferred[Any]]]


def ours(reactor: Any, url: str, count: int, connections: int) -> Begin:
    endpoint = Endpoint(reactor, url, TIMEOUT, "bench", connections, Trust())
    runs = iter([a_run(number) for number in range(count)])

    def work(done: Deferred[None], outcome: Outcome | None = None) -> None:
        if outcome is not None and outcome.status != 200:
            done.errback(Failure(RuntimeError(f"{url} answered {outcome}")))
            return
        run = next(runs, None)
        if run is None:
            done.callback(None)
        else:
            endpoint.post(run).addCallback(partial(work, done))

    def begin() -> list[Deferred[Any]]:
        workers: list[Deferred[Any]] = [Deferred() for _ in range(connections)]
        for worker in workers:
            work(worker)
        return workers

    return begin


def a_run(number: int) -> Run:
    now = datetime.now(UTC)
    return Run(
        row=1,
        token=b"t",
        key=JobKey(str(number), BODY),
        schedule=Once(),
        options=Options(),
        anchor=now,
        scheduled=now,
        due=now,
        waited=False,
        id="0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        attempt=1,
        started=now,
        successes=0,
        claimed=now,
        lease_ends=0.0,
        payload=BODY.encode(),
        timeout=TIMEOUT,
    )


def treq(reactor: Any, url: str, count: int, connections: int) -> Begin:
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = connections
    client = HTTPClient(Agent(reactor, pool=pool))
    numbers = iter(range(count))
    return lambda: [
        Deferred.fromCoroutine(post_all(client, url, numbers)) for _ in range(connections)
    ]


async def post_all(client: HTTPClient, url: str, numbers: Iterator[int]) -> None:
    """POST one after the other, until another worker has taken the last."""
    for number in numbers:
        response = await client.post(
            f"{url}{number}", data=b"bench", allow_redirects=False, unbuffered=True
        )
        if response.code != 200:
            raise RuntimeError(f"{url} answered {response.code}")
        await response.collect(lambda data: None)


def lean(reactor: Any, url: str, count: int, connections: int) -> Begin:
    parts = urlsplit(url)
    head = (
        f" HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: text/plain\r\nUser-Agent: dalga\r\n"
        "Accept-Encoding: identity\r\nDalga-Instance: bench\r\nDalga-Sched: 2014-11-11T22:11:40Z"
        "\r\nDalga-Run: 0a1b2c3d4e5f60718293a4b5c6d7e8f9\r\nDalga-Attempt: 1\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n{BODY}"
    )
    messages = iter([f"POST {parts.path}{n}{head}".encode() for n in range(count)])
    factory = Factory.forProtocol(lambda: Lean(reactor, messages))
    endpoint: Any = TCP4ClientEndpoint(reactor, parts.hostname or "", parts.port or 80)
    return lambda: [
        endpoint.connect(factory).addCallback(lambda lean: lean.done) for _ in range(connections)
    ]


class Lean(Protocol):
    """Makes one POST after the other on a connection."""

    transport: Any

    def __init__(self, reactor: Any, messages: Iterator[bytes]) -> None:
        self._reactor = reactor
        self._messages = messages
        self._parser = HttpResponseParser(self)
        self._deadline: Any = None
        self.done: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._next()

    def _next(self) -> None:
        message = next(self._messages, None)
        if message is None:
            self.done.callback(None)
            self.transport.loseConnection()
        else:
            self._deadline = self._reactor.callLater(TIMEOUT, self.transport.abortConnection)
            self.transport.write(message)

    def dataReceived(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Called by llhttp."""
        if self._parser.get_status_code() != 200:
            self.done.errback(Failure(RuntimeError("no 200")))
        self._deadline.cancel()
        self._next()


WAYS = {"ours": ours, "treq": treq, "lean": lean}


def main(reactor: Any, way: str, url: str, count: str, connections: str) -> Deferred[Any]:
    begin = WAYS[way](reactor, url, int(count), int(connections))
    gc.collect()
    gc.freeze()  # what is POSTed waits in memory: the collector is not to go through it
    before, began = getrusage(RUSAGE_SELF), time.monotonic()
    workers = begin()

    def report(_: object) -> None:
        after, ended = getrusage(RUSAGE_SELF), time.monotonic()
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(json.dumps({"cpu": cpu, "seconds": ended - began}))

    done: Deferred[Any] = DeferredList(workers, fireOnOneErrback=True, consumeErrors=True)
    return done.addCallback(report)


if __name__ == "__main__":
    react(main, sys.argv[1:])
