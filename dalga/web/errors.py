"""
An error -> an HTTP answer, in one table. The answers are problem details (RFC 9457);
`dalga.web.presentation` writes their JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType

from werkzeug.exceptions import MethodNotAllowed, NotFound

from dalga.errors import (
    ActionNotFound,
    DalgaError,
    Forbidden,
    IdempotencyReused,
    InvalidRequest,
    JobDisabled,
    JobNotFound,
    JobOver,
    JobSetAside,
    PreconditionFailed,
    ReplayImpossible,
    RunNotFound,
    RunUnderWay,
    StoreUnavailable,
    Unauthorized,
)


class UnknownResource(DalgaError):
    """There is nothing at this URL, and there never was."""


class UnsupportedMediaType(DalgaError):
    """A request body in a format that is not read."""


class BodyTooLarge(DalgaError):
    """A request body that is larger than any that would be read."""


class NoRoom(DalgaError):
    """The bodies of requests take all the memory that they may. It will soon be free again."""


class MalformedRequest(DalgaError):
    """The octets that came are no HTTP, or no HTTP request that can be understood."""


class SlowRequest(DalgaError):
    """A request that took longer to arrive than it may."""


class TargetTooLong(DalgaError):
    """A request line that is longer than any that would be read."""


class HeadTooLarge(DalgaError):
    """Headers that are longer, or more, than would be read."""


class UnsupportedVersion(DalgaError):
    """A major version of HTTP that is not spoken."""


class UnknownCoding(DalgaError):
    """A transfer coding that is not read."""


class TooManyFailures(DalgaError):
    """Requests without a valid token have come faster than they are answered."""


class ForeignRequest(DalgaError):
    """A browser has sent this for a page elsewhere, or may have."""


class NotReady(DalgaError):
    """This instance is not ready for requests."""


#: `NotFound` and `MethodNotAllowed` are Klein's, for a request that no route matches.
STATUS: Mapping[type[Exception], HTTPStatus] = MappingProxyType(
    {
        InvalidRequest: HTTPStatus.BAD_REQUEST,
        Unauthorized: HTTPStatus.UNAUTHORIZED,
        Forbidden: HTTPStatus.FORBIDDEN,
        ForeignRequest: HTTPStatus.FORBIDDEN,
        TooManyFailures: HTTPStatus.TOO_MANY_REQUESTS,
        JobNotFound: HTTPStatus.NOT_FOUND,
        JobSetAside: HTTPStatus.CONFLICT,
        JobDisabled: HTTPStatus.CONFLICT,
        JobOver: HTTPStatus.CONFLICT,
        RunNotFound: HTTPStatus.NOT_FOUND,
        RunUnderWay: HTTPStatus.CONFLICT,
        ReplayImpossible: HTTPStatus.CONFLICT,
        ActionNotFound: HTTPStatus.NOT_FOUND,
        PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
        IdempotencyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
        UnknownResource: HTTPStatus.NOT_FOUND,
        NotFound: HTTPStatus.NOT_FOUND,
        MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
        BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        MalformedRequest: HTTPStatus.BAD_REQUEST,
        SlowRequest: HTTPStatus.REQUEST_TIMEOUT,
        TargetTooLong: HTTPStatus.REQUEST_URI_TOO_LONG,
        HeadTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        UnknownCoding: HTTPStatus.NOT_IMPLEMENTED,
        UnsupportedVersion: HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
        NoRoom: HTTPStatus.SERVICE_UNAVAILABLE,
        StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    }
)

#: RFC 9110's titles, where older Pythons have other ones.
_TITLES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large",
    HTTPStatus.REQUEST_URI_TOO_LONG: "URI Too Long",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Unprocessable Content",
}

#: How a client says who it is (RFC 6750 section 3).
_CHALLENGE, _BEARER = b"WWW-Authenticate", b'Bearer realm="dalga"'

#: The order in which `Allow` names them.
_METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE")

#: When to ask again after a 503 or a 429, in seconds.
RETRY_AFTER = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer that says what went wrong."""

    status: HTTPStatus
    detail: str
    #: Further headers of the answer, by name.
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    #: Of the mistakes in a JSON body: a JSON pointer (RFC 6901) and a sentence each.
    errors: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """The status in words (RFC 9110 section 15)."""
        return _TITLES.get(self.status, self.status.phrase)


def problem_of(error: BaseException) -> Problem | None:
    """:return: the answer to an error; None for an error that is a fault of Dalga."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            errors = error.errors if isinstance(error, InvalidRequest) else ()
            return Problem(STATUS[kind], _detail(error), _headers(error), errors)
    return None


def unexpected() -> Problem:
    """The answer to an error that is a fault of Dalga. Only the log says what it was."""
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "something went wrong inside Dalga; its log says what",
    )


def _detail(error: BaseException) -> str:
    if isinstance(error, NotFound):
        return (
            "there is nothing here: the page is at /, a job at /jobs/<path>/<body>, its next runs "
            "at /jobs/<path>/<body>/upcoming, why it is not running at /jobs/<path>/<body>/why, "
            "its past runs at /jobs/<path>/<body>/runs, all runs at /runs, the runs that a PUT "
            "would give at /preview, all jobs at /jobs, the endpoints at /endpoints, the instances "
            "at /instances, the counts at /status, statistics at /stats, the metrics at /metrics, "
            "checks for an orchestrator at /health and /ready, alerts at /alerts, actions on many "
            "jobs or runs at /actions, who has changed what at /audit; POST /jobs/<path> runs a "
            "body once"
        )
    if isinstance(error, MethodNotAllowed):
        return f"the method is not one that works here: it takes {_allowed(error)}"
    return str(error)


def _headers(error: BaseException) -> Mapping[bytes, bytes]:
    if isinstance(error, MethodNotAllowed):
        return {b"Allow": _allowed(error).encode("ascii")}
    if isinstance(error, Unauthorized):
        return {_CHALLENGE: _BEARER + (b', error="invalid_token"' if error.given else b"")}
    if isinstance(error, Forbidden):
        scope = error.scope.encode("ascii")
        return {_CHALLENGE: _BEARER + b', error="insufficient_scope", scope="%b"' % scope}
    if isinstance(error, StoreUnavailable | NoRoom | NotReady | TooManyFailures):
        return {b"Retry-After": b"%d" % RETRY_AFTER}
    return {}


def _allowed(error: MethodNotAllowed) -> str:
    return ", ".join(method for method in _METHODS if method in (error.valid_methods or ()))
