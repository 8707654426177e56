"""
The rules across several keys. Each gives the mistakes that it finds, in sentences that say what
would do.

A rule is asked only where the keys that it is about have no mistakes of their own: see
`dalga.config.mistakes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from dalga.config import incoming, outgoing
from dalga.config.outgoing import Auth, Deny
from dalga.config.sections import (
    EndpointConfig,
    JobsConfig,
    ListenConfig,
    MetricsConfig,
    MySQLConfig,
)
from dalga.config.values import Value
from dalga.errors import ConfigError
from dalga.model.address import is_loopback, is_loopback_name
from dalga.model.reach import is_public

#: A section's values by the names of their keys.
Values = Mapping[str, Value]

#: Mistakes, as they are found.
Found = Iterator[ConfigError]


def of_jobs(jobs: JobsConfig, values: Values) -> Found:
    """The longest wait is no shorter than the first, where both are given."""
    if (
        jobs.retry.max_interval < jobs.retry.interval
        and "retryInterval" in values
        and "retryMaxInterval" in values
    ):
        yield values["retryMaxInterval"].refuse(
            "it takes a duration no shorter than retryInterval, which is "
            f"{jobs.retry.interval.total_seconds():g} s"
        )


def of_mysql(mysql: MySQLConfig, values: Values) -> Found:
    """What is given for the way to the server is of use on that way."""
    yield from _of_socket(mysql, values) if mysql.socket else _of_tls(mysql, values)


def _of_socket(mysql: MySQLConfig, values: Values) -> Found:
    for key in ("host", "port"):
        if key in values:
            yield values["socket"].refuse(
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
        yield values["socket"].refuse(
            f"there is no TLS over a socket, leave {' and '.join(of_tls)} out, or give the "
            "server's host in its place"
        )


def _of_tls(mysql: MySQLConfig, values: Values) -> Found:
    verifies = mysql.ssl_mode in ("verify-ca", "verify-identity")
    if verifies and not mysql.ssl_ca:
        yield values["ssl-mode"].refuse("it needs ssl-ca, the file with the CA's certificate")
    if mysql.ssl_ca and not verifies:
        yield values["ssl-ca"].refuse(
            f"nothing is checked against it with ssl-mode {mysql.ssl_mode}, but with verify-ca or "
            "verify-identity"
        )
    if mysql.ssl_key and not mysql.ssl_cert:
        yield values["ssl-key"].refuse("it needs ssl-cert, the file with its certificate")
    if mysql.ssl_cert and mysql.ssl_mode in ("disabled", "preferred"):
        yield values["ssl-cert"].refuse(
            f"it is not sent with ssl-mode {mysql.ssl_mode}, but with required, verify-ca or "
            "verify-identity"
        )


def of_listen(listen: ListenConfig, values: Values, has_tokens: bool) -> Found:
    """
    Nobody but this machine gets in without a token, unless that is wanted. What addresses a name or
    a socket of systemd's has is known when it is listened there.
    """
    for key in () if has_tokens else open_by(listen):
        yield values[key].refuse(
            "anybody who can reach that address could do anything, as there are no tokens. Make "
            "one with dalga token new and put its line into [tokens], or listen on 127.0.0.1, or "
            "say allowUnauthenticated = yes in [listen]"
        )


def open_by(listen: ListenConfig) -> Iterator[str]:
    """The keys that would make the interface open to others than this machine without tokens."""
    if listen.allow_unauthenticated:
        return
    if listen.host and _is_open(listen.host):
        yield "host"
    if any(_is_open(host) for host in map(incoming.interface_of, listen.endpoints) if host):
        yield "endpoint"


def of_metrics(metrics: MetricsConfig, values: Values, listen: ListenConfig) -> Found:
    """The metrics of their own are at an address of their own."""
    if metrics.listen == (listen.host, listen.port) and listen.port:
        yield values["listen"].refuse(
            "the HTTP interface is there already, with /metrics; give another port, or leave it out"
        )


def _is_open(host: str) -> bool:
    """Whether a host is an address that other machines can reach."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return not is_loopback(host)


