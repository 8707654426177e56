"""
Whether a history keeps the promises: a pure function over what the endpoint and the client saw.

It knows nothing of how Dalga works, only what was asked for and what was POSTed. As in the analysis
of Chronos by Jepsen, each due time is matched to a run of its own that was finished in time. Where
something was wrong (`Fault`), a run may be late, and one that was done may be POSTed again; it may
never be lost, overlap with another of its job, or come back from the dead.

A word that was not acknowledged may have been done or not: from then on, until the next one that
was, the job may be either, and is held to what is true of both.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from faults.history import History, Key, Post, Row, Said, Says, Verb, overlapping, plainly

#: How long an answer takes to reach the instance on a busy machine, in seconds.
REPLY = 0.5

#: From a second's first moment to its last, in the microseconds of the table.
SECOND = 1 - 1e-6

#: By how much times of two sides may differ that are the same, in seconds.
EXACT = 0.001

#: How long after a request that was never answered it may still have been carried out, in seconds.
PATIENCE = 12

#: How long after its claim a POST may begin at the most, in seconds: by so much is a lease longer
#: than a POST may take.
MARGIN = 10

#: How the kind of a fault begins that keeps POSTs or answers from getting through. Others take hold
#: of what was claimed, until the lease's end.
ENDPOINT = "endpoint"

#: What gives a job other runs.
ANEW = (Verb.PUT, Verb.TRIGGER)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is in time, all in seconds; and what else the scenario has configured."""

    #: How late a POST may begin where nothing is wrong.
    late: float = 2.0
    #: How long after a DELETE, or another schedule, a run that was claimed before may begin.
    grace: float = 1.0
    #: How long a claim holds: a POST whose end the daemon did not see is made again after it.
    lease: float = 13.0
    #: The longest pause between two attempts of a run.
    backoff: float = 5.0
    #: The statuses by which a run is given up.
    given_up: tuple[int, ...] = ()


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
class Due:
    """One scheduled time, which is between these two."""

    earliest: float
    latest: float
    #: Whether it is its plan's first.
    first: bool

    @property
    def second(self) -> int:
        """As the header has it."""
        return int(self.earliest)


@dataclass(frozen=True, slots=True)
class Plan:
    """The scheduled times that one word of the client gives a job."""

    #: The first is between these two.
    earliest: float
    latest: float
    #: Seconds between two; 0 for only one.
    interval: int
    #: What the runs' requests are made of; None where nobody knows.
    says: Says | None = None

    def due(self, second: int) -> Due | None:
        """The time that is within a whole second, or where several may be; None if none is."""
        numbers = range(1)
        if self.interval:
            first = math.ceil((second - self.latest) / self.interval)
            numbers = range(max(0, first), math.ceil((second + 1 - self.earliest) / self.interval))
        found = [self._number(number) for number in numbers]
        earliest = max(min((due.earliest for due in found), default=math.inf), second)
        latest = min(max((due.latest for due in found), default=-math.inf), second + SECOND)
        return Due(earliest, latest, found[0].first) if earliest <= latest else None

    def has(self, time: float) -> bool:
        """Whether a time as exact as the table's may be one of them."""
        number = 0
        if self.interval:
            number = max(0, math.ceil((time - self.latest - EXACT) / self.interval))
        due = self._number(number)
        return due.earliest - EXACT <= time <= due.latest + EXACT

    def times(self, until: float) -> Iterator[Due]:
        """All of them, in order."""
        number = 0
        while (due := self._number(number)).earliest <= until:
            yield due
            if not self.interval:
                return
            number += 1

    def _number(self, number: int) -> Due:
        shift = number * self.interval
        return Due(self.earliest + shift, self.latest + shift, number == 0)


@dataclass(frozen=True, slots=True)
class State:
    """What a job that is there may be."""

    plan: Plan
    disabled: bool = False


#: What a job may be; None is for one that is not there. Empty where that can't be.
States = frozenset[State | None]


@dataclass(frozen=True, slots=True)
class Epoch:
    """From one word of the client to the next: what the job may be meanwhile."""

    said: Said
    states: States
    #: When the next word was said; until then all of this holds.
    ends: float
    #: When the last moment is at which this may still be so.
    over: float

    @property
    def plans(self) -> set[Plan]:
        """By which it may run."""
        return {state.plan for state in self.states if state is not None and not state.disabled}

    @property
    def certain(self) -> Plan | None:
        """The times at which it has to run, whatever was done of what nobody knows."""
        plans = self.plans
        if self.said.answered is None or not plans:
            return None  # what was acknowledged leaves all that may be enabled, or none
        some = next(iter(plans))
        if len(plans) == 1:
            return some
        # What was triggered may go on by one interval or another.
        return replace(some, interval=0) if self.said.verb is Verb.TRIGGER else None


