"""
How long records of runs are kept.

A record is removed once it is older than its shelf's time, in small batches, while there is no
backlog of runs. There are two shelves, so that successes, of which there are many, never push
failures out.

Where there are more than `Keeping.max_rows`, the records that are surplus go before their time:
successes first, the oldest in front, and failures only where they alone are too many. A *survey*
finds which are surplus: it goes through both shelves from the newest record on, a piece at a time.
An example, with 100 rows allowed::

    FAILED has 30 records     none is surplus, and FINE may have 70
    FINE has 80 records       those older than the 70th are surplus

What always holds: a batch or a piece takes some `TARGET` seconds of one of the API's connections,
and a pause that is several times as long follows (P7).

`Pruning` sets no timer: the scheduler's timer begins its `queries`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from dalga.dispatch.outages import FORGETTING_ENTRIES, PRUNING, SURVEY, Outages
from dalga.dispatch.query import Query, after_backlog
from dalga.metrics import Metrics
from dalga.model.record import Shelf
from dalga.store import Pruned, Store, Surveyed

#: From one look for old records to the next, and from one survey to the next, at least (seconds).
INTERVAL = 60.0

#: From one survey to the next, at least, as a multiple of the time that the last one took, and of
#: the number of instances: each makes surveys of its own.
REST_FACTOR = 5

#: How long (seconds) a batch of removals is to take. A claim may have to wait for it on SQLite.
TARGET = 0.004

#: How many records a batch removes at first, at least and at most.
FIRST, FEWEST, MOST = 100, 50, 1_000

#: How many entries of the audit list a batch removes, at most.
FORGOTTEN = 200

#: How many records a piece of a survey has. It takes some milliseconds.
PIECE = 5_000

#: The pause behind a batch, and behind a piece: this long (seconds), or `PAUSE_FACTOR` times what
#: it took. Each batch has a COMMIT, and the records of runs wait for the disk behind it.
PAUSE, PIECE_PAUSE, PAUSE_FACTOR = 0.05, 0.02, 4

#: While there is a backlog, removals wait for its end, but no longer than this, in seconds.
PATIENCE = 600.0

#: Everything on a shelf is surplus.
ALL = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long records are kept, and how many; and how long entries of the audit list are."""

    #: Those of successes.
    fine: timedelta = timedelta(days=7)
    #: Those of runs that did not succeed.
    failed: timedelta = timedelta(days=30)
    #: About how many, on both shelves.
    max_rows: int = 10_000_000
    #: Entries of the audit list.
    entries: timedelta = timedelta(days=90)

    def of(self, shelf: Shelf) -> timedelta:
        """How long the records of a shelf are kept."""
        return self.fine if shelf is Shelf.FINE else self.failed


KEPT_BY_DEFAULT = Keeping()


def next_size(size: int, seconds: float) -> int:
    """
    How many records the next batch removes: as many as take `TARGET`.

    :param size: how many the last batch removed.
    :param seconds: how long it took.
    """
    factor = TARGET / seconds if seconds > 0 else 2.0
    return min(max(round(size * min(max(factor, 0.5), 2.0)), FEWEST), MOST)


class Survey:
    """
    Which records are surplus. Pure: it says what is to be counted next, and is told the result.

    :param max_rows: how many records may be kept.
    """

    def __init__(self, max_rows: int) -> None:
        self._left = max_rows
        #: The shelf that is gone through; None at the end.
        self.shelf: Shelf | None = Shelf.FAILED
        #: The next piece is older than this, in microseconds; None for the newest of the shelf.
        self.before: int | None = None
        #: By shelf, the time of the oldest record that may be kept, in microseconds. A shelf that
        #: has no surplus is not there.
        self.surplus: dict[Shelf, int] = {}

    @property
    def size(self) -> int:
        """How many records the next piece has at most."""
        return min(PIECE, self._left)

    def counted(self, piece: Surveyed) -> None:
        """The next piece has been gone through."""
        shelf, is_last = self.shelf, piece.records < self.size
        assert shelf is not None
        self._left -= piece.records
        self.before = piece.oldest
        if self._left <= 0:
            if not is_last and piece.oldest is not None:
                self.surplus[shelf] = piece.oldest
            if shelf is Shelf.FAILED:
                self.surplus[Shelf.FINE] = ALL
            self.shelf = None
        elif is_last:
            self.shelf, self.before = Shelf.FINE if shelf is Shelf.FAILED else None, None


