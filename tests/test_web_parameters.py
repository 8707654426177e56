"""
What the API reads from a request: paths, parameters, and the sentence for each that is refused.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.job import JobKey, ScheduleRequest, plan
from dalga.schedule import MAX_INTERVAL, Every, Once
from dalga.web.errors import UnknownResource, UnsupportedMediaType
from dalga.web.parameters import (
    FORM,
    JSON,
    boolean,
    instant,
    interval,
    job_key,
    schedule_request,
)

NOW = datetime(2014, 11, 11, 22, 10, 40, tzinfo=UTC)
LATER = datetime(2015, 1, 1, tzinfo=UTC)

examples = settings(max_examples=300, database=None, derandomize=True, deadline=None)

#: What a path's segment may be: text that UTF-8 can carry.
segments = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255)


class PathTests(SynchronousTestCase):
    def test_segments_are_unquoted_once(self) -> None:
        for path, expected in [
            (b"/jobs/check_feed/1234", JobKey("check_feed", "1234")),
            (b"/jobs/a%2Fb/c", JobKey("a/b", "c")),
            (b"/jobs/a/c%20d+e", JobKey("a", "c d+e")),
            (b"/jobs/a%252Fb/100%25", JobKey("a%2Fb", "100%")),
            (b"/jobs/j%C3%B6b/%f0%9f%90%b0", JobKey("jöb", "🐰")),
            (b"/jobs/%2F%2Fevil.example%2Fx/b", JobKey("//evil.example/x", "b")),
            (b"/jobs/@evil.example/b", JobKey("@evil.example", "b")),
            (b"/jobs/%3Fx/%23x", JobKey("?x", "#x")),
            (b"/jobs/a#b/c", JobKey("a#b", "c")),
            (b"/jobs/job%20/a%00b%0A", JobKey("job ", "a\0b\n")),
            # What `Jobs.schedule` refuses can still be looked up and deleted.
            (b"/jobs/../.", JobKey("..", ".")),
            (b"/jobs/" + b"%C3%B6" * 255 + b"/b", JobKey("ö" * 255, "b")),
        ]:
            self.assertEqual(job_key(path), expected, path)

    def test_what_is_no_key_is_refused_in_a_sentence(self) -> None:
        for path, sentence in [
            (b"/jobs//b", "the job's path is empty"),
            (b"/jobs/a/", "the job's body is empty"),
            (b"/jobs//", "the job's path is empty"),
            (b"/jobs/" + b"a" * 256 + b"/b", "the job's path has 256 characters"),
            (b"/jobs/a/" + b"%C3%B6" * 256, "the job's body has 256 characters"),
            (b"/jobs/%ff/b", "the job's path is not UTF-8: the octet 0xFF"),
            (b"/jobs/a/b\x80", "the job's body is not UTF-8: the octet 0x80"),
            (b"/jobs/%ED%A0%80/b", "the job's path is not UTF-8"),
            (b"/jobs/%C0%AF/b", "the job's path is not UTF-8"),
            (b"/jobs/%zz/b", "the job's path has the broken escape '%zz'"),
            (b"/jobs/a/%4", "the job's body has the broken escape '%4'"),
            (b"/jobs/a/50%", "the job's body has the broken escape '%'"),
            (b"/jobs/%%41/b", "the job's path has the broken escape '%%4'"),
        ]:
            error = self.assertRaises(InvalidRequest, job_key, path)
            self.assertIn(sentence, str(error), path)

    def test_other_than_two_segments_is_no_job_and_says_how_to_write_a_slash(self) -> None:
        for path in [
            b"/jobs/",
            b"/jobs/a",
            b"/jobs/a/b/c",
            b"/jobs/a/b/",
            b"/jobs/a//b",
            b"//jobs/a/b",
            b"a/b",
            b"/jobs%2Fa/b/c",
            b"*",
        ]:
            error = self.assertRaises(UnknownResource, job_key, path)
            self.assertIn("%2F", str(error), path)

    @examples
    @given(segments, segments)
    def test_every_key_has_a_url(self, path: str, body: str) -> None:
        url = f"/jobs/{quote(path, safe='')}/{quote(body, safe='')}"
        self.assertEqual(job_key(url.encode()), JobKey(path, body))

    @examples
    @given(st.binary())
    def test_any_octets_are_read_or_refused(self, octets: bytes) -> None:
        try:
            job_key(b"/jobs/" + octets)
        except (InvalidRequest, UnknownResource):
            pass


class IntervalTests(SynchronousTestCase):
    def test_whole_seconds(self) -> None:
        for value, expected in [
            ("0", 0),
            ("60", 60),
            ("007", 7),
            ("0" * 50 + "7", 7),
            (str(MAX_INTERVAL), MAX_INTERVAL),
        ]:
            self.assertEqual(interval("interval", value), expected)

    def test_anything_else_is_refused_by_name(self) -> None:
        for value in [
            *("-5", "+5", "abc", "1.5", "", " ", " 5", "5 ", "5\n", "1_000", "1e3", "0x10"),
            *("\uff11\uff12", "٣", "²", "True", str(MAX_INTERVAL + 1), "99999999999", "9" * 5000),
        ]:
            error = self.assertRaises(InvalidRequest, interval, "interval", value)
            self.assertIn("interval is ", str(error))
            self.assertIn(f"whole seconds from 0 to {MAX_INTERVAL}", str(error))

    def test_what_was_given_is_repeated_but_not_at_length(self) -> None:
        error = self.assertRaises(InvalidRequest, interval, "interval", "-5")
        self.assertIn("interval is '-5':", str(error))
        error = self.assertRaises(InvalidRequest, interval, "interval", "x\n" * 5000)
        self.assertLess(len(str(error)), 150)
        self.assertNotIn("\n", str(error))


class FirstRunTests(SynchronousTestCase):
    def test_rfc_3339(self) -> None:
        for value, expected in [
            ("2030-01-31T09:00:00Z", (2030, 1, 31, 9, 0, 0)),
            ("2030-01-31t09:00:00z", (2030, 1, 31, 9, 0, 0)),
            ("2030-01-31 09:00:00Z", (2030, 1, 31, 9, 0, 0)),
            ("2030-01-31T09:00:00+03:00", (2030, 1, 31, 6, 0, 0)),
            ("2030-01-31T23:30:00-23:59", (2030, 2, 1, 23, 29, 0)),
            ("2030-01-31T09:00:00-00:00", (2030, 1, 31, 9, 0, 0)),
            ("1985-04-12T23:20:50.52Z", (1985, 4, 12, 23, 20, 50, 520_000)),
            # Cut off, not rounded.
            ("2030-01-31T09:00:00.9999999999Z", (2030, 1, 31, 9, 0, 0, 999_999)),
            ("2024-02-29T00:00:00Z", (2024, 2, 29)),
            ("0001-01-01T00:00:00Z", (1, 1, 1)),
            ("9999-12-31T23:59:59.999999Z", (9999, 12, 31, 23, 59, 59, 999_999)),
            # RFC 3339 section 5.8's leap seconds.
            ("1990-12-31T23:59:60Z", (1991, 1, 1)),
            ("1990-12-31T15:59:60.5-08:00", (1991, 1, 1, 0, 0, 0, 500_000)),
        ]:
            self.assertEqual(instant("first-run", value), datetime(*expected, tzinfo=UTC), value)

    def test_anything_else_is_refused_with_a_hint(self) -> None:
        example = "such as 2030-01-31T09:00:00Z"
        for value, hint in [
            ("", example),
            ("now", example),
            ("2030-01-31", example),
            ("1893456000", example),
            ("2030-01-31T09:00Z", example),
            ("2030-01-31T09:00:00.Z", example),
            ("2030-01-31T09:00:00+0300", example),
            ("2030-01-31T09:00:00+24:00", example),
            ("2030-01-31T09:00:00+03:60", example),
            ("2030-01-31T09:00:00Z\n", example),
            ("\uff12030-01-31T09:00:00Z", example),
            ("2030-01-31T09:00:00", "the zone is missing"),
            ("2030-01-31T09:00:00.5", "the zone is missing"),
            ("2030-01-31T09:00:00 03:00", "write the plus of a zone as %2B"),
            ("2030-02-30T09:00:00Z", "no such date or time of day"),
            ("2030-13-01T09:00:00Z", "no such date or time of day"),
            ("0000-01-01T00:00:00Z", "no such date or time of day"),
            ("2030-01-31T24:00:00Z", "no such date or time of day"),
            ("2030-01-31T09:00:61Z", "no such date or time of day"),
            ("2030-01-31T09:00:60Z", "a leap second is at 23:59:60 UTC only"),
            ("2030-12-31T23:59:60+01:00", "a leap second is at 23:59:60 UTC only"),
            ("0001-01-01T00:00:00+03:00", "the years 1 to 9999 UTC"),
            ("9999-12-31T23:59:59-03:00", "the years 1 to 9999 UTC"),
            ("9999-12-31T23:59:60Z", "the years 1 to 9999 UTC"),
        ]:
            error = self.assertRaises(InvalidRequest, instant, "first-run", value)
            self.assertIn("first-run is ", str(error), value)
            self.assertIn(hint, str(error), value)

    @examples
    @given(st.datetimes(timezones=st.just(UTC)))
    def test_what_is_written_is_read(self, moment: datetime) -> None:
        self.assertEqual(instant("first-run", moment.isoformat()), moment)


class BooleanTests(SynchronousTestCase):
    def test_every_spelling_in_any_case(self) -> None:
        for expected, values in [
            (True, ["true", "yes", "on", "1", "True", "YES", "oN"]),
            (False, ["false", "no", "off", "0", "False", "NO", "oFf"]),
        ]:
            for value in values:
                self.assertIs(boolean("one-off", value), expected, value)

    def test_anything_else_is_refused(self) -> None:
        for value in ["", " ", "t", "y", "2", "-1", "01", "true ", "enabled", "\uff11"]:
            error = self.assertRaises(InvalidRequest, boolean, "one-off", value)
            self.assertIn(f"one-off is {value!r}: it takes true", str(error))


def asked(query: bytes = b"", content_type: str | None = None, body: bytes = b"") -> Any:
    return schedule_request(query, content_type, body)


class ParametersTests(SynchronousTestCase):
    def refusal(self, *request: Any) -> str:
        return str(self.assertRaises(InvalidRequest, asked, *request))

    def test_none_are_none(self) -> None:
        self.assertEqual(asked(), ScheduleRequest())
        self.assertEqual(asked(b"&&"), ScheduleRequest())

    def test_all_of_them_from_a_query_a_form_or_json(self) -> None:
        members: dict[str, Any] = {
            "interval": 60,
            "first-run": "2014-12-31T21:00:00-03:00",
            "one-off": True,
            "immediate": False,
        }
        pairs = urlencode(members).encode()
        expected = ScheduleRequest(60, LATER, True, False)
        self.assertEqual(asked(pairs), expected)
        self.assertEqual(asked(b"", FORM, pairs), expected)
        self.assertEqual(asked(b"", JSON, json.dumps(members).encode()), expected)
        texts = {name: str(value) for name, value in members.items()}
        self.assertEqual(asked(b"", JSON, json.dumps(texts).encode()), expected)

    def test_query_and_body_together(self) -> None:
        expected = ScheduleRequest(interval=60, immediate=True)
        self.assertEqual(asked(b"interval=60", FORM, b"immediate=on"), expected)
        self.assertEqual(asked(b"interval=60", JSON, b'{"immediate":1}'), expected)

    def test_form_rules_for_escapes(self) -> None:
        self.assertEqual(asked(b"first%2drun=2015-01-01+00%3A00:00Z").first_run, LATER)
        self.assertIn("%2B", self.refusal(b"first-run=2015-01-01T03:00:00+03:00"))
        self.assertEqual(asked(b"first-run=2015-01-01T03:00:00%2B03:00").first_run, LATER)

    def test_a_media_type_has_parameters_and_no_case(self) -> None:
        for content_type in [f"{FORM}; charset=utf-8", f"{FORM.upper()} ;charset=UTF-8"]:
            self.assertEqual(asked(b"", content_type, b"interval=5").interval, 5)

    def test_another_media_type_is_refused_naming_the_two(self) -> None:
        for content_type in [None, "", "text/plain", "multipart/form-data; boundary=x"]:
            error = self.assertRaises(UnsupportedMediaType, asked, b"", content_type, b"interval=5")
            self.assertIn(FORM, str(error))
            self.assertIn(JSON, str(error))
        self.assertEqual(asked(b"interval=5", "text/plain", b"").interval, 5)

    def test_unknown_parameters_are_refused_by_name(self) -> None:
        for request in [
            (b"intervall=60",),
            (b"Interval=60",),
            (b"interval =60",),
            (b"=60",),
        ]:
            self.assertIn("interval, first-run, one-off, immediate", self.refusal(*request))
        self.assertIn("no parameter 'x'", self.refusal(b"interval=60", FORM, b"x=1"))
        self.assertIn("no parameter 'first_run'", self.refusal(b"", JSON, b'{"first_run":"x"}'))
        # A semicolon separates nothing.
        self.assertIn("interval is '60;one-off=1'", self.refusal(b"interval=60;one-off=1"))

    def test_repeated_parameters_are_refused(self) -> None:
        for request in [
            (b"interval=60&interval=61",),
            (b"interval=60&interval=60",),
            (b"interval=60", FORM, b"interval=61"),
            (b"interval=60", JSON, b'{"interval":61}'),
            (b"", JSON, b'{"interval":60,"interval":61}'),
        ]:
            self.assertIn("interval is given twice, as '60' and as", self.refusal(*request))

    def test_what_is_not_text_is_refused(self) -> None:
        for request, sentence in [
            ((b"interval=%ff",), "the parameter 'interval' is not UTF-8"),
            ((b"%ff=1",), "a parameter's name is not UTF-8"),
            ((b"interval=%zz",), "the parameter 'interval' has the broken escape '%zz'"),
            ((b"interval=6%",), "the parameter 'interval' has the broken escape '%'"),
            ((b"interval",), "interval is ''"),
            ((b"", FORM, b"interval=\xff"), "the parameter 'interval' is not UTF-8"),
            ((b"", JSON, b'{"interval":"\xff"}'), "the JSON body is not UTF-8"),
        ]:
            self.assertIn(sentence, self.refusal(*request))

    def test_json_that_is_not_what_a_form_could_say_is_refused(self) -> None:
        for body, sentence in [
            (b"interval=60", "the body is not JSON"),
            (b"{", "the body is not JSON"),
            (b"\xef\xbb\xbf{}", "the body is not JSON"),
            (b"[" * 60_000, "nested too deeply"),
            (b"[60]", "not an object"),
            (b"60", "not an object"),
            (b'"interval"', "not an object"),
            (b"null", "not an object"),
            (b'{"interval":null}', "'interval' is null"),
            (b'{"interval":[60]}', "'interval' is an object or array"),
            (b'{"interval":{"s":60}}', "'interval' is an object or array"),
            (b'{"interval":1.5}', "interval is '1.5'"),
            (b'{"interval":-5}', "interval is '-5'"),
            (b'{"interval":1e3}', "interval is '1e3'"),
            (b'{"interval":NaN}', "interval is 'NaN'"),
            (b'{"interval":true}', "interval is 'true'"),
            (b'{"interval":' + b"9" * 10_000 + b"}", "interval is '999"),
            (b'{"one-off":2}', "one-off is '2'"),
            (b'{"one-off":"\\ud800"}', "one-off is '\\ud800'"),
        ]:
            self.assertIn(sentence, self.refusal(b"", JSON, body), body[:50])

    @examples
    @given(st.binary(), st.sampled_from([FORM, JSON]), st.binary())
    def test_any_octets_are_read_or_refused(self, query: bytes, kind: str, body: bytes) -> None:
        try:
            asked(query, kind, body)
        except InvalidRequest:
            pass

    @examples
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["interval", "first-run", "one-off", "immediate"]),
                st.text(st.characters(exclude_categories=["Cs"])),
            )
        )
    )
    def test_any_text_is_read_or_refused(self, pairs: list[tuple[str, str]]) -> None:
        try:
            asked(urlencode(pairs).encode())
        except InvalidRequest:
            pass


class CombinationTests(SynchronousTestCase):
    """The table of the README: which parameters go together, and the first run they give."""

    def test_each_row(self) -> None:
        minute = NOW.replace(minute=11)
        for query, seconds, first in [
            (b"interval=60", 60, minute),
            (b"interval=60&first-run=2015-01-01T00:00:00Z", 60, LATER),
            (b"interval=60&immediate=true", 60, NOW),
            (b"one-off=true&interval=60", 0, minute),
            (b"one-off=true&interval=0", 0, NOW),
            (b"one-off=true&first-run=2015-01-01T00:00:00Z", 0, LATER),
            (b"one-off=true&immediate=true", 0, NOW),
            (b"one-off=true&first-run=1985-04-12T23:20:50Z", 0, datetime(1985, 4, 12, 23, 20, 50)),
        ]:
            schedule, when = plan(asked(query), NOW)
            self.assertEqual(type(schedule), Every if seconds else Once, query)
            self.assertEqual(schedule.seconds, seconds, query)
            self.assertEqual(when, first.replace(tzinfo=UTC), query)

    def test_each_refused_combination_names_a_parameter(self) -> None:
        first = b"first-run=2015-01-01T00:00:00Z"
        for query, name in [
            (b"", "interval"),
            (first, "interval"),
            (b"interval=0", "interval"),
            (b"interval=0&immediate=1", "interval"),
            (b"immediate=true", "interval"),
            (b"interval=60&immediate=true&" + first, "first-run"),
            (b"one-off=true", "first-run"),
            (b"one-off=true&interval=60&" + first, "first-run"),
            (b"one-off=true&immediate=true&interval=60", "interval"),
            (b"one-off=true&immediate=true&interval=0", "interval"),
            (b"one-off=true&immediate=true&" + first, "first-run"),
        ]:
            error = self.assertRaises(InvalidRequest, plan, asked(query), NOW)
            self.assertIn(name, str(error), query)
