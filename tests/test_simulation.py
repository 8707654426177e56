"""
The simulation of many daemons (bench/simulation) keeps the promises, follows its rules, and gives
what was measured.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from bench.simulation.__main__ import Check, checks
from bench.simulation.daemon import Site
from bench.simulation.machine import MS, Cores, Interpreter, Time, at
from bench.simulation.table import Database
from bench.simulation.world import Result, World, death, drain, punctual
from dalga.dispatch import loglines
from dalga.dispatch.lead import LONGEST, seconds_of
from dalga.model.run import LEASE_MARGIN
from tests.fakes import noting

#: Each daemon on a machine of its own, and a database with cores to spare.
APART = Site(daemons=2, database_cores=16, trip=0.2 * MS)


class SimulationTests(SynchronousTestCase):
    """What daemons do over the modelled database."""

    def setUp(self) -> None:
        # A line for each run of thousands.
        self.patch(loglines, "log", Logger("simulation", observer=noting([])))

    def check_each_once(self, result: Result) -> None:
        """All jobs have arrived, each once, and none is left in the table."""
        self.assertEqual(result.left, 0)
        self.assertEqual(len(result.arrivals), result.jobs)
        self.assertEqual(len({arrival.row for arrival in result.arrivals}), result.jobs)
        self.assertEqual(result.overlaps, 0)

    def test_each_once(self) -> None:
        """P2, P3: of a backlog and of what is due later each job arrives once, by any daemon."""
        for count in (1, 2, 5):
            site = replace(APART, daemons=count)
            self.check_each_once(drain(site, 1_000))
            self.check_each_once(punctual(site, 1))
            self.check_each_once(punctual(site, 1, spread=False))

    def test_without_skip_locked(self) -> None:
        """P3: an engine that makes claims wait for locks gives one winner, too."""
        result = drain(replace(APART, daemons=4, skip_locked=False), 2_000)
        self.check_each_once(result)
        self.assertGreater(result.counts["empty claims"], 0)

    def test_death(self) -> None:
        """P2, P3, P5: what a daemon that dies had claimed is run by others, and never at once."""
        for after in (0.55, 0.6):
            result = death(replace(APART, answers_after=0.02), 2_000, after)
            self.assertEqual(result.left, 0)
            self.assertEqual(len({arrival.row for arrival in result.arrivals}), 2_000)
            self.assertEqual(result.overlaps, 0)

    def test_death_delays_by_the_lease(self) -> None:
        """P5, P7: a dead daemon's jobs are POSTed when their leases end, and no later."""
        site = replace(APART, answers_after=0.02)
        lease = site.timeout + LEASE_MARGIN
        result = death(site, 2_000, after=0.6)
        self.assertGreater(len(result.delays), 10)
        for delay in result.delays:
            self.assertLessEqual(delay, lease + 0.1)
            self.assertGreater(delay, lease - 1.0)
        self.assertLess(result.ended, 0.6 + lease + 0.2)

    def test_light_load(self) -> None:
        """P7: at a light load few claims of many daemons are in vain, and jobs are on time."""
        for count, in_vain in ((1, 0.02), (2, 0.4), (8, 1.0)):
            result = punctual(replace(APART, daemons=count), 3)
            self.check_each_once(result)
            self.assertLess(result.per_job("empty claims"), in_vain)
            self.assertLess(result.late(99), 10)

    def test_burst(self) -> None:
        """P6, P7: of a burst each daemon takes a part, also where most leave others a lead."""
        site = replace(APART, daemons=8)
        dues = [2 + n / 300 for n in range(600)] + [4.5] * 300
        world = World(site, dues)
        result = world.run()
        self.check_each_once(result)
        burst = [arrival for arrival in result.arrivals if arrival.at >= 4.5]
        self.assertEqual(len(burst), 300)
        self.assertGreater(min(Counter(arrival.daemon for arrival in burst).values()), 20)
        alone = World(APART, dues).run().arrivals[-1].late
        self.assertLess(burst[-1].late, 0.4 * alone)

    def test_burst_for_which_there_are_slots(self) -> None:
        """P7: no job of a burst waits at one daemon while another one has a free slot."""
        for daemons, slots in ((2, 1), (2, 10), (4, 2), (4, 100)):
            site = replace(APART, daemons=daemons, slots=slots, answers_after=2.0)
            result = World(site, [3.0] * (daemons * slots)).run()
            self.check_each_once(result)
            self.assertLess(result.arrivals[-1].late, 0.1, (daemons, slots))

    def test_death_of_the_first(self) -> None:
        """P5, P7: when the daemon dies that took most jobs, others wait for a lead, no longer."""
        world = World(replace(APART, daemons=8), (2 + n / 300 for n in range(900)))

        def die() -> None:
            lately = Counter(arrival.daemon for arrival in world.endpoint.arrivals[-50:])
            ((first, _),) = lately.most_common(1)
            world.daemons[first].die()

        world.time.expect(3.5, die)
        result = world.run()
        self.assertEqual((result.left, result.overlaps), (0, 0))
        # But for the jobs that it had claimed, which wait for their leases.
        late = [arrival.late for arrival in result.arrivals if arrival.late < 1]
        self.assertGreater(len(late), 890)
        self.assertLess(max(late), seconds_of(LONGEST) + 0.01)

    def test_more_daemons_are_no_slower(self) -> None:
        """While the database has cores to spare, each daemon adds to the rate."""
        rates = [
            drain(replace(APART, daemons=count), 1_500 * count).rate_together for count in (1, 2, 4)
        ]
        for fewer, more in pairwise(rates):
            self.assertGreater(more, 1.5 * fewer)

    def test_database_is_the_bound(self) -> None:
        """Where that has but a sixth of a core, more daemons add nothing; nor do they take away."""
        site = replace(APART, database_cores=1 / 6)
        four, eight = (drain(replace(site, daemons=n), 3_000).rate_together for n in (4, 8))
        self.assertLess(abs(eight / four - 1), 0.15)

    def test_same_seed_same_result(self) -> None:
        """The seed decides all."""
        self.assertEqual(drain(APART, 500), drain(APART, 500))
        self.assertNotEqual(drain(APART, 500), drain(replace(APART, seed=2), 500))

    def test_measured(self) -> None:
        """
        One daemon and two come to what was measured, within twice what ``--check`` tolerates: these
        runs are short, and a change of the scheduler is measured later than it is made.
        """
        for check in checks(scale=0.2):
            if check.tolerance is not None:
                self.assertLess(abs(check.error), 2 * check.tolerance, str(check))

    def test_check(self) -> None:
        """A figure beyond its tolerance is seen."""
        self.assertTrue(Check("", 100.0, 109.0, 0.1).held)
        self.assertFalse(Check("", 100.0, 111.0, 0.1).held)
        self.assertFalse(Check("", 100.0, 89.0, 0.1).held)
        self.assertTrue(Check("", 100.0, 300.0, None).held)


