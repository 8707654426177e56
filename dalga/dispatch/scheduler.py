"""
The scheduler: claim what is due, POST it, record what came of it.

One timer wakes it, for the earliest time on the agenda. A scan fills the agenda, now and again,
with what the near future holds. A claim, not the agenda, decides what runs. Outcomes are written in
batches: those that come while one is being written go together into the next.

All of this goes on whatever the database does: what fails because of it is logged once, and tried
again until it works (P5). Nothing here reads the machine's wall clock (P8).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from dalga.dispatch.agenda import Agenda
from dalga.dispatch.loglines import fields, log_end, log_recorded, log_skip, own
from dalga.dispatch.outages import CLAIM, CORRECTION, SCAN, SIGN, Outages
from dalga.dispatch.recorder import Recorder
from dalga.dispatch.shares import Shares
from dalga.dispatch.waiting import Waiting
from dalga.errors import StoreUnavailable
from dalga.log import debugging, logger
from dalga.model.run import GiveBack, Outcome, Reschedule, Run, RunPolicy, judge, missed
from dalga.model.setback import Reach, timely
from dalga.store import Claimed, Dues, Recorded, Store

log = logger(__name__)

#: What a claim's lease leaves beyond the POST's own time-out, in seconds: for the way there and for
#: the record. It is also what a dead instance's jobs wait for longer than need be.
LEASE_MARGIN = 10.0

#: Due times that one scan reads at most.
SCAN_LIMIT = 1_000

#: How often an instance gives a sign of life, in seconds.
SIGN_OF_LIFE = 10.0

#: Time limit (seconds) for removing this instance from the instance table at shutdown. A row that
#: is left there is forgotten later, with those of instances that died.
DEPARTURE = 1.0


class Poster(Protocol):
    """What dispatch needs of `dalga.outgoing.endpoint.Endpoint`."""

    def post(self, run: Run) -> Deferred[Outcome]:
        """POST a run. Never fails: what goes wrong is an outcome."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How many at once, how long, how often."""

    #: POSTs in flight at once.
    slots: int
    #: How long a POST takes at most, in seconds.
    timeout: float
    #: Between two scans, in seconds: how late another instance's new job may be seen.
    scan: float

    @property
    def lease(self) -> timedelta:
        """How long a claim holds (P3)."""
        return timedelta(seconds=self.timeout + LEASE_MARGIN)


