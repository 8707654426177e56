"""
Connections: how many there may be, how long each may take, and the answers to octets that are no
request.

twisted.web would answer some of these octets by itself, and wait in vain for the rest of others.
Here all of them get an answer like those of the API. `dalga.web.request` has the complete requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from http import HTTPStatus
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from dalga.errors import DalgaError
from dalga.health import Health
from dalga.metrics import Metrics
from dalga.model.delivery import MAX_PAYLOAD
from dalga.operations import Operations
from dalga.web.api import OPEN_PATHS, Api
from dalga.web.auth import Failures, Tokens
from dalga.web.bodies import BodyRoom, largest_body, too_large
from dalga.web.errors import (
    BodyTooLarge,
    HeadTooLarge,
    MalformedRequest,
    NoRoom,
    Problem,
    SlowRequest,
    problem_of,
)
from dalga.web.head import (
    check_beginning,
    check_head,
    check_header_beginning,
    header_refusal,
    line_too_long,
    request_line,
)
from dalga.web.origins import LOOPBACK, Doors
from dalga.web.request import ApiRequest

#: How long a client that sends nothing keeps its connection, in seconds, by default.
IDLE_TIMEOUT = 60.0

#: How long a request may take to arrive, from its first byte to its last, in seconds, by default.
#: Without this limit, a byte now and then would hold a connection for ever.
ARRIVAL_TIMEOUT = 30.0

#: How many connections there may be at once, if the process may open as many files. An idle
#: connection takes some kilobytes, and a request's head 16 KiB at most. `BodyRoom` says what the
#: bodies of all of them take.
MAX_CONNECTIONS = 20_000

#: How long a client whose request was refused may go on sending before it reads the answer, in
#: seconds.
LINGER = 15

#: Everybody may do everything.
NO_TOKENS = Tokens()

#: How long a stop waits for requests, in seconds, at most: as long as a request that has arrived
#: takes to be answered, whatever the database does.
ANSWERING = 5.0

#: How long a stop waits for the first request of a new connection, in seconds. A client sends it as
#: soon as it knows that it is connected.
FIRST_REQUEST = 0.2


def make_site(
    operations: Operations,
    health: Health,
    reactor: IReactorTime,
    idle_timeout: float = IDLE_TIMEOUT,
    arrival_timeout: float = ARRIVAL_TIMEOUT,
    max_connections: int = MAX_CONNECTIONS,
    tokens: Tokens = NO_TOKENS,
    doors: Doors | None = LOOPBACK,
) -> ApiSite:
    """
    :param health: its metrics count the requests, too.
    :param reactor: for the time-outs of connections.
    :param idle_timeout: how long a client that sends nothing keeps its connection, in seconds.
    :param arrival_timeout: how long a request may take to arrive, in seconds.
    :param max_connections: how many connections there may be at once.
    :param tokens: those of the configuration.
    :param doors: what the configuration says of requests; None where whoever sends a request makes
        no difference.
    :return: the factory to listen with.
    """
    return ApiSite(
        Api(operations, health).app.resource(),
        health.metrics,
        reactor,
        operations.now,
        idle_timeout,
        arrival_timeout,
        max_connections,
        largest_body(operations.allowed.max_payload),
        tokens,
        OPEN_PATHS,
        doors,
    )


#: What there is where numbers alone are shown.
NUMBERS = frozenset({b"/metrics", b"/health", b"/ready"})

#: How many connections there may be there.
NUMBERS_CONNECTIONS = 100


class _Only(Resource):
    """Some paths of another resource, and no others."""

    isLeaf = True

    def __init__(self, resource: IResource, paths: Collection[bytes]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._resource = resource
        self._paths = paths

    def render(self, request: ApiRequest) -> Any:
        """Called with each request."""
        if request.path in self._paths:
            return self._resource.render(request)
        paths = ", ".join(sorted(path.decode("ascii") for path in self._paths))
        return request.refuse(
            Problem(HTTPStatus.NOT_FOUND, f"there is nothing here: this address has {paths} alone")
        )


def make_numbers_site(operations: Operations, health: Health, reactor: IReactorTime) -> ApiSite:
    """
    The factory to listen with where `NUMBERS` alone are, open to all.

    See `make_site`.
    """
    return ApiSite(
        _Only(Api(operations, health).app.resource(), NUMBERS),
        health.metrics,
        reactor,
        operations.now,
        max_connections=NUMBERS_CONNECTIONS,
        largest=largest_body(0),
    )


@implementer(IHalfCloseableProtocol)
class ApiChannel(HTTPChannel):
    """
    One connection.

    A request that is refused before all of it has come is answered at once. Then the connection is
    closed for writing, and read on for `LINGER` seconds (RFC 9112 section 9.6). To close it with
    unread data would reset it, and the client might never see the answer.

    A client may close its side as soon as it has sent its requests. They are answered all the same.

    During a stop, each answer says that the connection is closed, and closes it.

    Over TLS, a side is closed by TLS's close_notify: to close the socket's side would lose what TLS
    has not sent yet.
    """

    site: ApiSite
    transport: ITCPTransport
    requests: list[ApiRequest]
    #: Whether a request is complete, and not answered yet.
    answering = False
    #: Whether a request was answered.
    kept = False
    _refused = False
    #: The header that is read just now.
    _header: bytes | None = None
    _lingering: IDelayedCall | None = None
    _arriving: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Called when there is a connection."""
        self.site.note(self)
        super().connectionMade()  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """Called with whatever comes."""
        if self._arriving is None:
            self.site.note(self)
            self._arriving = self.site.reactor.callLater(self.site.arrival_timeout, self._too_slow)
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self.line_mode and self._buffer and self.delimiter not in self._buffer:
            # A line without its end is refused as soon as nothing can make a request of it.
            try:
                (check_header_beginning if self.requests else check_beginning)(self._buffer)
            except DalgaError as error:
                self._refuse(error)

    def allContentReceived(self) -> None:
        """Called when a request is complete, also if its headers were refused."""
        if self._refused:
            return
        self._arrived()
        self.answering = True
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Called with the head of each answer."""
        if self.site.stopping:
            self.persistent = False
            headers.setRawHeaders(b"Connection", [b"close"])
        super().writeHeaders(version, code, reason, headers)  # type: ignore[no-untyped-call]

    def requestDone(self, request: Request) -> None:
        """Called when a request is answered. Begins the next request if it has come already."""
        self.answering = False
        self.kept = True
        self.site.note(self)
        super().requestDone(request)  # type: ignore[no-untyped-call]

    @property
    def is_encrypted(self) -> bool:
        """Whether it is a connection of TLS."""
        return isinstance(self.transport, TLSMemoryBIOProtocol)

    @property
    def idle(self) -> bool:
        """Whether no request has begun, and no refusal has to be read yet."""
        return not (self.requests or self._buffer or self._refused)

    def readConnectionLost(self) -> None:
        """
        Called when the client has closed its side, and again after each answer, since Twisted reads
        on after an answer.
        """
        if self.answering:
            return
        if (self.requests or self._buffer) and not self._refused:
            self._refuse(MalformedRequest("the connection was closed within a request"))
        else:
            self.loseConnection()

    def writeConnectionLost(self) -> None:
        """Called when this side is closed."""

    def _too_slow(self) -> None:
        if self.requests or self._buffer:
            within = f"within {self.site.arrival_timeout:g} seconds"
            self._refuse(SlowRequest(f"the request was not there to its end {within}"))
            self.loseConnection()  # at once: a slow client gets no time to go on sending
        else:
            self.transport.abortConnection()

    def _arrived(self) -> None:
        if self._arriving is not None and self._arriving.active():
            self._arriving.cancel()
        self._arriving = None

    def lineReceived(self, line: bytes) -> None:
        """Called with each line up to the end of the headers."""
        if line and not self.requests:
            try:
                line = request_line(line)
            except DalgaError as error:
                self._refuse(error)
                return
        super().lineReceived(line)  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, line: bytes) -> None:
        """Called for a line that is too long. Twisted would close the connection without a word."""
        self._refuse(line_too_long(line, self.MAX_LENGTH, not self.requests))

    def headerReceived(self, line: bytes) -> bool:
        """Called with each header."""
        self._header = line
        try:
            return bool(super().headerReceived(line))  # type: ignore[no-untyped-call]
        except ValueError:
            # A Content-Length of more digits than int() takes.
            self._refuse(too_large(self.site.largest_body))
            return False
        finally:
            self._header = None

    def allHeadersReceived(self) -> None:
        """Called once the headers are there. If they are refused, no 100 Continue is sent."""
        try:
            headers = self.requests[-1].requestHeaders
            is_coded = headers.hasHeader(b"Transfer-Encoding")
            check_head(self._version, headers.getRawHeaders(b"Host", []), is_coded)
            super().allHeadersReceived()  # type: ignore[no-untyped-call]
        except (MalformedRequest, BodyTooLarge, NoRoom) as error:
            self._refuse(error)

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """
        Whether the connection is kept after this request.

        The Connection header is a list (RFC 9110 section 7.6.1). twisted.web does not split it at
        its commas, so "close" is looked for here.
        """
        lines = request.requestHeaders.getRawHeaders(b"Connection", [])
        if b"close" in {word.strip().lower() for line in lines for word in line.split(b",")}:
            request.requestHeaders.setRawHeaders(b"Connection", [b"close"])
        return bool(super().checkPersistence(request, version))  # type: ignore[no-untyped-call]

    def rawDataReceived(self, data: bytes) -> None:
        """Called with the octets that come after the headers."""
        if self._refused:
            return
        try:
            super().rawDataReceived(data)
        except (BodyTooLarge, NoRoom) as error:
            self._refuse(error)

    def loseConnection(self) -> None:
        """Called to close the connection: by `requestDone`, or later by the idle time-out."""
        if self._refused and self._lingering is None:
            self._lingering = self.site.reactor.callLater(LINGER, self.transport.abortConnection)
            if not self.is_encrypted:
                self.transport.loseWriteConnection()
                return
        super().loseConnection()  # type: ignore[no-untyped-call]
        if self.site.stopping and self.is_encrypted:
            # An idle client may never answer the close_notify, and need not (RFC 8446 section 6.1).
            cast(TLSMemoryBIOProtocol, self.transport).transport.loseConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Called when the connection is closed."""
        self.site.forget(self)
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        self._arrived()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Called by twisted.web where it can't read a request."""
        if (
            self._receivedHeaderSize > self.totalHeadersSize
            or self._receivedHeaderCount > self.maxHeaders
        ):
            most = f"{self.totalHeadersSize} octets and {self.maxHeaders} headers at most"
            self._refuse(HeadTooLarge(f"the request's head is too large: it takes {most}"))
        elif self._header is not None:
            self._refuse(header_refusal(self._header, self._transferDecoder is not None))
        elif self.line_mode:
            self._refuse(MalformedRequest("the request line is missing, or can't be read"))
        else:
            self._refuse(
                MalformedRequest(
                    "the body's chunks can't be read: each takes its length in hexadecimal digits, "
                    "CR LF, so many octets, and CR LF"
                )
            )

    def _refuse(self, error: DalgaError) -> None:
        """Answer with the error, and handle no further octets of this connection."""
        if self._refused:
            return
        problem = problem_of(error)
        assert problem is not None
        self._refused = True
        self.persistent = False
        self.setRawMode()  # type: ignore[no-untyped-call]
        if not self.requests:
            self.requests.append(ApiRequest(self))  # type: ignore[no-untyped-call]
        request = self.requests[-1]
        request.method = getattr(self, "_command", b"")  # HEAD has an answer without a body
        request.clientproto = b"HTTP/1.1"
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        request.write(request.refuse(problem))  # type: ignore[no-untyped-call]
        request.finish()


