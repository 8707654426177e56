"""
The sections of the configuration and their keys, each in one place: the field of a dataclass.
`dalga.config.keys` says how a field has a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, TypeVar

from dalga.config import incoming, outgoing, texts
from dalga.config.formats import Kind
from dalga.config.keys import Key, key, keys_of, of_key, parts
from dalga.config.outgoing import Auth, Deny
from dalga.config.values import (
    Reader,
    Value,
    boolean,
    duration,
    in_days,
    in_seconds,
    number,
    several,
    size,
    text,
    whole,
)
from dalga.errors import ConfigError
from dalga.model.address import (
    DEFAULT_ENDPOINT,
    DEFAULT_TARGET,
    NO_TARGET,
    host_and_port,
    is_endpoint_name,
    why_not_base_url,
    why_not_request_url,
)
from dalga.model.answers import Answers, Statuses, statuses_from_text, takes
from dalga.model.delivery import MAX_PAYLOAD, MOST_PAYLOAD
from dalga.model.permit import Token
from dalga.model.record import HistoryMode
from dalga.model.retry import RetryPolicy

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

E = TypeVar("E", bound=StrEnum)

#: The longest time of retries: a year.
_YEAR = "8760h"

#: How long a record of a run may be kept: a minute to ten years.
_KEEP = ("1m", "3650d")

#: The most workers that one supervisor has.
MOST_WORKERS = 64


def _timespan(shortest: str, longest: str, has_days: bool = False) -> Reader[timedelta]:
    seconds = duration(shortest, longest, has_days)
    return lambda value: timedelta(seconds=seconds(value))


def _stop_after(value: Value) -> timedelta | None:
    """A timespan; None for 0, which is never."""
    seconds = duration("0", _YEAR)(value)
    return None if seconds == 0 else timedelta(seconds=seconds)


def _workers(value: Value) -> int:
    """A number of processes; 0 for ``auto``."""
    if value.text.lower() == "auto":
        return 0
    try:
        return whole(1, MOST_WORKERS)(value)
    except ConfigError:
        raise value.refuse(f"it takes a whole number from 1 to {MOST_WORKERS}, or auto") from None


def _one_of(kind: type[E]) -> Reader[E]:
    *others, last = kind
    takes = f"it takes {', '.join(others)} or {last}"

    def read(value: Value) -> E:
        try:
            return kind(value.text.lower())
        except ValueError:
            raise value.refuse(takes) from None

    return read


def _statuses(or_none: bool) -> Reader[Statuses]:
    """
    Statuses and ranges, in a text or in a list.

    :param or_none: whether the set may be empty.
    """
    would_do = takes(or_none)

    def read(value: Value) -> Statuses:
        if value.kind is Kind.LIST:
            if value.elements is None:
                raise value.refuse(f"it has other elements than text and numbers; {would_do}")
            if or_none and not value.elements:
                return Statuses(())
        elif value.kind not in (Kind.TEXT, Kind.NUMBER):
            raise value.refuse(would_do)
        try:
            return statuses_from_text(",".join(value.elements or (value.text,)), or_none)
        except ValueError as problem:
            raise value.refuse(f"it {problem}; {would_do}") from None

    return read


def _target(value: Value) -> str:
    """The name of a target of alerts, or `NO_TARGET`; "" for none that is named."""
    name = text()(value)
    if name and not is_endpoint_name(name):
        raise value.refuse(
            f"it takes the name of a target, such as ops for [alerts ops], or {NO_TARGET}"
        )
    return name


def _url(value: Value) -> str:
    """The URL of a request; "" for none."""
    return text(why_not_request_url)(value) if value.text else ""


def _metrics_address(value: Value) -> tuple[str, int] | None:
    """A host and a port; None for ""."""
    given = text()(value)
    try:
        return incoming.host_and_any_port(given)
    except ValueError as problem:
        raise value.refuse(str(problem)) from None


def _secrets(value: Value) -> tuple[str, ...]:
    """Secrets that sign; at most `outgoing.MOST_SECRETS` of a kind."""
    secrets = several(outgoing.signing_secret, r"[,\s]+")(value)
    for kind in outgoing.KINDS:
        if sum(each.startswith(kind) for each in secrets) > outgoing.MOST_SECRETS:
            raise value.refuse(
                f"it takes {outgoing.MOST_SECRETS} secrets of a kind at most: the new one, and the "
                "one that it replaces"
            )
    return secrets


def _ssl_mode(value: Value) -> str:
    return texts.ssl_mode_of(text(texts.ssl_mode)(value))


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """``[jobs]``: how jobs are run."""

    #: 0 keeps periodic jobs on their grid; f draws each interval from [1-f, 1+f] times the job's
    #: own.
    randomization_factor: float = key("randomizationFactor", number(0, 1, "0.25"), default=0.0)
    #: Whether intervals are counted from the job's own times, or else from the end of each run.
    fixed_intervals: bool = key("fixedIntervals", boolean, default=True)
    #: When a failed run is tried again.
    retry: RetryPolicy = parts(
        RetryPolicy(),
        interval=Key("retryInterval", _timespan("1ms", _YEAR), write=in_seconds),
        multiplier=Key("retryMultiplier", number(1, 100, "1.5")),
        max_interval=Key("retryMaxInterval", _timespan("1ms", _YEAR), write=in_seconds),
        jitter=Key("retryJitter", number(0, 1, "0.5")),
        stop_after=Key("retryStopAfter", _stop_after, write=in_seconds),
    )
    #: How many runs an instance has under way at once, at most.
    max_running: int = key("maxRunning", whole(1, 10_000), default=100)
    #: Time (seconds) between two scans for jobs that other instances wrote.
    scan_frequency: float = key("scanFrequency", duration(), default=1.0, write=in_seconds)
    #: Time limit (seconds) for the runs that are under way at a stop.
    shutdown_timeout: float = key("shutdownTimeout", duration("0"), default=10.0, write=in_seconds)
    #: How many processes run jobs, each an instance of its own; 0 for as many as there are cores.
    workers: int = key("workers", _workers, default=1, write=lambda workers: str(workers or "auto"))
    #: How long a job's payload may be, in octets.
    max_payload: int = key("maxPayload", size(1, MOST_PAYLOAD), default=MAX_PAYLOAD)


@dataclass(frozen=True, slots=True)
class MySQLConfig:
    """``[mysql]``: the table on a MySQL or MariaDB server."""

    #: One host or several, separated by commas, each maybe with a port: ``a, b:3307, [::1]:3308``.
    host: str = key("host", text(texts.database_hosts), default="127.0.0.1")
    #: The port of a host that has none of its own.
    port: int = key("port", whole(1, 65535), default=3306)
    #: The path of a local socket, which is used instead of host and port; "" for none.
    # Not the third argument, by which everybody gives the database's name.
    socket: str = field(default="", kw_only=True, metadata=of_key("socket", text()))
    db: str = key("db", text(texts.database_name), default="test")
    #: Safe between backquotes: letters, digits, ``_``, ``$`` and ``-`` only.
    table: str = key("table", text(texts.table_name), default="dalga")
    user: str = key("user", text(texts.user_name), default="root")
    password: str = key("password", text(), default="", secret=True)
    #: How many connections there are at most; 0 for as many as are of use.
    max_open_conns: int = key("maxOpenConns", whole(0, 10_000), default=8)
    #: Time limit (seconds) for the look-up of a server's name, and for the server to take a
    #: connection. A stop, and requests after an outage, may have to wait for as long as this limit
    #: and the next two.
    dial_timeout: float = key("dialTimeout", duration("100ms", "5m"), default=3.0, write=in_seconds)
    #: Time limit (seconds) for an answer. It is longer than the shortest time that a server waits
    #: for a lock.
    read_timeout: float = key("readTimeout", duration("2s", "5m"), default=10.0, write=in_seconds)
    #: Time limit (seconds) for the sending of a statement.
    write_timeout: float = key("writeTimeout", duration("2s", "5m"), default=10.0, write=in_seconds)
    #: One of `texts.SSL_MODES`.
    ssl_mode: str = key("ssl-mode", _ssl_mode, default="preferred")
    #: The paths of files; "" for none.
    ssl_ca: str = key("ssl-ca", text(), default="")
    ssl_cert: str = key("ssl-cert", text(), default="")
    ssl_key: str = key("ssl-key", text(), default="")

    @property
    def servers(self) -> list[tuple[str, int] | str]:
        """Where to look for the database, in order: host and port, or a socket's path."""
        if self.socket:
            return [self.socket]
        servers = (host_and_port(each.strip(), self.port) for each in self.host.split(","))
        return [server for server in servers if server is not None]


