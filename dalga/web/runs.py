"""
Lists of runs: their query -> a `RunQuery`, and back, for the link to the next page; runs -> JSON.
Pure.

`tag`, `result` and `error-kind` may be given several times, for runs to which any of them applies.
All other parameters are given once, and each of them leaves runs out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from dalga.errors import InvalidRequest, RunNotFound, shown
from dalga.model.attempt import ErrorKind, attempt_to_json
from dalga.model.key import RawKey
from dalga.model.reading import Reader, instant, of_text, one_of, success
from dalga.model.record import Record, Result
from dalga.model.runid import RunId, run_id_from_text
from dalga.model.runlist import ListedRun, RunFilters, RunPage, RunQuery, RunState
from dalga.model.schedule import exact_timestamp
from dalga.web.bodies import form_pairs
from dalga.web.cursors import WHOLE, View, run_cursor_from_text, run_cursor_text
from dalga.web.lists import (
    PAGE,
    check_filters,
    cursor,
    limit,
    link,
    of_key,
    part,
    place,
    read_filters,
    tag,
)
from dalga.web.presentation import as_json

#: What `result` takes: how a run has ended, or what it does if it has not.
_RESULTS: Mapping[str, Result | RunState] = {
    **{str(each): each for each in Result},
    **{str(each): each for each in RunState},
}


@of_text
def result(name: str, value: str) -> Result | RunState:
    """:return: how a run has ended, or what it does if it has not."""
    found = _RESULTS.get(value.lower())
    if found is None:
        *others, last = _RESULTS
        raise InvalidRequest(f"{name} is {shown(value)}: it takes {', '.join(others)} or {last}")
    return found


#: The filters of a list of runs.
FILTERS: Mapping[str, Reader] = MappingProxyType(
    {
        "path": of_key,
        "prefix": part,
        "body": of_key,
        "endpoint": part,
        "tag": tag,
        "result": result,
        "status": success,
        "error-kind": one_of(ErrorKind),
        "since": instant,
        "until": instant,
    }
)

#: The filters that may be given several times, and the attributes that have them.
SEVERAL: Mapping[str, str] = MappingProxyType(
    {"tag": "tags", "result": "results", "error-kind": "error_kinds"}
)

_PAGE_OF: Mapping[str, Reader] = MappingProxyType({"limit": limit, "cursor": cursor})

#: The parameters of a list of all runs, and of a list of the runs of one job.
_ALL: Mapping[str, Reader] = MappingProxyType({**FILTERS, **_PAGE_OF})
_OF_JOB: Mapping[str, Reader] = MappingProxyType(
    {name: read for name, read in _ALL.items() if name not in ("path", "prefix", "body", "tag")}
)


def run_id_of(text: str) -> RunId:
    """:raises RunNotFound: for a text that is no run's id."""
    run_id = run_id_from_text(text)
    if run_id is None:
        raise RunNotFound(
            f"there is no run {shown(text)}: a run's id is 32 hexadecimal digits, a dash and a "
            "number, as the endpoint gets it in Dalga-Run"
        )
    return run_id


def run_list(query: bytes, view: View = WHOLE) -> RunQuery:
    """
    Read the parameters of a GET of runs.

    :param view: that of the caller.
    :raises InvalidRequest: for a parameter that is unknown, not understood, or repeated though it
        is not to be, and for parameters that contradict each other.
    """
    values = read_filters(form_pairs(query), _ALL, SEVERAL, "a list of runs takes")
    return _query(values, view)


def job_run_list(query: bytes, key: RawKey, view: View = WHOLE) -> RunQuery:
    """
    Read the parameters of a GET of the runs of one job.

    :param view: that of the caller.
    :raises InvalidRequest: as `run_list`.
    """
    several = {name: attribute for name, attribute in SEVERAL.items() if name in _OF_JOB}
    values = read_filters(form_pairs(query), _OF_JOB, several, "a list of a job's runs takes")
    return _query({**values, "path": key.path, "body": key.body}, view)


def _query(values: dict[str, Any], view: View) -> RunQuery:
    size, text = values.pop("limit", PAGE), values.pop("cursor", None)
    filters = replace(run_filters(values), limits=view.limits)
    return RunQuery(
        filters, place(text, filters, partial(run_cursor_from_text, seal=view.seal)), size
    )


