"""
The trial at the start: a daemon that could not write its claims and records is told so before it
takes a job. All of it is one transaction, to be rolled back by its caller.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from dalga.errors import StartupError
from dalga.model.job import Job
from dalga.model.key import JobKey
from dalga.model.plan import ScheduleRequest, plan
from dalga.store.clock import SET_BACK, DatabaseClock
from dalga.store.dialect import Cursor, Dialect, Trouble
from dalga.store.jobs import Jobs, as_planned
from dalga.store.rows import MAX_ERROR, Override, RunRow, Unreadable, read_run
from dalga.store.statements import Statements

#: When the rows are due that the start tries to write: far from all other rows. And a time before
#: which no row is due.
_TRIAL = datetime(9000, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
_LONG_AGO = datetime(1000, 1, 1, tzinfo=UTC)


class Trial:
    """
    :param jobs: writes and reads the jobs that are tried.
    :param token: as the daemon's claims have it.
    """

    def __init__(
        self,
        dialect: Dialect,
        clock: DatabaseClock,
        sql: Statements,
        jobs: Jobs,
        token: Callable[[], bytes],
    ) -> None:
        self._dialect = dialect
        self._clock = clock
        self._sql = sql
        self._jobs = jobs
        self._token = token

    def run(self, cursor: Cursor) -> None:
        """
        Write, in each way that the daemon will, into rows of its own that no claim finds.

        :raises StartupError: with what is in the way: a right that is missing, a setting of the
            server's, a trigger, or columns that keep something else than what was written.
        """
        try:
            self._look_for_set_back(cursor)
            kept = self._write_and_read(cursor)
        except Exception as error:
            trouble = self._dialect.trouble(error)
            if trouble in (Trouble.BUSY, Trouble.CONFLICT):
                return  # locked by somebody, such as a backup: that will be over
            words = self._dialect.explain_write(error)
            if words is None:
                raise
            raise StartupError(words) from error
        if kept is not None:
            raise StartupError(
                f"the table {self._dialect.table} in {self._dialect.where()} does not keep what is "
                f"written to it ({kept}), as a trigger or another type of a column may have it: "
                "compare its definition with that of a new one"
            )

    def _look_for_set_back(self, cursor: Cursor) -> None:
        """Whether the clock was set back while no daemon was there to see it."""
        late = self._dialect.instant(self._clock.now() + SET_BACK)
        cursor.execute(self._sql.count_ahead, (late,))
        ((ahead,),) = cursor.fetchall()
        if ahead and not self._clock.set_backs:
            self._clock.set_backs += 1

    def _write_and_read(self, cursor: Cursor) -> str | None:
        """The trial itself. Gives in words what is not read as it was written; None if all is."""
        dialect, sql, token = self._dialect, self._sql, self._token()
        name, text = f"try {token.hex()}", "é\N{SLIGHTLY SMILING FACE}' "
        keys = [JobKey(name, f"{text}{body}") for body in "aA"]  # two, for bytes are compared
        instant = _TRIAL
        planned = plan(ScheduleRequest(one_off=True, first_run=instant), instant)
        for _ in range(2):
            self._jobs.upsert(cursor, dict.fromkeys(keys, planned), instant)
        expected = {key: as_planned(key, planned) for key in keys}
        if dict(self._jobs.read_rows(cursor, keys, _TRIAL)) != expected:
            return "two jobs are not read as they were put"
        parts = [part for key in keys for part in self._jobs.key(key)]
        cursor.execute(sql.find_all(len(keys)), parts)
        rows = [row[0] for row in cursor.fetchall()]
        self._jobs.lock(cursor, keys)
        at = dialect.instant(instant)
        cursor.execute(sql.find_due(0), (dialect.instant(_LONG_AGO), 1))
        cursor.execute(sql.take(len(rows)), (at, token, token, at, *rows, at))
        counts = [cursor.rowcount]
        cursor.execute(sql.read_taken(len(rows)), (*rows, token))
        try:
            for row in cursor.fetchall():
                columns = RunRow(*(*row, row[7], Override.NONE))
                run = read_run(columns, token, instant, 0.0, dialect.read_instant)
                if run.started != instant:
                    return "a claim does not read what it wrote"
        except Unreadable as problem:
            return str(problem)
        cursor.execute(sql.read_leases(len(rows)), rows)
        error = (text * MAX_ERROR)[:MAX_ERROR]
        ends = [value for row in rows for value in (row, token, at, error)]
        cursor.execute(sql.retry_rows(len(rows)), ends)
        counts.append(cursor.rowcount)
        cursor.execute(sql.take(len(rows)), (at, token, token, at, *rows, at))
        found = [job for _, job in self._jobs.read_rows(cursor, keys, instant)]
        if [job.error for job in found if isinstance(job, Job)] != [error] * len(keys):
            return "the error of a run is not read as it was written"
        cursor.execute(sql.delete_rows(len(rows)), [v for row in rows for v in (row, token)])
        counts.append(cursor.rowcount)
        for _ in range(2):
            cursor.execute(sql.announce, (dialect.key(name), at))
        cursor.execute(sql.depart, (dialect.key(name),))
        counts.append(cursor.rowcount * len(keys))
        return None if counts == [len(keys)] * 4 else f"of 2 rows {counts} are said to be changed"
