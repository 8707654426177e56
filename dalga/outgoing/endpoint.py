"""
POST a job with treq, and say what came of it.

One attempt of a run goes in and one `Outcome` comes out, whatever the server at ``baseurl`` does:
it may refuse, keep silent, answer for ever, or answer something that is not HTTP. Nothing that it
sends makes Dalga call another scheme, host or port than ``baseurl``'s (P11), fill its memory (P10),
or wait longer than the time-out (P3).

A POST is made like this, all of it in the reactor's thread::

    Endpoint.post     starts the deadline, and hands the whole request to treq as if it were a body
    _Post.request     is called by treq, and asks the pool for a connection
      idle one        the pool gives it
      none idle       _Post.connect looks the host up and connects, by the _Route
    _Connection       writes the request (under TLS, once the handshake is over), reads the head
    _Drain            reads the body to its end or to `MAX_BODY`, and forgets it
    _Post.outcome     fires, once: with the status, or with why there is none

treq's and Twisted's handling of URLs, headers, cookies, redirects and retries is kept out of it:
`_StandIn`, `_Message`, `_NoCookies` and `_Pool` say why.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from hyperlink import EncodedURL
from OpenSSL.SSL import Error as TLSError
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.interfaces import (
    IHandshakeListener,
    IHostnameResolver,
    IReactorPluggableNameResolver,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

# A pool's connection has no public home.
from twisted.web._newclient import (
    HTTP11ClientProtocol,
    HTTPClientParser,
    ParseError,
    RequestNotSent,
)
from twisted.web.client import (
    HTTPConnectionPool,
    ResponseDone,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from dalga import __version__
from dalga.errors import ConfigError
from dalga.log import logger
from dalga.model.address import HOST_NAME
from dalga.model.key import target_path
from dalga.model.run import Outcome, Run
from dalga.model.schedule import timestamp
from dalga.outgoing.lookup import Addresses, Lookup
from dalga.outgoing.trust import Refused, Trust

log = logger(__name__)

#: How much of an answer's body is read, in bytes. Only the status counts: where the body is longer,
#: the connection is dropped, and the rest of the body is not read.
MAX_BODY = 64 * 1024

#: How long an answer's status line and headers may be together, interim (1xx) ones included, in
#: bytes. A single line may be as long as that for Twisted, too.
MAX_HEAD = 16 * 1024

#: How long an idle connection is kept for the next POST, in seconds. Servers close idle ones after
#: 2 (gunicorn) or 5 (Apache, Node, uvicorn), and a POST that crosses the closing is lost and has to
#: be retried. In a backlog a connection is hardly ever idle.
IDLE = 1.5

#: How long to wait for one of a host's addresses before the next is tried as well, in seconds: the
#: least that RFC 8305 section 5 recommends. ``localhost`` is two addresses, and often only the
#: second listens.
NEXT_ADDRESS = 0.1

#: How long `Endpoint.close` waits for the other side to close too, in seconds.
CLOSING = 1.0

#: Answers that end with their headers, whatever these say (RFC 9112 section 6.3).
BODILESS = frozenset((HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED))

_STATUS_LINE = re.compile(rb"[^ ]+ [0-9]{3}( |$)")
_LENGTH = re.compile(rb"[0-9]{1,4000}")  # of more digits, int makes no number

#: What a longer Retry-After is clamped to (31 years).
MAX_RETRY_AFTER = timedelta(seconds=999_999_999)


class _StandIn(EncodedURL):
    """
    The URL that treq is given, and that nobody goes by: all POSTs go where `_Route` says. treq
    would put a real URL through IDNA for each POST, which takes time, and refuses IPv6 addresses
    and the underscores in containers' names.
    """

    def to_uri(self) -> EncodedURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return "http://endpoint/"


STAND_IN = _StandIn("http", "endpoint")


class Endpoint:
    """
    The application's endpoint, to which jobs are POSTed.

    :param reactor: the deadline is measured with its ``seconds``.
    :param baseurl: an http or https URL that `dalga.config.load` lets pass: ASCII, and without
        user, query and fragment.
    :param timeout: how long to wait for a connection, in seconds. A POST's deadline is its run's.
    :param instance: what this instance calls itself, for the ``dalga-instance`` header.
    :param slots: how many POSTs are under way at most; as many connections are kept.
    :param trust: whose certificates are taken from an https endpoint.
    :param headers: names and values, in ASCII, of further headers of each POST. Content-Type and
        User-Agent take the place of Dalga's own; no other header of Dalga's is among them.
    :raises ConfigError: where `baseurl`'s scheme or host can't be used.
    """

    def __init__(
        self,
        reactor: Any,
        baseurl: str,
        timeout: float,
        instance: str,
        slots: int,
        trust: Trust,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._reactor = reactor
        self._route = _Route(reactor, baseurl, timeout, trust)
        #: What a message begins with, and which of its headers are always the same.
        self._start = f"POST {urlsplit(baseurl).path.rstrip('/')}"
        self._headers = (
            f"Host: {self._route.host_header}\r\n"
            f"{_lines(headers)}"
            # Nothing invites compression, which would have to be undone (P10).
            "Accept-Encoding: identity\r\n"
            f"Dalga-Instance: {re.sub('[^!-~]', '?', instance)}\r\n"
        )
        self._pool = _Pool(reactor, slots)
        self._no_cookies = _NoCookies()

    def post(self, run: Run) -> Deferred[Outcome]:
        """
        Make one attempt of a run.

        The Deferred never fails. It fires within the run's time-out, counted from this call;
        cancelling it gives an outcome too. Once it has fired, nothing more of the POST is sent or
        awaited (P3).
        """
        post = _Post(self._reactor, run.timeout, self._route, self._pool)
        post.watch(maybeDeferred(self._send, post, run))
        return post.outcome

    def stop_resolving(self) -> None:
        """
        End the POSTs that wait for the resolver. Nothing of them was sent, so any instance may make
        the next attempt at once.
        """
        self._route.lookup.give_up()

    def close(self) -> Deferred[None]:
        """
        Close the idle connections, and keep none from now on. POSTs under way go on to their end.

        Fires when they are closed, which takes little more than `CLOSING` seconds at most.
        """
        self._route.lookup.close()
        return self._pool.close()

    def _send(self, post: _Post, run: Run) -> Deferred[Any]:
        as_body: Any = _Message  # the whole request, where treq has a producer of the body
        return HTTPClient(post, self._no_cookies, as_body).post(
            STAND_IN,
            data=self._message(run),
            cookies=self._no_cookies,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )

    def _message(self, run: Run) -> bytes:
        """The whole POST, as RFC 9112 section 2.1 has it."""
        body = run.payload
        head = (
            f"{self._start}{target_path(run.key.path)} HTTP/1.1\r\n"
            f"{self._headers}"
            f"Dalga-Sched: {timestamp(run.scheduled)}\r\n"
            f"Dalga-Run: {run.id}\r\n"
            f"Dalga-Attempt: {run.attempt}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "\r\n"
        )
        return head.encode("ascii") + body


def _lines(headers: Iterable[tuple[str, str]]) -> str:
    """Header lines: the given headers, and Content-Type and User-Agent also if not given."""
    lines = {"content-type": "Content-Type: text/plain"}
    lines["user-agent"] = f"User-Agent: dalga/{__version__}"
    lines |= {name.lower(): f"{name}: {value}" for name, value in headers}
    return "".join(f"{line}\r\n" for line in lines.values())


class Stage(Enum):
    """How far a POST has come. One on an idle connection never resolves nor connects."""

    #: It has not asked for a connection yet.
    NEW = auto()
    #: It waits for the addresses of its host.
    RESOLVING = auto()
    #: It waits for one of the addresses to take a connection.
    CONNECTING = auto()
    #: It has a connection, and has written nothing.
    CONNECTED = auto()
    #: It has handed its message to the connection, which under TLS sends it after the handshake.
    SENDING = auto()


@implementer(IAgent, IStreamClientEndpoint)
class _Post:
    """
    One POST under its deadline. It plays three parts:

    - treq's innermost agent (`request`), so the octets that it passes on are those that are sent;
    - the pool's way to a new connection (`connect`), so it knows the `Stage` to name in an error;
    - the holder of the connection that carries the POST, so it can drop that at any time.

    The first of answer, failure, deadline and cancellation makes the outcome (`_end`). What is
    still going on of the POST is dropped then, and its later failure is not heard.
    """

    def __init__(self, reactor: Any, timeout: float, route: _Route, pool: _Pool) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._route = route
        self._pool = pool
        self._began: float = reactor.seconds()
        self._deadline = reactor.callLater(timeout, self._too_late)
        self._answer: Deferred[Any] | None = None
        self._connection: _Connection | None = None
        self._stage = Stage.NEW
        self._ended = False
        self.outcome: Deferred[Outcome] = Deferred(lambda _: self._given_up())

    def watch(self, answer: Deferred[Any]) -> None:
        """Make the outcome from treq's answer or failure."""
        self._answer = answer
        answer.addCallbacks(self._answered, self._failed)
        # A mistake in this class must not hold the slot for ever.
        answer.addErrback(self._failed)

    # As the innermost agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        Send the message that treq was given as a body, and nothing of treq's own headers, which
        would invite gzip.
        """
        as_way: Any = self
        got: Deferred[Any] = self._pool.getConnection(self._route.key, as_way)
        got.addCallback(self._connected)
        got.addCallback(self._send, bodyProducer)
        return got.addCallback(self._as_it_came)

    # As the way to a new connection

    def connect(self, factory: Any) -> Deferred[Any]:
        """Called by the pool where no connection is idle."""
        self._stage = Stage.RESOLVING
        return self._route.lookup.addresses().addCallback(self._connect, factory)

    def _connect(self, addresses: Addresses, factory: Any) -> Deferred[Any]:
        self._stage = Stage.CONNECTING
        return self._route.connect(addresses, factory)

    def _as_it_came(self, response: Any) -> Any:
        """Hide the Content-Encoding from treq, which would unpack the body (P10)."""
        response.headers.removeHeader(b"content-encoding")
        return response

    def _connected(self, connection: _Connection) -> _Connection:
        self._connection = connection
        self._stage = Stage.CONNECTED
        connection.carrying = True
        # The deadline's timer is not enough. When a process that was stopped (SIGSTOP) while it
        # connected goes on, the reactor sees to its sockets first and to its timers then. Where
        # the server has spoken meanwhile (some send a 408 to a silent client), one event both makes
        # the connection and sends the message.
        if self._reactor.seconds() >= self._deadline.getTime():
            self._too_late()
            raise TimeoutError  # so that nothing is written
        return connection

    def _send(self, connection: _Connection, message: Any) -> Deferred[Any]:
        self._stage = Stage.SENDING
        return connection.request(message)

    # What comes of it

    def _answered(self, response: Any) -> None:
        if response.version[0] != b"HTTP" or not 200 <= response.code <= 999:
            name, major, minor = response.version
            start = b"%b/%d.%d %d" % (name, major, minor, response.code)
            self._fail(f"the answer is not HTTP: {_start_of(start)}")
            return
        response.deliverBody(_Drain(lambda reason: self._drained(response, reason)))

    def _drained(self, response: Any, reason: Failure | None) -> None:
        """:param reason: why no more of the body comes; None where it was cut at `MAX_BODY`."""
        if reason is not None and not reason.check(ResponseDone, PotentialDataLoss):
            self._failed(reason)
            return
        retry_after = None
        if values := response.headers.getRawHeaders(b"retry-after"):
            retry_after = parse_retry_after(values[0])
        self._end(response.code, "", retry_after, drop=reason is None)

    def _failed(self, failure: Failure) -> None:
        if self._ended:
            return  # `_end` has dropped the connection, and this is how it fails
        in_handshake = self._stage is Stage.SENDING and not self._has_sent
        error = describe(failure, self._route, in_handshake)
        if error is None:
            log.failure("a POST to {route} failed in an unexpected way", failure, route=self._route)
            error = "internal error, which Dalga's log describes"
        self._fail(error)

    def _too_late(self) -> None:
        within = f"within {self._timeout:g} s"
        if self._has_sent:
            self._fail(f"no answer {within}")
            return
        match self._stage:
            case Stage.RESOLVING:
                what = f"could not resolve host name {self._route.host}"
            case Stage.CONNECTING:
                what = f"could not connect to {self._route}"
            case Stage.NEW | Stage.CONNECTED:
                what = f"no time was left for the POST to {self._route}"
            case Stage.SENDING:
                what = f"could not agree on TLS with {self._route}"
        self._fail(f"{what} {within}, nothing was sent")

    def _given_up(self) -> None:
        before = "there was an answer" if self._has_sent else "anything was sent"
        self._fail(f"given up before {before}")

    @property
    def _has_sent(self) -> bool:
        """Whether the server may have got the POST, or a part of it."""
        connection = self._connection
        return self._stage is Stage.SENDING and connection is not None and connection.is_open

    def _fail(self, error: str) -> None:
        self._end(None, error, None, drop=True)

    def _end(
        self,
        status: int | None,
        error: str,
        retry_after: timedelta | datetime | None,
        *,
        drop: bool,
    ) -> None:
        if self._ended:
            return
        self._ended = True
        if self._deadline.active():
            self._deadline.cancel()
        if drop and self._answer is not None:
            self._answer.cancel()  # while resolving, connecting or waiting for the headers
        if self._connection is not None:
            if drop:
                self._connection.abort_now()
            self._connection.carrying = False
        elapsed = self._reactor.seconds() - self._began
        self.outcome.callback(Outcome(status, elapsed, error, retry_after))


class _Message:
    """
    A whole request as octets, written in one go.

    Twisted's `Request` copies and checks its headers one by one, and writes its body through a
    chain of producers. With treq's work on the URL and on cookies, that was half of a POST's time.
    """

    # As `HTTP11ClientProtocol` asks of a request.
    method = b"POST"
    persistent = True

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def writeTo(self, transport: Any) -> Deferred[None]:
        """Called by the connection."""
        transport.write(self._octets)
        return succeed(None)

    def stopWriting(self) -> None:
        """There is nothing left to stop."""


class _NoCookies(IndexableCookieJar):
    """
    Keeps no cookie and sends none: an answer to one job must not change the POST of the next.
    """

    def add_cookie_header(self, request: Any) -> None:
        """There are none."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """An answer's cookies are not looked at."""


