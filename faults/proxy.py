"""
A TCP proxy that cuts, refuses, stalls, delays, loses replies and answers by errors when it is told
to.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

#: How many connections may wait to be accepted.
BACKLOG = 4096

#: How much one direction of a connection holds back, in bytes, before no more of it is read.
MOST_HELD = 1024 * 1024

#: How a statement begins, after its length: the first packet of an exchange, and COM_QUERY.
QUERY = b"\x00\x03"
ROLLBACK = b"\x09\x00\x00" + QUERY + b"ROLLBACK"
#: How long a packet's header is: a length of three bytes, and a number.
HEADER = 4


class Listener:
    """
    A listening TCP socket on 127.0.0.1, which can refuse connections for a while.

    It keeps its port meanwhile: a port that was given up might be taken by somebody's connection.

    :param factory: whose protocols get the connections.
    """

    def __init__(self, reactor: Any, factory: Any) -> None:
        # The kernel keeps a port through `refuse` only for who has named it.
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
            self._port = reactor.listenTCP(self.port, factory, BACKLOG, "127.0.0.1")
        self.refuses = False

    def refuse(self) -> None:
        """Refuse new connections; those that wait to be accepted are reset."""
        if not self.refuses:
            self.refuses = True
            self._port.stopReading()
            # On Linux this undoes listen(2), but not bind(2).
            self._port.socket.shutdown(socket.SHUT_RD)

    def accept(self) -> None:
        """Accept new connections again."""
        if self.refuses:
            self.refuses = False
            self._port.socket.listen(BACKLOG)
            self._port.startReading()

    def stop(self) -> Deferred[None]:
        """Give the port up. Fires when that is done; a second time at once."""
        return maybeDeferred(self._port.stopListening)


class Proxy:
    """
    A TCP proxy on a port of its own.

    It must accept a connection before it can make one itself: where there is nobody to pass it on
    to, its client sees a connection that is reset at once, not one that is refused.

    :param host: where to, as an IPv4 address or a name.
    """

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        self.reactor = reactor
        self.target = TCP4ClientEndpoint(reactor, host, port)
        self.pairs: set[_Pair] = set()
        self.stalled = False
        #: Seconds by which what is received now is passed on later.
        self.lag = 0.0
        #: Of which requests the reply is dropped, and of how many yet.
        self.marker = b""
        self.drops_left = 0
        #: What is answered to which statements instead of passing them on, and to one in how many.
        self.error = b""
        self.refused_marker = b""
        self.refuses_one_in = 1
        #: How many were answered so.
        self.refused = 0
        self._matching = 0
        self._listener: Listener | None = None
        self._faults: list[tuple[str, float, float]] = []
        self._since: dict[str, float] = {}

    def listen(self) -> None:
        """Begin, on a free port."""
        factory = Factory.forProtocol(lambda: _Pair(self).client)
        factory.noisy = False
        self._listener = Listener(self.reactor, factory)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listening.port

    @property
    def connections(self) -> int:
        """How many are open, as its clients see it."""
        return sum(not pair.client.gone for pair in self.pairs)

    @property
    def faults(self) -> list[tuple[str, float, float]]:
        """
        What was done, from when and until when (`time.time`); what goes on lasts until now.

        The names are those of the methods, and of a delay its seconds too: "delay 0.5".
        """
        now = time.time()
        return [*self._faults, *((what, since, now) for what, since in self._since.items())]

    def cut(self) -> None:
        """Reset all connections. New ones go through."""
        now = time.time()
        for pair in list(self.pairs):
            pair.abort()
        self.note("cut", now)

    def refuse(self) -> None:
        """Refuse new connections. Those that are open stay."""
        self._listening.refuse()
        self._goes_on("refuse", True)

    def accept(self) -> None:
        """Accept connections again, on the same port."""
        self._listening.accept()
        self._goes_on("refuse", False)

    def stall(self, on: bool) -> None:
        """
        Pass nothing on any more, and read nothing, not even that a connection was closed; or go on.

        New connections are accepted, and nothing comes of them until this ends.
        """
        self.stalled = on
        self._goes_on("stall", on)
        for pair in list(self.pairs):
            pair.go_on()

    def mute(self) -> None:
        """
        Pass nothing on any more on the connections that there are, as a middlebox does that has
        forgotten them: neither side sees that. New ones go through.
        """
        now = time.time()
        for pair in list(self.pairs):
            pair.muted = True
            pair.go_on()
        self.note("mute", now)

    def delay(self, seconds: float) -> None:
        """
        From now on pass on what is received so much later, and that a connection was closed too.

        What is under way keeps its time, and nothing overtakes it. 0 ends it.
        """
        self._goes_on(f"delay {self.lag:g}", False)
        self.lag = seconds
        self._goes_on(f"delay {seconds:g}", seconds > 0)

    def drop_reply(self, after: bytes, count: int = 1) -> None:
        """
        Lose the reply to what a client sends: pass it on, wait until the server has answered, and
        reset the connection instead of passing the answer on.

        Under TLS nothing can be found, and PyMySQL takes to TLS where a server offers it, as MySQL
        does unless it is started with ``--tls-version=``.

        :param after: what the client's data has in it, in one read, such as ``b"\\x03COMMIT"``.
        :param count: how many times; those of an earlier call that are left over don't count.
        """
        self.marker = after
        self.drops_left = count

    def answer_error(
        self, code: int, state: str, words: str, marker: bytes = b"", one_in: int = 1
    ) -> None:
        """
        From now on answer statements of MySQL's protocol by an error, as a proxy does that finds no
        server, or a server that has rolled a transaction back: it is rolled back indeed, and the
        statement does not get there. Connections stay. `answer_no_error` ends it.

        As with `drop_reply`, there must be no TLS.

        :param state: the SQLSTATE, five characters.
        :param marker: what a statement has to have in it; by default each has.
        :param one_in: of how many of those one is answered so.
        """
        payload = b"\xff" + code.to_bytes(2, "little") + f"#{state}{words}".encode()
        # The second packet of its exchange.
        self.error = len(payload).to_bytes(3, "little") + b"\x01" + payload
        self.refused_marker, self.refuses_one_in = marker, one_in
        self._goes_on(f"error {code}", True)

    def answer_no_error(self) -> None:
        """Pass all statements on again."""
        self.error = b""
        for what in list(self._since):
            if what.startswith("error"):
                self._goes_on(what, False)

    def refuses_statement(self, data: bytes) -> bool:
        """Whether this is a statement that is to be answered by an error."""
        if not self.error or data[HEADER - 1 : HEADER + 1] != QUERY:
            return False
        if self.refused_marker not in data:
            return False
        self._matching += 1
        if self._matching % self.refuses_one_in:
            return False
        self.refused += 1
        return True

    async def close(self) -> None:
        """End it. Returns when all connections and the port are closed."""
        if self._listener is not None:
            await self._listener.stop()
        for what in list(self._since):
            self._goes_on(what, False)
        sides = [side for pair in self.pairs for side in (pair.client, pair.server)]
        for pair in list(self.pairs):
            pair.abort()
        await DeferredList([side.lost for side in sides if side.transport is not None])

    def note(self, what: str, since: float) -> None:
        """A fault that is over now."""
        self._faults.append((what, since, time.time()))

    def _goes_on(self, what: str, on: bool) -> None:
        if on:
            self._since.setdefault(what, time.time())
        elif what in self._since:
            self.note(what, self._since.pop(what))

    @property
    def _listening(self) -> Listener:
        if self._listener is None:
            raise RuntimeError("the proxy does not listen yet")
        return self._listener


class _Pair:
    """A client's connection, and the one to the server that is made for it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client = _Side(self)
        self.server = _Side(self)
        self.client.peer, self.server.peer = self.server, self.client
        self.aborted = False
        #: Whether nothing is passed on any more, to the end.
        self.muted = False
        self._connecting: Deferred[Any] | None = None
        #: When the request was passed on whose reply is to be dropped; None where there was none.
        self._dropping: float | None = None
        #: What the server's next answer is replaced by, and how many bytes of the statement that it
        #: is for are still to come.
        self._error = b""
        self._rest = 0

    @property
    def joined(self) -> bool:
        """Whether there is somebody at the other end."""
        return self.server.transport is not None

    def go_on(self) -> None:
        """Do what has become possible: connect, pass on, read."""
        if self._connecting is None and not self.proxy.stalled and not self.aborted:
            factory = Factory.forProtocol(lambda: self.server)
            factory.noisy = False
            self._connecting = self.proxy.target.connect(factory)
            self._connecting.addErrback(lambda _: self.abort())
        self.client.pass_on()
        self.server.pass_on()

    def to_server(self, data: bytes) -> bytes:
        """What the server gets in the place of this."""
        if self._rest:
            # The answer is there already, so the client's next statement may come right behind it.
            rest, data = data[: self._rest], data[self._rest :]
            self._rest -= len(rest)
        if self.proxy.refuses_statement(data):
            self._error = self.proxy.error
            self._rest = HEADER + int.from_bytes(data[:3], "little") - len(data)
            return ROLLBACK
        return data

    def to_client(self, data: bytes) -> bytes:
        """What the client gets in the place of this."""
        error, self._error = self._error, b""
        return error or data

    def sent(self, data: bytes) -> None:
        """This has been passed on to the server."""
        if self.proxy.drops_left and self._dropping is None and self.proxy.marker in data:
            self.proxy.drops_left -= 1
            self._dropping = time.time()

    def drops_it(self) -> bool:
        """Whether what the server says now is lost; if so, it was the last thing that it said."""
        if self._dropping is None:
            return False
        if not self.aborted:
            self.proxy.note("drop_reply", self._dropping)
            self.abort()
        return True

    def abort(self) -> None:
        """Reset both connections."""
        if self.aborted:
            return
        self.aborted = True
        if self._connecting is not None:
            self._connecting.cancel()
        for side in (self.client, self.server):
            side.abort()

    def over(self) -> None:
        """Called when a connection is closed."""
        if self.client.gone and (self.server.gone or not self.joined):
            self.abort()  # what is left: timers, and the connecting
            self.proxy.pairs.discard(self)


