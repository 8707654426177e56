"""What becomes of instances: killed, held, stopped, restarted."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import time

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from faults.endpoint import Answer
from faults.history import BODY, SAYING, Post
from faults.scenarios import scenario
from faults.world import GRACE, LEASE, TIMEOUT, Unexpected, World

#: Where the database may be silent: how long an answer of its is waited for, in seconds.
READ_TIMEOUT = 4

#: How long an instance may take to read its configuration again, in seconds.
EXCHANGED = 20.0


def keys(name: str, number: int) -> list[tuple[str, str]]:
    """So many jobs, each with a path of its own. PUTs of every third say what its requests are."""
    return [(f"{name}{n}{SAYING if n % 3 == 2 else ''}", BODY) for n in range(number)]


async def together(*work: object) -> None:
    """Run coroutines at the same time."""
    await gatherResults(
        [Deferred.fromCoroutine(one) for one in work],  # type: ignore[arg-type]
        consumeErrors=True,
    )


def sometimes_slow(world: World) -> None:
    """An endpoint that takes some time, and fails now and then."""

    def answer(post: Post) -> Answer:
        if world.random.random() < 0.05:
            return Answer(500)
        return Answer(200, world.random.choice((0.0, 0.0, 0.02, 0.3)))

    world.endpoint.behave(answer)


@scenario("1. Four instances, many one-off jobs, no fault", alone=True)
async def plain(world: World) -> None:
    world.endpoint.behave(Answer(200, 0.25))  # so that none can take them all
    number = int(min(10_000, world.seconds * 400))
    await world.start_many(4)
    # That many at once take their time.
    world.bounds = replace(world.bounds, late=5.0 + number / 500)
    # All are to be there by then, so that each instance has seen that something comes.
    await world.insert(keys("job", number), time() + 3 + number / 2000)
    await world.until_done(number)
    began: dict[str, float] = {}
    for post in world.endpoint.posts:
        began[post.instance] = min(post.start, began.get(post.instance, post.start))
    if len(began) < 4:
        world.objections.append(f"only {len(began)} of 4 instances worked")
    await world.until_empty()
    world.notes["jobs"] = f"{number:,}"
    world.notes["all at work within"] = f"{max(began.values()) - min(began.values()):.2f} s"


@scenario("1. A client that changes its mind, no fault")
async def client(world: World) -> None:
    # Slow enough for most words to be said during a run.
    world.endpoint.behave(
        lambda post: Answer(world.random.choice((200,) * 9 + (500,)), world.random.choice((0, 1)))
    )
    await world.start_many(2)
    await world.client.meddle(keys("job", 24), world.seconds)
    await world.settle()


async def _one_after_the_other(world: World, point: str) -> None:
    """Instances that die at some point, again and again, and one that does not."""
    # With more slots it would take all jobs: the others leave a lead to whoever was first.
    await world.start(jobs={"maxRunning": 4})
    jobs = keys("job", 40)
    sometimes_slow(world)
    await world.client.put_many(jobs, interval=2)
    ends = time() + world.seconds
    while time() < ends:
        faults: dict[str, object] = {"kill": point, "after": world.random.randint(1, 5)}
        instance = await world.start(faults=faults, wait=False)
        await instance.ended
        if instance.status != -signal.SIGKILL:
            world.objections.append(f"it ended with {instance.status}: {instance.output()[-500:]}")
        world.died(instance)
    await world.pause(LEASE)
    await world.settle()
    world.notes["killed"] = str(len(world.instances) - 1)


@scenario("2. SIGKILL between claim and POST")
async def sigkill_claimed(world: World) -> None:
    await _one_after_the_other(world, "claimed")


@scenario("2. SIGKILL between the endpoint's 200 and its record")
async def sigkill_answered(world: World) -> None:
    await _one_after_the_other(world, "answered")


@scenario("2. SIGKILL in the middle of POSTs")
async def sigkill_posting(world: World) -> None:
    world.endpoint.behave(lambda post: Answer(200, world.random.uniform(0.1, 0.5)))
    jobs = keys("job", 40)
    await world.start_many(2)
    await world.client.put_many(jobs, interval=2)
    ends = time() + world.seconds
    while time() < ends:
        await world.until(lambda: _in_flight(world) > 3, "POSTs to be in flight")
        victim = world.random.choice([one for one in world.instances if one.alive])
        await world.kill(victim)
        await world.start()
        await world.pause(1)
    await world.pause(LEASE)
    await world.settle()
    world.notes["killed"] = str(sum(one.status is not None for one in world.instances))


def _in_flight(world: World, runs: Collection[str] | None = None) -> int:
    """How many POSTs are under way, of these runs or of all."""
    return sum(
        post.end is None and (runs is None or post.run in runs)
        for post in world.endpoint.posts[-1000:]
    )


async def _held(world: World, number: int) -> None:
    """
    Hold so many of three instances for longer than a lease: each with POSTs in flight, and with
    others claimed and not begun. Where there are others, they are to be at it when it goes on.
    """
    # What an instance has claimed it may begin until its lease is over, whatever was said since.
    world.bounds = replace(world.bounds, grace=LEASE + 1.0)
    world.endpoint.behave(lambda post: Answer(200, world.random.uniform(0.5, 2.5)))
    # More are due than there are slots: there is always something to claim.
    jobs = {"maxRunning": 5, "retryInterval": "200ms"}
    instances = await world.start_many(3, may_hold=True, jobs=jobs)
    held = instances[:number]
    world.bounds = replace(world.bounds, late=15.0)
    await world.client.put_many(keys("job", 30), interval=1)
    await world.until(lambda: _in_flight(world) >= 10, "POSTs to be in flight")
    await world.pause(world.random.uniform(0, 1))
    with world.faulty("SIGSTOP", after=1.0):
        await world.hold(held)
        names = {instance.name for instance in held}
        theirs = {
            post.run for post in world.endpoint.posts if post.end is None and post.instance in names
        }
        # Their leases end a little before those of what is not begun: others are still at it then.
        world.endpoint.behave(lambda post: Answer(200, 2.7 if post.run in theirs else 0.2))
        await world.pause(LEASE + 2 if number == 3 else LEASE + 0.3)
        if number < 3 and not _in_flight(world, theirs):
            world.objections.append("nobody was at what those had in hand that were held")
        for instance in held:
            instance.signal(signal.SIGCONT)
    # What they had in hand is of no effect any more; so nothing is POSTed again because of it.
    world.fault("after SIGSTOP", time(), time() + LEASE + TIMEOUT, repeats=False)
    await world.pause(world.seconds / 2)
    await world.settle()


@scenario("3. SIGSTOP of one instance, for longer than the lease")
async def sigstop_one(world: World) -> None:
    await _held(world, 1)


@scenario("3. SIGSTOP of all instances, for longer than the lease")
async def sigstop_all(world: World) -> None:
    await _held(world, 3)


@scenario("4. SIGTERM during slow POSTs")
async def sigterm(world: World) -> None:
    world.endpoint.behave(lambda post: Answer(200, 2.0))
    first = await world.start()
    await world.client.put_many(keys("job", 20))
    await world.until(lambda: len(world.endpoint.posts) >= 20, "all to be in flight")
    await world.start()  # it would take them, if they were let go
    stopped = time()
    first.signal(signal.SIGTERM)
    status = await first.ended
    took = time() - stopped
    world.notes["stopped in"] = f"{took:.1f} s"
    if status != 0:
        world.objections.append(f"SIGTERM ended it with {status}")
    if took > TIMEOUT:
        world.objections.append(f"it took {took:.1f} s to stop")
    if (left := await world.sql("SELECT COUNT(*) FROM dalga"))[0][0]:
        world.objections.append(f"{left[0][0]} runs that were done are not recorded")
    await world.settle()


@scenario("4. A second SIGTERM")
async def sigterm_twice(world: World) -> None:
    world.endpoint.behave(lambda post: Answer(200, 2.5 if post.attempt == 1 else 0.0))
    first = await world.start()
    await world.start()
    await world.client.put_many(keys("job", 20))
    await world.until(lambda: len(world.endpoint.posts) >= 20, "all to be in flight")
    first.signal(signal.SIGTERM)
    await world.pause(1)
    first.signal(signal.SIGTERM)
    status = await first.ended
    world.died(first)
    if status != 128 + signal.SIGTERM:
        world.objections.append(f"a second SIGTERM ended it with {status}")
    await world.until_empty()


@scenario("4. SIGTERM with the database down")
async def sigterm_database_down(world: World) -> None:
    proxy = world.before_database()
    world.endpoint.behave(lambda post: Answer(200, 1.0))
    first = await world.start(database=proxy)
    await world.client.put_many(keys("job", 20))
    await world.until(lambda: len(world.endpoint.posts) >= 20, "all to be in flight")
    proxy.refuse()
    proxy.cut()
    stopped = time()
    first.signal(signal.SIGTERM)
    await world.pause(3)
    if first.status is not None:
        world.objections.append("it did not wait for the database, to record what was done")
    proxy.accept()
    status = await first.ended
    world.notes["stopped in"] = f"{time() - stopped:.1f} s"
    world.fault("database down", stopped, time(), repeats=False)
    if status != 0:
        world.objections.append(f"SIGTERM ended it with {status}")
    if (left := await world.sql("SELECT COUNT(*) FROM dalga"))[0][0]:
        world.objections.append(f"{left[0][0]} runs that were done are not recorded")


@scenario("4. SIGTERM while the database says nothing")
async def sigterm_database_stalled(world: World) -> None:
    """With POSTs in flight, and with clients that wait for it. It says nothing more to the end."""
    world.limits = replace(world.limits, stop=world.limits.stop + READ_TIMEOUT)
    proxy = world.before_database()
    world.endpoint.behave(lambda post: Answer(200, 1.0))
    mysql: dict[str, object] = {"readTimeout": f"{READ_TIMEOUT}s"}
    first = await world.start(database=proxy, mysql=mysql)
    await world.client.put_many(keys("job", 20), interval=1)
    await world.until(lambda: len(world.endpoint.posts) >= 20, "all to be in flight")
    with world.faulty("database stalled", after=LEASE + 1.0):
        proxy.stall(True)
        asked = [Deferred.fromCoroutine(world.client.ask("GET", "/status")) for _ in range(8)]
        await world.pause(READ_TIMEOUT / 2)  # so that what is tried again is under way at the end
        await world.retire(first)
        proxy.cut()
        proxy.stall(False)
        await gatherResults(asked)
    world.notes["stopped in"] = f"{first.ended_at - first.told_at:.1f} s"
    await world.start()
    await world.pause(LEASE)
    await world.settle()


@scenario("5. Rolling restart of three instances under load")
async def rolling_restart(world: World) -> None:
    world.endpoint.behave(lambda post: Answer(200, world.random.uniform(0.0, 1.0)))
    running = await world.start_many(3)
    jobs = keys("job", int(min(300, world.seconds * 10)))
    await world.client.put_many(jobs, interval=2)
    restarts = 0
    ends = time() + world.seconds

    async def restart() -> None:
        nonlocal restarts
        while time() < ends:
            await world.retire(running.pop(0))
            running.append(await world.start())
            restarts += 1
            await world.pause(1)

    await together(restart(), world.client.meddle(keys("other", 16), world.seconds))
    await world.settle()
    world.notes["restarts"] = str(restarts)


@scenario("5. Reloads (SIGHUP) of an instance and of two workers, several a second, under load")
async def reloads(world: World) -> None:
    """Slots, time limits and endpoints change under the runs; some files have a mistake."""
    world.endpoint.behave(lambda post: Answer(200, world.random.uniform(0.0, 1.0)))
    running = [await world.start(), await world.start(jobs={"workers": 2})]
    first = {instance: instance.ini.read_text() for instance in running}
    await world.client.put_many(keys("job", int(min(300, world.seconds * 10))), interval=2)
    reloads = 0
    ends = time() + world.seconds

    async def reload() -> None:
        nonlocal reloads
        while time() < ends:
            instance = world.random.choice(running)
            changed = re.sub(
                r"timeout = .*",
                f"timeout = {world.random.choice((TIMEOUT, TIMEOUT / 2))}s",
                first[instance],
            ).replace(
                "[jobs]\n", f"[jobs]\nmaxRunning = {world.random.choice((5, 20, 100, 'many'))}\n"
            )
            if world.random.random() < 0.5:
                changed += f"[endpoint other]\nbaseurl = {world.endpoint.url}\n"
            new = instance.ini.with_suffix(".new")
            new.write_text(changed)
            new.rename(instance.ini)
            instance.signal(signal.SIGHUP)
            reloads += 1
            await world.pause(world.random.uniform(0.0, 0.4))

    await together(reload(), world.client.meddle(keys("other", 16), world.seconds))
    await world.settle()
    for instance in running:
        if "changed: " not in instance.output() or "Traceback" in instance.output():
            world.objections.append(f"its log: {instance.output()[-500:]}")
    world.notes["reloads"] = str(reloads)


@scenario("5. Tokens and secrets are exchanged (SIGHUP), while instances are killed")
async def exchanged(world: World) -> None:
    """Old and new go side by side until all instances know the new ones. Nobody notices."""
    world.endpoint.behave(lambda post: Answer(200, world.random.uniform(0.0, 0.5)))
    await world.start_many(2)
    await world.start(jobs={"workers": 2})
    await world.client.put_many(keys("job", 40), interval=2)
    exchanges = 0
    ends = time() + world.seconds

    async def reload() -> None:
        """Have all take what there is now; one of them is killed meanwhile, and another starts."""
        alive = [one for one in world.instances if one.alive]
        for instance in alive:
            world.rewrite(instance)
            instance.signal(signal.SIGHUP)
        await world.pause(world.random.uniform(0.0, 0.1))
        await world.kill(world.random.choice(alive))
        await world.start(jobs={"workers": world.random.choice((1, 2))})

    async def answers(url: str, token: str, status: int) -> None:
        """Wait until an instance answers a token so, each of its workers by all appearance."""
        times, until = 0, time() + EXCHANGED
        while times < 10:
            answer = await world.client.ask("GET", "/status", url, token=token)
            times = times + 1 if answer.status == status else 0
            if time() > until:
                raise Unexpected(f"a token is answered {answer.status} and not {status}")
            await world.pause(0.02)

    async def until_answered(token: str, status: int) -> None:
        await together(*(answers(url, token, status) for url in world.urls()))

    async def exchange() -> None:
        nonlocal exchanges
        while time() < ends or not exchanges:
            old_token, old_secret = world.tokens[0], world.secrets[0]
            world.tokens.insert(0, world.new_token())
            world.secrets.insert(0, world.new_secret())  # the endpoint knows it from here on
            await reload()
            await until_answered(world.tokens[0], 200)
            world.client.token = world.tokens[0]
            world.tokens.remove(old_token)
            world.secrets[:] = world.secrets[:1]
            world.endpoint.secrets = [*world.secrets, old_secret]
            await reload()
            await until_answered(old_token, 401)
            world.client.retired.append(old_token)
            await world.pause(1.0)  # what was signed before has come
            world.endpoint.secrets = world.secrets
            exchanges += 1

    await together(exchange(), world.client.meddle(keys("other", 16), world.seconds))
    await world.pause(LEASE)
    await world.settle()
    world.notes["exchanges"] = str(exchanges)
    world.notes["strangers kept out"] = str(world.client.kept_out)


@scenario("5. One daemon of three workers: SIGKILL of workers, then SIGTERM, under load")
async def workers(world: World) -> None:
    """The address stays, whichever worker dies; and no more than the leases of one are lost."""
    number = 3
    world.endpoint.behave(lambda post: Answer(200, world.random.uniform(0.1, 0.5)))
    first = await world.start(jobs={"workers": number})
    await world.client.put_many(keys("job", 40), interval=2)
    killed = 0
    ends = time() + world.seconds

    async def kill() -> None:
        nonlocal killed
        while time() < ends:
            await world.until(lambda: _in_flight(world) > 3, "POSTs to be in flight")
            # One is to be left: else nobody answers for a while.
            await world.until(lambda: len(first.workers()) > 1, "two workers to be at work")
            os.kill(world.random.choice(first.workers()), signal.SIGKILL)
            world.died(first)
            killed += 1
            await world.pause(world.random.uniform(1, 3))

    await together(kill(), world.client.meddle(keys("other", 16), world.seconds))
    await world.until(lambda: len(first.workers()) == number, "all workers to be at work")
    if (said := first.output().count("was ended by SIGKILL: a new worker starts")) != killed:
        world.objections.append(f"{killed} workers were killed, and the log says so of {said}")
    await world.until(lambda: _in_flight(world) > 3, "POSTs to be in flight")
    await world.retire(first)
    if "has not stopped" in first.output():
        world.objections.append("a worker had to be killed at the stop")
    await world.start()
    await world.pause(LEASE)
    await world.settle()
    world.notes["killed"] = str(killed)


@scenario("5. SIGKILL of a supervisor under load, again and again")
async def supervisor_killed(world: World) -> None:
    """Its workers stop in order: each run is recorded, and none is left to its lease."""
    world.endpoint.behave(lambda post: Answer(200, world.random.uniform(0.1, 1.0)))
    daemon = await world.start(jobs={"workers": 3})
    await world.client.put_many(keys("job", 40), interval=2)
    ends, killed = time() + world.seconds, 0
    while time() < ends:
        await world.until(lambda: _in_flight(world) > 3, "POSTs to be in flight")
        workers = daemon.workers()
        began = time()
        daemon.signal(signal.SIGKILL)
        await daemon.ended
        killed += 1
        for worker in workers:
            await world.until(partial(_has_ended, worker), "a worker to end", limit=GRACE)
        if (left := await world.sql("SELECT COUNT(*) FROM dalga WHERE token IS NOT NULL"))[0][0]:
            world.objections.append(f"{left[0][0]} runs were left to their leases")
        daemon = await world.start(jobs={"workers": 3})
        # Nobody was there for a while; but nothing is done twice for that.
        world.fault("SIGKILL of a supervisor", began, time() + 1.0, repeats=False)
        await world.pause(1)
    await world.settle()
    world.notes["killed"] = str(killed)


def _has_ended(pid: int) -> bool:
    """Whether a process, which is no child of the bench's, is gone or a zombie (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


