"""Daemons that send alerts to a real server: through restarts, several of them, and outages."""

from __future__ import annotations

import json
import signal
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from dalga.config.sections import SQLiteConfig
from tests.daemons import Answer, Daemon, DaemonTestCase, Hit
from tests.receivers import Receiver, Sent, listen
from tests.stores import each_engine

#: Retries that are quick, and are given up after four attempts.
QUICK = '"retry":{"interval":"20ms","multiplier":1,"max_attempts":4}'
#: Python that has a daemon look more often, at what there is to be told of.
LOOKS = (
    "import dalga.dispatch.alerts as a; a.LOOK_INTERVAL = 0.3; "
    "import dalga.dispatch.sending as s; s.POLL = 0.2"
)
#: Python that has a daemon look more often for alerts to be sent.
LOOKS_FOR_ALERTS = "import dalga.dispatch.sending as s; s.POLL = 0.2"
ONE_OFF = '"one_off":true,"immediate":true'


@each_engine(globals())
class AlertTests(DaemonTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.receiver, self.ops = Receiver(), Receiver()
        self.urls = {}
        for name, receiver in (("default", self.receiver), ("ops", self.ops)):
            port = listen(self.reactor, receiver)
            self.addCleanup(port.stopListening)
            self.urls[name] = f"http://127.0.0.1:{port.getHost().port}/T0/s3cret?k=s3cret"
        #: What the endpoint answers.
        self.status: Answer = 500

        def answer(hit: Hit) -> Answer:
            return self.status

        self.endpoint.answer = answer

    async def start_alerting(self, before: str = "", **more: Any) -> tuple[Daemon, str]:
        """:param before: see `spawn`."""
        alerts = {"url": self.urls["default"]}
        ops = {"url": self.urls["ops"], "format": "slack"}
        return await self.start(before, **{"alerts": alerts, "alerts ops": ops, **more})

    async def put_json(self, url: str, name: str, members: str) -> None:
        status, answer = await self.call(
            "PUT",
            f"{url}/jobs/p/{name}",
            data=f"{{{members}}}".encode(),
            headers={"Content-Type": "application/json"},
        )
        self.assertEqual(status, 201, answer)

    def of(self, name: str) -> list[str]:
        """The events of a job, in the order of their times."""
        sent = {
            each.content["id"]: each.content
            for each in self.receiver.sent
            if (each.content["job"] or {}).get("body") == name
        }
        return [each["event"] for each in sorted(sent.values(), key=lambda each: each["at"])]

    async def test_reload(self) -> None:
        """Alerts go to the target of the configuration that was read last, if there is one."""
        daemon, url = await self.start(LOOKS_FOR_ALERTS)
        give_up = f'{ONE_OFF},"retry":{{"max_attempts":1}}'
        await self.put_json(url, "none", give_up)
        while not (await self.get(f"{url}/runs?result=given_up"))["runs"]:
            await self.pause(0.05)
        for name, receiver in (("default", self.receiver), ("ops", self.ops)):
            self.ini(alerts={"url": self.urls[name]})
            before = daemon.output.count("changed: ")
            daemon.send(signal.SIGHUP)
            await daemon.says(rf"(?s)(changed: \[alerts\] url.*){{{before + 1}}}")
            await self.put_json(url, name, give_up)
            await receiver.until(partial(bool, receiver.sent))
            self.assertEqual([each.content["job"]["body"] for each in receiver.sent], [name])
        self.assertNotIn("s3cret", daemon.output)
        self.assertNotIn("Traceback", daemon.output)

    async def test_failing_restarted_given_up_and_recovered(self) -> None:
        """Once an incident, though the daemon is killed in it, and another one takes over."""
        first, url = await self.start_alerting()
        retry = '"retry":{"interval":"20ms","multiplier":1,"max_attempts":9}'
        await self.put_json(url, "a", f'"interval":1,"immediate":true,"alert_after":2,{retry}')
        await self.receiver.until(lambda: len(self.receiver.sent) == 1)
        first.send(signal.SIGKILL)
        await first.ended
        self.end_leases()
        # It may have died before it could note that the alert has arrived.
        self.sql("UPDATE dalga_alerts SET due = '2020-01-01 00:00:00.000000' WHERE due IS NOT NULL")
        second, url = await self.start_alerting()
        await self.receiver.until(lambda: "job.given_up" in self.of("a"))
        before = len(self.endpoint.hits)
        await self.endpoint.until(lambda: len(self.endpoint.hits) >= before + 12)
        self.status = 200
        await self.receiver.until(lambda: "job.recovered" in self.of("a"))
        before = len(self.endpoint.hits)
        await self.endpoint.until(lambda: len(self.endpoint.hits) >= before + 2)
        self.assertEqual(self.of("a"), ["job.failing", "job.given_up", "job.recovered"])
        sent = self.receiver.sent[0]
        self.assertEqual(sent.target, "/T0/s3cret?k=s3cret")
        self.assertEqual(sent.headers["dalga-alert"], sent.content["id"])
        self.assertEqual(sent.content["streak"], 2)
        self.assertEqual(sent.content["error"], "500 Internal Server Error")
        listed = (await self.get(f"{url}/alerts"))["alerts"]
        self.assertEqual(
            [each["event"] for each in listed], ["job.recovered", "job.given_up", "job.failing"]
        )
        self.assertEqual({each["target"] for each in listed}, {"default"})
        # P12: no line and no answer has the URL.
        for output in (first.output, second.output, json.dumps(listed)):
            self.assertNotIn("s3cret", output)

    async def test_a_receiver_that_is_down(self) -> None:
        """It gets the alert once it is there again; the log says so without the URL."""
        self.receiver.status = 503
        soon = "s.AGAIN = replace(s.AGAIN, interval=s.timedelta(milliseconds=50))"
        before = f"{LOOKS}; from dataclasses import replace; {soon}"
        daemon, url = await self.start_alerting(before=before)
        await self.put_json(url, "a", f'{ONE_OFF},"alert_after":1')
        await daemon.says("did not arrive at the target default: it answered 503; it is sent again")
        await self.receiver.until(lambda: len(self.receiver.sent) >= 2)
        self.receiver.status = 204
        before_it = len(self.receiver.sent)
        await self.receiver.until(lambda: len(self.receiver.sent) > before_it)
        self.assertEqual(len({sent.content["id"] for sent in self.receiver.sent}), 1)
        await self.until_state(url, "sent")
        self.assertNotIn("s3cret", daemon.output)

    async def test_in_order(self) -> None:
        """A job has failed and recovered while its receiver was away: the order is kept."""
        self.receiver.status = 503
        soon = "s.AGAIN = replace(s.AGAIN, interval=s.timedelta(seconds=1), multiplier=1)"
        before = f"{LOOKS}; from dataclasses import replace; {soon}"
        _, url = await self.start_alerting(before=before)
        await self.put_json(url, "a", '"interval":1,"immediate":true,"alert_after":1')
        await self.receiver.until(lambda: len(self.receiver.sent) == 2)
        self.status = 200
        before_success = len(self.endpoint.hits)
        await self.endpoint.until(lambda: len(self.endpoint.hits) >= before_success + 2)
        # Another job's alert does not wait for them.
        await self.call("DELETE", f"{url}/jobs/p/a")
        self.status = 500
        await self.put_json(url, "b", f'{ONE_OFF},"alert_after":1')
        await self.receiver.until(lambda: "b" in map(_body, self.receiver.sent))
        self.assertEqual(
            {each.event for each in self.receiver.sent if _body(each) == "a"}, {"job.failing"}
        )
        arrived = len(self.receiver.sent)
        self.receiver.status = 200
        await self.receiver.until(lambda: "job.recovered" in self.receiver.events())
        of_a = [each.event for each in self.receiver.sent[arrived:] if _body(each) == "a"]
        self.assertEqual(of_a, ["job.failing", "job.recovered"])

    async def test_a_target_that_does_not_answer(self) -> None:
        """It holds up no alert to another target: a POST to it ends after 10 s."""
        self.ops.status = None
        _, url = await self.start_alerting()
        for number in range(12):
            members = f'{ONE_OFF},"alert_after":1,"alert_url":"ops"'
            await self.put_json(url, f"ops{number}", members)
        await self.ops.until(lambda: len(self.ops.sent) == 10)
        began = self.reactor.seconds()
        await self.put_json(url, "a", f'{ONE_OFF},"alert_after":1')
        await self.receiver.until(lambda: self.of("a") == ["job.failing"])
        self.assertLess(self.reactor.seconds() - began, 8.0)
        self.assertEqual(len(self.ops.sent), 10)

    async def until_state(self, url: str, state: str) -> dict[str, Any]:
        """Wait until the newest alert has a state; gives it as it is listed."""
        while True:
            (alert,) = (await self.get(f"{url}/alerts?limit=1"))["alerts"]
            if alert["state"] == state:
                found: dict[str, Any] = alert
                return found
            await self.pause(0.05)

    async def test_targets(self) -> None:
        """Of the job, of its endpoint, or none; in Slack's form."""
        billing = {"baseurl": self.baseurl, "alerts": "ops"}
        _, url = await self.start_alerting("", **{"endpoint billing": billing})
        one_off = f'{ONE_OFF},"alert_after":1'
        await self.put_json(url, "none", f'{one_off},"alert_url":"none"')
        await self.put_json(url, "of-job", f'{one_off},"alert_url":"ops"')
        await self.put_json(url, "of-endpoint", f'{one_off},"endpoint":"billing"')
        await self.put_json(url, "default", one_off)
        await self.ops.until(lambda: len(self.ops.sent) == 2)
        await self.receiver.until(lambda: len(self.receiver.sent) == 1)
        texts = sorted(sent.content["text"] for sent in self.ops.sent)
        self.assertEqual(
            [text.partition(" fails")[0] for text in texts],
            ["job.failing: The job p/of-endpoint", "job.failing: The job p/of-job"],
        )
        self.assertEqual(self.of("default"), ["job.failing"])
        hits = {hit.body for hit in self.endpoint.hits}
        self.assertEqual(hits, {"none", "of-job", "of-endpoint", "default"})

    async def test_silent_removed_and_a_problem(self) -> None:
        _, url = await self.start_alerting(before=LOOKS)
        self.status = 204
        await self.put_json(url, "removed", ONE_OFF)
        await self.receiver.until(lambda: self.of("removed") == ["job.removed"])
        await self.put_json(url, "silent", '"interval":3600,"expect_within":1')
        await self.put_json(url, "odd", '"interval":3600')
        self.sql(
            "UPDATE dalga SET schedule = 'often', due = '2020-01-01 00:00:00.000000'"
            " WHERE body = %s",
            (self.key("odd"),),
        )
        await self.receiver.until(lambda: self.of("odd") == ["job.problem"])
        await self.receiver.until(lambda: self.of("silent") == ["job.silent"])
        self.status = 200
        await self.call("POST", f"{url}/jobs/p/silent")
        await self.receiver.until(lambda: self.of("silent") in (["job.silent", "job.recovered"],))

    async def test_many(self) -> None:
        """More than 20 a minute: the others wait for the end of the minute, as one."""
        _, url = await self.start_alerting(before=LOOKS_FOR_ALERTS)
        for number in range(30):
            await self.put_json(url, str(number), f'{ONE_OFF},{QUICK},"alert_after":1')
        await self.receiver.until(lambda: len(self.receiver.sent) == 20)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 120)
        while True:
            rows = self.sql("SELECT event, due FROM dalga_alerts WHERE due IS NOT NULL")
            of_jobs = "SELECT COUNT(*) FROM dalga_alerts WHERE path IS NOT NULL"
            if len(rows) == 1 and self.sql(of_jobs)[0][0] == 60:
                break
            await self.pause(0.05)
        # As if the minute were over.
        self.sql("UPDATE dalga_alerts SET sent = NULL WHERE sent IS NOT NULL")
        self.sql("UPDATE dalga_alerts SET due = '2020-01-01 00:00:00.000000' WHERE due IS NOT NULL")
        await self.receiver.until(lambda: "alerts.summary" in self.receiver.events())
        of_jobs_alone = self.receiver.events("endpoint.down", "alerts.summary")
        self.assertIn(len(of_jobs_alone), (19, 20))  # endpoint.down may be one of the 20
        counts = self.receiver.sent[-1].content["counts"]
        self.assertNotIn("endpoint.down", counts)
        self.assertEqual(len(of_jobs_alone) + sum(counts.values()), 60)

    async def test_no_target(self) -> None:
        """Nothing is kept."""
        _, url = await self.start()
        await self.put_json(url, "a", f"{ONE_OFF},{QUICK}")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 4)
        while not self.sql("SELECT streak FROM dalga WHERE streak = 4"):
            await self.pause(0.02)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga_alerts")[0][0], 0)

    async def test_an_endpoint_that_is_down(self) -> None:
        """Nearly all of its attempts fail; the next start goes on with the incident."""
        daemon, url = await self.start_alerting(before=LOOKS)
        slow = '"retry":{"interval":"200ms","multiplier":1}'
        for number in range(10):
            await self.put_json(url, str(number), f'{ONE_OFF},{slow},"alert_url":"none"')
        await self.receiver.until(lambda: "endpoint.down" in self.receiver.events())
        (sent,) = self.receiver.sent
        self.assertEqual(sent.content["endpoint"], "default")
        await self.until_state(url, "sent")
        daemon.send(signal.SIGTERM)
        await daemon.ended
        self.sql("UPDATE dalga_incidents SET since = '2020-01-01 00:00:00.000000'")
        self.status = 200
        await self.start_alerting(before=LOOKS)
        await self.receiver.until(lambda: "endpoint.up" in self.receiver.events())
        self.assertEqual(self.receiver.events(), ["endpoint.down", "endpoint.up"])
        self.assertEqual(self.receiver.sent[1].content["since"], "2020-01-01T00:00:00Z")

    async def test_runs_that_are_late(self) -> None:
        """One slot, which an endpoint holds, and more jobs than are claimed ahead."""
        held: Deferred[int] = Deferred()
        self.endpoint.answer = lambda hit: held
        short = "; a.LATE = 1.0; a.LATE_FOR = 0.5; a.IN_TIME = 0.5"
        _, url = await self.start_alerting(before=LOOKS + short, jobs={"maxRunning": 1})
        for number in range(20):
            await self.put_json(url, str(number), f'{ONE_OFF},"alert_url":"none"')
        await self.receiver.until(lambda: self.receiver.events() == ["scheduler.lagging"])
        self.assertIsNone(self.receiver.sent[0].content["endpoint"])
        held.callback(200)
        self.endpoint.answer = lambda hit: 200
        await self.receiver.until(lambda: len(self.receiver.sent) == 2)
        self.assertEqual(self.receiver.events(), ["scheduler.lagging", "scheduler.recovered"])
        since = [sent.content["since"] for sent in self.receiver.sent]
        self.assertEqual(since[0][:19], since[1][:19])

    async def test_signs_of_life(self) -> None:
        _, url = await self.start(alerts={"heartbeatUrl": self.urls["default"]})
        await self.receiver.until(lambda: len(self.receiver.sent) == 1)
        content = self.receiver.sent[0].content
        self.assertEqual(content["event"], "heartbeat")
        status = await self.get(f"{url}/status")
        self.assertEqual(content["instance"], status["instance_id"])

    async def test_two_instances(self) -> None:
        """Each alert is sent by one of them."""
        if isinstance(self.config, SQLiteConfig):
            urls = [(await self.start_alerting())[1]]
        else:
            urls = [(await self.start_alerting())[1] for _ in range(2)]
        for number in range(8):
            await self.put_json(
                urls[number % len(urls)], str(number), f'"interval":1,"immediate":true,{QUICK}'
            )
        of_jobs = "endpoint.down"
        await self.receiver.until(lambda: len(self.receiver.events(of_jobs)) >= 16)
        before = len(self.endpoint.hits)
        await self.endpoint.until(lambda: len(self.endpoint.hits) >= before + 64)
        self.assertEqual(len(self.receiver.events(of_jobs)), 16)
        for number in range(8):
            self.assertEqual(self.of(str(number)), ["job.failing", "job.given_up"])
        instances = {hit.instance for hit in self.endpoint.hits}
        self.assertEqual(len(instances), len(urls))


def _body(sent: Sent) -> str | None:
    """The body of the job that an alert is about."""
    job = sent.content["job"]
    return None if job is None else str(job["body"])
