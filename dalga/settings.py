"""
From the configuration to the values that the parts of a daemon are built of.

    Config ──▶ settings_of ──▶ Settings ──▶ allowed_of, keeping_of ... ──▶ what a part is handed

No function here builds a part or has a reactor. `settings_of` reads the files of CAs. The other
functions are pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dalga.allowed import Allowed, EndpointShown
from dalga.config.endpoints import section_of
from dalga.config.sections import (
    AlertsConfig,
    Config,
    EndpointConfig,
    HistoryConfig,
    MySQLConfig,
    SQLiteConfig,
)
from dalga.config.targets import ALERTS
from dalga.dispatch.pruning import Keeping
from dalga.dispatch.scheduler import Pace
from dalga.model.address import DEFAULT_ENDPOINT
from dalga.model.alert import Targets
from dalga.model.run import RunPolicy
from dalga.outgoing.trust import Trust


@dataclass(frozen=True, slots=True)
class Settings:
    """
    The values that the parts take from the configuration, beside the things that stay until the
    process ends (`dalga.service.Fixed`). Each value could be exchanged while the daemon runs: a
    reload would make new `Settings`, and hand them to the parts.
    """

    policy: RunPolicy
    pace: Pace
    #: By their names, the default one first.
    endpoints: Mapping[str, EndpointConfig]
    #: The CAs of each endpoint, as their file was when it was read.
    trusts: Mapping[str, Trust]
    #: How long a client that sends nothing keeps its connection, in seconds.
    idle_timeout: float
    #: How long a request may take to arrive, in seconds.
    arrival_timeout: float
    #: How long a stop waits for runs under way, and for requests at most, in seconds.
    grace: float
    #: How long a job's payload may be, in octets.
    max_payload: int
    #: Which runs get a record, and how long records are kept.
    history: HistoryConfig
    #: ``[alerts]``.
    alerts: AlertsConfig
    #: The CAs that may have signed the certificates of targets of alerts.
    alert_trust: Trust
    #: The targets of alerts by their names, the default one first, if there is one.
    targets: Mapping[str, AlertsConfig]
    #: See `Config.notes` and `Config.links`.
    notes: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


def settings_of(config: Config) -> Settings:
    """
    The settings of a configuration. Reads the endpoints' CAs.

    :raises StartupError: if the file with the CAs can't be used.
    """
    jobs = config.jobs
    trusts = {name: Trust(each.ca, section_of(name)) for name, each in config.endpoints.items()}
    return Settings(
        policy=RunPolicy(
            retry=jobs.retry,
            randomization_factor=jobs.randomization_factor,
            fixed_intervals=jobs.fixed_intervals,
            answers=config.endpoint.answers,
            named_answers={name: each.answers for name, each in config.named_endpoints.items()},
        ),
        pace=Pace(
            slots=jobs.max_running,
            timeout=config.endpoint.timeout,
            scan=jobs.scan_frequency,
            timeouts={name: each.timeout for name, each in config.named_endpoints.items()},
        ),
        endpoints=config.endpoints,
        trusts=trusts,
        idle_timeout=config.listen.idle_timeout,
        arrival_timeout=config.listen.read_timeout,
        grace=jobs.shutdown_timeout,
        max_payload=jobs.max_payload,
        history=config.history,
        alerts=config.alerts,
        # The platform's CAs take some megabytes, so they are there once.
        alert_trust=Trust("", ALERTS) if config.endpoint.ca else trusts[DEFAULT_ENDPOINT],
        targets=config.targets,
        notes=config.notes,
        links=config.links,
    )


def targets_of(config: Config) -> Targets:
    """Which alerts go where."""
    of_endpoints = {name: each.alerts for name, each in config.endpoints.items() if each.alerts}
    return Targets(tuple(config.targets), of_endpoints)


def keeping_of(history: HistoryConfig) -> Keeping:
    """How long records of runs are kept."""
    return Keeping(fine=history.keep, failed=history.keep_failed, max_rows=history.max_rows)


def allowed_of(settings: Settings) -> Allowed:
    """What the settings allow jobs."""
    return Allowed(
        endpoints=tuple(shown_endpoint(*each) for each in settings.endpoints.items()),
        max_payload=settings.max_payload,
        targets=tuple(settings.targets),
    )


def shown_endpoint(name: str, config: EndpointConfig) -> EndpointShown:
    """An endpoint as the API shows it: of its headers the names only."""
    answers = config.answers
    return EndpointShown(
        name=name,
        baseurl=config.baseurl,
        timeout=config.timeout,
        ca=config.ca,
        headers=tuple(header for header, _ in config.headers),
        success=str(answers.success),
        gone=str(answers.gone),
        give_up=str(answers.give_up),
    )


def longest_answer(database: MySQLConfig | SQLiteConfig) -> float:
    """
    How long (seconds) a stop may wait for a silent database: see docs/promises.md. Of several
    servers, each may be silent, and one is tried after the other.
    """
    if isinstance(database, SQLiteConfig):
        return 0.0
    return len(database.servers) * (database.dial_timeout + database.read_timeout)
