"""
What a request asks for: its path -> `JobKey`, its query and body -> `ScheduleRequest`.

Pure. What is refused is refused with one sentence that names the part, what was given and what
would do. Which parameters go together is not judged here, but in `dalga.job.check_request`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from dalga.errors import InvalidRequest
from dalga.job import JobKey, ScheduleRequest, check_length
from dalga.schedule import MAX_INTERVAL
from dalga.web.errors import UnknownResource, UnsupportedMediaType

T = TypeVar("T")

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

JOBS = b"/jobs/"

#: How much of what was given is repeated in an answer, in characters.
SHOWN = 40

_BOOLEANS: Mapping[str, bool] = MappingProxyType(
    {
        **dict.fromkeys(("true", "yes", "on", "1"), True),
        **dict.fromkeys(("false", "no", "off", "0"), False),
    }
)

#: RFC 3339 section 5.6; its note allows lower case letters and a space for the T.
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII,
)
_NO_ZONE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?", re.ASCII)
_SPACE_FOR_PLUS = re.compile(_NO_ZONE.pattern + r" \d\d:\d\d", re.ASCII)
_EXAMPLE = "2030-01-31T09:00:00Z"


def job_key(path: bytes) -> JobKey:
    """
    :param path: the request target's path, as it was sent: still percent-encoded.
    :raises UnknownResource: where it has not two segments after ``/jobs/``.
    :raises InvalidRequest: where a segment is empty, too long or not UTF-8.
    """
    segments = path.removeprefix(JOBS).split(b"/")
    if not path.startswith(JOBS) or len(segments) != 2:
        raise UnknownResource(
            "a job is at /jobs/<path>/<body>, two segments: write a slash that belongs to the path "
            "or to the body as %2F"
        )
    key = JobKey(_text(segments[0], "the job's path"), _text(segments[1], "the job's body"))
    check_length("path", key.path)
    check_length("body", key.body)
    return key


def schedule_request(query: bytes, content_type: str | None, body: bytes) -> ScheduleRequest:
    """
    Read the parameters of a PUT from its query and its body together.

    :param query: as it was sent.
    :raises InvalidRequest: for a parameter that is unknown, repeated or not understood.
    :raises UnsupportedMediaType: for a body that is neither a form nor JSON.
    """
    given: dict[str, str] = {}
    for name, value in [*_form_pairs(query), *_body_pairs(content_type, body)]:
        if name not in _READERS:
            raise InvalidRequest(
                f"there is no parameter {shown(name)}: a job takes {', '.join(_READERS)}"
            )
        if name in given:
            raise InvalidRequest(
                f"{name} is given twice, as {shown(given[name])} and as {shown(value)}: "
                "give it once, in the query or in the body"
            )
        given[name] = value
    values = {name: _READERS[name](name, value) for name, value in given.items()}
    return ScheduleRequest(
        interval=values.get("interval"),
        first_run=values.get("first-run"),
        one_off=values.get("one-off", False),
        immediate=values.get("immediate", False),
    )


def shown(text: str) -> str:
    """`text` as an answer repeats it: on one line, quoted, and not too much of it."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


def interval(name: str, value: str) -> int:
    """:return: whole seconds, 0 to `MAX_INTERVAL`."""
    # Not left to int(), which takes "1_000", " 5" and other scripts' digits.
    if not re.fullmatch(r"0*[0-9]{1,10}", value) or int(value[-11:]) > MAX_INTERVAL:
        raise InvalidRequest(
            f"{name} is {shown(value)}: it takes whole seconds from 0 to {MAX_INTERVAL}"
        )
    return int(value[-11:])


