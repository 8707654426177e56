"""
The SQL of the table of actions; and how many jobs are due.

As in `dalga.store.statements`, each statement is made once for a dialect, and no statement is
executed here.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

from dalga.store.dialect import Dialect
from dalga.store.parameters import Select, Statement, columns
from dalga.store.schema import ACTIONS
from dalga.store.selected import NumberRow


class ActionRow(NamedTuple):
    """An action's row. Its token is in hexadecimal."""

    id: Any
    made: Any
    ended: Any
    due: Any
    token: Any
    instance: Any
    request: Any
    state: Any
    matched: int
    done: int
    failed: int
    place: Any
    error: Any


#: The columns of `ActionRow`, and its token as it is compared: a stranger's may be of any type, or
#: NULL.
_TOKEN = "COALESCE(HEX(token), '')"  # nosec B105  # a column, which holds a lease's token
_COLUMNS = columns(ActionRow).replace("token", f"{_TOKEN} AS token")


class OldAction(NamedTuple):
    """An action that is to be forgotten."""

    id: Any


class ActionStatements:
    """The SQL of actions for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._table = dialect.named(ACTIONS)

    @cached_property
    def add(self) -> Statement:
        return self._dialect.prepare(f"""
            INSERT INTO {self._table} (
                id, made, due, token, request, state, matched, done, failed, place
            ) VALUES (
                %(id)s, %(made)s, %(due)s, %(token)s, %(request)s, %(state)s, 0, 0, 0, ''
            )
            """)

    @cached_property
    def get(self) -> Select[ActionRow]:
        return self._select(f"SELECT {_COLUMNS} FROM {self._table} WHERE id = %(id)s")

    @cached_property
    def newest(self) -> Select[ActionRow]:
        return self._select(
            f"SELECT {_COLUMNS} FROM {self._table} ORDER BY id DESC LIMIT %(limit)s"
        )

    @cached_property
    def due(self) -> Select[ActionRow]:
        """The action that has waited longest for its next batch, locked where there are locks."""
        index = self._dialect.by_index("actiondue")
        return self._select(f"""
            SELECT {_COLUMNS} FROM {self._table}{index}
            WHERE due > %(behind)s AND due <= %(now)s
            ORDER BY due LIMIT 1{self._dialect.skip_locked}
            """)

    @cached_property
    def write(self) -> Statement:
        # A stranger's row may have an id that is no text, and any token.
        text, blob = (self._dialect.octets("id", is_blob) for is_blob in (False, True))
        return self._dialect.prepare(f"""
            UPDATE {self._table} SET
                token = %(token)s,
                due = %(due)s,
                ended = %(ended)s,
                state = %(state)s,
                matched = %(matched)s,
                done = %(done)s,
                failed = %(failed)s,
                error = %(error)s,
                place = %(place)s,
                instance = %(instance)s
            WHERE id IN ({text}, {blob}) AND {_TOKEN} = %(found)s
            """)

    @cached_property
    def stop(self) -> Statement:
        """Of an action that is not over; after the batch under way."""
        return self._dialect.prepare(f"""
            UPDATE {self._table}{self._dialect.by_index("PRIMARY")} SET
                token = %(token)s,
                due = NULL,
                ended = %(ended)s,
                state = %(state)s
            WHERE id = %(id)s AND due IS NOT NULL
            """)

    @cached_property
    def count_due(self) -> Select[NumberRow]:
        """How many jobs are due, up to a limit."""
        dialect = self._dialect
        statement = dialect.prepare(f"""
            SELECT COUNT(*) AS number FROM (
                SELECT due FROM {dialect.table}{dialect.by_due}
                WHERE due <= %(now)s ORDER BY due LIMIT %(limit)s
            ) AS some
            """)
        return Select(NumberRow, statement)

    @cached_property
    def old(self) -> Select[OldAction]:
        statement = self._dialect.prepare(f"""
            SELECT id FROM {self._table} WHERE id < %(before)s AND due IS NULL
            ORDER BY id LIMIT %(limit)s
            """)
        return Select(OldAction, statement)

    @cached_property
    def forget(self) -> Statement:
        id = self._dialect.octets("id", is_blob=False)
        where = f"id IN ([{id}, ...]) AND due IS NULL"
        return self._dialect.delete_by_index(ACTIONS, "PRIMARY", where)

    def _select(self, sql: str) -> Select[ActionRow]:
        return Select(ActionRow, self._dialect.prepare(sql))