class ModelTests(SynchronousTestCase):
    """The parts of the model."""

    def setUp(self) -> None:
        self.time = Time()
        self.said: list[tuple[str, float]] = []

    def say(self, what: str) -> None:
        self.said.append((what, round(self.time.now, 6)))

    def go_on(self) -> None:
        self.time.run(lambda: False, 10.0)

    def test_cores_are_shared(self) -> None:
        """What can run shares the cores evenly, with others' processes too."""
        for others, both in ((0, 1.0), (1, 1.5), (2, 2.0)):
            self.time, self.said = Time(), []
            cores = Cores(self.time, 2, others)
            cores.run(1.0, lambda: self.say("one"))
            cores.run(1.0, lambda: self.say("two"))
            self.go_on()
            self.assertEqual(self.said, [("one", both), ("two", both)])

    def test_one_thing_at_a_time(self) -> None:
        """A thread is let in between two turns, but not within one, unless that takes long."""
        for steps, expected in (
            (3, "turn now now now thread next"),
            (9, "now thread now now now now next"),
        ):
            self.time, self.said = Time(), []
            daemon = Interpreter(self.time, Cores(self.time, 1))

            def turn(daemon: Interpreter = daemon, steps: int = steps) -> None:
                self.say("turn")
                daemon.thread(0.0, lambda: self.say("thread"))
                for _ in range(steps):
                    daemon.now(1 * MS, lambda: self.say("now"))

            daemon.turn(0.0, turn)
            daemon.turn(0.0, lambda: self.say("next"))
            self.go_on()
            self.assertIn(expected, " ".join(what for what, _ in self.said))

    def test_commits_share_a_flush(self) -> None:
        """Commits that come during a flush share the next one."""
        database = Database(self.time, Cores(self.time, 4), commit=0.01)
        owner = Interpreter(self.time, Cores(self.time, 1))
        for name in ("first", "second", "third"):
            transaction = database.begin(owner)
            database.commit(transaction, lambda: None, lambda name=name: self.say(name))  # type: ignore[misc]
        self.go_on()
        self.assertEqual(self.said, [("first", 0.01), ("second", 0.02), ("third", 0.02)])
        self.assertEqual(database.counts["flushes"], 2)

    def test_locked_rows_are_passed_over(self) -> None:
        """SKIP LOCKED: what one transaction has found, another does not; until that has ended."""
        database = Database(self.time, Cores(self.time, 4), commit=0.01)
        owner = Interpreter(self.time, Cores(self.time, 1))
        for n in range(6):
            database.insert(at(n / 10))
        one, two = database.begin(owner), database.begin(owner)

        def find(of: int) -> tuple[list[int], int]:
            found, passed = database.find((one, two)[of], 2, at(0.35))
            return [row.id for row in found], passed

        self.assertEqual(find(0), ([0, 1], 0))
        self.assertEqual(find(1), ([2, 3], 2))
        self.assertEqual(find(1), ([], 4))  # two more are not due
        database.connection_lost(owner)
        self.assertEqual(find(0), ([0, 1], 0))

    def test_lease(self) -> None:
        """A row that is taken is due again when its lease ends."""
        database = Database(self.time, Cores(self.time, 4), commit=0.01)
        owner = Interpreter(self.time, Cores(self.time, 1))
        row = database.insert(at(0))
        found, _ = database.find(database.begin(owner), 9, at(1))
        database.take(found, at(21))
        self.assertEqual(Counter(database.due_within(timedelta(30), 9, at(1)).times), {at(21): 1})
        self.assertEqual(database.find(database.begin(owner), 9, at(20.9)), ([], 0))
        self.assertIs(row, found[0])
