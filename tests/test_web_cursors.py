"""Cursors: each leads back to where its page ended, and to nowhere else."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.key import Position
from dalga.model.listing import ALL, Driver, DuePlace, Filters, Place, Sort, StatePlace
from dalga.model.permit import Area, Limits
from dalga.model.record import Shelf
from dalga.model.runlist import RunFilters, RunPlace
from dalga.model.state import State
from dalga.web.cursors import (
    Seal,
    _digest_of,
    _text,
    cursor_from_text,
    cursor_text,
    run_cursor_from_text,
    run_cursor_text,
)
from tests.strategies import thorough

positions = st.builds(
    Position, st.binary(max_size=1020), st.binary(max_size=1020), st.booleans(), st.booleans()
)
LAST = Position(b"check_feed", "ö🐰".encode())
CHECK_FEED = Filters(path="check_feed")
KEY = bytes(range(64))
NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)

#: Lists of each driver, and each filter, all of them different.
LISTS = [
    Filters(prefix="check_feed"),
    Filters(prefix="check"),
    Filters(path="check_feed", body="check"),
    Filters(body="check_feed"),
    Filters(contains="check_feed"),
    Filters(endpoint="check_feed"),
    Filters(tags=frozenset({"check_feed"})),
    Filters(tags=frozenset({"a", "b"})),
    Filters(tags=frozenset({"a,b"})),
    Filters(states=frozenset({State.FAILED})),
    Filters(states=frozenset({State.FAILED, State.DONE})),
    Filters(states=frozenset({State.FAILED}), sort=Sort.KEY),
    Filters(states=frozenset({State.RUNNING})),
    Filters(sort=Sort.KEY),
    Filters(sort=Sort.DUE),
    Filters(path="check_feed", sort=Sort.DUE),
    Filters(due_before=NOON),
    Filters(due_after=NOON),
]
ids = st.integers(0, 2**63 - 1)
octets = st.integers(0, 255)
PLACES: dict[Driver, st.SearchStrategy[Place]] = {
    Driver.KEY: positions,
    Driver.TAG: positions,
    Driver.DUE: st.builds(DuePlace, st.none() | st.binary(max_size=26), ids, st.booleans()),
    Driver.STATE: st.builds(StatePlace, octets, octets, ids),
}


class CursorTests(SynchronousTestCase):
    @thorough(200)
    @given(positions)
    def test_any_place_comes_back(self, last: Position) -> None:
        self.assertEqual(cursor_from_text(cursor_text(last, ALL), ALL), last)

    @thorough(100)
    @given(st.text(max_size=255), st.binary(max_size=1020), st.booleans())
    def test_of_a_path(self, path: str, body: bytes, is_blob: bool) -> None:
        try:
            last = Position(path.encode(), body, False, is_blob)
        except UnicodeEncodeError:
            return
        text = cursor_text(last, Filters(path=path))
        self.assertEqual(cursor_from_text(text, Filters(path=path)), last)
        for other in (None, path + "x"):
            self.assertRaises(ValueError, cursor_from_text, text, Filters(path=other))
        of_path = Filters(path=path)
        self.assertRaises(ValueError, cursor_from_text, cursor_text(last, ALL), of_path)

    @thorough(200)
    @given(st.data(), st.sampled_from(LISTS))
    def test_of_filters(self, data: st.DataObject, filters: Filters) -> None:
        """It is good for a list with the same filters, and no other."""
        last = data.draw(PLACES[filters.driver])
        text = cursor_text(last, filters)
        self.assertEqual(cursor_from_text(text, filters), last)
        for other in (ALL, CHECK_FEED, *LISTS):
            if other != filters:
                with self.assertRaises(ValueError) as caught:
                    cursor_from_text(text, other)
                self.assertIn("is of another list: give the same filters", str(caught.exception))
        for plain in (ALL, CHECK_FEED):
            with self.assertRaises(ValueError) as caught:
                cursor_from_text(cursor_text(LAST, plain), filters)
            self.assertIn("is of another list", str(caught.exception))

    @thorough(200)
    @given(st.binary(max_size=40), st.sampled_from(LISTS))
    def test_a_forged_place_is_a_place_or_a_sentence(self, forged: bytes, filters: Filters) -> None:
        """Anybody can make the digests."""
        text = _text(bytes([8]) + _digest_of(filters) + forged)
        try:
            place = cursor_from_text(text, filters)
        except ValueError as problem:
            self.assertTrue(str(problem).startswith("is none: "))
        else:
            if not isinstance(place, Position):
                self.assertLess(place.id, 2**63)

    def test_a_cursor_of_all_jobs_stays_the_same(self) -> None:
        """Clients may have one from an older version."""
        last = Position(b"check_feed", b"1234")
        self.assertEqual(cursor_text(last, ALL), "Pu_0YrTtAAAAAApjaGVja19mZWVkMTIzNA")

    def test_a_cursor_of_filters_is_the_same_for_each_process(self) -> None:
        """In whichever order a process has tags and states."""
        tags = frozenset("abcdefgh")
        states = frozenset({State.FAILED, State.DONE, State.PROBLEM})
        text = cursor_text(Position(b"check_feed", b"1234"), Filters(tags=tags, states=states))
        self.assertEqual(text, "5xr59bZiCFwYvrJK8wAAAApjaGVja19mZWVkMTIzNA")

    def test_it_needs_no_escapes_and_is_short(self) -> None:
        self.assertRegex(cursor_text(LAST, ALL), r"\A[\w-]{30,40}\Z")
        longest = Position(b"x" * 1020, b"y" * 1020)
        self.assertLess(len(cursor_text(longest, ALL)), 3000)

    def test_nothing_with_its_digest(self) -> None:
        """Anybody can make one."""
        self.assertRaises(ValueError, cursor_from_text, _text(b""), ALL)

    def test_each_that_was_tampered_with_is_none(self) -> None:
        text = cursor_text(LAST, CHECK_FEED)
        for at in range(len(text)):
            for letter in "A_9z":
                changed = text[:at] + letter + text[at + 1 :]
                if changed != text:
                    self.assertRaises(ValueError, cursor_from_text, changed, CHECK_FEED)
        for changed in (text[:-1], text[1:], text + "A", text + "=", text[:9], "", "é", text * 2):
            self.assertRaises(ValueError, cursor_from_text, changed, CHECK_FEED)

    @thorough(200)
    @given(st.text(max_size=60) | st.from_regex(r"\A[A-Za-z0-9_-]*\Z"))
    def test_any_text_is_a_sentence(self, text: str) -> None:
        with self.assertRaises(ValueError) as caught:
            cursor_from_text(text, ALL)
        self.assertTrue(str(caught.exception).startswith("is none: it takes what the page before"))


class SealTests(SynchronousTestCase):
    """P12: cursors of callers who may not see all."""

    @thorough(100)
    @given(st.data(), st.sampled_from(LISTS))
    def test_there_and_back(self, data: st.DataObject, filters: Filters) -> None:
        """For the one caller alone, whichever the instance."""
        last = data.draw(PLACES[filters.driver])
        text = cursor_text(last, filters, Seal(KEY, "ci"))
        self.assertEqual(cursor_from_text(text, filters, Seal(KEY, "ci")), last)
        for other in (None, Seal(KEY, "other"), Seal(bytes(64), "ci")):
            self.assertRaises(ValueError, cursor_from_text, text, filters, other)

    def test_it_says_nothing(self) -> None:
        filters = Filters(limits=Limits((Area(("a",)),)))
        text = cursor_text(Position(b"concealed", b"concealed"), filters, Seal(KEY, "ci"))
        self.assertNotIn(b"concealed", urlsafe_b64decode(text + "=="))
        run = run_cursor_text(RunPlace(Shelf.FINE, 4711, 17), RunFilters(), Seal(KEY, "ci"))
        self.assertNotIn((4711).to_bytes(8, "big"), urlsafe_b64decode(run + "=="))
        self.assertEqual(
            run_cursor_from_text(run, RunFilters(), Seal(KEY, "ci")), RunPlace(Shelf.FINE, 4711, 17)
        )
        self.assertRaises(ValueError, run_cursor_from_text, run, RunFilters())

    def test_nobody_can_make_one(self) -> None:
        filters = Filters(prefix="a")
        for text in ("", "A", "A" * 40, cursor_text(LAST, filters), cursor_text(LAST, ALL)):
            self.assertRaises(ValueError, cursor_from_text, text, filters, Seal(KEY, "ci"))

    def test_limits(self) -> None:
        """It is of the list that other limits make another."""
        one, other = (Filters(limits=Limits((Area((prefix,)),))) for prefix in "ab")
        text = cursor_text(LAST, one, Seal(KEY, "ci"))
        self.assertEqual(cursor_from_text(text, one, Seal(KEY, "ci")), LAST)
        self.assertRaises(ValueError, cursor_from_text, text, other, Seal(KEY, "ci"))
