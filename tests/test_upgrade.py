"""
Tables of the Go releases become tables of the present schema; nothing is lost. And what the command
line says of upgrades. For older tables of our own see `tests.test_versions`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from typing import Any, cast

import pymysql
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import StartupError
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import JobKey
from dalga.store import mysql
from dalga.store import upgrade as room
from dalga.store.dialect import Dialect
from dalga.store.schema import VERSION, go_release, misfit, version_of
from dalga.store.upgrade import folds, from_go, go_schedule
from tests.daemons import DaemonTestCase
from tests.stores import LONG, each_engine
from tests.upgrades import (
    Expected,
    KilledTestCase,
    LaterVersion,
    UpgradeTestCase,
    at,
    going_back,
    plain,
)

GO_1: Expected = {
    ("check_feed", "1234"): plain("60", "2099-01-01 00:00:00"),
    ("check_feed", "overdue"): plain("4294967295", "2021-03-04 05:06:07"),
    ("remind", "later"): plain("", "2099-01-01 00:00:01"),
    ("remind", "overdue"): plain("", "2021-03-04 05:06:08"),
    ("Report", "weekly "): plain("604800", "2099-01-01 00:00:02"),
    ("rapor/günlük", "İzmir"): plain("86400", "2021-03-04 05:06:09"),
}
GO_2: Expected = {
    ("check_feed", "1234"): plain("60", "2099-01-01 00:00:00"),
    ("check_feed", "overdue"): plain("60", "2021-03-04 05:06:07"),
    ("check_feed", "running"): plain("60", "2021-03-04 05:06:06"),
    ("remind", "later"): plain("", "2099-01-01 00:00:01"),
    ("remind", "overdue"): plain("", "2021-03-04 05:06:08"),
    ("rapor/günlük", "🙂"): plain("86400", "2021-03-04 05:06:09"),
}
GO_3: Expected = {
    ("check_feed", "1234"): plain("60", "2099-01-01 00:00:00"),
    ("check_feed", "overdue"): plain("60", "2021-03-04 05:06:07"),
    ("check_feed", "running"): plain("3600", "2021-03-04 05:06:06"),
    ("check_feed", "disabled"): ("60", "UTC", at("2021-03-04 05:06:05"), None),
    ("check_feed", "disabled while it ran"): ("60", "UTC", at("2021-03-04 05:06:05"), None),
    ("check_feed", "failing"): (
        "P1D",
        "Europe/Istanbul",
        at("2021-03-04 05:00:00"),
        at("2098-12-31 00:00:00"),
    ),
    ("report", "monthly"): plain("P1M", "2099-01-31 08:00:00", "America/Los_Angeles"),
    ("report", "strange"): plain("P1Y2M25DT5H6M7S", "2099-01-01 00:00:02"),
    ("report", "fortnightly"): plain("P2W", "2099-01-01 00:00:03", "Asia/Kathmandu"),
    ("remind", "later"): plain("", "2099-01-01 00:00:01", "Europe/Riga"),
    ("remind", "overdue"): plain("", "2021-03-04 05:06:08"),
}

#: The jobs that are overdue, in due order.
DUE_1 = [("check_feed", "overdue"), ("remind", "overdue"), ("rapor/günlük", "İzmir")]
DUE_2 = [
    ("check_feed", "running"),
    ("check_feed", "overdue"),
    ("remind", "overdue"),
    ("rapor/günlük", "🙂"),
]
DUE_3 = [("check_feed", "running"), ("check_feed", "overdue"), ("remind", "overdue")]


@each_engine(globals(), only=("mariadb", "mysql"))
class GoReleaseTests(UpgradeTestCase):
    """Tables with the Go releases' own definitions."""

    async def check(self, release: int, expected: Expected, due: list[tuple[str, str]]) -> None:
        said = self.upgrade()
        self.assertIn(f"was made by Go release {release} of Dalga", said)
        self.assertIn(f"jobs in it: {len(expected)} ", said)
        self.assertNotIn("can't be understood", said)
        self.assertEqual(await self.jobs(expected), expected)
        self.assertEqual(await self.due(), due)

    async def test_1(self) -> None:
        """Path, body, an interval in seconds and the next run."""
        self.run_file("go_1.sql")
        await self.check(1, GO_1, DUE_1)

    async def test_2(self) -> None:
        """A table of instances beside it, and what one of them ran when it died."""
        self.run_file("go_2.sql")
        await self.check(2, GO_2, DUE_2)

    async def test_3(self) -> None:
        """ISO 8601 intervals, locations, disabled jobs, and retries."""
        self.run_file("go_3.sql")
        await self.check(3, GO_3, DUE_3)

    async def test_4(self) -> None:
        """A column with an id."""
        self.run_file("go_4.sql")
        await self.check(4, GO_3, DUE_3)

    async def test_3_made_into_4(self) -> None:
        """As its changelog says how."""
        self.run_file("go_3.sql")
        self.sql("ALTER TABLE dalga ADD COLUMN `id` BIGINT NOT NULL AUTO_INCREMENT UNIQUE")
        await self.check(4, GO_3, DUE_3)

    async def test_enabling(self) -> None:
        """A job that was disabled under Go can be enabled, and has its time again."""
        self.run_file("go_3.sql")
        self.upgrade()
        store = self.make_store()
        store.open()
        job = await store.enable(JobKey("check_feed", "disabled"))
        assert isinstance(job, Job)
        self.assertEqual(job.next_run, at("2021-03-04 05:06:05"))

    def test_the_new_table(self) -> None:
        """It does not differ from one that was never anything else."""
        self.run_file("go_3.sql")
        self.upgrade()
        upgraded = self.definition()
        for table in ("dalga", "dalga_alive_6"):
            self.sql(f"DROP TABLE {table}")
        self.sql("RENAME TABLE dalga_go_table TO elsewhere")
        self.make_store().create_table()
        self.assertEqual(upgraded, self.definition())

    def test_the_old_table(self) -> None:
        """It is kept, row for row, and its name and that of what belongs to it are told."""
        self.run_file("go_3.sql")
        before = self.tables()
        said = self.upgrade()
        after = self.tables()
        self.assertEqual(before["dalga"][1], after["dalga_go_table"][1])
        self.assertEqual(before["dalga_instances"], after["dalga_instances"])
        self.assertIn("not used any more", said)
        self.assertIn("`dalga_go_table`, `dalga_instances`", said)

    def test_going_back(self) -> None:
        """As docs/upgrading.md says how; and then there and back again."""
        self.run_file("go_3.sql")
        before = self.tables()
        self.upgrade()
        self.sql(going_back("RENAME TABLE")[0])
        self.assertEqual(self.tables()["dalga"], before["dalga"])
        self.assertIn("done", self.upgrade())

    def test_dry_run(self) -> None:
        """It says all that there is to say beforehand, and changes nothing."""
        for release in (1, 3):
            self.run_file(f"go_{release}.sql")
            before = self.tables()
            dry = self.upgrade(dry_run=True)
            self.assertEqual(self.tables(), before)
            self.assertIn("rename the table to `dalga_go_table`", dry)
            self.assertIn("nothing has been changed", dry)
            said = self.upgrade()
            self.assertEqual(dry.splitlines()[:-1], said.splitlines()[: dry.count("\n")])
            self.assertNotIn("dry run", said)
            for table in ("dalga", "dalga_go_table"):
                self.sql(f"DROP TABLE {table}")

    def test_twice(self) -> None:
        """The second time there is nothing to do, also where the old table is gone."""
        self.run_file("go_2.sql")
        self.upgrade()
        before = self.tables()
        self.assertIn("there is nothing to do", self.upgrade())
        self.assertEqual(self.tables(), before)
        self.sql("DROP TABLE dalga_go_table")
        self.assertIn("there is nothing to do", self.upgrade())

    def test_no_table(self) -> None:
        """Then there is nothing to upgrade."""
        self.assertIn("--create-table makes a new one", self.refused())

    def test_spellings(self) -> None:
        """Keys that the old collation takes for others' are kept as they are, and named."""
        self.run_file("go_1.sql")
        self.sql("INSERT INTO dalga VALUES ('caf\u00e9', 'tail ', 60, '2099-01-01')")
        said = self.upgrade()
        self.assertIn("only this one does: 3", said)
        for key in ("'Report' 'weekly '", "'rapor/günlük' 'İzmir'", "'café' 'tail '"):
            self.assertIn(f"  {key}", said)
        self.assertNotIn("check_feed", said)
        # What is one job there, in any spelling, is one of several here.
        spellings = ("dalga_go_table", "cafe", "tail"), ("dalga", b"cafe", b"tail")
        for (table, path, body), found in zip(spellings, (1, 0), strict=True):
            rows = self.sql(f"SELECT 1 FROM {table} WHERE path = %s AND body = %s", (path, body))
            self.assertEqual(len(rows), found)

    def test_a_binary_collation(self) -> None:
        """Where capitals made a difference before there is nothing to say of them."""
        self.run_file("go_1.sql")
        self.sql("ALTER TABLE dalga CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        self.sql("INSERT INTO dalga VALUES ('report', 'weekly', 60, '2099-01-01')")
        said = self.upgrade()
        self.assertIn("  'Report' 'weekly '", said)
        self.assertNotIn("günlük", said)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(7,)])

    async def test_another_character_set(self) -> None:
        """Keys are UTF-8 afterwards, whatever they were."""
        self.run_file("go_1.sql")
        self.sql("DELETE FROM dalga")
        self.sql("ALTER TABLE dalga CONVERT TO CHARACTER SET latin1")
        self.sql("INSERT INTO dalga VALUES ('rapor/günlük', 'x', 60, '2099-01-01')")
        self.upgrade()
        store = self.make_store()
        await self.job(store, JobKey("rapor/günlük", "x"))

    # What is in the way

    def test_a_living_instance(self) -> None:
        """While a Go instance has heartbeats nothing is touched; one that is dead may lie."""
        self.run_file("go_3.sql")
        for seconds in ("- INTERVAL 50 SECOND", "", "+ INTERVAL 5 SECOND"):
            self.sql(f"REPLACE INTO dalga_instances VALUES (8, UTC_TIMESTAMP() {seconds})")
            before = self.tables()
            sentence = self.refused()
            self.assertIn("is in use", sentence)
            self.assertIn("in the last 60 seconds: 1", sentence)
            self.assertEqual(self.tables(), before)
        for seconds in ("- INTERVAL 70 SECOND", "+ INTERVAL 70 SECOND"):
            self.sql(f"REPLACE INTO dalga_instances VALUES (8, UTC_TIMESTAMP() {seconds})")
            self.assertIn("dry run", self.upgrade(dry_run=True))

    def test_an_instance_that_starts_meanwhile(self) -> None:
        """One that comes between the look and the renaming is seen; all is as it was."""
        self.run_file("go_3.sql")
        before = self.tables()["dalga"]

        def start(step: str) -> None:
            if step == "rename  _go_table":
                self.sql("INSERT INTO dalga_instances VALUES (8, UTC_TIMESTAMP())")

        sentence = self.refused(watched(self.dialect(), start))
        self.assertIn("is in use", sentence)
        self.assertIn("the old table is as it was", sentence)
        self.assertEqual(self.tables()["dalga"], before)
        self.assertNotIn("dalga_go_table", self.names())

    def test_release_1_has_no_heartbeats(self) -> None:
        """So the administrator is told to make sure."""
        self.run_file("go_1.sql")
        self.assertIn("make sure yourself that no instance runs", self.upgrade(dry_run=True))

    def test_a_forgotten_instance(self) -> None:
        """What it writes fails, during the copy and ever after; nothing is lost in silence."""
        self.run_file("go_1.sql")
        put = "REPLACE INTO dalga (path, body, `interval`, next_run) VALUES ('a', 'b', 60, NOW())"
        failures: list[str] = []

        def write(step: str = "afterwards") -> None:
            try:
                self.sql(put)
            except pymysql.MySQLError:
                failures.append(step)

        self.upgrade(dialect=watched(self.dialect(), write))
        write()
        self.assertEqual(
            failures,
            ["create _unfinished", "read 2", "rename _unfinished ", "afterwards"],
        )
        # The one before all that came through, and is there.
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(7,)])

    def test_locked(self) -> None:
        """A transaction that somebody left open is not waited for without end."""
        self.patch(mysql, "UPGRADE_LOCK_WAIT", 1)
        self.run_file("go_1.sql")
        with closing(self.connect()) as stranger:
            stranger.begin()
            stranger.cursor().execute("SELECT * FROM dalga")
            sentence = self.refused()
        self.assertIn("is locked by somebody else", sentence)
        self.assertIn("the old table is as it was", sentence)
        self.assertIn("done", self.upgrade())

    def test_two_upgrades(self) -> None:
        """The second one waits a little, and is then refused."""
        self.patch(mysql, "UPGRADE_LOCK_WAIT", 1)
        self.run_file("go_1.sql")
        with self.dialect().upgrading():
            self.assertIn("another upgrade of the table", self.refused())
        self.assertIn("done", self.upgrade())

    def test_the_name_for_the_old_table_is_taken(self) -> None:
        """An earlier backup is never overwritten."""
        self.run_file("go_1.sql")
        self.sql("CREATE TABLE dalga_go_table (a INT)")
        before = self.tables()
        self.assertIn("`dalga_go_table`", self.refused())
        self.assertEqual(self.tables(), before)

    def test_the_name_for_the_new_table_is_taken(self) -> None:
        """A stranger's table is not dropped."""
        self.run_file("go_1.sql")
        self.sql("CREATE TABLE dalga_unfinished (a INT)")
        before = self.tables()
        self.assertIn("`dalga_unfinished`", self.refused())
        self.assertEqual(self.tables(), before)

    def test_a_stranger(self) -> None:
        """A table of another program is left alone."""
        self.sql("CREATE TABLE dalga (path VARCHAR(255), body VARCHAR(255), state INT)")
        sentence = self.refused()
        self.assertIn("nor one that it can upgrade", sentence)
        self.assertIn("name another with table in [mysql]", sentence)
        self.assertIn("path, body, state", sentence)

    def test_no_primary_key(self) -> None:
        """A job that is there twice could be kept but once, so the key has to be there."""
        self.run_file("go_1.sql")
        self.sql("ALTER TABLE dalga DROP PRIMARY KEY, ADD PRIMARY KEY (path, body, next_run)")
        self.assertIn("no primary key (path, body)", self.refused())

    def test_no_room(self) -> None:
        """What the new table can't hold is named, and nothing is begun."""
        self.run_file("go_1.sql")
        self.sql(
            "ALTER TABLE dalga DROP PRIMARY KEY, ADD UNIQUE (path, body),"
            " MODIFY path VARBINARY(1500), MODIFY body VARCHAR(255) NULL"
        )
        self.sql("INSERT INTO dalga VALUES (%s, NULL, 60, NOW())", (b"nobody",))
        self.sql("INSERT INTO dalga VALUES (%s, 'b', 60, NOW())", (b"x" * 1021,))
        before = self.tables()
        lines: list[str] = []
        error = self.assertRaises(StartupError, lines.extend, room.upgrade(self.dialect(), False))
        self.assertIn("no room for each job", str(error))
        said = "\n".join(lines)
        self.assertIn("jobs that the new table has no room for: 2", said)
        self.assertIn("'nobody' 'None' has no body", said)
        self.assertIn("has a path of 1021 bytes, and 1020 are the most", said)
        self.assertEqual(self.tables(), before)

    def test_somebody_writes_to_the_old_table(self) -> None:
        """Under its new name, during the copy: then the copy is not what it should be."""
        self.patch(room, "PROGRESS", 1)
        self.run_file("go_1.sql")

        def write() -> None:
            for line in room.upgrade(self.dialect(), False):
                if line.startswith("copied"):
                    self.sql("INSERT INTO dalga_go_table VALUES ('a', 'b', 60, NOW())")

        self.assertIn("somebody wrote", str(self.assertRaises(StartupError, write)))
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(7,)])
        self.assertIn("done", self.upgrade())

    def test_an_old_server(self) -> None:
        """A server that the daemon could not use is no place for an upgrade."""
        self.run_file("go_1.sql")
        before = self.tables()
        dialect = self.dialect()
        dialect.skip_locked = " FOR UPDATE IF YOU DARE"
        self.assertIn("which has no SKIP LOCKED", self.refused(dialect))
        self.assertEqual(self.tables(), before)

    def test_foreign_columns(self) -> None:
        """What somebody added is named; it stays in the old table."""
        self.run_file("go_3.sql")
        self.sql("ALTER TABLE dalga ADD COLUMN note TEXT, ADD COLUMN owner INT")
        self.assertIn("will not be copied: `note`, `owner`", self.upgrade())

    # What can't be understood

    async def test_odd_rows(self) -> None:
        """They are kept and named; a claim sets them aside, and the others run."""
        self.run_file("go_3.sql")
        self.sql(
            "ALTER TABLE dalga MODIFY `interval` VARCHAR(255) NULL, "
            "MODIFY location VARCHAR(255) NULL, MODIFY next_sched DATETIME NULL, "
            "MODIFY body VARBINARY(255) NOT NULL"
        )
        self.sql("DELETE FROM dalga")
        past, zero, invalid = "2021-03-04 05:06:07", "0000-00-00 00:00:00", "2021-02-30 00:00:00"
        odd: dict[str, tuple[str, tuple[Any, ...], str]] = {
            "hourly": ("path", ("hourly", "", past, past), "'hourly'"),
            "negative": ("path", ("-5", "", past, past), "'-5'"),
            "huge": ("path", ("PT99999999999S", "", past, past), "'99999999999'"),
            "no interval": ("path", (None, "", past, past), "'NULL'"),
            "Mars": ("path", ("PT60S", "Mars/Phobos", past, past), "'Mars/Phobos'"),
            "here": ("path", ("PT60S", "Local", past, past), "'Local'"),
            "endless": ("path", ("PT60S", "x" * 255, past, past), "time zone"),
            "zero": ("path", ("PT60S", "", zero, zero), "0000-00-00"),
            "February": ("path", ("PT60S", "", invalid, invalid), "2021-02-30"),
            "dots": ("../path", ("PT60S", "", past, past), "would leave"),
            "bytes": ("path", ("PT60S", "", past, past), "not UTF-8"),
        }
        fine: dict[str, tuple[str, tuple[Any, ...]]] = {
            "no location": ("path", ("PT60S", None, past, past)),
            "no schedule": ("path", ("PT60S", "", past, None)),
            "no run": ("path", ("PT60S", "", zero, past)),
            "seconds": ("path", ("90", "", past, past)),
        }
        mode = "STRICT_ALL_TABLES,ALLOW_INVALID_DATES"
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute("SET SESSION sql_mode = %s", (mode,))
            for body, (path, values, *_) in {**odd, **fine}.items():
                key = b"\xff\xfe" if body == "bytes" else body.encode()
                cursor.execute(
                    "INSERT INTO dalga (path, body, `interval`, location, next_run, next_sched)"
                    " VALUES (%s, %s, %s, %s, %s, %s)",
                    (path, key, *values),
                )
            connection.commit()
        said = self.upgrade()
        self.assertIn(f"set aside until they are scheduled anew: {len(odd)}", said)
        for _, _, words in odd.values():
            self.assertIn(words, said)
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(len(odd) + len(fine),)])
        store = self.make_store()
        store.open()
        claimed = await store.claim(100, LONG)
        self.assertEqual({run.key.body for run in claimed.runs}, set(fine))
        self.assertEqual(len(self.flushLoggedErrors()), 0)
        self.assertEqual((await store.counts()).set_aside, len(odd))
        job = await store.get(JobKey("path", "hourly"))
        self.assertIsInstance(job, UnreadableJob)
        self.assertIn("hourly", getattr(job, "problem", ""))

    async def test_nothing_is_known_of_its_time(self) -> None:
        """A job without any time is kept as a disabled one."""
        self.run_file("go_1.sql")
        self.sql("ALTER TABLE dalga MODIFY next_run DATETIME NULL")
        self.sql("INSERT INTO dalga VALUES ('path', 'no time', 60, NULL)")
        self.assertIn("disabled: 1", self.upgrade())
        job = await self.job(self.make_store(), JobKey("path", "no time"))
        self.assertTrue(job.disabled)

    # Many rows

    def test_batches(self) -> None:
        """Rows are copied a few at a time, whatever number there is; progress is told."""
        self.patch(room, "BATCH", 4)
        self.patch(room, "PROGRESS", 1)
        self.run_file("go_3.sql")
        said = self.upgrade().splitlines()
        self.assertEqual(
            [line for line in said if line.startswith("copied")],
            ["copied: 4 of 11", "copied: 8 of 11", "copied: 11 of 11"],
        )
        self.assertEqual(self.sql("SELECT COUNT(*) FROM dalga"), [(11,)])

    def test_a_long_list(self) -> None:
        """Not every job of thousands is named."""
        self.run_file("go_1.sql")
        values = ", ".join(f"('Feed', '{number}', 60, NOW())" for number in range(30))
        self.sql(f"INSERT INTO dalga VALUES {values}")
        said = self.upgrade(dry_run=True)
        self.assertIn("only this one does: 32\n", said)
        self.assertIn("  and 12 more", said)
        self.assertEqual(said.count("  'Feed'"), 20)

    def test_a_failure(self) -> None:
        """What goes wrong on the way is told, and all is as it was."""
        for step in ("create _unfinished", "read 2", "rename _unfinished "):
            self.run_file("go_1.sql")
            before = self.tables()["dalga"]

            def fail(found: str, step: str = step) -> None:
                if found == step:
                    raise pymysql.err.OperationalError(1114, "The table is full")

            sentence = self.refused(watched(self.dialect(), fail))
            self.assertIn("The table is full", sentence)
            self.assertIn("the old table is as it was", sentence)
            self.assertEqual(self.tables()["dalga"], before)
            self.assertNotIn("dalga_unfinished", self.names())
            self.sql("DROP TABLE dalga")

    def test_nobody_listens(self) -> None:
        """Who stops listening half way, as `head` does, stops the upgrade."""
        self.patch(room, "BATCH", 2)
        self.patch(room, "PROGRESS", 2)
        self.run_file("go_1.sql")
        before = self.tables()["dalga"]
        with closing(room.upgrade(self.dialect(), False)) as lines:
            for line in lines:
                if line.startswith("copied"):
                    break
        self.assertEqual(self.tables()["dalga"], before)

    # What the daemon says

    def test_starting_on_it(self) -> None:
        """What is to be done is said by who starts on a Go table, or creates one over it."""
        self.run_file("go_3.sql")
        for start in (self.make_store().open, self.make_store().create_table):
            sentence = str(self.assertRaises(StartupError, start))
            self.assertIn("was made by Go release 3 of Dalga", sentence)
            self.assertIn("dalga --config FILE --upgrade-table", sentence)


