"""
An action on many jobs or runs: what a user asks for, and how far it has come. Pure.

An action goes through its jobs or runs twice, a batch at a time::

    counting    how many match                     -> refused, if more than `expect_at_most`
                                                   -> done, if it is a dry run
    acting      replays, triggers, enables ...     -> done

    at any time                                    -> stopped by a user, or failed

What always holds: it acts on each at most once, and on none that a user has written since the
action began (P4): a job whose version is later, a run whose record is later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from dalga.errors import ActionNotFound, InvalidRequest, shown
from dalga.model.answers import statuses_from_text
from dalga.model.attempt import ErrorKind
from dalga.model.key import Position
from dalga.model.listing import Filters, Sort
from dalga.model.permit import Author, Limits, limits_from_texts
from dalga.model.record import Result, Shelf
from dalga.model.runlist import RunFilters, RunPlace
from dalga.model.schedule import exact_timestamp
from dalga.model.state import State


class Do(StrEnum):
    """What is done to each."""

    REPLAY = "replay"
    TRIGGER = "trigger"
    ENABLE = "enable"
    DISABLE = "disable"
    DELETE = "delete"


class ActionState(StrEnum):
    """How far an action is."""

    COUNTING = "counting"
    ACTING = "acting"
    DONE = "done"
    #: By a user; or, with a sentence, as more matched by then than were counted and expected.
    STOPPED = "stopped"
    #: More matched than were expected, and nothing was done.
    REFUSED = "refused"
    #: Nobody can understand its row.
    FAILED = "failed"


#: The states of an action that is not over.
UNDER_WAY = (ActionState.COUNTING, ActionState.ACTING)

#: An action acts on jobs, or, if it replays, on runs that have ended.
AnyFilters = Filters | RunFilters

#: Where an action has come to: behind this job or run.
AnyPlace = Position | RunPlace


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """
    What a user asks for.

    :raises InvalidRequest: for parts that do not go together. So no request has such parts.
    """

    do: Do
    #: Of runs for a replay, of jobs for all others.
    filters: AnyFilters
    #: Whether all jobs, or all runs, are meant: no filter is given then.
    all: bool = False
    #: Whether it only counts.
    dry_run: bool = False
    #: If more match, nothing is done. 0 or more.
    expect_at_most: int | None = None
    #: Is noted with the action, and with each job that is disabled.
    reason: str | None = None
    #: What whoever asks may do it to, as it was when the action began; None for all.
    limits: Limits | None = None

    def __post_init__(self) -> None:
        what = "runs" if self.of_runs else "jobs"
        is_empty = self.filters == type(self.filters)()
        if is_empty and not self.all:
            raise InvalidRequest(
                f"filter is empty, so {self.do} would be done to all {what}: give a filter, such "
                'as {"prefix":"mail"}, or "all": true if all are meant',
                "/filter",
            )
        if self.all and not is_empty:
            raise InvalidRequest(
                f"all is true, and filter leaves {what} out: give just one of them", "/all"
            )
        if isinstance(self.filters, RunFilters) and self.filters.states:
            raise InvalidRequest(
                "filter.result is of runs that have not ended, and no such run can be replayed: "
                f"it takes {', '.join(Result)}",
                "/filter/result",
            )

    @property
    def of_runs(self) -> bool:
        """Whether it is done to runs, and not to jobs."""
        return self.do is Do.REPLAY

    def walked(self, began: datetime) -> AnyFilters:
        """
        The filters of its walk.

        :param began: when the action began, by the database's clock (aware, UTC). Runs that ended
            since are not among those of the walk; jobs that were written since are (`is_later`).
        """
        if isinstance(self.filters, Filters):
            # No other order stays as it is while jobs are triggered and disabled.
            return _replaced(self.filters, sort=Sort.KEY, limits=self.limits)
        until = self.filters.until
        until = began if until is None else min(until, began)
        return _replaced(self.filters, until=until, limits=self.limits)

    def is_for(self, limits: Limits | None) -> bool:
        """Whether it is done to nothing but what is within limits; None for no limits."""
        if limits is None:
            return True
        return self.limits is not None and self.limits.are_within(limits)


def _replaced(filters: AnyFilters, **changes: Any) -> AnyFilters:
    given = {field.name: getattr(filters, field.name) for field in fields(filters)}
    return type(filters)(**{**given, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action as it stands. Instants are of the database's clock (aware, UTC)."""

    #: A generated name (`dalga.model.name`): so actions are in the order in which they began.
    id: str
    #: None if nobody can understand it.
    request: ActionRequest | None
    state: ActionState
    made: datetime
    #: None while it is under way.
    ended: datetime | None = None
    #: How many were counted.
    matched: int = 0
    #: To how many it was done, and could not be done.
    done: int = 0
    failed: int = 0
    #: Why it could not be done to the last one of these; or why the action is over.
    error: str | None = None
    #: The instance that made its last batch.
    instance: str | None = None
    #: Who has begun it; None for a user without a name.
    author: Author | None = None

    @property
    def left(self) -> int | None:
        """How many it may still act on; None if nothing was said of that."""
        most = None if self.request is None else self.request.expect_at_most
        return None if most is None else max(0, most - self.done - self.failed)


def action_not_found(id: str) -> ActionNotFound:
    """The answer where there is none, and where the caller may not know of the one that is."""
    return ActionNotFound(f"there is no action {shown(id)}, or it was forgotten: GET /actions")


# Filters as JSON


