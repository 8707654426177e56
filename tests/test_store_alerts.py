"""
The table of alerts, and what is written into it by records, claims and looks: over each engine.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from twisted.internet import reactor

from dalga.database import build_store
from dalga.model.alert import Alert, AlertState, Event, KeptAlert, Targets
from dalga.model.answers import Meaning
from dalga.model.duration import seconds
from dalga.model.job import UnreadableJob
from dalga.model.key import JobKey, RawKey
from dalga.model.options import IfExists
from dalga.model.plan import ScheduleRequest
from dalga.model.run import Delete, End, Outcome, Reschedule, Retry, Run, Stop, Verdict
from dalga.store.alerts import id_at
from dalga.store.alertsql import AlertStatements
from dalga.store.alerttable import AT_ONCE, LASTS, LOOKED_AT, PUT_OFF, UNTAKEN
from dalga.store.lookout import SILENCES
from dalga.store.outbox import Forgotten, Parcel, Settled
from dalga.store.table import JobsTable
from tests.stores import EACH_MINUTE, LONG, NOW, OVER, EngineTestCase, each_engine

KEY = JobKey("reports", "daily")
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
OPS = Targets(("default", "ops"), {"billing": "ops", "quiet": "none"})


class AlertsTestCase(EngineTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.numbers = count()

    def open_with(self, targets: Targets = OPS, instance: str = "web-1") -> JobsTable:
        """One more instance's store, which sends alerts to these targets."""
        store = build_store(self.config, reactor, self.random, targets=targets)
        store._guard = None
        store.called(instance)
        self.stores.append(store)
        if len(self.stores) == 1 and self.engine != "sqlite":
            store.create_table()
        store.open()
        return store

    async def fails(self, store: JobsTable, key: JobKey = KEY) -> Run:
        """A due run of the job fails, and is due again at once."""
        return await self.ends(store, lambda run, now: Retry(now, "500"), Meaning.RETRY, key)

    async def succeeds(self, store: JobsTable, key: JobKey = KEY) -> Run:
        return await self.ends(store, lambda run, now: Reschedule(now, run.anchor), key=key)

    async def ends(
        self,
        store: JobsTable,
        verdict: Any,
        meaning: Meaning = Meaning.SUCCEED,
        key: JobKey = KEY,
    ) -> Run:
        run = await self.claim_one(store, key)
        await self.end(store, run, verdict(run, store.clock.now()), meaning)
        return run

    async def end(
        self, store: JobsTable, run: Run, verdict: Verdict, meaning: Meaning = Meaning.SUCCEED
    ) -> None:
        outcome = Outcome(500 if meaning is Meaning.RETRY else 200, 0.1)
        await store.record([End(run, outcome, verdict, meaning, ended=store.clock.now())])

    async def alerts(self, store: JobsTable) -> list[dict[str, Any]]:
        """What was written, the oldest first."""
        newest = await store.outbox.newest(100)
        return [each.members for each in reversed(newest)]

    async def events(self, store: JobsTable) -> list[str]:
        return [members["event"] for members in await self.alerts(store)]

    def let_go_by(self) -> None:
        """The time of all alerts that wait is there, and the leases of the others are over."""
        self.sql("UPDATE dalga_alerts SET due = '2020-01-01 00:00:00.000000' WHERE due IS NOT NULL")

    def streak(self) -> tuple[int, int]:
        ((streak, alerted),) = self.sql("SELECT streak, alerted FROM dalga")
        return streak, alerted

    async def add(self, store: JobsTable, number: int, endpoint: str = "default") -> None:
        """Write alerts, as many records would. No job has two of them."""
        jobs = [RawKey("p", str(next(self.numbers))) for _ in range(number)]
        await self.tell(store, *(Alert(Event.JOB_FAILING, NEVER, job, endpoint) for job in jobs))

    async def tell(self, store: JobsTable, *alerts: Alert, target: str = "default") -> None:
        """Write alerts in one transaction."""

        def work(cursor: Any, now: datetime, since: float) -> None:
            store._alerts.add(cursor, now, [(target, alert._replace(at=now)) for alert in alerts])

        await store._api_lane.run(work, "alerts")

    async def claim(
        self, store: JobsTable, limit: int = 9, timeout: float = 60.0, **rooms: int
    ) -> list[Parcel]:
        """
        :param limit: how many alerts of each target are taken at most, but for those of `rooms`.
        """
        all_rooms = {**dict.fromkeys(store.outbox.targets.names, limit), **rooms}
        return (await store.outbox.claim(all_rooms).addTimeout(timeout, reactor)).parcels


def _asking(**asked: Any) -> ScheduleRequest:
    """A PUT of a job that is due, and then each minute."""
    return replace(EACH_MINUTE, **{"immediate": True, **asked})


