"""What the bench starts it ends, however it ends itself; one scenario's trouble is its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from shutil import rmtree
from time import monotonic, sleep
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from faults import __main__ as bench
from faults.scenarios import Scenario
from faults.world import CHECKOUT, Instance, World
from tests.servers import ServerError
from tests.stores import each_engine


def descendants(process: int) -> set[int]:
    """The processes that it has started, and those that they have."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = path.read_text()
        except OSError:
            continue  # it has ended meanwhile
        parents[int(path.parent.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until something is true; gives it."""
    ends = monotonic() + 60
    while not (found := condition()):
        if monotonic() > ends:
            raise AssertionError(f"waited for {what}, in vain")
        sleep(0.02)
    return found


@each_engine(globals())
class EndTests(SynchronousTestCase):
    """The bench ends before its scenario does."""

    engine: str

    def setUp(self) -> None:
        # Not in trial's folder: a server's socket needs a short path.
        self.folder = Path(tempfile.mkdtemp(prefix="dalga-"))
        self.addCleanup(rmtree, self.folder, ignore_errors=True)

    @contextmanager
    def running(self) -> Iterator[tuple[subprocess.Popen[str], set[int]]]:
        """A bench whose daemons run, and what it has started."""
        if self.engine != "sqlite":
            arguments = ["database-held", "--engine", self.engine]
        else:
            arguments = ["sqlite-disk-full" if os.geteuid() == 0 else "sqlite-two"]
        process = subprocess.Popen(
            [sys.executable, "-m", "faults", *arguments],
            cwd=CHECKOUT,
            env={**os.environ, "TMPDIR": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell has what it puts into the background ignore it, and all that this starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

        def listens() -> bool:
            self.assertIsNone(process.poll(), "it has ended")
            logs = self.folder.glob("dalga-faults-*/*/dalga0.log")
            return any("listens on" in log.read_text() for log in logs)

        try:
            until(listens, "a daemon")
            started = descendants(process.pid)
            self.assertTrue(started)
            yield process, started
        finally:
            process.kill()
            process.communicate()

    def assert_gone(self, started: set[int]) -> None:
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "their end")

    def test_signal(self) -> None:
        """It tidies up, and says by its status what ended it."""
        number = signal.SIGINT if self.engine == "sqlite" else signal.SIGTERM
        with self.running() as (process, started):
            process.send_signal(number)
            output, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 128 + number, output)
            self.assertIn(f"{number.name}: 0 of 1 scenarios were over", output)
            self.assertNotIn("Traceback", output)
            self.assertNotIn("not tidied up", output)
            self.assert_gone(started)
            # A disk that is still there could not be removed.
            self.assertEqual(list(self.folder.iterdir()), [])

    def test_killed(self) -> None:
        """Nobody is left who could tidy up, and yet nothing goes on."""
        with self.running() as (process, started):
            process.kill()
            self.assert_gone(started)
            mounts = Path("/proc/self/mounts").read_text()
            self.assertNotIn(str(self.folder), mounts)


class BenchCase(TestCase):
    """Scenarios of a test's own, run as any other."""

    timeout = 60

    def setUp(self) -> None:
        self.output = StringIO()
        self.patch(sys, "stdout", self.output)

    async def results(self, *scenarios: Scenario) -> list[bench.Result]:
        """What these come to."""
        keep = Path(self.mktemp()).absolute()
        keep.mkdir()
        options = Namespace(engine="mariadb", seed=1, seconds=1.0, together=1, keep=keep)
        wanted = {f"scenario-{number}": one for number, one in enumerate(scenarios)}
        return await bench.Bench(reactor, options).run_all(wanted)


class TroubleTests(BenchCase):
    """What goes wrong in one scenario, or before it, fails that one."""

    async def assert_fails(self, why: str, one: Scenario) -> None:
        """It alone does, and says why. Scenarios begin from the list's end, so it is the first."""
        passed, failed = await self.results(Scenario(nothing, "", engines=("sqlite",)), one)
        self.assertEqual(len(failed.wrong), 1)
        self.assertIn("broke off", failed.wrong[0])
        self.assertIn(why, failed.wrong[0])
        self.assertEqual(passed.wrong, [])

    async def test_world(self) -> None:
        opened = World.open

        async def once(world: World) -> None:
            self.patch(World, "open", opened)
            raise OSError("no port is free")

        self.patch(World, "open", once)
        await self.assert_fails("no port is free", Scenario(nothing, "", engines=("sqlite",)))

    async def test_server(self) -> None:
        """Not the shared one, without which there is nothing to be run."""

        def start_server(*arguments: Any) -> Any:
            raise ServerError("it does not answer")

        self.patch(bench, "start_server", start_server)
        one = Scenario(nothing, "", own_server=True, engines=("sqlite",))
        await self.assert_fails("it does not answer", one)

    async def test_disk(self) -> None:
        def mount(folder: Path, size: int) -> Path:
            raise subprocess.CalledProcessError(32, "mount")

        self.patch(bench, "mount", mount)
        one = Scenario(nothing, "", engines=("sqlite",), disk=4)
        await self.assert_fails("mount", one)

    async def test_instance(self) -> None:
        """That never came to be a process, and so has no end."""

        async def run(world: World) -> None:
            world.instances.append(Instance(world.folder / "log"))
            raise OSError("no process is free")

        await self.assert_fails("no process is free", Scenario(run, "", engines=("sqlite",)))

    async def test_tidying(self) -> None:
        """The folder of a result tells of what could not be ended."""

        async def run(world: World) -> None:
            await nothing(world)
            world.at_end.append(lambda: 1 // 0)

        (result,) = await self.results(Scenario(run, "", engines=("sqlite",)))
        self.assertEqual(len(result.wrong), 1)
        self.assertIn("not tidied up: ZeroDivisionError", result.wrong[0])


async def nothing(world: World) -> None:
    """The least that can be checked: a table."""
    await world.start()


class CommandLineTests(SynchronousTestCase):
    """What is asked for is run, or it is said why not."""

    def refused(self, *arguments: str) -> str:
        """What is said of them."""
        said = StringIO()
        self.patch(sys, "stderr", said)
        self.assertEqual(self.assertRaises(SystemExit, bench.parse, arguments).code, 2)
        return said.getvalue().strip().splitlines()[-1]

    def test_numbers(self) -> None:
        for seconds in ("0", "-1", "nan", "inf"):
            self.assertIn("is not more than 0 seconds", self.refused(f"--seconds={seconds}"))
        for together in ("0", "-1"):
            self.assertIn("is not one or more", self.refused(f"--together={together}"))
        self.assertIn("invalid", self.refused("--together=1.5"))

    def test_scenario_of_another_engine(self) -> None:
        said = self.refused("client", "galera", "--engine=mysql")
        self.assertIn("scenario 'galera' is not about mysql", said)
        bench.parse(["sqlite-two", "galera"])
        bench.parse(["sqlite-two", "--engine=mysql"])

    def test_keep(self) -> None:
        """It may be relative, though daemons run in folders of their own."""
        keep = bench.parse([f"--keep={self.mktemp()}/kept"]).keep
        self.assertTrue(keep.is_absolute())
        self.assertTrue(keep.is_dir())
        self.assertIn("--keep: ", self.refused(f"--keep={__file__}"))

    def test_no_disks(self) -> None:
        """What needs one is left out, and named; the rest is run."""
        with_disks, nothing_left_out = bench.choose(bench.parse([]), True)
        self.assertEqual(nothing_left_out, [])
        without, left_out = bench.choose(bench.parse([]), False)
        self.assertIn("disk-full", left_out)
        self.assertEqual({*without, *left_out}, {*with_disks})

    def test_nothing_left(self) -> None:
        """That is no pass."""
        output = StringIO()
        self.patch(sys, "stdout", output)
        self.patch(sys, "argv", ["faults", "sqlite-disk-full"])
        self.patch(bench, "own_mounts", lambda: False)
        self.patch(bench, "on_signals", lambda call: None)
        ended = self.assertRaises(SystemExit, bench.main)
        self.assertIn("no scenario is left", str(ended.code))
        self.assertIn("sqlite-disk-full", output.getvalue())
