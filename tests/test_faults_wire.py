"""
The endpoint and the proxy of the fault bench: each thing that they do wrong on purpose, as a plain
client sees it, over real sockets. Trial itself fails a test that leaves a connection or a timer.
"""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pymysql
from standardwebhooks import Webhook
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from dalga.model.run import Outcome
from dalga.outgoing.endpoint import Endpoint as Caller
from dalga.outgoing.trust import Trust
from faults.client import Client as BenchClient
from faults.endpoint import (
    Answer,
    Behaviour,
    Chunked,
    CloseAsItArrives,
    Connection,
    Continue100,
    Drip,
    EndlessBody,
    EndlessHeaders,
    Endpoint,
    GzipBomb,
    Hang,
    Http10,
    NoContentWithBody,
    Redirect,
    message,
)
from faults.history import Verb, says
from faults.proxy import MOST_HELD, Proxy
from tests.stores import EngineTestCase, each_engine, server
from tests.test_endpoint import EndpointCase, a_certificate, a_run

reactor: Any = real_reactor

#: Short, for the tests that wait for it, and long, for those that must not come to it; in seconds.
SHORT, LONG = 0.3, 20.0

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def a_post(path: str = "check_feed", body: str = "1234") -> bytes:
    """A POST as Dalga sends it."""
    return (
        f"POST /{path} HTTP/1.1\r\nHost: endpoint\r\nDalga-Run: 0a1b\r\nDALGA-ATTEMPT: 3\r\n"
        f"dalga-sched:2014-11-11T22:11:40Z\r\nDalga-Instance: here-1\r\n"
        f"Content-Length: {len(body.encode())}\r\n\r\n{body}"
    ).encode()