@dataclass(frozen=True, slots=True)
class SQLiteConfig:
    """``[sqlite]``: the table in a file."""

    #: Relative to the working directory.
    path: str = key("path", text(texts.file_path), default="dalga.sqlite")


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """``[listen]``: where the HTTP interface is."""

    host: str = key("host", text(texts.listen_host), default="127.0.0.1")
    #: 0 takes any free port.
    port: int = key("port", whole(0, 65535), default=34006)
    #: How long (seconds) a client that sends nothing keeps its connection.
    idle_timeout: float = key("idleTimeout", duration("1s"), default=60.0, write=in_seconds)
    #: Time limit (seconds) for the arrival of a request.
    read_timeout: float = key("readTimeout", duration("1s"), default=30.0, write=in_seconds)
    #: Listening endpoints as Twisted writes them. Beside them, `host` is "" unless it or `port` was
    #: given.
    endpoints: tuple[str, ...] = key(
        "endpoint",
        several(incoming.listening_endpoint, incoming.BETWEEN_ENDPOINTS),
        default=(),
    )
    #: Further names and addresses that the header Host may have, in lower case.
    hosts: tuple[str, ...] = key("hosts", several(incoming.host_of_request), default=())
    #: The origins whose pages may call, as browsers write them.
    origins: tuple[str, ...] = key("origins", several(incoming.origin), default=())
    #: The path that all URLs begin with, without a / at its end; "" for none.
    root_path: str = key("rootPath", text(incoming.root_path), default="")
    #: The proxies whose word on the client's address is taken.
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = key(
        "trustedProxies", several(incoming.proxy_network), default=()
    )
    #: Whether all is open also where others than this machine can reach it, without tokens.
    allow_unauthenticated: bool = key("allowUnauthenticated", boolean, default=False)


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """``[endpoint]``, or ``[endpoint billing]``: where jobs are POSTed to."""

    #: An http or https URL of ASCII characters: scheme, host, and maybe a port and a path. A user
    #: and a password that the file has in the URL are a header here.
    baseurl: str = key(
        "baseurl", text(why_not_base_url), default="http://127.0.0.1:5000/", has_password=True
    )
    #: Time limit (seconds) for one POST, from the connect to the end of the answer.
    timeout: float = key("timeout", duration(), default=10.0, write=in_seconds)
    #: The path of a file with the CAs that are trusted instead of the platform's; "" for the
    #: platform's.
    ca: str = key("ca", text(), default="")
    #: What the statuses of answers mean to jobs that say nothing else.
    answers: Answers = parts(
        Answers(),
        success=Key("success", _statuses(or_none=False)),
        gone=Key("gone", _statuses(or_none=True)),
        give_up=Key("giveUp", _statuses(or_none=True)),
    )
    #: The name of the target of the alerts about the endpoint and its jobs, or `NO_TARGET`; "" for
    #: the default target.
    alerts: str = key("alerts", _target, default="")
    #: What signs each POST: ``whsec_`` and ``whsk_`` secrets, as `outgoing.signing_secret` takes
    #: them.
    secrets: tuple[str, ...] = key("secrets", _secrets, default=(), secret=True)
    #: How the endpoint knows Dalga. `headers` has the header Authorization that says so.
    auth: Auth = field(default=Auth.NONE, metadata=of_key("auth", _one_of(Auth)))
    auth_user: str = key("authUser", text(), default="")
    auth_secret: str = key("authSecret", text(), default="", secret=True)
    #: The paths of files with the certificate that Dalga shows, and with its key; "" for none.
    cert: str = key("cert", text(), default="")
    cert_key: str = key("key", text(), default="")
    #: The name that the endpoint's certificate has to be for; "" for the host of `baseurl`.
    verify_name: str = key("verifyName", text(outgoing.verified_name), default="")
    deny: Deny = field(default=Deny.NONE, metadata=of_key("deny", _one_of(Deny)))
    #: An http URL of host and port, through which the endpoint is reached; "" for none.
    proxy: str = key("proxy", text(outgoing.proxy_url), default="", has_password=True)
    #: The value of the header Proxy-Authorization, of a user and a password in that URL; "" for
    #: none.
    proxy_authorization: str = field(default="", repr=False)
    #: Names and values of further headers of each POST, in ASCII; no name twice, in whatever case.
    #: In a file they are a table with keys of its own: see `dalga.config.headers`.
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


