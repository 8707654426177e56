"""
The configuration, read again while the daemon runs: what SIGHUP asks for.

    read      in a thread: the file, the variables, the files that the configuration names
    compared  with what the daemon goes by: keys that it takes over, keys that it can't
    taken     in the reactor's thread, in one turn: see `dalga.service`

What always holds: a daemon goes by one whole configuration. If anything in the new one is a
mistake, all stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from dalga.config.changes import Changes, changes, taken_over
from dalga.config.sections import Config
from dalga.endpointstrings import OF_STRINGS, Entrance, asked
from dalga.errors import ConfigError, StartupError
from dalga.log import logger
from dalga.settings import Settings, is_of_rights, settings_of, stays_read

log = logger(__name__)

#: Reads the configuration anew, from where the start has read it.
Read = Callable[[], Config]


@dataclass(frozen=True, slots=True)
class InForce:
    """What a daemon goes by."""

    config: Config
    settings: Settings


@dataclass(frozen=True, slots=True)
class Reread:
    """What a reload has read."""

    now: InForce
    changes: Changes
    #: By the endpoint strings of the listening sockets that have certificates: the new ones.
    entrances: Mapping[str, Entrance]


class Stays(NamedTuple):
    """What a reload can't change."""

    #: Tells whether payloads of a length (octets) can be kept.
    takes_payloads: Callable[[int], bool]
    #: The certificates that clients are shown (`Entrance.certificate`), by endpoint strings.
    certificates: Mapping[str, bytes]
    #: The addresses, of those that are listened at, which others than this machine can reach.
    reachable: Sequence[str]


def check_doors(config: Config, reachable: Sequence[str]) -> None:
    """
    Nobody but this machine gets in without a token, unless that is wanted. `dalga.config.rules`
    checks that by the texts of addresses; here it is checked by the sockets, also of names and of
    systemd's, and of those that a reload can't change.

    :param reachable: see `Stays`.
    :raises ConfigError: if others than this machine could do anything.
    """
    if reachable and not (config.tokens or config.listen.allow_unauthenticated):
        raise ConfigError(
            f"others than this machine can reach {', '.join(reachable)}, and could do anything, as "
            "there are no tokens. Make one with dalga token new and put its line into [tokens], or "
            "listen on 127.0.0.1, or say allowUnauthenticated = yes in [listen]"
        )


def check_tokens(was: Config, given: Config) -> None:
    """
    No reload opens what was closed, unless that is wanted. A file that is read while somebody
    writes it may end before its tokens, and say nothing wrong.

    :param was: what the daemon goes by.
    :raises ConfigError: if the tokens are gone.
    """
    if was.tokens and not (given.tokens or given.listen.allow_unauthenticated):
        raise ConfigError(
            "there are no tokens any more, so whoever reaches this daemon could do anything. Leave "
            "one in [tokens], or say allowUnauthenticated = yes in [listen], or start Dalga again"
        )


def reread(read: Read, was: InForce, stays: Stays) -> Reread:
    """
    Read the configuration again, and the files that it names. Blocks.

    :param was: what the daemon goes by.
    :raises ConfigError: for a mistake in the configuration.
    :raises StartupError: for a file that can't be used.
    """
    given = read()
    if was.config.origins and not given.origins:
        # Somebody writes the file just now. Without it, requests would go to the default endpoint.
        raise ConfigError("there is nothing in it, and there was: send SIGHUP once it is written")
    found = changes(was.config, given)
    config = taken_over(was.config, given)
    longest = config.jobs.max_payload
    if longest != was.config.jobs.max_payload and not stays.takes_payloads(longest):
        # The start has looked whether the server takes statements as long as its payloads then.
        config = replace(config, jobs=replace(config.jobs, max_payload=was.config.jobs.max_payload))
        key = "[jobs] maxPayload"
        found = Changes(tuple(each for each in found.taken if each != key), (*found.left, key))
    check_doors(config, stays.reachable)
    check_tokens(was.config, config)
    settings = settings_of(config, was.settings)
    contents: Iterable[str] = settings.contents_changed(was.settings)
    entrances = {}
    for text in stays.certificates:
        try:
            entrances[text] = asked(text, OF_STRINGS).entrance
        except StartupError as error:
            if not is_of_rights(error):
                raise
            settings = replace(settings, notes=(*settings.notes, stays_read(error)))
    if any(
        entrance.certificate != stays.certificates[text] for text, entrance in entrances.items()
    ):
        contents = [*contents, f"the certificate of {OF_STRINGS}"]
    found = found._replace(taken=tuple(dict.fromkeys((*found.taken, *contents))))
    return Reread(InForce(config, settings), found, entrances)


def log_taken(was: InForce, again: Reread) -> None:
    """Write to the log what a reload came to."""
    taken, left = again.changes
    if taken:
        log.info("the configuration was read again; changed: {keys}", keys=", ".join(taken))
    else:
        log.info("the configuration was read again; nothing that can change now has changed")
    if left:
        log.warn(
            "{keys}: given otherwise than at the start of this process, which goes on as it was; "
            "a restart takes them over",
            keys=", ".join(left),
        )
    if was.settings.tokens and not again.now.settings.tokens:
        log.warn(
            "there are no tokens any more, and the configuration says allowUnauthenticated = yes: "
            "whoever reaches this daemon can do anything"
        )
    for note in again.now.settings.notes:
        if note not in was.settings.notes:
            log.warn("{note}", note=note)


def log_refused(error: ConfigError | StartupError) -> None:
    """Write to the log that a reload was refused: a line for each mistake."""
    for mistake in error.mistakes if isinstance(error, ConfigError) else (str(error),):
        log.error(
            "the configuration is not taken over, and all stays as it was: {error}", error=mistake
        )
