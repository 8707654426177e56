"""
The scheduler: the timers of claims, scans and records.

One timer wakes the scheduler for whatever comes first: a claim, a scan, or a query of the upkeep. A
scan, every `Pace.scan` seconds, reads the due times of the near future into the agenda. The agenda
tells when to claim; the claim, not the agenda, decides which runs start.

The scheduler owns that timer, builds the other parts of this folder, and stops them in order:

    outlook.py   when to claim and scan; claimsize.py: how many rows a claim takes
    slots.py     which claimed run starts when; POSTs it (posts.py)
    recorder.py  writes the ends of runs
    upkeep.py    heartbeats, corrections after a clock was set back, removal of old keys
    statistics.py  writes what sums.py has counted of the runs
    pruning.py   removal of old records of runs
    acting.py    batches of actions on many jobs
    outages.py   when a query that failed is made again

Whatever the database does, the scheduler goes on: a query that fails is logged once, and made again
until it succeeds (P5). Nothing here reads the machine's wall clock (P8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from dalga.dispatch.acting import Acting
from dalga.dispatch.alerts import NO_ALERTING, Alerting, Alerts
from dalga.dispatch.elsewhere import Elsewhere
from dalga.dispatch.gauges import show
from dalga.dispatch.loglines import log_recorded
from dalga.dispatch.outages import CLAIM, RECORD, SCAN, Outages
from dalga.dispatch.outlook import Outlook
from dalga.dispatch.posts import Poster, Posts
from dalga.dispatch.pruning import KEPT_BY_DEFAULT, Keeping, Pruning
from dalga.dispatch.query import Query
from dalga.dispatch.recorder import Recorder
from dalga.dispatch.slots import Slots
from dalga.dispatch.statistics import Statistics
from dalga.dispatch.sums import Sums
from dalga.dispatch.upkeep import Upkeep
from dalga.metrics import Metrics
from dalga.model.address import DEFAULT_ENDPOINT
from dalga.model.instance import UNKNOWN, About
from dalga.model.key import RawKey
from dalga.model.record import EndedRun
from dalga.model.run import RunPolicy, lease_of
from dalga.model.setback import Reach
from dalga.model.why import Here
from dalga.store import Claimed, Dues, Recorded, Store

#: Due times that one scan reads, at most.
SCAN_LIMIT = 1_000

#: There are signs of life if the last scan succeeded no longer ago than this (seconds), beyond the
#: time from one scan to the next.
SCANNED_LATELY = 30.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How many POSTs are under way at once, how long each takes, and how often a scan is made."""

    #: POSTs in flight at once.
    slots: int
    #: How long a POST to the default endpoint takes at most, in seconds.
    timeout: float
    #: Time between two scans, in seconds. Another instance's new job may be seen this late.
    scan: float
    #: How long a POST to another endpoint takes at most (seconds), by the endpoint's name.
    timeouts: Mapping[str, float] = field(default_factory=dict)

    @property
    def endpoints(self) -> frozenset[str]:
        """The names of all endpoints."""
        return frozenset((DEFAULT_ENDPOINT, *self.timeouts))

    @property
    def longest_timeout(self) -> float:
        """How long any POST takes at most, in seconds."""
        return max([self.timeout, *self.timeouts.values()])


def reach_of(pace: Pace, policy: RunPolicy) -> Reach:
    """How far ahead of the database's time an instance writes a time at the most."""
    lease = lease_of(pace.longest_timeout)
    return Reach(lease, policy.retry, 1 + policy.randomization_factor)


