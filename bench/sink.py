"""
The endpoint of a benchmark: answers each POST with 200 at once, and counts.

    python -m bench.sink

Prints its port. ``GET /report`` answers with what has arrived, as JSON; ``DELETE /report`` forgets.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

from twisted.internet.protocol import Factory, Protocol

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Arrivals:
    """What has arrived since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.bodies: Counter[bytes] = Counter()
        #: Of the first and the last POST, in seconds of the monotonic clock.
        self.first = self.last = 0.0

    def add(self, body: bytes) -> None:
        self.last = time.monotonic()
        if not self.bodies:
            self.first = self.last
        self.bodies[body] += 1

    def report(self) -> bytes:
        posts = self.bodies.total()
        summary = {
            "posts": posts,
            "jobs": len(self.bodies),
            "more_than_once": posts - len(self.bodies),
            "seconds": self.last - self.first,
        }
        return json.dumps(summary).encode()


class Sink(Protocol):
    """As much of HTTP/1.1 as the benchmark's own clients speak."""

    transport: Any
    factory: Any

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, rest = self._data.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            body, self._data = rest[:length], rest[length:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        arrivals: Arrivals = self.factory.arrivals
        if head.startswith(b"POST "):
            arrivals.add(body)
        elif head.startswith(b"DELETE "):
            arrivals.reset()
        else:
            report = arrivals.report()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(report))
            self.transport.write(report)
            return
        self.transport.write(OK)


def main() -> None:
    from twisted.internet import reactor

    real: Any = reactor
    factory: Any = Factory.forProtocol(Sink)
    factory.noisy = False
    factory.arrivals = Arrivals()
    port = real.listenTCP(0, factory, backlog=1024, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    real.run()


if __name__ == "__main__":
    main()
