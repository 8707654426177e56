"""
The contract of `dalga.store.Store` on replays: of one run, and of thousands by one action.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from dalga.errors import JobSetAside, ReplayImpossible, RunNotFound, RunUnderWay
from dalga.model.action import ActionRequest, ActionState, Do
from dalga.model.delivery import Delivery, Payload, PayloadKind
from dalga.model.key import JobKey
from dalga.model.record import Result
from dalga.model.run import Cause
from dalga.model.runid import RunId
from dalga.model.runlist import RunFilters
from dalga.model.schedule import Once
from dalga.store import Batch, actions, history, replays
from dalga.store.table import JobsTable
from tests.ended import KEY, SCHEDULED, insert_runs, run_id
from tests.records import RecordTestCase
from tests.stores import EACH_MINUTE, LONG, each_engine

ENDPOINTS = ("default", "billing")
GIVEN_UP = RunFilters(results=frozenset({Result.GIVEN_UP}))


class ReplayTestCase(RecordTestCase):
    """Runs that have ended, in the table of records."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(actions, "PAUSE", timedelta(0))
        # On a busy machine, too, a batch does all that it finds.
        self.patch(history, "PATIENCE", 60.0)
        self.store = self.open_store()

    def ended(self, numbers: Sequence[int], key: JobKey = KEY, **more: Any) -> None:
        """See `insert_runs`."""
        insert_runs(self, numbers, key, **more)

    def replayed(self) -> list[str]:
        """Of which runs there are replays, in order."""
        texts = self.sql("SELECT members FROM dalga_details")
        found = [json.loads(text).get("replay-of") for (text,) in texts]
        return sorted(each for each in found if each is not None)


@each_engine(globals())
class ReplayTests(ReplayTestCase):
    """One run."""

    async def test_what_is_made(self) -> None:
        """P6: due now, so that it stands behind all that are due; scheduled as the run was."""
        await self.store.put(KEY, EACH_MINUTE)
        self.ended([1])
        before = await self.store.now()
        job = await self.store.replay(run_id(1), ENDPOINTS)
        after = await self.store.now()
        self.assertEqual((job.key.path, len(job.key.body)), ("mail", 26))
        self.assertEqual((job.scheduled, type(job.schedule)), (SCHEDULED, Once))
        assert job.due is not None
        self.assertTrue(before <= job.due <= after)
        sent = Payload(b"7", PayloadKind.TEXT)
        self.assertEqual(job.delivery, Delivery(sent, replay_of=str(run_id(1))))
        self.assertEqual(await self.store.get(job.key), job)
        (run,) = (await self.store.claim(9, LONG)).runs
        self.assertEqual((run.key, run.payload, run.scheduled), (job.key, b"7", SCHEDULED))
        self.assertNotEqual(run.id, str(run_id(1)))
        self.assertEqual(run.delivery, job.delivery)
        ((cause,),) = self.sql("SELECT cause FROM dalga WHERE path = 'mail' AND body <> '7'")
        self.assertEqual(cause, Cause.REPLAY)

    async def test_each_time_another(self) -> None:
        self.ended([1])
        made = [await self.store.replay(run_id(1), ENDPOINTS) for _ in range(3)]
        self.assertEqual(len({job.key for job in made}), 3)
        self.assertEqual(self.replayed(), [str(run_id(1))] * 3)

    async def test_what_the_job_sends_now(self) -> None:
        """With what stands in other tables; also if the job is disabled."""
        payload = Payload(b'{"a":1}', PayloadKind.JSON)
        headers = (("X-A", "1"),)
        await self.store.put(
            KEY,
            replace(EACH_MINUTE, payload=payload, headers=headers, tags=("x",), endpoint="billing"),
        )
        await self.store.disable(KEY, "a sale")
        self.ended([1])
        job = await self.store.replay(run_id(1), ENDPOINTS)
        self.assertEqual((job.delivery.payload, job.delivery.headers), (payload, headers))
        self.assertEqual((job.notes.tags, job.options.endpoint), (("x",), "billing"))
        self.assertEqual((job.disabled, job.notes.disabled), (False, None))
        tags = self.sql("SELECT COUNT(*) FROM dalga_tags WHERE tag = 'x'")
        self.assertEqual(tags[0][0], 2)

    async def test_a_job_that_is_gone(self) -> None:
        self.ended([1], endpoint="billing")
        job = await self.store.replay(run_id(1), ENDPOINTS)
        self.assertEqual(job.options.endpoint, "billing")
        self.assertEqual(job.delivery.payload, Payload(b"7", PayloadKind.TEXT))

    async def test_impossible(self) -> None:
        """Nothing is written."""
        self.ended([1], detailed=True)
        self.ended([2], endpoint="elsewhere")
        (odd,) = self.in_the_past("odd")
        self.sql("UPDATE dalga SET schedule = 'x'")
        self.ended([3], JobKey(*odd))
        for number, kind in ((1, ReplayImpossible), (2, ReplayImpossible), (3, JobSetAside)):
            await self.assertFailure(self.store.replay(run_id(number), ENDPOINTS), kind)
        self.assertEqual(self.replayed(), [])
        await self.assertFailure(self.store.replay(run_id(4), ENDPOINTS), RunNotFound)

    async def test_a_run_that_has_not_ended(self) -> None:
        run = await self.due_now(self.store, KEY)
        token, row = run.id.split("-")
        under_way = RunId(bytes.fromhex(token), int(row))
        await self.assertFailure(self.store.replay(under_way, ENDPOINTS), RunUnderWay)


