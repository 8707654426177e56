"""
What a job sends, and what is noted about it, as it was given: which values are taken and as what,
and the sentence on each of the others.
"""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest, shown
from dalga.model.delivery import Method, Payload, PayloadKind, Retry
from dalga.model.fields import READERS
from dalga.model.reading import Members, Number, Value
from dalga.model.reading_delivery import (
    MAX_NESTING,
    changed_headers,
    changed_retry,
    payload,
)
from dalga.web.bodies import JSON, body_pairs
from tests.strategies import thorough

TEXT, OF_JSON, BASE64 = PayloadKind


def value_of(text: str) -> Value:
    """A value as a JSON body has it."""
    [(_, value)] = body_pairs(JSON, f'{{"x":{text}}}'.encode())
    return value


class ReaderTests(SynchronousTestCase):
    def read(self, name: str, text: str, expected: object) -> None:
        """:param text: JSON."""
        found = READERS[name](name, value_of(text))
        self.assertEqual(found, expected, text[:80])
        self.assertIs(type(found), type(expected), text[:80])

    def refuse(self, name: str, text: str, sentence: str, *pointers: str) -> None:
        """:param pointers: to the mistakes, within the value; none for the value itself."""
        error = self.assertRaises(InvalidRequest, READERS[name], name, value_of(text))
        self.assertEqual(str(error), sentence, text[:80])
        self.assertTrue(str(error).isprintable(), text[:80])
        self.assertEqual(tuple(pointer for pointer, _ in error.errors), pointers, text[:80])


class PayloadTests(ReaderTests):
    def test_taken(self) -> None:
        for text, octets, kind in [
            ('"1234"', b"1234", TEXT),
            ('""', b"", TEXT),
            ('"\\u011f\\n\\u0000"', "ğ\n\0".encode(), TEXT),
            ('"\\ud83d\\ude00"', "😀".encode(), TEXT),
            ("true", b"true", OF_JSON),
            ("false", b"false", OF_JSON),
            ("[ ]", b"[]", OF_JSON),
            ("{ }", b"{}", OF_JSON),
            ("1.10", b"1.10", OF_JSON),
            ("1e400", b"1e400", OF_JSON),
            ("-0", b"-0", OF_JSON),
            ("1E+2", b"1E+2", OF_JSON),
            ("12345678901234567890", b"12345678901234567890", OF_JSON),
            ('[1.10 , "a b", {"b":null,\n "a": 1.0}]', b'[1.10,"a b",{"b":null,"a":1.0}]', OF_JSON),
            ('{"\\u011f":"\\"\\\\\\/\\n"}', '{"ğ":"\\"\\\\/\\n"}'.encode(), OF_JSON),
            (
                "[" * MAX_NESTING + "]" * MAX_NESTING,
                b"[" * MAX_NESTING + b"]" * MAX_NESTING,
                OF_JSON,
            ),
        ]:
            self.read("payload", text, Payload(octets, kind))

    def test_refused(self) -> None:
        nan = "which is no JSON: give a number, a string or null"
        surrogate = "which is half a character: write both halves, or leave it out"
        levels = (
            "payload has arrays and objects that stand in more than 100 others: it takes 100 "
            "levels at most"
        )
        deep = MAX_NESTING + 1
        for text, sentence, *pointers in [
            (
                "null",
                "payload is null: leave it out to send the job's body; null itself is sent by "
                'payload="null" with content-type=application/json',
            ),
            ("NaN", f"payload has NaN, {nan}"),
            ("[1,Infinity]", f"payload has Infinity, {nan}", "/1"),
            ('{"a":{"b/c":[-Infinity]}}', f"payload has -Infinity, {nan}", "/a/b~1c/0"),
            ('"\\ud800"', f"payload has the lone surrogate \\ud800, {surrogate}"),
            ('["\\udc00\\ud800"]', f"payload has the lone surrogate \\udc00, {surrogate}", "/0"),
            ('{"\\udfff":1}', f"payload has the lone surrogate \\udfff, {surrogate}"),
            (
                '{"a":[{"b":1,"c":2,"b":3}]}',
                "payload has an object with 'b' twice: give it once",
                "/a/0/b",
            ),
            ("[" * deep + "]" * deep, levels, "/0" * MAX_NESTING),
        ]:
            self.refuse("payload", text, sentence, *pointers)

    def test_a_form_has_text_alone(self) -> None:
        self.assertEqual(payload("payload", "1.10"), Payload(b"1.10", TEXT))

    def test_base64(self) -> None:
        for text, octets in [
            ('""', b""),
            ('"aGVsbG8="', b"hello"),
            ('"AA8+/w=="', b"\x00\x0f\x3e\xff"),
        ]:
            self.read("payload-base64", text, Payload(octets, BASE64))
        padding = "it takes base64 with its padding, such as aGVsbG8="
        string = "in the JSON body: it takes a string"
        for text, sentence in [
            ('"aGVsbG8"', f"payload-base64 is no base64: {padding}"),
            ('"aGVsbG8=\\n"', f"payload-base64 is no base64: {padding}"),
            ('"__-_"', f"payload-base64 is no base64: {padding}"),
            ('"\\u011f==="', f"payload-base64 is no base64: {padding}"),
            (
                '"AA8 /w=="',
                "payload-base64 is no base64: a + is a space in a query or a form, so write it as "
                "%2B",
            ),
            ("1234", f"payload-base64 is 1234 {string}"),
            ("true", f"payload-base64 is true {string}"),
            ("null", f"payload-base64 is null {string}; leave it out where it has no value"),
            ("{}", f"payload-base64 is an object or array {string}"),
        ]:
            self.refuse("payload-base64", text, sentence)

    @thorough(100)
    @given(st.binary(max_size=100))
    def test_any_octets(self, octets: bytes) -> None:
        text = b64encode(octets).decode()
        self.assertEqual(READERS["payload-base64"]("x", text), Payload(octets, BASE64))

    @thorough(200)
    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(exclude_categories=["Cs"])),
            lambda inner: st.lists(inner) | st.dictionaries(st.text("ab/~ğ\\"), inner),
        ).filter(lambda value: value is not None)
    )
    def test_any_json_means_what_it_meant(self, value: object) -> None:
        found = payload("payload", value_of(json.dumps(value, indent=1)))
        text = found.octets.decode()
        self.assertEqual(text if found.kind is TEXT else json.loads(text), value)


