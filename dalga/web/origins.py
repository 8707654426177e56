"""
Which requests a browser has sent for a page elsewhere. Pure.

A browser sends requests for any page, from the machine and the network that it is in. So what only
this machine can reach, a page on the internet can reach through the browser of this machine::

    <form action="http://127.0.0.1:34006/jobs/a/b" method="POST">     Origin: https://evil.example
    <img src="http://127.0.0.1:34006/status">                         Sec-Fetch-Site: cross-site
    http://evil.example:34006/, a name that now is for 127.0.0.1      Host: evil.example:34006

What always holds: of these headers, a page can't choose any. A browser writes them by itself, and a
program has no reason to. A request without them is a program's.

Where tokens are needed, a page has none, and only cookies are sent by themselves: `check_cookie`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from dalga.errors import shown
from dalga.model.address import address_of, is_loopback
from dalga.web.errors import ForeignRequest

#: The default ports, by the scheme of an origin.
_PORTS = {"http": 80, "https": 443}

#: The methods that change nothing (RFC 9110 section 9.2.1).
SAFE = (b"GET", b"HEAD", b"OPTIONS")

#: What Sec-Fetch-Site says of the pages of this daemon, and of a person who types an address.
_OWN_SITES = (b"same-origin", b"none")

_AUTHORITY = re.compile(rb"(\[[0-9A-Fa-f:.]*\]|[^:\[\]]*)(?::([0-9]*))?")
_ORIGIN = re.compile(rb"(https?)://([^/?#@\s]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Doors:
    """What ``[listen]`` says of requests. A reload makes another object."""

    #: Names and addresses by which requests may call this daemon, beside loopback's, in lower case.
    hosts: frozenset[str] = frozenset()
    #: The origins whose pages may call, as browsers write them.
    origins: frozenset[str] = frozenset()
    #: The path that all URLs begin with; "" for none.
    root_path: str = ""
    #: The proxies whose word on the client's address is taken.
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()


#: Requests call this daemon by names and addresses of loopback, and by no others.
LOOPBACK = Doors()


class Asked(NamedTuple):
    """What a request says of where it comes from."""

    method: bytes = b"GET"
    #: Without `Doors.root_path`.
    path: bytes = b"/status"
    #: The value of its header Host, or what its target has in the place of that; b"" for none.
    host: bytes = b""
    #: The values of its headers Origin.
    origins: Sequence[bytes] = ()
    #: The values of Sec-Fetch-Site, Sec-Fetch-Mode and Sec-Fetch-Dest; b"" for none.
    site: bytes = b""
    mode: bytes = b""
    dest: bytes = b""
    #: The address of this machine that it came to; "" for a local socket.
    own: str = ""
    #: Whether the client speaks TLS; None where a proxy may do that for it.
    is_encrypted: bool | None = None

    @property
    def is_link(self) -> bool:
        """Whether somebody follows a link to the page, or has typed its address."""
        return (
            self.method == b"GET"
            and self.path == b"/"
            and self.mode == b"navigate"
            and self.dest == b"document"
            and not self.origins
        )


def check_open(asked: Asked, doors: Doors) -> None:
    """
    Check a request where no token is needed.

    :raises ForeignRequest: if a page elsewhere may have sent it. The sentence names the key of the
        configuration that would let it in.
    """
    if asked.own and not _is_called_by(asked.host, asked.own, doors.hosts):
        name = shown(_split(asked.host)[0] or asked.host.decode("latin-1"))
        raise ForeignRequest(
            f"the header Host has {name}, and without tokens only loopback addresses, localhost, "
            "the address that was connected to and the names in hosts of [listen] are answered: a "
            "page elsewhere could have given that name to this machine. If it is this daemon's, "
            "put it into hosts of [listen]"
        )
    if asked.is_link or (not asked.origins and not asked.site):
        return
    if granted_origin(asked, doors) is not None:
        return
    _check_origin(asked)
    if asked.site and asked.site not in _OWN_SITES:
        raise _foreign(f"Sec-Fetch-Site is {_text(asked.site)}, and there is no Origin")


def check_cookie(asked: Asked) -> None:
    """
    Check a request whose token is in a cookie: a browser sends that by itself.

    :raises ForeignRequest: if a page elsewhere may have sent it. No key lets such a page in.
    """
    if asked.method in SAFE:
        if asked.is_link:
            return
        if asked.site and asked.site not in _OWN_SITES:
            raise _not_by_cookie(f"Sec-Fetch-Site is {_text(asked.site)}")
        if asked.origins and not _is_own(asked):
            raise _not_by_cookie(f"Origin is {_text(asked.origins[0])}")
        return
    _check_own_page(asked)
    if not asked.site and not asked.origins:
        raise _not_by_cookie("there is neither Sec-Fetch-Site nor Origin")


def check_session(asked: Asked) -> None:
    """
    Check a request that logs in or out.

    :raises ForeignRequest: if a page elsewhere may have sent it, to have a person use a token of
        others, or none.
    """
    _check_own_page(asked)


def _check_own_page(asked: Asked) -> None:
    """Check that a browser, if there is one, has sent a request for a page of this daemon."""
    if asked.site:
        if asked.site != b"same-origin":
            raise _not_by_cookie(f"Sec-Fetch-Site is {_text(asked.site)}")
    elif asked.origins and not _is_own(asked):
        raise _not_by_cookie(f"Origin is {_text(asked.origins[0])}")


def granted_origin(asked: Asked, doors: Doors) -> bytes | None:
    """The origin of a request, if its pages may call: one of ``[listen] origins``."""
    if len(asked.origins) != 1:
        return None
    [origin] = asked.origins
    return origin if origin.decode("latin-1") in doors.origins else None


def _check_origin(asked: Asked) -> None:
    """:raises ForeignRequest: if there is an Origin, and it is not this daemon's."""
    if not asked.origins or _is_own(asked):
        return
    origin = asked.origins[0]
    if origin == b"null":
        raise ForeignRequest(
            "Origin is 'null', as of a page from a file or in a sandbox, and no key lets such "
            "pages in: have the page come from a server, and put its origin into origins of "
            "[listen]"
        )
    raise _foreign(f"Origin is {_text(origin)}")


