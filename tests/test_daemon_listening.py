"""Daemons behind TLS, local sockets and systemd's sockets; and numbers at a place of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.threads import deferToThread

from tests.certificates import Authority, dns, ip, write
from tests.daemons import CHECKOUT, Daemon, DaemonTestCase
from tests.stores import each_engine
from tests.test_workers import WorkersTestCase

REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


class TlsTestCase(DaemonTestCase):
    """A test with a certificate for the daemon, and clients that check it."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.certificate_file = os.path.abspath(os.path.join(self.folder, "cert.pem"))
        self.key_file = os.path.abspath(os.path.join(self.folder, "key.pem"))
        self.issue()
        self.ssl = (
            f"ssl:0:privateKey={self.key_file}:certKey={self.certificate_file}:interface=127.0.0.1"
        )

    def issue(self) -> None:
        """Give the daemon another certificate, of `authority`."""
        issued = self.authority.issue(dns("localhost"), ip("127.0.0.1"))
        write(issued, self.certificate_file, self.key_file)
        self.authority.write(os.path.join(self.folder, "ca.pem"))

    def tls_client(self, port: int, **options: Any) -> ssl.SSLSocket:
        """A connection that trusts `authority` only; blocks."""
        context = ssl.create_default_context(cafile=os.path.join(self.folder, "ca.pem"))
        for name, value in options.items():
            setattr(context, name, value)
        client = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.addCleanup(client.close)
        return context.wrap_socket(client, server_hostname="localhost")

    def ask(self, client: socket.socket, request: bytes = REQUEST) -> bytes:
        """Send a request, and read a part of the answer; blocks."""
        client.sendall(request)
        return client.recv(65536)

    async def get_by_tls(self, port: int, request: bytes = REQUEST) -> bytes:
        return await deferToThread(lambda: self.ask(self.tls_client(port), request))

    async def port(self, daemon: Daemon) -> int:
        return int((await daemon.says(r"listens on https://127\.0\.0\.1:(\d+)/, keeps"))[1])


@each_engine(globals(), only=("sqlite",))
class TlsTests(TlsTestCase):
    async def run_it(self, **sections: dict[str, str]) -> tuple[Daemon, int]:
        ini = self.ini(listen={"endpoint": self.ssl}, **sections)
        Path(ini).write_text(Path(ini).read_text().replace("port = 0\n", ""))
        daemon = self.spawn("--config", ini)
        return daemon, await self.port(daemon)

    async def test_requests(self) -> None:
        """TLS 1.2 at least, and HTTP/1.1 only, whatever the client offers."""
        _, port = await self.run_it()
        self.assertTrue((await self.get_by_tls(port)).startswith(OK))

        def refuse() -> bytes:
            """A refusal, read to TLS's own end; it is an error if that does not come."""
            context = ssl.create_default_context(cafile=os.path.join(self.folder, "ca.pem"))
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                secure = context.wrap_socket(
                    client, server_hostname="localhost", suppress_ragged_eofs=False
                )
                secure.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\nNo header\r\n\r\n")
                return b"".join(iter(lambda: secure.recv(65536), b""))

        refused = await deferToThread(refuse)
        self.assertTrue(refused.startswith(b"HTTP/1.1 400 "), refused)

        def negotiate() -> tuple[str | None, str | None]:
            context = ssl.create_default_context(cafile=os.path.join(self.folder, "ca.pem"))
            context.set_alpn_protocols(["h2", "http/1.1"])
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                secure = context.wrap_socket(client, server_hostname="localhost")
                return secure.selected_alpn_protocol(), secure.version()

        self.assertEqual(await deferToThread(negotiate), ("http/1.1", "TLSv1.3"))

        def old() -> str:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
            context.set_ciphers("ALL:@SECLEVEL=0")
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                try:
                    context.wrap_socket(client)
                except ssl.SSLError as error:
                    return str(error)
            return "taken"

        self.assertIn("alert protocol version", (await deferToThread(old)).lower())

    async def test_another_certificate(self) -> None:
        """New connections get it after SIGHUP, unless it is a mistake; others go on."""
        daemon, port = await self.run_it()
        kept = await deferToThread(self.tls_client, port)
        before = kept.getpeercert(binary_form=True)
        self.authority = Authority()
        self.issue()
        with self.assertRaises(ssl.SSLCertVerificationError):
            await self.get_by_tls(port)  # it has the former certificate still
        daemon.send(signal.SIGHUP)
        await daemon.says(r"changed: the certificate of endpoint in \[listen\]\n")
        self.assertTrue((await self.get_by_tls(port)).startswith(OK))
        self.assertTrue((await deferToThread(self.ask, kept)).startswith(OK))
        after = await deferToThread(lambda: self.tls_client(port).getpeercert(binary_form=True))
        self.assertNotEqual(before, after)
        Path(self.key_file).write_text("no key")
        daemon.send(signal.SIGHUP)
        await daemon.says("all stays as it was: endpoint in .* its key and its certificate can't")
        self.assertTrue((await self.get_by_tls(port)).startswith(OK))

    async def test_a_stop(self) -> None:
        """Idle clients do not hold it up, and a request that has come is answered."""
        daemon, port = await self.run_it()
        idle = await deferToThread(self.tls_client, port)
        await deferToThread(self.ask, idle)
        silent = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.addCleanup(silent.close)
        busy = await deferToThread(self.tls_client, port)
        busy.sendall(REQUEST)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        answer = await deferToThread(busy.recv, 65536)
        self.assertTrue(answer.startswith(OK), answer)
        self.assertNotIn("cut off", daemon.output)
        self.assertNotIn("Traceback", daemon.output)

    async def test_a_stop_after_refusals(self) -> None:
        """The log has how many there were, as it has without TLS: the site is told of the stop."""
        daemon, port = await self.run_it(tokens={"ci": f"read sha256:{'0' * 64}"})
        for _ in range(3):
            answer = await self.get_by_tls(port, REQUEST.replace(b"/health", b"/jobs"))
            self.assertTrue(answer.startswith(b"HTTP/1.1 401 "), answer)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertIn("2 more requests of 127.0.0.1 were refused", daemon.output)


