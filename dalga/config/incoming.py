"""
What the keys take that say where the HTTP interface is, and to whom it is open. Each function gives
the value of one text, or raises ValueError with the end of a sentence.
"""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from dalga.model.address import HOST_NAME, host_and_port, is_host

#: What stands between two listening endpoints in one text. A comma alone may be in a path.
BETWEEN_ENDPOINTS = r",\s+(?=[A-Za-z][A-Za-z0-9]*:)"

_DEFAULT_PORTS = {"http": 80, "https": 443}


def listening_endpoint(text: str) -> str:
    """A string that Twisted has for a listening endpoint, such as ``unix:/run/dalga.sock``."""
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9]*:.+", text):
        return text
    raise ValueError(
        "it takes listening endpoints as Twisted writes them, such as "
        "tcp:34006:interface=127.0.0.1, ssl:34006:privateKey=key.pem:certKey=cert.pem, "
        "unix:/run/dalga.sock or systemd:domain=INET:index=0"
    )


def parts_of(endpoint: str) -> list[str]:
    """The parts of a listening endpoint: the texts between its colons, ``\\:`` read as a colon."""
    parts = re.findall(r"((?:[^:\\]|\\.)*)(?::|$)", endpoint, re.DOTALL)
    return [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in parts[:-1]]


def private_keys_of(endpoint: str) -> list[str]:
    """The files with private keys that a listening endpoint names."""
    named = (part.partition("=") for part in parts_of(endpoint))
    return [path for name, _, path in named if name == "privateKey"]


#: Where the interface stands among the parts of a listening endpoint that are without a name.
_INTERFACE = {"tcp": 2, "tcp6": 2, "ssl": 5}

#: Where Twisted listens if there is none. What is open to all of a network has to be seen as that.
_EVERYWHERE = "0.0.0.0"  # nosec B104


def interface_of(endpoint: str) -> str | None:
    """
    The address at which a listening endpoint is, as far as its text says.

    :return: an address or a host's name; None for one that has none, such as a Unix socket, and for
        one whose address is not known before it is opened, such as a socket of systemd's.
    """
    kind, *parts = parts_of(endpoint)
    if kind.lower() not in _INTERFACE:
        return None
    named = [part.partition("=")[2] for part in parts if part.startswith("interface=")]
    plain = [kind, *(part for part in parts if not re.match(r"[A-Za-z]+=", part))]
    at = _INTERFACE[kind.lower()]
    everywhere = "::" if kind.lower() == "tcp6" else _EVERYWHERE
    return (named or plain[at : at + 1] or [""])[0] or everywhere


def host_of_request(text: str) -> str:
    """A name or an address that the header Host may have, in lower case and without a port."""
    if ":" in text and is_host(text):
        return str(ip_address(text))
    if HOST_NAME.fullmatch(text):
        return text.lower().removesuffix(".")
    raise ValueError(
        "it takes names and addresses by which requests call this daemon, without ports and "
        "brackets, such as dalga.example.org or 10.0.0.5"
    )


def origin(text: str) -> str:
    """The origin of a page, as browsers write it: in lower case, without the default port."""
    takes = "it takes origins of pages, such as https://ops.example.org or http://localhost:8080"
    if text in ("*", "null"):
        raise ValueError(f"this would let in any page, {takes}")
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise ValueError(takes) from None
    named = is_host(host) if ":" in host else HOST_NAME.fullmatch(host)
    written = re.fullmatch(r"https?://[^/?#@\s]+", text, re.IGNORECASE)
    if not written or not named or port == 0 or url.netloc.endswith(":"):
        raise ValueError(takes)
    host = f"[{ip_address(host)}]" if ":" in host else host
    return f"{url.scheme}://{host}" + (
        "" if port in (None, _DEFAULT_PORTS[url.scheme]) else f":{port}"
    )


def proxy_network(text: str) -> IPv4Network | IPv6Network:
    """An address, or a network such as ``10.0.0.0/8``."""
    takes = "it takes addresses and networks, such as 10.0.0.5, 192.168.0.0/16 or fd00::/8"
    if "%" in text:  # a zone has no place in a network
        raise ValueError(takes)
    with suppress(ValueError):
        return ip_network(text)
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(takes) from None
    raise ValueError(f"the network is written {meant}")


def root_path(text: str) -> str | None:
    """Why a text can't be the path that a proxy has before all others; None where it can."""
    if not text or re.fullmatch(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~!$&'()*+,=:@-]+)+", text):
        return None
    return (
        "it takes the path that all URLs of this daemon begin with, such as /dalga, which ends "
        "without a / and has nothing percent-encoded in it"
    )


def host_and_any_port(text: str) -> tuple[str, int] | None:
    """A host and a port, which may be 0 for any free port; None for ""."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if host and re.fullmatch(r"0{1,5}", port):
        found = host_and_port(f"{host}:1", 1)
        if found is not None and (host.startswith("[") or ":" not in host):
            return found[0], 0
    elif re.search(r"[^:]:[0-9]+$|\]:[0-9]+$", text) and (found := host_and_port(text, 1)):
        return found
    raise ValueError(
        "it takes a host and a port, such as 127.0.0.1:9464 or [::]:9464, and 0.0.0.0 or [::] for "
        "all of this machine's"
    )
