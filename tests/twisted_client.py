"""
The client that Dalga had before its own: Twisted's `HTTP11ClientProtocol`, with checks of Dalga's
around it. Here it reads answers that `dalga.outgoing.answer` reads too, so that a test can compare.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol, HTTPClientParser, ParseError
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

#: In bytes; see `dalga.outgoing.answer`.
MAX_BODY = 64 * 1024
MAX_HEAD = 16 * 1024

BODILESS = frozenset((204, 304))

_STATUS_LINE = re.compile(rb"[^ ]+ [0-9]{3}( |$)")
_LENGTH = re.compile(rb"[0-9]{1,4000}")  # of more digits, int makes no number


class Transport(StringTransport):
    """Notes whether the connection was kept."""

    def abortConnection(self) -> None:
        self.loseConnection()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It makes no difference here."""


class TwistedClient:
    """
    Reads one answer.

    `status` and `words` are what came of it; both None while it goes on.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        #: "not HTTP", "malformed", "too long", "broken off" or "unknown".
        self.trouble: str | None = None
        self.kept = False
        self._connection = _Connection(self._keep)
        self._connection.makeConnection(Transport())
        self._connection.request(_Message()).addCallbacks(self._answered, self._failed)

    def feed(self, data: bytes) -> None:
        if not self.is_over:
            self._connection.dataReceived(data)

    def end(self) -> None:
        """The connection has ended."""
        if not self.is_over:
            self._connection.connectionLost(Failure(ConnectionDone()))

    @property
    def is_over(self) -> bool:
        return self.status is not None or self.trouble is not None

    def _keep(self) -> None:
        self.kept = True

    def _answered(self, response: Any) -> None:
        if response.version[0] != b"HTTP" or not 200 <= response.code <= 999:
            self.trouble = "not HTTP"
            return
        response.deliverBody(_Drain(lambda reason: self._drained(response, reason)))

    def _drained(self, response: Any, reason: Failure | None) -> None:
        if reason is not None and not reason.check(ResponseDone, PotentialDataLoss):
            self._failed(reason)
            return
        self.kept = self.kept and reason is not None
        self.status = response.code

    def _failed(self, failure: Failure) -> None:
        error: Any = failure.value
        while reasons := getattr(error, "reasons", None):  # Twisted's wrappers
            error = reasons[0].value
        kinds = ((_HeadTooLong, "too long"), (ParseError, "not HTTP"), (Malformed, "malformed"))
        troubles = [trouble for kind, trouble in kinds if isinstance(error, kind)]
        self.trouble = [*troubles, "broken off"][0]


class _Message:
    method = b"POST"
    persistent = True

    def writeTo(self, transport: Any) -> Deferred[None]:
        return succeed(None)

    def stopWriting(self) -> None:
        """Nothing is written."""


class _HeadTooLong(Exception):
    """An answer's status line and headers were longer than `MAX_HEAD`."""


class _Connection(HTTP11ClientProtocol):
    def __init__(self, keep: Callable[[], None]) -> None:
        super().__init__(self._quiescent)  # type: ignore[no-untyped-call]
        self._keep = keep
        self._awaited: Deferred[IResponse] | None = None
        self._room = MAX_HEAD

    def request(self, request: Any) -> Deferred[IResponse]:
        """Send a request; the Deferred fires with the answer's headers."""
        self._room = MAX_HEAD
        self._awaited = super().request(request)
        if self._parser is not None:
            # Twisted's `request` has just made the parser; its class can't be given to it.
            self._parser.__class__ = _Parser
        return self._awaited.addBoth(self._heard)

    def _heard(self, result: IResponse | Failure) -> IResponse | Failure:
        self._awaited = None
        return result if self._room >= 0 else Failure(_HeadTooLong())

    def dataReceived(self, data: bytes) -> None:
        awaited = self._awaited
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        # Twisted limits each line, not their number (P10).
        if awaited is not None and awaited is self._awaited:
            self._room -= len(data)
            if self._room < 0:
                awaited.cancel()

    def _quiescent(self, _: HTTP11ClientProtocol) -> None:
        if self._is_reusable():
            self._keep()

    def _is_reusable(self) -> bool:
        """
        Whether the other side keeps the connection too (RFC 9112 section 9.3), and the answer has
        ended for certain.

        Twisted looks for "close" in lower case only, and takes HTTP/1.0 for HTTP/1.1.
        """
        assert self._parser is not None
        response, headers = self._parser.response, self._parser.connHeaders
        words = b",".join(headers.getRawHeaders(b"connection", [])).lower().split(b",")
        options = {word.strip() for word in words}
        if b"close" in options:
            return False
        if response.code in BODILESS:
            return False  # a body that it can't have would be taken for the next run's answer
        if headers.hasHeader(b"transfer-encoding") and headers.hasHeader(b"content-length"):
            return False  # RFC 9112 section 6.3: somebody on the way may take the other one's word
        return response.version[0] == b"HTTP" and (
            response.version >= (b"HTTP", 1, 1) or b"keep-alive" in options
        )


