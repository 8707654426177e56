"""
The runs whose POST is under way, each from its start to its `End`.

A claimed run is looked at once more (`Posts.admit`). A run that is too late is skipped. A run whose
endpoint this instance has not is given back (`elsewhere.py`). A run whose POST could not end within
its lease is not started. The others are POSTed (`Posts.start`). What a
POST came to is judged, logged, and handed to the recorder.

What always holds: of one row, at most one POST of this instance is under way (P3). A mistake of
ours in one run takes no other run with it (P6): that run is left to its lease.

`Posts` counts no slots and picks no runs: `slots.py` does.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dalga.dispatch.elsewhere import Elsewhere
from dalga.dispatch.loglines import fields, log_end, log_skip, log_start
from dalga.dispatch.recorder import Recorder
from dalga.log import debugging, logger
from dalga.model.key import RawKey
from dalga.model.run import End, Outcome, Run, RunPolicy, judge, missed
from dalga.model.setback import Reach, timely
from dalga.store import Store

log = logger(__name__)


class Poster(Protocol):
    """What dispatch needs of `dalga.outgoing.endpoints.Endpoints`."""

    def post(self, run: Run) -> Deferred[Outcome]:
        """POST a run. Never fails: what goes wrong is an outcome."""


class Posts:
    """
    See the module's text.

    :param reactor: its ``seconds`` have to be the steady clock that the store's leases are in.
    :param random: for jitter.
    :param reach: how far ahead of the database's time a next run may be.
    :param elsewhere: for the runs whose endpoint this instance has not.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        store: Store,
        endpoint: Poster,
        recorder: Recorder,
        policy: RunPolicy,
        random: Random,
        reach: Reach,
        elsewhere: Elsewhere,
    ) -> None:
        self._reactor = reactor
        self._clock = store.clock
        self._endpoint = endpoint
        self._recorder = recorder
        self._policy = policy
        self._random = random
        self._reach = reach
        self._elsewhere = elsewhere
        #: By row.
        self._running: dict[int, Run] = {}
        #: Running runs whose lease ended early, and which were claimed again: the second claim's
        #: run, by row. The outcome of the POST under way is recorded under the second lease.
        self._claimed_anew: dict[int, Run] = {}

    def reconfigure(self, policy: RunPolicy, reach: Reach) -> None:
        """Go by these from now on. The POSTs under way end by those that they began with."""
        self._policy = policy
        self._reach = reach

    def __len__(self) -> int:
        return len(self._running)

    def has(self, key: RawKey) -> bool:
        """Whether a POST of a job is under way."""
        return any(run.key == key for run in self._running.values())

    def admit(self, run: Run) -> bool:
        """Whether a run that was claimed is to be POSTed. The log says why it is not."""
        too_late = missed(run)
        if too_late is not None:
            skipped = End(run, None, too_late)
            log_skip(skipped)
            self._recorder.add(skipped)
            return False
        if self._elsewhere.has(run):
            if not self.joins_running(run):
                self._recorder.add(self._elsewhere.end(run))
            return False
        if self._reactor.seconds() + run.timeout > run.lease_ends:
            # The machine slept, or was cut off, since the claim. Before the POST could end,
            # another instance may claim the run and POST it (P3).
            log.warn(
                "{path!r} {body!r}: not started, its lease would end before the POST could",
                **fields(run),
            )
            return False
        return not self.joins_running(run)

    def joins_running(self, run: Run) -> bool:
        """
        Whether a POST of the row is under way, from an earlier claim: only a database clock that
        has jumped ahead ends a lease early. Then the run is not to be POSTed, nor given back (P3).
        The outcome of that POST is recorded under the run's lease.
        """
        running = self._running.get(run.row)
        if running is None:
            return False
        log.warn("{path!r} {body!r}: not started, it is still running", **fields(run))
        if run.id == running.id:
            self._claimed_anew[run.row] = run
        return True

    def start(self, run: Run, freed: Callable[[Run], None]) -> None:
        """
        POST a run that was admitted just now.

        :param freed: is called with the run when its POST is no longer under way.
        """
        self._running[run.row] = run
        if debugging():
            log_start(run)
        posted: Deferred[Any]
        try:
            posted = self._endpoint.post(run)
        except Exception:
            posted = fail()
        # One callback for all that follows: each link of a Deferred's chain costs some of a run.
        posted.addBoth(self._over, run, freed, self._policy)

    def _over(
        self,
        result: Outcome | Failure,
        run: Run,
        freed: Callable[[Run], None],
        policy: RunPolicy,
    ) -> None:
        """
        The run's POST is no longer under way, whatever becomes of its end.

        :param result: a failure is a programming mistake: the run is tried again, like any that
            failed.
        :param policy: that of the moment when the POST began. The run's endpoint may have another
            one by now, or be gone.
        """
        try:
            if isinstance(result, Failure):
                log.failure("{path!r} {body!r}: the attempt broke", result, **fields(run))
                result = Outcome(status=None, elapsed=0.0, error="internal error")
            self._ended(result, self._claimed_anew.pop(run.row, run), policy)
        except Exception:
            # The end met a programming mistake: it is not recorded.
            log.failure("{path!r} {body!r}: left to its lease", Failure(), **fields(run))
        del self._running[run.row]
        try:
            freed(run)
        except Exception:
            # A programming mistake in what follows on the run: its end is recorded all the same.
            log.failure("{path!r} {body!r}: what followed it broke", Failure(), **fields(run))

    def _ended(self, outcome: Outcome, run: Run, policy: RunPolicy) -> None:
        now = self._clock.now()
        end = timely(judge(run, outcome, now, policy, self._random), now, self._reach)
        log_end(end)
        self._recorder.add(end)
