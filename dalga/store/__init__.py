"""
The jobs table behind one interface.

Each method is one transaction, or one statement, which is a transaction by itself. No cursor leaves
this room. All instants are the database's time (P8), as aware UTC datetimes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from dalga.model.action import Action, ActionRequest
from dalga.model.audit import AuditPage, AuditQuery, LastChange
from dalga.model.idempotency import Idempotency
from dalga.model.instance import UNKNOWN, About, Instance
from dalga.model.job import Job, UnreadableJob
from dalga.model.key import JobKey, RawKey
from dalga.model.listing import Page, Query
from dalga.model.permit import Author, Limits, Permit
from dalga.model.plan import ScheduleRequest
from dalga.model.precondition import Precondition
from dalga.model.record import Record, Result, Shelf
from dalga.model.run import End, Run
from dalga.model.runid import RunId
from dalga.model.runlist import ListedRun, RunPage, RunQuery
from dalga.model.setback import Reach
from dalga.model.statistics import MinuteSums, Scope, StatsQuery, Sum
from dalga.store.clock import DatabaseClock
from dalga.store.outbox import Lookout, Outbox

#: Makes the request of a PATCH of the job that is there.
Change = Callable[[Job], ScheduleRequest]

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

    @property
    def by_state(self) -> dict[tuple[str, ...], float]:
        """By a word each: those that are left wait for a time, or for somebody."""
        other = self.total - self.running - self.pending - self.set_aside
        return {
            ("running",): self.running,
            ("pending",): self.pending,
            ("set_aside",): self.set_aside,
            ("other",): other,
        }

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.total + other.total,
            self.pending + other.pending,
            self.set_aside + other.set_aside,
            self.running + other.running,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts(Tally):
    """A tally, and figures that are of the whole table, whichever rows were counted."""

    #: Instances with a heartbeat of the last `dalga.store.schema.ALIVE`.
    instances: int
    #: For how long the oldest of all pending rows has been due.
    lag: timedelta
    #: The last row that was counted; None if there are no more rows after it.
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """The runs that a claim took."""

    #: In due order (P6).
    runs: list[Run]
    #: The database's time of the claim.
    now: datetime
    #: Whether there may be more rows that are due: as many were due as the claim asked for, or it
    #: has left out some for the size of their payloads.
    full: bool
    #: How many of the runs an earlier claim had taken, whose lease has ended without a record.
    taken_over: int = 0


class Shown(NamedTuple):
    """A job, and what is kept of its runs."""

    job: Job | UnreadableJob
    #: The last of its runs that have ended; None if there is none, or no record of it.
    last_run: Record | None
    #: The newest entry of it in the audit list; None if there is none, if the job was written since
    #: by somebody without a name, or if it was not asked for.
    last_change: LastChange | None = None


class Pruned(NamedTuple):
    """What became of a batch of removals."""

    #: How many records were removed. If that is less than was asked for, there are no more that may
    #: be removed now, or another instance removes them.
    records: int
    #: How long others may have waited for it: without the COMMIT, unless there is but one writer.
    seconds: float


class Surveyed(NamedTuple):
    """A piece of a shelf of records."""

    #: How many there are in the piece. If that is less than was asked for, it is the last one.
    records: int
    #: When the oldest of them was written, in microseconds since 1970; None if there is none.
    oldest: int | None
    #: How long the look took.
    seconds: float


class Batch(NamedTuple):
    """What a batch of an action has come to."""

    #: As it stands now. None if no action's next batch was due.
    action: Action | None = None
    #: The due times of the jobs that were written.
    dues: Sequence[datetime] = ()
    #: Whether nothing was done, as many jobs are due already.
    held_up: bool = False


class Made(NamedTuple):
    """What became of a request to make a job once."""

    #: As it was when it was made.
    job: Job
    #: Whether it was made by this call, and not by an earlier one with the same Idempotency-Key.
    is_new: bool


@dataclass(frozen=True, slots=True)
class Dues:
    """The due times up to a horizon."""

    times: list[datetime]
    #: `times` has all due times up to this one, inclusive.
    horizon: datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of the ends that a record was given. Each end is in one of these lists."""

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
    #: Each end of the other lists but `postponed`, with what its run came to; None if the run goes
    #: on, or is another instance's. An end that was revised is as it is written.
    results: list[tuple[End, Result | None]] = field(default_factory=list)

    @property
    def dues(self) -> list[datetime]:
        """The due times of the rows that are written as their ends say. Some may be past."""
        ends = (*self.written, *self.revised, *self.already)
        return [due for end in ends if (due := end.due) is not None]

    def extend(self, other: Recorded) -> None:
        """Take in the ends of another record."""
        self.written.extend(other.written)
        self.revised.extend(other.revised)
        self.overridden.extend(other.overridden)
        self.already.extend(other.already)
        self.lost.extend(other.lost)
        self.postponed.extend(other.postponed)
        self.results.extend(other.results)


