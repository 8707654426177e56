"""
Configuration files as they stand: sections of keys and values, from ini, TOML or YAML.

Which keys there are is not known here: `dalga.config.sections` says that once for the three
formats. A file that can't be read is refused with the number of the line, never with the line
itself, which may hold a password.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

import yaml

from dalga.config.content import content_of
from dalga.errors import ConfigError

#: The largest file that is read, in bytes. A file with all keys and comments has some thousands.
MAX_FILE = 64 * 1024


class Kind(Enum):
    """
    The kinds of values in a file, in words for sentences. In an ini file, and in the environment,
    each value is text.
    """

    TEXT = "text"
    NUMBER = "a number"
    BOOLEAN = "true or false"
    DATE = "a date or a time"
    LIST = "a list"
    TABLE = "a table"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value."""

    key: str
    #: The value without its quotes and its comment. A number is as it was written, except for an
    #: integer in TOML. Empty for a date, a list, a table and nothing. A `repr` does not show it, as
    #: it may be a secret.
    text: str = field(repr=False)
    kind: Kind = Kind.TEXT
    #: Why the value can't be taken, as the end of a sentence; None where it can.
    problem: str | None = None
    #: The entries of a table.
    table: tuple[Entry, ...] = ()
    #: The elements of a list, as `text` has a value; None if they are other values than texts and
    #: numbers.
    elements: tuple[str, ...] | None = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class FileSection:
    """A section, its name and its keys as they were written. A name may be there more than once."""

    #: In an ini file, ``section.key`` or ``section key`` is the heading of a table in a section.
    name: str
    entries: list[Entry]


def read_file(path: str) -> list[FileSection]:
    """
    Read a file in the format that its ending names: TOML for ``.toml``, YAML for ``.yaml`` and
    ``.yml``, and ini for any other.

    :raises ConfigError: if the file can't be read.
    """
    if path.lower().endswith(".toml"):
        return _read_toml(path, _text_of(path, "a TOML file"))
    if path.lower().endswith((".yaml", ".yml")):
        return list(_read_yaml(path, _text_of(path, "a YAML file")))
    return _read_ini(path, _text_of(path, "an ini file"))


def _text_of(path: str, what: str) -> str:
    try:
        content = content_of(path, MAX_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: the path has a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"can't read the configuration file {quoted(path)} ({reason}): give the path of an ini "
            "file such as dalga.ini.example, of a .toml or a .yaml file, or none for the defaults"
        ) from None
    if len(content) > MAX_FILE:
        raise ConfigError(
            f"{path} is too large for a configuration file: it takes {MAX_FILE} bytes at most"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text (byte {error.start}): it takes {what}"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def quoted(text: str) -> str:
    """`text` in quotes, on one line, cut after 80 characters."""
    return repr(text if len(text) <= 80 else text[:80] + "...")


def named(text: str) -> str:
    """`text` without quotes, on one line, cut after 80 characters."""
    return quoted(text)[1:-1]


# ini

# A section's heading. Only a comment may follow on the line, as other text would be lost.
_HEADING = re.compile(r"\[(?=\s*[^\s\]])([^\]]+)\]\s*(?:[;#].*)?")

# The heading of a table of headers, such as [endpoint.headers]. Its keys are free, and each value
# may be a secret.
_FREE = re.compile(r".*[.\s]\s*headers", re.IGNORECASE | re.DOTALL)

# The keys of passwords that may have any character.
_PASSWORDS = ("password", "authsecret")


def _read_ini(path: str, text: str) -> list[FileSection]:
    # configparser takes hours for a line of "[", 60,000 spaces and a letter.
    sections: dict[str, dict[str, Entry]] = {}
    name = None
    for lineno, line in enumerate((line.strip() for line in text.split("\n")), 1):
        if not line or line[0] in ";#":
            continue
        where = f"{path}, line {lineno}"
        if heading := _HEADING.fullmatch(line):
            name = heading[1].strip()
            if name in sections:
                raise ConfigError(
                    f"{where}: the section [{named(name)}] is there twice, put its keys together"
                )
            sections[name] = {}
            continue
        key, equals, raw = (part.strip() for part in line.partition("="))
        if name is None and key and equals:
            raise ConfigError(
                f"{where}: this is a key before the first section, put it below the [section] that "
                "it belongs to"
            )
        if name is None or not key or not equals:
            raise ConfigError(
                f"{where}: this is not an ini file's line, which is a [section], a key = value in "
                "one, or a comment after ; or #"
            )
        if key in sections[name]:
            free = _FREE.fullmatch(name)
            what = f"a key of [{named(name)}]" if free else f"[{named(name)}] {named(key)}"
            raise ConfigError(f"{where}: {what} is there twice, leave one of them")
        sections[name][key] = _ini_entry(name, key, raw)
    return [FileSection(name, list(keys.values())) for name, keys in sections.items()]


def _ini_entry(section: str, key: str, raw: str) -> Entry:
    """:param raw: the text after the equals sign."""
    if raw.startswith('"'):
        quoted = re.fullmatch(r'"((?:[^"\\]|\\["\\])*)"(?:\s+[;#].*)?', raw)
        if quoted is None:
            return Entry(
                key,
                raw,
                problem='what starts with " ends with " (and maybe a comment), with \\" for a '
                "quote and \\\\ for a backslash between them",
            )
        return Entry(key, re.sub(r"\\(.)", r"\1", quoted[1]))
    comment = re.search(r"(?:^|\s)[;#]", raw)
    text = raw if comment is None else raw[: comment.start()].rstrip()
    if text != raw and (key.lower() in _PASSWORDS or _FREE.fullmatch(section)):
        # A comment, or part of the password? A wrong guess would end as "access denied".
        return Entry(
            key, raw, problem="put it in double quotes, as it has a ; or # that starts a comment"
        )
    return Entry(key, text)


# TOML


def _read_toml(path: str, text: str) -> list[FileSection]:
    try:
        # A number with a point stays as it is written, so that its key's reader refuses "nan" and
        # "1e9".
        document = tomllib.loads(text, parse_float=_Written)
        return [_toml_section(path, name, value) for name, value in document.items()]
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"\(at line (\d+), column \d+\)$", str(error))
        where = f"{path}, line {line[1]}" if line else f"{path}, at its end"
        if str(error).startswith(("Cannot", "Duplicate")):
            raise ConfigError(
                f"{where}: a section or a key is there twice, leave one of them"
            ) from None
        raise ConfigError(
            f"{where}: this is not TOML, which has [section] lines, key = value lines below them, "
            "and text in double quotes"
        ) from None
    except (ValueError, RecursionError):
        # Python raises these for integers past its limit of digits, and for lists in lists.
        raise ConfigError(
            f"{path}: a number has too many digits, or lists or tables are too deep in each other"
        ) from None


