"""
From the rows of records, and of jobs under way, to `ListedRun`s. Pure.

Anybody may write to the tables by SQL, so nothing in a row is taken for granted (P6): what is no
record is None, and left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from dalga.model.attempt import Attempt, attempts_from_json, kind_of_code
from dalga.model.record import Record, milliseconds, result_of_code
from dalga.model.run import Cause
from dalga.model.runid import RunId
from dalga.model.runlist import ListedRun, RunState
from dalga.store.rows import count, instant, options_of, run_token, shown_key
from dalga.store.runranges import OpenRow, RecordRow, RunningRow
from dalga.store.values import text_of, text_or_none

ReadInstant = Callable[[object], datetime]


def ended_run(row: RecordRow, read_instant: ReadInstant) -> ListedRun | None:
    """A run that has ended."""
    record = _record(row, read_instant)
    if record is None or record.result is None:
        return None
    return ListedRun(record)


def open_run(row: OpenRow, read_instant: ReadInstant) -> ListedRun | None:
    """A run that has failed, and is tried again; the next attempt may be under way."""
    record = _record(row.record, read_instant)
    if record is None:
        return None
    record = replace(record, result=None, ended=None)
    if row.leased:
        running = replace(record, attempt_count=record.attempt_count + 1)
        return ListedRun(running, RunState.RUNNING)
    due = None if row.due is None else _or_none(read_instant, row.due)
    return ListedRun(record, RunState.RETRYING, due)


def running_run(row: RunningRow, read_instant: ReadInstant) -> ListedRun | None:
    """A run that has no record yet."""
    try:
        key = shown_key(row.path, row.body)
        return ListedRun(
            Record(
                run_id=str(RunId(run_token(row.run), row.id)),
                path=key.path,
                body=key.body,
                endpoint=options_of(row.options).endpoint,
                trigger=Cause(count("cause", row.cause)),
                scheduled=instant("scheduled", row.scheduled, read_instant),
                claimed=instant("started", row.started, read_instant),
                started=None,
                ended=None,
                lateness_ms=None,
                instance=None,
                result=None,
                attempt_count=count("attempts", row.attempts),
            ),
            RunState.RUNNING,
        )
    except ValueError:
        return None


def with_answer(run: ListedRun, answer: object) -> ListedRun:
    """
    A run with the answer that is kept of it.

    :param answer: the column of this name.
    """
    members = _members(answer)
    headers, body = members.get("response_headers"), members.get("response_body")
    record = replace(
        run.record,
        response_headers=headers if isinstance(headers, str) else None,
        response_body=body if isinstance(body, str) else None,
    )
    return replace(run, record=record)


def _record(row: RecordRow, read_instant: ReadInstant) -> Record | None:
    try:
        key = shown_key(row.path, row.body)
        more = _members(row.more)
        started = _instant_or_none(row.started, read_instant)
        ended = _instant_or_none(row.ended, read_instant)
        status = None if row.status is None else count("status", row.status)
        instance, kind = text_of(row.instance), kind_of_code(row.kind)
        attempts = attempts_from_json(more.get("attempts"))
        if (
            "attempts" not in more
            and started is not None
            and ended is not None
            and row.attempts == 1
        ):
            # Of a run that had one attempt, the columns say all.
            attempts = (Attempt(1, started, instance, milliseconds(started, ended), status, kind),)
        replay_of = more.get("replay_of")
        return Record(
            run_id=str(RunId(run_token(row.run), row.job)),
            path=key.path,
            body=key.body,
            endpoint=text_of(row.endpoint),
            trigger=Cause(count("cause", row.cause)),
            scheduled=instant("scheduled", row.scheduled, read_instant),
            claimed=instant("claimed", row.claimed, read_instant),
            started=started,
            ended=ended,
            # Of a run that was never POSTed nothing is late. Where the clock was set back between
            # its time and its start, the column is below 0.
            lateness_ms=None if started is None else max(0, _number(row.lateness)),
            instance=instance,
            result=result_of_code(row.result),
            status=status,
            error_kind=kind,
            error=text_or_none(row.error),
            attempt_count=count("attempts", row.attempts),
            attempts=attempts,
            replay_of=replay_of if isinstance(replay_of, str) else None,
            detailed=bool(more.get("detailed")),
        )
    except ValueError:
        return None


def _members(value: object) -> Mapping[str, Any]:
    """The members of a JSON object; none if it can't be read."""
    if not isinstance(value, str | bytes):
        return {}
    try:
        members = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def _number(value: object) -> int:
    """:raises ValueError: if it is none."""
    if not isinstance(value, int):
        raise ValueError(f"is {value!r:.40}, which is not a number")
    return value


def _instant_or_none(value: object, read_instant: ReadInstant) -> datetime | None:
    """:raises ValueError: if it is neither a time nor NULL."""
    return None if value is None else read_instant(value)


def _or_none(read_instant: ReadInstant, value: object) -> datetime | None:
    try:
        return read_instant(value)
    except ValueError:
        return None
