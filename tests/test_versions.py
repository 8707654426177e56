"""
Tables of our own earlier schemas become tables of the present one, in place.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from itertools import product
from typing import Any

import pymysql
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import JobNotFound, StartupError, StoreUnavailable
from dalga.model.key import JobKey
from dalga.model.run import Delete
from dalga.store import mysql
from dalga.store import upgrade as room
from dalga.store.schema import BESIDE, BESIDE_SINCE, HEARTBEATS, HEARTBEATS_OF, VERSION
from dalga.store.versions import STATEMENTS, statements_of
from tests.examples import MINUTE, ended
from tests.stores import EACH_MINUTE, LONG, each_engine, server
from tests.upgrades import (
    Expected,
    KilledTestCase,
    LaterVersion,
    UpgradeTestCase,
    at,
    going_back,
    plain,
    watched,
)

#: Jobs in the large table; docs/upgrading.md has figures of 1,000,000.
ROWS = int(os.environ.get("DALGA_TEST_ROWS", "100000"))


class OwnTestCase(UpgradeTestCase):
    """A test on a table of ours."""

    def make_table(self, version: int) -> None:
        """One of an earlier schema; those of schema 1 and 3 have rows in them."""
        engine = "sqlite" if self.engine == "sqlite" else "mysql"
        self.run_file(f"schema_{version}_{engine}.sql")

    def version(self) -> int | None:
        """The schema version of the jobs table."""
        if self.engine == "sqlite":
            return int(self.sql("PRAGMA user_version")[0][0])
        ((comment,),) = self.sql(
            "SELECT table_comment FROM information_schema.tables"
            " WHERE table_schema = DATABASE() AND table_name = 'dalga'"
        )
        return int(comment.removeprefix("dalga schema "))

    def shape(self) -> Any:
        """The columns and indexes of the tables. On SQLite new columns come last."""
        names = self.names()
        tables = (f"dalga{suffix}" for suffix in ("", HEARTBEATS, *BESIDE))
        return [self.shape_of(table) if table in names else None for table in tables]

    def shape_of(self, table: str) -> Any:
        """The columns and indexes of a table, which is there."""
        if self.engine != "sqlite":
            return self.definition(table)
        columns = self.sql(f"PRAGMA table_info({table})")
        indexes = self.sql(f"PRAGMA index_list({table})")
        return sorted(column[1:4] for column in columns), sorted(index[1:] for index in indexes)

    def reset(self) -> None:
        tables = [f"dalga{suffix}" for suffix in ("", *BESIDE, *HEARTBEATS_OF.values())]
        if self.engine != "sqlite":
            self.sql(f"DROP TABLE IF EXISTS {', '.join(tables)}")
            return
        for table in tables:
            self.sql(f"DROP TABLE IF EXISTS {table}")
        self.sql("PRAGMA user_version = 0")

    def make_new_table(self) -> None:
        """One that never was anything else, in the place of the one that is there."""
        for table in self.names():
            if table.startswith("dalga"):
                self.sql(f"DROP TABLE {table}")
        store = self.make_store()
        if self.engine != "sqlite":
            store.create_table()
        store.open()


@each_engine(globals())
class SchemaOneTests(OwnTestCase):
    """Tables of schema 1, through all versions."""

    def setUp(self) -> None:
        super().setUp()
        self.make_table(1)

    async def test_jobs(self) -> None:
        """All jobs and their next runs are kept; one that was deleted during its run is gone."""
        said = self.upgrade()
        self.assertIn("has schema version 1", said)
        expected: Expected = {
            ("check_feed", "1234"): plain("60", "2099-01-01 00:00:00.250000"),
            ("check_feed", "overdue"): plain("60", "2021-03-04 05:06:07"),
            ("remind", "later"): plain("", "2099-01-01 00:00:01"),
            ("check_feed", "killed, scheduled"): (
                "60",
                "UTC",
                at("2099-01-01 00:00:02"),
                at("2021-03-04 05:06:31"),  # the end of the lease
            ),
        }
        store = self.make_store()
        store.open()
        for (path, body), (schedule, _, scheduled, next_run) in expected.items():
            job = await self.job(store, JobKey(path, body))
            self.assertEqual(
                (job.schedule.text, job.anchor, job.scheduled, job.next_run),
                (schedule, scheduled, scheduled, next_run),
            )
        failing = await self.job(store, JobKey("check_feed", "failing"))
        self.assertEqual(failing.attempts, 5)
        self.assertEqual(failing.error, "500 Internal Server Error")
        aside = await store.get(JobKey("check_feed", "aside"))
        self.assertEqual(getattr(aside, "problem", ""), "interval is 'hourly'")
        await self.assertFailure(store.get(JobKey("check_feed", "killed, deleted")), JobNotFound)

    async def test_runs(self) -> None:
        """A run that was begun goes on as the same run."""
        self.upgrade()
        store = self.make_store()
        store.open()
        claimed = await store.claim(100, LONG)
        self.assertEqual(
            [(run.key.body, run.attempt) for run in claimed.runs], [("overdue", 1), ("killed", 2)]
        )
        self.assertEqual(claimed.runs[1].id, "000102030405060708090a0b0c0d0e0f-9")
        job = await self.job(store, JobKey("check_feed", "killed, scheduled"))
        self.assertEqual(job.next_run, at("2099-01-01 00:00:02"))

    def test_the_new_table(self) -> None:
        """It does not differ from one that was never anything else."""
        self.upgrade()
        upgraded = self.shape()
        self.make_new_table()
        self.assertEqual(upgraded, self.shape())

    def test_dry_run(self) -> None:
        """It says what it would do, and changes nothing."""
        before = self.tables()
        said = self.upgrade(dry_run=True)
        self.assertIn("has schema version 1", said)
        self.assertIn("nothing has been changed", said)
        self.assertEqual(self.tables(), before)

    def test_twice(self) -> None:
        """The second time there is nothing to do."""
        self.upgrade()
        before = self.tables()
        self.assertIn("there is nothing to do", self.upgrade())
        self.assertEqual(self.tables(), before)

    def test_runs_under_way(self) -> None:
        """While a lease lasts nothing is touched."""
        self.sql("UPDATE dalga SET due = '2099-01-01 00:00:00.000000' WHERE id = 9")
        before = self.tables()
        sentence = self.refused()
        self.assertIn("runs under way: 1", sentence)
        self.assertIn("2099-01-01T00:00:00Z", sentence)
        self.assertEqual(self.tables(), before)

    def test_a_failure(self) -> None:
        """What goes wrong on the way leaves a whole table, and the same command goes on."""
        before = self.tables()

        def fail(sql: str) -> None:
            if "superseded TO override" in sql:  # from schema 2
                raise OSError(28, "No space left on device")

        with closing(room.upgrade(watched(self.dialect(), fail), False)) as lines:
            self.assertRaises((OSError, StartupError), list, lines)
        if self.engine == "sqlite":
            self.assertEqual(self.tables(), before)
        else:
            self.assertEqual(self.version(), 2)
            self.assertIn("dalga_heartbeats", self.names())
        self.assertIn("done: ", self.upgrade())

    def test_starting_on_it(self) -> None:
        """What is to be done is said."""
        for start in (self.make_store().open, self.make_store().create_table):
            sentence = str(self.assertRaises(StartupError, start))
            self.assertIn("has schema version 1, of an earlier version of Dalga", sentence)
            self.assertIn("dalga --config FILE --upgrade-table", sentence)

    def test_a_later_schema(self) -> None:
        """It is not for this version to touch."""
        if self.engine == "sqlite":
            self.sql("PRAGMA user_version = 7")
        else:
            self.sql("ALTER TABLE dalga COMMENT = 'dalga schema 7'")
        for sentence in (
            self.refused(),
            str(self.assertRaises(StartupError, self.make_store().open)),
        ):
            self.assertIn("has schema version 7, of a later version of Dalga", sentence)


#: Words in `KINDS` for times that are over and to come, one second apart from row to row, and for
#: 16 bytes.
PAST, FUTURE, BYTES = "{past}", "{future}", "X'000102030405060708090A0B0C0D0E0F'"


def kind(due: str = FUTURE, schedule: str = "'60'", **columns: str) -> dict[str, str]:
    """SQL for the columns of a row that have no default, or another value than that."""
    scheduled = FUTURE if due == FUTURE else PAST
    return {"schedule": schedule, "anchor": PAST, "scheduled": scheduled, "due": due, **columns}


def claimed(**columns: str) -> dict[str, str]:
    """The same of a run whose instance was killed, and whose lease is over."""
    return kind(PAST, token=BYTES, run=BYTES, started=PAST, attempts="1", **columns)


#: Rows of each kind that there is, by their path, with the present names of columns.
KINDS: Mapping[str, dict[str, str]] = {
    "periodic": kind(),
    "calendar": kind(schedule="'P1M'", location="'Europe/Istanbul'"),
    "cron": kind(schedule="'0 9 * * 1-5'", location="'America/New_York'"),
    "one-off": kind(schedule="''"),
    "one-off, overdue": kind(PAST, "''"),
    "overdue": kind(PAST),
    "with parameters": kind(options="""'{"count":9,"catch-up":"all"}'""", successes="3"),
    "retried": kind(run=BYTES, started=PAST, attempts="3", error="'500 Internal Server Error'"),
    "went on": kind(standing="1", error="'it was given up'", skipped="2"),
    "stopped": kind("NULL", run=BYTES, started=PAST, attempts="9", standing="2", error="'502'"),
    "disabled": kind("NULL", disabled="1"),
    "set aside": kind("NULL", "'hourly'", standing="4", error="'interval is ''hourly'''"),
    "killed": claimed(),
    "killed, rescheduled": claimed(override="1"),
    "killed, deleted": claimed(override="2"),
    "killed, triggered": claimed(override="3"),
    "killed, to run now": claimed(override="4"),
    "asked for during a run": kind(PAST, override="3"),
    "scheduled anew during a run": kind(PAST, override="4"),
    "killed, disabled": claimed(disabled="1"),
}

#: By schema version: the names of its columns that have another name now.
NAMES: Mapping[int, Mapping[str, str]] = {
    2: {"override": "superseded", "standing": "failed"},
    3: {"standing": "failed"},
    4: {},
    5: {},
    6: {},
}

_DIGITS = " UNION ALL ".join(["SELECT 0 AS n", *(f"SELECT {n}" for n in range(1, 10))])


class OlderTestCase(OwnTestCase):
    """A test of tables of one earlier schema."""

    timeout = 300
    #: The schema's version.
    old: int

    def fill(self, count: int, version: int) -> None:
        """
        Insert so many rows of each kind.

        :param version: of the table.
        """
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            for path, columns in KINDS.items():
                if version < 4 and columns.get("standing") == "4":
                    columns = {**columns, "standing": "0"}
                names = ", ".join(NAMES[version].get(name, name) for name in columns)
                values = ", ".join(columns.values())
                for word, start in ((PAST, "2020-01-01"), (FUTURE, "2099-01-01")):
                    values = values.replace(word, self.later(start))
                cursor.execute(
                    f"INSERT INTO dalga (path, body, {names})"
                    f" SELECT '{path}', n, {values} FROM {self.numbers(count)} WHERE n < {count}"
                )
            connection.commit()

    def later(self, start: str) -> str:
        """SQL for a time that is `n` seconds later."""
        if self.engine == "sqlite":
            return f"strftime('%Y-%m-%d %H:%M:%f000', '{start}', n || ' seconds')"
        return f"TIMESTAMPADD(SECOND, n, '{start}')"

    def numbers(self, count: int) -> str:
        """SQL for a table of the numbers below this one, and some more, as `n`."""
        powers = range(len(str(count - 1)))
        tables = ", ".join(f"({_DIGITS}) AS t{power}" for power in powers)
        number = " + ".join(f"t{power}.n * {10**power}" for power in powers)
        return f"(SELECT {number} AS n FROM {tables}) AS numbers"

    def digest(self, version: int) -> Any:
        """
        What tells the contents of all rows. A row that is set aside has 4 as its standing from
        schema 4 on, and 0 before.

        :param version: of the table.
        """
        names = NAMES[version]
        standing, override = names.get("standing", "standing"), names.get("override", "override")
        standing = f"CASE {standing} WHEN 4 THEN 0 ELSE {standing} END"
        columns = (
            "id, path, body, schedule, location, options, anchor, scheduled, due, run, started, "
            f"attempts, error, successes, skipped, {standing}, disabled, token, {override}"
        )
        if self.engine != "sqlite":
            values = ", ".join(f"COALESCE({name}, '-')" for name in columns.split(", "))
            line = f"CONCAT_WS('|', {values})"
            return self.sql(f"SELECT COUNT(*), SUM(CRC32({line})) FROM dalga")
        found = hashlib.sha256()
        with closing(self.connect()) as connection:
            for row in connection.execute(f"SELECT {columns} FROM dalga ORDER BY id"):
                found.update(repr(row).encode())
        return found.digest()

    async def seen(self) -> tuple[list[Any], list[Any]]:
        """What a daemon of this version sees of five jobs of each kind; and what it runs first."""
        store = self.make_store()
        store.open()
        jobs: list[Any] = []
        for path in KINDS:
            if path != "killed, deleted":
                jobs += [await store.get(JobKey(path, str(number))) for number in range(5)]
        runs = (await store.claim(50, LONG)).runs
        return jobs, [(run.key, run.attempt, run.scheduled) for run in runs]

    async def check_many_rows(self) -> None:
        """
        With a daemon of the old version standing by: it holds up the upgrade while it does
        something, and does nothing afterwards; no row has changed.
        """
        self.patch(mysql, "UPGRADE_LOCK_WAIT", 1)
        self.make_table(self.old)
        self.fill(ROWS // len(KINDS), self.old)
        before = self.digest(self.old)
        old = OldDaemon(self, self.old)
        self.addCleanup(old.close)
        old.begin()
        if self.engine != "sqlite":
            sentence = self.refused()
            self.assertIn("is locked by somebody else", sentence)
            self.assertIn("the table is as it was", sentence)
        old.claims("periodic")
        self.assertIn("runs under way: 1", self.refused())
        old.begin()
        old.records("periodic")
        began = time.monotonic()
        self.assertIn("done: ", self.upgrade())
        took = time.monotonic() - began
        # A copy takes a minute.
        self.assertLess(took, 15)
        self.assertEqual(self.digest(VERSION), before)
        self.assertRaises(old.fails, old.begin)
        jobs, runs = await self.seen()
        self.assertGreater(len(runs), 30)
        self.make_new_table()
        self.fill(60, VERSION)
        self.assertEqual((jobs, runs), await self.seen())

    def go_back(self, version: int) -> None:
        """As docs/upgrading.md says how."""
        sqlite = self.engine == "sqlite"
        words = f"user_version = {version};" if sqlite else f"'dalga schema {version}'"
        with closing(self.connect()) as connection:
            for statement in going_back(words):
                connection.cursor().execute(statement)
            connection.commit()

    def check_the_new_table(self) -> None:
        """It does not differ from one that was never anything else."""
        self.make_table(self.old)
        self.upgrade()
        upgraded = self.shape()
        self.make_new_table()
        self.assertEqual(upgraded, self.shape())


@each_engine(globals())
class SchemaTwoTests(OlderTestCase):
    """Tables of schema 2, through all versions."""

    old = 2

    async def test_many_rows(self) -> None:
        await self.check_many_rows()

    def test_the_new_table(self) -> None:
        self.check_the_new_table()

    def test_long_options(self) -> None:
        """A text that schema 2 had no room for."""
        self.make_table(2)
        self.fill(1, 2)
        self.upgrade()
        self.sql("UPDATE dalga SET options = %s", ("é" * 1024,))
        kept = self.sql("SELECT COUNT(*) FROM dalga WHERE options = %s", ("é" * 1024,))
        self.assertEqual(kept, [(len(KINDS),)])


@each_engine(globals())
class SchemaThreeTests(OlderTestCase):
    """Tables of schema 3, and what holds for all."""

    old = 3

    async def test_many_rows(self) -> None:
        await self.check_many_rows()

    def test_the_new_table(self) -> None:
        self.check_the_new_table()

    def test_set_aside(self) -> None:
        """A row that a claim has set aside says so itself from now on."""
        self.make_table(3)
        self.fill(1, 3)
        self.upgrade()
        aside = self.sql("SELECT path, body FROM dalga WHERE standing = 4 ORDER BY path")
        names = [("check_feed", "aside"), ("set aside", "0")]
        self.assertEqual(aside, [(self.key(path), self.key(body)) for path, body in names])

    def test_what_is_there(self) -> None:
        """An upgrade that was interrupted after it had added something does not add it again."""
        if self.engine == "sqlite":
            return  # all is undone
        for version in (3, 4, 5):
            self.reset()
            self.make_table(version)
            old, new = HEARTBEATS_OF[version], HEARTBEATS_OF[version + 1]
            self.sql(f"ALTER TABLE dalga{old} RENAME TO dalga{new}")
            *others, last = statements_of(self.dialect(), version)
            for statement in others:
                self.sql(statement)
            said = self.upgrade()
            added = {line for line in said.splitlines() if " ADD " in line}
            self.assertEqual(added & {f"to be done: {statement}" for statement in others}, set())
            self.assertIn(f"to be done: {last}", said)
            self.assertIn("done: ", said)
            self.make_store().open()

    def test_going_back(self) -> None:
        """As docs/upgrading.md says how, with each job as it is; and then there and back again."""
        self.make_table(3)
        self.fill(3, 3)
        before, rows = self.shape_of("dalga"), self.digest(3)
        self.upgrade()
        self.go_back(5)
        self.go_back(4)
        self.go_back(3)
        self.assertEqual(self.digest(3), rows)
        self.assertEqual(self.shape_of("dalga"), before)
        self.assertEqual(set(self.names()) & {f"dalga{suffix}" for suffix in BESIDE}, set())
        self.assertIn("has schema version 3", self.upgrade())
        self.assertEqual(self.digest(VERSION), rows)
        self.go_back(5)
        self.go_back(4)
        self.go_back(3)
        self.go_back(2)
        self.assertEqual(self.digest(2), rows)
        self.assertIn("has schema version 2", self.upgrade())
        self.assertEqual(self.digest(VERSION), rows)

    def test_going_back_with_what_is_new(self) -> None:
        """Jobs that an earlier version would POST otherwise do not run; done ones are gone."""
        store = self.make_store()
        if self.engine != "sqlite":
            store.create_table()
        store.open()
        for body, columns in {
            "with a payload": "extras = 257",
            "of a killed instance": f"extras = 1, token = {BYTES}",
            "killed, deleted": f"extras = 1, token = {BYTES}, override = 2",
            "tagged": "extras = 4",
            "done": "extras = 1, standing = 3, due = NULL",
        }.items():
            self.sql(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due) VALUES"
                f" ('p', '{body}', '60', '2020-01-01', '2020-01-01', '2020-01-01')"
            )
            self.sql(f"UPDATE dalga SET {columns} WHERE body = '{body}'")
        self.go_back(5)
        self.go_back(4)
        self.go_back(3)
        found = self.sql("SELECT body, disabled, due IS NULL, token IS NULL FROM dalga ORDER BY id")
        self.assertEqual(
            found,
            [
                (self.key("with a payload"), 1, 1, 1),
                (self.key("of a killed instance"), 1, 1, 1),
                (self.key("killed, deleted"), 0, 0, 0),
                (self.key("tagged"), 0, 0, 1),
            ],
        )

    def test_dry_run(self) -> None:
        """It names each statement that will be run, and changes nothing."""
        for version in (1, 2, 3, 4, 5):
            self.make_table(version)
            before = self.tables()
            dry = self.upgrade(dry_run=True)
            self.assertEqual(self.tables(), before)
            self.assertIn("this was a dry run: nothing has been changed", dry)
            named = re.findall("^to be done: (.*)$", dry, re.MULTILINE)
            done: list[str] = []
            said = self.upgrade(dialect=watched(self.dialect(), done.append))
            self.assertEqual(named, done)
            self.assertEqual(dry.splitlines()[:-1], said.splitlines()[: dry.count("\n")])
            self.assertNotIn("dry run", said)
            self.reset()

    def test_a_strangers_table(self) -> None:
        """A table that has a new name of ours by chance is not dropped, nor used."""
        for version, suffix in product((1, 2, 3), ("_alive_4", "_alive_5", "_alive_6", *BESIDE)):
            self.make_table(version)
            self.sql(f"CREATE TABLE dalga{suffix} (id INTEGER, seen INTEGER, owner INTEGER)")
            before = self.tables()
            sentence = self.refused()
            self.assertIn(f"dalga{suffix}", sentence)
            self.assertIn("which Dalga has not made: give that one another name", sentence)
            self.assertEqual(self.tables(), before)
            self.reset()

    def test_no_table_of_instances(self) -> None:
        """A table of instances that somebody has dropped is no sign of an interrupted upgrade."""
        self.make_table(3)
        self.sql("DROP TABLE dalga_alive_3")
        said = self.upgrade()
        self.assertNotIn("interrupted", said)
        self.assertIn("done: ", said)

    def test_rights(self) -> None:
        """What is said afterwards of rights that were granted by a table's name."""
        self.make_table(3)
        said = self.upgrade()
        words = (
            "granted on `dalga_alive_3` by its name have to be granted on `dalga_alive_6`, "
            "`dalga_details`, `dalga_tags`, `dalga_keys`, `dalga_runs`, `dalga_alerts`, "
            "`dalga_incidents`, `dalga_expected`, `dalga_stats`, `dalga_actions` and `dalga_audit`"
        )
        self.assertEqual(words in said, self.engine != "sqlite")
        self.assertEqual("rights" in said, self.engine != "sqlite")


