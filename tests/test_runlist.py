"""Which runs a list shows, and which ranges of an index a page goes through."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.answers import Statuses
from dalga.model.attempt import ErrorKind
from dalga.model.record import Result, Shelf
from dalga.model.runlist import (
    RunDriver,
    RunFilters,
    RunPlace,
    RunState,
    ShelfRange,
)

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FINE, FAILED, OPEN = Shelf.FINE, Shelf.FAILED, Shelf.OPEN


def of(*results: Result | RunState) -> RunFilters:
    return RunFilters(
        results=frozenset(each for each in results if isinstance(each, Result)),
        states=frozenset(each for each in results if isinstance(each, RunState)),
    )


class FilterTests(SynchronousTestCase):
    def test_driver(self) -> None:
        for filters, driver in [
            (RunFilters(), RunDriver.SHELF),
            (RunFilters(prefix="mail", body="7"), RunDriver.SHELF),
            (RunFilters(path="mail"), RunDriver.PATH),
            (RunFilters(path="mail", body="7"), RunDriver.JOB),
        ]:
            self.assertIs(filters.driver, driver)

    def test_shelves(self) -> None:
        """A list of failures looks at no success."""
        for filters, shelves in [
            (RunFilters(), (FAILED, FINE)),
            (of(Result.SUCCEEDED), (FINE,)),
            (of(Result.GIVEN_UP, Result.SKIPPED), (FAILED,)),
            (of(Result.GIVEN_UP, Result.REMOVED), (FAILED, FINE)),
            (of(RunState.RUNNING), ()),
            (of(RunState.RETRYING, Result.DISABLED), (FINE,)),
            (RunFilters(error_kinds=frozenset({ErrorKind.DNS})), (FAILED,)),
            (RunFilters(statuses=Statuses(((503, 503),))), (FAILED, FINE)),
        ]:
            self.assertEqual(filters.ended, shelves, filters)

    def test_runs_that_have_not_ended(self) -> None:
        for filters, running, retrying in [
            (RunFilters(), True, True),
            (of(RunState.RUNNING), True, False),
            (of(RunState.RETRYING, Result.SUCCEEDED), False, True),
            (of(Result.SUCCEEDED), False, False),
            (RunFilters(since=NOW), True, True),
            (RunFilters(since=NOW + SECOND), False, False),
            (RunFilters(until=NOW + SECOND), True, True),
            (RunFilters(until=NOW), False, False),
        ]:
            self.assertEqual(filters.shows(RunState.RUNNING, NOW), running, filters)
            self.assertEqual(filters.shows(RunState.RETRYING, NOW), retrying, filters)


class RangeTests(SynchronousTestCase):
    def test_from_the_beginning(self) -> None:
        for filters, ranges in [
            (RunFilters(), [[ShelfRange(OPEN, 0)], [ShelfRange(FAILED), ShelfRange(FINE)]]),
            (of(Result.SKIPPED), [[ShelfRange(FAILED)]]),
            (of(RunState.RETRYING), [[ShelfRange(OPEN, 0)]]),
            (RunFilters(until=NOW), [[ShelfRange(FAILED), ShelfRange(FINE)]]),
        ]:
            self.assertEqual(filters.ranges(None, NOW), ranges)

    def test_behind_a_place(self) -> None:
        self.assertEqual(
            RunFilters().ranges(RunPlace(OPEN, 0, 7), NOW),
            [[ShelfRange(OPEN, 0, 7)], [ShelfRange(FAILED), ShelfRange(FINE)]],
        )
        self.assertEqual(
            RunFilters().ranges(RunPlace(FAILED, 100, 7), NOW),
            [[ShelfRange(FAILED, 100, 7), ShelfRange(FINE, 100)]],
        )
        self.assertEqual(
            RunFilters().ranges(RunPlace(FINE, 100, 7), NOW),
            [[ShelfRange(FAILED, 99), ShelfRange(FINE, 100, 7)]],
        )

    def test_each_row_is_on_one_side_of_a_place(self) -> None:
        """The ranges have the rows that come later in the order, and no others."""
        rows = [RunPlace(*row) for row in product((FAILED, FINE), (99, 100, 101), (6, 7, 8))]
        for place in rows:
            (ranges,) = RunFilters().ranges(place, NOW)
            behind = {
                row
                for row in rows
                for each in ranges
                if each.shelf == row.shelf
                and (each.until is None or row.at <= each.until)
                and (each.below is None or row.at != each.until or row.job < each.below)
            }
            order = (place.at, place.shelf, place.job)
            self.assertEqual(
                behind, {row for row in rows if (row.at, row.shelf, row.job) < order}, place
            )
