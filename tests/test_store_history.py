"""The contract of `dalga.store.Store` on the history of runs that is read."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta
from random import Random
from typing import Any
from unittest.mock import patch

from dalga.errors import JobNotFound, RunNotFound
from dalga.model.answers import Statuses
from dalga.model.attempt import Attempt, ErrorKind, attempt_to_json, kind_of_code
from dalga.model.key import JobKey, RawKey
from dalga.model.record import Result, Shelf, path_key
from dalga.model.run import Cause, Retry
from dalga.model.runid import RunId, run_id_from_text
from dalga.model.runlist import (
    ALL_RUNS,
    BEFORE_OPEN,
    MAX_ID,
    ListedRun,
    RunDriver,
    RunFilters,
    RunPage,
    RunPlace,
    RunQuery,
    RunState,
)
from dalga.store import history
from dalga.store.rows import version_at
from dalga.store.runranges import RunRanges
from dalga.store.table import JobsTable
from tests.examples import ended
from tests.lists import some_limits
from tests.records import RecordTestCase, record_row
from tests.stores import EACH_MINUTE, LONG, each_engine

SECOND = timedelta(seconds=1)
PATHS = ("a", "a/b", "ab", "b", "ö", "ö/🐰")
ENDPOINTS = ("default", "billing")
TAGS = ("alpha", "beta")


def sample(random: Random, now: datetime, number: int) -> dict[str, Any]:
    """A row of a run that has ended."""
    result = random.choice([Result.SUCCEEDED, Result.SUCCEEDED, Result.SUCCEEDED, *Result])
    failed = result.shelf is Shelf.FAILED
    return record_row(
        now - random.choice([1, 2, 3, 50]) * SECOND * (number // 5),
        number + 1,
        random.choice(PATHS),
        f"{number % 7}",
        result,
        endpoint=random.choice(ENDPOINTS),
        status=random.choice([None, 500, 503]) if failed else 200,
        kind=random.choice([1, 4, 8]) if failed else 0,
    )


def some(random: Random, now: datetime) -> RunFilters:
    """Filters of all kinds."""
    path = random.choice([*PATHS, "no"])
    kinds: dict[str, Any] = {
        "path": path,
        "prefix": random.choice(["a", "ö", "ab", "x"]),
        "body": str(random.randrange(8)),
        "endpoint": random.choice(ENDPOINTS),
        "tags": frozenset(random.sample(TAGS, random.choice([1, 2]))),
        "results": frozenset(random.sample(list(Result), random.choice([1, 2, 6]))),
        "statuses": Statuses.of(random.sample([(500, 500), (503, 599), (200, 204)], 2)),
        "error_kinds": frozenset({random.choice([ErrorKind.DNS, ErrorKind.STATUS])}),
        "since": now - random.randrange(60) * SECOND,
        "until": now - random.randrange(60) * SECOND,
        "limits": some_limits(random),
    }
    names = random.sample(list(kinds), random.choice([0, 1, 1, 2, 2, 3, 4]))
    chosen = {name: kinds[name] for name in names}
    if "path" in chosen:
        chosen.pop("prefix", None)
    return RunFilters(**chosen)


def fits(row: dict[str, Any], filters: RunFilters, tagged: set[tuple[str, str]]) -> bool:
    """Whether the run of a row is in a list, told one filter after the other."""
    result = list(Result)[row["result"]]
    return (
        (filters.path in (None, row["path"]))
        and (filters.prefix is None or row["path"].startswith(filters.prefix))
        and (filters.body in (None, row["body"]))
        and (filters.endpoint in (None, row["endpoint"]))
        and (not filters.tags or (row["path"], row["body"]) in tagged)
        and (not filters.results or result in filters.results)
        and (filters.statuses is None or (row["status"] or 0) in filters.statuses)
        and (not filters.error_kinds or kind_of_code(row["kind"]) in filters.error_kinds)
        and (filters.since is None or row["at"] >= version_at(filters.since))
        and (filters.until is None or row["at"] < version_at(filters.until))
        and (filters.limits is None or filters.limits.have(row["path"], row["endpoint"]))
    )


def ids(runs: list[ListedRun]) -> list[str]:
    return [run.record.run_id for run in runs]


class HistoryTestCase(RecordTestCase):
    async def walk(self, store: JobsTable, filters: RunFilters, limit: int) -> list[RunPage]:
        """All pages of a list."""
        pages: list[RunPage] = []
        after: RunPlace | None = None
        while not pages or after is not None:
            page = await store.runs(RunQuery(filters, after, limit))
            self.assertLessEqual(len(page.runs), limit)
            if page.partial:
                self.assertLess(len(page.runs), limit)
                self.assertIsNotNone(page.last)
            after = page.last
            pages.append(page)
            self.assertLess(len(pages), 2000)
        return pages

    async def listed(self, store: JobsTable, filters: RunFilters = ALL_RUNS) -> list[ListedRun]:
        return (await store.runs(RunQuery(filters))).runs


@each_engine(globals())
class WalkTests(HistoryTestCase):
    timeout = 60

    async def test_each_list_shows_what_a_look_at_each_record_finds(self) -> None:
        """In the same order: with pages of any size, and bounds that make pages partial."""
        store = self.open_store()
        now = await store.now()
        rows = [sample(self.random, now, number) for number in range(300)]
        self.insert_records(rows)
        tagged: dict[str, set[tuple[str, str]]] = {tag: set() for tag in TAGS}
        for tag in TAGS:
            for path in PATHS[:3]:
                body = str(self.random.randrange(7))
                tagged[tag].add((path, body))
                self.sql(
                    "INSERT INTO dalga_tags (tag, path, body, id) VALUES (%s, %s, %s, 1)",
                    (self.key(tag), self.key(path), self.key(body)),
                )
        rows.sort(key=lambda row: (row["at"], row["failed"], row["job"]), reverse=True)
        found, partial, drivers = 0, 0, set()
        for _ in range(150):
            filters = some(self.random, now)
            drivers.add(filters.driver)
            named = {key for tag in filters.tags for key in tagged[tag]}
            if filters.limits is not None and filters.limits.by_endpoint:
                named = set()  # the jobs are gone, so nobody knows their endpoints
            expected = [
                f"{row['run'].hex()}-{row['job']}" for row in rows if fits(row, filters, named)
            ]
            limit = self.random.choice([1, 2, 7, 50, 400])
            first, scanned = self.random.choice([(1, 5), (3, 20), (100, 2000)])
            with (
                patch.object(history, "FIRST", first),
                patch.object(history, "SLICE", 3 * first),
                patch.object(history, "SCANNED", scanned),
                patch.object(history, "PATIENCE", LONG),
            ):
                pages = await self.walk(store, filters, limit)
            walked = [run_id for page in pages for run_id in ids(page.runs)]
            self.assertEqual(walked, expected, filters)
            found += len(walked)
            partial += any(page.partial for page in pages)
        self.assertEqual(drivers, set(RunDriver))
        self.assertGreater(found, 1000)
        self.assertGreater(partial, 20)

    async def test_runs_of_the_same_moment(self) -> None:
        """As one record writes them, on both shelves."""
        store = self.open_store()
        now = await store.now()
        rows = [
            record_row(now, job, result=result)
            for job in range(1, 8)
            for result in (Result.SUCCEEDED, Result.SKIPPED)
        ]
        self.insert_records(rows)
        for path, limit in ((None, 1), (None, 3), ("mail", 1), ("mail", 4)):
            pages = await self.walk(store, RunFilters(path=path), limit)
            walked = [
                (run.record.result, run.record.run_id.partition("-")[2])
                for page in pages
                for run in page.runs
            ]
            jobs = [str(job) for job in range(7, 0, -1)]
            self.assertEqual(
                walked,
                [(Result.SKIPPED, job) for job in jobs] + [(Result.SUCCEEDED, job) for job in jobs],
            )

    async def test_a_bound_of_rows(self) -> None:
        """P10: a page looks at no more, whichever filters it has."""
        store = self.open_store()
        now = await store.now()
        self.insert_records(
            record_row(now - number * SECOND, number + 1, result=result)
            for number, result in enumerate([Result.SUCCEEDED, Result.GIVEN_UP] * 150)
        )
        for filters, looked_at in [
            (RunFilters(endpoint="no"), 300),
            (RunFilters(path="mail", endpoint="no"), 300),
            (RunFilters(results=frozenset({Result.SKIPPED})), 150),
            (RunFilters(path="mail", results=frozenset({Result.SKIPPED})), 150),
            (RunFilters(path="mail", body="7", results=frozenset({Result.SKIPPED})), 150),
        ]:
            with (
                patch.object(history, "FIRST", 50),
                patch.object(history, "SLICE", 50),
                patch.object(history, "SCANNED", 50),
                patch.object(history, "PATIENCE", LONG),
            ):
                pages = await self.walk(store, filters, 5)
            self.assertEqual([page.runs for page in pages], [[]] * len(pages))
            self.assertEqual(len(pages), looked_at // 50 + 1, filters)

    async def test_slices_grow_up_to_the_bounds(self) -> None:
        """P7: no statement looks at more than a slice, nor at more than is left of the page's."""
        store = self.open_store()
        now = await store.now()
        self.insert_records(record_row(now - number * SECOND, number + 1) for number in range(150))
        sizes: list[int] = []
        rows = RunRanges.rows

        def noting(index: RunRanges, ranges: Any, size: int, limit: int) -> Any:
            sizes.append(size)
            return rows(index, ranges, size, limit)

        with (
            patch.object(history, "FIRST", 10),
            patch.object(history, "SLICE", 50),
            patch.object(history, "SCANNED", 120),
            patch.object(history, "PATIENCE", LONG),
            patch.object(RunRanges, "rows", noting),
        ):
            page = await store.runs(RunQuery(RunFilters(endpoint="no"), BEFORE_OPEN, 5))
        self.assertEqual((page.runs, page.partial), ([], True))
        self.assertEqual([size for size in sizes if size != sizes[0]], [40, 50, 20])

    async def test_a_bound_of_time(self) -> None:
        """P7: a page begins no other slice once its time is over."""
        store = self.open_store()
        now = await store.now()
        self.insert_records(record_row(now - number * SECOND, number + 1) for number in range(30))
        with (
            patch.object(history, "FIRST", 5),
            patch.object(history, "SLICE", 5),
            patch.object(history, "PATIENCE", -1.0),
        ):
            pages = await self.walk(store, RunFilters(endpoint="no"), 1)
        self.assertEqual([page.partial for page in pages], [True] * 6 + [False])

    async def test_another_path_with_the_same_key(self) -> None:
        """The keys of indexes are checksums: two paths may have one."""
        store = self.open_store()
        now = await store.now()
        self.insert_records(
            [record_row(now, 1, "a", "7"), record_row(now, 2, "b", "7", pathkey=path_key("a"))]
        )
        (run,) = await self.listed(store, RunFilters(path="a"))
        self.assertEqual(run.record.path, "a")

    async def test_places_that_somebody_made_up(self) -> None:
        """Cursors are no secrets: whatever place is in one, there is a page, or an empty one."""
        store = self.open_store()
        self.insert_records([record_row(await store.now(), 1)])
        for filters in (RunFilters(), RunFilters(path="mail"), RunFilters(since=await store.now())):
            for shelf in Shelf:
                for at in (0, MAX_ID):
                    for job in (0, MAX_ID):
                        query = RunQuery(filters, RunPlace(shelf, at, job), 5)
                        self.assertLessEqual(len((await store.runs(query)).runs), 5)


