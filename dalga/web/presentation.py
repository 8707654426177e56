"""
The answers of the API, as JSON. Pure.

The JSON has no spaces and a fixed order of keys, as the Go original writes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from dalga.allowed import EndpointShown
from dalga.model.fields import secret_parameters, shown_parameters
from dalga.model.job import HIDDEN_PROBLEM, Job, Standing, UnreadableJob, endpoint_of
from dalga.model.key import RawKey
from dalga.model.listing import Page
from dalga.model.schedule import exact_timestamp, fraction_of_second, timestamp
from dalga.model.why import Why
from dalga.model.writing import Written
from dalga.model.zone import Occurrence, Zone
from dalga.web.errors import Problem

if TYPE_CHECKING:
    # These would bring Twisted.
    from dalga.operations import Status, Timetable

_MINUTE = timedelta(minutes=1)


#: Gives why a job can't be run; None if it can.
ProblemOf = Callable[[Job], str | None]

#: Tells of a job's path and endpoint whether whoever asks may see what is secret of the job.
HasSecrets = Callable[[str, str | None], bool]


def all_secrets(path: str, endpoint: str | None) -> bool:
    """Of a caller who may see all."""
    return True


def job_json(
    job: Job | UnreadableJob,
    problem_of: ProblemOf = lambda job: None,
    last_run: dict[str, Any] | None = None,
    last_change: dict[str, Any] | None = None,
    has_secrets: HasSecrets = all_secrets,
) -> bytes:
    """
    A job.

    :param last_run: the members of its last run; None for none.
    :param last_change: those of its last change, likewise.
    """
    members = _job(job, problem_of, has_secrets)
    if last_run is not None:
        members["last_run"] = last_run
    if last_change is not None:
        members["last_change"] = last_change
    return _octets(_members_text(members))


def page_json(
    page: Page,
    cursor: str | None,
    problem_of: ProblemOf = lambda job: None,
    has_secrets: HasSecrets = all_secrets,
) -> bytes:
    """
    A page of jobs.

    :param cursor: the cursor of the next page; None if this page is the last.
    """
    jobs = ",".join(_members_text(_job(job, problem_of, has_secrets)) for job in page.jobs)
    members: dict[str, Any] = {"jobs": Written(f"[{jobs}]")}
    if cursor is not None:
        members["cursor"] = cursor
    if page.partial:
        members["partial"] = True
    return _octets(_members_text(members))


def _job(
    job: Job | UnreadableJob, problem_of: ProblemOf, has_secrets: HasSecrets
) -> dict[str, Any]:
    """A job's members. Those behind ``next_run`` are there only if they have something to say."""
    members: dict[str, Any] = {"path": job.key.path, "body": job.key.body}
    shows_all = has_secrets(job.key.path, endpoint_of(job))
    if isinstance(job, UnreadableJob) and shows_all:
        return {**members, "next_run": None, "problem": job.problem}
    if isinstance(job, UnreadableJob):
        return {**members, "next_run": None, "problem": HIDDEN_PROBLEM, "hidden": ["problem"]}
    # The original's four keys are always there, in this order: a null is overwritten in its place.
    members["interval"] = None
    next_run = job.next_run
    members["next_run"] = None if next_run is None else timestamp(next_run)
    if next_run != job.scheduled and job.standing is not Standing.DONE:
        scheduled = timestamp(job.scheduled)
        # They can differ by less than the second that is shown.
        if scheduled != members["next_run"]:
            members["next_sched"] = scheduled
    for name, value in shown_parameters(job, shows_all):
        members[name] = value
        if name == "count":
            members["successes"] = job.successes
    members |= _state(job)
    problem = problem_of(job)
    if problem is not None:
        members["problem"] = problem
    hidden = [] if shows_all else secret_parameters(job)
    if hidden:
        members["hidden"] = hidden
    return members


