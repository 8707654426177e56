"""
TLS to MySQL and MariaDB: whether a connection is encrypted, which certificates are accepted, and
why TLS has failed.
"""

from __future__ import annotations

import re
import ssl

import pymysql
from pymysql.constants import CR

from dalga.errors import StartupError


def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


#: Accepts any certificate, for the mode ``preferred``. PyMySQL would make a context for each
#: connection, and read all CAs of the system: 18 ms an attempt while the server is away
#: (*measured*).
ANY_CERTIFICATE = _any_certificate()


def tls(mode: str, ca: str = "", cert: str = "", key: str = "") -> ssl.SSLContext | bool:
    """
    How connections are encrypted. Reads the files now: later the process may be another user, who
    may not read them.

    :param mode: ``disabled``, ``preferred`` (if the server offers it, nothing is checked),
        ``required`` (nothing is checked), ``verify-ca`` or ``verify-identity``.
    :param ca: the path of the CAs' certificates, for the last two modes.
    :param cert: the path of the client's certificate; "" for none.
    :param key: the path of the certificate's key; "" if the key is in the same file.
    :return: what to connect with; True for ``preferred``, False for ``disabled``.
    :raises StartupError: if a file can't be used.
    """
    if mode in ("disabled", "preferred"):
        return mode == "preferred"
    for name, path in (("ssl-ca", ca), ("ssl-cert", cert), ("ssl-key", key)):
        try:
            if path:
                open(path, "rb").close()
        except OSError as error:
            raise StartupError(
                f"{name} in [mysql] is {path!r}, which can't be read ({error.strerror}): it takes "
                "the path of a file in PEM form"
            ) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-identity"
    context.verify_mode = ssl.CERT_NONE if mode == "required" else ssl.CERT_REQUIRED
    try:
        if ca:
            context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise StartupError(
            f"ssl-ca in [mysql] is {ca!r}, which has no certificate in it: it takes those of the "
            "CAs, in PEM form"
        ) from error
    try:
        if cert:
            # A key with a pass phrase is refused; OpenSSL would ask for that at the terminal.
            context.load_cert_chain(cert, key or None, password="")  # nosec B106  # none
    except (ssl.SSLError, ValueError) as error:
        if not key and not _has_key(cert):
            raise StartupError(
                f"ssl-cert in [mysql] is {cert!r}, which has no key in it: ssl-key takes the path "
                "of its key, in PEM form"
            ) from error
        raise StartupError(
            f"ssl-cert in [mysql] is {cert!r} with the key in {key or cert!r}, which do not go "
            f"together ({_reason(error)}): it takes a certificate, and ssl-key its key without a "
            "pass phrase, in PEM form"
        ) from error
    return context


def tls_failure(error: pymysql.MySQLError) -> str | None:
    """Why TLS failed, and what would do, as a part of a sentence; None for another error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__context__  # PyMySQL's own hides the ssl module's
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not accepted ({cause.verify_message.rstrip('.')}); ssl-ca in "
            "[mysql] takes the CA that signed it, and ssl-mode = verify-ca does not look at the "
            "host's name"
        )
    if cause is not None:
        return (
            f"TLS with it fails ({_reason(cause)}); if it wants a certificate, ssl-cert in [mysql] "
            "takes one, and ssl-mode = disabled does without TLS"
        )
    if error.args[:1] == (CR.CR_SSL_CONNECTION_ERROR,):
        return "it offers no TLS; ssl-mode = preferred in [mysql] does without, then"
    return None


def _has_key(path: str) -> bool:
    with open(path, "rb") as file:
        return b"PRIVATE KEY-----" in file.read()


def _reason(error: BaseException) -> str:
    """An error of the ssl module's in a few words, without the place in OpenSSL's source."""
    return re.sub(r"^\[.*?\] | \(_ssl\.c:[0-9]+\)$", "", str(error))
