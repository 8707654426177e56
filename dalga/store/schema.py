"""
The tables' definitions, their version, and what an upgrade calls them.

The version stands in the jobs table's comment (MySQL) or the file's ``user_version`` (SQLite).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from importlib.resources import files

VERSION = 3
COMMENT = f"dalga schema {VERSION}"

#: What the name of the table of instances adds to the jobs table's name, by the schema's version;
#: schema 1 had no such table. Each version has a name of its own: each transaction of a daemon
#: looks at the table of instances of the daemon's version first. So a transaction of a daemon that
#: slept through an upgrade fails, whatever the upgraded jobs table looks like. At most 11
#: characters: a jobs table's name has up to 53, and MySQL takes 64.
HEARTBEATS_OF = {2: "_heartbeats", 3: "_alive_3"}
HEARTBEATS = HEARTBEATS_OF[VERSION]

#: An instance whose last heartbeat is older is gone.
ALIVE = timedelta(seconds=30)

#: No lease is longer.
MAX_LEASE = timedelta(hours=2)

#: What the upgrade of a Go release's table adds to the jobs table's name: for the old table, and
#: for the new table until it is complete. The names are the same for all versions of the schema,
#: so that a later Dalga finds what an interrupted upgrade has left.
BACKUP = "_go_table"
UNFINISHED = "_unfinished"

#: What the name of the Go releases' table of instances adds.
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

#: The files beside this module, which a user that the process becomes may not be able to read.
_TEXTS = {
    engine: files(__package__).joinpath(f"{engine}.sql").read_text(encoding="utf-8")
    for engine in ("mysql", "sqlite")
}


def definitions(engine: str, name: str, suffix: str = "") -> list[str]:
    """
    The CREATE statements, that of the jobs table last but for its indexes.

    :param engine: "mysql" or "sqlite": the name of the .sql file beside this module.
    :param name: the jobs table's name, as `dalga.config.load` lets it pass.
    :param suffix: what the table is called besides, for the time being.
    """
    text = _TEXTS[engine]
    for word, value in (
        ("{table}", name + suffix),
        ("{due}", f"{name}_due"),
        ("{heartbeats}", name + HEARTBEATS),
        ("{comment}", COMMENT),
    ):
        text = text.replace(word, value)
    return [statement.strip() for statement in text.split(";\n") if statement.strip()]


def columns_of(engine: str) -> dict[str, tuple[str, ...]]:
    """The columns of each table, in order, by what its name adds to the jobs table's."""
    found = {}
    for statement in definitions(engine, ""):
        created = re.search(r"^CREATE TABLE .*[`\"](\w*)[`\"] \(", statement, re.MULTILINE)
        if created:
            columns = re.findall(r"^ {4}([a-z]+) +[A-Z]", statement, re.MULTILINE)
            found[created[1]] = tuple(columns)
    return found


def lacking(columns: Collection[str], needed: Collection[str], another: str) -> str | None:
    """
    Which columns a table of this version lacks, and what to do; follows on "the table ...". None
    where it has all.

    :param another: how to name another one.
    """
    missing = [name for name in needed if name not in columns]
    if not missing:
        return None
    return (
        f"lacks {'a column' if len(missing) == 1 else 'columns'} of schema version {VERSION} "
        f"({', '.join(missing)}): restore it from a backup, or {another}"
    )


def version_of(comment: str) -> int | None:
    """The schema's version that a table's comment tells; None if the table is not ours."""
    found = re.fullmatch(r"dalga schema ([0-9]{1,9})", comment)
    return None if found is None else int(found[1])


def go_release(columns: Collection[str]) -> int | None:
    """
    Which of the Go releases made a table, by its columns; None if none did.

    | release | made the columns |
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
    Why a table is not one of this version, and what to do about it; follows on "the table ...".

    :param version: the schema's; None if the table is not ours.
    :param release: of the Go releases; None if none of them made the table.
    :param another: how to name another one.
    :param upgrade: the command that upgrades this one.
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
