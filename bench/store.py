"""
The store alone: claims and records without HTTP.

    python -m bench.store FILE.ini COUNT

Prints how many rows a second one connection, and two, claim and record, as JSON.
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


async def work(store: JobsTable, batch: int, count: int) -> float:
    """Claim and record so many rows, one batch after the other; gives rows a second."""
    began, done = time.monotonic(), 0
    while done < count:
        runs = (await store.claim(batch, TIMEOUT)).runs
        await store.record([End(run, Outcome(200, 0.0), Delete()) for run in runs])
        done += len(runs)
    return count / (time.monotonic() - began)


async def measure(reactor: Any, ini: str, count: int) -> None:
    store = build_store(load_config(ini, {}).database, reactor, Random())
    store.open()
    share = count // 3
    figures = {
        f"rows_per_second_by_{batch}": await work(store, batch, share // batch * batch)
        for batch in (50, 200)
    }
    figures["rows_per_second_by_1000"] = await work(store, 1000, (await store.counts()).total)
    await store.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    ini, count = sys.argv[1:]
    react(lambda reactor: Deferred.fromCoroutine(measure(reactor, ini, int(count))), [])
