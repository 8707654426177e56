"""
A run of a job, what its POST came to, and what becomes of the job: outcome -> verdict. Pure.

All three are one value, the `End`. `judge` makes it, or the scheduler for a run that is not POSTed;
the log's line and the record are made from it.

Instants are aware UTC datetimes and come in as arguments; "now" is always the database's. Nothing
is POSTed or written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from functools import cache
from http import HTTPStatus
from random import Random
from typing import NamedTuple

from dalga.model.answers import FAILURES, Answers, Meaning
from dalga.model.attempt import ErrorKind, Saved
from dalga.model.delivery import PLAIN, Delivery
from dalga.model.grid import Grid, offset_of
from dalga.model.key import JobKey
from dalga.model.lateness import first_in_time, is_too_late, next_time, within
from dalga.model.options import OnEnd, OnFailure, Options
from dalga.model.retry import RetryPolicy
from dalga.model.schedule import Calendar, Every, Once, Schedule, add

#: To look up a member of an enum takes a call of Python, and each run would do so.
_SUCCEED, _RETRY, _REMOVE, _DISABLE = (
    Meaning.SUCCEED,
    Meaning.RETRY,
    Meaning.REMOVE,
    Meaning.DISABLE,
)

#: A lease is this much (seconds) longer than a POST's time-out. The POST's start and the record of
#: its outcome have to fit in. The jobs of an instance that dies wait this much longer, too.
LEASE_MARGIN = 10.0


def lease_of(timeout: float) -> timedelta:
    """
    How long a claim of a run holds (P3).

    :param timeout: how long the run's POST takes at most, in seconds.
    """
    return timedelta(seconds=timeout + LEASE_MARGIN)


class Cause(IntEnum):
    """Why there is a run. The tables have the numbers."""

    #: Its time was there.
    SCHEDULE = 0
    #: A user triggered the job.
    MANUAL = 1
    #: A user had another run repeated.
    REPLAY = 2
    #: It began after its job's next time had come as well, so it stands for several times (P9). The
    #: jobs table has SCHEDULE for such a run; its record has this.
    LATE = 3

    @property
    def word(self) -> str:
        """What the record of a run shows."""
        return self.name.lower()


class Run(NamedTuple):
    """
    One due occurrence of a job, claimed by this instance under a lease.

    (A frozen dataclass sets each field by a call: a fifth of all that a claim does for a row.)
    """

    row: int
    token: bytes
    key: JobKey
    schedule: Schedule
    options: Options
    anchor: datetime
    #: The same on every attempt, as is `id`.
    scheduled: datetime
    #: Since when the row could be claimed.
    due: datetime
    #: Whether it was asked for while the run before was under way, so that it had to wait.
    waited: bool
    id: str
    attempt: int
    #: When its first attempt was claimed.
    started: datetime
    #: How many runs of the job succeeded before this one.
    successes: int
    #: When it was claimed, by the database's clock.
    claimed: datetime
    #: When the lease ends, in seconds of the steady clock (see `dalga.store.clock`).
    lease_ends: float
    #: The body of its POST.
    payload: bytes
    #: How long its POST may take in all, in seconds: connect, headers and body.
    timeout: float
    #: What else its request is made of. `payload` is that of the delivery, or else the job's body.
    delivery: Delivery = PLAIN
    #: The version of the job's definition that it was claimed with (`Job.version`).
    version: int = 0
    #: Why there is this run: any but LATE.
    cause: Cause = Cause.SCHEDULE

    @property
    def late_since(self) -> datetime:
        """
        From when its lateness is counted. A run that a user asked for is not late by its scheduled
        time, which may be that of another run.
        """
        if self.waited:
            return self.due
        if self.cause:
            # A run that was begun is due from its retry's time on.
            return self.due if self.attempt == 1 else self.started
        return self.scheduled

    @property
    def grid(self) -> Grid:
        """The job's times."""
        return Grid(self.schedule, self.options, self.anchor, self.offset)

    @property
    def offset(self) -> timedelta:
        """See `offset_of`."""
        return offset_of(self.key, self.options)


