"""What daemons count of their runs, and what they say of themselves."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred

from dalga import __version__
from tests.daemons import DaemonTestCase, Hit
from tests.erring import ErringProxy
from tests.stores import each_engine, server

RUNS = 12


class StatisticsTestCase(DaemonTestCase):
    """Statistics over HTTP."""

    #: In seconds. Three daemons start one after the other, which takes long on a busy machine.
    timeout = 300

    async def runs(self, url: str, query: str = "") -> dict[str, tuple[int, int]]:
        """Runs and attempts of the last hour by their result, as `/stats` has them now."""
        answer = await self.get(f"{url}/stats?group=result{query}")
        return {
            series["result"]: (
                sum(point["runs"] for point in series["points"]),
                sum(point["attempts"] for point in series["points"]),
            )
            for series in answer["series"]
        }

    async def until_runs(self, url: str, **expected: tuple[int, int]) -> None:
        """Wait until the statistics are these."""
        while await self.runs(url) != expected:
            await self.pause(0.05)

    async def stop(self, daemon: Any) -> None:
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0, daemon.output)
        self.assertNotIn("Traceback", daemon.output)

    async def run_jobs(self, url: str, name: str, number: int) -> None:
        """Run jobs once each, on paths of their own, and see their ends recorded."""
        keys = [f"{url}/jobs/{name}{each}/body" for each in range(number)]
        for key in keys:
            await self.put(f"{key}?one-off=true&immediate=true")
        for key in keys:
            await self.until_gone(key)


@each_engine(globals())
class StopTests(StatisticsTestCase):
    """A daemon that is stopped, and started again."""

    async def test_nothing_is_lost_at_a_stop(self) -> None:
        """What the daemon before has counted in the same minute stays beside what this one does."""
        self.endpoint.answer = lambda hit: 500 if hit.path == "bad" else 200
        daemon, url = await self.start(jobs={"retryInterval": "50ms"})
        await self.run_jobs(url, "a", RUNS)
        bad = "bad/body?one-off=true&immediate=true&retry-max-attempts=3"
        await self.put(f"{url}/jobs/{bad}")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == RUNS + 3)
        await self.until_shown(f"{url}/jobs/bad/body", next_run=None)
        await self.stop(daemon)
        daemon, url = await self.start()
        expected = {"succeeded": (RUNS, RUNS), "given_up": (1, 3)}
        self.assertEqual(await self.runs(url), expected)
        await self.run_jobs(url, "b", 1)
        await self.stop(daemon)
        daemon, url = await self.start()
        await self.until_runs(url, succeeded=(RUNS + 1, RUNS + 1), given_up=(1, 3))
        history = Counter(run["result"] for run in (await self.get(f"{url}/runs"))["runs"])
        self.assertEqual(history, {"succeeded": RUNS + 1, "given_up": 1})
        self.assertEqual(await self.runs(url, "&path=bad"), {"given_up": (1, 3)})
        self.assertEqual(await self.runs(url, "&endpoint=billing"), {})
        answer = await self.get(f"{url}/stats?group=path&step=1h")
        self.assertEqual(
            {series["path"] for series in answer["series"]},
            {"bad", "b0", *(f"a{number}" for number in range(RUNS))},
        )


@each_engine(globals())
class ClosedTests(StatisticsTestCase):
    """Runs that users end while they wait for their next attempt."""

    async def test_they_are_counted(self) -> None:
        """Once, in the statistics and in the metrics."""
        self.endpoint.answer = lambda hit: 503
        _, url = await self.start(jobs={"retryInterval": "1h", "retryMaxInterval": "1h"})
        names = ("put", "triggered", "deleted", "by-an-action")
        for name in names:
            await self.put(f"{url}/jobs/{name}/body?interval=1h&immediate=true")
        for name in names:
            while "failing" not in await self.get(f"{url}/jobs/{name}/body"):
                await self.pause(0.05)
        self.endpoint.answer = lambda hit: 200
        action = {"do": "delete", "filter": {"path": "by-an-action"}}
        asked: list[tuple[str, str, dict[str, Any]]] = [
            ("PUT", "jobs/put/body?interval=1h", {}),
            ("POST", "jobs/triggered/body", {}),
            ("DELETE", "jobs/deleted/body", {}),
            ("POST", "actions", {"json": action}),
        ]
        for method, target, body in asked:
            status, answer = await self.call(method, f"{url}/{target}", **body)
            self.assertIn(status, range(200, 300), answer)
        await self.until_runs(url, succeeded=(1, 1), overridden=(2, 2), cancelled=(2, 2))
        _, text = await self.call("GET", f"{url}/metrics")
        found = {
            (sample.labels["path"], sample.labels["result"]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "dalga_runs_total"
        }
        self.assertEqual(
            found,
            {
                ("put", "overridden"): 1.0,
                ("triggered", "overridden"): 1.0,
                ("triggered", "succeeded"): 1.0,
                ("deleted", "cancelled"): 1.0,
                ("by-an-action", "cancelled"): 1.0,
            },
        )


@each_engine(globals(), only=("mariadb", "mysql"))
class InstancesTests(StatisticsTestCase):
    """Several instances on one table."""

    async def test_the_table_is_away(self) -> None:
        """Runs go on, and are counted once the table is back: each once."""
        host = server(self.engine)
        proxy = ErringProxy(self.reactor, host.host, host.port)
        self.addCleanup(proxy.close)
        daemon, url = await self.start(mysql={"port": proxy.port, "ssl-mode": "disabled"})
        await self.run_jobs(url, "a", 1)
        await self.until_runs(url, succeeded=(1, 1))
        proxy.say(9001, "no connection to the shard", b"INTO `dalga_stats`")
        await self.run_jobs(url, "b", RUNS)
        await daemon.says("no connection to the shard; waiting for it to come back")
        await self.run_jobs(url, "c", RUNS)
        self.assertEqual(await self.runs(url), {"succeeded": (1, 1)})
        proxy.stop_saying()
        await daemon.says("the database is back")
        await self.until_runs(url, succeeded=(1 + 2 * RUNS, 1 + 2 * RUNS))
        await self.stop(daemon)

    async def test_one_is_killed(self) -> None:
        """P2: a run that another one takes over is counted once, with all its attempts."""
        hangs: list[Deferred[int]] = []

        def answer(hit: Hit) -> Any:
            if hit.path == "hangs" and hit.attempt == 1:
                hangs.append(Deferred())
                return hangs[-1]
            return 200

        self.endpoint.answer = answer
        one, url = await self.start()
        await self.run_jobs(url, "a", 1)
        await self.until_runs(url, succeeded=(1, 1))
        await self.put(f"{url}/jobs/hangs/body?one-off=true&immediate=true")
        await self.endpoint.until(lambda: bool(hangs))
        two, other = await self.start()
        while len(found := (await self.get(f"{other}/instances"))["instances"]) < 2:
            await self.pause(0.05)
        self.assertEqual({each["version"] for each in found}, {__version__})
        self.assertEqual([each.get("answering", False) for each in found].count(True), 1)
        names = {hit.instance for hit in self.endpoint.hits}
        self.assertLess(names, {each["instance_id"] for each in found})
        for each in found:
            self.assertLess(each["heartbeat_age"], 30)
            self.assertGreater(each["slots"], 0)
            self.assertLess(abs(each["clock_offset"]), 5)
        one.send(signal.SIGKILL)
        await one.ended
        self.end_leases()
        await self.until_runs(other, succeeded=(2, 3))
        await self.run_jobs(other, "b", 3)
        await self.stop(two)
        three, url = await self.start()
        self.assertEqual(await self.runs(url), {"succeeded": (5, 6)})
        await self.stop(three)
        rows = self.sql("SELECT instance, SUM(runs) FROM dalga_stats WHERE scope = 0 GROUP BY 1")
        self.assertEqual(sorted(int(runs) for _, runs in rows), [1, 4])