def of_endpoint(endpoint: EndpointConfig, values: Values, headers: Values) -> Found:
    """
    What is given for the way to an endpoint is of use on that way, and nothing is said twice.

    :param endpoint: as it was read, with the user and the password in its URLs.
    :param headers: the values of its headers, by the headers' names in lower case.
    """
    url = urlsplit(endpoint.baseurl)
    if "@" in url.netloc and "authorization" in headers:
        yield headers["authorization"].refuse(
            f"{values['baseurl'].where} has a user name and a password in it, leave one of the two "
            "out"
        )
    if url.scheme != "https":
        for key, why in _OF_HTTPS.items():
            if key in values and values[key].text:
                yield values[key].refuse(
                    f"{why} with a baseurl that starts with http://, but with https://"
                )
    if endpoint.cert_key and not endpoint.cert:
        yield values["key"].refuse("it needs cert, the file with its certificate")
    if endpoint.cert and not endpoint.cert_key:
        yield values["cert"].refuse(
            "it needs key, the file with its private key, which may be the same file"
        )
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        if endpoint.secrets and name in headers:
            yield headers[name].refuse(
                f"Dalga sets this header by itself, as {values['secrets'].where} signs; leave one "
                "of the two out"
            )
    yield from _of_auth(endpoint, values, headers)
    if endpoint.deny is Deny.PRIVATE:
        yield from _of_deny(endpoint, values)


#: What goes with https alone, and why.
_OF_HTTPS = {
    "ca": "nothing is checked against it",
    "cert": "it is not shown",
    "key": "it is not used",
    "verifyName": "nothing is checked against it",
}


def _of_auth(endpoint: EndpointConfig, values: Values, headers: Values) -> Found:
    if endpoint.auth is Auth.NONE:
        for key in ("authUser", "authSecret"):
            if key in values and values[key].text:
                yield values[key].refuse("it needs auth, which is bearer or basic")
        return
    if not endpoint.auth_secret:
        yield values["auth"].refuse("it needs authSecret, the token or the password")
    elif endpoint.auth is Auth.BEARER and not outgoing.is_bearer(endpoint.auth_secret):
        yield values["authSecret"].refuse(
            "a bearer token has ASCII letters, digits and . _ ~ + / -, and = at its end"
        )
    if endpoint.auth is Auth.BEARER and endpoint.auth_user:
        yield values["authUser"].refuse("a bearer token has no user, leave it out, or give basic")
    if endpoint.auth is Auth.BASIC and not endpoint.auth_user:
        yield values["auth"].refuse("it needs authUser, the name of the user")
    if endpoint.auth is Auth.BASIC and ":" in endpoint.auth_user:
        yield values["authUser"].refuse("a user name with a colon can't be sent, choose another")
    if "authorization" in headers:
        yield values["auth"].refuse(
            f"{headers['authorization'].where} says the same, leave one of the two out"
        )
    if "@" in urlsplit(endpoint.baseurl).netloc:
        yield values["auth"].refuse(
            f"{values['baseurl'].where} has a user name and a password in it, leave one of the two "
            "out"
        )


def _of_deny(endpoint: EndpointConfig, values: Values) -> Found:
    if endpoint.proxy:
        yield values["deny"].refuse(
            "with a proxy, the proxy looks up the host, and Dalga sees no address; leave deny or "
            "proxy out"
        )
    host = urlsplit(endpoint.baseurl).hostname or ""
    try:
        reached = is_public(host)
    except ValueError:
        reached = not is_loopback_name(host)
    if not reached:
        where = values["baseurl"].where if "baseurl" in values else "the default baseurl"
        yield values["deny"].refuse(
            f"the host of {where} is such an address, so no POST would be sent; leave deny out, or "
            "give another host"
        )
