"""
The head of a request, before twisted.web reads it: what can be made into what twisted.web takes,
and for the rest, a sentence that says what was wrong. Pure.

twisted.web answers what it can't read with a bare ``400 Bad Request`` and no body.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dalga.errors import DalgaError, shown
from dalga.web.errors import (
    HeadTooLarge,
    MalformedRequest,
    TargetTooLong,
    UnknownCoding,
    UnsupportedVersion,
)

#: The longest method, in characters. The longest that is registered with IANA has 17.
MAX_METHOD = 40

#: How a TLS connection begins: with a handshake record (RFC 8446 section 5.1).
TLS = b"\x16"

_TOKEN = rb"[A-Za-z0-9!#$%&'*+\-.^_`|~]"  # RFC 9110 section 5.6.2

#: What a request line may begin with, as far as it has come: a method, a target, a version.
_BEGINNING = re.compile(
    rb"%b{0,%d}(?:(?<=.) [^\0-\x20]*(?: [HTP0-9./]{0,8})?)?\r?" % (_TOKEN, MAX_METHOD), re.DOTALL
)
_METHOD = re.compile(rb"%b{1,%d}" % (_TOKEN, MAX_METHOD))
_NAME = re.compile(rb"%b+" % _TOKEN)
_HOST = re.compile(rb"[A-Za-z0-9!$%&'()*+,\-.:;=\[\]_~]*")  # RFC 3986 section 3.2.2
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
_EXAMPLE = "such as GET /status HTTP/1.1"


def request_line(line: bytes) -> bytes:
    """
    Read a request line (RFC 9112 section 3).

    :return: the same as twisted.web takes it. Octets past ASCII are percent-encoded, as curl does
        not do it, and a later HTTP/1.x is HTTP/1.1 (RFC 9110 section 2.5).
    :raises UnsupportedVersion: for another major version of HTTP.
    :raises MalformedRequest: for what is no request line.
    """
    method, _, rest = line.partition(b" ")
    target, _, version = rest.rpartition(b" ")
    if line.startswith(TLS):
        raise MalformedRequest(
            "this port speaks HTTP without TLS, and what came is the beginning of a TLS "
            "connection: write http:// instead of https://, or put a proxy that ends TLS in front"
        )
    if not _METHOD.fullmatch(method):
        raise MalformedRequest(
            f"what came is no HTTP request: it begins with {_shown(line)}, where it takes a "
            f"method, a target and a version, {_EXAMPLE}"
        )
    if b"\n" in line:
        raise _bare_line_feed()
    if not target:
        raise MalformedRequest(
            f"the request line is {_shown(line)}: it takes a method, a target and a version, "
            f"{_EXAMPLE}"
        )
    found = _VERSION.fullmatch(version)
    if found is None:
        raise MalformedRequest(
            f"the request line ends with {_shown(version)}, where it takes the version HTTP/1.1"
        )
    if found[1] != b"1":
        raise UnsupportedVersion(f"the version is {version.decode()}: it takes HTTP/1.1")
    wrong = re.search(rb"[\0-\x20]", target)
    if wrong is not None:
        (octet,) = wrong[0]
        what = "a space" if octet == 0x20 else f"the octet 0x{octet:02X}"
        raise MalformedRequest(
            f"the target {_shown(target)} has {what} in it: write it as %{octet:02X}"
        )
    escaped = re.sub(rb"[\x7f-\xff]", lambda octet: b"%%%02X" % ord(octet[0]), target)
    return b"%b %b HTTP/1.%d" % (method, escaped, min(int(found[2]), 1))


def check_beginning(octets: bytes) -> None:
    """
    Whether what has come of a request line, without its end, may still become one.

    :raises UnsupportedVersion: if it can't, as `request_line` does.
    :raises MalformedRequest: if it can't, as `request_line` does.
    """
    if not _BEGINNING.fullmatch(octets):
        request_line(octets)
        raise MalformedRequest(f"what came is no HTTP request: it begins with {_shown(octets)}")


def check_header_beginning(octets: bytes) -> None:
    """
    Whether what has come of a header, without its end, may still become one.

    :raises MalformedRequest: if it can't.
    """
    if b"\n" in octets:
        raise _bare_line_feed()
    if b"\0" in octets:
        raise MalformedRequest(f"the header {_shown(octets)} has the octet 0x00 in it")


def line_too_long(line: bytes, limit: int, is_first: bool) -> DalgaError:
    """
    What to say to a line that takes no end.

    :param line: the line, or its beginning.
    :param limit: how many octets a line may have.
    :param is_first: whether it is a request line, not a header.
    """
    if not is_first:
        return HeadTooLarge(f"a header is too long: it takes {limit} octets at most")
    try:
        request_line(line[:MAX_METHOD] + b"/ HTTP/1.1")
    except DalgaError as error:
        return error
    return TargetTooLong(f"the request line is too long: it takes {limit} octets at most")


def header_refusal(line: bytes, is_framed: bool) -> DalgaError:
    """
    Why twisted.web refuses a header.

    :param line: the header, with what it was continued by.
    :param is_framed: whether a header before it has said how long the body is.
    """
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not colon:
        return MalformedRequest(
            f"the header {_shown(line)} has no colon: it takes a name, a colon and a value"
        )
    if not _NAME.fullmatch(name):
        return MalformedRequest(
            f"the header's name {_shown(name)} is none: it takes letters, digits and hyphens, and "
            "no space in front of the colon"
        )
    shown_name = name.decode("ascii")[:40]
    match name.lower():
        case b"content-length" if not value.isdigit():
            return MalformedRequest(
                f"{shown_name} is {_shown(value)}: it takes the body's length in octets"
            )
        case b"transfer-encoding" if value.lower() != b"chunked":
            # Where chunked comes last, the body's end is known, and another coding is refused as
            # unknown (501); else nobody can tell where it ends (RFC 9112 sections 6.1 and 6.3).
            is_chunked = value.lower().rpartition(b",")[2].strip() == b"chunked"
            kind = UnknownCoding if is_chunked else MalformedRequest
            return kind(f"{shown_name} is {_shown(value)}: it takes chunked")
        case b"content-length" | b"transfer-encoding" if is_framed:
            return MalformedRequest(
                "the body's length is given twice: it takes one Content-Length, or one "
                "Transfer-Encoding: chunked, and not both"
            )
    return MalformedRequest(
        f"the value of the header {shown_name} has the octet 0x00, a CR or an LF in it"
    )


def check_head(version: bytes, hosts: Sequence[bytes], is_coded: bool) -> None:
    """
    Whether a request's head is what its version of HTTP wants. Since HTTP/1.1 it says once whom it
    is for (RFC 9112 section 3.2), though nothing depends on that; before, a body's length could not
    be told by a transfer coding (section 6.1).

    :param hosts: the values of its Host headers.
    :param is_coded: whether it has a Transfer-Encoding.
    :raises MalformedRequest: if it is not.
    """
    if is_coded and version == b"HTTP/1.0":
        raise MalformedRequest(
            "Transfer-Encoding is given in an HTTP/1.0 request, which has none: give "
            "Content-Length, or ask by HTTP/1.1"
        )
    if not hosts and version != b"HTTP/1.0":
        raise MalformedRequest(
            "the header Host is missing, which an HTTP/1.1 request has to have, such as "
            "Host: dalga.example"
        )
    if len(hosts) > 1:
        raise MalformedRequest("the header Host is given twice: give it once")
    for value in hosts:
        if not _HOST.fullmatch(value):
            raise MalformedRequest(
                f"Host is {_shown(value)}: it takes a name or an address, and maybe a colon and a "
                "port"
            )


def _bare_line_feed() -> MalformedRequest:
    return MalformedRequest("a line of the request ends with LF alone: it takes CR and LF")


def _shown(octets: bytes) -> str:
    return shown(octets.decode("latin-1"))