class Client:
    """A socket that blocks, in threads."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), LONG)

    async def say(self, data: bytes) -> None:
        await deferToThread(self.socket.sendall, data)

    async def hear(self, ending: bytes) -> bytes:
        """What comes, up to these bytes."""
        return await deferToThread(self._hear, lambda heard: heard.endswith(ending))

    async def hear_much(self, least: int) -> bytes:
        """At least so many bytes."""
        return await deferToThread(self._hear, lambda heard: len(heard) >= least)

    async def hear_all(self) -> bytes:
        """
        What comes until the other side closes.

        :raises ConnectionResetError: where it does not close, but reset.
        """
        return await deferToThread(self._hear, lambda heard: False)

    async def is_silent(self, seconds: float = SHORT) -> bool:
        """Whether nothing at all comes for so long."""

        def listen() -> bool:
            self.socket.settimeout(seconds)
            try:
                self.socket.recv(1)
            except TimeoutError:
                return True
            finally:
                self.socket.settimeout(LONG)
            return False

        return await deferToThread(listen)

    async def ask(self, path: str = "check_feed") -> bytes:
        """A POST and its answer, which must be one by the book."""
        await self.say(a_post(path))
        return await self.hear(b"ok")

    def close(self) -> None:
        self.socket.close()

    def _hear(self, enough: Callable[[bytes], bool]) -> bytes:
        heard = b""
        while not enough(heard):
            data = self.socket.recv(65536)
            if not data:
                break
            heard += data
        return heard


class WireCase(TestCase):
    timeout = 60

    def endpoint(self, how: Any = None, log: Path | None = None, tls: Any = None) -> Endpoint:
        endpoint = Endpoint(reactor, log)
        endpoint.listen(tls)
        self.addCleanup(endpoint.close)
        if how is not None:
            endpoint.behave(how)
        return endpoint

    def client(self, port: int) -> Client:
        client = Client(port)
        self.addCleanup(client.close)
        return client

    async def eventually(self, condition: Callable[[], object]) -> None:
        """Give the reactor time until this holds."""
        deadline = time.monotonic() + LONG
        while not condition():
            self.assertLess(time.monotonic(), deadline, "waited in vain")
            await deferLater(reactor, 0.01)


class EndpointTests(WireCase):
    """What it notes, and when it is to be had."""

    async def test_what_it_notes(self) -> None:
        """A POST is there once all of it has arrived, and has a line in the log when it ended."""
        log = Path(self.mktemp())
        endpoint = self.endpoint(log=log)
        client = self.client(endpoint.port)
        request = a_post("a%20b/%C3%A9", "ö")
        await client.say(request[:-1])
        await deferLater(reactor, SHORT)
        self.assertEqual(endpoint.posts, [])
        before = time.time()
        await client.say(request[-1:])
        self.assertEqual(await client.hear(b"ok"), OK)
        (post,) = endpoint.posts
        noted = asdict(post)
        times = noted.pop("start"), noted.pop("end")
        self.assertEqual(
            noted,
            {
                "path": "a b/é",
                "body": "ö",
                "run": "0a1b",
                "attempt": 3,
                "scheduled": 1415743900,
                "instance": "here-1",
                "status": 200,
                "begun": None,
                "says": says("POST", "", "ö".encode()),
            },
        )
        self.assertTrue(before <= times[0] <= times[1] <= time.time(), times)
        await client.ask()
        self.assertEqual(len(endpoint.connections), 1)
        await endpoint.close()
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        self.assertEqual(lines, json.loads(json.dumps([asdict(post) for post in endpoint.posts])))

    def test_signatures(self) -> None:
        """Objected to: a signature by another secret, for another run, or too old."""
        secret, other = (f"whsec_{b64encode(bytes((n,)) * 32).decode()}" for n in (1, 2))

        def signed(by: str, id: str = "run-1", ago: int = 0, body: str = "x") -> dict[str, str]:
            at = datetime.now(UTC) - timedelta(seconds=ago)
            return {
                "webhook-id": id,
                "webhook-timestamp": str(int(at.timestamp())),
                "webhook-signature": Webhook(by).sign(id, at, body),
            }

        for headers, problem in (
            (signed(secret), None),
            (signed(other), "No matching signature"),
            (signed(secret, "run-2"), "is signed for run-2"),
            (signed(secret, ago=600), "too old"),
            (signed(secret, body="y"), "No matching signature"),
            ({}, "Missing required headers"),
        ):
            endpoint = Endpoint(reactor, None)
            endpoint.verify("run-1", headers, b"x")
            self.assertEqual(endpoint.unsigned, [])  # nobody has asked for signatures
            endpoint.secrets = [secret]
            endpoint.verify("run-1", headers, b"x")
            self.assertEqual(len(endpoint.unsigned), 1 if problem else 0)
            self.assertIn(problem or "", "".join(endpoint.unsigned))

    async def test_two_requests_at_once(self) -> None:
        """Each is taken when the one before was answered."""
        endpoint = self.endpoint(Answer(delay=SHORT))
        client = self.client(endpoint.port)
        await client.say(a_post("one") + a_post("two"))
        await endpoint.until(lambda: bool(endpoint.posts))
        await client.say(a_post("three"))
        await client.hear(OK + OK + OK)
        one, two, three = endpoint.posts
        self.assertEqual([one.path, two.path, three.path], ["one", "two", "three"])
        assert one.end is not None and two.end is not None
        self.assertTrue(one.end <= two.start and two.end <= three.start, endpoint.posts)

    async def test_a_client_that_leaves(self) -> None:
        """Its POST ends then, with no status."""
        endpoint = self.endpoint(Answer(delay=LONG))
        client = self.client(endpoint.port)
        await client.say(a_post())
        await endpoint.until(lambda: bool(endpoint.posts))
        (post,) = endpoint.posts
        self.assertEqual((post.end, post.status), (None, None))
        client.close()
        await endpoint.until(lambda: post.end is not None)
        self.assertEqual(post.status, None)

    async def test_by_path(self) -> None:
        """A path's first segment has its own behaviour; one may be chosen for each POST."""
        endpoint = self.endpoint(Answer(503))
        endpoint.behave(lambda post: Answer(200 + int(post.body[0])), "chosen")
        endpoint.behave(Answer(404), "named")
        client = self.client(endpoint.port)
        for path in ("chosen", "chosen/too", "named/too", "other", "chosen2"):
            await client.ask(path)
        statuses = [post.status for post in endpoint.posts]
        self.assertEqual(statuses, [201, 201, 404, 503, 503])
        endpoint.behave(Answer())
        await client.ask("other")
        self.assertEqual(endpoint.posts[-1].status, 200)

    async def test_until(self) -> None:
        """It is told of a start before there is an answer, and of the end too."""
        endpoint = self.endpoint()
        seen = []

        async def watch() -> None:
            await endpoint.until(lambda: len(endpoint.posts) == 2)
            seen.append(endpoint.posts[1].end)
            await endpoint.until(lambda: endpoint.posts[1].end is not None)
            seen.append(endpoint.posts[1].status)

        watching = ensureDeferred(watch())
        client = self.client(endpoint.port)
        await client.ask()
        self.assertEqual(seen, [])
        await client.ask()
        await watching
        self.assertEqual(seen, [None, 200])
        with self.assertRaises(ZeroDivisionError):
            await endpoint.until(lambda: bool(1 / 0))

    async def test_down_at_the_start_of_a_post(self) -> None:
        """What goes down as a POST arrives does not answer it any more."""
        endpoint = self.endpoint()

        async def watch() -> None:
            await endpoint.until(lambda: bool(endpoint.posts))
            endpoint.down()

        watching = ensureDeferred(watch())
        client = self.client(endpoint.port)
        await client.say(a_post())
        with self.assertRaises(ConnectionResetError):
            await client.hear_all()
        await watching
        (post,) = endpoint.posts
        self.assertEqual(post.status, None)
        self.assertIsNotNone(post.end)

    async def test_down_and_up(self) -> None:
        """Refused at once, connections that were not accepted yet included; then the same port."""
        endpoint = self.endpoint(Hang())
        port = endpoint.port
        client = self.client(port)
        await client.say(a_post())
        await endpoint.until(lambda: bool(endpoint.posts))
        waiting = self.client(port)
        endpoint.down()
        endpoint.down()
        self.assertIsNotNone(endpoint.posts[0].end)
        self.assertRaises(ConnectionRefusedError, Client, port)
        for cut in (client, waiting):
            with self.assertRaises(ConnectionResetError):
                await cut.hear_all()
        endpoint.behave(Answer())
        endpoint.up()
        endpoint.up()
        self.assertEqual(await self.client(port).ask(), OK)
        self.assertEqual(endpoint.port, port)

    async def test_closed_while_down(self) -> None:
        endpoint = self.endpoint()
        endpoint.down()
        await endpoint.close()

    async def test_tls(self) -> None:
        endpoint = self.endpoint(tls=a_certificate("localhost"))
        self.assertEqual(endpoint.url, f"https://127.0.0.1:{endpoint.port}/")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = self.client(endpoint.port)
        client.socket = await deferToThread(context.wrap_socket, client.socket)
        self.addCleanup(client.close)
        for _ in range(2):
            self.assertEqual(await client.ask(), OK)
        endpoint.behave(GzipBomb(3))
        await client.say(a_post())
        self.assertEqual(len(unpacked(await client.hear(b"\r\n0\r\n\r\n"))), 3 * 2**20)
        endpoint.behave(Hang())
        await client.say(a_post())
        await endpoint.until(lambda: len(endpoint.posts) == 4)
        endpoint.down()
        self.assertEqual([post.status for post in endpoint.posts], [200, 200, 200, None])


