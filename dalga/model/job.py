"""
A job as it stands in the table. Pure.

How a request becomes a job, and its run times to come, are in `plan`; its runs are in `run`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from dalga.model.key import JobKey, RawKey
from dalga.model.options import Options
from dalga.model.schedule import Schedule


class Failed(IntEnum):
    """Whether the last run was given up."""

    NO = 0
    #: It was, and the job went on to its next run.
    CONTINUED = 1
    #: It was, and the job waits for somebody to trigger or schedule it.
    STOPPED = 2


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


@dataclass(frozen=True, slots=True)
class UnreadableJob:
    """A row that can't be understood, found in the table where a job was looked for."""

    key: RawKey
    problem: str
