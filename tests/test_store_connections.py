"""How the store comes to a MySQL or MariaDB server: by TLS, over a socket, to which of several."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGSTOP
from threading import Thread
from typing import Any

import pymysql
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from dalga import database
from dalga.config.sections import MySQLConfig
from dalga.errors import JobNotFound, StartupError, StoreUnavailable
from dalga.metrics import Metrics
from dalga.model.key import JobKey
from dalga.store.clock import DatabaseClock, steady_seconds
from dalga.store.dialect import Trouble
from dalga.store.mysql import MySQL
from dalga.store.mysqltls import tls
from dalga.store.table import JobsTable
from dalga.store.transactions import LastLoss, Transactions
from faults.proxy import Proxy
from tests.examples import MINUTE
from tests.servers import Server, start_server
from tests.servers.server import PASSWORD, USER, free_port
from tests.stores import EACH_MINUTE, EngineTestCase, each_engine, server

KEY = JobKey("check_feed", "1234")
ADDRESS = "127.0.0.1"


class Authority:
    """A CA, and files with what it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._sign(
            self._name, self._key, x509.BasicConstraints(ca=True, path_length=None)
        )
        self.path = self._write(f"{name}.pem", certificate)

    def issue(self, name: str, pass_phrase: str = "") -> tuple[str, str]:
        """The paths of a certificate for an address, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        addresses = x509.SubjectAlternativeName([x509.IPAddress(ip_address(name))])
        keys = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(pass_phrase.encode())
            if pass_phrase
            else serialization.NoEncryption(),
        )
        cert = self._write("issued.pem", self._sign(subject, key, addresses))
        return cert, self._write("issued.key", keys)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> bytes:
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _write(self, name: str, content: bytes) -> str:
        path = Path(tempfile.mkdtemp(dir=self._folder), name)
        path.write_bytes(content)
        return str(path)


class FileTests(SynchronousTestCase):
    """Files that can't be used are refused by the key that names them."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dalga-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.ca = Authority(self.folder, "ca")
        self.cert, self.key = self.ca.issue(ADDRESS)

    def refusal(self, ca: str, cert: str = "", key: str = "") -> str:
        return str(self.assertRaises(StartupError, tls, "verify-ca", ca, cert, key))

    def test_modes(self) -> None:
        self.assertEqual((tls("disabled"), tls("preferred")), (False, True))
        for mode, verify, name in [
            ("required", ssl.CERT_NONE, False),
            ("verify-ca", ssl.CERT_REQUIRED, False),
            ("verify-identity", ssl.CERT_REQUIRED, True),
        ]:
            context = tls(mode, "" if mode == "required" else self.ca.path)
            assert isinstance(context, ssl.SSLContext)
            self.assertEqual((context.verify_mode, context.check_hostname), (verify, name))

    def test_unreadable(self) -> None:
        missing = f"{self.folder}/missing"
        for arguments, name, path, reason in [
            ((missing,), "ssl-ca", missing, "No such file or directory"),
            ((str(self.folder),), "ssl-ca", str(self.folder), "Is a directory"),
            ((self.ca.path, missing), "ssl-cert", missing, "No such file or directory"),
            ((self.ca.path, self.cert, missing), "ssl-key", missing, "No such file or directory"),
        ]:
            self.assertEqual(
                self.refusal(*arguments),
                f"{name} in [mysql] is {path!r}, which can't be read ({reason}): it takes the path "
                "of a file in PEM form",
            )

    def test_no_certificate(self) -> None:
        for path in (self.key, os.devnull, __file__):
            self.assertEqual(
                self.refusal(path),
                f"ssl-ca in [mysql] is {path!r}, which has no certificate in it: it takes those of "
                "the CAs, in PEM form",
            )

    def test_certificate_and_key(self) -> None:
        _, other = self.ca.issue(ADDRESS)
        _, locked = self.ca.issue(ADDRESS, "s3cret")
        both = self.folder / "both.pem"
        both.write_text(Path(self.cert).read_text() + Path(self.key).read_text())
        for cert, key in [(self.cert, self.key), (str(both), ""), (str(both), str(both))]:
            tls("required", "", cert, key)
        for cert, key, reason in [
            (self.cert, other, "key values mismatch"),
            (self.cert, locked, ""),
            (self.key, self.key, ""),
            (__file__, self.key, ""),
        ]:
            refusal = self.refusal(self.ca.path, cert, key)
            self.assertIn(
                f"ssl-cert in [mysql] is {cert!r} with the key in {key or cert!r}, which do not go "
                f"together ({reason}",
                refusal,
            )
            self.assertTrue(refusal.endswith("without a pass phrase, in PEM form"))
        self.assertEqual(
            self.refusal(self.ca.path, self.cert),
            f"ssl-cert in [mysql] is {self.cert!r}, which has no key in it: ssl-key takes the path "
            "of its key, in PEM form",
        )


