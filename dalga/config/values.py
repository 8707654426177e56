"""
A value as it was given, and the readers of values. A reader reads one kind of value (text, a
number, a duration) within bounds. It refuses another value, in a sentence that says which values
would do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from dalga.config.formats import Kind, quoted
from dalga.config.texts import undisplayable
from dalga.errors import ConfigError
from dalga.model.address import as_in_url
from dalga.model.duration import elapsed_from_text
from dalga.model.reading import BOOLEANS

T = TypeVar("T")

#: Finds what may be a user and a password in a URL: what stands before an @, or, if that was
#: forgotten, has a colon and then no port behind it. Or another secret, where two lines of a file
#: have become one: ``host = db password = s3cret``.
_MAYBE_A_PASSWORD = re.compile(
    r"@|//[^/?#\[]*:(?![0-9]*(?:[/?#]|$))|password|secret|whsec_|whsk_|dalga_", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it was given, without its quotes and its comment."""

    #: The key's name as it is documented. A file may have it in another case.
    key: str
    #: A `repr` does not show it, as it may be a secret.
    text: str = field(repr=False)
    #: Where the value stands: the file, section and key, or the variable.
    where: str
    kind: Kind = Kind.TEXT
    #: Whether the value may be a password. No sentence repeats a password.
    secret: bool = False
    #: The elements of a list; None for a list that has other elements than texts and numbers.
    elements: tuple[str, ...] | None = field(default=(), repr=False)
    #: Whether the text is the path of a file, which has the value in it.
    from_file: bool = False

    def refuse(self, why: str) -> ConfigError:
        """
        The error that refuses this value.

        :param why: the end of the sentence, such as "it takes true or false".
        """
        if self.kind not in (Kind.TEXT, Kind.NUMBER, Kind.BOOLEAN):
            given = f" is {self.kind.value}"
        elif self.secret or _MAYBE_A_PASSWORD.search(self.text):
            given = " (not shown)"
        else:
            given = f" is {quoted(self.text)}"
        return ConfigError(f"{self.where}{given}: {why}")


#: Reads a value. Raises ConfigError to refuse it.
Reader = Callable[[Value], T]


def text(refuses: Callable[[str], str | None] = lambda text: None) -> Reader[str]:
    """
    Text.

    :param refuses: gives why a text is refused, or None: see `dalga.config.texts`.
    """

    def read(value: Value) -> str:
        if value.kind is not Kind.TEXT:
            raise value.refuse("it takes text, so put it in double quotes")
        if why := undisplayable(value.text) or refuses(value.text):
            raise value.refuse(why)
        return value.text

    return read


def several(read: Callable[[str], T], between: str = ",") -> Reader[tuple[T, ...]]:
    """
    Several texts: a list of them, or one text with all of them. An empty text is none.

    :param read: gives the value of one. To refuse it, raises ValueError with the end of a sentence.
    :param between: the pattern of what stands between two of them in one text.
    """

    def read_all(value: Value) -> tuple[T, ...]:
        if value.kind is Kind.LIST and value.elements is not None:
            texts = value.elements
        elif value.kind is Kind.TEXT:
            texts = tuple(re.split(between, value.text)) if value.text.strip() else ()
        else:
            raise value.refuse("it takes text, or a list of texts, so put it in double quotes")
        found = []
        for each in (text.strip() for text in texts):
            try:
                found.append(_taken(each, read))
            except ValueError as problem:
                raise value.refuse(_of_one(value, each, str(problem))) from None
        return tuple(dict.fromkeys(found))

    return read_all


def _taken(text: str, read: Callable[[str], T]) -> T:
    if why := undisplayable(text):
        raise ValueError(why)
    return read(text)


def _of_one(value: Value, text: str, why: str) -> str:
    """
    Why one of several texts is refused.

    :param text: the refused one. It is named where it is not all that was given, and no secret.
    """
    if value.secret or _MAYBE_A_PASSWORD.search(text) or text == value.text.strip():
        return why
    return f"it has {quoted(text)}, but {why}"


