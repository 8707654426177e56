"""
Our own upgrades: from each schema version to the next, in place.

The steps from version 4 to version 5 on a server:

    1. ALTER TABLE dalga_alive_4 RENAME TO dalga_alive_5
    2. A second look. Is an instance alive, or a run under way? Then the first step is undone.
    3. CREATE TABLE IF NOT EXISTS dalga_runs ..., ALTER TABLE dalga_alive_5 ADD ...,
       ALTER TABLE dalga ADD ...
    4. ALTER TABLE dalga COMMENT = 'dalga schema 5'

The rule: one statement changes what the old version needs of the jobs table, and the same statement
sets the table's version. So an interrupted upgrade has left a whole table of one version or the
other, and the same command goes on from there. A daemon of the old version can live with what the
statements before that one do. They may be run twice; columns and indexes that are there are not
added again.

Daemons of the old version: each of their transactions begins with a look at their table of
instances. The first step waits for the transactions that have begun (a metadata lock), and after
the first step no transaction begins, nor does such a daemon start. So a daemon that slept through
the upgrade changes nothing, and claims no run.

On SQLite all steps are one transaction, and daemons look at ``user_version`` instead.

A new version of the schema is a text in `STATEMENTS`, a `VERSION` and a name of the table of
instances in `dalga.store.schema`, and the schema before it as a file of ``tests/old_tables``.

Only a Go release's table is copied: see `dalga.store.upgrade`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Mapping
from datetime import datetime
from typing import NamedTuple

from dalga.errors import StartupError
from dalga.model.schedule import timestamp
from dalga.store.dialect import Cursor, Dialect, Trouble
from dalga.store.schema import (
    ACTIONS,
    ALERTS,
    ALIVE,
    AUDIT,
    BESIDE,
    BESIDE_SINCE,
    EXPECTED,
    HEARTBEATS,
    HEARTBEATS_OF,
    KEYS,
    RUNS,
    TAGS,
    VERSION,
    columns_of,
)
from dalga.store.values import text_of

#: By schema version and engine: the statements that make the jobs table one of the next version.
#: On a server the last statement sets the version. The others may be run twice, or add something to
#: the jobs table, and `steps` leaves them out where that is there.
#: ``{table}`` is the jobs table's name, also where it begins another name; ``{instances}`` is the
#: name of the next version's table of instances, which `steps` renames where there is one already.
STATEMENTS: Mapping[int, Mapping[str, str]] = {
    1: {
        "mysql": """
            CREATE TABLE IF NOT EXISTS {instances} (
                id   VARBINARY(255) NOT NULL PRIMARY KEY,
                seen DATETIME(6)    NOT NULL
            ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;
            ALTER TABLE {table}
                CHANGE `interval` schedule VARCHAR(255) NOT NULL,
                ADD location  VARCHAR(64)      NOT NULL DEFAULT 'UTC'       AFTER schedule,
                ADD options   VARCHAR(255)     NOT NULL DEFAULT ''          AFTER location,
                ADD anchor    DATETIME(6)      NOT NULL DEFAULT (scheduled) AFTER options,
                ADD started   DATETIME(6)      NULL                         AFTER run,
                ADD successes INT UNSIGNED     NOT NULL DEFAULT 0           AFTER error,
                ADD skipped   INT UNSIGNED     NOT NULL DEFAULT 0           AFTER successes,
                ADD failed    TINYINT UNSIGNED NOT NULL DEFAULT 0           AFTER skipped,
                ADD disabled  TINYINT UNSIGNED NOT NULL DEFAULT 0           AFTER failed,
                COMMENT = 'dalga schema 2'
            """,
        "sqlite": """
            CREATE TABLE IF NOT EXISTS {instances} (
                id   TEXT NOT NULL PRIMARY KEY,
                seen TEXT NOT NULL
            );
            ALTER TABLE {table} RENAME COLUMN "interval" TO schedule;
            ALTER TABLE {table} ADD location  TEXT    NOT NULL DEFAULT 'UTC';
            ALTER TABLE {table} ADD options   TEXT    NOT NULL DEFAULT '';
            ALTER TABLE {table} ADD anchor    TEXT    NOT NULL DEFAULT '';
            ALTER TABLE {table} ADD started   TEXT    NULL;
            ALTER TABLE {table} ADD successes INTEGER NOT NULL DEFAULT 0;
            ALTER TABLE {table} ADD skipped   INTEGER NOT NULL DEFAULT 0;
            ALTER TABLE {table} ADD failed    INTEGER NOT NULL DEFAULT 0;
            ALTER TABLE {table} ADD disabled  INTEGER NOT NULL DEFAULT 0;
            UPDATE {table} SET anchor = scheduled;
            PRAGMA user_version = 2
            """,
    },
    2: {
        # No rows are written anew: the length of `options` took two bytes before, too. An upgrade
        # from version 1 has left the anchor a default.
        "mysql": """
            ALTER TABLE {table}
                RENAME COLUMN superseded TO override,
                MODIFY options VARCHAR(1024) NOT NULL DEFAULT '',
                ALTER anchor DROP DEFAULT,
                COMMENT = 'dalga schema 3'
            """,
        "sqlite": """
            ALTER TABLE {table} RENAME COLUMN superseded TO override;
            PRAGMA user_version = 3
            """,
    },
    3: {
        # The rows that a claim has set aside are few. They stay set aside for version 3, too.
        # Columns are added apart: MySQL would write each row anew if a comment came with them.
        "mysql": """
            CREATE TABLE IF NOT EXISTS {details} (
                id          BIGINT UNSIGNED NOT NULL PRIMARY KEY,
                path        VARBINARY(1020) NOT NULL,
                body        VARBINARY(1020) NOT NULL,
                members     MEDIUMTEXT      NOT NULL,
                payload     MEDIUMBLOB      NULL
            ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;
            CREATE TABLE IF NOT EXISTS {tags} (
                tag         VARBINARY(256)  NOT NULL,
                path        VARBINARY(1020) NOT NULL,
                body        VARBINARY(1020) NOT NULL,
                id          BIGINT UNSIGNED NOT NULL,
                PRIMARY KEY (tag, path, body),
                KEY id (id)
            ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;
            CREATE TABLE IF NOT EXISTS {keys} (
                path        VARBINARY(1020) NOT NULL,
                idempotency VARBINARY(255)  NOT NULL,
                digest      BINARY(32)      NOT NULL,
                body        VARBINARY(1020) NOT NULL,
                version     BIGINT UNSIGNED NOT NULL,
                made        DATETIME(6)     NOT NULL,
                PRIMARY KEY (path, idempotency),
                KEY made (made)
            ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;
            ALTER TABLE {table} ADD KEY state (disabled, failed);
            ALTER TABLE {table}
                ADD version BIGINT UNSIGNED NOT NULL DEFAULT 0,
                ADD extras  INT UNSIGNED    NOT NULL DEFAULT 0;
            UPDATE {table} SET failed = 4 WHERE due IS NULL AND disabled = 0 AND failed <> 2;
            ALTER TABLE {table}
                RENAME COLUMN failed TO standing,
                COMMENT = 'dalga schema 4'
            """,
        "sqlite": """
            CREATE TABLE IF NOT EXISTS {details} (
                id          INTEGER PRIMARY KEY,
                path        TEXT    NOT NULL,
                body        TEXT    NOT NULL,
                members     TEXT    NOT NULL,
                payload     BLOB    NULL
            );
            CREATE TABLE IF NOT EXISTS {tags} (
                tag         TEXT    NOT NULL,
                path        TEXT    NOT NULL,
                body        TEXT    NOT NULL,
                id          INTEGER NOT NULL,
                PRIMARY KEY (tag, path, body)
            ) WITHOUT ROWID;
            CREATE INDEX IF NOT EXISTS {tags_id} ON {tags} (id);
            CREATE TABLE IF NOT EXISTS {keys} (
                path        TEXT    NOT NULL,
                idempotency TEXT    NOT NULL,
                digest      BLOB    NOT NULL,
                body        TEXT    NOT NULL,
                version     INTEGER NOT NULL,
                made        TEXT    NOT NULL,
                PRIMARY KEY (path, idempotency)
            ) WITHOUT ROWID;
            CREATE INDEX IF NOT EXISTS {keys_made} ON {keys} (made);
            UPDATE {table} SET failed = 4 WHERE due IS NULL AND disabled = 0 AND failed <> 2;
            ALTER TABLE {table} RENAME COLUMN failed TO standing;
            ALTER TABLE {table} ADD version INTEGER NOT NULL DEFAULT 0;
            ALTER TABLE {table} ADD extras  INTEGER NOT NULL DEFAULT 0;
            CREATE INDEX {state} ON {table} (disabled, standing)
                WHERE disabled <> 0 OR standing <> 0;
            PRAGMA user_version = 4
            """,
    },
    4: {
        # Columns are added apart, as above.
        "mysql": """
            CREATE TABLE IF NOT EXISTS {runs} (
                failed     TINYINT UNSIGNED NOT NULL,
                at         BIGINT UNSIGNED  NOT NULL,
                job        BIGINT UNSIGNED  NOT NULL,
                run        BINARY(16)       NOT NULL,
                path       VARBINARY(1020)  NOT NULL,
                body       VARBINARY(1020)  NOT NULL,
                pathkey    BIGINT           NOT NULL,
                jobkey     BIGINT           NOT NULL,
                endpoint   VARBINARY(255)   NOT NULL,
                cause      TINYINT UNSIGNED NOT NULL,
                result     TINYINT UNSIGNED NULL,
                status     SMALLINT UNSIGNED NULL,
                kind       TINYINT UNSIGNED NOT NULL DEFAULT 0,
                scheduled  DATETIME(6)      NOT NULL,
                claimed    DATETIME(6)      NOT NULL,
                started    DATETIME(6)      NULL,
                ended      DATETIME(6)      NULL,
                lateness   BIGINT           NOT NULL,
                attempts   INT UNSIGNED     NOT NULL,
                instance   VARBINARY(255)   NOT NULL,
                error      VARCHAR(255)     NULL,
                more       MEDIUMTEXT       NULL,
                answer     MEDIUMTEXT       NULL,
                PRIMARY KEY (failed, at, job),
                KEY run (run),
                KEY jobruns (jobkey, failed, at, job),
                KEY pathruns (pathkey, failed, at, job)
            ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;
            CREATE TABLE IF NOT EXISTS {alerts} (
                id         BINARY(16)       NOT NULL PRIMARY KEY,
                event      VARCHAR(32)      NOT NULL,
                endpoint   VARBINARY(255)   NOT NULL,
                path       VARBINARY(1020)  NULL,
                body       VARBINARY(1020)  NULL,
                target     VARBINARY(255)   NOT NULL,
                made       DATETIME(6)      NOT NULL,
                due        DATETIME(6)      NULL,
                token      BINARY(16)       NULL,
                attempts   INT UNSIGNED     NOT NULL DEFAULT 0,
                sent       DATETIME(6)      NULL,
                error      VARCHAR(255)     NULL,
                content    MEDIUMTEXT       NOT NULL,
                KEY alertdue (due),
                KEY alertsent (endpoint, sent)
            ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;
            CREATE TABLE IF NOT EXISTS {incidents} (
                name       VARBINARY(255)   NOT NULL PRIMARY KEY,
                since      DATETIME(6)      NOT NULL,
                instance   VARBINARY(255)   NOT NULL
            ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;
            CREATE TABLE IF NOT EXISTS {expected} (
                id         BIGINT UNSIGNED  NOT NULL PRIMARY KEY,
                path       VARBINARY(1020)  NOT NULL,
                body       VARBINARY(1020)  NOT NULL,
                silent     DATETIME(6)      NULL,
                KEY silent (silent)
            ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;
            CREATE TABLE IF NOT EXISTS {stats} (
                scope      TINYINT UNSIGNED NOT NULL,
                step       INT UNSIGNED     NOT NULL,
                at         DATETIME(6)      NOT NULL,
                endpoint   VARBINARY(255)   NOT NULL,
                path       VARBINARY(1020)  NOT NULL,
                result     TINYINT UNSIGNED NOT NULL,
                instance   VARBINARY(255)   NOT NULL,
                runs       BIGINT UNSIGNED  NOT NULL,
                attempts   BIGINT UNSIGNED  NOT NULL,
                lateness   TEXT             NOT NULL,
                duration   TEXT             NOT NULL,
                PRIMARY KEY (scope, step, at, endpoint, path, result, instance)
            ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;
            CREATE TABLE IF NOT EXISTS {actions} (
                id         VARBINARY(26)    NOT NULL PRIMARY KEY,
                made       DATETIME(6)      NOT NULL,
                ended      DATETIME(6)      NULL,
                due        DATETIME(6)      NULL,
                token      BINARY(16)       NULL,
                instance   VARBINARY(255)   NULL,
                request    MEDIUMTEXT       NOT NULL,
                state      VARCHAR(16)      NOT NULL,
                matched    BIGINT UNSIGNED  NOT NULL DEFAULT 0,
                done       BIGINT UNSIGNED  NOT NULL DEFAULT 0,
                failed     BIGINT UNSIGNED  NOT NULL DEFAULT 0,
                place      MEDIUMTEXT       NOT NULL,
                error      VARCHAR(255)     NULL,
                KEY actiondue (due)
            ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;
            ALTER TABLE {instances}
                ADD since DATETIME(6)   NULL,
                ADD about VARCHAR(1024) NOT NULL DEFAULT '';
            ALTER TABLE {table}
                ADD streak  INT UNSIGNED     NOT NULL DEFAULT 0,
                ADD alerted TINYINT UNSIGNED NOT NULL DEFAULT 0,
                ADD cause   TINYINT UNSIGNED NOT NULL DEFAULT 0;
            ALTER TABLE {table} COMMENT = 'dalga schema 5'
            """,
        "sqlite": """
            CREATE TABLE IF NOT EXISTS {runs} (
                failed     INTEGER NOT NULL,
                at         INTEGER NOT NULL,
                job        INTEGER NOT NULL,
                run        BLOB    NOT NULL,
                path       TEXT    NOT NULL,
                body       TEXT    NOT NULL,
                pathkey    INTEGER NOT NULL,
                jobkey     INTEGER NOT NULL,
                endpoint   TEXT    NOT NULL,
                cause      INTEGER NOT NULL,
                result     INTEGER NULL,
                status     INTEGER NULL,
                kind       INTEGER NOT NULL DEFAULT 0,
                scheduled  TEXT    NOT NULL,
                claimed    TEXT    NOT NULL,
                started    TEXT    NULL,
                ended      TEXT    NULL,
                lateness   INTEGER NOT NULL,
                attempts   INTEGER NOT NULL,
                instance   TEXT    NOT NULL,
                error      TEXT    NULL,
                more       TEXT    NULL,
                answer     TEXT    NULL,
                PRIMARY KEY (failed, at, job)
            ) WITHOUT ROWID;
            CREATE INDEX IF NOT EXISTS {runs_run} ON {runs} (run);
            CREATE INDEX IF NOT EXISTS {runs_jobruns} ON {runs} (jobkey, failed, at, job);
            CREATE INDEX IF NOT EXISTS {runs_pathruns} ON {runs} (pathkey, failed, at, job);
            CREATE TABLE IF NOT EXISTS {alerts} (
                id         BLOB    NOT NULL PRIMARY KEY,
                event      TEXT    NOT NULL,
                endpoint   TEXT    NOT NULL,
                path       TEXT    NULL,
                body       TEXT    NULL,
                target     TEXT    NOT NULL,
                made       TEXT    NOT NULL,
                due        TEXT    NULL,
                token      BLOB    NULL,
                attempts   INTEGER NOT NULL DEFAULT 0,
                sent       TEXT    NULL,
                error      TEXT    NULL,
                content    TEXT    NOT NULL
            );
            CREATE INDEX IF NOT EXISTS {alerts_alertdue} ON {alerts} (due);
            CREATE INDEX IF NOT EXISTS {alerts_alertsent} ON {alerts} (endpoint, sent);
            CREATE TABLE IF NOT EXISTS {incidents} (
                name       TEXT    NOT NULL PRIMARY KEY,
                since      TEXT    NOT NULL,
                instance   TEXT    NOT NULL
            ) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS {expected} (
                id         INTEGER PRIMARY KEY,
                path       TEXT    NOT NULL,
                body       TEXT    NOT NULL,
                silent     TEXT    NULL
            );
            CREATE INDEX IF NOT EXISTS {expected_silent} ON {expected} (silent);
            CREATE TABLE IF NOT EXISTS {stats} (
                scope      INTEGER NOT NULL,
                step       INTEGER NOT NULL,
                at         TEXT    NOT NULL,
                endpoint   TEXT    NOT NULL,
                path       TEXT    NOT NULL,
                result     INTEGER NOT NULL,
                instance   TEXT    NOT NULL,
                runs       INTEGER NOT NULL,
                attempts   INTEGER NOT NULL,
                lateness   TEXT    NOT NULL,
                duration   TEXT    NOT NULL,
                PRIMARY KEY (scope, step, at, endpoint, path, result, instance)
            ) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS {actions} (
                id         TEXT    NOT NULL PRIMARY KEY,
                made       TEXT    NOT NULL,
                ended      TEXT    NULL,
                due        TEXT    NULL,
                token      BLOB    NULL,
                instance   TEXT    NULL,
                request    TEXT    NOT NULL,
                state      TEXT    NOT NULL,
                matched    INTEGER NOT NULL DEFAULT 0,
                done       INTEGER NOT NULL DEFAULT 0,
                failed     INTEGER NOT NULL DEFAULT 0,
                place      TEXT    NOT NULL,
                error      TEXT    NULL
            );
            CREATE INDEX IF NOT EXISTS {actions_actiondue} ON {actions} (due);
            ALTER TABLE {instances} ADD since TEXT    NULL;
            ALTER TABLE {instances} ADD about TEXT    NOT NULL DEFAULT '';
            ALTER TABLE {table} ADD streak    INTEGER NOT NULL DEFAULT 0;
            ALTER TABLE {table} ADD alerted   INTEGER NOT NULL DEFAULT 0;
            ALTER TABLE {table} ADD cause     INTEGER NOT NULL DEFAULT 0;
            PRAGMA user_version = 5
            """,
    },
    5: {
        "mysql": """
            CREATE TABLE IF NOT EXISTS {audit} (
                at         BIGINT UNSIGNED  NOT NULL,
                nonce      BIGINT UNSIGNED  NOT NULL,
                author     VARBINARY(255)   NOT NULL,
                address    VARBINARY(255)   NOT NULL,
                verb       VARBINARY(16)    NOT NULL,
                path       VARBINARY(1020)  NULL,
                body       VARBINARY(1020)  NULL,
                jobkey     BIGINT           NULL,
                action     VARBINARY(26)    NULL,
                old        MEDIUMTEXT       NULL,
                new        MEDIUMTEXT       NULL,
                PRIMARY KEY (at, nonce),
                KEY auditjob (jobkey, at, nonce)
            ) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4;
            ALTER TABLE {table} COMMENT = 'dalga schema 6'
            """,
        "sqlite": """
            CREATE TABLE IF NOT EXISTS {audit} (
                at         INTEGER NOT NULL,
                nonce      INTEGER NOT NULL,
                author     TEXT    NOT NULL,
                address    TEXT    NOT NULL,
                verb       TEXT    NOT NULL,
                path       TEXT    NULL,
                body       TEXT    NULL,
                jobkey     INTEGER NULL,
                action     TEXT    NULL,
                old        TEXT    NULL,
                new        TEXT    NULL,
                PRIMARY KEY (at, nonce)
            ) WITHOUT ROWID;
            CREATE INDEX IF NOT EXISTS {audit_auditjob} ON {audit} (jobkey, at, nonce);
            PRAGMA user_version = 6
            """,
    },
}

#: The words in `STATEMENTS` for names that are the same in each version: the jobs table's name, and
#: what is behind it.
_NAMES = {
    "{table}": "",
    "{state}": "_state",
    "{tags_id}": f"{TAGS}_id",
    "{keys_made}": f"{KEYS}_made",
    "{runs_run}": f"{RUNS}_run",
    "{runs_jobruns}": f"{RUNS}_jobruns",
    "{runs_pathruns}": f"{RUNS}_pathruns",
    "{alerts_alertdue}": f"{ALERTS}_alertdue",
    "{alerts_alertsent}": f"{ALERTS}_alertsent",
    "{expected_silent}": f"{EXPECTED}_silent",
    "{actions_actiondue}": f"{ACTIONS}_actiondue",
    "{audit_auditjob}": f"{AUDIT}_auditjob",
    **{f"{{{suffix[1:]}}}": suffix for suffix in BESIDE},
}

#: A statement that adds columns to a table, or an index, whose name may not be that of a column.
_ADDS = re.compile(r"ALTER TABLE (\S+) ADD (?:KEY )?([a-z]+) ")


class Step(NamedTuple):
    """The statements from one schema version to the next."""

    #: The schema version before the step.
    version: int
    #: The statements that give the table of instances the next version's name.
    renaming: tuple[str, ...]
    #: The statements that change the jobs table.
    statements: tuple[str, ...]


def statements_of(dialect: Dialect, version: int) -> tuple[str, ...]:
    """The statements from a version to the next, each in one line."""
    text = STATEMENTS[version][dialect.engine]
    for word, suffix in {**_NAMES, "{instances}": HEARTBEATS_OF[version + 1]}.items():
        text = text.replace(word, dialect.named(suffix))
    return tuple(" ".join(statement.split()) for statement in text.split(";\n"))


def steps(dialect: Dialect, cursor: Cursor, version: int) -> list[Step]:
    """
    The steps from a table's schema version to the present one.

    :param version: the schema version of the table.
    """
    there = {*dialect.indexes(cursor), *dialect.columns(cursor, "")}
    instances = _instances(dialect, cursor, version)

    def is_to_do(statement: str) -> bool:
        added = _ADDS.match(statement)
        if added is None:
            return True
        if added[1] == dialect.table:
            return added[2] not in there
        return instances is not None and added[2] not in instances

    return [
        Step(
            number,
            _renaming(dialect, cursor, number, number > version and instances is not None),
            tuple(filter(is_to_do, statements_of(dialect, number))),
        )
        for number in range(version, VERSION)
    ]


def _instances(dialect: Dialect, cursor: Cursor, version: int) -> Collection[str] | None:
    """
    The columns of the table of instances; None if there is none. The first step makes that of
    schema version 1.

    :param version: the schema version of the jobs table.
    """
    for number in (version, version + 1):
        if number in HEARTBEATS_OF and (found := dialect.columns(cursor, HEARTBEATS_OF[number])):
            return found
    return () if version == 1 else None


def _renaming(dialect: Dialect, cursor: Cursor, version: int, there: bool) -> tuple[str, ...]:
    """
    The statements by which the table of instances gets the next version's name.

    :param there: whether an earlier step makes the table, or renames it.
    """
    old, new = HEARTBEATS_OF.get(version), HEARTBEATS_OF[version + 1]
    if old is None or not (there or dialect.columns(cursor, old)):
        return ()  # an interrupted upgrade has renamed it, or there is none
    # Both are there where an upgrade was interrupted, and a daemon of the old version has made a
    # new table of instances to go on with.
    left = (f"DROP TABLE {dialect.named(new)}",) if dialect.columns(cursor, new) else ()
    return (*left, f"ALTER TABLE {dialect.named(old)} RENAME TO {dialect.named(new)}")


def in_place(
    dialect: Dialect, cursor: Cursor, version: int, dry_run: bool
) -> Generator[str, None, list[str]]:
    """
    Upgrade our own table of an earlier version, or only say what that would do.

    :param version: the schema version of the table.
    :return: what to say when all is committed.
    :raises StartupError: with one sentence that says what is in the way.
    """
    table = f"the table {dialect.table} in {dialect.where()}"
    _refuse_strangers(dialect, cursor, version)
    refuse_while_used(dialect, cursor, table)
    to_do = steps(dialect, cursor, version)
    if not to_do[0].renaming and dialect.columns(cursor, HEARTBEATS_OF[version + 1]):
        yield f"an upgrade of {table} was interrupted"
    yield f"{table} has schema version {version}, of an earlier version of Dalga"
    for step in to_do:
        for statement in (*step.renaming, *step.statements):
            yield f"to be done: {statement}"
    if dry_run:
        return ["this was a dry run: nothing has been changed"]
    for step in to_do:
        done: list[str] = []
        try:
            _take(dialect, cursor, step, table, done)
        except BaseException as error:
            sentence = explained(dialect, error)
            left = _undo(dialect, cursor, step, version, bool(done))
            if sentence is None:
                raise
            raise StartupError(f"{sentence}; {left}") from error
    return [f"done: {table} has schema version {VERSION}", *_rights(dialect, version)]


def _take(dialect: Dialect, cursor: Cursor, step: Step, table: str, done: list[str]) -> None:
    """
    Take a step.

    :param done: gets each statement that has changed the jobs table, or made a table beside it.
    """
    for statement in step.renaming:
        cursor.execute(statement)
    # An instance may have begun after the first look.
    refuse_while_used(dialect, cursor, table)
    for statement in step.statements:
        cursor.execute(statement)
        done.append(statement)


def _undo(dialect: Dialect, cursor: Cursor, step: Step, version: int, begun: bool) -> str:
    """
    Give the table of instances its old name back; gives what to say about that.

    :param version: the schema version of the table before the first step.
    :param begun: whether the step has added something that stays.
    """
    if dialect.upgrades_at_once:
        return "nothing has been changed"
    old, new = HEARTBEATS_OF.get(step.version), HEARTBEATS_OF[step.version + 1]
    try:
        # The connection may be lost, and the last statement done nevertheless.
        if dialect.version(cursor, "") == step.version:
            if old and not dialect.columns(cursor, old) and dialect.columns(cursor, new):
                cursor.execute(f"ALTER TABLE {dialect.named(new)} RENAME TO {dialect.named(old)}")
            if step.version == version and not begun:
                return "the table is as it was"
            still = "still has" if step.version == version else "has"
            return (
                f"the table {still} schema version {step.version}, and the same command goes on "
                "from there"
            )
    except Exception:
        pass  # what to say about that comes next
    return "the same command goes on from there"


def _rights(dialect: Dialect, version: int) -> list[str]:
    """What is to be done about rights on tables that are new, or have another name now."""
    old = HEARTBEATS_OF.get(version)
    if old is None or dialect.upgrades_at_once:
        return []
    *first, last = map(dialect.named, (HEARTBEATS, *_new_tables(version)))
    return [
        f"rights that were granted on {dialect.named(old)} by its name have to be granted on "
        f"{', '.join(first)} and {last}"
    ]


def _new_tables(version: int) -> tuple[str, ...]:
    """The ends of the names of the tables that an upgrade from a schema version makes."""
    return tuple(
        suffix
        for number, suffixes in BESIDE_SINCE.items()
        if number > version
        for suffix in suffixes
    )


def _refuse_strangers(dialect: Dialect, cursor: Cursor, version: int) -> None:
    """
    :param version: the schema version of the table.
    :raises StartupError: if a table of another program has a name that one of our tables is to get.
        The upgrade would drop it, or take it for ours.
    """
    ours = columns_of(dialect.engine)
    names = {suffix: HEARTBEATS for number, suffix in HEARTBEATS_OF.items() if number > version}
    names |= {suffix: suffix for suffix in _new_tables(version)}
    for suffix, like in names.items():
        columns, least = set(dialect.columns(cursor, suffix)), set(ours[like])
        if like == HEARTBEATS:
            least = {"id", "seen"}  # of all versions
        if columns and not least <= columns <= set(ours[like]):
            what = "the table of instances" if like == HEARTBEATS else "a table beside it"
            raise StartupError(
                f"{what} is to be {dialect.named(suffix)}, but there is a table of that name which "
                "Dalga has not made: give that one another name"
            )


def refuse_while_used(dialect: Dialect, cursor: Cursor, table: str) -> None:
    """
    :param table: the jobs table, as a person would name it.
    :raises StartupError: if an instance has had a heartbeat lately, or a run is under way.
    """
    now = time_of(dialect, cursor)
    for suffix in HEARTBEATS_OF.values():
        if dialect.columns(cursor, suffix):
            _refuse_while_alive(dialect, cursor, dialect.named(suffix), table, now)
    # The CASE keeps the index on `due` out: most rows are due later, and would be read one by one.
    leases = dialect.prepare(
        f"SELECT COUNT(*), MAX(due) FROM {dialect.table} "
        "WHERE CASE WHEN token IS NULL THEN 0 ELSE due > %(now)s END = 1"
    )
    leases.execute(cursor, now=dialect.instant(now))
    ((running, last),) = cursor.fetchall()
    if running:
        raise StartupError(
            f"{table} is in use (runs under way: {running}): stop all instances first; if they "
            f"were killed, wait until {timestamp(dialect.read_instant(last))}"
        )


def _refuse_while_alive(
    dialect: Dialect, cursor: Cursor, heartbeats: str, table: str, now: datetime
) -> None:
    """:raises StartupError: if an instance has had a heartbeat lately."""
    # A heartbeat from the future is from before the database's clock was set back.
    lately = dialect.prepare(
        f"SELECT id, seen FROM {heartbeats} WHERE seen > %(first)s AND seen <= %(last)s"
    )
    lately.execute(cursor, first=dialect.instant(now - ALIVE), last=dialect.instant(now + ALIVE))
    found = cursor.fetchall()
    if found:
        names = ", ".join(sorted(text_of(name) for name, _ in found))
        last = max(dialect.read_instant(seen) for _, seen in found)
        raise StartupError(
            f"{table} is in use (instances with a heartbeat in the last "
            f"{ALIVE.total_seconds():.0f} seconds: {names}): stop them first; if they were killed, "
            f"wait until {timestamp(last + ALIVE)}"
        )


def time_of(dialect: Dialect, cursor: Cursor) -> datetime:
    """The database's time."""
    cursor.execute("SELECT UTC_TIMESTAMP(6)")
    ((now,),) = cursor.fetchall()
    return dialect.read_instant(now)


def explained(dialect: Dialect, error: BaseException) -> str | None:
    """
    What came in an upgrade's way, in a sentence; None for a mistake of the program, or an
    interruption.
    """
    if isinstance(error, StartupError):
        return str(error)
    if not isinstance(error, Exception):
        return None
    if dialect.trouble(error) is Trouble.BUSY:
        return (
            f"the table {dialect.table} in {dialect.where()} is locked by somebody else, such as a "
            "backup or a transaction that was left open: try again when that is over"
        )
    return dialect.explain_upgrade(error)
