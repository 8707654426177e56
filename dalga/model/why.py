"""
Why a job is not running now: a code for programs, and a sentence for people. Pure.

An example: a job that waits for its next attempt has the code ``retrying`` and the sentence
``retrying: attempt 4 at 2030-01-31T09:00:05Z, in 5 s; the last one failed: 503 Service
Unavailable``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import NamedTuple

from dalga.model.job import Job, Standing, UnreadableJob
from dalga.model.schedule import timestamp
from dalga.model.state import State, state_of


class Code(StrEnum):
    """Why a job is not running now, for programs."""

    #: Its next run is still to come.
    DUE = "due"
    #: It is running.
    RUNNING = "running"
    DISABLED = "disabled"
    RETRYING = "retrying"
    #: It is due, and all slots that it may have are in use.
    WAITING_FOR_SLOT = "waiting_for_slot"
    #: It is due, and no instance has claimed it yet.
    WAITING_FOR_INSTANCE = "waiting_for_instance"
    #: Its last run was given up, and it waits for a user.
    STOPPED = "stopped"
    DONE = "done"
    PROBLEM = "problem"
    ENDPOINT_NOT_CONFIGURED = "endpoint_not_configured"


class Held(Enum):
    """What the instance that was asked does with the run of a job that it has claimed."""

    #: Its request is under way.
    RUNNING = "running"
    #: It waits for a slot.
    FOR_SLOT = "for slot"
    #: It waits for its path's share of the slots.
    FOR_SHARE = "for share"


class Here(NamedTuple):
    """What the instance that was asked knows of a job and its path, beside the job's row."""

    #: None if this instance has not claimed the job.
    held: Held | None = None
    #: How many runs of the job's path are running here.
    path_running: int = 0
    #: Whether the path may start no other run here at present, as it has its share of the slots.
    path_at_limit: bool = False
    #: How many slots this instance has, and how many of them are free.
    slots: int = 0
    slots_free: int = 0


class Lag(NamedTuple):
    """How far all instances are behind."""

    #: For how long the oldest of all due jobs has been due.
    oldest: timedelta = timedelta(0)
    #: How many instances are alive.
    instances: int = 0


@dataclass(frozen=True, slots=True)
class Why:
    """Why a job is not running now."""

    state: State
    code: Code
    sentence: str


def why(
    job: Job | UnreadableJob, now: datetime, here: Here, lag: Lag, no_endpoint: str | None
) -> Why:
    """
    Why a job is not running now.

    :param now: the database's time (aware, UTC) at which the job was read.
    :param no_endpoint: the sentence on an endpoint that this instance has not; None if it has it.
    """
    state = state_of(job, now)
    if isinstance(job, UnreadableJob):
        return Why(
            state,
            Code.PROBLEM,
            f"problem: its row can't be understood ({job.problem}): PUT the job anew, or delete it",
        )
    code, sentence = _reason(job, state, now, here, lag, no_endpoint)
    return Why(state, code, sentence)


def _reason(
    job: Job, state: State, now: datetime, here: Here, lag: Lag, no_endpoint: str | None
) -> tuple[Code, str]:
    match state:
        case State.DISABLED:
            return Code.DISABLED, _disabled(job)
        case State.RUNNING:
            return _running(job, now, here)
        case State.DONE:
            return Code.DONE, (
                "done: it has no more runs, and is kept (on-end=keep); PUT the job anew to have it "
                "run again"
            )
    if job.due is None:
        return Code.STOPPED, (
            f"stopped after {_attempts(job.attempts)}{_error(job, '; the last one failed')}; "
            "POST to the job to try that run again, or PUT the job anew"
        )
    if no_endpoint is not None:
        return Code.ENDPOINT_NOT_CONFIGURED, (
            f"{no_endpoint}; the job is {_due(job.due, now)}; give this instance that endpoint, or "
            "PATCH the job's endpoint"
        )
    if state is State.WAITING:
        return _waiting(job.due, now, here, lag)
    if state is State.RETRYING:
        return Code.RETRYING, (
            f"retrying: attempt {job.attempts + 1} at {_at(job.due, now)}"
            f"{_error(job, '; the last one failed')}"
        )
    failed = _error(job, "; its last run was given up") if job.standing is Standing.FAILED else ""
    return Code.DUE, _due(job.due, now) + failed