class Format(StrEnum):
    """What is POSTed to a target of alerts."""

    #: The JSON object of docs/alerts.md.
    STANDARD = "standard"
    #: A message as Slack's incoming webhooks take it; Mattermost and Discord (``/slack``) do, too.
    SLACK = "slack"


@dataclass(frozen=True, slots=True)
class AlertsConfig:
    """``[alerts]``, or ``[alerts ops]``: a target of alerts."""

    #: An http or https URL of ASCII characters, maybe with a query. A user and a password that the
    #: file has in the URL are `authorization` here. "" for no target, in ``[alerts]`` alone.
    url: str = key("url", _url, default="", secret=True)
    format: Format = field(default=Format.STANDARD, metadata=of_key("format", _one_of(Format)))
    #: An URL that is POSTed to each minute; "" for none. In ``[alerts]`` alone.
    heartbeat_url: str = key("heartbeatUrl", _url, default="", secret=True)
    #: What signs each POST, as those of an endpoint do.
    secrets: tuple[str, ...] = key("secrets", _secrets, default=(), secret=True)
    #: The values of the header Authorization, of a user and a password in the URLs; "" for none.
    authorization: str = field(default="", repr=False)
    heartbeat_authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class HistoryConfig:
    """``[history]``: which runs get a record, and how long records are kept."""

    mode: HistoryMode = key("mode", _one_of(HistoryMode), default=HistoryMode.ALL)
    #: How long the records of runs that succeeded are kept.
    keep: timedelta = key(
        "keep", _timespan(*_KEEP, has_days=True), default=timedelta(days=7), write=in_days
    )
    #: How long the records of runs that did not succeed are kept.
    keep_failed: timedelta = key(
        "keepFailed", _timespan(*_KEEP, has_days=True), default=timedelta(days=30), write=in_days
    )
    #: About how many records are kept at most. Those of successes go first.
    max_rows: int = key("maxRows", whole(1, 10_000_000_000), default=10_000_000)


