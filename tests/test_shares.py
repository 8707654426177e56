"""How the slots are shared among paths."""

from __future__ import annotations

from itertools import cycle, islice
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.shares import Shares


def fill(slots: int, paths: list[str]) -> list[int]:
    """Each path in turn takes what it may; gives how many slots each has then."""
    shares, running = Shares(), dict.fromkeys(paths, 0)
    for path in islice(cycle(paths), slots * len(paths)):
        free = slots - sum(running.values())
        if free > 0 and shares.may_start(path, free):
            shares.started(path)
            running[path] += 1
    return list(running.values())


class ShareTests(SynchronousTestCase):
    """How many slots a path may have."""

    def test_what_hanging_paths_get(self) -> None:
        """P7: a path leaves some slots for the next; many paths with a few runs each leave none."""
        for slots, paths, expected in (
            (1, 1, [1]),
            (2, 1, [2]),
            (2, 2, [1, 1]),
            (4, 1, [4]),
            (5, 1, [4]),
            (10, 1, [8]),
            (100, 1, [80]),
            (100, 2, [45, 44]),
            (100, 3, [31, 31, 31]),
            (100, 10, [10] * 8 + [9] * 2),
            (100, 25, [4] * 25),
            (10_000, 1, [8_000]),
        ):
            found = fill(slots, [f"path{number}" for number in range(paths)])
            self.assertEqual(found, expected, (slots, paths))

    def test_one_path_after_the_other(self) -> None:
        """P7: a path that comes later gets less, and the last slot is for one with few runs."""
        shares, free, found = Shares(), 100, []
        for path in "abcd":
            before = free
            while free > 0 and shares.may_start(path, free):
                shares.started(path)
                free -= 1
            found.append(before - free)
        self.assertEqual(found, [80, 16, 4, 0])
        for running in range(6):
            shares = Shares()
            for _ in range(running):
                shares.started("a")
            self.assertEqual(shares.may_start("a", 1), running < 4, running)

    def test_several_runs(self) -> None:
        """Whether several may start is what starting one after the other comes to."""
        for running, free, expected in (
            (0, 100, 80),
            (80, 20, 0),
            (60, 20, 4),
            (4, 0, 0),
            (3, 0, 1),
        ):
            shares = Shares()
            for _ in range(running):
                shares.started("a")
            for runs in range(1, 100):
                may = shares.may_start("a", free, runs)
                self.assertEqual(may, runs <= expected, (running, free, runs))

    def test_one_run_each(self) -> None:
        """Where each job has a path of its own, all slots are used."""
        self.assertEqual(
            fill(100, [f"path{number}" for number in range(200)]), [1] * 100 + [0] * 100
        )

    def test_ended(self) -> None:
        """What has ended counts no more."""
        shares = Shares()
        for _ in range(8):
            shares.started("a")
        self.assertFalse(shares.may_start("a", 2))
        self.assertTrue(shares.may_start("b", 2))
        shares.ended("a")
        self.assertTrue(shares.may_start("a", 2))


class LeaveOutTests(SynchronousTestCase):
    """Which paths claims leave out, and until when."""

    def leave_out(self, running: int, waiting: int) -> Shares:
        shares = Shares()
        for _ in range(running):
            shares.started("dead")
        shares.leave_out("dead", waiting)
        self.assertEqual(list(shares.left_out), ["dead"])
        return shares

    def test_until_as_many_have_ended(self) -> None:
        """P5: a path is let in when as many have ended as waited."""
        for running, waiting, expected in ((80, 20, 20), (80, 1, 1)):
            shares, free = self.leave_out(running, waiting), running // 4
            for ended in range(expected):
                self.assertFalse(shares.let_in(free), (running, waiting))
                shares.ended("dead")
                free += ended % 2  # others take the rest
            self.assertTrue(shares.let_in(free), (running, waiting))
            self.assertEqual(set(shares.left_out), set())

    def test_no_more_than_were_running(self) -> None:
        """P5: the runs that were running are enough, however many waited."""
        shares = self.leave_out(4, 90)
        for ended in range(4):
            self.assertFalse(shares.let_in(2), ended)
            shares.ended("dead")
            shares.started("dead")
        self.assertTrue(shares.let_in(2))

    def test_until_there_is_room(self) -> None:
        """What has begun meanwhile, of its own or of other paths, has to leave it a share."""
        shares = self.leave_out(80, 1)
        shares.ended("dead")
        shares.started("dead")
        self.assertFalse(shares.let_in(20))
        shares.ended("dead")
        self.assertFalse(shares.let_in(1))
        self.assertTrue(shares.let_in(21))

    def test_until_others_leave_room(self) -> None:
        """P7: it is let in when others leave room for all that waited, or half of what is free."""
        for running, waiting, expected in ((40, 10, 22), (40, 1, 11), (4, 90, 3), (45, 45, 29)):
            shares = self.leave_out(running, waiting)
            self.assertFalse(shares.let_in(expected - 1), (running, waiting))
            self.assertTrue(shares.let_in(expected), (running, waiting))
            self.assertEqual(set(shares.left_out), set())
            started = 0
            while shares.may_start("dead", expected - started):
                shares.started("dead")
                started += 1
            self.assertGreaterEqual(started, min(running, waiting, 1 + expected // 2))

    def test_no_slot_is_free(self) -> None:
        """P7: a path that may not start is not let in, also if fewer than no slots are free."""
        for running, waiting, free in ((4, 4, -1), (9, 10, -20), (40, 40, 0)):
            shares = self.leave_out(running, waiting)
            self.assertFalse(shares.let_in(free), (running, waiting, free))

    def test_left_out_again(self) -> None:
        """The count of runs that have to end begins anew."""
        shares = self.leave_out(80, 2)
        shares.ended("dead")
        shares.leave_out("dead", 2)
        shares.ended("dead")
        self.assertFalse(shares.let_in(20))
        shares.ended("dead")
        self.assertTrue(shares.let_in(20))

    def test_each_by_its_own(self) -> None:
        """Room for one is not room for another."""
        shares = self.leave_out(40, 10)
        for _ in range(30):
            shares.started("dying")
        shares.leave_out("dying", 3)
        self.assertTrue(shares.let_in(12))
        self.assertEqual(list(shares.left_out), ["dead"])
        self.assertTrue(shares.let_in(22))

    def test_whatever_happens(self) -> None:
        """P5: a path without a run under way is never left out, nor kept from starting one."""
        random = Random(20141111)
        for slots in (1, 2, 3, 7, 100):
            shares, running = Shares(), dict.fromkeys("abc", 0)
            for _ in range(2_000):
                path, free = random.choice("abc"), slots - sum(running.values())
                may = shares.may_start(path, free)
                if running[path] and random.random() < 0.5:
                    shares.ended(path)
                    running[path] -= 1
                    shares.let_in(free + 1)
                elif free and may:
                    shares.started(path)
                    running[path] += 1
                elif not may:
                    shares.leave_out(path, random.randrange(1, 30))
                for name, count in running.items():
                    if not count:
                        self.assertNotIn(name, shares.left_out)
                        self.assertTrue(shares.may_start(name, 0))
