"""
Hypothesis strategies: places, times near their clock changes, durations and cron expressions; what
a client may send.

Nothing of `dalga` is used to find clock changes, so that what it says of them can be held to these.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import settings
from hypothesis import strategies as st

from dalga.model.fields import READERS

T = TypeVar("T", bound=Callable[..., Any])

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

#: Places whose clocks do all that clocks can do.
TRICKY = (
    "Europe/Istanbul",  # an end of clock changes, and changes that were put off by a day or weeks
    "America/Los_Angeles",
    "Europe/Riga",
    "Australia/Lord_Howe",  # half an hour
    "Asia/Kathmandu",  # a quarter of an hour, once
    "Pacific/Apia",  # a day that there was not
    "Africa/Casablanca",  # forward and back around Ramadan
    "Antarctica/Troll",  # two hours
    "America/St_Johns",  # at one minute past midnight
    "Pacific/Kwajalein",  # another day that there was not
    "Africa/Monrovia",  # 44 minutes and 30 seconds
    "UTC",
)
LOCATIONS = sorted(available_timezones() - {"localtime", "posixrules", "Factory"})


def thorough(examples: int) -> Callable[[T], T]:
    """
    A property test that finds the same on each machine, with so many examples at most.

    ``DALGA_TEST_EXAMPLES`` multiplies them, for a search by hand.
    """
    factor = int(os.environ.get("DALGA_TEST_EXAMPLES", "1"))
    return settings(max_examples=factor * examples, derandomize=True, deadline=None, database=None)


class Change(NamedTuple):
    """A clock change."""

    at: datetime
    before: timedelta
    after: timedelta


def offset(location: str, instant: datetime) -> timedelta:
    """How far a place's clock is from UTC at an instant."""
    found = instant.astimezone(ZoneInfo(location)).utcoffset()
    assert found is not None
    return found


def changes(location: str, start: datetime, end: datetime, step: timedelta) -> list[Change]:
    """The clock changes of a place between two instants, at most one in a step."""
    found = []
    before = offset(location, start)
    while start < end:
        after = offset(location, start + step)
        if after != before:
            early, late = start, start + step
            while late - early > SECOND:
                middle = (early + (late - early) / 2).replace(microsecond=0)
                if offset(location, middle) == before:
                    early = middle
                else:
                    late = middle
            found.append(Change(late, before, after))
            before = after
        start += step
    return found


@cache
def changes_of(location: str) -> list[Change]:
    """The clock changes of a place in the years that most dates are of."""
    return changes(
        location, datetime(1970, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC), 3 * DAY
    )


locations = st.sampled_from(TRICKY) | st.sampled_from(LOCATIONS)

#: Any instants at all.
instants = st.datetimes(timezones=st.just(UTC))

#: Instants that a job may well have.
recent = st.datetimes(datetime(1970, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC))

#: Up to a day and a half to either side, at the full minute more often than not.
_nearby = st.one_of(
    st.integers(-36 * 60, 36 * 60).map(lambda minutes: timedelta(minutes=minutes)),
    st.integers(-8, 8).map(lambda quarters: quarters * HOUR / 4),
    st.timedeltas(-2 * HOUR, 2 * HOUR),
)


@st.composite
def near_changes(draw: st.DrawFn, location: str) -> datetime:
    """An instant that is near a clock change of a place, if it has any."""
    known = changes_of(location)
    if not known:
        return draw(recent)
    return draw(st.sampled_from(known)).at + draw(_nearby)


#: Months, days and elapsed time of a duration that has a calendar part.
calendar_parts = st.one_of(
    st.tuples(st.integers(1, 30), st.just(0), st.just(0)),
    st.tuples(st.just(0), st.integers(1, 400), st.just(0)),
    st.tuples(st.integers(0, 30), st.integers(0, 60), st.integers(0, 200_000)).filter(
        lambda parts: parts[0] or parts[1]
    ),
)


def iso(months: int, days: int, seconds: int) -> str:
    """A duration in ISO 8601."""
    years, months = divmod(months, 12)
    date = "".join(f"{n}{unit}" for n, unit in ((years, "Y"), (months, "M"), (days, "D")) if n)
    return f"P{date}" + (f"T{seconds}S" if seconds else "")


def _terms(low: int, high: int, near: int) -> st.SearchStrategy[str]:
    """One field of numbers, which often has `near` in it."""
    number = st.integers(low, high) | st.just(near)
    span = st.tuples(number, number).map(lambda ends: f"{ends[0]}-{ends[1]}")  # may wrap
    step = st.integers(1, min(7 if high == 7 else 60, high - low + 1)).map(lambda n: f"/{n}")
    term = st.one_of(
        number.map(str),
        span,
        st.builds("{}{}".format, span, step),
        st.builds("{}{}".format, number, step),
        st.builds("*{}".format, step),
    )
    return st.one_of(
        st.just("*"),
        st.just(str(near)),
        term,
        st.lists(term, min_size=2, max_size=3).map(",".join),
    )


#: The day fields, with all that they may have.
days_of_month = st.one_of(
    st.just("*"), _terms(1, 31, 29), st.sampled_from(["L", "LW", "L,15", "*/2", "1-7", "31", "?"])
)
days_of_week = st.one_of(
    st.just("*"),
    _terms(0, 7, 1),
    st.sampled_from(["MON-FRI", "sun", "7", "0", "5L", "0L", "7L", "MON#1", "7#2", "FRI#5,MON"]),
    st.sampled_from(["?", "Monday", "Fri-Mon", "MON-SUN", "sat-SUN/2", "FRIL", "Sunday#1,THURSL"]),
)
months = st.one_of(
    st.just("*"),
    _terms(1, 12, 2),
    st.sampled_from(["FEB", "JAN-MAR", "jun,DEC", "NOV-FEB", "September", "OCT-feb/2"]),
)


