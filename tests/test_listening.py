"""The sockets of the HTTP interface: one for each address that a host has."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from dalga import listening
from dalga.errors import StartupError
from dalga.listening import listen
from tests.daemons import CHECKOUT, Daemon, DaemonTestCase
from tests.fakes import noting
from tests.stores import each_engine

#: Of the machine itself on Linux, without IPv6 as well.
ONE, TWO = "127.0.0.1", "127.0.0.2"
#: For documentation (RFC 5737, RFC 3849), so that no machine has them.
ELSEWHERE, ELSEWHERE_6 = "192.0.2.1", "2001:db8::1"


def found(*addresses: str) -> Any:
    """What `socket.getaddrinfo` gives for a name with these addresses."""

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [
            (socket.AF_INET6, 1, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, 1, 6, "", (address, port))
            for address in addresses
        ]

    return getaddrinfo


def listens(address: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=5):
        return True
    return False


class ListenTests(SynchronousTestCase):
    def listen(self, port: int, *addresses: str, host: str = "name") -> list[tuple[str, int]]:
        """Where it listens, of a host with these addresses, until the test's end."""
        self.patch(socket, "getaddrinfo", found(*addresses))
        listeners = listen(host, port)
        for listener in listeners:
            self.addCleanup(listener.close)
            self.assertFalse(listener.socket.getblocking())
        return [listener.socket.getsockname()[:2] for listener in listeners]

    def refusal(self, port: int, *addresses: str, host: str = "name") -> str:
        self.patch(socket, "getaddrinfo", found(*addresses))
        return str(self.assertRaises(StartupError, listen, host, port))

    def taken(self, address: str = ONE) -> int:
        """A port of an address that somebody else has."""
        other = socket.create_server((address, 0))
        self.addCleanup(other.close)
        port: int = other.getsockname()[1]
        return port

    def test_each_address(self) -> None:
        """All have the same port, also where any will do; an address that comes twice is one."""
        places = self.listen(0, ONE, TWO, ONE)
        self.assertEqual([address for address, _ in places], [ONE, TWO])
        ((_, port), (_, other)) = places
        self.assertEqual(port, other)
        self.assertTrue(listens(ONE, port) and listens(TWO, port))

    def test_both_families(self) -> None:
        """IPv4 and IPv6 stand beside each other on one port, where the machine has both."""
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
            expected = ["::1", ONE]
        except OSError as error:
            self.assertIn(error.errno, (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
            expected = [ONE]
        places = self.listen(0, "::1", ONE)
        self.assertEqual([address for address, _ in places], expected)
        self.assertEqual(len({port for _, port in places}), 1)

    def test_taken(self) -> None:
        """One that somebody else has is named, and nothing is left open."""
        port = self.taken(TWO)
        self.assertEqual(
            self.refusal(port, ONE, TWO),
            f"can't listen on {TWO}:{port}, an address of name: Address already in use; choose "
            "another address with host and port in [listen]",
        )
        socket.create_server((ONE, port)).close()
        self.assertEqual(
            self.refusal(port, TWO, host=TWO),
            f"can't listen on {TWO}:{port}: Address already in use; choose another address with "
            "host and port in [listen]",
        )

    def test_any_port(self) -> None:
        """A port that is free at one address and taken at another is not the one."""
        create, tried = socket.create_server, []

        def crowded(address: tuple[str, int], **keywords: Any) -> socket.socket:
            if address[0] == TWO:
                tried.append(address[1])
                if len(tried) < 4:
                    raise OSError(errno.EADDRINUSE, "Address already in use")
            return create(address, **keywords)

        self.patch(socket, "create_server", crowded)
        places = self.listen(0, ONE, TWO)
        self.assertEqual(places, [(ONE, tried[-1]), (TWO, tried[-1])])
        self.assertEqual(len(tried), 4)
        tried.clear()
        self.patch(listening, "ANY_PORTS", 3)
        self.assertIn("Address already in use", self.refusal(0, ONE, TWO))

    def test_another_port_would_not_do(self) -> None:
        """One that was asked for, or an error that is not about the port, is tried but once."""
        tried: list[Any] = []
        for port, number in ((8080, errno.EADDRINUSE), (0, errno.EACCES)):

            def refuse(address: Any, number: int = number, **_: Any) -> socket.socket:
                tried.append(address)
                raise OSError(number, os.strerror(number))

            tried.clear()
            self.patch(socket, "create_server", refuse)
            self.assertIn(os.strerror(number), self.refusal(port, ONE, TWO))
            self.assertEqual(tried, [(ONE, port)])

    def test_without_ipv6(self) -> None:
        """So it is where the kernel has none of it; the address that is left out is logged."""
        create = socket.create_server

        def old(address: Any, family: int, **keywords: Any) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            return create(address, family=family, **keywords)

        self.patch(socket, "create_server", old)
        events: list[Any] = []
        globalLogPublisher.addObserver(noting(events))
        self.addCleanup(globalLogPublisher.removeObserver, noting(events))
        ((address, _),) = self.listen(0, "::1", ONE)
        self.assertEqual(address, ONE)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "not listening on [::1]:0, an address of name: "
                "Address family not supported by protocol"
            ],
        )

    def test_not_ours(self) -> None:
        """An address that the machine has not is left out, unless there is no other."""
        for other in (ELSEWHERE, ELSEWHERE_6):
            for addresses in ((other, ONE), (ONE, other)):
                ((address, port),) = self.listen(0, *addresses)
                self.assertEqual(address, ONE)
                self.assertTrue(listens(ONE, port))
        self.assertIn(
            f"can't listen on {ELSEWHERE}:0: Cannot assign requested address; choose",
            self.refusal(0, ELSEWHERE, host=ELSEWHERE),
        )
        refusal = self.refusal(0, ELSEWHERE_6, ELSEWHERE)
        self.assertIn(f"can't listen on [{ELSEWHERE_6}]:0, an address of name: ", refusal)

    def test_no_name(self) -> None:
        """What can't be resolved is named."""
        for host in ("no.such.host.invalid", "a" * 64 + ".x"):
            error = self.assertRaises(StartupError, listen, host, 5)
            self.assertTrue(str(error).startswith(f"can't listen on {host}:5: "), error)