@each_engine(globals())
class UnderWayTests(HistoryTestCase):
    """Runs that have not ended."""

    async def test_a_first_attempt(self) -> None:
        store = self.open_store()
        run = await self.due_now(store, JobKey("mail", "7"), endpoint="billing")
        (listed,) = await self.listed(store)
        record = listed.record
        self.assertIs(listed.state, RunState.RUNNING)
        self.assertEqual(
            (record.run_id, record.path, record.body, record.endpoint, record.trigger),
            (run.id, "mail", "7", "billing", Cause.SCHEDULE),
        )
        self.assertEqual((record.scheduled, record.claimed), (run.scheduled, run.claimed))
        self.assertEqual((record.result, record.started, record.attempt_count), (None, None, 1))
        run_id = run_id_from_text(run.id)
        assert run_id is not None
        self.assertEqual(await store.run(run_id), listed)

    async def test_filters(self) -> None:
        store = self.open_store()
        now = await store.now()
        await self.due_now(store, JobKey("mail", "7"), endpoint="billing", tags=("alpha",))
        for filters, is_shown in [
            (RunFilters(path="mail", body="7"), True),
            (RunFilters(path="mail"), True),
            (RunFilters(path="mai"), False),
            (RunFilters(prefix="mai"), True),
            (RunFilters(prefix="x"), False),
            (RunFilters(body="8"), False),
            (RunFilters(endpoint="billing"), True),
            (RunFilters(endpoint="default"), False),
            (RunFilters(tags=frozenset({"alpha", "beta"})), True),
            (RunFilters(tags=frozenset({"beta"})), False),
            (RunFilters(results=frozenset(Result)), False),
            (RunFilters(states=frozenset({RunState.RUNNING})), True),
            (RunFilters(states=frozenset({RunState.RETRYING})), False),
            (RunFilters(statuses=Statuses(((200, 200),))), False),
            (RunFilters(error_kinds=frozenset({ErrorKind.DNS})), False),
            (RunFilters(since=now), True),
            (RunFilters(until=now), False),
        ]:
            self.assertEqual(len(await self.listed(store, filters)), is_shown, filters)

    async def test_a_lease_that_is_over(self) -> None:
        """Nobody knows of such a run whether it goes on."""
        store = self.open_store()
        run = await self.due_now(store, JobKey("mail", "7"))
        self.end_leases()
        self.assertEqual(await self.listed(store), [])
        run_id = run_id_from_text(run.id)
        assert run_id is not None
        await self.assertFailure(store.run(run_id), RunNotFound)

    async def test_a_run_that_is_tried_again(self) -> None:
        store = self.open_store()
        run = await self.due_now(store, JobKey("mail", "7"))
        later = run.claimed + timedelta(minutes=1)
        await store.record([ended(run, Retry(later, "503 Service Unavailable"))])
        self.sql("DELETE FROM dalga_runs")
        attempt = Attempt(1, run.claimed, "web-1", 31, 503, ErrorKind.STATUS)
        self.insert_records(
            [
                record_row(
                    None,
                    run.row,
                    result=None,
                    run=bytes.fromhex(run.id[:32]),
                    scheduled=run.scheduled,
                    more={"attempts": [attempt_to_json(attempt)]},
                    answer={"response_headers": "X-A: 1", "response_body": "no"},
                )
            ]
        )
        (listed,) = await self.listed(store)
        self.assertIs(listed.state, RunState.RETRYING)
        self.assertEqual(listed.next_attempt, later)
        record = listed.record
        self.assertEqual((record.run_id, record.result, record.ended), (run.id, None, None))
        self.assertEqual((record.status, record.error_kind), (503, ErrorKind.STATUS))
        self.assertEqual((record.attempt_count, record.attempts), (1, (attempt,)))
        self.assertEqual(record.response_body, None)
        run_id = run_id_from_text(run.id)
        assert run_id is not None
        self.assertEqual((await store.run(run_id)).record.response_body, "no")
        for filters, is_shown in [
            (RunFilters(path="mail", body="7"), True),
            (RunFilters(path="mail"), True),
            (RunFilters(path="a"), False),
            (RunFilters(statuses=Statuses(((503, 503),))), True),
            (RunFilters(error_kinds=frozenset({ErrorKind.DNS})), False),
            (RunFilters(since=run.claimed), True),
            (RunFilters(until=run.claimed), False),
            (RunFilters(states=frozenset({RunState.RETRYING})), True),
            (RunFilters(states=frozenset({RunState.RUNNING})), False),
            (RunFilters(results=frozenset(Result)), False),
        ]:
            self.assertEqual(len(await self.listed(store, filters)), is_shown, filters)

        # The second attempt is under way.
        self.sql("UPDATE dalga SET due = scheduled")
        await self.claim_one(store, run.key)
        (listed,) = await self.listed(store)
        self.assertEqual((listed.state, listed.next_attempt), (RunState.RUNNING, None))
        self.assertEqual((listed.record.run_id, listed.record.attempt_count), (run.id, 2))
        self.assertEqual((await store.run(run_id)).state, RunState.RUNNING)
        running = RunFilters(states=frozenset({RunState.RUNNING}))
        self.assertEqual(ids(await self.listed(store, running)), [run.id])

        # Another run has taken its place: its row was left behind.
        self.sql("UPDATE dalga SET run = NULL, token = NULL")
        self.assertEqual(await self.listed(store), [])
        await self.assertFailure(store.run(run_id), RunNotFound)

    async def test_pages_of_runs_that_have_not_ended(self) -> None:
        """They come in front, and each of them once."""
        store = self.open_store()
        now = await store.now()
        for number in range(12):
            await store.put(JobKey("mail", str(number)), EACH_MINUTE)
        self.sql(
            "UPDATE dalga SET token = %s, run = %s, started = scheduled, attempts = 1"
            " WHERE body = '0' OR body = '1'",
            (b"t" * 16, b"r" * 16),
        )
        self.sql("UPDATE dalga SET run = %s, attempts = 1 WHERE token IS NULL", (b"q" * 16,))
        rows = self.sql("SELECT id, body, CASE WHEN token IS NULL THEN 0 ELSE 1 END FROM dalga")
        bodies = {
            id: str(body, "ascii") if isinstance(body, bytes) else body for id, body, _ in rows
        }
        self.insert_records(
            record_row(None, id, "mail", bodies[id], None, run=b"q" * 16, scheduled=now)
            for id, _, leased in rows
            if not leased
        )
        self.insert_records([record_row(now - SECOND, 99)])
        for limit in (1, 2, 3, 5, 100):
            pages = await self.walk(store, RunFilters(), limit)
            runs = [run for page in pages for run in page.runs]
            if limit == 1:  # those without a record are on the first page alone
                self.assertEqual(len(runs), 12)
                continue
            self.assertEqual(len({*ids(runs)}), 13)
            self.assertEqual(
                [run.state for run in runs],
                [RunState.RUNNING] * 2 + [RunState.RETRYING] * 10 + [None],
            )
        query = RunQuery(RunFilters(), BEFORE_OPEN, 100)
        self.assertEqual(len((await store.runs(query)).runs), 11)


