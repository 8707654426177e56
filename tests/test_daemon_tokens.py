"""Tokens at each route of a daemon."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults

from dalga.model.permit import Scope, digest_of, new_token
from dalga.web.api import Api
from dalga.web.auth import MOST_HELD
from tests.daemons import DaemonTestCase
from tests.stores import each_engine

T = TypeVar("T")

RUN = f"{0:032x}-1"
ACTION = "01JE0000000000000000000000"

#: By the name of the route: a request, the scope that it takes, and whether a scope that is limited
#: to `team/` will do.
REQUESTS: dict[str, tuple[str, str, Scope | None, bool]] = {
    "schedule": ("PUT", "/jobs/team%2Fa/1?interval=3600", Scope.WRITE, True),
    "get": ("GET", "/jobs/team%2Fa/1", Scope.READ, True),
    "trigger": ("POST", "/jobs/team%2Fa/1", Scope.TRIGGER, True),
    "change": ("PATCH", "/jobs/team%2Fa/1", Scope.WRITE, True),
    "once": ("POST", "/jobs/team%2Fa", Scope.WRITE, True),
    "run_times": ("GET", "/jobs/team%2Fa/1/upcoming", Scope.READ, True),
    "why": ("GET", "/jobs/team%2Fa/1/why", Scope.READ, True),
    "job_runs": ("GET", "/jobs/team%2Fa/1/runs", Scope.READ, True),
    "runs": ("GET", "/runs", Scope.READ, True),
    "run": ("GET", f"/runs/{RUN}", Scope.READ, True),
    "page": ("GET", "/jobs", Scope.READ, True),
    "replay": ("POST", f"/runs/{RUN}/replay", Scope.TRIGGER, True),
    "act": ("POST", "/actions", Scope.WRITE, True),
    "actions": ("GET", "/actions", Scope.READ, True),
    "action": ("GET", f"/actions/{ACTION}", Scope.READ, True),
    "stop_action": ("DELETE", f"/actions/{ACTION}", Scope.TRIGGER, True),
    "preview": ("GET", "/preview?interval=60", Scope.READ, True),
    "status": ("GET", "/status", Scope.READ, False),
    "statistics": ("GET", "/stats", Scope.READ, True),
    "instances": ("GET", "/instances", Scope.READ, False),
    "endpoints": ("GET", "/endpoints", Scope.READ, True),
    "alerts": ("GET", "/alerts", Scope.READ, True),
    "audit": ("GET", "/audit", Scope.ADMIN, False),
    "metrics": ("GET", "/metrics", Scope.METRICS, False),
    "front": ("GET", "/", None, True),
    "file": ("GET", "/static/page.js", None, True),
    "visitor": ("GET", "/login", None, True),
    "log_in": ("POST", "/login", None, True),
    "log_out": ("POST", "/logout", None, True),
    "health": ("GET", "/health", None, True),
    "ready": ("GET", "/ready", None, True),
    "cancel": ("DELETE", "/jobs/team%2Fa/1", Scope.WRITE, True),
}

#: The routes of a job, or of jobs of one path: these tell which limits they are within.
OF_A_JOB = {name for name, request in REQUESTS.items() if request[1].startswith("/jobs/")} | {"act"}

#: By the name of the token: what it grants, and the scopes that it has by that.
GRANTS: dict[str, tuple[str, str]] = {
    "reader": ("read", "read"),
    "secrets": ("read-secrets", "read"),
    "trigger": ("trigger", "trigger"),
    "writer": ("write", "read trigger write"),
    "boss": ("admin", "read trigger write metrics admin"),
    "metrics": ("metrics", "metrics"),
    "inside": ("write:team/", "read trigger write"),
    "inside-read": ("read:x/,team/", "read"),
    "outside": ("write:other/,teams", "read trigger write"),
}
TEXTS = {name: new_token(os.urandom(32)) for name in GRANTS}

#: Headers Authorization that let nobody in.
INVALID: list[list[str]] = [
    [],
    [f"Bearer {new_token(bytes(32))}"],
    [f"Bearer {TEXTS['boss']}x"],
    [f"Bearer {TEXTS['boss'][:-1]}"],
    [f"Bearer {digest_of(TEXTS['boss'].encode()).hex()}"],
    ["Bearer"],
    ["Bearer "],
    ["Bearer a b"],
    [TEXTS["boss"]],
    [f"Basic {TEXTS['boss']}"],
    [f"Bearer {TEXTS['boss']}"] * 2,
    [f"Bearer {TEXTS['boss']},{TEXTS['boss']}"],
]


def line(name: str, grants: str = "") -> str:
    """What follows on a token's name in its line."""
    return f"{grants or GRANTS[name][0]} sha256:{digest_of(TEXTS[name].encode()).hex()}"