@each_engine(globals())
class SchemaFourTests(OlderTestCase):
    """Tables of schema 4."""

    old = 4

    async def test_many_rows(self) -> None:
        await self.check_many_rows()

    def test_the_new_table(self) -> None:
        self.check_the_new_table()

    async def test_what_is_beside(self) -> None:
        """Payloads and tags stay, and so do rows that a claim has set aside."""
        self.make_table(4)
        self.upgrade()
        store = self.make_store()
        store.open()
        job = await self.job(store, JobKey("check_feed", "tagged"))
        self.assertEqual(job.delivery.payload and job.delivery.payload.octets, b"hello")
        self.assertEqual(job.notes.tags, ("blue",))
        aside = await store.get(JobKey("check_feed", "aside"))
        self.assertEqual(getattr(aside, "problem", ""), "interval is 'hourly'")

    def test_going_back(self) -> None:
        """As docs/upgrading.md says how, with each job as it is; and then there and back again."""
        self.make_table(4)
        self.fill(3, 4)
        tables = ("dalga", "dalga_alive_4", *(f"dalga{suffix}" for suffix in BESIDE_SINCE[4]))
        before, rows = [self.shape_of(table) for table in tables], self.digest(4)
        self.upgrade()
        self.sql("UPDATE dalga SET extras = extras + 48 WHERE extras = 263 OR path = 'retried'")
        self.go_back(5)
        self.go_back(4)
        self.assertEqual(self.digest(4), rows)
        self.assertEqual([self.shape_of(table) for table in tables], before)
        extras = self.sql("SELECT COUNT(*), MIN(extras), MAX(extras) FROM dalga")
        self.assertEqual([row[1:] for row in extras], [(0, 263)])
        self.assertEqual(set(self.names()) & {f"dalga{end}" for end in BESIDE_SINCE[5]}, set())
        self.assertIn("has schema version 4", self.upgrade())
        self.assertEqual(self.digest(VERSION), rows)

    def test_no_table_of_instances(self) -> None:
        """It gets no columns where it is not there, and the start says how to make it."""
        self.make_table(4)
        self.sql("DROP TABLE dalga_alive_4")
        self.assertIn("done: ", self.upgrade())
        if self.engine != "sqlite":
            sentence = str(self.assertRaises(StartupError, self.make_store().open))
            self.assertIn("there is no table `dalga_alive_6`", sentence)
            self.make_store().create_table()
        self.make_store().open()