@each_engine(globals(), only=("mariadb", "mysql"))
class KilledUpgradeTests(KilledTestCase):
    """An upgrade whose process is killed (SIGKILL) is run again, and nothing is lost."""

    timeout = 300
    # Steps are all that a `Watched` dialect tells, and all lines that are said.
    upgrade_script = """
from dalga.store import upgrade as room
from tests.test_upgrade import Watched

def upgrade(dialect, step):
    room.BATCH, room.PROGRESS = 4, 1
    for line in room.upgrade(Watched(dialect, step), False):
        step(line)
"""

    def rows(self) -> list[Any]:
        return self.sql(
            "SELECT path, body, schedule, location, anchor, scheduled, due, disabled, attempts"
            " FROM dalga ORDER BY path, body"
        )

    async def test_at_any_step(self) -> None:
        """Before each reading and renaming, and at each line that is said."""
        await deferToThread(self.check, "go_3.sql")

    def check(self, file: str) -> None:
        self.run_file(file)
        self.assertFalse(self.kill(0))
        complete = self.rows()
        self.reset()
        lost = 0
        for step in range(1, 100):
            self.run_file(file)
            if not self.kill(step):
                break
            if "dalga" not in self.names():
                lost += 1
                for start in (self.make_store().open, self.make_store().create_table):
                    sentence = str(self.assertRaises(StartupError, start))
                    self.assertIn("an upgrade leaves it that was interrupted", sentence)
                    self.assertIn("dalga --config FILE --upgrade-table", sentence)
                dry = self.upgrade(dry_run=True)
                self.assertIn("was interrupted; all jobs are in `dalga_go_table`", dry)
                self.assertNotIn("dalga", self.names())
            said = self.upgrade()
            self.assertTrue("done" in said or "there is nothing to do" in said, said)
            self.assertEqual(self.rows(), complete)
            self.assertNotIn("dalga_unfinished", self.names())
            self.reset()
        else:
            self.fail("it is never through")
        self.assertGreater(lost, 3)

    def reset(self) -> None:
        for table in ("dalga", "dalga_go_table", "dalga_instances", "dalga_alive_6"):
            self.sql(f"DROP TABLE IF EXISTS {table}")


