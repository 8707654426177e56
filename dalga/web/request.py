"""
One request and its answer, between twisted.web and Klein, as this API needs them.

- The path stays percent-encoded until `dalga.web.parameters` takes it apart: a decoded ``%2F``
  could not be told from a slash.
- Bodies have a largest size, and all bodies together have `BodyRoom` (P10). twisted.web has no such
  limits.
- An answer has the headers that `answer` and `refuse` set, in that order, and no ``Server``.

Connections, and requests that are refused before they are complete, are in `dalga.web.server`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from email.utils import formatdate
from http import HTTPStatus
from io import BytesIO
from typing import Any, cast
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.server import Request

from dalga.errors import DalgaError, InvalidRequest, Unauthorized
from dalga.metrics import OTHER
from dalga.model.idempotency import Idempotency
from dalga.model.permit import NOBODY, OPEN, Caller, Scope
from dalga.model.precondition import Precondition
from dalga.web.auth import Tokens
from dalga.web.bodies import (
    FREE_OF_ROOM,
    JSON,
    MERGE_PATCH,
    as_spelled,
    media_type,
    too_large,
    uncoded,
)
from dalga.web.conditional import (
    idempotency,
    precondition,
    refuse_idempotency,
    refuse_preconditions,
)
from dalga.web.cursors import View
from dalga.web.errors import Problem, TooManyFailures, UnknownResource, problem_of
from dalga.web.forwarded import client_address, is_forwarded_https, is_trusted
from dalga.web.origins import Asked, Doors, check_cookie, check_open, check_session, granted_origin
from dalga.web.presentation import problem_json
from dalga.web.sessions import Session, cookie, cookie_name, cookies, new_session, read_session

_PROBLEM = "application/problem+json"
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

#: The route of requests that have none.
NO_ROUTE = "none"

#: A path that no route has.
NOWHERE = b"/-"

#: The methods that the metrics tell apart: those of RFC 9110 and PATCH.
METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
)

#: The headers of all answers to browsers: no cache keeps the answer, it is taken for nothing but
#: what its type says, and no page elsewhere embeds it.
OF_BROWSERS = (
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
)

#: The headers of answers that pages of other origins may read, beside those that all may.
EXPOSED = b"ETag, Link, Location, Retry-After, WWW-Authenticate"

#: What pages of other origins may send. Browsers ask again after ten minutes.
PREFLIGHT = (
    (b"Access-Control-Allow-Methods", b"GET, HEAD, PUT, POST, PATCH, DELETE"),
    (
        b"Access-Control-Allow-Headers",
        b"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match",
    ),
    (b"Access-Control-Max-Age", b"600"),
)

#: How long a request may hold its body after its client has hung up, in seconds. The operation goes
#: on without the client, for as long as an answer takes at most (`dalga.operations`).
AFTER_HANG_UP = 4.0


class ApiRequest(Request):
    """One request and its answer."""

    path: bytes
    content: BytesIO
    site: Any  # an `ApiSite`
    #: How many octets of the body have come, and take room in the sense of `BodyRoom`.
    _held = 0
    #: The client, by its token.
    caller: Caller = NOBODY
    #: Why the request is refused, whatever its route; None if it is not.
    _refused: DalgaError | None = None
    #: The `Tokens` and the `Doors` by which `caller` and `_refused` were found. A site that answers
    #: everybody has no `Doors`.
    _tokens: Tokens | None = None
    _doors: Doors | None = None
    #: The headers that say for which page a browser sends the request. Read where there are
    #: `Doors`.
    _asked = Asked()
    #: The value of Origin, if pages of that origin may call (``[listen] origins``).
    _granted: bytes | None = None
    #: When the login in the request's cookie ends (aware, UTC, the database's clock).
    login_ends: datetime | None = None
    #: The value of the answer's header Set-Cookie.
    _cookie: bytes | None = None
    #: Fires when a refusal that is held back may be sent.
    _refusal: Deferred[None] | None = None
    #: The name of the request's route in the metrics.
    route = NO_ROUTE
    #: When the request was complete, in the reactor's seconds; None if it was refused before.
    _began: float | None = None

    def gotLength(self, length: int | None) -> None:
        """
        Called when the headers are there.

        :param length: the body's length in octets; None for a chunked body.
        :raises BodyTooLarge: and `NoRoom`: for a body that is not to be sent.
        """
        # twisted.web takes a temporary file for chunked bodies, and for large ones. Those that are
        # taken here fit in memory.
        self.content = BytesIO()
        self.site = self.channel.site  # type: ignore[attr-defined]
        self._admit(self.channel._command, self.channel._path)
        if length is not None:
            if length > self._largest_body:
                raise too_large(self._largest_body)
            if self._refused is None:
                self.site.room.check(length)

    @property
    def _largest_body(self) -> int:
        """
        The largest body of the request, in octets. Without a valid token it is short, so that it
        takes no room (P10).
        """
        largest: int = self.site.largest_body
        is_nobodys = self.caller is NOBODY and self._refused is None and bool(self.site.tokens)
        return min(largest, FREE_OF_ROOM) if is_nobodys else largest

    def _admit(self, method: bytes, uri: bytes) -> None:
        """
        Set `caller`, or `_refused`.

        :param uri: the request's target.
        """
        self._tokens, self._doors = self.site.tokens, self.site.doors
        self._refused = None
        try:
            self.caller = self._who(method, uri)
        except DalgaError as error:
            self._refused = error

    def _who(self, method: bytes, uri: bytes) -> Caller:
        """
        The client, by its token.

        :raises Unauthorized: if a token is missing.
        :raises ForeignRequest: if a browser sends it for a page elsewhere.
        """
        path = _without(self.root_path, _origin_form(uri.partition(b"?")[0]))
        if self._doors is not None:
            self._asked = self._where_from(method, uri, path or b"")
            self._granted = granted_origin(self._asked, self._doors)
            if not self.site.tokens:
                check_open(self._asked, self._doors)
        if path in self.site.open_paths or self._is_preflight:
            return NOBODY
        return self._visitor()

    def _visitor(self) -> Caller:
        """
        The client, by the token in Authorization or in the cookie of a login.

        :raises Unauthorized: if the request has no valid token, and there are tokens.
        :raises ForeignRequest: if a browser sends the token by itself, for a page elsewhere.
        """
        if not self.site.tokens:
            return OPEN
        given = self._lines(b"Authorization")
        values = [] if given else list(cookies(self._lines(b"Cookie"), self._cookie_name))
        if values and self._doors is not None:
            check_cookie(self._asked)
            return self._logged_in(values)
        caller: Caller = self.site.tokens.caller(given, self.address)
        return caller

    def _logged_in(self, values: Iterable[bytes]) -> Caller:
        now = self.site.now()
        for value in values:
            session = read_session(value, now)
            token = None if session is None else self.site.tokens.find(session.token)
            if session is not None and token is not None:
                self.login_ends = session.ends
                return Caller(token.name, token.grants, self.address, by_cookie=True)
        raise Unauthorized("the login has ended, or its token was removed: log in again", True)

    @property
    def _cookie_name(self) -> bytes:
        return cookie_name(self.root_path, bool(self.is_encrypted))

    @property
    def visitor(self) -> Caller:
        """
        The client on a route that needs no token; `NOBODY` without a valid token.

        :raises ForeignRequest: if a browser sends the token by itself, for a page elsewhere.
        """
        try:
            return self._visitor()
        except Unauthorized:
            return NOBODY

    async def log_in(self, text: bytes) -> Caller:
        """
        Have the browser send a token by itself from now on.

        :param text: the token's.
        :raises Unauthorized: if it is none of the configuration; late, if there were many.
        :raises TooManyFailures: if there were too many to hold this one back.
        :raises ForeignRequest: if a page elsewhere asks for it.
        :raises InvalidRequest: if there are no tokens.
        """
        check_session(self._asked)
        if not self.site.tokens:
            raise InvalidRequest("there are no tokens, so there is nothing to log in to")
        try:
            token = self.site.tokens.get(text)
        except Unauthorized as error:
            await self.site.failures.add(self.address, str(error))
            raise
        value = new_session(text, self.site.now())
        session = cast(Session, read_session(value, self.site.now()))
        self._send_cookie(value)
        self.login_ends = session.ends
        return Caller(token.name, token.grants, self.address, by_cookie=True)

    def log_out(self) -> None:
        """
        Have the browser forget its login.

        :raises ForeignRequest: if a page elsewhere asks for it.
        """
        check_session(self._asked)
        self._send_cookie(b"")

    def _send_cookie(self, value: bytes) -> None:
        self._cookie = cookie(value, self.root_path, bool(self.is_encrypted))

    def _where_from(self, method: bytes, uri: bytes, path: bytes) -> Asked:
        """The headers that say for which page a browser sends the request."""
        absolute = _ABSOLUTE.match(uri)
        hosts = self._lines(b"Host") if absolute is None else [absolute[1].rpartition(b"@")[2]]
        site, mode, dest = (b",".join(self._lines(name)) for name in _FETCH)
        own = getattr(self.channel.getHost(), "host", "")
        host, origins = b"".join(hosts), self._lines(b"Origin")
        return Asked(method, path, host, origins, site, mode, dest, own, self.is_encrypted)

    @property
    def _is_preflight(self) -> bool:
        """Whether the request is a CORS preflight of an origin whose pages may call."""
        return (
            self._granted is not None
            and self._asked.method == b"OPTIONS"
            and self.requestHeaders.hasHeader(b"Access-Control-Request-Method")
        )

    @property
    def target_path(self) -> bytes:
        """The path of the request's target, with `root_path`."""
        return _origin_form(self.uri.partition(b"?")[0])

    @property
    def root_path(self) -> bytes:
        """The path that all URLs begin with."""
        return b"" if self._doors is None else self._doors.root_path.encode("ascii")

    @property
    def is_encrypted(self) -> bool | None:
        """
        Whether its client speaks TLS, with this daemon or with a trusted proxy; None where a proxy
        may be there that is not trusted.
        """
        if self.channel.is_encrypted:  # type: ignore[attr-defined]
            return True
        lines = self._lines(b"X-Forwarded-Proto")
        if not lines or self._doors is None:
            return None
        if not is_trusted(self._peer, self._doors.trusted_proxies):
            return None
        return is_forwarded_https(lines)

    @property
    def _peer(self) -> str:
        return getattr(self.channel.getPeer(), "host", "")

    @property
    def view(self) -> View:
        """The part of each list that the client may see."""
        return View(self.caller.limits(Scope.READ), self.site.tokens.seal(self.caller))

    @property
    def address(self) -> str:
        """The client's address; "" for a client on a local socket."""
        trusted = () if self._doors is None else self._doors.trusted_proxies
        return client_address(self._peer, self._lines(b"X-Forwarded-For"), trusted)

    def handleContentChunk(self, data: bytes) -> None:
        """
        Called with each piece of the body.

        :raises BodyTooLarge: and `NoRoom`: for a body whose rest is not to be sent.
        """
        if self._held + len(data) > self._largest_body:
            raise too_large(self._largest_body)
        if self._refused is not None:
            return  # it is refused, whatever a reload does before it is complete
        self.site.room.grow(self._held, len(data))
        self._held += len(data)
        self.content.write(data)

    def finish(self) -> None:
        """Called when the answer has been written."""
        site = self.channel.site  # type: ignore[attr-defined]
        super().finish()  # type: ignore[no-untyped-call]
        self._give_back()
        began, method = self._began, self.method.decode("latin-1").upper()
        site.metrics.request(
            self.route,
            method if method in METHODS else OTHER,
            self.code,
            None if began is None else site.reactor.seconds() - began,
        )

    def connectionLost(self, reason: Failure) -> None:
        """Called when the client is gone before it has its answer."""
        if self._held > FREE_OF_ROOM and self.channel.answering:  # type: ignore[attr-defined]
            self.site.reactor.callLater(AFTER_HANG_UP, self._give_back)
        else:
            self._give_back()
        if self._refusal is not None:
            self._refusal.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def _give_back(self) -> None:
        held, self._held = self._held, 0
        if held:
            self.site.room.give_back(held)

    def process(self) -> None:
        """Called when the body is there too."""
        self._began = self.site.reactor.seconds()
        if self._refused is None and (
            self._tokens is not self.site.tokens or self._doors is not self.site.doors
        ):
            # A reload may have removed its token while the body came.
            self._admit(self.method, self.uri)
        path = _without(self.root_path, _origin_form(self.path))
        if path is not None:
            self.path = path
        if isinstance(self._refused, Unauthorized):
            self._turn_away(self._refused)
            return
        if self._refused is not None:
            self._end(self._refused)
            return
        if self._is_preflight:
            self._answer_preflight()
            return
        if path is None:
            self._end(
                UnknownResource(
                    f"there is nothing here: all URLs of this daemon begin with "
                    f"{self.root_path.decode()}, its rootPath in [listen]"
                )
            )
            return
        # Klein matches `postpath`. It would log a traceback if that were not UTF-8, and take any
        # number of slashes in front for one slash.
        path = self.path if re.match(rb"/(?!/)", self.path) else NOWHERE
        self.prepath = []
        self.postpath = quote(path[1:], safe=_PRINTABLE).encode("ascii").split(b"/")
        self.render(self.site.getResourceFor(self))  # type: ignore[no-untyped-call]

    def _turn_away(self, error: Unauthorized) -> None:
        """Answer that a token is missing: at once, or later if there were many such answers."""
        self._refusal = self.site.failures.add(self.address, str(error))
        self._refusal.addCallbacks(lambda _: self._end(error), self._not_held)

    def _not_held(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:  # else the client is gone
            failure.trap(TooManyFailures)
            self._end(cast(TooManyFailures, failure.value))

    def _answer_preflight(self) -> None:
        self.answer(HTTPStatus.NO_CONTENT)
        for name, value in PREFLIGHT:
            self.responseHeaders.setRawHeaders(name, [value])
        self.finish()

    def _end(self, error: DalgaError) -> None:
        problem = problem_of(error)
        assert problem is not None
        self._refusal = None
        self.write(self.refuse(problem))  # type: ignore[no-untyped-call]
        self.finish()

    def getRequestHostname(self) -> bytes:
        """
        A host name for Klein, the same for all requests.

        Klein fails on a Host header that is no host name, and no route depends on the host.
        """
        return b"localhost"

    @property
    def query(self) -> bytes:
        """The query, as it was sent: still percent-encoded."""
        return self.uri.partition(b"?")[2]

    @property
    def body(self) -> bytes:
        """
        The body, as it was sent.

        :raises UnsupportedMediaType: for a body that is compressed. It would otherwise be refused
            as a form or JSON that is not UTF-8, which does not say what to do.
        """
        codings = self.requestHeaders.getRawHeaders(b"Content-Encoding", [])
        return uncoded(self.content.getvalue(), codings)

    @property
    def content_type(self) -> str | None:
        """The body's Content-Type; None if there is no such header."""
        value = self.requestHeaders.getRawHeaders(b"Content-Type")
        return None if value is None else value[-1].decode("latin-1")

    def _in_body(self, errors: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """The errors of members, as the body of the request has these members."""
        has_json = media_type(self.content_type) in (JSON, MERGE_PATCH)
        # The body of another POST is a payload.
        has_members = self.method in (b"PUT", b"PATCH") or self.path == b"/actions"
        if not has_json or not has_members or not self._held:
            return ()
        body = self.content.getvalue()
        return tuple((as_spelled(pointer, body), detail) for pointer, detail in errors)

    @property
    def accept(self) -> str:
        """The Accept header, all of its lines."""
        return ",".join(line.decode("latin-1") for line in self._lines(b"Accept"))

    @property
    def precondition(self) -> Precondition | None:
        """
        What has to hold of the job that is there.

        :raises InvalidRequest: see `dalga.web.conditional.precondition`.
        """
        return precondition(self._lines(b"If-Match"), self._lines(b"If-None-Match"))

    def refuse_preconditions(self) -> None:
        """:raises InvalidRequest: if there is a precondition."""
        refuse_preconditions(self._lines(b"If-Match"), self._lines(b"If-None-Match"))

    @property
    def idempotency(self) -> Idempotency | None:
        """
        The Idempotency-Key, and this request.

        :raises InvalidRequest: see `dalga.web.conditional.idempotency`.
        """
        kind = (self.content_type or "").encode("latin-1")
        request = self.method, self.uri, kind, self.content.getvalue()
        return idempotency(self._lines(b"Idempotency-Key"), *request)

    def refuse_idempotency(self) -> None:
        """:raises InvalidRequest: if there is an Idempotency-Key."""
        refuse_idempotency(self._lines(b"Idempotency-Key"))

    def _lines(self, name: bytes) -> Sequence[bytes]:
        """The values of a header's lines."""
        return self.requestHeaders.getRawHeaders(name, [])

    def answer(self, status: HTTPStatus, content_type: str = "", body: bytes = b"") -> bytes:
        """
        Set the status and the headers, in the order of the Go original.

        :return: the body, for Klein to write.
        """
        self.setResponseCode(status.value, status.phrase.encode("ascii"))
        headers = self.responseHeaders
        if content_type:
            headers.setRawHeaders(b"Content-Type", [content_type.encode("ascii")])
        headers.setRawHeaders(b"Date", [formatdate(usegmt=True).encode("ascii")])
        if status is not HTTPStatus.NO_CONTENT:
            headers.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
        for name, value in self._for_browsers():
            headers.setRawHeaders(name, [value])
        if self._cookie is not None:
            headers.setRawHeaders(b"Set-Cookie", [self._cookie])
            headers.setRawHeaders(b"Cache-Control", [b"no-store"])
        return body

    def _for_browsers(self) -> Iterator[tuple[bytes, bytes]]:
        """The headers of an answer that a browser goes by. Programs get none of them."""
        if self._asked.site or self._asked.origins or self.caller.by_cookie:
            yield from OF_BROWSERS
        if self._doors is not None and self._doors.origins:
            yield b"Vary", b"Origin"
        if self._granted is not None:
            yield b"Access-Control-Allow-Origin", self._granted
            yield b"Access-Control-Expose-Headers", EXPOSED

    def locate(self, target: bytes) -> None:
        """Say in the answer's header Location where something is, behind `root_path`."""
        self.responseHeaders.setRawHeaders(b"Location", [self.root_path + target])

    def refuse(self, problem: Problem) -> bytes:
        """
        `answer` with a problem. The errors of its members are named only where the request has a
        JSON body of parameters: otherwise there is nothing that a JSON pointer could point to.
        """
        if problem.errors:
            problem = replace(problem, errors=self._in_body(problem.errors))
        body = self.answer(problem.status, _PROBLEM, problem_json(problem))
        self.code_message = problem.title.encode("ascii")
        for name, value in problem.headers.items():
            self.responseHeaders.setRawHeaders(name, [value])
        return body


#: The headers by which a browser says for whom it sends a request, and to what end.
_FETCH = (b"Sec-Fetch-Site", b"Sec-Fetch-Mode", b"Sec-Fetch-Dest")

#: The beginning of a target in absolute form (RFC 9112 section 3.2.2).
_ABSOLUTE = re.compile(rb"https?://([^/?]*)", re.IGNORECASE)


def _origin_form(target: bytes) -> bytes:
    """The path of a request target, also of one in absolute form."""
    absolute = _ABSOLUTE.match(target)
    return target if absolute is None else target[absolute.end() :] or b"/"


def _without(root: bytes, path: bytes) -> bytes | None:
    """A path without what all paths begin with; None for another path."""
    if not root:
        return path
    rest = path.removeprefix(root)
    return rest or b"/" if rest != path and rest[:1] in (b"/", b"") else None
