"""
What a job's requests to its endpoint are made of, and what is noted about a job. Pure.

A `Delivery` is what a claim needs to make a request; `Notes` are what only answers of the API show.
Most jobs have neither, and are ``PLAIN`` and have ``NO_NOTES``: their body is POSTed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from dalga.model.retry import RetryPolicy


class Method(StrEnum):
    """The methods of the requests that a job may make."""

    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"
    GET = "GET"
    HEAD = "HEAD"


class PayloadKind(StrEnum):
    """How a payload was given, and is shown."""

    #: A string.
    TEXT = "text"
    #: Another JSON value.
    JSON = "json"
    #: Octets, in base64.
    BASE64 = "base64"


class Payload(NamedTuple):
    """What is sent in the place of a job's body."""

    #: As they are sent. Those of JSON are the text of the value as it was given, without the spaces
    #: between its parts.
    octets: bytes
    kind: PayloadKind = PayloadKind.TEXT


def has_content(method: Method, payload: Payload | None) -> bool:
    """
    Whether a job's request has content. GET and HEAD have none: it would mean nothing (RFC 9110
    section 9.3.1). A DELETE has none but a payload. All others have the payload, or else the job's
    body.
    """
    if method is Method.DELETE:
        return payload is not None
    return method not in (Method.GET, Method.HEAD)


#: The longest payload by default, and the longest that the configuration may allow, in octets.
MAX_PAYLOAD = 64 * 1024
MOST_PAYLOAD = 1024 * 1024

#: The least and the greatest of the parts of a `Retry`. The configuration's keys have the same
#: bounds.
DELAYS = timedelta(milliseconds=1), timedelta(days=365)
MULTIPLIERS = 1, 100
JITTERS = 0, 1


class Retry(NamedTuple):
    """When a job's failed runs are tried again; None for what the configuration says."""

    interval: timedelta | None = None
    multiplier: float | None = None
    max_interval: timedelta | None = None
    jitter: float | None = None
    #: 0 for never.
    stop_after: timedelta | None = None
    #: After this many attempts a run is given up, 1 or more.
    max_attempts: int | None = None

    def over(self, policy: RetryPolicy) -> RetryPolicy:
        """
        The policy of this job's runs.

        A job may have an `interval` longer than the configuration's `max_interval`, and no
        `max_interval` of its own. Then all delays of the job are as long as its `interval`.

        :param policy: that of the configuration.
        """
        given: dict[str, Any] = self._asdict()
        chosen = {name: part for name, part in given.items() if part is not None}
        if self.max_interval is None and self.interval is not None:
            chosen["max_interval"] = max(self.interval, policy.max_interval)
        if self.stop_after == timedelta():
            chosen["stop_after"] = None
        return replace(policy, **chosen)


#: The retry of a job that leaves all parts to the configuration.
AS_CONFIGURED = Retry()


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a job's requests to its endpoint are made of, beside the job's path and body."""

    #: None for the job's body.
    payload: Payload | None = None
    #: The Content-Type of a request that has content; None for that of the payload or the endpoint.
    content_type: str | None = None
    #: Names and values, each name once in whatever case. They replace the endpoint's.
    headers: tuple[tuple[str, str], ...] = ()
    method: Method = Method.POST
    retry: Retry = AS_CONFIGURED
    #: What no answer of the API shows, and no record keeps: ``payload``, and names of headers in
    #: lower case. It names what the job has, and of the endpoint's answer what echoes that.
    redact: tuple[str, ...] = ()
    #: The id of the run that the job's run repeats; None for a job that is no replay.
    replay_of: str | None = None

    @property
    def is_detailed(self) -> bool:
        """Whether a request can't be made anew of the job's path and body alone."""
        return not (
            self.payload is None
            and self.content_type is None
            and self.headers == ()
            and self.method is Method.POST
        )

    def in_brief(self) -> Delivery:
        """What a record needs of it, however large it is: `is_detailed` and `replay_of`."""
        payload = Payload(b"") if self.is_detailed else None
        return Delivery(payload=payload, replay_of=self.replay_of)


#: What `Delivery.redact` has for the payload.
PAYLOAD = "payload"

#: The delivery of most jobs: the body is POSTed with the endpoint's headers.
PLAIN = Delivery()


class Disabling(NamedTuple):
    """Since when a job is disabled (aware, UTC), and why and by whom, if the user said so."""

    since: datetime
    reason: str | None = None
    #: The name of the token.
    by: str | None = None

    def after(self, earlier: Disabling | None) -> Disabling:
        """What is noted of a job that had been disabled before, and was not enabled since."""
        if earlier is None:
            return self
        if self.reason is None:
            return earlier
        return Disabling(earlier.since, self.reason, self.by)


@dataclass(frozen=True, slots=True)
class Notes:
    """What is noted about a job, and changes none of its runs."""

    #: In the order in which they were given, each once.
    tags: tuple[str, ...] = ()
    description: str | None = None
    disabled: Disabling | None = None


#: The notes of most jobs: none.
NO_NOTES = Notes()
