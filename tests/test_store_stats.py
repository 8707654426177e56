"""The contract of `dalga.store.Store` on sums of runs: written, folded, removed and read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import datetime, timedelta

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from dalga.model.histogram import DURATION_BOUNDS, LATENESS_BOUNDS, histogram_of
from dalga.model.record import Result
from dalga.model.statistics import (
    HOUR,
    HOURS_KEPT,
    MINUTE,
    MINUTES_KEPT,
    Group,
    MinuteSums,
    Scope,
    StatsQuery,
    Sum,
    SumKey,
    floor,
)
from dalga.series import read_series
from dalga.store import SumsAsked, SumsFound
from dalga.store.table import JobsTable
from tests.lists import some_limits
from tests.stores import EngineTestCase, each_engine
from tests.test_store_pages import LargeTableTestCase

DAY = timedelta(days=1)
ODD = "reports/Élodie 🙂"


def key(
    at: datetime,
    path: str = "",
    result: Result = Result.SUCCEEDED,
    endpoint: str = "default",
    step: timedelta = MINUTE,
    scope: Scope = Scope.PATH,
) -> SumKey:
    return SumKey(scope, step, at, endpoint, path, result)


def count(runs: int, attempts: int | None = None, lateness: str = "", duration: str = "") -> Sum:
    return Sum(
        runs,
        runs if attempts is None else attempts,
        histogram_of(lateness or f"1:{runs}", LATENESS_BOUNDS),
        histogram_of(duration or f"100:{runs}", DURATION_BOUNDS),
    )


def minute(
    at: datetime,
    rows: Iterable[tuple[SumKey, Sum]],
    instance: str = "one",
    gone: Sequence[SumKey] = (),
) -> MinuteSums:
    return MinuteSums(at, instance, list(rows), list(gone))


class StatsTestCase(EngineTestCase):
    """Sums of one table."""

    async def now(self, store: JobsTable) -> datetime:
        return await store.now()

    async def find(
        self,
        store: JobsTable,
        step: timedelta,
        times: Sequence[datetime],
        group: Group | None = Group.PATH,
        endpoint: str | None = None,
        path: str | None = None,
        limit: int = 1000,
        query_step: timedelta | None = None,
        prefix: str = "",
    ) -> SumsFound:
        query = StatsQuery(times[0], times[-1] + step, query_step or step, group, endpoint, path)
        asked = SumsAsked(query, step, times, query.scope, endpoint, limit, prefix)
        return await store.sums(asked)

    def write_old(self, at: datetime, path: str, runs: int, instance: str = "one") -> None:
        """A row of a minute of the scope PATH, however old."""
        self.sql(
            "INSERT INTO dalga_stats (scope, step, at, endpoint, path, result, instance, runs,"
            " attempts, lateness, duration) VALUES (1, 60, %s, %s, %s, 0, %s, %s, %s, %s, %s)",
            (
                at.strftime("%Y-%m-%d %H:%M:%S.%f"),
                *(self.key(text) for text in ("default", path, instance)),
                *(runs, runs, f"1:{runs}", f"100:{runs}"),
            ),
        )

    def rows(self) -> list[tuple[int, int, str, str, int]]:
        """Of each row: scope, step, path, instance and runs."""
        found = self.sql("SELECT scope, step, path, instance, runs FROM dalga_stats")
        texts = [
            (scope, step, *(_text(each) for each in (path, instance)), runs)
            for scope, step, path, instance, runs in found
        ]
        return sorted(texts)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@each_engine(globals())
class SumTests(StatsTestCase):
    """What an instance writes, and what is read of it."""

    async def test_written_and_read(self) -> None:
        """Runs, attempts and histograms, of any path, endpoint and result."""
        store = self.open_store()
        at = floor(await self.now(store), MINUTE)
        sums = {
            key(at, ODD): count(3, 5, "1:2 +:1", "5:3"),
            key(at, "mail", Result.GIVEN_UP): count(1),
            key(at, "mail", Result.CANCELLED, "billing"): count(2),
            key(at, "", endpoint="billing"): count(7),
        }
        await store.write_sums(minute(at, sums.items()))
        found = await self.find(store, MINUTE, [at])
        self.assertEqual((found.rows, found.is_whole), (4, True))
        self.assertEqual(found.sums[ODD, at], sums[key(at, ODD)])
        mail = count(1)
        mail.add(count(2))
        self.assertEqual(found.sums["mail", at], mail)
        self.assertEqual(found.sums["", at], count(7))
        self.assertEqual(len(found.sums), 3)

    async def test_written_over(self) -> None:
        """A row is written as a whole, again and again; rows that are gone are removed."""
        store = self.open_store()
        at = floor(await self.now(store), MINUTE)
        first = minute(at, [(key(at, "a"), count(1)), (key(at, "b"), count(2))])
        for _ in range(2):
            await store.write_sums(first)
        gone = [key(at, "b"), key(at, "never there"), key(at, "a", Result.GIVEN_UP)]
        second = minute(at, [(key(at, "a"), count(4)), (key(at), count(2))], gone=gone)
        for _ in range(2):
            await store.write_sums(second)
        found = await self.find(store, MINUTE, [at])
        self.assertEqual(found.sums, {("a", at): count(4), ("", at): count(2)})
        self.assertEqual(self.rows(), [(1, 60, "", "one", 2), (1, 60, "a", "one", 4)])

    async def test_instances_have_rows_of_their_own(self) -> None:
        one, two = self.open_store(), self.open_store()
        at = floor(await self.now(one), MINUTE)
        for store, instance, gone in ((one, "one", []), (two, "two", []), (two, "two", ["a"])):
            rows = [] if gone else [(key(at, "a"), count(3))]
            sums = minute(at, rows, instance, [key(at, path) for path in gone])
            await store.write_sums(sums)
        self.assertEqual(self.rows(), [(1, 60, "a", "one", 3)])

    async def test_series(self) -> None:
        """What a query's group tells apart, what its filters leave out, and its steps."""
        store = self.open_store()
        at = floor(await self.now(store), HOUR)
        times = [at, at + MINUTE, at + 5 * MINUTE]
        for time in times:
            rows = [
                (key(time, path, result, endpoint, scope=scope), count(1))
                for scope in Scope
                for path in (("a", "b") if scope is Scope.PATH else ("",))
                for result in (Result.SUCCEEDED, Result.SKIPPED)
                for endpoint in ("default", "billing")
            ]
            await store.write_sums(minute(time, rows))
        for group, endpoint, path, expected in (
            (None, None, None, {"": 4}),
            (None, "billing", None, {"": 2}),
            (Group.RESULT, None, None, {"succeeded": 2, "skipped": 2}),
            (Group.ENDPOINT, None, None, {"default": 2, "billing": 2}),
            (Group.PATH, None, None, {"a": 4, "b": 4}),
            (Group.PATH, "billing", None, {"a": 2, "b": 2}),
            (Group.RESULT, "billing", "a", {"succeeded": 1, "skipped": 1}),
            (None, "billing", "nobody's", {}),
        ):
            found = await self.find(
                store, MINUTE, times, group, endpoint, path, query_step=5 * MINUTE
            )
            self.assertEqual(
                {name: counted.runs for (name, when), counted in found.sums.items() if when == at},
                {name: 2 * runs for name, runs in expected.items()},
                (group, endpoint, path),
            )
            last = {name: each.runs for (name, when), each in found.sums.items() if when != at}
            self.assertEqual(last, expected)

    async def test_no_more_than_the_limit(self) -> None:
        """P10: nothing is given of more rows than were asked for."""
        store = self.open_store()
        at = floor(await self.now(store), MINUTE)
        await store.write_sums(minute(at, [(key(at, f"p{n}"), count(1)) for n in range(6)]))
        found = await self.find(store, MINUTE, [at], limit=5)
        self.assertEqual((found.sums, found.is_whole), ({}, False))
        self.assertTrue((await self.find(store, MINUTE, [at], limit=6)).is_whole)

    async def test_what_limited_callers_see(self) -> None:
        """P12: the sums of paths within the limits, and the rest of no path that is not."""
        store = self.open_store()
        at = floor(await self.now(store), MINUTE)
        rows: list[tuple[SumKey, Sum]] = []
        for endpoint in ("default", "billing", "none"):
            of_endpoint = 0
            for path in ("", "a", "a/b", "ab", "b", "x/1", "ö/🐰"):
                runs = self.random.randrange(1, 1000)
                of_endpoint += runs
                rows.append((key(at, path, endpoint=endpoint), count(runs)))
            rows.append((key(at, endpoint=endpoint, scope=Scope.ENDPOINT), count(of_endpoint)))
        await store.write_sums(minute(at, rows))
        endpoints = ["default", "billing", "none"]
        for _ in range(60):
            limits = some_limits(self.random)
            asked: Sequence[Sequence[str | None]] = (
                [None, None, "a", "a/b", "x/1"],
                [None, None, "billing", "default", "none"],
            )
            wanted, of = map(self.random.choice, asked)
            group = self.random.choice([None, *Group])
            query = StatsQuery(at, at + MINUTE, MINUTE, group, of, wanted)
            series = await read_series(store, reactor, query, endpoints, limits)
            by_path = query.scope is Scope.PATH or any(
                limits.prefixes(each) for each in ([of] if of else endpoints)
            )
            expected: dict[str, int] = {}
            for each, counted in rows:
                if (
                    each.scope is (Scope.PATH if by_path else Scope.ENDPOINT)
                    and limits.have(each.path, each.endpoint)
                    and wanted in (None, each.path)
                    and of in (None, each.endpoint)
                ):
                    name = query.series(each.endpoint, each.path, each.result)
                    expected[name] = expected.get(name, 0) + counted.runs
            found = {name: sum(p.runs for p in points) for name, points in series.points.items()}
            self.assertEqual(found, expected, (limits, query))

    async def test_rows_of_others(self) -> None:
        """P6: a result that nobody knows is left out, and so is a histogram that can't be read."""
        store = self.open_store()
        at = floor(await self.now(store), MINUTE)
        await store.write_sums(minute(at, [(key(at, path), count(2)) for path in "ab"]))
        self.sql("UPDATE dalga_stats SET result = 99 WHERE path = %s", (self.key("a"),))
        self.sql("UPDATE dalga_stats SET lateness = 'often' WHERE path = %s", (self.key("b"),))
        found = await self.find(store, MINUTE, [at])
        self.assertEqual({name: each.runs for (name, _), each in found.sums.items()}, {"b": 2})
        self.assertEqual(found.sums["b", at].lateness.text(), "")

    async def test_many_rows(self) -> None:
        """A minute of the longest paths is written and read."""
        store = self.open_store()
        at = floor(await self.now(store), MINUTE)
        rows = [(key(at, f"{'🙂' * 250}{n}"), count(1)) for n in range(707)]
        await store.write_sums(minute(at, rows))
        found = await self.find(store, MINUTE, [at])
        self.assertEqual(len(found.sums), 707)


