"""
The page for people at ``/``: its files, and the headers that keep it to itself.

All of the page is here: it loads nothing from elsewhere, and runs no script but its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from dalga import __version__
from dalga.model.permit import Caller
from dalga.model.schedule import timestamp

_STATIC = Path(__file__).parent / "static"

#: The headers of the page and its files.
PAGE_HEADERS = (
    (
        b"Content-Security-Policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Frame-Options", b"DENY"),
    # They change with the version only, and are small.
    (b"Cache-Control", b"no-cache"),
)

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class File(NamedTuple):
    """A file of the page."""

    content_type: str
    content: bytes


#: By their names.
FILES: Mapping[str, File] = {
    path.name: File(_TYPES[path.suffix], path.read_bytes())
    for path in sorted(_STATIC.iterdir())
    if path.suffix in _TYPES
}

#: The file at ``/``.
FRONT = "page.html"


def visitor_json(caller: Caller, has_tokens: bool, ends: datetime | None) -> bytes:
    """
    Who somebody is, for the page. Whoever may nothing is not told the version either.

    :param has_tokens: whether requests need a token.
    :param ends: when the login ends; None for who has not logged in.
    """
    members: dict[str, object] = {"tokens": has_tokens, "token": caller.name or None}
    if caller.grants:
        members["version"] = __version__
    if caller.name:
        members["grants"] = " ".join(map(str, caller.grants))
    if ends is not None:
        members["ends"] = timestamp(ends)
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
