"""A daemon's `/metrics`, `/health` and `/ready`: read by promtool, and by a Prometheus."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.threads import deferToThread
from twisted.web.client import ResponseNeverReceived

from dalga.health import PATIENCE
from dalga.metrics import CERTIFICATES, FAMILIES
from dalga.store.schema import HEARTBEATS, VERSION
from faults.proxy import Proxy
from tests.daemons import DaemonTestCase
from tests.servers.prometheus import Prometheus, promtool
from tests.stores import each_engine, server
from tests.test_contrib import RULES, queries, rules
from tests.test_workers import WorkersTestCase

#: Metrics that a daemon of these tests has nothing to say of: no alert is configured, and no
#: endpoint has a certificate.
SILENT = {"dalga_alerts_total", "dalga_alerts_pending", CERTIFICATES}

#: In seconds: less than a daemon waits for an answer of its database (13), and more than a busy
#: machine takes.
SOON = 6.0


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
    async def test_runs(self) -> None:
        """What has run is counted; promtool has nothing to say; and nothing asks for a body."""
        self.endpoint.answer = lambda hit: 500 if hit.path == "broken" else 200
        _, url = await self.start(jobs={"retryInterval": "1h"})
        for path, body in (("reports", "daily"), ("reports", "weekly"), ("broken", "s3cret")):
            await self.put(f"{url}/jobs/{path}/{body}?one-off=1&immediate=1")
        runs = {"endpoint": "default", "path": "reports", "result": "succeeded"}
        samples = await self.until_scraped(url, "dalga_runs_total", 2.0, **runs)
        samples = await self.until_scraped(
            url,
            "dalga_attempts_total",
            1.0,
            endpoint="default",
            code_class="5xx",
            error_kind="status",
        )
        self.assertEqual(samples["dalga_slots"][()], 100.0)
        self.assertEqual(samples["dalga_db_up"][()], 1.0)
        self.assertEqual(samples["dalga_lateness_seconds_count"][("endpoint", "default"),], 2.0)
        self.assertEqual(samples["dalga_run_attempts_bucket"][("le", "1.0"),], 2.0)
        self.assertLess(abs(samples["dalga_clock_offset_seconds"][()]), 60.0)
        put = (("code", "201"), ("method", "PUT"), ("route", "/jobs/<path>/<body>"))
        self.assertEqual(samples["dalga_http_requests_total"][put], 3.0)
        self.assertIn(
            (("operation", "put"), ("result", "ok")), samples["dalga_db_transactions_total"]
        )
        while "dalga_jobs" not in samples:
            await self.pause(0.1)
            samples = await self.scrape(url)
        states = {labels[0][1] for labels in samples["dalga_jobs"]}
        self.assertEqual(states, {"running", "pending", "set_aside", "other"})
        self.assertIn(sum(samples["dalga_jobs"].values()), (1.0, 2.0, 3.0))
        self.assertIn((), samples["dalga_jobs_age_seconds"])
        while not samples["dalga_reactor_tick_seconds_count"][()]:
            await self.pause(0.1)
            samples = await self.scrape(url)
        shown = {re.sub("_(bucket|sum|count)$", "", name) for name in samples}
        expected = {re.sub("_count$", "", family.name) for family in FAMILIES}
        self.assertEqual(expected - shown - SILENT, set())
        _, text = await self.call("GET", f"{url}/metrics")
        self.assertNotIn("s3cret", text)
        checked = await deferToThread(promtool, "check", "metrics", given=text.encode())
        self.assertEqual(checked, (0, ""))

    async def test_paths(self) -> None:
        """P10: beyond so many, paths are counted together."""
        _, url = await self.start(metrics={"paths": 2})
        for number in range(5):
            await self.put(f"{url}/jobs/path{number}/x?one-off=1&immediate=1")
            await self.endpoint.until(lambda: len(self.endpoint.hits) == number + 1)  # noqa: B023
        labels = {"endpoint": "default", "path": "other", "result": "succeeded"}
        samples = await self.until_scraped(url, "dalga_runs_total", 3.0, **labels)
        self.assertEqual(len(samples["dalga_runs_total"]), 3)

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
        query = 'dalga_runs_total{job="dalga", path="reports", result="succeeded"}'
        await self.until_answered(prometheus, query, "1")
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


@each_engine(globals(), only=("mariadb", "mysql"))
class WorkerMetricsTests(WorkersTestCase, ScrapedTestCase):
    async def test_all_in_one(self) -> None:
        """
        Whichever worker answers a scrape, it shows the numbers of both; and those of a new worker
        in the place of one that has died.
        """
        daemon = self.run_workers()
        url, pids = await self.listening(daemon)
        await self.put_now(url, 20)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 20)
        all_in_a_row = 0  # the other worker's numbers may be a second old
        while all_in_a_row < 6:
            samples = await self.scrape(url)
            runs = samples.get("dalga_runs_total", {})
            self.assertLessEqual(sum(runs.values()), 20)
            all_in_a_row = all_in_a_row + 1 if sum(runs.values()) == 20 else 0
            await self.pause(0.1)
        both = {(("worker", "1"),): 100.0, (("worker", "2"),): 100.0}
        self.assertEqual(samples["dalga_slots"], both)
        self.assertEqual(len(samples["dalga_build_info"]), 2)
        _, text = await self.call("GET", f"{url}/metrics")
        checked = await deferToThread(promtool, "check", "metrics", given=text.encode())
        self.assertEqual(checked, (0, ""))
        os.kill(pids[2], signal.SIGKILL)
        builds = samples["dalga_build_info"].keys()
        while samples["dalga_build_info"].keys() == builds or samples["dalga_slots"] != both:
            await self.pause(0.1)
            samples = await self.scrape(url)
        self.processes(daemon.output)
        first = {labels: count for labels, count in runs.items() if ("worker", "1") in labels}
        self.assertEqual(samples.get("dalga_runs_total", {}), first)


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
        self.assertLess(self.reactor.seconds() - began, SOON)
        ready = await self.call("GET", f"{url}/ready")
        self.assertLess(self.reactor.seconds() - began, PATIENCE + SOON)
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
