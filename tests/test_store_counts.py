"""The contract of `dalga.store.Store` on what is counted: rows, instances, and the time."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from dalga.model.instance import UNKNOWN, About
from dalga.model.key import JobKey, RawKey
from dalga.model.run import Delete, Retry, Run, Stop, Verdict
from dalga.store.schema import ALIVE
from tests.stores import EACH_MINUTE, LONG, NOW, EngineTestCase, each_engine

KEY = JobKey("check_feed", "1234")
MINUTE = timedelta(minutes=1)
SOON = timedelta(seconds=5)


@each_engine(globals())
class CountTests(EngineTestCase):
    """How many there are of each kind."""

    async def test_an_empty_table(self) -> None:
        """Nothing, and no lag."""
        store = self.open_store()
        counts = await store.counts()
        self.assertEqual(
            (counts.total, counts.pending, counts.running, counts.set_aside), (0, 0, 0, 0)
        )
        self.assertEqual((counts.instances, counts.lag), (0, timedelta(0)))

    async def test_each_kind(self) -> None:
        """
        Who waits for his time or his next attempt is not pending, nor set aside; nor is who is
        disabled or has stopped, though his time has come.
        """
        store = self.open_store()
        kinds = self.in_the_past("retry", "stopped", "disabled", "both", "runs", "bad", "due")
        retry, stopped, disabled, both, runs, bad, _ = kinds
        await store.put(KEY, EACH_MINUTE)
        self.sql("UPDATE dalga SET schedule = 'often' WHERE path = %s", (self.key(bad.path),))
        await store.disable(disabled)
        claimed: dict[RawKey, Run] = {run.key: run for run in (await store.claim(5, LONG)).runs}
        self.assertEqual(set(claimed), {retry, stopped, both, runs})
        verdicts: list[tuple[Run, Verdict]] = [
            (claimed[retry], Retry(claimed[retry].claimed + MINUTE, "500")),
            (claimed[stopped], Stop("500")),
            (claimed[both], Stop("500")),
        ]
        await self.record(store, verdicts)
        await store.disable(both)
        counts = await store.counts()
        self.assertEqual(
            (counts.total, counts.pending, counts.running, counts.set_aside), (8, 1, 1, 1)
        )

    async def test_in_pieces(self) -> None:
        """Each row is counted once; who is there, and the lag, are those of all in each piece."""
        store = self.open_store()
        names = [f"job{number}" for number in range(7)]
        self.in_the_past(*names)
        self.sql("DELETE FROM dalga WHERE path = %s", (self.key("job3"),))
        await store.disable(JobKey("job1", "body"))
        await store.claim(1, LONG)
        await store.announce("one")
        found, after = [], 0
        while True:
            counts = await store.counts(after, 2)
            found.append((counts.total, counts.pending, counts.running))
            self.assertEqual(counts.instances, 1)
            self.assertGreater(counts.lag, MINUTE)
            if counts.last is None:
                break
            after = counts.last
        self.assertEqual(found, [(2, 0, 1), (2, 2, 0), (2, 2, 0), (0, 0, 0)])
        counts = await store.counts(0, 0)
        self.assertEqual((counts.total, counts.last, counts.instances), (0, 0, 1))
        self.assertGreater(counts.lag, MINUTE)

    async def test_lag(self) -> None:
        """The lag is that of the oldest that waits to be taken, by the database's clock."""
        store = self.open_store()
        (key,) = self.in_the_past("a")
        since = datetime.now(UTC) - datetime(2020, 1, 1, tzinfo=UTC)
        self.assertLess(abs((await store.counts()).lag - since), SOON)
        await store.put(KEY, NOW)
        await store.disable(key)
        self.assertLess((await store.counts()).lag, SOON)
        await store.enable(key)
        self.assertGreater((await store.counts()).lag, MINUTE)
        await store.claim(9, LONG)
        self.assertEqual((await store.counts()).lag, timedelta(0))

    async def test_deleted_during_its_run(self) -> None:
        """A job deleted during its run is a row, and runs, until that run's end."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await store.delete(KEY)
        counts = await store.counts()
        self.assertEqual((counts.total, counts.running, counts.pending), (1, 1, 0))
        await self.record(store, [(run, Delete())])
        counts = await store.counts()
        self.assertEqual((counts.total, counts.running), (0, 0))

    async def test_disabled_during_its_run(self) -> None:
        """One that was disabled during its run runs until then."""
        store = self.open_store()
        run = await self.due_now(store, KEY)
        await store.disable(KEY)
        self.assertEqual((await store.counts()).running, 1)
        await self.record(store, [(run, Retry(run.claimed, "500"))])
        counts = await store.counts()
        self.assertEqual((counts.running, counts.pending, counts.set_aside), (0, 0, 0))

    async def test_a_lease_that_is_over(self) -> None:
        """Whose lease is over does not run; it waits to be taken."""
        store = self.open_store()
        await self.due_now(store, KEY)
        self.end_leases()
        counts = await store.counts()
        self.assertEqual((counts.running, counts.pending), (0, 1))

    async def test_a_lease_that_is_too_long(self) -> None:
        """P8: what a clock that was wrong, or a stranger, has leased for years does not run."""
        store = self.open_store()
        self.in_the_past("a")
        await store.claim(9, LONG)
        self.assertEqual((await store.counts()).running, 1)
        self.sql("UPDATE dalga SET due = '2999-01-01 00:00:00.000000'")
        self.assertEqual((await store.counts()).running, 0)

    async def test_now(self) -> None:
        """The database's time."""
        store = self.open_store()
        before = await store.now()
        self.assertEqual(before.tzinfo, UTC)
        self.assertLess(abs(before - datetime.now(UTC)), SOON)
        self.assertGreater(await store.now(), before)