ADDED = """
    INSERT INTO dalga (path, body, schedule, anchor, scheduled, due)
    VALUES (%s, %s, '', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))
    """


@scenario("6. Clients that PUT the same new jobs at two instances", own_server=True)
async def same_jobs(world: World) -> None:
    """
    Each from its own end, while a stranger who adds the one in the middle takes his time: whoever
    did not keep to one order would wait for the other there, and the other for him. Without that
    order there is a deadlock in every fourth round. With it there is one now and then, of the
    server's own making, and the transaction is run again.
    """
    world.without_tokens()
    one, other = await world.start_many(2)
    before = await world.deadlocks()
    ends = time() + world.seconds
    rounds = 0
    while time() < ends:
        rounds += 1
        jobs = keys(f"round{rounds}-", 16)
        world.foreign.update(jobs)  # nobody knows which PUT of a job was the last
        with world.connect() as stranger:
            await deferToThread(stranger.cursor().execute, ADDED, jobs[8])

            async def commit() -> None:
                await world.pause(0.04)
                await deferToThread(stranger.commit)

            await together(
                world.client.put_many(jobs, delay=2, url=one.url),
                world.client.put_many(jobs[::-1], delay=2, url=other.url),
                commit(),
            )
    deadlocks = await world.deadlocks() - before
    world.notes["deadlocks"] = f"{deadlocks} in {rounds} rounds"
    if deadlocks * 10 > rounds:
        world.objections.append(f"{deadlocks} deadlocks in {rounds} rounds")
    world.notes["rounds"] = str(rounds)
    if set(world.client.statuses) != {201}:
        world.objections.append(f"answered with {dict(world.client.statuses)}")
    await world.until_empty()
    if lost := world.foreign - {post.key for post in world.endpoint.posts if post.done}:
        world.objections.append(f"{len(lost)} jobs have not run: {sorted(lost)[:5]}")
