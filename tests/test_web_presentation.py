"""What the API answers: a job, the counts and a problem, as JSON octet by octet."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import islice
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from werkzeug.exceptions import MethodNotAllowed, NotFound

from dalga.errors import (
    ConfigError,
    DalgaError,
    InvalidRequest,
    JobDisabled,
    JobNotFound,
    JobOver,
    JobSetAside,
    StoreUnavailable,
)
from dalga.model.delivery import Disabling, Notes
from dalga.model.duration import duration_from_text
from dalga.model.job import Job, Standing, UnreadableJob
from dalga.model.key import JobKey
from dalga.model.options import CatchUp, OnFailure, Options
from dalga.model.schedule import Calendar, Cron, Every, Once, Schedule, timestamp
from dalga.model.zone import Dst, Gap, Occurrence, Overlap, Zone
from dalga.operations import Status, Timetable
from dalga.web.errors import (
    BodyTooLarge,
    UnknownResource,
    UnsupportedMediaType,
    problem_of,
    unexpected,
)
from dalga.web.presentation import job_json, problem_json, run_times_json, status_json

examples = settings(max_examples=300, database=None, derandomize=True, deadline=None)

LAST_SECOND = datetime.max.replace(tzinfo=UTC, microsecond=0)
WHEN = datetime(2014, 11, 11, 22, 11, 40, tzinfo=UTC)
JOB = Job(JobKey("check_feed", "1234"), Every(timedelta(seconds=60)), Options(), WHEN, WHEN, WHEN)
JOB_SHOWN = '{"path":"check_feed","body":"1234","interval":60,"next_run":"2014-11-11T22:11:40Z"'
PLAIN = JOB_SHOWN.encode()


class JobTests(SynchronousTestCase):
    def test_a_plain_job_is_the_originals_83_octets(self) -> None:
        self.assertEqual(job_json(JOB), PLAIN + b"}")
        self.assertEqual(len(job_json(JOB)), 83)

    def test_the_interval_of_each_kind_of_schedule(self) -> None:
        cases: list[tuple[Schedule, str]] = [
            (Once(), "0"),
            (Every(timedelta(seconds=60)), "60"),
            (Every(timedelta(days=3)), "259200"),
            (Every(timedelta(seconds=1.5)), '"PT1.5S"'),
            (Calendar(duration_from_text("P1M")), '"P1M"'),
            (Calendar(duration_from_text("p1dt2h")), '"P1DT2H"'),
            (Cron("0 9 * * *"), "null"),
        ]
        for schedule, text in cases:
            self.assertIn(f'"interval":{text},', job_json(replace(JOB, schedule=schedule)).decode())

    def test_text_stays_text(self) -> None:
        job = replace(JOB, key=JobKey('jöb/"\\', "🐰\0\n<\u2028"))
        self.assertIn('{"path":"jöb/\\"\\\\","body":"🐰\\u0000\\n<\u2028",'.encode(), job_json(job))
        self.assertEqual(json.loads(job_json(job))["body"], job.key.body)

    def test_what_is_no_utf_8_does_not_get_out(self) -> None:
        job_json(replace(JOB, attempts=1, error="\ud800")).decode("utf-8")

    def check_further(self, further: str, **changes: Any) -> None:
        """What is said of JOB, changed, behind the four keys of the original."""
        expected = PLAIN.decode() + (f",{further}" if further else "") + "}"
        self.assertEqual(job_json(replace(JOB, **changes)).decode(), expected)

    def test_a_running_jobs_next_run_is_its_scheduled_time_and_not_its_leases_end(self) -> None:
        self.check_further("", due=WHEN + timedelta(seconds=20), running=True)

    def test_a_scheduled_time_that_is_not_the_next_run_is_shown(self) -> None:
        self.check_further(
            '"next_sched":"2014-11-11T22:10:40Z",'
            '"failing":{"attempts":1,"error":"500 Internal Server Error"}',
            scheduled=WHEN - timedelta(seconds=60),
            attempts=1,
            error="500 Internal Server Error",
        )
        # Not where it looks the same.
        self.check_further("", scheduled=WHEN + timedelta(microseconds=5))

    def test_a_job_that_is_done(self) -> None:
        """It has no pending run, so that no time of one is shown."""
        done = JOB_SHOWN.replace('"2014-11-11T22:11:40Z"', "null")
        job = replace(JOB, due=None, standing=Standing.DONE)
        self.assertEqual(job_json(job).decode(), f'{done},"done":true}}')

    def test_since_when_a_job_is_disabled(self) -> None:
        shown = JOB_SHOWN.replace('"2014-11-11T22:11:40Z"', "null")
        shown += ',"next_sched":"2014-11-11T22:11:40Z","disabled":true'
        since = WHEN.replace(microsecond=5)
        for disabling, further in [
            (None, ""),
            (Disabling(since), ',"disabled_since":"2014-11-11T22:11:40.000005Z"'),
            (
                Disabling(since, "no stock"),
                ',"disabled_since":"2014-11-11T22:11:40.000005Z","disabled_reason":"no stock"',
            ),
            (
                Disabling(since, by="ci"),
                ',"disabled_since":"2014-11-11T22:11:40.000005Z","disabled_by":"ci"',
            ),
        ]:
            job = replace(JOB, due=None, disabled=True, notes=Notes(disabled=disabling))
            self.assertEqual(job_json(job).decode(), f"{shown}{further}}}")

    def test_where_and_how_a_schedule_is_read(self) -> None:
        cases: list[tuple[Schedule, str | int | None, str]] = [
            (Cron("0 9 * * *"), None, '"cron":"0 9 * * *"'),
            (
                Cron("0 9 * * *", Zone("Europe/Riga", Gap.SKIP, Overlap.BOTH)),
                None,
                '"cron":"0 9 * * *","location":"Europe/Riga","dst_gap":"skip","dst_overlap":"both"',
            ),
            (
                Calendar(duration_from_text("P1D"), Zone("UTC", Gap.SHIFT)),
                "P1D",
                '"dst_gap":"shift"',
            ),
            (
                Calendar(duration_from_text("P1D"), Zone("Asia/Kathmandu", None, Overlap.FIRST)),
                "P1D",
                '"location":"Asia/Kathmandu","dst_overlap":"first"',
            ),
            (Every(timedelta(seconds=60), Zone("Europe/Riga")), 60, '"location":"Europe/Riga"'),
            (Once(Zone("Europe/Riga")), 0, '"location":"Europe/Riga"'),
        ]
        for schedule, interval, further in cases:
            shown = PLAIN.replace(
                b'"interval":60', b'"interval":%s' % json.dumps(interval).encode()
            )
            self.assertEqual(
                job_json(replace(JOB, schedule=schedule)).decode(), f"{shown.decode()},{further}}}"
            )

    def test_what_else_was_asked_for(self) -> None:
        for options, further in [
            (Options(until=WHEN), '"until":"2014-11-11T22:11:40Z"'),
            # As it was given, so that a PUT of what is shown is the same.
            (Options(until=WHEN.replace(microsecond=5)), '"until":"2014-11-11T22:11:40.000005Z"'),
            (Options(count=3), '"count":3,"successes":2'),
            (Options(catch_up=CatchUp.SKIP), '"catch_up":"skip"'),
            (Options(catch_up=CatchUp.ALL), '"catch_up":"all"'),
            (Options(max_lateness=timedelta()), '"max_lateness":0'),
            (Options(max_lateness=timedelta(minutes=5)), '"max_lateness":300'),
            (Options(max_lateness=timedelta(seconds=1.5)), '"max_lateness":1.5'),
            (Options(on_failure=OnFailure.STOP), '"on_failure":"stop"'),
            (Options(jitter=timedelta(hours=1)), '"jitter":3600'),
            (Options(jitter=timedelta(milliseconds=1)), '"jitter":0.001'),
            (
                Options(WHEN, 3, CatchUp.ALL, timedelta(hours=1), OnFailure.STOP),
                '"until":"2014-11-11T22:11:40Z","count":3,"successes":2,"catch_up":"all",'
                '"max_lateness":3600,"on_failure":"stop"',
            ),
        ]:
            self.check_further(further, options=options, successes=2)
        self.check_further("", successes=2)

    def test_a_failing_job_says_so(self) -> None:
        error = "500 Internal Server Error"
        for attempts, running in [(1, False), (3, False), (2, True)]:
            self.check_further(
                f'"failing":{{"attempts":{attempts},"error":"{error}"}}',
                attempts=attempts,
                error=error,
                running=running,
            )
        # What is said of a row that was set aside is no failure of a run.
        self.check_further("", error="interval is 'x'")
        # A first attempt that is under way has not failed.
        self.check_further("", attempts=1, running=True)

    def test_a_run_that_was_given_up_is_shown_while_the_job_goes_on(self) -> None:
        given_up = '"failed":{"error":"500 Internal Server Error"}'
        changes: dict[str, Any] = {
            "standing": Standing.FAILED,
            "error": "500 Internal Server Error",
        }
        self.check_further(given_up, **changes)
        # The next one's first attempt is under way.
        self.check_further(given_up, **changes, attempts=1, running=True)
        # It has failed too: the error is the last one, that of this run.
        for attempts, running in [(1, False), (2, True)]:
            self.check_further(
                f'"failing":{{"attempts":{attempts},"error":"500 Internal Server Error"}},'
                '"failed":{"error":"500 Internal Server Error"}',
                **changes,
                attempts=attempts,
                running=running,
            )

    def test_a_disabled_job_a_stopped_one_and_both_can_be_told_apart(self) -> None:
        disabled = '"disabled":true'
        failed = '"failed":{"attempts":5,"error":"no answer"}'
        stopped: dict[str, Any] = {
            "standing": Standing.STOPPED,
            "attempts": 5,
            "error": "no answer",
            "due": None,
        }
        for changes, further in [
            ({"disabled": True, "due": None}, disabled),
            (stopped, failed),
            ({**stopped, "disabled": True}, f"{disabled},{failed}"),
            # Disabled while its retry is still to come.
            (
                {"disabled": True, "due": None, "attempts": 2, "error": "no answer"},
                f'{disabled},"failing":{{"attempts":2,"error":"no answer"}}',
            ),
            ({**stopped, "skipped": 3}, f'{failed},"skipped":3'),
        ]:
            without = PLAIN.replace(b'"2014-11-11T22:11:40Z"', b"null").decode()
            self.assertEqual(
                job_json(replace(JOB, **changes)).decode(),
                f'{without},"next_sched":"2014-11-11T22:11:40Z",{further}}}',
            )

    def test_a_disabled_job_that_still_runs_has_no_next_run(self) -> None:
        job = replace(JOB, due=WHEN + timedelta(seconds=20), running=True, disabled=True)
        self.assertIn(b'"next_run":null,"next_sched":"2014-11-11T22:11:40Z",', job_json(job))

    def test_skipped_runs_are_counted(self) -> None:
        self.check_further('"skipped":7', skipped=7)

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


class RunTimesTests(SynchronousTestCase):
    def times(self, schedule: Schedule, after: datetime, count: int) -> Timetable:
        def following() -> Any:
            at = after
            while (time := schedule.next_after(after, at)) is not None:
                yield time
                at = time.at

        return Timetable(schedule.zone, list(islice(following(), count)))

    def test_a_time_in_utc_and_in_the_jobs_location(self) -> None:
        for zone, local in [
            (Zone(), "2014-11-11T22:11:40+00:00"),
            (Zone("Europe/Istanbul"), "2014-11-12T00:11:40+02:00"),
            (Zone("Asia/Kathmandu"), "2014-11-12T03:56:40+05:45"),
            (Zone("America/St_Johns"), "2014-11-11T18:41:40-03:30"),
        ]:
            self.assertEqual(
                run_times_json(Timetable(zone, [Occurrence(WHEN)])).decode(),
                f'{{"runs":[{{"at":"2014-11-11T22:11:40Z","local":"{local}"}}]}}',
            )
        self.assertEqual(run_times_json(Timetable(Zone(), [])), b'{"runs":[]}')

    def test_what_a_clock_change_did_is_named(self) -> None:
        """03:30 in Riga: not there on 28 March 2021, twice on 31 October."""
        riga = Zone("Europe/Riga", None, Overlap.BOTH)
        for day, runs in [
            (
                datetime(2021, 3, 27, 12, tzinfo=UTC),
                '{"at":"2021-03-28T01:00:00Z","local":"2021-03-28T04:00:00+03:00","dst":"gap"},'
                '{"at":"2021-03-29T00:30:00Z","local":"2021-03-29T03:30:00+03:00"}',
            ),
            (
                datetime(2021, 10, 30, 12, tzinfo=UTC),
                '{"at":"2021-10-31T00:30:00Z","local":"2021-10-31T03:30:00+03:00","dst":"overlap"},'
                '{"at":"2021-10-31T01:30:00Z","local":"2021-10-31T03:30:00+02:00","dst":"overlap"}',
            ),
        ]:
            timetable = self.times(Cron("30 3 * * *", riga), day, 2)
            self.assertEqual(run_times_json(timetable).decode(), f'{{"runs":[{runs}]}}')

    def test_a_fraction_of_a_second_is_shown_where_there_is_one(self) -> None:
        for fraction, text in [(999_999, ".999999"), (500_000, ".5"), (1, ".000001"), (0, "")]:
            at = WHEN.replace(microsecond=fraction)
            self.assertEqual(
                run_times_json(Timetable(Zone("Asia/Kathmandu"), [Occurrence(at)])).decode(),
                f'{{"runs":[{{"at":"2014-11-11T22:11:40{text}Z",'
                f'"local":"2014-11-12T03:56:40{text}+05:45"}}]}}',
            )

    def test_whole_minutes_of_offset_are_all_that_rfc_3339_has(self) -> None:
        for at, zone, local in [
            # +01:56:56 until 1910
            (datetime(1900, 1, 1, tzinfo=UTC), "Europe/Istanbul", "1900-01-01T01:56:56+01:57"),
            # -07:52:58 until 1883
            (datetime(1800, 1, 1, tzinfo=UTC), "America/Los_Angeles", "1799-12-31T16:07:02-07:53"),
            # A year that the location has not is shown in UTC.
            (LAST_SECOND, "Asia/Kathmandu", "9999-12-31T23:59:59+00:00"),
        ]:
            answer = json.loads(run_times_json(Timetable(Zone(zone), [Occurrence(at)])))
            self.assertEqual(answer["runs"][0]["local"], local)

    @examples
    @given(
        st.datetimes(datetime(1980, 1, 1), datetime(2060, 1, 1)),
        st.sampled_from(["UTC", "Europe/Riga", "Australia/Lord_Howe", "Pacific/Apia"]),
    )
    def test_both_are_the_same_instant(self, moment: datetime, location: str) -> None:
        at = moment.replace(tzinfo=UTC)
        answer = run_times_json(Timetable(Zone(location), [Occurrence(at, Dst.GAP)]))
        [run] = json.loads(answer)["runs"]
        self.assertEqual(list(run), ["at", "local", "dst"])
        for name in ("at", "local"):
            self.assertEqual(datetime.fromisoformat(run[name]), at)


class StatusTests(SynchronousTestCase):
    def test_the_originals_keys_come_first(self) -> None:
        for lag, shown in [(0.0, 0), (7.0, 7), (7.999, 7)]:
            self.assertEqual(
                status_json(Status("host-1", 1, 2, 3, 4, 5, lag, 6, "2026f", lag)).decode(),
                '{"instance_id":"host-1","instance_running_jobs":1,"running_jobs":2,'
                '"total_jobs":3,"pending_jobs":4,"total_instances":5,'
                f'"lag":{shown},"set_aside_jobs":6,"tzdata":"2026f","counts_age":{shown}}}',
            )

    def test_workers_come_last(self) -> None:
        """They are there only if the daemon has some."""
        plain = Status("host-1", 1, 2, 3, 4, 5, 0.0, 6, "2026f", 0.0)
        self.assertEqual(
            status_json(replace(plain, worker=2, workers=4)),
            status_json(plain)[:-1] + b',"worker":2,"workers":4}',
        )

    def test_what_is_not_counted_yet_is_null(self) -> None:
        self.assertEqual(
            status_json(Status("host-1", 1, None, None, None, 5, 0.0, None, None, None)).decode(),
            '{"instance_id":"host-1","instance_running_jobs":1,"running_jobs":null,'
            '"total_jobs":null,"pending_jobs":null,"total_instances":5,'
            '"lag":0,"set_aside_jobs":null,"tzdata":null,"counts_age":null}',
        )


class ProblemTests(SynchronousTestCase):
    def test_each_expected_error_has_its_status(self) -> None:
        for error, status in [
            (InvalidRequest("x"), 400),
            (JobNotFound("x"), 404),
            (JobSetAside("x"), 409),
            (JobDisabled("x"), 409),
            (JobOver("x"), 409),
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
