"""
The SQL of lists: the ranges of an index that a list goes through, and what has to be true of a row.

A list goes through its ranges one after the other, as MySQL makes no range of an OR, or of a row
value. An example, of all jobs in the order of their keys, behind the job ("mail", "7")::

    path = 'mail' AND body > '7'
    path > 'mail'

`dalga.model.listing` says which index it is, `dalga.store.listing` makes pages of the rows. Nothing
is executed here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Generic, NamedTuple

from dalga.model.address import DEFAULT_ENDPOINT
from dalga.model.job import Standing
from dalga.model.key import Position
from dalga.model.listing import RARE, TIMED, Driver, DuePlace, Filters, Place, StatePlace
from dalga.model.permit import Limits
from dalga.model.state import State
from dalga.store.dialect import Cursor, Dialect, instant_text
from dalga.store.parameters import R, Select, columns
from dalga.store.rows import Override
from dalga.store.schema import MAX_LEASE, TAGS
from dalga.store.selected import JobRow, PageRow
from dalga.store.statements import LEASED, RESTS
from dalga.store.values import octets

#: The state of a row's job, as `dalga.model.state.state_of` has it of a row that can be understood.
STATE = f"""
    CASE
        WHEN due IS NULL AND disabled = 0 AND NOT {RESTS} THEN '{State.PROBLEM}'
        WHEN due IS NULL AND standing = {int(Standing.ASIDE)} THEN '{State.PROBLEM}'
        WHEN disabled <> 0 THEN '{State.DISABLED}'
        WHEN {LEASED} THEN '{State.RUNNING}'
        WHEN due <= %(now)s THEN '{State.WAITING}'
        WHEN due IS NOT NULL AND attempts > 0 THEN '{State.RETRYING}'
        WHEN standing IN ({int(Standing.FAILED)}, {int(Standing.STOPPED)}) THEN '{State.FAILED}'
        WHEN standing = {int(Standing.DONE)} THEN '{State.DONE}'
        ELSE '{State.SCHEDULED}'
    END"""


class Condition(NamedTuple):
    """A part of a WHERE, and the values of its parameters."""

    sql: str
    values: dict[str, object]

    def __and__(self, other: Condition) -> Condition:
        return Condition(f"{self.sql} AND {other.sql}", self.values | other.values)


class Range(NamedTuple):
    """A range of an index."""

    where: Condition
    #: The columns by which the index sorts the range. (Where the first ones are the same in all of
    #: it, they are left out: with them, MySQL sorts.)
    order: str


#: What is true of each row.
ANY = Condition("TRUE", {})


class Bound(NamedTuple, Generic[R]):
    """A SELECT with its values."""

    select: Select[R]
    values: dict[str, object]

    def fetch(self, cursor: Cursor) -> list[R]:
        """Execute it."""
        return self.select.fetch(cursor, **self.values)


class KeyEnd(NamedTuple):
    """The last row of a slice, by the index of keys or of tags."""

    path_is_blob: Any
    body_is_blob: Any
    path: Any
    body: Any


class DueEnd(NamedTuple):
    """The last row of a slice, by the index of due times."""

    due_is_blob: Any
    due: Any
    id: int


class StateEnd(NamedTuple):
    """The last row of a slice, by the index of `disabled` and `standing`."""

    disabled: int
    standing: int
    id: int


#: What is read of the last row of a slice of each index.
_ENDS: dict[Driver, type[KeyEnd | DueEnd | StateEnd]] = {
    Driver.KEY: KeyEnd,
    Driver.TAG: KeyEnd,
    Driver.DUE: DueEnd,
    Driver.STATE: StateEnd,
}


class Ranges:
    """
    The statements of a list's pages.

    :param now: the database's time.
    """

    def __init__(self, dialect: Dialect, filters: Filters, now: datetime) -> None:
        self._dialect = dialect
        self._filters = filters
        self._driver = filters.driver
        self._now = dialect.instant(now)
        self._last_lease = dialect.instant(now + MAX_LEASE)
        self._tags = sorted(filters.tags)
        conditions = list(self._conditions())
        #: Whether rows to which the index leads may be left out. (A tag may be of a job that was
        #: deleted during its run.)
        self.leaves_out = bool(conditions) or self._driver is Driver.TAG
        self._condition = all_of(conditions)

    # Statements

    def rows(self, range: Range, size: int, limit: int) -> Bound[PageRow]:
        """
        Rows of a range that are to be shown, in the index's order.

        :param size: how many rows of the range are looked at, at most.
        :param limit: how many rows are given, at most.
        """
        dialect, table = self._dialect, self._dialect.table
        shown = f"""
            {dialect.is_blob("path")} AS path_is_blob,
            {dialect.is_blob("body")} AS body_is_blob,
            {dialect.is_blob("due")} AS due_is_blob,
            {columns(JobRow)}"""
        if not self.leaves_out:
            return self._bound(
                PageRow.read,
                f"""
                SELECT {shown} FROM {table}{self._index}
                WHERE override <> {Override.DELETED} AND {range.where.sql}
                ORDER BY {range.order} LIMIT %(limit)s
                """,
                range.where,
                limit=limit,
            )
        return self._bound(
            PageRow.read,
            f"""
            SELECT {shown}
            FROM ({self._slice("id AS looked_at", range)} LIMIT %(size)s) AS slice
            {dialect.then_join} {table}{dialect.by_id} ON id = looked_at
            WHERE override <> {Override.DELETED} AND {self._condition.sql}
            ORDER BY {range.order} LIMIT %(limit)s
            """,
            range.where & self._condition,
            size=size,
            size_of_each=size,
            limit=limit,
        )

    def end(self, range: Range, size: int) -> Bound[Any]:
        """The last row of the first `size` rows of a range; none if it has fewer."""
        kind = _ENDS[self._driver]
        found = ", ".join(
            f"{self._dialect.is_blob(name.removesuffix('_is_blob'))} AS {name}"
            if name.endswith("_is_blob")
            else name
            for name in kind._fields
        )
        return self._bound(
            kind,
            f"{self._slice(found, range)} LIMIT 1 OFFSET %(size)s",
            range.where,
            size=size - 1,
            size_of_each=size,
        )

    def _slice(self, found: str, range: Range) -> str:
        """
        A SELECT of a range, in the index's order, by the index alone. A LIMIT is to follow.

        :param found: the columns.
        """
        if self._driver is not Driver.TAG:
            return f"""
                SELECT {found} FROM {self._dialect.table}{self._index}
                WHERE {range.where.sql} ORDER BY {range.order}"""
        tags = self._dialect.named(TAGS) + self._dialect.by_tag
        each = [
            f"FROM {tags} WHERE tag = %(tag{number})s AND {range.where.sql} ORDER BY path, body"
            for number, _ in enumerate(self._tags)
        ]
        if len(each) == 1:
            return f"SELECT {found} {each[0]}"
        # A job with two of the tags is there twice.
        tagged = " UNION ALL ".join(
            f"SELECT * FROM (SELECT path, body, id {one} LIMIT %(size_of_each)s) AS one"
            for one in each
        )
        return f"""
            SELECT {found}
            FROM (SELECT DISTINCT path, body, id FROM ({tagged}) AS every) AS tagged
            ORDER BY path, body"""

    @property
    def _index(self) -> str:
        match self._driver:
            case Driver.DUE:
                return self._dialect.by_due
            case Driver.STATE:
                return self._dialect.by_state
            case _:
                return self._dialect.by_key

    def _bound(self, row: Any, sql: str, condition: Condition, **values: object) -> Bound[Any]:
        statement = self._dialect.prepare(sql)
        given = condition.values | values | {"now": self._now}
        given |= {f"tag{number}": self._dialect.key(tag) for number, tag in enumerate(self._tags)}
        return Bound(Select(row, statement), {name: given[name] for name in statement.names})

    # Where a page goes on

    def place(self, row: PageRow) -> Place:
        """Where a row is in the index's order."""
        job = row.job
        match self._driver:
            case Driver.DUE:
                return self._due_place(DueEnd(row.due_is_blob, job.due, job.id))
            case Driver.STATE:
                return StatePlace(job.disabled, job.standing, job.id)
            case _:
                return _position(KeyEnd(row.path_is_blob, row.body_is_blob, job.path, job.body))

    def place_of_end(self, end: KeyEnd | DueEnd | StateEnd) -> Place:
        """The same of what `end` gives."""
        match end:
            case DueEnd():
                return self._due_place(end)
            case StateEnd():
                return StatePlace(*end)
            case _:
                return _position(end)

    def _due_place(self, end: DueEnd) -> DuePlace:
        due = end.due
        if isinstance(due, datetime):
            due = instant_text(due).encode()
        return DuePlace(due, end.id, bool(end.due_is_blob))

    # Ranges

    def ranges(self, after: Place | None) -> list[Range]:
        """
        The ranges of the index behind a place, in order.

        :param after: None for all.
        """
        if self._filters.is_empty:
            return []
        match self._driver:
            case Driver.DUE:
                assert after is None or isinstance(after, DuePlace)
                return [
                    Range(each, "id" if each.sql.startswith("due IS NULL") else "due, id")
                    for each in self._due_ranges(after)
                ]
            case Driver.STATE:
                assert after is None or isinstance(after, StatePlace)
                return [Range(each, "id") for each in self._state_ranges(after)]
            case _:
                assert after is None or isinstance(after, Position)
                return [Range(each, "path, body") for each in self._key_ranges(after)]

    def _key_ranges(self, after: Position | None) -> Iterator[Condition]:
        path, body, beginnings = self._filters.path, self._filters.body, self._filters.beginnings
        if path is not None and body is not None:
            if after is None:
                yield self._of_path(path) & self._of_body(body)
        elif after is None:
            if path is not None:
                yield self._of_path(path)
            elif beginnings is None:
                yield ANY
            else:
                yield from map(self._of_prefix, beginnings)
        else:
            known = self._dialect.octets("after_path", after.path_is_blob)
            known_body = self._dialect.octets("after_body", after.body_is_blob)
            yield Condition(
                f"path = {known} AND body > {known_body}",
                {"after_path": after.path, "after_body": after.body},
            )
            behind = Condition(f"path > {known}", {"after_path": after.path})
            if path is None and beginnings is None:
                yield behind
            elif path is None and beginnings is not None:
                for prefix in beginnings:
                    if after.path < prefix.encode():
                        yield self._of_prefix(prefix)
                    elif after.path.startswith(prefix.encode()):
                        yield behind & self._before_end_of(prefix)

    def _due_ranges(self, after: DuePlace | None) -> Iterator[Condition]:
        bounds = list(self._due_bounds())
        if after is None:
            yield all_of(bounds) if bounds else Condition("due IS NOT NULL", {})
        elif after.due is not None:
            known = self._dialect.time_octets("after_due", after.is_blob)
            due: dict[str, object] = {"after_due": after.due}
            yield Condition(f"due = {known} AND id > %(after_id)s", {**due, "after_id": after.id})
            yield all_of([Condition(f"due > {known}", due), *bounds])
        if not bounds:
            if after is None or after.due is not None:
                yield Condition("due IS NULL", {})
            else:
                yield Condition("due IS NULL AND id > %(after_id)s", {"after_id": after.id})

    def _due_bounds(self) -> Iterator[Condition]:
        """Between which due times rows are looked for."""
        yield from self._due_filters()
        states = self._filters.states
        if states and states <= TIMED:
            if State.WAITING not in states:
                yield Condition("due > %(now)s", {})
            if states == {State.WAITING}:
                yield Condition("due <= %(now)s", {})
            if State.RETRYING not in states:
                yield Condition("due <= %(last_lease)s", {"last_lease": self._last_lease})

    def _state_ranges(self, after: StatePlace | None) -> Iterator[Condition]:
        held = sorted(pair for state in self._filters.states for pair in RARE[state])
        for disabled, standing in held:
            # With the words of SQLite's partial index, so that SQLite takes it.
            rare = "(disabled <> 0 OR standing <> 0)" if disabled or standing else "TRUE"
            range = Condition(f"disabled = {disabled} AND standing = {standing:d} AND {rare}", {})
            if after is None or (disabled, standing) > after[:2]:
                yield range
            elif (disabled, standing) == after[:2]:
                yield range & Condition("id > %(after_id)s", {"after_id": after.id})

    # What has to be true of a row

    def _conditions(self) -> Iterator[Condition]:
        """What the ranges do not see to already."""
        filters, driver = self._filters, self._driver
        limits = filters.limits
        if limits is not None and (driver in (Driver.DUE, Driver.STATE) or limits.by_endpoint):
            yield within(self._dialect, limits, "path", of_endpoint("options"))
        if driver in (Driver.DUE, Driver.STATE):
            if filters.path is not None:
                yield self._of_path(filters.path)
            if filters.prefix is not None:
                yield self._of_prefix(filters.prefix)
        if filters.body is not None and (
            filters.path is None or driver in (Driver.DUE, Driver.STATE)
        ):
            yield self._of_body(filters.body)
        if driver is not Driver.DUE:
            yield from self._due_filters()
        if filters.states:
            states = ", ".join(f"'{state}'" for state in sorted(filters.states))
            yield Condition(f"{STATE} IN ({states})", {})
        if filters.endpoint is not None:
            yield of_endpoint("options")(filters.endpoint, "endpoint")
        if self._tags and driver is not Driver.TAG:
            yield self._tagged()
        if filters.contains is not None:
            yield Condition(
                "(INSTR(path, %(contains)s) > 0 OR INSTR(body, %(contains)s) > 0)",
                {"contains": self._dialect.key(filters.contains)},
            )

    def _of_path(self, path: str) -> Condition:
        return Condition("path = %(path)s", {"path": self._dialect.key(path)})

    def _of_body(self, body: str) -> Condition:
        return Condition("body = %(body)s", {"body": self._dialect.key(body)})

    def _of_prefix(self, prefix: str) -> Condition:
        begin = Condition("path >= %(prefix)s", {"prefix": self._dialect.key(prefix)})
        return begin & self._before_end_of(prefix)

    def _before_end_of(self, prefix: str) -> Condition:
        """Before all paths that are behind those that begin with the prefix."""
        end = end_of(prefix)
        return Condition(f"path < {self._dialect.octets('prefix_end', False)}", {"prefix_end": end})

    def _due_filters(self) -> Iterator[Condition]:
        before, after = self._filters.due_before, self._filters.due_after
        if after is not None:
            yield Condition("due > %(due_after)s", {"due_after": self._dialect.instant(after)})
        if before is not None:
            yield Condition("due < %(due_before)s", {"due_before": self._dialect.instant(before)})

    def _tagged(self) -> Condition:
        # COUNT, as a server would make a join of EXISTS, and might go through all rows of a tag.
        tags = ", ".join(f"%(tag{number})s" for number, _ in enumerate(self._tags))
        return Condition(
            f"""(
                SELECT COUNT(*) FROM {self._dialect.named(TAGS)} AS named{self._dialect.by_tagged}
                WHERE named.id = {self._dialect.table}.id AND named.tag IN ({tags})
            ) > 0""",
            {},
        )


