"""
Actions on many jobs or runs: the JSON of a request -> an `ActionRequest`; actions -> JSON. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from dalga.errors import InvalidRequest
from dalga.model.action import Action, ActionRequest, Do, request_to_json
from dalga.model.reading import Members, Reader, Value, boolean, members_of, of_text, one_of, whole
from dalga.model.schedule import exact_timestamp
from dalga.web.bodies import JSON, form_pairs, json_members, media_type
from dalga.web.errors import UnsupportedMediaType
from dalga.web.lists import FILTERS as JOB_FILTERS
from dalga.web.lists import SEVERAL as SEVERAL_OF_JOBS
from dalga.web.lists import job_filters
from dalga.web.parameters import reason
from dalga.web.presentation import as_json
from dalga.web.runs import FILTERS as RUN_FILTERS
from dalga.web.runs import SEVERAL as SEVERAL_OF_RUNS
from dalga.web.runs import run_filters
from dalga.web.values import read_values

#: The largest `expect_at_most`.
MOST_EXPECTED = 2**32 - 1

#: The largest number of actions in a list, and the number if no limit is given.
MAX_LISTED, LISTED = 100, 20

_EXAMPLE = '{"do":"replay","filter":{"result":"given_up"}}'


@of_text
def at_most(name: str, value: str) -> int:
    """:return: a whole number, 0 to `MOST_EXPECTED`."""
    takes = f"it takes a whole number from 0 to {MOST_EXPECTED}"
    return whole(name, value, 0, MOST_EXPECTED, takes)


@of_text
def listed(name: str, value: str) -> int:
    """:return: a whole number, 1 to `MAX_LISTED`."""
    return whole(name, value, 1, MAX_LISTED, f"it takes a whole number from 1 to {MAX_LISTED}")


def as_it_is(name: str, value: Value) -> Members:
    """:return: the members of an object, which are read once it is known what they are of."""
    members_of(name, value)
    assert isinstance(value, Members)
    return value


#: The members of the body.
_MEMBERS: Mapping[str, Reader] = MappingProxyType(
    {
        "do": one_of(Do),
        "filter": as_it_is,
        "all": boolean,
        "dry-run": boolean,
        "expect-at-most": at_most,
        "reason": reason,
    }
)


def action_request(query: bytes, content_type: str | None, body: bytes) -> ActionRequest:
    """
    Read a request for an action.

    :raises InvalidRequest: for a member that is unknown, repeated or not understood, and for
        members that do not go together.
    :raises UnsupportedMediaType: for a body that is no JSON.
    """
    if query:
        raise InvalidRequest(f"an action takes no query: give a body of JSON, such as {_EXAMPLE}")
    if media_type(content_type) != JSON:
        given = content_type or "missing"
        raise UnsupportedMediaType(f"the body's Content-Type is {given}: it takes {JSON}")
    values = read_values(json_members(body, _EXAMPLE), _MEMBERS, "an action takes")
    if "do" not in values:
        raise InvalidRequest(
            f"do is missing: give {', '.join(Do)}, with a filter, such as {_EXAMPLE}", ""
        )
    members = values.pop("filter", ())
    try:
        filters = (
            _run_filters(members)
            if values["do"] is Do.REPLAY
            else _job_filters(values["do"], members)
        )
    except InvalidRequest as mistake:
        raise mistake.within("filter") from None
    return ActionRequest(
        filters=filters, **{name.replace("-", "_"): value for name, value in values.items()}
    )


def _run_filters(members: Iterable[tuple[str, Value]]) -> Any:
    others = "it is a filter of jobs, and replay is done to runs"
    elsewhere = {name: others for name in JOB_FILTERS if name not in RUN_FILTERS}
    return run_filters(
        _read(members, RUN_FILTERS, SEVERAL_OF_RUNS, "a filter of runs takes", elsewhere)
    )


def _job_filters(do: Do, members: Iterable[tuple[str, Value]]) -> Any:
    others = f"it is a filter of runs, and {do} is done to jobs"
    elsewhere = {name: others for name in RUN_FILTERS if name not in JOB_FILTERS}
    return job_filters(
        _read(members, JOB_FILTERS, SEVERAL_OF_JOBS, "a filter of jobs takes", elsewhere)
    )


def _read(
    members: Iterable[tuple[str, Value]],
    readers: Mapping[str, Reader],
    several: Mapping[str, str],
    takes: str,
    elsewhere: Mapping[str, str],
) -> dict[str, Any]:
    """
    The values of filters, by the names of their attributes.

    :param several: the filters that take an array, too, and their attributes.
    """
    readers = {
        name: _one_or_more(read) if name in several else read for name, read in readers.items()
    }
    values = read_values(members, readers, takes, elsewhere=elsewhere)
    return {several.get(name, name.replace("-", "_")): value for name, value in values.items()}


def _one_or_more(read: Reader) -> Reader:
    """:return: a reader of a value, or of an array of some. An empty array would mean all."""

    def read_value(name: str, value: Value) -> frozenset[Any]:
        if not isinstance(value, list) or isinstance(value, Members):
            return frozenset([read(name, value)])
        if not value:
            raise InvalidRequest(f"{name} is an empty array: give one or more, or leave it out")
        found = []
        for place, each in enumerate(value):
            try:
                found.append(read(name, each))
            except InvalidRequest as mistake:
                raise mistake.within(place) from None
        return frozenset(found)

    return read_value


def action_list(query: bytes) -> int:
    """
    Read the parameters of a GET of actions.

    :return: how many are asked for, at most.
    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    """
    values = read_values(form_pairs(query), {"limit": listed}, "a list of actions takes")
    limit: int = values.get("limit", LISTED)
    return limit


# JSON


def action_json(action: Action) -> bytes:
    """An action."""
    return as_json(_action(action))


def actions_json(actions: Iterable[Action]) -> bytes:
    """A list of actions."""
    return as_json({"actions": [_action(action) for action in actions]})


def _action(action: Action) -> dict[str, Any]:
    """An action's members. What it asks for is left out if nobody can understand it."""
    members: dict[str, Any] = {"id": action.id}
    if action.request is not None:
        members |= request_to_json(action.request)
    if action.author is not None:
        members["by"] = action.author.name
    members |= {
        "state": action.state,
        "matched": action.matched,
        "done": action.done,
        "failed": action.failed,
    }
    if action.error is not None:
        members["error"] = action.error
    members["began"] = exact_timestamp(action.made)
    members["ended"] = action.ended and exact_timestamp(action.ended)
    if action.instance is not None:
        members["instance"] = action.instance
    return members
