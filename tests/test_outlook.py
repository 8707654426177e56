"""What is known of the rows to come: when to claim, how many rows, and when to scan."""

from __future__ import annotations

from datetime import timedelta

from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.claimsize import HELD, share_of
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
        running: int = 0,
        left: int = 1,
    ) -> None:
        """
        A claim so many seconds from now, during which so many runs end.

        :param left: how many runs are still under way after it.
        """
        self.begin(after, running)
        for _ in range(ended):
            self.outlook.size.run_ended()
        now = NOW + seconds(after)
        self.outlook.claimed(Claimed(runs, now, full), left, without, 100.0 + after)
        self.outlook.claim_ended(True, now)

    def begin(self, after: float = 0.0, running: int = 0) -> None:
        """A claim begins so many seconds from now."""
        self.outlook.claim_begins(running, NOW + seconds(after), 100.0 + after)


class StandBackTests(OutlookTestCase):
    """After a run that only others can POST, they are left the longest lead for a while."""

    def lead(self, after: float) -> float:
        """How much later than a due time so many seconds from now a claim is made."""
        self.outlook.agenda.add(NOW + seconds(after))
        at = self.outlook.next_claim()
        assert at is not None
        return (at - NOW).total_seconds() - after

    def test_stands_back(self) -> None:
        self.outlook.lead.others = 1
        self.scan(horizon=100.0)
        self.assertEqual(self.lead(1.0), 0)
        self.outlook.stand_back(100.0)
        for after in (1.0, 30.0, 59.0):
            self.assertAlmostEqual(self.lead(after), 0.032)
            # What it finds in time, or late, does not bring it to the front again.
            self.claim([RUN._replace(due=NOW)], full=False, after=after)
        self.assertAlmostEqual(self.lead(60.0), 0.032)
        self.claim([RUN._replace(due=NOW)], full=False, after=60.0)
        self.assertEqual(self.lead(61.0), 0)

    def test_alone(self) -> None:
        """Nobody is there to be quicker."""
        self.outlook.stand_back(100.0)
        self.assertEqual(self.lead(1.0), 0)


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
        self.assertEqual(self.outlook.size.ahead, 3)
        self.outlook.size.gave_back(100.0)
        self.assertEqual(self.outlook.size.ahead, 0)

    def test_a_due_time(self) -> None:
        """P7: a time to come goes on the agenda; one that is past asks for a claim at once."""
        for due, more, agenda in ((SECOND, False, NOW + SECOND), (seconds(0), True, None)):
            self.setUp()
            self.outlook.note(NOW + due, NOW)
            self.assertEqual((self.outlook.more, self.outlook.agenda.next()), (more, agenda))

    def test_during_a_claim(self) -> None:
        """P7: the claim may not have seen the row, so that its time is looked at afterwards."""
        self.begin()
        self.outlook.note(NOW, NOW)
        self.outlook.claimed(Claimed([], NOW, full=False), 0, NOBODY, 100.0)
        self.assertFalse(self.outlook.more)
        self.outlook.claim_ended(True, NOW)
        self.assertTrue(self.outlook.more)

    def test_more_rows_during_a_claim(self) -> None:
        """P7: a claim that finds fewer rows than it may take says nothing of those found since."""
        self.begin()
        self.scan(-1.0, -1.0)
        self.outlook.claimed(Claimed([], NOW, full=False), 0, NOBODY, 100.0)
        self.outlook.claim_ended(True, NOW)
        self.assertTrue(self.outlook.more)

    def test_after_a_claim(self) -> None:
        """There may be more rows where it was full, or failed; the times up to it are done with."""
        self.outlook.note(NOW + SECOND, NOW)
        self.claim([RUN], full=False, after=1.0)
        self.assertEqual((self.outlook.more, self.outlook.agenda.next()), (False, None))
        self.claim([RUN], full=True)
        self.assertTrue(self.outlook.more)
        self.begin()
        self.assertFalse(self.outlook.more)
        self.outlook.claim_ended(False, NOW)
        self.assertTrue(self.outlook.more)

    def test_ahead(self) -> None:
        """
        As many rows as runs ended during the last claim, and twice as many if none was left then;
        at most two a slot (P10), and none where no row was left.
        """
        for full, ended, left, ahead in (
            (True, 3, 1, 3),
            (True, 3, 0, 6),
            (True, 15, 1, 15),
            (True, 15, 0, 20),
            (True, 21, 1, 20),
            (True, 0, 0, 0),
            (False, 3, 0, 0),
        ):
            self.claim([RUN], full, ended=ended, left=left)
            self.assertEqual(self.outlook.size.ahead, ahead, (full, ended, left))

    def test_ahead_of_payloads(self) -> None:
        """P10: no claim goes ahead while waiting runs hold payloads of 4 MiB or more."""
        self.claim([RUN], True, ended=3, left=1)
        for held, ahead in ((0, 3), (HELD - 1, 3), (HELD, 0), (HELD + 1, 0), (0, 3)):
            self.assertEqual(self.outlook.size.ahead_of(held), ahead, held)


