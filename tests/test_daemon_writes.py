"""
Calls that a client makes once more, end to end: real daemons, real sockets, over each engine.
"""

from __future__ import annotations

import json
import signal
from typing import Any

import treq
from twisted.internet.defer import Deferred, gatherResults
from twisted.web.http_headers import Headers

from tests.daemons import DaemonTestCase
from tests.stores import each_engine


def named(headers: dict[str, str]) -> Headers:
    """Headers whose names are those of Python's arguments."""
    return Headers({name.replace("_", "-"): [value] for name, value in headers.items()})


@each_engine(globals())
class OnceTests(DaemonTestCase):
    """POST /jobs/<path>, and an Idempotency-Key."""

    async def post(self, url: str, body: bytes, **headers: str) -> tuple[int, list[str], str]:
        """The status, the headers that say something of the job, and the body."""
        response = await treq.post(url, body, headers=named(headers), persistent=False)
        found = [
            value
            for name in ("Location", "ETag")
            for value in response.headers.getRawHeaders(name, [])
        ]
        return response.code, found, await response.text("utf-8")

    async def test_a_payload_once(self) -> None:
        """The endpoint gets it once, and whoever asks again gets the same answer."""
        _, url = await self.start()
        asked = {"Content_Type": "application/x; a=b", "Idempotency_Key": "k1"}
        first = await self.post(f"{url}/jobs/send%2Fmail", b"\x00h\xc3\xb6", **asked)
        status, (location, etag), body = first
        self.assertEqual(status, 201)
        shown = json.loads(body)
        self.assertEqual(shown["path"], "send/mail")
        self.assertEqual(location, f"/jobs/send%2Fmail/{shown['body']}")
        self.assertRegex(etag, r'\A"[0-9a-f]{13}"\Z')
        await self.until_gone(f"{url}{location}")
        (hit,) = self.endpoint.hits
        self.assertEqual((hit.path, hit.body), ("send/mail", "\x00hö"))
        self.assertEqual(hit.headers["content-type"], "application/x; a=b")
        urls = [url]
        if self.engine != "sqlite":
            urls.append((await self.start())[1])
        for each in urls:
            again = await self.post(f"{each}/jobs/send%2Fmail", b"\x00h\xc3\xb6", **asked)
            self.assertEqual(again, first)
            other = await self.post(f"{each}/jobs/send%2Fmail", b"other", **asked)
            self.assertEqual(other[0], 422)
        self.assertEqual((await self.get(f"{url}/status"))["total_jobs"], 0)
        self.assertEqual(len(self.endpoint.hits), 1)

    async def test_sigkill_amid_requests(self) -> None:
        """P1: whoever got no answer asks again, and there is one job for each request."""
        daemon, url = await self.start()

        def ask(number: int) -> Deferred[Any]:
            path = f"{url}/jobs/later?delay=86400"
            post = self.post(path, b"%d" % number, Idempotency_Key=f"k{number}")
            return Deferred.fromCoroutine(post)

        answered: dict[int, Any] = {}

        def note(answer: Any, number: int) -> None:
            answered[number] = answer

        asked = [ask(number).addCallback(note, number) for number in range(60)]
        self.reactor.callLater(0.05, daemon.send, signal.SIGKILL)
        for each in asked:
            each.addErrback(lambda _: None)
        await gatherResults(asked)
        await daemon.ended
        _, url = await self.start()
        again = await gatherResults([ask(number) for number in range(60)])
        self.assertEqual({answer[0] for answer in again}, {201})
        for number, answer in answered.items():
            self.assertEqual(again[number], answer)
        listed = await self.get(f"{url}/jobs?path=later&limit=1000")
        names = [job["body"] for job in listed["jobs"]]
        self.assertEqual(len(names), 60)
        self.assertEqual(sorted(json.loads(answer[2])["body"] for answer in again), names)
        self.assertEqual(sorted(int(job["payload"]) for job in listed["jobs"]), [*range(60)])


@each_engine(globals())
class VersionTests(DaemonTestCase):
    """ETag and If-Match."""

    async def ask(
        self, method: str, url: str, body: bytes = b"", **headers: str
    ) -> tuple[int, str | None]:
        """The status and the ETag."""
        response = await treq.request(
            method, url, data=body, headers=named(headers), persistent=False
        )
        await response.content()
        return response.code, (response.headers.getRawHeaders("ETag") or [None])[0]

    async def test_of_many_that_change_what_they_have_read_one_does(self) -> None:
        """P4: no change is undone unseen, whichever instance does it."""
        urls = [(await self.start())[1]]
        if self.engine != "sqlite":
            urls.append((await self.start())[1])
        job = "/jobs/check_feed/1234"
        _, etag = await self.ask("PUT", f"{urls[0]}{job}?interval=3600")
        assert etag is not None
        patch = "application/merge-patch+json"
        for round in range(3):
            answers = await gatherResults(
                [
                    Deferred.fromCoroutine(
                        self.ask(
                            "PATCH",
                            f"{urls[number % len(urls)]}{job}",
                            b'{"count":%d}' % (10 * round + number + 1),
                            If_Match=etag,
                            Content_Type=patch,
                        )
                    )
                    for number in range(6)
                ]
            )
            done = [found for status, found in answers if status == 200]
            self.assertEqual(sorted(status for status, _ in answers), [200] + [412] * 5)
            (etag,) = done
            assert etag is not None
            self.assertEqual((await self.ask("GET", f"{urls[0]}{job}"))[1], etag)
        self.assertEqual(
            (await self.ask("PUT", f"{urls[0]}{job}?interval=5", If_None_Match="*"))[0], 412
        )
        self.assertEqual((await self.ask("DELETE", f"{urls[0]}{job}", If_Match='"1"'))[0], 412)
        self.assertEqual((await self.ask("DELETE", f"{urls[-1]}{job}", If_Match=etag))[0], 204)
        made = await gatherResults(
            [
                Deferred.fromCoroutine(
                    self.ask(
                        "PUT", f"{urls[number % len(urls)]}{job}?interval=5", If_None_Match="*"
                    )
                )
                for number in range(6)
            ]
        )
        self.assertEqual(sorted(status for status, _ in made), [201] + [412] * 5)

    async def test_runs_do_not_change_it(self) -> None:
        """Nor do triggers, disable and enable."""
        _, url = await self.start()
        job = f"{url}/jobs/check_feed/1234"
        _, etag = await self.ask("PUT", f"{job}?interval=3600&immediate=1")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        await self.ask("POST", job)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 2)
        for query in ("disable=true&reason=x", "enable=true"):
            self.assertEqual(
                await self.ask("PATCH", f"{job}?{query}", If_Match=etag or ""), (200, etag)
            )
        self.assertEqual(await self.ask("GET", job), (200, etag))
        _, other = await self.ask("PUT", f"{job}?interval=3600")
        self.assertNotEqual(other, etag)
        await self.ask("DELETE", job)
        _, anew = await self.ask("PUT", f"{job}?interval=3600")
        self.assertEqual(len({etag, other, anew}), 3)
