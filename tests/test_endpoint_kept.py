"""
What an outcome knows beside its status: the kind of a failure, and what is kept of an answer. Over
real sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import inlineCallbacks
from twisted.internet.protocol import Factory

from dalga.model.answers import Answers, Meaning, Statuses
from dalga.model.attempt import MAX_BODY, MAX_HEADERS, ErrorKind, Saved
from dalga.model.delivery import Delivery, Method, Payload
from dalga.model.options import Options
from dalga.model.run import Run
from dalga.outgoing import lookup as dalga_lookup
from dalga.outgoing.answer import MAX_HEAD
from dalga.outgoing.endpoint import Endpoint
from dalga.outgoing.keeping import MAX_VALUE, secrets_of
from dalga.outgoing.pool import Way
from dalga.outgoing.trust import Trust
from dalga.outgoing.tunnel import Proxy
from tests.test_endpoint import (
    LONG,
    SHORT,
    Answer,
    Conversation,
    EndpointCase,
    a_certificate,
    a_run,
    keeps_silent,
    reactor,
    says,
)
from tests.test_endpoint_delivery import of

DNS, CONNECT, TLS, TIMEOUT, CLOSED, MALFORMED, TOO_LARGE, STATUS, INTERNAL = ErrorKind


def answer(status: int, body: bytes = b"", *fields: bytes) -> bytes:
    """An answer whose body has this length."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, lines, len(body), body)


def greets(said: bytes, close: bool = False) -> Callable[[Conversation], None]:
    """What a server does that speaks first."""

    def greet(conversation: Conversation) -> None:
        conversation.transport.write(said)
        if close:
            conversation.transport.loseConnection()

    return greet


