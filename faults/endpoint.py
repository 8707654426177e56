"""
The endpoint that jobs are POSTed to: it notes each POST, and answers as it is told to, by the book
or not.

It is HTTP by hand over Twisted's sockets, as no HTTP server misbehaves to order.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from http.client import responses
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from standardwebhooks import Webhook, WebhookVerificationError
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from faults.history import BODY, SAYING, Post, says
from faults.proxy import Listener


class Behaviour(ABC):
    """How a POST is answered."""

    @abstractmethod
    def answer(self, connection: Connection) -> None:
        """Answer the POST that is under way on a connection; it may take its time."""


#: A behaviour, or what chooses one for each POST.
Choice = Behaviour | Callable[[Post], Behaviour]


class Endpoint:
    """
    An HTTP/1.1 server on 127.0.0.1 that keeps connections. It answers 200 unless told otherwise.

    With `secrets`, each request has to be signed by one of them, as Standard Webhooks has it. A
    request that is not is noted in `unsigned`, and answered like any other.

    :param log: to which a line of JSON, a `Post`, is appended for each POST when it ends.
    """

    def __init__(self, reactor: Any, log: Path | None) -> None:
        self.reactor = reactor
        #: In the order of their start, those under way too.
        self.posts: list[Post] = []
        self.connections: set[Connection] = set()
        #: What requests may be signed with; nobody looks, if empty.
        self.secrets: list[str] = []
        #: What is wrong with signatures: a sentence for each such request.
        self.unsigned: list[str] = []
        self._log = None if log is None else log.open("a", buffering=1, encoding="utf-8")
        self._choice: Choice = Answer()
        self._by_path: dict[str, Choice] = {}
        self._waiting: list[Deferred[None]] = []
        self._listener: Listener | None = None
        self._scheme = "http"

    def listen(self, context_factory: Any = None) -> None:
        """
        Begin, on a free port.

        :param context_factory: what a server needs for TLS, certificate included; None for http.
        """
        factory: Any = Factory.forProtocol(lambda: Connection(self))
        factory.noisy = False
        if context_factory is not None:
            self._scheme = "https"
            factory = TLSMemoryBIOFactory(context_factory, False, factory)
        self._listener = Listener(self.reactor, factory)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listening.port

    @property
    def url(self) -> str:
        """What to give to Dalga as ``baseurl``."""
        return f"{self._scheme}://127.0.0.1:{self.port}/"

    def behave(self, how: Choice, path: str | None = None) -> None:
        """
        Answer the POSTs that start from now on so.

        :param path: those alone whose path's first segment this is; None for all that no other call
            has named.
        """
        if path is None:
            self._choice = how
        else:
            self._by_path[path] = how

    async def until(self, condition: Callable[[], bool]) -> None:
        """
        Wait for a condition, which is evaluated now and at each start and end of a POST.

        What awaits this goes on at that very moment: at a start before there is an answer.
        """
        while not condition():
            changed: Deferred[None] = Deferred()
            self._waiting.append(changed)
            await changed

    def down(self) -> None:
        """Reset all connections and refuse new ones."""
        self._listening.refuse()
        self._abort()

    def up(self) -> None:
        """Accept connections again, on the same port."""
        self._listening.accept()

    async def close(self) -> None:
        """End it. Returns when all connections, the port and the log are closed."""
        if self._listener is not None:
            await self._listener.stop()
        closing = [connection.lost for connection in self.connections]
        self._abort()
        await DeferredList(closing)
        if self._log is not None:
            self._log.close()

    # Called by the connections

    def started(self, connection: Connection, post: Post) -> None:
        """A POST has arrived."""
        self.posts.append(post)
        how = self._by_path.get(post.path.partition("/")[0], self._choice)
        behaviour = how if isinstance(how, Behaviour) else how(post)
        self._changed()
        behaviour.answer(connection)

    def verify(self, id: str, headers: Mapping[str, str], content: bytes) -> None:
        """
        Look at the signature of a request.

        :param id: that of its run or alert, which has to be what is signed.
        """
        if not self.secrets:
            return
        problem = ""
        if headers.get("webhook-id") != id:
            problem = f"is signed for {headers.get('webhook-id')}"
        for secret in self.secrets:
            try:
                Webhook(secret).verify(content, dict(headers), json_parse=False)
                break
            except WebhookVerificationError as error:
                failed = str(error)
        else:
            problem = failed
        if problem:
            self.unsigned.append(f"a request of {id or 'nobody'} at {time.time():.3f}: {problem}")

    def ended(self, post: Post) -> None:
        """A POST was answered, or its connection lost."""
        if self._log is not None:
            self._log.write(json.dumps(vars(post)) + "\n")
        self._changed()

    # Within

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            changed.callback(None)

    def _abort(self) -> None:
        for connection in list(self.connections):
            connection.abort()

    @property
    def _listening(self) -> Listener:
        if self._listener is None:
            raise RuntimeError("the endpoint does not listen yet")
        return self._listener


class Connection(Protocol):
    """One connection, on which POSTs are answered one after the other."""

    transport: Any

    def __init__(self, endpoint: Endpoint) -> None:
        #: The POST under way.
        self.post: Post | None = None
        #: How many POSTs have arrived on it.
        self.arrived = 0
        #: Whether anything can be said on it.
        self.open = True
        #: Fires when it is closed.
        self.lost: Deferred[None] = Deferred()
        self._endpoint = endpoint
        self._received = b""
        self._timers: set[Any] = set()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._endpoint.connections.add(self)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if self.post is None:
            self._take()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.open = False
        for timer in self._timers:
            timer.cancel()
        self._endpoint.connections.discard(self)
        self.ended(None)
        self.lost.callback(None)

    # What behaviours do

    def write(self, data: bytes) -> None:
        """Send this, unless the connection is closed."""
        if self.open:
            self.transport.write(data)

    def stream(self, pieces: Iterator[bytes], status: int) -> None:
        """Send these as fast as the client takes them, and end the answer after the last one."""
        self.transport.registerProducer(_Stream(self, pieces, status), False)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call this, unless the connection is closed before."""

        def now() -> None:
            self._timers.discard(timer)
            call()

        timer = self._endpoint.reactor.callLater(seconds, now)
        self._timers.add(timer)

    def ended(self, status: int | None) -> None:
        """The POST under way, if there is one, is over, and was answered so."""
        post, self.post = self.post, None
        if post is not None:
            post.status = status
            post.end = time.time()
            self._endpoint.ended(post)
        if self._received and self.open:
            self._take()

    def close(self) -> None:
        """Close it when all that was written has been sent."""
        self.open = False
        self.transport.loseConnection()

    def abort(self) -> None:
        """Reset it; the POST under way is over."""
        self.open = False
        self.transport.abortConnection()
        self.ended(None)

    # Within

    def _take(self) -> None:
        """Take the next request, once all of it is there."""
        head, complete, rest = self._received.partition(b"\r\n\r\n")
        if not complete:
            return
        request, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        content, self._received = rest[:length], rest[length:]
        self.arrived += 1
        method, target, _ = request.split(" ")
        path = unquote(target).removeprefix("/")
        self.post = Post(
            path=path,
            body=BODY if path.endswith(SAYING) else content.decode(errors="replace"),
            run=headers.get("dalga-run", ""),
            attempt=int(headers.get("dalga-attempt", 0)),
            scheduled=_seconds(headers.get("dalga-sched", "")),
            instance=headers.get("dalga-instance", ""),
            start=time.time(),
            says=says(method, headers.get("x-says", ""), content),
        )
        id = headers.get("dalga-run") or headers.get("dalga-alert", "")
        self._endpoint.verify(id, headers, content)
        self._endpoint.started(self, self.post)


