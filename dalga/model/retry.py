"""
When a failed run is tried again. A pure policy: the attempt's number and a source of randomness in,
a delay out. The attempt's number is kept in the table, so the backoff goes on where it was after a
restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    Exponential backoff with jitter; a `multiplier` of 1 makes it constant.

    The defaults are those of the Go original's first release: half a second, half as long again
    each time, a minute at most, each varied by up to a half, for ever.

    :param interval: more than nothing; no more than `max_interval`, or that is what holds.
    :param multiplier: 1 or more.
    :param jitter: 0 to 1.
    """

    interval: timedelta = timedelta(seconds=0.5)
    multiplier: float = 1.5
    max_interval: timedelta = timedelta(seconds=60)
    jitter: float = 0.5
    #: Since the run's first attempt; None: never given up.
    stop_after: timedelta | None = None

    def delay(
        self, attempt: int, random: Random, retry_after: timedelta | None = None
    ) -> timedelta:
        """
        How long to wait after a failed attempt.

        :param attempt: the number of the attempt that failed, from 1.
        :param retry_after: what the endpoint asked for (RFC 9110 section 10.2.3), if it did. It is
            a lower bound, honoured up to `max_interval`.
        :return: a duration between ``(1 - jitter)`` and ``(1 + jitter)`` of the backoff, or
            `retry_after` where that is longer.
        """
        backoff = self.max_interval
        try:
            backoff = min(backoff, self.interval * self.multiplier ** (attempt - 1))
        except OverflowError:
            pass  # so many attempts that the power is past any float: the maximum it is
        varied = backoff * random.uniform(1 - self.jitter, 1 + self.jitter)
        if retry_after is None:
            return varied
        return max(varied, min(retry_after, self.max_interval))

    def gives_up(self, started: datetime, due: datetime) -> bool:
        """
        Whether a run is not tried again.

        :param started: when its first attempt was.
        :param due: when its next attempt would be.
        """
        return self.stop_after is not None and due - started > self.stop_after
