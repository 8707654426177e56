"""
Who sends a request: the header Authorization -> a `Caller`; and what is done about requests without
a valid token that come by the thousand.

A token is compared by its SHA-256 with each token of the configuration, in constant time and to the
last one, so that the time of an answer says nothing about a token. Nothing of the header is
repeated in an answer or in the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha512
from hmac import compare_digest
from ipaddress import IPv6Address, ip_network

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from dalga.errors import Unauthorized
from dalga.log import logger
from dalga.model.address import address_of
from dalga.model.permit import Caller, Scope, Token, digest_of
from dalga.web.cursors import Seal
from dalga.web.errors import TooManyFailures

log = logger(__name__)

#: More failures in a second than this, of one address, are answered after `HOLD` seconds.
MOST_FAILURES = 10

#: How long an answer is held back, in seconds.
HOLD = 1.0

#: How many answers are held back at once. Further ones are given at once, and say "later".
MOST_HELD = 100

#: The addresses whose failures are counted apart. Those of all others are counted together.
MOST_ADDRESSES = 1000

#: From one line of the log on an address to the next, in seconds.
BETWEEN_LINES = 60.0

#: Stands for the addresses that are not counted apart.
OTHERS = "other addresses"

_SCHEME = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?: +(.*))?", re.DOTALL)
#: RFC 6750 section 2.1.
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")

_WOULD_DO = "it takes Authorization: Bearer and a token, as dalga token new makes one"


class Tokens:
    """The tokens of the configuration. A reload makes another object."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    def __bool__(self) -> bool:
        """Whether there are any. Without tokens, everybody may do everything."""
        return bool(self._tokens)

    def caller(self, lines: Sequence[bytes], address: str = "") -> Caller:
        """
        The client that sends a request. Call it only where there are tokens.

        :param lines: the values of the request's headers Authorization.
        :param address: the client's.
        :raises Unauthorized: if there is no valid token in them.
        """
        token = self.get(_given(lines))
        return Caller(token.name, token.grants, address)

    def seal(self, caller: Caller) -> Seal | None:
        """
        What seals a caller's cursors; None for a caller who may see all.

        The key is made of the hashes of all tokens: all instances have these, and a caller knows
        but the hash of one token.
        """
        if caller.limits(Scope.READ) is None:
            return None
        digests = sorted(token.digest for token in self._tokens)
        return Seal(sha512(b"dalga cursors 1\n" + b"".join(digests)).digest(), caller.name)

    def get(self, text: bytes) -> Token:
        """
        The token with this text.

        :raises Unauthorized: if there is none.
        """
        token = self.find(text)
        if token is None:
            raise Unauthorized(
                "the token is not one of the configuration: it was mistyped, or it was removed "
                "there",
                given=True,
            )
        return token

    def find(self, text: bytes) -> Token | None:
        """The token with this text; None if there is none."""
        digest, found = digest_of(text), None
        for token in self._tokens:
            if compare_digest(token.digest, digest):
                found = token
        return found


def _given(lines: Sequence[bytes]) -> bytes:
    """
    The text of the token in a request.

    :raises Unauthorized: if there is none.
    """
    if not lines:
        raise Unauthorized(f"this takes a token, and the request has none: {_WOULD_DO}", False)
    if len(lines) > 1:
        raise Unauthorized("there are several Authorization headers: give one", True)
    form = _SCHEME.fullmatch(lines[0])
    if form is None or form[1].lower() != b"bearer":
        raise Unauthorized(f"the Authorization header has another scheme: {_WOULD_DO}", False)
    if form[2] is None or not _TOKEN.fullmatch(form[2]):
        raise Unauthorized(
            "the Authorization header has no token behind Bearer, or something that is none: "
            f"{_WOULD_DO}",
            True,
        )
    return form[2]


class Failures:
    """
    Requests without a valid token. Many of them are answered slowly, and make few lines in the log.

    :param reactor: for the time, and its timers.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._counts: dict[str, _Count] = {}
        self._held = 0
        self._is_closed = False

    def add(self, address: str, why: str) -> Deferred[None]:
        """
        Note a request of an address.

        :param why: what was wrong with it, for the log. It repeats nothing of the request.
        :return: fires when the request may be answered; fails with `TooManyFailures` if too many
            answers are held back already. To be cancelled if the client hangs up.
        """
        answer: Deferred[None] = Deferred(lambda _: self._let_go(timer))
        timer: IDelayedCall | None = None
        if self._is_closed or not self._count(_counted_as(address), why):
            answer.callback(None)
        elif self._held >= MOST_HELD:
            answer.errback(
                TooManyFailures(
                    "too many requests without a valid token have come: wait a second, and send "
                    "one that is valid"
                )
            )
        else:
            self._held += 1
            timer = self._reactor.callLater(HOLD, self._answer, answer)
        return answer

    def close(self) -> None:
        """Log what was counted, and hold nothing back any more."""
        self._is_closed = True
        for name in list(self._counts):
            self._counts[name].timer.cancel()
            self._end_minute(name)

    def _answer(self, answer: Deferred[None]) -> None:
        self._held -= 1
        answer.callback(None)

    def _let_go(self, timer: IDelayedCall | None) -> None:
        if timer is not None and timer.active():
            timer.cancel()
            self._held -= 1

    def _count(self, name: str, why: str) -> bool:
        """
        Count a failure.

        :param name: the address, as it is counted.
        :return: whether there were too many in this second.
        """
        if name not in self._counts and len(self._counts) >= MOST_ADDRESSES:
            name = OTHERS
        count = self._counts.get(name)
        if count is None:
            log.warn("a request of {address} was refused: {why}", address=name, why=why)
            count = self._counts[name] = _Count(self._reactor.seconds(), self._next_line(name))
        else:
            count.unsaid += 1
        return count.is_too_much(self._reactor.seconds())

    def _next_line(self, name: str) -> IDelayedCall:
        return self._reactor.callLater(BETWEEN_LINES, self._end_minute, name)

    def _end_minute(self, name: str) -> None:
        count = self._counts.pop(name)
        if count.unsaid:
            log.warn(
                "{count} more requests of {address} were refused, as they had no valid token",
                count=count.unsaid,
                address=name,
            )
            if not self._is_closed:
                self._counts[name] = _Count(self._reactor.seconds(), self._next_line(name))


class _Count:
    """The failures of an address."""

    def __init__(self, now: float, timer: IDelayedCall) -> None:
        #: Ends the minute.
        self.timer = timer
        #: How many of the failures no line of the log has counted yet.
        self.unsaid = 0
        self._second = now
        self._in_second = 0

    def is_too_much(self, now: float) -> bool:
        """Count one more. Whether there were too many in this second."""
        if now - self._second >= 1:
            self._second, self._in_second = now, 0
        self._in_second += 1
        return self._in_second > MOST_FAILURES


def _counted_as(address: str) -> str:
    """An address as it is counted: of IPv6 its network of 64 bits, as one client has all of it."""
    ip = address_of(address)
    if ip is None:
        return address or "a local client"
    return str(ip_network((ip, 64), strict=False) if isinstance(ip, IPv6Address) else ip)
