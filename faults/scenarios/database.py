"""What becomes of the database; and what the API does meanwhile."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import sleep, time
from typing import Any

import pymysql
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from faults.client import PROMPT
from faults.instance import NAMED
from faults.proxy import Proxy
from faults.scenarios import scenario
from faults.scenarios.instances import keys, sometimes_slow, together
from faults.watch import sample
from faults.world import LEASE, SESSIONS, Instance, Unexpected, World

#: How long things may be late after the database is back, in seconds: what was claimed and not
#: begun, as nobody knew of it, waits for the lease's end.
RECOVERY = LEASE + 5.0

#: And where the way to it was stalled: what was claimed over it may be known to nobody until the
#: server ends the transaction.
STALLED = 15.0

#: Until a look-up of the database's name is given up, by default, in seconds.
DIAL_TIMEOUT = 3.0

#: The longest that the reactor may do one thing, in seconds, on a machine that does others too.
TICK = 1.0

Fault = Callable[[World, Proxy], Awaitable[None]]


async def _meanwhile(
    world: World,
    kind: str,
    fault: Fault,
    repeats: bool = True,
    wait: float = RECOVERY,
    mysql: Mapping[str, object] | None = None,
    direct: bool = False,
) -> None:
    """
    Two instances, periodic jobs, and clients that go on, while something is done to the database.

    Afterwards all has to be well with no restart; and each request has to have been answered.

    :param direct: whether the instances go to the server, not to a proxy before it.
    """
    sometimes_slow(world)
    proxy = world.before_database()
    database = None if direct else proxy
    ticks = [world.folder / f"ticks{number}" for number in range(2)]
    for path in ticks:
        await world.start(database=database, faults={"ticks": str(path)}, mysql=mysql or {})
    await world.client.put_many(keys("job", 30), interval=2)
    await world.pause(2)

    async def broken() -> None:
        with world.faulty(kind, after=wait, repeats=repeats):
            await fault(world, proxy)

    await together(broken(), world.client.meddle(keys("other", 16), world.seconds))
    await world.pause(wait)
    # Whatever it was, now it works at once.
    for instance in world.instances:
        if instance.status is not None:
            world.objections.append(f"an instance ended: {instance.output()[-500:]}")
            continue
        for _ in range(4):
            await ask_status(world, instance)
    await world.settle()
    _judge(world, ticks)


async def ask_status(world: World, instance: Instance) -> None:
    """It has to have one again."""
    answer = await world.client.ask("GET", "/status", instance.url)
    if answer.status != 200:
        world.objections.append(f"afterwards GET /status gives {answer.status}")


def _judge(world: World, ticks: list[Path]) -> None:
    """What the clients were answered, and how long the reactors were busy (scenario 7)."""
    client = world.client
    longest = max((float(path.read_text()) for path in ticks if path.exists()), default=0.0)
    world.notes["503"] = str(client.statuses[503])
    world.notes["slowest answer"] = f"{client.slowest:.1f} s"
    world.notes["longest turn"] = f"{longest * 1000:.0f} ms"
    if client.slowest > PROMPT:
        world.objections.append(f"an answer took {client.slowest:.1f} s")
    if client.statuses[0]:
        world.objections.append(f"{client.statuses[0]} requests were not answered")
    if longest > TICK:
        world.objections.append(f"a reactor did one thing for {longest:.2f} s")


def outage(world: World, longest: float) -> Deferred[None]:
    """Let it be broken for a part of the scenario."""
    return world.pause(max(3.0, min(longest, world.seconds * 0.7)))


async def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    """Blocking work."""
    return await deferToThread(work, *arguments)


async def as_root(world: World, *statements: str) -> list[Any]:
    """SQL with all rights; gives the last one's rows."""

    def run() -> list[Any]:
        assert world.server is not None
        with world.server.connect_as_root() as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    found: list[Any] = await in_thread(run)
    return found


@scenario("6. The server is killed and started again", own_server=True)
async def database_killed(world: World) -> None:
    async def fault(world: World, proxy: Proxy) -> None:
        assert world.server is not None
        await in_thread(world.server.kill)
        await outage(world, 30)
        await in_thread(world.server.start)

    await _meanwhile(world, "server killed", fault)


