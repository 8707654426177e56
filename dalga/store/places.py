"""
How many sessions the daemon has with its database server, those included that it has given up.

A statement's answer that does not come in time is given up here, and its connection with it. The
session on the server goes on: it waits for a lock, a disk or a replica, and notices only at the end
of that wait that nobody listens. A daemon that opened new connections beside such sessions would
fill the server, until the server refused everybody. So a session that was given up keeps its place
until it is over. The daemon sees that by the socket, which it shuts down for sending (shutdown(2))
and keeps: the server closes the other half when the session ends.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

import pymysql
from pymysql.constants import CR

from dalga.store.clock import steady_seconds

#: Seconds that a new connection waits for the end of a session that was given up: one that the
#: server is told to end is over in milliseconds.
PATIENCE = 1.0

#: Seconds between two looks at what the server has of the sessions that were given up.
LOOK_PAUSE = 1.0

#: Seconds after which a session that was given up is no longer counted where there is no place to
#: look from. By then the server has ended what it can end by itself (see `dalga.store.session`).
FORGOTTEN = 70.0

#: In seconds (tcp(7)): the idle time before the first probe of a peer that may be dead, and between
#: two probes; and the time after which a peer that acknowledges nothing is taken for dead.
_PROBE, _GIVE_UP = 5, 20

#: Idle time until the first probe of a connection in use, in seconds. It keeps a firewall or a NAT
#: on the way from forgetting the connection, which the next statement would find out by its
#: time-out: the shortest that are usual forget after 5 minutes.
_KEPT = 60


class Session:
    """
    A session on the server, and a socket of its own for its connection.

    :param connection: PyMySQL's, just made.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        # PyMySQL closes its own as soon as an answer is late.
        self._socket = socket.socket(fileno=os.dup(connection._sock.fileno()))
        #: The server knows the session by this id. The port is compared, too: ids begin anew when a
        #: server starts, and there may be several servers behind an address.
        self.id = int(connection.thread_id())
        name = self._socket.getsockname()
        self.port = str(name[1]) if isinstance(name, tuple) else ""
        #: When it was given up, in steady seconds; None for one in use.
        self.left_at: float | None = None
        with suppress(OSError):
            self._set(TCP_KEEPIDLE=_KEPT, TCP_KEEPINTVL=_PROBE)

    def leave(self, now: float) -> None:
        """Send no more, and keep the socket only to see the session's end."""
        if self.left_at is None:
            self.left_at = now
            with suppress(OSError):
                self._set(
                    TCP_KEEPIDLE=_PROBE,
                    TCP_KEEPCNT=_GIVE_UP // _PROBE - 1,
                    TCP_USER_TIMEOUT=_GIVE_UP * 1000,
                )
                self._socket.shutdown(socket.SHUT_WR)

    def _set(self, **options: int) -> None:
        """Set options of TCP, as far as the system has them and it is no local socket."""
        for name, value in options.items():
            if self.port and (option := getattr(socket, name, None)):
                self._socket.setsockopt(socket.IPPROTO_TCP, option, value)

    def is_over(self) -> bool:
        """Whether a session that was given up has ended, or its server is dead."""
        try:
            while self._socket.recv(65536, socket.MSG_DONTWAIT):
                pass  # an answer that came too late
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def fileno(self) -> int:
        return self._socket.fileno()

    def forget(self) -> None:
        """Close the socket; the connection itself is the owner's to close."""
        self._socket.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # it was not made
            self.forget()


