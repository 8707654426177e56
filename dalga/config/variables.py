"""
The values of ``DALGA_<SECTION>_<KEY>``, by section and key. A variable that has the name of a
section, and of none of its keys, is refused here, with the name that may have been meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from dalga.config.endpoints import (
    ENDPOINT,
    endpoint_in_variable,
    key_at_the_end,
    section_of,
    variable_of,
    why_not_name,
)
from dalga.config.formats import named, quoted
from dalga.config.given import Given, Values, add_value
from dalga.config.links import is_link
from dalga.config.mistakes import ANY
from dalga.config.names import (
    MEANT,
    file_variables,
    in_variable,
    instead,
    is_secret,
    key_names,
    known_keys,
    variable,
)
from dalga.config.sections import KEYS, SECTIONS
from dalga.config.targets import ALERTS, target_section, why_not_target
from dalga.config.tokens import TOKENS
from dalga.config.values import Value
from dalga.errors import ConfigError


class Variables:
    """
    The environment that is read. A text is taken literally. Variables of other names, and those
    that Kubernetes and docker links set, are passed over.

    :param environ: the variables.
    :param given: takes the values, and the mistakes.
    """

    def __init__(self, environ: Mapping[str, str], given: Given) -> None:
        self._environ = environ
        self._given = given
        self._values: Values = {}

    def read(self) -> None:
        """Take the values of the variables."""
        for name, text in sorted(self._environ.items()):
            with self._given.mistakes.of(ANY):
                self._add(name, text)
        self._given.add(self._values)

    def _add(self, name: str, text: str) -> None:
        """:raises ConfigError: for a variable that has the name of a section, and of no key."""
        prefix, _, rest = name.partition("_")
        section, _, key = rest.partition("_")
        link = is_link(name, text, self._environ)
        ours = prefix == "DALGA" and section == section.upper()
        section = section.lower()
        if not ours or section not in (*SECTIONS, TOKENS):
            if not link:
                self._note_likeness(name)
        elif section == ENDPOINT:
            self._add_of_endpoint(name, key, text, link)
        elif link:
            self._given.links.append(name)
        elif section == TOKENS:
            self._given.origins.setdefault(section, name)
            with self._given.mistakes.of(section):
                self._given.tokens.add_variable(name, key, text)
        elif section == ALERTS:
            self._add_of_target(name, key, text)
        else:
            with self._given.mistakes.of(section):
                self._add_value(section, section, name, key, text)

    def _add_value(self, section: str, kind: str, name: str, key: str, text: str) -> None:
        """
        Take a variable of a section.

        :param kind: the section that has the same keys.
        :param key: as it stands in the variable's name.
        :raises ConfigError: for a key that the section does not have.
        """
        known = {in_variable(each): each for each in known_keys(kind).values()}
        of_files = file_variables(kind)
        self._given.origins.setdefault(section, name)
        if key in known:
            value = Value(known[key], text, name, secret=is_secret(kind, known[key]))
        elif key in of_files:
            value = Value(of_files[key], text, name, secret=True, from_file=True)
        else:
            raise _no_variable(name, section, key)
        add_value(self._values, section, value)

    def _add_of_endpoint(self, name: str, rest: str, text: str, link: bool) -> None:
        """
        Take a variable whose name begins with ``DALGA_ENDPOINT``.

        :param rest: what follows in it.
        :param link: whether Kubernetes or a docker link may have set it.
        :raises ConfigError: for a variable that names no key, or no endpoint.
        """
        keys = _keys_in_variables(ENDPOINT)
        found = variable_of(rest, keys)
        # A header may have any name, also that of a variable of Kubernetes'.
        if link and (found is None or found.key in keys or found.endpoint):
            self._given.links.append(name)
            return
        endpoint = found and endpoint_in_variable(found.endpoint, self._given.headers)
        if found is None or endpoint is None:
            raise self._no_variable_of_endpoint(name, rest)
        if found.endpoint and (why := why_not_name(endpoint)):
            raise ConfigError(f"{named(name)} has the name {quoted(endpoint)}: {why}")
        section = section_of(endpoint)
        headers = self._given.headers_of(endpoint)
        with self._given.mistakes.of(section):
            if found.key in keys:
                self._add_value(section, ENDPOINT, name, found.key, text)
            else:
                self._given.origins.setdefault(section, name)
                headers.add_variable(name, text)

    def _add_of_target(self, name: str, rest: str, text: str) -> None:
        """
        Take a variable whose name begins with ``DALGA_ALERTS``.

        :param rest: what follows in it.
        :raises ConfigError: for a variable that names no key, or no target.
        """
        found = key_at_the_end(rest, _keys_in_variables(ALERTS))
        target = found and endpoint_in_variable(found.endpoint, self._given.targets)
        if found is None or target is None:
            raise _no_variable(name, ALERTS, rest)
        if found.endpoint:
            if why := why_not_target(target):
                raise ConfigError(f"{named(name)} has the name {quoted(target)}: {why}")
            self._given.targets.add(target)
        section = target_section(target)
        with self._given.mistakes.of(section):
            self._add_value(section, ALERTS, name, found.key, text)

    def _no_variable_of_endpoint(self, name: str, rest: str) -> ConfigError:
        """
        The error for a variable of an endpoint that has no name of a key in it.

        :param rest: what follows on ``DALGA_ENDPOINT_`` in it.
        """
        near = [section_of(each) for each in self._given.headers]
        # Of an endpoint that has no other variable. Its key may have been written as several words.
        parts = [part for part in rest.upper().split("_") if part]
        near += [f"{ENDPOINT} {'_'.join(parts[:end])}" for end in range(1, len(parts))]
        names = [variable(section, key) for section in near for key in key_names(section)]
        hint = instead(name, names, "{}")
        return ConfigError(f"{named(name)} is not a variable of Dalga's{hint}")

    def _note_likeness(self, name: str) -> None:
        """
        Note a variable whose name is nearly that of a key, or that of a key without its section.
        The variable is not refused, as it may belong to another program.
        """
        prefix, _, rest = name.upper().partition("_")
        if prefix != "DALGA":
            return
        if rest == "CONFIG":
            self._given.notes.append(f"{named(name)} is ignored: name the file with --config")
            return
        section, _, key = rest.partition("_")
        if key and difflib.get_close_matches(section, [TOKENS.upper()], cutoff=0.8):
            right = variable(TOKENS, key.lower())
            self._given.notes.append(f"{named(name)} is ignored, did you mean {right}?")
            return
        ours = {variable(section, key): key for section in KEYS for key in KEYS[section]}
        meant = [each for each, key in ours.items() if in_variable(key) == rest]
        meant = meant or difflib.get_close_matches(name.upper(), ours, n=1, cutoff=0.85)
        if meant:
            which = " or ".join(meant)
            self._given.notes.append(f"{named(name)} is ignored, did you mean {which}?")


def _keys_in_variables(section: str) -> frozenset[str]:
    """The keys of a section as they stand in variables' names, with those that name files."""
    known = (in_variable(each) for each in known_keys(section).values())
    return frozenset((*known, *file_variables(section)))


def _no_variable(name: str, section: str, key: str) -> ConfigError:
    """
    The error for a variable that names no key.

    :param key: the end of the variable's name.
    """
    names = [variable(section, each) for each in key_names(section)]
    likewise = [variable(section, f"{each}_FILE") for each in file_variables(section).values()]
    meant = variable(section, MEANT.get(key.lower(), key))
    hint = instead(meant, names, "{}", likewise)
    return ConfigError(f"{named(name)} is not a variable of Dalga's{hint}")
