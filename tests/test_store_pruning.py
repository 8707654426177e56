"""The contract of `dalga.store.Store` on the removal of old records."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import Any

from dalga.model.record import Result, Shelf
from dalga.store.parameters import Select
from dalga.store.pruning import _Place
from dalga.store.rows import version_at
from tests.records import RecordTestCase, record_row
from tests.stores import each_engine
from tests.test_store_history_cost import LargeHistoryTestCase
from tests.test_store_pages import ROWS

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
FINE, FAILED = Shelf.FINE, Shelf.FAILED


@each_engine(globals())
class PruneTests(RecordTestCase):
    def jobs(self, shelf: Shelf) -> list[int]:
        """The ids of the jobs whose records are there, oldest first."""
        rows = self.sql("SELECT job FROM dalga_runs WHERE failed = %s ORDER BY at, job", (shelf,))
        return [job for (job,) in rows]

    async def test_what_is_older(self) -> None:
        """The oldest in front, of one shelf."""
        store = self.open_store()
        now = await store.now()
        results = {FINE: Result.SUCCEEDED, FAILED: Result.GIVEN_UP}
        for result in results.values():
            self.insert_records(
                record_row(now - (10 - job) * HOUR, job, result=result) for job in range(1, 10)
            )
        pruned = await store.prune(FINE, 4.5 * HOUR, None, 2)
        self.assertEqual(pruned.records, 2)
        self.assertGreater(pruned.seconds, 0)
        self.assertEqual(self.jobs(FINE), [3, 4, 5, 6, 7, 8, 9])
        self.assertEqual((await store.prune(FINE, 4.5 * HOUR, None, 100)).records, 3)
        self.assertEqual(self.jobs(FINE), [6, 7, 8, 9])
        self.assertEqual((await store.prune(FINE, 4.5 * HOUR, None, 100)).records, 0)
        self.assertEqual(self.jobs(FAILED), list(range(1, 10)))
        self.assertEqual((await store.prune(FAILED, 8.5 * HOUR, None, 100)).records, 1)
        self.assertEqual(self.jobs(FAILED), list(range(2, 10)))

    async def test_what_is_surplus(self) -> None:
        store = self.open_store()
        now = await store.now()
        self.insert_records(record_row(now - (10 - job) * HOUR, job) for job in range(1, 10))
        surplus = version_at(now - 5 * HOUR)
        self.assertEqual((await store.prune(FINE, 100 * HOUR, surplus, 100)).records, 4)
        self.assertEqual(self.jobs(FINE), [5, 6, 7, 8, 9])
        # What is older goes, surplus or not.
        self.assertEqual((await store.prune(FINE, 3.5 * HOUR, surplus, 100)).records, 2)

    async def test_records_of_the_same_moment(self) -> None:
        """A batch is no larger for them."""
        store = self.open_store()
        now = await store.now()
        self.insert_records(record_row(now - HOUR, job) for job in range(1, 10))
        self.assertEqual((await store.prune(FINE, SECOND, None, 4)).records, 4)
        self.assertEqual(self.jobs(FINE), [5, 6, 7, 8, 9])

    async def test_runs_that_have_not_ended_stay(self) -> None:
        store = self.open_store()
        now = await store.now()
        self.insert_records([record_row(None, 1, result=None, scheduled=now - 99 * HOUR)])
        for shelf in (FINE, FAILED):
            self.assertEqual((await store.prune(shelf, SECOND, None, 9)).records, 0)
        self.assertEqual(self.jobs(Shelf.OPEN), [1])

    async def test_how_long_others_may_have_waited(self) -> None:
        """Where there is one writer, for the COMMIT as well."""
        store = self.open_store()
        # At the beginning and the end of the statements, and behind the COMMIT.
        times = iter([0.0, 1.0, 3.0, 10.0])
        store._pruning._steady = times.__next__
        pruned = await store.prune(FINE, SECOND, None, 9)
        self.assertEqual(pruned.seconds, 10.0 if self.engine == "sqlite" else 2.0)

    async def test_survey(self) -> None:
        store = self.open_store()
        now = await store.now()
        self.insert_records(record_row(now - job * HOUR, job) for job in range(1, 10))
        self.insert_records([record_row(now, 1, result=Result.SKIPPED)])
        self.assertEqual((await store.survey(FINE, None, 4))[:2], (4, version_at(now - 4 * HOUR)))
        self.assertEqual(
            (await store.survey(FINE, version_at(now - 4 * HOUR), 100))[:2],
            (5, version_at(now - 9 * HOUR)),
        )
        self.assertEqual((await store.survey(FINE, version_at(now - 9 * HOUR), 100))[:2], (0, None))
        self.assertEqual((await store.survey(FAILED, None, 100))[:2], (1, version_at(now)))


@each_engine(globals(), only=("mariadb", "mysql"))
class TwoInstancesTests(RecordTestCase):
    """They don't step on each other."""

    async def test_another_instance_is_at_it(self) -> None:
        """The second one waits for nothing, and removes nothing."""
        store = self.open_store()
        now = await store.now()
        self.insert_records(record_row(now - (10 - job) * HOUR, job) for job in range(1, 10))
        where: dict[str, Any] = {"shelf": 0, "before": version_at(now)}
        with closing(self.connect()) as other:
            cursor = other.cursor()
            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("START TRANSACTION")
            (oldest,) = store._pruning._lock.fetch(cursor, **where)
            self.assertEqual(oldest, _Place(version_at(now - 9 * HOUR), 1))
            store._pruning._delete.execute(cursor, shelf=0, at=version_at(now - 6 * HOUR), job=99)
            self.assertEqual((await store.prune(FINE, SECOND, None, 3)).records, 0)
            other.commit()
        self.assertEqual((await store.prune(FINE, SECOND, None, 3)).records, 3)
        (left,) = self.sql("SELECT COUNT(*) FROM dalga_runs")[0]
        self.assertEqual(left, 2)

    async def test_records_are_written_meanwhile(self) -> None:
        """P7: a batch that is under way locks nothing that a record needs."""
        store = self.open_store()
        now = await store.now()
        self.insert_records(record_row(now - (10 - job) * HOUR, job) for job in range(1, 10))
        with closing(self.connect()) as other:
            cursor = other.cursor()
            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("START TRANSACTION")
            store._pruning._delete.execute(cursor, shelf=0, at=version_at(now), job=99)
            self.insert_records([record_row(now + SECOND, 10), record_row(now, 11)])
            other.rollback()


@each_engine(globals())
class PruneCostTests(LargeHistoryTestCase):
    async def test_a_batch_reads_no_more_than_it_removes(self) -> None:
        store = await self.fill_history()
        pruning = store._pruning
        before = version_at(self.now - (ROWS // 2) * SECOND)
        selects: list[tuple[Select[Any], dict[str, int], int]] = [
            (pruning._nth, {"number": 0}, 3),
            (pruning._nth, {"number": 99}, 103),
            (pruning._lock, {}, 3),
            (pruning._piece, {"limit": 100}, 210),
        ]
        for select, values, rows in selects:
            given = {"shelf": 1, "before": before, **values}
            statement, parameters = select.statement.bound((), given)
            self.check_cost(statement, parameters, rows, 100 if rows > 200 else 0)
        with closing(store._dialect.connect()) as connection:
            where = {"shelf": 1, "before": before, "number": 99}
            ((at, job),) = pruning._nth.fetch(connection.cursor(), **where)
        bound = pruning._delete.bound((), {"shelf": 1, "at": at, "job": job})
        self.check_cost(*bound, 105)
