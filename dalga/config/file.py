"""
The values of a file, by section and key. An unknown section or key is refused here, with the name
that may have been meant.
"""

from __future__ import annotations

import difflib
import re

from dalga.config.endpoints import (
    ENDPOINT,
    check_variables,
    heading,
    section_of,
    why_not_name,
)
from dalga.config.formats import Entry, FileSection, Kind, named, quoted, read_file
from dalga.config.given import Given, Values, add_value
from dalga.config.headers import HEADERS
from dalga.config.mistakes import ANY
from dalga.config.names import file_keys, instead, is_secret, key_names, known_keys, near
from dalga.config.outgoing import KINDS
from dalga.config.secretfile import who_else_reads
from dalga.config.sections import KEYS, SECTIONS
from dalga.config.targets import ALERTS, target_heading, target_section, why_not_target
from dalga.config.tokens import TOKENS
from dalga.config.values import Value
from dalga.errors import ConfigError
from dalga.model.address import DEFAULT_ENDPOINT
from dalga.model.permit import TOKEN

#: The names of sections, for sentences.
_SECTIONS = (*SECTIONS, TOKENS)


#: An unknown key that is longer than this may be a secret. No key is nearly as long.
_LONGEST = 30


class File:
    """
    A file that is read.

    :param path: a file, as `dalga.config.formats.read_file` takes it.
    :param given: takes the values, and the mistakes.
    """

    def __init__(self, path: str, given: Given) -> None:
        self._path = path
        self._given = given
        self._mistakes = given.mistakes
        self._values: Values = {}
        #: As `Given.origins`, of the tables of headers: an endpoint may have such a table, and no
        #: other.
        self._tables: dict[str, str] = {}

    def read(self) -> None:
        """
        Take the values of the file.

        :raises ConfigError: if the file can't be read.
        """
        for written in read_file(self._path):
            with self._mistakes.of(_unclear_by(written.name)):
                self._add(written)
        self._given.origins = self._tables | self._given.origins
        self._given.add(self._values)
        self._note_readers()

    def _add(self, written: FileSection) -> None:
        """:raises ConfigError: for a section that can't be one."""
        if table := heading(written.name):
            name = table.endpoint
            if name is not None and not table.of_headers:
                self._add_endpoint(written, name)
                return
            if name is not None:
                self._check_name(written, name)
            endpoint, title = name or DEFAULT_ENDPOINT, named(written.name)
            self._tables.setdefault(section_of(endpoint), f"[{title}] in {self._path}")
            self._add_headers(endpoint, title, written.entries)
            return
        target = target_heading(written.name)
        if target is not None:
            self._add_target(written, target)
            return
        section = self._begin(written.name)
        for entry in written.entries:
            with self._mistakes.of(section):
                self._add_entry(section, entry)

    def _add_entry(self, section: str, entry: Entry) -> None:
        """
        Take a line of a section.

        :raises ConfigError: for a line that can't be taken.
        """
        key = entry.key.lower()
        if section == TOKENS:
            self._given.tokens.add_key(self._path, entry)
        elif (section, key) == HEADERS:
            self._add_headers_key(DEFAULT_ENDPOINT, section, entry)
        elif section == ENDPOINT and entry.kind is Kind.TABLE and key not in _KEYS_OF_ENDPOINTS:
            self._add_endpoint(FileSection(f"{ENDPOINT}.{entry.key}", [*entry.table]), entry.key)
        elif section == ALERTS and entry.kind is Kind.TABLE and key not in _KEYS_OF_TARGETS:
            self._add_target(FileSection(f"{ALERTS}.{entry.key}", [*entry.table]), entry.key)
        else:
            add_value(self._values, section, self._value_of(section, section, entry))

    def _add_endpoint(self, written: FileSection, name: str) -> None:
        """
        Take the keys of an endpoint that has a name.

        :raises ConfigError: for a name that can't be one, or that is there twice.
        """
        self._check_name(written, name)
        section, title = section_of(name), named(written.name)
        self._begin_named(section, title, f"the endpoint {name}")
        self._given.headers_of(name)
        for entry in written.entries:
            with self._mistakes.of(section):
                if entry.key.lower() == HEADERS[1]:
                    self._add_headers_key(name, title, entry)
                else:
                    add_value(self._values, section, self._value_of(section, title, entry))

    def _add_headers_key(self, endpoint: str, title: str, entry: Entry) -> None:
        """Take ``headers`` where it is a key of an endpoint's section."""
        table = f"{title} {HEADERS[1]}" if " " in title else f"{title}.{HEADERS[1]}"
        if entry.kind is Kind.TABLE:
            self._add_headers(endpoint, table, [*entry.table])
        else:
            self._given.headers_of(endpoint).check_key(self._path, title, table, entry)

    def _add_headers(self, endpoint: str, table: str, entries: list[Entry]) -> None:
        """Take the lines of a table of headers."""
        headers = self._given.headers_of(endpoint)
        for entry in entries:
            with self._mistakes.of(section_of(endpoint)):
                headers.add_entry(self._path, table, entry)

    def _add_target(self, written: FileSection, name: str) -> None:
        """
        Take the keys of a target of alerts that has a name.

        :raises ConfigError: for a name that can't be one, or that is there twice.
        """
        section, title = target_section(name), named(written.name)
        if why := why_not_target(name):
            raise ConfigError(f"{self._path}: [{title}] has the name {quoted(name)}: {why}")
        check_variables(f"{self._path}: [{title}]", "a target", name, self._given.targets)
        self._begin_named(section, title, f"the target {name}")
        self._given.targets.add(name)
        for entry in written.entries:
            with self._mistakes.of(section):
                add_value(self._values, section, self._value_of(section, title, entry))

    def _check_name(self, written: FileSection, name: str) -> None:
        """
        :param written: the table with the name in its heading.
        :raises ConfigError: for a name that no endpoint can have, or not beside the others.
        """
        title = named(written.name)
        keys = {entry.key.lower() for entry in written.entries}
        if not keys & _KEYS_OF_ENDPOINTS and difflib.get_close_matches(
            name.lower(), HEADERS[1:], cutoff=0.8
        ):
            raise ConfigError(
                f"{self._path}: there is no section [{title}], did you mean [{'.'.join(HEADERS)}]?"
            )
        if why := why_not_name(name):
            raise ConfigError(f"{self._path}: [{title}] has the name {quoted(name)}: {why}")
        check_variables(f"{self._path}: [{title}]", "an endpoint", name, self._given.headers)

    def _begin(self, name: str) -> str:
        """
        Begin a section.

        :param name: as its heading has it.
        :return: as `SECTIONS` has it.
        :raises ConfigError: for a section that is not known, or that was there before.
        """
        section = name.lower()
        if section not in _SECTIONS:
            raise ConfigError(
                f"{self._path}: there is no section [{named(name)}]"
                f"{instead(name, _SECTIONS, '[{}]')}"
            )
        self._begin_named(section, section, f"the section [{section}]")
        return section

    def _begin_named(self, section: str, title: str, what: str) -> None:
        """:raises ConfigError: for a section that was there before."""
        if section in self._given.origins:
            raise ConfigError(f"{self._path}: {what} is there twice, put its keys together")
        self._given.origins[section] = f"[{title}] in {self._path}"

    def _value_of(self, section: str, title: str, entry: Entry) -> Value:
        """
        A line of the file as a value.

        :param title: the heading of the section.
        :raises ConfigError: for an unknown key, or a value that can't be taken.
        """
        known, of_files = known_keys(section), file_keys(section)
        name = entry.key.lower()
        if name not in known and name not in of_files:
            likewise = [f"{key}File" for key in of_files.values()]
            raise ConfigError(
                f"{self._path}: [{title}] has no key {_shown(entry.key)}"
                f"{instead(entry.key, key_names(section), '{}', likewise)}"
            )
        from_file = name not in known
        key = of_files[name] if from_file else known[name]
        where = f"{self._path}: [{title}] {key}{'File' if from_file else ''}"
        secret = from_file or is_secret(section, key)
        value = Value(key, entry.text, where, entry.kind, secret, entry.elements, from_file)
        if entry.problem is not None:
            raise value.refuse(entry.problem)
        return value

    def _note_readers(self) -> None:
        """Note that others can read the file, if it has a secret in it."""
        headers = (each for of in self._given.headers.values() for each in of.given.values())
        has_secret = any(
            not value.from_file and (value.text or value.elements) and _is_password(value)
            for value in (*self._values.values(), *headers)
        )
        if has_secret and (who := who_else_reads(self._path)):
            self._given.notes.append(
                f"{self._path} has a password or another secret in it, and {who}: chmod 600 leaves "
                "it to its owner, and the variables and keys that name files keep secrets out of it"
            )


