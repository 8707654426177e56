"""
An instance, as its heartbeat tells of it. Pure.

What a heartbeat writes beside its time is an object of JSON, for people to see::

    {"version": "1.2.0", "slots": 100, "running": 12, "clock_offset": 0.0007, "latency": 0.0021}
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any, NamedTuple


class About(NamedTuple):
    """What an instance says of itself. None where it is not known."""

    version: str | None = None
    #: How many runs it may have under way, and how many it had at the heartbeat.
    slots: int | None = None
    running: int | None = None
    #: The database's clock minus the clock of the instance's machine, in seconds.
    clock_offset: float | None = None
    #: How long the heartbeat before took, in seconds, from when it was asked for.
    latency: float | None = None


class Instance(NamedTuple):
    """An instance whose heartbeat is in the table."""

    name: str
    #: None if that is not known.
    since: datetime | None
    #: How long ago its last heartbeat was, in seconds.
    age: float
    about: About


#: Of an instance that says nothing of itself.
UNKNOWN = About()

#: What each member of the JSON is.
_KINDS: dict[str, tuple[type, ...]] = {
    "version": (str,),
    "slots": (int,),
    "running": (int,),
    "clock_offset": (int, float),
    "latency": (int, float),
}

#: The longest version that is read, in characters.
MAX_VERSION = 100


def about_text(about: About) -> str:
    """The JSON, with an accuracy of microseconds. At most 1024 characters."""
    members = {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in about._asdict().items()
        if value is not None
    }
    return json.dumps(members, separators=(",", ":"))


def about_from_text(text: str) -> About:
    """
    What `about_text` wrote. Of what another version has written, or somebody's SQL, what is
    understood (P6).
    """
    try:
        given: Any = json.loads(text)
    except (ValueError, RecursionError):
        return UNKNOWN
    if not isinstance(given, dict):
        return UNKNOWN
    return About(**{name: given[name] for name in _KINDS if _fits(name, given.get(name))})


def _fits(name: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, _KINDS[name]):
        return False
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, str) or len(value) <= MAX_VERSION