def whole(low: int, high: int) -> Reader[int]:
    """A whole number from `low` to `high`."""

    def read(value: Value) -> int:
        # Seventeen digits are more than any range here, and int() refuses thousands of them.
        if re.fullmatch(r"-?[0-9]{1,17}", value.text) and low <= int(value.text) <= high:
            return int(value.text)
        raise value.refuse(f"it takes a whole number from {low} to {high}")

    return read


def size(low: int, high: int) -> Reader[int]:
    """A number of octets from `low` to `high`."""

    def read(value: Value) -> int:
        found = re.fullmatch(r"([0-9]{1,17})[ ]*(|KiB|MiB)", value.text, re.IGNORECASE)
        octets = int(found[1]) * _SIZES[found[2].lower()] if found else -1
        if not low <= octets <= high:
            raise value.refuse(f"it takes {low} to {high} bytes, such as 65536, 64KiB or 1MiB")
        return octets

    return read


def number(low: int, high: int, such_as: str) -> Reader[float]:
    """
    A number from `low` to `high`.

    :param such_as: an example, for the sentence that refuses another value.
    """

    def read(value: Value) -> float:
        # float() would take "nan", "inf" and "1_0", too.
        if re.fullmatch(_NUMBER, value.text) and low <= float(value.text) <= high:
            return float(value.text)
        raise value.refuse(f"it takes a number from {low} to {high}, such as {such_as}")

    return read


def boolean(value: Value) -> bool:
    """True or false, in the words that the parameters of the HTTP interface take."""
    if value.text.lower() in BOOLEANS:
        return BOOLEANS[value.text.lower()]
    raise value.refuse("it takes true or false")


def duration(shortest: str = "1ms", longest: str = "1h", has_days: bool = False) -> Reader[float]:
    """
    A duration; gives seconds.

    :param shortest: the shortest that is taken, in words that this reader takes.
    :param longest: the longest, likewise.
    :param has_days: whether ``7d`` is taken, too: days of 24 hours.
    """
    low, high = _seconds(shortest, has_days), _seconds(longest, has_days)
    assert low is not None and high is not None
    examples = "10s, 5m, 1h30m, 7d" if has_days else "500ms, 10s, 5m, 1h30m"
    in_iso = "P7D" if has_days else "PT5M"

    def read(value: Value) -> float:
        seconds = _seconds(value.text, has_days)
        if seconds is not None and low <= seconds <= high:
            return seconds
        raise value.refuse(
            f"it takes a duration from {shortest} to {longest}, in seconds (10, 2.5), with a unit "
            f"({examples}), or as ISO 8601 has it without years and months ({in_iso})"
        )

    return read


def written(value: object) -> str:
    """
    A value of a section, as a file has it.

    Durations are numbers as well as others are; `in_seconds` and `in_days` write them.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:g}"
        case None:
            return ""
        case (str() as host, int() as port):
            return as_in_url(host, port)
        case tuple():
            return ", ".join(map(str, value))
    return str(value)


def in_seconds(value: float | timedelta | None) -> str:
    """A duration in seconds, such as ``0.5s``; None is 0."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value or 0
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def in_days(value: timedelta) -> str:
    """A duration in days, such as ``7d``, or in seconds."""
    return f"{value.days}d" if value == timedelta(days=value.days) else in_seconds(value)


_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_SIZES = {"": 1, "kib": 1024, "mib": 1024 * 1024}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(text: str, has_days: bool) -> float | None:
    """
    The seconds of ``2.5``, of Go's ``500ms``, ``10s`` and ``1m30s``, or of ISO 8601's ``PT90S`` and
    ``P1D``, whose day is 24 hours. None for a text of another form.

    :param has_days: see `duration`.
    """
    if re.fullmatch(_NUMBER, text):
        return float(text)
    part = rf"({_NUMBER})({'ms|s|m|h|d' if has_days else 'ms|s|m|h'})"
    if re.fullmatch(f"(?:{part})+", text):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(part, text))
    try:
        return elapsed_from_text(text).total_seconds()
    except ValueError:
        return None