def check(history: History, bounds: Bounds) -> list[Violation]:
    """All violations, those of one job together."""
    posts: defaultdict[Key, list[Post]] = defaultdict(list)
    said: defaultdict[Key, list[Said]] = defaultdict(list)
    for post in sorted(history.posts, key=lambda post: post.start):
        posts[post.key].append(post)
    for word in sorted(history.said, key=lambda word: word.asked):
        said[word.key].append(word)
    rows = {row.key: row for row in history.rows}
    found: list[Violation] = list(_shared(history.posts))
    for key in sorted({*posts, *said, *rows}):
        job = _Job(key, posts[key], said[key], rows.get(key), history, bounds)
        found += job.violations()
    return found


def _shared(posts: Sequence[Post]) -> Iterator[Violation]:
    """P2: a run is of one job."""
    keys: dict[str, Key] = {}
    for post in posts:
        of = keys.setdefault(post.run, post.key)
        if of != post.key:
            yield Violation("P2", post.key, f"{name_of(post)} is of {'/'.join(of)} too")


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
        self._foreign = key in history.foreign
        self._epochs = list(self._epochs_of(said))

    def _epochs_of(self, said: Sequence[Said]) -> Iterator[Epoch]:
        """What the job is, from word to word."""
        states: States = frozenset((None,))
        for number, word in enumerate(said):
            following = said[number + 1 :]
            ends = following[0].asked if following else self._ended
            sure = next((one.answered for one in following if one.answered is not None), math.inf)
            if word.refused and word.answered is not None:
                made = _refused(word, frozenset(self._once_over(states, word.answered)))
            else:
                made = _after(word, states, sure)
            states = made if word.answered is not None else made | states
            yield Epoch(word, states, ends, sure + self._bounds.grace)

    def _once_over(self, states: States, until: float) -> Iterator[State | None]:
        """What it may be, but for runs: a job that runs once is not there any more after it."""
        for state in states:
            yield state
            if state is not None and self._over(state.plan, until):
                yield None

    def violations(self) -> list[Violation]:
        rules = [self._overlaps, self._early, self._attempts, self._repeated, self._leased]
        if not self._foreign:
            rules += [
                self._answered,
                self._unasked,
                self._said_otherwise,
                self._ids,
                self._lost,
                self._flood,
                self._left,
                self._due,
            ]
        return [Violation(promise, self._key, text) for rule in rules for promise, text in rule()]

    def _overlaps(self) -> Iterator[tuple[str, str]]:
        """P3: at most one POST at a time."""
        before: Post | None = None
        for post in self._posts:
            if before is not None and (before.end is None or before.end > post.start):
                end = "goes on" if before.end is None else f"ends at {before.end:.3f}"
                yield "P3", f"{name_of(post)} begins while {name_of(before)} {end}"
            if before is None or (before.end or self._ended) < (post.end or self._ended):
                before = post

    def _early(self) -> Iterator[tuple[str, str]]:
        """P7: nothing runs before its time."""
        for post in self._posts:
            asked = [due.earliest for _, due in self._asked(post)]
            if post.start < min(asked, default=post.scheduled) - EXACT:
                yield "P7", f"{name_of(post)} is before its time"

    def _attempts(self) -> Iterator[tuple[str, str]]:
        """P2: a run has one scheduled time, and its attempts count up from 1."""
        attempts: dict[str, Post] = {}
        for post in self._posts:
            before = attempts.get(post.run)
            since: float = post.scheduled
            # Nobody knows with what a foreign job began.
            following = post.attempt if self._foreign else 1
            if before is not None:
                since, following = before.start, before.attempt + 1
                if before.scheduled != post.scheduled:
                    yield "P2", f"{name_of(post)} was scheduled for {before.scheduled} before"
            after = "none" if before is None else f"attempt {before.attempt}"
            if post.attempt < following:
                yield "P2", f"{name_of(post)} comes after {after}"
            # What was claimed by an instance that died, or did not get through, is counted too.
            elif not self._excused(
                since, post.start, (post.attempt - following) * self._bounds.lease
            ):
                yield "P2", f"{name_of(post)} comes after {after}, for no reason"
            attempts[post.run] = post

    def _repeated(self) -> Iterator[tuple[str, str]]:
        """P2: what is done is not POSTed again, unless its record may have been lost."""
        for done, post in repetitions(self._posts):
            faults = [fault for fault in self._faults if fault.repeats]
            recorded = min(self._end(done) + self._bounds.late, post.start)
            if not (
                overlapping(faults, done.start, recorded)
                and self._excused(done.start, post.start, self._bounds.lease - MARGIN)
            ):
                yield (
                    "P2",
                    f"{name_of(post)} repeats {name_of(done)}, which was done, for no reason",
                )

    def _excused(self, start: float, end: float, leases: float) -> bool:
        """Whether something went wrong by which a claim was lost, and its lease ended meanwhile."""
        if not leases:
            return True
        faults = overlapping(self._faults, start, end)
        held = bool(faults) and end - start >= leases
        return held or any(fault.kind.startswith(ENDPOINT) for fault in faults)

    def _leased(self) -> Iterator[tuple[str, str]]:
        """P5: who stops in order leaves nothing claimed."""
        if self._row is None or not self._row.leased:
            return
        if not overlapping(self._faults, self._ended - self._bounds.late, math.inf):
            yield "P5", "is leased at the end, though nobody has died"

    def _answered(self) -> Iterator[tuple[str, str]]:
        """P4, P8: each answer is one to what was asked for."""
        for epoch in self._epochs:
            word = epoch.said
            if not epoch.states and word.refused:
                yield (
                    "P1",
                    f"{_word(word)} was answered {word.refused}, though there was what to do it to",
                )
            elif not epoch.states:
                yield "P4", f"{_word(word)} was acknowledged, though there was nothing to do it to"
            if word.refused or word.answered is None or word.verb is Verb.DELETE:
                continue
            if word.verb is Verb.AMEND:
                continue  # it shows the next run of a job that may be disabled
            if (word.next_run is None) != (word.verb is Verb.DISABLE):
                yield "P4", f"{_word(word)} shows {word.next_run or 'none'} as the next run"
            elif word.verb in ANEW and _first(word, math.inf, 0) is None:
                yield "P8", f"{_word(word)} shows a run for {word.next_run}"

    def _asked(self, post: Post) -> list[tuple[Plan, Due]]:
        """The times that it may have been meant for."""
        return [
            (plan, due)
            for epoch in self._epochs
            if epoch.said.asked <= post.start <= epoch.over
            for plan in epoch.plans
            if (due := plan.due(post.scheduled)) is not None
        ]

    def _unasked(self) -> Iterator[tuple[str, str]]:
        """P4: nothing runs but what the last word, or one under way, has asked for."""
        for post in self._posts:
            if not self._asked(post):
                yield "P4", f"{name_of(post)} is none that was asked for by then"

    def _said_otherwise(self) -> Iterator[tuple[str, str]]:
        """P4: a request is made of what the PUT says that its run is of, and of nothing else's."""
        for post in self._posts:
            asked = {plan.says for plan, _ in self._asked(post)}
            if asked and post.says is not None and post.says not in asked:
                yield "P4", f"{name_of(post)} is {_made(post.says)}, which nobody asked for"

    def _ids(self) -> Iterator[tuple[str, str]]:
        """P2: one run for each scheduled time, with one id over all attempts."""
        runs: defaultdict[int, set[str]] = defaultdict(set)
        words: defaultdict[int, set[float]] = defaultdict(set)
        for post in self._posts:
            if post.run in runs[post.scheduled]:
                continue
            runs[post.scheduled].add(post.run)
            # Each PUT or trigger has a time of its own.
            begun = post.start + EXACT
            asked = self._asked(post)
            words[post.scheduled].update(
                plan.earliest for plan, due in asked if due.earliest < begun
            )
        for scheduled, ids in runs.items():
            if len(ids) > max(1, len(words[scheduled])):
                yield "P2", f"{len(ids)} runs for {scheduled}: {', '.join(sorted(ids))}"

    def _lost(self) -> Iterator[tuple[str, str]]:
        """P2, P5, P9: each due time has a run of its own, in time, or went by during another."""
        for epoch in self._epochs:
            plan, answered = epoch.certain, epoch.said.answered
            if plan is None or answered is None:
                continue
            times = list(plan.times(epoch.ends))
            if epoch.said.verb is Verb.ENABLE:
                # What went by before comes down to one run, the last's if there was none before.
                past = sum(due.latest <= answered for due in times)
                times = times[max(0, past - 1) :]
            elif epoch.said.verb is Verb.AMEND:
                times = [due for due in times if due.latest > answered]  # what it left as it was
            for due in times:
                by = self._by(plan, due, answered)
                following = self._following(epoch, plan, due)
                if following is not None:
                    by = min(by, following)
                elif by >= epoch.ends:
                    break
                if not self._ran(due, by) and not self._passed_over(plan, due, by):
                    yield "P2", f"no run for {due.second} was done by {by:.3f}"

    def _following(self, epoch: Epoch, plan: Plan, due: Due) -> float | None:
        """When a run for a later time begins, as none is late any more then, but lost."""
        for post in self._posts:
            if (
                epoch.said.asked <= post.start < epoch.ends
                and post.scheduled > due.second
                and plan.due(post.scheduled) is not None
            ):
                return post.start
        at = None if self._row is None else self._row.scheduled
        last = epoch is self._epochs[-1]
        if last and at is not None and plan.has(at) and at > due.latest + EXACT:
            return math.inf  # that is still to come
        return None

    def _by(self, plan: Plan, due: Due, answered: float) -> float:
        """Until when a run has to have begun that is due then."""
        late = self._bounds.late
        start = max(due.latest, answered)
        by = start + late
        excuses = [(fault.start, fault.end) for fault in self._faults]
        for post in self._posts:
            if post.scheduled > due.second or self._is_for(due, post):
                continue
            end = self._end(post)
            # Another word does away with what is to be tried again.
            again = not post.done and post.start >= plan.earliest and plan.due(post.scheduled)
            excuses.append((post.start, end + self._bounds.backoff if again else end))
        changed = True
        while changed:
            changed = False
            for since, until in excuses:
                if since <= by and until >= start and until + late > by:
                    by, changed = until + late, True
        return by

    def _ran(self, due: Due, by: float) -> bool:
        return any(self._is_for(due, post) and post.start <= by for post in self._posts)

    def _is_for(self, due: Due, post: Post) -> bool:
        """Whether it is the run for a time, and was done."""
        in_time = post.start >= due.earliest - EXACT
        return post.done and post.scheduled == due.second and in_time

    def _passed_over(self, plan: Plan, due: Due, by: float) -> bool:
        """P9: an earlier run of the plan was still to be done, or was being done, then."""
        return any(
            post.done
            and post.scheduled < due.second
            and post.start <= by
            and plan.due(post.scheduled) is not None
            and self._seen(post) >= due.earliest
            for post in self._posts
        )

    def _flood(self) -> Iterator[tuple[str, str]]:
        """P9: what goes by while a run is still to be done has none of its own."""
        done: Post | None = None
        for post in self._posts:
            asked = self._asked(post)
            if done is not None and done.run != post.run and self._end(done) <= post.start:
                went_by = self._end(done) - REPLY
                if asked and all(not due.first and due.latest < went_by for _, due in asked):
                    yield "P9", f"{name_of(post)} went by during {name_of(done)}"
            if post.done:
                done = post

    def _end(self, post: Post) -> float:
        return self._ended if post.end is None else post.end

    def _seen(self, post: Post) -> float:
        """When its instance knew of its end at the latest: not while it was held."""
        end = self._end(post) + REPLY
        return max(
            (
                fault.end + REPLY
                for fault in overlapping(self._faults, self._end(post), end)
                if fault.held == post.instance
            ),
            default=end,
        )

    def _left(self) -> Iterator[tuple[str, str]]:
        """P1, P4: at the end the table holds what the last word left."""
        states = self._epochs[-1].states if self._epochs else frozenset((None,))
        there = [state for state in states if state is not None]
        row = self._row
        if row is not None and row.deleted and not row.leased:
            yield "P4", "is in the table, though it was deleted, and its run has ended"
        if not states:
            return
        if row is None or row.deleted:
            if len(there) == len(states) and not any(self._over(state.plan) for state in there):
                once = not any(state.plan.interval for state in there)
                why = "it has not run" if once else "nobody has deleted it"
                yield "P1", f"is gone, though {why}"
            return
        if not there:
            yield "P4", f"is in the table, though {self._why_not()}"
            return
        same = [state for state in there if state.disabled == row.disabled]
        if not same:
            yield "P4", f"is {'disabled' if row.disabled else 'enabled'} at the end"
        elif all(self._over(state.plan) for state in same):
            if not row.leased and all(self._surely_over(state.plan) for state in same):
                stands = "disabled" if row.disabled else f"due at {row.due or math.nan:.3f}"
                yield "P2", f"is in the table, {stands}, though it ran once, and was done"
        elif row.scheduled is None or not any(state.plan.has(row.scheduled) for state in same):
            shown = "no time" if row.scheduled is None else f"{row.scheduled:.3f}"
            yield "P4", f"is scheduled for {shown} at the end, which nobody asked for"
        elif row.says is not None and not any(state.plan.says == row.says for state in same):
            yield "P4", f"is {_made(row.says)} at the end, which nobody asked for"
        elif row.says is not None and row.tags != tuple(filter(None, [row.says.header])):
            yield "P4", f"has the tags {row.tags} at the end, and is {_made(row.says)}"

    def _due(self) -> Iterator[tuple[str, str]]:
        """P4, P5: at the end a job that is enabled is due at its time or when it is tried again."""
        row = self._row
        if row is None or row.leased or row.deleted:
            return
        if row.disabled:
            if row.due is not None:
                yield "P4", f"is due at {row.due:.3f}, though it is disabled"
        elif row.due is None:
            yield "P5", "is never due again"
        elif row.due > max(row.scheduled or 0.0, self._ended + self._bounds.backoff) + EXACT:
            yield "P5", f"is not due again before {row.due:.3f}"

    def _over(self, plan: Plan, until: float = math.inf) -> bool:
        """Whether it has no more runs by then."""
        if plan.interval:
            return False
        return any(
            due is not None and self._is_for(due, post)
            for post in self._posts
            if post.start <= until
            for due in (plan.due(post.scheduled),)
        )

    def _surely_over(self, plan: Plan) -> bool:
        """
        Whether a run that was done can be of no other plan. A word may come while the POST of a run
        is on its way, and make a run for the same second: then that POST looks like the new run's.
        """
        times = plan.earliest, plan.latest
        return any(
            self._is_for(due, post)
            and all((of.earliest, of.latest) == times for of, _ in self._asked(post))
            for post in self._posts
            if (due := plan.due(post.scheduled)) is not None
        )

    def _why_not(self) -> str:
        return "it was deleted" if self._epochs else "nobody asked for it"