class RequestTests(ReaderTests):
    def test_content_type(self) -> None:
        for text in [
            "text/plain",
            "application/vnd.api+json",
            "text/plain; charset=utf-8",
            'multipart/x; a="b \\"c;"; d=e',
            "a/b ;c=d  ; e=f ; ;g=h",
            "a/b;",
            "a/" + "b" * 253,
        ]:
            self.read("content-type", json.dumps(text), text)
        spaces = "a/b" + " ; " * 80 + "!"
        takes = "it takes a media type, such as application/json or text/plain; charset=utf-8"
        for text, sentence in [
            ("", f"content-type is '': {takes}"),
            ("text", f"content-type is 'text': {takes}"),
            ("text/", f"content-type is 'text/': {takes}"),
            (" a/b", f"content-type is ' a/b': {takes}"),
            ("a/b ", f"content-type is 'a/b ': {takes}"),
            ("a/b; c", f"content-type is 'a/b; c': {takes}"),
            ("a/b\r\nX: 1", f"content-type is 'a/b\\r\\nX: 1': {takes}"),
            ('a/b; c="\0"', f"content-type is 'a/b; c=\"\\x00\"': {takes}"),
            # no header is sent with a tab in it
            ("a/b;\tc=d", f"content-type is 'a/b;\\tc=d': {takes}"),
            # which a careless expression matches in a time that doubles with each space
            (spaces, f"content-type is {shown(spaces)}: {takes}"),
            ('a/b; c="ğ"', f"content-type is 'a/b; c=\"ğ\"': {takes}"),
            ("a/" + "b" * 254, "content-type has 256 characters: it takes 255 at most"),
        ]:
            self.refuse("content-type", json.dumps(text), sentence)
        self.refuse("content-type", "1", "content-type is 1 in the JSON body: it takes a string")

    def test_method(self) -> None:
        for text, method in [("post", Method.POST), ("PATCH", Method.PATCH), ("Head", Method.HEAD)]:
            self.read("method", json.dumps(text), method)
        takes = "it takes POST, PUT, PATCH, DELETE, GET or HEAD"
        for text in ("", "TRACE", "GET ", "GET /\r\n"):
            self.refuse("method", json.dumps(text), f"method is {text!r}: {takes}")
        self.refuse("method", "true", "method is true in the JSON body: it takes a string")

    def test_timeout(self) -> None:
        for text, seconds in [("0.1", 0.1), ('"100ms"', 0.1), ("3600", 3600), ('"PT1M"', 60)]:
            self.read("timeout", text, timedelta(seconds=seconds))
        takes = "it takes seconds from 0.1 to 3600, or a duration such as 5m, 1h30m, PT90S or P1D"
        for text, sentence in [
            ("0", f"timeout is '0': {takes}"),
            ("0.099", f"timeout is '0.099': {takes}"),
            ("3600.001", f"timeout is '3600.001': {takes}"),
            ("-1", f"timeout is '-1', which is negative: time only goes forward; {takes}"),
            ("NaN", f"timeout is 'NaN', which is no duration; {takes}"),
            ("1e400", f"timeout is '1e400', which is no duration; {takes}"),
            (
                '"P1M"',
                "timeout is 'P1M', which has years or months, which are not always as long; "
                f"{takes}",
            ),
        ]:
            self.refuse("timeout", text, sentence)