@each_engine(globals())
class FoldingTests(StatsTestCase):
    """What becomes of old sums."""

    async def fold_all(self, store: JobsTable, limit: int = 100) -> int:
        """:return: how many sums were folded, in all."""
        total = 0
        while found := await store.fold_sums(limit):
            total += found
        return total

    async def test_minutes_become_hours(self) -> None:
        """Those of a day's last hour stay on that day; what is not old stays as it is."""
        store = self.open_store()
        now = await self.now(store)
        midnight = floor(now - MINUTES_KEPT - 2 * DAY, DAY)
        old = floor(now - MINUTES_KEPT, HOUR)
        for at, path, runs, instance in (
            (midnight - MINUTE, "a", 1, "one"),
            (midnight - HOUR, "a", 2, "one"),
            (midnight - MINUTE, "a", 4, "two"),
            (midnight, "a", 8, "one"),
            (midnight + MINUTE, ODD, 16, "one"),
            (old, "a", 32, "one"),
        ):
            self.write_old(at, path, runs, instance)
        self.assertEqual(await self.fold_all(store), 5)
        hours = [midnight - HOUR, midnight]
        found = await self.find(store, HOUR, hours)
        self.assertEqual(
            found.sums,
            {
                ("a", midnight - HOUR): count(7),
                ("a", midnight): count(8),
                (ODD, midnight): count(16),
            },
        )
        self.assertEqual(
            self.rows(),
            [
                (1, 60, "a", "one", 32),
                *sorted([(1, 3600, "a", "", 7), (1, 3600, "a", "", 8), (1, 3600, ODD, "", 16)]),
            ],
        )

    async def test_in_pieces(self) -> None:
        """An hour whose minutes are folded in several transactions; both scopes."""
        store = self.open_store()
        hour = floor(await self.now(store) - MINUTES_KEPT - DAY, HOUR)
        for number in range(10):
            for path in "abc":
                self.write_old(hour + number * MINUTE, path, 1)
        self.sql("UPDATE dalga_stats SET scope = 0, path = '' WHERE path = %s", (self.key("c"),))
        self.assertEqual(await store.fold_sums(5), 5)
        self.assertEqual(await self.fold_all(store, 5), 25)
        self.assertEqual(
            self.rows(), [(0, 3600, "", "", 10), (1, 3600, "a", "", 10), (1, 3600, "b", "", 10)]
        )

    async def test_a_minute_with_more_than_the_limit(self) -> None:
        """P7: a transaction folds no more, however many sums a minute has."""
        store = self.open_store()
        at = floor(await self.now(store) - MINUTES_KEPT - DAY, HOUR)
        for number in range(8):
            self.write_old(at, f"p{number}", 1)
            self.write_old(at + MINUTE, f"p{number}", 1)
        self.assertEqual([await store.fold_sums(5) for _ in range(5)], [5, 5, 5, 1, 0])
        self.assertEqual({runs for *_, runs in self.rows()}, {2})

    async def test_two_instances_fold(self) -> None:
        """P6: at the same time. Each sum is folded once."""
        one, two = self.open_store(), self.open_store()
        hour = floor(await self.now(one) - MINUTES_KEPT - DAY, HOUR)
        for number in range(30):
            self.write_old(hour + number * MINUTE, "a", 1, "one")
            self.write_old(hour + number * MINUTE, "a", 1, "two")
        found = await gatherResults(
            [Deferred.fromCoroutine(self.fold_all(store, 7)) for store in (one, two)]
        )
        # Each may have left the rest to the other one.
        self.assertEqual(sum(found) + await self.fold_all(one), 60)
        self.assertEqual(self.rows(), [(1, 3600, "a", "", 60)])

    async def test_octets_of_others(self) -> None:
        """P6: what SQLite has as octets, and not as text, is folded and removed as any other."""
        if self.engine != "sqlite":
            return
        store = self.open_store()
        hour = floor(await self.now(store) - MINUTES_KEPT - DAY, HOUR)
        for path in "abc":
            self.write_old(hour, path, 1)
        self.sql("UPDATE dalga_stats SET path = X'61' WHERE path = 'a'")
        self.sql("UPDATE dalga_stats SET instance = X'61' WHERE path = 'b'")
        self.assertEqual(await self.fold_all(store, 1), 3)
        self.assertEqual([path for _, _, path, *_ in self.rows()], ["a", "b", "c"])

    async def test_rows_of_others(self) -> None:
        """P6: a time that is none, and numbers that are absurd, keep no sum from being folded."""
        store = self.open_store()
        hour = floor(await self.now(store) - MINUTES_KEPT - DAY, HOUR)
        for number, path in enumerate("abc"):
            self.write_old(hour + number * MINUTE, path, 1)
        ignore, zero = ("OR IGNORE", "") if self.engine == "sqlite" else ("IGNORE", "0000-00-00")
        self.sql(f"UPDATE {ignore} dalga_stats SET at = '{zero}' WHERE path = %s", (self.key("a"),))
        self.sql(
            "UPDATE dalga_stats SET runs = 9223372036854775807 WHERE path = %s", (self.key("b"),)
        )
        for scope in Scope:
            await store.oldest_sums(scope)
        self.assertEqual(await self.fold_all(store), 3)
        self.assertEqual(self.rows(), [(1, 3600, "b", "", 0), (1, 3600, "c", "", 1)])

    async def test_an_instance_that_was_asleep(self) -> None:
        """It does not write again what was folded meanwhile."""
        store = self.open_store()
        now = await self.now(store)
        for at in (floor(now - MINUTES_KEPT - DAY, MINUTE), floor(now - 30 * HOUR, MINUTE)):
            await store.write_sums(minute(at, [(key(at, "a"), count(1))]))
        self.assertEqual(self.rows(), [])
        at = floor(now - 20 * HOUR, MINUTE)
        await store.write_sums(minute(at, [(key(at, "a"), count(1))]))
        self.assertEqual(len(self.rows()), 1)

    async def test_old_hours_are_removed(self) -> None:
        """A few at a time, the oldest first; what is not old stays."""
        store = self.open_store()
        now = await self.now(store)
        old, kept = floor(now - HOURS_KEPT, HOUR) - HOUR, floor(now - HOURS_KEPT, HOUR)
        for at in (old, old - HOUR, kept):
            for path in ("a", "b", ODD):
                self.write_old(at, path, 1)
        self.assertEqual(await store.forget_sums(2), 0)
        await self.fold_all(store)
        removed = [await store.forget_sums(2) for _ in range(5)]
        self.assertEqual(removed, [2, 2, 2, 0, 0])
        found = await self.find(store, HOUR, [old, kept])
        self.assertEqual({at for _, at in found.sums}, {kept})
        self.assertEqual(len(found.sums), 3)

    async def test_the_oldest(self) -> None:
        """When the oldest sums begin, of minutes and of hours."""
        store = self.open_store()
        self.assertEqual(await store.oldest_sums(Scope.PATH), (None, None))
        now = await self.now(store)
        old, at = floor(now - MINUTES_KEPT - DAY, HOUR), floor(now - HOUR, MINUTE)
        self.write_old(old, "a", 1)
        await self.fold_all(store)
        self.write_old(at, "a", 1)
        self.write_old(at + MINUTE, "b", 1)
        self.assertEqual(await store.oldest_sums(Scope.PATH), (at, old))
        self.assertEqual(await store.oldest_sums(Scope.ENDPOINT), (None, None))


