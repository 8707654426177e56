"""`/health`, `/ready` and `/metrics` over HTTP, and what is counted of requests."""

from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families

from dalga.errors import StoreUnavailable
from dalga.metrics import Counts
from tests.test_web_api import APITestCase


class HealthTests(APITestCase):
    async def test_healthy(self) -> None:
        """Whatever the database does."""
        self.store.broken = StoreUnavailable("away")
        answer = await self.ask(b"GET /health")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json"))
        self.assertTrue(answer.endswith(b'\r\n\r\n{"status":"ok"}'))

    async def test_ready(self) -> None:
        answer = await self.ask(b"GET /ready")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertTrue(answer.endswith(b'\r\n\r\n{"status":"ready"}'))

    async def test_not_ready(self) -> None:
        """503 and the reason, as a problem."""
        self.store.broken = StoreUnavailable("the server takes no connections")
        answer = await self.ask(b"GET /ready")
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), answer)
        self.assertIn(b"Retry-After: 1\r\n", answer)
        problem = json.loads(answer.partition(b"\r\n\r\n")[2])
        self.assertEqual(
            problem["detail"], "this instance is not ready: the server takes no connections"
        )

    async def test_stopping(self) -> None:
        self.health.stop()
        status, detail = await self.refusal(b"GET /ready")
        self.assertEqual(status, 503)
        self.assertEqual(detail, "this instance is not ready: a stop has begun")

    async def test_metrics(self) -> None:
        answer = await self.ask(b"GET /metrics")
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertIn(b"\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n", head)
        names = {family.name for family in text_string_to_metric_families(body.decode())}
        self.assertIn("dalga_leases_lost", names)
        asked = b"Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n"
        answer = await self.ask(b"GET /metrics", asked)
        self.assertIn(b"Content-Type: application/openmetrics-text; version=1.0.0", answer)
        self.assertTrue(answer.endswith(b"# EOF\n"))

    async def test_wrong_method(self) -> None:
        for path in (b"/health", b"/ready", b"/metrics"):
            status, _ = await self.refusal(b"POST " + path)
            self.assertEqual(status, 405)
            self.assertTrue((await self.ask(b"HEAD " + path)).startswith(b"HTTP/1.1 200"))


class CountedTests(APITestCase):
    """Requests by route, method and status: none of them has values without a bound (P10)."""

    def counted(self) -> dict[tuple[str, ...], float | Counts]:
        return dict(self.health.metrics.numbers()["dalga_http_requests_total"])

    async def test_routes(self) -> None:
        for line in (
            b"PUT /jobs/a/b?interval=60",
            b"GET /jobs/a/b",
            b"GET /jobs/c/d",
            b"GET /jobs/a%2Fx/b%2Fy/upcoming",
            b"POST /jobs/a?delay=60",
            b"GET /jobs",
            b"GET /no/such/route",
            b"BREW /status",
            b"DELETE /status",
            b"get /status",
        ):
            await self.ask(line)
        client = await self.connect()
        client.send(b"GET /status HTTP/9.9\r\n\r\n")
        await client.answer()
        self.assertEqual(
            self.counted(),
            {
                ("/jobs/<path>/<body>", "PUT", "201"): 1,
                ("/jobs/<path>/<body>", "GET", "200"): 1,
                ("/jobs/<path>/<body>", "GET", "404"): 1,
                ("/jobs/<path>/<body>/upcoming", "GET", "404"): 1,
                ("/jobs/<path>", "POST", "201"): 1,
                ("/jobs", "GET", "200"): 1,
                ("none", "GET", "404"): 1,
                ("none", "other", "405"): 1,
                ("none", "DELETE", "405"): 1,
                ("/status", "GET", "200"): 1,
                ("none", "other", "505"): 1,
            },
        )

    async def test_durations(self) -> None:
        """From when the request was there; one that is refused before has none."""
        await self.ask(b"GET /status")
        client = await self.connect()
        client.send(b"GET /status HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
        await client.answer()
        seconds = self.health.metrics.numbers()["dalga_http_request_duration_seconds"]
        self.assertEqual(list(seconds), [("/status", "GET")])
        self.assertEqual(self.counted()["none", "GET", "413"], 1)
