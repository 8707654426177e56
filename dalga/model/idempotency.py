"""
Which requests are the same one, asked once more. Pure.

A client that gets no answer can't know whether a job was made for its request. With an
Idempotency-Key it asks again, and no second job is made::

    POST /jobs/mail   Idempotency-Key: 7f3a   hello    201, a job is made
    POST /jobs/mail   Idempotency-Key: 7f3a   hello    201, the same answer: no job is made
    POST /jobs/mail   Idempotency-Key: 7f3a   goodbye  422: that is another request
    POST /jobs/other  Idempotency-Key: 7f3a   goodbye  201: keys are of a path
"""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import NamedTuple, Self

#: A key is remembered for this long from its first request on, by the database's clock.
LIFETIME = timedelta(hours=24)

#: The longest key, in characters.
MAX_KEY = 255


class Idempotency(NamedTuple):
    """The key that came with a request, and the request in short."""

    #: 1 to `MAX_KEY` visible characters of ASCII.
    key: str
    #: A SHA-256: 32 octets.
    digest: bytes

    @classmethod
    def of(cls, key: str, *parts: bytes) -> Self:
        """
        :param parts: all that makes the request what it is.
        """
        digest = sha256()
        for part in parts:  # with its length, or a part could end elsewhere
            digest.update(b"%d:%b" % (len(part), part))
        return cls(key, digest.digest())
