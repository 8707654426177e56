"""What an instance counts of its runs: sums of minutes, and the numbers of the metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.sums import PATHS, UNSAVED, Sums
from dalga.metrics import OTHER, Counts, PathLabels
from dalga.model.attempt import ErrorKind
from dalga.model.key import JobKey
from dalga.model.record import EndedRun, Result
from dalga.model.run import End, GiveBack, Outcome, Run, Skip, judge
from dalga.model.statistics import BUSIEST, MINUTE, MinuteSums, Scope, Sum, SumKey, by_hour, floor
from tests.examples import EXACT, FAILURE, NOW, OK, RUN, SECOND, utc

AT = floor(NOW, MINUTE)

Ended = tuple[End, Result | None]


def end(
    path: str = "/a",
    outcome: Outcome | None = OK,
    result: Result | None = Result.SUCCEEDED,
    late: float = 0.0,
    attempt: int = 1,
    endpoint: str = "default",
) -> Ended:
    """
    An end.

    :param late: how late the first attempt began, in seconds.
    """
    options = replace(RUN.options, endpoint=endpoint)
    began = NOW - timedelta(seconds=0 if outcome is None else outcome.elapsed)
    run: Run = RUN._replace(
        key=JobKey(path.lstrip("/"), "body"),
        options=options,
        scheduled=began - timedelta(seconds=late),
        started=began,
        attempt=attempt,
    )
    if outcome is None:
        return End(run, None, Skip(NOW)), result
    return judge(run, outcome, NOW, EXACT, Random(1)), result


class Database:
    """What a database has of sums that are written, and may lose the answer to a COMMIT."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, SumKey], Sum] = {}

    def write(self, written: MinuteSums) -> None:
        for key in written.gone:
            self.rows.pop((written.instance, key), None)
        for key, counted in written.rows:
            copy = Sum()
            copy.add(counted)
            self.rows[written.instance, key] = copy

    def save(self, sums: Sums) -> None:
        for written in sums.unsaved():
            self.write(written)
            sums.saved(written)

    def runs(self, scope: Scope) -> dict[tuple[str, str, str], int]:
        """By endpoint, path and result, of all minutes and instances."""
        found: dict[tuple[str, str, str], int] = {}
        for (_, key), counted in self.rows.items():
            if key.scope is scope:
                name = key.endpoint, key.path, key.result.value
                found[name] = found.get(name, 0) + counted.runs
        return found


def sums_of(*ends: Ended, now: datetime = NOW) -> Sums:
    sums = Sums("one", PathLabels())
    sums.ended(ends, now)
    return sums


def rows_of(sums: Sums) -> dict[SumKey, Sum]:
    (written,) = sums.unsaved()
    return dict(written.rows)


def closed(
    path: str = "a",
    result: Result = Result.OVERRIDDEN,
    attempts: int = 1,
    endpoint: str = "default",
) -> EndedRun:
    """A run without an end."""
    return EndedRun(path, endpoint, result, attempts)