class HeadersTests(ReaderTests):
    def test_taken(self) -> None:
        for text, expected in [
            ("{}", ()),
            ('{"X-A":"1","b":"c  d"}', (("X-A", "1"), ("b", "c  d"))),
            ('{"Authorization":"Bearer s3cret"}', (("Authorization", "Bearer s3cret"),)),
            ('{"Content-Language":"tr"}', (("Content-Language", "tr"),)),
        ]:
            self.read("headers", text, expected)

    def test_refused(self) -> None:
        value = "a header takes ASCII characters, at least one, without spaces around them"
        name = (
            "which can't be a header's name: it takes ASCII letters, digits and -, such as "
            "X-Api-Key"
        )
        own = "Dalga sets this header by itself, leave it out"
        for text, sentence, *pointers in [
            ("[]", "'headers' is an array: it takes a JSON object"),
            ("null", "'headers' is 'null': it takes a JSON object"),
            (
                '"X-A: 1"',
                "headers is a text: it takes a JSON object of names and values, so send the "
                "parameters as JSON",
            ),
            ('{"":"1"}', f"headers has '', {name}", "/"),
            ('{"X A":"1"}', f"headers has 'X A', {name}", "/X A"),
            ('{"a/b":"1"}', f"headers has 'a/b', {name}", "/a~1b"),
            ('{"X-A:":"1"}', f"headers has 'X-A:', {name}", "/X-A:"),
            ('{"X\\nA":"1"}', f"headers has 'X\\nA', {name}", "/X\nA"),
            ('{"\\u011f":"1"}', f"headers has 'ğ', {name}", "/ğ"),
            ('{"Host":"a"}', f"headers has 'Host': {own}", "/Host"),
            ('{"Content-Length":"1"}', f"headers has 'Content-Length': {own}", "/Content-Length"),
            ('{"TE":"x"}', f"headers has 'TE': {own}", "/TE"),
            ('{"connection":"x"}', f"headers has 'connection': {own}", "/connection"),
            ('{"Expect":"x"}', f"headers has 'Expect': {own}", "/Expect"),
            ('{"DALGA-RUN-ID":"x"}', f"headers has 'DALGA-RUN-ID': {own}", "/DALGA-RUN-ID"),
            (
                '{"Webhook-Id":"x"}',
                "headers has 'Webhook-Id': headers whose names begin with webhook- sign a request, "
                "leave it out",
                "/Webhook-Id",
            ),
            (
                '{"Content-Type":"x"}',
                "headers has 'Content-Type': give it as content-type instead",
                "/Content-Type",
            ),
            (
                '{"content_type":"x"}',
                "headers has 'content_type': give it as content-type instead",
                "/content_type",
            ),
            ('{"a":""}', f"headers has a value for 'a' (not shown): {value}", "/a"),
            ('{"a":"s\\r\\nb: 1"}', f"headers has a value for 'a' (not shown): {value}", "/a"),
            ('{"a":"s\\u0000"}', f"headers has a value for 'a' (not shown): {value}", "/a"),
            ('{"a":"s\\t"}', f"headers has a value for 'a' (not shown): {value}", "/a"),
            ('{"a":" s"}', f"headers has a value for 'a' (not shown): {value}", "/a"),
            ('{"a":"\\u011f"}', f"headers has a value for 'a' (not shown): {value}", "/a"),
            ('{"a":"\\ud800"}', f"headers has a value for 'a' (not shown): {value}", "/a"),
            ('{"a":1}', f"headers has a value for 'a' that is no string: {value}", "/a"),
            ('{"a":true}', f"headers has a value for 'a' that is no string: {value}", "/a"),
            ('{"a":{"b":"c"}}', f"headers has a value for 'a' that is no string: {value}", "/a"),
            ('{"a":"1","a":"2"}', "'headers' has 'a' twice: give it once", "/a"),
            (
                '{"X-A":"1","x-a":"2"}',
                "headers has 'x-a' twice, in two cases: give it once",
                "/x-a",
            ),
            (
                '{"X-A":null}',
                "headers has null for 'X-A': a header that is redacted in answers has to be given "
                "again; PATCH leaves it as it is",
                "/X-A",
            ),
        ]:
            self.refuse("headers", text, sentence, *pointers)

    def test_all_mistakes_at_once(self) -> None:
        text = '{"Host":"a","ok":"b","a":"","b":null,"c":1}'
        error = self.assertRaises(InvalidRequest, READERS["headers"], "headers", value_of(text))
        self.assertEqual([pointer for pointer, _ in error.errors], ["/Host", "/a", "/c"])

    def test_a_patch_removes_by_null(self) -> None:
        found = changed_headers("headers", value_of('{"X-A":null,"b":"c"}'))
        self.assertEqual(found, {"X-A": None, "b": "c"})
        self.assertRaises(InvalidRequest, changed_headers, "x", value_of('{"a":null,"A":"1"}'))


