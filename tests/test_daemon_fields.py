"""
Each parameter of a job, walked through a daemon and its database: PUT, GET, a PUT of what GET
shows, and PATCH. And what a job says, as its endpoint sees it.
"""

from __future__ import annotations

import json
from typing import Any

from dalga.model.fields import FIELDS, RETRY_PARTS
from tests.daemons import DaemonTestCase, Hit
from tests.stores import each_engine
from tests.test_fields import PUTS
from tests.test_web_api import STATE

JSON = {"Content-Type": "application/json"}
PATCH = {"Content-Type": "application/merge-patch+json"}

#: Each parameter that GET shows, but for those without which there would be no schedule.
OPTIONAL = {
    field.name: field.attribute
    for field in FIELDS
    if field.show is not None and field.name not in ("interval", "cron")
}


@each_engine(globals())
class FieldsTests(DaemonTestCase):
    """A daemon and an endpoint."""

    async def start_here(self) -> str:
        """:return: the URL of a daemon that has an endpoint with a name, too."""
        billing: dict[str, object] = {"baseurl": self.baseurl}
        ops: dict[str, object] = {"url": self.baseurl}
        _, url = await self.start(**{"endpoint billing": billing, "alerts ops": ops})
        return url

    async def write(
        self, method: str, url: str, body: str, headers: dict[str, str], expected: int
    ) -> dict[str, Any]:
        status, answer = await self.call(method, url, data=body.encode(), headers=headers)
        self.assertEqual(status, expected, (body, answer))
        members: dict[str, Any] = json.loads(answer)
        return members

    async def put_one(self, url: str, given: str) -> dict[str, Any]:
        """:param given: as in `PUTS`."""
        if given.startswith("{"):
            return await self.write("PUT", url, given, JSON, 201)
        return await self.put(f"{url}?{given}")

    async def test_put_get_put_and_patch(self) -> None:
        base = await self.start_here()
        for number, (name, given) in enumerate(PUTS.items()):
            url = f"{base}/jobs/{name}/{number}"
            put = await self.put_one(url, given)
            shown = await self.get(url)
            self.assertEqual(shown, put, name)
            if "immediate=true" in given or "one-off" in given:
                continue  # GET does not show what such a job was made of
            attribute = "retry" if name in RETRY_PARTS else name.replace("-", "_")
            again = {member: shown[member] for member in shown if member not in STATE}
            if name not in ("redact", "first-run"):  # neither is all shown
                await self.write("PUT", f"{url}?if-exists=update", json.dumps(again), JSON, 201)
                self.assertEqual(await self.get(url), shown, name)
            # Nothing changes by a PATCH of nothing, nor by one that says what is so already.
            for patch in ("{}", json.dumps({"location": shown.get("location", "UTC")})):
                self.assertEqual(await self.write("PATCH", url, patch, PATCH, 200), shown, name)
            if attribute in OPTIONAL.values() and name not in ("location", "redact"):
                self.assertIn(attribute, shown)
                patch = json.dumps({attribute: None})
                found = await self.write("PATCH", url, patch, PATCH, 200)
                self.assertNotIn(attribute, found)
                self.assertEqual(found["interval"], shown["interval"])
                self.assertEqual(await self.get(url), found, name)
                # Put back by a PATCH of what GET had shown: all is as it was.
                patch = json.dumps({attribute: shown[attribute]})
                await self.write("PATCH", url, patch, PATCH, 200)
                expected = {member: shown[member] for member in again if member != "next_run"}
                found = await self.get(url)
                self.assertEqual({member: found[member] for member in expected}, expected, name)

    async def test_the_largest_payload(self) -> None:
        """What the configuration says of payloads holds for PUT, PATCH and POST."""
        _, base = await self.start(jobs={"maxPayload": "16"})
        url = f"{base}/jobs/a/b"
        for size, put, patched, posted in ((16, 201, 200, 201), (17, 400, 400, 413)):
            payload = "a" * size
            said = json.dumps({"interval": 60, "payload": payload})
            await self.write("PUT", url, said, JSON, put)
            await self.write("PATCH", url, json.dumps({"payload": payload}), PATCH, patched)
            await self.write("POST", f"{base}/jobs/a", payload, {}, posted)
        self.assertEqual((await self.get(url))["payload"], "a" * 16)

    async def test_what_is_redacted_is_still_sent(self) -> None:
        """Also after a PATCH of something else."""
        url = f"{await self.start_here()}/jobs/a/b"
        await self.put_one(
            url,
            '{"interval":3600,"payload":"s3cret","headers":{"X-Key":"k3y"},'
            '"redact":["payload","x-key"]}',
        )
        shown = await self.write("PATCH", url, '{"description":"d"}', PATCH, 200)
        self.assertNotIn("s3cret", json.dumps(shown))
        self.assertNotIn("k3y", json.dumps(shown))
        await self.call("POST", url)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        [hit] = self.endpoint.hits
        self.assertEqual((hit.path, hit.body, hit.headers["x-key"]), ("a", "s3cret", "k3y"))

    async def test_json_arrives_as_it_was_written(self) -> None:
        url = f"{await self.start_here()}/jobs/a/b"
        text = '{"price":1.10,"big":12345678901234567890,"far":1e400,"name":"ğ"}'
        await self.put_one(url, f'{{"one_off":true,"immediate":true,"payload":{text}}}')
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        [hit] = self.endpoint.hits
        self.assertEqual(hit.body, text)
        self.assertEqual(hit.headers["content-type"], "application/json")

    async def test_so_many_attempts(self) -> None:
        """A job is given up after as many as it says, though its daemon never gives up."""

        def answer(hit: Hit) -> int:
            return 500

        self.endpoint.answer = answer
        url = f"{await self.start_here()}/jobs/a/b"
        await self.put_one(
            url,
            '{"one_off":true,"immediate":true,"retry":{"interval":"1ms","max_attempts":3}}',
        )
        shown = await self.until_shown(
            url, failed={"attempts": 3, "error": "500 Internal Server Error"}, next_run=None
        )
        self.assertEqual(shown["retry"], {"interval": 0.001, "max_attempts": 3})
        self.assertEqual([hit.attempt for hit in self.endpoint.hits], [1, 2, 3])
        # Asked for once more: one attempt of the same run, or as many as there are by now.
        await self.call("POST", url)
        await self.until_shown(url, failed={**shown["failed"], "attempts": 4})
        await self.write("PATCH", url, '{"retry":{"max_attempts":6}}', PATCH, 200)
        await self.call("POST", url)
        await self.until_shown(url, failed={**shown["failed"], "attempts": 6})
        self.assertEqual([hit.attempt for hit in self.endpoint.hits], [1, 2, 3, 4, 5, 6])
        self.assertEqual(len({hit.run for hit in self.endpoint.hits}), 1)

    async def test_kept_at_its_end(self) -> None:
        """A job that is done is shown, is run by nobody, and is scheduled by a PUT."""
        url = f"{await self.start_here()}/jobs/a/b"
        given = '{"one_off":true,"immediate":true,"on_end":"keep","payload":"x"}'
        await self.put_one(url, given)
        shown = await self.until_shown(url, done=True)
        expected = {"path": "a", "body": "b", "interval": 0, "next_run": None}
        expected |= {"on_end": "keep", "payload": "x", "done": True}
        self.assertEqual({name: shown[name] for name in shown if name != "last_run"}, expected)
        self.assertEqual(shown["last_run"]["result"], "succeeded")
        status, answer = await self.call("POST", url)
        self.assertEqual(status, 409, answer)
        self.assertEqual(await self.get(url), shown)
        await self.write("PATCH", url, '{"description":"d"}', PATCH, 200)
        self.assertEqual(await self.get(url), {**shown, "description": "d"})
        self.assertEqual(len(self.endpoint.hits), 1)
        await self.put_one(url, given)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 2)
        await self.until_shown(url, done=True)
        self.assertEqual((await self.call("DELETE", url))[0], 204)
        self.assertEqual((await self.call("GET", url))[0], 404)
