"""
The configuration: a file (ini, TOML or YAML) and ``DALGA_*`` variables in, a frozen `Config` out.

Whatever is not understood is refused by name. The sentence says where it stands (file, section and
key, or variable), what was given and what would do; the value of a password is never part of it.
"""

from __future__ import annotations

import base64
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import IPv6Address
from urllib.parse import unquote_to_bytes, urlsplit

from dalga.config.formats import Entry, Kind, named, read_file, shown
from dalga.errors import ConfigError
from dalga.model.duration import elapsed_from_text
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
            server for text in self.host.split(",") if (server := _server(text.strip(), self.port))
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
_HEADERS_SECTION = ".".join(HEADERS)

#: Headers that say how a message goes from one host to the next (RFC 9110 section 7.6.1) or how it
#: is written, which Dalga does by itself.
MESSAGE_HEADERS = (
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)

#: How connections to MySQL are encrypted, as its own client calls it.
SSL_MODES = ("disabled", "preferred", "required", "verify-ca", "verify-identity")

#: Where else the Go releases have a key of ours.
ELSEWHERE: Mapping[tuple[str, str], tuple[str, str]] = {
    ("listen", "shutdownTimeout"): ("jobs", "shutdownTimeout"),
}

#: Keys of the Go releases that Dalga has no need of, and why: their files are taken as they are.
UNNEEDED: Mapping[tuple[str, str], str] = {
    ("mysql", "skipLocked"): "Dalga passes over rows that somebody has locked in any case",
    (
        "mysql",
        "transactionIsolationParamName",
    ): "Dalga finds out by itself what the server calls it",
    (
        "listen",
        "writeTimeout",
    ): "an answer is there within 5 s, and who does not take it is cut off by idleTimeout",
}


#: What others call some of our keys and sections, where no likeness of letters tells which.
MEANT: Mapping[str, str] = {
    "address": "host",
    "addr": "host",
    "bind": "host",
    "database": "db",
    "dbname": "db",
    "mariadb": "mysql",
    "schema": "db",
    "ssl": "ssl-mode",
    "tls": "ssl-mode",
}


def load_config(path: str | None, environ: Mapping[str, str]) -> Config:
    """
    Read the configuration: a variable goes before the file, the file before the default.

    :param path: a file, as `dalga.config.formats.read_file` takes it; None for none.
    :param environ: the environment; of it, what starts with ``DALGA_`` and the name of a section,
        but for what Kubernetes and docker links set.
    :raises ConfigError: with one sentence on the first thing that won't do.
    """
    given = _Given()
    if path is not None:
        given.add_file(path)
    given.add_variables(environ)
    if "mysql" in given.origins and "sqlite" in given.origins:
        raise ConfigError(
            f"{given.origins['mysql']} and {given.origins['sqlite']} each choose a database: leave "
            "one of them out to say whether jobs live in MySQL or in SQLite"
        )

    jobs, mysql, sqlite, listen, endpoint = (_Section(given.of(name)) for name in KEYS)
    default = Config()
    database: MySQLConfig | SQLiteConfig
    if "mysql" in given.origins:
        database = _mysql(mysql)
    else:
        database = SQLiteConfig(path=sqlite.text("path", SQLiteConfig().path, _check_path))
    return Config(
        jobs=JobsConfig(
            randomization_factor=jobs.number(
                "randomizationFactor", default.jobs.randomization_factor, 0, 1, "0.25"
            ),
            fixed_intervals=jobs.boolean("fixedIntervals", default.jobs.fixed_intervals),
            retry=_retry_policy(jobs),
            max_running=jobs.integer("maxRunning", default.jobs.max_running, 1, 10_000),
            scan_frequency=jobs.duration("scanFrequency", default.jobs.scan_frequency),
            shutdown_timeout=jobs.duration("shutdownTimeout", default.jobs.shutdown_timeout, "0"),
        ),
        database=database,
        listen=ListenConfig(
            host=listen.text("host", default.listen.host, _check_listen_host),
            port=listen.integer("port", default.listen.port, 0, 65535),
            idle_timeout=listen.duration("idleTimeout", default.listen.idle_timeout, "1s"),
            read_timeout=listen.duration("readTimeout", default.listen.read_timeout, "1s"),
        ),
        endpoint=_endpoint(endpoint, given.headers),
        notes=tuple(given.notes()),
        links=tuple(given.links),
    )


