"""
Jobs that are made once for each Idempotency-Key, over each engine: the first request, the same one
again, another one, one that is older than a day; and how keys go.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pymysql
from twisted.internet.defer import Deferred, gatherResults

from dalga.errors import IdempotencyReused, InvalidRequest, StoreUnavailable
from dalga.model.duration import seconds
from dalga.model.idempotency import LIFETIME, Idempotency
from dalga.model.job import Job
from dalga.model.key import JobKey
from dalga.model.plan import ScheduleRequest
from dalga.model.run import Delete
from dalga.store import Made, transactions
from dalga.store.table import JobsTable
from tests.stores import LONG, NOW, EngineTestCase, each_engine

LATER = ScheduleRequest(one_off=True, interval=seconds(3600))
HELLO, GOODBYE = Idempotency.of("k", b"hello"), Idempotency.of("k", b"goodbye")


@each_engine(globals())
class OnceTests(EngineTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()
        self._names = 0

    async def once(
        self,
        idempotency: Idempotency | None = HELLO,
        path: str = "a",
        request: ScheduleRequest = LATER,
        store: JobsTable | None = None,
    ) -> Made:
        self._names += 1
        key = JobKey(path, f"name{self._names}")
        return await (store or self.store).once(key, request, idempotency)

    def bodies(self) -> list[str]:
        """The names of the jobs in the table."""
        rows = self.sql("SELECT body FROM dalga ORDER BY id")
        return [bytes(body).decode() if isinstance(body, bytes) else body for (body,) in rows]

    def keys(self) -> int:
        ((count,),) = self.sql("SELECT COUNT(*) FROM dalga_keys")
        return int(count)

    def age(self, by: timedelta) -> None:
        """As if all keys had been used so long before."""
        made = (self.store.clock.now() - by).replace(tzinfo=None).isoformat(" ", "microseconds")
        self.sql("UPDATE dalga_keys SET made = %s", (made,))

    def check_same(self, again: Made, first: Made) -> None:
        self.assertTrue(first.is_new)
        self.assertFalse(again.is_new)
        self.assertEqual(again.job, first.job)
        self.assertEqual(again.job.version, first.job.version)

    async def test_without_a_key_each_is_a_job(self) -> None:
        for _ in range(2):
            made = await self.once(None)
            self.assertTrue(made.is_new)
            self.assertEqual(await self.job(self.store, made.job.key), made.job)
        self.assertEqual(self.bodies(), ["name1", "name2"])
        self.assertEqual(self.keys(), 0)

    async def test_the_same_again(self) -> None:
        first = await self.once()
        self.assertEqual(await self.job(self.store, first.job.key), first.job)
        for store in (self.store, self.open_store()):
            self.check_same(await self.once(store=store), first)
        self.assertEqual(self.bodies(), ["name1"])
        self.assertEqual(self.keys(), 1)

    async def test_again_when_the_job_is_gone(self) -> None:
        """The answer is the first one's, also when the job has run, or is there no more."""
        first = await self.once(request=NOW)
        run = await self.claim_one(self.store, first.job.key)
        self.check_same(await self.once(request=NOW), first)
        await self.record(self.store, [(run, Delete())])
        self.assertEqual(self.bodies(), [])
        self.check_same(await self.once(request=NOW), first)
        self.assertEqual(self.bodies(), [])

    async def test_again_when_the_job_is_another_by_now(self) -> None:
        first = await self.once()
        key = JobKey(*first.job.key)
        await self.store.disable(key)
        await self.store.put(key, replace(LATER, interval=seconds(60)))
        self.check_same(await self.once(), first)
        await self.store.delete(key)
        self.check_same(await self.once(), first)
        self.assertEqual(self.bodies(), [])

    async def test_the_version_is_the_first_answer_s(self) -> None:
        """Also that of a job that was written over one whose version is ahead of the clock."""
        key = JobKey("a", "name")
        await self.store.put(key, LATER)
        ahead = 2**60
        self.sql("UPDATE dalga SET version = %s", (ahead,))
        first = await self.store.once(key, LATER, HELLO)
        self.assertEqual(first.job.version, ahead + 1)
        self.check_same(await self.once(), first)

    async def test_another_request(self) -> None:
        await self.once()
        with self.assertRaises(IdempotencyReused) as raised:
            await self.once(GOODBYE)
        self.assertIn(
            "the Idempotency-Key 'k' was given with another request", str(raised.exception)
        )
        self.assertEqual(self.bodies(), ["name1"])

    async def test_a_key_is_of_its_path_and_case(self) -> None:
        for path, key in (("a", "k"), ("A", "k"), ("b", "k"), ("a", "K"), ("a", "k ")):
            self.assertTrue((await self.once(Idempotency.of(key, b"x"), path)).is_new, (path, key))
        longest = Idempotency.of("~" * 255, b"x")
        first = await self.once(longest, "ö" * 255)
        self.check_same(await self.once(longest, "ö" * 255), first)

    async def test_at_the_same_time(self) -> None:
        """Whichever instance they come to, one of them makes the job."""
        stores = [self.store, self.open_store()]
        for number in range(5):
            key = Idempotency.of(f"k{number}", b"x")
            asked = [self.once(key, store=stores[each % 2]) for each in range(8)]
            made = await gatherResults([Deferred.fromCoroutine(each) for each in asked])
            self.assertEqual(sum(each.is_new for each in made), 1)
            self.assertEqual(len({each.job.key for each in made}), 1)
            self.assertEqual({each.job.version for each in made}, {made[0].job.version})
            self.assertEqual(len(self.bodies()), number + 1)

    async def test_different_requests_at_the_same_time(self) -> None:
        stores = [self.store, self.open_store()]
        asked = [self.once([HELLO, GOODBYE][each % 2], store=stores[each % 2]) for each in range(8)]
        refused = 0
        for each in [Deferred.fromCoroutine(one) for one in asked]:
            try:
                await each
            except IdempotencyReused:
                refused += 1
        self.assertEqual(refused, 4)
        self.assertEqual(len(self.bodies()), 1)

    async def test_for_a_day(self) -> None:
        first = await self.once()
        self.age(LIFETIME - timedelta(minutes=1))
        self.assertFalse((await self.once()).is_new)
        with self.assertRaises(IdempotencyReused):
            await self.once(GOODBYE)
        self.age(LIFETIME + timedelta(seconds=1))
        second = await self.once(GOODBYE)
        self.assertTrue(second.is_new)
        self.check_same(await self.once(GOODBYE), second)
        self.assertEqual(self.bodies(), [first.job.key.body, second.job.key.body])
        self.assertEqual(self.keys(), 1)

    async def test_after_a_day_at_the_same_time(self) -> None:
        await self.once()
        self.age(LIFETIME + timedelta(seconds=1))
        stores = [self.store, self.open_store()]
        asked = [Deferred.fromCoroutine(self.once(store=stores[each % 2])) for each in range(6)]
        made = await gatherResults(asked)
        self.assertEqual(sum(each.is_new for each in made), 1)
        self.assertEqual(len(self.bodies()), 2)

    async def test_what_is_refused_keeps_no_key(self) -> None:
        never = ScheduleRequest(one_off=True, interval=seconds(400 * 366 * 86400 * 30))
        with self.assertRaises(InvalidRequest):
            await self.once(request=never)
        self.assertEqual((self.bodies(), self.keys()), ([], 0))
        self.assertTrue((await self.once(GOODBYE)).is_new)

    async def test_both_are_written_or_neither(self) -> None:
        """P1: the job is not there without its key."""

        class BreakOff:
            def execute(self, *_: object, **__: object) -> int:
                raise RuntimeError("between the two")

        keys: Any = self.store._jobs._keys
        whole = keys._sql.keep_key
        self.patch(keys._sql, "keep_key", BreakOff())
        with self.assertRaises(RuntimeError):
            await self.once()
        self.assertEqual((self.bodies(), self.keys()), ([], 0))
        keys._sql.keep_key = whole
        self.assertTrue((await self.once()).is_new)

    async def test_a_commit_whose_answer_is_lost(self) -> None:
        """P1: the client can't know, and asks again: there is one job."""
        commit = transactions._Connection.commit

        def lose(connection: Any) -> None:
            commit(connection)
            if self.engine == "sqlite":
                raise sqlite3.OperationalError("disk I/O error")
            raise pymysql.err.OperationalError(2013, "Lost connection to MySQL server")

        self.patch(transactions._Connection, "commit", lose)
        with self.assertRaises(StoreUnavailable):
            await self.once()
        transactions._Connection.commit = commit  # type: ignore[method-assign]
        self.assertEqual(self.bodies(), ["name1"])
        again = await self.once()
        self.assertFalse(again.is_new)
        self.assertEqual(again.job, await self.job(self.store, again.job.key))
        self.assertEqual(self.bodies(), ["name1"])

    async def test_given_up_before_the_commit(self) -> None:
        """P4: what the client was told has failed is not written behind its back."""
        asked = self.store.once(JobKey("a", "x"), LATER, HELLO)
        asked.addErrback(lambda _: None)
        asked.cancel()
        self.assertTrue((await self.once()).is_new)
        self.assertEqual(self.bodies(), ["name1"])

    async def test_old_keys_go(self) -> None:
        for number in range(5):
            await self.once(Idempotency.of(f"old{number}", b"x"))
        self.age(LIFETIME + timedelta(seconds=1))
        for number in range(2):
            await self.once(Idempotency.of(f"new{number}", b"x"))
        self.assertEqual([await self.store.forget_keys(2) for _ in range(3)], [2, 2, 1])
        self.assertEqual(await self.store.forget_keys(2), 0)
        self.assertEqual(self.keys(), 2)
        self.assertEqual(len(self.bodies()), 7)
        self.assertFalse((await self.once(Idempotency.of("new0", b"x"))).is_new)
        self.assertTrue((await self.once(Idempotency.of("old0", b"x"))).is_new)

    async def test_a_claim_takes_it_as_any_job(self) -> None:
        made = await self.once(request=NOW)
        (run,) = (await self.store.claim(9, LONG)).runs
        self.assertEqual(run.key, made.job.key)
        self.assertIsInstance(made.job, Job)