class Outcome(NamedTuple):
    """What one POST came to."""

    #: The HTTP status, or None where there was no answer.
    status: int | None
    #: From the start of the POST until its end, in seconds.
    elapsed: float
    #: Why there was no answer; empty where there was one.
    error: str = ""
    #: The answer's Retry-After: a delay, or an instant (RFC 9110 section 10.2.3).
    retry_after: timedelta | datetime | None = None
    #: What the answer means by its own word, its Dalga-Verdict; None if its status says it.
    meaning: Meaning | None = None
    #: The answer's Dalga-Next-Run: a delay, or an instant (aware, UTC).
    next_run: timedelta | datetime | None = None
    #: Why there was no answer; None where there was one.
    kind: ErrorKind | None = None
    #: What is kept of the answer; None for most.
    saved: Saved | None = None


def reason(outcome: Outcome, meaning: Meaning) -> str:
    """What happened, in a few words."""
    if outcome.status is None:
        return outcome.error
    return _words(outcome.status, meaning, outcome.meaning is not None)


@cache
def _words(status: int, meaning: Meaning, is_by_header: bool) -> str:
    """
    A status of three digits with its phrase, if it has one. A person who reads of a 2xx does not
    expect a failure.

    :param is_by_header: whether the answer says by a header what it means.
    """
    try:
        words = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        words = str(status)
    if is_by_header:
        return f"{words}, with Dalga-Verdict: {meaning}"
    is_odd = meaning in FAILURES and 200 <= status <= 299
    return f"{words}, which is no success here: see success" if is_odd else words


class Reschedule(NamedTuple):
    """This run is over; the next is scheduled for `scheduled`."""

    scheduled: datetime
    anchor: datetime
    #: Why this run was given up; None where it succeeded.
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """This run was too late to begin; the next is scheduled for `scheduled`."""

    scheduled: datetime


class Retry(NamedTuple):
    """This run is to be attempted again at `due`."""

    due: datetime
    error: str


@dataclass(frozen=True, slots=True)
class GiveBack:
    """This run was claimed, but not begun: anybody may have it."""

    #: Not before this time; None for at once, as before the claim.
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """This run was given up, and the job has no other until somebody says so."""

    error: str


@dataclass(frozen=True, slots=True)
class Delete:
    """This job has no more runs."""


@dataclass(frozen=True, slots=True)
class Finish:
    """This job has no more runs, and stays as done (`OnEnd.KEEP`)."""


@dataclass(frozen=True, slots=True)
class Disable:
    """This run is over, and the job is disabled. Once it is enabled, it runs at `scheduled`."""

    scheduled: datetime
    anchor: datetime
    #: The answer that says so.
    words: str


Verdict = Reschedule | Skip | Retry | GiveBack | Stop | Delete | Finish | Disable


class Following(NamedTuple):
    """A next run."""

    scheduled: datetime
    anchor: datetime


class OffGrid(NamedTuple):
    """
    The next run where the configuration has intervals counted from the end of the run before, or
    varied: it is none of the grid's times, and is the same whatever the job's options are.
    """

    #: None where it would be after the year 9999.
    at: datetime | None
    anchor: datetime