class ApiSite(Site):
    """
    The factory of connections.

    :param metrics: counts the requests.
    :param reactor: for the time-outs of connections.
    :param now: the time now, by the database's clock. Logins end by it.
    :param idle_timeout: how long a client that sends nothing keeps its connection, in seconds.
    :param arrival_timeout: how long a request may take to arrive, in seconds.
    :param max_connections: how many connections there may be at once. Past that, a new connection
        takes the place of the one that has waited longest for its client: for a request to begin,
        or for the rest of a request.
    :param largest: the largest body that a request may have, in octets.
    :param tokens: those of the configuration.
    :param open_paths: the paths of the requests that need no token.
    :param doors: what the configuration says of requests; None where whoever sends a request makes
        no difference.
    """

    protocol = ApiChannel  # type: ignore[assignment]
    noisy = False

    def __init__(
        self,
        resource: IResource,
        metrics: Metrics,
        reactor: IReactorTime,
        now: Callable[[], datetime],
        idle_timeout: float = IDLE_TIMEOUT,
        arrival_timeout: float = ARRIVAL_TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
        largest: int = largest_body(MAX_PAYLOAD),
        tokens: Tokens = NO_TOKENS,
        open_paths: Collection[bytes] = (),
        doors: Doors | None = None,
    ) -> None:
        self.metrics = metrics
        self.arrival_timeout = arrival_timeout
        self.largest_body = largest
        #: May be replaced at any time.
        self.tokens = tokens
        self.doors = doors
        self.now = now
        self.open_paths = open_paths
        #: The requests without a valid token.
        self.failures = Failures(reactor)
        #: What the bodies of all connections take.
        self.room = BodyRoom()
        self._max_connections = max_connections
        #: The open connections, in the order in which their last request began or was answered.
        self.channels: dict[ApiChannel, None] = {}
        #: Whether `drain` was called.
        self.stopping = False
        #: `drain` waits for it.
        self._drained: Deferred[None] | None = None
        super().__init__(  # type: ignore[no-untyped-call]
            resource,
            requestFactory=ApiRequest,
            timeout=idle_timeout,
            reactor=reactor,
            parsePOSTFormSubmission=False,
        )

    def reconfigure(
        self, idle_timeout: float, arrival_timeout: float, max_connections: int, largest: int
    ) -> None:
        """Go by these from now on: see the class. Connections keep the idle time-out they have."""
        self.timeOut = idle_timeout
        self.arrival_timeout = arrival_timeout
        self.largest_body = largest
        self._max_connections = max_connections

    def note(self, channel: ApiChannel) -> None:
        """A connection is new, or a request on it has begun or been answered."""
        self.channels.pop(channel, None)
        if len(self.channels) >= self._max_connections:
            # Idle connections are not closed before those with half a request. A connection that
            # was just opened is idle too: if somebody begins many requests and ends none, each new
            # client would be the first to go.
            waiting = (other for other in self.channels if not other.answering)
            oldest = next(waiting, channel)
            self.channels.pop(oldest, None)
            oldest.transport.abortConnection()
            if oldest is channel:
                return
        self.channels[channel] = None

    def forget(self, channel: ApiChannel) -> None:
        """A connection is closed."""
        self.channels.pop(channel, None)
        if not self.channels:
            self._end_drain()

    async def drain(self, grace: float) -> int:
        """
        After the ports have stopped listening: answer the requests that have begun, and close their
        connections. Close idle connections at once, and new ones after `FIRST_REQUEST` seconds.

        :param grace: the longest wait, in seconds. Then the connections that are left are cut off:
            the rest of a request has not come, or the client does not take its answer.
        :return: how many connections were cut off.
        """
        self.stopping = True
        # A turn of the reactor: requests that wait in sockets are read. To close a connection with
        # unread octets would reset it.
        await deferLater(self.reactor, 0)
        self._close_idle(kept=True)
        if self.channels:
            drained: Deferred[None] = Deferred()
            self._drained = drained
            timers = [
                self.reactor.callLater(min(grace, FIRST_REQUEST), self._close_idle, False),
                self.reactor.callLater(grace, self._end_drain),
            ]
            await drained
            for timer in timers:
                if timer.active():
                    timer.cancel()
        left = list(self.channels)
        for channel in left:
            channel.transport.abortConnection()
        return len(left)

    def _close_idle(self, kept: bool) -> None:
        """:param kept: only those that have had an answer."""
        for channel in list(self.channels):
            if channel.idle and (channel.kept or not kept):
                channel.loseConnection()

    def _end_drain(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)

    def startFactory(self) -> None:
        """Open no access log. Twisted's method opens one, and keeps the time for it each second."""

    def stopFactory(self) -> None:
        """Called when the ports have been closed. There is no access log to be closed."""
        self.failures.close()
