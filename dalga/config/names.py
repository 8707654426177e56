"""
The names of sections and keys: Dalga's, the Go releases', and which name an unknown one may mean.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from dalga.config.endpoints import ENDPOINT
from dalga.config.headers import HEADERS
from dalga.config.keys import keys_of
from dalga.config.sections import KEYS, SECTIONS

#: Keys that the Go releases have in another section: section and key of theirs, and of Dalga's.
ELSEWHERE: Mapping[tuple[str, str], tuple[str, str]] = {
    ("listen", "shutdownTimeout"): ("jobs", "shutdownTimeout"),
}


#: Keys of the Go releases that Dalga has no need of, and why. Dalga takes a file with such a key,
#: and logs that the key changes nothing.
UNNEEDED: Mapping[tuple[str, str], str] = {
    ("mysql", "skipLocked"): "Dalga passes over rows that somebody has locked in any case",
    (
        "mysql",
        "transactionIsolationParamName",
    ): "Dalga finds out by itself what the server calls it",
    (
        "listen",
        "writeTimeout",
    ): "an answer is there within 5 s, and who does not take it is cut off by idleTimeout",
}


#: Names that other programs have for a key or a section of Dalga's, and that are spelt so
#: differently that likeness of letters does not find it.
MEANT: Mapping[str, str] = {
    "address": "host",
    "addr": "host",
    "bind": "host",
    "database": "db",
    "dbname": "db",
    "mariadb": "mysql",
    "schema": "db",
    "ssl": "ssl-mode",
    "tls": "ssl-mode",
}


#: The end of a key that names a file with another key's value in it.
FILE = "File"


def kind_of(section: str) -> str:
    """The section that has the same keys: ``endpoint`` for ``endpoint billing``."""
    return section.partition(" ")[0]


def variable(section: str, key: str) -> str:
    """The name of the variable of a key."""
    return f"DALGA_{re.sub('[- ]', '_', section).upper()}_{in_variable(key)}"


def in_variable(key: str) -> str:
    """A key as it stands in a variable's name, where there can be no hyphen."""
    return key.upper().replace("-", "_")


def key_names(section: str) -> list[str]:
    """A section's keys, as a sentence on an unknown key lists them."""
    kind = kind_of(section)
    return [*KEYS[kind], HEADERS[1]] if kind == ENDPOINT else [*KEYS[kind]]


def known_keys(section: str) -> dict[str, str]:
    """
    The keys that a section takes, by their names in lower case. Keys of the Go releases are among
    them.
    """
    more = [key for within, key in (*ELSEWHERE, *UNNEEDED) if within == section]
    return {name.lower(): name for name in (*KEYS[kind_of(section)], *more)}


def file_keys(section: str) -> dict[str, str]:
    """
    The keys that name a file with the value of a key in it, ``passwordFile`` for ``password``: by
    their names in lower case, each with the key whose value it is.
    """
    keys = keys_of(SECTIONS[kind_of(section)])
    return {f"{each.name}{FILE}".lower(): each.name for each in keys if each.from_file}


def file_variables(section: str) -> dict[str, str]:
    """The same keys as they stand in variables' names: ``PASSWORD_FILE`` for ``password``."""
    return {f"{in_variable(key)}_{FILE.upper()}": key for key in file_keys(section).values()}


def is_secret(section: str, key: str) -> bool:
    """Whether a key's value is a password."""
    return any(each.secret and each.name == key for each in keys_of(SECTIONS[kind_of(section)]))


def instead(given: str, known: Iterable[str], form: str, likewise: Iterable[str] = ()) -> str:
    """
    The end of a sentence on an unknown name: ", did you mean ...?", or a list of the known names.

    :param form: how a name is shown; the name takes the place of ``{}``.
    :param likewise: names that may have been meant, and that the list leaves out.
    """
    listed = [*known]
    meant = near(given, [*likewise, *listed])
    if meant is not None:
        return f", did you mean {form.format(meant)}?"
    return ", there is " + ", ".join(form.format(name) for name in listed)


def near(given: str, known: Iterable[str]) -> str | None:
    """The known name that an unknown one may have been meant as; None if it is near to none."""
    by_lower = {name.lower(): name for name in known}
    meant = MEANT.get(given.lower(), given.lower())
    close = difflib.get_close_matches(meant if meant in by_lower else given.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None
