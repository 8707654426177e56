"""
The files that a configuration names, looked at without a start: what ``--check-config`` adds to the
mistakes of the configuration itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from dalga.config.sections import Config, MySQLConfig
from dalga.errors import StartupError
from dalga.settings import trust_of
from dalga.store.mysqltls import tls


def unusable_files(config: Config) -> Iterator[str]:
    """
    A sentence for each place that names a file with certificates or keys that can't be used. Opens
    no database and no port.
    """
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
