"""
What the API reads from a request: paths, parameters, and the sentence for each that is refused.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import MOST_MISTAKES, InvalidRequest
from dalga.model.duration import Duration, duration_from_text
from dalga.model.duration import seconds as whole_seconds
from dalga.model.key import RawKey
from dalga.model.options import CatchUp, IfExists, OnFailure
from dalga.model.plan import Plan, RawRequest, ScheduleRequest, plan
from dalga.model.zone import Gap, Overlap
from dalga.web import values as web_values
from dalga.web.bodies import FORM, JSON, MAX_PAIRS, MAX_VALUES
from dalga.web.errors import UnknownResource, UnsupportedMediaType
from dalga.web.lists import listing
from dalga.web.parameters import (
    Enablement,
    RunTimes,
    enablement,
    job_key,
    preview,
    run_times,
    schedule_request,
)
from tests.strategies import (
    PARAMETERS,
    escaped,
    escapings,
    joined,
    json_bodies,
    queries,
    segments,
    thorough,
    values,
)

NOW = datetime(2014, 11, 11, 22, 10, 40, tzinfo=UTC)
LATER = datetime(2015, 1, 1, tzinfo=UTC)

examples = thorough(300)


class PathTests(SynchronousTestCase):
    def test_segments_are_unquoted_once(self) -> None:
        for path, expected in [
            (b"/jobs/check_feed/1234", RawKey("check_feed", "1234")),
            (b"/jobs/a%2Fb/c", RawKey("a/b", "c")),
            (b"/jobs/a/c%20d+e", RawKey("a", "c d+e")),
            (b"/jobs/a%252Fb/100%25", RawKey("a%2Fb", "100%")),
            (b"/jobs/j%C3%B6b/%f0%9f%90%b0", RawKey("jöb", "🐰")),
            (b"/jobs/%2F%2Fevil.example%2Fx/b", RawKey("//evil.example/x", "b")),
            (b"/jobs/@evil.example/b", RawKey("@evil.example", "b")),
            (b"/jobs/%3Fx/%23x", RawKey("?x", "#x")),
            (b"/jobs/a#b/c", RawKey("a#b", "c")),
            (b"/jobs/job%20/a%00b%0A", RawKey("job ", "a\0b\n")),
            # What `Operations.schedule` refuses can still be looked up and deleted.
            (b"/jobs/../.", RawKey("..", ".")),
            (b"/jobs/" + b"%C3%B6" * 255 + b"/b", RawKey("ö" * 255, "b")),
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
            self.assertIn("%2F (all jobs are at /jobs)", str(error), path)

    @examples
    @given(segments, segments, escapings)
    def test_every_key_has_a_url(self, path: str, body: str, how: bytes) -> None:
        """However that is escaped."""
        url = b"/jobs/" + escaped(path, how) + b"/" + escaped(body, how)
        self.assertEqual(job_key(url), RawKey(path, body))

    @examples
    @given(
        joined(b"/", b"a", b"%", b"%2F", b"%zz", b"%ff", b"%00", b"%ED%A0%80", b"\n", b"x" * 256)
    )
    def test_any_octets_are_read_or_refused(self, octets: bytes) -> None:
        try:
            job_key(b"/jobs/" + octets)
        except (InvalidRequest, UnknownResource) as refusal:
            self.assertLess(len(str(refusal)), 200)
            self.assertTrue(str(refusal).isprintable(), refusal)


class WallTimeTests(SynchronousTestCase):
    """A first-run or until without a zone is what the clock of the job's location shows."""

    def test_the_clock_of_the_location(self) -> None:
        # In Riga there is no 03:30 on 29 March 2026, and there are two on 25 October.
        for query, name, expected in [
            ("interval=60&location=Europe/Istanbul", "2030-01-31T09:00:00", "2030-01-31T06:00"),
            ("interval=60&location=UTC", "2030-01-31T09:00:00", "2030-01-31T09:00"),
            ("one-off=1&location=America/Lima", "2030-01-31 20:00:00.5", "2030-02-01T01:00:00.5"),
            ("cron=@daily&location=Asia/Tokyo", "2030-01-31t09:00:00", "2030-01-31T00:00"),
            # A gap: the moment of the change, if it is a run or only a bound.
            ("interval=60&location=Europe/Riga", "2026-03-29T03:30:00", "2026-03-29T01:00"),
            ("cron=30+3+*+*+*&location=Europe/Riga", "2026-03-29T03:30:00", "2026-03-29T01:00"),
            ("cron=@hourly&location=Europe/Riga", "2026-03-29T03:30:00", "2026-03-29T01:00"),
            # An overlap: by the job's rules. Of both, the earlier is the start.
            ("interval=60&location=Europe/Riga", "2026-10-25T03:30:00", "2026-10-25T00:30"),
            ("interval=P1D&location=Europe/Riga", "2026-10-25T03:30:00", "2026-10-25T00:30"),
            (
                "interval=P1D&location=Europe/Riga&dst-overlap=last",
                "2026-10-25T03:30:00",
                "2026-10-25T01:30",
            ),
            ("cron=@hourly&location=Europe/Riga", "2026-10-25T03:30:00", "2026-10-25T00:30"),
        ]:
            request = schedule_request(f"{query}&first-run={name}".encode(), None, b"")
            at = datetime.fromisoformat(expected).replace(tzinfo=UTC)
            self.assertEqual(request.first_run, at, (query, name))

    def test_the_end(self) -> None:
        riga = "&location=Europe/Riga"
        gap, overlap = "2026-03-29T03:30:00", "2026-10-25T03:30:00"
        for query, wall, expected in [
            ("interval=60", gap, "2026-03-29T01:00"),
            ("interval=P1D", gap, "2026-03-29T01:00"),
            # The run of 04:00, which is at the moment of the change, is later than 03:30.
            ("interval=P1D&dst-gap=skip", gap, "2026-03-29T00:59:59.999999"),
            ("cron=@hourly", gap, "2026-03-29T00:59:59.999999"),
            ("cron=@hourly&dst-gap=shift", gap, "2026-03-29T01:00"),
            ("interval=60", overlap, "2026-10-25T00:30"),
            ("cron=30+3+*+*+*", overlap, "2026-10-25T00:30"),
            ("cron=30+3+*+*+*&dst-overlap=last", overlap, "2026-10-25T01:30"),
            ("cron=30+3+*+*+*&dst-overlap=both", overlap, "2026-10-25T01:30"),
            ("cron=@hourly", overlap, "2026-10-25T01:30"),
        ]:
            request = schedule_request(f"{query}{riga}&until={wall}".encode(), None, b"")
            at = datetime.fromisoformat(expected).replace(tzinfo=UTC)
            self.assertEqual(request.until, at, (query, wall))

    def test_a_zone_stands(self) -> None:
        query = b"interval=60&location=Europe/Riga&first-run=2030-01-31T09:00:00Z"
        self.assertEqual(
            schedule_request(query, None, b"").first_run, datetime(2030, 1, 31, 9, tzinfo=UTC)
        )

    def test_refused(self) -> None:
        for query, sentence in [
            (
                "interval=60&first-run=2030-01-31T09:00:00",
                "first-run is '2030-01-31T09:00:00': the zone is missing, such as the Z in "
                "2030-01-31T09:00:00Z; or give location, such as Europe/Istanbul, for the clock of "
                "a place",
            ),
            (
                "interval=60&until=2030-01-31T09:00:00.5",
                "until is '2030-01-31T09:00:00.500000': the zone is missing",
            ),
            (
                "interval=P1D&location=Europe/Riga&first-run=2026-03-29T03:30:00",
                "first-run is '2026-03-29T03:30:00', which the clocks of Europe/Riga leave out as "
                "they are set forward: give a time that they show on that day",
            ),
            (
                "interval=60&location=Asia/Tokyo&first-run=0001-01-01T00:00:00",
                "it takes a time in the years 1 to 9999 UTC",
            ),
            (
                "interval=60&location=America/Lima&until=9999-12-31T23:00:00",
                "it takes a time in the years 1 to 9999 UTC",
            ),
            (
                "interval=60&location=UTC&until=2030-12-31T23:59:60",
                "a leap second is at 23:59:60 UTC only",
            ),
        ]:
            error = self.assertRaises(InvalidRequest, schedule_request, query.encode(), None, b"")
            self.assertIn(sentence, str(error), query)