@each_engine(globals())
class SchemaFiveTests(OlderTestCase):
    """Tables of schema 5."""

    old = 5

    def test_the_new_table(self) -> None:
        self.check_the_new_table()

    def test_going_back(self) -> None:
        """As docs/upgrading.md says how, with each job as it is; and then there and back again."""
        self.make_table(5)
        self.fill(3, 5)
        there = (suffix for number in (4, 5) for suffix in BESIDE_SINCE[number])
        tables = ("dalga", "dalga_alive_5", *(f"dalga{suffix}" for suffix in there))
        before, rows = [self.shape_of(table) for table in tables], self.digest(5)
        self.upgrade()
        self.assertEqual(self.digest(VERSION), rows)
        self.go_back(5)
        self.assertEqual(self.digest(5), rows)
        self.assertEqual([self.shape_of(table) for table in tables], before)
        self.assertEqual(set(self.tables()) & {f"dalga{end}" for end in BESIDE_SINCE[6]}, set())
        self.assertIn("has schema version 5", self.upgrade())
        self.make_store().open()


class OldDaemon:
    """
    What a daemon of an earlier schema does: each of its transactions begins with a look at what
    tells the version. Real ones were tried by hand, too.
    """

    def __init__(self, case: OwnTestCase, version: int) -> None:
        self.case = case
        self.version = version
        self.connection = case.connect()
        self.fails: Any = AssertionError
        if case.engine != "sqlite":
            self.fails = pymysql.err.ProgrammingError  # there is no such table
            self.connection.autocommit(False)

    def begin(self) -> None:
        cursor = self.connection.cursor()
        if self.case.engine == "sqlite":
            cursor.execute("PRAGMA user_version")
            if cursor.fetchall() != [(self.version,)]:
                raise AssertionError(f"the schema version is no longer {self.version}")
        else:
            table = f"dalga{HEARTBEATS_OF[self.version]}"
            cursor.execute(f"SELECT UTC_TIMESTAMP(6), EXISTS (SELECT 1 FROM {table})")

    def claims(self, path: str) -> None:
        """Commit a lease of the first of these jobs."""
        self._write(f"token = {BYTES}, due = '2199-01-01 00:00:00.000000'", path)

    def records(self, path: str) -> None:
        """Commit the end of that run."""
        self._write("token = NULL, due = scheduled", path)

    def _write(self, columns: str, path: str) -> None:
        sql = f"UPDATE dalga SET {columns} WHERE path = '{path}' AND body = '0'"
        self.connection.cursor().execute(sql)
        self.connection.commit()

    def close(self) -> None:
        self.connection.close()


