"""
Hypothesis strategies: places, times near their clock changes, durations and cron expressions.

Nothing of `dalga` is used to find clock changes, so that what it says of them can be held to these.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import settings
from hypothesis import strategies as st

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
    spans = st.tuples(number, number).filter(lambda ends: ends[0] < ends[1])
    span = spans.map(lambda ends: f"{ends[0]}-{ends[1]}")
    step = st.integers(1, high).map(lambda n: f"/{n}")
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
    st.just("*"), _terms(1, 31, 29), st.sampled_from(["L", "LW", "L,15", "*/2", "1-7", "31"])
)
days_of_week = st.one_of(
    st.just("*"),
    _terms(0, 7, 1),
    st.sampled_from(["MON-FRI", "sun", "7", "0", "5L", "0L", "7L", "MON#1", "7#2", "FRI#5,MON"]),
)
months = st.one_of(st.just("*"), _terms(1, 12, 2), st.sampled_from(["FEB", "JAN-MAR", "jun,DEC"]))


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
