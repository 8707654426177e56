"""
When a failed run is tried again. Pure: an attempt's number and a source of randomness -> a delay.

The table keeps the attempt's number, so the backoff goes on after a restart where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    Exponential backoff with jitter.

    By default the first delay is half a second, each further delay is half as long again, up to a
    minute, and each is varied by up to a half of it. These are the defaults of the Go original's
    first release.

    :param interval: the first delay; positive. Values above `max_interval` are capped.
    :param multiplier: 1 or more. 1 makes all delays the same.
    :param jitter: the part of a delay by which it is varied at most, 0 to 1.
    """

    interval: timedelta = timedelta(seconds=0.5)
    multiplier: float = 1.5
    max_interval: timedelta = timedelta(seconds=60)
    jitter: float = 0.5
    #: A run is given up if its next attempt would be later than this after its first attempt. None:
    #: it is never given up.
    stop_after: timedelta | None = None
    #: A run is given up after this many attempts, 1 or more. None: as many as there may be.
    max_attempts: int | None = None

    @property
    def longest(self) -> timedelta:
        """The longest delay that there can be."""
        return self.max_interval * (1 + self.jitter)

    def delay(
        self, attempt: int, random: Random, retry_after: timedelta | None = None
    ) -> timedelta:
        """
        The delay after a failed attempt.

        :param attempt: the number of the attempt that failed, from 1.
        :param retry_after: the delay that the endpoint asked for (RFC 9110 section 10.2.3), if it
            did. It is a lower bound, honoured up to `max_interval`.
        :return: a duration between ``(1 - jitter)`` and ``(1 + jitter)`` of the backoff, or
            `retry_after` if that is longer.
        """
        backoff = self.max_interval
        try:
            backoff = min(backoff, self.interval * self.multiplier ** (attempt - 1))
        except OverflowError:
            pass  # the power is too large for a float, and so larger than max_interval
        # Nobody gains by guessing when a retry comes.
        varied = backoff * random.uniform(1 - self.jitter, 1 + self.jitter)  # nosec B311
        if retry_after is None:
            return varied
        return max(varied, min(retry_after, self.max_interval))

    def gives_up(self, started: datetime, due: datetime, attempt: int) -> bool:
        """
        Whether a run is given up.

        :param started: when the run's first attempt was.
        :param due: when its next attempt would be.
        :param attempt: the number of the attempt that failed, from 1.
        """
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return True
        return self.stop_after is not None and due - started > self.stop_after
