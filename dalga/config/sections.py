"""
The sections of the configuration, as what was read of them, and their keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dalga.model.address import host_and_port
from dalga.model.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class JobsConfig:
    """``[jobs]``: how jobs are run."""

    #: 0 keeps periodic jobs on their grid; f draws each interval from [1-f, 1+f] times the job's.
    randomization_factor: float = 0.0
    #: Whether intervals are counted from the job's own times, or else from the end of each run.
    fixed_intervals: bool = True
    #: When a failed run is tried again.
    retry: RetryPolicy = RetryPolicy()
    #: How many runs this instance has under way at most.
    max_running: int = 100
    #: Seconds between two scans for jobs that other instances wrote.
    scan_frequency: float = 1.0
    #: Seconds that a stop waits for runs under way.
    shutdown_timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class MySQLConfig:
    """``[mysql]``: the table on a MySQL or MariaDB server."""

    #: One or several, separated by commas, each maybe with a port: ``a, b:3307, [::1]:3308``.
    host: str = "127.0.0.1"
    #: Where a host has none of its own.
    port: int = 3306
    db: str = "test"
    #: Safe between backquotes: letters, digits, ``_``, ``$`` and ``-`` only.
    table: str = "dalga"
    user: str = "root"
    password: str = field(default="", repr=False)
    #: How many connections there are at most; 0 for as many as are of use.
    max_open_conns: int = 8
    #: Seconds until a connection has to be there, and until an answer has to come and a statement
    #: has to be sent on it.
    dial_timeout: float = 3.0
    read_timeout: float = 10.0
    write_timeout: float = 10.0
    #: The path of a local socket, which goes before host and port.
    socket: str = ""
    #: One of `SSL_MODES`.
    ssl_mode: str = "preferred"
    #: The paths of files.
    ssl_ca: str = ""
    ssl_cert: str = ""
    ssl_key: str = ""

    @property
    def servers(self) -> list[tuple[str, int] | str]:
        """Where to look for the database, in order: host and port, or a socket's path."""
        if self.socket:
            return [self.socket]
        return [
            server
            for text in self.host.split(",")
            if (server := host_and_port(text.strip(), self.port))
        ]


@dataclass(frozen=True, slots=True)
class SQLiteConfig:
    """``[sqlite]``: the table in a file."""

    #: Relative to the working directory.
    path: str = "dalga.sqlite"


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """``[listen]``: where the HTTP interface is."""

    host: str = "127.0.0.1"
    #: 0 takes any free port.
    port: int = 34006
    #: Seconds that a client which sends nothing keeps its connection.
    idle_timeout: float = 60.0
    #: Seconds that a request may take to arrive.
    read_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """``[endpoint]``: where jobs are POSTed to."""

    #: An http or https URL of ASCII characters: scheme, host, and maybe a port and a path. A user
    #: and a password that were in it are among the headers.
    baseurl: str = "http://127.0.0.1:5000/"
    #: Seconds for one POST, from the connect to the end of the answer.
    timeout: float = 10.0
    #: The path of a file with the CAs that are trusted instead of the platform's; "" for the
    #: platform's.
    ca: str = ""
    #: Names and values of what each POST has in its head, in ASCII; no name twice in any case.
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """All that can be configured; made without arguments, the defaults."""

    jobs: JobsConfig = JobsConfig()
    database: MySQLConfig | SQLiteConfig = SQLiteConfig()
    listen: ListenConfig = ListenConfig()
    endpoint: EndpointConfig = EndpointConfig()
    #: Sentences on what was given and is not needed, for the log.
    notes: tuple[str, ...] = field(default=(), compare=False)
    #: Variables that look like ours, and that Kubernetes or a docker link has set.
    links: tuple[str, ...] = field(default=(), compare=False)


#: Sections and their keys, as they are documented; read in any case.
KEYS: Mapping[str, tuple[str, ...]] = {
    "jobs": (
        "randomizationFactor",
        "fixedIntervals",
        "retryInterval",
        "retryMultiplier",
        "retryMaxInterval",
        "retryJitter",
        "retryStopAfter",
        "maxRunning",
        "scanFrequency",
        "shutdownTimeout",
    ),
    "mysql": (
        "host",
        "port",
        "socket",
        "db",
        "table",
        "user",
        "password",
        "maxOpenConns",
        "dialTimeout",
        "readTimeout",
        "writeTimeout",
        "ssl-mode",
        "ssl-ca",
        "ssl-cert",
        "ssl-key",
    ),
    "sqlite": ("path",),
    "listen": ("host", "port", "idleTimeout", "readTimeout"),
    "endpoint": ("baseurl", "timeout", "ca"),
}


#: The one key that is a table: in a file, ``[endpoint.headers]`` and a line for each header.
HEADERS = ("endpoint", "headers")
HEADERS_SECTION = ".".join(HEADERS)