@each_engine(globals())
class InstanceTests(EngineTestCase):
    """Who is there."""

    async def instances(self) -> int:
        return (await self.stores[0].counts()).instances

    async def test_each_once(self) -> None:
        """An instance counts once, however often it is heard of; ids are exact."""
        store, other = self.open_store(), self.open_store()
        for name in ("one", "One", "one ", "öne", "one", "One"):
            await store.announce(name)
        await other.announce("one")
        self.assertEqual(await self.instances(), 4)

    async def test_others(self) -> None:
        """A heartbeat says how many others were heard of lately, and have not departed."""
        store, other = self.open_store(), self.open_store()
        self.assertEqual(await store.announce("one"), 0)
        self.assertEqual(await store.announce("one"), 0)
        self.assertEqual(await other.announce("One"), 1)
        self.assertEqual(await store.announce("three"), 2)
        self.not_heard_of("three", ALIVE)
        self.assertEqual(await store.announce("one"), 1)
        await other.depart("One")
        self.assertEqual(await store.announce("one"), 0)

    async def test_departs(self) -> None:
        """One that departs counts no more, and no other goes with it."""
        store = self.open_store()
        await store.announce("one")
        await store.announce("One")
        await store.depart("one")
        self.assertEqual(await self.instances(), 1)
        await store.depart("one")
        await store.depart("nobody")
        self.assertEqual(await self.instances(), 1)
        await store.depart("One")
        self.assertEqual(await self.instances(), 0)

    async def test_not_heard_of(self) -> None:
        """One that was not heard of for long does not count, until it is heard of again."""
        store = self.open_store()
        await store.announce("one")
        await store.announce("two")
        self.not_heard_of("one", ALIVE)
        self.assertEqual(await self.instances(), 1)
        await store.announce("one")
        self.assertEqual(await self.instances(), 2)
        self.not_heard_of("one", ALIVE - SOON)
        self.assertEqual(await self.instances(), 2)

    async def test_forgotten(self) -> None:
        """Who is there forgets who is gone, so that the list does not grow (P10)."""
        store = self.open_store()
        for number in range(5):
            await store.announce(f"gone{number}")
            self.not_heard_of(f"gone{number}", ALIVE)
        await store.announce("here")
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga_alive_6"), [(1,)])

    async def test_the_list(self) -> None:
        """Who is there, what each says of itself, and when it was heard of last."""
        store, other = self.open_store(), self.open_store()
        self.assertEqual(await store.instances(9), [])
        began = (await store.now()) - MINUTE
        about = About("1.2.0", 100, 12, -0.0007, 0.0021)
        await store.announce("two", began, about._replace(running=0))
        await other.announce("öne 🙂", began, about)
        await other.announce("gone", began, about)
        await store.announce("two", began + MINUTE, about)  # since when stays
        await store.announce("silent")
        self.not_heard_of("gone", ALIVE)
        self.not_heard_of("silent", SOON)
        silent, two, one = await store.instances(9)
        self.assertEqual((one.name, one.since, one.about), ("öne 🙂", began, about))
        self.assertEqual((two.name, two.since, two.about), ("two", began, about))
        self.assertEqual((silent.name, silent.since, silent.about), ("silent", None, UNKNOWN))
        self.assertTrue(5 <= silent.age < 25, silent.age)
        self.assertTrue(0 <= one.age < 20, one.age)
        self.assertEqual([each.name for each in await store.instances(2)], ["silent", "two"])

    async def test_a_crowd(self) -> None:
        """Many that come, go and forget at once are in nobody's way."""
        stores = [self.open_store(), self.open_store()]
        for number in range(10):
            await stores[0].announce(f"gone{number}")
            self.not_heard_of(f"gone{number}", ALIVE)
        for _ in range(5):
            calls: list[Deferred[Any]] = [stores[n % 2].announce(f"here{n}") for n in range(20)]
            calls += [stores[n % 2].depart(f"there{n}") for n in range(20)]
            await gatherResults(calls, consumeErrors=True)
        self.assertEqual(await self.instances(), 20)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga_alive_6"), [(20,)])

    def not_heard_of(self, name: str, since: timedelta) -> None:
        """As if the time had gone by."""
        seen = (datetime.now(UTC) - since).replace(tzinfo=None)
        text = seen.isoformat(sep=" ", timespec="microseconds")
        self.sql("UPDATE dalga_alive_6 SET seen = %s WHERE id = %s", (text, self.key(name)))


@each_engine(globals(), only=("mariadb", "mysql"))
class LockedInstanceTests(EngineTestCase):
    """A heartbeat of which somebody has locked the row."""

    async def test_nobody_waits_for_another(self) -> None:
        """An instance that sends a heartbeat touches no other's row."""
        store = self.open_store()
        await store.announce("one")
        await store.announce("two")
        with closing(self.connect()) as stranger:
            stranger.cursor().execute("SELECT * FROM dalga_alive_6 WHERE id = 'one' FOR UPDATE")
            await store.announce("two")
            await store.announce("three")
            stranger.rollback()
        self.assertEqual((await store.counts()).instances, 3)
