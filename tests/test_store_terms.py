"""
What a job's columns hold, and back: schedule, location, options and the rest; and whatever else
somebody may have written there by SQL (P6).
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import JobSetAside
from dalga.model.address import MAX_ENDPOINT_NAME
from dalga.model.answers import Statuses, statuses_from_text
from dalga.model.cron import cron_from_text
from dalga.model.duration import duration_from_text
from dalga.model.job import Job, Standing, UnreadableJob
from dalga.model.key import JobKey
from dalga.model.options import CatchUp, OnFailure, Options
from dalga.model.plan import ScheduleRequest, plan
from dalga.model.reading import MAX_JITTER, MAX_LATENESS
from dalga.model.run import Delete, Disable, GiveBack, Reschedule, Retry, Run, Skip, Stop
from dalga.model.schedule import (
    END_OF_TIME,
    MAX_INTERVAL,
    Calendar,
    Cron,
    Every,
    Once,
    Schedule,
)
from dalga.model.zone import Gap, Overlap, Zone
from dalga.store.dialect import as_instant, instant_from_text, instant_text
from dalga.store.rows import MAX_ERROR, Unreadable, read_job, read_run, terms_text, was_recorded
from dalga.store.selected import DueRow, JobRow, Marks, RunRow
from dalga.store.sqlite import SQLite
from tests.examples import ended
from tests.stores import LONG, NOW, EngineTestCase, each_engine
from tests.strategies import LOCATIONS, calendar_parts, crons_near, iso, thorough

KEY = JobKey("check_feed", "1234")
T0 = datetime(2021, 3, 28, 0, 30, tzinfo=UTC)
FIRST = datetime(2100, 1, 31, 9, 0, 0, 123456, tzinfo=UTC)

#: As many statuses as a set may have whose text is the longest.
MANY_STATUSES = Statuses(tuple((first, first + 1) for first in range(200, 520, 20)))

#: One of each kind of schedule, and each option.
REQUESTS = {
    "once": ScheduleRequest(one_off=True, first_run=FIRST),
    "once, in a place": ScheduleRequest(one_off=True, first_run=FIRST, location="Asia/Kathmandu"),
    "seconds": ScheduleRequest(interval=duration_from_text("60")),
    "a fraction": ScheduleRequest(interval=duration_from_text("PT1.25S")),
    "months": ScheduleRequest(
        interval=duration_from_text("P1M"), first_run=FIRST, location="Europe/Istanbul"
    ),
    "all units": ScheduleRequest(interval=duration_from_text("P1Y2M10DT2H30M0.5S")),
    "weeks": ScheduleRequest(interval=duration_from_text("P2W"), dst_gap=Gap.SKIP),
    "cron": ScheduleRequest(cron="*/5 9-17 * JAN-MAR MON-FRI", location="America/Los_Angeles"),
    "cron with seconds": ScheduleRequest(cron="30 0 0 L * *", dst_overlap=Overlap.BOTH),
    "until and count": ScheduleRequest(
        interval=duration_from_text("60"),
        until=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        count=2**32 - 1,
    ),
    "catch-up": ScheduleRequest(interval=duration_from_text("60"), catch_up=CatchUp.ALL),
    "lateness": ScheduleRequest(
        interval=duration_from_text("60"), max_lateness=timedelta(seconds=90.000001)
    ),
    "jitter": ScheduleRequest(cron="0 * * * *", jitter=timedelta(seconds=3600.000001)),
    "once, in a while": ScheduleRequest(
        one_off=True, interval=duration_from_text("P1Y2M10DT2H30M0.5S"), jitter=timedelta(days=1)
    ),
    "no lateness": ScheduleRequest(interval=duration_from_text("60"), max_lateness=timedelta(0)),
    "on failure": ScheduleRequest(interval=duration_from_text("60"), on_failure=OnFailure.STOP),
    "all of it": ScheduleRequest(
        cron="0 0 29 2 1#1",
        location="America/Argentina/ComodRivadavia",
        first_run=datetime(2100, 1, 1, microsecond=1, tzinfo=UTC),
        until=datetime(9000, 1, 1, microsecond=1, tzinfo=UTC),
        count=2**32 - 1,
        catch_up=CatchUp.SKIP,
        max_lateness=timedelta(days=3650, microseconds=-1),
        on_failure=OnFailure.STOP,
        jitter=timedelta(days=366, microseconds=-1),
        dst_gap=Gap.SHIFT,
        dst_overlap=Overlap.FIRST,
        success=MANY_STATUSES,
        gone=MANY_STATUSES,
        give_up=MANY_STATUSES,
    ),
    "statuses": ScheduleRequest(
        interval=duration_from_text("60"),
        success=statuses_from_text("200-299,404"),
        gone=statuses_from_text("none"),
        give_up=statuses_from_text("400-499"),
    ),
}

#: What is wrong in a column, and a part of the sentence that says so.
POISON = [
    ("schedule", "often", "'often'"),
    ("schedule", "-1", "'-1'"),
    ("schedule", "0", "no time at all"),
    ("schedule", "PT", "no duration"),
    ("schedule", "P1M2W", "mixes weeks"),
    ("schedule", "9" * 20, "longer than"),
    ("schedule", "61 * * * *", "minute"),
    ("schedule", "0 0 30 2 *", "never comes"),
    ("schedule", "* * * *", "five fields"),
    ("schedule", " ", "five fields"),
    ("location", "Mars/Phobos", "no time zone"),
    ("location", "", "no time zone"),
    ("location", "europe/istanbul", "Europe/Istanbul"),
    ("options", "{", "can't be read"),
    ("options", "soon", "can't be read"),
    ("options", "null", "no JSON object"),
    ("options", "[]", "no JSON object"),
    ("options", '""', "no JSON object"),
    ("options", '"count"', "no JSON object"),
    ("options", "0", "no JSON object"),
    ("options", '{"colour":"blue"}', "no option 'colour'"),
    ("options", '{"\\ud800":1}', "no option"),
    ("options", '{"until":"soon"}', "'soon'"),
    ("options", '{"until":"2021-01-01T00:00:00"}', "no zone"),
    ("options", '{"until":"0001-01-01T00:00:00+14:00"}', "can't be read"),
    ("options", '{"until":null}', "can't be read"),
    ("options", '{"first-run":"soon"}', "'soon'"),
    ("options", '{"first-run":"2021-01-01T00:00:00"}', "no zone"),
    ("options", '{"count":0}', "not a count"),
    ("options", '{"count":true}', "not a count"),
    ("options", '{"count":1.5}', "not a count"),
    ("options", '{"count":"3"}', "not a count"),
    ("options", '{"catch-up":"often"}', "'often'"),
    ("options", '{"catch-up":["one"]}', "one"),
    ("options", '{"on-failure":null}', "None"),
    ("options", '{"dst-gap":"jump"}', "'jump'"),
    ("options", '{"dst-overlap":"none"}', "'none'"),
    ("options", '{"max-lateness":-1}', "no lateness"),
    ("options", '{"max-lateness":true}', "no lateness"),
    ("options", '{"max-lateness":315360001}', "no lateness"),
    ("options", '{"expect-within":315360001}', "no silence"),
    ("options", '{"timeout":3601}', "no time limit"),
    ("options", '{"alert-after":4294967296}', "is not a count of runs"),
    ("options", '{"max-lateness":"60"}', "can't be read"),
    ("options", '{"max-lateness":NaN}', "can't be read"),
    ("options", '{"max-lateness":Infinity}', "can't be read"),
    ("options", '{"max-lateness":1e400}', "can't be read"),
    ("options", '{"max-lateness":1e15}', "can't be read"),
    ("options", '{"jitter":-1}', "no jitter"),
    ("options", '{"jitter":31622401}', "no jitter"),
    ("options", '{"delay":"soon"}', "can't be read"),
    ("options", '{"delay":60}', "can't be read"),
    ("options", '{"jitter":"1h"}', "can't be read"),
    ("options", '{"jitter":1e15}', "can't be read"),
    ("options", '{"success":"none"}', "has no status"),
    ("options", '{"success":200}', "no text of statuses"),
    ("options", '{"gone":["204"]}', "no text of statuses"),
    ("options", '{"gone":"100"}', "no status of a final answer"),
    ("options", '{"give-up":""}', "no status"),
    ("standing", 5, "standing is 5"),
]

#: What only a column without a type takes.
UNTYPED = [
    ("schedule", "1 " * 200, "255 are the most"),
    ("options", "[" * 100_000, "can't be read"),
    ("options", '{"count":' + "9" * 5_000 + "}", "can't be read"),
    ("options", b"\xff", "not UTF-8"),
    ("location", b"\xff", "not UTF-8"),
    ("schedule", b"\xff", "not UTF-8"),
    ("anchor", "yesterday", "anchor is"),
    ("started", "yesterday", "started is"),
    ("disabled", "no", "disabled is"),
    ("disabled", -1, "disabled is"),
    ("disabled", 0.5, "disabled is"),
    ("standing", "no", "standing is"),
    ("successes", "many", "successes is"),
    ("skipped", -1, "skipped is"),
    ("attempts", -7, "attempts is"),
    ("version", "no", "version is"),
    ("version", -1, "version is"),
    ("version", 0.5, "version is"),
    ("extras", "no", "extras is"),
    ("extras", -1, "extras is"),
    ("extras", b"\xff", "extras is"),
]


def is_cron(text: str) -> bool:
    """Whether an expression is one that comes at some time."""
    try:
        return cron_from_text(text) == text
    except ValueError:
        return False


@each_engine(globals())
class RoundTripTests(EngineTestCase):
    """What is asked for is what is kept."""

    async def test_all_kinds(self) -> None:
        """Each schedule and each option comes back from the table as it was planned."""
        store = self.open_store()
        for name, request in REQUESTS.items():
            put = await store.put(KEY, request)
            planned = plan(request, store.clock.now(), key=KEY)
            self.assertEqual((put.schedule, put.options), (planned.schedule, planned.options), name)
            if request.first_run is not None:
                self.assertEqual((put.anchor, put.scheduled), (planned.anchor, planned.first), name)
            self.assertEqual(await store.get(KEY), put, name)
            past = "2020-01-01 00:00:00.000000"
            self.sql("UPDATE dalga SET scheduled = %s, due = %s", (past, past))
            run = await self.claim_one(store, KEY)
            self.assertEqual(
                (run.schedule, run.options, run.anchor), (put.schedule, put.options, put.anchor)
            )
            await store.delete(KEY)
            self.end_leases()
            await store.claim(9, LONG)


@each_engine(globals())
class PoisonTests(EngineTestCase):
    """P6: rows that can't be understood."""

    async def test_set_aside(self) -> None:
        """Whatever the column: set aside by a claim, logged once, shown, and mended by a PUT."""
        store = self.open_store()
        poison = POISON + (UNTYPED if self.engine == "sqlite" else [])
        names = [f"bad{number:02}" for number in range(len(poison))]
        *bad, good = self.in_the_past(*names, "good")
        for name, (column, value, _) in zip(names, poison, strict=True):
            as_text = isinstance(value, bytes) and self.engine == "sqlite"
            place = "CAST(%s AS TEXT)" if as_text else "%s"
            where = self.key(name)
            self.sql(f"UPDATE dalga SET {column} = {place} WHERE path = %s", (value, where))
        taken: list[Run] = []
        with capturedLogs() as events:
            for _ in range(2):
                taken += (await store.claim(99, LONG)).runs
        self.assertEqual([run.key for run in taken], [good])
        logged = [event for event in events if event["log_level"] is LogLevel.error]
        self.assertEqual(len(logged), len(poison))
        self.assertEqual((await store.counts()).set_aside, len(poison))
        for key, (column, value, words) in zip(bad, poison, strict=True):
            job = await store.get(key)
            assert isinstance(job, UnreadableJob), (column, value, job)
            self.assertIn(words, job.problem, (column, value))
            self.assertLessEqual(len(job.problem), 255)
            self.assertIsInstance(await store.put(JobKey(*key), NOW), Job)
        self.assertEqual(len((await store.claim(99, LONG)).runs), len(bad))

    async def test_shown_before_it_is_due(self) -> None:
        """What can't be understood is shown as that before a claim comes upon it."""
        store = self.open_store()
        (key,) = self.in_the_past("bad")
        for column, value, words in POISON:
            before = self.sql(f"SELECT {column} FROM dalga")[0]
            self.sql(f"UPDATE dalga SET {column} = %s", (value,))
            job = await store.get(key)
            assert isinstance(job, UnreadableJob), (column, value, job)
            self.assertIn(words, job.problem, (column, value))
            self.sql(f"UPDATE dalga SET {column} = %s", before)
        await self.claim_one(store, key)

    async def test_a_key_that_no_put_takes(self) -> None:
        """It shows that it won't run before it is due, and can't be triggered, as it never runs."""
        store = self.open_store()
        for name, words in (("../x", "segment '..'"), ("a\tb", "U+0009"), ("", "is empty")):
            (key,) = self.in_the_past(name)
            job = await store.get(key)
            assert isinstance(job, UnreadableJob), job
            self.assertIn(words, job.problem)
            await self.assertFailure(store.trigger(key), JobSetAside)
            self.assertEqual((await store.claim(9, LONG)).runs, [])
            self.assertEqual(await store.get(key), job)
            await store.delete(key)

    async def test_an_anchor_that_is_no_time(self) -> None:
        """So is a time that is none, in whatever form the engine has it."""
        store = self.open_store()
        bad, good = self.in_the_past("bad", "good")
        for column in ("anchor", "started"):
            with closing(self.connect()) as connection:
                cursor = connection.cursor()
                if self.engine != "sqlite":
                    cursor.execute("SET SESSION sql_mode = ''")
                cursor.execute(
                    f"UPDATE dalga SET {column} = '0000-00-00 00:00:00', due = scheduled"
                    " WHERE path = 'bad'"
                )
                connection.commit()
            runs = (await store.claim(9, LONG)).runs
            self.assertEqual([run.key for run in runs], [good] if column == "anchor" else [])
            job = await store.get(bad)
            assert isinstance(job, UnreadableJob), job
            self.assertIn(column, job.problem)
            self.sql("UPDATE dalga SET anchor = scheduled WHERE path = 'bad'")


