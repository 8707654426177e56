"""
Whether the table of runs tells what happened (P13): a pure function over what the endpoint and the
client saw, and the records that are left at the end.

A run that has ended has one record, which agrees with the endpoint's log; a run that is to be tried
again has an open record, and its job's row says so. Beyond the log there is one more witness: a row
names its job's run until the run ends (`Row.run`). So a run that was POSTed, and that no row names
any more, has ended.

An example: a job is POSTed at 10:00 and answered 500, and at 10:01 answered 200. From 10:00 to
10:01 there is one open record, of attempt 1. From then on there is one record: succeeded, attempt
2, status 200.

What a fault may take from that:

- An instance dies between an answer and its record. The run is POSTed again, and has one record, of
  the last attempt.
- It dies while a user's PUT, trigger or DELETE waits for the run's end. The run is not POSTed
  again, and nobody knows what came of it: it has no record, or one that names no instance, or one
  of an attempt before, which may be open until the job's next run ends. Where it died before the
  POST, and a DELETE waited, the record that names no instance is all that there is of the run.
- A request or an answer is lost on its way. The record has an attempt that the endpoint has not
  seen, or no status where the endpoint has answered.
- A database loses what it had committed. A run and its record are lost together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from faults.checker import ANEW, ENDPOINT, MARGIN, REPLY, Bounds, Violation, name_of
from faults.history import History, Key, Post, Record, Row, Said, Verb, overlapping

#: What a run may come to whose job is changed or deleted before its next attempt, and by what.
CHANGED: dict[str, tuple[Verb, ...]] = {"overridden": ANEW, "cancelled": (Verb.DELETE,)}

#: What each answer alone makes of a run.
BY_STATUS = {"succeeded": 200, "removed": 204}


def check_records(history: History, bounds: Bounds) -> list[Violation]:
    """All violations of P13, those of one run together."""
    posts: defaultdict[str, list[Post]] = defaultdict(list)
    records: defaultdict[str, list[Record]] = defaultdict(list)
    words: defaultdict[Key, list[Said]] = defaultdict(list)
    for post in sorted(history.posts, key=lambda post: post.start):
        posts[post.run].append(post)
    for record in history.records:
        records[record.run].append(record)
    for word in history.said:
        words[word.key].append(word)
    rows = {row.key: row for row in history.rows}
    opened = {record.key for record in history.records if record.result is None}
    found = []
    for name in {**posts, **records}:
        key = posts[name][0].key if posts[name] else records[name][0].key
        row = rows.get(key)
        run = _Run(name, key, posts[name], records[name], row, words[key], history, bounds)
        found += run.violations()
    for row in history.rows:
        if row.opened and row.key not in opened:
            found.append(Violation("P13", row.key, f"run {row.run} has no open record"))
    return sorted(found, key=lambda violation: violation.key)


class _Run:
    """What is known of one run."""

    def __init__(
        self,
        name: str,
        key: Key,
        posts: list[Post],
        records: list[Record],
        row: Row | None,
        words: list[Said],
        history: History,
        bounds: Bounds,
    ) -> None:
        self._name = name
        self._key = key
        #: By their start.
        self._posts = posts
        self._records = records
        #: The job's row, if that says that this is its run.
        self._row = row if row is not None and row.run == name else None
        self._words = words
        self._faults = history.faults
        self._ended = history.ended
        self._bounds = bounds
        self._foreign = key in history.foreign

    def violations(self) -> list[Violation]:
        found = [*self._counted()]
        for record in self._records:
            found += self._agrees(record)
        return [Violation("P13", self._key, f"run {self._name} {text}") for text in found]

    def _counted(self) -> Iterator[str]:
        """How many records there are."""
        over = [record.result for record in self._records if record.result is not None]
        opened = len(self._records) - len(over)
        if len(over) > 1:
            yield f"has {len(over)} records: {', '.join(over)}"
        if opened > 1:
            yield f"has {opened} open records"
        if over and opened:
            yield f"is open, and {over[0]}"
        if over and self._row is not None:
            yield f"is {over[0]}, and its job's run still"
        if opened and self._row is None and not (self._posts and self._may_lack_record()):
            yield "is open, and not its job's run"
        if opened and self._row is not None and not self._row.opened:
            yield "is open, and its job's row does not say so"
        if self._posts and not self._records:
            if self._row is None and not self._may_lack_record():
                yield f"has no record, and {name_of(self._posts[-1])} has ended it"
            elif self._row is not None and self._waits(self._row):
                yield f"has no record, and {name_of(self._posts[-1])} has failed"

    def _may_lack_record(self) -> bool:
        """Whether it may have ended without one: a user's word came, and who would have recorded
        the run did not live to do so."""
        last = self._posts[-1]
        faults = overlapping(self._faults, last.start, self._end(last) + self._bounds.late)
        if not faults:
            return False
        return (
            self._foreign
            or any(fault.loses for fault in faults)
            or self._was_changed(*ANEW, Verb.DELETE)
        )

    def _was_changed(self, *verbs: Verb) -> bool:
        """Whether a user's word of these may have been carried out since its first POST."""
        since = self._posts[0].start - self._bounds.grace
        return any(
            word.verb in verbs and (word.answered is None or word.answered >= since)
            for word in self._words
        )

    def _waits(self, row: Row) -> bool:
        """Whether its last attempt has failed, and was recorded."""
        last = self._posts[-1]
        if row.leased or row.attempts != last.attempt or last.done:
            return False
        return not overlapping(self._faults, last.start, self._end(last) + self._bounds.late)

    def _agrees(self, record: Record) -> Iterator[str]:
        """A record tells of the run what the endpoint's log does."""
        if record.key != self._key:
            yield f"is recorded of {'/'.join(record.key)}"
        if not self._posts:
            if not self._may_be_unseen(record):
                yield f"is recorded as {_result(record)}, and was never POSTed"
            return
        if record.scheduled is None or int(record.scheduled) != self._posts[0].scheduled:
            yield f"is recorded for {record.scheduled}, not for {self._posts[0].scheduled}"
        yield from self._result(record)
        if not record.instance and record.result in CHANGED and record.status is None:
            if not self._may_lack_record():
                yield f"is recorded as {record.result}, and of no instance"
            return
        yield from self._attempts(record)
        for tried in record.tried:
            post = self._attempt(tried.number)
            if post is not None and not self._is_status(post, tried.status):
                yield f"has status {tried.status} in its record for {name_of(post)}"
            if post is not None and tried.instance != post.instance:
                yield f"has instance {tried.instance} in its record for {name_of(post)}"
            if post is None and tried.status is not None:
                yield f"has an attempt {tried.number} in its record that was never POSTed"
        if record.tried and record.tried[-1].number != record.attempts:
            yield f"has {record.attempts} attempts, and {record.tried[-1].number} listed"

    def _may_be_unseen(self, record: Record) -> bool:
        """Whether a run may have a record without a POST: none of them got through."""
        if record.status is not None or record.result in BY_STATUS or record.result == "skipped":
            return False
        since = (record.scheduled if record.started is None else record.started) or 0.0
        if self._foreign or self._was_cut_off(since, record.ended or self._ended):
            return True
        if record.instance or record.result != "cancelled":
            return False
        # Whoever removes the job knows of a claim alone.
        return bool(overlapping(self._faults, since, since + self._bounds.late)) and any(
            word.verb is Verb.DELETE and (word.answered is None or word.answered >= since)
            for word in self._words
        )

    def _was_cut_off(self, start: float, end: float) -> bool:
        faults = overlapping(self._faults, start, end)
        return any(fault.kind.startswith(ENDPOINT) for fault in faults)

    def _result(self, record: Record) -> Iterator[str]:
        """What the run came to is what the answer, or a user's word, makes of it."""
        result, status = record.result, record.status
        if result in BY_STATUS:
            if status != BY_STATUS[result]:
                yield f"is recorded as {result}, with status {status}"
        elif status in BY_STATUS.values():
            yield f"is recorded as {_result(record)}, with status {status}"
        elif result in CHANGED:
            if not self._foreign and not self._was_changed(*CHANGED[result]):
                yield f"is recorded as {result}, which nobody asked for"
        elif result is not None and not (result == "given_up" and status in self._bounds.given_up):
            yield f"is recorded as {result}, with status {status}"

    def _attempts(self, record: Record) -> Iterator[str]:
        """The last attempt that the record knows of is the last one, and as it was."""
        later = [post for post in self._posts if post.attempt > record.attempts]
        if later:
            # Nobody knew what came of the later ones; but whoever has an answer records that one.
            unknown = record.result is None or record.result in CHANGED
            first = later[0]
            until = self._end(first) + self._bounds.late
            if not unknown or not overlapping(self._faults, first.start, until):
                yield f"has {record.attempts} attempts in its record, and {name_of(first)}"
        post = self._attempt(record.attempts)
        if post is None:
            until = self._ended if record.ended is None else record.ended
            if record.status is not None or not self._was_cut_off(self._posts[0].start, until):
                yield f"is recorded with attempt {record.attempts}, which was never POSTed"
            return
        if not self._is_status(post, record.status):
            yield f"is recorded with status {record.status}, and {name_of(post)} had {post.status}"
        if record.instance != post.instance:
            yield f"is recorded with instance {record.instance}, and {name_of(post)} was another's"
        if post.end is None or overlapping(
            self._faults, self._posts[0].start, post.end + self._bounds.late
        ):
            return
        yield from self._times(record, post, post.end)

    def _times(self, record: Record, post: Post, end: float) -> Iterator[str]:
        """When it began and ended, where nothing was wrong."""
        first, late = self._posts[0], self._bounds.late
        if first.attempt == 1 and not _within(
            record.started, first.start - late, first.start + REPLY
        ):
            yield f"began at {record.started} by its record, and was {name_of(first)}"
        if record.result in BY_STATUS and not _within(record.ended, end - REPLY, end + late):
            yield f"ended at {record.ended} by its record, and {name_of(post)} at {end:.3f}"

    def _attempt(self, number: int) -> Post | None:
        """Its last POST of that number."""
        return next((post for post in reversed(self._posts) if post.attempt == number), None)

    def _is_status(self, post: Post, status: int | None) -> bool:
        """Whether a daemon may have seen that status of a POST."""
        if status is not None:
            return status in (post.status, post.begun)
        if post.status is None and post.begun is None:
            return True
        # The daemon gave up waiting, or the answer was lost on its way.
        took = self._end(post) - post.start
        return took >= self._bounds.lease - MARGIN - REPLY or bool(
            overlapping(self._faults, post.start, self._end(post) + REPLY)
        )

    def _end(self, post: Post) -> float:
        return self._ended if post.end is None else post.end


def _within(value: float | None, least: float, most: float) -> bool:
    return least <= (math.nan if value is None else value) <= most


def _result(record: Record) -> str:
    return record.result or "open"
