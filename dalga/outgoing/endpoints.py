"""
The endpoints of the configuration by their names, as one: each run is POSTed to its job's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from dalga.model.run import Outcome, Run
from dalga.outgoing.endpoint import Endpoint


class Endpoints:
    """:param endpoints: all of them, by their names."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints

    def post(self, run: Run) -> Deferred[Outcome]:
        """
        See `Endpoint.post`.

        :raises KeyError: if there is no endpoint of that name. `dalga.dispatch.elsewhere` keeps
            such runs away.
        """
        return self._endpoints[run.options.endpoint].post(run)

    def certificates(self) -> dict[str, datetime]:
        """See `Endpoint.certificate_expires`: by the names of the endpoints that have one."""
        expires = {name: each.certificate_expires for name, each in self._endpoints.items()}
        return {name: instant for name, instant in expires.items() if instant is not None}

    def stop_resolving(self) -> None:
        """See `Endpoint.stop_resolving`."""
        for endpoint in self._endpoints.values():
            endpoint.stop_resolving()

    def close(self) -> Deferred[None]:
        """See `Endpoint.close`. The endpoints are closed at the same time."""
        closed: Deferred[Any] = DeferredList(
            [endpoint.close() for endpoint in self._endpoints.values()], fireOnOneErrback=True
        )
        return closed.addCallback(lambda _: None)
