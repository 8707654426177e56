"""How a user logs in to MySQL or MariaDB: what is sent to whom, and what is said to be missing."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from random import SystemRandom
from threading import Thread
from unittest.mock import patch

import pymysql._auth
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from dalga.config.sections import MySQLConfig
from dalga.database import build_store
from dalga.errors import StartupError
from tests.test_store_connections import GREETING, packet

#: 32 bytes: MariaDB hashes a password as RFC 8032 does a key of that length.
PASSWORD = "a password of just 32 characters"
OK = b"\0\0\0\2\0\0\0"
DENIED = b"\xff\x15\x04#28000Access denied"


class Asking:
    """
    A server that has a user log in by a plugin, and is gone after that.

    :param path: of a local socket; TCP without one.
    :param asks: what it sends with the plugin's name, and then for each answer.
    """

    def __init__(
        self, plugin: str, asks: list[bytes | Callable[[bytes], bytes]], path: str = ""
    ) -> None:
        self._plugin, self._asks = plugin.encode() + b"\0", asks
        self.answers: list[bytes] = []
        if path:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self._listener.listen()
            self.config = MySQLConfig(socket=path, user="dalga", password=PASSWORD)
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            port = self._listener.getsockname()[1]
            self.config = MySQLConfig("127.0.0.1", port, user="dalga", password=PASSWORD)
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, client.makefile("rb") as stream:
            client.sendall(packet(0, GREETING))
            self._read(stream)
            first, *others = self._asks
            assert isinstance(first, bytes)
            client.sendall(packet(2, b"\xfe" + self._plugin + first))
            for number, answer in enumerate(others):
                said = self._read(stream)
                if not said:
                    return
                self.answers.append(said)
                reply = answer(said) if callable(answer) else answer
                client.sendall(packet(4 + 2 * number, reply))

    @staticmethod
    def _read(stream: object) -> bytes:
        header = stream.read(4)  # type: ignore[attr-defined]
        return bytes(stream.read(int.from_bytes(header[:3], "little")))  # type: ignore[attr-defined]


class LoginTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="dalga-test-")
        self.addCleanup(shutil.rmtree, self.folder)

    def log_in(
        self, plugin: str, asks: list[bytes | Callable[[bytes], bytes]], local: bool = False
    ) -> tuple[str, list[bytes]]:
        """Have the start log in; gives the sentence that it ends with, and what the server got."""
        from twisted.internet import reactor

        path = os.path.join(self.folder, f"socket{len(os.listdir(self.folder))}") if local else ""
        server = Asking(plugin, asks, path)
        self.addCleanup(server.stop)
        store = build_store(server.config, reactor, SystemRandom())
        sentence = str(self.assertRaises(StartupError, store.open))
        self.assertNotIn("\n", sentence)
        return sentence, server.answers

    def test_ed25519(self) -> None:
        """The signature is that of the password, by another library's opinion."""
        nonce = bytes(range(32))
        public = Ed25519PrivateKey.from_private_bytes(PASSWORD.encode()).public_key()
        checked = []

        def check(signature: bytes) -> bytes:
            public.verify(signature, nonce)
            checked.append(signature)
            return OK

        self.log_in("client_ed25519", [nonce, check])
        self.assertEqual(len(checked), 1)

    def test_ed25519_without_its_package(self) -> None:
        self.patch(pymysql._auth, "_nacl_bindings", False)
        with patch.dict(sys.modules, {"nacl": None}):
            sentence, answers = self.log_in("client_ed25519", [bytes(32), OK])
        self.assertIn("user 'dalga' can't log in to database 'test' at 127.0.0.1:", sentence)
        self.assertTrue(sentence.endswith("takes a package more: pip install 'dalga[ed25519]'"))
        self.assertEqual(answers, [])

    def test_what_pymysql_has_not(self) -> None:
        for plugin in ("parsec", "auth_gssapi_client", "authentication_ldap_sasl_client"):
            sentence, answers = self.log_in(plugin, [b"", OK])
            self.assertIn(
                f": it logs in by {plugin}, which PyMySQL has not: give the user another", sentence
            )
            self.assertEqual(answers, [])

    def test_a_password_as_it_is(self) -> None:
        """It is sent where nobody else can read it, and nowhere else."""
        for plugin, asks in [
            ("mysql_clear_password", [b"", OK]),
            ("dialog", [b"\4Password: ", OK]),
            ("dialog", [b"\4password for dalga:", OK]),
            ("dialog", [b"", OK]),  # MariaDB waits for it before it asks PAM
        ]:
            sentence, answers = self.log_in(plugin, asks)  # type: ignore[arg-type]
            self.assertIn("which is not sent without TLS: set ssl-ca in [mysql]", sentence)
            self.assertIn(f"it wants the password as it is ({plugin}", sentence)
            self.assertEqual(answers, [])
            _, answers = self.log_in(plugin, asks, local=True)  # type: ignore[arg-type]
            self.assertEqual(answers, [PASSWORD.encode() + b"\0"])

    def test_a_dialogue(self) -> None:
        """What PAM asks besides is quoted, and not answered by the password."""
        asks: list[bytes | Callable[[bytes], bytes]] = [b"", b"\4Password: ", b"\2Your code: ", OK]
        sentence, answers = self.log_in("dialog", asks, local=True)
        self.assertIn("PAM asks 'Your code:', and only what begins with 'Password' can", sentence)
        self.assertEqual(len(answers), 2)
        sentence, answers = self.log_in("dialog", [b"\4Password: ", DENIED], local=True)
        self.assertTrue(sentence.endswith(": Access denied"), sentence)
        endless = [b"\4Password: "] * 9
        sentence, answers = self.log_in("dialog", endless, local=True)  # type: ignore[arg-type]
        self.assertIn("PAM asks 'Password:'", sentence)
        self.assertEqual(len(answers), 3)
