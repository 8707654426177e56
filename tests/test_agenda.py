"""The heap of next-run times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.agenda import Agenda
from tests.strategies import thorough

START = datetime(2014, 11, 11, 22, 10, 40, tzinfo=UTC)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def drain(agenda: Agenda) -> list[datetime]:
    """Everything that an agenda holds, in its order."""
    times = []
    while (due := agenda.next()) is not None:
        times.append(due)
        agenda.forget_until(due)
    return times


class AgendaTests(SynchronousTestCase):
    """What is held, and what comes next."""

    def test_earliest_first(self) -> None:
        """P6: times come out in due order, whatever order they came in."""
        agenda = Agenda()
        agenda.fill([at(3), at(1), at(2)], at(10))
        agenda.add(at(0))
        agenda.add(at(2.5))
        self.assertEqual(drain(agenda), [at(0), at(1), at(2), at(2.5), at(3)])
        self.assertIsNone(agenda.next())

    def test_each_once(self) -> None:
        """P10: a time that many scans report is held once; one that was forgotten may come back."""
        agenda = Agenda()
        for _ in range(50):
            agenda.fill([at(1), at(1), at(2)], at(10))
            agenda.add(at(2))
        self.assertEqual(len(agenda), 2)
        agenda.forget_until(at(1))
        agenda.add(at(1))
        self.assertEqual(drain(agenda), [at(1), at(2)])

    def test_horizon(self) -> None:
        """P10: what is beyond the horizon is not held: the scan that moves it brings that."""
        agenda = Agenda()
        agenda.add(at(1))
        self.assertEqual(len(agenda), 0)
        agenda.fill([], at(10))
        agenda.add(at(10))
        agenda.add(at(10.000001))
        self.assertEqual(drain(agenda), [at(10)])
        agenda.fill([at(11)], at(20))
        self.assertEqual((agenda.next(), agenda.horizon), (at(11), at(20)))

    def test_a_scan_keeps_what_was_added(self) -> None:
        """P7: a time that was added while a scan was under way is still there after it."""
        agenda = Agenda()
        agenda.fill([], at(10))
        agenda.add(at(5))
        agenda.fill([at(7)], at(12))
        self.assertEqual(drain(agenda), [at(5), at(7)])

    def test_earliest(self) -> None:
        """P7: a time that is added may be the next one."""
        agenda = Agenda()
        agenda.fill([at(5)], at(10))
        for added, earliest in ((6, 5), (4, 4), (3, 3), (3.5, 3)):
            agenda.add(at(added))
            self.assertEqual(agenda.next(), at(earliest), added)

    def test_forget_until(self) -> None:
        """What a claim has looked at is dropped, the very moment included; the rest stays."""
        agenda = Agenda()
        agenda.fill([at(1), at(2), at(3)], at(10))
        agenda.forget_until(at(2))
        self.assertEqual(drain(agenda), [at(3)])

    def test_jobs(self) -> None:
        """How many jobs are due up to a time: as the last scan counted, and those added since."""
        agenda = Agenda()
        agenda.fill([at(1), at(1), at(2), at(3), at(3)], at(10))
        for then, jobs in ((0.9, 0), (1, 2), (2, 3), (2.9, 3), (3, 5), (9, 5)):
            self.assertEqual(agenda.jobs_until(at(then), 100), jobs, then)
        agenda.add(at(1))
        agenda.add(at(0))
        self.assertEqual(agenda.jobs_until(at(1), 100), 4)
        agenda.fill([at(0), at(1), at(1)], at(10))
        self.assertEqual(agenda.jobs_until(at(3), 100), 6)
        self.assertEqual([agenda.forget_until(at(1)), agenda.forget_until(at(9))], [3, 3])
        self.assertEqual(agenda.jobs_until(at(9), 100), 0)

    def test_enough_jobs(self) -> None:
        """P7: no more times are looked at than make up what is enough."""
        agenda = Agenda()
        agenda.fill([at(n) for n in range(100)] + [at(0)] * 20, at(200))
        self.assertEqual(agenda.jobs_until(at(150), 21), 21)
        self.assertEqual(agenda.jobs_until(at(150), 30), 30)

    def test_limit(self) -> None:
        """P10: what would be too many pulls the horizon in, to the last time that is still held."""
        agenda = Agenda(limit=10)
        agenda.fill((at(n) for n in range(11)), at(100))
        self.assertEqual((len(agenda), agenda.horizon), (5, at(4)))
        agenda.add(at(7))
        self.assertEqual(drain(agenda), [at(n) for n in range(5)])

    @given(st.lists(st.integers(0, 60)), st.integers(2, 20), st.integers(0, 60))
    @thorough(200)
    def test_all_up_to_the_horizon(self, seconds: list[int], limit: int, horizon: int) -> None:
        """P7, P10: never more than the limit, and up to the horizon nothing is missing."""
        agenda = Agenda(limit)
        agenda.fill([at(n) for n in seconds[::2]], at(horizon))
        for n in seconds[1::2]:
            agenda.add(at(n))
            self.assertLessEqual(len(agenda), limit)
        assert agenda.horizon is not None
        held = {at(n) for n in seconds if at(n) <= agenda.horizon}
        self.assertEqual(drain(agenda), sorted(held))
