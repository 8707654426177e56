"""
What a request asks for: its path -> `RawKey`, its query and body -> `RawRequest` and the like.

Pure. What is refused is refused with one sentence that names the part, what was given and what
would do. Which of a job's parameters go together is not judged here, but in
`dalga.model.plan.ScheduleRequest`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

from dalga.errors import InvalidRequest
from dalga.model.cron import cron_from_text
from dalga.model.duration import Duration, duration_from_text, seconds
from dalga.model.key import RawKey, check_length
from dalga.model.options import CatchUp, IfExists, OnFailure
from dalga.model.plan import RawRequest, at_place
from dalga.model.schedule import MAX_INTERVAL
from dalga.model.zone import Gap, Overlap, Zone, check_location
from dalga.store import Position
from dalga.web.bodies import (
    JSON,
    NULL,
    NotText,
    Number,
    body_pairs,
    form_pairs,
    media_type,
    unescaped,
)
from dalga.web.cursors import cursor_from_text
from dalga.web.errors import SHOWN, UnknownResource, shown

E = TypeVar("E", bound=StrEnum)

#: Reads one parameter: its name and what was given -> its value.
Reader = Callable[[str, str], Any]

JOBS = b"/jobs/"

#: How many run times are listed at most, and where nothing was said.
MAX_LISTED = 100
LISTED = 10

#: How many jobs are on a page at most, and where nothing was said.
MAX_PAGE = 1000
PAGE = 100

#: The most that `count` takes, as many as `interval` has seconds.
MAX_COUNT = 2**32 - 1

#: The shortest max-lateness: a run is always some milliseconds late.
MIN_LATENESS = timedelta(milliseconds=100)
#: The longest.
MAX_LATENESS = timedelta(days=3650)

#: Examples of a duration, for sentences on a wrong one.
DURATIONS = "such as 5m, 1h30m, PT90S or P1D"

#: The shortest and the longest jitter.
MIN_JITTER = timedelta(milliseconds=1)
MAX_JITTER = timedelta(days=366)

_BOOLEANS: Mapping[str, bool] = MappingProxyType(
    {
        **dict.fromkeys(("true", "yes", "on", "1"), True),
        **dict.fromkeys(("false", "no", "off", "0"), False),
    }
)

#: RFC 3339 section 5.6; its note allows lower case letters and a space for the T. A zone may be
#: missing, as it is from what ISO 8601 calls local time.
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(?:\.(\d+))?"
    r"([Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))?",
    re.ASCII,
)
_SPACE_FOR_PLUS = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)? \d\d:\d\d", re.ASCII)
_EXAMPLE = "2030-01-31T09:00:00Z"

#: Hours from UTC, or the name of a zone for them, whose + may have come as a space.
_OFFSET = re.compile(r"(?:(?:Etc/)?(?:GMT|UTC|UCT|Z))?[ +-][0-9][0-9:.]*", re.IGNORECASE)


def job_key(path: bytes) -> RawKey:
    """
    :param path: the request target's path, as it was sent: still percent-encoded.
    :raises UnknownResource: where it has not two segments after ``/jobs/``.
    :raises InvalidRequest: where a segment is empty, too long or not UTF-8.
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
        "or to the body as %2F (all jobs are at /jobs)"
    )


def schedule_request(
    query: bytes, content_type: str | None, body: bytes, key: RawKey | None = None
) -> RawRequest:
    """
    Read the parameters of a PUT from its query and its body together.

    :param query: as it was sent.
    :param key: the key that the URL has. A JSON body may repeat it, as the JSON of a job does.
    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    :raises UnsupportedMediaType: for a body that is neither a form nor JSON.
    """
    pairs = [*form_pairs(query)]
    members = body_pairs(content_type, body)
    if key is not None and media_type(content_type) == JSON:
        members = _without_key(members, key)
    pairs += members
    return _request(_values(pairs, _SCHEDULE, "a job takes"))