def run_filters(values: Mapping[str, Any]) -> RunFilters:
    """
    :param values: as `read_filters` gives them, of `FILTERS`.
    :raises InvalidRequest: for filters that contradict each other.
    """
    given = dict(values)
    asked: frozenset[Result | RunState] = given.pop("results", frozenset())
    filters = RunFilters(
        results=frozenset(each for each in asked if isinstance(each, Result)),
        states=frozenset(each for each in asked if isinstance(each, RunState)),
        statuses=given.pop("status", None),
        **given,
    )
    check_filters(filters.path, filters.prefix, filters.tags, "runs")
    since, until = filters.since, filters.until
    if since is not None and until is not None and until <= since:
        raise InvalidRequest(
            f"until is {exact_timestamp(until)}, which is not later than since, "
            f"{exact_timestamp(since)}: no run ended between the two"
        )
    return filters


def next_cursor(page: RunPage, query: RunQuery, view: View = WHOLE) -> str | None:
    """The cursor of the page behind this one; None if there is none."""
    return None if page.last is None else run_cursor_text(page.last, query.filters, view.seal)


def next_runs(query: RunQuery, cursor: str, is_of_job: bool) -> str:
    """
    The value of a Link header that leads to the page behind that of a query.

    :param is_of_job: whether the path of the URL names the job.
    """
    filters = query.filters
    return link(
        [
            ("path", None if is_of_job else filters.path),
            ("prefix", filters.prefix),
            ("body", None if is_of_job else filters.body),
            ("endpoint", filters.endpoint),
            *(("tag", tag) for tag in sorted(filters.tags)),
            *(("result", result) for result in sorted((*filters.results, *filters.states))),
            ("status", filters.statuses and str(filters.statuses)),
            *(("error_kind", kind) for kind in sorted(filters.error_kinds)),
            ("since", filters.since and exact_timestamp(filters.since)),
            ("until", filters.until and exact_timestamp(filters.until)),
            ("limit", query.limit),
            ("cursor", cursor),
        ]
    )


# JSON


def runs_json(page: RunPage, cursor: str | None) -> bytes:
    """
    A page of runs.

    :param cursor: the cursor of the next page; None if this page is the last.
    """
    members: dict[str, Any] = {"runs": [_run(run) for run in page.runs]}
    if cursor is not None:
        members["cursor"] = cursor
    if page.partial:
        members["partial"] = True
    return as_json(members)


def run_json(run: ListedRun, has_secrets: bool = True) -> bytes:
    """
    A run by itself, with the answer that is kept of it.

    :param has_secrets: whether that may be shown.
    """
    members = _run(run)
    answer = {
        name: value
        for name in ("response_headers", "response_body")
        if (value := getattr(run.record, name)) is not None
    }
    if has_secrets:
        members |= answer
    elif answer:
        members["hidden"] = list(answer)
    return as_json(members)


def last_run_members(record: Record) -> dict[str, Any]:
    """The last run of a job, as the job shows it."""
    members = _run(ListedRun(record))
    return {name: value for name, value in members.items() if name not in ("path", "body")}


def _run(run: ListedRun) -> dict[str, Any]:
    """
    A run's members. Those up to ``attempts`` are always there, but for those of a run that has not
    ended, and the hint of an error.
    """
    record = run.record
    members: dict[str, Any] = {
        "run_id": record.run_id,
        "path": record.path,
        "body": record.body,
        "endpoint": record.endpoint,
        "trigger": record.trigger.word,
        "scheduled": exact_timestamp(record.scheduled),
        "claimed": exact_timestamp(record.claimed),
        "started": record.started and exact_timestamp(record.started),
        "ended": record.ended and exact_timestamp(record.ended),
        "lateness_ms": record.lateness_ms,
        "duration_ms": record.duration_ms,
        "instance": record.instance,
        "result": record.result,
    }
    if run.state is not None:
        members["state"] = run.state
    if run.next_attempt is not None:
        members["next_attempt"] = exact_timestamp(run.next_attempt)
    members["status"] = record.status
    members["error_kind"] = record.error_kind
    if record.error_kind is not None:
        members["hint"] = record.error_kind.hint
    members["error"] = record.error
    members["attempt_count"] = record.attempt_count
    members["attempts"] = [attempt_to_json(attempt) for attempt in record.attempts]
    if record.replay_of is not None:
        members["replay_of"] = record.replay_of
    return members
