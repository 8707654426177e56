"""The embedded SQLite, through the standard library's module."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from dalga.errors import StartupError, TableExists
from dalga.store.dialect import (
    BY_ID,
    OWN,
    Cursor,
    RecordValues,
    SharedValues,
    Trouble,
    instant_from_text,
    instant_text,
)
from dalga.store.parameters import Statement
from dalga.store.schema import HEARTBEATS, RUNS, VERSION, columns_of, definitions, lacking, misfit
from dalga.store.sqlitefile import PUT_BACK, FileWatch, unusable, uri, who

#: The jobs table's name. A file has one jobs table.
TABLE = "dalga"

#: A transaction waits this long (seconds) for another program that holds the file.
BUSY_TIMEOUT = 3.0

#: How to name another table.
ANOTHER = "name another with path in [sqlite]"

#: An embedded table needs no configuration file.
UPGRADE = "dalga --config FILE --upgrade-table (without --config FILE, if you have none)"

# https://www.sqlite.org/rescode.html, primary codes
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

#: Errors that the same statement gets from a healthy file, too. All other errors mean that the file
#: can't be used now: the disk is full, the file is read-only or damaged, memory is out.
_MISTAKES = {
    sqlite3.SQLITE_ERROR,  # syntax, a column that there is not
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_MISUSE,
    sqlite3.SQLITE_RANGE,
}

#: SQLite's words for errors that mostly come from the owner of the file, or of its folder.
_NOT_ALLOWED = {"attempt to write a readonly database", "unable to open database file"}

#: What to do about other errors of SQLite's at the start, by their texts.
_ADVICE = {
    # A full disk has no room for the -shm. SQLite does not call the disk full then.
    "disk I/O error": "look whether its disk is full",
    "file is not a database": ANOTHER,
}


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SQLite:
    """
    See `dalga.store.dialect.Dialect`.

    :param wall_clock: the database's clock: for a file, the machine's. It gives an aware UTC
        datetime, and is called in a database thread.
    """

    engine = "sqlite"
    module = "sqlite3"
    table = f'"{TABLE}"'
    heartbeats = f'"{TABLE}{HEARTBEATS}"'
    now = "SELECT UTC_TIMESTAMP(6) AS now, NULL AS has_instances"  # `begin` looks at the version
    same_version = "TRUE"  # `begin` looks
    by_id = by_key = by_due = by_state = by_tag = by_tagged = ""
    then_join = "CROSS JOIN"
    one_writer = True
    skip_locked = ""

    def __init__(self, path: str, wall_clock: Callable[[], datetime] = _utc_now) -> None:
        self._path = path
        self._wall_clock = wall_clock
        self._watch = FileWatch(path)

    def on_conflict(self, key: str) -> str:
        return f"ON CONFLICT ({key}) DO UPDATE SET"

    def proposed(self, column: str) -> str:
        return f"excluded.{column}"

    def prepare(self, sql: str) -> Statement:
        return Statement(sql, "?")

    def connect(self) -> Any:
        # A file that is gone must not be made anew: somebody may put it back, with its jobs.
        mode = "rw" if self._watch.knows else "rwc"
        self._watch.before_opening()
        connection = sqlite3.connect(
            uri(self._path, f"mode={mode}"),
            uri=True,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,  # transactions are begun in so many words
            check_same_thread=False,  # adbapi closes from another thread than it used
            # A statement of many rows takes some 15 KiB. Each number of rows makes another one, and
            # seldom ones are made anew.
            cached_statements=128,
        )
        try:
            # Text that is not UTF-8 has to reach dalga.store.rows, so that its row is set aside.
            connection.text_factory = bytes
            if self._watch.knows and not self._has_jobs(connection.cursor()):
                raise unusable(self._misfit(connection.cursor()))
            self.set_up(connection)
            self._watch.opened()
        except BaseException:
            connection.close()
            raise
        return connection

    def left(self, connection: Any) -> None:
        """Nothing to do: a closed connection leaves no session behind."""

    def _has_jobs(self, cursor: Cursor) -> bool:
        return self.version(cursor, "") == VERSION and bool(self.columns(cursor, ""))

    def _misfit(self, cursor: Cursor) -> str:
        """What is wrong with a file that is no longer as it was at the start."""
        version, columns = self.version(cursor, ""), self.columns(cursor, "")
        if version is None or not columns:
            return f"another database is in its place: {PUT_BACK}"
        return f"the table {self.table} {misfit(version, columns, None, ANOTHER, UPGRADE)}"

    def set_up(self, connection: Any) -> None:
        connection.create_function("UTC_TIMESTAMP", 1, self._now)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: an fsync that is one
        # Some builds, such as Debian's, would write zeros over all of a payload that is removed.
        connection.execute("PRAGMA secure_delete = FAST")

    def _now(self, digits: int) -> str:
        return instant_text(self._wall_clock())

    def takes_payloads(self, longest: int) -> bool:
        return True

    def last_write(self) -> datetime | None:
        times = []
        for suffix in ("", "-wal"):
            with suppress(OSError):  # it is not there
                times.append(os.stat(self._path + suffix).st_mtime)
        return datetime.fromtimestamp(max(times), UTC) if times else None

    def begin(self, cursor: Cursor) -> None:
        self._watch.before_transaction(cursor)
        # The write lock is taken first: a reader that begins to write may fail, if another program
        # has written meanwhile.
        cursor.execute("BEGIN IMMEDIATE")
        self._watch.begun()
        if self._watch.knows and self.version(cursor, "") != VERSION:
            raise unusable(self._misfit(cursor))

    def check_table(self, cursor: Cursor) -> None:
        """Make the tables if they are not there: an embedded database has no administrator."""
        self._make_missing(cursor)
        self._watch.knows = True

    def create_table(self, cursor: Cursor) -> list[str]:
        made = self._make_missing(cursor)
        if not made:
            raise TableExists(f"the table {self.table} is there already, in {self.where()}")
        return made

    def _make_missing(self, cursor: Cursor) -> list[str]:
        """
        Make the tables and the index that are missing.

        :return: the names of the tables that were made.
        :raises StartupError: if a table is there, and not as we make it.
        """
        columns = self.columns(cursor, "")
        if columns and (version := self.version(cursor, "")) != VERSION:
            what = misfit(version, columns, None, ANOTHER, UPGRADE)
            raise StartupError(f"the table {self.table} in {self.where()} {what}")
        needed = columns_of("sqlite")
        made = [self.named(suffix) for suffix in needed if not self.columns(cursor, suffix)]
        if made or not self.indexes(cursor).issuperset((f"{TABLE}_due", f"{TABLE}_state")):
            for statement in definitions("sqlite", TABLE):
                cursor.execute(statement)
            cursor.execute(f"PRAGMA user_version = {VERSION}")
        for suffix, names in needed.items():
            what = lacking(self.columns(cursor, suffix), names, ANOTHER) or ""
            if what:
                raise StartupError(f"the table {self.named(suffix)} in {self.where()} {what}")
        return made

    def key(self, text: str) -> object:
        return text

    def joined(self, texts: Sequence[str]) -> str:
        return " || char(10) || ".join(texts)

    def whole(self, column: str) -> str:
        return f"quote({column})"  # what is no number is quoted

    def hexadecimal(self, column: str) -> str:
        return f"quote({column})"

    def length(self, column: str) -> str:
        return f"LENGTH(CAST({column} AS BLOB))"

    def is_blob(self, column: str) -> str:
        return f"typeof({column}) = 'blob'"

    def octets(self, name: str, is_blob: bool) -> str:
        return f"%({name})s" if is_blob else f"CAST(%({name})s AS TEXT)"

    time_octets = octets

    def instant(self, instant: datetime) -> object:
        return instant_text(instant)

    def read_instant(self, value: object) -> datetime:
        try:
            if not isinstance(value, bytes):
                raise TypeError
            return instant_from_text(value.decode("ascii"))
        except (TypeError, ValueError):
            raise ValueError(f"is {value!r}, which is not a time") from None

    def update_rows(self, fields: tuple[str, ...], assignments: str, condition: str) -> Statement:
        renamed = ", ".join(f"column{number} AS {name}" for number, name in enumerate(fields, 1))
        return self.prepare(f"""
            UPDATE {self.table} SET {assignments}
            FROM (SELECT {renamed} FROM ({_values(fields)}))
            WHERE id = row_id AND token = row_token AND {condition}
            """)

    def delete_rows(self, fields: tuple[str, ...], condition: str) -> Statement:
        # Of (id, token) IN (VALUES ...) with several rows, SQLite goes through the whole table.
        renamed = ", ".join(f"column{number} AS {name}" for number, name in enumerate(fields, 1))
        return self.prepare(f"""
            DELETE FROM {self.table} WHERE id IN (
                SELECT row_id FROM (SELECT {renamed} FROM ({_values(fields)}))
                CROSS JOIN {self.table} AS held ON held.id = row_id AND held.token = row_token
            ) AND {condition}
            """)

    def by_index(self, name: str) -> str:
        return ""

    def delete_by_index(self, suffix: str, index: str, where: str = BY_ID) -> Statement:
        return self.prepare(f"DELETE FROM {self.named(suffix)} WHERE {where}")

    def delete_first(
        self, suffix: str, fixed: str, order: tuple[str, ...], before: str
    ) -> Statement:
        table, columns = self.named(suffix), ", ".join(order)
        backwards = ", ".join(f"{column} DESC" for column in order)
        # By the last of these rows. By a list of them, the engine would look for them in all rows
        # that `fixed` leaves.
        return self.prepare(f"""
            DELETE FROM {table} WHERE {fixed} AND ({columns}) <= (
                SELECT {columns} FROM (
                    SELECT {columns} FROM {table} WHERE {fixed} AND {before}
                    ORDER BY {columns} LIMIT %(limit)s
                ) AS first ORDER BY {backwards} LIMIT 1
            )
            """)

    def insert_records(
        self, cursor: Cursor, rows: Sequence[RecordValues], over: bool = False
    ) -> None:
        names = (*OWN, *SharedValues._fields)
        places = ", ".join(["?"] * len(names))
        into = f"INSERT INTO {self.named(RUNS)} ({', '.join(names)}) VALUES ({places})"
        if over:
            new = ", ".join(f"{name} = {self.proposed(name)}" for name in names)
            into += f" {self.on_conflict('failed, at, job')} {new}"
        cursor.executemany(
            into,
            [(job, bytes.fromhex(run), *own, *shared) for job, run, *own, shared in rows],
        )

    def trouble(self, error: Exception) -> Trouble | None:
        if isinstance(error, OSError):
            return Trouble.UNAVAILABLE
        if not isinstance(error, sqlite3.Error):
            return None
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            # An error of the module itself. Mostly it was used wrongly.
            wrongly = isinstance(error, sqlite3.ProgrammingError | sqlite3.NotSupportedError)
            return None if wrongly else Trouble.UNAVAILABLE
        if code & 0xFF in _BUSY:
            return Trouble.BUSY  # the busy time-out has been waited for already
        if str(error).startswith("no such table"):
            return Trouble.UNAVAILABLE  # as on a server: somebody may put the table back
        return None if code & 0xFF in _MISTAKES else Trouble.UNAVAILABLE

    def is_duplicate(self, error: Exception) -> bool:
        return isinstance(error, sqlite3.IntegrityError)

    def explain(self, error: Exception) -> str | None:
        if not isinstance(error, sqlite3.Error):
            return None
        return f"can't use {self.where()}: {_in_words(error)}"

    def explain_write(self, error: Exception) -> str | None:
        if not isinstance(error, sqlite3.Error):
            return None
        return f"can't write to the table {self.table} in {self.where()}: {_in_words(error)}"

    def where(self) -> str:
        return f"SQLite file {self._path!r}"

    another = ANOTHER
    upgrades_at_once = True

    def explain_upgrade(self, error: Exception) -> str | None:
        return self.explain(error)

    def for_go_tables(self) -> None:
        """They were on servers only."""

    @contextmanager
    def upgrading(self) -> Iterator[Any]:
        """The daemon's guard keeps others away."""
        if not os.path.exists(self._path):  # connecting would make it
            raise StartupError(
                f"there is no {self.where()}: there is nothing to upgrade; dalga makes the file "
                "when it starts"
            )
        with closing(self.connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def check_engine(self, cursor: Cursor) -> None:
        """It comes with Python."""

    def named(self, suffix: str) -> str:
        return f'"{TABLE}{suffix}"'

    def columns(self, cursor: Cursor, suffix: str) -> dict[str, str]:
        cursor.execute(f"PRAGMA table_info({self.named(suffix)})")
        return {bytes(name).decode(): "" for _, name, *_ in cursor.fetchall()}

    def indexes(self, cursor: Cursor) -> set[str]:
        cursor.execute(f"PRAGMA index_list({self.table})")
        return {bytes(name).decode() for _, name, *_ in cursor.fetchall()}

    def version(self, cursor: Cursor, suffix: str) -> int | None:
        cursor.execute("PRAGMA user_version")
        ((version,),) = cursor.fetchall()
        return int(version) or None


def _in_words(error: sqlite3.Error) -> str:
    """An error in words, and what to do about it, if that is known."""
    text = str(error)
    if text in _ADVICE:
        return f"{text}; {_ADVICE[text]}"
    if text not in _NOT_ALLOWED:
        return text
    return (
        f"{error}; {who()} has to be able to write to it, to what is beside it, and to the folder"
    )


def _values(fields: tuple[str, ...]) -> str:
    row = ", ".join(f"%({name})s" for name in fields)
    return f"VALUES [({row}), ...]"
