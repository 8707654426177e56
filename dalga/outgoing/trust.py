"""
TLS to the endpoint: which server's certificate is accepted, and which one Dalga shows for itself.

A certificate is accepted if two checks succeed:

- A trusted CA has signed it (RFC 5280 section 6; OpenSSL checks that).
- Its subjectAltName has the host of ``baseurl``, or the name of ``verifyName`` in its place (RFC
  9525 section 6; service_identity checks that).

In all other cases the certificate is refused, also if a check raises an error that nobody expected.
So no POST goes to a server that was not checked (P11).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from OpenSSL.crypto import FILETYPE_PEM, X509, X509StoreFlags
from OpenSSL.SSL import (
    MODE_RELEASE_BUFFERS,
    OP_NO_COMPRESSION,
    OP_NO_RENEGOTIATION,
    TLS1_2_VERSION,
    TLS_CLIENT_METHOD,
    VERIFY_FAIL_IF_NO_PEER_CERT,
    VERIFY_PEER,
    Connection,
    Context,
    Error,
    X509VerificationCodes,
    ZeroReturnError,
)
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from dalga.config.content import file_content
from dalga.errors import StartupError
from dalga.log import logger

log = logger(__name__)

#: At most this much of a file is looked at, in octets. All CAs of a system have some 200,000.
MAX_PEM = 16 * 1024 * 1024


class Refused(Error):
    """
    A server's certificate was refused.

    It is a subclass of pyOpenSSL's error, as Twisted ends a handshake in an orderly way for that
    error only.

    :param why: the rest of a sentence that begins with "the certificate of <the server>".
    """

    def __init__(self, why: str) -> None:
        # Twisted looks into the error's queue, whose entries are: library, function, reason.
        super().__init__([("dalga", "", why)])
        self.why = why


class Trust:
    """
    The trusted CAs, Dalga's own certificate, and the TLS connections that are made with both.

    The files are read when a `Trust` is made. Make it at the start: later the process may have no
    privileges to read them.

    :param ca: the path of a file with certificates of CAs, in PEM form: these CAs are trusted, and
        no others. If it is "", the platform's CAs are trusted: those in OpenSSL's folder and file,
        or in the file and folder that ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name.
    :param section: the section of the configuration that names the files, for sentences.
    :param cert: the path of a file in PEM form: the certificate that is shown to servers that ask
        for one, and behind it those of the CAs in between. "" for none.
    :param key: the path of the file with the private key of `cert`, in PEM form.
    :raises StartupError: if a file can't be used.
    """

    def __init__(
        self, ca: str = "", section: str = "endpoint", cert: str = "", key: str = ""
    ) -> None:
        self._context = context = Context(TLS_CLIENT_METHOD)
        context.set_min_proto_version(TLS1_2_VERSION)  # RFC 8996
        context.set_options(OP_NO_COMPRESSION | OP_NO_RENEGOTIATION)
        context.set_mode(MODE_RELEASE_BUFFERS)  # 34 KB less for each idle connection
        # On the context: only then pyOpenSSL raises the callback's exception from the handshake.
        context.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
        if ca:
            _load(context, ca, section)
        else:
            context.set_default_verify_paths()
        if cert:
            _load_own(context, cert, key, section)

    def for_host(self, host: str) -> HostConnections:
        """
        :param host: an ASCII name, or an IP address.
        :return: makes connections that accept the certificates of `host` only.
        """
        return HostConnections(self._context, host)


def _read(key: str, path: str, section: str) -> bytes:
    """
    Read a file, as OpenSSL does not say why it can't.

    :param key: the key of the configuration that names the file.
    :raises StartupError: if it can't be read.
    """
    try:
        return file_content(path, MAX_PEM)
    except OSError as error:
        raise StartupError(
            f"{key} in [{section}] is {path!r}, which can't be read ({error.strerror}): it takes "
            "the path of a file in PEM form"
        ) from error


def _load_own(context: Context, cert: str, key: str, section: str) -> None:
    """:raises StartupError: if the files have no certificate and its private key."""
    _read("cert", cert, section)
    try:
        context.use_certificate_chain_file(cert)
    except Error as error:
        raise StartupError(
            f"cert in [{section}] is {cert!r}, which has no certificate in it: it takes Dalga's "
            "own, in PEM form"
        ) from error
    if b"ENCRYPTED" in _read("key", key, section):
        # OpenSSL would ask for the passphrase at the terminal.
        raise StartupError(
            f"key in [{section}] is {key!r}, which is encrypted: it takes a private key without a "
            "passphrase, in PEM form"
        )
    try:
        context.use_privatekey_file(key, FILETYPE_PEM)  # compares it with the certificate
    except Error as error:
        raise StartupError(
            f"key in [{section}] is {key!r}, which has no private key in it that is the key of "
            f"the certificate in {cert!r}: it takes that one, in PEM form"
        ) from error


def _load(context: Context, ca: str, section: str) -> None:
    """:raises StartupError: if the file has no certificates."""
    _read("ca", ca, section)
    try:
        context.load_verify_locations(ca)
    except Error as error:
        raise StartupError(
            f"ca in [{section}] is {ca!r}, which has no certificate in it: it takes those of the "
            "CAs, in PEM form"
        ) from error
    store = context.get_cert_store()
    assert store is not None
    # If the file has an intermediate CA, or the server's own certificate, that alone is trusted: no
    # chain up to a root is asked for.
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)


@implementer(IOpenSSLClientConnectionCreator)
class HostConnections:
    """Makes the TLS connections to one host."""

    def __init__(self, context: Context, host: str) -> None:
        self._context = context
        #: When the certificate ends that the host showed at the last handshake (aware, UTC); None
        #: before the first. Of certificates that were accepted only.
        self.certificate_expires: datetime | None = None
        # A dot at the end says that a name is complete. Names in certificates have none.
        self._host = host.rstrip(".")

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:
        """See `IOpenSSLClientConnectionCreator`."""
        connection = _To(self._context, self._host, self)
        if not _is_address(self._host):  # RFC 6066 section 3: the server name is no address
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection


class _To(Connection):
    """A TLS connection that knows which host it is to, and who made it."""

    def __init__(self, context: Context, host: str, maker: HostConnections) -> None:
        super().__init__(context)
        self.host = host
        self.maker = maker

    def do_handshake(self) -> None:
        """
        As pyOpenSSL's, but an error without words gets some: Twisted would break on the former.
        """
        try:
            super().do_handshake()
        except ZeroReturnError as error:
            raise Error([("dalga", "", "the other side ended the handshake")]) from error


def _is_address(host: str) -> bool:
    return bool(isIPAddress(host) or isIPv6Address(host))


def _verify(connection: Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """
    OpenSSL calls this for each certificate of the chain: first the CA's, last the server's own.

    :param error: the mistake that OpenSSL found, one of X509_V_ERR_*, if `ok` is 0.
    :param depth: the certificate's distance from the server's own certificate, which has 0.
    :return: always True. To refuse, this raises; pyOpenSSL raises the same from the handshake.
    :raises Refused: if the certificate is not accepted, for any reason.
    """
    try:
        if not ok:
            raise Refused(_problem(error, depth))
        if depth == 0:
            assert isinstance(connection, _To)
            _check_host(certificate, connection.host)
            expires = certificate.to_cryptography().not_valid_after_utc
            connection.maker.certificate_expires = expires
    except Refused:
        raise
    except VerificationError:
        raise Refused("is for another host") from None
    except CertificateError:
        # There is no subjectAltName, or it is malformed. A name in the subject counts for nothing.
        raise Refused("has no subjectAltName that can be used") from None
    except BaseException as problem:
        # A malformed certificate can make the parser raise anything. pyOpenSSL hands on exceptions
        # of the class Exception only: without this, a panic of the parser's (a BaseException) would
        # be an error without words.
        log.debug("a certificate can't be checked: {problem!r}", problem=problem)
        raise Refused("is malformed and can't be checked") from problem
    return True


def _check_host(certificate: X509, host: str) -> None:
    """
    :raises VerificationError: if the certificate is for other hosts.
    :raises CertificateError: if service_identity can't tell which hosts the certificate is for.
    """
    check = verify_certificate_ip_address if _is_address(host) else verify_certificate_hostname
    check(certificate.to_cryptography(), host)


#: Words for OpenSSL's errors about one certificate of a chain (X509_verify_cert_error_string(3)).
_PROBLEMS = {
    X509VerificationCodes.ERR_CERT_HAS_EXPIRED: "has expired",
    X509VerificationCodes.ERR_CERT_NOT_YET_VALID: "is not valid yet",
    X509VerificationCodes.ERR_INVALID_PURPOSE: "is not one for servers",
}
#: OpenSSL's errors for a chain that ends at no trusted CA.
_UNTRUSTED = (
    X509VerificationCodes.ERR_UNABLE_TO_GET_ISSUER_CERT,
    X509VerificationCodes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    X509VerificationCodes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
    X509VerificationCodes.ERR_SELF_SIGNED_CERT_IN_CHAIN,
)


def _problem(error: int, depth: int) -> str:
    """Why a chain is refused: the rest of a sentence, as in `Refused`."""
    if error in _UNTRUSTED:
        return "is signed by no CA that is trusted here"
    if error == X509VerificationCodes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        return "is signed by itself, and not trusted here"
    problem = _PROBLEMS.get(error, f"is refused by OpenSSL (X509 error {error})")
    return problem if depth == 0 else f"is signed by a CA whose certificate {problem}"