class Scheduler:
    """
    :param reactor: its ``seconds`` have to be the steady clock that the store's leases are in.
    :param random: for jitter.
    :param instance: what this instance calls itself.
    :param about: gives what this instance says of itself, as far as others know it.
    :param metrics: counts what the scheduler does, and shows what it has in hand.
    :param alerting: where alerts are sent.
    :param keeping: how long records of runs are kept.
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
        about: Callable[[], About] = lambda: UNKNOWN,
        *,
        metrics: Metrics,
        alerting: Alerting = NO_ALERTING,
        keeping: Keeping = KEPT_BY_DEFAULT,
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._pace = pace
        lease = lease_of(pace.longest_timeout)
        self._outages = outages = Outages(reactor, lease.total_seconds())
        self._recorder = recorder = Recorder(reactor, store, outages, self._recorded)
        self._outlook = outlook = Outlook(pace.scan, pace.slots)
        #: How far ahead of the database's time this instance has written a time at the most.
        self._reach = reach = reach_of(pace, policy)
        self._elsewhere = elsewhere = Elsewhere(
            reactor, pace.endpoints, lambda: outlook.stand_back(reactor.seconds())
        )
        self._posts = posts = Posts(
            reactor, store, endpoint, recorder, policy, random, reach, elsewhere
        )
        self._slots = Slots(
            reactor, store, posts, recorder, outlook, pace.slots, self._slot_freed, self._changed
        )
        self._upkeep = Upkeep(
            reactor,
            store,
            outages,
            instance,
            reach,
            outlook.lead,
            lambda: outlook.more,
            self._scan_soon,
            self._changed,
            lambda: about()._replace(slots=self._pace.slots, running=self.running),
        )
        self._alerts = Alerts(
            reactor,
            store,
            outages,
            random,
            alerting,
            instance,
            self._works,
            lambda: outlook.more,
            metrics,
            self._changed,
        )
        self._acting = Acting(
            reactor,
            store,
            outages,
            pace.slots,
            pace.endpoints,
            instance,
            lambda: outlook.more,
            self.expect,
            self._changed,
        )
        self._claims = Query(
            CLAIM, outages, self._claim_when, self._claim, self._take_in, self._claim_ended
        )
        scans = Query(SCAN, outages, self._scan_when, self._scan, self._look_at, self._changed)
        sums = Sums(instance, metrics.path_labels)
        metrics.source(sums.numbers)
        self._statistics = Statistics(
            reactor, store, outages, sums, lambda: outlook.more, self._changed
        )
        self._pruning = Pruning(
            reactor,
            store,
            outages,
            keeping,
            lambda: outlook.more,
            lambda: outlook.lead.others,
            self._changed,
            metrics,
        )
        #: All kinds, but for those of alerts.
        self._usual: tuple[Query[Any], ...] = (
            *(self._claims, scans),
            *self._upkeep.queries,
            *self._statistics.queries,
            *self._pruning.queries,
            *self._acting.queries,
        )
        self._queries = (*self._usual, *self._alerts.queries)
        #: When the last scan succeeded, in seconds of the reactor's clock.
        self._scanned = reactor.seconds()
        self._metrics = metrics
        show(metrics, store.clock, self._slots, recorder, outlook)
        #: Calls `_wake`.
        self._timer: IDelayedCall | None = None
        #: Whether `stop_claiming` was called, and whether `drain` has ended.
        self._stopping = False
        self._over = False
        #: `drain` waits for it.
        self._drained: Deferred[None] | None = None

    def start(self) -> None:
        """Begin to claim. The store has to be open."""
        self._set_timer()

    def reconfigure(
        self, pace: Pace, policy: RunPolicy, keeping: Keeping, alerting: Alerting
    ) -> None:
        """
        Go by other settings from now on: see the class.

        A run that is claimed keeps the time-out and the lease of its claim, so another time-out
        never makes its POST outlive its lease (P3). A run under way is judged by the policy that
        its POST began with.
        """
        reach = reach_of(pace, policy)
        if reach.lease < self._reach.lease:
            # Runs may be under way for as long as the former lease. To a correction, the end of
            # such a lease must not seem to be written by another clock.
            reach = replace(reach, lease=self._reach.lease)
        self._pace, self._reach = pace, reach
        self._outages.reconfigure(lease_of(pace.longest_timeout).total_seconds())
        self._upkeep.reconfigure(reach)
        self._posts.reconfigure(policy, reach)
        self._elsewhere.reconfigure(pace.endpoints)
        self._acting.reconfigure(pace.slots, pace.endpoints)
        self._pruning.reconfigure(keeping)
        self._alerts.reconfigure(alerting)
        self._queries = (*self._usual, *self._alerts.queries)
        self._outlook.reconfigure(pace.scan, pace.slots, self._reactor.seconds())
        self._slots.resize(pace.slots)
        self._set_timer()

    def stop_claiming(self) -> None:
        """
        Claim no more, and give back the waiting runs. Running runs end, and are recorded. A claim
        under way ends, too, and its runs are given back.
        """
        self._stopping = True
        self._upkeep.stop()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._slots.give_back_all()

    async def drain(self, grace: float) -> int:
        """
        After `stop_claiming`: wait until all running runs have ended and are recorded, and until it
        is recorded that the others are given back.

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
        self._outages.expect_closing()
        return self.running + self._recorder.abandon()

    async def depart(self) -> None:
        """
        After `drain`: cut off the alerts that are being sent, write the last of the statistics, and
        leave the instance table, unless the database is away. All three at the same time: each
        waits for a silent database for a second.
        """
        parts = self._alerts.close(), self._statistics.write_last(), self._upkeep.depart()
        await gatherResults([Deferred.fromCoroutine(part) for part in parts])

    @property
    def running(self) -> int:
        """How many runs have a POST under way."""
        return self._slots.running

    def look(self, key: RawKey) -> Here:
        """What this instance knows of a job's run, and of its path."""
        return self._slots.look(key)

    def expect(self, due: datetime) -> None:
        """This instance has written a job that is due at this time: claim it in time."""
        self._outlook.note(due, self._store.clock.now())
        self._claim_sooner()

    def expect_action(self) -> None:
        """This instance has written an action: make its first batch."""
        self._acting.look()

    def count_ended(self, runs: Sequence[EndedRun]) -> None:
        """Runs have ended by what users did, and have no `End` here: count them."""
        self._statistics.ended(runs, self._store.clock.now())
        self._changed()

    def _works(self) -> bool:
        """Whether claims and records work: what signs of life say."""
        now = self._reactor.seconds()
        if any(map(self._outages.fails, (CLAIM, SCAN, RECORD))):
            return False
        return now - self._scanned <= SCANNED_LATELY + self._pace.scan

    # The timer

    def _set_timer(self) -> None:
        """To be called whenever the time of the next query of a kind may have changed."""
        if self._stopping:
            return
        now = self._reactor.seconds()
        times = [at for query in self._queries if (at := query.at(now)) is not None]
        if not times:
            return  # a scan and a heartbeat are under way: their ends set the timer
        delay = max(0.0, min(times) - now)
        if self._timer is not None and self._timer.active():
            self._timer.reset(delay)
        else:
            self._timer = self._reactor.callLater(delay, self._wake)

    def _wake(self) -> None:
        now = self._reactor.seconds()
        times = [(query, query.at(now)) for query in self._queries]
        for query, at in times:
            if at is not None and at <= now:
                query.begin()
        self._set_timer()

    def _slot_freed(self) -> None:
        """A claim may be wanted sooner than anything was, or the drain may be over."""
        self._claim_sooner()
        self._check_drained()

    def _claim_sooner(self) -> None:
        """
        A claim may be wanted sooner than anything was.

        Each end of a run and each PUT comes here, and most change nothing: another claim is under
        way, is not worth it yet, or is not due yet. So only the time of the next claim is asked
        for, and the timer stays as it is unless it would be late. If it is early, it finds that no
        query is wanted yet.
        """
        at = self._claims.at(self._reactor.seconds())
        timer = self._timer
        if at is not None and (timer is None or not timer.active() or at < timer.getTime()):
            self._set_timer()

    def _changed(self) -> None:
        """Another query may be wanted by now, or the drain may be over."""
        self._set_timer()
        self._check_drained()

    # Claim

    def _claim_when(self, now: float) -> float | None:
        """When to claim next, in seconds of the reactor's clock; None if not yet known."""
        if self._recorder.held_up:
            return None
        if self._slots.wanted <= self._slots.ahead // 2:
            return None  # claims of a row each would cost more than the wait for more slots
        if self._outlook.more:
            return now
        due = self._outlook.next_claim()
        return None if due is None else now + self._store.clock.until(due)

    def _claim(self) -> Deferred[Claimed]:
        now, seconds = self._store.clock.now(), self._reactor.seconds()
        self._outlook.claim_begins(self.running, now, seconds)
        rows = self._outlook.rows(self._slots.wanted)
        pace = self._pace
        return self._store.claim(rows, pace.timeout, self._slots.left_out, pace.timeouts)

    def _take_in(self, claimed: Claimed) -> None:
        left_out, seconds = self._slots.left_out, self._reactor.seconds()
        self._outlook.claimed(claimed, self.running, left_out, seconds)
        self._metrics.claimed("taken" if claimed.runs else "empty", len(claimed.runs))
        self._metrics.takeovers += claimed.taken_over
        if self._over:
            return  # the claim ended after the stop: its runs are left to their leases
        if self._stopping:
            self._slots.give_back(claimed.runs)
        else:
            self._slots.add(claimed.runs)

    def _claim_ended(self) -> None:
        self._alerts.recorded()
        if not self._claims.succeeded:
            self._metrics.claimed("failed")
        self._outlook.claim_ended(self._claims.succeeded, self._store.clock.now())
        self._changed()

    # Scan

    def _scan_soon(self) -> None:
        self._outlook.scan_soon(self._reactor.seconds())

    def _scan_when(self, now: float) -> float:
        return self._outlook.next_scan

    def _scan(self) -> Deferred[Dues]:
        # The due rows of a path that claims leave out could fill the list.
        without = self._slots.left_out
        self._outlook.scan_begins(without, self._reactor.seconds())
        # Twice the time until the next scan, so that a slow scan leaves no gap.
        within = timedelta(seconds=2 * self._pace.scan)
        return self._store.due_within(within, SCAN_LIMIT, without)

    def _look_at(self, dues: Dues) -> None:
        self._scanned = self._reactor.seconds()
        self._outlook.scanned(dues, self._store.clock.now(), self._reactor.seconds())

    # Record

    def _recorded(self, recorded: Recorded) -> None:
        """The recorder has written a batch. The log tells which ends it wrote otherwise."""
        now = self._store.clock.now()
        self._outlook.recorded(recorded, now)
        self._statistics.recorded(recorded, now)
        self._upkeep.recorded(recorded)
        self._alerts.recorded()
        self._metrics.leases_lost += len(recorded.lost)
        log_recorded(recorded)
        self._slots.records_written()
        self._changed()

    # Stop

    @property
    def _idle(self) -> bool:
        return not (self._claims.under_way or self.running or self._recorder.pending)

    def _check_drained(self) -> None:
        if self._drained is not None and self._idle:
            self._give_up()

    def _give_up(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)
