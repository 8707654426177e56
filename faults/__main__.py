"""
Break things, and see whether the promises hold.

    make faults
    make faults SCENARIO=rolling-restart SECONDS=30 SEED=7
    make faults ENGINE=mysql
    .venv/bin/python -m faults sigstop-one sigstop-all --remove lease-check
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import secrets
import signal
import subprocess
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import time
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults, maybeDeferred
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogBeginner

from faults.alerted import check_alerts
from faults.audited import check_entries
from faults.checker import check, repetitions
from faults.instance import BENCH
from faults.mutants import MUTANTS, mutant
from faults.recorded import check_records
from faults.scenarios import SCENARIOS, Scenario
from faults.world import MUTANT, World
from tests.servers import Server, ServerError, start_server

#: Violations of one scenario that are printed.
SHOWN = 10

#: How long each thing may take that ends what a scenario has started, in seconds.
TIDYING = 60.0

#: How often the bench looks whether it is held up itself, and what it takes for that, in seconds.
WATCH = 0.1
HELD_UP = 0.5

CLONE_NEWNS = 0x20000


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


def own_mounts() -> bool:
    """
    Have what this process mounts be its own: seen by what it starts, and gone with them.

    To be called before there are threads.

    :return: whether it may mount anything.
    """
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
        return False
    private = ["mount", "--make-rprivate", "/"]
    return subprocess.run(private, stderr=subprocess.DEVNULL).returncode == 0


def mount(folder: Path, size: int) -> Path:
    """A disk of so many MB."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "dalga", str(disk)], check=True)
    return disk


