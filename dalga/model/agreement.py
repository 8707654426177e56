"""
Which parts of what a job sends go together. Pure.

`dalga.model.plan` calls `check_delivery` for each request to write a job. The parts of a schedule
`plan` checks itself.
"""

from __future__ import annotations

from typing import Protocol

from dalga.errors import InvalidRequest, pointer_to, shown
from dalga.model.delivery import AS_CONFIGURED, PAYLOAD, Method, Payload, Retry, has_content
from dalga.model.headers import size_of

#: How many octets a job's headers may have together, as lines of a request's head.
MAX_HEADERS = 8 * 1024


class Sent(Protocol):
    """What a request to write a job says of what the job sends; None for what is not given."""

    @property
    def payload(self) -> Payload | None: ...

    @property
    def payload_base64(self) -> Payload | None: ...

    @property
    def sent(self) -> Payload | None: ...

    @property
    def content_type(self) -> str | None: ...

    @property
    def headers(self) -> tuple[tuple[str, str], ...] | None: ...

    @property
    def method(self) -> Method | None: ...

    @property
    def retry(self) -> Retry | None: ...

    @property
    def redact(self) -> tuple[str, ...] | None: ...


def says_what_is_sent(request: Sent) -> bool:
    """Whether a request says anything of what the job sends. Most requests don't."""
    return not (
        request.payload is None
        and request.payload_base64 is None
        and request.content_type is None
        and request.headers is None
        and request.method is None
        and request.retry is None
        and request.redact is None
    )


def check_delivery(request: Sent) -> None:
    """:raises InvalidRequest: for parts that contradict each other, with a sentence on them."""
    if says_what_is_sent(request):
        _check_content(request)
        _check_retry(request.retry or AS_CONFIGURED)
        _check_redacted(request)


def _check_content(request: Sent) -> None:
    """:raises InvalidRequest: for parts of the endpoint's requests that contradict each other."""
    if request.payload is not None and request.payload_base64 is not None:
        raise InvalidRequest(
            "payload and payload-base64 both say what is sent; give just one of them",
            "/payload_base64",
        )
    method = request.method or Method.POST
    if not has_content(method, request.sent):
        _check_no_content(request, method)
    size = size_of(request.headers or ())
    if size > MAX_HEADERS:
        raise InvalidRequest(
            f"headers have {size} octets, with 4 for each line: it takes {MAX_HEADERS} at most",
            "/headers",
        )


def _check_no_content(request: Sent, method: Method) -> None:
    """:raises InvalidRequest: if a request without content has a payload or a Content-Type."""
    if request.sent is not None:
        name = "payload" if request.payload is not None else "payload-base64"
        raise InvalidRequest(
            f"{name} can't go with method {method}, whose requests have no content; leave {name} "
            "or method out",
            pointer_to(name),
        )
    if request.content_type is not None:
        without = " without a payload" if method is Method.DELETE else ""
        raise InvalidRequest(
            f"content-type can't go with method {method}{without}, as there is no content; leave "
            "content-type or method out",
            "/content_type",
        )


def _check_retry(retry: Retry) -> None:
    interval, most = retry.interval, retry.max_interval
    if interval is not None and most is not None and interval > most:
        raise InvalidRequest(
            f"retry.interval is {interval.total_seconds():g} s, longer than retry.max-interval, "
            f"{most.total_seconds():g} s: make interval shorter, or max-interval longer",
            "/retry/interval",
        )


def _check_redacted(request: Sent) -> None:
    """
    What GET does not show has to be given again, or it would be lost by a PUT of what GET shows.

    :raises InvalidRequest: if `redact` names what is not given.
    """
    given = {name.lower() for name, _ in request.headers or ()}
    for name in request.redact or ():
        if name == PAYLOAD and request.sent is None:
            raise InvalidRequest(
                "redact has payload, and no payload is given: give the payload, also if the job "
                "has one already, or leave payload out of redact; a PATCH keeps the payload",
                "/redact",
            )
        if name != PAYLOAD and name not in given:
            raise InvalidRequest(
                f"redact has {shown(name)}, and headers has no such header: give its value in "
                "headers, also if the job has one already, or leave it out of redact; a PATCH "
                "keeps the value",
                "/redact",
            )