@each_engine(globals(), only=("mariadb",))
class TlsWorkersTests(TlsTestCase, WorkersTestCase):
    async def test_another_certificate(self) -> None:
        """Each worker shows it, and so does one that is made after that."""
        ini = self.ini(listen={"endpoint": self.ssl})
        Path(ini).write_text(Path(ini).read_text().replace("port = 0\n", ""))
        daemon = self.spawn("--config", ini, "--workers", "2")
        port = await self.port(daemon)
        for number in (1, 2):
            await daemon.says(rf"worker {number} \[\S+ this worker is instance")
        self.authority = Authority()
        self.issue()
        daemon.send(signal.SIGHUP)
        await daemon.says("changed: the certificate")
        pids = self.processes(daemon.output)

        async def ask() -> None:
            """Until a worker has answered whose sibling is held."""
            while True:
                try:
                    self.assertTrue((await self.get_by_tls(port)).startswith(OK))
                    return
                except ssl.SSLCertVerificationError:
                    await self.pause(0.05)

        for number in (1, 2):
            os.kill(pids[number], signal.SIGSTOP)
            await ask()
            os.kill(pids[number], signal.SIGCONT)
        os.kill(pids[1], signal.SIGKILL)
        await daemon.says(r"(?s)a new worker starts.* worker 1 \[\S+ this worker is instance")
        os.kill(pids[2], signal.SIGSTOP)
        self.assertTrue((await self.get_by_tls(port)).startswith(OK))
        os.kill(pids[2], signal.SIGCONT)


class CurlTestCase(DaemonTestCase):
    def setUp(self) -> None:
        super().setUp()
        # The path of a socket is 107 octets long at most.
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "d.sock")
        self.at_path = f"unix:{self.path}"

    async def curl(self, path: str, *options: str) -> str:
        """What a request by the local socket answers."""
        command = ["curl", "-sS", "--max-time", "20", "--unix-socket", self.path, *options]
        done = await deferToThread(
            subprocess.run, [*command, f"http://dalga{path}"], capture_output=True, text=True
        )
        return str(done.stdout + done.stderr)


@each_engine(globals(), only=("sqlite",))
class UnixTests(CurlTestCase):
    async def test_requests(self) -> None:
        """Beside an address of TCP, where both are given; the file is gone after a stop."""
        ini = self.ini(listen={"port": 0, "endpoint": f"{self.at_path}:mode=600"})
        daemon = self.spawn("--config", ini)
        said = await daemon.says(r"listens on (http://\S+)/, (unix:\S+/d\.sock), keeps")
        self.assertEqual(said[2], self.at_path)
        await self.get(f"{said[1]}/status")
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        shown = await self.curl("/jobs/a/b?interval=60", "-X", "PUT")
        self.assertEqual(json.loads(shown)["body"], "b")
        self.assertIn('"detail"', await self.curl("/status", "-H", f"X: {'x' * 20_000}"))
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertFalse(os.path.exists(self.path))
        self.assertNotIn("Traceback", daemon.output)

    async def test_a_daemon_that_was_killed(self) -> None:
        """The next one replaces its file; beside a living one none starts."""
        ini = self.ini(listen={"port": 0, "endpoint": self.at_path})
        daemon = self.spawn("--config", ini)
        await daemon.says("unix:")
        other = self.spawn(
            "--config",
            self.ini("other.ini", listen={"endpoint": self.at_path}, sqlite={"path": "o"}),
        )
        self.assertEqual(await other.ended, 1)
        self.assertIn("/d.sock: Address already in use; choose another path", other.output)
        self.assertIn('"ok"', await self.curl("/health"))
        daemon.send(signal.SIGKILL)
        await daemon.ended
        self.assertTrue(os.path.exists(self.path))
        daemon = self.spawn("--config", ini)
        await daemon.says("unix:")
        self.assertIn('"ok"', await self.curl("/health"))


