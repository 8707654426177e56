"""
Sums of runs: written by each instance, folded from minutes into hours, read for statistics. What a
sum is, `dalga.model.statistics` says.

A row belongs to one instance, which alone writes it, each time as a whole. Folding adds up the rows
of all instances to rows of hours, whose instance is empty, and removes them in the same
transaction. What always holds: each run is in one row of each scope. A row that was folded is not
written again, as no row is written whose minute is older than `WRITTEN_WITHIN`: an instance may
have been asleep for days between two writes.

The oldest row of a scope is the mutex of folding, as in `dalga.store.pruning`: an instance that
can't lock the oldest row leaves the folding to the instance that has locked it. So no two instances
add to one row of an hour at the same time. On a cluster an instance may not see the lock. Then the
later COMMIT is refused, and the transaction runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred

from dalga.model.record import result_of_code
from dalga.model.statistics import (
    HOUR,
    HOURS_KEPT,
    MINUTE,
    MINUTES_KEPT,
    MinuteSums,
    Scope,
    Sum,
    SumKey,
    by_hour,
    floor,
)
from dalga.store import OldestSums, SumsAsked, SumsFound
from dalga.store.dialect import Cursor, Dialect
from dalga.store.parameters import R, Select, Statement, columns, in_parts
from dalga.store.ranges import end_of
from dalga.store.schema import STATS
from dalga.store.transactions import Conflict, Transactions
from dalga.store.values import text_of

#: Rows of minutes that are older than this are not written any more.
WRITTEN_WITHIN = timedelta(days=1)

#: What one statement takes of rows, in octets. The driver quotes them, which may make them longer.
WRITTEN = 2**19

#: A row of more runs, or attempts, than this was not written by an instance.
MOST = 10**12

_SECOND = timedelta(seconds=1)
_EARLIEST = datetime.min.replace(tzinfo=UTC)

K = TypeVar("K")


class StatsRow(NamedTuple):
    """A row of the table."""

    scope: Any
    step: Any
    at: Any
    endpoint: Any
    path: Any
    result: Any
    instance: Any
    runs: Any
    attempts: Any
    lateness: Any
    duration: Any


class StatsKey(NamedTuple):
    """The row of an instance, in its primary key but for what is the same for many rows."""

    endpoint: Any
    path: Any
    result: Any


class OldestRow(NamedTuple):
    """When the oldest rows are of; None where there are none."""

    minute: Any
    hour: Any


class CountedRow(NamedTuple):
    """What a point of a series is made of."""

    at: Any
    endpoint: Any
    path: Any
    result: Any
    runs: Any
    attempts: Any
    lateness: Any
    duration: Any


class Stats:
    """:param lane: the transactions of the API: the scheduler's go first (P7)."""

    def __init__(self, dialect: Dialect, lane: Transactions) -> None:
        self._dialect = dialect
        self._lane = lane
        self._sql = _Statements(dialect)

    def write(self, sums: MinuteSums) -> Deferred[None]:
        """See `Store.write_sums`."""

        def work(cursor: Cursor, now: datetime, since: float) -> None:
            if sums.at < now - WRITTEN_WITHIN:
                return
            if sums.gone:
                keys = [self._key(key) for key in sums.gone]
                self._sql.remove.execute(
                    cursor,
                    keys,
                    scope=int(Scope.PATH),
                    step=_seconds(MINUTE),
                    at=self._dialect.instant(sums.at),
                    instance=self._dialect.key(sums.instance),
                )
            self._upsert(cursor, sums.rows, sums.instance)

        return self._lane.run(work, "sum")

    def fold(self, limit: int) -> Deferred[int]:
        """See `Store.fold_sums`."""

        def work(cursor: Cursor, now: datetime, since: float) -> int:
            before = floor(now - MINUTES_KEPT, HOUR)
            found = 0
            for scope in Scope:
                if found < limit:
                    found += self._fold(cursor, scope, before, limit - found)
            return found

        return self._lane.run(work, "fold")

    def _fold(self, cursor: Cursor, scope: Scope, before: datetime, limit: int) -> int:
        """
        Fold the oldest rows of minutes.

        :param before: no row of this time or later is folded.
        :param limit: how many rows are folded at most.
        :return: how many rows were folded; 0 also while another instance folds.
        """
        where = {
            "scope": int(scope),
            "step": _seconds(MINUTE),
            "before": self._dialect.instant(before),
        }
        rows = self._sql.oldest_rows.fetch(cursor, **where, limit=limit)
        if not rows:
            return 0
        if not self._dialect.one_writer:
            oldest = self._sql.oldest_row.fetch(cursor, **where, limit=1)
            if oldest != rows[:1]:
                return 0  # another instance has locked the oldest row
        folded = by_hour(_sums(rows, self._dialect.read_instant))
        if self._sql.remove_oldest.execute(cursor, **where, limit=len(rows)) != len(rows):
            raise Conflict("another instance has folded the rows")
        for key, counted in self._read(cursor, folded):
            folded[key].add(counted)
        self._upsert(cursor, folded.items(), "")
        return len(rows)

    def _read(self, cursor: Cursor, keys: Collection[SumKey]) -> list[tuple[SumKey, Sum]]:
        """The rows of hours that are there, of those with these keys."""
        paths: dict[tuple[Scope, datetime, str], set[str]] = {}
        for key in keys:
            paths.setdefault((key.scope, key.at, key.endpoint), set()).add(key.path)
        found: list[tuple[SumKey, Sum]] = []
        for (scope, at, endpoint), named in paths.items():
            rows = self._sql.hours.fetch(
                cursor,
                [self._dialect.key(path) for path in sorted(named)],
                scope=int(scope),
                step=_seconds(HOUR),
                at=self._dialect.instant(at),
                endpoint=self._dialect.key(endpoint),
            )
            found += _sums(rows, self._dialect.read_instant)
        return [(key, counted) for key, counted in found if key in keys]

    def forget(self, limit: int) -> Deferred[int]:
        """See `Store.forget_sums`."""

        def work(cursor: Cursor, now: datetime, since: float) -> int:
            before = self._dialect.instant(floor(now - HOURS_KEPT, HOUR))
            removed = 0
            for scope in Scope:
                if removed < limit:
                    removed += self._sql.remove_oldest.execute(
                        cursor,
                        scope=int(scope),
                        step=_seconds(HOUR),
                        before=before,
                        limit=limit - removed,
                    )
            return removed

        return self._lane.run(work, "clean")

    def oldest(self, scope: Scope) -> Deferred[OldestSums]:
        """See `Store.oldest_sums`."""

        def work(cursor: Cursor, now: datetime, since: float) -> OldestSums:
            steps = {"minute": _seconds(MINUTE), "hour": _seconds(HOUR)}
            (row,) = self._sql.oldest.fetch(cursor, scope=int(scope), **steps)
            return OldestSums(*map(self._instant, row))

        return self._lane.run(work, "stats")

    def _instant(self, value: object) -> datetime | None:
        """A time, or the earliest of all for what is none; None for NULL."""
        if value is None:
            return None
        try:
            return self._dialect.read_instant(value)
        except ValueError:
            return _EARLIEST

    def sums(self, asked: SumsAsked) -> Deferred[SumsFound]:
        """See `Store.sums`."""
        query = asked.query

        def work(cursor: Cursor, now: datetime, since: float) -> SumsFound:
            given = {"endpoint": asked.endpoint, "path": query.path}
            values = {
                name: self._dialect.key(value) for name, value in given.items() if value is not None
            }
            if asked.prefix:
                values["prefix"] = self._dialect.key(asked.prefix)
            ends = {"prefix_end": end_of(asked.prefix)} if asked.prefix else {}
            rows = self._sql.some(frozenset(values)).fetch(
                cursor,
                [self._dialect.instant(at) for at in asked.times],
                **ends,
                scope=int(asked.scope),
                step=_seconds(asked.step),
                limit=asked.limit + 1,
                **values,
            )
            if len(rows) > asked.limit:
                return SumsFound({}, asked.limit, is_whole=False)
            # Many rows have the same time: it is read once.
            points: dict[object, datetime] = {}
            found: dict[tuple[str, datetime], Sum] = {}
            for row in rows:
                result = result_of_code(row.result)
                if result is None:
                    continue
                at = points.get(row.at)
                if at is None:
                    at = points[row.at] = floor(self._dialect.read_instant(row.at), query.step)
                whose = query.series(text_of(row.endpoint), text_of(row.path), result), at
                counted = found.get(whose)
                if counted is None:
                    counted = found[whose] = Sum()
                _add(counted, row)
            return SumsFound(found, len(rows), is_whole=True)

        return self._lane.run(work, "stats")

    def _upsert(self, cursor: Cursor, sums: Iterable[tuple[SumKey, Sum]], instance: str) -> None:
        rows = [self._row(key, counted, instance) for key, counted in sums]
        for part in in_parts(rows, _octets, WRITTEN):
            self._sql.upsert.execute(cursor, part)

    def _row(self, key: SumKey, counted: Sum, instance: str) -> StatsRow:
        return StatsRow(
            scope=int(key.scope),
            step=_seconds(key.step),
            at=self._dialect.instant(key.at),
            endpoint=self._dialect.key(key.endpoint),
            path=self._dialect.key(key.path),
            result=key.result.code,
            instance=self._dialect.key(instance),
            runs=counted.runs,
            attempts=counted.attempts,
            lateness=counted.lateness.text(),
            duration=counted.duration.text(),
        )

    def _key(self, key: SumKey) -> StatsKey:
        named = self._dialect.key(key.endpoint), self._dialect.key(key.path)
        return StatsKey(*named, key.result.code)


