"""Generated names: ULIDs, in the order of their times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.key import JobKey
from dalga.model.name import RANDOM_OCTETS, generated_name
from tests.strategies import thorough

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

times = st.datetimes(min_value=datetime(1970, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
octets = st.binary(min_size=RANDOM_OCTETS, max_size=RANDOM_OCTETS)


class NameTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """The first is the example of https://github.com/ulid/spec."""
        for milliseconds, random, name in [
            (1469918176385, bytes(10), "01ARYZ6S41" + "0" * 16),
            (0, bytes(10), "0" * 26),
            (1, bytes(9) + b"\x01", "0000000001" + "0" * 15 + "1"),
            (32, b"\xff" * 10, "0000000010" + "Z" * 16),
        ]:
            at = EPOCH + MILLISECOND * milliseconds
            self.assertEqual(generated_name(at, random), name)

    @thorough(200)
    @given(times, octets, times, octets)
    def test_in_the_order_of_time(
        self, at: datetime, random: bytes, other: datetime, more: bytes
    ) -> None:
        first, second = generated_name(at, random), generated_name(other, more)
        for name in (first, second):
            self.assertRegex(name, re.compile(r"\A[0-7][0-9A-HJKMNP-TV-Z]{25}\Z"))
            JobKey("path", name)
        mine, others = (at - EPOCH) // MILLISECOND, (other - EPOCH) // MILLISECOND
        self.assertEqual((mine, random) < (others, more), first < second)
        self.assertEqual((mine, random) == (others, more), first == second)

    def test_refused(self) -> None:
        for at, random in [
            (EPOCH - MILLISECOND, bytes(10)),
            (EPOCH, bytes(9)),
            (EPOCH, bytes(11)),
        ]:
            self.assertRaises(ValueError, generated_name, at, random)
