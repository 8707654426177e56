"""
The configuration as text, each value with its origin and without the secrets::

    [mysql]
    host = db.example.org ; dalga.ini: [mysql] host
    password = (hidden) ; DALGA_MYSQL_PASSWORD_FILE
    port = 3306 ; default

What this writes is an ini file, which says the same again once the secrets are put in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dalga.config.endpoints import section_of
from dalga.config.headers import HEADERS
from dalga.config.keys import values_of
from dalga.config.outgoing import Auth
from dalga.config.sections import Config, EndpointConfig, ListenConfig, MySQLConfig
from dalga.config.targets import ALERTS, target_section
from dalga.config.tokens import TOKENS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: Stands for a secret.
HIDDEN = "(hidden)"

#: The origin of a value that was not given.
DEFAULT = "default"


def lines_of(config: Config) -> Iterator[str]:
    """The lines of a configuration that `dalga.config.load` has made."""
    yield from _section("jobs", config.jobs, config)
    database = "mysql" if isinstance(config.database, MySQLConfig) else "sqlite"
    yield from _section(database, config.database, config)
    yield from _section("listen", config.listen, config)
    yield from _tokens(config)
    for name, endpoint in config.endpoints.items():
        section = section_of(name)
        yield from _section(section, endpoint, config)
        yield from _headers(f"{section} {HEADERS[1]}", endpoint, config)
    yield from _section(ALERTS, config.alerts, config)
    for name, target in config.named_targets.items():
        yield from _section(target_section(name), target, config)
    for name in ("history", "audit", "metrics", "log"):
        yield from _section(name, getattr(config, name), config)


def _section(name: str, section: DataclassInstance, config: Config) -> Iterator[str]:
    yield f"[{name}]"
    users, left_out = _users(section), _left_out(name, section)
    for key, value in values_of(section):
        if key.name in left_out:
            continue
        text = key.write(value)
        if key.secret and text:
            text = HIDDEN
        elif users.get(key.name):
            text = text.replace("://", f"://{HIDDEN}@", 1)
        yield _line(key.name, text, config.origins.get((name, key.name), DEFAULT))


def _users(section: DataclassInstance) -> dict[str, bool]:
    """Which keys of a section had a user in their URL, which the section keeps elsewhere."""
    if not isinstance(section, EndpointConfig):
        return {}
    return {"proxy": bool(section.proxy_authorization)}


def _left_out(name: str, section: DataclassInstance) -> tuple[str, ...]:
    """The keys of a section that have no meaning beside the others."""
    if isinstance(section, MySQLConfig) and section.socket:
        return ("host", "port")
    if isinstance(section, ListenConfig) and not section.host:
        return ("host", "port")
    return ("heartbeatUrl",) if name.startswith(f"{ALERTS} ") else ()


def _headers(name: str, endpoint: EndpointConfig, config: Config) -> Iterator[str]:
    """The headers of an endpoint; that of `auth` stands there."""
    given = endpoint.headers if endpoint.auth is Auth.NONE else endpoint.headers[:-1]
    if given:
        yield f"[{name}]"
    for header, _ in given:
        of_baseurl = config.origins.get((name.removesuffix(f" {HEADERS[1]}"), "baseurl"), DEFAULT)
        yield _line(header, HIDDEN, config.origins.get((name, header.lower()), of_baseurl))


def _tokens(config: Config) -> Iterator[str]:
    if config.tokens:
        yield f"[{TOKENS}]"
    for token in config.tokens:
        grants = " ".join(map(str, token.grants))
        yield _line(token.name, f"{grants} sha256:{HIDDEN}", config.origins[TOKENS, token.name])


def _line(key: str, text: str, origin: str) -> str:
    if not text or text != text.strip() or text[0] in '";#' or re.search(r"\s[;#]", text):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{key} = {text} ; {origin}"
