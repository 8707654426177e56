"""
Signatures of requests, verified by the package standardwebhooks as an endpoint would, and refused
by it where a request is altered, old or somebody else's.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError
from twisted.internet import reactor as real_reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from dalga.model.attempt import ErrorKind
from dalga.model.delivery import Delivery, Method, Payload
from dalga.model.run import Run
from dalga.outgoing.endpoint import Endpoint
from dalga.outgoing.trust import Trust
from dalga.outgoing.webhook import Webhook
from dalga.signature import Signer, sign_from_text
from tests.receivers import Receiver, listen
from tests.test_endpoint import LONG, OK, EndpointCase, a_run, says
from tests.test_endpoint_delivery import of, parts

reactor: Any = real_reactor

#: An example of Standard Webhooks.
EXAMPLE = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + b64encode(bytes(range(32, 64))).decode()

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(64, 96)))
PRIVATE = "whsk_" + b64encode(KEY.private_bytes_raw()).decode()
PAIR = "whsk_" + b64encode(KEY.private_bytes_raw() + KEY.public_key().public_bytes_raw()).decode()

ID = "0123456789abcdef0123456789abcdef-17"


def now() -> datetime:
    return datetime.now(UTC)


def shifted(minutes: int) -> datetime:
    """The time by a clock that is so far ahead."""
    return now() + timedelta(minutes=minutes)


def headers_of(lines: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in lines.splitlines())


class SecretTests(SynchronousTestCase):
    """What a secret may be."""

    def test_refused(self) -> None:
        """Nothing of a secret is in the sentence."""
        encoded = {
            length: b64encode(bytes(range(100, 100 + length))).decode()
            for length in (23, 31, 33, 63, 65)
        }
        pair = KEY.private_bytes_raw() + bytes(32)
        for text in (
            "",
            "whsec_",
            "whsk_",
            "s3cret-s3cret-s3cret-s3cret-s3cret",
            "whsec_s3cret*s3cret",
            f"whsec_{encoded[23]}",
            f"whsec_{encoded[65]}",
            f"WHSEC_{encoded[31]}",
            f"whsec_{encoded[31]} ",
            f"whsec_{encoded[31]}ğ",
            f"whpk_{encoded[31]}",
            f"whsk_{encoded[31]}",
            f"whsk_{encoded[33]}",
            f"whsk_{encoded[63]}",
            "whsk_" + b64encode(pair).decode(),
        ):
            error = self.assertRaises(ValueError, sign_from_text, text)
            self.assertIn("it takes whsec_ and the base64 of 24 to 64 random octets", str(error))
            self.assertNotIn("s3cret", str(error))
            self.assertIsNone(error.__cause__)
            for part in (text[6:14], text[-8:]):
                if len(part) == 8:
                    self.assertNotIn(part, str(error))

    def test_taken(self) -> None:
        for length in (24, 25, 26, 64):
            text = "whsec_" + b64encode(bytes(length)).decode()
            # Programs leave the padding out.
            self.assertEqual(sign_from_text(text)(b"x"), sign_from_text(text.rstrip("="))(b"x"))
        self.assertEqual(sign_from_text(PRIVATE)(b"x"), sign_from_text(PAIR)(b"x"))


class SignerTests(SynchronousTestCase):
    """The header lines."""

    def test_the_example(self) -> None:
        """As Standard Webhooks's own tests have it."""
        at = datetime.fromtimestamp(1614265330.9, UTC)
        signer = Signer([EXAMPLE], lambda: at)
        self.assertEqual(
            signer.lines("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}'),
            "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek\r\n"
            "webhook-timestamp: 1614265330\r\n"
            "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=\r\n",
        )

    def test_rotation(self) -> None:
        """While a secret is replaced, requests are verified by the old one and by the new one."""
        headers = headers_of(Signer([SECRET, OTHER], now).lines(ID, b"{}"))
        for secret in (SECRET, OTHER):
            Verifier(secret).verify(b"{}", headers)
        self.assertRaises(WebhookVerificationError, Verifier(EXAMPLE).verify, b"{}", headers)

    def test_what_is_refused(self) -> None:
        """Another body, another id, another time, an old or early time, another secret."""
        headers = headers_of(Signer([SECRET], now).lines(ID, b"{}"))
        Verifier(SECRET).verify(b"{}", headers)
        earlier = str(int(headers["webhook-timestamp"]) - 1)
        for body, changed in (
            (b"{} ", {}),
            (b"[]", {}),
            (b"{}", {"webhook-id": ID.replace("17", "18")}),
            (b"{}", {"webhook-timestamp": earlier}),
            (b"{}", {"webhook-signature": "v1," + b64encode(bytes(32)).decode()}),
        ):
            verify = Verifier(SECRET).verify
            self.assertRaises(WebhookVerificationError, verify, body, headers | changed)
        for minutes, words in ((-6, "too old"), (6, "too new")):
            headers = headers_of(Signer([SECRET], partial(shifted, minutes)).lines(ID, b"{}"))
            error = self.assertRaises(
                WebhookVerificationError, Verifier(SECRET).verify, b"{}", headers
            )
            self.assertIn(words, str(error))

    def test_ed25519(self) -> None:
        """``v1a`` beside ``v1``: who knows one of them passes over the other."""
        headers = headers_of(Signer([SECRET, PRIVATE], now).lines(ID, b"{}"))
        Verifier(SECRET).verify(b"{}", headers)
        asymmetric = headers["webhook-signature"].split(" ")[1]
        version, _, signature = asymmetric.partition(",")
        self.assertEqual(version, "v1a")
        content = f"{ID}.{headers['webhook-timestamp']}.".encode() + b"{}"
        made = b64decode(signature)
        KEY.public_key().verify(made, content)
        self.assertRaises(InvalidSignature, KEY.public_key().verify, made, content + b" ")


class SigningCase(EndpointCase):
    def signing(self, url: str, *secrets: str, at: timedelta = timedelta()) -> Endpoint:
        """:param at: how far the database's clock is from ours."""
        signer = Signer(secrets or [SECRET], lambda: now() + at)
        endpoint = Endpoint(reactor, url, LONG, "here-1", 10, Trust(), signer=signer)
        self.addCleanup(endpoint.close)
        return endpoint


class RequestTests(SigningCase):
    """The requests of jobs, as an endpoint gets them."""

    async def sent(self, *runs: Run, secrets: tuple[str, ...] = (SECRET,)) -> list[bytes]:
        server = self.serve(says(OK))
        endpoint = self.signing(server.baseurl, *secrets)
        for run in runs:
            self.assertEqual((await endpoint.post(run)).status, 200)
        return server.requests

    async def test_each_kind_of_request(self) -> None:
        """
        The body is what is sent: a job's body, its payload, or nothing where a method has no
        content.
        """
        runs = (
            a_run(body='{"ğ":1}'),
            of(Delivery(method=Method.PUT)),
            of(Delivery(payload=Payload(b'{"a":1}'))),
            of(Delivery(payload=Payload(b""))),
            of(Delivery(headers=(("X-A", "b"),), payload=Payload(b"x" * 300_000))),
            of(Delivery(method=Method.GET)),
            of(Delivery(method=Method.DELETE)),
        )
        for request in await self.sent(*runs):
            _, headers, content = parts(request)
            named = {name.decode(): value.decode() for name, value in headers.items()}
            self.assertEqual(named["webhook-id"], named["dalga-run"])
            Verifier(SECRET).verify(content, named, json_parse=False)

    async def test_octets(self) -> None:
        """A payload that is no text is signed as it is."""
        octets = bytes(range(256))
        (request,) = await self.sent(of(Delivery(payload=Payload(octets))), secrets=(PRIVATE,))
        _, headers, content = parts(request)
        self.assertEqual(content, octets)
        signed = b".".join([headers[b"webhook-id"], headers[b"webhook-timestamp"], octets])
        self.assertEqual(headers[b"webhook-signature"].decode(), sign_from_text(PRIVATE)(signed))

    async def test_attempts(self) -> None:
        """The id is that of the run, and the same on each attempt (P2)."""
        requests = await self.sent(a_run(), a_run(attempt=2))
        ids = [parts(request)[1][b"webhook-id"] for request in requests]
        self.assertEqual(ids, [b"0a1b", b"0a1b"])

    async def test_without_secrets(self) -> None:
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        for run in (a_run(), of(Delivery(method=Method.PUT))):
            await endpoint.post(run)
        for request in server.requests:
            self.assertNotIn(b"webhook-", request.lower())

    async def test_no_job_signs(self) -> None:
        """A header of a job never stands for a signature, in whatever spelling."""
        endpoint = self.signing(self.serve(says(OK)).baseurl)
        for name in ("webhook-signature", "Webhook-Id", "WEBHOOK_TIMESTAMP"):
            outcome = await endpoint.post(of(Delivery(headers=((name, "v1,x"),))))
            self.assertIn(f"the job's header {name} can't be sent", outcome.error)

    async def test_no_job_replaces_auth(self) -> None:
        """
        Where the endpoint has ``auth``, a job that has an Authorization since before is not sent:
        it would pass for another user. Elsewhere a job's own goes before that of the section.
        """
        server = self.serve(says(OK))
        headers = (("Authorization", "Bearer ours"),)
        own = of(Delivery(headers=(("AUTHORIZATION", "Bearer theirs"),)))
        for has_auth in (True, False):
            endpoint = Endpoint(
                reactor, server.baseurl, LONG, "i", 1, Trust(), headers, has_auth=has_auth
            )
            self.addCleanup(endpoint.close)
            outcome = await endpoint.post(own)
            if has_auth:
                self.assertEqual(
                    (outcome.kind, outcome.error),
                    (
                        ErrorKind.INTERNAL,
                        "the job's header AUTHORIZATION can't be sent, as its endpoint has auth, "
                        "nothing was sent",
                    ),
                )
                self.assertEqual(server.requests, [])
            await endpoint.post(a_run())
        sent = [parts(request)[1][b"authorization"] for request in server.requests]
        self.assertEqual(sent, [b"Bearer ours", b"Bearer theirs", b"Bearer ours"])

    async def test_a_slow_signature(self) -> None:
        """
        P3: the time that a signature takes is a part of the time-out. A request that is signed
        too late is not sent, as another instance may have its run by then.
        """
        server = self.serve(says(OK))
        clock = SkippingClock()
        signer = Signer([SECRET], lambda: clock.skip(LONG + 0.001))
        endpoint = Endpoint(clock, server.baseurl, LONG, "here-1", 10, Trust(), signer=signer)
        self.addCleanup(endpoint.close)
        outcome = await endpoint.post(a_run(timeout=LONG))
        self.assertEqual(outcome.status, None)
        self.assertIn("nothing was sent", outcome.error)
        self.assertEqual(server.requests, [])
        signer = Signer([SECRET], lambda: clock.skip(LONG / 2))
        endpoint = Endpoint(clock, server.baseurl, LONG, "here-1", 10, Trust(), signer=signer)
        self.addCleanup(endpoint.close)
        self.assertEqual((await endpoint.post(a_run(timeout=LONG))).status, 200)


class SkippingClock:
    """The reactor, whose clock can be put forward."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def seconds(self) -> float:
        return float(reactor.seconds()) + self._ahead

    def skip(self, seconds: float) -> datetime:
        """Let this much time pass at once."""
        self._ahead += seconds
        return now()

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class VerifierTests(SigningCase):
    """An endpoint in a process of its own, which verifies what it gets."""

    def verifier(self, secret: str) -> int:
        """Start it. Gives its port."""
        script = Path(__file__).with_name("verifier.py")
        process = subprocess.Popen(
            [sys.executable, str(script), secret],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def stop() -> None:
            process.communicate()
            self.assertEqual(process.returncode, 0)

        self.addCleanup(stop)
        assert process.stdout is not None
        return int(process.stdout.readline())

    async def recorded(self, run: Run, at: timedelta = timedelta()) -> bytes:
        """
        A signed request, as somebody between Dalga and the endpoint might have it.

        :param at: how long ago it was made, negative.
        """
        server = self.serve(says(OK))
        await self.signing(server.baseurl, at=at).post(run)
        return server.requests[0]

    async def said(self, port: int, request: bytes) -> str:
        """The verifier's answer to a request, sent once more."""

        def ask() -> str:
            with socket.create_connection(("127.0.0.1", port), LONG) as connection:
                connection.sendall(request)
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
            head, _, body = answer.decode().partition("\r\n\r\n")
            return f"{head.split(' ')[1]} {body}"

        said: str = await deferToThread(ask)
        return said

    async def test_verified(self) -> None:
        port = self.verifier(SECRET)
        endpoint = self.signing(f"http://127.0.0.1:{port}/in", OTHER, SECRET)
        for id, delivery in enumerate(
            (
                Delivery(),
                Delivery(method=Method.DELETE),
                Delivery(payload=Payload('{"ğ":1}'.encode()), method=Method.PATCH),
            )
        ):
            outcome = await endpoint.post(of(delivery)._replace(id=f"{id}-1"))
            self.assertEqual((outcome.status, outcome.error), (200, ""))

    async def test_wrong_secret(self) -> None:
        port = self.verifier(OTHER)
        outcome = await self.signing(f"http://127.0.0.1:{port}/").post(a_run())
        self.assertEqual(outcome.status, 401)

    async def test_replayed_altered_and_old(self) -> None:
        """A stranger who has seen a request gets nothing done by it."""
        port = self.verifier(SECRET)
        request = await self.recorded(a_run(body='{"pay":10}'))
        altered = request.replace(b'"pay":10', b'"pay":99')
        renamed = request.replace(b"webhook-id: 0a1b", b"webhook-id: 0a1c")
        unsigned = request.replace(b"webhook-signature", b"x-signature")
        old = await self.recorded(a_run(), at=-timedelta(minutes=5, seconds=10))
        for each, expected in (
            (altered, "401 No matching signature found"),
            (renamed, "401 No matching signature found"),
            (unsigned, "401 Missing required headers"),
            (old, "401 Message timestamp too old"),
            (request, "200 verified"),
            (request, "409 seen before"),
        ):
            self.assertEqual(await self.said(port, each), expected)


class AlertTests(TestCase):
    """Alerts are signed as well; their id is the alert's."""

    async def test_signed(self) -> None:
        receiver = Receiver()
        port = listen(reactor, receiver)
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}/hook"
        webhook = Webhook(reactor, url, "", Trust(), Signer([SECRET], now))
        self.addCleanup(webhook.close)
        await webhook.post('{"ğ":1}', "0a1b")
        (sent,) = receiver.sent
        self.assertEqual(sent.headers["webhook-id"], "0a1b")
        Verifier(SECRET).verify(sent.text, sent.headers)
        # A sign of life has no id, by which it could be told from one that was sent again.
        await webhook.post("{}")
        self.assertNotIn("webhook-id", receiver.sent[1].headers)
