"""
Requests of jobs that have a method, headers or a payload of their own, over real sockets. What a
plain POST is, and what becomes of answers in general, is in test_endpoint.
"""

from __future__ import annotations

import tracemalloc
from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks

from dalga.model.answers import Meaning
from dalga.model.delivery import PLAIN, Delivery, Method, Payload, PayloadKind
from dalga.model.run import Outcome, Run
from dalga.model.trace import traceparent
from dalga.outgoing.endpoint import Endpoint
from dalga.outgoing.trust import Trust
from dalga.outgoing.wire import PIECE
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
    reactor,
    says,
)

TEXT, JSON, BASE64 = PayloadKind.TEXT, PayloadKind.JSON, PayloadKind.BASE64
FAILED = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"


def of(delivery: Delivery, timeout: float = LONG) -> Run:
    """A run as a claim makes it."""
    run = a_run(timeout=timeout)
    if delivery.payload is not None:
        return run._replace(delivery=delivery, payload=delivery.payload.octets)
    return run._replace(delivery=delivery)


def parts(request: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """The first line, the headers by their names in lower case, and the content."""
    head, _, content = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b": ")
        assert name.lower() not in headers, request
        headers[name.lower()] = value
    return first, headers, content


class RequestTests(EndpointCase):
    """What goes out."""

    @inlineCallbacks
    def sent(self, *runs: Run, headers: tuple[tuple[str, str], ...] = ()) -> Any:
        """The requests of these runs, made one after the other."""
        server = self.serve(says(FAILED))
        endpoint = Endpoint(reactor, server.baseurl, LONG, "here-1", 10, Trust(), headers)
        self.addCleanup(endpoint.close)
        for run in runs:
            outcome = yield endpoint.post(run)
            self.assertEqual((outcome.status, outcome.error), (500, ""))
        return server.requests

    @inlineCallbacks
    def test_a_replay(self) -> Any:
        """It names the run that it repeats; no other request does."""
        origin = "0123456789abcdef0123456789abcdef-17"
        requests = yield self.sent(
            of(Delivery(replay_of=origin)), of(Delivery(method=Method.PUT)), a_run()
        )
        headers = [parts(request)[1].get(b"dalga-replay-of") for request in requests]
        self.assertEqual(headers, [origin.encode(), None, None])

    @inlineCallbacks
    def test_methods_and_content(self) -> Any:
        """
        RFC 9110 section 8.6: content has a length, be it 0 octets; a request without content has
        neither a length nor a type.
        """
        put, patch, delete, get, head = (
            Method.PUT,
            Method.PATCH,
            Method.DELETE,
            Method.GET,
            Method.HEAD,
        )
        text, empty = Payload(b"a\r\nb"), Payload(b"")
        plain = b"text/plain"
        table = (
            (Delivery(method=put), b"PUT", plain, b"1234"),
            (Delivery(method=patch), b"PATCH", plain, b"1234"),
            (Delivery(method=delete), b"DELETE", None, None),
            (Delivery(method=get), b"GET", None, None),
            (Delivery(payload=text), b"POST", plain, b"a\r\nb"),
            (Delivery(payload=text, method=put), b"PUT", plain, b"a\r\nb"),
            (Delivery(payload=text, method=delete), b"DELETE", plain, b"a\r\nb"),
            (Delivery(payload=empty), b"POST", plain, b""),
            (Delivery(payload=empty, method=put), b"PUT", plain, b""),
            (Delivery(payload=empty, method=patch), b"PATCH", plain, b""),
            (Delivery(payload=empty, method=delete), b"DELETE", plain, b""),
            (Delivery(payload=Payload(b"[1]", JSON)), b"POST", b"application/json", b"[1]"),
            (
                Delivery(payload=Payload(bytes(range(256)), BASE64)),
                b"POST",
                b"application/octet-stream",
                bytes(range(256)),
            ),
            (
                Delivery(payload=Payload(b"[1]", JSON), content_type="a/b; c=d"),
                b"POST",
                b"a/b; c=d",
                b"[1]",
            ),
            (Delivery(content_type="a/b"), b"POST", b"a/b", b"1234"),
            # No API lets these pass, and yet they are no content of a GET.
            (Delivery(payload=text, method=get, content_type="a/b"), b"GET", None, None),
            (Delivery(method=get, headers=(("Content-Type", "a/b"),)), b"GET", None, None),
        )
        requests = yield self.sent(*(of(delivery) for delivery, *_ in table))
        for request, (delivery, method, kind, content) in zip(requests, table, strict=True):
            first, headers, octets = parts(request)
            self.assertEqual(first, method + b" /check_feed HTTP/1.1", delivery)
            self.assertEqual(headers.get(b"content-type"), kind, delivery)
            length = None if content is None else b"%d" % len(content)
            self.assertEqual(headers.get(b"content-length"), length, delivery)
            self.assertEqual(octets, content or b"", delivery)
            for name in (b"host", b"accept-encoding", b"user-agent", b"dalga-instance"):
                self.assertIn(name, headers)
            for name in (b"dalga-sched", b"dalga-run", b"dalga-attempt", b"traceparent"):
                self.assertIn(name, headers)
        [request] = yield self.sent(of(Delivery(method=head)))
        self.assertEqual(parts(request)[0], b"HEAD /check_feed HTTP/1.1")
        self.assertNotIn(b"content-", request.lower())

    @inlineCallbacks
    def test_a_job_without_a_delivery(self) -> Any:
        """Its POST is the same to the octet, whichever way it is written."""
        requests = yield self.sent(
            a_run(),
            of(Delivery()),
            of(Delivery(payload=Payload(b"1234"))),
            headers=(("X-Key", "a"), ("User-Agent", "us/1")),
        )
        self.assertIs(a_run().delivery, PLAIN)
        self.assertEqual(requests, [requests[0]] * 3)

    @inlineCallbacks
    def test_headers(self) -> Any:
        """The job's come beside the endpoint's, and replace those of the same name in any case."""
        given = (("X-KEY", "b"), ("user-agent", "job/1"), ("X-Own", "c, d"), ("Authorization", "e"))
        requests = yield self.sent(
            of(Delivery(headers=given)),
            of(Delivery(headers=(("CONTENT-type", "a/b"),))),
            of(Delivery(payload=Payload(b"[1]", JSON))),
            a_run(),
            headers=(("x-key", "a"), ("X-Other", "f"), ("content-type", "text/csv")),
        )
        _, headers, _ = parts(requests[0])
        expected = {
            b"x-key": b"b",
            b"user-agent": b"job/1",
            b"x-own": b"c, d",
            b"authorization": b"e",
            b"x-other": b"f",
            b"content-type": b"text/csv",
        }
        self.assertEqual({name: headers[name] for name in expected}, expected)
        self.assertEqual(parts(requests[1])[1][b"content-type"], b"a/b")
        self.assertEqual(parts(requests[2])[1][b"content-type"], b"application/json")
        # Nothing of them is left for the next run.
        _, headers, _ = parts(requests[3])
        self.assertEqual((headers[b"x-key"], headers[b"content-type"]), (b"a", b"text/csv"))
        self.assertNotIn(b"x-own", headers)

    @inlineCallbacks
    def test_the_trace(self) -> Any:
        """
        W3C Trace Context: the same trace on each attempt of a run, by any instance, and another
        parent. A header of that name of the endpoint or the job goes before it, in any case.
        """
        own = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"
        job = of(Delivery(headers=(("TraceParent", own),)))
        run, detailed = a_run(), of(Delivery(method=Method.PUT))
        runs = [a_run(attempt=1), detailed, a_run(attempt=2), run._replace(id="0a1c"), job]
        plain = yield self.sent(*runs)
        traces = [parts(request)[1][b"traceparent"] for request in plain]
        first = traceparent("0a1b", 1).encode()
        self.assertRegex(first, rb"^00-[0-9a-f]{32}-[0-9a-f]{16}-01$")
        self.assertEqual(traces[:2], [first, first])
        self.assertEqual(traces[2], traceparent("0a1b", 2).encode())
        self.assertEqual(traces[4], own.encode())
        ids = [trace.split(b"-") for trace in traces]
        self.assertEqual(ids[0][1], ids[2][1])
        self.assertNotEqual(ids[0][2], ids[2][2])
        self.assertNotEqual(ids[0][1], ids[3][1])
        theirs = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
        given = yield self.sent(run, detailed, job, headers=(("TRACEPARENT", theirs),))
        found = [parts(request)[1][b"traceparent"] for request in given]
        self.assertEqual(found, [theirs.encode(), theirs.encode(), own.encode()])

    @inlineCallbacks
    def test_headers_that_got_past_all_checks(self) -> Any:
        """
        Whatever a stranger's SQL has put into the table, no header ends its line, frames the
        request anew, or passes for Dalga's own: nothing is sent, and the words have no value.
        """
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        unnamed = "a header of the job has a name that none can have, nothing was sent"

        def refused(name: str) -> str:
            return f"the job's header {name} can't be sent, nothing was sent"

        for name, value, words in (
            *(
                ("X-Key", f"s3cret{end}X-Forged: 1", refused("X-Key"))
                for end in ("\r\n", "\n", "\r", "\0", "\x0b", "\x85", "\u2028", "\u560d\u560a")
            ),
            ("X-Key", "s3cret\r\n\r\nGET / HTTP/1.1\r\n\r\n", refused("X-Key")),
            ("X-Key", "", refused("X-Key")),
            ("X-Key", "s3cr\u00e9t", refused("X-Key")),
            ("X-Key", "s3cret\ud800", refused("X-Key")),
            ("X-Key: s3cret\r\nX", "y", unnamed),
            ("X Key", "s3cret", unnamed),
            ("", "s3cret", unnamed),
            *(
                (name, "1", refused(name))
                for name in ("Content-Length", "transfer-encoding", "HOST", "Connection", "Expect")
            ),
            *((name, "1", refused(name)) for name in ("Dalga-Run", "webhook-signature")),
        ):
            for delivery in (
                Delivery(headers=(("X-Good", "1"), (name, value))),
                Delivery(method=Method.GET, headers=((name, value),)),
            ):
                outcome = yield endpoint.post(of(delivery))
                self.assertEqual((outcome.status, outcome.error), (None, words), (name, value))
        for value in ("a/b\r\nX: y", "a/b\n", "\u00e9"):
            outcome = yield endpoint.post(of(Delivery(content_type=value)))
            self.assertEqual(outcome.error, refused("Content-Type"))
        self.assertEqual(server.connections, [])


