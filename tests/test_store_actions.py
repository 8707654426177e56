"""
The contract of `dalga.store.Store` on actions on many jobs: what each does, that it does so once to
each, whoever makes its batches, and that nothing that a user writes meanwhile is undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import gatherResults

from dalga.errors import ActionNotFound
from dalga.model.action import Action, ActionRequest, ActionState, Do
from dalga.model.job import Job
from dalga.model.key import JobKey, RawKey
from dalga.model.listing import Filters
from dalga.model.name import generated_name
from dalga.model.options import OnEnd
from dalga.model.run import Finish
from dalga.model.state import State, state_of
from dalga.store import Batch, actions, listing
from dalga.store.table import JobsTable
from tests.stores import EACH_MINUTE, LONG, EngineTestCase, each_engine

ENDPOINTS = ("default",)
ALL = Filters()
LATER = datetime(2100, 1, 1, tzinfo=UTC)
#: What a column of a server takes nobody's SQL for.
SQLITE_TAKES = (("made", "x"), ("due", "1970-13-41 00:00:00.000000"), ("ended", "x"))
#: The same, and the action goes on.
SQLITE_GOES_ON = (
    *(("token", "x" * 16), ("token", None), ("token", 7), ("id", b"x"), ("id", b"\xff")),
    *(("matched", 2**63 - 1), ("matched", "x")),
)


class ActionTestCase(EngineTestCase):
    """Actions whose next batch is due at once."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(actions, "PAUSE", timedelta(0))
        # On a busy machine, too, a batch does all that it finds.
        self.patch(actions, "PATIENCE", 60.0)
        self.patch(listing, "PATIENCE", 60.0)
        self.store = self.open_store()

    async def put(self, *bodies: str, path: str = "p", **asked: Any) -> list[JobKey]:
        """PUT jobs that run each minute unless something else is asked for."""
        keys = [JobKey(path, body) for body in bodies]
        for key in keys:
            await self.store.put(key, replace(EACH_MINUTE, **asked))
        return keys

    async def begin(self, do: Do, filters: Filters = ALL, **more: Any) -> Action:
        return await self.store.begin_action(ActionRequest(do, filters, all=filters == ALL, **more))

    async def batch(self, store: JobsTable | None = None, limit: int = 100) -> Batch:
        return await (store or self.store).act(limit, ENDPOINTS, "here")

    async def end(self, limit: int = 100) -> Action:
        """Make batches until there is none, and give the last action."""
        last = None
        while (batch := await self.batch(limit=limit)).action is not None:
            self.assertFalse(batch.held_up)
            last = batch.action
        assert last is not None
        self.assertEqual(await self.store.action(last.id), last)
        return last

    async def done(self, do: Do, filters: Filters = ALL, **more: Any) -> Action:
        """An action from its beginning to its end."""
        action = await self.begin(do, filters, **more)
        ended = await self.end()
        self.assertEqual(ended.id, action.id)
        return ended

    async def jobs(self, keys: Sequence[RawKey]) -> list[Job]:
        return [await self.job(self.store, key) for key in keys]

    async def bodies(self) -> list[str]:
        """Of the jobs that are there."""
        return [body.decode() if isinstance(body, bytes) else body for (body,) in self.rows("body")]

    def rows(self, columns: str) -> list[Any]:
        return self.sql(f"SELECT {columns} FROM dalga ORDER BY path, body")

    def check(self, action: Action, state: ActionState, *counts: int) -> None:
        """:param counts: matched, done, failed."""
        found = (action.state, action.matched, action.done, action.failed)
        self.assertEqual(found, (state, *counts), action)
        self.assertEqual(action.ended is not None, state not in ("counting", "acting"))

    async def at_once(self) -> None:
        await self.put(*(f"{number:02}" for number in range(20)))
        others = [self.store, *(self.open_store() for _ in range(3))]
        for store in others:
            self.prepare(store)
        await self.begin(Do.TRIGGER)
        dues = 0
        for _ in range(200):
            made = await gatherResults(
                [store.act(3, ENDPOINTS, "x", True) for store in others], consumeErrors=True
            )
            dues += sum(len(batch.dues) for batch in made)
            if not any(batch.action for batch in made):
                break
        (action,) = await self.store.actions(1)
        self.check(action, ActionState.DONE, 20, 20, 0)
        self.assertEqual(dues, 20)

    def prepare(self, store: JobsTable) -> None:
        """Make an instance's store as the test wants it."""