class RetryTests(ReaderTests):
    def test_taken(self) -> None:
        whole: dict[str, Any] = {
            "interval": timedelta(milliseconds=1),
            "multiplier": 1.5,
            "max_interval": timedelta(days=365),
            "jitter": 0.0,
            "stop_after": timedelta(),
            "max_attempts": 2**32 - 1,
        }
        texts = {
            "interval": '"1ms"',
            "multiplier": "15e-1",
            "max_interval": '"8760h"',
            "jitter": "0",
            "stop_after": "0",
            "max_attempts": "4294967295",
        }
        for name, text in texts.items():
            self.read("retry", f'{{"{name}":{text}}}', Retry(**{name: whole[name]}))
            dashes = name.replace("_", "-")
            self.read("retry", f'{{"{dashes}":{text}}}', Retry(**{name: whole[name]}))
            self.read(f"retry-{dashes}", text, whole[name])
        members = ",".join(f'"{name}":{text}' for name, text in texts.items())
        self.read("retry", f"{{{members}}}", Retry(**whole))
        self.read("retry", "{}", Retry())

    def test_refused(self) -> None:
        delay = (
            "it takes seconds from 0.001 to 31536000, or a duration such as 5m, 1h30m, PT90S or P1D"
        )
        multiplier = "it takes a number from 1 to 100, such as 1.5"
        spread = "it takes a number from 0 to 1, such as 0.5"
        attempts = "it takes a whole number from 1 to 4294967295"
        for name, text, sentence in [
            ("interval", "0", f"is '0': {delay}"),
            ("interval", '"0.0001"', f"is '0.0001': {delay}"),
            ("interval", '"8761h"', f"is '8761h': {delay}"),
            ("max-interval", '"P366D"', f"is 'P366D': {delay}"),
            ("stop-after", '"366h1"', f"is '366h1', which is no duration; {delay}; 0 is for never"),
            ("multiplier", "0.9", f"is '0.9': {multiplier}"),
            ("multiplier", "100.1", f"is '100.1': {multiplier}"),
            ("multiplier", "NaN", f"is 'NaN': {multiplier}"),
            ("multiplier", "Infinity", f"is 'Infinity': {multiplier}"),
            ("multiplier", "1e400", f"is '1e400': {multiplier}"),
            ("multiplier", '"inf"', f"is 'inf': {multiplier}"),
            ("multiplier", '"1_0"', f"is '1_0': {multiplier}"),
            ("jitter", "-0.1", f"is '-0.1': {spread}"),
            ("jitter", "1.1", f"is '1.1': {spread}"),
            ("jitter", '""', f"is '': {spread}"),
            ("max-attempts", "0", f"is '0': {attempts}"),
            ("max-attempts", "1.5", f"is '1.5': {attempts}"),
            ("max-attempts", "4294967296", f"is '4294967296': {attempts}"),
        ]:
            member = name.replace("-", "_")
            self.refuse("retry", f'{{"{member}":{text}}}', f"retry.{name} {sentence}", f"/{member}")
            self.refuse(f"retry-{name}", text, f"retry-{name} {sentence}")

    def test_what_is_no_retry(self) -> None:
        for text, sentence, *pointers in [
            ("5", "'retry' is '5': it takes a JSON object"),
            ("null", "'retry' is 'null': it takes a JSON object"),
            ("[]", "'retry' is an array: it takes a JSON object"),
            (
                '"5s"',
                "retry is a text: it takes a JSON object; without JSON give retry-interval, "
                "retry-multiplier, retry-max-interval, retry-jitter, retry-stop-after, "
                "retry-max-attempts",
            ),
            (
                '{"tries":5}',
                "retry has no member 'tries': it takes interval, multiplier, max-interval, jitter, "
                "stop-after, max-attempts",
                "/tries",
            ),
            (
                '{"jitter":null}',
                "retry.jitter is null: leave it out where it has no value",
                "/jitter",
            ),
            ('{"jitter":1,"jitter":1}', "'retry' has 'jitter' twice: give it once", "/jitter"),
            (
                '{"max_attempts":1,"max-attempts":1}',
                "retry has 'max-attempts' twice: give it once",
                "/max-attempts",
            ),
        ]:
            self.refuse("retry", text, sentence, *pointers)

    def test_all_mistakes_at_once(self) -> None:
        text = '{"x":1,"jitter":2,"max_attempts":3,"interval":0}'
        error = self.assertRaises(InvalidRequest, READERS["retry"], "retry", value_of(text))
        self.assertEqual([pointer for pointer, _ in error.errors], ["/x", "/jitter", "/interval"])

    def test_a_patch_removes_by_null(self) -> None:
        found = changed_retry("retry", value_of('{"jitter":null,"max-attempts":3}'))
        self.assertEqual(found, {"jitter": None, "max_attempts": 3})