#: How much CPU a daemon may take while it waits for a database, and how soon after its return there
#: are claims again, in seconds: later where it was away for longer than a lease, since instances
#: let each other record first what they know then.
WAITING = 0.015
BACK = 2.0
BACK_LATER = BACK + 1.1


@scenario("6. Connections to it are refused")
async def database_refused(world: World) -> None:
    """Nobody asks for anything meanwhile: what a daemon does is wait."""
    sometimes_slow(world)
    proxy = world.before_database()
    # As it is by default: what TLS takes to be prepared is to be taken once, not for each attempt.
    instances = await world.start_many(2, database=proxy, mysql={"ssl-mode": "preferred"})
    await world.client.put_many(keys("job", 30), interval=2)
    await world.pause(2)
    with world.faulty("connections refused", after=BACK_LATER + 2.0, repeats=False):
        away = time()
        proxy.refuse()
        proxy.cut()
        await world.pause(2)  # what had been under way has ended by then
        before = {instance: sample(instance.pid) for instance in instances}
        await world.pause(max(10.0, min(60.0, world.seconds)))
        after = {instance: sample(instance.pid) for instance in instances}
        proxy.accept()
        back = time()
    await world.settle()
    taken = [
        (after[one].cpu - before[one].cpu) / (after[one].at - before[one].at) for one in instances
    ]
    first = min((post.start for post in world.endpoint.posts if post.start > back), default=0.0)
    world.notes["CPU while away"] = ", ".join(f"{one:.1%}" for one in taken)
    world.notes["claims again after"] = f"{first - back:.1f} s"
    if max(taken) > WAITING:
        world.objections.append(f"a daemon that waits takes {max(taken):.1%} of a core")
    if not 0 < first - back <= (BACK if back - away < LEASE else BACK_LATER):
        world.objections.append(f"there was no claim for {first - back:.1f} s")
    for instance in instances:
        await ask_status(world, instance)


@scenario("6. The database's name: a resolver that is silent")
async def database_name(world: World) -> None:
    """Clients have answers, a stop waits for no look-up, and the other instance is back soon."""
    world.limits = replace(world.limits, stop=world.limits.stop + DIAL_TIMEOUT)
    sometimes_slow(world)
    speed = world.folder / "speed"
    speed.write_text("0")
    lookup: dict[str, object] = {"lookup": str(speed)}
    first, second = await world.start_many(2, faults=lookup, mysql={"host": NAMED})
    await world.client.put_many(keys("job", 30), interval=2)
    await world.pause(2)
    back = 0.0

    async def broken() -> None:
        nonlocal back
        with world.faulty("database's name not found", after=RECOVERY):
            speed.unlink()
            await kill_connections(world)
            await outage(world, 15)
            first.url = ""
            await world.pause(1)  # what clients are about to ask it has got there by then
            await world.retire(first)
            speed.write_text("0")
            back = time()

    await together(broken(), world.client.meddle(keys("other", 16), world.seconds))
    world.notes["stopped in"] = f"{first.ended_at - first.told_at:.1f} s"
    await world.pause(RECOVERY)
    await ask_status(world, second)
    await world.settle()
    again = min((post.start for post in world.endpoint.posts if post.start > back), default=0.0)
    world.notes["claims again after"] = f"{again - back:.1f} s"
    if not 0 < again - back <= BACK_LATER:
        world.objections.append(f"there was no claim for {again - back:.1f} s")
    _judge(world, [])


#: Errors that say in a proxy's own words, and numbers, that there is no server: ProxySQL's, and
#: that of Vitess and RDS Proxy.
NO_SERVER = (
    (9001, "HY000", "Max connect timeout reached while reaching hostgroup 0 after 3000ms"),
    (1105, "HY000", "target: jobs.0.primary: primary is not serving, there may be a reparent"),
)


@scenario("6. A proxy answers by errors of its own: 9001, 1105")
async def proxy_errors(world: World) -> None:
    """What was done meanwhile is recorded afterwards, and not POSTed again."""

    async def fault(world: World, proxy: Proxy) -> None:
        for code, state, words in NO_SERVER:
            proxy.answer_error(code, state, words)
            await world.pause(max(3.0, min(10.0, world.seconds * 0.35)))
            proxy.answer_no_error()
            await world.pause(2)
        world.notes["statements refused"] = str(proxy.refused)

    await _meanwhile(world, "errors by a proxy", fault, repeats=False, wait=BACK + 2.0)
    if not world.client.statuses[503]:
        world.objections.append("nothing was refused meanwhile")


