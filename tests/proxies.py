"""A small proxy that knows CONNECT alone, over real sockets, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"

#: What a proxy does that was asked: the connection, and the head of the request.
Answer = Callable[["Asked", bytes], None]


def connects(answer: bytes = CONNECTED) -> Answer:
    """What a proxy does that connects to where it was asked to, and answers with these bytes."""
    return lambda asked, head: asked.connect(head, answer)


def answers(octets: bytes, close: bool = False) -> Answer:
    """What a proxy does that answers with these bytes, and connects to nothing."""

    def say(asked: Asked, head: bytes) -> None:
        asked.transport.write(octets)
        if close:
            asked.transport.loseConnection()

    return say


def keeps_silent(asked: Asked, head: bytes) -> None:
    """What a proxy does that never answers."""


def wants(authorization: str) -> Answer:
    """What a proxy does that lets one user in."""

    def check(asked: Asked, head: bytes) -> None:
        if f"\r\nProxy-Authorization: {authorization}\r\n".encode() in head + b"\r\n":
            asked.connect(head, CONNECTED)
        else:
            asked.transport.write(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b'Proxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
            )

    return check


class Asked(Protocol):
    """The proxy's side of a connection of a client."""

    transport: Any

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.lost: Deferred[None] = Deferred()
        self._received = b""
        self._asked = False
        self.target: Target | None = None

    def dataReceived(self, data: bytes) -> None:
        if self.target is not None:
            self.target.transport.write(data)
            return
        self._received += data
        if not self._asked and b"\r\n\r\n" in self._received:
            self._asked = True
            head, _, rest = self._received.partition(b"\r\n\r\n")
            assert rest == b"", "the client did not wait for the answer"
            self.proxy.heads.append(head)
            self.proxy.answer(self, head)

    def connect(self, head: bytes, answer: bytes) -> None:
        """Connect to the target that the head names, and answer then."""
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        host = self.proxy.hosts.get(host, host)
        endpoint = TCP4ClientEndpoint(self.proxy.reactor, host, int(port), timeout=5)
        connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(lambda: Target(self)))
        connecting.addCallbacks(lambda _: self.transport.write(answer), self._refused)

    def _refused(self, failure: Failure) -> None:
        self.transport.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.target is not None:
            self.target.transport.loseConnection()
        self.lost.callback(None)


class Target(Protocol):
    """The proxy's side of a connection to a target."""

    transport: Any

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def connectionMade(self) -> None:
        self._asked.target = self
        self._asked.proxy.through += 1

    def dataReceived(self, data: bytes) -> None:
        self._asked.proxy.seen += data
        self._asked.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._asked.transport.loseConnection()


class Proxy(Factory):
    noisy = False

    def __init__(self, reactor: Any, answer: Answer) -> None:
        self.reactor = reactor
        self.answer = answer
        #: The head of each request.
        self.heads: list[bytes] = []
        #: How many connections to targets there were, and what the targets have sent.
        self.through = 0
        self.seen = b""
        self.connections: list[Asked] = []
        #: Addresses of names that this proxy alone can resolve.
        self.hosts: dict[str, str] = {}
        self.port = 0

    def buildProtocol(self, addr: object) -> Asked:
        asked = Asked(self)
        self.connections.append(asked)
        return asked
