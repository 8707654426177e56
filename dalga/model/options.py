"""
What a user may choose for a job beside its schedule: when the job ends, and what becomes of runs
that are late or fail. Pure.

These are values only. `lateness`, `run` and `plan` apply them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from dalga.model.address import DEFAULT_ENDPOINT
from dalga.model.answers import Statuses
from dalga.model.duration import Duration

#: How late a run may begin if catch-up is skip and no max-lateness is given.
SKIP_LATENESS = timedelta(seconds=60)

#: After so many failed attempts in a row a job is said to fail, if no `alert_after` is given.
ALERT_AFTER = 3


class CatchUp(StrEnum):
    """What becomes of missed times: those that went by while no instance could run the job."""

    #: One late run stands for all missed times.
    ONE = "one"
    #: Missed times have no run.
    SKIP = "skip"
    #: Each missed time has a run, one after the other.
    ALL = "all"


class OnFailure(StrEnum):
    """What a periodic job does after a run that was given up."""

    CONTINUE = "continue"
    STOP = "stop"


class OnEnd(StrEnum):
    """What becomes of a job that has no more runs."""

    DELETE = "delete"
    #: It stays, as done.
    KEEP = "keep"


class IfExists(StrEnum):
    """What a PUT does if the job is there already."""

    #: The job is scheduled as if it were new.
    RESCHEDULE = "reschedule"
    #: A job whose schedule is the same keeps its next run and its state, and gets the other
    #: parameters. A job whose schedule is another is rescheduled. A disabled job stays disabled.
    UPDATE = "update"
    #: The job stays as it is.
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The options that a user chose; None for each that the user did not choose."""

    #: No run is scheduled for a later time (aware, UTC).
    until: datetime | None = None
    #: The number of successful runs after which the job is removed, 1 or more.
    count: int | None = None
    catch_up: CatchUp | None = None
    #: A run that would begin later than this after its time is skipped.
    max_lateness: timedelta | None = None
    on_failure: OnFailure | None = None
    #: The schedule's times begin here (aware, UTC).
    first_run: datetime | None = None
    #: Each run is later than its schedule's time by less than this; see `offset_of`.
    jitter: timedelta | None = None
    #: The statuses of answers by which a run has succeeded, by which the job is removed, and by
    #: which a run is given up at once. None for those of the endpoint; see `answers`.
    success: Statuses | None = None
    gone: Statuses | None = None
    give_up: Statuses | None = None
    #: The name of the endpoint that the job is POSTed to.
    endpoint: str | None = None
    #: Time limit of a request, if it is less than the endpoint's. None for the endpoint's.
    timeout: timedelta | None = None
    on_end: OnEnd | None = None
    #: Whether the start of the answer is kept of runs that succeeded, too.
    save_response: bool | None = None
    #: After so many failed attempts in a row the job is said to fail, 1 or more.
    alert_after: int | None = None
    #: The job is said to be silent if it has no success for so long.
    expect_within: timedelta | None = None
    #: The name of the configuration's target to which the job's alerts are sent, or `NO_TARGET`.
    #: None for that of the endpoint.
    alert_url: str | None = None


@dataclass(frozen=True, slots=True)
class Options(Chosen):
    """The options that hold for a job: each as it was chosen, or with its default."""

    catch_up: CatchUp = CatchUp.ONE
    on_failure: OnFailure = OnFailure.CONTINUE
    endpoint: str = DEFAULT_ENDPOINT
    on_end: OnEnd = OnEnd.DELETE
    save_response: bool = False
    alert_after: int = ALERT_AFTER
    #: The interval of a one-off job: how long after its PUT it was to run.
    delay: Duration | None = None

    @classmethod
    def of(cls, chosen: Chosen, delay: Duration | None) -> Self:
        """The options that hold if these were chosen."""
        given = {name: value for name in _CHOSEN if (value := getattr(chosen, name)) is not None}
        return cls(**given, delay=delay)

    @property
    def lateness(self) -> timedelta | None:
        """How late a run may begin; None if there is no limit."""
        if self.max_lateness is None and self.catch_up is CatchUp.SKIP:
            return SKIP_LATENESS
        return self.max_lateness


#: The attributes of `Chosen`.
_CHOSEN = tuple(field.name for field in fields(Chosen))
