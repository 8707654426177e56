"""When an alert about a job is due."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.alert import Event
from dalga.model.answers import Meaning
from dalga.model.run import Delete, End, Finish, GiveBack, Outcome, Reschedule, Retry, Skip, Stop
from dalga.model.streak import LONGEST, After, Streak, Told, after
from tests.examples import NOW, RUN

OK = Outcome(200, 0.1)
BAD = Outcome(500, 0.1)
NEXT = Reschedule(NOW, NOW)

SUCCEEDED = End(RUN, OK, NEXT, Meaning.SUCCEED)
LAST = End(RUN, OK, Delete(), Meaning.SUCCEED)
REMOVED = End(RUN, Outcome(204, 0.1), Delete(), Meaning.REMOVE)
KEPT = End(RUN, Outcome(204, 0.1), NEXT, Meaning.REMOVE)
DISABLED = End(RUN, OK, NEXT, Meaning.DISABLE)
RETRIED = End(RUN, BAD, Retry(NOW, "500"), Meaning.RETRY)
GIVEN_UP = End(RUN, BAD, Reschedule(NOW, NOW, "500"), Meaning.RETRY)
STOPPED = End(RUN, BAD, Stop("500"), Meaning.FAIL)
SKIPPED = End(RUN, None, Skip(NOW))
ENDED = End(RUN, None, Finish())
GIVEN_BACK = End(RUN, None, GiveBack())

FAILING, UP, SILENT = Told.FAILING, Told.GIVEN_UP, Told.SILENT
BOTH = FAILING | UP


class StreakTests(SynchronousTestCase):
    def test_examples(self) -> None:
        for end, before, failed, told, event in [
            # A success ends the incident, and is told of if that was.
            (SUCCEEDED, Streak(), 0, 0, None),
            (SUCCEEDED, Streak(2), 0, 0, None),
            (SUCCEEDED, Streak(3, FAILING), 0, 0, Event.JOB_RECOVERED),
            (SUCCEEDED, Streak(0, SILENT), 0, 0, Event.JOB_RECOVERED),
            (SUCCEEDED, Streak(0, Told.PROBLEM), 0, 0, Event.JOB_RECOVERED),
            (LAST, Streak(9, BOTH), 0, 0, Event.JOB_RECOVERED),
            # An answer that removes the job; it stays if a user has changed it meanwhile.
            (REMOVED, Streak(), 0, 0, Event.JOB_REMOVED),
            (REMOVED, Streak(3, FAILING), 0, 0, Event.JOB_REMOVED),
            (KEPT, Streak(3, FAILING), 0, 0, Event.JOB_RECOVERED),
            (KEPT, Streak(), 0, 0, None),
            # Attempts that fail.
            (RETRIED, Streak(), 1, 0, None),
            (RETRIED, Streak(1), 2, 0, None),
            (RETRIED, Streak(2), 3, FAILING, Event.JOB_FAILING),
            (RETRIED, Streak(3, FAILING), 4, FAILING, None),
            (RETRIED, Streak(2, SILENT), 3, SILENT | FAILING, Event.JOB_FAILING),
            # The user has made the limit smaller, or the count came before alerts did.
            (RETRIED, Streak(7), 8, FAILING, Event.JOB_FAILING),
            (RETRIED, Streak(LONGEST, FAILING), LONGEST, FAILING, None),
            # Runs that are given up: told once, and not that the job fails besides.
            (GIVEN_UP, Streak(), 1, BOTH, Event.JOB_GIVEN_UP),
            (GIVEN_UP, Streak(2), 3, BOTH, Event.JOB_GIVEN_UP),
            (GIVEN_UP, Streak(3, FAILING), 4, BOTH, Event.JOB_GIVEN_UP),
            (GIVEN_UP, Streak(4, BOTH), 5, BOTH, None),
            (STOPPED, Streak(1), 2, BOTH, Event.JOB_GIVEN_UP),
            (RETRIED, Streak(1, BOTH), 2, BOTH, None),
            # What is neither.
            (DISABLED, Streak(2, FAILING), 2, FAILING, None),
            (SKIPPED, Streak(2, FAILING), 2, FAILING, None),
            (ENDED, Streak(2, FAILING), 2, FAILING, None),
            (GIVEN_BACK, Streak(2), 2, 0, None),
        ]:
            expected = After(Streak(failed, Told(told)), event)
            self.assertEqual(after(end, before, 3), expected, (end.verdict, before))

    def test_a_run_during_which_the_user_scheduled_the_job(self) -> None:
        """It fails, but nobody gives it up; and the job is there."""
        for end, before, failed, told, event in [
            (GIVEN_UP, Streak(), 1, 0, None),
            (GIVEN_UP, Streak(2), 3, FAILING, Event.JOB_FAILING),
            (SUCCEEDED, Streak(3, FAILING), 0, 0, Event.JOB_RECOVERED),
            (REMOVED, Streak(3, FAILING), 0, 0, Event.JOB_RECOVERED),
        ]:
            expected = After(Streak(failed, Told(told)), event)
            self.assertEqual(after(end, before, 3, overridden=True), expected)

    def test_at_once(self) -> None:
        self.assertEqual(after(RETRIED, Streak(), 1).event, Event.JOB_FAILING)
