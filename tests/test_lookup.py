"""
The look-up of the endpoint's host: one at a time, shared, kept for a while, and never in anybody's
way. The resolver is a stand-in for getaddrinfo that answers when a test tells it to; threads
are real, and so are the sockets of the POSTs.
"""

from __future__ import annotations

import socket
from queue import SimpleQueue
from threading import Event, Thread, current_thread
from typing import Any

from twisted.internet import reactor as real_reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.attempt import ErrorKind
from dalga.model.reach import is_public
from dalga.outgoing import lookup as dalga_lookup
from dalga.outgoing.endpoint import Endpoint
from dalga.outgoing.lookup import FRESH, PATIENCE, RENEW, STALE, STUCK, THREADS, Lookup
from dalga.outgoing.pool import Way
from dalga.outgoing.trust import Trust
from tests.test_endpoint import OK, SHORT, EndpointCase, a_run, says

reactor: Any = real_reactor

#: How long a test waits for a thread, in seconds, before it fails.
PATIENCE_OF_TESTS = 30.0

NONAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def found(*hosts: str, port: int = 80) -> list[Any]:
    """What getaddrinfo gives."""
    return [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, port, 0, 0))
        if ":" in host
        else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
        for host in hosts
    ]


class Question:
    """One call of getaddrinfo, which waits for its answer."""

    def __init__(self, host: str, port: int) -> None:
        self.asked = (host, port)
        self.thread = current_thread()
        self.result: Any = None
        self._told = Event()

    def answer(self, result: Any) -> None:
        self.result = result
        self._told.set()

    def wait(self) -> Any:
        assert self._told.wait(PATIENCE_OF_TESTS)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


class Resolver:
    """Stands in for getaddrinfo."""

    def __init__(self) -> None:
        self._questions: SimpleQueue[Question] = SimpleQueue()
        self.all: list[Question] = []

    def __call__(self, host: str, port: int, **_: object) -> Any:
        question = Question(host, port)
        self._questions.put(question)
        return question.wait()

    def question(self) -> Question:
        """The next one that was not looked at yet; waits for it."""
        question = self._questions.get(timeout=PATIENCE_OF_TESTS)
        self.all.append(question)
        return question

    def is_left_alone(self) -> bool:
        return self._questions.empty()

    def end(self) -> None:
        """Let all threads go."""
        while not self._questions.empty():
            self.question()
        for question in self.all:
            question.answer(NONAME)


