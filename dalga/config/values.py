"""
Values as they were given, and what they are read as.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dalga.config.formats import Kind, shown
from dalga.config.sections import HEADERS_SECTION
from dalga.config.texts import undisplayable
from dalga.errors import ConfigError
from dalga.model.duration import elapsed_from_text

#: Headers that say how a message goes from one host to the next (RFC 9110 section 7.6.1) or how it
#: is written, which Dalga does by itself.
MESSAGE_HEADERS = (
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)


@dataclass(frozen=True, slots=True)
class Value:
    """A value as it was given, quotes and comments gone."""

    section: str
    key: str
    text: str
    #: The file, section and key, or the variable.
    where: str
    kind: Kind = Kind.TEXT

    def refuse(self, why: str) -> ConfigError:
        """:param why: what follows the colon: what would do, or what is in the way."""
        if self.kind not in (Kind.TEXT, Kind.NUMBER, Kind.BOOLEAN):
            given = f" is {self.kind.value}"
        # A URL with an @ may have a password in it, too.
        elif self.key == "password" or "@" in self.text or self.section == HEADERS_SECTION:
            given = " (not shown)"
        else:
            given = f" is {shown(self.text)}"
        return ConfigError(f"{self.where}{given}: {why}")

    def header(self) -> str:
        """
        The value of a header, whose name is the key.

        :raises ConfigError: for a name or a value that none can have.
        """
        name = self.key.lower()
        if name in MESSAGE_HEADERS or name.startswith("dalga-"):
            raise self.refuse("Dalga sets this header by itself, leave it out")
        if self.kind is not Kind.TEXT:
            raise self.refuse("it takes text, so put it in double quotes")
        if why := undisplayable(self.text):
            raise self.refuse(why)
        # RFC 9110 section 5.5, without what it calls obsolete.
        if not re.fullmatch(r"[!-~](?:[ -~]*[!-~])?", self.text):
            raise self.refuse(
                "a header takes ASCII characters, at least one, without spaces around them"
            )
        return self.text


class Section:
    """One section's values, read as what they should be."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Value:
        return self._values[key]

    def text(self, key: str, default: str, check: Callable[[str], str | None]) -> str:
        """:param check: says why a text won't do; None where it will."""
        value = self._values.get(key)
        if value is None:
            return default
        if value.kind is not Kind.TEXT:
            raise value.refuse("it takes text, so put it in double quotes")
        if why := undisplayable(value.text) or check(value.text):
            raise value.refuse(why)
        return value.text

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self._values.get(key)
        if value is None:
            return default
        # Seventeen digits are more than any range here, and int() refuses thousands of them.
        if re.fullmatch(r"-?[0-9]{1,17}", value.text) and low <= int(value.text) <= high:
            return int(value.text)
        raise value.refuse(f"it takes a whole number from {low} to {high}")

    def number(self, key: str, default: float, low: int, high: int, example: str) -> float:
        value = self._values.get(key)
        if value is None:
            return default
        # A narrower grammar than float's, which takes "nan", "inf" and "1_0".
        if re.fullmatch(_NUMBER, value.text) and low <= float(value.text) <= high:
            return float(value.text)
        raise value.refuse(f"it takes a number from {low} to {high}, such as {example}")

    def boolean(self, key: str, default: bool) -> bool:
        value = self._values.get(key)
        if value is None:
            return default
        if value.text.lower() in _BOOLEANS:
            return _BOOLEANS[value.text.lower()]
        raise value.refuse("it takes true or false")

    def duration(
        self, key: str, default: float, shortest: str = "1ms", longest: str = "1h"
    ) -> float:
        """
        :param shortest: the least, as a duration; so is `longest`, the most.
        :return: seconds.
        """
        value = self._values.get(key)
        if value is None:
            return default
        seconds, low, high = _seconds(value.text), _seconds(shortest), _seconds(longest)
        assert low is not None and high is not None
        if seconds is not None and low <= seconds <= high:
            return seconds
        raise value.refuse(
            f"it takes a duration from {shortest} to {longest}, in seconds (10, 2.5), with a unit "
            "(500ms, 10s, 5m, 1h30m), or as ISO 8601 has it without years and months (PT5M)"
        )


#: As the parameters of the HTTP interface have them.
_BOOLEANS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str) -> float | None:
    """
    The seconds of ``2.5``, of Go's ``500ms``, ``10s`` and ``1m30s``, or of ISO 8601's ``PT90S`` and
    ``P1D``, whose day is 24 hours; None for what is none of these.
    """
    if re.fullmatch(_NUMBER, text):
        return float(text)
    part = rf"({_NUMBER})(ms|s|m|h)"
    if re.fullmatch(f"(?:{part})+", text):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(part, text))
    try:
        return elapsed_from_text(text).total_seconds()
    except ValueError:
        return None


# What a text may be. Each says why one won't do.
