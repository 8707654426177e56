"""The record of a run: codes and shelves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.record import Record, Result, Shelf, result_of_code
from dalga.model.run import Cause

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)


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