class LogFormat(StrEnum):
    """How the lines of the log look."""

    TEXT = "text"
    #: One JSON object a line.
    JSON = "json"


class LogLevel(StrEnum):
    """From which level on the log has lines."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class LogConfig:
    """``[log]``: what the log has, and how it looks. twistd's options say where it goes."""

    format: LogFormat = field(default=LogFormat.TEXT, metadata=of_key("format", _one_of(LogFormat)))
    level: LogLevel = field(default=LogLevel.INFO, metadata=of_key("level", _one_of(LogLevel)))


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """``[metrics]``: what ``/metrics`` tells apart, and where else it is."""

    #: How many paths have numbers of their own. All others have theirs together.
    paths: int = key("paths", whole(0, 10_000), default=100)
    #: Host and port where ``/metrics``, ``/health`` and ``/ready`` alone are, open to all; None for
    #: no such place. Port 0 takes any free port.
    listen: tuple[str, int] | None = key("listen", _metrics_address, default=None)


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """``[audit]``: the list of what was changed by whom."""

    #: How long its entries are kept.
    keep: timedelta = key(
        "keep", _timespan(*_KEEP, has_days=True), default=timedelta(days=90), write=in_days
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All that can be configured; made without arguments, the defaults."""

    jobs: JobsConfig = JobsConfig()
    database: MySQLConfig | SQLiteConfig = SQLiteConfig()
    listen: ListenConfig = ListenConfig()
    #: That of the jobs that name none.
    endpoint: EndpointConfig = EndpointConfig()
    #: The other endpoints by their names, in the order of the names.
    named_endpoints: Mapping[str, EndpointConfig] = field(default_factory=dict)
    history: HistoryConfig = HistoryConfig()
    audit: AuditConfig = AuditConfig()
    metrics: MetricsConfig = MetricsConfig()
    #: ``[alerts]``. Its URL may be "".
    alerts: AlertsConfig = AlertsConfig()
    #: The other targets by their names, in the order of the names.
    named_targets: Mapping[str, AlertsConfig] = field(default_factory=dict)
    log: LogConfig = LogConfig()
    #: By their names. Without tokens all is open.
    tokens: tuple[Token, ...] = ()
    #: Where the values that were given stand, by section and key: see `Given.where`.
    origins: Mapping[tuple[str, str], str] = field(default_factory=dict, compare=False, repr=False)
    #: Sentences for the log, on values that were given and change nothing.
    notes: tuple[str, ...] = field(default=(), compare=False)
    #: Variables that have the name of a key, and that Kubernetes or a docker link has set.
    links: tuple[str, ...] = field(default=(), compare=False)

    @property
    def endpoints(self) -> Mapping[str, EndpointConfig]:
        """All endpoints by their names, the default one first."""
        return {DEFAULT_ENDPOINT: self.endpoint, **self.named_endpoints}

    @property
    def targets(self) -> Mapping[str, AlertsConfig]:
        """All targets of alerts by their names, the default one first, if there is one."""
        default = {DEFAULT_TARGET: self.alerts} if self.alerts.url else {}
        return {**default, **self.named_targets}


#: The sections by their names. Each can be there once, but for ``[endpoint]`` and ``[alerts]``: an
#: endpoint, or a target, with a name has a section of the same keys. `dalga.config.endpoints` and
#: `dalga.config.targets` say where.
SECTIONS: Mapping[str, type[DataclassInstance]] = {
    "jobs": JobsConfig,
    "mysql": MySQLConfig,
    "sqlite": SQLiteConfig,
    "listen": ListenConfig,
    "endpoint": EndpointConfig,
    "history": HistoryConfig,
    "audit": AuditConfig,
    "metrics": MetricsConfig,
    "alerts": AlertsConfig,
    "log": LogConfig,
}

#: The names of sections and of their keys.
KEYS: Mapping[str, tuple[str, ...]] = {
    name: tuple(each.name for each in keys_of(section)) for name, section in SECTIONS.items()
}
