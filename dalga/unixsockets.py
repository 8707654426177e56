"""
Listening sockets at a path of the file system.

A daemon that is killed leaves the file of its socket behind. Such a file is replaced: nobody
accepts connections there. A file at which a process listens, and a file that is no socket, are
left, and the start is refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IProtocolFactory

from dalga.errors import StartupError


class UnixPort(unix.Port):
    """
    Accepts connections on a socket that is open.

    Twisted's own, handed such a socket, would change the file's permissions, and remove the file
    when it closes: also in one of several workers.
    """

    def __init__(self, listener: socket.socket, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(_name(listener), factory, reactor=reactor)
        self._listener = listener
        self._door = factory
        # Twisted shuts a socket down that it closes: other workers listen on it still.
        self._shouldShutdown = False

    def startListening(self) -> None:
        """Accept connections from now on."""
        self._door.doStart()
        self.socket = self._listener.dup()
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any) -> None:
        """Called when the port is closed."""
        tcp.Port.connectionLost(self, reason)


def _name(listener: socket.socket) -> bytes:
    name = listener.getsockname()
    return name if isinstance(name, bytes) else os.fsencode(name)


def listen_on_path(path: str, mode: int, backlog: int, key: str) -> socket.socket:
    """
    Open a listening socket at a path.

    :param mode: the file's permissions.
    :param backlog: how many connections the kernel makes before anybody accepts them.
    :param key: where the path stands, for sentences.
    :raises StartupError: if another process listens there, or the file can't be made.
    """
    opened = socket.socket(socket.AF_UNIX)
    try:
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Two daemons that start at once both find the file of a dead one.
            fcntl.flock(folder, fcntl.LOCK_EX)
            _clear(path)
            before = os.umask(0o777 & ~mode)
            try:
                opened.bind(path)
            finally:
                os.umask(before)
            os.chmod(path, mode)
            opened.listen(backlog)
        finally:
            os.close(folder)
    except OSError as error:
        opened.close()
        reason = error.strerror or str(error)
        raise StartupError(
            f"can't listen on unix:{path}: {reason}; choose another path with {key}"
        ) from error
    return opened


def _clear(path: str) -> None:
    """
    Remove the file of a socket that nobody listens on.

    :raises OSError: if there is a file that can't be removed.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "there is a file of this name that is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            why = f"whether it is in use can't be told: {error.strerror}"
            raise OSError(error.errno, why) from error
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def identity(path: str) -> tuple[int, int]:
    """Which file there is at a path."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def remove(path: str, file: tuple[int, int]) -> None:
    """
    Remove the file of a socket, unless another file has its place.

    :param file: its `identity`.
    """
    with suppress(OSError):
        if identity(path) == file:
            os.unlink(path)