class SumTests(SynchronousTestCase):
    """What is counted of an end."""

    def sum_of(self, ended: Ended) -> tuple[int, int, str, str]:
        """Of its endpoint: runs, attempts, lateness and duration."""
        rows = rows_of(sums_of(ended))
        assert ended[1] is not None
        counted = rows[SumKey(Scope.ENDPOINT, MINUTE, AT, "default", "", ended[1])]
        self.assertEqual(rows[SumKey(Scope.PATH, MINUTE, AT, "default", "a", ended[1])], counted)
        self.assertEqual(len(rows), 2)
        return counted.runs, counted.attempts, counted.lateness.text(), counted.duration.text()

    def test_ends(self) -> None:
        """Lateness is that of the first attempt, and duration that of the last one."""
        for ended, expected in (
            (end(), (1, 1, "1:1", "100:1")),
            (end(late=0.004), (1, 1, "5:1", "100:1")),
            (end(late=-0.004), (1, 1, "1:1", "100:1")),
            (end(late=7200), (1, 1, "+:1", "100:1")),
            (end(outcome=Outcome(200, 0.003)), (1, 1, "1:1", "5:1")),
            (end(outcome=FAILURE, result=Result.GIVEN_UP, attempt=4), (1, 4, "1:1", "100:1")),
            (end(late=0.3, attempt=2), (1, 2, "500:1", "100:1")),
            (end(outcome=None, result=Result.SKIPPED), (1, 0, "", "")),
        ):
            self.assertEqual(self.sum_of(ended), expected, ended)

    def test_given_back(self) -> None:
        """A run that a user has ended, and whose next attempt was claimed, but not begun."""
        run = end(attempt=3)[0].run
        sums = sums_of((End(run, None, GiveBack()), Result.OVERRIDDEN))
        (counted, _) = rows_of(sums).values()
        self.assertEqual((counted.runs, counted.attempts), (1, 2))
        counts = sums.numbers()["dalga_run_attempts"][()]
        self.assertEqual(counts, Counts([0, 1, 0, 0, 0, 0, 0, 0], 2.0))

    def test_without_an_end(self) -> None:
        """A run that a user has ended between two attempts. Its attempts have ended before."""
        sums = sums_of(end(outcome=FAILURE, result=None), end(outcome=FAILURE, result=None))
        sums.closed([closed(attempts=2), closed("b", Result.CANCELLED, 1)], NOW)
        rows = rows_of(sums)
        for path, result, attempts in (("a", Result.OVERRIDDEN, 2), ("b", Result.CANCELLED, 1)):
            for key in (
                SumKey(Scope.PATH, MINUTE, AT, "default", path, result),
                SumKey(Scope.ENDPOINT, MINUTE, AT, "default", "", result),
            ):
                counted = rows[key]
                self.assertEqual((counted.runs, counted.attempts), (1, attempts))
                self.assertEqual((counted.lateness.text(), counted.duration.text()), ("", ""))
        numbers = sums.numbers()
        self.assertEqual(
            numbers["dalga_runs_total"],
            {("default", "a", "overridden"): 1, ("default", "b", "cancelled"): 1},
        )
        attempts_by_kind = numbers["dalga_attempts_total"]
        self.assertEqual(attempts_by_kind, {("default", "5xx", "status"): 2})  # as they ended

    def test_without_an_end_in_the_next_minute(self) -> None:
        """As ends, they begin a minute."""
        sums = sums_of(end())
        sums.closed([closed()], NOW + MINUTE)
        self.assertEqual([written.at for written in sums.unsaved()], [AT, AT + MINUTE])

    def test_runs_that_go_on(self) -> None:
        """A run that is to be tried again is not over, nor is one that was given back."""
        sums = sums_of(end(outcome=FAILURE, result=None), (End(RUN, None, GiveBack()), None))
        self.assertEqual(rows_of(sums), {})

    def test_keys(self) -> None:
        """Endpoints, paths and results have sums of their own."""
        sums = sums_of(
            end("a"),
            end("b"),
            end("a", endpoint="other"),
            end("a", outcome=FAILURE, result=Result.GIVEN_UP),
        )
        found = {
            (key.scope.name, key.endpoint, key.path, key.result.value): counted.runs
            for key, counted in rows_of(sums).items()
        }
        self.assertEqual(
            found,
            {
                ("ENDPOINT", "default", "", "succeeded"): 2,
                ("ENDPOINT", "default", "", "given_up"): 1,
                ("ENDPOINT", "other", "", "succeeded"): 1,
                ("PATH", "default", "a", "succeeded"): 1,
                ("PATH", "default", "b", "succeeded"): 1,
                ("PATH", "other", "a", "succeeded"): 1,
                ("PATH", "default", "a", "given_up"): 1,
            },
        )

    def test_the_rest(self) -> None:
        """The busiest paths have sums of their own, the rest one together."""
        paths = [f"p{number:03}" for number in range(BUSIEST + 20)]
        database = Database()
        sums = sums_of(*(end(path) for path in paths), *(end(path) for path in paths[20:]))
        database.save(sums)
        found = database.runs(Scope.PATH)
        self.assertEqual(len(found), BUSIEST + 1)
        self.assertEqual(found["default", "", "succeeded"], 20)
        self.assertEqual(found["default", "p020", "succeeded"], 2)

    def test_a_path_that_becomes_busy(self) -> None:
        """It gets a sum of its own, and another path's runs go to the rest."""
        paths = [f"p{number:03}" for number in range(BUSIEST + 1)]
        database = Database()
        sums = sums_of(*(end(path) for path in paths))
        database.save(sums)
        (first,) = set(paths) - {path for _, path, _ in database.runs(Scope.PATH)}
        sums.ended([end(first)] * 5, NOW)
        database.save(sums)
        found = database.runs(Scope.PATH)
        self.assertEqual(found["default", first, "succeeded"], 6)
        self.assertEqual(found["default", "", "succeeded"], 1)
        self.assertEqual((len(found), sum(found.values())), (BUSIEST + 1, BUSIEST + 6))

    def test_many_paths(self) -> None:
        """P10: a minute has a bound, and no run is lost for it."""
        sums = sums_of(*(end(f"p{number}") for number in range(PATHS + 50)))
        assert sums._open is not None
        self.assertEqual(len(sums._open.cells), PATHS + 1)
        database = Database()
        database.save(sums)
        self.assertEqual(sum(database.runs(Scope.PATH).values()), PATHS + 50)
        self.assertEqual(database.runs(Scope.ENDPOINT), {("default", "", "succeeded"): PATHS + 50})


