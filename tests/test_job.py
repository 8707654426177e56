"""Requests become first runs, outcomes become verdicts, and paths stay below the base URL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from urllib.parse import unquote, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.job import (
    MAX_KEY_LENGTH,
    Delete,
    Job,
    JobKey,
    Outcome,
    Reschedule,
    Retry,
    Run,
    RunPolicy,
    ScheduleRequest,
    check_length,
    check_path,
    check_request,
    judge,
    plan,
    target_path,
)
from dalga.retry import RetryPolicy
from dalga.schedule import MAX_INTERVAL, Every, Once

NOW = datetime(2014, 11, 11, 22, 10, 40, tzinfo=UTC)
THEN = datetime(2030, 1, 1, tzinfo=UTC)
PAST = datetime(2001, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)

EXACT = RunPolicy(RetryPolicy(jitter=0))

RUN = Run(
    row=1,
    token=b"token",
    key=JobKey("check_feed", "1234"),
    schedule=Every(MINUTE),
    scheduled=NOW - SECOND,
    id="1",
    attempt=1,
    claimed=NOW,
    lease_ends=20.0,
)
OK = Outcome(200, 0.1)


class PlanTests(SynchronousTestCase):
    """The parameters of a PUT, row by row of their table."""

    def test_accepted(self) -> None:
        """Each combination that is accepted has its schedule and its first run."""
        for request, schedule, first in (
            # periodic
            (ScheduleRequest(60), Every(MINUTE), NOW + MINUTE),
            (ScheduleRequest(60, THEN), Every(MINUTE), THEN),
            (ScheduleRequest(60, PAST), Every(MINUTE), PAST),
            (ScheduleRequest(60, immediate=True), Every(MINUTE), NOW),
            # one-off
            (ScheduleRequest(60, one_off=True), Once(), NOW + MINUTE),
            (ScheduleRequest(0, one_off=True), Once(), NOW),
            (ScheduleRequest(None, THEN, one_off=True), Once(), THEN),
            (ScheduleRequest(None, PAST, one_off=True), Once(), PAST),
            (ScheduleRequest(one_off=True, immediate=True), Once(), NOW),
        ):
            self.assertEqual(plan(request, NOW), (schedule, first), request)

    def test_refused(self) -> None:
        """Each combination that contradicts itself is refused, naming the parameter."""
        for request, named in (
            (ScheduleRequest(), "interval"),
            (ScheduleRequest(0), "interval"),
            (ScheduleRequest(0, THEN), "interval"),
            (ScheduleRequest(None, THEN), "interval"),
            (ScheduleRequest(immediate=True), "interval"),
            (ScheduleRequest(0, immediate=True), "interval"),
            (ScheduleRequest(None, THEN, immediate=True), "interval"),
            (ScheduleRequest(60, THEN, immediate=True), "first-run"),
            (ScheduleRequest(one_off=True), "interval"),
            (ScheduleRequest(60, THEN, one_off=True), "first-run"),
            (ScheduleRequest(0, THEN, one_off=True), "first-run"),
            (ScheduleRequest(60, one_off=True, immediate=True), "interval"),
            (ScheduleRequest(0, one_off=True, immediate=True), "interval"),
            (ScheduleRequest(None, THEN, one_off=True, immediate=True), "first-run"),
            (ScheduleRequest(60, THEN, one_off=True, immediate=True), "interval"),
        ):
            error = self.assertRaises(InvalidRequest, check_request, request)
            self.assertIn(named, str(error), request)
            self.assertRaises(InvalidRequest, plan, request, NOW)

    @given(
        st.sampled_from([None, 0, 1, 60, MAX_INTERVAL]),
        st.sampled_from([None, PAST, THEN, LAST]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([NOW, LAST]),
    )
    def test_all_combinations(
        self,
        interval: int | None,
        first_run: datetime | None,
        one_off: bool,
        immediate: bool,
        now: datetime,
    ) -> None:
        """A request has a first run or is refused; nothing else happens."""
        request = ScheduleRequest(interval, first_run, one_off, immediate)
        try:
            schedule, first = plan(request, now)
        except InvalidRequest:
            return
        self.assertEqual(schedule.seconds, 0 if one_off else interval)
        if first != first_run:
            self.assertIn(first - now, (timedelta(0), timedelta(seconds=interval or 0)))

    def test_past_the_end_of_time(self) -> None:
        """A first run past the year 9999 is refused."""
        for one_off in (False, True):
            error = self.assertRaises(
                InvalidRequest, plan, ScheduleRequest(60, one_off=one_off), LAST
            )
            self.assertIn("9999", str(error))


class JudgeTests(SynchronousTestCase):
    """What becomes of a job after an attempt."""

    def judge(self, outcome: Outcome, run: Run = RUN, now: datetime = NOW) -> object:
        return judge(run, outcome, now, EXACT, Random(1))

    def test_done(self) -> None:
        """A 200 ends the run: a periodic job goes on from its scheduled time (no drift)."""
        self.assertEqual(self.judge(OK), Reschedule(RUN.scheduled + MINUTE))
        self.assertEqual(self.judge(OK, replace(RUN, schedule=Once())), Delete())

    def test_after_an_outage(self) -> None:
        """P9: however many runs were missed, the next is the next regular time."""
        week = replace(RUN, scheduled=NOW - timedelta(days=7, seconds=1))
        self.assertEqual(self.judge(OK, week), Reschedule(NOW + MINUTE - SECOND))

    def test_the_last_run(self) -> None:
        """A periodic job whose next run would be past the year 9999 is over."""
        self.assertEqual(self.judge(OK, replace(RUN, scheduled=LAST), LAST), Delete())

    def test_gone(self) -> None:
        """A 204 deletes the job, periodic or not."""
        gone = Outcome(204, 0.1, retry_after=MINUTE)
        for schedule in (Every(MINUTE), Once()):
            self.assertEqual(self.judge(gone, replace(RUN, schedule=schedule)), Delete())

    def test_failed(self) -> None:
        """P2: any other answer, or none, is tried again, with the reason kept."""
        retry = NOW + timedelta(seconds=0.5)
        for status, reason in (
            (201, "201 Created"),
            (202, "202 Accepted"),
            (206, "206 Partial Content"),
            (301, "301 Moved Permanently"),
            (303, "303 See Other"),
            (400, "400 Bad Request"),
            (404, "404 Not Found"),
            (410, "410 Gone"),
            (500, "500 Internal Server Error"),
            (799, "799"),
        ):
            self.assertEqual(self.judge(Outcome(status, 0.1)), Retry(retry, reason))
        lost = Outcome(None, 10.0, "no answer within 10 seconds")
        self.assertEqual(self.judge(lost), Retry(retry, "no answer within 10 seconds"))
        once = replace(RUN, schedule=Once())
        self.assertEqual(self.judge(lost, once), Retry(retry, "no answer within 10 seconds"))

    def test_backoff(self) -> None:
        """The delay grows with the attempt's number, which the table keeps."""
        failed = Outcome(500, 0.1)
        for attempt, seconds in ((1, 0.5), (3, 1.125), (10**6, 60)):
            verdict = self.judge(failed, replace(RUN, attempt=attempt))
            assert isinstance(verdict, Retry)
            self.assertEqual(verdict.due, NOW + timedelta(seconds=seconds))

    def test_retry_after(self) -> None:
        """P8: Retry-After, a delay or a date by the database's clock, holds up to a minute."""
        for asked, seconds in (
            (timedelta(seconds=7), 7),
            (timedelta(days=999999), 60),
            (NOW + timedelta(seconds=9), 9),
            (LAST, 60),
            (PAST, 0.5),
            (datetime.min.replace(tzinfo=UTC), 0.5),
        ):
            run = replace(RUN, claimed=PAST)
            verdict = self.judge(Outcome(503, 0.1, retry_after=asked), run)
            assert isinstance(verdict, Retry)
            self.assertEqual(verdict.due, NOW + timedelta(seconds=seconds), asked)

    def test_a_retry_at_the_end_of_time(self) -> None:
        """P5: a retry that would be past the year 9999 is due now, rather than an error."""
        end = datetime.max.replace(tzinfo=UTC)
        self.assertEqual(
            self.judge(Outcome(500, 0.1), now=end), Retry(end, "500 Internal Server Error")
        )

    def test_randomization_factor(self) -> None:
        """With a factor f the next run is this one's start plus 1-f to 1+f times the interval."""
        random = Random(1)
        delays = []
        for _ in range(500):
            # The end of the run (now) and the scheduled time play no part.
            run = replace(RUN, scheduled=PAST)
            verdict = judge(run, OK, NOW + MINUTE, RunPolicy(randomization_factor=0.25), random)
            assert isinstance(verdict, Reschedule)
            delays.append((verdict.scheduled - run.claimed).total_seconds())
        self.assertGreaterEqual(min(delays), 45)
        self.assertLessEqual(max(delays), 75)
        self.assertLess(min(delays), 46)
        self.assertGreater(max(delays), 74)

    def test_randomization_factor_and_the_rest(self) -> None:
        """A one-off job has no next run for it, and the year 9999 is the end with it, too."""
        policy = RunPolicy(randomization_factor=1.0)
        once = replace(RUN, schedule=Once())
        self.assertEqual(judge(once, OK, NOW, policy, Random(1)), Delete())
        last = replace(RUN, claimed=LAST, schedule=Every(timedelta(days=366)))
        self.assertEqual(judge(last, OK, LAST, policy, Random(1)), Delete())


