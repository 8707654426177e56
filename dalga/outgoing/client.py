"""
treq's client, for requests that are written whole before treq is called.

treq's `HTTPClient.get`, `post` and the others all call `HTTPClient.request`. It reads the URL,
makes headers of its own, and wraps the agent in others for cookies, redirects and gzip. A POST of
Dalga uses none of that: its request is bytes already, to an origin that never changes, and its
answer is read whole, within limits, by the agent. So `Client.request` takes the place of treq's,
and hands the request to the agent. docs/architecture.md says what treq's own would cost.
"""

from __future__ import annotations

from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.web.iweb import IResponse

from dalga.outgoing.pool import Pool
from dalga.outgoing.wire import Exchange


class Client(HTTPClient):
    """
    Sends requests as they stand. No redirect is followed, no cookie is kept, and no body is
    decompressed.

    :param pool: the agent, which takes an `Exchange` in the place of a body.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._pool = pool

    # treq's own takes other bodies and URLs, too, and arguments that are refused here.
    def request(  # type: ignore[override]
        self, method: str, url: str, *, data: Exchange, **others: Any
    ) -> Deferred[IResponse]:
        """
        Make an exchange.

        :param method: not sent, and neither is `url`: the bytes of the exchange have both.
        :return: fires with an answer that treq's functions take (`treq.content` and others).
        :raises TypeError: for any other argument: what it asks for would not be done.
        """
        others.pop("_stacklevel", None)  # from treq's `post` and the others, for its warnings
        if others:
            raise TypeError(f"this client has no {', '.join(sorted(others))}")
        return self._pool.request(method.encode(), url.encode(), None, data)