class WritingTests(SynchronousTestCase):
    """What is to be written, and when it counts as written."""

    def test_what_was_written_is_not_written_again(self) -> None:
        sums = sums_of(end("a"), end("b"))
        database = Database()
        database.save(sums)
        self.assertEqual(sums.unsaved(), [])
        sums.ended([end("b")], NOW)
        found = {(key.scope, key.path): counted.runs for key, counted in rows_of(sums).items()}
        self.assertEqual(found, {(Scope.ENDPOINT, ""): 3, (Scope.PATH, "b"): 2})

    def test_minutes(self) -> None:
        """A minute that is over is written once more, and then the next one."""
        sums, database = sums_of(end()), Database()
        database.save(sums)
        sums.ended([end(), end()], AT + MINUTE - timedelta(microseconds=1))
        sums.ended([end()], AT + MINUTE)
        written = sums.unsaved()
        self.assertEqual([each.at for each in written], [AT, AT + MINUTE])
        self.assertEqual([dict(each.rows)[each.rows[0][0]].runs for each in written], [3, 1])
        database.save(sums)
        self.assertEqual(sums.unsaved(), [])
        self.assertEqual(database.runs(Scope.ENDPOINT), {("default", "", "succeeded"): 4})

    def test_a_write_that_fails(self) -> None:
        """The same is to be written again, whether it was written or not: nothing counts twice."""
        for done in (False, True):
            sums, database = sums_of(end("a")), Database()
            for written in sums.unsaved():
                if done:
                    database.write(written)
            sums.ended([end("a"), end("b")], NOW)
            sums.ended([end("a")], NOW + MINUTE)
            database.save(sums)
            self.assertEqual(database.runs(Scope.ENDPOINT), {("default", "", "succeeded"): 4}, done)
            self.assertEqual(
                database.runs(Scope.PATH),
                {("default", "a", "succeeded"): 3, ("default", "b", "succeeded"): 1},
            )

    def test_an_end_while_it_is_written(self) -> None:
        """It is written with the next write."""
        sums, database = sums_of(end()), Database()
        (written,) = sums.unsaved()
        sums.ended([end()], NOW)
        database.write(written)
        sums.saved(written)
        self.assertFalse(sums.is_saved)
        database.save(sums)
        self.assertTrue(sums.is_saved)
        self.assertEqual(database.runs(Scope.ENDPOINT), {("default", "", "succeeded"): 2})

    def test_a_rest_of_other_paths(self) -> None:
        """It is written again, though its runs are as many: they are other runs."""
        early = [end(f"p{number:03}") for number in range(BUSIEST)]
        sums, database = sums_of(*early, end("p-late", late=1.0)), Database()
        database.save(sums)
        rest = SumKey(Scope.PATH, MINUTE, AT, "default", "", Result.SUCCEEDED)
        self.assertEqual(database.rows["one", rest].lateness.text(), "1000:1")
        sums.ended([end("p-late", late=1.0)], NOW)
        database.save(sums)
        self.assertEqual(database.rows["one", rest].lateness.text(), "1:1")

    def test_a_minute_ends_while_it_is_written(self) -> None:
        """What the database has then is of before: the minute is written once more."""
        sums, database = sums_of(end()), Database()
        (written,) = sums.unsaved()
        sums.ended([end()], NOW)
        sums.ended([end()], NOW + MINUTE)
        database.write(written)
        sums.saved(written)
        database.save(sums)
        self.assertEqual(database.runs(Scope.ENDPOINT), {("default", "", "succeeded"): 3})

    def test_a_clock_that_was_set_back(self) -> None:
        """The minutes that come again are written beside what was written of them, not over it."""
        sums, database = sums_of(end()), Database()
        database.save(sums)
        sums.ended([end()], NOW + MINUTE)
        database.save(sums)
        sums.ended([end()], NOW - 10 * MINUTE)
        sums.ended([end()], NOW)
        database.save(sums)
        self.assertEqual(database.runs(Scope.ENDPOINT), {("default", "", "succeeded"): 4})
        self.assertEqual({instance for instance, _ in database.rows}, {"one", "one~1"})

    def test_an_estimate_that_goes_back(self) -> None:
        """A moment before the minute counts in the minute."""
        sums = sums_of(end())
        sums.ended([end()], AT - timedelta(milliseconds=3))
        self.assertEqual([each.at for each in sums.unsaved()], [AT])

    def test_nothing_can_be_written(self) -> None:
        """P10: so many minutes wait, and the oldest are dropped."""
        sums = Sums("one", PathLabels())
        for number in range(UNSAVED + 3):
            sums.ended([end()], NOW + number * MINUTE)
        waiting = sums.unsaved()
        self.assertEqual(len(waiting), UNSAVED + 1)
        self.assertEqual((waiting[0].at, sums.dropped), (AT + 2 * MINUTE, 2))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("abcdef"),
                st.sampled_from([Result.SUCCEEDED, Result.GIVEN_UP]),
                st.integers(0, 40),
                st.sampled_from(["no", "saved", "failed", "lost"]),
            ),
            max_size=40,
        )
    )
    def test_nothing_counts_twice_and_nothing_is_lost(
        self, steps: list[tuple[str, Result, int, str]]
    ) -> None:
        """Whatever becomes of writes: each run is in one sum of each scope at the end."""
        sums, database, now = Sums("one", PathLabels()), Database(), NOW
        for path, result, seconds, write in steps:
            now += seconds * SECOND
            outcome = OK if result is Result.SUCCEEDED else FAILURE
            sums.ended([end(path, outcome, result)], now)
            if write == "saved":
                database.save(sums)
            elif write == "lost":  # all COMMITs but the last were answered
                for written in sums.unsaved():
                    database.write(written)
            elif write == "failed":
                sums.unsaved()
        database.save(sums)
        expected: dict[tuple[str, str, str], int] = {}
        for path, result, _, _ in steps:
            name = "default", path, result.value
            expected[name] = expected.get(name, 0) + 1
        self.assertEqual(database.runs(Scope.PATH), expected)
        self.assertEqual(sum(database.runs(Scope.ENDPOINT).values()), len(steps))


