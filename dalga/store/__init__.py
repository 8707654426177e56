"""
The jobs table behind one interface.

Each method is one transaction, or one statement that is one by itself; no cursor leaves this room.
All times are the database's (P8), as aware UTC datetimes.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from twisted.internet.defer import Deferred

from dalga.model.job import Job, UnreadableJob
from dalga.model.key import JobKey, Position, RawKey
from dalga.model.plan import ScheduleRequest
from dalga.model.run import End, Run
from dalga.model.setback import Reach
from dalga.store.clock import DatabaseClock

#: How many rows one transaction counts by default. It takes some milliseconds.
PIECE = 10_000


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows there are, and of which kind, among those that were counted."""

    total: int = 0
    #: Due and not claimed.
    pending: int = 0
    #: Could not be understood, and are due no more.
    set_aside: int = 0
    #: Under a lease that has not ended.
    running: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.total + other.total,
            self.pending + other.pending,
            self.set_aside + other.set_aside,
            self.running + other.running,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts(Tally):
    """A tally, and what does not depend on which rows were counted."""

    #: Instances that were heard of lately.
    instances: int
    #: For how long the oldest of all pending rows has been due.
    lag: timedelta
    #: The last row that was counted; None where no more come after it.
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim took."""

    #: In due order (P6).
    runs: list[Run]
    #: The database's time of the claim.
    now: datetime
    #: Whether as many rows as were asked for were due, so that there may be more.
    full: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Some of all jobs."""

    #: In the order of path and body, both by their octets in UTF-8.
    jobs: list[Job | UnreadableJob]
    #: The last one's place; None where no more come after it.
    last: Position | None


