"""Stands between a test process and its database server, so that neither outlives its use.

    python guard.py FOLDER LOG

Orders come on standard input, one JSON object a line: ``{"start": [argument, ...]}`` starts a
server, ``{"signal": number}`` signals it. Standard output says ``pid N`` and ``exit STATUS``.
The end of the input means that the test process is gone, however it went: the server is killed
and the folder with its data removed. Should the guard itself be killed, the kernel kills the
server. (A test process cannot ask the kernel for that itself: the request is bound to the thread
that started the server, and would fire when a thread of a pool ends.)
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1


def say(line: str) -> None:
    # If nobody listens any more, the end of the input comes next.
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), f"{line}\n".encode())


def start(command: list[str], log: str) -> subprocess.Popen[bytes]:
    """Start a server that dies with this process, and say when it has ended."""
    guard = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def die_with_guard() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)

    # The server opens its log only after the loader, and it, have had things to say.
    with open(log, "ab") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_guard,
        )
    say(f"pid {server.pid}")
    threading.Thread(target=lambda: say(f"exit {server.wait()}"), daemon=True).start()
    return server


def main() -> None:
    # Only the end of the input ends the guard: not a Ctrl-C meant for the tests, not a hang-up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder, log = sys.argv[1:]
    server: subprocess.Popen[bytes] | None = None
    try:
        for line in sys.stdin:
            order = json.loads(line)
            if "start" in order:
                server = start(order["start"], log)
            elif server is not None:
                server.send_signal(order["signal"])
    finally:
        if server is not None:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
