"""The fault bench's watch sees what daemons take, and objects to what is too much, alone."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from twisted.trial.unittest import SynchronousTestCase

from faults.scenarios import Scenario
from faults.watch import (
    Limits,
    Sample,
    Usage,
    Watch,
    overcrowded,
    oversized,
    overstayed,
    overworked,
    sample,
)
from faults.world import World
from tests.stores import EngineTestCase, each_engine, server
from tests.test_faults_run import BenchCase

LIMITS = Limits(idle=0.02, each=0.005, slack=0.4, threads=40, files=300, memory=200.0)


def at_work(share: float, seconds: int = 30) -> list[Sample]:
    """Samples of a daemon that takes such a share of a core, one a second."""
    return [Sample(1000.0 + second, 0.7 + share * second) for second in range(seconds + 1)]


class JudgeTests(SynchronousTestCase):
    """What is too much, and what is not."""

    def test_cpu(self) -> None:
        self.assertEqual(overworked([], [], LIMITS), [])
        self.assertEqual(overworked(at_work(0.05), [], LIMITS), [])
        # Also where many share the machine, so that one that spins has but a fifth of a core.
        for share in (0.2, 1.0):
            (said,) = overworked(at_work(share), [], LIMITS)
            self.assertIn(f"took {share * 10:.1f} s of CPU in 10 s, in which it did 0 things", said)

    def test_cpu_for_what_is_done(self) -> None:
        """A POST and a request each are a reason, at the time when they are made, and no other."""
        often = [1000 + number / 40 for number in range(1200)]
        self.assertEqual(overworked(at_work(0.2), often, LIMITS), [])
        (said,) = overworked(at_work(1.0), often, LIMITS)
        self.assertIn("took 10.0 s of CPU in 10 s, in which it did 420", said)
        (said,) = overworked(at_work(0.2), [at for at in often if at < 1015], LIMITS)
        self.assertIn("did 0 things", said)

    def test_cpu_in_a_short_life(self) -> None:
        self.assertEqual(overworked(at_work(0.1, 4), [], LIMITS), [])
        (said,) = overworked(at_work(0.5, 4), [], LIMITS)
        self.assertIn("took 2.0 s of CPU in 4 s", said)

    def test_sessions(self) -> None:
        """The server needs a moment to see that one was closed."""

        def seen(*numbers: int) -> list[tuple[float, int]]:
            return [(1000 + 0.5 * turn, number) for turn, number in enumerate(numbers)]

        self.assertEqual(overcrowded(seen(8, 8, 9, 12, 9, 8, 9, 8), 8, LIMITS), [])
        (said,) = overcrowded(seen(8, 9, 9, 12, 9, 9, 8), 8, LIMITS)
        self.assertEqual(said, "had up to 12 sessions on the database's server, for 2 s")
        self.assertEqual(len(overcrowded(seen(3, 3, 3, 3), 2, LIMITS)), 1)
        self.assertEqual(overcrowded(seen(30, 30, 30, 30), 0, LIMITS), [])

    def test_size(self) -> None:
        usual = Sample(1000.0, 1.0, 20, 120, 80.0)
        self.assertEqual(oversized([usual] * 3, LIMITS), [])
        for more, said in (
            ({"threads": 41}, "had 41 threads"),
            ({"files": 301}, "had 301 open files"),
            ({"memory": 200.6}, "had 201 MB"),
        ):
            self.assertEqual(oversized([usual, replace(usual, **more), usual], LIMITS), [said])

    def test_stop(self) -> None:
        self.assertEqual(overstayed(11.9, 10.0, LIMITS), [])
        self.assertEqual(overstayed(12.1, 10.0, LIMITS), ["took 12.1 s to stop"])


@dataclass
class Process:
    """This one, in the place of a daemon."""

    account: str
    address: str = "http://127.0.0.1:1"
    status: int | None = None
    pid: int = field(default_factory=os.getpid)
    usage: Usage = field(default_factory=Usage)


class SampleTests(SynchronousTestCase):
    """A process, from outside."""

    def test_sample(self) -> None:
        before = sample(os.getpid())
        ends = time.process_time() + 0.2
        with open(os.devnull):
            while time.process_time() < ends:
                pass
            after = sample(os.getpid())
        self.assertEqual(after.files, before.files + 1)
        self.assertGreaterEqual(after.cpu - before.cpu, 0.15)
        self.assertGreaterEqual(after.threads, 1)
        self.assertGreater(after.memory, 10)

    def test_ended(self) -> None:
        """One that has ended or does not listen yet is left out; one that ends now is no error."""
        ended, starting, ending = Process("1", status=0), Process("2", address=""), Process("3")
        ending.pid = 2**22  # which no process has
        watch = Watch(lambda: [ended, starting, ending], lambda: [])
        watch.look()
        self.assertEqual([one.usage.samples for one in (ended, starting, ending)], [[], [], []])


@each_engine(globals(), only=("mariadb", "mysql"))
class SessionTests(EngineTestCase):
    """Sessions are counted by account, as the server has them."""

    def test_sessions(self) -> None:
        host = server(self.engine)
        names = [f"{self.on_server.db}.{number}" for number in range(2)]
        host.create_accounts(names, self.on_server.db)
        one, other = map(Process, names)
        watch = Watch(lambda: [one, other], lambda: [host])
        self.addCleanup(watch.stop)
        connections = [host.connect(user=names[0], database=self.on_server.db) for _ in range(3)]
        watch.look()
        for connection in connections:
            connection.close()
        self.assertEqual([number for _, number in one.usage.sessions], [3])
        self.assertEqual([number for _, number in other.usage.sessions], [0])


class WorldTests(BenchCase):
    """A scenario fails by what its daemon takes, whatever it is about."""

    async def objections(
        self, limits: Limits, faults: Mapping[str, object] | None = None
    ) -> list[str]:
        """What there is to be said against a daemon that has lived for some seconds."""

        async def run(world: World) -> None:
            world.limits = limits
            await world.start(faults=faults)
            await world.pause(4)

        (result,) = await self.results(Scenario(run, "", engines=("sqlite",)))
        return result.wrong

    async def test_well(self) -> None:
        self.assertEqual(await self.objections(Limits()), [])

    async def test_spinning(self) -> None:
        (said,) = await self.objections(Limits(), faults={"spin": 0.2})
        self.assertRegex(
            said, r"^dalga0 took [0-9.]+ s of CPU in [3-9] s, in which it did 0 things$"
        )

    async def test_starts(self) -> None:
        """While the only instance starts nothing can run, and on a busy machine that takes long."""
        kinds: list[list[str]] = []

        async def run(world: World) -> None:
            first = await world.start()
            kinds.append([fault.kind for fault in world.history.faults])
            await world.kill(first)
            await world.start()
            kinds.append([fault.kind for fault in world.history.faults])

        await self.results(Scenario(run, "", engines=("sqlite",)))
        self.assertEqual(kinds, [[], ["SIGKILL", "no instance"]])

    async def test_size_and_stop(self) -> None:
        found = await self.objections(Limits(threads=1, files=1, memory=1.0, stop=-60.0))
        for said, what in zip(found, ("threads", "open files", "MB", "s to stop"), strict=True):
            self.assertRegex(said, rf"^dalga0 (had|took) [0-9.]+ {what}$")
