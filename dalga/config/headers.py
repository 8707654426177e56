"""
The headers that each POST to an endpoint has: their names and values, from a file's table such as
``[endpoint.headers]`` and from variables such as ``DALGA_ENDPOINT_HEADERS_X_API_KEY``.

Any header's value may be a secret. So no sentence here has a value in it, nor a name that can't be
a header's.
"""

from __future__ import annotations

import re
from dataclasses import replace

from dalga.config.formats import Entry, Kind, named
from dalga.config.texts import undisplayable
from dalga.config.values import Value
from dalga.errors import ConfigError
from dalga.model.headers import VALUE, is_name, is_of_dalga, is_value

#: Section and key of the one key that is a table. A file has ``[endpoint.headers]``, and a line for
#: each header below.
HEADERS = ("endpoint", "headers")

#: The end of the name of a variable that names a file with the value of a header.
_FILE = "_FILE"


class Headers:
    """
    The headers of an endpoint that were given. A variable goes before the file's header of that
    name.

    :param variable: the beginning of the names of the headers' variables.
    """

    def __init__(self, variable: str) -> None:
        self._variable = variable
        #: By their names in lower case.
        self.given: dict[str, Value] = {}

    def check_key(self, path: str, section: str, table: str, entry: Entry) -> None:
        """
        Check ``headers`` where it is a key of an endpoint's section, and no table.

        :param path: the file's, for sentences.
        :param section: the heading of the section.
        :param table: the heading that a table of headers has.
        :raises ConfigError: for a value that is not empty.
        """
        if entry.text or entry.kind not in (Kind.TEXT, Kind.NOTHING):
            where = f"{path}: [{section}] {HEADERS[1]}"
            raise _value("", entry.text, where, entry.kind).refuse(
                f"each header takes a line of its own below [{table}], or in YAML below "
                'headers:, such as X-Api-Key = "..."'
            )

    def add_entry(self, path: str, table: str, entry: Entry) -> None:
        """
        Take a line of a table of headers. ``X-Api-KeyFile`` names a file with the value of
        ``X-Api-Key``.

        :param path: the file's, for sentences.
        :param table: the heading of the table.
        :raises ConfigError: for a name that no header can have, or that is there twice.
        """
        name = entry.key
        # A wrong name may hold the value: "Authorization: secret".
        if not is_name(name):
            raise ConfigError(
                f"{path}: [{table}] has a key that can't be a header's name (not "
                'shown): it takes ASCII letters, digits and -, such as X-Api-Key = "..."'
            )
        where = f"{path}: [{table}] {name}"
        if name.lower() == "baseurl":
            # Somebody means an endpoint of the name "headers": its jobs would go elsewhere.
            raise ConfigError(
                f"{where} is a key of an endpoint and no header, and no endpoint can be called "
                f"{HEADERS[1]}: choose another name for it"
            )
        from_file = re.fullmatch("(.*[A-Za-z0-9])File", name)
        if from_file:
            name = from_file[1]
        value = replace(_value(name, entry.text, where, entry.kind), from_file=bool(from_file))
        other = self.given.get(name.lower())
        if other is not None and other.from_file != value.from_file:
            raise ConfigError(f"{other.where} and {where} say the same, leave one of them")
        if other is not None:
            raise ConfigError(f"{where} is there twice, leave one of them")
        if entry.problem is not None:
            raise value.refuse(entry.problem)
        self.given[name.lower()] = value

    def add_variable(self, variable: str, text: str) -> None:
        """
        Take ``DALGA_ENDPOINT_HEADERS_X_API_KEY`` for ``X-Api-Key``, or
        ``DALGA_ENDPOINT_HEADERS_X_API_KEY_FILE``, which names a file with its value.

        :param variable: its name, which begins as those of the headers' variables do.
        :raises ConfigError: for a variable that names no header.
        """
        name = variable.removeprefix(self._variable).removeprefix("_")
        from_file = name.endswith(_FILE)
        name = name.removesuffix(_FILE)
        value = _value(name.replace("_", "-").title(), text, variable)
        if re.fullmatch(r"[A-Z0-9]+(_[A-Z0-9]+)*", name) and name != _FILE[1:]:
            other = self.given.get(value.key.lower())
            # The other one was read before, as its name is the shorter one.
            if from_file and other is not None and other.where == variable.removesuffix(_FILE):
                raise ConfigError(f"{other.where} and {variable} say the same, leave one of them")
            self.given[value.key.lower()] = replace(value, from_file=from_file)
        elif text or variable != self._variable:
            raise replace(value, where=named(variable)).refuse(
                "each header takes a variable of its own, with its name behind "
                f"{self._variable}_, such as {self._variable}_X_API_KEY"
            )


def _value(name: str, text: str, where: str, kind: Kind = Kind.TEXT) -> Value:
    return Value(name, text, where, kind, secret=True)


def header(value: Value) -> str:
    """
    Read the value of a header, whose name is the key.

    :raises ConfigError: for a name or a value that no header of a POST can have.
    """
    if is_of_dalga(value.key):
        raise value.refuse("Dalga sets this header by itself, leave it out")
    if value.kind is not Kind.TEXT:
        raise value.refuse("it takes text, so put it in double quotes")
    if why := undisplayable(value.text):
        raise value.refuse(why)
    if not is_value(value.text):
        raise value.refuse(VALUE)
    return value.text