class Pruning:
    """
    See the module's text.

    :param busy: tells whether there are more due runs than this instance can claim now.
    :param others: gives how many other instances there are.
    :param changed: is called when a query is over, and another may be wanted.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        store: Store,
        outages: Outages,
        keeping: Keeping,
        busy: Callable[[], bool],
        others: Callable[[], int],
        changed: Callable[[], None],
        metrics: Metrics,
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._keeping = keeping
        self._busy = busy
        self._others = others
        self._metrics = metrics
        prunings = Query(PRUNING, outages, self._prune_when, self._prune, self._pruned, changed)
        surveys = Query(
            SURVEY, outages, self._survey_when, self._survey_piece, self._counted, changed
        )
        forgettings = Query(
            *(FORGETTING_ENTRIES, outages, self._forget_when, self._forget, self._forgotten),
            changed,
        )
        self.queries: tuple[Query[Any], ...] = (prunings, surveys, forgettings)
        #: Since when there is a backlog, in seconds of the reactor's clock; None if there is none.
        self._busy_since: float | None = None
        #: The next batch: when, of which shelf, and how many records.
        self._next_batch = reactor.seconds() + INTERVAL
        self._shelf = Shelf.FINE
        self._size = FIRST
        #: The next batch of entries of the audit list.
        self._next_forgetting = reactor.seconds() + INTERVAL
        #: The next piece of a survey, and when the survey began, both in the reactor's seconds.
        self._next_piece = reactor.seconds() + INTERVAL
        self._began = 0.0
        self._survey = Survey(keeping.max_rows)
        #: What the last survey found that came to its end.
        self._surplus: dict[Shelf, int] = {}

    def reconfigure(self, keeping: Keeping) -> None:
        """Keep records for as long as this says, from now on. The next survey goes by it."""
        self._keeping = keeping

    def _when(self, wanted: float, now: float) -> float:
        """When to do what is wanted, as far as runs leave room."""
        if not self._busy():
            self._busy_since = None
            return wanted
        if self._busy_since is None:
            self._busy_since = now
        return after_backlog(wanted, now, lambda: True, self._busy_since + PATIENCE)

    # Removals

    def _prune_when(self, now: float) -> float:
        return self._when(self._next_batch, now)

    def _prune(self) -> Deferred[Pruned]:
        shelf = self._shelf
        keep, surplus = self._keeping.of(shelf), self._surplus.get(shelf)
        return self._store.prune(shelf, keep, surplus, self._size)

    def _pruned(self, pruned: Pruned) -> None:
        self._metrics.pruned(pruned.records)
        pause = max(PAUSE, PAUSE_FACTOR * pruned.seconds)
        if pruned.records >= self._size:
            self._size = next_size(self._size, pruned.seconds)
        elif self._shelf is Shelf.FINE:
            self._shelf = Shelf.FAILED
        else:
            self._shelf, pause = Shelf.FINE, INTERVAL
        self._next_batch = self._reactor.seconds() + pause

    # Entries of the audit list: as many in a batch as keys

    def _forget_when(self, now: float) -> float:
        return self._when(self._next_forgetting, now)

    def _forget(self) -> Deferred[int]:
        return self._store.forget_entries(self._keeping.entries, FORGOTTEN)

    def _forgotten(self, removed: int) -> None:
        pause = INTERVAL if removed < FORGOTTEN else PAUSE
        self._next_forgetting = self._reactor.seconds() + pause

    # Surveys

    def _survey_when(self, now: float) -> float:
        return self._when(self._next_piece, now)

    def _survey_piece(self) -> Deferred[Surveyed]:
        survey = self._survey
        assert survey.shelf is not None
        if survey.shelf is Shelf.FAILED and survey.before is None:
            self._began = self._reactor.seconds()
        return self._store.survey(survey.shelf, survey.before, survey.size)

    def _counted(self, piece: Surveyed) -> None:
        now = self._reactor.seconds()
        self._survey.counted(piece)
        pause = max(PIECE_PAUSE, PAUSE_FACTOR * piece.seconds)
        if self._survey.shelf is None:
            self._surplus = self._survey.surplus
            self._survey = Survey(self._keeping.max_rows)
            took = now - self._began
            pause = max(INTERVAL, REST_FACTOR * took * (1 + self._others()))
        self._next_piece = now + pause