@each_engine(globals())
class CommandTests(DaemonTestCase, UpgradeTestCase):
    """The command line."""

    def old_table(self) -> None:
        self.run_file("schema_1_sqlite.sql" if self.engine == "sqlite" else "go_3.sql")

    async def run_dalga(self, *arguments: str) -> tuple[int, str]:
        """Run it to its end; gives its status and what it said."""
        daemon = self.spawn(*arguments)
        return await daemon.ended, daemon.output

    async def test_upgrade(self) -> None:
        """A start names the command, which says what it does; then the daemon runs."""
        self.old_table()
        ini = self.ini()
        status, output = await self.run_dalga("--config", ini)
        self.assertEqual(status, 1)
        self.assertIn("--upgrade-table", output)
        self.assertEqual(output.count("\n"), 1, output)
        for options in (["--upgrade-table", "--dry-run"], ["-upgrade-table", "-dry-run"]):
            status, output = await self.run_dalga("-config", ini, *options)
            self.assertEqual(status, 0, output)
            self.assertIn("nothing has been changed", output)
        status, output = await self.run_dalga("--config", ini, "--upgrade-table")
        self.assertEqual(status, 0, output)
        self.assertRegex(output, "done[;:]")
        status, output = await self.run_dalga("--config", ini, "--upgrade-table")
        self.assertEqual(status, 0, output)
        self.assertIn("there is nothing to do", output)
        daemon = self.spawn("--config", ini)
        await daemon.url()
        await self.endpoint.until(lambda: ("check_feed", "overdue") in {h.key for h in self.hits})

    async def test_a_daemon_that_slept(self) -> None:
        """It wakes to a later version's table: it POSTs nothing more, and answers why."""
        daemon, url = await self.start()
        await self.put(f"{url}/jobs/tick/x?interval=3600")
        while self.sql("SELECT COUNT(*) FROM dalga_alive_6") != [(1,)]:
            await self.pause(0.05)
        daemon.send(signal.SIGSTOP)
        self.sql("UPDATE dalga_alive_6 SET seen = '2020-01-01 00:00:00.000000'")
        with LaterVersion():
            self.upgrade()
        self.sql("UPDATE dalga SET due = '2020-01-01 00:00:00.000000'")
        before = self.tables()
        daemon.send(signal.SIGCONT)
        status, answer = await self.call("PUT", f"{url}/jobs/tick/y?interval=60")
        self.assertEqual(status, 503)
        self.assertIn("has schema version 7, of a later version of Dalga than this one", answer)
        await daemon.says("has schema version 7.*waiting for it to come back")
        self.assertEqual(self.tables(), before)
        self.assertEqual(self.hits, [])
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertNotIn("Traceback", daemon.output)

    @property
    def hits(self) -> Any:
        return self.endpoint.hits

    async def test_refusals(self) -> None:
        """What is in the way is said in one line, and the status is 1."""
        status, output = await self.run_dalga("--config", self.ini(), "--upgrade-table")
        self.assertEqual(status, 1)
        self.assertIn("nothing to upgrade", output)
        self.assertEqual(output.count("\n"), 1, output)

    async def test_contradictions(self) -> None:
        """Options that make no sense together are refused by name."""
        ini = self.ini()
        for options, words in (
            (["--dry-run"], "--dry-run goes with --upgrade-table"),
            (["--create-table", "--dry-run"], "--dry-run goes with --upgrade-table"),
            (["--create-table", "--upgrade-table"], "--create-table and --upgrade-table"),
        ):
            status, output = await self.run_dalga("--config", ini, *options)
            self.assertEqual(status, 2)
            self.assertIn(words, output)
            self.assertEqual(output.count("\n"), 1, output)


