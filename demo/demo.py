"""
Dalga at work: starts it with an example endpoint, schedules two jobs and shows the POSTs arriving.

    make demo

Everything is in a temporary directory, and ends with Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

from endpoint import ExampleEndpoint, say

CHECKOUT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
DALGA, ENDPOINT = 34006, 5000  # the ports that Dalga takes if it is not told otherwise

INI = f"""\
[sqlite]
path = dalga.sqlite
[listen]
host = {HOST}
port = {DALGA}
[endpoint]
baseurl = http://{HOST}:{ENDPOINT}/
"""

TRY_NEXT = f"""
The next lines are the POSTs as they arrive. Meanwhile, try in another terminal:

  schedule  curl -i -X PUT 'http://{HOST}:{DALGA}/jobs/say/hello?interval=10'
  by cron   curl -i -X PUT 'http://{HOST}:{DALGA}/jobs/report/7?cron=*/2+*+*+*+*'
  upcoming  curl -i http://{HOST}:{DALGA}/jobs/report/7/upcoming
  get       curl -i http://{HOST}:{DALGA}/jobs/check_feed/1234
  trigger   curl -i -X POST http://{HOST}:{DALGA}/jobs/check_feed/1234
  disable   curl -i -X PATCH 'http://{HOST}:{DALGA}/jobs/check_feed/1234?disable=true'
  cancel    curl -i -X DELETE http://{HOST}:{DALGA}/jobs/check_feed/1234
  status    curl -i http://{HOST}:{DALGA}/status

Ctrl-C ends the demo.
"""


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    for port, who in ((ENDPOINT, "the example endpoint"), (DALGA, "Dalga")):
        check_free(port, who)
    # Closed in the opposite order: Dalga first, its directory last.
    with temporary_directory() as folder, running_endpoint(), running_dalga(folder):
        schedule("/jobs/check_feed/1234?interval=5&immediate=true")
        schedule("/jobs/send_mail/42?one-off=true&interval=3")
        print(TRY_NEXT, flush=True)
        while True:
            signal.pause()


def leave(number: int, frame: object) -> None:
    """End the demo; each ``with`` above tidies up, and is not interrupted by the next Ctrl-C."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(0)


def check_free(port: int, who: str) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        sys.exit(
            f"The demo needs port {port} of {HOST} for {who}, and can't have it "
            f"({os.strerror(error.errno or 0).lower()}): end the program that uses it, and "
            "try again."
        )


def temporary_directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="dalga-demo-")


@contextlib.contextmanager
def running_endpoint() -> Iterator[None]:
    with ThreadingHTTPServer((HOST, ENDPOINT), ExampleEndpoint) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


@contextlib.contextmanager
def running_dalga(folder: str) -> Iterator[None]:
    """Run ``dalga --config dalga.ini`` until the end of the demo."""
    ini = Path(folder, "dalga.ini")
    ini.write_text(INI)
    # Variables named DALGA_... would go before the file.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DALGA_")}
    environment["PYTHONPATH"] = str(CHECKOUT)
    dalga = subprocess.Popen(
        [sys.executable, "-u", "-m", "dalga", "--config", str(ini)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,  # Ctrl-C is for the demo, which then ends Dalga
    )
    listens = Event()
    reader = Thread(target=show_log, args=(dalga, listens), daemon=True)
    reader.start()
    try:
        while not listens.wait(0.1):
            if dalga.poll() is not None:
                reader.join()
                sys.exit("Dalga did not start; it says why above.")
        yield
    finally:
        dalga.terminate()
        dalga.wait()
        reader.join()


def show_log(dalga: subprocess.Popen[str], listens: Event) -> None:
    """Show what Dalga logs, and note when it listens."""
    assert dalga.stdout is not None
    for line in dalga.stdout:
        # Without its own date and time, and the part of Dalga that it comes from.
        say(f"  dalga: {line.rstrip().partition('] ')[2] or line.rstrip()}")
        if " listens on " in line:
            listens.set()


def schedule(target: str) -> None:
    """PUT a job, as curl would."""
    print(f"$ curl -X PUT 'http://{HOST}:{DALGA}{target}'", flush=True)
    connection = HTTPConnection(HOST, DALGA, timeout=10)
    connection.request("PUT", target)
    answer = connection.getresponse()
    print(f"{answer.status} {answer.read().decode().strip()}", flush=True)
    connection.close()


if __name__ == "__main__":
    main()
