"""
A TCP connection to a database server. The look-up of the server's name has a time limit, too.

A look-up (getaddrinfo(3)) can't be broken off, and takes a minute or more if resolvers are silent.
So each look-up is made in a daemon thread of its own. A stop would wait for any other thread, as a
process ends only after its threads. If a name is being looked up already, a connection waits for
that look-up.

`outgoing/lookup.py` looks up the endpoint's host by rules of its own. A POST there waits for a
Deferred in the reactor's thread, and may use an old answer. Here a database thread waits, and
no answer is kept, so that a failover that moves the name is seen by the next connection.
"""

from __future__ import annotations

import socket
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

#: After this many seconds without an answer a look-up counts as stuck, and the next connection
#: begins another one. So a name has at most one thread for each `STUCK` seconds of a look-up.
STUCK = 30.0


class _LookUp:
    """One look-up, and its result."""

    def __init__(self, host: str, port: int) -> None:
        #: In seconds of `monotonic`.
        self.began = monotonic()
        self.ended = Event()
        #: The addresses, as getaddrinfo gives them; or the error that it raised.
        self.found: list[tuple[Any, ...]] | Exception = []
        Thread(target=self._run, args=(host, port), name=f"look up {host}", daemon=True).start()

    def _run(self, host: str, port: int) -> None:
        try:
            self.found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as error:  # OSError, or UnicodeError for a text that is no name
            self.found = error
        self.ended.set()


class Dialer:
    """Makes connections. May be called in several threads at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: dict[tuple[str, int], _LookUp] = {}

    def dial(self, host: str, port: int, timeout: float) -> socket.socket:
        """
        Connect. Blocks.

        :param timeout: the limit (seconds) for the look-up, and then for each of the addresses.
        :raises OSError: if there is no connection in time.
        :raises UnicodeError: if `host` is no name.
        """
        addresses = self._addresses(host, port, timeout)
        while True:
            family, kind, protocol, _, address = addresses.pop(0)
            try:
                return _connected(socket.socket(family, kind, protocol), address, timeout)
            except OSError:  # socket(2) raises it, too, on a machine without IPv6
                if not addresses:
                    raise

    def _addresses(self, host: str, port: int, timeout: float) -> list[tuple[Any, ...]]:
        try:
            numeric = socket.AI_NUMERICHOST  # no resolver has to be asked for an IP address
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=numeric))
        except (OSError, UnicodeError):
            pass
        look_up = self._look_up(host, port)
        if not look_up.ended.wait(timeout):
            raise TimeoutError(f"its name was not resolved within {timeout:g} s")
        with self._lock:
            if self._under_way.get((host, port)) is look_up:
                del self._under_way[host, port]
        if isinstance(look_up.found, Exception):
            raise look_up.found
        return list(look_up.found)

    def _look_up(self, host: str, port: int) -> _LookUp:
        """The look-up that is under way; a new one if there is none, or if it is stuck."""
        with self._lock:
            under_way = self._under_way.get((host, port))
            if under_way is None or monotonic() - under_way.began > STUCK:
                try:
                    under_way = self._under_way[host, port] = _LookUp(host, port)
                except RuntimeError as error:  # the system has no more threads
                    raise OSError(f"its name was not looked up: {error}") from error
            return under_way


def _connected(connection: socket.socket, address: Any, timeout: float) -> socket.socket:
    """
    :param timeout: in seconds.
    :raises OSError: if there is no connection in time; the socket is closed then.
    """
    try:
        connection.settimeout(timeout)
        connection.connect(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except BaseException:
        connection.close()
        raise
    return connection
