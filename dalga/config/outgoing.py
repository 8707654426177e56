"""
What the keys take that say how an endpoint can be sure of Dalga, and Dalga of an endpoint. No
sentence here has a secret in it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from urllib.parse import urlsplit

from dalga.model.address import is_host, why_not_base_url
from dalga.signature import PRIVATE, SYMMETRIC, sign_from_text

#: How secrets that sign begin, by their kinds.
KINDS = (SYMMETRIC, PRIVATE)

#: How many secrets of a kind may sign at once: a new one, and the one that it replaces.
MOST_SECRETS = 2


class Auth(StrEnum):
    """The scheme by which an endpoint knows Dalga."""

    NONE = "none"
    BEARER = "bearer"
    BASIC = "basic"


class Deny(StrEnum):
    """Which addresses of an endpoint's host are not connected to."""

    NONE = "none"
    #: All that are not global: private, loopback, link-local and their like.
    PRIVATE = "private"


def signing_secret(text: str) -> str:
    """
    A secret that signs requests, as `dalga.signature` takes it.

    :raises ValueError: with the end of a sentence, for another text.
    """
    sign_from_text(text)
    return text


def verified_name(text: str) -> str | None:
    """Why a certificate can't be for a name; None where it can, and for ""."""
    if not text or (is_host(text) and text.isascii()):
        return None
    return (
        "it takes the name or the address that the endpoint's certificate is for, without a port, "
        "such as billing.internal"
    )


def proxy_url(text: str) -> str | None:
    """Why a text can't be the URL of a proxy; None where it can, and for ""."""
    if not text:
        return None
    takes = "it takes the URL of a proxy, such as http://proxy.example.org:3128"
    if why := why_not_base_url(text):
        return f"{why}; {takes}"
    url = urlsplit(text)
    if url.scheme != "http" or url.path not in ("", "/"):
        return takes
    return None


def is_bearer(text: str) -> bool:
    """Whether a text can stand behind ``Bearer`` (RFC 6750, b64token)."""
    return re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", text) is not None