@each_engine(globals(), only=("mariadb", "mysql"))
class ServerTests(OwnTestCase):
    """What is special about a server."""

    def test_no_row_is_written(self) -> None:
        """The statements change the table's definition only, and write no row anew."""
        algorithm = "NOCOPY" if self.engine == "mariadb" else "INPLACE"
        for version in (2, 3, 4, 5):
            self.reset()
            self.make_table(version)
            # MySQL writes an empty table anew.
            self.sql(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled)"
                " VALUES ('path', 'body', '', '2020-01-01', '2020-01-01')"
            )
            old, new = HEARTBEATS_OF[version], HEARTBEATS_OF[version + 1]
            self.sql(f"ALTER TABLE dalga{old} RENAME TO dalga{new}")
            before = self.space()
            *others, last = statements_of(self.dialect(), version)
            for statement in others:
                self.sql(statement)
            self.sql(f"{last}, ALGORITHM = {algorithm}")
            self.assertEqual(self.space(), before)

    def space(self) -> Any:
        """The number of the tablespace that the table is in: rebuilt, it has another."""
        tables = "innodb_sys_tables" if self.engine == "mariadb" else "innodb_tables"
        host = server(self.engine)
        with closing(host.connect_as_root()) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"SELECT space FROM information_schema.{tables} WHERE name = %s",
                (f"{self.on_server.db}/dalga",),
            )
            return cursor.fetchall()

    def test_a_last_statement_that_was_done(self) -> None:
        """Though its answer was lost: the new table keeps its table of instances."""
        self.open_store()

        def lose(sql: str) -> None:
            if "dalga schema 7" in sql:
                self.sql(sql)
                raise StartupError("the connection is lost")

        with LaterVersion():
            sentence = self.refused(watched(self.dialect(), lose))
            self.assertIn("is lost; the same command goes on from there", sentence)
            self.assertIn("dalga_alive_7", self.names())
            self.assertIn("there is nothing to do", self.upgrade())

    def test_a_failure_after_something_was_added(self) -> None:
        """It is said that the table is no longer as it was, and the same command goes on."""
        self.make_table(3)

        def fail(sql: str) -> None:
            if "dalga schema 4" in sql:
                raise StartupError("it is locked")

        sentence = self.refused(watched(self.dialect(), fail))
        self.assertIn(
            "locked; the table still has schema version 3, and the same command goes on from there",
            sentence,
        )
        self.assertIn("dalga_alive_3", self.names())
        self.assertIn("done: ", self.upgrade())

    def test_rights_that_are_missing(self) -> None:
        """They are named, and nothing is changed."""
        self.make_table(3)
        before = self.tables()
        db, host = self.on_server.db, server(self.engine)
        user = f"few@'{host.host}'"
        self.config = replace(self.on_server, user="few", password="secret")
        with closing(host.connect_as_root(autocommit=True)) as connection:
            cursor = connection.cursor()
            cursor.execute(f"CREATE USER {user} IDENTIFIED BY 'secret'")
            try:
                cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON {db}.* TO {user}")
                for rights, tables in (
                    ("SELECT", ["*"]),
                    ("ALTER", ["*"]),
                    ("DROP", ["*"]),
                    ("ALTER, DROP, CREATE", ["dalga_alive_3", "dalga_alive_4"]),
                ):
                    for table in tables:
                        cursor.execute(f"GRANT {rights} ON {db}.{table} TO {user}")
                    sentence = self.refused()
                    self.assertIn(
                        "; an upgrade needs the rights SELECT, INSERT, UPDATE, ", sentence
                    )
                    self.assertRegex(
                        sentence,
                        "to user 'few'; the table (is as it was|still has schema version 3, )",
                    )
                    left = {
                        name: table
                        for name, table in self.tables().items()
                        if name.removeprefix("dalga") not in BESIDE
                    }
                    self.assertEqual(left, before)
                    for table in tables:
                        cursor.execute(f"REVOKE {rights} ON {db}.{table} FROM {user}")
                    cursor.execute(f"GRANT SELECT ON {db}.* TO {user}")
            finally:
                cursor.execute(f"DROP USER {user}")


