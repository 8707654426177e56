"""
The SQL of what users do to jobs and see of them, of Idempotency-Keys, and of instances, as all
engines take it. `dalga.store.runsql` has the SQL of runs, and `dalga.store.detailsql` that of
details and tags.

Each statement is made once for a dialect; `dalga.store.parameters` says how its parameters are
written and given. The NamedTuples here are the rows of values that a statement takes. This module
executes no statement.

One trap decides the order of some SET lists. MySQL assigns from left to right, so that a later
expression sees an earlier column's new value. SQLite, like the standard, shows old values only. For
the same result on both, ``token`` stands first, then ``override``, then ``due``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from dalga.model.job import AT_REST, Standing
from dalga.model.run import Cause
from dalga.store.dialect import Dialect
from dalga.store.extras import OPEN, STALE
from dalga.store.parameters import R, Select, Statement, columns
from dalga.store.rows import MAX_VERSION, Override
from dalga.store.schema import KEYS
from dalga.store.selected import (
    CountsRow,
    InstanceRow,
    InstancesRow,
    JobRow,
    KeptRow,
    KeyRow,
    NowRow,
    NumberRow,
)

#: A run of the job is under way.
LEASED = "token IS NOT NULL AND due > %(now)s"

#: The job waits for a user, and has no due time.
RESTS = f"(standing IN ({', '.join(str(int(each)) for each in AT_REST)}))"

#: The job's schedule is a calendar (P1M) or a cron expression, which have times of their own. For
#: all others a trigger is where elapsed time is counted from.
BY_THE_CLOCK = (
    "(INSTR(schedule, ' ') > 0 OR SUBSTR(schedule, 1, 1) = 'P' AND SUBSTR(schedule, 2, 1) <> 'T')"
)

#: The row of a job that is as a PUT has read it.
AS_FOUND = f"""
            WHERE path = %(path)s AND body = %(body)s
            AND schedule = %(found_schedule)s
            AND location = %(found_location)s
            AND options = %(found_options)s
            AND disabled = %(found_disabled)s
            AND version = %(found_version)s
            AND extras = %(found_extras)s
            AND override <> {Override.DELETED}"""

#: The row of a job that the user has not deleted.
BY_KEY = f"WHERE path = %(path)s AND body = %(body)s AND override <> {Override.DELETED}"

#: The rows of jobs, by `KeyValues`.
ANY_KEY = "[path = %(path)s AND body = %(body)s OR ...]"


class KeyValues(NamedTuple):
    """The job's key."""

    path: Any
    body: Any


class OldKey(NamedTuple):
    """A row of the table of keys."""

    path: Any
    idempotency: Any


class NewRow(NamedTuple):
    """A row for a job; each field is a column."""

    path: Any
    body: Any
    schedule: Any
    location: Any
    options: Any
    anchor: Any
    scheduled: Any
    due: Any
    version: Any
    extras: Any


