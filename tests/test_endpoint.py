"""
The POST to the endpoint, over real sockets: what goes out, and what becomes of each thing that can
come back or fail to. Trial itself fails a test that leaves a logged traceback, a connection or a
timer behind.
"""

from __future__ import annotations

import gzip
import os
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from tempfile import NamedTemporaryFile
from typing import Any

import treq
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, fail, gatherResults, inlineCallbacks
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.tcp import Client
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from dalga import __version__
from dalga.errors import ConfigError
from dalga.model.answers import Meaning
from dalga.model.attempt import ErrorKind
from dalga.model.key import JobKey
from dalga.model.options import Options
from dalga.model.run import Outcome, Run
from dalga.model.schedule import Once
from dalga.model.trace import trace_id
from dalga.outgoing import endpoint as dalga_endpoint
from dalga.outgoing import lookup as dalga_lookup
from dalga.outgoing.answer import MAX_BODY, MAX_HEAD
from dalga.outgoing.endpoint import MAX_RETRY_AFTER, Endpoint, parse_retry_after
from dalga.outgoing.failures import MISTAKE, PostFailed
from dalga.outgoing.trust import Trust
from dalga.outgoing.wire import Exchange
from tests.fakes import noting

reactor: Any = real_reactor

#: Short, for the tests that wait for it, and long, for those that must not come to it; in seconds.
SHORT, LONG = 0.2, 15.0

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SCHEDULED = datetime(2014, 11, 11, 22, 11, 40, 999_999, tzinfo=UTC)

Answer = Callable[["Conversation", bytes], None]


def a_run(
    path: str = "check_feed", body: str = "1234", attempt: int = 1, timeout: float = LONG
) -> Run:
    return Run(
        row=1,
        token=b"t",
        key=JobKey(path, body),
        schedule=Once(),
        options=Options(),
        anchor=SCHEDULED,
        scheduled=SCHEDULED,
        due=SCHEDULED,
        waited=False,
        id="0a1b",
        attempt=attempt,
        started=SCHEDULED,
        successes=0,
        claimed=SCHEDULED,
        lease_ends=100.0,
        payload=body.encode(),
        timeout=timeout,
    )


def says(answer: bytes, close: bool = False) -> Answer:
    """What a server does that answers each request with these bytes."""

    def say(conversation: Conversation, request: bytes) -> None:
        conversation.transport.write(answer)
        if close:
            conversation.transport.loseConnection()

    return say


def keeps_silent(conversation: Conversation, request: bytes) -> None:
    """What a server does that never answers."""


class Conversation(Protocol):
    """The server's side of one connection."""

    transport: Any

    def __init__(self, server: Server) -> None:
        self.server = server
        self.lost: Deferred[None] = Deferred()
        self._received = b""

    def connectionMade(self) -> None:
        self.server.connections.append(self)
        self.server.open += 1
        self.server.most_open = max(self.server.most_open, self.server.open)
        self.server.on_connection(self)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, rest = self._received.split(b"\r\n\r\n", 1)
            found = re.search(rb"\r\ncontent-length: ([0-9]+)", head.lower())
            length = int(found[1]) if found else 0
            if len(rest) < length:
                return
            request = head + b"\r\n\r\n" + rest[:length]
            self._received = rest[length:]
            self.server.requests.append(request)
            self.server.answer(self, request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.server.open -= 1
        self.lost.callback(None)


class Server(Factory):
    """
    An endpoint to POST to, which records what it gets and answers whatever bytes it is told to.
    """

    noisy = False

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.on_connection: Callable[[Conversation], None] = lambda conversation: None
        self.requests: list[bytes] = []
        self.connections: list[Conversation] = []
        self.open = 0
        self.most_open = 0
        self.port: int = 0
        self.host = "127.0.0.1"

    def buildProtocol(self, addr: object) -> Conversation:
        return Conversation(self)

    @property
    def baseurl(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


class EndpointCase(TestCase):
    timeout = 60

    def serve(self, answer: Answer, tls: Any = None) -> Server:
        server = Server(answer)
        if tls is None:
            listening = reactor.listenTCP(0, server, interface="127.0.0.1")
        else:
            listening = reactor.listenSSL(0, server, tls, interface="127.0.0.1")
        server.port = listening.getHost().port

        @inlineCallbacks
        def stop() -> Any:
            yield listening.stopListening()
            for conversation in server.connections:
                if not conversation.lost.called:
                    conversation.transport.abortConnection()
                yield conversation.lost

        self.addCleanup(stop)
        return server

    def endpoint(self, baseurl: str, timeout: float = LONG, slots: int = 10) -> Endpoint:
        endpoint = Endpoint(reactor, baseurl, timeout, "here-1", slots, Trust())
        self.addCleanup(endpoint.close)
        return endpoint

    def resolve(self, name: str, *ports: int) -> None:
        """Have a name resolve to ports of this machine: to as many addresses of the host."""

        def look_up(host: str, port: int, **_: object) -> list[Any]:
            if host != name:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*kind, ("127.0.0.1", port)) for port in ports]

        self.patch(dalga_lookup, "getaddrinfo", look_up)

    def a_full_port(self) -> int:
        """A port where a connect gets no answer at all, as too many wait for the accept."""
        listening = socket.socket()
        self.addCleanup(listening.close)
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            filler = socket.socket()
            self.addCleanup(filler.close)
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        port: int = listening.getsockname()[1]
        return port

    def post(
        self, answer: Answer, timeout: float = LONG, run: Run | None = None
    ) -> Deferred[Outcome]:
        """POST one run to a server that answers so."""
        posted = (run or a_run())._replace(timeout=timeout)
        return self.endpoint(self.serve(answer).baseurl, timeout).post(posted)


