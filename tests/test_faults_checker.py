"""The fault bench's checker objects to each way in which a promise may be broken, and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from faults.checker import Bounds, check, repetitions
from faults.history import Fault, History, Post, Record, Row, Said, Says, Verb, plainly, says

KEY = ("job", "body")
#: The first run of most jobs here.
T = 1000
BOUNDS = Bounds(late=2.0, grace=1.0, lease=13.0, backoff=5.0)


def post(
    scheduled: int, start: float | None = None, end: float | None = None, **other: Any
) -> Post:
    """A POST that took a tenth of a second, by default soon after its time, and well."""
    start = scheduled + 0.2 if start is None else start
    given: dict[str, Any] = {
        "run": f"run-{scheduled}",
        "attempt": 1,
        "instance": "one",
        "status": 200,
    }
    return Post(*KEY, scheduled=scheduled, start=start, end=end or start + 0.1, **given | other)


def put(at: float, next_run: float, interval: int = 0) -> Said:
    return Said(KEY, Verb.PUT, at, at + 0.1, interval, next_run - at, int(next_run))


def said(verb: Verb, at: float, **other: Any) -> Said:
    if verb is Verb.ENABLE and "refused" not in other:
        other.setdefault("next_run", int(at))
    return Said(KEY, verb, at, at + 0.1, **other)


def row(scheduled: float | None = None, **other: Any) -> Row:
    due = None if other.get("disabled") else scheduled
    given = {"disabled": False, "leased": False, "deleted": False, "due": due}
    return Row(KEY, scheduled=scheduled, **given | other)


def history(*what: Any, ended: float = T + 100.0) -> History:
    found = History(ended=ended)
    lists: dict[type, list[Any]] = {
        Post: found.posts,
        Said: found.said,
        Fault: found.faults,
        Row: found.rows,
        Record: found.records,
    }
    for one in what:
        if isinstance(one, tuple):
            found.foreign.add(one)
        else:
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

    def test_once_again_in_the_same_second(self) -> None:
        """A PUT while a POST is on its way: that may look like the run of the new job."""
        first, on_its_way = put(T + 0.1, T + 0.1), post(T, T + 0.6)
        again, disabled = put(T + 0.55, T + 0.55), said(Verb.DISABLE, T + 0.8)
        left = row(T + 0.6, disabled=True)
        self.well(first, on_its_way, again, disabled, left)
        self.wrong("table, disabled, though it ran once", first, on_its_way, disabled, left)
        # The new job's own run has been done as well.
        done = post(T, T + 2.9, run="run-again")
        self.wrong("table, due at 1000.600, though", first, on_its_way, again, done, row(T + 0.6))

    def test_periodic(self) -> None:
        asked = put(T - 3, T, 3)
        runs = every(3, T + 100)
        self.well(asked, *runs, row(T + 102))
        self.wrong("no run for 1009", asked, *runs[:3], *runs[4:], row(T + 102))
        self.wrong("is gone, though nobody has deleted it", asked, *runs)
        self.wrong("is scheduled for 1101.000 at the end", asked, *runs, row(T + 101))
        self.wrong("is disabled at the end", asked, *runs, row(T + 102, disabled=True))
        # P9: what came due while an earlier run was under way has none of its own.
        slow = post(T + 3, end=T + 8)
        self.well(asked, runs[0], slow, *runs[3:], row(T + 102))
        # It takes a moment until the instance has its answer, but no longer.
        self.well(asked, runs[0], post(T + 3, end=T + 5.9), *runs[3:], row(T + 102))
        soon = post(T + 3, end=T + 5.4)
        self.wrong("no run for 1006", asked, runs[0], soon, *runs[3:], row(T + 102))
        # An instance that is held has its answer when it goes on; another one's is no reason.
        what = (asked, runs[0], soon, *runs[3:], row(T + 102))
        for since in (T + 4, T + 5.5):
            self.well(Fault("SIGSTOP", since, T + 6.1, held="one"), *what)
            for other in ("two", ""):
                self.wrong("no run for 1006", Fault("SIGSTOP", since, T + 6.1, held=other), *what)
        self.wrong("no run for 1006", Fault("SIGSTOP", T + 3.5, T + 5.3, held="one"), *what)

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
        killed = Fault("SIGKILL", T + 90, T + 103)
        self.well(asked, gone, *runs, row(T + 12, deleted=True, leased=True), killed)
        self.wrong("and its run has ended", asked, gone, *runs, row(T + 12, deleted=True))
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
        now = said(Verb.TRIGGER, T + 10, next_run=T + 10, delay=3)  # which is for a PUT only
        runs, later = every(3, T + 10), every(3, T + 100, T + 10)
        self.well(asked, now, *runs, *later, row(T + 100))
        self.wrong("no run for 1010", asked, now, *runs, *later[1:], row(T + 100))

    def test_enabled_again(self) -> None:
        """What came due while it was disabled comes down to one run, at once."""
        once = put(T - 1, T)
        off, on = said(Verb.DISABLE, T - 0.5), said(Verb.ENABLE, T + 20)
        self.well(once, off, on, post(T, T + 20.2))
        self.wrong("no run for 1000 was done by 1022.100", once, off, on, row(T))
        self.wrong("no run for 1000", once, off, on, post(T, T + 30))
        # It has run before.
        self.well(once, post(T), said(Verb.DISABLE, T + 0.25), said(Verb.ENABLE, T + 0.27))
        self.wrong("is gone, though it has not run", once, off)
        self.wrong("is enabled at the end", once, off, row(T))
        asked, off = put(T - 3, T, 3), said(Verb.DISABLE, T + 10)
        runs, again = every(3, T + 10), every(3, T + 100, T + 21)
        self.well(asked, off, on, *runs, post(T + 12, T + 20.3), *again, row(T + 102))
        self.wrong("no run for 1018", asked, off, on, *runs, *again, row(T + 102))
        # It was triggered before: its times are those from then on.
        now = said(Verb.TRIGGER, T + 4, next_run=T + 4)
        moved = [*every(3, T + 4), *every(3, T + 10, T + 4), post(T + 10, T + 20.3)]
        again = every(3, T + 100, T + 22)
        self.well(asked, now, off, on, *moved, *again, row(T + 100))

    def test_first_of_another_plan(self) -> None:
        """A run of the plan before does not stand for what the new one asks for."""
        asked, anew = put(T - 3, T, 60), put(T + 1, T + 2)
        long = post(T, end=T + 2.5)
        self.well(asked, anew, long, post(T + 2, T + 2.6))
        self.wrong("no run for 1002", asked, anew, long, row(T + 2))
        # Nor if it begins when the new one's first was due already.
        anew, held = put(T + 1, T + 1.5), post(T, T + 1.6, T + 5)
        self.well(asked, anew, held, post(T + 1, T + 5.1))
        self.wrong("no run for 1001", asked, anew, held, row(T + 1.5))

    def test_perhaps(self) -> None:
        """After a word that nobody knows of, both are allowed, and nothing else."""
        asked = put(T - 3, T, 3)
        runs = every(3, T + 10)
        gone, on = Said(KEY, Verb.DELETE, T + 10), said(Verb.ENABLE, T + 20)
        # Who could enable it had not deleted it.
        self.well(asked, *every(3, T + 100), gone, on, row(T + 102))
        self.wrong(
            "no run for 1018", asked, *runs, gone, on, *every(3, T + 100, T + 21), row(T + 102)
        )
        self.wrong("is gone, though nobody", asked, *every(3, T + 100), gone, on)
        self.wrong("is scheduled for 1101", asked, *runs, gone, row(T + 101))
        # Deleted and made anew, or only made anew.
        anew = put(T + 12, T + 15, 3)
        for first in ("run-1015", "another"):
            later = [post(T + 15, run=first), *every(3, T + 100, T + 18)]
            self.well(asked, *runs, gone, anew, *later, row(T + 102))
        # Disabled or not; but not with other times.
        off = Said(KEY, Verb.DISABLE, T + 10)
        for disabled in (True, False):
            self.well(asked, *runs, off, row(T + 102, disabled=disabled))
        self.wrong("is gone", asked, *runs, off)
        # Triggered or not: its times go on from the one or the other.
        now = Said(KEY, Verb.TRIGGER, T + 10, None)
        self.well(asked, *runs, now, *every(3, T + 100, T + 12), row(T + 102))
        self.well(asked, *runs, now, *every(3, T + 100, T + 10), row(T + 100))
        other, now = (
            Said(KEY, Verb.PUT, T + 10, None, 2, 60),
            said(Verb.TRIGGER, T + 11, next_run=T + 11),
        )
        for seconds in (2, 3):
            at = T + 11 + seconds * 30
            later = every(seconds, T + 100, T + 11)
            self.well(asked, *runs, other, now, *later, row(later[-1].scheduled + seconds))
        self.wrong("no run for 1011", asked, *runs, other, now, row(at))
        sure = put(T + 90, T + 99, 60)
        late = post(T + 96)
        self.wrong("run-1096", asked, *runs, off, sure, late, post(T + 99), row(T + 159))
        # It can't have been carried out after the next word was.
        new = Said(KEY, Verb.PUT, T + 10, None, 60, 60)
        sure = said(Verb.DISABLE, T + 11)
        row_ = row(T + 74, disabled=True)
        self.wrong("is scheduled for 1074.000", asked, *runs, new, sure, row_)
        self.well(asked, *runs, new, sure, row(T + 71.05, disabled=True))

    def test_answers(self) -> None:
        """What a word was answered tells what there was."""
        asked, gone = put(T - 3, T, 3), said(Verb.DELETE, T + 10)
        runs = every(3, T + 10)
        on = said(Verb.ENABLE, T + 20)
        self.wrong("there was nothing to do it to", asked, *runs, gone, on)
        refused = said(Verb.ENABLE, T + 20, refused=404)
        self.well(asked, *runs, gone, refused)
        lost = "P1: job/body: ENABLE of 1020.000 was answered 404"
        self.wrong(lost, asked, *every(3, T + 20), refused)
        off = said(Verb.DISABLE, T + 10)
        conflict = said(Verb.TRIGGER, T + 20, refused=409)
        self.well(asked, *runs, off, conflict, row(T + 12, disabled=True))
        self.wrong("TRIGGER of 1020.000 was answered 409", asked, *every(3, T + 20), conflict)
        self.wrong(
            "was acknowledged", asked, *runs, off, said(Verb.TRIGGER, T + 20, next_run=T + 20)
        )
        once = put(T - 1, T)
        self.well(once, post(T), refused)
        later = put(T - 1, T + 50)
        self.wrong("was answered 404", later, refused)

    def test_lost_behind(self) -> None:
        """What was skipped is lost, however late a run may be."""
        asked = put(T - 3, T, 3)
        down = Fault("SIGSTOP", T, T + 200)
        runs = every(3, T + 100)
        self.wrong(
            "no run for 1030 was done by 1033.2", asked, down, *runs[:10], *runs[11:], row(T + 102)
        )
        self.well(asked, down, *runs[:-1], row(T + 99))
        self.wrong("no run for 1099", asked, down, *runs[:-1], row(T + 102))

    def test_flood(self) -> None:
        """P9: what went by has no run of its own afterwards."""
        asked = put(T - 3, T, 3)
        down = Fault("endpoint down", T + 2, T + 20)
        runs = [post(T), post(T + 3, T + 20), *every(3, T + 100, T + 21)]
        self.well(asked, down, *runs, row(T + 102))
        made_up = post(T + 6, T + 20.3)
        self.wrong("P9: job/body: run run-1006", asked, down, *runs, made_up, row(T + 102))
        # What was triggered meanwhile runs afterwards.
        now, long = said(Verb.TRIGGER, T + 10, next_run=T + 10), post(T + 9, end=T + 13)
        later = [post(T + 10, T + 13.1), *every(3, T + 100, T + 16)]
        self.well(asked, now, *every(3, T + 9), long, *later, row(T + 100))

    def test_attempts(self) -> None:
        """P2: they count up by one, but for what was claimed and not begun."""
        asked = put(T - 1, T)
        failed = post(T, status=500)
        self.well(asked, failed, post(T, T + 3, attempt=2))
        self.wrong(
            "attempt 3, at 1003.000 comes after attempt 1", asked, failed, post(T, T + 3, attempt=3)
        )
        self.wrong("comes after none", asked, post(T, attempt=2))
        killed = Fault("SIGKILL", T + 0.1, T + 13.1)
        self.well(asked, killed, post(T, T + 13.2, attempt=2))
        self.well(asked, killed, failed, post(T, T + 13.3, attempt=3))
        # Who has claimed it has it for a lease; but what does not get through costs no lease.
        soon = post(T, T + 5, attempt=2)
        self.wrong("comes after none", asked, killed, soon)
        self.wrong("comes after none", asked, killed, post(T, T + 13.2, attempt=3))
        self.well(asked, Fault("endpoint down", T, T + 4), soon)
        before = Fault("SIGKILL", T - 20, T - 7)
        self.wrong("comes after none", asked, before, post(T, attempt=2))
        self.wrong("comes after none", asked, post(T, attempt=0))

    def test_leased(self) -> None:
        """P5: those that stopped in order have nothing claimed any more."""
        asked = put(T - 3, T, 3)
        runs = every(3, T + 100)
        leased = row(T + 99, leased=True)
        self.wrong("P5: job/body: is leased at the end", asked, *runs, leased)
        self.wrong("is leased", asked, *runs, leased, Fault("SIGKILL", T + 50, T + 63))
        self.well(asked, *runs, leased, Fault("SIGKILL", T + 90, T + 103))

    def test_due(self) -> None:
        """P5: no row is left such that it is not claimed again; P4: nor a disabled one that is."""
        asked, off = put(T - 3, T, 3), said(Verb.DISABLE, T + 98.5)
        runs = every(3, T + 97)
        self.wrong("is never due again", asked, *runs, post(T + 99), row(T + 102, due=None))
        failed = post(T + 99, status=500)
        self.well(asked, *runs, failed, row(T + 99, due=T + 103))
        self.wrong("due again before 1130.000", asked, *runs, failed, row(T + 99, due=T + 130))
        killed = Fault("SIGKILL", T + 90, T + 103)
        self.well(asked, *runs, failed, row(T + 99, due=T + 110, leased=True), killed)
        still = row(T + 99, due=T + 99, disabled=True)
        self.wrong("though it is disabled", asked, *runs, off, still)

    def test_foreign(self) -> None:
        """Of what nobody knows when it was to run, the rest holds all the same."""
        self.well(KEY, post(T), post(T + 5, T + 7), row())
        self.wrong("P3", KEY, post(T, end=T + 1), post(T, T + 0.5, run="other"))
        self.wrong("before its time", KEY, post(T, T - 1))
        self.wrong(
            "was scheduled for 1000 before",
            KEY,
            post(T, status=500),
            post(T + 5, run="run-1000", attempt=2),
        )
        self.wrong("repeats", KEY, post(T), post(T, T + 5, attempt=2))
        self.wrong("comes after attempt 1", KEY, post(T, status=500), post(T, T + 5, attempt=3))
        self.wrong("is leased", KEY, row(leased=True))
        self.well(KEY, post(T, attempt=7))
        self.wrong("none that was asked for", ("another", "body"), post(T))

    def test_run_of_two_jobs(self) -> None:
        other = post(T)
        other.body = "other"
        self.wrong("P2: job/other: run run-1000", KEY, ("job", "other"), post(T), other)

    def test_run_ids(self) -> None:
        asked = put(T - 1, T)
        first = post(T, status=500)
        self.wrong("2 runs for 1000", asked, first, post(T, T + 3, run="other"))
        self.wrong("comes after attempt 1", asked, first, post(T, T + 3))
        # To disable and enable it makes no other run, nor does what could not have made this one.
        off, on = said(Verb.DISABLE, T + 1), said(Verb.ENABLE, T + 1.5)
        again, other = post(T, T + 3, attempt=2), post(T, T + 3, run="other")
        self.well(asked, first, off, on, again)
        self.wrong("2 runs for 1000", asked, first, off, on, other)
        before, slow = put(T - 5, T - 1, 1), post(T, T + 0.4, status=500)
        self.wrong("2 runs for 1000", before, post(T - 1), put(T - 0.9, T), slow, other)
        later, given = put(T - 0.05, T + 0.9), (post(T, T + 0.4, run="other"), row(T + 0.9))
        self.wrong("2 runs for 1000", asked, later, first, *given, ended=T + 0.6)
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
        # It was recorded long before.
        self.wrong("repeats", asked, *posts, Fault("SIGKILL", T + 5, T + 13))
        # It would have to wait for the lease's end, had the instance seen the answer.
        soon = post(T), post(T, T + 1.5, attempt=2)
        self.wrong("repeats", asked, *soon, Fault("SIGKILL", T, T + 13))
        self.well(asked, *soon, Fault("endpoint stalled", T, T + 1))
        self.wrong("repeats", asked, *posts, Fault("SIGTERM", T, T + 13, repeats=False))
        self.assertEqual(repetitions(posts), [posts])
        self.assertEqual(repetitions([post(T, status=500), posts[1]]), [])

    def test_late_by_a_fault(self) -> None:
        asked, late = put(T - 1, T), post(T, T + 14)
        self.wrong("no run for", asked, late)
        self.well(asked, late, Fault("SIGKILL", T - 5, T + 12.5))
        self.wrong("no run for", asked, late, Fault("SIGKILL", T - 5, T - 1))
        self.wrong("no run for", asked, late, Fault("SIGKILL", T + 4, T + 12.5))
        # One that is long over has nothing to do with what is late later.
        asked, runs = put(T - 3, T, 3), every(3, T + 100)
        killed = Fault("SIGKILL", T + 5, T + 18)
        lost = [*runs[:10], post(T + 30, T + 45), *runs[16:]]
        found = [str(one) for one in check(history(asked, killed, *lost, row(T + 102)), BOUNDS)]
        self.assertEqual(len(found), 5, found)
        self.assertIn("no run for 1030 was done by 1032.1", found[0])
        # Nor has what is POSTed again much later, though it was done in time.
        again = post(T + 6, T + 40, attempt=2)
        lost = [*runs[:3], again, *every(3, T + 100, T + 42)]
        found = [str(one) for one in check(history(asked, killed, *lost, row(T + 102)), BOUNDS)]
        self.assertIn("P2: job/body: no run for 1021 was done by 1023.1", " ".join(found))

    def test_lost_without_an_answer(self) -> None:
        """A POST that was not answered excuses as long as it is tried again, not a whole lease."""
        asked, hung = put(T - 1, T), post(T, end=T + 3, status=None)
        self.well(asked, hung, post(T, T + 7, attempt=2))
        self.wrong("no run for", asked, hung, post(T, T + 13, attempt=2))
        self.well(asked, hung, post(T, T + 13, attempt=2), Fault("SIGKILL", T, T + 13))

    def test_not_acknowledged(self) -> None:
        """Nobody knows whether it was done, so it may have been or not."""
        asked = put(T - 3, T, 3)
        gone = Said(KEY, Verb.DELETE, T + 10)
        runs = every(3, T + 10)
        self.well(asked, gone, *runs)
        self.well(asked, gone, *every(3, T + 100), row(T + 102))
        maybe = Said(KEY, Verb.PUT, T + 10, None, 60, 5)
        self.well(asked, maybe, *runs, *every(60, T + 100, T + 15), row(T + 135))
        self.wrong("run-2003", asked, maybe, *runs, post(2003, 2003.5), row(T + 102))

    def test_to_the_moment(self) -> None:
        """What was said when tells a time more exactly than the whole seconds that are shown."""
        asked = put(T - 0.1, T + 0.8)
        self.well(asked, post(T, T + 0.81))
        self.wrong(
            "before its time", asked, post(T, T + 0.7, status=500), post(T, T + 1, attempt=2)
        )
        asked = put(T - 2.4, T + 0.6, 3)
        runs = [post(at, at + 0.71) for at in range(T, T + 100, 3)]
        self.well(asked, *runs, row(T + 102.65))
        self.wrong("is scheduled for 1102.750", asked, *runs, row(T + 102.75))
        early = post(T + 3, T + 3.5, status=500), post(T + 3, T + 4, attempt=2)
        self.wrong("before its time", asked, runs[0], *early, *runs[2:], row(T + 102.65))
        # Up to the end of the second: the next one's beginning is not all that may be in it.
        asked = Said(KEY, Verb.PUT, T - 0.8, T + 0.02, 1, 1, T)
        runs = [post(at, at + 0.97, at + 0.98) for at in range(T, T + 100)]
        self.well(asked, *runs, row(T + 100.95))
        self.wrong("is scheduled for 1100.150", asked, *runs, row(T + 100.15))
        # Where two of its times may be in one second, what is between them is neither.
        maybe = Said(KEY, Verb.PUT, T + 0.9, None, 1, 1)
        off = Said(KEY, Verb.DISABLE, T + 0.95, T + 1.05, next_run=None)
        self.well(maybe, off, row(T + 50.92, disabled=True))
        self.wrong("is scheduled for 1050.500", maybe, off, row(T + 50.5, disabled=True))
        # However long the answer took, the second that it shows ends where the next begins.
        slow = Said(KEY, Verb.PUT, T - 0.1, T + 0.4, 1, 1, T)
        runs = [post(at, at + 0.92) for at in range(T, T + 100)]
        self.well(slow, *runs, row(T + 100.91))
        self.wrong(
            "P4: job/body: run run-1002",
            put(T - 3, T, 3),
            *every(3, T + 100),
            post(T + 2),
            row(T + 102),
        )
        # A run of before is none for what was triggered in the same second.
        asked, now = put(T - 1, T), said(Verb.TRIGGER, T + 0.5, next_run=T)
        self.well(asked, post(T), now, post(T, T + 0.8, run="other"))
        self.wrong("no run for 1000", asked, post(T), now, row(T + 0.55))

    def test_shown(self) -> None:
        """P8: the first run that an answer shows is the one that was asked for."""
        hour = 3600
        ahead = Said(KEY, Verb.PUT, T, T + 0.1, 60, 60, T + 60 + hour)
        self.wrong("P8: job/body: PUT of 1000.000 shows a run for 4660", ahead, row(T + 60 + hour))
        self.well(put(T, T + 60, 60), post(T + 60), row(T + 120))
        asked = put(T - 3, T, 3)
        ahead = said(Verb.TRIGGER, T + 98, next_run=T + 99)
        self.wrong("shows a run for 1099", asked, *every(3, T + 98), ahead, row(T + 99.5))
        off = said(Verb.DISABLE, T + 98, next_run=T + 99)
        off_row = row(T + 99, disabled=True)
        self.wrong("shows 1099 as the next run", asked, *every(3, T + 98), off, off_row)
        off, on = said(Verb.DISABLE, T + 97.5), said(Verb.ENABLE, T + 98, next_run=None)
        self.wrong("shows none as the next run", asked, *every(3, T + 98), off, on, row(T + 99))

    def test_said_otherwise(self) -> None:
        """P4: a request is made of what its PUT said, each part of it, and of nothing else's."""
        one, other = says("PUT", "X:1", b"one"), says("PATCH", "X:2", b"other")
        plain = plainly(KEY[1])
        words = "P4: job/body: run run-1003"
        for said_first, wanted in ((one, one), (None, plain)):
            asked = replace(put(T - 3, T, 3), says=said_first)
            runs = [replace(each, says=wanted) for each in every(3, T + 100)]
            left = row(T + 102, says=wanted, tags=("X:1",) if wanted is one else ())
            self.well(asked, *runs, left)
            for wrong in {
                *(one, other, plain),
                *(wanted._replace(**{name: getattr(other, name)}) for name in Says._fields),
            } - {wanted}:
                found = [*runs[:1], replace(runs[1], says=wrong), *runs[2:]]
                self.wrong(words, asked, *found, left)
                self.wrong(
                    "at the end, which nobody asked for", asked, *runs, replace(left, says=wrong)
                )
            self.wrong("has the tags ('X:2',)", asked, *runs, replace(left, tags=("X:2",)))
            self.wrong("has the tags", asked, *runs, replace(left, tags=("X:1", "X:2")))

    def test_said_anew(self) -> None:
        """P4: after another PUT by that one; meanwhile by either, but never by parts of both."""
        one, other = says("PUT", "X:1", b"one"), says("PATCH", "X:2", b"other")
        asked = replace(put(T - 3, T, 3), says=one)
        again = replace(put(T + 30, T + 33, 3), says=other)
        runs = every(3, T + 100)
        before = [replace(each, says=one) for each in runs[:11]]
        after = [replace(each, says=other) for each in runs[11:]]
        left = row(T + 102, says=other, tags=("X:2",))
        self.well(asked, again, *before, *after, left)
        self.wrong("which nobody asked for", asked, again, *before, *after, replace(left, says=one))
        late = [*after[:5], replace(after[5], says=one), *after[6:]]
        self.wrong("run-1048", asked, again, *before, *late, left)
        mixed = [replace(after[0], says=one._replace(content=other.content)), *after[1:]]
        self.wrong("run-1033", asked, again, *before, *mixed, left)
        # One that was never acknowledged may have been done or not.
        maybe = replace(again, answered=None, next_run=None)
        runs = [replace(each, says=one) for each in every(3, T + 100)]
        self.well(asked, maybe, *runs, row(T + 102, says=one, tags=("X:1",)))
        self.well(asked, maybe, *before, *after, left)
        # An amendment leaves the times as they are, though the time that was due may be POSTed
        # while it is under way.
        amended = said(Verb.AMEND, T + 31.5, next_run=T + 33, says=other)
        self.well(asked, amended, *before, *after, left)
        self.wrong("run-1048", asked, amended, *before, *late, left)
        early = [*before[:10], replace(before[10], says=other)]
        self.wrong("run-1030", asked, amended, *early, *after, left)
        plain = [replace(each, says=plainly(KEY[1])) for each in every(3, T + 100)[11:]]
        left_plain = row(T + 102, says=plainly(KEY[1]))
        self.well(asked, said(Verb.AMEND, T + 31.5), *before, *plain, left_plain)
        lost = [*after[:5], *after[6:]]
        self.wrong("no run for 1048", asked, amended, *before, *lost, left)
        # A trigger, a pause and its end leave it as it is.
        off, on = said(Verb.DISABLE, T + 40.5), said(Verb.ENABLE, T + 40.8, next_run=T + 42)
        now = said(Verb.TRIGGER, T + 60, next_run=T + 60)
        runs = [replace(each, says=one) for each in [*every(3, T + 60), *every(3, T + 100, T + 60)]]
        left = row(T + 102, says=one, tags=("X:1",))
        self.well(asked, off, on, now, *runs, left)
        self.wrong(
            "run-1066",
            asked,
            off,
            on,
            now,
            *runs[:22],
            replace(runs[22], says=other),
            *runs[23:],
            left,
        )

    def test_early(self) -> None:
        found = check(history(put(T - 1, T), post(T, T - 0.1), ended=T + 1.0), BOUNDS)
        self.assertIn("is before its time", str(found[0]))

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
