"""What an endpoint may do to those who POST to it."""

from __future__ import annotations

import re
from dataclasses import replace
from time import time

from bench.machine import Process
from faults import endpoint as http
from faults.checker import repetitions
from faults.client import PROMPT
from faults.endpoint import Answer, Behaviour, Endpoint, Hang
from faults.instance import NAMED
from faults.scenarios import scenario
from faults.scenarios.instances import keys
from faults.world import LEASE, TIMEOUT, World
from tests.test_endpoint import a_certificate

#: By the book or not: each, and whether the run is done by it.
BEHAVIOURS: dict[str, tuple[Behaviour, bool]] = {
    "close": (http.CloseAsItArrives(), True),
    "endless": (http.EndlessBody(), True),
    "headers": (http.EndlessHeaders(), False),
    "drip": (http.Drip(), False),
    "gzip": (http.GzipBomb(), True),
    "http10": (http.Http10(), True),
    "chunked": (http.Chunked(), True),
    "continue": (http.Continue100(0.2), True),
    "hang": (Hang(), False),
}

#: What one instance may take more, in MB.
MEMORY = 100.0


@scenario("8. Answers that are endless, slow, broken, or odd")
async def odd_answers(world: World) -> None:
    # A POST that the daemon gives up ends at the endpoint a little later.
    world.bounds = replace(world.bounds, backoff=3.0 + TIMEOUT)
    instance = await world.start()
    before = Process(instance.pid).peak_memory()
    for path, (behaviour, _) in BEHAVIOURS.items():
        world.endpoint.behave(behaviour, path)
    await world.client.put_many(keys("job", 30), interval=1)
    odd = [(path, str(number)) for path in BEHAVIOURS for number in range(3)]
    await world.client.put_many(odd, interval=2)
    await world.pause(world.seconds)
    grown = Process(instance.pid).peak_memory() - before
    world.notes["memory"] = f"+{grown:.0f} MB"
    if grown > MEMORY:
        world.objections.append(f"it took {grown:.0f} MB more")
    for path, (_, done) in BEHAVIOURS.items():
        posts = [post for post in world.endpoint.posts if post.path == path and post.end]
        runs = {post.run for post in posts}
        finished = {post.run for post in posts if post.done}
        if done and len(runs) < 3:
            world.objections.append(f"{path}: only {len(runs)} runs")
        if done and len(runs - finished) > 3:
            world.objections.append(f"{path}: {len(runs - finished)} runs were not done")
        if not done and len(runs) > 3:
            world.objections.append(f"{path}: {len(runs)} runs of 3 jobs, though none was done")
    # Those that never end well are no matter of what is in time.
    for path, (_, done) in BEHAVIOURS.items():
        if not done:
            world.endpoint.behave(Answer(), path)
    await world.pause(6 + TIMEOUT)


@scenario("8. A 204 with a body")
async def no_content(world: World) -> None:
    await world.start()
    world.endpoint.behave(http.NoContentWithBody(pause=0.05), "gone")
    await world.insert([("gone", str(number)) for number in range(20)], time() + 1, foreign=True)
    await world.client.put_many(keys("job", 20), interval=1)
    await world.pause(world.seconds / 2)
    await world.settle()
    if (left := await world.sql("SELECT COUNT(*) FROM dalga WHERE path = 'gone'"))[0][0]:
        world.objections.append(f"{left[0][0]} jobs are there, though a 204 deletes them")


@scenario("8. A redirect to another host")
async def redirect(world: World) -> None:
    elsewhere = Endpoint(world.reactor, None)
    elsewhere.listen()
    world.endpoint.behave(http.Redirect(elsewhere.url + "stolen", 307), "moved")
    world.endpoint.behave(http.Redirect(elsewhere.url + "stolen", 303), "seen")
    await world.start()
    await world.client.put_many([("moved", "1"), ("seen", "1"), ("job", "1")], interval=1)
    await world.pause(world.seconds / 3)
    if elsewhere.posts:
        world.objections.append(f"it called another host {len(elsewhere.posts)} times (P11)")
    await elsewhere.close()
    for path in ("moved", "seen"):
        world.endpoint.behave(Answer(), path)
    await world.pause(6)


