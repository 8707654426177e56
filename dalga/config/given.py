"""
The values that a file, the variables and the command line give, by section and key, before they are
read as texts or numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dalga.config.endpoints import in_variable_of, section_of
from dalga.config.formats import Kind
from dalga.config.headers import HEADERS, Headers
from dalga.config.mistakes import Mistakes
from dalga.config.names import ELSEWHERE, UNNEEDED
from dalga.config.secretfile import secret_in, who_else_reads
from dalga.config.tokens import TOKENS, Tokens
from dalga.config.values import Value
from dalga.errors import ConfigError
from dalga.model.address import DEFAULT_ENDPOINT

#: By section and key.
Values = dict[tuple[str, str], Value]


class Given:
    """
    The values that were given. A value that is added later goes first.

    :param mistakes: takes the mistakes that are found.
    """

    def __init__(self, mistakes: Mistakes) -> None:
        self.mistakes = mistakes
        #: The heading in the file, or the variable, by which each section is there, for sentences.
        #: A heading counts also with nothing below.
        self.origins: dict[str, str] = {}
        #: Variables that Kubernetes or a docker link has set, not an operator.
        self.links: list[str] = []
        #: The headers of each endpoint, by its name. The endpoints that have a name are those here.
        self.headers: dict[str, Headers] = {}
        self.headers_of(DEFAULT_ENDPOINT)
        #: The names of the targets of alerts that have one.
        self.targets: set[str] = set()
        self.tokens = Tokens(mistakes)
        #: Sentences on what was given and changes nothing, or is not as safe as it could be.
        self.notes: list[str] = []
        self._values: Values = {}

    def of(self, section: str) -> dict[str, Value]:
        """A section's values by their keys."""
        return {key: value for (within, key), value in self._values.items() if within == section}

    def headers_of(self, endpoint: str) -> Headers:
        """The headers of an endpoint. With its headers, an endpoint is there."""
        variables = f"DALGA_{in_variable_of(endpoint)}_{HEADERS[1].upper()}"
        return self.headers.setdefault(endpoint, Headers(variables))

    def add(self, values: Values) -> None:
        """Take all values of a file, or of the environment."""
        self._values.update(values)

    def add_option(self, section: str, key: str, text: str) -> None:
        """Take the value of an option of the command line, which has the name of a key."""
        self._values[section, key] = Value(key, text, f"--{key}")

    def read_files(self) -> None:
        """
        Put the text of a file in the place of its path, for each value that a file of its own has.
        A value that another one has replaced is not read. A value that can't be read is a mistake,
        and is left out.
        """
        for place, value in [*self._values.items()]:
            if value.from_file:
                del self._values[place]
                with self.mistakes.of(place[0]):
                    self._values[place] = self._read_file(value)
        for endpoint, headers in self.headers.items():
            for name, value in [*headers.given.items()]:
                if value.from_file:
                    del headers.given[name]
                    with self.mistakes.of(section_of(endpoint)):
                        headers.given[name] = self._read_file(value)

    def _read_file(self, value: Value) -> Value:
        """:raises ConfigError: for a file without a text."""
        if value.kind is not Kind.TEXT:
            raise value.refuse("it takes the path of a file, so put it in double quotes")
        try:
            text = secret_in(value.text)
        except ValueError as problem:
            raise ConfigError(
                f"the file that {value.where} names: {problem}; it takes the path of a file that "
                f"has the {value.key} in it and nothing else"
            ) from None
        if who := who_else_reads(value.text):
            self.notes.append(
                f"the file that {value.where} names has a secret in it, and {who}: chmod 600 "
                "leaves it to its owner"
            )
        return replace(value, text=text, from_file=False)

    def where(self) -> dict[tuple[str, str], str]:
        """
        Where each value stands, for sentences, by section and key. The headers of ``[endpoint]``
        are in the section ``endpoint headers``, by their names in lower case.
        """
        places = {place: value.where for place, value in self._values.items()}
        for endpoint, headers in self.headers.items():
            section = f"{section_of(endpoint)} {HEADERS[1]}"
            places |= {(section, name): value.where for name, value in headers.given.items()}
        return places | {(TOKENS, name): value.where for name, value in self.tokens.given.items()}

    def unneeded(self) -> Iterable[str]:
        """A sentence for each value of a key that changes nothing."""
        for place, why in UNNEEDED.items():
            # True asks for what Dalga does anyway.
            if place in self._values and self._values[place].text.lower() != "true":
                yield f"{self._values[place].where} is ignored: {why}"


def add_value(values: Values, section: str, value: Value) -> None:
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
