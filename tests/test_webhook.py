"""The POST of an alert, over real sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as real_reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from dalga.outgoing.trust import Trust
from dalga.outgoing.webhook import Webhook
from tests.receivers import Receiver, listen

reactor: Any = real_reactor


class Echo(Protocol):
    """A server that sends what it gets, behind other octets."""

    before = b""
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self.before + data)


class WebhookTests(TestCase):
    def setUp(self) -> None:
        self.receiver = Receiver()
        port = listen(reactor, self.receiver)
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    def webhook(self, path: str, authorization: str = "") -> Webhook:
        url = f"http://127.0.0.1:{self.port}{path}"
        found = Webhook(reactor, url, authorization, Trust())
        self.addCleanup(found.close)
        return found

    async def test_what_is_sent(self) -> None:
        webhook = self.webhook("/T0/s3cret?k=v&x=%20", "Basic dTpw")
        arrival = await webhook.post('{"ğ":1}', "0a1b")
        self.assertEqual(arrival, (True, "it answered 200"))
        (sent,) = self.receiver.sent
        self.assertEqual(sent.target, "/T0/s3cret?k=v&x=%20")
        self.assertEqual(sent.text, '{"ğ":1}')
        self.assertEqual(sent.headers["content-type"], "application/json")
        self.assertEqual(sent.headers["authorization"], "Basic dTpw")
        self.assertEqual(sent.headers["dalga-alert"], "0a1b")
        self.assertEqual(sent.headers["host"], f"127.0.0.1:{self.port}")
        await webhook.post("{}")
        self.assertNotIn("dalga-alert", self.receiver.sent[1].headers)
        # P12: neither path nor query are in what is logged of it.
        self.assertEqual(str(webhook), f"127.0.0.1:{self.port}")

    async def test_without_a_path(self) -> None:
        for path, target in [("", "/"), ("?a=b", "/?a=b")]:
            await self.webhook(path).post("{}")
            self.assertEqual(self.receiver.sent[-1].target, target)

    async def test_answers(self) -> None:
        """P11: a redirect is not followed, and is no success."""
        for status, arrived in [(200, True), (202, True), (204, True), (302, False), (500, False)]:
            self.receiver.status = status
            arrival = await self.webhook("/").post("{}")
            self.assertEqual(arrival, (arrived, f"it answered {status}"))

    async def test_nobody_there(self) -> None:
        unused = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        port = unused.getHost().port
        await unused.stopListening()
        webhook = Webhook(reactor, f"http://127.0.0.1:{port}/s3cret", "", Trust())
        arrived, words = await webhook.post("{}")
        self.assertFalse(arrived)
        self.assertIn("refused", words)
        self.assertNotIn("s3cret", words)
        await webhook.close()

    async def test_echoes(self) -> None:
        """P12: what was sent is in no words on an answer that is none."""

        for before, target in (
            (b"", "/T0/s3cret?s3cret=v"),
            (b"x" * 40, "/T0/s3cret"),
            (b"x" * 40, "/?a=s3cret-too"),
        ):
            port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            Echo.before = before
            url = f"http://127.0.0.1:{port.getHost().port}{target}"
            webhook = Webhook(reactor, url, "", Trust())
            arrived, words = await webhook.post("{}")
            self.assertFalse(arrived)
            self.assertIn("is not HTTP", words)
            self.assertNotIn("s3cret", words)
            await webhook.close()

    async def test_cancelled(self) -> None:
        """At a stop. Nothing of it is left, which trial would say."""
        silent = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        webhook = Webhook(reactor, f"http://127.0.0.1:{silent.getHost().port}/", "", Trust())
        post = webhook.post("{}")
        reactor.callLater(0.05, post.cancel)
        self.assertFalse((await post).arrived)
        await webhook.close()
        await silent.stopListening()
