"""
The exceptions of Dalga: one for each kind of failure that a caller can act on.

The message of an exception is a sentence for a person. It names the mistake, what was given, and
what would do. ``dalga.web.errors`` makes HTTP answers of exceptions. ``dalga.cli`` makes the one
line of them with which a daemon ends that can't start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: How many mistakes of one request are looked for. A body may have as many as it has members.
MOST_MISTAKES = 20

#: How much of what was given is repeated in a sentence, in characters.
SHOWN = 40


def shown(text: str) -> str:
    """`text` as a sentence repeats it: quoted, on one line, cut off after `SHOWN` characters."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


class DalgaError(Exception):
    """The base of the others. Never raised itself."""


class InvalidRequest(DalgaError):
    """
    A request can't be understood, or contradicts itself. The same request will fail again.

    :param message: the sentence on the first mistake.
    :param pointer: a JSON pointer (RFC 6901) to what the sentence is about, such as
        ``/headers/x-a``; relative to the value that is being read, and absolute where the error
        leaves the parameters. None for a mistake of no member.
    :param errors: all mistakes, each with its pointer and its sentence, if there are several.
    """

    def __init__(
        self,
        message: str,
        pointer: str | None = None,
        errors: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.errors = tuple(errors) or (() if pointer is None else ((pointer, message),))

    def within(self, member: str | int) -> InvalidRequest:
        """
        The error of a value that has this one's value as a member.

        :param member: the name of a member of an object, or the place in an array, from 0.
        """
        step = f"/{pointer_step(member)}"
        inner = self.errors or (("", str(self)),)
        return InvalidRequest(
            str(self), errors=[(step + pointer, detail) for pointer, detail in inner]
        )


def pointer_to(name: str) -> str:
    """The JSON pointer to a parameter, whose name has dashes or underlines."""
    return f"/{pointer_step(name.replace('-', '_'))}"


def pointer_step(member: str | int) -> str:
    """A member's name, or its place in an array, as a JSON pointer has it (RFC 6901 section 3)."""
    return str(member).replace("~", "~0").replace("/", "~1")


def all_of(mistakes: Sequence[InvalidRequest]) -> InvalidRequest:
    """One error for several mistakes, the first `MOST_MISTAKES`, with the sentence of the first."""
    errors = [each for mistake in mistakes for each in mistake.errors]
    return InvalidRequest(str(mistakes[0]), errors=errors[:MOST_MISTAKES])


class JobNotFound(DalgaError):
    """There is no job with this path and body."""


class JobSetAside(DalgaError):
    """The job's row can't be understood, so the job can't be run."""


class JobDisabled(DalgaError):
    """The job is disabled, so it can't be run."""


class JobOver(DalgaError):
    """The job is done, or its ``until`` is past, so there is no new run of it."""


class RunNotFound(DalgaError):
    """There is no run with this id, or its record is not kept any more."""


class RunUnderWay(DalgaError):
    """The run has not ended."""


class ReplayImpossible(DalgaError):
    """The request of the run can't be made again."""


class ActionNotFound(DalgaError):
    """There is no action with this id, or it was forgotten."""


class PreconditionFailed(DalgaError):
    """The job that is there is not the one that the request is meant for. Nothing was written."""


class IdempotencyReused(DalgaError):
    """The Idempotency-Key was given with another request before. Nothing was written."""


class Unauthorized(DalgaError):
    """
    There is no valid token with a request.

    :param given: whether there is a token at all.
    """

    def __init__(self, message: str, given: bool) -> None:
        super().__init__(message)
        self.given = given


class Forbidden(DalgaError):
    """
    The caller may not do this.

    :param scope: the scope that this takes.
    """

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class StoreUnavailable(DalgaError):
    """The database can't be reached, or did not answer in time. The same call may succeed later."""


class ConfigError(DalgaError):
    """
    The configuration can't be used as it is.

    :param mistakes: a sentence on each mistake, in the order in which they are to be shown.
    """

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class StartupError(DalgaError):
    """The daemon can't start: a table is missing, a right is lacking, a port is taken."""


class TableExists(DalgaError):
    """The table to be created is there already, and is Dalga's."""
