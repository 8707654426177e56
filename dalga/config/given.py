"""
The values that a file, the variables and the command line give, by section and key, before they are
read as texts or numbers. An unknown section or key is refused here, with the name that may have
been meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from dalga.config import headers
from dalga.config.formats import Entry, named, quoted, read_file
from dalga.config.headers import HEADERS, Headers
from dalga.config.links import is_link
from dalga.config.names import (
    ELSEWHERE,
    MEANT,
    UNNEEDED,
    in_variable,
    instead,
    is_secret,
    key_names,
    known_keys,
    variable,
)
from dalga.config.sections import KEYS, SECTIONS
from dalga.config.values import Value
from dalga.errors import ConfigError

#: By section and key.
_Values = dict[tuple[str, str], Value]


class Given:
    """The values that were given. A value that is added later goes first."""

    def __init__(self) -> None:
        #: The heading in the file, or the variable, by which each section is there, for sentences.
        #: A heading counts also with nothing below.
        self.origins: dict[str, str] = {}
        #: Variables that Kubernetes or a docker link has set, not an operator.
        self.links: list[str] = []
        self.headers = Headers()
        self._values: _Values = {}
        #: Sentences on variables whose names are nearly those of keys.
        self._likenesses: list[str] = []

    def of(self, section: str) -> dict[str, Value]:
        """A section's values by their keys."""
        return {key: value for (within, key), value in self._values.items() if within == section}

    def notes(self) -> Iterable[str]:
        """A sentence for each value that changes nothing."""
        for place, why in UNNEEDED.items():
            # True asks for what Dalga does anyway.
            if place in self._values and self._values[place].text.lower() != "true":
                yield f"{self._values[place].where} is ignored: {why}"
        yield from self._likenesses

    def add_file(self, path: str) -> None:
        """
        Take the values of a file.

        :raises ConfigError: for a section or a key that is not known or there twice, and for a file
            that can't be read.
        """
        values: _Values = {}
        for written in read_file(path):
            if written.name.lower() == headers.SECTION:
                self.headers.add_table(path, written.entries)
                continue
            section = self._begin(path, written.name)
            for entry in written.entries:
                if (section, entry.key.lower()) == HEADERS:
                    self.headers.add_key(path, entry)
                else:
                    _add(values, section, _value_of(path, section, entry))
        self._values.update(values)

    def _begin(self, path: str, name: str) -> str:
        """
        Begin a section of a file.

        :param name: as its heading has it.
        :return: as `SECTIONS` has it.
        :raises ConfigError: for a section that is not known, or that was there before.
        """
        section = name.lower()
        if section not in SECTIONS:
            raise ConfigError(
                f"{path}: there is no section [{named(name)}]{instead(name, SECTIONS, '[{}]')}"
            )
        if section in self.origins:
            raise ConfigError(
                f"{path}: the section [{section}] is there twice, put its keys together"
            )
        self.origins[section] = f"[{section}] in {path}"
        return section

    def add_variables(self, environ: Mapping[str, str]) -> None:
        """
        Take the values of ``DALGA_<SECTION>_<KEY>``, literally. Variables of other names, and those
        that Kubernetes and docker links set, are passed over.

        :raises ConfigError: for a variable that has the name of a section, and of none of its keys.
        """
        values: _Values = {}
        for name, text in sorted(environ.items()):
            prefix, _, rest = name.partition("_")
            section, _, key = rest.partition("_")
            if prefix != "DALGA" or section.lower() not in SECTIONS or section != section.upper():
                if not is_link(name, text, environ):
                    self._note_likeness(name)
            elif re.match(rf"{headers.VARIABLE}(_|$)", name):
                self.headers.add_variable(name, text)
            elif is_link(name, text, environ):
                self.links.append(name)
            else:
                section = section.lower()
                key = _key_of(name, section, key)
                self.origins.setdefault(section, name)
                value = Value(key, text, name, secret=is_secret(section, key))
                _add(values, section, value)
        self._values.update(values)

    def add_option(self, section: str, key: str, text: str) -> None:
        """Take the value of an option of the command line, which has the name of a key."""
        self._values[section, key] = Value(key, text, f"--{key}")

    def _note_likeness(self, name: str) -> None:
        """
        Note a variable whose name is nearly that of a key, or that of a key without its section.
        The variable is not refused, as it may belong to another program.
        """
        prefix, _, rest = name.upper().partition("_")
        if prefix != "DALGA":
            return
        if rest == "CONFIG":
            self._likenesses.append(f"{named(name)} is ignored: name the file with --config")
            return
        ours = {variable(section, key): key for section in KEYS for key in KEYS[section]}
        meant = [each for each, key in ours.items() if in_variable(key) == rest]
        meant = meant or difflib.get_close_matches(name.upper(), ours, n=1, cutoff=0.85)
        if meant:
            which = " or ".join(meant)
            self._likenesses.append(f"{named(name)} is ignored, did you mean {which}?")


def _value_of(path: str, section: str, entry: Entry) -> Value:
    """
    A line of a file as a value.

    :raises ConfigError: for an unknown key, or a value that can't be taken.
    """
    known = known_keys(section)
    if entry.key.lower() not in known:
        raise ConfigError(
            f"{path}: [{section}] has no key {quoted(entry.key)}"
            f"{instead(entry.key, key_names(section), '{}')}"
        )
    key = known[entry.key.lower()]
    where = f"{path}: [{section}] {key}"
    value = Value(key, entry.text, where, entry.kind, is_secret(section, key), entry.elements)
    if entry.problem is not None:
        raise value.refuse(entry.problem)
    return value


def _key_of(name: str, section: str, key: str) -> str:
    """
    The key that a variable gives.

    :param name: the variable's name.
    :param key: the end of that name.
    :raises ConfigError: for an unknown key.
    """
    known = {in_variable(each): each for each in known_keys(section).values()}
    if key in known:
        return known[key]
    names = [variable(section, each) for each in key_names(section)]
    meant = variable(section, MEANT.get(key.lower(), key))
    raise ConfigError(f"{named(name)} is not a variable of Dalga's{instead(meant, names, '{}')}")


def _add(values: _Values, section: str, value: Value) -> None:
    """
    Add a value of the file, or of the environment.

    :raises ConfigError: for a second value of one key.
    """
    place = ELSEWHERE.get((section, value.key), (section, value.key))
    other = values.setdefault(place, value)
    if other is value:
        return
    if other.where == value.where:
        raise ConfigError(f"{value.where} is there twice, leave one of them")
    raise ConfigError(f"{other.where} and {value.where} say the same, leave one of them")
