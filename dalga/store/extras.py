"""
What a job has in the tables beside the jobs table, as the column ``extras`` tells it. Pure.

Most jobs have nothing there, and their ``extras`` is 0. A job with a payload of 3,000 octets, a
header and two tags has::

    1037 = 4 << 8       its details take up to 4 KiB: the weight
         | TAGGED       it has rows in the table of tags
         | DELIVERY     a claim has to read its row of details

Anybody may write to the tables by SQL, so nothing is taken for granted (P6).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from dalga.model.delivery import NO_NOTES, PLAIN, Delivery, Notes
from dalga.model.fields import Terms, kept_details, load_details

#: A claim has to read the job's row of details.
DELIVERY = 1
#: Answers to a GET have to read the job's row of details.
NOTES = 2
#: The job has rows in the table of tags.
TAGGED = 4
#: The other tables have rows of what the job was before. No transaction commits this.
STALE = 8
#: A run of the job has failed and is to be tried again: it has an open row in the table of runs.
OPEN = 16
#: The job has a row in the table of jobs that are expected to succeed now and then.
EXPECTED = 32

#: The job has a row of details.
DETAILED = DELIVERY | NOTES

#: The job has rows in the tables of details, of tags, or of expected jobs.
BESIDE = DETAILED | TAGGED | EXPECTED

#: From this bit up ``extras`` has the weight, in KiB.
_WEIGHT = 8


class Details(NamedTuple):
    """What a job's row of details says."""

    delivery: Delivery = PLAIN
    notes: Notes = NO_NOTES


#: Of a job without a row of details.
NO_DETAILS = Details()


class DetailsText(NamedTuple):
    """What the columns of these names hold."""

    members: str
    payload: bytes | None


class DetailsRow(NamedTuple):
    """The row of details that belongs to a row of the jobs table."""

    #: These three are the job's.
    id: int
    version: Any
    extras: Any
    #: The id in the row of details; None if there is no such row.
    details: Any
    #: None also if the row of details takes more than the job's `extras` say.
    members: Any
    payload: Any


def details_text(terms: Terms) -> DetailsText | None:
    """How the details of a job are written; None if there is nothing to write."""
    if terms.delivery is PLAIN and terms.notes is NO_NOTES:
        return None
    members = kept_details(terms)
    if not members:
        return None
    payload = terms.delivery.payload
    text = json.dumps(members, separators=(",", ":"))
    return DetailsText(text, None if payload is None else payload.octets)


def has_details(terms: Terms) -> bool:
    """Whether a job has anything in other tables."""
    if terms.options.expect_within is not None:
        return True
    if terms.delivery is PLAIN and terms.notes is NO_NOTES:
        return False
    return terms.delivery != PLAIN or terms.notes != NO_NOTES


def extras_of(terms: Terms, text: DetailsText | None) -> int:
    """
    The column ``extras`` of a job.

    :param text: the job's `details_text`.
    """
    expected = EXPECTED if terms.options.expect_within is not None else 0
    if text is None:
        return expected
    octets = len(text.members.encode()) + len(text.payload or b"")
    return (
        -(-octets // 1024) << _WEIGHT
        | (DELIVERY if terms.delivery != PLAIN else 0)
        | (NOTES if terms.notes != NO_NOTES else 0)
        | (TAGGED if terms.notes.tags else 0)
        | expected
    )


def is_detailed(extras: object) -> bool:
    """Whether a job has a row of details, by what the column holds."""
    return isinstance(extras, int) and bool(extras & DETAILED)


def weight_of(extras: object, bits: int = DETAILED) -> int:
    """
    How much a reader of a job's details holds in memory, in octets.

    :param extras: what the column holds.
    :param bits: the details are read if `extras` has one of these.
    """
    if not isinstance(extras, int) or not extras & bits:
        return 0
    return extras >> _WEIGHT << 10


def is_open(extras: object) -> bool:
    """Whether a run of a job may have an open row, by what the column holds."""
    return not isinstance(extras, int) or bool(extras & OPEN)


def kinds_of(extras: object) -> int:
    """Which rows there may be in other tables of a job: those bits of its `extras`."""
    if not isinstance(extras, int):
        return BESIDE
    return extras & BESIDE


def fitting(weights: Iterable[int], most: int, so_far: int = 0) -> int:
    """
    How many of the first jobs can be read at once. The first one can, unless there were others.

    :param weights: of each, in octets.
    :param most: all together, in octets.
    :param so_far: the weight of those before.
    """
    number, total = 0, so_far
    for weight in weights:
        total += weight
        if weight and total > most and (number or so_far):
            break
        number += 1
    return number


def read_details(row: DetailsRow) -> Details:
    """:raises ValueError: with what is wrong with the row."""
    if row.details is None:
        raise ValueError("its row of details is missing")
    if row.members is None:
        raise ValueError("its row of details takes more than the job's extras say")
    try:
        text = row.members if isinstance(row.members, str) else bytes(row.members).decode()
        members = json.loads(text)
        if not isinstance(members, dict):
            raise ValueError("it is no JSON object")
        if not isinstance(row.payload, bytes | None):
            raise ValueError("the payload is no octets")
        return Details(*load_details(members, row.payload))
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError) as problem:
        # Not what they are: a header may be a secret (P12).
        raise ValueError(f"its details can't be read: {problem}") from None