class Turns(Clock):
    """A clock that takes what threads hand to the reactor, one by one."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[Any] = SimpleQueue()

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        self._calls.put((function, arguments))

    def take(self) -> None:
        """Wait for one, and do it."""
        function, arguments = self._calls.get(timeout=PATIENCE_OF_TESTS)
        function(*arguments)


class LookupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Turns()
        self.resolver = Resolver()
        self.patch(dalga_lookup, "getaddrinfo", self.resolver)
        self.addCleanup(self.resolver.end)
        self.lookup = Lookup(self.clock, "app.example", 80)

    def answer(self, result: Any) -> Question:
        """Answer the next question, and have that taken in."""
        question = self.resolver.question()
        question.answer(result)
        self.clock.take()
        return question

    def hosts(self, deferred: Deferred[Any] | None = None) -> list[str]:
        """What a look-up that is over has brought."""
        addresses = self.successResultOf(deferred or self.lookup.addresses())
        return [address.host for address in addresses]

    def known(self, *hosts: str) -> None:
        """Have an answer."""
        asking = self.lookup.addresses()
        self.answer(found(*hosts))
        self.assertEqual(self.hosts(asking), list(hosts))

    def test_shared(self) -> None:
        """A hundred POSTs at a time are one look-up; its answer keeps its order."""
        asking = [self.lookup.addresses() for _ in range(100)]
        question = self.answer(found("10.0.0.2", "::1", "10.0.0.1", port=81))
        self.assertEqual(question.asked, ("app.example", 80))
        expected = [
            IPv4Address("TCP", "10.0.0.2", 81),
            IPv6Address("TCP", "::1", 81),
            IPv4Address("TCP", "10.0.0.1", 81),
        ]
        for deferred in asking:
            self.assertEqual(self.successResultOf(deferred), expected)
        self.assertTrue(self.resolver.is_left_alone())

    def test_no_thread_is_waited_for(self) -> None:
        """The process ends whether the resolver answers or not."""
        self.lookup.addresses()
        self.assertTrue(self.resolver.question().thread.daemon)

    def test_an_address_is_not_looked_up(self) -> None:
        for host, kind in (("127.0.0.1", IPv4Address), ("::1", IPv6Address)):
            addresses = self.successResultOf(Lookup(self.clock, host, 80).addresses())
            self.assertEqual(addresses, [kind("TCP", host, 80)])
        self.assertTrue(self.resolver.is_left_alone())

    def test_kept(self) -> None:
        """A fresh answer is used at once; it is renewed before its end, and nobody waits."""
        self.known("10.0.0.1")
        self.clock.advance(RENEW - 0.1)
        self.assertEqual(self.hosts(), ["10.0.0.1"])
        self.assertTrue(self.resolver.is_left_alone())
        self.clock.advance(0.2)
        self.assertEqual(self.hosts(), ["10.0.0.1"])
        self.assertEqual(self.hosts(), ["10.0.0.1"])
        self.answer(found("10.0.0.2"))
        self.assertEqual(self.hosts(), ["10.0.0.2"])
        self.assertTrue(self.resolver.is_left_alone())

    def test_at_its_end(self) -> None:
        """An answer that is not fresh is not used where the resolver says something else."""
        self.known("10.0.0.1")
        self.clock.advance(FRESH)
        asking = self.lookup.addresses()
        self.assertNoResult(asking)
        self.answer(found("10.0.0.2"))
        self.assertEqual(self.hosts(asking), ["10.0.0.2"])

    def test_its_age_counts_from_the_question(self) -> None:
        """What a slow resolver says is as old as the question, to be on the safe side."""
        asking = self.lookup.addresses()
        self.clock.advance(RENEW)
        self.answer(found("10.0.0.1"))
        self.assertEqual(self.hosts(asking), ["10.0.0.1"])
        self.assertEqual(self.hosts(), ["10.0.0.1"])
        self.resolver.question()  # the next one has been asked

    def test_while_the_resolver_is_silent(self) -> None:
        """
        The old answer is used after a moment for the first, and at once for all that come later,
        until it is too old.
        """
        self.known("10.0.0.1")
        self.clock.advance(FRESH)
        first = self.lookup.addresses()
        question = self.resolver.question()
        self.clock.advance(PATIENCE - 0.1)
        self.assertNoResult(first)
        self.clock.advance(0.2)
        self.assertEqual(self.hosts(first), ["10.0.0.1"])
        self.assertEqual(self.hosts(), ["10.0.0.1"])
        self.assertTrue(self.resolver.is_left_alone())
        self.clock.advance(STALE - self.clock.seconds() - 0.1)
        self.assertEqual(self.hosts(), ["10.0.0.1"])
        self.clock.advance(0.2)
        late = self.lookup.addresses()
        self.clock.advance(2 * PATIENCE)
        self.assertNoResult(late)
        question.answer(found("10.0.0.2"))
        self.clock.take()
        self.assertEqual(self.hosts(late), ["10.0.0.2"])

    def test_a_resolver_that_can_not_tell_now(self) -> None:
        """What it says after its own time-outs is silence too: the old answer is used at once."""
        self.known("10.0.0.1")
        for _ in range(3):
            self.clock.advance(FRESH)
            asking = self.lookup.addresses()
            self.answer(AGAIN)
            self.assertEqual(self.hosts(asking), ["10.0.0.1"])
            self.assertEqual(self.hosts(), ["10.0.0.1"])
            self.answer(AGAIN)

    def test_no_such_host(self) -> None:
        """That is an answer: the old one is gone, and whoever comes next asks anew."""
        self.known("10.0.0.1")
        self.clock.advance(FRESH)
        for _ in range(2):
            asking = [self.lookup.addresses() for _ in range(3)]
            self.answer(NONAME)
            for deferred in asking:
                failure = self.failureResultOf(deferred, DNSLookupError)
                self.assertEqual(failure.value.args, ("Name or service not known",))
        asking = [self.lookup.addresses()]
        self.answer(found("10.0.0.2"))
        self.assertEqual(self.hosts(asking[0]), ["10.0.0.2"])

    def test_nothing_known_and_no_answer(self) -> None:
        """Where there is nothing to go by, the resolver's words are the error's."""
        for error, words in (
            (AGAIN, "Temporary failure in name resolution"),
            (UnicodeError("label too long"), "label too long"),
            (OSError(24, "Too many open files"), "[Errno 24] Too many open files"),
        ):
            asking = self.lookup.addresses()
            self.answer(error)
            self.assertEqual(self.failureResultOf(asking, DNSLookupError).value.args, (words,))

    def test_no_thread_to_be_had(self) -> None:
        """It fails those POSTs alone, and the next ones ask again."""

        class Exhausted:
            def __init__(self, **_: object) -> None:
                """As a thread is made."""

            def start(self) -> None:
                raise RuntimeError("can't start new thread")

        self.patch(dalga_lookup, "Thread", Exhausted)
        asking = self.lookup.addresses()
        self.clock.advance(0)
        self.assertIn("thread", str(self.failureResultOf(asking, DNSLookupError).value))
        self.patch(dalga_lookup, "Thread", Thread)
        self.known("10.0.0.1")

    def test_connections_that_fail(self) -> None:
        """The host may have moved: the old answer counts only where the resolver is silent."""
        self.known("10.0.0.1")
        self.lookup.doubt()
        asking = self.lookup.addresses()
        self.assertNoResult(asking)
        self.answer(found("10.0.0.2"))
        self.assertEqual(self.hosts(asking), ["10.0.0.2"])
        self.assertEqual(self.hosts(), ["10.0.0.2"])
        self.lookup.doubt()
        asking = self.lookup.addresses()
        self.clock.advance(PATIENCE)
        self.assertEqual(self.hosts(asking), ["10.0.0.2"])

    def test_given_up(self) -> None:
        """Who waits no more is not told, also where another one's end is what ends the wait."""
        first, second, third = (self.lookup.addresses() for _ in range(3))
        first.cancel()
        self.failureResultOf(first)
        second.addCallback(lambda _: third.cancel())
        self.answer(found("10.0.0.1"))
        self.successResultOf(second)
        self.failureResultOf(third)

    def test_stuck(self) -> None:
        """
        A look-up that never ends does not end all: after a while there is another one, and in all
        no more than a few.
        """
        self.lookup.addresses()
        stuck = self.resolver.question()
        for _ in range(THREADS - 1):
            self.clock.advance(STUCK - 0.1)
            self.lookup.addresses()
            self.assertTrue(self.resolver.is_left_alone())
            self.clock.advance(0.2)
            self.lookup.addresses()
            last = self.resolver.question()
        self.clock.advance(2 * STUCK)
        waiting = self.lookup.addresses()
        self.assertTrue(self.resolver.is_left_alone())
        last.answer(found("10.0.0.1"))
        self.clock.take()
        self.assertEqual(self.hosts(waiting), ["10.0.0.1"])
        # What the first has to say by now is older: no answer of its own, and no error either.
        stuck.answer(found("10.0.0.9"))
        self.clock.take()
        self.lookup.doubt()
        asking = self.lookup.addresses()
        self.clock.advance(PATIENCE)
        self.assertEqual(self.hosts(asking), ["10.0.0.1"])

    def test_an_old_error(self) -> None:
        """What a look-up that was stuck ends with says nothing about the one that is out."""
        for error in (NONAME, AGAIN):
            self.lookup = Lookup(self.clock, "app.example", 80)
            waiting = self.lookup.addresses()
            stuck = self.resolver.question()
            self.clock.advance(STUCK)
            self.lookup.addresses()
            stuck.answer(error)
            self.clock.take()
            self.assertNoResult(waiting)
            self.answer(found("10.0.0.1"))
            self.assertEqual(self.hosts(waiting), ["10.0.0.1"])

    def test_a_resolver_that_answers_again(self) -> None:
        """A later POST waits for it, and does not use an old answer at once."""
        self.known("10.0.0.1")
        self.clock.advance(FRESH)
        asking = self.lookup.addresses()
        self.clock.advance(PATIENCE)
        self.assertEqual(self.hosts(asking), ["10.0.0.1"])
        self.answer(found("10.0.0.2"))
        self.clock.advance(FRESH)
        asking = self.lookup.addresses()
        self.assertNoResult(asking)
        self.answer(found("10.0.0.3"))
        self.assertEqual(self.hosts(asking), ["10.0.0.3"])

    def test_a_stop(self) -> None:
        """POSTs that wait are told; the look-up may end when it likes."""
        asking = [self.lookup.addresses() for _ in range(2)]
        self.lookup.give_up()
        for deferred in asking:
            self.assertIn("nothing was sent", str(self.failureResultOf(deferred, DNSLookupError)))
        self.answer(found("10.0.0.1"))

    def test_close(self) -> None:
        """No timer is left."""
        self.lookup.addresses()
        self.lookup.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PostTests(EndpointCase):
    """POSTs to a host whose look-up takes its time."""

    def setUp(self) -> None:
        self.resolver = Resolver()
        self.patch(dalga_lookup, "getaddrinfo", self.resolver)
        self.addCleanup(self.resolver.end)

    @inlineCallbacks
    def test_silent(self) -> Any:
        """P3: within the deadline, and the words say that nothing was sent."""
        endpoint = self.endpoint("http://app.example/", SHORT)
        outcomes = yield gatherResults([endpoint.post(a_run(timeout=SHORT)) for _ in range(100)])
        for outcome in outcomes:
            self.assertEqual(
                outcome.error,
                "could not resolve host name app.example within 0.2 s, nothing was sent",
            )
            self.assertTrue(outcome.elapsed < 10, outcome)
        self.resolver.question()
        self.assertTrue(self.resolver.is_left_alone())

    @inlineCallbacks
    def test_slow(self) -> Any:
        """A hundred POSTs wait for one look-up, and all arrive."""
        server = self.serve(says(OK))
        endpoint = self.endpoint("http://app.example/", slots=100)
        posted = [endpoint.post(a_run()) for _ in range(100)]
        question = yield deferToThread(self.resolver.question)
        self.assertEqual(server.connections, [])
        question.answer(found("127.0.0.1", port=server.port))
        outcomes = yield gatherResults(posted)
        self.assertEqual({outcome.status for outcome in outcomes}, {200})
        self.assertTrue(self.resolver.is_left_alone())

    @inlineCallbacks
    def test_a_connection_that_is_kept_needs_no_look_up(self) -> Any:
        """A silent resolver is in nobody's way who has a connection."""
        server = self.serve(says(OK))
        endpoint = self.endpoint("http://app.example/")
        posted = endpoint.post(a_run())
        question = yield deferToThread(self.resolver.question)
        question.answer(found("127.0.0.1", port=server.port))
        yield posted
        endpoint._route.lookup._since -= 2 * STALE
        outcome = yield endpoint.post(a_run())
        self.assertEqual(outcome.status, 200)
        self.assertEqual(len(server.connections), 1)
        self.assertTrue(self.resolver.is_left_alone())

    @inlineCallbacks
    def test_a_host_that_has_moved(self) -> Any:
        """Where no address takes a connection, the next attempt looks the host up again."""
        server = self.serve(says(OK))
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        endpoint = self.endpoint("http://app.example/")
        posted = endpoint.post(a_run())
        question = yield deferToThread(self.resolver.question)
        question.answer(found("127.0.0.1", port=port))
        outcome = yield posted
        self.assertIn("refused", outcome.error)
        posted = endpoint.post(a_run())
        question = yield deferToThread(self.resolver.question)
        question.answer(found("127.0.0.1", port=server.port))
        outcome = yield posted
        self.assertEqual(outcome.status, 200)

    @inlineCallbacks
    def test_the_threads_of_others_are_left_alone(self) -> Any:
        """The API reckons run times in the reactor's threads, and these are free."""
        endpoint = self.endpoint("http://app.example/", slots=100)
        posted = [endpoint.post(a_run()) for _ in range(2 * reactor.getThreadPool().max)]
        thread = yield deferToThread(current_thread)
        question = self.resolver.question()
        self.assertNotEqual(question.thread, thread)
        question.answer(NONAME)
        yield gatherResults(posted)


