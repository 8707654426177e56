"""
The record of a run: what is known of it once it has ended, or while it waits for its next attempt.
Pure.

A run has one record, however many attempts it takes, and the record outlives the job. It stands on
a `Shelf`. Each shelf is kept for a time of its own, so that successes never push failures out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from hashlib import blake2b

from dalga.model.answers import Meaning
from dalga.model.attempt import Attempt, ErrorKind
from dalga.model.run import Cause, End, GiveBack, Retry


class HistoryMode(StrEnum):
    """Which runs get a record."""

    ALL = "all"
    #: Those on the shelves FAILED and OPEN.
    FAILURES = "failures"
    OFF = "off"


class Shelf(IntEnum):
    """Where a record stands; the table has the numbers."""

    #: The run has ended, and needs nobody.
    FINE = 0
    #: The run has ended without a success.
    FAILED = 1
    #: The run has failed, and is to be tried again.
    OPEN = 2


class Result(StrEnum):
    """How a run ended. The tables have the codes, so a result keeps its place in this list."""

    SUCCEEDED = "succeeded"
    #: An answer said that the job is gone.
    REMOVED = "removed"
    #: An answer had the job disabled.
    DISABLED = "disabled"
    GIVEN_UP = "given_up"
    #: It was too late to begin.
    SKIPPED = "skipped"
    #: A user scheduled the job anew, or triggered it, while the run waited for another attempt.
    OVERRIDDEN = "overridden"
    #: A user deleted the job while the run waited for another attempt.
    CANCELLED = "cancelled"

    @property
    def code(self) -> int:
        """What stands for it in the tables, from 0."""
        return _CODES[self]

    @property
    def shelf(self) -> Shelf:
        """Where the record of a run with this result stands."""
        return Shelf.FINE if self in FINE else Shelf.FAILED


_RESULTS = tuple(Result)
_CODES = {result: code for code, result in enumerate(_RESULTS)}

_MILLISECOND = timedelta(milliseconds=1)

#: The results of runs that need nobody.
FINE = frozenset({Result.SUCCEEDED, Result.REMOVED, Result.DISABLED})


def path_key(path: str) -> int:
    """63 bits for a path, by which an index finds its records. Others may have the same."""
    return int.from_bytes(blake2b(path.encode(), digest_size=8).digest()) >> 1


def job_key(path: str, body: str) -> int:
    """63 bits for a job, by which an index finds its records. Others may have the same."""
    return int.from_bytes(blake2b(f"{path}\0{body}".encode(), digest_size=8).digest()) >> 1


def result_of(end: End, is_overridden: bool = False) -> Result | None:
    """
    How an end ends its run; None where the run goes on.

    :param is_overridden: whether a user has scheduled the job anew, or triggered or deleted it,
        during the run, so that the run is not tried again.
    """
    if end.meaning is Meaning.SUCCEED:
        return Result.SUCCEEDED
    if isinstance(end.verdict, GiveBack):
        return None
    if end.outcome is None:
        return Result.SKIPPED
    if isinstance(end.verdict, Retry):
        return Result.OVERRIDDEN if is_overridden else None
    if end.meaning is Meaning.REMOVE:
        return Result.REMOVED
    return Result.DISABLED if end.meaning is Meaning.DISABLE else Result.GIVEN_UP


def milliseconds(started: datetime, ended: datetime) -> int:
    """From a start to an end; 0 where the clock was set back between the two."""
    return max(0, round((ended - started) / _MILLISECOND))


def result_of_code(code: object) -> Result | None:
    """
    The result that a code stands for; None for anything that stands for none (P6).

    :param code: as the table has it.
    """
    if isinstance(code, int) and 0 <= code < len(_RESULTS):
        return _RESULTS[code]
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a run. Instants are of the database's clock (aware, UTC)."""

    run_id: str
    path: str
    body: str
    endpoint: str
    trigger: Cause
    scheduled: datetime
    #: When it was claimed first.
    claimed: datetime
    #: When its first POST began; None if there was none, or if that is not known yet.
    started: datetime | None
    #: When its last POST ended; None if there was none, or if the run has not ended.
    ended: datetime | None
    #: How late the first attempt began, in milliseconds; None if that is not known yet.
    lateness_ms: int | None
    #: The instance that made the last attempt; None if that is not known yet.
    instance: str | None
    #: None for a run that has not ended.
    result: Result | None
    #: That of the last answer; None if the last attempt had none.
    status: int | None = None
    #: Of the last attempt, if that failed.
    error_kind: ErrorKind | None = None
    error: str | None = None
    #: How many attempts there were, the one that is under way included.
    attempt_count: int = 1
    #: The first two and the last eight, those that have ended.
    attempts: tuple[Attempt, ...] = ()
    #: Of the last answer, if it is kept: its fields, one a line; and the beginning of its body.
    response_headers: str | None = None
    response_body: str | None = None
    #: The run that this one repeats, by its id.
    replay_of: str | None = None
    #: Whether its request had a part that the record does not keep, such as a payload.
    detailed: bool = False

    @property
    def duration_ms(self) -> int | None:
        """From the start of its first POST to the end of its last one, in milliseconds."""
        if self.started is None or self.ended is None:
            return None
        return milliseconds(self.started, self.ended)
