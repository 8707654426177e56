"""
POSTs through a proxy, over real sockets: to where they go, and what becomes of each thing that a
proxy may do instead (P11).
"""

from __future__ import annotations

import os
from base64 import b64encode
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.attempt import ErrorKind
from dalga.model.run import Outcome
from dalga.outgoing import tunnel as dalga_tunnel
from dalga.outgoing.endpoint import Endpoint
from dalga.outgoing.pool import Way
from dalga.outgoing.trust import Trust
from dalga.outgoing.tunnel import Proxy, answer_of
from tests import proxies
from tests.certificates import Authority, dns
from tests.proxies import answers, connects, keeps_silent, wants
from tests.strategies import thorough
from tests.test_endpoint import LONG, OK, SHORT, EndpointCase, a_run, says

reactor: Any = real_reactor

SECRET = "Basic " + b64encode(b"dalga:s3cret").decode()


class TunnelCase(EndpointCase):
    def setUp(self) -> None:
        # Nothing of the environment is heeded: a POST that went there would fail.
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY"):
            self.patch(os, "environ", {**os.environ, name: "http://127.0.0.1:9/"})

    def proxy(self, answer: proxies.Answer) -> proxies.Proxy:
        proxy = proxies.Proxy(reactor, answer)
        listening = reactor.listenTCP(0, proxy, interface="127.0.0.1")
        proxy.port = listening.getHost().port

        async def stop() -> None:
            await listening.stopListening()
            for asked in proxy.connections:
                if not asked.lost.called:
                    asked.transport.abortConnection()
                await asked.lost

        self.addCleanup(lambda: ensureDeferred(stop()))
        return proxy

    def through(
        self, port: int, baseurl: str, authorization: str = "", trust: Trust | None = None
    ) -> Endpoint:
        """An endpoint behind the proxy at a port of this machine."""
        way = Way(proxy=Proxy("127.0.0.1", port, authorization))
        endpoint = Endpoint(reactor, baseurl, LONG, "here-1", 10, trust or Trust(), way=way)
        self.addCleanup(endpoint.close)
        return endpoint

    async def refused(self, answer: proxies.Answer, timeout: float = LONG) -> Outcome:
        """The outcome of a POST through a proxy to a server that must not get it."""
        server = self.serve(says(OK))
        proxy = self.proxy(answer)
        outcome = await self.through(proxy.port, server.baseurl).post(a_run(timeout=timeout))
        self.assertEqual((outcome.status, server.requests, server.connections), (None, [], []))
        for asked in proxy.connections:
            await asked.lost  # no connection is left
        (self.last_port, self.last_target) = proxy.port, f"127.0.0.1:{server.port}"
        return outcome


