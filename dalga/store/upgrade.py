"""
Upgrades. A table of the Go releases 1.0 to 4.0, which are on MySQL and MariaDB only, is copied into
a table of the present schema. A table of an earlier schema of ours is left to
`dalga.store.versions`.

The old table gets another name first (`BACKUP`). Then its rows are copied into a new table, which
is named `UNFINISHED` until it is complete, and then gets the jobs table's name. So

- from the first moment on, a program that still writes to the old table fails, and nothing that it
  writes is lost in silence;
- an upgrade that was interrupted finds all jobs in the old table, and begins again with the copy;
- no daemon sees half a table, and the old table stays as a backup.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from dalga.errors import StartupError
from dalga.model.duration import duration_from_text
from dalga.model.zone import check_location
from dalga.store.dialect import CopyingDialect, Cursor, Dialect
from dalga.store.rows import TOKEN_LENGTH, Unreadable, read_run
from dalga.store.schema import (
    BACKUP,
    GO_COLUMNS,
    GO_INSTANCES,
    UNFINISHED,
    VERSION,
    go_release,
    misfit,
)
from dalga.store.selected import DueRow, RunRow
from dalga.store.values import text_of
from dalga.store.versions import STATEMENTS, explained, in_place, time_of

#: Rows that are copied at a time.
BATCH = 1000

#: The upgrade gives a line about the copy each time that so many rows are copied.
PROGRESS = 100_000

#: How many jobs of each kind are named one by one, at most. The others are counted.
NAMED = 20

#: A Go instance whose last heartbeat is older than this (seconds) is gone. Go instances write one
#: each second, and forget an instance that wrote none for a minute.
FRESH = 60

# What the columns of the new table hold, in bytes and in characters.
MAX_KEY_BYTES = 1020
MAX_SCHEDULE = 255
MAX_LOCATION = 64


class Row(NamedTuple):
    """A job as it will stand in the new table. The values are those of the driver."""

    path: Any
    body: Any
    schedule: Any
    location: Any
    anchor: Any
    scheduled: Any
    due: Any
    disabled: Any


@dataclass(frozen=True, slots=True)
class Old:
    """The old table."""

    #: What its name adds to that of the jobs table: `BACKUP` if an upgrade was interrupted.
    suffix: str
    #: The collations of its columns, by the columns' names; "" if bytes are compared.
    columns: Mapping[str, str]
    #: The Go release that made the table.
    release: int


@dataclass
class Findings:
    """What a look at all rows of the old table has shown."""

    kinds: Counter[str] = field(default_factory=Counter)
    #: The first jobs that won't run, and why.
    unreadable: list[str] = field(default_factory=list)
    #: The first jobs that can't be copied, and why.
    obstacles: list[str] = field(default_factory=list)
    #: The first jobs whose keys the old collation takes for the same as others.
    folded: list[str] = field(default_factory=list)

    def note(self, kind: str, sentence: str) -> None:
        """Count one more of `unreadable`, `obstacles` or `folded`."""
        self.kinds[kind] += 1
        sentences: list[str] = getattr(self, kind)
        if len(sentences) < NAMED:
            sentences.append(sentence)


def upgrade(dialect: Dialect, dry_run: bool) -> Generator[str, None, None]:
    """
    Upgrade the table, or only say what that would do. Blocks.

    The generator gives each step's line before the step begins. To close the generator is to stop
    the upgrade.

    :return: what is found and done, a line at a time.
    :raises StartupError: with one sentence that says what is in the way.
    """
    try:
        with dialect.upgrading() as connection:
            last = yield from _upgrade(dialect, connection, dry_run)
    except Exception as error:
        sentence = explained(dialect, error)
        if sentence is None or isinstance(error, StartupError):
            raise
        raise StartupError(sentence) from error
    yield from last


def _upgrade(dialect: Dialect, connection: Any, dry_run: bool) -> Generator[str, None, list[str]]:
    """:return: what to say when all is committed."""
    cursor = connection.cursor()
    table = f"the table {dialect.table} in {dialect.where()}"
    columns = dialect.columns(cursor, "")
    version = dialect.version(cursor, "") if columns else None
    if version == VERSION:
        return [f"{table} has schema version {VERSION} already: there is nothing to do"]
    if version is not None and version in STATEMENTS:
        dialect.check_engine(cursor)
        return (yield from in_place(dialect, cursor, version, dry_run))
    copying = dialect.for_go_tables()
    old = None if copying is None or version is not None else _find(copying, cursor, table)
    if copying is not None and old is not None:
        return (yield from _copy(copying, connection, old, table, dry_run))
    if not columns:
        raise StartupError(
            f"there is no {table.removeprefix('the ')}, so there is nothing to upgrade: "
            "dalga --config FILE --create-table makes a new one"
        )
    raise StartupError(f"{table} {misfit(version, columns, None, dialect.another, 'that')}")


def _copy(
    dialect: CopyingDialect, connection: Any, old: Old, table: str, dry_run: bool
) -> Generator[str, None, list[str]]:
    """:return: what to say when all is done."""
    cursor = connection.cursor()
    dialect.check_engine(cursor)
    _refuse_while_used(dialect, cursor, table)
    if old.suffix:
        yield f"an upgrade of {table} was interrupted; all jobs are in {dialect.named(old.suffix)}"
    yield f"{table} was made by Go release {old.release} of Dalga"
    now = time_of(dialect, cursor)
    with closing(_rows(dialect, connection, old, now)) as rows:
        findings = look_at(rows, old.columns, now, dialect.read_instant)
    yield from describe(findings, old)
    if findings.obstacles:
        raise StartupError(
            f"{table} can't be upgraded as long as there is no room for each job in the new one: "
            f"mend or delete those first that are named above, in {dialect.named(old.suffix)}"
        )
    if not old.suffix:
        yield f"to be done: rename the table to {dialect.named(BACKUP)}, and keep it"
    yield (
        f"to be done: copy all jobs, with their next runs, into a new table {dialect.table} with "
        f"schema version {VERSION}"
    )
    if dry_run:
        return ["this was a dry run: nothing has been changed"]
    try:
        copied = yield from _replace(dialect, connection, old, table, now)
    except BaseException as error:
        left = _undo(dialect, cursor)
        sentence = explained(dialect, error)
        if sentence is None:
            raise
        raise StartupError(f"{sentence}; {left}") from error
    unused = [dialect.named(BACKUP)]
    if dialect.columns(cursor, GO_INSTANCES):
        unused.append(dialect.named(GO_INSTANCES))
    return [
        f"done; jobs in {table}: {copied}",
        f"not used any more, and to be dropped once all is well: {', '.join(unused)}",
    ]


def _find(dialect: CopyingDialect, cursor: Cursor, table: str) -> Old | None:
    """
    The table of a Go release; None where there is none.

    :raises StartupError: where it can't be upgraded.
    """
    suffix, columns = "", dialect.columns(cursor, "")
    backup = dialect.columns(cursor, BACKUP)
    if not columns:
        suffix, columns = BACKUP, backup
    release = go_release(columns)
    if release is None:
        return None
    if backup and not suffix:
        raise StartupError(
            f"the old table is to be kept as {dialect.named(BACKUP)}, but there is a table of that "
            "name, as an earlier upgrade leaves it: give that one another name, or drop it if it "
            "is not needed any more"
        )
    if dialect.columns(cursor, UNFINISHED) and dialect.version(cursor, UNFINISHED) is None:
        raise StartupError(
            f"the new table is to be made as {dialect.named(UNFINISHED)}, but there is a table of "
            "that name which Dalga has not made: give it another name"
        )
    if not _key_is_unique(dialect, cursor, suffix):
        raise StartupError(
            f"{table} has no primary key (path, body), as the Go releases give it, so a job may be "
            "in it twice: add that key first"
        )
    return Old(suffix, columns, release)


def _key_is_unique(dialect: Dialect, cursor: Cursor, suffix: str) -> bool:
    cursor.execute(
        "SELECT index_name FROM information_schema.statistics "
        "WHERE table_schema = DATABASE() AND table_name = %(table)s AND non_unique = 0 "
        "GROUP BY index_name HAVING SUM(column_name NOT IN ('path', 'body')) = 0",
        {"table": dialect.named(suffix).strip("`")},
    )
    return bool(cursor.fetchall())


def _refuse_while_used(dialect: Dialect, cursor: Cursor, table: str) -> None:
    """:raises StartupError: if a Go instance had a heartbeat lately. Release 1 has none."""
    if not dialect.columns(cursor, GO_INSTANCES):
        return
    # A heartbeat from the future is from before the database's clock was set back.
    cursor.execute(
        f"SELECT COUNT(*) FROM {dialect.named(GO_INSTANCES)} WHERE updated_at "
        f"BETWEEN UTC_TIMESTAMP() - INTERVAL {FRESH} SECOND "
        f"AND UTC_TIMESTAMP() + INTERVAL {FRESH} SECOND"
    )
    ((alive,),) = cursor.fetchall()
    if alive:
        raise StartupError(
            f"{table} is in use (Go instances with a heartbeat in "
            f"{dialect.named(GO_INSTANCES)} in the last {FRESH} seconds: {alive}): stop all of "
            f"them first; if they were killed, wait for {FRESH} seconds"
        )


# What is in the old table, and what is said about it


def look_at(
    rows: Iterable[Row],
    collations: Mapping[str, str],
    now: datetime,
    read_instant: Callable[[object], datetime],
) -> Findings:
    """
    Look at the old table's rows, for what an upgrade will meet.

    :param collations: of the old table's columns.
    :param now: the database's time.
    """
    findings = Findings()
    kinds = findings.kinds
    for row in rows:
        key = f"{text_of(row.path)!r:.80} {text_of(row.body)!r:.80}"
        obstacle = obstacle_of(row)
        if obstacle is not None:
            findings.note("obstacles", f"{key} {obstacle}")
            continue
        if any(folds(text_of(getattr(row, name)), collations[name]) for name in ("path", "body")):
            findings.note("folded", key)
        kinds["periodic" if row.schedule else "one-off"] += 1
        problem = problem_of(row, read_instant)
        if problem is not None:
            findings.note("unreadable", f"{key}: {problem}")
        elif row.disabled:
            kinds["disabled"] += 1
        elif row.due is None:
            kinds["set aside"] += 1
        elif all(_is_over(time, now, read_instant) for time in (row.due, row.scheduled)):
            kinds["overdue"] += 1
    return findings


def describe(findings: Findings, old: Old) -> Iterator[str]:
    """The findings, in lines."""
    kinds = findings.kinds
    yield (
        f"jobs in it: {kinds['periodic'] + kinds['one-off'] + kinds['obstacles']} "
        f"(periodic: {kinds['periodic']}, one-off: {kinds['one-off']}); overdue, so that they run "
        f"when Dalga starts: {kinds['overdue']}; disabled: {kinds['disabled']}"
        + (f"; set aside: {kinds['set aside']}" if kinds["set aside"] else "")
    )
    if old.release == 1:
        yield (
            "Go release 1 leaves no heartbeat in the table: make sure yourself that no instance "
            "runs any more"
        )
    foreign = [f"`{name}`" for name in old.columns if name not in GO_COLUMNS]
    if foreign:
        yield f"columns that are not Dalga's, and will not be copied: {', '.join(foreign)}"
    yield from _some(
        findings,
        "folded",
        "jobs whose path or body has capitals, accents or spaces at the end; until now every "
        "spelling meant the same job, from now on only this one does",
    )
    yield from _some(
        findings,
        "unreadable",
        "jobs that can't be understood; they are kept, but set aside until they are scheduled anew",
    )
    yield from _some(findings, "obstacles", "jobs that the new table has no room for")


def _some(findings: Findings, kind: str, sentence: str) -> Iterator[str]:
    count, some = findings.kinds[kind], getattr(findings, kind)
    if count:
        yield f"{sentence}: {count}"
        yield from (f"  {line}" for line in some)
        if count > len(some):
            yield f"  and {count - len(some)} more"


def obstacle_of(row: Row) -> str | None:
    """Why the new table has no room for a job; None if it has."""
    for name, value in (("path", row.path), ("body", row.body)):
        if value is None:
            return f"has no {name}"
        if len(value) > MAX_KEY_BYTES:
            return f"has a {name} of {len(value)} bytes, and {MAX_KEY_BYTES} are the most"
    return None


def problem_of(row: Row, read_instant: Callable[[object], datetime]) -> str | None:
    """Why a job will be set aside when it is due; None if it won't be."""
    location = text_of(row.location)
    problem = _location_problem(location)
    if problem is not None:
        return f"location is {location[:40]!r}, which {problem}"
    try:
        read_run(
            RunRow(
                id=0,
                path=row.path,
                body=row.body,
                schedule=row.schedule,
                location=row.location,
                options="",
                anchor=row.anchor,
                scheduled=row.scheduled,
                run=bytes(TOKEN_LENGTH),
                started=row.scheduled,
                attempts=1,
                successes=0,
                skipped=0,
                standing=0,
                override=0,
                disabled=0,
                version=0,
                extras=0,
                cause=0,
            ),
            DueRow(id=0, due=row.scheduled, override=0, token=None, options="", extras=0),
            b"",
            datetime.min,
            0.0,
            0.0,
            read_instant,
        )
    except Unreadable as unreadable:
        return str(unreadable)
    return None