def asked(query: bytes = b"", content_type: str | None = None, body: bytes = b"") -> Any:
    return schedule_request(query, content_type, body)


def _planned(query: bytes) -> Plan:
    return plan(ScheduleRequest.of(asked(query)), NOW)


class ParametersTests(SynchronousTestCase):
    def refusal(self, *request: Any) -> str:
        return str(self.assertRaises(InvalidRequest, asked, *request))

    def test_none_are_none(self) -> None:
        self.assertEqual(asked(), RawRequest())
        self.assertEqual(asked(b"&&"), RawRequest())

    def test_all_of_them_from_a_query_a_form_or_json(self) -> None:
        members: dict[str, Any] = {
            "interval": "P1D",
            "cron": "0 9 * * *",
            "location": "Europe/Riga",
            "first-run": "2014-12-31T21:00:00-03:00",
            "one-off": True,
            "immediate": False,
            "until": "2016-01-01T00:00:00Z",
            "count": 3,
            "catch-up": "skip",
            "max-lateness": 90.5,
            "on-failure": "stop",
            "jitter": "1h",
            "dst-gap": "skip",
            "dst-overlap": "last",
            "if-exists": "update",
        }
        pairs = urlencode(members).encode()
        # Whether they go together is not judged here.
        expected = RawRequest(
            interval=Duration(days=1, text="P1D"),
            cron="0 9 * * *",
            location="Europe/Riga",
            first_run=LATER,
            one_off=True,
            immediate=False,
            until=datetime(2016, 1, 1, tzinfo=UTC),
            count=3,
            catch_up=CatchUp.SKIP,
            max_lateness=timedelta(seconds=90.5),
            on_failure=OnFailure.STOP,
            jitter=timedelta(hours=1),
            dst_gap=Gap.SKIP,
            dst_overlap=Overlap.LAST,
            if_exists=IfExists.UPDATE,
        )
        self.assertEqual(asked(pairs), expected)
        self.assertEqual(asked(b"", FORM, pairs), expected)
        self.assertEqual(asked(b"", JSON, json.dumps(members).encode()), expected)
        texts = {name: str(value) for name, value in members.items()}
        self.assertEqual(asked(b"", JSON, json.dumps(texts).encode()), expected)
        spelled = {name.replace("-", "_"): value for name, value in members.items()}
        pairs = urlencode(spelled).encode()
        self.assertEqual(asked(pairs), expected)
        self.assertEqual(asked(b"", FORM, pairs), expected)
        self.assertEqual(asked(b"", JSON, json.dumps(spelled).encode()), expected)
        self.assertEqual(preview(pairs), (expected, RunTimes()))

    def test_numbers_of_json(self) -> None:
        """A number is one however JSON has it (RFC 8259 section 6)."""
        for number in (b"60", b"60.0", b"6e1", b"6E+1", b"0.6e2", b"600e-1"):
            body = b'{"interval":%b,"count":%b,"one-off":1.0}' % (number, number)
            request = asked(b"", JSON, body)
            self.assertEqual(request.interval, whole_seconds(60), number)
            self.assertEqual((request.count, request.one_off), (60, True), number)
        for zero in (b"0", b"0.0", b"-0.0", b"0e5"):
            request = asked(b"", JSON, b'{"interval":%b}' % zero)
            self.assertEqual(request.interval, whole_seconds(0), zero)
        self.assertEqual(
            asked(b"", JSON, b'{"interval":1.5e0,"max-lateness":25e-2}'),
            asked(b"interval=1.5&max-lateness=0.25"),
        )

    def test_query_and_body_together(self) -> None:
        expected = RawRequest(interval=whole_seconds(60), immediate=True)
        self.assertEqual(asked(b"interval=60", FORM, b"immediate=on"), expected)
        self.assertEqual(asked(b"interval=60", JSON, b'{"immediate":1}'), expected)

    def test_form_rules_for_escapes(self) -> None:
        self.assertEqual(asked(b"first%2drun=2015-01-01+00%3A00:00Z").first_run, LATER)
        self.assertIn("%2B", self.refusal(b"first-run=2015-01-01T03:00:00+03:00"))
        self.assertEqual(asked(b"first-run=2015-01-01T03:00:00%2B03:00").first_run, LATER)

    def test_a_media_type_has_parameters_and_no_case(self) -> None:
        for content_type in [f"{FORM}; charset=utf-8", f"{FORM.upper()} ;charset=UTF-8"]:
            self.assertEqual(asked(b"", content_type, b"interval=5").interval.text, "5")

    def test_another_media_type_is_refused_naming_the_two(self) -> None:
        for content_type in [None, "", "text/plain", "multipart/form-data; boundary=x"]:
            error = self.assertRaises(UnsupportedMediaType, asked, b"", content_type, b"interval=5")
            self.assertIn(FORM, str(error))
            self.assertIn(JSON, str(error))
        self.assertEqual(asked(b"interval=5", "text/plain", b"").interval.text, "5")
        # What is wrong with the query is said first.
        self.assertIn("'%zz'", self.refusal(b"interval=%zz", "text/plain", b"interval=5"))

    def test_unknown_parameters_are_refused_by_name_with_a_guess(self) -> None:
        takes = (
            "a job takes interval, cron, location, first-run, one-off, immediate, until, count, "
            "catch-up, max-lateness, on-failure, jitter, success, gone, give-up, dst-gap, "
            "dst-overlap, if-exists, endpoint, payload, payload-base64, content-type, headers, "
            "method, timeout, retry, retry-interval, retry-multiplier, retry-max-interval, "
            "retry-jitter, retry-stop-after, retry-max-attempts, tags, description, redact, "
            "on-end, save-response, alert-after, expect-within, alert-url"
        )
        for request, shown, guess in [
            ((b"intervall=60",), "'intervall'", "interval"),
            ((b"Interval=60",), "'Interval'", "interval"),
            ((b"interval =60",), "'interval '", "interval"),
            ((b"", JSON, b'{"firstrun":"x"}'), "'firstrun'", "first-run"),
            ((b"catchup=all",), "'catchup'", "catch-up"),
            ((b"Timezone=UTC",), "'Timezone'", "location"),
            ((b"time_zone=UTC",), "'time_zone'", "location"),
            ((b"every=60",), "'every'", "interval"),
            ((b"interval=60", FORM, b"times=3"), "'times'", "count"),
            ((b"dst_gapp=all",), "'dst_gapp'", "dst-gap"),
            ((b"=60",), "''", ""),
            ((b"", FORM, b'{"interval":60}'), "'{\"interval\":60}'", "JSON"),
            ((b"interval=60", FORM, b"x=1"), "'x'", ""),
            ((b"enable=true",), "'enable'", ""),
            ((b"after=x",), "'after'", ""),
            ((b"x" * 5000 + b"=1",), "'" + "x" * 39 + "…'", ""),
        ]:
            meant = f" (did you mean {guess}?)" if guess else ""
            if guess == "JSON":
                meant = " (JSON needs the header Content-Type: application/json)"
            self.assertEqual(
                self.refusal(*request), f"there is no parameter {shown}{meant}: {takes}"
            )
        # A semicolon separates nothing.
        self.assertIn("interval is '60;one-off=1'", self.refusal(b"interval=60;one-off=1"))

    def test_only_the_first_of_many_mistakes_are_looked_at(self) -> None:
        """P7: a body may have thousands, and to guess what each one means takes its time."""
        guessed: list[str] = []

        def guess(name: str, readers: object, elsewhere: object) -> str:
            guessed.append(name)
            return ""

        self.patch(web_values, "_guess", guess)
        body = json.dumps({f"x{number}": number for number in range(1000)}).encode()
        error = self.assertRaises(InvalidRequest, schedule_request, b"", JSON, body)
        self.assertEqual(len(error.errors), MOST_MISTAKES)
        self.assertEqual(len(guessed), MOST_MISTAKES)

    def test_repeated_parameters_are_refused(self) -> None:
        for request in [
            (b"interval=60&interval=61",),
            (b"interval=60&interval=60",),
            (b"interval=60", FORM, b"interval=61"),
            (b"interval=60", JSON, b'{"interval":61}'),
            (b"", JSON, b'{"interval":60,"interval":61}'),
            (b"interval=60", JSON, b'{"interval":6e1}'),
        ]:
            sentence = self.refusal(*request)
            self.assertIn("interval is given twice, as '60' and as '6", sentence)
            self.assertTrue(sentence.endswith("': give it once"), sentence)
        for request in [
            (b"catch-up=all&catch_up=skip",),
            (b"catch_up=all", FORM, b"catch-up=skip"),
            (b"catch-up=all", JSON, b'{"catch_up":"skip"}'),
            (b"", JSON, b'{"catch_up":"all","catch-up":"skip"}'),
        ]:
            self.assertEqual(
                self.refusal(*request),
                "catch-up is given twice, as 'all' and as 'skip': give it once",
            )
        self.assertEqual(
            self.refusal(b"interval=60", JSON, b'{"interval":null}'),
            "interval is given twice, as '60' and as 'null': give it once",
        )

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
            (
                b"interval=60",
                "the body is not JSON: line 1, column 1, at 'interval=60', can't be read",
            ),
            (b'{"interval":60,}', "line 1, column "),
            (b'{"interval":60}\n{', "line 2, column 1, at '{', can't be read"),
            # What may be a secret is not repeated.
            (b'{"payload":"s3cret', "line 1, column 12, at '\"', can't be read"),
            (b'{"payload":"s3\\cret"}', "line 1, column 15, at '\\\\', can't be read"),
            (b"{'payload':'s3cret'}", "line 1, column 2, at \"'\", can't be read"),
            (b"{", "the body is not JSON: it ends before it is complete"),
            (b'{"interval":60 ', "the body is not JSON: it ends before it is complete"),
            (b" ", "the body is not JSON: it ends before it is complete"),
            (
                b"\xef\xbb\xbf{}",
                "the body is not JSON: it begins with a byte order mark: send it without one",
            ),
            (b"[" * 60_000, "nested too deeply"),
            (b"[60]", "not an object"),
            (b"60", "not an object"),
            (b'"interval"', "not an object"),
            (b"null", "not an object"),
            (b'{"cron":null}', "'cron' is null"),
            (b'{"immediate":null}', "'immediate' is null"),
            (b'{"interval":[60]}', "'interval' is an object or array"),
            (b'{"interval":{"s":60}}', "'interval' is an object or array"),
            (b'{"interval":1.5e-30}', "interval is '1.5e-30'"),
            (b'{"interval":1e9999999999999999999}', "interval is '1e9999999999999999999'"),
            (b'{"interval":-5}', "interval is '-5'"),
            (b'{"interval":"1e3"}', "interval is '1e3'"),
            (b'{"interval":NaN}', "interval is 'NaN'"),
            (b'{"interval":true}', "interval is 'true'"),
            (b'{"interval":' + b"9" * 10_000 + b"}", "interval is '999"),
            (b'{"one-off":2}', "one-off is '2'"),
            (b'{"count":0}', "count is '0'"),
            (b'{"count":3.5}', "count is '3.5'"),
            (b'{"max-lateness":-1}', "max-lateness is '-1'"),
            (b'{"max-lateness":1e400}', "max-lateness is '1e400'"),
            (b'{"cron":5}', "cron is '5'"),
            (b'{"cron":"\\ud800 * * * *"}', "cron is '\\ud800 * * * *'"),
            (b'{"location":"\\ud800"}', "location is '\\ud800'"),
            (b'{"one-off":"\\ud800"}', "one-off is '\\ud800'"),
        ]:
            self.assertIn(sentence, self.refusal(b"", JSON, body), body[:50])

    @examples
    @given(
        queries,
        st.sampled_from([None, FORM, JSON, "\xff", "x" * 300]),
        st.just(b"") | queries | json_bodies,
    )
    def test_any_octets_are_read_or_refused_in_a_sentence(
        self, query: bytes, kind: str | None, body: bytes
    ) -> None:
        for read in (
            lambda: asked(query, kind, body),
            lambda: enablement(query, kind, body),
            lambda: run_times(query),
            lambda: listing(query),
            lambda: preview(query),
        ):
            try:
                read()
            except (InvalidRequest, UnsupportedMediaType) as refusal:
                self.assertLess(len(str(refusal)), 600)
                self.assertTrue(str(refusal).isprintable(), refusal)

    @examples
    @given(st.dictionaries(st.sampled_from(PARAMETERS), values | st.text(max_size=5)))
    def test_a_query_a_form_and_json_say_the_same(self, pairs: dict[str, str]) -> None:
        def answer(*request: Any) -> Any:
            try:
                return asked(*request)
            except InvalidRequest as refusal:
                return str(refusal)

        encoded = urlencode(pairs).encode()
        found = answer(encoded)
        self.assertEqual(answer(b"", FORM, encoded), found)
        self.assertEqual(answer(b"", JSON, json.dumps(pairs).encode()), found)

    @examples
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(PARAMETERS),
                st.text(st.characters(exclude_categories=["Cs"]))
                | st.text("P0123456789YMWDTHS.,-*/#L hms", max_size=20),
            ),
            unique_by=lambda pair: pair[0],
        )
    )
    def test_any_text_is_read_or_refused_in_a_sentence(self, pairs: list[tuple[str, str]]) -> None:
        query = urlencode(pairs).encode()
        for read in (asked, preview):
            try:
                read(query)
            except InvalidRequest as refusal:
                self.assertLess(len(str(refusal)), 600)
                self.assertNotIn("\n", str(refusal))

    @examples
    @given(st.sampled_from(PARAMETERS), values)
    def test_what_looks_right_is_read_or_refused(self, name: str, value: str) -> None:
        """And what is read can be planned, or is refused in a sentence."""
        try:
            request = asked(urlencode({name: value}).encode())
            plan(ScheduleRequest.of(request), NOW)
        except InvalidRequest:
            pass


