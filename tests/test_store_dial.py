"""A connection to a database server by its name: nothing waits longer than it may."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from threading import Event, Thread, active_count
from time import monotonic
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dalga.store import dial
from tests.servers.server import free_port

ADDRESS = "127.0.0.1"


class DialTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.dialer = dial.Dialer()
        self.listener = socket.create_server((ADDRESS, 0))
        self.addCleanup(self.listener.close)
        self.port = self.listener.getsockname()[1]
        self.asked: list[str] = []

    def resolve(self, answer: Callable[[], list[str]]) -> None:
        """Have names be looked up so."""
        find = socket.getaddrinfo

        def resolver(host: str, port: int, **named: Any) -> list[Any]:
            if "flags" in named:
                return find(host, port, **named)
            self.asked.append(host)
            return [find(address, port, **named)[0] for address in answer()]

        self.patch(socket, "getaddrinfo", resolver)

    def dial(self, host: str, timeout: float = 10.0) -> None:
        """Connect, and close."""
        connection = self.dialer.dial(host, self.port, timeout)
        self.assertEqual(connection.getpeername()[1], self.port)
        connection.close()

    def test_address(self) -> None:
        """Nobody is asked, and no thread begun."""
        self.resolve(lambda: [])
        before = active_count()
        self.dial(ADDRESS)
        self.assertEqual((self.asked, active_count()), ([], before))

    def test_name(self) -> None:
        """Its addresses are tried in order, and it is looked up each time."""
        self.resolve(lambda: ["127.0.0.2", ADDRESS])
        self.dial("db.test")
        self.dial("db.test")
        self.assertEqual(self.asked, ["db.test"] * 2)

    def test_no_ipv6(self) -> None:
        """As on a machine whose kernel has none, though ``localhost`` is ``::1`` there, too."""
        made = socket.socket

        def socket_of(family: int, *named: Any) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            return made(family, *named)

        self.resolve(lambda: ["::1", ADDRESS])
        self.patch(socket, "socket", socket_of)
        self.dial("localhost")
        self.resolve(lambda: ["::1"])
        with self.assertRaisesRegex(OSError, "not supported"):
            self.dial("localhost")

    def test_no_threads(self) -> None:
        """It is the database that can't be reached then, not a mistake of ours."""

        def start(_: Thread) -> None:
            raise RuntimeError("can't start new thread")

        self.resolve(lambda: [ADDRESS])
        self.patch(Thread, "start", start)
        for _ in range(2):
            with self.assertRaisesRegex(OSError, "not looked up: can't start new thread"):
                self.dial("db.test")

    def test_failures(self) -> None:
        self.assertRaises(UnicodeError, self.dial, "a..b")
        self.resolve(lambda: [ADDRESS])
        with self.assertRaises(ConnectionRefusedError):
            self.dialer.dial("db.test", free_port(), 10)

        def unknown() -> list[str]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        self.resolve(unknown)
        with self.assertRaisesRegex(socket.gaierror, "not known"):
            self.dial("db.test")

    def test_silent(self) -> None:
        """It is given up in time; those that ask meanwhile wait for the same look-up."""
        answers = Event()

        def silent() -> list[str]:
            answers.wait()
            return [ADDRESS]

        self.resolve(silent)
        began = monotonic()
        for _ in range(2):
            with self.assertRaisesRegex(TimeoutError, r"name was not resolved within 0\.1 s"):
                self.dial("db.test", 0.1)
        self.assertLess(monotonic() - began, 5)
        self.assertEqual(len(self.asked), 1)
        waiting = Thread(target=self.dial, args=("db.test",))
        waiting.start()
        answers.set()
        waiting.join()
        self.assertEqual(len(self.asked), 1)
        self.dial("db.test")
        self.assertEqual(len(self.asked), 2)

    def test_stuck(self) -> None:
        """One that never ends does not keep a name from being found for ever."""
        self.patch(dial, "STUCK", 0.0)
        answers = Event()
        self.addCleanup(answers.set)

        def first_is_silent() -> list[str]:
            if len(self.asked) == 1:
                answers.wait()
            return [ADDRESS]

        self.resolve(first_is_silent)
        self.assertRaises(TimeoutError, self.dial, "db.test", 0.1)
        self.dial("db.test")

    def test_end_of_the_process(self) -> None:
        """It waits for no look-up."""
        program = (
            "import socket, time\n"
            "from dalga.store.dial import Dialer\n"
            "find = socket.getaddrinfo\n"
            "def silent(*names, **named):\n"
            "    return find(*names, **named) if 'flags' in named else time.sleep(600)\n"
            "socket.getaddrinfo = silent\n"
            "try:\n"
            "    Dialer().dial('db.test', 1, 0.1)\n"
            "except TimeoutError as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.stdout, "its name was not resolved within 0.1 s\n", done.stderr)
