"""
A daemon whose endpoint can be sure of it, and it of its endpoint: configured as a user would, and
seen from outside.
"""

from __future__ import annotations

import os
from base64 import b64encode
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from dalga import service
from dalga.config.load import load_config
from dalga.metrics import CERTIFICATES, Counts, Numbers
from dalga.model.reach import is_public
from dalga.outgoing.pool import STRAIGHT, Way
from dalga.outgoing.trust import Trust
from dalga.outgoing.tunnel import Proxy
from tests import proxies
from tests.certificates import DAY, Authority, ask_for, dns, ip, write
from tests.proxies import wants
from tests.receivers import Receiver, listen
from tests.stores import each_engine
from tests.test_daemon_metrics import ScrapedTestCase
from tests.test_daemon_reload import ReloadTestCase
from tests.test_workers import WorkersTestCase

SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + b64encode(bytes(range(32, 64))).decode()
PRIVATE = "whsk_" + b64encode(bytes(range(64, 96))).decode()

ONE_OFF = "one-off=1&immediate=1"


@each_engine(globals())
class OutgoingTests(ScrapedTestCase):
    async def test_signed(self) -> None:
        """
        Each attempt, whatever is sent, and alerts; with both secrets while one is replaced. Not one
        of the secrets is in an answer or in the log.
        """
        receiver = Receiver()
        port = listen(self.reactor, receiver)
        self.addCleanup(port.stopListening)
        self.endpoint.answer = lambda hit: 500 if hit.attempt == 1 else 200
        daemon, url = await self.start(
            endpoint={"secrets": f"{OTHER}, {SECRET}", "auth": "bearer", "authSecret": "t0ps3cret"},
            alerts={"url": f"http://127.0.0.1:{port.getHost().port}/", "secrets": SECRET},
            jobs={"retryInterval": "10ms"},
        )
        status, answer = await self.call(
            "PUT",
            f"{url}/jobs/a/b",
            data=b'{"one_off":true,"immediate":true,"payload":{"x":1},"alert_after":1}',
            headers={"Content-Type": "application/json"},
        )
        self.assertEqual(status, 201, answer)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 2)
        await receiver.until(lambda: len(receiver.sent) >= 1)
        first, second = self.endpoint.hits
        for hit in (first, second):
            self.assertEqual(hit.headers["authorization"], "Bearer t0ps3cret")
            for secret in (SECRET, OTHER):
                self.assertEqual(Verifier(secret).verify(hit.body, hit.headers), {"x": 1})
        self.assertEqual(first.headers["webhook-id"], second.headers["webhook-id"])
        self.assertEqual(first.headers["webhook-id"], first.headers["dalga-run"])
        alert = receiver.sent[0]
        Verifier(SECRET).verify(alert.text, alert.headers)
        self.assertEqual(alert.headers["webhook-id"], alert.headers["dalga-alert"])

        shown = await self.get(f"{url}/endpoints")
        [endpoint] = shown["endpoints"]
        self.assertEqual((endpoint["signed"], endpoint["auth"]), (True, "bearer"))
        runs = await self.get(f"{url}/runs")
        for text in (str(shown), str(runs), daemon.output):
            for secret in (SECRET[6:], OTHER[6:], "t0ps3cret"):
                self.assertNotIn(secret, text)

    async def test_https(self) -> None:
        """
        A client certificate, a name of its own for the endpoint's, and a proxy with a password; the
        end of the endpoint's certificate is shown, and counted.
        """
        authority, clients = Authority(), Authority()
        options = authority.issue(dns("app.internal"), valid=(-DAY, 9 * DAY))
        ask_for(clients, options)
        site: Any = Site(self.endpoint)
        listening = self.reactor.listenSSL(0, site, options, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        proxy = proxies.Proxy(self.reactor, wants("Basic " + b64encode(b"u:s3cret").decode()))
        through = self.reactor.listenTCP(0, proxy, interface="127.0.0.1")
        self.addCleanup(through.stopListening)

        cert, key = write(clients.issue(common_name="dalga"), *self.paths("cert.pem", "key.pem"))
        secure = {
            "baseurl": f"https://127.0.0.1:{listening.getHost().port}/",
            "ca": authority.write(*self.paths("ca.pem")),
            "cert": cert,
            "key": key,
            "verifyName": "app.internal",
            "proxy": f"http://u:s3cret@127.0.0.1:{through.getHost().port}",
        }
        daemon, url = await self.start(**{"endpoint secure": secure})
        [_, shown] = (await self.get(f"{url}/endpoints"))["endpoints"]
        self.assertEqual(shown["certificate_expires"], None)
        self.assertNotIn(CERTIFICATES, await self.scrape(url))

        await self.put(f"{url}/jobs/a/b?{ONE_OFF}&endpoint=secure")
        await self.endpoint.until(lambda: bool(self.endpoint.hits))
        self.assertEqual(len(proxy.heads), 1)
        [plain, shown] = (await self.get(f"{url}/endpoints"))["endpoints"]
        ends = datetime.strptime(shown["certificate_expires"], "%Y-%m-%dT%H:%M:%S%z")
        self.assertEqual(round((ends - datetime.now(UTC)) / DAY), 9)
        self.assertEqual(plain["certificate_expires"], None)
        self.assertEqual(shown["proxy"], f"http://127.0.0.1:{through.getHost().port}")
        samples = await self.scrape(url)
        self.assertEqual(samples[CERTIFICATES], {(("endpoint", "secure"),): ends.timestamp()})
        self.assertNotIn("s3cret", daemon.output)

    async def test_denied(self) -> None:
        """The endpoint's name leads to this machine, and nothing is sent to it."""
        port = urlsplit(self.baseurl).port
        _, url = await self.start(
            **{"endpoint tenant": {"baseurl": f"http://127.1:{port}/", "deny": "private"}},
            jobs={"retryInterval": "1h"},
        )
        await self.put(f"{url}/jobs/a/b?{ONE_OFF}&endpoint=tenant")
        await self.put(f"{url}/jobs/a/c?{ONE_OFF}")
        await self.endpoint.until(lambda: bool(self.endpoint.hits))
        runs = await self.until_runs(url)
        self.assertEqual(
            runs["error"], "127.1 has no public address, and deny = private allows no other"
        )
        self.assertEqual(runs["error_kind"], "connect")
        self.assertEqual([hit.key for hit in self.endpoint.hits], [("a", "c")])

    async def until_runs(self, url: str) -> dict[str, Any]:
        """The first attempt of the job a/b, once it has failed."""
        while True:
            for run in (await self.get(f"{url}/runs?path=a&body=b"))["runs"]:
                if run["error"]:
                    return dict(run)
            await self.pause(0.05)

    def paths(self, *names: str) -> list[str]:
        return [os.path.abspath(os.path.join(self.folder, name)) for name in names]


@each_engine(globals())
class ReloadingTests(ReloadTestCase):
    """What a reload takes over, from one POST to the next."""

    async def test_secrets(self) -> None:
        """A secret is replaced: by both for a while, and no request is refused."""
        daemon, url = await self.start(endpoint={"secrets": SECRET})
        for number, (given, good, bad) in enumerate(
            (
                (None, (SECRET,), (OTHER,)),
                (f"{OTHER}, {SECRET}", (SECRET, OTHER), ()),
                (OTHER, (OTHER,), (SECRET,)),
            ),
            1,
        ):
            if given is not None:
                says = r"changed: \[endpoint\] secrets\n"
                await self.reload(daemon, says, endpoint={"secrets": given})
            await self.put(f"{url}/jobs/a/{number}?{ONE_OFF}")
            await self.endpoint.until(partial(self.had, number))
            hit = self.endpoint.hits[-1]
            for secret in good:
                Verifier(secret).verify(hit.body, hit.headers)
            for secret in bad:
                verify = Verifier(secret).verify
                self.assertRaises(WebhookVerificationError, verify, hit.body, hit.headers)
        self.assertNotIn("whsec_", daemon.output)

    def had(self, number: int) -> bool:
        return len(self.endpoint.hits) == number

    async def test_a_certificate_of_its_own(self) -> None:
        """Its file has another one; the endpoint has ceased to take the first."""
        authority, first, second = Authority(), Authority(), Authority()
        site: Any = Site(self.endpoint)
        options = ask_for(second, authority.issue(ip("127.0.0.1")))
        listening = self.reactor.listenSSL(0, site, options, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        cert, key, ca = (
            os.path.abspath(os.path.join(self.folder, name)) for name in ("cert", "key", "ca")
        )
        write(first.issue(common_name="dalga"), cert, key)
        sections: dict[str, dict[str, object]] = {
            "endpoint": {
                **{"ca": authority.write(ca), "cert": cert, "key": key},
                "baseurl": f"https://127.0.0.1:{listening.getHost().port}/",
            },
            "jobs": {"retryInterval": "50ms", "retryMultiplier": 1},
        }
        daemon, url = await self.start(**sections)
        await self.put(f"{url}/jobs/a/b?{ONE_OFF}")
        await daemon.says(r"'a' 'b': TLS with 127\.0\.0\.1:\d+ failed")
        write(second.issue(common_name="dalga"), cert, key)
        says = r"changed: \[endpoint\] cert, \[endpoint\] key\n"
        await self.reload(daemon, says, **sections)
        await self.endpoint.until(lambda: bool(self.endpoint.hits))
        await self.until_gone(f"{url}/jobs/a/b")


@each_engine(globals(), only=("mariadb", "mysql"))
class WorkersCertificateTests(WorkersTestCase):
    async def test_any_worker_tells(self) -> None:
        """One of the two has seen the certificate; the one that is asked may be the other."""
        authority = Authority()
        site: Any = Site(self.endpoint)
        options = authority.issue(ip("127.0.0.1"))
        listening = self.reactor.listenSSL(0, site, options, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        ca = authority.write(os.path.abspath(os.path.join(self.folder, "ca")))
        baseurl = f"https://127.0.0.1:{listening.getHost().port}/"
        daemon = self.run_workers(endpoint={"baseurl": baseurl, "ca": ca})
        url, _ = await self.listening(daemon)
        await self.put(f"{url}/jobs/a/b?{ONE_OFF}")
        await self.endpoint.until(lambda: bool(self.endpoint.hits))
        workers: set[int] = set()
        shown: set[str | None] = set()
        while len(workers) < 2 or None in shown:  # each worker shares its numbers once a second
            workers.add((await self.get(f"{url}/status"))["worker"])
            answers = [await self.get(f"{url}/endpoints") for _ in range(8)]
            shown = {each["endpoints"][0]["certificate_expires"] for each in answers}
        self.assertEqual(len(shown), 1)


class CompositionTests(SynchronousTestCase):
    """From the configuration to what an endpoint is built of."""

    def test_built(self) -> None:
        made: list[dict[str, Any]] = []
        now = partial(datetime.fromtimestamp, 0, UTC)
        self.patch(service, "Endpoint", lambda **given: made.append(given))
        for variables in (
            {
                "SECRETS": f"{SECRET}, {PRIVATE}",
                "AUTH": "basic",
                "AUTHUSER": "u",
                "AUTHSECRET": "p",
            },
            {"DENY": "private", "BASEURL": "https://h/", "VERIFYNAME": "name"},
            {"PROXY": "http://u:p@[::1]:3128"},
            {"PROXY": "http://p"},
        ):
            named = {f"DALGA_ENDPOINT_{key}": value for key, value in variables.items()}
            config = load_config(None, named).endpoint
            service.build_endpoint(Clock(), config, Trust(), 7, "here", now)
        signed, denying, behind, by_default = made
        self.assertEqual((signed["has_auth"], signed["way"]), (True, STRAIGHT))
        self.assertEqual(signed["headers"], (("Authorization", "Basic dTpw"),))
        lines = signed["signer"].lines("id", b"")
        self.assertRegex(lines, r"webhook-timestamp: 0\r\nwebhook-signature: v1,\S+ v1a,\S+\r\n$")
        self.assertEqual((denying["signer"], denying["has_auth"]), (None, False))
        self.assertEqual(denying["way"], Way("name", is_public, None))
        self.assertEqual(behind["way"], Way(proxy=Proxy("::1", 3128, "Basic dTpw")))
        self.assertEqual(by_default["way"], Way(proxy=Proxy("p", 80)))

    def test_earliest(self) -> None:
        """Of all workers, by the names of the endpoints."""

        def at(seconds: int) -> datetime:
            return datetime.fromtimestamp(seconds, UTC)

        others: list[Numbers] = [
            {CERTIFICATES: {("a",): 5.0, ("b",): 9.0}, "dalga_claim_size": {(): Counts([1], 2.0)}},
            {CERTIFICATES: {("b",): 8.0, ("c",): 7.0}},
            {},
        ]
        own = {"a": at(6), "c": at(3)}
        found = service.earliest(own, others)
        self.assertEqual(found, {"a": at(5), "b": at(8), "c": at(3)})
        self.assertEqual(own, {"a": at(6), "c": at(3)})