class _Route:
    """The way to ``baseurl``'s host and port: the only one there is, whatever the URL (P11)."""

    def __init__(self, reactor: Any, baseurl: str, timeout: float, trust: Trust) -> None:
        parts = urlsplit(baseurl)
        if parts.scheme not in ("http", "https"):
            raise ConfigError(f"baseurl is {baseurl!r}: it takes an http:// or https:// URL")
        tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        if not isIPv6Address(self.host) and not HOST_NAME.fullmatch(self.host):
            raise ConfigError(f"baseurl is {baseurl!r}: {self.host!r} can't be a host's name")
        port = parts.port or (443 if tls else 80)
        self._name = f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"
        self._reactor = reactor
        self._timeout = timeout
        self._tls = trust.for_host(self.host) if tls else None
        self.lookup = Lookup(reactor, self.host, port)
        #: The pool's key for its connections.
        self.key = (parts.scheme.encode(), self.host.encode(), port)
        usual = port == (443 if tls else 80)
        #: RFC 9110 section 7.2.
        self.host_header = self._name.rpartition(":")[0] if usual else self._name

    def connect(self, addresses: Addresses, factory: Any) -> Deferred[Any]:
        """
        Open a connection to the first of the host's addresses that takes one.

        :return: fires with the protocol that the factory has built.
        """
        endpoint: Any = HostnameEndpoint(
            _Resolved(self._reactor, addresses),
            "endpoint",
            0,  # each address has its port
            timeout=self._timeout,
            attemptDelay=NEXT_ADDRESS,
        )
        if self._tls is not None:
            endpoint = wrapClientTLS(self._tls, endpoint)
        connected: Deferred[Any] = endpoint.connect(factory)
        return connected.addErrback(self._not_connected)

    def _not_connected(self, failure: Failure) -> Failure:
        self.lookup.doubt()
        return failure

    def __str__(self) -> str:
        return self._name