class ManyTests(SynchronousTestCase):
    """P7, P10: what would take long to read is refused before it is read."""

    def test_values_of_json(self) -> None:
        for unit in (b"1,", b"[],", b'"",', b'"a\\"b",', b"[[],1],"):
            per_unit = sum(map(unit.count, (b",", b"[")))
            for number, refused in (
                (MAX_VALUES // per_unit - 3, False),
                (MAX_VALUES // per_unit + 1, True),
            ):
                values = (unit * number)[:-1]
                body = b'{"interval":60,"payload":[' + values + b"]}"
                if len(body) <= MAX_VALUES:
                    continue
                if refused:
                    error = self.assertRaises(InvalidRequest, schedule_request, b"", JSON, body)
                    self.assertIn(f"more than {MAX_VALUES} values", str(error))
                else:
                    payload = schedule_request(b"", JSON, body).payload
                    assert payload is not None
                    self.assertEqual(payload.octets, b"[" + values + b"]")

    def test_what_is_text_is_one_value(self) -> None:
        for text in ("[,{" * 100_000, '"' * 300_000, '\\"' * 100_000, "\\" * 100_001):
            body = json.dumps({"interval": 60, "payload": text}).encode()
            payload = schedule_request(b"", JSON, body).payload
            assert payload is not None
            self.assertEqual(payload.octets, text.encode())

    def test_what_is_no_json(self) -> None:
        """It takes milliseconds, not seconds: each octet is looked at once."""
        for body in (
            b'{"a":"' + b'\\"' * 30_000,  # a string that does not end
            b'{"a":' + b'\\"' * 30_000,
            (b"[" * 999 + b"1") * 260,
            (b"[" + b" " * 250) * 999,
        ):
            began = time.process_time()
            self.assertRaises(InvalidRequest, schedule_request, b"", JSON, body)
            self.assertLess(time.process_time() - began, 0.5, body[:20])

    def test_parameters_of_a_form(self) -> None:
        form = b"x=1&" * (MAX_PAIRS + 1)
        for request in ((form, None, b""), (b"", FORM, form)):
            error = self.assertRaises(InvalidRequest, schedule_request, *request)
            self.assertIn(f"more than {MAX_PAIRS} parameters", str(error))


class EnablementTests(SynchronousTestCase):
    def test_exactly_one_and_true(self) -> None:
        for request, expected in [
            ((b"enable=true", None, b""), True),
            ((b"disable=true", None, b""), False),
            ((b"disable=ON", None, b""), False),
            ((b"", FORM, b"enable=1"), True),
            ((b"", JSON, b'{"disable":true}'), False),
        ]:
            self.assertEqual(enablement(*request), Enablement(expected))
        request = b"disable=true&reason=too+slow", None, b""
        self.assertEqual(enablement(*request), Enablement(False, "too slow"))

    def test_anything_else_is_refused_in_a_sentence(self) -> None:
        takes = "it takes true, yes, on or 1, or false, no, off or 0"
        both = "enable and disable are both given; give just one of them, as true"
        for query, sentence in [
            (b"", "there is nothing to change: give enable=true or disable=true"),
            (b"enable=true&disable=true", both),
            (b"enable=true&disable=false", both),
            (b"enable=false", "enable is false: use disable=true for that"),
            (b"disable=no", "disable is false: use enable=true for that"),
            (b"enable", f"enable is '': {takes}"),
            (b"disable=maybe", f"disable is 'maybe': {takes}"),
            (b"enable=1&enable=1", "enable is given twice, as '1' and as '1': give it once"),
            (
                b"enabled=true",
                "there is no parameter 'enabled' (did you mean enable?): "
                "a change takes enable, disable, reason",
            ),
            (
                b"interval=60&enable=true",
                "there is no parameter 'interval' (a merge patch has one, with the header "
                "Content-Type: application/merge-patch+json): "
                "a change takes enable, disable, reason",
            ),
        ]:
            error = self.assertRaises(InvalidRequest, enablement, query, None, b"")
            self.assertEqual(str(error), sentence)
        self.assertRaises(UnsupportedMediaType, enablement, b"", "text/plain", b"enable=true")


class RunTimesTests(SynchronousTestCase):
    def test_ten_from_now_on_unless_said_otherwise(self) -> None:
        for query, expected in [
            (b"", RunTimes(10, None)),
            (b"limit=1", RunTimes(1, None)),
            (b"limit=100&after=2015-01-01T00:00:00Z", RunTimes(100, LATER)),
        ]:
            self.assertEqual(run_times(query), expected)
            self.assertEqual(preview(query), (RawRequest(), expected))

    def test_the_older_name_of_limit(self) -> None:
        """count is a job's own parameter, so that only a list of a job that is there takes it."""
        self.assertEqual(run_times(b"count=7"), RunTimes(7))
        self.assertEqual(
            str(self.assertRaises(InvalidRequest, run_times, b"count=7&limit=7")),
            "limit and count both say how many run times are listed; give just one of them",
        )
        takes = "it takes a whole number from 1 to 100"
        for value in ("0", "101"):
            self.assertEqual(
                str(self.assertRaises(InvalidRequest, run_times, f"count={value}".encode())),
                f"count is '{value}': {takes}",
            )

    def test_anything_else_is_refused_in_a_sentence(self) -> None:
        takes = "it takes a whole number from 1 to 100"
        for query, sentence in [
            (b"limit=0", f"limit is '0': {takes}"),
            (b"limit=101", f"limit is '101': {takes}"),
            (b"limit=-1", f"limit is '-1': {takes}"),
            (b"limit=", f"limit is '': {takes}"),
            (b"limit=1&limit=1", "limit is given twice, as '1' and as '1': give it once"),
            (
                b"after=now",
                "after is 'now': it takes an RFC 3339 timestamp with a zone, such as "
                "2030-01-31T09:00:00Z",
            ),
        ]:
            for read in (run_times, preview):
                self.assertEqual(str(self.assertRaises(InvalidRequest, read, query)), sentence)
        self.assertEqual(
            str(self.assertRaises(InvalidRequest, run_times, b"before=now")),
            "there is no parameter 'before': a list of run times takes limit, after, count",
        )

    def test_a_preview_takes_what_a_put_takes(self) -> None:
        """Its own count, too, beside how many times to list."""
        query = (
            b"interval=P1M&location=Europe/Riga&count=500&after=2015-01-01T00:00:00Z"
            b"&catch-up=all&limit=3"
        )
        self.assertEqual(
            preview(query),
            (
                RawRequest(
                    interval=duration_from_text("P1M"),
                    location="Europe/Riga",
                    count=500,
                    catch_up=CatchUp.ALL,
                ),
                RunTimes(3, LATER),
            ),
        )
        self.assertEqual(
            str(self.assertRaises(InvalidRequest, preview, b"x=1")),
            "there is no parameter 'x': a preview takes "
            + ", ".join([*PARAMETERS, "limit", "after"]),
        )


class CombinationTests(SynchronousTestCase):
    """The table of docs/api.md: which parameters go together, and the first run they give."""

    def test_each_row(self) -> None:
        minute = NOW.replace(minute=11)
        for query, text, first in [
            (b"interval=60", "60", minute),
            (b"interval=PT1M", "60", minute),
            (b"interval=60&first-run=2015-01-01T00:00:00Z", "60", LATER),
            (b"interval=60&immediate=true", "60", NOW),
            (b"one-off=true&interval=60", "", minute),
            (b"one-off=true&interval=0", "", NOW),
            (b"one-off=true&first-run=2015-01-01T00:00:00Z", "", LATER),
            (b"one-off=true&immediate=true", "", NOW),
            (b"one-off=true&first-run=1985-04-12T23:20:50Z", "", datetime(1985, 4, 12, 23, 20, 50)),
            (b"interval=P1D", "P1D", NOW.replace(day=12)),
            (b"cron=0+9+*+*+*&location=Europe/Istanbul", "0 9 * * *", datetime(2014, 11, 12, 7)),
            (b"cron=0+9+*+*+*&first-run=2015-01-01T00:00:00Z", "0 9 * * *", LATER.replace(hour=9)),
            (b"cron=0+9+*+*+*&immediate=true", "0 9 * * *", NOW),
        ]:
            planned = _planned(query)
            self.assertEqual(planned.schedule.text, text, query)
            self.assertEqual(planned.first, first.replace(tzinfo=UTC), query)

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
            (b"cron=0+9+*+*+*&interval=60", "cron and interval"),
            (b"cron=0+9+*+*+*&immediate=1&" + first, "first-run"),
            (b"one-off=true&interval=60&cron=0+9+*+*+*", "cron"),
            (b"one-off=true&interval=60&count=3", "count"),
            (b"one-off=true&interval=60&catch-up=all", "catch-up"),
            (b"one-off=true&interval=60&on-failure=stop", "on-failure"),
            (b"interval=60&dst-gap=skip", "dst-gap"),
            (b"interval=PT24H&dst-overlap=both", "dst-overlap"),
            (b"interval=60&until=2014-12-31T00:00:00Z&" + first, "until"),
            (b"interval=60&until=2014-01-01T00:00:00Z", "until"),
            (b"interval=P8000Y", "interval is 'P8000Y'"),
        ]:
            error = self.assertRaises(InvalidRequest, _planned, query)
            self.assertIn(name, str(error), query)
