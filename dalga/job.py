"""
What a job is, how a request becomes its first run, and what an outcome makes of it.

Pure: instants are aware UTC datetimes and come in as arguments; "now" is always the database's.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from random import Random
from urllib.parse import quote

from dalga.errors import InvalidRequest
from dalga.retry import RetryPolicy
from dalga.schedule import Every, Once, Schedule, add

#: The longest path and body, in characters.
MAX_KEY_LENGTH = 255


@dataclass(frozen=True, slots=True, order=True)
class JobKey:
    """A job's identity: the path that is POSTed to and the body that is POSTed, as exact text."""

    path: str
    body: str

    def __str__(self) -> str:
        return f"{self.path!r} {self.body!r}"


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands in the table."""

    key: JobKey
    schedule: Schedule
    #: The time for which the run that is pending, or running, is scheduled.
    scheduled: datetime
    #: When the row may next be taken: the scheduled time, a retry's time, or the end of the lease
    #: of the run that is under way. None where the row has been set aside.
    due: datetime | None
    #: How often the pending run has been POSTed, or was about to be.
    attempts: int = 0
    #: Whether a run is under way.
    running: bool = False
    #: What the last attempt of the pending run came to, or why the row was set aside.
    error: str | None = None

    @property
    def next_run(self) -> datetime | None:
        """When the job is next POSTed, or was, if that POST is under way; None if it won't be."""
        return self.scheduled if self.running else self.due


@dataclass(frozen=True, slots=True)
class UnreadableJob:
    """A row that can't be understood, found in the table where a job was looked for."""

    key: JobKey
    problem: str


