"""
What a job is, how a request becomes its first run, and what an outcome makes of it.

Pure: instants are aware UTC datetimes and come in as arguments; "now" is always the database's.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from http import HTTPStatus
from random import Random
from urllib.parse import quote

from dalga.errors import InvalidRequest
from dalga.model.duration import Duration
from dalga.model.retry import RetryPolicy
from dalga.model.schedule import (
    YEARS_AHEAD,
    Calendar,
    Cron,
    Every,
    Once,
    Schedule,
    add,
    periodic,
    timestamp,
)
from dalga.model.zone import Gap, Occurrence, Overlap, Zone

#: The longest path and body, in characters.
MAX_KEY_LENGTH = 255

#: How late a run may begin where catch-up is skip and nothing else was said.
SKIP_LATENESS = timedelta(seconds=60)

#: Runs that are counted ahead at most, to see when a job with a count will be done.
MAX_COUNTED = 1000

#: The shortest interval of a periodic job.
MIN_INTERVAL = timedelta(seconds=1)

_INSTANT = timedelta(microseconds=1)
_BEGINNING = datetime.min.replace(tzinfo=UTC)

_UNRESERVED = re.compile(r"[A-Za-z0-9._~/-]*")


@dataclass(frozen=True, slots=True, order=True)
class JobKey:
    """A job's identity: the path that is POSTed to and the body that is POSTed, as exact text."""

    path: str
    body: str

    def __str__(self) -> str:
        return f"{self.path!r} {self.body!r}"


class CatchUp(StrEnum):
    """What is done about times that went by while nobody could run the job."""

    #: One late run stands for all of them.
    ONE = "one"
    #: None is run.
    SKIP = "skip"
    #: Each is run, one after the other.
    ALL = "all"


class OnFailure(StrEnum):
    """What a periodic job does after a run that was given up."""

    CONTINUE = "continue"
    STOP = "stop"


class IfExists(StrEnum):
    """What a PUT does where the job is there already."""

    #: It is scheduled as if it were new.
    RESCHEDULE = "reschedule"
    #: Where its schedule is the same it keeps its next run and its state, and gets what else was
    #: asked for; else it is rescheduled. A disabled job stays disabled.
    UPDATE = "update"
    #: It stays as it is.
    KEEP = "keep"


class Failed(IntEnum):
    """Whether the last run was given up."""

    NO = 0
    #: It was, and the job went on to its next run.
    CONTINUED = 1
    #: It was, and the job waits for somebody to trigger or schedule it.
    STOPPED = 2


@dataclass(frozen=True, slots=True)
class Options:
    """What else was asked for when a job was scheduled; the defaults are what holds otherwise."""

    #: No run is scheduled for a later time (aware, UTC).
    until: datetime | None = None
    #: After so many successful runs the job is removed.
    count: int | None = None
    catch_up: CatchUp = CatchUp.ONE
    #: A run that would begin later than this after its time is skipped.
    max_lateness: timedelta | None = None
    on_failure: OnFailure = OnFailure.CONTINUE
    #: The schedule's times begin here (aware, UTC).
    first_run: datetime | None = None
    #: Each run comes later than its schedule's time by less than this; see `offset_of`.
    jitter: timedelta | None = None
    #: Of a one-off job: how long after its PUT it was to run.
    delay: Duration | None = None

    @property
    def lateness(self) -> timedelta | None:
        """How late a run may begin; None for as late as it may be."""
        if self.max_lateness is None and self.catch_up is CatchUp.SKIP:
            return SKIP_LATENESS
        return self.max_lateness