def unpacked(answer: bytes) -> bytes:
    """The body of an answer in chunks of gzip."""
    rest = answer.split(b"\r\n\r\n", 1)[1]
    body = b""
    while rest:
        size, rest = rest.split(b"\r\n", 1)
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    return gzip.decompress(body)


class BehaviourTests(WireCase):
    """Each behaviour, as the client sees it."""

    async def test_the_exact_bytes(self) -> None:
        stray = b"HTTP/1.1 204 No Content\r\n%b\r\n" + OK
        for how, status, expected in [
            (Answer(), 200, OK),
            (
                Answer(503, headers=(("Retry-After", "2"),)),
                503,
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n"
                b"Content-Length: 2\r\n\r\nok",
            ),
            (
                Redirect("http://elsewhere/x", 307),
                307,
                b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://elsewhere/x\r\n"
                b"Content-Length: 2\r\n\r\nok",
            ),
            (
                Chunked(),
                200,
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
            ),
            (Continue100(), 200, b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
            (Continue100(0.05), 200, b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
            (NoContentWithBody(), 204, stray % b""),
            (NoContentWithBody(announced=True), 204, stray % b"Content-Length: 40\r\n"),
            (NoContentWithBody(pause=0.05), 204, stray % b""),
        ]:
            endpoint = self.endpoint(how)
            client = self.client(endpoint.port)
            # Twice, as the connection is kept.
            for _ in range(2):
                await client.say(a_post())
                self.assertEqual(await client.hear(expected), expected, how)
            self.assertEqual([post.status for post in endpoint.posts], [status] * 2, how)
        self.assertEqual(message(204), b"HTTP/1.1 204 No Content\r\n\r\n")

    async def test_a_delay(self) -> None:
        endpoint = self.endpoint(Answer(delay=SHORT))
        self.assertEqual(await self.client(endpoint.port).ask(), OK)
        (post,) = endpoint.posts
        assert post.end is not None
        self.assertTrue(SHORT * 0.9 <= post.end - post.start < LONG, post)

    async def test_hang(self) -> None:
        endpoint = self.endpoint(Hang())
        client = self.client(endpoint.port)
        await client.say(a_post())
        self.assertTrue(await client.is_silent())
        self.assertEqual(endpoint.posts[0].end, None)

    async def test_close_as_it_arrives(self) -> None:
        """The first of each connection is answered; the second one's start is its end."""
        endpoint = self.endpoint(CloseAsItArrives())
        client = self.client(endpoint.port)
        self.assertEqual(await client.ask(), OK)
        await client.say(a_post())
        self.assertEqual(await client.hear_all(), b"")
        self.assertEqual(await self.client(endpoint.port).ask(), OK)
        self.assertEqual([post.status for post in endpoint.posts], [200, None, 200])
        self.assertIsNotNone(endpoint.posts[1].end)

    async def test_http_1_0(self) -> None:
        endpoint = self.endpoint(Http10())
        client = self.client(endpoint.port)
        await client.say(a_post() + a_post())
        self.assertEqual(await client.hear_all(), b"HTTP/1.0 200 OK\r\n\r\nok")
        self.assertEqual([post.status for post in endpoint.posts], [200])

    async def test_without_an_end(self) -> None:
        """They go on as long as the client reads, and no further; then the POST has no status."""
        for how, start, length, begun in [
            (EndlessBody(), b"HTTP/1.1 200 OK\r\n\r\nxxx", 2**20, 200),
            (EndlessHeaders(), b"HTTP/1.1 200 OK\r\nX-Header-0: xxx", 2**20, None),
            (GzipBomb(), b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n", 2**16, 200),
        ]:
            endpoint = self.endpoint(how)
            client = self.client(endpoint.port)
            await client.say(a_post())
            heard = await client.hear_much(length)
            self.assertTrue(heard.startswith(start), heard[:60])
            self.assertEqual(b"\r\n\r\n" in heard, begun is not None, how)
            await deferLater(reactor, SHORT)  # while nobody reads
            (connection,) = endpoint.connections
            waiting = connection.transport
            self.assertLess(len(waiting.dataBuffer) + waiting._tempDataLen, 2**18, how)
            (post,) = endpoint.posts
            self.assertEqual(post.end, None, how)
            client.close()
            await endpoint.until(lambda post=post: post.end is not None)  # type: ignore[misc]
            self.assertEqual((post.status, post.begun), (None, begun), how)

    async def test_gzip_bomb(self) -> None:
        """It is a gzip file, and small as it comes."""
        endpoint = self.endpoint(GzipBomb(5))
        client = self.client(endpoint.port)
        for _ in range(2):
            await client.say(a_post())
            answer = await client.hear(b"\r\n0\r\n\r\n")
            self.assertLess(len(answer), 10_000)
            self.assertEqual(unpacked(answer), bytes(5 * 2**20))
        self.assertEqual([post.status for post in endpoint.posts], [200, 200])

    async def test_drip(self) -> None:
        endpoint = self.endpoint(Drip(0.01))
        client = self.client(endpoint.port)
        await client.say(a_post())
        self.assertLess(len(await deferToThread(client.socket.recv, 100)), 5)
        await client.hear(b"ok")
        (post,) = endpoint.posts
        assert post.end is not None
        self.assertEqual(post.status, 200)
        self.assertGreater(post.end - post.start, (len(OK) - 1) * 0.01 * 0.9)

    async def test_one_of_ones_own(self) -> None:
        """A scenario may have behaviours of its own."""

        class Odd(Behaviour):
            def answer(self, connection: Connection) -> None:
                connection.write(b"odd")
                connection.abort()

        endpoint = self.endpoint(lambda post: Odd())
        client = self.client(endpoint.port)
        await client.say(a_post())
        with self.assertRaises(ConnectionResetError):
            await client.hear_all()
        self.assertEqual([post.status for post in endpoint.posts], [None])


class StrangerTests(WireCase):
    """Who has no valid token is let in by nobody, or the bench's client objects."""

    async def test_let_in(self) -> None:
        endpoint = self.endpoint(Answer(204))
        url = endpoint.url.removesuffix("/")
        client = BenchClient(reactor, lambda: [url], Random(1), "dalga_x")
        self.assertTrue(await client.say(Verb.DELETE, ("a", "b")))
        self.assertEqual(len(endpoint.posts), 2)
        (objection,) = client.wrongly
        self.assertIn("DELETE /jobs/a/b: 204 for no valid token", objection)

    async def test_kept_out(self) -> None:
        """A 401 is right for strangers alone."""
        endpoint = self.endpoint(Answer(401))
        url = endpoint.url.removesuffix("/")
        client = BenchClient(reactor, lambda: [url], Random(1), "dalga_x")
        for token in ("", "dalga_y"):
            await client.ask("GET", "/status", token=token)
        self.assertEqual(client.wrongly, [])
        await client.ask("GET", "/status")
        (objection,) = client.wrongly
        self.assertIn("a valid token was refused", objection)


class DalgaTests(WireCase):
    """What Dalga's own side of it makes of them."""

    def caller(self, url: str, timeout: float = LONG) -> Caller:
        caller = Caller(reactor, url, timeout, "here-1", 10, Trust())
        self.addCleanup(caller.close)
        return caller

    async def outcome(self, caller: Caller, timeout: float = LONG) -> Outcome:
        return await caller.post(a_run(timeout=timeout))

    async def test_outcomes(self) -> None:
        for how, status, error in [
            (Answer(), 200, ""),
            (Answer(503), 503, ""),
            (EndlessBody(), 200, ""),
            (EndlessHeaders(), None, "the answer's headers are longer than 16 KiB"),
            (GzipBomb(), 200, ""),
            (Redirect("http://127.0.0.1:1/"), 302, ""),
            (Http10(), 200, ""),
            (Chunked(), 200, ""),
            (Continue100(), 200, ""),
            (Continue100(0.05), 200, ""),
            (NoContentWithBody(), 204, ""),
            (NoContentWithBody(announced=True), 204, ""),
        ]:
            endpoint = self.endpoint(how)
            caller = self.caller(endpoint.url)
            for _ in range(2):
                outcome = await self.outcome(caller)
                self.assertEqual((outcome.status, outcome.error), (status, error), how)
            await caller.close()
            await endpoint.until(lambda e=endpoint: e.posts[-1].end is not None)  # type: ignore[misc]
            self.assertEqual(len(endpoint.posts), 2, how)
            for post in endpoint.posts:
                self.assertEqual(
                    (post.path, post.body, post.run, post.attempt, post.scheduled, post.instance),
                    ("check_feed", "1234", "0a1b", 1, 1415743900, "here-1"),
                )
                self.assertEqual(post.status or post.begun, status, how)

    async def test_too_slow(self) -> None:
        """P3: when the outcome is there, the endpoint soon sees the end of the POST."""
        for how in (Hang(), Drip(0.1), Answer(delay=LONG)):
            endpoint = self.endpoint(how)
            outcome = await self.outcome(self.caller(endpoint.url, SHORT), SHORT)
            self.assertEqual(outcome.error, f"no answer within {SHORT} s")
            (post,) = endpoint.posts
            await endpoint.until(lambda post=post: post.end is not None)  # type: ignore[misc]
            self.assertEqual(post.status, None)

    async def test_a_kept_connection(self) -> None:
        endpoint = self.endpoint(CloseAsItArrives())
        caller = self.caller(endpoint.url)
        outcomes = [await self.outcome(caller) for _ in range(3)]
        self.assertEqual([outcome.status for outcome in outcomes], [200, None, 200])
        self.assertEqual(outcomes[1].error, "the connection was closed before an answer")

    async def test_down(self) -> None:
        endpoint = self.endpoint()
        caller = self.caller(endpoint.url)
        await self.outcome(caller)
        endpoint.down()
        await self.eventually(lambda: not endpoint.connections)
        outcome = await self.outcome(caller)
        self.assertEqual(outcome.error, f"connection refused by 127.0.0.1:{endpoint.port}")
        endpoint.up()
        self.assertEqual((await self.outcome(caller)).status, 200)

    async def test_tls(self) -> None:
        certificate = a_certificate("localhost", trust=self)
        endpoint = self.endpoint(tls=certificate)
        trusted = self.caller(f"https://localhost:{endpoint.port}/")
        self.assertEqual((await self.outcome(trusted)).status, 200)
        outcome = await self.outcome(self.caller(endpoint.url))
        self.assertTrue(outcome.error.startswith("TLS"), outcome)
        self.assertEqual(len(endpoint.posts), 1)
        self.flushLoggedErrors()  # what the server's side of it has to say


class Echo(Protocol):
    """Says what it is told, and remembers it."""

    transport: Any

    def __init__(self, echoes: Echoes) -> None:
        self.heard = 0
        self.lost: Deferred[None] = Deferred()
        self._echoes = echoes

    def connectionMade(self) -> None:
        self._echoes.connections.append(self)
        if not self._echoes.reads:
            self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.heard += len(data)
        if self._echoes.answers:
            self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.lost.callback(None)


class Echoes(Factory):
    """A server."""

    noisy = False

    def __init__(self) -> None:
        self.connections: list[Echo] = []
        self.answers = True
        self.reads = True

    def buildProtocol(self, addr: object) -> Echo:
        return Echo(self)


class ProxyTests(WireCase):
    """Each fault, as a plain client sees it, and the server behind."""

    def setUp(self) -> None:
        self.server = Echoes()
        self.listening = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(self.end_server)
        self.proxy = Proxy(reactor, "127.0.0.1", self.listening.getHost().port)
        self.proxy.listen()
        self.addCleanup(self.proxy.close)

    async def end_server(self) -> None:
        await maybeDeferred(self.listening.stopListening)
        for connection in self.server.connections:
            if not connection.lost.called:
                connection.transport.abortConnection()
                await connection.lost

    async def joined(self) -> Client:
        """A client that has been answered."""
        client = self.client(self.proxy.port)
        await self.echoes(client)
        return client

    async def echoes(self, client: Client) -> None:
        await client.say(b"hello")
        self.assertEqual(await client.hear(b"hello"), b"hello")

    def whats(self) -> list[str]:
        return [what for what, _, _ in self.proxy.faults]

    async def test_no_fault(self) -> None:
        """All bytes pass in both directions, and closing does."""
        client = await self.joined()
        much = bytes(range(256)) * 40_000
        hearing = ensureDeferred(client.hear_much(len(much)))
        await client.say(much)
        self.assertEqual(await hearing, much)
        self.assertEqual(self.proxy.connections, 1)
        other = await self.joined()
        self.assertEqual(self.proxy.connections, 2)
        client.close()
        await self.server.connections[0].lost
        self.server.connections[1].transport.write(b"bye")
        self.server.connections[1].transport.loseConnection()
        self.assertEqual(await other.hear_all(), b"bye")
        await self.eventually(lambda: not self.proxy.pairs)
        self.assertEqual((self.proxy.connections, self.proxy.faults), (0, []))

    async def test_a_reset_passes(self) -> None:
        client = await self.joined()
        self.server.connections[0].transport.abortConnection()
        with self.assertRaises(ConnectionResetError):
            await client.hear_all()

    async def test_nobody_there(self) -> None:
        await self.listening.stopListening()
        client = self.client(self.proxy.port)
        with self.assertRaises(ConnectionResetError):
            await client.hear_all()
        await self.eventually(lambda: not self.proxy.pairs)

    async def test_a_server_that_does_not_read(self) -> None:
        """Its clients are held up; the proxy does not take it all in."""
        self.server.reads = False
        client = self.client(self.proxy.port)
        client.socket.settimeout(1)
        with self.assertRaises(TimeoutError):
            await client.say(bytes(100_000_000))
        (pair,) = self.proxy.pairs
        buffered = pair.server.transport
        self.assertLess(len(buffered.dataBuffer) + buffered._tempDataLen, 2**20)
        self.server.connections[0].transport.resumeProducing()
        await self.eventually(lambda: self.server.connections[0].heard > 1_000_000)

    async def test_a_client_that_closes_in_a_jam(self) -> None:
        """What it had sent before arrives all the same, and then the end."""
        self.server.reads = self.server.answers = False
        client = self.client(self.proxy.port)
        sent = await deferToThread(fill, client.socket)
        client.close()
        self.server.connections[0].transport.resumeProducing()
        await self.server.connections[0].lost
        self.assertEqual(self.server.connections[0].heard, sent)
        await self.eventually(lambda: not self.proxy.pairs)

    async def test_much_and_the_end_at_once(self) -> None:
        """After a delay, more is passed on than can be sent, and then the end."""
        self.server.answers = False
        self.proxy.delay(SHORT)
        client = self.client(self.proxy.port)
        await client.say(bytes(10_000))
        await self.eventually(lambda: self.server.connections)
        self.server.connections[0].transport.pauseProducing()
        await client.say(bytes(800_000))
        client.close()
        await deferLater(reactor, 2 * SHORT)
        self.server.connections[0].transport.resumeProducing()
        await self.server.connections[0].lost
        self.assertEqual(self.server.connections[0].heard, 810_000)

    async def test_a_client_that_does_not_read(self) -> None:
        """The server is held up."""
        endpoint = self.endpoint(EndlessBody())
        proxy = Proxy(reactor, "127.0.0.1", endpoint.port)
        proxy.listen()
        self.addCleanup(proxy.close)
        client = self.client(proxy.port)
        await client.say(a_post())
        await client.hear_much(1)
        await deferLater(reactor, 2 * SHORT)
        (pair,) = proxy.pairs
        buffered = pair.client.transport
        self.assertLess(len(buffered.dataBuffer) + buffered._tempDataLen, 2**20)

    async def test_cut_while_it_connects(self) -> None:
        """The server's side of it is given up too."""
        proxy = Proxy(reactor, "127.0.0.1", EndpointCase.a_full_port(self))  # type: ignore[arg-type]
        proxy.listen()
        self.addCleanup(proxy.close)
        client = self.client(proxy.port)
        await self.eventually(lambda: proxy.connections)
        proxy.cut()
        with self.assertRaises(ConnectionResetError):
            await client.hear_all()
        await self.eventually(lambda: not proxy.pairs)

    async def test_cut(self) -> None:
        client, before = await self.joined(), time.time()
        self.proxy.cut()
        with self.assertRaises(ConnectionResetError):
            await client.hear_all()
        await self.server.connections[0].lost
        await self.joined()
        ((what, since, until),) = self.proxy.faults
        self.assertEqual(what, "cut")
        self.assertTrue(before <= since <= until <= time.time())

    async def test_refuse(self) -> None:
        """New connections only, and the port is kept."""
        client, port = await self.joined(), self.proxy.port
        self.proxy.refuse()
        before = time.time()
        self.assertRaises(ConnectionRefusedError, Client, port)
        await self.echoes(client)
        self.assertEqual(self.whats(), ["refuse"])
        self.proxy.accept()
        self.assertEqual(self.proxy.port, port)
        await self.joined()
        ((_, since, until),) = self.proxy.faults
        self.assertTrue(since <= before <= until <= time.time(), self.proxy.faults)

    async def test_stall(self) -> None:
        """Silence on all connections, old and new, until it ends; then nothing is missing."""
        client, leaving = await self.joined(), await self.joined()
        self.proxy.stall(True)
        new = self.client(self.proxy.port)
        await new.say(b"new")
        await client.say(b"old")
        self.server.connections[0].transport.write(b"mine")
        leaving.close()
        self.assertTrue(await client.is_silent())
        self.assertTrue(await new.is_silent())
        self.assertEqual([c.heard for c in self.server.connections], [5, 5])
        self.assertFalse(self.server.connections[1].lost.called)
        self.assertEqual(self.whats(), ["stall"])
        self.proxy.stall(False)
        self.assertEqual(await client.hear(b"old"), b"mineold")
        self.assertEqual(await new.hear(b"new"), b"new")
        await self.server.connections[1].lost
        self.assertEqual(self.whats(), ["stall"])

    async def test_stall_in_full_flow(self) -> None:
        """What is sent on does not set the reading going again."""
        self.server.answers = self.server.reads = False
        client = self.client(self.proxy.port)
        sent = await deferToThread(fill, client.socket)
        (connection,) = self.server.connections
        self.proxy.stall(True)
        connection.transport.resumeProducing()
        await deferLater(reactor, SHORT)
        heard = connection.heard
        self.assertTrue(0 < heard < sent, (heard, sent))
        await deferLater(reactor, SHORT)
        self.assertEqual(connection.heard, heard)
        self.proxy.stall(False)
        await self.eventually(lambda: connection.heard == sent)

    async def test_cut_in_a_stall(self) -> None:
        """Also those that were accepted and no more."""
        client = await self.joined()
        self.proxy.stall(True)
        new = self.client(self.proxy.port)
        await self.eventually(lambda: self.proxy.connections == 2)
        self.proxy.cut()
        for cut in (client, new):
            with self.assertRaises(ConnectionResetError):
                await cut.hear_all()
        await self.eventually(lambda: not self.proxy.pairs)
        self.assertEqual(len(self.server.connections), 1)

    async def test_a_stall_that_ends_as_it_is_cut(self) -> None:
        """What was cut is not connected any more."""
        self.proxy.stall(True)
        new = self.client(self.proxy.port)
        await self.eventually(lambda: self.proxy.connections == 1)
        self.proxy.cut()
        self.proxy.stall(False)
        with self.assertRaises(ConnectionResetError):
            await new.hear_all()
        await self.eventually(lambda: not self.proxy.pairs)
        self.assertEqual(self.server.connections, [])

    async def test_mute(self) -> None:
        """Those that there are fall silent, and stay so; new ones go through."""
        client = await self.joined()
        self.proxy.mute()
        await client.say(b"into the void")
        await self.echoes(self.client(self.proxy.port))
        self.assertTrue(await client.is_silent())
        self.assertEqual(self.whats(), ["mute"])

    async def test_delay(self) -> None:
        """Each direction is so much later, in order; closing too."""
        client = await self.joined()
        self.proxy.delay(SHORT)
        began = time.monotonic()
        await client.say(b"one")
        await self.eventually(lambda: self.proxy.pairs.copy().pop().client._held)
        self.proxy.delay(0)
        await client.say(b"two")
        self.assertEqual(await client.hear(b"two"), b"onetwo")
        self.assertGreater(time.monotonic() - began, SHORT * 0.9)
        self.proxy.delay(SHORT)
        began = time.monotonic()
        await self.echoes(client)
        self.assertGreater(time.monotonic() - began, 2 * SHORT * 0.9)
        began = time.monotonic()
        await client.say(b"last")
        client.close()
        (connection,) = self.server.connections
        await connection.lost
        self.assertGreater(time.monotonic() - began, SHORT * 0.9)
        self.assertEqual(connection.heard, len(b"helloonetwohellolast"))
        self.assertEqual(self.whats(), [f"delay {SHORT}"] * 2)

    async def test_a_delay_holds_back_no_more_than_so_much(self) -> None:
        self.proxy.delay(LONG)
        client = self.client(self.proxy.port)
        await deferToThread(fill, client.socket)
        (pair,) = self.proxy.pairs
        self.assertTrue(MOST_HELD <= pair.client._bytes_held < 2 * MOST_HELD)

    async def test_drop_reply(self) -> None:
        """The request arrives, its answer does not; as often as was asked for."""
        self.proxy.drop_reply(b"\x03COMMIT", 2)
        for count in (1, 2):
            client = await self.joined()
            connection = self.server.connections[-1]
            await client.say(b"\x07\x00\x00\x00\x03COMMIT")
            with self.assertRaises(ConnectionResetError):
                await client.hear_all()
            await connection.lost
            self.assertEqual(connection.heard, 5 + 11)
            self.assertEqual(self.whats(), ["drop_reply"] * count)
        client = await self.joined()
        await client.say(b"\x03COMMIT")
        await client.hear(b"COMMIT")

    async def test_drop_reply_that_does_not_come(self) -> None:
        """The connection lasts until the server has done its work, or is gone."""
        client = await self.joined()
        self.proxy.drop_reply(b"\x03COMMIT")
        self.server.answers = False
        await client.say(b"\x03COMMIT")
        self.assertTrue(await client.is_silent())
        self.server.connections[0].transport.loseConnection()
        with self.assertRaises(ConnectionResetError):
            await client.hear_all()

    async def test_close(self) -> None:
        """Whatever is going on."""
        await self.joined()
        self.proxy.delay(LONG)
        client = self.client(self.proxy.port)
        await client.say(b"late")
        await self.eventually(lambda: len(self.server.connections) == 2)
        self.proxy.stall(True)
        self.client(self.proxy.port)
        self.proxy.refuse()
        await self.proxy.close()
        self.assertEqual(self.proxy.connections, 0)
        self.assertEqual(sorted(self.whats()), [f"delay {LONG:g}", "refuse", "stall"])


def fill(client: socket.socket) -> int:
    """Send until nobody takes more for a while; gives how much."""
    client.settimeout(0.5)
    sent = 0
    try:
        while True:
            sent += client.send(bytes(65536))
    except TimeoutError:
        return sent


@each_engine(globals(), only=("mariadb", "mysql"))
class DatabaseTests(EngineTestCase):
    """The proxy before a database."""

    async def test_a_commit_whose_reply_is_lost(self) -> None:
        """It is written, and its client does not know."""
        self.sql("CREATE TABLE t (n INT)")
        host = server(self.engine)
        proxy = Proxy(reactor, host.host, host.port)
        proxy.listen()
        self.addCleanup(proxy.close)
        proxy.drop_reply(b"\x03COMMIT")

        def write() -> None:
            terms = {"port": proxy.port, "database": self.on_server.db, "ssl_disabled": True}
            with host.connect(**terms) as connection:
                connection.cursor().execute("INSERT INTO t VALUES (1)")
                connection.commit()

        with self.assertRaises(pymysql.err.OperationalError) as raised:
            await deferToThread(write)
        self.assertEqual(raised.exception.args[0], 2013)
        self.assertEqual(self.sql("SELECT n FROM t"), [(1,)])
        await deferToThread(write)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM t"), [(2,)])
        self.assertEqual([what for what, _, _ in proxy.faults], ["drop_reply"])

    async def test_errors_of_a_proxy(self) -> None:
        """The transaction is rolled back, and the connection goes on."""
        self.sql("CREATE TABLE t (n INT, long_text LONGTEXT)")
        host = server(self.engine)
        proxy = Proxy(reactor, host.host, host.port)
        proxy.listen()
        self.addCleanup(proxy.close)
        terms = {"port": proxy.port, "database": self.on_server.db, "ssl_disabled": True}
        connection = await deferToThread(host.connect, **terms)
        self.addCleanup(connection.close)
        cursor = connection.cursor()

        async def run(statement: str, *parameters: object) -> int | None:
            """Gives the number of the error, if one came."""
            try:
                await deferToThread(cursor.execute, statement, parameters)
            except pymysql.err.OperationalError as error:
                self.assertIn("in a proxy's words", error.args[1])
                return int(error.args[0])
            return None

        insert = "INSERT INTO t VALUES (%s, %s)"
        self.assertIsNone(await run(insert, 1, "a"))
        proxy.answer_error(9001, "HY000", "in a proxy's words")
        # Also one that comes in many pieces.
        self.assertEqual(await run(insert, 2, "b" * 3_000_000), 9001)
        self.assertEqual(await run("COMMIT"), 9001)
        proxy.answer_no_error()
        self.assertIsNone(await run("COMMIT"))
        self.assertEqual(self.sql("SELECT n FROM t"), [])
        # Those alone that have the marker, and of them each second.
        proxy.answer_error(3101, "40000", "in a proxy's words", b"COMMIT", one_in=2)
        found = []
        for number in range(4):
            self.assertIsNone(await run(insert, number, "c"))
            found.append(await run("COMMIT"))
        self.assertEqual(found, [None, 3101, None, 3101])
        self.assertEqual(self.sql("SELECT n FROM t ORDER BY n"), [(0,), (2,)])
        self.assertEqual(proxy.refused, 4)
        proxy.answer_no_error()
        self.assertEqual([what for what, _, _ in proxy.faults], ["error 9001", "error 3101"])