@each_engine(globals())
class WrittenTests(AlertsTestCase):
    """By records and claims."""

    async def test_an_incident(self) -> None:
        """
        Failing, given up and well again are told of once an incident, through several instances and
        restarts: each end is recorded by another one.
        """
        await self.open_with().put(KEY, _asking())
        ends = [self.fails] * 5
        for number, end in enumerate(ends):
            store = self.open_with(instance=f"web-{number}")
            await end(store)
            expected = ["job.failing"] if number >= 2 else []
            self.assertEqual(await self.events(store), expected)
        self.assertEqual(self.streak(), (5, 1))
        store = self.open_with()

        def given_up(run: Run, now: datetime) -> Verdict:
            return Reschedule(now, run.anchor, "500")

        await self.ends(store, given_up, Meaning.RETRY)
        await self.ends(store, given_up, Meaning.RETRY)
        told = ["job.failing", "job.given_up"]
        self.assertEqual(await self.events(store), told)
        self.assertEqual(self.streak(), (7, 3))
        await self.succeeds(store)
        await self.succeeds(store)
        self.assertEqual(await self.events(store), [*told, "job.recovered"])
        self.assertEqual(self.streak(), (0, 0))

    async def test_what_it_says(self) -> None:
        store = self.open_with()
        await store.put(KEY, _asking(alert_after=1, endpoint="billing"))
        run = await self.fails(store)
        (kept,) = await store.outbox.newest(9)
        self.assertEqual(
            kept._replace(members={}), KeptAlert({}, "ops", AlertState.WAITING, 0, None, None)
        )
        members = kept.members
        self.assertEqual(members["job"], {"path": "reports", "body": "daily"})
        self.assertEqual(members["run_id"], run.id)
        expected = {
            "event": "job.failing",
            "endpoint": "billing",
            "attempt": 1,
            "streak": 1,
            "status": 500,
            "error_kind": "status",
            "error": "500 Internal Server Error",
            "instance": "web-1",
        }
        self.assertEqual({name: members[name] for name in expected}, expected)
        for name in ("at", "scheduled", "next_run", "since"):
            self.assertRegex(members[name], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
        (parcel,) = await self.claim(store, 9)
        self.assertEqual(parcel.id.hex(), members["id"])

    async def test_where_it_goes(self) -> None:
        store = self.open_with()
        for asked, target in [
            ({}, "default"),
            ({"endpoint": "billing"}, "ops"),
            ({"endpoint": "billing", "alert_url": "default"}, "default"),
            ({"endpoint": "quiet"}, None),
            ({"alert_url": "none"}, None),
            ({"alert_url": "gone"}, "default"),
        ]:
            await store.put(KEY, _asking(alert_after=1, **asked))
            await self.fails(store)
            found = [kept.target for kept in await store.outbox.newest(9)]
            self.assertEqual(found, [target] if target else [], asked)
            # Nobody was told, so that a later configuration may tell.
            self.assertEqual(self.streak(), (1, 1 if target else 0))
            await store.delete(KEY)
            self.sql("DELETE FROM dalga_alerts")

    async def test_no_target(self) -> None:
        """Streaks are counted all the same, and nothing is written."""
        store = self.open_with(Targets())
        await store.put(KEY, _asking(alert_after=2))
        for _ in range(3):
            await self.fails(store)
        self.assertEqual(self.streak(), (3, 0))
        self.assertEqual(await self.events(store), [])
        await self.succeeds(store)
        self.assertEqual(self.streak(), (0, 0))

    async def test_removed(self) -> None:
        store = self.open_with()
        await store.put(KEY, _asking())
        await self.ends(store, lambda run, now: Delete(), Meaning.REMOVE)
        self.assertEqual(await self.events(store), ["job.removed"])
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga")[0][0], 0)

    async def test_a_last_run_that_succeeds_after_failures(self) -> None:
        """The row is gone, and that the job is well is told of."""
        store = self.open_with()
        await store.put(KEY, NOW)
        for _ in range(3):
            await self.fails(store)
        await self.ends(store, lambda run, now: Delete())
        self.assertEqual(await self.events(store), ["job.failing", "job.recovered"])

    async def test_a_put_ends_no_incident(self) -> None:
        store = self.open_with()
        await store.put(KEY, _asking(alert_after=1))
        await self.fails(store)
        await store.put(KEY, _asking(alert_after=1))
        self.assertEqual(self.streak(), (1, 1))
        await self.fails(store)
        await self.succeeds(store)
        self.assertEqual(await self.events(store), ["job.failing", "job.recovered"])

    async def test_a_put_during_the_run(self) -> None:
        """The end counts, though the run is given up by nobody (P4)."""
        store = self.open_with()
        cases: list[tuple[Verdict, Meaning, tuple[int, int]]] = [
            (Stop("500"), Meaning.RETRY, (1, 1)),
            (Delete(), Meaning.SUCCEED, (0, 0)),
        ]
        for verdict, meaning, streak in cases:
            await store.put(KEY, _asking(alert_after=1))
            run = await self.claim_one(store, KEY)
            await store.put(KEY, _asking(alert_after=1))
            await self.end(store, run, verdict, meaning)
            self.assertEqual(self.streak(), streak)
        self.assertEqual(await self.events(store), ["job.failing", "job.recovered"])

    async def test_a_delete_during_the_run(self) -> None:
        store = self.open_with()
        await store.put(KEY, _asking(alert_after=1))
        run = await self.claim_one(store, KEY)
        await store.delete(KEY)
        await self.end(store, run, Retry(store.clock.now(), "500"), Meaning.RETRY)
        self.assertEqual(await self.events(store), [])

    async def test_a_lost_lease(self) -> None:
        """What another instance has taken over, this one tells nobody of."""
        store = self.open_with()
        await store.put(KEY, _asking(alert_after=1))
        (run,) = (await store.claim(9, OVER)).runs
        again = await self.claim_one(store, KEY)
        await self.end(store, run, Retry(store.clock.now(), "500"), Meaning.RETRY)
        self.assertEqual(self.streak(), (0, 0))
        await self.end(store, again, Retry(store.clock.now(), "500"), Meaning.RETRY)
        self.assertEqual(await self.events(store), ["job.failing"])

    async def test_a_row_that_nobody_understands(self) -> None:
        """It is told of once, also where a trigger has it claimed again; a success ends that."""
        store = self.open_with()
        await store.put(KEY, _asking())
        for _ in range(2):
            self.sql("UPDATE dalga SET schedule = 'often', due = '2020-01-01 00:00:00.000000'")
            self.assertEqual((await store.claim(9, LONG)).runs, [])
            self.assertEqual(self.streak(), (0, 8))
        (members,) = await self.alerts(store)
        self.assertEqual(members["event"], "job.problem")
        self.assertEqual(members["job"], {"path": "reports", "body": "daily"})
        self.assertIn("often", members["error"])
        self.flushLoggedErrors()
        await store.put(KEY, _asking())
        await self.succeeds(store)
        self.assertEqual(await self.events(store), ["job.problem", "job.recovered"])

    async def test_a_row_that_nobody_is_told_of(self) -> None:
        """Where no alert is sent, nothing is asked for one."""
        store = self.open_with(Targets())
        await store.put(KEY, _asking())
        self.sql("UPDATE dalga SET schedule = 'often', due = '2020-01-01 00:00:00.000000'")
        asked = []
        self.patch(store._alerts._sql.read_told, "fetch", lambda *_, **values: asked.append(values))
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.flushLoggedErrors()
        self.assertEqual((await store.counts()).set_aside, 1)
        self.assertEqual(asked, [])

    async def test_streaks_that_are_none(self) -> None:
        """P6: whatever somebody's SQL has written."""
        store = self.open_with()
        await store.put(KEY, _asking(alert_after=2))
        self.sql("UPDATE dalga SET streak = 4294967295, alerted = 240")
        await self.fails(store)
        self.assertEqual(self.streak(), (4294967295, 1))
        self.assertEqual(await self.events(store), ["job.failing"])


@each_engine(globals())
class SilenceTests(AlertsTestCase):
    """Jobs that are expected to succeed now and then."""

    def silent(self) -> Any:
        """When the only such job is silent."""
        ((silent,),) = self.sql("SELECT silent FROM dalga_expected")
        return silent

    def be_silent(self) -> None:
        self.sql("UPDATE dalga_expected SET silent = '2020-01-01 00:00:00.000000'")

    async def test_silent(self) -> None:
        """Once, until a success. Two instances look at the same time."""
        store, other = self.open_with(), self.open_with()
        await store.put(KEY, _asking(expect_within=HOUR))
        self.assertFalse(await store.lookout.silences())
        self.be_silent()
        for each in (store, other, store):
            await each.lookout.silences()
        (members,) = await self.alerts(store)
        self.assertEqual(members["event"], "job.silent")
        self.assertEqual(members["since"], "2019-12-31T23:00:00Z")
        self.assertEqual(members["job"], {"path": "reports", "body": "daily"})
        self.assertIsNone(self.silent())
        await self.fails(store)
        self.assertIsNone(self.silent())
        await self.succeeds(store)
        self.assertEqual(await self.events(store), ["job.silent", "job.recovered"])
        self.be_silent()
        await store.lookout.silences()
        self.assertEqual((await self.events(store))[2:], ["job.silent"])

    async def test_times_that_nobody_can_have_written(self) -> None:
        """P6: a job is told of, whatever its row says of when."""
        store = self.open_with()
        await store.put(KEY, _asking(expect_within=HOUR))
        self.sql("UPDATE dalga_expected SET silent = '0001-01-01 00:00:00.000000'")
        await store.lookout.silences()
        self.assertEqual(await self.events(store), ["job.silent"])

    async def test_a_silence_without_end(self) -> None:
        """
        P6: what a stranger has written during a run keeps it from no record; the next claim sets
        the job aside, and says why.
        """
        store = self.open_with()
        await store.put(KEY, _asking(expect_within=HOUR))
        run = await self.claim_one(store, KEY)
        self.sql("UPDATE dalga SET options = %s", ('{"expect-within":86399999999999}',))
        await self.end(store, run, Reschedule(store.clock.now(), run.anchor))
        self.assertEqual((await store.claim(9, LONG)).runs, [])
        self.flushLoggedErrors()
        job = await store.get(KEY)
        assert isinstance(job, UnreadableJob)
        self.assertIn("86399999999999 is no silence in seconds, from 0 to 315360000", job.problem)

    async def test_many_at_once(self) -> None:
        """A few in each transaction."""
        store = self.open_with()
        jobs = SILENCES + 1
        for number in range(jobs):
            await store.put(JobKey("p", str(number)), _asking(expect_within=HOUR))
        self.be_silent()
        self.assertTrue(await store.lookout.silences())
        self.assertFalse(await store.lookout.silences())
        self.assertEqual(await self.events(store), ["job.silent"] * jobs)

    async def test_a_success_pushes_it_on(self) -> None:
        store = self.open_with()
        await store.put(KEY, _asking(expect_within=HOUR))
        self.be_silent()
        await self.succeeds(store)
        self.assertGreater(str(self.silent()), "2021")
        await store.lookout.silences()
        self.assertEqual(await self.events(store), [])

    async def test_puts(self) -> None:
        """One that schedules the job anew counts from then; one that updates it changes nothing."""
        store = self.open_with()
        await store.put(KEY, _asking(expect_within=HOUR))
        self.be_silent()
        update = {"if_exists": IfExists.UPDATE, "immediate": False, "interval": seconds(60)}
        await store.put(KEY, _asking(expect_within=HOUR, alert_after=9, **update))
        self.assertLess(str(self.silent()), "2021")
        await store.put(KEY, _asking(expect_within=2 * HOUR, **update))
        self.assertGreater(str(self.silent()), "2021")
        self.be_silent()
        await store.put(KEY, _asking(expect_within=HOUR))
        self.assertGreater(str(self.silent()), "2021")
        # A job of which nothing is expected any more is forgotten when its time is there.
        await store.put(KEY, _asking())
        self.be_silent()
        await store.lookout.silences()
        self.assertEqual(await self.events(store), [])
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga_expected")[0][0], 0)

    async def test_jobs_that_are_gone(self) -> None:
        store = self.open_with()
        for end in (
            lambda run: store.delete(KEY),
            lambda run: self.end(store, run, Delete()),
        ):
            await store.put(KEY, _asking(expect_within=HOUR))
            run = await self.claim_one(store, KEY)
            await end(run)
            await self.end(store, run, Delete())
            self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga_expected")[0][0], 0)
        # Somebody's SQL has deleted it.
        await store.put(KEY, _asking(expect_within=HOUR))
        self.sql("DELETE FROM dalga")
        self.be_silent()
        await store.lookout.silences()
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga_expected")[0][0], 0)
        self.assertEqual(await self.events(store), [])

    async def test_a_disabled_job_is_not_silent(self) -> None:
        store = self.open_with()
        await store.put(KEY, _asking(expect_within=HOUR))
        await store.disable(KEY)
        self.be_silent()
        await store.lookout.silences()
        self.assertEqual(await self.events(store), [])
        self.assertGreater(str(self.silent()), "2021")

    async def test_beside_a_payload(self) -> None:
        """The job has rows in several tables, and all are gone with it."""
        store = self.open_with()
        for _ in range(2):
            await store.put(KEY, _asking(expect_within=HOUR, tags=("a",), description="d"))
        await store.delete(KEY)
        for table in ("dalga", "dalga_details", "dalga_tags", "dalga_expected"):
            self.assertEqual(self.sql(f"SELECT COUNT(*) FROM {table}")[0][0], 0)


@each_engine(globals(), only=("mariadb", "mysql"))
class LockTests(AlertsTestCase):
    """P7: nobody waits for an alert that somebody else has locked, nor locks one for nothing."""

    def insert(self, *numbers: int, due: str | None = None) -> list[bytes]:
        """Write alerts as a stranger would; gives their ids."""
        ids = [bytes([number]) * 16 for number in numbers]
        for number, id in zip(numbers, ids, strict=True):
            self.sql(
                "INSERT INTO dalga_alerts"
                " (id, event, endpoint, path, body, target, made, due, content)"
                " VALUES (%s, 'job.failing', 'default', 'p', %s, 'default', UTC_TIMESTAMP(6), %s,"
                " '{}')",
                (id, str(number), due),
            )
        return ids

    async def test_a_claim(self) -> None:
        store = self.open_with()
        first, *_ = self.insert(1, 2, 3, due="2020-01-01")
        with closing(self.connect()) as stranger:
            cursor = stranger.cursor()
            cursor.execute("SELECT * FROM dalga_alerts WHERE id = %s FOR UPDATE", (first,))
            parcels = await self.claim(store, 9, timeout=1)
            self.assertEqual(len(parcels), 2)
            settled = [Settled(each, None, None) for each in parcels]
            await store.outbox.settle(settled).addTimeout(1, reactor)
            stranger.rollback()
        self.assertEqual(len(await self.claim(store, 9)), 1)

    async def test_an_earlier_alert_is_locked(self) -> None:
        """By another instance, which is about to claim it: a later one of the job waits."""
        store = self.open_with()
        job = RawKey("p", "a")
        await self.tell(store, Alert(Event.JOB_FAILING, NEVER, job, "default"))
        await self.tell(store, Alert(Event.JOB_RECOVERED, NEVER, job, "default"))
        with closing(self.connect()) as stranger:
            cursor = stranger.cursor()
            cursor.execute("SELECT * FROM dalga_alerts WHERE event = 'job.failing' FOR UPDATE")
            self.assertEqual(await self.claim(store, timeout=1), [])
            stranger.rollback()

    def test_alerts_are_written_by_their_ids(self) -> None:
        """
        By their due times the optimizer would come upon those of other senders, where it takes
        these for few, which is a matter of chance; there is only the plan to be looked at.
        """
        self.open_with()
        ids = [*self.insert(1, due="2020-01-01"), *self.insert(2, 3)]
        sql = AlertStatements(self.stores[0]._dialect)
        for statement in (sql.take, sql.postpone, sql.fold):
            values = dict.fromkeys(statement.names - {"id"}, "2100-01-01")
            self.assertEqual(self.index(*statement.bound(ids, values)), "PRIMARY", statement)


@each_engine(globals())
class OutboxTests(AlertsTestCase):
    """Alerts that are sent."""

    async def test_claimed_by_one(self) -> None:
        store, other = self.open_with(), self.open_with()
        await self.add(store, 3)
        parcels = await self.claim(store, 2)
        self.assertEqual(len(parcels), 2)
        self.assertEqual(len(await self.claim(other, 9)), 1)
        self.assertEqual(await self.claim(other, 9), [])
        self.assertEqual({parcel.attempt for parcel in parcels}, {1})
        self.assertAlmostEqual(parcels[0].lasts / LASTS, 1, places=2)
        # Its instance dies: the lease ends, and another one sends the same.
        self.sql("UPDATE dalga_alerts SET due = '2020-01-01 00:00:00.000000'")
        again = await self.claim(other, 2)
        self.assertEqual({each.id for each in again}, {each.id for each in parcels})
        self.assertEqual({parcel.attempt for parcel in again}, {2})
        # What the first one has to say does not count any more.
        await store.outbox.settle([Settled(each, None, None) for each in parcels])
        self.assertEqual({each.state for each in await self.newest(store)}, {AlertState.WAITING})
        await other.outbox.settle([Settled(each, None, None) for each in again])
        states = [each.state for each in await self.newest(store)]
        self.assertEqual(states.count(AlertState.SENT), 2)

    async def test_what_nobody_can_have_written(self) -> None:
        """P6: of any row, the others are sent, and all of them are listed."""
        store = self.open_with()
        deep = '{"a":' * 5000
        for change in (
            "made = '9999-12-31 23:59:59'",
            f"content = '{deep}'",
            """content = '{"id":NaN}'""",
            *(["made = ''", "sent = 'x'"] if self.engine == "sqlite" else ()),
        ):
            await self.add(store, 1)
            self.sql(f"UPDATE dalga_alerts SET {change}")
            await self.add(store, 1)
            parcels = await self.claim(store, 9)
            self.assertEqual(len(parcels), 2, change)
            self.assertLessEqual(max(parcel.lasts for parcel in parcels), LASTS)
            for kept in await self.newest(store):
                json.dumps(kept.members, allow_nan=False)
            self.sql("DELETE FROM dalga_alerts")

    async def test_ids_that_are_no_octets(self) -> None:
        """P6: nobody can take such an alert; the others are sent, and none of them is removed."""
        if self.engine != "sqlite":
            return
        store = self.open_with()
        for change in ("id = 'x'", "id = 7"):
            await self.add(store, 1)
            self.sql(f"UPDATE dalga_alerts SET {change}, due = '2020-01-01 00:00:00.000000'")
            await self.add(store, AT_ONCE + 1)
            await store.outbox.forget(9)
            self.assertEqual(len(await self.claim(store, 99)), AT_ONCE)
            self.sql("DELETE FROM dalga_alerts")

    async def test_attempts_that_are_none(self) -> None:
        """P6: such an alert is in a summary like any other."""
        store = self.open_with()
        await self.add(store, AT_ONCE + 1)
        if self.engine == "sqlite":
            self.sql("UPDATE dalga_alerts SET attempts = 'x'")
        self.assertEqual(len(await self.claim(store, 99)), AT_ONCE)

    async def test_a_claim_looks_at_no_more_than_it_needs(self) -> None:
        """The alerts of many endpoints are due: it asks for as many as it takes."""
        store = self.open_with()
        for number in range(5):
            await self.add(store, 1, f"endpoint{number}")
        asked = []
        in_turn = store.outbox._in_turn

        def counted(*arguments: Any) -> Any:
            asked.append(arguments)
            return in_turn(*arguments)

        self.patch(store.outbox, "_in_turn", counted)
        self.assertEqual([len(await self.claim(store, 2)) for _ in range(4)], [2, 2, 1, 0])
        self.assertEqual(len(asked), 5)

    async def newest(self, store: JobsTable) -> list[KeptAlert]:
        return await store.outbox.newest(100)

    async def test_what_becomes_of_them(self) -> None:
        store = self.open_with()
        await self.add(store, 3)
        sent, again, given_up = await self.claim(store, 9)
        await store.outbox.settle(
            [
                Settled(sent, None, None),
                Settled(again, HOUR, "it answered 500"),
                Settled(given_up, None, "x" * 300),
            ]
        )
        found = {each.members["id"]: each for each in await self.newest(store)}
        self.assertEqual(found[sent.id.hex()].state, AlertState.SENT)
        self.assertIsNotNone(found[sent.id.hex()].sent)
        self.assertEqual(found[again.id.hex()].state, AlertState.WAITING)
        self.assertEqual(found[again.id.hex()].error, "it answered 500")
        self.assertEqual(found[given_up.id.hex()].state, AlertState.GIVEN_UP)
        self.assertEqual(await self.claim(store, 9), [])
        self.assertEqual((await store.lookout.watch()).pending, 1)

    async def test_targets_of_others(self) -> None:
        """An instance that has not the target leaves the alert to others."""
        store, other = self.open_with(), self.open_with(Targets(("ops",)))
        await self.add(store, 1)
        self.assertEqual(await self.claim(other, 9), [])
        self.assertEqual(len(await self.claim(store, 9)), 1)

    async def test_many(self) -> None:
        """More than 20 a minute of one endpoint become one; other endpoints' are sent."""
        store, other = self.open_with(), self.open_with()
        await self.add(store, 45)
        await self.add(store, 2, "billing")
        taken: list[Parcel] = []
        for each in (store, other, store, other):
            taken += await self.claim(each, 10)
        self.assertEqual(len(taken), AT_ONCE + 2)
        await self.add(store, 5)
        self.assertEqual(await self.claim(store, 10), [])
        # What says why so many jobs fail is sent at once.
        for begins, event in ((True, Event.ENDPOINT_DOWN), (False, Event.ENDPOINT_UP)):
            alert = Alert(event, store.clock.now(), endpoint="default")
            tell = store.lookout.begin if begins else store.lookout.end
            self.assertTrue(await tell("endpoint.down default", alert))
            [parcel] = await self.claim(store, 10)
            self.assertIn(f'"{event}"', parcel.content)
            await store.outbox.settle([Settled(parcel, None, None)])
        await store.outbox.settle([Settled(each, None, None) for each in taken])
        states = [each.state for each in await self.newest(store)]
        self.assertEqual(states.count(AlertState.SUMMARIZED), 45 + 5 - AT_ONCE)
        self.assertEqual(states.count(AlertState.WAITING), 1)
        # The minute is over.
        self.sql(
            "UPDATE dalga_alerts SET sent = '2020-01-01 00:00:00.000000' WHERE sent IS NOT NULL"
        )
        self.sql("UPDATE dalga_alerts SET due = '2020-01-01 00:00:00.000000' WHERE due IS NOT NULL")
        await self.add(store, 1)
        parcels = await self.claim(store, 10)
        await store.outbox.settle([Settled(each, None, None) for each in parcels])
        first, second = [
            each.members
            for each in await self.newest(store)
            if each.members["id"] in {parcel.id.hex() for parcel in parcels}
        ]
        self.assertEqual({first["event"], second["event"]}, {"job.failing", "alerts.summary"})
        summary = first if first["event"] == "alerts.summary" else second
        self.assertEqual(summary["counts"], {"job.failing": 30})
        self.assertEqual(len(summary["jobs"]), 10)
        self.assertEqual(summary["endpoint"], "default")
        self.assertEqual((await store.lookout.watch()).pending, 0)

    async def test_alerts_that_did_not_arrive_are_in_no_summary(self) -> None:
        store = self.open_with()
        await self.add(store, AT_ONCE)
        for _ in range(2):
            parcels = await self.claim(store, 10)
            await store.outbox.settle([Settled(each, timedelta(), "503") for each in parcels])
        self.assertEqual(await self.claim(store, 10), [])
        self.sql("UPDATE dalga_alerts SET sent = '2020-01-01 00:00:00.000000'")
        self.sql("UPDATE dalga_alerts SET due = '2020-01-01 00:00:00.000000'")
        self.assertEqual(len(await self.claim(store, 10)), 10)

    async def test_old_ones_are_removed(self) -> None:
        store = self.open_with()
        await self.add(store, 3)
        old = id_at(store.clock.now() - timedelta(days=8))
        for number in range(3):
            id = old + bytes([number]) + bytes(7)
            self.sql(
                "INSERT INTO dalga_alerts (id, event, endpoint, target, made, content)"
                " VALUES (%s, 'job.failing', %s, %s, '2020-01-01 00:00:00.000000', '{')",
                (id, self.key("default"), self.key("default")),
            )
        found = [(await store.outbox.forget(2)).has_more for _ in range(2)]
        self.assertEqual(found, [True, False])
        self.assertEqual(len(await self.newest(store)), 3)

    async def test_a_target_that_is_in_no_configuration(self) -> None:
        """
        Nobody claims its alerts: they are put off, and wait for no longer than those that do not
        arrive. P7: claims do not come upon them.
        """
        store, other = self.open_with(Targets(("ops",))), self.open_with()
        now = store.clock.now()
        for hours in (26, 25.5, 23):
            id = id_at(now - timedelta(hours=hours)) + bytes(8)
            self.sql(
                "INSERT INTO dalga_alerts (id, event, endpoint, target, made, due, content)"
                " VALUES (%s, 'job.failing', %s, %s, '2020-01-01 00:00:00.000000',"
                " '2020-01-01 00:00:00.000000', '{}')",
                (id, self.key("default"), self.key("default")),
            )
        self.assertEqual(await self.claim(store, 9), [])
        nothing = Forgotten(False, (), 0)
        self.assertEqual(await other.outbox.forget(9), nothing)  # which has the target
        self.assertEqual((await store.lookout.watch()).pending, 3)
        self.assertEqual(await store.outbox.forget(1), Forgotten(True, ("default",), 1))
        self.assertEqual(await store.outbox.forget(9), Forgotten(False, ("default",), 1))
        self.assertEqual(await store.outbox.forget(9), nothing)
        found = await self.newest(store)
        self.assertEqual(
            [each.state for each in found],
            [AlertState.WAITING, AlertState.GIVEN_UP, AlertState.GIVEN_UP],
        )
        self.assertIn("no instance has a target", str(found[1].error))
        ((due,),) = self.sql("SELECT due FROM dalga_alerts WHERE due IS NOT NULL")
        later = datetime.fromisoformat(str(due)).replace(tzinfo=UTC)
        self.assertAlmostEqual((later - now) / PUT_OFF, 1, places=1)
        # An instance that has the target sends the alert.
        self.let_go_by()
        self.assertEqual(len(await self.claim(other)), 1)

    async def test_another_instance_may_have_the_target(self) -> None:
        """What has not been due for long is left to that one."""
        store, other = self.open_with(), self.open_with(Targets(("ops",)))
        await self.add(store, 1)
        due = store.clock.now() - UNTAKEN + MINUTE
        self.sql("UPDATE dalga_alerts SET due = %s", (store._dialect.instant(due),))
        self.assertEqual(await other.outbox.forget(9), Forgotten(False, (), 0))
        self.assertEqual(len(await self.claim(store)), 1)

    async def test_rooms(self) -> None:
        """Of each target as many as there is room for, whatever waits for others."""
        store = self.open_with()
        await self.add(store, 5)
        alert = Alert(Event.JOB_FAILING, NEVER, RawKey("p", "ops"), "billing")
        await self.tell(store, alert, target="ops")
        self.assertEqual([each.target for each in await self.claim(store, default=0)], ["ops"])
        self.assertEqual(len(await self.claim(store, default=2)), 2)
        self.assertEqual(len(await self.claim(store, default=9)), 3)

    async def test_a_crowd_for_a_target_without_room(self) -> None:
        """A summary stands for it meanwhile, so that it is in no other target's way."""
        store = self.open_with()
        await self.add(store, 2 * LOOKED_AT)
        again = []
        for _ in range(3):
            taken = await store.outbox.claim({"default": 0, "ops": 9})
            self.assertEqual(taken.parcels, [])
            again.append(taken.again)
        self.assertEqual(again, [timedelta(), timedelta(), None])
        ((left,),) = self.sql(
            "SELECT COUNT(*) FROM dalga_alerts WHERE due <= %s",
            (store._dialect.instant(await store.now()),),
        )
        self.assertEqual(left, AT_ONCE)
        self.assertEqual(len(await self.claim(store, 99)), AT_ONCE)

    async def test_a_clock_that_was_set_back(self) -> None:
        """What was sent at a time that is still to come holds up nothing (P8)."""
        store = self.open_with()
        await self.add(store, AT_ONCE + 1)
        self.sql("UPDATE dalga_alerts SET sent = '2999-01-01 00:00:00.000000'")
        self.assertEqual(len(await self.claim(store, 10)), 10)

    async def test_incidents(self) -> None:
        """Of two instances that see the same, one tells of it."""
        store, other = self.open_with(), self.open_with(instance="web-2")
        down = Alert(Event.ENDPOINT_DOWN, store.clock.now(), endpoint="billing")
        name = "endpoint.down billing"
        self.assertEqual(
            [await each.lookout.begin(name, down) for each in (store, other, store)],
            [True, False, False],
        )
        watch = await other.lookout.watch()
        self.assertEqual(list(watch.incidents), [name])
        up = Alert(Event.ENDPOINT_UP, store.clock.now(), endpoint="billing")
        self.assertEqual(
            [await each.lookout.end(name, up) for each in (other, store)], [True, False]
        )
        self.assertEqual(await self.events(store), ["endpoint.down", "endpoint.up"])
        first, last = await self.alerts(store)
        self.assertEqual((first["instance"], last["instance"]), ("web-1", "web-2"))
        self.assertIsNotNone(last["since"])
        self.assertTrue(await store.lookout.begin(name, down))

    async def test_lag(self) -> None:
        store = self.open_with()
        self.assertEqual((await store.lookout.watch()).lag, timedelta())
        await store.put(KEY, EACH_MINUTE)
        self.assertEqual((await store.lookout.watch()).lag, timedelta())
        self.in_the_past("a")
        self.assertGreater((await store.lookout.watch()).lag, timedelta(days=365))


@each_engine(globals())
class OrderTests(AlertsTestCase):
    """The alerts of one job to one target are sent in the order in which they were made."""

    JOB = RawKey("p", "a")

    async def failing_and_recovered(self, store: JobsTable, target: str = "default") -> None:
        for event in (Event.JOB_FAILING, Event.JOB_RECOVERED):
            await self.tell(store, Alert(event, NEVER, self.JOB, "default"), target=target)

    async def claim_events(self, store: JobsTable, **rooms: int) -> list[str]:
        parcels = await self.claim(store, **rooms)
        return sorted(json.loads(parcel.content)["event"] for parcel in parcels)

    async def settle(
        self, store: JobsTable, parcels: list[Parcel], again: timedelta | None = None
    ) -> None:
        error = None if again is None else "503"
        await store.outbox.settle([Settled(each, again, error) for each in parcels])

    async def test_one_after_the_other(self) -> None:
        store, other = self.open_with(), self.open_with()
        await self.failing_and_recovered(store)
        first = await self.claim(store)
        self.assertEqual(len(first), 1)
        self.assertIn("job.failing", first[0].content)
        self.assertEqual(await self.claim(other), [])
        await self.settle(store, first)
        self.let_go_by()
        self.assertEqual(await self.claim_events(other), ["job.recovered"])

    async def test_a_receiver_that_was_away(self) -> None:
        """The later alert waits as long as the earlier one does, and no other job's waits."""
        store = self.open_with()
        await self.tell(store, Alert(Event.JOB_FAILING, NEVER, self.JOB, "default"))
        await self.settle(store, await self.claim(store), MINUTE)
        await self.tell(store, Alert(Event.JOB_RECOVERED, NEVER, self.JOB, "default"))
        await self.add(store, 2)
        self.assertEqual(await self.claim_events(store), ["job.failing"] * 2)
        self.assertEqual(await self.claim(store), [])
        dues = self.sql("SELECT due FROM dalga_alerts WHERE body = %s", (self.key("a"),))
        self.assertEqual(len(set(dues)), 1, dues)
        # Both are due at the same time.
        self.let_go_by()
        first = await self.claim(store)
        self.assertIn('"body":"a"', "".join(each.content for each in first))
        self.assertNotIn("job.recovered", "".join(each.content for each in first))
        await self.settle(store, first)
        self.let_go_by()
        self.assertEqual(await self.claim_events(store), ["job.recovered"])

    async def test_the_earlier_one_is_given_up(self) -> None:
        store = self.open_with()
        await self.failing_and_recovered(store)
        (first,) = await self.claim(store)
        await store.outbox.settle([Settled(first, None, "404")])
        self.let_go_by()
        self.assertEqual(await self.claim_events(store), ["job.recovered"])

    async def test_a_day_at_most(self) -> None:
        """P6: an earlier alert that is never over, whoever has written it, holds up none."""
        store = self.open_with()
        id = id_at(store.clock.now() - LASTS - MINUTE) + bytes(8)
        self.sql(
            "INSERT INTO dalga_alerts (id, event, endpoint, path, body, target, made, due, content)"
            " VALUES (%s, 'job.failing', %s, %s, %s, %s, '2020-01-01 00:00:00.000000',"
            " '9999-01-01 00:00:00.000000', '{}')",
            (id, *map(self.key, ("default", *self.JOB, "default"))),
        )
        await self.tell(store, Alert(Event.JOB_RECOVERED, NEVER, self.JOB, "default"))
        self.assertEqual(await self.claim_events(store), ["job.recovered"])

    async def test_due_times_of_others(self) -> None:
        """P6: an alert is put off by minutes, whatever the earlier one's row says."""
        store = self.open_with()
        await self.failing_and_recovered(store)
        for due in ("9999-01-01 00:00:00.000000", *(["often"] if self.engine == "sqlite" else [])):
            self.sql("UPDATE dalga_alerts SET due = %s WHERE event = 'job.failing'", (due,))
            self.sql(
                "UPDATE dalga_alerts SET due = '2020-01-01 00:00:00.000000'"
                " WHERE event = 'job.recovered'"
            )
            taken = await store.outbox.claim({"default": 9})
            assert taken.again is not None
            self.assertEqual(taken.parcels, [])
            self.assertLessEqual(taken.again, PUT_OFF)

    async def test_other_targets(self) -> None:
        """The order is kept for each target alone."""
        store = self.open_with()
        await self.failing_and_recovered(store)
        await self.failing_and_recovered(store, target="ops")
        self.assertEqual(await self.claim_events(store, default=0), ["job.failing"])
        self.assertEqual(await self.claim_events(store), ["job.failing"])

    async def test_endpoints_and_the_scheduler(self) -> None:
        """Each is a subject of its own. Nothing waits for a summary."""
        store = self.open_with()
        for event, endpoint in (
            (Event.SUMMARY, "default"),
            (Event.ENDPOINT_DOWN, "default"),
            (Event.ENDPOINT_UP, "default"),
            (Event.LAGGING, None),
            (Event.CAUGHT_UP, None),
        ):
            await self.tell(store, Alert(event, NEVER, endpoint=endpoint))
        await self.tell(store, Alert(Event.JOB_FAILING, NEVER, self.JOB, "default"))
        parcels = await self.claim(store)
        self.assertEqual(
            {json.loads(each.content)["event"] for each in parcels},
            {"alerts.summary", "endpoint.down", "scheduler.lagging", "job.failing"},
        )
        await self.settle(store, parcels)
        self.let_go_by()
        self.assertEqual(await self.claim_events(store), ["endpoint.up", "scheduler.recovered"])

    async def test_in_one_millisecond(self) -> None:
        """The ids go up with the time, by which the order goes."""
        store = self.open_with()
        began = NEVER.replace(year=2026)
        ids = [store._alerts.new_id(began + timedelta(microseconds=at)) for at in range(1010)]
        self.assertEqual(ids, sorted(ids))
        self.assertEqual({len(id) for id in ids}, {16})

    async def test_the_others_of_the_endpoint(self) -> None:
        """Alerts that wait take no place in the minute from those that need not."""
        store = self.open_with()
        await self.failing_and_recovered(store)
        await self.settle(store, await self.claim(store), HOUR)
        more = [Alert(Event.JOB_FAILING, NEVER, self.JOB, "default")] * (AT_ONCE + 1)
        await self.tell(store, *more)
        await self.add(store, 1)
        (found,) = await self.claim(store)
        self.assertEqual(json.loads(found.content)["job"]["path"], "p")
        self.assertNotEqual(json.loads(found.content)["job"]["body"], "a")

    async def test_a_job_with_many(self) -> None:
        """Those that wait are in no other job's way, and a summary stands for most of them."""
        store = self.open_with()
        await self.failing_and_recovered(store)
        await self.settle(store, await self.claim(store), HOUR)
        more = [Alert(Event.JOB_FAILING, NEVER, self.JOB, "default")] * (3 * LOOKED_AT)
        await self.tell(store, *more)
        await self.add(store, 1, "billing")
        found: list[Parcel] = []
        for _ in range(4):
            found += await self.claim(store)
        self.assertEqual([json.loads(each.content)["endpoint"] for each in found], ["billing"])
        summarized = "SELECT COUNT(*) FROM dalga_alerts WHERE due IS NULL AND attempts = 0"
        self.assertGreater(self.sql(summarized)[0][0], 2 * LOOKED_AT)


@each_engine(globals(), only=("mariadb", "mysql"))
class WithoutSkipLockedTests(AlertsTestCase):
    """A server that knows no SKIP LOCKED: the due time alone tells who has claimed an alert."""

    async def test_claimed_between_two_statements(self) -> None:
        """By another instance: it is sent by that one alone."""
        store = self.open_with()
        store._dialect.skip_locked = ""
        await self.add(store, 1)
        make_token = store.outbox._token

        def token() -> bytes:
            self.sql("UPDATE dalga_alerts SET due = '2100-01-01 00:00:00.000000'")
            return make_token()

        self.patch(store.outbox, "_token", token)
        self.assertEqual(await self.claim(store, 9), [])
