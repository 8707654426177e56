"""
Which kinds of the dispatch's queries fail at present, and when the dispatch asks each kind again.

`Outages` sends no query itself. `query.py` and the recorder tell it the result of each of their
queries. It logs the beginning and the end of an outage once each, and gives the time of the next
attempt. All times are in seconds of the reactor's clock, passed in; none is of the wall clock (P8).
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from dalga.errors import StoreUnavailable
from dalga.log import logger

log = logger(__name__)

# The kinds of queries, as the log names them.
CLAIM, SCAN, RECORD, HEARTBEAT = "a claim", "a scan", "a record", "a heartbeat"
CORRECTION, CLEANING = "a correction", "a removal of old keys"
ALERTS, SETTLING = "a claim of alerts", "a note of what came of alerts"
LOOK, SIGN_OF_LIFE = "a look for alerts", "a sign of life"
WRITE, FOLDING = "a write of statistics", "a folding of statistics"
PRUNING, SURVEY = "a removal of old records", "a count of records"
FORGETTING_ENTRIES = "a removal of old entries of the audit list"
ACTION, FORGETTING = "a batch of an action", "a removal of old actions"

#: Programming mistakes that are remembered, at most. The traceback of a remembered mistake is not
#: logged again.
MISTAKES_TOLD = 100

#: Between two attempts to reach a database that is away, in seconds.
AWAY_PAUSE = 1.0

#: The pause between two claims, in seconds, in an outage that has lasted longer than a lease. By
#: then the leases of all runs are over, also of runs whose outcome another instance knows and could
#: not write. A claim would take those runs again. So the pause is long: another query than a claim
#: is to be the first that succeeds, and `OTHERS_FIRST` begins with it.
LONG_AWAY_PAUSE = 30.0

#: After an outage of more than a lease, claims wait this long (seconds) from the first other query
#: that succeeds. In that time the other instances record the outcomes that they know.
OTHERS_FIRST = 1.1 * AWAY_PAUSE


class Outages:
    """
    Whether the database answers, and when to ask it again if it does not.

    Each kind of query (claims, scans, records ...) pauses on its own: where a table is locked or a
    disk is full, one kind fails while the others succeed.

    :param lease: how long a claim holds, in seconds. A failure that lasts longer is a long outage.
    """

    def __init__(self, reactor: IReactorTime, lease: float) -> None:
        self._reactor = reactor
        self._lease = lease
        #: The kinds of queries that fail at present, and when each failed first.
        self._since: dict[str, float] = {}
        #: No claim is made before this time: the other instances record first.
        self._claims_from = 0.0
        #: The kinds of queries that fail at present, and the end of each kind's pause.
        self._away: dict[str, float] = {}
        #: The kinds of queries that fail at present because of a programming mistake.
        self._broken: set[str] = set()
        #: The mistakes whose traceback is in the log, as kind of query and error.
        self._told: set[tuple[str, str]] = set()
        self._closing = False

    def reconfigure(self, lease: float) -> None:
        """A claim holds for this long (seconds) from now on."""
        self._lease = lease

    @property
    def away(self) -> bool:
        """Whether the last query of any kind failed."""
        return bool(self._away)

    def fails(self, what: str) -> bool:
        """Whether the last query of a kind failed."""
        return what in self._away

    def not_before(self, what: str) -> float:
        """The earliest time of the next query of a kind, in the reactor's seconds."""
        until = self._away.get(what, 0.0) if self._away else 0.0
        return max(until, self._claims_from) if what == CLAIM else until

    def expect_closing(self) -> None:
        """From now on, a store that can't be used is closing: that is no outage."""
        self._closing = True

    def failed(self, what: str, error: Exception) -> None:
        """A query of a kind failed: begin its pause, and log the error if it is a new one."""
        if self._closing and isinstance(error, StoreUnavailable):
            return
        if not isinstance(error, StoreUnavailable):
            if what not in self._broken and not self.mistake(what, error):
                log.error("{what} broke again: {error!r}", what=what, error=error)
            self._broken.add(what)
        elif not self._away:
            log.error("{error}; waiting for it to come back", error=error)
        now = self._reactor.seconds()
        since = self._since.setdefault(what, now)
        long = what == CLAIM and now - since >= self._lease
        self._away[what] = now + (LONG_AWAY_PAUSE if long else AWAY_PAUSE)

    def mistake(self, what: str, error: Exception) -> bool:
        """
        Log a programming mistake with its traceback, once. The same mistake may come with each run.

        :return: whether the mistake was a new one.
        """
        kind = what, f"{type(error).__name__} {error.args[:1]}"
        if kind in self._told:
            return False
        if len(self._told) >= MISTAKES_TOLD:
            self._told.clear()
        self._told.add(kind)
        log.failure("{what} broke", Failure(error), what=what)
        return True

    def answered(self, what: str) -> None:
        """A query of a kind succeeded: end its pause. Log it if no other kind fails any more."""
        self._broken.discard(what)
        now = self._reactor.seconds()
        if self._away.pop(what, None) is not None:
            if now - self._since.pop(what) >= self._lease and what != CLAIM:
                self._claims_from = now + OTHERS_FIRST
            if not self._away:
                log.info("the database is back")
        # After any other query a claim need not wait for the end of a long pause. A sign of life is
        # none: it asks a monitor, and not the database.
        if CLAIM in self._away and what != SIGN_OF_LIFE:
            self._away[CLAIM] = min(self._away[CLAIM], now + OTHERS_FIRST)