class ConnectTests(TunnelCase):
    """The way there."""

    async def test_http(self) -> None:
        """The proxy resolves the name, and hands on the same request as without it."""
        server = self.serve(says(OK))
        proxy = self.proxy(connects())
        proxy.hosts["app.dalga.test"] = "127.0.0.1"
        endpoint = self.through(proxy.port, f"http://app.dalga.test:{server.port}/in")
        for _ in range(2):
            outcome = await endpoint.post(a_run())
            self.assertEqual((outcome.status, outcome.error), (200, ""))
        first, *lines = proxy.heads[0].split(b"\r\n")
        target = f"app.dalga.test:{server.port}".encode()
        self.assertEqual(first, b"CONNECT " + target + b" HTTP/1.1")
        self.assertEqual([lines[0], len(lines)], [b"Host: " + target, 2])
        self.assertTrue(lines[1].startswith(b"User-Agent: dalga/"))
        self.assertEqual(len(proxy.heads), 1)  # the connection was kept
        self.assertEqual(len(server.requests), 2)
        self.assertTrue(server.requests[0].startswith(b"POST /in/check_feed HTTP/1.1\r\nHost: app"))

    async def test_https(self) -> None:
        """The certificate is the target's, and is checked; the proxy sees nothing in clear."""
        authority = Authority()
        trust = Trust(authority.write(self.mktemp()))
        for name, status in (("app.dalga.test", 200), ("other.dalga.test", None)):
            server = self.serve(says(OK), authority.issue(dns(name)))
            proxy = self.proxy(connects())
            proxy.hosts["app.dalga.test"] = "127.0.0.1"
            url = f"https://app.dalga.test:{server.port}/"
            outcome = await self.through(proxy.port, url, trust=trust).post(a_run())
            self.assertEqual(outcome.status, status)
            self.assertEqual(proxy.through, 1)
            self.assertNotIn(b"HTTP/1.1 200", proxy.seen)
            if status is None:
                self.assertIn("is for another host", outcome.error)
                self.assertEqual(server.requests, [])
            self.flushLoggedErrors()

    async def test_authorization(self) -> None:
        """It is for the proxy alone: the endpoint never sees it."""
        server = self.serve(says(OK))
        proxy = self.proxy(wants(SECRET))
        outcome = await self.through(proxy.port, server.baseurl, SECRET).post(a_run())
        self.assertEqual(outcome.status, 200)
        self.assertNotIn(b"proxy-authorization", server.requests[0].lower())
        for authorization in ("", "Basic eDp5"):
            endpoint = self.through(proxy.port, server.baseurl, authorization)
            outcome = await endpoint.post(a_run())
            self.assertEqual(
                outcome.error,
                f"the proxy 127.0.0.1:{proxy.port} answered 407 (it wants another user or "
                f"password) when it was asked for a connection to 127.0.0.1:{server.port}, "
                "nothing was sent",
            )
        self.assertEqual(len(server.requests), 1)

    async def test_answers_that_will_do(self) -> None:
        """Any 2xx, with whatever fields; interim answers before it are none."""
        for answer in (
            b"HTTP/1.0 200\r\n\r\n",
            b"HTTP/1.1 299 Fine\r\nContent-Length: 1000\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nVia: x\r\n\r\n",
            b"HTTP/1.1 200 OK\n\n",
        ):
            server = self.serve(says(OK))
            proxy = self.proxy(connects(answer))
            outcome = await self.through(proxy.port, server.baseurl).post(a_run())
            self.assertEqual((outcome.status, outcome.error), (200, ""), answer)

    async def test_in_single_bytes(self) -> None:
        server = self.serve(says(OK))

        def slowly(asked: proxies.Asked, head: bytes) -> None:
            octets = [bytes([octet]) for octet in proxies.CONNECTED]

            def next_one() -> None:
                if len(octets) == 1:
                    asked.connect(head, octets.pop())
                else:
                    asked.transport.write(octets.pop(0))
                    reactor.callLater(0, next_one)

            next_one()

        proxy = self.proxy(slowly)
        outcome = await self.through(proxy.port, server.baseurl).post(a_run())
        self.assertEqual((outcome.status, outcome.error), (200, ""))

    async def test_a_target_that_speaks_first(self) -> None:
        """P2: what comes before the request is never taken for its answer."""
        server = self.serve(says(OK))
        proxy = self.proxy(connects(proxies.CONNECTED + OK))
        outcome = await self.through(proxy.port, server.baseurl).post(a_run())
        self.assertEqual(outcome.status, None)
        self.assertIn(" sent something behind its answer when ", outcome.error)
        self.assertEqual(server.requests, [])

    async def test_an_address_of_ipv6(self) -> None:
        proxy = self.proxy(answers(b"HTTP/1.1 502 No\r\n\r\n"))
        await self.through(proxy.port, "http://[2001:db8::1]/").post(a_run())
        self.assertTrue(proxy.heads[0].startswith(b"CONNECT [2001:db8::1]:80 HTTP/1.1\r\n"))


