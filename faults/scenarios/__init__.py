"""The scenarios, by name. Each is a coroutine over a `faults.world.World`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from faults.world import World

Run = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done to a world, and what it needs."""

    run: Run
    #: As it stands in docs/promises.md.
    title: str
    #: Whether it wants a server that it may break.
    own_server: bool = False
    #: The engines that it is about; any server if empty.
    engines: tuple[str, ...] = ()
    #: The size of a disk of its own, in MB: for the server, or for SQLite's file.
    disk: int = 0
    #: Whether it takes all of the machine, so that no other is to be judged beside it.
    alone: bool = False


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    title: str,
    own_server: bool = False,
    engines: tuple[str, ...] = (),
    disk: int = 0,
    alone: bool = False,
) -> Callable[[Run], Run]:
    """Put a coroutine on the list, under its name with dashes."""

    def register(run: Run) -> Run:
        name = run.__name__.replace("_", "-")
        SCENARIOS[name] = Scenario(run, title, own_server, engines, disk, alone)
        return run

    return register


# Each module puts its scenarios on the list.
from faults.scenarios import (  # noqa: E402
    alerted,  # noqa: F401
    api,  # noqa: F401
    database,  # noqa: F401
    embedded,  # noqa: F401
    instances,  # noqa: F401
    misbehaving,  # noqa: F401
    mixed,  # noqa: F401
    replicas,  # noqa: F401
    wrong,  # noqa: F401
)
