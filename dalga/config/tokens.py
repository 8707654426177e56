"""
The tokens of ``[tokens]``: their names, what each grants, and its SHA-256, from a file's section,
from a file of such lines alone, and from variables::

    [tokens]
    ci = write:team/ read sha256:9f86d081884c7d659a2feaa0c55ad015...
    file = /run/secrets/tokens                  as DALGA_TOKENS_FILE
    DALGA_TOKENS_CI                             a variable

A variable goes before the file's token of that name. A file of tokens has lines as ``[tokens]``
has, and comments.

No sentence here has anything of a line in it: somebody may have put the token itself there.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from dalga.config.endpoints import check_variables, same_variables
from dalga.config.formats import Entry, Kind, named
from dalga.config.mistakes import Mistakes
from dalga.config.secretfile import secret_in
from dalga.config.texts import undisplayable
from dalga.config.values import Value
from dalga.errors import ConfigError
from dalga.model.permit import FILE, NAME, Token, is_token_name, token_from_text

#: The name of the section.
TOKENS = "tokens"

_LINES = "its lines are name = scope sha256:..., as dalga token new prints them, and comments"


class Tokens:
    """
    The tokens that were given.

    :param mistakes: takes the mistakes that are found in a file of tokens.
    """

    def __init__(self, mistakes: Mistakes) -> None:
        self._mistakes = mistakes
        #: By their names.
        self.given: dict[str, Value] = {}
        #: The file of tokens, with its path as the text.
        self.file: Value | None = None

    def add_key(self, path: str, entry: Entry) -> None:
        """
        Take a line of ``[tokens]``.

        :param path: the file's, for sentences.
        :raises ConfigError: for a name that no token can have, or that is there twice.
        """
        name = entry.key
        if name.lower() == FILE:
            where = f"{path}: [{TOKENS}] {FILE}"
            if self.file is not None:
                raise ConfigError(f"{where} is there twice, leave one of them")
            self.file = _value(FILE, entry.text, where, entry.kind)
            return
        if not is_token_name(name):
            # Somebody may have put a token in the place of its name.
            raise ConfigError(
                f"{path}: [{TOKENS}] has a key that can't be a token's name (not shown): {NAME}"
            )
        value = _value(name, entry.text, f"{path}: [{TOKENS}] {name}", entry.kind)
        if entry.problem is not None:
            raise value.refuse(entry.problem)
        self._add(value)

    def add_variable(self, variable: str, name: str, text: str) -> None:
        """
        Take ``DALGA_TOKENS_CI`` for ``ci``, or ``DALGA_TOKENS_FILE``.

        :param name: what follows on ``DALGA_TOKENS_`` in the variable's name.
        :raises ConfigError: for a variable that names no token.
        """
        if name == FILE.upper():
            self.file = _value(FILE, text, variable)
            return
        spelled = name.lower().replace("_", "-")
        if name != name.upper() or not is_token_name(spelled):
            raise ConfigError(
                f"{named(variable)} is not a variable of Dalga's: each token takes one with its "
                "name behind DALGA_TOKENS_, such as DALGA_TOKENS_CI, and DALGA_TOKENS_FILE names a "
                "file of tokens"
            )
        known = next((each for each in self.given if same_variables(each) == spelled), spelled)
        self.given[known] = _value(known, text, variable)

    def read(self, endpoints: Container[str] | None) -> tuple[Token, ...]:
        """
        Read the tokens that were given, with those of the file of tokens.

        :param endpoints: the names of the endpoints; None where they are not known, for a mistake.
        :return: the tokens, by their names. What is no token is a mistake.
        """
        if self.file is not None:
            with self._mistakes.of(TOKENS):
                self._read_file(self.file)
        tokens: dict[bytes, Token] = {}
        for value in sorted(self.given.values(), key=lambda value: value.key):
            with self._mistakes.of(TOKENS):
                token = _token(value, endpoints)
                same = tokens.setdefault(token.digest, token)
                if same is not token:
                    raise value.refuse(
                        f"it is the same token as {same.name}; put all scopes of a token into one "
                        "line, or make another token"
                    )
        return tuple(tokens.values())

    def _add(self, value: Value) -> None:
        """:raises ConfigError: for a name that is there already."""
        other = self.given.get(value.key)
        if other is not None:
            raise ConfigError(
                f"{value.where} is there twice, leave one of them"
                if other.where == value.where
                else f"{other.where} and {value.where} have the same name, leave one of them"
            )
        check_variables(value.where, "a token", value.key, self.given)
        self.given[value.key] = value

    def _read_file(self, file: Value) -> None:
        """:raises ConfigError: for a file that has no tokens."""
        if file.kind is not Kind.TEXT:
            raise file.refuse("it takes the path of a file, so put it in double quotes")
        where = f"the file of tokens that {file.where} names"
        try:
            content = secret_in(file.text)
        except ValueError as problem:
            raise ConfigError(f"{where}: {problem}; {_LINES}") from None
        found = 0
        for number, name, text in token_lines(content):
            found += 1
            with self._mistakes.of(TOKENS):
                if not text or not is_token_name(name):
                    raise ConfigError(f"{where}, line {number}: this is no token's line; {_LINES}")
                self._add(_value(name, text, f"{where}, line {number}, {name}"))
        if not found:
            raise ConfigError(f"{where} has no token in it, so all would be open; {_LINES}")


def token_lines(content: str) -> Iterator[tuple[int, str, str]]:
    """
    The lines of a file of tokens, without comments: the number of each, from 1 on, the name, and
    what follows on the name. A line without ``=`` is all name.
    """
    for number, line in enumerate(map(str.strip, content.splitlines()), 1):
        if line and line[0] not in ";#":
            name, _, text = re.sub(r"\s[;#].*", "", line).partition("=")
            yield number, name.strip(), text.strip()


def _value(name: str, text: str, where: str, kind: Kind = Kind.TEXT) -> Value:
    return Value(name, text, where, kind, secret=True)


def _token(value: Value, endpoints: Container[str] | None) -> Token:
    """:raises ConfigError: for a line that is no token's, or an endpoint that is not there."""
    if value.kind is not Kind.TEXT:
        raise value.refuse("it takes text, so put it in double quotes")
    if why := undisplayable(value.text):
        raise value.refuse(why)
    try:
        token = token_from_text(value.key, value.text)
    except ValueError as problem:
        raise value.refuse(str(problem)) from None
    for grant in token.grants:
        for endpoint in grant.endpoints:
            if endpoints is not None and endpoint not in endpoints:
                raise value.refuse(
                    f"there is no endpoint {endpoint}, add baseurl = ... to [endpoint {endpoint}], "
                    "or name another one"
                )
    return token
