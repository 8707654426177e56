"""
The configuration: a file (ini, TOML or YAML) and ``DALGA_*`` variables in, a frozen `Config` out.

A value or a name that is not understood is refused. The sentence says where it stands (file,
section and key, or variable), what was given and what would do; never a password.

`dalga.config.sections` has each key, with the values that it takes. Here are the rules across
several keys, which come after the reading.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from urllib.parse import unquote_to_bytes, urlsplit

from dalga.config import outgoing
from dalga.config.endpoints import section_of
from dalga.config.given import Given
from dalga.config.headers import header
from dalga.config.keys import read
from dalga.config.names import variable
from dalga.config.outgoing import Auth, Deny
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
from dalga.config.values import Value
from dalga.errors import ConfigError
from dalga.model.address import DEFAULT_ENDPOINT, NO_TARGET, is_loopback_name

#: A section's values by the names of their keys.
Values = Mapping[str, Value]


def load_config(path: str | None, environ: Mapping[str, str], workers: str | None = None) -> Config:
    """
    Read the configuration: an option of the command line goes before a variable, a variable before
    the file, the file before the default.

    :param path: a file, as `dalga.config.formats.read_file` takes it; None for none.
    :param environ: the environment. Read are the variables that begin with ``DALGA_`` and the name
        of a section, without those that Kubernetes and docker links set.
    :param workers: the option ``--workers``; None if it was not given.
    :raises ConfigError: with one sentence, on the first mistake.
    """
    given = Given()
    if path is not None:
        given.add_file(path)
    given.add_variables(environ)
    if workers is not None:
        given.add_option("jobs", "workers", workers)
    if "mysql" in given.origins and "sqlite" in given.origins:
        raise ConfigError(
            f"{given.origins['mysql']} and {given.origins['sqlite']} each choose a database: leave "
            "one of them out to say whether jobs live in MySQL or in SQLite"
        )
    database: MySQLConfig | SQLiteConfig
    if "mysql" in given.origins:
        database = _mysql(given.of("mysql"))
    else:
        database = read(SQLiteConfig, given.of("sqlite"))
    jobs = _jobs(given.of("jobs"))
    notes = list(given.notes())
    if isinstance(database, SQLiteConfig) and jobs.workers != 1:
        jobs = replace(jobs, workers=1)
        notes.append(_alone(given.of("jobs")["workers"]))
    config = Config(
        database=database,
        jobs=jobs,
        listen=_listen(given.of("listen")),
        endpoint=_endpoint(given.of("endpoint"), given.headers[DEFAULT_ENDPOINT].given),
        named_endpoints={
            name: _named_endpoint(name, given)
            for name in sorted(given.headers)
            if name != DEFAULT_ENDPOINT
        },
        history=read(HistoryConfig, given.of("history")),
        audit=read(AuditConfig, given.of("audit")),
        metrics=read(MetricsConfig, given.of("metrics")),
        alerts=_target(given.of(ALERTS)),
        named_targets={name: _named_target(name, given) for name in sorted(given.targets)},
        log=read(LogConfig, given.of("log")),
        notes=tuple(notes),
        links=tuple(given.links),
    )
    _check_targets(config, given)
    return config


def _jobs(values: Values) -> JobsConfig:
    """
    Read ``[jobs]``.

    :raises ConfigError: for a retryMaxInterval that is shorter than retryInterval.
    """
    jobs = read(JobsConfig, values)
    interval, longest = jobs.retry.interval, jobs.retry.max_interval
    if longest >= interval:
        return jobs
    if "retryInterval" in values and "retryMaxInterval" in values:
        raise values["retryMaxInterval"].refuse(
            "it takes a duration no shorter than retryInterval, which is "
            f"{interval.total_seconds():g} s"
        )
    # Where only one of the two keys is given, the default of the other gives way.
    given = interval if "retryInterval" in values else longest
    return replace(jobs, retry=replace(jobs.retry, interval=given, max_interval=given))


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


def _listen(values: Values) -> ListenConfig:
    """Read ``[listen]``."""
    listen = read(ListenConfig, values)
    if listen.endpoints and not {"host", "port"} & {*values}:
        return replace(listen, host="")
    return listen


def _mysql(values: Values) -> MySQLConfig:
    """
    Read ``[mysql]``.

    :raises ConfigError: for keys that do not go together.
    """
    mysql = read(MySQLConfig, values)
    if mysql.ssl_ca and "ssl-mode" not in values:
        # A person who gives a CA expects that servers are checked against it, and verify-ca would
        # take any certificate that the CA has signed.
        mysql = replace(mysql, ssl_mode="verify-identity")
    if mysql.socket:
        _check_with_socket(mysql, values)
    else:
        _check_tls(mysql, values)
    return mysql


def _check_with_socket(mysql: MySQLConfig, values: Values) -> None:
    """:raises ConfigError: for a key that is of no use with a socket."""
    for key in ("host", "port"):
        if key in values:
            raise values["socket"].refuse(
                f"{values[key].where} says where the server is as well, leave one of them out"
            )
    # Also with an ssl-mode that does without TLS: a person who gives a CA or a key expects that it
    # is used.
    of_tls = [
        key for key in ("ssl-ca", "ssl-cert", "ssl-key") if key in values and values[key].text
    ]
    if "ssl-mode" in values and mysql.ssl_mode not in ("disabled", "preferred"):
        of_tls.insert(0, "ssl-mode")
    if of_tls:
        raise values["socket"].refuse(
            f"there is no TLS over a socket, leave {' and '.join(of_tls)} out, or give the "
            "server's host in its place"
        )


def _check_tls(mysql: MySQLConfig, values: Values) -> None:
    """:raises ConfigError: for keys of TLS that do not go together."""
    verifies = mysql.ssl_mode in ("verify-ca", "verify-identity")
    if verifies and not mysql.ssl_ca:
        raise values["ssl-mode"].refuse("it needs ssl-ca, the file with the CA's certificate")
    if mysql.ssl_ca and not verifies:
        raise values["ssl-ca"].refuse(
            f"nothing is checked against it with ssl-mode {mysql.ssl_mode}, but with verify-ca or "
            "verify-identity"
        )
    if mysql.ssl_key and not mysql.ssl_cert:
        raise values["ssl-key"].refuse("it needs ssl-cert, the file with its certificate")
    if mysql.ssl_cert and mysql.ssl_mode in ("disabled", "preferred"):
        raise values["ssl-cert"].refuse(
            f"it is not sent with ssl-mode {mysql.ssl_mode}, but with required, verify-ca or "
            "verify-identity"
        )


def _named_endpoint(name: str, given: Given) -> EndpointConfig:
    """
    Read the section of an endpoint that has a name.

    :raises ConfigError: for one without a baseurl, and as `_endpoint`.
    """
    section, headers = section_of(name), given.headers[name].given
    values = given.of(section)
    if "baseurl" not in values:
        first = next(iter((*values.values(), *headers.values())), None)
        where = given.origins[section] if first is None else first.where
        raise ConfigError(
            f"{where}: the endpoint {name} has no baseurl, give it one, such as "
            f"baseurl = https://example.org/in/ or {variable(section, 'baseurl')}"
        )
    return _endpoint(values, headers)


def _endpoint(values: Values, headers: Values) -> EndpointConfig:
    """
    Read the section of an endpoint.

    :param headers: the values of its headers, by the headers' names in lower case.
    :raises ConfigError: for keys that do not go together.
    """
    sent = tuple((value.key, header(value)) for value in headers.values())
    endpoint = replace(read(EndpointConfig, values), headers=sent)
    baseurl, authorization = _apart(endpoint.baseurl)
    if authorization:
        if "authorization" in headers:
            raise headers["authorization"].refuse(
                f"{values['baseurl'].where} has a user name and a password in it, leave one of "
                "the two out"
            )
        endpoint = replace(
            endpoint, baseurl=baseurl, headers=(*sent, ("Authorization", authorization))
        )
    _check_ways(endpoint, values)
    if endpoint.auth is not Auth.NONE or {"authUser", "authSecret"} & {*values}:
        _check_auth(endpoint, values, headers)
        endpoint = replace(endpoint, headers=(*endpoint.headers, *_authorization(endpoint)))
    proxy, proxy_authorization = _apart(endpoint.proxy)
    return replace(endpoint, proxy=proxy, proxy_authorization=proxy_authorization)


def _check_ways(endpoint: EndpointConfig, values: Values) -> None:
    """:raises ConfigError: for keys on the way to an endpoint that do not go together."""
    url = urlsplit(endpoint.baseurl)
    if url.scheme != "https":
        for key, why in _OF_TLS.items():
            if key in values and values[key].text:
                raise values[key].refuse(
                    f"{why} with a baseurl that starts with http://, but with https://"
                )
    if endpoint.cert_key and not endpoint.cert:
        raise values["key"].refuse("it needs cert, the file with its certificate")
    if endpoint.cert and not endpoint.cert_key:
        raise values["cert"].refuse(
            "it needs key, the file with its private key, which may be the same file"
        )
    if endpoint.deny is not Deny.PRIVATE:
        return
    if endpoint.proxy:
        raise values["deny"].refuse(
            "with a proxy, the proxy looks up the host, and Dalga sees no address; leave deny or "
            "proxy out"
        )
    if not _may_be_global(url.hostname or ""):
        where = values["baseurl"].where if "baseurl" in values else "the default baseurl"
        raise values["deny"].refuse(
            f"the host of {where} is such an address, so no POST would be sent; leave deny out, or "
            "give another host"
        )


#: What goes with https alone, and why.
_OF_TLS = {
    "ca": "nothing is checked against it",
    "cert": "it is not shown",
    "key": "it is not used",
    "verifyName": "nothing is checked against it",
}


def _may_be_global(host: str) -> bool:
    """Whether the host of a URL is a name that may have a global address, or such an address."""
    try:
        return ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return not is_loopback_name(host)


def _check_auth(endpoint: EndpointConfig, values: Values, headers: Values) -> None:
    """:raises ConfigError: for an `auth` without what it needs, or with what contradicts it."""
    for key in ("authSecret", "authUser"):
        if key in values and values[key].text and endpoint.auth is Auth.NONE:
            raise values[key].refuse("it needs auth, which is bearer or basic")
    if endpoint.auth is Auth.NONE:
        return
    auth = values["auth"]
    if not endpoint.auth_secret:
        raise auth.refuse("it needs authSecret, the token or the password")
    if endpoint.auth is Auth.BEARER and not outgoing.bearer(endpoint.auth_secret):
        raise values["authSecret"].refuse(
            "a bearer token has ASCII letters, digits and . _ ~ + / -, and = at its end"
        )
    if endpoint.auth is Auth.BEARER and endpoint.auth_user:
        raise values["authUser"].refuse("a bearer token has no user, leave it out, or give basic")
    if endpoint.auth is Auth.BASIC and not endpoint.auth_user:
        raise auth.refuse("it needs authUser, the name of the user")
    if ":" in endpoint.auth_user:
        raise values["authUser"].refuse("a user name with a colon can't be sent, choose another")
    if "authorization" in headers:
        raise auth.refuse(
            f"{headers['authorization'].where} says the same, leave one of the two out"
        )
    if endpoint.headers and endpoint.headers[-1][0] == "Authorization":
        raise auth.refuse(
            f"{values['baseurl'].where} has a user name and a password in it, leave one of the two "
            "out"
        )


def _authorization(endpoint: EndpointConfig) -> Iterator[tuple[str, str]]:
    """The header that `auth` adds."""
    if endpoint.auth is Auth.BEARER:
        yield "Authorization", f"Bearer {endpoint.auth_secret}"
    elif endpoint.auth is Auth.BASIC:
        pair = f"{endpoint.auth_user}:{endpoint.auth_secret}"
        yield "Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"


def _named_target(name: str, given: Given) -> AlertsConfig:
    """
    Read the section of a target of alerts that has a name.

    :raises ConfigError: for one without a url, or with a key of ``[alerts]`` alone.
    """
    section = target_section(name)
    values = given.of(section)
    if "heartbeatUrl" in values:
        raise values["heartbeatUrl"].refuse(f"it stands in [{ALERTS}] alone, move it there")
    target = _target(values)
    if not target.url:
        first = next(iter(values.values()), None)
        where = given.origins[section] if first is None else first.where
        raise ConfigError(
            f"{where}: the target {name} has no url, give it one, such as "
            f"url = https://example.org/hooks/1 or {variable(section, 'url')}"
        )
    return target


def _target(values: Values) -> AlertsConfig:
    """Read the section of a target of alerts."""
    target = read(AlertsConfig, values)
    url, authorization = _apart(target.url)
    heartbeat_url, heartbeat_authorization = _apart(target.heartbeat_url)
    return replace(
        target,
        url=url,
        authorization=authorization,
        heartbeat_url=heartbeat_url,
        heartbeat_authorization=heartbeat_authorization,
    )


def _check_targets(config: Config, given: Given) -> None:
    """:raises ConfigError: if an endpoint names a target that is not there."""
    for name, endpoint in config.endpoints.items():
        if endpoint.alerts and endpoint.alerts not in (NO_TARGET, *config.targets):
            section = target_section(endpoint.alerts)
            raise given.of(section_of(name))["alerts"].refuse(
                f"there is no target of this name, add url = ... to [{section}], or name another "
                f"one ({', '.join((*config.targets, NO_TARGET))})"
            )


def _apart(url: str) -> tuple[str, str]:
    """
    An URL without a user and a password, and the value of the header Authorization that says the
    same; "" if the URL has none.
    """
    credentials, at, _ = urlsplit(url).netloc.rpartition("@")
    return (url.replace(f"{credentials}@", "", 1), _basic(credentials)) if at else (url, "")


def _basic(credentials: str) -> str:
    """
    The value of a header for Basic authentication (RFC 7617), as Go's net/http makes it of a URL.

    :param credentials: the user and the password of a URL, percent-encoded. The password and the
        colon before it may be missing.
    """
    pair = credentials if ":" in credentials else f"{credentials}:"
    return f"Basic {base64.b64encode(unquote_to_bytes(pair)).decode()}"
