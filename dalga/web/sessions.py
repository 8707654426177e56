"""
A login in a browser: a token -> the value of a cookie, and back. Pure.

    1.1767312000.dalga_LD48....x9Qh...    version, end, token, signature

The end is in seconds since 1970, by the database's clock. The signature is an HMAC-SHA256 of the
end, and its key is the token.

What always holds: a session is of use as long as its token is one of the configuration, on every
worker and instance, as no instance remembers any. A person who has read the token's hash in the
configuration can make none, as the token itself has to be in it.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from dalga.errors import InvalidRequest
from dalga.web.bodies import body_pairs

#: How long a session lasts.
LASTS = timedelta(hours=12)

#: How many cookies of one name are looked at. A browser sends those of several paths.
MAX_COOKIES = 4

#: What a token's text may be (RFC 6750 section 2.1).
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,512}={0,2}")
_SESSION = re.compile(rb"1\.([0-9]{1,12})\.([A-Za-z0-9._~+/-]+=*)\.([A-Za-z0-9_-]{43})")


class Session(NamedTuple):
    """A login."""

    #: The token's text.
    token: bytes
    ends: datetime


def new_session(token: bytes, now: datetime) -> bytes:
    """
    The value of a cookie.

    :param token: the token's text.
    :param now: by the database's clock.
    """
    end = b"%d" % int((now + LASTS).timestamp())
    return b"1.%b.%b.%b" % (end, token, _signature(token, end))


def read_session(value: bytes, now: datetime) -> Session | None:
    """
    The login that a cookie is; None for another value, and for one that has ended. Whether its
    token is one of the configuration is not looked at here.
    """
    found = _SESSION.fullmatch(value)
    if found is None or not hmac.compare_digest(found[3], _signature(found[2], found[1])):
        return None
    # A later end than any login's is its maker's own, or that of a clock that was set back.
    ends = int(found[1])
    if not now.timestamp() < ends <= (now + LASTS).timestamp() + 60:
        return None
    return Session(found[2], datetime.fromtimestamp(ends, UTC))


def _signature(token: bytes, end: bytes) -> bytes:
    signed = hmac.new(token, b"dalga-session.1." + end, sha256).digest()
    return urlsafe_b64encode(signed).rstrip(b"=")


def cookie_name(root_path: bytes, is_encrypted: bool) -> bytes:
    """
    The name of the cookie. By the beginning of the name, browsers take it over TLS only, and
    ``__Host-`` from this very host.

    :param root_path: the path that all URLs begin with; b"" for none.
    """
    if not is_encrypted:
        return b"dalga"
    return b"__Secure-dalga" if root_path else b"__Host-dalga"


def cookie(value: bytes, root_path: bytes, is_encrypted: bool) -> bytes:
    """
    The value of the header Set-Cookie.

    :param value: see `new_session`; b"" takes the cookie away.
    """
    name = cookie_name(root_path, is_encrypted)
    lasts = int(LASTS.total_seconds()) if value else 0
    return b"%b=%b; Path=%b; Max-Age=%d; HttpOnly; SameSite=Strict%b" % (
        name,
        value,
        root_path or b"/",
        lasts,
        b"; Secure" if is_encrypted else b"",
    )


def cookies(lines: Sequence[bytes], name: bytes) -> Iterator[bytes]:
    """
    The values of the cookies of a name.

    :param lines: the values of the headers Cookie.
    """
    found = 0
    for line in lines:
        for pair in line.split(b";"):
            spelled, _, value = pair.strip(b" \t").partition(b"=")
            if spelled == name and found < MAX_COOKIES:
                found += 1
                yield value


def token_of_login(content_type: str | None, body: bytes) -> bytes:
    """
    The text of the token in the body of a login: a form or JSON.

    :raises InvalidRequest: for another body. The sentence repeats nothing of it.
    :raises UnsupportedMediaType: for a body that is neither.
    """
    try:
        given = list(body_pairs(content_type, body))
    except InvalidRequest:
        given = []
    if [name for name, _ in given] != ["token"]:
        raise InvalidRequest(
            'a login takes one parameter, token, in a form (token=...) or in JSON ({"token":"..."})'
        )
    text = given[0][1]
    if type(text) is not str or not _TOKEN.fullmatch(text.strip()):
        raise InvalidRequest(
            "token is no text of a token: it takes one as dalga token new has shown it"
        )
    return text.strip().encode("ascii")
