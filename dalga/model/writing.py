"""
A parameter's value -> what GET shows; and -> what the table keeps, and back. Pure.

The table's column ``options`` is a JSON object, and so are a job's details. Somebody's SQL may have
written them, so each member is checked when it is loaded (P6).
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Any

from dalga.model.address import is_endpoint_name
from dalga.model.answers import Statuses, statuses_from_text
from dalga.model.delivery import (
    DELAYS,
    JITTERS,
    MULTIPLIERS,
    Disabling,
    Method,
    Payload,
    PayloadKind,
    Retry,
)
from dalga.model.duration import duration_from_text
from dalga.model.reading import MAX_COUNT, Members
from dalga.model.reading_delivery import content_type, description, headers, redact, tags
from dalga.model.runid import run_id_from_text
from dalga.model.schedule import Cron, Once, Schedule

# What GET shows


class Written(str):
    """JSON that is a part of an answer as it stands here."""

    __slots__ = ()


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


def shown_payload(payload: Payload) -> str | Written | None:
    """A text, or JSON as it was given; None for octets."""
    if payload.kind is PayloadKind.BASE64:
        return None
    text = payload.octets.decode("utf-8", "replace")
    return text if payload.kind is PayloadKind.TEXT or not _is_json(text) else Written(text)


def _is_json(text: str) -> bool:
    """Somebody's SQL may have written it, and an answer is to be JSON all the same."""
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return False
    return True


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def shown_base64(payload: Payload) -> str | None:
    """Octets in base64; None for another payload."""
    return b64encode(payload.octets).decode() if payload.kind is PayloadKind.BASE64 else None


def shown_retry(retry: Retry) -> dict[str, int | float]:
    """The parts that were chosen; times in seconds."""
    return {
        name: shown_seconds(part) if isinstance(part, timedelta) else _shown_number(part)
        for name, part in retry._asdict().items()
        if part is not None
    }


def _shown_number(number: float) -> int | float:
    """As a whole number if it is one."""
    return int(number) if float(number).is_integer() else number


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


@dataclass(frozen=True, slots=True)
class Detail:
    """
    The value is a member of the object of a job's details, which stands beside the job's row.

    :param write: the value -> JSON; None if it is not kept by this name.
    :param load: as that of `Member`. It raises InvalidRequest, too.
    """

    write: Callable[[Any], object]
    load: Callable[[Any], Any]


def choice(kind: type[StrEnum]) -> Member:
    """How a value of an enumeration is kept: as its text."""
    return Member(str, kind)


def elapsed(what: str, most: timedelta) -> Member:
    """
    How elapsed time is kept: in seconds, with a fraction.

    :param what: the noun for it, in the sentence on a wrong value.
    :param most: the longest, inclusive. Added to a time, it has to give a time.
    """

    def load(value: float) -> timedelta:
        found = timedelta(seconds=value)
        if isinstance(value, bool) or not timedelta() <= found <= most:
            raise ValueError(
                f"{value!r:.40} is no {what} in seconds, from 0 to {most.total_seconds():.0f}"
            )
        return found

    return Member(timedelta.total_seconds, load)


def _load_instant(value: str) -> datetime:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError(f"{value!r} has no zone")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value!r} is no year of UTC") from None


def _load_statuses(value: str) -> Statuses:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no text of statuses")
    return statuses_from_text(value)


def _load_success(value: str) -> Statuses:
    found = _load_statuses(value)
    if not found.ranges:
        raise ValueError(f"{value!r:.40} has no status")
    return found


def _load_run_id(value: object) -> str:
    if not isinstance(value, str) or run_id_from_text(value) is None:
        raise ValueError(f"{value!r:.40} is not the id of a run")
    return value


def _load_count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise ValueError(f"{value!r:.40} is not a count of runs, from 1 to {MAX_COUNT}")
    return value


def _load_chosen(value: object) -> bool:
    if value is not True:
        raise ValueError(f"{value!r:.40} is no choice that was made")
    return True


def _load_endpoint(value: str) -> str:
    if not is_endpoint_name(value):
        raise ValueError(f"{value!r:.40} is not the name of an endpoint")
    return value


def _load_target(value: str) -> str:
    if not is_endpoint_name(value):
        raise ValueError(f"{value!r:.40} is not the name of a target of alerts")
    return value


def _load_text_kind(value: str) -> PayloadKind:
    kind = PayloadKind(value)
    if kind is PayloadKind.BASE64:
        raise ValueError(f"{value!r} is no kind of a text")
    return kind