@each_engine(globals(), only=("sqlite",))
class FileUpgradeTests(UpgradeTestCase):
    """What is special about a file."""

    def test_no_file(self) -> None:
        """None is made by looking for it."""
        self.assertIn("there is nothing to upgrade", self.refused())
        self.assertFalse(os.path.exists(self.dialect()._path))  # type: ignore[attr-defined]

    def test_a_running_daemon(self) -> None:
        """Its file is in use; once it has ended the file is not."""
        self.run_file("schema_1_sqlite.sql")
        daemon = self.make_store(guarded=True)
        assert daemon._guard is not None
        daemon._guard.acquire()
        upgrading = self.make_store(guarded=True)
        error = self.assertRaises(StartupError, list, upgrading.upgrade_table(False))
        self.assertIn("in use by another dalga", str(error))
        daemon._guard.release()
        self.assertIn("done", "".join(upgrading.upgrade_table(False)))
        daemon._guard.acquire()
        daemon._guard.release()

    def test_a_stranger(self) -> None:
        """A table of another program is left alone, also where it looks like a Go release's."""
        self.sql("CREATE TABLE dalga (path, body, `interval`, next_run)")
        sentence = self.refused()
        self.assertIn("nor one that it can upgrade", sentence)
        self.assertIn("name another with path in [sqlite]", sentence)
        self.assertIn(
            "nor one that it can upgrade",
            str(self.assertRaises(StartupError, self.make_store().open)),
        )

    def test_weird_keys(self) -> None:
        """What SQLite lets pass as text stays as it is."""
        self.run_file("schema_1_sqlite.sql")
        self.sql(
            "INSERT INTO dalga (path, body, `interval`, scheduled, due)"
            " VALUES (CAST(X'FF' AS TEXT), X'FF', 60, 'never', 'never'), ('Ö ', 1, '', 'x', 0)"
        )
        before = self.weird()
        self.upgrade()
        self.assertEqual(len(before), 2)
        self.assertEqual(self.weird(), before)

    def weird(self) -> list[Any]:
        columns = "path, body, scheduled, due, typeof(path), typeof(body), typeof(due)"
        with closing(self.connect()) as connection:
            connection.text_factory = bytes
            found = connection.execute(f"SELECT {columns} FROM dalga WHERE id > 11")
            return list(found)