@each_engine(globals(), only=("mariadb",))
class UnixWorkersTests(CurlTestCase, WorkersTestCase):
    async def test_a_worker_that_stops(self) -> None:
        """The file stays until all stop."""
        daemon = self.run_workers(listen={"port": 0, "endpoint": self.at_path})
        await daemon.says(r"unix:\S+, keeps")
        for number in (1, 2):
            await daemon.says(rf"worker {number} \[\S+ this worker is instance")
        os.kill(self.processes(daemon.output)[1], signal.SIGTERM)
        await daemon.says("worker 1 .*a new worker starts")
        self.assertIn('"ok"', await self.curl("/health"))
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.assertFalse(os.path.exists(self.path))


#: Starts a daemon as systemd does: with listening sockets from 3 on, and variables that say so.
ACTIVATE = """
import os, socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
sockets[1].bind("s.sock")
os.chmod("s.sock", 0o640)
sockets[1].listen()
for number, each in enumerate(sockets, 3):
    os.dup2(each.fileno(), number + 20)
for number in range(3, 5):
    os.dup2(number + 20, number)
os.environ |= {
    "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "tcp:local",
}
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@each_engine(globals(), only=("sqlite",))
class SystemdTests(CurlTestCase):
    async def test_sockets(self) -> None:
        """Both are taken, also under twistd; the file of one that is systemd's stays."""
        self.path = os.path.relpath(os.path.join(self.folder, "s.sock"))
        endpoints = "systemd:domain=INET:index=0, systemd:domain=UNIX:name=local"
        ini = self.ini(listen={"endpoint": endpoints})
        Path(ini).write_text(Path(ini).read_text().replace("port = 0\n", ""))
        twistd = "from twisted.scripts.twistd import run; run()"
        for program in (
            ["-m", "dalga"],
            ["-c", twistd, "-n", "--pidfile=", "dalga"],
        ):
            daemon = Daemon()
            environment = {k: v for k, v in os.environ.items() if not k.startswith("DALGA_")}
            environment |= {"PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}
            arguments = [sys.executable, "-c", ACTIVATE, *program, "--config", ini]
            self.reactor.spawnProcess(daemon, sys.executable, arguments, environment, self.folder)
            self.daemons.append(daemon)
            said = await daemon.says(r"listens on (http://127\.0\.0\.1:\d+)/, unix:s\.sock, keeps")
            await self.get(f"{said[1]}/status")
            self.assertIn('"ok"', await self.curl("/health"))
            daemon.send(signal.SIGHUP)
            await daemon.says("the configuration was read again")
            await self.get(f"{said[1]}/status")
            daemon.send(signal.SIGTERM)
            self.assertEqual(await daemon.ended, 0)
            self.assertNotIn("Traceback", daemon.output)
            self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o640)
            os.unlink(self.path)

    async def test_none(self) -> None:
        """That is said in a line."""
        daemon = self.spawn(
            "--config", self.ini(listen={"endpoint": "systemd:domain=INET:index=0"})
        )
        self.assertEqual(await daemon.ended, 1)
        self.assertIn("systemd has handed no such socket to this process", daemon.output)


@each_engine(globals(), only=("sqlite",))
class NumbersTests(DaemonTestCase):
    async def test_a_place_of_their_own(self) -> None:
        """There is nothing else there."""
        daemon, url = await self.start(metrics={"listen": "127.0.0.1:0"})
        numbers = (await daemon.says(r"numbers are shown to all at (http://\S+)/metrics\n"))[1]
        self.assertNotEqual(numbers, url)
        for path, status in (
            ("/metrics", 200),
            ("/health", 200),
            ("/ready", 200),
            ("/status", 404),
            ("/jobs/a/b", 404),
            ("/", 404),
            ("//metrics", 404),
        ):
            found, _ = await self.call("GET", f"{numbers}{path}")
            self.assertEqual(found, status, path)
        status, answer = await self.call("PUT", f"{numbers}/jobs/a/b?interval=60")
        self.assertEqual(status, 404)
        self.assertIn("this address has /health, /metrics, /ready alone", answer)
        self.assertEqual((await self.call("PUT", f"{numbers}/metrics"))[0], 405)
        _, shown = await self.call("GET", f"{numbers}/metrics")
        self.assertIn("dalga_slots ", shown)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        port = int(numbers.rpartition(":")[2])
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=5)

    async def test_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            ini = self.ini(metrics={"listen": f"127.0.0.1:{port}"})
            daemon = self.spawn("--config", ini)
            self.assertEqual(await daemon.ended, 1)
        self.assertIn("choose another address with listen in [metrics]\n", daemon.output)


@each_engine(globals(), only=("mariadb",))
class NumbersWorkersTests(WorkersTestCase):
    async def test_all_workers(self) -> None:
        """They share the place, and show the numbers of all."""
        daemon = self.run_workers(metrics={"listen": "127.0.0.1:0"})
        await self.listening(daemon)
        numbers = (await daemon.says(r"numbers are shown to all at (http://\S+)\n"))[1]
        while True:
            _, shown = await self.call("GET", numbers)
            if 'dalga_slots{worker="1"}' in shown and 'dalga_slots{worker="2"}' in shown:
                break
            await self.pause(0.1)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
