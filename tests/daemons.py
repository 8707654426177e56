"""
Real daemons in processes of their own, and an endpoint that remembers what it was POSTed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import treq
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from dalga.config.sections import MySQLConfig
from tests.stores import EngineTestCase

CHECKOUT = Path(__file__).resolve().parent.parent


#: A text that is shorter is not searched for in what daemons say: it stands for much else.
LEAST_SECRET = 6


def secrets_in(sections: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """The secrets of a configuration that no daemon may say (P12)."""
    for section, keys in sections.items():
        for key, value in keys.items():
            texts = re.findall("//[^/?#]*:([^/?#]*)@", str(value))
            if key in ("password", "secrets", "authSecret"):
                texts += re.split(r",\s*", str(value).strip('"'))
            elif "headers" in section and key.lower() not in ("content-type", "user-agent"):
                texts.append(str(value).strip('"'))
            yield from (text for text in texts if len(text) >= LEAST_SECRET)


class Daemon(ProcessProtocol):
    """A process that runs dalga."""

    def __init__(self) -> None:
        self.output = ""
        #: The exit status; minus the signal's number if one ended it.
        self.status: int | None = None
        self.ended: Deferred[int] = Deferred()
        self._waiting: list[tuple[re.Pattern[str], Deferred[re.Match[str]]]] = []

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode(errors="replace")  # what comes may end within a letter
        self._look()

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        ended = reason.value
        assert isinstance(ended, ProcessDone | ProcessTerminated)
        self.status = -ended.signal if ended.signal is not None else ended.exitCode
        for _, waiter in self._waiting:
            waiter.errback(AssertionError(f"it ended ({self.status}) and said:\n{self.output}"))
        self._waiting = []
        self.ended.callback(self.status)

    def says(self, pattern: str) -> Deferred[re.Match[str]]:
        """Wait for a line in its output."""
        waiter: Deferred[re.Match[str]] = Deferred()
        self._waiting.append((re.compile(pattern), waiter))
        self._look()
        return waiter

    def _look(self) -> None:
        for entry in list(self._waiting):
            found = entry[0].search(self.output)
            if found:
                self._waiting.remove(entry)
                entry[1].callback(found)

    def send(self, signal_number: signal.Signals) -> None:
        """Signal it, if it still runs."""
        if self.status is None:
            assert self.transport is not None
            self.transport.signalProcess(signal_number)

    async def url(self) -> str:
        """Where its HTTP interface is, once it listens."""
        return (await self.says(r"listens on (http://\S+)/,"))[1]


@dataclass(eq=False)
class Hit:
    """One POST as the endpoint saw it; times in the reactor's seconds."""

    path: str
    body: str
    headers: dict[str, str]
    start: float
    end: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.path, self.body

    @property
    def run(self) -> str:
        return self.headers["dalga-run"]

    @property
    def attempt(self) -> int:
        return int(self.headers["dalga-attempt"])

    @property
    def instance(self) -> str:
        return self.headers["dalga-instance"]

    @property
    def scheduled(self) -> datetime:
        """RFC 3339 in whole seconds, and nothing else."""
        return datetime.strptime(self.headers["dalga-sched"], "%Y-%m-%dT%H:%M:%S%z")


#: A status, or a status and a Retry-After, or a status and headers, and maybe a body.
Answer = int | tuple[int, str | dict[str, str]] | tuple[int, dict[str, str], bytes]


@dataclass
class Recorder(Resource):
    """
    The endpoint: answers with what `answer` says, and writes all down.

    :param answer: gives an `Answer`, or a Deferred of one.
    """

    seconds: Callable[[], float]
    answer: Callable[[Hit], Any] = lambda hit: 200
    hits: list[Hit] = field(default_factory=list)
    isLeaf = True

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Resource's
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def render_POST(self, request: Any) -> int:
        headers = {
            name.decode().lower(): values[-1].decode()
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        path = request.uri.decode().removeprefix("/")
        body = request.content.read().decode("utf-8", "surrogateescape")
        hit = Hit(path, body, headers, self.seconds())
        self.hits.append(hit)
        gone: list[object] = []

        def over(result: object) -> None:
            gone.append(result)
            if hit.end is None:
                hit.end = self.seconds()

        request.notifyFinish().addBoth(over)

        def finish(answer: Answer) -> Answer:
            hit.end = self.seconds()
            status, given, *body = answer if isinstance(answer, tuple) else (answer, {})
            headers = {"retry-after": given} if isinstance(given, str) else given
            if not gone:
                request.setResponseCode(status)
                for name, value in headers.items():
                    request.setHeader(name, value)
                request.write(b"".join(body))
                request.finish()
            self._look()
            return answer  # for other requests that wait for the same Deferred

        answer = self.answer(hit)
        (answer if isinstance(answer, Deferred) else succeed(answer)).addCallback(finish)
        self._look()
        return NOT_DONE_YET

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Wait until something holds of the hits."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append((condition, waiter))
        self._look()
        return waiter

    def _look(self) -> None:
        for entry in list(self._waiting):
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)

    def overlaps(self) -> list[tuple[Hit, Hit]]:
        """Pairs of POSTs of one job that were in flight at the same time (P3)."""
        found = []
        last: dict[tuple[str, str], Hit] = {}
        for hit in sorted(self.hits, key=lambda hit: hit.start):
            before = last.get(hit.key)
            if before is not None and (before.end is None or before.end > hit.start):
                found.append((before, hit))
            last[hit.key] = hit
        return found


