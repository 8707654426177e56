"""
Which server's certificate is taken (P11): each shape on a real TLS server, to which a run is
POSTed. `make test-lowest` runs these with the lowest versions of what checks certificates, too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_PEM, X509, dump_certificate
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import CertificateOptions
from zope.interface import implementer

from dalga.errors import StartupError
from dalga.model.attempt import ErrorKind
from dalga.model.run import Outcome
from dalga.outgoing import trust as dalga_trust
from dalga.outgoing.endpoint import Endpoint
from dalga.outgoing.pool import Way
from dalga.outgoing.trust import Trust
from tests.certificates import DAY, Authority, ask_for, dns, ip, write
from tests.test_endpoint import LONG, OK, EndpointCase, a_run, says

reactor: Any = real_reactor

#: What an outcome says behind "the certificate of localhost:1234".
OTHER = "is for another host"
NO_NAME = "has no subjectAltName that can be used"
UNREADABLE = "is malformed and can't be checked"
UNKNOWN = "is signed by no CA that is trusted here"

#: The DER of general names (RFC 5280 section 4.2.1.6) that no CA should sign.
URI, DNS, ADDRESS, EMAIL = 0x86, 0x82, 0x87, 0x81


def san(*names: tuple[int, bytes]) -> bytes:
    """A subjectAltName as DER."""
    inside = b"".join(bytes([tag, len(value)]) + value for tag, value in names)
    return bytes([0x30, len(inside)]) + inside


Issue = Callable[[Authority], CertificateOptions]


class CertificateTests(EndpointCase):
    """The POST goes to a server whose certificate is for its host, and to no other."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.ca = self.authority.write(self.mktemp())

    @inlineCallbacks
    def check(self, host: str, certificate: CertificateOptions, refusal: str | None) -> Any:
        """
        :param refusal: how the outcome's words go on behind the server's name; None for a 200.
        """
        server = self.serve(says(OK), certificate)
        if host.endswith(("dalga.test", "dalga.test.")):
            self.resolve(host, server.port)
        endpoint = Endpoint(
            reactor, f"https://{host}:{server.port}/", LONG, "here", 1, Trust(self.ca)
        )
        outcome = yield endpoint.post(a_run())
        yield endpoint.close()
        if refusal is None:
            self.assertEqual((outcome.status, outcome.error), (200, ""), host)
            self.assertEqual(len(server.requests), 1)
        else:
            start = f"TLS: the certificate of {host}:{server.port} {refusal}"
            self.assertTrue(outcome.error.startswith(start), f"{outcome} is not {start!r}")
            self.assertEqual((outcome.status, server.requests), (None, []))
        for conversation in server.connections:
            yield conversation.lost
        # What the server's side has to say of a handshake that the client ended.
        self.flushLoggedErrors()

    @inlineCallbacks
    def check_all(self, host: str, table: list[tuple[Issue, str | None]]) -> Any:
        for issue, refusal in table:
            yield self.check(host, issue(self.authority), refusal)

    def test_a_name(self) -> Any:
        """Only the subjectAltName says whom a certificate is for, never the subject."""
        attacker = "attacker.example"
        return self.check_all(
            "localhost",
            [
                (lambda ca: ca.issue(dns("localhost")), None),
                (lambda ca: ca.issue(dns("LocalHost")), None),
                (lambda ca: ca.issue(dns(attacker), dns("localhost"), ip("10.0.0.1")), None),
                (lambda ca: ca.issue(dns("localhost"), common_name=attacker), None),
                (lambda ca: ca.issue(common_name=attacker), NO_NAME),
                (lambda ca: ca.issue(common_name="localhost"), NO_NAME),
                (lambda ca: ca.issue(), NO_NAME),
                (lambda ca: ca.issue(dns(attacker)), OTHER),
                (lambda ca: ca.issue(dns(attacker), common_name="localhost"), OTHER),
                (lambda ca: ca.issue(ip("127.0.0.1"), common_name="localhost"), OTHER),
                (lambda ca: ca.issue(dns("localhost.attacker.example")), OTHER),
                (lambda ca: ca.issue(dns("notlocalhost")), OTHER),
                (lambda ca: ca.issue(dns("localhost.")), OTHER),
                (lambda ca: ca.issue(san=san((EMAIL, b"a@localhost"))), NO_NAME),
                (lambda ca: ca.issue(san=san((URI, b"https://localhost"))), ""),
            ],
        )

    def test_an_address(self) -> Any:
        """An address is looked for among the addresses, and a name that looks like it is none."""
        return self.check_all(
            "127.0.0.1",
            [
                (lambda ca: ca.issue(ip("127.0.0.1")), None),
                (lambda ca: ca.issue(dns("attacker.example"), ip("127.0.0.1")), None),
                (lambda ca: ca.issue(ip("127.0.0.2")), OTHER),
                (lambda ca: ca.issue(ip("::ffff:127.0.0.1")), OTHER),
                (lambda ca: ca.issue(dns("localhost")), OTHER),
                (lambda ca: ca.issue(dns("127.0.0.1")), NO_NAME),
                (lambda ca: ca.issue(common_name="127.0.0.1"), NO_NAME),
                (lambda ca: ca.issue(dns("*"), common_name="127.0.0.1"), NO_NAME),
                (lambda ca: ca.issue(san=san((ADDRESS, b"\x7f\0\1"))), UNREADABLE),
            ],
        )

    def test_wildcards(self) -> Any:
        """A star stands for all of one label, and the first one only (RFC 9525 section 6.3)."""
        return self.check_all(
            "app.dalga.test",
            [
                (lambda ca: ca.issue(dns("*.dalga.test")), None),
                (lambda ca: ca.issue(dns("*.DALGA.test")), None),
                (lambda ca: ca.issue(dns("*.example.test"), dns("*.dalga.test")), None),
                (lambda ca: ca.issue(dns("*.example.test")), OTHER),
                (lambda ca: ca.issue(dns("*.app.dalga.test")), OTHER),
                (lambda ca: ca.issue(dns("a*.dalga.test")), OTHER),
                (lambda ca: ca.issue(dns("*pp.dalga.test")), OTHER),
                (lambda ca: ca.issue(dns("*.test")), NO_NAME),
                (lambda ca: ca.issue(dns("*")), NO_NAME),
                (lambda ca: ca.issue(dns("*.*.test")), NO_NAME),
                (lambda ca: ca.issue(dns("app.*.test")), NO_NAME),
                (lambda ca: ca.issue(dns("app.dalga.*")), NO_NAME),
                (lambda ca: ca.issue(common_name="*.dalga.test"), NO_NAME),
            ],
        )

    def test_a_name_that_reads_as_an_address(self) -> Any:
        """An address is never compared with a name, though these bytes are the same."""
        return self.check_all(
            "a.dalga.test",
            [
                (lambda ca: ca.issue(san=san((ADDRESS, b"a.dalga.test"))), UNREADABLE),
                (lambda ca: ca.issue(san=san((ADDRESS, b"a.da"))), OTHER),
            ],
        )

    @inlineCallbacks
    def test_a_wildcard_is_for_one_label(self) -> Any:
        for host in ("a.app.dalga.test", "dalga.test"):
            yield self.check(host, self.authority.issue(dns("*.dalga.test")), OTHER)

    def test_a_name_that_is_complete(self) -> Any:
        """A dot at a host's end is no part of its name."""
        return self.check_all(
            "app.dalga.test.",
            [
                (lambda ca: ca.issue(dns("app.dalga.test")), None),
                (lambda ca: ca.issue(dns("dalga.test")), OTHER),
            ],
        )

    def test_a_name_with_an_underscore(self) -> Any:
        """Containers are called so, and a private CA signs that."""
        return self.check_all(
            "my_app.dalga.test",
            [
                (lambda ca: ca.issue(dns("my_app.dalga.test")), None),
                (lambda ca: ca.issue(dns("my-app.dalga.test")), OTHER),
            ],
        )

    def test_what_is_malformed(self) -> Any:
        """What can't be read is for nobody, also where a good name stands beside it."""
        good = (DNS, b"localhost")
        return self.check_all(
            "localhost",
            [
                (lambda ca: ca.issue(san=san(good)), None),  # so that the others fail for a reason
                (lambda ca: ca.issue(san=san()), NO_NAME),
                # OpenSSL may find the chain at fault.
                (lambda ca: ca.issue(san=b""), ""),
                (lambda ca: ca.issue(san=b"no DER"), ""),
                (lambda ca: ca.issue(san=san(good)[:-1]), ""),
                (lambda ca: ca.issue(san=san((DNS, b"local\0host"))), ""),
                (lambda ca: ca.issue(san=san((DNS, b"localhost\0.attacker.example"))), ""),
                (lambda ca: ca.issue(san=san((DNS, b""))), ""),
                (lambda ca: ca.issue(san=san((DNS, b"localh\xf6st"))), ""),
                (lambda ca: ca.issue(san=san((DNS, b"localhost\xff"), good)), ""),
                (lambda ca: ca.issue(san=san((DNS, b"10.0.0.1"), good)), NO_NAME),
                (lambda ca: ca.issue(san=san((ADDRESS, b"\1\2\3"), good)), UNREADABLE),
                (lambda ca: ca.issue(san=san((URI, b"no-colon"), good)), NO_NAME),
            ],
        )

    def test_who_signed(self) -> Any:
        """A certificate counts where the chain to a CA that is trusted is whole, and now."""
        name = dns("localhost")

        def by(authority: Authority) -> CertificateOptions:
            return authority.issue(name)

        def with_root(authority: Authority) -> CertificateOptions:
            """As a server that sends its root as well."""
            options = by(authority)
            options.extraCertChain.append(X509.from_cryptography(authority.certificate))
            return options

        client_only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        return self.check_all(
            "localhost",
            [
                (lambda ca: by(Authority(ca)), None),
                (lambda ca: by(Authority(Authority(ca))), None),
                (lambda ca: by(Authority()), UNKNOWN),
                (lambda ca: by(Authority(Authority())), UNKNOWN),
                (lambda ca: with_root(Authority()), UNKNOWN),
                (
                    lambda ca: ca.issue(name, self_signed=True),
                    "is signed by itself, and not trusted here",
                ),
                (
                    lambda ca: ca.issue(name, self_signed=True, common_name="localhost"),
                    "is signed by itself, and not trusted here",
                ),
                (lambda ca: ca.issue(name, valid=(-2 * DAY, -DAY)), "has expired"),
                (lambda ca: ca.issue(name, valid=(DAY, 2 * DAY)), "is not valid yet"),
                (
                    lambda ca: by(Authority(ca, valid=(-2 * DAY, -DAY))),
                    "is signed by a CA whose certificate has expired",
                ),
                (lambda ca: ca.issue(name, extensions=[client_only]), "is not one for servers"),
                (
                    lambda ca: by(Authority(ca, ca=False)),
                    "is signed by a CA whose certificate is refused by OpenSSL",
                ),
            ],
        )

    @inlineCallbacks
    def test_a_check_that_breaks(self) -> Any:
        """Whatever a check does other than succeed refuses: also a mistake of the library's."""
        for broken in (RuntimeError("odd"), KeyError("odd"), MemoryError(), GeneratorExit()):

            def check(*_: object, broken: BaseException = broken) -> None:
                raise broken

            self.patch(dalga_trust, "_check_host", check)
            yield self.check("localhost", self.authority.issue(dns("localhost")), UNREADABLE)


