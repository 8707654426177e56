"""Who sends a request: tokens in headers, and what is done about those that are none."""

from __future__ import annotations

from hmac import compare_digest
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import Unauthorized
from dalga.model.permit import (
    Caller,
    Grant,
    Scope,
    Token,
    digest_of,
    new_token,
)
from dalga.operations import Operations
from dalga.web import auth
from dalga.web.api import OPEN_PATHS, Api
from dalga.web.auth import (
    BETWEEN_LINES,
    HOLD,
    MOST_ADDRESSES,
    MOST_FAILURES,
    MOST_HELD,
    OTHERS,
    Failures,
    Tokens,
)
from dalga.web.bodies import FREE_OF_ROOM, ROOM
from dalga.web.errors import TooManyFailures
from dalga.web.needs import NEEDS
from dalga.web.page import FILES
from dalga.web.server import make_site
from tests.fakes import noting
from tests.strategies import thorough
from tests.test_web_api import APITestCase, MemoryStore, healthy
from tests.test_web_properties import Wire

TEXTS = [new_token(bytes([number]) * 32) for number in range(3)]
READ = (Grant(Scope.READ),)
WRITE = (Grant(Scope.WRITE),)


def token(name: str, text: str, *grants: Grant) -> Token:
    return Token(name, grants, digest_of(text.encode()))


TOKENS = Tokens([token(f"t{number}", text, *READ) for number, text in enumerate(TEXTS)])
RIGHT = TEXTS[1].encode()


class HeaderTests(SynchronousTestCase):
    """The header Authorization."""

    def refusal(self, *lines: bytes) -> Unauthorized:
        with self.assertRaises(Unauthorized) as caught:
            TOKENS.caller(lines)
        error: Unauthorized = caught.exception
        return error

    def test_valid(self) -> None:
        """The scheme is in any case, and any number of spaces follows (RFC 9110, RFC 6750)."""
        for number, text in enumerate(TEXTS):
            for form in (b"Bearer %b", b"bearer %b", b"BEARER   %b"):
                caller = TOKENS.caller([form % text.encode()], "192.0.2.1")
                self.assertEqual(caller, Caller(f"t{number}", READ, "192.0.2.1"))

    def test_refused(self) -> None:
        """Each with what is wrong, and what would do."""
        for lines, given_, expected in [
            ((), False, "the request has none: it takes Authorization: Bearer and a token"),
            ((b"Bearer " + RIGHT, b"Bearer " + RIGHT), True, "several Authorization headers"),
            ((b"Bearer " + RIGHT, b""), True, "several Authorization headers"),
            ((b"",), False, "another scheme"),
            ((b"Basic dXNlcjpwYXNz",), False, "another scheme"),
            ((RIGHT,), False, "another scheme"),
            ((b"Token " + RIGHT,), False, "another scheme"),
            ((b"Bearer",), True, "no token behind Bearer"),
            ((b"Bearer ",), True, "no token behind Bearer"),
            ((b"Bearer  " + RIGHT + b" ",), True, "something that is none"),
            ((b"Bearer " + RIGHT + b", Bearer " + RIGHT,), True, "something that is none"),
            ((b"Bearer\t" + RIGHT,), False, "another scheme"),
            ((b"Bearer " + RIGHT[:-1] + b"\xff",), True, "something that is none"),
            ((b'Bearer "' + RIGHT + b'"',), True, "something that is none"),
            ((b"Bearer " + RIGHT[:-1],), True, "not one of the configuration"),
            ((b"Bearer " + RIGHT + b"=",), True, "not one of the configuration"),
            ((b"Bearer " + RIGHT.upper(),), True, "not one of the configuration"),
            ((b"Bearer " + digest_of(RIGHT).hex().encode(),), True, "not one of the"),
            ((b"Bearer " + new_token(bytes(range(32))).encode(),), True, "not one of the"),
        ]:
            error = self.refusal(*lines)
            self.assertIn(expected, str(error), lines)
            self.assertIs(error.given, given_, lines)

    @thorough(500)
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=80),
                st.builds(
                    lambda scheme, space, rest: scheme + space + rest,
                    st.sampled_from([b"Bearer", b"bearer", b"Basic", b"Bearer:", b""]),
                    st.sampled_from([b" ", b"  ", b"\t", b""]),
                    st.one_of(
                        st.sampled_from([RIGHT, RIGHT + b" ", RIGHT[:-1], RIGHT + b"," + RIGHT]),
                        st.binary(max_size=80),
                    ),
                ),
            ),
            max_size=3,
        )
    )
    def test_fuzz(self, lines: list[bytes]) -> None:
        """P12: whatever is sent, only the header with the token itself is let in."""
        is_right = (
            len(lines) == 1
            and lines[0][:7].lower() == b"bearer "
            and lines[0][7:].lstrip(b" ") == RIGHT
        )
        try:
            caller = TOKENS.caller(lines)
        except Unauthorized as error:
            self.assertFalse(is_right)
            for line in lines:
                secret = line[7:].decode("latin-1").strip()
                self.assertFalse(len(secret) > 12 and secret in str(error))
        else:
            self.assertTrue(is_right)
            self.assertEqual(caller.name, "t1")

    def test_as_many_comparisons_for_all(self) -> None:
        """
        P12: the first token, the last and a wrong one take the same comparisons, each of two
        digests in constant time. So time says neither which token is nearly right, nor which it is.
        """
        for text in (*TEXTS, "dalga_wrong", "x", "x" * 9000):
            with patch.object(auth, "compare_digest", side_effect=compare_digest) as compared:
                TOKENS.find(text.encode())
            self.assertEqual(compared.call_count, len(TEXTS))
            for call in compared.call_args_list:
                self.assertEqual([len(each) for each in call.args], [32, 32])


