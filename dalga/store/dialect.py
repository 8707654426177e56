"""
What differs between the engines, and nothing more. All other SQL is the same for each engine.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple, Protocol

from dalga.store.parameters import Statement

#: The rows of jobs in another table, by the jobs' ids.
BY_ID = "id IN ([%(id)s, ...])"

#: What a work function gets: adbapi's Transaction, a DB-API cursor.
Cursor = Any


class SharedValues(NamedTuple):
    """Columns of a record. Most records of a transaction have the same, and are given the same."""

    failed: int
    at: int
    endpoint: str
    cause: int
    result: int | None
    status: int | None
    kind: int
    attempts: int
    instance: str
    error: str | None
    more: str | None
    answer: str | None


#: The columns of a record that `SharedValues` has not.
OWN = (
    *("job", "run", "path", "pathkey", "body", "jobkey"),
    *("scheduled", "claimed", "started", "ended", "lateness"),
)

#: The columns of `OWN`, and the others: times as text, and the half of the run's id in hexadecimal.
RecordValues = tuple[
    int, str, str, int, str, int, str, str, str | None, str | None, int, SharedValues
]


class Trouble(Enum):
    """What an exception from the driver means for the transaction that it ended."""

    #: The database has rolled the transaction back for certain, also where the COMMIT failed, as
    #: another transaction was in its way. It may be run again.
    CONFLICT = "conflict"
    #: A lock was not released in time. The transaction may succeed if it is run once more.
    BUSY = "busy"
    #: The connection is dead. The transaction may succeed on a new connection.
    LOST = "lost"
    #: The database can't be used now: it is down, full or read-only, or has too many connections.
    #: So is each error that is not known to be a mistake of ours.
    UNAVAILABLE = "unavailable"


class Dialect(Protocol):
    """
    One engine.

    SQL is written with parameters as `dalga.store.parameters` says, and with ``UTC_TIMESTAMP(6)``
    for the database's time. `prepare` makes of such SQL a statement that the driver takes.
    """

    #: The engine's name among texts of SQL: "mysql", also for MariaDB, or "sqlite".
    engine: str
    #: The DB-API module's name.
    module: str
    #: The jobs table's name, quoted.
    table: str
    #: The name of the table of instances, quoted.
    heartbeats: str
    #: SQL that reads the database's time, as a `NowRow`. The SQL fails if the tables are of another
    #: schema version. Until the transaction ends, no upgrade can give them another version.
    now: str
    #: SQL behind the table's name: find the rows by the index of ids. Left to itself, the optimizer
    #: may read other rows too, and wait for a row that another session has locked.
    by_id: str
    #: The same for the index of paths and bodies.
    by_key: str
    #: The same for the index of due times. If most rows are due, the optimizer would sort the whole
    #: table instead. A claim would then lock all due rows, and other instances would find none.
    by_due: str
    #: The same for the index of `disabled` and `standing`.
    by_state: str
    #: The same for the index of tags, behind the name of the table of tags.
    by_tag: str
    #: The same for the index of the ids of jobs that have tags.
    by_tagged: str
    #: Between two tables of a FROM: the rows of the first one are gone through, and those of the
    #: second one are looked up for each.
    then_join: str
    #: A condition that always holds. As `now` does, it fails if the tables are of another schema
    #: version, and until the transaction ends, no upgrade can give them another version.
    same_version: str
    #: Whether nobody else can write between two statements of a transaction.
    one_writer: bool
    #: SQL behind a SELECT that locks rows: pass over the rows that another session has locked.
    skip_locked: str

    def on_conflict(self, key: str) -> str:
        """Between an INSERT and its SET list, for a row that is there already with this key."""

    def proposed(self, column: str) -> str:
        """Behind `on_conflict`: the value that the INSERT had for a column."""

    def prepare(self, sql: str) -> Statement:
        """A statement as this driver takes it."""

    def connect(self) -> Any:
        """A new connection, made ready, and as it has to be. Blocks."""

    def left(self, connection: Any) -> None:
        """Called when a connection of `connect` is closed. Its server may not know of that yet."""

    def takes_payloads(self, longest: int) -> bool:
        """
        Whether payloads of this length (octets) can be kept, as far as the start has found. The
        start has looked for those of the configuration of that time.
        """

    def last_write(self) -> datetime | None:
        """When the database was last written to, by its own clock; None where nobody knows."""

    def begin(self, cursor: Cursor) -> None:
        """Begin a transaction that may write."""

    def check_table(self, cursor: Cursor) -> None:
        """:raises StartupError: if a table is not there, or not as we make it."""

    def create_table(self, cursor: Cursor) -> list[str]:
        """
        Make the tables that are missing; gives their names, quoted.

        :raises TableExists: if there are none.
        :raises StartupError: if those that are there are not as we make them.
        """

    def key(self, text: str) -> object:
        """A path or body as a parameter."""

    def joined(self, texts: Sequence[str]) -> str:
        """
        An expression: the octets of the texts of others, with a line feed between each two. Where
        one of them is NULL, there are fewer texts, or there is NULL.
        """

    def whole(self, column: str) -> str:
        """An expression: a number's digits. Of what is no whole number, something else."""

    def hexadecimal(self, column: str) -> str:
        """An expression: X'0AFF' for octets, NULL (as a text) for NULL, else something else."""

    def length(self, column: str) -> str:
        """An expression: how many octets the text in a column has."""

    def is_blob(self, column: str) -> str:
        """
        An expression that is not 0 where a column of the key holds a BLOB, as only a stranger
        writes it, and the engine sorts it behind all text.
        """

    def octets(self, name: str, is_blob: bool) -> str:
        """SQL for a parameter that has octets which were read from a column of the key."""

    def time_octets(self, name: str, is_blob: bool) -> str:
        """SQL for a parameter that has the octets of a time column's text."""

    def instant(self, instant: datetime) -> object:
        """An aware datetime as a parameter."""

    def read_instant(self, value: object) -> datetime:
        """
        A value of a time column.

        :raises ValueError: if it is no time.
        """

    def update_rows(self, fields: tuple[str, ...], assignments: str, condition: str) -> Statement:
        """
        A statement that changes rows, each by its ``row_id`` and ``row_token``.

        :param fields: what comes with each row; `assignments` and `condition` may use the names.
        :param condition: what has to hold of a row besides.
        """

    def delete_rows(self, fields: tuple[str, ...], condition: str) -> Statement:
        """A statement that deletes rows, each by its ``row_id`` and ``row_token``: its fields."""

    def insert_records(
        self, cursor: Cursor, rows: Sequence[RecordValues], over: bool = False
    ) -> None:
        """
        Insert rows into the table of runs. There are as many as runs that end, so this takes a way
        of its own, which costs a fraction of that of `Statement`.

        :param over: whether to write over a row that is there already.
        """

    def by_index(self, name: str) -> str:
        """Behind a table's name: which index is to be used. Empty on SQLite, which finds it."""

    def delete_by_index(self, suffix: str, index: str, where: str = BY_ID) -> Statement:
        """
        A statement that deletes rows from another table than that of the jobs, and locks no others.

        :param suffix: of that table's name.
        :param index: by which a server finds the rows.
        :param where: which rows.
        """

    def delete_first(
        self, suffix: str, fixed: str, order: tuple[str, ...], before: str
    ) -> Statement:
        """
        A statement that deletes the first ``%(limit)s`` rows of a range of the primary key.

        :param suffix: of the table's name.
        :param fixed: a condition that gives the first columns of the key their values.
        :param order: the other columns of the key, in its order.
        :param before: a condition on the first one of these.
        """

    def trouble(self, error: Exception) -> Trouble | None:
        """What an exception means; None if it is a mistake of the program."""

    def is_duplicate(self, error: Exception) -> bool:
        """Whether an exception says that there is a row with this key already."""

    def explain(self, error: Exception) -> str | None:
        """A sentence on why the database can't be used at start; None if there is none to give."""

    def explain_write(self, error: Exception) -> str | None:
        """The same for why nothing can be written to it, and what would do."""

    def where(self) -> str:
        """The database, as a person would name it."""

    # For upgrades. A suffix makes another table's name of the jobs table's.

    #: How to name another table, as a sentence's end.
    another: str
    #: Whether an upgrade is one transaction, so that one that fails leaves no traces.
    upgrades_at_once: bool

    def upgrading(self) -> AbstractContextManager[Any]:
        """
        A connection for an upgrade, of which there can be but one at a time; each statement is
        committed by itself, or all of them at the end (see `upgrades_at_once`).

        :raises StartupError: if another upgrade is going on, or there is nothing to connect to.
        """

    def explain_upgrade(self, error: Exception) -> str | None:
        """As `explain`, for a statement of an upgrade."""

    def for_go_tables(self) -> CopyingDialect | None:
        """This dialect, where it is of an engine that the Go releases know."""

    def check_engine(self, cursor: Cursor) -> None:
        """:raises StartupError: if the engine lacks what the daemon needs."""

    def named(self, suffix: str) -> str:
        """A table's name, quoted."""

    def columns(self, cursor: Cursor, suffix: str) -> dict[str, str]:
        """
        The names of a table's columns, in order, with their collations ("" where bytes are
        compared); nothing if there is no such table.
        """

    def indexes(self, cursor: Cursor) -> set[str]:
        """The names of the jobs table's indexes."""

    def version(self, cursor: Cursor, suffix: str) -> int | None:
        """A table's schema version; None if the table is not ours, or not there."""


