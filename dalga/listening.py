"""
The sockets of the HTTP interface.

The sockets are opened before the daemon detaches or gives up its privileges. So the person who
starts the daemon is told why an address can't be had. Workers share them, as they are forks.

    listen              a host and a port: a socket for each address of the host
    listen_at           a Twisted server endpoint string, such as ``unix:/run/dalga.sock``
    Listener.adopt      has a reactor accept connections on a socket, for a site
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory

from dalga.endpointstrings import OF_STRINGS, Asked, Entrance, asked
from dalga.errors import StartupError
from dalga.log import logger
from dalga.model.address import as_in_url, is_loopback
from dalga.unixsockets import UnixPort, identity, listen_on_path, remove

log = logger(__name__)

#: How many ports are tried where any port will do and the host has several addresses. A port that
#: is free at the first address may be taken at the next one.
ANY_PORTS = 20

#: The errors of bind(2) on a machine that does not have the address, or has no IPv6.
_NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

#: The family of an address, its host and its port.
_Address = tuple[int, str, int]

#: How many connections the kernel makes, for each socket, before anybody accepts them.
BACKLOG = 1024

#: The keys by which another address can be chosen, for sentences.
OF_LISTEN = "host and port in [listen]"


class _Front(Factory):
    """
    The factory of a port's connections, which may be exchanged while the port is open.

    :param site: is told when the port opens, and when it is closed, whatever is exchanged between.
    """

    noisy = False

    def __init__(self, site: IProtocolFactory, inner: IProtocolFactory) -> None:
        self._site = site
        self.inner = inner

    def startFactory(self) -> None:
        """Called when the port is open."""
        self._site.doStart()

    def stopFactory(self) -> None:
        """Called when the port has been closed."""
        self._site.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        """Called with each connection."""
        return self.inner.buildProtocol(addr)

    def logPrefix(self) -> str:
        """What Twisted's lines call it."""
        return "ApiSite"


class Listener:
    """
    A listening socket.

    :param entrance: what its connections go through on their way to the site; None for nothing.
    :param text: the endpoint string that has asked for it; "" for a host and a port.
    :param path: of the file that `close` removes; "" for none.
    """

    def __init__(
        self,
        socket: socket.socket,
        entrance: Entrance | None = None,
        text: str = "",
        path: str = "",
    ) -> None:
        socket.setblocking(False)
        self.socket = socket
        self.text = text
        self._entrance = entrance
        self._path = path
        self._file = identity(path) if path else None
        self._front: _Front | None = None
        self._site: Any = None
        self._reactor: Any = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.socket.family == socket.AF_UNIX:
            return True
        return is_loopback(self.socket.getsockname()[0])

    @property
    def is_encrypted(self) -> bool:
        """Whether it has a certificate, which a reload reads again."""
        return self._entrance is not None and self._entrance.contexts is not None

    @property
    def is_plain(self) -> bool:
        """See `Entrance.is_plain`."""
        return self._entrance is None or self._entrance.is_plain

    @property
    def certificate(self) -> bytes:
        """See `Entrance.certificate`."""
        return b"" if self._entrance is None else self._entrance.certificate

    def __str__(self) -> str:
        """Its URL, or ``unix:`` and the path of its file."""
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return f"unix:{name if isinstance(name, str) else name.decode(errors='replace')}"
        is_tls = self._entrance is not None and self._entrance.is_tls
        scheme = "https" if is_tls else "http"
        return f"{scheme}://{as_in_url(*name[:2])}/"

    def adopt(self, reactor: Any, site: IProtocolFactory) -> IListeningPort:
        """Accept connections from now on. The socket stays this object's."""
        factory = site
        if self._entrance is not None and (self.is_encrypted or not self._entrance.is_plain):
            self._site, self._reactor = site, reactor
            factory = self._front = _Front(site, self._through(self._entrance))
        if self.socket.family == socket.AF_UNIX:
            port = UnixPort(self.socket, factory, reactor)
            port.startListening()
            return port
        adopted: IListeningPort = reactor.adoptStreamPort(
            self.socket.fileno(), self.socket.family, factory
        )
        return adopted

    def exchange(self, entrance: Entrance) -> None:
        """
        Have connections go through another entrance from now on, with another certificate; others
        go on as they began.
        """
        self._entrance = entrance
        if self._front is not None:
            self._front.inner = self._through(entrance)

    def _through(self, entrance: Entrance) -> IProtocolFactory:
        entrance.door.site = self._site
        if entrance.contexts is None:
            return entrance.factory
        return TLSMemoryBIOFactory(entrance.contexts, False, entrance.factory, self._reactor)

    def close(self) -> None:
        """Close the socket, and remove its file if it is the file of this socket."""
        if self._file is not None:
            remove(self._path, self._file)
        self.close_copy()

    def close_copy(self) -> None:
        """Close this process's copy only: another process accepts connections still."""
        self.socket.close()


