"""
The table of a job's parameters: what each row needs elsewhere is there, and a row is enough for a
parameter to be read, shown and kept. docs/api.md is held to it in tests/test_api_page.py.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from itertools import product
from operator import attrgetter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.delivery import AS_CONFIGURED, NO_NOTES, PLAIN, Disabling, Notes
from dalga.model.fields import (
    FIELDS,
    READERS,
    RETRY_PARTS,
    Field,
    kept_details,
    kept_members,
    load_details,
    load_members,
    readers_of,
    shown_parameters,
)
from dalga.model.options import Chosen, Options
from dalga.model.plan import Plan, RawRequest, ScheduleRequest, plan
from dalga.model.reading import Number, Value, count, members_of
from dalga.model.schedule import Every
from dalga.model.writing import Column, Detail, Member
from dalga.store.rows import read_job, terms_text
from dalga.store.selected import JobRow
from dalga.web.bodies import JSON, body_pairs
from dalga.web.parameters import schedule_request
from dalga.web.values import read_values
from tests.examples import KEY, MINUTE, NOW

#: A PUT with each parameter, which has another value than where it is left out.
PUTS = {
    "interval": "interval=P1M",
    "cron": "cron=30+9+*+*+MON-FRI",
    "location": "interval=P1D&location=Europe/Riga",
    "first-run": "interval=60&first-run=2030-01-01T00:00:00Z",
    "one-off": "one-off=true&interval=60",
    "immediate": "interval=60&immediate=true",
    "until": "interval=60&until=2030-01-01T00:00:00.5Z",
    "count": "interval=60&count=3",
    "catch-up": "interval=60&catch-up=skip",
    "max-lateness": "interval=60&max-lateness=90.5",
    "on-failure": "interval=60&on-failure=stop",
    "jitter": "interval=60&jitter=1h",
    "success": "interval=60&success=200-299,+404",
    "gone": "interval=60&gone=none",
    "give-up": "interval=60&give-up=400-499",
    "dst-gap": "interval=P1D&location=Europe/Riga&dst-gap=skip",
    "dst-overlap": "cron=@daily&location=Europe/Riga&dst-overlap=last",
    "if-exists": "interval=60&if-exists=update",
    "endpoint": "interval=60&endpoint=billing",
    "payload": '{"interval":60,"payload":{"price":1.10,"of":["\u011f",null,true]}}',
    "payload-base64": "interval=60&payload-base64=AA8%2B/w==",
    "content-type": "interval=60&content-type=text/plain;+charset=utf-8",
    "headers": '{"interval":60,"headers":{"X-Tenant":"7","x-b":"a b"}}',
    "method": "interval=60&method=put",
    "timeout": "interval=60&timeout=2.5",
    "retry": '{"interval":60,"retry":{"interval":"5s","multiplier":2.5,"max_interval":"PT1H",'
    '"jitter":0,"stop_after":0,"max_attempts":4}}',
    "retry-interval": "interval=60&retry-interval=500ms",
    "retry-multiplier": "interval=60&retry-multiplier=1",
    "retry-max-interval": "interval=60&retry-max-interval=8760h",
    "retry-jitter": "interval=60&retry-jitter=.00001",
    "retry-stop-after": "interval=60&retry-stop-after=6h",
    "retry-max-attempts": "interval=60&retry-max-attempts=1",
    "tags": '{"interval":60,"tags":["invoices","a b"]}',
    "description": "interval=60&description=first%0A%09second",
    "redact": '{"interval":60,"payload":"s","headers":{"X-A":"s3"},"redact":["payload","X-A"]}',
    "on-end": "interval=60&on-end=keep",
    "save-response": "interval=60&save-response=true",
    "alert-after": "interval=60&alert-after=1",
    "expect-within": "interval=60&expect-within=25h",
    "alert-url": "interval=60&alert-url=ops",
}

#: A job of which nothing was chosen.
NOTHING = Plan(Every(MINUTE), Options(), NOW, NOW)


def planned(given: str) -> Plan:
    """
    What a PUT comes to.

    :param given: its query, or its body of JSON.
    """
    text = given.encode()
    in_json = given.startswith("{")
    raw = schedule_request(b"", JSON, text) if in_json else schedule_request(text, None, b"")
    return plan(ScheduleRequest.of(raw), NOW, key=KEY)


class RowTests(SynchronousTestCase):
    """Each row of the table, held to what it names."""

    def test_each_parameter_has_an_example(self) -> None:
        """So that the tests here, and that of PUT, GET and PUT, leave none out."""
        self.assertEqual([*PUTS], [*READERS])

    def test_a_request_has_the_parameters_as_its_attributes(self) -> None:
        taken = {field.attribute for field in FIELDS if field.read is not None}
        self.assertEqual({field.name for field in fields(RawRequest)}, taken)

    def test_each_option_is_kept(self) -> None:
        """An attribute of `Options` without a row would be gone with the answer to the PUT."""
        places = {
            field.place.removeprefix("options.")
            for field in FIELDS
            if isinstance(field.kept, Member) and field.place.startswith("options.")
        }
        self.assertEqual({field.name for field in fields(Options)}, places)
        self.assertEqual(
            {field.name for field in fields(Chosen)} - {field.attribute for field in FIELDS}, set()
        )

    def test_places_and_columns_are_there(self) -> None:
        for field in FIELDS:
            if field.place:
                attrgetter(field.place)(NOTHING)
            if field.place.startswith(("delivery.", "notes.")):
                self.assertIsInstance(field.kept, Detail)
            if isinstance(field.kept, Column):
                self.assertIn(field.kept.name, JobRow._fields)
            self.assertEqual(field.kept is None, not field.place, field.name)

    def test_what_is_read_is_kept_and_shown(self) -> None:
        """By the row of its own for each parameter, there and back through a row of the table."""
        for field in FIELDS:
            if field.read is None or isinstance(field.kept, Detail):
                continue
            found = planned(PUTS[field.name])
            shown = dict(shown_parameters(found))
            self.assertEqual(field.attribute in shown, field.show is not None, field.name)
            texts = terms_text(found.schedule, found.options)
            if isinstance(field.kept, Member):
                self.assertIn(field.name, json.loads(texts[2]))
            self.assertEqual(kept_details(found), {})
            row = JobRow(1, b"", b"", *texts, NOW, NOW, NOW, 0, None, 0, 0, 0, 0, None, 0, 0, 0)
            job = read_job(row, KEY, NOW, lambda value: NOW)
            if field.place:
                value = attrgetter(field.place)
                self.assertEqual(value(job), value(found), field.name)
                self.assertNotEqual(value(job), value(NOTHING), field.name)

    def test_what_is_read_is_kept_among_the_details_and_shown(self) -> None:
        """There and back through the JSON of a job's details."""
        for field in FIELDS:
            if field.read is None or not isinstance(field.kept, Detail):
                continue
            found = planned(PUTS[field.name])
            self.assertEqual(field.attribute in dict(shown_parameters(found)), True, field.name)
            self.assertEqual(kept_members(found), {})
            details = kept_details(found)
            self.assertIn(field.name, details)
            payload = found.delivery.payload
            octets = None if payload is None else payload.octets
            delivery, notes = load_details(json.loads(json.dumps(details)), octets)
            self.assertEqual((delivery, notes), (found.delivery, found.notes), field.name)
            value = attrgetter(field.place)
            self.assertNotEqual(value(found), value(NOTHING), field.name)

    def test_a_part_of_the_retries_that_stands_alone(self) -> None:
        for name, attribute in RETRY_PARTS.items():
            found = planned(PUTS[name]).delivery.retry
            self.assertIsNotNone(getattr(found, attribute))
            self.assertEqual(found._replace(**{attribute: None}), AS_CONFIGURED)

    def test_no_details(self) -> None:
        """A plain job is told by `is`, also where others have read it."""
        found = planned("interval=60&tags=&description=&method=post")
        self.assertIs(found.delivery, PLAIN)
        self.assertIs(found.notes, NO_NOTES)
        self.assertEqual(kept_details(found), {})
        delivery, notes = load_details({}, None)
        self.assertIs(delivery, PLAIN)
        self.assertIs(notes, NO_NOTES)

    def test_since_when_a_job_is_disabled(self) -> None:
        for reason, by in product((None, "until the sale is over"), (None, "ci")):
            notes = Notes(disabled=Disabling(NOW, reason, by))
            details = kept_details(replace(NOTHING, notes=notes))
            self.assertEqual(load_details(json.loads(json.dumps(details)), None), (PLAIN, notes))

    def test_details_that_nobody_can_have_written(self) -> None:
        """P6: whatever somebody's SQL has written is told, and is no other error."""
        for members, octets in [
            ({"x": 1}, None),
            ({"payload": "text"}, None),
            ({}, b"a"),
            ({"tags": ["a"]}, b"a"),
            ({"payload": "base64"}, b"a"),
            ({"payload": 1}, b"a"),
            ({"payload": "text"}, b"\xff"),
            ({"payload": "json"}, b"\xff"),
            ({"payload-base64": "text"}, b"a"),
            ({"content-type": 1}, None),
            ({"content-type": "x"}, None),
            ({"headers": {"a": "b"}}, None),
            ({"headers": 1}, None),
            ({"headers": [1]}, None),
            ({"headers": {"ab": "c"}}, None),
            ({"headers": [["Host", "b"]]}, None),
            ({"headers": [["a", "b\nc"]]}, None),
            ({"headers": [["a", None]]}, None),
            ({"headers": [["a", "b"], ["A", "b"]]}, None),
            ({"method": "TRACE"}, None),
            ({"retry": 1}, None),
            ({"retry": {"x": 1}}, None),
            ({"retry": {"interval": 0}}, None),
            ({"retry": {"interval": "5"}}, None),
            ({"retry": {"interval": True}}, None),
            ({"retry": {"interval": float("nan")}}, None),
            ({"retry": {"max_attempts": 1.5}}, None),
            ({"retry": {"jitter": 2}}, None),
            ({"tags": "a"}, None),
            ({"tags": [1]}, None),
            ({"tags": ["a", "a"]}, None),
            ({"description": 1}, None),
            ({"description": ""}, None),
            ({"description": "\0"}, None),
            ({"redact": "payload"}, None),
            ({"redact": ["a b"]}, None),
            ({"disabled": 1}, None),
            ({"disabled": {}}, None),
            ({"disabled": {"since": "2030-01-01T00:00:00"}}, None),
            ({"disabled": {"since": NOW.isoformat(), "reason": 1}}, None),
            ({"disabled": {"since": NOW.isoformat(), "by": 1}}, None),
        ]:
            error = self.assertRaises(
                (ValueError, TypeError, OverflowError), load_details, members, octets
            )
            self.assertNotIsInstance(error, UnicodeEncodeError)

    def test_what_says_when_is_shown_first(self) -> None:
        found = planned(f"{PUTS['dst-gap']}&jitter=60&until=2030-01-01T00:00:00Z")
        shown = [name for name, _ in shown_parameters(found)]
        self.assertEqual(shown, ["interval", "location", "dst_gap", "until", "jitter"])

    def test_what_is_redacted_is_not_shown(self) -> None:
        found = planned(
            '{"interval":60,"payload":"s","headers":{"X-A":"s3","x-b":"t"},"redact":["x-a"]}'
        )
        expected = {
            "interval": 60,
            "payload": "s",
            "headers": {"X-A": None, "x-b": "t"},
            "redact": ["x-a"],
        }
        self.assertEqual(dict(shown_parameters(found)), expected)
        for payload in ("payload", "payload_base64"):
            text = f'{{"interval":60,"{payload}":"AAAA","redact":"Payload"}}'
            shown = dict(shown_parameters(planned(text)))
            self.assertEqual(shown, {"interval": 60, "redact": ["payload"]})

    def test_a_default_is_neither_shown_nor_kept(self) -> None:
        said = planned("interval=60&location=UTC&catch-up=one&on-failure=continue")
        self.assertEqual(dict(shown_parameters(said)), {"interval": 60})
        self.assertEqual(kept_members(said), {})
        self.assertEqual(load_members({}), (Options(), {}))