def _without_key(members: Iterable[tuple[str, str]], key: RawKey) -> Iterable[tuple[str, str]]:
    """The members of a JSON body but one `path` and one `body`, which have to be the URL's."""
    in_url = {"path": key.path, "body": key.body}
    for name, value in members:
        meant = in_url.pop(name, None)
        if meant is None:
            yield name, value
        elif isinstance(value, NotText | Number) or value != meant:
            raise InvalidRequest(
                f"{name} is {shown(value)} in the JSON body and {shown(meant)} in the URL: "
                f"leave {name} out of the body, or give the same"
            )


def enablement(query: bytes, content_type: str | None, body: bytes) -> bool:
    """
    Read the parameters of a PATCH from its query and its body together.

    :return: whether the job is to be enabled, or else disabled.
    :raises InvalidRequest: where it says neither, or both, or one but not that it is true.
    :raises UnsupportedMediaType: for a body that is neither a form nor JSON.
    """
    pairs = [*form_pairs(query), *body_pairs(content_type, body)]
    values = _values(pairs, _ENABLEMENT, "a change takes")
    if not values:
        raise InvalidRequest("there is nothing to change: give enable=true or disable=true")
    if len(values) > 1:
        raise InvalidRequest("enable and disable are both given; give just one of them, as true")
    [(name, value)] = values.items()
    if not value:
        other = "disable" if name == "enable" else "enable"
        raise InvalidRequest(f"{name} is false: use {other}=true for that")
    return name == "enable"


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Which of a job's run times are asked for."""

    limit: int = LISTED
    #: None for now.
    after: datetime | None = None


def run_times(query: bytes) -> RunTimes:
    """
    Read the parameters of a GET of a job's run times.

    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    """
    values = _values(form_pairs(query), _RUN_TIMES, "a list of run times takes")
    if "count" in values:
        if "limit" in values:
            raise InvalidRequest(
                "limit and count both say how many run times are listed; give just one of them"
            )
        values["limit"] = values.pop("count")
    return RunTimes(**values)


@dataclass(frozen=True, slots=True)
class Listing:
    """Which of all jobs are asked for."""

    path: str | None = None
    limit: int = PAGE
    #: The place of the last job of the page before; None for the first page.
    cursor: Position | None = None


def listing(query: bytes) -> Listing:
    """
    Read the parameters of a GET of all jobs.

    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    """
    values = _values(form_pairs(query), _LISTING, "a list of jobs takes")
    given = values.pop("cursor", None)
    if given is None:
        return Listing(**values)
    try:
        return Listing(**values, cursor=cursor_from_text(given, values.get("path")))
    except ValueError as problem:
        raise InvalidRequest(f"cursor is {shown(given)}, which {problem}") from None


def preview(query: bytes) -> tuple[RawRequest, RunTimes]:
    """
    Read the parameters of a GET of the run times of a job that is not there: those of a PUT, and
    limit and after.

    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    """
    values = _values(form_pairs(query), _PREVIEW, "a preview takes")
    which = {name: values.pop(name) for name in _WHICH if name in values}
    return _request(values), RunTimes(**which)


def interval(name: str, value: str) -> Duration:
    """:return: elapsed time of 0 to `MAX_INTERVAL` seconds, or a duration of days and more."""
    takes = f"it takes seconds from 0 to {MAX_INTERVAL}, or a duration {DURATIONS}"
    # Not left to int(), which takes "1_000", " 5" and other scripts' digits.
    if re.fullmatch(r"[0-9]+", value):
        return seconds(_whole(name, value, 0, MAX_INTERVAL, takes))
    duration = _duration(name, value, takes)
    if duration.exact > timedelta(seconds=MAX_INTERVAL):
        raise InvalidRequest(
            f"{name} is {shown(value)}, which is longer than {MAX_INTERVAL} seconds; {takes}"
        )
    return duration


def cron(name: str, value: str) -> str:
    """:return: a cron expression in its normal form."""
    try:
        return cron_from_text(value)
    except ValueError as problem:
        raise InvalidRequest(f"{name} is {shown(value)}, which {problem}") from None


