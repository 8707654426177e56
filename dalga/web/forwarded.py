"""
What a proxy says of the client in front of it: X-Forwarded-For and X-Forwarded-Proto. Pure.

Each proxy puts the address of its own client at the end of X-Forwarded-For. So the header is read
from its end, past the proxies that are trusted::

    X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.5    from 10.0.0.4; 10.0.0.0/8 is trusted
                     anybody  the client   a proxy

What always holds: an address to the left of the first one that is not trusted may be anybody's
invention, and is not looked at. ``Forwarded`` (RFC 7239) is not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

from dalga.model.address import address_of

Networks = Sequence[IPv4Network | IPv6Network]

#: What stands for the client on a local socket among the proxies that are trusted.
_LOCAL = "127.0.0.1"

#: An address as proxies write it: alone, in brackets, and maybe with a port.
_WRITTEN = re.compile(r"\[([^\]]*)\](?::[0-9]+)?|([0-9.]+)(?::[0-9]+)?|([0-9A-Fa-f:.]+)")


def is_trusted(peer: str, trusted: Networks) -> bool:
    """
    Whether a client's word is taken.

    :param peer: its address; "" for a local socket, which counts as 127.0.0.1.
    """
    if not trusted:
        return False
    address = address_of(peer or _LOCAL)
    return address is not None and any(address in network for network in trusted)


def client_address(peer: str, lines: Sequence[bytes], trusted: Networks) -> str:
    """
    The address of a client.

    :param peer: the address at the other end of the connection; "" for a local socket.
    :param lines: the values of X-Forwarded-For.
    :return: the address; that of the last proxy that is known, if the text before that is none.
    """
    found = peer
    if not is_trusted(peer, trusted):
        return found
    for text in reversed(b",".join(lines).decode("latin-1").split(",")):
        written = _WRITTEN.fullmatch(text.strip())
        address = address_of(written[1] or written[2] or written[3]) if written else None
        if address is None:
            return found
        found = str(address)
        if not is_trusted(found, trusted):
            return found
    return found


def is_forwarded_https(lines: Sequence[bytes]) -> bool:
    """
    Whether a trusted proxy says that its client speaks TLS.

    :param lines: the values of X-Forwarded-Proto. The last proxy's word is the last one.
    """
    return b",".join(lines).rpartition(b",")[2].strip().lower() == b"https"
