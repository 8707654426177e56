"""SQLite: a file, which may be killed in mid-commit, full, gone, or not to be written to."""

from __future__ import annotations

import signal
import subprocess
from time import time

from faults.scenarios import scenario
from faults.scenarios.database import fill
from faults.scenarios.instances import keys, sometimes_slow, together
from faults.world import LEASE, World

SQLITE = ("sqlite",)


@scenario("11. SQLite: SIGKILL at any time", engines=SQLITE)
async def sqlite_killed(world: World) -> None:
    sometimes_slow(world)
    instance = await world.start()
    await world.client.put_many(keys("job", 30), interval=2)
    ends = time() + world.seconds

    async def again_and_again() -> None:
        nonlocal instance
        while time() < ends:
            await world.pause(world.random.uniform(0.1, 2.0))
            await world.kill(instance)
            instance = await world.start()

    await together(again_and_again(), world.client.meddle(keys("other", 16), world.seconds))
    await world.pause(LEASE)
    await world.settle()
    world.notes["killed"] = str(len(world.instances) - 1)


async def _meanwhile(world: World, kind: str, breaks: object, mends: object) -> None:
    sometimes_slow(world)
    instance = await world.start()
    await world.client.put_many(keys("job", 30), interval=2)

    async def broken() -> None:
        await world.pause(2)
        with world.faulty(kind, after=LEASE + 2.0):
            breaks()  # type: ignore[operator]
            await world.pause(max(3.0, world.seconds / 2))
            mends()  # type: ignore[operator]

    await together(broken(), world.client.meddle(keys("other", 16), world.seconds))
    await world.pause(LEASE)
    await world.settle()
    world.notes["503"] = str(world.client.statuses[503])
    if instance.status is not None:
        world.objections.append(f"it ended: {instance.output()[-500:]}")
    if not world.client.statuses[503]:
        world.objections.append("nothing was refused meanwhile")


@scenario("11. SQLite: the disk is full", engines=SQLITE, disk=16)
async def sqlite_disk_full(world: World) -> None:
    assert world.disk is not None
    filler = world.disk / "filler"
    await _meanwhile(world, "disk full", lambda: fill(filler), filler.unlink)


@scenario("11. SQLite: the file is removed, and put back", engines=SQLITE)
async def sqlite_removed(world: World) -> None:
    elsewhere = world.folder / "elsewhere"

    def remove() -> None:
        world.sqlite.rename(elsewhere)

    def put_back() -> None:
        elsewhere.rename(world.sqlite)

    await _meanwhile(world, "file removed", remove, put_back)


@scenario("11. SQLite: a file that can't be written to", engines=SQLITE, disk=8)
async def sqlite_read_only(world: World) -> None:
    instance = await world.start()
    await world.client.put_many(keys("job", 5), interval=2)
    await world.pause(2)
    with world.faulty("file read-only", after=3.0):
        instance.signal(signal.SIGTERM)
        await instance.ended
        assert world.disk is not None
        subprocess.run(["mount", "-o", "remount,ro", str(world.disk)], check=True)
        refused = await world.start(wait=False)
        if await refused.ended == 0:
            world.objections.append("it started on a file that it can't write to")
        lines = refused.output().strip().splitlines()
        world.notes["says"] = lines[-1] if lines else "nothing"
        if len(lines) != 1 or not lines[0].startswith("dalga: "):
            world.objections.append(f"it does not say in one line what is wrong: {lines}")
        subprocess.run(["mount", "-o", "remount,rw", str(world.disk)], check=True)
        await world.start()
    await world.settle()


@scenario("11. SQLite: a second daemon on the file", engines=SQLITE)
async def sqlite_two(world: World) -> None:
    await world.start()
    await world.client.put_many(keys("job", 10), interval=1)
    second = await world.start(wait=False)
    if await second.ended == 0 or "in use by another dalga" not in second.output():
        world.objections.append(f"the second did not say why it ends: {second.output()}")
    await world.settle()