def offset_of(key: JobKey, options: Options) -> timedelta:
    """
    By how much a job's runs come later than its schedule's times: less than its jitter, to the
    microsecond, and the same each time, in each instance and after each PUT.

    It is that part of the jitter which the first 64 bits of the key's SHA-256 are of 2^64, so that
    jobs are spread evenly. The NUL keeps ("a", "bc") and ("ab", "c") apart; no path has one.
    """
    if options.jitter is None:
        return timedelta()
    digest = hashlib.sha256(f"{key.path}\0{key.body}".encode()).digest()
    return (options.jitter // _INSTANT * int.from_bytes(digest[:8]) >> 64) * _INSTANT


@dataclass(frozen=True, slots=True)
class Grid:
    """
    The times of a job: those of its schedule, from its first-run on, each later by `offset`.

    So they keep their order and their distances, there is one for each of the schedule's, and an
    offset that is longer than an interval does no harm. A schedule never hears of the offset: it is
    asked for what comes after an earlier time.
    """

    schedule: Schedule
    options: Options
    #: The time that intervals are counted from.
    anchor: datetime
    offset: timedelta = timedelta()

    def next_after(self, after: datetime) -> Occurrence | None:
        """The first time that is later than `after`; None where there is none."""
        found = self._regular(add(after, -self.offset) or _BEGINNING)
        at = found and add(found.at, self.offset)
        return Occurrence(at, found.dst) if found and at else None

    def _regular(self, after: datetime) -> Occurrence | None:
        """
        The same of the schedule's own times.

        A run that was asked for ahead of `first_run` does not make the times begin earlier. For
        elapsed time it does: that is counted from it.
        """
        begin = self.options.first_run
        if begin is None or begin <= after or not isinstance(self.schedule, Calendar | Cron):
            return self.schedule.next_after(self.anchor, after)
        if isinstance(self.schedule, Calendar):
            return Occurrence(begin)
        return self.schedule.next_after(begin, begin - _INSTANT)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands in the table."""

    key: JobKey
    schedule: Schedule
    options: Options
    #: What intervals are counted from.
    anchor: datetime
    #: The time for which the run that is pending, or running, is scheduled.
    scheduled: datetime
    #: When the row may next be taken: the scheduled time, a retry's time, or the end of the lease
    #: of the run that is under way. None where the job is disabled or has stopped.
    due: datetime | None
    #: How often the pending run has been POSTed, or was about to be.
    attempts: int = 0
    #: Whether a run is under way.
    running: bool = False
    #: What the last attempt came to: of the pending run, or of one that was given up.
    error: str | None = None
    #: How many runs succeeded since the job was scheduled.
    successes: int = 0
    #: How many runs were skipped as too late since then.
    skipped: int = 0
    failed: Failed = Failed.NO
    disabled: bool = False
    #: Whether the pending run was asked for while the one before was under way.
    waited: bool = False

    @property
    def next_run(self) -> datetime | None:
        """When the job is next POSTed, or was, if that POST is under way; None if it won't be."""
        if self.disabled:
            return None
        return self.scheduled if self.running else self.due

    def upcoming(self, after: datetime, now: datetime) -> Iterator[Occurrence]:
        """
        The times of the runs after `after`, as they are if all goes well from now on.

        The pending run comes at its scheduled time. A job that is disabled or has stopped has none.

        :raises InvalidRequest: see `Plan.times`.
        """
        if self.next_run is None:
            return iter(())
        offset = offset_of(self.key, self.options)
        plan = Plan(self.schedule, self.options, self.anchor, self.scheduled, offset)
        since = self.due if self.waited else self.scheduled
        return plan.times(after, now, self.successes, since=now if self.attempts else since)


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

    @property
    def late_since(self) -> datetime:
        """From when its lateness is counted."""
        return self.due if self.waited else self.scheduled

    @property
    def grid(self) -> Grid:
        """The job's times."""
        return Grid(self.schedule, self.options, self.anchor, self.offset)

    @property
    def offset(self) -> timedelta:
        """See `offset_of`."""
        return offset_of(self.key, self.options)


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
    anchor: datetime
    #: Why this run was given up; None where it succeeded.
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """This run was too late to begin; the next is scheduled for `scheduled`."""

    scheduled: datetime


@dataclass(frozen=True, slots=True)
class Retry:
    """This run is to be attempted again at `due`."""

    due: datetime
    error: str


@dataclass(frozen=True, slots=True)
class Release:
    """This run was claimed, but not begun: anybody may have it."""


@dataclass(frozen=True, slots=True)
class Stop:
    """This run was given up, and the job has no other until somebody says so."""

    error: str


@dataclass(frozen=True, slots=True)
class Delete:
    """This job has no more runs."""


Verdict = Reschedule | Skip | Retry | Release | Stop | Delete


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """What the configuration says about all jobs."""

    retry: RetryPolicy = RetryPolicy()
    #: 0 to keep to the grid; f to draw each interval from [1-f, 1+f] times the job's.
    randomization_factor: float = 0.0
    #: Whether intervals are counted from the anchor, or else from the end of the run before.
    fixed_intervals: bool = True

    def variation(self, random: Random) -> float:
        """By what an interval of elapsed time is multiplied, where intervals are varied."""
        factor = self.randomization_factor
        return random.uniform(1 - factor, 1 + factor) if factor else 1.0


def judge(run: Run, outcome: Outcome, now: datetime, policy: RunPolicy, random: Random) -> Verdict:
    """What becomes of a job after one attempt of a run."""
    if outcome.gone:
        return Delete()
    if outcome.done:
        count = run.options.count
        following = _following(run, now, policy, random)
        if following is None or (count is not None and run.successes + 1 >= count):
            return Delete()
        return Reschedule(*following)
    retry_after = outcome.retry_after
    if isinstance(retry_after, datetime):
        retry_after = retry_after - now
    due = add(now, policy.retry.delay(run.attempt, random, retry_after)) or now
    if not policy.retry.gives_up(run.started, due):
        return Retry(due, outcome.reason)
    following = _following(run, now, policy, random)
    if following is None or run.options.on_failure is OnFailure.STOP:
        return Stop(outcome.reason)
    return Reschedule(*following, outcome.reason)


def revised(run: Run, verdict: Verdict, options: Options, now: datetime) -> Verdict:
    """
    A verdict by the job's new options, where the user has changed them during the run (P4).

    A run that was skipped, or is tried again, stays so.

    :param verdict: by the options that the run was claimed with.
    :param options: the new ones; the schedule is the same.
    """
    following = _within(options, _next_time(replace(run.grid, options=options), run.scheduled, now))
    more = options.count is None or run.successes + 1 < options.count
    match verdict:
        case Delete() if following is not None and missed(run):
            return Skip(following)
        case Delete() if following is not None and more:
            return Reschedule(following, run.anchor)
        case Reschedule(scheduled, _, None) if not more or _within(options, scheduled) is None:
            return Delete()
        case Reschedule(scheduled, _, str(error)) if (
            options.on_failure is OnFailure.STOP or _within(options, scheduled) is None
        ):
            return Stop(error)
        case Stop(error) if options.on_failure is OnFailure.CONTINUE and following is not None:
            return Reschedule(following, run.anchor, error)
        case Skip(scheduled) if _within(options, scheduled) is None:
            return Delete()
    return verdict


def missed(run: Run) -> Skip | Delete | None:
    """
    What becomes of a run that is claimed too late to begin; None where it is to be POSTed.

    A run that has begun is never too late: it is tried again until it is done or given up. One that
    was asked for during a run is no later than it had to be.
    """
    if run.attempt > 1 or not _is_too_late(run.options, run.late_since, run.claimed):
        return None
    following = _first_in_time(run.grid, run.scheduled, run.claimed)
    at = _within(run.options, following)
    return Delete() if at is None else Skip(at)


def _is_too_late(options: Options, since: datetime, now: datetime) -> bool:
    return options.lateness is not None and now - since > options.lateness


def _first_in_time(grid: Grid, scheduled: datetime, now: datetime) -> Occurrence | None:
    """The first time after one that is too late which is to come, or late but not too late."""
    lateness = grid.options.lateness
    assert lateness is not None
    # No earlier than the year 1, as the one that is too late comes before it.
    return grid.next_after(max(scheduled, now - lateness - _INSTANT))


def _next_time(grid: Grid, scheduled: datetime, now: datetime) -> Occurrence | None:
    """The time after one at which there was a run: the next regular one, unless all are made up."""
    made_up = grid.options.catch_up is CatchUp.ALL
    return grid.next_after(scheduled if made_up else max(scheduled, now))


def _following(
    run: Run, now: datetime, policy: RunPolicy, random: Random
) -> tuple[datetime, datetime] | None:
    """When the next run is scheduled, and its anchor; None where there is none."""
    schedule = run.schedule
    if policy.randomization_factor and isinstance(schedule, Every):
        varied = schedule.interval * policy.variation(random)
        drawn = _within(run.options, add(run.claimed if policy.fixed_intervals else now, varied))
        return None if drawn is None else (drawn, drawn - run.offset)
    if not policy.fixed_intervals and isinstance(schedule, Every | Calendar):
        # The offset is in the run's time already, so it is not added with each run. A run that was
        # asked for (`scheduled` is the anchor) came at once, without the offset.
        anchor = now if run.scheduled == run.anchor else now - run.offset
        if isinstance(schedule, Calendar):
            anchor = max(anchor, run.options.first_run or anchor)
        grid = replace(run.grid, anchor=anchor)
        following = _within(run.options, grid.next_after(now))
        return None if following is None else (following, anchor)
    following = _within(run.options, _next_time(run.grid, run.scheduled, now))
    return None if following is None else (following, run.anchor)


def _within(options: Options, time: Occurrence | datetime | None) -> datetime | None:
    """A run's time, unless it is past the last one that there may be."""
    at = time.at if isinstance(time, Occurrence) else time
    if at is None or (options.until is not None and at > options.until):
        return None
    return at


@dataclass(frozen=True, slots=True)
class ScheduleRequest:
    """What a PUT asks for, parameter by parameter; None where it was not given."""

    interval: Duration | None = None
    cron: str | None = None
    location: str | None = None
    first_run: datetime | None = None
    one_off: bool = False
    immediate: bool = False
    until: datetime | None = None
    count: int | None = None
    catch_up: CatchUp | None = None
    max_lateness: timedelta | None = None
    on_failure: OnFailure | None = None
    jitter: timedelta | None = None
    dst_gap: Gap | None = None
    dst_overlap: Overlap | None = None
    if_exists: IfExists | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request comes to."""

    schedule: Schedule
    options: Options
    anchor: datetime
    first: datetime
    #: See `Grid`; it is in `first` already.
    offset: timedelta = timedelta()

    def times(
        self,
        after: datetime,
        now: datetime,
        successes: int = 0,
        since: datetime | None = None,
    ) -> Iterator[Occurrence]:
        """
        The times of the runs after `after` in order, each once.

        :param now: what is late is late by this.
        :param successes: how many runs there were already, of those that `Options.count` allows.
        :param since: from when the first run's lateness is counted; from its time if not given.
        :raises InvalidRequest: where that takes more than `MAX_COUNTED` steps up to `after`.
        """
        grid = self.grid
        following = self._first()
        if _is_too_late(self.options, since or self.first, now):
            following = _first_in_time(grid, self.first, now)
        left = math.inf
        if self.options.count is None:
            if following is not None and following.at <= after:
                following = _next_time(grid, after, now)
        else:
            left = self.options.count - successes
            for _ in range(MAX_COUNTED):
                if following is None or following.at > after or left <= 0:
                    break
                passed, following = self._pass(following, after, now)
                left -= passed
            else:
                raise InvalidRequest(
                    f"there are more than {MAX_COUNTED} runs up to {timestamp(after)}, too many to "
                    "see how many the job's count leaves: give an earlier time as after"
                )
        while left > 0 and _within(self.options, following) is not None:
            assert following is not None
            yield following
            left -= 1
            following = _next_time(grid, following.at, now)

    @property
    def grid(self) -> Grid:
        """The times after the first run."""
        return Grid(self.schedule, self.options, self.anchor, self.offset)

    def _pass(
        self, time: Occurrence, after: datetime, now: datetime
    ) -> tuple[int, Occurrence | None]:
        """How many runs there are from `time` on up to, at the most, `after`, and the next one."""
        schedule = self.schedule
        following = _next_time(self.grid, time.at, now)
        if not isinstance(schedule, Every) or following is None or following.at > after:
            return 1, following
        # Elapsed time is counted without walking it.
        further = (after - following.at) // schedule.interval + 1
        return 1 + further, self.grid.next_after(after)

    def _first(self) -> Occurrence | None:
        """The first run; it may be one of the schedule's own times, which a clock change chose."""
        before = add(self.first, -_INSTANT)
        own = None if before is None else self.grid.next_after(before)
        return own if own is not None and own.at == self.first else Occurrence(self.first)


def check_request(request: ScheduleRequest) -> None:
    """
    Refuse the combinations that contradict themselves.

    :raises InvalidRequest: with a sentence that names the parameters.
    """
    if request.cron is not None and request.interval is not None:
        raise InvalidRequest(
            "cron and interval both say how often the job runs; give just one of them"
        )
    if request.one_off:
        _check_one_off(request)
    elif request.interval is None and request.cron is None:
        raise InvalidRequest(
            "interval is missing: give the seconds between two runs, a duration such as 5m or P1D, "
            "cron, or one-off=true"
        )
    elif request.interval is not None and not request.interval:
        raise InvalidRequest(
            "interval is 0: a periodic job takes 1 second or more; one-off=true runs it once"
        )
    elif (
        request.interval is not None
        and request.interval.is_exact
        and request.interval.exact < MIN_INTERVAL
    ):
        raise InvalidRequest(
            f"interval is {request.interval.text!r}: a periodic job takes 1 second or more"
        )
    elif request.immediate and request.first_run is not None:
        raise InvalidRequest(
            "immediate and first-run both say when the job first runs; give just one of them"
        )
    if not _goes_by_the_clock(request):
        for name, value in (("dst-gap", request.dst_gap), ("dst-overlap", request.dst_overlap)):
            if value is not None:
                raise InvalidRequest(
                    f"{name} goes with cron or with an interval that has days in it, such as P1D: "
                    f"elapsed time knows no clock changes; leave {name} out"
                )
    if request.until and request.first_run and request.until < request.first_run:
        raise InvalidRequest(
            f"until ({timestamp(request.until)}) is before first-run "
            f"({timestamp(request.first_run)}): the job would never run"
        )


def _check_one_off(request: ScheduleRequest) -> None:
    interval, first_run = request.interval, request.first_run
    for name, value in (
        ("cron", request.cron),
        ("until", request.until),
        ("count", request.count),
        ("catch-up", request.catch_up),
        ("on-failure", request.on_failure),
    ):
        if value is not None:
            raise InvalidRequest(
                f"{name} is for jobs that run more than once; leave {name} or one-off out"
            )
    if request.immediate:
        if request.jitter is not None:
            raise InvalidRequest(
                "jitter puts off a job's times, and one-off and immediate run it once and now; "
                "leave jitter or immediate out"
            )
        if interval is not None or first_run is not None:
            given = "interval" if interval is not None else "first-run"
            raise InvalidRequest(
                f"{given} can't go with one-off and immediate, which run the job once and now; "
                f"leave {given} or immediate out"
            )
    elif interval is not None and first_run is not None:
        raise InvalidRequest(
            "interval and first-run both say when a one-off job runs; give just one of them"
        )
    elif interval is None and first_run is None:
        raise InvalidRequest(
            "a one-off job needs a time: give interval (from now), first-run (RFC 3339) or "
            "immediate=true"
        )


def _goes_by_the_clock(request: ScheduleRequest) -> bool:
    """Whether what a clock on the wall shows has a part in it."""
    interval = request.interval
    return request.cron is not None or (interval is not None and not interval.is_exact)


def plan(
    request: ScheduleRequest, now: datetime, variation: float = 1.0, key: JobKey | None = None
) -> Plan:
    """
    What a request comes to: the schedule, and the time of the first run.

    :param now: the database's time.
    :param key: of the job, if it is known: what its offset within the jitter comes from.
    :param variation: by what the first interval is multiplied, if it is one of elapsed time that
        counts from now. It has no say in what is refused, and the run comes no later than `until`.
    :raises InvalidRequest: where the combination is refused, or there would be no run.
    """
    planned = _draft(request, now, key)
    until, schedule, first = planned.options.until, planned.schedule, planned.first
    if until is not None and until < max(first, now):
        which = f"the first run at {timestamp(first)}" if first > now else "now"
        raise InvalidRequest(
            f"until is {timestamp(until)}, before {which}: the job would never run"
        )
    counts_from_now = request.first_run is None and not request.immediate
    if variation == 1.0 or not counts_from_now or not isinstance(schedule, Every):
        return planned
    varied = add(planned.anchor, schedule.interval * variation + planned.offset) or first
    first = min(varied, until or varied)
    return replace(planned, first=first, anchor=first - planned.offset)


def amended(job: Job, request: ScheduleRequest, now: datetime) -> Plan | None:
    """
    What a PUT with if-exists=update makes of a job that is there: other terms, and the run and the
    anchor that it has.

    :return: None where the schedule is another, so that it is to be planned anew.
    :raises InvalidRequest: as `plan` does; also where `until` is before the run that it has, or
        there were as many as `count` says.
    """
    planned = _draft(request, now, job.key)
    if _timing(job.schedule, job.options) != _timing(planned.schedule, planned.options):
        return None
    until = planned.options.until
    if until is not None and until < job.scheduled:
        raise InvalidRequest(
            f"until is {timestamp(until)}, before the job's next run at {timestamp(job.scheduled)}"
        )
    count, begun = planned.options.count, job.running or job.attempts
    if count is not None and job.successes >= count and not begun:
        raise InvalidRequest(
            f"count is {count}, and the job has had as many runs that succeeded: delete it"
        )
    return replace(planned, anchor=job.anchor, first=job.scheduled)


def _timing(schedule: Schedule, options: Options) -> tuple[object, ...]:
    """
    What makes a schedule the same as another: what was asked for, however it was written, and not
    when. Of elapsed time, no place is a part.
    """
    match schedule:
        case Every(interval):
            times: object = interval
        case Calendar(duration, zone):
            times = _parts(duration), zone
        case Cron(text, zone):
            times = text.upper(), zone
        case Once(zone):
            delay = options.delay
            times = delay and (_parts(delay), delay.is_exact or zone)
    return type(schedule), times, options.first_run, options.jitter


def _parts(duration: Duration) -> tuple[int, int, timedelta]:
    return duration.months, duration.days, duration.exact


def _draft(request: ScheduleRequest, now: datetime, key: JobKey | None) -> Plan:
    """
    A plan without a variation, and whatever its `until` is.

    :raises InvalidRequest: see `plan`.
    """
    check_request(request)
    zone = Zone(request.location or "UTC", request.dst_gap, request.dst_overlap)
    options = Options(
        until=request.until,
        count=request.count,
        catch_up=request.catch_up or CatchUp.ONE,
        max_lateness=request.max_lateness,
        on_failure=request.on_failure or OnFailure.CONTINUE,
        first_run=request.first_run,
        jitter=request.jitter,
        delay=(request.interval or None) if request.one_off else None,
    )
    offset = offset_of(key, options) if key else timedelta()
    schedule, anchor, first = _first_run(request, zone, options, offset, now)
    return Plan(schedule, options, anchor, first, offset)


def _first_run(
    request: ScheduleRequest, zone: Zone, options: Options, offset: timedelta, now: datetime
) -> tuple[Schedule, datetime, datetime]:
    """
    The schedule, its anchor and the first run. An immediate first run has no offset.

    :raises InvalidRequest: where the schedule has no time.
    """
    start = request.first_run or now
    try:
        zone.wall(start)
    except OverflowError:
        what = "the time from which it counts" if request.first_run is None else "first-run"
        raise InvalidRequest(
            f"{what} is {timestamp(start)}, which in {zone.location} is outside the years 1 to "
            "9999; give a time that is not"
        ) from None
    if request.cron is not None:
        cron = Cron(request.cron, zone)
        following = Grid(cron, options, start, offset).next_after(now)
        if following is None:
            raise InvalidRequest(
                f"cron is {request.cron!r}, which names a time that does not come in "
                f"{zone.location} within {YEARS_AHEAD} years"
            )
        return cron, start, now if request.immediate else following.at
    interval = request.interval
    delay = timedelta() if request.immediate else offset
    if interval is None or not interval:
        return Once(zone), start, _put_off(start, delay, "the job's run")
    schedule = _periodic(interval, zone)
    given = request.immediate or request.first_run is not None
    following = schedule.next_after(start, start)
    if following is None:
        which = "second" if given else "first"
        first_run = f" and first-run {timestamp(start)}" if request.first_run else ""
        raise InvalidRequest(
            f"interval is {interval.text!r}{first_run}: the {which} run would be past the year 9999"
        )
    first = _put_off(start if given else following.at, delay, "the first run")
    return (Once(zone) if request.one_off else schedule), start, first


def _put_off(at: datetime, offset: timedelta, which: str) -> datetime:
    """:raises InvalidRequest: past the year 9999."""
    later = add(at, offset)
    if later is None:
        raise InvalidRequest(f"jitter is too long: {which} would be past the year 9999")
    return later


def _periodic(interval: Duration, zone: Zone) -> Every | Calendar:
    try:
        return periodic(interval, zone)
    except ValueError as problem:
        raise InvalidRequest(f"interval is {interval.text!r}, which {problem}") from None


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
    for character in "" if path.isascii() and path.isprintable() else path:
        # Cc is C0, DEL and C1; Zl and Zp are the other two that may end a line.
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise InvalidRequest(
                f"the job's path has the control character U+{ord(character):04X}: leave it out"
            )
    for segment in path.split("/"):
        if segment in (".", ".."):
            raise InvalidRequest(
                f"the job's path has the segment {segment!r}, which "
                + ("would leave the endpoint's base URL" if segment == ".." else "URLs drop")
                + ": leave it out"
            )


def target_path(path: str) -> str:
    """
    A job's path as it is put behind ``baseurl``, starting with exactly one slash (P11).

    Every character but RFC 3986's unreserved ones (section 2.3) is percent-encoded, so nothing in a
    path can be taken for another part of a URL.
    """
    if _UNRESERVED.fullmatch(path):
        return "/" + path.lstrip("/")  # as most are: the same, in a tenth of the time
    return "/" + "/".join(quote(segment, safe="~") for segment in path.lstrip("/").split("/"))
