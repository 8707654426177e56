"""
The exceptions of Dalga: one for each kind of failure that a caller can act on.

The message of an exception is a sentence for a person. It names the mistake, what was given, and
what would do. ``dalga.web.errors`` makes HTTP answers of exceptions. ``dalga.cli`` makes the one
line of them with which a daemon ends that can't start.
"""

from __future__ import annotations

#: How much of what was given is repeated in a sentence, in characters.
SHOWN = 40


def shown(text: str) -> str:
    """`text` as a sentence repeats it: quoted, on one line, cut off after `SHOWN` characters."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


class DalgaError(Exception):
    """The base of the others. Never raised itself."""


class InvalidRequest(DalgaError):
    """A request can't be understood, or contradicts itself. The same request will fail again."""


class JobNotFound(DalgaError):
    """There is no job with this path and body."""


class JobSetAside(DalgaError):
    """The job's row can't be understood, so the job can't be run."""


class JobDisabled(DalgaError):
    """The job is disabled, so it can't be run."""


class JobOver(DalgaError):
    """The job's ``until`` is past, so there is no new run of it."""


class PreconditionFailed(DalgaError):
    """The job that is there is not the one that the request is meant for. Nothing was written."""


class IdempotencyReused(DalgaError):
    """The Idempotency-Key was given with another request before. Nothing was written."""


class StoreUnavailable(DalgaError):
    """The database can't be reached, or did not answer in time. The same call may succeed later."""


class ConfigError(DalgaError):
    """The configuration can't be used as it is."""


class StartupError(DalgaError):
    """The daemon can't start: a table is missing, a right is lacking, a port is taken."""


class TableExists(DalgaError):
    """The table to be created is there already, and is Dalga's."""
