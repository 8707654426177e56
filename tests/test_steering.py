"""The headers by which an answer steers: what their values mean, and which are ignored."""

from __future__ import annotations

from datetime import datetime, timedelta

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.answers import Meaning
from dalga.outgoing.answer import Answer, Reader
from dalga.outgoing.steering import MAX_LOGGED, PREFIX, Steering, Steers, next_run_from_text
from tests.examples import NOW, RUN, utc
from tests.fakes import noting

RUN_NOW = RUN._replace(claimed=NOW)


def answer_with(*lines: str) -> Answer:
    """An answer with these header lines, as an endpoint's is read."""
    head = "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *lines, "Content-Length: 0"))
    reader = Reader()
    answer = reader.feed(f"{head}\r\n".encode())
    assert answer is not None
    return answer


class SteeringTests(SynchronousTestCase):
    """An answer's headers -> what it asks for."""

    def read(self, *lines: str) -> Steering:
        return Steers().read(answer_with(*lines), RUN_NOW)

    def flushed(self) -> list[dict[str, object]]:
        """What was logged since the last call."""
        found, self.events[:] = list(self.events), []
        return found

    def setUp(self) -> None:
        self.events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(noting(self.events))
        self.addCleanup(globalLogPublisher.removeObserver, noting(self.events))

    def test_verdicts(self) -> None:
        """In any case, with spaces around, and there more than once."""
        for lines, meaning in (
            (("Dalga-Verdict: succeed",), Meaning.SUCCEED),
            (("dalga-verdict:RETRY",), Meaning.RETRY),
            (("DALGA-VERDICT: \t Fail \t ",), Meaning.FAIL),
            (("Dalga-Verdict: remove", "Dalga-Verdict: Remove"), Meaning.REMOVE),
            (("X-A: b", "Dalga-Verdict: disable", "X-B: c"), Meaning.DISABLE),
            (("X-Dalga-Verdict: fail",), None),
            (("X-A: Dalga-Verdict: fail",), None),
            ((), None),
        ):
            self.assertEqual(self.read(*lines), Steering(meaning), lines)
        self.assertEqual(self.flushed(), [])

    def test_verdicts_that_are_ignored(self) -> None:
        takes = "it takes succeed, retry, fail, remove or disable"
        for lines in (
            ("Dalga-Verdict:",),
            ("Dalga-Verdict: done",),
            ("Dalga-Verdict: succeed, fail",),
            ("Dalga-Verdict: succeed", "Dalga-Verdict: fail"),
            ("Dalga-Verdict: r\u00e9try",),
            (f"Dalga-Verdict: {'x' * 9000}",),
        ):
            self.assertEqual(self.read(*lines), Steering(), lines)
            [event] = self.flushed()
            self.assertEqual(str(event["problem"]), takes)
            self.assertLess(len(str(event["value"])), 60)

    def test_next_runs(self) -> None:
        for value, expected in (
            ("0", timedelta()),
            ("90", timedelta(seconds=90)),
            (" 0090 ", timedelta(seconds=90)),
            ("0.5", timedelta(seconds=0.5)),
            ("31622400", timedelta(days=366)),
            ("2014-11-11T23:00:00Z", utc("2014-11-11T23:00")),
            ("2014-11-12t01:00:00+02:00", utc("2014-11-11T23:00")),
            ("1900-01-01T00:00:00Z", utc("1900-01-01T00:00")),
        ):
            found = self.read(f"Dalga-Next-Run: {value}")
            self.assertEqual(found, Steering(None, expected), value)
        both = self.read("Dalga-Next-Run: 5", "Dalga-Verdict: fail", "Dalga-Next-Run: 5")
        self.assertEqual(both, Steering(Meaning.FAIL, timedelta(seconds=5)))
        self.assertEqual(self.flushed(), [])

    def test_next_runs_that_are_ignored(self) -> None:
        takes = "it takes seconds, or an RFC 3339 timestamp with a zone, such as"
        far = "it takes a time up to 366 days from now"
        for value, why in (
            ("", takes),
            ("-5", takes),
            ("5m", takes),
            ("1e9", takes),
            ("nan", takes),
            ("5, 6", takes),
            ("tomorrow", takes),
            ("2014-11-11T23:00:00", takes),
            ("Tue, 11 Nov 2014 23:00:00 GMT", takes),
            ("31622401", far),
            ("9" * 9000, far),
            ("9999-12-31T23:59:59Z", far),
        ):
            self.assertEqual(self.read(f"Dalga-Next-Run: {value}"), Steering(), value)
            [event] = self.flushed()
            self.assertTrue(str(event["problem"]).startswith(why), value)

    def test_ahead_is_counted_from_the_claim(self) -> None:
        """P8: by the database's clock."""
        at = "2016-11-11T00:00:00Z"
        self.assertRaises(ValueError, next_run_from_text, at, utc("2015-11-10T00:00"))
        self.assertIsInstance(next_run_from_text(at, utc("2015-11-11T00:00")), datetime)

    def test_logged_once(self) -> None:
        """P10: each value once, and so many at most; the line names the job and the header."""
        steers = Steers()
        for _ in range(3):
            steers.read(answer_with("Dalga-Verdict: done"), RUN_NOW)
        steers.read(answer_with("Dalga-Next-Run: done"), RUN_NOW)
        first, second = self.flushed()
        self.assertEqual((first["name"], first["value"]), ("Dalga-Verdict", "'done'"))
        self.assertEqual((first["path"], first["body"]), RUN.key)
        self.assertEqual(second["name"], "Dalga-Next-Run")
        for number in range(2 * MAX_LOGGED):
            steers.read(answer_with(f"Dalga-Verdict: {number}"), RUN_NOW)
        self.assertEqual(len(self.flushed()), MAX_LOGGED - 2)

    def test_a_plain_answer_is_not_read(self) -> None:
        self.assertFalse(answer_with("X-Dalga-Verdict: fail", "X-A: dalga-").mentions(PREFIX))
        self.assertTrue(answer_with("DALGA-Verdict: fail").mentions(PREFIX))
