"""Outcomes become verdicts, and runs that are too late are skipped."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.answers import Answers, Meaning, Statuses, statuses_from_text
from dalga.model.delivery import Delivery
from dalga.model.delivery import Retry as OfJob
from dalga.model.duration import duration_from_text
from dalga.model.job import Job
from dalga.model.options import CatchUp, OnEnd, OnFailure, Options
from dalga.model.plan import times_of
from dalga.model.retry import RetryPolicy
from dalga.model.run import (
    Delete,
    Disable,
    End,
    Finish,
    GiveBack,
    Outcome,
    Reschedule,
    Retry,
    Run,
    RunPolicy,
    Skip,
    Stop,
    judge,
    missed,
    revised,
)
from dalga.model.schedule import END_OF_TIME, Calendar, Cron, Every, Once, Schedule
from dalga.model.zone import Gap, Zone
from tests.examples import (
    DAILY,
    DAY,
    EARLIEST,
    ERROR,
    EXACT,
    FAILURE,
    HOUR,
    KEY,
    LAST,
    MINUTE,
    NOW,
    OK,
    PAST,
    RIGA,
    RUN,
    SECOND,
    utc,
)

LATER = "503 Service Unavailable"
DISABLED = "200 OK, with Dalga-Verdict: disable"


class JudgeTests(SynchronousTestCase):
    """What becomes of a job after an attempt."""

    def judge(
        self,
        outcome: Outcome,
        run: Run = RUN,
        now: datetime = NOW,
        policy: RunPolicy = EXACT,
        random: Random | None = None,
    ) -> object:
        end = judge(run, outcome, now, policy, random or Random(1))
        self.assertEqual((end.run, end.outcome, end.ended), (run, outcome, now))
        return end.verdict

    def test_done(self) -> None:
        """A 200 ends the run: a periodic job goes on from its scheduled time (no drift)."""
        self.assertEqual(self.judge(OK), Reschedule(RUN.scheduled + MINUTE, RUN.anchor))
        self.assertEqual(self.judge(OK, RUN._replace(schedule=Once())), Delete())

    def test_calendar_and_cron(self) -> None:
        """They go on from the anchor, and by the clock on the wall."""
        anchor = utc("2021-01-31T01:30")
        for schedule, expected in (
            (Calendar(duration_from_text("P1M"), RIGA), "2021-03-31T00:30"),
            (Cron("30 3 L * *", RIGA), "2021-03-31T00:30"),
        ):
            run = RUN._replace(schedule=schedule, anchor=anchor, scheduled=utc("2021-02-28T01:30"))
            verdict = self.judge(OK, run, utc("2021-02-28T01:31"))
            self.assertEqual(verdict, Reschedule(utc(expected), anchor))

    def test_after_an_outage(self) -> None:
        """P9: however many runs were missed, the next is the next regular time."""
        week = NOW - timedelta(days=7, seconds=1)
        run = RUN._replace(anchor=week, scheduled=week)
        self.assertEqual(self.judge(OK, run), Reschedule(NOW + MINUTE - SECOND, week))
        for schedule, following in (
            (Calendar(DAILY), NOW + DAY - SECOND),
            (Cron("0 9 * * *"), utc("2014-11-12T09:00")),
        ):
            verdict = self.judge(OK, run._replace(schedule=schedule))
            self.assertEqual(verdict, Reschedule(following, week))

    def test_catch_up_all(self) -> None:
        """With catch-up=all it is the time after the one that was run, however long ago."""
        week = NOW - 7 * DAY
        run = RUN._replace(anchor=week, scheduled=week, options=Options(catch_up=CatchUp.ALL))
        for schedule, following in (
            (Every(SECOND), week + SECOND),
            (Calendar(DAILY), week + DAY),
            (Cron("0 9 * * *"), utc("2014-11-05T09:00")),
        ):
            verdict = self.judge(OK, run._replace(schedule=schedule))
            self.assertEqual(verdict, Reschedule(following, week))

    def test_a_clock_that_was_set_back(self) -> None:
        """P8: the next run is later than this one, whatever the database's clock shows by now."""
        self.assertEqual(self.judge(OK, now=PAST), Reschedule(RUN.scheduled + MINUTE, RUN.anchor))

    def test_until(self) -> None:
        """A job whose next run would be after until is over, and one at that time is not."""
        following = RUN.scheduled + MINUTE
        for until, expected in (
            (following, Reschedule(following, RUN.anchor)),
            (following - SECOND, Delete()),
            (PAST, Delete()),
        ):
            run = RUN._replace(options=Options(until=until))
            self.assertEqual(self.judge(OK, run), expected)
        for policy in (
            RunPolicy(fixed_intervals=False),
            RunPolicy(randomization_factor=0.1),
            RunPolicy(randomization_factor=0.1, fixed_intervals=False),
        ):
            run = RUN._replace(options=Options(until=NOW + MINUTE / 2))
            self.assertEqual(self.judge(OK, run, policy=policy), Delete())

    def test_count(self) -> None:
        """After so many successful runs the job is over; those that fail do not count."""
        last = RUN._replace(options=Options(count=3), successes=2)
        self.assertEqual(self.judge(OK, last), Delete())
        following = Reschedule(RUN.scheduled + MINUTE, RUN.anchor)
        self.assertEqual(self.judge(OK, last._replace(successes=1)), following)
        self.assertIsInstance(self.judge(FAILURE, last), Retry)
        policy = RunPolicy(RetryPolicy(jitter=0, stop_after=timedelta()))
        given_up = following._replace(error=ERROR)
        self.assertEqual(self.judge(FAILURE, last, policy=policy), given_up)

    def test_what_can_never_fire_again(self) -> None:
        """A periodic job that has no time any more is removed after its run, without an error."""
        never = Zone("America/Los_Angeles", gap=Gap.SKIP)
        for schedule, now in (
            (Every(MINUTE), LAST),
            (Calendar(DAILY), LAST),
            (Calendar(DAILY, Zone("Asia/Tokyo")), LAST),
            (Calendar(DAILY, Zone("America/Lima")), LAST),
            (Calendar(duration_from_text("P8000Y")), NOW),
            (Cron("0 9 * * *"), LAST),
            (Cron("0 9 * * *", Zone("Asia/Tokyo")), LAST),
            (Cron("30 2 * MAR SUN#2", never), NOW),
        ):
            run = RUN._replace(schedule=schedule, anchor=now, scheduled=now, claimed=now)
            self.assertEqual(self.judge(OK, run, now), Delete(), schedule)
            # But a last run that is given up is kept, to be seen.
            given_up = RunPolicy(RetryPolicy(stop_after=timedelta()))
            self.assertEqual(self.judge(FAILURE, run, now, given_up), Stop(ERROR))
            late = run._replace(options=Options(max_lateness=timedelta()), claimed=now + SECOND / 2)
            self.assertEqual(missed(late), Delete())

    def test_kept_at_the_end(self) -> None:
        """With on-end=keep a job that has no more runs stays as done, however that came about."""
        keep = Options(on_end=OnEnd.KEEP)
        following = Reschedule(RUN.scheduled + MINUTE, RUN.anchor)
        once = RUN._replace(schedule=Once(), options=keep)
        over = RunPolicy(RetryPolicy(stop_after=timedelta()))
        steered = Outcome(200, 0.1, next_run=HOUR)
        disabled = Outcome(200, 0.1, meaning=Meaning.DISABLE)
        for run, outcome, policy, expected in (
            (RUN._replace(options=keep), OK, EXACT, following),
            (once, OK, EXACT, Finish()),
            (once, steered, EXACT, Finish()),
            (self.ending(count=1), OK, EXACT, Finish()),
            (self.ending(count=2), OK, EXACT, following),
            (self.ending(until=PAST), OK, EXACT, Finish()),
            (self.ending(until=NOW + HOUR - SECOND), steered, EXACT, Finish()),
            (self.ending(until=NOW), OK, RunPolicy(fixed_intervals=False), Finish()),
            (self.ending(until=NOW), OK, RunPolicy(randomization_factor=0.1), Finish()),
            (self.ending(until=NOW), disabled, EXACT, Finish()),
            # It is kept anyway where its last run is given up.
            (once, FAILURE, over, Stop(ERROR)),
            (self.ending(until=NOW), FAILURE, over, Stop(ERROR)),
            (once, disabled, EXACT, Disable(once.scheduled, once.anchor, DISABLED)),
            # The endpoint says that it is gone, and so it is.
            (once, Outcome(204, 0.1), EXACT, Delete()),
            (RUN._replace(options=keep), Outcome(204, 0.1), EXACT, Delete()),
            (once, Outcome(200, 0.1, meaning=Meaning.REMOVE), EXACT, Delete()),
        ):
            self.assertEqual(self.judge(outcome, run, policy=policy), expected, run.options)

    def ending(self, **options: Any) -> Run:
        """A run of a periodic job that is kept at its end."""
        return RUN._replace(options=Options(on_end=OnEnd.KEEP, **options))

    def test_retries_of_its_own(self) -> None:
        """A job's retries go before the configuration's, part by part."""
        policy = RunPolicy(RetryPolicy(SECOND, 2.0, MINUTE, 0, HOUR))
        attempt = RUN._replace(attempt=3, started=NOW - 2 * HOUR)
        for chosen, expected in (
            (OfJob(), Reschedule(RUN.scheduled + MINUTE, RUN.anchor, ERROR)),
            (OfJob(stop_after=3 * HOUR), Retry(NOW + 4 * SECOND, ERROR)),
            (OfJob(stop_after=timedelta()), Retry(NOW + 4 * SECOND, ERROR)),
            (OfJob(5 * SECOND, stop_after=timedelta()), Retry(NOW + 20 * SECOND, ERROR)),
            (OfJob(multiplier=1, stop_after=timedelta()), Retry(NOW + SECOND, ERROR)),
            (OfJob(multiplier=100, stop_after=timedelta()), Retry(NOW + MINUTE, ERROR)),
            (OfJob(2 * HOUR, stop_after=timedelta()), Retry(NOW + 2 * HOUR, ERROR)),
            (
                OfJob(multiplier=100, max_interval=2 * HOUR, stop_after=timedelta()),
                Retry(NOW + 2 * HOUR, ERROR),
            ),
        ):
            run = attempt._replace(delivery=Delivery(retry=chosen))
            self.assertEqual(self.judge(FAILURE, run, policy=policy), expected, chosen)

    def test_so_many_attempts(self) -> None:
        """A run is given up after as many, though others would be tried for ever."""
        three = Delivery(retry=OfJob(max_attempts=3))
        once = RUN._replace(schedule=Once(), delivery=three)
        later = Outcome(503, 0.1, retry_after=HOUR)
        for attempt, outcome, is_over in (
            (1, FAILURE, False),
            (2, FAILURE, False),
            (2, later, False),
            (3, FAILURE, True),
            (3, later, True),
            (4, FAILURE, True),  # the instance of the third one died
        ):
            verdict = self.judge(outcome, once._replace(attempt=attempt))
            self.assertIsInstance(verdict, Stop if is_over else Retry, attempt)
        self.assertEqual(self.judge(OK, once._replace(attempt=3)), Delete())
        going_on = self.judge(FAILURE, RUN._replace(delivery=three, attempt=3))
        self.assertEqual(going_on, Reschedule(RUN.scheduled + MINUTE, RUN.anchor, ERROR))

    def test_an_answer_asks_for_no_longer_than_the_longest_delay(self) -> None:
        """That of the job, where it has one."""
        later = Outcome(503, 0.1, retry_after=HOUR)
        for chosen, delay in (
            (OfJob(), MINUTE),
            (OfJob(max_interval=2 * HOUR), HOUR),
            (OfJob(max_interval=SECOND), SECOND),
        ):
            run = RUN._replace(delivery=Delivery(retry=chosen))
            self.assertEqual(self.judge(later, run), Retry(NOW + delay, LATER), chosen)

    def test_gone(self) -> None:
        """A 204 deletes the job, periodic or not."""
        gone = Outcome(204, 0.1, retry_after=MINUTE)
        for schedule in (Every(MINUTE), Calendar(DAILY), Cron("0 9 * * *"), Once()):
            self.assertEqual(self.judge(gone, RUN._replace(schedule=schedule)), Delete())

    def test_failed(self) -> None:
        """P2: any other answer, or none, is tried again, with the reason kept."""
        retry = NOW + timedelta(seconds=0.5)
        for status, reason in (
            (201, "201 Created, which is no success here: see success"),
            (299, "299, which is no success here: see success"),
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
        once = RUN._replace(schedule=Once())
        self.assertEqual(self.judge(lost, once), Retry(retry, "no answer within 10 seconds"))

    def test_what_a_status_means(self) -> None:
        """The sets of the endpoint, each replaced by the job's own, say what becomes of the run."""
        following = Reschedule(RUN.scheduled + MINUTE, RUN.anchor)
        any_2xx, some = statuses_from_text("200-299"), statuses_from_text("400-499")
        lenient = RunPolicy(RetryPolicy(jitter=0), answers=Answers(success=any_2xx, give_up=some))
        plain, own = RunPolicy(RetryPolicy(jitter=0)), Options(success=any_2xx, give_up=some)
        billing = replace(plain, named_answers={"billing": lenient.answers})
        not_found = "404 Not Found"
        again = NOW + timedelta(seconds=0.5)
        for policy, options, status, expected in (
            (lenient, Options(), 201, following),
            (plain, own, 201, following),
            (lenient, Options(), 204, Delete()),
            (plain, own, 204, Delete()),
            (plain, replace(own, gone=Statuses(())), 204, following),
            (lenient, Options(success=statuses_from_text("202")), 202, following),
            (
                lenient,
                Options(success=statuses_from_text("202")),
                200,
                Retry(again, "200 OK, which is no success here: see success"),
            ),
            (
                plain,
                Options(success=statuses_from_text("202"), give_up=statuses_from_text("200")),
                200,
                following._replace(error="200 OK, which is no success here: see success"),
            ),
            (lenient, Options(), 404, following._replace(error=not_found)),
            (lenient, Options(on_failure=OnFailure.STOP), 404, Stop(not_found)),
            (lenient, Options(give_up=Statuses(())), 404, Retry(again, not_found)),
            (lenient, Options(gone=some), 404, Delete()),
            (plain, Options(), 404, Retry(again, not_found)),
            (billing, Options(endpoint="billing"), 201, following),
            (billing, Options(), 404, Retry(again, not_found)),
        ):
            run = RUN._replace(options=options)
            verdict = self.judge(Outcome(status, 0.1), run, policy=policy)
            self.assertEqual(verdict, expected, (options, status))
        once = RUN._replace(schedule=Once())
        self.assertEqual(self.judge(Outcome(404, 0.1), once, policy=lenient), Stop(not_found))
        self.assertEqual(self.judge(Outcome(201, 0.1), once, policy=lenient), Delete())

    def test_a_verdict_by_header(self) -> None:
        """The answer's Dalga-Verdict goes before its status, and is named where it is a reason."""
        following = Reschedule(RUN.scheduled + MINUTE, RUN.anchor)
        plain, stop = RunPolicy(RetryPolicy(jitter=0)), Options(on_failure=OnFailure.STOP)
        over = RunPolicy(RetryPolicy(stop_after=timedelta()))
        failed, again = "200 OK, with Dalga-Verdict: fail", "200 OK, with Dalga-Verdict: retry"
        once = RUN._replace(schedule=Once())
        last = RUN._replace(options=Options(until=RUN.scheduled))
        for meaning, status, run, policy, expected in (
            (Meaning.SUCCEED, 500, RUN, plain, following),
            (Meaning.SUCCEED, 204, RUN, plain, following),
            (Meaning.SUCCEED, 500, once, plain, Delete()),
            (Meaning.RETRY, 200, RUN, plain, Retry(NOW + timedelta(seconds=7), again)),
            (Meaning.RETRY, 200, RUN, over, following._replace(error=again)),
            (Meaning.FAIL, 200, RUN, plain, following._replace(error=failed)),
            (Meaning.FAIL, 200, RUN._replace(options=stop), plain, Stop(failed)),
            (Meaning.FAIL, 200, once, plain, Stop(failed)),
            (Meaning.REMOVE, 200, RUN, plain, Delete()),
            (Meaning.DISABLE, 200, RUN, plain, Disable(*following[:2], DISABLED)),
            (
                *(Meaning.DISABLE, 500, RUN, plain),
                Disable(*following[:2], "500 Internal Server Error, with Dalga-Verdict: disable"),
            ),
            (Meaning.DISABLE, 200, once, plain, Disable(once.scheduled, once.anchor, DISABLED)),
            # There is no run any more that could be held back.
            (Meaning.DISABLE, 200, last, plain, Delete()),
        ):
            outcome = Outcome(status, 0.1, "", timedelta(seconds=7), meaning)
            verdict = self.judge(outcome, run, policy=policy)
            self.assertEqual(verdict, expected, (meaning, status))
        # The count is of runs that succeeded.
        counted = RUN._replace(options=Options(count=1))
        self.assertIsInstance(
            self.judge(Outcome(200, 0.1, "", None, Meaning.DISABLE), counted), Disable
        )

    def test_a_next_run_by_header(self) -> None:
        """Once, the next run is at the time that the answer gives; the grid stays."""
        in_a_second, tomorrow = NOW + SECOND, NOW + DAY
        for asked, at in (
            (SECOND, in_a_second),
            (timedelta(seconds=0.25), NOW + timedelta(seconds=0.25)),
            (timedelta(), NOW),
            (tomorrow, tomorrow),
            (PAST, NOW),
            (EARLIEST, NOW),
        ):
            ok = Outcome(200, 0.1, next_run=asked)
            for schedule in (Every(MINUTE), Calendar(DAILY), Cron("0 9 * * *")):
                for catch_up in CatchUp:
                    options = Options(catch_up=catch_up, jitter=MINUTE)
                    run = RUN._replace(schedule=schedule, options=options)
                    verdict = self.judge(ok, run)
                    self.assertEqual(verdict, Reschedule(at, RUN.anchor), (asked, schedule))
                    # The run after it is one of the grid's times.
                    then = run._replace(scheduled=at, claimed=at)
                    after = run.grid.next_after(at)
                    assert after is not None
                    self.assertIsNone(missed(then))
                    self.assertEqual(self.judge(OK, then, at), Reschedule(after.at, RUN.anchor))

    def test_a_next_run_by_header_where_it_does_not_count(self) -> None:
        ok = Outcome(200, 0.1, next_run=HOUR)
        for options, expected in (
            (Options(until=NOW + HOUR), Reschedule(NOW + HOUR, RUN.anchor)),
            (Options(until=NOW + HOUR - SECOND), Delete()),
            (Options(count=1), Delete()),
        ):
            self.assertEqual(self.judge(ok, RUN._replace(options=options)), expected)
        self.assertEqual(self.judge(ok, RUN._replace(schedule=Once())), Delete())
        self.assertEqual(self.judge(ok._replace(status=204)), Delete())
        self.assertEqual(self.judge(ok, now=END_OF_TIME), Delete())
        # A retry is by Retry-After; a run that is given up is over, and is followed by the next.
        retry = self.judge(ok._replace(status=500, retry_after=SECOND))
        assert isinstance(retry, Retry)
        self.assertEqual(retry.due, NOW + SECOND)
        failed = self.judge(ok._replace(meaning=Meaning.FAIL))
        assert isinstance(failed, Reschedule)
        self.assertEqual((failed.scheduled, failed.error is None), (NOW + HOUR, False))
        disabled = self.judge(ok._replace(meaning=Meaning.DISABLE))
        self.assertEqual(disabled, Disable(NOW + HOUR, RUN.anchor, DISABLED))

    def test_a_next_run_by_header_off_the_grid(self) -> None:
        """Intervals that are counted from ends, or varied, are so after that run, too."""
        ok = Outcome(200, 0.1, next_run=HOUR)
        end = NOW + timedelta(seconds=7)
        from_the_end = RunPolicy(fixed_intervals=False)
        self.assertEqual(self.judge(ok, RUN, end, from_the_end), Reschedule(end + HOUR, end))
        run = RUN._replace(scheduled=end + HOUR, anchor=end, claimed=end + HOUR)
        later = end + HOUR + SECOND
        self.assertEqual(
            self.judge(OK, run, later, from_the_end), Reschedule(later + MINUTE, later)
        )
        varied = self.judge(ok, RUN, end, RunPolicy(randomization_factor=0.5))
        assert isinstance(varied, Reschedule)
        self.assertEqual(varied.scheduled, end + HOUR)

    def test_options_changed_during_a_steered_run(self) -> None:
        """P4: the new options hold, for a job that is disabled or put off by its endpoint, too."""
        asked = Outcome(200, 0.1, next_run=HOUR, meaning=Meaning.DISABLE)
        early, late = Options(until=NOW + MINUTE), Options()
        for before, after, meaning, expected in (
            (late, early, Meaning.DISABLE, Delete()),
            (early, late, Meaning.DISABLE, Disable(NOW + HOUR, RUN.anchor, DISABLED)),
            (late, early, Meaning.SUCCEED, Delete()),
            (early, late, Meaning.SUCCEED, Reschedule(NOW + HOUR, RUN.anchor)),
        ):
            run = RUN._replace(options=before)
            end = judge(run, asked._replace(meaning=meaning), NOW, RunPolicy(), Random(1))
            self.assertEqual(revised(end, after, NOW).verdict, expected)

    def test_backoff(self) -> None:
        """The delay grows with the attempt's number, which the table keeps."""
        for attempt, delay in ((1, 0.5), (3, 1.125), (10**6, 60)):
            verdict = self.judge(FAILURE, RUN._replace(attempt=attempt))
            self.assertEqual(verdict, Retry(NOW + timedelta(seconds=delay), ERROR))

    def test_retry_after(self) -> None:
        """P8: Retry-After, a delay or a date by the database's clock, holds up to a minute."""
        for asked, delay in (
            (timedelta(seconds=7), 7),
            (timedelta(days=999999), 60),
            (NOW + timedelta(seconds=9), 9),
            (LAST, 60),
            (PAST, 0.5),
            (EARLIEST, 0.5),
        ):
            run = RUN._replace(claimed=PAST)
            verdict = self.judge(Outcome(503, 0.1, retry_after=asked), run)
            assert isinstance(verdict, Retry)
            self.assertEqual(verdict.due, NOW + timedelta(seconds=delay), asked)

    def test_given_up(self) -> None:
        """A run that failed for too long is given up: its job goes on, or stops, but is kept."""
        policy = RunPolicy(RetryPolicy(jitter=0, stop_after=HOUR))
        stop = Options(on_failure=OnFailure.STOP)
        old = RUN._replace(started=NOW - HOUR, attempt=99)
        following = Reschedule(RUN.scheduled + MINUTE, RUN.anchor, ERROR)
        for run, expected in (
            (old._replace(started=NOW - HOUR + MINUTE), Retry(NOW + MINUTE, ERROR)),
            (old, following),
            (old._replace(options=stop), Stop(ERROR)),
            (old._replace(schedule=Once()), Stop(ERROR)),
            (old._replace(options=Options(until=NOW)), Stop(ERROR)),
            (old._replace(options=Options(count=9), successes=8), following),
        ):
            self.assertEqual(self.judge(FAILURE, run, policy=policy), expected)
        # It is not put off until a time at which it would be given up.
        asked = Outcome(503, 0.1, retry_after=MINUTE)
        soon = RUN._replace(started=NOW - HOUR + MINUTE / 2)
        self.assertIsInstance(self.judge(FAILURE, soon, policy=policy), Retry)
        self.assertIsInstance(self.judge(asked, soon, policy=policy), Reschedule)

    def test_a_retry_at_the_end_of_time(self) -> None:
        """P5: a retry that would be past the year 9999 is due now, rather than an error."""
        self.assertEqual(self.judge(FAILURE, now=END_OF_TIME), Retry(END_OF_TIME, ERROR))

    def test_intervals_from_the_end(self) -> None:
        """With fixedIntervals = false an interval is counted from the end of the run before."""
        policy = RunPolicy(fixed_intervals=False)
        end = NOW + timedelta(seconds=7.25)
        for schedule, following, anchor in (
            (Every(MINUTE), end + MINUTE, end),
            (Calendar(DAILY), end + DAY, end),
            # A time of the day is a time of the day.
            (Cron("0 9 * * *"), utc("2014-11-12T09:00"), RUN.anchor),
        ):
            run = RUN._replace(schedule=schedule)
            self.assertEqual(self.judge(OK, run, end, policy), Reschedule(following, anchor))
        self.assertEqual(self.judge(OK, RUN._replace(schedule=Once()), end, policy), Delete())

    def test_one_run_more(self) -> None:
        """
        After a run that was asked for between two times of a calendar or of cron, the next is the
        one that it would have been without; and none comes before first-run.
        """
        asked = utc("2026-03-05T14:37")
        end = asked + SECOND
        monthly = Calendar(duration_from_text("P1M"))
        last_of_month = utc("2026-01-31T09:00")
        first_run = utc("2026-05-31T09:00")
        for schedule, options, anchor, fixed, following in (
            (monthly, Options(), last_of_month, True, "2026-03-31T09:00"),
            (Calendar(DAILY), Options(), last_of_month, True, "2026-03-06T09:00"),
            (Cron("0 9 * * *"), Options(), last_of_month, True, "2026-03-06T09:00"),
            (monthly, Options(first_run=first_run), first_run, True, "2026-05-31T09:00"),
            (monthly, Options(first_run=first_run), first_run, False, "2026-05-31T09:00"),
            (Cron("0 9 * * *"), Options(first_run=first_run), first_run, True, "2026-05-31T09:00"),
            (Cron("0 8 * * *"), Options(first_run=first_run), first_run, True, "2026-06-01T08:00"),
            (monthly, Options(first_run=last_of_month), last_of_month, True, "2026-03-31T09:00"),
        ):
            run = RUN._replace(
                schedule=schedule,
                options=options,
                anchor=anchor,
                scheduled=asked,
                claimed=asked,
            )
            policy = RunPolicy(fixed_intervals=fixed)
            expected = Reschedule(utc(following), anchor)
            self.assertEqual(self.judge(OK, run, end, policy), expected, schedule)
            job = Job(KEY, schedule, options, anchor, scheduled=asked, due=asked)
            times = [time.at for time in islice(times_of(job, EARLIEST, asked), 2)]
            self.assertEqual(times, [asked, utc(following)], schedule)
        # From the end of a run, and the month of it, without fixedIntervals.
        run = run._replace(options=Options())
        policy = RunPolicy(fixed_intervals=False)
        self.assertEqual(
            self.judge(OK, run, end, policy), Reschedule(utc("2026-04-05T14:37") + SECOND, end)
        )

    def test_randomization_factor(self) -> None:
        """With a factor f the next run is this one's start plus 1-f to 1+f times the interval."""
        for fixed, end in ((True, 0), (False, 60)):
            random, delays = Random(1), []
            policy = RunPolicy(randomization_factor=0.25, fixed_intervals=fixed)
            for _ in range(500):
                # The scheduled time plays no part, nor does the end where intervals are fixed.
                run = RUN._replace(scheduled=PAST, anchor=PAST)
                verdict = self.judge(OK, run, NOW + MINUTE, policy, random)
                assert isinstance(verdict, Reschedule)
                self.assertEqual(verdict.anchor, verdict.scheduled)
                delays.append((verdict.scheduled - run.claimed).total_seconds() - end)
            self.assertTrue(45 <= min(delays) < 46 and 74 < max(delays) <= 75, fixed)

    def test_randomization_factor_and_the_rest(self) -> None:
        """It is for elapsed time: not for calendars, cron or once; the year 9999 is the end."""
        policy = RunPolicy(randomization_factor=1.0)
        for schedule in (Calendar(DAILY), Cron("0 9 * * *"), Once()):
            run = RUN._replace(schedule=schedule)
            self.assertEqual(self.judge(OK, run, policy=policy), self.judge(OK, run))
        last = RUN._replace(claimed=LAST, schedule=Every(timedelta(days=366)))
        self.assertEqual(self.judge(OK, last, LAST, policy), Delete())


class EndTests(SynchronousTestCase):
    """What an end says of the row that it is written to."""

    def test_due(self) -> None:
        """P7: when the row may be claimed again, so that the agenda has it in time."""
        for verdict, due in (
            (Reschedule(PAST, LAST), PAST),
            (Reschedule(LAST, PAST, ERROR), LAST),
            (Skip(LAST), LAST),
            (Retry(LAST, ERROR), LAST),
            (GiveBack(), RUN.claimed),
            (GiveBack(LAST), LAST),
            (Stop(ERROR), None),
            (Delete(), None),
            (Finish(), None),
            (Disable(LAST, PAST, DISABLED), None),
        ):
            self.assertEqual(End(RUN, None, verdict).due, due, verdict)


class MissedTests(SynchronousTestCase):
    """Runs that are claimed too late to begin."""

    def missed(
        self, late: timedelta, schedule: Schedule = RUN.schedule, **options: object
    ) -> object:
        """What becomes of a run that is so late."""
        scheduled = NOW - late
        return missed(
            RUN._replace(
                schedule=schedule,
                anchor=scheduled,
                scheduled=scheduled,
                options=Options(**options),  # type: ignore[arg-type]
            )
        )

    def test_in_time(self) -> None:
        """However late, a run is posted, unless something else was asked for."""
        self.assertIsNone(self.missed(-HOUR))
        self.assertIsNone(self.missed(900 * DAY))
        self.assertIsNone(self.missed(900 * DAY, catch_up=CatchUp.ALL))
        self.assertIsNone(self.missed(HOUR, max_lateness=HOUR))
        self.assertIsNone(self.missed(MINUTE, catch_up=CatchUp.SKIP))

    def test_too_late(self) -> None:
        """Past max-lateness it is skipped: the next is the first that is not too late itself."""
        tiny = timedelta(microseconds=1)
        for late, options, expected in (
            # Of runs each minute: the last is no more than so late.
            (HOUR + tiny, {"max_lateness": HOUR}, NOW - HOUR + MINUTE - tiny),
            (3 * HOUR, {"max_lateness": HOUR}, NOW - HOUR),
            (3 * HOUR - 15 * SECOND, {"max_lateness": 30 * SECOND}, NOW + 15 * SECOND),
            (tiny, {"max_lateness": timedelta()}, NOW + MINUTE - tiny),
            # catch-up=skip lets a run begin a minute late.
            (MINUTE + tiny, {"catch_up": CatchUp.SKIP}, NOW - tiny),
            (HOUR, {"catch_up": CatchUp.SKIP}, NOW - MINUTE),
            (HOUR, {"catch_up": CatchUp.SKIP, "max_lateness": SECOND}, NOW),
            (HOUR, {"catch_up": CatchUp.ALL, "max_lateness": 5 * MINUTE}, NOW - 5 * MINUTE),
        ):
            self.assertEqual(self.missed(late, **options), Skip(expected), (late, options))

    def test_calendar_and_cron(self) -> None:
        """The same for days and for cron."""
        for schedule, expected in (
            (Calendar(DAILY), NOW + DAY / 2),
            (Cron("0 9 * * *"), utc("2014-11-12T09:00")),
        ):
            self.assertEqual(self.missed(7.5 * DAY, schedule, max_lateness=HOUR), Skip(expected))

    def test_the_last(self) -> None:
        """A job of which nothing is left is removed: one-off, or at its end."""
        self.assertEqual(self.missed(HOUR, Once(), max_lateness=MINUTE), Delete())
        self.assertEqual(self.missed(HOUR, max_lateness=SECOND, until=NOW - SECOND), Delete())
        self.assertEqual(self.missed(HOUR, max_lateness=SECOND, until=NOW), Skip(NOW))
        keep = OnEnd.KEEP
        self.assertEqual(self.missed(HOUR, Once(), max_lateness=MINUTE, on_end=keep), Finish())
        found = self.missed(HOUR, max_lateness=SECOND, until=NOW - SECOND, on_end=keep)
        self.assertEqual(found, Finish())
        found = self.missed(HOUR, max_lateness=SECOND, until=NOW, on_end=keep)
        self.assertEqual(found, Skip(NOW))

    def test_asked_for_during_a_run(self) -> None:
        """One that had to wait for the run before is as late as it is since that was over."""
        options = Options(max_lateness=SECOND)
        waited = RUN._replace(scheduled=PAST, due=NOW - SECOND, waited=True, options=options)
        self.assertIsNone(missed(waited))
        self.assertIsInstance(missed(waited._replace(waited=False)), Skip)
        self.assertIsInstance(missed(waited._replace(due=NOW - 2 * SECOND)), Skip)

    def test_begun(self) -> None:
        """A run that was attempted before is never too late: it is tried until done or given up."""
        run = RUN._replace(scheduled=PAST, options=Options(max_lateness=SECOND))
        self.assertIsInstance(missed(run), Skip)
        self.assertIsNone(missed(run._replace(attempt=2)))
