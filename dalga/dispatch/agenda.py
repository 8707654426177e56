"""
The in-memory heap of next-run times.

The agenda tells when to wake, and how many jobs are due then, without asking the database. It holds
instants of the near future, and no jobs. It decides nothing: the claim finds in the database which
jobs run. So mistakes cost little:

    a time whose job was deleted or moved     one claim that finds nothing
    a time that is missing                    the job waits for the next scan, at most
    a wrong number of jobs                    a claim takes too few rows: the next one takes more
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from datetime import datetime


class Agenda:
    """
    Due times up to a horizon, the earliest first, each once, with the number of its jobs.

    Later times than the horizon are not kept: the scan that moves the horizon on brings them. If
    there would be more times than `limit`, the horizon moves back instead. So the memory is bounded
    (P10).

    :param limit: how many times are held, at most.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self.limit = limit
        #: All due times up to this one (aware UTC, inclusive) that the last scan found are held.
        #: None before the first scan.
        self.horizon: datetime | None = None
        self._heap: list[datetime] = []
        #: How many jobs are due at each time that is held.
        self._jobs: dict[datetime, int] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def fill(self, dues: Iterable[datetime], horizon: datetime) -> datetime:
        """
        Take in the due times up to `horizon` that a scan has found, one for each job. Times that
        are held already stay. If the scan has found such a time, it has counted its jobs anew.

        :return: the new horizon: earlier than `horizon` if there are more times than `limit`.
        """
        self.horizon = horizon
        for due, jobs in Counter(dues).items():
            if due in self._jobs:
                self._jobs[due] = jobs
            else:
                self._push(due, jobs)
        return self.horizon

    def add(self, due: datetime) -> None:
        """Take in the due time of one job that this instance has just written."""
        if due in self._jobs:
            self._jobs[due] += 1
        else:
            self._push(due, 1)

    def next(self) -> datetime | None:
        """The earliest due time that is held."""
        return self._heap[0] if self._heap else None

    def jobs_until(self, then: datetime, enough: int) -> int:
        """
        How many jobs are due up to and including `then`; if there are `enough` or more of them,
        any number from `enough` on. No more times are looked at than make up that number.
        """
        jobs, places = 0, [0]
        while places and jobs < enough:
            place = places.pop()
            if place < len(self._heap) and (due := self._heap[place]) <= then:
                jobs += self._jobs[due]
                places += (2 * place + 2, 2 * place + 1)
        return jobs

    def forget_until(self, now: datetime) -> int:
        """
        Drop the times up to and including `now`: a claim has just looked for their rows.

        :param now: the database's time of that claim.
        :return: how many jobs were due at these times.
        """
        jobs = 0
        while self._heap and self._heap[0] <= now:
            jobs += self._jobs.pop(heapq.heappop(self._heap))
        return jobs

    def _push(self, due: datetime, jobs: int) -> None:
        """Hold a time that is not held yet."""
        if self.horizon is None or due > self.horizon:
            return
        heapq.heappush(self._heap, due)
        self._jobs[due] = jobs
        if len(self._heap) > self.limit:
            # Keep the earlier half. That is rare, and cheaper than a heap with two ends.
            self._heap = heapq.nsmallest(self.limit // 2, self._heap)
            self._jobs = {due: self._jobs[due] for due in self._heap}
            self.horizon = self._heap[-1]
