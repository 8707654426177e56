"""What a path and a body may be, and paths stay below the base URL."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.key import MAX_KEY_LENGTH, JobKey, check_length, target_path
from tests.strategies import thorough


class PathTests(SynchronousTestCase):
    """P11: which paths a job may have, and what becomes of them."""

    def test_refused(self) -> None:
        """P11: what could leave the base URL or forge a header is refused, and named."""
        for path in ("..", ".", "../x", "a/..", "a/../b", "./a", "a/.", "/..", "//.."):
            error = self.assertRaises(InvalidRequest, JobKey, path, "b")
            self.assertIn("segment", str(error))
            leaves = ".." in path.split("/")
            self.assertEqual("would leave the endpoint's base URL" in str(error), leaves, path)
        for character in ("\0", "\t", "\r", "\n", "\x7f", "\x85", "\u2028", "\u2029"):
            error = self.assertRaises(InvalidRequest, JobKey, f"a{character}b", "b")
            self.assertIn(f"U+{ord(character):04X}", str(error))

    def test_accepted(self) -> None:
        """Everything else is accepted: dots within names, spaces, other scripts, URLs as text."""
        for path in (
            "a",
            "a.b",
            "...",
            "..a",
            "a..",
            "a/b//c/",
            "/a",
            " ",
            "jób",
            "http://x/y",
            "%2e%2e",
        ):
            JobKey(path, "b")

    def test_target(self) -> None:
        """P11: a path is put behind the base URL with one slash, its segments percent-encoded."""
        for path, target in (
            ("check_feed", "/check_feed"),
            ("a/b", "/a/b"),
            ("/a", "/a"),
            ("//evil.example/x", "/evil.example/x"),
            ("http://evil.example", "/http%3A//evil.example"),
            ("@evil.example", "/%40evil.example"),
            ("a?b=c#d", "/a%3Fb%3Dc%23d"),
            ("%2e%2e/x", "/%252e%252e/x"),
            ("..\\x", "/..%5Cx"),
            ("j\u00f3b x", "/j%C3%B3b%20x"),
            ("-._~", "/-._~"),
            ("a b", "/a%20b"),
            ("a/", "/a/"),
        ):
            self.assertEqual(target_path(path), target)

    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=MAX_KEY_LENGTH))
    @thorough(200)
    def test_never_elsewhere(self, path: str) -> None:
        """P11: no accepted path changes scheme, host, port, query or fragment, or climbs up."""
        try:
            JobKey(path, "b")
        except InvalidRequest:
            return
        url = urlsplit("http://example.com:81/base" + target_path(path))
        self.assertEqual((url.scheme, url.netloc), ("http", "example.com:81"))
        self.assertEqual((url.query, url.fragment), ("", ""))
        self.assertTrue(url.path.startswith("/base/") and url.path.isascii())
        self.assertFalse({".", ".."} & set(unquote(url.path).split("/")))
        self.assertEqual(unquote(url.path), "/base/" + path.lstrip("/"))

    def test_length(self) -> None:
        """A path or body has 1 to 255 characters, however many bytes they take."""
        check_length("path", "a")
        check_length("body", "\U0001f600" * MAX_KEY_LENGTH)
        for text in ("", "a" * (MAX_KEY_LENGTH + 1)):
            for name in ("path", "body"):
                error = self.assertRaises(InvalidRequest, check_length, name, text)
                self.assertIn(name, str(error))
