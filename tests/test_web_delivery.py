"""What a job says, over HTTP: what PUT takes, what it refuses, and what GET shows of it."""

from __future__ import annotations

import json
from typing import Any

from dalga.model.delivery import MAX_PAYLOAD, Payload, PayloadKind
from dalga.model.job import Job
from tests.test_web_api import FORM, JSON, APITestCase


class DeliveryTestCase(APITestCase):
    async def put(self, members: str) -> bytes:
        """:return: the answer to a PUT of a job of each minute."""
        body = f'{{"interval":60,{members}}}'.encode("utf-8", "surrogatepass")
        return await self.ask(b"PUT /jobs/a/b", JSON, body)

    async def shown(self) -> dict[str, Any]:
        answer = await self.ask(b"GET /jobs/a/b")
        members: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return members

    @property
    def job(self) -> Job:
        [job] = self.store.rows.values()
        assert isinstance(job, Job)
        return job


class ShownTests(DeliveryTestCase):
    async def test_json_is_shown_as_it_was_written(self) -> None:
        """Numbers, too, which no parser has to understand; and what is shown is what is sent."""
        for text in ("1.10", "1e400", "12345678901234567890", '{"a":[1.0,-0,1E+2],"ğ":null}'):
            answer = await self.put(f'"payload": {text}')
            self.assertIn(f',"payload":{text}'.encode(), answer)
            self.assertIn(f',"payload":{text}'.encode(), await self.ask(b"GET /jobs/a/b"))
            self.assertIn(f',"payload":{text}}}]}}'.encode(), await self.ask(b"GET /jobs"))
            self.assertEqual(self.job.delivery.payload, Payload(text.encode(), PayloadKind.JSON))

    async def test_in_order(self) -> None:
        """Behind all that a job has without it, and before its state."""
        await self.put(
            '"count":3,"on_end":"keep","redact":"","description":"d","tags":"t","timeout":1,'
            '"retry":{"jitter":1},"method":"put","headers":{"a":"b"},"content_type":"a/b",'
            '"payload":[1]'
        )
        await self.ask(b"PATCH /jobs/a/b?disable=true")
        shown = await self.shown()
        self.assertEqual(
            [*shown],
            [
                *("path", "body", "interval", "next_run", "next_sched"),
                *("count", "successes", "timeout", "on_end"),
                *("payload", "content_type", "headers", "method", "retry", "tags", "description"),
                *("disabled", "disabled_since"),
            ],
        )

    async def test_a_payload_that_somebody_s_sql_has_spoiled(self) -> None:
        """It is a text then: an answer is JSON whatever stands in the database."""
        await self.put('"payload":[1]')
        for octets in (b"[1", b"", b"NaN", b"1,2", b"[" * 100_000, b"9" * 5000 + b"]"):
            delivery = self.job.delivery
            spoiled = Payload(octets, PayloadKind.JSON)
            object.__setattr__(delivery, "payload", spoiled)
            self.assertEqual((await self.shown())["payload"], octets.decode())

    async def test_what_is_redacted_has_to_be_given_again(self) -> None:
        """A PUT of what GET shows never loses what GET doesn't show."""
        await self.put('"payload":"s","headers":{"X-A":"s","b":"c"},"redact":["payload","x-a"]')
        shown = await self.shown()
        self.assertNotIn("payload", shown)
        self.assertEqual(shown["headers"], {"X-A": None, "b": "c"})
        before = self.job
        del shown["next_run"]
        for change, sentence in (
            ({}, "headers has null for 'X-A': a header that is redacted in answers has to be"),
            ({"headers": {"X-A": "s"}}, "redact has payload, and no payload is given: give the"),
            ({"headers": {}, "payload": "s"}, "redact has 'x-a', and headers has no such header"),
        ):
            body = json.dumps({**shown, **change}).encode()
            status, detail = await self.refusal(b"PUT /jobs/a/b", JSON, body)
            self.assertEqual(status, 400)
            self.assertIn(sentence, detail)
        self.assertEqual(self.job, before)
        body = json.dumps({**shown, "headers": {"X-A": "t"}, "payload": "u"}).encode()
        self.assertIn(b" 201 ", await self.ask(b"PUT /jobs/a/b", JSON, body))
        self.assertEqual(self.job.delivery.headers, (("X-A", "t"),))


