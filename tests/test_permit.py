"""Scopes, grants and callers; tokens as text."""

from __future__ import annotations

import string
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import Forbidden
from dalga.model.permit import (
    INCLUDED,
    OPEN,
    TOKEN_OCTETS,
    Area,
    Caller,
    Grant,
    Limits,
    Scope,
    Token,
    digest_of,
    grant_of,
    limits_from_texts,
    narrowed,
    new_token,
    token_from_text,
)
from tests.strategies import thorough

HEX = "0123456789abcdef" * 4


def caller(*words: str) -> Caller:
    return Caller("ci", token_from_text("ci", f"{' '.join(words)} sha256:{HEX}").grants)


class ScopeTests(SynchronousTestCase):
    def test_included(self) -> None:
        """What each scope lets its caller do; nothing else."""
        table = {
            "read": "read",
            "read-secrets": "read read-secrets",
            "trigger": "trigger",
            "write": "read trigger write",
            "admin": "admin metrics read read-secrets trigger write",
            "metrics": "metrics",
        }
        self.assertEqual(set(table), set(Scope))
        for scope, expected in table.items():
            may = sorted(each for each in Scope if caller(scope).may(each))
            self.assertEqual(" ".join(may), expected, scope)
        self.assertTrue(all(scope in included for scope, included in INCLUDED.items()))

    def test_open(self) -> None:
        """Without tokens a caller may do everything, and has no name."""
        self.assertEqual([OPEN.may(scope) for scope in Scope], [True] * len(Scope))
        self.assertEqual((OPEN.name, OPEN.limits(Scope.WRITE)), ("", None))


