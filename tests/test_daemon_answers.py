"""What a daemon knows of the endpoint's answers, from the socket to GET /runs."""

from __future__ import annotations

import json
from typing import Any

from tests.daemons import DaemonTestCase, Hit
from tests.stores import each_engine


@each_engine(globals())
class AnswersTests(DaemonTestCase):
    async def ended(self, url: str, job: str) -> dict[str, Any]:
        """The only run of a job, once it has ended."""
        while True:
            runs = (await self.get(f"{url}/jobs/{job}/runs"))["runs"]
            if runs and runs[0]["result"] is not None:
                [run] = runs
                return await self.get(f"{url}/runs/{run['run_id']}")
            await self.pause(0.05)

    async def put_json(self, url: str, **members: Any) -> None:
        headers = {"Content-Type": "application/json"}
        members = {"one_off": True, "immediate": True, **members}
        status, answer = await self.call(
            "PUT", url, data=json.dumps(members).encode(), headers=headers
        )
        self.assertEqual(status, 201, answer)

    async def test_runs(self) -> None:
        """
        The kind of a failure and where to look; of the endpoint's answer what is no secret (P12),
        though the endpoint echoes all that it got; and one trace for all attempts of a run.
        """

        def answer(hit: Hit) -> Any:
            if hit.path == "fine":
                return 200, {}, b"done"
            echo = f"you sent {hit.headers} ".encode()
            headers = {
                "Set-Cookie": "sid=s3cret",
                "X-Echo": hit.headers["x-tenant"],
                "X-Other": "a",
            }
            return 500, headers, b"no \xff: " + echo

        self.endpoint.answer = answer
        daemon, url = await self.start(
            **{
                "endpoint.headers": {"Authorization": "Bearer t0ken-of-endpoint"},
                "endpoint nobody": {"baseurl": "http://127.0.0.1:1/"},
            }
        )
        again = {"interval": "10ms", "max_attempts": 2}
        await self.put_json(
            f"{url}/jobs/bad/1",
            headers={"X-Tenant": "s3cret-of-job"},
            redact=["x-tenant"],
            retry=again,
        )
        await self.put_json(f"{url}/jobs/gone/1", endpoint="nobody", retry={"max_attempts": 1})
        await self.put_json(f"{url}/jobs/fine/1")
        await self.put_json(f"{url}/jobs/fine/kept", save_response=True)

        bad = await self.ended(url, "bad/1")
        self.assertEqual((bad["result"], bad["status"]), ("given_up", 500))
        self.assertEqual(bad["error_kind"], "status")
        self.assertIn("look at", bad["hint"])
        attempts = [(each["n"], each["status"], each["error_kind"]) for each in bad["attempts"]]
        self.assertEqual(attempts, [(1, 500, "status"), (2, 500, "status")])
        for line in ("Set-Cookie:\n", "X-Echo: ***\n", "X-Other: a\n"):
            self.assertIn(line, bad["response_headers"] + "\n")
        self.assertTrue(bad["response_body"].startswith(r"no \xff: you sent {"), bad)
        self.assertIn("'x-tenant': '***'", bad["response_body"])
        shown = json.dumps(bad) + daemon.output
        self.assertNotIn("s3cret", shown)
        self.assertNotIn("t0ken-of-endpoint", shown)
        traces = [hit.headers["traceparent"] for hit in self.endpoint.hits if hit.path == "bad"]
        self.assertEqual([len({each[:36] for each in traces}), len({*traces})], [1, 2])

        gone = await self.ended(url, "gone/1")
        self.assertEqual((gone["result"], gone["error_kind"]), ("given_up", "connect"))
        self.assertIn("connection refused", gone["error"])
        for run in (gone, await self.ended(url, "fine/1")):
            self.assertNotIn("response_headers", run)
            self.assertNotIn("response_body", run)
        kept = await self.ended(url, "fine/kept")
        self.assertEqual((kept["result"], kept["response_body"]), ("succeeded", "done"))