class RequestTests(EndpointCase):
    """What goes out."""

    @inlineCallbacks
    def test_the_exact_bytes(self) -> Any:
        """
        A POST is these bytes: the scheduled time is in whole seconds, and nothing invites gzip.
        """
        server = self.serve(says(OK))
        outcome = yield self.endpoint(server.baseurl).post(a_run(attempt=3))
        self.assertEqual((outcome.status, outcome.error, outcome.retry_after), (200, "", None))
        self.assertTrue(0 < outcome.elapsed < LONG)
        [request] = server.requests
        trace = trace_id("0a1b").encode()
        first, *headers = request.split(b"\r\n\r\n")[0].split(b"\r\n")
        self.assertEqual(first, b"POST /check_feed HTTP/1.1")
        self.assertEqual(
            sorted(headers),
            sorted(
                [
                    b"Host: 127.0.0.1:%d" % server.port,
                    b"Content-Length: 4",
                    b"Content-Type: text/plain",
                    b"User-Agent: dalga/" + __version__.encode(),
                    b"Accept-Encoding: identity",
                    b"Dalga-Sched: 2014-11-11T22:11:40Z",
                    b"Dalga-Instance: here-1",
                    b"Dalga-Run: 0a1b",
                    b"Dalga-Attempt: 3",
                    b"traceparent: 00-%b-%b00000003-01" % (trace, trace[8:16]),
                ]
            ),
        )
        self.assertEqual(request.split(b"\r\n\r\n")[1], b"1234")

    @inlineCallbacks
    def test_headers_of_the_configuration(self) -> Any:
        """They go with each POST; a Content-Type and a User-Agent take the place of Dalga's."""
        server = self.serve(says(OK))
        given = (("X-Key", "a: b"), ("content-type", "application/json"), ("USER-AGENT", "us/1"))
        endpoint = Endpoint(reactor, server.baseurl, LONG, "here-1", 10, Trust(), given)
        self.addCleanup(endpoint.close)
        for _ in range(2):
            yield endpoint.post(a_run())
        for request in server.requests:
            lines = request.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
            self.assertEqual(len(lines), 11)
            names = [line.partition(b":")[0].lower() for line in lines]
            self.assertEqual(len(set(names)), 11)
            for line in (b"X-Key: a: b", b"content-type: application/json", b"USER-AGENT: us/1"):
                self.assertIn(line, lines)

    @inlineCallbacks
    def test_nothing_is_logged(self) -> Any:
        """What is to be said of a POST is in its outcome: no factory starts or stops in the log."""
        events: list[Any] = []
        globalLogPublisher.addObserver(noting(events))
        self.addCleanup(globalLogPublisher.removeObserver, noting(events))
        server = self.serve(keeps_silent)
        endpoint = self.endpoint(server.baseurl)
        server.answer = says(OK)
        events.clear()  # the server's own
        yield endpoint.post(a_run())
        yield endpoint.close()
        yield server.connections[0].lost
        self.assertEqual(events, [])

    @inlineCallbacks
    def test_the_runs_payload(self) -> Any:
        """It is the body that goes out, whatever octets it has."""
        server = self.serve(says(OK))
        payload = bytes(range(256))
        yield self.endpoint(server.baseurl).post(a_run()._replace(payload=payload))
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        self.assertEqual(body, payload)
        self.assertTrue(head.endswith(b"\r\nContent-Length: 256"), head)

    @inlineCallbacks
    def test_any_text_is_a_body(self) -> Any:
        """A body goes out as UTF-8, line ends, NUL and all."""
        server = self.serve(says(OK))
        body = "\r\n\r\nPOST / HTTP/1.1\r\n\x00 jöb ✓ 𝄞"
        yield self.endpoint(server.baseurl).post(a_run(body=body))
        [request] = server.requests
        self.assertEqual(request.split(b"\r\n\r\n", 1)[1], body.encode())

    @inlineCallbacks
    def test_the_scheduled_time_is_utc(self) -> Any:
        """Whatever zone an instant comes in, dalga-sched says it in UTC; years have four digits."""
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        for scheduled in (
            datetime(2014, 11, 12, 1, 11, 40, tzinfo=timezone(timedelta(hours=3))),
            datetime(33, 4, 3, 15, 0, tzinfo=UTC),
        ):
            yield endpoint.post(a_run()._replace(scheduled=scheduled))
        self.assertIn(b"Dalga-Sched: 2014-11-11T22:11:40Z\r\n", server.requests[0])
        self.assertIn(b"Dalga-Sched: 0033-04-03T15:00:00Z\r\n", server.requests[1])

    @inlineCallbacks
    def test_a_path_stays_a_path(self) -> Any:
        """
        P11: whatever a path looks like, it arrives behind baseurl's, joined by just one slash.
        """
        server = self.serve(says(OK))
        table = {
            "check_feed": b"/check_feed",
            "a/b": b"/a/b",
            "/a": b"/a",
            "a/": b"/a/",
            "a//b": b"/a//b",
            "@evil.example": b"/%40evil.example",
            ":80@evil.example/x": b"/%3A80%40evil.example/x",
            "http://evil.example/x": b"/http%3A//evil.example/x",
            "//evil.example/x": b"/evil.example/x",
            "\\\\evil.example\\x": b"/%5C%5Cevil.example%5Cx",
            "?x": b"/%3Fx",
            "#x": b"/%23x",
            ";x=1": b"/%3Bx%3D1",
            "%2e%2e/x": b"/%252e%252e/x",
            "..%2fx": b"/..%252fx",
            "a%20b": b"/a%2520b",
            "a b+c": b"/a%20b%2Bc",
            "jöb/✓": b"/j%C3%B6b/%E2%9C%93",
            "é": b"/%C3%A9",
            "e\u0301": b"/e%CC%81",
            "~user": b"/~user",
        }
        bases = {
            "": b"",
            "/": b"",
            "/api": b"/api",
            "/api/": b"/api",
            "/a%2Fb/%7e;v=1/": b"/a%2Fb/%7e;v=1",
        }
        for base, prefix in bases.items():
            endpoint = self.endpoint(f"http://127.0.0.1:{server.port}{base}")
            for path, target in table.items():
                outcome = yield endpoint.post(a_run(path))
                self.assertEqual(outcome.status, 200, (base, path, outcome))
                line = server.requests[-1].split(b"\r\n")[0]
                self.assertEqual(line, b"POST " + prefix + target + b" HTTP/1.1")
        self.assertEqual(len(server.requests), len(table) * len(bases))

    @inlineCallbacks
    def test_a_path_that_got_past_all_checks_still_goes_to_the_same_server(self) -> Any:
        """P11 holds by construction: there is no connection to anywhere else to be had."""
        server, evil = self.serve(says(OK)), self.serve(says(OK))
        target = f"@127.0.0.1:{evil.port}/x"
        self.patch(dalga_endpoint, "target_path", lambda path: target)
        outcome = yield self.endpoint(server.baseurl).post(a_run())
        self.assertEqual((len(server.requests), len(evil.connections)), (1, 0), outcome)

    @inlineCallbacks
    def test_a_host_name_and_an_ipv6_address(self) -> Any:
        """baseurl may name its host, and a job's POST says that name."""
        server = self.serve(says(OK))
        outcome = yield self.endpoint(f"http://localhost:{server.port}").post(a_run())
        self.assertEqual(outcome.status, 200)
        self.assertIn(b"Host: localhost:%d\r\n" % server.port, server.requests[0])
        six = Server(says(OK))
        listening = reactor.listenTCP(0, six, interface="::1")
        self.addCleanup(listening.stopListening)
        port = listening.getHost().port
        endpoint = self.endpoint(f"http://[::1]:{port}/")
        outcome = yield endpoint.post(a_run())
        self.assertEqual(outcome.status, 200)
        self.assertIn(b"Host: [::1]:%d\r\n" % port, six.requests[0])
        yield endpoint.close()
        yield six.connections[0].lost

    @inlineCallbacks
    def test_a_host_name_with_an_underscore(self) -> Any:
        """Containers are called so, and their network resolves what IDNA would refuse."""
        server = self.serve(says(OK))
        self.resolve("my_app", server.port)
        outcome = yield self.endpoint(f"http://my_app:{server.port}/").post(a_run())
        self.assertEqual((outcome.status, outcome.error), (200, ""))
        self.assertIn(b"Host: my_app:%d\r\n" % server.port, server.requests[0])

    @inlineCallbacks
    def test_the_port_in_the_host_header(self) -> Any:
        """RFC 9110 section 7.2: it is left out where it is the scheme's own, and only there."""
        for baseurl, expected, port in (
            ("http://app", b"app", 80),
            ("http://app:80/base", b"app", 80),
            ("http://app:443/", b"app:443", 443),
            ("http://app:8080/", b"app:8080", 8080),
            ("http://[::1]/", b"[::1]", 80),
            ("http://[::1]:81/", b"[::1]:81", 81),
            ("https://app/", b"app", 443),
            ("https://app:443/", b"app", 443),
            ("https://app:80/", b"app:80", 80),
        ):
            endpoint = self.endpoint(baseurl)
            sent: list[bytes] = []

            def request(
                method: bytes, url: bytes, headers: object, exchange: Any, sent: list[bytes] = sent
            ) -> Deferred[Any]:
                sent.append(exchange.octets)
                return fail(PostFailed(MISTAKE))

            self.patch(endpoint._pool, "request", request)
            yield endpoint.post(a_run())
            [host] = re.findall(rb"\r\nHost: (.*)\r\n", sent[0])
            self.assertEqual((host, endpoint._route.lookup._port), (expected, port), baseurl)

    @inlineCallbacks
    def test_the_instance(self) -> Any:
        """P11: whatever an instance calls itself, it is one header of visible characters."""
        server = self.serve(says(OK))
        for instance, expected in (
            ("web-1.example/2", b"web-1.example/2"),
            ("w\u00e9b 1", b"w?b?1"),
            ("a\r\nX-Evil: 1", b"a??X-Evil:?1"),
            ("", b""),
        ):
            server.requests.clear()
            endpoint = Endpoint(reactor, server.baseurl, LONG, instance, 10, Trust())
            self.addCleanup(endpoint.close)
            outcome = yield endpoint.post(a_run())
            self.assertEqual(outcome.status, 200)
            [found] = re.findall(rb"\r\nDalga-Instance: (.*)\r\n", server.requests[0])
            self.assertEqual(found, expected)

    @inlineCallbacks
    def test_a_host_with_an_address_that_does_not_answer(self) -> Any:
        """The next address is tried soon, as a due POST has no time to lose."""
        server = self.serve(says(OK))
        self.resolve("app", self.a_full_port(), server.port)
        outcome = yield self.endpoint("http://app/").post(a_run())
        self.assertEqual((outcome.status, outcome.error), (200, ""))
        self.assertTrue(outcome.elapsed < 2, outcome)

    def test_only_http_is_spoken(self) -> None:
        """P11: a URL of another scheme, or without a proper host, makes no endpoint."""
        for url in (
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "127.0.0.1:5000",
            "http:///x",
            "http://a..b/",
            "http://" + "a" * 64 + "/",
            "http://" + "a." * 127 + "a/",
        ):
            error = self.assertRaises(ConfigError, Endpoint, reactor, url, 1.0, "i", 1, Trust())
            self.assertIn(url, str(error))