@dataclass(frozen=True, slots=True)
class Run:
    """One due occurrence of a job, claimed by this instance under a lease."""

    row: int
    token: bytes
    key: JobKey
    schedule: Schedule
    #: The same on every attempt, as is `id`.
    scheduled: datetime
    id: str
    attempt: int
    #: When it was claimed, by the database's clock.
    claimed: datetime
    #: When the lease ends, in seconds of the steady clock (see `dalga.store.clock`).
    lease_ends: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one POST came to."""

    #: The HTTP status, or None where there was no answer.
    status: int | None
    #: From the start of the POST until its end, in seconds.
    elapsed: float
    #: Why there was no answer; empty where there was one.
    error: str = ""
    #: The answer's Retry-After: a delay, or an instant (RFC 9110 section 10.2.3).
    retry_after: timedelta | datetime | None = None

    @property
    def done(self) -> bool:
        return self.status == HTTPStatus.OK

    @property
    def gone(self) -> bool:
        """The endpoint says that there is no such job (any more)."""
        return self.status == HTTPStatus.NO_CONTENT

    @property
    def reason(self) -> str:
        """What happened, in a few words."""
        if self.status is None:
            return self.error
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return str(self.status)


@dataclass(frozen=True, slots=True)
class Reschedule:
    """This run is over; the next is scheduled for `scheduled`."""

    scheduled: datetime


@dataclass(frozen=True, slots=True)
class Retry:
    """This run is to be attempted again at `due`."""

    due: datetime
    error: str


@dataclass(frozen=True, slots=True)
class Delete:
    """This job has no more runs."""


Verdict = Reschedule | Retry | Delete


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """What the configuration says about all jobs."""

    retry: RetryPolicy = RetryPolicy()
    #: 0 to keep to the grid; f to draw each interval from [1-f, 1+f] times the job's.
    randomization_factor: float = 0.0


def judge(run: Run, outcome: Outcome, now: datetime, policy: RunPolicy, random: Random) -> Verdict:
    """What becomes of a job after one attempt of a run."""
    if outcome.gone:
        return Delete()
    if not outcome.done:
        retry_after = outcome.retry_after
        if isinstance(retry_after, datetime):
            retry_after = retry_after - now
        delay = policy.retry.delay(run.attempt, random, retry_after)
        return Retry(add(now, delay) or now, outcome.reason)
    following = _next_scheduled(run, now, policy.randomization_factor, random)
    return Delete() if following is None else Reschedule(following)


def _next_scheduled(run: Run, now: datetime, factor: float, random: Random) -> datetime | None:
    if factor and isinstance(run.schedule, Every):
        return add(run.claimed, run.schedule.interval * random.uniform(1 - factor, 1 + factor))
    return run.schedule.next_after(run.scheduled, now)


@dataclass(frozen=True, slots=True)
class ScheduleRequest:
    """What a PUT asks for, parameter by parameter; None where it was not given."""

    interval: int | None = None
    first_run: datetime | None = None
    one_off: bool = False
    immediate: bool = False


def check_request(request: ScheduleRequest) -> None:
    """
    Refuse the combinations that contradict themselves.

    :raises InvalidRequest: with a sentence that names the parameters.
    """
    interval, first_run = request.interval, request.first_run
    if request.one_off and request.immediate:
        if interval is not None or first_run is not None:
            given = "interval" if interval is not None else "first-run"
            raise InvalidRequest(
                f"{given} can't go with one-off and immediate, which run the job once and now; "
                f"leave {given} or immediate out"
            )
    elif request.one_off:
        if interval is not None and first_run is not None:
            raise InvalidRequest(
                "interval and first-run both say when a one-off job runs; give just one of them"
            )
        if interval is None and first_run is None:
            raise InvalidRequest(
                "a one-off job needs a time: give interval (seconds from now), "
                "first-run (RFC 3339) or immediate=true"
            )
    elif interval is None:
        raise InvalidRequest(
            "interval is missing: give the seconds between two runs, or one-off=true"
        )
    elif interval == 0:
        raise InvalidRequest(
            "interval is 0: a periodic job takes 1 second or more; one-off=true runs it once"
        )
    elif request.immediate and first_run is not None:
        raise InvalidRequest(
            "immediate and first-run both say when the job first runs; give just one of them"
        )


def plan(request: ScheduleRequest, now: datetime) -> tuple[Schedule, datetime]:
    """
    The schedule that a request asks for, and the time of its first run.

    :param now: the database's time.
    :raises InvalidRequest: where the combination is refused, or the first run would be past the
        year 9999.
    """
    check_request(request)
    interval = timedelta(seconds=request.interval or 0)
    schedule: Schedule = Once() if request.one_off else Every(interval)
    if request.immediate:
        return schedule, now
    first = request.first_run or add(now, interval)
    if first is None:
        raise InvalidRequest(
            f"interval is {request.interval}: the first run would be past the year 9999"
        )
    return schedule, first


def check_length(name: str, text: str) -> None:
    """
    :param name: "path" or "body".
    :raises InvalidRequest: where `text` is empty or too long.
    """
    if not text:
        raise InvalidRequest(f"the job's {name} is empty: give 1 to {MAX_KEY_LENGTH} characters")
    if len(text) > MAX_KEY_LENGTH:
        raise InvalidRequest(
            f"the job's {name} has {len(text)} characters: it takes {MAX_KEY_LENGTH} at most"
        )


def check_path(path: str) -> None:
    """
    Refuse a path that could leave the endpoint's base URL or forge a header (P11).

    :raises InvalidRequest: naming what is in the way.
    """
    for character in path:
        # Cc is C0, DEL and C1; Zl and Zp are the other two that may end a line.
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise InvalidRequest(
                f"the job's path has the control character U+{ord(character):04X}: leave it out"
            )
    for segment in path.split("/"):
        if segment in (".", ".."):
            raise InvalidRequest(
                f"the job's path has the segment {segment!r}, which would leave the endpoint's "
                "base URL: leave it out"
            )


def target_path(path: str) -> str:
    """
    A job's path as it is put behind ``baseurl``, starting with exactly one slash (P11).

    Every character but RFC 3986's unreserved ones (section 2.3) is percent-encoded, so nothing in a
    path can be taken for another part of a URL.
    """
    return "/" + "/".join(quote(segment, safe="~") for segment in path.lstrip("/").split("/"))