def _disabled(job: Job) -> str:
    noted = job.notes.disabled
    sentence = "disabled"
    if noted is not None:
        sentence += f" since {timestamp(noted.since)}"
        sentence += "" if noted.reason is None else f": {noted.reason}"
    elif job.standing is Standing.SOUND and not job.attempts:
        sentence += _error(job, " by its endpoint")
    return sentence + ("; a run that began before is still under way" if job.running else "")


def _running(job: Job, now: datetime, here: Here) -> tuple[Code, str]:
    assert job.due is not None  # a job without a due time has no lease
    match here.held:
        case Held.RUNNING:
            return Code.RUNNING, f"running: attempt {job.attempts} is under way on this instance"
        case Held.FOR_SHARE:
            return Code.WAITING_FOR_SLOT, (
                "waiting for a slot of its path: its path has its share of this instance's "
                f"{here.slots} slots, with {here.path_running} running"
            )
        case Held.FOR_SLOT:
            return Code.WAITING_FOR_SLOT, (
                f"waiting for a slot: {here.slots - here.slots_free} of this instance's "
                f"{here.slots} are in use"
            )
        case _:
            return Code.RUNNING, (
                f"running: another instance has claimed attempt {job.attempts}, with a lease that "
                f"ends at {_at(job.due, now)}"
            )


def _waiting(due: datetime, now: datetime, here: Here, lag: Lag) -> tuple[Code, str]:
    sentence = _due(due, now)
    if here.path_at_limit:
        return Code.WAITING_FOR_SLOT, (
            f"{sentence}, and waiting for a slot of its path: its path has its share of this "
            f"instance's {here.slots} slots, with {here.path_running} running"
        )
    if here.slots_free <= 0:
        return Code.WAITING_FOR_SLOT, (
            f"{sentence}, and waiting for a slot: all {here.slots} of this instance are in use"
        )
    if lag.oldest > now - due + _TOLERANCE:
        who = "1 instance is" if lag.instances == 1 else f"{lag.instances} instances are"
        return Code.WAITING_FOR_INSTANCE, (
            f"{sentence}, and no instance has claimed it yet: the {who} behind, and take first "
            f"what has been due for longer, for up to {spoken(lag.oldest)}"
        )
    return Code.WAITING_FOR_INSTANCE, f"{sentence}, and no instance has claimed it yet"


#: Jobs that have been due for longer than this job by less than this are not said to come first.
_TOLERANCE = timedelta(seconds=1)


def _due(due: datetime, now: datetime) -> str:
    if due <= now:
        return f"due for {spoken(now - due)}, since {timestamp(due)}"
    return f"due in {spoken(due - now)}, at {timestamp(due)}"


def _at(time: datetime, now: datetime) -> str:
    return f"{timestamp(time)}, in {spoken(time - now)}"


def _error(job: Job, before: str) -> str:
    return "" if job.error is None else f"{before}: {job.error}"


def _attempts(count: int) -> str:
    return _count(count, "attempt")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


#: Seconds, and the word for as many; the largest first.
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def spoken(time: timedelta) -> str:
    """
    A time in its two largest units, rounded down: ``3 min``, ``2 h 5 min``, ``12 d``. Below one
    second in milliseconds.
    """
    seconds = int(time.total_seconds())
    if seconds < 1:
        return f"{max(0, time // timedelta(milliseconds=1))} ms"
    parts = []
    for length, word in _UNITS:
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count} {word}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)
