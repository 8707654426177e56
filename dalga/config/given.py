"""
What a file and the variables give, by section and key, before it is read as what it should be.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from dalga.config.formats import Entry, Kind, named, read_file, shown
from dalga.config.links import is_link
from dalga.config.names import (
    ELSEWHERE,
    MEANT,
    UNNEEDED,
    in_variable,
    instead,
    key_names,
    known_keys,
    variable,
)
from dalga.config.sections import HEADERS, HEADERS_SECTION, KEYS
from dalga.config.values import Value
from dalga.errors import ConfigError

#: What the variables for headers begin with.
_HEADERS_VARIABLE = "DALGA_ENDPOINT_HEADERS"


class Given:
    """What a file and the variables say, by section and key; what is added later goes first."""

    def __init__(self) -> None:
        #: What makes each section be there: its heading, also with nothing below, or a variable.
        self.origins: dict[str, str] = {}
        #: Variables that Kubernetes or a docker link has set, not an operator.
        self.links: list[str] = []
        #: The endpoint's headers by their names in lower case.
        self.headers: dict[str, Value] = {}
        self._values: dict[tuple[str, str], Value] = {}
        #: Sentences on variables whose names are nearly ours.
        self._likenesses: list[str] = []

    def of(self, section: str) -> dict[str, Value]:
        """A section's values by their keys."""
        return {key: value for (within, key), value in self._values.items() if within == section}

    def notes(self) -> Iterable[str]:
        """A sentence for each value that changes nothing."""
        for place, why in UNNEEDED.items():
            # What Dalga does anyway is not worth one.
            if place in self._values and self._values[place].text.lower() != "true":
                yield f"{self._values[place].where} is ignored: {why}"
        yield from self._likenesses

    def add_file(self, path: str) -> None:
        """:raises ConfigError: for what is not known, there twice, or can't be read."""
        values: dict[tuple[str, str], Value] = {}
        for written in read_file(path):
            section = written.name.lower()
            if section == HEADERS_SECTION:
                self._add_headers(path, written.entries)
                continue
            if section not in KEYS:
                raise ConfigError(
                    f"{path}: there is no section [{named(written.name)}]"
                    f"{instead(written.name, KEYS, '[{}]')}"
                )
            if section in self.origins:
                raise ConfigError(
                    f"{path}: the section [{section}] is there twice, put its keys together"
                )
            self.origins[section] = f"[{section}] in {path}"
            known = known_keys(section)
            for entry in written.entries:
                if (section, entry.key.lower()) == HEADERS:
                    self._add_table(path, entry)
                    continue
                if entry.key.lower() not in known:
                    raise ConfigError(
                        f"{path}: [{section}] has no key {shown(entry.key)}"
                        f"{instead(entry.key, key_names(section), '{}')}"
                    )
                key = known[entry.key.lower()]
                where = f"{path}: [{section}] {key}"
                value = Value(section, key, entry.text, where, entry.kind)
                if entry.problem is not None:
                    raise value.refuse(entry.problem)
                _add(values, value)
        self._values.update(values)

    def _add_table(self, path: str, entry: Entry) -> None:
        """
        Take ``headers`` where it is a key.

        :raises ConfigError: for a value that is neither a table nor empty.
        """
        if entry.kind is Kind.TABLE:
            self._add_headers(path, entry.table)
        elif entry.text or entry.kind not in (Kind.TEXT, Kind.NOTHING):
            where = f"{path}: [endpoint] headers"
            raise Value(HEADERS_SECTION, "", entry.text, where, entry.kind).refuse(
                "each header takes a line of its own below [endpoint.headers], or in YAML below "
                'headers:, such as X-Api-Key = "..."'
            )

    def _add_headers(self, path: str, entries: Iterable[Entry]) -> None:
        """:raises ConfigError: for a name that no header can have, or that is there twice."""
        for entry in entries:
            name = entry.key
            # RFC 9110 section 5.1. A wrong name may hold the value: "Authorization: secret".
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ConfigError(
                    f"{path}: [endpoint.headers] has a key that can't be a header's name (not "
                    'shown): it takes ASCII letters, digits and -, such as X-Api-Key = "..."'
                )
            where = f"{path}: [endpoint.headers] {name}"
            value = Value(HEADERS_SECTION, name, entry.text, where, entry.kind)
            if name.lower() in self.headers:
                raise ConfigError(f"{where} is there twice, leave one of them")
            if entry.problem is not None:
                raise value.refuse(entry.problem)
            self.headers[name.lower()] = value

    def _add_header_variable(self, variable: str, text: str) -> None:
        """
        Take ``DALGA_ENDPOINT_HEADERS_X_API_KEY`` for ``X-Api-Key``, in the place of the file's.

        :raises ConfigError: for what names no header.
        """
        name = variable.removeprefix(_HEADERS_VARIABLE).removeprefix("_")
        value = Value(HEADERS_SECTION, name.replace("_", "-").title(), text, variable)
        if re.fullmatch(r"[A-Z0-9]+(_[A-Z0-9]+)*", name):
            self.headers[value.key.lower()] = value
        elif text or variable != _HEADERS_VARIABLE:
            raise replace(value, where=named(variable)).refuse(
                "each header takes a variable of its own, with its name behind "
                f"{_HEADERS_VARIABLE}_, such as {_HEADERS_VARIABLE}_X_API_KEY"
            )

    def _note_likeness(self, name: str) -> None:
        """A program beside us may have such a variable, so one that is misspelt is not refused."""
        if name.upper().startswith("DALGA_"):
            ours = [variable(section, key) for section in KEYS for key in KEYS[section]]
            close = difflib.get_close_matches(name.upper(), ours, n=1, cutoff=0.85)
            if close:
                self._likenesses.append(f"{named(name)} is ignored, did you mean {close[0]}?")

    def add_variables(self, environ: Mapping[str, str]) -> None:
        """
        Take the values of ``DALGA_<SECTION>_<KEY>``, literally; other variables are not ours, nor
        are those that Kubernetes and docker links set.

        :raises ConfigError: for what is not known.
        """
        values: dict[tuple[str, str], Value] = {}
        for name, text in sorted(environ.items()):
            prefix, _, rest = name.partition("_")
            section, separator, key = rest.partition("_")
            if prefix != "DALGA" or section.lower() not in KEYS or section != section.upper():
                if not is_link(name, text, environ):
                    self._note_likeness(name)
                continue
            if re.match(rf"{_HEADERS_VARIABLE}(_|$)", name):
                self._add_header_variable(name, text)
                continue
            if is_link(name, text, environ):
                self.links.append(name)
                continue
            known = {in_variable(each): each for each in known_keys(section.lower()).values()}
            if not separator or key not in known:
                names = [variable(section, each) for each in key_names(section.lower())]
                meant = variable(section, MEANT.get(key.lower(), key))
                raise ConfigError(
                    f"{named(name)} is not a variable of Dalga's{instead(meant, names, '{}')}"
                )
            self.origins.setdefault(section.lower(), name)
            _add(values, Value(section.lower(), known[key], text, name))
        self._values.update(values)


def _add(values: dict[tuple[str, str], Value], value: Value) -> None:
    """:raises ConfigError: if the file, or the environment, has it already."""
    place = ELSEWHERE.get((value.section, value.key), (value.section, value.key))
    other = values.setdefault(place, value)
    if other is value:
        return
    if other.where == value.where:
        raise ConfigError(f"{value.where} is there twice, leave one of them")
    raise ConfigError(f"{other.where} and {value.where} say the same, leave one of them")
