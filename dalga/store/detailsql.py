"""
The SQL of the tables of details and tags; and how a job's row is removed from the table of jobs
that are expected to succeed.

As in `dalga.store.statements`, each statement is made once for a dialect, and no statement is
executed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, NamedTuple

from dalga.store.dialect import BY_ID, Dialect
from dalga.store.extras import DetailsRow
from dalga.store.parameters import R, Select, Statement, columns
from dalga.store.schema import DETAILS, EXPECTED, TAGS
from dalga.store.selected import JobRow, NumberRow, WholeRow


class NewDetails(NamedTuple):
    """A row of details; each field is a column."""

    id: Any
    path: Any
    body: Any
    members: Any
    payload: Any


class NewTag(NamedTuple):
    """A tag of a job; each field is a column."""

    tag: Any
    path: Any
    body: Any
    id: Any


class DetailStatements:
    """The SQL of details and tags for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._table = dialect.table

    @cached_property
    def read_details(self) -> Select[DetailsRow]:
        return self._select(DetailsRow, self._with_details(DetailsRow._fields[:3]))

    @cached_property
    def read_whole(self) -> Select[WholeRow]:
        """Jobs with their details, read as one."""
        return self._select(WholeRow.read, self._with_details(JobRow._fields))

    def _with_details(self, names: Iterable[str]) -> str:
        """:param names: the columns of the jobs table that are given before those of details."""
        dialect = self._dialect
        octets = (
            f"{dialect.length('beside.members')} + COALESCE({dialect.length('beside.payload')}, 0)"
        )
        fits = f"CASE WHEN {octets} <= (job.extras >> 8) << 10 THEN"
        return f"""
            SELECT
                {", ".join(f"job.{name} AS {name}" for name in names)},
                beside.id AS details,
                {fits} beside.members END AS members,
                {fits} beside.payload END AS payload
            FROM {self._table} AS job
            LEFT JOIN {dialect.named(DETAILS)} AS beside ON beside.id = job.id
            WHERE job.id IN ([%(id)s, ...])
            """

    @cached_property
    def put_details(self) -> Statement:
        new = self._dialect.proposed
        return self._dialect.prepare(f"""
            {self._insert_into(DETAILS, NewDetails)}
            {self._dialect.on_conflict("id")}
                path = {new("path")},
                body = {new("body")},
                members = {new("members")},
                payload = {new("payload")}
            """)

    @cached_property
    def put_tags(self) -> Statement:
        # A row may be there that somebody has left behind.
        new = self._dialect.proposed
        return self._dialect.prepare(f"""
            {self._insert_into(TAGS, NewTag)}
            {self._dialect.on_conflict("tag, path, body")} id = {new("id")}
            """)

    def _insert_into(self, suffix: str, row: type[tuple[Any, ...]]) -> str:
        names: tuple[str, ...] = row._fields  # type: ignore[attr-defined]
        values = ", ".join(f"%({name})s" for name in names)
        table = self._dialect.named(suffix)
        return f"INSERT INTO {table} ({columns(row)}) VALUES [({values}), ...]"

    @cached_property
    def delete_details(self) -> Statement:
        return self._dialect.delete_by_index(DETAILS, "PRIMARY")

    @cached_property
    def delete_tags(self) -> Statement:
        return self._dialect.delete_by_index(TAGS, "id")

    @cached_property
    def delete_expected(self) -> Statement:
        return self._dialect.delete_by_index(EXPECTED, "PRIMARY")

    @cached_property
    def find_details(self) -> Select[NumberRow]:
        return self._ids_in(DETAILS, "PRIMARY")

    @cached_property
    def lock_details(self) -> Select[NumberRow]:
        return self._ids_in(DETAILS, "PRIMARY", self._dialect.skip_locked)

    @cached_property
    def find_tags(self) -> Select[NumberRow]:
        return self._ids_in(TAGS, "id")

    @cached_property
    def lock_tags(self) -> Select[NumberRow]:
        return self._ids_in(TAGS, "id", self._dialect.skip_locked)

    def _ids_in(self, suffix: str, index: str, lock: str = "") -> Select[NumberRow]:
        """The ids of jobs in another table, once for each of its rows."""
        dialect = self._dialect
        return self._select(
            NumberRow,
            f"""
            SELECT id AS number FROM {dialect.named(suffix)}{dialect.by_index(index)}
            WHERE {BY_ID}{lock}
            """,
        )

    @cached_property
    def set_extras(self) -> Statement:
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_id} SET extras = %(extras)s WHERE id = %(id)s
            """)

    def _select(self, row: Callable[..., R], sql: str) -> Select[R]:
        return Select(row, self._dialect.prepare(sql))
