"""
The file in which SQLite keeps the jobs, which other programs may remove or replace: whether it is
still the file that was opened, and whether another daemon has it.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import sqlite3
from contextlib import closing
from urllib.parse import quote

from dalga.errors import StartupError
from dalga.store.dialect import Cursor
from dalga.store.schema import VERSION

#: What to do if another file has the file's name.
PUT_BACK = "put the right one back"

#: The size of the smallest database, in bytes.
_SMALLEST = 512


def who() -> str:
    """The user as whom files are opened: by name, or by number if there is no name."""
    uid = os.geteuid()
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def uri(path: str, query: str) -> str:
    return f"file:{quote(path)}?{query}"


def unusable(why: str) -> sqlite3.Error:
    """An error for a file that can't be used. Its connection is closed then."""
    return _error(why, sqlite3.SQLITE_CANTOPEN)


def _error(why: str, code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError(why)
    error.sqlite_errorcode = code
    return error


class FileWatch:
    """
    Notices what other programs do to the file, and to the ``-wal`` and ``-shm`` beside it, while it
    is open. If one of these files is removed or replaced, jobs that are written after that are lost
    with the process, though they were acknowledged (P1). SQLite does not look. It would even delete
    a ``-wal`` beside an empty file, and write a ``-wal`` beside another file into that file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        #: The path without symbolic links: SQLite names the ``-wal`` and the ``-shm`` after it.
        self._real = path
        #: Whether it is known that the jobs are in the file.
        self.knows = False
        self._file: tuple[int, int] | None = None
        #: Which ``-wal`` and ``-shm`` the last connection had; None before its first transaction.
        self._beside: list[tuple[int, int] | None] | None = None
        #: The file's size, and the time of its last write. Only a checkpoint changes them.
        self._written: tuple[int, int] | None = None
        #: The schema version in the file, without its ``-wal``.
        self._version = 0

    def before_opening(self) -> None:
        """:raises sqlite3.Error: if the file that has the name now must not be opened."""
        if not self.knows:
            self._refuse_to_forget()
            return
        found = self._there()
        self._read_version(found)
        if _identity(found) == self._file or self._beside is None:
            return
        if self._beside[0] is not None and self._beside[0] in self._find_beside():
            raise unusable(
                f"another file is in its place, but beside the -wal of the former: {PUT_BACK}; or, "
                "to go on with this one, stop dalga and remove the -wal and -shm, unless they are "
                "this one's"
            )

    def _refuse_to_forget(self) -> None:
        """:raises sqlite3.Error: where SQLite would delete a ``-wal`` to make a new database."""
        beside = os.path.realpath(self._path) + "-wal"
        if _size(self._path) == 0 < _size(beside):
            raise unusable(
                f"it is missing or empty, but {beside!r} is there, with what was committed last: "
                "put back the file that belongs to it, or remove it to begin without jobs"
            )

    def opened(self) -> None:
        """Remember the file that has just been opened."""
        found = self._there()
        self._file, self._written = _identity(found), _written(found)
        self._real = os.path.realpath(self._path)
        self._beside = None
        self._version = self._read_version(found) if self.knows else 0

    def begun(self) -> None:
        """Called when a transaction has begun: now the ``-wal`` and the ``-shm`` are there."""
        if self._beside is None:
            self._beside = self._find_beside()

    def before_transaction(self, cursor: Cursor) -> None:
        """:raises sqlite3.Error: if a write would be lost now, or harm another file."""
        if not self.knows:
            return
        found = self._there()
        if _identity(found) != self._file:
            self._read_version(found)  # raises, with more words, if the file is no database
            raise unusable(f"another file is in its place: {PUT_BACK}")
        if _written(found) != self._written:
            self._look_into(found)
        if self._beside is not None and self._find_beside() != self._beside:
            self._save(cursor)

    def _there(self) -> os.stat_result:
        try:
            return os.stat(self._path)
        except OSError as error:
            raise unusable(f"it was removed ({error.strerror}): put it back") from error

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
            raise unusable(f"the file that has its name is {what}: {PUT_BACK}")
        try:
            # An immutable file takes no lock, and its -wal is not looked at.
            immutable = uri(self._path, "mode=ro&immutable=1")
            with closing(sqlite3.connect(immutable, uri=True)) as connection:
                # A checkpoint that a reader holds up leaves the file shorter than its header says.
                # Without this pragma, SQLite takes that for damage.
                connection.execute("PRAGMA writable_schema = ON")
                ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        except sqlite3.Error as error:
            raise unusable(f"the file that has its name is no database: {PUT_BACK}") from error
        return int(version)

    def _look_into(self, found: os.stat_result) -> None:
        """:raises sqlite3.Error: if something else than a checkpoint wrote into the file."""
        try:
            version = self._read_version(found)
            if version not in (VERSION, self._version):
                raise unusable(f"another database was written over it: {PUT_BACK}")
        except sqlite3.Error as error:
            # The connection stays open: to close it would write the -wal into the other database,
            # and delete the -wal.
            raise _error(f"{error}, before dalga is stopped", sqlite3.SQLITE_BUSY) from error
        self._written, self._version = _written(found), version

    def _save(self, cursor: Cursor) -> None:
        """
        Write all that was committed into the file. SQLite still has the ``-wal`` open.

        :raises sqlite3.Error: in any case, so that a new connection makes a new ``-wal`` and
            ``-shm``.
        """
        what = "its -wal or -shm was removed or replaced under dalga"
        cursor.execute("PRAGMA wal_checkpoint(FULL)")
        ((busy, there, written),) = cursor.fetchall()
        if busy or there != written:
            raise _error(
                f"{what}, and another program holds the file: end that one, or put them back",
                sqlite3.SQLITE_BUSY,
            )
        raise unusable(
            f"{what}; all that was committed is in the file now, and nothing is lost: ask again"
        )


def _identity(found: os.stat_result) -> tuple[int, int]:
    """Which file it is, whatever its name."""
    return found.st_dev, found.st_ino


def _size(path: str) -> int:
    """A file's size in bytes; 0 for a file that is not there."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _written(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


class FileGuard:
    """
    Keeps a second daemon from the same file, by a lock on a file beside it (flock(2)). The kernel
    drops the lock when the process ends, however that ends.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = os.path.realpath(path) + ".lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """:raises StartupError: if another process has the lock, or the folder can't be written."""
        if os.path.isdir(self._path):
            raise StartupError(
                f"SQLite file {self._path!r} is a folder; name a file in it with path in [sqlite]"
            )
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if os.path.exists(self._lock):
                raise StartupError(
                    f"can't open {self._lock!r} beside the SQLite file: {error.strerror}; give "
                    f"both to {who()}, or name another file with path in [sqlite]"
                ) from error
            raise StartupError(
                f"can't make {self._lock!r} beside the SQLite file: {error.strerror}; choose a "
                f"folder that {who()} may write to with path in [sqlite]"
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
        """Let other daemons have the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
