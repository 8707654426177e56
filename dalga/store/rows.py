"""
From a row to a Job or a Run, or to what is wrong with it. Pure.

Anybody may write to the table by SQL, so nothing in a row is taken for granted (P6).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from dalga.errors import InvalidRequest
from dalga.job import Job, JobKey, Run, UnreadableJob, check_length, check_path
from dalga.schedule import schedule_from_text

#: The length of a claim's token, in bytes.
TOKEN_LENGTH = 16

#: The largest count of attempts that a column of any engine holds; it is stayed at.
MAX_COUNT = 2**32 - 1


class Unreadable(ValueError):
    """A row that can't be understood; the sentence says why."""


class JobRow(NamedTuple):
    """The columns that make a job, as the driver gives them."""

    path: Any
    body: Any
    interval: Any
    scheduled: Any
    due: Any
    attempts: Any
    error: Any
    token: Any


class RunRow(NamedTuple):
    """The columns of a claimed row, as the driver gives them."""

    id: int
    path: Any
    body: Any
    interval: Any
    scheduled: Any
    run: Any
    attempts: Any
    superseded: Any


def read_job(
    row: JobRow, key: JobKey, now: datetime, read_instant: Callable[[object], datetime]
) -> Job | UnreadableJob:
    """The job in a row that was looked up by its key."""
    error = row.error.decode("utf-8", "replace") if isinstance(row.error, bytes) else row.error
    if row.due is None:
        return UnreadableJob(key, str(error or "the row has no due time"))
    try:
        due = instant("due", row.due, read_instant)
        return Job(
            key=key,
            schedule=schedule_from_text(text("interval", row.interval)),
            scheduled=instant("scheduled", row.scheduled, read_instant),
            due=due,
            attempts=count("attempts", row.attempts),
            running=row.token is not None and due > now,
            error=None if error is None else str(error),
        )
    except ValueError as problem:
        return UnreadableJob(key, str(problem))


def read_run(
    row: RunRow,
    token: bytes,
    now: datetime,
    lease_ends: float,
    read_instant: Callable[[object], datetime],
) -> Run:
    """
    The run in a row that was just claimed.

    :raises Unreadable: if the row can't be understood.
    """
    try:
        key = JobKey(text("path", row.path), text("body", row.body))
        check_length("path", key.path)
        check_length("body", key.body)
        check_path(key.path)
        return Run(
            row=row.id,
            token=token,
            key=key,
            schedule=schedule_from_text(text("interval", row.interval)),
            scheduled=instant("scheduled", row.scheduled, read_instant),
            id=f"{run_token(row.run).hex()}-{row.id}",
            attempt=count("attempts", row.attempts),
            claimed=now,
            lease_ends=lease_ends,
        )
    except (ValueError, InvalidRequest) as problem:
        raise Unreadable(str(problem)) from None


def run_token(value: object) -> bytes:
    """:raises Unreadable: if the value is not the token of a claim."""
    if not isinstance(value, bytes) or len(value) != TOKEN_LENGTH:
        raise Unreadable(f"run is {value!r:.40}, which is not {TOKEN_LENGTH} bytes")
    return value


def count(column: str, value: object) -> int:
    """:raises Unreadable: if the value is not a count."""
    if not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise Unreadable(f"{column} is {value!r:.40}, which is not a count")
    return value


def text(column: str, value: object) -> str:
    """:raises Unreadable: if the value is not text in UTF-8."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise Unreadable(f"{column} is {value[:40]!r}, which is not UTF-8") from None
    if not isinstance(value, str):
        raise Unreadable(f"{column} is {value!r}, which is not text")
    return value


def instant(column: str, value: object, read_instant: Callable[[object], datetime]) -> datetime:
    """:raises Unreadable: if the value is no time."""
    try:
        return read_instant(value)
    except ValueError as problem:
        raise Unreadable(f"{column} {problem}") from None
