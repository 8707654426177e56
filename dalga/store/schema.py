"""
The tables' definitions, and their version.

The version stands in the jobs table's comment (MySQL) or the file's ``user_version`` (SQLite).
"""

from __future__ import annotations

from importlib.resources import files

VERSION = 2
COMMENT = f"dalga schema {VERSION}"

#: What the name of the table of instances adds to that of the jobs table.
HEARTBEATS = "_heartbeats"


def definitions(engine: str, table: str) -> list[str]:
    """
    The CREATE statements, that of the jobs table last.

    :param engine: "mysql" or "sqlite": the name of the .sql file beside this module.
    :param table: the jobs table's name, as `dalga.config` lets it pass.
    """
    text = files(__package__).joinpath(f"{engine}.sql").read_text(encoding="utf-8")
    text = text.replace("{table}", table).replace("{heartbeats}", table + HEARTBEATS)
    text = text.replace("{comment}", COMMENT)
    return [statement.strip() for statement in text.split(";\n") if statement.strip()]
