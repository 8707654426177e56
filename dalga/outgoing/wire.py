"""
One request under one deadline, on one connection.

    Exchange     a request, from when it is asked for until its answer, its failure or its deadline
    Connection   carries exchanges, one after the other: a request's bytes out, an answer's in

Two exchanges on one connection, with the times in milliseconds::

    0      no connection is idle        `await_connection`: exchange 1 waits for a connection
    1      the server has accepted      `send` and `carry`: the request of exchange 1 goes out
    9      the answer has come, whole   the connection is kept, and exchange 1 has its answer
    10     `Pool` takes the connection  `send` and `carry`: the request of exchange 2 goes out
    5,010  the deadline, after 5 s      exchange 2 fails, and the connection is dropped

What always holds (docs/promises.md lists the promises P1 to P11):

- An answer, a failure, the deadline or a cancellation ends an exchange, whichever is first. After
  that, nothing more of the exchange is sent or awaited (P3).
- A connection carries at most one exchange at a time. No bytes that belong to one exchange are
  taken for the answer to another (P2).

What becomes of the connection when an exchange ends:

    kept     the end of the answer is certain, the request was sent whole, and the server keeps the
             connection, too
    closed   the answer was read to its end, and the connection can't be used again
    dropped  in all other cases: there is no answer, or a part of the request was not sent, or a
             part of the answer was not read
"""

from __future__ import annotations

from contextlib import suppress
from select import POLLIN, poll
from typing import Any
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPullProducer,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from zope.interface import implementer

from dalga.outgoing import failures
from dalga.outgoing.answer import Answer, Reader, Then
from dalga.outgoing.deadlines import Deadlines
from dalga.outgoing.failures import BadAnswer, PostFailed, Server, Stage, Why

#: A connection that is closed in order is dropped after this many seconds, if the server has not
#: closed it by then: under TLS, the server's close_notify is awaited. A choice, not measured. A
#: server on the same continent answers in a tenth of a second.
CLOSING = 1.0

#: How much of a request's content the transport is given at a time (octets), where the socket has
#: not taken all of it at once. The transport copies what it is given. So a server that reads slowly
#: costs two pieces of memory beside the content itself, however large the content is (P10).
PIECE = 16 * 1024


