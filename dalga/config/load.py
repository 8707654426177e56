"""
The configuration: a file (ini, TOML or YAML) and ``DALGA_*`` variables in, a frozen `Config` out.

Whatever is not understood is refused by name. The sentence says where it stands (file, section and
key, or variable), what was given and what would do; the value of a password is never part of it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import unquote_to_bytes, urlsplit

from dalga.config import texts
from dalga.config.given import Given
from dalga.config.sections import (
    KEYS,
    Config,
    EndpointConfig,
    JobsConfig,
    ListenConfig,
    MySQLConfig,
    SQLiteConfig,
)
from dalga.config.values import Section, Value
from dalga.errors import ConfigError
from dalga.model.address import base_url
from dalga.model.retry import RetryPolicy

#: A year.
_LONGEST_RETRY = "8760h"


def load_config(path: str | None, environ: Mapping[str, str]) -> Config:
    """
    Read the configuration: a variable goes before the file, the file before the default.

    :param path: a file, as `dalga.config.formats.read_file` takes it; None for none.
    :param environ: the environment; of it, what starts with ``DALGA_`` and the name of a section,
        but for what Kubernetes and docker links set.
    :raises ConfigError: with one sentence on the first thing that won't do.
    """
    given = Given()
    if path is not None:
        given.add_file(path)
    given.add_variables(environ)
    if "mysql" in given.origins and "sqlite" in given.origins:
        raise ConfigError(
            f"{given.origins['mysql']} and {given.origins['sqlite']} each choose a database: leave "
            "one of them out to say whether jobs live in MySQL or in SQLite"
        )

    jobs, mysql, sqlite, listen, endpoint = (Section(given.of(name)) for name in KEYS)
    default = Config()
    database: MySQLConfig | SQLiteConfig
    if "mysql" in given.origins:
        database = _mysql(mysql)
    else:
        database = SQLiteConfig(path=sqlite.text("path", SQLiteConfig().path, texts.file_path))
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
            host=listen.text("host", default.listen.host, texts.listen_host),
            port=listen.integer("port", default.listen.port, 0, 65535),
            idle_timeout=listen.duration("idleTimeout", default.listen.idle_timeout, "1s"),
            read_timeout=listen.duration("readTimeout", default.listen.read_timeout, "1s"),
        ),
        endpoint=_endpoint(endpoint, given.headers),
        notes=tuple(given.notes()),
        links=tuple(given.links),
    )


def _endpoint(endpoint: Section, headers: Mapping[str, Value]) -> EndpointConfig:
    """:param headers: by their names in lower case."""
    default = EndpointConfig()
    sent = tuple((value.key, value.header()) for value in headers.values())
    baseurl = endpoint.text("baseurl", default.baseurl, base_url)
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
    ca = endpoint.text("ca", default.ca, texts.any_text)
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


def _mysql(mysql: Section) -> MySQLConfig:
    default = MySQLConfig()
    ca = mysql.text("ssl-ca", default.ssl_ca, texts.any_text)
    # A CA is given to be checked against, and verify-ca would take any certificate of its.
    mode = mysql.text("ssl-mode", "verify-identity" if ca else default.ssl_mode, texts.ssl_mode)
    config = MySQLConfig(
        host=mysql.text("host", default.host, texts.database_hosts),
        port=mysql.integer("port", default.port, 1, 65535),
        db=mysql.text("db", default.db, texts.database_name),
        table=mysql.text("table", default.table, texts.table_name),
        user=mysql.text("user", default.user, texts.user_name),
        password=mysql.text("password", default.password, texts.any_text),
        max_open_conns=mysql.integer("maxOpenConns", default.max_open_conns, 0, 10_000),
        # A stop, and requests after an outage, may have to wait for as long as these.
        dial_timeout=mysql.duration("dialTimeout", default.dial_timeout, "100ms", "5m"),
        # Longer than the shortest time that a server waits for a lock.
        read_timeout=mysql.duration("readTimeout", default.read_timeout, "2s", "5m"),
        write_timeout=mysql.duration("writeTimeout", default.write_timeout, "2s", "5m"),
        socket=mysql.text("socket", default.socket, texts.any_text),
        ssl_mode=texts.ssl_mode_of(mode),
        ssl_ca=ca,
        ssl_cert=mysql.text("ssl-cert", default.ssl_cert, texts.any_text),
        ssl_key=mysql.text("ssl-key", default.ssl_key, texts.any_text),
    )
    if config.socket:
        _check_with_socket(mysql, config)
    else:
        _check_tls(mysql, config)
    return config


def _check_with_socket(mysql: Section, config: MySQLConfig) -> None:
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


def _check_tls(mysql: Section, config: MySQLConfig) -> None:
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


def _retry_policy(jobs: Section) -> RetryPolicy:
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
