"""
A parameter's value -> what GET shows; and -> what the table keeps, and back. Pure.

The table's column ``options`` is a JSON object. Somebody's SQL may have written it, so each member
is checked when it is loaded (P6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Any

from dalga.model.address import is_endpoint_name
from dalga.model.answers import Statuses, statuses_from_text
from dalga.model.duration import duration_from_text
from dalga.model.schedule import Cron, Once, Schedule

# What GET shows


def shown_interval(schedule: Schedule) -> int | str | None:
    """Whole seconds as a number, 0 for once; other durations in ISO 8601; None for cron."""
    if isinstance(schedule, Cron):
        return None
    if isinstance(schedule, Once):
        return 0
    return int(schedule.text) if schedule.text.isdecimal() else schedule.text


def shown_cron(schedule: Schedule) -> str | None:
    """A cron expression; None for another schedule."""
    return schedule.text if isinstance(schedule, Cron) else None


def shown_seconds(elapsed: timedelta) -> int | float:
    """Seconds, as a whole number if they are one."""
    seconds = elapsed.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


# What the table keeps


@dataclass(frozen=True, slots=True)
class Column:
    """The value stands in a column of its own, alone or as a part of a schedule's text."""

    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """
    The value is a member of the column ``options``.

    :param write: the value -> JSON.
    :param load: JSON -> the value. It raises ValueError, TypeError or OverflowError for JSON that
        `write` can't have written.
    """

    write: Callable[[Any], object]
    load: Callable[[Any], Any]


def choice(kind: type[StrEnum]) -> Member:
    """How a value of an enumeration is kept: as its text."""
    return Member(str, kind)


def elapsed(what: str) -> Member:
    """
    How elapsed time is kept: in seconds, with a fraction.

    :param what: the noun for it, in the sentence on a wrong value.
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


def _load_statuses(value: str) -> Statuses:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no text of statuses")
    return statuses_from_text(value)


def _load_success(value: str) -> Statuses:
    found = _load_statuses(value)
    if not found.ranges:
        raise ValueError(f"{value!r:.40} has no status")
    return found


def _load_count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r:.40} is not a count of runs")
    return value


def _load_endpoint(value: str) -> str:
    if not is_endpoint_name(value):
        raise ValueError(f"{value!r:.40} is not the name of an endpoint")
    return value


#: How an aware datetime in UTC is kept: in ISO 8601.
INSTANT = Member(datetime.isoformat, _load_instant)
#: How a whole number, 1 or more, is kept.
COUNT = Member(int, _load_count)
#: How statuses are kept: as their text. A set of successes has one status or more.
STATUSES = Member(str, _load_statuses)
SUCCESS = Member(str, _load_success)
#: How a `Duration` is kept: as its text.
DURATION = Member(attrgetter("text"), duration_from_text)
#: How the name of an endpoint is kept.
ENDPOINT = Member(str, _load_endpoint)
