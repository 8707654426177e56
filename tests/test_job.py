"""A job as it stands."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.job import Job, Standing
from dalga.model.options import Options
from dalga.model.schedule import Every
from tests.examples import MINUTE, NOW, RUN


class JobTests(SynchronousTestCase):
    """A job as it stands in the table."""

    def test_next_run(self) -> None:
        """While a run is under way the next run is that one's time, not the end of its lease."""
        job = Job(
            RUN.key, Every(MINUTE), Options(), NOW, scheduled=NOW, due=NOW + MINUTE, running=True
        )
        for state, expected in (
            (job, NOW),
            (replace(job, running=False), NOW + MINUTE),
            (replace(job, disabled=True), None),
            (replace(job, disabled=True, running=False, due=None), None),
            (replace(job, running=False, due=None, standing=Standing.STOPPED), None),
        ):
            self.assertEqual(state.next_run, expected)