def _endpoint(endpoint: _Section, headers: Mapping[str, _Value]) -> EndpointConfig:
    """:param headers: by their names in lower case."""
    default = EndpointConfig()
    sent = tuple((value.key, value.header()) for value in headers.values())
    baseurl = endpoint.text("baseurl", default.baseurl, _check_baseurl)
    credentials, at, _ = urlsplit(baseurl).netloc.rpartition("@")
    if at:
        if "authorization" in headers:
            raise headers["authorization"].refuse(
                f"{endpoint['baseurl'].where} has a user name and a password in it, leave one of "
                "the two out"
            )
        # Basic authentication (RFC 7617), as Go's net/http makes it of a URL.
        encoded = base64.b64encode(unquote_to_bytes(_user_and_password(credentials))).decode()
        sent = (*sent, ("Authorization", f"Basic {encoded}"))
        baseurl = baseurl.replace(f"{credentials}@", "", 1)
    ca = endpoint.text("ca", default.ca, _check_nothing)
    if ca and urlsplit(baseurl).scheme != "https":
        raise endpoint["ca"].refuse(
            "nothing is checked against it with a baseurl that starts with http://, but with "
            "https://"
        )
    return EndpointConfig(
        baseurl=baseurl,
        timeout=endpoint.duration("timeout", default.timeout),
        ca=ca,
        headers=sent,
    )


def _user_and_password(credentials: str) -> str:
    """A URL's user information, with the colon that it may lack."""
    return credentials if ":" in credentials else f"{credentials}:"


def _mysql(mysql: _Section) -> MySQLConfig:
    default = MySQLConfig()
    ca = mysql.text("ssl-ca", default.ssl_ca, _check_nothing)
    # A CA is given to be checked against, and verify-ca would take any certificate of its.
    mode = mysql.text("ssl-mode", "verify-identity" if ca else default.ssl_mode, _check_ssl_mode)
    config = MySQLConfig(
        host=mysql.text("host", default.host, _check_mysql_host),
        port=mysql.integer("port", default.port, 1, 65535),
        db=mysql.text("db", default.db, _check_database),
        table=mysql.text("table", default.table, _check_table),
        user=mysql.text("user", default.user, _check_user),
        password=mysql.text("password", default.password, _check_nothing),
        max_open_conns=mysql.integer("maxOpenConns", default.max_open_conns, 0, 10_000),
        # A stop, and requests after an outage, may have to wait for as long as these.
        dial_timeout=mysql.duration("dialTimeout", default.dial_timeout, "100ms", "5m"),
        # Longer than the shortest time that a server waits for a lock.
        read_timeout=mysql.duration("readTimeout", default.read_timeout, "2s", "5m"),
        write_timeout=mysql.duration("writeTimeout", default.write_timeout, "2s", "5m"),
        socket=mysql.text("socket", default.socket, _check_nothing),
        ssl_mode=_ssl_mode(mode),
        ssl_ca=ca,
        ssl_cert=mysql.text("ssl-cert", default.ssl_cert, _check_nothing),
        ssl_key=mysql.text("ssl-key", default.ssl_key, _check_nothing),
    )
    if config.socket:
        _check_with_socket(mysql, config)
    else:
        _check_tls(mysql, config)
    return config


def _check_with_socket(mysql: _Section, config: MySQLConfig) -> None:
    """:raises ConfigError: for what is of no use with a socket."""
    for key in ("host", "port"):
        if key in mysql:
            raise mysql["socket"].refuse(
                f"{mysql[key].where} says where the server is as well, leave one of them out"
            )
    # Also where ssl-mode would do without TLS: who gives a CA or a key expects it to be used.
    of_tls = [key for key in ("ssl-ca", "ssl-cert", "ssl-key") if key in mysql and mysql[key].text]
    if "ssl-mode" in mysql and config.ssl_mode not in ("disabled", "preferred"):
        of_tls.insert(0, "ssl-mode")
    if of_tls:
        raise mysql["socket"].refuse(
            f"there is no TLS over a socket, leave {' and '.join(of_tls)} out, or give the "
            "server's host in its place"
        )


