"""
The table of instances: which daemons are alive. No run depends on it: it is for people to see, and
for an upgrade, which does not begin under a living daemon.
"""

from __future__ import annotations

from datetime import datetime

from twisted.internet.defer import Deferred

from dalga.model.instance import UNKNOWN, About, Instance, about_from_text, about_text
from dalga.store.dialect import Cursor, Dialect
from dalga.store.schema import ALIVE
from dalga.store.selected import InstanceRow
from dalga.store.statements import Statements
from dalga.store.transactions import Transactions
from dalga.store.values import text_of


class Instances:
    """
    :param lane: the transactions of the scheduler.
    :param api_lane: those of the API.
    """

    def __init__(
        self, dialect: Dialect, sql: Statements, lane: Transactions, api_lane: Transactions
    ) -> None:
        self._dialect = dialect
        self._sql = sql
        self._lane = lane
        self._api_lane = api_lane

    def announce(
        self, instance: str, began: datetime | None = None, about: About = UNKNOWN
    ) -> Deferred[int]:
        """See `Store.announce`."""

        def work(cursor: Cursor, now: datetime, since: float) -> int:
            instant = self._dialect.instant
            id, alive = self._dialect.key(instance), instant(now - ALIVE)
            # Others' rows are locked only where one is to go, and before one's own: two instances
            # never wait for each other.
            (found,) = self._sql.count_instances.fetch(cursor, seen=alive, id=id)
            if found.gone:
                self._sql.forget.execute(cursor, seen=alive)
            self._sql.announce.execute(
                cursor,
                id=id,
                seen=instant(now),
                since=began and instant(began),
                about=about_text(about),
            )
            return found.others

        return self._lane.run(work, "heartbeat")

    def depart(self, instance: str) -> Deferred[None]:
        """See `Store.depart`."""

        def work(cursor: Cursor, now: datetime, since: float) -> None:
            self._sql.depart.execute(cursor, id=self._dialect.key(instance))

        return self._lane.run(work, "depart")

    def instances(self, limit: int) -> Deferred[list[Instance]]:
        """See `Store.instances`."""

        def work(cursor: Cursor, now: datetime, since: float) -> list[Instance]:
            alive = self._dialect.instant(now - ALIVE)
            rows = self._sql.instances.fetch(cursor, alive=alive, limit=limit)
            found = [self._instance(row, now) for row in rows]
            return [each for each in found if each is not None]

        return self._api_lane.run(work, "instances")

    def _instance(self, row: InstanceRow, now: datetime) -> Instance | None:
        """The instance in a row; None if nobody knows when it was seen (P6)."""
        seen, since = map(self._instant, (row.seen, row.since))
        if seen is None:
            return None
        return Instance(
            text_of(row.id),
            since,
            max(0.0, (now - seen).total_seconds()),
            about_from_text(text_of(row.about)),
        )

    def _instant(self, value: object) -> datetime | None:
        """A time; None for anything that is none."""
        try:
            return self._dialect.read_instant(value)
        except ValueError:
            return None
