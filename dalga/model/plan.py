"""
A request -> a schedule and the first run -> run times. Pure.

Instants are aware UTC datetimes. "Now" is an argument, and always the database's time. `run` says
what the outcome of a run changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Self

from dalga.errors import InvalidRequest, pointer_to, shown
from dalga.model.agreement import check_delivery, says_what_is_sent
from dalga.model.delivery import (
    AS_CONFIGURED,
    NO_NOTES,
    PLAIN,
    Delivery,
    Method,
    Notes,
    Payload,
    Retry,
)
from dalga.model.duration import Duration
from dalga.model.grid import Grid, offset_of
from dalga.model.job import Job, Standing
from dalga.model.key import JobKey
from dalga.model.lateness import first_in_time, is_too_late, next_time, within
from dalga.model.options import Chosen, IfExists, Options
from dalga.model.reading import EXAMPLE
from dalga.model.schedule import (
    MICROSECOND,
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

#: How many runs of a job with a `count` are counted at most, to see which is its last.
MAX_COUNTED = 1000

#: The shortest interval of a periodic job.
MIN_INTERVAL = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class RawRequest(Chosen):
    """
    The parameters of a PUT, whether or not they go together; None for each that was not given.
    """

    interval: Duration | None = None
    cron: str | None = None
    location: str | None = None
    one_off: bool = False
    immediate: bool = False
    dst_gap: Gap | None = None
    dst_overlap: Overlap | None = None
    if_exists: IfExists | None = None
    payload: Payload | None = None
    payload_base64: Payload | None = None
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] | None = None
    method: Method | None = None
    retry: Retry | None = None
    tags: tuple[str, ...] | None = None
    description: str | None = None
    redact: tuple[str, ...] | None = None

    @property
    def sent(self) -> Payload | None:
        """The payload, in whichever way it is given; None for the job's body."""
        return self.payload or self.payload_base64


#: The values of all attributes of a `RawRequest`, in order.
_values_of = attrgetter(*(field.name for field in fields(RawRequest)))


