"""Cases of the history of runs: pages among ten million records, and the removal of a million."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.cases.finding import lateness, pages_of
from bench.cases.punctuality import percentiles
from bench.daemon import Bench, Figures, new_table, running_dalga
from bench.databases import FileDatabase
from bench.machine import wait_until
from dalga.model.record import job_key, path_key

#: Records, and the jobs that they are of: of 100 paths, each with as many jobs.
RECORDS, JOBS, PATHS = 10_000_000, 100_000, 100

#: Pages of each kind.
PAGES = 200

#: Records that are too old, of the case of their removal.
OLD = 1_000_000

#: Each kind of page, by the name of its figures. {day} is in the middle of the records' time.
KINDS = {
    "all": "/runs",
    "path": "/runs?path=p7",
    "job": "/jobs/p7/body1007/runs",
    "prefix": "/runs?prefix=p7",
    "prefix_nothing": "/runs?prefix=nowhere",
    "body": "/runs?body=body1007",
    "endpoint": "/runs?endpoint=billing",
    "endpoint_nothing": "/runs?endpoint=nowhere",
    "given_up": "/runs?result=given_up",
    "skipped": "/runs?result=skipped",
    "removed": "/runs?result=removed",
    "path_given_up": "/runs?path=p7&result=given_up",
    "job_given_up": "/jobs/p7/body1007/runs?result=given_up",
    "status": "/runs?status=503",
    "status_nothing": "/runs?status=404",
    "error_kind": "/runs?error_kind=status",
    "error_kind_nothing": "/runs?error_kind=dns",
    "tag": "/runs?tag=blue",
    "path_tag": "/runs?path=p7&tag=blue",
    "since": "/runs?since={day}",
    "until": "/runs?until={day}",
    "path_until": "/runs?path=p7&until={day}",
    "running": "/runs?result=running",
    "retrying": "/runs?result=retrying",
}

#: The jobs that the records are of, as the engines have them in common.
NAMES = (
    "CREATE TABLE bench_jobs (i INTEGER PRIMARY KEY, path VARCHAR(20), body VARCHAR(20),"
    " pathkey BIGINT, jobkey BIGINT)"
)

#: Of 100 runs, one was given up, with an answer of 2 KiB. {first} to {last} are repetitions of all
#: jobs; a run of each comes every {step} microseconds.
FILL = """
INSERT INTO dalga_runs (failed, at, job, run, path, body, pathkey, jobkey, endpoint, cause, result,
    status, kind, scheduled, claimed, started, ended, lateness, attempts, instance, error, more,
    answer)
WITH RECURSIVE n(k) AS (SELECT {first} UNION ALL SELECT k + 1 FROM n WHERE k < {last})
SELECT {shelf}, {begin} + (k * {jobs} + i) * {step}, i + 1,
    {run}, path, body, pathkey, jobkey,
    CASE WHEN i % 10 = 3 THEN 'billing' ELSE 'default' END, 0, {result}, {status}, {kind},
    {time}, {time}, {time}, {time}, 4, {attempts}, 'web-1', {error}, {more}, {answer}
