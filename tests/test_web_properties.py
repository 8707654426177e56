"""
The HTTP interface, whatever octets come: never an error of its own, never a connection that is held
for ever, and every refusal of its own a sentence.

Most of it is said to a connection in memory, some to daemons.
"""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Any
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.key import JobKey
from dalga.operations import Operations
from dalga.web.bodies import FREE_OF_ROOM, ROOM
from dalga.web.server import ARRIVAL_TIMEOUT, IDLE_TIMEOUT, LINGER, make_site
from tests.daemons import DaemonTestCase
from tests.stores import each_engine
from tests.strategies import escaped, escapings, joined, json_bodies, queries, segments, thorough
from tests.test_web_api import MemoryStore, healthy, without_date

#: What an answer may be; 403 for a Host that is not this machine's; of a 5xx only those that say
#: that a client asks for what HTTP/1.1 lacks.
STATUSES = {*(200, 201, 204, 400, 403, 404, 405, 408, 409, 412, 413, 414, 415, 422, 431, 501, 505)}

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def answers(octets: bytes) -> list[int]:
    """
    The statuses of what came over a connection.

    :raises AssertionError: for what is no answer, or not one that should be given.
    """
    found = []
    while octets:
        if octets.startswith(CONTINUE):
            octets = octets.removeprefix(CONTINUE)
            continue
        head = re.match(
            rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n((?:[\w-]+: [^\r\n]*\r\n)+)\r\n", octets
        )
        assert head is not None, octets
        status, headers, octets = int(head[1]), head[2], octets[head.end() :]
        assert status in STATUSES, (status, octets)
        length = re.search(rb"\bContent-Length: (\d+)\r\n", headers)
        # Of HEAD, there is none. All bodies are JSON, but for the page's.
        size = int(length[1]) if length and octets[:1] in (b"{", b"<") else 0
        body, octets = octets[:size], octets[size:]
        assert len(body) == size, body
        if body.startswith(b"{"):
            check_members(status, headers, json.loads(body))
        found.append(status)
    return found


def check_members(status: int, headers: bytes, members: dict[str, Any]) -> None:
    """Of a problem, that it says what was wrong (RFC 9457)."""
    is_problem = b"\r\nContent-Type: application/problem+json\r\n" in b"\r\n" + headers
    assert is_problem is (status >= 400), headers
    if is_problem:
        for error in members.pop("errors", []):
            assert [*error] == ["pointer", "detail"] and error["pointer"][:1] in ("", "/"), error
        assert list(members) == ["type", "title", "status", "detail"], members
        assert members["status"] == status
        detail = members["detail"]
        assert detail and detail.isprintable() and len(detail) < 600, detail


# Requests

#: Few jobs, so that there are some to be found; and any.
jobs = st.builds(
    lambda path, body, how: b"/jobs/%b/%b" % (escaped(path, how), escaped(body, how)),
    st.just("a") | st.sampled_from(["a", "b/c", "jöb"]) | segments,
    st.just("1") | st.sampled_from(["1", "\0\r\n", "upcoming"]) | segments,
    escapings,
)

#: Below which jobs are made.
paths = st.builds(
    lambda path, how: b"/jobs/%b" % escaped(path, how),
    st.just("a") | st.sampled_from(["a", "b/c", "jöb"]) | segments,
    escapings,
)

#: A method, a target and a query that go together.
MEANT = [
    *(
        (b"PUT", jobs, query)
        for query in (b"interval=60", b"interval=P1M", b"one-off=1&immediate=1")
    ),
    *((b"PATCH", jobs, query) for query in (b"enable=true", b"disable=1")),
    *((method, jobs, b"") for method in (b"GET", b"HEAD", b"PUT", b"PATCH", b"POST", b"DELETE")),
    *(
        (b"POST", paths, query)
        for query in (b"", b"delay=86400", b"at=2030-01-31T09:00:00Z&tags=a")
    ),
    (b"GET", jobs.map(lambda job: job + b"/upcoming"), b"count=3"),
    (b"GET", st.just(b"/jobs"), b"limit=1"),
    (b"GET", st.just(b"/preview"), b"cron=*/5+*+*+*+*"),
    (b"GET", st.just(b"/status"), b""),
]

