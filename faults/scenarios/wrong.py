"""What is wrong from within: clocks, and rows that nobody can read."""

from __future__ import annotations

from datetime import UTC, datetime
from time import time

from faults.scenarios import scenario
from faults.scenarios.instances import keys, sometimes_slow, together
from faults.world import TIME, World

#: Rows that can't be understood, each with what is put into which column.
POISON = {
    "interval": ("schedule", "every now and then"),
    "zone": ("location", "Middle/Earth"),
    "options": ("options", "{"),
    "negative": ("schedule", "-5"),
    "attempts": ("attempts", 2**32 - 1),
    "time": ("scheduled", "0000-00-00 00:00:00"),
    "override": ("override", 77),
}


@scenario("9. Clocks that are an hour ahead, an hour behind, and jump about")
async def clocks(world: World) -> None:
    sometimes_slow(world)
    for clock in ({"clock": 3600}, {"clock": -3600}, {"clock": 60, "steps": True}):
        # With more slots, one of them might take all jobs of so light a load.
        await world.start(faults=dict(clock), jobs={"maxRunning": 4})
    await world.client.put_many(keys("job", 30), interval=2)
    await together(
        world.client.meddle(keys("other", 16), world.seconds),
        world.client.put_many(keys("once", 30), delay=3),
    )
    await world.settle()
    worked = {post.instance for post in world.endpoint.posts}
    if len(worked) < 3:
        world.objections.append(f"only {len(worked)} of 3 instances worked")


@scenario("10. Rows with a bad interval, zone, option or key, put in by SQL")
async def poison(world: World) -> None:
    await world.start_many(2)
    await world.client.put_many(keys("job", 30), interval=2)
    bad = [(f"poison-{what}", "body") for what in POISON]
    await world.insert(bad, time() + 3600, foreign=True)
    # Long overdue, so that they stand before all others.
    past = datetime.fromtimestamp(time() - 3600, UTC).strftime(TIME)
    for what, (column, value) in POISON.items():
        await world.sql(
            f"UPDATE dalga SET scheduled = %s, due = %s, {column} = %s WHERE path = %s",
            *(past, past, value, f"poison-{what}"),
            mode="",  # which lets more through
        )
    for path in (b"poison-\xff", b"../poison", b""):
        await world.insert_raw(path, b"body", time() - 3600)
    await world.client.meddle(keys("other", 16), world.seconds)
    await world.settle()
    set_aside = await world.sql("SELECT path FROM dalga WHERE due IS NULL AND disabled = 0")
    world.notes["set aside"] = str(len(set_aside))
    status = (await world.client.ask("GET", "/status")).shown
    if status["set_aside_jobs"] < 3:
        world.objections.append(f"/status says that {status['set_aside_jobs']} are set aside")
    for what in ("interval", "zone"):
        answer = await world.client.ask("GET", f"/jobs/poison-{what}/body")
        if answer.status != 200 or "problem" not in answer.shown:
            world.objections.append(f"GET does not say what is wrong with {what}: {answer.text}")
