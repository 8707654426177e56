"""
The SQL of lists of runs: the ranges of an index that a list goes through, and what has to be true
of a row. `dalga.model.runlist` says which index it is, `dalga.store.history` makes pages of the
rows. Nothing is executed here.

A slice of a list is made of the keys of rows, by the index alone, some of each shelf. An example,
of failures and successes of a path::

    SELECT failed, at, job WHERE pathkey = 7 AND failed = 1 ORDER BY at DESC, job DESC LIMIT 100
    UNION ALL
    SELECT failed, at, job WHERE pathkey = 7 AND failed = 0 ORDER BY at DESC, job DESC LIMIT 100
    ORDER BY at DESC, failed DESC, job DESC LIMIT 100

The rows are looked up by these keys, and left out if another filter does not apply to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from dalga.model.record import Result, Shelf, job_key, path_key
from dalga.model.runlist import RunDriver, RunFilters, RunPlace, ShelfRange
from dalga.store.dialect import Dialect
from dalga.store.parameters import Select, columns
from dalga.store.ranges import ANY, Bound, Condition, all_of, end_of, of_endpoint, within
from dalga.store.rows import version_at
from dalga.store.schema import MAX_LEASE, RUNS, TAGS


class RecordRow(NamedTuple):
    """The columns of a record, but for the answer that is kept of a run."""

    failed: int
    at: int
    job: int
    run: Any
    path: Any
    body: Any
    endpoint: Any
    cause: Any
    result: Any
    status: Any
    kind: Any
    scheduled: Any
    claimed: Any
    started: Any
    ended: Any
    lateness: Any
    attempts: Any
    instance: Any
    error: Any
    more: Any


class OpenRow(NamedTuple):
    """A record on the shelf OPEN, and when the row of its job is due."""

    record: RecordRow
    due: Any
    #: 1 if the row is under a lease.
    leased: int

    @classmethod
    def read(cls, *found: Any) -> OpenRow:
        """Of the columns, the record's in front of the other two."""
        return cls(RecordRow(*found[:-2]), *found[-2:])


class WholeRecordRow(NamedTuple):
    """A record, with the answer that is kept."""

    record: RecordRow
    answer: Any

    @classmethod
    def read(cls, *found: Any) -> WholeRecordRow:
        """Of the columns, the record's in front of the other one."""
        return cls(RecordRow(*found[:-1]), found[-1])


class RunningRow(NamedTuple):
    """The columns of a job's row that tell about the run that is under way."""

    id: int
    path: Any
    body: Any
    options: Any
    scheduled: Any
    run: Any
    started: Any
    attempts: Any
    cause: Any


class EndOfSlice(NamedTuple):
    """The last row of a slice."""

    failed: int
    at: int
    job: int


#: The columns of `RecordRow`, in all statements.
RECORD = ", ".join(f"kept.{name} AS {name}" for name in RecordRow._fields)

#: 1 for a job's row that is under a lease, else 0.
LEASED = "CASE WHEN held.token IS NOT NULL AND held.due > %(now)s THEN 1 ELSE 0 END"

#: The index of each driver, and the parts of the key before the shelf.
INDEXES = {
    RunDriver.JOB: ("jobruns", "jobkey = %(key)s AND "),
    RunDriver.PATH: ("pathruns", "pathkey = %(key)s AND "),
    RunDriver.SHELF: ("PRIMARY", ""),
}


