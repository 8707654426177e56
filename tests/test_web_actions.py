"""Actions over HTTP: what POST takes, what it refuses, and what is shown."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import ActionNotFound, InvalidRequest, ReplayImpossible, RunNotFound, RunUnderWay
from dalga.model.action import Action, ActionRequest, ActionState, Do
from dalga.model.answers import statuses_from_text
from dalga.model.attempt import ErrorKind
from dalga.model.delivery import Delivery
from dalga.model.key import JobKey
from dalga.model.listing import Filters
from dalga.model.options import Options
from dalga.model.permit import Author
from dalga.model.plan import Plan
from dalga.model.record import Result
from dalga.model.runid import RunId, run_id_from_text
from dalga.model.runlist import RunFilters
from dalga.model.schedule import Once
from dalga.model.state import State
from dalga.model.zone import Zone
from dalga.store.puts import as_planned
from dalga.web.actions import action_json, action_list, action_request
from dalga.web.errors import UnsupportedMediaType
from tests.examples import NOW
from tests.test_web_api import JSON, APITestCase

ID = "01JE0000000000000000000000"
REQUEST = ActionRequest(Do.DISABLE, Filters(path="p"), reason="a sale")
ACTION = Action(id=ID, request=REQUEST, state=ActionState.ACTING, made=NOW, matched=3, done=1)


def read(body: str) -> ActionRequest:
    return action_request(b"", "application/json; charset=utf-8", body.encode())


class RequestTests(SynchronousTestCase):
    """The body of a POST."""

    def test_read(self) -> None:
        tagged = Filters(tags=frozenset({"a", "b"}), states=frozenset({State.FAILED}))
        runs = RunFilters(
            endpoint="billing",
            results=frozenset({Result.GIVEN_UP, Result.SKIPPED}),
            statuses=statuses_from_text("500-599"),
            error_kinds=frozenset({ErrorKind.STATUS}),
            since=NOW,
        )
        expected: Any
        for body, expected in [
            (
                '"do":"delete","filter":{"prefix":"x","contains":"c"}',
                (Do.DELETE, Filters(prefix="x", contains="c")),
            ),
            ('"do":"Trigger","all":true', (Do.TRIGGER, Filters(), True)),
            ('"do":"trigger","all":true,"filter":{}', (Do.TRIGGER, Filters(), True)),
            ('"do":"replay","all":"yes"', (Do.REPLAY, RunFilters(), True)),
            ('"do":"enable","filter":{"tag":["a","b"],"state":"failed"}', (Do.ENABLE, tagged)),
            (
                '"do":"enable","filter":{"due_before":"2014-11-11T22:10:40Z"}',
                (Do.ENABLE, Filters(due_before=NOW)),
            ),
            (
                '"do":"replay","filter":{"endpoint":"billing","result":["given_up","skipped"],'
                '"status":"500-599","error_kind":"status","since":"2014-11-11T22:10:40Z"}',
                (Do.REPLAY, runs),
            ),
            (
                '"do":"disable","filter":{"path":"p"},"dry-run":true,"expect_at_most":0,"reason":"r"',
                (Do.DISABLE, Filters(path="p"), False, True, 0, "r"),
            ),
        ]:
            self.assertEqual(read(f"{{{body}}}"), ActionRequest(*expected), body)

    def test_refused(self) -> None:
        """In a sentence, with a pointer to the member."""
        for body, words, pointer in [
            ("", "do is missing: give replay, trigger, enable, disable, delete, with a", ""),
            ('"do":"stop","all":true', "do is 'stop': it takes replay, trigger, ", "/do"),
            ('"do":"delete"', "filter is empty, so delete would be done to all jobs", "/filter"),
            ('"do":"delete","filter":{}', "filter is empty, so delete would be done", "/filter"),
            (
                '"do":"delete","filter":null',
                "'filter' is 'null': it takes a JSON object",
                "/filter",
            ),
            ('"do":"delete","filter":["a"]', "'filter' is an array: it takes a JSON", "/filter"),
            (
                '"do":"delete","filter":{"path":"p"},"all":true',
                "all is true, and filter leaves jobs out",
                "/all",
            ),
            (
                '"do":"delete","filter":{"path":"p","prefix":"q"}',
                "path and prefix are both given",
                "/filter",
            ),
            (
                '"do":"delete","filter":{"paht":"p"}',
                "there is no parameter 'paht' (did you mean path?): a filter of jobs takes path, ",
                "/filter/paht",
            ),
            (
                '"do":"trigger","filter":{"result":"given_up"}',
                "(it is a filter of runs, and trigger is done to jobs)",
                "/filter/result",
            ),
            (
                '"do":"replay","filter":{"state":"failed"}',
                "(it is a filter of jobs, and replay is done to runs)",
                "/filter/state",
            ),
            (
                '"do":"replay","filter":{"result":"running"}',
                "and no such run can be replayed",
                "/filter/result",
            ),
            ('"do":"delete","filter":{"limit":3}', "no parameter 'limit'", "/filter/limit"),
            ('"do":"delete","filter":{"sort":"due"}', "no parameter 'sort'", "/filter/sort"),
            ('"do":"delete","filter":{"state":[]}', "state is an empty array", "/filter/state"),
            ('"do":"delete","filter":{"state":["done",1]}', "state is '1'", "/filter/state/1"),
            ('"do":"delete","filter":{"state":"x"}', "state is 'x'", "/filter/state"),
            ('"do":"delete","filter":{"path":["a"]}', "an object or array", "/filter/path"),
            ('"do":"replay","filter":{"path":"\\ud800"}', "half a character", "/filter/path"),
            ('"do":"delete","filter":{"prefix":"\\udfff"}', "half a character", "/filter/prefix"),
            ('"do":"delete","all":true,"dryrun":true', "did you mean dry-run?", "/dryrun"),
            ('"do":"delete","all":true,"expect_at_most":-1', "0 to 4294967295", "/expect_at_most"),
            ('"do":"delete","all":true,"reason":""', "reason is empty", "/reason"),
        ]:
            error = self.assertRaises(InvalidRequest, read, f"{{{body}}}")
            self.assertIn(words, str(error), body)
            self.assertEqual([each for each, _ in error.errors], [pointer], body)

    def test_another_body(self) -> None:
        for kind in ("application/x-www-form-urlencoded", "text/plain", None):
            self.assertRaises(UnsupportedMediaType, action_request, b"", kind, b"do=delete")
        error = self.assertRaises(
            InvalidRequest, action_request, b"all=true", "application/json", b"{}"
        )
        self.assertIn("an action takes no query", str(error))
        error = self.assertRaises(InvalidRequest, read, "[]")
        self.assertIn('not an object: it takes one such as {"do":"replay"', str(error))

    def test_how_many_are_listed(self) -> None:
        for query, limit in ((b"", 20), (b"limit=1", 1), (b"limit=100", 100)):
            self.assertEqual(action_list(query), limit)
        for query in (b"limit=0", b"limit=101", b"limit=x", b"x=1", b"limit=1&limit=2"):
            self.assertRaises(InvalidRequest, action_list, query)


class JSONTests(SynchronousTestCase):
    """What is shown of an action."""

    def test_members(self) -> None:
        ended = NOW + timedelta(seconds=2)
        over = replace(
            ACTION, state=ActionState.DONE, ended=ended, failed=1, error="why", instance="a"
        )
        beginning = f'{{"id":"{ID}","do":"disable","filter":{{"path":"p"}},"reason":"a sale",'
        for action, text in [
            (
                ACTION,
                f'{beginning}"state":"acting","matched":3,"done":1,"failed":0,'
                '"began":"2014-11-11T22:10:40Z","ended":null}',
            ),
            (
                over,
                f'{beginning}"state":"done","matched":3,"done":1,"failed":1,"error":"why",'
                '"began":"2014-11-11T22:10:40Z","ended":"2014-11-11T22:10:42Z","instance":"a"}',
            ),
            (
                replace(ACTION, request=None, state=ActionState.FAILED),
                f'{{"id":"{ID}","state":"failed","matched":3,"done":1,"failed":0,'
                '"began":"2014-11-11T22:10:40Z","ended":null}',
            ),
        ]:
            self.assertEqual(action_json(action).decode(), text)


class CallTests(APITestCase):
    """The routes."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[Any] = []
        store: Any = self.store
        store.begin_action = self.answering(replace(ACTION, state=ActionState.COUNTING))
        store.action = store.stop_action = self.answering(ACTION)
        store.actions = self.answering([ACTION])

    def answering(self, result: Any) -> Any:
        def call(argument: Any, author: Author | None = None) -> Deferred[Any]:
            self.asked.append(argument)
            if argument == "gone":
                return fail(ActionNotFound("there is no action 'gone'"))
            return succeed(result)

        return call

    async def test_post(self) -> None:
        """202, where the action can be seen, and what it is."""
        body = b'{"do":"disable","filter":{"path":"p"},"reason":"a sale"}'
        answer = await self.ask(b"POST /actions", JSON, body)
        head, _, members = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 202 Accepted\r\n"), head)
        self.assertIn(f"\r\nLocation: /actions/{ID}".encode(), head)
        self.assertEqual(json.loads(members)["state"], "counting")
        self.assertEqual(self.asked, [REQUEST])

    async def test_refused(self) -> None:
        """Each mistake by its pointer; and headers that would say something else."""
        status, detail = await self.refusal(
            b"POST /actions", JSON, b'{"do":"delete","filter":{"state":["x"]},"dryrun":1}'
        )
        self.assertEqual(status, 400)
        self.assertIn("did you mean dry-run?", detail)
        assert self.errors is not None
        self.assertEqual([error["pointer"] for error in self.errors], ["/dryrun"])
        for header in (b"If-Match: *\r\n", b"Idempotency-Key: a\r\n"):
            status, _ = await self.refusal(
                b"POST /actions", JSON + header, b'{"do":"delete","all":1}'
            )
            self.assertEqual(status, 400)
        status, _ = await self.refusal(b"POST /actions", b"", b"do=delete")
        self.assertEqual(status, 415)
        self.assertEqual(self.asked, [])

    async def test_replay(self) -> None:
        """201, the job, and where it is."""
        run = "0123456789abcdef0123456789abcdef-17"
        planned = Plan(Once(Zone()), Options(), NOW, NOW, delivery=Delivery(replay_of=run))
        job = as_planned(JobKey("a b", "1"), planned, NOW)
        store: Any = self.store
        asked: list[Any] = []

        def replay(
            run_id: RunId, endpoints: Collection[str], author: None, limits: None
        ) -> Deferred[Any]:
            asked.append((run_id, set(endpoints)))
            return fail(problems.pop()) if problems else succeed(job)

        problems: list[Exception] = []
        store.replay = replay
        answer = await self.ask(b"POST /runs/" + run.encode() + b"/replay")
        head, _, members = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 201 Created\r\n"), head)
        self.assertIn(b"\r\nLocation: /jobs/a%20b/1", head)
        self.assertIn(b"\r\nETag: ", head)
        self.assertEqual(json.loads(members)["replay_of"], run)
        self.assertEqual(self.announced, [NOW])
        for problem, status in (
            (RunNotFound("x"), 404),
            (RunUnderWay("x"), 409),
            (ReplayImpossible("x"), 409),
        ):
            problems.append(problem)
            found, _ = await self.refusal(b"POST /runs/" + run.encode() + b"/replay")
            self.assertEqual(found, status)
        self.assertEqual(asked, [(run_id_from_text(run), {"default", "billing"})] * 4)
        for other in (b"x", run.upper().encode(), b"%2F"):
            status, _ = await self.refusal(b"POST /runs/" + other + b"/replay")
            self.assertEqual(status, 404)
        self.assertEqual(len(asked), 4)
        for header in (b"If-Match: *\r\n", b"Idempotency-Key: a\r\n"):
            target = b"POST /runs/" + run.encode() + b"/replay"
            self.assertEqual((await self.refusal(target, header))[0], 400)

    async def test_a_replay_takes_no_parameter(self) -> None:
        """It is made at once: who asks for another time, or another payload, is told so."""
        target = b"POST /runs/0123456789abcdef0123456789abcdef-17/replay"
        status, problem = await self.refusal(target + b"?delay=60")
        self.assertEqual(status, 400)
        self.assertIn("'delay' is no parameter of a replay, which takes none", str(problem))
        status, problem = await self.refusal(target, JSON, b'{"delay":60}')
        self.assertEqual(status, 400)
        self.assertIn("there is a body: a replay takes none", str(problem))

    async def test_get_and_stop(self) -> None:
        for call, asked in [
            (b"GET /actions", 20),
            (b"GET /actions?limit=3", 3),
            (b"GET /actions/" + ID.encode(), ID),
            (b"DELETE /actions/" + ID.encode(), ID),
        ]:
            answer = await self.ask(call)
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
            found = json.loads(answer.partition(b"\r\n\r\n")[2])
            (action,) = found["actions"] if b"/actions/" not in call else [found]
            self.assertEqual((action["id"], action["do"]), (ID, "disable"))
            self.assertEqual(self.asked.pop(), asked)
        for method in (b"GET", b"DELETE"):
            status, detail = await self.refusal(method + b" /actions/gone")
            self.assertEqual((status, detail), (404, "there is no action 'gone'"))
        status, _ = await self.refusal(b"PUT /actions")
        self.assertEqual(status, 405)
