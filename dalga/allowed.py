"""
What the configuration allows jobs: which endpoints, how long a request, how long a payload, which
targets of alerts. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from dalga.errors import InvalidRequest, shown
from dalga.model.address import DEFAULT_ENDPOINT, NO_TARGET
from dalga.model.delivery import MAX_PAYLOAD, Payload
from dalga.model.job import Job
from dalga.model.plan import RawRequest

#: The parameters that `Allowed.check` is about. Others can be changed in any configuration.
_CONFIGURED = frozenset(
    {"endpoint", "timeout", "payload", "payload_base64", "alert_url", "headers"}
)


@dataclass(frozen=True, slots=True)
class EndpointShown:
    """An endpoint of the configuration, without its secrets."""

    name: str
    #: Without a user and a password.
    baseurl: str
    #: The time limit of a POST, in seconds.
    timeout: float
    #: The path of the file with the CAs that are trusted; "" for the system's CAs.
    ca: str
    #: The names of the headers that each POST has from the configuration.
    headers: tuple[str, ...]
    #: The statuses by which a run is done, a job is removed, and a run is given up.
    success: str
    gone: str
    give_up: str
    #: Whether each POST is signed.
    signed: bool = False
    #: The scheme of the header Authorization that no job can replace: ``bearer``, ``basic`` or
    #: ``none``.
    auth: str = "none"
    #: The path of the file with Dalga's own certificate; "" for none.
    cert: str = ""
    #: The name that the endpoint's certificate has to be for; "" for the host of `baseurl`.
    verify_name: str = ""
    #: Which addresses are not connected to: ``private`` or ``none``.
    deny: str = "none"
    #: The URL of the proxy on the way, without a user and a password; "" for none.
    proxy: str = ""


@dataclass(frozen=True)
class Allowed:
    """What the configuration of this instance allows jobs."""

    #: The endpoints of the configuration, the default one first.
    endpoints: tuple[EndpointShown, ...] = ()
    #: How long a job's payload may be, in octets.
    max_payload: int = MAX_PAYLOAD
    #: The names of the targets of alerts.
    targets: tuple[str, ...] = ()

    @cached_property
    def _timeouts(self) -> Mapping[str, float]:
        """By the endpoints' names, how long (seconds) a request may take."""
        return {DEFAULT_ENDPOINT: math.inf} | {each.name: each.timeout for each in self.endpoints}

    @cached_property
    def _with_auth(self) -> Collection[str]:
        """The names of the endpoints that have a header Authorization which stays."""
        return {each.name for each in self.endpoints if each.auth != "none"}

    @property
    def names(self) -> Collection[str]:
        """The names of the endpoints."""
        return self._timeouts.keys()

    def problem(self, job: Job) -> str | None:
        """Why this instance can't run a job that another instance may run; None if it can."""
        if job.options.endpoint in self._timeouts:
            return None
        return f"its endpoint {job.options.endpoint!r} is not in the configuration of this instance"

    def check(self, request: RawRequest) -> None:
        """
        :raises InvalidRequest: for an endpoint or a target of alerts that the configuration has
            not, and for more than the configuration allows.
        """
        name = DEFAULT_ENDPOINT if request.endpoint is None else request.endpoint
        if name not in self._timeouts:
            known = ", ".join(self._timeouts)
            raise InvalidRequest(
                f"endpoint is {shown(name)}, which is not in the configuration of this instance: "
                f"it takes {known}",
                "/endpoint",
            )
        target = request.alert_url
        if target is not None and target not in (NO_TARGET, *self.targets):
            raise InvalidRequest(
                f"alert-url is {shown(target)}, which is no target of alerts in the "
                "configuration of this instance: it takes "
                f"{', '.join((*self.targets, NO_TARGET))}",
                "/alert_url",
            )
        most, timeout = self._timeouts[name], request.timeout
        if timeout is not None and timeout.total_seconds() > most:
            raise InvalidRequest(
                f"timeout is {timeout.total_seconds():g} s, longer than that of the endpoint "
                f"{name!r} in the configuration: it takes {most:g} s at most",
                "/timeout",
            )
        for header, _ in request.headers or ():
            if name in self._with_auth and header.lower() == "authorization":
                raise InvalidRequest(
                    f"headers has {header}, which the endpoint {name!r} has by its auth in the "
                    "configuration: leave it out",
                    f"/headers/{header}",
                )
        for parameter in ("payload", "payload_base64"):
            payload: Payload | None = getattr(request, parameter)
            if payload is not None and len(payload.octets) > self.max_payload:
                raise InvalidRequest(
                    f"{parameter.replace('_', '-')} has {len(payload.octets)} octets: it takes "
                    f"{self.max_payload} at most (maxPayload in [jobs])",
                    f"/{parameter}",
                )

    def check_change(self, request: RawRequest, given: Iterable[str]) -> None:
        """
        `check` what a change makes of a job, if the change is of a parameter that is checked.

        :param given: the names of the parameters that are changed.
        :raises InvalidRequest: as `check` does.
        """
        if not _CONFIGURED.isdisjoint(given):
            self.check(request)


#: Without a configuration: the default endpoint alone, any time limit, and payloads of up to
#: `MAX_PAYLOAD` octets.
ALLOWED_BY_DEFAULT = Allowed()
