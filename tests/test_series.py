"""Which statistics can be asked for, how they are read piece by piece, and their JSON."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dalga import series
from dalga.errors import InvalidRequest
from dalga.model.record import Result
from dalga.model.statistics import (
    FEW,
    HOUR,
    MAX_POINTS,
    MINUTE,
    Group,
    Scope,
    StatsQuery,
    Sum,
    SumKey,
    floor,
    stats_query,
)
from dalga.series import PIECE, REST, Series, read_series
from dalga.web.statistics import series_json, statistics
from tests.fakes import FakeStore
from tests.test_store_stats import count, key

NOW = datetime.fromisoformat("2026-03-02T10:20:30.5+00:00")
DAY = timedelta(days=1)


class QueryTests(SynchronousTestCase):
    """`stats_query`, and what it refuses."""

    def test_what_is_not_given(self) -> None:
        """The last hour, by the minute; and of a longer time few points."""
        for ago, until, expected in (
            (None, None, MINUTE),
            (HOUR, None, MINUTE),
            (4 * HOUR, None, MINUTE),
            (6 * HOUR, None, 5 * MINUTE),
            (DAY, None, 5 * MINUTE),
            (46 * HOUR, None, 15 * MINUTE),
            (3 * DAY, 2 * DAY, HOUR),
            (30 * DAY, None, 3 * HOUR),
            (365 * DAY, None, 7 * DAY),
        ):
            begin = None if ago is None else NOW - ago
            end = None if until is None else NOW - until
            query = stats_query(NOW, begin, end)
            self.assertEqual(query.step, expected, ago)
            self.assertLessEqual((query.end - query.begin) / query.step, FEW + 1)
            self.assertEqual(query.begin, floor(begin or NOW - HOUR, query.step))
            self.assertEqual(query.end, end or NOW)

    def test_a_time_to_come(self) -> None:
        self.assertEqual(stats_query(NOW, NOW - HOUR, NOW + DAY).end, NOW)

    def test_before_there_were_instants(self) -> None:
        """Of any time there is an answer, or a sentence."""
        first = datetime.fromisoformat("0001-01-01T00:00:00+00:00")
        for begin, end in ((first, None), (first, first + HOUR), (None, first + HOUR)):
            try:
                query = stats_query(NOW, begin, end)
            except InvalidRequest:
                continue
            self.assertLess(query.begin, query.end)

    def test_the_scope(self) -> None:
        for query, expected in (
            (stats_query(NOW), Scope.ENDPOINT),
            (stats_query(NOW, group=Group.RESULT, endpoint="billing"), Scope.ENDPOINT),
            (stats_query(NOW, path="a"), Scope.PATH),
            (stats_query(NOW, group=Group.PATH), Scope.PATH),
        ):
            self.assertIs(query.scope, expected)

    def test_refused(self) -> None:
        """With what would do."""
        for asked, words in (
            ({"begin": NOW}, "from is 2026-03-02T10:20:30.5Z, which is not earlier than now"),
            ({"begin": NOW, "end": NOW - HOUR}, "is not earlier than to, 2026-03-02T09:20:30.5Z"),
            ({"step": 90 * MINUTE / 60}, "step is 90s: it takes whole minutes up to an hour"),
            ({"step": 90 * MINUTE}, "step is 90m: it takes whole minutes up to an hour"),
            (
                {"begin": NOW - 3 * DAY, "step": MINUTE},
                "step is 1m, and sums of less than an hour are kept for 48h: give a step of 1h or "
                "more, or a from that is not before 2026-02-28T11:00:00Z",
            ),
            (
                {"begin": NOW - 40 * HOUR, "step": MINUTE},
                "there are 2401 times 1m, and an answer has 1500 points at most: give a step of "
                "2m or more, or less time",
            ),
            (
                {"begin": NOW - 400 * DAY, "step": HOUR},
                "there are 9601 times 1h, and an answer has 1500 points at most: give a step of "
                "7h or more, or less time",
            ),
        ):
            error = self.assertRaises(InvalidRequest, stats_query, NOW, **asked)
            self.assertIn(words, str(error))

    def test_what_is_said_to_do_does(self) -> None:
        """A step that a refusal names, and a time."""
        stats_query(NOW, datetime.fromisoformat("2026-02-28T11:00:00Z"), step=2 * MINUTE)
        stats_query(NOW, NOW - 40 * HOUR, step=2 * MINUTE)
        stats_query(NOW, NOW - 400 * DAY, step=7 * HOUR)


class ReadingTests(SynchronousTestCase):
    """`read_series`, over a fake store."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FakeStore(self.clock.seconds)
        self.store._read_clock()

    def keep(self, sum_key: SumKey, counted: Sum, instance: str = "one") -> None:
        self.store.written_sums[instance, sum_key] = counted

    def reading(self, query: StatsQuery) -> Deferred[Series]:
        reading = read_series(self.store, self.clock, query, ["default", "billing"])
        found = Deferred.fromCoroutine(reading)
        for _ in range(MAX_POINTS):
            self.clock.advance(REST * PIECE)
        return found

    def points(self, query: StatsQuery) -> dict[str, list[tuple[datetime, int]]]:
        found = self.successResultOf(self.reading(query))
        self.assertEqual(found.query, query)
        return {
            name: [(point.at, point.runs) for point in points]
            for name, points in found.points.items()
        }

    def test_minutes_and_hours(self) -> None:
        """A step of an hour has the sums of hours and of minutes in it, each once."""
        hour = floor(NOW, HOUR)
        for at, step in (
            (hour - 2 * HOUR, HOUR),
            (hour - HOUR, HOUR),  # half of its minutes are folded
            (hour - MINUTE, MINUTE),
            (hour, MINUTE),
            (hour + 20 * MINUTE, MINUTE),
            (hour - 3 * HOUR, HOUR),  # before what is asked for
            (hour + 21 * MINUTE, MINUTE),  # behind it
        ):
            self.keep(key(at, step=step, scope=Scope.ENDPOINT), count(1))
        query = stats_query(NOW, hour - 2 * HOUR, step=HOUR)
        expected = [(hour - 2 * HOUR, 1), (hour - HOUR, 2), (hour, 2)]
        self.assertEqual(self.points(query), {"": expected})
        query = stats_query(NOW, hour - 2 * HOUR, step=5 * MINUTE)
        expected = [(hour - 5 * MINUTE, 1), (hour, 1), (hour + 20 * MINUTE, 1)]
        self.assertEqual(self.points(query), {"": expected})

    def test_quantiles(self) -> None:
        at = floor(NOW, MINUTE)
        for instance, lateness in (("one", "1:50 2:40"), ("two", "5:9 +:1")):
            counted = count(50, 60, lateness, "100:50")
            self.keep(key(at, scope=Scope.ENDPOINT), counted, instance)
        found = self.successResultOf(self.reading(stats_query(NOW)))
        ((point,),) = found.points.values()
        self.assertEqual((point.runs, point.attempts), (100, 120))
        self.assertEqual(point.lateness, (0.001, 0.002, 0.005))
        for seconds, expected in zip(point.duration, (0.075, 0.095, 0.0995), strict=True):
            assert seconds is not None
            self.assertAlmostEqual(seconds, expected)

    def test_a_path_of_any_endpoint(self) -> None:
        """Each endpoint is asked for by itself, as the index begins with it."""
        at = floor(NOW, MINUTE)
        for endpoint in ("default", "billing"):
            self.keep(key(at, "a", endpoint=endpoint), count(1))
        query = stats_query(NOW, path="a")
        self.assertEqual(self.points(query), {"": [(at, 2)]})
        asked = {call.argument.endpoint for call in self.store.called("sums")}
        self.assertEqual(asked, {"default", "billing"})

    def test_in_pieces(self) -> None:
        """P7: a transaction reads no more than a few sums, wherever they are."""
        at = floor(NOW, MINUTE)
        for number in range(100):
            for path in range(300 if number < 30 else 0):
                self.keep(key(at - number * MINUTE, f"p{path}"), count(1))
            self.keep(key(at - number * MINUTE, "p0"), count(1))
        query = stats_query(NOW, at - 100 * MINUTE, step=4 * HOUR, group=Group.PATH)
        points = self.points(query)
        self.assertEqual(len(points), 300)
        self.assertEqual(sum(runs for ((_, runs),) in points.values()), 30 * 300 + 70)
        for call in self.store.called("sums"):
            self.assertLessEqual(call.argument.limit, PIECE)
        self.assertLess(len(self.store.called("sums")), 80)

    def test_a_step_with_more_than_a_piece(self) -> None:
        """It is read at once."""
        at = floor(NOW, MINUTE)
        for path in range(PIECE + 1):
            self.keep(key(at, f"p{path}"), count(1))
            self.keep(key(at - MINUTE, f"p{path}"), count(1))
        points = self.points(stats_query(NOW, group=Group.PATH, step=HOUR))
        self.assertEqual(sum(runs for ((_, runs),) in points.values()), 2 * (PIECE + 1))

    def test_too_many_sums(self) -> None:
        """P10: it is refused with how long a time would do."""
        self.patch(series, "MAX_SUMS", 2000)
        begin = floor(NOW, HOUR)
        for number in range(20):
            for path in range(101):
                self.keep(key(begin + number * MINUTE, f"p{path}"), count(1))
        query = stats_query(NOW, begin, begin + HOUR, group=Group.PATH, step=HOUR)
        error = self.failureResultOf(self.reading(query), InvalidRequest).value
        self.assertIn("that takes more than 50000 sums to be read: give less time", str(error))
        self.assertIn("such as 16m", str(error))
        self.patch(series, "MAX_SUMS", 2020)
        self.assertEqual(len(self.points(query)), 101)

    def test_others_go_first(self) -> None:
        """P7: between two pieces the connection is others' for a while."""
        at = floor(NOW, MINUTE)
        for number in range(60):
            for path in range(PIECE // 16):
                self.keep(key(at - number * MINUTE, f"p{path}"), count(1))
        query = stats_query(NOW, at - HOUR, group=Group.PATH, step=HOUR)
        reading = read_series(self.store, self.clock, query, ["default"])
        found = Deferred.fromCoroutine(reading)
        before = self.store.called("sums")
        self.clock.advance(REST)
        self.assertEqual(len(self.store.called("sums")), len(before))
        self.clock.advance(REST * PIECE)
        self.assertGreater(len(self.store.called("sums")), len(before))
        self.assertNoResult(found)
        found.cancel()
        self.failureResultOf(found)

    def test_too_many_points(self) -> None:
        at = floor(NOW, MINUTE)
        for path in range(MAX_POINTS + 1):
            self.keep(key(at, f"p{path}"), count(1))
        query = stats_query(NOW, group=Group.PATH, step=HOUR)
        error = self.failureResultOf(self.reading(query), InvalidRequest).value
        self.assertIn("the series have more than 1500 points together: give a step", str(error))
        del self.store.written_sums["one", key(at, "p7")]
        self.assertEqual(len(self.points(query)), MAX_POINTS)

    def test_nothing_is_there(self) -> None:
        """Nothing is asked for of any time, however long."""
        query = StatsQuery(NOW - 365 * 2000 * DAY, NOW, 365 * DAY)
        self.assertEqual(self.points(query), {})
        self.assertEqual(self.store.called("sums"), [])


class JSONTests(SynchronousTestCase):
    """The parameters of `/stats`, and its answer."""

    def test_parameters(self) -> None:
        query = statistics(
            b"from=2026-03-02T09:00:30Z&to=2026-03-02T10:00:00Z&step=5m&group=result"
            b"&endpoint=billing&path=a%2Fb",
            NOW,
        )
        begin, end = (NOW.replace(hour=hour, minute=0, second=0, microsecond=0) for hour in (9, 10))
        expected = StatsQuery(begin, end, 5 * MINUTE, Group.RESULT, "billing", "a/b")
        self.assertEqual(query, expected)
        self.assertEqual(statistics(b"", NOW), stats_query(NOW))

    def test_refused(self) -> None:
        for query, words in {
            "grop=path": "there is no parameter 'grop' (did you mean group?): statistics take from",
            "group=job": "group is 'job': it takes endpoint, path or result",
            "from=yesterday": "from is 'yesterday'",
            "step=1s": "step is '1s': it takes seconds from 60",
            "step=P1M": "which has years or months",
            "path=a&path=b": "path is given twice",
        }.items():
            error = self.assertRaises(InvalidRequest, statistics, query.encode(), NOW)
            self.assertIn(words, str(error))

    def answer(self, group: Group | None) -> dict[str, Any]:
        clock = Clock()
        store = FakeStore(clock.seconds)
        at = floor(NOW, MINUTE)
        store.written_sums["one", key(at, scope=Scope.ENDPOINT)] = count(3, 4)
        store.written_sums["one", key(at)] = count(3, 4)
        skipped = key(at, result=Result.SKIPPED, scope=Scope.ENDPOINT)
        store.written_sums["one", skipped] = Sum(1)
        reading = read_series(store, clock, stats_query(NOW, group=group), ["default"])
        answered = Deferred.fromCoroutine(reading)
        for _ in range(9):
            clock.advance(1)
        found = self.successResultOf(answered)
        answer: dict[str, Any] = json.loads(series_json(found))
        return answer

    def test_an_answer(self) -> None:
        seconds = {"p50": 0.000667, "p90": 0.001, "p99": 0.001}
        durations = {"p50": 0.0833, "p90": 0.1, "p99": 0.1}
        nothing = dict.fromkeys(("p50", "p90", "p99"))
        point = {"at": "2026-03-02T10:20:00Z", "runs": 3, "attempts": 4}
        known = {**point, "lateness": seconds, "duration": durations}
        unknown = {**point, "runs": 1, "attempts": 0, "lateness": nothing, "duration": nothing}
        self.assertEqual(
            self.answer(Group.RESULT),
            {
                "from": "2026-03-02T09:20:00Z",
                "to": "2026-03-02T10:20:30.5Z",
                "step": 60,
                "group": "result",
                "series": [
                    {"result": "skipped", "points": [unknown]},
                    {"result": "succeeded", "points": [known]},
                ],
                "accuracy": {"factor": 3, "lateness": [0.001, 3600.0], "duration": [0.005, 300.0]},
            },
        )

    def test_names(self) -> None:
        """One series of all has no name; the rest of the paths is null."""
        (found,) = self.answer(None)["series"]
        self.assertEqual((list(found), found["points"][0]["runs"]), (["points"], 4))
        (found,) = self.answer(Group.PATH)["series"]
        self.assertIsNone(found["path"])
