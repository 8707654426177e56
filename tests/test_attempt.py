"""What is known of an attempt: why it failed, which attempts are kept, and their JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.answers import Meaning
from dalga.model.attempt import (
    Attempt,
    ErrorKind,
    attempt_to_json,
    attempts_from_json,
    kept,
    kind_of_code,
)
from dalga.model.run import Disable, End, Outcome, Reschedule, Retry, Skip
from tests.examples import NOW, RUN


def attempt(n: int) -> Attempt:
    return Attempt(n, NOW + timedelta(seconds=n), "web-1", 31, None, ErrorKind.TIMEOUT)


class ErrorKindTests(SynchronousTestCase):
    """The kinds of errors."""

    def test_codes(self) -> None:
        """The tables have the codes, so they never change."""
        self.assertEqual(
            {str(kind): kind.code for kind in ErrorKind},
            {
                **{"dns": 1, "connect": 2, "tls": 3, "timeout": 4, "closed": 5},
                **{"malformed": 6, "too_large": 7, "status": 8, "internal": 9},
            },
        )

    def test_from_a_code(self) -> None:
        for kind in ErrorKind:
            self.assertIs(kind_of_code(kind.code), kind)
            self.assertIs(ErrorKind(str(kind)), kind)
        for code in (0, 10, -1, None, "1", b"1"):
            self.assertIsNone(kind_of_code(code))

    def test_hints(self) -> None:
        """Each is one sentence that says what to look at."""
        for kind in ErrorKind:
            self.assertRegex(kind.hint, r"^[A-Z].*: look (at|for|whether) .*\.$")

    def test_of_an_end(self) -> None:
        again, on = Retry(NOW, "why"), Reschedule(NOW, NOW)
        for outcome, verdict, meaning, kind in (
            (None, Skip(NOW), None, None),
            (Outcome(200, 0.1), on, Meaning.SUCCEED, None),
            (Outcome(500, 0.1), again, Meaning.RETRY, ErrorKind.STATUS),
            (Outcome(200, 0.1), again, Meaning.RETRY, ErrorKind.STATUS),
            (Outcome(400, 0.1), on, Meaning.FAIL, ErrorKind.STATUS),
            (Outcome(204, 0.1), on, Meaning.REMOVE, None),
            (Outcome(500, 0.1), Disable(NOW, NOW, "why"), Meaning.DISABLE, None),
            (Outcome(None, 0.1, "why", kind=ErrorKind.DNS), again, Meaning.RETRY, ErrorKind.DNS),
            (Outcome(None, 0.1, "why"), again, Meaning.RETRY, ErrorKind.INTERNAL),
        ):
            self.assertIs(End(RUN, outcome, verdict, meaning).error_kind, kind, outcome)


class KeptTests(SynchronousTestCase):
    """Which attempts a record keeps."""

    def test_the_first_and_the_last(self) -> None:
        for number, numbers in (
            (0, []),
            (1, [1]),
            (10, [*range(1, 11)]),
            (11, [1, 2, *range(4, 12)]),
            (100, [1, 2, *range(93, 101)]),
        ):
            found = kept([attempt(n) for n in range(1, number + 1)])
            self.assertEqual([each.n for each in found], numbers)

    def test_one_at_a_time(self) -> None:
        """What was kept, with the next attempt, gives the same as all of them at once."""
        found: tuple[Attempt, ...] = ()
        for n in range(1, 30):
            found = kept([*found, attempt(n)])
            self.assertEqual(found, kept([attempt(each) for each in range(1, n + 1)]))


class JsonTests(SynchronousTestCase):
    """An attempt -> JSON -> the attempt."""

    def test_there_and_back(self) -> None:
        at = datetime(2026, 3, 1, 9, 0, 0, 4000, tzinfo=UTC)
        for found, shown in (
            (
                Attempt(1, at, "web-1:4911", 31, 500, ErrorKind.STATUS),
                '{"n": 1, "at": "2026-03-01T09:00:00.004Z", "instance": "web-1:4911", "ms": 31, '
                '"status": 500, "error_kind": "status"}',
            ),
            (
                Attempt(2, at, "", 10000, None, ErrorKind.TIMEOUT),
                '{"n": 2, "at": "2026-03-01T09:00:00.004Z", "instance": "", "ms": 10000, '
                '"error_kind": "timeout"}',
            ),
            (
                Attempt(3, at, "web-1", 0, 200, None),
                '{"n": 3, "at": "2026-03-01T09:00:00.004Z", "instance": "web-1", "ms": 0, '
                '"status": 200}',
            ),
        ):
            self.assertEqual(json.dumps(attempt_to_json(found)), shown)
            self.assertEqual(attempts_from_json([json.loads(shown)]), (found,))

    def test_what_somebody_wrote(self) -> None:
        """What can't be read is left out, and the rest is read (P6)."""
        good = attempt_to_json(attempt(1))
        other: Any
        numbers: tuple[Any, ...] = (None, "1", -1, True, 1.5)
        far = "0001-01-01T00:00:00+14:00"  # a year that UTC does not have
        times: tuple[Any, ...] = (None, "", "yesterday", 5, "2026-03-01T09:00:00", far)
        kinds: tuple[Any, ...] = ("tired", 4, [], {})
        for other in (
            *(None, 1, "x", [], {}),
            *({**good, "n": wrong} for wrong in numbers),
            *({**good, "at": wrong} for wrong in times),
            *({**good, "error_kind": wrong} for wrong in kinds),
            {**good, "instance": 7},
            {**good, "ms": "31"},
            {**good, "status": "500"},
        ):
            self.assertEqual(attempts_from_json([other, good]), (attempt(1),), other)
        for other in ("[]", {}, 4, None):
            self.assertEqual(attempts_from_json(other), ())

    def test_bounded(self) -> None:
        many = [attempt_to_json(attempt(n)) for n in range(1, 100)]
        self.assertEqual(len(attempts_from_json(many)), 10)