class RefusalTests(TunnelCase):
    """Proxies that make no connection: nothing is sent, and nothing goes another way (P11)."""

    async def test_answers(self) -> None:
        for answer, what in (
            (answers(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 9\r\n\r\nno such x"), "502"),
            (answers(b"HTTP/1.1 200OK\r\n\r\n"), "malformed HTTP: 'HTTP/1.1 200OK"),
            (answers(b"HTTP/2 200 OK\r\n\r\n"), "no HTTP: 'HTTP/2 200 OK"),
            (answers(b"\x00\x01garbage"), "no HTTP: '\\x00\\x01garbage'"),
            (answers(b"SSH-2.0-x\r\n"), "no HTTP: 'SSH-2.0-x\\r\\n'"),
            (answers(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n"), "302"),
            (answers(b"HTTP/1.1 101 Switching Protocols\r\n\r\nx"), "no HTTP: 'x'"),
            (answers(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000), "with headers longer than 16 KiB"),
        ):
            outcome = await self.refused(answer)
            self.assertEqual(outcome.kind, ErrorKind.CONNECT)
            start = f"the proxy 127.0.0.1:{self.last_port} answered {what}"
            self.assertTrue(outcome.error.startswith(start), outcome.error)
            end = f" when it was asked for a connection to {self.last_target}, nothing was sent"
            self.assertTrue(outcome.error.endswith(end), outcome.error)

    async def test_closed(self) -> None:
        outcome = await self.refused(answers(b"HTTP/1.1 2", close=True))
        self.assertEqual(outcome.kind, ErrorKind.CONNECT)
        self.assertIn(" closed the connection when it was asked ", outcome.error)

    async def test_never(self) -> None:
        """P3: the deadline counts for it, too."""
        for answer in (keeps_silent, answers(b"HTTP/1.1 200 OK\r\n")):
            outcome = await self.refused(answer, SHORT)
            self.assertEqual(
                (outcome.kind, outcome.error),
                (
                    ErrorKind.CONNECT,
                    f"could not connect to {self.last_target} through the proxy "
                    f"127.0.0.1:{self.last_port} within {SHORT:g} s, nothing was sent",
                ),
            )

    async def test_a_tls_handshake_that_never_comes(self) -> None:
        """The deadline is that of the whole POST, behind a proxy as well."""
        trust = Trust(Authority().write(self.mktemp()))
        server = self.serve(says(OK))  # which takes TLS for the beginning of a request
        proxy = self.proxy(connects())
        endpoint = self.through(proxy.port, f"https://127.0.0.1:{server.port}/", trust=trust)
        outcome = await endpoint.post(a_run(timeout=SHORT))
        self.assertIn("could not agree on TLS", outcome.error)

    async def test_nobody_there(self) -> None:
        """A proxy that is down is not passed by."""
        server = self.serve(says(OK))
        unused = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        port = unused.getHost().port
        await unused.stopListening()
        outcome = await self.through(port, server.baseurl).post(a_run())
        self.assertEqual(
            (outcome.kind, outcome.error),
            (ErrorKind.CONNECT, f"connection refused by the proxy 127.0.0.1:{port}"),
        )
        self.assertEqual(server.connections, [])

    async def test_a_proxy_without_an_address(self) -> None:
        self.resolve("known.dalga.test", 9)
        way = Way(proxy=Proxy("unknown.dalga.test", 3128))
        endpoint = Endpoint(reactor, "http://known.dalga.test/", LONG, "i", 1, Trust(), way=way)
        self.addCleanup(endpoint.close)
        outcome = await endpoint.post(a_run())
        self.assertEqual(outcome.kind, ErrorKind.DNS)
        self.assertIn("could not resolve host name unknown.dalga.test", outcome.error)

    async def test_cancelled(self) -> None:
        """A stop ends what waits for a proxy, and leaves nothing, which trial would say."""
        proxy = self.proxy(keeps_silent)
        post = self.through(proxy.port, "http://127.0.0.1:9/").post(a_run())
        reactor.callLater(0.05, post.cancel)
        self.assertIn("given up", (await post).error)
        await proxy.connections[0].lost

    async def test_at_most(self) -> None:
        """P10: the answer of a proxy that sends for ever is not kept."""
        self.patch(dalga_tunnel, "MAX_HEAD", 10)
        outcome = await self.refused(answers(b"HTTP/1.1 200 OK\r\nX: y"))
        self.assertIn("answered with headers longer than", outcome.error)


class EnvironmentTests(TunnelCase):
    async def test_without_a_proxy(self) -> None:
        """The environment's proxies are not used."""
        server = self.serve(says(OK))
        outcome = await self.endpoint(server.baseurl).post(a_run())
        self.assertEqual(outcome.status, 200)


class AnswerTests(SynchronousTestCase):
    """`answer_of`"""

    @thorough(300)
    @given(
        st.lists(
            st.sampled_from(
                [
                    *(b"HTTP/1.1 ", b"HTTP/1.", b"0 ", b"200", b"100", b"407", b" OK", b"\r\n"),
                    *(b"\n", b"\r", b"X: y", b"\r\n\r\n", b"\x00", b"\xff", b"a" * 50),
                ]
            ),
            max_size=12,
        ).map(b"".join)
        | st.binary(max_size=40)
    )
    def test_however_it_comes(self, octets: bytes) -> None:
        """
        Once there is an answer, or none any more, more octets change nothing but what is behind it.
        """
        found: object = None
        for length in range(len(octets) + 1):
            try:
                answer = answer_of(octets[:length])
                now: object = None if answer is None else answer.status
                if answer is not None:
                    self.assertTrue(octets[:length].endswith(answer.rest))
                    self.assertGreater(answer.status, 199)
                    self.assertLess(answer.status, 1000)
            except ValueError:
                now = "refused"
            if found is not None:
                self.assertEqual(now, found, octets)
            found = now

    def test_bounded(self) -> None:
        """P10: interim answers without end are no answer."""
        self.assertRaises(ValueError, answer_of, b"HTTP/1.1 100 C\r\n\r\n" * 1000 + b"HTTP/")


class WordTests(SynchronousTestCase):
    def test_no_secret(self) -> None:
        """P12"""
        proxy = Proxy("p.example", 3128, SECRET)
        self.assertNotIn(SECRET, f"{proxy} {proxy!r} {Way(proxy=proxy)}")
        self.assertEqual(str(Proxy("::1", 1)), "the proxy [::1]:1")
