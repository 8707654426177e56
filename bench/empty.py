"""
The reference of the API: a Klein route that answers with the same JSON, and nothing else.

    python -m bench.empty

Prints its port.
"""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.web.server import Site

BODY = b'{"path":"check_feed","body":"1234","interval":60,"next_run":"2014-11-11T22:11:40Z"}'


class Empty:
    """One route for all methods."""

    app = Klein()

    @app.route("/jobs/<path>/<body>", methods=["GET", "PUT"])
    def answer(self, request: Any, path: str, body: str) -> bytes:
        """Answer with what a job looks like."""
        request.setResponseCode(201 if request.method == b"PUT" else 200)
        request.setHeader(b"Content-Type", b"application/json; charset=utf-8")
        return BODY


def main() -> None:
    from twisted.internet import reactor

    real: Any = reactor
    port = real.listenTCP(0, Site(Empty().app.resource()), backlog=1024, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    real.run()


if __name__ == "__main__":
    main()