class CallerTests(SynchronousTestCase):
    def test_may(self) -> None:
        """
        Of prefixes one has to fit, of endpoints one, and of a prefix and an endpoint both; of
        several grants one.
        """
        for words, path, endpoint, expected in [
            ("read", "a", "default", True),
            ("read:team/", "team/a", "default", True),
            ("read:team/", "team/", "default", True),
            ("read:team/", "team", "default", False),
            ("read:team/", "other", "default", False),
            ("read:team/", "/team/a", "default", False),
            ("read:team/", "Team/a", "default", False),
            ("read:team", "teams", "default", True),
            ("read:a/,b/", "b/x", "default", True),
            ("read:a/,b/", "c/x", "default", False),
            ("read:endpoint=billing", "a", "billing", True),
            ("read:endpoint=billing", "a", "default", False),
            ("read:endpoint=billing,endpoint=default", "a", "default", True),
            ("read:team/,endpoint=billing", "team/a", "billing", True),
            ("read:team/,endpoint=billing", "team/a", "default", False),
            ("read:team/,endpoint=billing", "other", "billing", False),
            ("read:team/ read:endpoint=billing", "other", "billing", True),
            ("read:team/ read:endpoint=billing", "team/a", "default", True),
            ("read:team/ read:endpoint=billing", "other", "default", False),
            ("write:team/ read", "other", "default", True),
            ("trigger:team/ read:other/", "team/a", "default", False),
            ("trigger", "a", "default", False),
            ("read:%C3%BC%2F%2C%3A%20", "ü/,: x", "default", True),
            ("read:endpoint%3Dx", "endpoint=x", "default", True),
        ]:
            self.assertIs(caller(words).may(Scope.READ, path, endpoint), expected, (words, path))

    def test_forgotten_arguments(self) -> None:
        """P12: a question without a path, or without an endpoint, is about all of them."""
        for words, of_all, of_path in [
            ("read", True, True),
            ("read:team/", False, True),
            ("read:endpoint=billing", False, False),
            ("read:team/,endpoint=billing", False, False),
            ("trigger", False, False),
        ]:
            asked = caller(words)
            found = asked.may(Scope.READ), asked.may(Scope.READ, "team/a")
            self.assertEqual(found, (of_all, of_path), words)

    def test_might(self) -> None:
        """Before a job is known, a limited grant may reach it."""
        for words, some, of_path in [
            ("read", True, True),
            ("read:team/", True, True),
            ("read:other/", True, False),
            ("read:endpoint=billing", True, True),
            ("read:other/,endpoint=billing", True, False),
            ("trigger", False, False),
        ]:
            asked = caller(words)
            found = asked.might(Scope.READ), asked.might(Scope.READ, "team/a")
            self.assertEqual(found, (some, of_path), words)

    def test_limits(self) -> None:
        """None for all jobs; else those of all grants that have the scope in them."""
        for words, expected in [
            ("read", None),
            ("write", None),
            ("read:team/ read", None),
            ("read:team/", Limits((Area(("team/",)),))),
            ("read:team/ write:team/", Limits((Area(("team/",)),))),
            (
                "read:a/,endpoint=x write:b/ trigger:c/",
                Limits((Area(("a/",), ("x",)), Area(("b/",)))),
            ),
            ("trigger", Limits(())),
        ]:
            self.assertEqual(caller(words).limits(Scope.READ), expected, words)

    @thorough(200)
    @given(
        st.lists(
            st.builds(
                Grant,
                st.sampled_from(Scope),
                st.lists(st.sampled_from(["a", "a/", "ab"]), max_size=2).map(tuple),
                st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
            ),
            max_size=3,
        ).map(tuple),
        st.sampled_from(Scope),
        st.sampled_from(["a", "a/b", "ab", "b"]),
        st.sampled_from(["x", "y", "z"]),
    )
    def test_together(
        self, grants: tuple[Grant, ...], scope: Scope, path: str, endpoint: str
    ) -> None:
        """`may` says the same as `limits`; nothing is allowed that `might` leaves out."""
        asked = Caller("ci", grants)
        limits, may = asked.limits(scope), asked.may(scope, path, endpoint)
        self.assertIs(may, limits is None or limits.have(path, endpoint))
        self.assertIs(asked.may(scope), limits is None)
        if may:
            self.assertTrue(asked.might(scope, path))
        if asked.might(scope, path):
            self.assertTrue(asked.might(scope))
        if asked.may(scope, path):
            self.assertTrue(may)

    def test_refusals(self) -> None:
        """A sentence names the scope or the limit that is in the way."""
        for words, arguments, expected in [
            ("read", (Scope.WRITE,), "this takes the scope write, and the token ci has read"),
            (
                "trigger read:a/",
                (Scope.ADMIN,),
                "this takes the scope admin, and the token ci has read, trigger",
            ),
            (
                "read:a/ write:b/,endpoint=x",
                (Scope.READ,),
                "this takes the scope read without a limit, and the token ci has read:a/, "
                "write:b/,endpoint=x",
            ),
            (
                "write:a/",
                (Scope.WRITE, "b"),
                "the scope write of the token ci does not reach this path: the token has write:a/",
            ),
            (
                "write:a/,endpoint=x",
                (Scope.WRITE, "a/b", "y"),
                "the scope write of the token ci does not reach the endpoint y there: the token "
                "has write:a/,endpoint=x",
            ),
        ]:
            error = self.assertRaises(Forbidden, caller(words).check, *arguments)
            self.assertEqual((str(error), error.scope), (expected, arguments[0]))
        error = self.assertRaises(Forbidden, caller("write:a/").check_might, Scope.WRITE, "b")
        self.assertIn("does not reach this path", str(error))
        caller("write:a/").check(Scope.WRITE, "a/b", "y")
        caller("write:a/,endpoint=x").check_might(Scope.WRITE, "a/b")


