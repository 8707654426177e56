"""
Which jobs a list shows, in which order, and by which index a page of it is found. Pure.

A page is one scan along one index, its *driver*: the rows that the index leads to are looked at one
after the other, and those to which the other filters apply are shown. An example::

    tag=billing&state=failed    the driver is the index of tags; of the jobs with the tag billing,
                                in the order of path and body, those that have failed are shown

What always holds: a page looks at a bounded number of rows, however large the table is (P10), and
each job that stays as it is while the pages are read is on one page.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from dalga.model.job import Job, Standing, UnreadableJob, endpoint_of
from dalga.model.key import Position
from dalga.model.permit import Limits, narrowed
from dalga.model.state import State, state_of


class Sort(StrEnum):
    """The orders that a list may be asked for in."""

    #: By path and body, both by their octets in UTF-8.
    KEY = "key"
    #: By the time at which the job is due; jobs that are never due come last.
    DUE = "due"


class Driver(StrEnum):
    """The index along which a page is found."""

    #: Of paths and bodies.
    KEY = "key"
    #: Of tags, and within a tag of paths and bodies.
    TAG = "tag"
    #: Of due times.
    DUE = "due"
    #: Of `disabled` and `standing`: the states that few jobs are in.
    STATE = "state"


class DuePlace(NamedTuple):
    """A row's place in the order of due times."""

    #: As the column has it, in octets; None behind all rows that have a time.
    due: bytes | None
    id: int
    #: Whether the octets are a BLOB in SQLite, as only another program writes it.
    is_blob: bool = False


class StatePlace(NamedTuple):
    """A row's place in the order of `disabled`, `standing` and id."""

    disabled: int
    standing: int
    id: int


#: Where a page ended, by its driver: `Position` is of the two that have the order of keys.
Place = Position | DuePlace | StatePlace

#: What the columns `disabled` and `standing` hold, in order, of the states that few jobs are in.
RARE: dict[State, tuple[tuple[int, int], ...]] = {
    State.FAILED: ((0, Standing.FAILED), (0, Standing.STOPPED)),
    State.DONE: ((0, Standing.DONE),),
    # A row that was set aside and then disabled still can't be understood.
    State.PROBLEM: ((0, Standing.ASIDE), (1, Standing.ASIDE)),
    State.DISABLED: tuple((1, standing) for standing in Standing if standing != Standing.ASIDE),
}

#: The states of jobs that have a due time, and whose due time says much about their state.
TIMED = frozenset({State.RUNNING, State.WAITING, State.RETRYING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which jobs a list is of, and in which order. A filter that is None or empty is not there."""

    path: str | None = None
    #: The path begins with this.
    prefix: str | None = None
    body: str | None = None
    endpoint: str | None = None
    #: Jobs with any of these.
    tags: frozenset[str] = frozenset()
    #: Jobs in any of these.
    states: frozenset[State] = frozenset()
    #: Due earlier than this, and later than that (aware, UTC). A job that is running is due at the
    #: end of its lease.
    due_before: datetime | None = None
    due_after: datetime | None = None
    #: Part of the path or of the body, octet by octet.
    contains: str | None = None
    #: None for the order of the driver.
    sort: Sort | None = None
    #: The jobs that whoever asks may see; None for all.
    limits: Limits | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the limits leave out all jobs, as far as path and endpoint tell."""
        return self.limits is not None and not self.limits.may_have(self.path, self.endpoint)

    @property
    def beginnings(self) -> tuple[str, ...] | None:
        """
        With what the paths begin, as `prefix` and `limits` have it, in order; None for all paths.
        None of them is the beginning of another one.
        """
        limits = None if self.limits is None else self.limits.prefixes()
        return limits if self.prefix is None else narrowed(limits, self.prefix)

    @property
    def driver(self) -> Driver:
        """The index that leads to the fewest rows, as far as the filters tell."""
        if self.sort is Sort.DUE:
            return Driver.DUE
        if self.tags:
            return Driver.TAG
        if self.sort is Sort.KEY or self.path is not None or self.beginnings is not None:
            return Driver.KEY
        if self.states and self.states <= RARE.keys():
            return Driver.STATE
        timed = bool(self.states) and self.states <= TIMED
        if timed or self.due_before is not None or self.due_after is not None:
            return Driver.DUE
        return Driver.KEY

    def fit(self, job: Job | UnreadableJob, now: datetime) -> bool:
        """
        Whether a job is shown, as far as only its row as it was read can tell: its endpoint, its
        state if the row can't be understood, and whether it is within the limits.

        :param now: the database's time (aware, UTC) at which the job was read.
        """
        if self.states and state_of(job, now) not in self.states:
            return False
        if self.limits is not None and not self.limits.have(job.key.path, endpoint_of(job)):
            return False
        if self.endpoint is None:
            return True
        return isinstance(job, Job) and job.options.endpoint == self.endpoint

    def fit_anew(self, job: Job | UnreadableJob, now: datetime) -> bool:
        """
        Whether a job that was to be shown, and that is read again, is shown still. Its key is the
        same.

        :param now: as of `fit`.
        """
        if not self.fit(job, now):
            return False
        if not isinstance(job, Job):
            return True
        if self.tags and self.tags.isdisjoint(job.notes.tags):
            return False
        if self.due_before is None and self.due_after is None:
            return True
        return (
            job.due is not None
            and (self.due_before is None or job.due < self.due_before)
            and (self.due_after is None or job.due > self.due_after)
        )


#: All jobs, in the order of their keys.
ALL = Filters()


@dataclass(frozen=True, slots=True)
class Query:
    """A page of a list."""

    filters: Filters = ALL
    #: Where the page before this one ended, of the filters' driver; None for the first page.
    after: Place | None = None
    #: How many jobs it has at most, 1 or more.
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the jobs of a list."""

    #: In the order of the list.
    jobs: list[Job | UnreadableJob]
    #: Where the page ended; None if there are no more jobs behind it.
    last: Place | None
    #: Whether it ended with fewer jobs than were asked for, as it had looked at many others, or for
    #: long, or as these have large payloads.
    partial: bool = False