def _toml_section(path: str, name: str, value: object) -> FileSection:
    if not isinstance(value, dict):
        raise _not_a_section(path, name, _toml_kind(value))
    return FileSection(name, [_toml_entry(key, each) for key, each in value.items()])


def _elements(entries: Iterable[Entry]) -> tuple[str, ...] | None:
    """
    The texts of a list's elements, each given as an entry without a key.

    :return: None if an element is neither a text nor a number, or can't be taken.
    """
    texts: list[str] = []
    for entry in entries:
        if entry.kind not in (Kind.TEXT, Kind.NUMBER) or entry.problem is not None:
            return None
        texts.append(entry.text)
    return tuple(texts)


class _Written(str):
    """A number with a point, an exponent or a name, as it was written."""


def _toml_entry(key: str, value: object) -> Entry:
    kind = _toml_kind(value)
    match kind:
        case Kind.BOOLEAN:
            return Entry(key, str(value).lower(), kind)
        case Kind.TEXT | Kind.NUMBER:
            return Entry(key, str(value), kind)
        case Kind.TABLE:
            assert isinstance(value, dict)
            inner = tuple(_toml_entry(name, each) for name, each in value.items())
            return Entry(key, "", kind, table=inner)
        case Kind.LIST:
            assert isinstance(value, list)
            return Entry(key, "", kind, elements=_elements(_toml_entry("", one) for one in value))
        case _:
            return Entry(key, "", kind)


def _toml_kind(value: object) -> Kind:
    match value:
        case bool():
            return Kind.BOOLEAN
        case int() | _Written():
            return Kind.NUMBER
        case str():
            return Kind.TEXT
        case list():
            return Kind.LIST
        case dict():
            return Kind.TABLE
        case _:
            return Kind.DATE


# YAML

#: How deep lists and tables may be in each other, in a value that is passed over.
_DEPTH = 8

#: How deep a table may be that is read: [endpoint], [endpoint.billing], [endpoint.billing.headers].
_TABLES = 3


def _read_yaml(path: str, text: str) -> Iterator[FileSection]:
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        yield from _Yaml(path, iter(loader.get_event, None)).sections()
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        if mark is not None:
            line = mark.line + 1
        elif loader is None:  # a character that YAML does not allow
            line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        else:  # PyYAML gives "\UFFFFFFFF" to chr(), and a version's digits to int(), which raise
            line = loader.line + 1
        raise ConfigError(
            f"{path}, line {line}: this is not YAML, which has section: lines, and indented "
            "key: value lines below them"
        ) from None