@each_engine(globals())
class DoTests(ActionTestCase):
    """What is done to each."""

    async def test_disable_and_enable(self) -> None:
        """With the reason, which is shown with each job."""
        keys = await self.put("a", "b", "c")
        await self.put("a", path="q")
        filters = Filters(path="p")
        action = await self.done(Do.DISABLE, filters, reason="a sale")
        self.check(action, ActionState.DONE, 3, 3, 0)
        self.assertIsNone(action.error)
        self.assertEqual(action.instance, "here")
        for job in await self.jobs(keys):
            self.assertEqual((job.disabled, job.due), (True, None))
            assert job.notes.disabled is not None
            self.assertEqual(job.notes.disabled.reason, "a sale")
        self.assertFalse((await self.job(self.store, RawKey("q", "a"))).disabled)
        action = await self.done(Do.ENABLE, Filters(states=frozenset({State.DISABLED})))
        self.check(action, ActionState.DONE, 3, 3, 0)
        for job in await self.jobs(keys):
            self.assertEqual(
                (job.disabled, job.notes.disabled, job.due), (False, None, job.scheduled)
            )

    async def test_trigger(self) -> None:
        """All are due now, and the scheduler learns of it."""
        keys = await self.put("a", "b")
        await self.begin(Do.TRIGGER)
        await self.batch()
        batch = await self.batch()
        now = await self.store.now()
        self.assertEqual(len(batch.dues), 2)
        self.assertLessEqual(max(batch.dues), now)
        self.assertEqual([run.key for run in (await self.store.claim(9, LONG)).runs], keys)
        assert batch.action is not None
        self.check(batch.action, ActionState.DONE, 2, 2, 0)

    async def test_what_can_not_be_triggered(self) -> None:
        """Is counted, and says why; the others are triggered. Nothing is written of it."""
        await self.put("a", "e")
        (disabled,) = await self.put("b")
        await self.put("c", until=LATER)
        (done,) = await self.put("d", immediate=True, on_end=OnEnd.KEEP)
        run = await self.claim_one(self.store, done)
        await self.record(self.store, [(run, Finish())])
        await self.store.disable(disabled)
        ended = '{"until":"2026-01-01T00:00:00+00:00"}'
        self.sql("UPDATE dalga SET options = %s WHERE body = %s", (ended, self.key("c")))
        self.in_the_past("odd")
        self.sql("UPDATE dalga SET schedule = 'x', due = NULL WHERE path = %s", (self.key("odd"),))
        before = self.rows("path, body, scheduled, due, disabled, standing")
        action = await self.done(Do.TRIGGER)
        self.check(action, ActionState.DONE, 6, 2, 4)
        assert action.error is not None
        self.assertIn("the job with path 'p' and body 'd' is done", action.error)
        after = self.rows("path, body, scheduled, due, disabled, standing")
        changed = [now[1] for now, then in zip(after, before, strict=True) if now != then]
        self.assertEqual(changed, [self.key("a"), self.key("e")])

    async def test_delete(self) -> None:
        """With what they have in other tables; a running one as soon as its run has ended."""
        await self.put("a", tags=("x",))
        await self.put("b")
        (running,) = await self.put("c", immediate=True)
        await self.put("d", path="q")
        run = await self.claim_one(self.store, running)
        action = await self.done(Do.DELETE, Filters(prefix="p"))
        self.check(action, ActionState.DONE, 3, 3, 0)
        self.assertEqual(await self.bodies(), ["c", "d"])
        self.assertEqual(self.sql("SELECT * FROM dalga_tags"), [])
        lost = await self.record(self.store, [(run, Finish())])
        self.assertEqual(lost, [run])
        self.assertEqual(await self.bodies(), ["d"])

    async def test_a_key_that_is_no_text(self) -> None:
        """P6: such a row is left. The job whose key it seems to have is not taken for it."""
        await self.put("a", "\ufffd")
        blob = "x'70'" if self.engine == "sqlite" else "'p'"
        self.sql(
            "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
            f" SELECT {blob}, x'ff', schedule, anchor, scheduled, due FROM dalga WHERE body = %s",
            (self.key("a"),),
        )
        action = await self.done(Do.DELETE)
        self.check(action, ActionState.DONE, 2, 2, 0)
        self.assertEqual(len(self.rows("id")), 1)

    async def test_filters(self) -> None:
        """Those of the list of jobs."""
        await self.put("a", "b", tags=("x", "y"))
        await self.put("c", tags=("y",))
        await self.put("d", endpoint="billing")
        tagged = await self.done(Do.DISABLE, Filters(tags=frozenset({"x", "y"})))
        self.check(tagged, ActionState.DONE, 3, 3, 0)
        named = await self.done(Do.DISABLE, Filters(endpoint="billing"))
        self.check(named, ActionState.DONE, 1, 1, 0)
        states = [state_of(job, LATER) for job in await self.jobs([JobKey("p", x) for x in "abcd"])]
        self.assertEqual(states, [State.DISABLED] * 4)


