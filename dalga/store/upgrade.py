"""
Older tables, made into one of the present schema: those of the Go releases 1.0 to 4.0, which are on
MySQL and MariaDB only, and our own of earlier schemas.

The old table gets another name first (`BACKUP`). Then its rows are copied into a new table, which
gets the jobs table's name when it is complete (until then it is `UNFINISHED`). So

- what still writes to the old table fails from the first moment on, and is not lost in silence;
- a daemon that slept meanwhile, its connections open, fails when it goes on: each of its
  transactions begins with a look at the old table of instances, and that is gone too;
- an upgrade that was interrupted finds all jobs in the old table, and begins again with the copy;
- no daemon sees half a table, and the old one stays as a backup.

On SQLite all of that is one transaction besides.
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
from dalga.model.schedule import timestamp
from dalga.model.zone import check_location
from dalga.store.dialect import Cursor, Dialect, Trouble
from dalga.store.rows import TOKEN_LENGTH, DueRow, RunRow, Unreadable, read_run
from dalga.store.schema import (
    ALIVE,
    BACKUP,
    GO_COLUMNS,
    GO_INSTANCES,
    HEARTBEATS_OF,
    OLD_HEARTBEATS,
    UNFINISHED,
    VERSION,
    go_release,
    misfit,
)

#: Rows that are copied at a time.
BATCH = 1000

#: A line is said about the copy after so many rows.
PROGRESS = 100_000

#: Jobs that are named one by one; of the others there is a count.
NAMED = 20

#: Seconds. Go instances give a sign of life each second, and forget one that gave none for a
#: minute.
FRESH = 60

# What the columns of the new table hold, in bytes and in characters.
MAX_KEY_BYTES = 1020
MAX_SCHEDULE = 255
MAX_LOCATION = 64

#: By the version of an earlier schema of ours: where the columns of the new table come from, in
#: SQL. What is not named here has its default.
OWN_COLUMNS = {
    1: {
        "id": "id",
        "path": "path",
        "body": "body",
        "schedule": "`interval`",
        "location": "'UTC'",
        "anchor": "scheduled",
        "scheduled": "scheduled",
        "due": "due",
        "run": "run",
        "attempts": "attempts",
        "error": "error",
        "token": "token",
        "superseded": "superseded",
    }
}


class Row(NamedTuple):
    """
    A job as it will stand in the new table; values as the driver gives and takes them.

    Of our own tables these are the columns that are looked at; more are copied.
    """

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

    #: `BACKUP` where an upgrade was interrupted.
    suffix: str
    #: With their collations; "" where bytes are compared.
    columns: Mapping[str, str]
    #: The schema's; None for a table of a Go release.
    version: int | None
    #: The Go release; None for a table of our own.
    release: int | None

    @property
    def is_job(self) -> str:
        """SQL for which rows are jobs: all but those deleted during a run that is over by now."""
        return "TRUE" if self.version is None else "superseded <> 2"


@dataclass
class Findings:
    """What a look at all rows has shown."""

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

    What is to be done is said before it is begun. Closing the generator stops the upgrade.

    :return: what is found and done, a line at a time.
    :raises StartupError: with one sentence that says what is in the way.
    """
    try:
        with dialect.upgrading() as connection:
            last = yield from _upgrade(dialect, connection, dry_run)
    except Exception as error:
        sentence = _explain(dialect, error)
        if sentence is None or isinstance(error, StartupError):
            raise
        raise StartupError(sentence) from error
    yield from last