class _Yaml:
    """
    A YAML file, read from events and not from objects. Events show a key that is there twice, and
    how a number was written. And reading ends at the first event that has no place here, before
    that takes memory or time.
    """

    def __init__(self, path: str, events: Iterator[yaml.Event]) -> None:
        self._path = path
        self._events = events

    def sections(self) -> Iterator[FileSection]:
        self._next()  # the stream's start
        if isinstance(self._next(), yaml.StreamEndEvent):
            return  # nothing but comments
        top = self._next()
        if isinstance(top, yaml.MappingStartEvent):
            yield from self._top()
        elif _yaml_kind(top) is not Kind.NOTHING:
            raise self._refusal(
                top,
                f"this is {_yaml_kind(top).value}, it takes section: lines, and indented "
                "key: value lines below them",
            )
        self._next()  # the document's end
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise self._refusal(after, "a second document starts here, put all sections into one")

    def _top(self) -> Iterator[FileSection]:
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            name = self._key(event)
            value = self._next()
            if isinstance(value, yaml.MappingStartEvent):
                yield FileSection(name, list(self._entries(1)))
            elif _yaml_kind(value) is Kind.NOTHING:
                yield FileSection(name, [])
            else:
                raise _not_a_section(self._path, name, _yaml_kind(value))

    def _entries(self, depth: int) -> Iterator[Entry]:
        """
        Read the keys and values up to the end of a mapping.

        :param depth: 1 in a section, 2 in a table of a section, 3 in a table of such a table.
        """
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event)
            value = self._next()
            if isinstance(value, yaml.ScalarEvent):
                yield _yaml_entry(key, value)
            elif isinstance(value, yaml.MappingStartEvent) and depth < _TABLES:
                yield Entry(key, "", Kind.TABLE, table=tuple(self._entries(depth + 1)))
            elif isinstance(value, yaml.SequenceStartEvent):
                yield Entry(key, "", Kind.LIST, elements=_elements(list(self._list())))
            else:
                self._pass_over()
                yield Entry(key, "", _yaml_kind(value))

    def _list(self) -> Iterator[Entry]:
        """Read the elements up to the end of a list, as entries without a key."""
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            if isinstance(event, yaml.ScalarEvent):
                yield _yaml_entry("", event)
            else:
                self._pass_over()
                yield Entry("", "", _yaml_kind(event))

    def _pass_over(self) -> None:
        """Go on to the end of the list or table that has begun."""
        depth = 1
        while depth:
            event = self._next()
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > _DEPTH:
                raise self._refusal(event, "lists or tables are too deep in each other")

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._refusal(event, f"{_yaml_kind(event).value} can't be a key")
        return event.value

    def _next(self) -> yaml.Event:
        event = next(self._events)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self._refusal(
                event,
                "what & and * stand for is not read here, write the value itself, in quotes if it "
                "starts with one of them",
            )
        if getattr(event, "tag", None) is not None:
            raise self._refusal(
                event,
                "what ! stands for is not read here, leave it out, or put a value that starts with "
                "it in quotes",
            )
        return event

    def _refusal(self, event: yaml.Event, why: str) -> ConfigError:
        mark = event.start_mark
        assert mark is not None
        return ConfigError(f"{self._path}, line {mark.line + 1}: {why}")


#: Finds the type of a value without quotes.
_RESOLVER = yaml.resolver.Resolver()
_KINDS = {
    "int": Kind.NUMBER,
    "float": Kind.NUMBER,
    "bool": Kind.BOOLEAN,
    "null": Kind.NOTHING,
    "timestamp": Kind.DATE,
}


def _yaml_kind(event: yaml.Event) -> Kind:
    match event:
        case yaml.SequenceStartEvent():
            return Kind.LIST
        case yaml.MappingStartEvent():
            return Kind.TABLE
        case yaml.ScalarEvent(style=None, value=value):
            tag: object = _RESOLVER.resolve(yaml.ScalarNode, value, (True, False))  # type: ignore[no-untyped-call]
            return _KINDS.get(str(tag).rpartition(":")[2], Kind.TEXT)
        case _:
            return Kind.TEXT


def _yaml_entry(key: str, value: yaml.ScalarEvent) -> Entry:
    kind = _yaml_kind(value)
    if kind in (Kind.NOTHING, Kind.DATE):
        return Entry(key, "", kind)
    problem = None
    if kind is Kind.NUMBER and re.match(r"[-+]?0[0-9]", value.value):
        problem = "YAML reads a number that starts with 0 as octal, leave the 0 out or use quotes"
    return Entry(key, value.value, kind, problem)


# Both


def _not_a_section(path: str, name: str, kind: Kind) -> ConfigError:
    return ConfigError(
        f"{path}: {named(name)} is {kind.value}, not a section: keys stand in sections, such as "
        "host in mysql"
    )
