"""
The records of runs, written: one of each run that has ended, and one of each run that has failed
and waits for its next attempt. Each is written in the transaction that ends the run or its attempt
(P13). `dalga.store.history` reads them.

A run that is tried again has a row on the shelf OPEN, and its job's `extras` say so (`OPEN`). What
ends the run removes that row:

    | what ends the run | the record |
    |---|---|
    | the end of an attempt | is made of the end and of the open row |
    | a PUT, a trigger, a DELETE | is the open row, with the result that a user has brought about |

A user may do something to a job while an attempt is under way. Then the open row stays to the end
of that attempt, or, if its instance is lost, until the job's next run ends.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from dalga.model.answers import Meaning
from dalga.model.attempt import attempt_to_json, attempts_from_json
from dalga.model.delivery import PLAIN
from dalga.model.record import (
    Earlier,
    HistoryMode,
    Record,
    Result,
    Shelf,
    cause_of,
    job_key,
    path_key,
    record_of,
)
from dalga.model.run import Cause, End, GiveBack
from dalga.store.dialect import Cursor, Dialect, RecordValues, instant_text
from dalga.store.extras import OPEN
from dalga.store.rows import MAX_ERROR, options_of, shown_key, version_at
from dalga.store.selected import LeaseRow, OpenRow, RunRow
from dalga.store.statements import Statements

_MICROSECOND = timedelta(microseconds=1)
_SECOND = 1_000_000

#: To look up a member of an enum takes a call of Python, and each run would do so.
_SUCCEED, _SUCCEEDED, _SCHEDULE = Meaning.SUCCEED, Result.SUCCEEDED, Cause.SCHEDULE


class Ending(NamedTuple):
    """An end as a record writes it."""

    #: With the verdict that is written, unless the job was overridden.
    end: End
    #: None if the run is to be tried again, or is given back.
    result: Result | None
    lease: LeaseRow


class Recording:
    """
    Each method runs within a transaction of its caller. `now` is the database's time.

    :param mode: which runs get a record.
    """

    def __init__(self, dialect: Dialect, sql: Statements, mode: HistoryMode) -> None:
        self._dialect = dialect
        self._sql = sql
        self._mode = mode
        #: The name of this instance, which makes the attempts.
        self.instance = ""

    def locked(self, cursor: Cursor, ids: Sequence[int]) -> set[int]:
        """
        Those of some jobs whose open row another session has locked.

        :param ids: of the jobs' rows, which this transaction has locked.
        """
        if not ids or not self._dialect.skip_locked:
            return set()
        free = {row.number for row in self._sql.lock_open.fetch(cursor, ids)}
        return {row.number for row in self._sql.find_open.fetch(cursor, ids)} - free

    def write(self, cursor: Cursor, endings: Sequence[Ending], now: datetime) -> None:
        """Write what a record knows of runs."""
        at, instance = version_at(now), self.instance
        opened = [ending.lease.id for ending in endings if ending.lease.extras & OPEN]
        earlier, closed = (
            self._close_earlier(cursor, endings, opened, at) if opened else ({}, set())
        )
        if self._mode is HistoryMode.OFF:
            return
        rows: list[RecordValues] = []
        to_open: list[RecordValues] = []
        clock = _Texts(now, at)
        for end, result, lease in endings:
            if result is _SUCCEEDED and not opened and _is_plain(end):
                if self._mode is HistoryMode.ALL:
                    rows.append(_plain(end, clock, instance))
            elif lease.id in closed:
                pass
            elif result is not None:
                shelf = result.shelf
                if shelf is not Shelf.FINE or self._mode is HistoryMode.ALL:
                    record = record_of(end, result, now, instance, earlier.get(lease.id))
                    rows.append(_values(record, shelf, at, lease.id))
            elif not isinstance(end.verdict, GiveBack):
                record = record_of(end, None, now, instance, earlier.get(lease.id))
                to_open.append(_values(record, Shelf.OPEN, 0, lease.id))
        if rows:
            self._dialect.insert_records(cursor, rows)
        if to_open:
            self._dialect.insert_records(cursor, to_open, over=True)
            self._sql.mark_open.execute(cursor, [row.job for row in to_open])

    def _close_earlier(
        self, cursor: Cursor, endings: Sequence[Ending], opened: Sequence[int], at: int
    ) -> tuple[dict[int, Earlier], set[int]]:
        """
        Remove open rows, and close those whose runs end by what a user did.

        :param opened: the ids of the jobs' rows that have one.
        :return: what the others know, by the ids of the jobs' rows; and the ids of those jobs' rows
            whose runs are closed by that, though they have an end.
        """
        found = {row.job: row for row in self._sql.read_open.fetch(cursor, opened)}
        earlier: dict[int, Earlier] = {}
        left: list[int] = []
        ended: set[int] = set()
        closed: dict[Result, list[int]] = {}
        for end, result, lease in endings:
            row = found.get(lease.id)
            if row is None:
                continue
            is_same = bytes(row.run).hex() == end.run.id.partition("-")[0]
            if not is_same:
                # A user had scheduled the job anew, and the instance of that run was lost.
                closed.setdefault(Result.OVERRIDDEN, []).append(lease.id)
            elif isinstance(end.verdict, GiveBack):
                if result is None:
                    left.append(lease.id)  # the run goes on
                else:
                    closed.setdefault(result, []).append(lease.id)
                    ended.add(lease.id)
            else:
                known = _earlier(row, self._dialect)
                if known is not None:
                    earlier[lease.id] = known
        for result, ids in closed.items():
            # A moment before the record of the run that ends now.
            self._copy(cursor, ids, result, at - 1)
        gone = [id for id in opened if id not in left]
        if gone:
            self._sql.remove_open.execute(cursor, gone)
            self._sql.unmark_open.execute(cursor, gone)
        return earlier, ended

    def close(self, cursor: Cursor, ids: Sequence[int], result: Result, now: datetime) -> None:
        """
        End runs that wait for their next attempt, as a user has brought about.

        :param ids: of the jobs' rows. Some may have no such run.
        """
        if ids:
            self._copy(cursor, ids, result, version_at(now))
            self._sql.remove_open.execute(cursor, ids)
            self._sql.unmark_open.execute(cursor, ids)

    def _copy(self, cursor: Cursor, ids: Sequence[int], result: Result, at: int) -> None:
        if self._mode is not HistoryMode.OFF:
            self._sql.copy_open.execute(
                cursor, ids, failed=int(result.shelf), at=at, result=result.code
            )

    def lost(self, cursor: Cursor, row: RunRow, token: bytes, now: datetime) -> None:
        """
        Write the record of a run whose instance was lost, and whose job a user has deleted
        meanwhile. Of a row that can't be understood nothing is written.

        :param row: as a claim has taken it.
        :param token: of that claim.
        """
        if isinstance(row.extras, int) and row.extras & OPEN:
            self.close(cursor, [row.id], Result.CANCELLED, now)
            return
        if self._mode is HistoryMode.OFF or row.run == token:
            return  # no run was pending: this claim has made it
        read = self._dialect.read_instant
        key = shown_key(row.path, row.body)
        try:
            claimed, scheduled = read(row.started), read(row.scheduled)
            values = _values(
                Record(
                    run_id=f"{bytes(row.run).hex()}-{row.id}",
                    path=key.path,
                    body=key.body,
                    endpoint=options_of(row.options).endpoint,
                    trigger=Cause(row.cause),
                    scheduled=scheduled,
                    claimed=claimed,
                    started=None,
                    ended=None,
                    lateness_ms=None,
                    instance=None,
                    result=Result.CANCELLED,
                    attempt_count=max(1, row.attempts - (0 if row.disabled else 1)),
                ),
                Shelf.FAILED,
                version_at(now),
                row.id,
            )
        except (ValueError, TypeError):
            return
        self._dialect.insert_records(cursor, [values])


def _earlier(row: OpenRow, dialect: Dialect) -> Earlier | None:
    """What an open row knows of the attempts before; None if it can't be understood."""
    read = dialect.read_instant
    try:
        more = {} if row.more is None else json.loads(row.more)
        return Earlier(
            claimed=read(row.claimed),
            started=None if row.started is None else read(row.started),
            lateness_ms=int(row.lateness),
            trigger=Cause(row.cause),
            attempts=attempts_from_json(more["attempts"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _is_plain(end: End) -> bool:
    """Whether a run was done at its first attempt, and the columns say all that is known of it."""
    outcome = end.outcome
    return (
        end.run.attempt == 1
        and outcome is not None
        and outcome.saved is None
        and outcome.status is not None
        and end.run.delivery is PLAIN
        and end.meaning is _SUCCEED
        and end.ended is not None
    )


class _Texts:
    """
    Texts of times near to each other. A text takes a third of the time of `instant_text`, as those
    of one second have all but the fraction in common.
    """

    def __init__(self, now: datetime, at: int) -> None:
        #: The database's time, and the same in microseconds since 1970.
        self.now = now
        self.at = at
        #: By seconds since 1970: the text up to the fraction.
        self._heads: dict[int, str] = {}
        #: The last claim's time, and its text.
        self._claimed: tuple[datetime, str] | None = None

    def micros(self, instant: datetime) -> int:
        """An instant in microseconds since 1970."""
        # To divide two timedeltas is quick, and exact for 285 years.
        return self.at + round((instant - self.now) / _MICROSECOND)

    def text(self, micros: int) -> str:
        second, fraction = divmod(micros, _SECOND)
        head = self._heads.get(second)
        if head is None:
            instant = self.now + (second * _SECOND - self.at) * _MICROSECOND
            head = self._heads[second] = instant_text(instant)[:20]
        return f"{head}{fraction:06d}"

    def claimed(self, instant: datetime) -> str:
        """The same for all runs of a claim."""
        known = self._claimed
        if known is None or known[0] is not instant:
            known = self._claimed = instant, instant_text(instant)
        return known[1]


def _plain(end: End, texts: _Texts, instance: str) -> RecordValues:
    """What `_values` gives of the record of a run that `_is_plain`."""
    run, outcome = end.run, end.outcome
    assert outcome is not None and end.ended is not None
    ended = texts.micros(end.ended)
    started = ended - round(outcome.elapsed * 1e6)
    since = scheduled = texts.micros(run.scheduled)
    cause = run.cause
    if cause is not _SCHEDULE or run.waited:
        since = texts.micros(run.late_since)
    if cause is _SCHEDULE and started - since > _SECOND:
        cause = cause_of(run, end.ended - timedelta(seconds=outcome.elapsed))
    path, body = run.key
    return RecordValues._make(
        (
            0,
            texts.at,
            run.row,
            run.id[:32],
            path,
            body,
            _path_key(path),
            job_key(path, body),
            run.options.endpoint,
            int(cause),
            0,
            outcome.status,
            0,
            texts.text(scheduled),
            texts.claimed(run.started),
            texts.text(started),
            texts.text(ended),
            (started - since) // 1000,
            1,
            instance,
            None,
            None,
            None,
        )
    )


_path_key = lru_cache(maxsize=1024)(path_key)


def _values(record: Record, shelf: Shelf, at: int, row: int) -> RecordValues:
    """
    The columns of a record.

    :param at: when it is written; 0 on the shelf OPEN.
    :param row: the id of the job's row.
    """
    kind = record.error_kind
    return RecordValues(
        failed=int(shelf),
        at=at,
        job=row,
        run=record.run_id[:32],
        path=record.path,
        body=record.body,
        pathkey=_path_key(record.path),
        jobkey=job_key(record.path, record.body),
        endpoint=record.endpoint,
        cause=int(record.trigger),
        result=None if record.result is None else record.result.code,
        status=record.status,
        kind=0 if kind is None else kind.code,
        scheduled=instant_text(record.scheduled),
        claimed=instant_text(record.claimed),
        started=None if record.started is None else instant_text(record.started),
        ended=None if record.ended is None else instant_text(record.ended),
        lateness=record.lateness_ms or 0,
        attempts=record.attempt_count,
        instance=record.instance or "",
        error=record.error and record.error[:MAX_ERROR],
        more=_more(record),
        answer=_answer(record),
    )


def _more(record: Record) -> str | None:
    """What the columns do not say of a run. Of a single attempt they say all."""
    members: dict[str, object] = {}
    if record.attempt_count > 1 or len(record.attempts) > 1 or record.result is None:
        members["attempts"] = [attempt_to_json(attempt) for attempt in record.attempts]
    if record.replay_of is not None:
        members["replay_of"] = record.replay_of
    if record.detailed:
        members["detailed"] = True
    return _json(members) if members else None


def _answer(record: Record) -> str | None:
    members = {
        "response_headers": record.response_headers,
        "response_body": record.response_body,
    }
    if members == dict.fromkeys(members):
        return None
    return _json(members)


def _json(members: dict[str, object] | dict[str, str | None]) -> str:
    return json.dumps(members, separators=(",", ":"))