class NotesTests(ReaderTests):
    def test_tags(self) -> None:
        sixteen = [f"t{number}" for number in range(16)]
        for text, expected in [
            ("[]", ()),
            ('""', ()),
            ('"a"', ("a",)),
            ('"b, a b ,c"', ("b", "a b", "c")),
            ('["b","a","\\u011f:1"]', ("b", "a", "ğ:1")),
            (json.dumps(["x" * 64]), ("x" * 64,)),
            (json.dumps(sixteen), tuple(sixteen)),
            ('["A","a"]', ("A", "a")),
        ]:
            self.read("tags", text, expected)
        takes = "a tag takes 1 to 64 characters"
        array = "it takes an array of strings, or a text with commas between them"
        for text, sentence, *pointers in [
            (json.dumps([*sixteen, "a"]), "tags has 17 elements: it takes 16 at most"),
            ('["a",""]', f"tags has an empty tag: {takes}", "/1"),
            ('"a,,b"', f"tags has an empty tag: {takes}"),
            (json.dumps(["x" * 65]), f"tags has a tag of 65 characters: {takes}", "/0"),
            (
                '["a\\u0000b"]',
                "tags has a tag with the control character U+0000: leave it out",
                "/0",
            ),
            ('"a\\nb"', "tags has a tag with the control character U+000A: leave it out"),
            ('["a,b"]', "tags has 'a,b': a comma stands between tags, not in one", "/0"),
            ('["a "]', "tags has 'a ': a tag has no spaces around it", "/0"),
            ('["a","b","a"]', "tags has 'a' twice: give it once", "/2"),
            (
                '["\\ud800"]',
                "tags has the lone surrogate \\ud800, which is half a character: write both "
                "halves, or leave it out",
                "/0",
            ),
            ('["a",1]', "tags is an array with an element that is no string", "/1"),
            ('["a",["b"]]', "tags is an array with an element that is no string", "/1"),
            ("{}", f"tags is an object in the JSON body: {array}"),
            ("null", f"tags is null in the JSON body: {array}"),
            ("1", f"tags is 1 in the JSON body: {array}"),
        ]:
            self.refuse("tags", text, sentence, *pointers)

    def test_all_tags_at_once(self) -> None:
        error = self.assertRaises(
            InvalidRequest, READERS["tags"], "tags", value_of('["","a","a",","]')
        )
        self.assertEqual([pointer for pointer, _ in error.errors], ["/0", "/2", "/3"])

    def test_description(self) -> None:
        for text, expected in [
            ('"a\\n\\tb"', "a\n\tb"),
            (json.dumps("ğ" * 1000), "ğ" * 1000),
            ('""', None),
        ]:
            self.read("description", text, expected)
        for text, sentence in [
            (json.dumps("x" * 1001), "description has 1001 characters: it takes 1000 at most"),
            ('"a\\u0000"', "description has the control character U+0000: leave it out"),
            ('"a\\u0085"', "description has the control character U+0085: leave it out"),
            (
                '"a\\r\\n"',
                "description has a carriage return: end lines with a line feed alone",
            ),
            (
                '"\\udfff"',
                "description has the lone surrogate \\udfff, which is half a character: write both "
                "halves, or leave it out",
            ),
            ("1", "description is 1 in the JSON body: it takes a string"),
        ]:
            self.refuse("description", text, sentence)

    def test_redact(self) -> None:
        for text, expected in [
            ("[]", ()),
            ('"Payload, X-A"', ("payload", "x-a")),
            ('["payload"]', ("payload",)),
        ]:
            self.read("redact", text, expected)
        takes = "it takes payload and names of headers, such as payload,x-api-key"
        for text, sentence, *pointers in [
            ('["a b"]', f"redact has 'a b': {takes}", "/0"),
            ('"a,,b"', f"redact has '': {takes}"),
            ('["X-A","x-a"]', "redact has 'x-a' twice: give it once", "/1"),
            ("[1]", "redact is an array with an element that is no string", "/0"),
            (
                json.dumps([f"x{n}" for n in range(65)]),
                "redact has 65 elements: it takes 64 at most",
            ),
        ]:
            self.refuse("redact", text, sentence, *pointers)


