"""
The trace of a run, as the W3C's Trace Context has it (version 00). Pure.

All attempts of a run have the same trace id, whichever instance makes them, as it follows from the
run's id. Each attempt has a parent id of its own, under which the endpoint's spans hang::

    run id                  5f0c1b2c3d4e5f60718293a4b5c6d7e8-17
    first attempt   00-9499bc1c8ed0fca7bbbf6b2b2b10c637-8ed0fca700000001-01
    second attempt  00-9499bc1c8ed0fca7bbbf6b2b2b10c637-8ed0fca700000002-01
"""

from __future__ import annotations

from hashlib import blake2b


def trace_id(run_id: str) -> str:
    """32 hexadecimal digits, which look random, as tools that sample traces go by some of them."""
    return blake2b(run_id.encode(), digest_size=16).hexdigest()


def traceparent(run_id: str, attempt: int) -> str:
    """
    The value of the header: version, trace id, parent id, and the flag that the trace is sampled.

    :param attempt: from 1, as a parent id of 0 would be invalid, to 2**32 - 1.
    """
    # As in `trace_id`: a call less, as each request comes here.
    trace = blake2b(run_id.encode(), digest_size=16).hexdigest()
    return f"00-{trace}-{trace[8:16]}{attempt:08x}-01"
