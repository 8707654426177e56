"""
The HTTP interface: Klein routes over `dalga.operations`.

``parameters`` reads what was asked for and ``presentation`` writes what is answered, both pure;
``errors`` is the one table from what went wrong to an HTTP status; ``api`` has the routes;
``request`` stands between twisted.web and Klein.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Site

from dalga.operations import Jobs
from dalga.web.api import Api
from dalga.web.request import ARRIVAL_TIMEOUT, IDLE_TIMEOUT, MAX_CONNECTIONS, ApiSite

__all__ = ["MAX_CONNECTIONS", "make_site"]


def make_site(
    jobs: Jobs,
    reactor: IReactorTime,
    idle_timeout: float = IDLE_TIMEOUT,
    arrival_timeout: float = ARRIVAL_TIMEOUT,
    max_connections: int = MAX_CONNECTIONS,
) -> Site:
    """
    :param reactor: for the time-outs of connections.
    :param idle_timeout: how long a client that sends nothing keeps its connection, in seconds.
    :param arrival_timeout: how long a request may take to arrive, in seconds.
    :param max_connections: how many there may be at once.
    :return: the factory to listen with.
    """
    return ApiSite(
        Api(jobs).app.resource(), reactor, idle_timeout, arrival_timeout, max_connections
    )