def listen(host: str, port: int, keys: str = OF_LISTEN) -> list[Listener]:
    """
    Open a listening socket for each address that a host has. ``localhost`` mostly has two.

    An address that this machine does not have is left out, unless the host has no other: the name
    ``localhost`` often has ``::1`` on a machine without IPv6, too.

    :param port: the same at each address; 0 for any port.
    :param keys: see `OF_LISTEN`.
    :raises StartupError: if one of the addresses can't be had, or the host has no address.
    """
    return [Listener(opened) for opened in _listen(host, port, keys)]


def listen_at(text: str, key: str = OF_STRINGS) -> list[Listener]:
    """
    Open what a Twisted server endpoint string asks for.

    :param key: where the string stands, for sentences.
    :raises StartupError: if there is a mistake in it, or the address can't be had.
    """
    wanted = asked(text, key)
    if wanted.adopted is not None:
        return [Listener(wanted.adopted, wanted.entrance, text)]
    if wanted.path:
        opened = listen_on_path(wanted.path, wanted.mode, BACKLOG, key)
        return [Listener(opened, wanted.entrance, text, wanted.path)]
    return [Listener(opened, wanted.entrance, text) for opened in _listen_as(wanted, key)]


def _listen_as(wanted: Asked, keys: str) -> list[socket.socket]:
    """Sockets of an interface and a port: "" and "::" are all of this machine's, as in Twisted."""
    if wanted.host == "::" and socket.has_dualstack_ipv6():
        place = as_in_url("::", wanted.port)
        try:
            return [
                socket.create_server(
                    ("::", wanted.port),
                    family=socket.AF_INET6,
                    backlog=BACKLOG,
                    dualstack_ipv6=True,
                )
            ]
        except OSError as error:
            raise _refusal(place, _reason(error), keys) from error
    # An empty host was written by somebody, and `check_doors` asks for tokens there.
    return _listen(wanted.host or "0.0.0.0", wanted.port, keys)  # nosec B104


def _listen(host: str, port: int, keys: str) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "that is no host name"
        raise _refusal(as_in_url(host, port), reason, keys) from error
    # A resolver may give one address twice.
    addresses = list(dict.fromkeys((family, *address[:2]) for family, *_, address in found))
    tries = ANY_PORTS if port == 0 and len(addresses) > 1 else 1
    for left in reversed(range(tries)):
        try:
            return _listen_on(host, addresses, keys)
        except StartupError as error:
            cause = error.__cause__
            if not left or not isinstance(cause, OSError) or cause.errno != errno.EADDRINUSE:
                raise
    raise AssertionError


def _listen_on(host: str, addresses: list[_Address], keys: str) -> list[socket.socket]:
    """
    Open a listening socket for each address.

    :raises StartupError: if an address can't be had; its cause is the OSError.
    """
    listeners: list[socket.socket] = []
    left_out: dict[str, OSError] = {}
    try:
        for family, address, port in addresses:
            if listeners:
                port = listeners[0].getsockname()[1]
            place = as_in_url(address, port)
            try:
                listener = socket.create_server((address, port), family=family, backlog=BACKLOG)
            except OSError as error:
                if error.errno not in _NOT_OURS:
                    raise _refusal(place, _reason(error), keys, host, address) from error
                left_out[place] = error
                continue
            listeners.append(listener)
        if not listeners:
            place, missing = next(iter(left_out.items()))
            raise _refusal(place, _reason(missing), keys, host, addresses[0][1]) from missing
    except StartupError:
        for listener in listeners:
            listener.close()
        raise
    for place, missing in left_out.items():
        log.info(
            "not listening on {place}, an address of {host}: {reason}",
            place=place,
            host=host,
            reason=_reason(missing),
        )
    return listeners


def _reason(error: OSError) -> str:
    # create_server has put the address into the error's words.
    return (error.strerror or "").partition(" (while attempting")[0]


def _refusal(place: str, reason: str, keys: str, host: str = "", address: str = "") -> StartupError:
    of = f", an address of {host}" if host != address else ""
    return StartupError(
        f"can't listen on {place}{of}: {reason}; choose another address with {keys}"
    )
