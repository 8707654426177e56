"""
POST JSON to a URL of the configuration: an alert to its target, or a sign of life to a monitor.

It goes over the same wire as the POSTs of jobs. So nothing makes it call another scheme, host or
port (P11): no redirect is followed. The URL's path and query may be a secret, and are in no line of
the log and in no sentence (P12).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from dalga import __version__
from dalga.log import logger
from dalga.model.delivery import PLAIN
from dalga.outgoing.answer import Answer
from dalga.outgoing.client import Client
from dalga.outgoing.failures import PostFailed
from dalga.outgoing.keeping import LEAST_SECRET, secrets_of, words_without
from dalga.outgoing.pool import Pool, Route
from dalga.outgoing.trust import Trust
from dalga.outgoing.wire import Exchange
from dalga.signature import Signer

log = logger(__name__)

#: Time limit (seconds) of a POST, from the connect to the end of the answer.
TIMEOUT = 10.0

#: Idle connections that are kept, at most.
IDLE_CONNECTIONS = 2


class Arrival(NamedTuple):
    """What a POST came to."""

    #: Whether the answer was 2xx.
    arrived: bool
    #: What was answered, or why there was no answer.
    words: str


class Webhook:
    """
    :param url: an http or https URL that `dalga.config.load` lets pass: ASCII, and without user and
        fragment.
    :param authorization: the value of the header Authorization, in ASCII; "" for none.
    :param signer: signs the POSTs of alerts; None for POSTs without a signature.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        authorization: str,
        trust: Trust,
        signer: Signer | None = None,
    ) -> None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}/"
        self._reactor = reactor
        self._route = Route(reactor, origin, TIMEOUT, trust)
        self._pool = Pool(reactor, self._route, IDLE_CONNECTIONS)
        self._client = Client(self._pool)
        self._origin = origin
        self._signer = signer
        #: No line of the log has them, also where the target echoes them.
        self._secrets = {
            *secrets_of((("Authorization", authorization),)),
            *(part.encode() for part in (parts.path, parts.query) if len(part) >= LEAST_SECRET),
        }
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = (
            f"POST {target} HTTP/1.1\r\n"
            f"Host: {self._route.host_header}\r\n"
            "Content-Type: application/json\r\n"
            f"User-Agent: dalga/{__version__}\r\n"
            "Accept-Encoding: identity\r\n"
            + (f"Authorization: {authorization}\r\n" if authorization else "")
        )

    def __str__(self) -> str:
        """Its host and port."""
        return str(self._route)

    def post(self, text: str, id: str | None = None) -> Deferred[Arrival]:
        """
        Make one POST. The Deferred never fails. It fires within `TIMEOUT`; cancelling it gives an
        arrival, too.

        :param text: JSON.
        :param id: of the alert, in hexadecimal digits. A sign of life has none, and no signature.
        """
        body = text.encode()
        exchange = Exchange(self._reactor, self._route, b"", TIMEOUT, body)
        answer: Deferred[Any]
        try:
            of_alert = self._of_alert(re.sub("[^0-9a-f]", "", id), body) if id else ""
            head = f"{self._head}{of_alert}Content-Length: {len(body)}\r\n\r\n"
            exchange.octets = head.encode("ascii")
            answer = self._client.request("POST", self._origin, data=exchange)
        except Exception:
            exchange.abandon()
            answer = fail()
        return answer.addCallbacks(self._answered, self._failed)

    def _of_alert(self, id: str, body: bytes) -> str:
        signed = "" if self._signer is None else self._signer.lines(id, body)
        return f"Dalga-Alert: {id}\r\n{signed}"

    def close(self) -> Deferred[None]:
        """Close the idle connections, and keep no connection from now on."""
        self._route.lookup.close()
        return self._pool.close()

    def _answered(self, answer: Answer) -> Arrival:
        return Arrival(200 <= answer.code <= 299, f"it answered {answer.code}")

    def _failed(self, failure: Failure) -> Arrival:
        if failure.check(PostFailed):
            return Arrival(False, words_without(str(failure.value), PLAIN, self._secrets))
        log.failure("a POST to {route} failed in an unexpected way", failure, route=self._route)
        return Arrival(False, "internal error, which Dalga's log describes")