def location(name: str, value: str) -> str:
    """:return: the name of a time zone."""
    try:
        check_location(value)
    except ValueError as problem:
        raise InvalidRequest(
            f"{name} is {shown(value)}, which {_no_location(value) or problem}"
        ) from None
    return value


def _no_location(value: str) -> str | None:
    """What is wrong with a name that only looks like an offset, for which no place is guessed."""
    if _OFFSET.fullmatch(value):
        plus = value.replace(" ", "+")
        try:
            check_location(plus)
        except ValueError:
            return (
                "is an offset and no time zone: name a place whose clock has it, such as "
                "Europe/Istanbul"
            )
        escaped = plus.replace("+", "%2B")
        return f"has a space for its +, as a + is one in a query or a form: write {escaped}"
    return None


def count(name: str, value: str) -> int:
    """:return: a whole number, 1 to `MAX_COUNT`."""
    return _whole(name, value, 1, MAX_COUNT, f"it takes a whole number from 1 to {MAX_COUNT}")


def listed(name: str, value: str) -> int:
    """:return: a whole number, 1 to `MAX_LISTED`."""
    return _whole(name, value, 1, MAX_LISTED, f"it takes a whole number from 1 to {MAX_LISTED}")


def limit(name: str, value: str) -> int:
    """:return: a whole number, 1 to `MAX_PAGE`."""
    return _whole(name, value, 1, MAX_PAGE, f"it takes a whole number from 1 to {MAX_PAGE}")


def path(name: str, value: str) -> str:
    """:return: what may be a job's path."""
    check_length(name, value)
    return value


def cursor(name: str, value: str) -> str:
    """:return: what a page of jobs may have given for the next."""
    return value


def lateness(name: str, value: str) -> timedelta:
    """:return: elapsed time from `MIN_LATENESS` to `MAX_LATENESS`; a day of it is 24 hours."""
    takes = _takes(MIN_LATENESS, MAX_LATENESS)
    elapsed = timedelta() if re.fullmatch("0+", value) else _elapsed(name, value, takes)
    if elapsed > MAX_LATENESS:
        raise InvalidRequest(f"{name} is {shown(value)}, which is longer than 10 years; {takes}")
    if elapsed < MIN_LATENESS:
        raise InvalidRequest(
            f"{name} is {shown(value)}, which is too short: a run is always some milliseconds "
            f"late; {takes}"
        )
    return elapsed


def jitter(name: str, value: str) -> timedelta:
    """:return: elapsed time from `MIN_JITTER` to `MAX_JITTER`; a day of it is 24 hours."""
    takes = _takes(MIN_JITTER, MAX_JITTER)
    elapsed = _elapsed(name, value, takes)
    if not MIN_JITTER <= elapsed <= MAX_JITTER:
        raise InvalidRequest(f"{name} is {shown(value)}: {takes}")
    return elapsed


def _takes(least: timedelta, most: timedelta) -> str:
    bounds = f"{least.total_seconds():g} to {most.total_seconds():.0f}"
    return f"it takes seconds from {bounds}, or a duration {DURATIONS}"


def _elapsed(name: str, value: str, takes: str) -> timedelta:
    duration = _duration(name, value, takes)
    if duration.months:
        raise InvalidRequest(
            f"{name} is {shown(value)}, which has years or months, which are not always as long; "
            f"{takes}"
        )
    try:
        return timedelta(days=duration.days) + duration.exact
    except OverflowError:
        return timedelta.max


def _duration(name: str, value: str, takes: str) -> Duration:
    try:
        return duration_from_text(value)
    except ValueError as problem:
        raise InvalidRequest(f"{name} is {shown(value)}, which {problem}; {takes}") from None


def one_of(kind: type[E]) -> Callable[[str, str], E]:
    """:return: a reader of the values of an enumeration, in any case."""
    *others, last = kind

    def read(name: str, value: str) -> E:
        try:
            return kind(value.lower())
        except ValueError:
            raise InvalidRequest(
                f"{name} is {shown(value)}: it takes {', '.join(others)} or {last}"
            ) from None

    return read


