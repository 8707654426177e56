"""The state of a job, by example; `tests.test_store_lists` holds the SQL of the same to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.job import Job, Standing, UnreadableJob
from dalga.model.key import JobKey
from dalga.model.options import Options
from dalga.model.schedule import Every
from dalga.model.state import State, state_of

NOW = datetime(2030, 1, 31, 9, tzinfo=UTC)
LATER, EARLIER = NOW + timedelta(minutes=3), NOW - timedelta(minutes=3)
KEY = JobKey("check_feed", "1234")

#: What a job has, and the state that it is in.
EXAMPLES: list[tuple[dict[str, Any], State]] = [
    ({"due": LATER}, State.SCHEDULED),
    ({"due": LATER, "attempts": 2, "error": "503"}, State.RETRYING),
    ({"due": LATER, "attempts": 2, "error": "503", "standing": Standing.FAILED}, State.RETRYING),
    ({"due": NOW}, State.WAITING),
    ({"due": EARLIER, "attempts": 2, "error": "503"}, State.WAITING),
    ({"due": EARLIER, "standing": Standing.FAILED}, State.WAITING),
    ({"due": LATER, "running": True, "attempts": 1}, State.RUNNING),
    ({"due": LATER, "running": True, "attempts": 3, "standing": Standing.FAILED}, State.RUNNING),
    ({"due": LATER, "standing": Standing.FAILED, "error": "503"}, State.FAILED),
    ({"due": None, "standing": Standing.STOPPED, "attempts": 7, "error": "503"}, State.FAILED),
    ({"due": None, "standing": Standing.DONE}, State.DONE),
    ({"due": None, "disabled": True}, State.DISABLED),
    ({"due": LATER, "disabled": True, "running": True, "attempts": 1}, State.DISABLED),
    ({"due": None, "disabled": True, "standing": Standing.STOPPED}, State.DISABLED),
    ({"due": None, "disabled": True, "standing": Standing.DONE}, State.DISABLED),
]


def job(due: datetime | None, **columns: Any) -> Job:
    """A job that runs each minute."""
    return Job(KEY, Every(timedelta(minutes=1)), Options(), NOW, LATER, due, **columns)


class StateTests(SynchronousTestCase):
    def test_examples(self) -> None:
        for columns, state in EXAMPLES:
            self.assertIs(state_of(job(**columns), NOW), state, columns)
        self.assertEqual({state for _, state in EXAMPLES}, {*State} - {State.PROBLEM})

    def test_a_row_that_cannot_be_understood(self) -> None:
        self.assertIs(state_of(UnreadableJob(KEY, "schedule is 'often'"), NOW), State.PROBLEM)
