"""
What is known of one attempt of a run: why it failed, what was answered, and what a record keeps of
it. Pure.

A run that has failed twice has two attempts in its record::

    {"n": 1, "at": "2026-03-01T09:00:00.004Z", "instance": "web-1:4911", "ms": 31, "status": 500,
     "error_kind": "status"}
    {"n": 2, "at": "2026-03-01T09:00:00.614Z", "instance": "web-2:4911", "ms": 10000,
     "error_kind": "timeout"}
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from dalga.model.schedule import exact_timestamp


class ErrorKind(StrEnum):
    """Why an attempt failed. The tables have the codes, so a kind keeps its place in this list."""

    #: The endpoint's host name could not be resolved.
    DNS = "dns"
    #: Nothing took the connection.
    CONNECT = "connect"
    #: The TLS handshake failed.
    TLS = "tls"
    #: The connection was there, and the answer was not complete in time.
    TIMEOUT = "timeout"
    #: The connection ended before the answer did.
    CLOSED = "closed"
    #: What came is no answer in HTTP/1.1.
    MALFORMED = "malformed"
    #: The answer's head is longer than Dalga reads.
    TOO_LARGE = "too_large"
    #: The answer says that the run failed.
    STATUS = "status"
    #: The request could not be made, or Dalga made a mistake.
    INTERNAL = "internal"

    @property
    def code(self) -> int:
        """What stands for it in the tables: from 1, as 0 is no error."""
        return _CODES[self]

    @property
    def hint(self) -> str:
        """A sentence that says what to look at."""
        return _HINTS[self]


_KINDS = dict(enumerate(ErrorKind, 1))
_CODES = {kind: code for code, kind in _KINDS.items()}
_HINTS = {
    ErrorKind.DNS: "The endpoint's host name has no address: look at the name in baseurl, and at "
    "the resolver of the machine that Dalga runs on.",
    ErrorKind.CONNECT: "Nothing takes connections at the endpoint's host and port: look whether "
    "the application runs there, and at firewalls on the way.",
    ErrorKind.TLS: "The TLS handshake failed: look at the endpoint's certificate (its name, its "
    "dates, who signed it), at ca in the endpoint's section, and whether the port speaks TLS.",
    ErrorKind.TIMEOUT: "The answer was not complete in time: look at how long the endpoint works "
    "on such a request, or give the job or the endpoint a longer timeout.",
    ErrorKind.CLOSED: "The connection was closed before the answer was complete: look whether the "
    "application or a proxy was restarted or broke down then, and at their logs of that time.",
    ErrorKind.MALFORMED: "What came is no answer in HTTP/1: look at what listens on the endpoint's "
    "port, and at what the application writes into its answer's head.",
    ErrorKind.TOO_LARGE: "The head of the answer is longer than Dalga reads: look for headers that "
    "grow with each answer, such as cookies.",
    ErrorKind.STATUS: "The endpoint answered, and its answer says that the run failed: look at "
    "response_body in GET /runs/<run_id>, and at the application's log of this run id.",
    ErrorKind.INTERNAL: "Dalga could not make the request, or made a mistake: look at Dalga's log "
    "of that time.",
}


def kind_of_code(code: object) -> ErrorKind | None:
    """
    The kind that a code stands for; None for 0, and for anything that stands for no kind (P6).

    :param code: as the table has it.
    """
    return _KINDS.get(code) if isinstance(code, int) else None


#: How much of an answer is kept, in octets: of its fields, and of its body.
MAX_HEADERS = 4 * 1024
MAX_BODY = 2 * 1024


class Saved(NamedTuple):
    """What is kept of an answer. What nobody is to see of it is gone already (P12)."""

    #: Its fields, one a line, ``Name: value``: `MAX_HEADERS` at most.
    headers: str
    #: The start of its body, as it came: `MAX_BODY` at most. None if nobody is to see the body.
    body: bytes | None

    @property
    def text(self) -> str | None:
        """The body as text: what is no UTF-8 as ``\\xff``."""
        if self.body is None:
            return None
        is_whole = len(self.body) < MAX_BODY
        # A letter that the end has cut in two is left out.
        return getincrementaldecoder("utf-8")("backslashreplace").decode(self.body, is_whole)


class Attempt(NamedTuple):
    """One attempt of a run that has ended."""

    #: 1 for the first.
    n: int
    #: When its request was begun, by the database's clock (aware, UTC).
    at: datetime
    #: Which instance has made it.
    instance: str
    #: From its start to its end, in milliseconds.
    ms: int
    #: That of the answer; None where there was none.
    status: int | None
    #: None if it did not fail.
    error_kind: ErrorKind | None


#: How many attempts of a run are kept: the first and the last ones.
FIRST, LAST = 2, 8


def kept(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """
    The attempts that a record keeps: the first two and the last eight. It may be given what it kept
    before, with the next attempt behind.

    :param attempts: in their order.
    """
    if len(attempts) <= FIRST + LAST:
        return tuple(attempts)
    return (*attempts[:FIRST], *attempts[-LAST:])


def attempt_to_json(attempt: Attempt) -> dict[str, Any]:
    """What a record keeps and shows of an attempt; without members that would be null."""
    members = {
        **attempt._asdict(),
        "at": exact_timestamp(attempt.at),
        "error_kind": attempt.error_kind and str(attempt.error_kind),
    }
    return {name: member for name, member in members.items() if member is not None}


def attempts_from_json(value: object) -> tuple[Attempt, ...]:
    """
    Read what `attempt_to_json` gave, in an array. Somebody's SQL may have written it, so what can't
    be read is left out (P6).
    """
    if not isinstance(value, list):
        return ()
    found = [_attempt_from_json(each) for each in value[: FIRST + LAST]]
    return tuple(each for each in found if each is not None)


def _attempt_from_json(value: object) -> Attempt | None:
    if not isinstance(value, dict):
        return None
    try:
        at = datetime.fromisoformat(value["at"])
        began = None if at.tzinfo is None else at.astimezone(UTC)
        numbers = value["n"], value["ms"], value.get("status", 0)
        instance, kind = value["instance"], value.get("error_kind")
        error_kind = None if kind is None else ErrorKind(kind)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if began is None or not isinstance(instance, str) or not all(map(_is_number, numbers)):
        return None
    n, ms, status = numbers
    return Attempt(n, began, instance, ms, status or None, error_kind)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
