"""
The jobs table's definition, and its version.

The version stands in the table's comment (MySQL) or the file's ``user_version`` (SQLite).
"""

from __future__ import annotations

from importlib.resources import files

VERSION = 1
COMMENT = f"dalga schema {VERSION}"


def definition(engine: str, table: str) -> str:
    """
    The CREATE TABLE statement.

    :param engine: "mysql" or "sqlite": the name of the .sql file beside this module.
    :param table: the table's name, quoted.
    """
    text = files(__package__).joinpath(f"{engine}.sql").read_text(encoding="utf-8")
    return text.replace("{table}", table).replace("{comment}", COMMENT)
