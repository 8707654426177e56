"""
What is answered, as JSON. Pure.

Without spaces and with the keys in a fixed order, as the Go original writes it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode

from dalga.model.fields import shown_parameters
from dalga.model.job import Failed, Job, UnreadableJob
from dalga.model.schedule import exact_timestamp, fraction_of_second, timestamp
from dalga.model.zone import Occurrence, Zone
from dalga.operations import Status, Timetable
from dalga.store import Page
from dalga.web.errors import Problem

_MINUTE = timedelta(minutes=1)


def job_json(job: Job | UnreadableJob) -> bytes:
    """A job."""
    return _json(_job(job))


def page_json(page: Page, cursor: str | None) -> bytes:
    """
    Some jobs.

    :param cursor: what leads to more; None where there are none.
    """
    members: dict[str, Any] = {"jobs": [_job(job) for job in page.jobs]}
    if cursor is not None:
        members["cursor"] = cursor
    return _json(members)


def next_page(path: str | None, limit: int, cursor: str) -> str:
    """
    A Link header's value (RFC 8288). Its target is a query alone, so that it leads to the right
    place behind a proxy that knows this list by another path, too (RFC 3986 section 5.2).
    """
    query = (
        {"limit": limit, "cursor": cursor}
        if path is None
        else {"path": path, "limit": limit, "cursor": cursor}
    )
    return f'<?{urlencode(query, quote_via=quote)}>; rel="next"'


def _job(job: Job | UnreadableJob) -> dict[str, Any]:
    """The keys after ``next_run`` are there only where they have something to say."""
    members: dict[str, Any] = {"path": job.key.path, "body": job.key.body}
    if isinstance(job, UnreadableJob):
        return {**members, "next_run": None, "problem": job.problem}
    # The original's keys, which are always there, and in this order.
    members["interval"] = None
    members["next_run"] = None if job.next_run is None else timestamp(job.next_run)
    scheduled = timestamp(job.scheduled)
    if scheduled != members["next_run"]:
        members["next_sched"] = scheduled
    for name, value in shown_parameters(job):
        members[name] = value
        if name == "count":
            members["successes"] = job.successes
    return members | _state(job)


def _state(job: Job) -> dict[str, Any]:
    """What has become of the job; a disabled one and a failed one are two things."""
    members: dict[str, Any] = {}
    # Of the pending run, which may be under way: then that attempt is counted, but is not over.
    has_failed = job.attempts - job.running > 0 and job.error is not None
    if job.disabled:
        members["disabled"] = True
    if has_failed and job.failed is not Failed.STOPPED:
        members["failing"] = {"attempts": job.attempts, "error": job.error}
    if job.failed is Failed.STOPPED:
        members["failed"] = {"attempts": job.attempts, "error": job.error}
    elif job.failed is Failed.CONTINUED:
        # The last error: that of the run that was given up, or one of the run after it.
        members["failed"] = {"error": job.error}
    if job.skipped:
        members["skipped"] = job.skipped
    return members


def run_times_json(timetable: Timetable) -> bytes:
    """The times of runs to come."""
    return _json({"runs": [_run(timetable.zone, time) for time in timetable.times]})


def _run(zone: Zone, time: Occurrence) -> dict[str, str]:
    members = {"at": exact_timestamp(time.at), "local": _local(zone.local(time.at))}
    return members if time.dst is None else {**members, "dst": time.dst}


def _local(local: datetime) -> str:
    """
    A place's time in RFC 3339, with its fraction of a second where there is one. Offsets have no
    seconds there; those of long ago had.
    """
    offset = local.utcoffset()
    assert offset is not None
    whole = timezone(round(offset / _MINUTE) * _MINUTE)
    text = local.replace(tzinfo=whole, microsecond=0).isoformat()
    return text[:-6] + fraction_of_second(local) + text[-6:]


def status_json(status: Status) -> bytes:
    """The counts, by the names and in the order of `Status`."""
    age = None if status.counts_age is None else math.floor(status.counts_age)
    return _json({**asdict(status), "lag": math.floor(status.lag), "counts_age": age})


def problem_json(problem: Problem) -> bytes:
    """A problem details object (RFC 9457 section 3)."""
    return _json(
        {
            "type": "about:blank",
            "title": problem.title,
            "status": problem.status.value,
            "detail": problem.detail,
        }
    )


def _json(value: Any) -> bytes:
    # "replace": a lone surrogate, which no UTF-8 has, must not turn an answer into an error.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")
