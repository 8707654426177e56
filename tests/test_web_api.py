"""
The HTTP interface over a real socket, with the real `Operations` and a store in memory.

What is compared is octets: clients of the original read them.
"""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any
from urllib.parse import urljoin

from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule
from zope.interface import implementer

from dalga.allowed import Allowed, EndpointShown
from dalga.errors import IdempotencyReused, JobDisabled, JobNotFound, StoreUnavailable
from dalga.health import Health
from dalga.metrics import Metrics
from dalga.model.audit import LastChange
from dalga.model.delivery import MAX_PAYLOAD, Delivery, Disabling, Notes
from dalga.model.fields import FIELDS, READERS, RETRY_PARTS
from dalga.model.idempotency import Idempotency
from dalga.model.job import Job, Standing, UnreadableJob, endpoint_of, readable
from dalga.model.key import JobKey, Position, RawKey
from dalga.model.listing import DuePlace, Page, Query
from dalga.model.patch import replanned
from dalga.model.permit import Author, Permit
from dalga.model.plan import ScheduleRequest, plan
from dalga.model.precondition import UNREADABLE, Precondition
from dalga.model.record import Record, Result
from dalga.model.runid import RunId
from dalga.model.runlist import (
    BEFORE_OPEN,
    ListedRun,
    RunFilters,
    RunPage,
    RunQuery,
    RunState,
)
from dalga.model.why import Here
from dalga.operations import Operations
from dalga.store import Change, Counts, Made, Shown
from dalga.store.clock import DatabaseClock
from dalga.web import request as request_module
from dalga.web.api import Api
from dalga.web.bodies import FREE_OF_ROOM, BodyRoom, largest_body
from dalga.web.errors import NoRoom
from dalga.web.origins import Doors
from dalga.web.server import (
    ARRIVAL_TIMEOUT,
    IDLE_TIMEOUT,
    LINGER,
    MAX_CONNECTIONS,
    ApiChannel,
    make_site,
)
from tests.fakes import noting
from tests.lists import page_of
from tests.test_fields import PUTS
from tests.test_web_runs import RECORD

reactor: Any = real_reactor

NOW = datetime(2014, 11, 11, 22, 10, 40, tzinfo=UTC)
#: The largest request body that is taken.
MAX_BODY = largest_body(MAX_PAYLOAD)
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
JSON = b"Content-Type: application/json\r\n"

#: The members of a job's JSON that are no parameters.
STATE = {
    *("next_run", "next_sched", "successes", "disabled", "failing", "failed", "skipped"),
    *("done", "disabled_since", "disabled_reason", "disabled_by", "problem", "replay_of"),
    *("last_run", "last_change"),
}


class MemoryStore:
    """What `Operations` asks of a store, in a dict. `stall`, `broken`: it is slow, it fails."""

    def __init__(self) -> None:
        self.rows: dict[JobKey, Job | UnreadableJob] = {}
        self.calls: list[str] = []
        #: The version of the job that was written last.
        self.version = 0
        #: By path and Idempotency-Key, the request and the job that was made for it.
        self.kept: dict[tuple[str, str], tuple[Idempotency, Job]] = {}
        self.last_runs: dict[RawKey, Record] = {}
        #: Are shown also to whoever does not ask for them.
        self.last_changes: dict[RawKey, LastChange] = {}
        #: Of each GET, whether it asked for the last change.
        self.asked_for_changes: list[bool] = []
        #: What is answered to any list of runs, and the lists that were asked for.
        self.runs_page = RunPage([], None)
        self.run_queries: list[RunQuery] = []
        self.single_runs: dict[RunId, ListedRun] = {}
        #: What the database's clock shows.
        self.time = NOW
        #: Where set, answers wait for it.
        self.stall: Deferred[None] | None = None
        #: Where set, every call fails with it.
        self.broken: Exception | None = None
        #: Fires after the first call that waits for `stall`.
        self.called: Deferred[None] = Deferred()

    @property
    def clock(self) -> DatabaseClock:
        clock = DatabaseClock(lambda: 0.0)
        clock.observe(self.time, 0.0, 0.0)
        return clock

    def put(
        self,
        key: JobKey,
        request: ScheduleRequest,
        variation: float = 1.0,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Any]:
        def put() -> Job:
            self._check(key, precondition, permit)
            return self._write(self._planned(key, request, variation))

        return self._call("put", put)

    def patch(
        self,
        key: JobKey,
        change: Change,
        variation: float = 1.0,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Any]:
        def patch() -> Job:
            self._check(key, precondition, permit)
            job = readable(self._find(key))
            planned = replanned(job, change(job), self.time, variation)
            changed = replace(
                job,
                schedule=planned.schedule,
                options=planned.options,
                anchor=planned.anchor,
                scheduled=planned.first,
                due=planned.first,
                delivery=planned.delivery,
                notes=planned.notes,
            )
            if changed == job:
                return job
            self.version += 1
            return self._write(replace(changed, version=self.version))

        return self._call("patch", patch)

    def once(
        self,
        key: JobKey,
        request: ScheduleRequest,
        idempotency: Idempotency | None,
        author: Author | None = None,
    ) -> Deferred[Any]:
        def once() -> Made:
            kept = None if idempotency is None else self.kept.get((key.path, idempotency.key))
            if kept is not None and kept[0] == idempotency:
                return Made(kept[1], is_new=False)
            if kept is not None:
                raise IdempotencyReused("the Idempotency-Key was given with another request")
            job = self._write(self._planned(key, request, 1.0))
            if idempotency is not None:
                self.kept[key.path, idempotency.key] = idempotency, job
            return Made(job, is_new=True)

        return self._call("once", once)

    def get(self, key: JobKey) -> Deferred[Any]:
        return self._call("get", lambda: self._find(key))

    def show(self, key: JobKey, with_change: bool = False) -> Deferred[Any]:
        self.asked_for_changes.append(with_change)
        return self._call(
            "get",
            lambda: Shown(self._find(key), self.last_runs.get(key), self.last_changes.get(key)),
        )

    def runs(self, query: RunQuery) -> Deferred[Any]:
        self.run_queries.append(query)
        return self._call("runs", lambda: self.runs_page)

    def run(self, run_id: RunId) -> Deferred[Any]:
        return self._call("run", lambda: self.single_runs[run_id])

    def page(self, query: Query) -> Deferred[Any]:
        return self._call("page", lambda: page_of(enumerate(self.rows.values()), query, self.time))

    def trigger(
        self, key: JobKey, author: Author | None = None, permit: Permit | None = None
    ) -> Deferred[Any]:
        def trigger() -> Job:
            self._check(key, None, permit)
            job = self._find(key)
            if job.disabled:
                raise JobDisabled(f"the job {key} is disabled: enable it first")
            return self._write(replace(job, scheduled=self.time, due=self.time))

        return self._call("trigger", trigger)

    def enable(
        self,
        key: JobKey,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Any]:
        def enable() -> Job | UnreadableJob:
            self._check(key, precondition, permit)
            job: Job | UnreadableJob = self._find(key)
            if isinstance(job, UnreadableJob) or not job.disabled:
                return job
            notes = replace(job.notes, disabled=None)
            return self._write(replace(job, disabled=False, due=job.scheduled, notes=notes))

        return self._call("enable", enable)

    def disable(
        self,
        key: JobKey,
        reason: str | None = None,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Any]:
        def disable() -> Job | UnreadableJob:
            self._check(key, precondition, permit)
            job = self._find(key)
            if isinstance(job, UnreadableJob):
                return job
            notes = replace(job.notes, disabled=Disabling(self.time, reason))
            return self._write(replace(job, disabled=True, due=None, notes=notes))

        return self._call("disable", disable)

    def delete(
        self,
        key: JobKey,
        precondition: Precondition | None = None,
        author: Author | None = None,
        permit: Permit | None = None,
    ) -> Deferred[Any]:
        def delete() -> None:
            self._check(key, precondition, permit)
            self.rows.pop(key, None)

        return self._call("delete", delete)

    def counts(self, after: int, limit: int) -> Deferred[Any]:
        def counts() -> Counts:
            return Counts(len(self.rows), 0, 0, running=8, instances=2, lag=timedelta(seconds=1.5))

        return self._call("counts", counts)

    def now(self) -> Deferred[Any]:
        return self._call("now", lambda: self.time)

    def announce(self, instance: str) -> Deferred[Any]:
        return self._call("announce", lambda: None)

    def depart(self, instance: str) -> Deferred[Any]:
        return self._call("depart", lambda: None)

    def _planned(self, key: JobKey, request: ScheduleRequest, variation: float) -> Job:
        planned = plan(request, self.time, variation, key)
        self.version += 1
        return Job(
            key,
            planned.schedule,
            planned.options,
            planned.anchor,
            scheduled=planned.first,
            due=planned.first,
            delivery=planned.delivery,
            notes=planned.notes,
            version=self.version,
        )

    def _check(self, key: JobKey, precondition: Precondition | None, permit: Permit | None) -> None:
        job = self.rows.get(key)
        if permit is not None and job is not None:
            permit.check(key, endpoint_of(job))
        if precondition is not None:
            found = job.version if isinstance(job, Job) else UNREADABLE if job else None
            precondition.check(key, found)

    def _write(self, job: Job) -> Job:
        self.rows[job.key] = job
        return job

    def _find(self, key: JobKey) -> Any:
        try:
            return self.rows[key]
        except KeyError:
            raise JobNotFound(f"there is no job {key}") from None

    def _call(self, name: str, work: Callable[[], Any]) -> Deferred[Any]:
        self.calls.append(name)
        if self.broken is not None:
            return fail(self.broken)
        if self.stall is None:
            return maybeDeferred(work)
        # Not at once: the caller is not waiting yet.
        reactor.callLater(0, self.called.callback, None)
        return self.stall.addCallback(lambda _: work())


@implementer(IHalfCloseableProtocol)
class Client(Protocol):
    """A connection that sends octets as they are and reads answers by their Content-Length."""

    def __init__(self) -> None:
        self.received = b""
        self.made: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.reason: Failure | None = None
        #: Fires when the server has closed its side.
        self.eof: Deferred[None] = Deferred()
        self.closed_by_server = False
        self._waiting: list[tuple[bool, Deferred[bytes]]] = []

    def connectionMade(self) -> None:
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def readConnectionLost(self) -> None:
        self.closed_by_server = True
        self.eof.callback(None)
        self._look()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.closed_by_server = True
        self.reason = reason
        self._look()
        self.lost.callback(None)

    def send(self, octets: bytes) -> None:
        assert self.transport is not None
        self.transport.write(octets)

    def answer(self, to_head: bool = False) -> Deferred[bytes]:
        """The next answer, from its status line to the end of its body."""
        waiting: Deferred[bytes] = Deferred()
        self._waiting.append((to_head, waiting))
        self._look()
        return waiting

    def _look(self) -> None:
        while self._waiting:
            to_head, waiting = self._waiting[0]
            head, end, rest = self.received.partition(b"\r\n\r\n")
            length = re.search(rb"\r\nContent-Length: (\d+)", head)
            size = int(length[1]) if length and not to_head else 0
            if end and len(rest) >= size:
                del self._waiting[0]
                self.received = rest[size:]
                waiting.callback(head + end + rest[:size])
            elif self.closed_by_server:
                del self._waiting[0]
                waiting.errback(AssertionError(f"closed after {self.received!r}"))
            else:
                break


class Connecting(ClientFactory):
    protocol = Client
    noisy = False


ENDPOINTS = (
    EndpointShown("default", "http://127.0.0.1:5000/", 10.0, "", (), "200", "204", "none"),
    EndpointShown(
        name="billing",
        baseurl="https://b/in",
        timeout=0.5,
        ca="/etc/ca.pem",
        headers=("Authorization", "X-Key"),
        success="200-299",
        gone="none",
        give_up="400-499",
        signed=True,
        auth="bearer",
        cert="/etc/own.pem",
        verify_name="b",
        deny="private",
        proxy="http://p:1",
    ),
)


def healthy(store: Any, clock: Clock) -> Health:
    """What a site needs to have its own health told."""
    return Health(store, clock, Metrics(), maybeDeferred)


#: The names by which these tests call.
CALLED = Doors(hosts=frozenset({"dalga", "x", "a", "other.example"}))


class APITestCase(TestCase):
    timeout = 30
    max_connections = MAX_CONNECTIONS
    #: What the last refusal said of single members.
    errors: list[dict[str, str]] | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.announced: list[datetime] = []
        store: Any = self.store
        self.jobs = Operations(
            store,
            self.clock,
            self.announced.append,
            lambda: 7,
            "host-1",
            tzdata="2026f",
            allowed=Allowed(ENDPOINTS, targets=("ops",)),
        )
        self.health = healthy(store, self.clock)
        self.site = make_site(
            self.jobs,
            self.health,
            self.clock,
            max_connections=self.max_connections,
            doors=CALLED,
        )
        #: Fires for each connection when the server has lost it.
        self.server_lost: list[Deferred[None]] = []
        self.channels: list[Any] = []
        self._note_connections()
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.clients: list[Client] = []

    def _note_connections(self) -> None:
        build: Callable[[Any], Any] = self.site.buildProtocol

        def build_protocol(address: Any) -> Any:
            channel: Any = build(address)
            lost: Deferred[None] = Deferred()
            connection_lost = channel.connectionLost

            def note(reason: Failure) -> None:
                connection_lost(reason)
                lost.callback(None)

            channel.connectionLost = note
            self.channels.append(channel)
            self.server_lost.append(lost)
            return channel

        self.site.buildProtocol = build_protocol  # type: ignore[method-assign]

    async def tearDown(self) -> None:  # type: ignore[override]  # trial awaits it
        await self.port.stopListening()
        for client in self.clients:
            client.transport.abortConnection()  # type: ignore[union-attr]
        await gatherResults([client.lost for client in self.clients])
        await gatherResults(self.server_lost)

    async def connect(self) -> Client:
        client = Client()
        factory = Connecting.forProtocol(lambda: client)
        reactor.connectTCP("127.0.0.1", self.port.getHost().port, factory)
        await client.made
        self.clients.append(client)
        return client

    async def turn(self) -> None:
        """Let the reactor look after its sockets once."""
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        await turned

    async def ask(self, line: bytes, headers: bytes = b"", body: bytes = b"") -> bytes:
        """
        Ask on a connection of its own.

        :param line: the method and the request target.
        :return: the answer's octets, the Date's value replaced by "...".
        """
        client = await self.connect()
        if body:
            headers += b"Content-Length: %d\r\n" % len(body)
        client.send(line + b" HTTP/1.1\r\nHost: dalga\r\n" + headers + b"\r\n" + body)
        answer = await client.answer(to_head=line.startswith(b"HEAD "))
        return without_date(answer)

    async def shown(self) -> dict[str, Any]:
        """The JSON of the job a/b."""
        answer = await self.ask(b"GET /jobs/a/b")
        members: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return members

    async def refusal(self, *request: bytes) -> tuple[int, str]:
        """Ask for what is refused: the status and the detail, once all else about it is checked."""
        answer = await self.ask(*request)
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(answer[9:12])
        self.assertIn(b"\r\nContent-Type: application/problem+json\r\n", head)
        self.assertNotIn(b"\r\nServer:", head)
        problem = json.loads(body)
        self.errors = problem.pop("errors", None)
        if self.errors is not None:
            self.assertEqual((status, request[1]), (400, JSON))
        self.assertEqual(list(problem), ["type", "title", "status", "detail"])
        self.assertEqual(problem["type"], "about:blank")
        self.assertEqual(problem["status"], status)
        self.assertIn(b" %d %s\r\n" % (status, problem["title"].encode()), head)
        return status, problem["detail"]