#: Names and values of headers as they may come, those of the right one among them.
NAMES = [
    *(b"Authorization", b"AUTHORIZATION", b"authorization", b"Authorization ", b"\tAuthorization"),
    *(b"Proxy-Authorization", b"X-Authorization", b"Cookie"),
]
VALUES = [
    *(b"Bearer " + RIGHT, b"  Bearer " + RIGHT + b"\t ", b"bearer  " + RIGHT, RIGHT, b""),
    *(b"Bearer\r\n " + RIGHT, b"Bearer " + RIGHT + b"\r\n x"),
    *(b"Bearer " + RIGHT + b"\x00", b"Bearer " + RIGHT + b"\xc3\xa9"),
]


class OctetTests(SynchronousTestCase):
    """Headers as they come over a connection."""

    @thorough(300)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(NAMES),
                st.one_of(
                    st.sampled_from(VALUES),
                    st.binary(max_size=40),
                ),
            ),
            max_size=3,
        )
    )
    def test_fuzz(self, headers: list[tuple[bytes, bytes]]) -> None:
        """P12: a request is let in only with one header Authorization, which has the token."""
        clock = Clock()
        store: Any = MemoryStore()
        jobs = Operations(store, clock, lambda at: None, lambda: 7)
        site: Any = make_site(jobs, healthy(store, clock), clock, tokens=TOKENS)
        channel: Any = site.buildProtocol(None)
        wire = Wire(lenient=True)
        channel.makeConnection(wire)
        lines = b"".join(b"%b: %b\r\n" % each for each in headers)
        channel.dataReceived(b"GET /endpoints HTTP/1.1\r\nHost: dalga\r\n" + lines + b"\r\n")
        said = wire.value()
        has_token = [
            value.replace(b"\r\n ", b" ").strip(b" \t").split()
            for name, value in headers
            if name.lower() == b"authorization"
        ]
        if b" 200 " in said[:14]:
            self.assertEqual(len(has_token), 1, said)
            self.assertEqual(has_token[0][0].lower(), b"bearer")
            self.assertEqual(has_token[0][1:], [RIGHT])
        elif said:
            self.assertIn(said[9:12], (b"400", b"401", b"431"))
            self.assertNotIn(RIGHT, said)
        channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.flushLoggedErrors(), [])