class TextTests(SynchronousTestCase):
    def test_lines(self) -> None:
        for text, grants in [
            ("read", (Grant(Scope.READ),)),
            ("read-secrets", (Grant(Scope.READ_SECRETS),)),
            ("metrics", (Grant(Scope.METRICS),)),
            (
                "write:team/,endpoint=billing read",
                (Grant(Scope.WRITE, ("team/",), ("billing",)), Grant(Scope.READ)),
            ),
            ("read:a%2Cb,%65ndpoint=x", (Grant(Scope.READ, ("a,b", "endpoint=x")),)),
        ]:
            token = token_from_text("ci", f"{text} sha256:{HEX}")
            self.assertEqual(token, Token("ci", grants, bytes.fromhex(HEX)))
        self.assertEqual(token_from_text("ci", f" read\t SHA256:{HEX.upper()} ").digest.hex(), HEX)

    def test_refused(self) -> None:
        digest = f"sha256:{HEX}"
        for text, expected in [
            ("", "it is empty, it takes one or more scopes"),
            ("read", "it has no sha256:"),
            (digest, "it has no scope: it takes read, read-secrets, trigger, write, admin or"),
            (f"read {digest} {digest}", "sha256: 2 times, give each token a name"),
            (f"{digest} read", "sha256: is not its last word"),
            ("read sha256:abc", "takes 64 hexadecimal digits"),
            (f"read sha256:{HEX[1:]}g", "takes 64 hexadecimal digits"),
            (f"read reed {digest}", "its word 2 is no grant: it takes read, read-secrets,"),
            (f"Read {digest}", "its word 1 is no grant: it takes read"),
            (f"read: {digest}", "empty prefix"),
            (f"read:a/, {digest}", "empty prefix"),
            (f"read:,endpoint=x {digest}", "empty prefix"),
            (f"admin:a/ {digest}", "the scope admin has no limits"),
            (f"metrics:endpoint=x {digest}", "the scope metrics has no limits"),
            (f"admin: {digest}", "the scope admin has no limits"),
            (f"read:endpoint= {digest}", "takes the name of an endpoint"),
            (f"read:endpoint=B {digest}", "takes the name of an endpoint"),
            (f"read:%zz {digest}", "takes two hexadecimal digits after it"),
            (f"read:%FF {digest}", "not UTF-8"),
            (f"read:%0A {digest}", "a control character"),
            (f"read:{'a' * 256} {digest}", "more than 255 characters"),
            (f"read {new_token(bytes(32))}", "it has the token itself in it"),
        ]:
            with self.assertRaises(ValueError) as caught:
                token_from_text("ci", text)
            self.assertIn(expected, str(caught.exception), text)

    def test_names(self) -> None:
        for name in ("", "Ci", "a b", "-a", "a" * 65, "é", "file"):
            with self.assertRaises(ValueError) as caught:
                token_from_text(name, f"read sha256:{HEX}")
            self.assertIn("the name of a token takes", str(caught.exception))
        for name in ("ci", "ci-2", "a" * 64):
            self.assertEqual(token_from_text(name, f"read sha256:{HEX}").name, name)

    @thorough(300)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["read", "write", "trigger", "read-secrets"]),
                st.lists(st.text(min_size=1, max_size=20).filter(str.isprintable), max_size=3),
                st.lists(st.sampled_from(["a", "b-c"]), max_size=2),
            ),
            min_size=1,
            max_size=3,
        )
    )
    def test_there_and_back(self, parts: list[tuple[str, list[str], list[str]]]) -> None:
        """What a line is written of is what is read of it, whatever is in the prefixes."""
        token = Token("ci", tuple(grant_of(*each) for each in parts), bytes.fromhex(HEX))
        self.assertEqual(token_from_text("ci", str(token)), token)

    @thorough(300)
    @given(st.text(max_size=80), st.sampled_from(["", "read ", f"sha256:{HEX} "]))
    def test_nothing_is_repeated(self, secret: str, before: str) -> None:
        """Whatever stands in a line, no sentence repeats it."""
        marked = f"{before}{secret}Xyzzy"
        with self.assertRaises(ValueError) as caught:
            token_from_text("ci", marked)
        self.assertNotIn("Xyzzy", str(caught.exception))

    def test_new_token(self) -> None:
        token = new_token(bytes(range(TOKEN_OCTETS)))
        self.assertEqual(token, "dalga_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
        self.assertEqual(len(token), 6 + 43)
        allowed = set(string.ascii_letters + string.digits + "-_")
        self.assertTrue(set(new_token(b"\xff" * TOKEN_OCTETS)) <= allowed)
        self.assertEqual(digest_of(token.encode()), sha256(token.encode()).digest())
        self.assertRaises(ValueError, new_token, bytes(31))


class LimitsTests(SynchronousTestCase):
    def limits(self, *words: str) -> Limits:
        found = caller(*words).limits(Scope.READ)
        assert found is not None
        return found

    def test_beginnings_of_paths(self) -> None:
        for words, endpoint, expected in [
            ("read:a/", None, ("a/",)),
            ("read:b,a/,ab,a", None, ("a", "b")),
            ("read:a/ read:b/,endpoint=x", None, ("a/", "b/")),
            ("read:a/ read:b/,endpoint=x", "y", ("a/",)),
            ("read:a/ read:endpoint=x", None, None),
            ("read:a/ read:endpoint=x", "x", None),
            ("read:a/ read:endpoint=x", "y", ("a/",)),
            ("read:b/,endpoint=x", "y", ()),
            ("trigger", None, ()),
        ]:
            found = self.limits(*words.split()).prefixes(endpoint)
            self.assertEqual(found, expected, (words, endpoint))

    def test_narrowed(self) -> None:
        for prefixes, prefix, expected in [
            (None, "a", ("a",)),
            (("a/", "b/"), "a/b", ("a/b",)),
            (("a/", "ab", "b/"), "a", ("a/", "ab")),
            (("a/", "b/"), "c", ()),
            ((), "c", ()),
        ]:
            self.assertEqual(narrowed(prefixes, prefix), expected)

    def test_within(self) -> None:
        for words, others, expected in [
            ("read:a/b", "read:a/", True),
            ("read:a/", "read:a/b", False),
            ("read:a/", "read:a/", True),
            ("read:a/,b/", "read:a/ read:b/", False),  # one area has to be in one
            ("read:a/ read:b/", "read:a/,b/", True),
            ("read:endpoint=x", "read:endpoint=x,endpoint=y", True),
            ("read:endpoint=x,endpoint=y", "read:endpoint=x", False),
            ("read:a/,endpoint=x", "read:a/", True),
            ("read:a/,endpoint=x", "read:endpoint=x", True),
            ("read:a/", "read:a/,endpoint=x", False),
            ("read:a/", "trigger", False),
        ]:
            found = self.limits(*words.split()).are_within(self.limits(*others.split()))
            self.assertIs(found, expected, (words, others))

    @thorough(200)
    @given(st.data())
    def test_as_a_look_at_each(self, data: st.DataObject) -> None:
        """The beginnings, what is within what, and the texts mean what `have` means."""
        areas = st.builds(
            Area,
            st.lists(st.sampled_from(["a", "ab", "a/", "b", ", ü"]), max_size=3).map(tuple),
            st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
        ).filter(lambda area: area != Area())
        drawn = st.lists(areas, min_size=1, max_size=3).map(lambda some: Limits(tuple(some)))
        limits, other = data.draw(drawn), data.draw(drawn)
        self.assertEqual(limits_from_texts(map(str, limits.areas)), limits)
        some = [(path, each) for path in ("a", "ab", "a/b", "b", "c", ", ü") for each in ("x", "y")]
        for path, endpoint in some:
            prefixes = limits.prefixes(endpoint)
            begins = prefixes is None or path.startswith(prefixes)
            self.assertIs(limits.have(path, endpoint), begins)
            for prefix in ("a", "ab", "b", "c"):
                both = path.startswith(prefix) and begins
                self.assertIs(path.startswith(narrowed(prefixes, prefix)), both)
            if limits.are_within(other) and limits.have(path, endpoint):
                self.assertTrue(other.have(path, endpoint))
            if limits.have(path, endpoint):
                self.assertTrue(limits.may_have(path, None) and limits.may_have(None, endpoint))
