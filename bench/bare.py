"""
The reference of a drain: plain treq POSTs over a pool, and nothing else.

    python -m bench.bare URL COUNT CONNECTIONS
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import react
from twisted.web.client import Agent, HTTPConnectionPool


async def post_all(client: HTTPClient, url: str, numbers: Iterator[int]) -> None:
    """POST one after the other, until another worker has taken the last."""
    for number in numbers:
        response = await client.post(
            f"{url}{number}", data=b"bench", allow_redirects=False, unbuffered=True
        )
        if response.code != 200:
            raise RuntimeError(f"{url} answered {response.code}")
        await response.collect(lambda data: None)


def main(reactor: Any, url: str, count: str, connections: str) -> Deferred[Any]:
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = int(connections)
    client = HTTPClient(Agent(reactor, pool=pool))
    numbers = iter(range(int(count)))
    workers = [
        Deferred.fromCoroutine(post_all(client, url, numbers)) for _ in range(int(connections))
    ]
    done: Deferred[Any] = DeferredList(workers, fireOnOneErrback=True, consumeErrors=True)
    return done.addCallback(lambda _: pool.closeCachedConnections())


if __name__ == "__main__":
    react(main, sys.argv[1:])