def _state(job: Job) -> dict[str, Any]:
    """
    The members of a job's state.

    ``disabled`` and ``failed`` can be there both: a user disables a job, a run that was given up
    makes it failed.
    """
    members: dict[str, Any] = {}
    if job.standing is Standing.DONE:
        members["done"] = True
    # `attempts` counts the attempt that is under way, too. It has not failed yet.
    has_failed = job.attempts - job.running > 0 and job.error is not None
    if job.disabled:
        members["disabled"] = True
        disabling = job.notes.disabled
        if disabling is not None:
            members["disabled_since"] = exact_timestamp(disabling.since)
            if disabling.reason is not None:
                members["disabled_reason"] = disabling.reason
            if disabling.by is not None:
                members["disabled_by"] = disabling.by
    if has_failed and job.standing is not Standing.STOPPED:
        members["failing"] = {"attempts": job.attempts, "error": job.error}
    if job.standing is Standing.STOPPED:
        members["failed"] = {"attempts": job.attempts, "error": job.error}
    elif job.standing is Standing.FAILED:
        # The error may be that of the run that was given up, or of an attempt of the next run.
        members["failed"] = {"error": job.error}
    if job.skipped:
        members["skipped"] = job.skipped
    return members


def why_json(key: RawKey, why: Why) -> bytes:
    """Why a job is not running now."""
    members = {
        "path": key.path,
        "body": key.body,
        "state": why.state,
        "code": why.code,
        "why": why.sentence,
    }
    return as_json(members)


def run_times_json(timetable: Timetable) -> bytes:
    """A list of run times."""
    return as_json({"runs": [_run(timetable.zone, time) for time in timetable.times]})


def _run(zone: Zone, time: Occurrence) -> dict[str, str]:
    members = {"at": exact_timestamp(time.at), "local": _local(zone.local(time.at))}
    return members if time.dst is None else {**members, "dst": time.dst}


def _local(local: datetime) -> str:
    """
    A zone's time in RFC 3339, with its fraction of a second if it has one.

    Offsets in RFC 3339 have no seconds. Offsets of long ago had some, and are rounded to minutes.
    """
    offset = local.utcoffset()
    assert offset is not None
    whole = timezone(round(offset / _MINUTE) * _MINUTE)
    text = local.replace(tzinfo=whole, microsecond=0).isoformat()
    return text[:-6] + fraction_of_second(local) + text[-6:]


def status_json(status: Status) -> bytes:
    """
    The counts, with the names and in the order of `Status`. Seconds are whole, rounded down. The
    members on workers are there only if the daemon has workers.
    """
    age = None if status.counts_age is None else math.floor(status.counts_age)
    members = {**asdict(status), "lag": math.floor(status.lag), "counts_age": age}
    if status.workers is None:
        del members["worker"], members["workers"]
    return as_json(members)


def endpoints_json(
    endpoints: Iterable[EndpointShown], certificates: Mapping[str, datetime]
) -> bytes:
    """
    The endpoints of the configuration, the default one first.

    :param certificates: by the names of endpoints, when the certificate ends that each has shown.
    """
    shown = []
    for endpoint in endpoints:
        expires = certificates.get(endpoint.name)
        member = None if expires is None else timestamp(expires)
        shown.append({**asdict(endpoint), "certificate_expires": member})
    return as_json({"endpoints": shown})


def problem_json(problem: Problem) -> bytes:
    """
    A problem details object (RFC 9457 section 3). Its member ``errors`` is as in the example there,
    and is there only if the problem has errors.
    """
    members: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status.value,
        "detail": problem.detail,
    }
    if problem.errors:
        members["errors"] = [
            {"pointer": pointer, "detail": detail} for pointer, detail in problem.errors
        ]
    return as_json(members)


def as_json(value: Any) -> bytes:
    """JSON without spaces."""
    return _octets(_text(value))


_text: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _octets(text: str) -> bytes:
    # "replace": a lone surrogate, which no UTF-8 has, must not turn an answer into an error.
    return text.encode("utf-8", "replace")


def _members_text(members: dict[str, Any]) -> str:
    """An object, whose members may be `Written`."""
    if Written not in map(type, members.values()):
        return _text(members)
    parts = (
        f"{_text(name)}:{value if isinstance(value, Written) else _text(value)}"
        for name, value in members.items()
    )
    return f"{{{','.join(parts)}}}"