@dataclass(frozen=True, slots=True)
class ScheduleRequest(RawRequest):
    """
    The parameters of a PUT, which go together.

    :raises InvalidRequest: for parameters that contradict each other, with a sentence that names
        them. So no `ScheduleRequest` has such parameters.
    """

    @classmethod
    def of(cls, raw: RawRequest) -> Self:
        """
        The same parameters, checked.

        :raises InvalidRequest: for parameters that contradict each other.
        """
        return cls(*_values_of(raw))

    def __post_init__(self) -> None:
        _check_request(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """A job that is to be: its schedule, its options, and its first run."""

    schedule: Schedule
    options: Options
    #: The instant that intervals are counted from.
    anchor: datetime
    #: The time of the first run.
    first: datetime
    #: See `Grid`. `first` is later by it already.
    offset: timedelta = timedelta()
    delivery: Delivery = PLAIN
    notes: Notes = NO_NOTES

    def times(
        self,
        after: datetime,
        now: datetime,
        successes: int = 0,
        since: datetime | None = None,
    ) -> Iterator[Occurrence]:
        """
        The times of the runs after `after` in order, each once.

        :param now: the time by which runs are late or not.
        :param successes: how many of the runs that `Options.count` allows there were already.
        :param since: the time from which the first run's lateness is counted; `first` if not given.
        :raises InvalidRequest: if more than `MAX_COUNTED` runs have to be counted up to `after`.
        """
        grid = self.grid
        following = self._first()
        if is_too_late(self.options, since or self.first, now):
            following = first_in_time(grid, self.first, now)
        left = math.inf
        if self.options.count is None:
            if following is not None and following.at <= after:
                following = next_time(grid, after, now)
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
        while left > 0 and within(self.options, following) is not None:
            assert following is not None
            yield following
            left -= 1
            following = next_time(grid, following.at, now)

    @property
    def grid(self) -> Grid:
        """The times after the first run."""
        return Grid(self.schedule, self.options, self.anchor, self.offset)

    def _pass(
        self, time: Occurrence, after: datetime, now: datetime
    ) -> tuple[int, Occurrence | None]:
        """
        Pass over `time`, and with elapsed time over all further times up to `after` as well.

        :return: how many times were passed over, and the time after them.
        """
        schedule = self.schedule
        following = next_time(self.grid, time.at, now)
        if not isinstance(schedule, Every) or following is None or following.at > after:
            return 1, following
        # Elapsed time is counted without walking it.
        further = (after - following.at) // schedule.interval + 1
        return 1 + further, self.grid.next_after(after)

    def _first(self) -> Occurrence | None:
        """The first run, with the clock change that chose it if it is one of the grid's times."""
        before = add(self.first, -MICROSECOND)
        own = None if before is None else self.grid.next_after(before)
        return own if own is not None and own.at == self.first else Occurrence(self.first)


def times_of(job: Job, after: datetime, now: datetime) -> Iterator[Occurrence]:
    """
    The times of a job's runs after `after`, if all runs succeed from now on.

    The pending run has its scheduled time. A job that is disabled or has stopped has no times.

    :raises InvalidRequest: see `Plan.times`.
    """
    if job.next_run is None:
        return iter(())
    offset = offset_of(job.key, job.options)
    planned = Plan(job.schedule, job.options, job.anchor, job.scheduled, offset)
    since = job.due if job.waited else job.scheduled
    return planned.times(after, now, job.successes, since=now if job.attempts else since)


def at_place(
    name: str, wall: datetime, zone: Zone, cron: str | None, interval: Duration | None
) -> datetime:
    """
    The instant at which the clock of a job's `location` shows a wall time, by the job's rules for
    clock changes.

    :param name: "first-run" or "until".
    :param wall: the wall time (naive).
    :param zone: the job's location, and the rules that were chosen.
    :param cron: the job's cron expression, if it has one.
    :param interval: the job's interval, if it has one.
    :return: an aware UTC datetime. If the wall time means two instants, first-run is the earlier
        and until the later, so that runs at both are within.
    :raises InvalidRequest: if the wall time means no instant.
    """
    what = f"{name} is {wall.isoformat()!r}"
    if cron is not None:
        zone = Cron(cron, zone).clock
    try:
        change = zone.change(wall)
        if change is not None and change.is_gap:
            if name == "first-run" and interval is not None and not interval.is_exact:
                raise InvalidRequest(
                    f"{what}, which the clocks of {zone.location} leave out as they are set "
                    "forward: give a time that they show on that day",
                    pointer_to(name),
                )
            # A skipped time has no run, so the end is just before the clock change.
            is_behind = name == "until" and zone.gap is Gap.SKIP
            return change.at - MICROSECOND if is_behind else change.at
        times = zone.instants(wall)
    except OverflowError:
        times = []
    if not times:
        raise InvalidRequest(
            f"{what}: it takes a time in the years 1 to 9999 UTC", pointer_to(name)
        )
    return times[0].at if name == "first-run" else times[-1].at


def placed(request: RawRequest) -> RawRequest:
    """
    A request whose `first_run` and `until` are instants. Where one is a wall time (naive), it is
    one of the clock of the request's location.

    :raises InvalidRequest: for a wall time that means no instant, and where there is no location.
    """
    found: dict[str, Any] = {}
    for name, moment in (("first-run", request.first_run), ("until", request.until)):
        if moment is None or moment.tzinfo is not None:
            continue
        if request.location is None:
            raise InvalidRequest(
                f"{name} is {shown(moment.isoformat())}: the zone is missing, such as the Z in "
                f"{EXAMPLE}; or give location, such as Europe/Istanbul, for the clock of a place",
                pointer_to(name),
            )
        zone = Zone(request.location, request.dst_gap, request.dst_overlap)
        instant = at_place(name, moment, zone, request.cron, request.interval)
        found[name.replace("-", "_")] = instant
    return replace(request, **found) if found else request


def _check_request(request: ScheduleRequest) -> None:
    """:raises InvalidRequest: for parameters that contradict each other."""
    if request.cron is not None and request.interval is not None:
        raise InvalidRequest(
            "cron and interval both say how often the job runs; give just one of them",
            "/cron",
        )
    if request.one_off:
        _check_one_off(request)
    elif request.interval is None and request.cron is None:
        raise InvalidRequest(
            "interval is missing: give the seconds between two runs, a duration such as 5m or P1D, "
            "cron, or one-off=true",
            "",
        )
    elif request.interval is not None and not request.interval:
        raise InvalidRequest(
            "interval is 0: a periodic job takes 1 second or more; one-off=true runs it once, now",
            "/interval",
        )
    elif (
        request.interval is not None
        and request.interval.is_exact
        and request.interval.exact < MIN_INTERVAL
    ):
        raise InvalidRequest(
            f"interval is {request.interval.text!r}: a periodic job takes 1 second or more",
            "/interval",
        )
    elif request.immediate and request.first_run is not None:
        raise InvalidRequest(
            "immediate and first-run both say when the job first runs; give just one of them",
            "/immediate",
        )
    if not _goes_by_the_clock(request):
        for name, value in (("dst-gap", request.dst_gap), ("dst-overlap", request.dst_overlap)):
            if value is not None:
                raise InvalidRequest(
                    f"{name} goes with cron or with an interval that has days in it, such as P1D: "
                    f"elapsed time knows no clock changes; leave {name} out",
                    pointer_to(name),
                )
    if request.until and request.first_run and request.until < request.first_run:
        raise InvalidRequest(
            f"until ({timestamp(request.until)}) is before first-run "
            f"({timestamp(request.first_run)}): the job would never run",
            "/until",
        )
    check_delivery(request)


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
                f"{name} is for jobs that run more than once; leave {name} or one-off out",
                pointer_to(name),
            )
    if request.immediate:
        if request.jitter is not None:
            raise InvalidRequest(
                "jitter puts off a job's times, and one-off and immediate run it once and now; "
                "leave jitter or immediate out",
                "/jitter",
            )
        if interval is not None or first_run is not None:
            given = "interval" if interval is not None else "first-run"
            raise InvalidRequest(
                f"{given} can't go with one-off and immediate, which run the job once and now; "
                f"leave {given} or immediate out",
                pointer_to(given),
            )
    elif interval is not None and first_run is not None:
        raise InvalidRequest(
            "interval and first-run both say when a one-off job runs; give just one of them",
            "/interval",
        )
    elif interval is None and first_run is None:
        raise InvalidRequest(
            "a one-off job needs a time: give interval (from now), first-run (RFC 3339) or "
            "immediate=true",
            "",
        )


