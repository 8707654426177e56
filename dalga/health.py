"""
Whether this instance is well, and what it shows of its numbers: what `/health`, `/ready` and
`/metrics` say.

*Healthy* is a process whose reactor turns: whoever gets an answer has seen that. *Ready* is an
instance whose requests will most likely succeed: the database answers, the tables are of this
version, and no stop has begun. An instance that is behind with its runs is ready all the same:
otherwise all instances of a busy table would be taken out of service at once.

All three are answered quickly, also while the database is away. `/ready` makes one look at the
database, however many ask, and waits for it no longer than `PATIENCE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from dalga.errors import DalgaError
from dalga.exposition import Shown, text
from dalga.log import logger, own
from dalga.metrics import Metrics, Numbers
from dalga.sharing import SharedNumbers
from dalga.store import Store

log = logger(__name__)

#: How long a look at the database may take (seconds) until `/ready` says that the database does not
#: answer.
PATIENCE = 2.0

_SILENT = f"the database has not answered within {PATIENCE:g} seconds"

#: What a look has found holds for this long, in seconds.
HOLDS = 0.5

#: From one tick of the reactor to the next, in seconds. A reactor that is busy for longer than this
#: is late for a tick.
TICK = 0.25

#: From one time that a worker shares its numbers to the next, in ticks.
SHARED_EACH = 4

#: Does the work in a thread.
InThread = Callable[[Callable[[], tuple[bytes, str]]], Deferred[tuple[bytes, str]]]


class Health:
    """
    See the module's text.

    :param store: an opened store.
    :param in_thread: reads the numbers of other workers, and writes all numbers as a text. That
        takes some milliseconds.
    :param looked: is called with each scrape, before its numbers are looked at.
    :param shared: the numbers of all workers, where the daemon has workers.
    :param place: which worker this instance is, from 1 on.
    """

    def __init__(
        self,
        store: Store,
        reactor: IReactorTime,
        metrics: Metrics,
        in_thread: InThread,
        looked: Callable[[], object] = lambda: None,
        shared: SharedNumbers | None = None,
        place: int | None = None,
    ) -> None:
        self.metrics = metrics
        self._store = store
        self._reactor = reactor
        self._in_thread = in_thread
        self._looked = looked
        self._shared = shared
        self._place = place
        #: One thread at a time: each slows the reactor's thread down (P7).
        self._turn = DeferredLock()
        self._stopping = False
        #: The look that is under way, and since when, in the reactor's seconds.
        self._look: Deferred[Any] | None = None
        self._began = 0.0
        #: Those that wait for it.
        self._waiting: list[Deferred[str | None]] = []
        #: What the last look has found, and when, in the reactor's seconds.
        self._found: tuple[float, str | None] | None = None
        #: The timer of the next tick.
        self._tick: IDelayedCall | None = None
        self._ticks = 0

    def start(self) -> None:
        """Begin to measure how busy the reactor is."""
        self._tick = self._reactor.callLater(TICK, self._ticked, self._reactor.seconds() + TICK)

    def stop(self) -> None:
        """A stop has begun: the instance is ready no more."""
        self._stopping = True

    def close(self) -> None:
        """The instance ends."""
        if self._tick is not None and self._tick.active():
            self._tick.cancel()
        if self._look is not None:
            self._look.cancel()

    # Numbers

    def exposed(self, accept: str) -> Deferred[tuple[bytes, str]]:
        """
        The numbers of this instance, or of all workers: a text and its media type.

        :param accept: see `dalga.exposition.text`.
        """
        self._looked()
        waiting: Deferred[tuple[bytes, str]] = Deferred()
        own(self._write(waiting, accept), log)
        return waiting

    async def _write(self, waiting: Deferred[tuple[bytes, str]], accept: str) -> None:
        await self._turn.acquire()
        try:
            if waiting.called:
                return  # the client is gone
            numbers = self.metrics.numbers()
            written = await self._in_thread(lambda: text(self._shown(numbers), accept))
            if not waiting.called:
                waiting.callback(written)
        except Exception:
            if waiting.called:
                raise
            waiting.errback()
        finally:
            self._turn.release()

    def _shown(self, numbers: Numbers) -> Sequence[Shown]:
        """
        Called in a thread.

        :param numbers: of this instance.
        """
        ours = Shown(numbers, self._place)
        if self._shared is None or self._place is None:
            return [ours]
        # A scrape of another worker in the next moment shows no less: a counter never goes down.
        self._shared.write(self._place, ours.numbers)
        others = self._shared.read(self._place)
        return [ours, *(Shown(numbers, place) for place, numbers in others.items())]

    def _ticked(self, due: float) -> None:
        now = self._reactor.seconds()
        self._tick = self._reactor.callLater(TICK, self._ticked, now + TICK)
        self.metrics.reactor_tick(now - due)
        self._ticks += 1
        if self._shared is not None and self._place is not None and self._ticks % SHARED_EACH == 1:
            self._shared.write(self._place, self.metrics.numbers())

    # Ready

    def ready(self) -> Deferred[str | None]:
        """:return: why this instance is not ready, in a sentence; None if it is."""
        waiting: Deferred[str | None] = Deferred()
        now = self._reactor.seconds()
        if self._stopping:
            waiting.callback("a stop has begun")
        elif self._found is not None and now - self._found[0] < HOLDS:
            waiting.callback(self._found[1])
        elif self._look is not None and now - self._began >= PATIENCE:
            waiting.callback(_SILENT)
        else:
            self._waiting.append(waiting)
            if self._look is None:
                self._begin(now)
        return waiting

    def _begin(self, now: float) -> None:
        self._began = now
        self._look = look = self._store.now()
        timer = self._reactor.callLater(PATIENCE, lambda: self._tell(_SILENT))

        def ended(result: object) -> None:
            if timer.active():
                timer.cancel()
            self._look = None
            reason = _reason(result) if isinstance(result, Failure) else None
            self._found = self._reactor.seconds(), reason
            self._tell(reason)

        look.addBoth(ended)

    def _tell(self, reason: str | None) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(reason)


def _reason(failure: Failure) -> str:
    """Why a look at the database has failed."""
    if failure.check(DalgaError, CancelledError) is None:
        log.failure("the database could not be asked", failure)
    return str(failure.value) or "the database was not asked"
