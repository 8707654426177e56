"""Databases of several servers: a Galera cluster, and a primary with a replica."""

from __future__ import annotations

from dataclasses import replace
from time import time
from typing import Any

from faults.scenarios import scenario
from faults.scenarios.database import RECOVERY, ask_status, in_thread
from faults.scenarios.instances import keys, sometimes_slow, together
from faults.world import LEASE, World
from tests.servers import Cluster, Replicated


@scenario("13. A Galera cluster of three nodes, one killed and rejoined", engines=("mariadb",))
async def galera(world: World) -> None:
    """Each node has an instance of its own; conflicts are found at the COMMIT."""
    cluster = await in_thread(Cluster)
    world.at_end.append(cluster.stop)
    world.server, world.servers = cluster.servers[0], list(cluster.servers)
    world.database = await in_thread(cluster.create_database)
    sometimes_slow(world)
    for node in cluster.servers:
        # With more slots, one of them might take all jobs of so light a load.
        await world.start(mysql={"port": node.port}, jobs={"maxRunning": 4})
    await world.client.put_many(keys("job", 30), interval=2)
    # Each instance wants the same ones.
    world.bounds = replace(world.bounds, late=5.0)
    once = keys("once", int(min(2000, world.seconds * 60)))
    await world.insert(once, time() + 3)
    before = await in_thread(_conflicts, cluster)

    async def broken() -> None:
        await world.pause(max(3.0, world.seconds / 4))
        with world.faulty("node killed", after=RECOVERY):
            await in_thread(cluster.servers[2].kill)
            await world.pause(max(5.0, world.seconds / 4))
            await in_thread(cluster.rejoin, cluster.servers[2])

    await together(broken(), world.client.meddle(keys("other", 16), world.seconds))
    await world.pause(LEASE)
    await world.settle()
    world.notes["conflicts at COMMIT"] = str(await in_thread(_conflicts, cluster) - before)
    worked = {post.instance for post in world.endpoint.posts}
    if len(worked) < 3:
        world.objections.append(f"only {len(worked)} of 3 instances worked")


def _conflicts(cluster: Cluster) -> int:
    """Transactions that the nodes that are up have broken for another node's."""
    found = 0
    for node in cluster.servers[:2]:
        with node.connect_as_root() as connection:
            cursor = connection.cursor()
            cursor.execute(
                "SHOW GLOBAL STATUS WHERE variable_name IN"
                " ('wsrep_local_cert_failures', 'wsrep_local_bf_aborts')"
            )
            found += sum(int(value) for _, value in cursor.fetchall())
    return found


@scenario("13. A primary that dies, and a replica that is promoted by hand")
async def failover(world: World) -> None:
    """The configuration names both; nobody is restarted."""
    assert world.server is not None
    pair: Any = await in_thread(Replicated, world.server.engine)
    world.at_end.append(pair.stop)
    world.server, world.servers = pair.primary, [pair.primary, pair.replica]
    world.database = await in_thread(pair.primary.create_database)
    sometimes_slow(world)
    hosts = f"127.0.0.1:{pair.primary.port}, 127.0.0.1:{pair.replica.port}"
    for _ in range(2):
        await world.start(mysql={"host": hosts, "ssl-mode": "disabled"})
    await world.client.put_many(keys("job", 30), interval=2)

    async def broken() -> None:
        await world.pause(max(3.0, world.seconds / 4))
        with world.faulty("primary killed", after=RECOVERY, loses=True):
            await in_thread(pair.primary.kill)
            await world.pause(2)
            await in_thread(pair.promote)
            world.server = pair.replica

    await together(broken(), world.client.meddle(keys("other", 16), world.seconds))
    await world.pause(LEASE)
    await world.settle()
    world.notes["503"] = str(world.client.statuses[503])
    for instance in world.instances:
        await ask_status(world, instance)