class Scheduler:
    """
    :param reactor: its ``seconds`` have to be the steady clock that the store's leases are in.
    :param random: for jitter.
    :param instance: what this instance calls itself.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        store: Store,
        endpoint: Poster,
        pace: Pace,
        policy: RunPolicy,
        random: Random,
        instance: str = "",
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._instance = instance
        self._endpoint = endpoint
        self._pace = pace
        self._policy = policy
        self._random = random
        self._outages = Outages(reactor, pace.lease.total_seconds())
        self._recorder = Recorder(reactor, store, self._outages, self._recorded)

        self._agenda = Agenda()
        #: There may be due rows that the agenda does not know of.
        self._more = True
        self._running: dict[int, Run] = {}
        #: Of those, the ones whose leases were over early, by row, as they were claimed once more:
        #: what comes of the POST under way is recorded under the new lease.
        self._claimed_anew: dict[int, Run] = {}
        self._claiming = False
        #: Due times that became known during the claim under way.
        self._meanwhile: list[datetime] = []
        self._scanning = False
        self._signing = False
        #: How many set-backs of the clock have been corrected for: see `DatabaseClock.set_backs`.
        self._set_backs = 0
        retry, variation = policy.retry, 1 + policy.randomization_factor
        self._reach = Reach(pace.lease, retry.max_interval * (1 + retry.jitter), variation)
        self._correcting = False
        self._shares = Shares()
        self._waiting = Waiting(self._shares)
        #: The paths that the last scan left out.
        self._unscanned: frozenset[str] = frozenset()
        #: The timer of `_wait`. It is set whenever a run waits.
        self._impatience: IDelayedCall | None = None
        #: Runs that ended during the claim under way, and during the last: while the next one is
        #: made as many will end, so so many more rows are worth claiming.
        self._ended_meanwhile = 0
        self._ahead = 0
        self._next_scan = 0.0
        self._next_sign = 0.0
        self._timer: IDelayedCall | None = None
        self._stopping = False
        self._over = False
        self._drained: Deferred[None] | None = None
        self._signed: Deferred[None] | None = None

    def start(self) -> None:
        """Begin to claim. The store has to be open."""
        self._next_scan = self._next_sign = self._reactor.seconds()
        self._set_timer()

    def stop_claiming(self) -> None:
        """Take no more. What runs goes on, and is recorded."""
        self._stopping = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._give_back_all()

    async def drain(self, grace: float) -> int:
        """
        After `stop_claiming`: wait until what runs has ended and is recorded.

        :param grace: how long at most, in seconds.
        :return: how many runs are left to their leases; nothing of them is recorded any more.
        """
        if not self._idle:
            drained: Deferred[None] = Deferred()
            self._drained = drained
            timer = self._reactor.callLater(grace, self._give_up)
            await drained
            if timer.active():
                timer.cancel()
        self._over = True
        return len(self._running) + self._recorder.abandon()

    async def depart(self) -> None:
        """After `drain`: be counted no more, unless the database is away."""
        if self._outages.away:
            return
        departed = Deferred.fromCoroutine(self._depart())
        try:
            await departed.addTimeout(DEPARTURE, self._reactor)
        except Exception as error:
            log.debug("not taken off the list of instances: {error!r}", error=error)

    async def _depart(self) -> None:
        if self._signing:  # it would put us on the list again
            self._signed = Deferred()
            await self._signed
        await self._store.depart(self._instance)

    @property
    def running(self) -> int:
        """How many runs are under way."""
        return len(self._running)

    def expect(self, due: datetime) -> None:
        """This instance has written a job that is due then: be there."""
        self._note(due)
        self._set_timer()

    def _note(self, due: datetime) -> None:
        if self._claiming:
            self._meanwhile.append(due)  # the claim under way may have looked before it was there
        elif due <= self._store.clock.now():
            self._more = True
        else:
            self._agenda.add(due)

    # When to do what

    @property
    def _free(self) -> int:
        # Verdicts that can't be written pile up no further than this (P10).
        return self._pace.slots - len(self._running) - self._recorder.backlog

    @property
    def _wanted(self) -> int:
        """How many rows are worth claiming."""
        return self._free + self._ahead - self._waiting.count

    def _claim_at(self, now: float) -> float | None:
        """When the next claim is to be made, in the reactor's seconds; None for not yet known."""
        if self._claiming or self._recorder.held_up:
            return None
        if self._wanted <= self._ahead // 2:
            return None  # transactions for a row each would cost more than the wait for company
        at = now
        if not self._more:
            due = self._agenda.next()
            if due is None:
                return None
            at += self._store.clock.until(due)
        return max(at, self._outages.not_before(CLAIM))

    def _scan_at(self) -> float | None:
        if self._scanning:
            return None
        return max(self._next_scan, self._outages.not_before(SCAN))

    def _sign_at(self) -> float | None:
        if self._signing:
            return None
        return max(self._next_sign, self._outages.not_before(SIGN))

    def _set_timer(self) -> None:
        if self._stopping:
            return
        now = self._reactor.seconds()
        wanted = (self._claim_at(now), self._scan_at(), self._sign_at())
        times = [at for at in wanted if at is not None]
        if not times:
            return  # the end of what is under way comes here again
        delay = max(0.0, min(times) - now)
        if self._timer is not None and self._timer.active():
            self._timer.reset(delay)
        else:
            self._timer = self._reactor.callLater(delay, self._wake)

    def _wake(self) -> None:
        now = self._reactor.seconds()
        claim_at, scan_at, sign_at = self._claim_at(now), self._scan_at(), self._sign_at()
        if claim_at is not None and claim_at <= now:
            self._claiming = True
            self._ended_meanwhile = 0
            self._more = False
            own(self._claim())
        if scan_at is not None and scan_at <= now:
            self._scanning = True
            self._next_scan = now + self._pace.scan
            own(self._scan())
        if sign_at is not None and sign_at <= now:
            self._signing = True
            own(self._give_sign_of_life())
        self._set_timer()

    def _failed(self, what: str, error: Exception) -> None:
        """Log an error and make a pause; but not that a store refuses all once it is closing."""
        if not (self._over and isinstance(error, StoreUnavailable)):
            self._outages.failed(what, error)

    # Scan

    async def _scan(self) -> None:
        try:
            # Twice the time until the next one, so that a slow scan leaves no gap.
            within = timedelta(seconds=2 * self._pace.scan)
            # A backlog that is left out by claims would fill the list.
            self._unscanned = frozenset(self._shares.left_out)
            self._look_at(await self._store.due_within(within, SCAN_LIMIT, self._unscanned))
            self._correct_soon()
        except Exception as error:
            self._failed(SCAN, error)
        finally:
            self._scanning = False
            self._set_timer()

    def _look_at(self, dues: Dues) -> None:
        self._outages.answered(SCAN)
        self._agenda.fill(dues.times, dues.horizon)
        if self._agenda.horizon is None:
            return
        ahead = self._store.clock.until(self._agenda.horizon)
        if ahead <= 0:
            self._more = True  # more are due than a scan lists
        elif ahead < self._pace.scan:
            self._next_scan = min(self._next_scan, self._reactor.seconds() + ahead)

    # A clock that was set back

    def _correct_soon(self) -> None:
        """Begin a correction, if there is anything to correct and none is under way or pauses."""
        pauses = self._reactor.seconds() < self._outages.not_before(CORRECTION)
        if self._store.clock.set_backs != self._set_backs and not self._correcting and not pauses:
            self._correcting = True
            own(self._correct())

    async def _correct(self) -> None:
        """Move the times that hold jobs up until the clock is where it was, a piece at a time."""
        set_backs = self._store.clock.set_backs
        try:
            last = await self._store.correct(self._reach, None)
            while last is not None and not self._stopping:
                last = await self._store.correct(self._reach, last)
        except Exception as error:
            self._failed(CORRECTION, error)
            self._next_scan = self._outages.not_before(CORRECTION)  # which begins anew
        else:
            self._outages.answered(CORRECTION)
            if last is None:
                self._set_backs = set_backs
                self._next_scan = self._reactor.seconds()  # to see what was moved
                log.warn("the database's clock was set back: jobs that it would hold up were moved")
        finally:
            self._correcting = False
            self._set_timer()

    # Sign of life

    async def _give_sign_of_life(self) -> None:
        """For the count of instances only: no lease depends on it."""
        try:
            await self._store.announce(self._instance)
        except Exception as error:
            self._failed(SIGN, error)
        else:
            self._outages.answered(SIGN)
            self._next_sign = self._reactor.seconds() + SIGN_OF_LIFE
        finally:
            self._signing = False
            signed, self._signed = self._signed, None
            if signed is not None:
                signed.callback(None)
            self._set_timer()

    # Claim

    async def _claim(self) -> None:
        try:
            lease, without = self._pace.lease, frozenset(self._shares.left_out)
            self._take_in(await self._store.claim(self._wanted, lease, without))
        except Exception as error:
            self._more = True
            self._failed(CLAIM, error)
        finally:
            self._claiming = False
            meanwhile, self._meanwhile = self._meanwhile, []
            for due in meanwhile:
                self._note(due)
            self._set_timer()
            self._check_drained()

    def _take_in(self, claimed: Claimed) -> None:
        self._outages.answered(CLAIM)
        # Where all that was due is taken, others may have room for what comes next.
        self._ahead = min(self._ended_meanwhile, self._pace.slots) if claimed.full else 0
        self._more = self._more or claimed.full
        self._agenda.forget_until(claimed.now)
        caught_up = claimed.runs and self._scan_is_past(claimed.now)
        let_in_again = self._unscanned.difference(self._shares.left_out)
        if not claimed.full and (caught_up or let_in_again):
            self._next_scan = self._reactor.seconds()  # see what comes next
        if self._over:
            return  # it came back after the stop: left to its lease
        self._waiting.add(claimed.runs, self._reactor.seconds())
        self._start_ready()
        if self._stopping:
            self._give_back_all()

    def _scan_is_past(self, now: datetime) -> bool:
        """Whether all that the last scan listed is due by now."""
        horizon = self._agenda.horizon
        return horizon is not None and horizon <= now

    # POST

    def _start_ready(self) -> None:
        """Start the waiting runs for which there are slots, and shares of their paths."""
        while self._waiting and (free := self._free) > 0:
            run = self._waiting.take(free)
            if run is None:
                break
            try:
                self._start(run)
            except Exception:
                self._lost(Failure(), run)  # a mistake of ours: it takes no other run with it (P6)
        if self._shares.left_out and self._shares.let_in(self._free):
            self._more = True
        if self._impatience is None and self._waiting:
            self._wait()

    def _wait(self) -> None:
        """One timer for all waiting runs. The runs that it was set for may have started since."""
        self._impatience = None
        now, free = self._reactor.seconds(), self._free
        for path in self._waiting.passed_over:
            if waiting := self._waiting.in_vain(path, now, free):
                self._leave_out(path, waiting)
            self._give_back(self._waiting.take_overdue(path, now))
        if self._waiting.ready_overdue(now):
            self._give_back_all()
        if self._waiting:
            self._impatience = self._reactor.callLater(self._waiting.next_look(now), self._wait)

    def _leave_out(self, path: str, waiting: int) -> None:
        """Leave a path out of claims and scans, so that they see the rows due behind its rows."""
        self._shares.leave_out(path, waiting)
        if self._scan_is_past(self._store.clock.now()):
            self._next_scan = self._reactor.seconds()  # to see behind this path's rows
        self._set_timer()

    def _give_back_all(self) -> None:
        """Give back all waiting runs, also those claimed ahead for slots that did not come."""
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None
        self._ahead = 0
        self._give_back(self._waiting.take_all())

    def _give_back(self, runs: list[Run]) -> None:
        """Have runs written as not begun, so that any instance may claim them."""
        for run in runs:
            self._recorder.add(run, GiveBack())

    def _start(self, run: Run) -> None:
        too_late = missed(run)
        if too_late is not None:
            log_skip(run, too_late)
            self._recorder.add(run, too_late)
            return
        if self._reactor.seconds() + self._pace.timeout > run.lease_ends:
            # Asleep or cut off since the claim: by the time that we'd be done another may have
            # begun.
            log.warn(
                "{path!r} {body!r}: not started, its lease would end before the POST could",
                **fields(run),
            )
            return
        running = self._running.get(run.row)
        if running is not None:
            # Only a database clock that has jumped ahead ends a lease early.
            log.warn("{path!r} {body!r}: not started, it is still running", **fields(run))
            if run.id == running.id:
                self._claimed_anew[run.row] = run
            return
        self._running[run.row] = run
        self._shares.started(run.key.path)
        if debugging():
            log.debug("{path!r} {body!r}: run {run_id}, attempt {attempt} starts", **fields(run))
        ended = maybeDeferred(self._endpoint.post, run)
        ended.addErrback(self._broken, run)
        ended.addCallback(self._ended, run)
        ended.addErrback(self._lost, run)

    def _broken(self, failure: Failure, run: Run) -> Outcome:
        """A mistake of ours takes no job with it: the run is tried again, like any that failed."""
        log.failure("{path!r} {body!r}: the attempt broke", failure, **fields(run))
        return Outcome(status=None, elapsed=0.0, error="internal error")

    def _ended(self, outcome: Outcome, run: Run) -> None:
        run = self._claimed_anew.get(run.row, run)
        now = self._store.clock.now()
        verdict = judge(run, outcome, now, self._policy, self._random)
        if isinstance(verdict, Reschedule):
            verdict = timely(run, verdict, now, self._reach)
        log_end(run, outcome, verdict)
        self._forget(run)
        self._ended_meanwhile += 1
        self._recorder.add(run, verdict)
        self._start_ready()
        self._set_timer()

    def _lost(self, failure: Failure, run: Run) -> None:
        log.failure("{path!r} {body!r}: left to its lease", failure, **fields(run))
        if self._running.get(run.row) is run:
            self._forget(run)
            self._start_ready()
        self._set_timer()
        self._check_drained()

    def _forget(self, run: Run) -> None:
        """It is under way no more."""
        del self._running[run.row]
        self._claimed_anew.pop(run.row, None)
        self._shares.ended(run.key.path)

    # Record

    def _recorded(self, dues: list[datetime], recorded: Recorded) -> None:
        """What a batch has written: the due times of the runs to come; and what it has not."""
        for due in dues:
            self._note(due)
        if recorded.lost or recorded.overridden or recorded.already:
            # Scheduled anew during the run, maybe for a time that has come by now.
            self._more = True
        log_recorded(recorded)
        self._set_timer()
        self._check_drained()

    # Stop

    @property
    def _idle(self) -> bool:
        return not (self._claiming or self._running or self._recorder.pending)

    def _check_drained(self) -> None:
        if self._idle:
            self._give_up()

    def _give_up(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)
