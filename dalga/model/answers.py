"""
What the status of an endpoint's answer means for the run. Pure.

With success=200-299, gone=204,410 and give-up=400-499:

| an answer | |
| 201 | ends the run as a success |
| 204 | ends the run, and the job is removed |
| 422 | ends the run as given up |
| 500 | has the run tried again |

A status may stand in several of the three sets. Then the first set in this order counts: gone,
success, give-up. So success=200-299 leaves the 204 to the set gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from dalga.errors import shown

#: The statuses of final answers (RFC 9110 section 15). A 1xx is followed by another answer.
LOWEST, HIGHEST = 200, 599

#: At most this many ranges in one set; a single status is a range. A job's three sets share the
#: column ``options`` with all other options.
MAX_RANGES = 16

#: The text of a set without a status.
NONE = "none"


class Meaning(StrEnum):
    """What an answer means for its run."""

    #: The run is over, and succeeded.
    SUCCEED = "succeed"
    #: The run failed, and is tried again unless its retries are over.
    RETRY = "retry"
    #: The run failed, and is given up.
    FAIL = "fail"
    #: The run is over, and the job is removed.
    REMOVE = "remove"
    #: The run is over, and the job is disabled. No status means this, only a Dalga-Verdict.
    DISABLE = "disable"


#: To look up a member of an enum takes a call of Python, and each run would do so.
_RETRY = Meaning.RETRY

#: The meanings of answers by which an attempt has failed.
FAILURES = (Meaning.RETRY, Meaning.FAIL)


@dataclass(frozen=True, slots=True)
class Statuses:
    """A set of statuses of final answers."""

    #: First and last status of each range, in ascending order. There is a gap between two ranges,
    #: so that equal sets are equal objects.
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> Statuses:
        """The set of all statuses of these ranges, which may overlap."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = joined[-1][0], max(last, joined[-1][1])
            else:
                joined.append((first, last))
        return cls(tuple(joined))

    def __contains__(self, status: int) -> bool:
        return any(first <= status <= last for first, last in self.ranges)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __str__(self) -> str:
        """The text of the set, as `statuses_from_text` reads it."""
        return ",".join(_range_text(*each) for each in self.ranges) or NONE


def _range_text(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def takes(or_none: bool) -> str:
    """What would do, as the end of a sentence on a wrong set. See `statuses_from_text`."""
    end = ", or none" if or_none else ""
    return (
        f"it takes statuses from {LOWEST} to {HIGHEST} and ranges, such as 200, 200-299 or "
        f"200,202{end}"
    )


def statuses_from_text(text: str, or_none: bool = True) -> Statuses:
    """
    Read statuses and ranges: ``200``, ``200-299``, ``200, 202``, ``none``.

    :param or_none: whether the set may be empty.
    :raises ValueError: with the end of a sentence that says what is wrong.
    """
    if or_none and text.strip().lower() == NONE:
        return Statuses(())
    elements = [each.strip() for each in text.split(",")]
    if len(elements) > MAX_RANGES:
        raise ValueError(
            f"has {len(elements)} statuses and ranges, and may have {MAX_RANGES} at most"
        )
    return Statuses.of(map(_range_from_text, elements))


def _range_from_text(text: str) -> tuple[int, int]:
    """:raises ValueError: as `statuses_from_text` does."""
    found = re.fullmatch(r"([0-9]{3})(?:\s*-\s*([0-9]{3}))?", text)
    if found is None:
        hint = f" ({text[0]}xx is {text[0]}00-{text[0]}99)" if _CLASS.fullmatch(text) else ""
        raise ValueError(f"has {shown(text)}, which is no status{hint}")
    first, last = int(found[1]), int(found[2] or found[1])
    for status in (first, last):
        if not LOWEST <= status <= HIGHEST:
            raise ValueError(
                f"has {status}, which is no status of a final answer ({LOWEST} to {HIGHEST})"
            )
    if last < first:
        raise ValueError(f"has {shown(text)}, whose end is before its start")
    return first, last


#: A class of statuses as documents write it.
_CLASS = re.compile("[2-5][xX]{2}")


class Sets(Protocol):
    """The sets of one job; None for a set that is its endpoint's."""

    @property
    def success(self) -> Statuses | None: ...

    @property
    def gone(self) -> Statuses | None: ...

    @property
    def give_up(self) -> Statuses | None: ...


@dataclass(frozen=True, slots=True)
class Answers:
    """What the statuses of an endpoint's answers mean to jobs that say nothing else."""

    success: Statuses = Statuses(((200, 200),))
    gone: Statuses = Statuses(((204, 204),))
    give_up: Statuses = Statuses(())
    #: The meaning of each status that is in a set. Each run of a job without sets of its own looks
    #: its status up here, and most jobs have none.
    _meanings: dict[int, Meaning] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        meanings = {
            **dict.fromkeys(self.give_up, Meaning.FAIL),
            **dict.fromkeys(self.success, Meaning.SUCCEED),
            **dict.fromkeys(self.gone, Meaning.REMOVE),
        }
        object.__setattr__(self, "_meanings", meanings)

    def meaning(self, status: int, own: Sets) -> Meaning:
        """
        What a status means to a job.

        :param own: the job's own sets, each of which replaces the endpoint's.
        """
        if own.success is None and own.gone is None and own.give_up is None:
            return self._meanings.get(status, _RETRY)
        if status in (self.gone if own.gone is None else own.gone):
            return Meaning.REMOVE
        if status in (self.success if own.success is None else own.success):
            return Meaning.SUCCEED
        if status in (self.give_up if own.give_up is None else own.give_up):
            return Meaning.FAIL
        return Meaning.RETRY
