"""A job as the parameters that it was made of, and what a PATCH makes of them."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.delivery import Disabling, Notes
from dalga.model.job import AT_REST, Job, Standing
from dalga.model.patch import patched, replanned, request_of
from dalga.model.plan import Plan, RawRequest, ScheduleRequest, amended, plan
from dalga.web.bodies import JSON
from dalga.web.parameters import changes, schedule_request
from tests.examples import DAY, HOUR, KEY, MINUTE, NOW, SECOND, utc
from tests.strategies import thorough
from tests.test_fields import PUTS


def job_of(planned: Plan, **state: Any) -> Job:
    return Job(
        key=KEY,
        schedule=planned.schedule,
        options=planned.options,
        anchor=planned.anchor,
        scheduled=planned.first,
        due=planned.first,
        delivery=planned.delivery,
        notes=planned.notes,
        **state,
    )


def put(parameters: str, now: datetime = NOW, **state: Any) -> Job:
    """The job that a PUT makes. `parameters` are the members of a JSON object."""
    raw = schedule_request(b"", JSON, f"{{{parameters}}}".encode())
    return job_of(plan(ScheduleRequest.of(raw), now, key=KEY), **state)


def given_by(patch: str) -> dict[str, Any]:
    return changes(b"", patch.encode(), KEY)


def patch(job: Job, text: str, now: datetime = NOW) -> Job:
    """What a PATCH makes of a job."""
    request = ScheduleRequest.of(patched(job, given_by(text)))
    return job_of(replanned(job, request, now))


#: Texts of each kind of interval, cron and time.
_intervals = st.sampled_from(["60", "1.5", "PT36H", "P1D", "P1M", "P1M2DT3H", "0"])
_crons = st.sampled_from(["@daily", "30 9 * * MON-FRI", "0 30 9 L * *"])
_times = st.sampled_from(
    [
        "2001-01-01T00:00:00Z",
        "2014-11-11T22:10:40Z",
        "2030-01-01T00:00:00.5Z",
        "9999-01-01T00:00:00Z",
    ]
)
_booleans = st.booleans()
_parameters = st.fixed_dictionaries(
    {},
    optional={
        "location": st.sampled_from(["UTC", "Europe/Riga", "America/Los_Angeles"]),
        "until": _times,
        "count": st.integers(1, 9),
        "catch_up": st.sampled_from(["one", "skip", "all"]),
        "max_lateness": st.sampled_from(["90.5", "1h"]),
        "on_failure": st.sampled_from(["stop", "continue"]),
        "jitter": st.sampled_from(["1h", "0.001"]),
        "success": st.sampled_from(["200-299", "200,202"]),
        "gone": st.just("none"),
        "give_up": st.just("400-499"),
        "dst_gap": st.sampled_from(["skip", "shift"]),
        "dst_overlap": st.sampled_from(["first", "last", "both"]),
        "endpoint": st.sampled_from(["default", "billing"]),
        "content_type": st.just("text/csv"),
        "headers": st.sampled_from([{}, {"X-A": "1"}, {"X-A": "1", "b": "c"}]),
        "method": st.sampled_from(["POST", "PUT", "DELETE"]),
        "timeout": st.just(2.5),
        "retry": st.sampled_from([{}, {"interval": 5}, {"jitter": 0, "max_attempts": 3}]),
        "tags": st.sampled_from([[], ["a", "b"]]),
        "description": st.sampled_from(["", "d"]),
        "redact": st.sampled_from([[], ["payload"], ["x-a"]]),
        "on_end": st.sampled_from(["keep", "delete"]),
        "alert_after": st.integers(1, 9),
        "expect_within": st.sampled_from([90, "25h"]),
        "alert_url": st.sampled_from(["ops", "none"]),
    },
)
_payloads: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"payload": "a"}, {"payload": [1.5]}, {"payload": ""}, {"payload_base64": "AAAA"}]
)
_schedules: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries(
        {"interval": _intervals}, optional={"first_run": _times, "immediate": _booleans}
    ),
    st.fixed_dictionaries({"cron": _crons}, optional={"first_run": _times, "immediate": _booleans}),
    st.fixed_dictionaries({"one_off": st.just(True), "interval": _intervals}),
    st.fixed_dictionaries({"one_off": st.just(True), "first_run": _times}),
    st.just({"one_off": True, "immediate": True}),
)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Jobs of each kind, as a PUT makes them."""
    parameters: dict[str, Any] = {**draw(_parameters), **draw(_payloads), **draw(_schedules)}
    if parameters.get("one_off"):
        for name in ("until", "count", "catch_up", "on_failure"):
            parameters.pop(name, None)
    if parameters.get("immediate"):
        parameters.pop("until", None)  # it may be before the run after this one
    if "cron" not in parameters and "P" not in parameters.get("interval", "").replace("PT", ""):
        parameters.pop("dst_gap", None)
        parameters.pop("dst_overlap", None)
    try:
        return put(json.dumps(parameters)[1:-1])
    except InvalidRequest:
        assume(False)
        raise


