"""
Claimed runs that are not started yet: they wait for a slot, or for their path's share of the slots.

A run waits in one of two kinds of queues, from its claim until it starts or is given back:

    ready          runs of any path, in the order of their claims; those of one claim in due order
    passed over    one queue a path: runs that came up while their path was at its limit (see
                   `shares.py`), so that runs of other paths behind them in `ready` started first

A run moves from `ready` to its path's queue at most once, and never back. A path's run that was
passed over starts before the path's runs that are still ready. So the runs of one path always start
in the order of their claims.

`Waiting` sets no timer and gives nothing back by itself: `Scheduler` does so. Times are passed in,
in seconds of the reactor's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from dalga.dispatch.shares import Shares
from dalga.model.run import Run

#: Claimed runs wait this long (seconds) for a slot, while none becomes free. Then they are given
#: back, for other instances to run.
SLOT_PATIENCE = 0.25

#: Runs whose path is at its limit wait this long (seconds) before claims skip the path. A healthy
#: path frees a slot sooner.
SHARE_PATIENCE = 0.05


class _Entry(NamedTuple):
    """A run, and when it was claimed, in seconds of the reactor's clock."""

    since: float
    run: Run


class Waiting:
    """
    The queues. They set no bound themselves: the scheduler claims no more runs than `count` leaves
    room for (P10).

    :param shares: how many runs of each path are under way, which the scheduler keeps up to date.
    """

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._ready: deque[_Entry] = deque()
        #: By path; no queue is empty.
        self._passed_over: dict[str, deque[_Entry]] = {}

    def __bool__(self) -> bool:
        return bool(self._ready or self._passed_over)

    @property
    def count(self) -> int:
        """How many runs wait, without the passed-over runs of paths that claims leave out."""
        count = len(self._ready)
        if self._passed_over:
            left_out = self._shares.left_out
            count += sum(len(q) for path, q in self._passed_over.items() if path not in left_out)
        return count

    @property
    def passed_over(self) -> list[str]:
        """The paths with runs that were passed over, the path that was first at its limit first."""
        return list(self._passed_over)

    def add(self, runs: Iterable[Run], now: float) -> None:
        """Runs, in due order, that a claim has just taken."""
        self._ready.extend(_Entry(now, run) for run in runs)

    def take(self, free: int) -> Run | None:
        """
        Take off the next run that may start: of the passed-over runs the one that is due first,
        else the first of the ready runs. Ready runs before it, whose paths are at their limits, are
        passed over.

        :param free: how many slots are free.
        :return: None if no waiting run may start.
        """
        may_start = self._shares.may_start
        if self._passed_over:  # these runs came up before all that are ready
            waiting = [queue for path, queue in self._passed_over.items() if may_start(path, free)]
            if waiting:
                _, run = min(waiting, key=lambda queue: queue[0].run.due).popleft()
                if not self._passed_over[run.key.path]:
                    del self._passed_over[run.key.path]
                return run
        while self._ready:
            entry = self._ready.popleft()
            path = entry.run.key.path
            if may_start(path, free):
                return entry.run
            self._passed_over.setdefault(path, deque()).append(entry)
        return None

    def in_vain(self, path: str, now: float, free: int) -> int:
        """
        How many runs of a passed-over path wait in vain: the oldest has waited for
        `SHARE_PATIENCE`, and may not start yet. Else 0.

        :param free: how many slots are free.
        """
        queue = self._passed_over[path]
        if queue[0].since + SHARE_PATIENCE <= now and not self._shares.may_start(path, free):
            return len(queue)
        return 0

    def take_overdue(self, path: str, now: float) -> list[Run]:
        """Take off all runs of a passed-over path if the oldest has waited for `SLOT_PATIENCE`."""
        if self._passed_over[path][0].since + SLOT_PATIENCE <= now:
            return [run for _, run in self._passed_over.pop(path)]
        return []

    def ready_overdue(self, now: float) -> bool:
        """Whether the oldest run that is ready has waited for `SLOT_PATIENCE`."""
        return bool(self._ready) and self._ready[0].since + SLOT_PATIENCE <= now

    def take_all(self) -> list[Run]:
        """Take off all runs: those that were passed over, path by path, then those ready."""
        queues = [*self._passed_over.values(), self._ready]
        self._passed_over, self._ready = {}, deque()
        return [run for queue in queues for _, run in queue]

    def next_look(self, now: float) -> float:
        """
        Seconds until the patience of the oldest run of any queue is over, at most `SHARE_PATIENCE`:
        a run that is claimed meanwhile loses its patience no sooner. Not to be asked if no run
        waits, nor before what is overdue at `now` is taken off.
        """
        oldest = [queue[0].since for queue in (self._ready, *self._passed_over.values()) if queue]
        times = [since + wait for since in oldest for wait in (SHARE_PATIENCE, SLOT_PATIENCE)]
        delay = min(time for time in times if time > now) - now
        return min(delay, SHARE_PATIENCE)
