"""
Statements whose parameters have names, and SELECTs whose columns have them, too.

A parameter is written ``%(name)s`` and given by its name. What stands in brackets, up to the dots,
is repeated for each row that is given:

    UPDATE dalga SET due = %(due)s WHERE id IN ([%(id)s, ...])
    INSERT INTO dalga (path, body) VALUES [(%(path)s, %(body)s), ...]

A row is a NamedTuple with just these names, in this order; with one name it is the value itself.

The drivers get all values by their places, as SQLite looks each name up among all names before it:
by their names, 100 rows of 6 values took 9 times as long, and 500 rows 38 times (*measured*).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, starmap
from typing import Any, Generic, TypeVar

R = TypeVar("R", bound=tuple[Any, ...])

_NAME = re.compile(r"%\((\w+)\)s")

#: What is repeated for each row, and what stands between two rows.
_REPEATED = re.compile(r"\[(.*?)(,| OR| UNION ALL) \.\.\.\]")


class Statement:
    """
    A statement, made once and executed often.

    :param sql: with parameters as above. Where UNION ALL is between the rows, the first row may
        have a text of its own, with names for its columns, before the text of all others.
    :param place: what stands for a parameter in the driver's SQL.
    """

    def __init__(self, sql: str, place: str) -> None:
        text = " ".join(sql.split())
        if repeated := _REPEATED.search(text):
            texts = text[: repeated.start()], text[repeated.end() :]
            between = f"{repeated[2]} "
            rows = repeated[1].split(between) if between == " UNION ALL " else [repeated[1]]
            row_names = [tuple(_NAME.findall(row)) for row in rows]
            if len(set(row_names)) != 1:
                raise ValueError(f"the rows of {text!r} have the names {row_names}")
            #: The names of a row's values.
            self.row: tuple[str, ...] = row_names[0]
            first, *others = (_NAME.sub(place, row) for row in rows)
            self._first, self._other = first, between + (others or [first])[0]
        else:
            texts, self.row = (text, ""), ()
        self._before, self._after = (tuple(_NAME.findall(text)) for text in texts)
        self._begin, self._end = (_NAME.sub(place, text) for text in texts)
        #: The names of the parameters, but for those of rows.
        self.names = frozenset(self._before + self._after)

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
        before: Iterable[object] = map(values.__getitem__, self._before)
        if not self.row:
            if rows:
                raise TypeError("rows were given to a statement that takes none")
            return self._begin, [*before]
        if not rows:
            raise TypeError("no rows were given")
        if len(self.row) == 1:
            many: Iterable[object] = rows
        elif rows[0]._fields == self.row:
            many = chain.from_iterable(rows)
        else:
            raise TypeError(f"rows of {self.row} were given as rows of {rows[0]._fields}")
        text = f"{self._begin}{self._first}{self._other * (len(rows) - 1)}{self._end}"
        return text, [*before, *many, *map(values.__getitem__, self._after)]


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


def columns(row: type[tuple[Any, ...]]) -> str:
    """The list of columns of a SELECT that is read as a NamedTuple: its fields, in their order."""
    names: tuple[str, ...] = row._fields  # type: ignore[attr-defined]
    return ", ".join(names)