def read_headers(name: str, value: Value) -> dict[str, Value]:
    """A reader of an object that may have an object in it."""
    members = members_of(name, value)
    if "inner" not in members:
        return members
    inner: Any = members_of(f"{name}.inner", members["inner"])
    return {**members, "inner": inner}


class NestedTests(SynchronousTestCase):
    """A row whose reader takes an object is given it as it stands in the JSON body."""

    readers = readers_of([Field("headers", read_headers), Field("count", count)])

    def read(self, body: str) -> object:
        pairs = body_pairs(JSON, body.encode())
        return read_values(pairs, self.readers, "a job takes")

    def refusal(self, body: str) -> str:
        return str(self.assertRaises(InvalidRequest, self.read, body))

    def test_an_object_comes_nested(self) -> None:
        body = '{"headers":{"X-Id":"7","n":[6e1,{"a":null}],"inner":{"b":true}},"count":3.0}'
        found = self.read(body)
        self.assertEqual(
            found,
            {
                "headers": {"X-Id": "7", "n": ["60", [("a", None)]], "inner": {"b": True}},
                "count": 3,
            },
        )

    def test_a_number_inside_is_no_text(self) -> None:
        """And is in digits, as a number outside is."""
        seen: list[Value] = []
        readers = readers_of([Field("headers", lambda name, value: seen.append(value))])
        for number in ("60", "60.0", "6e1"):
            body = b'{"headers":[%s,"60"]}' % number.encode()
            read_values(body_pairs(JSON, body), readers, "a job takes")
        self.assertEqual(seen, [["60", "60"]] * 3)
        for value in seen:
            assert isinstance(value, list)
            self.assertEqual([isinstance(inner, Number) for inner in value], [True, False])

    def test_refused(self) -> None:
        for body, sentence in [
            ('{"headers":{"a":1,"a":2}}', "'headers' has 'a' twice: give it once"),
            (
                '{"headers":{"inner":{"a":1,"b":2,"a":2}}}',
                "'headers.inner' has 'a' twice: give it once",
            ),
            ('{"headers":{},"headers":{}}', "headers is given twice, as 'an object or array' and"),
            ('{"headers":[]}', "'headers' is an array: it takes a JSON object"),
            ('{"headers":null}', "'headers' is 'null': it takes a JSON object"),
            ('{"headers":60}', "'headers' is '60': it takes a JSON object"),
            (
                '{"count":{"a":1,"a":2}}',
                "'count' is an object or array in the JSON body: it takes a string, a number or a "
                "boolean",
            ),
        ]:
            self.assertIn(sentence, self.refusal(body), body)