def _after(word: Said, states: States, sure: float) -> States:
    """
    What a job may be after a word that was done.

    :param sure: when the next word was acknowledged: by then this one was done, or never will be.
    """
    there = [state for state in states if state is not None]
    made: set[State | None]
    match word.verb:
        case Verb.PUT:
            made = {_anew(word, sure, word.interval, word.says or plainly(word.key[1]))}
        case Verb.TRIGGER:
            enabled = [state for state in there if not state.disabled]
            made = {_anew(word, sure, state.plan.interval, state.plan.says) for state in enabled}
        case Verb.DISABLE | Verb.ENABLE:
            made = {replace(state, disabled=word.verb is Verb.DISABLE) for state in there}
        case Verb.AMEND:
            said = word.says or plainly(word.key[1])
            made = {replace(state, plan=replace(state.plan, says=said)) for state in there}
        case Verb.DELETE:
            made = {None}
    return frozenset(made)


def _refused(word: Said, states: States) -> States:
    """What a job may be to which a word could not be done."""
    if word.verb not in (Verb.TRIGGER, Verb.DISABLE, Verb.ENABLE, Verb.AMEND):
        return frozenset()
    if word.refused == HTTPStatus.NOT_FOUND:
        return states & {None}
    return frozenset(state for state in states if state is not None and state.disabled)