class NumberTests(SynchronousTestCase):
    """The numbers of the metrics."""

    def numbers(self, *ends: Ended) -> dict[str, object]:
        return dict(sums_of(*ends).numbers())

    def test_runs_and_attempts(self) -> None:
        refused = Outcome(None, 0.2, "refused", kind=ErrorKind.CONNECT)
        found = self.numbers(
            end("a", late=0.004),
            end("a", outcome=Outcome(201, 0.1), result=Result.GIVEN_UP),
            end("b", outcome=FAILURE, result=None),
            end("b", outcome=refused, result=Result.GIVEN_UP, attempt=3),
            end("b", outcome=None, result=Result.SKIPPED),
            end("c", endpoint="other"),
            (End(RUN, None, GiveBack()), None),
        )
        self.assertEqual(
            found["dalga_runs_total"],
            {
                ("default", "a", "succeeded"): 1,
                ("default", "a", "given_up"): 1,
                ("default", "b", "given_up"): 1,
                ("default", "b", "skipped"): 1,
                ("other", "c", "succeeded"): 1,
            },
        )
        self.assertEqual(
            found["dalga_attempts_total"],
            {
                ("default", "2xx", ""): 1,
                ("default", "2xx", "status"): 1,
                ("default", "5xx", "status"): 1,
                ("default", "", "connect"): 1,
                ("other", "2xx", ""): 1,
            },
        )
        per_run = found["dalga_run_attempts"]
        self.assertEqual(per_run, {(): Counts([3, 0, 1, 0, 0, 0, 0, 0], 6.0)})

    def test_a_success_of_another_class(self) -> None:
        """The endpoint's section may say that a 404 is one."""
        ended, result = end()
        assert ended.outcome is not None
        gone = ended._replace(outcome=ended.outcome._replace(status=404))
        found = self.numbers((gone, result), end())
        self.assertEqual(
            found["dalga_attempts_total"], {("default", "4xx", ""): 1, ("default", "2xx", ""): 1}
        )

    def test_the_label_of_the_rest(self) -> None:
        """Paths that have no cell of their own have no label of their own."""
        sums = Sums("one", PathLabels(2 * PATHS))
        sums.ended((end(f"p{number}") for number in range(PATHS + 50)), NOW)
        runs = sums.numbers()["dalga_runs_total"]
        self.assertEqual(runs["default", OTHER, "succeeded"], 50)
        self.assertEqual(len(runs), PATHS + 1)

    def test_seconds(self) -> None:
        found = self.numbers(
            end(late=0.004),
            end(late=-0.5),
            end(outcome=Outcome(500, 0.3), result=None),
            end(outcome=None, result=Result.SKIPPED),
        )
        lateness, duration = (
            found[f"dalga_{name}_seconds"] for name in ("lateness", "attempt_duration")
        )
        assert isinstance(lateness, dict) and isinstance(duration, dict)
        counts = lateness["default",]
        self.assertEqual((counts.buckets[0], counts.buckets[2], sum(counts.buckets)), (1, 1, 2))
        self.assertAlmostEqual(counts.sum, 0.004)
        counts = duration["default",]
        self.assertEqual((counts.buckets[4], counts.buckets[6], sum(counts.buckets)), (2, 1, 3))
        self.assertAlmostEqual(counts.sum, 0.5)

    def test_counters_never_fall(self) -> None:
        """Nor does a minute's end count anything twice; and a path keeps its label."""
        sums = Sums("one", PathLabels(2))
        before: dict[str, int] = {}
        for number in range(300):
            path = f"p{number % 7}"
            sums.ended([end(path)], NOW + number * 7 * SECOND)
            found: dict[str, int] = {}
            for labels, count in sums.numbers()["dalga_runs_total"].items():
                assert isinstance(count, int)
                found[labels[1]] = count
            self.assertEqual(sum(found.values()), number + 1)
            self.assertTrue(all(found.get(label, 0) >= before[label] for label in before))
            self.assertLessEqual(len(found), 3)
            before = found
        self.assertEqual(set(before), {"p0", "p1", "other"})

    def test_numbers_that_were_given_stay(self) -> None:
        sums = sums_of(end())
        given = sums.numbers()["dalga_runs_total"]
        sums.ended([end()], NOW)
        self.assertEqual(given, {("default", "a", "succeeded"): 1})

    def test_a_look_changes_nothing(self) -> None:
        """However often somebody looks, and though a minute is over and the next has begun."""
        sums = sums_of(end("/a"), end("/a", attempt=3), end("/b", FAILURE, Result.GIVEN_UP))
        sums.ended([end("/a"), end("/a", FAILURE, None)], NOW + MINUTE)
        first = sums.numbers()
        self.assertEqual(len(first["dalga_lateness_seconds"]), 1)
        for _ in range(3):
            self.assertEqual(sums.numbers(), first)


