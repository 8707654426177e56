"""
Runs that have no `End`: a user has ended each of them, while the run waited for its next attempt,
or after its instance was lost. The scheduler, which counts runs, is told of each of them once.

The transaction that writes the record of such a run notes the run at its cursor. The COMMIT decides
what becomes of the note::

    the COMMIT                     the run
    was done                       is told of at once, also if no caller waits for the transaction
    was not done                   is forgotten; a transaction that is run again notes it again
    was begun, but not answered    waits for `settle`, which looks for the run's record
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from twisted.internet.defer import Deferred

from dalga.model.record import EndedRun
from dalga.store.dialect import Cursor
from dalga.store.runsql import RunStatements
from dalga.store.transactions import Transactions

#: Runs that wait for `settle`, at most. If there are more, the oldest are not counted.
UNSURE = 10_000

#: Is called with runs that have ended.
Told = Callable[[Sequence[EndedRun]], None]


class Closed(NamedTuple):
    """A run that has ended without an `End`, and where its record is."""

    run: EndedRun
    #: The id of the job's row, and when the record was written, in microseconds since 1970.
    job: int
    at: int


class Closings:
    """
    See the module's text. To be called in the reactor's thread.

    :param lane: for `settle`.
    """

    def __init__(self, sql: RunStatements, lane: Transactions) -> None:
        self._sql = sql
        self._lane = lane
        self._unsure: deque[Closed] = deque(maxlen=UNSURE)
        #: Must not fail.
        self.told: Told = lambda runs: None

    def ended(self, closed: Iterable[Closed], is_certain: bool) -> None:
        """
        Tell of the runs that a transaction has noted, or keep them for `settle`.

        :param is_certain: whether the transaction is committed. If not, its COMMIT got no answer.
        """
        if is_certain:
            self.told([each.run for each in closed])
        else:
            self._unsure.extend(closed)

    @property
    def unsettled(self) -> bool:
        """Whether runs wait for `settle`."""
        return bool(self._unsure)

    def settle(self) -> Deferred[None]:
        """See `Store.settle`."""
        return Deferred.fromCoroutine(self._settle())

    async def _settle(self) -> None:
        asked = list(self._unsure)
        self._unsure.clear()

        def work(cursor: Cursor, now: datetime, since: float) -> list[EndedRun]:
            # The COMMIT may still be under way: an UPDATE waits for the end of its transaction.
            hold = self._sql.hold_record
            return [each.run for each in asked if hold.execute(cursor, at=each.at, job=each.job)]

        try:
            self.told(await self._lane.run(work, "sum"))
        except Exception:
            # Those that came meanwhile are newer: of too many, the oldest go.
            self._unsure = deque([*asked, *self._unsure], maxlen=UNSURE)
            raise
