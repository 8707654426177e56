"""Claimed runs that wait for a slot or for their path's share: in which order, and how long."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.shares import Shares
from dalga.dispatch.waiting import SHARE_PATIENCE, SLOT_PATIENCE, Waiting
from dalga.model.key import JobKey
from dalga.model.options import Options
from dalga.model.run import Run
from dalga.model.schedule import Every
from tests.fakes import EPOCH

#: When the runs of a test are claimed, in seconds of the reactor's clock.
CLAIMED = 1000.0


def a_run(name: str) -> Run:
    """A run by its path and the second at which it is due, such as ``a1``."""
    due = EPOCH + timedelta(seconds=int(name[1:]))
    return Run(
        row=1,
        token=b"",
        key=JobKey(name[0], name),
        schedule=Every(timedelta(minutes=1)),
        options=Options(),
        anchor=EPOCH,
        scheduled=due,
        due=due,
        waited=False,
        id="",
        attempt=1,
        started=EPOCH,
        successes=0,
        claimed=EPOCH,
        lease_ends=0.0,
        payload=b"abc",
        timeout=10.0,
    )


def runs(names: str) -> list[Run]:
    """Runs by their names, with spaces between."""
    return [a_run(name) for name in names.split()]


def names(found: list[Run]) -> str:
    return " ".join(run.key.body for run in found)


class WaitingTestCase(SynchronousTestCase):
    """The queues, over shares of the slots."""

    def setUp(self) -> None:
        self.fill("", "")

    def fill(self, running: str, waiting: str, at: float = CLAIMED) -> None:
        """
        Begin anew.

        :param running: the paths with a run under way, a letter for each run.
        """
        self.shares = Shares()
        for path in running:
            self.shares.started(path)
        self.waiting = Waiting(self.shares)
        self.waiting.add(runs(waiting), at)

    def start(self, free: int) -> str:
        """Start as many as may; gives their names in order."""
        started = []
        while free > 0 and (run := self.waiting.pop(free)):
            self.shares.started(run.key.path)
            started.append(run)
            free -= 1
        return names(started)


class OrderTests(WaitingTestCase):
    """Which run is the next to start."""

    def test_who_starts(self) -> None:
        """P6, P7: the oldest, but for paths that are at their limits: 4 times what is free."""
        for running, waiting, free, started, passed_over, left in (
            ("", "", 5, "", "", ""),
            ("", "a1", 0, "", "", "a1"),
            ("", "a1 b2 a3", 5, "a1 b2 a3", "", ""),
            ("", "a1 b2 a3", 2, "a1 b2", "", "a3"),
            # A path's limit counts its runs only; with none under way it may always have one.
            ("aaaa", "a1 b2", 2, "a1 b2", "", ""),
            ("aaaa", "a1 b2", 1, "b2", "a", "a1"),
            ("bbbbbbbb", "a1 b2", 1, "a1", "", "b2"),
            # The limit falls with each slot that is taken.
            ("aaaa", "a1 a2 a3 b4", 2, "a1 b4", "a", "a2 a3"),
            # Where all are at their limits, slots stay free.
            ("aaaabbbb", "a1 b2 a3", 1, "", "ab", "a1 a3 b2"),
            # What is behind the last that starts is not looked at, and is ready.
            ("aaaa", "a1 b2 a3", 1, "b2", "a", "a1 a3"),
        ):
            self.fill(running, waiting)
            self.assertEqual(self.start(free), started, waiting)
            stuck = self.waiting.paths_to_leave_out(CLAIMED + SHARE_PATIENCE + 0.001, 0)
            self.assertEqual("".join(stuck), passed_over, waiting)
            self.assertEqual(bool(self.waiting), bool(left), waiting)
            self.assertEqual(names(self.waiting.pop_all()), left, waiting)
            self.assertFalse(self.waiting)

    def test_passed_over_are_next(self) -> None:
        """P6: as a path's runs end, its oldest starts; of several paths that may, the oldest."""
        for ended, started in (
            ("", ""),
            ("a", "a1"),
            ("b", "b2"),
            ("ba", "a1 b2"),
            ("aab", "a1 b2 a4"),
        ):
            self.fill("aaaabbbb", "a1 b2 c3 a4 b5")
            self.assertEqual(self.start(1), "c3")
            self.assertEqual(self.start(1), "")  # a4 and b5 come up
            self.waiting.add(runs("a6"), CLAIMED)
            for path in ended:
                self.shares.ended(path)
            found = []
            while run := self.waiting.pop(1):
                self.shares.started(run.key.path)
                found.append(run)
            self.assertEqual(names(found), started, ended)

    def test_whatever_happens(self) -> None:
        """P5, P6: each run is taken once, and those of a path in the order of their claims."""
        random = Random(20141111)
        for slots in (1, 2, 5, 20):
            self.fill("", "")
            added: dict[str, list[str]] = {path: [] for path in "abc"}
            taken: dict[str, list[str]] = {path: [] for path in "abc"}
            running: Counter[str] = Counter()
            for second in range(2_000):
                path = random.choice("abc")
                if running[path] and random.random() < 0.6:
                    self.shares.ended(path)
                    running[path] -= 1
                else:
                    self.waiting.add(runs(f"{path}{second}"), CLAIMED)
                    added[path].append(f"{path}{second}")
                while (free := slots - running.total()) > 0 and (run := self.waiting.pop(free)):
                    self.shares.started(run.key.path)
                    running[run.key.path] += 1
                    taken[run.key.path].append(run.key.body)
                waiting = sum(map(len, added.values())) - sum(map(len, taken.values()))
                self.assertEqual(self.waiting.payloads, 3 * waiting)
            self.assertGreater(min(map(len, taken.values())), 10, slots)
            for run in self.waiting.pop_all():
                taken[run.key.path].append(run.key.body)
            self.assertEqual(taken, added, slots)
            self.assertEqual(self.waiting.payloads, 0)


