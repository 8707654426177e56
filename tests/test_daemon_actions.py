"""Actions of real daemons: thousands of runs that are replayed by one call, with a death amid."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from twisted.internet.defer import Deferred

from tests.daemons import DaemonTestCase
from tests.ended import KEY, SCHEDULED, insert_runs, run_id
from tests.records import RecordTestCase
from tests.stores import each_engine

NUMBER = 7000
JSON = {"Content-Type": ["application/json"]}


@each_engine(globals())
class ActionTests(DaemonTestCase, RecordTestCase):
    #: In seconds. Seven thousand replays take 15 s, and many times that on a busy machine.
    timeout = 300

    async def act(self, url: str, **members: Any) -> str:
        """Begin an action; gives where it is shown."""
        answer = await self.call(
            "POST", f"{url}/actions", headers=JSON, data=json.dumps(members).encode()
        )
        status, text = answer
        self.assertEqual(status, 202, text)
        return f"{url}/actions/{json.loads(text)['id']}"

    async def test_seven_thousand_replays(self) -> None:
        """
        P2: one call has all failed runs replayed, each once. Its daemon is killed on the way, and
        another one goes on (P5). P7: a job beside them stays on time.
        """
        config: dict[str, dict[str, object]] = {
            "jobs": {"maxRunning": 400},
            "endpoint": {"timeout": "1s"},
        }
        daemon, url = await self.start(**config)
        # On a busy machine this takes more than a minute, and then old records are removed.
        insert_runs(self, range(1, NUMBER + 1), at=datetime.now(UTC) - timedelta(hours=1))
        soon = f"{datetime.now(UTC) + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}"
        await self.put(f"{url}/jobs/tick/1?interval=1&first-run={soon}")
        action = await self.act(
            url, do="replay", filter={"result": "given_up"}, expect_at_most=NUMBER
        )
        await self.endpoint.until(lambda: len(self.endpoint.hits) >= NUMBER // 3)
        daemon.send(signal.SIGKILL)
        await daemon.ended
        killed = self.reactor.seconds()
        _, other = await self.start(**config)
        shown = await self.until_shown(action.replace(url, other), state="done")
        counts = shown["matched"], shown["done"], shown["failed"]
        self.assertEqual(counts, (NUMBER, NUMBER, 0))
        await self.endpoint.until(lambda: len(self.succeeded()) == NUMBER)
        await self.pause(0.2)
        replays = self.succeeded()
        self.assertEqual(replays.keys(), {str(run_id(each + 1)) for each in range(NUMBER)})
        self.assertEqual({len(runs) for runs in replays.values()}, {1})
        self.assertEqual(self.endpoint.overlaps(), [])
        for hit in self.endpoint.hits:
            if hit.path == "mail":
                self.assertEqual((hit.scheduled, hit.body), (SCHEDULED, KEY.body))
        late = [
            hit.start - hit.scheduled.timestamp()
            for hit in self.endpoint.hits
            if hit.path == "tick" and hit.start < killed
        ]
        self.assertGreater(len(late), 1)
        # Behind the replays it would be late by as long as these take, and a busy machine makes
        # both longer.
        began = min(hit.start for hit in self.endpoint.hits if hit.path == "mail")
        self.assertLess(median(late), max(0.25, (killed - began) / 4))

    async def test_from_a_failure_to_its_replay(self) -> None:
        """
        A run that was given up is found, and replayed: with its payload and its time, and under a
        run id of its own. P13: both have their records. While a run goes on, it is not replayed.
        """
        answers: dict[bool, Any] = {False: 500, True: Deferred()}
        self.endpoint.answer = lambda hit: answers["dalga-replay-of" in hit.headers]
        _, url = await self.start()
        status, text = await self.call("POST", f"{url}/jobs/mail?give-up=500", data=b"hello")
        self.assertEqual(status, 201, text)
        failed = await self.one_run(f"{url}/runs?path=mail&result=given_up")
        status, text = await self.call("POST", f"{url}/runs/{failed['run_id']}/replay")
        self.assertEqual(status, 201, text)
        self.assertEqual(json.loads(text)["replay_of"], failed["run_id"])
        running = await self.one_run(f"{url}/runs?path=mail&result=running")
        status, text = await self.call("POST", f"{url}/runs/{running['run_id']}/replay")
        self.assertEqual(status, 409, text)
        self.assertIn("has not ended (it is running)", text)
        answers[True].callback(200)
        replayed = await self.one_run(f"{url}/runs?path=mail&result=succeeded")
        found = replayed["trigger"], replayed["replay_of"], replayed["scheduled"]
        self.assertEqual(found, ("replay", failed["run_id"], failed["scheduled"]))
        # Late by its own time, not by the time that the failed run was scheduled for.
        self.assertLess(replayed["lateness_ms"], 60_000)
        first, second = self.endpoint.hits
        self.assertEqual((first.body, second.body), ("hello", "hello"))
        self.assertEqual((first.run, second.run), (failed["run_id"], replayed["run_id"]))
        self.assertEqual(first.scheduled, second.scheduled)

    async def one_run(self, url: str) -> dict[str, Any]:
        """Wait until a list of runs has one."""
        while not (runs := (await self.get(url))["runs"]):
            await self.pause(0.05)
        (run,) = runs
        return dict(run)

    def succeeded(self) -> dict[str, set[str]]:
        """By the run that was replayed, the runs that were POSTed for it."""
        found: dict[str, set[str]] = defaultdict(set)
        for hit in self.endpoint.hits:
            if hit.path == "mail":
                found[hit.headers["dalga-replay-of"]].add(hit.run)
        return found