class RequestTests(SynchronousTestCase):
    """A job, and the request that would make it."""

    @thorough(500)
    @given(jobs())
    def test_inverse(self, job: Job) -> None:
        """The request gives the same job again, but for the times of its runs."""
        request = ScheduleRequest.of(request_of(job))
        found = plan(request, NOW, key=KEY)
        self.assertEqual(
            (found.schedule, found.options, found.delivery, found.notes),
            (job.schedule, job.options, job.delivery, job.notes),
        )

    @thorough(200)
    @given(jobs(), st.sampled_from([timedelta(), SECOND, DAY, 400 * DAY]))
    def test_the_schedule_is_the_same(self, job: Job, passed: timedelta) -> None:
        """So that no PATCH of something else moves a run, whenever it comes."""
        found = amended(job, ScheduleRequest.of(request_of(job)), NOW + passed)
        assert found is not None
        self.assertEqual((found.anchor, found.first), (job.anchor, job.scheduled))

    def test_each_parameter(self) -> None:
        """Of which one has an attribute that `request_of` would leave out."""
        seen = set()
        for text in PUTS.values():
            raw = (
                schedule_request(b"", JSON, text.encode())
                if text.startswith("{")
                else schedule_request(text.encode(), None, b"")
            )
            job = job_of(plan(ScheduleRequest.of(raw), NOW, key=KEY))
            found = request_of(job)
            for field in fields(RawRequest):
                value = getattr(raw, field.name)
                if value not in (None, False):
                    if field.name not in ("immediate", "if_exists"):  # no job has these
                        self.assertEqual(getattr(found, field.name), value, text)
                    seen.add(field.name)
        self.assertEqual(seen, {field.name for field in fields(RawRequest)})