class ConnectionTests(EndpointCase):
    """What is told to the server, and agreed on with it."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.trust = Trust(self.authority.write(self.mktemp()))

    def agree(self, host: str, server: SSL.Context) -> str:
        """Have both sides shake hands; gives the protocol that they agreed on."""
        ours = self.trust.for_host(host).clientConnectionForTLS(None)
        theirs = SSL.Connection(server)
        ours.set_connect_state()
        theirs.set_accept_state()
        done = 0
        while done < 2:
            done = 0
            for one, other in ((ours, theirs), (theirs, ours)):
                try:
                    one.do_handshake()
                    done += 1
                except SSL.WantReadError:
                    pass
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(one.bio_read(65536))
        return str(ours.get_protocol_version_name())

    def test_the_name_that_is_asked_for(self) -> None:
        """A server of many hosts chooses its certificate by it; an address is none (RFC 6066)."""
        for host, name, expected in (
            ("app.dalga.test", dns("app.dalga.test"), b"app.dalga.test"),
            ("app.dalga.test.", dns("app.dalga.test"), b"app.dalga.test"),
            ("127.0.0.1", ip("127.0.0.1"), None),
            ("::1", ip("::1"), None),
        ):
            asked: list[bytes | None] = []
            server = self.authority.issue(name).getContext()
            server.set_tlsext_servername_callback(
                partial(lambda asked, connection: asked.append(connection.get_servername()), asked)
            )
            self.agree(host, server)
            self.assertEqual(asked or [None], [expected], host)

    def test_old_versions(self) -> None:
        """TLS 1.0 and 1.1 are refused (RFC 8996), also where OpenSSL's configuration has them."""
        ca = self.authority.write(self.mktemp())
        for version, name in (
            (SSL.TLS1_1_VERSION, None),
            (SSL.TLS1_2_VERSION, "TLSv1.2"),
            (SSL.TLS1_3_VERSION, "TLSv1.3"),
        ):
            server = Versioned(self.authority.issue(dns("localhost")), version).context
            self.trust = Trust(ca)
            for each in (server, self.trust._context):
                each.set_cipher_list(b"ALL:@SECLEVEL=0")
            if name is None:
                self.assertRaises(SSL.Error, self.agree, "localhost", server)
            else:
                self.assertEqual(self.agree("localhost", server), name)

    def test_settings(self) -> None:
        """No compression (CRIME), no renegotiation, and no buffers for connections that idle."""
        context = self.trust._context
        wanted = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
        self.assertEqual(context.set_options(0) & wanted, wanted)
        self.assertTrue(context.set_mode(0) & SSL.MODE_RELEASE_BUFFERS)