zones = st.builds(
    Zone,
    st.sampled_from(LOCATIONS),
    st.none() | st.sampled_from(Gap),
    st.none() | st.sampled_from(Overlap),
)
all_options = st.builds(
    Options,
    until=st.none() | st.datetimes(timezones=st.just(UTC)),
    count=st.none() | st.integers(1, 2**32 - 1),
    catch_up=st.sampled_from(CatchUp),
    max_lateness=st.none() | st.timedeltas(timedelta(0), timedelta(days=3650)),
    on_failure=st.sampled_from(OnFailure),
    first_run=st.none() | st.datetimes(timezones=st.just(UTC)),
    jitter=st.none() | st.timedeltas(timedelta(0), timedelta(days=366)),
    success=st.none() | st.just(MANY_STATUSES),
    gone=st.none() | st.sampled_from([MANY_STATUSES, Statuses(())]),
    give_up=st.none() | st.sampled_from([MANY_STATUSES, Statuses(())]),
)
intervals = st.timedeltas(timedelta(microseconds=1), timedelta(seconds=MAX_INTERVAL))
durations = calendar_parts.map(lambda parts: duration_from_text(iso(*parts)))
schedules = st.one_of(
    st.builds(Once, zones),
    st.builds(Every, intervals, zones),
    st.builds(Calendar, durations, zones),
    st.builds(Cron, crons_near(T0).filter(is_cron), zones),
)

