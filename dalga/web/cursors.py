"""
Where a page of jobs ended, as text that clients give back. Pure.

A cursor holds the last job's key, and whether the list is of one path. Nothing about it is secret,
nor bound to an instance. Its digest is there so that a client that changed a cursor, or cut it off,
is told so, and not given some other page.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

from dalga.store import Position

_DIGEST = 6  # octets
_PATH_BLOB, _BODY_BLOB, _OF_A_PATH = 1, 2, 4

_UNCHANGED = (
    "it takes what the page before gave, unchanged; leave it out to begin with the first page"
)


def cursor_text(last: Position, path: str | None) -> str:
    """
    :param last: of the page's last job.
    :param path: of which jobs alone are listed; None for all.
    """
    flags = (
        _PATH_BLOB * last.path_is_blob
        | _BODY_BLOB * last.body_is_blob
        | _OF_A_PATH * (path is not None)
    )
    octets = bytes([flags]) + len(last.path).to_bytes(4, "big") + last.path + last.body
    return urlsafe_b64encode(_digest(octets) + octets).rstrip(b"=").decode("ascii")


def cursor_from_text(text: str, path: str | None) -> Position:
    """
    What `cursor_text` wrote for the same list.

    :param path: of which jobs alone are listed now; None for all.
    :raises ValueError: with what is wrong, and what would do, as the rest of a sentence.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise ValueError(f"is none: {_UNCHANGED}")
    try:
        octets = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise ValueError(f"is none: {_UNCHANGED}") from None
    digest, octets = octets[:_DIGEST], octets[_DIGEST:]
    if len(octets) < 5 or digest != _digest(octets):
        raise ValueError(f"is none: {_UNCHANGED}")
    flags, length = octets[0], int.from_bytes(octets[1:5], "big")
    last = Position(
        octets[5 : 5 + length],
        octets[5 + length :],
        bool(flags & _PATH_BLOB),
        bool(flags & _BODY_BLOB),
    )
    if cursor_text(last, None if flags & _OF_A_PATH == 0 else "") != text:
        raise ValueError(f"is none: {_UNCHANGED}")
    listed = last.path.decode("utf-8", "replace") if flags & _OF_A_PATH else None
    if listed != path:
        of = "all jobs" if listed is None else f"the jobs with path {listed!r:.40}"
        raise ValueError(
            f"is of a list of {of}: give the same path as for the page before, or leave cursor out "
            "to begin with the first page"
        )
    return last


def _digest(octets: bytes) -> bytes:
    return sha256(b"dalga cursor 1\n" + octets).digest()[:_DIGEST]