class LeadTests(OutlookTestCase):
    """Which claims tell of others, and which of them wait."""

    def setUp(self) -> None:
        super().setUp()
        self.outlook.lead.others = 1

    def in_vain(self, without: frozenset[str] = NOBODY, due: float = 0.5) -> float:
        """The lead after a claim that finds nothing of what was due; in ms."""
        self.scan(2.0, due)
        self.claim([], full=False, after=0.5, without=without)
        return self.outlook.lead.seconds * 1000

    def test_in_vain(self) -> None:
        """A claim that others were ahead of makes a lead; a row that has waited ends it."""
        self.assertEqual([self.in_vain(), self.in_vain()], [1, 2])
        self.scan(2.0, 0.5)
        self.claim([RUN], full=False, after=0.5)
        self.assertEqual(self.outlook.lead.seconds, 0)

    def test_a_claim_waits(self) -> None:
        """The next claim is later than the due time by the lead."""
        self.assertEqual(self.in_vain(), 1)
        self.scan(2.0, 1.0)
        self.assertEqual(self.outlook.next_claim(), NOW + seconds(1.001))
        self.outlook.lead.others = 0
        self.assertEqual(self.outlook.next_claim(), NOW + seconds(1.0))

    def test_nothing_was_due(self) -> None:
        """P7: a claim tells nothing of others where nothing on the agenda was due."""
        self.assertEqual(self.in_vain(due=0.75), 0)

    def test_a_job_that_is_on_no_agenda(self) -> None:
        """P10: a PUT with immediate at an instance that is never the first makes it no first."""
        self.assertEqual(self.in_vain(), 1)
        self.claim([RUN], full=False, after=0.6)
        self.assertEqual(self.outlook.lead.seconds, 0.001)

    def test_left_out(self) -> None:
        """P7: a claim that leaves a path out tells nothing either: the row may be of that path."""
        self.assertEqual(self.in_vain(without=frozenset({"dead"})), 0)


