"""
Who may do what: scopes, what a token grants, and the caller of a request. Pure.

A token is a text that only its user knows. The configuration has the token's SHA-256, and what the
token grants::

    ci = write:team/,endpoint=billing read sha256:9f86d081884c7d659a2feaa0c55ad015...

    write:team/,endpoint=billing    write jobs whose path begins with team/ and whose endpoint is
                                    billing
    read                            read all jobs

What always holds: a limit that is forgotten refuses. A question without a path, or without an
endpoint, is about all of them (`Caller.may`), and a limited grant is no answer to that.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from dalga.errors import Forbidden
from dalga.model.address import MAX_ENDPOINT_NAME, is_endpoint_name
from dalga.model.key import MAX_KEY_LENGTH, RawKey, job_not_found


class Scope(StrEnum):
    """What may be done."""

    #: See jobs, runs and statistics, with payloads, headers and answers hidden.
    READ = "read"
    #: See these, too.
    READ_SECRETS = "read-secrets"
    #: Run jobs now, and repeat runs.
    TRIGGER = "trigger"
    #: Change jobs.
    WRITE = "write"
    #: Everything.
    ADMIN = "admin"
    #: See ``/metrics``.
    METRICS = "metrics"


#: Which scopes a scope has in it.
INCLUDED: Mapping[Scope, frozenset[Scope]] = MappingProxyType(
    {
        Scope.READ: frozenset({Scope.READ}),
        Scope.READ_SECRETS: frozenset({Scope.READ_SECRETS, Scope.READ}),
        Scope.TRIGGER: frozenset({Scope.TRIGGER}),
        Scope.WRITE: frozenset({Scope.WRITE, Scope.TRIGGER, Scope.READ}),
        Scope.ADMIN: frozenset(Scope),
        Scope.METRICS: frozenset({Scope.METRICS}),
    }
)

#: The scopes that are of no job, and so have no limits.
UNLIMITED = (Scope.ADMIN, Scope.METRICS)


class Area(NamedTuple):
    """
    Some jobs: those whose path begins with one of the prefixes, and whose endpoint is one of the
    endpoints. No prefixes are all paths, and no endpoints are all endpoints.
    """

    prefixes: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()

    def has(self, path: str | None, endpoint: str | None) -> bool:
        """Whether a job is in the area. None for a path, or an endpoint, is for all of them."""
        return (not self.prefixes or (path is not None and path.startswith(self.prefixes))) and (
            not self.endpoints or (endpoint is not None and endpoint in self.endpoints)
        )

    def may_have(self, path: str | None, endpoint: str | None) -> bool:
        """Whether a job may be in the area. None is for a path, or an endpoint, not known yet."""
        return (path is None or not self.prefixes or path.startswith(self.prefixes)) and (
            endpoint is None or not self.endpoints or endpoint in self.endpoints
        )

    def is_within(self, other: Area) -> bool:
        """Whether each of the jobs is in the other area, too."""
        prefixes = not other.prefixes or (
            bool(self.prefixes) and all(each.startswith(other.prefixes) for each in self.prefixes)
        )
        endpoints = not other.endpoints or (
            bool(self.endpoints) and set(self.endpoints) <= set(other.endpoints)
        )
        return prefixes and endpoints

    def __str__(self) -> str:
        """As the configuration has it behind a scope and a colon; empty for all jobs."""
        return ",".join(
            [
                *(_quoted(prefix) for prefix in self.prefixes),
                *(f"{_ENDPOINT}{name}" for name in self.endpoints),
            ]
        )


class Grant(NamedTuple):
    """A scope, and the jobs that it is limited to: see `Area`."""

    scope: Scope
    prefixes: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()

    @property
    def area(self) -> Area:
        """The jobs."""
        return Area(self.prefixes, self.endpoints)

    def __str__(self) -> str:
        """As the configuration has it."""
        what = str(self.area)
        return f"{self.scope}:{what}" if what else str(self.scope)


class Limits(NamedTuple):
    """The jobs that a scope is limited to: those in any of the areas."""

    areas: tuple[Area, ...]

    def have(self, path: str, endpoint: str | None) -> bool:
        """
        Whether a job is one of them.

        :param endpoint: None for a job whose row can't be understood: it may have any.
        """
        return any(area.has(path, endpoint) for area in self.areas)

    def may_have(self, path: str | None, endpoint: str | None) -> bool:
        """Whether a job may be one of them. None is for what is not known of it."""
        return any(area.may_have(path, endpoint) for area in self.areas)

    @property
    def by_endpoint(self) -> bool:
        """Whether a job's path alone does not tell if the job is one of them."""
        return any(area.endpoints for area in self.areas)

    def prefixes(self, endpoint: str | None = None) -> tuple[str, ...] | None:
        """
        The beginnings of the jobs' paths, in order, none of them the beginning of another one. None
        for all paths.

        :param endpoint: of the jobs that are POSTed to it; None for those of all endpoints.
        """
        areas = [area for area in self.areas if area.may_have(None, endpoint)]
        if any(not area.prefixes for area in areas):
            return None
        found: list[str] = []
        # A text stands behind its beginnings.
        for prefix in sorted({prefix for area in areas for prefix in area.prefixes}):
            if not (found and prefix.startswith(found[-1])):
                found.append(prefix)
        return tuple(found)

    def are_within(self, other: Limits) -> bool:
        """Whether each of the jobs is one of the others, as far as one area has to be in one."""
        return all(any(area.is_within(each) for each in other.areas) for area in self.areas)