class SlotsNeededTests(WaitingTestCase):
    """How many of the runs that wait are in the way of another claim."""

    def test_slots_needed(self) -> None:
        """All, but for those whose path is left out of claims: other paths' runs go past these."""
        for left_out, expected in (("", 4), ("a", 2), ("b", 3), ("ab", 1)):
            self.fill("aaaabbbb", "a1 b2 a3")
            self.assertEqual(self.start(1), "")
            self.waiting.add(runs("a4"), CLAIMED)
            for path in left_out:
                self.shares.leave_out(path, 1)
            self.assertEqual(self.waiting.slots_needed, expected, left_out)


class PatienceTests(WaitingTestCase):
    """How long a run waits, in seconds from its claim."""

    def test_stuck(self) -> None:
        """P7: a path is stuck if it is still at its limit after `SHARE_PATIENCE`."""
        for after, free, expected in (
            (0.0, 1, {}),
            (SHARE_PATIENCE - 0.001, 1, {}),
            (SHARE_PATIENCE + 0.001, 1, {"a": 2}),
            (SHARE_PATIENCE + 0.001, 2, {}),  # it has a share again
            (SLOT_PATIENCE + 0.001, 1, {"a": 2, "b": 1}),
        ):
            self.fill("aaaabbbb", "a1 a2 c3")
            self.waiting.add(runs("b4"), CLAIMED + 0.1)
            self.assertEqual(self.start(1), "c3")
            self.assertEqual(self.start(1), "")
            found = self.waiting.paths_to_leave_out(CLAIMED + after, free)
            self.assertEqual(found, expected, (after, free))

    def test_pop_overdue_paths(self) -> None:
        """P5: after `SLOT_PATIENCE` all of a path are taken off, and of no other path."""
        for after, expected, left in (
            (0.0, "", "a1 a2 a4 b3"),
            (SLOT_PATIENCE - 0.001, "", "a1 a2 a4 b3"),
            (SLOT_PATIENCE + 0.001, "a1 a2 a4", "b3"),
            (SLOT_PATIENCE + 0.101, "a1 a2 a4 b3", ""),
        ):
            self.fill("aaaabbbb", "a1 a2")
            # a4 goes with the oldest of its path
            self.waiting.add(runs("b3 a4"), CLAIMED + 0.1)
            self.assertEqual(self.start(1), "")
            found = self.waiting.pop_overdue_paths(CLAIMED + after)
            self.assertEqual(names(found), expected, after)
            self.assertEqual(names(self.waiting.pop_all()), left, after)

    def test_ready_is_overdue(self) -> None:
        """The oldest run that is ready counts, not one that was passed over."""
        for running, waiting, after, expected in (
            ("", "", 9.0, False),
            ("", "a1 b2", SLOT_PATIENCE - 0.001, False),
            ("", "a1 b2", SLOT_PATIENCE + 0.001, True),
            ("aaaa", "a1 a2", SLOT_PATIENCE + 0.001, False),
        ):
            self.fill(running, waiting)
            if running:
                self.assertEqual(self.start(1), "")
            if waiting:
                self.waiting.add(runs("c9"), CLAIMED + 0.1)
            found = self.waiting.ready_is_overdue(CLAIMED + after)
            self.assertEqual(found, expected, (waiting, after))

    def test_seconds_to_next_look(self) -> None:
        """When the patience of the oldest run of a queue is over, and after `SHARE_PATIENCE`."""
        for passed_over, ready, now, expected in (
            (None, 0.0, 0.0, SHARE_PATIENCE),
            (None, 0.0, 0.02, SHARE_PATIENCE - 0.02),
            (None, 0.0, 0.1, SHARE_PATIENCE),
            (None, 0.0, SLOT_PATIENCE - 0.02, 0.02),
            (0.0, None, SHARE_PATIENCE - 0.01, 0.01),
            (0.0, None, SLOT_PATIENCE - 0.01, 0.01),
            (0.0, 0.03, SHARE_PATIENCE - 0.01, 0.01),
            (0.0, 0.03, SHARE_PATIENCE + 0.01, 0.02),
            (0.0, 0.1, SLOT_PATIENCE - 0.03, 0.03),
            (None, None, 0.0, SHARE_PATIENCE),  # nothing waits
            (0.0, 0.0, SLOT_PATIENCE, SHARE_PATIENCE),  # what is overdue is not taken off yet
        ):
            self.fill("aaaa", "")
            if passed_over is not None:
                self.waiting.add(runs("a1"), CLAIMED + passed_over)
                self.assertEqual(self.start(1), "")
            if ready is not None:
                self.waiting.add(runs("a2 b3"), CLAIMED + ready)
            found = self.waiting.seconds_to_next_look(CLAIMED + now)
            self.assertAlmostEqual(found, expected, 6, (passed_over, ready, now))