class PureTests(SynchronousTestCase):
    """From the values of a Go release's row to ours."""

    def test_schedule(self) -> None:
        """Seconds, ISO 8601 durations, and what is neither."""
        for value, expected in (
            (0, ""),
            (60, "60"),
            (4294967295, "4294967295"),
            (b"0", ""),
            (b"", ""),
            (b"P0D", ""),
            (b"P", ""),
            (b"PT0S", ""),
            (b"PT60S", "60"),
            (b"PT1H30M", "5400"),
            (b"60s", "60"),
            (b"P1D", "P1D"),
            (b"P1Y2M3W4DT5H6M7S", "P1Y2M25DT5H6M7S"),
            (b"P1W1D", "P8D"),
            (b"P2W", "P2W"),
            (b"P1M2W", "P1M14D"),
            (b"P1WT1H", "P7DT1H"),
            # To be set aside, and shown as they are.
            (-5, "-5"),
            (b"M", "M"),
            (b"60x", "60x"),
            (b"\xff", "\ufffd"),
            (b"P" + b"9" * 300 + b"D", "P" + "9" * 254),
            (None, "NULL"),
        ):
            self.assertEqual(go_schedule(value), expected, value)

    def test_times(self) -> None:
        """Next run and scheduled time to due and scheduled time."""
        early, late, now = datetime(2021, 1, 1), datetime(2021, 1, 2), datetime(2030, 1, 1)
        zero = "0000-00-00 00:00:00"
        for next_run, next_sched, due, scheduled in (
            (late, early, late, early),  # a retry
            (early, early, early, early),
            (early, late, early, early),  # moved by hand
            (None, early, None, early),
            (early, None, early, early),
            (early, zero, early, early),
            (zero, early, early, early),
            (zero, zero, zero, zero),
            (None, None, None, now),
            (None, zero, None, zero),
        ):
            values = {"path": b"p", "body": b"b", "interval": b"", "next_run": next_run}
            row = from_go({**values, "next_sched": next_sched, "location": b""}, now)
            self.assertEqual((row.due, row.scheduled, row.anchor), (due, scheduled, scheduled))
            self.assertEqual(row.disabled, next_run is None)
            self.assertEqual(row.location, "UTC")

    def test_folds(self) -> None:
        """Which keys have other spellings under a collation that clients may well use."""
        for text, collation, expected in (
            ("job", "utf8mb4_general_ci", False),
            ("Job", "utf8mb4_general_ci", True),
            ("jób", "utf8mb3_general_ci", True),
            ("job ", "utf8mb4_general_ci", True),
            ("job ", "utf8mb4_0900_ai_ci", False),
            ("Job", "utf8mb4_0900_ai_ci", True),
            ("job ", "utf8mb4_nopad_bin", False),
            ("job ", "utf8mb4_bin", True),
            ("Job", "utf8mb4_bin", False),
            ("Job ", "", False),
        ):
            self.assertEqual(folds(text, collation), expected, (text, collation))

    def test_release(self) -> None:
        """A table's columns tell which release made it."""
        for columns, release in (
            ("path body interval next_run", 1),
            ("path body interval next_run instance_id", 2),
            ("path body interval location next_run instance_id", 2),
            ("path body interval location next_run next_sched instance_id", 3),
            ("id path body interval location next_run next_sched instance_id", 4),
            ("routing_key body interval next_run", None),
            ("path body interval scheduled due", None),
            ("", None),
        ):
            self.assertEqual(go_release(columns.split()), release, columns)

    def test_version(self) -> None:
        """A table's comment tells the schema's version."""
        for comment, version in (
            ("dalga schema 2", 2),
            ("dalga schema 12", 12),
            ("", None),
            ("dalga schema two", None),
            ("VIEW", None),
        ):
            self.assertEqual(version_of(comment), version, comment)

    def test_misfit(self) -> None:
        """The sentence says what to do."""
        for version, release, words in (
            (1, None, f"upgrade it to version {VERSION} with THAT"),
            (VERSION + 1, None, "run that version, or ANOTHER"),
            (None, 3, "upgrade it with THAT"),
            (None, None, "ANOTHER"),
        ):
            sentence = misfit(version, ["a", "b"], release, "ANOTHER", "THAT")
            self.assertTrue(sentence.endswith(words), sentence)


class Watched:
    """
    A dialect that tells of each step of an upgrade before it is taken: each reading of the old
    table (the first for a look, the second for the copy), renamings, and the making of the new one.
    """

    def __init__(self, dialect: Dialect, watch: Callable[[str], object]) -> None:
        self._dialect = dialect
        copying = dialect.for_go_tables()
        assert copying is not None
        self._copying = copying
        self._watch = watch
        self._readings = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dialect, name)

    def for_go_tables(self) -> Any:
        return self

    def rows(self, connection: Any, select: str) -> Iterator[Any]:
        self._readings += 1
        self._watch(f"read {self._readings}")
        return self._copying.rows(connection, select)

    def create(self, cursor: Any, suffix: str) -> None:
        self._watch(f"create {suffix}")
        self._copying.create(cursor, suffix)

    def rename(self, cursor: Any, suffix: str, new: str) -> None:
        self._watch(f"rename {suffix} {new}")
        self._copying.rename(cursor, suffix, new)


def watched(dialect: Dialect, watch: Callable[[str], object]) -> Dialect:
    """A `Watched`, which has all that a dialect has by `__getattr__`."""
    return cast(Dialect, Watched(dialect, watch))
