"""
Whether a history keeps the promises: a pure function over what the endpoint and the client saw.

It knows nothing of how Dalga works, only what was asked for and what was POSTed. As in the analysis
of Chronos by Jepsen, each due time is matched to a run of its own that was finished in time. Where
something was wrong (`Fault`), a run may be late, and one that was done may be POSTed again; it may
never be lost, overlap with another of its job, or come back from the dead.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from faults.history import History, Key, Post, Row, Said, Verb, overlapping

#: How long an answer takes to reach the instance on a busy machine, in seconds.
REPLY = 0.5

#: How long after a request that was never answered it may still have been carried out, in seconds.
PATIENCE = 12


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is in time; all in seconds."""

    #: How late a POST may begin where nothing is wrong.
    late: float = 2.0
    #: How long after a DELETE, or another schedule, a run that was claimed before may begin.
    grace: float = 1.0
    #: How long a claim holds: a POST whose end the daemon did not see is made again after it.
    lease: float = 13.0
    #: The longest pause between two attempts of a run.
    backoff: float = 5.0


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    promise: str
    key: Key
    text: str

    def __str__(self) -> str:
        path, body = self.key
        return f"{self.promise}: {path}/{body}: {self.text}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The scheduled times that one word of the client gives a job."""

    #: The first is between these two, in whole seconds.
    first: int
    last_first: int
    #: Seconds between two; 0 for only one.
    interval: int

    def has(self, scheduled: int) -> bool:
        """Whether a run with this time is one of them."""
        if not self.interval:
            return self.first <= scheduled <= self.last_first
        back = (scheduled - self.first) % self.interval
        return scheduled >= self.first and back <= self.last_first - self.first

    def times(self, until: float) -> Iterator[int]:
        """Those that are certain, in order."""
        if self.first != self.last_first:
            return
        at = self.first
        while at <= until:
            yield at
            if not self.interval:
                return
            at += self.interval


@dataclass(frozen=True, slots=True)
class Epoch:
    """From one word of the client to the next: what the job is meanwhile."""

    said: Said
    #: None where it does not run: deleted or disabled.
    plan: Plan | None
    #: When the next word was said; until then all of this holds.
    ends: float
    #: When the last moment is at which this may still be so.
    over: float


def check(history: History, bounds: Bounds) -> list[Violation]:
    """All violations, those of one job together."""
    posts: defaultdict[Key, list[Post]] = defaultdict(list)
    said: defaultdict[Key, list[Said]] = defaultdict(list)
    for post in sorted(history.posts, key=lambda post: post.start):
        posts[post.key].append(post)
    for word in sorted(history.said, key=lambda word: word.asked):
        said[word.key].append(word)
    rows = {row.key: row for row in history.rows}
    found: list[Violation] = []
    for key in sorted({*posts, *said, *rows}):
        job = _Job(key, posts[key], said[key], rows.get(key), history, bounds)
        found += job.violations()
    return found


def repetitions(posts: Sequence[Post]) -> list[tuple[Post, Post]]:
    """Pairs of POSTs of one run of which the first was done already."""
    done: dict[str, Post] = {}
    found = []
    for post in sorted(posts, key=lambda post: post.start):
        if post.run in done:
            found.append((done[post.run], post))
        elif post.done:
            done[post.run] = post
    return found


