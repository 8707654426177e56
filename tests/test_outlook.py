"""What is known of the rows to come: when to claim, how many rows, and when to scan."""

from __future__ import annotations

from datetime import timedelta

from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.outlook import Outlook
from dalga.model.run import End, GiveBack, Run, Skip
from dalga.store import Claimed, Dues, Recorded
from tests.examples import NOW, RUN, SECOND

#: From one scan to the next, in seconds.
SCAN = 1.0
NOBODY: frozenset[str] = frozenset()


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


class OutlookTestCase(SynchronousTestCase):
    """An outlook that has scanned the next two seconds and found nothing, and has claimed."""

    def setUp(self) -> None:
        self.outlook = Outlook(SCAN, slots=10)
        self.scan(horizon=2.0)
        self.claim([], full=False)

    def scan(self, horizon: float, *dues: float, without: frozenset[str] = NOBODY) -> None:
        """A scan at 100 s, up to so many seconds from now, finds these."""
        self.outlook.scan_begins(without, 100.0)
        times = [NOW + seconds(due) for due in dues]
        self.outlook.scanned(Dues(times, NOW + seconds(horizon)), NOW, 100.0)

    def claim(
        self,
        runs: list[Run],
        full: bool,
        after: float = 0.0,
        ended: int = 0,
        without: frozenset[str] = NOBODY,
    ) -> None:
        """A claim so many seconds from now, during which so many runs end."""
        self.outlook.claim_begins()
        for _ in range(ended):
            self.outlook.run_ended()
        now = NOW + seconds(after)
        self.outlook.claimed(Claimed(runs, now, full), without, 100.0 + after)
        self.outlook.claim_ended(True, now)


class ClaimTests(OutlookTestCase):
    """When to claim, and how many rows."""

    def test_a_batch_of_ends(self) -> None:
        """
        P7: the next runs go on the agenda. A job that a user changed during its run may be due.
        """
        later = NOW + SECOND
        again = End(RUN, None, Skip(later))
        for recorded, more, agenda in (
            (Recorded(written=[again]), False, later),
            (Recorded(revised=[again]), False, later),
            (Recorded(written=[End(RUN, None, GiveBack())]), True, None),
            (Recorded(overridden=[again]), True, None),
            (Recorded(lost=[again], postponed=[again]), False, None),
        ):
            self.setUp()
            self.outlook.recorded(recorded, NOW)
            found = self.outlook.more, self.outlook.agenda.next()
            self.assertEqual(found, (more, agenda), recorded)

    def test_a_path_that_claims_take_in_again(self) -> None:
        """P6: its rows may be due."""
        self.outlook.paths_let_in()
        self.assertTrue(self.outlook.more)

    def test_runs_that_were_given_back(self) -> None:
        """P10: slots come too slowly to claim ahead of them."""
        self.claim([RUN], full=True, ended=3)
        self.assertEqual(self.outlook.ahead, 3)
        self.outlook.gave_back()
        self.assertEqual(self.outlook.ahead, 0)

    def test_a_due_time(self) -> None:
        """P7: a time to come goes on the agenda; one that is past asks for a claim at once."""
        for due, more, agenda in ((SECOND, False, NOW + SECOND), (seconds(0), True, None)):
            self.setUp()
            self.outlook.note(NOW + due, NOW)
            self.assertEqual((self.outlook.more, self.outlook.agenda.next()), (more, agenda))

    def test_during_a_claim(self) -> None:
        """P7: the claim may not have seen the row, so that its time is looked at afterwards."""
        self.outlook.claim_begins()
        self.outlook.note(NOW, NOW)
        self.outlook.claimed(Claimed([], NOW, full=False), NOBODY, 100.0)
        self.assertFalse(self.outlook.more)
        self.outlook.claim_ended(True, NOW)
        self.assertTrue(self.outlook.more)

    def test_more_rows_during_a_claim(self) -> None:
        """P7: a claim that finds fewer rows than it may take says nothing of those found since."""
        self.outlook.claim_begins()
        self.scan(-1.0, -1.0)
        self.outlook.claimed(Claimed([], NOW, full=False), NOBODY, 100.0)
        self.outlook.claim_ended(True, NOW)
        self.assertTrue(self.outlook.more)

    def test_after_a_claim(self) -> None:
        """There may be more rows where it was full, or failed; the times up to it are done with."""
        self.outlook.note(NOW + SECOND, NOW)
        self.claim([RUN], full=False, after=1.0)
        self.assertEqual((self.outlook.more, self.outlook.agenda.next()), (False, None))
        self.claim([RUN], full=True)
        self.assertTrue(self.outlook.more)
        self.outlook.claim_begins()
        self.assertFalse(self.outlook.more)
        self.outlook.claim_ended(False, NOW)
        self.assertTrue(self.outlook.more)

    def test_ahead(self) -> None:
        """As many rows as runs ended during the last claim, at most one a slot; none at the end."""
        for full, ended, ahead in ((True, 3, 3), (True, 11, 10), (True, 0, 0), (False, 3, 0)):
            self.claim([RUN], full, ended=ended)
            self.assertEqual(self.outlook.ahead, ahead, (full, ended))


class ScanTests(OutlookTestCase):
    """When to scan."""

    def test_regularly(self) -> None:
        """P10: once an interval, where nothing asks for more."""
        self.scan(2.0, 0.5)
        self.claim([RUN], full=False, after=0.5)
        self.assertEqual(self.outlook.next_scan, 100.0 + SCAN)

    def test_more_than_a_scan_lists(self) -> None:
        """P7: the next begins where the list ends; where that is past, a claim goes first."""
        for horizon, next_scan, more in (
            (0.25, 100.25, False),
            (0.0, 101.0, True),
            (-1.0, 101.0, True),
        ):
            self.setUp()
            self.scan(horizon, horizon)
            self.assertEqual((self.outlook.next_scan, self.outlook.more), (next_scan, more))

    def test_one_that_is_wanted_sooner(self) -> None:
        """P7: the end of the list puts off no scan that a claim has asked for meanwhile."""
        self.outlook.scan_begins(frozenset({"dead"}), 100.0)
        self.claim([], full=False)
        self.outlook.scanned(Dues([], NOW + seconds(0.25)), NOW, 100.0)
        self.assertEqual(self.outlook.next_scan, 100.0)

    def test_caught_up(self) -> None:
        """P7: the claim that takes the last of a backlog is followed by a scan at once."""
        self.scan(-1.0, -1.0)
        self.claim([RUN], full=True, after=0.25)
        self.assertEqual(self.outlook.next_scan, 101.0)
        self.claim([RUN], full=False, after=0.5)
        self.assertEqual(self.outlook.next_scan, 100.5)

    def test_left_out(self) -> None:
        """P7: so is a path that was left out of the last scan, and one that is from now on."""
        dead = frozenset({"dead"})
        self.scan(2.0, without=dead)
        self.claim([], full=False, after=0.25, without=dead)
        self.assertEqual(self.outlook.next_scan, 101.0)  # it is left out still
        self.claim([], full=False, after=0.5)
        self.assertEqual(self.outlook.next_scan, 100.5)
        self.scan(2.0)
        self.outlook.path_left_out(NOW + SECOND, 100.5)
        self.assertEqual(self.outlook.next_scan, 101.0)
        self.outlook.path_left_out(NOW + 2 * SECOND, 100.75)
        self.assertEqual(self.outlook.next_scan, 100.75)
