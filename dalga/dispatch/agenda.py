"""
The in-memory heap of next-run times.

The agenda tells when to wake, without asking the database. It holds instants of the near future,
and no jobs. It decides nothing: the claim finds in the database which jobs run. So mistakes cost
little:

    a time whose job was deleted or moved     one claim that finds nothing
    a time that is missing                    the job waits for the next scan, at most
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import datetime


class Agenda:
    """
    Due times up to a horizon, the earliest first, each once.

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
        self._held: set[datetime] = set()

    def __len__(self) -> int:
        return len(self._heap)

    def fill(self, dues: Iterable[datetime], horizon: datetime) -> datetime:
        """
        Take in the due times up to `horizon` that a scan has found. The times that are held stay.

        :return: the new horizon: earlier than `horizon` if there are more times than `limit`.
        """
        self.horizon = horizon
        for due in dues:
            self._push(due)
        return self.horizon

    def add(self, due: datetime) -> bool:
        """
        Take in one due time that this instance has just written.

        :return: whether it is the earliest time now, so that the scheduler has to wake sooner.
        """
        if self.horizon is None or due > self.horizon:
            return False
        self._push(due)
        return bool(self._heap) and self._heap[0] == due

    def next(self) -> datetime | None:
        """The earliest due time that is held."""
        return self._heap[0] if self._heap else None

    def forget_until(self, now: datetime) -> None:
        """
        Drop the times up to and including `now`: a claim has just looked for their rows.

        :param now: the database's time of that claim.
        """
        while self._heap and self._heap[0] <= now:
            self._held.discard(heapq.heappop(self._heap))

    def _push(self, due: datetime) -> None:
        if self.horizon is None or due > self.horizon or due in self._held:
            return
        heapq.heappush(self._heap, due)
        self._held.add(due)
        if len(self._heap) > self.limit:
            # Keep the earlier half. That is rare, and cheaper than a heap with two ends.
            self._heap = heapq.nsmallest(self.limit // 2, self._heap)
            self._held = set(self._heap)
            self.horizon = self._heap[-1]