class OldestSums(NamedTuple):
    """When the oldest sums of a scope begin; None where there are none."""

    minute: datetime | None
    hour: datetime | None


class SumsAsked(NamedTuple):
    """Some of the sums that a query needs."""

    query: StatsQuery
    #: Sums of minutes, or of hours.
    step: timedelta
    #: When the steps begin that are read, at least one.
    times: Sequence[datetime]
    scope: Scope
    #: None for the sums of all endpoints.
    endpoint: str | None
    #: How many sums are read, at most.
    limit: int
    #: With what the paths begin; empty for all paths.
    prefix: str = ""


class SumsFound(NamedTuple):
    """What `Store.sums` has found."""

    #: By the names of series, and where the points begin.
    sums: dict[tuple[str, datetime], Sum]
    #: How many sums were read.
    rows: int
    #: Whether that is all that was asked for. Else there is nothing in `sums`.
    is_whole: bool


#: A row's due time and id. `Store.correct` goes through the rows in this order.
Due = tuple[datetime, int]


class Store(Protocol):
    """
    The jobs table. Each method that returns a Deferred, except `close`, may fail with
    `StoreUnavailable`.

    Whether a row is due, or its lease has ended, is judged within the transaction, by the
    database's clock.

    A call that has an author is a user's with a name: what is changed has an entry in the audit
    list, written in the same transaction. Without an author there is no entry.

    Writes of one job take a `permit`, which is asked of the job that is there, within the
    transaction. Its refusals are those of `Permit.check`; of `put` and `delete`, which are done
    whether or not there is a job, those of `Permit.check_name`.
    """

    #: The database's time, estimated between two transactions.
    clock: DatabaseClock

    @property
    def outbox(self) -> Outbox:
        """The alerts."""

    @property
    def lookout(self) -> Lookout:
        """What there is to be told of."""

    def open(self) -> None:
        """
        Check that the database and the table can be used. Blocks: to be called before the reactor
        runs.

        :raises StartupError: if they can't be used. Its text is one sentence that says why.
        """

    def create_table(self) -> str:
        """
        Create the table, and say where. Blocks, as `open` does.

        :raises TableExists: if the table is there already.
        :raises StartupError: if the database refuses.
        """

    def upgrade_table(self, dry_run: bool) -> Generator[str, None, None]:
        """
        Make an older table, or one of a Go release, into one of the present schema. Blocks, as
        `open` does.

        :param dry_run: only say what an upgrade would do.
        :return: lines that say what is found and done, while it goes on.
        :raises StartupError: if the table can't be upgraded. Its text is a sentence that says why.
        """

    def close(self) -> Deferred[None]:
        """Let running transactions end, then close the connections. Never blocks the reactor."""

    def put(
        self,
        key: JobKey,
        request: ScheduleRequest,
        variation: float = 1.0,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job]:
        """
        Write a job, new or over the one that is there, as the request's `if_exists` says.

        A run that is under way keeps its lease (P3). When it ends, the new schedule stays as it is
        (P4). A row that can't be understood is written anew.

        If the job is there and is only updated, or kept: its runs go on as they were, and a
        disabled job stays disabled. The end of a run under way goes by the new options
        (`dalga.model.run.revised`).

        A job that is done stays done if it is only updated, or kept.

        :param variation: the first interval is multiplied by it; see `dalga.model.plan.plan`.
        :param precondition: what has to hold of the job that is there, within the transaction.
        :raises InvalidRequest: if `dalga.model.plan.plan` or `amended` refuses the request.
        :raises JobSetAside: if a job is to be kept, and its row can't be understood.
        :raises PreconditionFailed: if the precondition does not hold.
        """

    def patch(
        self,
        key: JobKey,
        change: Change,
        variation: float = 1.0,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job]:
        """
        Write a job over itself, with a request that is made of the job that is there. As a PUT
        whose `if_exists` is update: only a job whose schedule is another one is scheduled anew, and
        a disabled job stays disabled. A job that would be as it is keeps its version.

        :param change: makes the request. It is called in a database thread, maybe more than once.
        :param variation: see `put`, as for `precondition`.
        :raises JobNotFound: if there is no such job.
        :raises JobSetAside: if the job's row can't be understood.
        :raises InvalidRequest: if `change`, `dalga.model.plan.plan` or `amended` refuses.
        :raises PreconditionFailed: if the precondition does not hold.
        """

    def once(
        self,
        key: JobKey,
        request: ScheduleRequest,
        idempotency: Idempotency | None,
        author: Author | None = None,
    ) -> Deferred[Made]:
        """
        Write a job under a generated name, which no job has.

        :param idempotency: of the request; None to write the job whatever there was. If there was
            the same request with its key on this path in the last 24 hours, nothing is written: the
            job is given that was made then, as it was then.
        :raises IdempotencyReused: if there was another request with that key.
        :raises InvalidRequest: if `dalga.model.plan.plan` refuses the request.
        """

    def forget_keys(self, limit: int) -> Deferred[int]:
        """
        Remove the oldest Idempotency-Keys whose 24 hours are over.

        :param limit: how many at most.
        :return: how many were found. If that is `limit`, there may be more.
        """

    def get(self, key: RawKey) -> Deferred[Job | UnreadableJob]:
        """:raises JobNotFound: if there is no such job."""

    def show(self, key: RawKey, with_change: bool = False) -> Deferred[Shown]:
        """
        A job with the record of its last run.

        :param with_change: whether to look for its last change, which takes one statement more.
        :raises JobNotFound: if there is no such job.
        """

    def runs(self, query: RunQuery) -> Deferred[RunPage]:
        """
        Some runs of a list. See `dalga.model.runlist`, and `dalga.store.history` for how many rows
        are read.
        """

    def run(self, run_id: RunId) -> Deferred[ListedRun]:
        """
        A run with all that is known of it.

        :raises RunNotFound: if there is no record of it, and it is not under way.
        """

    def page(self, query: Query) -> Deferred[Page]:
        """
        Some jobs of a list. See `dalga.model.listing`, and `dalga.store.listing` for how many rows
        are read.
        """

    def trigger(
        self, key: RawKey, author: Author | None = None, permit: Permit | None = None
    ) -> Deferred[Job]:
        """
        Make a job due now. If a run is under way, the job is due when that run has ended.

        This makes a new run. If a run of the job is late, or is being tried again, the new run
        takes its place. The times after the new run go by the schedule:

        - An interval of elapsed time is counted from the new run.
        - An interval of days and more, and cron, have times of their own, and these stay. The new
          run is one more. (The anchor stays.)

        If the job has stopped on a failed run, there is no new run: the failed run is due again,
        with the same id, and the times after it stay.

        :raises JobNotFound: if there is no such job.
        :raises JobDisabled: if the job is disabled.
        :raises JobOver: if the job is done, or its `until` is past, so that there is no new run.
        :raises JobSetAside: if the job's row can't be understood.
        """

    def enable(
        self,
        key: RawKey,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job | UnreadableJob]:
        """
        Make a disabled job due at its scheduled time again. A job that is not disabled stays as it
        is. If the job was disabled while a run was being tried again, that run goes on, with the
        same id. The time after which it is given up is counted from now.

        :raises JobNotFound: if there is no such job.
        :raises PreconditionFailed: if the precondition does not hold.
        """

    def disable(
        self,
        key: RawKey,
        reason: str | None = None,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Job | UnreadableJob]:
        """
        Have a job due no more. A run that is under way ends as it would (P3), and then the job is
        due no more (P4).

        :param reason: is noted, with the time since when the job is disabled, until it is enabled
            or scheduled anew. Without one, what is noted stays.
        :raises JobNotFound: if there is no such job.
        :raises PreconditionFailed: if the precondition does not hold.
        """

    def delete(
        self,
        key: RawKey,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[None]:
        """
        Remove a job, if there is one. Where it is leased, its row stays until the run under way is
        recorded, or the lease has ended (P3, P4).

        :raises PreconditionFailed: if the precondition does not hold.
        """

    def replay(
        self,
        run_id: RunId,
        endpoints: Collection[str],
        author: Author | None = None,
        limits: Limits | None = None,
    ) -> Deferred[Job]:
        """
        Write a job that repeats a run once, now.

        :param endpoints: the names of the endpoints of the configuration.
        :param limits: runs and jobs that are not within these are as if they were not there; None
            for all.
        :raises RunNotFound: if there is no such run.
        :raises RunUnderWay: if it has not ended.
        :raises ReplayImpossible: if its request can't be made again.
        :raises JobSetAside: if the row of its job can't be understood.
        """

    def begin_action(
        self, request: ActionRequest, author: Author | None = None
    ) -> Deferred[Action]:
        """Write an action that is to begin."""

    def action(self, id: str) -> Deferred[Action]:
        """:raises ActionNotFound: if there is no such action."""

    def actions(self, limit: int) -> Deferred[list[Action]]:
        """The actions that were begun last, the newest first."""

    def stop_action(self, id: str, author: Author | None = None) -> Deferred[Action]:
        """
        End an action after the batch that is under way. An action that is over stays as it is.

        :raises ActionNotFound: if there is no such action.
        """

    def act(
        self, limit: int, endpoints: Collection[str], instance: str, in_any_case: bool = False
    ) -> Deferred[Batch]:
        """
        Make the next batch of the action that has waited longest for one.

        :param limit: how many jobs or runs it acts on at most. If as many jobs are due already, it
            is not made.
        :param endpoints: the names of the endpoints of the configuration.
        :param instance: who makes it.
        :param in_any_case: make it however many jobs are due.
        """

    def forget_actions(self, limit: int) -> Deferred[int]:
        """
        Remove the oldest actions that are over, and were begun more than 30 days ago.

        :param limit: how many at most.
        :return: how many were found. If that is `limit`, there may be more.
        """

    def audit(self, query: AuditQuery) -> Deferred[AuditPage]:
        """
        Some entries of the audit list, the newest first. See `dalga.store.audit` for how many are
        looked at.
        """

    def forget_entries(self, keep: timedelta, limit: int) -> Deferred[int]:
        """
        Remove the oldest entries of the audit list, if they are older than `keep`.

        :param limit: how many at most.
        :return: how many were found. If that is `limit`, there may be more.
        """

    def counts(self, after: int = 0, limit: int = PIECE) -> Deferred[Counts]:
        """
        Count rows, and the instances, and tell how late the oldest due job is.

        :param after: the last row that earlier calls have counted, or 0.
        :param limit: how many rows are counted at most.
        """

    def prune(
        self, shelf: Shelf, keep: timedelta, surplus: int | None, limit: int
    ) -> Deferred[Pruned]:
        """
        Remove the oldest records of a shelf that are older than `keep`, or surplus.

        :param surplus: records that were written before this time are, in microseconds since 1970;
            None if there are none.
        :param limit: how many at most.
        """

    def survey(self, shelf: Shelf, before: int | None, limit: int) -> Deferred[Surveyed]:
        """
        Count the newest records of a shelf. Of those that were written at the very time of the
        oldest, some may be left out.

        :param before: only those that were written before this time, in microseconds since 1970;
            None for all.
        :param limit: how many are counted at most.
        """

    def now(self) -> Deferred[datetime]:
        """The database's time."""

    def announce(
        self, instance: str, since: datetime | None = None, about: About = UNKNOWN
    ) -> Deferred[int]:
        """
        Write an instance's heartbeat. Remove instances whose last heartbeat is long ago.

        :param since: when the instance began.
        :return: how many other instances have a heartbeat of the last 30 s.
        """

    def depart(self, instance: str) -> Deferred[None]:
        """Remove an instance from the instance table: it stops."""

    def instances(self, limit: int) -> Deferred[list[Instance]]:
        """
        The instances with a heartbeat of the last 30 s, by their names.

        :param limit: how many at most.
        """

    def due_within(
        self, within: timedelta, limit: int, without: Collection[str] = ()
    ) -> Deferred[Dues]:
        """
        The due times that are no later than `within` from now: the `limit` earliest, at most.

        :param without: jobs with these paths are passed over.
        """

    def claim(
        self,
        limit: int,
        timeout: float,
        without: Collection[str] = (),
        timeouts: Mapping[str, float] = MappingProxyType({}),
    ) -> Deferred[Claimed]:
        """
        Take up to `limit` due rows, the one that is due first in front. Each has a lease of its
        own: the time-out of its POST and `dalga.model.run.LEASE_MARGIN`.

        Rows that can't be understood are set aside, and logged (P6). The claim ends before a row
        whose payload, together with those before it, is more than `dalga.store.runs.DETAILS` (P10).

        :param limit: at least 1.
        :param timeout: how long the POST of a job may take to an endpoint that `timeouts` does not
            name, in seconds.
        :param without: jobs with these paths are passed over.
        :param timeouts: how long the POST of a job may take (seconds), by the name of its endpoint.
        """

    def correct(self, reach: Reach, after: Due | None) -> Deferred[Due | None]:
        """
        Move times that were written before the database's clock was set back: see `corrected`.
        Each call looks at some rows.

        :param after: what the call before returned; None for the first call.
        :return: the last row that this call looked at; None if there are no more rows.
        """

    def record(self, ends: list[End]) -> Deferred[Recorded]:
        """
        Write the ends of runs, and the records of these runs, in one transaction (P13). If a row is
        locked, the others are written.
        """

    # Statistics

    @property
    def unsettled(self) -> bool:
        """Whether `settle` has anything to do."""

    def settle(self) -> Deferred[None]:
        """
        Find out which runs have ended by transactions of users whose COMMIT got no answer, and tell
        of them as of all others (`dalga.store.closings`).
        """

    def write_sums(self, sums: MinuteSums) -> Deferred[None]:
        """
        Write what an instance has counted of a minute. It may be written again, to the same effect.
        Nothing is written of a minute that is older than a day.
        """

    def fold_sums(self, limit: int) -> Deferred[int]:
        """
        Add up the oldest sums of minutes to sums of hours, if they are older than
        `dalga.model.statistics.MINUTES_KEPT`.

        :param limit: how many sums of minutes are folded at most.
        :return: how many were folded. 0: all are folded, or another instance is folding.
        """

    def forget_sums(self, limit: int) -> Deferred[int]:
        """
        Remove the oldest sums of hours, if they are older than
        `dalga.model.statistics.HOURS_KEPT`.

        :param limit: how many sums are removed at most.
        :return: how many were removed. If there were none, all are removed.
        """

    def oldest_sums(self, scope: Scope) -> Deferred[OldestSums]:
        """When the oldest sums begin."""

    def sums(self, asked: SumsAsked) -> Deferred[SumsFound]:
        """Some sums, added up to points of series."""
