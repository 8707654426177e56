"""
A daemon that is started by root and becomes another user: twistd's ``--uid`` and ``--gid``.

Where root runs these tests that user is nobody. Else it is whoever runs them: twistd takes that,
too, and files that can't be written are the same to both.
"""

from __future__ import annotations

import os
import pwd
import signal
from pathlib import Path
from tempfile import mkdtemp

from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import StartupError
from dalga.privileges import STAYS, User, acting_as
from tests.daemons import Daemon, DaemonTestCase
from tests.stores import each_engine

ROOT = os.geteuid() == 0
#: Who the daemon is to be, and that user's group.
NOBODY = pwd.getpwnam("nobody") if ROOT else pwd.getpwuid(os.geteuid())


class ActingTests(SynchronousTestCase):
    """Files that are made meanwhile are the other user's."""

    def made(self, user: User) -> tuple[int, int]:
        """Whose a file is that is made as a user, and of which group."""
        folder = mkdtemp()
        self.addCleanup(FilePath(folder).remove)
        os.chmod(folder, 0o777)
        before = os.geteuid(), os.getegid(), os.getgroups()
        with acting_as(user):
            path = Path(folder, "made")
            path.touch()
        self.assertEqual((os.geteuid(), os.getegid(), os.getgroups()), before)
        found = path.stat()
        return found.st_uid, found.st_gid

    def test_files(self) -> None:
        """Of that user, and of the group that is named or is that user's own."""
        uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
        other = 1 if ROOT else os.getegid()
        for user, expected in [
            (STAYS, (os.geteuid(), os.getegid())),
            (User(uid), (uid, gid)),
            (User(uid, other), (uid, other)),
            (User(None, other), (os.geteuid(), other)),
        ]:
            self.assertEqual(self.made(user), expected, user)

    def test_the_same_user(self) -> None:
        """Whoever runs it may name itself: the other groups are not set then, as root alone may."""

        def refuse(name: str, gid: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(os, "initgroups", refuse)
        uid = os.geteuid()
        self.assertEqual(self.made(User(uid))[0], uid)
        self.assertEqual(self.made(User(uid, os.getegid())), (uid, os.getegid()))

    def test_afterwards(self) -> None:
        """Also after a failure it is the former user again."""
        before = os.geteuid(), os.getegid(), os.getgroups()
        with self.assertRaises(ZeroDivisionError), acting_as(User(NOBODY.pw_uid)):
            raise ZeroDivisionError
        self.assertEqual((os.geteuid(), os.getegid(), os.getgroups()), before)

    def test_refused(self) -> None:
        """There has to be such a user, and only root can become another."""
        unknown = max(entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid < 2**31 - 9) + 7
        error = self.assertRaises(StartupError, acting_as(User(unknown)).__enter__)
        self.assertIn(f"there is no user with the number {unknown}", str(error))
        # As nobody, who is not root.
        with acting_as(User(NOBODY.pw_uid)):
            error = self.assertRaises(StartupError, acting_as(User(0)).__enter__)
        self.assertIn("can't become user 0 and group 0 (Operation not permitted)", str(error))


@each_engine(globals(), only=("sqlite",))
class DaemonTests(DaemonTestCase):
    """twistd and an SQLite file."""

    def setUp(self) -> None:
        super().setUp()
        # Trial's own folder may be out of nobody's reach.
        self.place = mkdtemp()
        self.addCleanup(FilePath(self.place).remove)
        self.addCleanup(os.chmod, self.place, 0o755)
        os.chmod(self.place, 0o755)

    def become(self, *more: str) -> Daemon:
        """Start one that becomes the user."""
        ini = self.ini(sqlite={"path": f"{self.place}/jobs.sqlite"})
        options = ["-n", "--pidfile=", f"--uid={NOBODY.pw_uid}", *more]
        return self.spawn(*options, "dalga", "--config", ini, twistd=True)

    async def refused(self, *more: str) -> str:
        """The one line with which it ends."""
        daemon = self.become(*more)
        self.assertEqual(await daemon.ended, 1, daemon.output)
        (line,) = daemon.output.splitlines()
        return line

    async def test_its_own_file(self) -> None:
        """Each file is the user's, so that jobs can be written once the privileges are gone."""
        os.chown(self.place, NOBODY.pw_uid, -1)
        daemon = self.become()
        url = await daemon.url()
        await self.put(f"{url}/jobs/a/b?one-off=1&immediate=1")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        names = sorted(os.listdir(self.place))
        self.assertEqual(names, [f"jobs.sqlite{end}" for end in ("", "-shm", "-wal", ".lock")])
        for name in names:
            found = Path(self.place, name).stat()
            self.assertEqual((found.st_uid, found.st_gid), (NOBODY.pw_uid, NOBODY.pw_gid), name)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0, daemon.output)
        self.assertNotIn("Traceback", daemon.output)

    async def test_a_table_that_is_made_before(self) -> None:
        """By --create-table and --upgrade-table, too, each file is the user's."""
        os.chown(self.place, NOBODY.pw_uid, -1)
        ini = self.ini(sqlite={"path": f"{self.place}/jobs.sqlite"})
        lock = Path(self.place, "jobs.sqlite.lock")
        for option in ("--create-table", "--upgrade-table"):
            lock.unlink(missing_ok=True)
            twistd = ["-n", "--pidfile=", f"--uid={NOBODY.pw_uid}"]
            made = self.spawn(*twistd, "dalga", "--config", ini, option, twistd=True)
            self.assertEqual(await made.ended, 0, made.output)
            self.assertTrue(lock.exists())
            for name in os.listdir(self.place):
                self.assertEqual(Path(self.place, name).stat().st_uid, NOBODY.pw_uid, name)

    async def test_what_it_could_not_write(self) -> None:
        """Root could; the start says in one sentence that the user can't."""
        user = f"user {NOBODY.pw_name}"
        os.chmod(self.place, 0o555)
        self.assertIn(f"choose a folder that {user} may write to", await self.refused())
        os.chmod(self.place, 0o777)
        lock = Path(self.place, "jobs.sqlite.lock")
        lock.touch(0o444)
        self.assertIn(f"Permission denied; give both to {user}", await self.refused())
        lock.unlink()
        own = self.spawn("--config", self.ini(sqlite={"path": f"{self.place}/jobs.sqlite"}))
        await own.url()
        own.send(signal.SIGTERM)
        await own.ended
        lock.chmod(0o666)
        Path(self.place, "jobs.sqlite").chmod(0o444)
        able = f"{user} has to be able to write to it, to what is beside it, and to the folder"
        self.assertIn(able, await self.refused())
        Path(self.place, "jobs.sqlite").chmod(0o666)
        os.chmod(self.place, 0o555)
        self.assertIn(able, await self.refused())
        os.chmod(self.place, 0o777)
        # As of a daemon that root had, and that was killed.
        for end in ("-wal", "-shm"):
            Path(self.place, f"jobs.sqlite{end}").touch(0o444)
        self.assertIn(able, await self.refused())

    async def test_chroot(self) -> None:
        """The file would be outside."""
        line = await self.refused(f"--chroot={self.place}")
        self.assertIn("would be out of reach once dalga runs: leave --chroot out", line)

    async def test_reload(self) -> None:
        """P12: what that user may not read is not read again, and all stays as it was."""
        os.chown(self.place, NOBODY.pw_uid, -1)
        ini = Path(self.place, "dalga.ini")

        def write(mode: int, slots: int) -> None:
            text = Path(self.ini(sqlite={"path": f"{self.place}/jobs.sqlite"})).read_text()
            ini.unlink(missing_ok=True)
            ini.write_text(text.replace("[jobs]", f"[jobs]\nmaxRunning = {slots}"))
            ini.chmod(mode)

        write(0o400, 7)
        twistd = ["-n", "--pidfile=", f"--uid={NOBODY.pw_uid}"]
        daemon = self.spawn(*twistd, "dalga", "--config", str(ini), twistd=True)
        url = await daemon.url()
        write(0o000, 8)
        daemon.send(signal.SIGHUP)
        await daemon.says("all stays as it was: .*Permission denied")
        _, shown = await self.call("GET", f"{url}/metrics")
        self.assertIn("dalga_slots 7.0\n", shown)
        write(0o444, 8)
        daemon.send(signal.SIGHUP)
        await daemon.says(r"changed: \[jobs\] maxRunning\n")
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0, daemon.output)