@scenario("6. COMMITs are rolled back by a cluster's certification: 3101")
async def commits_refused(world: World) -> None:
    """Each transaction is run again, and nobody sees it."""

    async def fault(world: World, proxy: Proxy) -> None:
        words = "Plugin instructed the server to rollback the current transaction."
        proxy.answer_error(3101, "40000", words, b"COMMIT", one_in=3)
        await outage(world, 20)
        proxy.answer_no_error()
        world.notes["COMMITs refused"] = str(proxy.refused)

    await _meanwhile(world, "COMMITs rolled back", fault, repeats=False, wait=BACK)
    if world.client.statuses[503]:
        world.objections.append(f"503 {world.client.statuses[503]} times, instead of once more")


@scenario("6. The server is held (SIGSTOP)", own_server=True)
async def database_held(world: World) -> None:
    async def fault(world: World, proxy: Proxy) -> None:
        assert world.server is not None
        world.server.signal(signal.SIGSTOP)
        await outage(world, 20)
        world.server.signal(signal.SIGCONT)

    await _meanwhile(world, "server held", fault)


@scenario("6. The way to it is stalled, without a reset")
async def database_stalled(world: World) -> None:
    async def fault(world: World, proxy: Proxy) -> None:
        proxy.stall(True)
        await outage(world, 20)
        proxy.stall(False)

    await _meanwhile(world, "database stalled", fault, wait=RECOVERY + STALLED)


@scenario("6. Its connections fall silent, and new ones go through")
async def connections_muted(world: World) -> None:
    """As by a middlebox that has forgotten them. Where one is found to be dead, others may be."""
    # Neither can the server see that they are dead, nor a daemon through a proxy which they are.
    world.limits = replace(world.limits, crowded=math.inf, stop=world.limits.stop + 2.0)

    async def fault(world: World, proxy: Proxy) -> None:
        for _ in range(max(1, int(world.seconds / 20))):
            proxy.mute()
            await world.pause(5)

    # MySQL ends no transaction that idles, but after a minute each session that does; until then
    # its rows are locked.
    assert world.server is not None
    minute = 60.0 if world.server.engine == "mysql" else 0.0
    mysql: dict[str, object] = {"readTimeout": "2s"}
    await _meanwhile(world, "connections muted", fault, wait=RECOVERY + minute, mysql=mysql)


@scenario("6. Replies to COMMITs are lost")
async def commit_lost(world: World) -> None:
    async def fault(world: World, proxy: Proxy) -> None:
        ends = time() + world.seconds * 0.7
        times = 0
        while time() < ends:
            proxy.drop_reply(b"\x03COMMIT")
            times += 1
            await world.pause(world.random.uniform(0.2, 1.0))
        world.notes["lost"] = str(times)

    await _meanwhile(world, "reply to COMMIT lost", fault)


async def kill_connections(world: World) -> int:
    """Have the server end all that the instances have; gives how many there were."""
    killed = 0
    rows = await as_root(
        world,
        "SELECT id FROM information_schema.processlist"
        f" WHERE user LIKE '{world.database}.%' AND db = '{world.database}'",
    )
    for (id_,) in rows:
        with contextlib.suppress(pymysql.Error):
            await as_root(world, f"KILL {id_}")
            killed += 1
    return killed


@scenario("6. Connections are killed")
async def connections_killed(world: World) -> None:
    async def fault(world: World, proxy: Proxy) -> None:
        ends = time() + world.seconds * 0.7
        killed = 0
        while time() < ends:
            killed += await kill_connections(world)
            await world.pause(0.5)
        world.notes["killed"] = str(killed)

    await _meanwhile(world, "connections killed", fault)


async def _lost_connections(world: World) -> int:
    """Those that the server has closed, or that have gone without a word."""
    ((_, number),) = await as_root(world, "SHOW GLOBAL STATUS LIKE 'Aborted_clients'")
    return int(number)