class HourTests(SynchronousTestCase):
    """Steps, and sums of hours."""

    def test_floor(self) -> None:
        for text, step, expected in (
            ("2026-03-01T09:59:59.999999", MINUTE, "2026-03-01T09:59"),
            ("2026-03-01T10:00", MINUTE, "2026-03-01T10:00"),
            ("2026-03-01T10:59:59", timedelta(hours=1), "2026-03-01T10:00"),
            ("2026-03-01T23:59:59", timedelta(days=1), "2026-03-01T00:00"),
            ("1969-12-31T23:59:59", timedelta(days=1), "1969-12-31T00:00"),
        ):
            self.assertEqual(floor(utc(text), step), utc(expected), text)

    def test_by_hour(self) -> None:
        """Minutes of an hour are added up; a day's border parts them as any other hour's."""

        def row(text: str, path: str = "a") -> tuple[SumKey, Sum]:
            key = SumKey(Scope.PATH, MINUTE, utc(text), "default", path, Result.SUCCEEDED)
            return key, rows_of(sums_of(end(path)))[key._replace(at=AT)]

        def rows() -> Iterable[tuple[SumKey, Sum]]:
            yield row("2026-02-28T23:00")
            yield row("2026-02-28T23:59")
            yield row("2026-03-01T00:00")
            yield row("2026-03-01T00:00", "b")

        found = by_hour(rows())
        self.assertEqual(
            {(key.at, key.path): counted.runs for key, counted in found.items()},
            {
                (utc("2026-02-28T23:00"), "a"): 2,
                (utc("2026-03-01T00:00"), "a"): 1,
                (utc("2026-03-01T00:00"), "b"): 1,
            },
        )
        first, *_ = found.values()
        self.assertEqual((first.lateness.text(), first.duration.text()), ("1:2", "100:2"))
