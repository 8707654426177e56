"""
From the configuration to the values that the parts of a daemon are built of.

    Config ──▶ settings_of ──▶ Settings ──▶ allowed_of, keeping_of ... ──▶ what a part is handed

No function here builds a part or has a reactor. `settings_of` reads the files of CAs. The other
functions are pure.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from urllib.parse import urlsplit

from dalga.allowed import Allowed, EndpointShown
from dalga.config.content import file_content
from dalga.config.endpoints import section_of
from dalga.config.outgoing import Deny
from dalga.config.sections import (
    AlertsConfig,
    AuditConfig,
    Config,
    EndpointConfig,
    HistoryConfig,
    ListenConfig,
    MySQLConfig,
    SQLiteConfig,
)
from dalga.config.targets import ALERTS
from dalga.dispatch.pruning import Keeping
from dalga.dispatch.scheduler import Pace
from dalga.errors import StartupError
from dalga.model.alert import Targets
from dalga.model.permit import Token
from dalga.model.reach import is_public
from dalga.model.run import RunPolicy
from dalga.outgoing.pool import Way
from dalga.outgoing.trust import MAX_PEM, Trust
from dalga.outgoing.tunnel import Proxy
from dalga.web.origins import LOOPBACK, Doors, host_name


@dataclass(frozen=True, slots=True)
class Settings:
    """
    The values that the parts take from the configuration, beside the things that stay until the
    process ends (`dalga.service.Fixed`). A reload makes new `Settings`, and hands them to the
    parts.
    """

    policy: RunPolicy
    pace: Pace
    #: By their names, the default one first.
    endpoints: Mapping[str, EndpointConfig]
    #: The CAs of each endpoint and Dalga's own certificate, as their files were at the reading.
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
    #: ``[audit]``: how long entries of the audit list are kept.
    audit: AuditConfig
    #: ``[alerts]``.
    alerts: AlertsConfig
    #: The CAs that may have signed the certificates of targets of alerts.
    alert_trust: Trust
    #: The targets of alerts by their names, the default one first, if there is one.
    targets: Mapping[str, AlertsConfig]
    #: Digests of the files with an endpoint's CAs, certificate and private key, as they were read:
    #: by the name of the endpoint, and then by the key that names the file.
    contents: Mapping[str, Mapping[str, bytes]]
    #: The state of the platform's files of CAs, which targets of alerts go by.
    alert_contents: bytes
    #: The tokens of the configuration. Without tokens, everybody may do everything.
    tokens: tuple[Token, ...] = ()
    #: What ``[listen]`` says of requests.
    doors: Doors = LOOPBACK
    #: See `Config.notes` and `Config.links`.
    notes: tuple[str, ...] = ()
    links: tuple[str, ...] = ()

    def same_endpoint(self, was: Settings, name: str) -> bool:
        """Whether nothing has changed for an endpoint, nor in the files that it names."""
        return (
            was.endpoints.get(name) == self.endpoints[name]
            and was.contents[name] == self.contents[name]
        )

    def same_webhooks(self, was: Settings) -> bool:
        """Whether nothing has changed for the targets of alerts, nor in the CAs that they trust."""
        return (
            was.alerts == self.alerts
            and was.targets == self.targets
            and was.alert_contents == self.alert_contents
        )

    def contents_changed(self, was: Settings) -> Iterator[str]:
        """
        The keys, with their sections, whose value is as it was, and whose file has another content.
        """
        for name, contents in self.contents.items():
            before = was.contents.get(name, {})
            for key, content in contents.items():
                if before.get(key, content) != content:
                    yield f"[{section_of(name)}] {key}"


def settings_of(config: Config, was: Settings | None = None) -> Settings:
    """
    The settings of a configuration. Reads the endpoints' CAs, certificates and keys.

    :param was: what holds until now. Files that this process may read no more stay as they were
        read: it may have had other privileges then.
    :raises StartupError: if one of these files can't be used.
    """
    jobs = config.jobs
    # Before the files are read for use: of a file that changes meanwhile, the next reload sees
    # another content.
    contents = {name: contents_of(each) for name, each in config.endpoints.items()}
    # The platform's CAs take some megabytes, so they are there once.
    platform = cache(lambda: Trust("", ALERTS))
    trusts, notes = {}, list(config.notes)
    for name, each in config.endpoints.items():
        try:
            trusts[name] = trust_of(name, each) if each.ca or each.cert else platform()
        except StartupError as error:
            if was is None or was.endpoints.get(name) != each or not is_of_rights(error):
                raise
            trusts[name], contents[name] = was.trusts[name], was.contents[name]
            notes.append(stays_read(error))
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
        audit=config.audit,
        alerts=config.alerts,
        alert_trust=platform(),
        targets=config.targets,
        contents=contents,
        alert_contents=platform_contents(),
        tokens=config.tokens,
        doors=doors_of(config.listen),
        notes=tuple(notes),
        links=config.links,
    )


def is_of_rights(error: StartupError) -> bool:
    """Whether a file can't be read as this user may not read it."""
    return isinstance(error.__cause__, PermissionError)