@scenario("8. An endpoint that refuses connections, and comes back")
async def refused(world: World) -> None:
    await world.start_many(2)
    await world.client.put_many(keys("job", 50), interval=2)
    await world.pause(2)
    with world.faulty("endpoint down", after=5.0):
        world.endpoint.down()
        await world.pause(world.seconds / 2)
        world.endpoint.up()
    await world.settle()


@scenario("8. An endpoint that answers 500, and recovers")
async def failing(world: World) -> None:
    """Backoff is bounded and jittered: no stampede when it is well again."""
    await world.start_many(2, jobs={"retryInterval": "1s", "retryMaxInterval": "4s"})
    world.bounds = replace(world.bounds, backoff=6.0)
    jobs = keys("job", 200)
    world.endpoint.behave(Answer(500))
    await world.client.put_many(jobs, interval=60)
    await world.client.put_many(keys("once", 200))
    with world.faulty("endpoint fails", after=6.0):
        await world.pause(max(10.0, world.seconds))
        world.endpoint.behave(Answer(200))
        recovered = time()
    await world.pause(8)
    after = sorted(post.start - recovered for post in world.endpoint.posts if post.done)
    world.notes["recovered"] = f"within {after[-1]:.1f} s"
    fullest = max(sum(at <= start < at + 0.25 for start in after) for at in after)
    world.notes["most in 0.25 s"] = f"{fullest} of {len(after)}"
    if len(after) < 200 or after[-1] > 6.0:
        world.objections.append(f"{len(after)} recovered, the last after {after[-1]:.1f} s")
    if fullest > len(after) / 3:
        world.objections.append(f"{fullest} of {len(after)} came within 0.25 s of each other")


@scenario("8. The way to the endpoint hangs for all connections")
async def black_hole(world: World) -> None:
    proxy = world.proxy("127.0.0.1", world.endpoint.port)
    await world.start_many(
        2, endpoint={"baseurl": f"http://127.0.0.1:{proxy.port}/", "timeout": f"{TIMEOUT}s"}
    )
    await world.client.put_many(keys("job", 50), interval=2)
    await world.pause(2)
    with world.faulty("endpoint stalled", after=LEASE + 3.0):
        proxy.stall(True)
        await world.pause(world.seconds / 2)
        proxy.cut()
        proxy.stall(False)
    await world.pause(5)
    await world.settle()


@scenario("8. Answers are lost on their way back")
async def answers_lost(world: World) -> None:
    """What nobody can know to be done is POSTed again, as the same run."""
    proxy = world.proxy("127.0.0.1", world.endpoint.port)
    baseurl = f"http://127.0.0.1:{proxy.port}/"
    await world.start_many(2, endpoint={"baseurl": baseurl, "timeout": f"{TIMEOUT}s"})
    await world.client.put_many(keys("job", 50), interval=2)
    lost = 0
    ends = time() + world.seconds
    with world.faulty("endpoint's answers lost", after=5.0):
        while time() < ends:
            proxy.drop_reply(b"POST /")
            await world.pause(world.random.uniform(0.1, 0.4))
            lost += not proxy.drops_left
        proxy.drop_reply(b"POST /", 0)
    world.notes["lost"] = str(lost)
    await world.settle()
    again = repetitions(world.endpoint.posts)
    if len(again) != lost:
        world.objections.append(f"{len(again)} POSTs were repeated for {lost} lost answers")


@scenario("8. All ways are long: 0.08 s to the database, 0.3 s to the endpoint")
async def long_ways(world: World) -> None:
    to_database, to_endpoint = (
        world.before_database(),
        world.proxy("127.0.0.1", world.endpoint.port),
    )
    # A request on a job that waits for its next attempt takes ten statements at most, each of them
    # there and back, and has to be answered within 4 s. With 0.1 s, some were not on a machine that
    # was busy with other things.
    to_database.delay(0.08)
    to_endpoint.delay(0.3)
    baseurl = f"http://127.0.0.1:{to_endpoint.port}/"
    # What is asked for takes some transactions, each of them some ways.
    world.bounds = replace(world.bounds, late=6.0, grace=3.0)
    await world.start_many(
        2, database=to_database, endpoint={"baseurl": baseurl, "timeout": f"{TIMEOUT}s"}
    )
    await world.client.put_many(keys("job", 50), interval=2)
    await world.client.meddle(keys("other", 16), world.seconds)
    await world.settle()
    world.notes["slowest answer"] = f"{world.client.slowest:.1f} s"
    if world.client.slowest > PROMPT:
        world.objections.append(f"an answer took {world.client.slowest:.1f} s")