class KindTests(EndpointCase):
    """Each way to fail has its kind."""

    @inlineCallbacks
    def check(self, baseurl: str, kind: ErrorKind, run: Run | None = None) -> Any:
        outcome = yield self.endpoint(baseurl, LONG).post(run or a_run(timeout=SHORT))
        self.assertIs(outcome.kind, kind, outcome)
        self.assertEqual((outcome.status, outcome.saved), (None, None))
        self.assertNotEqual(outcome.error, "")

    @inlineCallbacks
    def test_on_the_way_to_a_connection(self) -> Any:
        """A deadline that passes on the way is of the stage that it passes in."""
        self.resolve("app")
        yield self.check("http://elsewhere/", DNS)
        unused = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        port = unused.getHost().port
        yield unused.stopListening()
        yield self.check(f"http://127.0.0.1:{port}/", CONNECT)
        yield self.check(f"https://127.0.0.1:{port}/", CONNECT)
        yield self.check(f"http://127.0.0.1:{self.a_full_port()}/", CONNECT)
        silent = self.serve(keeps_silent)
        yield self.check(f"https://127.0.0.1:{silent.port}/", TLS)

    def test_a_silent_resolver(self) -> Any:
        """The look-up has a thread of its own, which is let go at the end."""
        end = Event()
        self.addCleanup(end.set)
        self.patch(dalga_lookup, "getaddrinfo", lambda *_, **__: end.wait() and [])
        return self.check("http://app/", DNS)

    @inlineCallbacks
    def test_tls(self) -> Any:
        """From the handshake on it is TLS, whoever ends it and how."""
        for said, close in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
            (b"\x15\3\3\0\2\2\x28", False),
            (b"", True),
            (b"\x16\3\3", True),
        ):
            server = self.serve(keeps_silent)
            server.on_connection = greets(said, close)
            yield self.check(f"https://127.0.0.1:{server.port}/", TLS, a_run())
            yield server.connections[0].lost
        untrusted = self.serve(says(answer(200)), a_certificate("localhost"))
        yield self.check(f"https://localhost:{untrusted.port}/", TLS, a_run())
        yield untrusted.connections[0].lost
        self.flushLoggedErrors()  # what the server has to say of that

    @inlineCallbacks
    def test_on_a_connection(self) -> Any:
        half = b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nhell"
        table: tuple[tuple[Answer, ErrorKind], ...] = (
            (keeps_silent, TIMEOUT),
            (says(half), TIMEOUT),
            (says(b"HTTP/1.1 100 Continue\r\n\r\n"), TIMEOUT),
            (says(b"", close=True), CLOSED),
            (says(b"HTTP/1.1 20", close=True), CLOSED),
            (says(half, close=True), CLOSED),
            (says(b"HTTP/1.1 103 Early Hints\r\n\r\n", close=True), CLOSED),
            (says(b"SSH-2.0-OpenSSH_9.2\r\n"), MALFORMED),
            (says(b"HTTP/2 200\r\n\r\n"), MALFORMED),
            (says(b"<html>hello</html>", close=True), MALFORMED),
            (says(b"\x15\x03\x03\x00\x02\x02\x28"), MALFORMED),
            (says(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), MALFORMED),
            (says(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), MALFORMED),
            (says(b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), MALFORMED),
            (says(b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_HEAD), TOO_LARGE),
            (says(b"HTTP/1.1 100 Go on\r\n\r\n" * MAX_HEAD), TOO_LARGE),
        )
        for does, kind in table:
            server = self.serve(does)
            slow = kind is TIMEOUT
            yield self.check(server.baseurl, kind, a_run(timeout=SHORT if slow else LONG))
            yield server.connections[0].lost

    @inlineCallbacks
    def test_given_up(self) -> Any:
        """By Dalga itself, as at a stop."""
        server = self.serve(keeps_silent)
        posted = self.endpoint(server.baseurl).post(a_run())
        posted.cancel()
        outcome = yield posted
        self.assertIs(outcome.kind, CLOSED)

    @inlineCallbacks
    def test_what_no_request_can_have(self) -> Any:
        server = self.serve(says(answer(200)))
        bad = of(Delivery(headers=(("X-Key", "a\r\nb"),)))
        yield self.check(server.baseurl, INTERNAL, bad)
        yield self.check(server.baseurl, INTERNAL, a_run()._replace(payload="no octets"))  # type: ignore[arg-type]
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    @inlineCallbacks
    def test_an_answer_has_none(self) -> Any:
        """That a status is a failure, `End.error_kind` says."""
        for status in (200, 204, 404, 500):
            outcome = yield self.post(says(answer(status)))
            self.assertEqual((outcome.status, outcome.kind), (status, None))