def narrowed(prefixes: tuple[str, ...] | None, prefix: str) -> tuple[str, ...]:
    """
    The beginnings of the paths that begin with one of the prefixes, and with another one, too.

    :param prefixes: as `Limits.prefixes` gives them.
    """
    if prefixes is None or prefix.startswith(prefixes):
        return (prefix,)
    return tuple(each for each in prefixes if each.startswith(prefix))


class Token(NamedTuple):
    """A token of the configuration."""

    #: Stands in the log, and with what the token's user has changed.
    name: str
    grants: tuple[Grant, ...]
    #: The SHA-256 of the token's text. A password would need a slow hash, as people choose
    #: passwords that can be guessed. A token has 256 random bits.
    digest: bytes

    def __str__(self) -> str:
        """The token's line in the configuration, without its name."""
        return f"{' '.join(map(str, self.grants))} {_DIGEST}{self.digest.hex()}"


class Author(NamedTuple):
    """Who has asked for a change."""

    #: The name of the token.
    name: str
    #: The client's address.
    address: str = ""


class Caller(NamedTuple):
    """Whoever sends a request."""

    #: The name of the token; "" where the configuration has no tokens.
    name: str
    grants: tuple[Grant, ...]
    #: The client's address; "" where nobody has to know.
    address: str = ""
    #: Whether the token came in a cookie, which a browser sends by itself.
    by_cookie: bool = False

    @property
    def author(self) -> Author | None:
        """Who stands with what the caller changes; None where callers have no names."""
        return Author(self.name, self.address) if self.name else None

    def may(self, scope: Scope, path: str | None = None, endpoint: str | None = None) -> bool:
        """
        Whether the caller has a scope on a job.

        :param path: the job's; None for all paths.
        :param endpoint: the job's; None for all endpoints.
        """
        return any(area.has(path, endpoint) for area in self._areas(scope))

    def might(self, scope: Scope, path: str | None = None, endpoint: str | None = None) -> bool:
        """
        Whether there may be a job on which the caller has a scope. `may` has the answer once the
        job is known.

        :param path: the job's; None where it is not known.
        :param endpoint: the job's; None where it is not known.
        """
        return any(area.may_have(path, endpoint) for area in self._areas(scope))

    def check(self, scope: Scope, path: str | None = None, endpoint: str | None = None) -> None:
        """:raises Forbidden: unless the caller `may`."""
        if not self.may(scope, path, endpoint):
            raise self._refusal(scope, path, endpoint)

    def check_might(
        self, scope: Scope, path: str | None = None, endpoint: str | None = None
    ) -> None:
        """:raises Forbidden: unless the caller `might`."""
        if not self.might(scope, path, endpoint):
            raise self._refusal(scope, path, endpoint)

    def limits(self, scope: Scope) -> Limits | None:
        """
        The jobs on which the caller has a scope; None for all jobs. Without the scope, these are
        limits that have no job.
        """
        areas = tuple(dict.fromkeys(self._areas(scope)))
        return None if Area() in areas else Limits(areas)

    def permit(self, scope: Scope, path: str) -> Permit | None:
        """
        What a write asks of the job that is there. None if the path alone tells that the caller
        may.

        :raises Forbidden: if the caller may not, whatever the job's endpoint.
        """
        if self.may(scope, path):
            return None
        self.check_might(scope, path)
        return Permit(self, scope)

    def _areas(self, scope: Scope) -> list[Area]:
        return [grant.area for grant in self.grants if scope in INCLUDED[grant.scope]]

    def _refusal(self, scope: Scope, path: str | None, endpoint: str | None) -> Forbidden:
        """The sentence repeats what the token grants, and nothing that is in the table."""
        granted = [grant for grant in self.grants if scope in INCLUDED[grant.scope]]
        if not granted:
            has = ", ".join(sorted({grant.scope for grant in self.grants}))
            why = f"this takes the scope {scope}, and the token {self.name} has {has}"
        elif path is None and endpoint is not None:
            why = (
                f"the scope {scope} of the token {self.name} does not reach the endpoint "
                f"{endpoint}: the token has {_in_words(granted)}"
            )
        elif path is None:
            why = (
                f"this takes the scope {scope} without a limit, and the token {self.name} has "
                f"{_in_words(granted)}"
            )
        elif endpoint is None or not any(grant.area.may_have(path, None) for grant in granted):
            why = (
                f"the scope {scope} of the token {self.name} does not reach this path: the token "
                f"has {_in_words(granted)}"
            )
        else:
            why = (
                f"the scope {scope} of the token {self.name} does not reach the endpoint "
                f"{endpoint} there: the token has {_in_words(granted)}"
            )
        return Forbidden(why, scope)