class AuthorityTests(EndpointCase):
    """Which CAs are trusted."""

    @inlineCallbacks
    def status(self, certificate: CertificateOptions, trust: Trust) -> Any:
        server = self.serve(says(OK), certificate)
        endpoint = Endpoint(reactor, f"https://localhost:{server.port}/", LONG, "here", 1, trust)
        outcome = yield endpoint.post(a_run())
        yield endpoint.close()
        yield server.connections[0].lost
        self.flushLoggedErrors()
        return outcome.status

    def platform(self, path: str) -> None:
        """Have OpenSSL trust the CAs of a file, as if they were the platform's."""
        self.patch(os, "environ", {**os.environ})
        before = os.environ.get("SSL_CERT_FILE")

        def restore() -> None:
            os.unsetenv("SSL_CERT_FILE")
            if before is not None:
                os.putenv("SSL_CERT_FILE", before)

        self.addCleanup(restore)
        os.putenv("SSL_CERT_FILE", path)

    @inlineCallbacks
    def test_the_platform_or_ones_own(self) -> Any:
        """A ``ca`` stands in for the platform's CAs, which are not trusted beside it."""
        public, private = Authority(), Authority()
        self.platform(public.write(self.mktemp()))
        own = private.write(self.mktemp())
        for authority, ca, expected in (
            (public, "", 200),
            (private, "", None),
            (public, own, None),
            (private, own, 200),
        ):
            status = yield self.status(authority.issue(dns("localhost")), Trust(ca))
            self.assertEqual(status, expected, (authority is public, ca))

    @inlineCallbacks
    def test_several_in_a_file(self) -> Any:
        """Each of a file's certificates is trusted, whatever text stands around them."""
        authorities = [Authority() for _ in range(3)]
        path = self.mktemp()
        with open(path, "w") as file:
            for authority in authorities:
                file.write(f"# a CA\n{Path(authority.write(self.mktemp())).read_text()}\n")
        trust = Trust(path)
        for authority in authorities:
            status = yield self.status(authority.issue(dns("localhost")), trust)
            self.assertEqual(status, 200)

    @inlineCallbacks
    def test_an_intermediate(self) -> Any:
        """An intermediate CA in the file is trusted, and what else its root has signed is not."""
        root = Authority()
        intermediate, other = Authority(root), Authority(root)
        trust = Trust(intermediate.write(self.mktemp()))
        for authority, expected in ((intermediate, 200), (other, None), (root, None)):
            status = yield self.status(authority.issue(dns("localhost")), trust)
            self.assertEqual(status, expected)

    @inlineCallbacks
    def test_the_servers_own(self) -> Any:
        """A server's own certificate in the file is trusted, and no other of its CA."""
        authority = Authority()
        for self_signed in (True, False):
            own, other = (
                authority.issue(dns("localhost"), common_name="app", self_signed=self_signed)
                for _ in range(2)
            )
            path = self.mktemp()
            assert own.certificate is not None
            Path(path).write_bytes(dump_certificate(FILETYPE_PEM, own.certificate))
            for certificate, expected in ((own, 200), (other, None)):
                status = yield self.status(certificate, Trust(path))
                self.assertEqual(status, expected)

    @inlineCallbacks
    def test_read_once(self) -> Any:
        """The file is read at the start: there may be no privileges to do so later."""
        authority = Authority()
        path = authority.write(self.mktemp())
        trust = Trust(path)
        os.unlink(path)
        status = yield self.status(authority.issue(dns("localhost")), trust)
        self.assertEqual(status, 200)

    def test_files_that_will_not_do(self) -> None:
        """The sentence says what is in the way, and what would do."""
        folder, empty, text, pipe = self.mktemp(), self.mktemp(), self.mktemp(), self.mktemp()
        os.mkdir(folder)
        os.mkfifo(pipe)
        open(empty, "w").close()
        with open(text, "w") as file:
            file.write("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        for path, why in (
            ("/no/such/file", "can't be read (No such file or directory)"),
            (folder, "can't be read (Is a directory)"),
            ("/dev/zero", "can't be read (it is no file)"),
            (pipe, "can't be read (it is no file)"),
            (empty, "has no certificate in it"),
            (text, "has no certificate in it"),
        ):
            error = self.assertRaises(StartupError, Trust, path)
            self.assertIn(f"ca in [endpoint] is {path!r}, which {why}", str(error))


