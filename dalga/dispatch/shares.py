"""
How many slots one path may use, so that a path that hangs leaves some for the others.

A *slot* is the room for one POST under way. A *path* is where on the endpoint a job's runs are
POSTed. One path may hang while the others answer, as it may be another program there.

A path may start another run while its running runs are fewer than `ALPHA` (4) times the free slots.
Else it is *at its limit*. With 100 slots, and runs that never end::

    a comes      and gets 80: then 20 are free, and 80 is not less than 4 x 20
    b comes      and gets 16: then 4 are free, and 16 is not less than 4 x 4
    c comes      and gets 4:  then none is free
    a and b, taking turns from the start, get 45 and 44

What always holds (docs/promises.md lists the promises P1 to P11):

- One path gets four fifths of the slots at most, rounded up. Of fewer than five slots that is all.
- The last free slot is for a path with fewer than four running runs. A path that has none running
  may always take it.

What breaks the rule's purpose: many paths that hang, with a few runs each, take all slots.

These are dynamic thresholds, by which the ports of a network switch share its memory for packets
(Choudhury and Hahne, 1998). There is nothing to configure, and nothing to estimate.

A path at its limit may have claimed runs that wait (`waiting.py`). It is then *left out* of claims
for a while. Else its rows, which have been due for longest, would fill each claim, only to be given
back. It is left out of *scans*, too: a scan reads which rows are due soon, and claims nothing.
`Shares` says which paths are left out, and when a path is *let in* again. It decides nothing else:
`slots.py` starts runs, and the scheduler claims them.
"""

from __future__ import annotations

from collections.abc import KeysView
from dataclasses import dataclass

#: A choice, not measured: a path that is alone gets 80 of 100 slots. With 3 it would get 75; with 8
#: it would get 89, and leave few for the next path.
ALPHA = 4


@dataclass(slots=True)
class _LeftOut:
    """A path that claims leave out."""

    #: How many of its claimed runs waited when it was left out, at most as many as were running.
    waiting_runs: int
    #: How many of its running runs have ended since.
    ended_runs: int = 0


class Shares:
    """
    How many runs of each path are running, and which paths claims leave out. It knows at most as
    many paths of each kind as there are slots.
    """

    def __init__(self) -> None:
        #: How many runs of each path are running; no entry means none.
        self._running: dict[str, int] = {}
        #: By path. Each has running runs, or is let in by the next `let_in`.
        self._left_out: dict[str, _LeftOut] = {}

    @property
    def left_out(self) -> KeysView[str]:
        """The paths that claims and scans are to leave out."""
        return self._left_out.keys()

    def running(self, path: str) -> int:
        """How many runs of a path are running."""
        return self._running.get(path, 0)

    def may_start(self, path: str, free: int, runs: int = 1) -> bool:
        """
        Whether a path may start one more run, or several, one after the other.

        :param free: how many slots are free. If none is free (0 or less), the question is about the
            next slot that will be: is it for this path?
        :param runs: how many runs, at least 1. The last of them decides.
        """
        before = runs - 1
        return self._running.get(path, 0) + before < ALPHA * max(free - before, 1)

    def started(self, path: str) -> None:
        """A run of this path has started."""
        self._running[path] = self._running.get(path, 0) + 1

    def ended(self, path: str) -> None:
        """A run of this path, which `started` was told of, has ended."""
        running = self._running.pop(path) - 1
        if running:
            self._running[path] = running
        if path in self._left_out:
            self._left_out[path].ended_runs += 1

    def leave_out(self, path: str, waiting: int) -> None:
        """
        Leave a path out of claims until one of two things is true:

        - `waiting` of its runs have ended, and it may start another.
        - Other paths' runs have ended, and now it may start `waiting` runs, or so many that they
          take more than half of the free slots. If it were let in for less, each end of a run would
          cost a claim of one row.

        The first always comes true (P5: nothing sticks). `waiting` is capped at the number of the
        path's running runs, each of which ends by its POST's time-out. When none is left running,
        the path may start one whatever the others do.

        If the path is left out already, its count begins anew.

        :param path: it is at its limit, so it has running runs.
        :param waiting: how many of its claimed runs wait, at least 1.
        """
        self._left_out[path] = _LeftOut(min(waiting, self._running[path]))

    def let_in(self, free: int) -> bool:
        """
        Let in each path for which one of the two conditions of `leave_out` is true. To be called
        after each end of a run.

        :param free: how many slots are free now.
        :return: whether there was any: then there may be due rows that no claim has seen.
        """
        paths = [path for path in self._left_out if self._may_be_let_in(path, free)]
        for path in paths:
            del self._left_out[path]
        return bool(paths)

    def _may_be_let_in(self, path: str, free: int) -> bool:
        left_out = self._left_out[path]
        if left_out.ended_runs >= left_out.waiting_runs:
            return self.may_start(path, free)
        # Half is a choice, not measured: ends of other paths' runs may never leave room for all.
        more_than_half = max(free, 0) // 2 + 1
        return self.may_start(path, free, min(left_out.waiting_runs, more_than_half))