@scenario("6. wait_timeout is 2 s", own_server=True)
async def wait_timeout(world: World) -> None:
    await as_root(world, "SET GLOBAL wait_timeout = 2")

    before = await _lost_connections(world)

    async def fault(world: World, proxy: Proxy) -> None:
        await world.pause(world.seconds)

    await _meanwhile(world, "wait_timeout=2", fault, repeats=False, wait=1.0)
    lost = await _lost_connections(world) - before
    world.notes["connections closed by the server"] = str(lost)
    if not lost:
        world.objections.append("the server closed no connection")


@scenario("6. The server only reads", own_server=True)
async def read_only(world: World) -> None:
    async def fault(world: World, proxy: Proxy) -> None:
        await as_root(world, "SET GLOBAL read_only = ON")
        await outage(world, 20)
        await as_root(world, "SET GLOBAL read_only = OFF")

    await _meanwhile(world, "read_only", fault)


def fill(filler: Path) -> None:
    """Take all the room that there is on a disk."""
    with open(filler, "wb", buffering=0) as file:
        for size in (1024 * 1024, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def _fill_table(world: World) -> str:
    """Add rows that are never due until there is no room; gives what the server does then."""
    with world.connect() as connection:
        cursor = connection.cursor()
        for number in range(100_000):
            key = (f"filler{number}", "x" * 255)
            world.foreign.add(key)
            began = time()
            try:
                cursor.execute(
                    "INSERT INTO dalga (path, body, schedule, anchor, scheduled, disabled)"
                    " VALUES (%s, %s, '', UTC_TIMESTAMP(), UTC_TIMESTAMP(), 1)",
                    key,
                )
                connection.commit()
            except pymysql.Error as error:
                return str(error.args[1])[:40]
            if time() - began > 2:
                return "nothing, and waits"
    raise Unexpected("the disk was not full")


@scenario("6. The disk is full", own_server=True, disk=700)
async def disk_full(world: World) -> None:
    async def fault(world: World, proxy: Proxy) -> None:
        assert world.disk is not None
        filler = world.disk / "filler"
        await in_thread(fill, filler)
        # What the table still has room for in itself is taken as well.
        taking = deferToThread(_fill_table, world)
        await outage(world, 20)
        filler.unlink()
        world.notes["the server says"] = await taking

    # MySQL looks once a minute whether there is room for its binary log again.
    assert world.server is not None
    minute = 60.0 if world.server.engine == "mysql" else 0.0
    # Behind the proxy the instances could not tell which sessions of the server's list are theirs.
    await _meanwhile(world, "disk full", fault, wait=RECOVERY + minute, direct=True)


@scenario("6. max_connections is reached", own_server=True)
async def max_connections(world: World) -> None:
    async def fault(world: World, proxy: Proxy) -> None:
        assert world.server is not None
        server = world.server
        await as_root(world, "SET GLOBAL max_connections = 10")
        proxy.cut()
        strangers: list[Any] = []

        def occupy() -> None:
            with contextlib.suppress(pymysql.Error):
                while True:
                    strangers.append(server.connect(database=world.database))

        ends = time() + max(3.0, min(20.0, world.seconds * 0.7))
        while time() < ends:
            await in_thread(occupy)
            await world.pause(0.2)
        for stranger in strangers:
            stranger.close()
        # The server takes its time to see that they are gone.
        for _ in range(50):
            with contextlib.suppress(pymysql.OperationalError):
                await as_root(world, "SET GLOBAL max_connections = 151")
                break
            await world.pause(0.1)
        world.notes["connections taken"] = str(len(strangers))

    await _meanwhile(world, "max_connections", fault)


def _storm(world: World, over: Event, slow: int) -> int:
    """
    A session that locks rows in an order of its own, holds them for a while, and rolls back.

    :param slow: which of twenty takes its time.
    """
    times = 0
    while not over.is_set():
        with world.connect() as connection:
            cursor = connection.cursor()
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
            cursor.execute("SELECT id FROM dalga WHERE path LIKE 'locked%' ORDER BY RAND() LIMIT 8")
            try:
                for (row,) in cursor.fetchall():
                    cursor.execute("SELECT id FROM dalga WHERE id = %s FOR UPDATE", (row,))
                    sleep(0.003)
                sleep(6.0 if times % 20 == slow else 0.02)
            except pymysql.OperationalError:
                pass  # it was chosen to break a deadlock, or has waited for too long
            connection.rollback()
            times += 1
    return times


@scenario("6. Two sessions that lock rows, for deadlocks and waits")
async def lock_storm(world: World) -> None:
    """Only the jobs whose rows they lock may be late."""

    async def fault(world: World, proxy: Proxy) -> None:
        await world.client.put_many(keys("locked", 16), interval=1)
        over = Event()
        before = await world.deadlocks()
        storms = [deferToThread(_storm, world, over, slow) for slow in (9, 19)]
        await world.pause(max(5.0, world.seconds * 0.7))
        over.set()
        world.notes["transactions of theirs"] = str(sum([await storm for storm in storms]))
        world.notes["deadlocks"] = str(await world.deadlocks() - before)

    # A row that is locked for longer than its lease is recorded too late.
    await _meanwhile(world, "lock storm", fault)
    late = [
        post.start - post.scheduled - 1
        for post in world.endpoint.posts
        if post.path.startswith("job") and post.attempt == 1
    ]
    world.notes["latest of others"] = f"{max(late):.1f} s"
    if max(late) > 2.0:
        world.objections.append(f"a job that nobody had locked was {max(late):.1f} s late")


@scenario("6. A REPEATABLE READ reader stays open, with many due rows", alone=True)
async def long_reader(world: World) -> None:
    number = int(min(100_000, world.seconds * 2500))
    await world.start_many(2)
    due = time() + 4 + number / 8000
    await world.insert(keys("job", number), due)

    def read() -> Any:
        assert world.server is not None
        connection = world.server.connect(database=world.database)
        cursor = connection.cursor()
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        cursor.execute("SELECT COUNT(*) FROM dalga")
        return connection

    reader = await in_thread(read)
    with world.faulty("REPEATABLE READ reader", after=number / 300, repeats=False):
        await world.until_done(number, 60 + number / 100)
        took = time() - due
    await world.until_empty()
    reader.close()
    world.notes["jobs/s"] = f"{number / took:,.0f}"
    if number / took < 100:
        world.objections.append(f"{number / took:.0f} jobs/s with a reader")


@scenario("6. LOCK TABLES, and FLUSH TABLES WITH READ LOCK, for long", own_server=True)
async def tables_locked(world: World) -> None:
    """The server has room for the daemons' sessions, and for a few of others."""
    await as_root(world, f"SET GLOBAL max_connections = {2 * SESSIONS + 8}")

    def ask() -> None:
        with world.connect() as connection:
            connection.cursor().execute("SELECT 1")

    async def others() -> None:
        try:
            await in_thread(ask)
        except pymysql.Error as error:
            world.objections.append(f"another client of the server got {error}")

    async def fault(world: World, proxy: Proxy) -> None:
        assert world.server is not None
        for lock in (f"LOCK TABLES `{world.database}`.dalga WRITE", "FLUSH TABLES WITH READ LOCK"):
            with world.server.connect_as_root() as connection:
                await in_thread(connection.cursor().execute, lock)
                ends = time() + max(8.0, min(60.0, world.seconds))
                while time() < ends:
                    await others()
                    await world.pause(0.5)
            await world.pause(2)

    # Answers are given up soon, so that there are many sessions for the server to keep.
    short: dict[str, object] = {"readTimeout": "2s"}
    await _meanwhile(world, "tables locked", fault, mysql=short)
    most = [max(number for _, number in one.usage.sessions) for one in world.instances]
    world.notes["sessions of each"] = ", ".join(map(str, most))


@scenario("6. The table is locked by an ALTER")
async def altered(world: World) -> None:
    async def fault(world: World, proxy: Proxy) -> None:
        def alter() -> None:
            with world.connect() as connection:
                cursor = connection.cursor()
                cursor.execute("LOCK TABLES dalga WRITE")
                sleep(max(3.0, min(12.0, world.seconds * 0.5)))
                cursor.execute("ALTER TABLE dalga ADD COLUMN note INT NULL, ALGORITHM=COPY")
                cursor.execute("ALTER TABLE dalga DROP COLUMN note, ALGORITHM=COPY")
                cursor.execute("UNLOCK TABLES")

        await in_thread(alter)

    await _meanwhile(world, "ALTER TABLE", fault)
