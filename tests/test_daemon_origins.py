"""Requests that a browser sends for pages elsewhere, and what proxies say, at a real daemon."""

from __future__ import annotations

import json
import signal
import socket
from typing import Any

from twisted.internet.threads import deferToThread

from tests.daemons import Daemon, DaemonTestCase
from tests.stores import each_engine
from tests.test_daemon_tokens import TEXTS, line

Headers = dict[str, str]


class RawTestCase(DaemonTestCase):
    async def send(
        self, url: str, target: str, headers: Headers, version: str = "1.1"
    ) -> tuple[int, Headers, str]:
        """
        Send a request of exactly these headers.

        :param target: the method and the target.
        :return: the status, the headers by their names in lower case, and the body.
        """
        host, _, port = url.removeprefix("http://").partition(":")
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"{target} HTTP/{version}", *lines, "Connection: close", "", ""])

        def blocking() -> bytes:
            with socket.create_connection((host, int(port)), timeout=20) as client:
                client.sendall(head.encode("latin-1"))
                return b"".join(iter(lambda: client.recv(65536), b""))

        answer = (await deferToThread(blocking)).decode()
        first, _, body = answer.partition("\r\n\r\n")
        status, *rest = first.split("\r\n")
        named = (each.partition(": ") for each in rest)
        return int(status.split()[1]), {name.lower(): value for name, _, value in named}, body

    async def reload(self, daemon: Daemon, changed: str, **sections: Any) -> None:
        self.ini(**sections)
        daemon.send(signal.SIGHUP)
        await daemon.says(f"changed: {changed}")

    async def detail(self, url: str, target: str, headers: Headers) -> str:
        """What a refusal says."""
        status, _, body = await self.send(url, target, headers)
        self.assertEqual(status, 403, body)
        return str(json.loads(body)["detail"])


