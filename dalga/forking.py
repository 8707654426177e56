"""
Child processes that this process makes by fork(2), and what connects them to their parent.

A child goes on with all that its parent has in memory, open or set: the configuration, listening
sockets, the user, the root directory. The child gets a reactor of its own: the parent's epoll(7)
instance would be shared. Two things connect a child to its parent::

    a `LogPipe`    from the child: the lines of its log, which the parent writes where they belong
    a `Channel`    both ways: messages of one byte each

The kernel closes both when a process dies, whatever it dies of. So each side learns by the
channel's end of file that the other side is gone.
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

#: Time from one reading of a log pipe to the next, in seconds. Without a pause each reading would
#: find only a few of the thousands of lines a second.
LOG_PAUSE = 0.01

#: The size of a log pipe, in bytes; 64 KiB where the system allows no more. A child that finds its
#: pipe full waits until there is room.
PIPE_SIZE = 1 << 18

#: Signals that a child ignores, as they are for the parent: a terminal was closed, the
#: configuration is to be read again, the log is to be rotated. Commands such as pkill(1) send them
#: to all processes.
_IGNORED = (signal.SIGHUP, signal.SIGUSR1)
#: Signals that do in a child what they do in a new process, until the child takes them itself.
_DEFAULT = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR2)


@implementer(IReadDescriptor)
class Channel:
    """
    One side of the connection between a parent and a child.

    :param end: the socket of this side. The channel closes it.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._reactor: Any = None
        self._received: Callable[[bytes], object] = lambda data: None

    def start_reading(self, reactor: Any, received: Callable[[bytes], object]) -> None:
        """
        Read what the other side sends, from now on.

        :param received: called with each message, a byte. When the other side is gone, it is called
            once more, with no byte.
        """
        self._reactor, self._received = reactor, received
        reactor.addReader(self)

    def send(self, message: bytes) -> None:
        """Send a byte. A byte to a side that is gone is lost."""
        with suppress(OSError):
            self._socket.send(message)

    def close(self) -> None:
        """Read no more, and close the socket."""
        if self._reactor is not None:
            self._reactor.removeReader(self)
        self._socket.close()

    def close_copy(self) -> None:
        """Close this process's copy only. Its reactor is another process's."""
        self._socket.close()

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Called by the reactor when there is something to read."""
        try:
            data = self._socket.recv(64)
        except BlockingIOError:
            return
        except OSError:  # the other side has died with something unread
            data = b""
        if not data:
            self._reactor.removeReader(self)
            self._received(data)
        for number in data:
            self._received(bytes([number]))

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor when it stops."""

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "channel"


@implementer(IReadDescriptor)
class LogPipe:
    """
    The parent's end of the pipe through which a child sends the lines of its log.

    :param descriptor: the end of the pipe. The object closes it.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._reactor: Any = None
        self._write: Callable[[str], object] = lambda lines: None
        #: The beginning of a line whose end has not come yet.
        self._begun = b""
        self._open = True

    def start_reading(self, reactor: Any, write: Callable[[str], object]) -> None:
        """
        Pass lines on, from now on.

        :param write: called with whole lines.
        """
        self._reactor, self._write = reactor, write
        reactor.addReader(self)

    def finish(self) -> None:
        """The child is gone: pass on what the pipe still has, and close the pipe."""
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

    def close_copy(self) -> None:
        """Close this process's copy only. Its reactor is another process's."""
        os.close(self._descriptor)

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return self._descriptor

    def doRead(self) -> None:
        """Called by the reactor when there is something to read."""
        self._reactor.removeReader(self)
        if self._read():
            self._reactor.callLater(LOG_PAUSE, self._look_again)

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor when it stops."""

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "log pipe"

    def _look_again(self) -> None:
        if self._open:
            self._reactor.addReader(self)

    def _read(self) -> bool:
        """
        Read once.

        :return: whether there was anything to read.
        """
        try:
            data = os.read(self._descriptor, PIPE_SIZE) if self._open else b""
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
        self._write(lines.decode(errors="backslashreplace"))


class Child:
    """A child, as its parent sees it."""

    def __init__(self, pid: int, channel: Channel, log_pipe: LogPipe) -> None:
        self.pid = pid
        self.channel = channel
        self.log_pipe = log_pipe
        self._status: int | None = None

    def status(self) -> int | None:
        """
        The child's exit status; if a signal ended the child, minus the number of that signal; None
        while the child runs. A child that has ended is a zombie until somebody asks.
        """
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def signal(self, number: signal.Signals) -> None:
        """Send the child a signal, unless `status` has found that the child has ended."""
        if self._status is None:
            os.kill(self.pid, number)


class Parent:
    """
    The parent, as its child sees it.

    :param log_pipe: the descriptor of the child's end of the pipe.
    """

    def __init__(self, channel: Channel, log_pipe: int) -> None:
        self.channel = channel
        self._log_pipe = log_pipe

    def write(self, text: str) -> None:
        """Have the parent write whole lines to the log. Waits while the pipe is full."""
        data = memoryview(text.encode(errors="backslashreplace"))
        while data:
            data = data[os.write(self._log_pipe, data) :]


def fork(reactor: Any, siblings: Iterable[Child], run: Callable[[Any, Parent], int]) -> Child:
    """
    Make a child.

    The calling process must have one thread only, and no connection in the middle of an exchange.

    :param reactor: the reactor of the calling process.
    :param siblings: the other children of the calling process. The new child closes its copies of
        their channels and log pipes. Otherwise the siblings would not notice the parent's death.
    :param run: all that the child does. Called in the child, with a reactor of the child's own that
        does not run yet. Returns the child's exit status.
    :raises OSError: if the system has no more processes or files.
    """
    ours, theirs = map(Channel, socket.socketpair())
    try:
        reading, writing = os.pipe()
    except OSError:
        ours.close_copy()
        theirs.close_copy()
        raise
    with suppress(AttributeError, OSError):  # not Linux; or this user may have no such pipe
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    log_pipe = LogPipe(reading)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the disk is full, or nobody reads any more
            stream.flush()
    # The parent's handlers must not see a signal that is meant for the child.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if not pid:
            _be_child(reactor, [*siblings], ours, log_pipe, mask, run, Parent(theirs, writing))
    except OSError:
        ours.close_copy()
        log_pipe.close_copy()
        raise
    finally:
        theirs.close_copy()
        os.close(writing)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Child(pid, ours, log_pipe)


def _be_child(
    reactor: Any,
    siblings: list[Child],
    ours: Channel,
    log_pipe: LogPipe,
    mask: set[int | signal.Signals],
    run: Callable[[Any, Parent], int],
    parent: Parent,
) -> None:
    """Never returns: the callers of `fork` are the parent's."""
    status = 1
    try:
        for sibling in siblings:
            sibling.channel.close_copy()
            sibling.log_pipe.close_copy()
        ours.close_copy()
        log_pipe.close_copy()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        for number in _DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = run(_new_reactor(reactor), parent)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _new_reactor(reactor: Any) -> Any:
    """
    Install a new reactor, in the place of the parent's.

    :param reactor: the parent's. The new reactor is of the same class.
    """
    # A reactor on asyncio takes the present event loop, which is the parent's.
    if "asyncio" in type(reactor).__module__:
        import asyncio

        asyncio.set_event_loop(asyncio.new_event_loop())
    del sys.modules["twisted.internet.reactor"]
    new = type(reactor)()
    installReactor(new)
    return new
