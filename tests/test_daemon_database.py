"""The daemon, and a database that can't be used for a while."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.daemons import DaemonTestCase, Hit
from tests.erring import ErringProxy
from tests.stores import each_engine, server


@each_engine(globals(), only=("mariadb", "mysql"))
class ErringTests(DaemonTestCase):
    """A proxy before the server, which has errors of its own."""

    def setUp(self) -> None:
        super().setUp()
        host = server(self.engine)
        self.proxy = ErringProxy(self.reactor, host.host, host.port)
        self.addCleanup(self.proxy.close)

    async def test_no_server_is_left(self) -> None:
        """P2: for clients it is a 503; what was done meanwhile is recorded later, not repeated."""
        daemon, url = await self.start(mysql={"port": self.proxy.port, "ssl-mode": "disabled"})
        go_on: Deferred[None] = Deferred()

        def answer(hit: Hit) -> Any:
            waiting: Deferred[int] = Deferred()
            go_on.addCallback(lambda _: waiting.callback(200))
            return waiting

        self.endpoint.answer = answer
        keys = [f"{url}/jobs/job/{number}" for number in range(20)]
        for key in keys:
            await self.put(f"{key}?one-off=true&immediate=true")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 20)
        self.proxy.say(9001, "Max connect timeout reached while reaching hostgroup 0")
        go_on.callback(None)
        for method in ("PUT", "GET", "POST", "DELETE"):
            query = "?interval=60" if method == "PUT" else ""
            status, text = await self.call(method, f"{url}/jobs/other/job{query}")
            self.assertEqual(status, 503, text)
            self.assertIn("Max connect timeout reached", text)
        await self.pause(1.5)
        self.proxy.stop_saying()
        await daemon.says("the database is back")
        for key in keys:
            await self.until_gone(key)
        self.assertEqual(len(self.endpoint.hits), 20)
        self.assertNotIn("Traceback", daemon.output)
        self.assertEqual(daemon.output.count("waiting for it to come back"), 1)

    async def test_a_column_is_missing(self) -> None:
        """A mistake is seen once, with its traceback, however many runs it meets."""
        daemon, url = await self.start(mysql={"port": self.proxy.port, "ssl-mode": "disabled"})
        self.proxy.say(1054, "Unknown column 'successes'", b"next_scheduled", "42S22")
        for number in range(5):
            await self.put(f"{url}/jobs/job/{number}?interval=60&immediate=true")
        for _ in range(2):
            await daemon.says("can't be recorded, and are left to their leases")
            await self.put(f"{url}/jobs/once/more?one-off=true&immediate=true")
            await self.until_gone(f"{url}/jobs/once/more")
            await self.put(f"{url}/jobs/job/more?interval=60&immediate=true")
        await self.endpoint.until(lambda: len(self.endpoint.hits) >= 8)
        self.assertEqual(daemon.output.count("Traceback (most recent call last)"), 1)