@lru_cache(maxsize=1024)
def _location_problem(location: str) -> str | None:
    try:
        check_location(location)
    except ValueError as problem:
        return str(problem)
    return None


def folds(text: str, collation: str) -> bool:
    """
    Whether a collation takes a text for the same as another spelling that clients may well use.

    Each text with a letter has other spellings (JOB for job). The question is only about texts that
    are not in lower case ASCII.

    :param collation: "" if bytes are compared.
    """
    if not collation:
        return False
    # https://mariadb.com/kb/en/supported-character-sets-and-collations/ and, for MySQL,
    # https://dev.mysql.com/doc/refman/8.4/en/charset-unicode-sets.html: who counts trailing spaces.
    if text.endswith(" ") and "nopad" not in collation and "_0900_" not in collation:
        return True
    if collation.endswith(("_bin", "_as_cs")):
        return False
    return not text.isascii() or text != text.lower()


def _is_over(due: object, now: datetime, read_instant: Callable[[object], datetime]) -> bool:
    try:
        return read_instant(due) <= now
    except ValueError:
        return True  # no time: a claim will set the row aside


# From the Go releases' rows to ours


def from_go(row: Mapping[str, Any], now: Any) -> Row:
    """
    The job in a row of a Go release.

    ``next_run`` is the time (UTC) of the job's next run, of its retry, or of the run that was
    begun. It is NULL if the job is disabled, or was given up: the two can't be told apart.
    ``next_sched`` is the time (UTC) for which that run was scheduled. If ``instance_id`` is set,
    the job runs, or its instance died during a run. The job is due all the same.

    Values that can't be understood are copied as they are. A claim will set their rows aside.

    :param now: the database's time, aware UTC, as times of the row are.
    """
    due, scheduled = row["next_run"], row.get("next_sched")
    if isinstance(due, datetime):
        if not isinstance(scheduled, datetime) or due < scheduled:
            scheduled = due  # of releases 1 and 2; or somebody's SQL made the job due earlier
    elif due is not None:
        due = scheduled = scheduled if isinstance(scheduled, datetime) else due
    elif scheduled is None:
        scheduled = now
    return Row(
        path=row["path"],
        body=row["body"],
        schedule=go_schedule(row["interval"]),
        location=text_of(row.get("location") or "UTC")[:MAX_LOCATION],
        anchor=scheduled,
        scheduled=scheduled,
        due=due,
        disabled=int(due is None),
    )


