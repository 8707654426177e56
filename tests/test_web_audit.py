"""The audit list: its query, its JSON, its cursors, and the route."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.audit import (
    AuditFilters,
    AuditPage,
    AuditPlace,
    AuditQuery,
    Entry,
    LastChange,
    Verb,
)
from dalga.model.key import JobKey, Position, RawKey
from dalga.model.listing import ALL
from dalga.model.permit import Author, Grant, Scope, Token, digest_of, new_token
from dalga.model.record import Shelf
from dalga.model.runlist import RunFilters, RunPlace
from dalga.web.audit import audit_json, audit_list, next_entries
from dalga.web.auth import Tokens
from dalga.web.cursors import (
    audit_cursor_from_text,
    audit_cursor_text,
    cursor_from_text,
    cursor_text,
    run_cursor_text,
)
from tests.examples import NOW
from tests.test_web_api import APITestCase

PLACE = AuditPlace(2**63 - 1, 5)
MINE = AuditFilters("mail", "7", "ci", Verb.PATCH, NOW, NOW + timedelta(microseconds=1))
QUERY = (
    "path=mail&body=7&by=ci&verb=patch&since=2014-11-11T22:10:40Z&until=2014-11-11T22:10:40.000001Z"
)


class QueryTests(SynchronousTestCase):
    def test_filters(self) -> None:
        self.assertEqual(audit_list(b""), AuditQuery(AuditFilters(), None, 100))
        self.assertEqual(audit_list(QUERY.encode() + b"&limit=7"), AuditQuery(MINE, None, 7))

    def test_refused(self) -> None:
        for query, words in [
            ("who=ci", "there is no parameter 'who': the audit list takes"),
            ("verb=post", "verb is 'post'"),
            ("by=", "by has 0 characters"),
            ("by=a&by=b", "by is given twice"),
            ("since=yesterday", "since is 'yesterday'"),
            ("since=2030-01-01T00:00:00Z&until=2030-01-01T00:00:00Z", "not later than since"),
            ("cursor=x", "cursor is 'x', which is none of the audit list"),
        ]:
            error = self.assertRaises(InvalidRequest, audit_list, query.encode())
            self.assertIn(words, str(error))

    def test_the_next_page(self) -> None:
        """The link leads to a list with the same filters, behind the last entry."""
        query = AuditQuery(MINE, None, 7)
        _, link = next_entries(AuditPage([], PLACE), query)
        assert link is not None
        asked = link.removeprefix("<?").removesuffix('>; rel="next"')
        self.assertEqual(audit_list(asked.encode()), AuditQuery(MINE, PLACE, 7))
        self.assertEqual(next_entries(AuditPage([]), query), (None, None))

    def test_cursors(self) -> None:
        """One is good for its own list only, and for no list of another kind."""
        text = audit_cursor_text(PLACE, MINE)
        self.assertEqual(audit_cursor_from_text(text, MINE), PLACE)
        for filters in (
            AuditFilters(),
            *(MINE._replace(**{name: None}) for name in MINE._fields),
            MINE._replace(path="7", body="mail"),
        ):
            with self.assertRaisesRegex(ValueError, "is of another list: give the same filters"):
                audit_cursor_from_text(text, filters)
        of_runs = run_cursor_text(RunPlace(Shelf.FINE, 1, 1), RunFilters())
        of_jobs = cursor_text(Position(b"a", b"b"), ALL)
        for other in (of_runs, of_jobs, text[:-1], ""):
            with self.assertRaisesRegex(ValueError, "is none of the audit list"):
                audit_cursor_from_text(other, AuditFilters())
        with self.assertRaisesRegex(ValueError, "is of the audit list"):
            cursor_from_text(audit_cursor_text(PLACE, AuditFilters()), ALL)
        forged = audit_cursor_text(AuditPlace(2**63, 0), MINE)
        with self.assertRaisesRegex(ValueError, "is none"):
            audit_cursor_from_text(forged, MINE)


class JsonTests(SynchronousTestCase):
    def test_entries(self) -> None:
        """What an entry does not have is left out."""
        entry = Entry(NOW, "ci", "::1", "put", RawKey("a", "b"), None, None, {"interval": 60})
        action = Entry(NOW, "ci", "::1", "stop", None, "01A", None, None)
        page = AuditPage([entry, action], partial=True)
        self.assertEqual(
            audit_json(page, "c").decode(),
            '{"entries":[{"at":"2014-11-11T22:10:40Z","by":"ci","address":"::1","verb":"put",'
            '"path":"a","body":"b","new":{"interval":60}},'
            '{"at":"2014-11-11T22:10:40Z","by":"ci","address":"::1","verb":"stop","action":"01A"}],'
            '"cursor":"c","partial":true}',
        )


class RouteTests(APITestCase):
    """With tokens."""

    def setUp(self) -> None:
        super().setUp()
        self.texts = {scope: new_token(bytes([number]) * 32) for number, scope in enumerate(Scope)}
        self.site.tokens = Tokens(
            Token(scope.replace("_", "-"), (Grant(scope),), digest_of(text.encode()))
            for scope, text in self.texts.items()
        )
        self.asked: list[AuditQuery] = []
        store: Any = self.store

        def audit(query: AuditQuery) -> Deferred[AuditPage]:
            self.asked.append(query)
            return succeed(AuditPage([], PLACE))

        store.audit = audit

    def by(self, scope: Scope) -> bytes:
        return b"Authorization: Bearer " + self.texts[scope].encode() + b"\r\n"

    async def test_for_admins_only(self) -> None:
        """P12: nobody else sees who has changed what."""
        for scope in Scope:
            answer = await self.ask(b"GET /audit?limit=3", self.by(scope))
            expected = b" 200 " if scope is Scope.ADMIN else b" 403 "
            self.assertIn(expected, answer.partition(b"\r\n")[0], scope)
        self.assertEqual(self.asked, [AuditQuery(limit=3)])
        self.assertIn(b" 401 ", await self.ask(b"GET /audit"))

    async def test_a_page(self) -> None:
        answer = await self.ask(b"GET /audit", self.by(Scope.ADMIN))
        head, _, body = answer.partition(b"\r\n\r\n")
        cursor = json.loads(body)["cursor"]
        link = f'Link: <?limit=100&cursor={cursor}>; rel="next"'
        self.assertIn(link.encode(), head)

    async def test_the_last_change_of_a_job(self) -> None:
        """Is looked for where callers have names, and shown with the job."""
        key = JobKey("a", "b")
        await self.ask(b"PUT /jobs/a/b?interval=60", self.by(Scope.WRITE))
        self.store.last_changes[key] = LastChange(NOW, "ci", "put")
        answer = await self.ask(b"GET /jobs/a/b", self.by(Scope.READ))
        members = json.loads(answer.partition(b"\r\n\r\n")[2])
        change = {"at": "2014-11-11T22:10:40Z", "by": "ci", "verb": "put"}
        self.assertEqual(members["last_change"], change)
        self.site.tokens = Tokens()
        await self.ask(b"GET /jobs/a/b")
        self.assertEqual(self.store.asked_for_changes, [True, False])

    async def test_who_has_asked(self) -> None:
        """The name of the token, and the address, come to the store."""
        asked: list[Author | None] = []
        store: Any = self.store

        def trigger(key: Any, author: Author | None, permit: Any) -> Deferred[Any]:
            asked.append(author)
            return succeed(self.store.rows[JobKey("a", "b")])

        await self.ask(b"PUT /jobs/a/b?interval=60", self.by(Scope.WRITE))
        store.trigger = trigger
        await self.ask(b"POST /jobs/a/b", self.by(Scope.TRIGGER))
        self.assertEqual(asked, [Author("trigger", "127.0.0.1")])
