"""
Hosts, their ports, base URLs, and the names of endpoints: whether a text is one, and why another
text is not.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import unquote_to_bytes, urlsplit

#: A host's name in a URL: ASCII labels (RFC 1035 section 2.3.4), in which an underscore may be.
HOST_NAME = re.compile(r"(?=.{1,254}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)

#: The endpoint of the jobs that name none: ``[endpoint]`` of the configuration.
DEFAULT_ENDPOINT = "default"

#: The target of the alerts that are sent to no other: ``[alerts]`` of the configuration. Targets
#: have names as endpoints have them.
DEFAULT_TARGET = "default"

#: Stands for a target's name where no alerts are sent.
NO_TARGET = "none"

#: The longest name of an endpoint, in characters.
MAX_ENDPOINT_NAME = 64


def is_endpoint_name(text: str) -> bool:
    """
    Whether a text has the form of an endpoint's name: lower case letters and digits, with single
    ``-`` and ``_`` between them, 64 characters at most.
    """
    form = re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", text)
    return form is not None and len(text) <= MAX_ENDPOINT_NAME


def is_host(text: str) -> bool:
    """Whether a text can be a host's name or an IP address. The name may have any letters."""
    if ":" in text:
        try:
            IPv6Address(text)
        except ValueError:
            return False
        return True
    return re.fullmatch(r"[^\s/\\\[\]@?#,;'\"]+", text) is not None


def is_loopback_name(host: str) -> bool:
    """Whether a host is ``localhost``, or a name below it (RFC 6761 section 6.3)."""
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


def is_loopback(host: str) -> bool:
    """Whether a host is a name or an address of this machine alone, as far as its text says."""
    try:
        address = ip_address(host)
    except ValueError:
        return is_loopback_name(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """
    The address that a text is, as addresses are compared: without its zone, and an IPv4 address in
    IPv6 (``::ffff:10.0.0.1``) as that. None for another text.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def host_and_port(text: str, port: int) -> tuple[str, int] | None:
    """
    The host and port of ``db``, ``db:3307``, ``::1``, ``[::1]`` or ``[::1]:3307``; None for a text
    of another form.

    :param port: the port where the text has none.
    """
    found = re.fullmatch(r"(?:\[([^\]]*:[^\]]*)\]|([^:]*))(?::([0-9]{1,5}))?", text)
    host = (found[1] or found[2]) if found else text
    if found and found[3]:
        port = int(found[3])
    return (host, port) if is_host(host) and 1 <= port <= 65535 else None


def as_in_url(host: str, port: int) -> str:
    """A host and a port as a URL has them: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def why_not_base_url(text: str) -> str | None:
    """
    Why a text can't be a base URL, as the end of a sentence; None where it can.

    A base URL is an http or https URL of ASCII characters without query and fragment: a scheme,
    maybe a user and a password, a host, maybe a port and a path.
    """
    # The first check: urlsplit drops tabs and line ends without a word, and takes any character.
    if why := _odd(text):
        return why
    # Without this check, http://user:12/34@host/ would send jobs, and part of a password, to a host
    # "user".
    if re.match(r"[^:/?#]*://[^/?#]*[/?#].*@", text):
        return (
            "in a user name or a password, write / as %2F, ? as %3F and # as %23, and behind the "
            "host @ as %40"
        )
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        return "its host or port can't be read, it takes a URL such as http://127.0.0.1:5000/"
    if url.scheme not in ("http", "https"):
        return "it takes a URL that starts with http:// or https://"
    if "@" in url.netloc and (why := _user_info(url.netloc.rpartition("@")[0])):
        return why
    if "%" in host or not (is_host(host) if ":" in host else HOST_NAME.fullmatch(host)):
        return "it takes a URL with a host, such as http://127.0.0.1:5000/"
    if port == 0 or url.netloc.endswith(":"):
        return "its port can't be used, it takes one from 1 to 65535, or none and no colon"
    if "?" in text or "#" in text:
        return "it takes a URL without query (?) and fragment (#), as a job's path is put behind it"
    return None


def why_not_request_url(text: str) -> str | None:
    """
    Why a text can't be the URL of a request, as the end of a sentence; None where it can: a base
    URL that may have a query.
    """
    if "#" in text:
        return "it takes a URL without fragment (#)"
    base, _, query = text.partition("?")
    return why_not_base_url(base) or _odd(query)


def _odd(text: str) -> str | None:
    """Why a text can't be a part of a URL; None where it can."""
    if odd := re.search(r"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]", text):
        return (
            f"U+{ord(odd[0]):04X} can't stand in a URL, percent-encode it (in a host name, use its "
            "xn-- form)"
        )
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        return "a % in a URL takes two hexadecimal digits after it, write a plain one as %25"
    return None


def _user_info(text: str) -> str | None:
    """
    Why a text can't be a user and a password; None where it can.

    :param text: the part of a URL before the @.
    """
    user, _, password = text.partition(":")
    if not user and not password:
        return "it takes a user name and a password before the @, or no @"
    decoded = unquote_to_bytes(text)
    if re.search(rb"[\x00-\x1f\x7f]", decoded):
        return "its user name or password has a control character, leave that out"
    # RFC 7617 section 2: all text behind the first colon would be taken for the password.
    if b":" in unquote_to_bytes(user):
        return "a user name with a colon (%3A) can't be sent, choose another"
    return None