def _check_tls(mysql: _Section, config: MySQLConfig) -> None:
    """:raises ConfigError: for keys of TLS that do not go together."""
    verifies = config.ssl_mode in ("verify-ca", "verify-identity")
    if verifies and not config.ssl_ca:
        raise mysql["ssl-mode"].refuse("it needs ssl-ca, the file with the CA's certificate")
    if config.ssl_ca and not verifies:
        raise mysql["ssl-ca"].refuse(
            f"nothing is checked against it with ssl-mode {config.ssl_mode}, but with verify-ca or "
            "verify-identity"
        )
    if config.ssl_key and not config.ssl_cert:
        raise mysql["ssl-key"].refuse("it needs ssl-cert, the file with its certificate")
    if config.ssl_cert and config.ssl_mode in ("disabled", "preferred"):
        raise mysql["ssl-cert"].refuse(
            f"it is not sent with ssl-mode {config.ssl_mode}, but with required, verify-ca or "
            "verify-identity"
        )


def _retry_policy(jobs: _Section) -> RetryPolicy:
    default = RetryPolicy()
    interval = jobs.duration(
        "retryInterval", default.interval.total_seconds(), longest=_LONGEST_RETRY
    )
    # Where only one of the two is given, the other gives way to it.
    longest = jobs.duration(
        "retryMaxInterval",
        max(interval, default.max_interval.total_seconds()),
        longest=_LONGEST_RETRY,
    )
    if "retryInterval" in jobs and longest < interval:
        raise jobs["retryMaxInterval"].refuse(
            f"it takes a duration no shorter than retryInterval, which is {interval:g} s"
        )
    stop_after = jobs.duration("retryStopAfter", 0.0, "0", _LONGEST_RETRY)
    return RetryPolicy(
        interval=timedelta(seconds=min(interval, longest)),
        multiplier=jobs.number("retryMultiplier", default.multiplier, 1, 100, "1.5"),
        max_interval=timedelta(seconds=longest),
        jitter=jobs.number("retryJitter", default.jitter, 0, 1, "0.5"),
        stop_after=None if stop_after == 0 else timedelta(seconds=stop_after),
    )


#: A year.
_LONGEST_RETRY = "8760h"


@dataclass(frozen=True, slots=True)
class _Value:
    """A value as it was given, quotes and comments gone."""

    section: str
    key: str
    text: str
    #: The file, section and key, or the variable.
    where: str
    kind: Kind = Kind.TEXT

    def refuse(self, why: str) -> ConfigError:
        """:param why: what follows the colon: what would do, or what is in the way."""
        if self.kind not in (Kind.TEXT, Kind.NUMBER, Kind.BOOLEAN):
            given = f" is {self.kind.value}"
        # A URL with an @ may have a password in it, too.
        elif self.key == "password" or "@" in self.text or self.section == _HEADERS_SECTION:
            given = " (not shown)"
        else:
            given = f" is {shown(self.text)}"
        return ConfigError(f"{self.where}{given}: {why}")

    def header(self) -> str:
        """
        The value of a header, whose name is the key.

        :raises ConfigError: for a name or a value that none can have.
        """
        name = self.key.lower()
        if name in MESSAGE_HEADERS or name.startswith("dalga-"):
            raise self.refuse("Dalga sets this header by itself, leave it out")
        if self.kind is not Kind.TEXT:
            raise self.refuse("it takes text, so put it in double quotes")
        if why := _undisplayable(self.text):
            raise self.refuse(why)
        # RFC 9110 section 5.5, without what it calls obsolete.
        if not re.fullmatch(r"[!-~](?:[ -~]*[!-~])?", self.text):
            raise self.refuse(
                "a header takes ASCII characters, at least one, without spaces around them"
            )
        return self.text


