"""
The audit list: what was changed by whom. Pure.

Each change that a request with a token makes has an entry::

    by, address      ci, 192.0.2.7
    verb             patch
    path, body       mail, 42
    old              {"interval":60,"headers":{"Authorization":{"octets":12,"digest":"1f0c..."}}}
    new              {"interval":90,"headers":{"Authorization":{"octets":12,"digest":"1f0c..."}}}

What always holds: a payload and the values of headers stand in no entry. Each is its length and a
digest there. Equal digests within an entry are equal values: so the entry tells whether a secret
was changed. The digest is an HMAC with a random key that is made for the entry, and kept nowhere.
Without the key, nobody can try out what a short secret may have been: a plain digest of it could be
guessed.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from dalga.model.fields import shown_parameters
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import RawKey
from dalga.model.permit import Author
from dalga.model.schedule import exact_timestamp


class Verb(StrEnum):
    """What was done."""

    PUT = "put"
    PATCH = "patch"
    #: A job with a generated name was made.
    ONCE = "once"
    ENABLE = "enable"
    DISABLE = "disable"
    TRIGGER = "trigger"
    DELETE = "delete"
    #: A job was made that repeats a run.
    REPLAY = "replay"
    #: An action on many was begun.
    ACTION = "action"
    #: An action was stopped.
    STOP = "stop"


#: What an entry is about before or after a change: a job, or the JSON of an action.
Subject = Job | UnreadableJob | Mapping[str, Any]


class Changed(NamedTuple):
    """A change, as it is made."""

    author: Author
    verb: Verb
    #: None for an action.
    key: RawKey | None
    old: Subject | None = None
    new: Subject | None = None
    #: The id of the action that made the change, or that was begun or stopped.
    action: str | None = None


class Entry(NamedTuple):
    """An entry of the list."""

    #: When the change was made, by the database's clock (aware, UTC).
    at: datetime
    by: str
    address: str
    verb: str
    key: RawKey | None
    action: str | None
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None


class LastChange(NamedTuple):
    """What was last done to a job by somebody with a name."""

    #: By the database's clock (aware, UTC).
    at: datetime
    by: str
    verb: str


#: What an entry has of a job whose row nobody can understand. What is wrong with the row may quote
#: it, and so a secret.
UNREADABLE = "its row could not be understood"


def subject_text(subject: Subject | None, secret: bytes) -> str | None:
    """
    What an entry keeps of a job or an action.

    :param secret: the key of the entry's digests.
    """
    if subject is None:
        return None
    if isinstance(subject, Job):
        members: Mapping[str, Any] = dict(_definition(subject, secret))
    elif isinstance(subject, UnreadableJob):
        members = {"problem": UNREADABLE}
    else:
        members = subject
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"))


#: The parameters that stand in no entry as they are.
_HIDDEN = ("payload", "payload_base64", "headers")


def _definition(job: Job, secret: bytes) -> Iterator[tuple[str, Any]]:
    """What a user has asked for of a job, by the names that GET has."""
    for name, value in shown_parameters(job):
        if name not in _HIDDEN:
            yield name, value
    delivery = job.delivery
    if delivery.payload is not None:
        yield "payload", _hidden(delivery.payload.octets, secret)
    if delivery.headers:
        yield "headers", {name: _hidden(value.encode(), secret) for name, value in delivery.headers}
    if job.disabled:
        yield "disabled", True
        disabling = job.notes.disabled
        if disabling is not None:
            yield "disabled_since", exact_timestamp(disabling.since)
            if disabling.reason is not None:
                yield "disabled_reason", disabling.reason
            if disabling.by is not None:
                yield "disabled_by", disabling.by


def _hidden(octets: bytes, secret: bytes) -> dict[str, Any]:
    """What stands in the place of a value: 64 bits of its digest are enough to tell two apart."""
    digest = hmac.digest(secret, octets, "sha256")
    return {"octets": len(octets), "digest": digest[:8].hex()}


class AuditFilters(NamedTuple):
    """Which entries a list shows. None for all."""

    path: str | None = None
    body: str | None = None
    by: str | None = None
    verb: Verb | None = None
    #: Entries of this time and later, and of before this time (aware, UTC).
    since: datetime | None = None
    until: datetime | None = None

    def fit(self, key: RawKey | None, by: str, verb: str) -> bool:
        """Whether an entry is one of those, whenever it was made."""
        return (
            (self.by is None or by == self.by)
            and (self.verb is None or verb == self.verb)
            and (self.path is None or (key is not None and key.path == self.path))
            and (self.body is None or (key is not None and key.body == self.body))
        )


class AuditPlace(NamedTuple):
    """A place in the list: behind the entry that has these, in the order of the newest first."""

    #: In microseconds since 1970.
    at: int
    nonce: int


class AuditQuery(NamedTuple):
    """What is asked for."""

    filters: AuditFilters = AuditFilters()
    after: AuditPlace | None = None
    limit: int = 100


class AuditPage(NamedTuple):
    """A page of the list, the newest entries first."""

    entries: list[Entry]
    #: Where the next page begins; None if there is none.
    last: AuditPlace | None = None
    #: Whether the page ended before it was full, as many other entries had been looked at.
    partial: bool = False