class AnyValueTests(SynchronousTestCase):
    """Whatever is given, a reader gives a value, or a sentence that is short and on one line."""

    values = st.recursive(
        st.none()
        | st.booleans()
        | st.text(max_size=80)
        | st.sampled_from(["1", "-1", "1.5", "NaN", "1e400", "9" * 5000]).map(Number),
        lambda inner: (
            st.lists(inner, max_size=20)
            | st.lists(st.tuples(st.text(max_size=9), inner), max_size=9).map(Members)
        ),
        max_leaves=20,
    )

    def test_long_numbers(self) -> None:
        """A number of any length is cut off in the sentence on it."""
        number = Number("9" * 5000)
        for name in ("method", "description", "tags", "redact", "content-type", "payload-base64"):
            with self.assertRaises(InvalidRequest) as caught:
                READERS[name](name, number)
            self.assertIn(f" is {'9' * 39}… in the JSON body", str(caught.exception))

    @thorough(200)
    @given(st.sampled_from([*READERS]), values)
    def test_read_or_refused(self, name: str, value: Value) -> None:
        try:
            READERS[name](name, value)
        except InvalidRequest as refusal:
            self.assertLess(len(str(refusal)), 400)
            self.assertTrue(str(refusal).isprintable(), refusal)
            for _, detail in refusal.errors:
                self.assertTrue(detail.isprintable(), detail)
