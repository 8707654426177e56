"""The daemon, end to end: real processes, real sockets, over each engine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import treq
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectError
from twisted.internet.threads import deferToThread
from twisted.web.server import Site

from dalga import __version__
from dalga.config.sections import MySQLConfig
from dalga.store import PIECE
from dalga.store.sqlite import SQLite
from tests.daemons import Daemon, DaemonTestCase, Hit, Recorder
from tests.servers import start_server
from tests.stores import each_engine

#: What is shown of a run that the endpoint answered with 500.
ERROR = "500 Internal Server Error"


def ahead(seconds: float) -> datetime:
    """A time from now, by this machine's clock, which the servers of the tests have as well."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


@each_engine(globals())
class MainJobTests(DaemonTestCase):
    """A person schedules, and the endpoint gets the POSTs."""

    async def test_periodic_and_one_off(self) -> None:
        """P7: both arrive with their headers, on time; what is cancelled stops."""
        _, url = await self.start()
        status, _ = await self.call("PUT", f"{url}/jobs/check_feed/1234?interval=1")
        self.assertEqual(status, 201)
        status, answer = await self.call(
            "PUT", f"{url}/jobs/a%2Fb/c%20d+e?one-off=true&immediate=true"
        )
        self.assertEqual(status, 201)
        self.assertIn('"path":"a/b","body":"c d+e","interval":0', answer)

        def feeds() -> list[Hit]:
            return [hit for hit in self.endpoint.hits if hit.path == "check_feed"]

        await self.endpoint.until(lambda: len(feeds()) == 3)
        (once,) = (hit for hit in self.endpoint.hits if hit.path == "a/b")
        self.assertEqual((once.body, once.headers["content-type"]), ("c d+e", "text/plain"))
        self.assertEqual(len({hit.run for hit in feeds()}), 3)
        between = [b.start - a.start for a, b in zip(feeds(), feeds()[1:], strict=False)]
        for seconds in between:
            self.assertLess(abs(seconds - 1), 0.3, between)
        for hit in feeds():
            datetime.strptime(hit.headers["dalga-sched"], "%Y-%m-%dT%H:%M:%SZ")
        status, _ = await self.call("GET", f"{url}/jobs/a%2Fb/c%20d+e")
        self.assertEqual(status, 404)
        status, _ = await self.call("DELETE", f"{url}/jobs/check_feed/1234")
        self.assertEqual(status, 204)
        count = len(feeds())
        await self.pause(1.5)
        self.assertEqual(len(feeds()), count)

    async def test_the_originals_transcript(self) -> None:
        """
        The bytes of the original's README, dates apart: PUT, GET, DELETE, POST of a one-off. An
        ETag is behind the original's headers.

        (Its POST shows 82 octets of JSON under a length of 83; with a body of five digits the
        length is right.)
        """
        _, url = await self.start()
        feed = "/jobs/check_feed/1234"
        date = "Date: DATE\r\n"
        plain = "Content-Type: application/json; charset=utf-8\r\n" + date
        job = '{"path":"check_feed","body":"1234","interval":60,"next_run":"TIME"}'
        length = "Content-Length: 83\r\n\r\n"
        tagged = 'Content-Length: 83\r\nETag: "TAG"\r\n\r\n'
        self.assertEqual(
            await self.exchange(url, "PUT", f"{feed}?interval=60"),
            f"HTTP/1.1 201 Created\r\n{plain}{tagged}{job}",
        )
        self.assertEqual(
            await self.exchange(url, "GET", feed), f"HTTP/1.1 200 OK\r\n{plain}{tagged}{job}"
        )
        self.assertEqual(
            await self.exchange(url, "DELETE", feed), f"HTTP/1.1 204 No Content\r\n{date}\r\n"
        )
        await self.exchange(url, "PUT", "/jobs/check_feed/12345?one-off=true&interval=60")
        self.assertEqual(
            await self.exchange(url, "POST", "/jobs/check_feed/12345?interval=60"),
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{date}{length}"
            '{"path":"check_feed","body":"12345","interval":0,"next_run":"TIME"}',
        )

    async def exchange(self, url: str, method: str, target: str) -> str:
        """One request over a socket of its own; the answer's bytes, with dates and times masked."""

        def talk() -> bytes:
            host, port = url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(
                    f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                )
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += connection.recv(4096)
                head, _, body = answer.partition(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                while length and len(body) < int(length[1]):
                    body += connection.recv(4096)
                connection.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    body += connection.recv(1)  # there must be no more
                return head + b"\r\n\r\n" + body

        answer = (await deferToThread(talk)).decode()
        answer = re.sub(r"Date: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", "Date: DATE", answer)
        answer = re.sub(r'ETag: "[0-9a-f]{13}"', 'ETag: "TAG"', answer)
        return re.sub(r'"\d{4}-\d\d-\d\dT[\d:]{8}Z"', '"TIME"', answer)

    async def test_what_is_accepted_and_what_is_refused(self) -> None:
        """Each row of the parameters' table, over the whole way to the database."""
        _, url = await self.start()
        past, future = "2001-01-01T00:00:00Z", "9999-12-31T23:58:59Z"
        for parameters, expected, first in (
            ("interval=60", 201, None),
            (f"interval=60&first-run={future}", 201, future),
            (f"interval=60&first-run={past}", 201, past),
            ("interval=60&first-run=0001-01-01T00:00:00Z", 201, "0001-01-01T00:00:00Z"),
            ("interval=60&first-run=9999-01-01T02:00:00.5%2B03:00", 201, "9998-12-31T23:00:00Z"),
            ("interval=60&immediate=ON", 201, None),
            ("one-off=yes&interval=60", 201, None),
            ("one-off=1&interval=0", 201, None),
            (f"one-off=True&first-run={future}", 201, future),
            ("one-off=on&immediate=1", 201, None),
            ("", 400, "interval"),
            (f"first-run={future}", 400, "interval"),
            ("interval=0", 400, "interval"),
            ("interval=-5", 400, "interval"),
            ("interval=1,5", 400, "interval"),
            ("interval=9999999999999", 400, "interval"),
            ("interval=60&first-run=9999-12-31T23:59:59Z", 400, "interval"),  # there's no second
            (f"interval=60&immediate=1&first-run={future}", 400, "first-run"),
            ("one-off=1", 400, "interval"),
            (f"one-off=1&interval=60&first-run={future}", 400, "first-run"),
            ("one-off=1&immediate=1&interval=60", 400, "interval"),
            ("interval=60&first-run=0001-01-01T00:00:00%2B03:00", 400, "first-run"),
            ("interval=60&first-run=2030-01-01T00:00:00", 400, "first-run"),
            ("interval=60&one-off=maybe", 400, "one-off"),
            ("interval=60&interval=60", 400, "interval"),
            ("interval=60&intervall=60", 400, "intervall"),
        ):
            status, answer = await self.call(
                "PUT", f"{url}/jobs/table/{len(parameters)}?{parameters}"
            )
            self.assertEqual(status, expected, (parameters, answer))
            if first is not None:
                self.assertIn(first, answer)
        await self.pause(0)

    async def test_at_a_time(self) -> None:
        """
        P7: a one-off at a time between two scans arrives within milliseconds of it, not at a scan.
        """
        _, url = await self.start(jobs={"scanFrequency": "30s"})
        await self.call("PUT", f"{url}/jobs/warm/up?one-off=1&immediate=1")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        at = datetime.now(UTC).timestamp() + 1.25
        text = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
        status, answer = await self.call("PUT", f"{url}/jobs/at/time?one-off=1&first-run={text}")
        self.assertEqual(status, 201, answer)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 2)
        late = self.endpoint.hits[-1].start - at
        self.assertTrue(-0.01 < late < 0.25, late)

    async def test_trigger(self) -> None:
        """A job that is triggered runs now."""
        _, url = await self.start()
        await self.call("PUT", f"{url}/jobs/later/x?interval=3600")
        status, _ = await self.call("POST", f"{url}/jobs/later/x?interval=5")
        self.assertEqual(status, 200)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)

    async def test_retries_and_removal(self) -> None:
        """
        P2: a failing run is POSTed again as the same run until it is well; a 204 removes the job.
        """
        self.endpoint.answer = lambda hit: 500 if hit.attempt < 3 else 204
        _, url = await self.start()
        await self.call("PUT", f"{url}/jobs/flaky/x?interval=3600&immediate=yes")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 3)
        self.assertEqual([hit.attempt for hit in self.endpoint.hits], [1, 2, 3])
        self.assertEqual(
            len({(hit.run, hit.headers["dalga-sched"]) for hit in self.endpoint.hits}), 1
        )
        await self.pause(0.5)
        status, _ = await self.call("GET", f"{url}/jobs/flaky/x")
        self.assertEqual(status, 404)

    async def test_a_put_in_a_run_survives(self) -> None:
        """P4: the job that an endpoint schedules anew while it runs keeps that schedule."""
        _, url = await self.start()
        release: Deferred[int] = Deferred()
        self.endpoint.answer = lambda hit: release
        await self.call("PUT", f"{url}/jobs/self/x?one-off=1&immediate=1")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        status, _ = await self.call("PUT", f"{url}/jobs/self/x?interval=77")
        self.assertEqual(status, 201)
        release.callback(200)
        await self.pause(0.5)
        status, answer = await self.call("GET", f"{url}/jobs/self/x")
        self.assertEqual(status, 200)
        self.assertIn('"interval":77', answer)

    async def test_why_a_job_is_not_running(self) -> None:
        """Its run is under way here, or waits for its path's share of the slots."""
        _, url = await self.start(jobs={"maxRunning": "5"})
        release: Deferred[int] = Deferred()
        self.endpoint.answer = lambda hit: release
        for number in range(6):
            await self.call("PUT", f"{url}/jobs/a/{number}?one-off=1&immediate=1")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 4)
        said = [await self.get(f"{url}/jobs/a/{number}/why") for number in range(6)]
        running = [each for each in said if each["code"] == "running"]
        waiting = [each for each in said if each["code"] == "waiting_for_slot"]
        self.assertEqual((len(running), len(waiting)), (4, 2), said)
        for each in running:
            self.assertEqual(each["why"], "running: attempt 1 is under way on this instance")
        for each in waiting:
            self.assertIn("waiting for a slot of its path: its path has its share", each["why"])
        release.callback(200)

    async def test_why_a_job_is_not_running_that_is_disabled(self) -> None:
        _, url = await self.start()
        await self.call("PUT", f"{url}/jobs/a/x?interval=60")
        await self.call("PATCH", f"{url}/jobs/a/x?disable=true&reason=too+loud")
        why = await self.get(f"{url}/jobs/a/x/why")
        self.assertEqual((why["state"], why["code"]), ("disabled", "disabled"))
        self.assertRegex(why["why"], r"\Adisabled since 20[-0-9T:]+Z: too loud\Z")


