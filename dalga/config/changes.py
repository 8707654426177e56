"""
What differs between two configurations: what a daemon takes over while it runs, and what it can't.

    the file has now            the daemon
    [jobs] maxRunning = 200     takes it over
    [listen] port = 8080        goes on with the port that it has, and says so at each reload

What always holds: after a reload the daemon goes by one whole configuration, the result of
`taken_over`. No sentence here has a value in it, which may be a secret: keys are named only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from dalga.config.endpoints import section_of
from dalga.config.headers import HEADERS
from dalga.config.keys import values_of
from dalga.config.sections import KEYS, Config, MySQLConfig
from dalga.config.targets import target_section
from dalga.config.tokens import TOKENS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: The keys that a daemon reads at its start only, by section: its database, its sockets, its
#: processes, and the form of its log's lines.
FIXED: Mapping[str, frozenset[str]] = {
    "jobs": frozenset({"workers"}),
    "mysql": frozenset(KEYS["mysql"]),
    "sqlite": frozenset(KEYS["sqlite"]),
    "listen": frozenset({"host", "port", "endpoint"}),
    "metrics": frozenset({"listen"}),
    "log": frozenset({"format"}),
}

#: The keys of fields that are no key's own, by the names of the fields.
_OF_FIELDS = {
    "headers": HEADERS[1],
    "authorization": "url",
    "heartbeat_authorization": "heartbeatUrl",
    "proxy_authorization": "proxy",
}


class Changes(NamedTuple):
    """Keys with their sections, such as ``[jobs] maxRunning``; of a section that is new, or that is
    gone, the heading alone."""

    #: Those that a daemon takes over.
    taken: tuple[str, ...]
    #: Those that it can't.
    left: tuple[str, ...]


def changes(old: Config, new: Config) -> Changes:
    """What differs between the configuration that a daemon goes by, and another one."""
    taken: list[str] = []
    left: list[str] = []
    before, after = _sections(old), _sections(new)
    for section in dict.fromkeys((*before, *after)):
        fixed = FIXED.get(section, frozenset())
        if section not in before or section not in after:
            (left if fixed else taken).append(f"[{section}]")
            continue
        for key in _differing(before[section], after[section]):
            (left if key in fixed else taken).append(f"[{section}] {key}")
    were, are = ({token.name: token for token in each.tokens} for each in (old, new))
    names = dict.fromkeys((*were, *are))
    taken += [f"[{TOKENS}] {name}" for name in names if were.get(name) != are.get(name)]
    return Changes(tuple(taken), tuple(left))


def taken_over(old: Config, new: Config) -> Config:
    """
    The configuration that a daemon goes by after a reload: the new one, with what the daemon can't
    change (`FIXED`) from the old one.
    """
    return replace(
        new,
        database=old.database,
        jobs=replace(new.jobs, workers=old.jobs.workers),
        listen=replace(
            new.listen,
            host=old.listen.host,
            port=old.listen.port,
            endpoints=old.listen.endpoints,
        ),
        metrics=replace(new.metrics, listen=old.metrics.listen),
        log=replace(new.log, format=old.log.format),
    )


def _sections(config: Config) -> Mapping[str, DataclassInstance]:
    """All sections by their headings."""
    database = "mysql" if isinstance(config.database, MySQLConfig) else "sqlite"
    return {
        "jobs": config.jobs,
        database: config.database,
        "listen": config.listen,
        **{section_of(name): endpoint for name, endpoint in config.endpoints.items()},
        "history": config.history,
        "audit": config.audit,
        "metrics": config.metrics,
        "alerts": config.alerts,
        **{target_section(name): target for name, target in config.named_targets.items()},
        "log": config.log,
    }


def _differing(old: DataclassInstance, new: DataclassInstance) -> Iterator[str]:
    """The keys of a section whose values differ."""
    of_fields = {
        key: (getattr(old, name), getattr(new, name))
        for name, key in _OF_FIELDS.items()
        if hasattr(old, name)
    }
    of_keys = {
        key.name: (one, other)
        for (key, one), (_, other) in zip(values_of(old), values_of(new), strict=True)
    }
    for key in dict.fromkeys((*of_keys, *of_fields)):
        pairs = (pairs[key] for pairs in (of_keys, of_fields) if key in pairs)
        if any(one != other for one, other in pairs):
            yield key