class OwnCertificateTests(EndpointCase):
    """Servers that ask for a certificate of the client."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.ca = self.authority.write(self.mktemp())
        self.clients = Authority()

    def own(self, authority: Authority, name: str = "dalga") -> tuple[str, str]:
        """The files of a certificate and its key."""
        return write(authority.issue(common_name=name), self.mktemp(), self.mktemp())

    async def outcome(self, trust: Trust) -> Outcome:
        options = ask_for(self.clients, self.authority.issue(dns("localhost")))
        server = self.serve(says(OK), options)
        endpoint = Endpoint(reactor, f"https://localhost:{server.port}/", LONG, "i", 1, trust)
        outcome = await endpoint.post(a_run())
        await endpoint.close()
        for conversation in server.connections:
            await conversation.lost
        self.flushLoggedErrors()
        self.assertEqual(len(server.requests), 1 if outcome.status == 200 else 0)
        return outcome

    async def test_shown(self) -> None:
        cert, key = self.own(self.clients)
        outcome = await self.outcome(Trust(self.ca, cert=cert, key=key))
        self.assertEqual((outcome.status, outcome.error), (200, ""))

    async def test_refused(self) -> None:
        """None, and one of another CA; the outcome says that TLS is at fault."""
        cert, key = self.own(self.authority)
        for trust in (Trust(self.ca), Trust(self.ca, cert=cert, key=key)):
            outcome = await self.outcome(trust)
            self.assertEqual((outcome.status, outcome.kind), (None, ErrorKind.TLS))

    async def test_a_chain(self) -> None:
        """The CAs in between stand in the same file, behind the certificate."""
        between = Authority(self.clients)
        cert, key = self.own(between)
        outcome = await self.outcome(Trust(self.ca, cert=cert, key=key))
        self.assertEqual(outcome.status, None)
        with open(cert, "ab") as file:
            file.write(Path(between.write(self.mktemp())).read_bytes())
        outcome = await self.outcome(Trust(self.ca, cert=cert, key=key))
        self.assertEqual((outcome.status, outcome.error), (200, ""))

    def test_files_that_will_not_do(self) -> None:
        cert, key = self.own(self.clients)
        other = self.own(self.clients)[1]
        empty, encrypted = self.mktemp(), self.mktemp()
        open(empty, "w").close()
        private = serialization.load_pem_private_key(Path(key).read_bytes(), None)
        Path(encrypted).write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"s3cret"),
            )
        )
        for cert_, key_, sentence in (
            ("/no/such", key, "cert in [endpoint x] is '/no/such', which can't be read (No such"),
            (empty, key, f"cert in [endpoint x] is {empty!r}, which has no certificate in it"),
            (key, key, f"cert in [endpoint x] is {key!r}, which has no certificate in it"),
            (cert, "/no/such", "key in [endpoint x] is '/no/such', which can't be read (No such"),
            (cert, empty, f"key in [endpoint x] is {empty!r}, which has no private key in it"),
            (cert, other, f"key in [endpoint x] is {other!r}, which has no private key in it that"),
            (cert, encrypted, f"key in [endpoint x] is {encrypted!r}, which is encrypted"),
        ):
            error = self.assertRaises(StartupError, Trust, "", "endpoint x", cert=cert_, key=key_)
            self.assertIn(sentence, str(error))


class VerifiedNameTests(EndpointCase):
    """``verifyName``: the name that the certificate must have, in the place of the host's."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.trust = Trust(self.authority.write(self.mktemp()))

    async def outcome(self, verify_name: str, *names: x509.GeneralName) -> Outcome:
        server = self.serve(says(OK), self.authority.issue(*names))
        way = Way(verify_name=verify_name)
        url = f"https://127.0.0.1:{server.port}/"
        endpoint = Endpoint(reactor, url, LONG, "i", 1, self.trust, way=way)
        outcome = await endpoint.post(a_run())
        await endpoint.close()
        for conversation in server.connections:
            await conversation.lost
        self.flushLoggedErrors()
        if outcome.status == 200:
            host = f"Host: 127.0.0.1:{server.port}\r\n".encode()
            self.assertIn(host, server.requests[0])
        else:
            self.assertEqual(server.requests, [])
        return outcome

    async def test_names(self) -> None:
        name = "app.dalga.test"
        for verify_name, names, status in (
            (name, [dns(name)], 200),
            (name, [dns("*.dalga.test")], 200),
            (name, [dns("other.dalga.test"), ip("127.0.0.1")], None),  # the host counts no more
            ("", [ip("127.0.0.1")], 200),
            ("", [dns(name)], None),
            ("10.0.0.1", [ip("10.0.0.1")], 200),
        ):
            outcome = await self.outcome(verify_name, *names)
            self.assertEqual(outcome.status, status, (verify_name, outcome.error))
            if status is None:
                self.assertIn("is for another host", outcome.error)


