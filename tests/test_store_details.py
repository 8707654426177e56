"""
The store's contract for what a job says: details and tags, versions, preconditions, patches, the
reason for which a job is disabled, and jobs that are done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from dalga.errors import (
    InvalidRequest,
    JobDisabled,
    JobNotFound,
    JobOver,
    JobSetAside,
    PreconditionFailed,
)
from dalga.model.answers import Meaning
from dalga.model.delivery import (
    MOST_PAYLOAD,
    NO_NOTES,
    PLAIN,
    Disabling,
    Method,
    Payload,
    PayloadKind,
    Retry,
)
from dalga.model.duration import seconds
from dalga.model.idempotency import Idempotency
from dalga.model.job import Job, Standing, UnreadableJob
from dalga.model.key import JobKey, RawKey
from dalga.model.options import IfExists, OnEnd
from dalga.model.plan import ScheduleRequest
from dalga.model.precondition import Precondition
from dalga.model.run import (
    Delete,
    End,
    Finish,
    GiveBack,
    Outcome,
    Reschedule,
    Run,
    lease_of,
)
from dalga.store import Change
from dalga.store import jobs as jobs_room
from dalga.store import listing as listing_room
from dalga.store import puts as puts_room
from dalga.store import runs as store_runs
from dalga.store.details import DetailRows
from dalga.store.extras import (
    BESIDE,
    DELIVERY,
    NOTES,
    TAGGED,
    DetailsRow,
    details_text,
    extras_of,
    fitting,
    has_details,
    kinds_of,
    read_details,
    weight_of,
)
from dalga.store.rows import Override, version_at
from dalga.store.table import JobsTable
from tests.examples import ended
from tests.fakes import FakeStore, noting
from tests.lists import by_key
from tests.stores import LONG, NOW, OVER, EngineTestCase, each_engine
from tests.test_store_faults import before

KEY, OTHER = JobKey("check_feed", "1234"), JobKey("check_feed", "é' \\ ☺")
UPDATE, KEEP = IfExists.UPDATE, IfExists.KEEP
BASE64 = PayloadKind.BASE64
HOUR = ScheduleRequest(interval=seconds(3600), immediate=True)

SENT = Payload("é' \\ \n\x00 ☺".encode())
OCTETS = Payload(bytes(range(256)), PayloadKind.BASE64)
RETRY = Retry(interval=timedelta(seconds=2), jitter=0.5, max_attempts=3)
HEADERS = (("X-A", "b'\\"), ("X-C", "d e"))

#: What jobs say, beside when they run.
SAID: dict[str, dict[str, Any]] = {
    "nothing": {},
    "all": {
        "payload": SENT,
        "content_type": "text/csv",
        "headers": HEADERS,
        "method": Method.PUT,
        "retry": RETRY,
        "tags": ("a", "é☺"),
        "description": "What it does: '\\",
        "redact": ("payload", "x-a"),
    },
    "octets": {"payload_base64": OCTETS},
    "an empty payload": {"payload": Payload(b"")},
    "json": {"payload": Payload(b'{"a":[1,null]}', PayloadKind.JSON)},
    "a method": {"method": Method.GET},
    "tags": {"tags": ("b", "a", "c")},
    "a description": {"description": "x" * 1000},
}


def said(name: str, like: ScheduleRequest = HOUR) -> ScheduleRequest:
    return replace(like, **SAID[name])


class ExtrasTests(SynchronousTestCase):
    """The column, and texts."""

    def test_bits_and_weight(self) -> None:
        for name, bits, weight in (
            ("nothing", 0, 0),
            ("all", DELIVERY | NOTES | TAGGED, 1024),
            ("octets", DELIVERY, 1024),
            ("a method", DELIVERY, 1024),
            ("tags", NOTES | TAGGED, 1024),
            ("a description", NOTES, 1024),
        ):
            job = _planned(name)
            extras = extras_of(job, details_text(job))
            self.assertEqual((extras & 255, weight_of(extras)), (bits, weight), name)
            self.assertEqual(has_details(job), bool(bits), name)
        self.assertEqual(weight_of(b"many"), 0)
        self.assertEqual(kinds_of(b"many"), BESIDE)
        self.assertEqual(kinds_of(5 << 8 | NOTES), NOTES)
        self.assertEqual(weight_of(5 << 8 | NOTES, DELIVERY), 0)

    def test_fitting(self) -> None:
        for weights, so_far, expected in (
            ([], 0, 0),
            ([0, 0, 0], 0, 3),
            ([9], 0, 1),
            ([9, 0, 1], 0, 2),
            ([0, 9], 0, 1),
            ([2, 2, 2], 0, 2),
            ([2, 2], 3, 1),
            ([0, 0], 9, 2),
            ([1], 9, 0),
        ):
            self.assertEqual(fitting(weights, 5, so_far), expected, weights)

    def test_there_and_back(self) -> None:
        for name in SAID:
            job = _planned(name)
            text = details_text(job)
            if text is None:
                self.assertEqual((job.delivery, job.notes), (PLAIN, NO_NOTES))
                continue
            for members in (text.members, text.members.encode()):
                row = DetailsRow(1, 1, 1, 1, members, text.payload)
                self.assertEqual(read_details(row), (job.delivery, job.notes))

    def test_rubbish(self) -> None:
        """Whatever somebody has written, the sentence says what is wrong."""
        for members, payload in (
            (None, None),
            ("", None),
            ("{", None),
            ("[]", None),
            ("{}", b"payload"),
            ("[" * 100_000, None),
            (b"\xff", None),
            (7, None),
            ('{"method":"EAT"}', None),
            ('{"method":{}}', None),
            ('{"payload":"text"}', None),
            ('{"payload":"text"}', b"\xff"),
            ('{"payload":"text"}', "text"),
            ('{"payload-base64":"base64"}', "text"),
            ('{"payload":["text"]}', b""),
            ('{"payload-base64":"text"}', b""),
            ('{"headers":{"a":"b"}}', None),
            ('{"headers":[["Host","b"]]}', None),
            ('{"headers":[["a","b\\r\\nc"]]}', None),
            ('{"headers":7}', None),
            ('{"headers":[["a"]]}', None),
            ('{"retry":{"interval":"soon"}}', None),
            ('{"retry":[]}', None),
            ('{"retry":{"max_attempts":0}}', None),
            ('{"tags":"a"}', None),
            ('{"tags":[7]}', None),
            ('{"description":7}', None),
            ('{"redact":null}', None),
            ('{"disabled":7}', None),
            ('{"disabled":{"since":"never"}}', None),
            ('{"disabled":{"since":7}}', None),
            ('{"colour":"red"}', None),
        ):
            row = DetailsRow(1, 1, 1, 1, members, payload)
            problem = str(self.assertRaises(ValueError, read_details, row))
            self.assertIn("details", problem)
            problem.encode()  # it is to be written beside the row
        missing = DetailsRow(1, 1, 1, None, None, None)
        self.assertIn("missing", str(self.assertRaises(ValueError, read_details, missing)))


def _planned(name: str) -> Any:
    from dalga.model.plan import plan
    from tests.examples import NOW as NOON

    return plan(said(name), NOON)


class Contract(TestCase):
    """What holds for each store, and for the fake one."""

    store: Any

    def tick(self) -> None:
        """Let a microsecond go by, where time does not go by itself."""

    def left_over(self) -> None:
        """Fail if there are rows in other tables that belong to no job."""

    async def found(self, key: RawKey = KEY) -> Job:
        job = await self.store.get(key)
        assert isinstance(job, Job), job
        return job

    async def claim(self, *keys: JobKey, timeout: float = LONG) -> list[Run]:
        """The runs that a claim takes, which are of these jobs."""
        claimed = await self.store.claim(9, timeout)
        self.assertEqual([run.key for run in claimed.runs], list(keys))
        return list(claimed.runs)

    async def refused(self, deferred: Any, kind: type[Exception]) -> str:
        error = await self.assertFailure(deferred, kind)
        return str(error)

    def check(self, job: Job, name: str) -> None:
        """Whether a job says so."""
        planned = _planned(name)
        self.assertEqual((job.delivery, job.notes), (planned.delivery, planned.notes), name)

    async def contract_there_and_back(self) -> None:
        """A PUT's answer, GET and the list say what was said; a claim sends it."""
        for name in SAID:
            put = await self.store.put(KEY, said(name))
            self.check(put, name)
            got = await self.found()
            self.assertEqual((got, got.version), (put, put.version))
            page = await self.store.page(by_key(None, None, 9))
            self.assertEqual(page.jobs, [put])
            self.assertGreater(put.version, 1e15)
            (run,) = await self.claim(KEY)
            self.assertEqual(run.delivery, put.delivery)
            if put.delivery == PLAIN:
                self.assertIs(run.delivery, PLAIN)
            payload = put.delivery.payload
            self.assertEqual(run.payload, payload.octets if payload else b"1234")
            await self.store.record([ended(run, Delete())])
            self.tick()
            await self.refused(self.store.get(KEY), JobNotFound)
            self.left_over()

    async def contract_over_each_other(self) -> None:
        """Whatever a job said before, it says what it was told last, and nothing else."""
        names = list(SAID)
        for shift, (number, old) in product(range(len(names)), enumerate(names)):
            new, if_exists = names[number - shift], (None, UPDATE)[(number + shift) // 2 % 2]
            first = await self.store.put(KEY, said(old))
            self.tick()
            second = await self.store.put(KEY, replace(said(new), if_exists=if_exists))
            self.check(second, new)
            self.check(await self.found(), new)
            if if_exists is None or old != new:
                self.assertGreater(second.version, first.version)
            else:
                self.assertEqual(second.version, first.version)
            if number == shift:
                kept = await self.store.put(KEY, replace(said(old), if_exists=KEEP))
                self.check(kept, new)
                self.assertEqual(kept.version, second.version)
            self.left_over()
        await self.store.delete(KEY)
        self.left_over()

    async def contract_many_at_once(self) -> None:
        """New jobs and jobs that are there, in one transaction."""
        keys = [JobKey("many", str(number)) for number in range(24)]
        names = [*SAID, *reversed(SAID)] * 2
        for turn in range(3):
            jobs = await gatherResults(
                [
                    self.store.put(key, said(names[(number + turn) % len(names)]))
                    for number, key in enumerate(keys[: 12 + 6 * turn])
                ]
            )
            for number, job in enumerate(jobs):
                self.check(job, names[(number + turn) % len(names)])
            got = await gatherResults([self.store.get(job.key) for job in jobs])
            self.assertEqual(got, jobs)
            self.assertEqual([job.version for job in got], [job.version for job in jobs])
            self.tick()
        await gatherResults([self.store.delete(key) for key in keys])
        self.left_over()

    async def contract_made_once(self) -> None:
        """A job under a generated name has what was said, as each other job."""
        for number, (name, idempotency) in enumerate(
            product(SAID, (None, Idempotency.of("a key", b"request")))
        ):
            key = JobKey("once", str(number))
            made = await self.store.once(key, said(name, NOW), idempotency)
            self.check(made.job, name)
            self.assertTrue(made.is_new)
            got = await self.found(key)
            self.assertEqual((got, got.version), (made.job, made.job.version))
            if idempotency is not None:
                await self.again(key, name, made.job)
            self.tick()
            (run,) = await self.claim(key)
            await self.store.record([ended(run, Delete())])
            self.left_over()

    async def again(self, key: JobKey, name: str, job: Job) -> None:
        """Ask for the same once more; then forget the key."""

    async def contract_versions(self) -> None:
        """Runs and what is done to a job don't change its version; what it is does."""
        first = await self.store.put(KEY, said("all"))
        self.tick()
        (run,) = await self.claim(KEY)
        await self.store.record([ended(run, Reschedule(run.claimed, run.anchor))])
        await self.store.trigger(KEY)
        await self.store.disable(KEY)
        await self.store.enable(KEY)
        self.assertEqual((await self.found()).version, first.version)
        again = await self.store.put(KEY, replace(said("all"), if_exists=UPDATE))
        self.assertEqual(again.version, first.version)
        again = await self.store.put(KEY, replace(said("all"), if_exists=UPDATE, count=9))
        self.assertGreater(again.version, first.version)
        self.tick()
        await self.store.delete(KEY)
        self.tick()
        anew = await self.store.put(KEY, said("all"))
        self.assertGreater(anew.version, again.version)

    async def contract_put_during_a_run(self) -> None:
        """P4: the end of the run changes nothing of what was said, and the next run sends it."""
        for if_exists in (None, UPDATE):
            await self.store.put(KEY, said("all"))
            self.tick()
            (run,) = await self.claim(KEY)
            request = replace(said("octets"), if_exists=if_exists)
            put = await self.store.put(KEY, request)
            recorded = await self.store.record([ended(run, Reschedule(run.claimed, run.anchor))])
            ends = recorded.written if if_exists else recorded.overridden
            self.assertEqual(len(ends), 1)
            job = await self.found()
            self.check(job, "octets")
            self.assertEqual((job.version, job.running), (put.version, False))
            self.tick()
            (run,) = await self.claim(KEY)
            self.assertEqual((run.payload, run.delivery), (OCTETS.octets, job.delivery))
            # And the end of this run takes the job's rows with it.
            await self.store.record([ended(run, Delete())])
            self.left_over()

    async def contract_deleted_during_a_run(self) -> None:
        """In each way in which the row goes, its rows in other tables go, too."""
        for name, end in product(("all", "tags", "octets"), ("record", "put", "lease")):
            await self.store.put(KEY, said(name))
            self.tick()
            timeout = OVER if end == "lease" else LONG
            (run,) = await self.claim(KEY, timeout=LONG)
            await self.store.delete(KEY)
            await self.refused(self.store.get(KEY), JobNotFound)
            if end == "put":
                await self.store.put(KEY, said("a method"))
                self.check(await self.found(), "a method")
                await self.store.record([ended(run, Delete())])
                self.check(await self.found(), "a method")
                await self.store.delete(KEY)
            elif end == "record":
                await self.store.record([ended(run, Reschedule(run.claimed, run.anchor))])
            else:
                self.end_lease(run)
                await self.claim()
            self.tick()
            self.assertEqual((await self.store.counts()).total, 0, (name, end, timeout))
            self.left_over()

    def end_lease(self, run: Run) -> None:
        """As if the time had gone by."""

    async def contract_preconditions(self) -> None:
        """They are checked within the write, and what is refused changes nothing."""
        store = self.store
        absent, there = Precondition(absent=True), Precondition()
        words = await self.refused(store.put(KEY, said("all"), precondition=there), Refused)
        self.assertIn("there is no job", words)
        await self.refused(store.patch(KEY, _described("x"), precondition=there), Refused)
        await self.refused(store.delete(KEY, there), Refused)
        await self.refused(store.disable(KEY, precondition=there), Refused)
        await self.refused(store.enable(KEY, there), Refused)
        await self.refused(store.get(KEY), JobNotFound)
        await store.delete(KEY, absent)
        put = await store.put(KEY, said("all"), precondition=absent)
        self.tick()
        right = Precondition(frozenset((put.version, 7)))
        stale = Precondition(frozenset((put.version - 1,)))
        for wrong in (absent, stale, Precondition(frozenset())):
            await self.refused(store.put(KEY, said("octets"), precondition=wrong), Refused)
            await self.refused(store.patch(KEY, _described("x"), precondition=wrong), Refused)
            await self.refused(store.delete(KEY, wrong), Refused)
            await self.refused(store.disable(KEY, "why", wrong), Refused)
        got = await self.found()
        self.assertEqual((got, got.version), (put, put.version))
        await store.disable(KEY, precondition=right)
        await store.enable(KEY, right)
        patched = await store.patch(KEY, _described("x"), precondition=right)
        self.tick()
        await self.refused(store.put(KEY, said("octets"), precondition=right), Refused)
        now = Precondition(frozenset((patched.version,)))
        for if_exists in (None, UPDATE):
            request = replace(said("octets"), if_exists=if_exists)
            put = await store.put(KEY, request, precondition=now)
            self.check(await self.found(), "octets")
            self.tick()
            now = Precondition(frozenset((put.version,)))
        # A plain PUT enables the job, with a precondition, too.
        await store.disable(KEY, precondition=now)
        put = await store.put(KEY, said("octets"), precondition=now)
        self.assertFalse(put.disabled)
        await store.delete(KEY, Precondition(frozenset((put.version,))))
        self.left_over()

    async def contract_refused_alone(self) -> None:
        """Of many PUTs at once, those are refused whose preconditions don't hold."""
        keys = [JobKey("many", str(number)) for number in range(8)]
        versions = [(await self.store.put(key, HOUR)).version for key in keys]
        self.tick()
        puts = [
            self.store.put(
                key,
                said("tags"),
                precondition=Precondition(frozenset((version + number % 2,))),
            )
            for number, (key, version) in enumerate(zip(keys, versions, strict=True))
        ]
        for put in puts:
            put.addErrback(lambda failure: failure.trap(PreconditionFailed))
        results = await gatherResults(puts)
        self.assertEqual(
            [isinstance(each, Job) for each in results], [True, False] * (len(keys) // 2)
        )
        for number, key in enumerate(keys):
            self.check(await self.found(key), "nothing" if number % 2 else "tags")

    async def contract_patches(self) -> None:
        """A PATCH writes a job over itself; its runs stay unless its schedule changes."""
        store = self.store
        await self.refused(store.patch(KEY, _described("x")), JobNotFound)
        put = await store.put(KEY, said("all"))
        self.tick()
        (run,) = await self.claim(KEY)
        patched = await store.patch(KEY, _described("other"))
        notes = replace(put.notes, description="other")
        self.assertEqual(
            (patched.notes, patched.delivery, patched.anchor, patched.scheduled, patched.running),
            (notes, put.delivery, put.anchor, put.scheduled, True),
        )
        got = await self.found()
        self.assertEqual((got, got.version), (patched, patched.version))
        self.tick()
        same = await store.patch(KEY, _described("other"))
        self.assertEqual(same.version, patched.version)
        recorded = await store.record([ended(run, Reschedule(run.claimed, run.anchor))])
        self.assertEqual(len(recorded.written), 1)
        await store.disable(KEY, "for now")
        faster = await store.patch(
            KEY, lambda job: replace(said("all"), interval=seconds(60), immediate=False)
        )
        self.assertEqual((faster.schedule.text, faster.disabled), ("60", True))
        self.assertEqual(faster.notes.disabled and faster.notes.disabled.reason, "for now")
        self.assertGreater(faster.version, patched.version)

        def refuse(job: Job) -> ScheduleRequest:
            raise InvalidRequest("no")

        await self.refused(store.patch(KEY, refuse), InvalidRequest)
        self.assertEqual(await self.found(), faster)

    async def contract_reasons(self) -> None:
        """Since when a job is disabled is noted until it is enabled, and nothing else changes."""
        for name in ("nothing", "all", "octets", "tags"):
            put = await self.store.put(KEY, said(name))
            self.tick()
            plain = await self.store.disable(KEY)
            since = plain.notes.disabled
            assert since is not None
            self.assertEqual(
                (since.reason, plain.delivery, plain.disabled), (None, put.delivery, True)
            )
            self.assertEqual(plain.notes, replace(put.notes, disabled=since))
            self.assertEqual(await self.found(), plain)
            self.tick()
            disabled = await self.store.disable(KEY, "é'")
            noted = disabled.notes.disabled
            self.assertEqual(noted, Disabling(since.since, "é'"))
            self.assertEqual(disabled.delivery, put.delivery)
            self.assertEqual(disabled.notes, replace(put.notes, disabled=noted))
            self.assertEqual(await self.found(), disabled)
            self.tick()
            again = await self.store.disable(KEY)
            self.assertEqual(again.notes.disabled, noted)
            other = await self.store.disable(KEY, "other")
            self.assertEqual(other.notes.disabled, Disabling(since.since, "other"))
            updated = await self.store.put(KEY, replace(said(name), if_exists=UPDATE, count=3))
            self.assertEqual((updated.notes, updated.disabled), (other.notes, True))
            moved = replace(said(name), if_exists=UPDATE, interval=seconds(60))
            self.assertEqual((await self.store.put(KEY, moved)).notes, other.notes)
            enabled = await self.store.enable(KEY)
            self.assertEqual((enabled.notes, enabled.disabled), (put.notes, False))
            self.check(await self.found(), name)
            await self.store.disable(KEY, "again")
            self.check(await self.store.put(KEY, said(name)), name)
            self.check(await self.found(), name)
            await self.store.delete(KEY)
            self.left_over()

    async def contract_done(self) -> None:
        """A job that is kept is done once its last run is over, until it is PUT anew."""
        store = self.store
        once = replace(NOW, on_end=OnEnd.KEEP, tags=("a",))
        success = Outcome(200, 0.1)
        for outcome, meaning, counted in (
            (success, Meaning.SUCCEED, (1, 0)),
            (success, Meaning.DISABLE, (0, 0)),
            (None, None, (0, 1)),
        ):
            put = await store.put(KEY, once)
            self.tick()
            (run,) = await self.claim(KEY)
            recorded = await store.record([End(run, outcome, Finish(), meaning)])
            self.assertEqual((len(recorded.written), recorded.dues), (1, []))
            job = await self.found()
            self.assertEqual(
                (job.standing, job.due, job.next_run, job.attempts, job.error, job.running),
                (Standing.DONE, None, None, 0, None, False),
            )
            self.assertEqual((job.successes, job.skipped), counted)
            self.assertEqual((job.version, job.notes), (put.version, put.notes))
            counts = await store.counts()
            self.assertEqual((counts.total, counts.pending, counts.set_aside), (1, 0, 0))
            words = await self.refused(store.trigger(KEY), JobOver)
            self.assertIn("done", words)
            for if_exists in (KEEP, UPDATE):
                same = await store.put(KEY, replace(once, if_exists=if_exists))
                self.assertEqual((same.standing, same.due), (Standing.DONE, None))
            described = replace(once, if_exists=UPDATE, description="what it was")
            self.assertEqual((await store.put(KEY, described)).standing, Standing.DONE)
            await store.disable(KEY)
            await self.refused(store.trigger(KEY), JobOver)
            enabled = await store.enable(KEY)
            self.assertEqual((enabled.standing, enabled.due), (Standing.DONE, None))
            await self.claim()
            anew = await store.put(KEY, once)
            self.assertEqual((anew.standing, anew.successes), (Standing.SOUND, 0))
            self.tick()
            (run,) = await self.claim(KEY)
            await store.record([ended(run, Finish())])
            moved = replace(HOUR, if_exists=UPDATE)
            self.assertEqual((await store.put(KEY, moved)).standing, Standing.SOUND)
            await store.delete(KEY)
            self.left_over()

    async def contract_done_and_changed_meanwhile(self) -> None:
        """P4: a job that was triggered, scheduled or disabled during its last run."""
        store, once = self.store, replace(NOW, on_end=OnEnd.KEEP)
        changes: list[tuple[Callable[[], Any], Standing, bool]] = [
            (lambda: store.trigger(KEY), Standing.SOUND, True),
            (lambda: store.put(KEY, once), Standing.SOUND, True),
            (lambda: store.disable(KEY), Standing.DONE, False),
        ]
        for change, standing, is_due in changes:
            await store.put(KEY, once)
            self.tick()
            (run,) = await self.claim(KEY)
            await change()
            await store.record([ended(run, Finish())])
            job = await self.found()
            self.assertEqual((job.standing, job.due is not None), (standing, is_due))
            await store.delete(KEY)

    async def contract_gone_and_changed_meanwhile(self) -> None:
        """
        P4: a job that was changed or disabled during a run stays, though the run's answer has the
        job removed. Once it has no more runs, it goes.
        """
        store = self.store
        changes: list[tuple[Callable[[ScheduleRequest], Any], bool]] = [
            (lambda _: store.get(KEY), False),
            (lambda _: store.patch(KEY, _described("anew")), True),
            (lambda like: store.put(KEY, replace(said("octets", like), if_exists=UPDATE)), True),
            (lambda _: store.disable(KEY), True),
        ]
        for (like, once), (change, stays) in product(((HOUR, False), (NOW, True)), changes):
            await store.put(KEY, said("all", like))
            self.tick()
            (run,) = await self.claim(KEY)
            await change(like)
            gone = End(run, Outcome(204, 0.1), Delete(), Meaning.REMOVE)
            recorded = await store.record([gone])
            if once or not stays:
                self.assertEqual(recorded.written, [gone])
                await self.refused(store.get(KEY), JobNotFound)
                self.left_over()
                continue
            (end,) = recorded.revised
            self.assertIsInstance(end.verdict, Reschedule)
            job = await self.found()
            self.assertEqual((job.running, job.standing), (False, Standing.SOUND))
            self.assertEqual(job.due, None if job.disabled else job.scheduled)
            await store.delete(KEY)

    async def contract_time_limits(self) -> None:
        """A run has the less of its job's time limit and its endpoint's, and a lease of that."""
        for own, endpoint, expected in ((30, 60.0, 30.0), (90, 60.0, 60.0), (None, 60.0, 60.0)):
            limit = None if own is None else timedelta(seconds=own)
            for name in ("nothing", "all"):
                await self.store.put(KEY, replace(said(name), timeout=limit))
                self.tick()
                (run,) = await self.claim(KEY, timeout=endpoint)
                self.assertEqual(run.timeout, expected)
                job = await self.found()
                assert job.due is not None
                self.assertEqual(job.due - run.claimed, lease_of(expected))
                left = run.lease_ends - self.store.clock.seconds()
                self.assertLessEqual(left, lease_of(expected).total_seconds())
                self.assertGreater(left, lease_of(expected).total_seconds() - 5)
                await self.store.record([ended(run, GiveBack())])
                await self.store.delete(KEY)


Refused = PreconditionFailed

NAMES = [name for name in vars(Contract) if name.startswith("contract_")]


def _described(text: str) -> Change:
    """A change of a job's description."""

    def change(job: Job) -> ScheduleRequest:
        from dalga.model.patch import patched

        return ScheduleRequest.of(patched(job, {"description": text}))

    return change


class FakeContractTests(Contract):
    """The fake store holds the same."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FakeStore(self.clock.seconds)

    def tick(self) -> None:
        self.clock.advance(0.001)

    def end_lease(self, run: Run) -> None:
        self.clock.advance(lease_of(LONG).total_seconds())


@each_engine(globals())
class ContractTests(EngineTestCase, Contract):
    """Each engine holds the contract."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()

    def end_lease(self, run: Run) -> None:
        self.end_leases()

    async def again(self, key: JobKey, name: str, job: Job) -> None:
        request = Idempotency.of("a key", b"request")
        made = await self.store.once(JobKey(key.path, "other"), said(name, NOW), request)
        self.assertEqual(made, (job, False))
        self.assertEqual(made.job.version, job.version)
        self.sql("DELETE FROM dalga_keys")

    async def test_all_at_once(self) -> None:
        """Whatever two instances do to the same jobs at once, each job's rows fit each other."""
        stores = [self.store, self.open_store()]
        keys = [JobKey("at once", str(number)) for number in range(4)]
        # Of the invalid: a count that is given to a job that has had as many runs.
        refusals = (InvalidRequest, JobDisabled, JobNotFound, JobOver, PreconditionFailed)
        done: list[str] = []

        async def act(store: JobsTable, random: Random) -> None:
            key, name = random.choice(keys), random.choice(list(SAID))
            if_exists = random.choice((None, UPDATE, KEEP))
            request = replace(said(name), if_exists=if_exists, count=random.choice((None, 2)))
            precondition = random.choice((None, None, Precondition(), Precondition(absent=True)))
            what = random.choice(("put", "put", "put", "patch", "run", "delete", "disable", "get"))
            try:
                if what == "put":
                    job = await store.put(key, request, precondition=precondition)
                    if if_exists is None:
                        self.check(job, name)
                elif what == "patch":
                    await store.patch(key, _described(name), precondition=precondition)
                elif what == "disable":
                    await store.disable(key, random.choice((None, "why")), precondition)
                    await store.enable(key)
                elif what == "delete":
                    await store.delete(key, precondition)
                elif what == "get":
                    job = await self.job(store, key)
                else:
                    for run in (await store.claim(2, LONG)).runs:
                        payload = run.delivery.payload
                        octets = payload.octets if payload else run.key.body.encode()
                        self.assertEqual(run.payload, octets)
                        later = Reschedule(run.claimed, run.anchor)
                        verdict = random.choice((later, Delete(), Finish(), GiveBack()))
                        await store.record([ended(run, verdict)])
            except refusals as refusal:
                what = type(refusal).__name__
            done.append(what)

        async def user(number: int) -> None:
            random = Random(number)
            for _ in range(25):
                await act(stores[number % 2], random)

        await gatherResults([Deferred.fromCoroutine(user(number)) for number in range(8)])
        self.assertEqual(len(done), 200)
        self.left_over()
        for key in keys:
            with contextlib.suppress(JobNotFound):
                await self.job(stores[0], key)

    def left_over(self) -> None:
        for table in ("dalga_details", "dalga_tags"):
            orphans = self.sql(
                f"SELECT path, body FROM {table} WHERE id NOT IN (SELECT id FROM dalga)"
            )
            self.assertEqual(orphans, [], table)
        odd = self.sql(
            "SELECT body, extras FROM dalga WHERE"
            " (SELECT COUNT(*) FROM dalga_details d WHERE d.id = dalga.id)"
            " <> CASE WHEN (extras & 3) <> 0 THEN 1 ELSE 0 END"
            " OR (SELECT COUNT(*) FROM dalga_tags t WHERE t.id = dalga.id) = 0"
            " <> ((extras & 4) = 0) OR (extras & 8) <> 0"
        )
        self.assertEqual(odd, [])


@each_engine(globals())
class ClaimTests(EngineTestCase):
    """What a claim reads of details, and what becomes of rows that somebody else has written."""

    async def put(self, store: JobsTable, name: str, what: str, **said_too: Any) -> JobKey:
        key = JobKey(name, "1234")
        await store.put(key, replace(said(what), **said_too))
        return key

    async def test_the_weight_of_a_claim(self) -> None:
        """P10: a claim reads so much at most, in due order (P6), and says that there is more."""
        self.patch(store_runs, "DETAILS", 8 * 1024)
        for unusual in (False, True):
            store = self.open_store()
            if unusual:
                self.patch(store_runs, "run_from_text", lambda *_: None)
            sizes = {"a": 3000, "plain": 0, "b": 3000, "c": 3000, "d": 20_000, "e": 1000, "f": 0}
            for name, size in sizes.items():
                payload = Payload(bytes([65 + size % 26]) * size) if size else None
                await self.put(store, name, "nothing", payload=payload)
            taken = []
            while True:
                claimed = await store.claim(9, LONG)
                for run in claimed.runs:
                    size = sizes[run.key.path]
                    self.assertEqual(len(run.payload), size or 4)
                taken.append("".join(run.key.path[0] for run in claimed.runs))
                if not claimed.full:
                    break
                await self.record(store, [(run, Delete()) for run in claimed.runs])
            self.assertEqual(taken, ["apb", "c", "d", "ef"])
            self.sql("DELETE FROM dalga")
            self.sql("DELETE FROM dalga_details")

    async def test_a_claim_reads_no_notes(self) -> None:
        """So it takes jobs however long their notes are."""
        self.patch(store_runs, "DETAILS", 1024)
        store = self.open_store()
        await self.put(store, "a", "nothing", payload=Payload(b"x" * 900))
        for name in "bc":
            await self.put(store, name, "nothing", description="x" * 900)
        claimed = await store.claim(9, LONG)
        self.assertEqual([run.key.path for run in claimed.runs], ["a", "b", "c"])
        self.assertFalse(claimed.full)

    async def test_a_reason_that_is_forgotten_leaves_nothing_behind(self) -> None:
        store = self.open_store()
        key = await self.put(store, "a", "nothing")
        await store.disable(key, "why")
        self.assertEqual(len(self.sql("SELECT id FROM dalga_details")), 1)
        await store.enable(key)
        self.assertEqual(self.sql("SELECT id FROM dalga_details"), [])

    async def test_the_largest_version(self) -> None:
        """Somebody's SQL has written it: no version is larger, and the next one is the clock's."""
        store = self.open_store()
        key = await self.put(store, "a", "nothing")
        self.sql("UPDATE dalga SET version = %s", (2**63 - 1,))
        before = version_at(await store.now())
        await self.put(store, "a", "nothing")
        job = await self.job(store, key)
        self.assertTrue(before <= job.version <= version_at(await store.now()), job.version)

    async def test_the_weight_of_other_transactions(self) -> None:
        """P10: so do GETs and PUTs that share a transaction, and pages."""
        self.patch(jobs_room, "READ_AT_ONCE", 8 * 1024)
        self.patch(puts_room, "READ_AT_ONCE", 8 * 1024)
        self.patch(listing_room, "PAGED", 8 * 1024)
        weights: list[int] = []
        read = DetailRows.read

        def noted(details: DetailRows, cursor: Any, rows: Any) -> Any:
            weights.append(sum(weight_of(row.extras) for row in rows))
            return read(details, cursor, rows)

        self.patch(DetailRows, "read", noted)
        store = self.open_store()
        keys = [
            await self.put(store, name, "nothing", payload=Payload(b"x" * 3000)) for name in "abcde"
        ]
        jobs = await gatherResults([store.get(key) for key in keys])
        self.assertEqual([job.key for job in jobs], keys)
        change = _described("x")
        patched = await gatherResults([store.patch(key, change) for key in keys])
        self.assertEqual([job.notes.description for job in patched], ["x"] * 5)
        self.assertEqual(max(weights), 2 * 3 * 1024)
        page = await store.page(by_key(None, None, 9))
        self.assertEqual([job.key for job in page.jobs], keys[:2])
        page = await store.page(by_key(None, page.last, 9))
        self.assertEqual([job.key for job in page.jobs], keys[2:4])

    async def test_large_ones(self) -> None:
        """A payload as long as any may be, and many that are too much for one statement."""
        store = self.open_store()
        octets = self.random.randbytes(MOST_PAYLOAD)
        await self.put(store, "large", "nothing", payload_base64=Payload(octets, BASE64))
        parts = [self.random.randbytes(60_000) for _ in range(12)]
        await gatherResults(
            [
                store.put(
                    JobKey(f"many {number}", "1234"),
                    replace(
                        said("tags"),
                        payload_base64=Payload(part, BASE64),
                        tags=tuple(f"{tag}" * 60 for tag in range(1, 9)),
                    ),
                )
                for number, part in enumerate(parts)
            ]
        )
        sent: dict[str, bytes] = {}
        while len(sent) < 13:
            for run in (await store.claim(99, LONG)).runs:
                sent[run.key.path] = run.payload
        self.assertEqual(sent.pop("large"), octets)
        self.assertEqual([sent[f"many {number}"] for number in range(12)], parts)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga_tags"), [(12 * 8,)])

    async def test_rubbish(self) -> None:
        """P6: such a job is set aside, says why, POSTs nothing, and is mended or deleted."""
        store = self.open_store()
        for what, words in (
            ("UPDATE dalga_details SET members = '{'", "can't be read"),
            ("UPDATE dalga_details SET members = '[]'", "no JSON object"),
            ("""UPDATE dalga_details SET members = '{"colour":"red"}'""", "colour"),
            ("""UPDATE dalga_details SET members = '{"payload":"text","method":"EAT"}'""", "EAT"),
            ("UPDATE dalga_details SET payload = NULL", "do not fit"),
            ("""UPDATE dalga_details SET members = '{"method":"PUT"}'""", "do not fit"),
            ("DELETE FROM dalga_details", "missing"),
            ("UPDATE dalga SET extras = 7", "more than"),
            (f"UPDATE dalga_details SET payload = X'{'00' * 9000}'", "more than"),
        ):
            for unusual, mend in product((False, True), (True, False)):
                await self.put(store, "check_feed", "all")
                self.sql(what)
                if unusual:
                    # What is no text of a row is read by columns.
                    self.sql("UPDATE dalga SET started = '2020-01-01 00:00:00.000000'")
                    self.sql("UPDATE dalga SET override = 3")
                shown = await store.get(KEY)
                assert isinstance(shown, UnreadableJob), shown
                self.assertIn(words, shown.problem)
                claimed = await store.claim(9, LONG)
                self.assertEqual(claimed.runs, [])
                (problem,) = [event["problem"] for event in self.logged()]
                self.assertIn(words, problem)
                self.assertNotIn("b'{", problem)
                found = self.sql("SELECT standing, error, due, token FROM dalga")
                self.assertEqual([row[0] for row in found], [Standing.ASIDE])
                self.assertIn(words, str(found[0][1]))
                self.assertEqual(found[0][2:], (None, None))
                self.assertEqual((await store.counts()).set_aside, 1)
                await self.assertFailure(store.trigger(KEY), JobSetAside)
                await self.assertFailure(store.patch(KEY, _described("x")), JobSetAside)
                if mend:
                    put = await self.put(store, "check_feed", "octets")
                    (run,) = (await store.claim(9, LONG)).runs
                    self.assertEqual((run.key, run.payload), (put, OCTETS.octets))
                    await self.record(store, [(run, Delete())])
                else:
                    await store.delete(KEY)
                for table in ("dalga", "dalga_details", "dalga_tags"):
                    self.assertEqual(self.sql(f"SELECT COUNT(*) FROM {table}"), [(0,)], table)

    def logged(self) -> list[Any]:
        """What was logged as an error since the last call."""
        events, self.events[:] = [*self.events], []
        return [event for event in events if "problem" in event]

    def setUp(self) -> None:
        super().setUp()
        self.events: list[Any] = []
        observer = noting(self.events)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    async def test_set_aside_and_enabled(self) -> None:
        """Enabled, such a job is tried again; a reason is not noted where nothing can be read."""
        store = self.open_store()
        await self.put(store, "check_feed", "all")
        kept = self.sql("SELECT members FROM dalga_details")[0][0]
        self.sql("UPDATE dalga_details SET members = '{'")
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.assertIsInstance(await store.disable(KEY, "why"), UnreadableJob)
        self.assertIsInstance(await store.enable(KEY), UnreadableJob)
        self.assertEqual(self.sql("SELECT standing FROM dalga"), [(Standing.SOUND,)])
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        rows = self.sql("SELECT standing, attempts FROM dalga")
        self.assertEqual(rows, [(Standing.ASIDE, 0)])  # none was made
        # Mended by SQL, and triggered.
        self.sql("UPDATE dalga_details SET members = %s", (kept,))
        job = await store.trigger(KEY)
        self.assertEqual((job.standing, job.delivery), (Standing.SOUND, _beside("all")[0]))
        (run,) = (await store.claim(9, LONG)).runs
        self.assertEqual(run.delivery, job.delivery)

    async def test_what_somebody_left_behind(self) -> None:
        """Rows of a job that somebody has removed by SQL are in nobody's way."""
        store = self.open_store()
        await self.put(store, "check_feed", "all")
        self.sql("DELETE FROM dalga")
        await self.put(store, "check_feed", "tags")
        self.assertEqual((await self.job(store, KEY)).notes.tags, ("b", "a", "c"))
        (run,) = (await store.claim(9, LONG)).runs
        self.assertIs(run.delivery, PLAIN)

    async def test_two_instances(self) -> None:
        """Either writes, and the other one reads, claims and deletes."""
        one, two = self.open_store(), self.open_store()
        for name in SAID:
            await self.put(one, "check_feed", name)
            await self.put(two, "check_feed", "all")
            put = await self.put(one, "check_feed", name)
            job = await self.job(two, put)
            self.assertEqual((job.delivery, job.notes), _beside(name))
            (run,) = (await two.claim(9, LONG)).runs
            self.assertEqual(run.delivery, job.delivery)
            self.assertEqual((await one.claim(9, LONG)).runs, [])
            await one.put(put, replace(said("octets"), if_exists=UPDATE))
            await self.record(two, [(run, Reschedule(run.claimed, run.anchor))])
            (run,) = (await one.claim(9, LONG)).runs
            self.assertEqual(run.payload, OCTETS.octets)
            await two.delete(put)
            await self.record(one, [(run, Delete())])
            self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga_details"), [(0,)])

    async def test_two_that_write_at_once(self) -> None:
        """Whoever is last, the rows are of one PUT, and no transaction fails."""
        stores = [self.open_store(), self.open_store()]
        names = [name for name in SAID if name != "nothing"]
        for turn in range(6):
            puts = [
                self.put(store, f"path {number}", names[(turn + number + shift) % len(names)])
                for shift, store in enumerate(stores)
                for number in range(12)
            ]
            keys = await gatherResults([Deferred.fromCoroutine(put) for put in puts])
            for number, key in enumerate(keys[:12]):
                job = await self.job(stores[0], key)
                either = [
                    _beside(names[(turn + number + shift) % len(names)]) for shift in range(2)
                ]
                self.assertIn((job.delivery, job.notes), either)
                tags = self.sql("SELECT tag FROM dalga_tags WHERE path = %s", (self.key(key.path),))
                self.assertEqual(
                    sorted(str(tag if isinstance(tag, str) else tag.decode()) for (tag,) in tags),
                    sorted(job.notes.tags),
                )


@each_engine(globals(), only=("mysql", "mariadb"))
class BetweenTests(EngineTestCase):
    """What somebody does between two statements of a transaction that has locked nothing yet."""

    async def test_a_get(self) -> None:
        """It shows no details of another version, and none that are there no more."""
        store = self.open_store()

        async def hooked_get(done: str) -> Job:
            hooked = before(self, store, "read_details", done)
            try:
                return await self.job(store, KEY)
            finally:
                self.assertEqual(hooked, ["read_details"])

        put = await store.put(KEY, said("all"))
        job = await hooked_get("UPDATE dalga SET version = version + 1")
        self.assertEqual((job.version, job.notes), (put.version + 1, put.notes))
        job = await hooked_get("UPDATE dalga SET extras = 0")
        self.assertEqual((job.delivery, job.notes), (PLAIN, NO_NOTES))
        await store.put(KEY, said("all"))
        with self.assertRaises(JobNotFound):
            await hooked_get("DELETE FROM dalga")

    async def test_preconditions(self) -> None:
        """A job that changes after it was read is read again, and refused."""
        store = self.open_store()
        put = await store.put(KEY, said("all"))
        right = Precondition(frozenset((put.version,)))
        done = "UPDATE dalga SET version = version + 1"
        calls: list[tuple[str, Callable[[], Any]]] = [
            ("hold", lambda: store.put(KEY, said("octets"), precondition=right)),
            ("amend", lambda: store.patch(KEY, _described("x"), precondition=right)),
            ("hold_version", lambda: store.delete(KEY, right)),
            ("hold_version", lambda: store.disable(KEY, precondition=right)),
        ]
        for statement, call in calls:
            self.sql("UPDATE dalga SET version = %s", (put.version,))
            hooked = before(self, store, statement, done)
            await self.assertFailure(call(), PreconditionFailed)
            self.assertEqual(hooked, [statement])
        self.assertEqual((await self.job(store, KEY)).notes, put.notes)

    async def test_a_reason(self) -> None:
        """P4: a PATCH, and a PUT that lets a job stay disabled, keep the reason that came last."""
        store = self.open_store()
        new = "UPDATE dalga_details SET members = REPLACE(members, 'first', 'second')"
        calls: list[tuple[str, Callable[[], Any]]] = [
            ("amend", lambda: store.patch(KEY, _described("x"))),
            ("hold", lambda: store.put(KEY, replace(said("tags", NOW), if_exists=UPDATE))),
        ]
        for statement, call in calls:
            await store.put(KEY, said("all"))
            await store.disable(KEY, "first")
            hooked = before(self, store, statement, new)
            await call()
            self.assertEqual(hooked, [statement])
            disabling = (await self.job(store, KEY)).notes.disabled
            assert disabling is not None
            self.assertEqual(disabling.reason, "second")

    async def test_a_job_that_somebody_adds(self) -> None:
        """A PUT that expects no job is refused, though there was none when it looked."""
        store = self.open_store()
        values = "'60', '2100-01-01', '2100-01-01', '2100-01-01'"
        added = (
            "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
            f" VALUES ('{KEY.path}', '{KEY.body}', {values})"
        )
        hooked = before(self, store, "add", added)
        put = store.put(KEY, said("all"), precondition=Precondition(absent=True))
        await self.assertFailure(put, PreconditionFailed)
        self.assertEqual(hooked, ["add"])
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga_details"), [(0,)])
        job = await store.put(KEY, replace(said("all"), if_exists=KEEP))
        self.assertEqual((job.delivery, job.version), (PLAIN, 0))

    async def test_the_same_job_that_somebody_adds(self) -> None:
        """Its version tells it from the one that was to be added."""
        store = self.open_store()
        request = ScheduleRequest(one_off=True, first_run=datetime(2100, 1, 1, tzinfo=UTC))
        await store.put(JobKey(KEY.path, "other"), request)
        hooked = before(self, store, "add", f"UPDATE dalga SET body = '{KEY.body}'")
        put = store.put(KEY, request, precondition=Precondition(absent=True))
        await self.assertFailure(put, PreconditionFailed)
        self.assertEqual(hooked, ["add"])

    async def test_a_claim(self) -> None:
        """It sends what the job says once the row is taken, not what it said before."""
        store, other = self.open_store(), self.open_store()
        await store.put(KEY, said("all"))
        await other.put(OTHER, said("octets"))
        text = "'{\"payload\":\"text\"}', X'6E6577'"
        hooked = before(
            self,
            store,
            "read_details",
            f"REPLACE INTO dalga_details SELECT id, path, body, {text} FROM dalga",
        )
        runs = (await store.claim(9, LONG)).runs
        self.assertEqual(hooked, ["read_details"])
        self.assertEqual([run.payload for run in runs], [b"new"] * 2)


@each_engine(globals(), only=("mysql",))
class DeleteBetweenTests(EngineTestCase):
    """The same; MariaDB keeps the lock of a row that it has but looked at."""

    async def test_a_delete(self) -> None:
        """A job that gets details, or is claimed, while it is being deleted is deleted."""
        store = self.open_store()
        await store.put(KEY, said("all"))
        hooked = before(
            self, store, "delete_idle_row", "UPDATE dalga SET token = 'x', due = '2100-01-01'"
        )
        await store.delete(KEY)
        self.assertEqual(hooked, ["delete_idle_row"])
        self.assertEqual(self.sql("SELECT override FROM dalga"), [(Override.DELETED,)])

    async def test_tags(self) -> None:
        """A job that gets something in another table meanwhile leaves nothing there."""
        store = self.open_store()
        await store.put(KEY, replace(NOW, expect_within=timedelta(hours=1)))
        self.sql(
            "INSERT INTO dalga_tags (tag, path, body, id) SELECT 't', path, body, id FROM dalga"
        )
        done = f"UPDATE dalga SET extras = extras | {TAGGED}"
        hooked = before(self, store, "delete_idle_row", done)
        await store.delete(KEY)
        self.assertEqual(hooked, ["delete_idle_row"])
        for table in ("dalga", "dalga_tags", "dalga_expected"):
            self.assertEqual(self.sql(f"SELECT COUNT(*) FROM {table}"), [(0,)], table)


def _beside(name: str) -> tuple[Any, Any]:
    job = _planned(name)
    return job.delivery, job.notes


def _test(name: str) -> Callable[[Any], Any]:
    async def test(self: Any) -> None:
        await getattr(self, name)()

    test.__doc__ = vars(Contract)[name].__doc__
    test.__name__ = name.replace("contract_", "test_")
    return test


for _name in NAMES:
    for _case in [case for case in list(globals().values()) if isinstance(case, type)]:
        if issubclass(_case, Contract) and _case is not Contract:
            setattr(_case, _name.replace("contract_", "test_"), _test(_name))
