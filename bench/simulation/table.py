"""The jobs table: rows, an index of due times, row locks, and a log that each commit flushes."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bench.simulation.machine import MS, Cores, Interpreter, Then, Time
from dalga.model.run import Delete, End, GiveBack
from dalga.store import Dues, Recorded

#: How long a flush of the log takes (innodb_flush_log_at_trx_commit=1). Measured: 0.19 ms.
COMMIT = 0.19 * MS


@dataclass
class Row:
    """A job that is run once."""

    id: int
    scheduled: datetime
    due: datetime
    token: bytes | None = None
    attempts: int = 0
    #: The transaction that has locked it.
    locked: Transaction | None = None


@dataclass(eq=False)
class Transaction:
    """One that is under way."""

    owner: Interpreter
    locked: list[Row] = field(default_factory=list)
    committing: bool = False
    #: What goes on when its locks are gone.
    followers: list[Then] = field(default_factory=list)


class Database:
    """
    A table, its index of due times, row locks and a log that is flushed by each commit.

    :param skip_locked: whether a claim passes over locked rows; else it waits for them, and takes
        those that are still due then.
    """

    def __init__(self, time: Time, cores: Cores, commit: float, skip_locked: bool = True) -> None:
        self._time, self._cores, self._flush = time, cores, commit
        self.skip_locked = skip_locked
        self.rows: dict[int, Row] = {}
        self._due: list[tuple[datetime, int]] = []
        self._open: set[Transaction] = set()
        self._to_flush: list[Then] = []
        self._flushing: list[Then] = []
        self._tokens = 0
        #: Transactions, flushes, scans, the times that they read, and claims that found nothing.
        self.counts: Counter[str] = Counter()
        #: CPU seconds used so far.
        self.used = 0.0

    def compute(self, work: float, then: Then) -> None:
        self.used += work
        self._cores.run(work, then)

    def insert(self, due: datetime) -> Row:
        row = Row(len(self.rows), due, due)
        self.rows[row.id] = row
        insort(self._due, (due, row.id))
        return row

    def begin(self, owner: Interpreter) -> Transaction:
        transaction = Transaction(owner)
        self._open.add(transaction)
        self.counts["transactions"] += 1
        return transaction

    def find(self, transaction: Transaction, limit: int, now: datetime) -> tuple[list[Row], int]:
        """Up to `limit` due rows, locked where the engine does that; and how many were passed."""
        found: list[Row] = []
        passed = 0
        for due, id in self._due:
            if due > now or len(found) == limit:
                break
            row = self.rows[id]
            if self.skip_locked and row.locked is not None:
                passed += 1
                continue
            found.append(row)
            if self.skip_locked:
                self._lock(transaction, row)
        return found, passed

    def lock_all(self, transaction: Transaction, rows: list[Row], then: Then) -> None:
        """Wait for each row's lock, in order."""
        for row in rows:
            if row.locked is not None and row.locked is not transaction:
                row.locked.followers.append(lambda: self.lock_all(transaction, rows, then))
                return
            self._lock(transaction, row)
        then()

    def _lock(self, transaction: Transaction, row: Row) -> None:
        # A statement of an instance that has died meanwhile is rolled back.
        if row.locked is None and transaction in self._open:
            row.locked = transaction
            transaction.locked.append(row)

    def take(self, rows: list[Row], until: datetime) -> bytes:
        self._tokens += 1
        token = self._tokens.to_bytes(16, "big")
        for row in rows:
            row.token = token
            row.attempts += 1
            self._move(row, until)
        return token

    def write(self, ends: list[End], recorded: Recorded) -> None:
        """Write the ends of runs, and note what became of each."""
        for end in ends:
            row = self.rows.get(end.run.row)
            if row is None or row.token != end.run.token:
                recorded.lost.append(end)
                continue
            recorded.written.append(end)
            match end.verdict:
                case Delete():
                    self._forget_due(row)
                    del self.rows[row.id]
                case GiveBack():
                    row.token, row.attempts = None, row.attempts - 1
                    self._move(row, end.run.due)
                case other:
                    raise ValueError(f"each job here is run once, and its POST succeeds: {other}")

    def due_within(self, within: timedelta, limit: int, now: datetime) -> Dues:
        horizon = now + within
        times = [due for due, _ in self._due[:limit] if due <= horizon]
        return Dues(times, times[-1] if len(times) == limit else horizon)

    def _move(self, row: Row, due: datetime) -> None:
        self._forget_due(row)
        row.due = due
        insort(self._due, (due, row.id))

    def _forget_due(self, row: Row) -> None:
        del self._due[bisect_left(self._due, (row.due, row.id))]

    def commit(self, transaction: Transaction, write: Then, then: Then) -> None:
        """Flush the log, together with all that wait for that, and let go of the locks."""
        transaction.committing = True

        def flushed() -> None:
            write()
            self.end(transaction)
            then()

        self._to_flush.append(flushed)
        if not self._flushing:
            self._start_flush()

    def _start_flush(self) -> None:
        self._flushing, self._to_flush = self._to_flush, []
        self.counts["flushes"] += 1
        self._time.after(self._flush, self._flushed)

    def _flushed(self) -> None:
        done, self._flushing = self._flushing, []
        if self._to_flush:
            self._start_flush()
        for then in done:
            then()

    def end(self, transaction: Transaction) -> None:
        """Let go of the locks."""
        self._open.discard(transaction)
        for row in transaction.locked:
            row.locked = None
        transaction.locked = []
        followers, transaction.followers = transaction.followers, []
        for follower in followers:
            follower()

    def connection_lost(self, owner: Interpreter) -> None:
        """Roll back what an instance that died has begun; what it commits is committed."""
        for transaction in list(self._open):
            if transaction.owner is owner and not transaction.committing:
                self.end(transaction)