#: What somebody may have written into a column.
anything: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.binary(max_size=20),
    st.text(max_size=20),
    st.datetimes(),
    st.sampled_from([bytes(16), b"2021-03-28 00:30:00.000000", b"UTC", 0, 1, 2, 2**32]),
    st.sampled_from([value for _, value, _ in POISON + UNTYPED]),
    st.dictionaries(
        st.sampled_from(
            [
                *("first-run", "until", "count", "catch-up", "max-lateness", "on-failure"),
                *("jitter", "success", "gone", "give-up"),
            ]
        ),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    ).map(json.dumps),
    st.text("0123456789*/-,L#MON ", max_size=20),
    st.text("P0123456789YMWDTHS.-", max_size=12),
)


class RecordedTests(SynchronousTestCase):
    """Whether a row is as the end of a run has left it, when nobody knows whether a COMMIT was."""

    def test_by_examples(self) -> None:
        later, run_id = datetime(2030, 1, 31, 9, tzinfo=UTC), bytes(range(16))
        run = Run(
            row=1,
            token=b"token",
            key=KEY,
            schedule=Every(timedelta(minutes=1)),
            options=Options(),
            anchor=later,
            scheduled=later,
            due=later,
            waited=False,
            id=f"{run_id.hex()}-1",
            attempt=3,
            started=later,
            successes=0,
            claimed=later,
            lease_ends=0.0,
            payload=b"",
            timeout=10.0,
        )
        long = "500 " * 100

        def row(token: bool = False, **other: Any) -> Marks:
            """What it holds; with `token`, another instance has claimed it since."""
            is_claimed = b"another token" if token else None
            return Marks(1, is_claimed, run_id, 3, None, Standing.SOUND)._replace(**other)

        failed: dict[str, Any] = {"error": b"500 Internal Server Error"}
        retry = Retry(later, "500 Internal Server Error")
        stop, give_back = Stop("500"), GiveBack()
        for verdict, found, expected in (
            (Delete(), None, True),
            (Delete(), row(), False),
            (Delete(), row(run=None, attempts=0), False),
            (Reschedule(later, later), None, False),
            (Skip(later), None, False),
            (retry, None, False),
            (stop, None, False),
            (give_back, None, False),
            # The next run has another id, or none yet.
            (Reschedule(later, later), row(run=None, attempts=0), True),
            (Reschedule(later, later), row(token=True, run=b"x" * 16, attempts=1), True),
            (Reschedule(later, later), row(token=True, attempts=4), False),
            (Reschedule(later, later), row(), False),
            (Skip(later), row(run=None, attempts=0), True),
            (Skip(later), row(token=True, attempts=4), False),
            (Disable(later, later, "x"), None, False),
            (Disable(later, later, "x"), row(run=None, attempts=0), True),
            (Disable(later, later, "x"), row(), False),
            (stop, row(standing=Standing.STOPPED), True),
            (stop, row(standing=Standing.SOUND), False),
            (stop, row(standing=Standing.FAILED), False),
            (stop, row(standing=Standing.STOPPED, run=b"x" * 16), False),
            # It was triggered since, and is claimed as the same run.
            (stop, row(token=True, standing=Standing.STOPPED), False),
            (retry, row(**failed), True),
            (retry, row(error="500 Internal Server Error"), True),
            (retry, row(token=True, attempts=4, **failed), True),
            (retry, row(token=True, attempts=3, **failed), False),
            (retry, row(attempts=4, **failed), False),
            (retry, row(error=b"404 Not Found"), False),
            (retry, row(error=None), False),
            (retry, row(run=b"x" * 16, **failed), False),
            (retry, row(run=None, **failed), False),
            (Retry(later, long), row(error=long[:MAX_ERROR]), True),
            (Retry(later, long), row(error=long), False),
            (give_back, row(attempts=2), True),
            (give_back, row(token=True, attempts=3), True),
            (give_back, row(token=True, attempts=4), False),
            (give_back, row(attempts=3), False),
            (give_back, row(attempts=2, run=b"x" * 16), False),
        ):
            end = ended(run, verdict)
            self.assertIs(was_recorded(end, found), expected, (verdict, found))


