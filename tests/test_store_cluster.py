"""The store on a Galera cluster, each instance on a node of its own: who wins, who hears what."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from dalga.config.sections import MySQLConfig
from dalga.errors import JobNotFound, StoreUnavailable
from dalga.model.audit import AuditQuery, subject_text
from dalga.model.duration import seconds
from dalga.model.idempotency import Idempotency
from dalga.model.job import Job
from dalga.model.key import JobKey
from dalga.model.permit import Author
from dalga.model.record import Shelf
from dalga.model.run import Delete, Reschedule, Run
from dalga.store.dialect import Trouble
from dalga.store.table import JobsTable
from tests.examples import ended
from tests.records import RecordTestCase, record_row
from tests.stores import EACH_MINUTE, LONG, NOW, OVER, EngineTestCase, cluster, each_engine

KEY = JobKey("check_feed", "1234")


class ClusterTestCase(EngineTestCase):
    """A test with a store on each of three nodes."""

    timeout = 120

    def make_database(self) -> MySQLConfig:
        self.cluster = cluster()
        name = self.cluster.create_database()
        host = self.cluster.servers[0]
        self.addCleanup(host.drop_database, name)
        return MySQLConfig(host.host, host.port, name, "dalga", host.user, host.password)

    def connect(self, node: int = 0) -> Any:
        """A stranger's connection, which reads what any node has acknowledged."""
        return self.cluster.servers[node].connect(
            database=self.on_server.db, init_command="SET SESSION wsrep_sync_wait = 7"
        )

    def open_stores(self) -> list[JobsTable]:
        self.conflicts: list[Exception] = []
        for node in self.cluster.servers:
            self.config = replace(self.on_server, port=node.port)
            self.count_conflicts(self.open_store())
        return self.stores

    def count_conflicts(self, store: JobsTable) -> None:
        dialect: Any = store._dialect
        trouble = dialect.trouble

        def counted(error: Exception) -> Trouble | None:
            found: Trouble | None = trouble(error)
            if found is Trouble.CONFLICT:
                self.conflicts.append(error)
            return found

        dialect.trouble = counted

    def many_due(self, count: int) -> set[JobKey]:
        """Overdue one-off jobs."""
        with closing(self.connect()) as connection:
            connection.cursor().executemany(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due) VALUES"
                " (%s, 'body', '', '2020-01-01', '2020-01-01', '2020-01-01')",
                [(f"job{number}",) for number in range(count)],
            )
            connection.commit()
        return {JobKey(f"job{number}", "body") for number in range(count)}


def together(*coroutines: Any) -> Deferred[list[Any]]:
    return gatherResults(map(Deferred.fromCoroutine, coroutines), consumeErrors=True)


async def pause(delay: float) -> None:
    await deferLater(reactor, delay)


@each_engine(globals(), only=("mariadb",))
class ClusterPruneTests(ClusterTestCase, RecordTestCase):
    async def test_each_record_is_removed_once(self) -> None:
        """Nodes know nothing of each other's locks: two batches may be of the same rows."""
        stores = self.open_stores()
        now = await stores[0].now()
        hour = timedelta(hours=1)
        self.insert_records(record_row(now - 2 * hour, job) for job in range(1, 601))
        self.insert_records([record_row(now, 601)])
        removed: list[int] = []

        async def work(store: JobsTable) -> None:
            while pruned := (await store.prune(Shelf.FINE, hour, None, 20)).records:
                removed.append(pruned)

        await together(*map(work, stores))
        self.assertEqual(sum(removed), 600)
        self.assertEqual(self.sql("SELECT job FROM dalga_runs"), [(601,)])
        self.assertTrue(self.conflicts, "nobody was in anybody's way: this has tested nothing")


