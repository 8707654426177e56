"""
The ends of runs on their way to the store, in batches: one transaction at a time.

`Recorder` takes ends one by one and gives them to `Store.record` in batches. While a batch is being
written, the ends that come wait for the next one. An end leaves the recorder when the store has
written it or refused it, or when `abandon` has given it up at a stop. No end is dropped because the
database is away: the recorder keeps it, and tries again until the database answers (P2).

The recorder judges no outcome, and reads no clock but the reactor's.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from dalga.dispatch.loglines import fields
from dalga.dispatch.outages import AWAY_PAUSE, RECORD, Outages
from dalga.errors import StoreUnavailable
from dalga.log import logger, own
from dalga.model.delivery import PLAIN
from dalga.model.run import End
from dalga.store import Recorded, Store

log = logger(__name__)

#: Ends in one transaction, at most.
RECORD_LIMIT = 500

#: Seconds from a batch's first end, or from the end of the batch before it, to its transaction.
#: Other ends join it meanwhile. Nobody waits for a record, but each costs a transaction. If the
#: daemon is killed while a run's end waits here, the run is POSTed again.
RECORD_DELAY = 0.01

#: Until a row that somebody else has locked is tried again, in seconds.
LOCKED_PAUSE = 0.25


class Recorder:
    """
    Writes ends in batches, one transaction at a time, and keeps the ends that can't be written yet.

    :param recorded: is called after each batch, with what the store has made of its ends.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        store: Store,
        outages: Outages,
        recorded: Callable[[Recorded], None],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._outages = outages
        self._recorded = recorded
        #: Ends for the batches to come, oldest first.
        self._waiting: list[End] = []
        #: The ends of the batch under way.
        self._writing: list[End] = []
        #: The timer of the next batch: `_retry`, where the last one found the database away.
        self._soon: IDelayedCall | None = None
        self._retry: IDelayedCall | None = None
        #: Ends whose row is locked, by the timer that tries each batch's again.
        self._postponed: dict[IDelayedCall, list[End]] = {}
        self._abandoned = False

    @property
    def pending(self) -> int:
        """How many ends are not written yet."""
        # Asked for with each run, and mostly there are none.
        postponed = sum(map(len, self._postponed.values())) if self._postponed else 0
        return len(self._waiting) + len(self._writing) + postponed

    @property
    def backlog(self) -> int:
        """How many ends are not written yet, beyond as many as go into one batch."""
        beyond = self.pending - RECORD_LIMIT
        return beyond if beyond > 0 else 0

    @property
    def held_up(self) -> bool:
        """
        Whether the last batch found the database away. A claim before the next batch could take the
        same runs again, as their leases may have ended meanwhile.
        """
        return self._retry is not None

    def add(self, end: End) -> None:
        """Write an end with the next batch."""
        if self._abandoned:
            return
        if end.run.delivery is not PLAIN:
            # The end may wait as long as the database is away, and a payload is large (P10).
            brief = end.run.delivery.in_brief()
            end = end._replace(run=end.run._replace(payload=b"", delivery=brief))
        self._waiting.append(end)
        if self._soon is None and not self._writing:
            # While a batch is under way, its end sees to the next one.
            self._write_soon()

    def _write_soon(self) -> None:
        self._soon = self._reactor.callLater(RECORD_DELAY, self._now)

    def _now(self) -> None:
        self._soon = None
        self._write()

    def abandon(self) -> int:
        """
        Write no more.

        :return: how many ends are left unwritten.
        """
        self._abandoned = True
        for timer in (self._soon, self._retry, *self._postponed):
            if timer is not None and timer.active():
                timer.cancel()
        return self.pending

    def _write(self) -> None:
        if self._abandoned or self._writing or not self._waiting:
            return
        if self._retry is not None and self._retry.active():
            return  # the database is away: all ends wait for its retry
        self._writing, self._waiting = self._waiting[:RECORD_LIMIT], self._waiting[RECORD_LIMIT:]
        own(self._batch(self._writing), log)

    async def _batch(self, batch: list[End]) -> None:
        result = _Batch()
        await self._record(batch, result)
        self._writing, self._retry = [], None
        if result.away is not None:
            self._outages.failed(RECORD, result.away)
            self._waiting = result.unwritten + self._waiting
            if not self._abandoned:
                self._retry = self._reactor.callLater(AWAY_PAUSE, self._write)
        else:
            self._outages.answered(RECORD)
        if result.recorded.postponed and not self._abandoned:
            timer = self._reactor.callLater(LOCKED_PAUSE, lambda: self._again(timer))
            self._postponed[timer] = result.recorded.postponed
        if result.broken:
            log.error(
                "{count} ends of runs can't be recorded, and are left to their leases, the first "
                "of them {path!r} {body!r}: {error}",
                count=len(result.broken),
                error=result.error,
                **fields(result.broken[0].run),
            )
        self._recorded(result.recorded)
        if len(self._waiting) >= RECORD_LIMIT:
            self._write()
        elif self._waiting and self._soon is None and not self._abandoned:
            self._write_soon()

    def _again(self, timer: IDelayedCall) -> None:
        self._waiting += self._postponed.pop(timer)
        self._write()

    async def _record(self, batch: list[End], result: _Batch) -> None:
        """
        Write a batch. Where the store breaks on the batch, write its ends one by one: an end that
        the store breaks on holds up no other end. What became of each goes into `result`.
        """
        try:
            result.recorded.extend(await self._store.record(batch))
        except StoreUnavailable as error:
            result.away = error
            result.unwritten += batch
        except Exception as error:
            self._outages.mistake(RECORD, error)
            if len(batch) == 1:
                result.broken += batch
                result.error = error
                return
            for number, end in enumerate(batch):
                await self._record([end], result)
                if result.away is not None:
                    # The ends before this one are written, and not to be written again.
                    result.unwritten += batch[number + 1 :]
                    return


class _Batch:
    """What became of the ends of a batch, which may have been written one by one."""

    def __init__(self) -> None:
        self.recorded = Recorded()
        #: Ends that the store breaks on, and the store's error for the last of them.
        self.broken: list[End] = []
        self.error: Exception | None = None
        #: Ends to be written again, as the database went away; and the error that says so.
        self.unwritten: list[End] = []
        self.away: StoreUnavailable | None = None