class Permit(NamedTuple):
    """
    Asked of the job that a write finds, in the transaction of the write: only the job's row tells
    which endpoint it has.
    """

    caller: Caller
    scope: Scope

    def hides(self, key: RawKey, endpoint: str | None) -> bool:
        """
        Whether the caller may not know of a job.

        :param endpoint: the job's; None for a row that can't be understood.
        """
        return not any(
            self.caller.may(scope, key.path, endpoint) for scope in (self.scope, Scope.READ)
        )

    def check(self, key: RawKey, endpoint: str | None) -> None:
        """
        :raises JobNotFound: for a job that the caller may not know of.
        :raises Forbidden: for one that the caller may see, and not change.
        """
        if self.hides(key, endpoint):
            raise job_not_found(key)
        self.caller.check(self.scope, key.path, endpoint)

    def check_name(self, key: RawKey, endpoint: str | None) -> None:
        """
        As `check`, for a write of a name, whatever is there. It can't be done as if nothing were.

        :raises Forbidden: for a job that the caller may not change.
        """
        if self.hides(key, endpoint):
            raise Forbidden(
                f"the name with path {key.path!r} and body {key.body!r} is taken by something that "
                f"the scope {self.scope} of the token {self.caller.name} does not reach: choose "
                "another body",
                self.scope,
            )
        self.caller.check(self.scope, key.path, endpoint)


#: The caller where the configuration has no tokens.
OPEN = Caller("", (Grant(Scope.ADMIN),))


#: The caller of whom nothing is known: may nothing.
NOBODY = Caller("", ())


def _in_words(grants: Iterable[Grant]) -> str:
    return ", ".join(map(str, grants))


# Tokens as text

#: The beginning of each token, by which programs that look for secrets find it.
TOKEN = "dalga_"  # nosec B105  # no token, as 32 random octets follow in one

#: How many random octets a token takes.
TOKEN_OCTETS = 32

_DIGEST = "sha256:"
_ENDPOINT = "endpoint="
#: The key of the section of tokens that names a file of more tokens. No token has this name.
FILE = "file"

#: What a line of the configuration takes, for sentences.
LINE = (
    "it takes one or more scopes and the token's SHA-256, as dalga token new prints them: "
    f"read write:team/,{_ENDPOINT}billing {_DIGEST} and 64 hexadecimal digits"
)


def new_token(random: bytes) -> str:
    """
    The text of a new token.

    :param random: `TOKEN_OCTETS` octets.
    :raises ValueError: for more or fewer octets.
    """
    if len(random) != TOKEN_OCTETS:
        raise ValueError(f"a token takes {TOKEN_OCTETS} octets")
    return TOKEN + urlsafe_b64encode(random).rstrip(b"=").decode("ascii")


def digest_of(token: bytes) -> bytes:
    """The SHA-256 of a token's text."""
    return sha256(token).digest()


