"""
The cases: each is one run, from a new table on, that gives figures by name.

Each checks as it measures: every job has arrived, and none twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.cases.api import api_get, api_put
from bench.cases.drains import (
    drain,
    drain_among_million,
    drain_history,
    drain_periodic,
    drain_scraped,
    growth,
    store_alone,
    two_daemons,
    workers,
)
from bench.cases.field import field
from bench.cases.finding import finding
from bench.cases.history import pruning, runs_pages
from bench.cases.million import idle_million, start_million
from bench.cases.payloads import payloads
from bench.cases.posts import posts
from bench.cases.punctuality import (
    immediate,
    punctual_burst,
    punctual_burst_3000,
    punctual_burst_many,
    punctual_many,
    punctual_spread,
)
from bench.daemon import Bench, Figures
from bench.report import AT_LEAST, AT_MOST, Target


@dataclass(frozen=True)
class Case:
    """A case and the figures that it should reach."""

    run: Callable[[Bench], Figures]
    targets: tuple[Target, ...] = ()
    engine: str = "mariadb"
    #: What is wanted by turns with the code before: see `Result.by_turns`.
    by_turns: tuple[Target, ...] = ()
    #: Whether it runs only if it is asked for by its name.
    only_by_name: bool = False


def at_least(figure: str, wanted: float) -> Target:
    return Target(figure, AT_LEAST, wanted)


def at_most(figure: str, wanted: float) -> Target:
    return Target(figure, AT_MOST, wanted)


CASES = {
    "posts": Case(posts, (at_least("ratio", 8),), "sqlite"),
    "drain": Case(
        drain,
        (at_least("ratio", 2), at_most("database_cpu_ms_per_job", 0.15)),
        by_turns=(at_most("daemon_cpu_ms_per_job", 0.5),),
    ),
    "drain-history": Case(
        drain_history,
        (at_least("ratio_to_drain", 0.9), at_most("database_cpu_ms_more_per_job", 0.03)),
    ),
    "drain-scraped": Case(
        drain_scraped, (at_least("ratio_to_drain", 0.98), at_most("peak_memory_mb", 90))
    ),
    "drain-periodic": Case(drain_periodic, (at_least("ratio", 1.8),)),
    "drain-among-million": Case(drain_among_million, (at_least("ratio_to_drain", 0.95),)),
    "drain-sqlite": Case(drain, (at_least("ratio", 2),), "sqlite"),
    "field": Case(
        field,
        (
            at_least("of_db_scheduler", 2),
            at_least("ratio", 2),
            at_least("two_workers_of_db_scheduler", 2.6),
            at_least("two_workers_of_one", 1.3),
        ),
    ),
    "punctual-spread": Case(
        punctual_spread,
        (at_most("p50_ms", 5), at_most("p99_ms", 10), at_most("max_ms", 200)),
        by_turns=(at_most("daemon_cpu_ms_per_job", 0.67),),
    ),
    "punctual-many": Case(punctual_many, (at_most("claims_per_job", 2), at_most("p99_ms", 25))),
    "punctual-burst": Case(
        punctual_burst,
        (at_most("p50_ms", 60), at_most("p99_ms", 130), at_most("max_ms", 200)),
        by_turns=(at_most("p50_ms", 0.5), at_most("p99_ms", 0.5)),
    ),
    "punctual-burst-3000": Case(punctual_burst_3000),
    "punctual-burst-many": Case(punctual_burst_many),
    "immediate": Case(immediate, (at_most("p50_ms", 10), at_most("p99_ms", 40))),
    "api-put": Case(api_put, (at_least("per_second", 2500), at_least("ratio", 0.5))),
    "api-get": Case(api_get, (at_least("ratio", 0.7),)),
    "start-million": Case(
        start_million, (at_most("first_post_seconds", 2), at_most("peak_memory_mb", 150))
    ),
    "idle-million": Case(
        idle_million, (at_most("cpu_percent", 0.5), at_most("queries_per_second", 3))
    ),
    "payloads": Case(
        payloads, (at_most("memory_above_idle_mb", 40), at_most("plain_later_by_ms", 50))
    ),
    "finding": Case(
        finding,
        (at_most("worst_p99_ms", 20), at_most("later_by_ms", 5)),
        only_by_name=True,
    ),
    "finding-sqlite": Case(
        finding,
        (at_most("worst_p99_ms", 30), at_most("later_by_ms", 5)),
        "sqlite",
        only_by_name=True,
    ),
    "runs-pages": Case(runs_pages, (at_most("worst_p99_ms", 30),), only_by_name=True),
    "runs-pages-sqlite": Case(
        runs_pages, (at_most("worst_p99_ms", 30),), "sqlite", only_by_name=True
    ),
    "pruning": Case(pruning, (at_most("later_by_ms", 5),), only_by_name=True),
    "pruning-sqlite": Case(pruning, (at_most("later_by_ms", 5),), "sqlite", only_by_name=True),
    "growth": Case(growth, (at_least("ratio", 0.9),)),
    "two-daemons": Case(two_daemons, (at_least("ratio", 1.2),)),
    "workers": Case(workers, (at_least("ratio", 1.3),)),
    "store": Case(store_alone),
}