class TwoEndpointsTestCase(DaemonTestCase):
    """A test with an endpoint more, which jobs can name."""

    def setUp(self) -> None:
        super().setUp()
        self.billing = Recorder(self.reactor.seconds, lambda hit: 202)
        site: Any = Site(self.billing)
        listening = self.reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        port = listening.getHost().port
        self.sections: dict[str, dict[str, object]] = {
            "endpoint billing": {
                "baseurl": f"http://u:s3cret@127.0.0.1:{port}/in",
                "timeout": 0.5,
                "success": 202,
            },
            "endpoint billing headers": {"X-Key": "s3cret"},
        }
        self.name_of = {"default": self.baseurl, "billing": f"http://127.0.0.1:{port}/in"}

    async def schedule(self, url: str, name: str, query: str) -> None:
        status, answer = await self.call("PUT", f"{url}/jobs/{name}/x?{query}")
        self.assertEqual(status, 201, answer)


@each_engine(globals())
class EndpointTests(TwoEndpointsTestCase):
    """Jobs that name an endpoint, with two real ones."""

    async def test_two(self) -> None:
        """P3, P11: each job goes to its own, with that one's headers, time-out and success."""
        daemon, url = await self.start(**self.sections)
        hang: Deferred[int] = Deferred()
        self.billing.answer = lambda hit: hang if hit.path == "in/hangs" else 202
        await self.schedule(url, "plain", "one-off=1&immediate=1")
        await self.schedule(url, "bill", "one-off=1&immediate=1&endpoint=billing")
        await self.schedule(url, "hangs", "one-off=1&immediate=1&endpoint=billing")
        await self.until_gone(f"{url}/jobs/plain/x")
        await self.until_gone(f"{url}/jobs/bill/x")
        failing = (await self.until_failing(f"{url}/jobs/hangs/x"))["failing"]
        self.assertIn("0.5 s", failing["error"])
        self.assertEqual([hit.path for hit in self.endpoint.hits], ["plain"])
        self.assertEqual({hit.path for hit in self.billing.hits}, {"in/bill", "in/hangs"})
        self.assertNotIn("x-key", self.endpoint.hits[0].headers)
        self.assertNotIn("authorization", self.endpoint.hits[0].headers)
        for hit in self.billing.hits:
            self.assertEqual(hit.headers["x-key"], "s3cret")
            self.assertTrue(hit.headers["authorization"].startswith("Basic "))
        listed = await self.get(f"{url}/endpoints")
        self.assertEqual(
            [(each["name"], each["baseurl"], each["timeout"]) for each in listed["endpoints"]],
            [("default", self.name_of["default"], 60.0), ("billing", self.name_of["billing"], 0.5)],
        )
        self.assertEqual(listed["endpoints"][1]["headers"], ["X-Key", "Authorization"])
        self.assertEqual([each["success"] for each in listed["endpoints"]], ["200", "202"])
        status, answer = await self.call("PUT", f"{url}/jobs/a/x?interval=60&endpoint=biling")
        self.assertEqual(status, 400)
        self.assertIn("it takes default, billing", answer)
        output = daemon.output
        self.assertIn(f"{self.baseurl} (billing is {self.name_of['billing']})", output)
        self.assertNotIn("s3cret", output + str(listed))
        hang.callback(200)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)

    async def until_failing(self, url: str) -> dict[str, Any]:
        """Wait until a GET shows a failure; gives all that it shows."""
        while "failing" not in (shown := await self.get(url)):
            await self.pause(0.05)
        return shown

    async def test_gone_and_back(self) -> None:
        """P2, P6: a job whose endpoint is gone is POSTed nowhere, and goes on when it is back."""
        daemon, url = await self.start(**self.sections)
        await self.schedule(url, "bill", "one-off=1&interval=1&endpoint=billing")
        daemon.send(signal.SIGTERM)
        await daemon.ended
        daemon, url = await self.start()
        await daemon.says("its endpoint 'billing' is not in the configuration of this instance")
        await self.schedule(url, "plain", "one-off=1&immediate=1")
        await self.until_gone(f"{url}/jobs/plain/x")
        shown = await self.get(f"{url}/jobs/bill/x")
        self.assertEqual(
            (shown["endpoint"], shown["problem"]),
            ("billing", "its endpoint 'billing' is not in the configuration of this instance"),
        )
        self.assertNotIn("failing", shown)
        daemon.send(signal.SIGTERM)
        await daemon.ended
        self.assertEqual(self.billing.hits, [])
        daemon, url = await self.start(**self.sections)
        await self.billing.until(lambda: len(self.billing.hits) == 1)
        await self.until_gone(f"{url}/jobs/bill/x")
        self.assertEqual(self.billing.hits[0].headers["dalga-attempt"], "1")
        self.assertEqual([hit.path for hit in self.endpoint.hits], ["plain"])


@each_engine(globals(), only=("mariadb", "mysql"))
class EndpointElsewhereTests(TwoEndpointsTestCase):
    """Two instances, of which one has an endpoint that the other has not."""

    async def test_the_one_that_has_it(self) -> None:
        """P2, P3: it gets the runs, whichever instance is quicker, and each of them once."""
        _, without = await self.start()
        for number in range(5):
            await self.schedule(without, f"plain{number}", "interval=1")
        _, url = await self.start(**self.sections)
        for number in range(5):
            await self.schedule(url, f"bill{number}", "interval=1&immediate=1&endpoint=billing")
        runs: Counter[str] = Counter()

        def each_has_run() -> bool:
            runs.clear()
            runs.update(hit.path for hit in self.billing.hits)
            return len(runs) == 5 and min(runs.values()) >= 4

        await self.billing.until(each_has_run)
        self.assertEqual(len({hit.run for hit in self.billing.hits}), len(self.billing.hits))
        self.assertEqual(len({hit.instance for hit in self.billing.hits}), 1)
        self.assertNotIn("in/bill0", {hit.path for hit in self.endpoint.hits})


