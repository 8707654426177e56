"""
The contract of `dalga.store.Store` on the audit list: one entry for what was committed by a user
with a name, none for anything else; no secret in it; how it is read, and how entries go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from dalga.errors import JobDisabled, JobNotFound, PreconditionFailed, StoreUnavailable
from dalga.model.action import ActionRequest, Do
from dalga.model.audit import UNREADABLE, AuditFilters, AuditPlace, AuditQuery, Entry, Verb
from dalga.model.delivery import Payload, PayloadKind
from dalga.model.duration import seconds
from dalga.model.idempotency import Idempotency
from dalga.model.job import Job
from dalga.model.key import JobKey
from dalga.model.listing import Filters
from dalga.model.options import IfExists
from dalga.model.patch import patched
from dalga.model.permit import Author
from dalga.model.plan import ScheduleRequest
from dalga.model.precondition import Precondition
from dalga.model.record import job_key
from dalga.model.runlist import RunFilters
from dalga.store import Change, actions, audit, transactions
from dalga.store.dialect import Trouble
from dalga.store.table import JobsTable
from dalga.store.transactions import Conflict
from tests.ended import insert_runs, run_id
from tests.records import RecordTestCase
from tests.stores import EACH_MINUTE, each_engine

KEY = JobKey("mail", "7")
ANN, BOB = Author("ann", "192.0.2.7"), Author("bob", "2001:db8::7")
SECRET = "hunter2"


def each(number: int, **more: Any) -> ScheduleRequest:
    """A request whose definition tells its number."""
    return ScheduleRequest(interval=seconds(number), **more)


def to(**given: Any) -> Change:
    """A PATCH."""
    return lambda job: ScheduleRequest.of(patched(job, given))


def interval(definition: Any) -> int | None:
    return None if definition is None else int(definition["interval"])


class AuditTestCase(RecordTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = self.open_store()

    async def entries(self, **filters: Any) -> list[Entry]:
        """The entries, the oldest first."""
        page = await self.store.audit(AuditQuery(AuditFilters(**filters), limit=1000))
        self.assertEqual((page.last, page.partial), (None, False))
        return page.entries[::-1]

    async def said(self) -> list[tuple[str, str, Any, Any]]:
        """Of each entry: by whom, what, and the intervals before and after."""
        return [
            (entry.by, entry.verb, interval(entry.old), interval(entry.new))
            for entry in await self.entries()
        ]

    def rows(self) -> int:
        ((count,),) = self.sql("SELECT COUNT(*) FROM dalga_audit")
        return int(count)


@each_engine(globals())
class WriteTests(AuditTestCase):
    """What has an entry."""

    async def test_each_change_of_a_job(self) -> None:
        before = self.store.clock.now()
        await self.store.put(KEY, each(1), author=ANN)
        await self.store.put(KEY, each(2), author=BOB)
        await self.store.patch(KEY, to(interval=seconds(3)), author=ANN)
        await self.store.disable(KEY, "holidays", author=BOB)
        await self.store.enable(KEY, author=ANN)
        await self.store.trigger(KEY, author=BOB)
        await self.store.delete(KEY, author=ANN)
        entries = await self.entries()
        self.assertEqual(
            await self.said(),
            [
                ("ann", "put", None, 1),
                ("bob", "put", 1, 2),
                ("ann", "patch", 2, 3),
                ("bob", "disable", 3, 3),
                ("ann", "enable", 3, 3),
                ("bob", "trigger", None, None),
                ("ann", "delete", 3, None),
            ],
        )
        self.assertEqual({entry.key for entry in entries}, {KEY})
        self.assertEqual([entry.address for entry in entries[:2]], ["192.0.2.7", "2001:db8::7"])
        times = [entry.at for entry in entries]
        self.assertEqual(times, sorted(times))
        self.assertLess(abs(times[0] - before), timedelta(seconds=9))
        disabling = entries[3]
        assert disabling.old is not None and disabling.new is not None
        self.assertNotIn("disabled", disabling.old)
        self.assertEqual(
            (disabling.new["disabled"], disabling.new["disabled_reason"]), (True, "holidays")
        )

    async def test_a_job_that_is_made_once(self) -> None:
        """The second request with a key makes no job, and so no entry."""
        again = Idempotency.of("k", b"hello")
        for key, idempotency in (("a", None), ("b", again), ("c", again)):
            await self.store.once(JobKey("mail", key), each(1), idempotency, ANN)
        self.assertEqual(await self.said(), [("ann", "once", None, 1)] * 2)
        self.assertEqual(
            [entry.key and entry.key.body for entry in await self.entries()], ["a", "b"]
        )

    async def test_a_replay(self) -> None:
        insert_runs(self, [1], KEY)
        await self.store.put(KEY, EACH_MINUTE)
        job = await self.store.replay(run_id(1), ["default"], ANN)
        (entry,) = await self.entries()
        self.assertEqual((entry.by, entry.verb, entry.key), ("ann", "replay", job.key))
        assert entry.new is not None
        self.assertEqual(entry.new["replay_of"], str(run_id(1)))

    async def test_without_a_name(self) -> None:
        """No entry, and no statement that has to do with the list."""
        asked: list[str] = []

        class Watched(transactions._Transaction):
            _cursor: Any

            def execute(self, sql: str, *arguments: Any) -> Any:
                asked.append(sql)
                return self._cursor.execute(sql, *arguments)

        for lane in (self.store._api_lane, self.store._run_lane):
            self.patch(lane._pool, "transactionFactory", Watched)
        insert_runs(self, [1], KEY)
        await self.store.put(KEY, each(1))
        await self.store.put(KEY, each(2))
        await self.store.patch(KEY, to(interval=seconds(3)))
        await self.store.disable(KEY)
        await self.store.enable(KEY)
        await self.store.trigger(KEY)
        await self.store.replay(run_id(1), ["default"])
        await self.store.once(JobKey("mail", "8"), each(1), None)
        await self.store.once(JobKey("mail", "9"), each(1), Idempotency.of("k", b""))
        await self.store.delete(KEY)
        await self.store.begin_action(ActionRequest(Do.DELETE, Filters(), all=True))
        await self.store.act(9, ["default"], "here")
        self.assertGreater(len(asked), 30)
        self.assertEqual([sql for sql in asked if "audit" in sql], [])
        self.assertEqual(self.rows(), 0)

    async def test_what_changes_nothing(self) -> None:
        job = await self.store.put(KEY, each(1))
        await self.store.put(KEY, each(2, if_exists=IfExists.KEEP), author=ANN)
        await self.store.put(KEY, each(1, if_exists=IfExists.UPDATE), author=ANN)
        await self.store.patch(KEY, to(interval=seconds(1)), author=ANN)
        await self.store.enable(KEY, author=ANN)
        await self.store.delete(JobKey("mail", "none"), author=ANN)
        await self.store.disable(KEY, "why")
        await self.store.disable(KEY, author=ANN)
        refused: list[tuple[Callable[[], Deferred[Any]], type[Exception]]] = [
            (partial(self.store.trigger, KEY, ANN), JobDisabled),
            (partial(self.store.trigger, JobKey("mail", "none"), ANN), JobNotFound),
            (partial(self.store.enable, JobKey("mail", "none"), author=ANN), JobNotFound),
            (partial(self.store.disable, JobKey("mail", "none"), author=ANN), JobNotFound),
        ]
        wrong = Precondition(frozenset({job.version + 1}))
        changes: list[Callable[..., Deferred[Any]]] = [
            *(self.store.enable, self.store.disable, self.store.delete)
        ]
        for change in changes:
            call = partial(change, KEY, precondition=wrong, author=ANN)
            refused.append((call, PreconditionFailed))
        put = partial(self.store.put, KEY, each(9), precondition=wrong, author=ANN)
        refused.append((put, PreconditionFailed))
        for refuse, error in refused:
            await self.assertFailure(refuse(), error)
        self.assertEqual(await self.entries(), [])

    async def test_during_a_run(self) -> None:
        """A job that was deleted during its run is gone for its user, and for the list."""
        await self.due_now(self.store, KEY)
        await self.store.delete(KEY, author=ANN)
        await self.store.delete(KEY, author=BOB)
        await self.store.put(KEY, each(2), author=BOB)
        self.assertEqual(await self.said(), [("ann", "delete", 60, None), ("bob", "put", None, 2)])

    async def test_a_row_that_cant_be_understood(self) -> None:
        """P6, P12: it has an entry, without what is wrong with it: that may quote a secret."""
        for change in ("put", "delete"):
            await self.store.put(KEY, each(1))
            self.sql("UPDATE dalga SET schedule = %s", (SECRET,))
            if change == "put":
                await self.store.put(KEY, each(2), author=ANN)
            else:
                await self.store.delete(KEY, author=ANN)
            entry = (await self.entries())[-1]
            self.assertEqual(entry.verb, change)
            self.assertEqual(entry.old, {"problem": UNREADABLE})
            self.assertNotIn(SECRET, repr(self.sql("SELECT * FROM dalga_audit")))

    async def test_a_group(self) -> None:
        """P13: PUTs that share a transaction have an entry each, of those that have a name."""
        keys = [JobKey("mail", f"{number:02}") for number in range(30)]
        await gatherResults([self.store.put(key, each(1)) for key in keys[:15]])
        authors = [None if number % 3 == 2 else (ANN, BOB)[number % 3] for number in range(30)]
        puts = zip(keys, authors, strict=True)
        await gatherResults([self.store.put(key, each(2), author=author) for key, author in puts])
        found = {entry.key: entry for entry in await self.entries()}
        self.assertEqual(self.rows(), len(found))
        expected = {
            key: (author.name, 1 if number < 15 else None, 2)
            for number, (key, author) in enumerate(zip(keys, authors, strict=True))
            if author is not None
        }
        self.assertEqual(
            {
                key: (entry.by, interval(entry.old), interval(entry.new))
                for key, entry in found.items()
            },
            expected,
        )

    async def test_what_was_there_is_what_was_replaced(self) -> None:
        """Of writers that meet on one job, each names the definition that its own has replaced."""
        other = self.open_store()
        numbers = iter(range(2, 1000))
        writes: list[Callable[[JobsTable], Deferred[Any]]] = [
            lambda store: store.put(KEY, each(next(numbers)), author=ANN),
            lambda store: store.put(
                KEY, each(next(numbers), if_exists=IfExists.UPDATE), author=ANN
            ),
            lambda store: store.delete(KEY, author=BOB),
            lambda store: store.put(JobKey("mail", "other"), each(next(numbers)), author=BOB),
        ]
        for _ in range(8):
            await gatherResults([write(store) for write in writes for store in (self.store, other)])
        olds, news = [], []
        for entry in await self.entries(path=KEY.path, body=KEY.body):
            if entry.old is not None:
                olds.append(interval(entry.old))
            if entry.new is not None:
                news.append(interval(entry.new))
        there = [job.schedule.text for job in await self.left()]
        self.assertEqual(sorted(map(str, [*olds, *there])), sorted(map(str, news)))
        self.assertGreater(len(olds), 8)

    async def left(self) -> list[Job]:
        try:
            return [await self.job(self.store, KEY)]
        except JobNotFound:
            return []


@each_engine(globals())
class JobTests(AuditTestCase):
    """What a job shows of its entries."""

    async def last(self, key: JobKey = KEY) -> tuple[str, str] | None:
        change = (await self.store.show(key, with_change=True)).last_change
        if change is None:
            return None
        self.assertLess(abs(change.at - self.store.clock.now()), timedelta(seconds=9))
        return change.by, change.verb

    async def test_the_last_change(self) -> None:
        other = JobKey("mail", "8")
        await self.store.put(other, each(1), author=BOB)
        await self.store.put(KEY, each(1))
        self.assertIsNone(await self.last())
        await self.store.put(KEY, each(2), author=ANN)
        self.assertEqual(await self.last(), ("ann", "put"))
        await self.store.trigger(KEY, BOB)
        self.assertEqual(await self.last(), ("bob", "trigger"))
        shown = await gatherResults(
            [
                self.store.show(key, with_change)
                for key in (KEY, other)
                for with_change in (False, True)
            ]
        )
        changes = [each.last_change and each.last_change.by for each in shown]
        self.assertEqual(changes[1::2], ["bob", "bob"])
        self.assertIsNone((await self.store.show(KEY)).last_change)
        # Written since by somebody without a name.
        await self.store.put(KEY, each(3))
        self.assertIsNone(await self.last())

    async def test_a_job_with_the_same_checksum(self) -> None:
        await self.store.put(KEY, each(1), author=ANN)
        self.sql("UPDATE dalga_audit SET body = %s", (self.key("other"),))
        self.assertIsNone(await self.last())

    async def test_who_has_disabled_it(self) -> None:
        """Stands with why: of whoever has said so last."""
        await self.store.put(KEY, each(1))
        for author, reason, by in (
            (None, None, None),
            (ANN, None, None),  # it is disabled already
            (ANN, "sale", "ann"),
            (BOB, None, "ann"),
            (BOB, "moving", "bob"),
            (None, "other", None),
        ):
            await self.store.disable(KEY, reason, author=author)
            noted = (await self.job(self.store, KEY)).notes.disabled
            assert noted is not None
            self.assertEqual(noted.by, by, (author, reason))
        await self.store.enable(KEY)
        disabled = await self.store.disable(KEY, author=ANN)
        assert isinstance(disabled, Job) and disabled.notes.disabled is not None
        self.assertEqual(disabled.notes.disabled.by, "ann")
        self.assertEqual(await self.job(self.store, KEY), disabled)
        # An update leaves it, and gives it to nobody else.
        await self.store.put(KEY, each(2, if_exists=IfExists.UPDATE), author=BOB)
        noted = (await self.job(self.store, KEY)).notes.disabled
        self.assertEqual(noted, disabled.notes.disabled)


@each_engine(globals())
class TransactionTests(AuditTestCase):
    """P1, P13: an entry is committed with its change, or not at all."""

    async def changes(self) -> list[Callable[[], Deferred[Any]]]:
        await self.store.put(KEY, each(1))
        await self.store.put(JobKey("mail", "8"), each(1))
        self.sql("DELETE FROM dalga_keys")
        return [
            lambda: self.store.put(KEY, each(2), author=ANN),
            lambda: self.store.patch(KEY, to(interval=seconds(3)), author=ANN),
            lambda: self.store.once(JobKey("mail", "9"), each(1), Idempotency.of("k", b""), ANN),
            lambda: self.store.disable(KEY, author=ANN),
            lambda: self.store.enable(KEY, author=ANN),
            lambda: self.store.trigger(KEY, ANN),
            lambda: self.store.delete(KEY, author=ANN),
            lambda: self.store.begin_action(ActionRequest(Do.DELETE, Filters(), all=True), ANN),
        ]

    async def test_a_transaction_that_is_run_again(self) -> None:
        """Its change has one entry."""
        write, again = audit.AuditRows.write, [True]

        def conflict(rows: Any, cursor: Any, now: datetime, changes: Any) -> None:
            write(rows, cursor, now, changes)
            if changes and again.pop():
                raise Conflict("first time")

        self.patch(audit.AuditRows, "write", conflict)
        for number, change in enumerate(await self.changes(), 1):
            again[:] = [False, True]
            await change()
            self.assertEqual(again, [])
            self.assertEqual(self.rows(), number)

    async def test_a_failure(self) -> None:
        """Without its entry no change is committed."""

        def fail(rows: Any, cursor: Any, now: datetime, changes: Any) -> None:
            if changes:
                raise ZeroDivisionError

        self.patch(audit.AuditRows, "write", fail)
        changes = await self.changes()
        await self.store.disable(JobKey("mail", "8"))
        before = self.tables()
        for change in changes:
            if change is not changes[4]:  # the job is enabled
                await self.assertFailure(change(), ZeroDivisionError)
        self.assertEqual(self.tables(), before)

    async def test_an_outcome_that_is_not_known(self) -> None:
        """P1: where the answer to a COMMIT is lost, there are both or neither, and none twice."""
        lost = ConnectionResetError("lost")
        trouble = self.store._dialect.trouble
        vars(self.store._dialect)["trouble"] = lambda error: (
            Trouble.LOST if error is lost else trouble(error)
        )
        commit = transactions._Connection.commit
        for is_done in (True, False):
            for change in await self.changes():
                await self.forget()
                before = self.tables()

                def loses(connection: Any, is_done: bool = is_done) -> None:
                    if is_done:
                        commit(connection)
                    raise lost

                patched = self.patch(transactions._Connection, "commit", loses)
                error = await self.assertFailure(change(), StoreUnavailable)
                self.assertIn("can't be used now", str(error))
                patched.restore()
                self.assertEqual(self.tables() != before, is_done)
                self.assertEqual(self.rows(), int(is_done))
                if not is_done:
                    await change()
                    self.assertEqual(self.rows(), 1)

    async def forget(self) -> None:
        await self.store.forget_entries(timedelta(0) - timedelta(days=1), 99)

    def tables(self) -> list[Any]:
        """What a change may change."""
        return [
            self.sql("SELECT path, body, schedule, disabled, scheduled FROM dalga ORDER BY id"),
            self.sql("SELECT COUNT(*) FROM dalga_keys"),
            self.sql("SELECT COUNT(*) FROM dalga_actions"),
        ]


@each_engine(globals())
class SecretTests(AuditTestCase):
    """P12: payloads and headers' values are in no entry."""

    def request(self, payload: str, header: str, **more: Any) -> ScheduleRequest:
        return replace(
            EACH_MINUTE,
            payload=Payload(payload.encode(), PayloadKind.TEXT),
            headers=(("Authorization", header), ("X-Other", "o")),
            **more,
        )

    async def test_no_secret(self) -> None:
        """Not of the old definition, and not of the new one; redacted or not."""
        for redact in ((), ("payload", "authorization")):
            more = {"redact": redact} if redact else {}
            await self.store.put(KEY, self.request(SECRET, f"Bearer {SECRET}", **more), author=ANN)
            await self.store.put(KEY, self.request(SECRET, f"Bearer {SECRET}", **more), author=ANN)
            octets = Payload(SECRET.encode(), PayloadKind.BASE64)
            await self.store.put(KEY, replace(EACH_MINUTE, payload_base64=octets), author=ANN)
            await self.store.delete(KEY, author=ANN)
        text = repr(self.sql("SELECT * FROM dalga_audit"))
        self.assertIn("Authorization", text)
        for secret in (SECRET, "aHVudGVyMg", "Bearer", SECRET.encode().hex()):
            self.assertNotIn(secret.lower(), text.lower())

    async def test_what_was_changed_is_told(self) -> None:
        """Within an entry equal digests are equal values; between two entries they tell nothing."""
        await self.store.put(KEY, self.request("a", "x"), author=ANN)
        await self.store.put(KEY, self.request("a", "y"), author=ANN)
        first, second = await self.entries()
        assert first.new and second.old and second.new
        self.assertEqual(second.old["payload"], second.new["payload"])
        self.assertEqual(second.old["headers"]["X-Other"], second.new["headers"]["X-Other"])
        self.assertNotEqual(
            second.old["headers"]["Authorization"], second.new["headers"]["Authorization"]
        )
        self.assertEqual(second.new["payload"]["octets"], 1)
        self.assertNotEqual(first.new["payload"]["digest"], second.old["payload"]["digest"])


