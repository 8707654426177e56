"""What a job's requests are made of: the defaults, and a job's own retries."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.delivery import (
    AS_CONFIGURED,
    NO_NOTES,
    PLAIN,
    Delivery,
    Method,
    Notes,
    Payload,
    Retry,
)
from dalga.model.job import Job
from dalga.model.options import Options
from dalga.model.plan import Plan
from dalga.model.retry import RetryPolicy
from dalga.model.schedule import Every
from tests.examples import HOUR, KEY, MINUTE, NOW, RUN, SECOND

#: A configuration that has none of the defaults.
POLICY = RetryPolicy(
    interval=3 * SECOND, multiplier=4, max_interval=HOUR, jitter=0.25, stop_after=9 * HOUR
)


class RetryTests(SynchronousTestCase):
    """A job's own retries over those of the configuration."""

    def test_nothing_chosen(self) -> None:
        self.assertEqual(AS_CONFIGURED.over(POLICY), POLICY)

    def test_each_part(self) -> None:
        """A part that is given replaces the configuration's, also one that is 0."""
        chosen = Retry(SECOND, 1.0, MINUTE, 0.0, MINUTE, 1)
        policy = chosen.over(POLICY)
        self.assertEqual(policy, RetryPolicy(SECOND, 1.0, MINUTE, 0.0, MINUTE, 1))
        for name in Retry._fields:
            alone = AS_CONFIGURED._replace(**{name: getattr(chosen, name)}).over(POLICY)
            for other in fields(RetryPolicy):
                source = policy if other.name == name else POLICY
                self.assertEqual(getattr(alone, other.name), getattr(source, other.name), name)

    def test_never(self) -> None:
        """0 as the configuration's key has it: the job's runs are never given up after a time."""
        self.assertIsNone(Retry(stop_after=timedelta()).over(POLICY).stop_after)

    def test_an_interval_is_what_it_says(self) -> None:
        """The configuration's longest delay does not cut the job's interval short."""
        for chosen, longest in (
            (Retry(interval=2 * HOUR), 2 * HOUR),
            (Retry(interval=MINUTE), HOUR),
            (Retry(interval=2 * HOUR, max_interval=3 * HOUR), 3 * HOUR),
            (Retry(max_interval=MINUTE), MINUTE),
        ):
            self.assertEqual(chosen.over(POLICY).max_interval, longest, chosen)
        first = replace(Retry(interval=2 * HOUR).over(POLICY), jitter=0).delay(1, Random(1))
        self.assertEqual(first, 2 * HOUR)

    def test_each_part_of_the_policy_can_be_chosen(self) -> None:
        self.assertEqual(Retry._fields, tuple(field.name for field in fields(RetryPolicy)))


class DefaultsTests(SynchronousTestCase):
    """A job of which none of this is said."""

    def test_one_value_for_all(self) -> None:
        """So that a plain job is told by `is`, without a comparison."""
        job = Job(KEY, Every(MINUTE), Options(), NOW, NOW, NOW)
        plan = Plan(Every(MINUTE), Options(), NOW, NOW)
        for has in (job, plan, RUN):
            self.assertIs(has.delivery, PLAIN)
        self.assertIs(job.notes, NO_NOTES)
        self.assertIs(plan.notes, NO_NOTES)
        self.assertEqual((Delivery(), Notes()), (PLAIN, NO_NOTES))

    def test_a_plain_job_is_posted(self) -> None:
        self.assertIs(PLAIN.method, Method.POST)

    def test_a_version_is_no_part_of_what_a_job_is(self) -> None:
        one, other = (
            Job(KEY, Every(MINUTE), Options(), NOW, NOW, NOW, version=version) for version in (1, 2)
        )
        self.assertEqual(one, other)
        self.assertNotEqual(one, Job(KEY, Every(MINUTE), Options(), NOW, NOW, NOW, attempts=1))

    def test_in_brief(self) -> None:
        """P10: as large as nothing, and a record learns of it what a record says."""
        large = Payload(bytes(65536))
        for delivery, is_detailed in (
            (PLAIN, False),
            (Delivery(retry=Retry(max_attempts=2)), False),
            (Delivery(redact=("payload",)), False),
            (Delivery(payload=large), True),
            (Delivery(content_type="a/b"), True),
            (Delivery(headers=(("X", "y" * 8000),)), True),
            (Delivery(method=Method.PUT), True),
        ):
            for origin in (None, "0a1b-17"):
                whole = replace(delivery, replay_of=origin)
                brief = whole.in_brief()
                self.assertEqual((brief.is_detailed, brief.replay_of), (is_detailed, origin))
                self.assertEqual(whole.is_detailed, is_detailed)
                self.assertEqual(brief.in_brief(), brief)
                self.assertLess(len(repr(brief)), 300)
