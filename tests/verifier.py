"""
An endpoint that lets only signed requests do anything, as its maker would write one: a process of
its own, on Python's http.server and the package standardwebhooks.

    python verifier.py SECRET          prints its port, and answers until its standard input ends

It answers 200 to a request that is new, signed and whole, and notes its id; 401 to one whose
signature is wrong or old; 409 to one whose id it has had.
"""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    webhook: Webhook
    seen: set[str]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = dict(self.headers.items())
        try:
            self.webhook.verify(body, headers, json_parse=False)
        except WebhookVerificationError as problem:
            self._say(401, str(problem))
            return
        id = self.headers["webhook-id"]
        if id in self.seen:
            self._say(409, "seen before")
            return
        self.seen.add(id)
        self._say(200, "verified")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET = _answer

    def _say(self, status: int, words: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(words)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(words.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def main(secret: str) -> None:
    _Requests.webhook, _Requests.seen = Webhook(secret), set()
    server = HTTPServer(("127.0.0.1", 0), _Requests)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