@each_engine(globals())
class KilledTests(OwnTestCase, KilledTestCase):
    """
    An upgrade whose process is killed (SIGKILL) is run again. Meanwhile no daemon starts, be it of
    the old version or of this one.
    """

    timeout = 300
    # A step is before each statement that changes something, and after the last.
    upgrade_script = """
from dalga.store import upgrade as room
from tests.upgrades import watched

def upgrade(dialect, step):
    def after(sql):
        if "dalga schema 6" in sql or "user_version = 6" in sql:
            step(sql)
    list(room.upgrade(watched(dialect, step, after), False))
"""

    async def test_from_1(self) -> None:
        """At any step."""
        await deferToThread(self.check, 1)

    async def test_from_2(self) -> None:
        """At any step."""
        await deferToThread(self.check, 2)

    async def test_from_3(self) -> None:
        """At any step."""
        await deferToThread(self.check, 3)

    async def test_from_4(self) -> None:
        """At any step."""
        await deferToThread(self.check, 4)

    async def test_from_5(self) -> None:
        """At any step."""
        await deferToThread(self.check, 5)

    def insert(self, version: int) -> None:
        self.make_table(version)
        if version == 2:
            self.sql(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due, superseded) "
                "VALUES ('path', 'body', '60', '2020-01-01 00:00:00.000000',"
                " '2020-01-01 00:00:00.000000', '2099-01-01 00:00:00.000000', 3)"
            )

    def rows(self) -> list[Any]:
        return self.sql(
            "SELECT id, path, body, schedule, anchor, scheduled, due, override, options, token"
            " FROM dalga ORDER BY id"
        )

    def check(self, version: int) -> None:
        self.insert(version)
        before = self.tables()
        self.assertFalse(self.kill(0))
        complete, shape = self.rows(), self.shape()
        between = 0
        for step in range(1, 100):
            self.reset()
            self.insert(version)
            if not self.kill(step):
                break
            reached = self.version()
            if self.tables() != before and reached != VERSION:
                between += 1
                self.check_between(version)
            self.upgrade()
            self.assertEqual(self.rows(), complete)
            self.assertEqual(self.shape(), shape)
            self.make_store().open()
            if reached is not None and version + 1 < reached < VERSION:
                break  # the other steps are those of a later version, which has a test of its own
        else:
            self.fail("it is never through")
        # On SQLite all is one transaction.
        self.assertEqual(between > 0, self.engine != "sqlite")

    def check_between(self, version: int) -> None:
        """What there is in the middle of an upgrade from a version."""
        there = self.version()
        if there == version:
            # What a daemon of that schema can't do without.
            self.assertNotIn(f"dalga{HEARTBEATS_OF.get(version)}", self.names())
        for start in (self.make_store().open, self.make_store().create_table):
            sentence = str(self.assertRaises(StartupError, start))
            self.assertIn("upgrade it to version 6 with dalga --config FILE --upgrade", sentence)
        left = self.tables()
        self.assertIn("to be done: ALTER TABLE `dalga`", self.upgrade(dry_run=True))
        self.assertEqual(self.tables(), left)