@implementer(IReactorPluggableNameResolver, IHostnameResolver)
class _Resolved:
    """
    The reactor, where any name resolves to the addresses that have been looked up.

    Twisted connects to several addresses (RFC 8305) only where it has resolved their name itself.
    """

    def __init__(self, reactor: Any, addresses: Addresses) -> None:
        self._reactor = reactor
        self._addresses = addresses
        self.nameResolver = self

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: object = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """See `IHostnameResolver`."""
        resolutionReceiver.resolutionBegan(self)
        for address in self._addresses:
            resolutionReceiver.addressResolved(address)
        resolutionReceiver.resolutionComplete()
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class _Pool(HTTPConnectionPool):
    """
    Keeps idle connections for the next POST, and knows all connections that are open.

    It repeats no request by itself, as Twisted's may: an attempt is one POST, and counts as one.
    """

    retryAutomatically = False
    cachedConnectionTimeout = IDLE  # type: ignore[assignment]

    def __init__(self, reactor: Any, slots: int) -> None:
        super().__init__(reactor)  # type: ignore[no-untyped-call]
        self.maxPersistentPerHost = slots
        self.open: set[_Connection] = set()
        self.closed = False
        self._factory: Any = self._connections_of

    def _connections_of(self, keep: Callable[[_Connection], None], _name: str) -> Any:
        factory: Any = Factory.forProtocol(lambda: _Connection(self, keep))
        factory.noisy = False
        return factory

    def close(self) -> Deferred[None]:
        """See `Endpoint.close`."""
        self.closed = True
        self.closeCachedConnections()  # type: ignore[no-untyped-call]
        # Connections that have just been dropped are among them until the reactor's next turn.
        ending = [connection for connection in self.open if not connection.carrying]

        def abort() -> None:
            for connection in ending:
                connection.abort_now()

        impatience = self._reactor.callLater(CLOSING, abort)
        closed: Deferred[Any] = DeferredList([connection.closed for connection in ending])

        def done(_: object) -> None:
            if impatience.active():
                impatience.cancel()

        return closed.addCallback(done)