def is_allowed(token: str, route: str) -> bool:
    """Whether a token lets its user take a route."""
    grants, scopes = GRANTS[token]
    _, _, scope, limited_will_do = REQUESTS[route]
    if scope is None:
        return True
    if route == "metrics" and grants in ("read", "read-secrets", "write"):
        return True
    if scope not in scopes.split():
        return False
    if token == "outside":
        return limited_will_do and route not in OF_A_JOB
    return ":" not in grants or limited_will_do


def batched(asked: list[T], size: int) -> Iterator[list[T]]:
    for begin in range(0, len(asked), size):
        yield asked[begin : begin + size]


class TokenTestCase(DaemonTestCase):
    def ask(self, url: str, route: str, authorization: list[str]) -> Deferred[tuple[int, str]]:
        """Take a route."""
        method, target, _, _ = REQUESTS[route]
        headers: dict[str, Any] = {"Authorization": authorization} if authorization else {}
        data = None
        if route in ("act", "change"):
            headers["Content-Type"] = "application/json"
            body: dict[str, Any] = {"enable": True}
            if route == "act":
                body = {"do": "enable", "filter": {"path": "team/a"}, "dry_run": True}
            data = json.dumps(body).encode()
        if route == "log_in":
            headers["Content-Type"] = "application/json"
            data = json.dumps({"token": TEXTS["boss"]}).encode()
        if route == "once":
            headers["Content-Type"], data = "text/plain", b"x"
        call = self.call(method, url + target, headers=headers, data=data)
        return Deferred.fromCoroutine(call)

    def bearer(self, token: str) -> list[str]:
        return [f"Bearer {TEXTS[token]}"]


# Which engine has the jobs makes no difference to what is refused.
@each_engine(globals(), only=("sqlite",))
class TokensTests(TokenTestCase):
    async def test_each_route(self) -> None:
        """P12: each token at each route; what is refused has changed nothing."""
        self.assertEqual({rule.endpoint for rule in Api.app.url_map.iter_rules()}, set(REQUESTS))
        self.assertEqual(
            {scope for _, _, scope, _ in REQUESTS.values() if scope}
            | {Scope.ADMIN, Scope.READ_SECRETS},
            set(Scope),
        )
        daemon, url = await self.start(tokens={name: line(name) for name in GRANTS})
        await self.ask(url, "schedule", self.bearer("boss"))
        before = await self.ask(url, "get", self.bearer("boss"))
        asked = [(route, invalid) for route in REQUESTS for invalid in INVALID]
        for some in batched(asked, MOST_HELD):
            answers = await gatherResults([self.ask(url, *each) for each in some])
            for (route, invalid), (status, body) in zip(some, answers, strict=True):
                expected = 200 if REQUESTS[route][2] is None else 401
                self.assertEqual(status, expected, (route, invalid, body))
                self.assertNotIn(TEXTS["boss"][:20], body)
        for route in REQUESTS:
            for token in GRANTS:
                if not is_allowed(token, route):
                    status, body = await self.ask(url, route, self.bearer(token))
                    self.assertEqual(status, 403, (route, token, body))
                    self.assertNotIn(TEXTS[token], body)
        self.assertEqual(await self.ask(url, "get", self.bearer("boss")), before)
        for route in REQUESTS:
            for token in GRANTS:
                if is_allowed(token, route):
                    status, body = await self.ask(url, route, self.bearer(token))
                    self.assertIn(status, (200, 201, 202, 204, 404), (route, token, body))
        self.assertIn("'team/a' '1' by inside: scheduled every 3600 s", daemon.output)
        self.assertIn("more requests of 127.0.0.1 were refused", await self.stopped(daemon))
        for text in TEXTS.values():
            self.assertNotIn(text, daemon.output)

    async def stopped(self, daemon: Any) -> str:
        """What a daemon has said by its end."""
        daemon.send(signal.SIGTERM)
        await daemon.ended
        return str(daemon.output)


