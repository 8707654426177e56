"""
Actions on many jobs or runs: begun, shown, stopped, and done a batch at a time.

`_actions.due` says when the next batch of an action may be made. Nobody holds an action between two
batches, so whoever comes next makes the next one, and nobody's death is waited for (P5). A batch is
one transaction::

    the action's row, locked          SELECT ... WHERE due <= now
    what it finds from its place on   a page of the list of jobs, or of runs
    what it does to each              as the calls on one job do it
    its place and counts              UPDATE ... WHERE token = the one that was read

What always holds: a batch and its place are committed together, so that no job and no run is acted
on twice, and none is left out. A batch is short, and waits for no row that somebody else has locked
(P7).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

from twisted.internet.defer import Deferred

from dalga.errors import DalgaError, JobDisabled, JobOver, JobSetAside
from dalga.model.action import (
    UNDER_WAY,
    Action,
    ActionRequest,
    ActionState,
    AnyPlace,
    Do,
    action_not_found,
    author_from_text,
    place_from_text,
    place_to_text,
    request_from_text,
    request_to_json,
    request_to_text,
)
from dalga.model.audit import Changed, Verb
from dalga.model.job import Job, Standing, UnreadableJob, readable
from dalga.model.key import Position, RawKey
from dalga.model.listing import Filters, Place, Query
from dalga.model.name import RANDOM_OCTETS, generated_name
from dalga.model.permit import Author
from dalga.model.runlist import RunFilters, RunPage, RunPlace, RunQuery
from dalga.store import Batch
from dalga.store.actionsql import ActionRow, ActionStatements
from dalga.store.audit import AuditRows
from dalga.store.audited import Audited
from dalga.store.changes import check_until
from dalga.store.clock import steady_seconds
from dalga.store.dialect import Cursor, Dialect
from dalga.store.history import History
from dalga.store.keyed import KeyedRows
from dalga.store.listing import Listed, Listing, Walked
from dalga.store.replays import Replays
from dalga.store.rows import MAX_ERROR, read_job, version_at
from dalga.store.statements import Statements
from dalga.store.transactions import Conflict, Transactions
from dalga.store.values import octets, text_of, text_or_none, whole

#: How many jobs or runs a batch counts at most. It takes some 8 ms.
COUNTED = 250

#: How many runs a batch replays at most, by a few statements for all of them; and how many jobs it
#: changes, by a few for each.
REPLAYED, CHANGED = 50, 25

#: A batch changes no other job after this time, in seconds of the steady clock from when it has
#: found them. On SQLite a claim may wait for a batch that is under way, and on a server nobody
#: claims the jobs of the batch meanwhile.
PATIENCE = 0.006

#: From one batch of an action to the next, at least.
PAUSE = timedelta(milliseconds=50)

#: The largest count that a column has.
MOST = 2**63 - 1

#: How long an action is remembered that is over.
REMEMBERED = timedelta(days=30)


_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class _Work(NamedTuple):
    """A batch of an action: what its methods have in common."""

    cursor: Cursor
    #: The database's time.
    now: datetime
    action: Action
    request: ActionRequest
    #: Where the batch before ended; None at the beginning of a walk.
    place: AnyPlace | None


@dataclass(slots=True)
class _Step:
    """What a batch does to an action."""

    place: AnyPlace | None
    matched: int = 0
    done: int = 0
    failed: int = 0
    #: Why it could not be done to the last of the `failed` ones; or why the action is over.
    error: str | None = None
    #: None if the walk goes on.
    over: ActionState | None = None
    #: The due times of the jobs that were written.
    dues: list[datetime] = field(default_factory=list)

    def end(self, is_cut: bool, is_last: bool, request: ActionRequest) -> None:
        """
        What becomes of the action after this batch.

        :param is_cut: whether more jobs or runs match than the action may act on.
        :param is_last: whether no more jobs or runs follow the batch.
        """
        if is_cut:
            self.over = ActionState.STOPPED
            self.error = (
                f"more match by now than {request.expect_at_most} (expect_at_most): the others "
                "were left as they are"
            )
        elif is_last:
            self.over = ActionState.DONE


class Actions:
    """
    :param lane: the transactions of the API.
    :param token: makes a random token, of 16 octets.
    :param steady: the steady clock, in seconds.
    """

    def __init__(
        self,
        dialect: Dialect,
        sql: Statements,
        lane: Transactions,
        rows: KeyedRows,
        audited: Audited,
        listing: Listing,
        history: History,
        replays: Replays,
        audit: AuditRows,
        token: Callable[[], bytes],
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        self._dialect = dialect
        self._sql_of_jobs = sql
        self._sql = ActionStatements(dialect)
        self._lane = lane
        self._rows = rows
        self._audited = audited
        self._listing = listing
        self._history = history
        self._replays = replays
        self._audit = audit
        self._token = token
        self._steady = steady
        #: The next batch is of an action that was due later than this, if there is one.
        self._behind = _LONG_AGO

    # What users do

    def begin(self, request: ActionRequest, author: Author | None) -> Deferred[Action]:
        """See `Store.begin_action`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Action:
            id = generated_name(now, self._token()[:RANDOM_OCTETS])
            at = self._dialect.instant(now)
            self._sql.add.execute(
                cursor,
                id=self._dialect.key(id),
                made=at,
                due=at,
                token=self._token(),
                request=request_to_text(request, author),
                state=str(ActionState.COUNTING),
            )
            action = Action(
                id=id, request=request, state=ActionState.COUNTING, made=now, author=author
            )
            if author is not None:
                new = request_to_json(request)
                changed = Changed(author, Verb.ACTION, None, new=new, action=id)
                self._audit.write(cursor, now, [changed])
            return action

        return self._lane.run(work, "action")

    def get(self, id: str) -> Deferred[Action]:
        """See `Store.action`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Action:
            return self._action(self._row(cursor, id))

        return self._lane.run(work, "action")

    def newest(self, limit: int) -> Deferred[list[Action]]:
        """See `Store.actions`."""

        def work(cursor: Cursor, now: datetime, since: float) -> list[Action]:
            return [self._action(row) for row in self._sql.newest.fetch(cursor, limit=limit)]

        return self._lane.run(work, "action")

    def stop(self, id: str, author: Author | None) -> Deferred[Action]:
        """See `Store.stop_action`."""

        def work(cursor: Cursor, now: datetime, since: float) -> Action:
            stopped = self._sql.stop.execute(
                cursor,
                id=self._dialect.key(id),
                ended=self._dialect.instant(now),
                token=self._token(),
                state=str(ActionState.STOPPED),
            )
            action = self._action(self._row(cursor, id))
            if stopped and author is not None:
                changed = Changed(author, Verb.STOP, None, action=action.id)
                self._audit.write(cursor, now, [changed])
            return action

        return self._lane.run(work, "action")

    def forget(self, limit: int) -> Deferred[int]:
        """See `Store.forget_actions`."""

        def work(cursor: Cursor, now: datetime, since: float) -> int:
            before = generated_name(now - REMEMBERED, bytes(RANDOM_OCTETS))
            old = self._sql.old.fetch(cursor, before=self._dialect.key(before), limit=limit)
            if old:
                self._sql.forget.execute(cursor, [octets(row.id) for row in old])
            return len(old)

        return self._lane.run(work, "action")

    def _row(self, cursor: Cursor, id: str) -> ActionRow:
        """:raises ActionNotFound: if there is none."""
        for row in self._sql.get.fetch(cursor, id=self._dialect.key(id)):
            return row
        raise action_not_found(id)

    def _action(self, row: ActionRow) -> Action:
        """The action in a row. What can't be understood is left out (P6)."""
        instance, error = text_or_none(row.instance), text_or_none(row.error)
        read_instant = self._dialect.read_instant
        request, author = None, None
        state, made, ended = ActionState.FAILED, _LONG_AGO, None
        try:
            ended = None if row.ended is None else read_instant(row.ended)
            made = read_instant(row.made)
            state = ActionState(octets(row.state).decode())
            text = octets(row.request).decode()
            request, author = request_from_text(text), author_from_text(text)
            if row.due is not None:
                read_instant(row.due)
        except ValueError as problem:
            error = str(problem)
            request, state = None, ActionState.FAILED
        return Action(
            id=text_of(row.id),
            request=request,
            state=state,
            made=made,
            ended=ended,
            matched=whole(row.matched),
            done=whole(row.done),
            failed=whole(row.failed),
            error=error,
            instance=instance,
            author=author,
        )

    # Batches

    def act(
        self, limit: int, endpoints: Collection[str], instance: str, in_any_case: bool
    ) -> Deferred[Batch]:
        """See `Store.act`."""
        return self._lane.run(partial(self._act, limit, endpoints, instance, in_any_case), "action")

    def _act(
        self,
        limit: int,
        endpoints: Collection[str],
        instance: str,
        in_any_case: bool,
        cursor: Cursor,
        now: datetime,
        since: float,
    ) -> Batch:
        at = self._dialect.instant(now)
        for row in self._next(cursor, at, self._behind) or self._next(cursor, at, _LONG_AGO):
            # If this batch breaks, the next one is of another action (P6).
            before = self._behind
            with suppress(ValueError):  # a time that is none: this batch ends the action
                self._behind = self._dialect.read_instant(row.due)
            action = self._action(row)
            is_acting = action.state is ActionState.ACTING
            if is_acting and not in_any_case and self._is_behind(cursor, at, limit):
                self._behind = before
                return Batch(action, held_up=True)
            step = self._step(cursor, now, action, row, limit, endpoints)
            action = self._write(cursor, now, action, row, step, instance)
            self._behind = before
            return Batch(action, step.dues)
        return Batch()

    def _next(self, cursor: Cursor, now: object, behind: datetime) -> list[ActionRow]:
        """The action whose next batch was due first, of those that are due later than `behind`."""
        return self._sql.due.fetch(cursor, now=now, behind=self._dialect.instant(behind))

    def _is_behind(self, cursor: Cursor, at: object, limit: int) -> bool:
        """Whether as many jobs are due already as a batch may make due."""
        ((number,),) = self._sql.count_due.fetch(cursor, now=at, limit=limit)
        return number >= limit

    def _step(
        self,
        cursor: Cursor,
        now: datetime,
        action: Action,
        row: ActionRow,
        limit: int,
        endpoints: Collection[str],
    ) -> _Step:
        """Count, or act, from the action's place on."""
        request = action.request
        try:
            place = place_from_text(octets(row.place).decode())
        except ValueError as problem:
            return _Step(None, error=str(problem), over=ActionState.FAILED)
        if request is None or (place and isinstance(place, RunPlace) is not request.of_runs):
            error = action.error or "its place is none of its walk"
            return _Step(None, error=error, over=ActionState.FAILED)
        work = _Work(cursor, now, action, request, place)
        if action.state is ActionState.COUNTING:
            return self._count(work)
        if request.of_runs:
            return self._replay(work, limit, endpoints)
        return self._act_on_jobs(work, limit)

    def _write(
        self,
        cursor: Cursor,
        now: datetime,
        action: Action,
        row: ActionRow,
        step: _Step,
        instance: str,
    ) -> Action:
        """Write what a batch has come to."""
        state = step.over or action.state
        is_over = state not in UNDER_WAY
        action = replace(
            action,
            state=state,
            ended=now if is_over else None,
            matched=min(action.matched + step.matched, MOST),
            done=min(action.done + step.done, MOST),
            failed=min(action.failed + step.failed, MOST),
            error=action.error if step.error is None else step.error[:MAX_ERROR],
            instance=instance,
        )
        # To act begins at the beginning again.
        place = None if step.over is ActionState.ACTING else step.place
        changed = self._sql.write.execute(
            cursor,
            id=octets(row.id),
            found=octets(row.token).decode(),
            token=self._token(),
            due=None if is_over else self._dialect.instant(now + PAUSE),
            ended=None if action.ended is None else self._dialect.instant(action.ended),
            state=str(state),
            matched=action.matched,
            done=action.done,
            failed=action.failed,
            error=action.error,
            place=place_to_text(place),
            instance=self._dialect.key(instance),
        )
        if changed != 1:
            raise Conflict("another instance has made the batch")
        return action

    # Counting

    def _count(self, work: _Work) -> _Step:
        request = work.request
        if request.of_runs:
            page = self._walk_runs(work, COUNTED)
            step = _Step(page.last, matched=len(page.runs))
        else:
            walked = self._walk(work, COUNTED)
            step = _Step(_position(walked.last), matched=len(walked.jobs))
        most, total = request.expect_at_most, work.action.matched + step.matched
        if most is not None and total > most:
            step.error = f"more than {most} match (expect_at_most), so nothing was done"
            step.over = ActionState.REFUSED
        elif step.place is None:
            step.over = ActionState.DONE if request.dry_run else ActionState.ACTING
        return step

    def _walk(self, work: _Work, limit: int) -> Walked:
        """The next jobs, but for those that a user has written since the action began (P4)."""
        filters = work.request.walked(work.action.made)
        assert isinstance(filters, Filters)
        assert work.place is None or isinstance(work.place, Position)
        walked = self._listing.walk(Query(filters, work.place, limit), work.cursor, work.now)
        latest = version_at(work.action.made)
        jobs = [
            each for each in walked.jobs if _is_older(each.version, latest) and _is_by_key(each)
        ]
        return Walked(jobs, walked.last)

    # Replays

    def _walk_runs(self, work: _Work, limit: int) -> RunPage:
        """The next runs, newest first; none that has ended since the action began."""
        filters = work.request.walked(work.action.made)
        assert isinstance(filters, RunFilters)
        assert work.place is None or isinstance(work.place, RunPlace)
        return self._history.walk(RunQuery(filters, work.place, limit), work.cursor, work.now)

    def _replay(self, work: _Work, limit: int, endpoints: Collection[str]) -> _Step:
        page = self._walk_runs(work, min(limit, REPLAYED))
        records = [run.record for run in page.runs]
        some = self._replays.fitting(work.cursor, records)
        left = work.action.left
        is_cut = left is not None and min(some, left) == left < len(records)
        if is_cut:
            some = left or 0
        if 0 < some < len(records):
            page = self._walk_runs(work, some)
        records = [run.record for run in page.runs[:some]]
        made = self._replays.make(
            work.cursor,
            work.now,
            records,
            endpoints,
            work.request.limits,
            work.action.author,
            work.action.id,
        )
        step = _Step(page.last, done=len(made.jobs), failed=len(made.refusals))
        step.dues = [work.now] * len(made.jobs)
        if made.refusals:
            step.error = _sentence(made.refusals[-1])
        step.end(is_cut, page.last is None, work.request)
        return step

    # Acting on jobs

    def _act_on_jobs(self, work: _Work, limit: int) -> _Step:
        walked = self._walk(work, min(limit, CHANGED))
        step = _Step(_position(walked.last))
        jobs, left = walked.jobs, work.action.left
        is_cut = left is not None and len(jobs) > left
        held = self._hold(work, jobs[:left])
        until = self._steady() + PATIENCE
        for number, each in enumerate(jobs[:left]):
            key = each.job.key
            if key not in held or (number and self._steady() >= until):
                # The next batch goes on with this one.
                step.place = _position(jobs[number - 1].place) if number else work.place
                return step
            job = held[key]
            if job is not None:
                self._do(work, job, step)
        step.end(is_cut, walked.last is None, work.request)
        return step

    def _hold(
        self, work: _Work, jobs: Sequence[Listed]
    ) -> dict[RawKey, Job | UnreadableJob | None]:
        """
        The jobs that nobody else has locked, as they are now, locked to the end of the transaction.
        None for those that are meant no more.
        """
        cursor, now = work.cursor, work.now
        keys = [each.job.key for each in jobs]
        if not keys:
            return {}
        held: dict[RawKey, Job | UnreadableJob | None] = dict.fromkeys(keys)
        if self._dialect.skip_locked:
            there = {key for key, _ in self._rows.select(cursor, self._sql_of_jobs.find_all, keys)}
            free = {key for key, _ in self._rows.select(cursor, self._sql_of_jobs.lock, keys)}
            for key in there - free:
                del held[key]
        filters = work.request.walked(work.action.made)
        assert isinstance(filters, Filters)
        # Whoever changes a job's tags changes its version.
        filters = replace(filters, tags=frozenset())
        latest = version_at(work.action.made)
        for key, row in self._rows.select(cursor, self._sql_of_jobs.get, list(held)):
            job = read_job(row, key, now, self._dialect.read_instant)
            if _is_older(row.version, latest) and filters.fit_anew(job, now):
                held[key] = job
        return held

    def _do(self, work: _Work, job: Job | UnreadableJob, step: _Step) -> None:
        """Act on a job whose row is locked."""
        try:
            self._change(work, job, step.dues)
            step.done += 1
        except (JobDisabled, JobOver, JobSetAside) as refusal:
            step.failed += 1
            step.error = _sentence(refusal)

    def _change(self, work: _Work, job: Job | UnreadableJob, dues: list[datetime]) -> None:
        """
        :raises JobDisabled: and the like: if the job can't be triggered. Then nothing is written.
        """
        cursor, now, key = work.cursor, work.now, job.key
        by = work.action.author, work.action.id
        match work.request.do:
            case Do.TRIGGER:
                job = readable(job)
                check_until(job, job.scheduled if job.standing is Standing.STOPPED else now)
                self._audited.trigger(cursor, now, key, *by)
                dues.append(now)
            case Do.ENABLE:
                enabled = self._audited.enable(cursor, now, key, *by)
                if isinstance(enabled, Job) and enabled.due is not None:
                    dues.append(enabled.scheduled)
            case Do.DISABLE:
                self._audited.disable(cursor, now, key, work.request.reason, *by)
            case Do.DELETE:
                self._audited.delete(cursor, now, key, *by)


def _sentence(refusal: DalgaError) -> str:
    """
    Why it could not be done to one. What is wrong with a row may quote the row, and not all who see
    an action may see that.
    """
    if isinstance(refusal, JobSetAside):
        return "a job can't be understood: GET /jobs?state=problem shows what is wrong with it"
    return str(refusal)


def _position(place: Place | None) -> Position | None:
    """A place in the order of keys, which all walks of jobs have."""
    assert place is None or isinstance(place, Position)
    return place


def _is_by_key(listed: Listed) -> bool:
    """
    Whether a job can be found by its key. A stranger's row may have a key that is no text, and is
    shown with one that may be another job's.
    """
    path, body = listed.job.key
    return listed.place == Position(path.encode(), body.encode())


def _is_older(version: object, latest: int) -> bool:
    return isinstance(version, int) and version <= latest
