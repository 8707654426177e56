"""A daemon's `/metrics`, `/health` and `/ready`: read by promtool, and by a Prometheus."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.error import ConnectionRefusedError
from twisted.web.client import ResponseNeverReceived

from dalga.health import PATIENCE
from dalga.store.schema import HEARTBEATS, VERSION
from faults.proxy import Proxy
from tests.daemons import DaemonTestCase
from tests.servers.prometheus import Prometheus
from tests.stores import each_engine, server
from tests.test_contrib import RULES, queries, rules


class ScrapedTestCase(DaemonTestCase):
    """Tests that read numbers."""

    async def scrape(self, url: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """The samples of a daemon, by their names and labels."""
        status, text = await self.call("GET", f"{url}/metrics")
        self.assertEqual(status, 200, text)
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                found.setdefault(sample.name, {})[labels] = sample.value
        return found

    async def until_scraped(self, url: str, name: str, value: float, **labels: str) -> Any:
        """Wait until a sample has a value; gives all samples."""
        while True:
            samples = await self.scrape(url)
            if samples.get(name, {}).get(tuple(sorted(labels.items()))) == value:
                return samples
            await self.pause(0.1)


@each_engine(globals())
class DaemonMetricsTests(ScrapedTestCase):
    async def test_prometheus(self) -> None:
        """A Prometheus scrapes it, takes the rules, and can answer each query of the dashboard."""
        _, url = await self.start()
        await self.put(f"{url}/jobs/reports/daily?one-off=1&immediate=1")
        target = url.removeprefix("http://")
        prometheus = Prometheus(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(RULES)],
                "scrape_configs": [
                    {"job_name": "dalga", "static_configs": [{"targets": [target]}]}
                ],
            }
        )
        self.addCleanup(prometheus.stop)
        await self.until_answered(prometheus, 'up{job="dalga"}', "1")
        for _, text in queries():
            asked = text.replace("$__rate_interval", "10s")
            await self.asked(prometheus, re.sub(r"\$\w+", ".*", asked))
        _, answer = await self.call("GET", f"{prometheus.url}/api/v1/rules")
        found = [rule for group in json.loads(answer)["data"]["groups"] for rule in group["rules"]]
        self.assertEqual([rule["name"] for rule in found], [rule["alert"] for rule in rules()])
        while {rule["health"] for rule in found} == {"unknown"}:
            await self.pause(0.2)
            _, answer = await self.call("GET", f"{prometheus.url}/api/v1/rules")
            found = json.loads(answer)["data"]["groups"][0]["rules"]
        self.assertEqual({rule["health"] for rule in found}, {"ok"}, answer)
        self.assertEqual([rule["name"] for rule in found if rule["state"] == "firing"], [])

    async def until_answered(self, prometheus: Prometheus, query: str, value: str) -> None:
        while True:
            try:
                result = await self.asked(prometheus, query)
            except (ConnectionRefusedError, ResponseNeverReceived, AssertionError):
                result = []  # it has not begun yet
            if [sample["value"][1] for sample in result] == [value]:
                return
            await self.pause(0.1)

    async def asked(self, prometheus: Prometheus, query: str) -> list[dict[str, Any]]:
        """The answer to a query."""
        url = f"{prometheus.url}/api/v1/query?{urlencode({'query': query})}"
        status, answer = await self.call("GET", url)
        self.assertEqual(status, 200, answer)
        result: list[dict[str, Any]] = json.loads(answer)["data"]["result"]
        return result


@each_engine(globals())
class UpgradedTests(ScrapedTestCase):
    """Another version of Dalga has upgraded the tables, or has come back."""

    def set_version(self, version: int) -> None:
        """As far as a daemon looks at the version."""
        if self.engine == "sqlite":
            self.sql(f"PRAGMA user_version = {version}")
        elif version != VERSION:
            self.sql(f"RENAME TABLE dalga{HEARTBEATS} TO dalga_alive_elsewhere")
        else:
            self.sql(f"RENAME TABLE dalga_alive_elsewhere TO dalga{HEARTBEATS}")

    async def test_another_version(self) -> None:
        _, url = await self.start()
        for version, expected in [(VERSION + 1, 503), (VERSION, 200)]:
            self.set_version(version)
            status, answer = 0, ""
            while status != expected:
                status, answer = await self.call("GET", f"{url}/ready")
                await self.pause(0.1)
            if status == 503:
                self.assertIn("this instance is not ready: ", json.loads(answer)["detail"])


@each_engine(globals(), only=("mariadb", "mysql"))
class AwayTests(ScrapedTestCase):
    """The way to the database is cut, or says nothing."""

    def setUp(self) -> None:
        super().setUp()
        database = server(self.engine)
        self.proxy = Proxy(self.reactor, database.host, database.port)
        self.proxy.listen()
        self.addCleanup(self.proxy.close)

    async def quick(self, url: str) -> tuple[int, str]:
        """What `/ready` says; all three calls are answered soon."""
        began = self.reactor.seconds()
        self.assertEqual(await self.call("GET", f"{url}/health"), (200, '{"status":"ok"}'))
        await self.scrape(url)
        self.assertLess(self.reactor.seconds() - began, 1.5)
        ready = await self.call("GET", f"{url}/ready")
        self.assertLess(self.reactor.seconds() - began, PATIENCE + 1.5)
        return ready

    async def until_ready(self, url: str, expected: int) -> str:
        while True:
            status, answer = await self.quick(url)
            if status == expected:
                return answer
            await self.pause(0.1)

    async def test_quick(self) -> None:
        _, url = await self.start(mysql={"port": self.proxy.port, "ssl-mode": "disabled"})
        self.assertEqual(await self.until_ready(url, 200), '{"status":"ready"}')
        self.proxy.refuse()
        self.proxy.cut()
        answer = await self.until_ready(url, 503)
        self.assertIn("this instance is not ready: ", json.loads(answer)["detail"])
        await self.until_scraped(url, "dalga_db_up", 0.0)
        self.proxy.accept()
        await self.until_ready(url, 200)
        await self.until_scraped(url, "dalga_db_up", 1.0)
        self.proxy.stall(True)
        answer = await self.until_ready(url, 503)
        self.assertIn("has not answered within 2 seconds", json.loads(answer)["detail"])
        self.proxy.stall(False)
        await self.until_ready(url, 200)