@implementer(IHandshakeListener)
class _Connection(HTTP11ClientProtocol):
    """
    A connection to the endpoint.

    It fails an answer whose headers don't end (`MAX_HEAD`). And it is kept for another POST only
    where the answer's end is certain: a rest of one answer must not be taken for the next job's.
    """

    def __init__(self, pool: _Pool, keep: Callable[[_Connection], None]) -> None:
        super().__init__(self._quiescent)  # type: ignore[no-untyped-call]
        self._pool = pool
        self._keep = keep
        #: Whether a POST is under way on it.
        self.carrying = False
        #: Whether written octets go out at once: always without TLS, after the handshake with it.
        self.is_open = False
        #: Fires when it is closed.
        self.closed: Deferred[None] = Deferred()
        #: Fires with the answer's head; None while none is awaited.
        self._awaited: Deferred[IResponse] | None = None
        #: How many more octets the head may have; below 0 it was too long.
        self._room = MAX_HEAD

    def connectionMade(self) -> None:
        self._pool.open.add(self)
        self.is_open = not ISSLTransport.providedBy(self.transport)
        super().connectionMade()

    def handshakeCompleted(self) -> None:
        """Called at the end of TLS's handshake."""
        self.is_open = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._pool.open.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.closed.callback(None)

    def abort_now(self) -> None:
        """
        Drop the connection. (``loseConnection`` would first send all that was written, and under
        TLS wait for the other side's consent.)
        """
        transport: Any = self.transport
        transport.abortConnection()

    def request(self, request: Any) -> Deferred[IResponse]:
        """Send a request; the Deferred fires with the answer's headers."""
        self._room = MAX_HEAD
        self._awaited = super().request(request)
        if self._parser is not None:
            # Twisted's `request` has just made the parser; its class can't be given to it.
            self._parser.__class__ = _Parser
        return self._awaited.addBoth(self._heard)

    def _heard(self, result: IResponse | Failure) -> IResponse | Failure:
        self._awaited = None
        return result if self._room >= 0 else Failure(_HeadTooLong())

    def dataReceived(self, data: bytes) -> None:
        awaited = self._awaited
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        # Twisted limits each line, not their number (P10).
        if awaited is not None and awaited is self._awaited:
            self._room -= len(data)
            if self._room < 0:
                awaited.cancel()

    def _quiescent(self, _: HTTP11ClientProtocol) -> None:
        if self._pool.closed or not self._is_reusable():
            transport: Any = self.transport
            transport.loseConnection()
        else:
            self._keep(self)

    def _is_reusable(self) -> bool:
        """
        Whether the other side keeps the connection too (RFC 9112 section 9.3), and the answer has
        ended for certain.

        Twisted looks for "close" in lower case only, and takes HTTP/1.0 for HTTP/1.1.
        """
        assert self._parser is not None
        response, headers = self._parser.response, self._parser.connHeaders
        words = b",".join(headers.getRawHeaders(b"connection", [])).lower().split(b",")
        options = {word.strip() for word in words}
        if b"close" in options:
            return False
        if response.code in BODILESS:
            return False  # a body that it can't have would be taken for the next run's answer
        if headers.hasHeader(b"transfer-encoding") and headers.hasHeader(b"content-length"):
            return False  # RFC 9112 section 6.3: somebody on the way may take the other one's word
        return response.version[0] == b"HTTP" and (
            response.version >= (b"HTTP", 1, 1) or b"keep-alive" in options
        )


