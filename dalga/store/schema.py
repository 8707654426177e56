"""
The tables' definitions, their version, and the names that an upgrade gives to tables.

The version stands in the jobs table's comment (MySQL) or the file's ``user_version`` (SQLite).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from importlib.resources import files

VERSION = 6
COMMENT = f"dalga schema {VERSION}"

#: The end of the instance table's name, by the schema's version. It follows on the jobs table's
#: name. Schema 1 had no such table.
#:
#: Each version has an end of its own, for daemons that sleep through an upgrade: each transaction
#: looks first at the instance table of its daemon's version, and fails if that table is gone,
#: whatever the upgraded jobs table looks like.
#:
#: At most 11 characters: a jobs table's name has up to 53, and MySQL takes 64.
HEARTBEATS_OF = {2: "_heartbeats", 3: "_alive_3", 4: "_alive_4", 5: "_alive_5", 6: "_alive_6"}
HEARTBEATS = HEARTBEATS_OF[VERSION]

#: The ends of the names of the tables beside the jobs table, as `HEARTBEATS`. They are the same in
#: all versions from the one on that has them first.
DETAILS, TAGS, KEYS = "_details", "_tags", "_keys"
RUNS, ALERTS, INCIDENTS, EXPECTED = "_runs", "_alerts", "_incidents", "_expected"
STATS, ACTIONS, AUDIT = "_stats", "_actions", "_audit"

#: These tables, by the version that has them first.
BESIDE_SINCE = {
    4: (DETAILS, TAGS, KEYS),
    5: (RUNS, ALERTS, INCIDENTS, EXPECTED, STATS, ACTIONS),
    6: (AUDIT,),
}
BESIDE = tuple(suffix for suffixes in BESIDE_SINCE.values() for suffix in suffixes)

#: An instance whose last heartbeat is older than this counts as gone.
ALIVE = timedelta(seconds=30)

#: No lease is longer than this.
MAX_LEASE = timedelta(hours=2)

#: The upgrade of a Go release's table adds these to the jobs table's name: the first for the old
#: table, the second for the new table until it is complete. They are the same for all versions of
#: the schema, so that a later Dalga finds the tables that an interrupted upgrade has left.
BACKUP = "_go_table"
UNFINISHED = "_unfinished"

#: The end of the name of the Go releases' instance table, after the jobs table's name.
GO_INSTANCES = "_instances"

#: The columns of the Go releases' tables; the first four are in all of them.
GO_COLUMNS = (
    "path",
    "body",
    "interval",
    "next_run",
    "location",
    "next_sched",
    "instance_id",
    "id",
)

#: The .sql files beside this module, by engine. They are read at the import: later the process may
#: run as another user, who may not read them.
_TEXTS = {
    engine: files(__package__).joinpath(f"{engine}.sql").read_text(encoding="utf-8")
    for engine in ("mysql", "sqlite")
}


def definitions(engine: str, name: str, suffix: str = "") -> list[str]:
    """
    The CREATE statements. The jobs table's comes last, and after it only those of its indexes.

    :param engine: "mysql" or "sqlite": the name of the .sql file beside this module.
    :param name: the jobs table's name, as `dalga.config.load` accepts it.
    :param suffix: is added to the jobs table's name, such as `UNFINISHED`.
    """
    text = _TEXTS[engine]
    for word, value in (
        ("{table}", name + suffix),
        ("{due}", f"{name}_due"),
        ("{state}", f"{name}_state"),
        ("{heartbeats}", name + HEARTBEATS),
        *((f"{{{suffix[1:]}}}", name + suffix) for suffix in BESIDE),
        ("{comment}", COMMENT),
    ):
        text = text.replace(word, value)
    return [statement.strip() for statement in text.split(";\n") if statement.strip()]


def columns_of(engine: str) -> dict[str, tuple[str, ...]]:
    """The columns of each table, in order, by the end of its name after the jobs table's name."""
    found = {}
    for statement in definitions(engine, ""):
        created = re.search(r"^CREATE TABLE .*[`\"](\w*)[`\"] \(", statement, re.MULTILINE)
        if created:
            columns = re.findall(r"^ {4}([a-z]+) +[A-Z]", statement, re.MULTILINE)
            found[created[1]] = tuple(columns)
    return found


def lacking(columns: Collection[str], needed: Collection[str], another: str) -> str | None:
    """
    Which columns a table of this version lacks, and what to do about it.

    :param another: how to name another table.
    :return: the rest of a sentence that begins with "the table"; None if it lacks no column.
    """
    missing = [name for name in needed if name not in columns]
    if not missing:
        return None
    return (
        f"lacks {'a column' if len(missing) == 1 else 'columns'} of schema version {VERSION} "
        f"({', '.join(missing)}): restore it from a backup, or {another}"
    )


def version_of(comment: str) -> int | None:
    """The schema's version, from a table's comment; None if the table is not ours."""
    found = re.fullmatch(r"dalga schema ([0-9]{1,9})", comment)
    return None if found is None else int(found[1])


def go_release(columns: Collection[str]) -> int | None:
    """
    Which of the Go releases made a table, by its columns; None if none of them did.

    | release | the columns |
    |---|---|
    | 1 | path, body, interval (seconds), next_run |
    | 2 | and instance_id |
    | 3 | and location, next_sched; interval is an ISO 8601 duration |
    | 4 | and id |
    """
    names = set(columns)
    if not names.issuperset(GO_COLUMNS[:4]):
        return None
    if "next_sched" in names:
        return 4 if "id" in names else 3
    return 2 if "instance_id" in names else 1


def misfit(
    version: int | None, columns: Collection[str], release: int | None, another: str, upgrade: str
) -> str:
    """
    Why a table is not one of this version, and what to do about it.

    :param version: the table's version of the schema; None if the table is not ours.
    :param release: the Go release that made the table; None if none of them did.
    :param another: how to name another table.
    :param upgrade: the command that upgrades this table.
    :return: the rest of a sentence that begins with "the table".
    """
    if version is not None and version > VERSION:
        return (
            f"has schema version {version}, of a later version of Dalga than this one, which has "
            f"{VERSION}: run that version, or {another}"
        )
    if version is not None:
        return (
            f"has schema version {version}, of an earlier version of Dalga: upgrade it to version "
            f"{VERSION} with {upgrade}"
        )
    if release is not None:
        return f"was made by Go release {release} of Dalga: upgrade it with {upgrade}"
    return (
        "is not a table of this version of Dalga, nor one that it can upgrade (it has the columns "
        f"{', '.join(list(columns)[:8])}): {another}"
    )