class Bench:
    """One run of the bench, which `interrupt` ends early."""

    def __init__(self, reactor: Any, options: argparse.Namespace) -> None:
        self._reactor = reactor
        self._options = options
        #: The server of all scenarios that do not want one of their own.
        self._shared: Server | None = None
        #: What is being done to which world.
        self._underway: dict[Deferred[None], World] = {}
        #: Where the bench itself did not go on, for how long each time, in seconds.
        self.held_up: list[float] = []
        self._watched = time()
        #: The signal that ends it, if one came.
        self.interrupted: signal.Signals | None = None

    def watch(self) -> None:
        """
        Note when the bench itself was held up: what reached an endpoint then is known too late.
        To be called every `WATCH` seconds.
        """
        now = time()
        if now - self._watched > WATCH + HELD_UP:
            self.held_up.append(now - self._watched)
            for world in self._underway.values():
                world.fault("endpoint: the bench was held up", self._watched, now + 1.0)
                for post in world.endpoint.posts[-1000:]:
                    if post.end is not None and post.end > self._watched:
                        post.end = now  # when its answer has left
        self._watched = now

    def interrupt(self, number: signal.Signals) -> None:
        """Let no scenario begin, and those that run break off and tidy up."""
        if self.interrupted is None:
            self.interrupted = number
            # What fails from here on is of no interest.
            globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
            self._break_off()

    def _break_off(self) -> None:
        # Again and again, since a client takes the end of a request for the instance's doing.
        for work, world in list(self._underway.items()):
            world.client.close()
            for instance in world.instances:
                instance.signal(signal.SIGKILL)
            work.cancel()
        if self._underway:
            self._reactor.callLater(0.2, self._break_off)

    async def run_all(self, wanted: dict[str, Scenario]) -> list[Result]:
        """Run some scenarios; gives what those came to that were not interrupted."""
        semaphore = DeferredSemaphore(self._options.together)
        try:
            if any(one.engines != ("sqlite",) for one in wanted.values()):
                self._shared = await deferToThread(start_server, self._options.engine)
            results: list[Result | None] = [
                await self.run(name, one) for name, one in wanted.items() if one.alone
            ]
            others = [(name, one) for name, one in wanted.items() if not one.alone]
            # From the list's end, where the longest scenarios are: begun last, those would go on
            # by themselves.
            ended = await gatherResults(
                [semaphore.run(self.run, name, one) for name, one in reversed(others)]
            )
            results += reversed(ended)
        finally:
            if self._shared is not None:
                await deferToThread(self._shared.discard)
        return [result for result in results if result is not None]

    @property
    def database(self) -> str:
        """What the scenarios ran on, with the server's version."""
        shared = self._shared
        return "sqlite" if shared is None else f"{shared.engine} {shared.version}"

    async def run(self, name: str, one: Scenario) -> Result | None:
        """
        Run one scenario in a world of its own, and check it. Whatever goes wrong is in the result.

        :return: None if it was interrupted.
        """
        if self.interrupted:
            return None
        result = Result(name, one.title)
        began = time()
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._options.keep))
        server = None if one.engines == ("sqlite",) else self._shared
        world = World(self._reactor, server, folder, self._options.seed, self._options.seconds)
        own: list[Server] = []
        work = Deferred.fromCoroutine(self._attempt(one, world, own, result))
        self._underway[work] = world
        try:
            await work
        except Exception:
            result.wrong.append(f"broke off: {traceback.format_exc(limit=-4)}")
        finally:
            del self._underway[work]
        left = await self._tidy(world, own)
        if self.interrupted:
            for text in left:
                print(f"{name}: {text}", flush=True)
            return None
        result.wrong += world.objections + left
        result.took = time() - began
        verdict = "ok" if not result.wrong else f"{len(result.wrong)} wrong"
        print(f"{name}: {verdict}, {result.runs} runs, {result.took:.0f} s", flush=True)
        for text in result.wrong[:SHOWN]:
            print(f"    {text}", flush=True)
        return result

    async def _attempt(
        self, one: Scenario, world: World, own: list[Server], result: Result
    ) -> None:
        if one.disk:
            world.disk = mount(world.folder, one.disk)
        if one.own_server:
            world.server = await deferToThread(start_server, self._options.engine, (), world.disk)
            own.append(world.server)
        await world.open()
        history = world.history
        try:
            await one.run(world)
            history = await world.finish()
            # In a thread: the endpoints of others are served by this one meanwhile.
            for rules in (check, check_records, check_alerts, check_entries):
                found = await deferToThread(rules, history, world.bounds)
                result.wrong += [str(violation) for violation in found]
        finally:
            posts = world.endpoint.posts
            result.faults = len(world.history.faults)
            result.runs = len({post.run for post in posts})
            result.retries = len(posts) - result.runs
            result.repeated = len(repetitions(posts))
            result.notes = world.notes
            # Beside the endpoint's own log, for who wants to know how it came about.
            told = [*world.client.said, *world.history.faults, *history.rows, *history.records]
            await deferToThread(write_lines, world.folder / "history", told)
            await deferToThread(write_lines, world.folder / "usage", world.usages())

    async def _tidy(self, world: World, own: list[Server]) -> list[str]:
        """End what a scenario has started; gives what could not be."""
        wrong = []

        async def attempt(what: Callable[[], Any]) -> None:
            try:
                await maybeDeferred(what).addTimeout(TIDYING, self._reactor)
            except Exception as error:
                wrong.append(f"not tidied up: {error!r}")

        # First the server: one that is held would answer nobody who wants to tidy up in it.
        for server in own:
            await attempt(partial(deferToThread, server.discard))
        await attempt(lambda: Deferred.fromCoroutine(world.close()))
        if world.disk is not None:
            umount = ["umount", "--lazy", str(world.disk)]
            await attempt(lambda: subprocess.run(umount, check=True))
        return wrong


def write_lines(path: Path, what: Sequence[object]) -> None:
    """One line for each."""
    path.write_text("".join(f"{each}\n" for each in what))


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


def is_about(one: Scenario, engine: str) -> bool:
    """Whether a scenario can be run beside others on this server. SQLite needs none."""
    return not one.engines or one.engines == ("sqlite",) or engine in one.engines


def positive(text: str) -> float:
    """A number of seconds that goes by."""
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 seconds")
    return float(text)