def token_from_text(name: str, text: str) -> Token:
    """
    Read a token's line of the configuration. No sentence repeats any of the text: somebody may have
    put the token itself there.

    :param name: the name in front of the line.
    :raises ValueError: for a name or a line that is none. The message says what is wrong and what
        would do, as the end of a sentence.
    """
    if not is_token_name(name):
        raise ValueError(NAME)
    words = text.split()
    digests = [word for word in words if word.lower().startswith(_DIGEST)]
    if not words:
        raise ValueError(f"it is empty, {LINE}")
    if any(word.startswith(TOKEN) for word in words):
        raise ValueError(f"it has the token itself in it, which belongs to its user alone; {LINE}")
    if not digests:
        raise ValueError(f"it has no {_DIGEST}, {LINE}")
    if len(digests) > 1:
        raise ValueError(
            f"it has {_DIGEST} {len(digests)} times, give each token a name and a line of its own"
        )
    if words[-1] is not digests[0]:
        raise ValueError(f"{_DIGEST} is not its last word, {LINE}")
    digest = words.pop()[len(_DIGEST) :]
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        raise ValueError(f"{_DIGEST} takes 64 hexadecimal digits, and has other or more or fewer")
    if not words:
        raise ValueError(f"it has no scope: {SCOPES}")
    grants = tuple(_grant(place, word) for place, word in enumerate(words, 1))
    return Token(name, grants, bytes.fromhex(digest))


#: What a scope is, for sentences.
SCOPES = f"it takes {', '.join(tuple(Scope)[:-1])} or {tuple(Scope)[-1]}"

#: What a name is, for sentences.
NAME = (
    "the name of a token takes lower case letters and digits, with single - and _ between them, "
    f"{MAX_ENDPOINT_NAME} at most, and is not {FILE}"
)


def is_token_name(text: str) -> bool:
    """Whether a text can be a token's name."""
    return is_endpoint_name(text) and text != FILE


def grant_of(scope: str, prefixes: Iterable[str] = (), endpoints: Iterable[str] = ()) -> Grant:
    """
    A grant of its parts.

    :raises ValueError: for parts that no grant has, as the end of a sentence.
    """
    if scope not in tuple(Scope):
        raise ValueError(SCOPES)
    grant = Grant(Scope(scope), tuple(prefixes), tuple(endpoints))
    if grant.scope in UNLIMITED and grant.area != Area():
        raise ValueError(f"the scope {grant.scope} has no limits, leave its limits out")
    for prefix in grant.prefixes:
        if not prefix:
            raise ValueError(
                "it has an empty prefix, which all paths begin with: leave the prefix out, or give "
                "the beginning of a path"
            )
        if len(prefix) > MAX_KEY_LENGTH:
            raise ValueError(f"it has a prefix of more than {MAX_KEY_LENGTH} characters")
        if not prefix.isprintable():
            raise ValueError("it has a prefix with a control character, which no path has")
    if not all(map(is_endpoint_name, grant.endpoints)):
        raise ValueError(
            f"{_ENDPOINT} takes the name of an endpoint, such as {_ENDPOINT}billing for "
            "[endpoint billing]"
        )
    return grant


def limits_from_texts(texts: Iterable[str]) -> Limits:
    """
    Read what `str` gives of each area. As in `token_from_text`, no limits are an error.

    :raises ValueError: for other texts.
    """
    areas = tuple(_grant_of(Scope.READ, text).area for text in texts)
    if not areas or Area() in areas:
        raise ValueError("they are no limits")
    return Limits(areas)


def _grant(place: int, word: str) -> Grant:
    """
    Read a grant.

    :param place: which word of its line it is, from 1 on.
    """
    scope, colon, what = word.partition(":")
    try:
        return _grant_of(scope, what if colon else None)
    except ValueError as problem:
        raise ValueError(f"its word {place} is no grant: {problem}") from None


def _grant_of(scope: str, what: str | None) -> Grant:
    parts = [] if what is None else what.split(",")
    return grant_of(
        scope,
        [_unquoted(part) for part in parts if not part.startswith(_ENDPOINT)],
        [part.removeprefix(_ENDPOINT) for part in parts if part.startswith(_ENDPOINT)],
    )


def _quoted(prefix: str) -> str:
    """A prefix as a URL has it; no comma, nor what begins the name of an endpoint."""
    return quote(prefix, safe="/")


def _unquoted(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("a % in a prefix takes two hexadecimal digits after it, write % as %25")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it has a prefix that is not UTF-8") from None