FROM n CROSS JOIN bench_jobs WHERE {which} ORDER BY k, i
"""
#: The columns by the shelf.
FINE = {
    "shelf": "0",
    "which": "i % 100 <> 50",
    "result": "0",
    "status": "200",
    "kind": "0",
    "attempts": "1",
    "error": "NULL",
    "more": "NULL",
    "answer": "NULL",
}
FAILED = {
    "shelf": "1",
    "which": "i % 100 = 50",
    "result": "3",
    "status": "503",
    "kind": "8",
    "attempts": "2",
    "error": "'503 Service Unavailable'",
    "more": """'{"attempts":[]}'""",
    "answer": """'{"response_headers":"X-A: 1","response_body":"%s"}'""" % ("no" * 1024),
}

#: Repetitions that one statement writes.
AT_ONCE = 10


def runs_pages(bench: Bench) -> Figures:
    """Pages of each kind of list of runs, each kind by itself; single runs, and last runs."""
    new_table(bench)
    begin = datetime.now(UTC) - timedelta(days=6)
    count = bench.jobs(RECORDS)
    began = time.perf_counter()
    _fill(bench, count, begin, timedelta(days=6))
    filled = time.perf_counter() - began
    day = (begin + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    targets = {name: target.format(day=day) for name, target in KINDS.items()}
    targets["one"] = f"/runs/{_run_id(bench, 7)}"
    pages = max(20, int(PAGES * min(1.0, bench.scale)))
    with running_dalga(bench) as daemon:
        time.sleep(3)  # let the start be over
        took = {name: list(pages_of(daemon.port, at, pages)) for name, at in targets.items()}
        peak = daemon.peak_memory()
    found = {name: percentiles(milliseconds) for name, milliseconds in took.items()}
    return {
        **{
            f"{name}_{cut}": each[cut]
            for name, each in found.items()
            for cut in ("p50_ms", "p99_ms")
        },
        "worst_p99_ms": max(each["p99_ms"] for each in found.values()),
        "fill_seconds": filled,
        "peak_memory_mb": peak,
    }


def pruning(bench: Bench) -> Figures:
    """How late 50 jobs a second arrive, with and without the removal of a million records."""
    new_table(bench)
    count = bench.jobs(OLD)
    _fill(bench, count, datetime.now(UTC) - timedelta(days=60), timedelta(days=20))
    there = _records(bench)
    seconds = bench.seconds(30)
    with running_dalga(bench):
        time.sleep(3)  # let the start be over
        without = lateness(bench, "alone", seconds)
        wait_until(lambda: _records(bench) < there, "the first removal", 0.2)
        began, left = time.perf_counter(), _records(bench)
        beside = lateness(bench, "beside", seconds)
        removed = left - _records(bench)
        took = time.perf_counter() - began
    return {
        "late_p99_ms_without": without["p99_ms"],
        "late_p99_ms": beside["p99_ms"],
        "late_max_ms": beside["max_ms"],
        "later_by_ms": beside["p99_ms"] - without["p99_ms"],
        "removed_beside": removed,
        "removed_per_second": removed / took,
    }


def _records(bench: Bench) -> int:
    """How many records there are that are old."""
    return bench.database.count("failed < 2", "dalga_runs")


def _fill(bench: Bench, count: int, begin: datetime, period: timedelta) -> None:
    """Write so many records, evenly over a time. Their indexes are made at the end."""
    jobs = min(JOBS, count)
    repeats = max(1, count // jobs)
    step = int(period.total_seconds() * 1e6) // (repeats * jobs)
    numbers = {
        "begin": int(begin.timestamp() * 1e6),
        "step": step,
        "jobs": jobs,
        "time": f"'{begin:%Y-%m-%d %H:%M:%S}.000000'",
        "run": _run_of(bench, jobs),
    }
    with bench.database.connect() as connection:
        cursor = connection.cursor()
        bench.database.prepare_recursion(cursor, repeats)
        cursor.execute(NAMES)
        cursor.executemany(
            bench.database.prepare("INSERT INTO bench_jobs VALUES (%s, %s, %s, %s, %s)"),
            _jobs(jobs),
        )
        connection.commit()
        indexes = _drop_indexes(bench, cursor)
        for shelf in (FINE, FAILED):
            for first in range(0, repeats, AT_ONCE):
                last = min(first + AT_ONCE, repeats) - 1
                cursor.execute(FILL.format(**{"first": first, "last": last, **numbers, **shelf}))
                connection.commit()
        for statement in indexes:
            cursor.execute(statement)
        cursor.execute(
            "INSERT INTO dalga_tags (tag, path, body, id)"
            " SELECT 'blue', path, body, i + 1 FROM bench_jobs WHERE i % 100 = 7"
        )
        cursor.execute("DROP TABLE bench_jobs")
        connection.commit()
    bench.database.analyze("dalga_runs", "dalga_tags")


def _jobs(count: int) -> Iterator[tuple[Any, ...]]:
    for i in range(count):
        path, body = f"p{i % PATHS}", f"body{i}"
        yield i, path, body, path_key(path), job_key(path, body)


def _run_of(bench: Bench, jobs: int) -> str:
    """An expression: the half of a run's id that is no job's, of its number."""
    if isinstance(bench.database, FileDatabase):
        return f"CAST(printf('%016x', k * {jobs} + i) AS BLOB)"
    return f"UNHEX(LPAD(HEX(k * {jobs} + i), 32, '0'))"


def _run_id(bench: Bench, number: int) -> str:
    """The id of a run of the first repetition."""
    is_file = isinstance(bench.database, FileDatabase)
    half = f"{number:016x}".encode().hex() if is_file else f"{number:032x}"
    return f"{half}-{number + 1}"


def _drop_indexes(bench: Bench, cursor: Any) -> list[str]:
    """Drop all but the primary key, and give the statements that make them again."""
    if isinstance(bench.database, FileDatabase):
        cursor.execute(
            "SELECT name, sql FROM sqlite_master"
            " WHERE type = 'index' AND tbl_name = 'dalga_runs' AND sql IS NOT NULL"
        )
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f"DROP INDEX {name}")
        return [sql for _, sql in indexes]
    cursor.execute(
        "SELECT index_name, GROUP_CONCAT(column_name ORDER BY seq_in_index)"
        " FROM information_schema.statistics WHERE table_schema = DATABASE()"
        " AND table_name = 'dalga_runs' AND index_name <> 'PRIMARY' GROUP BY index_name"
    )
    indexes = cursor.fetchall()
    dropped = ", ".join(f"DROP INDEX {name}" for name, _ in indexes)
    cursor.execute(f"ALTER TABLE dalga_runs {dropped}")
    made = ", ".join(f"ADD INDEX {name} ({columns})" for name, columns in indexes)
    return [f"ALTER TABLE dalga_runs {made}"]
