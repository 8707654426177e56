"""A server that alerts are sent to, which remembers what it was sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site


@dataclass(eq=False)
class Sent:
    """One POST, as it came."""

    #: Path and query.
    target: str
    headers: dict[str, str]
    text: str

    @property
    def content(self) -> dict[str, Any]:
        """Its JSON."""
        found: dict[str, Any] = json.loads(self.text)
        return found

    @property
    def event(self) -> str:
        return str(self.content["event"])


@dataclass
class Receiver(Resource):
    """It answers each POST with `status`, or with None none at all."""

    status: int | None = 200
    sent: list[Sent] = field(default_factory=list)
    isLeaf = True

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Resource's
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def render(self, request: Any) -> bytes | int:
        sent = Sent(
            request.uri.decode(),
            {
                name.decode().lower(): values[-1].decode()
                for name, values in request.requestHeaders.getAllRawHeaders()
            },
            request.content.read().decode(),
        )
        assert request.method == b"POST", request.method
        self.sent.append(sent)
        if self.status is not None:
            request.setResponseCode(self.status)
        for entry in list(self._waiting):
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)
        return NOT_DONE_YET if self.status is None else b"thanks"

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Wait until a condition holds, which is asked after each POST."""
        waiter: Deferred[None] = Deferred()
        if condition():
            waiter.callback(None)
        else:
            self._waiting.append((condition, waiter))
        return waiter

    def events(self, *leaving_out: str) -> list[str]:
        """The events in the order in which they came."""
        return [sent.event for sent in self.sent if sent.event not in leaving_out]


def listen(reactor: Any, receiver: Receiver) -> Any:
    """:return: the port, to be stopped; it is on the loopback address."""
    return reactor.listenTCP(0, Site(receiver), interface="127.0.0.1")