class PatchedTests(SynchronousTestCase):
    """What becomes of the parameters."""

    def test_changed_and_removed(self) -> None:
        for before, change, after in [
            ('"interval":60', "{}", '"interval":60'),
            ('"interval":60', '{"count":3}', '"interval":60,"count":3'),
            ('"interval":60,"count":3', '{"count":null}', '"interval":60'),
            ('"interval":60', '{"count":null,"tags":null,"headers":null}', '"interval":60'),
            ('"interval":60,"catch_up":"all"', '{"catch_up":null}', '"interval":60'),
            ('"interval":60,"endpoint":"b"', '{"endpoint":null}', '"interval":60'),
            ('"interval":60,"on_end":"keep"', '{"on-end":null}', '"interval":60'),
            ('"interval":60,"alert_after":1', '{"alert_after":null}', '"interval":60'),
            ('"interval":60,"method":"PUT"', '{"method":null}', '"interval":60'),
            ('"interval":60,"tags":["a","b"]', '{"tags":["c"]}', '"interval":60,"tags":["c"]'),
            ('"interval":60,"description":"d"', '{"description":""}', '"interval":60'),
            # objects
            (
                '"interval":60,"headers":{"X-A":"1","b":"2","c":"3"}',
                '{"headers":{"x-a":"9","B":null,"d":"4","e":null}}',
                '"interval":60,"headers":{"x-a":"9","c":"3","d":"4"}',
            ),
            ('"interval":60,"headers":{"a":"1"}', '{"headers":{"a":null}}', '"interval":60'),
            ('"interval":60,"headers":{"a":"1"}', '{"headers":null}', '"interval":60'),
            ('"interval":60', '{"headers":{"a":"1"}}', '"interval":60,"headers":{"a":"1"}'),
            (
                '"interval":60,"retry":{"interval":5,"jitter":0}',
                '{"retry":{"jitter":null,"max_attempts":3}}',
                '"interval":60,"retry":{"interval":5,"max_attempts":3}',
            ),
            ('"interval":60,"retry":{"jitter":0}', '{"retry":{"jitter":null}}', '"interval":60'),
            ('"interval":60,"retry":{"jitter":0}', '{"retry":null}', '"interval":60'),
            # a payload is replaced whole, also an object
            (
                '"interval":60,"payload":{"a":1,"b":2}',
                '{"payload":{"a":3}}',
                '"interval":60,"payload":{"a":3}',
            ),
            ('"interval":60,"payload":"a"', '{"payload":null}', '"interval":60'),
            # one in the place of another
            (
                '"interval":60,"payload":"a"',
                '{"payload_base64":"AAAA"}',
                '"interval":60,"payload_base64":"AAAA"',
            ),
            (
                '"interval":60,"payload_base64":"AAAA"',
                '{"payload":"a"}',
                '"interval":60,"payload":"a"',
            ),
            ('"interval":60', '{"cron":"@daily"}', '"cron":"@daily"'),
            ('"interval":60', '{"cron":"@daily","interval":null}', '"cron":"@daily"'),
            ('"cron":"@daily"', '{"interval":"P1D"}', '"interval":"P1D"'),
            ('"cron":"@daily"', '{"interval":null}', '"cron":"@daily"'),
            (
                '"interval":60,"first_run":"2030-01-01T00:00:00Z"',
                '{"interval":90}',
                '"interval":90,"first_run":"2030-01-01T00:00:00Z"',
            ),
            (
                '"one_off":true,"interval":60',
                '{"first_run":"2030-01-01T00:00:00Z"}',
                '"one_off":true,"first_run":"2030-01-01T00:00:00Z"',
            ),
            (
                '"one_off":true,"first_run":"2030-01-01T00:00:00Z"',
                '{"interval":60}',
                '"one_off":true,"interval":60',
            ),
            ('"interval":60', '{"one_off":true}', '"one_off":true,"interval":60'),
            ('"one_off":true,"interval":60', '{"one_off":null}', '"interval":60'),
            # by the clock of the job's location
            (
                '"interval":60,"location":"Europe/Riga"',
                '{"until":"2030-01-01T00:00:00"}',
                '"interval":60,"location":"Europe/Riga","until":"2029-12-31T22:00:00Z"',
            ),
            (
                '"interval":60',
                '{"until":"2030-01-01T00:00:00","location":"Europe/Riga"}',
                '"interval":60,"location":"Europe/Riga","until":"2029-12-31T22:00:00Z"',
            ),
        ]:
            job, expected = patch(put(before), change), put(after)
            self.assertEqual(
                (job.schedule, job.options, job.delivery, job.notes),
                (expected.schedule, expected.options, expected.delivery, expected.notes),
                change,
            )

    def test_what_is_redacted_stays(self) -> None:
        job = put('"interval":60,"payload":"s","headers":{"X-A":"t"},"redact":["payload","x-a"]')
        changed = patch(job, '{"count":3}')
        self.assertEqual(changed.delivery, job.delivery)
        self.assertEqual(changed.notes, job.notes)

    def test_what_is_redacted_is_not_shown_by_taking_it_out_of_redact(self) -> None:
        """P12: who may change a job may not see its secrets by that."""
        job = put('"interval":60,"payload":"s","headers":{"X-A":"t"},"redact":["payload","x-a"]')
        hidden = "and no answer is to show what was redacted: give"
        for change, sentence in [
            ('{"redact":["x-a"]}', f"redact has no longer 'payload', {hidden} payload again"),
            (
                '{"redact":["payload"]}',
                f"redact has no longer 'x-a', {hidden} the header 'x-a' again",
            ),
            ('{"redact":["payload"],"headers":{"b":"c"}}', "redact has no longer 'x-a'"),
            ('{"redact":null,"payload":"u"}', "redact has no longer 'x-a'"),
            ('{"redact":[],"headers":{"X-a":"u"}}', "redact has no longer 'payload'"),
        ]:
            error = self.assertRaises(InvalidRequest, patch, job, change)
            self.assertTrue(str(error).startswith(sentence), error)
            self.assertEqual([where for where, _ in error.errors], ["/redact"])
        named_so = put('"interval":60,"payload":"s","headers":{"Payload":"t"},"redact":["payload"]')
        error = self.assertRaises(InvalidRequest, patch, named_so, '{"redact":[],"payload":"u"}')
        self.assertIn("give the header 'payload' again", str(error))
        for change in [
            '{"redact":["x-a","payload"]}',
            '{"redact":["x-a"],"payload":"s"}',
            '{"redact":["x-a"],"payload":null}',
            '{"redact":["x-a"],"payload_base64":"AAAA"}',
            '{"redact":["payload"],"headers":{"x-A":"t"}}',
            '{"redact":["payload"],"headers":{"X-A":null}}',
            '{"redact":["payload"],"headers":null}',
            '{"redact":null,"headers":{"X-A":"u"},"payload":"v"}',
        ]:
            patch(job, change)

    def test_refused(self) -> None:
        for before, change, sentence, pointer in [
            ('"interval":60', '{"interval":null}', "interval is missing", ""),
            ('"interval":60', '{"interval":5,"cron":"@daily"}', "cron and interval both", "/cron"),
            (
                '"one_off":true,"interval":60',
                '{"count":3}',
                "count is for jobs that run more than once",
                "/count",
            ),
            ('"one_off":true,"immediate":true', '{"one_off":false}', "interval is 0", "/interval"),
            (
                '"interval":"P1D","dst_gap":"skip"',
                '{"interval":60}',
                "dst-gap goes with cron or with an interval that has days",
                "/dst_gap",
            ),
            (
                '"interval":60,"payload":"a"',
                '{"method":"GET"}',
                "payload can't go with",
                "/payload",
            ),
            (
                '"interval":60,"payload":"a","redact":["payload"]',
                '{"payload":null}',
                "redact has payload, and no payload is given",
                "/redact",
            ),
            (
                '"interval":60,"headers":{"a":"%s"}' % ("x" * 5000),
                '{"headers":{"b":"%s"}}' % ("x" * 5000),
                "headers have 10010 octets",
                "/headers",
            ),
            (
                '"interval":60,"retry":{"interval":9}',
                '{"retry":{"max_interval":8}}',
                "retry.interval is 9 s, longer than retry.max-interval, 8 s",
                "/retry/interval",
            ),
            (
                '"interval":60',
                '{"until":"2030-01-01T00:00:00"}',
                "until is '2030-01-01T00:00:00': the zone is missing",
                "/until",
            ),
            ('"interval":60', '{"until":"2001-01-01T00:00:00Z"}', "until is 2001-01", "/until"),
        ]:
            error = self.assertRaises(InvalidRequest, patch, put(before), change)
            self.assertTrue(str(error).startswith(sentence), error)
            self.assertEqual([where for where, _ in error.errors], [pointer], change)