class SavedTests(EndpointCase):
    """What is kept of an answer."""

    @inlineCallbacks
    def saved(self, said: bytes, run: Run | None = None, answers: Answers | None = None) -> Any:
        server = self.serve(says(said))
        endpoint = Endpoint(
            reactor, server.baseurl, LONG, "here", 1, Trust(), answers=answers or Answers()
        )
        self.addCleanup(endpoint.close)
        outcome = yield endpoint.post(run or a_run())
        self.assertIsNotNone(outcome.status)
        return outcome.saved

    @inlineCallbacks
    def test_the_answer_of_a_failure(self) -> Any:
        found = yield self.saved(answer(500, b'{"error":"no\xc4\x9f"}', b"X-A:  b ", b"x-a: c"))
        self.assertEqual(found, Saved("X-A: b\nx-a: c\nContent-Length: 16", found.body))
        self.assertEqual(found.text, '{"error":"noğ"}')

    @inlineCallbacks
    def test_which(self) -> Any:
        """Those by which an attempt has failed, as the job, the endpoint and the answer have it."""
        success = Statuses(((202, 202),))
        a, endpoints = a_run(), Answers(success=success)
        steers = b"Dalga-Verdict: "
        for said, run, answers, is_kept in (
            (answer(200), a, None, False),
            (answer(204), a, None, False),
            (answer(201), a, None, True),
            (answer(301), a, None, True),
            (answer(500), a, None, True),
            (answer(200), a, endpoints, True),
            (answer(202), a, endpoints, False),
            (answer(200), a._replace(options=Options(success=success)), None, True),
            (answer(202), a._replace(options=Options(success=success)), None, False),
            (answer(404), a._replace(options=Options(gone=Statuses(((404, 404),)))), None, False),
            (answer(404), a._replace(options=Options(give_up=Statuses(((404, 404),)))), None, True),
            (answer(200, b"", steers + b"fail"), a, None, True),
            (answer(200, b"", steers + b"retry"), a, None, True),
            (answer(500, b"", steers + b"succeed"), a, None, False),
            (answer(500, b"", steers + b"disable"), a, None, False),
            (answer(500, b"", steers + b"nonsense"), a, None, True),
            (answer(200), a._replace(options=Options(save_response=True)), None, True),
            (answer(204), a._replace(options=Options(save_response=True)), None, True),
        ):
            found = yield self.saved(said, run, answers)
            self.assertEqual(found is not None, is_kept, (said, run.options))
        self.flushLoggedErrors()

    @inlineCallbacks
    def test_bodies(self) -> Any:
        """However a body is framed; none where the answer has none."""
        chunks = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nA: b\r\n\r\n"
        for said, run, body in (
            (answer(500, b"abcdefg"), a_run(), b"abcdefg"),
            (b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, a_run(), b"abcdefg"),
            (answer(500), a_run(), b""),
            (b"HTTP/1.1 304 X\r\nContent-Length: 3\r\n\r\nabc", a_run(), b""),
            (answer(500, b"abc"), of(Delivery(method=Method.HEAD)), b""),
            (b"HTTP/1.1 100 Go on\r\nX: y\r\n\r\n" + answer(500, b"abc"), a_run(), b"abc"),
        ):
            found = yield self.saved(said, run)
            self.assertEqual(found.body, body, said)
            self.assertNotIn("X: y", found.headers)
        outcome = yield self.post(says(b"HTTP/1.0 500 X\r\n\r\nabc", close=True))
        self.assertEqual(outcome.saved, Saved("", b"abc"))

    @inlineCallbacks
    def test_bounded(self) -> Any:
        """P10: of a body and of fields, however long, and of one field beside the others."""
        for size in (MAX_BODY, MAX_BODY + 1, 60_000, 200_000):
            found = yield self.saved(answer(500, b"x" * size))
            self.assertEqual(found.body, b"x" * MAX_BODY)
        with_secret = of(Delivery(headers=(("X-Api-Key", "k3y-of-job"),)))
        found = yield self.saved(answer(500, b"x" * 60_000), with_secret)
        self.assertEqual(found.body, b"x" * MAX_BODY)
        long = b"X-Long: " + b"y" * 3000
        found = yield self.saved(answer(500, b"", long, b"X-Next: z"))
        self.assertEqual(
            found.headers, f"X-Long: {'y' * MAX_VALUE}...\nX-Next: z\nContent-Length: 0"
        )
        many = [b"X-%d: %b" % (n, b"\xff" * 900) for n in range(10)]
        found = yield self.saved(answer(500, b"", *many))
        self.assertEqual(found.headers, "X-0: " + r"\xff" * 900)
        self.assertLessEqual(len(found.headers), MAX_HEADERS)

    @inlineCallbacks
    def test_octets_that_are_no_text(self) -> Any:
        cut = "ğ".encode()
        for body, text in (
            (b"\x00\xff\x80a\r\n", "\x00\\xff\\x80a\r\n"),
            ("jöb ✓ 𝄞".encode(), "jöb ✓ 𝄞"),
            (b"a\xc4", "a\\xc4"),
            (b"x" * (MAX_BODY - 1) + cut, "x" * (MAX_BODY - 1)),
            (b"x" * (MAX_BODY - 2) + cut, "x" * (MAX_BODY - 2) + "ğ"),
            (b"", ""),
        ):
            found = yield self.saved(answer(500, body, b"X: \xff\xc4\x9f"))
            self.assertEqual(found.text, text)
            self.assertTrue(found.headers.startswith("X: \\xffğ\n"), found.headers)

    @inlineCallbacks
    def test_secrets(self) -> Any:
        """P12: what mostly holds a secret has no value, in whatever case, however often."""
        for name in (
            *(b"Set-Cookie", b"SET-COOKIE2", b"set-cookie", b"Authorization", b"X-Api-Key"),
            *(b"Proxy-Authorization", b"Authentication-Info", b"X-Auth-Token", b"X-CSRF-Token"),
            *(b"X-Amz-Security-Token", b"Client-Secret", b"X-Session-Id", b"Webhook-Signature"),
        ):
            found = yield self.saved(answer(500, b"", name + b": s3cret", name + b": s3cret=2"))
            self.assertEqual(
                found.headers, f"{name.decode()}:\n{name.decode()}:\nContent-Length: 0"
            )
        plain = (b"WWW-Authenticate: Basic", b"Retry-After: 7", b"X-Request-Id: 1", b"ETag: 2")
        found = yield self.saved(answer(401, b"", *plain))
        self.assertEqual(found.headers.encode().split(b"\n")[:4], [*plain])

    @inlineCallbacks
    def test_redact(self) -> Any:
        """P12: an endpoint that echoes its request, and a job that redacts what it sent."""
        said = answer(500, b'{"you sent": "s3cret"}', b"X-TENANT: s3cret", b"X-B: c")
        headers = (("X-Tenant", "s3cret"),)
        payload = Payload(b"another text")
        for redact, has_header, has_body in (
            ((), True, True),
            (("x-tenant",), False, True),
            (("payload",), True, False),
            (("x-tenant", "payload"), False, False),
        ):
            run = of(Delivery(payload=payload, headers=headers, redact=redact))
            found = yield self.saved(said, run)
            value = " s3cret" if has_header else ""
            self.assertEqual(found.headers, f"X-TENANT:{value}\nX-B: c\nContent-Length: 22")
            text = '{"you sent": "s3cret"}' if has_header else '{"you sent": "***"}'
            self.assertEqual(found.text, text if has_body else None)

    @inlineCallbacks
    def test_echoes_that_are_no_answer(self) -> Any:
        """P12: words on why there is no answer, which have its start in them, have no secret."""
        theirs = (("Authorization", "Bearer t0ken-of-endpoint"),)
        run = of(Delivery(headers=(("X-Api-Key", "k3y-of-job"),)))
        for said in (
            b"Bearer t0ken-of-endpoint, k3y-of-job\r\n\r\n",
            b"HTTP/t0ken-of-endpoint 500\r\n\r\n",
            b"HTTP/1.1 500 X\r\nX: Bearer t0ken-of-endpoint\nY: k3y-of-job\r\n\r\n",
            b"HTTP/1.1 500 X\r\nBEARER T0KEN-OF-ENDPOINT\r\n\r\n",
            b"HTTP/1.1 500 X\r\nTransfer-Encoding: t0ken-of-endpoint\r\n\r\n",
            # Cut off within the secret.
            *(b"x" * left + b"t0ken-of-endpoint\r\n\r\n" for left in range(44, 55)),
        ):
            server = self.serve(says(said, close=True))
            endpoint = Endpoint(reactor, server.baseurl, LONG, "here", 1, Trust(), theirs)
            self.addCleanup(endpoint.close)
            outcome = yield endpoint.post(run)
            self.assertEqual(outcome.kind, MALFORMED)
            self.assertIn("***", outcome.error)
            self.assertNotIn("t0ken-", outcome.error.lower())
            self.assertNotIn("k3y", outcome.error)

    @inlineCallbacks
    def test_a_proxy_that_echoes(self) -> Any:
        """P12: it knows the password that it is asked with."""
        server = self.serve(says(b"got Basic dTpzM2NyZXQ=, s3cret\r\n\r\n", close=True))
        url = urlsplit(server.baseurl)
        assert url.hostname is not None and url.port is not None
        way = Way(proxy=Proxy(url.hostname, url.port, "Basic dTpzM2NyZXQ="))
        endpoint = Endpoint(reactor, "http://app.example/", LONG, "here", 1, Trust(), way=way)
        self.addCleanup(endpoint.close)
        outcome = yield endpoint.post(a_run())
        self.assertEqual(outcome.kind, CONNECT)
        self.assertIn("answered no HTTP: 'got ***, ***", outcome.error)

    @inlineCallbacks
    def test_echoes(self) -> Any:
        """
        P12: the page of an error that has all of the request has no secret of the endpoint's
        section or of the job, wherever it stands, whole or in part, at the end of what is kept too.
        """
        theirs = (
            *(("Authorization", "Bearer t0ken-of-endpoint"), ("X-Env", "live")),
            ("Content-Type", "text/markdown"),
        )
        own = (("X-Tenant", "s3cret-of-job"), ("X-Api-Key", "k3y-of-job"), ("X-Plain", "plainly"))
        delivery = Delivery(headers=own, redact=("x-tenant",))

        def echo(conversation: Conversation, request: bytes) -> None:
            page = b"x" * (MAX_BODY - len(request) - 8) + request + b"t0ken-of-endpoint live"
            flat = b" ".join(request.split(b"\r\n"))
            conversation.transport.write(answer(500, page, b"X-Echo: " + flat))

        server = self.serve(echo)
        endpoint = Endpoint(reactor, server.baseurl, LONG, "here", 1, Trust(), theirs)
        self.addCleanup(endpoint.close)
        outcome = yield endpoint.post(of(delivery))
        [request] = server.requests
        kept = outcome.saved.headers + outcome.saved.text
        for header, secret in (("Authorization", "t0ken"), ("X-Tenant", "s3c"), ("X-Api", "k3y")):
            self.assertIn(secret.encode(), request)
            self.assertNotIn(secret, kept)
            self.assertIn(header, kept)
        for plain in (
            "X-Env: live",
            "X-Plain: plainly",
            "Authorization: ***",
            "x" * 100,
            "/markdown",
        ):
            self.assertIn(plain, kept)

    def test_the_password_of_basic(self) -> None:
        """An endpoint takes it out of the base64, and may say it."""
        for value, password in (
            ("Basic dTpodW50ZXIyLXM=", b"hunter2-s"),  # u:hunter2-s
            ("basic dTpodW50ZXIyLXM=", b"hunter2-s"),
            ("Basic dTpv", None),  # u:o, which stands for much else
            ("Basic no*base64", None),
            ("Bearer dTpodW50ZXIyLXM=", None),
        ):
            found = set(secrets_of([("Authorization", value)]))
            self.assertIn(value.split(" ")[1].encode(), {*found, b"dTpv"})
            self.assertEqual({b"hunter2-s"} & found, {password} - {None})

    @inlineCallbacks
    def test_a_payload_in_a_field(self) -> Any:
        run = of(Delivery(payload=Payload(b"s3cret payload"), redact=("payload",)))
        found = yield self.saved(answer(500, b"", b"X-Error: no s3cret payload here"), run)
        self.assertEqual(found.headers, "X-Error: no *** here\nContent-Length: 0")

    @inlineCallbacks
    def test_a_redirect(self) -> Any:
        """Where it leads, without what may be a secret of the URL."""
        for location, shown in (
            (b"/login", "/login"),
            (b"https://app/login?next=%2F&key=1#x", "https://app/login?..."),
            (b"//user:pass@app:81/a@b", "//app:81/a@b"),
            (b"/a#token=1", "/a?..."),
        ):
            found = yield self.saved(answer(302, b"", b"LOCATION: " + location))
            self.assertEqual(found.headers, f"LOCATION: {shown}\nContent-Length: 0")

    @inlineCallbacks
    def test_meaning_stays(self) -> Any:
        """What an answer asks for is read as before."""
        outcome = yield self.post(says(answer(500, b"x", b"Dalga-Verdict: fail")))
        self.assertIs(outcome.meaning, Meaning.FAIL)
        self.assertEqual(outcome.saved.body, b"x")
