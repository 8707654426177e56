"""A kind of query that is made now and then: when, one at a time, with a pause after a failure."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.outages import AWAY_PAUSE, CLAIM, SCAN, Outages
from dalga.dispatch.query import Query, after_backlog
from dalga.errors import StoreUnavailable
from tests.fakes import noting


class QueryTests(SynchronousTestCase):
    """A query that the test answers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.outages = Outages(self.clock, lease=20.0)
        self.wanted: float | None = 5.0
        self.answers: list[Deferred[Any]] = []
        self.taken: list[int] = []
        #: At the end of each query: whether it had succeeded, and whether another may begin.
        self.ends: list[tuple[bool, bool]] = []
        self.query = Query(
            SCAN, self.outages, lambda now: self.wanted, self.ask, self.take, self.ended
        )

    def ask(self) -> Deferred[Any]:
        self.answers.append(Deferred())
        return self.answers[-1]

    def take(self, result: int) -> None:
        self.taken.append(result)
        if result < 0:
            raise ZeroDivisionError

    def ended(self) -> None:
        self.ends.append((self.query.succeeded, not self.query.under_way))

    def test_one_at_a_time(self) -> None:
        """It is wanted when its owner says, and not while one is under way."""
        self.assertEqual(self.query.at(0.0), 5.0)
        self.wanted = None
        self.assertIsNone(self.query.at(0.0))
        self.wanted = 7.0
        self.query.begin()
        self.assertIsNone(self.query.at(0.0))
        self.answers[0].callback(1)
        self.assertEqual((self.query.at(0.0), self.taken, self.ends), (7.0, [1], [(True, True)]))

    def test_failures(self) -> None:
        """P5: after a failure, of the store's or of ours, it pauses, and is made again."""
        self.wanted = 0.0
        for answer in (Failure(StoreUnavailable("away")), -1):
            self.query.begin()
            self.answers[-1].callback(answer)
            self.assertEqual(self.ends.pop(), (False, True))
            self.assertEqual(self.query.at(0.0), self.clock.seconds() + AWAY_PAUSE)
            self.clock.advance(AWAY_PAUSE)
            self.query.begin()
            self.answers[-1].callback(1)
            self.assertEqual(self.ends.pop(), (True, True))
            self.assertEqual(self.query.at(0.0), 0.0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_mistake_after_an_outage(self) -> None:
        """The database is back when it has answered, whatever we make of the answer."""
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(noting(events))
        self.addCleanup(globalLogPublisher.removeObserver, noting(events))
        for answer in (Failure(StoreUnavailable("away")), -1):
            self.query.begin()
            self.answers[-1].callback(answer)
        self.assertEqual(
            [event["log_format"] for event in events],
            ["{error}; waiting for it to come back", "the database is back", "{what} broke"],
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_blip_long_after_another(self) -> None:
        """P7: how long an outage lasts is counted from its own beginning."""
        for _ in range(2):
            self.query.begin()
            self.answers[-1].callback(Failure(StoreUnavailable("away")))
            self.clock.advance(AWAY_PAUSE)
            self.query.begin()
            self.answers[-1].callback(1)
            self.assertEqual(self.outages.not_before(CLAIM), 0.0)
            self.clock.advance(100.0)

    def test_a_store_that_closes(self) -> None:
        """What a closing store refuses is no outage; a mistake of ours is still told."""
        self.outages.expect_closing()
        self.query.begin()
        self.answers[-1].errback(StoreUnavailable("this instance is stopping"))
        self.assertFalse(self.outages.away)
        self.query.begin()
        self.answers[-1].callback(-1)
        self.assertTrue(self.outages.away)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class BacklogTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """Wanted, now, whether there is a backlog, until when it waits; when the query is made."""
        for wanted, now, busy, until, expected in [
            (10.0, 7.0, False, 600.0, 10.0),
            (10.0, 7.0, True, 600.0, 10.0),
            (10.0, 12.0, False, 600.0, 10.0),
            (10.0, 12.0, True, 600.0, 12.5),
            (10.0, 599.9, True, 600.0, 600.0),
            (10.0, 700.0, True, 600.0, 600.0),
        ]:
            found = after_backlog(wanted, now, lambda busy=busy: busy, until, 0.5)  # type: ignore[misc]
            self.assertEqual(found, expected, (wanted, now, busy))
