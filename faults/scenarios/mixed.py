"""All of it at once: instances, the ways to the database, and the database."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import time

from faults.client import LIMIT
from faults.proxy import Proxy
from faults.scenarios import scenario
from faults.scenarios.database import RECOVERY, STALLED, ask_status, in_thread, kill_connections
from faults.scenarios.instances import keys, sometimes_slow, together
from faults.world import LEASE, Instance, Unexpected, World


@scenario(
    "14. Instances, the ways to the database, and the server: several faults at once",
    own_server=True,
)
async def mixed(world: World) -> None:
    """Three instances, each with a way of its own."""
    sometimes_slow(world)
    # What an instance has claimed it may begin until its lease is over, whatever was said since.
    world.bounds = replace(world.bounds, grace=LEASE + 1.0)
    ways = [world.before_database() for _ in range(3)]
    running = [await world.start(database=way) for way in ways]
    await world.client.put_many(keys("job", 30), interval=2)
    ends = time() + world.seconds
    pick = world.random.choice
    done: Counter[str] = Counter()

    async def nemesis(longest: float, *faults: Callable[[], Awaitable[None]]) -> None:
        while time() < ends:
            fault = pick(faults)
            await fault()
            done[fault.__name__.replace("_", " ")] += 1
            await world.pause(world.random.uniform(0, longest))

    # Instances

    async def instance_killed() -> None:
        number = world.random.randrange(3)
        await world.kill(running[number])
        running[number] = await _begin(world, ways[number])

    async def instance_restarted() -> None:
        number = world.random.randrange(3)
        await world.retire(running[number])
        running[number] = await _begin(world, ways[number])

    async def instance_held() -> None:
        instance = pick(running)
        # A word that it has heard it would do when it goes on, whatever was said since.
        url, instance.url = instance.url, ""
        await world.pause(LIMIT)
        with world.faulty("SIGSTOP", held=instance.name):
            instance.signal(signal.SIGSTOP)
            await world.pause(world.random.uniform(1, LEASE + 2))
            instance.signal(signal.SIGCONT)
        instance.url = url

    # Ways

    async def connections_reset() -> None:
        pick(ways).cut()

    async def commit_lost() -> None:
        pick(ways).drop_reply(b"\x03COMMIT")

    async def way_stalled() -> None:
        way = pick(ways)
        way.stall(True)
        await world.pause(world.random.uniform(0.5, 6))
        way.stall(False)

    async def way_refused() -> None:
        way = pick(ways)
        way.refuse()
        way.cut()
        await world.pause(world.random.uniform(0.5, 4))
        way.accept()

    # The server

    async def server_killed() -> None:
        assert world.server is not None
        await in_thread(world.server.kill)
        await world.pause(world.random.uniform(0, 4))
        await in_thread(world.server.start)

    async def server_held() -> None:
        assert world.server is not None
        world.server.signal(signal.SIGSTOP)
        await world.pause(world.random.uniform(0.5, 5))
        world.server.signal(signal.SIGCONT)

    async def connections_killed() -> None:
        await kill_connections(world)

    with world.faulty("several at once", after=RECOVERY + STALLED):
        await together(
            nemesis(3, instance_killed, instance_restarted, instance_held),
            nemesis(1, connections_reset, commit_lost, way_stalled, way_refused),
            nemesis(8, server_killed, server_held, connections_killed),
            world.client.meddle(keys("other", 16), world.seconds),
        )
    await world.pause(RECOVERY + STALLED)
    await world.settle()
    world.notes.update({name: str(number) for name, number in sorted(done.items())})
    for instance in running:
        await ask_status(world, instance)


async def _begin(world: World, way: Proxy) -> Instance:
    """Start an instance, again while it finds no database, as a service manager does."""
    while True:
        try:
            return await world.start(database=way)
        except Unexpected:
            if world.instances[-1].status != 1:
                raise
        await world.pause(1)