class FailuresTests(SynchronousTestCase):
    """Requests without a valid token, by the thousand."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.failures = Failures(self.clock)
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(noting(self.events))
        self.addCleanup(globalLogPublisher.removeObserver, noting(self.events))

    def add(self, address: str = "192.0.2.1", times: int = 1) -> list[Deferred[None]]:
        return [self.failures.add(address, "no token") for _ in range(times)]

    def lines(self) -> list[str]:
        lines = [
            formatEvent(event)
            for event in self.events
            if event["log_namespace"] == "dalga.web.auth"
        ]
        self.events.clear()
        return lines

    def test_slow(self) -> None:
        """Those beyond ten in a second wait a second; in the next second there are ten again."""
        answers = self.add(times=MOST_FAILURES + 2)
        answered = [answer for answer in answers if answer.called]
        self.assertEqual(len(answered), MOST_FAILURES)
        self.clock.advance(HOLD - 0.01)
        self.assertFalse(answers[-1].called)
        self.clock.advance(0.01)
        self.assertTrue(all(answer.called for answer in answers))
        self.assertTrue(all(answer.called for answer in self.add(times=MOST_FAILURES)))
        self.assertFalse(self.add()[0].called)

    def test_addresses_apart(self) -> None:
        """Of IPv6, a network of 64 bits counts as one; an IPv4 address in IPv6 is that address."""
        self.add("192.0.2.1", MOST_FAILURES)
        self.add("2001:db8::1", MOST_FAILURES)
        for address, is_held in [
            ("192.0.2.2", False),
            ("2001:db8:0:1::1", False),
            ("::ffff:192.0.2.3", False),
            ("", False),
            ("fe80::1%eth0", False),
            ("192.0.2.1", True),
            ("::ffff:192.0.2.1", True),
            ("2001:db8::ffff:1", True),
        ]:
            [answer] = self.add(address)
            self.assertIs(not answer.called, is_held, address)

    def test_too_many_are_held(self) -> None:
        """P10: a bounded number waits. Further ones are told to come later, at once."""
        held = self.add(times=MOST_FAILURES + MOST_HELD)[MOST_FAILURES:]
        [answer] = self.add()
        self.failureResultOf(answer, TooManyFailures)
        gone = held.pop()
        gone.cancel()  # a client that hangs up leaves its place to another one
        self.failureResultOf(gone, CancelledError)
        self.assertFalse(self.add()[0].called)
        self.failureResultOf(self.add()[0], TooManyFailures)
        self.clock.advance(HOLD)
        self.assertTrue(all(answer.called for answer in held))
        self.assertTrue(self.add()[0].called)

    def test_hang_up(self) -> None:
        [answer] = self.add(times=MOST_FAILURES + 1)[MOST_FAILURES:]
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.clock.advance(BETWEEN_LINES)
        self.clock.advance(BETWEEN_LINES)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lines(self) -> None:
        """One line an address and minute, with the count of those that had none."""
        for _ in range(30):
            for answer in self.add(times=100):
                answer.addErrback(lambda _: None)
            self.clock.advance(1)
        self.assertEqual(self.lines(), ["a request of 192.0.2.1 was refused: no token"])
        self.clock.advance(BETWEEN_LINES - 30)
        more = "2999 more requests of 192.0.2.1 were refused, as they had no valid token"
        self.assertEqual(self.lines(), [more])
        self.add(times=2)
        self.assertEqual(self.lines(), [])
        self.clock.advance(BETWEEN_LINES)
        self.assertEqual(len(self.lines()), 1)
        self.clock.advance(BETWEEN_LINES)
        self.assertEqual((self.lines(), self.clock.getDelayedCalls()), ([], []))
        self.add()
        self.assertEqual(self.lines(), ["a request of 192.0.2.1 was refused: no token"])

    def test_many_addresses(self) -> None:
        """P10: the addresses that are counted apart are bounded; all others are one."""
        for number in range(MOST_ADDRESSES + MOST_FAILURES):
            self.add(f"10.0.{number // 256}.{number % 256}")
        self.assertEqual(len(self.lines()), MOST_ADDRESSES + 1)
        self.assertFalse(self.add("10.1.0.0")[0].called)
        self.assertTrue(self.add("10.0.0.0")[0].called)
        self.assertLessEqual(len(self.clock.getDelayedCalls()), MOST_ADDRESSES + 2)
        self.clock.advance(BETWEEN_LINES)
        self.assertIn(OTHERS, "".join(self.lines()))

    def test_close(self) -> None:
        """What was counted is said at the end, and no timer is left, nor begun."""
        self.add(times=3)
        self.failures.close()
        self.assertEqual(len(self.lines()), 2)
        self.assertTrue(self.add(times=MOST_FAILURES + 1)[-1].called)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class NeedTests(SynchronousTestCase):
    def test_each_route_says_what_it_takes(self) -> None:
        """P12: a new route without a decision fails here, and is refused to everybody."""
        routes = {rule.endpoint for rule in Api.app.url_map.iter_rules()}
        self.assertEqual(routes, set(NEEDS))

    def test_open(self) -> None:
        """Only checks for an orchestrator, and the page to log in at, need no token."""
        page = {b"/", b"/login", b"/logout"}
        files = {b"/static/" + name.encode() for name in FILES}
        self.assertEqual(OPEN_PATHS, {b"/health", b"/ready", *page, *files})

    def test_metrics(self) -> None:
        """Prometheus has a scope of its own; who may read all may see the metrics, too."""
        need = NEEDS["metrics"]
        for grant, expected in [
            (Grant(Scope.METRICS), True),
            (Grant(Scope.READ), True),
            (Grant(Scope.ADMIN), True),
            (Grant(Scope.READ, ("a",)), False),
            (Grant(Scope.TRIGGER), False),
        ]:
            try:
                need.check(Caller("ci", (grant,)))
            except Exception as error:
                self.assertFalse(expected, error)
            else:
                self.assertTrue(expected, grant)


def bearer(text: str) -> bytes:
    return b"Authorization: Bearer %b\r\n" % text.encode()


class SiteTests(APITestCase):
    """A site with tokens."""

    def setUp(self) -> None:
        super().setUp()
        self.reader, self.writer, self.wrong = TEXTS
        self.site.tokens = Tokens(
            [token("reader", self.reader, *READ), token("writer", self.writer, *WRITE)]
        )

    async def tearDown(self) -> None:  # type: ignore[override]
        await super().tearDown()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_401_before_all_else(self) -> None:
        """P12: without a token, nothing can be learned of routes, methods, keys and bodies."""
        for line in (
            b"GET /jobs/a/b",
            b"PUT /jobs/a/b?interval=nonsense",
            b"GET /nothing",
            b"GET /static/nothing",
            b"GET //",
            b"PATCH /status",
            b"POST /health/x",
            b"GET /health/",
            b"GET //health",
            b"GET /%68ealth",
            b"OPTIONS *",
            b"GET /jobs/a/%FF",
        ):
            self.clock.advance(1)
            status, detail = await self.refusal(line)
            self.assertEqual(status, 401, line)
            self.assertIn("this takes a token, and the request has none", detail)
        self.assertEqual(self.store.rows, {})

    async def test_challenge(self) -> None:
        """RFC 6750 section 3: `error` only where a token was given."""
        realm = b'WWW-Authenticate: Bearer realm="dalga"'
        for headers, expected in [
            (b"", realm + b"\r\n"),
            (b"Authorization: Basic eDp5\r\n", realm + b"\r\n"),
            (bearer(self.wrong), realm + b', error="invalid_token"\r\n'),
            (bearer(self.reader) * 2, realm + b', error="invalid_token"\r\n'),
        ]:
            answer = await self.ask(b"GET /jobs/a/b", headers)
            self.assertTrue(answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n"))
            self.assertIn(expected, answer)
        answer = await self.ask(b"PUT /jobs/a/b?interval=5", bearer(self.reader))
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 Forbidden\r\n"))
        self.assertIn(realm + b', error="insufficient_scope", scope="write"\r\n', answer)
        self.assertIn(b"this takes the scope write, and the token reader has read", answer)

    async def test_answers_are_the_same(self) -> None:
        """With a valid token, each answer has the octets that it has without tokens."""
        asked = [
            (b"PUT /jobs/a/b?interval=60", self.writer),
            (b"GET /jobs/a/b", self.reader),
            (b"HEAD /jobs/a/b", self.reader),
            (b"POST /jobs/a/b", self.writer),
            (b"GET /nothing", self.reader),
            (b"PATCH /status", self.reader),
            (b"DELETE /jobs/a/b", self.writer),
        ]
        with_tokens = [await self.ask(line, bearer(text)) for line, text in asked]
        self.site.tokens = Tokens()
        # Without tokens a header Authorization is not looked at.
        for headers in (b"", bearer(self.wrong), b"Authorization: Basic eDp5\r\n" * 2):
            self.store.rows.clear()
            self.store.version = 0
            self.assertEqual([await self.ask(line, headers) for line, _ in asked], with_tokens)

    async def test_open_paths(self) -> None:
        """Checks need no token, and a wrong one does no harm."""
        for headers in (b"", bearer(self.wrong), bearer(self.reader)):
            for path in (b"/health", b"/ready", b"/health?x=1", b"http://other/health"):
                answer = await self.ask(b"GET " + path, headers)
                self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)

    async def test_replaced_tokens(self) -> None:
        """P12: from a reload on, a token that was removed is none, on open connections, too."""
        client = await self.connect()
        request = b"GET /endpoints HTTP/1.1\r\nHost: dalga\r\n%b\r\n" % bearer(self.reader)
        client.send(request)
        self.assertIn(b" 200 ", (await client.answer())[:14])
        client.send(request[:-2] + b"Content-Length: 1\r\n\r\n")
        while not self.channels[-1].requests:
            await self.turn()
        newer = new_token(b"\xaa" * 32)
        self.site.tokens = Tokens([token("reader", newer, *READ)])
        client.send(b"x")  # the end of the request's body comes after the reload
        self.assertIn(b" 401 ", (await client.answer())[:14])
        client.send(request.replace(self.reader.encode(), newer.encode()))
        self.assertIn(b" 200 ", (await client.answer())[:14])

    async def test_a_body_takes_no_room(self) -> None:
        """
        P10: the body of a request without a token is not held. So the request is refused, even if
        a reload brings its token before it is complete.
        """
        client = await self.connect()
        client.send(
            b"PUT /jobs/a/b HTTP/1.1\r\nHost: dalga\r\nContent-Length: 60001\r\n%b\r\n"
            % bearer(self.wrong)
            + b"x" * 60_000
        )
        while not self.channels[-1].requests:
            await self.turn()
        self.site.room.check(ROOM + FREE_OF_ROOM)  # nothing is taken of it
        self.site.tokens = Tokens([token("late", self.wrong, *WRITE)])
        client.send(b"x")
        self.assertIn(b" 401 ", (await client.answer())[:14])
        self.assertIn(b" 400 ", (await self.ask(b"PUT /jobs/a/b", bearer(self.wrong)))[:14])

    async def test_slow(self) -> None:
        """Wrong tokens are answered late, and a valid one of the same address is not."""
        for _ in range(MOST_FAILURES):
            self.assertEqual((await self.refusal(b"GET /status", bearer(self.wrong)))[0], 401)
        client = await self.connect()
        client.send(b"GET /status HTTP/1.1\r\nHost: dalga\r\n%b\r\n" % bearer(self.wrong))
        gone = await self.connect()
        gone.send(b"GET /status HTTP/1.1\r\nHost: dalga\r\n\r\n")
        answer = client.answer()
        self.assertIn(b" 200 ", (await self.ask(b"GET /endpoints", bearer(self.reader)))[:14])
        self.assertNoResult(answer)
        gone.transport.abortConnection()  # type: ignore[union-attr]
        await gone.lost
        await self.server_lost[-2]
        self.clock.advance(HOLD)
        self.assertIn(b" 401 ", (await answer)[:14])

    async def test_too_many(self) -> None:
        self.patch(auth, "MOST_HELD", 0)
        for _ in range(MOST_FAILURES):
            await self.ask(b"GET /status")
        answer = await self.ask(b"GET /status")
        self.assertTrue(answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n"))
        self.assertIn(b"\r\nRetry-After: 1\r\n", answer)

    async def test_a_route_without_a_decision(self) -> None:
        """P12: is refused to everybody, and the log says which."""
        decided: Any = dict(NEEDS)
        del decided["status"]
        with patch("dalga.web.api.NEEDS", decided):
            status, _ = await self.refusal(b"GET /status", bearer(self.reader))
        self.assertEqual(status, 500)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    async def test_endpoints(self) -> None:
        """A token that is limited to endpoints sees these alone."""
        for grant, expected in [
            (Grant(Scope.READ), [b"default", b"billing"]),
            (Grant(Scope.READ, ("a/",)), [b"default", b"billing"]),
            (Grant(Scope.READ, (), ("billing",)), [b"billing"]),
        ]:
            self.site.tokens = Tokens([token("reader", self.reader, grant)])
            answer = await self.ask(b"GET /endpoints", bearer(self.reader))
            names = [name for name in (b"default", b"billing") if b'"%b"' % name in answer]
            self.assertEqual(names, expected)
