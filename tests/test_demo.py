"""``make demo``, as a person sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.daemons import CHECKOUT, Daemon

HOST = "127.0.0.1"


class DemoTests(TestCase):
    timeout = 60

    async def test_ports_that_are_taken(self) -> None:
        """It takes others, says which, and shows the POSTs; Ctrl-C ends it."""
        from twisted.internet import reactor

        for port in (5000, 34006):
            with contextlib.suppress(OSError):  # somebody else has it
                taken = socket.create_server((HOST, port))
                self.addCleanup(taken.close)
        demo = Daemon()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DALGA_")}
        program = [sys.executable, str(CHECKOUT / "demo" / "demo.py")]
        reactor.spawnProcess(demo, sys.executable, program, environment)
        self.addCleanup(self.end, demo)
        endpoint = await demo.says(
            r"Port 5000 of 127.0.0.1 is taken: the example endpoint is on port (\d+)"
        )
        dalga = await demo.says(r"Port 34006 of 127.0.0.1 is taken: Dalga is on port (\d+)")
        self.assertEqual(len({"5000", "34006", endpoint[1], dalga[1]}), 4)
        await demo.says(rf"POSTs them to http://127.0.0.1:{endpoint[1]}/")
        await demo.says(rf"curl -i http://127.0.0.1:{dalga[1]}/status")
        await demo.says(r"POST /check_feed body='1234'")
        demo.send(signal.SIGINT)
        self.assertEqual(await demo.ended, 0, demo.output)

    def end(self, demo: Daemon) -> Deferred[int]:
        """It takes its daemon along."""
        demo.send(signal.SIGTERM)
        return demo.ended