class _Parser(HTTPClientParser):
    """
    Reads an answer. Where Twisted's parser raises any exception, such as KeyError, this one raises
    `ParseError` or `Malformed`, which say what can't be read.
    """

    def lineReceived(self, line: bytes) -> None:
        """
        Called with each line of the status and the headers.

        :raises ParseError: for a first line that is no status line.
        :raises Malformed: for a header.
        """
        try:
            super().lineReceived(line)  # type: ignore[no-untyped-call]
        except (ParseError, Malformed):
            raise
        except Exception as error:
            header = b"".join(self._partialHeader or [line.rstrip(b"\r")])
            raise Malformed(f"{_start_of(header)} is no header") from error

    def statusReceived(self, status: bytes) -> None:
        """
        Called with the first line (RFC 9112 section 4).

        :raises ParseError: where it is no status line; Twisted takes 2_00 and +200 for 200.
        """
        if not _STATUS_LINE.match(status):
            raise ParseError("no status line", status)
        super().statusReceived(status)  # type: ignore[no-untyped-call]

    def allHeadersReceived(self) -> None:
        """
        Called with the empty line.

        :raises Malformed: where the headers don't say how long the body is.
        """
        if self.response.code >= 200 and self.response.code not in BODILESS:
            self._check_length()
        super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def _check_length(self) -> None:
        coding, length = b"transfer-encoding", b"content-length"
        if not self.connHeaders.hasHeader(coding):
            given = self.connHeaders.getRawHeaders(length, [])
            if len(given) == 1 and _LENGTH.fullmatch(given[0]):
                return  # as nearly all answers have it
        codings = _members(self.connHeaders, coding)
        # "identity" was in HTTP once, and said nothing (RFC 2616 section 3.6; RFC 9112 section 7).
        codings = [each.lower() for each in codings if each.lower() != b"identity"]
        if codings == [b"chunked"]:
            self.connHeaders.setRawHeaders(coding, codings)
            return
        if codings:
            raise Malformed(f"its Transfer-Encoding is {_start_of(b', '.join(codings))}")
        self.connHeaders.removeHeader(coding)
        lengths = _members(self.connHeaders, length)
        if (
            len({each.lstrip(b"0") for each in lengths}) > 1
            or (self.connHeaders.hasHeader(length) and not lengths)
            or not all(_LENGTH.fullmatch(each) for each in lengths)
        ):
            raise Malformed(f"its Content-Length is {_start_of(b', '.join(lengths))}")

    def rawDataReceived(self, data: bytes) -> None:
        """
        Called with the body's octets as they come.

        :raises Malformed: where they are not in chunks (RFC 9112 section 7.1), though announced so.
        """
        try:
            super().rawDataReceived(data)  # type: ignore[no-untyped-call]
        except Exception as error:
            raise Malformed("its body is not in the chunks that its headers announce") from error


