"""
Break things, and see whether the promises hold.

    make faults
    make faults SCENARIO=rolling-restart SECONDS=30 SEED=7
    make faults ENGINE=mysql
    .venv/bin/python -m faults sigstop-one sigstop-all --remove lease-check
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from faults.checker import check, repetitions
from faults.mutants import MUTANTS, mutant
from faults.scenarios import SCENARIOS, Scenario
from faults.world import MUTANT, World
from tests.servers import Server, start_server

#: Violations of one scenario that are printed.
SHOWN = 10


@dataclass
class Result:
    """What one scenario came to: a line of the table."""

    name: str
    title: str
    faults: int = 0
    runs: int = 0
    retries: int = 0
    repeated: int = 0
    took: float = 0.0
    notes: dict[str, str] = field(default_factory=dict)
    #: Violations, and what the scenario objected to, or broke off with.
    wrong: list[str] = field(default_factory=list)


def mount(folder: Path, size: int) -> Path:
    """A disk of so many MB. Only root may have one."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "dalga", str(disk)], check=True)
    return disk


async def run(
    reactor: Any, name: str, one: Scenario, shared: Server | None, options: argparse.Namespace
) -> Result:
    """Run one scenario in a world of its own, and check it."""
    result = Result(name, one.title)
    began = time()
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=options.keep))
    disk = mount(folder, one.disk) if one.disk else None
    server = shared
    if "sqlite" in one.engines:
        server = None
    elif one.own_server:
        server = await deferToThread(start_server, options.engine, (), disk)
    world = World(reactor, server, folder, options.seed, options.seconds)
    world.disk = disk
    try:
        await world.open()
        try:
            await one.run(world)
            history = await world.finish()
        except Exception:
            result.wrong.append(f"broke off: {traceback.format_exc(limit=-4)}")
            history = world.history
        else:
            result.wrong += [str(violation) for violation in check(history, world.bounds)]
        result.wrong += world.objections
        # Beside the endpoint's own log, for who wants to know how it came about.
        told = [*world.client.said, *world.history.faults, *history.rows]
        (folder / "history").write_text("".join(f"{one}\n" for one in told))
        posts = world.endpoint.posts
        result.faults = len(world.history.faults)
        result.runs = len({post.run for post in posts})
        result.retries = len(posts) - result.runs
        result.repeated = len(repetitions(posts))
        result.notes = world.notes
    finally:
        await world.close()
        if one.own_server and server is not None:
            await deferToThread(server.stop)
        if disk is not None:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
    result.took = time() - began
    verdict = "ok" if not result.wrong else f"{len(result.wrong)} wrong"
    print(f"{name}: {verdict}, {result.runs} runs, {result.took:.0f} s", flush=True)
    for text in result.wrong[:SHOWN]:
        print(f"    {text}", flush=True)
    return result


def table(results: list[Result]) -> str:
    """All results, as Markdown."""
    lines = [
        "| scenario | | faults | runs | retries | repeated | violations | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        notes = ", ".join(f"{what} {value}" for what, value in result.notes.items())
        lines.append(
            f"| {result.name} | {result.title} | {result.faults:,} | {result.runs:,} "
            f"| {result.retries:,} | {result.repeated:,} | {len(result.wrong)} | {notes} |"
        )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__.split("\n")[1])
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--engine", choices=("mariadb", "mysql"), default="mariadb")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each; default 30")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--together", type=int, default=1, help="scenarios at once; default 1")
    parser.add_argument("--keep", type=Path, help="leave logs and histories there")
    parser.add_argument("--remove", choices=list(MUTANTS), help="take a mechanism out")
    options = parser.parse_args()
    for name in options.names:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}: there is {', '.join(SCENARIOS)}")
    return options


async def run_all(reactor: Any, options: argparse.Namespace) -> None:
    wanted = {
        name: one
        for name, one in SCENARIOS.items()
        if (not options.names or name in options.names)
        and (not one.engines or one.engines == ("sqlite",) or options.engine in one.engines)
    }
    print(f"seed {options.seed}, {options.seconds:g} s each, {options.engine}", flush=True)
    server = await deferToThread(start_server, options.engine)
    semaphore = DeferredSemaphore(options.together)
    try:
        results: list[Result] = await gatherResults(
            [
                semaphore.run(
                    lambda name=name, one=one: Deferred.fromCoroutine(
                        run(reactor, name, one, server, options)
                    )
                )
                for name, one in wanted.items()
            ],
            consumeErrors=True,
        )
    finally:
        await deferToThread(server.stop)
    print()
    print(f"{options.engine} {server.version}, seed {options.seed}, {options.seconds:g} s each")
    print()
    print(table(results))
    verdicts = Counter("failed" if result.wrong else "passed" for result in results)
    print()
    print(f"{verdicts['passed']} passed, {verdicts['failed']} failed", flush=True)
    if verdicts["failed"]:
        raise SystemExit(1)


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="dalga-faults-") as folder:
        options.keep = options.keep or Path(folder)
        options.keep.mkdir(exist_ok=True)
        if options.remove:
            os.environ[MUTANT] = str(mutant(options.remove, Path(folder, "mutant")))
        react(lambda reactor: Deferred.fromCoroutine(run_all(reactor, options)))


if __name__ == "__main__":
    sys.exit(main())