@each_engine(globals())
class SingleTests(HistoryTestCase):
    async def test_a_run(self) -> None:
        store = self.open_store()
        now = await store.now()
        attempt = Attempt(1, now, "web-1", 31, 503, ErrorKind.STATUS)
        failed = record_row(
            now,
            7,
            result=Result.GIVEN_UP,
            cause=1,
            attempts=2,
            more={"attempts": [attempt_to_json(attempt)], "replay_of": "00-1", "detailed": True},
            answer={"response_headers": "X-A: 1", "response_body": "no"},
        )
        self.insert_records([failed, record_row(now, 8)])
        record = (await store.run(RunId(b"\7" * 16, 7))).record
        self.assertEqual(record.run_id, "07" * 16 + "-7")
        self.assertEqual((record.result, record.trigger), (Result.GIVEN_UP, Cause.MANUAL))
        self.assertEqual((record.attempt_count, record.attempts), (2, (attempt,)))
        self.assertEqual((record.replay_of, record.detailed), ("00-1", True))
        self.assertEqual((record.response_headers, record.response_body), ("X-A: 1", "no"))
        self.assertEqual((record.lateness_ms, record.duration_ms), (4, 31))
        self.assertEqual((record.started, record.instance), (now, "web-1"))
        # Of a run that had one attempt, the columns say all.
        record = (await store.run(RunId(b"\10" * 16, 8))).record
        self.assertEqual(record.attempts, (Attempt(1, now, "web-1", 31, 200, None),))
        self.assertFalse(record.detailed)
        self.insert_records([record_row(now, 9, more={"detailed": True})])
        detailed = (await store.run(RunId(b"\11" * 16, 9))).record
        self.assertEqual((detailed.attempts, detailed.detailed), (record.attempts, True))
        for run_id in (RunId(b"\7" * 16, 8), RunId(b"\0" * 16, 7), RunId(b"\0" * 16, MAX_ID)):
            await self.assertFailure(store.run(run_id), RunNotFound)

    async def test_a_clock_that_was_set_back(self) -> None:
        """A run that began before its time, by the clock of then, was not late."""
        store = self.open_store()
        self.insert_records([record_row(await store.now(), 7, lateness=-3_599_999)])
        record = (await store.run(RunId(b"\7" * 16, 7))).record
        self.assertEqual(record.lateness_ms, 0)

    async def test_a_run_that_was_never_begun(self) -> None:
        store = self.open_store()
        now = await store.now()
        columns: dict[str, Any] = {"started": None, "ended": None, "status": None, "attempts": 0}
        self.insert_records([record_row(now, 7, result=Result.SKIPPED, **columns)])
        record = (await store.run(RunId(b"\7" * 16, 7))).record
        self.assertEqual(
            (record.lateness_ms, record.duration_ms, record.attempts), (None, None, ())
        )

    async def test_a_run_that_was_given_up_and_triggered(self) -> None:
        """A job that has stopped tries the same run again: the newest record is shown."""
        store = self.open_store()
        now = await store.now()
        self.insert_records(
            [record_row(now - SECOND, 7, result=Result.GIVEN_UP), record_row(now, 7)]
        )
        self.assertIs((await store.run(RunId(b"\7" * 16, 7))).record.result, Result.SUCCEEDED)

    async def test_a_run_that_was_given_up_and_is_tried_again(self) -> None:
        store = self.open_store()
        run = await self.due_now(store, JobKey("mail", "7"))
        run_id = run_id_from_text(run.id)
        assert run_id is not None
        await store.record([ended(run, Retry(run.claimed + timedelta(minutes=1), "503"))])
        row = record_row(run.claimed, run.row, result=Result.GIVEN_UP, run=run_id.token)
        self.insert_records([row])
        self.assertIs((await store.run(run_id)).state, RunState.RETRYING)

    async def test_a_run_that_was_given_up_and_is_under_way_again(self) -> None:
        store = self.open_store()
        run = await self.due_now(store, JobKey("mail", "7"))
        run_id = run_id_from_text(run.id)
        assert run_id is not None
        row = record_row(run.claimed, run.row, result=Result.GIVEN_UP, run=run_id.token)
        self.insert_records([row])
        self.assertIs((await store.run(run_id)).state, RunState.RUNNING)
        self.end_leases()
        self.assertIs((await store.run(run_id)).record.result, Result.GIVEN_UP)

    async def test_rows_that_strangers_wrote(self) -> None:
        """P6: what can't be read is left out, and the others are shown."""
        store = self.open_store()
        now = await store.now()
        rows = [record_row(now, job) for job in range(1, 11)]
        rows[8]["more"] = '{"replay_of": 7, "attempts": [7]}'
        rows[9]["more"] = "[" * 50_000
        rows[0]["more"], rows[1]["more"], rows[2]["answer"] = "{", "[7]", "7"
        rows[3]["result"] = 99
        rows[4]["cause"] = 99
        if self.engine == "sqlite":
            rows[5]["scheduled"], rows[6]["run"] = "soon", "x"
        self.insert_records(rows)
        shown = {run.record.run_id.partition("-")[2] for run in await self.listed(store)}
        readable = set() if self.engine == "sqlite" else {"6", "7"}
        self.assertEqual(shown, {"1", "2", "3", "8", "9", "10"} | readable)
        await store.run(RunId(b"\3" * 16, 3))
        record = (await store.run(RunId(b"\11" * 16, 9))).record
        self.assertEqual((record.replay_of, record.attempts), (None, ()))