@implementer(IPullProducer)
class _Stream:
    """Hands pieces to the transport, each when the one before it was sent."""

    def __init__(self, connection: Connection, pieces: Iterator[bytes], status: int) -> None:
        self._connection = connection
        self._pieces = pieces
        self._status = status

    def resumeProducing(self) -> None:
        piece = next(self._pieces, None)
        if piece is not None:
            self._connection.write(piece)
        else:
            self._connection.transport.unregisterProducer()
            self._connection.ended(self._status)

    def stopProducing(self) -> None:
        """The connection is lost, which it learns by itself."""


# Behaviours


@lru_cache
def message(status: int, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """An answer by the book, with "ok" as its body if it may have one."""
    lines = [f"HTTP/1.1 {status} {responses.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    has_body = status not in (204, 304)
    if has_body:
        lines.append("Content-Length: 2")
    return "\r\n".join([*lines, "", "ok" if has_body else ""]).encode("latin-1")


@dataclass(frozen=True)
class Answer(Behaviour):
    """
    An answer by the book; the connection is kept.

    :param delay: seconds.
    :param headers: pairs of name and value, such as ``("Retry-After", "2")``.
    """

    status: int = 200
    delay: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()

    def answer(self, connection: Connection) -> None:
        if self.delay:
            connection.later(self.delay, lambda: self._say(connection))
        else:
            self._say(connection)

    def _say(self, connection: Connection) -> None:
        connection.write(message(self.status, self.headers))
        connection.ended(self.status)


@dataclass(frozen=True)
class Hang(Behaviour):
    """No answer. It ends when the client closes the connection."""

    def answer(self, connection: Connection) -> None:
        pass


@dataclass(frozen=True)
class CloseAsItArrives(Behaviour):
    """
    The first POST of a connection is answered with 200; at the next one, the connection is closed.

    So it goes where a server gives an idle connection up just as it is used again.
    """

    def answer(self, connection: Connection) -> None:
        if connection.arrived == 1:
            Answer().answer(connection)
        else:
            connection.close()


@dataclass(frozen=True)
class EndlessBody(Behaviour):
    """200, and a body that goes on as long as the client reads. `Post.begun` tells of it."""

    def answer(self, connection: Connection) -> None:
        _begin(connection, 200)
        connection.write(b"HTTP/1.1 200 OK\r\n\r\n")
        connection.stream(repeat(b"x" * 65536), 200)


@dataclass(frozen=True)
class EndlessHeaders(Behaviour):
    """200, and headers that go on as long as the client reads; no line of them is long."""

    def answer(self, connection: Connection) -> None:
        connection.write(b"HTTP/1.1 200 OK\r\n")
        connection.stream((b"X-Header-%d: %b\r\n" % (n, b"x" * 1000) for n in count()), 200)


@dataclass(frozen=True)
class Drip(Behaviour):
    """
    An answer by the book that comes a byte at a time.

    :param every: seconds.
    """

    every: float = 1.0
    status: int = 200

    def answer(self, connection: Connection) -> None:
        self._drip(connection, message(self.status))

    def _drip(self, connection: Connection, rest: bytes) -> None:
        connection.write(rest[:1])
        if rest[1:]:
            connection.later(self.every, lambda: self._drip(connection, rest[1:]))
        else:
            connection.ended(self.status)


@dataclass(frozen=True)
class GzipBomb(Behaviour):
    """
    200, and a body that becomes large when it is unpacked. `Post.begun` tells of it.

    :param megabytes: how large.
    """

    megabytes: int = 10_000

    def answer(self, connection: Connection) -> None:
        _begin(connection, 200)
        connection.write(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.stream(map(_chunk, chain(_zeros(self.megabytes), [b""])), 200)


@dataclass(frozen=True)
class Redirect(Behaviour):
    """Elsewhere, by any of the statuses that say so."""

    url: str
    status: int = 302

    def answer(self, connection: Connection) -> None:
        Answer(self.status, headers=(("Location", self.url),)).answer(connection)


@dataclass(frozen=True)
class Http10(Behaviour):
    """200 in HTTP/1.0, whose body ends with the connection."""

    def answer(self, connection: Connection) -> None:
        connection.write(b"HTTP/1.0 200 OK\r\n\r\nok")
        connection.close()
        connection.ended(200)


@dataclass(frozen=True)
class Chunked(Behaviour):
    """200 with a body in chunks; the connection is kept."""

    def answer(self, connection: Connection) -> None:
        chunks = b"".join(map(_chunk, (b"o", b"k", b"")))
        connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        connection.ended(200)


@dataclass(frozen=True)
class Continue100(Behaviour):
    """
    100 Continue, which nobody has asked for, and then 200.

    :param pause: seconds between the two.
    """

    pause: float = 0.0

    def answer(self, connection: Connection) -> None:
        connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        Answer(delay=self.pause).answer(connection)


@dataclass(frozen=True)
class NoContentWithBody(Behaviour):
    """
    204 and a body after all, which may pass for the next answer on the connection.

    The POST ends with the 204, and the next one is taken even before the body has gone out.

    :param announced: whether there is a Content-Length.
    :param pause: seconds between the two.
    """

    body: bytes = message(200)
    announced: bool = False
    pause: float = 0.0

    def answer(self, connection: Connection) -> None:
        length = b"Content-Length: %d\r\n" % len(self.body) if self.announced else b""
        head = b"HTTP/1.1 204 No Content\r\n" + length + b"\r\n"
        if self.pause:
            connection.write(head)
            connection.later(self.pause, lambda: connection.write(self.body))
        else:
            connection.write(head + self.body)
        connection.ended(204)


def _seconds(text: str) -> int:
    """RFC 3339 as whole seconds since the epoch; 0 for none."""
    return int(datetime.fromisoformat(text).timestamp()) if text else 0


def _begin(connection: Connection, status: int) -> None:
    if connection.post is not None:
        connection.post.begun = status


def _chunk(data: bytes) -> bytes:
    """As RFC 9112 section 7.1 has it; the empty one is the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _zeros(megabytes: int) -> Iterator[bytes]:
    """
    A gzip file (RFC 1952) of so many MiB of zeros, in pieces.

    Compressing all of them would take the reactor's time. The first MiB refers to nothing before
    it, so it does for all.
    """
    megabyte = bytes(2**20)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    compressed = deflate.compress(megabyte) + deflate.flush(zlib.Z_SYNC_FLUSH)
    yield b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    checksum = 0
    for _ in range(megabytes):
        checksum = zlib.crc32(megabyte, checksum)
        yield compressed
    yield deflate.flush() + struct.pack("<II", checksum, megabytes * 2**20 % 2**32)
