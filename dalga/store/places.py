"""
How many sessions the daemon has with its database server, the sessions that it has given up among
them.

If the answer to a statement does not come in time, the daemon gives the connection up. The session
on the server goes on: it waits for a lock, a disk or a replica, and notices only at the end of that
wait that nobody listens. If the daemon opened a new connection beside each such session, it would
fill the server, until the server refused everybody.

So a session has a *place*, and keeps it until the session is over, given up or not. The number of
places is limited. To see when a session that was given up is over, the daemon keeps its socket, and
shuts the socket down for sending (shutdown(2)): the server closes the other half when the session
ends.

If there is no place left, the daemon asks the server for a list of its sessions, and has it end
(KILL) those that were given up. A KILL closes the socket at once, while the session may go on for
long, such as one that waits for room on a full disk. So from then on only the list tells whether
the session is over.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

import pymysql
from pymysql.constants import CR

from dalga.store.clock import steady_seconds

#: If there is no place, a new connection waits this long (seconds) for the end of a session that
#: was given up. A session that the server was told to end is over in milliseconds.
PATIENCE = 1.0

#: Seconds from one question to the next which of the given-up sessions the server still has.
LOOK_PAUSE = 1.0

#: After the server was told to end sessions, it is asked after each of these pauses (seconds) which
#: of them it still has.
ENDING = (0.01, 0.03, 0.1, 0.3)

#: If there is no spare place, a session that was given up is counted no longer than this (seconds).
#: By then the server has ended each session that it can end by itself (`dalga.store.session`).
FORGOTTEN = 70.0

#: In seconds (tcp(7)): the idle time before the first probe of a peer that may be dead, and between
#: two probes; and the time after which a peer that acknowledges nothing is taken for dead.
_PROBE, _GIVE_UP = 5, 20

#: Idle time (seconds) until the first probe of a connection in use. The probes keep a firewall or a
#: NAT from forgetting the connection, so that the next statement does not run into its time-out.
#: Firewalls and NATs forget after 5 minutes of silence, or later.
_KEPT = 60


class Session:
    """
    A session on the server, and a second file descriptor of its connection's socket.

    :param connection: a connection of PyMySQL's that was just made.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        # PyMySQL closes its own descriptor as soon as an answer is late.
        self._socket = socket.socket(fileno=os.dup(connection._sock.fileno()))
        #: The server knows the session by this id. The port is compared, too: ids begin anew when a
        #: server starts, and there may be several servers behind an address.
        self.id = int(connection.thread_id())
        name = self._socket.getsockname()
        self.port = str(name[1]) if isinstance(name, tuple) else ""
        #: When it was given up, in steady seconds; None for one in use.
        self.left_at: float | None = None
        #: Whether the server was told to end it: its socket tells nothing any more.
        self.was_killed = False
        with suppress(OSError):
            self._set(TCP_KEEPIDLE=_KEPT, TCP_KEEPINTVL=_PROBE)

    def leave(self, now: float) -> None:
        """
        Give the session up: send no more, and keep the socket only to see the session's end.

        :param now: in steady seconds.
        """
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
        """Set options of TCP that the system has. A local socket has none."""
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
        """Close the socket. The connection itself is closed by its owner."""
        self._socket.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # the socket was not made
            self.forget()