# Which engine has the jobs makes no difference to what is refused.
@each_engine(globals(), only=("sqlite",))
class OriginTests(RawTestCase):
    async def test_pages_elsewhere(self) -> None:
        """P12: they change nothing and read nothing; what would let them in is named, and does."""
        daemon, url = await self.start()
        here = url.removeprefix("http://")
        put = "PUT /jobs/a/b?interval=3600"
        status, _, shown = await self.send(url, put, {"Host": here, "Origin": url})
        self.assertEqual(status, 201)
        for name, headers, key in [
            ("rebound", {"Host": f"evil.test:{here[-5:]}"}, "hosts of [listen]"),
            ("rebound", {"Host": "evil.test", "Origin": "http://evil.test"}, "hosts of [listen]"),
            ("page", {"Host": here, "Origin": "https://evil.test"}, "origins of [listen]"),
            ("port", {"Host": here, "Origin": "http://127.0.0.1:1"}, "origins of [listen]"),
            ("file", {"Host": here, "Origin": "null"}, "no key lets such pages in"),
            ("image", {"Host": here, "Sec-Fetch-Site": "cross-site"}, "origins of [listen]"),
            ("port", {"Host": here, "Sec-Fetch-Site": "same-site"}, "origins of [listen]"),
        ]:
            for target in (
                *("GET /jobs/a/b", "POST /jobs/a/b", "DELETE /jobs/a/b", "PUT /jobs/a/c"),
                *("PATCH /jobs/a/b?disable=true", "POST /jobs/a", "POST /actions", "GET /metrics"),
                *("GET /health", "OPTIONS /jobs/a/b", "GET /nothing", "GET /", "POST /login"),
                *("post /jobs/a/b", "HEAD /jobs"),
            ):
                status, _, body = await self.send(url, target, headers)
                self.assertEqual(status, 403, (name, target, body))
                if not target.startswith("HEAD"):
                    self.assertIn(key, json.loads(body)["detail"])
        self.assertIn("hosts of", await self.detail(url, "GET http://evil.test/", {"Host": here}))
        _, _, jobs = await self.send(url, "GET /jobs", {"Host": here})
        self.assertEqual(json.loads(jobs), {"jobs": [json.loads(shown)]})
        self.assertEqual(self.endpoint.hits, [])

        listen = {"port": 0, "hosts": "dalga, evil.test", "origins": "https://evil.test"}
        await self.reload(daemon, r"\[listen\] hosts, \[listen\] origins", listen=listen)
        for headers in (
            {"Host": "evil.test:1"},
            {"Host": "dalga:34006"},
            {"Host": here, "Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"},
        ):
            status, _, _ = await self.send(url, "GET /jobs/a/b", headers)
            self.assertEqual(status, 200, headers)

    async def test_programs(self) -> None:
        """They call as ever, byte for byte: no header is new."""
        _, url = await self.start()
        port = url.rpartition(":")[2]
        for headers, version in [
            ({"Host": f"127.0.0.1:{port}"}, "1.1"),
            ({"Host": f"LocalHost.:{port}"}, "1.1"),
            ({"Host": f"[::1]:{port}"}, "1.1"),
            ({"Host": ""}, "1.1"),
            ({}, "1.0"),
        ]:
            status, answered, body = await self.send(url, "GET /jobs", headers, version)
            self.assertEqual((status, body), (200, '{"jobs":[]}'), headers)
            answered.pop("connection", None)
            self.assertEqual([*answered], ["content-type", "date", "content-length"])
        for name, expected in (("u:p@localhost:1", 200), ("evil.test", 403)):
            target = f"GET http://{name}/jobs"
            self.assertEqual((await self.send(url, target, {"Host": "localhost"}))[0], expected)
        for host in ("a b", "a/b", "user@localhost"):
            self.assertEqual((await self.send(url, "GET /jobs", {"Host": host}))[0], 400, host)

    async def test_a_name_of_this_machine(self) -> None:
        """
        P12: a name that leads beyond loopback is refused at the start, unless that is wanted. Then
        requests may call the daemon by it.
        """
        before = (
            "import socket; known = socket.getaddrinfo; socket.getaddrinfo = lambda host, *a, **k:"
            " known('0.0.0.0' if host == 'dalga.internal' else host, *a, **k)"
        )
        listen: dict[str, object] = {"port": 0, "host": "dalga.internal"}
        daemon = self.spawn("--config", self.ini(listen=listen), before=before)
        self.assertEqual(await daemon.ended, 1)
        self.assertIn("others than this machine can reach http://0.0.0.0:", daemon.output)
        self.assertIn("allowUnauthenticated = yes", daemon.output)

        listen["allowUnauthenticated"] = "yes"
        daemon = self.spawn("--config", self.ini(listen=listen), before=before)
        url = (await daemon.url()).replace("0.0.0.0", "127.0.0.1")
        for host, expected in (("dalga.internal", 200), ("evil.test", 403)):
            status, _, _ = await self.send(url, "GET /jobs", {"Host": host})
            self.assertEqual(status, expected)

    async def test_pages_that_may(self) -> None:
        """CORS: for the origins of the configuration, and never with cookies."""
        origin = "https://ops.example.org"
        listen = {"port": 0, "origins": origin}
        _, url = await self.start(listen=listen, tokens={"writer": line("writer")})
        page = {"Host": "localhost", "Origin": origin, "Sec-Fetch-Site": "cross-site"}
        asks = {**page, "Access-Control-Request-Method": "PUT"}
        status, headers, _ = await self.send(url, "OPTIONS /jobs/a/b", asks)
        self.assertEqual(status, 204)
        self.assertEqual(headers["access-control-allow-origin"], origin)
        self.assertIn("PATCH", headers["access-control-allow-methods"])
        self.assertIn("Authorization", headers["access-control-allow-headers"])
        bearer = {"Authorization": f"Bearer {TEXTS['writer']}"}
        for more, expected in ((bearer, 200), ({}, 401)):
            status, headers, _ = await self.send(url, "GET /jobs", {**page, **more})
            self.assertEqual(status, expected)
            self.assertEqual(headers["access-control-allow-origin"], origin)
            self.assertEqual(headers["vary"], "Origin")
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertNotIn("access-control-allow-credentials", headers)
        for other in ("https://evil.test", "null", f"{origin}.evil.test", "http://127.0.0.1:1"):
            for target, more in (("OPTIONS /jobs/a/b", asks), ("GET /jobs", bearer)):
                sent = {**page, **more, "Origin": other}
                status, headers, _ = await self.send(url, target, sent)
                self.assertEqual(status, 401 if target.startswith("OPTIONS") else 200)
                self.assertFalse([name for name in headers if name.startswith("access-control")])
                self.assertEqual(headers["vary"], "Origin")

    async def test_proxies(self) -> None:
        """rootPath and trustedProxies, also those of a reload."""
        listen = {"port": 0, "rootPath": "/dalga", "trustedProxies": "127.0.0.1"}
        daemon, url = await self.start(listen=listen)
        local = {"Host": "localhost"}
        for target, expected in [
            ("GET /dalga/jobs", 200),
            ("GET http://localhost/dalga/jobs?limit=1", 200),
            ("GET /dalga/health", 200),
            ("GET /jobs", 404),
            ("GET /health", 404),
            ("GET /dalgajobs", 404),
            ("GET /dalga%2Fjobs", 404),
            ("GET //dalga/jobs", 404),
            ("GET /dalga//jobs", 404),
            ("GET /dalga/dalga/jobs", 404),
        ]:
            status, _, body = await self.send(url, target, local)
            self.assertEqual(status, expected, (target, body))
        _, _, body = await self.send(url, "GET /jobs", local)
        self.assertIn("begin with /dalga, its rootPath in [listen]", body)
        status, headers, body = await self.send(url, "POST /dalga/jobs/a%2Fb", local)
        name = json.loads(body)["body"]
        self.assertEqual((status, headers["location"]), (201, f"/dalga/jobs/a%2Fb/{name}"))

        # The log has the client's address, and many failures of one client hold up no other.
        sections: dict[str, dict[str, object]] = {
            "listen": {"port": 0},
            "tokens": {"writer": line("writer")},
        }
        await self.reload(daemon, r"\[listen\] rootPath, \[listen\] trustedProxies", **sections)
        forwarded = {**local, "X-Forwarded-For": "203.0.113.7"}
        self.assertEqual((await self.send(url, "GET /jobs", forwarded))[0], 401)
        await daemon.says("a request of 127.0.0.1 was refused")
        sections["listen"]["trustedProxies"] = "127.0.0.0/8, 10.0.0.0/8"
        await self.reload(daemon, r"\[listen\] trustedProxies", **sections)
        await self.send(url, "GET /jobs", {**local, "X-Forwarded-For": "1.1.1.1, 203.0.113.7"})
        await daemon.says("a request of 203.0.113.7 was refused")
        self.assertNotIn("1.1.1.1", daemon.output)