@each_engine(globals())
class ScheduleTests(DaemonTestCase):
    """What else a job may ask for, over the whole way."""

    async def test_headers(self) -> None:
        """The POST says for when it was scheduled, as was shown, and which instance sent it."""
        _, url = await self.start()
        shown = await self.put(f"{url}/jobs/a/b?interval=1")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 2)
        first, second = self.endpoint.hits
        self.assertEqual(first.headers["dalga-sched"], shown["next_run"])
        self.assertEqual(second.scheduled - first.scheduled, timedelta(seconds=1))
        status = await self.get(f"{url}/status")
        self.assertEqual({first.instance, second.instance}, {status["instance_id"]})

    async def test_varied_from_the_first(self) -> None:
        """With randomizationFactor jobs that were put together do not begin together, as shown."""
        _, url = await self.start(jobs={"randomizationFactor": 0.5})
        began = ahead(0).replace(microsecond=0)
        nexts = set()
        for body in range(6):
            shown = await self.put(f"{url}/jobs/varied/{body}?interval=7200")
            self.assertEqual(await self.get(f"{url}/jobs/varied/{body}"), shown)
            nexts.add(shown["next_run"])
        self.assertGreater(len(nexts), 1)
        for text in nexts:
            waits = (datetime.fromisoformat(text) - began).total_seconds()
            self.assertTrue(3600 <= waits <= 10_860, text)

    async def test_one_run_more(self) -> None:
        """A POST runs a monthly job of the 31st once more, and its times stay those of the 31st."""
        _, url = await self.start()
        job = f"{url}/jobs/report/7"
        for first_run in ("2026-01-31T09:00:00Z", "2031-01-31T09:00:00Z"):
            await self.put(f"{job}?interval=P1M&first-run={first_run}&catch-up=skip")
            before = await self.get(f"{job}/upcoming?limit=3")
            hits = len(self.endpoint.hits)
            await self.call("POST", job)
            await self.endpoint.until(partial(lambda hits: len(self.endpoint.hits) > hits, hits))
            await self.until_shown(job, next_run=before["runs"][0]["at"])
            self.assertEqual(await self.get(f"{job}/upcoming?limit=3"), before)

    async def test_jitter(self) -> None:
        """Jobs of each full second begin at times of their own, as `upcoming` tells."""
        _, url = await self.start()
        offsets: dict[str, int] = {}
        for body in "12345678":
            put = await self.put(f"{url}/jobs/report/{body}?cron=*+*+*+*+*+*&jitter=900ms")
            self.assertEqual(put["jitter"], 0.9)
            [run] = (await self.get(f"{url}/jobs/report/{body}/upcoming?limit=1"))["runs"]
            offsets[body] = datetime.fromisoformat(run["at"]).microsecond
        self.assertEqual(len(set(offsets.values())), 8)
        self.assertLess(max(offsets.values()), 900_000)
        began = datetime.now(UTC)
        epoch = began.timestamp() - self.reactor.seconds()
        await self.endpoint.until(lambda: len(self.endpoint.hits) >= 24)
        for hit in self.endpoint.hits:
            # The header has whole seconds. Nothing is POSTed before its time.
            scheduled = hit.scheduled + timedelta(microseconds=offsets[hit.body])
            late = epoch + hit.start - scheduled.timestamp()
            self.assertGreater(late, -0.02, hit)

    async def test_put_at_each_start(self) -> None:
        """
        P2: an application that PUTs its jobs with if-exists=update at each start loses no run, be
        it waiting, tried again or under way, and leaves a disabled job disabled.
        """
        _, url = await self.start(jobs={"retryInterval": "3s", "retryJitter": 0})
        jobs = {
            "waits": "interval=1h",
            "fails": "interval=1h&immediate=true",
            "hangs": "interval=1h&immediate=true",
            "rests": "cron=0+9+*+*+*&location=Europe/Riga",
        }
        release: Deferred[int] = Deferred()
        tried: list[str] = []

        def answer(hit: Hit) -> int | Deferred[int]:
            tried.append(hit.body)
            return release if hit.body == "hangs" else 500 if tried.count("fails") == 1 else 200

        self.endpoint.answer = answer
        for body, query in jobs.items():
            await self.put(f"{url}/jobs/app/{body}?{query}&if-exists=update")
        await self.patch_job(f"{url}/jobs/app/rests", "disable=true")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 2)
        await self.until_shown(
            f"{url}/jobs/app/fails", failing={"attempts": 1, "error": "500 Internal Server Error"}
        )
        before = {body: await self.get(f"{url}/jobs/app/{body}") for body in jobs}
        for rule in ("update", "keep", "update"):
            for body, query in jobs.items():
                put = await self.put(f"{url}/jobs/app/{body}?{query}&if-exists={rule}")
                self.assertEqual(put, before[body], body)
        for body, query in jobs.items():
            put = await self.put(f"{url}/jobs/app/{body}?{query}&if-exists=update&count=2")
            self.assertEqual(put, {**before[body], "count": 2, "successes": 0}, body)
        release.callback(200)
        for body in ("fails", "hangs"):
            await self.until_shown(f"{url}/jobs/app/{body}", successes=1)
        runs = {hit.run for hit in self.endpoint.hits if hit.body == "fails"}
        self.assertEqual((len(runs), sorted(tried)), (1, ["fails", "fails", "hangs"]))
        again = await self.put(f"{url}/jobs/app/waits?interval=2h&if-exists=update")
        self.assertGreater(again["next_run"], before["waits"]["next_run"])

    async def test_count_and_until(self) -> None:
        """A job is removed after so many runs, or after its last time."""
        _, url = await self.start()
        until = ahead(1.5).isoformat().replace("+00:00", "Z")
        for body, last in (("count", "count=2"), ("until", f"until={until}")):
            await self.put(f"{url}/jobs/ends/{body}?interval=1&immediate=true&{last}")
        for body in ("count", "until"):
            await self.until_gone(f"{url}/jobs/ends/{body}")
        await self.pause(1.2)
        self.assertEqual(
            sorted(hit.body for hit in self.endpoint.hits), ["count", "count", "until", "until"]
        )

    async def test_skip(self) -> None:
        """A run that is too late is skipped and counted; the next is at its regular time."""
        _, url = await self.start()
        first = ahead(-90).replace(microsecond=0)
        text = first.isoformat().replace("+00:00", "Z")
        for body, lateness in (("late", "catch-up=skip"), ("run", "max-lateness=2m")):
            await self.put(f"{url}/jobs/skip/{body}?interval=3600&first-run={text}&{lateness}")
        following = f"{first + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
        await self.until_shown(f"{url}/jobs/skip/late", next_run=following, skipped=1)
        await self.until_shown(f"{url}/jobs/skip/run", next_run=following, skipped=None)
        self.assertEqual([hit.body for hit in self.endpoint.hits], ["run"])

    async def test_disabled_during_a_run(self) -> None:
        """P3, P4: the run goes on to its end, and no other begins until the job is enabled."""
        _, url = await self.start()
        release: Deferred[int] = Deferred()
        self.endpoint.answer = lambda hit: release if len(self.endpoint.hits) == 1 else 200
        job = f"{url}/jobs/a/b"
        await self.put(f"{job}?interval=1&immediate=1")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        shown = await self.patch_job(job, "disable=true")
        self.assertEqual((shown["disabled"], shown["next_run"]), (True, None))
        release.callback(500)
        shown = await self.until_shown(job, failing={"attempts": 1, "error": ERROR})
        self.assertEqual((shown["disabled"], shown["next_run"]), (True, None))
        await self.pause(1.2)
        self.assertEqual(len(self.endpoint.hits), 1)
        status, answer = await self.call("POST", job)
        self.assertEqual(status, 409, answer)
        shown = await self.patch_job(job, "enable=true")
        self.assertNotIn("disabled", shown)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 2)
        first, second = self.endpoint.hits
        self.assertEqual((second.run, second.attempt), (first.run, 2))

    async def test_enabled_when_overdue(self) -> None:
        """P9: a job that is enabled follows its catch-up rule, and never loops."""
        _, url = await self.start()
        rules = {"one": "catch-up=one", "skip": "max-lateness=0.5", "all": "catch-up=all"}
        for body, rule in rules.items():
            await self.put(f"{url}/jobs/a/{body}?interval=1&{rule}")
            await self.patch_job(f"{url}/jobs/a/{body}", "disable=1")
        await self.pause(4.25)
        self.assertEqual(self.endpoint.hits, [])
        for body in rules:
            await self.patch_job(f"{url}/jobs/a/{body}", "enable=1")

        def of(body: str) -> list[Hit]:
            return [hit for hit in self.endpoint.hits if hit.body == body]

        runs = {body: partial(of, body) for body in rules}
        await self.endpoint.until(lambda: all(len(hits()) >= 3 for hits in runs.values()))
        steps = {
            body: [(b.scheduled - a.scheduled).seconds for a, b in pairwise(hits()[:3])]
            for body, hits in runs.items()
        }
        self.assertEqual(steps["all"], [1, 1])
        self.assertGreaterEqual(steps["one"][0], 3)
        self.assertEqual(steps["one"][1], 1)
        self.assertEqual(steps["skip"], [1, 1])
        self.assertLess(runs["all"]()[2].start - runs["all"]()[0].start, 0.9)
        shown = await self.get(f"{url}/jobs/a/skip")
        self.assertEqual(shown["skipped"], 1)
        for body, most in (("one", 6), ("skip", 5), ("all", 10)):
            self.assertLessEqual(len(runs[body]()), most)

    async def test_catching_up(self) -> None:
        """P3, P6: each missed time is made up for, at once and one at a time; others run too."""
        _, url = await self.start(jobs={"maxRunning": 1})
        first = ahead(-300).replace(microsecond=0)
        text = first.isoformat().replace("+00:00", "Z")
        began = self.reactor.seconds()
        await self.put(f"{url}/jobs/catch/up?interval=3&catch-up=all&first-run={text}")
        await self.put(f"{url}/jobs/be/fore?one-off=1&immediate=1")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 101)
        self.assertLess(self.reactor.seconds() - began, 20)
        hits = [hit for hit in self.endpoint.hits if hit.body == "up"]
        self.assertEqual(
            [hit.scheduled for hit in hits[:100]],
            [first + timedelta(seconds=3 * number) for number in range(100)],
        )
        self.assertEqual(self.endpoint.overlaps(), [])
        self.assertLess([hit.body for hit in self.endpoint.hits].index("fore"), 100)

    async def test_intervals_from_the_end(self) -> None:
        """``fixedIntervals = false``: the next interval is counted from the end of the run."""
        for fixed, expected in (("true", 1.0), ("false", 1.5)):
            self.endpoint.hits.clear()
            self.endpoint.answer = lambda hit: self.after(0.5, 200)
            daemon, url = await self.start(jobs={"fixedIntervals": fixed})
            await self.put(f"{url}/jobs/slow/x?interval=1")
            await self.endpoint.until(lambda: len(self.endpoint.hits) == 2)
            first, second = (hit.start for hit in self.endpoint.hits)
            self.assertLess(abs(second - first - expected), 0.25)
            await self.call("DELETE", f"{url}/jobs/slow/x")
            daemon.send(signal.SIGTERM)
            self.assertEqual(await daemon.ended, 0)

    def after(self, seconds: float, answer: int) -> Deferred[int]:
        """Answer later."""
        answered: Deferred[int] = Deferred()
        self.reactor.callLater(seconds, answered.callback, answer)
        return answered

    async def test_run_times_to_come(self) -> None:
        """A job's next run times, and those of one that is not there, with clock changes shown."""
        _, url = await self.start()
        daily = "interval=P1D&location=Europe/Riga&first-run=2031-03-29T01:30:00Z"
        runs = [
            {"at": "2031-03-29T01:30:00Z", "local": "2031-03-29T03:30:00+02:00"},
            {"at": "2031-03-30T01:00:00Z", "local": "2031-03-30T04:00:00+03:00", "dst": "gap"},
            {"at": "2031-03-31T00:30:00Z", "local": "2031-03-31T03:30:00+03:00"},
        ]
        self.assertEqual(await self.get(f"{url}/preview?{daily}&limit=3"), {"runs": runs})
        past = "cron=30+3+*+*+*&location=Europe/Istanbul&limit=1&after=2015-03-28T12:00:00Z"
        self.assertEqual(
            await self.get(f"{url}/preview?{past}"),
            {
                "runs": [
                    {
                        "at": "2015-03-29T01:00:00Z",
                        "local": "2015-03-29T04:00:00+03:00",
                        "dst": "gap",
                    }
                ]
            },
        )
        await self.put(f"{url}/jobs/a/b?{daily}")
        after = "after=2031-03-29T12:00:00Z"
        self.assertEqual(
            await self.get(f"{url}/jobs/a/b/upcoming?limit=2&{after}"), {"runs": runs[1:]}
        )


