"""What the API answers: a job, the counts and a problem, as JSON octet by octet."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from twisted.trial.unittest import SynchronousTestCase
from werkzeug.exceptions import MethodNotAllowed, NotFound

from dalga.errors import ConfigError, DalgaError, InvalidRequest, JobNotFound, StoreUnavailable
from dalga.job import Job, JobKey, UnreadableJob
from dalga.jobs import Status
from dalga.schedule import Every, Once
from dalga.web.errors import (
    BodyTooLarge,
    UnknownResource,
    UnsupportedMediaType,
    problem_of,
    unexpected,
)
from dalga.web.presentation import job_json, problem_json, status_json, timestamp

WHEN = datetime(2014, 11, 11, 22, 11, 40, tzinfo=UTC)
JOB = Job(JobKey("check_feed", "1234"), Every(timedelta(seconds=60)), WHEN, WHEN)
PLAIN = b'{"path":"check_feed","body":"1234","interval":60,"next_run":"2014-11-11T22:11:40Z"'


class JobTests(SynchronousTestCase):
    def test_a_plain_job_is_the_originals_83_octets(self) -> None:
        self.assertEqual(job_json(JOB), PLAIN + b"}")
        self.assertEqual(len(job_json(JOB)), 83)

    def test_a_one_off_jobs_interval_is_0(self) -> None:
        self.assertIn(b'"interval":0,', job_json(replace(JOB, schedule=Once())))

    def test_text_stays_text(self) -> None:
        job = replace(JOB, key=JobKey('jöb/"\\', "🐰\0\n<\u2028"))
        self.assertIn('{"path":"jöb/\\"\\\\","body":"🐰\\u0000\\n<\u2028",'.encode(), job_json(job))
        self.assertEqual(json.loads(job_json(job))["body"], job.key.body)

    def test_what_is_no_utf_8_does_not_get_out(self) -> None:
        job_json(replace(JOB, attempts=1, error="\ud800")).decode("utf-8")

    def test_a_set_aside_job_has_no_next_run(self) -> None:
        self.assertTrue(job_json(replace(JOB, due=None)).endswith(b'"next_run":null}'))

    def test_a_running_jobs_next_run_is_its_scheduled_time_and_not_its_leases_end(self) -> None:
        lease_end = WHEN + timedelta(seconds=20)
        self.assertEqual(job_json(replace(JOB, due=lease_end, running=True)), PLAIN + b"}")

    def test_a_failing_job_says_so(self) -> None:
        job = replace(JOB, attempts=3, error="500 Internal Server Error")
        self.assertEqual(
            job_json(job),
            PLAIN + b',"failing":{"attempts":3,"error":"500 Internal Server Error"}}',
        )
        # What is said of a row that was set aside is no failure of a run.
        self.assertEqual(job_json(replace(JOB, error="interval is 'x'")), PLAIN + b"}")
        # A first attempt that is under way has not failed.
        self.assertEqual(job_json(replace(JOB, attempts=1, running=True)), PLAIN + b"}")

    def test_an_unreadable_row_is_shown_with_its_problem(self) -> None:
        row = UnreadableJob(JobKey("p", "b"), "interval is 'x'")
        self.assertEqual(
            job_json(row),
            b'{"path":"p","body":"b","next_run":null,"problem":"interval is \'x\'"}',
        )

    def test_times_are_whole_seconds_cut_off_and_years_have_four_digits(self) -> None:
        for instant, text in [
            (WHEN.replace(microsecond=999_999), "2014-11-11T22:11:40Z"),
            (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
            (datetime.max.replace(tzinfo=UTC), "9999-12-31T23:59:59Z"),
        ]:
            self.assertEqual(timestamp(instant), text)


class StatusTests(SynchronousTestCase):
    def test_the_originals_keys_come_first(self) -> None:
        self.assertEqual(
            status_json(Status(1, 2, 3, 4)),
            b'{"running_jobs":1,"total_jobs":2,"pending_jobs":3,"set_aside_jobs":4}',
        )


class ProblemTests(SynchronousTestCase):
    def test_each_expected_error_has_its_status(self) -> None:
        for error, status in [
            (InvalidRequest("x"), 400),
            (JobNotFound("x"), 404),
            (UnknownResource("x"), 404),
            (NotFound(), 404),
            (MethodNotAllowed(["GET"]), 405),
            (BodyTooLarge("x"), 413),
            (UnsupportedMediaType("x"), 415),
            (StoreUnavailable("x"), 503),
        ]:
            problem = problem_of(error)
            assert problem is not None, error
            self.assertEqual(problem.status, status)

    def test_a_subclass_is_what_its_parent_is(self) -> None:
        class Contradiction(InvalidRequest):
            pass

        problem = problem_of(Contradiction("x"))
        assert problem is not None
        self.assertEqual(problem.status, HTTPStatus.BAD_REQUEST)

    def test_what_is_not_expected_has_no_answer_of_its_own(self) -> None:
        for error in [ValueError("x"), DalgaError("x"), ConfigError("x")]:
            self.assertIsNone(problem_of(error))
        self.assertEqual(unexpected().status, HTTPStatus.INTERNAL_SERVER_ERROR)

    def test_problem_details(self) -> None:
        problem = problem_of(BodyTooLarge("interval is '½'"))
        assert problem is not None
        self.assertEqual(
            problem_json(problem).decode(),
            '{"type":"about:blank","title":"Content Too Large","status":413,'
            '"detail":"interval is \'½\'"}',
        )