def instant(name: str, value: str) -> datetime:
    """
    Read an RFC 3339 timestamp. What it has past the microseconds is cut off, and a leap second
    (23:59:60 UTC) is the first second of the next day, as POSIX counts.

    :return: an aware UTC datetime.
    """
    found = _TIMESTAMP.fullmatch(value)
    if found is None:
        raise InvalidRequest(f"{name} is {shown(value)}: {_timestamp_advice(value)}")
    date, hour_minute, second, fraction, sign, hours, minutes = found.groups()
    is_leap = second == "60"
    try:
        local = datetime.fromisoformat(f"{date}T{hour_minute}:{'59' if is_leap else second}")
    except ValueError:
        raise InvalidRequest(
            f"{name} is {shown(value)}: there is no such date or time of day"
        ) from None
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        utc = (local + offset if sign == "-" else local - offset).replace(tzinfo=UTC)
        if is_leap:
            if (utc.hour, utc.minute) != (23, 59):
                raise InvalidRequest(
                    f"{name} is {shown(value)}: a leap second is at 23:59:60 UTC only"
                )
            utc += timedelta(seconds=1)
    except OverflowError:
        raise InvalidRequest(
            f"{name} is {shown(value)}: it takes a time in the years 1 to 9999 UTC"
        ) from None
    return utc.replace(microsecond=int((fraction or "")[:6].ljust(6, "0")))


def boolean(name: str, value: str) -> bool:
    """:return: what `value` says, in any case."""
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise InvalidRequest(
            f"{name} is {shown(value)}: it takes true, yes, on or 1, or false, no, off or 0"
        ) from None


#: What a PUT takes, in the order of the documentation.
_READERS: Mapping[str, Callable[[str, str], Any]] = MappingProxyType(
    {"interval": interval, "first-run": instant, "one-off": boolean, "immediate": boolean}
)


def _timestamp_advice(value: str) -> str:
    if _SPACE_FOR_PLUS.fullmatch(value):
        return (
            "a + is a space in a query or a form, so write the plus of a zone as %2B, "
            "such as 2030-01-31T09:00:00%2B03:00"
        )
    if _NO_ZONE.fullmatch(value):
        return f"the zone is missing, such as the Z in {_EXAMPLE}"
    return f"it takes an RFC 3339 timestamp with a zone, such as {_EXAMPLE}"


def _text(escaped: bytes, what: str) -> str:
    """Undo the percent-encoding (RFC 3986 section 2.1), once; what comes out has to be UTF-8."""
    # unquote_to_bytes() leaves broken escapes as they are.
    broken = re.search(rb"%(?![0-9A-Fa-f]{2}).{0,2}", escaped, re.DOTALL)
    if broken is not None:
        raise InvalidRequest(
            f"{what} has the broken escape {shown(broken[0].decode('latin-1'))}: "
            "write % and two hexadecimal digits, and a percent sign itself as %25"
        )
    octets = unquote_to_bytes(escaped)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{what} is not UTF-8: the octet 0x{octets[error.start]:02X} can't be there"
        ) from None


def _form_pairs(form: bytes) -> Iterable[tuple[str, str]]:
    """
    The pairs of a query or a form, as https://url.spec.whatwg.org/#urlencoded-parsing has them, but
    strictly.
    """
    for pair in form.split(b"&"):
        if pair:
            name, _, value = pair.replace(b"+", b" ").partition(b"=")
            text = _text(name, "a parameter's name")
            yield text, _text(value, f"the parameter {shown(text)}")


def _body_pairs(content_type: str | None, body: bytes) -> Iterable[tuple[str, str]]:
    if not body:
        return []
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == FORM:
        return _form_pairs(body)
    if media_type == JSON:
        return _json_pairs(body)
    given = shown(content_type) if content_type else "missing"
    raise UnsupportedMediaType(f"the body's Content-Type is {given}: it takes {FORM} or {JSON}")


class _Members(list[tuple[str, Any]]):
    """A JSON object's members; a dict would hide repeated ones."""


def _json_pairs(body: bytes) -> Iterable[tuple[str, str]]:
    """The members of a JSON object, as the text that a form would have for them."""
    try:
        # Numbers stay as they were written, so they are read by the same rules as a form's.
        members = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_Members,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_Number,
        )
    except UnicodeDecodeError:
        raise InvalidRequest("the JSON body is not UTF-8") from None
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("the JSON body is nested too deeply: it takes one object") from None
    if not isinstance(members, _Members):
        raise InvalidRequest('the JSON body is not an object: it takes one such as {"interval":60}')
    for name, value in members:
        if isinstance(value, bool):
            yield name, "true" if value else "false"
        elif isinstance(value, str):
            yield name, value
        else:
            kind = "null" if value is None else "an object or array"
            raise InvalidRequest(
                f"{shown(name)} is {kind} in the JSON body: "
                "it takes a string, a number or a boolean"
            )


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()