def _goes_by_the_clock(request: ScheduleRequest) -> bool:
    """Whether the times of the job depend on what a clock shows."""
    interval = request.interval
    return request.cron is not None or (interval is not None and not interval.is_exact)


def plan(
    request: ScheduleRequest, now: datetime, variation: float = 1.0, key: JobKey | None = None
) -> Plan:
    """
    The schedule, the options and the first run that a request asks for.

    :param now: the database's time.
    :param variation: the factor by which the first interval is multiplied, if the interval is
        elapsed time and counts from now. Whether a request is refused does not depend on it, and
        the first run is not later than `until` because of it.
    :param key: the job's key, if it is known. The job's offset within its jitter follows from it.
    :raises InvalidRequest: if there would be no run.
    """
    planned = _draft(request, now, key)
    until, schedule, first = planned.options.until, planned.schedule, planned.first
    if until is not None and until < max(first, now):
        which = f"the first run at {timestamp(first)}" if first > now else "now"
        raise InvalidRequest(
            f"until is {timestamp(until)}, before {which}: the job would never run", "/until"
        )
    counts_from_now = request.first_run is None and not request.immediate
    if variation == 1.0 or not counts_from_now or not isinstance(schedule, Every):
        return planned
    varied = add(planned.anchor, schedule.interval * variation + planned.offset) or first
    first = min(varied, until or varied)
    return replace(planned, first=first, anchor=first - planned.offset)


def amended(job: Job, request: ScheduleRequest, now: datetime) -> Plan | None:
    """
    The plan of a PUT with if-exists=update for a job that is there: the schedule and the options of
    the PUT, the run and the anchor of the job.

    :return: None if the schedule is another one, so that the job is to be planned anew.
    :raises InvalidRequest: as `plan` does, and if the job would have no run any more: `until` is
        before its next run, or it has had as many successful runs as `count` says. A job that is
        done has no run in any case.
    """
    planned = _draft(request, now, job.key)
    if _timing(job.schedule, job.options) != _timing(planned.schedule, planned.options):
        return None
    if job.standing is not Standing.DONE:
        _check_left(job, planned.options)
    return as_it_was(replace(planned, anchor=job.anchor, first=job.scheduled), job)