class RefusedTests(DeliveryTestCase):
    async def refused(self, members: str, sentence: str) -> None:
        body = f'{{"interval":60,{members}}}'.encode("utf-8", "surrogatepass")
        status, detail = await self.refusal(b"PUT /jobs/a/b", JSON, body)
        self.assertEqual(status, 400, members[:80])
        self.assertIn(sentence, detail)
        self.assertEqual(self.store.calls, [], members[:80])

    async def test_nested(self) -> None:
        """However deep, no RecursionError gets out, and no other 500."""
        for depth in (101, 500, 900, 995, 1000, 20_000, 100_000):
            text = "[" * depth + "]" * depth
            for members in (f'"payload":{text}', f'"headers":{{"a":{text}}}', f'"tags":{text}'):
                body = f'{{"interval":60,{members}}}'.encode()
                status, _ = await self.refusal(b"PUT /jobs/a/b", JSON, body)
                self.assertEqual(status, 400)
        await self.refused(f'"payload":{"[" * 101}{"]" * 101}', "it takes 100 levels at most")
        self.assertIn(b" 201 ", await self.put(f'"payload":{"[" * 100}{"]" * 100}'))

    async def test_no_json(self) -> None:
        await self.refused('"payload":NaN', "payload has NaN, which is no JSON")
        await self.refused('"payload":{"a":[Infinity]}', "payload has Infinity, which is no JSON")
        await self.refused('"payload":{"a":1,"a":2}', "payload has an object with 'a' twice")
        await self.refused('"payload":"\\ud800"', "payload has the lone surrogate \\ud800")
        await self.refused('"payload":"\ud800"', "the JSON body is not UTF-8")
        await self.refused('"payload":01', "the body is not JSON")

    async def test_headers_and_retry_are_for_json(self) -> None:
        for name, sentence in (
            (b"headers=x-a%3A+1", "headers is a text: it takes a JSON object"),
            (b"retry=5", "retry is a text: it takes a JSON object; without JSON give retry-inter"),
        ):
            status, detail = await self.refusal(b"PUT /jobs/a/b?interval=60&" + name)
            self.assertEqual(status, 400)
            self.assertIn(sentence, detail)

    async def test_a_part_of_the_retries_twice(self) -> None:
        body = b'{"interval":60,"retry":{"jitter":0}}'
        status, detail = await self.refusal(b"PUT /jobs/a/b?retry-jitter=1", JSON, body)
        self.assertEqual((status, detail[:29]), (400, "retry-jitter is given twice, "))
        answer = await self.ask(b"PUT /jobs/a/b?retry-interval=1", JSON, body)
        self.assertIn(b',"retry":{"interval":1,"jitter":0}', answer)

    async def test_no_secret_is_repeated(self) -> None:
        for request in (
            (b"PUT /jobs/a/b?payload=s3cret&payload=s3cret",),
            (b"PUT /jobs/a/b?payload-base64=s3cret",),
            (b"PUT /jobs/a/b", FORM, b"headers=s3cret&headers=s3cret"),
            (b"PUT /jobs/a/b", JSON, b'{"interval":60,"headers":{"a":"s3cret\\n"}}'),
            (b"PUT /jobs/a/b", JSON, b'{"interval":60,"payload":["s3cret\\ud800"]}'),
        ):
            status, detail = await self.refusal(*request)
            self.assertEqual(status, 400)
            self.assertNotIn("s3cret", detail)

    async def test_more_than_the_configuration_allows(self) -> None:
        """The endpoint's own time limit, not that of another; the payload as it is sent."""
        await self.refused(
            '"timeout":10.5',
            "timeout is 10.5 s, longer than that of the endpoint 'default' in the configuration: "
            "it takes 10 s at most",
        )
        await self.refused(
            '"endpoint":"billing","timeout":0.6',
            "timeout is 0.6 s, longer than that of the endpoint 'billing' in the configuration: "
            "it takes 0.5 s at most",
        )
        most = MAX_PAYLOAD
        for members, what in (
            (f'"payload":"{"x" * (most + 1)}"', "payload"),
            (f'"payload":"{"ğ" * (most // 2)}x"', "payload"),
            (f'"payload":"{"ğ" * (most // 2 + 1)}"', "payload"),
            (f'"payload":["{"x" * most}"]', "payload"),
            (f'"payload_base64":"{"AAAA" * (most // 3 + 1)}"', "payload-base64"),
        ):
            body = f'{{"interval":60,{members}}}'.encode()
            status, detail = await self.refusal(b"PUT /jobs/a/b", JSON, body)
            self.assertEqual(status, 400)
            self.assertRegex(
                detail,
                rf"^{what} has \d+ octets: it takes {most} at most \(maxPayload in \[jobs\]\)$",
            )
        self.assertEqual(self.store.calls, [])
        for members in (
            f'"payload":"{"x" * most}"',
            f'"payload":"{"ğ" * (most // 2)}"',
            '"timeout":10',
            '"endpoint":"billing","timeout":0.5',
        ):
            self.assertIn(b" 201 ", await self.put(members))


