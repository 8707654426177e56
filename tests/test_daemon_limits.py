"""What callers with limits, and without the secrets, are told by a daemon (P12)."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from contextlib import closing
from typing import Any

from tests.daemons import DaemonTestCase
from tests.stores import each_engine
from tests.test_daemon_tokens import TEXTS, line

SECRET = "s3cret-4711"
#: A part of the names of the jobs that no limited token may hear of.
OTHERS = "concealed"

GRANTS = {
    "boss": "admin",
    "reader": "read",
    "writer": "write:endpoint=billing",
    "inside": "write:team/",
    "trigger": "trigger:team/",
}


@each_engine(globals())
class LimitsTests(DaemonTestCase):
    async def open(self) -> None:
        tokens = {name: line(name, grants) for name, grants in GRANTS.items()}
        _, self.url = await self.start(
            **{"endpoint billing": {"baseurl": self.baseurl}}, tokens=tokens
        )

    async def ask(self, token: str, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """A request; gives the status and the JSON of the answer."""
        headers = {"Authorization": f"Bearer {TEXTS[token]}"}
        data = None
        if body is not None:
            kind = "merge-patch+json" if method == "PATCH" else "json"
            headers["Content-Type"] = f"application/{kind}"
            data = json.dumps(body).encode()
        status, text = await self.call(method, self.url + target, headers=headers, data=data)
        self.heard = text
        return status, json.loads(text) if text else None

    def fill(self, number: int) -> None:
        """Jobs of the default endpoint, behind each of which a page may end."""
        columns = ("path", "body", "schedule", "options", "anchor", "scheduled", "due")
        place = "?" if self.engine == "sqlite" else "%s"
        time = "2035-01-01 00:00:00.000000"
        with closing(self.connect()) as connection:
            connection.cursor().executemany(
                f"INSERT INTO dalga ({', '.join(columns)})"
                f" VALUES ({', '.join([place] * len(columns))})",
                [
                    (self.key("p"), self.key(f"{OTHERS}{n}"), "60", "", time, time, time)
                    for n in range(number)
                ],
            )
            connection.commit()

    async def test_pages_that_end_at_what_is_concealed(self) -> None:
        """No cursor names it, nor is good for anybody else."""
        await self.open()
        self.fill(2100)
        for name in "az":
            await self.ask("boss", "PUT", f"/jobs/{name}/1?interval=3600&endpoint=billing")
        for query in ("", "?state=scheduled", "?due-after=2014-11-11T00:00:00Z"):
            target, cursors = f"/jobs{query}", []
            found: list[str] = []
            while target:
                status, page = await self.ask("writer", "GET", target)
                self.assertEqual(status, 200, page)
                found += [job["path"] for job in page["jobs"]]
                self.assertNotIn(OTHERS, self.heard)
                cursor = page.get("cursor")
                target = f"/jobs{query or '?limit=100'}&cursor={cursor}" if cursor else ""
                if cursor:
                    cursors.append(cursor)
                    octets = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
                    self.assertNotIn(OTHERS.encode(), octets)
            self.assertEqual(sorted(found), ["a", "z"], query)
            self.assertTrue(cursors, query)
            for token in ("boss", "inside"):
                target = f"/jobs{query or '?limit=100'}&cursor={cursors[0]}"
                self.assertEqual((await self.ask(token, "GET", target))[0], 400)
        # Nor can a cursor be made that leads anywhere.
        _, page = await self.ask("boss", "GET", "/jobs?limit=5")
        self.assertIn(OTHERS.encode(), urlsafe_b64decode(page["cursor"] + "=="))
        target = f"/jobs?limit=5&cursor={page['cursor']}"
        self.assertEqual((await self.ask("writer", "GET", target))[0], 400)

    async def test_what_is_not_shown(self) -> None:
        """Payloads, headers and answers are shown with secrets only, and nobody else loses them."""
        await self.open()
        self.endpoint.answer = lambda hit: (500, {"X-Made-Up": SECRET}, SECRET.encode())
        asked = {
            "interval": 3600,
            "payload": {"card": SECRET},
            "headers": {"X-Team": SECRET},
            "endpoint": "billing",
            "give_up": "500",
        }
        status, _ = await self.ask("writer", "PUT", "/jobs/team%2Fa/1", asked)
        self.assertEqual(status, 201)
        hidden = {"headers": {"X-Team": None}, "hidden": ["payload", "headers"]}
        for token, method, target, body in [
            ("writer", "PUT", "/jobs/team%2Fa/1", asked),
            ("reader", "GET", "/jobs/team%2Fa/1", None),
            ("inside", "GET", "/jobs/team%2Fa/1", None),
            ("reader", "GET", "/jobs", None),
            ("inside", "PATCH", "/jobs/team%2Fa/1", {"description": "x"}),
            ("trigger", "POST", "/jobs/team%2Fa/1", None),
        ]:
            status, shown = await self.ask(token, method, target, body)
            self.assertIn(status, (200, 201))
            shown = shown["jobs"][0] if target == "/jobs" else shown
            self.assertEqual({name: shown.get(name) for name in hidden}, hidden, (token, method))
            self.assertNotIn(SECRET, self.heard)
            self.assertNotIn("payload", set(shown))
        _, whole = await self.ask("boss", "GET", "/jobs/team%2Fa/1")
        self.assertEqual((whole["payload"], whole.get("hidden")), ({"card": SECRET}, None))
        _, shown = await self.ask("inside", "GET", "/jobs/team%2Fa/1")
        for method in ("PUT", "PATCH"):
            taken = {
                name: value
                for name, value in shown.items()
                if name in ("interval", "headers", "hidden")
            }
            status, error = await self.ask("inside", method, "/jobs/team%2Fa/1", taken)
            self.assertEqual(status, 400)
            self.assertIn("hidden is", error["detail"])
        _, after = await self.ask("boss", "GET", "/jobs/team%2Fa/1")
        self.assertEqual(after["payload"], {"card": SECRET})
        while not (page := (await self.ask("boss", "GET", "/runs?result=given_up"))[1])["runs"]:
            await self.pause(0.05)
        run_id = page["runs"][0]["run_id"]
        answer = ["response_headers", "response_body"]
        _, run = await self.ask("boss", "GET", f"/runs/{run_id}")
        self.assertIn(SECRET, run["response_body"])
        self.assertIn(SECRET, run["response_headers"])
        for token in ("reader", "writer", "inside"):
            for target in (f"/runs/{run_id}", "/runs", "/jobs/team%2Fa/1/runs", "/jobs/team%2Fa/1"):
                status, shown = await self.ask(token, "GET", target)
                self.assertEqual((status, SECRET in self.heard), (200, False), (token, target))
                if target == f"/runs/{run_id}":
                    self.assertEqual((shown["hidden"], answer[0] in shown), (answer, False))
        status, replay = await self.ask("trigger", "POST", f"/runs/{run_id}/replay")
        self.assertEqual(
            (status, replay["hidden"], SECRET in self.heard), (201, ["payload", "headers"], False)
        )

    async def test_what_is_told_of_others(self) -> None:
        """Nowhere is there a name of what a token's limits leave out."""
        await self.open()
        for path, endpoint in (("p", "default"), ("team%2Fx", "default"), ("q", "billing")):
            target = f"/jobs/{path}/{OTHERS}?one-off=true&immediate=true&endpoint={endpoint}"
            await self.ask("boss", "PUT", target + "&on-end=keep&tags=" + OTHERS)
        while len((await self.ask("boss", "GET", "/runs?result=succeeded"))[1]["runs"]) < 3:
            await self.pause(0.05)
        runs = {
            run["path"]: run["run_id"]
            for run in (await self.ask("boss", "GET", "/runs"))[1]["runs"]
        }
        await self.ask("boss", "POST", "/actions", {"do": "disable", "filter": {"body": OTHERS}})
        for token, path in (("writer", "q"), ("inside", "team/x")):
            for target in (
                *("/jobs", "/runs", "/stats?group=path", "/stats?group=endpoint", "/alerts"),
                *("/actions", "/endpoints", f"/jobs?contains={OTHERS}", f"/jobs?body={OTHERS}"),
                *(f"/jobs?tag={OTHERS}", f"/runs?tag={OTHERS}", f"/runs?body={OTHERS}"),
                *("/jobs?prefix=p", "/runs?prefix=p", f"/jobs?state=disabled&contains={OTHERS}"),
            ):
                status, answer = await self.ask(token, "GET", target)
                self.assertEqual(status, 200, target)
                listed = answer.get("jobs") or answer.get("runs") or []
                self.assertEqual({each["path"] for each in listed} - {path}, set(), target)
                if target in ("/jobs", "/runs") or OTHERS in target:
                    self.assertLessEqual(len(listed), 1, target)
                if target in ("/alerts", "/actions"):
                    self.assertNotIn(OTHERS, self.heard)
            for other, run_id in runs.items():
                status, _ = await self.ask(token, "GET", f"/runs/{run_id}")
                self.assertEqual(status, 200 if other == path else 404)
                if other != path:
                    sentence = self.heard.replace(run_id, "")
                    missing = re.sub("^.{8}", "00000000", run_id)
                    status, _ = await self.ask(token, "GET", f"/runs/{missing}")
                    self.assertEqual((status, self.heard.replace(missing, "")), (404, sentence))
                    status, _ = await self.ask(token, "POST", f"/runs/{run_id}/replay")
                    self.assertEqual(status, 404)
