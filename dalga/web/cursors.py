"""
Cursors: the place where a page of jobs ended, as text that clients give back. Pure.

A cursor holds the key of the page's last job, and whether the list is of one path. It is not
secret, and good for any instance. Its digest tells a cursor that was changed or cut off, which
would lead to another page.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

from dalga.model.key import Position

_DIGEST = 6  # octets
_PATH_BLOB, _BODY_BLOB, _OF_A_PATH = 1, 2, 4

_UNCHANGED = (
    "it takes what the page before gave, unchanged; leave it out to begin with the first page"
)


def cursor_text(last: Position, path: str | None) -> str:
    """
    :param last: the place of the page's last job.
    :param path: the path whose jobs are listed; None for all jobs.
    """
    flags = (
        _PATH_BLOB * last.path_is_blob
        | _BODY_BLOB * last.body_is_blob
        | _OF_A_PATH * (path is not None)
    )
    return _text(bytes([flags]) + len(last.path).to_bytes(4, "big") + last.path + last.body)


def cursor_from_text(text: str, path: str | None) -> Position:
    """
    Read a cursor that `cursor_text` wrote for the same list.

    :param path: the path whose jobs are listed now; None for all jobs.
    :raises ValueError: for another text. The message says what is wrong and what would do, as the
        rest of a sentence.
    """
    octets = _octets(text)
    if octets is None:
        raise ValueError(f"is none: {_UNCHANGED}")
    flags, end = octets[0], 5 + int.from_bytes(octets[1:5], "big")
    kinds = bool(flags & _PATH_BLOB), bool(flags & _BODY_BLOB)
    last = Position(octets[5:end], octets[end:], *kinds)
    listed = last.path.decode("utf-8", "replace") if flags & _OF_A_PATH else None
    if listed != path:
        of = "all jobs" if listed is None else f"the jobs with path {listed!r:.40}"
        raise ValueError(
            f"is of a list of {of}: give the same path as for the page before, or leave cursor out "
            "to begin with the first page"
        )
    return last


def _text(octets: bytes) -> str:
    digest = sha256(b"dalga cursor 1\n" + octets).digest()[:_DIGEST]
    return urlsafe_b64encode(digest + octets).rstrip(b"=").decode("ascii")


def _octets(text: str) -> bytes | None:
    """The octets in a text that `_text` wrote; None for another text."""
    try:
        octets = urlsafe_b64decode(text + "=" * (-len(text) % 4))[_DIGEST:]
    except ValueError:
        return None
    # Compared as text, as the decoder ignores characters that are not of base64.
    return octets if octets and _text(octets) == text else None
