"""
Dalga at work: starts it with an example endpoint, schedules two jobs and shows the POSTs arriving.

    make demo

Everything is in a temporary directory, and ends with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from endpoint import ExampleEndpoint, say

CHECKOUT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
DALGA, ENDPOINT = 34006, 5000  # the ports that Dalga takes if it is not told otherwise

INI = """\
[sqlite]
path = dalga.sqlite
[listen]
host = {host}
port = {port}
[endpoint]
baseurl = http://{host}:{endpoint}/
"""

TRY_NEXT = """
The next lines are the POSTs as they arrive. Meanwhile, try in another terminal:

  schedule  curl -i -X PUT '{url}/jobs/say/hello?interval=10'
  by cron   curl -i -X PUT '{url}/jobs/report/7?cron=*/2+*+*+*+*'
  upcoming  curl -i {url}/jobs/report/7/upcoming
  get       curl -i {url}/jobs/check_feed/1234
  why       curl -i {url}/jobs/check_feed/1234/why
  trigger   curl -i -X POST {url}/jobs/check_feed/1234
  once      curl -i '{url}/jobs/send_mail?delay=3' -d 'to 7'
  change    curl -i -X PATCH {url}/jobs/check_feed/1234 \\
                -H 'Content-Type: application/merge-patch+json' -d '{{"interval":10}}'
  disable   curl -i -X PATCH '{url}/jobs/check_feed/1234?disable=true'
  cancel    curl -i -X DELETE {url}/jobs/check_feed/1234
  status    curl -i {url}/status

Ctrl-C ends the demo.
"""


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    # Closed in the opposite order: Dalga first, its directory last.
    with (
        temporary_directory() as folder,
        running_endpoint() as endpoint,
        running_dalga(folder, endpoint) as url,
    ):
        schedule(url, "/jobs/check_feed/1234?interval=5&immediate=true")
        schedule(url, "/jobs/send_mail/42?one-off=true&interval=3")
        print(TRY_NEXT.format(url=url), flush=True)
        while True:
            signal.pause()


def leave(number: int, frame: object) -> None:
    """End the demo; each ``with`` above tidies up, and is not interrupted by the next Ctrl-C."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(0)


def free(port: int) -> int:
    """The port, or 0, which is any, where it is taken: 5000 is, on every Mac."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return 0
    return port


def tell(who: str, wanted: int, port: int) -> None:
    """Say which port is used in the place of one that is taken."""
    if port != wanted:
        print(f"Port {wanted} of {HOST} is taken: {who} is on port {port}.", flush=True)


def temporary_directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="dalga-demo-")


@contextlib.contextmanager
def running_endpoint() -> Iterator[int]:
    """Run the example endpoint until the end of the demo; gives its port."""
    with ThreadingHTTPServer((HOST, free(ENDPOINT)), ExampleEndpoint) as server:
        tell("the example endpoint", ENDPOINT, server.server_port)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@contextlib.contextmanager
def running_dalga(folder: str, endpoint: int) -> Iterator[str]:
    """
    Run ``dalga --config dalga.ini`` until the end of the demo; gives its URL.

    :param endpoint: the endpoint's port.
    """
    ini = Path(folder, "dalga.ini")
    ini.write_text(INI.format(host=HOST, port=free(DALGA), endpoint=endpoint))
    # Variables named DALGA_... would go before the file.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DALGA_")}
    environment["PYTHONPATH"] = str(CHECKOUT)
    # Nothing in it is anybody else's, and no shell reads it.
    dalga = subprocess.Popen(  # nosec B603
        [sys.executable, "-u", "-m", "dalga", "--config", str(ini)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,  # Ctrl-C is for the demo, which then ends Dalga
    )
    urls: Queue[str] = Queue()
    reader = Thread(target=show_log, args=(dalga, urls), daemon=True)
    reader.start()
    try:
        while not (url := next_of(urls)):
            if dalga.poll() is not None:
                reader.join()
                sys.exit("Dalga did not start; it says why above.")
        tell("Dalga", DALGA, int(url.rpartition(":")[2]))
        yield url
    finally:
        dalga.terminate()
        dalga.wait()
        reader.join()


def next_of(urls: Queue[str]) -> str:
    """What comes within a moment, or nothing."""
    try:
        return urls.get(timeout=0.1)
    except Empty:
        return ""


def show_log(dalga: subprocess.Popen[str], urls: Queue[str]) -> None:
    """Show what Dalga logs, and hand over where it listens."""
    assert dalga.stdout is not None
    for line in dalga.stdout:
        # Without its own date and time, and the part of Dalga that it comes from.
        say(f"  dalga: {line.rstrip().partition('] ')[2] or line.rstrip()}")
        if found := re.search(r" listens on (http://\S+)/,", line):
            urls.put(found[1])


def schedule(url: str, target: str) -> None:
    """PUT a job, as curl would."""
    print(f"$ curl -X PUT '{url}{target}'", flush=True)
    connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("PUT", target)
    answer = connection.getresponse()
    print(f"{answer.status} {answer.read().decode().strip()}", flush=True)
    connection.close()


if __name__ == "__main__":
    main()
