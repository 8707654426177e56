"""
The audit list: its query -> an `AuditQuery`, and back, for the link to the next page; entries, and
the last change of a job -> JSON. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dalga.errors import InvalidRequest
from dalga.model.audit import AuditFilters, AuditPage, AuditQuery, Entry, LastChange, Verb
from dalga.model.reading import Reader, instant, one_of
from dalga.model.schedule import exact_timestamp
from dalga.web.bodies import form_pairs
from dalga.web.cursors import audit_cursor_from_text, audit_cursor_text
from dalga.web.lists import PAGE, cursor, limit, link, of_key, part, place, read_filters
from dalga.web.presentation import as_json

_PARAMETERS: Mapping[str, Reader] = MappingProxyType(
    {
        "path": of_key,
        "body": of_key,
        "by": part,
        "verb": one_of(Verb),
        "since": instant,
        "until": instant,
        "limit": limit,
        "cursor": cursor,
    }
)


def audit_list(query: bytes) -> AuditQuery:
    """
    Read the parameters of a GET of the audit list.

    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood, and for
        times between which there is none.
    """
    values = read_filters(form_pairs(query), _PARAMETERS, {}, "the audit list takes")
    size, text = values.pop("limit", PAGE), values.pop("cursor", None)
    filters = AuditFilters(**values)
    since, until = filters.since, filters.until
    if since is not None and until is not None and until <= since:
        raise InvalidRequest(
            f"until is {exact_timestamp(until)}, which is not later than since, "
            f"{exact_timestamp(since)}: nothing was changed between the two"
        )
    return AuditQuery(filters, place(text, filters, audit_cursor_from_text), size)


def next_entries(page: AuditPage, query: AuditQuery) -> tuple[str | None, str | None]:
    """The cursor of the next page, and the value of a Link header to it; None if it is the last."""
    if page.last is None:
        return None, None
    filters = query.filters
    cursor = audit_cursor_text(page.last, filters)
    named = [
        ("path", filters.path),
        ("body", filters.body),
        ("by", filters.by),
        ("verb", filters.verb),
        ("since", filters.since and exact_timestamp(filters.since)),
        ("until", filters.until and exact_timestamp(filters.until)),
        ("limit", query.limit),
        ("cursor", cursor),
    ]
    return cursor, link(named)


def audit_json(page: AuditPage, cursor: str | None) -> bytes:
    """A page of the list."""
    members: dict[str, Any] = {"entries": [_entry(entry) for entry in page.entries]}
    if cursor is not None:
        members["cursor"] = cursor
    if page.partial:
        members["partial"] = True
    return as_json(members)


def _entry(entry: Entry) -> dict[str, Any]:
    """An entry's members. Those behind ``verb`` are there only if they have something to say."""
    members: dict[str, Any] = {
        "at": exact_timestamp(entry.at),
        "by": entry.by,
        "address": entry.address,
        "verb": entry.verb,
    }
    if entry.key is not None:
        members |= entry.key._asdict()
    for name in ("action", "old", "new"):
        value = getattr(entry, name)
        if value is not None:
            members[name] = value
    return members


def last_change_members(change: LastChange) -> dict[str, Any]:
    """The last change of a job, as the job shows it."""
    return {"at": exact_timestamp(change.at), "by": change.by, "verb": change.verb}
