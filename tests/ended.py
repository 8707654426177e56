"""Thousands of runs that have ended, for tests of what is done to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from dalga.model.key import JobKey
from dalga.model.record import Result
from dalga.model.runid import RunId
from tests.records import RecordTestCase, record_row

KEY = JobKey("mail", "7")
SCHEDULED = datetime(2026, 3, 1, 9, tzinfo=UTC)


def run_id(number: int) -> RunId:
    """The id of a run that `insert_runs` inserts."""
    return RunId(number.to_bytes(16, "big"), number)


def insert_runs(
    case: RecordTestCase,
    numbers: Sequence[int],
    key: JobKey = KEY,
    result: Result | None = Result.GIVEN_UP,
    at: datetime = SCHEDULED,
    endpoint: str = "default",
    **more: Any,
) -> None:
    """
    Insert records of runs of a job, all scheduled for `SCHEDULED`.

    :param result: None for runs that are tried again.
    :param more: members of the column of this name.
    """
    rows = [
        record_row(
            None if result is None else at,
            number,
            *key,
            result,
            run=run_id(number).token,
            scheduled=SCHEDULED,
            endpoint=endpoint,
            more=more or None,
        )
        for number in numbers
    ]
    place = "?" if case.engine == "sqlite" else "%s"
    with closing(case.connect()) as connection:
        connection.cursor().executemany(
            f"INSERT INTO dalga_runs ({', '.join(rows[0])})"
            f" VALUES ({', '.join([place] * len(rows[0]))})",
            [[case.value(name, value) for name, value in row.items()] for row in rows],
        )
        connection.commit()
