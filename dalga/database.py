"""
The store over the database that the configuration names: how many connections it has for what, and
what is said while a start waits for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from threading import Timer
from typing import Any, NamedTuple

from dalga.config.sections import MySQLConfig, SQLiteConfig
from dalga.metrics import Metrics
from dalga.model.alert import NO_TARGETS, Targets
from dalga.model.delivery import MAX_PAYLOAD
from dalga.model.record import HistoryMode
from dalga.store.clock import DatabaseClock
from dalga.store.dialect import Dialect
from dalga.store.mysql import MySQL
from dalga.store.mysqltls import tls
from dalga.store.places import Places
from dalga.store.sqlite import SQLite
from dalga.store.sqlitefile import FileGuard
from dalga.store.table import JobsTable
from dalga.store.transactions import LastLoss, Transactions

#: How many connections the scheduler uses, at most: one each for claims, records, scans and
#: heartbeats.
RUN_THREADS = 4
#: How many connections the API uses, at most.
API_THREADS = 4

#: A start that has waited this long (seconds) for the database says so.
SLOW = 2.0

#: With this many connections or more, one is kept for looking after sessions that were given up.
WITH_SPARE = 3


class Lanes(NamedTuple):
    """How the connections are shared out."""

    #: How many the scheduler has.
    runs: int
    #: How many the API has; 0 where it shares the scheduler's only one.
    api: int
    #: Whether one more is kept for looking after sessions that were given up.
    spare: bool


def lanes(limit: int) -> Lanes:
    """
    Share the connections out: half to the scheduler and half to the API, but to neither more than
    it uses.

    :param limit: how many connections there may be in all; 0 for the default.
    """
    limit = limit or MySQLConfig().max_open_conns
    spare = limit >= WITH_SPARE
    most = limit - spare
    runs = min(RUN_THREADS, (most + 1) // 2)
    return Lanes(runs, min(API_THREADS, most - runs), spare)


def dialect_of(
    database: MySQLConfig | SQLiteConfig, workers: int = 1, max_payload: int = MAX_PAYLOAD
) -> Dialect:
    """
    The dialect of the database that the configuration names. Reads the certificates and keys that
    are needed to reach it.

    :param workers: how many processes will use it at once.
    :param max_payload: how long a job's payload may be, in octets.
    :raises StartupError: if a certificate or a key can't be used.
    """
    if isinstance(database, SQLiteConfig):
        return SQLite(os.path.abspath(database.path))
    return server(database, workers, max_payload)


def build_store(
    database: MySQLConfig | SQLiteConfig,
    reactor: Any,
    random: Random,
    dialect: Dialect | None = None,
    metrics: Metrics | None = None,
    targets: Targets = NO_TARGETS,
    history: HistoryMode = HistoryMode.ALL,
) -> JobsTable:
    """
    Build the store that the configuration asks for. It is not open yet.

    :param reactor: the real reactor, or as much of it as adbapi needs. Leases are measured with its
        ``seconds``.
    :param dialect: the `dialect_of` the configuration, if it is there already.
    :param metrics: counts the transactions; None if nobody looks.
    :param targets: where alerts are sent.
    :param history: which runs get a record.
    """
    counting = metrics or Metrics()
    if dialect is None:
        dialect = dialect_of(database)
    clock = DatabaseClock(lambda: float(reactor.seconds()))
    last_loss = LastLoss()

    def lane(dialect: Dialect, threads: int) -> Transactions:
        return Transactions(reactor, dialect, clock, random, threads, last_loss, counting)

    if isinstance(database, SQLiteConfig):
        # A file has one writer at a time. With one connection, transactions queue here, and not in
        # SQLite.
        only = lane(dialect, 1)
        guard = FileGuard(os.path.abspath(database.path))
        return JobsTable(
            dialect, clock, only, only.for_the_api(), guard, targets=targets, history=history
        )
    threads = lanes(database.max_open_conns)
    runs = lane(dialect, threads.runs)
    api = lane(dialect, threads.api) if threads.api else runs.for_the_api()
    return JobsTable(dialect, clock, runs, api, targets=targets, history=history)


def server(database: MySQLConfig, workers: int = 1, max_payload: int = MAX_PAYLOAD) -> MySQL:
    """
    The MySQL or MariaDB server that the configuration names.

    :param workers: how many processes will use it at once.
    :param max_payload: how long a job's payload may be, in octets.
    :raises StartupError: if a certificate or a key can't be used.
    """
    runs, api, spare = lanes(database.max_open_conns)
    return MySQL(
        servers=database.servers,
        database=database.db,
        table=database.table,
        user=database.user,
        password=database.password,
        dial_timeout=database.dial_timeout,
        read_timeout=database.read_timeout,
        write_timeout=database.write_timeout,
        encryption=tls(database.ssl_mode, database.ssl_ca, database.ssl_cert, database.ssl_key),
        places=Places(runs + api, spare),
        processes=workers,
        max_payload=max_payload,
    )


@contextmanager
def said_if_slow(where: str) -> Iterator[None]:
    """
    Say on the standard error, once, that the start waits for the database, if the work in this
    context takes longer than `SLOW`. There is no log yet. A server that takes connections and says
    nothing takes `MySQLConfig.read_timeout`, and each of several servers does.

    :param where: the database, as a person would name it.
    """

    def say() -> None:
        line = f"dalga: the start waits for {where}, which has not answered for {SLOW:g} s"
        print(line, file=sys.stderr, flush=True)

    timer = Timer(SLOW, say)
    timer.daemon = True  # so that Ctrl-C ends the process at once
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # twistd may fork after this, and only this thread would be in the child
