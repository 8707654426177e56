"""Replays: what a run of a job is made of once more; and the ids of runs."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta

from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import ReplayImpossible
from dalga.model.answers import Statuses
from dalga.model.delivery import (
    NO_NOTES,
    Delivery,
    Disabling,
    Method,
    Notes,
    Payload,
    PayloadKind,
    Retry,
)
from dalga.model.fields import kept_details, load_details, shown_parameters
from dalga.model.job import Job
from dalga.model.options import CatchUp, OnEnd, OnFailure, Options
from dalga.model.patch import patched, replanned
from dalga.model.plan import ScheduleRequest
from dalga.model.record import Record, Result
from dalga.model.replay import _KEPT, replay_of
from dalga.model.run import Cause
from dalga.model.runid import RunId, run_id_from_text
from dalga.model.schedule import Every, Once
from tests.examples import HOUR, KEY, MINUTE, NOW

ID = "0123456789abcdef0123456789abcdef-17"
OTHER = "00000000000000000000000000000000-1"
ENDPOINTS = ("default", "billing")

RECORD = Record(
    run_id=ID,
    path=KEY.path,
    body=KEY.body,
    endpoint="billing",
    trigger=Cause.SCHEDULE,
    scheduled=NOW - HOUR,
    claimed=NOW - HOUR,
    started=NOW - HOUR,
    ended=NOW - HOUR,
    lateness_ms=4,
    instance="a",
    result=Result.GIVEN_UP,
)
#: A job that has all that a replay leaves out, and all that it keeps.
JOB = Job(
    KEY,
    Every(MINUTE),
    Options(
        until=NOW + HOUR,
        count=3,
        catch_up=CatchUp.SKIP,
        max_lateness=MINUTE,
        on_failure=OnFailure.STOP,
        first_run=NOW,
        jitter=MINUTE,
        success=Statuses(((200, 299),)),
        endpoint="billing",
        timeout=MINUTE,
        on_end=OnEnd.KEEP,
        save_response=True,
        alert_after=5,
        expect_within=HOUR,
        alert_url="ops",
    ),
    NOW,
    NOW,
    NOW,
    disabled=True,
    delivery=Delivery(headers=(("X-A", "1"),), retry=Retry(max_attempts=2), redact=("x-a",)),
    notes=Notes(("a",), "why", Disabling(NOW, "sale")),
)


def as_text(octets: bytes) -> Payload:
    return Payload(octets, PayloadKind.TEXT)


class ReplayTests(SynchronousTestCase):
    def test_of_a_job(self) -> None:
        """What the job sends now, once, under another name. When the job runs is left out."""
        planned = replay_of(RECORD, JOB, NOW, ENDPOINTS)
        self.assertIsInstance(planned.schedule, Once)
        self.assertEqual((planned.first, planned.anchor), (RECORD.scheduled, NOW))
        success = Statuses(((200, 299),))
        options = Options(
            success=success,
            endpoint="billing",
            timeout=MINUTE,
            save_response=True,
            alert_after=5,
            alert_url="ops",
        )
        self.assertEqual(planned.options, options)
        delivery = replace(JOB.delivery, payload=as_text(b"1234"), replay_of=ID)
        self.assertEqual(planned.delivery, delivery)
        self.assertEqual(planned.notes, Notes(("a",), "why"))

    def test_each_option_is_kept_or_left_out(self) -> None:
        """An option that is new is one or the other."""
        left = {"until", "count", "catch_up", "max_lateness", "on_failure", "first_run", "jitter"}
        left |= {"on_end", "expect_within", "delay"}
        self.assertEqual({field.name for field in fields(Options)}, left | {*_KEPT})

    def test_what_is_sent(self) -> None:
        """The job's payload, or its body where that is sent."""
        json = Payload(b"{}", PayloadKind.JSON)
        for delivery, payload in [
            (Delivery(), as_text(b"1234")),
            (Delivery(json), json),
            (Delivery(method=Method.PUT), as_text(b"1234")),
            (Delivery(method=Method.GET), None),
            (Delivery(method=Method.HEAD), None),
            (Delivery(method=Method.DELETE), None),
            (Delivery(json, method=Method.DELETE), json),
        ]:
            planned = replay_of(RECORD, replace(JOB, delivery=delivery), NOW, ENDPOINTS)
            expected = replace(delivery, payload=payload, replay_of=ID)
            self.assertEqual(planned.delivery, expected)

    def test_of_a_job_that_is_gone(self) -> None:
        planned = replay_of(RECORD, None, NOW, ENDPOINTS)
        self.assertEqual(planned.options, Options(endpoint="billing"))
        self.assertEqual(planned.delivery, Delivery(as_text(b"1234"), replay_of=ID))
        self.assertIs(planned.notes, NO_NOTES)

    def test_impossible(self) -> None:
        """The sentence says why, and what would do."""
        detailed = replace(RECORD, detailed=True)
        for record, job, words in [
            (detailed, None, "such as a payload; PUT the job, and replay the run then"),
            (replace(detailed, replay_of=OTHER), None, f"replay the run {OTHER}"),
            (replace(RECORD, endpoint="x"), None, "its endpoint 'x' is not in the configuration"),
            (RECORD, replace(JOB, options=Options(endpoint="x")), "its endpoint 'x' is not"),
        ]:
            error = self.assertRaises(ReplayImpossible, replay_of, record, job, NOW, ENDPOINTS)
            self.assertIn(words, str(error))
            self.assertIn(ID, str(error))
        self.assertEqual(replay_of(detailed, JOB, NOW, ENDPOINTS).delivery.replay_of, ID)
        # The job's endpoint of now counts, not that of the record.
        moved = replay_of(replace(RECORD, endpoint="x"), JOB, NOW, ENDPOINTS)
        self.assertEqual(moved.options.endpoint, "billing")

    def test_a_time_that_is_to_come(self) -> None:
        """Where the clock was set back, too, a replay runs now."""
        ahead = replace(RECORD, scheduled=NOW + HOUR)
        self.assertEqual(replay_of(ahead, None, NOW, ENDPOINTS).first, NOW)

    def test_it_is_shown_and_kept(self) -> None:
        planned = replay_of(RECORD, None, NOW, ENDPOINTS)
        shown = dict(shown_parameters(planned))
        expected = {"endpoint": "billing", "payload": "1234", "replay_of": ID}
        self.assertEqual({name: shown[name] for name in expected}, expected)
        kept = kept_details(planned)
        self.assertEqual(load_details(kept, b"1234"), (planned.delivery, NO_NOTES))
        for other in (1, "", "x", f"{ID}\r\nX: y", ID.upper(), "0" * 32 + "-0"):
            self.assertRaises(ValueError, load_details, {**kept, "replay-of": other}, b"1234")

    def test_a_patch_of_it(self) -> None:
        """It stays a replay, and due."""
        planned = replay_of(RECORD, None, NOW, ENDPOINTS)
        job = Job(
            KEY,
            planned.schedule,
            planned.options,
            planned.anchor,
            planned.first,
            NOW,
            delivery=planned.delivery,
        )
        request = ScheduleRequest.of(patched(job, {"timeout": timedelta(seconds=3)}))
        changed = replanned(job, request, NOW + MINUTE)
        self.assertEqual(changed.delivery, planned.delivery)
        self.assertEqual((changed.first, changed.anchor), (planned.first, planned.anchor))
        self.assertEqual(changed.options.timeout, timedelta(seconds=3))


class RunIdTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        for text in (ID, OTHER, "f" * 32 + f"-{(1 << 63) - 1}"):
            found = run_id_from_text(text)
            assert found is not None
            self.assertEqual(str(found), text)
        self.assertEqual(run_id_from_text(ID), RunId(bytes.fromhex(ID[:32]), 17))

    def test_no_ids(self) -> None:
        for text in (
            *(
                "",
                "x",
                ID[1:],
                ID.upper(),
                ID.replace("-", ""),
                f"{ID} ",
                f"{ID}\n",
                "0" * 32 + "-",
            ),
            *("0" * 32 + f"-{number}" for number in ("0", "017", "-1", "x", 1 << 63, 10**20)),
        ):
            self.assertIsNone(run_id_from_text(text), text)
