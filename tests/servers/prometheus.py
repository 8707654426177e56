"""A private Prometheus, and promtool, for tests: own data, own port, gone with the process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from tests.servers import guard
from tests.servers.server import HOST, engine_folder


def promtool(*arguments: str, given: bytes = b"", cwd: Path | None = None) -> tuple[int, str]:
    """Run promtool: gives its exit status, and what it said."""
    done = subprocess.run(
        [str(engine_folder("prometheus") / "promtool"), *arguments],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
    )
    return done.returncode, done.stdout.decode()


class Prometheus:
    """
    A server that runs until `stop`. It answers a moment after it was started.

    :param configuration: of its file.
    """

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="dalga-prometheus-"))
        self._log = self._folder / "log"
        with closing(socket.create_server((HOST, 0))) as free:
            port = free.getsockname()[1]
        self.url = f"http://{HOST}:{port}"
        file = self._folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(dict(configuration)))
        command = [
            str(engine_folder("prometheus") / "server"),
            f"--config.file={file}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address={HOST}:{port}",
        ]
        self._guard = subprocess.Popen(
            [sys.executable, guard.__file__, str(self._folder), str(self._log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        assert self._guard.stdin is not None
        self._guard.stdin.write(json.dumps({"start": command}).encode() + b"\n")
        self._guard.stdin.flush()

    def log(self) -> str:
        """What it has said."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """End it, and remove its data."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
