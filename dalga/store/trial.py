"""
The trial at the start: whether the daemon can write its claims and records. If not, the start says
why, before any job is taken. The trial is one transaction, which its caller rolls back.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from dalga.errors import StartupError
from dalga.model.delivery import Payload, PayloadKind
from dalga.model.job import Job
from dalga.model.key import JobKey
from dalga.model.plan import ScheduleRequest, plan
from dalga.store.clock import SET_BACK, DatabaseClock
from dalga.store.detailsql import DetailStatements
from dalga.store.dialect import Cursor, Dialect, Trouble
from dalga.store.keyed import KeyedRows
from dalga.store.puts import Puts, as_planned
from dalga.store.rows import (
    MAX_COUNT,
    MAX_ERROR,
    MAX_VERSION,
    Override,
    Unreadable,
    read_run,
    run_from_text,
    version_at,
)
from dalga.store.runsql import Ended, FoundRow, Retried, RunStatements
from dalga.store.schema import ACTIONS, ALERTS, AUDIT, EXPECTED, INCIDENTS, RUNS, STATS
from dalga.store.selected import DueRow
from dalga.store.statements import OldKey, Statements
from dalga.store.values import octets

#: The trial's rows are due at this time, far from all other rows.
_TRIAL = datetime(9000, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)

#: Text that a column in another character set, or of another collation, does not keep.
_TEXT = "é\N{SLIGHTLY SMILING FACE}' "


class _Octets(str):
    """Text of a column that is compared as octets."""


class _Sample(NamedTuple):
    """A row of a table that the trial writes to, reads, writes over and removes."""

    suffix: str
    #: The columns of the primary key, as they come first.
    key: dict[str, object]
    others: dict[str, object]


_KEY = _Octets(f"try {_TEXT}")
_TOKEN = bytes(range(16))

#: Of the tables whose rows no other part of the trial writes.
_SAMPLES = (
    _Sample(
        RUNS,
        {"failed": 2, "at": MAX_VERSION, "job": MAX_VERSION},
        {
            "run": _TOKEN,
            "path": _KEY,
            "body": _KEY,
            "pathkey": 1,
            "jobkey": MAX_VERSION,
            "endpoint": _KEY,
            "cause": 3,
            "result": 6,
            "status": 999,
            "kind": 9,
            "scheduled": _TRIAL,
            "claimed": _TRIAL,
            "started": _TRIAL,
            "ended": _TRIAL,
            "lateness": -MAX_VERSION,
            "attempts": MAX_COUNT,
            "instance": _KEY,
            "error": (_TEXT * MAX_ERROR)[:MAX_ERROR],
            "more": _TEXT * MAX_ERROR,
            "answer": _TEXT * MAX_ERROR,
        },
    ),
    _Sample(
        ALERTS,
        {"id": _TOKEN},
        {
            "event": "job.recovered",
            "endpoint": _KEY,
            "path": _KEY,
            "body": _KEY,
            "target": _KEY,
            "made": _TRIAL,
            "due": None,
            "token": _TOKEN,
            "attempts": MAX_COUNT,
            "sent": _TRIAL,
            "error": (_TEXT * MAX_ERROR)[:MAX_ERROR],
            "content": _TEXT * MAX_ERROR,
        },
    ),
    _Sample(INCIDENTS, {"name": _KEY}, {"since": _TRIAL, "instance": _KEY}),
    _Sample(EXPECTED, {"id": MAX_VERSION}, {"path": _KEY, "body": _KEY, "silent": _TRIAL}),
    _Sample(
        STATS,
        {
            "scope": 1,
            "step": 3600,
            "at": _TRIAL,
            "endpoint": _KEY,
            "path": _KEY,
            "result": 6,
            "instance": _KEY,
        },
        {
            "runs": MAX_VERSION,
            "attempts": MAX_VERSION,
            "lateness": _TEXT * MAX_ERROR,
            "duration": _TEXT * MAX_ERROR,
        },
    ),
    _Sample(
        AUDIT,
        {"at": MAX_VERSION, "nonce": MAX_VERSION},
        {
            "author": _KEY,
            "address": _KEY,
            "verb": _Octets("trigger"),
            "path": _KEY,
            "body": _KEY,
            "jobkey": MAX_VERSION,
            "action": _Octets("0" * 26),
            "old": _TEXT * MAX_ERROR,
            "new": _TEXT * MAX_ERROR,
        },
    ),
    _Sample(
        ACTIONS,
        {"id": _Octets("0" * 26)},
        {
            "made": _TRIAL,
            "ended": _TRIAL,
            "due": None,
            "token": _TOKEN,
            "instance": _KEY,
            "request": _TEXT * MAX_ERROR,
            "state": "refused",
            "matched": MAX_VERSION,
            "done": MAX_VERSION,
            "failed": MAX_VERSION,
            "place": _TEXT * MAX_ERROR,
            "error": (_TEXT * MAX_ERROR)[:MAX_ERROR],
        },
    ),
)


class _NotKept(Exception):
    """A value is not read as it was written. The message says which."""


class Trial:
    """
    Puts two jobs with payloads and tags, claims them, records their runs, deletes them, keeps two
    Idempotency-Keys and forgets them, comes and goes as an instance, and writes a row to each other
    table.

    :param rows: reads the two jobs.
    :param puts: writes the two jobs.
    :param token: makes the token of a claim, as the daemon's claims have it.
    """

    def __init__(
        self,
        dialect: Dialect,
        clock: DatabaseClock,
        sql: Statements,
        runsql: RunStatements,
        detailsql: DetailStatements,
        rows: KeyedRows,
        puts: Puts,
        token: Callable[[], bytes],
    ) -> None:
        self._dialect = dialect
        self._clock = clock
        self._sql = sql
        self._runsql = runsql
        self._detailsql = detailsql
        self._rows = rows
        self._puts = puts
        self._token = token

    def run(self, cursor: Cursor) -> None:
        """
        Write in each way in which the daemon will write, into the trial's own rows. No claim finds
        these rows.

        :raises StartupError: with what is in the way: a missing right, a setting of the server, a
            trigger, or a column that keeps another value than was written.
        """
        try:
            self._look_for_set_back(cursor)
            self._write_and_read(cursor)
        except _NotKept as kept:
            raise StartupError(
                f"the table {self._dialect.table} in {self._dialect.where()} does not keep what is "
                f"written to it ({kept}), as a trigger or another type of a column may have it: "
                "compare its definition with that of a new one"
            ) from None
        except Exception as error:
            trouble = self._dialect.trouble(error)
            if trouble in (Trouble.BUSY, Trouble.CONFLICT):
                return  # another session, such as a backup, has locked the table for a while
            words = self._dialect.explain_write(error)
            if words is None:
                raise
            raise StartupError(words) from error

    def _look_for_set_back(self, cursor: Cursor) -> None:
        """Whether the clock was set back while no daemon was there to see it."""
        late = self._dialect.instant(self._clock.now() + SET_BACK)
        ((ahead,),) = self._sql.count_ahead.fetch(cursor, seen=late)
        if ahead and not self._clock.set_backs:
            self._clock.set_backs += 1

    def _write_and_read(self, cursor: Cursor) -> None:
        """:raises _NotKept: as all that it calls."""
        token = self._token()
        name = f"try {token.hex()}"
        keys = [JobKey(name, f"{_TEXT}{body}") for body in "aA"]  # two, for bytes are compared
        self._put(cursor, keys)
        rows = self._find(cursor, keys)
        wanted = [len(keys)] * 6 + [2 * len(keys)]
        changed = [
            self._claim(cursor, rows, token),
            self._fail(cursor, keys, rows, token),
            self._delete(cursor, rows, token),
            self._come_and_go(cursor, name) * len(keys),
            self._keep(cursor, keys),
            *self._forget(cursor, rows),
        ]
        for sample in _SAMPLES:
            self._write_sample(cursor, sample)
        if changed != wanted:
            raise _NotKept(f"of {wanted} rows {changed} are said to be changed")

    def _put(self, cursor: Cursor, keys: list[JobKey]) -> None:
        """Write jobs, write over them, and read them."""
        request = ScheduleRequest(
            one_off=True,
            first_run=_TRIAL,
            payload_base64=Payload(bytes(range(256)), PayloadKind.BASE64),
            tags=(f"{_TEXT}a", f"{_TEXT}A"),  # two, for bytes are compared
            description=_TEXT,
        )
        planned = plan(request, _TRIAL)
        plans = dict.fromkeys(keys, planned)
        for _ in range(2):
            self._puts.upsert(cursor, plans, _TRIAL)
            self._puts.settle(cursor, plans, (), _TRIAL)
        expected = {key: as_planned(key, planned, _TRIAL) for key in keys}
        found = dict(self._rows.read_rows(cursor, keys, _TRIAL))
        versions = {job.version for job in found.values() if isinstance(job, Job)}
        if found != expected or versions != {version_at(_TRIAL) + 1}:
            raise _NotKept("two jobs are not read as they were put")

    def _find(self, cursor: Cursor, keys: list[JobKey]) -> list[int]:
        """Lock the jobs' rows, and give their ids."""
        rows = [row.id for _, row in self._rows.select(cursor, self._sql.find_all, keys)]
        self._rows.lock(cursor, keys)
        return rows

    def _claim(self, cursor: Cursor, rows: list[int], token: bytes) -> int:
        """
        Claim rows, and read them.

        :return: how many rows the driver says were changed.
        """
        dialect, sql = self._dialect, self._runsql
        find = sql.find_due(without=False)
        find.fetch(cursor, limit=0)  # no job's row is to be locked
        changed = self._take_odd(cursor, rows, token)
        try:
            for row in sql.read_taken.fetch(cursor, rows, token=token):
                before = DueRow(
                    row.id, row.scheduled, Override.NONE, token, row.options, row.extras
                )
                run = read_run(row, before, token, _TRIAL, 0.0, 0.0, dialect.read_instant)
                if run.started != _TRIAL:
                    raise _NotKept("a claim does not read what it wrote")
        except Unreadable as problem:
            raise _NotKept(str(problem)) from None
        return changed

    def _take_odd(self, cursor: Cursor, rows: list[int], token: bytes) -> int:
        """Take rows as a claim takes odd ones, and those of an engine with one writer."""
        at = self._dialect.instant(_TRIAL)
        return self._runsql.take.execute(cursor, rows, now=at, token=token, lease_ends=at)

    def _take_found(self, cursor: Cursor, rows: list[int], token: bytes) -> int:
        """
        Read rows as a claim finds them, and take them as it takes most rows.

        :return: how many rows the driver says were changed.
        """
        found = self._runsql.read_found.fetch(cursor, rows)
        if not all(run_from_text(row, token, _TRIAL, 0.0, 0.0, {}) for row in found):
            raise _NotKept("a claim can't read the text of a row")
        if self._dialect.one_writer:
            return self._take_odd(cursor, rows, token)
        at = self._dialect.instant(_TRIAL)
        compared = [FoundRow(row.id, row.columns) for row in found]
        take = self._runsql.take_found
        return take.execute(cursor, compared, now=at, token=token, lease_ends=at)

    def _fail(self, cursor: Cursor, keys: list[JobKey], rows: list[int], token: bytes) -> int:
        """
        Record that runs have failed, and claim the rows again.

        :return: how many rows the driver says the record has changed.
        """
        self._runsql.read_leases.fetch(cursor, rows)
        at = self._dialect.instant(_TRIAL)
        error = (_TEXT * MAX_ERROR)[:MAX_ERROR]
        ends = [Retried(row, token, next_due=at, last_error=error, open_bit=0) for row in rows]
        changed = self._runsql.retry_rows.execute(cursor, ends)
        if self._take_found(cursor, rows, token) != len(rows):
            raise _NotKept("a claim does not find the rows again that it has read")
        found = [job for _, job in self._rows.read_rows(cursor, keys, _TRIAL)]
        if [job.error for job in found if isinstance(job, Job)] != [error] * len(keys):
            raise _NotKept("the error of a run is not read as it was written")
        return changed

    def _delete(self, cursor: Cursor, rows: list[int], token: bytes) -> int:
        return self._runsql.delete_rows.execute(cursor, [Ended(row, token) for row in rows])

    def _forget(self, cursor: Cursor, rows: list[int]) -> list[int]:
        """Remove what the jobs have in other tables."""
        sql = self._detailsql
        return [each.execute(cursor, rows) for each in (sql.delete_details, sql.delete_tags)]

    def _keep(self, cursor: Cursor, keys: list[JobKey]) -> int:
        """
        Keep an Idempotency-Key for each job, read it, use it again, and remove it.

        :return: how many rows the removal removed.
        """
        sql, at = self._sql, self._dialect.instant(_TRIAL)
        kept = []
        for key in keys:
            path, body = self._rows.key(key)
            where = {"path": path, "idempotency": body}
            values = {"digest": bytes(range(32)), "body": body, "version": MAX_VERSION, "made": at}
            sql.keep_key.execute(cursor, **where, **values)
            sql.renew_key.execute(cursor, found=at, **where, **values)
            ((digest, name, version, made),) = sql.find_key.fetch(cursor, **where)
            read = bytes(digest), octets(name), version, self._dialect.read_instant(made)
            if read != (bytes(range(32)), octets(body), MAX_VERSION, _TRIAL):
                raise _NotKept("an Idempotency-Key is not read as it was written")
            kept.append(OldKey(path, body))
        return sql.forget_keys.execute(cursor, kept, before=at)

    def _come_and_go(self, cursor: Cursor, name: str) -> int:
        """
        Enter an instance in the instance table twice, and remove it.

        :return: how many rows the removal removed.
        """
        id, at = self._dialect.key(name), self._dialect.instant(_TRIAL)
        for _ in range(2):
            self._sql.announce.execute(cursor, id=id, seen=at, since=at, about=_TEXT)
        return self._sql.depart.execute(cursor, id=id)

    def _write_sample(self, cursor: Cursor, sample: _Sample) -> None:
        """
        Insert a row, write over it, read and remove it.

        :raises _NotKept: if it is not read as it was written.
        """
        dialect = self._dialect
        table = dialect.named(sample.suffix)
        row = sample.key | sample.others
        values = {name: self._given(value) for name, value in row.items()}
        places = ", ".join(f"%({name})s" for name in row)
        where = " AND ".join(f"{name} = %({name})s" for name in sample.key)
        key = {name: values[name] for name in sample.key}
        last = next(reversed(row))
        dialect.prepare(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})").execute(
            cursor, **values
        )
        # What a trigger has made of the value is not to be covered up.
        dialect.prepare(f"UPDATE {table} SET {last} = {last} WHERE {where}").execute(cursor, **key)
        read = dialect.prepare(f"SELECT {', '.join(row)} FROM {table} WHERE {where}")
        read.execute(cursor, **key)
        (found,) = cursor.fetchall()
        for (name, value), column in zip(row.items(), found, strict=True):
            if self._read(value, column) != value:
                raise _NotKept(f"the column {name} of {table} is not read as it was written")
        if dialect.prepare(f"DELETE FROM {table} WHERE {where}").execute(cursor, **key) != 1:
            raise _NotKept(f"a row of {table} is not removed")

    def _given(self, value: object) -> object:
        """A value of a sample as a parameter."""
        if isinstance(value, datetime):
            return self._dialect.instant(value)
        return self._dialect.key(value) if isinstance(value, _Octets) else value

    def _read(self, value: object, column: Any) -> object:
        """
        A column, of the type that a value of a sample has.

        :raises _NotKept: if the column has no such value.
        """
        try:
            if isinstance(value, datetime):
                return self._dialect.read_instant(column)
            if isinstance(value, str):
                return octets(column).decode()
            return bytes(column) if isinstance(value, bytes) else column
        except (ValueError, TypeError) as problem:
            raise _NotKept(str(problem)) from None
