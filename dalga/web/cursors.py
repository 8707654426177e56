"""
Cursors: the place where a page of jobs, or of runs, ended, as text that clients give back. Pure.

A cursor holds the place, and which list it is of: of a list without filters, or of one path, the
path itself; of another list, a digest of its filters. It is not secret, and good for any instance.
Its own digest tells a cursor that was changed or cut off, which would lead to another page.

A page may end at a row that its reader may not see, as its filters were looked at row by row. So
the cursors of callers who may not see all are sealed: nobody can read them, or make one.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from dalga.model.audit import AuditFilters, AuditPlace
from dalga.model.key import Position
from dalga.model.listing import ALL, Driver, DuePlace, Filters, Place, StatePlace
from dalga.model.permit import Limits
from dalga.model.record import Shelf
from dalga.model.runlist import RunFilters, RunPlace

_DIGEST = 6  # octets
_ID = 8  # octets
#: Bits of the first octet. The first two are of the place of a key; of the place of a due time,
#: they say that it is a BLOB, and that there is a due time at all.
_PATH_BLOB, _BODY_BLOB, _OF_A_PATH, _FILTERED = 1, 2, 4, 8
_DUE_BLOB, _HAS_DUE = 1, 2

#: Of a list of runs, and of the audit list.
_OF_RUNS, _OF_AUDIT = 16, 32

_UNCHANGED = (
    "it takes what the page before gave, unchanged; leave it out to begin with the first page"
)


class Seal:
    """
    Seals the cursors of a caller. The same place has the same cursor, whichever instance makes it.

    :param key: the same on all instances, and known to no caller, in 64 octets.
    :param name: the caller's: nobody else can use the cursor.
    """

    def __init__(self, key: bytes, name: str) -> None:
        self._cipher = AESSIV(key)
        self._of = [b"dalga cursor 1", name.encode()]

    def close(self, octets: bytes) -> bytes:
        """Make octets unreadable."""
        return self._cipher.encrypt(octets, self._of)

    def open(self, octets: bytes) -> bytes | None:
        """What was closed; None for octets that were not."""
        try:
            return self._cipher.decrypt(octets, self._of)
        except (InvalidTag, ValueError):  # ValueError for too few octets
            return None


class View(NamedTuple):
    """What whoever asks for a list may see of it."""

    #: None for all.
    limits: Limits | None = None
    #: None for a caller who may see all.
    seal: Seal | None = None


#: Of a caller who may see all.
WHOLE = View()


def cursor_text(last: Place, filters: Filters, seal: Seal | None = None) -> str:
    """
    :param last: where the page ended, by the driver of the filters.
    :param filters: those of the list.
    """
    flags, place = _place(last)
    if not _are_others(filters):
        return _text(bytes([flags | _OF_A_PATH * (filters.path is not None)]) + place, seal)
    return _text(bytes([flags | _FILTERED]) + _digest_of(filters) + place, seal)


def cursor_from_text(text: str, filters: Filters, seal: Seal | None = None) -> Place:
    """
    Read a cursor that `cursor_text` wrote for the same list.

    :param filters: those of the list now.
    :raises ValueError: for another text. The message says what is wrong and what would do, as the
        rest of a sentence.
    """
    octets = _octets(text, seal)
    if octets is None:
        raise ValueError(f"is none: {_UNCHANGED}")
    flags, rest = octets[0], octets[1:]
    if flags & (_OF_RUNS | _OF_AUDIT):
        other = "a list of runs" if flags & _OF_RUNS else "the audit list"
        raise ValueError(f"is of {other}: {_UNCHANGED}")
    if flags & _FILTERED or _are_others(filters):
        digest = rest[:_DIGEST] if flags & _FILTERED else b""
        if digest != _digest_of(filters):
            raise ValueError(
                "is of another list: give the same filters and sort as for the page before, or "
                "leave cursor out to begin with the first page"
            )
        place = _place_from(flags, rest[_DIGEST:], filters.driver)
        if place is None:
            raise ValueError(f"is none: {_UNCHANGED}")
        return place
    last = _position(flags, rest)
    listed = last.path.decode("utf-8", "replace") if flags & _OF_A_PATH else None
    if listed != filters.path:
        of = "all jobs" if listed is None else f"the jobs with path {listed!r:.40}"
        raise ValueError(
            f"is of a list of {of}: give the same path as for the page before, or leave cursor out "
            "to begin with the first page"
        )
    return last


def run_cursor_text(last: RunPlace, filters: RunFilters, seal: Seal | None = None) -> str:
    """
    :param last: where the page ended.
    :param filters: those of the list.
    """
    numbers = b"".join(number.to_bytes(_ID, "big") for number in last[1:])
    return _text(bytes([_OF_RUNS, last.shelf]) + _digest_of_runs(filters) + numbers, seal)


def run_cursor_from_text(text: str, filters: RunFilters, seal: Seal | None = None) -> RunPlace:
    """
    Read a cursor that `run_cursor_text` wrote for the same list.

    :raises ValueError: as `cursor_from_text` does.
    """
    octets = _octets(text, seal)
    if octets is None or octets[0] != _OF_RUNS or len(octets) != 2 + _DIGEST + 2 * _ID:
        raise ValueError(f"is none of a list of runs: {_UNCHANGED}")
    if octets[2 : 2 + _DIGEST] != _digest_of_runs(filters):
        raise ValueError(
            "is of another list: give the same filters as for the page before, or leave cursor out "
            "to begin with the first page"
        )
    at, job = (int.from_bytes(octets[begin:][:_ID], "big") for begin in (-2 * _ID, -_ID))
    if octets[1] not in list(Shelf) or max(at, job) >= 1 << 63:
        raise ValueError(f"is none: {_UNCHANGED}")
    return RunPlace(Shelf(octets[1]), at, job)


def audit_cursor_text(last: AuditPlace, filters: AuditFilters) -> str:
    """
    :param last: where the page ended.
    :param filters: those of the list.
    """
    numbers = b"".join(number.to_bytes(_ID, "big") for number in last)
    return _text(bytes([_OF_AUDIT]) + _digest_of_audit(filters) + numbers)


def audit_cursor_from_text(text: str, filters: AuditFilters) -> AuditPlace:
    """
    Read a cursor that `audit_cursor_text` wrote for the same list.

    :raises ValueError: as `cursor_from_text` does.
    """
    octets = _octets(text)
    if octets is None or octets[0] != _OF_AUDIT or len(octets) != 1 + _DIGEST + 2 * _ID:
        raise ValueError(f"is none of the audit list: {_UNCHANGED}")
    if octets[1 : 1 + _DIGEST] != _digest_of_audit(filters):
        raise ValueError(
            "is of another list: give the same filters as for the page before, or leave cursor out "
            "to begin with the first page"
        )
    at, nonce = (int.from_bytes(octets[begin:][:_ID], "big") for begin in (-2 * _ID, -_ID))
    if max(at, nonce) >= 1 << 63:
        raise ValueError(f"is none: {_UNCHANGED}")
    return AuditPlace(at, nonce)


def _digest_of_audit(filters: AuditFilters) -> bytes:
    """The same for all filters that mean the same list."""
    named = filters._replace(since=None, until=None)
    times = [_moment(filters.since), _moment(filters.until)]
    return sha256(b"dalga audit filters 1\n" + json.dumps([*named, *times]).encode()).digest()[
        :_DIGEST
    ]


def _are_others(filters: Filters) -> bool:
    """Whether there are filters beside the path."""
    return replace(filters, path=None) != ALL


def _moment(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _limits(filters: Filters | RunFilters) -> list[str]:
    return [] if filters.limits is None else sorted(map(str, filters.limits.areas))


def _digest_of_runs(filters: RunFilters) -> bytes:
    """The same for all filters that mean the same list."""
    named = [
        filters.path,
        filters.prefix,
        filters.body,
        filters.endpoint,
        sorted(filters.tags),
        sorted(filters.results),
        sorted(filters.states),
        None if filters.statuses is None else str(filters.statuses),
        sorted(filters.error_kinds),
        _moment(filters.since),
        _moment(filters.until),
        *_limits(filters),
    ]
    return sha256(b"dalga run filters 1\n" + json.dumps(named).encode()).digest()[:_DIGEST]


def _digest_of(filters: Filters) -> bytes:
    """The same for all filters that mean the same list."""
    named = [
        filters.driver,
        filters.path,
        filters.prefix,
        filters.body,
        filters.endpoint,
        sorted(filters.tags),
        sorted(filters.states),
        _moment(filters.due_before),
        _moment(filters.due_after),
        filters.contains,
        filters.sort,
        *_limits(filters),
    ]
    return sha256(b"dalga filters 1\n" + json.dumps(named).encode()).digest()[:_DIGEST]


def _place(last: Place) -> tuple[int, bytes]:
    """A place in octets, and its bits of the first octet."""
    match last:
        case DuePlace():
            flags = _DUE_BLOB * last.is_blob | _HAS_DUE * (last.due is not None)
            return flags, last.id.to_bytes(_ID, "big") + (last.due or b"")
        case StatePlace():
            return 0, bytes([last.disabled, last.standing]) + last.id.to_bytes(_ID, "big")
        case _:
            flags = _PATH_BLOB * last.path_is_blob | _BODY_BLOB * last.body_is_blob
            return flags, len(last.path).to_bytes(4, "big") + last.path + last.body


def _place_from(flags: int, octets: bytes, driver: Driver) -> Place | None:
    """What `_place` wrote; None for octets that it does not write."""
    if driver in (Driver.KEY, Driver.TAG):
        return _position(flags, octets)
    at = 0 if driver is Driver.DUE else 2
    id = int.from_bytes(octets[at : at + _ID], "big")
    if len(octets) < at + _ID or id >= 1 << 63:
        return None
    if driver is Driver.STATE:
        return StatePlace(octets[0], octets[1], id)
    has_due, is_blob = bool(flags & _HAS_DUE), bool(flags & _DUE_BLOB)
    return DuePlace(octets[_ID:] if has_due else None, id, is_blob)


def _position(flags: int, octets: bytes) -> Position:
    end = 4 + int.from_bytes(octets[:4], "big")
    kinds = bool(flags & _PATH_BLOB), bool(flags & _BODY_BLOB)
    return Position(octets[4:end], octets[end:], *kinds)


def _text(octets: bytes, seal: Seal | None = None) -> str:
    if seal is not None:
        return urlsafe_b64encode(seal.close(octets)).rstrip(b"=").decode("ascii")
    digest = sha256(b"dalga cursor 1\n" + octets).digest()[:_DIGEST]
    return urlsafe_b64encode(digest + octets).rstrip(b"=").decode("ascii")


def _octets(text: str, seal: Seal | None = None) -> bytes | None:
    """The octets in a text that `_text` wrote; None for another text."""
    octets: bytes | None
    try:
        octets = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    octets = octets[_DIGEST:] if seal is None else seal.open(octets)
    # Compared as text, as the decoder ignores characters that are not of base64.
    return octets if octets and _text(octets, seal) == text else None