@each_engine(globals(), only=("mariadb", "mysql"))
class LockTests(StatsTestCase):
    """P7: nobody waits for an instance that folds."""

    async def test_the_oldest_row_is_locked(self) -> None:
        """By another instance: the folding is left to that one."""
        store = self.open_store()
        hour = floor(await self.now(store) - MINUTES_KEPT - DAY, HOUR)
        for path in "abc":
            self.write_old(hour, path, 1)
        with closing(self.connect()) as stranger:
            cursor = stranger.cursor()
            cursor.execute(
                "SELECT * FROM dalga_stats WHERE scope = 1 AND step = 60 ORDER BY at, endpoint,"
                " path, result, instance LIMIT 1 FOR UPDATE"
            )
            self.assertEqual(await store.fold_sums(9).addTimeout(1, reactor), 0)
            stranger.rollback()
        self.assertEqual(await store.fold_sums(9), 3)


@each_engine(globals())
class CostTests(StatsTestCase, LargeTableTestCase):
    """What of a large table is read."""

    def fill_minutes(self, first: datetime, minutes: int, paths: int) -> None:
        """Rows of the scope PATH."""
        rows = [
            (
                (first + number * MINUTE).strftime("%Y-%m-%d %H:%M:%S.%f"),
                *(self.key(text) for text in ("default", f"p{path}", "one")),
            )
            for number in range(minutes)
            for path in range(paths)
        ]
        places = "?, ?, ?" if self.engine == "sqlite" else "%s, %s, %s"
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            cursor.executemany(
                "INSERT INTO dalga_stats (scope, step, at, endpoint, path, result, instance, runs,"
                f" attempts, lateness, duration) VALUES (1, 60, {places}, 0,"
                f" {places.rpartition(', ')[2]}, 1, 1, '', '')",
                rows,
            )
            connection.commit()

    async def test_reads(self) -> None:
        """P10: no statement goes through rows that it does not give."""
        store = self.open_store()
        first = floor(await self.now(store), HOUR) - 10 * HOUR
        self.fill_minutes(first, 400, 40)
        sql, dialect = store._stats._sql, store._dialect
        times = [dialect.instant(first + number * MINUTE) for number in range(300)]
        where: dict[str, object] = {"scope": 1, "step": 60}
        named: dict[str, object] = {"endpoint": dialect.key("default"), "path": dialect.key("p7")}
        before = {"before": dialect.instant(first + HOUR)}
        hour = {"at": times[0], "endpoint": dialect.key("default")}
        prefix = {"endpoint": named["endpoint"], "prefix": dialect.key("p7"), "prefix_end": b"p8"}
        of_prefix = sql.some(frozenset({"endpoint", "prefix"}))
        some, a_path = sql.some(frozenset()), sql.some(frozenset(named))
        for select, rows, values, read in (
            (some, times[:3], {"limit": 500}, 140),
            (some, times, {"limit": 100}, 210),
            (a_path, times, {"limit": 500, **named}, 700),
            (of_prefix, times, {"limit": 500, **prefix}, 700),
            (sql.oldest_rows, [], {"limit": 100, **before}, 110),
            (sql.oldest_row, [], {"limit": 1, **before}, 10),
            (sql.hours, [dialect.key("p1"), dialect.key("p2")], hour, 10),
        ):
            bound = select.statement.bound(rows, {**where, **values})
            self.check_cost(*bound, rows=read)
        bound = sql.oldest.statement.bound([], {"scope": 1, "minute": 60, "hour": 3600})
        self.check_cost(*bound, rows=10)
        bound = sql.remove_oldest.bound([], {"limit": 100, **where, **before})
        self.check_cost(*bound, rows=350, sorted=100)