@each_engine(globals())
class WalkTests(ActionTestCase):
    """From the beginning to the end, once."""

    async def test_a_dry_run(self) -> None:
        await self.put("a", "b")
        before = self.rows("*")
        action = await self.done(Do.DELETE, dry_run=True, expect_at_most=2)
        self.check(action, ActionState.DONE, 2, 0, 0)
        self.assertEqual(self.rows("*"), before)

    async def test_more_than_expected(self) -> None:
        """Nothing is done, and the sentence says so."""
        await self.put("a", "b", "c")
        before = self.rows("*")
        for dry_run in (False, True):
            action = await self.done(Do.DELETE, expect_at_most=2, dry_run=dry_run)
            self.check(action, ActionState.REFUSED, 3, 0, 0)
            self.assertEqual(
                action.error, "more than 2 match (expect_at_most), so nothing was done"
            )
        self.assertEqual(self.rows("*"), before)
        self.check(await self.done(Do.DELETE, expect_at_most=3), ActionState.DONE, 3, 3, 0)

    async def test_more_than_expected_while_it_acts(self) -> None:
        """No more are acted on than were expected."""
        keys = await self.put("a", "b", "c")
        for key in keys[:2]:
            await self.store.disable(key)
        await self.begin(Do.ENABLE, Filters(states=frozenset({State.DISABLED})), expect_at_most=2)
        await self.batch()
        await self.store.disable(keys[2])
        action = await self.end()
        self.check(action, ActionState.STOPPED, 2, 2, 0)
        self.assertIn("more match by now than 2 (expect_at_most)", action.error or "")
        self.assertEqual([job.disabled for job in await self.jobs(keys)], [False, False, True])

    async def test_batches_of_several_instances(self) -> None:
        """Each makes the next batch: nothing is repeated, and nothing is left out."""
        bodies = [f"{number:02}" for number in range(23)]
        keys = await self.put(*bodies)
        other = self.open_store()
        await self.begin(Do.TRIGGER)
        with patch.object(actions, "COUNTED", 5):
            counted = [await self.batch(store) for store in (self.store, other) * 3]
        self.assertEqual(
            [each.action and each.action.matched for each in counted], [5, 10, 15, 20, 23, 23]
        )
        # The last one has begun to act: as many as are due may be due.
        batches = [counted[-1]]
        while not batches[-1].action or batches[-1].action.ended is None:
            store = (self.store, other)[len(batches) % 2]
            batches.append(await store.act(100 if len(batches) == 1 else 4, ENDPOINTS, "b", True))
        last = batches[-1].action
        assert last is not None
        self.check(last, ActionState.DONE, 23, 23, 0)
        self.assertEqual(sum(len(batch.dues) for batch in batches), 23)
        runs = (await self.store.claim(99, LONG)).runs
        self.assertEqual(sorted(run.key for run in runs), keys)

    async def test_all_at_once(self) -> None:
        """Instances that want to make the same batch make it once."""
        await self.at_once()

    async def test_a_batch_that_does_not_come_to_its_end(self) -> None:
        """P5: as if its daemon had died: the next one does all that it did."""
        keys = await self.put("a", "b", "c")
        await self.begin(Do.DISABLE)
        await self.batch()
        changes = self.store._actions._audited
        disable, calls = changes.disable, []

        def dies(*arguments: Any) -> Any:
            calls.append(disable(*arguments))
            if len(calls) == 2:
                raise ZeroDivisionError
            return calls[-1]

        with patch.object(changes, "disable", dies):
            await self.assertFailure(self.batch_deferred(), ZeroDivisionError)
        self.assertEqual([job.disabled for job in await self.jobs(keys)], [False] * 3)
        self.check(await self.end(), ActionState.DONE, 3, 3, 0)
        self.assertEqual([job.disabled for job in await self.jobs(keys)], [True] * 3)

    def batch_deferred(self) -> Any:
        return self.store.act(100, ENDPOINTS, "here")

    async def test_a_long_batch_ends_early(self) -> None:
        """P7: after its time it begins no other job. The next one goes on there."""
        await self.put("a", "b", "c")
        await self.begin(Do.DISABLE)
        await self.batch()
        self.patch(actions, "PATIENCE", -1.0)
        done = [(await self.batch()).action for _ in range(4)]
        self.assertEqual([each and each.done for each in done], [1, 2, 3, None])

    async def test_many_due_jobs_first(self) -> None:
        """P7: no batch makes more jobs due while as many are. To count goes on."""
        await self.put("a", "b")
        self.in_the_past("x", "y", "z")
        await self.begin(Do.TRIGGER, Filters(path="p"))
        counted = await self.batch(limit=3)
        self.assertFalse(counted.held_up)
        held_up = await self.batch(limit=3)
        self.assertEqual((held_up.held_up, held_up.dues), (True, ()))
        self.assertEqual((await self.batch(limit=4)).held_up, False)
        await self.begin(Do.TRIGGER, Filters(path="p"))
        await self.batch(limit=3)
        self.assertEqual((await self.batch(limit=3)).held_up, True)
        forced = await self.store.act(3, ENDPOINTS, "here", True)
        self.assertEqual(len(forced.dues), 2)

    async def test_stopped(self) -> None:
        keys = await self.put("a", "b", "c")
        action = await self.begin(Do.DISABLE)
        await self.batch()
        await self.batch(limit=2)
        stopped = await self.store.stop_action(action.id)
        self.check(stopped, ActionState.STOPPED, 3, 2, 0)
        self.assertEqual((await self.batch()).action, None)
        self.assertEqual([job.disabled for job in await self.jobs(keys)], [True, True, False])
        self.assertEqual(await self.store.stop_action(action.id), stopped)
        over = await self.done(Do.DISABLE)
        self.assertEqual(await self.store.stop_action(over.id), over)

    async def test_nothing_matches(self) -> None:
        self.check(await self.done(Do.DELETE, Filters(path="x")), ActionState.DONE, 0, 0, 0)
        self.assertEqual((await self.batch()).action, None)

    async def test_several_actions(self) -> None:
        """They take turns."""
        await self.put("a", "b")
        first = await self.begin(Do.DISABLE, reason="first")
        # Their names are in the order of their milliseconds.
        while await self.store.now() < first.made + timedelta(milliseconds=2):
            pass
        second = await self.begin(Do.DELETE, dry_run=True)
        self.patch(actions, "PAUSE", timedelta(milliseconds=1))
        seen: list[str] = []
        while len(seen) < 3:
            batch = await self.batch()
            if batch.action is not None:
                seen.append(batch.action.id)
        self.assertEqual(seen[:2], [first.id, second.id])
        self.assertEqual([each.id for each in await self.store.actions(9)], [second.id, first.id])
        self.assertEqual([each.id for each in await self.store.actions(1)], [second.id])


