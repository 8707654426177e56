"""The fault bench's checker objects to each way in which a record may be untrue, and no other."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from faults.history import Fault, Post, Record, Row, Tried, Verb
from faults.recorded import check_records
from tests.test_faults_checker import BOUNDS, KEY, T, every, history, post, put, row, said


def record(of: Post, result: str | None = "succeeded", **other: Any) -> Record:
    """The record of a run that ended, or is to be tried again, after this POST."""
    given: dict[str, Any] = {
        "scheduled": of.scheduled + 0.2,
        "started": of.start - 0.01,
        "ended": None if result is None else (of.end or of.start) + 0.01,
        "attempts": of.attempt,
        "status": of.status,
        "instance": of.instance,
    }
    return Record(of.key, of.run, result, **given | other)


def opened(of: Post, attempts: int = 1, **other: Any) -> Row:
    """The row of a job whose run is to be tried again."""
    return row(T + 0.2, run=of.run, attempts=attempts, opened=True, **other)


class RecordTests(SynchronousTestCase):
    def well(self, *what: Any) -> None:
        self.assertEqual([str(one) for one in check_records(history(*what), BOUNDS)], [])

    def wrong(self, words: str, *what: Any) -> None:
        found = [str(one) for one in check_records(history(*what), BOUNDS)]
        self.assertEqual(len(found), 1, found)
        self.assertIn("P13: job/body: run run-1000 ", found[0])
        self.assertIn(words, found[0])

    def test_done(self) -> None:
        asked, done = put(T - 1, T), post(T)
        self.well(asked, done, record(done))
        self.wrong("has no record", asked, done)
        self.wrong("has 2 records: succeeded, succeeded", asked, done, record(done), record(done))
        gone = post(T, status=204)
        self.well(asked, gone, record(gone, "removed"))

    def test_each_member(self) -> None:
        """Each has to agree with the endpoint's log."""
        asked, done = put(T - 1, T), post(T)
        wrong: dict[str, dict[str, Any]] = {
            "is recorded of another/body": {"key": ("another", "body")},
            "is recorded for 1001": {"scheduled": T + 1.2},
            "is recorded for None": {"scheduled": None},
            "is recorded as removed, with status 200": {"result": "removed"},
            "is recorded as given_up, with status 200": {"result": "given_up"},
            "is recorded as overridden, with status 200": {"result": "overridden"},
            "is recorded as skipped, with status 200": {"result": "skipped"},
            "is recorded as disabled, with status 200": {"result": "disabled"},
            "with instance two": {"instance": "two"},
            "began at 997": {"started": T - 2.5},
            "began at 1001": {"started": T + 1.0},
            "began at None": {"started": None},
            "ended at 999": {"ended": T - 0.5},
            "ended at 1002.5": {"ended": T + 2.5},
            "ended at 4600.3": {"ended": T + 3600.3},
            "ended at None": {"ended": None},
        }
        for words, member in wrong.items():
            self.wrong(words, asked, done, replace(record(done), **member))
        # Two members that do not agree with each other, either.
        wrong = {
            "is recorded as succeeded, with status 500": {"status": 500},
            "is recorded as succeeded, with status None": {"status": None},
            "is recorded with attempt 2, which was never POSTed": {"attempts": 2},
        }
        for words, member in wrong.items():
            found = check_records(history(asked, done, replace(record(done), **member)), BOUNDS)
            self.assertIn(words, " ".join(map(str, found)))

    def test_made_up(self) -> None:
        """A record of a run that did not happen."""
        asked, never = put(T - 1, T), record(post(T))
        self.wrong("is recorded as succeeded, and was never POSTed", asked, never)
        failed = replace(never, result="cancelled", status=None)
        gone = said(Verb.DELETE, T + 1)
        self.wrong("is recorded as cancelled, and was never POSTed", asked, gone, failed)
        # It can't get through where the endpoint is down.
        down = Fault("endpoint down", T - 1, T + 2)
        self.well(asked, gone, failed, down)
        self.wrong("was never POSTed", asked, gone, failed, Fault("SIGKILL", T - 1, T + 2))
        self.wrong("was never POSTed", asked, never, down)
        self.wrong("was never POSTed", asked, gone, replace(failed, result="skipped"), down)

    def test_tried_again(self) -> None:
        """One record for all attempts, with the first one's start and the last one's answer."""
        asked, failed, done = put(T - 1, T), post(T, status=500), post(T, T + 3, attempt=2)
        tried = Tried(1, "one", 500), Tried(2, "one", 200)
        told = record(done, started=failed.start, tried=tried)
        self.well(asked, failed, done, told)
        self.wrong("began at 1002.9", asked, failed, done, replace(told, started=done.start - 0.05))
        for words, listed in (
            ("has status 503", (tried[0]._replace(status=503), tried[1])),
            ("has instance two", (tried[0]._replace(instance="two"), tried[1])),
            ("has 2 attempts, and 1 listed", tried[:1]),
        ):
            self.wrong(words, asked, failed, done, replace(told, tried=listed))
        more = (*tried[:1], Tried(3, "one", 200), tried[1])
        self.wrong("an attempt 3 in its", asked, failed, done, replace(told, tried=more))

    def test_open(self) -> None:
        """A run that is to be tried again has an open record, and its row says so."""
        asked, failed = put(T - 1, T), post(T, status=500)
        told, left = record(failed, None), opened(failed)
        self.well(asked, failed, told, left)
        self.wrong(
            "and its job's row does not say so", asked, failed, told, replace(left, opened=False)
        )
        self.wrong("has no open record", asked, left)
        self.wrong("has 2 open records", asked, failed, told, told, left)
        self.wrong("is open, and not its job's run", asked, failed, told, row(T + 3))
        self.wrong("is open, and not its job's run", asked, failed, told)
        self.wrong("has failed", asked, failed, replace(left, opened=False))
        # It is claimed once more at the end, or was not recorded by who is dead.
        self.well(asked, failed, replace(left, opened=False, attempts=2, leased=True))
        killed = Fault("SIGKILL", T + 0.3, T + 13)
        self.well(asked, failed, replace(left, opened=False), killed)
        # What has ended is no run of its job's any more.
        done = post(T)
        found = check_records(history(asked, done, record(done), opened(done)), BOUNDS)
        self.assertIn("is succeeded, and its job's run still", str(found[0]))
        found = check_records(history(asked, failed, told, record(done)), BOUNDS)
        self.assertIn("is open, and succeeded", " ".join(map(str, found)))

    def test_open_with_success(self) -> None:
        """What was answered 200 is no failure."""
        asked, done = put(T - 1, T), post(T)
        self.wrong(
            "is recorded as open, with status 200", asked, done, record(done, None), opened(done)
        )

    def test_changed(self) -> None:
        """A user's word ends a run that waits for its next attempt."""
        asked, failed = put(T - 1, T), post(T, status=500)
        anew, now = put(T + 2, T + 9), said(Verb.TRIGGER, T + 2, next_run=T + 2)
        gone, off = said(Verb.DELETE, T + 2), said(Verb.DISABLE, T + 2)
        overridden = record(failed, "overridden")
        cancelled = replace(overridden, result="cancelled")
        for word in (anew, now):
            self.well(asked, failed, word, overridden)
        self.well(asked, failed, gone, cancelled)
        self.well(asked, failed, replace(gone, answered=None), cancelled)
        for words in ((), (off,), (gone,)):
            self.wrong("overridden, which nobody asked for", asked, failed, *words, overridden)
        for words in ((), (off,), (anew,), (now,)):
            self.wrong("cancelled, which nobody asked for", asked, failed, *words, cancelled)
        # The word of another day is none for this run.
        self.wrong("which nobody asked for", asked, failed, said(Verb.TRIGGER, T - 50), overridden)
        # The run did succeed, whatever was said during it.
        done = post(T, end=T + 3)
        self.well(asked, done, anew, record(done))
        self.wrong("overridden, with status 200", asked, done, anew, record(done, "overridden"))
        self.wrong("has no record", asked, done, anew)
        self.wrong("has no record", asked, failed, gone)
        self.well(KEY, failed, overridden)

    def test_given_up(self) -> None:
        """By the statuses that the scenario has configured."""
        asked, failed = put(T - 1, T), post(T, status=400)
        told = record(failed, "given_up")
        self.wrong("is recorded as given_up, with status 400", asked, failed, told)
        bounds = replace(BOUNDS, given_up=(400,))
        self.assertEqual(check_records(history(asked, failed, told), bounds), [])

    def test_killed(self) -> None:
        """Between an answer and its record: the run is POSTed again, and the last POST counts."""
        asked, done, again = put(T - 1, T), post(T), post(T, T + 14, attempt=2)
        killed = Fault("SIGKILL", T + 0.3, T + 13.3)
        self.well(asked, killed, done, again, record(again))
        # Who was killed has begun it, and nobody has recorded when.
        self.well(asked, killed, done, again, record(again, started=again.start))
        found = check_records(history(asked, killed, done, again, record(done)), BOUNDS)
        self.assertIn("has 1 attempts in its record", str(found[0]))
        self.wrong("has no record", asked, killed, done, again)
        # At the end the row still has it.
        self.well(asked, killed, done, row(T + 0.2, run=done.run, attempts=1, leased=True))
        self.well(asked, killed, done, row(T + 0.2, run=done.run, attempts=1))

    def test_killed_before_a_word_was_done(self) -> None:
        """The word waited for the run's end, which nobody recorded."""
        asked, done, gone = put(T - 1, T), post(T, end=T + 2), said(Verb.DELETE, T + 1)
        killed = Fault("SIGKILL", T + 2.1, T + 15)
        self.well(asked, done, gone, killed)
        self.wrong("has no record", asked, done, gone)
        self.wrong("has no record", asked, done, killed)
        self.wrong("has no record", asked, done, gone, Fault("SIGKILL", T + 10, T + 23))
        self.wrong("has no record", asked, done, said(Verb.DISABLE, T + 1), killed)
        self.well(KEY, done, killed)
        # Who removes the job writes what the row knows.
        unknown = replace(record(done, "cancelled", status=None), instance="", started=None)
        self.well(asked, done, gone, killed, unknown)
        self.wrong("and of no instance", asked, done, gone, unknown)
        # An attempt before had failed: that is all that is known of it.
        failed = post(T, status=500)
        second = post(T, T + 3, T + 5, attempt=2)
        gone, killed = said(Verb.DELETE, T + 4), Fault("SIGKILL", T + 5.1, T + 18)
        told = record(failed, "cancelled")
        self.well(asked, failed, second, gone, killed, told)
        anew, stale = put(T + 4, T + 200), replace(told, result=None, ended=None)
        left = row(T + 200, opened=True)
        self.well(asked, failed, second, anew, killed, stale, left)
        self.wrong("is open, and not its job's run", asked, failed, anew, stale, left)
        self.wrong("has 1 attempts in its record, and", asked, failed, second, gone, told)

    def test_killed_before_its_post(self) -> None:
        """After the claim, while a DELETE waited for the run's end."""
        asked, gone = put(T - 1, T), said(Verb.DELETE, T + 0.3)
        told = record(post(T), "cancelled", status=None, instance="", started=None, ended=None)
        killed = Fault("SIGKILL", T + 0.4, T + 13)
        self.well(asked, gone, killed, told)
        self.wrong("was never POSTed", asked, gone, told)
        self.wrong("was never POSTed", asked, killed, told)
        self.wrong("was never POSTed", asked, gone, killed, replace(told, instance="one"))
        self.wrong("was never POSTed", asked, gone, killed, replace(told, result="overridden"))
        self.wrong("was never POSTed", asked, gone, Fault("SIGKILL", T + 20, T + 33), told)

    def test_lost(self) -> None:
        """By a database that was failed over."""
        asked, done = put(T - 1, T), post(T)
        killed = Fault("primary killed", T - 1, T + 20)
        self.wrong("has no record", asked, done, killed)
        self.well(asked, done, replace(killed, loses=True))

    def test_not_seen(self) -> None:
        """A status that one side has not seen."""
        asked, done = put(T - 1, T), post(T)
        again = post(T, T + 4, attempt=2)
        tried = Tried(1, "one", None), Tried(2, "one", 200)
        told = record(again, started=done.start, tried=tried)
        self.wrong("has status None in its record", asked, done, again, told)
        self.well(asked, done, again, told, Fault("endpoint's answers lost", T, T + 2))
        # The daemon had given up waiting; or the connection was lost at the endpoint as well.
        slow = post(T, end=T + 3.3)
        self.well(asked, slow, again, told)
        self.well(asked, post(T, status=None), again, told)
        self.well(asked, post(T, status=None, begun=200), record(done))
        # Attempts that did not get through.
        third = post(T, T + 9, attempt=3)
        listed = Tried(1, "one", 500), Tried(2, "one", None), Tried(3, "one", 200)
        failed = post(T, status=500)
        told = record(third, started=failed.start, tried=listed)
        self.well(asked, failed, third, told, Fault("endpoint down", T + 1, T + 8))
        told = record(failed, None, attempts=2, status=None)
        down, left = Fault("endpoint down", T + 1, T + 100), opened(failed, 2)
        self.well(asked, failed, told, left, down)
        self.wrong("attempt 2, which was never POSTed", asked, failed, told, left)

    def test_wrong_clock(self) -> None:
        """Where nothing is wrong; where something is, a record may come later."""
        asked, done = put(T - 1, T), post(T)
        late = record(done, ended=T + 5)
        self.wrong("ended at 1005", asked, done, late)
        self.well(asked, done, late, Fault("database away", T, T + 5))
        self.wrong("ended at 1005", asked, done, late, Fault("database away", T + 3, T + 5))

    def test_any_history(self) -> None:
        """One that is as it should be is well; with one thing amiss it is not."""
        for interval, damage, number in product((1, 3), ("", "lose", "double", "status"), (0, 7)):
            runs = every(interval, T + interval * 20)
            records = [record(one) for one in runs]
            if damage == "lose":
                del records[number]
            elif damage == "double":
                records.append(records[number])
            elif damage == "status":
                records[number] = replace(records[number], status=500)
            found = check_records(history(put(T - interval, T, interval), *runs, *records), BOUNDS)
            self.assertEqual(bool(found), bool(damage), [str(one) for one in found])