@each_engine(globals())
class AuditTests(TokenTestCase):
    """Who has changed what, from outside."""

    async def asked(self, token: str, method: str, target: str, body: Any = None) -> Any:
        headers: dict[str, Any] = {"Authorization": self.bearer(token)}
        data = None
        if body is not None:
            kind = "merge-patch+json" if method == "PATCH" else "json"
            headers["Content-Type"], data = f"application/{kind}", json.dumps(body).encode()
        status, text = await self.call(method, self.url + target, headers=headers, data=data)
        self.assertIn(status, (200, 201, 202, 204), text)
        return json.loads(text) if text else None

    async def test_what_was_acknowledged(self) -> None:
        """P1, P13: each write that was acknowledged has one entry, and no secret is in any."""
        workers = 1 if self.engine == "sqlite" else 2
        tokens = {name: line(name) for name in ("boss", "writer")}
        _, self.url = await self.start(tokens=tokens, jobs={"workers": workers})
        secret = "s3cr3t in a payload"
        body = {"interval": 3600, "payload": secret, "headers": {"X-Key": secret}}
        for _ in range(2):
            puts = [self.asked("writer", "PUT", f"/jobs/team/{n}", body) for n in range(20)]
            await gatherResults(map(Deferred.fromCoroutine, puts))
        await self.asked("boss", "PATCH", "/jobs/team/7", {"interval": 60, "payload": "other"})
        action = {"do": "disable", "filter": {"path": "team"}, "reason": "sale"}
        begun = await self.asked("writer", "POST", "/actions", action)
        target = f"/actions/{begun['id']}"
        while (ended := await self.asked("boss", "GET", target))["ended"] is None:
            await self.pause(0.05)
        self.assertEqual((ended["by"], ended["done"]), ("writer", 20))
        job = await self.asked("boss", "GET", "/jobs/team/19")
        self.assertEqual((job["disabled_by"], job["disabled_reason"]), ("writer", "sale"))
        change = job["last_change"]
        self.assertEqual((change["by"], change["verb"]), ("writer", "disable"))
        entries = []
        target = "/audit?limit=30"
        while target:
            page = await self.asked("boss", "GET", target)
            entries += page["entries"]
            self.assertNotIn(secret, json.dumps(page))
            cursor = page.get("cursor")
            target = cursor and f"/audit?limit=30&cursor={cursor}"
        self.assertEqual({entry["address"] for entry in entries}, {"127.0.0.1"})
        found = Counter((entry["by"], entry["verb"], "old" in entry) for entry in entries)
        expected = {("writer", "put", False): 20, ("writer", "put", True): 20}
        expected |= {("boss", "patch", True): 1, ("writer", "action", False): 1}
        self.assertEqual(found, {**expected, ("writer", "disable", True): 20})
        (patched,) = (entry for entry in entries if entry["verb"] == "patch")
        self.assertEqual((patched["old"]["interval"], patched["new"]["interval"]), (3600, 60))
        self.assertEqual(patched["old"]["headers"], patched["new"]["headers"])
        self.assertNotEqual(patched["old"]["payload"], patched["new"]["payload"])


@each_engine(globals())
class RotationTests(TokenTestCase):
    async def ask_all(self, url: str, token: str) -> set[int]:
        """The statuses of several requests: the kernel chooses a worker for each."""
        asked = [self.ask(url, "page", self.bearer(token)) for _ in range(8)]
        return {status for status, _ in await gatherResults(asked)}

    async def test_rotation(self) -> None:
        """P12: a token that a reload has removed is none any more; a new one is; others stay."""
        file = Path(self.folder, "tokens").absolute()
        file.write_text(f"writer = {line('writer')}\nreader = {line('reader')}\n")
        workers = 1 if self.engine == "sqlite" else 2
        daemon, url = await self.start(tokens={"file": file}, jobs={"workers": workers})
        for token, expected in (("writer", 200), ("reader", 200), ("secrets", 401)):
            self.assertEqual(await self.ask_all(url, token), {expected})
        file.write_text(f"reader = {line('reader')}\nwriter = {line('secrets')}\n")
        daemon.send(signal.SIGHUP)
        await daemon.says(r"changed: \[tokens\] writer")
        while await self.ask_all(url, "secrets") != {200}:
            await self.pause(0.05)  # each worker reads for itself
        for token, expected in (("writer", 401), ("reader", 200)):
            self.assertEqual(await self.ask_all(url, token), {expected})

    async def test_no_tokens_any_more(self) -> None:
        """P12: no reload opens a daemon unasked, as one in the middle of a writing might."""
        daemon, url = await self.start(tokens={"reader": line("reader")})
        self.ini()
        daemon.send(signal.SIGHUP)
        await daemon.says("all stays as it was: there are no tokens any more")
        self.assertEqual(await self.ask_all(url, "writer"), {401})
        self.ini(listen={"allowUnauthenticated": "yes"})
        daemon.send(signal.SIGHUP)
        await daemon.says(r"changed: .*\[tokens\] reader")
        while await self.ask_all(url, "writer") != {200}:
            await self.pause(0.05)
