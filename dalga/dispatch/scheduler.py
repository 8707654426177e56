"""
The scheduler: claim what is due, POST it, record what came of it.

One timer wakes the scheduler for whatever comes first: a claim, a scan or a sign of life. A scan,
every `Pace.scan` seconds, reads the due times of the near future into the agenda. The agenda tells
when to claim; the claim, not the agenda, decides which runs start.

The scheduler owns the timers, and asks the other modules of this folder: `shares.py` and
`waiting.py` which claimed run may start, `outages.py` when a query that failed is tried again. It
hands each `End` to `recorder.py`, which writes it.

Whatever the database does, the scheduler goes on: a query that fails is logged once, and tried
again until it succeeds (P5). Nothing here reads the machine's wall clock (P8).
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
from dalga.model.run import End, GiveBack, Outcome, Run, RunPolicy, judge, missed
from dalga.model.setback import Reach, timely
from dalga.store import Claimed, Dues, Recorded, Store

log = logger(__name__)

#: A lease is this much (seconds) longer than a POST's time-out. The POST's start and the record of
#: its outcome have to fit in. The jobs of an instance that dies wait this much longer, too.
LEASE_MARGIN = 10.0

#: Due times that one scan reads, at most.
SCAN_LIMIT = 1_000

#: From one sign of life of an instance to the next, in seconds.
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
        #: Whether to claim at once: there may be due rows whose times are not on the agenda.
        self._more = True
        #: The runs whose POST is under way, by row.
        self._running: dict[int, Run] = {}
        #: Running runs whose lease ended early, and which were claimed again: the second claim's
        #: run, by row. The outcome of the POST under way is recorded under the second lease.
        self._claimed_anew: dict[int, Run] = {}
        self._claiming = False
        #: Due times that became known during the claim under way.
        self._meanwhile: list[datetime] = []
        self._scanning = False
        self._signing = False
        #: The value of `DatabaseClock.set_backs` up to which jobs were corrected.
        self._set_backs = 0
        retry, variation = policy.retry, 1 + policy.randomization_factor
        self._reach = Reach(pace.lease, retry.max_interval * (1 + retry.jitter), variation)
        self._correcting = False
        self._shares = Shares()
        self._waiting = Waiting(self._shares)
        #: The paths that the last scan did not read.
        self._unscanned: frozenset[str] = frozenset()
        #: The timer of `_wait`. It is set whenever a run waits.
        self._impatience: IDelayedCall | None = None
        #: How many runs have ended since the claim under way began.
        self._ended_meanwhile = 0
        #: How many rows the next claim takes beyond the free slots: as many as runs ended during
        #: the last claim, as about so many slots become free during the next one; or none.
        self._ahead = 0
        #: When the next scan and the next sign of life begin, in the reactor's seconds.
        self._next_scan = 0.0
        self._next_sign = 0.0
        #: Calls `_wake`.
        self._timer: IDelayedCall | None = None
        #: Whether `stop_claiming` was called, and whether `drain` has ended.
        self._stopping = False
        self._over = False
        #: `drain` waits for the first, `depart` for the second: that a sign of life has ended.
        self._drained: Deferred[None] | None = None
        self._signed: Deferred[None] | None = None

    def start(self) -> None:
        """Begin to claim. The store has to be open."""
        self._next_scan = self._next_sign = self._reactor.seconds()
        self._set_timer()

    def stop_claiming(self) -> None:
        """Claim no more, and give back the waiting runs. Running runs end, and are recorded."""
        self._stopping = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._give_back_all()

    async def drain(self, grace: float) -> int:
        """
        After `stop_claiming`: wait until all running runs have ended and are recorded.

        :param grace: the longest wait, in seconds.
        :return: how many runs are left to their leases: their outcomes are not recorded any more.
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
        """After `drain`: leave the instance table, unless the database is away."""
        if self._outages.away:
            return
        departed = Deferred.fromCoroutine(self._depart())
        try:
            await departed.addTimeout(DEPARTURE, self._reactor)
        except Exception as error:
            log.debug("not taken off the list of instances: {error!r}", error=error)

    async def _depart(self) -> None:
        if self._signing:  # the sign of life would add this instance to the table again
            self._signed = Deferred()
            await self._signed
        await self._store.depart(self._instance)

    @property
    def running(self) -> int:
        """How many runs have a POST under way."""
        return len(self._running)

    def expect(self, due: datetime) -> None:
        """This instance has written a job that is due at this time: claim it in time."""
        self._note(due)
        self._set_timer()

    def _note(self, due: datetime) -> None:
        """A row of the table is due at this time."""
        if self._claiming:
            self._meanwhile.append(due)  # the claim under way may not have seen the row
        elif due <= self._store.clock.now():
            self._more = True
        else:
            self._agenda.add(due)

    # When to do what

    @property
    def _free(self) -> int:
        """How many slots are free. An end in the recorder's backlog occupies one (P10)."""
        return self._pace.slots - len(self._running) - self._recorder.backlog

    @property
    def _wanted(self) -> int:
        """How many rows are worth claiming."""
        return self._free + self._ahead - self._waiting.slots_needed

    def _claim_at(self, now: float) -> float | None:
        """When to claim next, in the reactor's seconds; None if not yet known."""
        if self._claiming or self._recorder.held_up:
            return None
        if self._wanted <= self._ahead // 2:
            return None  # claims of a row each would cost more than the wait for more slots
        at = now
        if not self._more:
            due = self._agenda.next()
            if due is None:
                return None
            at += self._store.clock.until(due)
        return max(at, self._outages.not_before(CLAIM))

    def _scan_at(self) -> float | None:
        """When to scan next, in the reactor's seconds; None while a scan is under way."""
        if self._scanning:
            return None
        return max(self._next_scan, self._outages.not_before(SCAN))

    def _sign_at(self) -> float | None:
        """When to give the next sign of life; None while one is under way."""
        if self._signing:
            return None
        return max(self._next_sign, self._outages.not_before(SIGN))

    def _set_timer(self) -> None:
        """To be called whenever one of the three times above may have changed."""
        if self._stopping:
            return
        now = self._reactor.seconds()
        wanted = (self._claim_at(now), self._scan_at(), self._sign_at())
        times = [at for at in wanted if at is not None]
        if not times:
            return  # a scan and a sign of life are under way: their ends set the timer
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
        """A query failed. A store that is closing after the stop refuses all: no outage."""
        if not (self._over and isinstance(error, StoreUnavailable)):
            self._outages.failed(what, error)

    # Scan

    async def _scan(self) -> None:
        try:
            # Twice the time until the next scan, so that a slow scan leaves no gap.
            within = timedelta(seconds=2 * self._pace.scan)
            # The due rows of a path that claims leave out could fill the list.
            self._unscanned = frozenset(self._shares.left_out)
            self._look_at(await self._store.due_within(within, SCAN_LIMIT, self._unscanned))
            self._correct_soon()
        except Exception as error:
            self._failed(SCAN, error)
        finally:
            self._scanning = False
            self._set_timer()

    def _look_at(self, dues: Dues) -> None:
        """Put on the agenda the due times that a scan found."""
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
        """Begin a correction if the clock was set back and no correction is under way or pauses."""
        pauses = self._reactor.seconds() < self._outages.not_before(CORRECTION)
        if self._store.clock.set_backs != self._set_backs and not self._correcting and not pauses:
            self._correcting = True
            own(self._correct())

    async def _correct(self) -> None:
        """Move the due times that were written before the set-back, a piece of them at a time."""
        set_backs = self._store.clock.set_backs
        try:
            last = await self._store.correct(self._reach, None)
            while last is not None and not self._stopping:
                last = await self._store.correct(self._reach, last)
        except Exception as error:
            self._failed(CORRECTION, error)
            self._next_scan = self._outages.not_before(CORRECTION)  # and begin anew with that
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
        """Enter this instance in the instance table. No lease depends on that table."""
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
        # If all due rows are taken, other instances may have room for the rows due next.
        self._ahead = min(self._ended_meanwhile, self._pace.slots) if claimed.full else 0
        self._more = self._more or claimed.full
        self._agenda.forget_until(claimed.now)
        caught_up = claimed.runs and self._scan_is_past(claimed.now)
        let_in_again = self._unscanned.difference(self._shares.left_out)
        if not claimed.full and (caught_up or let_in_again):
            self._next_scan = self._reactor.seconds()  # see what comes next
        if self._over:
            return  # the claim ended after the stop: its runs are left to their leases
        self._waiting.add(claimed.runs, self._reactor.seconds())
        self._start_ready()
        if self._stopping:
            self._give_back_all()

    def _scan_is_past(self, now: datetime) -> bool:
        """Whether all due times that the last scan listed are past."""
        horizon = self._agenda.horizon
        return horizon is not None and horizon <= now

    # POST

    def _start_ready(self) -> None:
        """Start the waiting runs for which there are slots, and shares of their paths."""
        while self._waiting and (free := self._free) > 0:
            run = self._waiting.pop(free)
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
        for path, count in self._waiting.stuck(now, free).items():
            self._leave_out(path, count)
        self._give_back(self._waiting.pop_overdue(now))
        if self._waiting.ready_is_overdue(now):
            self._give_back_all()
        if self._waiting:
            delay = self._waiting.seconds_to_next_look(now)
            self._impatience = self._reactor.callLater(delay, self._wait)

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
        self._give_back(self._waiting.pop_all())

    def _give_back(self, runs: list[Run]) -> None:
        """Have runs written as not begun, so that any instance may claim them."""
        for run in runs:
            self._recorder.add(End(run, None, GiveBack()))

    def _start(self, run: Run) -> None:
        too_late = missed(run)
        if too_late is not None:
            skipped = End(run, None, too_late)
            log_skip(skipped)
            self._recorder.add(skipped)
            return
        if self._reactor.seconds() + self._pace.timeout > run.lease_ends:
            # The machine slept, or was cut off, since the claim. Before the POST could end,
            # another instance may claim the run and POST it (P3).
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
        """The attempt met a programming mistake: the run is tried again, like any that failed."""
        log.failure("{path!r} {body!r}: the attempt broke", failure, **fields(run))
        return Outcome(status=None, elapsed=0.0, error="internal error")

    def _ended(self, outcome: Outcome, run: Run) -> None:
        run = self._claimed_anew.get(run.row, run)
        now = self._store.clock.now()
        end = timely(judge(run, outcome, now, self._policy, self._random), now, self._reach)
        log_end(end)
        self._forget(run)
        self._ended_meanwhile += 1
        self._recorder.add(end)
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
        """The run's POST is no longer under way."""
        del self._running[run.row]
        self._claimed_anew.pop(run.row, None)
        self._shares.ended(run.key.path)

    # Record

    def _recorded(self, recorded: Recorded) -> None:
        """The recorder has written a batch: take in the due times, log what it wrote otherwise."""
        for due in recorded.dues:
            self._note(due)
        if recorded.lost or recorded.overridden or recorded.already:
            # Those jobs were scheduled anew during the run, maybe for a time that is past by now.
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
