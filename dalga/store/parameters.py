"""
Statements whose parameters have names, and SELECTs whose columns have them, too.

A parameter is written ``%(name)s`` and given by its name. What stands in brackets, up to the dots,
is repeated for each row that is given:

    UPDATE dalga SET due = %(due)s WHERE id IN ([%(id)s, ...])
    INSERT INTO dalga (path, body) VALUES [(%(path)s, %(body)s), ...]
    DELETE FROM dalga WHERE path IN ([%(path)s, ...]) AND body IN ([%(body)s, ...])

A row is a NamedTuple with just these names, in this order; with one name it is the value itself.
Where several parts are repeated, each has one of the names.

The drivers get all values by their places, as SQLite looks each name up among all names before it:
by their names, 100 rows of 6 values took 9 times as long, and 500 rows 38 times (*measured*).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, starmap
from typing import Any, Generic, NamedTuple, TypeVar

R = TypeVar("R", bound=tuple[Any, ...])
V = TypeVar("V")

_NAME = re.compile(r"%\((\w+)\)s")

#: What is repeated for each row, and what stands between two rows.
_REPEATED = re.compile(r"\[(.*?)(,| OR| UNION ALL) \.\.\.\]")


class _Once(NamedTuple):
    """A part of a statement that is not repeated."""

    text: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, sql: str, place: str) -> _Once:
        return cls(_NAME.sub(place, sql), tuple(_NAME.findall(sql)))


class _Repeated(NamedTuple):
    """A part that is repeated for each row."""

    #: For the first row.
    first: str
    #: For each other row, with what stands between two rows.
    other: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, found: re.Match[str], place: str) -> _Repeated:
        """
        :param found: by `_REPEATED`.
        :raises ValueError: if the rows have other names than the first row.
        """
        between = f"{found[2]} "
        rows = found[1].split(between) if between == " UNION ALL " else [found[1]]
        row_names = [tuple(_NAME.findall(row)) for row in rows]
        if len(set(row_names)) != 1:
            raise ValueError(f"the rows of {found[0]!r} have the names {row_names}")
        first, *others = (_NAME.sub(place, row) for row in rows)
        return cls(first, between + (others or [first])[0], row_names[0])


class Statement:
    """
    A statement, made once and executed often.

    :param sql: with parameters as above. Where UNION ALL is between the rows, the first row may
        have a text of its own, with names for its columns, before the text of all others.
    :param place: what stands for a parameter in the driver's SQL.
    """

    def __init__(self, sql: str, place: str) -> None:
        text = " ".join(sql.split())
        #: The names of a row's values.
        self.row: tuple[str, ...] = ()
        #: What stands before each part that is repeated, and that part.
        self._parts: list[tuple[_Once, _Repeated]] = []
        begin = 0
        for found in _REPEATED.finditer(text):
            part = _Repeated.of(found, place)
            self._parts.append((_Once.of(text[begin : found.start()], place), part))
            self.row += part.names
            begin = found.end()
        if len(self._parts) not in (0, 1, len(self.row)):
            raise ValueError(f"the parts of {text!r} don't have one name each: {self.row}")
        self._last = _Once.of(text[begin:], place)
        #: The names of the parameters, but for those of rows.
        self.names = frozenset(self._last.names).union(*(once.names for once, _ in self._parts))

    def execute(self, cursor: Any, rows: Sequence[Any] = (), /, **values: object) -> int:
        """
        Execute the statement.

        :param rows: for a statement with a part that is repeated, at least one.
        :param values: of the parameters, by their names.
        :return: how many rows the driver says were changed, or are given by a SELECT.
        :raises TypeError: if that is not what the statement takes.
        """
        cursor.execute(*self.bound(rows, values))
        return int(cursor.rowcount)

    def bound(self, rows: Sequence[Any], values: Mapping[str, object]) -> tuple[str, list[object]]:
        """
        The SQL, and the values by their places, as `cursor.execute` takes them.

        :raises TypeError: as `execute`.
        """
        if len(values) != len(self.names) or not self.names.issuperset(values):
            raise TypeError(f"parameters {sorted(self.names)} were given as {sorted(values)}")
        last = self._last
        if not self._parts:
            if rows:
                raise TypeError("rows were given to a statement that takes none")
            return last.text, [values[name] for name in last.names]
        if not rows:
            raise TypeError("no rows were given")
        if len(self.row) == 1:
            columns: Iterable[Iterable[object]] = (rows,)
        elif rows[0]._fields != self.row:
            raise TypeError(f"rows of {self.row} were given as rows of {rows[0]._fields}")
        elif len(self._parts) == 1:
            columns = (chain.from_iterable(rows),)
        else:
            columns = zip(*rows, strict=True)
        text, bound = "", []
        for (once, part), column in zip(self._parts, columns, strict=True):
            text += f"{once.text}{part.first}{part.other * (len(rows) - 1)}"
            bound += [values[name] for name in once.names]
            bound += column
        return text + last.text, bound + [values[name] for name in last.names]


class Select(Generic[R]):
    """
    A statement that gives rows.

    :param row: makes what is given of a row's columns, such as the NamedTuple whose names are in
        the SQL by `columns`.
    """

    def __init__(self, row: Callable[..., R], statement: Statement) -> None:
        self._row = row
        self.statement = statement

    def fetch(self, cursor: Any, rows: Sequence[Any] = (), /, **values: object) -> list[R]:
        """Execute the statement, as `Statement.execute` does, and give all rows."""
        cursor.execute(*self.statement.bound(rows, values))
        return list(starmap(self._row, cursor.fetchall()))


def in_parts(rows: Iterable[V], size: Callable[[V], int], most: int) -> Iterator[list[V]]:
    """
    Rows in parts that one statement each takes. Only a part of one row may be too long.

    :param size: of a row, in octets.
    :param most: of a part, in octets.
    """
    part: list[V] = []
    length = 0
    for row in rows:
        octets = size(row)
        if part and length + octets > most:
            yield part
            part, length = [], 0
        part.append(row)
        length += octets
    if part:
        yield part


def columns(row: type[tuple[Any, ...]]) -> str:
    """The list of columns of a SELECT that is read as a NamedTuple: its fields, in their order."""
    names: tuple[str, ...] = row._fields  # type: ignore[attr-defined]
    return ", ".join(names)