class Statements:
    """The SQL for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._table = dialect.table
        self._keys = dialect.named(KEYS)

    # What the API reads

    @cached_property
    def get(self) -> Select[JobRow]:
        return self._select(
            JobRow,
            f"""
            SELECT {columns(JobRow)} FROM {self._table}
            WHERE override <> {Override.DELETED} AND ({ANY_KEY})
            """,
        )

    @cached_property
    def find_all(self) -> Select[KeyRow]:
        return self._select(KeyRow, f"SELECT {columns(KeyRow)} FROM {self._table} WHERE {ANY_KEY}")

    @cached_property
    def find_rows(self) -> Select[JobRow]:
        return self._select(JobRow, f"SELECT {columns(JobRow)} FROM {self._table} WHERE {ANY_KEY}")

    @cached_property
    def counts(self) -> Select[CountsRow]:
        # By id, the one order in which no row moves while others are counted.
        dialect = self._dialect
        return self._select(
            CountsRow,
            f"""
            SELECT
                (SELECT COUNT(*) FROM {dialect.heartbeats} WHERE seen > %(alive)s) AS instances,
                (SELECT MIN(due) FROM {self._table}{dialect.by_due} WHERE due <= %(now)s) AS oldest,
                COUNT(*) AS total,
                COUNT(is_pending) AS pending,
                COUNT(is_set_aside) AS set_aside,
                COUNT(is_running) AS running,
                MAX(id) AS last
            FROM (
                SELECT id,
                    CASE WHEN due <= %(now)s THEN 1 END AS is_pending,
                    CASE WHEN due IS NULL AND disabled = 0 AND NOT {RESTS}
                        THEN 1 END AS is_set_aside,
                    CASE WHEN {LEASED} AND due <= %(last_lease)s THEN 1 END AS is_running
                FROM {self._table}{dialect.by_id}
                WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
            ) AS counted
            """,
        )

    @cached_property
    def now(self) -> Select[NowRow]:
        return self._select(NowRow, self._dialect.now)

    # What a PUT writes

    @cached_property
    def put(self) -> Statement:
        return self._dialect.prepare(self._insert + self._upsert)

    @cached_property
    def add(self) -> Statement:
        unless_there = (
            f" {self._dialect.on_conflict('path, body')} disabled = {self._table}.disabled"
        )
        return self._dialect.prepare(self._insert + unless_there)

    @property
    def _insert(self) -> str:
        values = ", ".join(f"%({name})s" for name in NewRow._fields)
        return f"""
            INSERT INTO {self._table} ({", ".join(NewRow._fields)}) VALUES [({values}), ...]"""

    @property
    def _upsert(self) -> str:
        new = self._dialect.proposed
        return f"""
            {self._dialect.on_conflict("path, body")}
                token = CASE WHEN due > %(now)s THEN token END,
                override = CASE WHEN {LEASED} THEN
                    CASE {new("scheduled")} WHEN %(now)s
                    THEN {Override.RUN_NOW} ELSE {Override.RESCHEDULED} END
                    ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due ELSE {new("due")} END,
                schedule = {new("schedule")},
                location = {new("location")},
                options = {new("options")},
                anchor = {new("anchor")},
                scheduled = {new("scheduled")},
                run = NULL,
                started = NULL,
                attempts = 0,
                error = NULL,
                successes = 0,
                skipped = 0,
                standing = {Standing.SOUND},
                disabled = 0,
                cause = {Cause.SCHEDULE},
                version = {self._newer(new("version"))},
                extras = {self._marked(new("extras"))}
            """

    @staticmethod
    def _newer(version: str) -> str:
        """An expression: the version of a job that is written over."""
        return f"""CASE WHEN version >= {version} AND version < {MAX_VERSION}
                    THEN version + 1 ELSE {version} END"""

    @staticmethod
    def _marked(extras: str) -> str:
        """An expression: the extras of a job that is written over, until `unmark`."""
        return f"""CASE WHEN extras IN (0, {OPEN}) THEN {extras} | extras
                    ELSE {extras} | {STALE} | (extras & {OPEN}) END"""

    @cached_property
    def lock(self) -> Select[KeyRow]:
        # By the index of keys, as everybody else who goes by a key: no deadlocks.
        return self._select(
            KeyRow,
            f"""
            SELECT {columns(KeyRow)} FROM {self._table}{self._dialect.by_key}
            WHERE {ANY_KEY}{self._dialect.skip_locked}
            """,
        )

    @cached_property
    def amend(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                schedule = %(schedule)s,
                location = %(location)s,
                options = %(options)s,
                version = {self._newer("%(version)s")},
                extras = %(extras)s
            {AS_FOUND}
            AND scheduled = %(scheduled)s
            """)

    @cached_property
    def hold(self) -> Statement:
        """Changes nothing: compares, and locks where there are locks."""
        return self._dialect.prepare(
            f"UPDATE {self._table}{self._dialect.by_key} SET disabled = disabled {AS_FOUND}"
        )

    @cached_property
    def hold_deleted(self) -> Statement:
        """The same as `hold` for a job that was deleted during a run."""
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET disabled = disabled
            WHERE path = %(path)s AND body = %(body)s AND override = {Override.DELETED}
            """)

    @cached_property
    def hold_row(self) -> Statement:
        """Changes nothing: locks, where there are locks. Also a job that was deleted."""
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET disabled = disabled
            WHERE path = %(path)s AND body = %(body)s
            """)

    @cached_property
    def hold_version(self) -> Statement:
        """Changes nothing: compares, and locks where there are locks."""
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET disabled = disabled
            {BY_KEY} AND version = %(version)s
            """)

    # What else a user does to a job

    @cached_property
    def trigger(self) -> Statement:
        # A run that the job has stopped on is run again, as the same; else it is a new one.
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                token = CASE WHEN due > %(now)s THEN token END,
                override = CASE WHEN {LEASED} THEN
                    CASE WHEN override IN ({Override.RESCHEDULED}, {Override.RUN_NOW})
                    THEN {Override.RUN_NOW} ELSE {Override.TRIGGERED} END
                    ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due ELSE %(now)s END,
                anchor = CASE WHEN standing = {Standing.STOPPED} OR {BY_THE_CLOCK}
                    THEN anchor ELSE %(now)s END,
                scheduled = CASE standing WHEN {Standing.STOPPED} THEN scheduled ELSE %(now)s END,
                run = CASE standing WHEN {Standing.STOPPED} THEN run END,
                attempts = CASE standing WHEN {Standing.STOPPED} THEN attempts ELSE 0 END,
                error = CASE standing WHEN {Standing.FAILED} THEN error END,
                started = NULL,
                cause = CASE standing WHEN {Standing.STOPPED} THEN cause ELSE {Cause.MANUAL} END,
                standing = CASE WHEN standing IN ({Standing.STOPPED}, {Standing.ASIDE})
                    THEN {Standing.SOUND} ELSE standing END
            {BY_KEY} AND disabled = 0 AND standing <> {Standing.DONE}
            """)

    @cached_property
    def enable(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                token = CASE WHEN due > %(now)s THEN token END,
                override = CASE WHEN {LEASED} THEN override ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due
                    WHEN NOT {RESTS} THEN scheduled END,
                started = CASE WHEN {LEASED} THEN started END,
                error = CASE WHEN attempts > 0
                    OR standing IN ({Standing.FAILED}, {Standing.STOPPED}) THEN error END,
                standing = CASE standing WHEN {Standing.ASIDE}
                    THEN {Standing.SOUND} ELSE standing END,
                disabled = 0
            {BY_KEY} AND disabled <> 0
            """)

    @cached_property
    def disable(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET
                token = CASE WHEN due > %(now)s THEN token END,
                override = CASE WHEN {LEASED} THEN override ELSE {Override.NONE} END,
                due = CASE WHEN {LEASED} THEN due END,
                disabled = 1
            {BY_KEY}
            """)

    @cached_property
    def delete_idle(self) -> Statement:
        """Of a job that has nothing in other tables."""
        return self._dialect.prepare(f"""
            DELETE FROM {self._table} WHERE path = %(path)s AND body = %(body)s
            AND (token IS NULL OR due IS NULL OR due <= %(now)s) AND extras = 0
            """)

    @cached_property
    def delete_idle_row(self) -> Statement:
        """Of a job that has in other tables what it was found to have."""
        # A stranger's extras may be text, which SQLite gives as octets: these are not compared.
        return self._dialect.prepare(f"""
            DELETE FROM {self._table} WHERE id = %(id)s
            AND (extras = %(extras)s OR extras <> extras + 0)
            AND (token IS NULL OR due IS NULL OR due <= %(now)s)
            """)

    @cached_property
    def delete_leased(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_key} SET override = {Override.DELETED}
            WHERE path = %(path)s AND body = %(body)s AND {LEASED}
            """)

    # The table of keys

    @cached_property
    def find_key(self) -> Select[KeptRow]:
        return self._select(
            KeptRow,
            f"""
            SELECT {columns(KeptRow)} FROM {self._keys}
            WHERE path = %(path)s AND idempotency = %(idempotency)s
            """,
        )

    @cached_property
    def keep_key(self) -> Statement:
        """Changes nothing if the key is there."""
        return self._dialect.prepare(f"""
            INSERT INTO {self._keys} (path, idempotency, digest, body, version, made)
            VALUES (
                %(path)s, %(idempotency)s, %(digest)s, %(body)s, %(version)s, %(made)s
            )
            {self._dialect.on_conflict("path, idempotency")} made = {self._keys}.made
            """)

    @cached_property
    def renew_key(self) -> Statement:
        """Writes over a key that is as it was found."""
        return self._dialect.prepare(f"""
            UPDATE {self._keys} SET
                digest = %(digest)s,
                body = %(body)s,
                version = %(version)s,
                made = %(made)s
            WHERE path = %(path)s AND idempotency = %(idempotency)s AND made = %(found)s
            """)

    @cached_property
    def old_keys(self) -> Select[OldKey]:
        return self._select(
            OldKey,
            f"""
            SELECT {columns(OldKey)} FROM {self._keys}
            WHERE made <= %(before)s ORDER BY made LIMIT %(limit)s
            """,
        )

    @cached_property
    def forget_keys(self) -> Statement:
        return self._dialect.prepare(f"""
            DELETE FROM {self._keys} WHERE made <= %(before)s
            AND ([path = %(path)s AND idempotency = %(idempotency)s OR ...])
            """)

    # The table of instances

    @cached_property
    def announce(self) -> Statement:
        return self._dialect.prepare(f"""
            INSERT INTO {self._dialect.heartbeats} (id, seen, since, about)
            VALUES (%(id)s, %(seen)s, %(since)s, %(about)s)
            {self._dialect.on_conflict("id")}
                seen = {self._dialect.proposed("seen")},
                about = {self._dialect.proposed("about")}
            """)

    @cached_property
    def instances(self) -> Select[InstanceRow]:
        return self._select(
            InstanceRow,
            f"""
            SELECT {columns(InstanceRow)} FROM {self._dialect.heartbeats}
            WHERE seen > %(alive)s ORDER BY id LIMIT %(limit)s
            """,
        )

    @cached_property
    def depart(self) -> Statement:
        return self._dialect.prepare(f"DELETE FROM {self._dialect.heartbeats} WHERE id = %(id)s")

    @cached_property
    def forget(self) -> Statement:
        return self._dialect.prepare(
            f"DELETE FROM {self._dialect.heartbeats} WHERE seen <= %(seen)s"
        )

    @cached_property
    def count_instances(self) -> Select[InstancesRow]:
        return self._select(
            InstancesRow,
            f"""
            SELECT
                COUNT(CASE WHEN seen <= %(seen)s THEN 1 END) AS gone,
                COUNT(CASE WHEN seen > %(seen)s AND id <> %(id)s THEN 1 END) AS others
            FROM {self._dialect.heartbeats}
            """,
        )

    @cached_property
    def count_ahead(self) -> Select[NumberRow]:
        return self._select(
            NumberRow,
            f"SELECT COUNT(*) AS number FROM {self._dialect.heartbeats} WHERE seen > %(seen)s",
        )

    def _select(self, row: Callable[..., R], sql: str) -> Select[R]:
        return Select(row, self._dialect.prepare(sql))
