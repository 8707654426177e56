"""
Signatures of requests as Standard Webhooks has them, by which an endpoint can be sure that a
request is Dalga's, that nobody has changed it, and that it is not an old one. Pure.

A request with the body ``{"a":1}`` gets three headers::

    webhook-id: 5f0c...-17                 the run's id, the same on every attempt
    webhook-timestamp: 1764579600          when the attempt began, in seconds since 1970
    webhook-signature: v1,g0hM... v1,K5oZ...

What is signed is ``5f0c...-17.1764579600.{"a":1}``. There is one signature for each secret. So a
secret can be replaced without a request that the endpoint refuses: both secrets are configured
until the endpoint knows the new one.

    secret                  signature   made with
    whsec_<base64>          v1,...      HMAC-SHA256, by a secret that the endpoint has, too
    whsk_<base64>           v1a,...     Ed25519, by a private key; the endpoint has the public key

The scheme is described at https://www.standardwebhooks.com.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Callable, Iterable
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SYMMETRIC, PRIVATE = "whsec_", "whsk_"

#: How many octets a symmetric secret may have, by Standard Webhooks.
LEAST_OCTETS, MOST_OCTETS = 24, 64
#: The octets of an Ed25519 private key. Some programs write the public key, as long, behind it.
KEY_OCTETS = 32

#: What a secret may be, for the end of a sentence.
WOULD_DO = (
    f"it takes {SYMMETRIC} and the base64 of {LEAST_OCTETS} to {MOST_OCTETS} random octets, or "
    f"{PRIVATE} and the base64 of an Ed25519 private key"
)

#: Signs octets: gives an element of the header webhook-signature.
Sign = Callable[[bytes], str]


def sign_from_text(secret: str) -> Sign:
    """
    Read a secret.

    :raises ValueError: with a sentence that says what would do. Nothing of the secret is in it.
    """
    for prefix, made in ((SYMMETRIC, _symmetric), (PRIVATE, _private)):
        if secret.startswith(prefix):
            return made(_octets(secret.removeprefix(prefix)))
    raise ValueError(WOULD_DO)


def _octets(text: str) -> bytes:
    """The octets of base64, whose padding may be left out."""
    try:
        return b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (Error, ValueError):
        raise ValueError(WOULD_DO) from None


def _symmetric(key: bytes) -> Sign:
    if not LEAST_OCTETS <= len(key) <= MOST_OCTETS:
        raise ValueError(WOULD_DO)
    return lambda content: f"v1,{b64encode(hmac.digest(key, content, 'sha256')).decode()}"


def _private(octets: bytes) -> Sign:
    if len(octets) not in (KEY_OCTETS, 2 * KEY_OCTETS):
        raise ValueError(WOULD_DO)
    key = Ed25519PrivateKey.from_private_bytes(octets[:KEY_OCTETS])
    public = octets[KEY_OCTETS:]
    if public and not hmac.compare_digest(public, key.public_key().public_bytes_raw()):
        raise ValueError(f"the public key in it is not that of its private key; {WOULD_DO}")
    return lambda content: f"v1a,{b64encode(key.sign(content)).decode()}"


class Signer:
    """
    Signs the requests to one endpoint.

    :param secrets: at least one, as texts.
    :param now: the time now, by the database's clock.
    :raises ValueError: see `sign_from_text`.
    """

    def __init__(self, secrets: Iterable[str], now: Callable[[], datetime]) -> None:
        self._signs = [sign_from_text(secret) for secret in secrets]
        self._now = now

    def lines(self, id: str, body: bytes) -> str:
        """
        The header lines that sign a request, each with its CRLF.

        :param id: that of the run or alert: ASCII letters, digits and hyphens.
        :param body: of the request; empty for a request without content.
        """
        at = int(self._now().timestamp())
        content = f"{id}.{at}.".encode("ascii") + body
        signatures = " ".join([sign(content) for sign in self._signs])
        return f"webhook-id: {id}\r\nwebhook-timestamp: {at}\r\nwebhook-signature: {signatures}\r\n"
