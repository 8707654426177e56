"""
A parameter's value -> what GET shows, and what the table keeps of it, there and back. Pure.

The table's column ``options`` is a JSON object. Anybody may write to it by SQL, so reading it takes
nothing for granted (P6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Any

from dalga.model.duration import duration_from_text
from dalga.model.schedule import Cron, Once, Schedule

# What GET shows


def shown_interval(schedule: Schedule) -> int | str | None:
    """Whole seconds as a number, 0 for once; another duration as ISO 8601 has it; None for cron."""
    if isinstance(schedule, Cron):
        return None
    if isinstance(schedule, Once):
        return 0
    return int(schedule.text) if schedule.text.isdecimal() else schedule.text


def shown_cron(schedule: Schedule) -> str | None:
    """A cron expression; None for another schedule."""
    return schedule.text if isinstance(schedule, Cron) else None


def shown_seconds(elapsed: timedelta) -> int | float:
    """Seconds, with a fraction where there is one."""
    seconds = elapsed.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


# What the table keeps


@dataclass(frozen=True, slots=True)
class Column:
    """The value is, or is a part of, what a column of its own holds."""

    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """
    The value is a member of the column ``options``.

    :param write: a value -> JSON.
    :param load: what is found there -> the value. It raises ValueError, TypeError or OverflowError
        for what is none.
    """

    write: Callable[[Any], object]
    load: Callable[[Any], Any]


def choice(kind: type[StrEnum]) -> Member:
    """A value of an enumeration."""
    return Member(str, kind)


def elapsed(what: str) -> Member:
    """
    Elapsed time, in seconds.

    :param what: what it is called in the sentence on a wrong one.
    """

    def load(value: float) -> timedelta:
        found = timedelta(seconds=value)
        if isinstance(value, bool) or found < timedelta():
            raise ValueError(f"{value!r:.40} is no {what} in seconds")
        return found

    return Member(timedelta.total_seconds, load)


def _load_instant(value: str) -> datetime:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError(f"{value!r} has no zone")
    return instant.astimezone(UTC)


def _load_count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r:.40} is not a count of runs")
    return value


#: An aware datetime in UTC.
INSTANT = Member(datetime.isoformat, _load_instant)
#: A whole number, 1 or more.
COUNT = Member(int, _load_count)
#: A `Duration`.
DURATION = Member(attrgetter("text"), duration_from_text)
