"""
How many slots one path may use, so that a path that hangs leaves some for the others.

A slot is the room for one run, and of `free` slots a path may take another while it has fewer than
`ALPHA` times as many. With 100 slots, path by path::

    a, alone             takes 80: with 20 free, 80 are not fewer than 4 x 20
    b, beside it         takes 16 of these 20: with 4 free, 16 are not fewer than 4 x 4
    both hang from 0     45 and 44

So some slots are always left for the path that comes next. These are dynamic thresholds, by which
switches share a buffer among their ports (Choudhury and Hahne, 1998). There is nothing to
configure, and nothing to estimate.

A path at its limit whose claimed runs wait in vain is left out of the next claims: rows of it would
be claimed only to be given back. `Shares` says for how long. It decides nothing else: waiting runs,
claims and timers are the scheduler's.
"""

from __future__ import annotations

#: With more, a path that is alone gets more slots, and fewer are left for the next one.
ALPHA = 4


class Shares:
    """
    The running runs of each path, and the paths that are left out of claims. Both have at most as
    many entries as there are slots.
    """

    def __init__(self) -> None:
        #: How many runs of each path are under way; no entry means none.
        self._running: dict[str, int] = {}
        #: The paths that claims are to skip. The number is how many of the path's own runs have
        #: still to end until it is let in; other paths' ends may let it in before.
        self.left_out: dict[str, int] = {}
        #: How many runs each of these paths had waiting, and wants room for.
        self._waited: dict[str, int] = {}

    def may_start(self, path: str, free: int, more: int = 0) -> bool:
        """
        Whether a path may have one more run. With none under way it always may.

        :param free: how many slots are free.
        :param more: how many further runs of this path are taken to start before that one.
        """
        # With no slot free, this is for the next one that becomes free.
        return self._running.get(path, 0) + more < ALPHA * max(free - more, 1)

    def started(self, path: str) -> None:
        """A run of this path has started."""
        self._running[path] = self._running.get(path, 0) + 1

    def ended(self, path: str) -> None:
        """A run of this path has ended."""
        running = self._running.pop(path) - 1
        if running:
            self._running[path] = running
        if path in self.left_out:
            self.left_out[path] -= 1

    def leave_out(self, path: str, waiting: int) -> None:
        """
        Stop claiming this path until `waiting` of its runs have ended, or until other paths have
        left room for `waiting` more of them, or for half of the free slots. With less room, each
        end would cost a claim that could start one run.

        The first always happens: `waiting` is capped at the number of the path's running runs.
        """
        self.left_out[path] = self._waited[path] = min(waiting, self._running[path])

    def let_in(self, free: int) -> bool:
        """Claim the paths again that have room now. True if there were any."""
        room = [path for path in self.left_out if self._has_room(path, free)]
        for path in room:
            del self.left_out[path], self._waited[path]
        return bool(room)

    def _has_room(self, path: str, free: int) -> bool:
        if self.left_out[path] <= 0:
            return self.may_start(path, free)
        # Half of the free slots is enough: the ends of the other paths' runs alone may never leave
        # room for all that waited.
        return self.may_start(path, free, min(self._waited[path] - 1, free // 2))