def _upgrade(dialect: Dialect, connection: Any, dry_run: bool) -> Generator[str, None, list[str]]:
    """:return: what to say when all is committed."""
    cursor = connection.cursor()
    table = f"the table {dialect.table} in {dialect.where()}"
    old = _find(dialect, cursor, table)
    if old is None:
        return [f"{table} has schema version {VERSION} already: there is nothing to do"]
    dialect.check_engine(cursor)
    _refuse_while_used(dialect, cursor, old, table)
    if old.suffix:
        yield f"an upgrade of {table} was interrupted; all jobs are in {dialect.named(old.suffix)}"
    yield f"{table} {_maker(old)}"
    now = _now(dialect, cursor)
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
        if dialect.upgrades_at_once:
            left = "nothing has been changed"
        else:
            left = _undo(dialect, cursor, old.version)
        sentence = _explain(dialect, error)
        if sentence is None:
            raise
        raise StartupError(f"{sentence}; {left}") from error
    unused = [dialect.named(BACKUP)]
    if old.release is not None and dialect.columns(cursor, GO_INSTANCES):
        unused.append(dialect.named(GO_INSTANCES))
    return [
        f"done; jobs in {table}: {copied}",
        f"not used any more, and to be dropped once all is well: {', '.join(unused)}",
    ]


def _find(dialect: Dialect, cursor: Cursor, table: str) -> Old | None:
    """
    The table to upgrade; None where there is nothing to do.

    :raises StartupError: where there is none, or it can't be upgraded.
    """
    suffix, columns = "", dialect.columns(cursor, "")
    backup = dialect.columns(cursor, BACKUP)
    if not columns:
        if not backup:
            raise StartupError(
                f"there is no {table.removeprefix('the ')}, so there is nothing to upgrade: "
                "dalga --config FILE --create-table makes a new one"
            )
        suffix, columns = BACKUP, backup
    version = dialect.version(cursor, suffix)
    if version == VERSION and not suffix:
        return None
    release = go_release(columns) if version is None and dialect.has_go_tables else None
    if release is None and version not in OWN_COLUMNS:
        what = misfit(version, columns, None, dialect.another, "that")
        raise StartupError(f"{table} {what}")
    if backup and not suffix:
        raise StartupError(
            f"the old table is to be kept as {dialect.named(BACKUP)}, but there is a table of that "
            "name, as an earlier upgrade leaves it: give that one another name, or drop it if it "
            "is not needed any more"
        )
    if dialect.columns(cursor, UNFINISHED) and dialect.version(cursor, UNFINISHED) != VERSION:
        raise StartupError(
            f"the new table is to be made as {dialect.named(UNFINISHED)}, but there is a table of "
            "that name which Dalga has not made: give it another name"
        )
    if release is not None and not _key_is_unique(dialect, cursor, suffix):
        raise StartupError(
            f"{table} has no primary key (path, body), as the Go releases give it, so a job may be "
            "in it twice: add that key first"
        )
    return Old(suffix, columns, version, release)


def _key_is_unique(dialect: Dialect, cursor: Cursor, suffix: str) -> bool:
    cursor.execute(
        "SELECT index_name FROM information_schema.statistics "
        "WHERE table_schema = DATABASE() AND table_name = %(table)s AND non_unique = 0 "
        "GROUP BY index_name HAVING SUM(column_name NOT IN ('path', 'body')) = 0",
        {"table": dialect.named(suffix).strip("`")},
    )
    return bool(cursor.fetchall())


