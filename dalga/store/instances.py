"""
The table of instances: which daemons are alive. No run depends on it: it is for people to see, and
for an upgrade, which does not begin under a living daemon.
"""

from __future__ import annotations

from datetime import datetime

from twisted.internet.defer import Deferred

from dalga.store.dialect import Cursor, Dialect
from dalga.store.schema import ALIVE
from dalga.store.statements import Statements
from dalga.store.transactions import Transactions


class Instances:
    """:param lane: the transactions of the scheduler."""

    def __init__(self, dialect: Dialect, sql: Statements, lane: Transactions) -> None:
        self._dialect = dialect
        self._sql = sql
        self._lane = lane

    def announce(self, instance: str) -> Deferred[int]:
        """See `Store.announce`."""

        def work(cursor: Cursor, now: datetime, since: float) -> int:
            id, seen = self._dialect.key(instance), self._dialect.instant(now)
            alive = self._dialect.instant(now - ALIVE)
            # Others' rows are locked only where one is to go, and before one's own: two instances
            # never wait for each other.
            (found,) = self._sql.count_instances.fetch(cursor, seen=alive, id=id)
            if found.gone:
                self._sql.forget.execute(cursor, seen=alive)
            self._sql.announce.execute(cursor, id=id, seen=seen)
            return found.others

        return self._lane.run(work, "heartbeat")

    def depart(self, instance: str) -> Deferred[None]:
        """See `Store.depart`."""

        def work(cursor: Cursor, now: datetime, since: float) -> None:
            self._sql.depart.execute(cursor, id=self._dialect.key(instance))

        return self._lane.run(work, "depart")