class ReplannedTests(SynchronousTestCase):
    """When a job runs after a PATCH."""

    def test_the_phase_stays(self) -> None:
        """Unless the schedule is what changes, however it is written."""
        started = NOW - HOUR - SECOND
        for parameters in (
            '"interval":7200',
            '"interval":"P1D","location":"Europe/Riga"',
            '"cron":"@daily"',
            '"one_off":true,"interval":7200',
            '"interval":7200,"first_run":"2014-11-11T22:00:00Z"',
        ):
            job = put(parameters, started)
            for change in ('{"count":null,"tags":["a"],"payload":"b"}', "{}", parameters):
                text = change if change.startswith("{") else f"{{{parameters}}}"
                changed = patch(job, text)
                self.assertEqual((changed.scheduled, changed.anchor), (job.scheduled, job.anchor))

    def test_an_interval_of_0_as_get_shows_it(self) -> None:
        """It asks for no run now: GET shows it of each one-off job."""
        for time in ('"interval":7200', '"first_run":"2030-01-01T00:00:00Z"'):
            job = put(f'"one_off":true,{time}', NOW - HOUR)
            for change in ('"interval":0,"count":null', '"interval":"0","one_off":true'):
                changed = patch(job, f'{{{change},"description":"d"}}')
                self.assertEqual(
                    (changed.scheduled, changed.options, changed.notes.description),
                    (job.scheduled, job.options, "d"),
                )
        for before, change in [
            ('"interval":60', '{"interval":0}'),
            ('"one_off":true,"interval":60', '{"interval":0,"one_off":false}'),
        ]:
            error = self.assertRaises(InvalidRequest, patch, put(before), change)
            self.assertTrue(str(error).startswith("interval is 0"), error)

    def test_another_schedule_counts_from_now(self) -> None:
        job = put('"interval":7200', NOW - HOUR)
        self.assertEqual(patch(job, '{"interval":60}').scheduled, NOW + MINUTE)
        job = put('"one_off":true,"interval":7200', NOW - HOUR)
        self.assertEqual(patch(job, '{"interval":60}').scheduled, NOW + MINUTE)

    def test_a_first_run_that_has_been(self) -> None:
        """It is not made up for: the next run is the next time of its grid."""
        long_ago = '"first_run":"2014-01-01T06:30:00Z"'
        for before, change, at in [
            (f'"interval":60,{long_ago}', '{"interval":3600}', "2014-11-11T22:30"),
            (f'"interval":"P1D",{long_ago}', '{"interval":"P1M"}', "2014-12-01T06:30"),
            (f'"interval":"P1D",{long_ago}', '{"cron":"@hourly"}', "2014-11-11T23:00"),
            (f'"interval":60,{long_ago}', '{"jitter":null,"interval":"PT24H"}', "2014-11-12T06:30"),
        ]:
            job = replace(put(before, utc("2014-01-01T00:00")), scheduled=NOW, due=NOW)
            changed = patch(job, change)
            self.assertEqual(changed.scheduled, utc(at), change)
            self.assertEqual(changed.options.first_run, job.options.first_run)

    def test_a_first_run_that_is_late(self) -> None:
        """It is still to come, unless it is under way."""
        job = put('"interval":60,"first_run":"2014-11-11T22:00:00Z"', NOW - DAY)
        late = utc("2014-11-11T22:00")
        self.assertEqual(job.scheduled, late)
        self.assertEqual(patch(job, '{"interval":3600}').scheduled, late)
        running = replace(job, attempts=1, running=True, due=NOW + MINUTE)
        self.assertEqual(patch(running, '{"interval":3600}').scheduled, utc("2014-11-11T23:00"))

    def test_a_first_run_of_a_job_at_rest(self) -> None:
        """It has been, though the job has no other time yet."""
        job = put('"interval":60,"first_run":"2014-11-11T22:00:00Z"', NOW - DAY)
        for standing in AT_REST:
            changed = patch(replace(job, due=None, standing=standing), '{"interval":3600}')
            self.assertEqual(changed.scheduled, utc("2014-11-11T23:00"))

    def test_a_job_that_is_done(self) -> None:
        """It can be changed, though it has no run."""
        job = put('"interval":60,"count":3,"on_end":"keep"', NOW - HOUR)
        done = replace(job, due=None, standing=Standing.DONE, successes=3)
        for change in ('{"description":"d"}', '{"until":"2014-11-11T00:00:00Z"}'):
            changed = patch(done, change)
            self.assertEqual(changed.scheduled, done.scheduled)
            self.assertNotEqual((changed.notes, changed.options), (done.notes, done.options))

    def test_a_first_run_that_is_to_come(self) -> None:
        """It stays, though a user has triggered the job before it."""
        job = put('"interval":60,"first_run":"2030-01-01T00:00:30Z"', NOW - DAY)
        triggered = replace(job, scheduled=NOW, due=NOW)
        self.assertEqual(patch(triggered, '{"interval":3600}').scheduled, job.scheduled)

    def test_a_first_run_that_is_given(self) -> None:
        """It is, as by a PUT: the user asks for it."""
        job = put('"interval":60,"first_run":"2014-01-01T06:30:00Z"', utc("2014-01-01T00:00"))
        changed = patch(job, '{"first_run":"2014-02-01T06:30:00Z"}')
        self.assertEqual(changed.scheduled, datetime(2014, 2, 1, 6, 30, tzinfo=UTC))

    def test_no_time_until_the_end(self) -> None:
        ends = '"until":"2014-11-11T22:20:00Z","first_run":"2014-11-01T00:00:00Z"'
        job = replace(put(f'"interval":60,{ends}', utc("2014-11-01T00:00")), scheduled=NOW, due=NOW)
        error = self.assertRaises(InvalidRequest, patch, job, '{"interval":86400}')
        self.assertIn("the job would never run: it has no time after now", str(error))

    def test_a_disabled_job_stays_disabled(self) -> None:
        """With its reason, whether or not its schedule changes."""
        disabling = Disabling(NOW - DAY, "no stock")
        job = put('"interval":60,"tags":["a"]', disabled=True)
        job = replace(job, due=None, notes=replace(job.notes, disabled=disabling))
        for change in ('{"count":3}', '{"interval":90}'):
            self.assertEqual(patch(job, change).notes, Notes(("a",), disabled=disabling))


