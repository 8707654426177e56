"""How long records of runs are kept: when they are removed, and which are surplus."""

from __future__ import annotations

from datetime import timedelta

from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.pruning import (
    ALL,
    FEWEST,
    FIRST,
    FORGOTTEN,
    INTERVAL,
    MOST,
    PATIENCE,
    PAUSE,
    PIECE,
    REST_FACTOR,
    TARGET,
    Survey,
    next_size,
)
from dalga.model.record import Shelf
from dalga.store import Surveyed
from tests.test_dispatch import SchedulerTestCase

FINE, FAILED = Shelf.FINE, Shelf.FAILED


def survey(max_rows: int, failed: int, fine: int) -> dict[Shelf, int]:
    """What a survey finds of shelves with so many records, one a microsecond; the newest at 0."""
    found = Survey(max_rows)
    left = {FAILED: failed, FINE: fine}
    while found.shelf is not None:
        size = found.size
        records = min(size, left[found.shelf])
        left[found.shelf] -= records
        before = 0 if found.before is None else found.before
        found.counted(Surveyed(records, before - records if records else None, 0.0))
    return found.surplus


class SurveyTests(SynchronousTestCase):
    def test_which_are_surplus(self) -> None:
        """Successes first; failures only if they alone are too many."""
        for most, failed, fine, surplus in [
            (100, 0, 0, {}),
            (100, 30, 60, {}),
            (100, 30, 70, {FINE: -70}),  # none is older
            (100, 30, 80, {FINE: -70}),
            (100, 99, 80, {FINE: -1}),
            (100, 100, 80, {FAILED: -100, FINE: ALL}),
            (100, 130, 80, {FAILED: -100, FINE: ALL}),
            (3 * PIECE, PIECE + 1, 5 * PIECE, {FINE: -(2 * PIECE - 1)}),
            (3 * PIECE, PIECE, PIECE, {}),
        ]:
            self.assertEqual(survey(most, failed, fine), surplus, (most, failed, fine))

    def test_a_piece_is_bounded(self) -> None:
        self.assertEqual(Survey(10**7).size, PIECE)
        self.assertEqual(Survey(10).size, 10)


class SizeTests(SynchronousTestCase):
    def test_as_many_as_take_the_time(self) -> None:
        for size, seconds, following in [
            (100, TARGET, 100),
            (100, TARGET / 1.5, 150),
            (100, TARGET / 10, 200),  # twice as many at most
            (100, 0.0, 200),
            (100, 2 * TARGET, 50),
            (200, 10.0, 100),  # half as many at least
            (FEWEST, 10.0, FEWEST),
            (MOST, 0.0, MOST),
        ]:
            self.assertEqual(next_size(size, seconds), following)


