"""
What identifies a job, and what its path becomes in a URL. Pure.

It says what a path and a body may be, once, where a `JobKey` is made; it says nothing about when a
job runs.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple, Self
from urllib.parse import quote

from dalga.errors import InvalidRequest

#: The longest path and body, in characters.
MAX_KEY_LENGTH = 255

_UNRESERVED = re.compile(r"[A-Za-z0-9._~/-]*")


class RawKey(NamedTuple):
    """
    A path and a body as a URL or a row has them, whether or not they may be a job's.

    What no PUT would take can still stand in a row that a stranger wrote: it is looked up, shown
    and deleted by this. It is equal to the `JobKey` of the same text.
    """

    path: str
    body: str

    def __str__(self) -> str:
        return f"{self.path!r} {self.body!r}"


class JobKey(RawKey):
    """
    A job's identity: the path that is POSTed to and the body that is POSTed, as exact text.

    :raises InvalidRequest: where a job can't have them; so each that there is, is valid.
    """

    __slots__ = ()

    def __new__(cls, path: str, body: str) -> Self:
        check_length("path", path)
        check_length("body", body)
        _check_path(path)
        return super().__new__(cls, path, body)


def check_length(name: str, text: str) -> None:
    """
    :param name: "path" or "body".
    :raises InvalidRequest: where `text` is empty or too long.
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

    :raises InvalidRequest: naming what is in the way.
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
    A job's path as it is put behind ``baseurl``, starting with exactly one slash (P11).

    Every character but RFC 3986's unreserved ones (section 2.3) is percent-encoded, so nothing in a
    path can be taken for another part of a URL.
    """
    if _UNRESERVED.fullmatch(path):
        return "/" + path.lstrip("/")  # as most are: the same, in a tenth of the time
    return "/" + "/".join(quote(segment, safe="~") for segment in path.lstrip("/").split("/"))