@each_engine(globals())
class ManyTests(ReplayTestCase):
    """Many runs, by an action."""

    timeout = 120

    async def begin(self, filters: RunFilters = GIVEN_UP, **more: Any) -> str:
        return (await self.store.begin_action(ActionRequest(Do.REPLAY, filters, **more))).id

    async def batch(self, store: JobsTable | None = None, limit: int = 100) -> Batch:
        return await (store or self.store).act(limit, ENDPOINTS, "here", True)

    async def end(self, limit: int = 100) -> Any:
        last = None
        while (batch := await self.batch(limit=limit)).action is not None:
            last = batch.action
        assert last is not None
        return last

    async def test_seven_thousand(self) -> None:
        """
        P2 and P5 of an action: each run is replayed once, though instances take turns, and one dies
        in every other one of its batches, before the COMMIT.
        """
        number = 7000
        await self.store.put(JobKey("mail", "0"), replace(EACH_MINUTE, payload=Payload(b"p" * 100)))
        for first in range(0, number, 1000):
            key = JobKey("mail", str(first // 1000))  # the first has a payload; the others are gone
            self.ended(range(1 + first, 1001 + first), key, at=SCHEDULED + timedelta(seconds=first))
        self.ended(range(8001, 8011), result=Result.SUCCEEDED)
        other = self.open_store()
        id = await self.begin(expect_at_most=number)
        writes, dues = 0, 0
        write = other._actions._write

        def dies(*arguments: Any) -> Any:
            nonlocal writes
            written = write(*arguments)
            writes += 1
            if writes % 2:
                raise ZeroDivisionError
            return written

        with patch.object(other._actions, "_write", dies):
            while (await self.store.action(id)).ended is None:
                dues += len((await self.batch()).dues)
                try:
                    dues += len((await self.batch(other)).dues)
                except ZeroDivisionError:
                    pass
        action = await self.store.action(id)
        counts = action.state, action.matched, action.done, action.failed
        self.assertEqual(counts, (ActionState.DONE, number, number, 0))
        self.assertEqual(dues, number)
        self.assertGreater(writes, 30)
        self.assertEqual(self.replayed(), sorted(str(run_id(each + 1)) for each in range(number)))

    async def test_which_runs(self) -> None:
        """By the filters of the list of runs; those that end since are left."""
        now = await self.store.now()
        self.ended([1, 2], at=now - timedelta(seconds=1))
        self.ended([3], JobKey("mail", "8"))
        self.ended([4], JobKey("mails", "7"), at=now - timedelta(days=1))
        self.ended([5], result=Result.SUCCEEDED)
        self.ended([6], result=None)
        await self.begin(RunFilters(path="mail", results=frozenset({Result.GIVEN_UP})))
        self.ended([7], at=now + timedelta(hours=1))
        action = await self.end()
        self.assertEqual((action.matched, action.done), (3, 3))
        self.assertEqual(self.replayed(), [str(run_id(number)) for number in (1, 2, 3)])

    async def test_what_can_not_be_replayed(self) -> None:
        """Is counted, and says why."""
        self.ended([1, 2])
        self.ended([3, 4], JobKey("mail", "8"), detailed=True)
        await self.begin()
        action = await self.end(limit=3)
        self.assertEqual((action.matched, action.done, action.failed), (4, 2, 2))
        self.assertIn("can't be replayed: its job is gone, and its request had", action.error)
        self.assertEqual(self.replayed(), [str(run_id(1)), str(run_id(2))])

    async def test_a_dry_run_and_more_than_expected(self) -> None:
        self.ended([1, 2, 3])
        await self.begin(dry_run=True)
        action = await self.end()
        self.assertEqual((action.state, action.matched, action.done), (ActionState.DONE, 3, 0))
        await self.begin(expect_at_most=2)
        action = await self.end()
        self.assertEqual((action.state, action.matched), (ActionState.REFUSED, 3))
        self.assertEqual(self.replayed(), [])

    async def test_more_than_expected_while_it_acts(self) -> None:
        self.ended([1, 2])
        await self.begin(expect_at_most=2)
        await self.batch()
        self.ended([3, 4])  # as if an instance had been slow to commit
        action = await self.end()
        self.assertEqual((action.state, action.done), (ActionState.STOPPED, 2))
        self.assertEqual(len(self.replayed()), 2)

    async def test_large_payloads(self) -> None:
        """P10: a batch writes no more of them than so many octets, and one replay at least."""
        payload = Payload(b"x" * 60_000)
        await self.store.put(KEY, replace(EACH_MINUTE, payload=payload))
        self.ended(range(1, 8))
        self.patch(replays, "WRITTEN", 200_000)
        await self.begin()
        await self.batch()
        made = [len((await self.batch()).dues) for _ in range(3)]
        self.assertEqual(made, [3, 3, 1])
        self.assertEqual(len(self.replayed()), 7)
        self.patch(replays, "WRITTEN", 1)
        await self.begin()
        await self.batch()
        self.assertEqual(len((await self.batch()).dues), 1)