@each_engine(globals())
class ActionTests(AuditTestCase):
    """Actions on many."""

    async def end(self) -> None:
        self.patch(actions, "PAUSE", timedelta(0))
        self.patch(actions, "PATIENCE", 60.0)
        while (await self.store.act(9, ["default"], "here")).action is not None:
            pass

    async def test_each_job(self) -> None:
        """What was asked for has an entry, and so has what became of each job."""
        keys = [JobKey("mail", body) for body in "abc"]
        for key in keys:
            await self.store.put(key, each(1))
        for do in (Do.DISABLE, Do.ENABLE, Do.TRIGGER, Do.DELETE):
            request = ActionRequest(do, Filters(prefix="ma"))
            action = await self.store.begin_action(request, ANN)
            self.assertEqual((await self.store.action(action.id)).author, ANN)
            await self.end()
            begun, *others = await self.entries()
            self.assertEqual(
                (begun.verb, begun.action, begun.new),
                ("action", action.id, {"do": str(do), "filter": {"prefix": "ma"}}),
            )
            self.assertEqual(sorted(each.key or () for each in others), keys)
            self.assertEqual(
                {(each.by, each.address, each.verb, each.action) for each in others},
                {(*ANN, str(do), action.id)},
            )
            await self.store.forget_entries(-timedelta(days=1), 99)

    async def test_replays(self) -> None:
        insert_runs(self, [1, 2], KEY)
        await self.store.put(KEY, each(1))
        action = await self.store.begin_action(
            ActionRequest(Do.REPLAY, RunFilters(), all=True), ANN
        )
        await self.end()
        _, *others = await self.entries()
        self.assertEqual([(each.verb, each.action) for each in others], [("replay", action.id)] * 2)

    async def test_a_stop(self) -> None:
        """The second one stops nothing."""
        action = await self.store.begin_action(ActionRequest(Do.DELETE, Filters(), all=True))
        for _ in range(2):
            await self.store.stop_action(action.id, BOB)
        (entry,) = await self.entries()
        self.assertEqual((entry.by, entry.verb, entry.action), ("bob", "stop", action.id))