def _anew(word: Said, sure: float, interval: int, says: Says | None) -> State:
    plan = _first(word, sure, interval)
    if plan is None:  # what it shows is wrong, but is what it will do
        assert word.next_run is not None
        plan = Plan(word.next_run, word.next_run + SECOND, interval)
    return State(replace(plan, says=says))


def _first(word: Said, sure: float, interval: int) -> Plan | None:
    """The plan that a PUT or a trigger makes; None if its answer shows another."""
    delay = word.delay if word.verb is Verb.PUT else 0.0
    if word.answered is None:
        done = max(word.asked, min(word.asked + PATIENCE, sure))
        return Plan(word.asked + delay, done + delay, interval)
    earliest, latest = word.asked + delay, word.answered + delay
    if word.next_run is not None:
        earliest, latest = max(earliest, word.next_run), min(latest, word.next_run + SECOND)
    return Plan(earliest, latest, interval) if earliest <= latest else None


def name_of(post: Post) -> str:
    """Of one POST, as violations have it."""
    return f"run {post.run} ({post.scheduled}), attempt {post.attempt}, at {post.start:.3f}"


def _made(of: Says) -> str:
    header = of.header or "no header"
    return f"{of.method} with {header} and {of.content}"


def _word(word: Said) -> str:
    return f"{word.verb.upper()} of {word.asked:.3f}"
