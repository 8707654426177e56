"""
The trace of a run, as the W3C's Trace Context has it (version 00). Pure.

All attempts of a run have the same trace id, whichever instance makes them, as it follows from the
run's id. Each attempt has a parent id of its own, under which the endpoint's spans hang::

    run id                  5f0c1b2c3d4e5f60718293a4b5c6d7e8-17
    first attempt   00-9499bc1c8ed0fca7bbbf6b2b2b10c637-8ed0fca700000001-01
    second attempt  00-9499bc1c8ed0fca7bbbf6b2b2b10c637-8ed0fca700000002-01
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

#: A hash of nothing yet. To copy it takes half the time of a new one, and each request comes here.
_EMPTY = blake2b(digest_size=16)


def trace_id(run_id: str) -> str:
    """32 hexadecimal digits, which look random, as tools that sample traces go by some of them."""
    hashed = _EMPTY.copy()
    hashed.update(run_id.encode())
    return hashed.hexdigest()


def traceparent(run_id: str, attempt: int) -> str:
    """
    The value of the header: version, trace id, parent id, and the flag that the trace is sampled.

    :param attempt: from 1, as a parent id of 0 would be invalid, to 2**32 - 1.
    """
    trace = trace_id(run_id)
    return f"00-{trace}-{trace[8:16]}{_behind(attempt)}"


@lru_cache(maxsize=100)
def _behind(attempt: int) -> str:
    """What follows the trace id's digits in the parent id. Most attempts are first ones."""
    return f"{attempt:08x}-01"
