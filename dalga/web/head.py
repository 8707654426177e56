"""
The head of a request, before twisted.web reads it. Pure.

A request line that twisted.web would not take is put into its spelling, or refused with a sentence.
twisted.web alone answers a head that it can't read with ``400 Bad Request`` and no body.
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

#: The longest method, in characters. IANA's longest registered method has 17.
MAX_METHOD = 40

#: How a TLS connection begins: with a handshake record (RFC 8446 section 5.1).
TLS = b"\x16"

_TOKEN = rb"[A-Za-z0-9!#$%&'*+\-.^_`|~]"  # RFC 9110 section 5.6.2

#: The first part of a request line, of any length: a method, a target, a version.
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

    :return: the line in the spelling that twisted.web takes. Octets past ASCII, which curl sends as
        they are, are percent-encoded. A later HTTP/1.x is HTTP/1.1 (RFC 9110 section 2.5).
    :raises UnsupportedVersion: for another major version of HTTP.
    :raises MalformedRequest: for another line.
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
    Check octets that may be the first part of a request line.

    :param octets: all that has come of the line; its end has not.
    :raises UnsupportedVersion: and `MalformedRequest`: if no further octets can make a request line
        of these, as `request_line` does.
    """
    if not _BEGINNING.fullmatch(octets):
        request_line(octets)
        raise MalformedRequest(f"what came is no HTTP request: it begins with {_shown(octets)}")


def check_header_beginning(octets: bytes) -> None:
    """
    Check octets that may be the first part of a header.

    :param octets: all that has come of the header; its end has not.
    :raises MalformedRequest: if no further octets can make a header of these.
    """
    if b"\n" in octets:
        raise _bare_line_feed()
    if b"\0" in octets:
        raise MalformedRequest(f"the header {_shown(octets)} has the octet 0x00 in it")


def line_too_long(line: bytes, limit: int, is_first: bool) -> DalgaError:
    """
    The error for a line that is too long.

    :param line: the line, or its first part.
    :param limit: the length that a line may have, in octets.
    :param is_first: whether the line is a request line, not a header.
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
    The error for a header that twisted.web refuses.

    :param line: the header, with its continuation lines.
    :param is_framed: whether an earlier header gave the body's length.
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
            # If chunked comes last, the body's end is known, and the coding before it is refused as
            # unknown (501). Otherwise nobody can tell where the body ends (RFC 9112 sections 6.1
            # and 6.3).
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
    Check that a request's head has the headers that its version of HTTP asks for.

    An HTTP/1.1 request has one Host header (RFC 9112 section 3.2); Dalga does not use its value. An
    HTTP/1.0 request has no Transfer-Encoding (section 6.1).

    :param hosts: the values of the Host headers.
    :param is_coded: whether there is a Transfer-Encoding header.
    :raises MalformedRequest: if a header is missing, repeated, wrong, or of a later version.
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
