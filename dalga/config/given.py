"""
The values that a file, the variables and the command line give, by section and key, before they are
read as texts or numbers. An unknown section or key is refused here, with the name that may have
been meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from dalga.config.endpoints import (
    ENDPOINT,
    endpoint_in_variable,
    heading,
    in_variable_of,
    same_variables,
    section_of,
    variable_of,
    why_not_name,
)
from dalga.config.formats import Entry, FileSection, Kind, named, quoted, read_file
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
from dalga.config.targets import (
    ALERTS,
    target_heading,
    target_section,
    target_variable,
    why_not_target,
)
from dalga.config.values import Value
from dalga.errors import ConfigError
from dalga.model.address import DEFAULT_ENDPOINT

#: The keys of a target of alerts, in lower case.
_TARGET_KEYS = frozenset(key.lower() for key in KEYS[ALERTS])

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
        #: The headers of each endpoint, by its name. The endpoints that have a name are those here.
        self.headers: dict[str, Headers] = {}
        self._headers_of(DEFAULT_ENDPOINT)
        #: The names of the targets of alerts that have one.
        self.targets: set[str] = set()
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
        #: As `origins`, of the tables of headers: an endpoint may have such a table, and no other.
        tables: dict[str, str] = {}
        for written in read_file(path):
            if table := heading(written.name):
                name = table.endpoint
                if name is not None and not table.of_headers:
                    self._add_endpoint(values, path, written, name)
                    continue
                if name is not None:
                    self._check_name(path, written, name)
                endpoint, title = name or DEFAULT_ENDPOINT, named(written.name)
                tables.setdefault(section_of(endpoint), f"[{title}] in {path}")
                self._headers_of(endpoint).add_table(path, title, written.entries)
                continue
            target = target_heading(written.name)
            if target is not None:
                self._add_target(values, path, written, target)
                continue
            section = self._begin(path, written.name)
            for entry in written.entries:
                key = entry.key.lower()
                if (section, key) == HEADERS:
                    self.headers[DEFAULT_ENDPOINT].add_key(path, section, entry)
                elif section == ENDPOINT and entry.kind is Kind.TABLE and key not in KEYS[ENDPOINT]:
                    inner = FileSection(f"{ENDPOINT}.{entry.key}", [*entry.table])
                    self._add_endpoint(values, path, inner, entry.key)
                elif section == ALERTS and entry.kind is Kind.TABLE and key not in _TARGET_KEYS:
                    inner = FileSection(f"{ALERTS}.{entry.key}", [*entry.table])
                    self._add_target(values, path, inner, entry.key)
                else:
                    _add(values, section, _value_of(path, section, section, entry))
        self.origins = tables | self.origins
        self._values.update(values)

    def _add_endpoint(self, values: _Values, path: str, written: FileSection, name: str) -> None:
        """
        Take the keys of an endpoint that has a name.

        :raises ConfigError: for a name that can't be one, and as `add_file`.
        """
        self._check_name(path, written, name)
        section, title = section_of(name), named(written.name)
        if section in self.origins:
            raise ConfigError(f"{path}: the endpoint {name} is there twice, put its keys together")
        self.origins[section] = f"[{title}] in {path}"
        headers = self._headers_of(name)
        for entry in written.entries:
            if entry.key.lower() == HEADERS[1]:
                headers.add_key(path, title, entry)
            else:
                _add(values, section, _value_of(path, section, title, entry))

    def _add_target(self, values: _Values, path: str, written: FileSection, name: str) -> None:
        """
        Take the keys of a target of alerts that has a name.

        :raises ConfigError: for a name that can't be one, and as `add_file`.
        """
        section, title = target_section(name), named(written.name)
        if why := why_not_target(name):
            raise ConfigError(f"{path}: [{title}] has the name {quoted(name)}: {why}")
        for other in self.targets:
            if other != name and same_variables(other) == same_variables(name):
                raise ConfigError(
                    f"{path}: [{title}]: there is a target {other} as well, and their variables "
                    "would have the same names, choose another name"
                )
        if section in self.origins:
            raise ConfigError(f"{path}: the target {name} is there twice, put its keys together")
        self.origins[section] = f"[{title}] in {path}"
        self.targets.add(name)
        for entry in written.entries:
            _add(values, section, _value_of(path, section, title, entry))

    def _check_name(self, path: str, written: FileSection, name: str) -> None:
        """
        :param written: the table with the name in its heading.
        :raises ConfigError: for a name that no endpoint can have, or not beside the others.
        """
        title = named(written.name)
        keys = {entry.key.lower() for entry in written.entries}
        if not keys & set(KEYS[ENDPOINT]) and difflib.get_close_matches(
            name.lower(), HEADERS[1:], cutoff=0.8
        ):
            raise ConfigError(
                f"{path}: there is no section [{title}], did you mean [{'.'.join(HEADERS)}]?"
            )
        if why := why_not_name(name):
            raise ConfigError(f"{path}: [{title}] has the name {quoted(name)}: {why}")
        for other in self.headers:
            if other != name and same_variables(other) == same_variables(name):
                raise ConfigError(
                    f"{path}: [{title}]: there is an endpoint {other} as well, and their variables "
                    "would have the same names, choose another name"
                )

    def _headers_of(self, endpoint: str) -> Headers:
        variables = f"DALGA_{in_variable_of(endpoint)}_{HEADERS[1].upper()}"
        return self.headers.setdefault(endpoint, Headers(variables))

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
            elif section == ENDPOINT.upper():
                self._add_endpoint_variable(values, name, text, environ)
            elif section == ALERTS.upper():
                self._add_target_variable(values, name, text, environ)
            elif is_link(name, text, environ):
                self.links.append(name)
            else:
                section = section.lower()
                key = _key_of(name, section, key)
                self.origins.setdefault(section, name)
                value = Value(key, text, name, secret=is_secret(section, key))
                _add(values, section, value)
        self._values.update(values)

    def _add_endpoint_variable(
        self, values: _Values, name: str, text: str, environ: Mapping[str, str]
    ) -> None:
        """
        Take a variable whose name begins with ``DALGA_ENDPOINT``.

        :raises ConfigError: for a variable that names no key, or no endpoint.
        """
        keys = {in_variable(key): key for key in known_keys(ENDPOINT).values()}
        rest = name.partition("_")[2].partition("_")[2]
        found = variable_of(rest, keys)
        # A header may have any name, also that of a variable of Kubernetes'.
        if (found is None or found.key in keys or found.endpoint) and is_link(name, text, environ):
            self.links.append(name)
            return
        endpoint = found and endpoint_in_variable(found.endpoint, self.headers)
        if found is None or endpoint is None:
            raise self._no_variable(name, rest)
        if found.endpoint and (why := why_not_name(endpoint)):
            raise ConfigError(f"{named(name)} has the name {quoted(endpoint)}: {why}")
        section = section_of(endpoint)
        headers = self._headers_of(endpoint)
        if found.key in keys:
            key = keys[found.key]
            _add(values, section, Value(key, text, name, secret=is_secret(section, key)))
        else:
            headers.add_variable(name, text)
        self.origins.setdefault(section, name)

    def _add_target_variable(
        self, values: _Values, name: str, text: str, environ: Mapping[str, str]
    ) -> None:
        """
        Take a variable whose name begins with ``DALGA_ALERTS``.

        :raises ConfigError: for a variable that names no key, or no target.
        """
        if is_link(name, text, environ):
            self.links.append(name)
            return
        keys = {in_variable(key): key for key in known_keys(ALERTS).values()}
        found = target_variable(name.partition("_")[2].partition("_")[2], keys)
        target = found and endpoint_in_variable(found.endpoint, self.targets)
        if found is None or target is None:
            near = [variable(ALERTS, key) for key in key_names(ALERTS)]
            raise ConfigError(
                f"{named(name)} is not a variable of Dalga's{instead(name, near, '{}')}"
            )
        if found.endpoint:
            if why := why_not_target(target):
                raise ConfigError(f"{named(name)} has the name {quoted(target)}: {why}")
            self.targets.add(target)
        section, key = target_section(target), keys[found.key]
        _add(values, section, Value(key, text, name, secret=is_secret(section, key)))
        self.origins.setdefault(section, name)

    def _no_variable(self, name: str, rest: str) -> ConfigError:
        """
        The error for a variable of an endpoint that has no name of a key in it.

        :param rest: what follows on ``DALGA_ENDPOINT_`` in it.
        """
        near = [section_of(each) for each in self.headers]
        # Of an endpoint that has no other variable. Its key may have been written as several words.
        parts = [part for part in rest.upper().split("_") if part]
        near += [f"{ENDPOINT} {'_'.join(parts[:end])}" for end in range(1, len(parts))]
        names = [variable(section, key) for section in near for key in key_names(section)]
        hint = instead(name, names, "{}")
        return ConfigError(f"{named(name)} is not a variable of Dalga's{hint}")

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


def _value_of(path: str, section: str, title: str, entry: Entry) -> Value:
    """
    A line of a file as a value.

    :param title: the heading of the section.
    :raises ConfigError: for an unknown key, or a value that can't be taken.
    """
    known = known_keys(section)
    if entry.key.lower() not in known:
        raise ConfigError(
            f"{path}: [{title}] has no key {quoted(entry.key)}"
            f"{instead(entry.key, key_names(section), '{}')}"
        )
    key = known[entry.key.lower()]
    where = f"{path}: [{title}] {key}"
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