@each_engine(globals(), only=("mariadb",))
class ClusterClaimTests(ClusterTestCase):
    """Claims, records and words through several nodes."""

    async def test_each_run_has_one_winner(self) -> None:
        """
        P2, P3: nodes know nothing of each other's row locks, so claims take the same rows, and all
        but one are undone at COMMIT. No error leaves the store, and each run is claimed once, and
        recorded.
        """
        stores = self.open_stores()
        keys = self.many_due(600)
        claimed: list[JobKey] = []

        async def work(store: JobsTable) -> None:
            while (claim := await store.claim(10, LONG)).full or claim.runs:
                claimed.extend(run.key for run in claim.runs)
                await self.record(store, [(run, Delete()) for run in claim.runs])

        await together(*map(work, stores))
        self.assertEqual(sorted(claimed), sorted(keys))
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(0,)])
        self.assertTrue(self.conflicts, "nobody was in anybody's way: this has tested nothing")

    async def test_one_key_makes_one_job(self) -> None:
        """
        P1: the same request through each node at the same time. A node does not see the row that
        another one has just written, and its COMMIT is undone.
        """
        stores = self.open_stores()
        for number in range(10):
            key = Idempotency.of(f"key{number}", b"request")
            asked = [
                store.once(JobKey("a", f"{number}-{node}-{half}"), EACH_MINUTE, key)
                for node, store in enumerate(stores)
                for half in "ab"
            ]
            made = await gatherResults(asked)
            self.assertEqual(sum(each.is_new for each in made), 1)
            self.assertEqual(len({(each.job.key, each.job.version) for each in made}), 1)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(10,)])
        self.assertTrue(self.conflicts, "nobody was in anybody's way: this has tested nothing")

    async def test_each_change_has_its_entry(self) -> None:
        """
        P13: of users who change a job through different nodes, each change that was acknowledged
        has one entry in the audit list, which names the definition that the change has replaced.
        """
        stores = self.open_stores()
        numbers = iter(range(1, 1000))
        changes = [0]

        async def work(store: JobsTable) -> None:
            for turn in range(12):
                author = Author(f"user{stores.index(store)}")
                request = replace(EACH_MINUTE, interval=seconds(next(numbers)))
                if turn % 3 < 2:
                    await store.put(KEY, request, author=author)
                else:
                    await store.disable(KEY, str(next(numbers)), author=author)
                changes[0] += 1

        await together(*map(work, stores))
        page = await stores[0].audit(AuditQuery(limit=1000))
        entries = [entry for entry in page.entries if entry.old is not None or entry.verb == "put"]
        self.assertEqual((len(entries), len(page.entries)), (changes[0], changes[0]))

        # A second disabling of a job writes the job's details alone. A PUT does not write them, so
        # the cluster finds no conflict between the two, and the PUT's entry may have the reason of
        # the first disabling.
        reasons = dict.fromkeys(("disabled_since", "disabled_reason", "disabled_by"))

        def told(definition: Any) -> str:
            return json.dumps({**definition, **reasons}, sort_keys=True)

        left = subject_text(await self.job(stores[0], KEY), b"")
        last = [told(json.loads(left or ""))]
        olds = [told(entry.old) for entry in entries if entry.old is not None]
        news = [told(entry.new) for entry in entries]
        self.assertEqual(sorted(olds + last), sorted(news))
        self.assertTrue(self.conflicts, "nobody was in anybody's way: this has tested nothing")

    async def test_the_last_word_wins(self) -> None:
        """
        P2, P3, P4: two clients PUT and DELETE jobs, each word through another node, while all nodes
        claim and record: nothing is claimed while it runs, nor after it was deleted, and at the end
        there is what was said last.
        """
        stores = self.open_stores()
        random = Random(7)
        #: What the clients have said of each job, and how often: its seconds, or None for DELETE.
        said: dict[JobKey, int | None] = {}
        words: dict[JobKey, int] = {}
        #: Those whose last word is acknowledged.
        settled: dict[JobKey, int] = {}
        running: set[JobKey] = set()
        problems: list[str] = []
        speaking = 2
        done: list[Run] = []

        async def speak(client: int) -> None:
            nonlocal speaking
            keys = [JobKey(f"client{client}", str(number)) for number in range(15)]
            for turn in range(200):
                key, store = random.choice(keys), stores[(client + turn) % 3]
                words[key] = words.get(key, 0) + 1
                if random.random() < 0.3:
                    said[key] = None
                    await store.delete(key)
                else:
                    said[key] = interval = 60 + turn
                    asked = replace(EACH_MINUTE, interval=seconds(interval), immediate=True)
                    await store.put(key, asked)
                settled[key] = words[key]
            speaking -= 1

        async def work(store: JobsTable) -> None:
            while True:
                last = not speaking
                before = dict(settled)
                claim = await store.claim(10, LONG)
                for run in claim.runs:
                    key = run.key
                    if key in running:
                        problems.append(f"{key} runs twice at a time")
                    if said[key] is None and before.get(key) == words[key]:
                        problems.append(f"{key} runs after it was deleted")
                    running.add(key)
                await pause(0.002)
                running.difference_update(run.key for run in claim.runs)
                later = claim.now + timedelta(hours=1)
                left = [ended(run, Reschedule(later, later)) for run in claim.runs]
                while left:  # at first all, then those that somebody had locked
                    left = (await store.record(left)).postponed
                done.extend(claim.runs)
                if last and not claim.runs:
                    return

        await together(speak(0), speak(1), *map(work, stores))
        self.assertEqual(problems, [])
        self.assertTrue(done)
        for key, interval in said.items():
            for store in stores:
                try:
                    job = await store.get(key)
                    assert isinstance(job, Job)
                    self.assertEqual((job.schedule.text, job.running), (str(interval), False))
                except JobNotFound:
                    self.assertIsNone(interval)
        there = sum(interval is not None for interval in said.values())
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(there,)])
        self.assertTrue(self.conflicts, "nobody was in anybody's way: this has tested nothing")

    async def test_new_jobs_of_one_key(self) -> None:
        """P1: a job that is PUT through all nodes at once is one row, and each is told so."""
        stores = self.open_stores()
        for number in range(10):
            key = JobKey("new", str(number))
            for job in await gatherResults([store.put(key, EACH_MINUTE) for store in stores]):
                self.assertEqual(job.key, key)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(10,)])

    async def test_a_node_that_lags_behind(self) -> None:
        """
        P4: what was acknowledged through one node is known through the others, though they are
        busy writing what came before it: a DELETE deletes, a trigger triggers, a GET shows.
        """
        first, second, _ = self.open_stores()
        others = [JobKey("other", str(number)) for number in range(2)]
        with closing(self.connect()) as stranger:
            cursor = stranger.cursor()
            cursor.execute("CREATE TABLE large (id INT PRIMARY KEY, filling CHAR(200))")
            cursor.execute("INSERT INTO large SELECT seq, 'a' FROM seq_1_to_100000")
            stranger.commit()
            self.cluster.wait_until_applied()
            cursor.execute("UPDATE large SET filling = 'b'")
            stranger.commit()
            await gatherResults([first.put(key, EACH_MINUTE) for key in (KEY, *others)])
            calls: list[Deferred[Any]] = [
                second.delete(KEY),
                second.trigger(others[0]),
                second.get(others[1]),
            ]
            _, triggered, shown = await gatherResults(calls)
        self.assertEqual((triggered.key, shown.key), tuple(others))
        await self.assertFailure(first.get(KEY), JobNotFound)

    async def test_a_node_without_a_majority(self) -> None:
        """P5: a node that is cut off is a database that can't be used now, until it is back."""
        first, second, _ = self.open_stores()
        await first.put(KEY, NOW)
        node = self.cluster.servers[0]
        self.cluster.isolate(node)
        try:
            self.cluster.wait_until_synced(size=2)
            calls: list[Deferred[Any]] = [
                first.put(KEY, NOW),
                first.get(KEY),
                first.delete(KEY),
                first.claim(9, LONG),
                first.due_within(timedelta(seconds=2), 9),
                first.now(),
            ]
            for failing in calls:
                await self.assertFailure(failing, StoreUnavailable)
            run = await self.claim_one(second, KEY)
        finally:
            self.cluster.isolate(node, False)
            self.cluster.wait_until_synced()
        self.assertEqual((await first.claim(9, LONG)).runs, [])
        self.assertEqual(await self.record(second, [(run, Delete())]), [])
        await self.assertFailure(first.get(KEY), JobNotFound)

    async def test_a_node_that_dies(self) -> None:
        """P5: what an instance had claimed goes on through other nodes once its lease is over."""
        first, second, third = self.open_stores()
        keys = self.many_due(20)
        node = self.cluster.servers[0]
        taken = (await first.claim(10, OVER + 1)).runs
        node.kill()
        try:
            await self.assertFailure(first.record([ended(taken[0], Delete())]), StoreUnavailable)
            self.cluster.wait_until_synced()
            others = (await second.claim(20, LONG)).runs + (await third.claim(20, LONG)).runs
            await self.record(second, [(run, Delete()) for run in others])
            await pause(1)
            others += (again := (await third.claim(20, LONG)).runs)
            await self.record(third, [(run, Delete()) for run in again])
        finally:
            self.cluster.rejoin(node)
        self.assertEqual(sorted(run.key for run in others), sorted(keys))
        once_more = {run.key: run.id for run in others}
        self.assertEqual([once_more[run.key] for run in taken], [run.id for run in taken])
        self.assertEqual((await first.claim(10, LONG)).runs, [])
        self.assertEqual((await first.counts()).total, 0)
