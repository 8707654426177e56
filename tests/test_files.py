"""How many files there are for whom."""

from __future__ import annotations

import resource
from typing import Any

from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dalga.files import clients_of, files_to_ask_for, room_for_clients
from tests.fakes import noting

ANY = resource.RLIM_INFINITY


class FilesTests(SynchronousTestCase):
    """P10: clients and POSTs leave each other some of the files."""

    def limit(self, files: int, most: int, error: Exception | None = None) -> None:
        """Stand in for the process's limits."""
        self.limits = (files, most)

        def setrlimit(_: int, limits: tuple[int, int]) -> None:
            if error is not None:
                raise error
            self.limits = limits

        self.patch(resource, "getrlimit", lambda _: self.limits)
        self.patch(resource, "setrlimit", setrlimit)

    def warned(self, slots: int) -> tuple[int, list[str]]:
        """The room for clients, and what the log warns of."""
        events: list[Any] = []
        globalLogPublisher.addObserver(noting(events))
        try:
            room = room_for_clients(slots)
        finally:
            globalLogPublisher.removeObserver(noting(events))
        return room, [formatEvent(e) for e in events if e["log_level"] is LogLevel.warn]

    def test_files_and_clients(self) -> None:
        """For each soft and hard limit and number of slots: what is asked for, who gets it."""
        for files, most, slots, asked, clients in (
            (1024, 1_048_576, 100, 20_200, 20_000),
            (1024, 1_048_576, 10_000, 30_100, 20_000),
            (50_000, 1_048_576, 100, 50_000, 20_000),
            (1024, ANY, 100, 20_200, 20_000),
            (ANY, ANY, 10_000, ANY, 20_000),
            (1024, 4096, 100, 4096, 3896),
            (1024, 1024, 100, 1024, 824),
            (1024, 1024, 668, 1024, 256),
            (1024, 1024, 10_000, 1024, 256),
            (256, 256, 100, 256, 64),
            (64, 64, 1, 64, 16),
            (3, 3, 1, 3, 1),
        ):
            case = (files, most, slots)
            self.assertEqual(files_to_ask_for(*case), asked, case)
            self.assertEqual(clients_of(asked, slots), clients, case)
            self.limit(files, most)
            self.assertEqual(self.warned(slots)[0], clients, case)
            self.assertEqual(self.limits, (asked, most), case)

    def test_several_endpoints(self) -> None:
        """Each may keep as many idle connections as there are slots. These are for POSTs, too."""
        for files, asked, clients in ((1024, 20_400, 20_000), (4096, 4096, 3696)):
            most = 1_048_576 if asked > files else files
            self.limit(files, most)
            self.assertEqual(room_for_clients(100, endpoints=3), clients)
            self.assertEqual(self.limits, (asked, most))

    def test_too_few(self) -> None:
        """What does not fit is said, with what to raise; with that, all fits."""
        self.limit(1024, 1024)
        self.assertEqual(self.warned(668), (256, []))
        for slots, needed in ((669, 1025), (10_000, 13_466)):
            self.limit(1024, 1024)
            _, [warning] = self.warned(slots)
            for part in ("1024 open files", "668 POSTs", f"= {slots}:", f"allow {needed} (Limit"):
                self.assertIn(part, warning)
            self.limit(needed, needed)
            self.assertEqual(self.warned(slots)[1], [])
            self.limit(needed - 2, needed - 2)
            self.assertEqual(len(self.warned(slots)[1]), 1)
        self.limit(64, 64)
        self.assertIn("enough for 0 POSTs", self.warned(1)[1][0])

    def test_the_limit_stays(self) -> None:
        """Where no more are allowed after all, there is room for as many as there were."""
        for error in (ValueError("current limit exceeds maximum limit"), OSError(22, "Invalid")):
            self.limit(1024, ANY, error)
            self.assertEqual(self.warned(100), (824, []))
            self.assertEqual(self.limits, (1024, ANY))