@each_engine(globals(), only=("sqlite",))
class SecretTests(DaemonTestCase):
    """What the endpoint wants to see and nobody else may."""

    async def test_the_endpoints_password(self) -> None:
        """P12: it gets the password and the key; no log line and no answer has either."""
        self.endpoint.answer = lambda hit: 500 if hit.attempt < 3 else 200
        ini = self.ini(
            endpoint={"baseurl": self.baseurl.replace("//", "//me:s3cr%40t@", 1)},
            **{"endpoint.headers": {"X-Key": "k3y"}},
        )
        daemon = self.spawn("--debug", "--config", ini)
        url = await daemon.url()
        answers = [str(await self.put(f"{url}/jobs/a/b?interval=3600&immediate=1"))]
        await self.until_shown(f"{url}/jobs/a/b", failing={"attempts": 1, "error": ERROR})
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 3)
        for hit in self.endpoint.hits:
            self.assertEqual(hit.headers["authorization"], "Basic bWU6czNjckB0")
            self.assertEqual(hit.headers["x-key"], "k3y")
        await self.until_shown(f"{url}/jobs/a/b", failing=None)
        for target in ("/jobs/a/b", "/jobs", "/status", "/nowhere"):
            answers.append((await self.call("GET", f"{url}{target}"))[1])
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertIn("#debug]", daemon.output)
        for text in (daemon.output, *answers):
            self.assertNotRegex(text, "s3cr|k3y|bWU6czNjckB0")


