"""
How the fields of a dataclass have the keys of a section.

    max_running: int = key("maxRunning", whole(1, 10_000), default=100)

says the key's name in files (``maxRunning``), the values that it takes, its default, and where the
value is found (`max_running`). The reading of files, the names of variables and the lists of keys
in sentences all go by the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dalga.config.mistakes import Mistakes
from dalga.config.values import Reader, Value, written

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
Section = TypeVar("Section", bound="DataclassInstance")


class Key(NamedTuple):
    """A key of a section."""

    #: The name as it is documented. Files may have it in any case.
    name: str
    read: Reader[Any]
    #: Whether the value is a password. Neither a sentence nor a `repr` shows a password.
    secret: bool = False
    #: Whether the value is a URL that may have a user and a password in it.
    has_password: bool = False
    #: The field's value, as a file has it.
    write: Callable[[Any], str] = written

    @property
    def from_file(self) -> bool:
        """Whether a file of its own may have the value."""
        return self.secret or self.has_password


#: The name under which a field's metadata has its keys: by the names of the parts of the field's
#: value; or one key, by the name "".
_METADATA = "keys"


def key(
    name: str,
    read: Reader[T],
    default: T,
    secret: bool = False,
    has_password: bool = False,
    write: Callable[[T], str] = written,
) -> T:
    """A field that has the value of one key. `Key` says what the parameters are."""
    one = Key(name, read, secret, has_password, write)
    of: T = field(default=default, repr=not secret, metadata={_METADATA: {"": one}})
    return of


def of_key(name: str, read: Reader[Any]) -> dict[str, Mapping[str, Key]]:
    """The metadata of a field that has the value of one key."""
    return {_METADATA: {"": Key(name, read)}}


def parts(default: T, **keys: Key) -> T:
    """
    A field whose value is an object, and that has a key for each part of the object.

    :param default: an object whose parts are the keys' defaults.
    :param keys: the keys, by the names of the parts.
    """
    of: T = field(default=default, metadata={_METADATA: keys})
    return of


def keys_of(section: type[DataclassInstance]) -> Iterator[Key]:
    """The keys of a section, in the order in which sentences list them."""
    for each in fields(section):
        yield from each.metadata.get(_METADATA, {}).values()


def values_of(section: DataclassInstance) -> Iterator[tuple[Key, Any]]:
    """The keys of a section, each with its value in the section."""
    for each in fields(section):
        keys: Mapping[str, Key] = each.metadata.get(_METADATA, {})
        for part, one in keys.items():
            value = getattr(section, each.name)
            yield one, getattr(value, part) if part else value


def read(
    section: type[Section], values: Mapping[str, Value], mistakes: Mistakes, name: str
) -> Section:
    """
    Read a section, key by key. A value that its key does not take is a mistake; the section has the
    default in its place.

    :param section: one of the dataclasses of `dalga.config.sections`.
    :param values: the given values, by the names of their keys.
    :param name: the section's.
    """
    found: dict[str, Any] = {}
    for each in fields(section):
        keys: Mapping[str, Key] = each.metadata.get(_METADATA, {})
        given: dict[str, Any] = {}
        for part, one in keys.items():
            if one.name in values:
                with mistakes.of(name):
                    given[part] = one.read(values[one.name])
        if "" in given:
            found[each.name] = given[""]
        elif given:
            found[each.name] = replace(each.default, **given)  # type: ignore[type-var]
    return section(**found)
