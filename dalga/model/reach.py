"""
Which addresses are public: those that an endpoint with ``deny = private`` may have. Pure.

    127.0.0.1, 10.0.0.1, 100.64.0.1, 169.254.169.254    private, loopback, shared, link-local
    224.0.0.1, 240.0.0.1, 0.0.0.0                       multicast, reserved, "this host"
    ::1, fe80::1, fd00::1, fec0::1, ff02::1             likewise
    ::ffff:10.0.0.1, 64:ff9b::a00:1, 2002:a00:1::       lead to 10.0.0.1
    93.184.216.34, 2606:2800:220:1::1                   public
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

#: The only addresses of IPv6 that are given to hosts of the internet (RFC 4291 section 2.4).
_UNICAST = IPv6Network("2000::/3")

#: Networks whose addresses end in an address of IPv4, to which the packets go: IPv4-compatible
#: (RFC 4291 section 2.5.5.1), IPv4-mapped, and that of NAT64 (RFC 6052 section 2.1).
_WITH_IPV4 = tuple(IPv6Network(each) for each in ("::/96", "::ffff:0:0/96", "64:ff9b::/96"))


def is_public(text: str) -> bool:
    """
    Whether an address is one of the internet's.

    :param text: an address, maybe with a zone (``fe80::1%eth0``).
    :raises ValueError: for a text that is no address.
    """
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        inner = _inner(address)
        if inner is None:
            return address in _UNICAST and address.is_global
        address = inner
    return address.is_global and not address.is_multicast


def _inner(address: IPv6Address) -> IPv4Address | None:
    """The address of IPv4 to which packets to an address go; None for most."""
    if any(address in network for network in _WITH_IPV4):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.sixtofour
