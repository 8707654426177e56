"""
The sockets of the HTTP interface.

The sockets are opened before the daemon detaches or gives up its privileges. So the person who
starts the daemon is told why an address can't be had.
"""

from __future__ import annotations

import errno
import socket

from dalga.errors import StartupError
from dalga.log import logger
from dalga.model.address import as_in_url

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


def listen(host: str, port: int) -> list[socket.socket]:
    """
    Open a listening socket for each address that a host has. ``localhost`` mostly has two.

    An address that this machine does not have is left out, unless the host has no other: the name
    ``localhost`` often has ``::1`` on a machine without IPv6, too.

    :param port: the same at each address; 0 for any port.
    :raises StartupError: if one of the addresses can't be had, or the host has no address.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "that is no host name"
        raise _refusal(as_in_url(host, port), reason) from error
    # A resolver may give one address twice.
    addresses = list(dict.fromkeys((family, *address[:2]) for family, *_, address in found))
    tries = ANY_PORTS if port == 0 and len(addresses) > 1 else 1
    for left in reversed(range(tries)):
        try:
            return _listen_on(host, addresses)
        except StartupError as error:
            cause = error.__cause__
            if not left or not isinstance(cause, OSError) or cause.errno != errno.EADDRINUSE:
                raise
    raise AssertionError


def _listen_on(host: str, addresses: list[_Address]) -> list[socket.socket]:
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
                    raise _refusal(place, _reason(error), host, address) from error
                left_out[place] = error
                continue
            listener.setblocking(False)
            listeners.append(listener)
        if not listeners:
            place, missing = next(iter(left_out.items()))
            raise _refusal(place, _reason(missing), host, addresses[0][1]) from missing
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


def _refusal(place: str, reason: str, host: str = "", address: str = "") -> StartupError:
    of = f", an address of {host}" if host != address else ""
    return StartupError(
        f"can't listen on {place}{of}: {reason}; choose another address with host and port in "
        "[listen]"
    )