def instant(name: str, value: str) -> datetime:
    """
    Read an RFC 3339 timestamp.

    :return: an aware UTC datetime.
    """
    moment = instant_or_wall(name, value)
    if moment.tzinfo is None:
        raise InvalidRequest(
            f"{name} is {shown(value)}: the zone is missing, such as the Z in {_EXAMPLE}"
        )
    return moment


def instant_or_wall(name: str, value: str) -> datetime:
    """
    Read an RFC 3339 timestamp, or one without a zone. What it has past the microseconds is cut off,
    and a leap second (23:59:60 UTC) is the first second of the next day, as POSIX counts.

    :return: an aware UTC datetime; a naive one where the zone is missing.
    """
    found = _TIMESTAMP.fullmatch(value)
    if found is None:
        raise InvalidRequest(f"{name} is {shown(value)}: {_timestamp_advice(value)}")
    date, hour_minute, second, fraction, zone, sign, hours, minutes = found.groups()
    is_leap = second == "60"
    try:
        local = datetime.fromisoformat(f"{date}T{hour_minute}:{'59' if is_leap else second}")
    except ValueError:
        raise InvalidRequest(
            f"{name} is {shown(value)}: there is no such date or time of day"
        ) from None
    local = local.replace(microsecond=int((fraction or "")[:6].ljust(6, "0")))
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        utc = (local + offset if sign == "-" else local - offset).replace(tzinfo=UTC)
        if is_leap:
            if zone is None or (utc.hour, utc.minute) != (23, 59):
                raise InvalidRequest(
                    f"{name} is {shown(value)}: a leap second is at 23:59:60 UTC only"
                )
            utc += timedelta(seconds=1)
    except OverflowError:
        raise InvalidRequest(
            f"{name} is {shown(value)}: it takes a time in the years 1 to 9999 UTC"
        ) from None
    return local if zone is None else utc


def boolean(name: str, value: str) -> bool:
    """:return: what `value` says, in any case."""
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise InvalidRequest(
            f"{name} is {shown(value)}: it takes true, yes, on or 1, or false, no, off or 0"
        ) from None


#: What a PUT takes, in the order of the documentation.
_SCHEDULE: Mapping[str, Reader] = MappingProxyType(
    {
        "interval": interval,
        "cron": cron,
        "location": location,
        "first-run": instant_or_wall,
        "one-off": boolean,
        "immediate": boolean,
        "until": instant_or_wall,
        "count": count,
        "catch-up": one_of(CatchUp),
        "max-lateness": lateness,
        "on-failure": one_of(OnFailure),
        "jitter": jitter,
        "dst-gap": one_of(Gap),
        "dst-overlap": one_of(Overlap),
        "if-exists": one_of(IfExists),
    }
)

#: What GET shows of a job as it stands. A PUT that took one of these and did not do what it says
#: would run the job at another time, or more often.
_STATE = frozenset(
    {
        "next-run",
        "next-sched",
        "successes",
        "disabled",
        "failing",
        "failed",
        "skipped",
        "problem",
    }
)

#: What a PATCH takes.
_ENABLEMENT: Mapping[str, Reader] = MappingProxyType({"enable": boolean, "disable": boolean})

#: Which run times are listed.
_WHICH: Mapping[str, Reader] = MappingProxyType({"limit": listed, "after": instant})

#: What a GET of a job's run times takes. `count` is the older name of `limit`.
_RUN_TIMES: Mapping[str, Reader] = MappingProxyType({**_WHICH, "count": listed})

#: What a GET of all jobs takes.
_LISTING: Mapping[str, Reader] = MappingProxyType({"path": path, "limit": limit, "cursor": cursor})

#: What a GET of the run times of a job to be takes.
_PREVIEW: Mapping[str, Reader] = MappingProxyType({**_SCHEDULE, **_WHICH})


