"""
Claimed runs that are not started yet: they wait for a slot, or for their path's share of the slots.

A *claim* is the transaction in which an instance takes due runs for itself. To *give back* a run is
to write in its row that it has not begun, so that any instance may claim it. `shares.py` explains
slots and paths, and says when a path is *at its limit*: may not start another run now.

A claimed run waits in one of two kinds of queues, until it starts or is given back::

    ready          one queue, in the order of the claims; within a claim the run that is due first
                   is the first
    passed over    one queue a path: runs that came up while their path was at its limit

A run *comes up* when it is the first in `ready`, and a slot is free. An example, with one free
slot, and path a at its limit::

    the queues                  what happens
    ready a1 b2 a3              a1 comes up, and is passed over; b2 comes up, and starts
    passed over a1, ready a3    a run of path a ends: a1 starts
    ready a3                    another run of path a ends: a3 comes up, and starts

What always holds (docs/promises.md lists the promises P1 to P11):

- A run moves from `ready` to its path's queue at most once, and never back.
- The runs of one path start in the order in which they were claimed: those that were passed over
  before those that are still ready.
- No run waits longer than `SLOT_PATIENCE`: `Slots` gives it back then. So all runs that wait were
  claimed within that time, which bounds their number (P10: memory is bounded).

What breaks the order: a run that is given back loses its place. When it is claimed again, runs of
its path that were claimed after it may have started.

`Waiting` sets no timer, and gives nothing back by itself: `Slots` does both. Times are passed in,
in seconds of the reactor's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from dalga.dispatch.shares import Shares
from dalga.model.key import RawKey
from dalga.model.run import Run
from dalga.model.why import Held

#: Claimed runs wait this long (seconds) for a slot, counted from their claim. Then they are given
#: back, for other instances to run. A choice, not measured. If it were shorter, more runs would be
#: claimed in vain. If it were longer, a run could begin even longer after its job was deleted (P4:
#: the user's last word wins).
SLOT_PATIENCE = 0.25

#: Runs whose path is at its limit wait this long (seconds), counted from their claim, before claims
#: leave the path out. Reckoned, so that a healthy path is not left out: with 100 slots, 80 of its
#: runs are running and 20 wait. At 200 ms an answer, one of the 80 ends every 2.5 ms, and so the 20
#: have begun after 50 ms.
SHARE_PATIENCE = 0.05


class _Entry(NamedTuple):
    """A run, and when it was claimed, in seconds of the reactor's clock."""

    claimed_at: float
    run: Run


class Waiting:
    """:param shares: which paths may start a run; `Slots` keeps it up to date."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._ready: deque[_Entry] = deque()
        #: By path, in the order in which the paths came to have such runs. No queue is empty.
        self._passed_over: dict[str, deque[_Entry]] = {}
        #: How many octets the payloads of all runs that wait have.
        self.payloads = 0

    def __bool__(self) -> bool:
        """Whether any run waits, also of a path that claims leave out."""
        return bool(self._ready or self._passed_over)

    @property
    def slots_needed(self) -> int:
        """
        How many slots a claim has to leave for the runs that wait: one for each run, but none for
        the passed-over runs of a path that claims leave out. The claim takes runs of other paths,
        and they are to start before the runs of that path.
        """
        needed = len(self._ready)
        if self._passed_over:
            left_out = self._shares.left_out
            needed += sum(len(q) for path, q in self._passed_over.items() if path not in left_out)
        return needed

    def held(self, key: RawKey) -> Held | None:
        """What a job's run waits for; None if it does not wait here."""
        if any(run.key == key for _, run in self._passed_over.get(key.path, ())):
            return Held.FOR_SHARE
        return Held.FOR_SLOT if any(run.key == key for _, run in self._ready) else None

    def add(self, runs: Iterable[Run], now: float) -> None:
        """Runs that a claim has just taken, the one that is due first in front."""
        for run in runs:
            self._ready.append(_Entry(now, run))
            self.payloads += len(run.payload)

    def pop(self, free: int) -> Run | None:
        """
        Remove the next run that may start.

        That is a passed-over run, if the first of any path's queue may start: of several such, the
        one that is due first (P6: oldest first). Else it is the first ready run that may start.
        Ready runs before it are passed over.

        :param free: how many slots are free, at least 1.
        :return: None if no waiting run may start.
        """
        may_start = self._shares.may_start
        if self._passed_over:
            queues = [queue for path, queue in self._passed_over.items() if may_start(path, free)]
            if queues:
                run = min(queues, key=lambda queue: queue[0].run.due).popleft().run
                if not self._passed_over[run.key.path]:
                    del self._passed_over[run.key.path]
                self.payloads -= len(run.payload)
                return run
        # Now no path with passed-over runs may start one, so that none is overtaken below.
        while self._ready:
            entry = self._ready.popleft()
            path = entry.run.key.path
            if may_start(path, free):
                self.payloads -= len(entry.run.payload)
                return entry.run
            self._passed_over.setdefault(path, deque()).append(entry)
        return None

    def paths_to_leave_out(self, now: float, free: int) -> dict[str, int]:
        """
        The paths at their limits whose oldest passed-over run was claimed `SHARE_PATIENCE` ago or
        earlier, and how many passed-over runs each has.

        :param free: how many slots are free; maybe none, see `Shares.may_start`.
        """
        return {
            path: len(queue)
            for path, queue in self._passed_over.items()
            if queue[0].claimed_at + SHARE_PATIENCE <= now
            and not self._shares.may_start(path, free)
        }

    def pop_overdue_paths(self, now: float) -> list[Run]:
        """
        Remove the passed-over runs of each path whose oldest such run has waited for
        `SLOT_PATIENCE`. The path's younger ones go, too: they are behind it.
        """
        overdue = [
            path
            for path, queue in self._passed_over.items()
            if queue[0].claimed_at + SLOT_PATIENCE <= now
        ]
        runs = [run for path in overdue for _, run in self._passed_over.pop(path)]
        self.payloads -= sum(len(run.payload) for run in runs)
        return runs

    def ready_is_overdue(self, now: float) -> bool:
        """
        Whether the oldest ready run has waited for `SLOT_PATIENCE`. Then slots become free too
        slowly for all runs that wait here: they are better given back, whatever their path.
        """
        return bool(self._ready) and self._ready[0].claimed_at + SLOT_PATIENCE <= now

    def pop_all(self) -> list[Run]:
        """Remove all runs: those that were passed over, path by path, then those ready."""
        queues = [*self._passed_over.values(), self._ready]
        self._passed_over, self._ready, self.payloads = {}, deque(), 0
        return [run for queue in queues for _, run in queue]

    def seconds_to_next_look(self, now: float) -> float:
        """
        Seconds from `now` until `paths_to_leave_out`, `pop_overdue_paths` and `ready_is_overdue`
        are to be called next: until the oldest run of a queue has waited for `SHARE_PATIENCE` or
        `SLOT_PATIENCE`. At most `SHARE_PATIENCE`, so that one timer is enough for the runs that are
        claimed meanwhile.

        The next look is never late for `SLOT_PATIENCE`. It may be late for `SHARE_PATIENCE`, by
        less than that time: for a ready run that was not the oldest, and is passed over meanwhile.
        """
        oldest = [
            queue[0].claimed_at for queue in (self._ready, *self._passed_over.values()) if queue
        ]
        ends = [at + patience for at in oldest for patience in (SHARE_PATIENCE, SLOT_PATIENCE)]
        return min([SHARE_PATIENCE, *(end - now for end in ends if end > now)])
