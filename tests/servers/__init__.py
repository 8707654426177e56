"""Real MariaDB and MySQL servers for tests and benchmarks: ``start_server(engine)``.

``fetch.py`` brings the engines, ``server.py`` runs them, ``guard.py`` sees that they end.
``cluster.py`` has several that belong together: ``Cluster()``, ``Replicated(engine)``.
"""

from tests.servers.cluster import Cluster, Replicated
from tests.servers.server import ENGINES, Server, ServerError, start_server

__all__ = ["ENGINES", "Cluster", "Replicated", "Server", "ServerError", "start_server"]