class Places:
    """
    Opens connections as long as there is a place for their sessions. Called in database threads.

    :param most: how many sessions there may be at once.
    :param spare: whether there is one place more, from which to look for the sessions that were
        given up.
    :param seconds: a steady clock.
    """

    def __init__(
        self, most: int, spare: bool, seconds: Callable[[], float] = steady_seconds
    ) -> None:
        self._most = most
        self._spare = spare
        self._seconds = seconds
        self._lock = Lock()
        self._sessions: dict[int, Session] = {}
        #: Connections that are being made.
        self._entering = 0
        self._looking = False
        self._next_look = 0.0

    @property
    def most(self) -> int:
        """How many sessions there may be at once."""
        return self._most

    def open(self, make: Callable[[], Session]) -> Any:
        """
        A new connection.

        :param make: makes it, and gives its session.
        :raises pymysql.OperationalError: if there is no place for it.
        """
        looks = self._enter()
        try:
            session = make()
            if looks:
                self._end_left(session)
            self._settle(session, looks)
            return session.connection
        finally:
            with self._lock:
                if looks:
                    self._looking = False
                    self._next_look = self._seconds() + LOOK_PAUSE
                else:
                    self._entering -= 1

    def end(self, session: Session) -> None:
        """Close a connection that was not given out, and count its session until it is over."""
        with suppress(Exception):
            session.connection.close()
        with self._lock:
            self._sessions[id(session.connection)] = session
            session.leave(self._seconds())

    def left(self, connection: Any) -> None:
        """A connection was closed; its session is counted until it is over."""
        with self._lock:
            if session := self._sessions.get(id(connection)):
                session.leave(self._seconds())

    def _enter(self) -> bool:
        """
        Take a place, or the spare place. Waits up to `PATIENCE`.

        :return: whether it is the spare place.

        :raises pymysql.OperationalError: if there is none.
        """
        ends = self._seconds() + PATIENCE
        while True:
            with self._lock:
                self._sweep()
                if self._has_room():
                    self._entering += 1
                    return False
                left = [each for each in self._sessions.values() if each.left_at is not None]
                now = self._seconds()
                if now >= ends or not left:
                    if not self._may_look(now):
                        raise self._full()
                    self._looking = True
                    return True
                poll = select.poll()
                for session in left:
                    poll.register(session, select.POLLIN)
            poll.poll((ends - now) * 1000)

    def _has_room(self) -> bool:
        """Called under the lock."""
        return self._entering + len(self._sessions) < self._most

    def _sweep(self) -> None:
        """Free the places of sessions that are over: called under the lock."""
        now = self._seconds()
        for key, session in list(self._sessions.items()):
            if not session.connection.open:
                session.leave(now)
            if session.left_at is None:
                continue
            forgotten = not self._spare and now - session.left_at >= FORGOTTEN
            if forgotten or session.is_over():
                session.forget()
                del self._sessions[key]

    def _may_look(self, now: float) -> bool:
        """
        Whether the spare place is free, and not used a moment ago: called under the lock.

        A session that looked, and was given up because no answer came, keeps the spare place.
        """
        spare_is_free = not self._looking and self._entering + len(self._sessions) == self._most
        return self._spare and spare_is_free and now >= self._next_look

    def _settle(self, session: Session, looks: bool) -> None:
        """
        Count a session as one in use.

        :param looks: whether it is in the spare place, and may not stay there.
        :raises pymysql.OperationalError: if it may not, and there is no other place.
        """
        with self._lock:
            if not looks or self._has_room():
                self._sessions[id(session.connection)] = session
                return
        self.end(session)
        raise self._full()

    def _end_left(self, looker: Session) -> None:
        """
        Ask the server which of the sessions that were given up it has, and have it end them. Those
        that it does not have are on no server that new connections come to: forget them.

        :param looker: is given up, too, where the server's answer does not come.
        """
        with self._lock:
            left = [each for each in self._sessions.values() if each.left_at is not None]
        try:
            cursor = looker.connection.cursor()
            cursor.execute("SHOW PROCESSLIST")
            # A local socket has no port: MySQL says "localhost" then, MariaDB "localhost:".
            there = {(int(id_), host.partition(":")[2]) for id_, _, host, *_ in cursor.fetchall()}
        except BaseException:
            self.end(looker)
            raise
        for session in left:
            if (session.id, session.port) in there:
                with suppress(pymysql.MySQLError):  # it may be over by now
                    looker.connection.cursor().execute(f"KILL {session.id}")
            else:
                with self._lock:
                    session.forget()
                    # Another thread may have seen meanwhile that the session is over.
                    self._sessions.pop(id(session.connection), None)

    def _full(self) -> pymysql.MySQLError:
        return pymysql.OperationalError(
            CR.CR_CONNECTION_ERROR,
            f"{self._most} sessions are in use there or were given up without an answer and have "
            "not ended yet, and maxOpenConns allows no more",
        )