def go_schedule(value: object) -> str:
    """
    A Go release's interval as a schedule.

    Releases 1 and 2 have seconds, 0 for a one-off job. Later releases have an ISO 8601 duration of
    whole numbers, maybe with weeks beside other units. For a one-off job they have an empty text,
    or a duration of nothing (``P0D``).
    """
    text = "NULL" if value is None else text_of(value)
    return _go_schedule(text)


_GO_INTERVAL = re.compile(
    r"P(?P<years>\d+Y)?(?P<months>\d+M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?P<time>T(?:\d+H)?(?:\d+M)?(?:\d+S)?)?",
    re.ASCII,
)


@lru_cache(maxsize=4096)
def _go_schedule(text: str) -> str:
    found = _GO_INTERVAL.fullmatch(text)
    if text in ("", "0") or (found is not None and not re.search("[1-9]", text)):
        return ""
    if found is not None and found["weeks"] and text != f"P{found['weeks']}W":
        days = 7 * int(found["weeks"]) + int(found["days"] or 0)
        date = (found["years"] or "") + (found["months"] or "")
        text = f"P{date}{days}D{found['time'] or ''}"
    try:
        return duration_from_text(text).text
    except ValueError:
        return text[:MAX_SCHEDULE]


# The database


def _rows(
    dialect: CopyingDialect, connection: Any, old: Old, now: datetime
) -> Generator[Row, None, None]:
    """All rows of the old table, as they will be in the new table."""
    names = [name for name in GO_COLUMNS if name in old.columns]
    columns = ", ".join(_as_bytes(name, old.columns[name]) for name in names)
    select = f"SELECT {columns} FROM {dialect.named(old.suffix)}"
    with closing(dialect.rows(connection, select)) as values:
        for row in values:
            yield from_go(dict(zip(names, row, strict=True)), now)


