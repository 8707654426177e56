"""
A request's path -> `RawKey`; its query and body -> `RawRequest`, `RunTimes` and the like.
Pure.

`dalga.web.values` reads the values. Which of a job's parameters go together is judged in
`dalga.model.plan.ScheduleRequest`. The sentence of a refusal names the part of the request, what
was given and what would do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from dalga.errors import InvalidRequest, pointer_to, shown
from dalga.model.delivery import AS_CONFIGURED, Method, Payload, PayloadKind, Retry
from dalga.model.duration import Duration
from dalga.model.fields import READERS, RETRY_PARTS
from dalga.model.key import RawKey, check_length
from dalga.model.plan import RawRequest, placed
from dalga.model.reading import (
    Number,
    Reader,
    Value,
    as_text,
    boolean,
    instant,
    interval,
    of_text,
    whole,
)
from dalga.model.reading_delivery import changed_headers, changed_retry
from dalga.model.reading_delivery import content_type as media_type_of
from dalga.web.bodies import (
    JSON,
    MERGE_PATCH,
    body_pairs,
    form_pairs,
    json_members,
    media_type,
    unescaped,
)
from dalga.web.errors import UnknownResource
from dalga.web.values import ShownOnly, read_values

JOBS = b"/jobs/"

#: The largest number of run times in a list, and the number if no limit is given.
MAX_LISTED = 100
LISTED = 10

#: The longest delay of a POST that runs its body once, in years. What it comes to is then a time.
MAX_DELAY = 1000

#: The longest reason for which a job is disabled, in characters.
MAX_REASON = 255


def job_path(path: bytes) -> str:
    """
    The path of the jobs that are made below a request target's path, ``/jobs/<path>``.

    :raises InvalidRequest: for a segment that is empty, too long or not UTF-8.
    """
    found = unescaped(path.removeprefix(JOBS), "the job's path")
    check_length("path", found)
    return found


def job_target(key: RawKey) -> bytes:
    """The path of a job's URL, percent-encoded: what `job_key` reads."""
    segments = (quote(part, safe="").encode("ascii") for part in key)
    return JOBS + b"/".join(segments)


def job_key(path: bytes) -> RawKey:
    """
    :param path: the request target's path, as it was sent: still percent-encoded.
    :raises UnknownResource: for a path that has not two segments after ``/jobs/``.
    :raises InvalidRequest: for a segment that is empty, too long or not UTF-8.
    """
    segments = path.removeprefix(JOBS).split(b"/")
    if not path.startswith(JOBS) or len(segments) != 2:
        raise no_job()
    key = RawKey(unescaped(segments[0], "the job's path"), unescaped(segments[1], "the job's body"))
    check_length("path", key.path)
    check_length("body", key.body)
    return key


def owner_key(path: bytes) -> RawKey:
    """
    The key of the job whose sub-resource, such as its run times, a path names.

    :raises UnknownResource: and `InvalidRequest`: as `job_key` does.
    """
    return job_key(path.rpartition(b"/")[0])


def no_job() -> UnknownResource:
    """The error for a path below ``/jobs/`` that is neither a job's nor a sub-resource's."""
    return UnknownResource(
        "a job is at /jobs/<path>/<body>, two segments: write a slash that belongs to the path "
        "or to the body as %2F (all jobs are at /jobs); POST /jobs/<path> runs a body once"
    )


def schedule_request(
    query: bytes, content_type: str | None, body: bytes, key: RawKey | None = None
) -> RawRequest:
    """
    Read the parameters of a PUT from its query and its body together.

    :param query: the query as it was sent, still percent-encoded.
    :param key: the key in the URL. A JSON body may repeat it, as the JSON of a job does.
    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    :raises UnsupportedMediaType: for a body that is neither a form nor JSON.
    """
    given: list[tuple[str, Value]] = [*form_pairs(query)]
    from_query = len(given)
    members = body_pairs(content_type, body)
    if key is not None and media_type(content_type) == JSON:
        members = _without_key(members, key)
    given += members
    return _request(read_values(given, READERS, "a job takes", _NOT_SET, from_query))


def _without_key(members: Iterable[tuple[str, Value]], key: RawKey) -> Iterable[tuple[str, Value]]:
    """
    The members of a JSON body without the job's key.

    :raises InvalidRequest: if `path` or `body` is given, and is not that of the URL; and for what
        GET has shown to a caller who may not see all of the job. A PUT of that would take the
        payload from the job.
    """
    in_url = {"path": key.path, "body": key.body}
    for name, value in members:
        if name == "hidden":
            raise InvalidRequest(
                f"hidden is {shown(as_text(value))}, which GET has not shown to this token: change "
                "single parameters with PATCH, and leave hidden and these out; or give these anew "
                "and leave hidden out",
                "/hidden",
            )
        meant = in_url.pop(name, None)
        if meant is None:
            yield name, value
        elif value is None or isinstance(value, Number | list) or as_text(value) != meant:
            said = shown(as_text(value))
            raise InvalidRequest(
                f"{name} is {said} in the JSON body and {shown(meant)} in the URL: "
                f"leave {name} out of the body, or give the same",
                f"/{name}",
            )


