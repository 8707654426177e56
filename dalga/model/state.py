"""
The state of a job: one word for what it is doing. Pure.

A job is in exactly one state: the first in the order of `State` whose words are true of it. The
SQL of the same is in `dalga.store.ranges`, and a test holds the two together.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from dalga.model.job import Job, Standing, UnreadableJob


class State(StrEnum):
    """The states, in the order in which they are looked at."""

    #: Its row can't be understood.
    PROBLEM = "problem"
    #: The user, or an answer of the endpoint, has disabled it. A run may still be under way.
    DISABLED = "disabled"
    #: A run is under way: an instance has claimed it, and the lease has not ended.
    RUNNING = "running"
    #: It is due, and no instance has claimed it.
    WAITING = "waiting"
    #: Its last attempt failed, and the same run is tried again later.
    RETRYING = "retrying"
    #: Its last run was given up, and no run has succeeded since.
    FAILED = "failed"
    #: It has no more runs, and is kept.
    DONE = "done"
    #: It runs at a time that is to come.
    SCHEDULED = "scheduled"


def state_of(job: Job | UnreadableJob, now: datetime) -> State:
    """
    The state of a job.

    :param now: the database's time (aware, UTC) at which the job was read.
    """
    if isinstance(job, UnreadableJob):
        return State.PROBLEM
    if job.disabled:
        return State.DISABLED
    if job.running:
        return State.RUNNING
    if job.due is not None:
        if job.due <= now:
            return State.WAITING
        if job.attempts:
            return State.RETRYING
    if job.standing in (Standing.FAILED, Standing.STOPPED):
        return State.FAILED
    return State.DONE if job.standing is Standing.DONE else State.SCHEDULED