METHODS = [b"GET", b"HEAD", b"PUT", b"POST", b"PATCH", b"DELETE", b"OPTIONS", b"X"]

targets = st.one_of(
    jobs,
    st.sampled_from([b"//status", b"xstatus", b"*", b"/", b"/status/", b"/jobs/"]),
    joined(
        *(b"/", b"//", b"/jobs/", b"/jobs/", b"/jobs", b"/status", b"/preview", b"/upcoming"),
        *(b"a", b"b", b"..", b"%2F", b"%", b"%zz", b"%FF", b"%00", b"%0D%0A", b"\x80", b"#", b";"),
        *(b"http://h", b"https://[::1]:1", b"a" * 256, b"%F0%9F%90%B0" * 255),
        most=8,
    ),
)

HEADERS = [
    *(b"Cookie: \xff=;;=", b"A: " + b"x" * 999),
    *(b"Accept: */*", b"Accept-Encoding: gzip", b"Range: bytes=0-1", b"If-None-Match: *"),
    *(b"If-Match: *", b'If-Match: "1", W/"2"', b'If-None-Match: "', b"If-Match: \xff"),
    *(
        b"Idempotency-Key: a",
        b"Idempotency-Key: a",
        b"Idempotency-Key: b",
        b"Idempotency-Key: \xff",
    ),
    *(b"Expect: 100-continue", b"Transfer-Encoding: identity", b"Connection: upgrade"),
    *(b"Upgrade: websocket", b"Authorization: Basic \xff", b"A: b\r\n c", b"A: b\r\n\tc: d"),
]

