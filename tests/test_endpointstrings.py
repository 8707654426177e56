"""Twisted's strings for server endpoints: what each asks for, and what is wrong with it."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.protocol import Protocol
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from dalga.endpointstrings import OF_STRINGS, asked
from dalga.errors import StartupError
from dalga.listening import listen_at
from tests.certificates import Authority, dns, write


def write_pair(folder: str, authority: Authority) -> tuple[str, str]:
    """Write the key and the certificate of a server; gives their paths."""
    key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    write(authority.issue(dns("localhost")), certificate, key)
    return key, certificate


class AskedTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """What is asked for; and no socket was opened for it."""
        for text, host, port in (
            ("tcp:80", "", 80),
            ("TCP:8080:interface=127.0.0.1".lower(), "127.0.0.1", 8080),
            ("tcp:0:backlog=5", "", 0),
            ("tcp6:80", "::", 80),
            (r"tcp6:80:interface=\:\:1", "::1", 80),
            ("haproxy:tcp:80:interface=127.0.0.1", "127.0.0.1", 80),
        ):
            found = asked(text, OF_STRINGS)
            self.assertEqual((found.host, found.port, found.path), (host, port, ""), text)
            self.assertIsNone(found.entrance.contexts)

    def test_paths(self) -> None:
        for text, path, mode in (
            ("unix:/run/x.sock", "/run/x.sock", 0o666),
            (r"unix:/run/a\:b.sock:mode=660:lockfile=0", "/run/a:b.sock", 0o660),
            ("unix:x.sock", os.path.abspath("x.sock"), 0o666),
        ):
            found = asked(text, OF_STRINGS)
            self.assertEqual((found.path, found.mode), (path, mode), text)

    def test_certificates(self) -> None:
        """They are read each time."""
        folder = self.mktemp()
        os.mkdir(folder)
        authority = Authority()
        key, certificate = write_pair(folder, authority)
        text = f"ssl:443:privateKey={key}:certKey={certificate}:interface=127.0.0.1"
        found = asked(text, OF_STRINGS)
        self.assertEqual((found.host, found.port), ("127.0.0.1", 443))
        self.assertEqual(asked(text, OF_STRINGS).entrance.certificate, found.entrance.certificate)
        write_pair(folder, authority)
        self.assertNotEqual(
            asked(text, OF_STRINGS).entrance.certificate, found.entrance.certificate
        )

    def test_factories(self) -> None:
        """A factory of a plugin's hands on to the site."""
        plain, wrapped = (asked(text, OF_STRINGS).entrance for text in ("tcp:80", "haproxy:tcp:80"))
        self.assertTrue(plain.is_plain)
        self.assertFalse(wrapped.is_plain)
        self.assertIsInstance(wrapped.factory, HAProxyWrappingFactory)
        inner: Any = wrapped.factory
        self.assertIs(inner.wrappedFactory, wrapped.door)

        class Site:
            def buildProtocol(self, addr: object) -> Protocol:
                return protocol

        protocol = Protocol()
        wrapped.door.site = Site()  # type: ignore[assignment]
        self.assertIs(wrapped.door.buildProtocol(None), protocol)

    def test_mistakes(self) -> None:
        """Each names the key and the string, and says what is wrong."""
        folder = self.mktemp()
        os.mkdir(folder)
        authority = Authority()
        key, _ = write_pair(folder, authority)
        other = os.path.join(folder, "other")
        os.mkdir(other)
        _, certificate = write_pair(other, authority)
        pipe = os.path.join(folder, "pipe")
        os.mkfifo(pipe)
        encrypted = os.path.join(folder, "encrypted")
        Path(encrypted).write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        nothing = os.path.join(folder, "nothing")
        Path(nothing).touch()
        for text, why in (
            ("foo:80", "Unknown endpoint type: 'foo'; it takes endpoints such as tcp:34006:"),
            ("tcp:x", "'x' is no number; it takes"),
            ("unix:/x:mode=999", "'999' is no number of octal digits; it takes"),
            ("tcp:80:interfce=1", "got an unexpected keyword argument 'interfce'; it takes"),
            ("tcp:", "it takes endpoints such as"),
            ("unix:/x:mode=rw", "it takes endpoints such as"),
            (f"ssl:1:privateKey={pipe}", f"{pipe}: it is no file"),
            ("ssl:1:privateKey=/no/file", "/no/file: No such file or directory"),
            (f"ssl:1:privateKey={encrypted}", "its key is encrypted: take one without"),
            (f"ssl:1:privateKey={nothing}", "its key and its certificate can't be used"),
            (f"ssl:1:privateKey={key}:certKey={certificate}", "keys do not match; it takes"),
            ("systemd:domain=INET:index=0", "systemd has handed no such socket to this process"),
            ("systemd:domain=INET:name=api", "systemd has handed no such socket to this process"),
            ("stdio:", "it takes endpoints such as"),
        ):
            error = str(self.assertRaises(StartupError, asked, text, OF_STRINGS))
            self.assertTrue(error.startswith(f"endpoint in [listen] is {text!r}: "), error)
            self.assertIn(why, error)
            self.assertNotIn("\n", error)