@scenario("8. A path that hangs, with many jobs, beside others")
async def dead_path(world: World) -> None:
    await world.start()
    world.endpoint.behave(Hang(), "dead")
    number = 500
    await world.insert([("dead", str(n)) for n in range(number)], time() - 60, foreign=True)
    await world.pause(1)
    await world.client.put_many(keys("job", 50), interval=1)
    await world.pause(world.seconds)
    late = [
        post.start - post.scheduled - 1
        for post in world.endpoint.posts
        if post.path != "dead" and post.attempt == 1
    ]
    world.notes["latest of others"] = f"{max(late, default=0.0):.1f} s"
    if len(late) < 50:
        world.objections.append(f"only {len(late)} runs of 50 other jobs")
    elif max(late) > 1.5:
        world.objections.append(f"a job of another path was {max(late):.1f} s late")
    world.endpoint.behave(Answer(), "dead")
    await world.settle()


#: How long a look-up takes that takes long, in seconds: less than a POST's time-out.
SLOW_LOOKUP = 2.0

#: How many jobs are due at once while the endpoint's name is not found.
WAITING = 100


@scenario("8. The endpoint's name: a resolver that is silent, and one that is slow")
async def resolver(world: World) -> None:
    """What was never sent is said to be so; nothing but POSTs waits, and not for long."""
    speed = world.folder / "speed"
    faults = {"lookup": str(speed)}
    endpoint = {
        "baseurl": f"http://{NAMED}:{world.endpoint.port}/",
        "timeout": f"{TIMEOUT}s",
    }
    silent = await world.start(faults=faults, endpoint=endpoint)
    jobs = keys("job", WAITING)
    with world.faulty("look-ups silent", after=LEASE + 3.0):
        await world.insert(jobs, time(), foreign=True)  # nothing is seen of the first attempts
        ends = time() + max(TIMEOUT + 2.0, min(20.0, world.seconds / 2))
        while time() < ends:
            for target in (
                "/preview?cron=0+9+*+*+*&location=Europe/Riga",
                "/jobs/job0/body/upcoming",
            ):
                answer = await world.client.ask("GET", target)
                if answer.status != 200:
                    world.objections.append(f"{target} gives {answer.status}")
            await world.pause(0.5)
        await world.retire(silent)
    took = silent.ended_at - silent.told_at
    world.notes["stopped in"] = f"{took:.1f} s"
    failed = re.findall(r"'body': (.+?), after [0-9.]+ s, attempt 1;", silent.output())
    if world.endpoint.posts or len(failed) < WAITING:
        world.objections.append(f"{len(world.endpoint.posts)} POSTs, {len(failed)} that failed")
    if blamed := {words for words in failed if NAMED not in words}:
        world.objections.append(f"of what was never sent is said: {blamed}")
    # One that is slow: each of them has its answer.
    speed.write_text(f"{SLOW_LOOKUP}")
    slow = await world.start(faults=faults, endpoint=endpoint)
    await world.until_done(WAITING, 30)
    healthy = keys("healthy", WAITING)
    await world.client.put_many(healthy, interval=2)
    await world.pause(max(4.0, world.seconds / 2))
    # And one that falls silent again, as it was found before.
    speed.unlink()
    await world.pause(max(4.0, world.seconds / 2))
    world.notes["look-ups failed"] = str(slow.output().count("attempt 1; again"))
    if "attempt 1; again" in slow.output():
        world.objections.append("a POST failed though the endpoint is well and its name was found")
    speed.write_text("0")
    await world.settle()


@scenario("8. TLS with a certificate that nobody vouches for")
async def bad_certificate(world: World) -> None:
    secure = Endpoint(world.reactor, None)
    secure.listen(a_certificate("localhost"))
    baseurl = secure.url.replace("127.0.0.1", "localhost")
    instance = await world.start(endpoint={"baseurl": baseurl, "timeout": f"{TIMEOUT}s"})
    await world.insert(keys("job", 5), time(), foreign=True)
    await world.pause(5)
    if secure.posts:
        world.objections.append("it POSTed to whom it should not trust")
    if "is signed by itself, and not trusted here" not in instance.output():
        world.objections.append(f"the log does not say why: {instance.output()[-500:]}")
    await secure.close()
