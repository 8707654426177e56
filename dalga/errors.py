"""
What can go wrong: one exception for each thing that a caller can act on.

The sentence of an exception is written for the person who reads it: it names what was wrong, what
was given and what would do. ``dalga.web.errors`` turns exceptions into HTTP answers,
``dalga.service`` into the one line with which a daemon that can't start ends.
"""

from __future__ import annotations

#: How much of what was given is repeated in a sentence, in characters.
SHOWN = 40


def shown(text: str) -> str:
    """`text` as a sentence repeats it: quoted, on one line, cut off after `SHOWN` characters."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


class DalgaError(Exception):
    """Anything that Dalga itself has to say. Never raised bare."""


class InvalidRequest(DalgaError):
    """A request that can't be understood or is contradictory; asking again unchanged won't help."""


class JobNotFound(DalgaError):
    """There is no job with this path and body."""


class JobSetAside(DalgaError):
    """The job's row can't be understood, so it can't be run."""


class JobDisabled(DalgaError):
    """The job is disabled, so it can't be run."""


class JobOver(DalgaError):
    """The job's until is past, so there is no new run of it."""


class StoreUnavailable(DalgaError):
    """The database can't be reached or did not answer in time; the same call may do later."""


class ConfigError(DalgaError):
    """The configuration can't be used as it is."""


class StartupError(DalgaError):
    """The daemon can't start: no table, no access, no port."""


class TableExists(DalgaError):
    """The table that was to be created is there already, and is ours."""
