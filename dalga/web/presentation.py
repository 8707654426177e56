"""
What is answered, as JSON. Pure.

Without spaces and with the keys in a fixed order, as the Go original writes it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from dalga.job import Job, UnreadableJob
from dalga.jobs import Status
from dalga.schedule import timestamp
from dalga.web.errors import Problem


def job_json(job: Job | UnreadableJob) -> bytes:
    """A job. The keys after ``next_run`` are there only where they have something to say."""
    members: dict[str, Any] = {"path": job.key.path, "body": job.key.body}
    if isinstance(job, UnreadableJob):
        return _json({**members, "next_run": None, "problem": job.problem})
    members["interval"] = job.schedule.seconds
    members["next_run"] = None if job.next_run is None else timestamp(job.next_run)
    if job.attempts > 0 and job.error is not None:
        members["failing"] = {"attempts": job.attempts, "error": job.error}
    return _json(members)


def status_json(status: Status) -> bytes:
    """The counts, by the names and in the order of `Status`."""
    return _json(asdict(status))


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