def _as_bytes(column: str, collation: str) -> str:
    """SQL for a column's value. Text is UTF-8, whatever the column's character set."""
    return f"CAST(CONVERT(`{column}` USING utf8mb4) AS BINARY)" if collation else f"`{column}`"


def _replace(
    dialect: CopyingDialect, connection: Any, old: Old, table: str, now: datetime
) -> Generator[str, None, int]:
    """
    Put a new table in the place of the old one.

    :return: how many jobs are in it.
    """
    cursor = connection.cursor()
    if not old.suffix:
        dialect.rename(cursor, "", BACKUP)
    old = Old(BACKUP, old.columns, old.release)
    # An instance that was started after the first look will find no table from now on.
    _refuse_while_used(dialect, cursor, table)
    if dialect.columns(cursor, UNFINISHED):
        cursor.execute(f"DROP TABLE {dialect.named(UNFINISHED)}")
    dialect.create(cursor, UNFINISHED)
    total = _count(dialect, cursor, BACKUP)
    said = 0
    with closing(_copied(dialect, connection, old, now)) as batches:
        for copied in batches:
            if copied - said >= PROGRESS:
                said = copied
                yield f"copied: {copied} of {total}"
    done = _count(dialect, cursor, UNFINISHED)
    if done != _count(dialect, cursor, BACKUP):
        raise StartupError(
            f"somebody wrote to {dialect.named(BACKUP)} or {dialect.named(UNFINISHED)} meanwhile"
        )
    dialect.rename(cursor, UNFINISHED, "")
    return done