class _Job:
    """What is known of one job."""

    def __init__(
        self,
        key: Key,
        posts: list[Post],
        said: list[Said],
        row: Row | None,
        history: History,
        bounds: Bounds,
    ) -> None:
        self._key = key
        self._posts = posts
        self._row = row
        self._faults = history.faults
        self._ended = history.ended
        self._bounds = bounds
        self._epochs = list(_epochs(said, history.ended, bounds))

    def violations(self) -> list[Violation]:
        return [
            Violation(promise, self._key, text)
            for rule in (
                self._overlaps,
                self._unasked,
                self._early,
                self._runs,
                self._repeated,
                self._lost,
                self._left,
            )
            for promise, text in rule()
        ]

    def _overlaps(self) -> Iterator[tuple[str, str]]:
        """P3: at most one POST at a time."""
        before: Post | None = None
        for post in self._posts:
            if before is not None and (before.end is None or before.end > post.start):
                end = "goes on" if before.end is None else f"ends at {before.end:.3f}"
                yield "P3", f"{_name(post)} begins while {_name(before)} {end}"
            if before is None or (before.end or self._ended) < (post.end or self._ended):
                before = post

    def _unasked(self) -> Iterator[tuple[str, str]]:
        """P4: nothing runs but what the last word, or one under way, has asked for."""
        for post in self._posts:
            may = [
                epoch
                for epoch in self._epochs
                if epoch.said.asked <= post.start <= epoch.over and epoch.plan is not None
            ]
            if not any(epoch.plan and epoch.plan.has(post.scheduled) for epoch in may):
                yield "P4", f"{_name(post)} is none that was asked for by then"

    def _early(self) -> Iterator[tuple[str, str]]:
        """P7: nothing runs before its time."""
        for post in self._posts:
            if post.start < post.scheduled:
                yield "P7", f"{_name(post)} is before its time"

    def _runs(self) -> Iterator[tuple[str, str]]:
        """P2: one run for each scheduled time, with one id over all attempts."""
        attempts: dict[str, Post] = {}
        runs: defaultdict[int, set[str]] = defaultdict(set)
        for post in self._posts:
            before = attempts.get(post.run)
            if before is not None and before.scheduled != post.scheduled:
                yield "P2", f"{_name(post)} was scheduled for {before.scheduled} before"
            if before is not None and before.attempt >= post.attempt:
                yield "P2", f"{_name(post)} comes after attempt {before.attempt}"
            attempts[post.run] = post
            runs[post.scheduled].add(post.run)
        for scheduled, ids in runs.items():
            plans = [epoch.plan for epoch in self._epochs if epoch.plan is not None]
            if len(ids) > max(1, sum(plan.has(scheduled) for plan in plans)):
                yield "P2", f"{len(ids)} runs for {scheduled}: {', '.join(sorted(ids))}"

    def _repeated(self) -> Iterator[tuple[str, str]]:
        """P2: what is done is not POSTed again, unless its record may have been lost."""
        for done, post in repetitions(self._posts):
            faults = overlapping(self._faults, done.start, post.start)
            if not any(fault.repeats for fault in faults):
                yield "P2", f"{_name(post)} repeats {_name(done)}, which was done, for no reason"

    def _lost(self) -> Iterator[tuple[str, str]]:
        """P2, P5, P9: each due time has a run of its own, in time, or went by during another."""
        for epoch in self._epochs:
            if epoch.plan is None or epoch.said.answered is None:
                continue
            for due in epoch.plan.times(epoch.ends):
                if epoch.said.verb is Verb.ENABLE and due <= epoch.said.answered:
                    continue  # it may have run before it was disabled
                by = self._by(due, epoch.said.answered)
                if by >= epoch.ends:
                    break
                if not self._ran(due, by) and not self._passed_over(due):
                    yield "P2", f"no run for {due} was done by {by:.3f}"

    def _by(self, due: int, answered: float) -> float:
        """Until when a run has to have begun that is due then."""
        bounds = self._bounds
        # The header has whole seconds: it may be due a second later.
        start = max(due + 1.0, answered)
        by = start + bounds.late
        excuses = [(fault.start, fault.end) for fault in self._faults]
        for post in self._posts:
            if post.scheduled > due or (post.done and post.scheduled == due):
                continue
            if post.done:
                excuses.append((post.start, post.end or self._ended))
            elif post.end is None or post.status is None:
                excuses.append((post.start, post.start + bounds.lease))
            else:
                excuses.append((post.start, post.end + bounds.backoff))
        changed = True
        while changed:
            changed = False
            for since, until in excuses:
                if since <= by and until >= start and until + bounds.late > by:
                    by, changed = until + bounds.late, True
        return by

    def _ran(self, due: int, by: float) -> bool:
        return any(p.done and p.scheduled == due and p.start <= by for p in self._posts)

    def _passed_over(self, due: int) -> bool:
        """P9: an earlier run was still to be done, or was being done, when this was due."""
        return any(
            post.done and post.scheduled < due and post.end is not None and post.end + REPLY >= due
            for post in self._posts
        )

    def _left(self) -> Iterator[tuple[str, str]]:
        """At the end the table holds what the last word left."""
        if not self._epochs:
            if self._row is not None:
                yield "P4", "is in the table, though nobody asked for it"
            return
        last = self._epochs[-1]
        row = self._row
        if last.said.answered is None:
            return  # nobody knows
        if last.said.verb is Verb.DELETE:
            if row is not None and not row.deleted:
                yield "P4", "is in the table, though it was deleted"
            return
        if last.plan is not None and not last.plan.interval:
            done = any(p.done and last.plan.has(p.scheduled) for p in self._posts)
            if done and row is not None and not row.leased:
                yield "P2", "is in the table, though it ran once, and was done"
            if not done and row is None:
                yield "P1", "is gone, though it has not run"
            return
        if row is None or row.deleted:
            if last.plan is not None or self._periodic():
                yield "P1", "is gone, though nobody has deleted it"
            return
        if row.disabled != (last.said.verb is Verb.DISABLE):
            yield "P4", f"is {'disabled' if row.disabled else 'enabled'} at the end"
        if last.plan is not None and not (row.scheduled and last.plan.has(row.scheduled)):
            yield "P4", f"is scheduled for {row.scheduled} at the end, which nobody asked for"

    def _periodic(self) -> bool:
        plans = [epoch.plan for epoch in self._epochs if epoch.plan is not None]
        return bool(plans) and plans[-1].interval > 0


def _epochs(said: Sequence[Said], ended: float, bounds: Bounds) -> Iterator[Epoch]:
    """What a job is, from word to word."""
    plan: Plan | None = None
    kept: Plan | None = None  # what a disabled job goes back to
    for number, word in enumerate(said):
        plan, kept = _plan(word, plan, kept)
        following = said[number + 1 :]
        ends = following[0].asked if following else ended
        sure = next((later.answered for later in following if later.answered is not None), None)
        over = math.inf if sure is None else sure + bounds.grace
        yield Epoch(word, plan, ends, over)


def _plan(word: Said, plan: Plan | None, kept: Plan | None) -> tuple[Plan | None, Plan | None]:
    """What a word makes of a job's plan, and of the one that it is enabled with again."""
    match word.verb:
        case Verb.PUT:
            if word.next_run is not None:
                made = Plan(word.next_run, word.next_run, word.interval)
            else:
                first = int(word.asked) + word.delay
                made = Plan(first, first + PATIENCE, word.interval)
            return made, made
        case Verb.TRIGGER:
            if kept is None:
                return plan, kept
            first = int(word.asked) if word.next_run is None else word.next_run
            last = first if word.next_run is not None else first + PATIENCE
            made = Plan(first, last, kept.interval)
            return made, made
        case Verb.DISABLE:
            return None, kept
        case Verb.ENABLE:
            return kept, kept
        case Verb.DELETE:
            return None, None


def _name(post: Post) -> str:
    return f"run {post.run} ({post.scheduled}), attempt {post.attempt}, at {post.start:.3f}"
