"""
What is kept of an answer for the record of its run: the start of its fields and of its body.

Endpoints answer with secrets, and echo those of requests: the page of an error may have all of the
request's headers. So what is kept has no secret that is known to be one (P12)::

    HTTP/1.1 500 Internal Server Error         kept:
    Content-Type: text/plain                   Content-Type: text/plain
    Set-Cookie: sid=8f3a                       Set-Cookie:
    Location: http://u:p@app/login?key=8f3a    Location: http://app/login?...

    You sent: Authorization: Bearer 8f3a91     You sent: Authorization: ***

- A field of a name in `SECRET`, or of a name that the job redacts, has no value.
- The values of the endpoint's headers, and of the job's headers of such names, are starred.
- Of a job that redacts its payload no body is kept.
- Words on what is no answer have no secret either: the start of a malformed answer is in them.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Collection, Iterable, Iterator

from dalga.model.attempt import MAX_BODY, MAX_HEADERS, Saved
from dalga.model.delivery import PAYLOAD, Delivery
from dalga.outgoing.answer import Answer
from dalga.outgoing.failures import SHOWN

#: At most this much of a field's value is kept, in octets, so that one leaves room for the others.
MAX_VALUE = 1024

#: A text that is shorter is not starred wherever it stands, in octets: it stands for much else.
LEAST_SECRET = 6

#: Parts of names, in lower case, whose fields mostly hold secrets.
SECRET = re.compile(
    r"cookie|authori[sz]ation|authentication-info|auth-|token|secret|passw|credential|session"
    r"|signature|api-?key|private"
)

#: Headers whose values are no secrets, in lower case: answers have the same values.
_PLAIN = ("content-type", "user-agent", "accept", "accept-language")

#: Fields with a URL, whose user, password and query may be secrets.
_WITH_URL = ("location", "content-location")
_USER = re.compile(rb"//[^/?#@]*@")
_QUERY = re.compile(rb"[?#].*")


def secrets_of(headers: Iterable[tuple[str, str]]) -> Iterator[bytes]:
    """
    What is starred where an endpoint echoes these headers: their values, and of an Authorization
    such as ``Bearer 8f3a91`` the parts, as programs take it apart; of ``Basic`` the password, too.
    """
    for name, value in headers:
        low = name.lower()
        if low in _PLAIN:
            continue
        parts = value.split(" ") if SECRET.search(low) else []
        texts = [value.encode(), *(part.encode() for part in parts)]
        if len(parts) == 2 and parts[0].lower() == "basic":
            texts.append(_password(parts[1]))
        yield from (text for text in texts if len(text) >= LEAST_SECRET)


def _password(credentials: str) -> bytes:
    """The password of RFC 7617's ``user:password`` in base64; empty for other text."""
    try:
        return b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def kept_of(answer: Answer, delivery: Delivery, secrets: Collection[bytes]) -> Saved:
    """
    :param delivery: that of the job.
    :param secrets: those of the endpoint.
    """
    redact = delivery.redact
    longest_first = _known(delivery, secrets)
    # A secret that the end would cut in two is found, too.
    longest = len(longest_first[0]) if longest_first else 0
    body = None
    if PAYLOAD not in redact:
        body = _starred(answer.start(MAX_BODY + longest), longest_first)[:MAX_BODY]
    return Saved(_headers(answer, redact, longest_first), body)


def words_without(words: str, delivery: Delivery, secrets: Collection[bytes]) -> str:
    """
    Words on why there is no answer, with the secrets starred that the words may have in them: what
    a server sends that is no HTTP stands there in quotes, its first `SHOWN` octets.

    :param delivery: that of the job.
    :param secrets: those of the endpoint.
    """
    if "'" not in words and '"' not in words:
        return words
    for secret in _known(delivery, secrets):
        text = repr(secret)[2:-1]
        words = re.sub(re.escape(text), "***", words, flags=re.IGNORECASE)
        for length in range(min(len(text), SHOWN), LEAST_SECRET - 1, -1):
            cut_off = rf"{re.escape(text[:length])}(?=['\"]\.\.\.)"
            words = re.sub(cut_off, "***", words, flags=re.IGNORECASE)
    return words


def _known(delivery: Delivery, secrets: Collection[bytes]) -> list[bytes]:
    """The secrets that an endpoint may echo: its own and those of the job, the longest first."""
    redact = delivery.redact
    own = [
        (name, value)
        for name, value in delivery.headers
        if name.lower() in redact or SECRET.search(name.lower())
    ]
    known = {*secrets, *secrets_of(own)}
    if PAYLOAD in redact and delivery.payload and len(delivery.payload.octets) >= LEAST_SECRET:
        known.add(delivery.payload.octets)  # a field may echo it
    return sorted(known, key=len, reverse=True)


def _headers(answer: Answer, redact: Collection[str], secrets: Iterable[bytes]) -> str:
    """The fields, line by line, until a line has no more room."""
    lines: list[str] = []
    left = MAX_HEADERS
    for field, value in answer.fields():
        name = field.decode()
        line = f"{name}: {_shown(name.lower(), value, redact, secrets)}".rstrip()
        left -= len(line.encode()) + 1
        if left < 0:
            break
        lines.append(line)
    return "\n".join(lines)


def _shown(name: str, value: bytes, redact: Collection[str], secrets: Iterable[bytes]) -> str:
    """:param name: in lower case."""
    if name in redact or SECRET.search(name):
        return ""
    value = _starred(value, secrets)
    if name in _WITH_URL:
        value = _QUERY.sub(b"?...", _USER.sub(b"//", value))
    if len(value) > MAX_VALUE:
        value = value[:MAX_VALUE] + b"..."
    return value.decode(errors="backslashreplace")


def _starred(octets: bytes, secrets: Iterable[bytes]) -> bytes:
    for secret in secrets:
        octets = octets.replace(secret, b"***")
    return octets
