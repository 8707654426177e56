"""
``dalga token``: makes tokens. The configuration gets a token's SHA-256 alone, so each token is
shown once, as it is made.

    dalga token new NAME --scope SCOPE ...    shows a token, and its line for [tokens]
    dalga token first FILE                    adds an admin token to a file of tokens that has none
"""

from __future__ import annotations

import fcntl
import os
import sys
from argparse import Action, ArgumentError, ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from dalga.config.tokens import token_lines
from dalga.errors import ConfigError
from dalga.model.permit import (
    NAME,
    TOKEN_OCTETS,
    Grant,
    Scope,
    Token,
    digest_of,
    grant_of,
    is_token_name,
    new_token,
    token_from_text,
)

#: The name of the token that ``dalga token first`` makes.
FIRST = "admin"


class _Limit(Action):
    """``--scope``, and ``--prefix`` and ``--endpoint``, which limit the scope before them."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Called for each of the options, in the order in which they were given."""
        scopes: list[_Scope] = namespace.scopes
        if option_string == "--scope":
            scopes.append(_Scope(values, [], []))
        elif not scopes:
            raise ArgumentError(self, "it limits a scope, so give --scope before it")
        elif option_string == "--prefix":
            scopes[-1].prefixes.append(values)
        else:
            scopes[-1].endpoints.append(values)


class _Scope(NamedTuple):
    """A scope, and what it is limited to, as they were given."""

    scope: str
    prefixes: list[str]
    endpoints: list[str]


class _Parser(ArgumentParser):
    """Says what is wrong as ``dalga`` does."""

    def error(self, message: str) -> NoReturn:
        """Called for options that are not understood."""
        self.exit(2, f"dalga: {message}; see {self.prog} --help\n")


def _parser() -> ArgumentParser:
    scopes = f"{', '.join(tuple(Scope)[:-1])} or {tuple(Scope)[-1]}"
    parser = _Parser("dalga token", description="Make tokens.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="new | first")
    new = commands.add_parser(
        "new",
        help="make a token, and show it with its line for [tokens]",
        description=f"Make a token. SCOPE is {scopes}. Each --prefix and --endpoint limits the "
        "--scope before it to jobs whose path begins so, and whose endpoint is one of those. All "
        "three can be given several times.",
        allow_abbrev=False,
    )
    new.add_argument("name", metavar="NAME", help="stands in the log, with what the token changed")
    new.add_argument(
        "--scope", action=_Limit, dest="scopes", default=[], metavar="SCOPE", required=True
    )
    new.add_argument("--prefix", action=_Limit, dest="scopes", default=[], metavar="PATH")
    new.add_argument("--endpoint", action=_Limit, dest="scopes", default=[], metavar="NAME")
    first = commands.add_parser(
        "first",
        help="add an admin token to a file of tokens that has none, and show it",
        description="Add an admin token to a file of tokens, as DALGA_TOKENS_FILE names one. The "
        "file is made if it is not there. If it has an admin token, nothing is done.",
        allow_abbrev=False,
    )
    first.add_argument("file", metavar="FILE")
    return parser


def main(argv: Sequence[str], random: Callable[[int], bytes] = os.urandom) -> int:
    """
    ``dalga token``.

    :param argv: what follows on that.
    :param random: gives so many random octets.
    :return: the exit status.
    """
    parser = _parser()
    given = parser.parse_args(list(argv), Namespace(scopes=[]))
    text = new_token(random(TOKEN_OCTETS))
    try:
        if given.command == "first":
            _first(given.file, text)
        else:
            _say(text, _wished(parser, given, text))
    except ConfigError as error:
        print(f"dalga: {error}", file=sys.stderr)
    except OSError as error:
        why = f"{given.file} can't be used as a file of tokens"
        print(f"dalga: {why}: {error.strerror}", file=sys.stderr)
    else:
        return 0
    return 1


def _wished(parser: ArgumentParser, given: Namespace, text: str) -> Token:
    """The token that ``dalga token new`` is to make."""
    if not is_token_name(given.name):
        parser.error(NAME)
    try:
        return _new(given.name, text, [grant_of(*scope) for scope in given.scopes])
    except ValueError as problem:
        parser.error(f"a scope that can't be granted: {problem}")


def _new(name: str, text: str, grants: Iterable[Grant]) -> Token:
    return Token(name, tuple(grants), digest_of(text.encode("ascii")))


def _say(text: str, token: Token) -> None:
    _show(
        f"The token, shown this once. Its user sends it as Authorization: Bearer ...\n\n{text}\n\n"
        "Its line below [tokens], or in the file that DALGA_TOKENS_FILE names (in TOML and YAML "
        f"put what\nfollows on the name in double quotes):\n\n{token.name} = {token}"
    )


def _show(words: str) -> None:
    """
    Write to the standard output, at once.

    :param words: have a token in them.
    :raises ConfigError: if the standard output takes nothing, such as a pipe that nobody reads.
    """
    try:
        print(words, flush=True)
    except OSError as error:
        why = f"the token can't be shown ({error.strerror}), so none was made"
        raise ConfigError(why) from None


def _first(path: str, text: str) -> None:
    """
    Add an admin token to a file, and show it.

    :param text: the token.
    :raises ConfigError: for a file that is no file of tokens, or if the token can't be shown.
    :raises OSError: for a file that can't be opened, read or written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        # A file of a Kubernetes Secret can only be read. It is in order if it has an admin token.
        with suppress(OSError):
            if _has_admin(path, tokens_of(path, Path(path).read_bytes())):
                return
        raise
    with open(descriptor, "r+b", buffering=0) as file:
        # Of two containers that start at once, one makes the token.
        fcntl.flock(file, fcntl.LOCK_EX)
        before = file.read()
        tokens = tokens_of(path, before)
        if _has_admin(path, tokens):
            return
        made = _new(_free_name(tokens), text, (Grant(Scope.ADMIN),))
        lines = f"{made.name} = {made}\n".encode("ascii")
        # Before it is of use: nobody could show it once more.
        _show(
            f"The admin token, shown this once. Its line is added to {path}, as token {made.name}. "
            f"Send it as\nAuthorization: Bearer ...\n\n{text}"
        )
        file.write(lines if before[-1:] in (b"", b"\n") else b"\n" + lines)
        os.fsync(file)


def _has_admin(path: str, tokens: Iterable[Token]) -> bool:
    """Whether an admin token is among the tokens of a file. If there is one, say so."""
    for token in tokens:
        if any(grant.scope is Scope.ADMIN for grant in token.grants):
            print(f"{path} has an admin token, {token.name}: nothing was done")
            return True
    return False


def tokens_of(path: str, content: bytes) -> list[Token]:
    """
    The tokens of a file of tokens.

    :param path: the file's, for sentences. No sentence has anything of its lines.
    :raises ConfigError: for a file that is none.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8, so it is no file of tokens") from None
    tokens = []
    for number, name, grants in token_lines(text):
        if name[:1] == "[":
            raise ConfigError(
                f"{path} has sections: give a file of tokens alone, which DALGA_TOKENS_FILE, or "
                "file below [tokens] of the configuration, names"
            )
        try:
            tokens.append(token_from_text(name, grants))
        except ValueError as problem:
            raise ConfigError(f"{path}, line {number} is no token's: {problem}") from None
    return tokens


def _free_name(tokens: Iterable[Token]) -> str:
    """A name that none of the tokens has."""
    taken, number, name = {token.name for token in tokens}, 1, FIRST
    while name in taken:
        number += 1
        name = f"{FIRST}-{number}"
    return name
