"""A proxy that speaks MySQL's protocol, and answers statements by errors when it is told to."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

COM_QUERY = b"\x03"


def packet(number: int, content: bytes) -> bytes:
    """https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html"""
    return len(content).to_bytes(3, "little") + bytes([number]) + content


class ErringProxy:
    """
    A proxy on a port of its own, for connections without TLS.

    It logs clients in with the server, as all proxies do, so only statements get errors.
    """

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        self.target = TCP4ClientEndpoint(reactor, host, port)
        self.sides: set[_Side] = set()
        #: How many statements were answered by an error.
        self.errors = 0
        self._marker: bytes | None = None
        self._times = 0
        self._done = False
        self._error = b""
        factory = Factory.forProtocol(lambda: _Client(self))
        factory.noisy = False
        self._listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port: int = self._listening.getHost().port

    def say(
        self,
        number: int,
        words: str,
        marker: bytes = b"",
        state: str = "HY000",
        times: int = 1_000_000,
        done: bool = False,
    ) -> None:
        """
        Answer statements by an error from now on. What was done in their transaction is rolled
        back.

        :param marker: what they have in them.
        :param times: how many of them.
        :param done: whether they are done all the same: only for what is answered by an OK packet.
        """
        self._error = b"\xff" + number.to_bytes(2, "little") + f"#{state}{words}".encode()
        self._marker, self._times, self._done = marker, times, done

    def stop_saying(self) -> None:
        """Pass all on again."""
        self._marker = None

    def instead(self, statement: bytes) -> bytes | None:
        """What to send in a statement's place, its answer being the error; None for itself."""
        if self._marker is None or self._marker not in statement or not self._times:
            return None
        self._times -= 1
        self.errors += 1
        return statement if self._done else COM_QUERY + b"ROLLBACK"

    @property
    def error(self) -> bytes:
        return packet(1, self._error)

    async def close(self) -> None:
        """End all connections, and give the port up."""
        await self._listening.stopListening()
        lost = [side.lost for side in self.sides]
        for side in list(self.sides):
            side.transport.abortConnection()
        await DeferredList(lost)


class _Side(Protocol):
    transport: Any

    def __init__(self, proxy: ErringProxy) -> None:
        self.proxy = proxy
        self.peer: Any = None
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.proxy.sides.add(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.peer is not None:
            self.pass_on()

    def pass_on(self) -> None:
        """Pass on each packet that is there as a whole."""
        while len(self.received) >= 4:
            end = 4 + int.from_bytes(self.received[:3], "little")
            if len(self.received) < end:
                return
            number, content = self.received[3], self.received[4:end]
            self.received = self.received[end:]
            self.peer.transport.write(self.changed(number, content))

    @abstractmethod
    def changed(self, number: int, content: bytes) -> bytes:
        """A packet as it is passed on."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.proxy.sides.discard(self)
        if self.peer is not None:
            self.peer.transport.loseConnection()
        self.lost.callback(None)


class _Client(_Side):
    def connectionMade(self) -> None:
        super().connectionMade()
        factory = Factory.forProtocol(lambda: _Server(self.proxy))
        factory.noisy = False

        def joined(server: _Server) -> None:
            self.peer, server.peer = server, self
            self.pass_on()
            server.pass_on()

        connecting = self.proxy.target.connect(factory)
        connecting.addCallbacks(joined, lambda _: self.transport.abortConnection())

    def changed(self, number: int, content: bytes) -> bytes:
        instead = None
        if number == 0 and content.startswith(COM_QUERY):  # while one logs in, others come first
            instead = self.proxy.instead(content)
        if instead is None:
            return packet(number, content)
        self.peer.erring = True
        return packet(number, instead)


class _Server(_Side):
    #: Whether the next packet is the answer to something that gets an error.
    erring = False

    def changed(self, number: int, content: bytes) -> bytes:
        if not self.erring:
            return packet(number, content)
        self.erring = False
        return self.proxy.error
