"""
The endpoints of the configuration by their names, as one: each run is POSTed to its job's.

A reload exchanges endpoints. An endpoint that is replaced or removed is *retired*: it gets no
further run, and the POSTs that are under way go on to their end, by its URL, headers and
certificates.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from dalga.log import logger
from dalga.model.run import Outcome, Run
from dalga.outgoing.endpoint import Endpoint

log = logger(__name__)


class Endpoints:
    """:param endpoints: all of them, by their names."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints
        #: As many as have POSTs under way, and those that were retired last (P10).
        self._retired: list[Endpoint] = []

    def __getitem__(self, name: str) -> Endpoint:
        """
        The endpoint of a name.

        :raises KeyError: if there is none.
        """
        return self._endpoints[name]

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

    def exchange(self, endpoints: Mapping[str, Endpoint]) -> None:
        """
        POST to these endpoints from now on, and retire the others.

        :param endpoints: all of them, by their names. Some may be those that are there.
        """
        stay = set(endpoints.values())
        retiring = [endpoint for endpoint in self._endpoints.values() if endpoint not in stay]
        self._endpoints = endpoints
        self._retired = [endpoint for endpoint in self._retired if endpoint.busy] + retiring
        for endpoint in retiring:
            endpoint.retire().addErrback(
                lambda failure: log.failure("a connection did not close", failure)
            )

    def stop_resolving(self) -> None:
        """See `Endpoint.stop_resolving`."""
        for endpoint in (*self._endpoints.values(), *self._retired):
            endpoint.stop_resolving()

    def close(self) -> Deferred[None]:
        """See `Endpoint.close`. The endpoints are closed at the same time."""
        all_of_them = (*self._endpoints.values(), *self._retired)
        closed: Deferred[Any] = DeferredList(
            [endpoint.close() for endpoint in all_of_them], fireOnOneErrback=True
        )
        return closed.addCallback(lambda _: None)
