"""
The numbers of workers, in memory that all workers of a daemon share.

All workers answer at one address, and a scrape of it comes to any of them. Were that worker to show
its own numbers only, a counter would jump from one worker's number to another's. So each worker
writes its numbers into the memory once a second, and the one that is asked shows those of all::

    worker 1   writes ──▶ ┌──────────┐
    worker 2   writes ──▶ │  memory  │ ──▶ worker 2 reads, as a scrape has come to it
    worker 3   writes ──▶ └──────────┘

The memory is made before the workers are, and has a place of `SIZE` octets for each. What always
holds: a worker writes at its own place only, and whoever reads while it writes finds that out by a
checksum, and reads again.
"""

from __future__ import annotations

import os
import pickle  # nosec B403  # see loads, below
import struct
import tempfile
from collections.abc import Callable
from zlib import crc32

from dalga.metrics import Numbers

#: The place of a worker, in octets. Memory is taken for what is written only: some 20 KiB.
SIZE = 1 << 24

#: What is older than this (seconds) is not shown: the worker is gone, or hangs.
FRESH = 10.0

#: How often a place is read whose worker writes at that moment.
ATTEMPTS = 3

#: Length and checksum of what follows, and when it was written, in steady seconds.
_HEAD = struct.Struct("<IId")


class SharedNumbers:
    """
    The memory.

    :param places: how many workers there are.
    :param seconds: a steady clock, the same in all processes.
    """

    def __init__(self, places: int, seconds: Callable[[], float]) -> None:
        self._places = places
        self._seconds = seconds
        self._descriptor = _memory()

    def write(self, place: int, numbers: Numbers) -> None:
        """
        Show the numbers of a worker to all workers.

        :param place: of the worker, from 1 on.
        """
        data = pickle.dumps(numbers)
        octets = _HEAD.pack(len(data), crc32(data), self._seconds()) + data
        if len(octets) <= SIZE:
            os.pwrite(self._descriptor, octets, SIZE * (place - 1))

    def read(self, own: int) -> dict[int, Numbers]:
        """
        The numbers of all other workers that have written lately, by their places.

        :param own: the place of the worker that reads.
        """
        found = {}
        for place in range(1, self._places + 1):
            numbers = None if place == own else self._read(place)
            if numbers is not None:
                found[place] = numbers
        return found

    def close(self) -> None:
        """Let go of the memory."""
        os.close(self._descriptor)

    def _read(self, place: int) -> Numbers | None:
        for _ in range(ATTEMPTS):
            head = os.pread(self._descriptor, _HEAD.size, SIZE * (place - 1))
            if len(head) < _HEAD.size:
                return None  # nobody has written there
            length, checksum, written = _HEAD.unpack(head)
            if not length or self._seconds() - written > FRESH:
                return None
            data = os.pread(self._descriptor, length, SIZE * (place - 1) + _HEAD.size)
            if crc32(data) == checksum:
                # The memory has no name: only the supervisor and its workers can write there.
                numbers: Numbers = pickle.loads(data)  # nosec B301
                return numbers
        return None


def _memory() -> int:
    """The descriptor of memory that children of this process have, too."""
    try:
        return os.memfd_create("dalga-metrics")
    except (AttributeError, OSError):  # not Linux
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
