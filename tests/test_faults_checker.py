"""The fault bench's checker objects to each way in which a promise may be broken, and no other."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from faults.checker import Bounds, check, repetitions
from faults.history import Fault, History, Post, Row, Said, Verb

KEY = ("job", "body")
#: The first run of most jobs here.
T = 1000
BOUNDS = Bounds(late=2.0, grace=1.0, lease=13.0, backoff=5.0)


def post(
    scheduled: int, start: float | None = None, end: float | None = None, **other: Any
) -> Post:
    """A POST that took a tenth of a second, by default soon after its time, and well."""
    start = scheduled + 0.2 if start is None else start
    given = {"run": f"run-{scheduled}", "attempt": 1, "instance": "one", "status": 200}
    return Post(*KEY, scheduled=scheduled, start=start, end=end or start + 0.1, **given | other)


def put(at: float, next_run: int, interval: int = 0) -> Said:
    return Said(KEY, Verb.PUT, at, at + 0.1, interval, interval, next_run)


def said(verb: Verb, at: float, **other: Any) -> Said:
    return Said(KEY, verb, at, at + 0.1, **other)


def row(scheduled: int | None = None, **other: bool) -> Row:
    given = {"disabled": False, "leased": False, "deleted": False}
    return Row(KEY, scheduled=scheduled, **given | other)


def history(*what: Any, ended: float = T + 100.0) -> History:
    found = History(ended=ended)
    lists: dict[type, list[Any]] = {
        Post: found.posts,
        Said: found.said,
        Fault: found.faults,
        Row: found.rows,
    }
    for one in what:
        lists[type(one)].append(one)
    return found


def every(seconds: int, until: int, first: int = T) -> list[Post]:
    return [post(at) for at in range(first, until, seconds)]


class CheckerTests(SynchronousTestCase):
    def well(self, *what: Any, ended: float = T + 100.0) -> None:
        self.assertEqual([str(one) for one in check(history(*what, ended=ended), BOUNDS)], [])

    def wrong(self, words: str, *what: Any, ended: float = T + 100.0) -> None:
        found = [str(one) for one in check(history(*what, ended=ended), BOUNDS)]
        self.assertEqual(len(found), 1, found)
        self.assertIn(words, found[0])

    def test_once(self) -> None:
        asked = put(T - 1, T)
        self.well(asked, post(T))
        self.wrong("P2: job/body: no run for 1000", asked, row(T))
        self.wrong("P1: job/body: is gone, though it has not run", asked, ended=T)
        self.wrong("ran once, and was done", asked, post(T), row(T))
        self.wrong("no run for 1000 was done by", asked, post(T, T + 30))
        self.well(asked, post(T, status=500), post(T, T + 4, attempt=2))
        self.wrong("no run for", asked, post(T, status=500), post(T, T + 20, attempt=2))

    def test_periodic(self) -> None:
        asked = put(T - 3, T, 3)
        runs = every(3, T + 100)
        self.well(asked, *runs, row(T + 102))
        self.wrong("no run for 1009", asked, *runs[:3], *runs[4:], row(T + 102))
        self.wrong("is gone, though nobody has deleted it", asked, *runs)
        self.wrong("is scheduled for 1101 at the end", asked, *runs, row(T + 101))
        self.wrong("is disabled at the end", asked, *runs, row(T + 102, disabled=True))
        # P9: what came due while an earlier run was under way has none of its own.
        slow = post(T + 3, end=T + 8)
        self.well(asked, runs[0], slow, *runs[3:], row(T + 102))

    def test_overlap(self) -> None:
        asked = put(T - 3, T, 3)
        runs = every(3, T + 100)
        runs[0] = post(T, end=T + 3.6)
        self.wrong("P3: job/body: run run-1003", asked, *runs, row(T + 102))
        long = post(T, end=T + 6.6)
        found = check(history(asked, long, *runs[1:], row(T + 102)), BOUNDS)
        self.assertEqual([one.promise for one in found], ["P3", "P3"])
        runs[0] = post(T)
        runs[0].end = runs[0].status = None
        self.assertIn("goes on", str(check(history(asked, *runs, row(T + 102)), BOUNDS)[0]))

    def test_resurrected(self) -> None:
        asked, gone = put(T - 3, T, 3), said(Verb.DELETE, T + 10)
        runs = every(3, T + 10)
        self.well(asked, gone, *runs)
        self.wrong("P4: job/body: run run-1012", asked, gone, *runs, post(T + 12))
        self.wrong("though it was deleted", asked, gone, *runs, row(T + 12))
        self.well(asked, gone, *runs, row(T + 12, deleted=True, leased=True))
        # What had been claimed before may begin a moment later; what failed is not tried again.
        self.well(asked, gone, *runs[:3], post(T + 9, T + 10.9))
        failed = post(T + 9, status=500)
        self.wrong("attempt 2", asked, gone, *runs[:3], failed, post(T + 9, T + 14, attempt=2))

    def test_disabled(self) -> None:
        asked, off = put(T - 3, T, 3), said(Verb.DISABLE, T + 10)
        on = said(Verb.ENABLE, T + 20)
        runs = every(3, T + 10)
        self.well(asked, off, *runs, row(T + 12, disabled=True))
        self.wrong("run-1015", asked, off, *runs, post(T + 15), row(T + 12, disabled=True))
        self.wrong("is enabled at the end", asked, off, *runs, row(T + 12))
        late = post(T + 12, T + 20.3)
        again = every(3, T + 100, T + 21)
        self.well(asked, off, on, *runs, late, *again, row(T + 102))
        self.wrong("no run for 1021", asked, off, on, *runs, late, *again[1:], row(T + 102))

    def test_scheduled_anew(self) -> None:
        asked, anew = put(T - 3, T, 3), put(T + 10, T + 15, 5)
        runs, later = every(3, T + 10), every(5, T + 100, T + 15)
        self.well(asked, anew, *runs, *later, row(T + 100))
        self.wrong("run-1012", asked, anew, *runs, post(T + 12), *later, row(T + 100))
        self.wrong("is scheduled for 1102", asked, anew, *runs, *later, row(T + 102))
        self.wrong("no run for 1015", asked, anew, *runs, *later[1:], row(T + 100))

    def test_triggered(self) -> None:
        asked = put(T - 3, T, 3)
        now = said(Verb.TRIGGER, T + 10, next_run=T + 10)
        runs, later = every(3, T + 10), every(3, T + 100, T + 10)
        self.well(asked, now, *runs, *later, row(T + 100))
        self.wrong("no run for 1010", asked, now, *runs, *later[1:], row(T + 100))

    def test_run_ids(self) -> None:
        asked = put(T - 1, T)
        first = post(T, status=500)
        self.wrong("2 runs for 1000", asked, first, post(T, T + 3, run="other", attempt=2))
        self.wrong("comes after attempt 1", asked, first, post(T, T + 3))
        periodic = put(T - 3, T, 3)
        runs = every(3, T + 100)
        runs[1].run = runs[0].run
        runs[1].attempt = 2
        found = check(history(periodic, *runs, row(T + 102)), BOUNDS)
        self.assertIn("was scheduled for 1000 before", " ".join(map(str, found)))

    def test_repeated(self) -> None:
        asked = put(T - 1, T)
        posts = post(T), post(T, T + 14, attempt=2)
        self.wrong("repeats run run-1000", asked, *posts)
        self.well(asked, *posts, Fault("SIGKILL", T, T + 13))
        self.wrong("repeats", asked, *posts, Fault("SIGTERM", T, T + 13, repeats=False))
        self.assertEqual(repetitions(posts), [posts])
        self.assertEqual(repetitions([post(T, status=500), posts[1]]), [])

    def test_late_by_a_fault(self) -> None:
        asked, late = put(T - 1, T), post(T, T + 14)
        self.wrong("no run for", asked, late)
        self.well(asked, late, Fault("SIGKILL", T - 5, T + 12.5))
        self.wrong("no run for", asked, late, Fault("SIGKILL", T - 5, T - 1))
        self.wrong("no run for", asked, late, Fault("SIGKILL", T + 4, T + 12.5))

    def test_not_acknowledged(self) -> None:
        """Nobody knows whether it was done, so it may have been or not."""
        asked = put(T - 3, T, 3)
        gone = Said(KEY, Verb.DELETE, T + 10)
        runs = every(3, T + 10)
        self.well(asked, gone, *runs)
        self.well(asked, gone, *every(3, T + 100), row(T + 102))
        maybe = Said(KEY, Verb.PUT, T + 10, None, 60, 5)
        self.well(asked, maybe, *runs, *every(60, T + 100, T + 15), row(T + 135))
        self.wrong("run-2003", asked, maybe, *runs, post(2003, 2003.5), row(T + 100))

    def test_early(self) -> None:
        self.wrong("is before its time", put(T - 1, T), post(T, T - 0.1))

    def test_nobody_asked(self) -> None:
        self.wrong("none that was asked for", post(T))
        self.wrong("though nobody asked for it", row(T))

    @given(
        st.integers(1, 5),
        st.lists(st.sampled_from(("lose", "double", "overlap", "late")), max_size=1),
        st.integers(2, 12),
    )
    def test_any_history(self, interval: int, damage: list[str], number: int) -> None:
        """One that is as it should be is well; with one thing amiss it is not."""
        asked = put(T - interval, T, interval)
        ended = T + interval * 20
        runs = every(interval, ended)
        victim = runs[number]
        for what in damage:
            if what == "lose":
                runs.remove(victim)
            elif what == "double":
                runs.append(post(victim.scheduled, victim.start + 0.2, attempt=2))
            elif what == "overlap":
                victim.end = runs[number + 1].start + 0.01
            else:
                victim.start += 3.5
                victim.end = victim.start + 0.05
        next_run = T + interval * 20
        found = check(history(asked, *runs, row(next_run), ended=float(ended)), BOUNDS)
        self.assertEqual(bool(found), bool(damage), [str(one) for one in found])