def _refuse_while_used(dialect: Dialect, cursor: Cursor, old: Old, table: str) -> None:
    """:raises StartupError: if an instance shows signs of life, as far as its release gives any."""
    if old.release is None:
        for suffix in (OLD_HEARTBEATS, HEARTBEATS_OF.get(old.version or 0)):
            if suffix and dialect.columns(cursor, suffix):
                _refuse_while_alive(dialect, cursor, dialect.named(suffix), table)
        cursor.execute(
            f"SELECT COUNT(*), MAX(due) FROM {dialect.named(old.suffix)} "
            "WHERE token IS NOT NULL AND due > UTC_TIMESTAMP(6)"
        )
        ((running, last),) = cursor.fetchall()
        if running:
            raise StartupError(
                f"{table} is in use (runs under way: {running}): stop all instances first; if they "
                f"were killed, wait until {timestamp(dialect.read_instant(last))}"
            )
    elif dialect.columns(cursor, GO_INSTANCES):
        # A sign of life from the future is from before the database's clock was set back.
        cursor.execute(
            f"SELECT COUNT(*) FROM {dialect.named(GO_INSTANCES)} WHERE updated_at "
            f"BETWEEN UTC_TIMESTAMP() - INTERVAL {FRESH} SECOND "
            f"AND UTC_TIMESTAMP() + INTERVAL {FRESH} SECOND"
        )
        ((alive,),) = cursor.fetchall()
        if alive:
            raise StartupError(
                f"{table} is in use (Go instances that gave a sign of life in "
                f"{dialect.named(GO_INSTANCES)} in the last {FRESH} seconds: {alive}): stop all of "
                f"them first; if they were killed, wait for {FRESH} seconds"
            )


def _refuse_while_alive(dialect: Dialect, cursor: Cursor, heartbeats: str, table: str) -> None:
    """:raises StartupError: if an instance has given a sign of life lately."""
    now = _now(dialect, cursor)
    # A sign of life from the future is from before the database's clock was set back.
    lately = dialect.prepare(
        f"SELECT id, seen FROM {heartbeats} WHERE seen > %(from)s AND seen <= %(to)s"
    )
    times = {"from": dialect.instant(now - ALIVE), "to": dialect.instant(now + ALIVE)}
    lately.execute(cursor, **times)
    found = cursor.fetchall()
    if found:
        names = ", ".join(sorted(_text(name) for name, _ in found))
        last = max(dialect.read_instant(seen) for _, seen in found)
        raise StartupError(
            f"{table} is in use (instances that gave a sign of life in the last "
            f"{ALIVE.total_seconds():.0f} seconds: {names}): stop them first; if they were killed, "
            f"wait until {timestamp(last + ALIVE)}"
        )


# What is in the old table, and what is said about it


def look_at(
    rows: Iterable[Row],
    collations: Mapping[str, str],
    now: datetime,
    read_instant: Callable[[object], datetime],
) -> Findings:
    """
    What an upgrade will meet.

    :param collations: of the old table's columns.
    :param now: the database's time.
    """
    findings = Findings()
    kinds = findings.kinds
    for row in rows:
        key = f"{_text(row.path)!r:.80} {_text(row.body)!r:.80}"
        obstacle = obstacle_of(row)
        if obstacle is not None:
            findings.note("obstacles", f"{key} {obstacle}")
            continue
        if any(folds(_text(getattr(row, name)), collations[name]) for name in ("path", "body")):
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
            "Go release 1 leaves no sign of life in the table: make sure yourself that no instance "
            "runs any more"
        )
    if old.release is not None:
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


def _maker(old: Old) -> str:
    if old.release is not None:
        return f"was made by Go release {old.release} of Dalga"
    return f"has schema version {old.version}, of an earlier version of Dalga"


def obstacle_of(row: Row) -> str | None:
    """Why there is no room for it in the new table."""
    for name, value in (("path", row.path), ("body", row.body)):
        if value is None:
            return f"has no {name}"
        if len(value) > MAX_KEY_BYTES:
            return f"has a {name} of {len(value)} bytes, and {MAX_KEY_BYTES} are the most"
    return None


def problem_of(row: Row, read_instant: Callable[[object], datetime]) -> str | None:
    """Why it will be set aside when it is due."""
    location = _text(row.location)
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
                failed=0,
                override=0,
                disabled=0,
            ),
            DueRow(id=0, due=row.scheduled, override=0),
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
    Whether a collation takes a text for the same as another that clients may well use instead.

    Any text with a letter in it has such others (JOB for job). It is about those which are not
    written as most are.

    :param collation: "" where bytes are compared.
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
        return True  # a claim will find it


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# From the Go releases' rows to ours