def _load_base64_kind(value: str) -> PayloadKind:
    if value != PayloadKind.BASE64:
        raise ValueError(f"{value!r:.40} is not the kind of octets")
    return PayloadKind.BASE64


def _load_retry(value: Any) -> Retry:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.40} are no retries")
    found: dict[str, Any] = {}
    for name, part in value.items():
        least, most = _RETRY_BOUNDS.get(name, (1, 0))
        if isinstance(part, bool) or not isinstance(part, int | float) or not least <= part <= most:
            raise ValueError(f"{name!r:.40} of retries is {part!r:.40}, which it can't be")
        found[name] = timedelta(seconds=part) if name in _TIMES else part
    if not isinstance(found.get("max_attempts", 1), int):
        raise ValueError("max_attempts of retries is no whole number")
    return Retry(**found)


def _write_retry(retry: Retry) -> dict[str, int | float]:
    return {
        name: part.total_seconds() if isinstance(part, timedelta) else part
        for name, part in retry._asdict().items()
        if part is not None
    }


_DELAYS = DELAYS[0].total_seconds(), DELAYS[1].total_seconds()

#: The parts of `Retry` that are times, and the bounds of all parts, times in seconds.
_TIMES = ("interval", "max_interval", "stop_after")
_RETRY_BOUNDS = {
    "interval": _DELAYS,
    "multiplier": MULTIPLIERS,
    "max_interval": _DELAYS,
    "jitter": JITTERS,
    "stop_after": (0, _DELAYS[1]),
    "max_attempts": (1, MAX_COUNT),
}


def _load_headers(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in value
    ):
        raise ValueError(f"{value!r:.40} are no pairs of names and values")
    return headers("headers", Members((name, text) for name, text in value))


def _load_tags(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.40} are no tags")
    return tags("tags", value)


def _load_redact(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.40} are no names")
    return redact("redact", value)


def _load_description(value: Any) -> str:
    found = description("description", value)
    if found is None:
        raise ValueError("the description is empty")
    return found


def _load_content_type(value: Any) -> str:
    return content_type("content-type", value)


def _write_disabling(disabling: Disabling) -> dict[str, str]:
    members = {"since": disabling.since.isoformat()}
    if disabling.reason is not None:
        members["reason"] = disabling.reason
    if disabling.by is not None:
        members["by"] = disabling.by
    return members


def _load_disabling(value: Any) -> Disabling:
    texts = (value.get("reason"), value.get("by")) if isinstance(value, dict) else (0, 0)
    if not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError(f"{value!r:.40} does not say since when a job is disabled")
    return Disabling(_load_instant(value.get("since", "")), *texts)


#: How the kind of a payload is kept, by the name of the parameter that gave the payload. The octets
#: stand beside the details.
PAYLOAD_TEXT = Detail(
    lambda payload: None if payload.kind is PayloadKind.BASE64 else str(payload.kind),
    _load_text_kind,
)
PAYLOAD_OCTETS = Detail(
    lambda payload: str(payload.kind) if payload.kind is PayloadKind.BASE64 else None,
    _load_base64_kind,
)
CONTENT_TYPE = Detail(str, _load_content_type)
#: How headers are kept: as pairs of names and values.
HEADERS = Detail(lambda pairs: [list(pair) for pair in pairs], _load_headers)
METHOD = Detail(str, Method)
RUN_ID = Detail(str, _load_run_id)
#: How retries are kept: by the names of their parts, times in seconds.
RETRY = Detail(_write_retry, _load_retry)
TAGS = Detail(list, _load_tags)
DESCRIPTION = Detail(str, _load_description)
REDACT = Detail(list, _load_redact)
DISABLING = Detail(_write_disabling, _load_disabling)
#: How a choice is kept that was made.
CHOSEN = Member(bool, _load_chosen)
#: How an aware datetime in UTC is kept: in ISO 8601.
INSTANT = Member(datetime.isoformat, _load_instant)
#: How a whole number from 1 to `MAX_COUNT` is kept.
COUNT = Member(int, _load_count)
#: How statuses are kept: as their text. A set of successes has one status or more.
STATUSES = Member(str, _load_statuses)
SUCCESS = Member(str, _load_success)
#: How a `Duration` is kept: as its text.
DURATION = Member(attrgetter("text"), duration_from_text)
#: How the name of an endpoint is kept.
ENDPOINT = Member(str, _load_endpoint)
#: How the name of a target of alerts is kept.
TARGET = Member(str, _load_target)
