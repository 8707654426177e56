"""
The way through a proxy: CONNECT (RFC 9110 section 9.3.6), for https and for http.

    we        CONNECT app.example:443 HTTP/1.1
    proxy     HTTP/1.1 200 OK
    we        what goes to app.example:443: TLS, or a request

The proxy sees the host and the port, and under TLS nothing else. Anything but a 2xx is a failure,
and nothing was sent to the host then. There is no second try without the proxy (P11).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from dalga import __version__
from dalga.model.address import as_in_url
from dalga.outgoing.failures import PostFailed, no_tunnel, start_of

#: At most this much of a proxy's answer is read, in octets: its status line and headers, with those
#: of interim (1xx) answers before it.
MAX_HEAD = 16 * 1024

_START = b"HTTP/1."
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy of HTTP."""

    host: str
    port: int
    #: The value of the header Proxy-Authorization, in ASCII; "" for none.
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        """For sentences: its host and port."""
        return f"the proxy {as_in_url(self.host, self.port)}"


class ProxyAnswer(NamedTuple):
    """What a proxy has answered."""

    status: int
    #: What came behind the headers. A 2xx has no body, whatever its headers say.
    rest: bytes


def answer_of(received: bytes) -> ProxyAnswer | None:
    """
    Read a proxy's answer, by its status line alone: nothing in its headers is of use.

    :param received: all that the proxy has sent.
    :return: None if the headers have not ended yet.
    :raises ValueError: with what the proxy did, if that is no answer.
    """
    rest = received
    while True:
        if not _START.startswith(rest[: len(_START)]):
            raise ValueError(f"answered no HTTP: {start_of(rest)}")
        end = _END_OF_HEAD.search(rest)
        if end is None:
            if len(received) > MAX_HEAD:
                raise ValueError(f"answered with headers longer than {MAX_HEAD // 1024} KiB")
            return None
        line = _STATUS_LINE.match(rest)
        if line is None:
            raise ValueError(f"answered malformed HTTP: {start_of(rest)}")
        status, rest = int(line[1]), rest[end.end() :]
        if status > 199:  # else it is an interim answer (RFC 9110 section 15.2)
            return ProxyAnswer(status, rest)


@implementer(IStreamClientEndpoint)
class Tunnel:
    """
    Connects to a target through a proxy.

    :param to_proxy: connects to the proxy.
    :param target: host and port, as a URL has them.
    """

    def __init__(self, to_proxy: Any, proxy: Proxy, target: str) -> None:
        self._to_proxy = to_proxy
        self._proxy = proxy
        self._target = target
        self._asking = Factory.forProtocol(lambda: _Asking(self._proxy, self._target))
        self._asking.noisy = False

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """
        See `IStreamClientEndpoint`.

        :raises PostFailed: in the Deferred, if the proxy makes no connection.
        """
        connecting: Deferred[Any] = self._to_proxy.connect(self._asking)
        return connecting.addCallback(lambda asking: asking.ask_for(protocolFactory))


class _Asking(Protocol):
    """A connection to a proxy, which becomes one to the target."""

    transport: Any

    def __init__(self, proxy: Proxy, target: str) -> None:
        self._proxy = proxy
        self._target = target
        self._received = b""
        self._factory: Any = None
        #: Fires with the protocol of the connection to the target; None when nobody waits for it.
        self._awaited: Deferred[Any] | None = None
        #: The protocol of the connection to the target, once there is one.
        self._inner: Any = None

    def ask_for(self, factory: Any) -> Deferred[Any]:
        """
        Ask for a connection to the target.

        :param factory: builds its protocol.
        :return: fires with the protocol. Cancelling it drops the connection.
        """
        lines = [
            f"CONNECT {self._target} HTTP/1.1",
            f"Host: {self._target}",
            f"User-Agent: dalga/{__version__}",
        ]
        if self._proxy.authorization:
            lines.append(f"Proxy-Authorization: {self._proxy.authorization}")
        self._factory = factory
        self._awaited = Deferred(lambda _: self._drop())
        self.transport.write("\r\n".join([*lines, "", ""]).encode("ascii"))
        return self._awaited

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
        elif self._awaited is not None:
            self._received += data
            try:
                answer = answer_of(self._received)
            except ValueError as problem:
                self._fail(str(problem))
            else:
                if answer is not None:
                    self._answered(answer)

    def _answered(self, answer: ProxyAnswer) -> None:
        if answer.status == 407:
            self._fail("answered 407 (it wants another user or password)")
        elif not 200 <= answer.status <= 299:
            self._fail(f"answered {answer.status}")
        elif answer.rest:
            # The target has to wait for the request. No request may take this for its answer (P2).
            self._fail("sent something behind its answer")
        else:
            self._connected()

    def _connected(self) -> None:
        awaited, self._awaited = self._awaited, None
        self._received = b""
        self._inner = self._factory.buildProtocol(self.transport.getPeer())
        self._inner.makeConnection(self.transport)
        assert awaited is not None
        awaited.callback(self._inner)

    def _fail(self, what: str) -> None:
        """:param what: what the proxy did."""
        awaited = self._awaited
        self._drop()
        assert awaited is not None
        awaited.errback(Failure(PostFailed(no_tunnel(str(self._proxy), what, self._target))))

    def _drop(self) -> None:
        self._awaited = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif self._awaited is not None:
            self._fail("closed the connection")
