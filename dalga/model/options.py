"""
What a user may choose about a job beside its schedule: when it ends, and what is done about runs
that come late or fail. Pure.

These are values only: what they make of a run is in `lateness`, `run` and `plan`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from dalga.model.duration import Duration

#: How late a run may begin where catch-up is skip and nothing else was said.
SKIP_LATENESS = timedelta(seconds=60)


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


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen beside the schedule; None where nothing was."""

    #: No run is scheduled for a later time (aware, UTC).
    until: datetime | None = None
    #: After so many successful runs the job is removed.
    count: int | None = None
    catch_up: CatchUp | None = None
    #: A run that would begin later than this after its time is skipped.
    max_lateness: timedelta | None = None
    on_failure: OnFailure | None = None
    #: The schedule's times begin here (aware, UTC).
    first_run: datetime | None = None
    #: Each run comes later than its schedule's time by less than this; see `offset_of`.
    jitter: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Options(Chosen):
    """What holds for a job beside its schedule: what was chosen, or else a default."""

    catch_up: CatchUp = CatchUp.ONE
    on_failure: OnFailure = OnFailure.CONTINUE
    #: Of a one-off job: how long after its PUT it was to run.
    delay: Duration | None = None

    @classmethod
    def of(cls, chosen: Chosen, delay: Duration | None) -> Self:
        """The options that come of what was chosen."""
        given = {name: value for name in _CHOSEN if (value := getattr(chosen, name)) is not None}
        return cls(**given, delay=delay)

    @property
    def lateness(self) -> timedelta | None:
        """How late a run may begin; None for as late as it may be."""
        if self.max_lateness is None and self.catch_up is CatchUp.SKIP:
            return SKIP_LATENESS
        return self.max_lateness


#: The attributes of `Chosen`.
_CHOSEN = tuple(field.name for field in fields(Chosen))