def end_of(prefix: str) -> bytes:
    """The octets behind all texts that begin with a prefix, and before those behind them."""
    known = prefix.encode("utf-8")
    return known[:-1] + bytes([known[-1] + 1])  # no octet of UTF-8 is 0xFF


#: Makes what is true of the rows with an endpoint: of its name, and the name of a parameter.
OfEndpoint = Callable[[str, str], Condition]


def of_endpoint(column: str) -> OfEndpoint:
    """
    Of each job of an endpoint, and perhaps of others: whoever reads the job looks at the rest.
    Options name the endpoint unless it is the default one.

    :param column: that of the options.
    """

    def condition(endpoint: str, name: str) -> Condition:
        named = Condition(
            f"INSTR({column}, %({name})s) > 0", {name: f'"endpoint":{json.dumps(endpoint)}'}
        )
        if endpoint != DEFAULT_ENDPOINT:
            return named
        return Condition(f"""(INSTR({column}, '"endpoint":') = 0 OR {named.sql})""", named.values)

    return condition


def within(
    dialect: Dialect, limits: Limits, path: str, has_endpoint: OfEndpoint, name: str = "limit"
) -> Condition:
    """
    What is true of the rows within limits.

    :param path: the column of the path.
    :param name: begins the names of the parameters.
    """
    found: list[Condition] = []
    for number, area in enumerate(limits.areas):
        both: list[Condition] = []
        if area.prefixes:
            each = []
            for place, prefix in enumerate(area.prefixes):
                begin, end = f"{name}{number}_{place}", f"{name}{number}_{place}_end"
                each.append(
                    Condition(
                        f"{path} >= %({begin})s AND {path} < {dialect.octets(end, False)}",
                        {begin: dialect.key(prefix), end: end_of(prefix)},
                    )
                )
            both.append(any_of(each))
        if area.endpoints:
            names = [f"{name}{number}_endpoint{place}" for place in range(len(area.endpoints))]
            both.append(any_of(map(has_endpoint, area.endpoints, names)))
        found.append(all_of(both))
    return any_of(found)


def any_of(conditions: Iterable[Condition]) -> Condition:
    """Any of them; none is true if there are none."""
    found = list(conditions)
    values = {name: value for each in found for name, value in each.values.items()}
    return Condition(f"({' OR '.join(each.sql for each in found) or 'FALSE'})", values)


def all_of(conditions: Iterable[Condition]) -> Condition:
    """All of them together; `ANY` if there are none."""
    first, *others = [*conditions] or [ANY]
    for other in others:
        first &= other
    return first


def _position(end: KeyEnd) -> Position:
    kinds = bool(end.path_is_blob), bool(end.body_is_blob)
    return Position(octets(end.path), octets(end.body), *kinds)
