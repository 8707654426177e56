"""
Which parts of what a job sends go together. Pure.

`dalga.model.plan` asks, of each request to write a job, and says which parts of a schedule do.
"""

from __future__ import annotations

from typing import Protocol

from dalga.errors import InvalidRequest, pointer_to, shown
from dalga.model.delivery import AS_CONFIGURED, PAYLOAD, Method, Payload, Retry
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
    """Whether anything at all is given. Most requests give nothing of it."""
    return not (
        request.payload is None
        and request.payload_base64 is None
        and request.content_type is None
        and request.headers is None
        and request.method is None
        and request.retry is None
    )


def check_delivery(request: Sent) -> None:
    """:raises InvalidRequest: for parts that contradict each other, with a sentence on them."""
    if says_what_is_sent(request):
        _check_content(request)
        _check_retry(request.retry or AS_CONFIGURED)
    if request.redact:
        _check_redacted(request)


def _check_content(request: Sent) -> None:
    """:raises InvalidRequest: for parts of the endpoint's requests that contradict each other."""
    if request.payload is not None and request.payload_base64 is not None:
        raise InvalidRequest(
            "payload and payload-base64 both say what is sent; give just one of them",
            "/payload_base64",
        )
    name = "payload" if request.payload is not None else "payload-base64"
    if request.method in (Method.GET, Method.HEAD) and request.sent is not None:
        raise InvalidRequest(
            f"{name} can't go with method {request.method}, whose requests have no content; "
            f"leave {name} or method out",
            pointer_to(name),
        )
    has_content = request.sent is not None or request.method not in (
        Method.GET,
        Method.HEAD,
        Method.DELETE,
    )
    if request.content_type is not None and not has_content:
        raise InvalidRequest(
            f"content-type can't go with method {request.method}"
            + (" without a payload" if request.method is Method.DELETE else "")
            + ", as there is no content; leave content-type or method out",
            "/content_type",
        )
    size = size_of(request.headers or ())
    if size > MAX_HEADERS:
        raise InvalidRequest(
            f"headers have {size} octets, with 4 for each line: it takes {MAX_HEADERS} at most",
            "/headers",
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
                "redact has payload, and no payload is given: answers do not show it, so it has to "
                "be given again (PATCH leaves it as it is); or leave payload out of redact",
                "/redact",
            )
        if name != PAYLOAD and name not in given:
            raise InvalidRequest(
                f"redact has {shown(name)}, and headers has no such header: answers do not show "
                "its value, so it has to be given again (PATCH leaves it as it is); or leave it "
                "out of redact",
                "/redact",
            )