class _Statements:
    """The SQL of the table, each statement made once."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._table = dialect.named(STATS)
        # Left to itself, MySQL reads the whole table for what is in many ranges of the index.
        self._by_place = f"{self._table}{dialect.by_index('PRIMARY')}"
        self._some: dict[frozenset[str], Select[CountedRow]] = {}

    @cached_property
    def upsert(self) -> Statement:
        proposed = self._dialect.proposed
        values = ", ".join(f"%({name})s" for name in StatsRow._fields)
        return self._dialect.prepare(f"""
            INSERT INTO {self._table} ({columns(StatsRow)}) VALUES [({values}), ...]
            {self._dialect.on_conflict("scope, step, at, endpoint, path, result, instance")}
                runs = {proposed("runs")},
                attempts = {proposed("attempts")},
                lateness = {proposed("lateness")},
                duration = {proposed("duration")}
            """)

    @cached_property
    def remove(self) -> Statement:
        return self._dialect.delete_by_index(
            STATS,
            "PRIMARY",
            """
            scope = %(scope)s AND step = %(step)s AND at = %(at)s AND instance = %(instance)s
            AND ([endpoint = %(endpoint)s AND path = %(path)s AND result = %(result)s OR ...])
            """,
        )

    @cached_property
    def oldest_rows(self) -> Select[StatsRow]:
        """The oldest rows, locked. Rows that another session has locked are left out."""
        return self._oldest_rows(self._dialect.skip_locked)

    @cached_property
    def oldest_row(self) -> Select[StatsRow]:
        """The oldest rows, whoever has locked them."""
        return self._oldest_rows("")

    def _oldest_rows(self, lock: str) -> Select[StatsRow]:
        return self._select(
            StatsRow,
            f"""
            SELECT {columns(StatsRow)} FROM {self._by_place}
            WHERE scope = %(scope)s AND step = %(step)s AND at < %(before)s
            ORDER BY at, endpoint, path, result, instance LIMIT %(limit)s{lock}
            """,
        )

    @cached_property
    def hours(self) -> Select[StatsRow]:
        return self._select(
            StatsRow,
            f"""
            SELECT {columns(StatsRow)} FROM {self._by_place}
            WHERE scope = %(scope)s AND step = %(step)s AND at = %(at)s
            AND endpoint = %(endpoint)s AND path IN ([%(path)s, ...]) AND instance = ''
            """,
        )

    @cached_property
    def remove_oldest(self) -> Statement:
        return self._dialect.delete_first(
            STATS,
            "scope = %(scope)s AND step = %(step)s",
            ("at", "endpoint", "path", "result", "instance"),
            "at < %(before)s",
        )

    @cached_property
    def oldest(self) -> Select[OldestRow]:
        # A minimum behind equal parts of an index is one look-up.
        oldest = f"SELECT MIN(at) FROM {self._by_place} WHERE scope = %(scope)s AND step ="
        return self._select(
            OldestRow, f"SELECT ({oldest} %(minute)s) AS minute, ({oldest} %(hour)s) AS hour"
        )

    def some(self, names: frozenset[str]) -> Select[CountedRow]:
        """
        The rows of some times.

        :param names: which of the columns ``endpoint`` and ``path`` are compared, too; ``prefix``
            for the beginning of the path.
        """
        if names not in self._some:
            columns_of = sorted(names - {"prefix"})
            compared = "".join(f" AND {name} = %({name})s" for name in columns_of)
            if "prefix" in names:
                end = self._dialect.octets("prefix_end", False)
                compared += f" AND path >= %(prefix)s AND path < {end}"
            self._some[names] = self._select(
                CountedRow,
                f"""
                SELECT {columns(CountedRow)} FROM {self._by_place}
                WHERE scope = %(scope)s AND step = %(step)s AND at IN ([%(at)s, ...]) {compared}
                LIMIT %(limit)s
                """,
            )
        return self._some[names]

    def _select(self, row: Callable[..., R], sql: str) -> Select[R]:
        return Select(row, self._dialect.prepare(sql))


def _sums(
    rows: Iterable[StatsRow], read_instant: Callable[[object], datetime]
) -> list[tuple[SumKey, Sum]]:
    """
    The sums in rows. A row whose result nobody knows is of a later version, and left out; so is one
    whose time is none.
    """
    found = []
    for row in rows:
        result = result_of_code(row.result)
        if result is None:
            continue
        try:
            step, at = int(row.step) * _SECOND, read_instant(row.at)
        except ValueError:
            continue  # somebody's SQL (P6)
        named = text_of(row.endpoint), text_of(row.path)
        counted = Sum()
        _add(counted, row)
        found.append((SumKey(Scope(row.scope), step, at, *named, result), counted))
    return found


def _add(counted: Sum, row: StatsRow | CountedRow) -> None:
    """Count the runs of a row, too. What can't be read, or can't be, is left out (P6)."""
    try:
        if 0 <= row.runs <= MOST and 0 <= row.attempts <= MOST:
            counted.runs += row.runs
            counted.attempts += row.attempts
        counted.lateness.add_text(text_of(row.lateness))
        counted.duration.add_text(text_of(row.duration))
    except (ValueError, TypeError):
        pass


def _seconds(step: timedelta) -> int:
    return step // _SECOND


def _octets(row: StatsRow) -> int:
    """About how long a row is in a statement."""
    return 200 + len(row.endpoint) + len(row.path) + len(row.lateness) + len(row.duration)
