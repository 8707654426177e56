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
    drain_periodic,
    growth,
    store_alone,
    two_daemons,
)
from bench.cases.million import idle_million, start_million
from bench.cases.posts import posts
from bench.cases.punctuality import immediate, punctual_burst, punctual_spread
from bench.daemon import Bench, Figures


@dataclass(frozen=True)
class Case:
    """A case and the figures that it should reach."""

    run: Callable[[Bench], Figures]
    #: A figure's name, "at least" or "at most", and the bound.
    targets: tuple[tuple[str, str, float], ...] = ()
    engine: str = "mariadb"


AT_LEAST, AT_MOST = "at least", "at most"

CASES = {
    "posts": Case(posts, (("ratio", AT_LEAST, 8.0),), "sqlite"),
    "drain": Case(
        drain,
        (
            ("ratio", AT_LEAST, 1.0),
            ("daemon_cpu_ms_per_job", AT_MOST, 0.34),
            ("database_cpu_ms_per_job", AT_MOST, 0.15),
        ),
    ),
    "drain-periodic": Case(drain_periodic, (("ratio", AT_LEAST, 0.95),)),
    "drain-among-million": Case(drain_among_million, (("ratio_to_drain", AT_LEAST, 0.95),)),
    "drain-sqlite": Case(drain, (("ratio", AT_LEAST, 0.95),), "sqlite"),
    "punctual-spread": Case(
        punctual_spread,
        (("p50_ms", AT_MOST, 5), ("p99_ms", AT_MOST, 25), ("max_ms", AT_MOST, 200)),
    ),
    "punctual-burst": Case(
        punctual_burst,
        (("p50_ms", AT_MOST, 60), ("p99_ms", AT_MOST, 130), ("max_ms", AT_MOST, 200)),
    ),
    "immediate": Case(immediate, (("p50_ms", AT_MOST, 10), ("p99_ms", AT_MOST, 40))),
    "api-put": Case(api_put, (("per_second", AT_LEAST, 2500), ("ratio", AT_LEAST, 0.5))),
    "api-get": Case(api_get, (("ratio", AT_LEAST, 0.7),)),
    "start-million": Case(
        start_million, (("first_post_seconds", AT_MOST, 2), ("peak_memory_mb", AT_MOST, 150))
    ),
    "idle-million": Case(
        idle_million, (("cpu_percent", AT_MOST, 0.5), ("queries_per_second", AT_MOST, 3))
    ),
    "growth": Case(growth, (("ratio", AT_LEAST, 0.9),)),
    "two-daemons": Case(two_daemons, (("ratio", AT_LEAST, 1.2),)),
    "store": Case(store_alone),
}
