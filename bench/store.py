"""
The store alone: claims and records without HTTP.

    python -m bench.store FILE.ini COUNT

Prints, as JSON, how many rows a second one connection claims and records, and the milliseconds of
CPU that this process takes for each.
"""

from __future__ import annotations

import json
import sys
import time
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from dalga.config.load import load_config
from dalga.database import build_store
from dalga.model.run import Delete, End, Outcome
from dalga.store.table import JobsTable

TIMEOUT = 600.0


async def work(store: JobsTable, batch: int, count: int) -> dict[str, float]:
    """Claim and record so many rows, one batch after the other."""
    began, before, done = time.monotonic(), time.process_time(), 0
    while done < count:
        runs = (await store.claim(batch, TIMEOUT)).runs
        await store.record([End(run, Outcome(200, 0.0), Delete()) for run in runs])
        done += len(runs)
    return {
        f"rows_per_second_by_{batch}": count / (time.monotonic() - began),
        f"cpu_ms_per_row_by_{batch}": (time.process_time() - before) / count * 1000,
    }


async def measure(reactor: Any, ini: str, count: int) -> None:
    store = build_store(load_config(ini, {}).database, reactor, Random())
    store.open()
    third = count // 3
    shares = {50: third // 50 * 50, 200: third // 200 * 200}
    shares[1000] = count - sum(shares.values())
    figures: dict[str, float] = {}
    for batch, rows in shares.items():
        figures |= await work(store, batch, rows)
    await store.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    ini, count = sys.argv[1:]
    react(lambda reactor: Deferred.fromCoroutine(measure(reactor, ini, int(count))), [])
