"""Cursors: each leads back to where its page ended, and to nowhere else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.key import Position
from dalga.web.cursors import _text, cursor_from_text, cursor_text
from tests.strategies import thorough

positions = st.builds(
    Position, st.binary(max_size=1020), st.binary(max_size=1020), st.booleans(), st.booleans()
)
LAST = Position(b"check_feed", "ö🐰".encode())


class CursorTests(SynchronousTestCase):
    @thorough(200)
    @given(positions)
    def test_any_place_comes_back(self, last: Position) -> None:
        self.assertEqual(cursor_from_text(cursor_text(last, None), None), last)

    @thorough(100)
    @given(st.text(max_size=255), st.binary(max_size=1020), st.booleans())
    def test_of_a_path(self, path: str, body: bytes, is_blob: bool) -> None:
        try:
            last = Position(path.encode(), body, False, is_blob)
        except UnicodeEncodeError:
            return
        text = cursor_text(last, path)
        self.assertEqual(cursor_from_text(text, path), last)
        for other in (None, path + "x"):
            self.assertRaises(ValueError, cursor_from_text, text, other)
        self.assertRaises(ValueError, cursor_from_text, cursor_text(last, None), path)

    def test_it_needs_no_escapes_and_is_short(self) -> None:
        self.assertRegex(cursor_text(LAST, None), r"\A[\w-]{30,40}\Z")
        longest = Position(b"x" * 1020, b"y" * 1020)
        self.assertLess(len(cursor_text(longest, None)), 3000)

    def test_nothing_with_its_digest(self) -> None:
        """Anybody can make one."""
        self.assertRaises(ValueError, cursor_from_text, _text(b""), None)

    def test_each_that_was_tampered_with_is_none(self) -> None:
        text = cursor_text(LAST, "check_feed")
        for at in range(len(text)):
            for letter in "A_9z":
                changed = text[:at] + letter + text[at + 1 :]
                if changed != text:
                    self.assertRaises(ValueError, cursor_from_text, changed, "check_feed")
        for changed in (text[:-1], text[1:], text + "A", text + "=", text[:9], "", "é", text * 2):
            self.assertRaises(ValueError, cursor_from_text, changed, "check_feed")

    @thorough(200)
    @given(st.text(max_size=60) | st.from_regex(r"\A[A-Za-z0-9_-]*\Z"))
    def test_any_text_is_a_sentence(self, text: str) -> None:
        with self.assertRaises(ValueError) as caught:
            cursor_from_text(text, None)
        self.assertTrue(str(caught.exception).startswith("is none: it takes what the page before"))