class BurstTests(OutlookTestCase):
    """More jobs that are due at once than this instance has slots: ten."""

    def rows(self, due: int, others: int = 0, running: int = 0) -> int:
        """How many rows a claim takes where so many jobs are due."""
        self.setUp()
        self.outlook.lead.others = others
        self.scan(2.0, *[1.0] * due)
        self.begin(1.0, running)
        return self.outlook.rows(10 - running + self.outlook.size.ahead)

    def test_rows(self) -> None:
        """P6, P10: all that are due, at most three a slot; a share where others are alive."""
        for due, others, running, rows in (
            (0, 0, 0, 10),
            (10, 0, 0, 10),  # as many as slots: no burst
            (10, 3, 0, 10),
            (11, 0, 0, 21),
            (15, 0, 0, 25),
            (30, 0, 0, 30),
            (300, 0, 0, 30),
            (30, 0, 2, 28),
            (30, 0, 3, 7),  # too many slots are taken to say how soon there are more
            (20, 1, 0, 10),  # there are slots for all, here and at the other instance
            (21, 1, 0, 11),
            (30, 1, 0, 15),
            (30, 2, 0, 10),
            (30, 9, 0, 3),
            (30, 99, 0, 2),
            (300, 9, 0, 30),
        ):
            self.assertEqual(self.rows(due, others, running), rows, (due, others, running))

    def test_shares(self) -> None:
        """P6: an equal part, rounded up, but no less than a quarter of the slots."""
        for due, others, share in ((300, 7, 38), (304, 7, 38), (101, 7, 25), (101, 1, 51)):
            self.assertEqual(share_of(due, 100, others), share, (due, others))

    def test_slots_for_all(self) -> None:
        """P7: nothing is claimed ahead of free slots that other instances have free slots for."""
        for due, others, ahead in ((10, 0, 0), (11, 0, 11), (20, 1, 0), (21, 1, 20)):
            self.rows(due, others)
            self.assertEqual(self.outlook.size.ahead, ahead, (due, others))

    def test_no_lead(self) -> None:
        """P7: a burst is for all instances, so none waits. That counts what is due in the lead."""
        for at, wait in (
            ([1.0] * 10, 0.001),
            ([1.0] * 11, 0.0),
            ([1.0 + n / 10_000 for n in range(11)], 0.0),
            ([1.0 + n / 10_000 for n in range(10)], 0.001),
            ([1.0] * 10 + [1.002], 0.001),
        ):
            self.setUp()
            self.outlook.lead.others = 1
            self.outlook.lead.claimed(0, 0.0)
            self.scan(2.0, *at)
            self.assertEqual(self.outlook.next_claim(), NOW + seconds(1.0 + wait), at)

    def test_a_lead_and_an_empty_agenda(self) -> None:
        """P7: there is nothing to claim for."""
        self.outlook.lead.others = 1
        self.outlook.lead.claimed(0, 0.0)
        self.assertIsNone(self.outlook.next_claim())

    def test_due_one_after_another(self) -> None:
        """P6, P7: jobs that have been due for a while make a burst, too, at many due times."""
        for due, others, rows in ((10, 0, 10), (11, 0, 21), (80, 0, 30), (80, 1, 30), (80, 3, 20)):
            self.setUp()
            self.outlook.lead.others = others
            self.scan(2.0, *[n / 1000 for n in range(due)])
            self.begin(1.0)
            self.assertEqual(self.outlook.rows(10 + self.outlook.size.ahead), rows, (due, others))

    def test_the_first_claim_of_all(self) -> None:
        """P7: what is due at the start is a burst like any other."""
        self.outlook = Outlook(SCAN, slots=10)
        self.scan(2.0, *[0.0] * 12)
        self.begin()
        self.assertEqual(self.outlook.size.ahead, 12)

    def test_the_lead_stays(self) -> None:
        """P10: a claim that did not wait for others tells nothing of them."""
        self.outlook.lead.others = 1
        self.outlook.lead.claimed(0, 0.0)
        for runs in ([], [RUN], [RUN, RUN]):
            self.scan(2.0, *[1.0] * 11)
            self.claim(runs, full=False, after=1.0)
            self.assertEqual(self.outlook.lead.seconds, 0.001)

    def test_the_next_claim(self) -> None:
        """P7: slots become free during the next claim, though none could during the first."""
        for due, ahead in ((31, 1), (35, 5), (300, 10)):
            self.setUp()
            self.scan(2.0, *[1.0] * due)
            self.claim([RUN] * 30, full=True, after=1.0)
            self.assertEqual(self.outlook.size.ahead, ahead, due)
            self.claim([RUN], full=False, after=1.0, running=10)
            self.assertEqual(self.outlook.size.ahead, 0)

    def test_what_was_left(self) -> None:
        """P6: what the first claim of a burst has left counts for the share of the next."""
        self.outlook.lead.others = 1
        self.scan(2.0, *[1.0] * 100)
        self.claim([RUN] * 30, full=True, after=1.0)
        self.begin(1.0, running=10)
        self.assertEqual(self.outlook.rows(100), 35)
        self.outlook.claimed(Claimed([], NOW + SECOND, full=False), 10, NOBODY, 101.0)
        self.begin(1.0, running=10)
        self.assertEqual(self.outlook.rows(100), 100)

    def test_a_backlog(self) -> None:
        """P10: after a full claim it is known how quickly slots become free: nothing more ahead."""
        self.claim([RUN] * 10, full=True)
        self.scan(2.0, *[0.0] * 30)
        self.begin()
        self.assertEqual(self.outlook.size.ahead, 0)

    def test_given_back(self) -> None:
        """P10: slots that come too slowly are not claimed ahead of again, for a minute."""
        for give_back in (self.outlook.size.gave_back, self.outlook.size.claimed_too_many):
            give_back(100.0)
            for after, ahead in ((59.9, 0), (60.0, 20)):
                self.outlook.agenda.fill([NOW + seconds(after)] * 30, NOW + seconds(100))
                self.begin(after)
                self.assertEqual(self.outlook.size.ahead, ahead, after)
                self.outlook.claimed(
                    Claimed([], NOW + seconds(after), full=False), 0, NOBODY, 100.0 + after
                )


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
