"""
A parameter as it was given, as text or JSON -> its value. Pure.

A `Reader` is a function of the parameter's name and of the `Value` that was given. It raises
`InvalidRequest` with one sentence that names the parameter, what was given and what would do.
`fields` says which parameters there are; `plan` says which go together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import wraps
from types import MappingProxyType
from typing import Any, Self, TypeVar

from dalga.errors import SHOWN, InvalidRequest, pointer_step, shown
from dalga.model.address import DEFAULT_TARGET, NO_TARGET, is_endpoint_name
from dalga.model.answers import Statuses, statuses_from_text, takes
from dalga.model.cron import cron_from_text
from dalga.model.duration import Duration, duration_from_text, seconds
from dalga.model.schedule import MAX_INTERVAL
from dalga.model.zone import check_location

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")

#: The largest `count`, as large as the largest `interval` in seconds.
MAX_COUNT = 2**32 - 1

#: The shortest and the longest max-lateness. A run is always some milliseconds late.
MIN_LATENESS = timedelta(milliseconds=100)
MAX_LATENESS = timedelta(days=3650)

#: The shortest and the longest expect-within.
MIN_SILENCE = timedelta(seconds=1)
MAX_SILENCE = timedelta(days=3650)

#: The shortest and the longest jitter.
MIN_JITTER = timedelta(milliseconds=1)
MAX_JITTER = timedelta(days=366)

#: Examples of a duration, for sentences on a wrong one.
DURATIONS = "such as 5m, 1h30m, PT90S or P1D"

#: An example of a time, for sentences on a wrong one.
EXAMPLE = "2030-01-31T09:00:00Z"

#: The words for true and false, in lower case. The configuration takes the same.
BOOLEANS: Mapping[str, bool] = MappingProxyType(
    {
        **dict.fromkeys(("true", "yes", "on", "1"), True),
        **dict.fromkeys(("false", "no", "off", "0"), False),
    }
)

#: RFC 3339 section 5.6. Its note allows lower case letters, and a space for the T. The zone may be
#: missing, as in ISO 8601's local time.
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(?:\.(\d+))?"
    r"([Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))?",
    re.ASCII,
)
_SPACE_FOR_PLUS = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)? \d\d:\d\d", re.ASCII)

#: An offset from UTC, or a zone named after one. Its + may have come as a space.
_OFFSET = re.compile(r"(?:(?:Etc/)?(?:GMT|UTC|UCT|Z))?[ +-][0-9][0-9:.]*", re.IGNORECASE)


# What is given


class Number(str):
    """
    A JSON number, as text in digits: so a number and a form's text are read by the same rules.
    """

    __slots__ = ()

    @property
    def written(self) -> str:
        """The number as it was written. NaN and the infinities, which are no JSON, too."""
        return self


class OddNumber(Number):
    """A JSON number that was written in another way than in digits, such as 1.10 or 6e1."""

    __slots__ = ("_written",)
    _written: str

    @classmethod
    def of(cls, digits: str, written: str) -> Self:
        number = cls(digits)
        number._written = written
        return number

    @property
    def written(self) -> str:
        return self._written


class Members(list[tuple[str, Any]]):
    """A JSON object: its members in order. Repeated ones are there, which a dict would hide."""


#: A value in a JSON body. The values inside a list and an object are of this type, too. A form and
#: a query have text only.
Value = str | Number | bool | list[Any] | Members | None

#: Reads one parameter: its name and the value that was given -> the value that is meant.
Reader = Callable[[str, Value], Any]


def in_brief(value: Value) -> str:
    """A value that is no text as sentences repeat it: a number is cut off after `SHOWN` digits."""
    text = as_text(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def as_text(value: Value) -> str:
    """A value as a text: a number in its digits, and what a list or an object is."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "an object or array"
    return "null" if value is None else "true" if value else "false"


def text_of(name: str, value: Value) -> str:
    """
    The text that a form has for a value.

    :raises InvalidRequest: for null, a list and an object, which no form can have.
    """
    if value is None or isinstance(value, list):
        leave_out = "; leave it out where it has no value" if value is None else ""
        raise InvalidRequest(
            f"{shown(name)} is {as_text(value)} in the JSON body: "
            f"it takes a string, a number or a boolean{leave_out}"
        )
    return as_text(value)


def members_of(name: str, value: Value) -> dict[str, Value]:
    """
    The members of a JSON object, for a parameter that takes one.

    :raises InvalidRequest: for another value, and where a member is repeated.
    """
    if not isinstance(value, Members):
        given = "an array" if isinstance(value, list) else shown(as_text(value))
        raise InvalidRequest(f"{shown(name)} is {given}: it takes a JSON object")
    members: dict[str, Value] = {}
    for member, inner in value:
        if member in members:
            raise InvalidRequest(
                f"{shown(name)} has {shown(member)} twice: give it once",
                f"/{pointer_step(member)}",
            )
        members[member] = inner
    return members


def of_text(read: Callable[[str, str], T]) -> Callable[[str, Value], T]:
    """:return: a reader of a `Value`, from a reader of text."""

    @wraps(read)
    def read_value(name: str, value: Value) -> T:
        return read(name, text_of(name, value))

    return read_value


# Readers


def interval(name: str, value: Value) -> Duration | None:
    """
    :return: elapsed time of 0 to `MAX_INTERVAL` seconds, or a duration of days and more. None for
        the null that GET shows beside a ``cron``.
    """
    return None if value is None else _interval(name, text_of(name, value))


