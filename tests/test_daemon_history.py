"""The history of runs, as a daemon and its endpoint make it and the API shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.daemons import Answer, DaemonTestCase, Hit
from tests.stores import each_engine


@each_engine(globals())
class HistoryTests(DaemonTestCase):
    async def runs(self, url: str, holds: Callable[[list[Any]], bool]) -> list[Any]:
        """A list of runs, once something holds of it: a record is written some time after a run."""
        while True:
            runs: list[Any] = (await self.get(url))["runs"]
            if holds(runs):
                return runs
            await self.pause(0.02)

    async def test_a_run_from_its_start_to_the_end_of_its_job(self) -> None:
        """Running, ended, last_run; and the record outlives the job."""
        answered: Deferred[Answer] = Deferred()
        self.endpoint.answer = lambda hit: answered
        _, base = await self.start()
        await self.put(f"{base}/jobs/mail/7?interval=3600&immediate=true")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        [hit] = self.endpoint.hits

        (running,) = await self.runs(f"{base}/runs?result=running", bool)
        self.assertEqual(running["run_id"], hit.run)
        self.assertEqual((running["state"], running["result"]), ("running", None))
        self.assertNotIn("last_run", await self.get(f"{base}/jobs/mail/7"))
        answered.callback(200)

        (run,) = await self.runs(f"{base}/runs", lambda runs: runs[0]["result"] is not None)
        self.assertEqual(run["run_id"], hit.run)
        for name, value in {
            "path": "mail",
            "body": "7",
            "endpoint": "default",
            "trigger": "schedule",
            "result": "succeeded",
            "status": 200,
            "error_kind": None,
            "instance": hit.instance,
            "attempt_count": 1,
        }.items():
            self.assertEqual(run[name], value, name)
        self.assertEqual([attempt["n"] for attempt in run["attempts"]], [1])
        self.assertEqual(await self.get(f"{base}/runs/{hit.run}"), run)
        last = (await self.get(f"{base}/jobs/mail/7"))["last_run"]
        self.assertEqual({**last, "path": "mail", "body": "7"}, run)

        await self.call("DELETE", f"{base}/jobs/mail/7")
        for query in ("/runs?path=mail", "/runs?path=mail&body=7", "/jobs/mail/7/runs"):
            self.assertEqual((await self.get(base + query))["runs"], [run])
        self.assertEqual((await self.get(f"{base}/runs?path=mai"))["runs"], [])

    async def test_a_run_that_fails(self) -> None:
        """Retrying, with the attempts so far; then given up, with the answer."""

        def answer(hit: Hit) -> Answer:
            return 503, {"X-Why": "no stock"}

        self.endpoint.answer = answer
        _, base = await self.start()
        await self.put(
            f"{base}/jobs/mail/7?one-off=true&immediate=true&retry-interval=3600"
            "&retry-max-attempts=2"
        )
        (open,) = await self.runs(f"{base}/runs?result=retrying", bool)
        self.assertEqual(
            (open["result"], open["status"], open["error_kind"]), (None, 503, "status")
        )
        self.assertEqual((open["attempt_count"], len(open["attempts"])), (1, 1))
        self.assertIn("next_attempt", open)
        # As if the hour were over.
        self.sql("UPDATE dalga SET due = '2020-01-01 00:00:00.000000'")

        (run,) = await self.runs(f"{base}/runs?error_kind=status&result=given_up", bool)
        self.assertEqual(run["run_id"], open["run_id"])
        self.assertEqual((run["result"], run["attempt_count"]), ("given_up", 2))
        self.assertEqual(
            [(each["n"], each["status"], each["error_kind"]) for each in run["attempts"]],
            [(1, 503, "status"), (2, 503, "status")],
        )
        self.assertTrue(run["hint"])
        self.assertNotIn("response_headers", run)
        whole = await self.get(f"{base}/runs/{run['run_id']}")
        self.assertIn("X-Why: no stock", whole["response_headers"])
        self.assertEqual(await self.runs(f"{base}/runs?status=503", bool), [run])
        self.assertEqual((await self.get(f"{base}/runs?status=500"))["runs"], [])
        self.assertEqual((await self.get(f"{base}/runs?result=retrying"))["runs"], [])

    async def test_each_run_is_on_one_page(self) -> None:
        """Those of several records, on both shelves, by each index."""
        self.endpoint.answer = lambda hit: 503 if hit.body.endswith("7") else 200
        _, base = await self.start()
        for number in range(30):
            await self.put(
                f"{base}/jobs/p{number % 2}/{number}?one-off=true&immediate=true"
                "&retry-max-attempts=1"
            )
        await self.runs(
            f"{base}/runs?limit=100",
            lambda runs: len(runs) == 30 and all(run["result"] for run in runs),
        )
        for query, is_listed in (
            ("", lambda hit: True),
            ("path=p1&", lambda hit: hit.path == "p1"),
            ("result=given_up&", lambda hit: hit.body.endswith("7")),
            ("path=p1&result=succeeded&", lambda hit: hit.path == "p1" and hit.body[-1] != "7"),
        ):
            found: list[str] = []
            cursor = ""
            while True:
                page = await self.get(f"{base}/runs?{query}limit=4{cursor}")
                found += [run["run_id"] for run in page["runs"]]
                if "cursor" not in page:
                    break
                cursor = f"&cursor={page['cursor']}"
            expected = [hit.run for hit in self.endpoint.hits if is_listed(hit)]
            self.assertEqual(sorted(found), sorted(expected), query)