class DenyTests(EndpointCase):
    """``deny``: addresses that are not allowed are never connected to (P11)."""

    def answers(self, *answers: Any) -> list[str]:
        """Have the resolver give these answers, one after the other. Gives the names asked for."""
        left = list(answers)
        asked: list[str] = []

        def look_up(host: str, port: int, **_: object) -> Any:
            asked.append(host)
            return found(*left.pop(0), port=port)

        self.patch(dalga_lookup, "getaddrinfo", look_up)
        return asked

    def denying(self, url: str, allows: Any = is_public) -> Endpoint:
        endpoint = Endpoint(reactor, url, SHORT, "i", 10, Trust(), way=Way(allows=allows))
        self.addCleanup(endpoint.close)
        return endpoint

    async def test_none_left(self) -> None:
        """Nothing is connected to; the words do not tell what the addresses are."""
        server = self.serve(says(OK))
        self.answers(["127.0.0.1", "10.0.0.1", "::1", "fe80::1%lo"])
        endpoint = self.denying(f"http://app.dalga.test:{server.port}/")
        outcome = await endpoint.post(a_run())
        self.assertEqual(
            (outcome.status, outcome.kind, outcome.error),
            (
                None,
                ErrorKind.CONNECT,
                "app.dalga.test has no public address, and deny = private allows no other",
            ),
        )
        self.assertEqual(server.connections, [])

    async def test_names_that_are_addresses(self) -> None:
        """However the resolver of the system reads a number, what it gives is looked at."""
        server = self.serve(says(OK))
        for host in ("127.0.0.1", "2130706433", "0x7f000001", "127.1", "localhost", "[::1]"):
            outcome = await self.denying(f"http://{host}:{server.port}/").post(a_run())
            self.assertEqual(outcome.status, None, host)
            self.assertNotEqual(outcome.kind, ErrorKind.TIMEOUT, host)
        self.assertEqual(server.connections, [])

    async def test_one_left(self) -> None:
        """The others are left out, and what is left is connected to."""
        server = self.serve(says(OK))
        self.answers(["127.0.0.3", "127.0.0.1", "127.0.0.2"])
        endpoint = self.denying(
            f"http://app.dalga.test:{server.port}/", lambda address: address == "127.0.0.1"
        )
        tried: list[str] = []
        connect = reactor.connectTCP

        def note(host: str, *others: Any, **more: Any) -> Any:
            tried.append(host)
            return connect(host, *others, **more)

        self.patch(reactor, "connectTCP", note)
        outcome = await endpoint.post(a_run())
        self.assertEqual((outcome.status, tried), (200, ["127.0.0.1"]))

    async def test_a_resolver_that_changes_its_mind(self) -> None:
        """
        DNS rebinding: the second answer would lead elsewhere. Each connection goes to an address of
        the answer that was looked at, and nobody asks between the look and the connection.
        """
        server = self.serve(says(OK, close=True))  # so that each POST needs a connection
        asked = self.answers(["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1"])
        self.patch(dalga_lookup, "RENEW", 0.0)
        self.patch(dalga_lookup, "FRESH", 0.0)
        denied = [False]

        def allows(address: str) -> bool:
            denied[0] = denied[0] or address == "127.0.0.2"
            return address == "127.0.0.1"

        endpoint = self.denying(f"http://app.dalga.test:{server.port}/", allows)
        self.assertEqual((await endpoint.post(a_run())).status, 200)
        self.assertEqual((len(asked), denied), (1, [False]))
        outcome = await endpoint.post(a_run())
        self.assertEqual((outcome.status, len(asked), denied), (None, 2, [True]))
        self.assertIn("deny = private", outcome.error)
        # The old answer was not used in its place, and the next one is looked at anew.
        self.assertEqual((await endpoint.post(a_run())).status, 200)
        self.assertEqual((len(asked), len(server.requests)), (3, 2))