def _foreign(what: str) -> ForeignRequest:
    return ForeignRequest(
        f"a page elsewhere has sent this: {what}. If its pages may call, put the page's origin "
        "into origins of [listen]"
    )


def _not_by_cookie(what: str) -> ForeignRequest:
    return ForeignRequest(
        f"the login of this daemon's page is for requests of that page alone, and {what}: send the "
        "token as Authorization: Bearer"
    )


def _text(octets: bytes) -> str:
    return shown(octets.decode("latin-1"))


def _is_own(asked: Asked) -> bool:
    """Whether the Origin of a request is that of the host that the request calls."""
    if len(asked.origins) != 1:
        return False
    found = _ORIGIN.fullmatch(asked.origins[0])
    if found is None:
        return False
    scheme = found[1].decode("ascii").lower()
    if asked.is_encrypted is not None and asked.is_encrypted != (scheme == "https"):
        return False
    default = _PORTS[scheme]
    host, port = _split(found[2])
    called, at = _split(asked.host)
    return bool(host) and (host, port or default) == (called, at or default)


@lru_cache(maxsize=256)
def _is_called_by(authority: bytes, own: str, hosts: frozenset[str]) -> bool:
    """
    Whether a request may call this daemon by a name.

    :param authority: what the header Host has. Browsers always have a name there.
    :param own: the address that the request came to.
    """
    if not authority:
        return True
    host, _ = _split(authority)
    return bool(host) and (is_loopback(host) or host == host_name(own) or host in hosts)


@lru_cache(maxsize=256)
def _split(authority: bytes) -> tuple[str, int | None]:
    """
    The host and the port of ``dalga.example:34006``. The host is as `host_name` has it, and "" for
    what is none.
    """
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        return "", None
    port = int(found[2]) if found[2] and len(found[2]) < 6 else None
    return host_name(found[1].decode("latin-1")), port


def host_name(text: str) -> str:
    """
    A host as hosts are compared: a name in lower case without the dot at its end, an address
    without brackets, in its shortest form. Several texts are the same host.
    """
    name = text.lower().removesuffix(".").removeprefix("[").removesuffix("]")
    address = address_of(name)
    return name if address is None else str(address)
