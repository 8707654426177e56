"""
The contract of `dalga.store.Store` on callers with limits (P12): what they may not see is as if it
were not there, and what they may not change stays, whoever writes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import Any

from twisted.internet.defer import Deferred

from dalga.errors import (
    DalgaError,
    Forbidden,
    JobNotFound,
    PreconditionFailed,
    ReplayImpossible,
    RunNotFound,
)
from dalga.model.action import ActionRequest, ActionState, Do
from dalga.model.delivery import Payload
from dalga.model.key import JobKey, RawKey
from dalga.model.listing import Filters, Query
from dalga.model.options import IfExists
from dalga.model.patch import patched
from dalga.model.permit import Area, Author, Caller, Limits, Permit, Scope, token_from_text
from dalga.model.plan import ScheduleRequest
from dalga.model.precondition import Precondition
from dalga.model.runlist import RunFilters, RunQuery, RunState
from dalga.store import actions, history, listing
from dalga.store.table import JobsTable
from tests.ended import SCHEDULED, insert_runs, run_id
from tests.records import RecordTestCase
from tests.stores import EACH_MINUTE, LONG, NOW, EngineTestCase, each_engine
from tests.test_store_faults import before

INSIDE, OUTSIDE, UNREADABLE = (JobKey("p", name) for name in ("inside", "outside", "unreadable"))
MISSING = JobKey("p", "missing")
BILLING = replace(EACH_MINUTE, endpoint="billing")
ENDPOINTS = ("default", "billing")
AUTHOR = Author("ci", "192.0.2.1")

Write = Callable[..., Deferred[Any]]


def caller(*grants: str) -> Caller:
    return Caller("ci", token_from_text("ci", f"{' '.join(grants)} sha256:{'0' * 64}").grants)


def permit(*grants: str, scope: Scope = Scope.WRITE) -> Permit:
    found = caller(*grants).permit(scope, "p")
    assert found is not None
    return found


def change(job: Any) -> ScheduleRequest:
    return ScheduleRequest.of(patched(job, {"count": 3}))


def writes(store: JobsTable, author: Author | None = AUTHOR) -> dict[str, Write]:
    """Each write of one job, which takes a key, a precondition and a permit."""

    def put(if_exists: IfExists | None) -> Write:
        request = replace(BILLING, if_exists=if_exists)
        return lambda key, wanted, mine: store.put(key, request, 1.0, wanted, author, mine)

    return {
        "put": put(None),
        "keep": put(IfExists.KEEP),
        "update": put(IfExists.UPDATE),
        "delete": lambda key, wanted, mine: store.delete(key, wanted, author, mine),
        "patch": lambda key, wanted, mine: store.patch(key, change, 1.0, wanted, author, mine),
        "enable": lambda key, wanted, mine: store.enable(key, wanted, author, mine),
        "disable": lambda key, wanted, mine: store.disable(key, None, wanted, author, mine),
        "trigger": lambda key, _, mine: store.trigger(key, author, mine),
    }


#: Those that are done whether or not there is a job.
OF_NAMES = ("put", "keep", "update", "delete")


class WriteTestCase(EngineTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()

    async def fill(self) -> list[Any]:
        await self.store.put(INSIDE, BILLING)
        await self.store.put(OUTSIDE, EACH_MINUTE)
        await self.store.put(UNREADABLE, BILLING)
        self.sql("UPDATE dalga SET options = '{' WHERE body = %s", (self.key("unreadable"),))
        return self.rows()

    def rows(self) -> list[Any]:
        return self.sql("SELECT * FROM dalga ORDER BY path, body")

    async def refusal(self, asked: Deferred[Any]) -> DalgaError | None:
        try:
            await asked
        except DalgaError as error:
            return error
        return None

    def same(self, one: DalgaError | None, other: DalgaError | None, what: object) -> None:
        """Two answers tell nothing from one another, but the names that were asked for."""
        self.assertIs(type(one), type(other), what)
        texts = [str(one), str(other)]
        for name in ("outside", "unreadable", "missing"):
            texts = [text.replace(name, "...") for text in texts]
        self.assertEqual(texts[0], texts[1], what)


@each_engine(globals())
class WriteTests(WriteTestCase):
    async def test_what_is_outside_stays(self) -> None:
        """It is as if it were not there, but for those who ask for its very name."""
        rows = await self.fill()
        mine = permit("write:endpoint=billing")
        preconditions = (
            None,
            Precondition(),
            Precondition(absent=True),
            Precondition(frozenset({1})),
        )
        # A PUT with an author looks at what is there in any case, for the audit list.
        of_each = (writes(self.store, author).items() for author in (None, AUTHOR))
        for name, write in chain.from_iterable(of_each):
            for wanted in preconditions:
                for key in (OUTSIDE, UNREADABLE):
                    error = await self.refusal(write(key, wanted, mine))
                    if name in OF_NAMES:
                        self.assertIsInstance(error, Forbidden, (name, wanted))
                        self.assertIn("taken by something", str(error))
                        self.assertNotIn("default", str(error))
                    else:
                        missing = await self.refusal(write(MISSING, wanted, mine))
                        self.same(error, missing, (name, key, wanted))
                        expected = (JobNotFound, PreconditionFailed)
                        self.assertIsInstance(error, expected, (name, wanted))
                    self.assertEqual(self.rows(), rows, (name, wanted))
        self.assertEqual(self.sql("SELECT * FROM dalga_audit"), [])

    async def test_what_is_seen_is_refused_aloud(self) -> None:
        """Of a job that GET shows, the sentence says what is missing."""
        rows = await self.fill()
        mine = permit("write:endpoint=billing", "read")
        for name, write in writes(self.store).items():
            for wanted in (None, Precondition(frozenset({1}))):
                error = await self.refusal(write(OUTSIDE, wanted, mine))
                self.assertIsInstance(error, Forbidden, name)
                self.assertIn("does not reach the endpoint default there", str(error))
        self.assertEqual(self.rows(), rows)

    async def test_what_is_inside(self) -> None:
        """As it is for a caller without limits."""
        for name, write in writes(self.store).items():
            await self.store.put(INSIDE, BILLING)
            self.assertIsNone(
                await self.refusal(write(INSIDE, None, permit("write:p,endpoint=billing"))), name
            )
        for name in ("put", "keep", "update", "delete"):
            error = await self.refusal(
                writes(self.store)[name](MISSING, None, permit("write:endpoint=billing"))
            )
            self.assertIsNone(error, name)


# SQLite has one writer at a time.
@each_engine(globals(), only=("mariadb", "mysql"))
class InBetweenTests(WriteTestCase):
    """What others write between two statements of a transaction."""

    async def test_moved_between_two_statements(self) -> None:
        """The write is done to the job as it was asked about, or not at all."""
        moved = "UPDATE dalga SET options = '', version = version + 1 WHERE body = 'inside'"
        for name, statement in (
            ("put", "hold"),
            ("update", "amend"),
            ("patch", "amend"),
            ("delete", "hold_version"),
            ("enable", "hold_version"),
            ("disable", "hold_version"),
            ("trigger", "hold_version"),
        ):
            store = self.open_store()
            await store.put(INSIDE, replace(BILLING, count=9))
            hooked = before(self, store, statement, moved)
            error = await self.refusal(
                writes(store)[name](INSIDE, None, permit("write:endpoint=billing"))
            )
            self.assertEqual(hooked, [statement], name)
            expected = Forbidden if name in OF_NAMES else JobNotFound
            self.assertIsInstance(error, expected, name)
            ((options,),) = self.sql("SELECT options FROM dalga WHERE body = 'inside'")
            self.assertEqual(options, "", name)
            await store.close()
            self.stores.remove(store)
            self.sql("DELETE FROM dalga")

    async def test_an_action_whose_job_is_moved(self) -> None:
        """After the batch has found the job, and before the batch has locked it."""
        self.patch(actions, "PAUSE", timedelta(0))
        self.patch(actions, "PATIENCE", 60.0)
        store = self.open_store()
        await store.put(INSIDE, BILLING)
        limits = Limits((Area((), ("billing",)),))
        await store.begin_action(ActionRequest(Do.DELETE, Filters(), all=True, limits=limits))
        await store.act(100, ENDPOINTS, "one")  # counts
        moved = "UPDATE dalga SET options = '' WHERE body = 'inside'"
        hooked = before(self, store, "lock", moved)
        while (await store.act(100, ENDPOINTS, "one")).action is not None:
            pass
        (action,) = await store.actions(1)
        self.assertEqual((hooked, action.matched, action.done), (["lock"], 1, 0))
        self.assertEqual((await store.get(INSIDE)).key, INSIDE)

    async def test_put_where_somebody_puts(self) -> None:
        """A PUT that has found nothing writes over nothing, and shows nothing."""
        names = "schedule, location, options, anchor, scheduled, due, version, extras"
        for name in ("put", "keep", "update"):
            store = self.open_store()
            await store.put(INSIDE, EACH_MINUTE)
            hooked = before(
                self,
                store,
                "add",
                f"INSERT INTO dalga (path, body, {names}) "
                f"SELECT path, 'outside', {names} FROM dalga WHERE body = 'inside'",
            )
            error = await self.refusal(
                writes(store)[name](OUTSIDE, None, permit("write:endpoint=billing"))
            )
            self.assertEqual(hooked, ["add"], name)
            self.assertIsInstance(error, Forbidden, name)
            ((options,),) = self.sql("SELECT options FROM dalga WHERE body = 'outside'")
            self.assertEqual(options, "", name)
            await store.close()
            self.stores.remove(store)
            self.sql("DELETE FROM dalga")


@each_engine(globals())
class ManyTests(RecordTestCase):
    """Replays, and actions."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(actions, "PAUSE", timedelta(0))
        for room in (actions, history, listing):
            self.patch(room, "PATIENCE", 60.0)  # on a busy machine, too, a batch does all it finds
        self.store = self.open_store()

    limits = Limits((Area(("p",), ("billing",)),))

    async def test_replays(self) -> None:
        """Of a run that is outside, and by a job that is outside now."""
        insert_runs(self, [1], INSIDE, endpoint="billing")
        insert_runs(self, [2], OUTSIDE)
        insert_runs(self, [3], JobKey("q", "1"), endpoint="billing")
        insert_runs(self, [4], OUTSIDE, result=None)
        for number in (2, 3, 4, 5):
            with self.assertRaises(RunNotFound) as caught:
                await self.store.replay(run_id(number), ENDPOINTS, None, self.limits)
            self.assertEqual(
                str(caught.exception).replace(str(run_id(number)), ""),
                str(await self.not_found()).replace(str(run_id(99)), ""),
            )
        secret = Payload(b"secret")
        await self.store.put(INSIDE, replace(EACH_MINUTE, payload=secret, endpoint="default"))
        job = await self.store.replay(run_id(1), ENDPOINTS, None, self.limits)
        # As if the job were gone: what it sends now is not for this caller.
        self.assertEqual(job.options.endpoint, "billing")
        assert job.delivery.payload is not None
        self.assertEqual(job.delivery.payload.octets, b"inside")
        insert_runs(self, [6], INSIDE, endpoint="billing", detailed=True)
        with self.assertRaises(ReplayImpossible):
            await self.store.replay(run_id(6), ENDPOINTS, None, self.limits)
        await self.store.put(INSIDE, replace(BILLING, payload=secret))
        job = await self.store.replay(run_id(1), ENDPOINTS, None, self.limits)
        self.assertEqual(job.delivery.payload, secret)

    async def not_found(self) -> RunNotFound:
        with self.assertRaises(RunNotFound) as caught:
            await self.store.replay(run_id(99), ENDPOINTS)
        error = caught.exception
        assert isinstance(error, RunNotFound)
        return error

    async def done(self, request: ActionRequest) -> Any:
        """An action whose batches are made by another instance, which was told nothing."""
        begun = await self.store.begin_action(request)
        other = self.open_store()
        while (batch := await other.act(100, ENDPOINTS, "other")).action is not None:
            self.assertFalse(batch.held_up)
        action = await self.store.action(begun.id)
        self.assertEqual(action.request, request)
        self.assertEqual((action.state, action.instance), (ActionState.DONE, "other"))
        return action

    async def test_actions_on_jobs(self) -> None:
        """The limits are those of the action, whichever instance makes its batches."""
        keys = [JobKey(path, f"{number}") for path in ("p", "q") for number in range(4)]
        for key in keys:
            endpoint = "billing" if int(key.body) % 2 else "default"
            await self.store.put(key, replace(EACH_MINUTE, endpoint=endpoint))
        self.sql("UPDATE dalga SET options = '{' WHERE path = %s AND body = '3'", (self.key("p"),))
        for filters in (Filters(), Filters(path="p"), Filters(endpoint="billing")):
            for do in (Do.DISABLE, Do.ENABLE, Do.TRIGGER):
                before = self.sql("SELECT * FROM dalga ORDER BY path, body")
                action = await self.done(
                    ActionRequest(do, filters, all=filters == Filters(), limits=self.limits)
                )
                self.assertEqual((action.matched, action.done, action.failed), (1, 1, 0))
                after = self.sql("SELECT * FROM dalga ORDER BY path, body")
                changed = [number for number, row in enumerate(before) if row != after[number]]
                self.assertEqual(changed, [1], do)
        for filters in (Filters(path="q"), Filters(endpoint="default"), Filters(prefix="q")):
            action = await self.done(ActionRequest(Do.DELETE, filters, limits=self.limits))
            self.assertEqual((action.matched, action.done), (0, 0))
        await self.done(ActionRequest(Do.DELETE, Filters(), all=True, limits=self.limits))
        left = self.sql("SELECT COUNT(*) FROM dalga")
        self.assertEqual(left[0][0], 7)

    async def test_a_job_that_is_moved_meanwhile(self) -> None:
        """By SQL, so that nothing but the endpoint tells: what is locked is looked at again."""
        await self.store.put(INSIDE, BILLING)
        request = ActionRequest(Do.DELETE, Filters(), all=True, limits=self.limits)
        await self.store.begin_action(request)
        await self.store.act(100, ENDPOINTS, "one")  # counts
        self.sql("UPDATE dalga SET options = ''")
        while (await self.store.act(100, ENDPOINTS, "one")).action is not None:
            pass
        (action,) = await self.store.actions(1)
        self.assertEqual((action.matched, action.done), (1, 0))
        self.assertEqual((await self.store.get(RawKey(*INSIDE))).key, INSIDE)

    async def test_pages_are_full(self) -> None:
        """The index is gone through, and not page by page of what others have."""
        for number in range(60):
            await self.store.put(JobKey("p", f"{number:02}"), EACH_MINUTE)
        await self.store.put(JobKey("p", "99"), BILLING)
        insert_runs(self, range(1, 61), OUTSIDE)
        insert_runs(self, [99], INSIDE, endpoint="billing", at=SCHEDULED - timedelta(hours=1))
        page = await self.store.page(Query(Filters(limits=self.limits), None, 1))
        self.assertEqual(([job.key.body for job in page.jobs], page.last), (["99"], None))
        runs = await self.store.runs(RunQuery(RunFilters(limits=self.limits), limit=1))
        self.assertEqual(([run.record.body for run in runs.runs], runs.last), (["inside"], None))

    async def test_runs_under_way(self) -> None:
        """Those of others take no place on the page."""
        for number in range(5):
            await self.store.put(JobKey("p", f"{number}"), replace(NOW, endpoint="default"))
        await self.store.put(INSIDE, replace(NOW, endpoint="billing"))
        for number in range(5, 9):
            await self.store.put(JobKey("p", f"{number}"), replace(NOW, endpoint="default"))
        await self.store.claim(99, LONG)
        for filters in (
            RunFilters(limits=self.limits),
            RunFilters(limits=self.limits, states=frozenset({RunState.RUNNING})),
            RunFilters(endpoint="billing"),
        ):
            page = await self.store.runs(RunQuery(filters, limit=1))
            self.assertEqual([run.record.body for run in page.runs], ["inside"])
        (of_path,) = (
            await self.store.runs(RunQuery(RunFilters(path="p", limits=self.limits)))
        ).runs
        self.assertEqual(of_path.record.endpoint, "billing")

    async def test_actions_on_runs(self) -> None:
        insert_runs(self, [1, 2], INSIDE, endpoint="billing")
        insert_runs(self, [3], OUTSIDE)
        insert_runs(self, [4], JobKey("q", "1"), endpoint="billing")
        action = await self.done(
            ActionRequest(Do.REPLAY, RunFilters(), all=True, limits=self.limits)
        )
        self.assertEqual((action.matched, action.done, action.failed), (2, 2, 0))