class TableTests(SynchronousTestCase):
    """The table of statements."""

    def test_each_version(self) -> None:
        """From each version that there was there is a way, on each engine."""
        self.assertEqual(list(STATEMENTS), list(range(1, VERSION)))
        for version, texts in STATEMENTS.items():
            self.assertEqual(set(texts), {"mysql", "sqlite"})
            self.assertIn(version + 1, HEARTBEATS_OF)
            *others, last = texts["mysql"].split(";\n")
            self.assertIn(f"COMMENT = 'dalga schema {version + 1}'", last)
            # An interrupted upgrade runs these again, but for an index that is there.
            for other in others:
                self.assertRegex(other.strip(), r"IF NOT EXISTS|^UPDATE|^ALTER TABLE \S+\s+ADD ")

    def test_names(self) -> None:
        """The longest name of a jobs table leaves room for that of each table of instances."""
        self.assertEqual(len(set(HEARTBEATS_OF.values())), len(HEARTBEATS_OF))
        for suffix in HEARTBEATS_OF.values():
            self.assertLessEqual(len(suffix), 64 - 53)


@each_engine(globals())
class LaterVersionTests(OwnTestCase):
    """What becomes of a daemon of this version when a later one upgrades its table."""

    def upgrade_to_7(self) -> str:
        with LaterVersion():
            return self.upgrade()

    def forget(self) -> None:
        """As if nobody had a heartbeat for long."""
        self.sql("UPDATE dalga_alive_6 SET seen = '2020-01-01 00:00:00.000000'")

    async def test_living_instances(self) -> None:
        """They are named, and until when to wait for those that were killed."""
        store = self.open_store()
        await store.announce("here-2-abcd")
        await store.announce("here-1-abcd")
        self.assertEqual((await store.counts()).instances, 2)
        before = self.tables()
        with LaterVersion():
            sentence = self.refused()
        self.assertIn("is in use (instances with a heartbeat in the last 30 seconds: ", sentence)
        self.assertIn("here-1-abcd, here-2-abcd): stop them first; if they were killed, ", sentence)
        self.assertRegex(sentence, r"wait until 20\d\d-\S+Z$")
        self.assertEqual(self.tables(), before)
        await store.depart("here-1-abcd")
        self.forget()
        self.assertIn("done: ", self.upgrade_to_7())
        self.assertNotIn("dalga_alive_6", self.names())

    async def test_heartbeats_from_the_future(self) -> None:
        """They are of before the database's clock was set back, and in nobody's way."""
        await self.open_store().announce("killed")
        self.sql("UPDATE dalga_alive_6 SET seen = '2090-01-01 00:00:00.000000'")
        self.assertIn("done: ", self.upgrade_to_7())

    async def test_an_upgrade_that_was_cut_off(self) -> None:
        """Heartbeats count under the new name of their table, too; and both may be there."""
        await self.open_store().announce("here-1-abcd")
        self.sql("ALTER TABLE dalga_alive_6 RENAME TO dalga_alive_7")
        with LaterVersion():
            self.assertIn("heartbeat in the last 30 seconds: here-1-abcd)", self.refused())
        self.sql("UPDATE dalga_alive_7 SET seen = '2020-01-01 00:00:00.000000'")
        with LaterVersion():
            self.assertIn(" was interrupted\n", self.upgrade(dry_run=True))
        self.sql("CREATE TABLE dalga_alive_6 AS SELECT * FROM dalga_alive_7")
        for table in ("dalga_alive_6", "dalga_alive_7"):
            self.sql(f"UPDATE {table} SET seen = '2020-01-01 00:00:00.000000'")
        self.assertIn("done: ", self.upgrade_to_7())
        self.assertNotIn("dalga_alive_6", self.names())

    async def test_one_that_slept(self) -> None:
        """Its sessions are open; it writes nothing to the new table, and says why."""
        store = self.open_store()
        key = JobKey("check_feed", "1234")
        await store.put(key, replace(EACH_MINUTE, immediate=True))
        calls: list[Deferred[Any]] = [store.now() for _ in range(9)]
        await gatherResults([*calls, store.due_within(MINUTE, 9)])
        await store.announce("here")
        self.forget()
        self.upgrade_to_7()
        after = self.tables()
        calls_of_all: list[Callable[[], Deferred[Any]]] = [
            lambda: store.put(key, EACH_MINUTE),
            lambda: store.delete(key),
            lambda: store.trigger(key),
            lambda: store.get(key),
            lambda: store.claim(9, LONG),
            lambda: store.announce("here"),
            lambda: store.depart("here"),
            lambda: store.counts(),
        ]
        for call in calls_of_all:
            error = await self.assertFailure(call(), StoreUnavailable)
            self.assertIn("has schema version 7, of a later version of Dalga", str(error))
        self.assertEqual(self.tables(), after)

    async def test_the_first_claim_of_one_that_slept(self) -> None:
        """A claim looks for itself, though no call before it has learnt of the new version."""
        store = self.open_store()
        await store.put(JobKey("check_feed", "1234"), replace(EACH_MINUTE, immediate=True))
        await store.claim(0, LONG)
        self.upgrade_to_7()
        after = self.tables()
        error = await self.assertFailure(store.claim(9, LONG), StoreUnavailable)
        self.assertIn("has schema version 7", str(error))
        self.assertEqual(self.tables(), after)

    async def test_the_first_record_of_one_that_slept(self) -> None:
        """As the first claim. Its lease has ended since: else nobody would have upgraded."""
        store = self.open_store()
        run = await self.due_now(store, JobKey("check_feed", "1234"))
        self.end_leases()
        self.upgrade_to_7()
        after = self.tables()
        recorded = store.record([ended(run, Delete())])
        error = await self.assertFailure(recorded, StoreUnavailable)
        self.assertIn("has schema version 7", str(error))
        self.assertEqual(self.tables(), after)

    async def test_back_again(self) -> None:
        """With the tables of its own version it goes on, without a restart."""
        store = self.open_store()
        key = JobKey("check_feed", "1234")
        await store.put(key, EACH_MINUTE)
        kept = self.tables()
        if self.engine == "sqlite":
            self.sql("PRAGMA user_version = 7")
        else:
            self.sql("ALTER TABLE dalga COMMENT = 'dalga schema 7'")
            self.sql("RENAME TABLE dalga_alive_6 TO elsewhere")
        await self.assertFailure(store.get(key), StoreUnavailable)
        if self.engine == "sqlite":
            self.sql("PRAGMA user_version = 6")
        else:
            self.sql("ALTER TABLE dalga COMMENT = 'dalga schema 6'")
            error = await self.assertFailure(store.get(key), StoreUnavailable)
            self.assertIn("no table `dalga_alive_6`", str(error))
            self.sql("RENAME TABLE elsewhere TO dalga_alive_6")
        await self.job(store, key)
        self.assertEqual(self.tables(), kept)

    def test_a_failure(self) -> None:
        """The table of heartbeats gets its name back, and the daemon starts again."""
        self.open_store()
        before = self.tables()

        def fail(sql: str) -> None:
            if "dalga schema 7" in sql or "user_version =" in sql:
                raise StartupError("disk full")

        with LaterVersion():
            sentence = self.refused(watched(self.dialect(), fail))
        self.assertIn("disk full; ", sentence)
        self.assertEqual(self.tables(), before)
        self.make_store().open()

    def test_an_interruption(self) -> None:
        """Ctrl-C on the way leaves all as it was, too."""
        self.open_store()
        before = self.tables()

        def interrupt(sql: str) -> None:
            if "dalga schema 7" in sql or "user_version =" in sql:
                raise KeyboardInterrupt

        with LaterVersion(), closing(room.upgrade(watched(self.dialect(), interrupt), False)) as up:
            self.assertRaises(KeyboardInterrupt, list, up)
        self.assertEqual(self.tables(), before)

    async def test_an_instance_that_starts_meanwhile(self) -> None:
        """One that claims between the first look and the renaming is seen; all is as it was."""
        store = self.open_store()
        await store.put(JobKey("check_feed", "1234"), replace(EACH_MINUTE, immediate=True))

        def claim(sql: str) -> None:
            if sql.startswith("ALTER TABLE") and "RENAME TO" in sql and self.engine != "sqlite":
                self.sql("UPDATE dalga SET token = 'aaaaaaaaaaaaaaaa', due = '2099-01-01 00:00:00'")

        with LaterVersion():
            if self.engine == "sqlite":  # its file is locked meanwhile
                self.assertIn("done: ", self.upgrade(dialect=watched(self.dialect(), claim)))
                return
            sentence = self.refused(watched(self.dialect(), claim))
        self.assertIn("is in use (runs under way: 1)", sentence)
        self.assertIn("the table is as it was", sentence)
        self.assertIn("dalga_alive_6", self.names())
        await store.now()


