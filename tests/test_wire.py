"""
Connections, over real sockets: what is sent, what is kept, and what no later POST may take for its
answer. What becomes of a run is in test_endpoint.
"""

from __future__ import annotations

import socket
from itertools import product
from threading import Event
from time import sleep
from typing import Any

from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from dalga.model.attempt import ErrorKind
from dalga.model.run import Outcome
from dalga.outgoing import pool as dalga_pool
from dalga.outgoing.endpoint import Endpoint
from dalga.outgoing.failures import CLOSED_BEFORE, SPOKE_BEFORE, PostFailed
from dalga.outgoing.pool import Pool, Route
from dalga.outgoing.trust import Trust
from dalga.outgoing.wire import PIECE, Connection, Exchange
from tests.test_endpoint import (
    LONG,
    OK,
    SHORT,
    Conversation,
    EndpointCase,
    Server,
    a_certificate,
    a_run,
    keeps_silent,
    says,
)

reactor: Any = real_reactor

FAILED = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
    b"2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n"
)


def a_request(size: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)


#: A request that no socket's buffers hold.
LARGE = a_request(20_000_000)
#: The same in two parts.
LARGE_PARTS = LARGE[:-20_000_000], LARGE[-20_000_000:]


class WireCase(EndpointCase):
    def pool(self, server: Server, scheme: str = "http", host: str = "127.0.0.1") -> Pool:
        baseurl = f"{scheme}://{host}:{server.port}/"
        pool = Pool(reactor, Route(reactor, baseurl, LONG, Trust()), 10)
        self.addCleanup(pool.close)
        return pool

    def setUp(self) -> None:
        # So that none comes to its end by being idle.
        self.patch(dalga_pool, "IDLE", 2 * self.timeout)

    def exchange(
        self, pool: Pool, octets: bytes, timeout: float = LONG, content: bytes = b""
    ) -> Deferred[Any]:
        exchange = Exchange(reactor, pool._route, octets, timeout, content)
        return pool.request(b"POST", b"", None, exchange)