class _Member(NamedTuple):
    """A filter's member."""

    #: The attribute of the filters.
    attribute: str
    #: The value -> its JSON, and back. The latter raises ValueError or TypeError.
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r:.40} is no text, or empty")
    value.encode()  # raises ValueError: JSON can write half a character
    return value


def _moment(value: object) -> datetime:
    found = datetime.fromisoformat(_text(value))
    if found.tzinfo is None:
        raise ValueError(f"{value!r:.40} has no zone")
    return found.astimezone(UTC)


def _several(kind: Callable[[Any], Any]) -> Callable[[Any], frozenset[Any]]:
    def read(value: object) -> frozenset[Any]:
        if not isinstance(value, list):
            raise TypeError(f"{value!r:.40} is no array")
        return frozenset(kind(_text(each)) for each in value)

    return read


_KEYED = {
    "path": _Member("path", str, _text),
    "prefix": _Member("prefix", str, _text),
    "body": _Member("body", str, _text),
    "endpoint": _Member("endpoint", str, _text),
    "tag": _Member("tags", sorted, _several(str)),
}
_OF_JOBS: Mapping[str, _Member] = MappingProxyType(
    {
        **_KEYED,
        "state": _Member("states", sorted, _several(State)),
        "due_before": _Member("due_before", exact_timestamp, _moment),
        "due_after": _Member("due_after", exact_timestamp, _moment),
        "contains": _Member("contains", str, _text),
    }
)
_OF_RUNS: Mapping[str, _Member] = MappingProxyType(
    {
        **_KEYED,
        "result": _Member("results", sorted, _several(Result)),
        "status": _Member("statuses", str, lambda text: statuses_from_text(_text(text))),
        "error_kind": _Member("error_kinds", sorted, _several(ErrorKind)),
        "since": _Member("since", exact_timestamp, _moment),
        "until": _Member("until", exact_timestamp, _moment),
    }
)


#: What each of the members of a request is that are no filters.
_REST = {"all": bool, "dry_run": bool, "expect_at_most": int, "reason": str, "limits": list}


def filter_to_json(filters: AnyFilters) -> dict[str, Any]:
    """The filters that are there: names as in the query of a list, several values as an array."""
    members = _OF_JOBS if isinstance(filters, Filters) else _OF_RUNS
    return {
        name: member.write(value)
        for name, member in members.items()
        if (value := getattr(filters, member.attribute)) not in (None, frozenset())
    }


def request_to_json(request: ActionRequest) -> dict[str, Any]:
    """What is kept and shown of a request."""
    members: dict[str, Any] = {"do": str(request.do), "filter": filter_to_json(request.filters)}
    if request.all:
        members["all"] = True
    if request.dry_run:
        members["dry_run"] = True
    if request.expect_at_most is not None:
        members["expect_at_most"] = request.expect_at_most
    if request.reason is not None:
        members["reason"] = request.reason
    if request.limits is not None:
        members["limits"] = [str(area) for area in request.limits.areas]
    return members


#: The members beside those of a request, of the action's author.
_AUTHOR = "by", "address"


def request_to_text(request: ActionRequest, author: Author | None) -> str:
    """What is kept of a request, and of who has sent it."""
    members = request_to_json(request)
    if author is not None:
        members |= zip(_AUTHOR, author, strict=True)
    return json.dumps(members)


def author_from_text(text: str) -> Author | None:
    """The author in what `request_to_text` gives, which is a request by now."""
    found = json.loads(text)
    name, address = (found.get(member) for member in _AUTHOR)
    return Author(name, str(address or "")) if isinstance(name, str) and name else None


def request_from_text(text: str) -> ActionRequest:
    """
    Read the request in what `request_to_text` gives.

    :raises ValueError: for another text (P6).
    """
    try:
        found = json.loads(text)
        rest = {
            name: value for name, value in found.items() if name not in ("do", "filter", *_AUTHOR)
        }
        do = Do(found["do"])
        kind, members = (RunFilters, _OF_RUNS) if do is Do.REPLAY else (Filters, _OF_JOBS)
        given = {
            members[name].attribute: members[name].read(value)
            for name, value in found["filter"].items()
        }
        for name, value in rest.items():
            if type(value) is not _REST[name]:
                raise TypeError(f"{name} is {value!r:.40}")
        if "limits" in rest:
            rest["limits"] = limits_from_texts(map(_text, rest["limits"]))
        return ActionRequest(do, kind(**given), **rest)
    except (
        *(KeyError, TypeError, AttributeError, RecursionError, OverflowError),
        InvalidRequest,
    ) as problem:
        raise ValueError(f"it is no action: {shown(str(problem))}") from None


# Places as text


def place_to_text(place: AnyPlace | None) -> str:
    """What is kept of a place; empty for the beginning."""
    if place is None:
        return ""
    if isinstance(place, RunPlace):
        return json.dumps([int(place.shelf), place.at, place.job])
    path, body, *kinds = place
    return json.dumps([path.hex(), body.hex(), *map(bool, kinds)])


def place_from_text(text: str) -> AnyPlace | None:
    """
    Read what `place_to_text` gives.

    :raises ValueError: for another text (P6).
    """
    if not text:
        return None
    try:
        first, second, *rest = json.loads(text)
        if isinstance(first, int):
            (job,) = rest
            if not (0 <= int(second) < 1 << 63 and 0 <= int(job) < 1 << 63):
                raise ValueError
            return RunPlace(Shelf(first), int(second), int(job))
        path_is_blob, body_is_blob = map(bool, rest)
        return Position(bytes.fromhex(first), bytes.fromhex(second), path_is_blob, body_is_blob)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise ValueError(f"{shown(text)} is no place") from None
