"""
What is kept of an answer for the record of its run: the start of its fields and of its body.

Endpoints answer with secrets, and echo those of requests. A field of a name in `SECRET`, or of one
that the job redacts, is kept without its value; the body of a job that redacts its payload is not
kept (P12)::

    Content-Type: application/json
    Set-Cookie:
"""

from __future__ import annotations

import re
from collections.abc import Collection

from dalga.model.attempt import MAX_BODY, MAX_HEADERS, Saved
from dalga.model.delivery import PAYLOAD
from dalga.outgoing.answer import Answer

#: At most this much of a field's value is kept, in octets, so that one leaves room for the others.
MAX_VALUE = 1024

#: Parts of names, in lower case, whose fields mostly hold secrets.
SECRET = re.compile(
    rb"cookie|authori[sz]ation|authentication-info|auth-|token|secret|passw|credential|session"
    rb"|signature|api-?key|private"
)


def kept_of(answer: Answer, redact: Collection[str]) -> Saved:
    """
    :param redact: that of the job: names of headers in lower case, and `PAYLOAD`.
    """
    body = b"" if PAYLOAD in redact else answer.start(MAX_BODY)
    return Saved(_headers(answer, redact), body)


def _headers(answer: Answer, redact: Collection[str]) -> str:
    """The fields, line by line, until a line has no more room."""
    lines: list[str] = []
    left = MAX_HEADERS
    for name, value in answer.fields():
        low = name.lower()
        if low.decode() in redact or SECRET.search(low):
            value = b""
        elif len(value) > MAX_VALUE:
            value = value[:MAX_VALUE] + b"..."
        line = f"{name.decode()}: {_text(value)}".rstrip()
        left -= len(line.encode()) + 1
        if left < 0:
            break
        lines.append(line)
    return "\n".join(lines)


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")
