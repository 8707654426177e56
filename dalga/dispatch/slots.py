"""
The slots: which claimed run starts when.

A claimed run waits (`waiting.py`) until a slot is free and its path may have one more
(`shares.py`). Then it is POSTed (`posts.py`), and its end frees the slot for the next. A run that
waits for too long is given back, for any instance to claim.

What always holds: at most as many POSTs are under way as there are slots (P10).

`Slots` claims nothing: the scheduler does, and asks `wanted` how many rows are worth it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from dalga.dispatch.loglines import fields
from dalga.dispatch.outlook import Outlook
from dalga.dispatch.posts import Posts
from dalga.dispatch.recorder import Recorder
from dalga.dispatch.shares import Shares
from dalga.dispatch.waiting import Waiting
from dalga.log import logger
from dalga.model.key import RawKey
from dalga.model.run import End, GiveBack, Run
from dalga.model.why import Held, Here
from dalga.store import Store

log = logger(__name__)


class Slots:
    """
    See the module's text.

    :param count: how many POSTs may be under way.
    :param slot_freed: is called when a run has ended, so that claims may be worth more than before.
    :param changed: is called when claims and scans are worth more, or less, than before.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        store: Store,
        posts: Posts,
        recorder: Recorder,
        outlook: Outlook,
        count: int,
        slot_freed: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._clock = store.clock
        self._posts = posts
        self._recorder = recorder
        self._outlook = outlook
        self._count = count
        self._slot_freed = slot_freed
        self._changed = changed
        self._shares = Shares()
        self._waiting = Waiting(self._shares)
        #: Whether `_start_ready` starts runs at present.
        self._is_starting = False
        #: The timer of `_wait`. It is set whenever a run waits.
        self._impatience: IDelayedCall | None = None

    @property
    def running(self) -> int:
        """How many runs have a POST under way."""
        return len(self._posts)

    @property
    def count(self) -> int:
        """How many slots there are."""
        return self._count

    def resize(self, count: int) -> None:
        """
        Have more slots, or fewer, from now on. Of POSTs under way none is ended: with fewer slots,
        none starts until as many have ended.
        """
        self._count = count
        self._start_ready()
        self._slot_freed()

    @property
    def left_out(self) -> frozenset[str]:
        """The paths that claims and scans are to leave out."""
        return frozenset(self._shares.left_out)

    @property
    def wanted(self) -> int:
        """How many rows are worth claiming."""
        return self._free + self.ahead - self._waiting.slots_needed

    @property
    def ahead(self) -> int:
        """How many rows are worth claiming ahead of free slots."""
        return self._outlook.size.ahead_of(self._waiting.payloads)

    @property
    def _free(self) -> int:
        """How many slots are free. An end in the recorder's backlog occupies one (P10)."""
        return self._count - len(self._posts) - self._recorder.backlog

    def look(self, key: RawKey) -> Here:
        """What is known here of a job's run, and of its path."""
        free, path = self._free, key.path
        return Here(
            held=Held.RUNNING if self._posts.has(key) else self._waiting.held(key),
            path_running=self._shares.running(path),
            path_at_limit=path in self._shares.left_out or not self._shares.may_start(path, free),
            slots=self._count,
            slots_free=max(free, 0),
        )

    def add(self, runs: Iterable[Run]) -> None:
        """Runs, in due order, that a claim has just taken."""
        self._waiting.add(runs, self._reactor.seconds())
        self._start_ready()

    def records_written(self) -> None:
        """Ends are written: fewer of them may occupy slots, which are for waiting runs then."""
        self._start_ready()

    def give_back_all(self) -> None:
        """Give back all waiting runs, also those claimed ahead for slots that did not come."""
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None
        self._outlook.size.gave_back(self._reactor.seconds())
        self.give_back(self._waiting.pop_all())

    def give_back(self, runs: Iterable[Run]) -> None:
        """Have claimed runs written as not begun, so that any instance may claim them."""
        for run in runs:
            if not self._posts.joins_running(run):
                self._recorder.add(End(run, None, GiveBack()))

    def _start_ready(self) -> None:
        """Start the waiting runs for which there are slots, and shares of their paths."""
        if self._is_starting:
            return  # a run has ended as it started: the loop below, which has started it, goes on
        self._is_starting = True
        try:
            while self._waiting and (free := self._free) > 0:
                run = self._waiting.pop(free)
                if run is None:
                    break
                self._start(run)
        finally:
            self._is_starting = False
        if self._shares.left_out and self._shares.let_in(self._free):
            self._outlook.paths_let_in()
        if self._impatience is None and self._waiting:
            self._wait()

    def _start(self, run: Run) -> None:
        try:
            if not self._posts.admit(run):
                return
        except Exception:
            # A mistake of ours: it takes no other run with it (P6).
            log.failure("{path!r} {body!r}: left to its lease", Failure(), **fields(run))
            return
        self._shares.started(run.key.path)
        self._posts.start(run, self._run_ended)

    def _run_ended(self, run: Run) -> None:
        """The run's POST is no longer under way."""
        self._shares.ended(run.key.path)
        self._outlook.size.run_ended()
        self._start_ready()
        self._slot_freed()

    def _wait(self) -> None:
        """One timer for all waiting runs. The runs that it was set for may have started since."""
        self._impatience = None
        now, free = self._reactor.seconds(), self._free
        for path, count in self._waiting.paths_to_leave_out(now, free).items():
            self._leave_out(path, count)
        if overdue := self._waiting.pop_overdue_paths(now):
            self._outlook.size.claimed_too_many(now)
            self.give_back(overdue)
        if self._waiting.ready_is_overdue(now):
            self.give_back_all()
        if self._waiting:
            delay = self._waiting.seconds_to_next_look(now)
            self._impatience = self._reactor.callLater(delay, self._wait)

    def _leave_out(self, path: str, waiting: int) -> None:
        """Leave a path out of claims and scans, so that they see the rows due behind its rows."""
        self._shares.leave_out(path, waiting)
        self._outlook.path_left_out(self._clock.now(), self._reactor.seconds())
        self._changed()
