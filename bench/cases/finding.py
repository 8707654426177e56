"""A case of lists of jobs, by each filter, in a table of a million jobs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from itertools import cycle
from urllib.parse import urljoin

from bench.cases.punctuality import percentiles
from bench.daemon import Bench, Figures, new_table, running_dalga
from bench.databases import MILLION
from bench.machine import wait_until
from bench.sink import check

#: Pages of each kind.
PAGES = 200
#: Jobs that are due a second, and lists that are asked for a second beside them.
DUE, LISTS = 50, 20
#: Connections that ask for these lists.
CLIENTS = 4

#: The day on which all jobs are due that are not to run in the case: in a week, at any second.
DAY_AHEAD = timedelta(days=7)

#: Each kind of list, by the name of its figures. {noon} is in the middle of the day on which the
#: jobs are due.
KINDS = {
    "key": "",
    "path": "path=p1500000",
    "prefix": "prefix=p15",
    "tag": "tag=blue",
    "two_tags": "tag=blue&tag=red",
    "disabled": "state=disabled",
    "failed": "state=failed",
    "done": "state=done",
    "problem": "state=problem",
    "scheduled": "state=scheduled",
    "running": "state=running",
    "retrying": "state=retrying",
    "waiting": "state=waiting",
    "due": "due_after={noon}",
    "due_between": "due_after={noon}&due_before={later}",
    "sort_due": "sort=due",
    "tag_failed": "tag=blue&state=failed",
    "prefix_failed": "prefix=p1&state=failed",
    "endpoint": "endpoint=nowhere",
    "contains": "contains=77",
    "contains_nothing": "contains=nowhere",
}

#: SQL that MariaDB, MySQL and SQLite have in common, where || concatenates. Of 1,000 rows, 10 are
#: disabled, 10 have a tag, one of these 10 has another tag, too, and 1 or 2 are in each of the
#: other states; of 10,000 rows 1 was set aside.
FILL = """
INSERT INTO dalga (path, body, schedule, anchor, scheduled, due, disabled, standing, error,
    attempts, run, started, token, extras)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last})
SELECT 'p' || (1000000 + i - i % 1000), 'job' || i, '86400', {time}, {time},
    CASE WHEN i % 100 = 1 OR i % 1000 IN (3, 4) OR i % 10000 = 5 THEN NULL ELSE {time} END,
    CASE WHEN i % 100 = 1 THEN 1 ELSE 0 END,
    CASE WHEN i % 10000 = 5 THEN 4 WHEN i % 1000 BETWEEN 2 AND 4 THEN i % 1000 - 1 ELSE 0 END,
    CASE WHEN i % 10000 = 5 OR i % 1000 IN (2, 3, 6) THEN 'an error' ELSE NULL END,
    CASE WHEN i % 1000 IN (3, 6, 7) THEN 2 ELSE 0 END,
    CASE WHEN i % 1000 IN (3, 6, 7) THEN X'30313233343536373839616263646566' ELSE NULL END,
    CASE WHEN i % 1000 IN (3, 6, 7) THEN {time} ELSE NULL END,
    CASE WHEN i % 1000 = 7 THEN X'30313233343536373839616263646566' ELSE NULL END,
    CASE WHEN i % 100 = 8 THEN 4 ELSE 0 END
