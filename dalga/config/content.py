"""
What is in a file that the configuration names, read within bounds of octets and of time.

A pipe is taken as well as a file, as a shell has it for ``--config <(...)``. A named pipe that
nobody writes to would hold its reader up for ever: a start, a reload, and the stop after that.
"""

from __future__ import annotations

import errno
import os
import select
import stat

#: How long the next octets of a pipe are waited for, in seconds.
PATIENCE = 5


def content_of(path: str, most: int) -> bytes:
    """
    The first octets of a file, or all that comes through a pipe.

    :param most: how many are read, at most.
    :raises OSError: if it can't be read, or nothing comes for `PATIENCE` seconds.
    :raises ValueError: for a path with a NUL.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        content = b""
        while len(content) < most:
            if not ready.poll(PATIENCE * 1000):
                raise OSError(errno.ETIMEDOUT, f"nothing has come through it for {PATIENCE} s")
            octets = os.read(descriptor, most - len(content))
            if not octets:
                break
            content += octets
        return content
    finally:
        os.close(descriptor)


def file_content(path: str, most: int) -> bytes:
    """
    The first octets of a file, and of nothing else: other programs' code reads the file again.

    :param most: how many are read, at most.
    :raises OSError: if it can't be read, or is no file.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code) if stat.S_ISDIR(mode) else "it is no file")
    return content_of(path, most)