class AnswerTests(EndpointCase):
    """What comes back, where it is HTTP."""

    @inlineCallbacks
    def test_the_status_decides(self) -> Any:
        """Any status is an outcome with that status and no error."""
        for status in (200, 201, 204, 304, 400, 404, 429, 500, 503, 599, 999):
            head = b"HTTP/1.1 %d Whatever\r\n" % status
            outcome = yield self.post(says(head + b"Content-Length: 0\r\n\r\n"))
            self.assertEqual((outcome.status, outcome.error), (status, ""))

    @inlineCallbacks
    def test_a_redirect_is_not_followed(self) -> Any:
        """P11: a 30x is a failed outcome, and nobody is called."""
        elsewhere = self.serve(says(OK))
        for status in (301, 302, 303, 307, 308):
            location = b"Location: http://127.0.0.1:%d/\r\n" % elsewhere.port
            head = b"HTTP/1.1 %d Over there\r\n" % status + location
            server = self.serve(says(head + b"Content-Length: 0\r\n\r\n"))
            outcome = yield self.endpoint(server.baseurl).post(a_run())
            self.assertEqual(outcome.status, status)
            self.assertEqual(len(server.requests), 1)
        self.assertEqual(elsewhere.connections, [])

    @inlineCallbacks
    def test_every_framing(self) -> Any:
        """A length, chunks, the connection's end, HTTP/1.0 and interim answers are understood."""
        for answer, close in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", False),
            (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", False),
            (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", False),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                False,
            ),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n", False),
            (b"HTTP/1.1 200 OK\r\n\r\nhello", True),
            (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", True),
            (b"HTTP/1.0 200 OK\r\n\r\nhello", True),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello", True),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello", False),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Identity\r\nContent-Length: 5\r\n\r\nhello",
                False,
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity, Chunked\r\n\r\n0\r\n\r\n",
                False,
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 05\r\n\r\nhello", False),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 00\r\n\r\n", False),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", False),
            (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, False),
            (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK, False),
        ):
            outcome = yield self.post(says(answer, close))
            self.assertEqual((outcome.status, outcome.error), (200, ""), answer)

    @inlineCallbacks
    def test_a_body_that_must_not_be_does_not_answer_the_next_post(self) -> Any:
        """P2: what a 204 or 304 must not have, and has, is no answer to another job."""
        forged = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        for status in (204, 304):
            server = self.serve(keeps_silent)
            head = b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n\r\n" % (status, len(forged))

            def answer(
                conversation: Conversation,
                request: bytes,
                server: Server = server,
                head: bytes = head,
            ) -> None:
                if len(server.requests) == 1:
                    conversation.transport.write(head)
                    return
                if conversation is server.connections[0]:
                    conversation.transport.write(forged)  # the body, late
                conversation.transport.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

            server.answer = answer
            endpoint = self.endpoint(server.baseurl)
            for expected in (status, 500):
                outcome = yield endpoint.post(a_run())
                self.assertEqual(outcome.status, expected)

    @inlineCallbacks
    def test_a_huge_body_is_cut_and_the_status_counts(self) -> Any:
        """P10: of 100 MB no more is taken than a cap, and what the sockets hold between."""
        size, sent = 100 * 1024 * 1024, 0
        lost: Deferred[None] = Deferred()

        def answer(conversation: Conversation, request: bytes) -> None:
            class Producer:
                def resumeProducing(self) -> None:
                    nonlocal sent
                    if sent == size:
                        conversation.transport.unregisterProducer()
                        return
                    conversation.transport.write(bytes(65536))
                    sent += 65536

                def stopProducing(self) -> None:
                    """The connection was lost."""

            conversation.lost.chainDeferred(lost)
            conversation.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            conversation.transport.registerProducer(Producer(), False)

        outcome = yield self.post(answer)
        self.assertEqual((outcome.status, outcome.error), (200, ""))
        yield lost
        self.assertTrue(MAX_BODY <= sent < 16 * 1024 * 1024, sent)

    @inlineCallbacks
    def test_a_body_as_long_as_the_cap_is_read_to_its_end(self) -> Any:
        """One byte more and the connection is dropped; up to there it is kept for the next POST."""
        for size, connections in ((MAX_BODY, 1), (MAX_BODY + 1, 2)):
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
            server = self.serve(says(head + bytes(size)))
            endpoint = self.endpoint(server.baseurl)
            for _ in range(2):
                outcome = yield endpoint.post(a_run())
                self.assertEqual(outcome.status, 200)
            self.assertEqual(len(server.connections), connections)

    @inlineCallbacks
    def test_a_gzip_bomb_is_not_inflated(self) -> Any:
        """P10: what was not asked to be compressed is not inflated; some of it isn't even gzip."""
        for body in (gzip.compress(bytes(10 * 1024 * 1024)), b"no gzip at all"):
            head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
            server = self.serve(says(head % len(body) + body))
            endpoint = self.endpoint(server.baseurl)
            for _ in range(2):
                outcome = yield endpoint.post(a_run())
                self.assertEqual((outcome.status, outcome.error), (200, ""))
            # 10 MB of zeros are 10 KB of gzip: under the cap as they came, over it if inflated.
            self.assertEqual(len(server.connections), 1)

    @inlineCallbacks
    def test_cookies_are_not_kept(self) -> Any:
        """What one answer sets, the next POST does not send, and it takes no room (P10)."""
        answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
        server = self.serve(says(answer))
        for host in ("127.0.0.1", "localhost"):
            endpoint = self.endpoint(f"http://{host}:{server.port}/")
            for _ in range(2):
                yield endpoint.post(a_run())
            self.assertEqual(list(endpoint._client._cookiejar), [])
        self.assertEqual(len(server.requests), 4)
        self.assertNotIn(b"cookie", b"".join(server.requests).lower())

    @inlineCallbacks
    def test_each_answer_has_its_own_head(self) -> Any:
        """P10: long headers, if not too long, are so in each answer of a connection."""

        def answer(conversation: Conversation, request: bytes) -> None:
            conversation.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: " + b"x" * (MAX_HEAD // 2) + b"\r\n"
            )
            reactor.callLater(0.05, conversation.transport.write, b"\r\nok")

        server = self.serve(answer)
        endpoint = self.endpoint(server.baseurl)
        for _ in range(3):
            outcome = yield endpoint.post(a_run())
            self.assertEqual((outcome.status, outcome.error), (200, ""))
        self.assertEqual(len(server.connections), 1)

    @inlineCallbacks
    def test_retry_after_comes_along(self) -> Any:
        """Retry-After is part of the outcome, also where it makes no sense."""
        for value, expected in (
            (b"120", timedelta(seconds=120)),
            (b"Tue, 11 Nov 2014 22:11:40 GMT", datetime(2014, 11, 11, 22, 11, 40, tzinfo=UTC)),
            (b"soon", None),
            (b"9" * 5000, MAX_RETRY_AFTER),
        ):
            head = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: " + value
            outcome = yield self.post(says(head + b"\r\n\r\n"))
            self.assertEqual((outcome.status, outcome.retry_after), (503, expected))

    @inlineCallbacks
    def test_what_steers_comes_along(self) -> Any:
        """
        Dalga-Verdict and Dalga-Next-Run are part of the outcome, whatever the status; those of an
        interim answer and of a trailer are not.
        """
        steers = b"dalga-verdict: Fail\r\nDALGA-NEXT-RUN:  5\r\n"
        ok, end = b"HTTP/1.1 200 OK\r\n", b"Content-Length: 0\r\n\r\n"
        hint = b"HTTP/1.1 103 Early Hints\r\nDalga-Verdict: remove\r\n\r\n"
        chunks = b"Transfer-Encoding: chunked\r\n\r\n0\r\nDalga-Verdict: fail\r\n\r\n"
        both = (Meaning.FAIL, timedelta(seconds=5))
        for answer, expected in (
            (ok + steers + end, both),
            (b"HTTP/1.1 500 No\r\n" + steers + end, both),
            (b"HTTP/1.1 204 No\r\n" + steers + b"\r\n", both),
            (hint + ok + b"Dalga-Verdict: disable\r\n" + end, (Meaning.DISABLE, None)),
            (hint + ok + end, (None, None)),
            (ok + chunks, (None, None)),
            (ok + b"Dalga-Verdict: so so\r\n" + end, (None, None)),
        ):
            outcome = yield self.post(says(answer))
            self.assertEqual((outcome.error, outcome.meaning, outcome.next_run), ("", *expected))