@each_engine(globals())
class LastRunTests(HistoryTestCase):
    async def test_the_last_run_of_a_job(self) -> None:
        store = self.open_store()
        now = await store.now()
        key = JobKey("mail", "7")
        await store.put(key, EACH_MINUTE)
        self.assertIsNone((await store.show(key)).last_run)
        for result, at in [
            (Result.SUCCEEDED, now - 3 * SECOND),
            (Result.GIVEN_UP, now - 2 * SECOND),
            (Result.SUCCEEDED, now - SECOND),
        ]:
            self.insert_records([record_row(at, 1, result=result), record_row(at, 2, body="8")])
            shown = await store.show(key)
            assert shown.last_run is not None
            self.assertEqual(shown.job, await store.get(key))
            self.assertEqual((shown.last_run.result, shown.last_run.started), (result, at))
        # Of the same moment, the list has the failure in front.
        self.insert_records([record_row(now - SECOND, 3, result=Result.SKIPPED)])
        last = (await store.show(key)).last_run
        assert last is not None
        self.assertEqual(last.result, Result.SKIPPED)
        await self.assertFailure(store.show(JobKey("mail", "9")), JobNotFound)

    async def test_of_several_jobs_at_once(self) -> None:
        """One statement looks for all of a group."""
        store = self.open_store()
        now = await store.now()
        keys = [RawKey("mail", str(number)) for number in range(5)]
        for key in keys:
            await store.put(JobKey(*key), EACH_MINUTE)
        self.insert_records(
            record_row(now - each * SECOND, number, body=key.body)
            for number, key in enumerate(keys[:4], 1)
            for each in range(3)
        )
        with closing(store._dialect.connect()) as connection:
            found = store._history.last_runs(connection.cursor(), keys)
        self.assertEqual(
            {key: record.started for key, record in found.items()}, dict.fromkeys(keys[:4], now)
        )
