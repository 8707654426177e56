"""Traces of runs: W3C Trace Context, version 00."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.trace import trace_id, traceparent

VALID = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01")
RUN = "5f0c1b2c3d4e5f60718293a4b5c6d7e8-17"


class TraceTests(SynchronousTestCase):
    def test_an_example(self) -> None:
        """The same on all instances, of all versions: a run's attempts may be made by several."""
        trace = "9499bc1c8ed0fca7bbbf6b2b2b10c637"
        self.assertEqual(trace_id(RUN), trace)
        self.assertEqual(traceparent(RUN, 1), f"00-{trace}-8ed0fca700000001-01")
        self.assertEqual(traceparent(RUN, 260), f"00-{trace}-8ed0fca700000104-01")

    def test_runs_of_one_claim(self) -> None:
        """Their ids have the same token, and their traces are others in each half."""
        traces = [trace_id(f"{'0' * 32}-{row}") for row in range(1000)]
        for half in (slice(16), slice(16, 32)):
            self.assertEqual(len({trace[half] for trace in traces}), 1000)

    @given(st.binary(min_size=16, max_size=16), st.integers(1, 2**63), st.integers(1, 2**32 - 1))
    def test_valid(self, token: bytes, row: int, attempt: int) -> None:
        self.assertRegex(traceparent(f"{token.hex()}-{row}", attempt), VALID)