#: Content-Types, and what may be there.
BODIES: list[tuple[st.SearchStrategy[list[bytes]], st.SearchStrategy[bytes]]] = [
    (st.just([]), st.just(b"")),
    (st.just([b"application/x-www-form-urlencoded"]), queries),
    (st.just([b"application/json; charset=utf-8"]), json_bodies),
    (st.just([b"application/merge-patch+json"]), json_bodies),
    (
        st.lists(
            st.sampled_from(
                [
                    *(b"application/x-www-form-urlencoded", b"application/json", b"text/plain"),
                    *(b"multipart/form-data; boundary=x", b"multipart/form-data", b"\xff", b""),
                ]
            ),
            max_size=2,
        ),
        st.just(b"") | queries | json_bodies,
    ),
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One that keeps to HTTP, and maybe to nothing else."""
    method, where, query = draw(st.sampled_from(MEANT))
    if draw(st.sampled_from([False, False, True])):
        method, where = draw(st.sampled_from(METHODS)), targets
    if draw(st.sampled_from([False, False, True])):
        query = draw(queries)
    # Longer ones, and other octets, are no HTTP.
    target = draw(where) + (b"?" + query if query else b"")
    target = bytes(octet for octet in target if octet > 32)[:4000] or b"/"
    host = draw(st.sampled_from([b"localhost", b"a..b", b"[::1]:1", b"x" * 300, b""]))
    lines = [b"%b %b HTTP/1.1" % (method, target), b"Host: " + host]
    lines += draw(st.lists(st.sampled_from(HEADERS), max_size=4))
    kind, bodies = draw(st.sampled_from(BODIES))
    lines += [b"Content-Type: " + name for name in draw(kind)]
    body = draw(bodies)[:60_000]
    if body and draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        body = b"".join(
            b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:at], body[at:]) if part
        )
        lines, body = [*lines, b"Transfer-Encoding: chunked"], body + b"0\r\n\r\n"
    elif body or draw(st.booleans()):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


#: Pieces that break a request.
WRONG = [
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\xff", b"HTTP/2.0", b"GET "),
    *(b"Content-Length: -1\r\n", b"Content-Length: 3\r\n", b"Content-Length: 300000\r\n"),
    *(b"Content-Length: " + b"9" * 5000 + b"\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Transfer-Encoding: gzip\r\n", b"zz\r\n", b"FFFFFFFFFFFFFFFF\r\n", b"0\r\nA: b\r\n\r\n"),
    *(b"A: b\r\n" * 600, b"x" * 17_000, b"%" * 3000, b"PUT /jobs/a/b?interval=60 HTTP/1.0\r\n\r\n"),
]


@st.composite
def garbled(draw: st.DrawFn) -> bytes:
    """Requests of which parts are lost or something else."""
    octets = b"".join(draw(st.lists(requests(), max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        lines = [line.end() for line in re.finditer(rb"\r\n", octets)]
        at = draw(st.sampled_from([0, *lines]) | st.integers(0, len(octets)))
        lost = draw(st.sampled_from([0, 0, 1, 2, 30]))
        octets = (
            octets[:at]
            + draw(st.sampled_from(WRONG) | joined(*WRONG, most=4))
            + octets[at + lost :]
        )
    return octets


@st.composite
def too_large(draw: st.DrawFn) -> bytes:
    """One that has, or says that it has, more of a body than is taken; and whatever comes then."""
    framing, least = draw(
        st.sampled_from(
            [
                (b"Content-Length: 300000\r\n\r\n", 0),
                (b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 0),
                (b"Content-Length: " + b"9" * 5000 + b"\r\nA: b\r\n\r\n", 0),
                (b"Transfer-Encoding: chunked\r\n\r\n493E0\r\n", 300_000),
                (b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nFFFFFFFF\r\n", 300_000),
            ]
        )
    )
    body = b"x" * (least + draw(st.sampled_from([0, 10, 20_000])))
    return b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\n" + framing + body + draw(garbled())


def cut(octets: bytes, places: Sequence[int]) -> list[bytes]:
    """In pieces, as a network may deliver it."""
    ends = sorted({place % (len(octets) + 1) for place in places} | {0, len(octets)})
    return [octets[start:end] for start, end in pairwise(ends)]


cuts = st.lists(st.integers(0, 20_000), max_size=5)


class Wire(StringTransport):
    """The server's side of a connection."""

    def loseWriteConnection(self) -> None:
        """See `ITCPTransport`."""

    @property
    def closed(self) -> bool:
        return self.disconnecting or self.disconnected


class OctetTests(SynchronousTestCase):
    def connect(self) -> tuple[Any, Wire, Clock]:
        """A connection to an interface of its own."""
        clock = Clock()
        store: Any = MemoryStore()
        octets = Random(1).randbytes  # so that the same requests make the same names
        jobs = Operations(store, clock, lambda at: None, lambda: 7, "host-1", random_octets=octets)
        site: Any = make_site(jobs, healthy(store, clock), clock, doors=None)
        channel: Any = site.buildProtocol(None)
        wire = Wire(lenient=True)
        channel.makeConnection(wire)
        return channel, wire, clock

    def tell(self, pieces: list[bytes]) -> bytes:
        """What is answered, once the connection was closed by the server, or was for a while."""
        channel, wire, clock = self.connect()
        for piece in pieces:
            if not wire.closed:
                channel.dataReceived(piece)
        self.open = not wire.closed
        for seconds in (LINGER, ARRIVAL_TIMEOUT, IDLE_TIMEOUT):
            if not wire.closed:
                clock.advance(seconds)
        self.assertTrue(wire.closed)
        channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])
        channel.site.room.check(ROOM + FREE_OF_ROOM)  # all that was taken is given back
        written: bytes = wire.value()
        return written

    @thorough(300)
    @given(st.lists(requests(), min_size=1, max_size=9), cuts)
    def test_each_request_has_its_answer(self, asked: list[bytes], places: list[int]) -> None:
        """However many come at once, and however they are cut."""
        said = self.tell([b"".join(asked)])
        self.assertTrue(self.open)
        self.assertEqual(len(answers(said)), len(asked))
        again = self.tell(cut(b"".join(asked), places))
        self.assertEqual(without_date(again), without_date(said))

    @thorough(500)
    @given(garbled() | st.binary(max_size=300), cuts)
    def test_any_octets_do_no_harm(self, octets: bytes, places: list[int]) -> None:
        answers(self.tell(cut(octets, places)))

    @thorough(100)
    @given(too_large(), cuts)
    def test_too_large_a_body_is_refused_and_nothing_else_is_heard(
        self, octets: bytes, places: list[int]
    ) -> None:
        self.assertEqual(answers(self.tell(cut(octets, places))), [413])


