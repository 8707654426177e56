"""
The connections to the endpoint: `Pool`, which treq calls as its agent.

    Pool.request   starts the deadline of an exchange, and finds a connection for it:
      some idle    the connection that was used last
      none idle    a new one: `Route` looks the host up and connects

The answer to an exchange comes back through treq. The connection is kept for the next exchange if
the end of the answer is certain.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IDelayedCall,
    IHostnameResolver,
    IReactorPluggableNameResolver,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from dalga.errors import ConfigError
from dalga.model.address import HOST_NAME, as_in_url
from dalga.outgoing.deadlines import Deadlines
from dalga.outgoing.failures import PostFailed, Stage
from dalga.outgoing.lookup import Addresses, Lookup
from dalga.outgoing.trust import HostConnections, Trust
from dalga.outgoing.tunnel import Proxy, Tunnel
from dalga.outgoing.wire import Connection, Exchange

#: How long an idle connection is kept for the next POST, in seconds. Servers close idle connections
#: after 2 s (gunicorn) or 5 s (Apache, Node, uvicorn). A POST that is sent while the server closes
#: the connection is lost, and has to be retried. In a backlog a connection is hardly ever idle.
IDLE = 1.5

#: How long to wait for one of a host's addresses before the next is tried as well, in seconds: the
#: least that RFC 8305 section 5 recommends. ``localhost`` is two addresses, and often only the
#: second listens.
NEXT_ADDRESS = 0.1


class Way(NamedTuple):
    """The way to a host, beside its URL and the trusted CAs."""

    #: The name that the host's certificate must have; "" for the host itself.
    verify_name: str = ""
    #: Whether an address (a text) may be connected to; None if all may. Not for a host behind a
    #: proxy, which looks up the host by itself.
    allows: Callable[[str], bool] | None = None
    #: The proxy on the way; None for none.
    proxy: Proxy | None = None


#: The way to most hosts.
STRAIGHT = Way()


class Route:
    """
    The way to the host and port of ``baseurl``. No POST goes anywhere else (P11). Nothing of the
    environment is looked at, such as ``https_proxy``.

    :param timeout: an address that takes no connection is given up after this many seconds.
    """

    def __init__(
        self, reactor: Any, baseurl: str, timeout: float, trust: Trust, way: Way = STRAIGHT
    ) -> None:
        parts = urlsplit(baseurl)
        if parts.scheme not in ("http", "https"):
            raise ConfigError(f"baseurl is {baseurl!r}: it takes an http:// or https:// URL")
        tls = parts.scheme == "https"
        host = parts.hostname or ""
        if not isIPv6Address(host) and not HOST_NAME.fullmatch(host):
            raise ConfigError(f"baseurl is {baseurl!r}: {host!r} can't be a host's name")
        port = parts.port or (443 if tls else 80)
        self._name = as_in_url(host, port)
        self._reactor = reactor
        self._timeout = timeout
        self._tls: HostConnections | None = None
        if tls:
            self._tls = trust.for_host(way.verify_name or host)
        self._proxy = way.proxy
        if way.proxy is None:
            #: See `dalga.outgoing.failures.Server`.
            self.resolved, self.peer = host, self._name
            self.lookup = Lookup(reactor, host, port, way.allows)
        else:
            self.resolved, self.peer = way.proxy.host, str(way.proxy)
            self.lookup = Lookup(reactor, way.proxy.host, way.proxy.port)
        usual = port == (443 if tls else 80)
        #: RFC 9110 section 7.2.
        self.host_header = self._name.rpartition(":")[0] if usual else self._name

    def connect(self, addresses: Addresses, factory: Any) -> Deferred[Any]:
        """
        Open a connection to the first of the host's addresses that takes a connection, or through
        the first of the proxy's.

        :return: fires with the protocol that the factory has built.
        """
        endpoint: Any = HostnameEndpoint(
            _KnownAddresses(self._reactor, addresses),
            "endpoint",
            0,  # each address has its port
            timeout=self._timeout,
            attemptDelay=NEXT_ADDRESS,
        )
        if self._proxy is not None:
            endpoint = Tunnel(endpoint, self._proxy, self._name)
        if self._tls is not None:
            endpoint = wrapClientTLS(self._tls, endpoint)
        connected: Deferred[Any] = endpoint.connect(factory)
        return connected.addErrback(self._not_connected)

    @property
    def certificate_expires(self) -> datetime | None:
        """See `HostConnections`. None without TLS."""
        return None if self._tls is None else self._tls.certificate_expires

    def _not_connected(self, failure: Failure) -> Failure:
        if not failure.check(PostFailed):  # else the proxy has answered
            self.lookup.doubt()
        return failure

    def __str__(self) -> str:
        return self._name


@implementer(IReactorPluggableNameResolver, IHostnameResolver)
class _KnownAddresses:
    """
    A stand-in for the reactor, whose resolver gives the addresses that `Lookup` has found.

    `HostnameEndpoint` races the addresses of a host (RFC 8305). It takes them from its reactor's
    resolver only.
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


