"""
The endpoint of the benchmarks: an nginx that answers each POST with 200 at once and notes when it
came, in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.machine import CHECKOUT, Process, ended, wait_until

NGINX = CHECKOUT / ".cache" / "nginx" / "server"

CONFIGURATION = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 4096; }}
http {{
    log_format arrivals '$msec $request_uri $http_dalga_run $content_length';
    access_log {folder}/arrivals.log arrivals buffer=64k flush=50ms;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ return 200 "ok"; }}
    }}
}}
"""

#: Seconds after which what has come is in the log.
FLUSHED = 0.2


class Arrival(NamedTuple):
    """A POST that has come."""

    #: Seconds since the epoch, to the millisecond.
    at: float
    #: The request's path, without the slash in front.
    path: str
    #: The run's id, or "-".
    run: str
    #: How many octets of content it had.
    size: int = 0


class Sink:
    """A running nginx."""

    def __init__(self, pid: int, port: int, folder: Path) -> None:
        self.process = Process(pid)
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"
        self._log = folder / "arrivals.log"

    def forget(self) -> None:
        """Begin anew."""
        time.sleep(FLUSHED)
        os.truncate(self._log, 0)

    def count(self) -> int:
        """How many have come, as of some moments ago."""
        return self._log.read_bytes().count(b"\n")

    def arrivals(self) -> list[Arrival]:
        """What has come since the last `forget`."""
        time.sleep(FLUSHED)
        found = []
        for line in self._log.read_text().splitlines():
            at, path, run, size = line.split(" ")
            size = "0" if size == "-" else size
            found.append(Arrival(float(at), path.removeprefix("/"), run, int(size)))
        return found


def check(arrivals: Sequence[Arrival], expected: int) -> None:
    """:raises SystemExit: unless so many jobs have arrived, each once."""
    times = Counter(arrival.path for arrival in arrivals)
    if len(times) != expected or len(arrivals) != expected:
        twice = sum(count > 1 for count in times.values())
        raise SystemExit(
            f"{expected} jobs were expected, each once; {len(times)} arrived, {twice} of them twice"
        )


def rate(arrivals: Sequence[Arrival]) -> float:
    """Arrivals a second, from the first to the last."""
    times = [arrival.at for arrival in arrivals]
    return (len(times) - 1) / (max(times) - min(times))


@contextlib.contextmanager
def running_sink(folder: Path) -> Iterator[Sink]:
    """Start an nginx, with its files in a folder."""
    if not NGINX.exists():
        raise SystemExit("there is no nginx; fetch it with: make nginx-engine")
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port))
    command = [str(NGINX), "-p", str(folder), "-c", str(configuration), "-e", "stderr"]
    with ended(subprocess.Popen(command)) as process:

        def listens() -> bool:
            if process.poll() is not None:
                raise SystemExit("nginx ended at once")
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, "nginx to listen")
        yield Sink(process.pid, port, folder)