class Socket:
    """A client that blocks; for a thread."""

    def __init__(self, url: str, octets: bytes) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=20)
        try:
            self._socket.sendall(octets)
        except ConnectionError:
            pass  # it is refused already

    def rest(self) -> bytes | None:
        """What is answered until the server closes the connection; None where that was a reset."""
        received = b""
        with self._socket:
            while True:
                try:
                    piece = self._socket.recv(65536)
                except ConnectionError:
                    return None
                if not piece:
                    return received
                received += piece


def ask(url: str, line: bytes) -> tuple[int, Any]:
    """Ask for a request line; gives the status and what is shown."""
    answer = Socket(url, line + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").rest()
    assert answer is not None
    (status,) = answers(answer)
    body = answer.partition(b"\r\n\r\n")[2]
    return status, json.loads(body) if body else None


LAST = b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class PropertyTestCase(DaemonTestCase):
    """Hypothesis blocks, so it has a thread of its own; the daemon's output is read meanwhile."""

    async def hold(self, check: Any, **listen: object) -> None:
        """
        Hold a daemon to a property, and look whether it is well.

        :param check: is given its URL.
        """
        # So that no job runs twice, however often it is to.
        self.endpoint.answer = lambda hit: 204
        daemon, url = await self.start(listen={"port": 0, **listen})
        await deferToThread(check, url)
        self.assertEqual((await self.get(f"{url}/status"))["set_aside_jobs"], 0)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        for sign in ("Traceback", "Unhandled", "#error", "#critical", "set aside"):
            self.assertNotIn(sign, daemon.output)


@each_engine(globals())
class StoredTests(PropertyTestCase):
    """What goes all the way to the table."""

    async def test_each_request_has_its_answer(self) -> None:
        def check(url: str) -> None:
            @thorough(60)
            @given(st.lists(requests(), min_size=1, max_size=4))
            def check_some(asked: list[bytes]) -> None:
                said = Socket(url, b"".join([*asked, LAST])).rest()
                assert said is not None
                assert len(answers(said)) == len(asked) + 1

            check_some()

        await self.hold(check)

    async def test_a_job_is_the_same_however_its_path_is_escaped(self) -> None:
        def check(url: str) -> None:
            @thorough(50)
            @given(segments, segments, st.lists(escapings, min_size=3, max_size=3))
            def check_one(path: str, body: str, hows: list[bytes]) -> None:
                try:
                    JobKey(path, "b")
                except InvalidRequest:
                    return
                first, second, third = (
                    b" /jobs/%b/%b" % (escaped(path, how), escaped(body, how)) for how in hows
                )
                status, put = ask(url, b"PUT" + first + b"?interval=86400")
                assert (status, put["path"], put["body"]) == (201, path, body)
                assert ask(url, b"GET" + second) == (200, put)
                query = urlencode({"path": path}).encode()
                assert ask(url, b"GET /jobs?" + query) == (200, {"jobs": [put]})
                assert ask(url, b"DELETE" + third) == (204, None)
                assert ask(url, b"GET" + first)[0] == 404

            check_one()

        await self.hold(check)


@each_engine(globals(), only=("sqlite",))
class SocketTests(PropertyTestCase):
    """What goes through the kernel."""

    async def test_any_octets_do_no_harm(self) -> None:
        """A connection is closed by then, and the next one is served."""

        def check(url: str) -> None:
            @thorough(4)
            @given(
                st.lists(
                    garbled() | too_large() | st.binary(max_size=300), min_size=20, max_size=20
                )
            )
            def check_some(many: list[bytes]) -> None:
                for client in [Socket(url, octets) for octets in many]:
                    answers(client.rest() or b"")
                assert ask(url, b"GET /status")[0] == 200

            check_some()

        await self.hold(check, idleTimeout="1s", readTimeout="1s")
