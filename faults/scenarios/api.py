"""Clients that do what no client should, while others are to be served."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from time import sleep, time

from twisted.internet.threads import deferToThread

from bench.machine import Process
from faults.scenarios import scenario
from faults.scenarios.instances import keys, together
from faults.world import World

#: What a daemon may need more while it is attacked, in MB.
MEMORY = 150.0

#: How long a request of another client may take meanwhile, in seconds, on a busy machine.
SERVED = 2.0

Attack = Callable[[tuple[str, int], float], str]


async def _attacked(world: World, attack: Attack, **more: float) -> None:
    """
    Run an attack in a thread, while jobs run and other clients ask.

    :param more: of what the daemon needs how much more than usual, for the attack itself.
    """
    usual = asdict(world.limits)
    world.limits = replace(world.limits, **{what: usual[what] + add for what, add in more.items()})
    # As a system gives it to a daemon that does not ask for more.
    instance = await world.start(faults={"files": 1024})
    await world.client.put_many(keys("job", 30), interval=2)
    process = Process(instance.pid)
    before = process.peak_memory()
    host, _, port = instance.url.removeprefix("http://").rpartition(":")
    over = False

    async def attacking() -> None:
        nonlocal over
        world.notes["seen"] = await deferToThread(attack, (host, int(port)), world.seconds)
        over = True

    async def others() -> None:
        while not over:
            answer = await world.client.ask("GET", "/jobs/job0/body")
            if answer.status != 200:
                world.objections.append(f"another client was answered {answer.status}")
            await world.pause(0.1)

    await together(attacking(), others())
    grown = process.peak_memory() - before
    world.notes["memory"] = f"+{grown:.0f} MB"
    world.notes["slowest answer"] = f"{world.client.slowest:.2f} s"
    if grown > MEMORY:
        world.objections.append(f"it took {grown:.0f} MB more")
    if world.client.slowest > SERVED:
        world.objections.append(f"another client waited {world.client.slowest:.1f} s")
    await world.settle()


def _until_closed(sender: socket.socket, limit: float) -> float:
    """How long it takes until the other side closes, in seconds."""
    began = time()
    sender.settimeout(limit)
    with contextlib.suppress(OSError):
        while sender.recv(65536):
            pass
    return time() - began


@scenario("12. Ten thousand idle connections")
async def idle_connections(world: World) -> None:
    def attack(address: tuple[str, int], seconds: float) -> str:
        opened: list[socket.socket] = []
        try:
            for _ in range(10_000):
                opened.append(socket.create_connection(address, timeout=10))
            sleep(min(seconds, 10))
            return f"{len(opened):,} connections"
        finally:
            for number, one in enumerate(opened):
                one.close()
                if number % 100 == 0:
                    sleep(0.02)  # not all in one turn of the reactor

    await _attacked(world, attack, files=10_000, slack=1.0)


@scenario("12. Requests that come at one byte a second")
async def slow_senders(world: World) -> None:
    def attack(address: tuple[str, int], seconds: float) -> str:
        request = b"PUT /jobs/slow/body?interval=60 HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"x" * 600
        began = time()
        closed: list[float] = []

        def send() -> None:
            with socket.create_connection(address, timeout=10) as sender:
                with contextlib.suppress(OSError):
                    for octet in request:
                        sender.sendall(bytes((octet,)))
                        sleep(1)
                closed.append(time() - began)

        senders = [threading.Thread(target=send) for _ in range(200)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        return f"closed after {min(closed):.0f} to {max(closed):.0f} s"

    await _attacked(world, attack)


@scenario("12. Bodies of a gigabyte")
async def huge_bodies(world: World) -> None:
    def attack(address: tuple[str, int], seconds: float) -> str:
        statuses = []
        own = world.authorization
        for head in (b"Content-Length: 1073741824\r\n", b"Transfer-Encoding: chunked\r\n"):
            with socket.create_connection(address, timeout=10) as sender:
                sent = 0
                sender.sendall(
                    b"PUT /jobs/huge/body HTTP/1.1\r\nHost: x\r\n" + own + head + b"\r\n"
                )
                chunk = (
                    b"10000\r\n" + b"x" * 65536 + b"\r\n" if b"chunked" in head else b"x" * 65536
                )
                with contextlib.suppress(OSError):
                    while sent < 2**30:
                        sender.sendall(chunk)
                        sent += len(chunk)
                answer = b""
                with contextlib.suppress(OSError):
                    answer = sender.recv(65536)
                statuses.append(f"{answer[9:12].decode() or 'closed'} after {sent / 1e6:.1f} MB")
        return ", ".join(statuses)

    await _attacked(world, attack)


@scenario("12. Floods of headers, pipelining, and what is no HTTP")
async def malformed(world: World) -> None:
    def attack(address: tuple[str, int], seconds: float) -> str:
        own = world.authorization
        flood = b"GET /status HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(100_000))
        wild = [
            flood,
            b"GET /" + b"a" * 10_000_000 + b" HTTP/1.1\r\n\r\n",
            b"GET /status HTTP/1.1\r\nX: " + b"y" * 10_000_000 + b"\r\n\r\n",
            b"GET /status HTTP/1.1\r\nHost: x\r\n%b\r\n" % own * 10_000,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 100,
            b"\x00" * 100_000,
            b"PUT /jobs/a/b HTTP/1.1\r\n%bContent-Length: -1\r\n\r\n" % own,
            b"PUT /jobs/a/b HTTP/1.1\r\n%bContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n" % own,
            b"PUT /jobs/a/b HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\nzzzz\r\n" % own,
            b"GET /status HTTP/9.9\r\n\r\n",
            b"GET\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
        ends, times = time() + seconds, 0
        while time() < ends:
            for text in wild:
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(address, timeout=10) as sender,
                ):
                    sender.sendall(text)
                    sender.shutdown(socket.SHUT_WR)
                    _until_closed(sender, 5)
                times += 1
        return f"{times} connections"

    await _attacked(world, attack, slack=6.0)