class ExpiryTests(EndpointCase):
    """When the certificate ends that an endpoint has shown."""

    async def test_seen(self) -> None:
        """It is that of the last certificate that was accepted; one that is refused says nothing"""
        authority = Authority()
        trust = Trust(authority.write(self.mktemp()))
        seen: list[datetime] = []
        for days, name in ((1, "localhost"), (30, "localhost"), (60, "attacker.example")):
            options = authority.issue(dns(name), valid=(-DAY, days * DAY))
            server = self.serve(says(OK, close=True), options)
            if not seen:
                endpoint = Endpoint(
                    reactor, f"https://localhost:{server.port}/", LONG, "i", 1, trust
                )
                self.assertIsNone(endpoint.certificate_expires)
            self.resolve("localhost", server.port)
            endpoint._route.lookup.doubt()
            outcome = await endpoint.post(a_run())
            self.assertEqual(outcome.status, None if days == 60 else 200, outcome.error)
            assert endpoint.certificate_expires is not None
            seen.append(endpoint.certificate_expires)
            for conversation in server.connections:
                await conversation.lost
            self.flushLoggedErrors()
        await endpoint.close()
        now = datetime.now(UTC)
        ahead = [round((instant - now) / DAY) for instant in seen]
        self.assertEqual(ahead, [1, 30, 30])

    async def test_without_tls(self) -> None:
        server = self.serve(says(OK))
        endpoint = self.endpoint(server.baseurl)
        await endpoint.post(a_run())
        self.assertIsNone(endpoint.certificate_expires)