def from_go(row: Mapping[str, Any], now: Any) -> Row:
    """
    The job in a row of a Go release.

    ``next_run`` is when it runs next, retries and runs that were begun included; NULL if it is
    disabled, or was given up, which can't be told apart. ``next_sched`` is for when that run was
    scheduled. Both are UTC. A job whose ``instance_id`` is set runs, or did when its instance
    died; it is still due.

    Values that can't be understood are taken over as they are, for a claim to find.

    :param now: the database's time as a value of a time column.
    """
    due, scheduled = row["next_run"], row.get("next_sched")
    if isinstance(due, datetime):
        if not isinstance(scheduled, datetime) or due < scheduled:
            scheduled = due  # releases 1 and 2; or somebody made it due earlier, by SQL
    elif due is not None:
        due = scheduled = scheduled if isinstance(scheduled, datetime) else due
    elif scheduled is None:
        scheduled = now
    return Row(
        path=row["path"],
        body=row["body"],
        schedule=go_schedule(row["interval"]),
        location=_text(row.get("location") or "UTC")[:MAX_LOCATION],
        anchor=scheduled,
        scheduled=scheduled,
        due=due,
        disabled=int(due is None),
    )


def go_schedule(value: object) -> str:
    """
    A Go release's interval as a schedule.

    Releases 1 and 2 have seconds, 0 for a one-off job. Later ones have an ISO 8601 duration of
    whole numbers, with weeks beside other units if need be, and nothing, or a duration of nothing
    (``P0D``), for a one-off job.
    """
    text = "NULL" if value is None else _text(value)
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


def _rows(dialect: Dialect, connection: Any, old: Old, now: datetime) -> Generator[Row, None, None]:
    """All rows of the old table, as they will be in the new one."""
    if old.version is not None:
        columns = ", ".join(OWN_COLUMNS[old.version].get(name, "0") for name in Row._fields)
    else:
        names = [name for name in GO_COLUMNS if name in old.columns]
        columns = ", ".join(_as_bytes(name, old.columns[name]) for name in names)
    select = f"SELECT {columns} FROM {dialect.named(old.suffix)} WHERE {old.is_job}"
    at = dialect.instant(now)
    with closing(dialect.rows(connection, select)) as values:
        for row in values:
            if old.version is not None:
                yield Row(*row)
            else:
                yield from_go(dict(zip(names, row, strict=True)), at)


def _as_bytes(column: str, collation: str) -> str:
    """SQL for a column's value, which is UTF-8 if it is text, whatever the column's charset."""
    return f"CAST(CONVERT(`{column}` USING utf8mb4) AS BINARY)" if collation else f"`{column}`"


def _replace(
    dialect: Dialect, connection: Any, old: Old, table: str, now: datetime
) -> Generator[str, None, int]:
    """
    Put a new table in the place of the old one.

    :return: how many jobs are in it.
    """
    cursor = connection.cursor()
    if not old.suffix:
        dialect.rename(cursor, "", BACKUP)
    old = Old(BACKUP, old.columns, old.version, old.release)
    heartbeats = HEARTBEATS_OF.get(old.version or 0)
    if heartbeats and dialect.columns(cursor, heartbeats):
        if dialect.columns(cursor, OLD_HEARTBEATS):
            cursor.execute(f"DROP TABLE {dialect.named(OLD_HEARTBEATS)}")
        # From now on no transaction of the old version begins, and none is under way.
        dialect.rename(cursor, heartbeats, OLD_HEARTBEATS)
    # An instance that was started after the first look will find no table from now on.
    _refuse_while_used(dialect, cursor, old, table)
    if dialect.columns(cursor, UNFINISHED):
        cursor.execute(f"DROP TABLE {dialect.named(UNFINISHED)}")
    dialect.create(cursor, UNFINISHED)
    total = _count(dialect, cursor, BACKUP, old.is_job)
    copy = _copy_own if old.version is not None else _copy_go
    said = 0
    with closing(copy(dialect, connection, old, now)) as batches:
        for copied in batches:
            if copied - said >= PROGRESS:
                said = copied
                yield f"copied: {copied} of {total}"
    done = _count(dialect, cursor, UNFINISHED, "TRUE")
    if done != _count(dialect, cursor, BACKUP, old.is_job):
        raise StartupError(
            f"somebody wrote to {dialect.named(BACKUP)} or {dialect.named(UNFINISHED)} meanwhile"
        )
    dialect.rename(cursor, UNFINISHED, "")
    if dialect.columns(cursor, OLD_HEARTBEATS):
        cursor.execute(f"DROP TABLE {dialect.named(OLD_HEARTBEATS)}")
    return done


