"""
A job's key: its path and its body, the path in a URL, and the place in a list. Pure.

A path and a body are checked as a `JobKey` is made of them. Of the `RawKey` in a URL only the
lengths are checked (`check_length`): it may name a row that somebody's SQL wrote.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple, Self
from urllib.parse import quote

from dalga.errors import InvalidRequest, JobNotFound

#: The longest path and body, in characters.
MAX_KEY_LENGTH = 255

_UNRESERVED = re.compile(r"[A-Za-z0-9._~/-]*")


class RawKey(NamedTuple):
    """
    A path and a body as a URL or a row has them, whether or not a job may have them.

    A row that somebody's SQL wrote may have a key that no PUT takes. It is looked up, shown and
    deleted by its `RawKey`. A `RawKey` equals the `JobKey` of the same text.
    """

    path: str
    body: str

    def __str__(self) -> str:
        return f"{self.path!r} {self.body!r}"


class JobKey(RawKey):
    """
    A job's identity: the path that is POSTed to and the body that is POSTed, as exact text.

    :raises InvalidRequest: for a path or a body that no job can have. So every `JobKey` is valid.
    """

    __slots__ = ()

    def __new__(cls, path: str, body: str) -> Self:
        # Each run has one: what holds of nearly all is asked first, without a call.
        if not (0 < len(path) <= MAX_KEY_LENGTH and 0 < len(body) <= MAX_KEY_LENGTH):
            check_length("path", path)
            check_length("body", body)
        if "." in path or not (path.isascii() and path.isprintable()):
            _check_path(path)
        return RawKey.__new__(cls, path, body)


class Position(NamedTuple):
    """
    A row's place in the list of jobs, which is in the order of path and body. Other programs may
    have written the row.
    """

    path: bytes
    body: bytes
    #: Whether the octets are a BLOB in SQLite, which sorts BLOBs behind all text.
    path_is_blob: bool = False
    body_is_blob: bool = False


def job_not_found(key: RawKey) -> JobNotFound:
    """The answer where there is no job, and where the caller may not know of the job that is."""
    return JobNotFound(f"there is no job with path {key.path!r} and body {key.body!r}")


def check_length(name: str, text: str) -> None:
    """
    :param name: "path" or "body".
    :raises InvalidRequest: if `text` is empty or too long.
    """
    if not text:
        raise InvalidRequest(f"the job's {name} is empty: give 1 to {MAX_KEY_LENGTH} characters")
    if len(text) > MAX_KEY_LENGTH:
        raise InvalidRequest(
            f"the job's {name} has {len(text)} characters: it takes {MAX_KEY_LENGTH} at most"
        )


def _check_path(path: str) -> None:
    """
    Refuse a path that could leave the endpoint's base URL or forge a header (P11).

    :raises InvalidRequest: with a sentence that names the character or the segment.
    """
    for character in "" if path.isascii() and path.isprintable() else path:
        # Cc is C0, DEL and C1; Zl and Zp are the other two that may end a line.
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise InvalidRequest(
                f"the job's path has the control character U+{ord(character):04X}: leave it out"
            )
    for segment in path.split("/"):
        if segment in (".", ".."):
            raise InvalidRequest(
                f"the job's path has the segment {segment!r}, which "
                + ("would leave the endpoint's base URL" if segment == ".." else "URLs drop")
                + ": leave it out"
            )


def target_path(path: str) -> str:
    """
    A job's path as it is put behind ``baseurl``. It begins with exactly one slash (P11).

    Every character but RFC 3986's unreserved ones (section 2.3) is percent-encoded, so that no part
    of a path can be taken for another part of a URL.
    """
    if _UNRESERVED.fullmatch(path):
        return "/" + path.lstrip("/")  # most paths: the same result in a tenth of the time
    return "/" + "/".join(quote(segment, safe="~") for segment in path.lstrip("/").split("/"))
