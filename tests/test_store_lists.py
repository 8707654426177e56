"""Lists of jobs by filters: each walk shows each job once, and no other, on every engine."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from random import Random
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred

from dalga.model.job import Job, Standing, UnreadableJob, endpoint_of
from dalga.model.key import JobKey, Position, RawKey
from dalga.model.listing import (
    RARE,
    Driver,
    DuePlace,
    Filters,
    Page,
    Place,
    Query,
    Sort,
    StatePlace,
)
from dalga.model.plan import ScheduleRequest
from dalga.model.state import State, state_of
from dalga.store import listing
from dalga.store.dialect import instant_text
from dalga.store.ranges import Ranges
from dalga.store.rows import Override, shown_key
from dalga.store.table import JobsTable
from tests.lists import by_key, fits, order, some_limits
from tests.stores import EACH_MINUTE, LONG, EngineTestCase, each_engine
from tests.test_store_faults import before

HOUR = timedelta(hours=1)
TAGS = ("alpha", "beta", "gamma")

#: What each column of a row may hold, of rows that claims and users write.
PATHS = ("a", "a/b", "ab", "b", "ö", "ö/🐰")
DUES = (-HOUR, -timedelta(minutes=1), timedelta(minutes=1), HOUR, 30 * HOUR)


class Sample:
    """Rows of all kinds, for a table that is small enough to be looked at as a whole."""

    def __init__(self, random: Random, now: datetime) -> None:
        self._random = random
        self._now = now

    def row(self, number: int) -> dict[str, Any]:
        """The columns of a row."""
        random = self._random
        due: datetime | None = self._now + random.choice(DUES) + timedelta(seconds=number % 3)
        token, attempts, disabled = None, 0, 0
        standing = random.choice([Standing.SOUND, Standing.SOUND, Standing.FAILED])
        error = None
        match random.choice(["plain", "plain", "leased", "tried", "off", *Standing]):
            case "leased":
                token, attempts = b"t" * 16, 1
                due = self._now + random.choice(DUES[:4])  # no lease is longer
            case "tried":
                attempts, error = random.choice([1, 2]), "503"
            case "off":
                disabled, due = 1, random.choice([None, due])
                standing = random.choice([Standing.SOUND, Standing.STOPPED, Standing.DONE])
                token = b"t" * 16 if due is not None else None
            case (Standing.STOPPED | Standing.DONE | Standing.ASIDE) as standing:
                due, error = None, "500"
                attempts = 3 if standing is Standing.STOPPED else 0
        text = instant_text(self._now)
        return {
            "path": random.choice(PATHS),
            "body": f"{number * 7919 % 1000:03}",
            "schedule": "60",
            "options": random.choice(["", "", '{"endpoint":"billing"}', '{"count":9}']),
            "anchor": text,
            "scheduled": text,
            "due": None if due is None else instant_text(due),
            "attempts": attempts,
            "error": error,
            "standing": int(standing),
            "disabled": disabled,
            "token": token,
        }

    def tags(self) -> list[str]:
        """The tags of a job."""
        return self._random.sample(TAGS, self._random.choice([0, 0, 1, 2, 3]))


def some(random: Random, now: datetime) -> Filters:
    """Filters of one kind or several, each of which leaves jobs out."""
    time = now + random.choice(DUES)
    kinds: dict[str, Any] = {
        "path": random.choice(PATHS),
        "prefix": random.choice(["a", "a/", "b", "ö", "x"]),
        "body": f"{random.randrange(300):03}",
        "endpoint": random.choice(["default", "billing", "none"]),
        "tags": frozenset(random.sample((*TAGS, "none"), random.choice([1, 1, 2, 3]))),
        "states": frozenset(random.sample(list(State), random.choice([1, 1, 1, 2, 3]))),
        "due_before": time,
        "due_after": time - random.choice([HOUR, 40 * HOUR]),
        "contains": random.choice(["1", "/", "🐰", "9", "B"]),
        "sort": random.choice(list(Sort)),
        "limits": some_limits(random),
    }
    names = random.sample(list(kinds), random.choice([1, 1, 2, 2, 3, 4]))
    chosen = {name: kinds[name] for name in names}
    if "path" in chosen:
        chosen.pop("prefix", None)
    return Filters(**chosen)


def tagged(*tags: str) -> ScheduleRequest:
    """A job that runs each minute."""
    return replace(EACH_MINUTE, tags=tags or None)


class ListTestCase(EngineTestCase):
    """A store with rows of all kinds."""

    async def fill(self, rows: int) -> JobsTable:
        store = self.open_store()
        #: The database's time at the time of the rows.
        self.now = await store.now()
        sample = Sample(self.random, self.now)
        #: The tags of each job that has some.
        self.tags: dict[RawKey, tuple[str, ...]] = {}
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            for number in range(rows):
                row = sample.row(number)
                self.insert(cursor, "dalga", {"id": number + 1, **row})
                key = RawKey(row["path"], row["body"])
                for tag in sample.tags():
                    self.tag(cursor, key, number + 1, tag)
            connection.commit()
        return store

    def tag(self, cursor: Any, key: RawKey, id: int, tag: str) -> None:
        self.insert(
            cursor, "dalga_tags", {"tag": tag, "path": key.path, "body": key.body, "id": id}
        )
        self.tags[key] = (*self.tags.get(key, ()), tag)

    def insert(self, cursor: Any, table: str, row: dict[str, Any]) -> None:
        place = "?" if self.engine == "sqlite" else "%s"
        values = [
            self.key(value) if name in ("path", "body", "tag") else value
            for name, value in row.items()
        ]
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join([place] * len(row))})",
            values,
        )

    def fits(self, job: Job | UnreadableJob, filters: Filters) -> bool:
        return fits(job, filters, self.now, self.tags.get(job.key, ()))

    async def everything(self, store: JobsTable) -> list[tuple[int, Job | UnreadableJob]]:
        """All rows' ids and jobs."""
        ids = {
            RawKey(*(bytes(part).decode() if isinstance(part, bytes) else part for part in key)): id
            for id, *key in self.sql("SELECT id, path, body FROM dalga")
        }
        page = await store.page(by_key(None, None, 10_000))
        self.assertIsNone(page.last)
        return [(ids[job.key], job) for job in page.jobs]

    async def walk(
        self, store: JobsTable, filters: Filters, limit: int
    ) -> tuple[list[RawKey], list[Page]]:
        """All jobs of a list, and its pages."""
        pages: list[Page] = []
        after: Place | None = None
        while not pages or after is not None:
            page = await store.page(Query(filters, after, limit))
            self.assertLessEqual(len(page.jobs), limit)
            self.assertIsInstance(page.partial, bool)
            if page.partial:
                self.assertLess(len(page.jobs), limit)
                self.assertIsNotNone(page.last)
            self.assertNotEqual(page.last, after if pages else None) if page.last else None
            after = page.last
            pages.append(page)
            self.assertLess(len(pages), 2000)
        return [RawKey(*job.key) for page in pages for job in page.jobs], pages