@implementer(IAgent)
class Pool:
    """
    The connections to one origin: those that are idle, and all that are open.

    It never repeats a request by itself: each attempt of a run is one POST at most (P3).

    :param slots: at most this many idle connections are kept. The caller of `request` bounds the
        number of exchanges that are under way at once.
    """

    def __init__(self, reactor: Any, route: Route, slots: int) -> None:
        self._reactor = reactor
        self._route = route
        self._slots = slots
        self._deadlines = Deadlines(reactor)
        #: Since when each is idle, in the reactor's seconds; the one that was used last is last.
        self._idle: dict[Connection, float] = {}
        self._open: set[Connection] = set()
        #: The timer of `_end_idle`, which is set while connections are idle.
        self._end_of_idle: IDelayedCall | None = None
        self._closed = False
        self._factory: Any = Factory.forProtocol(lambda: Connection(reactor, self))
        self._factory.noisy = False

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: Any = None,
    ) -> Deferred[IResponse]:
        """
        Make an exchange. Called by treq.

        :param bodyProducer: the `Exchange`. Its `octets` are sent and nothing else: treq's method,
            URL and headers are not looked at.
        """
        exchange: Exchange = bodyProducer
        exchange.start(self._deadlines)
        connection = self._take(exchange.began)
        if connection is not None:
            exchange.send(connection)
        else:
            exchange.stage = Stage.RESOLVING
            addresses = self._route.lookup.addresses()
            exchange.await_connection(addresses.addCallback(self._connect, exchange))
        return exchange.answer

    def resize(self, slots: int) -> None:
        """
        Keep at most this many idle connections from now on. Those that are idle stay until a POST
        takes them, or for `IDLE` seconds.
        """
        self._slots = slots

    def _connect(self, addresses: Addresses, exchange: Exchange) -> Deferred[Connection]:
        exchange.stage = Stage.CONNECTING
        return self._route.connect(addresses, self._factory)

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._deadlines.pending

    def close(self) -> Deferred[None]:
        """
        Close the idle connections, and keep no connection from now on. Exchanges go on to their
        end.

        :return: fires when the idle connections are closed, which takes little more than
            `dalga.outgoing.wire.CLOSING` seconds at most.
        """
        self._closed = True
        self._deadlines.close()
        if self._end_of_idle is not None:
            self._end_of_idle.cancel()
            self._end_of_idle = None
        while self._idle:
            self._idle.popitem()[0].close()
        # A connection that was dropped in this turn of the reactor is closed in the next turn. It
        # carries no exchange and is still in `_open`, so it is waited for.
        ending = [each.closed for each in self._open if not each.carries]
        closed: Deferred[Any] = DeferredList(ending)
        return closed.addCallback(lambda _: None)

    # The idle connections

    def _take(self, now: float) -> Connection | None:
        """
        Take an idle connection out of those that are kept; None if there is none.

        :param now: in the reactor's seconds.
        """
        while self._idle:
            connection, since = self._idle.popitem()
            if now - since >= IDLE:  # the timer is late
                connection.close()
            elif connection.is_quiet:
                return connection
            else:
                # The server has closed it, and a POST would be lost. Or the server has sent bytes
                # that nobody asked for, and a POST would take them for its answer (P2).
                connection.drop()
        return None

    def _end_idle(self) -> None:
        """Close the connections that have been idle for too long."""
        self._end_of_idle = None
        now = self._reactor.seconds()
        for connection, since in list(self._idle.items()):
            if since + IDLE > now:
                self._end_of_idle = self._reactor.callLater(since + IDLE - now, self._end_idle)
                break
            del self._idle[connection]
            connection.close()

    # Called by the connections

    def opened(self, connection: Connection) -> None:
        """See `dalga.outgoing.wire.Keeper`."""
        self._open.add(connection)

    def keep(self, connection: Connection) -> None:
        """See `dalga.outgoing.wire.Keeper`."""
        if self._closed:
            connection.close()
            return
        if len(self._idle) >= self._slots:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.close()
        self._idle[connection] = self._reactor.seconds()
        if self._end_of_idle is None:
            self._end_of_idle = self._reactor.callLater(IDLE, self._end_idle)

    def forget(self, connection: Connection) -> None:
        """See `dalga.outgoing.wire.Keeper`."""
        self._idle.pop(connection, None)

    def lost(self, connection: Connection) -> None:
        """See `dalga.outgoing.wire.Keeper`."""
        self._idle.pop(connection, None)
        self._open.discard(connection)