def _shown(key: str) -> str:
    """
    An unknown key, for sentences. In an ini file, ``password: secret=`` is such a key: it is shown
    up to the first character that no key has. The second line of two secrets, ``whsec_...=``, is
    such a key, too, and is not shown.
    """
    name = re.match(r"(\[[\w.]*\] *)?[\w.-]*", key)
    assert name is not None
    is_base64 = key[name.end() : name.end() + 1] in ("+", "/")
    if is_base64 or len(name[0]) > _LONGEST or name[0].startswith((*KINDS, TOKEN)):
        return "of that name (not shown)"
    return quoted(key if name[0] == key else f"{name[0]}...")


def _is_password(value: Value) -> bool:
    """Whether a value is a secret, or a URL with a user in it."""
    return value.secret or "@" in value.text


_KEYS_OF_ENDPOINTS = frozenset((*(key.lower() for key in KEYS[ENDPOINT]), *file_keys(ENDPOINT)))
_KEYS_OF_TARGETS = frozenset((*(key.lower() for key in KEYS[ALERTS]), *file_keys(ALERTS)))


def _unclear_by(heading: str) -> str:
    """
    The section that a mistake in a heading makes unclear. If the heading's first word is like the
    name of a section, that section may have been meant, or any other: `ANY`. If it is like none,
    the heading is of another program, and makes no section of Dalga's unclear.
    """
    first = re.split(r"[.\s]", heading.strip(), maxsplit=1)[0].lower()
    return ANY if first in _SECTIONS or near(first, _SECTIONS) is not None else heading