def _copy_own(
    dialect: Dialect, connection: Any, old: Old, now: datetime
) -> Generator[int, None, None]:
    """Copy an earlier table of ours; gives how many rows are copied by now."""
    assert old.version is not None
    source = OWN_COLUMNS[old.version]
    cursor = connection.cursor()
    last_of_batch = dialect.prepare(
        f"SELECT MAX(id) FROM (SELECT id FROM {dialect.named(old.suffix)} WHERE id > %(last)s "
        f"ORDER BY id LIMIT {BATCH}) AS batch"
    )
    insert = dialect.prepare(
        f"INSERT INTO {dialect.named(UNFINISHED)} ({', '.join(source)}) "
        f"SELECT {', '.join(source.values())} FROM {dialect.named(old.suffix)} "
        f"WHERE id > %(last)s AND id <= %(following)s AND {old.is_job}"
    )
    copied, last = 0, -(2**63)
    while True:
        last_of_batch.execute(cursor, last=last)
        ((following,),) = cursor.fetchall()
        if following is None:
            return
        copied += insert.execute(cursor, last=last, following=following)
        last = following
        yield copied


def _copy_go(
    dialect: Dialect, connection: Any, old: Old, now: datetime
) -> Generator[int, None, None]:
    """Copy a Go release's table; gives how many rows are copied by now."""
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


def _undo(dialect: Dialect, cursor: Cursor, version: int | None) -> str:
    """
    Give the old tables their names back; gives what to say about that.

    :param version: the old schema's; None for a table of a Go release.
    """
    try:
        if dialect.columns(cursor, OLD_HEARTBEATS):
            dialect.rename(cursor, OLD_HEARTBEATS, HEARTBEATS_OF[version or 0])
        if not dialect.columns(cursor, ""):
            dialect.rename(cursor, BACKUP, "")
            if dialect.columns(cursor, UNFINISHED):
                cursor.execute(f"DROP TABLE {dialect.named(UNFINISHED)}")
    except Exception:
        return f"all jobs are in {dialect.named(BACKUP)}, and the same command goes on from there"
    return "the old table is as it was"


def _count(dialect: Dialect, cursor: Cursor, suffix: str, condition: str) -> int:
    cursor.execute(f"SELECT COUNT(*) FROM {dialect.named(suffix)} WHERE {condition}")
    ((count,),) = cursor.fetchall()
    return int(count)


def _now(dialect: Dialect, cursor: Cursor) -> datetime:
    cursor.execute("SELECT UTC_TIMESTAMP(6)")
    ((now,),) = cursor.fetchall()
    return dialect.read_instant(now)


def _explain(dialect: Dialect, error: BaseException) -> str | None:
    """What went wrong, in a sentence; None for a mistake of the program, or an interruption."""
    if isinstance(error, StartupError):
        return str(error)
    if not isinstance(error, Exception):
        return None
    if dialect.trouble(error) is Trouble.BUSY:
        return (
            f"the table {dialect.table} in {dialect.where()} is locked by somebody else, such as a "
            "backup or a transaction that was left open: try again when that is over"
        )
    return dialect.explain(error)