@dataclass(frozen=True, slots=True)
class Dues:
    """The due times up to a horizon."""

    times: list[datetime]
    #: Up to where (inclusive) these are all there are.
    horizon: datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a record made of the ends that it was given; each of them is in one of these lists."""

    #: Ends that are written as they were given.
    written: list[End] = field(default_factory=list)
    #: Ends of runs during which the user changed the job's options, as they are written: with the
    #: verdict by the new options (P4).
    revised: list[End] = field(default_factory=list)
    #: Ends of runs during which the user has changed the job: the row is written as the change
    #: says, and not as the verdict does (P4).
    overridden: list[End] = field(default_factory=list)
    #: Ends that an earlier call has written: its COMMIT was done, though the answer was lost.
    already: list[End] = field(default_factory=list)
    #: Ends of runs whose lease was over, of which nothing is written: another instance has taken
    #: the run, or the job was changed since.
    lost: list[End] = field(default_factory=list)
    #: Ends of which nothing is written yet, as somebody has locked the row.
    postponed: list[End] = field(default_factory=list)

    @property
    def dues(self) -> list[datetime]:
        """When the rows are due that are written as these ends say; some times may be past."""
        ends = (*self.written, *self.revised, *self.already)
        return [due for end in ends if (due := end.due) is not None]

    def extend(self, other: Recorded) -> None:
        """Take in what another record made of its ends."""
        self.written.extend(other.written)
        self.revised.extend(other.revised)
        self.overridden.extend(other.overridden)
        self.already.extend(other.already)
        self.lost.extend(other.lost)
        self.postponed.extend(other.postponed)


#: A row's due time and id, by which rows are gone through.
Due = tuple[datetime, int]


class Store(Protocol):
    """
    The jobs table. What gives a Deferred may fail with `StoreUnavailable`, `close` apart.

    What is due, leased or expired is judged by the database's clock, within the transaction.
    """

    #: The database's time, estimated between two transactions.
    clock: DatabaseClock

    def open(self) -> None:
        """
        Make sure of the database and the table. Blocks: to be called before the reactor runs.

        :raises StartupError: with one sentence that says what is in the way.
        """

    def create_table(self) -> str:
        """
        Create the table, and say where. Blocks, as `open` does.

        :raises TableExists: where it is there already.
        :raises StartupError: where the database refuses.
        """

    def upgrade_table(self, dry_run: bool) -> Generator[str, None, None]:
        """
        Make an older table, or one of a Go release, into one of the present schema. Blocks, as
        `open` does.

        :param dry_run: only say what that would do.
        :return: what is found and done, a line at a time.
        :raises StartupError: with one sentence that says what is in the way.
        """

    def close(self) -> Deferred[None]:
        """Let running transactions end, then close the connections. Never blocks the reactor."""

    def put(self, key: JobKey, request: ScheduleRequest, variation: float = 1.0) -> Deferred[Job]:
        """
        Write a job, new or over the one that is there, as the request's `if_exists` says.

        A run that is under way keeps its lease (P3); its end then leaves the new schedule as it is
        (P4). Where the job is there and is only updated, or kept, its runs go on as they were, and
        it stays disabled if it is; the end of a run under way goes by the new options
        (`dalga.model.run.revised`). A row that can't be understood is written anew.

        :param variation: of the first interval; see `dalga.model.plan.plan`.
        :raises InvalidRequest: where `request` is refused by `dalga.model.plan.plan` or `amended`.
        :raises JobSetAside: where a job is to be kept that can't be understood.
        """

    def get(self, key: RawKey) -> Deferred[Job | UnreadableJob]:
        """:raises JobNotFound: if there is none."""

    def page(self, path: str | None, after: Position | None, limit: int) -> Deferred[Page]:
        """
        Up to `limit` jobs, in the order of path and body. No more rows are read than that.

        :param path: of the jobs; None for all.
        :param after: the place of the last job that is known already, which has that path; None for
            the first page.
        """

    def trigger(self, key: RawKey) -> Deferred[Job]:
        """
        Make a job due now, or, if a run is under way, as soon as that has ended.

        It is a new run, and takes the place of one that was late, or is tried again. Elapsed time
        is counted from here. A calendar and cron have times of their own, for which this is one run
        more: the anchor stays. Where the job has stopped on a failed run, it is that run that is
        due again, as the same, and what comes after it stays as it was.

        :raises JobNotFound: if there is none.
        :raises JobDisabled: if it is not to run.
        :raises JobOver: if its `until` is past, so that there is no new run of it.
        :raises JobSetAside: if its row can't be understood.
        """

    def enable(self, key: RawKey) -> Deferred[Job | UnreadableJob]:
        """
        Make a disabled job due at its scheduled time again; others stay as they are. A run that had
        begun goes on as the same; when it is given up is counted from here.

        :raises JobNotFound: if there is none.
        """

    def disable(self, key: RawKey) -> Deferred[Job | UnreadableJob]:
        """
        Let a job be due no more, or not after the run that is under way (P3, P4).

        :raises JobNotFound: if there is none.
        """

    def delete(self, key: RawKey) -> Deferred[None]:
        """Remove a job, if it is there. Under a lease the row goes when the lease does (P3, P4)."""

    def counts(self, after: int = 0, limit: int = PIECE) -> Deferred[Counts]:
        """
        Count rows, and the instances, and say how late the oldest due job is.

        :param after: the last row that is counted already, or 0.
        :param limit: how many rows are counted at most.
        """

    def now(self) -> Deferred[datetime]:
        """The database's time."""

    def announce(self, instance: str) -> Deferred[None]:
        """Note that an instance is alive, and forget those that were not heard of for long."""

    def depart(self, instance: str) -> Deferred[None]:
        """Note that an instance stops."""

    def due_within(
        self, within: timedelta, limit: int, without: Collection[str] = ()
    ) -> Deferred[Dues]:
        """
        The due times from the oldest on up to `within` from now, at most `limit` of them.

        :param without: paths whose jobs are passed over.
        """

    def claim(self, limit: int, timeout: float, without: Collection[str] = ()) -> Deferred[Claimed]:
        """
        Take up to `limit` due rows, oldest first. Each has a lease of its own, which is as long as
        its POST may take and `dalga.model.run.LEASE_MARGIN` more.

        Rows that can't be understood are set aside on the way and logged (P6).

        :param limit: at least 1.
        :param timeout: how long the POST of a job may take that has no time-out of its own, in
            seconds.
        :param without: paths whose jobs are passed over.
        """

    def correct(self, reach: Reach, after: Due | None) -> Deferred[Due | None]:
        """
        Move times that were written by a clock that has been set back since: see `corrected`.

        :param after: the last row that was looked at by the call before; None for all to come.
        :return: the last row that was looked at now; None where there are no more.
        """

    def record(self, ends: list[End]) -> Deferred[Recorded]:
        """Write the ends of runs, all in one transaction. A locked row holds up no other."""
