"""
Writes that say what they are meant for: preconditions, merge patches, payloads that run once, and
requests that are asked once more. Over a real socket, as tests/test_web_api.py.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred

from dalga.allowed import Allowed
from dalga.errors import StoreUnavailable
from dalga.model.delivery import MAX_PAYLOAD, Method, Payload, PayloadKind
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import JobKey
from dalga.model.name import generated_name
from tests.test_web_api import ENDPOINTS, FORM, JSON, NOW, APITestCase

PATCH = b"Content-Type: application/merge-patch+json\r\n"
NAME = r"[0-7][0-9A-HJKMNP-TV-Z]{25}"


def header(answer: bytes, name: str) -> str | None:
    """The value of a header of an answer."""
    head = answer.partition(b"\r\n\r\n")[0].decode()
    found = re.search(rf"\r\n{name}: ([^\r]*)", head)
    return found[1] if found else None


def members(answer: bytes) -> dict[str, Any]:
    """The JSON of an answer."""
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


class ETagTests(APITestCase):
    async def test_of_the_definition(self) -> None:
        put = await self.ask(b"PUT /jobs/a/b?interval=60")
        self.assertEqual(header(put, "ETag"), '"1"')
        for line in (b"GET /jobs/a/b", b"HEAD /jobs/a/b", b"PATCH /jobs/a/b?disable=true"):
            self.assertEqual(header(await self.ask(line), "ETag"), '"1"', line)
        self.assertEqual(header(await self.ask(b"PUT /jobs/a/b?interval=61"), "ETag"), '"2"')
        self.store.rows[JobKey("a", "b")] = replace(await self.job(), version=0xABC)
        self.assertEqual(header(await self.ask(b"GET /jobs/a/b"), "ETag"), '"abc"')

    async def job(self) -> Job:
        job = self.store.rows[JobKey("a", "b")]
        assert isinstance(job, Job)
        return job

    async def test_of_no_other_answer(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        for line in (
            *(b"POST /jobs/a/b", b"GET /jobs/a/b/upcoming", b"GET /jobs", b"DELETE /jobs/a/b"),
            *(b"GET /jobs/a/b", b"PUT /jobs/a/b"),
        ):
            self.assertIsNone(header(await self.ask(line), "ETag"), line)
        key = JobKey("a", "b")
        self.store.rows[key] = UnreadableJob(key, "interval is 'x'")
        self.assertIsNone(header(await self.ask(b"GET /jobs/a/b"), "ETag"))

    async def test_a_get_is_answered_whatever_it_has(self) -> None:
        """The ETag is that of the definition, and the answer shows the next run, too."""
        put = await self.ask(b"PUT /jobs/a/b?interval=60")
        for line in (b'If-None-Match: "1"\r\n', b"If-None-Match: *\r\n", b'If-Match: "2"\r\n'):
            got = await self.ask(b"GET /jobs/a/b", line)
            self.assertEqual(got, put.replace(b"201 Created", b"200 OK"))


class PreconditionTests(APITestCase):
    #: Writes of the job a/b.
    WRITES = (
        b"PUT /jobs/a/b?interval=60",
        b"PATCH /jobs/a/b?disable=true",
        b"PATCH /jobs/a/b?enable=true",
        b"DELETE /jobs/a/b",
    )

    async def test_if_match(self) -> None:
        for write in self.WRITES:
            await self.ask(b"PUT /jobs/a/b?interval=60")
            version = b"%x" % self.store.version
            before = dict(self.store.rows)
            for wrong in (b'"fff"', b'W/"%b"' % version, b'"x", "y"'):
                status, detail = await self.refusal(write, b"If-Match: " + wrong + b"\r\n")
                self.assertEqual(status, 412)
                self.assertIn("has another ETag than those of If-Match", detail)
            self.assertEqual(self.store.rows, before)
            lines = b'If-Match: "x"\r\nIf-Match: "fff", "%b"\r\n' % version
            self.assertIn((await self.ask(write, lines))[9:12], (b"200", b"201", b"204"))

    async def test_whatever_the_version(self) -> None:
        for write in self.WRITES:
            self.store.rows.clear()
            for tags in (b"*", b'"1"'):
                status, detail = await self.refusal(write, b"If-Match: " + tags + b"\r\n")
                self.assertEqual(status, 412)
                self.assertIn("there is no job with path 'a' and body 'b'", detail)
            self.assertEqual(self.store.rows, {})
            await self.ask(b"PUT /jobs/a/b?interval=60")
            answer = await self.ask(write, b"If-Match: *\r\n")
            self.assertIn(answer[9:12], (b"200", b"201", b"204"))

    async def test_if_there_is_none(self) -> None:
        for write in self.WRITES:
            self.store.rows.clear()
            answer = await self.ask(write, b"If-None-Match: *\r\n")
            self.assertIn(answer[9:12], (b"201", b"204", b"404"), write)
            await self.ask(b"PUT /jobs/a/b?interval=61")
            before = dict(self.store.rows)
            status, detail = await self.refusal(write, b"If-None-Match: *\r\n")
            self.assertEqual(status, 412)
            self.assertIn("there is a job with path 'a' and body 'b' already", detail)
            self.assertEqual(self.store.rows, before)

    async def test_what_is_no_precondition_is_refused(self) -> None:
        for write in self.WRITES:
            for lines, words in [
                (b"If-Match: 1\r\n", "it takes *, or ETags in double quotes"),
                (b"If-Match:\r\n", "If-Match is empty"),
                (b'If-None-Match: "1"\r\n', "with a write it takes *"),
                (b"If-Match: *\r\nIf-None-Match: *\r\n", "give just one of them"),
            ]:
                status, detail = await self.refusal(write, lines)
                self.assertEqual(status, 400)
                self.assertIn(words, detail)
        self.assertEqual(self.store.calls, [])

    async def test_a_post_refuses_them(self) -> None:
        """What would be ignored is not taken in silence."""
        await self.ask(b"PUT /jobs/a/b?interval=60")
        for target in (b"/jobs/a/b", b"/jobs/a"):
            for name in (b"If-Match", b"If-None-Match"):
                status, detail = await self.refusal(b"POST " + target, name + b": *\r\n")
                self.assertEqual(status, 400)
                self.assertIn("all other calls do their work whatever its ETag", detail)
        status, detail = await self.refusal(b"POST /jobs/a/b", b"Idempotency-Key: x\r\n")
        self.assertEqual(status, 400)
        self.assertIn("leave Idempotency-Key out", detail)
        self.assertEqual(self.store.calls, ["put"])


class PatchTests(APITestCase):
    """Merge patches (RFC 7396)."""

    async def change(self, body: bytes, headers: bytes = b"") -> bytes:
        return await self.ask(b"PATCH /jobs/a/b", headers + PATCH, body)

    async def refused(self, body: bytes, *headers: bytes) -> dict[str, Any]:
        answer = await self.change(body, *headers)
        self.assertIn(b"\r\nContent-Type: application/problem+json\r\n", answer)
        return members(answer)

    async def test_single_options_change(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60&count=3&tags=x")
        answer = await self.change(b'{"count":5,"tags":null,"description":"d"}')
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertEqual(header(answer, "ETag"), '"2"')
        shown = members(answer)
        self.assertEqual((shown["count"], shown["description"]), (5, "d"))
        self.assertNotIn("tags", shown)
        self.assertEqual(members(await self.ask(b"GET /jobs/a/b")), shown)
        self.assertEqual(len(self.announced), 2)

    async def test_the_times_stay_unless_the_schedule_changes(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        self.store.time += timedelta(seconds=30)
        for body, next_run in [
            (b'{"count":5}', "2014-11-11T22:11:40Z"),
            (b'{"interval":60}', "2014-11-11T22:11:40Z"),
            (b'{"interval":90}', "2014-11-11T22:12:40Z"),
        ]:
            self.assertEqual(members(await self.change(body))["next_run"], next_run)

    async def test_what_changes_nothing(self) -> None:
        put = await self.ask(b"PUT /jobs/a/b?interval=60")
        for body in (b"{}", b'{"interval":60}', b'{"path":"a","body":"b"}', b'{"tags":null}'):
            same = await self.change(body)
            self.assertEqual(same, put.replace(b"201 Created", b"200 OK"), body)

    async def test_the_content_type_decides(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        for kind in (
            b"application/merge-patch+json; charset=utf-8",
            b"Application/Merge-Patch+JSON",
        ):
            headers = b"Content-Type: " + kind + b"\r\n"
            answer = await self.ask(b"PATCH /jobs/a/b", headers, b'{"count":5}')
            self.assertIn(b" 200 ", answer)
        status, detail = await self.json_refusal(b'{"count":5}')
        self.assertEqual(status, 400)
        self.assertIn("a change takes enable, disable, reason", detail)
        self.assertIn("Content-Type: application/merge-patch+json", detail)
        kind = b"Content-Type: application/json-patch+json\r\n"
        status, detail = await self.refusal(b"PATCH /jobs/a/b", kind, b"[]")
        self.assertEqual(status, 415)
        self.assertIn("it takes application/merge-patch+json, ", detail)
        self.assertIn(b" 200 ", await self.ask(b"PATCH /jobs/a/b", JSON, b'{"disable":true}'))

    async def json_refusal(self, body: bytes) -> tuple[int, str]:
        problem = members(await self.ask(b"PATCH /jobs/a/b", JSON, body))
        return problem["status"], problem["detail"]

    async def test_a_body_that_is_no_object(self) -> None:
        """By RFC 7396 it would take the place of the whole job, which no other value can."""
        await self.ask(b"PUT /jobs/a/b?interval=60")
        for body in (b"[]", b"null", b'"x"', b"5", b"", b"{", b'[{"count":5}]'):
            problem = await self.refused(body)
            self.assertEqual(problem["status"], 400, body)
            self.assertIn("JSON", problem["detail"])
        self.assertEqual(self.store.calls, ["put"])

    async def test_each_mistake_has_its_pointer(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        problem = await self.refused(b'{"count":0,"retry":{"jitter":2},"next_run":"x","nope":1}')
        self.assertEqual(problem["status"], 400)
        pointers = [each["pointer"] for each in problem["errors"]]
        self.assertEqual(sorted(pointers), ["/count", "/next_run", "/nope", "/retry/jitter"])
        problem = await self.refused(b'{"endpoint":"nowhere"}')
        self.assertEqual(problem["errors"][0]["pointer"], "/endpoint")
        problem = await self.refused(b'{"alert_url":"nowhere"}')
        self.assertEqual(problem["errors"][0]["pointer"], "/alert_url")
        problem = await self.refused(b'{"payload":"%b"}' % (b"x" * (MAX_PAYLOAD + 1)))
        self.assertEqual(problem["errors"][0]["pointer"], "/payload")
        problem = await self.refused(b'{"interval":null}')
        self.assertEqual(problem["status"], 400)
        self.assertEqual(self.store.version, 1)

    async def test_a_query_is_refused(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        answer = await self.ask(b"PATCH /jobs/a/b?count=5", PATCH, b"{}")
        self.assertIn("leave the query out", members(answer)["detail"])

    async def test_a_job_whose_endpoint_is_gone(self) -> None:
        """All but its endpoint can be changed."""
        await self.ask(b"PUT /jobs/a/b?interval=60&endpoint=billing")
        self.jobs.allowed = Allowed(ENDPOINTS[:1])
        self.assertEqual(members(await self.change(b'{"count":5}'))["count"], 5)
        self.assertEqual((await self.refused(b'{"timeout":1}'))["status"], 400)
        self.assertNotIn("endpoint", members(await self.change(b'{"endpoint":null}')))

    async def test_no_such_job(self) -> None:
        self.assertEqual((await self.refused(b'{"count":5}'))["status"], 404)
        key = JobKey("a", "b")
        self.store.rows[key] = UnreadableJob(key, "interval is 'x'")
        self.assertEqual((await self.refused(b'{"count":5}'))["status"], 409)

    async def test_if_match(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        self.assertEqual((await self.refused(b'{"count":5}', b'If-Match: "2"\r\n'))["status"], 412)
        self.assertEqual(self.store.version, 1)
        for version in (b"1", b"2"):
            answer = await self.change(b'{"count":%b}' % version, b'If-Match: "%b"\r\n' % version)
            self.assertIn(b" 200 ", answer)


class ReasonTests(APITestCase):
    async def test_shown_while_disabled(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        for request in [
            (b"PATCH /jobs/a/b?disable=true&reason=it+is+too+slow",),
            (b"PATCH /jobs/a/b", FORM, b"disable=true&reason=it+is+too+slow"),
            (b"PATCH /jobs/a/b", JSON, b'{"disable":true,"reason":"it is too slow"}'),
        ]:
            shown = members(await self.ask(*request))
            self.assertEqual(
                (shown["disabled"], shown["disabled_since"], shown["disabled_reason"]),
                (True, "2014-11-11T22:10:40Z", "it is too slow"),
            )
            enabled = members(await self.ask(b"PATCH /jobs/a/b?enable=true"))
            self.assertEqual([name for name in enabled if name.startswith("disabled")], [])
        shown = members(await self.ask(b"PATCH /jobs/a/b?disable=true"))
        self.assertEqual(shown["disabled_since"], "2014-11-11T22:10:40Z")
        self.assertNotIn("disabled_reason", shown)
        longest = "ö" * 254 + "🐰"
        line = b"PATCH /jobs/a/b?disable=true&reason=" + quote(longest).encode()
        self.assertEqual(members(await self.ask(line))["disabled_reason"], longest)

    async def test_refused(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        for query, words in [
            ("enable=true&reason=x", "reason goes with disable"),
            ("reason=x", "there is nothing to change"),
            ("disable=true&reason=", "reason is empty"),
            ("disable=true&reason=+%09", "reason is empty"),
            ("disable=true&reason=" + "x" * 256, "reason has 256 characters"),
            ("disable=true&reason=a%0Ab", "it takes one line"),
            ("disable=true&reason=a%00b", "it takes one line"),
        ]:
            status, detail = await self.refusal(b"PATCH /jobs/a/b?" + query.encode())
            self.assertEqual(status, 400)
            self.assertIn(words, detail)
        surrogate = b'{"disable":true,"reason":"\\ud800"}'
        self.assertEqual((await self.refusal(b"PATCH /jobs/a/b", JSON, surrogate))[0], 400)
        self.assertEqual(self.store.calls, ["put"])


class OnceTests(APITestCase):
    """A payload that runs once, under a generated name."""

    def made(self) -> Job:
        """The one job that there is."""
        (job,) = self.store.rows.values()
        assert isinstance(job, Job)
        self.store.rows.clear()
        return job

    async def test_now(self) -> None:
        answer = await self.ask(b"POST /jobs/mail", b"Content-Type: text/x; a=b\r\n", b"hello")
        self.assertTrue(answer.startswith(b"HTTP/1.1 201 Created\r\n"), answer)
        location = header(answer, "Location")
        self.assertRegex(location or "", rf"\A/jobs/mail/{NAME}\Z")
        self.assertEqual(header(answer, "ETag"), '"1"')
        shown = members(answer)
        self.assertEqual(f"/jobs/{shown['path']}/{shown['body']}", location)
        self.assertEqual(shown["next_run"], "2014-11-11T22:10:40Z")
        got = await self.ask(b"GET " + (location or "").encode())
        self.assertEqual(members(got), shown)
        job = self.made()
        self.assertEqual(job.delivery.payload, Payload(b"hello"))
        self.assertEqual(job.delivery.content_type, "text/x; a=b")
        self.assertEqual(self.announced, [NOW])

    async def test_the_name_begins_with_the_database_s_time(self) -> None:
        first = members(await self.ask(b"POST /jobs/mail"))["body"]
        self.assertEqual(first[:10], generated_name(NOW, bytes(10))[:10])
        second = members(await self.ask(b"POST /jobs/mail"))["body"]
        self.assertEqual(first[:10], second[:10])
        self.assertNotEqual(first, second)

    async def test_any_octets_are_the_payload(self) -> None:
        for body, kind in [
            (b"", PayloadKind.TEXT),
            (b"{", PayloadKind.TEXT),
            (b"interval=60", PayloadKind.TEXT),
            ("ğ🐰\0\r\n".encode(), PayloadKind.TEXT),
            (b"\xff\xfe\x00", PayloadKind.BASE64),
            (b"x" * MAX_PAYLOAD, PayloadKind.TEXT),
        ]:
            for headers in (b"", FORM, JSON, b"Content-Type: application/octet-stream\r\n"):
                answer = await self.ask(b"POST /jobs/mail", headers, body)
                self.assertIn(b" 201 ", answer[:20])
                self.assertEqual(self.made().delivery.payload, Payload(body, kind), body[:9])

    async def test_too_much_is_refused(self) -> None:
        status, detail = await self.refusal(b"POST /jobs/mail", b"", b"x" * (MAX_PAYLOAD + 1))
        self.assertEqual(status, 413)
        self.assertIn(f"{MAX_PAYLOAD} bytes at most", detail)
        self.assertEqual(self.store.calls, [])

    async def test_what_is_compressed_is_refused(self) -> None:
        answer = await self.refusal(b"POST /jobs/mail", b"Content-Encoding: gzip\r\n", b"x")
        self.assertEqual(answer[0], 415)

    async def test_later(self) -> None:
        for query, due in [
            ("delay=90", "2014-11-11T22:12:10Z"),
            ("delay=PT1H", "2014-11-11T23:10:40Z"),
            ("delay=0", "2014-11-11T22:10:40Z"),
            ("at=2030-01-31T09:00:00Z", "2030-01-31T09:00:00Z"),
            ("at=2030-01-31T09:00:00%2B03:00", "2030-01-31T06:00:00Z"),
        ]:
            shown = members(await self.ask(b"POST /jobs/mail?" + query.encode(), b"", b"x"))
            self.assertEqual(shown["next_run"], due, query)

    async def test_parameters(self) -> None:
        query = (
            b"delay=5m&timeout=0.3&retry-interval=2s&retry_multiplier=3&retry-max-interval=10s"
            b"&retry-jitter=0.1&retry-stop-after=1h&retry-max-attempts=4&endpoint=billing"
            b"&success=200-299&gone=none&give-up=400-499&method=put&on-end=keep&tags=a&description=d"
            b"&alert-after=1&expect-within=25h&alert-url=ops"
        )
        await self.ask(b"POST /jobs/mail?" + query, b"", b"x")
        job = self.made()
        self.assertEqual(job.delivery.method, Method.PUT)
        self.assertEqual(job.delivery.retry.max_attempts, 4)
        self.assertEqual(job.options.endpoint, "billing")
        self.assertEqual((job.notes.tags, job.notes.description), (("a",), "d"))
        self.assertEqual(str(job.options.on_end), "keep")
        self.assertEqual((job.options.alert_after, job.options.alert_url), (1, "ops"))

    async def test_without_content(self) -> None:
        for method in ("GET", "HEAD", "DELETE"):
            await self.ask(b"POST /jobs/mail?method=" + method.encode())
            self.assertIsNone(self.made().delivery.payload)
        for method in ("GET", "HEAD"):
            line = b"POST /jobs/mail?method=" + method.encode()
            self.assertEqual((await self.refusal(line, b"", b"x"))[0], 400)
        await self.ask(b"POST /jobs/mail?method=DELETE", b"", b"x")
        self.assertEqual(self.made().delivery.payload, Payload(b"x"))

    async def test_refused(self) -> None:
        for query, words in [
            ("delay=1&at=2030-01-31T09:00:00Z", "delay and at both say when"),
            ("delay=-1", "delay is '-1'"),
            ("delay=1&delay=2", "delay is given twice"),
            ("at=tomorrow", "at is 'tomorrow'"),
            ("at=2030-01-31T09:00:00", "at is '2030-01-31T09:00:00'"),
            ("delai=1", "there is no parameter 'delai' (did you mean delay?)"),
            ("interval=60", "there is no parameter 'interval' (did you mean delay?)"),
            ("first-run=2030-01-31T09:00:00Z", "(did you mean at?)"),
            ("payload=x", "there is no parameter 'payload'"),
            ("cron=*", "there is no parameter 'cron'"),
            ("endpoint=nowhere", "endpoint is 'nowhere'"),
            ("method=BREW", "method is 'BREW'"),
            ("delay=9999999999999", "delay is '9999999999999'"),
            ("delay=P9999Y", "delay is 'P9999Y': it takes 1000 years at most"),
            ("delay=P900Y400000D", "delay is 'P900Y400000D': it takes 1000 years at most"),
        ]:
            status, detail = await self.refusal(b"POST /jobs/mail?" + query.encode(), JSON, b"{}")
            self.assertEqual(status, 400, query)
            self.assertIn(words, detail)
            self.assertNotIn("interval is", detail)
            self.assertNotIn("first-run is", detail)
        status, detail = await self.refusal(b"POST /jobs/mail", b"Content-Type: text\r\n", b"x")
        self.assertEqual(status, 400)
        self.assertIn("Content-Type is 'text'", detail)
        self.assertEqual(self.store.rows, {})

    async def test_paths(self) -> None:
        for path in ("a", "a/b", "jöb ?", "x" * 255, "a:b", "%2F", "upcoming"):
            target = quote(path, safe="").encode()
            answer = await self.ask(b"POST /jobs/" + target)
            location = header(answer, "Location") or ""
            self.assertRegex(location, rf"\A/jobs/[A-Za-z0-9._~%-]+/{NAME}\Z")
            got = await self.ask(b"GET " + location.encode())
            self.assertEqual(members(got)["path"], path)
            self.store.rows.clear()
        for target, status in [
            *((b"..", 400), (b"%2e%2e", 400), (b"%zz", 400), (b"%ff", 400), (b"a%0Ab", 400)),
            *((b"x" * 256, 400), (b"", 404), (b"a/", 400)),
        ]:
            self.assertEqual((await self.refusal(b"POST /jobs/" + target))[0], status, target)
        self.assertEqual(self.store.rows, {})

    async def test_the_path_takes_no_other_method(self) -> None:
        for method in (b"GET", b"HEAD", b"PUT", b"PATCH", b"DELETE"):
            answer = await self.ask(method + b" /jobs/mail?interval=60")
            self.assertIn(b" 404 ", answer)
        _, detail = await self.refusal(b"PUT /jobs/mail?interval=60")
        self.assertIn("a job is at /jobs/<path>/<body>", detail)
        self.assertIn("POST /jobs/<path>", detail)
        answer = await self.ask(b"OPTIONS /jobs/mail")
        self.assertIn(b" 405 ", answer)
        self.assertEqual(header(answer, "Allow"), "POST")
        self.assertEqual(self.store.calls, [])


class IdempotencyTests(APITestCase):
    KEY = b"Idempotency-Key: 7f3a-1\r\n"

    async def test_the_same_again(self) -> None:
        """The answer is the same octets, also when the job is gone."""
        line = b"POST /jobs/mail?delay=60&on-end=keep"
        first = await self.ask(line, self.KEY + JSON, b'{"a":1}')
        self.assertIn(b" 201 ", first)
        again = await self.ask(line, self.KEY + JSON, b'{"a":1}')
        self.store.rows.clear()
        late = await self.ask(line, self.KEY + JSON, b'{"a":1}')
        self.assertEqual([again, late], [first, first])
        self.assertEqual(self.store.rows, {})

    async def test_another_request(self) -> None:
        await self.ask(b"POST /jobs/mail?delay=60", self.KEY + JSON, b'{"a":1}')
        for line, headers, body in [
            (b"POST /jobs/mail?delay=60", JSON, b'{"a":2}'),
            (b"POST /jobs/mail?delay=61", JSON, b'{"a":1}'),
            (b"POST /jobs/mail?delay=60", FORM, b'{"a":1}'),
            (b"POST /jobs/mail?delay=60", b"", b'{"a":1}'),
            (b"POST /jobs/mai%6c?delay=60", JSON, b'{"a":1}'),
        ]:
            answer = await self.ask(line, self.KEY + headers, body)
            self.assertTrue(answer.startswith(b"HTTP/1.1 422 Unprocessable Content\r\n"), answer)
            self.assertIn(b"was given with another request", answer)
        self.assertEqual(len(self.store.rows), 1)
        other = await self.ask(b"POST /jobs/other?delay=60", self.KEY + FORM, b"x")
        self.assertIn(b" 201 ", other)

    async def test_without_a_key_each_is_a_job(self) -> None:
        for _ in range(2):
            await self.ask(b"POST /jobs/mail", b"", b"x")
        self.assertEqual(len(self.store.rows), 2)

    async def test_keys(self) -> None:
        for key, words in [
            (b"", "Idempotency-Key is empty"),
            (b"a b", "it takes 1 to 255 visible characters"),
            (b"\xc3\xb6", "it takes 1 to 255 visible characters"),
            (b"x" * 256, "it takes 1 to 255 visible characters"),
            (b"x\r\nIdempotency-Key: x", "Idempotency-Key is given twice"),
        ]:
            status, detail = await self.refusal(
                b"POST /jobs/mail", b"Idempotency-Key: " + key + b"\r\n"
            )
            self.assertEqual(status, 400, key)
            self.assertIn(words, detail)
        self.assertEqual(self.store.calls, [])
        for key in (b"x" * 255, b'"8e03978e-40d5"', b"!~,;"):
            answer = await self.ask(b"POST /jobs/mail", b"Idempotency-Key: " + key + b"\r\n")
            self.assertIn(b" 201 ", answer)
        self.assertEqual(len(self.store.rows), 3)


class FailureTests(APITestCase):
    """P1 and P4, as for PUT."""

    #: The new calls, with what they write.
    CALLS = (
        (b"POST /jobs/a", b"Idempotency-Key: k\r\n", b"x"),
        (b"POST /jobs/a", b"", b"x"),
        (b"PUT /jobs/a/b?interval=60", b"If-None-Match: *\r\n", b""),
    )

    async def test_a_merge_patch(self) -> None:
        """P1, P4: as the calls that make a job."""
        await self.ask(b"PUT /jobs/a/b?interval=60")
        request = b"PATCH /jobs/a/b HTTP/1.1\r\nHost: x\r\n" + PATCH
        request += b'Content-Length: 11\r\n\r\n{"count":5}'
        for hangs_up in (False, True):
            self.store.stall, self.store.called = Deferred(), Deferred()
            client = await self.connect()
            client.send(request)
            await self.store.called
            if hangs_up:
                client.transport.abortConnection()  # type: ignore[union-attr]
                await self.server_lost[-1]
            else:
                self.clock.advance(4)
                self.assertIn(b" 503 ", await client.answer())
            self.store.stall.callback(None)
            self.assertEqual(self.store.version, 2 if hangs_up else 1)
        self.store.stall, self.store.broken = None, StoreUnavailable("refused")
        self.assertIn(b" 503 ", await self.ask(b"PATCH /jobs/a/b", PATCH, b"{}"))
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_an_unreachable_database(self) -> None:
        self.store.broken = StoreUnavailable("the database can't be reached: refused")
        for line, headers, body in self.CALLS:
            answer = await self.ask(line, headers, body)
            self.assertTrue(answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), answer)
            self.assertIn(b"\r\nRetry-After: 1\r\n", answer)

    async def test_a_slow_database(self) -> None:
        """P4: and what the client was told has failed is not written behind its back."""
        for line, headers, body in self.CALLS:
            self.store.stall, self.store.called = Deferred(), Deferred()
            client = await self.connect()
            length = b"Content-Length: %d\r\n\r\n" % len(body)
            client.send(line + b" HTTP/1.1\r\nHost: x\r\n" + headers + length + body)
            await self.store.called
            self.clock.advance(4)
            self.assertIn(b" 503 ", await client.answer())
            self.store.stall.callback(None)
            self.assertEqual(self.store.rows, {})

    async def test_a_client_that_hangs_up(self) -> None:
        """P1, P4: what was asked for is written and made known, whoever waits for it."""
        for number, (line, headers, body) in enumerate(self.CALLS):
            self.store.stall, self.store.called = Deferred(), Deferred()
            client = await self.connect()
            length = b"Content-Length: %d\r\n\r\n" % len(body)
            client.send(line + b" HTTP/1.1\r\nHost: x\r\n" + headers + length + body)
            await self.store.called
            client.transport.abortConnection()  # type: ignore[union-attr]
            await self.server_lost[number]
            self.store.stall.callback(None)
            self.assertEqual(len(self.store.rows), 1)
            self.assertEqual(len(self.announced), number + 1)
            self.assertEqual(self.flushLoggedErrors(), [])
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.store.rows.clear()
