"""
The records of runs, written: one of each run that has ended, and one of each run that has failed
and waits for its next attempt. Each is written in the transaction that ends the run or its attempt
(P13). `dalga.store.history` reads them.

A run that is tried again has a row on the shelf OPEN, and its job's `extras` say so (`OPEN`). The
transaction that ends the run removes that row, and writes the record:

    | what ends the run | the record |
    |---|---|
    | the end of an attempt | is made of the end and of the open row |
    | a PUT, a trigger, a DELETE | is the open row, with the result that a user has brought about |

If a user does something to a job while an attempt is under way, the open row stays until that
attempt ends. If the attempt's instance is lost, the row stays until the job's next run ends.

A run that a user ends has no `End`, so nobody but the transaction knows that the run is over. The
transaction notes the run at its cursor as `Closed`: see `dalga.store.closings`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from dalga.model.answers import Meaning
from dalga.model.attempt import attempt_to_json, attempts_from_json
from dalga.model.delivery import PLAIN
from dalga.model.record import (
    Earlier,
    EndedRun,
    HistoryMode,
    Record,
    Result,
    Shelf,
    cause_of,
    job_key,
    path_key,
    record_of,
)
from dalga.model.run import Cause, End, GiveBack, Retry
from dalga.model.runid import RunId
from dalga.model.schedule import Once
from dalga.store.closings import Closed
from dalga.store.dialect import Cursor, Dialect, RecordValues, SharedValues, instant_text
from dalga.store.extras import OPEN, is_open
from dalga.store.rows import (
    MAX_ERROR,
    Unreadable,
    options_of,
    run_token,
    shown_key,
    version_at,
)
from dalga.store.runsql import RunStatements
from dalga.store.selected import LeaseRow, OpenRow, RunRow
from dalga.store.transactions import Conflict
from dalga.store.values import whole

_MICROSECOND = timedelta(microseconds=1)
_SECOND = 1_000_000

#: To look up a member of an enum takes a call of Python, and each run would do so.
_SUCCEED, _SUCCEEDED, _SCHEDULE = Meaning.SUCCEED, Result.SUCCEEDED, Cause.SCHEDULE


#: An end as a record writes it, with the verdict that is written, unless the job was overridden;
#: what its run came to, None if the run is to be tried again, or is given back; and what the row of
#: the job holds.
Ending = tuple[End, Result | None, LeaseRow]

#: Open rows, by the ids of the jobs' rows.
OpenRows = Mapping[int, OpenRow]

NO_ROWS: OpenRows = MappingProxyType({})


class Held(NamedTuple):
    """Open rows that this transaction has locked."""

    rows: OpenRows
    #: The ids of those jobs' rows whose open row another session has locked.
    locked: set[int]


#: Of jobs that have no open row.
NOTHING_HELD = Held(NO_ROWS, set())


class Recording:
    """
    Each method runs within a transaction of its caller. `now` is the database's time.

    :param mode: which runs get a record.
    """

    def __init__(self, dialect: Dialect, sql: RunStatements, mode: HistoryMode) -> None:
        self._dialect = dialect
        self._sql = sql
        self.mode = mode
        #: The name of this instance, which makes the attempts.
        self.instance = ""

    @property
    def open_bit(self) -> int:
        """What the extras get of a job whose run is to be tried again."""
        return 0 if self.mode is HistoryMode.OFF else OPEN

    def hold(self, cursor: Cursor, ids: Sequence[int]) -> Held:
        """
        Read and lock the open rows of some jobs.

        :param ids: of the jobs' rows, which this transaction has locked.
        """
        if not ids:
            return NOTHING_HELD
        rows = {row.job: row for row in self._sql.lock_open.fetch(cursor, ids)}
        missing = [id for id in ids if id not in rows]
        locked: set[int] = set()
        if missing and self._dialect.skip_locked:
            locked = {row.job for row in self._sql.read_open.fetch(cursor, missing)}
        return Held(rows, locked)

    def write(self, cursor: Cursor, endings: Sequence[Ending], held: Held, now: datetime) -> None:
        """
        Write the records of runs that have ended, and the open rows of runs that are tried again.

        :param held: the open rows of all jobs whose `extras` have OPEN.
        """
        at, instance = version_at(now), self.instance
        earlier: Mapping[int, Earlier] = {}
        closed: Collection[int] = ()
        none_open = held is NOTHING_HELD
        if not none_open:
            earlier, closed = self._close_earlier(cursor, endings, held.rows, at)
        if self.mode is HistoryMode.OFF:
            return
        rows: list[RecordValues] = []
        to_open: list[RecordValues] = []
        plain = _Plain(now, at, instance)
        for end, result, lease in endings:
            if result is _SUCCEEDED and none_open and _is_plain(end):
                if self.mode is HistoryMode.ALL:
                    rows.append(plain.values(end, lease.id))
            elif lease.id in closed:
                pass
            elif result is not None:
                shelf = result.shelf
                if shelf is not Shelf.FINE or self.mode is HistoryMode.ALL:
                    record = record_of(end, result, now, instance, earlier.get(lease.id))
                    rows.append(_values(record, shelf, at, lease.id))
            elif not isinstance(end.verdict, GiveBack):
                record = record_of(end, None, now, instance, earlier.get(lease.id))
                to_open.append(_values(record, Shelf.OPEN, 0, lease.id))
        if rows:
            self._insert(cursor, rows)
        if to_open:
            self._dialect.insert_records(cursor, to_open, over=True)

    def _close_earlier(
        self, cursor: Cursor, endings: Sequence[Ending], rows: OpenRows, at: int
    ) -> tuple[dict[int, Earlier], set[int]]:
        """
        Write the records of runs that a user has ended, and remove the open rows of all runs that
        are over. The open row of a run that is tried again is written over later.

        :return: what the open rows tell of earlier attempts, by the ids of the jobs' rows; and the
            ids of the jobs' rows whose run has its record by now, though an attempt was given back.
        """
        earlier: dict[int, Earlier] = {}
        gone: list[int] = []
        ended: set[int] = set()
        #: Open rows of runs before those of `endings`; and of runs that were given back, by result.
        others: list[OpenRow] = []
        own: defaultdict[Result, list[OpenRow]] = defaultdict(list)
        for end, result, lease in endings:
            if not is_open(lease.extras):
                continue
            row = rows.get(lease.id)
            is_kept = result is None and isinstance(end.verdict, Retry) and self.open_bit
            if not is_kept:
                gone.append(lease.id)
            if row is None:
                continue
            try:
                run = run_token(row.run).hex()
            except Unreadable:
                continue  # somebody's SQL; the run's record is made without it
            if run != end.run.id.partition("-")[0]:
                # A user had scheduled the job anew, and the instance of that run was lost.
                others.append(row)
            elif isinstance(end.verdict, GiveBack):
                if result is None:
                    gone.pop()  # the run goes on
                else:
                    own[result].append(row)
                    ended.add(lease.id)
            else:
                known = _earlier(row, self._dialect)
                if known is not None:
                    earlier[lease.id] = known
        # A moment before the record of the run that ends now.
        self._end(cursor, others, Result.OVERRIDDEN, at - 1)
        for result, some in own.items():
            self._copy(cursor, some, result, at - 1)
        if gone:
            if not rows.keys().isdisjoint(gone):
                self._sql.remove_open.execute(cursor, gone)
            self.unmark(cursor, gone, OPEN)
        return earlier, ended

    def close(
        self,
        cursor: Cursor,
        ids: Sequence[int],
        result: Result,
        now: datetime,
        known: OpenRows = NO_ROWS,
    ) -> None:
        """
        Write the records of runs that waited for their next attempt until a user ended them. The
        caller takes the mark OPEN from the jobs' rows.

        :param ids: of the jobs' rows. Some may have no such run.
        :param known: open rows that the transaction holds.
        """
        rows = [known[id] for id in ids if id in known]
        others = [id for id in ids if id not in known]
        if others:
            rows += self._sql.read_open.fetch(cursor, others)
        if rows:
            self._end(cursor, rows, result, version_at(now))
            self._sql.remove_open.execute(cursor, [row.job for row in rows])

    def unmark(self, cursor: Cursor, ids: Sequence[int], bits: int) -> None:
        """Take bits from the `extras` of jobs: the rows that they tell of are gone."""
        self._sql.unmark.execute(cursor, ids, bits=bits)

    def _end(self, cursor: Cursor, rows: Sequence[OpenRow], result: Result, at: int) -> None:
        """Write the records of runs that have no `End`, as copies of their open rows."""
        self._copy(cursor, rows, result, at)
        for row in rows:
            path, endpoint = shown_key(row.path, row.endpoint)
            self._note(cursor, EndedRun(path, endpoint, result, whole(row.attempts)), row.job, at)

    def _copy(self, cursor: Cursor, rows: Sequence[OpenRow], result: Result, at: int) -> None:
        if rows and self.mode is not HistoryMode.OFF:
            self._sql.copy_open.execute(
                cursor,
                [row.job for row in rows],
                failed=int(result.shelf),
                at=at,
                result=result.code,
            )

    def _note(self, cursor: Cursor, run: EndedRun, job: int, at: int) -> None:
        """Note that a record is written of a run without an `End`."""
        if self.mode is not HistoryMode.OFF:
            cursor.noted.append(Closed(run, job, at))

    def _insert(self, cursor: Cursor, rows: Sequence[RecordValues]) -> None:
        """:raises Conflict: if a job has a record of the same microsecond: a clock was set back."""
        try:
            self._dialect.insert_records(cursor, rows)
        except Exception as error:
            if self._dialect.is_duplicate(error):
                raise Conflict("a job has two records of one time") from error
            raise

    def lost(
        self, cursor: Cursor, row: RunRow, token: bytes, rows_open: OpenRows, now: datetime
    ) -> None:
        """
        Write the record of a run whose instance was lost, and whose job a user has deleted
        meanwhile. Of a row that can't be understood nothing is written.

        :param row: as a claim has taken it.
        :param token: of that claim.
        :param rows_open: has the open row of the job, if there is one.
        """
        if row.id in rows_open:
            self.close(cursor, [row.id], Result.CANCELLED, now, rows_open)
            return
        if self.mode is HistoryMode.OFF or row.run == token:
            return  # no run was pending: this claim has made it
        read, at = self._dialect.read_instant, version_at(now)
        key = shown_key(row.path, row.body)
        try:
            record = Record(
                run_id=str(RunId(run_token(row.run), row.id)),
                path=key.path,
                body=key.body,
                endpoint=options_of(row.options).endpoint,
                trigger=Cause(row.cause),
                scheduled=read(row.scheduled),
                claimed=read(row.started),
                started=None,
                ended=None,
                lateness_ms=None,
                instance=None,
                result=Result.CANCELLED,
                attempt_count=max(1, row.attempts - (0 if row.disabled else 1)),
            )
            values = _values(record, Shelf.FAILED, at, row.id)
        except (ValueError, TypeError):
            return
        self._insert(cursor, [values])
        run = EndedRun(key.path, record.endpoint, Result.CANCELLED, record.attempt_count)
        self._note(cursor, run, row.id, at)


def _earlier(row: OpenRow, dialect: Dialect) -> Earlier | None:
    """What an open row knows of the attempts before; None if it can't be understood."""
    read = dialect.read_instant
    try:
        more = {} if row.more is None else json.loads(row.more)
        return Earlier(
            claimed=read(row.claimed),
            started=None if row.started is None else read(row.started),
            lateness_ms=_whole(row.lateness),
            trigger=Cause(row.cause),
            attempts=attempts_from_json(more["attempts"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _whole(value: object) -> int:
    """:raises TypeError: if it is no whole number."""
    if not isinstance(value, int):
        raise TypeError(f"{value!r:.40} is no whole number")
    return value


def _is_plain(end: End) -> bool:
    """Whether a run was done at its first attempt, and the columns say all that is known of it."""
    outcome = end.outcome
    return (
        end.run.attempt == 1
        and outcome is not None
        and outcome.saved is None
        and end.run.delivery is PLAIN
        and end.meaning is _SUCCEED
        and end.ended is not None
    )


class _Plain:
    """
    The columns of the records of runs that were done at once, for one transaction. Each run comes
    here, so there are few calls: what is common to many is kept, and a time is put into words by
    the second, which takes a third of the time of `instant_text`.
    """

    def __init__(self, now: datetime, at: int, instance: str) -> None:
        #: The database's time, and the same in microseconds since 1970.
        self._now = now
        self._at = at
        self._instance = instance
        #: By seconds since 1970: the text up to the fraction.
        self._heads: dict[int, str] = {}
        #: By endpoint, status and cause.
        self._shared: dict[tuple[str, int | None, int], SharedValues] = {}
        #: The last claim's time with its text.
        self._claimed: tuple[datetime, str] = (now, instant_text(now))
        #: The last scheduled time, the same in microseconds since 1970, and its text.
        self._scheduled: tuple[datetime, int, str] = (now, at, self._claimed[1])

    def values(self, end: End, row: int) -> RecordValues:
        """
        What `_values` gives of the record of a run that `_is_plain`.

        :param row: the id of the job's row.
        """
        run, outcome, heads = end.run, end.outcome, self._heads
        assert outcome is not None and end.ended is not None
        now, at = self._now, self._at
        ended = at + (end.ended - now) // _MICROSECOND
        started = ended - round(outcome.elapsed * 1e6)
        if run.scheduled != self._scheduled[0]:
            instant = at + (run.scheduled - now) // _MICROSECOND
            self._scheduled = run.scheduled, instant, self._text(*divmod(instant, _SECOND))
        _, since, scheduled_text = self._scheduled
        cause = run.cause
        if cause is not _SCHEDULE or run.waited:
            since = at + (run.late_since - now) // _MICROSECOND
        if cause is _SCHEDULE and started - since > _SECOND and not isinstance(run.schedule, Once):
            cause = cause_of(run, end.ended - timedelta(seconds=outcome.elapsed))
        if run.started is not self._claimed[0]:
            self._claimed = run.started, instant_text(run.started)
        second, fraction = divmod(ended, _SECOND)
        head = heads.get(second)
        ended_text = f"{head}{fraction:06d}" if head else self._text(second, fraction)
        second, fraction = divmod(started, _SECOND)
        head = heads.get(second)
        started_text = f"{head}{fraction:06d}" if head else self._text(second, fraction)
        path, body = run.key
        alike = run.options.endpoint, outcome.status, cause
        return (
            row,
            run.id[:32],
            path,
            path_key(path),
            body,
            job_key(path, body),
            scheduled_text,
            self._claimed[1],
            started_text,
            ended_text,
            (started - since) // 1000,
            self._shared.get(alike) or self._share(*alike),
        )

    def _share(self, endpoint: str, status: int | None, cause: int) -> SharedValues:
        made = self._shared[endpoint, status, cause] = SharedValues(
            failed=int(Shelf.FINE),
            at=self._at,
            endpoint=endpoint,
            cause=int(cause),
            result=_SUCCEEDED.code,
            status=status,
            kind=0,
            attempts=1,
            instance=self._instance,
            error=None,
            more=None,
            answer=None,
        )
        return made

    def _text(self, second: int, fraction: int) -> str:
        head = self._heads.get(second)
        if head is None:
            instant = self._now + (second * _SECOND - self._at) * _MICROSECOND
            head = self._heads[second] = instant_text(instant)[:20]
        return f"{head}{fraction:06d}"


def _values(record: Record, shelf: Shelf, at: int, row: int) -> RecordValues:
    """
    The columns of a record.

    :param at: when it is written; 0 on the shelf OPEN.
    :param row: the id of the job's row.
    """
    kind = record.error_kind
    return (
        row,
        record.run_id[:32],
        record.path,
        path_key(record.path),
        record.body,
        job_key(record.path, record.body),
        instant_text(record.scheduled),
        instant_text(record.claimed),
        None if record.started is None else instant_text(record.started),
        None if record.ended is None else instant_text(record.ended),
        record.lateness_ms or 0,
        SharedValues(
            failed=int(shelf),
            at=at,
            endpoint=record.endpoint,
            cause=int(record.trigger),
            result=None if record.result is None else record.result.code,
            status=record.status,
            kind=0 if kind is None else kind.code,
            attempts=record.attempt_count,
            instance=record.instance or "",
            error=record.error and record.error[:MAX_ERROR],
            more=_more(record),
            answer=_answer(record),
        ),
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