@each_engine(globals())
class WalkTests(ListTestCase):
    timeout = 60

    async def test_each_list_shows_what_a_look_at_each_job_finds(self) -> None:
        """In the same order: with pages of any size, and bounds that make pages partial."""
        store = await self.fill(300)
        rows = await self.everything(store)
        found, partial = 0, 0
        drivers = set()
        for _ in range(150):
            filters = some(self.random, self.now)
            drivers.add(filters.driver)
            # The jobs have not changed, but time goes by.
            expected = sorted(
                (row for row in rows if self.fits(row[1], filters)),
                key=lambda row: order(row, filters),
            )
            keys = [RawKey(*job.key) for _, job in expected]
            limit = self.random.choice([1, 2, 7, 50, 400])
            first, scanned = self.random.choice([(1, 5), (3, 20), (100, 2000)])
            with (
                patch.object(listing, "FIRST", first),
                patch.object(listing, "SLICE", 3 * first),
                patch.object(listing, "SCANNED", scanned),
                patch.object(listing, "PATIENCE", LONG),
            ):
                walked, pages = await self.walk(store, filters, limit)
            self.assertEqual(walked, keys, filters)
            found += len(keys)
            partial += any(page.partial for page in pages)
        self.assertEqual(drivers, set(Driver))
        self.assertGreater(found, 1000)
        self.assertGreater(partial, 20)

    async def test_what_limited_callers_see(self) -> None:
        """P12: the jobs within the limits of those that others see, and no page ends elsewhere."""
        store = await self.fill(200)
        found = 0
        for _ in range(60):
            whole = replace(some(self.random, self.now), limits=None, sort=Sort.KEY)
            seen = replace(whole, limits=some_limits(self.random))
            assert seen.limits is not None
            with (
                patch.object(listing, "FIRST", 3),
                patch.object(listing, "SLICE", 9),
                patch.object(listing, "SCANNED", 20),
                patch.object(listing, "PATIENCE", LONG),
            ):
                keys, pages = await self.walk(store, seen, self.random.choice([1, 7, 400]))
                jobs = [
                    job for page in (await self.walk(store, whole, 400))[1] for job in page.jobs
                ]
            within = [
                RawKey(*job.key) for job in jobs if seen.limits.have(job.key.path, endpoint_of(job))
            ]
            self.assertEqual(keys, within, seen)
            found += len(keys)
            if not seen.limits.by_endpoint and seen.driver is Driver.KEY:
                # Paths alone tell: nothing else is looked at.
                prefixes = seen.limits.prefixes() or ()
                for last in (page.last for page in pages):
                    assert last is None or isinstance(last, Position)
                    self.assertTrue(last is None or last.path.decode().startswith(prefixes))
        self.assertGreater(found, 300)

    async def test_each_state(self) -> None:
        """The SQL of states says what `state_of` does."""
        store = await self.fill(300)
        rows = await self.everything(store)
        seen: list[RawKey] = []
        for state in State:
            wanted = {job.key for _, job in rows if state_of(job, self.now) is state}
            self.assertTrue(wanted, state)
            self.assertEqual(self.found_by_sql(store, state), wanted)
            for sort in (None, *Sort):
                filters = Filters(states=frozenset({state}), sort=sort)
                walked, _ = await self.walk(store, filters, 50)
                self.assertEqual(len(walked), len(set(walked)))
                self.assertEqual(set(walked), wanted, (state, sort))
            seen += wanted
        self.assertEqual(len(seen), len(set(seen)))
        self.assertEqual(len(seen), 300)

    def found_by_sql(self, store: JobsTable, state: State) -> set[RawKey]:
        """The jobs in a state, before anything else than SQL has looked at them."""
        filters = Filters(states=frozenset({state}), sort=Sort.KEY)
        index = Ranges(store._dialect, filters, self.now)
        with closing(self.connect()) as connection:
            return {
                shown_key(row.job.path, row.job.body)
                for each in index.ranges(None)
                for row in index.rows(each, 1000, 1000).fetch(connection.cursor())
            }

    async def test_the_order_of_the_states_that_few_jobs_are_in(self) -> None:
        """Whichever two are asked for."""
        store = await self.fill(200)
        rows = await self.everything(store)
        for states in combinations(RARE, 2):
            filters = Filters(states=frozenset(states))
            expected = sorted(
                (row for row in rows if self.fits(row[1], filters)),
                key=lambda row: order(row, filters),
            )
            walked, _ = await self.walk(store, filters, 7)
            self.assertEqual(walked, [job.key for _, job in expected], states)

    async def test_jobs_that_stay_are_shown_once_while_others_change(self) -> None:
        """However many are written, deleted, and run between two pages."""
        store = await self.fill(200)
        rows = await self.everything(store)
        busy = {job.key for _, job in self.random.sample(rows, 120)}
        filters = [
            Filters(),
            Filters(path="a"),
            Filters(prefix="a"),
            Filters(tags=frozenset(TAGS)),
            Filters(tags=frozenset({"beta"}), states=frozenset({State.SCHEDULED})),
            Filters(states=frozenset({State.DISABLED, State.FAILED})),
            Filters(states=frozenset({State.RETRYING, State.WAITING})),
            Filters(sort=Sort.DUE),
            Filters(due_after=self.now),
        ]
        for each in filters:
            stay = {job.key for _, job in rows if job.key not in busy and self.fits(job, each)}
            seen: list[RawKey] = []
            after: Place | None = None
            while True:
                page = await store.page(Query(each, after, 20))
                seen += [RawKey(*job.key) for job in page.jobs if job.key not in busy]
                if (after := page.last) is None:
                    break
                changes: list[Deferred[Any]] = []
                for key in self.random.sample(sorted(busy), 5):
                    if key.path == "ö/🐰":
                        changes.append(store.delete(key))
                    else:
                        first = self.now + self.random.choice(DUES[2:])
                        request = replace(EACH_MINUTE, first_run=first)
                        changes.append(store.put(JobKey(*key), request))
                for change in changes:
                    await change
            self.assertEqual(len(seen), len(set(seen)))
            self.assertEqual(set(seen), stay, each)

    async def test_tags(self) -> None:
        """As users give and change them, and delete jobs that have some."""
        store = self.open_store()
        jobs = {"1": ("x", "ö"), "2": ("x",), "3": (), "4": ("x y", "X")}
        for body, tags in jobs.items():
            await store.put(JobKey("a", body), tagged(*tags))
        await self.check_tags(store, x="12", ö="1", X="4")
        await self.check_tags(store, **{"x y": "4", "x ": "", "y": ""})
        page = await store.page(Query(Filters(tags=frozenset({"ö"}))))
        (job,) = page.jobs
        assert isinstance(job, Job)
        self.assertEqual(job.notes.tags, ("x", "ö"))
        await store.put(JobKey("a", "1"), tagged("z"))
        await store.put(JobKey("a", "3"), tagged("x"))
        await store.put(JobKey("a", "2"), EACH_MINUTE)
        await store.delete(JobKey("a", "4"))
        await self.check_tags(store, x="3", ö="", z="1", X="")
        every = frozenset({"x", "z", "X"})
        self.assertEqual(
            (await self.walk(store, Filters(tags=every, path="a"), 1))[0], [("a", "1"), ("a", "3")]
        )

    async def test_jobs_that_were_deleted_during_their_runs(self) -> None:
        """They are on no page, and the pages go on behind them."""
        store = self.open_store()
        keys = [JobKey("a", str(number)) for number in range(8)]
        for key in keys:
            await store.put(key, replace(tagged("x"), immediate=True))
        await store.claim(9, LONG)
        for key in keys[1:4]:
            await store.delete(key)
        left = [RawKey(*key) for key in keys if key not in keys[1:4]]
        for filters in (
            Filters(),
            Filters(tags=frozenset("x")),
            Filters(tags=frozenset("xy")),
            Filters(sort=Sort.DUE),
            Filters(states=frozenset({State.RUNNING})),
        ):
            for limit in (1, 2, 9):
                with patch.object(listing, "FIRST", 1):
                    walked, _ = await self.walk(store, filters, limit)
                self.assertEqual(walked, left, filters)

    async def check_tags(self, store: JobsTable, **bodies: str) -> None:
        """:param bodies: of the jobs with each tag."""
        for tag, expected in bodies.items():
            for sort in (None, *Sort):
                filters = Filters(tags=frozenset({tag}), sort=sort)
                walked, _ = await self.walk(store, filters, 1)
                self.assertEqual(sorted(key.body for key in walked), list(expected), (tag, sort))

    async def test_one_job(self) -> None:
        """A path and a body together are one job, or none."""
        store = await self.fill(20)
        key = (await self.everything(store))[0][1].key
        for filters, expected in (
            (Filters(path=key.path, body=key.body), [key]),
            (Filters(path=key.path, body="other"), []),
            (Filters(path="other", body=key.body), []),
            (Filters(path=key.path, body=key.body, sort=Sort.DUE), [key]),
            (Filters(path=key.path, body=key.body, contains="none"), []),
        ):
            self.assertEqual((await self.walk(store, filters, 1))[0], expected)

    async def test_due_earlier_and_later(self) -> None:
        """A job that is due at the time itself is neither."""
        store = self.open_store()
        noon = datetime(2030, 1, 31, 12, tzinfo=UTC)
        for hour in (11, 12, 13):
            request = ScheduleRequest(one_off=True, first_run=noon.replace(hour=hour))
            await store.put(JobKey("a", str(hour)), request)
        for filters, bodies in (
            (Filters(due_before=noon), ["11"]),
            (Filters(due_after=noon), ["13"]),
            (Filters(path="a", due_before=noon), ["11"]),
            (Filters(path="a", due_after=noon), ["13"]),
            (Filters(due_after=noon - HOUR, due_before=noon + HOUR), ["12"]),
        ):
            walked, _ = await self.walk(store, filters, 1)
            self.assertEqual([key.body for key in walked], bodies, filters)

    async def test_a_bound_of_time(self) -> None:
        """A page that has taken its time ends, and says where to go on."""
        store = await self.fill(300)
        steps = iter(range(0, 1000))
        store._listing._steady = lambda: float(next(steps))  # each look takes longer than allowed
        filters = Filters(contains="none")
        with patch.object(listing, "FIRST", 10):
            walked, pages = await self.walk(store, filters, 5)
        self.assertEqual(walked, [])
        self.assertEqual([page.partial for page in pages], [True] * (len(pages) - 1) + [False])
        # Each page has looked at one slice, and at the rest of the path before it.
        self.assertTrue(20 < len(pages) <= 31, len(pages))

    async def test_a_bound_of_rows(self) -> None:
        store = await self.fill(300)
        with (
            patch.object(listing, "FIRST", 10),
            patch.object(listing, "SLICE", 20),
            patch.object(listing, "SCANNED", 50),
            patch.object(listing, "PATIENCE", LONG),
        ):
            walked, pages = await self.walk(store, Filters(contains="none"), 5)
        self.assertEqual(walked, [])
        self.assertTrue(300 / 2 / 50 < len(pages) <= 300 / 50 + 1, len(pages))

    async def test_a_list_by_state_looks_only_at_due_times_that_jobs_in_the_state_have(
        self,
    ) -> None:
        """P10: however many jobs are due at other times."""
        store = self.open_store()
        now = await store.now()
        dues = [now + sign * timedelta(seconds=60 + each) for sign in (-1, 1) for each in range(4)]
        dues += [now + 30 * HOUR + timedelta(seconds=each) for each in range(6)]  # no lease
        for number, due in enumerate(dues):
            await store.put(JobKey("a", str(number)), EACH_MINUTE)
            self.sql(
                "UPDATE dalga SET due = %s WHERE body = %s",
                (instant_text(due), self.key(str(number))),
            )
        for states, looked_at in (
            ({State.WAITING}, 4),
            ({State.RUNNING}, 4),
            ({State.RETRYING}, 4 + 6),
            ({State.WAITING, State.RUNNING}, 4 + 4),
            ({State.WAITING, State.RETRYING}, 4 + 4 + 6),
        ):
            filters = Filters(states=frozenset(states), contains="none")
            with (
                patch.object(listing, "FIRST", 1),
                patch.object(listing, "SCANNED", 1),
                patch.object(listing, "PATIENCE", LONG),
            ):
                _, pages = await self.walk(store, filters, 1)  # each page looks at two rows
            self.assertEqual(len(pages), looked_at // 2 + 1, states)

    async def test_places_that_somebody_made_up(self) -> None:
        """Cursors are no secrets: whatever place is in one, there is a page, or an empty one."""
        store = await self.fill(20)
        last = 2**63 - 1
        lists: dict[Filters, list[Place]] = {
            Filters(): [Position(b"", b""), Position(b"\xff'", b"\0", True, True)],
            Filters(tags=frozenset(TAGS)): [Position(b'\xff"', b"")],
            Filters(sort=Sort.DUE): [
                DuePlace(b"", 0),
                DuePlace(b"\xff'", last),
                DuePlace(b"2030-13-99", last, True),
                DuePlace(None, last),
            ],
            Filters(states=frozenset({State.DISABLED})): [StatePlace(255, 255, last)],
        }
        for filters, places in lists.items():
            for place in places:
                page = await store.page(Query(filters, place, 5))
                self.assertLessEqual(len(page.jobs), 5)

    async def test_rows_that_strangers_wrote(self) -> None:
        """They are listed with what is wrong with them, and no list breaks or goes on for ever."""
        store = await self.fill(40)
        blob = "x'6120'"  # on SQLite a BLOB
        for number, column in enumerate(
            ["schedule = 'often'", "due = NULL", f"path = {blob}", "options = '{'", "standing = 77"]
        ):
            self.sql(f"UPDATE dalga SET {column} WHERE id = {number + 1}")
        if self.engine == "sqlite":
            self.sql("UPDATE dalga SET due = 'soon' WHERE id = 6")
            self.sql("UPDATE dalga SET due = x'00ff' WHERE id = 7")
            self.sql("UPDATE dalga SET disabled = 'no' WHERE id = 8")
        for filters in (
            Filters(),
            Filters(sort=Sort.DUE),
            Filters(contains=""),
            *(Filters(states=frozenset({state})) for state in State),
            Filters(states=frozenset(State)),
            Filters(states=frozenset(State), sort=Sort.DUE),
            Filters(due_after=self.now),
            Filters(tags=frozenset(TAGS), sort=Sort.DUE),
        ):
            for limit in (1, 3, 50):
                walked, _ = await self.walk(store, filters, limit)
                if filters in (Filters(), Filters(sort=Sort.DUE), Filters(contains="")):
                    self.assertEqual(len(walked), 40)
                self.assertEqual(len(walked), len(set(walked)))

    async def test_a_row_that_no_claim_has_met(self) -> None:
        """A list by state `problem` has the rows that claims have set aside, and no others."""
        store = self.open_store()
        for name in "ab":
            await store.put(JobKey(name, "x"), replace(EACH_MINUTE, immediate=True))
        self.sql("UPDATE dalga SET schedule = 'often'")
        later = "2099-01-01 00:00:00.000000"
        self.sql("UPDATE dalga SET due = %s WHERE path = %s", (later, self.key("b")))
        await store.claim(9, LONG)
        problems = Filters(states=frozenset({State.PROBLEM}))
        scheduled = Filters(states=frozenset({State.SCHEDULED}))
        self.assertEqual((await self.walk(store, problems, 9))[0], [("a", "x")])
        self.assertEqual((await self.walk(store, scheduled, 9))[0], [])

    async def test_a_problem_that_is_disabled(self) -> None:
        """`/why` calls it a problem, and so do all lists, by each index."""
        store = self.open_store()
        key = JobKey("a", "x")
        await store.put(key, replace(EACH_MINUTE, immediate=True))
        self.sql("UPDATE dalga SET schedule = 'often'")
        await store.claim(9, LONG)
        await store.disable(key)
        for filters in (Filters(), Filters(path="a"), Filters(sort=Sort.DUE), Filters(prefix="a")):
            for states, found in (
                ({State.PROBLEM}, [("a", "x")]),
                ({State.PROBLEM, State.DISABLED}, [("a", "x")]),
                ({State.DISABLED}, []),
            ):
                asked = replace(filters, states=frozenset(states))
                self.assertEqual((await self.walk(store, asked, 9))[0], found, asked)


@each_engine(globals(), only=("mariadb", "mysql"))
class InBetweenTests(EngineTestCase):
    """What happens between two statements of one page. (On SQLite nobody can write then.)"""

    async def test_a_job_that_is_deleted_before_its_details_are_read(self) -> None:
        """It is not shown. No page begins anew: due jobs run, and are gone, all the time."""
        for gone in (
            "DELETE FROM dalga WHERE body = '2'",
            f"UPDATE dalga SET override = {Override.DELETED} WHERE body = '2'",
        ):
            jobs = await self.page("read_whole", gone, Filters(sort=Sort.KEY))
            self.assertEqual([job.key.body for job in jobs], ["1", "3"])

    async def test_a_job_that_is_changed_before_its_details_are_read(self) -> None:
        """It is shown as it is by then, if the list is still of it. No page begins anew."""
        tags = Filters(tags=frozenset("x"))
        until = Filters(due_before=datetime(2099, 1, 1, tzinfo=UTC))
        off = "disabled = 1, due = NULL"
        for change, filters, bodies in (
            ("version = 7", tags, "123"),
            ("version = 7, extras = 0", Filters(), "123"),
            ("version = 7, extras = 0", tags, "13"),
            ("version = 7, due = '2099-01-01'", tags, "123"),
            ("version = 7, due = '2099-01-01'", until, "13"),
            (f"version = 7, {off}", until, "13"),
            (f"version = 7, {off}", Filters(states=frozenset({State.SCHEDULED})), "13"),
        ):
            jobs = await self.page(
                "read_whole", f"UPDATE dalga SET {change} WHERE body = '2'", filters
            )
            shown = {job.key.body: job for job in jobs if isinstance(job, Job)}
            self.assertEqual("".join(sorted(shown)), bodies)
            if "2" in bodies:
                self.assertEqual(shown["2"].version, 7)
                kept = () if "extras" in change else ("x",)
                self.assertEqual(shown["2"].notes.tags, kept)

    async def page(self, statement: str, done: str, filters: Filters) -> list[Job | UnreadableJob]:
        """What a page shows of three jobs, if a stranger does something before a statement."""
        store = self.open_store()
        for body in "123":
            await store.put(JobKey("a", body), tagged("x"))
        hooked = before(self, store, statement, done)
        page = await store.page(Query(filters))
        self.assertEqual(hooked, [statement])
        return page.jobs