class PruningTests(SchedulerTestCase):
    """P10: records are not kept for ever."""

    def batches(self) -> list[tuple[Shelf, int]]:
        """The shelves and sizes of the batches so far."""
        return [(call.argument[0], call.argument[3]) for call in self.store.called("prune")]

    def test_a_few_at_a_time(self) -> None:
        self.store.prune_seconds = TARGET
        self.store.old_records.update({FINE: 2 * FIRST + 1, FAILED: 1})
        self.start()
        self.go(INTERVAL - 1)
        self.assertEqual(self.batches(), [])
        self.go(3)
        self.assertEqual(self.batches(), [(FINE, FIRST)] * 3 + [(FAILED, FIRST)])
        calls = self.store.called("prune")
        self.assertAlmostEqual(calls[1].at - calls[0].at, max(PAUSE, 4 * TARGET))
        self.assertEqual(
            [call.argument[1] for call in calls], [timedelta(days=7)] * 3 + [timedelta(days=30)]
        )
        self.assertEqual({*self.store.old_records.values()}, {0})
        self.go(INTERVAL - 3)
        self.assertEqual(len(self.batches()), 4)
        self.go(3)
        self.assertEqual(len(self.batches()), 6)

    def test_a_slow_database(self) -> None:
        """Batches become smaller, and the pauses longer."""
        self.store.prune_seconds = 1.0
        self.store.old_records[FINE] = 1000
        self.start()
        self.go(INTERVAL + 6)
        self.assertEqual(self.batches(), [(FINE, FIRST), (FINE, FIRST // 2)])

    def test_what_was_removed_is_counted(self) -> None:
        self.store.old_records[FINE] = 250
        self.start()
        self.go(INTERVAL + 3)
        self.assertEqual(self.metrics._pruned, 250)

    def test_entries_of_the_audit_list(self) -> None:
        """A few at a time, until there are no more; then none for a while."""
        self.store.old_entries = 2 * FORGOTTEN + 1
        self.start()
        self.clock.advance(INTERVAL - 0.1)
        self.assertEqual(self.store.called("forget_entries"), [])
        for expected in (1, 2, 3):
            self.clock.advance(0.1 if expected == 1 else PAUSE)
            self.assertEqual(len(self.store.called("forget_entries")), expected)
        self.assertEqual(self.store.old_entries, 0)
        self.clock.advance(INTERVAL - 0.1)
        self.assertEqual(len(self.store.called("forget_entries")), 3)
        calls = {call.argument for call in self.store.called("forget_entries")}
        self.assertEqual(calls, {(timedelta(days=90), FORGOTTEN)})

    def test_behind_a_backlog(self) -> None:
        """P7: removals wait while there are more due runs than slots, but not for ever."""
        self.start()
        self.go(INTERVAL - 5)
        for number in range(200):
            self.store.insert(f"job{number}")
        self.store.old_records[FINE] = 1000
        self.go(PATIENCE)
        self.assertEqual(self.batches(), [])
        self.assertEqual(self.store.called("survey"), [])
        self.go(10)
        self.assertEqual(self.store.old_records[FINE], 0)

    def test_surplus(self) -> None:
        """Records that are more than may be kept go before their time."""
        self.start(max_rows=100)
        self.store.records[FAILED] = list(range(1000, 970, -1))
        self.store.records[FINE] = list(range(1000, 900, -1))
        self.go(INTERVAL + 1)
        self.assertEqual(
            [call.argument for call in self.store.called("survey")],
            [(FAILED, None, 100), (FINE, None, 70)],
        )
        self.go(INTERVAL)
        surplus = [(call.argument[0], call.argument[2]) for call in self.store.called("prune")]
        self.assertEqual(surplus[-2:], [(FINE, 931), (FAILED, None)])
        # A shelf that has no surplus any more loses no more.
        self.store.records[FINE] = []
        self.go(2 * INTERVAL + 2)
        surplus = [(call.argument[0], call.argument[2]) for call in self.store.called("prune")]
        self.assertEqual(surplus[-2:], [(FINE, None), (FAILED, None)])

    def test_surveys_rest(self) -> None:
        """For a multiple of what they took: other instances make surveys, too."""
        self.store.prune_seconds = 1.0  # 4 s pass behind each piece
        self.store.records[FINE] = list(range(3 * PIECE, 0, -1))
        self.start()
        self.go(INTERVAL + 20)
        pieces = self.store.called("survey")
        self.assertEqual(len(pieces), 1 + 4)
        took = pieces[-1].at - pieces[0].at
        self.go(max(INTERVAL, REST_FACTOR * took) - 10)
        self.assertEqual(len(self.store.called("survey")), 5)
        self.go(15)
        self.assertGreater(len(self.store.called("survey")), 5)

    def test_surveys_of_several_instances_rest_longer(self) -> None:
        self.store.heard_of["web2"] = self.store.time + timedelta(hours=1)
        self.store.prune_seconds = 1.0
        self.store.records[FINE] = list(range(3 * PIECE, 0, -1))
        self.start()
        self.go(INTERVAL + 20)
        pieces = self.store.called("survey")
        took = pieces[-1].at - pieces[0].at
        self.go(2 * REST_FACTOR * took - 10)
        self.assertEqual(len(self.store.called("survey")), len(pieces))
        self.go(15)
        self.assertGreater(len(self.store.called("survey")), len(pieces))