@each_engine(globals(), only=("mariadb", "mysql"))
class WithoutSkipLockedTests(ActionTestCase):
    """A server that knows no SKIP LOCKED: the token alone tells who has made a batch."""

    def prepare(self, store: JobsTable) -> None:
        store._dialect.skip_locked = ""

    async def test_all_at_once(self) -> None:
        await self.at_once()


@each_engine(globals())
class LaterTests(ActionTestCase):
    """P4: what a user writes while an action goes on is not undone."""

    async def test_a_put(self) -> None:
        keys = await self.put("a", "b", "c")
        await self.begin(Do.DELETE)
        await self.store.put(keys[0], EACH_MINUTE)
        await self.batch()
        await self.store.put(keys[1], EACH_MINUTE)
        await self.put("d")
        action = await self.end()
        # When it was counted, the second one was still as it had been.
        self.check(action, ActionState.DONE, 2, 1, 0)
        self.assertEqual(await self.bodies(), ["a", "b", "d"])

    async def test_between_its_look_and_its_lock(self) -> None:
        """The job is looked at once more when its row is locked."""
        keys = await self.put("a", "b")
        await self.begin(Do.DELETE)
        await self.batch()
        listing = self.store._listing
        walk = listing.walk

        def walks(*arguments: Any) -> Any:
            found = walk(*arguments)
            later = "UPDATE dalga SET version = version + 60000000 WHERE body = 'a'"
            arguments[1].execute(later)
            return found

        with patch.object(listing, "walk", walks):
            await self.batch()
        self.check((await self.store.actions(1))[0], ActionState.DONE, 2, 1, 0)
        self.assertEqual(await self.bodies(), ["a"])
        self.assertEqual(len(keys), 2)

    async def test_a_job_that_matches_no_more(self) -> None:
        """Frozen is what may match: a job that another action has enabled meanwhile is left."""
        keys = await self.put("a", "b")
        for key in keys:
            await self.store.disable(key, "x")
        await self.begin(Do.DELETE, Filters(states=frozenset({State.DISABLED})))
        await self.batch()
        await self.store.enable(keys[0])
        self.check(await self.end(), ActionState.DONE, 2, 1, 0)
        self.assertEqual(await self.bodies(), ["a"])


