"""POSTs alone, without a daemon."""

from __future__ import annotations

from bench.daemon import Bench, Figures
from bench.references import BARE, posted

#: POSTs by Dalga's client and by the lean loop.
COUNT = 100_000


def posts(bench: Bench) -> Figures:
    """As a daemon makes them, by treq alone, and by a protocol that does no more."""
    ours = posted(bench, "ours", bench.jobs(COUNT), bench.program)
    treq = posted(bench, "treq", bench.jobs(BARE))
    lean = posted(bench, "lean", bench.jobs(COUNT))
    return {
        "posts_per_second": ours.per_second,
        "bare_treq_per_second": treq.per_second,
        "lean_per_second": lean.per_second,
        "ratio": ours.per_second / treq.per_second,
        "of_lean": ours.per_second / lean.per_second,
        "ratio_of_cpu": treq.cpu_per_post / ours.cpu_per_post,
        "cpu_ms_per_post": ours.cpu_per_post,
        "bare_treq_cpu_ms_per_post": treq.cpu_per_post,
        "lean_cpu_ms_per_post": lean.cpu_per_post,
    }