class PointerTests(DeliveryTestCase):
    """Where in a JSON body the mistakes are."""

    async def pointers(self, body: str, target: bytes = b"/jobs/a/b") -> list[str] | None:
        """Of the mistakes in the body of a PUT. The detail is the sentence of one of them."""
        _, detail = await self.refusal(b"PUT " + target, JSON, body.encode())
        if self.errors is None:
            return None
        for error in self.errors:
            self.assertEqual([*error], ["pointer", "detail"])
        self.assertIn(detail, [error["detail"] for error in self.errors])
        return [error["pointer"] for error in self.errors]

    async def test_octet_by_octet(self) -> None:
        answer = await self.ask(b"PUT /jobs/a/b", JSON, b'{"interval":60,"method":"TRACE"}')
        sentence = b"method is 'TRACE': it takes POST, PUT, PATCH, DELETE, GET or HEAD"
        self.assertTrue(
            answer.endswith(
                b'{"type":"about:blank","title":"Bad Request","status":400,"detail":"%s",'
                b'"errors":[{"pointer":"/method","detail":"%s"}]}' % (sentence, sentence)
            ),
            answer,
        )

    async def test_all_mistakes_of_members_at_once(self) -> None:
        for body, pointers in [
            ('{"interval":"x","count":0,"until":"now"}', ["/interval", "/count", "/until"]),
            ('{"x":1,"interval":60,"on_failure":1,"y":2}', ["/x", "/y", "/on_failure"]),
            ('{"interval":60,"interval":60,"count":0}', ["/interval", "/count"]),
            ('{"max-lateness":0,"success":[1],"a/b~":1}', ["/a~1b~0", "/max-lateness", "/success"]),
            (
                '{"interval":60,"headers":{"Host":"a","b":"","c":"d"},"retry":{"jitter":2,"x":1}}',
                ["/headers/Host", "/headers/b", "/retry/jitter", "/retry/x"],
            ),
            ('{"interval":60,"tags":["a",""],"payload":{"a":[NaN]}}', ["/payload/a/0", "/tags/1"]),
            (
                '{"interval":60,"next_run":null,"x":1,"failing":null,"count":0}',
                ["/next_run", "/failing", "/x", "/count"],
            ),
        ]:
            found = await self.pointers(body)
            assert found is not None
            self.assertEqual(sorted(found), sorted(pointers), body)
        self.assertEqual(self.store.calls, [])

    async def test_contradictions(self) -> None:
        """The member that is to be changed or left out; the whole where one is missing."""
        for members, pointer in [
            ('"cron":"@daily","interval":60', "/cron"),
            ('"payload":1', ""),
            ('"interval":0', "/interval"),
            ('"interval":0.5', "/interval"),
            ('"interval":60,"immediate":true,"first_run":"2030-01-01T00:00:00Z"', "/immediate"),
            ('"interval":60,"dst_gap":"skip"', "/dst_gap"),
            ('"interval":60,"until":"2001-01-01T00:00:00Z"', "/until"),
            ('"interval":60,"until":"2030-01-01T00:00:00"', "/until"),
            # as it is spelled there
            ('"interval":60,"dst-gap":"skip"', "/dst-gap"),
            ('"interval":60,"\\u011f":1', "/ğ"),
            ('"interval":60,"\\ud800":1', "/?"),
            ('"one-off":true,"interval":60,"on-failure":"stop"', "/on-failure"),
            ('"one_off":true', ""),
            ('"one_off":true,"interval":60,"count":3', "/count"),
            ('"one_off":true,"immediate":true,"jitter":3', "/jitter"),
            ('"one_off":true,"immediate":true,"interval":3', "/interval"),
            ('"one_off":true,"first_run":"2030-01-01T00:00:00Z","interval":3', "/interval"),
            ('"cron":"0 0 30 2 *"', "/cron"),
            ('"interval":60,"endpoint":"x"', "/endpoint"),
            ('"interval":60,"timeout":11', "/timeout"),
            ('"interval":60,"retry":{"interval":9,"max_interval":8}', "/retry/interval"),
            ('"interval":60,"path":"c"', "/path"),
        ]:
            self.assertEqual(await self.pointers(f"{{{members}}}"), [pointer], members)

    async def test_no_pointer(self) -> None:
        """What is no JSON has no members, and neither have a query and a form."""
        self.assertEqual(await self.pointers('{"interval":'), None)
        self.assertEqual(await self.pointers("[]"), None)
        self.assertEqual(await self.pointers('{"interval":60}', b"/jobs/a/b?x=1"), None)
        # A mistake of the query beside one of the body: the sentence is of the former.
        _, detail = await self.refusal(b"PUT /jobs/a/b?x=1", JSON, b'{"count":0}')
        self.assertIn("there is no parameter 'x'", detail)
        assert self.errors is not None
        self.assertEqual([error["pointer"] for error in self.errors], ["/count"])
        for request in (
            (b"PUT /jobs/a/b?interval=x&count=0",),
            (b"PUT /jobs/a/b", FORM, b"interval=x&count=0"),
            (b"PUT /jobs/a/b?interval=60&one-off=1&count=3", JSON, b""),
            (b"PATCH /jobs/a/b", FORM, b"enable=x"),
            (b"GET /preview?interval=x", JSON, b"{}"),
        ):
            status, _ = await self.refusal(*request)
            self.assertEqual((status, self.errors), (400, None))

    async def test_a_body_of_mistakes(self) -> None:
        """P10: neither the answer nor the time for it grows with their number."""
        names = ",".join(f'"x{number}":1' for number in range(15_000))
        values = ",".join("1" for _ in range(30_000))
        counts = ",".join('"count":1' for _ in range(15_000))
        for body in (
            f"{{{names}}}",
            f'{{"headers":{{{names}}}}}',
            f'{{"retry":{{{names}}}}}',
            f'{{"tags":[{values}]}}',
            f"{{{counts}}}",
        ):
            found = await self.pointers(body)
            assert found is not None
            self.assertEqual(len(found), 20)