@each_engine(globals(), only=("mariadb", "mysql"))
class LockTests(ActionTestCase):
    """Servers lock rows."""

    async def test_a_row_that_a_stranger_has_locked(self) -> None:
        """P7: the batch ends before it, waits for nobody, and the next one goes on there."""
        await self.put("a", "b", "c")
        await self.begin(Do.DISABLE)
        await self.batch()
        with closing(self.connect()) as stranger:
            cursor = stranger.cursor()
            cursor.execute("SELECT id FROM dalga WHERE path = 'p' AND body = 'b' FOR UPDATE")
            for _ in range(2):
                batch = await self.batch()
                assert batch.action is not None
                self.check(batch.action, ActionState.ACTING, 3, 1, 0)
            stranger.rollback()
        self.check(await self.end(), ActionState.DONE, 3, 3, 0)

    async def test_an_action_that_somebody_has_locked(self) -> None:
        await self.begin(Do.DISABLE)
        with closing(self.connect()) as stranger:
            stranger.cursor().execute("SELECT id FROM dalga_actions FOR UPDATE")
            self.assertEqual(await self.batch(), Batch())
            stranger.rollback()
        self.check(await self.end(), ActionState.DONE, 0, 0, 0)


@each_engine(globals())
class RowTests(ActionTestCase):
    """The table of actions."""

    async def test_not_found(self) -> None:
        for call in (self.store.action, self.store.stop_action):
            for id in ("x", "", "ğ" * 300):
                await self.assertFailure(call(id), ActionNotFound)

    async def test_what_nobody_can_have_written(self) -> None:
        """P6: it is told, and the next one goes on."""
        for column, value in (
            *(("request", "x"), ("place", "[1]"), ("place", "[1,2,3]"), ("state", "x")),
            *(SQLITE_TAKES if self.engine == "sqlite" else ()),
        ):
            action = await self.begin(Do.DISABLE)
            self.sql(f"UPDATE dalga_actions SET {column} = %s WHERE due IS NOT NULL", (value,))
            shown = await self.store.action(action.id)
            self.assertEqual(shown.id, action.id)
            self.assertEqual((await self.store.actions(1))[0].id, action.id)
            batch = await self.batch()
            assert batch.action is not None
            self.assertEqual(batch.action.state, ActionState.FAILED)
            self.assertTrue(batch.action.error)
            self.assertEqual((await self.batch()).action, None)

    async def test_ids_and_tokens_that_nobody_can_have_written(self) -> None:
        """P6: the action is made all the same, and forgotten; no other waits for it."""
        if self.engine != "sqlite":
            values: tuple[tuple[str, object], ...] = (("token", None), ("id", b"\xff"))
        else:
            values = (*SQLITE_GOES_ON, ("id", "CAST(x'00ff' AS TEXT)"))
        for column, value in values:
            await self.put("a")
            await self.begin(Do.DISABLE)
            is_sql = isinstance(value, str) and value.startswith("CAST")
            place, parameters = (value, ()) if is_sql else ("%s", (value,))
            self.sql(f"UPDATE dalga_actions SET {column} = {place}", parameters)
            batches = [(await self.batch()).action for _ in range(3)]
            states = [each and each.state for each in batches]
            self.assertEqual(states, [ActionState.ACTING, ActionState.DONE, None], (column, value))
            self.sql("DELETE FROM dalga_actions")

    async def test_an_id_that_is_no_text_is_forgotten(self) -> None:
        await self.done(Do.DISABLE)
        no_text = "CAST(x'302fff' AS TEXT)" if self.engine == "sqlite" else "x'302fff'"
        self.sql(f"UPDATE dalga_actions SET id = {no_text}")
        self.assertEqual(await self.store.forget_actions(9), 1)
        self.assertEqual(await self.store.actions(9), [])

    async def test_one_that_breaks(self) -> None:
        """P6: whatever the mistake is, the others go on; and it is tried again."""
        await self.put("a")
        broken = await self.begin(Do.TRIGGER)
        while await self.store.now() < broken.made + timedelta(milliseconds=2):
            pass
        other = await self.begin(Do.DISABLE)
        step = self.store._actions._step

        def breaks(cursor: Any, now: datetime, action: Action, *rest: Any) -> Any:
            if action.id == broken.id:
                raise ZeroDivisionError
            return step(cursor, now, action, *rest)

        with patch.object(self.store._actions, "_step", breaks):
            tries = 0
            while (await self.store.action(other.id)).ended is None:
                try:
                    await self.batch()
                except ZeroDivisionError:
                    tries += 1
        self.assertEqual(tries, 1)
        self.check(await self.store.action(other.id), ActionState.DONE, 1, 1, 0)
        self.check(await self.store.action(broken.id), ActionState.COUNTING, 0, 0, 0)
        last = (await self.batch()).action
        assert last is not None
        self.assertEqual(last.id, broken.id)

    async def test_old_ones_are_forgotten(self) -> None:
        """After 30 days, the oldest first; not those that go on."""
        new = await self.done(Do.DISABLE)
        now = await self.store.now()
        for days, is_over in ((40, True), (31, True), (35, False), (29, True)):
            name = generated_name(now - timedelta(days=days), bytes(10))
            await self.begin(Do.DISABLE)
            self.sql(
                "UPDATE dalga_actions SET id = %s, due = %s WHERE due IS NOT NULL"
                " AND due < '2090-01-01'",
                (self.key(name), None if is_over else "2100-01-01 00:00:00.000000"),
            )
        self.assertEqual(len(await self.store.actions(9)), 5)
        self.assertEqual(await self.store.forget_actions(1), 1)
        self.assertEqual(await self.store.forget_actions(9), 1)
        self.assertEqual(await self.store.forget_actions(9), 0)
        left = [each.id for each in await self.store.actions(9)]
        kept = [generated_name(now - timedelta(days=days), bytes(10)) for days in (29, 35)]
        self.assertEqual(left, [new.id, *kept])