class End(NamedTuple):
    """How a claim of a run ended."""

    run: Run
    #: None where nothing was POSTed: the run was too late to begin, or is given back.
    outcome: Outcome | None
    verdict: Verdict
    #: What the outcome means for the run; None where nothing was POSTed.
    meaning: Meaning | None = None
    #: For the case that the user has changed the job's options meanwhile (see `revised`).
    off_grid: OffGrid | None = None
    #: When the attempt ended, by the database's clock as this instance reckons it (aware, UTC);
    #: None where nothing was POSTed.
    ended: datetime | None = None

    @property
    def error_kind(self) -> ErrorKind | None:
        """Why the attempt failed; None if it did not fail, or nothing was POSTed."""
        if self.outcome is None:
            return None
        if self.outcome.status is None:
            return self.outcome.kind or ErrorKind.INTERNAL
        return ErrorKind.STATUS if self.meaning in FAILURES else None

    @property
    def due(self) -> datetime | None:
        """When the row is due once this is written: past for a run that is given back."""
        match self.verdict:
            case Reschedule(scheduled) | Skip(scheduled):
                return scheduled
            case Retry(due):
                return due
            case GiveBack(until):
                return until or self.run.claimed
            case Stop() | Delete() | Finish() | Disable():
                return None


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """What the configuration says about all jobs."""

    retry: RetryPolicy = RetryPolicy()
    #: 0 to keep to the grid; f to draw each interval from [1-f, 1+f] times the job's.
    randomization_factor: float = 0.0
    #: Whether intervals are counted from the anchor, or else from the end of the run before.
    fixed_intervals: bool = True
    #: What the answers of the default endpoint mean.
    answers: Answers = Answers()
    #: What the answers of the other endpoints mean, by their names.
    named_answers: Mapping[str, Answers] = field(default_factory=dict)

    def variation(self, random: Random) -> float:
        """By what an interval of elapsed time is multiplied, where intervals are varied."""
        factor = self.randomization_factor
        # Nobody gains by guessing when a run comes.
        return random.uniform(1 - factor, 1 + factor) if factor else 1.0  # nosec B311


def judge(run: Run, outcome: Outcome, now: datetime, policy: RunPolicy, random: Random) -> End:
    """
    The end of one attempt of a run.

    A status means what it meant to the job when the run was claimed, though a user may have changed
    the job's sets of statuses since.
    """
    status, meaning = outcome.status, outcome.meaning
    if meaning is None:
        meaning = _RETRY
        if status is not None:
            answers = policy.named_answers.get(run.options.endpoint, policy.answers)
            meaning = answers.meaning(status, run.options)
    if meaning is _RETRY:
        retry_after = outcome.retry_after
        if isinstance(retry_after, datetime):
            retry_after = retry_after - now
        retry = policy.retry
        if run.delivery is not PLAIN:
            retry = run.delivery.retry.over(retry)
        due = add(now, retry.delay(run.attempt, random, retry_after)) or now
        if not retry.gives_up(run.started, due, run.attempt):
            again = Retry(due, reason(outcome, meaning))
            return End(run, outcome, again, meaning, ended=now)
    # Of a job that is gone, too: if a user has changed it during the run, it stays (`revised`).
    off_grid = _off_grid(run, now, policy, random)
    verdict = _verdict(run, outcome, meaning, off_grid, now)
    return End(run, outcome, verdict, meaning, off_grid, now)


def _verdict(
    run: Run, outcome: Outcome, meaning: Meaning, off_grid: OffGrid | None, now: datetime
) -> Verdict:
    """
    What becomes of a job whose run is over: it is done, or given up.

    :param meaning: RETRY for a run whose retries are over.
    """
    if meaning is _REMOVE:
        return Delete()
    following = _following(run, outcome, off_grid, now)
    if meaning is _DISABLE:
        words = reason(outcome, meaning)
        if isinstance(run.schedule, Once):
            return Disable(run.scheduled, run.anchor, words)
        return _over(run.options) if following is None else Disable(*following, words)
    if meaning is _SUCCEED:
        count = run.options.count
        if following is None or (count is not None and run.successes + 1 >= count):
            return _over(run.options)
        return Reschedule(*following)
    if following is None or run.options.on_failure is OnFailure.STOP:
        return Stop(reason(outcome, meaning))
    return Reschedule(*following, reason(outcome, meaning))


def _over(options: Options) -> Delete | Finish:
    """What becomes of a job that has no more runs, unless the endpoint says that it is gone."""
    return Finish() if options.on_end is OnEnd.KEEP else Delete()