class AnswerTests(EndpointCase):
    """What comes back, by the method."""

    @inlineCallbacks
    def test_no_content_comes_with_the_answer_to_a_head(self) -> Any:
        """
        RFC 9112 section 6.3: it ends with its headers, whatever they say of content. There is
        nothing to wait for, and the next run has its own answer (P2, P3).
        """
        head = Delivery(method=Method.HEAD)
        for fields in (
            b"Content-Length: 5\r\n",
            b"Content-Length: 0\r\n",
            b"Content-Length: 100000000\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"",
        ):
            for interim in (b"", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 7\r\n\r\n"):
                answer = interim + b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"
                outcome = yield self.post(says(answer), run=of(head))
                self.assertEqual((outcome.status, outcome.error), (200, ""), answer)
        # The same headers as the answer to a GET are only the beginning of it.
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        outcome = yield self.post(says(answer), SHORT, of(Delivery(method=Method.GET)))
        self.assertEqual(outcome.error, "no answer within 0.2 s")

    @inlineCallbacks
    def test_content_after_all_is_nobody_s_answer(self) -> Any:
        """P2: a server that sends a HEAD's answer with content, at once or late, forges none."""
        forged = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        start = b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(forged)
        for late in (False, True):
            server = self.serve(keeps_silent)

            def answer(
                conversation: Conversation,
                request: bytes,
                late: bool = late,
                server: Server = server,
            ) -> None:
                if request.startswith(b"HEAD "):
                    conversation.transport.write(start if late else start + forged)
                    return
                if late:
                    server.connections[0].transport.write(forged)
                conversation.transport.write(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")

            server.answer = answer
            endpoint = self.endpoint(server.baseurl)

            def once_more(outcome: Outcome, endpoint: Endpoint = endpoint) -> Deferred[Outcome]:
                """In the moment of the answer, when its connection might have been kept."""
                self.assertEqual((outcome.status, outcome.error), (500, ""))
                return endpoint.post(a_run())

            outcome = yield endpoint.post(of(Delivery(method=Method.HEAD))).addCallback(once_more)
            self.assertEqual(outcome.status, 404)
            yield server.connections[0].lost

    @inlineCallbacks
    def test_each_method_takes_each_answer(self) -> Any:
        """
        P2, P11: statuses without content, redirects, interim answers, Retry-After and Dalga-Verdict
        mean the same whatever the method, and the next request has its own answer.
        """
        elsewhere = self.serve(says(OK))
        over_there = b"Location: http://127.0.0.1:%d/\r\n" % elsewhere.port
        nothing = b"Content-Length: 0\r\n\r\n"
        table = (
            (b"HTTP/1.1 204 No\r\n\r\n", (204, None, None)),
            (b"HTTP/1.1 205 Reset\r\n" + nothing, (205, None, None)),
            (b"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", (304, None, None)),
            (b"HTTP/1.1 301 There\r\n" + over_there + nothing, (301, None, None)),
            (b"HTTP/1.1 303 There\r\n" + over_there + nothing, (303, None, None)),
            (b"HTTP/1.1 308 There\r\n" + over_there + nothing, (308, None, None)),
            (b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\n" + nothing, (200, None, None)),
            (
                b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n" + nothing,
                (503, timedelta(seconds=7), None),
            ),
            (b"HTTP/1.1 200 OK\r\nDalga-Verdict: fail\r\n" + nothing, (200, None, Meaning.FAIL)),
        )
        for method in Method:
            server = self.serve(keeps_silent)

            def answer(conversation: Conversation, request: bytes, server: Server = server) -> None:
                conversation.transport.write(table[len(server.requests) - 1][0])

            server.answer = answer
            endpoint = self.endpoint(server.baseurl)
            for _, expected in table:
                outcome = yield endpoint.post(of(Delivery(method=method)))
                found = (outcome.status, outcome.retry_after, outcome.meaning)
                self.assertEqual((found, outcome.error), (expected, ""), method)
        self.assertEqual(elsewhere.connections, [])

    @inlineCallbacks
    def test_connections_are_kept(self) -> Any:
        """For any method but HEAD, whose answer some servers send with content."""
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        for method in Method:
            if method is not Method.HEAD:
                yield endpoint.post(of(Delivery(method=method)))
        self.assertEqual((len(server.requests), len(server.connections)), (5, 1))


class PayloadTests(EndpointCase):
    @inlineCallbacks
    def test_large(self) -> Any:
        """The largest that may be configured arrives whole, several times on one connection."""
        payload = bytes(range(256)) * 4096
        for tls in (False, True):
            certificate = a_certificate("localhost", trust=self) if tls else None
            server = self.serve(says(OK), certificate)
            endpoint = self.endpoint(f"http{'s' * tls}://localhost:{server.port}/")
            for _ in range(3):
                outcome = yield endpoint.post(of(Delivery(payload=Payload(payload, BASE64))))
                self.assertEqual((outcome.status, outcome.error), (200, ""))
            self.assertEqual(len(server.connections), 1)
            for request in server.requests:
                self.assertEqual(parts(request)[2], payload)

    @inlineCallbacks
    def test_a_server_that_reads_nothing(self) -> Any:
        """
        P3, P10: all POSTs end by their deadline, and their payloads are not copied meanwhile.
        """
        server = self.serve(keeps_silent)
        server.on_connection = lambda conversation: conversation.transport.pauseProducing()
        endpoint = self.endpoint(server.baseurl, slots=20)
        payload = bytes(20_000_000)  # more than the sockets' buffers hold
        delivery = Delivery(payload=Payload(payload, BASE64))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        outcomes = yield gatherResults([endpoint.post(of(delivery, 4 * SHORT)) for _ in range(20)])
        _, peak = tracemalloc.get_traced_memory()
        self.assertEqual({outcome.error for outcome in outcomes}, {"no answer within 0.8 s"})
        self.assertLess(peak - before, 20 * 3 * PIECE + 1_000_000)
        for conversation in server.connections:
            conversation.transport.resumeProducing()
            yield conversation.lost