class CopyingDialect(Dialect, Protocol):
    """An engine that the Go releases know: see `dalga.store.upgrade`."""

    def rows(self, connection: Any, select: str) -> Generator[tuple[Any, ...], None, None]:
        """What a SELECT gives, a row at a time, while other statements run; to be closed."""

    def create(self, cursor: Cursor, suffix: str) -> None:
        """Create the tables, with the jobs table under another name for now."""

    def rename(self, cursor: Cursor, suffix: str, new: str) -> None:
        """Give a table another suffix."""


def as_instant(value: object) -> datetime:
    """
    An aware datetime, as a driver gives it.

    :raises ValueError: if it is none.
    """
    if not isinstance(value, datetime):
        raise ValueError(f"is {value!r}, which is not a time")
    return value


def instant_text(instant: datetime) -> str:
    """
    An aware UTC datetime as the columns of both engines have it: YYYY-MM-DD HH:MM:SS.ffffff, which
    is sorted as the times are.
    """
    # In two halves, as an aware datetime takes twice as long to write its offset.
    return f"{instant.date().isoformat()} {instant.time().isoformat('microseconds')}"


def instant_from_text(text: str) -> datetime:
    """
    What `instant_text` writes. (To add the offset to the text takes a tenth of the time of
    `datetime.replace`.)

    :raises ValueError: if the text has another form, or is no time.
    """
    # Behind "Z\0" `fromisoformat` reads nothing.
    if len(text) != 26 or text[4:20:3] != "-- ::." or "Z" in text:
        raise ValueError(f"is {text!r}, which is not a time")
    return datetime.fromisoformat(f"{text}+00:00")