def changes(query: bytes, body: bytes, key: RawKey) -> dict[str, Any]:
    """
    Read the merge patch (RFC 7396) of a job's parameters.

    :param query: there are no parameters in it.
    :param body: a JSON object.
    :param key: the key in the URL. The body may repeat it, as the JSON of a job does.
    :return: what `dalga.model.patch.patched` takes.
    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    """
    if query:
        raise InvalidRequest(
            "a merge patch has its parameters in its JSON body alone: leave the query out"
        )
    given = [*_without_key(json_members(body), key)]
    values = read_values(given, _CHANGED, "a change takes", _NOT_CHANGED, elsewhere=_BY_OTHER_MEANS)
    return {name.replace("-", "_"): value for name, value in values.items()}


def or_removed(read: Reader) -> Reader:
    """:return: a reader that gives None for null."""

    def read_change(name: str, value: Value) -> Any:
        return None if value is None else read(name, value)

    return read_change


def once_request(query: bytes, content_type: str | None, body: bytes) -> RawRequest:
    """
    Read a POST that runs its body once: parameters from the query, and the body as it is.

    :param content_type: of the body, and so of the requests to the endpoint.
    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    """
    values = read_values(form_pairs(query), _ONCE, "a job that runs once takes")
    put_off, at = values.pop("delay", None), values.pop("at", None)
    if put_off is not None and at is not None:
        raise InvalidRequest("delay and at both say when the job runs; give just one of them")
    values["one-off"] = True
    if put_off:
        values["interval"] = put_off
    elif at is not None:
        values["first-run"] = at
    else:
        values["immediate"] = True
    if body or values.get("method") not in (Method.GET, Method.HEAD, Method.DELETE):
        values.update(_payload(body))
    if content_type:
        values["content-type"] = media_type_of("Content-Type", content_type)
    return _request(values)


def _payload(body: bytes) -> dict[str, Payload]:
    """A payload as the parameter that shows it best: text if it is UTF-8."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return {"payload-base64": Payload(body, PayloadKind.BASE64)}
    return {"payload": Payload(body, PayloadKind.TEXT)}


@dataclass(frozen=True, slots=True)
class Enablement:
    """Whether a PATCH enables a job or disables it."""

    enable: bool
    #: Why the job is disabled, if that is said.
    reason: str | None = None


def enablement(query: bytes, content_type: str | None, body: bytes) -> Enablement:
    """
    Read the parameters of a PATCH from its query and its body together.

    :raises InvalidRequest: if neither `enable` nor `disable` is given, or both, or one that is
        false; and for a `reason` of an `enable`.
    :raises UnsupportedMediaType: for a body that is neither a form nor JSON.
    """
    given = [*form_pairs(query), *body_pairs(content_type, body, [MERGE_PATCH])]
    values = read_values(given, _ENABLEMENT, "a change takes", elsewhere=_BY_MERGE_PATCH)
    reason = values.pop("reason", None)
    if not values:
        raise InvalidRequest("there is nothing to change: give enable=true or disable=true")
    if len(values) > 1:
        raise InvalidRequest("enable and disable are both given; give just one of them, as true")
    [(name, value)] = values.items()
    if not value:
        other = "disable" if name == "enable" else "enable"
        raise InvalidRequest(f"{name} is false: use {other}=true for that")
    if reason is not None and name == "enable":
        raise InvalidRequest("reason goes with disable: leave it out, as enable forgets it")
    return Enablement(name == "enable", reason)


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Which of a job's run times a GET asks for."""

    limit: int = LISTED
    #: Only times later than this (aware, UTC); None for now.
    after: datetime | None = None


def run_times(query: bytes) -> RunTimes:
    """
    Read the parameters of a GET of a job's run times.

    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    """
    values = read_values(form_pairs(query), _RUN_TIMES, "a list of run times takes")
    if "count" in values:
        if "limit" in values:
            raise InvalidRequest(
                "limit and count both say how many run times are listed; give just one of them"
            )
        values["limit"] = values.pop("count")
    return RunTimes(**values)


def refuse_parameters(query: bytes, body: bytes) -> None:
    """
    For a replay. A parameter that was passed over could mean that the run be made at another time,
    or of other parts, than it is.

    :raises InvalidRequest: if there are any.
    """
    for name, _ in form_pairs(query):
        raise InvalidRequest(
            f"{shown(name)} is no parameter of a replay, which takes none: the run is repeated at "
            "once, as its job is now"
        )
    if body:
        raise InvalidRequest(
            "there is a body: a replay takes none, as the run is repeated at once, and as its job "
            "is now"
        )


def preview(query: bytes) -> tuple[RawRequest, RunTimes]:
    """
    Read the parameters of a preview: those of a PUT, and `limit` and `after`.

    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    """
    values = read_values(form_pairs(query), _PREVIEW, "a preview takes")
    which = {name: values.pop(name) for name in _WHICH if name in values}
    return _request(values), RunTimes(**which)


