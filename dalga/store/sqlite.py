"""The embedded SQLite, through the standard library's module."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from dalga.errors import StartupError, TableExists
from dalga.store.dialect import Cursor, Trouble
from dalga.store.schema import HEARTBEATS, VERSION, definitions, misfit

#: The jobs table's name; a file has but one.
TABLE = "dalga"

#: How long a transaction waits for another program that holds the file, in seconds.
BUSY_TIMEOUT = 3.0

#: An embedded table needs no configuration file.
UPGRADE = "dalga --config FILE --upgrade-table (without --config FILE, if you have none)"

# https://www.sqlite.org/rescode.html, primary codes
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNAVAILABLE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOLFS,
}


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SQLite:
    """
    See `dalga.store.dialect.Dialect`.

    :param wall_clock: the database's clock, which for a file is the machine's: gives an aware UTC
        datetime, and is called in a database thread.
    """

    module = "sqlite3"
    table = f'"{TABLE}"'
    heartbeats = f'"{TABLE}{HEARTBEATS}"'
    by_id = ""
    skip_locked = ""  # there is but one writer
    on_conflict = "ON CONFLICT (path, body) DO UPDATE SET"

    def __init__(self, path: str, wall_clock: Callable[[], datetime] = _utc_now) -> None:
        self._path = path
        self._wall_clock = wall_clock
        self._watch = _Watch(path)

    def proposed(self, column: str) -> str:
        return f"excluded.{column}"

    def prepare(self, sql: str) -> str:
        return " ".join(sql.split()).replace("%s", "?")

    def connect(self) -> Any:
        # A file that is gone must not be made anew, empty: its jobs may still come back.
        mode = "rw" if self._watch.knows else "rwc"
        self._watch.before_opening()
        connection = sqlite3.connect(
            _uri(self._path, f"mode={mode}"),
            uri=True,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,  # transactions are begun in so many words
            check_same_thread=False,  # adbapi closes from another thread than it used
            cached_statements=512,
        )
        try:
            # Text that is not UTF-8 has to reach dalga.store.rows, which sets its row aside.
            connection.text_factory = bytes
            if self._watch.knows and not self._has_jobs(connection.cursor()):
                raise _unusable(f"another database is in its place: {PUT_BACK}")
            self.set_up(connection)
        except BaseException:
            connection.close()
            raise
        self._watch.opened()
        return connection

    def _has_jobs(self, cursor: Cursor) -> bool:
        return self.version(cursor, "") == VERSION and bool(self.columns(cursor, ""))

    def set_up(self, connection: Any) -> None:
        connection.create_function("UTC_TIMESTAMP", 1, lambda digits: _text(self._wall_clock()))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: an fsync that is one

    def begin(self, cursor: Cursor) -> None:
        self._watch.before_transaction(cursor)
        # Taking the write lock first, as a reader that turns writer may find itself too late.
        cursor.execute("BEGIN IMMEDIATE")
        self._watch.begun()

    def check_table(self, cursor: Cursor) -> None:
        """An embedded table needs no administrator: it is made when it is not there."""
        columns = self.columns(cursor, "")
        if not columns:
            self.create(cursor, "")
        elif (version := self.version(cursor, "")) != VERSION:
            what = misfit(version, columns, None, "name another with path in [sqlite]", UPGRADE)
            raise StartupError(f"the table {self.table} in {self.where()} {what}")
        self._watch.knows = True

    def create_table(self, cursor: Cursor) -> None:
        if self.columns(cursor, ""):
            self.check_table(cursor)
            raise TableExists(f"the table {self.table} is there already, in {self.where()}")
        self.create(cursor, "")

    def key(self, text: str) -> object:
        return text

    def instant(self, instant: datetime) -> object:
        return _text(instant)

    def read_instant(self, value: object) -> datetime:
        try:
            if not isinstance(value, bytes):
                raise TypeError
            # Exactly what _text writes, for only that sorts as it should.
            text = value.decode("ascii")
            instant = datetime.fromisoformat(text)
            if _text(instant.replace(tzinfo=UTC)) != text:
                raise ValueError
        except (TypeError, ValueError):
            raise ValueError(f"is {value!r}, which is not a time") from None
        return instant.replace(tzinfo=UTC)

    def update_rows(
        self, columns: tuple[str, ...], assignments: str, condition: str, count: int
    ) -> str:
        names = ("row_id", "row_token", *columns)
        renamed = ", ".join(f"column{number} AS {name}" for number, name in enumerate(names, 1))
        return self.prepare(f"""
            UPDATE {self.table} SET {assignments}
            FROM (SELECT {renamed} FROM ({_values(len(names), count)}))
            WHERE id = row_id AND token = row_token AND {condition}
            """)

    def delete_rows(self, condition: str, count: int) -> str:
        return self.prepare(f"""
            DELETE FROM {self.table} WHERE (id, token) IN ({_values(2, count)}) AND {condition}
            """)

    def trouble(self, error: Exception) -> Trouble | None:
        if not isinstance(error, sqlite3.Error):
            return None
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            return Trouble.BUSY  # the busy time-out has been waited for already
        return Trouble.UNAVAILABLE if code in _UNAVAILABLE else None

    def explain(self, error: Exception) -> str | None:
        return f"can't use {self.where()}: {error}" if isinstance(error, sqlite3.Error) else None

    def where(self) -> str:
        return f"SQLite file {self._path!r}"

    has_go_tables = False
    upgrades_at_once = True

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

    def version(self, cursor: Cursor, suffix: str) -> int | None:
        cursor.execute("PRAGMA user_version")
        ((version,),) = cursor.fetchall()
        return int(version) or None

    def rows(self, connection: Any, select: str) -> Generator[tuple[Any, ...], None, None]:
        with closing(connection.execute(select)) as cursor:
            yield from cursor

    def create(self, cursor: Cursor, suffix: str) -> None:
        # An index keeps its name when its table gets another, and there is but one of a name.
        cursor.execute(f'DROP INDEX IF EXISTS "{TABLE}_due"')
        for statement in definitions("sqlite", TABLE, suffix):
            cursor.execute(statement)
        cursor.execute(f"PRAGMA user_version = {VERSION}")

    def rename(self, cursor: Cursor, suffix: str, new: str) -> None:
        cursor.execute(f"ALTER TABLE {self.named(suffix)} RENAME TO {self.named(new)}")


#: What helps where the file is another one.
PUT_BACK = "put the right one back"

#: No database is smaller, in bytes.
_SMALLEST = 512


def _uri(path: str, query: str) -> str:
    return f"file:{quote(path)}?{query}"


def _unusable(why: str) -> sqlite3.Error:
    """An error after which the connection is closed."""
    return _error(why, sqlite3.SQLITE_CANTOPEN)


def _error(why: str, code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError(why)
    error.sqlite_errorcode = code
    return error


class _Watch:
    """
    Notices what strangers do to the file, and to the ``-wal`` and ``-shm`` beside it, while it is
    open. What is written after that is lost with the process, though acknowledged (P1), and SQLite
    looks at none of it: it would delete the ``-wal`` beside an empty file, and write one beside
    another file into that.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        #: The same without symbolic links, as SQLite names what is beside the file.
        self._real = path
        #: Whether it is known that the jobs are in the file.
        self.knows = False
        self._file: tuple[int, int] | None = None
        #: Those of the connection, which may be closed by now; None before its first transaction.
        self._beside: list[tuple[int, int] | None] | None = None
        #: Size and time of the last write: only a checkpoint changes them.
        self._written: tuple[int, int] | None = None
        #: The schema version that the file has without its ``-wal``.
        self._version = 0

    def before_opening(self) -> None:
        """:raises sqlite3.Error: if what has the file's name now must not be opened."""
        if not self.knows:
            self._refuse_to_forget()
            return
        found = self._there()
        self._read_version(found)
        if _identity(found) == self._file or self._beside is None:
            return
        if self._beside[0] is not None and self._beside[0] in self._find_beside():
            raise _unusable(
                f"another file is in its place, but beside the -wal of the former: {PUT_BACK}, or "
                "restart dalga, if the two belong together"
            )

    def _refuse_to_forget(self) -> None:
        """:raises sqlite3.Error: where SQLite would delete a ``-wal`` to make a new database."""
        beside = os.path.realpath(self._path) + "-wal"
        if _size(self._path) == 0 < _size(beside):
            raise _unusable(
                f"it is missing or empty, but {beside!r} is there, with what was committed last: "
                "put back the file that belongs to it, or remove it to begin without jobs"
            )

    def opened(self) -> None:
        """Remember what has just been opened."""
        found = os.stat(self._path)
        self._file, self._written = _identity(found), _written(found)
        self._real = os.path.realpath(self._path)
        self._beside = None
        self._version = self._read_version(found) if self.knows else 0

    def begun(self) -> None:
        """The connection's files are all there now."""
        if self._beside is None:
            self._beside = self._find_beside()

    def before_transaction(self, cursor: Cursor) -> None:
        """:raises sqlite3.Error: if nothing must be written now."""
        if not self.knows:
            return
        found = self._there()
        if _identity(found) != self._file:
            self._read_version(found)  # which may say more of it
            raise _unusable(f"another file is in its place: {PUT_BACK}")
        if _written(found) != self._written:
            self._look_into(found)
        if self._beside is not None and self._find_beside() != self._beside:
            self._save(cursor)

    def _there(self) -> os.stat_result:
        try:
            return os.stat(self._path)
        except OSError as error:
            raise _unusable(f"it was removed ({error.strerror}): put it back") from error

    def _find_beside(self) -> list[tuple[int, int] | None]:
        found: list[tuple[int, int] | None] = []
        for suffix in ("-wal", "-shm"):
            try:
                found.append(_identity(os.stat(self._real + suffix)))
            except OSError:
                found.append(None)
        return found

    def _read_version(self, found: os.stat_result) -> int:
        """
        The schema version in the file, without its ``-wal``.

        :raises sqlite3.Error: if it is no database.
        """
        if found.st_size < _SMALLEST:
            what = "no database" if found.st_size else "empty"
            raise _unusable(f"the file that has its name is {what}: {PUT_BACK}")
        try:
            # That takes no lock, nor looks at the -wal.
            uri = _uri(self._path, "mode=ro&immutable=1")
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        except sqlite3.Error as error:
            raise _unusable(f"the file that has its name is no database: {PUT_BACK}") from error
        return int(version)

    def _look_into(self, found: os.stat_result) -> None:
        """:raises sqlite3.Error: if it was no checkpoint that wrote into the file."""
        try:
            version = self._read_version(found)
            if version not in (VERSION, self._version):
                raise _unusable(f"another database was written over it: {PUT_BACK}")
        except sqlite3.Error as error:
            # The connection stays: closing it would write the -wal into that, and delete it.
            raise _error(str(error), sqlite3.SQLITE_BUSY) from error
        self._written, self._version = _written(found), version

    def _save(self, cursor: Cursor) -> None:
        """
        Write what was committed into the file, as long as SQLite has the ``-wal`` open.

        :raises sqlite3.Error: in any case, so that a new connection makes new ones.
        """
        what = "its -wal or -shm was removed or replaced under dalga"
        cursor.execute("PRAGMA wal_checkpoint(FULL)")
        ((busy, there, written),) = cursor.fetchall()
        if busy or there != written:
            raise _error(
                f"{what}, and another program holds the file: end that one, or put them back",
                sqlite3.SQLITE_BUSY,
            )
        raise _unusable(f"{what}; all that was committed is in the file now, and nothing is lost")


def _identity(found: os.stat_result) -> tuple[int, int]:
    """Which file it is, whatever its name."""
    return found.st_dev, found.st_ino


def _size(path: str) -> int:
    """In bytes, of which a file that is not there has none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _written(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


class FileGuard:
    """
    Keeps a second daemon from the same file, by a lock on a file beside it (flock(2)), which the
    kernel drops when the process ends, however it ends.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = os.path.realpath(path) + ".lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """:raises StartupError: if another process has it, or the folder can't be written."""
        if os.path.isdir(self._path):
            raise StartupError(
                f"SQLite file {self._path!r} is a folder; name a file in it with path in [sqlite]"
            )
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StartupError(
                f"can't make {self._lock!r} beside the SQLite file: {error.strerror}; "
                "choose a folder that dalga may write to with path in [sqlite]"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise StartupError(
                f"SQLite file {self._path!r} is in use by another dalga: stop that one, or give "
                "this one a file of its own with path in [sqlite]; several instances on one table "
                "need [mysql]"
            ) from None
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _text(instant: datetime) -> str:
    return instant.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")


def _values(columns: int, count: int) -> str:
    row = "(" + ", ".join(["%s"] * columns) + ")"
    return f"VALUES {', '.join([row] * count)}"