class RunRanges:
    """
    The statements of a list's pages.

    :param now: the database's time.
    """

    def __init__(self, dialect: Dialect, filters: RunFilters, now: datetime) -> None:
        self._dialect = dialect
        self._filters = filters
        self._now = now
        self._table = dialect.named(RUNS)
        index, self._of_key = INDEXES[filters.driver]
        self._index = dialect.by_index(index)
        self._primary = dialect.by_index("PRIMARY")
        self._key: dict[str, object] = {}
        if filters.path is not None:
            path, body = filters.path, filters.body
            self._key = {"key": path_key(path) if body is None else job_key(path, body)}
        self._condition = all_of(self._conditions())

    def rows(self, ranges: Sequence[ShelfRange], size: int, limit: int) -> Bound[Any]:
        """
        Rows of ranges that are to be shown, in the order of the list: `OpenRow`s, or `RecordRow`s.

        :param ranges: either that of the shelf OPEN, or some of the others.
        :param size: how many rows of the ranges are looked at, at most.
        :param limit: how many rows are given, at most.
        """
        slice = self._slice(ranges)
        condition = self._condition
        of_jobs, joined = "", ""
        if ranges[0].shelf is Shelf.OPEN:
            condition &= Condition("held.run = kept.run", {})
            of_jobs = f", held.due AS due, {LEASED} AS leased"
            joined = f"""
                {self._dialect.then_join} {self._dialect.table} AS held{self._dialect.by_id}
                ON held.id = of_job"""
        else:
            condition &= self._of_results(ranges)
        return self._bound(
            OpenRow.read if joined else RecordRow,
            f"""
            SELECT {RECORD}{of_jobs}
            FROM ({slice.sql} LIMIT %(size)s) AS slice
            {self._dialect.then_join} {self._table} AS kept{self._primary}
            ON kept.failed = on_shelf AND kept.at = at_time AND kept.job = of_job
            {joined}
            WHERE {condition.sql}
            ORDER BY at_time DESC, on_shelf DESC, of_job DESC LIMIT %(limit)s
            """,
            slice & condition,
            size=size,
            limit=limit,
        )

    def end(self, ranges: Sequence[ShelfRange], size: int) -> Bound[EndOfSlice]:
        """The last row of the first `size` rows of the ranges; none if they have fewer."""
        slice = self._slice(ranges)
        bound: Bound[EndOfSlice] = self._bound(
            EndOfSlice,
            f"SELECT on_shelf, at_time, of_job FROM ({slice.sql} LIMIT 1 OFFSET %(last)s) AS slice",
            slice,
            size=size,
            last=size - 1,
        )
        return bound

    def _slice(self, ranges: Sequence[ShelfRange]) -> Condition:
        """A SELECT of the keys of rows, in the order of the list. A LIMIT is to follow."""
        parts = [self._part(number, each) for number, each in enumerate(ranges)]
        values = {name: value for part in parts for name, value in part.values.items()}
        if len(parts) == 1:
            return Condition(parts[0].sql, values)
        # The names of the parts' own columns are of no more use behind a UNION.
        all_parts = " UNION ALL ".join(
            f"SELECT * FROM ({part.sql} LIMIT %(size)s) AS part" for part in parts
        )
        return Condition(
            f"""
            SELECT on_shelf, at_time, of_job FROM ({all_parts}) AS parts
            ORDER BY at_time DESC, on_shelf DESC, of_job DESC""",
            values,
        )

    def _part(self, number: int, range: ShelfRange) -> Condition:
        """A SELECT of the keys of rows of one shelf, in the order of the list."""
        where = [Condition(f"failed = {range.shelf:d}", self._key)]
        if range.until is not None:
            where.append(Condition(f"at <= %(until{number})s", {f"until{number}": range.until}))
        if range.below is not None:
            where.append(
                Condition(
                    f"(at < %(until{number})s OR job < %(below{number})s)",
                    {f"below{number}": range.below},
                )
            )
        since, until = self._filters.since, self._filters.until
        if range.shelf is not Shelf.OPEN and since is not None:
            where.append(Condition("at >= %(since)s", {"since": version_at(since)}))
        if range.shelf is not Shelf.OPEN and until is not None:
            where.append(Condition("at < %(before)s", {"before": version_at(until)}))
        found = all_of(where)
        return Condition(
            f"""
            SELECT failed AS on_shelf, at AS at_time, job AS of_job
            FROM {self._table}{self._index}
            WHERE {self._of_key}{found.sql} ORDER BY at DESC, job DESC""",
            found.values,
        )

    def place(self, row: RecordRow | EndOfSlice) -> RunPlace:
        """Where a row is in the order of the list."""
        return RunPlace(Shelf(row.failed), row.at, row.job)

    # Runs under way on their first attempt, which have no record

    def running(self, size: int, limit: int) -> Bound[RunningRow]:
        """
        The rows of jobs that are under a lease, whose run has no record on the shelf OPEN: those
        that were claimed last in front.

        :param size: how many rows are looked at, at most.
        :param limit: how many rows are given, at most.
        """
        dialect, filters = self._dialect, self._filters
        where = [
            Condition("held.token IS NOT NULL AND held.run IS NOT NULL", {}),
            Condition(
                f"""NOT EXISTS (
                    SELECT 1 FROM {self._table} AS kept{self._primary}
                    WHERE kept.failed = {Shelf.OPEN:d} AND kept.at = 0 AND kept.job = held.id
                )""",
                {},
            ),
        ]
        if filters.path is not None and filters.body is not None:
            key = {"path": dialect.key(filters.path), "body": dialect.key(filters.body)}
            looked_at = Condition(
                f"""
                SELECT id AS looked_at FROM {dialect.table}{dialect.by_key}
                WHERE path = %(path)s AND body = %(body)s AND due > %(now)s LIMIT %(size)s""",
                key,
            )
        else:
            looked_at = Condition(
                f"""
                SELECT id AS looked_at FROM {dialect.table}{dialect.by_due}
                WHERE due > %(now)s AND due <= %(last_lease)s ORDER BY due LIMIT %(size)s""",
                {"last_lease": dialect.instant(self._now + MAX_LEASE)},
            )
            where += self._of_names("held", filters.path)
        has_endpoint = of_endpoint("held.options")
        if filters.endpoint is not None:
            where.append(has_endpoint(filters.endpoint, "endpoint"))
        if filters.limits is not None:
            where.append(within(dialect, filters.limits, "held.path", has_endpoint))
        condition = all_of([*where, *self._of_tags("held")])
        return self._bound(
            RunningRow,
            f"""
            SELECT {columns(RunningRow)}
            FROM ({looked_at.sql}) AS slice
            {dialect.then_join} {dialect.table} AS held{dialect.by_id} ON held.id = looked_at
            WHERE {condition.sql}
            ORDER BY held.started DESC, held.id DESC LIMIT %(limit)s
            """,
            looked_at & condition,
            size=size,
            limit=limit,
        )

    # What has to be true of a row

    def _conditions(self) -> Iterator[Condition]:
        """What the ranges do not see to already, but for results."""
        filters = self._filters
        # The key of an index may be that of another path, too.
        yield from self._of_names("kept", filters.path)
        if filters.endpoint is not None:
            yield self._has_endpoint(filters.endpoint, "endpoint")
        if filters.limits is not None:
            yield within(self._dialect, filters.limits, "kept.path", self._has_endpoint)
        if filters.statuses is not None:
            ranges = filters.statuses.ranges
            each = [f"kept.status BETWEEN {first:d} AND {last:d}" for first, last in ranges]
            yield Condition(f"({' OR '.join(each)})", {})
        if filters.error_kinds:
            codes = ", ".join(str(kind.code) for kind in sorted(filters.error_kinds))
            yield Condition(f"kept.kind IN ({codes})", {})
        yield from self._of_tags("kept")

    def _has_endpoint(self, endpoint: str, name: str) -> Condition:
        """Of a record: see `dalga.store.ranges.OfEndpoint`."""
        return Condition(f"kept.endpoint = %({name})s", {name: self._dialect.key(endpoint)})

    def _of_results(self, ranges: Sequence[ShelfRange]) -> Condition:
        results = self._filters.results
        shelves = {range.shelf for range in ranges}
        if not results or results >= {each for each in Result if each.shelf in shelves}:
            return ANY
        codes = ", ".join(str(result.code) for result in sorted(results))
        return Condition(f"kept.result IN ({codes})", {})

    def _of_names(self, row: str, path: str | None) -> Iterator[Condition]:
        """:param row: the name of a table that has a path and a body."""
        key, prefix, body = self._dialect.key, self._filters.prefix, self._filters.body
        if path is not None:
            yield Condition(f"{row}.path = %(path)s", {"path": key(path)})
        if prefix is not None:
            yield Condition(f"{row}.path >= %(prefix)s", {"prefix": key(prefix)})
            octets = self._dialect.octets("prefix_end", False)
            yield Condition(f"{row}.path < {octets}", {"prefix_end": end_of(prefix)})
        if body is not None:
            yield Condition(f"{row}.body = %(body)s", {"body": key(body)})

    def _of_tags(self, row: str) -> Iterator[Condition]:
        """
        Of jobs that have one of the tags now. By the name of the job, as a job that was deleted and
        scheduled anew has another row. What the job is now must be within the limits, as its runs.
        """
        tags, limits = sorted(self._filters.tags), self._filters.limits
        owner, of_owner = "", ANY
        if tags and limits is not None and limits.by_endpoint:
            dialect = self._dialect
            owner = f"""
                    {dialect.then_join} {dialect.table} AS owner{dialect.by_id}
                    ON owner.id = named.id"""
            of_owner = within(dialect, limits, "owner.path", of_endpoint("owner.options"), "owner")
        if tags:
            named = ", ".join(f"%(tag{number})s" for number, _ in enumerate(tags))
            # COUNT, as a server would make a join of EXISTS, and go through all rows of a tag.
            yield Condition(
                f"""(
                    SELECT COUNT(*) FROM {self._dialect.named(TAGS)} AS named{self._dialect.by_tag}
                    {owner}
                    WHERE named.tag IN ({named})
                    AND named.path = {row}.path AND named.body = {row}.body AND {of_owner.sql}
                ) > 0""",
                {f"tag{number}": self._dialect.key(tag) for number, tag in enumerate(tags)}
                | of_owner.values,
            )

    def _bound(self, row: Any, sql: str, condition: Condition, **values: object) -> Bound[Any]:
        statement = self._dialect.prepare(sql)
        now = self._dialect.instant(self._now)
        given = {**condition.values, **self._key, **values, "now": now}
        return Bound(Select(row, statement), {name: given[name] for name in statement.names})
