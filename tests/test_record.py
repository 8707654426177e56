"""The record of a run: codes and shelves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.answers import Meaning
from dalga.model.attempt import Attempt, ErrorKind, Saved
from dalga.model.delivery import Delivery, Payload
from dalga.model.grid import offset_of
from dalga.model.options import CatchUp, Options
from dalga.model.record import (
    Earlier,
    Record,
    Result,
    Shelf,
    cause_of,
    job_key,
    path_key,
    record_of,
    result_of,
    result_of_code,
)
from dalga.model.run import (
    Cause,
    Delete,
    Disable,
    End,
    Finish,
    GiveBack,
    Outcome,
    Reschedule,
    Retry,
    Run,
    Skip,
    Stop,
    Verdict,
)
from dalga.model.schedule import Every, Once, Schedule
from dalga.store.recording import _is_plain, _Plain, _values
from dalga.store.rows import version_at
from tests.examples import HOUR, MINUTE, RUN, SECOND

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
LATER = NOW + MINUTE


class CodeTests(SynchronousTestCase):
    def test_codes_stay_as_they_are(self) -> None:
        """The tables have them."""
        self.assertEqual(
            {result.value: (result.code, result.shelf) for result in Result},
            {
                "succeeded": (0, Shelf.FINE),
                "removed": (1, Shelf.FINE),
                "disabled": (2, Shelf.FINE),
                "given_up": (3, Shelf.FAILED),
                "skipped": (4, Shelf.FAILED),
                "overridden": (5, Shelf.FAILED),
                "cancelled": (6, Shelf.FAILED),
            },
        )
        self.assertEqual(
            {cause.word: int(cause) for cause in Cause},
            {"schedule": 0, "manual": 1, "replay": 2, "late": 3},
        )

    def test_keys_stay_as_they_are(self) -> None:
        """The tables have them."""
        self.assertEqual(path_key("reports"), 8687394902737974435)
        self.assertEqual(path_key("berichte/für alle"), 9204428124013168485)
        self.assertEqual(job_key("reports", "daily"), 7802976537597515778)
        self.assertEqual(job_key("", ""), 7566460545155561414)

    def test_few_keys_are_alike(self) -> None:
        bodies = [f"{number:0{width}}" for width in (1, 8) for number in range(10_000, 40_000)]
        keys = {job_key(path, body) for path in ("mail", "liam") for body in bodies}
        self.assertEqual(len(keys), 2 * len(bodies))
        self.assertTrue(all(0 <= key < 1 << 63 for key in keys))

    def test_there_and_back(self) -> None:
        for result in Result:
            self.assertIs(result_of_code(result.code), result)
        for other in (-1, 7, None, "3"):
            self.assertIsNone(result_of_code(other))


class DurationTests(SynchronousTestCase):
    def test_from_the_first_start_to_the_last_end(self) -> None:
        for started, ended, ms in [
            (NOW, NOW + timedelta(microseconds=31_600), 32),
            (NOW, NOW - timedelta(seconds=1), 0),  # the clock was set back
            (NOW, None, None),
            (None, None, None),
        ]:
            record = Record(
                run_id="0-1",
                path="mail",
                body="7",
                endpoint="default",
                trigger=Cause.SCHEDULE,
                scheduled=NOW,
                claimed=NOW,
                started=started,
                ended=ended,
                lateness_ms=None,
                instance=None,
                result=None,
            )
            self.assertEqual(record.duration_ms, ms)


class ResultTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """What an end comes to: by itself, where a user overrode it, and where one deleted it."""
        again = RUN._replace(attempt=2)
        succeed, retry, fail = Meaning.SUCCEED, Meaning.RETRY, Meaning.FAIL
        examples: list[tuple[Run, Verdict, Meaning | None, tuple[str | None, ...]]] = [
            (RUN, Reschedule(LATER, NOW), succeed, ("succeeded",) * 3),
            (RUN, Delete(), succeed, ("succeeded",) * 3),
            (RUN, Finish(), succeed, ("succeeded",) * 3),
            (RUN, Delete(), Meaning.REMOVE, ("removed",) * 3),
            (RUN, Reschedule(LATER, NOW), Meaning.REMOVE, ("removed",) * 3),  # revised
            (RUN, Disable(LATER, NOW, "x"), Meaning.DISABLE, ("disabled",) * 3),
            (RUN, Reschedule(LATER, NOW, "x"), retry, ("given_up",) * 3),
            (RUN, Reschedule(LATER, NOW, "x"), fail, ("given_up",) * 3),
            (RUN, Stop("x"), fail, ("given_up",) * 3),
            (RUN, Retry(LATER, "x"), retry, (None, "overridden", "cancelled")),
            (again, GiveBack(), None, (None, "overridden", "cancelled")),
            (RUN, GiveBack(), None, (None,) * 3),
            (RUN, Skip(LATER), None, ("skipped",) * 3),
            (RUN, Delete(), None, ("skipped",) * 3),
            (RUN, Finish(), None, ("skipped",) * 3),
        ]
        for run, verdict, meaning, expected in examples:
            outcome = None if meaning is None else Outcome(200, 0.1)
            end = End(run, outcome, verdict, meaning)
            found = result_of(end), result_of(end, True), result_of(end, True, True)
            self.assertEqual(found, expected, end)


class CauseTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """A run that begins late stands for the times that have gone by meanwhile."""
        each_second, each_minute = Every(SECOND), Every(MINUTE)
        run = RUN._replace(scheduled=NOW, anchor=NOW)
        examples: list[tuple[Schedule, Options, Cause, timedelta, Cause]] = [
            (each_minute, Options(), Cause.SCHEDULE, timedelta(), Cause.SCHEDULE),
            (each_minute, Options(), Cause.SCHEDULE, MINUTE - SECOND, Cause.SCHEDULE),
            (each_minute, Options(), Cause.SCHEDULE, MINUTE, Cause.LATE),
            (each_second, Options(), Cause.SCHEDULE, SECOND, Cause.SCHEDULE),  # not worth a word
            (each_second, Options(), Cause.SCHEDULE, 2 * SECOND, Cause.LATE),
            (each_minute, Options(jitter=HOUR), Cause.SCHEDULE, MINUTE - SECOND, Cause.SCHEDULE),
            (each_minute, Options(jitter=HOUR), Cause.SCHEDULE, HOUR + 2 * MINUTE, Cause.LATE),
            (each_minute, Options(catch_up=CatchUp.ALL), Cause.SCHEDULE, HOUR, Cause.SCHEDULE),
            (Once(), Options(), Cause.SCHEDULE, HOUR, Cause.SCHEDULE),
            (each_minute, Options(), Cause.MANUAL, HOUR, Cause.MANUAL),
            (each_minute, Options(), Cause.REPLAY, HOUR, Cause.REPLAY),
        ]
        for schedule, options, cause, late, expected in examples:
            made = run._replace(schedule=schedule, options=options, cause=cause)
            self.assertEqual(cause_of(made, NOW + late), expected, made)

    def test_jitter(self) -> None:
        """The times that have gone by are those of the job, not those of its schedule."""
        run = RUN._replace(schedule=Every(MINUTE), options=Options(jitter=MINUTE))
        offset = offset_of(run.key, run.options)
        self.assertGreater(offset, timedelta())
        run = run._replace(scheduled=NOW, anchor=NOW - offset)
        following = NOW + MINUTE
        self.assertIs(cause_of(run, following - offset / 2), Cause.SCHEDULE)
        self.assertIs(cause_of(run, following), Cause.LATE)


class RecordTests(SynchronousTestCase):
    run_ = RUN._replace(
        id="000102030405060708090a0b0c0d0e0f-1", scheduled=NOW - SECOND, started=NOW, claimed=NOW
    )

    def record(self, end: End, result: Result | None, earlier: Earlier | None = None) -> Record:
        return record_of(end, result, LATER, "web-1", earlier)

    def test_a_failure(self) -> None:
        """With what is known of the attempt."""
        run = self.run_._replace(delivery=Delivery(payload=Payload(b"x"), replay_of="0-1"))
        saved = Saved("Server: a", b"caf\xc3")
        outcome = Outcome(500, 0.25, saved=saved)
        verdict = Retry(LATER, "500 Internal Server Error")
        end = End(run, outcome, verdict, Meaning.RETRY, ended=NOW + SECOND)
        record = self.record(end, None)
        started = NOW + SECOND * 0.75
        attempt = Attempt(1, started, "web-1", 250, 500, ErrorKind.STATUS)
        self.assertEqual(
            record,
            Record(
                run_id=run.id,
                path=run.key.path,
                body=run.key.body,
                endpoint="default",
                trigger=Cause.SCHEDULE,
                scheduled=NOW - SECOND,
                claimed=NOW,
                started=started,
                ended=NOW + SECOND,
                lateness_ms=1750,
                instance="web-1",
                result=None,
                status=500,
                error_kind=ErrorKind.STATUS,
                error="500 Internal Server Error",
                attempt_count=1,
                attempts=(attempt,),
                response_headers="Server: a",
                response_body=saved.text,
                replay_of="0-1",
                detailed=True,
            ),
        )

    def test_attempts(self) -> None:
        """The first and the last ones; the times of the first one stay."""
        earlier: Earlier | None = None
        for number in range(1, 21):
            run = self.run_._replace(attempt=number, claimed=NOW + number * MINUTE)
            ended = run.claimed + SECOND
            end = End(run, Outcome(500, 1.0), Retry(LATER, "500"), Meaning.RETRY, ended=ended)
            record = self.record(end, None, earlier)
            assert record.lateness_ms is not None
            earlier = Earlier(
                record.claimed,
                record.started,
                record.lateness_ms,
                record.trigger,
                record.attempts,
            )
        self.assertEqual(
            [attempt.n for attempt in record.attempts], [1, 2, 13, 14, 15, 16, 17, 18, 19, 20]
        )
        self.assertEqual(record.attempt_count, 20)
        self.assertEqual((record.started, record.ended), (NOW + MINUTE, ended))
        self.assertEqual(record.lateness_ms, 61_000)

    def test_a_first_attempt_that_was_lost(self) -> None:
        """It began when it was claimed, as far as is known."""
        run = self.run_._replace(attempt=2, claimed=NOW + HOUR)
        end = End(run, Outcome(200, 1.0), Delete(), Meaning.SUCCEED, ended=NOW + HOUR + SECOND)
        record = self.record(end, Result.SUCCEEDED)
        self.assertEqual((record.started, record.lateness_ms), (NOW, 1000))
        self.assertEqual([attempt.n for attempt in record.attempts], [2])

    def test_nothing_was_posted(self) -> None:
        record = self.record(End(self.run_, None, Skip(LATER)), Result.SKIPPED)
        self.assertEqual((record.started, record.ended, record.attempts), (None, None, ()))
        self.assertEqual((record.attempt_count, record.lateness_ms), (0, 1000))

    def test_asked_for(self) -> None:
        """A run that a user asked for is not late by the time that it is of."""
        for cause in (Cause.MANUAL, Cause.REPLAY):
            run = self.run_._replace(cause=cause, scheduled=NOW - HOUR, due=NOW)
            end = End(run, Outcome(200, 0.0), Delete(), Meaning.SUCCEED, ended=NOW + SECOND)
            self.assertEqual(self.record(end, Result.SUCCEEDED).lateness_ms, 1000)

    def test_the_long_way(self) -> None:
        """A record that has more in it than columns of a success."""
        outcome = Outcome(200, 1.0)
        plain = End(self.run_, outcome, Delete(), Meaning.SUCCEED, ended=NOW)
        self.assertTrue(_is_plain(plain))
        for end in (
            plain._replace(run=self.run_._replace(attempt=2)),
            plain._replace(run=self.run_._replace(delivery=Delivery(replay_of="0-1"))),
            plain._replace(outcome=outcome._replace(saved=Saved("", b""))),
            plain._replace(outcome=None),
            plain._replace(meaning=Meaning.REMOVE),
            plain._replace(ended=None),
        ):
            self.assertFalse(_is_plain(end), end)

    def test_the_short_way(self) -> None:
        """Most successes are written without a `Record` in between: to the same columns."""
        each_second = Every(SECOND)
        for run in [
            self.run_,
            self.run_._replace(scheduled=NOW - HOUR, anchor=NOW - HOUR, schedule=each_second),
            self.run_._replace(scheduled=NOW - HOUR, due=NOW, cause=Cause.REPLAY),
            self.run_._replace(scheduled=NOW - HOUR, due=NOW, waited=True),
            self.run_._replace(scheduled=NOW + HOUR),  # the clock was set back
            self.run_._replace(scheduled=datetime(1999, 12, 31, 23, 59, 59, 999999, UTC)),
        ]:
            for elapsed in (0.0, 0.0123456, 1.9999999, 59.5):
                for ended in (NOW, NOW - 3 * MINUTE, NOW + timedelta(microseconds=999999)):
                    outcome = Outcome(200, elapsed)
                    end = End(run, outcome, Delete(), Meaning.SUCCEED, ended=ended)
                    self.assertTrue(_is_plain(end))
                    at = version_at(LATER)
                    record = self.record(end, Result.SUCCEEDED)
                    self.assertEqual(
                        _Plain(LATER, at, "web-1").values(end, run.row),
                        _values(record, Shelf.FINE, at, run.row),
                    )