def _interval(name: str, value: str) -> Duration:
    takes = f"it takes seconds from 0 to {MAX_INTERVAL}, or a duration {DURATIONS}"
    # int() would take "1_000", " 5" and other scripts' digits as well.
    if re.fullmatch(r"[0-9]+", value):
        return seconds(whole(name, value, 0, MAX_INTERVAL, takes))
    duration = _duration(name, value, takes)
    if duration.exact > timedelta(seconds=MAX_INTERVAL):
        raise InvalidRequest(
            f"{name} is {shown(value)}, which is longer than {MAX_INTERVAL} seconds; {takes}"
        )
    return duration


@of_text
def cron(name: str, value: str) -> str:
    """:return: a cron expression in its normal form."""
    try:
        return cron_from_text(value)
    except ValueError as problem:
        raise InvalidRequest(f"{name} is {shown(value)}, which {problem}") from None


@of_text
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
    """
    What is wrong with an offset that was given for a location.

    :return: None for a text that is no offset.
    """
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


@of_text
def count(name: str, value: str) -> int:
    """:return: a whole number, 1 to `MAX_COUNT`."""
    return whole(name, value, 1, MAX_COUNT, f"it takes a whole number from 1 to {MAX_COUNT}")


@of_text
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


@of_text
def jitter(name: str, value: str) -> timedelta:
    """:return: elapsed time from `MIN_JITTER` to `MAX_JITTER`; a day of it is 24 hours."""
    return elapsed_within(name, value, MIN_JITTER, MAX_JITTER)


@of_text
def silence(name: str, value: str) -> timedelta:
    """:return: elapsed time from `MIN_SILENCE` to `MAX_SILENCE`; a day of it is 24 hours."""
    return elapsed_within(name, value, MIN_SILENCE, MAX_SILENCE)


def elapsed_within(name: str, value: Value, least: timedelta, most: timedelta) -> timedelta:
    """:return: elapsed time from `least` to `most`; a day of it is 24 hours."""
    text, takes = text_of(name, value), _takes(least, most)
    elapsed = _elapsed(name, text, takes)
    if not least <= elapsed <= most:
        raise InvalidRequest(f"{name} is {shown(text)}: {takes}")
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


@of_text
def endpoint(name: str, value: str) -> str:
    """:return: the text: which endpoints there are, the configuration says (`dalga.operations`)."""
    return value


@of_text
def alert_url(name: str, value: str) -> str:
    """
    :return: the name of a target, or `NO_TARGET`: which targets there are, the configuration says
        (`dalga.allowed`).
    """
    if not is_endpoint_name(value):
        raise InvalidRequest(
            f"{name} is {shown(value)}: it takes the name of a target of alerts in the "
            f"configuration, such as {DEFAULT_TARGET}, or {NO_TARGET}; no URL"
        )
    return value


def one_of(kind: type[E]) -> Callable[[str, Value], E]:
    """:return: a reader of the values of an enumeration, in any case."""
    *others, last = kind

    @of_text
    def read(name: str, value: str) -> E:
        try:
            return kind(value.lower())
        except ValueError:
            raise InvalidRequest(
                f"{name} is {shown(value)}: it takes {', '.join(others)} or {last}"
            ) from None

    return read


def success(name: str, value: Value) -> Statuses:
    """:return: one status or more, of a text, a number or a JSON array of both."""
    return _statuses(name, value, or_none=False)


def statuses(name: str, value: Value) -> Statuses:
    """:return: as `success`; without a status for ``none``."""
    return _statuses(name, value, or_none=True)


def _statuses(name: str, value: Value, or_none: bool) -> Statuses:
    if isinstance(value, list) and not isinstance(value, Members):
        given = [each for each in value if isinstance(each, str)]
        if len(given) < len(value):
            raise InvalidRequest(
                f"{name} is an array with other elements than strings and numbers: {takes(or_none)}"
            )
        text, is_none = ",".join(given), or_none and not given
    else:
        text, is_none = text_of(name, value), False
    try:
        return Statuses(()) if is_none else statuses_from_text(text, or_none)
    except ValueError as problem:
        raise InvalidRequest(
            f"{name} is {shown(text)}, which {problem}; {takes(or_none)}"
        ) from None


@of_text
def instant(name: str, value: str) -> datetime:
    """
    Read an RFC 3339 timestamp.

    :return: an aware UTC datetime.
    """
    moment = instant_or_wall(name, value)
    if moment.tzinfo is None:
        raise InvalidRequest(
            f"{name} is {shown(value)}: the zone is missing, such as the Z in {EXAMPLE}"
        )
    return moment


@of_text
def instant_or_wall(name: str, value: str) -> datetime:
    """
    Read an RFC 3339 timestamp, with or without a zone.

    Digits past the microseconds are cut off. A leap second (23:59:60 UTC) is the first second of
    the next day, as in POSIX.

    :return: an aware UTC datetime; a naive datetime if the zone is missing.
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


@of_text
def boolean(name: str, value: str) -> bool:
    """Read true or false, in several words, in any case."""
    try:
        return BOOLEANS[value.lower()]
    except KeyError:
        raise InvalidRequest(
            f"{name} is {shown(value)}: it takes true, yes, on or 1, or false, no, off or 0"
        ) from None


def whole(name: str, value: str, least: int, most: int, takes: str) -> int:
    """
    A whole number from `least` to `most`, which has at most ten digits after its leading zeros.

    :param takes: the end of the sentence on another text.
    """
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
    return f"it takes an RFC 3339 timestamp with a zone, such as {EXAMPLE}"