@each_engine(globals())
class RetryTests(DaemonTestCase):
    """Runs that fail, and are tried again or given up."""

    async def test_attempts_survive_a_restart(self) -> None:
        """P2: after a SIGKILL the same run goes on, one attempt further, with the same backoff."""
        self.endpoint.answer = lambda hit: 500
        often = {"retryInterval": "200ms", "retryMultiplier": "2", "retryJitter": "0"}
        settings = {"jobs": often, "endpoint": {"timeout": "1500ms"}}
        first, url = await self.start(**settings)
        await self.put(f"{url}/jobs/a/b?interval=3600&immediate=1")
        await self.until_shown(f"{url}/jobs/a/b", failing={"attempts": 3, "error": ERROR})
        first.send(signal.SIGKILL)
        await first.ended
        _, url = await self.start(**settings)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 5)
        hits = self.endpoint.hits
        self.assertEqual([hit.attempt for hit in hits], [1, 2, 3, 4, 5])
        self.assertEqual(len({(hit.run, hit.scheduled) for hit in hits}), 1)
        self.assertEqual(len({hit.instance for hit in hits}), 2)
        self.assertTrue(1.6 <= hits[4].start - hits[3].start < 2.1)

    async def test_given_up(self) -> None:
        """
        A run that failed for long enough is given up and shown as failed, never as disabled; a POST
        tries the same run again.
        """
        self.endpoint.answer = lambda hit: 500
        quick = {"retryInterval": "50ms", "retryMultiplier": "1", "retryStopAfter": "300ms"}
        _, url = await self.start(jobs=quick)
        for body in ("stop", "continue"):
            await self.put(f"{url}/jobs/a/{body}?interval=3600&immediate=1&on-failure={body}")
        stopped = await self.until_shown(f"{url}/jobs/a/stop", next_run=None)
        runs = self.runs("stop")
        attempts = [hit.attempt for hit in runs]
        self.assertEqual(attempts, list(range(1, len(runs) + 1)))
        self.assertEqual(stopped["failed"], {"attempts": len(runs), "error": ERROR})
        self.assertEqual(stopped["next_sched"], runs[0].headers["dalga-sched"])
        self.assertNotIn("disabled", stopped)
        goes_on = await self.until_shown(f"{url}/jobs/a/continue", failed={"error": ERROR})
        after = self.runs("continue")[0].scheduled + timedelta(hours=1)
        self.assertEqual(goes_on["next_run"], f"{after:%Y-%m-%dT%H:%M:%SZ}")
        self.assertNotIn("disabled", goes_on)

        self.endpoint.answer = lambda hit: 200
        before = len(self.endpoint.hits)
        for body in ("stop", "continue"):
            status, _ = await self.call("POST", f"{url}/jobs/a/{body}")
            self.assertEqual(status, 200)
        await self.until_shown(f"{url}/jobs/a/stop", failed=None, failing=None)
        await self.until_shown(f"{url}/jobs/a/continue", failed=None, failing=None)
        self.assertEqual(len(self.endpoint.hits), before + 2)
        again, anew = self.runs("stop")[-1], self.runs("continue")[-1]
        self.assertEqual((again.run, again.scheduled), (runs[0].run, runs[0].scheduled))
        self.assertEqual(again.attempt, len(runs) + 1)
        self.assertNotEqual(anew.run, self.runs("continue")[0].run)
        self.assertEqual(anew.attempt, 1)

    async def test_other_statuses(self) -> None:
        """The sets of the endpoint and those of a job say what an answer means."""
        self.endpoint.answer = lambda hit: int(hit.body)
        endpoint = {"success": "200-299", "giveUp": "400-499"}
        _, url = await self.start(endpoint=endpoint, jobs={"retryInterval": "9s"})
        for body, own in (
            ("201", "count=1"),
            ("204", ""),
            ("404", ""),
            ("410", "gone=410"),
            ("202", "success=200"),
            ("500", "give-up=500"),
        ):
            query = f"interval=3600&immediate=1&{own}"
            await self.put(f"{url}/jobs/a/{body}?{query}")
        no_success = "202 Accepted, which is no success here: see success"
        await self.until_shown(f"{url}/jobs/a/202", failing={"attempts": 1, "error": no_success})
        await self.until_shown(f"{url}/jobs/a/404", failed={"error": "404 Not Found"})
        await self.until_shown(f"{url}/jobs/a/500", failed={"error": ERROR})
        for body in ("201", "204", "410"):
            await self.until_gone(f"{url}/jobs/a/{body}")
        self.assertEqual(len(self.endpoint.hits), 6)

    async def test_answers_that_steer(self) -> None:
        """Headers say what becomes of a run and of its job, and when the job runs next."""
        later = (datetime.now(UTC) + timedelta(minutes=5)).replace(microsecond=0)
        at = f"{later:%Y-%m-%dT%H:%M:%SZ}"
        answers: dict[str, tuple[int, dict[str, str]]] = {
            "succeed": (500, {"Dalga-Verdict": "succeed"}),
            "retry": (200, {"Dalga-Verdict": "Retry", "Retry-After": "9"}),
            "fail": (200, {"Dalga-Verdict": "fail"}),
            "remove": (200, {"dalga-verdict": "remove"}),
            "disable": (200, {"Dalga-Verdict": "disable"}),
            "later": (200, {"Dalga-Next-Run": at}),
            "soon": (200, {"Dalga-Next-Run": "0.5"}),
            "odd": (200, {"Dalga-Verdict": "done", "Dalga-Next-Run": "soon"}),
        }
        self.endpoint.answer = lambda hit: (
            answers[hit.body] if len(self.runs(hit.body)) == 1 else 200
        )
        daemon, url = await self.start()
        for body in answers:
            count = "&count=1" if body == "succeed" else ""
            await self.put(f"{url}/jobs/a/{body}?interval=3600&immediate=1{count}")
        for body in ("succeed", "remove"):
            await self.until_gone(f"{url}/jobs/a/{body}")
        retried = "200 OK, with Dalga-Verdict: retry"
        await self.until_shown(f"{url}/jobs/a/retry", failing={"attempts": 1, "error": retried})
        given_up = {"error": "200 OK, with Dalga-Verdict: fail"}
        await self.until_shown(f"{url}/jobs/a/fail", failed=given_up)
        await self.until_shown(f"{url}/jobs/a/later", next_run=at)
        await daemon.says(r"'a' 'disable': 200 OK, with Dalga-Verdict: disable, .*; job disabled")
        await daemon.says(r"the answer's Dalga-Verdict is 'done', and ignored: it takes succeed,")
        await daemon.says(r"the answer's Dalga-Next-Run is 'soon', and ignored: it takes seconds")
        # Enabled again, it runs at the time that its next run would have had.
        disabled = await self.until_shown(f"{url}/jobs/a/disable", disabled=True, failed=None)
        self.assertIsNone(disabled["next_run"])
        why = await self.get(f"{url}/jobs/a/disable/why")
        self.assertEqual(
            why["why"], "disabled by its endpoint: 200 OK, with Dalga-Verdict: disable"
        )
        after = self.runs("disable")[0].scheduled + timedelta(hours=1)
        enabled = await self.patch_job(f"{url}/jobs/a/disable", "enable=true")
        self.assertEqual(enabled["next_run"], f"{after:%Y-%m-%dT%H:%M:%SZ}")
        # The run after one that was put elsewhere is at the job's own next time.
        await self.endpoint.until(lambda: len(self.runs("soon")) == 2)
        first, second = self.runs("soon")
        self.assertTrue(0.4 <= second.start - first.start < 1.5)
        own = first.scheduled + timedelta(hours=1)
        await self.until_shown(f"{url}/jobs/a/soon", next_run=f"{own:%Y-%m-%dT%H:%M:%SZ}")
        self.assertEqual(len(self.endpoint.hits), len(answers) + 1)

    def runs(self, body: str) -> list[Hit]:
        """The POSTs with a body."""
        return [hit for hit in self.endpoint.hits if hit.body == body]

    async def test_retry_after(self) -> None:
        """A Retry-After in seconds or as a date is honoured up to the longest backoff."""

        def answer(hit: Hit) -> tuple[int, str] | int:
            asked = {"seconds": "2", "date": date, "year": "31536000"}
            return 200 if hit.attempt > 1 else (503, asked[hit.body])

        self.endpoint.answer = answer
        settings = {"retryInterval": "100ms", "retryMaxInterval": "4s", "retryJitter": "0"}
        _, url = await self.start(jobs=settings)
        until = (ahead(2) + timedelta(microseconds=999_999)).replace(microsecond=0)
        date = format_datetime(until, usegmt=True)
        for body in ("seconds", "date", "year"):
            await self.put(f"{url}/jobs/a/{body}?one-off=1&immediate=1")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 6)
        waits = {
            body: self.runs(body)[1].start - self.runs(body)[0].start
            for body in ("seconds", "date", "year")
        }
        self.assertTrue(2 <= waits["seconds"] < 2.5, waits)
        self.assertTrue(4 <= waits["year"] < 4.5, waits)
        late = self.runs("date")[1].start - until.timestamp()
        self.assertTrue(-0.01 <= late < 0.5, late)


#: Python runs this in each new process: a resolver that never answers, and lets nobody wake it.
SILENT_RESOLVER = """
import socket, threading

def getaddrinfo(host, *arguments, **keywords):
    if host == "app.example":
        threading.Event().wait()
    return known(host, *arguments, **keywords)

known, socket.getaddrinfo = socket.getaddrinfo, getaddrinfo
"""


@each_engine(globals(), only=("sqlite",))
class ResolverTests(DaemonTestCase):
    """A resolver that never answers, and more due jobs than the reactor has threads."""

    def setUp(self) -> None:
        super().setUp()
        with open(os.path.join(self.folder, "sitecustomize.py"), "w") as file:
            file.write(SILENT_RESOLVER)
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": os.path.abspath(self.folder)})

    async def put_all(self, url: str) -> None:
        for body in range(30):
            await self.put(f"{url}/jobs/a/{body}?one-off=true&immediate=true")

    async def stop(self, daemon: Daemon) -> None:
        """It takes less than 5 s, on a machine that has other things to do."""
        before = self.reactor.seconds()
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertLess(self.reactor.seconds() - before, 5)

    async def test_silent(self) -> None:
        """P7: it is in the way of the POSTs alone; the API answers, and a stop ends."""
        endpoint = {"baseurl": "http://app.example/", "timeout": "1s"}
        daemon, url = await self.start(endpoint=endpoint)
        await self.put_all(url)
        await daemon.says("could not resolve host name app.example within 1 s, nothing was sent")
        for path in ("preview?interval=60&count=5", "jobs/a/1/upcoming"):
            status, answer = await self.call("GET", f"{url}/{path}")
            self.assertEqual(status, 200, answer)
        await self.stop(daemon)
        self.assertEqual(self.endpoint.hits, [])

    async def test_stop(self) -> None:
        """A stop does not wait for what was never sent, and leaves none of it to a long lease."""
        endpoint = {"baseurl": "http://app.example/", "timeout": "10m"}
        daemon, url = await self.start(endpoint=endpoint, jobs={"shutdownTimeout": "60s"})
        await self.put_all(url)
        await self.until_shown(f"{url}/status", instance_running_jobs=30)
        await self.stop(daemon)
        self.assertIn("no answer before the stop, nothing was sent", daemon.output)
        await self.start()
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 30)


@each_engine(globals())
class ShareTests(DaemonTestCase):
    """A path of the endpoint that never answers."""

    async def test_a_dead_path(self) -> None:
        """P6, P7: it holds its share of the slots only; jobs of other paths begin meanwhile."""
        self.endpoint.answer = lambda hit: Deferred() if hit.path == "dead" else 200
        daemon, url = await self.start(endpoint={"timeout": "2s"})
        due = "2020-01-01 00:00:00.000000"
        rows = [(self.key("dead"), self.key(str(n)), "", due, due, due) for n in range(300)]
        self.sql(
            "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due) VALUES "
            + ", ".join(["(%s, %s, %s, %s, %s, %s)"] * len(rows)),
            [value for row in rows for value in row],
        )

        def dead() -> list[Hit]:
            return [hit for hit in self.endpoint.hits if hit.path == "dead"]

        await self.endpoint.until(lambda: len(dead()) >= 80)
        waits: list[float] = []
        # Until they have timed out, and more of them, which are the longest due, have begun.
        while len(dead()) <= 200:
            before, path = self.reactor.seconds(), f"alive{len(waits)}"
            await self.put(f"{url}/jobs/{path}/x?one-off=1&immediate=1")
            await self.endpoint.until(
                partial(lambda path: self.endpoint.hits[-1].path == path, path)
            )
            waits.append(self.reactor.seconds() - before)
            if len(waits) == 5:
                self.assertEqual(len(dead()), 80)
            await self.pause(0.05)
        self.assertLess(max(waits), 1)
        self.assertGreater(len(waits), 20)
        self.assertNotIn("Traceback", daemon.output)