@st.composite
def crons_near(draw: st.DrawFn, wall: datetime) -> str:
    """Five fields that name times of the day near a wall time, on most days."""
    hour = (wall.hour + draw(st.integers(-1, 1))) % 24
    fields = [draw(_terms(0, 59, wall.minute)), draw(_terms(0, 23, hour))]
    rest = st.just(["*", "*", "*"]) | st.tuples(days_of_month, months, days_of_week)
    return " ".join([*fields, *draw(rest)])


@st.composite
def crons_with_seconds_near(draw: st.DrawFn, wall: datetime) -> str:
    """Six fields that name times near a wall time, on each day."""
    return f"{draw(_terms(0, 59, wall.second))} " + " ".join(
        [*draw(crons_near(wall)).split()[:2], "*", "*", "*"]
    )


# What a client may send

#: What a PUT takes.
PARAMETERS = list(READERS)

#: What comes close to durations, cron expressions and timestamps.
GRAMMARS = [
    r"-?P([0-9]{1,11}[YMWD]){0,3}(T([0-9]{1,11}([.,][0-9]{1,7})?[HMS]){0,3})?",
    r"([0-9]{1,11}(\.[0-9]{1,7})?(h|m|s|ms)?){1,4}",
    r"([0-9*LlA-F]{1,3}([-/,#][0-9]{1,2})?[ \t+]){4,5}[0-7*SUNMO]{1,3}([-/,#][0-9])?",
    r"[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](Z|[+-][0-2][0-9]:[0-6]0)",
]

#: The value of a parameter, or what comes close to one.
values = st.one_of(*(st.from_regex(grammar, fullmatch=True) for grammar in GRAMMARS))

#: What a path's segment may be: text that UTF-8 can carry.
segments = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255)

#: How a segment's octets are escaped, over and over; see `escaped`.
escapings = st.binary(min_size=1, max_size=8)

#: What stands for itself in a segment (RFC 3986 section 3.3).
_PCHAR = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@"
)


def escaped(segment: str, how: bytes) -> bytes:
    """
    A segment of a URL's path, percent-encoded in one of the ways that mean the same.

    :param how: of each octet, by turns: a multiple of 4 leaves it as it is, where that may be.
    """

    def spelled(octet: int, way: int) -> bytes:
        if way % 4 == 0 and octet in _PCHAR:
            return bytes([octet])
        return (b"%%%02x" if way % 2 else b"%%%02X") % octet

    octets = segment.encode("utf-8")
    return b"".join(spelled(octet, how[at % len(how)]) for at, octet in enumerate(octets))


def joined(*pieces: bytes, most: int = 12) -> st.SearchStrategy[bytes]:
    """Some of these pieces, and now and then any octets, one behind the other."""
    return st.lists(st.sampled_from(pieces) | st.binary(max_size=4), max_size=most).map(b"".join)


#: What may stand for a query or a form.
queries = st.one_of(
    st.lists(st.tuples(st.sampled_from(PARAMETERS), values), max_size=3).map(
        lambda pairs: urlencode(pairs).encode()
    ),
    st.sampled_from(
        [
            *(b"interval=60", b"interval=1&immediate=true", b"one-off=1&immediate=1"),
            *(b"state=failed&state=done&tag=a&tag=b&sort=key", b"prefix=a&contains=b&sort=due"),
            *(b"enable=true", b"disable=1", b"limit=1", b"count=3&after=2030-01-01T00:00:00Z"),
        ]
    ),
    joined(
        *(name.encode() + b"=" for name in (*PARAMETERS, "enable", "disable", "after", "limit")),
        *(b"tag=", b"state=", b"prefix=", b"body=", b"contains=", b"sort=", b"due_before="),
        *(
            b"failed",
            b"due",
            b"cursor=",
            b"path=",
            b"&",
            b"&",
            b"=",
            b"+",
            b";",
            b"#",
            b"\0",
            b"\xff",
        ),
        *(b"%", b"%zz", b"%ff", b"%00", b"%0A", b"%ED%A0%80", b"%2B", b"%F0%9F%90%B0"),
        *(b"true", b"0", b"60", b"P1M", b"*+*+*+*+*", b"Europe/Riga", b"all", b"9" * 30),
        *(b"2030-01-31T09:00:00Z", b"2030-01-31T09:00:00+03:00", b"9999-12-31T23:59:60Z"),
        b"x" * 300,
    ),
)

_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | values | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)

#: What may stand for JSON.
json_bodies = st.one_of(
    st.dictionaries(st.sampled_from([*PARAMETERS, "enable", "disable"]), _json_values, max_size=3)
    .map(json.dumps)
    .map(str.encode),
    st.sampled_from(
        [
            *(b'{"interval":60}', b'{"interval":60,"interval":61}', b"{}", b"\xef\xbb\xbf{}"),
            *(b"[" * 5000, b'{"a":' * 5000, b'{"interval":%b}' % (b"9" * 5000), b'{"a":1e400}'),
        ]
    ),
    joined(
        *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud800", b"\xff", b"\0"),
        *(b'{"interval":', b'"interval":', b'"count":', b'"one-off":true', b'"immediate":'),
        *(b"60", b"60}", b"1e400", b"-0", b"0.5", b"NaN", b"-Infinity", b"null", b"true", b'""'),
        *(b"9" * 30, b"[" * 30, b" ", b"\n"),
    ),
)