class InstantsTests(SynchronousTestCase):
    """Times as text."""

    def test_there_and_back(self) -> None:
        for at in (
            T0,
            datetime.min.replace(tzinfo=UTC),
            END_OF_TIME,
            T0 + timedelta(microseconds=7),
        ):
            text = instant_text(at)
            self.assertEqual(len(text), 26)
            self.assertEqual(instant_from_text(text), at)
            self.assertIs(instant_from_text(text).tzinfo, UTC)

    def test_one_form_only(self) -> None:
        """Texts of another form would not be sorted as times are."""
        for text in (
            "",
            "0",
            "2021-03-28 00:30:00",
            "2021-03-28 00:30:00.00000",
            "2021-03-28 00:30:00.0000000",
            "2021-03-28T00:30:00.000000",
            "2021-03-28 00:30:00,000000",
            "2021-03-28 00:30:00.00000Z",
            "2021-03-28 00:30:00.00Z\x00456",
            "2021-03-28 00:Z\x00:00.000000",
            "2021-03-28 00:30:00.+00:00",
            "2021-03-28 00:30:00.123+00",
            "2021-03-28 00:30:00.1234+5",
            "2021-W12-7 00:30:00.000000",
            "2021-02-30 00:30:00.000000",
            "0000-00-00 00:00:00.000000",
            "2021-03-28 24:00:00.000000",
            "\u0662021-03-28 00:30:00.00000",
            "2021-03-28 00:30:00.00000\u0660",
        ):
            self.assertRaises(ValueError, instant_from_text, text)


