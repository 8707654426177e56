"""What a start says while it waits for the database."""

from __future__ import annotations

import os
import re
import socket

from tests.daemons import DaemonTestCase
from tests.stores import each_engine

#: What a start says that waits for a database.
WAITS = r"(?m)^dalga: the start waits for (.*), which has not answered for 2 s$"


@each_engine(globals(), only=("sqlite",))
class SlowStartTests(DaemonTestCase):
    async def test_a_silent_server(self) -> None:
        """
        A server that takes connections and says nothing is named, once, and some seconds before the
        end. A usual start says nothing of the kind, also later.
        """
        usual = self.spawn("--config", self.ini())
        await usual.url()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            ini = self.of_server(port)
            waiting = [
                self.spawn("--config", ini),
                self.spawn("--config", ini, "--create-table"),
                self.spawn("-n", "--pidfile=", "dalga", "--config", ini, twistd=True),
            ]
            where = f"database 'test' at 127.0.0.1:{port}"
            for daemon in waiting:
                self.assertEqual((await daemon.says(WAITS))[1], where)
                self.assertNotIn("readTimeout", daemon.output)
            for daemon in waiting:
                self.assertEqual(await daemon.ended, 1)
                self.assertEqual(re.findall(WAITS, daemon.output), [where])
                self.assertIn("nothing comes from it within readTimeout", daemon.output)
        self.assertIsNone(usual.status)
        self.assertEqual(re.findall(WAITS, usual.output), [])

    def of_server(self, port: int) -> str:
        """Write a configuration with a database server at that port; gives its path."""
        path = os.path.join(self.folder, "server.ini")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"[listen]\nport = 0\n[mysql]\nport = {port}\nreadTimeout = 5s\n")
        return os.path.abspath(path)