class DaemonTestCase(EngineTestCase):
    """A test with daemons on one table, and an endpoint."""

    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.endpoint = Recorder(reactor.seconds)
        site: Any = Site(self.endpoint)  # by its types it is no ServerFactory
        listening = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        host = listening.getHost()
        assert isinstance(host, IPv4Address)
        self.baseurl = f"http://127.0.0.1:{host.port}/"
        self.folder = self.mktemp()
        os.makedirs(self.folder)
        self.daemons: list[Daemon] = []
        #: Those that this test's configurations have.
        self.secrets: set[str] = set()
        self.addCleanup(self.end_daemons)

    def ini(self, name: str = "dalga.ini", /, **sections: Mapping[str, object]) -> str:
        """Write a configuration file for this test's database; gives its path."""
        wanted: dict[str, dict[str, object]] = {
            # Longer than a test lets a POST wait on a busy machine, for the start of a daemon, say.
            "endpoint": {"baseurl": self.baseurl, "timeout": "60s"},
            "listen": {"port": 0},
            "jobs": {},
        }
        if isinstance(self.config, MySQLConfig):
            wanted["mysql"] = {
                key: getattr(self.config, key)
                for key in ("host", "port", "db", "table", "user", "password")
            }
        else:
            wanted["sqlite"] = {"path": self.config.path}
        for section, keys in sections.items():
            wanted.setdefault(section, {}).update(keys)
        self.secrets.update(secrets_in(wanted))
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            for section, keys in wanted.items():
                file.write(f"[{section}]\n")
                file.writelines(f"{key} = {value}\n" for key, value in keys.items())
        return os.path.abspath(path)

    def spawn(
        self,
        *arguments: str,
        twistd: bool = False,
        closed: Container[int] = (),
        buffered: bool = False,
        before: str = "",
        terminal: bool = False,
    ) -> Daemon:
        """
        Start ``dalga arguments``, or ``twistd arguments``, from this checkout.

        :param closed: which of the standard input, output and error, 0 to 2, it does not have.
        :param buffered: whether Python keeps what it could not write, as it does by itself.
        :param before: Python that is run first, of ``dalga``.
        :param terminal: whether it gets a terminal of its own, for standard input, output and
            error. To lose the connection to it closes the terminal.
        """
        run_twistd = "from twisted.scripts.twistd import run; run()"
        program = ["-c", run_twistd] if twistd else ["-m", "dalga"]
        if before:
            run_dalga = "import runpy; runpy.run_module('dalga', run_name='__main__')"
            program = ["-c", f"{before}; {run_dalga}"]
        daemon = Daemon()
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DALGA_")
        }
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(CHECKOUT), environment.get("PYTHONPATH")])
        )
        environment["PYTHONUNBUFFERED"] = "" if buffered else "1"
        self.reactor.spawnProcess(
            daemon,
            sys.executable,
            [sys.executable, *program, *arguments],
            environment,
            self.folder,
            usePTY=terminal,
            childFDs=None
            if terminal
            else {n: "w" if n == 0 else "r" for n in range(3) if n not in closed},
        )
        self.daemons.append(daemon)
        return daemon

    async def start(
        self, before: str = "", /, **sections: Mapping[str, object]
    ) -> tuple[Daemon, str]:
        """
        Start a daemon on the test's table, made if need be; gives it and its URL.

        :param before: see `spawn`.
        """
        ini = self.ini(**sections)
        if not self.daemons and self.engine != "sqlite":
            self.make_store().create_table()
        daemon = self.spawn("--config", ini, before=before)
        return daemon, await daemon.url()

    async def end_daemons(self) -> None:
        for daemon in self.daemons:
            daemon.send(signal.SIGKILL)
            if daemon.status is None:
                await daemon.ended
        said = "\n".join(daemon.output for daemon in self.daemons)
        for secret in self.secrets:
            self.assertNotIn(secret, said)

    async def call(self, method: str, url: str, **keywords: Any) -> tuple[int, str]:
        """One HTTP request; gives the status and the body."""
        response = await treq.request(method, url, persistent=False, **keywords)
        return response.code, await response.text("utf-8")

    async def get(self, url: str) -> dict[str, Any]:
        """What a GET shows, which has to be there."""
        status, answer = await self.call("GET", url)
        self.assertEqual(status, 200, answer)
        shown: dict[str, Any] = json.loads(answer)
        return shown

    async def until_shown(self, url: str, **members: object) -> dict[str, Any]:
        """Wait until a GET shows these members, None for one that is not there; gives all."""
        while True:
            shown = await self.get(url)
            if {name: shown.get(name) for name in members} == members:
                return shown
            await self.pause(0.05)

    async def until_gone(self, url: str) -> None:
        """Wait until a GET finds nothing."""
        while (await self.call("GET", url))[0] != 404:
            await self.pause(0.05)

    async def put(self, url: str) -> dict[str, Any]:
        """PUT a job; gives what is shown of it."""
        status, answer = await self.call("PUT", url)
        self.assertEqual(status, 201, answer)
        shown: dict[str, Any] = json.loads(answer)
        return shown

    async def patch_job(self, url: str, parameters: str) -> dict[str, Any]:
        """PATCH a job; gives what is shown of it."""
        status, answer = await self.call("PATCH", f"{url}?{parameters}")
        self.assertEqual(status, 200, answer)
        shown: dict[str, Any] = json.loads(answer)
        return shown

    async def pause(self, seconds: float) -> None:
        """Let time go by, for what can only be seen not to happen."""
        paused: Deferred[None] = Deferred()
        self.reactor.callLater(seconds, paused.callback, None)
        await paused
