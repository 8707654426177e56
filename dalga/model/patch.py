"""
What a PATCH makes of a job: some of its parameters change, and the others stay. Pure.

The rules are those of RFC 7396 (JSON Merge Patch), over the parameters of a PUT:

| a PATCH of | |
| `{"count":3}` | gives the job a count, in the place of the one that it has |
| `{"count":null}` | takes the count from it, as if none had ever been given |
| `{"headers":{"X-A":"1","X-B":null}}` | gives it a header, takes another one, and leaves the rest |
| `{"retry":{"jitter":0}}` | does the same to a part of its retries |
| `{"tags":["a"]}` | gives it other tags: what is no object is replaced whole |

A parameter takes the place of the one that says the same in another way: a `cron` of an `interval`,
a `payload_base64` of a `payload`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from dalga.errors import InvalidRequest, shown
from dalga.model.delivery import AS_CONFIGURED, PAYLOAD, Method, PayloadKind, Retry
from dalga.model.duration import Duration, duration_from_text, seconds
from dalga.model.job import AT_REST, Job
from dalga.model.lateness import within
from dalga.model.options import Chosen, Options
from dalga.model.plan import (
    Plan,
    RawRequest,
    ScheduleRequest,
    amended,
    as_it_was,
    placed,
    plan,
)
from dalga.model.schedule import Cron, Once, timestamp

#: Of parameters that say the same in two ways: each takes the other's place.
_INSTEAD = {
    "cron": ("interval",),
    "interval": ("cron",),
    "payload": ("payload_base64",),
    "payload_base64": ("payload",),
}

#: The same of a one-off job.
_INSTEAD_ONCE = {**_INSTEAD, "interval": ("cron", "first_run"), "first_run": ("interval",)}

_DEFAULTS = Options()
_NOTHING = RawRequest()


def request_of(job: Job) -> RawRequest:
    """
    The parameters of a PUT that would give a job the schedule, the options, the delivery and the
    notes that this job has. The times of its runs may be others.
    """
    schedule, options, delivery, notes = job.schedule, job.options, job.delivery, job.notes
    chosen = {
        name: value
        for name in _CHOSEN
        if (value := getattr(options, name)) != getattr(_DEFAULTS, name)
    }
    payload = delivery.payload
    is_base64 = payload is not None and payload.kind is PayloadKind.BASE64
    zone = schedule.zone
    return RawRequest(
        **chosen,
        interval=_interval(job),
        cron=schedule.text if isinstance(schedule, Cron) else None,
        location=None if zone.location == "UTC" else zone.location,
        one_off=isinstance(schedule, Once),
        dst_gap=zone.gap,
        dst_overlap=zone.overlap,
        payload=None if is_base64 else payload,
        payload_base64=payload if is_base64 else None,
        content_type=delivery.content_type,
        headers=delivery.headers or None,
        method=None if delivery.method is Method.POST else delivery.method,
        retry=None if delivery.retry == AS_CONFIGURED else delivery.retry,
        tags=notes.tags or None,
        description=notes.description,
        redact=delivery.redact or None,
    )


#: The attributes of `Chosen`.
_CHOSEN = tuple(field.name for field in fields(Chosen))


def _interval(job: Job) -> Duration | None:
    if isinstance(job.schedule, Cron):
        return None
    if not isinstance(job.schedule, Once):
        return duration_from_text(job.schedule.text)
    if job.options.delay is None and job.options.first_run is None:
        return seconds(0)  # it was to run at once
    return job.options.delay


def patched(job: Job, given: Mapping[str, Any]) -> RawRequest:
    """
    The parameters of a job after a PATCH. They may contradict each other: `ScheduleRequest.of`
    checks that.

    :param given: the values by the attributes of `RawRequest`; None for a parameter that is
        removed. Those of ``headers`` and ``retry`` are dicts, in which None removes a part. A time
        without a zone is one of the clock of the job's location.
    :raises InvalidRequest: for a time that means no instant.
    """
    before = request_of(job)
    given = _without_shown_zero(before, given)
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            changes[name] = getattr(_NOTHING, name)
        elif name == "headers":
            changes[name] = _headers(before.headers or (), value)
        elif name == "retry":
            changes[name] = Retry(**{**(before.retry or AS_CONFIGURED)._asdict(), **value})
        else:
            changes[name] = value
    is_once = changes.get("one_off", before.one_off)
    for name, others in (_INSTEAD_ONCE if is_once else _INSTEAD).items():
        if given.get(name) is not None:
            for other in others:
                if other not in given:
                    changes[other] = None
    after = placed(replace(before, **changes))
    _check_redacted(before, after, given)
    return after


def _without_shown_zero(before: RawRequest, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Leave out the interval of 0 that GET shows of each one-off job, whenever the job runs. A client
    that gives it back changes something else, and does not ask for a run now.
    """
    interval = given.get("interval")
    if interval is None or interval or not (before.one_off and given.get("one_off", True)):
        return given
    return {name: value for name, value in given.items() if name != "interval"}


def _check_redacted(before: RawRequest, after: RawRequest, given: Mapping[str, Any]) -> None:
    """
    What is redacted is shown to nobody, and so to nobody who takes it out of `redact` (P12).

    :raises InvalidRequest: if something is redacted no longer, and is still what it was.
    """
    left = {name.lower() for name, _ in after.headers or ()}
    anew = {name.lower() for name in given.get("headers") or ()}
    for name in before.redact or ():
        if name in (after.redact or ()):
            continue
        if name == PAYLOAD and after.sent is not None and after.sent is before.sent:
            what = "payload"
        elif name in left and name not in anew:  # a header may be named payload, too
            what = f"the header {shown(name)}"
        else:
            continue
        raise InvalidRequest(
            f"redact has no longer {shown(name)}, and no answer is to show what was redacted: "
            f"give {what} again or remove it, or leave it in redact",
            "/redact",
        )


def _headers(
    before: tuple[tuple[str, str], ...], given: Mapping[str, str | None]
) -> tuple[tuple[str, str], ...]:
    """Headers in their order, with those that are new behind the others."""
    left = {name.lower(): (name, value) for name, value in given.items()}
    found = []
    for name, value in before:
        new_name, new = left.pop(name.lower(), (name, value))
        if new is not None:
            found.append((new_name, new))
    return (*found, *((name, value) for name, value in left.values() if value is not None))


def replanned(job: Job, request: ScheduleRequest, now: datetime, variation: float = 1.0) -> Plan:
    """
    The plan of a PATCH.

    A job whose schedule stays keeps its run and its anchor. Otherwise the job is planned anew, by
    the grid of its `first_run` where it has one: a first run that has been is not made up for.

    :param request: what `patched` gives.
    :param variation: see `plan`.
    :raises InvalidRequest: as `plan` and `amended` do.
    """
    kept = amended(job, request, now)
    if kept is not None:
        return kept
    planned = as_it_was(plan(request, now, variation, job.key), job)
    first_run = request.first_run
    is_past = first_run is not None and planned.first <= now
    if request.one_off or not is_past or first_run != job.options.first_run:
        return planned
    if job.scheduled == planned.first and not job.running and job.standing not in AT_REST:
        return planned  # the first run is pending, late as it is
    following = within(planned.options, planned.grid.next_after(now))
    if following is None:
        raise InvalidRequest(
            f"the job would never run: it has no time after now ({timestamp(now)}) until its end",
            "",
        )
    return replace(planned, first=following)
