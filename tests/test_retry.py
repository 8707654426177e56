"""When a failed run is tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.retry import RetryPolicy
from tests.strategies import thorough

EXACT = RetryPolicy(jitter=0)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)

#: Attempt, and seconds without jitter.
BACKOFF = [(1, 0.5), (2, 0.75), (3, 1.125), (4, 1.6875), (12, 43.248779), (13, 60), (10**6, 60)]


class Extreme(Random):
    """A source of randomness that gives one end of what it is asked for."""

    def __init__(self, end: int) -> None:
        super().__init__()
        self.end = end

    def uniform(self, a: float, b: float) -> float:
        return (a, b)[self.end]


class DelayTests(SynchronousTestCase):
    """The delay after an attempt."""

    def test_backoff(self) -> None:
        """Half a second, half as long again each time, a minute at most, and for ever (P5)."""
        for attempt, seconds in BACKOFF:
            delay = EXACT.delay(attempt, Random())
            self.assertAlmostEqual(delay.total_seconds(), seconds, places=5, msg=str(attempt))

    def test_jitter(self) -> None:
        """The delay is drawn from half to one and a half times the backoff."""
        for attempt, seconds in BACKOFF:
            for end, factor in ((0, 0.5), (1, 1.5)):
                delay = RetryPolicy().delay(attempt, Extreme(end))
                self.assertAlmostEqual(delay.total_seconds(), seconds * factor, places=5)

    def test_jitter_spreads(self) -> None:
        """Jobs that fail together are not tried again together."""
        random = Random(1)
        delays = [RetryPolicy().delay(20, random).total_seconds() for _ in range(200)]
        self.assertLess(min(delays), 36)
        self.assertGreater(max(delays), 84)

    @given(st.integers(1, 10**9), st.randoms(use_true_random=False))
    @thorough(100)
    def test_bounds(self, attempt: int, random: Random) -> None:
        """P5: whatever the attempt's number, there is a delay, and it is within the bounds."""
        delay = RetryPolicy().delay(attempt, random)
        self.assertGreaterEqual(delay, timedelta(seconds=0.25))
        self.assertLessEqual(delay, 1.5 * MINUTE)

    def test_retry_after(self) -> None:
        """Retry-After is a lower bound, honoured up to the longest interval."""
        for asked, seconds in ((-100, 0.5), (0, 0.5), (0.25, 0.5), (7, 7), (60, 60), (86400, 60)):
            delay = EXACT.delay(1, Random(), timedelta(seconds=asked))
            self.assertEqual(delay.total_seconds(), seconds, asked)
        self.assertEqual(EXACT.delay(99, Random(), timedelta.max), MINUTE)
        # What jitter makes longer than was asked for stays so.
        self.assertEqual(RetryPolicy().delay(99, Extreme(1), 70 * MINUTE), 1.5 * MINUTE)
        # No further than the longest interval, also where each is shorter.
        short = RetryPolicy(interval=SECOND, multiplier=1, max_interval=5 * SECOND, jitter=0)
        self.assertEqual(short.delay(1, Random(), MINUTE), 5 * SECOND)

    def test_settings(self) -> None:
        """Each setting has its part: constant, steep, capped at once, spread down to now."""
        for policy, delays in (
            (RetryPolicy(MINUTE, 1.0, MINUTE, jitter=0), [60, 60, 60, 60]),
            (RetryPolicy(SECOND, 1.0, MINUTE, jitter=0), [1, 1, 1, 1]),
            (RetryPolicy(SECOND, 2.0, 5 * SECOND, jitter=0), [1, 2, 4, 5]),
            (RetryPolicy(SECOND, 10.0, MINUTE, jitter=0), [1, 10, 60, 60]),
            (RetryPolicy(10 * MINUTE, 2.0, MINUTE, jitter=0), [60, 60, 60, 60]),
        ):
            found = [policy.delay(attempt, Random()).total_seconds() for attempt in (1, 2, 3, 4)]
            self.assertEqual(found, delays)
        spread = RetryPolicy(SECOND, 1.0, MINUTE, jitter=1.0)
        self.assertEqual(spread.delay(1, Extreme(0)), 0 * SECOND)
        self.assertEqual(spread.delay(1, Extreme(1)), 2 * SECOND)


class GivesUpTests(SynchronousTestCase):
    """When a run is not tried again."""

    def test_for_ever(self) -> None:
        """By default a run is never given up."""
        ever = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
        self.assertFalse(RetryPolicy().gives_up(*ever, 10**6))

    def test_after_a_while(self) -> None:
        """A run is given up when its next attempt would be too long after its first."""
        started = datetime(2026, 1, 1, tzinfo=UTC)
        for stop_after, waited, expected in (
            (MINUTE, 0 * SECOND, False),
            (MINUTE, MINUTE, False),
            (MINUTE, MINUTE + timedelta(microseconds=1), True),
            (0 * SECOND, 0 * SECOND, False),
            (0 * SECOND, SECOND, True),
            (MINUTE, -MINUTE, False),  # a database whose clock was set back
        ):
            policy = RetryPolicy(stop_after=stop_after)
            self.assertEqual(policy.gives_up(started, started + waited, 9), expected, waited)

    def test_after_so_many_attempts(self) -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        for max_attempts, stop_after, attempt, expected in (
            (1, None, 1, True),
            (3, None, 2, False),
            (3, None, 3, True),
            (3, None, 4, True),  # the third one's instance died
            (3, MINUTE, 2, False),
            (3, -SECOND, 1, True),
            (3, MINUTE, 3, True),
        ):
            policy = RetryPolicy(stop_after=stop_after, max_attempts=max_attempts)
            self.assertEqual(policy.gives_up(now, now, attempt), expected, (policy, attempt))