@each_engine(globals(), only=("sqlite",))
class DaemonTests(DaemonTestCase):
    """A daemon with several addresses."""

    #: The commands, where ``name`` has two addresses.
    PROGRAM = f"""
import socket, sys
resolve = socket.getaddrinfo
def getaddrinfo(host, *arguments, **keywords):
    found = [resolve(each, *arguments, **keywords) for each in ({ONE!r}, {TWO!r})]
    return found[0] + found[1] if host == "name" else resolve(host, *arguments, **keywords)
socket.getaddrinfo = getaddrinfo
if sys.argv[1] == "twistd":
    del sys.argv[1]
    from twisted.scripts.twistd import run
    sys.exit(run())
from dalga.cli import main
sys.exit(main())
"""

    def named(self, *arguments: str) -> Daemon:
        """Start one."""
        daemon = Daemon()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DALGA_")}
        environment |= {"PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}
        program = [sys.executable, "-c", self.PROGRAM, *arguments]
        self.reactor.spawnProcess(daemon, sys.executable, program, environment, self.folder)
        self.daemons.append(daemon)
        return daemon

    async def test_requests(self) -> None:
        """Each address answers, until a stop; the log tells both. Under twistd, too."""
        ini = self.ini(listen={"host": "name"})
        for command in ([], ["twistd", "-n", "--pidfile=", "dalga"]):
            daemon = self.named(*command, "--config", ini)
            said = await daemon.says(rf"listens on http://{ONE}:(\d+)/, http://{TWO}:(\d+)/, keeps")
            self.assertEqual(said[1], said[2])
            for address in (ONE, TWO):
                await self.get(f"http://{address}:{said[1]}/status")
            daemon.send(signal.SIGTERM)
            self.assertEqual(await daemon.ended, 0, daemon.output)
            self.assertNotIn("Traceback", daemon.output)
            self.assertFalse(listens(ONE, int(said[1])) or listens(TWO, int(said[1])))
