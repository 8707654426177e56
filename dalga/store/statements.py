"""
The SQL of the jobs table and of the table of instances, as all engines take it.

A statement about a number of rows is a method, as its text grows with that number. Every other
statement is made once for a dialect. This module runs no statement.

One trap decides the order of some SET lists. MySQL assigns from left to right, so that a later
expression sees an earlier column's new value; SQLite, as the standard has it, shows old values
only. Where both have to come to the same, ``token`` stands first, then ``superseded``, then
``due``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from dalga.model.job import Failed
from dalga.store.dialect import Dialect
from dalga.store.rows import MAX_COUNT, Override

#: Makes the statement that does something to so many rows.
Batch = Callable[[int], str]

#: A run of the job is under way. The parameter is the database's time.
LEASED = "token IS NOT NULL AND due > %s"

#: Which row it is, and behind that the columns of `JobRow`, in its order.
COLUMNS = """
                id, path, body, schedule, location, options, anchor, scheduled, due, attempts,
                error, successes, skipped, failed, disabled, token, superseded"""

#: The job's schedule is a calendar (P1M) or a cron expression, which have times of their own. For
#: all others a trigger is where elapsed time is counted from.
BY_THE_CLOCK = (
    "(INSTR(schedule, ' ') > 0 OR SUBSTR(schedule, 1, 1) = 'P' AND SUBSTR(schedule, 2, 1) <> 'T')"
)

#: The row of a job that is as a PUT has read it.
AS_FOUND = f"""
            WHERE path = %s AND body = %s AND schedule = %s AND location = %s AND options = %s
            AND disabled = %s AND superseded <> {Override.DELETED}"""

#: The row that a claim has taken.
MINE = "WHERE id = %s AND token = %s"


class Statements:
    """The SQL for one dialect. Parameters stand in the order in which a statement has them."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._table = dialect.table

    # What the API reads

    def get(self, count: int) -> str:
        return self._dialect.prepare(f"""
            SELECT {COLUMNS} FROM {self._table}
            WHERE superseded <> {Override.DELETED} AND ({_any_key(count)})
            """)

    def page(self, condition: str) -> str:
        dialect = self._dialect
        return dialect.prepare(f"""
            SELECT {dialect.is_blob("path")}, {dialect.is_blob("body")}, {COLUMNS}
            FROM {self._table}{dialect.by_key} WHERE superseded <> {Override.DELETED} {condition}
            ORDER BY path, body LIMIT %s
            """)

    def find_all(self, count: int) -> str:
        return self._dialect.prepare(f"""
            SELECT id, path, body FROM {self._table} WHERE {_any_key(count)}
            """)

    def find_rows(self, count: int) -> str:
        return self._dialect.prepare(f"""
            SELECT {COLUMNS} FROM {self._table} WHERE {_any_key(count)}
            """)

    @cached_property
    def find(self) -> str:
        return self._dialect.prepare(f"""
            SELECT id FROM {self._table}
            WHERE path = %s AND body = %s AND superseded <> {Override.DELETED}
            """)

    @cached_property
    def counts(self) -> str:
        # By id, the one order in which no row moves while others are counted.
        return self._dialect.prepare(f"""
            SELECT (SELECT COUNT(*) FROM {self._dialect.heartbeats} WHERE seen > %s),
                   (SELECT MIN(due) FROM {self._table}{self._dialect.by_due} WHERE due <= %s),
                   COUNT(*), COUNT(is_pending), COUNT(is_set_aside), COUNT(is_running), MAX(id)
            FROM (
                SELECT id,
                    CASE WHEN due <= %s THEN 1 END AS is_pending,
                    CASE WHEN due IS NULL AND disabled = 0 AND failed <> {Failed.STOPPED}
                        THEN 1 END AS is_set_aside,
                    CASE WHEN {LEASED} AND due <= %s THEN 1 END AS is_running
                FROM {self._table}{self._dialect.by_id} WHERE id > %s ORDER BY id LIMIT %s
            ) AS counted
            """)

    @cached_property
    def now(self) -> str:
        return self._dialect.prepare(self._dialect.now)

    # What a PUT writes

    def put(self, count: int) -> str:
        return self._dialect.prepare(self._insert(count) + self._upsert)

    def add(self, count: int) -> str:
        unless_there = (
            f" {self._dialect.on_conflict('path, body')} disabled = {self._table}.disabled"
        )
        return self._dialect.prepare(self._insert(count) + unless_there)

    def _insert(self, count: int) -> str:
        rows = ", ".join([f"({_places(8)})"] * count)
        return f"""
            INSERT INTO {self._table}
                (path, body, schedule, location, options, anchor, scheduled, due)
            VALUES {rows}"""

    @cached_property
    def _upsert(self) -> str:
        new = self._dialect.proposed
        return f"""
            {self._dialect.on_conflict("path, body")}
                token = CASE WHEN due > %s THEN token END,
                superseded = CASE WHEN {LEASED} THEN
                    CASE {new("scheduled")} WHEN %s
                    THEN {Override.RUN_NOW} ELSE {Override.RESCHEDULED} END
                    ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due ELSE {new("due")} END,
                schedule = {new("schedule")}, location = {new("location")},
                options = {new("options")}, anchor = {new("anchor")},
                scheduled = {new("scheduled")},
                run = NULL, started = NULL, attempts = 0, error = NULL,
                successes = 0, skipped = 0, failed = {Failed.NO}, disabled = 0
            """

    def lock(self, count: int) -> str:
        # By the index of keys, as everybody else who goes by a key: no deadlocks.
        return self._dialect.prepare(f"""
            SELECT id, path, body FROM {self._table}{self._dialect.by_key}
            WHERE {_any_key(count)}{self._dialect.skip_locked}
            """)

    @cached_property
    def amend(self) -> str:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                schedule = %s, location = %s, options = %s {AS_FOUND}
            AND scheduled = %s
            """)

    @cached_property
    def hold(self) -> str:
        """Changes nothing: compares, and locks where there are locks."""
        return self._dialect.prepare(
            f"UPDATE {self._table}{self._dialect.by_key} SET disabled = disabled {AS_FOUND}"
        )

    @cached_property
    def hold_deleted(self) -> str:
        """The same as `hold` for a job that was deleted during a run."""
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET disabled = disabled
            WHERE path = %s AND body = %s AND superseded = {Override.DELETED}
            """)

    # What else a user does to a job

    @cached_property
    def trigger(self) -> str:
        # A run that the job has stopped on is run again, as the same; else it is a new one.
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                token = CASE WHEN due > %s THEN token END,
                superseded = CASE WHEN {LEASED} THEN
                    CASE WHEN superseded IN ({Override.RESCHEDULED}, {Override.RUN_NOW})
                    THEN {Override.RUN_NOW} ELSE {Override.TRIGGERED} END
                    ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due ELSE %s END,
                anchor = CASE WHEN failed = {Failed.STOPPED} OR {BY_THE_CLOCK}
                    THEN anchor ELSE %s END,
                scheduled = CASE failed WHEN {Failed.STOPPED} THEN scheduled ELSE %s END,
                run = CASE failed WHEN {Failed.STOPPED} THEN run END,
                attempts = CASE failed WHEN {Failed.STOPPED} THEN attempts ELSE 0 END,
                error = CASE failed WHEN {Failed.CONTINUED} THEN error END,
                started = NULL,
                failed = CASE failed WHEN {Failed.STOPPED} THEN {Failed.NO} ELSE failed END
            WHERE path = %s AND body = %s AND superseded <> {Override.DELETED} AND disabled = 0
            """)

    @cached_property
    def enable(self) -> str:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                token = CASE WHEN due > %s THEN token END,
                superseded = CASE WHEN {LEASED} THEN superseded ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due
                    WHEN failed <> {Failed.STOPPED} THEN scheduled END,
                started = CASE WHEN {LEASED} THEN started END,
                disabled = 0
            WHERE path = %s AND body = %s AND superseded <> {Override.DELETED} AND disabled <> 0
            """)

    @cached_property
    def disable(self) -> str:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                token = CASE WHEN due > %s THEN token END,
                superseded = CASE WHEN {LEASED} THEN superseded ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due END,
                disabled = 1
            WHERE path = %s AND body = %s AND superseded <> {Override.DELETED}
            """)

    @cached_property
    def delete_idle(self) -> str:
        return self._dialect.prepare(f"""
            DELETE FROM {self._table} WHERE path = %s AND body = %s
            AND (token IS NULL OR due IS NULL OR due <= %s)
            """)

    @cached_property
    def delete_leased(self) -> str:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET superseded = {Override.DELETED}
            WHERE path = %s AND body = %s AND {LEASED}
            """)

    # What a claim does

    def due_within(self, without: int) -> str:
        # The time is there also where nothing is due.
        return self._dialect.prepare(f"""
            SELECT (SELECT UTC_TIMESTAMP(6)), due
            FROM (SELECT 1) AS one LEFT JOIN (
                SELECT due FROM {self._table}
                WHERE due <= %s {_without(without)} ORDER BY due LIMIT %s
            ) AS dues ON TRUE
            """)

    def find_due(self, without: int) -> str:
        return self._dialect.prepare(f"""
            SELECT id, due, superseded FROM {self._table}{self._dialect.by_due}
            WHERE due <= %s {_without(without)} ORDER BY due, id LIMIT %s{self._dialect.skip_locked}
            """)

    def take(self, count: int) -> str:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_id} SET
                due = %s, token = %s, run = COALESCE(run, %s), started = COALESCE(started, %s),
                attempts = CASE WHEN disabled = 0 AND attempts < {MAX_COUNT}
                    THEN attempts + 1 ELSE attempts END,
                superseded = CASE superseded WHEN {Override.DELETED}
                    THEN {Override.DELETED} ELSE {Override.NONE} END
            WHERE id IN ({_places(count)}) AND due <= %s
            """)

    def read_taken(self, count: int) -> str:
        return self._dialect.prepare(f"""
            SELECT id, path, body, schedule, location, options, anchor, scheduled,
                run, started, attempts, successes, skipped, failed, superseded, disabled
            FROM {self._table} WHERE id IN ({_places(count)}) AND token = %s
            """)

    @cached_property
    def drop(self) -> str:
        return self._dialect.prepare(f"DELETE FROM {self._table} {MINE}")

    @cached_property
    def set_aside(self) -> str:
        return self._dialect.prepare(f"""
            UPDATE {self._table} SET error = %s, token = NULL, due = NULL,
                run = NULL, started = NULL, attempts = 0, failed = {Failed.NO}, disabled = 0 {MINE}
            """)

    @cached_property
    def postpone(self) -> str:
        return self._dialect.prepare(f"""
            UPDATE {self._table} SET due = scheduled, token = NULL,
                run = NULL, started = NULL, attempts = 0 {MINE}
            """)

    @cached_property
    def park(self) -> str:
        """Disabled during a run of which nothing was heard."""
        return self._dialect.prepare(f"UPDATE {self._table} SET due = NULL, token = NULL {MINE}")

    # What a record reads

    def read_leases(self, count: int) -> str:
        return self._dialect.prepare(f"""
            SELECT id, token, superseded, options FROM {self._table}{self._dialect.by_id}
            WHERE id IN ({_places(count)}){self._dialect.skip_locked}
            """)

    def read_tokens(self, count: int) -> str:
        return self._dialect.prepare(
            f"SELECT id, token FROM {self._table} WHERE id IN ({_places(count)})"
        )

    def read_marks(self, count: int) -> str:
        return self._dialect.prepare(f"""
            SELECT id, token, run, attempts, error, failed
            FROM {self._table} WHERE id IN ({_places(count)})
            """)

    # What the end of a run writes. A job that was disabled meanwhile is due no more (P4). No value
    # may rest on a column that is assigned beside it: in an UPDATE of several tables, as this is
    # one for MySQL, nobody knows which comes first.

    def delete_rows(self, count: int) -> str:
        return self._dialect.delete_rows(f"superseded = {Override.NONE}", count)

    def bury_rows(self, count: int) -> str:
        return self._dialect.delete_rows(f"superseded = {Override.DELETED}", count)

    def reschedule_rows(self, count: int) -> str:
        return self._dialect.update_rows(
            ("next_scheduled", "next_anchor", "next_due", "last_error"),
            f"due = {_unless_disabled('next_due')}, scheduled = next_scheduled, "
            "anchor = next_anchor, token = NULL, run = NULL, started = NULL, attempts = 0, "
            f"successes = CASE WHEN last_error IS NULL AND successes < {MAX_COUNT} "
            "THEN successes + 1 ELSE successes END, "
            "error = last_error, "
            f"failed = CASE WHEN last_error IS NULL THEN {Failed.NO} ELSE {Failed.CONTINUED} END",
            f"superseded = {Override.NONE}",
            count,
        )

    def skip_rows(self, count: int) -> str:
        return self._dialect.update_rows(
            ("next_scheduled",),
            f"due = {_unless_disabled('next_scheduled')}, scheduled = next_scheduled, "
            "token = NULL, run = NULL, started = NULL, attempts = 0, "
            f"skipped = CASE WHEN skipped < {MAX_COUNT} THEN skipped + 1 ELSE skipped END",
            f"superseded = {Override.NONE}",
            count,
        )

    def retry_rows(self, count: int) -> str:
        return self._dialect.update_rows(
            ("next_due", "last_error"),
            f"due = {_unless_disabled('next_due')}, error = last_error, token = NULL",
            f"superseded = {Override.NONE}",
            count,
        )

    def stop_rows(self, count: int) -> str:
        return self._dialect.update_rows(
            ("last_error",),
            f"due = NULL, error = last_error, token = NULL, failed = {Failed.STOPPED}",
            f"superseded = {Override.NONE}",
            count,
        )

    def give_back_rows(self, count: int) -> str:
        return self._dialect.update_rows(
            ("attempts_before", "due_before", "override_before"),
            f"due = {_unless_disabled('due_before')}, token = NULL, attempts = attempts_before, "
            "superseded = override_before, "
            "started = CASE WHEN attempts_before > 0 THEN started END",
            f"superseded = {Override.NONE}",
            count,
        )

    def yield_rows(self, count: int) -> str:
        return self._dialect.update_rows(
            ("override_read", "next_due", "override_kept", "succeeded"),
            f"due = {_unless_disabled('COALESCE(next_due, scheduled)')}, token = NULL, "
            "superseded = override_kept, "
            f"successes = CASE WHEN successes < {MAX_COUNT} "
            "THEN successes + succeeded ELSE successes END",
            "superseded = override_read",
            count,
        )

    # What a correction does, after the clock was set back

    @cached_property
    def ahead(self) -> str:
        return self._dialect.prepare(f"""
            SELECT {COLUMNS} FROM {self._table}{self._dialect.by_due}
            WHERE due >= %s AND (due > %s OR id > %s) ORDER BY due, id LIMIT %s
            """)

    @cached_property
    def correct(self) -> str:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_id} SET anchor = %s, scheduled = %s, due = %s
            WHERE id = %s AND due = %s AND scheduled = %s AND anchor = %s
            """)

    # The table of instances

    @cached_property
    def announce(self) -> str:
        return self._dialect.prepare(f"""
            INSERT INTO {self._dialect.heartbeats} (id, seen) VALUES (%s, %s)
            {self._dialect.on_conflict("id")} seen = {self._dialect.proposed("seen")}
            """)

    @cached_property
    def depart(self) -> str:
        return self._dialect.prepare(f"DELETE FROM {self._dialect.heartbeats} WHERE id = %s")

    @cached_property
    def forget(self) -> str:
        return self._dialect.prepare(f"DELETE FROM {self._dialect.heartbeats} WHERE seen <= %s")

    @cached_property
    def count_gone(self) -> str:
        return self._dialect.prepare(
            f"SELECT COUNT(*) FROM {self._dialect.heartbeats} WHERE seen <= %s"
        )

    @cached_property
    def count_ahead(self) -> str:
        return self._dialect.prepare(
            f"SELECT COUNT(*) FROM {self._dialect.heartbeats} WHERE seen > %s"
        )


def _unless_disabled(due: str) -> str:
    return f"CASE disabled WHEN 0 THEN {due} END"


def _any_key(count: int) -> str:
    return " OR ".join(["path = %s AND body = %s"] * count)


def _without(paths: int) -> str:
    return f"AND path NOT IN ({_places(paths)})" if paths else ""


def _places(count: int) -> str:
    return ", ".join(["%s"] * count)
