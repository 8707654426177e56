"""
Who may have how many of the slots, so that a path that hangs leaves some for the others.

A path may have another run under way while it has fewer than `ALPHA` times the slots that are free:
dynamic thresholds, by which switches share a buffer among their ports (Choudhury and Hahne, 1998).
A path that is alone gets four fifths of the slots, two that take all they can get four ninths each,
and some are left for whoever comes next. There is nothing to configure, and nothing to estimate.
"""

from __future__ import annotations

#: With more, a path that is alone gets more, and less is left for one that comes next.
ALPHA = 4


class Shares:
    """
    How many runs of each path are under way, and which paths are left out: those whose runs waited
    for their share in vain. Both are at most as many as there are slots.
    """

    def __init__(self) -> None:
        self._running: dict[str, int] = {}
        #: The paths of which no more is to be claimed at present, and how many of their runs have
        #: to end first, unless others' ends make room.
        self.left_out: dict[str, int] = {}
        #: How many of each of them that have to find room then.
        self._waited: dict[str, int] = {}

    def may_start(self, path: str, free: int, more: int = 0) -> bool:
        """
        Whether a path may have one more run. With none under way it always may.

        :param more: how many of it are to begin before that.
        """
        # Without a free slot it goes by the next one.
        return self._running.get(path, 0) + more < ALPHA * max(free - more, 1)

    def started(self, path: str) -> None:
        """A run is under way."""
        self._running[path] = self._running.get(path, 0) + 1

    def ended(self, path: str) -> None:
        """It is no more."""
        running = self._running.pop(path) - 1
        if running:
            self._running[path] = running
        if path in self.left_out:
            self.left_out[path] -= 1

    def leave_out(self, path: str, waiting: int) -> None:
        """
        Leave a path out until as many of its runs have ended as wait, or others' have left room for
        so many at once, or for half of what is free: what is claimed then can start, and is not
        claimed in vain at each end. The former will come: it waits for no more of them than there
        are.
        """
        self.left_out[path] = self._waited[path] = min(waiting, self._running[path])

    def let_in(self, free: int) -> bool:
        """Whether there are paths that are left out no more: they have room again."""
        room = [path for path in self.left_out if self._has_room(path, free)]
        for path in room:
            del self.left_out[path], self._waited[path]
        return bool(room)

    def _has_room(self, path: str, free: int) -> bool:
        if self.left_out[path] <= 0:
            return self.may_start(path, free)
        # More than this may be beyond what all of the others' ends can leave.
        return self.may_start(path, free, min(self._waited[path] - 1, free // 2))