class AnswerTests(WireCase):
    @inlineCallbacks
    def test_in_single_bytes(self) -> Any:
        """However an answer comes, it is one; several interim answers before it are none."""
        for whole in (OK, CHUNKED, b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + OK):

            def drip(conversation: Conversation, request: bytes, whole: bytes = whole) -> None:
                if whole:
                    conversation.transport.write(whole[:1])
                    reactor.callLater(0, drip, conversation, request, whole[1:])

            server = self.serve(drip)
            endpoint = self.endpoint(server.baseurl)
            for _ in range(2):
                outcome = yield endpoint.post(a_run())
                self.assertEqual((outcome.status, outcome.error), (200, ""))
            self.assertEqual(len(server.connections), 1)

    @inlineCallbacks
    def test_a_second_answer_is_nobody_s(self) -> Any:
        """P2: be it at once or late, the connection is dropped, and the next POST has its own."""
        forged = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        failed = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
        for late in (False, True):

            def twice(conversation: Conversation, request: bytes, late: bool = late) -> None:
                if late:
                    conversation.transport.write(failed)
                    reactor.callLater(SHORT / 4, conversation.transport.write, forged)
                else:
                    conversation.transport.write(failed + forged)

            server = self.serve(twice)
            endpoint = self.endpoint(server.baseurl)
            for count in (1, 2):
                outcome = yield endpoint.post(a_run())
                self.assertEqual(outcome.status, 500)
                yield server.connections[count - 1].lost
            self.assertEqual(len(server.connections), 2)

    @inlineCallbacks
    def test_a_second_answer_that_has_come_before_the_next_request(self) -> Any:
        """
        P2: it is in the socket, and the reactor has not seen it. The next POST looks, and has a
        connection of its own.
        """
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        listening.settimeout(LONG)

        def answer_twice() -> None:
            for _ in range(2):
                accepted = listening.accept()[0]
                with accepted:
                    accepted.settimeout(LONG)
                    accepted.recv(65536)
                    accepted.sendall(FAILED)
                    told.wait(LONG)
                    accepted.sendall(OK)
                    forged.set()
                    ended.wait(LONG)

        told, forged, ended = Event(), Event(), Event()
        self.addCleanup(ended.set)
        serving = deferToThread(answer_twice)
        endpoint = self.endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}/")

        def once_more(outcome: Outcome) -> Deferred[Outcome]:
            self.assertEqual(outcome.status, 500)
            told.set()
            forged.wait(LONG)
            ended.set()
            return endpoint.post(a_run())

        outcome = yield endpoint.post(a_run()).addCallback(once_more)
        self.assertEqual((outcome.status, outcome.error), (500, ""))
        yield serving

    @inlineCallbacks
    def test_a_second_answer_that_tls_has_received_with_the_first(self) -> Any:
        """
        P2: TLS passes it on right behind the first one. A POST that the first one's end begins is
        not sent on that connection, and the second answer is not its own.
        """
        padding = b"x" * (16384 - len(FAILED) - 5)  # all of one record of TLS
        server = self.serve(
            says(FAILED.replace(b"\r\n\r\n", b"\r\nX: %b\r\n\r\n" % padding) + OK),
            a_certificate("localhost", trust=self),
        )
        endpoint = self.endpoint(f"https://localhost:{server.port}/")
        first = endpoint.post(a_run())
        second = yield first.addCallback(lambda _: endpoint.post(a_run()))
        self.assertEqual((second.status, second.error), (None, SPOKE_BEFORE.words))
        self.assertIs(second.kind, ErrorKind.MALFORMED)
        yield server.connections[0].lost
        self.assertEqual(len(server.requests), 1)

    @inlineCallbacks
    def test_a_second_answer_on_a_connection_that_is_used_as_soon_as_it_is_kept(self) -> Any:
        """P2: the same for a POST that begins before the first one's end is told."""
        padding = b"x" * (16384 - len(FAILED) - 5)
        server = self.serve(
            says(FAILED.replace(b"\r\n\r\n", b"\r\nX: %b\r\n\r\n" % padding) + OK),
            a_certificate("localhost", trust=self),
        )
        endpoint = self.endpoint(f"https://localhost:{server.port}/")
        keep = endpoint._pool.keep
        posts: list[Deferred[Outcome]] = []

        def keep_and_use(connection: Connection) -> None:
            keep(connection)
            if not posts:
                posts.append(endpoint.post(a_run()))

        self.patch(endpoint._pool, "keep", keep_and_use)
        yield endpoint.post(a_run())
        second = yield posts[0]
        self.assertEqual((second.status, second.error), (None, SPOKE_BEFORE.words))
        self.assertIs(second.kind, ErrorKind.MALFORMED)
        yield server.connections[0].lost
        self.assertEqual(len(server.requests), 1)

    @inlineCallbacks
    def test_a_post_that_an_answer_leads_to(self) -> Any:
        """It goes out on the same connection. Given up at once, it never does."""
        for tls in (False, True):
            certificate = a_certificate("localhost", trust=self) if tls else None
            server = self.serve(says(OK), certificate)
            endpoint = self.endpoint(f"http{'s' * tls}://localhost:{server.port}/")

            def once_more(_: Outcome, endpoint: Endpoint = endpoint) -> Deferred[Outcome]:
                return endpoint.post(a_run(attempt=2))

            outcome = yield endpoint.post(a_run()).addCallback(once_more)
            self.assertEqual((outcome.status, outcome.error), (200, ""))
            self.assertEqual((len(server.requests), len(server.connections)), (2, 1))

        def never(_: Outcome) -> Outcome:
            posted = endpoint.post(a_run())
            posted.cancel()
            return self.successResultOf(posted)

        [connection] = endpoint._pool._open
        outcome = yield endpoint.post(a_run()).addCallback(never)
        self.assertEqual(outcome.error, "given up before anything was sent")
        yield connection.closed
        self.assertFalse(connection.may_have_sent)
        yield server.connections[0].lost
        self.assertEqual(len(server.requests), 3)

    @inlineCallbacks
    def test_what_is_refused_ends_the_connection(self) -> Any:
        """P2: where an answer's end is in doubt, nothing that follows is read."""
        for answer in (
            CHUNKED.replace(b"Trailer: X", b"Content-Length: 2"),
            OK.replace(b"Content", b"Content-Length: 5\r\nContent"),
            OK.replace(b"\r\nC", b"\r\nX: y\r\n z\r\nC"),
            OK.replace(b"\r\nC", b"\r\nX: y\nC"),
            OK.replace(b"\r\nC", b"\r\nX: \0\r\nC"),
        ):
            yield self.check_refused(answer + OK)

    @inlineCallbacks
    def check_refused(self, answer: bytes) -> Any:
        server = self.serve(says(answer))
        endpoint = self.endpoint(server.baseurl)
        outcome = yield endpoint.post(a_run())
        self.assertEqual(outcome.status, None, answer)
        self.assertTrue(outcome.error.startswith("the answer is malformed HTTP: "), outcome.error)
        yield server.connections[0].lost
        server.answer = says(OK)
        outcome = yield endpoint.post(a_run())
        self.assertEqual((outcome.status, len(server.connections)), (200, 2))

    @inlineCallbacks
    def test_the_answer_to_a_head(self) -> Any:
        """It ends with its headers, though these announce a body."""
        server = self.serve(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
        pool = self.pool(server)
        octets = b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        answer = yield self.exchange(pool, octets)
        self.assertEqual((answer.code, answer.length), (200, 0))
        yield server.connections[0].lost


class SendingTests(WireCase):
    @inlineCallbacks
    def test_large(self) -> Any:
        """What the socket does not take at once is sent as it takes it, and the connection kept."""
        for tls in (False, True):
            certificate = a_certificate("localhost", trust=self) if tls else None
            server = self.serve(says(OK), certificate)
            pool = self.pool(server, "https" if tls else "http", "localhost")
            octets = a_request(5_000_000)
            for parts in ((octets,), (octets,), (octets[:100], octets[100:])):
                head, *content = parts
                answer = yield self.exchange(pool, head, LONG, *content)
                self.assertEqual(answer.code, 200)
            self.assertEqual((len(server.requests), len(server.connections)), (3, 1))
            self.assertEqual(server.requests[1:], [octets] * 2)
            # Or the end of a request might wait for what the server acknowledges late (Nagle).
            [connection] = pool._open
            self.assertTrue(connection.transport.getTcpNoDelay())
            yield pool.close()

    @inlineCallbacks
    def test_a_socket_that_takes_nothing(self) -> Any:
        """The transport sends the request when the socket can take it."""

        class Full:
            def send(self, octets: bytes) -> int:
                raise BlockingIOError

        server = self.serve(says(OK))
        pool = self.pool(server)
        for _ in range(3):
            answer = yield self.exchange(pool, a_request(1))
            self.assertEqual(answer.code, 200)
            [connection] = pool._open
            connection._socket = Full()
        self.assertEqual((server.requests, len(server.connections)), ([a_request(1)] * 3, 1))

    @inlineCallbacks
    def test_a_socket_that_takes_a_part(self) -> Any:
        """Wherever the part ends, the rest of a request in two parts follows it."""
        content = bytes(range(256)) * 256
        head = a_request(len(content))[: -len(content)]
        whole = head + content

        class Partial:
            def __init__(self, inner: Any, size: int) -> None:
                self.inner, self.size = inner, size

            def sendmsg(self, parts: tuple[bytes, bytes]) -> int:
                if not self.size:
                    raise BlockingIOError
                taken: int = self.inner.send(b"".join(parts)[: self.size])
                return taken

        server = self.serve(says(OK))
        pool = self.pool(server)
        yield self.exchange(pool, a_request(1))
        [connection] = pool._open
        inner = connection._socket
        sizes = (
            *(0, 1, len(head) - 1, len(head), len(head) + 1),
            *(len(head) + PIECE, len(whole) - PIECE, len(whole) - 1, len(whole)),
        )
        for size in sizes:
            connection._socket = Partial(inner, size)
            answer = yield self.exchange(pool, head, LONG, content)
            self.assertEqual(answer.code, 200)
        self.assertEqual(server.requests[1:], [whole] * len(sizes))
        self.assertEqual(len(server.connections), 1)

    @inlineCallbacks
    def test_an_answer_before_the_request_was_sent(self) -> Any:
        """P3: it is the answer; the rest of the request is not sent, and the connection dropped."""
        for tls, parts in product((False, True), ((LARGE, b""), LARGE_PARTS)):
            certificate = a_certificate("localhost", trust=self) if tls else None
            server = self.serve(keeps_silent, certificate)
            seen: list[int] = []

            class Early(Conversation):
                def dataReceived(self, data: bytes, seen: list[int] = seen) -> None:
                    if not seen:
                        self.transport.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
                        self.transport.pauseProducing()
                        reactor.callLater(SHORT, self.transport.resumeProducing)
                    seen.append(len(data))

            self.patch(server, "buildProtocol", lambda _, server=server, kind=Early: kind(server))
            pool = self.pool(server, "https" if tls else "http", "localhost")
            answer = yield self.exchange(pool, parts[0], LONG, parts[1])
            self.assertEqual(answer.code, 413)
            yield server.connections[0].lost
            self.assertLess(sum(seen), len(LARGE))
            yield pool.close()

    @inlineCallbacks
    def test_a_greeting_is_no_answer_to_what_was_not_sent(self) -> Any:
        """What comes on an idle connection ends it, and no POST is sent on it."""
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        yield endpoint.post(a_run())
        server.connections[0].transport.write(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        yield server.connections[0].lost
        outcome = yield endpoint.post(a_run())
        self.assertEqual((outcome.status, len(server.connections)), (200, 2))
        # Nor does a POST of the same turn of the reactor, in which the socket is not closed yet.
        [connection] = endpoint._pool._open
        connection.dataReceived(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        outcome = yield endpoint.post(a_run())
        self.assertEqual((outcome.status, len(server.connections)), (200, 3))

    @inlineCallbacks
    def test_a_connection_that_was_lost_before_it_could_be_used(self) -> Any:
        """It would never say so again: nothing is sent, and nobody waits for the deadline."""
        server = self.serve(says(OK))
        pool = self.pool(server)
        yield self.exchange(pool, a_request(1))
        [connection] = pool._open
        connection.drop()
        yield connection.closed
        exchange = Exchange(reactor, pool._route, a_request(1), LONG)
        exchange.start(pool._deadlines)
        exchange.await_connection(succeed(connection))
        failure = self.failureResultOf(exchange.answer, PostFailed)
        self.assertEqual(failure.value.why, CLOSED_BEFORE)
        self.assertIs(failure.value.why.kind, ErrorKind.CLOSED)

    @inlineCallbacks
    def test_the_connection_used_last_is_used_next(self) -> Any:
        """So that those which are not needed come to their end."""
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        first, second = endpoint.post(a_run()), endpoint.post(a_run())
        yield first
        yield second
        used: list[Conversation] = []

        def answer(conversation: Conversation, request: bytes) -> None:
            used.append(conversation)
            conversation.transport.write(OK)

        server.answer = answer
        for _ in range(4):
            yield endpoint.post(a_run())
        self.assertEqual((len(server.connections), len(set(used))), (2, 1))

    @inlineCallbacks
    def test_idle_for_too_long_in_a_turn_that_takes_long(self) -> Any:
        """The timer is late then, and the POST has a new connection all the same."""
        self.patch(dalga_pool, "IDLE", SHORT)
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)

        def once_more(_: object) -> Deferred[Outcome]:
            sleep(1.5 * SHORT)
            return endpoint.post(a_run())

        both = gatherResults([endpoint.post(a_run()) for _ in range(2)])
        outcome = yield both.addCallback(once_more)
        self.assertEqual((outcome.status, len(server.connections)), (200, 3))
        yield server.connections[0].lost
        yield server.connections[1].lost

    @inlineCallbacks
    def test_each_idle_connection_comes_to_its_end(self) -> Any:
        """One timer closes them all, each at its time."""
        self.patch(dalga_pool, "IDLE", SHORT)
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        yield gatherResults([endpoint.post(a_run()) for _ in range(2)])
        yield deferLater(reactor, SHORT / 2)
        yield endpoint.post(a_run())
        for conversation in server.connections:
            yield conversation.lost

    @inlineCallbacks
    def test_as_many_as_there_are_slots_are_kept(self) -> Any:
        """P10: the others are closed, those first that have been idle for longest."""
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl, slots=3)
        yield gatherResults([endpoint.post(a_run()) for _ in range(20)])
        while server.open > 3:
            yield deferLater(reactor, 0.01)
        before = len(server.connections)
        yield gatherResults([endpoint.post(a_run()) for _ in range(3)])
        self.assertEqual((server.open, len(server.connections)), (3, before))

    @inlineCallbacks
    def test_the_deadline_while_sending(self) -> Any:
        """P3: a server that reads nothing is given up in time."""
        for head, content in ((LARGE, b""), LARGE_PARTS):
            server = self.serve(keeps_silent)
            server.on_connection = lambda conversation: conversation.transport.pauseProducing()
            exchange = self.exchange(self.pool(server), head, SHORT, content)
            failure = yield exchange.addErrback(lambda failure: failure.value)
            self.assertIsInstance(failure, PostFailed)
            self.assertEqual(str(failure), "no answer within 0.2 s")
            server.connections[0].transport.resumeProducing()
            yield server.connections[0].lost

    @inlineCallbacks
    def test_a_process_that_was_stopped_while_sending_sends_no_more(self) -> Any:
        """
        P3: it is past the deadline when it goes on, and the socket takes more before the timers are
        looked at. A jump of the clock plays the stop.
        """
        server = self.serve(keeps_silent)
        server.on_connection = lambda conversation: conversation.transport.pauseProducing()
        pool = self.pool(server)
        head, content = LARGE_PARTS
        exchange = self.exchange(pool, head, LONG, content)
        while not server.connections:
            yield deferLater(reactor, 0.01)
        [connection] = pool._open
        left = len(connection._rest)
        self.assertGreater(left, 0)
        seconds = reactor.seconds
        self.patch(reactor, "seconds", lambda: seconds() + 2 * LONG)
        connection.resumeProducing()
        failure = self.failureResultOf(exchange, PostFailed)
        self.assertEqual(str(failure.value), "no answer within 15 s")
        self.assertEqual(len(connection._rest), left)
        server.connections[0].transport.resumeProducing()
        yield server.connections[0].lost

    @inlineCallbacks
    def test_a_process_that_was_stopped_in_the_handshake_sends_nothing(self) -> Any:
        """
        P3: it is past the deadline when it goes on, and TLS is agreed on before the timers are
        looked at. A jump of the clock plays the stop.
        """
        server = self.serve(keeps_silent, a_certificate("localhost", trust=self))
        seconds, completed = reactor.seconds, Connection.handshakeCompleted

        def complete_late(connection: Connection) -> None:
            self.patch(reactor, "seconds", lambda: seconds() + 2 * LONG)
            completed(connection)

        self.patch(Connection, "handshakeCompleted", complete_late)
        where = f"localhost:{server.port}"
        outcome = yield self.endpoint(f"https://{where}/").post(a_run())
        self.assertEqual(
            outcome.error, f"could not agree on TLS with {where} within 15 s, nothing was sent"
        )
        yield server.connections[0].lost
        self.assertEqual(server.requests, [])

    @inlineCallbacks
    def test_a_connect_that_takes_too_long_is_given_up(self) -> Any:
        """P3: at the POST's deadline, though the connect has more time left."""
        where = f"127.0.0.1:{self.a_full_port()}"
        before = reactor.getWriters()
        outcome = yield self.endpoint(f"http://{where}/", LONG).post(a_run(timeout=SHORT))
        self.assertEqual(
            outcome.error, f"could not connect to {where} within 0.2 s, nothing was sent"
        )
        self.assertEqual(reactor.getWriters(), before)

    @inlineCallbacks
    def test_close_during_an_exchange(self) -> Any:
        """The exchange has its answer, and its connection is closed then."""
        server = self.serve(keeps_silent)
        asked: Deferred[Conversation] = Deferred()
        server.answer = lambda conversation, request: asked.callback(conversation)
        pool = self.pool(server)
        answered = self.exchange(pool, a_request(1))
        conversation = yield asked
        yield pool.close()
        conversation.transport.write(OK)
        answer = yield answered
        self.assertEqual(answer.code, 200)
        yield conversation.lost

    @inlineCallbacks
    def test_a_mistake_of_ours(self) -> Any:
        """It ends the exchange, which waits for no deadline."""
        server = self.serve(says(OK))

        def carry(connection: Connection, exchange: Exchange) -> None:
            raise ZeroDivisionError

        self.patch(Connection, "carry", carry)
        failed = self.exchange(self.pool(server), a_request(1))
        yield self.assertFailure(failed, ZeroDivisionError)
        yield server.connections[0].lost

    @inlineCallbacks
    def test_no_deadline_is_left(self) -> Any:
        """What has ended in time waits for nothing: the reactor has no timer but the idle ones'."""
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        for _ in range(5):
            yield endpoint.post(a_run())
        before = len(reactor.getDelayedCalls())
        yield endpoint.close()
        yield deferLater(reactor, 0)
        self.assertLess(len(reactor.getDelayedCalls()), before)