@each_engine(globals())
class ListTests(AuditTestCase):
    """The list, and how old entries go."""

    def insert(self, count: int, **more: Any) -> None:
        """Insert entries of one microsecond each, the newest last."""
        for number in range(1, count + 1):
            row = {
                "at": number,
                "nonce": 5,
                "author": self.key("ann"),
                "address": self.key("192.0.2.7"),
                "verb": self.key("put"),
                "path": self.key("mail"),
                "body": self.key(str(number % 3)),
                "jobkey": job_key("mail", str(number % 3)),
                **more,
            }
            places = ", ".join(["%s"] * len(row))
            names = ", ".join(row)
            self.sql(f"INSERT INTO dalga_audit ({names}) VALUES ({places})", list(row.values()))

    async def walk(self, limit: int, **filters: Any) -> list[list[int]]:
        """The times (microseconds) of the pages of a list."""
        after: AuditPlace | None = None
        pages = []
        while True:
            page = await self.store.audit(AuditQuery(AuditFilters(**filters), after, limit))
            epoch = datetime(1970, 1, 1, tzinfo=UTC)
            pages.append([(each.at - epoch) // timedelta(microseconds=1) for each in page.entries])
            self.assertLessEqual(len(page.entries), limit)
            after = page.last
            if after is None:
                return pages

    async def test_pages(self) -> None:
        """The newest first, and each once, whichever filters there are."""
        self.insert(10)
        self.insert(2, nonce=6, author=self.key("bob"), verb=self.key("delete"))
        self.assertEqual(await self.walk(4), [[10, 9, 8, 7], [6, 5, 4, 3], [2, 2, 1, 1]])
        at = partial(datetime, 1970, 1, 1, tzinfo=UTC)
        for filters, expected in (
            ({"by": "bob"}, [2, 1]),
            ({"verb": Verb.DELETE}, [2, 1]),
            ({"body": "0"}, [9, 6, 3]),
            ({"path": "mail", "body": "0"}, [9, 6, 3]),
            ({"path": "other"}, []),
            ({"path": "mail", "body": "1", "by": "bob"}, [1]),
            ({"since": at(microsecond=9)}, [10, 9]),
            ({"until": at(microsecond=2)}, [1, 1]),
            ({"path": "mail", "body": "1", "since": at(microsecond=4)}, [10, 7, 4]),
        ):
            for limit in (1, 2, 100):
                pages = await self.walk(limit, **filters)
                self.assertEqual([each for page in pages for each in page], expected, filters)

    async def test_bounded(self) -> None:
        """P10: a page looks at a bounded number of entries, and says that it has ended early."""
        self.patch(audit, "SCANNED", 4)
        self.patch(audit, "FIRST", 2)
        self.patch(audit, "SLICE", 2)
        self.insert(10)
        self.sql("UPDATE dalga_audit SET author = %s WHERE at = 1", (self.key("bob"),))
        page = await self.store.audit(AuditQuery(AuditFilters(by="bob"), limit=1))
        self.assertEqual((page.entries, page.partial), ([], True))
        self.assertEqual(await self.walk(1, by="bob"), [[], [], [1]])

    async def test_a_job_with_the_same_checksum(self) -> None:
        self.insert(3, jobkey=job_key(*KEY), path=self.key("other"))
        self.assertEqual(await self.entries(path=KEY.path, body=KEY.body), [])

    async def test_rows_of_strangers(self) -> None:
        """P6: what can't be read is left out, and all others are shown."""
        self.insert(2)
        self.sql("UPDATE dalga_audit SET old = '{', new = '[7]' WHERE at = 1")
        self.insert(1, at=2**63 - 1)
        if self.engine == "sqlite":
            self.insert(1, at="x")
            self.sql("UPDATE dalga_audit SET author = X'ff', path = 7 WHERE at = 2")
        found = await self.entries()
        self.assertEqual([each.old for each in found], [None, None])

    async def test_by_which_index(self) -> None:
        """P10: no list sorts what it finds."""
        if self.engine == "sqlite":
            return
        self.insert(9)
        list_ = self.store._audit
        values = {"at": 9, "nonce": 9, "since": 0, "limit": 3}
        for select, more, index in (
            (list_._newest, {}, "PRIMARY"),
            (list_._of_job, {"jobkey": 7}, "auditjob"),
        ):
            self.assertEqual(self.index(*select.statement.bound((), {**values, **more})), index)

    async def test_old_ones(self) -> None:
        """They go, the oldest first, a few at a time."""
        self.insert(5)
        await self.store.put(KEY, EACH_MINUTE, author=ANN)
        keep = timedelta(days=90)
        self.assertEqual([await self.store.forget_entries(keep, 3) for _ in range(3)], [3, 2, 0])
        self.assertEqual([each.by for each in await self.entries()], ["ann"])
        await self.store.forget_entries(timedelta(0), 3)
        self.assertEqual(self.rows(), 0)