class Places:
    """
    Opens connections as long as there are places for their sessions. Called in database threads.

    :param most: how many sessions there may be at once: the number of places.
    :param spare: whether there is one more place, for a session that asks the server which of the
        given-up sessions it still has.
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
        Open a connection.

        :param make: makes a connection, and gives its session.
        :raises pymysql.OperationalError: if there is no place.
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
        """Close a connection that nobody uses yet, and count its session until it is over."""
        with suppress(Exception):
            session.connection.close()
        with self._lock:
            self._sessions[id(session.connection)] = session
            session.leave(self._seconds())

    def left(self, connection: Any) -> None:
        """Called when a connection was closed. Its session is counted until it is over."""
        with self._lock:
            if session := self._sessions.get(id(connection)):
                session.leave(self._seconds())

    def _enter(self) -> bool:
        """
        Take a place, or the spare place. Waits up to `PATIENCE`.

        :return: whether the place is the spare place.
        :raises pymysql.OperationalError: if there is no place.
        """
        ends = self._seconds() + PATIENCE
        while True:
            with self._lock:
                self._sweep()
                if self._has_room():
                    self._entering += 1
                    return False
                left = [each for each in self._sessions.values() if each.left_at is not None]
                silent = [each for each in left if not each.was_killed]
                now = self._seconds()
                if now >= ends or not silent:
                    if self._may_look(now):
                        self._looking = True
                        return True
                    if now >= ends or not left:
                        raise self._full()
                poll = select.poll()
                for session in silent:
                    poll.register(session, select.POLLIN)
                until = ends if silent else min(ends, max(self._next_look, now + ENDING[0]))
            poll.poll((until - now) * 1000)

    def _has_room(self) -> bool:
        """Whether there is a place. Called under the lock."""
        return self._entering + len(self._sessions) < self._most

    def _sweep(self) -> None:
        """Free the places of sessions that are over. Called under the lock."""
        now = self._seconds()
        for key, session in list(self._sessions.items()):
            if not session.connection.open:
                session.leave(now)
            if session.left_at is None:
                continue
            forgotten = not self._spare and now - session.left_at >= FORGOTTEN
            if forgotten or (not session.was_killed and session.is_over()):
                session.forget()
                del self._sessions[key]

    def _may_look(self, now: float) -> bool:
        """
        Whether the spare place is free, and was not used within `LOOK_PAUSE`. Called under the
        lock.

        If a session in the spare place was given up, as no answer came, it keeps that place.
        """
        spare_is_free = not self._looking and self._entering + len(self._sessions) == self._most
        return self._spare and spare_is_free and now >= self._next_look

    def _settle(self, session: Session, looks: bool) -> None:
        """
        Count a session as one in use.

        :param looks: whether the session is in the spare place, where it may not stay.
        :raises pymysql.OperationalError: if it may not stay, and there is no other place.
        """
        with self._lock:
            if not looks or self._has_room():
                self._sessions[id(session.connection)] = session
                return
        self.end(session)
        raise self._full()

    def _end_left(self, looker: Session) -> None:
        """
        Have the server end the given-up sessions that it has, and forget those that it has not.

        :param looker: the session that asks. It is given up, too, if no answer comes.
        """
        try:
            for pause in (*ENDING, 0.0):
                there = self._forget_ended(looker)
                if not there:
                    break
                for session in there:
                    if not session.was_killed:
                        session.was_killed = True
                        with suppress(pymysql.MySQLError):  # it may be over by now
                            looker.connection.cursor().execute(f"KILL {session.id}")
                time.sleep(pause)
        except BaseException:
            self.end(looker)
            raise

    def _forget_ended(self, looker: Session) -> list[Session]:
        """
        Forget the given-up sessions that the server does not have: they are on no server that new
        connections come to.

        :param looker: the session that asks the server.
        :return: the given-up sessions that the server has.
        """
        with self._lock:
            left = [each for each in self._sessions.values() if each.left_at is not None]
        cursor = looker.connection.cursor()
        cursor.execute("SHOW PROCESSLIST")
        # A local socket has no port: MySQL says "localhost" then, MariaDB "localhost:".
        there = {(int(id_), host.partition(":")[2]) for id_, _, host, *_ in cursor.fetchall()}
        for session in left:
            if (session.id, session.port) not in there:
                with self._lock:
                    session.forget()
                    # Another thread may have seen meanwhile that the session is over.
                    self._sessions.pop(id(session.connection), None)
        return [session for session in left if (session.id, session.port) in there]

    def _full(self) -> pymysql.MySQLError:
        return pymysql.OperationalError(
            CR.CR_CONNECTION_ERROR,
            f"{self._most} sessions are in use there or were given up without an answer and have "
            "not ended yet, and maxOpenConns allows no more",
        )