def stays_read(error: StartupError) -> str:
    """What the log says of a file that this process may read no more."""
    return f"{error}; it stays as it was read before"


def doors_of(listen: ListenConfig) -> Doors:
    """The rules for requests of browsers and proxies."""
    hosts = (*listen.hosts, *filter(None, [listen.host]))
    return Doors(
        hosts=frozenset(map(host_name, hosts)),
        origins=frozenset(listen.origins),
        root_path=listen.root_path,
        trusted_proxies=listen.trusted_proxies,
    )


def trust_of(name: str, endpoint: EndpointConfig) -> Trust:
    """
    What the connections to an endpoint go by. Reads the files that the endpoint names.

    :raises StartupError: if one of these files can't be used.
    """
    return Trust(endpoint.ca, section_of(name), endpoint.cert, endpoint.cert_key)


def contents_of(endpoint: EndpointConfig) -> Mapping[str, bytes]:
    """See `Settings.contents`. A file that can't be read has none: those who use it say why."""
    if urlsplit(endpoint.baseurl).scheme != "https":
        return {}
    return {
        "ca": _digest(endpoint.ca) if endpoint.ca else platform_contents(),
        **{
            key: _digest(path)
            for key, path in (("cert", endpoint.cert), ("key", endpoint.cert_key))
            if path
        },
    }


def platform_contents() -> bytes:
    """What changes with the CAs of the platform."""
    paths = ssl.get_default_verify_paths()
    return b"".join(_state(path) for path in (paths.cafile, paths.capath) if path)


def _digest(path: str) -> bytes:
    """A file's content, in short."""
    with suppress(OSError):
        return sha256(file_content(path, MAX_PEM)).digest()
    return b""


def _state(path: str) -> bytes:
    """What changes with the content of the platform's file, or folder, of CAs."""
    with suppress(OSError):
        state = os.stat(path)
        return f"{state.st_ino} {state.st_mtime_ns} {state.st_size};".encode()
    return b""


def targets_of(config: Config) -> Targets:
    """Which alerts go where."""
    of_endpoints = {name: each.alerts for name, each in config.endpoints.items() if each.alerts}
    return Targets(tuple(config.targets), of_endpoints)


def way_of(config: EndpointConfig) -> Way:
    """The way to an endpoint: the proxy, the allowed addresses, the certificate's name."""
    proxy = None
    if config.proxy:
        url = urlsplit(config.proxy)
        proxy = Proxy(url.hostname or "", url.port or 80, config.proxy_authorization)
    return Way(
        verify_name=config.verify_name,
        allows=is_public if config.deny is Deny.PRIVATE else None,
        proxy=proxy,
    )


def keeping_of(history: HistoryConfig, audit: AuditConfig) -> Keeping:
    """How long records of runs are kept."""
    return Keeping(
        fine=history.keep,
        failed=history.keep_failed,
        max_rows=history.max_rows,
        entries=audit.keep,
    )


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
        signed=bool(config.secrets),
        auth=config.auth,
        cert=config.cert,
        verify_name=config.verify_name,
        deny=config.deny,
        proxy=config.proxy,
    )


def longest_answer(database: MySQLConfig | SQLiteConfig) -> float:
    """
    How long (seconds) a stop may wait for a silent database: see docs/promises.md. Of several
    servers, each may be silent, and one is tried after the other.
    """
    if isinstance(database, SQLiteConfig):
        return 0.0
    return len(database.servers) * (database.dial_timeout + database.read_timeout)
