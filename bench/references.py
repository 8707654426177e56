"""What Dalga is held against: as many POSTs as it can make, to the same sink, without Dalga."""

from __future__ import annotations

import json
from typing import NamedTuple

from bench.daemon import CONNECTIONS, Bench, Program
from bench.sink import check

#: POSTs of a bare treq loop, which makes some 2,500 a second, and of the lean one.
BARE, LEAN = 10_000, 20_000


class Posted(NamedTuple):
    """What the POSTs of one process came to."""

    per_second: float
    #: Milliseconds.
    cpu_per_post: float


def posted(bench: Bench, way: str, count: int, program: Program | None = None) -> Posted:
    """
    Make so many POSTs by `bench.posts`.

    :param way: one of its ways.
    :param program: whose `bench.posts`; without one, this checkout's.
    """
    bench.sink.forget()
    arguments = [way, bench.sink.url, str(count), str(CONNECTIONS)]
    took = json.loads((program or Program()).run_module("posts", *arguments))
    check(bench.sink.arrivals(), count)
    return Posted(count / took["seconds"], took["cpu"] / count * 1000)


def bare(bench: Bench) -> float:
    """POSTs a second of treq alone."""
    return posted(bench, "treq", bench.jobs(BARE)).per_second


def lean(bench: Bench) -> float:
    """POSTs a second of the least that a POST takes on Twisted."""
    return posted(bench, "lean", bench.jobs(LEAN)).per_second