class Exchange:
    """
    One request, and its answer or failure.

    :param octets: the request, as RFC 9112 section 2.1 has it.
    :param timeout: seconds from now to the deadline, for the connection and all of the answer.
    :param content: the rest of the request, which is sent behind `octets`. It is not copied, so
        large content goes here. Small requests are `octets` alone, which costs less.
    """

    __slots__ = (
        *("_connecting", "_connection", "_deadline", "_deadlines", "_reactor", "_server"),
        *("_timeout", "answer", "began", "content", "is_over", "octets", "stage"),
    )

    def __init__(
        self, reactor: Any, server: Server, octets: bytes, timeout: float, content: bytes = b""
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._timeout = timeout
        self._deadlines: Deadlines | None = None
        #: In the reactor's seconds; set by `start`.
        self._deadline = 0.0
        #: Fires with the connection; None when no connection is awaited.
        self._connecting: Deferred[Any] | None = None
        self._connection: Connection | None = None
        self.octets = octets
        self.content = content
        self.stage = Stage.NEW
        self.is_over = False
        #: When it began, in the reactor's seconds.
        self.began: float = reactor.seconds()
        #: Fires with an `Answer`, or fails with `PostFailed`, or with an unexpected exception.
        self.answer: Deferred[IResponse] = Deferred(self._cancelled)

    def start(self, deadlines: Deadlines) -> None:
        """Begin to count down to the deadline."""
        self._deadlines = deadlines
        self._deadline = deadlines.add(self, self._timeout, self.began)

    def await_connection(self, connecting: Deferred[Connection]) -> None:
        """:param connecting: is cancelled if the exchange ends before it fires."""
        self._connecting = connecting
        connecting.addCallbacks(self._connected, self._not_connected)
        # If a callback above raises by mistake, the exchange fails now. Else its run would hold its
        # slot (the room for one POST under way) until the deadline.
        connecting.addErrback(self._fail_or_pass_on, None)

    def send(self, connection: Connection) -> None:
        """Send the request as soon as the connection can, and await the answer."""
        self.stage = Stage.CONNECTED if connection.can_send else Stage.HANDSHAKE
        self._connection = connection
        connection.carry(self)

    def abandon(self) -> None:
        """End it, without firing `answer`."""
        self._end()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.drop()

    # What comes of it

    def answered(self, answer: Answer) -> None:
        """Called by the connection, which is done with the exchange."""
        self._end()
        self.answer.callback(answer)

    def lost(self, reason: Failure, begun: bool) -> None:
        """
        Called by the connection, which has ended before the answer has.

        :param begun: whether anything of the answer had come.
        """
        why: Why | None
        if self._may_have_sent:
            why = failures.broken_off(reason.value, str(self._server), begun)
        elif self.stage is Stage.HANDSHAKE:
            why = failures.not_agreed(reason.value, str(self._server))
        else:
            why = failures.CLOSED_BEFORE
        self._connection = None
        self._fail_or_pass_on(reason, why)

    def fail(self, why: Why) -> None:
        """End it without an answer."""
        if not self.is_over:
            self.abandon()
            self.answer.errback(Failure(PostFailed(why)))

    def _fail_or_pass_on(self, failure: Failure, why: Why | None) -> None:
        """:param why: there is no answer; None passes `failure` on, as it is unexpected."""
        if why is not None:
            self.fail(why)
        elif not self.is_over:
            self.abandon()
            self.answer.errback(failure)

    def _connected(self, connection: Connection) -> None:
        self._connecting = None
        if self.is_over:
            connection.drop()
        elif connection.closed.called:
            self.fail(failures.CLOSED_BEFORE)
        else:
            self.send(connection)

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        why = failures.not_connected(failure.value, self._server)
        self._fail_or_pass_on(failure, why)

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed. The timer may not have fired yet."""
        return bool(self._reactor.seconds() >= self._deadline)

    def too_late(self) -> None:
        """See `dalga.outgoing.deadlines.Bounded`."""
        if self._may_have_sent:
            self.fail(failures.no_answer(self._timeout))
        else:
            self.fail(failures.too_late(self.stage, self._server, self._timeout))

    def _cancelled(self, _: object) -> None:
        self.fail(failures.given_up(self._may_have_sent))

    @property
    def _may_have_sent(self) -> bool:
        """Whether the server may have got the request, or a part of it."""
        return self._connection is not None and self._connection.may_have_sent

    def _end(self) -> None:
        self.is_over = True
        if self._deadlines is not None:
            self._deadlines.remove(self, self._timeout)


class Keeper(Interface):
    """The owner of the connections, which keeps the idle ones. `Pool` is one."""

    def opened(self, connection: Connection) -> None:
        """A connection was made."""

    def keep(self, connection: Connection) -> None:
        """Keep it for another exchange."""

    def forget(self, connection: Connection) -> None:
        """Never use it for another exchange."""

    def lost(self, connection: Connection) -> None:
        """It is closed."""


@implementer(IHandshakeListener, IPullProducer)
class Connection(Protocol):
    """A connection to the endpoint."""

    transport: Any

    def __init__(self, reactor: Any, keeper: Keeper) -> None:
        self._reactor = reactor
        self._keeper = keeper
        self._reader = Reader()
        self._exchange: Exchange | None = None
        #: The transport of TCP, and its socket. Without TLS, `_tcp` is `transport`. Under TLS,
        #: `transport` encrypts, and writes to `_tcp`.
        self._tcp: Any = None
        self._socket: Any = None
        self._is_plain = True
        #: Tells whether the socket has something to read.
        self._poll = poll()
        #: Whether a part of the request was not sent yet.
        self._unsent = False
        #: The part of the request that the transport was not given yet.
        self._rest = memoryview(b"")
        #: Whether an answer is being passed on. The keeper, or the callbacks of the exchange's
        #: `answer`, may begin the next exchange at once.
        self._is_answering = False
        self._drop_timer: IDelayedCall | None = None
        #: Whether a request can be sent: under TLS, once the handshake is over.
        self.can_send = False
        #: Whether the server may have got the request that is carried, or a part of it.
        self.may_have_sent = False
        #: Fires when it is closed.
        self.closed: Deferred[None] = Deferred()

    @property
    def carries(self) -> bool:
        """Whether an exchange is under way on it."""
        return self._exchange is not None

    @property
    def is_quiet(self) -> bool:
        """
        Whether the socket has nothing to read: the server has neither sent anything nor closed the
        connection since the last answer. The reactor sees either only in its next turn.
        """
        return not self._poll.poll(0)

    def carry(self, exchange: Exchange) -> None:
        """Send an exchange's request as soon as that can be, and read its answer."""
        self._exchange = exchange
        self.may_have_sent = False
        self._reader.begin(exchange.octets.startswith(b"HEAD "))
        if self._is_answering and not self._is_plain:
            # TLS may have received more bytes together with the last answer. It calls
            # `dataReceived` with them in this turn of the reactor. If this request were sent now,
            # those bytes would be taken for its answer (P2). So it is sent in the next turn; bytes
            # that come before make it fail.
            self._reactor.callLater(0, self._send, exchange)
        elif self.can_send:
            self._send(exchange)

    def _send(self, exchange: Exchange) -> None:
        if self._exchange is not exchange:
            return  # the exchange has ended meanwhile
        # The deadline's timer is not enough. A process may be stopped (SIGSTOP) while it connects
        # or agrees on TLS. When the process goes on, the reactor calls its sockets before its
        # timers, and another instance may have the run by then (P3).
        if exchange.is_late:
            exchange.too_late()
            return
        self.may_have_sent = True
        octets = exchange.octets
        if exchange.content:
            self._send_parts(octets, exchange.content)
            return
        if self._is_plain:
            # The transport would send in the reactor's next turn, with calls of epoll_ctl before
            # and after. They cost 0.01 ms of CPU a POST. The transport's buffer is empty here, as a
            # connection is kept only if all of its last request has been sent. So these bytes
            # overtake no others.
            try:
                sent = self._socket.send(octets)
            except OSError:
                sent = 0  # the socket is full or broken: the transport waits, or learns why
            if sent == len(octets):
                return
            octets = octets[sent:]
        self._note_when_sent()
        self.transport.write(octets)

    def _send_parts(self, octets: bytes, content: bytes) -> None:
        """Send a request in two parts, as `_send` does a request in one."""
        sent = 0
        if self._is_plain:
            with suppress(OSError):
                sent = self._socket.sendmsg((octets, content))
            if sent == len(octets) + len(content):
                return
        self._rest = memoryview(content)[max(0, sent - len(octets)) :]
        self._note_when_sent()
        self.transport.write(octets[sent:] or self._next_piece())

    def _next_piece(self) -> bytes:
        """Take the next `PIECE` of `_rest`."""
        piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
        return bytes(piece)

    def close(self) -> None:
        """Close it in order. Drop it if the server has not closed it after `CLOSING` seconds."""
        self.transport.loseConnection()
        self._drop_timer = self._reactor.callLater(CLOSING, self.drop)

    def drop(self) -> None:
        """Reset it. Bytes that were not sent yet are never sent."""
        self._exchange = None
        self.transport.abortConnection()

    # Called by the transport

    def connectionMade(self) -> None:
        self._keeper.opened(self)
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        self._is_plain = self.can_send = not ISSLTransport.providedBy(transport)
        self._tcp = transport if self._is_plain else transport.transport
        self._socket = self._tcp.getHandle()
        self._poll.register(self._socket, POLLIN)

    def handshakeCompleted(self) -> None:
        """Called at the end of TLS's handshake."""
        self.can_send = True
        if self._exchange is not None:
            self._send(self._exchange)

    def _note_when_sent(self) -> None:
        """
        Have the transport call `resumeProducing` each time when all that was written has been sent.

        Under TLS, Twisted may hold `write`'s bytes back for one turn of the reactor, if they are at
        most 64,000. If TLS sends a message of its own in that turn, `resumeProducing` is called too
        early. TLS does so to reply to a KeyUpdate, or to refuse to renegotiate. If the socket then
        takes only a part of the request, and the server answers that part, the connection is kept,
        and the rest of the request is sent before the next request, in order.
        """
        self._tcp.registerProducer(self, False)
        self._unsent = True

    def resumeProducing(self) -> None:
        """
        Called by `registerProducer` at once, and by the transport when it has sent all that it was
        given.
        """
        exchange = self._exchange
        if self._rest and self._unsent:
            if exchange is not None and exchange.is_late:
                exchange.too_late()  # as in `_send`: the timer may be behind the sockets
            else:
                self.transport.write(self._next_piece())
        elif self._unsent:
            self._unsent = False
            self._tcp.unregisterProducer()

    def stopProducing(self) -> None:
        """The connection is lost."""

    def dataReceived(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # No request is under way: no later one may take these bytes for its answer (P2).
            self._keeper.forget(self)
            self.drop()
            return
        if not self.may_have_sent:
            exchange.fail(failures.SPOKE_BEFORE)
            return
        try:
            answer = self._reader.feed(data)
        except BadAnswer as error:
            exchange.fail(error.why)
            return
        if answer is None:
            return
        self._exchange = None
        self._is_answering = True
        if self._unsent or answer.then is Then.DROP:
            self.drop()  # and with it the unsent rest of the request, and the unread of the answer
        elif answer.then is Then.KEEP:
            self._keeper.keep(self)
        else:
            self.close()
        exchange.answered(answer)
        self._is_answering = False

    def _ended(self, exchange: Exchange, reason: Failure) -> None:
        """The connection is lost, and with it an exchange, unless its answer ends so."""
        try:
            answer = self._reader.end()
        except BadAnswer as error:
            exchange.fail(error.why)
            return
        if answer is None:
            exchange.lost(reason, self._reader.has_begun)
        else:
            exchange.answered(answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._drop_timer is not None and self._drop_timer.active():
            self._drop_timer.cancel()
        self._keeper.lost(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._ended(exchange, reason)
        self.closed.callback(None)
