"""Why a job is not running now: each code by example, with its sentence."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.delivery import Disabling, Notes
from dalga.model.job import Standing, UnreadableJob
from dalga.model.why import Code, Held, Here, Lag, spoken, why
from tests.test_state import EARLIER, KEY, LATER, NOW, job

FREE = Here(slots=100, slots_free=40)
SINCE = NOW - timedelta(days=2)
FAILED = {"error": "503 Service Unavailable"}

#: What a job has, what this instance knows, how far all are behind; the code and the sentence.
EXAMPLES: list[tuple[dict[str, Any], Here, Lag, Code, str]] = [
    ({"due": LATER}, FREE, Lag(), Code.DUE, "due in 3 min, at 2030-01-31T09:03:00Z"),
    (
        {"due": LATER, "standing": Standing.FAILED, **FAILED},
        FREE,
        Lag(),
        Code.DUE,
        "due in 3 min, at 2030-01-31T09:03:00Z; its last run was given up: 503 Service Unavailable",
    ),
    (
        {"due": LATER, "attempts": 3, **FAILED},
        FREE,
        Lag(),
        Code.RETRYING,
        "retrying: attempt 4 at 2030-01-31T09:03:00Z, in 3 min; the last one failed: "
        "503 Service Unavailable",
    ),
    ({"due": None, "disabled": True}, FREE, Lag(), Code.DISABLED, "disabled"),
    (
        {"due": None, "disabled": True, "error": "200 OK, with Dalga-Verdict: disable"},
        FREE,
        Lag(),
        Code.DISABLED,
        "disabled by its endpoint: 200 OK, with Dalga-Verdict: disable",
    ),
    (
        {"due": None, "disabled": True, "attempts": 1, "error": "503"},
        FREE,
        Lag(),
        Code.DISABLED,
        "disabled",
    ),
    (
        {"due": None, "disabled": True, "notes": Notes(disabled=Disabling(SINCE))},
        FREE,
        Lag(),
        Code.DISABLED,
        "disabled since 2030-01-29T09:00:00Z",
    ),
    (
        {"due": None, "disabled": True, "notes": Notes(disabled=Disabling(SINCE, "too loud"))},
        FREE,
        Lag(),
        Code.DISABLED,
        "disabled since 2030-01-29T09:00:00Z: too loud",
    ),
    (
        {"due": LATER, "disabled": True, "running": True, "attempts": 1},
        FREE,
        Lag(),
        Code.DISABLED,
        "disabled; a run that began before is still under way",
    ),
    (
        {"due": LATER, "running": True, "attempts": 2},
        Here(Held.RUNNING, 1, False, 100, 99),
        Lag(),
        Code.RUNNING,
        "running: attempt 2 is under way on this instance",
    ),
    (
        {"due": LATER, "running": True, "attempts": 1},
        FREE,
        Lag(),
        Code.RUNNING,
        "running: another instance has claimed attempt 1, with a lease that ends at "
        "2030-01-31T09:03:00Z, in 3 min",
    ),
    (
        {"due": LATER, "running": True, "attempts": 1},
        Here(Held.FOR_SLOT, 3, False, 100, 0),
        Lag(),
        Code.WAITING_FOR_SLOT,
        "waiting for a slot: 100 of this instance's 100 are in use",
    ),
    (
        {"due": LATER, "running": True, "attempts": 1},
        Here(Held.FOR_SHARE, 80, True, 100, 20),
        Lag(),
        Code.WAITING_FOR_SLOT,
        "waiting for a slot of its path: its path has its share of this instance's 100 slots, with "
        "80 running",
    ),
    (
        {"due": EARLIER},
        Here(None, 80, True, 100, 20),
        Lag(timedelta(minutes=3), 1),
        Code.WAITING_FOR_SLOT,
        "due for 3 min, since 2030-01-31T08:57:00Z, and waiting for a slot of its path: its path "
        "has its share of this instance's 100 slots, with 80 running",
    ),
    (
        {"due": EARLIER},
        Here(None, 1, False, 100, 0),
        Lag(timedelta(minutes=3), 1),
        Code.WAITING_FOR_SLOT,
        "due for 3 min, since 2030-01-31T08:57:00Z, and waiting for a slot: all 100 of this "
        "instance are in use",
    ),
    (
        {"due": EARLIER},
        FREE,
        Lag(timedelta(minutes=3), 2),
        Code.WAITING_FOR_INSTANCE,
        "due for 3 min, since 2030-01-31T08:57:00Z, and no instance has claimed it yet",
    ),
    (
        {"due": EARLIER},
        FREE,
        Lag(timedelta(minutes=3, seconds=1), 2),
        Code.WAITING_FOR_INSTANCE,
        "due for 3 min, since 2030-01-31T08:57:00Z, and no instance has claimed it yet",
    ),
    (
        {"due": EARLIER},
        FREE,
        Lag(timedelta(minutes=40), 2),
        Code.WAITING_FOR_INSTANCE,
        "due for 3 min, since 2030-01-31T08:57:00Z, and no instance has claimed it yet: the 2 "
        "instances are behind, and take first what has been due for longer, for up to 40 min",
    ),
    (
        {"due": None, "standing": Standing.STOPPED, "attempts": 7, **FAILED},
        FREE,
        Lag(),
        Code.STOPPED,
        "stopped after 7 attempts; the last one failed: 503 Service Unavailable; POST to the job "
        "to try that run again, or PUT the job anew",
    ),
    (
        {"due": None, "standing": Standing.DONE},
        FREE,
        Lag(),
        Code.DONE,
        "done: it has no more runs, and is kept (on-end=keep); PUT the job anew to have it run "
        "again",
    ),
]


class WhyTests(SynchronousTestCase):
    def test_examples(self) -> None:
        for columns, here, lag, code, sentence in EXAMPLES:
            found = why(job(**columns), NOW, here, lag, None)
            self.assertEqual((found.code, found.sentence), (code, sentence), columns)

    def test_an_endpoint_that_is_not_configured(self) -> None:
        """Whenever the job is due: no POST of this instance would be made."""
        words = "its endpoint 'billing' is not in the configuration of this instance"
        act = "give this instance that endpoint, or PATCH the job's endpoint"
        for due, sentence in (
            (LATER, "due in 3 min, at 2030-01-31T09:03:00Z"),
            (EARLIER, "due for 3 min, since 2030-01-31T08:57:00Z"),
        ):
            found = why(job(due), NOW, FREE, Lag(), words)
            self.assertIs(found.code, Code.ENDPOINT_NOT_CONFIGURED)
            self.assertEqual(found.sentence, f"{words}; the job is {sentence}; {act}")
        for other in (job(None, disabled=True), job(LATER, running=True)):
            found = why(other, NOW, FREE, Lag(), words)
            self.assertIsNot(found.code, Code.ENDPOINT_NOT_CONFIGURED)

    def test_a_row_that_cannot_be_understood(self) -> None:
        found = why(UnreadableJob(KEY, "schedule is 'often'"), NOW, FREE, Lag(), None)
        self.assertIs(found.code, Code.PROBLEM)
        self.assertEqual(
            found.sentence,
            "problem: its row can't be understood (schedule is 'often'): PUT the job anew, or "
            "delete it",
        )

    def test_each_code_has_an_example(self) -> None:
        others = {Code.PROBLEM, Code.ENDPOINT_NOT_CONFIGURED}
        self.assertEqual({code for _, _, _, code, _ in EXAMPLES} | others, set(Code))

    def test_times_in_words(self) -> None:
        for time, words in (
            (timedelta(0), "0 ms"),
            (timedelta(milliseconds=20), "20 ms"),
            (timedelta(seconds=-1), "0 ms"),
            (timedelta(seconds=1.9), "1 s"),
            (timedelta(seconds=59), "59 s"),
            (timedelta(minutes=3), "3 min"),
            (timedelta(minutes=3, seconds=12), "3 min 12 s"),
            (timedelta(hours=2, seconds=5), "2 h"),
            (timedelta(hours=2, minutes=5, seconds=5), "2 h 5 min"),
            (timedelta(days=12, minutes=5), "12 d"),
            (timedelta(days=400, hours=1), "400 d 1 h"),
        ):
            self.assertEqual(spoken(time), words)