class OldServerTests(EndpointCase):
    """Over real sockets, with a server whose OpenSSL knows old versions."""

    async def outcome(self, version: int) -> Outcome:
        authority = Authority()
        trust = Trust(authority.write(self.mktemp()))
        old = Versioned(authority.issue(dns("localhost")), version)
        for context in (old.context, trust._context):
            context.set_cipher_list(b"ALL:@SECLEVEL=0")
        server = self.serve(says(OK), old)
        endpoint = Endpoint(reactor, f"https://localhost:{server.port}/", LONG, "i", 1, trust)
        outcome = await endpoint.post(a_run())
        await endpoint.close()
        for conversation in server.connections:
            await conversation.lost
        self.flushLoggedErrors()
        self.assertEqual(len(server.requests), 1 if outcome.status == 200 else 0)
        return outcome

    async def test_versions(self) -> None:
        outcome = await self.outcome(SSL.TLS1_1_VERSION)
        self.assertEqual((outcome.status, outcome.kind), (None, ErrorKind.TLS))
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            self.assertEqual((await self.outcome(version)).status, 200)


@implementer(IOpenSSLContextFactory)
class Versioned:
    """What a server needs for one version of TLS. Twisted's own would not know TLS 1.1."""

    def __init__(self, options: CertificateOptions, version: int) -> None:
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        assert options.privateKey is not None and options.certificate is not None
        self.context.use_privatekey(options.privateKey)
        self.context.use_certificate(options.certificate)
        self.context.set_min_proto_version(version)
        self.context.set_max_proto_version(version)

    def getContext(self) -> SSL.Context:
        """See `IOpenSSLContextFactory`."""
        return self.context