class FaultTestsBase(DaemonTestCase):
    """What dies, and what becomes of the jobs."""

    async def put_now(self, url: str, count: int) -> None:
        """Schedule so many one-off jobs, for now."""
        requests = [
            self.call("PUT", f"{url}/jobs/job/{number}?one-off=1&immediate=1")
            for number in range(count)
        ]
        answers = await gatherResults([Deferred.fromCoroutine(request) for request in requests])
        self.assertEqual({status for status, _ in answers}, {201})

    async def until_empty(self, url: str) -> None:
        """Wait until the table holds no job any more."""
        while '"total_jobs":0' not in (await self.call("GET", f"{url}/status"))[1]:
            await self.pause(0.1)


@each_engine(globals(), only=("mariadb", "mysql"))
class TakeOverTests(FaultTestsBase):
    """What another instance takes over."""

    async def test_sigstop_past_the_lease(self) -> None:
        """
        P3: an instance that slept past its lease does not start what it had claimed, nor record it.
        """
        answers: list[Deferred[int]] = []

        def never(hit: Hit) -> Deferred[int]:
            answers.append(Deferred())
            return answers[-1]

        self.endpoint.answer = never
        first, url = await self.start(endpoint={"timeout": "1500ms"})
        await self.put_now(url, 5)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 5)
        first.send(signal.SIGSTOP)
        self.endpoint.answer = lambda hit: 200
        _, url = await self.start(endpoint={"timeout": "1500ms"})
        await self.until_empty(url)
        first.send(signal.SIGCONT)
        await self.pause(1)
        self.assertEqual(len(self.endpoint.hits), 10)
        self.assertEqual(len({hit.run for hit in self.endpoint.hits}), 5)
        await self.until_empty(url)


@each_engine(globals())
class FaultTests(FaultTestsBase):
    """What becomes of one daemon's jobs."""

    async def test_sigkill_in_the_middle(self) -> None:
        """
        P2, P3, P5: after a SIGKILL amid POSTs the next daemon runs every job, none twice at a time.
        """
        self.endpoint.answer = lambda hit: Deferred()  # never
        first, url = await self.start(endpoint={"timeout": "1500ms"}, jobs={"maxRunning": 10})
        await self.put_now(url, 30)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 10)
        first.send(signal.SIGKILL)
        await first.ended
        before = list(self.endpoint.hits)
        self.endpoint.answer = lambda hit: 200
        _, url = await self.start(endpoint={"timeout": "1500ms"})
        await self.until_empty(url)
        after = self.endpoint.hits[len(before) :]
        self.assertEqual({hit.body for hit in after}, {str(number) for number in range(30)})
        self.assertEqual(len(after), 30)
        # The runs that were cut off are the same runs again, and one attempt further.
        attempts = {hit.run: hit.attempt for hit in before}
        self.assertEqual(
            {hit.run: hit.attempt for hit in after if hit.run in attempts},
            {run: attempt + 1 for run, attempt in attempts.items()},
        )
        self.assertEqual(self.endpoint.overlaps(), [])

    async def test_sigterm(self) -> None:
        """
        A SIGTERM lets running POSTs end, records them, and exits 0; meanwhile nobody is let in.
        """
        release: Deferred[int] = Deferred()
        self.endpoint.answer = lambda hit: release if len(self.endpoint.hits) == 1 else 200
        daemon, url = await self.start(jobs={"maxRunning": 1})
        await self.put_now(url, 2)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        daemon.send(signal.SIGTERM)
        await daemon.says("stopping: waiting up to 10 s for 1 run\n")
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=5)
        release.callback(200)
        self.assertEqual(await daemon.ended, 0)
        self.assertIn("200 OK", daemon.output)
        self.assertNotIn("Traceback", daemon.output)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(1,)])
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga WHERE token IS NULL"), [(1,)])

    async def test_other_signals(self) -> None:
        """So does Ctrl-C. (For SIGHUP see `tests.test_daemon_reload`.)"""
        daemon, _ = await self.start()
        daemon.send(signal.SIGINT)
        self.assertEqual(await daemon.ended, 0)
        self.assertIn("stopped", daemon.output)

    async def test_sigterm_with_an_endpoint_that_hangs(self) -> None:
        """
        What still runs when the time is over is left to its lease; the exit status is 0 all the
        same.
        """
        self.endpoint.answer = lambda hit: Deferred()
        daemon, url = await self.start(jobs={"shutdownTimeout": "300ms"})
        await self.put_now(url, 3)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 3)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertIn("left to their leases: 3 runs\n", daemon.output)
        self.assertNotIn("Traceback", daemon.output)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga WHERE token IS NOT NULL"), [(3,)])

    async def test_a_second_sigterm(self) -> None:
        """Who asks twice does not wait."""
        self.endpoint.answer = lambda hit: Deferred()
        # On a busy machine it may take longer than half a second until the first one is noticed.
        at_once = 2.0
        for number in (signal.SIGINT, signal.SIGTERM):
            self.endpoint.hits.clear()
            daemon, url = await self.start(f"import dalga.signals as s; s.AT_ONCE = {at_once}")
            await self.put_now(url, 1)
            await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
            daemon.send(number)
            await daemon.says("stopping: waiting")
            daemon.send(number)  # at once: the same request
            await self.pause(at_once + 0.2)
            self.assertIsNone(daemon.status)
            daemon.send(number)
            self.assertEqual(await daemon.ended, 128 + number)

    async def test_twistd(self) -> None:
        """``twistd -n dalga`` is the same daemon, and SIGTERM ends it with status 0 as well."""
        ini = self.ini()
        if self.engine != "sqlite":
            self.make_store().create_table()
        daemon = self.spawn("-n", "--pidfile=", "dalga", "--config", ini, twistd=True)
        url = await daemon.url()
        await self.put_now(url, 3)
        await self.until_empty(url)
        self.assertEqual(len(self.endpoint.hits), 3)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertNotIn("Traceback", daemon.output)


@each_engine(globals())
class RequestsAtAStopTests(DaemonTestCase):
    """A stop, and the clients of that moment."""

    PUT = b"PUT /jobs/at/%d?interval=60 HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def connect_to(self, url: str, octets: bytes = b"") -> socket.socket:
        """A connection, and what is sent on it. Reading from it takes 20 s at most."""
        client = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=20)
        self.addCleanup(client.close)
        client.sendall(octets)
        return client

    async def rest(self, client: socket.socket) -> bytes:
        """All that comes until the daemon closes the connection."""

        def read() -> bytes:
            with client.makefile("rb") as file:
                return file.read()

        return await deferToThread(read)

    async def kept(self, url: str) -> socket.socket:
        """A connection that has had an answer, and is kept."""
        client = self.connect_to(url, b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await deferToThread(client.recv, 10_000)
        self.assertTrue(answer.startswith(b"HTTP/1.1 404 "), answer)
        return client

    def check_last(self, answer: bytes) -> None:
        """It is one answer, after which the client has to connect anew."""
        self.assertTrue(answer.startswith(b"HTTP/1.1 201 Created\r\n"), answer)
        self.assertIn(b"\r\nConnection: close\r\n", answer)
        self.assertEqual(answer.count(b"HTTP/1.1 "), 1)

    async def test_no_run_under_way(self) -> None:
        """P1: a PUT that waits for a lock is answered before the store is closed."""
        daemon, url = await self.start()
        idle = await self.kept(url)
        with closing(self.connect()) as locking:
            locking.cursor().execute(
                "BEGIN IMMEDIATE" if self.engine == "sqlite" else "LOCK TABLES dalga WRITE"
            )
            client = self.connect_to(url, self.PUT % 1 + self.PUT % 2)
            daemon.send(signal.SIGTERM)
            self.assertEqual(await self.rest(idle), b"")  # at once: the lock is still there
            self.assertIsNone(daemon.status)
        self.check_last(await self.rest(client))
        self.assertEqual(await daemon.ended, 0)
        self.assertLess(daemon.output.index("'1': scheduled"), daemon.output.index("stopped"))
        self.assertNotIn("Traceback", daemon.output)
        self.assertEqual(self.sql("SELECT body FROM dalga"), [(self.key("1"),)])

    async def test_a_run_under_way(self) -> None:
        """During the wait for a run, a request comes to its end, and none begins."""
        release: Deferred[int] = Deferred()
        self.endpoint.answer = lambda hit: release
        daemon, url = await self.start()
        await self.put(f"{url}/jobs/slow/job?one-off=true&immediate=true")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        idle = await self.kept(url)
        half = self.connect_to(url, (self.PUT % 1)[:30])
        daemon.send(signal.SIGTERM)
        self.assertEqual(await self.rest(idle), b"")
        half.sendall((self.PUT % 1)[30:] + self.PUT % 2)
        self.check_last(await self.rest(half))
        self.assertIsNone(daemon.status)
        release.callback(200)
        self.assertEqual(await daemon.ended, 0)
        self.assertNotIn("cut off", daemon.output)
        self.assertEqual(self.sql("SELECT body FROM dalga"), [(self.key("1"),)])

    async def test_not_accepted_yet(self) -> None:
        """Connections that wait in the kernel at a stop are clients, too."""
        daemon, url = await self.start()
        await self.kept(url)
        daemon.send(signal.SIGSTOP)
        clients = [self.connect_to(url, self.PUT % number) for number in range(40)]
        daemon.send(signal.SIGTERM)
        daemon.send(signal.SIGCONT)
        for client in clients:
            self.check_last(await self.rest(client))
        self.assertEqual(await daemon.ended, 0)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(40,)])

    async def test_half_a_request(self) -> None:
        """`shutdownTimeout` bounds both waits, for runs and for requests, at the same time."""
        self.endpoint.answer = lambda hit: Deferred()
        daemon, url = await self.start(jobs={"shutdownTimeout": "2s"})
        await self.put(f"{url}/jobs/slow/job?one-off=true&immediate=true")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        self.connect_to(url, (self.PUT % 1)[:30])
        before = self.reactor.seconds()
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertLess(self.reactor.seconds() - before, 3.8)
        self.assertIn("left to their leases: 1 run\n", daemon.output)
        self.assertIn("cut off after 2 s: 1 client\n", daemon.output)
        self.assertNotIn("Traceback", daemon.output)


