"""
The names of the endpoints beside ``[endpoint]``, and where the configuration has them::

    [endpoint billing]                  in an ini file; [endpoint.billing] will do as well
    [endpoint billing headers]          its headers
    [endpoint.billing]                  in TOML; in YAML "billing:" below "endpoint:"
    DALGA_ENDPOINT_BILLING_BASEURL      a variable
    DALGA_ENDPOINT_BILLING_HEADERS_X_API_KEY

A variable's name has an underscore for a hyphen. So ``DALGA_ENDPOINT_EU_MAIL_CA`` belongs to the
endpoint ``eu-mail``, or to ``eu_mail`` if the file has that endpoint. A file with both is refused.

A variable's name ends with its key, or it has ``HEADERS`` before the name of a header. The name of
an endpoint has no part ``headers``. So no variable can be read in two ways.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import NamedTuple

from dalga.config.headers import HEADERS
from dalga.config.sections import KEYS
from dalga.errors import ConfigError
from dalga.model.address import DEFAULT_ENDPOINT, MAX_ENDPOINT_NAME, is_endpoint_name

#: The section of the default endpoint, and the first word of the headings of all others.
ENDPOINT = HEADERS[0]


def section_of(endpoint: str) -> str:
    """The name of an endpoint's section, in `Given`."""
    return ENDPOINT if endpoint == DEFAULT_ENDPOINT else f"{ENDPOINT} {endpoint}"


def same_variables(name: str) -> str:
    """A text that is the same for two names whose variables would have the same names."""
    return name.replace("_", "-")


def check_variables(where: str, kind: str, name: str, others: Iterable[str]) -> None:
    """
    Check the name of a section or a token beside the names that were there before.

    :param where: where the name stands, for the sentence.
    :param kind: what has such a name, with its article, for the sentence.
    :raises ConfigError: if another name's variables would have the same names.
    """
    for other in others:
        if other != name and same_variables(other) == same_variables(name):
            raise ConfigError(
                f"{where}: there is {kind} {other} as well, and their variables would have the "
                "same names, choose another name"
            )


def why_not_name(name: str) -> str | None:
    """Why a text can't name an endpoint, as the end of a sentence; None where it can."""
    if name.lower() == DEFAULT_ENDPOINT:
        return f"the default endpoint has its keys in [{ENDPOINT}], choose another name"
    if not is_endpoint_name(name):
        return (
            f"an endpoint's name takes 1 to {MAX_ENDPOINT_NAME} lower case letters and digits, "
            "with a single - or _ between them, such as billing"
        )
    if HEADERS[1] in re.split("[-_]", name):
        return f"an endpoint's name can't have {HEADERS[1]} in it, choose another name"
    if same_variables(name) in {key.lower() for key in KEYS[ENDPOINT]}:
        return f"{same_variables(name)} is a key of [{ENDPOINT}], choose another name"
    return None


class Heading(NamedTuple):
    """The heading of a table of an endpoint."""

    #: The endpoint's name as it is written; None for the default endpoint.
    endpoint: str | None
    #: Whether the table has the endpoint's headers, or else its keys.
    of_headers: bool


def heading(written: str) -> Heading | None:
    """
    Read the heading of a section.

    :return: None for ``[endpoint]``, and for the heading of no endpoint.
    """
    first, *words = re.split(r"\s*\.\s*|\s+", written.strip())
    if first.lower() != ENDPOINT or not words:
        return None
    of_headers = words[-1].lower() == HEADERS[1]
    if of_headers:
        words.pop()
    if len(words) > 1:
        return None
    return Heading(words[0] if words else None, of_headers)


class Variable(NamedTuple):
    """What a variable of an endpoint gives."""

    #: The endpoint, as it stands in the variable's name; empty for the default endpoint.
    endpoint: str
    #: A key as it stands in variables' names; ``HEADERS`` for a header, or all headers.
    key: str


def variable_of(rest: str, keys: Container[str]) -> Variable | None:
    """
    What a variable gives, by its name.

    :param rest: a variable's name behind ``DALGA_ENDPOINT_``.
    :param keys: the keys, as they stand in variables' names.
    :return: None if there is no key in it, or nothing between two underscores before the key.
    """
    parts, headers = rest.split("_"), HEADERS[1].upper()
    if not parts[0]:
        return None
    if headers in parts:
        return Variable("_".join(parts[: parts.index(headers)]), headers)
    return key_at_the_end(rest, keys)


def key_at_the_end(rest: str, keys: Container[str]) -> Variable | None:
    """
    What a variable gives whose name ends with a key.

    :param rest: the end of the name.
    :param keys: the keys, as they stand in variables' names. ``PASSWORD_FILE`` is two words.
    :return: None if there is no key in it.
    """
    words = rest.split("_")
    for count in (1, 2):
        if (key := "_".join(words[-count:])) in keys:
            return Variable("_".join(words[:-count]), key)
    return None


def endpoint_in_variable(spelled: str, known: Iterable[str]) -> str | None:
    """
    The name of an endpoint that stands in a variable's name.

    :param spelled: as it stands there.
    :param known: the names that the file has.
    :return: None if it can't stand there.
    """
    if not spelled:
        return DEFAULT_ENDPOINT
    if not re.fullmatch(r"[A-Z0-9]+(_[A-Z0-9]+)*", spelled):
        return None
    name = spelled.lower().replace("_", "-")
    return next((each for each in known if same_variables(each) == name), name)


def in_variable_of(endpoint: str) -> str:
    """How the names of an endpoint's variables begin, after ``DALGA_``."""
    if endpoint == DEFAULT_ENDPOINT:
        return ENDPOINT.upper()
    return f"{ENDPOINT}_{endpoint}".upper().replace("-", "_")