@implementer(IPushProducer)
class _Side(Protocol):
    """One of the two connections of a pair, and what was received on it and not passed on yet."""

    transport: Any

    def __init__(self, pair: _Pair) -> None:
        self.peer: _Side
        self.gone = False
        #: Fires when it is closed.
        self.lost: Deferred[None] = Deferred()
        self._pair = pair
        self._proxy = pair.proxy
        #: What was received, and from when on it may be passed on, after what stands before it; a
        #: Failure is how the connection ended.
        self._held: deque[tuple[float, bytes | Failure]] = deque()
        self._bytes_held = 0
        self._timer: Any = None
        #: Whether the other side takes no more for now.
        self._full = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._proxy.pairs.add(self._pair)
        if self._pair.joined:
            self.transport.registerProducer(self.peer, True)
            self.peer.transport.registerProducer(self, True)
        self._pair.go_on()

    def dataReceived(self, data: bytes) -> None:
        self._bytes_held += len(data)
        self._receive(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        self._receive(reason)
        self._pair.over()
        self.lost.callback(None)

    def abort(self) -> None:
        """Reset it, if it is open, and pass nothing on any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport is not None and not self.gone:
            self.transport.abortConnection()

    def pass_on(self) -> None:
        """Pass on what is due, and come back for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._held and self._goes() and self._held[0][0] <= self._proxy.reactor.seconds():
            self._give(self._held.popleft()[1])
        if self._held and self._goes():
            rest = max(0.0, self._held[0][0] - self._proxy.reactor.seconds())
            self._timer = self._proxy.reactor.callLater(rest, self._at_its_time)
        self._read_or_not()

    # As the producer of what the other side sends

    def pauseProducing(self) -> None:
        self._full = True
        self._read_or_not()

    def resumeProducing(self) -> None:
        self._full = False
        self._read_or_not()

    def stopProducing(self) -> None:
        """The other side is closed, which it passes on by itself."""

    # Within

    def _goes(self) -> bool:
        stalled = self._proxy.stalled or self._pair.muted
        return self._pair.joined and not stalled and not self._pair.aborted

    def _receive(self, what: bytes | Failure) -> None:
        if self is self._pair.server and self._pair.drops_it():
            return
        self._held.append((self._proxy.reactor.seconds() + self._proxy.lag, what))
        self.pass_on()

    def _at_its_time(self) -> None:
        self._timer = None
        self.pass_on()

    def _give(self, what: bytes | Failure) -> None:
        transport = self.peer.transport
        if isinstance(what, bytes):
            self._bytes_held -= len(what)
            if self is self._pair.client:
                transport.write(self._pair.to_server(what))
                self._pair.sent(what)
            else:
                transport.write(self._pair.to_client(what))
        elif what.check(ConnectionDone):
            # One that is registered and paused would have the last resume, and no close after it.
            transport.unregisterProducer()
            transport.loseConnection()
        else:
            transport.abortConnection()

    def _read_or_not(self) -> None:
        if self.transport is None or self.gone or self._pair.aborted:
            return
        if self._goes() and not self._full and self._bytes_held < MOST_HELD:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()