def without_date(answer: bytes) -> bytes:
    return re.sub(
        rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", b"\r\nDate: ...\r\n", answer
    )


def check_feed(next_run: bytes, interval: bytes = b"60") -> bytes:
    members = b'{"path":"check_feed","body":"1234","interval":%s,"next_run":"%s"}'
    return members % (interval, next_run)


class TranscriptTests(APITestCase):
    """The transcript in the README of the Go original, and behind its headers the ETag."""

    async def test_put(self) -> None:
        self.assertEqual(
            await self.ask(b"PUT /jobs/check_feed/1234?interval=60"),
            b"HTTP/1.1 201 Created\r\n"
            b"Content-Type: application/json; charset=utf-8\r\n"
            b"Date: ...\r\n"
            b"Content-Length: 83\r\n"
            b'ETag: "1"\r\n'
            b"\r\n" + check_feed(b"2014-11-11T22:11:40Z"),
        )
        self.assertEqual(self.announced, [datetime(2014, 11, 11, 22, 11, 40, tzinfo=UTC)])

    async def test_get(self) -> None:
        await self.ask(b"PUT /jobs/check_feed/1234?interval=60")
        self.assertEqual(
            await self.ask(b"GET /jobs/check_feed/1234"),
            b"HTTP/1.1 200 OK\r\n"
            b"Content-Type: application/json; charset=utf-8\r\n"
            b"Date: ...\r\n"
            b"Content-Length: 83\r\n"
            b'ETag: "1"\r\n'
            b"\r\n" + check_feed(b"2014-11-11T22:11:40Z"),
        )

    async def test_delete(self) -> None:
        await self.ask(b"PUT /jobs/check_feed/1234?interval=60")
        for _ in range(2):
            self.assertEqual(
                await self.ask(b"DELETE /jobs/check_feed/1234"),
                b"HTTP/1.1 204 No Content\r\nDate: ...\r\n\r\n",
            )
        self.assertEqual(self.store.rows, {})

    async def test_post_of_a_one_off(self) -> None:
        await self.ask(b"PUT /jobs/check_feed/1234?one-off=true&interval=60")
        self.assertEqual(
            await self.ask(b"POST /jobs/check_feed/1234"),
            b"HTTP/1.1 200 OK\r\n"
            b"Content-Type: application/json\r\n"
            b"Date: ...\r\n"
            b"Content-Length: 82\r\n"
            b"\r\n" + check_feed(b"2014-11-11T22:10:40Z", b"0"),
        )

    async def test_status(self) -> None:
        self.assertEqual(
            await self.ask(b"GET /status"),
            b"HTTP/1.1 200 OK\r\n"
            b"Content-Type: application/json; charset=utf-8\r\n"
            b"Date: ...\r\n"
            b"Content-Length: 178\r\n"
            b"\r\n"
            b'{"instance_id":"host-1","instance_running_jobs":7,"running_jobs":8,"total_jobs":0,'
            b'"pending_jobs":0,"total_instances":2,"lag":1,"set_aside_jobs":0,'
            b'"tzdata":"2026f","counts_age":0}',
        )