def _values(
    pairs: Iterable[tuple[str, str]], readers: Mapping[str, Reader], takes: str
) -> dict[str, Any]:
    """
    Read each parameter that was given.

    :param takes: how a list of all the parameters begins.
    """
    given: dict[str, str] = {}
    for spelled, value in pairs:
        name = spelled.replace("_", "-")
        if name not in readers:
            if readers is _SCHEDULE and name in _STATE:
                raise InvalidRequest(
                    f"{shown(spelled)} is shown by GET and not set by PUT: leave it out, and give "
                    "first-run again if the job had one. A PUT schedules the job anew and enables "
                    "it; with if-exists=update, a job whose schedule is the same keeps its next "
                    "run and its state"
                )
            raise InvalidRequest(
                f"there is no parameter {shown(spelled)}{_guess(spelled, readers)}: "
                f"{takes} {', '.join(readers)}"
            )
        if name in given:
            raise InvalidRequest(
                f"{name} is given twice, as {shown(given[name])} and as {shown(value)}: "
                "give it once"
            )
        given[name] = value
    return {
        name: readers[name](name, value)
        for name, value in given.items()
        if not _is_left_out(name, value)
    }


def _is_left_out(name: str, value: str) -> bool:
    """
    Whether a parameter is as good as not given: the `interval` of null that a job with a `cron` is
    shown with.

    :raises InvalidRequest: for what else is no text, number or boolean of JSON.
    """
    if not isinstance(value, NotText):
        return False
    if name == "interval" and value == NULL:
        return True
    raise InvalidRequest(
        f"{shown(name)} is {value} in the JSON body: it takes a string, a number or a boolean"
    )


def _guess(name: str, readers: Iterable[str]) -> str:
    """What may have been meant."""
    if name.startswith("{"):
        return " (JSON needs the header Content-Type: application/json)"
    spelled = name[:SHOWN].lower().replace("_", "-")
    readers = list(readers)
    if MEANT.get(spelled) in readers:
        return f" (did you mean {MEANT[spelled]}?)"
    close = difflib.get_close_matches(spelled, readers, n=1, cutoff=0.7)
    return f" (did you mean {close[0]}?)" if close else ""


#: What others call some of our parameters, where no likeness of letters tells which.
MEANT: Mapping[str, str] = {
    "at": "first-run",
    "delay": "interval",
    "end": "until",
    "every": "interval",
    "now": "immediate",
    "once": "one-off",
    "repeat": "count",
    "start": "first-run",
    "time-zone": "location",
    "times": "count",
    "timezone": "location",
    "tz": "location",
}


def _request(values: Mapping[str, Any]) -> RawRequest:
    fields = {name.replace("-", "_"): value for name, value in values.items()}
    for name in ("first-run", "until"):
        moment = values.get(name)
        if moment is not None and moment.tzinfo is None:
            fields[name.replace("-", "_")] = _at_place(name, moment, values)
    return RawRequest(**fields)


def _at_place(name: str, wall: datetime, values: Mapping[str, Any]) -> datetime:
    """See `dalga.model.plan.at_place`; a wall time without a `location` is refused."""
    place = values.get("location")
    if place is None:
        raise InvalidRequest(
            f"{name} is {shown(wall.isoformat())}: the zone is missing, such as the Z in "
            f"{_EXAMPLE}; or give location, such as Europe/Istanbul, for the clock of a place"
        )
    zone = Zone(place, values.get("dst-gap"), values.get("dst-overlap"))
    return at_place(name, wall, zone, values.get("cron"), values.get("interval"))


def _whole(name: str, value: str, least: int, most: int, takes: str) -> int:
    """A whole number, however many zeros it begins with."""
    digits = value[-11:]
    if not re.fullmatch(r"0*[0-9]{1,10}", value) or not least <= int(digits) <= most:
        raise InvalidRequest(f"{name} is {shown(value)}: {takes}")
    return int(digits)


def _timestamp_advice(value: str) -> str:
    if _SPACE_FOR_PLUS.fullmatch(value):
        return (
            "a + is a space in a query or a form, so write the plus of a zone as %2B, "
            "such as 2030-01-31T09:00:00%2B03:00"
        )
    return f"it takes an RFC 3339 timestamp with a zone, such as {_EXAMPLE}"