@of_text
def listed(name: str, value: str) -> int:
    """:return: a whole number, 1 to `MAX_LISTED`."""
    return whole(name, value, 1, MAX_LISTED, f"it takes a whole number from 1 to {MAX_LISTED}")


def delay(name: str, value: Value) -> Duration:
    """:return: a duration of at most `MAX_DELAY` years."""
    found = interval(name, value)
    assert found is not None  # as it is for null, which no query has
    days = found.exact.days + found.days + 31 * found.months
    if days > 365 * MAX_DELAY:
        raise InvalidRequest(f"{name} is {shown(found.text)}: it takes {MAX_DELAY} years at most")
    return found


@of_text
def reason(name: str, value: str) -> str:
    """:return: some text of one line."""
    if not value.strip():
        raise InvalidRequest(f"{name} is empty: say why, or leave it out")
    if len(value) > MAX_REASON:
        raise InvalidRequest(f"{name} has {len(value)} characters: it takes {MAX_REASON} at most")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value):
        raise InvalidRequest(
            f"{name} is {shown(value)}: it takes one line, without control characters"
        )
    return value


#: The keys of a job's state in its JSON, with "-" for "_". A PUT that ignored one of them would run
#: the job at another time than the key says, or more often.
_STATE = frozenset(
    {
        "next-run",
        "next-sched",
        "successes",
        "done",
        "disabled",
        "disabled-since",
        "disabled-reason",
        "disabled-by",
        "failing",
        "failed",
        "skipped",
        "problem",
        "last-run",
        "last-change",
        "replay-of",
    }
)

#: The sentence on these keys in a PUT, and in a merge patch.
_NOT_SET = ShownOnly(
    _STATE,
    "set by PUT",
    ", and give first-run again if the job had one. A PUT schedules the job anew and enables it; "
    "with if-exists=update, a job whose schedule is the same keeps its next run and its state",
)
_NOT_CHANGED = ShownOnly(
    _STATE,
    "changed by a merge patch",
    " (a PATCH with disable=true disables a job, and a POST runs it)",
)

#: The parameters of a merge patch. A PUT's others have the job run at once, or say what becomes of
#: the job that is there.
_CHANGED: Mapping[str, Reader] = MappingProxyType(
    {
        name: or_removed({"headers": changed_headers, "retry": changed_retry}.get(name, read))
        for name, read in READERS.items()
        if name not in ("immediate", "if-exists", *RETRY_PARTS)
    }
)

#: The parameters of a PATCH that is none.
_ENABLEMENT: Mapping[str, Reader] = MappingProxyType(
    {"enable": boolean, "disable": boolean, "reason": reason}
)

#: How a job is given the parameters of a merge patch, for a PATCH that is none.
_BY_MERGE_PATCH: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(_CHANGED, f"a merge patch has one, with the header Content-Type: {MERGE_PATCH}")
)

#: How a job is given some parameters that a merge patch does not take.
_BY_OTHER_MEANS: Mapping[str, str] = MappingProxyType(
    {
        **{
            name: f"it is a part of retry: give an object with {part} as retry"
            for name, part in RETRY_PARTS.items()
        },
        **dict.fromkeys(
            _ENABLEMENT,
            f"a PATCH that is no merge patch has one, without the Content-Type {MERGE_PATCH}",
        ),
    }
)

#: The parameters of a POST that runs its body once: how a job runs once, and is seen after that.
_ONCE: Mapping[str, Reader] = MappingProxyType(
    {
        "delay": delay,
        "at": instant,
        **{
            name: READERS[name]
            for name in (
                *("timeout", *RETRY_PARTS, "endpoint", "success", "gone", "give-up", "method"),
                *("on-end", "save-response", "tags", "description"),
                *("alert-after", "expect-within", "alert-url"),
            )
        },
    }
)

#: The parameters that say which run times are listed.
_WHICH: Mapping[str, Reader] = MappingProxyType({"limit": listed, "after": instant})

#: The parameters of a GET of a job's run times. `count` is the older name of `limit`.
_RUN_TIMES: Mapping[str, Reader] = MappingProxyType({**_WHICH, "count": listed})

#: The parameters of a preview.
_PREVIEW: Mapping[str, Reader] = MappingProxyType({**READERS, **_WHICH})


def _request(values: Mapping[str, Any]) -> RawRequest:
    values = _with_retry(values)
    return placed(RawRequest(**{name.replace("-", "_"): value for name, value in values.items()}))


def _with_retry(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    The parts of a job's retries that stand alone, as one value.

    :raises InvalidRequest: for a part that is given twice.
    """
    if RETRY_PARTS.keys().isdisjoint(values):
        return values
    alone = {name: values[name] for name in RETRY_PARTS if name in values}
    whole: Retry = values.get("retry", AS_CONFIGURED)
    for name in alone:
        if getattr(whole, RETRY_PARTS[name]) is not None:
            raise InvalidRequest(
                f"{name} is given twice, once as a part of retry: give it once", pointer_to(name)
            )
    rest = {name: value for name, value in values.items() if name not in alone}
    parts = {RETRY_PARTS[name]: value for name, value in alone.items()}
    return {**rest, "retry": whole._replace(**parts)}
