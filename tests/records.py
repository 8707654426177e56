"""Rows of the history of runs, written as a record writes them, for tests that read them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

from dalga.model.record import Result, Shelf, job_key, path_key
from dalga.store.dialect import instant_text
from dalga.store.rows import version_at
from tests.stores import EngineTestCase


def record_row(
    at: datetime | None,
    job: int,
    path: str = "mail",
    body: str = "7",
    result: Result | None = Result.SUCCEEDED,
    **others: Any,
) -> dict[str, Any]:
    """
    The columns of a row.

    :param at: when it was written; None on the shelf OPEN.
    :param others: columns that are to differ from those of a run that began in time.
    """
    moment = at or others["scheduled"]
    shelf = Shelf.OPEN if result is None else result.shelf
    failed = shelf is not Shelf.FINE
    row = {
        "failed": int(shelf),
        "at": 0 if at is None else version_at(at),
        "job": job,
        "run": bytes([job % 256]) * 16,
        "path": path,
        "body": body,
        "pathkey": path_key(path),
        "jobkey": job_key(path, body),
        "endpoint": "default",
        "cause": 0,
        "result": None if result is None else result.code,
        "status": 503 if failed else 200,
        "kind": 8 if failed else 0,
        "scheduled": moment,
        "claimed": moment,
        "started": moment,
        "ended": moment + timedelta(milliseconds=31),
        "lateness": 4,
        "attempts": 1,
        "instance": "web-1",
        "error": "503 Service Unavailable" if failed else None,
        "more": None,
        "answer": None,
    }
    return row | others


class RecordTestCase(EngineTestCase):
    """A test that writes rows of history."""

    def insert_records(self, rows: Iterable[dict[str, Any]]) -> None:
        place = "?" if self.engine == "sqlite" else "%s"
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            for row in rows:
                values = [self.value(name, value) for name, value in row.items()]
                cursor.execute(
                    f"INSERT INTO dalga_runs ({', '.join(row)})"
                    f" VALUES ({', '.join([place] * len(row))})",
                    values,
                )
            connection.commit()

    def value(self, name: str, value: Any) -> Any:
        """A column's value as the engine has it."""
        if isinstance(value, datetime):
            return instant_text(value)
        if isinstance(value, dict):
            return json.dumps(value)
        if name in ("path", "body", "endpoint", "instance") and isinstance(value, str):
            return self.key(value)
        return value
