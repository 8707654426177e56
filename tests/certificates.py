"""
Certificates of any shape, for tests that need a CA of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_PEM, X509, PKey, dump_certificate, dump_privatekey
from twisted.internet.ssl import CertificateOptions

DAY = timedelta(days=1)


def dns(name: str) -> x509.GeneralName:
    return x509.DNSName(name)


def ip(address: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(address))


class Authority:
    """
    A CA, or with `issuer` one that another CA vouches for.

    :param valid: from when until when, counted from now.
    :param ca: whether its certificate says that it may sign others.
    """

    def __init__(
        self,
        issuer: Authority | None = None,
        valid: tuple[timedelta, timedelta] = (-DAY, DAY),
        ca: bool = True,
    ) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issuer = issuer
        self._name = _name(f"CA {id(self)}")
        signer, signing_key = (issuer._name, issuer._key) if issuer else (self._name, self._key)
        self.certificate = (
            _builder(self._name, signer, self._key, valid)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(signing_key, hashes.SHA256())
        )

    def write(self, path: str) -> str:
        """Write its certificate to a file in PEM form, and give its path."""
        Path(path).write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def issue(
        self,
        *names: x509.GeneralName,
        common_name: str | None = None,
        san: bytes | None = None,
        valid: tuple[timedelta, timedelta] = (-DAY, DAY),
        extensions: Sequence[x509.ExtensionType] = (),
        self_signed: bool = False,
    ) -> CertificateOptions:
        """
        What a server needs for TLS.

        :param names: what subjectAltName has; without any there is none.
        :param common_name: the subject; None for an empty one.
        :param san: all of subjectAltName as DER, in place of `names`.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(common_name)
        issuer = subject if self_signed else self._name
        builder = _builder(subject, issuer, key, valid)
        more: list[x509.ExtensionType] = list(extensions)
        if san is not None:
            oid = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
            more.append(x509.UnrecognizedExtension(oid, san))
        elif names:
            more.append(x509.SubjectAlternativeName(names))
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(key if self_signed else self._key, hashes.SHA256())
        chain = []
        authority: Authority | None = self
        while authority is not None and authority._issuer is not None:  # the root is known
            chain.append(X509.from_cryptography(authority.certificate))
            authority = authority._issuer
        return CertificateOptions(
            privateKey=PKey.from_cryptography_key(key),
            certificate=X509.from_cryptography(certificate),
            extraCertChain=chain,
        )


def ask_for(clients: Authority, options: CertificateOptions) -> CertificateOptions:
    """Have a server take the clients alone that show a certificate of a CA."""
    context = options.getContext()
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(X509.from_cryptography(clients.certificate))
    mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    context.set_verify(mode, lambda connection, certificate, error, depth, ok: bool(ok))
    return options


def write(options: CertificateOptions, certificate: str, key: str) -> tuple[str, str]:
    """Write a certificate and its key to files in PEM form, and give their paths."""
    assert options.certificate is not None and options.privateKey is not None
    Path(certificate).write_bytes(dump_certificate(FILETYPE_PEM, options.certificate))
    Path(key).write_bytes(dump_privatekey(FILETYPE_PEM, options.privateKey))
    return certificate, key


def _name(common_name: str | None) -> x509.Name:
    if common_name is None:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    valid: tuple[timedelta, timedelta],
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
    )