def _check_left(job: Job, options: Options) -> None:
    """:raises InvalidRequest: if the job's pending run would be none, by these options."""
    until = options.until
    if until is not None and until < job.scheduled:
        raise InvalidRequest(
            f"until is {timestamp(until)}, before the job's next run at {timestamp(job.scheduled)}",
            "/until",
        )
    count, begun = options.count, job.running or job.attempts
    if count is not None and job.successes >= count and not begun:
        raise InvalidRequest(
            f"count is {count}, and the job has had as many runs that succeeded: delete it",
            "/count",
        )


def as_it_was(planned: Plan, job: Job) -> Plan:
    """
    The plan of a job that stays what no parameter says of it: disabled, with the reason that was
    given for it, and a replay.
    """
    if job.disabled and job.notes.disabled is not None:
        planned = replace(planned, notes=replace(planned.notes, disabled=job.notes.disabled))
    if job.delivery.replay_of is None:
        return planned
    delivery = replace(planned.delivery, replay_of=job.delivery.replay_of)
    return replace(planned, delivery=delivery)


def _timing(schedule: Schedule, options: Options) -> tuple[object, ...]:
    """
    The parts of a schedule by which it is the same as another: the parameters that were given,
    however they were written, and not the time of the PUT. An interval of elapsed time is the same
    in any location.
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
    A plan without a variation, whose `until` is not checked.

    :raises InvalidRequest: see `plan`.
    """
    zone = Zone(request.location or "UTC", request.dst_gap, request.dst_overlap)
    options = Options.of(request, (request.interval or None) if request.one_off else None)
    offset = offset_of(key, options) if key else timedelta()
    schedule, anchor, first = _first_run(request, zone, options, offset, now)
    return Plan(schedule, options, anchor, first, offset, _delivery_of(request), _notes_of(request))


def _delivery_of(request: ScheduleRequest) -> Delivery:
    if not says_what_is_sent(request):
        return PLAIN
    found = Delivery(
        payload=request.sent,
        content_type=request.content_type,
        headers=request.headers or (),
        method=request.method or Method.POST,
        retry=request.retry or AS_CONFIGURED,
        redact=request.redact or (),
    )
    return PLAIN if found == PLAIN else found


def _notes_of(request: ScheduleRequest) -> Notes:
    if request.tags is None and request.description is None:
        return NO_NOTES
    found = Notes(request.tags or (), request.description)
    return NO_NOTES if found == NO_NOTES else found


def _first_run(
    request: ScheduleRequest, zone: Zone, options: Options, offset: timedelta, now: datetime
) -> tuple[Schedule, datetime, datetime]:
    """
    The schedule, its anchor and the first run. An immediate first run has no offset.

    :raises InvalidRequest: if the schedule has no time.
    """
    start = request.first_run or now
    try:
        zone.wall(start)
    except OverflowError:
        what = "the time from which it counts" if request.first_run is None else "first-run"
        raise InvalidRequest(
            f"{what} is {timestamp(start)}, which in {zone.location} is outside the years 1 to "
            "9999; give a time that is not",
            "" if request.first_run is None else "/first_run",
        ) from None
    if request.cron is not None:
        cron = Cron(request.cron, zone)
        following = Grid(cron, options, start, offset).next_after(now)
        if following is None:
            raise InvalidRequest(
                f"cron is {request.cron!r}, which names a time that does not come in "
                f"{zone.location} within {YEARS_AHEAD} years",
                "/cron",
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
            f"interval is {interval.text!r}{first_run}: the {which} run would be past the year "
            "9999",
            "/interval",
        )
    first = _put_off(start if given else following.at, delay, "the first run")
    return (Once(zone) if request.one_off else schedule), start, first


def _put_off(at: datetime, offset: timedelta, which: str) -> datetime:
    """:raises InvalidRequest: if the run would be past the year 9999."""
    later = add(at, offset)
    if later is None:
        raise InvalidRequest(f"jitter is too long: {which} would be past the year 9999", "/jitter")
    return later


def _periodic(interval: Duration, zone: Zone) -> Every | Calendar:
    try:
        return periodic(interval, zone)
    except ValueError as problem:
        raise InvalidRequest(
            f"interval is {interval.text!r}, which {problem}", "/interval"
        ) from None