def _copied(
    dialect: CopyingDialect, connection: Any, old: Old, now: datetime
) -> Generator[int, None, None]:
    """Copy the rows. After each batch, gives how many rows are copied by now."""
    cursor = connection.cursor()
    # The driver makes statements of several rows, as long as the server takes them.
    insert = (
        f"INSERT INTO {dialect.named(UNFINISHED)} ({', '.join(Row._fields)}) "
        f"VALUES ({', '.join(['%s'] * len(Row._fields))})"
    )
    copied = 0
    with closing(_rows(dialect, connection, old, now)) as rows:
        while batch := list(islice(rows, BATCH)):
            cursor.executemany(insert, batch)
            copied += len(batch)
            yield copied


def _undo(dialect: CopyingDialect, cursor: Cursor) -> str:
    """
    Give the old table its name back.

    :return: what to say about that.
    """
    try:
        if not dialect.columns(cursor, ""):
            dialect.rename(cursor, BACKUP, "")
            if dialect.columns(cursor, UNFINISHED):
                cursor.execute(f"DROP TABLE {dialect.named(UNFINISHED)}")
    except Exception:
        return f"all jobs are in {dialect.named(BACKUP)}, and the same command goes on from there"
    return "the old table is as it was"


def _count(dialect: Dialect, cursor: Cursor, suffix: str) -> int:
    cursor.execute(f"SELECT COUNT(*) FROM {dialect.named(suffix)}")
    ((count,),) = cursor.fetchall()
    return int(count)