class _Parser(HTTPClientParser):
    """
    Reads an answer. Where Twisted's parser raises any exception, such as KeyError, this one raises
    `ParseError` or `Malformed`, which say what can't be read.
    """

    def lineReceived(self, line: bytes) -> None:
        """
        Called with each line of the status and the headers.

        :raises ParseError: for a first line that is no status line.
        :raises Malformed: for a header.
        """
        try:
            super().lineReceived(line)  # type: ignore[no-untyped-call]
        except (ParseError, Malformed):
            raise
        except Exception as error:
            header = b"".join(self._partialHeader or [line.rstrip(b"\r")])
            raise Malformed(f"{header!r} is no header") from error

    def statusReceived(self, status: bytes) -> None:
        """
        Called with the first line (RFC 9112 section 4).

        :raises ParseError: where it is no status line; Twisted takes 2_00 and +200 for 200.
        """
        if not _STATUS_LINE.match(status):
            raise ParseError("no status line", status)
        super().statusReceived(status)  # type: ignore[no-untyped-call]

    def allHeadersReceived(self) -> None:
        """
        Called with the empty line.

        :raises Malformed: where the headers don't say how long the body is.
        """
        if self.response.code >= 200 and self.response.code not in BODILESS:
            self._check_length()
        super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def _check_length(self) -> None:
        coding, length = b"transfer-encoding", b"content-length"
        if not self.connHeaders.hasHeader(coding):
            given = self.connHeaders.getRawHeaders(length, [])
            if len(given) == 1 and _LENGTH.fullmatch(given[0]):
                return  # as nearly all answers have it
        codings = _members(self.connHeaders, coding)
        # "identity" was in HTTP once, and said nothing (RFC 2616 section 3.6; RFC 9112 section 7).
        codings = [each.lower() for each in codings if each.lower() != b"identity"]
        if codings == [b"chunked"]:
            self.connHeaders.setRawHeaders(coding, codings)
            return
        if codings:
            raise Malformed(f"its Transfer-Encoding is {b', '.join(codings)!r}")
        self.connHeaders.removeHeader(coding)
        lengths = _members(self.connHeaders, length)
        if (
            len({each.lstrip(b"0") for each in lengths}) > 1
            or (self.connHeaders.hasHeader(length) and not lengths)
            or not all(_LENGTH.fullmatch(each) for each in lengths)
        ):
            raise Malformed(f"its Content-Length is {b', '.join(lengths)!r}")

    def rawDataReceived(self, data: bytes) -> None:
        """
        Called with the body's octets as they come.

        :raises Malformed: where they are not in chunks (RFC 9112 section 7.1), though announced so.
        """
        try:
            super().rawDataReceived(data)  # type: ignore[no-untyped-call]
        except Exception as error:
            raise Malformed("its body is not in the chunks that its headers announce") from error


def _members(headers: Headers, name: bytes) -> list[bytes]:
    """The members of a header that is a list (RFC 9110 section 5.6.1)."""
    values = b",".join(headers.getRawHeaders(name, []))
    return [member.strip() for member in values.split(b",") if member.strip()]


class Malformed(Exception):
    """
    An answer is no HTTP.

    :param args: why, as the rest of a sentence that begins with "the answer is malformed HTTP:".
    """


class _Drain(Protocol):
    """
    Reads an answer's body to its end, or to `MAX_BODY`, and keeps nothing of it.

    :param ended: called once, with Twisted's reason for the body's end, such as `ResponseDone`;
        with None for a body that is longer than `MAX_BODY`.
    """

    def __init__(self, ended: Callable[[Failure | None], None]) -> None:
        self._ended = ended
        self._room = MAX_BODY

    def dataReceived(self, data: bytes) -> None:
        if self._room >= 0:
            self._room -= len(data)
            if self._room < 0:
                self._ended(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._room >= 0:
            self._ended(reason)