@each_engine(globals(), only=("mariadb", "mysql"))
class LateWriteTests(OwnTestCase):
    """A daemon that has begun to write when a later version upgrades its table."""

    async def test_a_transaction_that_has_begun(self) -> None:
        """The upgrade waits for its end, and what it has written is kept."""
        store = self.open_store()
        over: list[str] = []

        def upgrade() -> None:
            with LaterVersion():
                over.append(self.upgrade())

        def put(cursor: Any, now: datetime, since: float) -> None:
            reactor: Any = store._run_lane.reactor  # a whole one here
            reactor.callFromThread(begun.callback, None)
            waits = "SELECT 1 FROM information_schema.processlist WHERE state LIKE %s"
            while not over and not self.sql(waits, ("%metadata lock%",)):
                time.sleep(0.02)
            cursor.execute(
                "INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)"
                " VALUES ('a', 'b', '', '2099-01-01', '2099-01-01', '2099-01-01')"
            )

        begun: Deferred[None] = Deferred()
        written: Deferred[Any] = store._run_lane.run(put)
        await begun
        upgraded = deferToThread(upgrade)
        await written
        await upgraded
        self.assertIn("done: ", over[0])
        self.assertEqual(self.sql("SELECT path FROM dalga"), [(b"a",)])
        error = await self.assertFailure(store.now(), StoreUnavailable)
        self.assertIn("has schema version 7", str(error))