def _members(headers: Headers, name: bytes) -> list[bytes]:
    """The members of a header that is a list (RFC 9110 section 5.6.1)."""
    values = b",".join(headers.getRawHeaders(name, []))
    return [member.strip() for member in values.split(b",") if member.strip()]


class Malformed(Exception):
    """
    An answer is no HTTP.

    :param args: why, as the rest of a sentence that begins with "the answer is malformed HTTP:".
    """


class _Drain(Protocol):
    """
    Reads an answer's body to its end, or to `MAX_BODY`, and keeps nothing of it.

    :param ended: called once, with Twisted's reason for the body's end, such as `ResponseDone`;
        with None for a body that is longer than `MAX_BODY`.
    """

    def __init__(self, ended: Callable[[Failure | None], None]) -> None:
        self._ended = ended
        self._room = MAX_BODY

    def dataReceived(self, data: bytes) -> None:
        if self._room >= 0:
            self._room -= len(data)
            if self._room < 0:
                self._ended(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._room >= 0:
            self._ended(reason)


class _HeadTooLong(Exception):
    """An answer's status line and headers were longer than `MAX_HEAD`."""


def describe(failure: Failure, route: _Route, in_handshake: bool) -> str | None:
    """
    Why there was no answer, in a few words for the operator's log.

    :param in_handshake: whether there was a connection, and TLS was still to be agreed on.
    :return: None for what was not expected to happen.
    """
    outer = failure.value
    error = outer
    while reasons := getattr(error, "reasons", None):  # Twisted's wrappers
        error = reasons[0].value
    match error:
        case DNSLookupError():
            return f"could not resolve host name {route.host}: {error.args[0]}"
        case ConnectionRefusedError():
            return f"connection refused by {route}"
        case TimeoutError():
            return f"{route} took too long to accept the connection"
        case ConnectError(osError=int(number)):
            return f"could not connect to {route}: {os.strerror(number)}"
        case ConnectError():
            return f"could not connect to {route}"
        case Refused(why=why):
            return f"TLS: the certificate of {route} {why}"
        case TLSError():
            return f"TLS with {route} failed: {_tls_reason(error)}"
        case ConnectionClosed() if in_handshake:
            return f"{route} closed the connection in the TLS handshake, nothing was sent"
        case RequestNotSent():
            return "the connection was closed before the POST"
        case ConnectionClosed() if isinstance(outer, ResponseNeverReceived):
            return "the connection was closed before an answer"
        case ConnectionClosed():
            return "the connection was closed in the middle of the answer"
        case _HeadTooLong():
            return f"the answer's headers are longer than {MAX_HEAD // 1024} KiB"
        case ParseError(data=bytes(data)):
            return f"the answer is not HTTP: {_start_of(data)}"
        case Malformed():
            return f"the answer is malformed HTTP: {error}"
    return None


def _tls_reason(error: Any) -> str:
    """The words of OpenSSL's error queue, such as "certificate verify failed"."""
    entries = error.args[0] if error.args else ()
    if isinstance(entries, list | tuple):
        words = [str(entry[-1]) for entry in entries if entry and entry[-1]]
        if "wrong version number" in words:
            return "what answers there does not speak TLS"
        if words:
            return ", ".join(words)[:200]
    return "OpenSSL gives no reason"


def _start_of(data: bytes) -> str:
    return repr(data[:60])[1:] + ("..." if len(data) > 60 else "")


def parse_retry_after(value: bytes) -> timedelta | datetime | None:
    """
    Read a Retry-After header (RFC 9110 section 10.2.3).

    :return: a delay, or an instant as aware UTC datetime; None for what is neither. A delay longer
        than `MAX_RETRY_AFTER` is clamped to it.
    """
    value = value.strip()
    if re.fullmatch(rb"[0-9]+", value):
        digits = value.lstrip(b"0") or b"0"
        return MAX_RETRY_AFTER if len(digits) > 9 else timedelta(seconds=int(digits))
    if len(value) > 64:
        return None
    try:
        instant = parsedate_to_datetime(value.decode("ascii"))
        if instant.tzinfo is None:  # asctime's form names no zone: HTTP knows but one
            return instant.replace(tzinfo=UTC)
        return instant.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
