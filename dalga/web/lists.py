"""
The query of a list of jobs -> a `Query`, and back, for the link to the next page. Pure.

`tag` and `state` may be given several times, for jobs to which any of them applies. All other
parameters are given once, and each of them leaves jobs out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from dalga.errors import InvalidRequest, shown
from dalga.model.key import MAX_KEY_LENGTH, check_length
from dalga.model.listing import Filters, Query, Sort
from dalga.model.reading import Reader, Value, instant, of_text, one_of, whole
from dalga.model.reading_delivery import check_characters, check_tag
from dalga.model.schedule import exact_timestamp
from dalga.model.state import State
from dalga.web.bodies import form_pairs
from dalga.web.cursors import WHOLE, View, cursor_from_text
from dalga.web.values import read_values

F = TypeVar("F")
P = TypeVar("P")

#: The largest number of jobs, or of runs, on a page, and the number if no limit is given.
MAX_PAGE = 1000
PAGE = 100

#: How many tags may be given. The index is gone through for each.
MAX_TAGS = 10


@of_text
def limit(name: str, value: str) -> int:
    """:return: a whole number, 1 to `MAX_PAGE`."""
    return whole(name, value, 1, MAX_PAGE, f"it takes a whole number from 1 to {MAX_PAGE}")


@of_text
def of_key(name: str, value: str) -> str:
    """:return: a text that may be a job's path, or its body."""
    check_characters(name, value)
    check_length(name, value)
    return value


@of_text
def part(name: str, value: str) -> str:
    """:return: a text that may be a part of a job's key."""
    check_characters(name, value)
    if not 0 < len(value) <= MAX_KEY_LENGTH:
        raise InvalidRequest(f"{name} has {len(value)} characters: it takes 1 to {MAX_KEY_LENGTH}")
    return value


@of_text
def tag(name: str, value: str) -> str:
    """:return: a text that may be a job's tag."""
    if "," in value:
        raise InvalidRequest(
            f"{name} is {shown(value)}, and no tag has a comma: for the jobs that have one of "
            f"several tags, give {name} once for each"
        )
    check_tag(name, value)
    return value


@of_text
def cursor(name: str, value: str) -> str:
    """:return: the text; `listing` reads the cursor in it."""
    return value


#: The filters of a list of jobs.
FILTERS: Mapping[str, Reader] = MappingProxyType(
    {
        "path": of_key,
        "prefix": part,
        "body": of_key,
        "endpoint": part,
        "tag": tag,
        "state": one_of(State),
        "due-before": instant,
        "due-after": instant,
        "contains": part,
    }
)

#: The filters that may be given several times, and the attributes of `Filters` that have them.
SEVERAL: Mapping[str, str] = MappingProxyType({"tag": "tags", "state": "states"})

#: The parameters of a list of jobs.
_LISTING: Mapping[str, Reader] = MappingProxyType(
    {"limit": limit, "cursor": cursor, **FILTERS, "sort": one_of(Sort)}
)


def listing(query: bytes, view: View = WHOLE) -> Query:
    """
    Read the parameters of a GET of all jobs.

    :param view: that of the caller.
    :raises InvalidRequest: for a parameter that is unknown, not understood, or repeated though it
        is not to be, and for parameters that contradict each other.
    """
    values = read_filters(form_pairs(query), _LISTING, SEVERAL, "a list of jobs takes")
    size, text = values.pop("limit", PAGE), values.pop("cursor", None)
    filters = replace(job_filters(values), limits=view.limits)
    return Query(filters, place(text, filters, partial(cursor_from_text, seal=view.seal)), size)


def read_filters(
    given: Iterable[tuple[str, Value]],
    readers: Mapping[str, Reader],
    several: Mapping[str, str],
    takes: str,
) -> dict[str, Any]:
    """
    Read the parameters of a list.

    :param several: those that may be given several times, and the attributes that have them.
    :param takes: see `read_values`.
    :return: the values, by the names of attributes.
    :raises InvalidRequest: as `listing`, but for parameters that contradict each other.
    """
    pairs = [(name.replace("_", "-"), name, value) for name, value in given]
    once = [(spelled, value) for name, spelled, value in pairs if name not in several]
    values = read_values(once, readers, takes)
    for name, attribute in several.items():
        found = [value for each, _, value in pairs if each == name]
        values[attribute] = frozenset(readers[name](name, value) for value in found)
    return {name.replace("-", "_"): value for name, value in values.items()}


def place(text: str | None, filters: F, read: Callable[[str, F], P]) -> P | None:
    """
    Where the page before ended.

    :param text: the cursor; None for the first page.
    :param read: as `cursor_from_text`.
    :raises InvalidRequest: for a text that is no cursor of this list.
    """
    if text is None:
        return None
    try:
        return read(text, filters)
    except ValueError as problem:
        raise InvalidRequest(f"cursor is {shown(text)}, which {problem}") from None


def check_filters(path: str | None, prefix: str | None, tags: Collection[str], of: str) -> None:
    """
    Check what lists of jobs and of runs have in common.

    :param of: what the list is of.
    :raises InvalidRequest: for filters that contradict each other, or are too many.
    """
    if path is not None and prefix is not None:
        raise InvalidRequest(
            f"path and prefix are both given: give path for the {of} of this path alone, or prefix "
            "for those of all paths that begin with it"
        )
    if len(tags) > MAX_TAGS:
        raise InvalidRequest(f"there are {len(tags)} tags: a list takes {MAX_TAGS} at most")


def job_filters(values: Mapping[str, Any]) -> Filters:
    """
    :param values: as `read_filters` gives them, of `FILTERS`.
    :raises InvalidRequest: for filters that contradict each other, or are too many.
    """
    filters = Filters(**values)
    check_filters(filters.path, filters.prefix, filters.tags, "jobs")
    before, after = filters.due_before, filters.due_after
    if before is not None and after is not None and before <= after:
        raise InvalidRequest(
            f"due_before is {exact_timestamp(before)}, which is not later than due_after, "
            f"{exact_timestamp(after)}: no job is due between the two"
        )
    return filters


def next_page(query: Query, cursor: str) -> str:
    """
    The value of a Link header (RFC 8288) that leads to the page behind that of a query.

    Its target is a query alone, so that it is right behind a proxy that has this list at another
    path (RFC 3986 section 5.2).
    """
    filters = query.filters
    named: list[tuple[str, Any]] = [
        ("path", filters.path),
        ("prefix", filters.prefix),
        ("body", filters.body),
        ("endpoint", filters.endpoint),
        *(("tag", tag) for tag in sorted(filters.tags)),
        *(("state", state) for state in sorted(filters.states)),
        ("due_before", filters.due_before and exact_timestamp(filters.due_before)),
        ("due_after", filters.due_after and exact_timestamp(filters.due_after)),
        ("sort", filters.sort),
        ("contains", filters.contains),
        ("limit", query.limit),
        ("cursor", cursor),
    ]
    return link(named)


def link(named: Iterable[tuple[str, Any]]) -> str:
    """
    The value of a Link header to the next page.

    :param named: its parameters; those that are None are left out.
    """
    given = [(name, value) for name, value in named if value is not None]
    return f'<?{urlencode(given, quote_via=quote)}>; rel="next"'