FROM n
"""
#: A time of {day} by the row's number.
TIME = (
    "'{day} ' || substr(100 + i % 24, 2, 2) || ':' || substr(100 + i % 60, 2, 2)"
    " || ':' || substr(100 + i % 59, 2, 2) || '.000000'"
)
TAG = (
    "INSERT INTO dalga_tags (tag, path, body, id)"
    " SELECT '{tag}', path, body, id FROM dalga WHERE extras = 4 AND body LIKE '%{ends}'"
)


def finding(bench: Bench) -> Figures:
    """
    Pages of each kind of list, each kind by itself; and how late 50 jobs a second arrive, with and
    without 20 lists a second.
    """
    new_table(bench)
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + DAY_AHEAD
    _fill(bench, bench.jobs(MILLION), day)
    noon = day + timedelta(hours=12)
    times = {"noon": _query(noon), "later": _query(noon + timedelta(minutes=10))}
    targets = {name: f"/jobs?{query.format(**times)}" for name, query in KINDS.items()}
    seconds = bench.seconds(30)
    pages = max(20, int(PAGES * min(1.0, bench.scale)))
    with running_dalga(bench) as daemon:
        time.sleep(3)  # let the start be over
        took = {name: list(pages_of(daemon.port, at, pages)) for name, at in targets.items()}
        without = lateness(bench, "alone", seconds)
        # Each kind's first pages, one kind after the other.
        asked = [at for at, _ in zip(cycle(targets.values()), range(int(seconds * LISTS)))]
        with ThreadPoolExecutor(CLIENTS) as clients:
            shares = (asked[number::CLIENTS] for number in range(CLIENTS))
            asking = [clients.submit(_paced, daemon.port, share) for share in shares]
            beside = lateness(bench, "beside", seconds)
            lists = [each for share in asking for each in share.result()]
        peak = daemon.peak_memory()
    found = {name: percentiles(milliseconds) for name, milliseconds in took.items()}
    return {
        **{
            f"{name}_{cut}": each[cut]
            for name, each in found.items()
            for cut in ("p50_ms", "p99_ms")
        },
        "worst_p99_ms": max(each["p99_ms"] for each in found.values()),
        "lists_p99_ms_beside": percentiles(lists)["p99_ms"],
        "late_p99_ms_without": without["p99_ms"],
        "late_p99_ms": beside["p99_ms"],
        "late_max_ms": beside["max_ms"],
        "later_by_ms": beside["p99_ms"] - without["p99_ms"],
        "peak_memory_mb": peak,
    }


def _fill(bench: Bench, count: int, day: datetime) -> None:
    """Put the jobs into the table; all are due on that day."""
    when = TIME.format(day=day.date())
    with bench.database.connect() as connection:
        cursor = connection.cursor()
        bench.database.prepare_recursion(cursor, count)
        cursor.execute(FILL.format(last=count - 1, time=when))
        cursor.execute(TAG.format(tag="blue", ends=""))
        cursor.execute(TAG.format(tag="red", ends="008"))
        connection.commit()
    bench.database.analyze("dalga", "dalga_tags")


def pages_of(port: int, target: str, count: int) -> Iterator[float]:
    """How long each of so many pages took, in milliseconds. Behind the last one comes the first."""
    client = HTTPConnection("127.0.0.1", port, timeout=60)
    at = target
    for _ in range(count):
        began = time.perf_counter()
        following = _page(client, at)
        yield (time.perf_counter() - began) * 1000
        at = following or target
    client.close()


def _page(client: HTTPConnection, target: str) -> str | None:
    """Ask for a page, and give the target of the next one."""
    client.request("GET", target)
    answer = client.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"GET {target} was answered by {answer.status}: {text.decode()}")
    link = re.match(r'<([^>]*)>; rel="?next"?', answer.headers.get("Link", ""))
    return None if link is None else urljoin(target, link[1])


def _paced(port: int, targets: list[str]) -> list[float]:
    """Ask for first pages, as many a second as is the share of one of the clients."""
    client = HTTPConnection("127.0.0.1", port, timeout=60)
    took = []
    began = time.perf_counter()
    for number, target in enumerate(targets):
        time.sleep(max(0.0, began + number * CLIENTS / LISTS - time.perf_counter()))
        asked = time.perf_counter()
        _page(client, target)
        took.append((time.perf_counter() - asked) * 1000)
    client.close()
    return took


def lateness(bench: Bench, name: str, seconds: float) -> Figures:
    """How late jobs arrive that are due one after the other."""
    bench.sink.forget()
    # The daemon learns of them by its scan, each second.
    began = datetime.now(UTC) + timedelta(seconds=3)
    count = int(seconds * DUE)
    dues = {f"{name}{n}": began + timedelta(seconds=n / DUE) for n in range(count)}
    bench.database.insert(dues.items())
    wait_until(lambda: bench.sink.count() >= count, "all jobs to arrive", 0.5)
    arrivals = bench.sink.arrivals()
    check(arrivals, count)
    return percentiles([(each.at - dues[each.path].timestamp()) * 1000 for each in arrivals])


def _query(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