class PathTests(SynchronousTestCase):
    """Local sockets, and the files that dead daemons leave."""

    def setUp(self) -> None:
        # A local socket's path has 107 octets at most, and that of `mktemp` may have more.
        folder = tempfile.TemporaryDirectory(prefix="dalga-test-")
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "s")
        self.text = f"unix:{quoteStringArgument(self.path)}"

    def refusal(self) -> str:
        return str(self.assertRaises(StartupError, listen_at, self.text))

    def listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(self.path)
            except ConnectionRefusedError:
                return False
        return True

    def test_opened_and_closed(self) -> None:
        """The file has the permissions that were asked for, whatever the umask, and is removed."""
        for mode in ("660", "600", "666"):
            (listener,) = listen_at(f"{self.text}:mode={mode}")
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), int(mode, 8))
            self.assertEqual(str(listener), f"unix:{self.path}")
            self.assertTrue(listener.is_local)
            self.assertTrue(self.listens())
            listener.close()
            self.assertFalse(os.path.exists(self.path))

    def test_a_dead_daemon(self) -> None:
        """Its file is replaced."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
        self.assertFalse(self.listens())
        (listener,) = listen_at(self.text)
        self.assertTrue(self.listens())
        listener.close()

    def test_a_living_daemon(self) -> None:
        """Its file stays, also when the other one gives up."""
        (listener,) = listen_at(self.text)
        self.assertEqual(
            self.refusal(),
            f"can't listen on unix:{self.path}: Address already in use; choose another path with "
            "endpoint in [listen]",
        )
        self.assertTrue(self.listens())
        listener.close()

    def test_other_files(self) -> None:
        """A file that is no socket is never removed."""
        Path(self.path).write_text("precious")
        self.assertIn("a file of this name that is no socket", self.refusal())
        self.assertEqual(Path(self.path).read_text(), "precious")
        self.path = os.path.join(self.path, "below")
        self.text = f"unix:{self.path}"
        self.assertIn("Not a directory", self.refusal())
        self.text = f"unix:/{'a' * 200}"
        self.assertIn("path too long", self.refusal())

    def test_a_file_of_somebody_elses(self) -> None:
        """A file that has taken the place of ours stays when ours is closed."""
        (listener,) = listen_at(self.text)
        os.unlink(self.path)
        (other,) = listen_at(self.text)
        listener.close()
        self.assertTrue(self.listens())
        other.close()


class ListenAtTests(SynchronousTestCase):
    def test_local(self) -> None:
        """What only this machine can reach, by the address that is listened on."""
        for text, local in (
            ("tcp:0:interface=127.0.0.1", True),
            ("tcp:0:interface=localhost", True),
            ("tcp:0:interface=127.9.9.9", True),
            ("tcp:0", False),
            ("tcp:0:interface=0.0.0.0", False),
        ):
            for listener in listen_at(text):
                self.addCleanup(listener.close)
                self.assertEqual(listener.is_local, local, text)

    def test_taken(self) -> None:
        (listener,) = listen_at("tcp:0:interface=127.0.0.1")
        self.addCleanup(listener.close)
        port = listener.socket.getsockname()[1]
        text = f"tcp:{port}:interface=127.0.0.1"
        self.assertEqual(
            str(self.assertRaises(StartupError, listen_at, text)),
            f"can't listen on 127.0.0.1:{port}: Address already in use; choose another address "
            "with endpoint in [listen]",
        )