class TargetTests(APITestCase):
    async def test_an_escaped_slash_stays_inside_its_segment(self) -> None:
        answer = await self.ask(b"PUT /jobs/a%2Fb/c%20d+e?interval=60")
        self.assertIn(b'{"path":"a/b","body":"c d+e",', answer)
        self.assertEqual(list(self.store.rows), [JobKey("a/b", "c d+e")])
        self.assertTrue((await self.ask(b"GET /jobs/a%2fb/c%20d%2Be")).startswith(b"HTTP/1.1 200"))

    async def test_text_is_answered_as_utf_8(self) -> None:
        answer = await self.ask(b"PUT /jobs/j%C3%B6b/%F0%9F%90%B0?interval=60")
        self.assertIn('"path":"jöb","body":"🐰"'.encode(), answer)

    async def test_absolute_form(self) -> None:
        for target in [b"http://dalga:1", b"HTTP://user@other.example", b"https://[::1]:8"]:
            answer = await self.ask(b"PUT " + target + b"/jobs/a%2Fb/c?interval=60")
            self.assertIn(b'{"path":"a/b","body":"c",', answer)
        self.assertIn(b"<title>Dalga</title>", await self.ask(b"GET http://dalga"))

    async def test_empty_segments_are_refused_and_not_merged(self) -> None:
        for target, what in [(b"//b", "path"), (b"/a/", "body"), (b"//", "path")]:
            for method in [b"PUT", b"GET", b"POST", b"DELETE"]:
                status, detail = await self.refusal(method + b" /jobs" + target + b"?interval=60")
                self.assertEqual(status, 400)
                self.assertIn(f"the job's {what} is empty", detail)
        self.assertEqual(self.store.calls, [])

    async def test_what_is_no_utf_8_or_a_broken_escape_is_refused_without_a_traceback(self) -> None:
        for target in [b"%ff/b", b"a/%C3", b"\x80/b", b"%zz/b", b"a/%4", b"a/%"]:
            for method in [b"PUT", b"GET", b"POST", b"DELETE"]:
                status, _ = await self.refusal(method + b" /jobs/" + target + b"?interval=60")
                self.assertEqual(status, 400)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_keys_are_256_characters_too_long_for_every_method(self) -> None:
        for method in [b"PUT", b"GET", b"POST", b"DELETE"]:
            for target in [b"/jobs/" + b"a" * 256 + b"/b", b"/jobs/a/" + b"%C3%B6" * 256]:
                status, detail = await self.refusal(method + b" " + target + b"?interval=60")
                self.assertEqual(status, 400)
                self.assertIn("has 256 characters", detail)
        longest = b"/jobs/" + b"%C3%B6" * 255 + b"/" + b"%F0%9F%90%B0" * 255
        self.assertIn(b" 201 ", await self.ask(b"PUT " + longest + b"?interval=60"))

    async def test_a_path_that_leaves_the_endpoint_is_refused_at_put_but_can_be_deleted(
        self,
    ) -> None:
        for path in [b"..", b".", b"a%2F..%2Fb", b"%00", b"a%0D%0Ab", b"%7F", b"%C2%85"]:
            status, detail = await self.refusal(b"PUT /jobs/" + path + b"/b?interval=60")
            self.assertEqual(status, 400)
            self.assertIn("the job's path has the", detail)
            self.assertEqual((await self.refusal(b"GET /jobs/" + path + b"/b"))[0], 404)
            self.assertIn(b" 204 ", await self.ask(b"DELETE /jobs/" + path + b"/b"))
        for path in [b"%2F%2Fevil.example%2Fx", b"@evil.example", b"%3Fx", b"%23x", b"#x"]:
            self.assertIn(b" 201 ", await self.ask(b"PUT /jobs/" + path + b"/b?interval=60"))
        # A body may hold any text.
        self.assertIn(b" 201 ", await self.ask(b"PUT /jobs/a/%00%0D%0A..?interval=60"))

    async def test_other_segments_are_not_found_and_say_how_to_write_a_slash(self) -> None:
        for target in [
            *(b"/jobs/", b"/jobs/a", b"/jobs/a/b/c", b"/jobs/a/b/"),
            *(b"/jobs/a/b/upcoming/", b"/jobs/a/b/c/upcoming", b"/jobs/a/b/Timetable"),
            *(b"/jobs/a/b/upcomin%67", b"/jobs/a/b/upcoming%2F", b"/jobs/a/b//upcoming"),
        ]:
            status, detail = await self.refusal(b"GET " + target)
            self.assertEqual(status, 404)
            self.assertIn("%2F", detail)

    async def test_unknown_routes(self) -> None:
        for target in [
            b"/static/",
            b"/static/..%2Fpage.py",
            b"/jobs/",
            b"/status/",
            b"/preview/",
            b"/upcoming",
            b"/x",
            b"/jobs%2Fa%2Fb",
            b"*",
            b"/%ff",
            *(b"//status", b"///jobs", b"xstatus", b"//jobs/a/b", b"http://dalga//status"),
        ]:
            status, detail = await self.refusal(b"GET " + target)
            self.assertEqual(status, 404)
            self.assertIn("/jobs/<path>/<body>", detail)
        _, detail = await self.refusal(b"GET /nothing")
        self.assertIn("the runs that a PUT would give at /preview", detail)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_a_host_header_that_is_no_host_name_does_no_harm(self) -> None:
        self.site.doors = None
        for host in [b"a..b", b"x" * 300, b"", b"[::1]:34006"]:
            client = await self.connect()
            client.send(b"GET /status HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            self.assertIn(b" 200 ", await client.answer())


ONLY_READ = (
    *(b"/preview", b"/status", b"/stats", b"/instances", b"/endpoints"),
    *(b"/health", b"/ready", b"/metrics", b"/alerts"),
)


class MethodTests(APITestCase):
    async def test_a_wrong_method_is_told_the_right_ones(self) -> None:
        for target, methods in [
            (b"/jobs/a/b", b"GET, HEAD, PUT, POST, PATCH, DELETE"),
            (b"/jobs/a/upcoming", b"GET, HEAD, PUT, POST, PATCH, DELETE"),
            (b"/jobs/a/b/upcoming", b"GET, HEAD"),
            (b"/jobs/a/b/why", b"GET, HEAD"),
            (b"/jobs/a/b/runs", b"GET, HEAD"),
            (b"/runs", b"GET, HEAD"),
            (b"/runs/a", b"GET, HEAD"),
            (b"/runs/a/replay", b"POST"),
            (b"/actions", b"GET, HEAD, POST"),
            (b"/actions/a", b"GET, HEAD, DELETE"),
            *((path, b"GET, HEAD") for path in ONLY_READ),
        ]:
            for method in [b"OPTIONS", b"TRACE", b"BREW"]:
                answer = await self.ask(method + b" " + target)
                self.assertTrue(answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n"), answer)
                self.assertIn(b"\r\nAllow: " + methods + b"\r\n", answer)
        for target in [b"/status", b"/preview", b"/jobs/a/b/upcoming", b"/jobs///upcoming"]:
            for method in [b"PUT", b"POST", b"PATCH", b"DELETE"]:
                self.assertEqual(
                    await self.refusal(method + b" " + target + b"?interval=60"),
                    (405, "the method is not one that works here: it takes GET, HEAD"),
                )
        self.assertEqual(self.store.calls, [])

    async def test_what_there_is(self) -> None:
        """A path that is none of Dalga's is told of all those that a GET has."""
        status, detail = await self.refusal(b"GET /nowhere")
        self.assertEqual(status, 404)
        for rule in Api.app.url_map.iter_rules():
            if not rule.arguments and "GET" in (rule.methods or ()) and rule.rule != "/login":
                self.assertRegex(detail, rf"(at|and) {rule.rule}(,|;| )")

    async def test_no_sub_resource_of_a_job(self) -> None:
        """The methods are those of a job; the path is wrong whatever else is."""
        for target in [b"/jobs/", b"/jobs/a/b/", b"/jobs/a/b/walks", b"/jobs/%zz/b/c"]:
            for method in [b"GET", b"PUT", b"POST", b"PATCH", b"DELETE", b"get", b"Put"]:
                status, detail = await self.refusal(method + b" " + target)
                self.assertEqual((status, detail[:29]), (404, "a job is at /jobs/<path>/<bod"))
            answer = await self.ask(b"OPTIONS " + target)
            self.assertIn(b" 405 ", answer)
            self.assertIn(b"\r\nAllow: GET, HEAD, PUT, POST, PATCH, DELETE\r\n", answer)
        self.assertEqual(self.store.calls, [])

    def test_a_sub_resource_is_one_route(self) -> None:
        """A route more in the table is found, with its own methods, and changes no other."""
        ours = Api.app.url_map
        further = Rule("/jobs/<job:target>/walks", endpoint="walks", methods=["GET"])
        table = Map(
            [*(rule.empty() for rule in ours.iter_rules()), further],
            converters=ours.converters,
            merge_slashes=False,
        ).bind("localhost")
        self.assertEqual(table.match("/jobs/a/b/walks", "GET"), ("walks", {"target": "a/b"}))
        refusal = self.assertRaises(MethodNotAllowed, table.match, "/jobs/a/b/walks", "PUT")
        self.assertEqual({*refusal.valid_methods}, {"GET", "HEAD"})
        for path, method in [
            *(("/jobs/a/b", "PUT"), ("/jobs/a/runs", "PUT"), ("/jobs/runs/runs", "PATCH")),
            *(("/jobs/a/b/upcoming", "GET"), ("/jobs//runs", "GET")),
        ]:
            self.assertEqual(
                table.match(path, method), ours.bind("localhost").match(path, method), path
            )
        for path in ["/jobs/a/b/whys", "/jobs/a/b/runs/", "/jobs/a/b/c/runs", "/jobs/"]:
            self.assertRaises(NotFound, table.match, path, "GET")

    async def test_head_is_get_without_the_body(self) -> None:
        await self.ask(b"PUT /jobs/check_feed/1234?interval=60")
        for target in [
            *(b"/jobs/check_feed/1234", b"/status", b"/jobs/a/b", b"/x", b"/jobs//b"),
            *(b"/jobs/check_feed/1234/upcoming", b"/preview?interval=60", b"/preview"),
            *(b"/jobs/a/b/upcoming", b"/jobs//b/upcoming", b"/jobs/check_feed/1234/upcoming?x=1"),
        ]:
            head, end, _ = (await self.ask(b"GET " + target)).partition(b"\r\n\r\n")
            self.assertEqual(await self.ask(b"HEAD " + target), head + end)
            self.assertEqual(self.clients[-1].received, b"")

    async def test_a_job_that_is_not_there(self) -> None:
        for line in [
            b"GET /jobs/a/b",
            b"POST /jobs/a/b",
            b"PATCH /jobs/a/b?enable=true",
            b"PATCH /jobs/a/b?disable=true",
            b"GET /jobs/a/b/upcoming",
        ]:
            status, detail = await self.refusal(line)
            self.assertEqual(status, 404)
            self.assertIn("'a' 'b'", detail)

    async def test_an_unreadable_row_is_shown(self) -> None:
        key = JobKey("a", "b")
        self.store.rows[key] = UnreadableJob(key, "interval is 'x'")
        answer = await self.ask(b"GET /jobs/a/b")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertIn(b'"next_run":null,"problem":"interval is \'x\'"}', answer)

    async def test_parameters_of_the_originals_other_calls_are_ignored(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        for line in [b"POST /jobs/a/b", b"GET /jobs/a/b", b"GET /status", b"DELETE /jobs/a/b"]:
            answer = await self.ask(
                line + b"?interval=%ff&x=%zz", b"Content-Type: x/y\r\n", b"\xff"
            )
            self.assertIn(answer[9:12], [b"200", b"204"], line)

    async def test_a_body_of_post_is_not_even_looked_at(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        for content_type in [b"multipart/form-data; boundary=x", b"multipart/form-data"]:
            headers = b"Content-Type: " + content_type + b"\r\n"
            self.assertIn(b" 200 ", await self.ask(b"POST /jobs/a/b", headers, b"--x\r\nno"))


class ParameterTests(APITestCase):
    async def test_from_the_query_a_form_or_json(self) -> None:
        for request in [
            (b"PUT /jobs/check_feed/1234?interval=60",),
            (b"PUT /jobs/check_feed/1234", FORM, b"interval=60"),
            (b"PUT /jobs/check_feed/1234", JSON, b'{"interval":60}'),
            (b"PUT /jobs/check_feed/1234?immediate=no", FORM, b"interval=60"),
        ]:
            answer = await self.ask(*request)
            self.assertIn(check_feed(b"2014-11-11T22:11:40Z"), answer)

    async def test_what_is_refused_is_named_and_nothing_is_written(self) -> None:
        for request, name in [
            ((b"PUT /jobs/a/b",), "interval"),
            ((b"PUT /jobs/a/b?interval=0",), "interval"),
            ((b"PUT /jobs/a/b?interval=-5",), "interval is '-5'"),
            ((b"PUT /jobs/a/b?one-off=maybe",), "one-off is 'maybe'"),
            ((b"PUT /jobs/a/b?interval=60&interval=60",), "interval is given twice"),
            ((b"PUT /jobs/a/b?interval=60&x=1",), "no parameter 'x'"),
            ((b"PUT /jobs/a/b?interval=60", FORM, b"interval=60"), "interval is given twice"),
            ((b"PUT /jobs/a/b?interval=60&first-run=2015-01-01T00:00:00",), "first-run"),
            ((b"PUT /jobs/a/b", JSON, b'{"interval":60'), "JSON"),
        ]:
            status, detail = await self.refusal(*request)
            self.assertEqual(status, 400)
            self.assertIn(name, detail)
        self.assertEqual(self.store.calls, [])

    async def test_what_get_shows_put_takes_back(self) -> None:
        """Each parameter of a job, by the name and in the form that GET has for it."""
        # What says when a job first runs, and what becomes of one that is there, is not shown.
        hidden = {"first-run", "one-off", "immediate", "if-exists"}
        for name in READERS:
            # What is redacted can't be taken back, and a part of the retries is shown among them.
            known = {"retry"} if name in RETRY_PARTS else {name}
            if name != "redact":
                await self.put_what_is_shown(PUTS[name], set() if name in hidden else known)

    async def test_what_get_shows_of_all_parameters_put_takes_back(self) -> None:
        whole = (
            "&location=Europe/Riga&until=2030-01-01T00:00:00.5Z&count=3&catch-up=skip"
            "&max-lateness=90.5&on-failure=stop&jitter=1h&dst-gap=skip&dst-overlap=last"
            "&success=200-299,404&gone=none&give-up=400-499"
            "&endpoint=billing&payload-base64=AA8=&content-type=image/png&method=PATCH&timeout=0.25"
            "&retry-interval=5&retry-max-attempts=4&tags=b,a&description=%C4%9F%0Ax&on-end=keep"
            "&save-response=true"
            "&alert-after=1&expect-within=25h&alert-url=ops"
        )
        apart = {"cron", "payload", "headers", "redact"}  # the latter are in a test of their own
        names = {field.name for field in FIELDS if field.show and field.read} - apart
        for query, shown in [
            *((query, {"interval"}) for query in ("interval=60", "interval=1.5", "interval=PT1H")),
            *(("cron=@daily", {"cron"}), ("interval=P1D" + whole, names)),
            ("cron=30+9+*+*+MON-FRI" + whole, names | {"cron"}),
        ]:
            await self.put_what_is_shown(query, shown)

    async def put_what_is_shown(self, query: str, names: set[str]) -> None:
        """
        PUT a job, and again what GET shows of it.

        :param names: parameters that have to be shown; none where the second PUT schedules the job
            for another time.
        """
        if query.startswith("{"):
            await self.ask(b"PUT /jobs/a/b", JSON, query.encode())
        else:
            await self.ask(b"PUT /jobs/a/b?" + query.encode())
        shown = await self.shown()
        await self.ask(b"DELETE /jobs/a/b")
        members = {name: shown[name] for name in shown if name not in STATE}
        self.assertLessEqual({name.replace("-", "_") for name in names}, members.keys(), query)
        if names:
            answer = await self.ask(b"PUT /jobs/a/b", JSON, json.dumps(members).encode())
            self.assertIn(b" 201 ", answer, query)
            self.assertEqual(await self.shown(), shown, query)
        await self.ask(b"DELETE /jobs/a/b")

    async def test_a_one_off_job_that_get_shows_is_not_put_as_another(self) -> None:
        for query in [b"one-off=1&interval=60", b"one-off=1&first-run=2030-01-01T00:00:00Z"]:
            await self.ask(b"PUT /jobs/a/b?" + query)
            shown = await self.shown()
            self.assertEqual(shown["interval"], 0)
            body = json.dumps({"interval": shown["interval"]}).encode()
            status, detail = await self.refusal(b"PUT /jobs/a/b", JSON, body)
            self.assertEqual(status, 400)
            self.assertIn("interval is 0: a periodic job takes 1 second or more; one-off", detail)
            self.assertEqual(await self.shown(), shown)

    async def test_what_get_shows_of_a_job_s_state_put_refuses(self) -> None:
        """Or it would run at another time than its next_run, or though it is disabled."""
        await self.ask(b"PUT /jobs/a/b?interval=60&count=3")
        [(key, job)] = self.store.rows.items()
        assert isinstance(job, Job)
        failing = replace(job, due=self.store.time, attempts=2, error="500", skipped=1)
        failed = replace(failing, standing=Standing.STOPPED, due=None)
        names: set[str] = set()
        self.store.last_runs[key] = RECORD
        self.store.last_changes[key] = LastChange(NOW, "ci", "put")
        rows: list[Job | UnreadableJob] = [
            replace(
                failing,
                disabled=True,
                due=None,
                notes=Notes(disabled=Disabling(NOW, "no stock", "ci")),
            ),
            failing,
            failed,
            replace(job, standing=Standing.DONE, due=None),
            replace(failed, delivery=Delivery(replay_of="0" * 32 + "-1")),
            UnreadableJob(key, "its cron is no cron"),
        ]
        for row in rows:
            self.store.rows[key] = row
            shown = await self.shown()
            for name in shown.keys() & STATE:
                body = json.dumps({"interval": 60, name: shown[name]}).encode()
                status, detail = await self.refusal(b"PUT /jobs/a/b", JSON, body)
                self.assertEqual(status, 400)
                self.assertIn(f"'{name}' is shown by GET and not set by PUT", detail)
                names.add(name)
            whole = json.dumps(shown).encode()
            status, detail = await self.refusal(b"PUT /jobs/a/b?if-exists=update", JSON, whole)
            names_of_state = ", ".join(f"'{name}'" for name in shown if name in STATE)
            self.assertTrue(detail.startswith(f"{names_of_state} are shown by GET and"), detail)
            self.assertEqual(self.store.rows, {key: row})
        self.assertEqual(names, STATE)

    async def test_a_json_body_names_the_job_of_the_url_or_none(self) -> None:
        for name, value in [
            *(("path", "A"), ("path", None), ("path", ""), ("path", {"a": 1})),
            *(("body", "a"), ("body", 12.0), ("body", 12), ("body", True)),
        ]:
            body = json.dumps({"interval": 60, name: value}).encode()
            status, detail = await self.refusal(b"PUT /jobs/a/12", JSON, body)
            self.assertEqual(status, 400)
            self.assertIn(f"{name} is '", detail)
            self.assertIn("in the URL: leave", detail)
        twice = b'{"interval":60,"path":"a","path":"a"}'
        self.assertIn("'path'", (await self.refusal(b"PUT /jobs/a/12", JSON, twice))[1])
        for request in [
            (b"PUT /jobs/a/12?interval=60&path=a",),
            (b"PUT /jobs/a/12?interval=60", FORM, b"body=12"),
            (b"PATCH /jobs/a/12?disable=1", JSON, b'{"path":"a"}'),
        ]:
            self.assertIn("there is no parameter", (await self.refusal(*request))[1])
        self.assertEqual(self.store.calls, [])
        given = json.dumps({"path": "a/ö", "body": "1 2", "interval": 60}).encode()
        self.assertIn(b" 201 ", await self.ask(b"PUT /jobs/a%2F%C3%B6/1%202", JSON, given))

    async def test_what_the_store_refuses_is_refused_too(self) -> None:
        query = b"one-off=1&interval=4294967295"
        self.assertIn(b" 201 ", await self.ask(b"PUT /jobs/a/b?" + query))
        self.store.time = datetime.max.replace(tzinfo=UTC)
        status, detail = await self.refusal(b"PUT /jobs/a/b?" + query)
        self.assertEqual(status, 400)
        self.assertEqual(
            detail, "interval is '4294967295': the first run would be past the year 9999"
        )

    async def test_another_content_type_is_415(self) -> None:
        for line in [b"PUT /jobs/a/b", b"PATCH /jobs/a/b"]:
            for headers in [b"", b"Content-Type: text/plain\r\n", b"Content-Type: \xff\r\n"]:
                status, detail = await self.refusal(line, headers, b"interval=60")
                self.assertEqual(status, 415)
                self.assertIn("application/x-www-form-urlencoded or application/json", detail)

    async def test_a_body_that_is_compressed_is_415(self) -> None:
        body = gzip.compress(b'{"interval":60}')
        for line in [b"PUT /jobs/a/b", b"PATCH /jobs/a/b"]:
            for coding in [b"gzip", b"br, gzip"]:
                headers = JSON + b"Content-Encoding: " + coding + b"\r\n"
                status, detail = await self.refusal(line, headers, body)
                self.assertEqual(status, 415)
                self.assertEqual(
                    detail,
                    f"the body's Content-Encoding is '{coding.decode()}': send it as it is, "
                    "without one",
                )
        identity = JSON + b"Content-Encoding: Identity\r\n"
        self.assertIn(b" 201 ", await self.ask(b"PUT /jobs/a/b", identity, b'{"interval":60}'))
        # Of what has no body, none is asked.
        compressed = b"Content-Encoding: gzip\r\n"
        self.assertIn(b" 201 ", await self.ask(b"PUT /jobs/a/b?interval=60", compressed))

    async def test_all_parameters_as_json(self) -> None:
        body = {
            "cron": "30 3 * * *",
            "location": "Europe/Riga",
            "first-run": "2015-01-01T00:00:00Z",
            "until": "2016-01-01T00:00:00Z",
            "count": 3,
            "catch-up": "all",
            "max-lateness": 1.5,
            "on-failure": "stop",
            "dst-gap": "skip",
            "dst-overlap": "last",
            "one-off": False,
            "immediate": 0,
        }
        answer = await self.ask(b"PUT /jobs/a/b", JSON, json.dumps(body).encode())
        self.assertEqual(
            answer.partition(b"\r\n\r\n")[2].decode(),
            '{"path":"a","body":"b","interval":null,"next_run":"2015-01-01T01:30:00Z",'
            '"cron":"30 3 * * *","location":"Europe/Riga","dst_gap":"skip","dst_overlap":"last",'
            '"until":"2016-01-01T00:00:00Z","count":3,"successes":0,"catch_up":"all",'
            '"max_lateness":1.5,"on_failure":"stop"}',
        )

    async def test_numbers_as_json(self) -> None:
        for body, further in [
            (b'{"interval":60,"count":3}', b',"count":3,"successes":0}'),
            (b'{"interval":60,"max-lateness":300}', b',"max_lateness":300}'),
        ]:
            answer = await self.ask(b"PUT /jobs/check_feed/1234", JSON, body)
            members = check_feed(b"2014-11-11T22:11:40Z").removesuffix(b"}")
            self.assertTrue(answer.endswith(b"\r\n\r\n" + members + further), answer)

    async def test_bad_input_is_400_and_one_sentence(self) -> None:
        duration = (
            "it takes seconds from 0 to 4294967295, or a duration such as 5m, 1h30m, PT90S or P1D"
        )
        lateness = (
            "it takes seconds from 0.1 to 315360000, or a duration such as 5m, 1h30m, PT90S or P1D"
        )
        counts = "it takes a whole number from 1 to 4294967295"
        for query, sentence in [
            (
                b"cron=0+9+*+*+*&interval=60",
                "cron and interval both say how often the job runs; give just one of them",
            ),
            (
                b"interval=60&first-run=2016-01-01T00:00:00Z&until=2015-01-01T00:00:00Z",
                "until (2015-01-01T00:00:00Z) is before first-run (2016-01-01T00:00:00Z): "
                "the job would never run",
            ),
            (
                b"interval=60&until=2014-01-01T00:00:00Z",
                "until is 2014-01-01T00:00:00Z, before the first run at 2014-11-11T22:11:40Z: "
                "the job would never run",
            ),
            (b"interval=60&count=0", f"count is '0': {counts}"),
            (b"interval=60&count=", f"count is '': {counts}"),
            (b"interval=60&count=4294967296", f"count is '4294967296': {counts}"),
            (
                b"cron=0+0+30+2+*",
                "cron is '0 0 30 2 *', which names a time that never comes: no such day is in any "
                "such month",
            ),
            (
                b"cron=0+25+*+*+*",
                "cron is '0 25 * * *', which has '25' in the hour field, which takes 0-23, ranges, "
                "lists, steps and *",
            ),
            (
                b"cron=*/90+*+*+*+*",
                "cron is '*/90 * * * *', which has a step of 90 in the minute field, which has 60 "
                "values: write interval=PT90M for each 90 minutes",
            ),
            (
                b"interval=60&location=Etc/GMT+5",
                "location is 'Etc/GMT 5', which has a space for its +, as a + is one in a query or "
                "a form: write Etc/GMT%2B5",
            ),
            (
                b"interval=60&location=Mars/Phobos",
                "location is 'Mars/Phobos', which is no time zone of the IANA database; "
                "it takes one such as Europe/Istanbul or UTC",
            ),
            (b"interval=P0D", f"interval is 'P0D', which is no time at all; {duration}"),
            (
                b"interval=-P1D",
                f"interval is '-P1D', which is negative: time only goes forward; {duration}",
            ),
            (
                b"interval=P1M2W",
                "interval is 'P1M2W', which mixes weeks with other units, which ISO 8601 does "
                f"not: write days; {duration}",
            ),
            (b"interval=P8000Y", "interval is 'P8000Y': the first run would be past the year 9999"),
            (
                b"interval=" + b"9" * 5000,
                f"interval is '{'9' * 39}…': {duration}",
            ),
            (
                b"interval=60&max-lateness=-5m",
                f"max-lateness is '-5m', which is negative: time only goes forward; {lateness}",
            ),
            (
                b"interval=60&max-lateness=P1M",
                "max-lateness is 'P1M', which has years or months, which are not always as long; "
                f"{lateness}",
            ),
            (b"interval=60&catch-up=two", "catch-up is 'two': it takes one, skip or all"),
            (b"interval=60&on-failure=", "on-failure is '': it takes continue or stop"),
            (b"cron=0+9+*+*+*&dst-gap=x", "dst-gap is 'x': it takes shift or skip"),
            (
                b"interval=60&dst-overlap=both",
                "dst-overlap goes with cron or with an interval that has days in it, such as P1D: "
                "elapsed time knows no clock changes; leave dst-overlap out",
            ),
            (
                b"one-off=true&interval=60&count=3",
                "count is for jobs that run more than once; leave count or one-off out",
            ),
            (
                b"interval=60&count=1&count=1",
                "count is given twice, as '1' and as '1': give it once",
            ),
            (
                b"interval=60&timezone=UTC",
                "there is no parameter 'timezone' (did you mean location?): a job takes interval, "
                "cron, location, first-run, one-off, immediate, until, count, catch-up, "
                "max-lateness, on-failure, jitter, success, gone, give-up, dst-gap, "
                "dst-overlap, if-exists, endpoint, payload, payload-base64, content-type, headers, "
                "method, timeout, retry, retry-interval, retry-multiplier, retry-max-interval, "
                "retry-jitter, retry-stop-after, retry-max-attempts, tags, description, redact, "
                "on-end, save-response, alert-after, expect-within, alert-url",
            ),
        ]:
            self.assertEqual(await self.refusal(b"PUT /jobs/a/b?" + query), (400, sentence))
            if b"timezone" not in query:
                self.assertEqual(await self.refusal(b"GET /preview?" + query), (400, sentence))
        self.assertEqual(self.store.rows, {})
        self.assertEqual(self.flushLoggedErrors(), [])


class EndpointTests(APITestCase):
    async def test_a_job_names_one(self) -> None:
        """Behind the original's four keys. That of a job that names none is not shown."""
        answer = await self.ask(b"PUT /jobs/check_feed/1234?interval=60&endpoint=billing")
        shown = check_feed(b"2014-11-11T22:11:40Z")
        self.assertIn(shown[:-1] + b',"endpoint":"billing"}', answer)
        (job,) = self.store.rows.values()
        assert isinstance(job, Job)
        self.assertEqual(job.options.endpoint, "billing")
        for query in (b"interval=60", b"interval=60&endpoint=default"):
            self.assertIn(shown, await self.ask(b"PUT /jobs/check_feed/1234?" + query))

    async def test_one_that_is_not_configured(self) -> None:
        for name in ("biling", "Billing", "", "http://evil/", "x" * 300):
            cut = repr(name if len(name) <= 40 else name[:39] + "…")
            sentence = (
                f"endpoint is {cut}, which is not in the configuration of this instance: it takes "
                "default, billing"
            )
            for request in (
                b"PUT /jobs/a/b?",
                b"PUT /jobs/a/b?if-exists=update&",
                b"GET /preview?",
            ):
                refusal = await self.refusal(request + b"interval=60&endpoint=" + name.encode())
                self.assertEqual(refusal, (400, sentence))
        self.assertEqual(self.store.calls, [])

    async def test_auth(self) -> None:
        """No job has an Authorization of its own where its endpoint has auth."""
        sentence = (
            "headers has authorization, which the endpoint 'billing' has by its auth in the "
            "configuration: leave it out"
        )
        own = b'"interval":60,"headers":{"X-A":"b","authorization":"Bearer s3cret"}'
        billing = b'"endpoint":"billing"'
        refusal = await self.refusal(b"PUT /jobs/a/b", JSON, b"{%s,%s}" % (own, billing))
        self.assertEqual(refusal, (400, sentence))
        pointer = {"pointer": "/headers/authorization", "detail": sentence}
        self.assertEqual(self.errors, [pointer])
        # Elsewhere it may have one, and can't come from there.
        self.assertIn(b" 201 ", await self.ask(b"PUT /jobs/a/b", JSON, b"{%s}" % own))
        merge = b"Content-Type: application/merge-patch+json\r\n"
        answer = await self.ask(b"PATCH /jobs/a/b", merge, b"{%s}" % billing)
        self.assertIn(sentence.encode(), answer)
        # Nor has a job one there that gets it later.
        self.assertIn(
            b" 201 ", await self.ask(b"PUT /jobs/a/b", JSON, b'{"interval":60,%s}' % billing)
        )
        answer = await self.ask(b"PATCH /jobs/a/b", merge, b"{%s}" % own.partition(b",")[2])
        self.assertIn(sentence.encode(), answer)
        self.assertNotIn("headers", await self.shown())

    async def test_problem(self) -> None:
        """It is said by the configuration of the moment, and the job stays as it is."""
        await self.ask(b"PUT /jobs/a/b?interval=60&endpoint=billing")
        before = await self.shown()
        self.assertNotIn("problem", before)
        self.jobs.allowed = Allowed(ENDPOINTS[:1])
        problem = "its endpoint 'billing' is not in the configuration of this instance"
        self.assertEqual(await self.shown(), {**before, "problem": problem})
        page = await self.ask(b"GET /jobs")
        self.assertIn(f'"endpoint":"billing","problem":"{problem}"}}]}}'.encode(), page)
        self.assertIn(b'"problem":"its endpoint', await self.ask(b"POST /jobs/a/b"))

    async def test_list(self) -> None:
        """Names of headers only: a value may be a secret."""
        expires = datetime(2014, 11, 11, 22, 11, 40, tzinfo=UTC)
        self.jobs.certificates = lambda: succeed({"billing": expires})
        answer = await self.ask(b"GET /endpoints")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertEqual(
            answer.partition(b"\r\n\r\n")[2],
            b'{"endpoints":[{"name":"default","baseurl":"http://127.0.0.1:5000/","timeout":10.0,'
            b'"ca":"","headers":[],"success":"200","gone":"204","give_up":"none","signed":false,'
            b'"auth":"none","cert":"","verify_name":"","deny":"none","proxy":"",'
            b'"certificate_expires":null},'
            b'{"name":"billing","baseurl":"https://b/in","timeout":0.5,"ca":"/etc/ca.pem",'
            b'"headers":["Authorization","X-Key"],"success":"200-299","gone":"none",'
            b'"give_up":"400-499","signed":true,"auth":"bearer","cert":"/etc/own.pem",'
            b'"verify_name":"b","deny":"private","proxy":"http://p:1",'
            b'"certificate_expires":"2014-11-11T22:11:40Z"}]}',
        )


class EnablementTests(APITestCase):
    async def test_disable_and_enable_again(self) -> None:
        """However often."""
        await self.ask(b"PUT /jobs/check_feed/1234?interval=60")
        enabled = check_feed(b"2014-11-11T22:11:40Z")
        disabled = (
            b'{"path":"check_feed","body":"1234","interval":60,"next_run":null,'
            b'"next_sched":"2014-11-11T22:11:40Z","disabled":true,'
            b'"disabled_since":"2014-11-11T22:10:40Z"}'
        )
        for line, members in [
            (b"PATCH /jobs/check_feed/1234?disable=true", disabled),
            (b"PATCH /jobs/check_feed/1234?disable=true", disabled),
            (b"GET /jobs/check_feed/1234", disabled),
            (b"PATCH /jobs/check_feed/1234?enable=true", enabled),
            (b"PATCH /jobs/check_feed/1234?enable=true", enabled),
            (b"GET /jobs/check_feed/1234", enabled),
        ]:
            self.assertEqual(
                await self.ask(line),
                b"HTTP/1.1 200 OK\r\n"
                b"Content-Type: application/json; charset=utf-8\r\n"
                b"Date: ...\r\n"
                b"Content-Length: %d\r\n"
                b'ETag: "1"\r\n'
                b"\r\n%s" % (len(members), members),
            )

    async def test_from_the_query_a_form_or_json(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        for request in [
            (b"PATCH /jobs/a/b?disable=true",),
            (b"PATCH /jobs/a/b", FORM, b"disable=yes"),
            (b"PATCH /jobs/a/b", JSON, b'{"disable":true}'),
        ]:
            self.assertIn(b'"disabled":true', await self.ask(*request))
            self.assertNotIn(b"disabled", await self.ask(b"PATCH /jobs/a/b?enable=1"))

    async def test_what_is_refused_changes_nothing(self) -> None:
        both = "enable and disable are both given; give just one of them, as true"
        for query, sentence in [
            (b"", "there is nothing to change: give enable=true or disable=true"),
            (b"?enable=false", "enable is false: use disable=true for that"),
            (b"?disable=false", "disable is false: use enable=true for that"),
            (b"?enable=true&disable=true", both),
            (
                b"?interval=5",
                "there is no parameter 'interval' (a merge patch has one, with the header "
                "Content-Type: application/merge-patch+json): "
                "a change takes enable, disable, reason",
            ),
        ]:
            self.assertEqual(await self.refusal(b"PATCH /jobs/a/b" + query), (400, sentence))
        self.assertEqual((await self.refusal(b"PATCH /jobs//b?enable=true"))[0], 400)
        self.assertEqual((await self.refusal(b"PATCH /jobs/a?enable=true"))[0], 404)
        self.assertEqual(self.store.calls, [])

    async def test_a_disabled_job_is_not_triggered(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        await self.ask(b"PATCH /jobs/a/b?disable=true")
        self.assertEqual(
            await self.refusal(b"POST /jobs/a/b"),
            (409, "the job 'a' 'b' is disabled: enable it first"),
        )

    async def test_an_unreadable_row_is_shown(self) -> None:
        key = JobKey("a", "b")
        self.store.rows[key] = UnreadableJob(key, "interval is 'x'")
        for query in [b"enable=true", b"disable=true"]:
            answer = await self.ask(b"PATCH /jobs/a/b?" + query)
            self.assertIn(b'"problem":"interval is \'x\'"}', answer)


class WhyTests(APITestCase):
    async def test_why(self) -> None:
        await self.ask(b"PUT /jobs/a%2Fb/1?interval=180")
        answer = await self.ask(b"GET /jobs/a%2Fb/1/why")
        self.assertEqual(
            answer.partition(b"\r\n\r\n")[2],
            b'{"path":"a/b","body":"1","state":"scheduled","code":"due",'
            b'"why":"due in 3 min, at 2014-11-11T22:13:40Z"}',
        )
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json;"))
        self.assertEqual(self.store.calls[-1], "get")

    async def test_a_due_job(self) -> None:
        """How far the instances are behind is asked for only then."""
        await self.ask(b"PUT /jobs/a/1?interval=60&immediate=true")
        here = Here(slots=9, slots_free=9)
        self.jobs._look = lambda key: here
        self.store.time += timedelta(seconds=1)
        answer = await self.ask(b"GET /jobs/a/1/why")
        self.assertIn(b'"state":"waiting","code":"waiting_for_instance","why":"due for 1 s', answer)
        self.assertEqual(self.store.calls[-1], "counts")
        self.jobs._look = lambda key: here._replace(path_at_limit=True)
        answer = await self.ask(b"GET /jobs/a/1/why")
        self.assertIn(b'"code":"waiting_for_slot","why":"due for 1 s', answer)

    async def test_of_no_job(self) -> None:
        self.assertEqual((await self.refusal(b"GET /jobs/a/1/why"))[0], 404)
        self.assertEqual((await self.refusal(b"GET /jobs/a/why"))[0], 404)
        self.assertEqual((await self.refusal(b"PUT /jobs/a/1/why"))[0], 405)


class HistoryTests(APITestCase):
    async def body(self, call: bytes) -> Any:
        answer = await self.ask(call)
        self.assertTrue(
            answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json;"), answer
        )
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    async def test_runs(self) -> None:
        self.store.runs_page = RunPage([ListedRun(RECORD, RunState.RUNNING)], None)
        found = await self.body(b"GET /runs?path=a%2Fb&result=running&limit=7")
        self.assertEqual(found.keys(), {"runs"})
        self.assertEqual(
            [(run["run_id"], run["state"]) for run in found["runs"]], [(RECORD.run_id, "running")]
        )
        states = frozenset({RunState.RUNNING})
        self.assertEqual(
            self.store.run_queries, [RunQuery(RunFilters(path="a/b", states=states), limit=7)]
        )

    async def test_the_next_page(self) -> None:
        """By the cursor, or by the Link."""
        self.store.runs_page = RunPage([], BEFORE_OPEN, partial=True)
        for list in (b"/runs", b"/jobs/a%2Fb/1/runs"):
            answer = await self.ask(b"GET " + list + b"?endpoint=billing")
            found = json.loads(answer.partition(b"\r\n\r\n")[2])
            self.assertIs(found["partial"], True)
            link = re.search(rb"\r\nLink: <(\?.*?)>; rel=\"next\"\r\n", answer)
            assert link is not None
            self.assertTrue(link[1].endswith(b"&cursor=" + found["cursor"].encode()), link[1])
            await self.body(b"GET " + list + link[1])
            first, second = self.store.run_queries[-2:]
            self.assertEqual(second, replace(first, after=BEFORE_OPEN))

    async def test_the_runs_of_a_job(self) -> None:
        """There need be no such job any more."""
        await self.body(b"GET /jobs/a%2Fb/1/runs?result=given_up")
        results = frozenset({Result.GIVEN_UP})
        self.assertEqual(
            self.store.run_queries, [RunQuery(RunFilters(path="a/b", body="1", results=results))]
        )
        self.assertEqual((await self.refusal(b"GET /jobs/a/runs"))[0], 404)
        self.assertEqual((await self.refusal(b"PUT /jobs/a/1/runs"))[0], 405)

    async def test_one_run(self) -> None:
        self.store.single_runs[RunId(b"\x0f" * 16, 17)] = ListedRun(
            replace(RECORD, response_body="no")
        )
        found = await self.body(b"GET /runs/" + RECORD.run_id.encode())
        self.assertEqual((found["run_id"], found["response_body"]), (RECORD.run_id, "no"))
        for unknown in (b"x", b"0f-1", RECORD.run_id.encode() + b"%20"):
            status, detail = await self.refusal(b"GET /runs/" + unknown)
            self.assertEqual(status, 404)
            self.assertIn("there is no run ", detail)

    async def test_a_jobs_last_run(self) -> None:
        """Its GET has it, behind all else."""
        await self.ask(b"PUT /jobs/mail/7?interval=60")
        without = await self.body(b"GET /jobs/mail/7")
        self.assertNotIn("last_run", without)
        self.store.last_runs[RawKey("mail", "7")] = RECORD
        found = await self.body(b"GET /jobs/mail/7")
        self.assertEqual([*found], [*without, "last_run"])
        self.assertEqual(found["last_run"]["run_id"], RECORD.run_id)
        self.assertNotIn("path", found["last_run"])


class PageTests(APITestCase):
    async def page(self, query: bytes) -> tuple[list[str], str | None]:
        """The bodies of the jobs that are listed, and the cursor."""
        answer = await self.ask(b"GET /jobs" + query)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        found = json.loads(answer.partition(b"\r\n\r\n")[2])
        return [job["body"] for job in found["jobs"]], found.get("cursor")

    async def test_jobs_as_a_get_of_each_shows_them(self) -> None:
        await self.ask(b"PUT /jobs/check_feed/1234?interval=60")
        self.store.rows[JobKey("bad", "x")] = UnreadableJob(JobKey("bad", "x"), "interval is 'x'")
        answer = await self.ask(b"GET /jobs")
        self.assertEqual(
            answer.partition(b"\r\n\r\n")[2],
            b'{"jobs":[{"path":"bad","body":"x","next_run":null,"problem":"interval is \'x\'"},'
            b'{"path":"check_feed","body":"1234","interval":60,'
            b'"next_run":"2014-11-11T22:11:40Z"}]}',
        )

    async def test_a_page_at_a_time(self) -> None:
        self.assertEqual(await self.page(b""), ([], None))
        for body in b"edcba":
            await self.ask(b"PUT /jobs/%s/%c?interval=60" % (b"odd" if body % 2 else b"even", body))
        self.assertEqual(await self.page(b""), (["b", "d", "a", "c", "e"], None))
        bodies, cursor = await self.page(b"?limit=2")
        self.assertEqual(bodies, ["b", "d"])
        bodies, cursor = await self.page(f"?limit=2&cursor={cursor}".encode())
        self.assertEqual(bodies, ["a", "c"])
        self.assertEqual(await self.page(f"?limit=2&cursor={cursor}".encode()), (["e"], None))
        self.assertEqual(await self.page(b"?path=even"), (["b", "d"], None))

    async def test_a_link_to_the_next_page(self) -> None:
        """RFC 8288: also behind a proxy, and for any path; there is none on the last page."""
        for body in ("1", "2", "3"):
            await self.ask(f"PUT /jobs/a%26b%2F%C3%B6/{body}?interval=60".encode())
        for first in ("/jobs?limit=1", "/jobs?path=a%26b/%C3%B6&limit=1"):
            target, seen = first, []
            while target:
                answer = await self.ask(f"GET {target}".encode())
                head, _, content = answer.partition(b"\r\n\r\n")
                page = json.loads(content)
                seen += [job["body"] for job in page["jobs"]]
                link = re.search(rb'\r\nLink: <([^>]*)>; rel="next"', head)
                self.assertEqual(link is None, "cursor" not in page)
                self.assertEqual(head.count(b"Link"), int(link is not None))
                # As a client resolves it, to whom all of this is below another path.
                there = urljoin(
                    f"https://proxy.example/dalga{target}", link[1].decode() if link else ""
                )
                target = there.removeprefix("https://proxy.example/dalga") if link else ""
                if link:
                    self.assertIn(f"cursor={page['cursor']}", target)
            self.assertEqual(seen, ["1", "2", "3"])

    async def test_filters(self) -> None:
        """Each by its name, with dashes or underscores; repeated ones are "or"."""
        for body in (b"1", b"2", b"3"):
            first = b"2030-01-0%bT00:00:00Z" % body
            await self.ask(b"PUT /jobs/a/%b?one-off=true&first-run=%b" % (body, first))
        await self.ask(b"PUT /jobs/b%2Fc/1?interval=60&endpoint=billing")
        await self.ask(b"PATCH /jobs/a/2?disable=true")
        for query, bodies in [
            (b"?path=a&body=2", ["2"]),
            (b"?path=a&body=9", []),
            (b"?prefix=b%2F", ["1"]),
            (b"?state=disabled", ["2"]),
            (b"?state=DISABLED&state=problem", ["2"]),
            (b"?state=scheduled&path=a", ["1", "3"]),
            (b"?state=scheduled&state=disabled&path=a", ["1", "2", "3"]),
            (b"?due_before=2030-01-03T00:00:00Z&path=a", ["1"]),
            (b"?due-after=2030-01-01T02:00:00%2B02:00", ["3"]),
            (b"?endpoint=billing", ["1"]),
            (b"?endpoint=default&contains=3", ["3"]),
            (b"?sort=due&limit=2", ["1", "1"]),
            (b"?sort=due&path=a", ["1", "3", "2"]),
            (b"?tag=none&tag=other", []),
        ]:
            self.assertEqual((await self.page(query))[0], bodies, query)

    async def test_a_partial_page(self) -> None:
        """It says so, behind the cursor."""
        self.patch(
            self.store,
            "page",
            lambda query: succeed(Page([], DuePlace(b"2030-01-01 00:00:00.000000", 7), True)),
        )
        answer = await self.ask(b"GET /jobs?state=running&limit=9")
        self.assertRegex(
            answer.partition(b"\r\n\r\n")[2], rb'\A{"jobs":\[\],"cursor":"[^"]+","partial":true}\Z'
        )
        self.assertRegex(
            answer, rb'\r\nLink: <\?state=running&limit=9&cursor=[\w-]+>; rel="next"\r\n'
        )

    async def test_a_link_keeps_the_filters(self) -> None:
        """As a client gives them back."""
        place = Position(b"a&b", b"x")
        for asked in (
            b"prefix=a%26&tag=x%20y&tag=z&state=disabled&state=failed&limit=1",
            b"prefix=a%26&body=x&endpoint=e&contains=%C3%B6&sort=key&limit=1",
            b"tag=x&due_before=2030-01-01T00:00:00.25Z&due_after=2029-01-01T00:00:00Z&limit=1",
        ):
            queries: list[Query] = []

            def page(query: Query) -> Deferred[Page]:
                queries.append(query)  # noqa: B023
                return succeed(Page([], place))

            patched = self.patch(self.store, "page", page)
            answer = await self.ask(b"GET /jobs?" + asked)
            link = re.search(rb"\r\nLink: <([^>]*)>", answer)
            assert link is not None
            await self.ask(b"GET /jobs" + link[1])
            patched.restore()
            self.assertEqual(queries[1], replace(queries[0], after=place))

    async def test_a_cursor_is_of_one_list(self) -> None:
        """One that is somebody's guess, or of another list, gives no page at all."""
        for path in (b"a", b"b"):
            for body in (b"1", b"2"):
                await self.ask(b"PUT /jobs/%b/%b?interval=60" % (path, body))
        _, of_all = await self.page(b"?limit=1")
        _, of_a = await self.page(b"?path=a&limit=1")
        assert of_all is not None and of_a is not None
        again = "give the same path as for the page before, or leave cursor out to begin with the"
        for query, sentence in [
            (f"path=a&cursor={of_all}", f"which is of a list of all jobs: {again}"),
            (f"cursor={of_a}", f"which is of a list of the jobs with path 'a': {again}"),
            (f"path=b&cursor={of_a}", f"which is of a list of the jobs with path 'a': {again}"),
            (
                f"cursor={of_all[:-1]}",
                "which is none: it takes what the page before gave, unchanged",
            ),
            (f"cursor={of_all}A", "which is none: it takes what the page before gave, unchanged"),
            (
                "cursor=",
                "cursor is '', which is none: it takes what the page before gave, unchanged",
            ),
            ("cursor=17", "leave it out to begin with the first page"),
        ]:
            status, detail = await self.refusal(f"GET /jobs?{query}".encode())
            self.assertEqual(status, 400)
            self.assertIn(sentence, detail)
        # The page's size may change.
        self.assertEqual(await self.page(f"?cursor={of_all}".encode()), (["2", "1", "2"], None))

    async def test_what_is_refused(self) -> None:
        for query, sentence in [
            (b"?limit=0", "limit is '0': it takes a whole number from 1 to 1000"),
            (b"?limit=1001", "limit is '1001': it takes a whole number from 1 to 1000"),
            (b"?cursor=x", "cursor is 'x', which is none: it takes what the page before gave"),
            (b"?path=", "the job's path is empty: give 1 to 255 characters"),
            (b"?body=", "the job's body is empty: give 1 to 255 characters"),
            (b"?prefix=", "prefix has 0 characters: it takes 1 to 255"),
            (b"?tag=x&tag=" + b"y" * 65, "tag has a tag of 65 characters: a tag takes 1 to 64"),
            (b"?tag=x,y", "tag is 'x,y', and no tag has a comma: for the jobs that have one of"),
            (b"?tag=", "tag has an empty tag: a tag takes 1 to 64 characters"),
            (b"?path=a&prefix=a", "path and prefix are both given: give path for the jobs of"),
            (b"?path=a&path=b", "path is given twice, as 'a' and as 'b': give it once"),
            (
                b"?state=failing",
                "state is 'failing': it takes problem, disabled, running,",
            ),
            (b"?states=failed", "there is no parameter 'states' (did you mean state?)"),
            (b"?sort=path", "sort is 'path': it takes key or due"),
            (b"?due_before=tomorrow", "due-before is 'tomorrow': it takes an RFC 3339 timestamp"),
            (
                b"?due_before=2030-01-01T00:00:00Z&due_after=2030-01-01T00:00:00.5Z",
                "due_before is 2030-01-01T00:00:00Z, which is not later than due_after, "
                "2030-01-01T00:00:00.5Z: no job is due between the two",
            ),
            (
                b"?" + b"&".join(b"tag=%d" % number for number in range(11)),
                "there are 11 tags: a list takes 10 at most",
            ),
            (b"?sort-by=id", "there is no parameter 'sort-by' (did you mean sort?): a list of"),
        ]:
            answer = await self.ask(b"GET /jobs" + query)
            self.assertIn(b"HTTP/1.1 400 ", answer)
            self.assertIn(sentence.encode(), answer)
        self.assertEqual(self.store.calls, [])

    async def test_other_methods_and_a_slash_behind_it(self) -> None:
        self.assertIn(b"Allow: GET, HEAD\r\n", await self.ask(b"PUT /jobs"))
        self.assertIn(b"HTTP/1.1 404 ", await self.ask(b"GET /jobs/"))


class RunTimesTests(APITestCase):
    async def times(self, target: bytes) -> list[str]:
        """The run times that are listed."""
        answer = await self.ask(b"GET " + target)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        return [run["at"] for run in json.loads(answer.partition(b"\r\n\r\n")[2])["runs"]]

    async def test_a_jobs_next_runs(self) -> None:
        await self.ask(
            b"PUT /jobs/a/b?cron=30+3+*+*+*&location=Europe/Riga&first-run=2021-03-27T12:00:00Z"
        )
        members = (
            b'{"runs":[{"at":"2021-03-28T01:00:00Z","local":"2021-03-28T04:00:00+03:00","dst":"gap"}'
            b',{"at":"2021-03-29T00:30:00Z","local":"2021-03-29T03:30:00+03:00"}]}'
        )
        self.assertEqual(
            await self.ask(b"GET /jobs/a/b/upcoming?limit=2"),
            b"HTTP/1.1 200 OK\r\n"
            b"Content-Type: application/json; charset=utf-8\r\n"
            b"Date: ...\r\n"
            b"Content-Length: %d\r\n"
            b"\r\n%s" % (len(members), members),
        )

    async def test_ten_after_now_unless_said_otherwise(self) -> None:
        await self.ask(b"PUT /jobs/a/b?interval=60")
        times = await self.times(b"/jobs/a/b/upcoming")
        self.assertEqual(times, [f"2014-11-11T22:{minute}:40Z" for minute in range(11, 21)])
        self.store.time += timedelta(seconds=90)
        self.assertEqual(await self.times(b"/jobs/a/b/upcoming?count=1"), ["2014-11-11T22:12:40Z"])
        self.assertEqual(
            await self.times(b"/jobs/a/b/upcoming?limit=2&after=2015-01-01T00:00:00%2B01:00"),
            ["2014-12-31T23:00:40Z", "2014-12-31T23:01:40Z"],
        )
        self.assertEqual(len(await self.times(b"/jobs/a/b/upcoming?limit=100")), 100)

    async def test_page_by_page(self) -> None:
        """The last time of a page, given as after, leads to the next run, to the microsecond."""
        self.store.time += timedelta(microseconds=482_193)
        await self.ask(b"PUT /jobs/a/b?interval=60")
        for target in [b"/jobs/a/b/upcoming?", b"/preview?interval=60&"]:
            expected = await self.times(target + b"limit=6")
            self.assertEqual(expected[0], "2014-11-11T22:11:40.482193Z")
            found, after = [], b""
            for _ in range(3):
                found += await self.times(target + b"limit=2" + after)
                after = b"&after=" + found[-1].encode()
            self.assertEqual(found, expected)

    async def test_a_job_ends_and_a_disabled_one_has_no_runs(self) -> None:
        for query, expected in [
            (b"one-off=true&interval=60", ["2014-11-11T22:11:40Z"]),
            (b"interval=60&count=2", ["2014-11-11T22:11:40Z", "2014-11-11T22:12:40Z"]),
            (b"interval=60&until=2014-11-11T22:12:39Z", ["2014-11-11T22:11:40Z"]),
        ]:
            await self.ask(b"PUT /jobs/a/b?" + query)
            self.assertEqual(await self.times(b"/jobs/a/b/upcoming"), expected)
        await self.ask(b"PATCH /jobs/a/b?disable=true")
        self.assertEqual(await self.times(b"/jobs/a/b/upcoming"), [])

    async def test_a_job_whose_body_is_upcoming(self) -> None:
        for target in [b"/jobs/x/upcoming", b"/jobs/upcoming/upcoming"]:
            self.assertIn(
                b'"body":"upcoming","interval":60',
                await self.ask(b"PUT " + target + b"?interval=60"),
            )
            for method in [b"GET", b"POST"]:
                self.assertIn(
                    b'"body":"upcoming","interval":60', await self.ask(method + b" " + target)
                )
            self.assertEqual(
                await self.times(target + b"/upcoming?count=1"), ["2014-11-11T22:11:40Z"]
            )
            self.assertIn(b" 204 ", await self.ask(b"DELETE " + target))

    async def test_the_path_is_read_as_a_jobs(self) -> None:
        await self.ask(b"PUT /jobs/a%2Fb/c%20d?interval=60")
        for target in [b"/jobs/a%2Fb/c%20d/upcoming", b"http://x/jobs/a%2fb/c%20d/upcoming"]:
            self.assertEqual(len(await self.times(target)), 10)
        for target, sentence in [
            (b"/jobs//b/upcoming", "the job's path is empty: give 1 to 255 characters"),
            (b"/jobs/a//upcoming", "the job's body is empty: give 1 to 255 characters"),
            (b"/jobs/%ff/b/upcoming", "the job's path is not UTF-8: the octet 0xFF can't be there"),
        ]:
            self.assertEqual(await self.refusal(b"GET " + target), (400, sentence))

    async def test_what_is_refused(self) -> None:
        await self.ask(b"PUT /jobs/a/b?cron=*+*+*+*+*&count=5000")
        key = JobKey("c", "d")
        self.store.rows[key] = UnreadableJob(key, "schedule is 'x'")
        counts = "it takes a whole number from 1 to 100"
        for target, status, sentence in [
            (b"/jobs/a/b/upcoming?limit=0", 400, f"limit is '0': {counts}"),
            (b"/jobs/a/b/upcoming?count=101", 400, f"count is '101': {counts}"),
            (
                b"/jobs/a/b/upcoming?limit=5&count=5",
                400,
                "limit and count both say how many run times are listed; give just one of them",
            ),
            (
                b"/jobs/a/b/upcoming?after=9999-01-01T00:00:00Z",
                400,
                "there are more than 1000 runs up to 9999-01-01T00:00:00Z, too many to see how "
                "many the job's count leaves: give an earlier time as after",
            ),
            (
                b"/jobs/c/d/upcoming",
                409,
                "the job with path 'c' and body 'd' can't be understood (schedule is 'x'): "
                "schedule it anew with PUT, or delete it",
            ),
        ]:
            self.assertEqual(await self.refusal(b"GET " + target), (status, sentence))

    async def test_a_preview_writes_nothing(self) -> None:
        self.assertEqual(
            await self.times(b"/preview?interval=P1M&first-run=2015-01-31T09:00:00Z&limit=3"),
            ["2015-01-31T09:00:00Z", "2015-02-28T09:00:00Z", "2015-03-31T09:00:00Z"],
        )
        self.assertEqual(
            await self.times(b"/preview?interval=60&immediate=true&limit=1"),
            ["2014-11-11T22:10:40Z"],
        )
        self.assertEqual(
            await self.times(b"/preview?interval=60&immediate=true&count=2&limit=9"),
            ["2014-11-11T22:10:40Z", "2014-11-11T22:11:40Z"],
        )
        self.assertEqual(
            await self.times(b"/preview?interval=60&after=2015-01-01T00:00:00Z&limit=1"),
            ["2015-01-01T00:00:40Z"],
        )
        self.assertEqual(len(await self.times(b"/preview?cron=*+*+*+*+*")), 10)
        # A body is not looked at.
        self.assertIn(b" 200 ", await self.ask(b"GET /preview?interval=60", b"", b"limit=0"))
        self.assertEqual(self.store.rows, {})


class FailureTests(APITestCase):
    async def test_an_unreachable_database_is_503_with_retry_after(self) -> None:
        self.store.broken = StoreUnavailable("the database can't be reached: refused")
        for line in [
            b"PUT /jobs/a/b?interval=60",
            b"GET /jobs/a/b",
            b"POST /jobs/a/b",
            b"DELETE /jobs/a/b",
            b"PATCH /jobs/a/b?enable=true",
            b"PATCH /jobs/a/b?disable=true",
            b"GET /jobs/a/b/upcoming",
            b"GET /preview?interval=60",
            b"GET /status",
        ]:
            answer = await self.ask(line)
            self.assertTrue(answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), answer)
            self.assertIn(b"\r\nRetry-After: 1\r\n", answer)
            self.assertIn(b"can't be reached", answer)

    async def test_a_slow_database_is_503_once_patience_is_over(self) -> None:
        """P4: and what the client was told has failed is not written behind its back."""
        self.store.stall = Deferred()
        client = await self.connect()
        client.send(b"PUT /jobs/a/b?interval=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        await self.store.called
        self.clock.advance(3.9)
        self.assertEqual(client.received, b"")
        self.clock.advance(0.1)
        answer = await client.answer()
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 "), answer)
        self.assertIn(b"\r\nRetry-After: 1\r\n", answer)
        self.store.stall.callback(None)
        self.assertEqual(list(self.store.rows), [])

    async def test_an_unexpected_error_is_logged_and_tells_the_client_nothing(self) -> None:
        self.store.broken = RuntimeError("password=s3cret")
        status, detail = await self.refusal(b"GET /jobs/a/b")
        self.assertEqual(status, 500)
        self.assertNotIn("s3cret", detail)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_a_client_that_hangs_up_leaves_no_trace_but_its_job(self) -> None:
        """P1, P4: what was asked for is written and made known, whoever waits for it."""
        self.store.stall = Deferred()
        client = await self.connect()
        client.send(b"PUT /jobs/a/b?interval=60 HTTP/1.1\r\nHost: x\r\n\r\n")
        await self.store.called
        warnings: list[Any] = []
        globalLogPublisher.addObserver(noting(warnings))
        self.addCleanup(globalLogPublisher.removeObserver, noting(warnings))
        client.transport.abortConnection()  # type: ignore[union-attr]
        await self.server_lost[0]
        self.store.stall.callback(None)
        self.assertEqual(list(self.store.rows), [JobKey("a", "b")])
        self.assertEqual(len(self.announced), 1)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual([e for e in warnings if e["log_level"].name not in ("debug", "info")], [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_client_that_hangs_up_while_the_database_is_away(self) -> None:
        self.store.stall = Deferred()
        client = await self.connect()
        client.send(b"GET /jobs/a/b HTTP/1.1\r\nHost: x\r\n\r\n")
        await self.store.called
        client.transport.abortConnection()  # type: ignore[union-attr]
        await self.server_lost[0]
        self.clock.advance(5)
        self.store.stall.errback(StoreUnavailable("away"))
        self.assertEqual(self.flushLoggedErrors(), [])


class ConnectionTests(APITestCase):
    async def test_a_connection_is_kept_after_success_and_refusal(self) -> None:
        client = await self.connect()
        request = b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\n" + FORM + b"Content-Length: %d\r\n\r\n%s"
        bodies = [b"interval=60", b"interval=x", b"x=1", b"interval=61"]
        for body in bodies:
            client.send(request % (len(body), body))
        statuses = [(await client.answer())[9:12] for _ in bodies]
        self.assertEqual(statuses, [b"201", b"400", b"400", b"201"])
        self.assertEqual(len(self.server_lost), 1)

    async def test_an_idle_connection_is_closed(self) -> None:
        client = await self.connect()
        client.send(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.answer()
        self.clock.advance(IDLE_TIMEOUT - 1)
        client.send(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b" 200 ", await client.answer())
        self.clock.advance(IDLE_TIMEOUT)
        await self.server_lost[0]

    async def test_a_slow_sender_is_cut_off(self) -> None:
        """P10: a request has to arrive within a time of its own, however busily it trickles in."""
        client = await self.connect()
        client.send(b"PUT /jobs/a/b?interval=60 HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n")
        arrived: list[bytes] = []
        receive = ApiChannel.dataReceived

        def count(channel: ApiChannel, data: bytes) -> None:
            arrived.append(data)
            receive(channel, data)

        self.patch(ApiChannel, "dataReceived", count)
        for number in range(int(ARRIVAL_TIMEOUT) - 1):
            client.send(b"x")
            while len(arrived) <= number:
                await self.turn()
            self.clock.advance(1)
        self.assertFalse(self.server_lost[0].called)
        self.assertEqual(client.received, b"")
        self.clock.advance(1)
        answer = await client.answer()
        self.assertTrue(answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n"), answer)
        self.assertIn(b"the request was not there to its end within 30 seconds", answer)
        client.transport.loseConnection()  # type: ignore[union-attr]
        await self.server_lost[0]
        # One that has arrived is not held to it.
        client = await self.connect()
        client.send(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.answer()
        self.clock.advance(ARRIVAL_TIMEOUT)
        client.send(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b" 200 ", await client.answer())

    def test_the_time_outs_can_be_chosen(self) -> None:
        for octets, idle, arrival, ends in [
            (b"", 5.5, 30.0, 5.5),
            (b"GET", 5.5, 30.0, 5.5),
            (b"GET", 60.0, 2.5, 2.5),
            (b"\r\n", 60.0, 2.5, 2.5),  # which may stand before a request
        ]:
            clock = Clock()
            site: Any = make_site(
                self.jobs,
                self.health,
                clock,
                idle_timeout=idle,
                arrival_timeout=arrival,
                doors=CALLED,
            )
            channel: Any = site.buildProtocol(None)
            transport: Any = StringTransport()
            transport.loseWriteConnection = lambda: None
            channel.makeConnection(transport)
            if octets:
                channel.dataReceived(octets)
            clock.advance(ends - 0.1)
            self.assertFalse(transport.disconnecting or transport.disconnected)
            clock.advance(0.1)
            self.assertTrue(transport.disconnecting or transport.disconnected)
            channel.connectionLost(Failure(ConnectionDone()))

    def test_no_more_connections_than_there_is_room_for(self) -> None:
        """P10: a new one takes the place of the one that has been waited for longest."""
        site: Any = make_site(self.jobs, self.health, Clock(), max_connections=3, doors=CALLED)
        channels: list[Any] = []
        transports = []

        def connect(octets: bytes = b"") -> None:
            channels.append(site.buildProtocol(None))
            transports.append(StringTransport())
            channels[-1].makeConnection(transports[-1])
            if octets:
                channels[-1].dataReceived(octets)

        def cut_off() -> list[int]:
            found = [n for n, transport in enumerate(transports) if transport.disconnected]
            for number in found:
                channels[number].connectionLost(Failure(ConnectionDone()))
            return found

        begun = b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
        self.store.stall = Deferred()
        connect(b"GET /jobs/a/b HTTP/1.1\r\nHost: x\r\n\r\n")  # is being answered
        connect()
        connect()
        self.assertEqual(cut_off(), [])
        # Is idle again, but was not for long.
        channels[1].dataReceived(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        connect(begun)
        self.assertEqual(cut_off(), [2])
        connect()
        self.assertEqual(cut_off(), [1, 2])
        channels[4].dataReceived(begun)
        connect()
        self.assertEqual(cut_off(), [1, 2, 3])
        connect()  # the last has only come, and not had the time to send anything
        self.assertEqual(cut_off(), [1, 2, 3, 4])
        self.store.stall.callback(None)
        connect()  # what has just been answered may not have been read
        self.assertEqual(cut_off(), [1, 2, 3, 4, 5])
        connect()
        connect()
        self.assertEqual(cut_off(), [*range(7)])
        for number in (7, 8, 9):
            channels[number].connectionLost(Failure(ConnectionDone()))

    def test_where_all_are_being_answered(self) -> None:
        """P10: a new one is closed at once, each of them, and no other is."""
        site: Any = make_site(self.jobs, self.health, Clock(), max_connections=1, doors=CALLED)
        self.store.stall = Deferred()
        channels: list[Any] = [site.buildProtocol(None) for _ in range(3)]
        transports = [StringTransport() for _ in channels]
        channels[0].makeConnection(transports[0])
        channels[0].dataReceived(b"GET /jobs/a/b HTTP/1.1\r\nHost: x\r\n\r\n")
        # The next has begun already.
        channels[0].dataReceived(b"GET /jobs/a/b HTTP/1.1\r\nHost: x\r\n")
        for number in (1, 2):
            channels[number].makeConnection(transports[number])
        self.assertEqual([t.disconnected for t in transports], [False, True, True])
        for channel in channels:
            channel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(site.channels, {})

    async def test_http_1_0(self) -> None:
        client = await self.connect()
        client.send(b"GET /status HTTP/1.0\r\n\r\n")
        self.assertTrue((await client.answer()).startswith(b"HTTP/1.0 200 OK\r\n"))
        await self.server_lost[0]

    async def test_there_is_no_access_log_and_no_timer_for_one(self) -> None:
        events: list[Any] = []
        globalLogPublisher.addObserver(noting(events))
        self.addCleanup(globalLogPublisher.removeObserver, noting(events))
        await self.ask(b"GET /status")
        self.assertEqual([event for event in events if "/status" in str(event)], [])
        calls = {call.getTime() for call in self.clock.getDelayedCalls()}
        self.assertEqual(calls, {IDLE_TIMEOUT})


class FullTests(APITestCase):
    """At the limit of connections."""

    max_connections = 20

    async def test_half_sent_requests_keep_nobody_out(self) -> None:
        """P10: who begins requests and ends none gives way to who asks, without a time-out."""
        half = b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
        slow = []
        for number in range(self.max_connections):
            slow.append(await self.connect())
            slow[-1].send(half)
            while len([channel for channel in self.channels if channel.requests]) <= number:
                await self.turn()
        for client in slow[:3]:
            self.assertIn(b" 200 ", await self.ask(b"GET /status"))
            await client.lost
        self.assertEqual(len([client for client in slow if client.closed_by_server]), 3)
        self.assertEqual(self.flushLoggedErrors(), [])


class RefusedTests(APITestCase):
    """What twisted.web would answer with an empty 400, or wait for in vain."""

    async def refused(self, octets: bytes) -> tuple[int, str]:
        """Send octets; gives the status and the detail, once the server has closed its side."""
        client = await self.connect()
        client.send(octets)
        await client.eof
        head, _, body = client.received.partition(b"\r\n\r\n")
        status = int(head[9:12])
        self.assertTrue(head.startswith(b"HTTP/1.1 "), head)
        self.assertIn(b"\r\nContent-Type: application/problem+json\r\n", head)
        self.assertIn(b"\r\nContent-Length: %d" % len(body), head)
        self.assertIn(b"\r\nConnection: close\r\n", head)
        problem = json.loads(body)
        self.assertEqual(problem["status"], status)
        self.assertIn(b" %d %s\r\n" % (status, problem["title"].encode()), head)
        client.transport.loseConnection()  # type: ignore[union-attr]
        await client.lost
        assert client.reason is not None
        self.assertIsInstance(client.reason.value, ConnectionDone)
        return status, problem["detail"]

    async def test_each_is_said_in_a_sentence(self) -> None:
        put = b"PUT /jobs/a/b?interval=60 HTTP/1.1\r\nHost: x\r\n"
        for octets, status, sentence in [
            (b"GARBAGE\r\n\r\n", 400, "the request line is 'GARBAGE': it takes a method, a target"),
            (b"GET /status\r\n", 400, "the request line is 'GET /status': it takes a method, a"),
            (b"\r\n\r\n", 400, "the request line is missing"),
            (
                b"G@T / HTTP/1.1\r\nHost: x\r\n",
                400,
                "it begins with 'G@T / HTTP/1.1', where it takes",
            ),
            (
                b"GET /jobs/a b/c HTTP/1.1\r\nHost: x\r\n",
                400,
                "'/jobs/a b/c' has a space in it: write it as %20",
            ),
            (
                b"GET /jobs/a\x07/c HTTP/1.1\r\nHost: x\r\n",
                400,
                "has the octet 0x07 in it: write it as %07",
            ),
            (b"GET /status HTTP/2\r\n", 400, "the request line ends with 'HTTP/2', where it takes"),
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                505,
                "the version is HTTP/2.0: it takes HTTP/1.1",
            ),
            (b"GET /status HTTP/0.9\r\n", 505, "the version is HTTP/0.9: it takes HTTP/1.1"),
            (b"GET /" + b"x" * 20_000, 414, "the request line is too long: it takes 16384 octets"),
            (put + b"no colon\r\n\r\n", 400, "the header 'no colon' has no colon: it takes a name"),
            (put + b"A b: c\r\n\r\n", 400, "the header's name 'A b' is none: it takes letters"),
            (put + b"A: b\0c\r\n\r\n", 400, "the header A has the octet 0x00, a CR or an LF"),
            (put + b"A: " + b"x" * 20_000, 431, "a header is too long: it takes 16384 octets"),
            (
                put + b"A: %b\r\n" % (b"x" * 9000) * 2,
                431,
                "the request's head is too large: it takes",
            ),
            (put + b"A: b\r\n" * 501 + b"\r\n", 431, "16384 octets and 500 headers at most"),
            (
                put + b"Content-Length: -1\r\n\r\n",
                400,
                "Content-Length is '-1': it takes the body's",
            ),
            (put + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "given twice"),
            (
                put + b"content-length: 5\r\nContent-Length: 5\r\n\r\n",
                400,
                "is given twice: it takes",
            ),
            (
                put + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
                501,
                "Transfer-Encoding is 'gzip, chunked': it takes",
            ),
            (
                put + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
                400,
                "the body's chunks can't be read",
            ),
            (
                put + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
                400,
                "the body's chunks can't",
            ),
            (b"GET /status HTTP/1.1\r\nA: b\r\n\r\n", 400, "the header Host is missing, which an"),
            (put + b"host: x\r\n\r\n", 400, "the header Host is given twice: give it once"),
            (
                b"GET /status HTTP/1.1\r\nHost: a b\r\n\r\n",
                400,
                "Host is 'a b': it takes a name or",
            ),
            (
                b"PUT /jobs/a/b?interval=60 HTTP/1.1\r\nExpect: 100-continue\r\n"
                b"Content-Length: 5\r\n\r\n",
                400,
                "the header Host is missing",
            ),
        ]:
            found, detail = await self.refused(octets)
            self.assertEqual(found, status, octets[:99])
            self.assertIn(sentence, detail)
        self.assertEqual(self.store.calls, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_what_can_become_no_request_is_not_waited_for(self) -> None:
        hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(range(256))
        for octets, sentence in [
            (hello, "this port speaks HTTP without TLS, and what came is the beginning of a TLS"),
            (hello[:1], "this port speaks HTTP without TLS"),
            (hello.replace(b"\r", b"\r\n"), "write http:// instead of https://"),
            (
                b"\0",
                "what came is no HTTP request: it begins with '\\x00', where it takes a method",
            ),
            (b"\x05\x01\0", "what came is no HTTP request"),
            (b"x" * 41, "what came is no HTTP request"),
            (b"{", "what came is no HTTP request"),
            (b" GET /", "what came is no HTTP request"),
            (
                b"GET / XTTP",
                "the request line ends with 'XTTP', where it takes the version HTTP/1.1",
            ),
            (b"GET /status HTTP/1.1\n\n", "a line of the request ends with LF alone: it takes CR"),
            (b"GET /status HTTP/1.1\r\nHost: x\n\n", "a line of the request ends with LF alone"),
            (b"GET /status HTTP/1.1\r\nHost: \0", "the header 'Host: \\x00' has the octet 0x00"),
        ]:
            status, detail = await self.refused(octets)
            self.assertEqual(status, 400)
            self.assertIn(sentence, detail)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_an_octet_at_a_time(self) -> None:
        """What may still become a request is waited for."""
        site: Any = make_site(self.jobs, self.health, Clock(), doors=CALLED)
        channel: Any = site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        for octet in b"\r\nVERSION-CONTROL /j\xc3\xb6b HTTP/1.0\r\nA: b\r\n\tc\r\n\r\n":
            self.assertEqual(transport.value(), b"")
            channel.dataReceived(bytes([octet]))
        self.assertTrue(transport.value().startswith(b"HTTP/1.0 404 "), transport.value())
        channel.connectionLost(Failure(ConnectionDone()))

    async def test_a_refused_head_has_no_body(self) -> None:
        client = await self.connect()
        client.send(b"HEAD /status HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n")
        await client.eof
        self.assertTrue(client.received.startswith(b"HTTP/1.1 400 "))
        self.assertTrue(client.received.endswith(b"\r\n\r\n"))

    async def test_octets_past_ascii_as_curl_sends_them(self) -> None:
        put = "PUT /jobs/jöb/🐰?interval=60&first-run=2030-01-01T00:00:00Z".encode()
        members = '{"path":"jöb","body":"🐰","interval":60,'.encode()
        self.assertIn(members, await self.ask(put))
        for line in ["GET /jobs/jöb/🐰", "GET /jobs/j%C3%B6b/🐰", "GET http://x/jobs/jöb/🐰"]:
            self.assertIn(b"\r\n\r\n" + members, await self.ask(line.encode()))
        for path in [b"j\xc3\xb6b", b"j%c3%b6b", b"j%C3\xb6b"]:
            self.assertIn(b'{"jobs":[' + members, await self.ask(b"GET /jobs?path=" + path))
        self.assertIn(b" 204 ", await self.ask("DELETE /jobs/jöb/🐰".encode()))
        for octets, sentence in [
            (b"GET /jobs/j\xf6b/b", "the job's path is not UTF-8: the octet 0xF6 can't be there"),
            (
                b"GET /jobs?path=j\xf6b",
                "the parameter 'path' is not UTF-8: the octet 0xF6 can't be",
            ),
            (
                b"PUT /jobs/a/b?interval=60&\xff=1",
                "a parameter's name is not UTF-8: the octet 0xFF",
            ),
        ]:
            status, detail = await self.refusal(octets)
            self.assertEqual(status, 400)
            self.assertIn(sentence, detail)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_close_as_one_of_several_words(self) -> None:
        """The connection is closed after that answer, which says so."""
        for words in [b"close", b"Close", b"keep-alive,close", b"TE, close", b"close,\tTE"]:
            client = await self.connect()
            client.send(b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: " + words + b"\r\n\r\n")
            self.assertIn(b"\r\nConnection: close\r\n", await client.answer())
            await client.eof
            client.transport.loseConnection()  # type: ignore[union-attr]
            await client.lost
        client = await self.connect()
        for words in [b"keep-alive", b"closed", b"x-close, TE"]:
            client.send(b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: " + words + b"\r\n\r\n")
            self.assertNotIn(b"Connection", await client.answer())

    async def test_a_later_minor_version_is_1_1(self) -> None:
        client = await self.connect()
        for _ in range(2):
            client.send(b"GET /status HTTP/1.9\r\nHost: x\r\n\r\n")
            self.assertTrue((await client.answer()).startswith(b"HTTP/1.1 200 "))


class HalfCloseTests(APITestCase):
    """A client that closes its side as soon as it has asked, as ``nc -N`` does."""

    async def asked(self, octets: bytes) -> bytes:
        """What is answered to a client that closes its side after that."""
        client = await self.connect()
        client.send(octets)
        client.transport.loseWriteConnection()  # type: ignore[union-attr]
        await self.until_closed(client)
        assert client.reason is not None
        self.assertIsInstance(client.reason.value, ConnectionDone)
        return client.received

    async def until_closed(self, client: Client) -> None:
        await client.eof
        client.transport.loseConnection()  # type: ignore[union-attr]
        await client.lost

    async def test_it_gets_its_answer(self) -> None:
        for octets, expected in [
            (b"PUT /jobs/a/b?interval=60 HTTP/1.1\r\nHost: x\r\n\r\n", [b"201"]),
            (b"GET /jobs/a/b HTTP/1.0\r\n\r\n", [b"200"]),
            (
                b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\n"
                + FORM
                + b"Content-Length: 11\r\n\r\ninterval=60",
                [b"201"],
            ),
            (b"GET /jobs/a/b HTTP/1.1\r\nHost: x\r\n\r\n" * 3, [b"200"] * 3),
            (b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" * 3, [b"404"] * 3),
            (b"GET /jobs/a/b HTTP/1.1\r\nHost: x\r\n\r\nGET /jobs", [b"200", b"400"]),
            (b"GARBAGE\r\n", [b"400"]),
            (b"", []),
        ]:
            answers = await self.asked(octets)
            self.assertEqual(re.findall(rb"HTTP/1\.[01] (\d{3}) ", answers), expected, answers)
        await gatherResults(self.server_lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_also_when_it_takes_a_while(self) -> None:
        stall: Deferred[None] = Deferred()
        self.store.stall = stall
        client = await self.connect()
        client.send(
            b"PUT /jobs/a/b?interval=60 HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        ended: Deferred[None] = Deferred()
        lost = ApiChannel.readConnectionLost

        def note(channel: ApiChannel) -> None:
            lost(channel)
            if not ended.called:
                ended.callback(None)

        self.patch(ApiChannel, "readConnectionLost", note)
        client.transport.loseWriteConnection()  # type: ignore[union-attr]
        await self.store.called
        await ended
        self.store.stall = None
        stall.callback(None)
        await self.until_closed(client)
        self.assertEqual(re.findall(rb"HTTP/1.1 (\d{3}) ", client.received), [b"201", b"404"])

    async def test_a_request_that_is_cut_short(self) -> None:
        for octets in [
            b"GET /sta",
            b"GET /status HTTP/1.1\r\nHost: x\r\n",
            b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\ninterval",
            b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        ]:
            answer = await self.asked(octets)
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
            self.assertIn(b"the connection was closed within a request", answer)
        self.assertEqual(self.store.calls, [])
        await gatherResults(self.server_lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])


TEN_MB = 10_000_000


class DrainTests(APITestCase):
    """No further request is taken; those that have begun are answered."""

    GET = b"GET /jobs/a/b HTTP/1.1\r\nHost: x\r\n\r\n"

    async def drain(self) -> Deferred[int]:
        """Begin to drain, for 5 s at most."""
        drained = Deferred.fromCoroutine(self.site.drain(5))
        await self.turn()
        self.clock.advance(0)
        return drained

    async def test_without_connections(self) -> None:
        self.assertEqual(await (await self.drain()), 0)

    async def test_an_answer_under_way(self) -> None:
        """It is the connection's last, also where the next request has come."""
        idle = await self.connect()
        idle.send(self.GET)
        await idle.answer()
        client = await self.connect()
        stall: Deferred[None] = Deferred()
        self.store.stall = stall
        client.send(self.GET * 2)
        await self.store.called
        drained = await self.drain()
        await idle.eof
        self.assertFalse(client.closed_by_server or drained.called)
        stall.callback(None)
        await client.eof
        self.assertEqual(
            re.findall(rb"HTTP/1.1 (\d+)|\r\nConnection: (\w+)", client.received),
            [(b"404", b""), (b"", b"close")],
        )
        client.transport.loseConnection()  # type: ignore[union-attr]
        self.assertEqual(await drained, 0)

    async def test_a_request_that_has_begun(self) -> None:
        """The rest of it is waited for, also within its first line."""
        clients = {begun: await self.connect() for begun in (6, 30)}
        for begun, client in clients.items():
            client.send(self.GET + self.GET[:begun])
            await client.answer()
        drained = await self.drain()
        for begun, client in clients.items():
            client.send(self.GET[begun:])
            self.assertIn(b"\r\nConnection: close\r\n", await client.answer())
        self.assertEqual(await drained, 0)

    async def test_a_new_connection(self) -> None:
        """It has a moment for its first request."""
        silent = await self.connect()
        client = await self.connect()
        while len(self.channels) < 2:
            await self.turn()
        drained = await self.drain()
        client.send(self.GET)
        self.assertIn(b"\r\nConnection: close\r\n", await client.answer())
        self.assertFalse(silent.closed_by_server or drained.called)
        self.clock.advance(0.2)
        await silent.eof
        silent.transport.loseConnection()  # type: ignore[union-attr]
        self.assertEqual(await drained, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_request_that_waits_in_the_socket(self) -> None:
        """It has come before the stop, and its connection is not idle."""
        client = await self.connect()
        client.send(self.GET)
        await client.answer()
        client.transport.getHandle().sendall(self.GET)  # type: ignore[union-attr]
        drained = Deferred.fromCoroutine(self.site.drain(5))
        await self.turn()
        await self.turn()
        self.clock.advance(0)
        self.assertIn(b"\r\nConnection: close\r\n", await client.answer())
        self.assertEqual(await drained, 0)

    async def test_a_refusal(self) -> None:
        """A client that still sends sees the answer first: its connection is not reset."""
        client = await self.connect()
        client.send(b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n")
        self.assertIn(b" 413 ", await client.answer())
        drained = await self.drain()
        client.send(b"x" * 100_000)
        await self.turn()
        self.assertFalse(drained.called)
        client.transport.loseConnection()  # type: ignore[union-attr]
        self.assertEqual(await drained, 0)

    async def test_a_client_that_does_not_read(self) -> None:
        """It is cut off when the time is over."""
        for number in range(100):
            await self.ask(b"PUT /jobs/a/%d%s?interval=60" % (number, b"x" * 200))
        client = await self.connect()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        self.channels[-1].transport.getHandle().setsockopt(SOL_SOCKET, SO_SNDBUF, 5_000)
        client.send(b"GET /jobs HTTP/1.1\r\nHost: x\r\n\r\n" * 30)
        while self.store.calls.count("page") < 30:
            await self.turn()
        drained = await self.drain()
        self.clock.advance(4.9)
        await self.turn()
        self.assertFalse(drained.called)
        self.clock.advance(0.1)
        self.assertEqual(await drained, 1)


class BodySizeTests(APITestCase):
    """P10: a request's size is not the daemon's."""

    def setUp(self) -> None:
        super().setUp()
        held = self.held = [0]

        class CountedBytesIO(BytesIO):
            def write(self, data: Any) -> int:
                held[0] += len(data)
                return super().write(data)

        self.patch(request_module, "BytesIO", CountedBytesIO)

    def check_413(self, answer: bytes) -> None:
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 413 Content Too Large\r\n"), answer)
        self.assertIn(b"\r\nConnection: close\r\n", head)
        self.assertEqual(json.loads(body)["status"], 413)
        self.assertIn(f"{MAX_BODY} bytes at most", json.loads(body)["detail"])

    async def send_10_mb_and_close(self, client: Client, octets: bytes) -> None:
        """Were the connection not read on, this would end in a reset."""
        await client.eof
        client.send(octets)
        client.transport.loseConnection()  # type: ignore[union-attr]
        await client.lost
        assert client.reason is not None
        self.assertIsInstance(client.reason.value, ConnectionDone)
        self.assertEqual(self.store.calls, [])
        await self.server_lost[0]
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_content_length_above_the_cap_is_refused_before_any_of_the_body(self) -> None:
        for method in [b"PUT", b"POST", b"GET", b"DELETE"]:
            client = await self.connect()
            client.send(
                method + b" /jobs/a/b?interval=60 HTTP/1.1\r\nHost: x\r\n"
                b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % TEN_MB
            )
            # Not 100 Continue.
            self.check_413(await client.answer())
            self.assertEqual(self.held, [0])
        self.assertEqual(self.store.calls, [])

    async def test_a_client_that_sends_it_all_the_same_reads_the_413_and_no_reset(self) -> None:
        client = await self.connect()
        client.send(b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % TEN_MB)
        self.check_413(await client.answer())
        await self.send_10_mb_and_close(client, b"x" * TEN_MB)
        self.assertEqual(self.held, [0])

    async def test_a_chunked_body_is_refused_as_soon_as_it_grows_past_the_cap(self) -> None:
        client = await self.connect()
        client.send(b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
        client.send(chunk * (MAX_BODY // 0x1000) + b"1\r\nx\r\n")
        self.check_413(await client.answer())
        self.assertLessEqual(self.held[0], MAX_BODY)
        await self.send_10_mb_and_close(client, chunk * (TEN_MB // 0x1000) + b"0\r\n\r\n")
        self.assertLessEqual(self.held[0], MAX_BODY)

    async def test_a_chunk_of_10_mb(self) -> None:
        client = await self.connect()
        client.send(b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"%x\r\n" % TEN_MB + b"x" * (MAX_BODY + 1))
        self.check_413(await client.answer())
        rest = b"x" * (TEN_MB - MAX_BODY - 1) + b"\r\n0\r\n\r\n"
        await self.send_10_mb_and_close(client, rest)
        self.assertLessEqual(self.held[0], MAX_BODY)

    async def test_a_content_length_of_more_digits_than_a_number_takes(self) -> None:
        client = await self.connect()
        length = b"Content-Length: " + b"9" * 5000
        client.send(
            b"PUT /jobs/a/b?interval=5 HTTP/1.1\r\nHost: x\r\n" + length + b"\r\nA: b\r\n\r\nx"
        )
        self.check_413(await client.answer())
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.store.calls, [])

    async def test_what_follows_such_a_length_may_have_no_line_end(self) -> None:
        client = await self.connect()
        head = (
            b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: "
            + b"9" * 5000
            + b"\r\nA: b\r\n\r\n"
        )
        client.send(head + b"x" * 20_000)
        self.check_413(await client.answer())
        await self.send_10_mb_and_close(client, b"x" * TEN_MB)

    async def test_the_cap_itself_is_taken(self) -> None:
        form = b"interval=" + b"60".zfill(MAX_BODY - len(b"interval="))
        self.assertIn(b" 201 ", await self.ask(b"PUT /jobs/a/b", FORM, form))
        client = await self.connect()
        client.send(
            b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\n" + FORM + b"Transfer-Encoding: chunked\r\n\r\n"
        )
        client.send(b"%x\r\n" % MAX_BODY + form + b"\r\n0\r\n\r\n")
        self.assertIn(b" 201 ", await client.answer())

    async def test_a_payload_of_the_largest_size_fits_however_it_is_written(self) -> None:
        for text in ["ğ", '"', "\n", "x", "🐰"]:
            payload = text * (MAX_PAYLOAD // len(text.encode()))
            for written in (json.dumps(payload), json.dumps(payload, ensure_ascii=False)):
                body = b'{"interval":60,"x":%b}' % written.encode()
                self.assertLess(len(body), MAX_BODY)
                status, detail = await self.refusal(b"PUT /jobs/a/b", JSON, body)
                self.assertEqual((status, detail[:24]), (400, "there is no parameter 'x"))

    async def test_all_bodies_together_have_a_bound(self) -> None:
        """A 503 says when to come again; small bodies are taken all the same."""
        self.site.room = BodyRoom(2 * MAX_BODY)
        head = b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\n" + FORM
        length = b"Content-Length: %d\r\n\r\n" % MAX_BODY
        chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % MAX_BODY
        half_sent = [await self.connect() for _ in range(2)]
        for client in half_sent:
            client.send(head + length + b"interval=" + b"0" * (MAX_BODY - 20))
        while self.held[0] < 2 * (MAX_BODY - 11):
            await self.turn()
        expect = b"Expect: 100-continue\r\n"
        for late in (expect + length, chunked + b"interval=" + b"0" * (MAX_BODY - 20)):
            client = await self.connect()
            client.send(head + late)
            answer = await client.answer()
            self.assertTrue(answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), answer)
            self.assertIn(b"\r\nRetry-After: 1\r\n", answer)
            self.assertIn(b"\r\nConnection: close\r\n", answer)
            self.assertIn(b"too many large requests", answer)
        self.assertEqual(self.store.calls, [])
        form = b"interval=" + b"60".zfill(FREE_OF_ROOM - len(b"interval="))
        self.assertIn(b" 201 ", await self.ask(b"PUT /jobs/a/b", FORM, form))
        half_sent[0].send(b"6" + b"0" * 10)
        self.assertIn(b" 400 ", await half_sent[0].answer())
        half_sent[1].transport.abortConnection()  # type: ignore[union-attr]
        await self.server_lost[1]
        # The room is free again, of one that was answered as of one that was cut off.
        self.site.room.check(2 * MAX_BODY + FREE_OF_ROOM)

    async def test_a_body_whose_client_hung_up_takes_room_as_long_as_it_is_held(self) -> None:
        self.site.room = BodyRoom(MAX_BODY)
        self.store.stall = Deferred()
        form = b"interval=" + b"60".zfill(MAX_BODY - len(b"interval="))
        client = await self.connect()
        length = b"Content-Length: %d\r\n\r\n" % MAX_BODY
        client.send(b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\n" + FORM + length + form)
        await self.store.called
        client.transport.abortConnection()  # type: ignore[union-attr]
        await self.server_lost[0]
        self.clock.advance(3.9)
        self.assertRaises(NoRoom, self.site.room.check, MAX_BODY)
        self.clock.advance(0.1)
        self.site.room.check(MAX_BODY + FREE_OF_ROOM)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_a_small_body_that_nobody_reads_does_no_harm(self) -> None:
        for line in [b"GET /status", b"DELETE /jobs/a/b"]:
            self.assertIn((await self.ask(line, b"", b"x" * 1000))[9:12], [b"200", b"204"])

    async def test_a_client_that_never_stops_sending_is_cut_off(self) -> None:
        client = await self.connect()
        client.send(b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % TEN_MB)
        self.check_413(await client.answer())
        self.clock.advance(LINGER - 0.1)
        self.assertFalse(self.server_lost[0].called)
        self.clock.advance(0.1)
        await self.server_lost[0]
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_memory_does_not_grow_with_the_body(self) -> None:
        chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % TEN_MB
        for headers in [chunked, b"Content-Length: %d\r\n\r\n" % TEN_MB]:
            site: Any = make_site(self.jobs, self.health, self.clock, doors=CALLED)
            channel: Any = site.buildProtocol(None)
            transport: Any = StringTransport()
            transport.loseWriteConnection = lambda: None
            channel.makeConnection(transport)
            piece = b"x" * 65536
            tracemalloc.start()
            try:
                channel.dataReceived(b"PUT /jobs/a/b HTTP/1.1\r\nHost: x\r\n" + headers)
                for _ in range(TEN_MB // len(piece)):
                    channel.dataReceived(piece)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            channel.connectionLost(Failure(ConnectionDone()))
            self.assertIn(b" 413 ", transport.value())
            self.assertLess(peak, 8 * MAX_BODY)
