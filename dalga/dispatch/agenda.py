"""
The in-memory heap of next-run times.

It tells when to wake without asking the database. It holds instants only, of the near future only,
and decides nothing: what runs is what the claim finds in the database. So a time whose job was
deleted or moved does no harm (one claim that finds nothing), and a time that is missing costs at
most the wait until the next scan.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import datetime


class Agenda:
    """
    Due times up to a horizon, earliest first, each once.

    Beyond the horizon nothing is kept: the scan that moves the horizon on brings what lies there.
    That bounds the memory, together with `limit`: what would be more than so many instants pulls
    the horizon in instead.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self.limit = limit
        #: Up to where (aware UTC, inclusive) all due times known to the last scan are held.
        self.horizon: datetime | None = None
        self._heap: list[datetime] = []
        self._held: set[datetime] = set()

    def __len__(self) -> int:
        return len(self._heap)

    def fill(self, dues: Iterable[datetime], horizon: datetime) -> datetime:
        """
        Take in what a scan found up to `horizon`; what came by `add` meanwhile stays.

        :return: the horizon now: earlier than `horizon` if there were more times than `limit`.
        """
        self.horizon = horizon
        for due in dues:
            self._push(due)
        return self.horizon

    def add(self, due: datetime) -> bool:
        """
        Take in one due time that this instance has just written.

        :return: whether it is now the earliest, so that a sleeper has to be woken sooner.
        """
        if self.horizon is None or due > self.horizon:
            return False
        self._push(due)
        return bool(self._heap) and self._heap[0] == due

    def next(self) -> datetime | None:
        """The earliest due time that is held."""
        return self._heap[0] if self._heap else None

    def forget_until(self, now: datetime) -> None:
        """Drop the times up to and including `now`: a claim has just looked there."""
        while self._heap and self._heap[0] <= now:
            self._held.discard(heapq.heappop(self._heap))

    def _push(self, due: datetime) -> None:
        if self.horizon is None or due > self.horizon or due in self._held:
            return
        heapq.heappush(self._heap, due)
        self._held.add(due)
        if len(self._heap) > self.limit:
            # Keep the nearest half: rare, and cheaper than holding a heap with two ends.
            self._heap = heapq.nsmallest(self.limit // 2, self._heap)
            self._held = set(self._heap)
            self.horizon = self._heap[-1]
