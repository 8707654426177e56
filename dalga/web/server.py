"""
Connections: how many there may be, how long each may take, and what is answered to a request that
never becomes one.

What twisted.web would answer by itself, or wait for in vain, gets an answer like all others. What a
request that is there to its end asks for is not looked at here.
"""

from __future__ import annotations

from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
    ITCPTransport,
)
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from zope.interface import implementer

from dalga.errors import DalgaError
from dalga.operations import Jobs
from dalga.web.api import Api
from dalga.web.bodies import too_large
from dalga.web.errors import (
    BodyTooLarge,
    HeadTooLarge,
    MalformedRequest,
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
from dalga.web.request import ApiRequest

#: How long a client that sends nothing keeps its connection, in seconds; the default.
IDLE_TIMEOUT = 60.0

#: How long a request may take to arrive, from its first byte to its last, in seconds; the default.
#: Without that, a byte now and then would hold a connection for ever.
ARRIVAL_TIMEOUT = 30.0

#: How many connections there may be at once, where there are files enough. An idle one takes some
#: kilobytes.
MAX_CONNECTIONS = 20_000

#: How long a client whose request was refused may go on sending before it reads why, in seconds.
LINGER = 15


def make_site(
    jobs: Jobs,
    reactor: IReactorTime,
    idle_timeout: float = IDLE_TIMEOUT,
    arrival_timeout: float = ARRIVAL_TIMEOUT,
    max_connections: int = MAX_CONNECTIONS,
) -> Site:
    """
    :param reactor: for the time-outs of connections.
    :param idle_timeout: how long a client that sends nothing keeps its connection, in seconds.
    :param arrival_timeout: how long a request may take to arrive, in seconds.
    :param max_connections: how many there may be at once.
    :return: the factory to listen with.
    """
    return ApiSite(
        Api(jobs).app.resource(), reactor, idle_timeout, arrival_timeout, max_connections
    )


@implementer(IHalfCloseableProtocol)
class ApiChannel(HTTPChannel):
    """
    One connection.

    Where a request is refused before it is there to its end, the answer goes out at once; then the
    connection is closed for writing and read on for a while, as RFC 9112 section 9.6 has it: to
    close it with unread data would reset it, and the client might never see the answer.

    A client may close its side as soon as it has sent its requests; they are answered all the same.
    """

    site: ApiSite
    transport: ITCPTransport
    requests: list[ApiRequest]
    #: Whether a request is there to its end, and not answered yet.
    answering = False
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
            # A line without its end. What can become no request is not waited for.
            try:
                (check_header_beginning if self.requests else check_beginning)(self._buffer)
            except DalgaError as error:
                self._refuse(error)

    def allContentReceived(self) -> None:
        """Called when a request is there to its end, also where its headers were refused."""
        if self._refused:
            return
        self._arrived()
        self.answering = True
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def requestDone(self, request: Request) -> None:
        """Called when a request is answered. The next may be there, and begun by this."""
        self.answering = False
        self.site.note(self)
        super().requestDone(request)  # type: ignore[no-untyped-call]

    def readConnectionLost(self) -> None:
        """
        Called when the client has closed its side; after each answer once more, as that resumes to
        read.
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
            self.loseConnection()  # what still comes is not read on for
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
        """Called where a line takes no end. Twisted would close the connection without a word."""
        self._refuse(line_too_long(line, self.MAX_LENGTH, not self.requests))

    def headerReceived(self, line: bytes) -> bool:
        """Called with each header."""
        self._header = line
        try:
            return bool(super().headerReceived(line))  # type: ignore[no-untyped-call]
        except ValueError:
            # A Content-Length of more digits than int() takes.
            self._refuse(too_large())
            return False
        finally:
            self._header = None

    def allHeadersReceived(self) -> None:
        """Called once the headers are there; where they are refused, no 100 Continue is sent."""
        try:
            headers = self.requests[-1].requestHeaders
            is_coded = headers.hasHeader(b"Transfer-Encoding")
            check_head(self._version, headers.getRawHeaders(b"Host", []), is_coded)
            super().allHeadersReceived()  # type: ignore[no-untyped-call]
        except (MalformedRequest, BodyTooLarge) as error:
            self._refuse(error)

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """
        Called to know whether the connection is kept after this request: its Connection header is a
        list (RFC 9110 section 7.6.1), of which twisted.web takes the commas for parts of its words.
        """
        lines = request.requestHeaders.getRawHeaders(b"Connection", [])
        if b"close" in {word.strip().lower() for line in lines for word in line.split(b",")}:
            request.requestHeaders.setRawHeaders(b"Connection", [b"close"])
        return bool(super().checkPersistence(request, version))  # type: ignore[no-untyped-call]

    def rawDataReceived(self, data: bytes) -> None:
        """Called with what comes after the headers."""
        if self._refused:
            return
        try:
            super().rawDataReceived(data)
        except BodyTooLarge as error:
            self._refuse(error)

    def loseConnection(self) -> None:
        """Called to close the connection, by `requestDone` first and by the idle time-out later."""
        if self._refused and self._lingering is None:
            self._lingering = self.site.reactor.callLater(LINGER, self.transport.abortConnection)
            self.transport.loseWriteConnection()
        else:
            super().loseConnection()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Called when the connection is closed."""
        self.site.channels.pop(self, None)
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
        """Answer, and hear nothing more."""
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
        request.finish()  # type: ignore[no-untyped-call]


class ApiSite(Site):
    """
    The factory of connections.

    :param reactor: for their time-outs.
    :param idle_timeout: how long a client that sends nothing keeps its connection, in seconds.
    :param arrival_timeout: how long a request may take to arrive, in seconds.
    :param max_connections: how many there may be at once; past that, each new one takes the place
        of the one that has been waited for longest: it is idle, or takes long to send a request.
    """

    protocol = ApiChannel  # type: ignore[assignment]
    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        idle_timeout: float = IDLE_TIMEOUT,
        arrival_timeout: float = ARRIVAL_TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.arrival_timeout = arrival_timeout
        self._max_connections = max_connections
        #: Those that are open, in the order in which their last request began or was answered.
        self.channels: dict[ApiChannel, None] = {}
        super().__init__(  # type: ignore[no-untyped-call]
            resource,
            requestFactory=ApiRequest,
            timeout=idle_timeout,
            reactor=reactor,
            parsePOSTFormSubmission=False,
        )

    def note(self, channel: ApiChannel) -> None:
        """A connection is new, or a request on it has begun or been answered."""
        self.channels.pop(channel, None)
        if len(self.channels) >= self._max_connections:
            # Idle ones don't go before half-sent requests: one that has just come is idle, too, and
            # would be the first to go where somebody opens many and ends no request.
            waiting = (other for other in self.channels if not other.answering)
            oldest = next(waiting, channel)
            self.channels.pop(oldest, None)
            oldest.transport.abortConnection()
            if oldest is channel:
                return
        self.channels[channel] = None

    def startFactory(self) -> None:
        """Twisted's opens an access log and keeps the time for it, once a second; there is none."""

    def stopFactory(self) -> None:
        """There is no access log to be closed."""