class _Given:
    """What a file and the variables say, by section and key; what is added later goes first."""

    def __init__(self) -> None:
        #: What makes each section be there: its heading, also with nothing below, or a variable.
        self.origins: dict[str, str] = {}
        #: Variables that Kubernetes or a docker link has set, not an operator.
        self.links: list[str] = []
        #: The endpoint's headers by their names in lower case.
        self.headers: dict[str, _Value] = {}
        self._values: dict[tuple[str, str], _Value] = {}
        #: Sentences on variables whose names are nearly ours.
        self._likenesses: list[str] = []

    def of(self, section: str) -> dict[str, _Value]:
        """A section's values by their keys."""
        return {key: value for (within, key), value in self._values.items() if within == section}

    def notes(self) -> Iterable[str]:
        """A sentence for each value that changes nothing."""
        for place, why in UNNEEDED.items():
            # What Dalga does anyway is not worth one.
            if place in self._values and self._values[place].text.lower() != "true":
                yield f"{self._values[place].where} is ignored: {why}"
        yield from self._likenesses

    def add_file(self, path: str) -> None:
        """:raises ConfigError: for what is not known, there twice, or can't be read."""
        values: dict[tuple[str, str], _Value] = {}
        for written in read_file(path):
            section = written.name.lower()
            if section == _HEADERS_SECTION:
                self._add_headers(path, written.entries)
                continue
            if section not in KEYS:
                raise ConfigError(
                    f"{path}: there is no section [{named(written.name)}]"
                    f"{_instead(written.name, KEYS, '[{}]')}"
                )
            if section in self.origins:
                raise ConfigError(
                    f"{path}: the section [{section}] is there twice, put its keys together"
                )
            self.origins[section] = f"[{section}] in {path}"
            known = _known(section)
            for entry in written.entries:
                if (section, entry.key.lower()) == HEADERS:
                    self._add_table(path, entry)
                    continue
                if entry.key.lower() not in known:
                    raise ConfigError(
                        f"{path}: [{section}] has no key {shown(entry.key)}"
                        f"{_instead(entry.key, _names(section), '{}')}"
                    )
                key = known[entry.key.lower()]
                where = f"{path}: [{section}] {key}"
                value = _Value(section, key, entry.text, where, entry.kind)
                if entry.problem is not None:
                    raise value.refuse(entry.problem)
                _add(values, value)
        self._values.update(values)

    def _add_table(self, path: str, entry: Entry) -> None:
        """
        Take ``headers`` where it is a key.

        :raises ConfigError: for a value that is neither a table nor empty.
        """
        if entry.kind is Kind.TABLE:
            self._add_headers(path, entry.table)
        elif entry.text or entry.kind not in (Kind.TEXT, Kind.NOTHING):
            where = f"{path}: [endpoint] headers"
            raise _Value(_HEADERS_SECTION, "", entry.text, where, entry.kind).refuse(
                "each header takes a line of its own below [endpoint.headers], or in YAML below "
                'headers:, such as X-Api-Key = "..."'
            )

    def _add_headers(self, path: str, entries: Iterable[Entry]) -> None:
        """:raises ConfigError: for a name that no header can have, or that is there twice."""
        for entry in entries:
            name = entry.key
            # RFC 9110 section 5.1. A wrong name may hold the value: "Authorization: secret".
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ConfigError(
                    f"{path}: [endpoint.headers] has a key that can't be a header's name (not "
                    'shown): it takes ASCII letters, digits and -, such as X-Api-Key = "..."'
                )
            where = f"{path}: [endpoint.headers] {name}"
            value = _Value(_HEADERS_SECTION, name, entry.text, where, entry.kind)
            if name.lower() in self.headers:
                raise ConfigError(f"{where} is there twice, leave one of them")
            if entry.problem is not None:
                raise value.refuse(entry.problem)
            self.headers[name.lower()] = value

    def _add_header_variable(self, variable: str, text: str) -> None:
        """
        Take ``DALGA_ENDPOINT_HEADERS_X_API_KEY`` for ``X-Api-Key``, in the place of the file's.

        :raises ConfigError: for what names no header.
        """
        name = variable.removeprefix(_HEADERS_VARIABLE).removeprefix("_")
        value = _Value(_HEADERS_SECTION, name.replace("_", "-").title(), text, variable)
        if re.fullmatch(r"[A-Z0-9]+(_[A-Z0-9]+)*", name):
            self.headers[value.key.lower()] = value
        elif text or variable != _HEADERS_VARIABLE:
            raise replace(value, where=named(variable)).refuse(
                "each header takes a variable of its own, with its name behind "
                f"{_HEADERS_VARIABLE}_, such as {_HEADERS_VARIABLE}_X_API_KEY"
            )

    def _note_likeness(self, variable: str) -> None:
        """A program beside us may have such a variable, so one that is misspelt is not refused."""
        if variable.upper().startswith("DALGA_"):
            ours = [f"DALGA_{name.upper()}_{_variable(key)}" for name in KEYS for key in KEYS[name]]
            close = difflib.get_close_matches(variable.upper(), ours, n=1, cutoff=0.85)
            if close:
                self._likenesses.append(f"{named(variable)} is ignored, did you mean {close[0]}?")

    def add_variables(self, environ: Mapping[str, str]) -> None:
        """
        Take the values of ``DALGA_<SECTION>_<KEY>``, literally; other variables are not ours, nor
        are those that Kubernetes and docker links set.

        :raises ConfigError: for what is not known.
        """
        values: dict[tuple[str, str], _Value] = {}
        for variable, text in sorted(environ.items()):
            prefix, _, rest = variable.partition("_")
            section, separator, key = rest.partition("_")
            if prefix != "DALGA" or section.lower() not in KEYS or section != section.upper():
                if not _is_link(variable, text, environ):
                    self._note_likeness(variable)
                continue
            if re.match(rf"{_HEADERS_VARIABLE}(_|$)", variable):
                self._add_header_variable(variable, text)
                continue
            if _is_link(variable, text, environ):
                self.links.append(variable)
                continue
            known = {_variable(name): name for name in _known(section.lower()).values()}
            if not separator or key not in known:
                names = [f"DALGA_{section}_{_variable(name)}" for name in _names(section.lower())]
                meant = f"DALGA_{section}_{_variable(MEANT.get(key.lower(), key))}"
                raise ConfigError(
                    f"{named(variable)} is not a variable of Dalga's{_instead(meant, names, '{}')}"
                )
            self.origins.setdefault(section.lower(), variable)
            _add(values, _Value(section.lower(), known[key], text, variable))
        self._values.update(values)


