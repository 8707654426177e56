"""The servers that other tests rely on: what they commit survives a kill, strangers stay out.

``DALGA_TEST_ENGINES`` says which engines are tested; SQLite has no server to test here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pymysql
from twisted.trial.unittest import SkipTest, TestCase

from tests.run import asked_for
from tests.servers import Server, ServerError, start_server
from tests.servers.server import CHECKOUT

ACCESS_DENIED = 1045


class ServerTestCase(TestCase):
    """What holds for each engine; the classes at the end name them."""

    engine: ClassVar[str]

    def setUp(self) -> None:
        if self.engine not in asked_for(os.environ):
            raise SkipTest(f"DALGA_TEST_ENGINES does not name {self.engine}")

    def start(self) -> Server:
        server = start_server(self.engine)
        self.addCleanup(server.stop)
        return server


# For mypy, a mixin has what it is mixed into; for trial, it is no test case.
if TYPE_CHECKING:
    Mixin = ServerTestCase
else:
    Mixin = object


class ServerTests(Mixin):
    """Not tests by themselves: trial runs them in the classes that name an engine."""

    def test_killed_server_comes_back_with_what_was_committed(self) -> None:
        server = self.start()
        name = server.create_database()
        connection = server.connect(database=name, autocommit=False)
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept (number INT PRIMARY KEY) ENGINE=InnoDB")
            cursor.execute("INSERT INTO kept VALUES (1)")
            connection.commit()
            cursor.execute("INSERT INTO kept VALUES (2)")
        port = server.port
        server.kill()
        self.assertRaises(pymysql.OperationalError, server.connect)
        server.start()
        self.assertEqual(port, server.port)
        with server.connect(database=name) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT number FROM kept")
            self.assertEqual([(1,)], list(cursor.fetchall()))

    def test_password_is_asked_for(self) -> None:
        """Without TLS: MySQL then wants the password encrypted with its RSA key."""
        server = self.start()
        for wrong in ("wrong", ""):
            error = self.assertRaises(
                pymysql.OperationalError, server.connect, password=wrong, ssl_disabled=True
            )
            self.assertEqual(ACCESS_DENIED, error.args[0])
        server.connect(ssl_disabled=True).close()

    def test_failed_start_shows_the_log(self) -> None:
        error = self.assertRaises(ServerError, start_server, self.engine, ["--no-such-option"])
        self.assertIn("no-such-option", str(error))

    def test_server_ends_with_the_process_that_started_it(self) -> None:
        """However that process ends: here it is killed."""
        program = (
            "import os, signal\n"
            "from tests.servers import start_server\n"
            f"server = start_server({self.engine!r})\n"
            "print(server.pid, server.error_log.parent, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
        )
        pid, folder = done.stdout.split()
        left = [Path("/proc") / pid, Path(folder)]
        deadline = time.monotonic() + 10
        while any(path.exists() for path in left) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual([], [path for path in left if path.exists()])


class MariaDBServerTests(ServerTests, ServerTestCase):
    engine = "mariadb"


class MySQLServerTests(ServerTests, ServerTestCase):
    engine = "mysql"
