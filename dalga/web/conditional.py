"""
The headers that say whether a request is to be done at all. Pure.

ETag, If-Match and If-None-Match are those of RFC 9110 (sections 8.8.3, 13.1.1 and 13.1.2);
Idempotency-Key is as most services have it, opaque text.

A job's ETag is its version in hexadecimal digits. It tells one definition from another. A GET shows
more than the definition, such as the next run, so no GET is answered by 304.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dalga.errors import InvalidRequest, shown
from dalga.model.idempotency import MAX_KEY, Idempotency
from dalga.model.precondition import Precondition

_EXAMPLE = 'such as "64a0b1c2d3e4f"'

#: One entity tag: whether it is weak, and what is between its quotes. A comma may be in it.
_TAG = re.compile(rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_BETWEEN = re.compile(rb"[ \t]*,[ \t,]*")
_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY}}}")
_VERSION = re.compile(rb"0|[1-9a-f][0-9a-f]{0,15}")


def etag(version: int) -> bytes:
    """The ETag of a job with this version."""
    return b'"%x"' % version


def precondition(if_match: Sequence[bytes], if_none_match: Sequence[bytes]) -> Precondition | None:
    """
    What has to hold for a write (PUT, PATCH, DELETE) to be done.

    :param if_match: the values of the header's lines.
    :param if_none_match: likewise.
    :return: None if there is neither header.
    :raises InvalidRequest: for a header that is no list of ETags, for both headers at once, and for
        an If-None-Match that is not ``*``: a write that goes by what it may *not* write over would
        have to know each version that there ever was.
    """
    if not if_match and not if_none_match:
        return None
    if if_match and if_none_match:
        raise InvalidRequest(
            "If-Match asks for a job that is there and If-None-Match for none: give just one of "
            "them"
        )
    if if_none_match:
        if _tags("If-None-Match", if_none_match) is not None:
            raise InvalidRequest(
                "If-None-Match is a list of ETags: with a write it takes *, for no job being there;"
                " If-Match takes the ETag of the job that is to be changed"
            )
        return Precondition(absent=True)
    tags = _tags("If-Match", if_match)
    if tags is None:
        return Precondition()
    # A weak ETag never matches (RFC 9110 section 13.1.1), and neither does one that is not ours.
    ours = (tag for is_weak, tag in tags if not is_weak and _VERSION.fullmatch(tag))
    return Precondition(frozenset(int(tag, 16) for tag in ours))


def refuse_preconditions(if_match: Sequence[bytes], if_none_match: Sequence[bytes]) -> None:
    """
    For a call that goes by none.

    :raises InvalidRequest: if there is one. To ignore it could undo what it is meant to keep.
    """
    for name, lines in (("If-Match", if_match), ("If-None-Match", if_none_match)):
        if lines:
            raise InvalidRequest(
                f"{name} goes with PUT, PATCH and DELETE of a job; all other calls do their work "
                f"whatever its ETag: leave {name} out"
            )


def idempotency(lines: Sequence[bytes], *request: bytes) -> Idempotency | None:
    """
    :param lines: the values of the Idempotency-Key header's lines.
    :param request: all that makes the request what it is: method, target, Content-Type, body.
    :return: None if there is no such header.
    :raises InvalidRequest: for a key that is empty, too long, given twice, or not visible ASCII.
    """
    if not lines:
        return None
    if len(lines) > 1:
        raise InvalidRequest("Idempotency-Key is given twice: give it once")
    key = lines[0].decode("latin-1")
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"Idempotency-Key is {shown(key) if key else 'empty'}: it takes 1 to {MAX_KEY} visible "
            "characters of ASCII, such as a UUID, and no spaces"
        )
    return Idempotency.of(key, *request)


def refuse_idempotency(lines: Sequence[bytes]) -> None:
    """
    For a POST such as the one that triggers a job: asked twice, it runs the job twice.

    :raises InvalidRequest: if there is a key. To ignore it would break what it is given for.
    """
    if lines:
        raise InvalidRequest(
            "Idempotency-Key goes with POST /jobs/<path>, which makes a job: any other POST does "
            "its work once more each time; leave Idempotency-Key out"
        )


def _tags(name: str, lines: Sequence[bytes]) -> list[tuple[bool, bytes]] | None:
    """
    The ETags in a list: whether each is weak, and what is between its quotes.

    :return: None for ``*``.
    :raises InvalidRequest: for what is no such list.
    """
    # Several lines are one list, and a list may have empty members (RFC 9110 section 5.6.1).
    value = b",".join(lines).strip(b" \t,")
    if value == b"*":
        return None
    tags: list[tuple[bool, bytes]] = []
    place = 0
    while place < len(value) or not tags:
        found = _TAG.match(value, place)
        between = None if found is None else _BETWEEN.match(value, found.end())
        if found is None or (between is None and found.end() < len(value)):
            given = shown(value.decode("latin-1")) if value else "empty"
            raise InvalidRequest(
                f"{name} is {given}: it takes *, or ETags in double quotes, {_EXAMPLE}, with "
                "commas between them"
            )
        tags.append((found[1] is not None, found[2]))
        place = len(value) if between is None else between.end()
    return tags