def revised(end: End, options: Options, now: datetime) -> End:
    """
    An end where the user has changed the job during the run (P4): by the job's present options. If
    the answer has the job removed, the job stays all the same, unless it has no more runs.

    A run that was skipped, or is tried again, stays so.

    :param end: by the options that the run was claimed with.
    :param options: the present ones, also if the user has changed something else; the schedule is
        the same.
    """
    return end._replace(verdict=_revised(end, options, now))


def _revised(end: End, options: Options, now: datetime) -> Verdict:
    run, outcome = end.run._replace(options=options), end.outcome
    if end.meaning is _DISABLE and outcome is not None:
        return _verdict(run, outcome, end.meaning, end.off_grid, now)
    following = _following(run, outcome, end.off_grid, now)
    more = options.count is None or end.run.successes + 1 < options.count
    match end.verdict:
        case Delete() | Finish() if following is not None and end.outcome is None:
            return Skip(following.scheduled)
        case Delete() | Finish() if following is not None and more:
            return Reschedule(*following)
        case Delete() | Finish() if end.meaning is not _REMOVE:
            return _over(options)
        case Reschedule(scheduled, _, None) if not more or within(options, scheduled) is None:
            return _over(options)
        case Reschedule(scheduled, _, str(error)) if (
            options.on_failure is OnFailure.STOP or within(options, scheduled) is None
        ):
            return Stop(error)
        case Stop(error) if options.on_failure is OnFailure.CONTINUE and following is not None:
            return Reschedule(*following, error)
        case Skip(scheduled) if within(options, scheduled) is None:
            return _over(options)
    return end.verdict


def missed(run: Run) -> Skip | Delete | Finish | None:
    """
    What becomes of a run that is claimed too late to begin; None where it is to be POSTed.

    A run that has begun is never too late: it is tried again until it is done or given up. One that
    was asked for during a run is no later than it had to be.
    """
    if run.attempt > 1 or not is_too_late(run.options, run.late_since, run.claimed):
        return None
    following = first_in_time(run.grid, run.scheduled, run.claimed)
    at = within(run.options, following)
    return _over(run.options) if at is None else Skip(at)


def _following(
    run: Run, outcome: Outcome | None, off_grid: OffGrid | None, now: datetime
) -> Following | None:
    """
    The next run by the run's options; None where there is none. A time that the answer gives is in
    place of the next one, once: the anchor is as without it, and so are all later times.
    """
    if isinstance(run.schedule, Once):
        return None
    if outcome is not None and outcome.next_run is not None:
        asked = outcome.next_run
        time = max(asked, now) if isinstance(asked, datetime) else add(now, asked)
        at = within(run.options, time)
        anchor = run.anchor if off_grid is None else off_grid.anchor
    elif off_grid is None:
        at, anchor = within(run.options, next_time(run.grid, run.scheduled, now)), run.anchor
    else:
        at, anchor = within(run.options, off_grid.at), off_grid.anchor
    return None if at is None else Following(at, anchor)


def _off_grid(run: Run, now: datetime, policy: RunPolicy, random: Random) -> OffGrid | None:
    """See `OffGrid`; None where the next run is one of the grid's times."""
    schedule = run.schedule
    if policy.randomization_factor and isinstance(schedule, Every):
        varied = schedule.interval * policy.variation(random)
        drawn = add(run.claimed if policy.fixed_intervals else now, varied)
        return OffGrid(drawn, run.anchor if drawn is None else drawn - run.offset)
    if not policy.fixed_intervals and isinstance(schedule, Every | Calendar):
        # The offset is in the run's time already, so it is not added with each run. A run that was
        # asked for (`scheduled` is the anchor) came at once, without the offset.
        anchor = now if run.scheduled == run.anchor else now - run.offset
        if isinstance(schedule, Calendar):
            anchor = max(anchor, run.options.first_run or anchor)
        found = run.grid._replace(anchor=anchor).next_after(now)
        return OffGrid(found and found.at, anchor)
    return None
