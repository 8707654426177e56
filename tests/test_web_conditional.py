"""Which version a write is meant for, and what is said if it is another one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest, PreconditionFailed
from dalga.model.idempotency import Idempotency
from dalga.model.key import RawKey
from dalga.model.precondition import UNREADABLE, Precondition
from dalga.web.conditional import (
    etag,
    idempotency,
    precondition,
    refuse_idempotency,
    refuse_preconditions,
)
from dalga.web.errors import problem_of
from tests.strategies import joined, thorough

KEY = RawKey("a", "b")


def of(*versions: int) -> Precondition:
    return Precondition(frozenset(versions))


class HeaderTests(SynchronousTestCase):
    def test_if_match(self) -> None:
        for lines, expected in [
            ([b'"1f"'], of(31)),
            ([b'"0"'], of(0)),
            ([b'"1","2"'], of(1, 2)),
            ([b'"1" , \t"2"'], of(1, 2)),
            ([b'"1"', b'"2"'], of(1, 2)),
            # Empty members of a list are none (RFC 9110 section 5.6.1.2).
            ([b', "1",, "2" ,'], of(1, 2)),
            ([b"", b'"1"'], of(1)),
            ([b' "1" '], of(1)),
            # A weak tag never matches, nor does another server's.
            ([b'W/"1"'], of()),
            ([b'W/"1", "2"'], of(2)),
            ([b'"xyz"'], of()),
            ([b'""'], of()),
            ([b'"1F"'], of()),
            ([b'"01"'], of()),
            ([b'"-1"'], of()),
            ([b'"1,2", "3"'], of(3)),
            ([b'"\xff\x80"'], of()),
            ([b'"' + b"f" * 16 + b'"'], of(2**64 - 1)),
            ([b'"' + b"f" * 17 + b'"'], of()),
            ([b"*"], Precondition()),
            ([b" *\t"], Precondition()),
        ]:
            self.assertEqual(precondition(lines, []), expected, lines)

    def test_if_none_match(self) -> None:
        self.assertEqual(precondition([], [b"*"]), Precondition(absent=True))
        for lines in ([b'"1"'], [b'W/"1", "2"']):
            error = self.assertRaises(InvalidRequest, precondition, [], lines)
            self.assertIn("it takes *, for no job being there", str(error))

    def test_neither_and_both(self) -> None:
        self.assertIsNone(precondition([], []))
        for none in ([b"*"], [b'"1"'], [b"rubbish"]):
            error = self.assertRaises(InvalidRequest, precondition, [b"*"], none)
            self.assertIn("give just one of them", str(error))

    def test_rubbish(self) -> None:
        for lines in [
            *([b""], [b" "], [b","], [b"1f"], [b'"1f'], [b'1f"'], [b"'1'"], [b'w/"1"'], [b"W/1"]),
            *([b'W/ "1"'], [b'"1" "2"'], [b'"1"; "2"'], [b'*, "1"'], [b'"1"', b"*"], [b"**"]),
            *([b'"a b"'], [b'"a\x7f"'], [b'"1"x'], [b'"1",x'], [b'\xff"1"'], [b"x" * 9000]),
        ]:
            for name, given_ in (("If-Match", (lines, [])), ("If-None-Match", ([], lines))):
                error = self.assertRaises(InvalidRequest, precondition, *given_)
                self.assertIn(f"{name} is ", str(error))
                self.assertIn("ETags in double quotes", str(error))
                self.assertLess(len(str(error)), 200)

    @thorough(200)
    @given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5))
    def test_what_an_answer_gave_matches(self, versions: list[int]) -> None:
        lines = list(map(etag, versions))
        for given_ in (lines, [b", ".join(lines)]):
            self.assertEqual(precondition(given_, []), of(*versions))

    @thorough(300)
    @given(joined(b'"', b"W/", b",", b" ", b"*", b"1f", b"\xff", b"\t", b"a", b"\x7f", most=12))
    def test_any_octets_do_no_harm(self, octets: bytes) -> None:
        for if_match in (True, False):
            try:
                precondition([octets] * if_match, [octets] * (not if_match))
            except InvalidRequest as error:
                self.assertTrue(str(error).isprintable())

    def test_a_post_goes_by_none(self) -> None:
        refuse_preconditions([], [])
        for name, given_ in (("If-Match", ([b"*"], [])), ("If-None-Match", ([], [b'"1"']))):
            error = self.assertRaises(InvalidRequest, refuse_preconditions, *given_)
            self.assertIn(f"leave {name} out", str(error))


class PreconditionTests(SynchronousTestCase):
    def test_what_holds(self) -> None:
        for wanted, found in [
            (of(1), 1),
            (of(1, 2), 2),
            (Precondition(), 0),
            (Precondition(), UNREADABLE),
            (Precondition(absent=True), None),
        ]:
            wanted.check(KEY, found)

    def test_what_does_not(self) -> None:
        for wanted, found, words in [
            (of(1), 2, "has another ETag"),
            (of(1, 2), 0, "has another ETag"),
            (of(), 0, "has another ETag than those of If-Match, which no job can have"),
            (of(1), UNREADABLE, "has another ETag"),
            (of(1), None, "there is no job with path 'a' and body 'b'"),
            (Precondition(), None, "If-Match asks for one: a PUT without If-Match makes it"),
            (Precondition(absent=True), 0, "there is a job with path 'a' and body 'b' already"),
            (Precondition(absent=True), UNREADABLE, "already"),
        ]:
            error = self.assertRaises(PreconditionFailed, wanted.check, KEY, found)
            self.assertIn(words, str(error))
            problem = problem_of(error)
            assert problem is not None
            self.assertEqual((problem.status, problem.title), (412, "Precondition Failed"))


class IdempotencyTests(SynchronousTestCase):
    def test_keys(self) -> None:
        self.assertIsNone(idempotency([], b"POST"))
        for key in (b"a", b'"quoted"', b"~" * 255, b"!,;"):
            found = idempotency([key], b"POST", b"/jobs/a")
            self.assertEqual(found, Idempotency.of(key.decode(), b"POST", b"/jobs/a"))
        for lines, words in [
            ([b""], "Idempotency-Key is empty"),
            ([b"a b"], "it takes 1 to 255 visible characters"),
            ([b"\xff"], "it takes 1 to 255 visible characters"),
            ([b"\x7f"], "it takes 1 to 255 visible characters"),
            ([b"x" * 256], "it takes 1 to 255 visible characters"),
            ([b"a", b"a"], "is given twice"),
        ]:
            error = self.assertRaises(InvalidRequest, idempotency, lines, b"POST")
            self.assertIn(words, str(error))
            self.assertTrue(str(error).isprintable())

    def test_what_makes_two_requests_one(self) -> None:
        """The parts are told apart, wherever they end."""
        same = Idempotency.of("k", b"POST", b"/a", b"", b"body")
        self.assertEqual(same, Idempotency.of("k", b"POST", b"/a", b"", b"body"))
        self.assertEqual(len(same.digest), 32)
        for parts in [
            (b"POST", b"/a", b"body", b""),
            (b"POST", b"/", b"a", b"body"),
            (b"POST", b"/a", b"", b"bod"),
            (b"POST", b"/a", b"body"),
            (b"POST4:body", b"/a", b"", b""),
        ]:
            self.assertNotEqual(same.digest, Idempotency.of("k", *parts).digest)

    def test_a_trigger_takes_none(self) -> None:
        refuse_idempotency([])
        error = self.assertRaises(InvalidRequest, refuse_idempotency, [b"x"])
        self.assertIn("leave Idempotency-Key out", str(error))