def at_least_one(text: str) -> int:
    """How many at once."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not one or more")
    return int(text)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `SystemExit` with a sentence if it asks for what can't be."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__.split("\n")[1])
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument(
        "--engine", choices=("mariadb", "mysql"), default="mariadb", help="default mariadb"
    )
    parser.add_argument(
        "--seconds", type=positive, default=30.0, help="of each, roughly; default 30"
    )
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(1_000_000), help="default any"
    )
    parser.add_argument(
        "--together", type=at_least_one, default=1, help="scenarios at once; default 1"
    )
    parser.add_argument("--keep", type=Path, help="the folder to leave logs and histories in")
    parser.add_argument("--remove", choices=list(MUTANTS), help="take a mechanism out")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}: there is {', '.join(SCENARIOS)}")
        if not is_about(SCENARIOS[name], options.engine):
            parser.error(f"scenario {name!r} is not about {options.engine}")
    if options.keep is not None:
        options.keep = options.keep.absolute()  # daemons run elsewhere
        try:
            options.keep.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--keep: {error}")
    return options


def choose(options: argparse.Namespace, disks: bool) -> tuple[dict[str, Scenario], list[str]]:
    """
    What is to be run.

    :param disks: whether a scenario may have a disk of its own.
    :return: the scenarios, and the names of those that are left out for want of a disk.
    """
    wanted = {
        name: one
        for name, one in SCENARIOS.items()
        if (not options.names or name in options.names) and is_about(one, options.engine)
    }
    left_out = [name for name, one in wanted.items() if one.disk and not disks]
    return {name: one for name, one in wanted.items() if name not in left_out}, left_out


async def run_all(reactor: Any, options: argparse.Namespace, wanted: dict[str, Scenario]) -> None:
    print(f"seed {options.seed}, {options.seconds:g} s each, {options.engine}", flush=True)
    bench = Bench(reactor, options)
    on_signals(lambda number: reactor.callFromThread(bench.interrupt, number))
    LoopingCall(bench.watch).start(WATCH)
    try:
        results = await bench.run_all(wanted)
    except ServerError as error:
        raise SystemExit(f"python -m faults: {error}") from error
    print()
    print(f"{bench.database}, seed {options.seed}, {options.seconds:g} s each")
    print()
    if results:
        print(table(results))
        print()
    if bench.interrupted:
        print(f"{bench.interrupted.name}: {len(results)} of {len(wanted)} scenarios were over")
        raise SystemExit(128 + bench.interrupted)
    if bench.held_up:
        times = f"{len(bench.held_up)} times, for {max(bench.held_up):.1f} s at the most"
        print(f"The bench itself was held up {times}: that counts as a fault of the endpoint's.")
    for result in results:
        if result.wrong:
            print(f"{result.name} failed: {result.wrong[0].splitlines()[0]}")
    verdicts = Counter("failed" if result.wrong else "passed" for result in results)
    print(f"{verdicts['passed']} passed, {verdicts['failed']} failed", flush=True)
    if verdicts["failed"]:
        raise SystemExit(1)


def on_signals(call: Callable[[signal.Signals], object]) -> None:
    """Have the signals by which the bench is ended do this instead."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, lambda got, _: call(signal.Signals(got)))


def leave(number: signal.Signals) -> None:
    """End while nothing has been started."""
    raise SystemExit(128 + number)


def main() -> None:
    on_signals(leave)
    options = parse()
    wanted, left_out = choose(options, own_mounts())
    if left_out:
        print(f"left out, as they mount a disk, which takes root: {', '.join(left_out)}")
    if not wanted:
        raise SystemExit("python -m faults: no scenario is left to be run")
    with tempfile.TemporaryDirectory(prefix="dalga-faults-") as folder:
        options.keep = options.keep or Path(folder)
        if options.remove:
            os.environ[MUTANT] = str(mutant(options.remove, Path(folder, "mutant")))
        os.environ[BENCH] = str(os.getpid())

        async def begin(reactor: Any) -> None:
            await deferLater(reactor, 0)  # until it runs, as it takes the signals for itself then
            await run_all(reactor, options, wanted)

        react(begin)


if __name__ == "__main__":
    main()