class JobTests(SynchronousTestCase):
    """A job as it stands in the table."""

    def test_next_run(self) -> None:
        """While a run is under way the next run is that one's time, not the end of its lease."""
        job = Job(RUN.key, Every(MINUTE), scheduled=NOW, due=NOW + MINUTE, running=True)
        self.assertEqual(job.next_run, NOW)
        self.assertEqual(replace(job, running=False).next_run, NOW + MINUTE)


class PathTests(SynchronousTestCase):
    """P11: which paths a job may have, and what becomes of them."""

    def test_refused(self) -> None:
        """P11: what could leave the base URL or forge a header is refused, and named."""
        for path in ("..", ".", "../x", "a/..", "a/../b", "./a", "a/.", "/..", "//.."):
            error = self.assertRaises(InvalidRequest, check_path, path)
            self.assertIn("segment", str(error))
        for character in ("\0", "\t", "\r", "\n", "\x7f", "\x85", "\u2028", "\u2029"):
            error = self.assertRaises(InvalidRequest, check_path, f"a{character}b")
            self.assertIn(f"U+{ord(character):04X}", str(error))

    def test_accepted(self) -> None:
        """Everything else is accepted: dots within names, spaces, other scripts, URLs as text."""
        for path in (
            "a",
            "a.b",
            "...",
            "..a",
            "a..",
            "a/b//c/",
            "/a",
            " ",
            "jób",
            "http://x/y",
            "%2e%2e",
        ):
            check_path(path)

    def test_target(self) -> None:
        """P11: a path is put behind the base URL with one slash, its segments percent-encoded."""
        for path, target in (
            ("check_feed", "/check_feed"),
            ("a/b", "/a/b"),
            ("/a", "/a"),
            ("//evil.example/x", "/evil.example/x"),
            ("http://evil.example", "/http%3A//evil.example"),
            ("@evil.example", "/%40evil.example"),
            ("a?b=c#d", "/a%3Fb%3Dc%23d"),
            ("%2e%2e/x", "/%252e%252e/x"),
            ("..\\x", "/..%5Cx"),
            ("j\u00f3b x", "/j%C3%B3b%20x"),
            ("-._~", "/-._~"),
            ("a/", "/a/"),
        ):
            self.assertEqual(target_path(path), target)

    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=MAX_KEY_LENGTH))
    def test_never_elsewhere(self, path: str) -> None:
        """P11: no accepted path changes scheme, host, port, query or fragment, or climbs up."""
        try:
            check_path(path)
        except InvalidRequest:
            return
        url = urlsplit("http://example.com:81/base" + target_path(path))
        self.assertEqual((url.scheme, url.netloc), ("http", "example.com:81"))
        self.assertEqual((url.query, url.fragment), ("", ""))
        self.assertTrue(url.path.startswith("/base/") and url.path.isascii())
        self.assertFalse({".", ".."} & set(unquote(url.path).split("/")))
        self.assertEqual(unquote(url.path), "/base/" + path.lstrip("/"))

    def test_length(self) -> None:
        """A path or body has 1 to 255 characters, however many bytes they take."""
        check_length("path", "a")
        check_length("body", "\U0001f600" * MAX_KEY_LENGTH)
        for text in ("", "a" * (MAX_KEY_LENGTH + 1)):
            for name in ("path", "body"):
                error = self.assertRaises(InvalidRequest, check_length, name, text)
                self.assertIn(name, str(error))
