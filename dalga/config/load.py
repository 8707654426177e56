"""
The configuration: a file (ini, TOML or YAML) and ``DALGA_*`` variables in, a frozen `Config` out.

A value or a name that is not understood is refused. The sentence says where it stands (file,
section and key, or variable), what was given and what would do; never a password. All mistakes are
said at once.

`dalga.config.sections` has each key, with the values that it takes. `dalga.config.rules` has the
rules across several keys, which come after the reading.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote_to_bytes, urlsplit

from dalga.config import rules
from dalga.config.endpoints import section_of
from dalga.config.file import File
from dalga.config.given import Given
from dalga.config.headers import header
from dalga.config.incoming import private_keys_of
from dalga.config.keys import Section, read
from dalga.config.mistakes import ANY, Mistakes
from dalga.config.names import variable
from dalga.config.outgoing import Auth
from dalga.config.secretfile import who_else_reads
from dalga.config.sections import (
    AlertsConfig,
    AuditConfig,
    Config,
    EndpointConfig,
    HistoryConfig,
    JobsConfig,
    ListenConfig,
    LogConfig,
    MetricsConfig,
    MySQLConfig,
    SQLiteConfig,
)
from dalga.config.targets import ALERTS, target_section
from dalga.config.tokens import TOKENS
from dalga.config.values import Value
from dalga.config.variables import Variables
from dalga.errors import ConfigError
from dalga.model.address import DEFAULT_ENDPOINT, NO_TARGET
from dalga.model.permit import Token


def load_config(path: str | None, environ: Mapping[str, str], workers: str | None = None) -> Config:
    """
    Read the configuration: an option of the command line goes before a variable, a variable before
    the file, the file before the default.

    :param path: a file, as `dalga.config.formats.read_file` takes it; None for none.
    :param environ: the environment. Read are the variables that begin with ``DALGA_`` and the name
        of a section, without those that Kubernetes and docker links set.
    :param workers: the option ``--workers``; None if it was not given.
    :raises ConfigError: with a sentence on each mistake.
    """
    config, mistakes = load(path, environ, workers)
    if mistakes:
        raise ConfigError(*mistakes)
    return config


def load(
    path: str | None, environ: Mapping[str, str], workers: str | None = None
) -> tuple[Config, Sequence[str]]:
    """
    Read the configuration, as `load_config`.

    :return: the configuration, and a sentence on each mistake. With a mistake the configuration is
        of no use but for finding more: a key with a mistake has its default.
    """
    mistakes = Mistakes()
    given = Given(mistakes)
    if path is not None:
        with mistakes.of(ANY):
            File(path, given).read()
    Variables(environ, given).read()
    if workers is not None:
        given.add_option("jobs", "workers", workers)
    given.read_files()
    return _Loading(given).config(), mistakes.found()


class _Loading:
    """
    Makes a configuration of what was given. Of a section with a mistake it makes anything.

    :param given: what was given. It takes the mistakes that are found.
    """

    def __init__(self, given: Given) -> None:
        self._given = given
        self._mistakes = given.mistakes
        self._notes = [*given.unneeded()]

    def config(self) -> Config:
        """The configuration; of no use if there is a mistake."""
        given = self._given
        database = self._database()
        config = Config(
            database=database,
            jobs=self._jobs(database),
            tokens=self._tokens(),
            listen=self._read(ListenConfig, "listen"),
            endpoint=self._endpoint(DEFAULT_ENDPOINT),
            named_endpoints={
                name: self._endpoint(name)
                for name in sorted(given.headers)
                if name != DEFAULT_ENDPOINT
            },
            history=self._read(HistoryConfig, "history"),
            audit=self._read(AuditConfig, "audit"),
            metrics=self._read(MetricsConfig, "metrics"),
            alerts=self._target(ALERTS),
            named_targets={name: self._named_target(name) for name in sorted(given.targets)},
            log=self._read(LogConfig, "log"),
            origins=given.where(),
            links=tuple(given.links),
        )
        config = replace(config, listen=self._listen(config))
        if self._mistakes.clear("listen"):
            found = rules.of_metrics(config.metrics, given.of("metrics"), config.listen)
            self._mistakes.ask("metrics", found)
        self._check_targets(config)
        self._note_readers(config)
        return replace(config, notes=(*self._notes, *given.notes))

    def _note_readers(self, config: Config) -> None:
        """Note that others can read the file of a private key."""
        files = [path for text in config.listen.endpoints for path in private_keys_of(text)]
        files += [each.cert_key for each in config.endpoints.values()]
        if isinstance(config.database, MySQLConfig):
            files.append(config.database.ssl_key)
        for path in sorted({*files} - {""}):
            if who := who_else_reads(path):
                self._notes.append(
                    f"the file {path!r} has a private key in it, and {who}: chmod 600 leaves it to "
                    "its owner"
                )

    def _read(self, section: type[Section], name: str) -> Section:
        return read(section, self._given.of(name), self._mistakes, name)

    def _database(self) -> MySQLConfig | SQLiteConfig:
        origins = self._given.origins
        if "mysql" not in origins:
            return self._read(SQLiteConfig, "sqlite")
        if "sqlite" in origins:
            error = ConfigError(
                f"{origins['mysql']} and {origins['sqlite']} each choose a database: leave one "
                "of them out to say whether jobs live in MySQL or in SQLite"
            )
            self._mistakes.take("mysql", error)
        values = self._given.of("mysql")
        mysql = self._read(MySQLConfig, "mysql")
        if mysql.ssl_ca and "ssl-mode" not in values:
            # A person who gives a CA expects that servers are checked against it, and verify-ca
            # would take any certificate that the CA has signed.
            mysql = replace(mysql, ssl_mode="verify-identity")
        self._mistakes.ask("mysql", rules.of_mysql(mysql, values))
        return mysql

    def _jobs(self, database: MySQLConfig | SQLiteConfig) -> JobsConfig:
        values = self._given.of("jobs")
        jobs = self._read(JobsConfig, "jobs")
        self._mistakes.ask("jobs", rules.of_jobs(jobs, values))
        interval, longest = jobs.retry.interval, jobs.retry.max_interval
        if longest < interval:
            # Where only one of the two keys is given, the default of the other gives way.
            given = interval if "retryInterval" in values else longest
            jobs = replace(jobs, retry=replace(jobs.retry, interval=given, max_interval=given))
        if (
            isinstance(database, SQLiteConfig)
            and jobs.workers != 1
            and self._mistakes.clear("jobs", "sqlite")
        ):
            jobs = replace(jobs, workers=1)
            with self._mistakes.of("jobs"):
                self._notes.append(_alone(values["workers"]))
        return jobs

    def _tokens(self) -> tuple[Token, ...]:
        clear = self._mistakes.clear()
        tokens = self._given.tokens.read(self._given.headers if clear else None)
        if not tokens and TOKENS in self._given.origins and self._mistakes.clear(TOKENS):
            error = ConfigError(
                f"{self._given.origins[TOKENS]} has no token in it, so all would be open: put "
                "a line there that dalga token new prints, or leave the section out"
            )
            self._mistakes.take(TOKENS, error)
        return tokens

    def _listen(self, config: Config) -> ListenConfig:
        listen, values = config.listen, self._given.of("listen")
        if listen.endpoints and not {"host", "port"} & {*values}:
            listen = replace(listen, host="")
        if self._mistakes.clear(TOKENS):
            self._mistakes.ask("listen", rules.of_listen(listen, values, bool(config.tokens)))
        if config.tokens and listen.allow_unauthenticated:
            where = values["allowUnauthenticated"].where
            self._notes.append(f"{where} is ignored: there are tokens, and nothing is open")
        return listen

    def _endpoint(self, name: str) -> EndpointConfig:
        section, headers = section_of(name), self._given.headers[name].given
        values = self._given.of(section)
        endpoint = self._read(EndpointConfig, section)
        sent = []
        for value in headers.values():
            with self._mistakes.of(section):
                sent.append((value.key, header(value)))
        if name != DEFAULT_ENDPOINT and "baseurl" not in values and self._mistakes.clear(section):
            first = next(iter((*values.values(), *headers.values())), None)
            where = self._given.origins[section] if first is None else first.where
            error = ConfigError(
                f"{where}: the endpoint {name} has no baseurl, give it one, such as "
                f"baseurl = https://example.org/in/ or {variable(section, 'baseurl')}"
            )
            self._mistakes.take(section, error)
        self._mistakes.ask(section, rules.of_endpoint(endpoint, values, headers))
        return _without_users(replace(endpoint, headers=tuple(sent)))

    def _named_target(self, name: str) -> AlertsConfig:
        section = target_section(name)
        values = self._given.of(section)
        target = self._target(section)
        if "heartbeatUrl" in values:
            error = values["heartbeatUrl"].refuse(f"it stands in [{ALERTS}] alone, move it there")
            self._mistakes.take(section, error)
        if not target.url and self._mistakes.clear(section):
            first = next(iter(values.values()), None)
            where = self._given.origins[section] if first is None else first.where
            error = ConfigError(
                f"{where}: the target {name} has no url, give it one, such as "
                f"url = https://example.org/hooks/1 or {variable(section, 'url')}"
            )
            self._mistakes.take(section, error)
        return target

    def _target(self, section: str) -> AlertsConfig:
        target = self._read(AlertsConfig, section)
        url, authorization = _apart(target.url)
        heartbeat_url, heartbeat_authorization = _apart(target.heartbeat_url)
        return replace(
            target,
            url=url,
            authorization=authorization,
            heartbeat_url=heartbeat_url,
            heartbeat_authorization=heartbeat_authorization,
        )

    def _check_targets(self, config: Config) -> None:
        """Each target that an endpoint names has to be there."""
        there = (NO_TARGET, *config.targets)
        for name, endpoint in config.endpoints.items():
            section = section_of(name)
            if endpoint.alerts in ("", *there) or not self._mistakes.clear(section, ALERTS):
                continue
            of_target = target_section(endpoint.alerts)
            error = self._given.of(section)["alerts"].refuse(
                f"there is no target of this name, add url = ... to [{of_target}], or name "
                f"another one ({', '.join((*config.targets, NO_TARGET))})"
            )
            self._mistakes.take(section, error)


def _alone(workers: Value) -> str:
    """
    What is said of several workers on SQLite. A person who asks for ``auto`` asks for as many as
    are of use, and one is.

    :raises ConfigError: for a number of workers.
    """
    why = "an SQLite file is for one process"
    if workers.text.lower() == "auto":
        return f"{workers.where} is auto, which is 1 here: {why}; with [mysql] there are more"
    raise workers.refuse(f"{why}; keep the jobs in MySQL or MariaDB ([mysql]), or give 1")


def _without_users(endpoint: EndpointConfig) -> EndpointConfig:
    """An endpoint whose URLs have no user and no password: these are headers."""
    baseurl, authorization = _apart(endpoint.baseurl)
    proxy, proxy_authorization = _apart(endpoint.proxy)
    if endpoint.auth is Auth.BEARER:
        authorization = f"Bearer {endpoint.auth_secret}"
    elif endpoint.auth is Auth.BASIC:
        authorization = _basic(f"{endpoint.auth_user}:{endpoint.auth_secret}".encode())
    added = (("Authorization", authorization),) if authorization else ()
    return replace(
        endpoint,
        baseurl=baseurl,
        proxy=proxy,
        proxy_authorization=proxy_authorization,
        headers=(*endpoint.headers, *added),
    )


def _apart(url: str) -> tuple[str, str]:
    """
    An URL without a user and a password, and the value of the header Authorization that says the
    same; "" if the URL has none.
    """
    credentials, at, _ = urlsplit(url).netloc.rpartition("@")
    if not at:
        return url, ""
    pair = credentials if ":" in credentials else f"{credentials}:"
    return url.replace(f"{credentials}@", "", 1), _basic(unquote_to_bytes(pair))


def _basic(pair: bytes) -> str:
    """
    The value of a header for Basic authentication (RFC 7617).

    :param pair: the user, a colon and the password.
    """
    return f"Basic {base64.b64encode(pair).decode()}"
