"""
A job as it stands in the table. Pure.

`plan` says how a request becomes a job, and when the job will run. `run` has the runs of a job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from dalga.errors import JobSetAside
from dalga.model.delivery import NO_NOTES, PLAIN, Delivery, Notes
from dalga.model.key import JobKey, RawKey
from dalga.model.options import Options
from dalga.model.schedule import Schedule


class Standing(IntEnum):
    """How a job stands after its last run."""

    #: The last run was not given up, or there was none.
    SOUND = 0
    #: The last run was given up, and the job went on to its next run.
    FAILED = 1
    #: The last run was given up, and the job waits for a user to trigger or schedule it.
    STOPPED = 2
    #: The last run is over, there is no other, and the job is kept.
    DONE = 3
    #: A claim could not understand the row, and has set it aside; the row's error says why.
    ASIDE = 4


#: How a job stands that has no due time, and is neither disabled nor set aside.
AT_REST = (Standing.STOPPED, Standing.DONE)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands in the table."""

    key: JobKey
    schedule: Schedule
    options: Options
    #: The instant that intervals are counted from.
    anchor: datetime
    #: The time for which the pending run, or the run under way, is scheduled.
    scheduled: datetime
    #: When the row may next be claimed: the scheduled time, a retry's time, or the end of the lease
    #: of the run that is under way. None if the job is disabled, has stopped, or is done.
    due: datetime | None
    #: The number of attempts of the pending run, that under way included.
    attempts: int = 0
    #: Whether a run is under way.
    running: bool = False
    #: The error of the last attempt that failed, of the pending run or of a run that was given up;
    #: or the answer by which the endpoint has disabled the job.
    error: str | None = None
    #: The number of runs that succeeded since the job was scheduled.
    successes: int = 0
    #: The number of runs that were skipped as too late since then.
    skipped: int = 0
    standing: Standing = Standing.SOUND
    disabled: bool = False
    #: Whether a user asked for the pending run while the run before it was under way.
    waited: bool = False
    delivery: Delivery = PLAIN
    notes: Notes = NO_NOTES
    #: Of the definition: the time of the last PUT or PATCH that changed it, in microseconds since
    #: 1970 by the database's clock, or later by 1 than the version before it.
    version: int = field(default=0, compare=False)

    @property
    def next_run(self) -> datetime | None:
        """When the job runs next; while it runs, the time of that run. None if it won't run."""
        if self.disabled:
            return None
        return self.scheduled if self.running else self.due


@dataclass(frozen=True, slots=True)
class UnreadableJob:
    """A row that can't be understood, in the place of a job that was looked for."""

    key: RawKey
    problem: str


#: In the place of what is wrong with a row: that may quote the row, and so a payload or a header.
HIDDEN_PROBLEM = "what is wrong with it is not shown without read-secrets"


def endpoint_of(job: Job | UnreadableJob) -> str | None:
    """The name of a job's endpoint; None if nobody can understand its row."""
    return job.options.endpoint if isinstance(job, Job) else None


def readable(job: Job | UnreadableJob) -> Job:
    """:raises JobSetAside: if the job's row can't be understood."""
    if isinstance(job, UnreadableJob):
        raise JobSetAside(
            f"the job with path {job.key.path!r} and body {job.key.body!r} can't be understood "
            f"({job.problem}): schedule it anew with PUT, or delete it"
        )
    return job