class TermsTests(SynchronousTestCase):
    """The columns of a row, without a database."""

    @thorough(300)
    @given(schedules, all_options)
    def test_there_and_back(self, schedule: Schedule, options: Options) -> None:
        """What is written is read back as the same, and fits its columns."""
        terms = terms_text(schedule, options)
        for text, room in zip(terms, (255, 64, 1024), strict=True):
            self.assertLessEqual(len(text), room)
        row = JobRow(1, b"", b"", *terms, T0, T0, T0, 0, None, 0, 0, 0, 0, None, 0, 0, 0)
        job = read_job(row, KEY, T0, as_instant)
        assert isinstance(job, Job), job
        self.assertEqual((job.schedule, job.options), (schedule, options))

    def test_the_longest(self) -> None:
        """All options at their longest fit the column, be it of a periodic job or of a one-off."""
        microsecond = timedelta(microseconds=1)
        zone = Zone("UTC", Gap.SHIFT, Overlap.FIRST)
        both = Options(
            max_lateness=MAX_LATENESS - microsecond,
            jitter=MAX_JITTER - microsecond,
            success=MANY_STATUSES,
            gone=MANY_STATUSES,
            give_up=MANY_STATUSES,
            endpoint="e" * MAX_ENDPOINT_NAME,
        )
        periodic = replace(
            both,
            until=END_OF_TIME,
            count=2**32 - 1,
            catch_up=CatchUp.SKIP,
            on_failure=OnFailure.STOP,
            first_run=END_OF_TIME,
        )
        number = "0" * 9 + "1"
        text = f"P{number}Y{number}M{number}DT{number}H{number}M{number}.123456S"
        once = replace(both, delay=duration_from_text(text))
        for schedule, options in ((Cron("* * * * *", zone), periodic), (Once(zone), once)):
            terms = terms_text(schedule, options)
            self.assertTrue(500 < len(terms[2]) <= 1024, terms[2])
            row = JobRow(1, b"", b"", *terms, T0, T0, T0, 0, None, 0, 0, 0, 0, None, 0, 0, 0)
            job = read_job(row, KEY, T0, as_instant)
            assert isinstance(job, Job), job
            self.assertEqual(job.options, options)

    def test_what_is_usual_takes_no_room(self) -> None:
        """A job that asks for nothing else has no options."""
        self.assertEqual(terms_text(Once(), Options()), ("", "UTC", ""))

    @thorough(1000)
    @given(st.data(), st.booleans())
    def test_any_row(self, data: st.DataObject, mysql: bool) -> None:
        """P6: no row at all breaks the claim, or the API, that comes upon it; both agree on it."""
        read = as_instant if mysql else SQLite("").read_instant
        at: Any = T0 if mysql else b"2021-03-28 00:30:00.000000"
        row: dict[str, Any] = dict.fromkeys((*RunRow._fields, *JobRow._fields), 0)
        row |= {"path": b"a", "body": b"b", "schedule": b"", "location": b"UTC", "options": b""}
        row |= {"anchor": at, "scheduled": at, "due": at, "started": at}
        row |= {"run": bytes(16), "error": None, "token": None}
        # Which rows are disabled the claim asks beforehand.
        claimed = {*RunRow._fields, *DueRow._fields}
        shared = sorted(claimed & {*JobRow._fields} - {"id", "path", "body", "disabled"})
        for column in data.draw(st.lists(st.sampled_from(shared), max_size=3)):
            row[column] = data.draw(anything, label=column)
        if row["due"] is None:
            row["due"] = at  # it was due, or no claim would have taken it
        try:
            claimed_row = RunRow(*(row[name] for name in RunRow._fields))
            before = DueRow(*(row[name] for name in DueRow._fields))
            run: Run | None = read_run(claimed_row, before, bytes(16), T0, 0.0, 0.0, read)
        except Unreadable as problem:
            self.assertTrue(str(problem))
            str(problem).encode()  # it is to be written beside the row
            run = None
        job = read_job(JobRow(*(row[name] for name in JobRow._fields)), KEY, T0, read)
        self.assertEqual(isinstance(job, Job), run is not None, row)
