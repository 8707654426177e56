"""Who is told that jobs fail, and that they are well again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import time

from faults.alerted import FAILING, RECOVERED, incidents
from faults.endpoint import Answer, Behaviour, CloseAsItArrives
from faults.history import BODY, Key, Post
from faults.scenarios import scenario
from faults.scenarios.database import RECOVERY, in_thread
from faults.scenarios.embedded import SQLITE
from faults.scenarios.instances import keys, together
from faults.world import LEASE, World

#: So many attempts that fail in a row are an incident: the default.
AFTER = 3

#: How many jobs fail, and how long (seconds) each of their spells of failure or health lasts at
#: least. So there are fewer than 20 alerts a minute: more would become a summary.
FAILING_JOBS = 2
SPELL = 8.0

#: How long (seconds) all alerts may take to be delivered once all is well.
DELIVERED = 90.0


@scenario(
    "15. Alerts, while jobs fail and recover, and instances and the server are killed",
    own_server=True,
)
async def alerts(world: World) -> None:
    async def server_killed() -> None:
        assert world.server is not None
        with world.faulty("server killed", after=RECOVERY):
            await in_thread(world.server.kill)
            await world.pause(world.random.uniform(0, 2))
            await in_thread(world.server.start)

    await _while_jobs_fail(world, 3, server_killed)


@scenario(
    "15. SQLite: alerts, while jobs fail and recover, and the daemon is killed", engines=SQLITE
)
async def sqlite_alerts(world: World) -> None:
    await _while_jobs_fail(world, 1)


async def _while_jobs_fail(world: World, number: int, *more: Callable[[], Awaitable[None]]) -> None:
    """
    Kill one of so many instances after the other.

    :param more: what else is done, in turns with that.
    """
    receiver = world.receive_alerts()
    receiver.behave(lambda post: _received(world))
    world.history.alert_after = AFTER
    sick = [(f"sick{n}", BODY) for n in range(FAILING_JOBS)]
    failing = False

    def answer(post: Post) -> Answer:
        return Answer(500 if failing and post.path.startswith("sick") else 200)

    world.endpoint.behave(answer)
    section = {"url": receiver.url}
    running = [await world.start(alerts=section) for _ in range(number)]
    # Most attempts succeed: the endpoint itself is not down.
    await world.client.put_many(keys("job", 40), interval=1)
    await world.client.put_many(sick, interval=1)
    over = False

    async def instance_killed() -> None:
        at = world.random.randrange(number)
        await world.kill(running[at])
        running[at] = await world.start(alerts=section)

    async def nemesis() -> None:
        while not over:
            await world.random.choice((instance_killed, instance_killed, *more))()
            # Up to a lease: else no job would ever fail three times in a row.
            await world.pause(world.random.uniform(1, LEASE))

    async def until_told(event: str, times: int) -> None:
        """Wait until each of the jobs has had so many incidents for which there has to be one."""

        def asked(key: Key) -> int:
            posts = [post for post in world.endpoint.posts if post.key == key]
            return incidents(posts, AFTER, world.bounds)[event].least

        await world.pause(SPELL)
        await world.until(lambda: min(map(asked, sick)) >= times, f"all to be {event}")

    async def spells() -> None:
        nonlocal failing, over
        ends, spell = time() + world.seconds, 0
        while time() < ends or spell == 0:
            spell += 1
            failing = True
            await until_told(FAILING, spell)
            failing = False
            await until_told(RECOVERED, spell)
        over = True
        world.notes["spells"] = str(spell)

    await together(nemesis(), spells())
    await world.pause(LEASE)
    await world.settle()
    left = "SELECT COUNT(*) FROM dalga_alerts WHERE due IS NOT NULL"
    ends = time() + DELIVERED
    while (await world.sql(left))[0][0]:
        if time() > ends:
            world.objections.append(f"alerts were not delivered for {DELIVERED:g} s")
            break
        await world.pause(0.2)
    alerts = world.alerts()
    ids = {alert.id for alert in alerts}
    world.notes["alerts"] = f"{len(ids)}, delivered {len(alerts)} times"


def _received(world: World) -> Behaviour:
    """A receiver that is not well itself, now and then."""
    return world.random.choices((Answer(), Answer(503), CloseAsItArrives()), (8, 1, 1))[0]
