"""
The files that a configuration names, and its listening endpoints, looked at without a start: what
``--check-config`` adds to the mistakes of the configuration itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from dalga.config.incoming import parts_of
from dalga.config.sections import Config, MySQLConfig
from dalga.endpointstrings import OF_STRINGS, asked
from dalga.errors import StartupError
from dalga.settings import trust_of
from dalga.store.mysqltls import tls


def unusable_files(config: Config) -> Iterator[str]:
    """
    A sentence for each place that names a file with certificates or keys that can't be used, and
    for each listening endpoint that Twisted does not take. Opens no database and no port.
    """
    for text in config.listen.endpoints:
        # systemd hands its sockets to the daemon alone.
        if "systemd" not in parts_of(text.lower()):
            try:
                asked(text, OF_STRINGS)
            except StartupError as error:
                yield str(error)
    database = config.database
    if isinstance(database, MySQLConfig):
        try:
            tls(database.ssl_mode, database.ssl_ca, database.ssl_cert, database.ssl_key)
        except StartupError as error:
            yield str(error)
    for name, endpoint in config.endpoints.items():
        if endpoint.ca or endpoint.cert:
            try:
                trust_of(name, endpoint)
            except StartupError as error:
                yield str(error)