#: What the variables for headers begin with.
_HEADERS_VARIABLE = "DALGA_ENDPOINT_HEADERS"

#: IPv4, or IPv6, which has a colon.
_ADDRESS = r"[0-9]+(\.[0-9]+){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"

#: Where a port is, which both tell with its number: ``tcp://10.0.0.11:3306``.
_LINK = rf"(tcp|udp|sctp)://({_ADDRESS}|\[[0-9A-Fa-f:.]+\]):[0-9]+"

#: A container, and the name that it was linked by: ``/web/db``.
_LINKED_CONTAINER = r"/[\w.-]+/[\w.-]+"

#: The end of the name of a variable that Kubernetes sets for each Service (its documentation,
#: "Accessing the Service: Environment variables") and ``docker run --link`` for each link (Docker's
#: documentation, "Legacy container links"), and what its value looks like.
_LINKS: tuple[tuple[str, str], ...] = (
    (r"_SERVICE_HOST", _ADDRESS),
    (r"_SERVICE_PORT(_\w+)?", r"[0-9]+"),
    (r"_PORT", _LINK),
    (r"_PORT_[0-9]+_(TCP|UDP|SCTP)(_START|_END)?", _LINK),
    (r"_PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO", r"tcp|udp|sctp"),
    (r"_PORT_[0-9]+_(TCP|UDP|SCTP)_PORT(_START|_END)?", r"[0-9]+"),
    (r"_PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR", _ADDRESS),
    (r"_NAME", _LINKED_CONTAINER),
)


def _is_link(variable: str, text: str, environ: Mapping[str, str]) -> bool:
    """
    Whether a variable tells where a Service or a linked container is, which says nothing about
    Dalga: one called ``dalga-mysql`` gives ``DALGA_MYSQL_PORT=tcp://10.0.0.11:3306``.
    """
    if any(
        re.fullmatch(rf"\w+{end}", variable) and re.fullmatch(value, text) for end, value in _LINKS
    ):
        return True
    # A linked container's own variables may hold anything, but its name is beside them.
    linked, own, _ = variable.partition("_ENV_")
    name = environ.get(f"{linked}_NAME", "")
    return bool(own) and re.fullmatch(_LINKED_CONTAINER, name) is not None


def _variable(key: str) -> str:
    """A key as it stands in a variable's name, where there can be no hyphen."""
    return key.upper().replace("-", "_")


def _names(section: str) -> list[str]:
    """A section's keys, as a sentence on an unknown one lists them."""
    return [*KEYS[section], HEADERS[1]] if section == HEADERS[0] else [*KEYS[section]]


def _known(section: str) -> dict[str, str]:
    """A section's keys, those of the Go releases included, by their names in lower case."""
    more = [key for within, key in (*ELSEWHERE, *UNNEEDED) if within == section]
    return {name.lower(): name for name in (*KEYS[section], *more)}