class ChangesTests(SynchronousTestCase):
    """The body of a PATCH as values."""

    def test_read(self) -> None:
        for text, expected in [
            ("{}", {}),
            ('{"path":"check_feed","body":"1234","count":3}', {"count": 3}),
            ('{"count":null,"first-run":null}', {"count": None, "first_run": None}),
            ('{"headers":{"A":null}}', {"headers": {"A": None}}),
            ('{"headers":null,"retry":null}', {"headers": None, "retry": None}),
            (
                '{"retry":{"max_attempts":null,"jitter":0}}',
                {"retry": {"max_attempts": None, "jitter": 0}},
            ),
        ]:
            self.assertEqual(given_by(text), expected)

    def test_refused(self) -> None:
        for text, sentence, *pointers in [
            ("[]", "the JSON body is not an object"),
            ("", "the body is not JSON: it ends before it is complete"),
            (
                '{"count":0,"x":1}',
                "there is no parameter 'x': a change takes interval, cron",
                "/x",
                "/count",
            ),
            ('{"immediate":true}', "there is no parameter 'immediate'", "/immediate"),
            ('{"if_exists":"keep"}', "there is no parameter 'if_exists'", "/if_exists"),
            (
                '{"retry_max_attempts":2}',
                "there is no parameter 'retry_max_attempts' (it is a part of retry: give an object "
                "with max_attempts as retry): a change takes interval",
                "/retry_max_attempts",
            ),
            (
                '{"retry_interval":9}',
                "there is no parameter 'retry_interval' (it is a part of retry: give",
                "/retry_interval",
            ),
            (
                '{"enable":true}',
                "there is no parameter 'enable' (a PATCH that is no merge patch has one, without "
                "the Content-Type application/merge-patch+json): a change takes interval",
                "/enable",
            ),
            ('{"count":1,"count":null}', "count is given twice, as '1' and as 'null'", "/count"),
            ('{"path":"x"}', "path is 'x' in the JSON body and 'check_feed' in the URL", "/path"),
            (
                '{"next_run":null,"failing":{}}',
                "'next_run', 'failing' are shown by GET and not changed by a merge patch: leave "
                "them out (a PATCH with disable=true disables a job, and a POST runs it)",
                "/next_run",
                "/failing",
            ),
            (
                '{"headers":{"Host":null,"a":1}}',
                "headers has 'Host'",
                "/headers/Host",
                "/headers/a",
            ),
            ('{"retry":{"x":null}}', "retry has no member 'x'", "/retry/x"),
        ]:
            error = self.assertRaises(InvalidRequest, given_by, text)
            self.assertTrue(str(error).startswith(sentence), error)
            self.assertEqual([where for where, _ in error.errors], pointers, text)
        error = self.assertRaises(InvalidRequest, changes, b"count=3", b"{}", KEY)
        self.assertIn("leave the query out", str(error))