class ClientTests(EndpointCase):
    """The client is treq's, but for what it does with a request."""

    def exchange(self, endpoint: Endpoint) -> Any:
        octets = endpoint._message(a_run())
        return Exchange(reactor, endpoint._route, octets, LONG)

    @inlineCallbacks
    def test_as_treq_is_called(self) -> Any:
        """treq's methods send a request, and treq's functions take the answer, as it came."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=latin-1\r\n"
        answer = head + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\xfc!"
        server = self.serve(says(answer))
        endpoint = self.endpoint(server.baseurl)
        for method in (endpoint._client.post, endpoint._client.put):
            response: Any = yield method(server.baseurl, data=self.exchange(endpoint))
            self.assertEqual(response.code, 200)
            for _ in range(2):
                content = yield treq.content(response)
                text = yield treq.text_content(response)
                self.assertEqual((content, text), (b"\xfc!", "\xfc!"))
        self.assertEqual(len(server.requests), 2)

    def test_what_it_does_not_do(self) -> None:
        """It refuses what treq would do, rather than leave it out unsaid."""
        endpoint = self.endpoint("http://127.0.0.1:1/")
        post: Any = endpoint._client.post
        for name in ("allow_redirects", "auth", "cookies", "headers", "json", "params", "timeout"):
            with self.assertRaisesRegex(TypeError, f"this client has no {name}"):
                post("http://127.0.0.1:1/", self.exchange(endpoint), **{name: True})


class FailureTests(EndpointCase):
    """What does not come back, or is no answer: an outcome with a sentence, and no traceback."""

    @inlineCallbacks
    def test_refused(self) -> Any:
        """Where nothing listens, the outcome says where that was."""
        unused = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        port = unused.getHost().port
        yield unused.stopListening()
        outcome = yield self.endpoint(f"http://127.0.0.1:{port}/").post(a_run())
        self.assertEqual(outcome.status, None)
        self.assertEqual(outcome.error, f"connection refused by 127.0.0.1:{port}")

    @inlineCallbacks
    def test_an_unknown_host(self) -> Any:
        """A name that can't be resolved is named. (RFC 6761: .invalid never is.)"""
        outcome = yield self.endpoint("http://dalga.invalid/").post(a_run())
        self.assertTrue(
            outcome.error.startswith("could not resolve host name dalga.invalid: "), outcome.error
        )

    @inlineCallbacks
    def test_silence(self) -> Any:
        """P3: no answer within the time-out, and the connection is dropped."""
        server = self.serve(keeps_silent)
        outcome = yield self.endpoint(server.baseurl).post(a_run(timeout=SHORT))
        self.assertEqual((outcome.status, outcome.error), (None, "no answer within 0.2 s"))
        self.assertTrue(SHORT <= outcome.elapsed < LONG, outcome)
        yield server.connections[0].lost

    @inlineCallbacks
    def test_no_accept(self) -> Any:
        """The time-out covers the connect too: a full backlog answers nothing at all."""
        where = f"127.0.0.1:{self.a_full_port()}"
        outcome = yield self.endpoint(f"http://{where}/", SHORT).post(a_run(timeout=SHORT))
        self.assertEqual(
            outcome.error, f"could not connect to {where} within 0.2 s, nothing was sent"
        )

    @inlineCallbacks
    def test_one_time_out_for_all(self) -> Any:
        """P3: one deadline for all of the answer, which no trickle prolongs; 200 or not."""
        for start, drop in (
            (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
            (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
            (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        ):
            server = self.serve(trickles(start, drop, SHORT / 8))
            outcome = yield self.endpoint(server.baseurl, SHORT).post(a_run(timeout=SHORT))
            self.assertEqual((outcome.status, outcome.error), (None, "no answer within 0.2 s"))
            self.assertTrue(SHORT <= outcome.elapsed < LONG, outcome)
            yield server.connections[0].lost

    @inlineCallbacks
    def test_a_process_that_was_stopped_while_connecting_sends_nothing(self) -> Any:
        """
        P3: it is past the deadline when it goes on, and another instance may have the run by then.

        The reactor looks at its sockets before it looks at the clock, and this one is connected and
        readable at once, as the server has lost patience. A jump of the clock plays the stop.
        """
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        listening.setblocking(False)
        accepted: list[socket.socket] = []
        seconds, look = reactor.seconds, reactor.doIteration
        stopped_for = 0.0

        def look_after_a_stop(delay: float) -> None:
            nonlocal stopped_for
            if not accepted:
                try:
                    accepted.append(listening.accept()[0])
                except BlockingIOError:
                    pass  # it does not connect yet
                else:
                    accepted[0].sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
                    stopped_for = 2 * LONG
                    delay = 0
            look(delay)

        self.patch(reactor, "doIteration", look_after_a_stop)
        self.patch(reactor, "seconds", lambda: seconds() + stopped_for)
        where = f"127.0.0.1:{listening.getsockname()[1]}"
        outcome = yield self.endpoint(f"http://{where}/").post(a_run())
        self.assertEqual(
            outcome.error, f"no time was left for the POST to {where} within 15 s, nothing was sent"
        )
        self.assertIs(outcome.kind, ErrorKind.TIMEOUT)
        accepted[0].setblocking(True)
        self.addCleanup(accepted[0].close)
        received = yield deferToThread(receive_all, accepted[0])
        self.assertEqual(received, b"")

    @inlineCallbacks
    def test_a_connection_closed_at_once(self) -> Any:
        """Closed on connect, or on the request: there was no answer."""
        server = self.serve(keeps_silent)
        server.on_connection = lambda conversation: conversation.transport.loseConnection()
        outcome = yield self.endpoint(server.baseurl).post(a_run())
        self.assertEqual(outcome.error, "the connection was closed before an answer")
        for how in ("loseConnection", "abortConnection"):

            def hang_up(conversation: Conversation, request: bytes, how: str = how) -> None:
                getattr(conversation.transport, how)()

            outcome = yield self.post(hang_up)
            self.assertEqual(
                (outcome.status, outcome.error),
                (None, "the connection was closed before an answer"),
            )

    @inlineCallbacks
    def test_a_connection_closed_too_early(self) -> Any:
        """An answer that breaks off is none, be its status 200."""
        for answer in (
            b"HTTP/1.1 20",
            b"HTTP/1.1 200 OK\r\nContent-Len",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ):
            outcome = yield self.post(says(answer, close=True))
            self.assertEqual(
                (outcome.status, outcome.error),
                (None, "the connection was closed in the middle of the answer"),
                answer,
            )

    @inlineCallbacks
    def test_what_is_no_http(self) -> Any:
        """What can't be read as HTTP is no answer; the log shows its start and not all of it."""
        for answer, error in (
            (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP: 'SSH-2.0-OpenSSH_9.2'"),
            (b"220 mail ESMTP ready\r\n", "the answer is not HTTP: "),
            (b"HTTP/1.1 OK\r\n\r\n", "the answer is not HTTP: 'HTTP/1.1 OK'"),
            *(
                (
                    b"HTTP/1.1 %b OK\r\nContent-Length: 0\r\n\r\n" % code,
                    f"the answer is not HTTP: 'HTTP/1.1 {code.decode()} OK'",
                )
                for code in (b"2_00", b"+200", b"0200", b"20", b" 200")
            ),
            (b"x" * 500 + b"\r\n", "the answer is not HTTP: '" + "x" * 60 + "'..."),
            # There is never a line of these.
            (b"x" * 500, "the answer is not HTTP: '" + "x" * 60 + "'..."),
            (b"\x15\x03\x03\x00\x02\x02\x28", "the answer is not HTTP: '\\x15\\x03"),
            (b"\x00\x00\x12\x04", "the answer is not HTTP: '\\x00\\x00\\x12\\x04'"),
            (b"FOO/1.1 200 OK\r\n\r\n", "the answer is not HTTP: 'FOO/1.1 200'"),
            (b"FOO/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "the answer is not HTTP: "),
            (b"HTTP/1.1 0 x\r\nContent-Length: 0\r\n\r\n", "the answer is not HTTP: "),
            (b"HTTP/1.1 -1 x\r\nContent-Length: 0\r\n\r\n", "the answer is not HTTP: "),
            (b"HTTP/1.1 " + b"9" * 4000 + b" x\r\n\r\n", "the answer is not HTTP: "),
        ):
            yield self.check_refused(answer, error)

    @inlineCallbacks
    def test_what_is_malformed(self) -> Any:
        """What is wrong with an answer is said in plain words, never in a library's."""
        for rest, words in (
            (b"no colon\r\n\r\n", "'no colon' is no header"),
            (b" A: b\r\n\r\n", "' A: b' is no header"),
            (b"Content-Length: -5\r\n\r\n", "its Content-Length is '-5'"),
            (b"Content-Length: +5\r\n\r\nhello", "its Content-Length is '+5'"),
            (b"Content-Length: 1_0\r\n\r\n", "its Content-Length is '1_0'"),
            (b"Content-Length: a\r\n\r\n", "its Content-Length is 'a'"),
            (b"Content-Length:\r\n\r\n", "its Content-Length is ''"),
            (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "its Content-Length is '1, 2'"),
            (
                b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
                "its Content-Length is '" + "9" * 60 + "'...",
            ),
            (b"Transfer-Encoding: gzip\r\n\r\n", "its Transfer-Encoding is 'gzip'"),
            (
                b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                "its Transfer-Encoding is 'gzip, chunked'",
            ),
            (
                b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
                "its Transfer-Encoding is 'chunked, gzip'",
            ),
            *(
                (
                    b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
                    "its body is not in the chunks that its headers announce",
                )
                for chunks in (b"xyz\r\n", b"-1\r\nx", b"1\r\nxyz\r\n", b"1" * 2000)
            ),
        ):
            yield self.check_refused(
                b"HTTP/1.1 200 OK\r\n" + rest, f"the answer is malformed HTTP: {words}"
            )

    @inlineCallbacks
    def check_refused(self, answer: bytes, error: str) -> Any:
        """:param error: what the outcome's words begin with."""
        server = self.serve(says(answer))
        outcome = yield self.endpoint(server.baseurl).post(a_run())
        self.assertEqual(outcome.status, None, answer)
        self.assertTrue(outcome.error.startswith(error), (answer, outcome.error))
        self.assertTrue(len(outcome.error) < 250 and outcome.error.isprintable())
        yield server.connections[0].lost

    @inlineCallbacks
    def test_endless_headers(self) -> Any:
        """P10: headers are read up to a cap too, in one line or in many, final or interim."""
        for start, more in (
            (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
            (b"HTTP/1.1 200 OK\r\nX: y", b"y"),
            (b"HTTP/1.1 200 OK\r\nX: y", b"\r\n y"),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ):
            server = self.serve(says(start + more * (MAX_HEAD // len(more) + 1)))
            outcome = yield self.endpoint(server.baseurl).post(a_run())
            self.assertEqual(outcome.status, None)
            self.assertEqual(outcome.error, "the answer's headers are longer than 16 KiB", more)
            yield server.connections[0].lost

    @inlineCallbacks
    def test_a_mistake_of_ours_is_an_outcome_too(self) -> Any:
        """Even what nobody has thought of fails one attempt and nothing else; it is logged."""
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        outcome = yield endpoint.post(a_run()._replace(id="\ud800"))
        self.assertEqual(outcome.status, None)
        self.assertEqual(outcome.error, "internal error, which Dalga's log describes")
        self.assertEqual(len(self.flushLoggedErrors(UnicodeEncodeError)), 1)
        outcome = yield endpoint.post(a_run())
        self.assertEqual(outcome.status, 200)

    @inlineCallbacks
    def test_cancelling_gives_an_outcome(self) -> Any:
        """A POST can be given up at each stage: its connection is dropped; that is an outcome."""
        server = self.serve(keeps_silent)
        endpoint = self.endpoint(server.baseurl)
        early = endpoint.post(a_run())
        early.cancel()
        outcome = self.successResultOf(early)
        self.assertEqual(outcome.error, "given up before anything was sent")
        server.answer = says(OK)
        yield endpoint.post(a_run(attempt=2))
        [request] = server.requests
        self.assertIn(b"Dalga-Attempt: 2\r\n", request)

        for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"):
            server = self.serve(keeps_silent)
            asked: Deferred[None] = Deferred()

            def say(
                conversation: Conversation,
                request: bytes,
                answer: bytes = answer,
                asked: Deferred[None] = asked,
            ) -> None:
                conversation.transport.write(answer)
                asked.callback(None)

            server.answer = say
            posted = self.endpoint(server.baseurl).post(a_run())
            yield asked
            posted.cancel()
            outcome = self.successResultOf(posted)
            self.assertEqual(outcome.error, "given up before there was an answer")
            yield server.connections[0].lost


def trickles(start: bytes, drop: bytes, every: float) -> Answer:
    """What a server does that never comes to an end."""

    def trickle(conversation: Conversation, request: bytes) -> None:
        falling: IDelayedCall

        def fall() -> None:
            nonlocal falling
            conversation.transport.write(drop)
            falling = reactor.callLater(every, fall)

        conversation.transport.write(start)
        falling = reactor.callLater(every, fall)
        conversation.lost.addCallback(lambda _: falling.cancel())

    return trickle


def receive_all(connection: socket.socket) -> bytes:
    """What comes in until the other side closes or resets the connection."""
    connection.settimeout(LONG)
    received = b""
    try:
        while data := connection.recv(4096):
            received += data
    except ConnectionResetError:
        pass  # dropped, not closed in an orderly way
    return received


class ConnectionTests(EndpointCase):
    """Connections are kept and used again, where that is safe."""

    @inlineCallbacks
    def test_one_after_the_other(self) -> Any:
        """Twenty POSTs in sequence take one connection, whatever their answers' framing."""
        framings = (
            OK,
            b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
        )
        server = self.serve(keeps_silent)
        server.answer = lambda conversation, request: conversation.transport.write(
            framings[len(server.requests) % len(framings)]
        )
        endpoint = self.endpoint(server.baseurl)
        for _ in range(20):
            outcome = yield endpoint.post(a_run())
            self.assertEqual(outcome.error, "")
        self.assertEqual((len(server.requests), len(server.connections)), (20, 1))

    @inlineCallbacks
    def test_many_at_once(self) -> Any:
        """Ten times ten at once take ten connections in all: all of them are kept."""
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl, slots=10)
        for _ in range(10):
            outcomes = yield gatherResults([endpoint.post(a_run()) for _ in range(10)])
            self.assertEqual([outcome.status for outcome in outcomes], [200] * 10)
        self.assertEqual((len(server.requests), len(server.connections)), (100, 10))

    @inlineCallbacks
    def test_no_more_connections_are_kept_than_there_are_slots(self) -> Any:
        """Of a hundred connections used at once as many are left as there are slots."""
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl, slots=3)
        yield gatherResults([endpoint.post(a_run()) for _ in range(100)])
        yield gatherResults([endpoint.post(a_run()) for _ in range(3)])
        kept = [c for c in server.connections if not c.lost.called]
        self.assertTrue(len(server.connections) <= 100 and len(kept) >= 3, len(kept))
        yield gatherResults([c.lost for c in server.connections if c not in kept[-3:]])

    @inlineCallbacks
    def test_a_connection_that_the_server_gives_up_is_not_used_again(self) -> Any:
        """HTTP/1.0 keeps no connection unless it says so; "close" means that in any spelling."""
        for head in (
            b"HTTP/1.0 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: Close\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\n",
        ):
            server = self.serve(says(head + b"Content-Length: 0\r\n\r\n"))
            endpoint = self.endpoint(server.baseurl)
            for _ in range(2):
                outcome = yield endpoint.post(a_run())
                self.assertEqual((outcome.status, outcome.error), (200, ""), head)
            self.assertEqual(len(server.connections), 2, head)

    @inlineCallbacks
    def test_a_connection_is_not_kept_after_an_answer_without_a_body(self) -> Any:
        """A body after all, which comes late, would be taken for the next run's answer."""
        for status in (204, 304):
            for length in (b"", b"Content-Length: 0\r\n"):
                server = self.serve(says(b"HTTP/1.1 %d Whatever\r\n%b\r\n" % (status, length)))
                endpoint = self.endpoint(server.baseurl)
                for _ in range(2):
                    outcome = yield endpoint.post(a_run())
                    self.assertEqual(outcome.status, status)
                self.assertEqual(len(server.connections), 2)

    @inlineCallbacks
    def test_an_idle_connection_is_not_kept_for_long(self) -> Any:
        """It is closed from this side, before servers do it: a POST might cross their closing."""
        server = self.serve(says(OK))
        yield self.endpoint(server.baseurl).post(a_run())
        seconds = reactor.seconds
        self.patch(reactor, "seconds", lambda: seconds() + 2)
        yield server.connections[0].lost

    @inlineCallbacks
    def test_a_post_is_never_sent_twice(self) -> Any:
        """A kept connection that dies under a POST fails the attempt: it may have arrived."""
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        yield endpoint.post(a_run())
        server.answer = lambda conversation, request: conversation.transport.abortConnection()
        outcome = yield endpoint.post(a_run())
        self.assertEqual(outcome.error, "the connection was closed before an answer")
        self.assertEqual((len(server.requests), len(server.connections)), (2, 1))

    @inlineCallbacks
    def test_close(self) -> Any:
        """Idle connections are closed; a POST under way goes on, and its connection is not kept."""
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        yield gatherResults([endpoint.post(a_run()) for _ in range(2)])
        asked: Deferred[Conversation] = Deferred()
        server.answer = lambda conversation, request: asked.callback(conversation)
        posted = endpoint.post(a_run())
        conversation = yield asked
        [idle] = [other for other in server.connections if other is not conversation]
        yield endpoint.close()
        sockets = {*reactor.getReaders(), *reactor.getWriters()}
        self.assertEqual(len([s for s in sockets if isinstance(s, Client)]), 1)
        yield idle.lost
        self.assertNoResult(posted)
        self.assertFalse(conversation.lost.called)
        conversation.transport.write(OK)
        outcome = yield posted
        self.assertEqual(outcome.status, 200)
        yield conversation.lost


class TlsTests(EndpointCase):
    """https."""

    @inlineCallbacks
    def test_an_untrusted_certificate(self) -> Any:
        """A certificate that the platform does not trust gets no POST, and the log says why."""
        server = self.serve(says(OK), a_certificate("localhost"))
        endpoint = self.endpoint(f"https://localhost:{server.port}/")
        outcome = yield endpoint.post(a_run())
        self.assertEqual(outcome.status, None)
        self.assertEqual(
            outcome.error,
            f"TLS: the certificate of localhost:{server.port} is signed by itself, and not trusted "
            "here",
        )
        self.assertEqual(server.requests, [])
        # What the server's side of it has to say.
        self.flushLoggedErrors()

    @inlineCallbacks
    def test_a_trusted_certificate(self) -> Any:
        """The platform's trust is what counts; connections are kept, and closed, under TLS too."""
        certificate = a_certificate("localhost", trust=self)
        server = self.serve(says(OK), certificate)
        endpoint = self.endpoint(f"https://localhost:{server.port}/")
        for _ in range(3):
            outcome = yield endpoint.post(a_run())
            self.assertEqual((outcome.status, outcome.error), (200, ""))
        self.assertEqual((len(server.requests), len(server.connections)), (3, 1))
        self.assertIn(b"Host: localhost:%d\r\n" % server.port, server.requests[0])
        yield endpoint.close()
        yield server.connections[0].lost

    @inlineCallbacks
    def test_a_certificate_for_another_host(self) -> Any:
        """P11: a trusted certificate of somebody else does not do."""
        server = self.serve(says(OK), a_certificate("evil.example", trust=self))
        outcome = yield self.endpoint(f"https://localhost:{server.port}/").post(a_run())
        self.assertEqual(
            outcome.error, f"TLS: the certificate of localhost:{server.port} is for another host"
        )
        self.assertEqual(server.requests, [])

    @inlineCallbacks
    def test_no_tls_there(self) -> Any:
        """What does not agree on TLS gets no POST, and plain words say so."""
        no_tls = "TLS with {} failed: what answers there does not speak TLS"
        closed = "{} closed the connection in the TLS handshake, nothing was sent"
        for said, close, words in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", False, no_tls),
            (b"SSH-2.0-OpenSSH_9.2\r\n", False, no_tls),
            (b"\x15\3\3\0\2\2\x28", False, "TLS with {} failed: "),  # alert: handshake_failure
            (b"", True, closed),
            (b"\x16\3\3", True, closed),
            (b"\x15\3\3\0\2\1\0", False, "TLS with {} failed: the other side ended the handshake"),
        ):
            server = self.serve(keeps_silent)

            def begin(conversation: Conversation, said: bytes = said, close: bool = close) -> None:
                conversation.transport.write(said)
                if close:
                    conversation.transport.loseConnection()

            server.on_connection = begin
            outcome = yield self.endpoint(f"https://127.0.0.1:{server.port}/").post(a_run())
            self.assertEqual(outcome.status, None)
            expected = words.format(f"127.0.0.1:{server.port}")
            self.assertTrue(outcome.error.startswith(expected), (said, outcome.error))
            yield server.connections[0].lost

    @inlineCallbacks
    def test_a_time_out_under_tls(self) -> Any:
        """P3: silence is given up in time, before, during and after the handshake."""
        where = f"127.0.0.1:{self.serve(keeps_silent).port}"
        outcome = yield self.endpoint(f"https://{where}/", SHORT).post(a_run(timeout=SHORT))
        self.assertEqual(
            outcome.error, f"could not agree on TLS with {where} within 0.2 s, nothing was sent"
        )
        certificate = a_certificate("localhost", trust=self)
        for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"):
            server = self.serve(says(answer), certificate)
            endpoint = self.endpoint(f"https://localhost:{server.port}/", SHORT)
            outcome = yield endpoint.post(a_run(timeout=SHORT))
            self.assertEqual(outcome.error, "no answer within 0.2 s")
            yield server.connections[0].lost

    @inlineCallbacks
    def test_close_waits_for_nobody_for_long(self) -> Any:
        """Under TLS a close wants the other side's consent; one that gives none is cut off."""
        server = self.serve(says(OK), a_certificate("localhost", trust=self))
        endpoint = self.endpoint(f"https://localhost:{server.port}/")
        yield endpoint.post(a_run())
        server.connections[0].transport.pauseProducing()
        seconds = reactor.seconds
        closed = endpoint.close()
        self.patch(reactor, "seconds", lambda: seconds() + 2)
        yield closed


class RetryAfterTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Seconds or a date in any of HTTP's three forms (RFC 9110); anything else is nothing."""
        instant = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
        for value, expected in {
            b"0": timedelta(0),
            b"120": timedelta(seconds=120),
            b" 120 ": timedelta(seconds=120),
            b"000000000000120": timedelta(seconds=120),
            b"999999999": MAX_RETRY_AFTER,
            b"1000000000": MAX_RETRY_AFTER,
            b"9" * 10_000: MAX_RETRY_AFTER,
            b"Sun, 06 Nov 1994 08:49:37 GMT": instant,
            b"Sunday, 06-Nov-94 08:49:37 GMT": instant,
            b"Sun Nov  6 08:49:37 1994": instant,
            b"Sun, 06 Nov 1994 10:49:37 +0200": instant,
            b"": None,
            b"-1": None,
            b"+1": None,
            b"1.5": None,
            b"1e3": None,
            b"1_000": None,
            b"soon": None,
            b"\xd9\xa1": None,
            b"\xff": None,
            b"Sun, 06 Nov 1994": None,
            b"Sun, 31 Feb 1994 08:49:37 GMT": None,
            b"Sun, 06 Nov 99999 08:49:37 GMT": None,
            b"Sun, 06 Nov 1994 25:49:37 GMT": None,
            b"Fri, 31 Dec 9999 23:59:59 -2300": None,
            b"Sun, 06 Nov 1994 08:49:37 +999999999999999999": None,
            b"x" * 100_000: None,
            b"Sun, 06 Nov 1994 08:49:37 GMT (" + b"x" * 100 + b")": None,
        }.items():
            self.assertEqual(parse_retry_after(value), expected, value[:40])
            if isinstance(expected, datetime):
                self.assertEqual(expected.tzinfo, UTC)


def a_certificate(host: str, trust: TestCase | None = None) -> DefaultOpenSSLContextFactory:
    """
    What a server needs for TLS: a certificate for `host`, signed by itself.

    :param trust: a test for whose time the platform's trust includes it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    with NamedTemporaryFile(suffix=".pem", delete=False) as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    try:
        factory = DefaultOpenSSLContextFactory(file.name, file.name)
    finally:
        if trust is None:
            os.unlink(file.name)
    if trust is not None:
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = file.name

        def distrust() -> None:
            del os.environ["SSL_CERT_FILE"]
            if before is not None:
                os.environ["SSL_CERT_FILE"] = before
            os.unlink(file.name)

        trust.addCleanup(distrust)
    return factory