def _add(values: dict[tuple[str, str], _Value], value: _Value) -> None:
    """:raises ConfigError: if the file, or the environment, has it already."""
    place = ELSEWHERE.get((value.section, value.key), (value.section, value.key))
    other = values.setdefault(place, value)
    if other is value:
        return
    if other.where == value.where:
        raise ConfigError(f"{value.where} is there twice, leave one of them")
    raise ConfigError(f"{other.where} and {value.where} say the same, leave one of them")


class _Section:
    """One section's values, read as what they should be."""

    def __init__(self, values: Mapping[str, _Value]) -> None:
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> _Value:
        return self._values[key]

    def text(self, key: str, default: str, check: Callable[[str], str | None]) -> str:
        """:param check: says why a text won't do; None where it will."""
        value = self._values.get(key)
        if value is None:
            return default
        if value.kind is not Kind.TEXT:
            raise value.refuse("it takes text, so put it in double quotes")
        if why := _undisplayable(value.text) or check(value.text):
            raise value.refuse(why)
        return value.text

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self._values.get(key)
        if value is None:
            return default
        # Seventeen digits are more than any range here, and int() refuses thousands of them.
        if re.fullmatch(r"-?[0-9]{1,17}", value.text) and low <= int(value.text) <= high:
            return int(value.text)
        raise value.refuse(f"it takes a whole number from {low} to {high}")

    def number(self, key: str, default: float, low: int, high: int, example: str) -> float:
        value = self._values.get(key)
        if value is None:
            return default
        # A narrower grammar than float's, which takes "nan", "inf" and "1_0".
        if re.fullmatch(_NUMBER, value.text) and low <= float(value.text) <= high:
            return float(value.text)
        raise value.refuse(f"it takes a number from {low} to {high}, such as {example}")

    def boolean(self, key: str, default: bool) -> bool:
        value = self._values.get(key)
        if value is None:
            return default
        if value.text.lower() in _BOOLEANS:
            return _BOOLEANS[value.text.lower()]
        raise value.refuse("it takes true or false")

    def duration(
        self, key: str, default: float, shortest: str = "1ms", longest: str = "1h"
    ) -> float:
        """
        :param shortest: the least, as a duration; so is `longest`, the most.
        :return: seconds.
        """
        value = self._values.get(key)
        if value is None:
            return default
        seconds, low, high = _seconds(value.text), _seconds(shortest), _seconds(longest)
        assert low is not None and high is not None
        if seconds is not None and low <= seconds <= high:
            return seconds
        raise value.refuse(
            f"it takes a duration from {shortest} to {longest}, in seconds (10, 2.5), with a unit "
            "(500ms, 10s, 5m, 1h30m), or as ISO 8601 has it without years and months (PT5M)"
        )


#: As the parameters of the HTTP interface have them.
_BOOLEANS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "0"), False
)
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str) -> float | None:
    """
    The seconds of ``2.5``, of Go's ``500ms``, ``10s`` and ``1m30s``, or of ISO 8601's ``PT90S`` and
    ``P1D``, whose day is 24 hours; None for what is none of these.
    """
    if re.fullmatch(_NUMBER, text):
        return float(text)
    part = rf"({_NUMBER})(ms|s|m|h)"
    if re.fullmatch(f"(?:{part})+", text):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(part, text))
    try:
        return elapsed_from_text(text).total_seconds()
    except ValueError:
        return None


# What a text may be. Each says why one won't do.


def _undisplayable(text: str) -> str | None:
    for character in text:
        if character < " " or character == "\x7f":
            return f"it has the control character U+{ord(character):04X}, leave it out"
        # How Python shows bytes of the environment that are not UTF-8.
        if "\ud800" <= character <= "\udfff":
            return "it is not UTF-8, write it in UTF-8"
    return None


def _check_nothing(text: str) -> None:
    """Any text will do, also an empty one."""


def _check_database(text: str) -> str | None:
    return None if text else "it takes the name of a database"


def _check_user(text: str) -> str | None:
    return None if text else "it takes the name of a database user"


def _check_table(text: str) -> str | None:
    # Of the 64 characters that a name may have, 11 are for the tables beside it.
    if re.fullmatch(r"[A-Za-z0-9_$-]{1,53}", text):
        return None
    return "it takes 1 to 53 ASCII letters, digits, _, $ and -"


def _check_path(text: str) -> str | None:
    if text and text != ":memory:":
        return None
    return "it takes the path of a file, such as dalga.sqlite"


