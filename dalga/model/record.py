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
from typing import NamedTuple
from zlib import crc32

from dalga.model.answers import Meaning
from dalga.model.attempt import Attempt, ErrorKind, kept
from dalga.model.options import CatchUp
from dalga.model.run import (
    Cause,
    Delete,
    End,
    Finish,
    GiveBack,
    Reschedule,
    Retry,
    Run,
    Skip,
    reason,
)
from dalga.model.schedule import Every, Once, add


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
    return _bits(path.encode())


def job_key(path: str, body: str) -> int:
    """63 bits for a job, by which an index finds its records. Others may have the same."""
    return _bits(f"{path}\0{body}".encode())


def _bits(octets: bytes) -> int:
    """
    63 bits of two checksums: of octets, and of the same backwards. That takes a quarter of a
    digest's time, and each record has two keys. Who looks for two names with the same bits finds
    them: lists compare the names as well.
    """
    return crc32(octets) << 31 | crc32(octets[::-1]) >> 1


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


class EndedRun(NamedTuple):
    """
    A run that was ended by no attempt and has no `End`: a user has ended it while it waited for its
    next attempt, or after its instance was lost.
    """

    path: str
    endpoint: str
    result: Result
    #: How many attempts it had.
    attempts: int


#: A run that begins later than this is looked at: does it stand for several of its job's times?
LATE_AFTER = timedelta(seconds=1)


def result_of(end: End, overridden: bool = False, deleted: bool = False) -> Result | None:
    """
    What a run came to; None if it has not ended, or was not begun.

    A run that has come to something by itself has that result, whatever a user did meanwhile. A
    user's change ends a run that would be tried again.

    :param overridden: whether a user has scheduled or triggered the job during the run.
    :param deleted: whether a user has deleted the job during the run.
    """
    by_itself = _OF_MEANINGS.get(end.meaning)
    if by_itself is not None:
        return by_itself
    match end.verdict:
        case GiveBack() if end.run.attempt == 1:
            return None
        case Retry() | GiveBack():
            if deleted:
                return Result.CANCELLED
            return Result.OVERRIDDEN if overridden else None
        case Skip():
            return Result.SKIPPED
        case Delete() | Finish() if end.outcome is None:
            return Result.SKIPPED
        case Reschedule(_, _, None) | Delete() | Finish() if end.meaning is None:
            return Result.SUCCEEDED
    return Result.GIVEN_UP


_OF_MEANINGS: dict[Meaning | None, Result] = {
    Meaning.SUCCEED: Result.SUCCEEDED,
    Meaning.REMOVE: Result.REMOVED,
    Meaning.DISABLE: Result.DISABLED,
}


def cause_of(run: Run, began: datetime) -> Cause:
    """
    Why there was a run, as its record has it: LATE for one that stands for several times (P9).

    :param began: when it began, or was skipped.
    """
    if run.cause is not Cause.SCHEDULE or began - run.late_since <= LATE_AFTER:
        return run.cause
    schedule = run.schedule
    if isinstance(schedule, Once) or run.options.catch_up is CatchUp.ALL:
        return run.cause
    if isinstance(schedule, Every) and run.options.jitter is None:
        # After an outage, each run comes here: the same in a tenth of the time.
        times = (began - run.anchor) // schedule.interval
        is_late = times > (run.scheduled - run.anchor) // schedule.interval
        return Cause.LATE if is_late else run.cause
    following = run.grid.next_after(run.scheduled)
    return Cause.LATE if following is not None and following.at <= began else run.cause


class Earlier(NamedTuple):
    """What is known of the attempts of a run before its last one. As in `Record`."""

    claimed: datetime
    started: datetime | None
    lateness_ms: int
    trigger: Cause
    attempts: tuple[Attempt, ...]


def record_of(
    end: End, result: Result | None, now: datetime, instance: str, earlier: Earlier | None = None
) -> Record:
    """
    The record of a run at the end of one of its attempts, or of a run that was skipped.

    :param result: see `result_of`; None for a run that is to be tried again.
    :param now: the database's time.
    :param instance: that made the attempt.
    :param earlier: None for a first attempt, and where nothing is known of those before.
    """
    run, outcome, delivery = end.run, end.outcome, end.run.delivery
    if outcome is None:
        started = ended = None
        began = run.claimed
    else:
        ended = end.ended or now
        began = started = add(ended, timedelta(seconds=-outcome.elapsed)) or ended
    attempts = () if earlier is None else earlier.attempts
    error = None
    if outcome is not None:
        attempt = Attempt(
            n=run.attempt,
            at=began,
            instance=instance,
            ms=round(outcome.elapsed * 1000),
            status=outcome.status,
            error_kind=end.error_kind,
        )
        attempts = kept((*attempts, attempt))
        if end.error_kind is not None and end.meaning is not None:
            error = reason(outcome, end.meaning)
    if earlier is None and run.attempt > 1 and outcome is not None:
        # Its instance was lost. It began just after its claim.
        began = started = run.started
    if earlier is None:
        lateness_ms = (began - run.late_since) // _MILLISECOND
        earlier = Earlier(run.started, started, lateness_ms, cause_of(run, began), ())
    saved = None if outcome is None else outcome.saved
    return Record(
        run_id=run.id,
        path=run.key.path,
        body=run.key.body,
        endpoint=run.options.endpoint,
        trigger=earlier.trigger,
        scheduled=run.scheduled,
        claimed=earlier.claimed,
        started=earlier.started,
        ended=ended,
        lateness_ms=earlier.lateness_ms,
        instance=instance,
        result=result,
        status=None if outcome is None else outcome.status,
        error_kind=end.error_kind,
        error=error,
        attempt_count=run.attempt if outcome is not None else run.attempt - 1,
        attempts=attempts,
        response_headers=None if saved is None else saved.headers,
        response_body=None if saved is None else saved.text,
        replay_of=delivery.replay_of,
        detailed=delivery.is_detailed,
    )
