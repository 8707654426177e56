"""
Processes that this one makes by fork(2), and the ways between it and them.

A child goes on with all that its parent has in memory, open or set: the configuration, listening
sockets, the user, the root directory. It gets a reactor of its own, as it would share the parent's
epoll(7) instance. Three ways lead from one to the other:

    a pipe          the child's lines of the log; the parent writes them where they belong
    a socket        words of one byte each
    its end         tells each side that the other has died, whatever it died of
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import installReactor
from twisted.python.failure import Failure
from zope.interface import implementer

#: From one look into the pipe of lines to the next, in seconds: at thousands of lines a second,
#: each look would find a few otherwise.
LINES_PAUSE = 0.01

#: The size of a pipe of lines, in bytes; 64 KiB where the system allows no more. A child that finds
#: its pipe full waits until there is room.
PIPE = 1 << 18

#: Signals that a parent takes, and a child does not: a terminal that closes, and the log's
#: rotation. Commands such as pkill(1) send them to all.
_PARENTS = (signal.SIGHUP, signal.SIGUSR1)
#: Signals that have in a child what they have in a new process, until it takes them itself.
_AS_NEW = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR2)


@implementer(IReadDescriptor)
class Way:
    """
    One side of the socket between a parent and a child.

    :param end: is closed with it.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._reactor: Any = None
        self._heard: Callable[[bytes], object] = lambda data: None

    def listen(self, reactor: Any, heard: Callable[[bytes], object]) -> None:
        """
        Hear from now on.

        :param heard: is called with each byte that the other side has sent; with none, and for the
            last time, if the other side is gone.
        """
        self._reactor, self._heard = reactor, heard
        reactor.addReader(self)

    def say(self, word: bytes) -> None:
        """Send a byte; if the other side is gone, they are gone, too."""
        with suppress(OSError):
            self._end.send(word)

    def close(self) -> None:
        """Hear no more."""
        if self._reactor is not None:
            self._reactor.removeReader(self)
        self._end.close()

    def forget(self) -> None:
        """Close it, in a process that it is not meant for, and whose reactor does not know it."""
        self._end.close()

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return self._end.fileno()

    def doRead(self) -> None:
        """Called by the reactor when there is something to read."""
        try:
            data = self._end.recv(64)
        except BlockingIOError:
            return
        except OSError:  # the other side has died with something unread
            data = b""
        if not data:
            self._reactor.removeReader(self)
            self._heard(data)
        for number in data:
            self._heard(bytes([number]))

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor when it stops."""

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "way"


@implementer(IReadDescriptor)
class Lines:
    """
    The parent's end of the pipe with a child's lines of the log.

    :param take: is called with whole lines.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._reactor: Any = None
        self._take: Callable[[str], object] = lambda text: None
        #: The beginning of a line whose end has not come yet.
        self._begun = b""
        self._open = True

    def listen(self, reactor: Any, take: Callable[[str], object]) -> None:
        """Call `take` from now on."""
        self._reactor, self._take = reactor, take
        reactor.addReader(self)

    def finish(self) -> None:
        """The child is gone: take what it has left, and close the pipe."""
        while self._read():
            pass
        if self._begun:
            self._pass_on(self._begun + b"\n")
            self._begun = b""
        if self._open:
            self._open = False
            if self._reactor is not None:
                self._reactor.removeReader(self)
            os.close(self._descriptor)

    def forget(self) -> None:
        """Close it, in a process that it is not meant for, and whose reactor does not know it."""
        os.close(self._descriptor)

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return self._descriptor

    def doRead(self) -> None:
        """Called by the reactor when there is something to read."""
        self._reactor.removeReader(self)
        if self._read():
            self._reactor.callLater(LINES_PAUSE, self._look_again)

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor when it stops."""

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "lines"

    def _look_again(self) -> None:
        if self._open:
            self._reactor.addReader(self)

    def _read(self) -> bool:
        """Read once; gives whether there was anything."""
        try:
            data = os.read(self._descriptor, PIPE) if self._open else b""
        except BlockingIOError:
            data = b""
        whole, end, rest = data.rpartition(b"\n")
        if end:
            self._pass_on(self._begun + whole + end)
            self._begun = rest
        else:
            self._begun += rest
        return bool(data)

    def _pass_on(self, lines: bytes) -> None:
        self._take(lines.decode(errors="backslashreplace"))


class Child:
    """A child, as its parent sees it."""

    def __init__(self, pid: int, way: Way, lines: Lines) -> None:
        self.pid = pid
        self.way = way
        self.lines = lines
        self._status: int | None = None

    def status(self) -> int | None:
        """
        The child's exit status, minus a signal's number if one ended it; None while it runs. The
        child is a zombie until this was asked.
        """
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def signal(self, number: signal.Signals) -> None:
        """Send the child a signal, unless it is known to have ended."""
        if self._status is None:
            os.kill(self.pid, number)


class Parent:
    """The parent, as its child sees it."""

    def __init__(self, way: Way, lines: int) -> None:
        self.way = way
        self._lines = lines

    def write(self, text: str) -> None:
        """Have the parent write whole lines to the log. Waits while the pipe is full."""
        data = memoryview(text.encode(errors="backslashreplace"))
        while data:
            data = data[os.write(self._lines, data) :]


def fork(reactor: Any, siblings: Iterable[Child], run: Callable[[Any, Parent], int]) -> Child:
    """
    Make a child.

    To be called in a process that has one thread, and no connection that is in the middle of
    something.

    :param reactor: this process's.
    :param siblings: the other children that there are. A child that kept their ends would keep
        them from seeing the end of this process.
    :param run: all that the child does. It is called with a reactor of the child's, which does not
        run yet, and gives the child's exit status.
    :raises OSError: if the system has no more processes or files.
    """
    ours, theirs = map(Way, socket.socketpair())
    try:
        reading, writing = os.pipe()
    except OSError:
        ours.forget()
        theirs.forget()
        raise
    with suppress(AttributeError, OSError):  # not Linux; or this user may have no such pipe
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
    lines = Lines(reading)
    sys.stdout.flush()
    sys.stderr.flush()
    # The parent's handlers must not see a signal that is meant for the child.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if not pid:
            _be_child(reactor, [*siblings], ours, lines, mask, run, Parent(theirs, writing))
    except OSError:
        ours.forget()
        lines.forget()
        raise
    finally:
        theirs.forget()
        os.close(writing)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Child(pid, ours, lines)


def _be_child(
    reactor: Any,
    siblings: list[Child],
    ours: Way,
    lines: Lines,
    mask: set[int | signal.Signals],
    run: Callable[[Any, Parent], int],
    parent: Parent,
) -> None:
    """Never returns: the callers of `fork` are the parent's."""
    status = 1
    try:
        for sibling in siblings:
            sibling.way.forget()
            sibling.lines.forget()
        ours.forget()
        lines.forget()
        for number in _PARENTS:
            signal.signal(number, signal.SIG_IGN)
        for number in _AS_NEW:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = run(_renew(reactor), parent)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _renew(reactor: Any) -> Any:
    """
    Install a new reactor of the same kind, in the place of one that is the parent's.
    """
    # One that runs on asyncio takes the present loop, which is the parent's.
    if "asyncio" in type(reactor).__module__:
        import asyncio

        asyncio.set_event_loop(asyncio.new_event_loop())
    del sys.modules["twisted.internet.reactor"]
    new = type(reactor)()
    installReactor(new)
    return new