def _check_mysql_host(text: str) -> str | None:
    if all(_server(part.strip(), 1) for part in text.split(",")):
        return None
    return (
        "it takes a host name or an IP address, or several with commas between them, each with a "
        "port if that is not port's: db1, db2:3307, [::1]:3307"
    )


def _server(text: str, port: int) -> tuple[str, int] | None:
    """
    The host and port of ``db``, ``db:3307``, ``::1``, ``[::1]`` or ``[::1]:3307``; None if it is
    none of these.

    :param port: that of a host which has none with it.
    """
    found = re.fullmatch(r"(?:\[([^\]]*:[^\]]*)\]|([^:]*))(?::([0-9]{1,5}))?", text)
    host = (found[1] or found[2]) if found else text
    if found and found[3]:
        port = int(found[3])
    return (host, port) if _is_host(host) and 1 <= port <= 65535 else None


def _ssl_mode(text: str) -> str:
    """MySQL writes VERIFY_CA, too."""
    return text.lower().replace("_", "-")


def _check_ssl_mode(text: str) -> str | None:
    if _ssl_mode(text) in SSL_MODES:
        return None
    return f"it takes {', '.join(SSL_MODES[:-1])} or {SSL_MODES[-1]}"


def _check_listen_host(text: str) -> str | None:
    if _is_host(text):
        return None
    return (
        "it takes a host name or an IP address, without a port and without brackets, and 0.0.0.0 "
        "or :: for all of this machine's"
    )


def _is_host(text: str) -> bool:
    if ":" in text:
        try:
            IPv6Address(text)
        except ValueError:
            return False
        return True
    return re.fullmatch(r"[^\s/\\\[\]@?#,;'\"]+", text) is not None


#: A host's name in a URL: ASCII labels (RFC 1035 section 2.3.4), in which an underscore may be.
HOST_NAME = re.compile(r"(?=.{1,254}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.IGNORECASE)


def _check_baseurl(text: str) -> str | None:
    # Before all else: urlsplit drops tabs and line ends without a word, and takes any character.
    if odd := re.search(r"[^A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]", text):
        return (
            f"U+{ord(odd[0]):04X} can't stand in a URL, percent-encode it (in a host name, use its "
            "xn-- form)"
        )
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        return "a % in a URL takes two hexadecimal digits after it, write a plain one as %25"
    # Else http://user:12/34@host/ would send jobs, and part of a password, to a host "user".
    if re.match(r"[^:/?#]*://[^/?#]*[/?#].*@", text):
        return (
            "in a user name or a password, write / as %2F, ? as %3F and # as %23, and behind the "
            "host @ as %40"
        )
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        return "its host or port can't be read, it takes a URL such as http://127.0.0.1:5000/"
    if url.scheme not in ("http", "https"):
        return "it takes a URL that starts with http:// or https://"
    if "@" in url.netloc and (why := _check_user_info(url.netloc.rpartition("@")[0])):
        return why
    if "%" in host or not (_is_host(host) if ":" in host else HOST_NAME.fullmatch(host)):
        return "it takes a URL with a host, such as http://127.0.0.1:5000/"
    if port == 0 or url.netloc.endswith(":"):
        return "its port can't be used, it takes one from 1 to 65535, or none and no colon"
    if "?" in text or "#" in text:
        return "it takes a URL without query (?) and fragment (#), as a job's path is put behind it"
    return None


def _check_user_info(text: str) -> str | None:
    """:param text: what stands before the @ in a URL."""
    user, _, password = text.partition(":")
    if not user and not password:
        return "it takes a user name and a password before the @, or no @"
    decoded = unquote_to_bytes(text)
    if re.search(rb"[\x00-\x1f\x7f]", decoded):
        return "its user name or password has a control character, leave that out"
    # RFC 7617 section 2: all behind the first colon would be taken for the password.
    if b":" in unquote_to_bytes(user):
        return "a user name with a colon (%3A) can't be sent, choose another"
    return None


def _instead(given: str, known: Iterable[str], form: str) -> str:
    """The end of a sentence on something unknown: what may have been meant, or what there is."""
    by_lower = {name.lower(): name for name in known}
    meant = MEANT.get(given.lower(), given.lower())
    close = difflib.get_close_matches(meant if meant in by_lower else given.lower(), by_lower, n=1)
    if close:
        return f", did you mean {form.format(by_lower[close[0]])}?"
    return ", there is " + ", ".join(form.format(name) for name in by_lower.values())
