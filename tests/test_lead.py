"""The lead: how long after the due time an instance claims, so that others go first."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.lead import LONGEST, Lead, seconds_of, step_after


class LeadTests(SynchronousTestCase):
    """What each claim makes of the lead."""

    def test_leads(self) -> None:
        """P7: twice as long from step to step, and 32 ms at most."""
        leads = [seconds_of(step) * 1000 for step in range(LONGEST + 1)]
        self.assertEqual(leads, [0, 1, 2, 4, 8, 16, 32])

    def test_steps(self) -> None:
        """The step before, the rows found, how long the first had waited; and the step after."""
        for step, found, waited, after in (
            (0, 0, 0.0, 1),  # an empty claim: longer
            (1, 0, 0.0, 2),
            (5, 0, 0.0, 6),
            (6, 0, 0.0, 6),
            (0, 1, 0.0, 0),  # the first of all: none
            (1, 1, 0.0004, 1),  # luck
            (6, 1, 0.015, 6),
            (1, 1, 0.0005, 0),  # it has waited for half the lead: nobody is ahead
            (6, 1, 0.016, 0),
            (6, 9, 0.016, 0),
            (6, 1, 60.0, 0),
            (6, 2, 0.015, 5),  # several: there is work for more
            (1, 2, 0.0001, 0),
            (0, 2, 0.0, 0),
        ):
            self.assertEqual(step_after(step, found, waited), after, (step, found, waited))

    def test_alone(self) -> None:
        """P7: an instance that is alone leaves nobody a lead: its claims miss deleted jobs only."""
        lead = Lead()
        lead.claimed(0, 0.0)
        self.assertEqual(lead.seconds, 0)
        lead.others = 1
        self.assertEqual(lead.seconds, 0.001)
        lead.claimed(0, 0.0)
        self.assertEqual(lead.seconds, 0.002)
        lead.others = 0
        self.assertEqual(lead.seconds, 0)
