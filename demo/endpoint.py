"""
An example of an endpoint: takes Dalga's POSTs, and answers 200 so that they count as done.

Yours does its work where this one prints a line. It should remember ``dalga-run``: the same run may
come twice, for instance when your answer got lost on its way.
"""

from __future__ import annotations

import sys
from datetime import datetime
from http.server import BaseHTTPRequestHandler


class ExampleEndpoint(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"  # keeps the connection for the next POST

    def do_POST(self) -> None:
        """A job is due."""
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        run, attempt = self.headers["dalga-run"], self.headers["dalga-attempt"]
        say(f"POST {self.path} body={body!r} dalga-run={run} attempt={attempt}")
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """One line for each POST is enough."""


def say(line: str) -> None:
    """Print a line with the time, all at once: others print too."""
    sys.stdout.write(f"{datetime.now():%H:%M:%S} {line}\n")
    sys.stdout.flush()