@each_engine(globals(), only=("sqlite",))
class SlowClientAtAStopTests(DaemonTestCase):
    """A client that does not let a stop end."""

    async def test_bound(self) -> None:
        """It holds the stop up for 5 s, and not for all of `shutdownTimeout`."""
        daemon, url = await self.start(jobs={"shutdownTimeout": "1m"})
        address = "127.0.0.1", int(url.rsplit(":", 1)[1])
        with closing(socket.create_connection(address)) as client:
            client.sendall(b"GET /stat")
            daemon.send(signal.SIGTERM)
            self.assertEqual(await daemon.ended, 0)
        self.assertIn("cut off after 5 s: 1 client\n", daemon.output)


@each_engine(globals(), only=("sqlite",))
class StandardFileTests(DaemonTestCase):
    """A daemon without a standard input, output or error (``dalga >&-``)."""

    async def until_up(self, daemon: Daemon) -> str:
        """Wait until it answers, on the port that its file names; gives its URL."""
        while True:
            self.assertFalse(daemon.status, daemon.output)
            with contextlib.suppress(ConnectError):
                await self.get(f"{self.url}/status")
                return self.url
            await self.pause(0.05)

    def own_port(self) -> str:
        """Write a configuration with a port that is known, as no log tells it; gives its path."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self.ini(listen={"port": port})

    async def check(self, pid: int) -> None:
        """It runs jobs, rests between them, and no file of its own is a standard one."""
        await self.put(f"{self.url}/jobs/a/{pid}?one-off=1&immediate=1")
        await self.endpoint.until(
            lambda: self.endpoint.hits[-1:] != [] and self.endpoint.hits[-1].body == str(pid)
        )
        before = self.processor_time(pid)
        await self.pause(1)
        self.assertLess(self.processor_time(pid) - before, 0.5)
        for number in range(3):
            self.assertRegex(os.readlink(f"/proc/{pid}/fd/{number}"), "^(/dev/null$|pipe:)")
            # Programs that it starts get them, as from any process (proc_pid_fdinfo(5)).
            flags = re.search(
                r"flags:\s+([0-7]+)", Path(f"/proc/{pid}/fdinfo/{number}").read_text()
            )
            assert flags is not None
            self.assertFalse(int(flags[1], 8) & os.O_CLOEXEC, number)

    def processor_time(self, pid: int) -> float:
        """Its processor time so far, in seconds (proc_pid_stat(5))."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def test_closed(self) -> None:
        """It neither spins nor fails, whichever are closed, and under twistd as well."""
        under_twistd = ["-n", "--pidfile=", "dalga"]
        for closed, arguments in (((1,), []), ((0, 2), []), ((0, 1, 2), under_twistd)):
            ini = self.own_port()
            daemon = self.spawn(*arguments, "--config", ini, twistd=bool(arguments), closed=closed)
            await self.until_up(daemon)
            assert daemon.transport is not None
            pid = daemon.transport.pid
            assert pid is not None
            await self.check(pid)
            daemon.send(signal.SIGTERM)
            self.assertEqual(await daemon.ended, 0, daemon.output)
            self.assertNotIn("Traceback", daemon.output)

    async def test_detached(self) -> None:
        """twistd puts ``/dev/null`` in the place of all three: none may be a file of ours."""
        ini = self.own_port()
        files = ["--pidfile=t.pid", "--logfile=t.log"]
        starter = self.spawn(*files, "dalga", "--config", ini, twistd=True, closed=(0, 1, 2))
        self.assertEqual(await starter.ended, 0)
        pid = int(Path(self.folder, "t.pid").read_text())
        try:
            await self.until_up(starter)
            await self.check(pid)
        finally:
            os.kill(pid, signal.SIGTERM)
        while Path(self.folder, "t.pid").exists():
            await self.pause(0.05)
        self.assertNotIn("Traceback", Path(self.folder, "t.log").read_text())


@each_engine(globals())
class LargeTableTests(DaemonTestCase):
    """A table that has more rows than a request may read."""

    async def test_status(self) -> None:
        """P10: the first request is answered without the counts; they are there soon after."""
        self.open_store()
        time = "2030-01-01 00:00:00.000000"
        places = ", ".join(["?" if self.engine == "sqlite" else "%s"] * 5)
        with closing(self.connect()) as connection:
            connection.cursor().executemany(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
                f" VALUES ({places}, NULL)",
                [(self.key("many"), self.key(str(n)), "60", time, time) for n in range(PIECE)],
            )
            connection.commit()
        await self.stores.pop().close()
        daemon = self.spawn("--config", self.ini())
        url = await daemon.url()
        status = await self.get(f"{url}/status")
        counted = [status[key] for key in ("running_jobs", "total_jobs", "pending_jobs")]
        self.assertEqual([*counted, status["set_aside_jobs"]], [None] * 4)
        self.assertEqual((status["counts_age"], status["instance_running_jobs"]), (None, 0))
        shown = await self.until_shown(f"{url}/status", total_jobs=PIECE)
        self.assertEqual((shown["set_aside_jobs"], shown["pending_jobs"]), (PIECE, 0))
        self.assertEqual(shown["counts_age"], 0)
        # It ends at once, whatever it counts.
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertNotIn("Traceback", daemon.output)
        self.sql("DELETE FROM dalga WHERE body <> %s", (self.key("1"),))
        _, url = await self.start()
        for total in (2, 3, 4):
            await self.put(f"{url}/jobs/few/{total}?interval=3600")
            status = await self.get(f"{url}/status")
            self.assertEqual((status["total_jobs"], status["counts_age"]), (total, 0))


@each_engine(globals(), only=("mariadb", "mysql"))
class SharedTableTests(DaemonTestCase):
    """Many instances on one table, and a server that comes and goes."""

    async def test_two_daemons_share_the_work(self) -> None:
        """P3: each job runs once; both instances run some."""
        config = {"jobs": {"maxRunning": 4}}
        release: list[Deferred[int]] = []

        def answer(hit: Hit) -> Deferred[int]:
            # In pairs, so that neither daemon can be through before the other has begun.
            release.append(Deferred())
            self.reactor.callLater(0.02, release[-1].callback, 200)
            return release[-1]

        self.endpoint.answer = answer
        (_, one), (_, two) = await self.start(**config), await self.start(**config)
        requests = [
            self.call("PUT", f"{(one, two)[n % 2]}/jobs/shared/{n}?one-off=1&immediate=1")
            for n in range(300)
        ]
        await gatherResults([Deferred.fromCoroutine(request) for request in requests])
        await self.endpoint.until(lambda: len(self.endpoint.hits) >= 300)
        await self.pause(0.5)
        self.assertEqual(len(self.endpoint.hits), 300)
        self.assertEqual(len({hit.key for hit in self.endpoint.hits}), 300)
        self.assertEqual(len({hit.instance for hit in self.endpoint.hits}), 2)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])

    async def test_instances(self) -> None:
        """The instances that run are counted; one that has stopped is not."""
        first, one = await self.start()
        _, two = await self.start()
        for url in (one, two):
            await self.until_shown(f"{url}/status", total_instances=2)
        first.send(signal.SIGTERM)
        self.assertEqual(await first.ended, 0)
        status = await self.get(f"{two}/status")
        self.assertEqual(status["total_instances"], 1)

    async def test_a_job_put_elsewhere(self) -> None:
        """A job that one instance stored is run by another, if that one is gone, after a scan."""
        first, url = await self.start()
        _, _ = await self.start()
        status, _ = await self.call("PUT", f"{url}/jobs/there/x?one-off=1&interval=2")
        self.assertEqual(status, 201)
        first.send(signal.SIGKILL)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)

    async def test_the_server_comes_and_goes(self) -> None:
        """
        P5: a database that goes away is waited for: 503 meanwhile, and all is well afterwards.
        """
        own = start_server(self.engine)
        self.addCleanup(own.stop)
        name = own.create_database()
        self.config = MySQLConfig(own.host, own.port, name, "dalga", own.user, own.password)
        release: Deferred[int] = Deferred()
        self.endpoint.answer = lambda hit: release if hit.body == "during" else 200
        daemon, url = await self.start()
        await self.call("PUT", f"{url}/jobs/tick/x?interval=1")
        await self.call("PUT", f"{url}/jobs/tick/during?one-off=1&immediate=1")
        await self.endpoint.until(lambda: len(self.endpoint.hits) >= 2)
        own.kill()
        before = self.reactor.seconds()
        release.callback(200)  # its record has to wait for the server
        response = await treq.put(f"{url}/jobs/tick/away?interval=1", persistent=False)
        self.assertEqual(response.code, 503)
        self.assertTrue(response.headers.hasHeader("Retry-After"))
        self.assertLess(self.reactor.seconds() - before, 5)
        await daemon.says("waiting for it to come back")
        await deferToThread(own.start)
        await daemon.says("the database is back")
        count = len(self.endpoint.hits)
        await self.endpoint.until(lambda: len(self.endpoint.hits) >= count + 2)
        status, _ = await self.call("PUT", f"{url}/jobs/tick/back?interval=1")
        self.assertEqual(status, 201)
        status, _ = await self.call("GET", f"{url}/jobs/tick/during")
        self.assertEqual(status, 404)
        self.assertEqual([hit.body for hit in self.endpoint.hits].count("during"), 1)
        self.assertNotIn("Traceback", daemon.output)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)