@dataclass
class Encrypted:
    """A server with a certificate of a CA's."""

    server: Server
    ca: Authority
    other_ca: Authority
    folder: tempfile.TemporaryDirectory[str]


@cache
def spare(engine: str) -> Server:
    """This run's second server."""
    return start_server(engine)


@cache
def encrypted(engine: str) -> Encrypted:
    """This run's server with a certificate for 127.0.0.1."""
    folder = tempfile.TemporaryDirectory(prefix="dalga-test-")  # removed at exit
    ca, other = Authority(Path(folder.name), "ca"), Authority(Path(folder.name), "other")
    cert, key = ca.issue(ADDRESS)
    options = [f"--ssl-ca={ca.path}", f"--ssl-cert={cert}", f"--ssl-key={key}"]
    return Encrypted(start_server(engine, options), ca, other, folder)


#: What makes an engine offer no TLS.
WITHOUT_TLS = {"mariadb": ["--skip-ssl"], "mysql": ["--tls-version="]}


class ConnectionTestCase(EngineTestCase):
    config: MySQLConfig

    def use(self, *servers: Server, **settings: Any) -> MySQLConfig:
        """A database of one name on each of them, in this order."""
        name = servers[0].create_database()
        for other in servers[1:]:
            other.create_database(name)

        def drop(each: Server) -> None:
            if each.pid:
                each.drop_database(name)

        for each in servers:
            self.addCleanup(drop, each)
        hosts = ", ".join(f"{each.host}:{each.port}" for each in servers)
        return MySQLConfig(hosts, 1, name, "dalga", USER, PASSWORD, **settings)

    def asked(self, config: MySQLConfig, query: str) -> tuple[Any, ...]:
        """The row that a new connection's server gives."""
        with closing(database.server(config).connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            (row,) = cursor.fetchall()
        return row  # type: ignore[no-any-return]

    def cipher(self, config: MySQLConfig) -> str:
        return str(self.asked(config, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")[1])

    def refusal(self, config: MySQLConfig) -> str:
        """The sentence with which a daemon does not start."""
        self.config = config
        sentence = str(self.assertRaises(StartupError, self.make_store().open))
        self.assertNotIn("\n", sentence)
        return sentence


@each_engine(globals(), only=("mariadb", "mysql"))
class TLSTests(ConnectionTestCase):
    """An encrypted connection, and who is at its other end."""

    timeout = 120

    def make_database(self) -> MySQLConfig:
        self.has = encrypted(self.engine)
        return self.use(self.has.server)

    def verifying(self, **other: Any) -> MySQLConfig:
        settings = {"ssl_mode": "verify-identity", "ssl_ca": self.has.ca.path, **other}
        return replace(self.config, **settings)

    def test_encrypted(self) -> None:
        for config in [
            self.config,  # the server offers it
            replace(self.config, ssl_mode="required"),
            self.verifying(ssl_mode="verify-ca"),
            self.verifying(),
        ]:
            self.assertNotEqual(self.cipher(config), "", config.ssl_mode)
        self.assertEqual(self.cipher(replace(self.config, ssl_mode="disabled")), "")

    def test_another_ca(self) -> None:
        """A certificate of somebody else's is refused, whether the host is looked at or not."""
        for mode in ("verify-ca", "verify-identity"):
            sentence = self.refusal(self.verifying(ssl_mode=mode, ssl_ca=self.has.other_ca.path))
            self.assertIn(f"at {ADDRESS}:{self.has.server.port}: its certificate is not", sentence)
            self.assertIn("ssl-ca in [mysql] takes the CA that signed it", sentence)

    def test_another_name(self) -> None:
        """A certificate for another host is refused, where that is looked at."""
        elsewhere = f"localhost:{self.has.server.port}"
        sentence = self.refusal(self.verifying(host=elsewhere))
        self.assertIn("its certificate is not accepted (Hostname mismatch", sentence)
        self.assertIn("ssl-mode = verify-ca does not look at the host's name", sentence)
        self.assertNotEqual(self.cipher(self.verifying(host=elsewhere, ssl_mode="verify-ca")), "")

    def test_a_certificate_of_ones_own(self) -> None:
        name = f"x509_{os.urandom(4).hex()}"
        with self.has.server.connect_as_root() as root:
            cursor = root.cursor()
            cursor.execute(f"CREATE USER '{name}'@'{ADDRESS}' IDENTIFIED BY 'a' REQUIRE X509")
            cursor.execute(f"GRANT ALL ON {self.config.db}.* TO '{name}'@'{ADDRESS}'")
        self.config = replace(self.config, user=name, password="a")
        cert, key = self.has.ca.issue(ADDRESS)
        self.assertNotEqual(self.cipher(self.verifying(ssl_cert=cert, ssl_key=key)), "")
        self.assertIn(f"user '{name}' can't log in", self.refusal(self.verifying()))
        cert, key = self.has.other_ca.issue(ADDRESS)
        self.refusal(self.verifying(ssl_cert=cert, ssl_key=key))

    async def test_a_server_that_offers_none(self) -> None:
        """Refused at start; later the database is away, until it offers TLS again."""
        own = start_server(self.engine, self.has.server._options)
        self.addCleanup(own.stop)
        self.config = self.use(own, ssl_mode="required")
        store = self.make_store()
        store.create_table()
        store.open()
        await store.put(KEY, EACH_MINUTE)

        def look(cursor: Any, now: datetime, since: float) -> Any:
            cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
            return cursor.fetchall()[0][1]

        for lane in (store._run_lane, store._api_lane):
            self.assertNotEqual(await lane.run(look), "")
        options = own._options
        own.terminate()
        own._options = (*options, *WITHOUT_TLS[self.engine])
        await deferToThread(own.start)
        error = await self.assertFailure(store.get(KEY), StoreUnavailable)
        self.assertIn("it offers no TLS; ssl-mode = preferred in [mysql]", str(error))
        required = self.config
        self.assertIn("it offers no TLS; ssl-mode = preferred in [mysql]", self.refusal(required))
        self.assertEqual(self.cipher(replace(required, ssl_mode="preferred")), "")
        own.terminate()
        own._options = options
        await deferToThread(own.start)
        await self.job(store, KEY)


@each_engine(globals(), only=("mariadb", "mysql"))
class SocketTests(ConnectionTestCase):
    """A server on the same machine, over its socket; the password has letters of many kinds."""

    async def test_socket(self) -> None:
        here = server(self.engine)
        with here.connect_as_root() as root:
            cursor = root.cursor()
            cursor.execute(f"CREATE USER '{USER}'@'localhost' IDENTIFIED BY '{LETTERS}'")
            self.addCleanup(self.forget, here)
            cursor.execute(f"GRANT ALL ON {self.config.db}.* TO '{USER}'@'localhost'")
        self.config = MySQLConfig(
            db=self.config.db, user=USER, password=LETTERS, socket=here.socket
        )
        store = self.open_store()
        await store.put(KEY, EACH_MINUTE)
        await self.job(store, KEY)
        self.assertEqual(store.where(), f"database {self.config.db!r} at {here.socket}")
        self.assertEqual(self.asked(self.config, "SELECT USER()"), (f"{USER}@localhost",))
        self.assertEqual(self.cipher(self.config), "")

    def forget(self, here: Server) -> None:
        with here.connect_as_root() as root:
            root.cursor().execute(f"DROP USER '{USER}'@'localhost'")

    def test_no_socket(self) -> None:
        for path in ("/nowhere/mysqld.sock", "/" + "x" * 200):
            sentence = self.refusal(replace(self.config, socket=path))
            self.assertIn(f"can't reach database {self.config.db!r} at {path}: ", sentence)
            self.assertNotIn(ADDRESS, sentence)
            cure = "; start the server, or name another with socket in [mysql]"
            self.assertTrue(sentence.endswith(cure), sentence)

    def test_no_server(self) -> None:
        port = free_port()
        sentence = self.refusal(replace(self.config, host=ADDRESS, port=port))
        self.assertIn(f"can't reach database {self.config.db!r} at {ADDRESS}:{port}: ", sentence)
        cure = "; start the server, or name another with host and port in [mysql]"
        self.assertTrue(sentence.endswith(cure), sentence)


def packet(number: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "little") + bytes([number]) + content


#: A password, not all of which is Latin-1, nor all of that ASCII.
LETTERS = "über den Şokkel"

#: How a MySQL server greets, as far as a client reads it.
GREETING = (
    b"\n8.0.30\0\x07\0\0\0abcdefgh\0\xff\xf7\xff\x02\0\xff\x81\x15" + bytes(10) + b"ijklmnopqrst\0"
    b"mysql_native_password\0"
)

#: What others say, packet by packet, whatever is said to them; what PyMySQL comes to is behind it.
STRANGERS = [
    [b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"],  # InternalError
    [b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"],
    [b"220 mail.example ESMTP\r\n"],
    [packet(0, b"")],  # IndexError
    [packet(0, b"\n8.0.30")],  # struct.error
    [packet(0, b"\n\xff" + GREETING[2:])],  # ValueError
    [packet(0, GREETING.replace(b"native", b"\xff\xfe"))],  # UnicodeDecodeError
    [packet(0, GREETING[:23])],  # UnboundLocalError
    [packet(0, GREETING), b"HTTP/1.1 400 Bad Request\r\n\r\n"],
]


class Stranger:
    """A server of another protocol, in a thread."""

    def __init__(self, *says: bytes) -> None:
        self._says = says
        self._socket = socket.create_server((ADDRESS, 0))
        self.port = self._socket.getsockname()[1]
        self._thread = Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return  # stopped
            with client, contextlib.suppress(OSError):
                client.settimeout(5)
                for words in self._says:
                    client.sendall(words)
                    client.recv(4096)

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


class TroubleTests(SynchronousTestCase):
    def test_without_a_number(self) -> None:
        """P6: what PyMySQL was asked wrongly is our mistake, and no connection that was lost."""
        dialect = MySQL([(ADDRESS, 1)], "test", "dalga", "root", "")
        lost = pymysql.InternalError("Packet sequence number wrong - got 1 expected 2")
        self.assertIs(dialect.trouble(lost), Trouble.LOST)
        self.assertIsNone(dialect.trouble(pymysql.ProgrammingError("execute() first")))

    def test_an_attempt_is_cheap(self) -> None:
        """P10: to wait for a server that refuses connections costs next to nothing."""
        dialect = MySQL([(ADDRESS, free_port())], "test", "dalga", "root", "")
        before = time.thread_time()
        for _ in range(100):
            self.assertRaises(pymysql.OperationalError, dialect.connect)
        self.assertLess(time.thread_time() - before, 0.5)

    def test_what_is_ours(self) -> None:
        """A mistake in what is done with a new connection is not what answers there."""
        dialect = MySQL([(ADDRESS, 1)], "test", "dalga", "root", "")
        connection = pymysql.Connection(defer_connect=True)
        self.patch(connection, "connect", lambda _: None)
        self.patch(dialect, "_dial", lambda _: None)
        connection._sock = socket.socket()  # type: ignore[attr-defined]
        connection.server_thread_id = (1,)  # type: ignore[attr-defined]
        self.patch(pymysql, "connect", lambda **_: connection)
        self.patch(dialect, "set_up", lambda _: dict[str, str]()["no such key"])
        self.assertRaises(KeyError, dialect.connect)


@each_engine(globals(), only=("mariadb", "mysql"))
class SilentTests(ConnectionTestCase):
    """A middlebox has forgotten the connections that there are, and tells nobody."""

    timeout = 60

    async def test_those_that_were_idle(self) -> None:
        """One is found to be dead by its time-out; the others are not tried any more."""
        self.open_store()
        host = server(self.engine)
        proxy = Proxy(real_reactor, host.host, host.port)
        proxy.listen()
        self.addCleanup(proxy.close)
        config = replace(
            self.config, host="127.0.0.1", port=proxy.port, ssl_mode="disabled", read_timeout=2.0
        )
        clock = DatabaseClock(steady_seconds)
        dialect = database.server(config)
        transactions = Transactions(
            real_reactor, dialect, clock, Random(1), 3, LastLoss(), Metrics()
        )
        self.addCleanup(transactions.close)

        async def ask_all() -> float:
            """Use each of the connections; gives how long that took, in seconds."""

            def work(cursor: Any, now: datetime, since: float) -> None:
                cursor.execute("SELECT SLEEP(0.1)")

            began = steady_seconds()
            await gatherResults([transactions.run(work) for _ in range(3)])
            return steady_seconds() - began

        await ask_all()
        proxy.mute()
        await transactions.run(lambda cursor, now, since: None)
        # A connection that was silent, too, would take 2 s to be found so.
        self.assertLess(await ask_all(), 1.5)


@each_engine(globals(), only=("mariadb", "mysql"))
class HostsTests(ConnectionTestCase):
    """Several hosts, in order: the first that can be used and takes writes."""

    timeout = 120

    def spare(self) -> Server:
        """A second server, for tests that leave it as it was: it takes writes, and runs."""
        return spare(self.engine)

    def with_tables(self, *servers: Server, **settings: Any) -> JobsTable:
        """A store on several servers, each with a table: only one of them has the jobs."""
        self.config = self.use(*servers, **settings)
        hosts = self.config.host
        for each in servers:
            self.config = replace(self.config, host=f"{each.host}:{each.port}")
            self.make_store().create_table()
        self.config = replace(self.config, host=hosts)
        store = self.make_store()
        store.open()
        return store

    def port(self) -> int:
        """Of the server that a new connection comes to."""
        return int(self.asked(self.config, "SELECT @@port")[0])

    def total(self, host: Server) -> int:
        """How many jobs are on a server."""
        with closing(host.connect(database=self.config.db)) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT COUNT(*) FROM dalga")
            ((total,),) = cursor.fetchall()
        return int(total)

    def only_reads(self, host: Server, value: bool) -> None:
        """Let a server take no writes, or take them again, as at the test's end."""
        with host.connect_as_root() as root:
            root.cursor().execute(f"SET GLOBAL read_only = {int(value)}")
        if value:
            self.addCleanup(self.only_reads, host, False)

    async def use_all_connections(self, store: JobsTable) -> None:
        calls: list[Deferred[Any]] = [store.now() for _ in range(20)]
        calls += [store.announce("a") for _ in range(20)]
        await gatherResults(calls)

    async def test_first_is_down(self) -> None:
        here = server(self.engine)
        self.make_store().create_table()
        for first in (f"{ADDRESS}:{free_port()}", "no..host"):
            self.config = replace(self.config, host=f"{first}, {here.host}")
            store = self.make_store()
            store.open()
            await store.put(KEY, EACH_MINUTE)
            await self.job(store, KEY)
            self.assertEqual(self.port(), here.port)

    def test_none(self) -> None:
        """What each of them says is told."""
        here = server(self.engine)
        down = f"{ADDRESS}:{free_port()}"
        wrong = replace(self.config, host=f"{down},{here.host}:{here.port}", password="wrong")
        sentence = self.refusal(wrong)
        place = f"{here.host}:{here.port}"
        self.assertIn(f"database {self.config.db!r} at {down} or {place}: {down}: ", sentence)
        self.assertIn(f"; {place}: Access denied", sentence)
        self.assertEqual(
            database.server(replace(wrong, host="::1, [::2]:3")).where(),
            f"database {self.config.db!r} at [::1]:{here.port} or [::2]:3",
        )

    async def test_no_database_server(self) -> None:
        """What speaks another protocol is refused at start, away later, and passed over."""
        here = server(self.engine)
        self.make_store().create_table()
        usual = replace(self.config, host=f"{here.host}:{here.port}")
        for says in STRANGERS:
            stranger = Stranger(*says)
            self.addCleanup(stranger.stop)
            host = f"{ADDRESS}:{stranger.port}"
            why = f"{host}: what answers there is no MySQL or MariaDB server"
            sentence = self.refusal(replace(usual, host=host))
            self.assertEqual(sentence, f"can't use database {usual.db!r} at {why}", says)
            error = await self.assertFailure(self.make_store().get(KEY), StoreUnavailable)
            self.assertIn("what answers there is no MySQL or MariaDB server", str(error))
            down = f"{ADDRESS}:{free_port()}"
            self.assertIn(f"; {why}", self.refusal(replace(usual, host=f"{down}, {host}")))
            self.config = replace(usual, host=f"{host}, {usual.host}")
            store = self.make_store()
            store.open()
            await store.put(KEY, EACH_MINUTE)

    def test_a_silent_server(self) -> None:
        """What takes connections, and says nothing, is named as such."""
        with socket.create_server((ADDRESS, 0)) as silent:
            port = silent.getsockname()[1]
            self.config = replace(self.config, host=ADDRESS, port=port, dial_timeout=0.3)
            why = "it takes connections, but nothing comes from it within readTimeout"
            self.assertIn(why, self.refusal(replace(self.config, read_timeout=0.3)))

    async def test_a_locked_account(self) -> None:
        """It is refused at start, waited for later, and passed over where there is another."""
        first, second = self.spare(), server(self.engine)
        store = self.with_tables(first, second)
        both, sole = self.config, replace(self.config, host=f"{first.host}:{first.port}")
        await store.put(KEY, EACH_MINUTE)
        self.assertEqual(self.total(first), 1)
        self.config = sole
        running = self.make_store()

        def account(state: str) -> None:
            with first.connect_as_root() as root:
                root.cursor().execute(f"ALTER USER '{USER}'@'{ADDRESS}' ACCOUNT {state}")

        self.addCleanup(account, "UNLOCK")
        account("LOCK")
        sentence = self.refusal(sole)
        self.assertIn(
            f"user {USER!r} can't log in to database {sole.db!r} at {sole.host}", sentence
        )
        self.assertIn("locked", sentence)
        error = await self.assertFailure(running.get(KEY), StoreUnavailable)
        self.assertIn("locked", str(error))
        self.config = both
        store = self.make_store()
        store.open()
        await store.put(KEY, EACH_MINUTE)
        self.assertEqual((self.port(), self.total(second)), (second.port, 1))
        account("UNLOCK")
        await running.get(KEY)

    async def test_first_says_nothing(self) -> None:
        """A frozen server takes connections all the same: it is left when no answer comes."""
        first, second = self.spare(), server(self.engine)
        self.config = self.use(first, second, read_timeout=2.0)
        first.signal(SIGSTOP)
        try:
            before = time.monotonic()
            self.assertEqual(self.port(), second.port)
            self.assertLess(time.monotonic() - before, 6)
        finally:
            first.signal(SIGCONT)

    async def test_first_only_reads(self) -> None:
        """A replica that is first is passed over, also for --create-table."""
        first, second = self.spare(), server(self.engine)
        self.config = self.use(first, second)
        self.only_reads(first, True)
        store = self.make_store()
        store.create_table()
        store.open()
        await self.use_all_connections(store)
        await store.put(KEY, EACH_MINUTE)
        self.assertEqual((self.port(), self.total(second)), (second.port, 1))
        await store.close()

    async def test_a_sole_server_that_only_reads(self) -> None:
        """It is used for what it can do, but no daemon starts on it."""
        own = self.spare()
        store = self.with_tables(own)
        await store.put(KEY, EACH_MINUTE)
        self.only_reads(own, True)
        await self.job(store, KEY)
        await self.assertFailure(store.put(KEY, EACH_MINUTE), StoreUnavailable)
        self.assertEqual(self.port(), own.port)
        self.assertIn("it has to be a server that takes writes", self.refusal(self.config))
        self.only_reads(own, False)
        await store.put(KEY, EACH_MINUTE)

    async def test_failover(self) -> None:
        """
        P5: a primary that dies is replaced by a replica that gets writable, with no restart; when
        it comes back as a replica, nobody goes to it.
        """
        first, second = start_server(self.engine), self.spare()
        self.addCleanup(first.stop)
        store = self.with_tables(first, second)
        self.only_reads(second, True)
        await self.use_all_connections(store)
        await store.put(KEY, EACH_MINUTE)
        self.assertEqual((self.total(first), self.total(second)), (1, 0))
        first.kill()
        error = await self.assertFailure(store.put(KEY, EACH_MINUTE), StoreUnavailable)
        self.assertIn(f"{second.host}:{second.port}: it takes no writes", str(error))
        await self.assertFailure(store.get(KEY), StoreUnavailable)
        self.only_reads(second, False)
        await store.put(KEY, EACH_MINUTE)
        await self.use_all_connections(store)
        self.assertEqual(self.total(second), 1)
        first._options = ("--read-only=ON",)
        await deferToThread(first.start)
        self.assertEqual(self.port(), second.port)
        await store.put(JobKey("other", "job"), EACH_MINUTE)
        self.assertEqual((self.total(first), self.total(second)), (1, 2))

    async def test_switchover(self) -> None:
        """
        Two servers that change their parts while both are up: every call goes to the new primary
        at once, those that only read, too, and none fails.
        """
        first, second = server(self.engine), self.spare()
        store = self.with_tables(first, second)
        self.only_reads(second, True)
        await store.put(KEY, EACH_MINUTE)
        await self.use_all_connections(store)
        self.only_reads(first, True)
        self.only_reads(second, False)
        counts = await gatherResults([store.counts() for _ in range(9)])
        self.assertEqual([each.total for each in counts], [0] * 9)
        dues = await gatherResults([store.due_within(MINUTE, 9) for _ in range(9)])
        self.assertEqual([each.times for each in dues], [[]] * 9)
        await self.assertFailure(store.get(KEY), JobNotFound)
        await store.put(KEY, EACH_MINUTE)
        self.assertEqual(self.total(second), 1)
