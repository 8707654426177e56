"""
Headers that a user gives a request beside Dalga's own: which names and values they may have. Pure.

The configuration gives each request of an endpoint headers, and a user gives a job's requests more.
Both go by these rules. So no name and no value ends a line of a request's head, begins another, or
says how long the request is (RFC 9110 section 5, RFC 9112 section 6).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Headers that say how a message is written, or how it goes from one host to the next (RFC 9110
#: section 7.6.1). Dalga sets these by itself.
MESSAGE_HEADERS = (
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)

#: How the names of the headers begin that say which run a request is of.
RUN_PREFIX = "dalga-"
#: How the names of the headers begin that sign a request (Standard Webhooks). An endpoint that
#: checks signatures would take a job's header for a signature.
SIGNATURE_PREFIX = "webhook-"

#: What a header's value may be, for the end of a sentence.
VALUE = "a header takes ASCII characters, at least one, without spaces around them"

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def is_name(text: str) -> bool:
    """Whether a header may be named so: a token (RFC 9110 section 5.1)."""
    return _NAME.fullmatch(text) is not None


def is_value(text: str) -> bool:
    """
    Whether a header may have this value: RFC 9110 section 5.5, without tabs and without the octets
    that it calls obsolete.
    """
    return _VALUE.fullmatch(text) is not None


def is_of_dalga(name: str) -> bool:
    """Whether Dalga sets this header by itself. The name is in any spelling."""
    name = _one_spelling(name)
    return name in MESSAGE_HEADERS or name.startswith(RUN_PREFIX)


def is_content_type(name: str) -> bool:
    """Whether this header is the Content-Type. The name is in any spelling."""
    return _one_spelling(name) == "content-type"


def is_of_signature(name: str) -> bool:
    """Whether this header is a part of a signature. The name is in any spelling."""
    return _one_spelling(name).startswith(SIGNATURE_PREFIX)


def _one_spelling(name: str) -> str:
    """
    A header's name as endpoints may see it. CGI and WSGI hand on ``Dalga_Run`` and ``Dalga-Run``
    under the same name (RFC 3875 section 4.1.18).
    """
    return name.lower().replace("_", "-")


def size_of(headers: Iterable[tuple[str, str]]) -> int:
    """How many octets these lines of a request's head have, with ": " and CRLF."""
    return sum(len(name) + len(value) + 4 for name, value in headers)