class StartTestsBase(DaemonTestCase):
    """What keeps a daemon from starting is one clear line, and an exit status that is not 0."""

    async def refused(self, *arguments: str, twistd: bool = False) -> str:
        """The one line with which it ends."""
        daemon = self.spawn(*arguments, twistd=twistd)
        status = await daemon.ended
        self.assertNotEqual(status, 0, daemon.output)
        self.assertNotIn("Traceback", daemon.output)
        lines = [line for line in daemon.output.splitlines() if line.strip()]
        self.assertEqual(len(lines), 1, daemon.output)
        return lines[0]


@each_engine(globals(), only=("mariadb", "mysql"))
class StalledServerTests(DaemonTestCase):
    """A server that says nothing any more, as a frozen machine does."""

    async def test_stop(self) -> None:
        """Requests are answered by 503 within 5 s, and a stop ends, though the server is silent."""
        own = start_server(self.engine)
        self.addCleanup(own.stop)
        name = own.create_database()
        self.config = MySQLConfig(own.host, own.port, name, "dalga", own.user, own.password)
        settings = {"mysql": {"readTimeout": "6s"}, "jobs": {"shutdownTimeout": "1s"}}
        daemon, url = await self.start(**settings)
        await self.call("PUT", f"{url}/jobs/tick/x?interval=1")
        await self.endpoint.until(lambda: bool(self.endpoint.hits))
        own.signal(signal.SIGSTOP)
        try:
            before = self.reactor.seconds()
            requests = [
                Deferred.fromCoroutine(self.call("PUT", f"{url}/jobs/many/{n}?interval=1"))
                for n in range(30)
            ]
            self.assertEqual({status for status, _ in await gatherResults(requests)}, {503})
            self.assertLess(self.reactor.seconds() - before, 5)
            daemon.send(signal.SIGTERM)
            before = self.reactor.seconds()
            self.assertEqual(await daemon.ended, 0)
            self.assertLess(self.reactor.seconds() - before, 10)
        finally:
            own.signal(signal.SIGCONT)
        self.assertNotIn("Traceback", daemon.output)
        with closing(own.connect(database=name)) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT COUNT(*) FROM dalga WHERE path = 'many'")
            self.assertEqual(cursor.fetchall(), ((0,),))


@each_engine(globals())
class StartTests(StartTestsBase):
    """What may be wrong whatever the engine."""

    async def test_port_in_use(self) -> None:
        """The address and the port are named; under twistd too."""
        self.make_store().create_table()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ini = self.ini(listen={"port": port})
            self.assertIn(f"127.0.0.1:{port}", await self.refused("--config", ini))
            line = await self.refused("-n", "--pidfile=", "dalga", "--config", ini, twistd=True)
            self.assertIn(f"127.0.0.1:{port}", line)

    async def test_bad_configuration(self) -> None:
        """The key is named, and what it takes."""
        line = await self.refused("--config", self.ini(jobs={"randomizationFactor": 2}))
        self.assertIn("randomizationFactor", line)
        line = await self.refused("--config", self.ini("b.ini", jobs={"randomisationFactor": 0}))
        self.assertIn("randomisationFactor", line)
        endpoint = {"baseurl": "https://localhost/", "ca": "/no/such/file"}
        line = await self.refused("--config", self.ini("c.ini", endpoint=endpoint))
        self.assertIn("ca in [endpoint] is '/no/such/file', which can't be read", line)
        line = await self.refused("--config", self.ini("d.ini", **{"endpoint billing": endpoint}))
        self.assertIn("ca in [endpoint billing] is '/no/such/file', which can't be read", line)

    async def test_unknown_option(self) -> None:
        """The option is named."""
        self.assertIn("--colour", await self.refused("--colour"))

    async def test_create_table(self) -> None:
        """The table is created; the second time it is there already, which is no failure."""
        ini = self.ini()
        for option, words in (
            ("--create-table", "created"),
            ("-create-table", "there already"),
            ("-create-tables", "there already"),
            ("--create-tables", "there already"),
        ):
            daemon = self.spawn("-config", ini, option)
            self.assertEqual(await daemon.ended, 0, daemon.output)
            self.assertIn(words, daemon.output)

    async def test_version(self) -> None:
        """Both spellings tell Dalga's version."""
        for option in ("--version", "-version"):
            daemon = self.spawn(option)
            self.assertEqual(await daemon.ended, 0)
            self.assertEqual(daemon.output, f"dalga {__version__}\n")

    async def test_help(self) -> None:
        """Each spelling shows the options."""
        for option in ("--help", "-help", "-h"):
            daemon = self.spawn(option)
            self.assertEqual(await daemon.ended, 0)
            self.assertIn("--upgrade-table", daemon.output)


@each_engine(globals(), only=("mariadb", "mysql"))
class ServerStartTests(StartTestsBase):
    """What a server may have against a daemon."""

    async def test_missing_table(self) -> None:
        """The table is named, and the option that makes it."""
        line = await self.refused("--config", self.ini())
        self.assertIn("no table `dalga`", line)
        self.assertIn("--create-table", line)

    async def test_not_our_table(self) -> None:
        """A table of another program is left alone."""
        self.sql("CREATE TABLE dalga (path VARCHAR(255), body VARCHAR(255))")
        for arguments in (["--config", self.ini()], ["--config", self.ini(), "--create-table"]):
            self.assertIn("is not a table of this version of Dalga", await self.refused(*arguments))

    async def test_wrong_password(self) -> None:
        """The user is named; the password is not."""
        line = await self.refused("--config", self.ini(mysql={"password": "hunter2"}))
        self.assertIn("'dalga'", line)
        self.assertNotIn("hunter2", line)

    async def test_no_database(self) -> None:
        """So is the database."""
        line = await self.refused("--config", self.ini(mysql={"db": "nowhere"}))
        self.assertIn("'nowhere'", line)

    async def test_no_server(self) -> None:
        """So are the host and the port."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        line = await self.refused("--config", self.ini(mysql={"port": port}))
        self.assertIn(f"127.0.0.1:{port}", line)


@each_engine(globals(), only=("sqlite",))
class FileStartTests(StartTestsBase):
    """What a file may have against a daemon."""

    async def test_a_second_daemon(self) -> None:
        """One file is for one daemon."""
        await self.start()
        self.assertIn("in use by another dalga", await self.refused("--config", self.ini()))

    async def test_no_folder(self) -> None:
        """The file is named."""
        line = await self.refused("--config", self.ini(sqlite={"path": "/nonexistent/x.sqlite"}))
        self.assertIn("/nonexistent/x.sqlite", line)

    async def test_not_a_database(self) -> None:
        """A file of another kind is left alone."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("Dear diary, " * 1000)
        line = await self.refused("--config", self.ini(sqlite={"path": os.path.abspath(path)}))
        self.assertIn("not a database; name another with path in [sqlite]", line)

    async def test_no_room(self) -> None:
        """SQLite has other words for a disk without room for what is beside the file."""
        dialect = SQLite("jobs.sqlite")
        self.assertEqual(
            dialect.explain(sqlite3.OperationalError("disk I/O error")),
            "can't use SQLite file 'jobs.sqlite': disk I/O error; look whether its disk is full",
        )
