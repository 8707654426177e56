"""The numbers of workers, in memory that they share."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dalga.metrics import Counts, Metrics, Numbers
from dalga.sharing import FRESH, SIZE, SharedNumbers

SOME: Numbers = {"dalga_slots": {(): 3}, "dalga_claim_size": {(): Counts([1, 2], 0.5)}}
OTHERS: Numbers = {"dalga_runs_total": {("a", "b", "c"): 7}}


class SharedNumbersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.shared = SharedNumbers(3, self.clock.seconds)
        self.addCleanup(self.shared.close)

    def test_others(self) -> None:
        """A worker reads what the others have written, and not its own."""
        self.assertEqual(self.shared.read(1), {})
        self.shared.write(1, SOME)
        self.shared.write(2, OTHERS)
        self.assertEqual(self.shared.read(1), {2: OTHERS})
        self.assertEqual(self.shared.read(3), {1: SOME, 2: OTHERS})

    def test_less_than_before(self) -> None:
        """A new worker, in the place of one that has died, has less to show."""
        metrics = Metrics()
        for number in range(50):
            metrics.request(f"/{number}", "GET", 200, 0.1)
        self.shared.write(2, metrics.numbers())
        self.shared.write(2, OTHERS)
        self.assertEqual(self.shared.read(1), {2: OTHERS})

    def test_gone(self) -> None:
        """What nobody has written anew for a while is not shown."""
        self.shared.write(2, SOME)
        self.clock.advance(FRESH)
        self.assertEqual(self.shared.read(1), {2: SOME})
        self.clock.advance(0.1)
        self.assertEqual(self.shared.read(1), {})

    def test_half_written(self) -> None:
        """Whoever reads while a worker writes reads again, and leaves the worker out in the end."""
        self.shared.write(2, SOME)
        read, reads = os.pread, []

        def torn(descriptor: int, length: int, offset: int) -> bytes:
            reads.append(length)
            octets = read(descriptor, length, offset)
            return octets[:-1] + b"?" if len(reads) == 2 else octets

        self.patch(os, "pread", torn)
        self.assertEqual(self.shared.read(1), {2: SOME})
        self.patch(os, "pread", lambda *place: torn(*place)[:-1] + b"?")
        reads.clear()
        self.assertEqual(self.shared.read(1), {})

    def test_too_much(self) -> None:
        """What does not fit does not get into another's place."""
        self.shared.write(2, OTHERS)
        self.shared.write(1, {"dalga_runs_total": {("x" * SIZE,): 1}})
        self.assertEqual(self.shared.read(3), {2: OTHERS})

    def test_processes(self) -> None:
        """A child that is forked writes where its parent reads."""
        pid = os.fork()
        if not pid:
            try:
                self.shared.write(2, SOME)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        self.assertEqual(self.shared.read(1), {2: SOME})

    def test_without_memfd(self) -> None:
        """On other systems than Linux, a file without a name does."""
        self.patch(os, "memfd_create", lambda name: None)
        del os.memfd_create
        shared = SharedNumbers(2, self.clock.seconds)
        self.addCleanup(shared.close)
        shared.write(1, SOME)
        self.assertEqual(shared.read(2), {1: SOME})
