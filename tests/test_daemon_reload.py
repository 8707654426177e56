"""SIGHUP: daemons in processes of their own that read their configuration again."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from OpenSSL.SSL import Context
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import CertificateOptions
from twisted.web.server import Site
from zope.interface import implementer

from dalga.outgoing.pool import IDLE
from tests.certificates import Authority, ip
from tests.daemons import Daemon, DaemonTestCase
from tests.stores import each_engine
from tests.test_daemon import TwoEndpointsTestCase
from tests.test_workers import WorkersTestCase, alive

#: A CA that no file has.
NO_CA = "/nowhere/ca.pem"
STAYS = "the configuration is not taken over, and all stays as it was: "
JOB = "one-off=1&immediate=1"


class ReloadTestCase(TwoEndpointsTestCase):
    async def reload(self, daemon: Daemon, says: str, **sections: Mapping[str, object]) -> None:
        """Have the file changed, and read again. Waits for what the log says, once more."""
        self.ini(**sections)
        before = len(daemon.output)
        daemon.send(signal.SIGHUP)
        await daemon.says(f"(?s)\\A.{{{before}}}.*{says}")


@each_engine(globals())
class ReloadTests(ReloadTestCase):
    async def test_endpoints(self) -> None:
        """P2, P4, P11: new ones are POSTed to; a run under way ends by the one that it had."""
        hang: Deferred[int] = Deferred()
        self.billing.answer = lambda hit: hang if hit.path == "in/hangs" else 202
        daemon, url = await self.start(**self.sections)
        await self.schedule(url, "hangs", f"{JOB}&endpoint=billing")
        await self.schedule(
            url, "later", "one-off=1&first-run=2090-01-01T00:00:00Z&endpoint=billing"
        )
        await self.billing.until(lambda: len(self.billing.hits) == 1)
        # The default endpoint is where billing was, and another name has its place.
        where = self.sections["endpoint billing"]
        sections = {"endpoint": where, "endpoint mail": {"baseurl": self.baseurl, "success": 204}}
        says = r"changed: \[endpoint\] baseurl, \[endpoint\] timeout, \[endpoint\] success, "
        says += r"\[endpoint\] headers, \[endpoint billing\], \[endpoint mail\]\n"
        await self.reload(daemon, says, **sections)
        named = json.loads((await self.call("GET", f"{url}/endpoints"))[1])["endpoints"]
        self.assertEqual([each["name"] for each in named], ["default", "mail"])
        for name in ("hangs", "later"):
            shown = await self.get(f"{url}/jobs/{name}/x")
            self.assertIn("'billing' is not in the configuration", shown["problem"])
        status, answer = await self.call("PUT", f"{url}/jobs/a/x?{JOB}&endpoint=billing")
        self.assertEqual(status, 400, answer)
        # 202 is success of the endpoint that is gone, not of the default one before.
        hang.callback(202)
        await daemon.says(r"'hangs' 'x': 202 Accepted")
        await self.until_gone(f"{url}/jobs/hangs/x")
        await self.schedule(url, "plain", JOB)
        await self.schedule(url, "mail", f"{JOB}&endpoint=mail")
        await self.until_gone(f"{url}/jobs/plain/x")
        self.assertEqual(self.billing.hits[-1].path, "in/plain")
        await self.endpoint.until(lambda: bool(self.endpoint.hits))
        self.assertEqual(self.endpoint.hits[0].path, "mail")
        self.assertNotIn("Traceback", daemon.output)
        self.assertNotIn("s3cret", daemon.output)

    async def test_slots(self) -> None:
        """P7, P10: more of them start what waits; fewer let what runs go on."""
        hang: Deferred[int] = Deferred()
        self.endpoint.answer = lambda hit: hang
        daemon, url = await self.start(jobs={"maxRunning": 1})
        for number in range(4):
            await self.schedule(url, f"path{number}", JOB)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        await self.reload(daemon, r"\[jobs\] maxRunning", jobs={"maxRunning": 3})
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 3)
        await self.reload(daemon, r"\[jobs\] maxRunning", jobs={"maxRunning": 2})
        await self.pause(0.3)
        self.assertEqual(len(self.endpoint.hits), 3)
        hang.callback(200)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 4)

    async def test_limits(self) -> None:
        """Of payloads, and of the level of the log."""
        daemon, url = await self.start(log={"level": "debug"})
        payload = "x" * 200
        await self.put(f"{url}/jobs/a/b?{JOB}&payload={payload}")
        await self.reload(
            daemon,
            r"changed: \[jobs\] maxPayload, \[log\] level\n",
            jobs={"maxPayload": 100},
            log={"level": "info"},
        )
        status, answer = await self.call("PUT", f"{url}/jobs/a/b?{JOB}&payload={payload}")
        self.assertEqual(status, 400)
        self.assertIn("it takes 100 at most", answer)
        before = len(daemon.output)
        await self.schedule(url, "plain", JOB)
        await daemon.says(r"'plain' 'x': 200 OK")
        self.assertNotIn("#debug", daemon.output[before:])

    async def test_mistakes(self) -> None:
        """All stays as it was, and the log says why, as often as it is asked."""
        daemon, url = await self.start(jobs={"maxRunning": 7})
        for section, keys in (
            ("jobs", {"maxRunning": "many", "retryJitter": 0.5}),
            ("endpoint", {"baseurl": "https://127.0.0.1/", "ca": NO_CA}),
        ):
            await self.reload(daemon, f"{STAYS}.*[^\n]\n", **{section: keys})
        path = self.ini()
        Path(path).write_text("[jobs\n")
        daemon.send(signal.SIGHUP)
        await daemon.says(rf"{STAYS}.*\[jobs")
        Path(path).write_text("")  # as where a reload comes while somebody writes it
        daemon.send(signal.SIGHUP)
        await daemon.says(rf"{STAYS}.*there is nothing in it")
        os.remove(path)
        daemon.send(signal.SIGHUP)
        await daemon.says(rf"{STAYS}.*No such file")
        _, shown = await self.call("GET", f"{url}/metrics")
        self.assertIn("dalga_slots 7.0\n", shown)
        await self.schedule(url, "plain", JOB)
        await self.until_gone(f"{url}/jobs/plain/x")
        await self.reload(daemon, r"changed: \[jobs\] maxRunning\n", jobs={"maxRunning": 8})
        self.assertNotIn("Traceback", daemon.output)

    async def test_what_stays(self) -> None:
        """It is named at each reload, and the rest is taken over."""
        daemon, url = await self.start()
        for number in (1, 2):
            await self.reload(
                daemon,
                r"\[listen\] port: given otherwise than at the start",
                jobs={"maxRunning": number},
                listen={"port": 1},
            )
        await self.get(f"{url}/status")
        _, shown = await self.call("GET", f"{url}/metrics")
        self.assertIn("dalga_slots 2.0\n", shown)
        says = "nothing that can change now has changed\n"
        await self.reload(daemon, says, jobs={"maxRunning": 2})
        self.assertEqual(daemon.output.count("given otherwise"), 2)

    async def test_many_in_a_row(self) -> None:
        """P3: runs go on, and the last one counts."""
        daemon, url = await self.start()
        await self.put(f"{url}/jobs/each/second?interval=1&immediate=1")
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        number = 0
        while len(self.endpoint.hits) < 4:
            number += 1
            self.ini(jobs={"maxRunning": number})
            daemon.send(signal.SIGHUP)
            await self.pause(0.01)
        self.assertGreater(number, 3)
        await daemon.says("changed:")
        while f"dalga_slots {number}.0\n" not in (await self.call("GET", f"{url}/metrics"))[1]:
            await self.pause(0.05)
        self.assertNotIn("Traceback", daemon.output)
        self.assertEqual(self.endpoint.overlaps(), [])

    async def test_during_a_stop(self) -> None:
        """It is as if nobody had asked."""
        release: Deferred[int] = Deferred()
        self.endpoint.answer = lambda hit: release
        daemon, url = await self.start()
        await self.schedule(url, "plain", JOB)
        await self.endpoint.until(lambda: len(self.endpoint.hits) == 1)
        daemon.send(signal.SIGHUP)
        daemon.send(signal.SIGTERM)
        await daemon.says("stopping: waiting")
        daemon.send(signal.SIGHUP)
        await self.pause(0.7)
        daemon.send(signal.SIGHUP)
        release.callback(200)
        self.assertEqual(await daemon.ended, 0)
        self.assertIn("200 OK", daemon.output)
        self.assertNotIn("Traceback", daemon.output)


@implementer(IOpenSSLContextFactory)
class Contexts:
    """The TLS contexts of a server, which may have another certificate at any time."""

    options: CertificateOptions

    def getContext(self) -> Context:
        """Called with each connection."""
        return self.options.getContext()


@each_engine(globals(), only=("sqlite",))
class CertificateTests(ReloadTestCase):
    async def test_another_ca(self) -> None:
        """P11: of a file of CAs the content counts, though the configuration is as it was."""
        contexts, path = Contexts(), os.path.abspath(os.path.join(self.folder, "ca.pem"))

        def issue() -> None:
            """Give the endpoint a certificate of a CA that nobody knew before."""
            authority = Authority()
            contexts.options = authority.issue(ip("127.0.0.1"))
            authority.write(path)

        issue()
        site: Any = Site(self.endpoint)
        port = self.reactor.listenSSL(0, site, contexts, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        endpoint = {"baseurl": f"https://127.0.0.1:{port.getHost().port}/", "ca": path}
        jobs = {"retryInterval": "100ms", "retryMultiplier": 1}
        daemon, url = await self.start(endpoint=endpoint, jobs=jobs)
        await self.schedule(url, "before", JOB)
        await self.until_gone(f"{url}/jobs/before/x")
        issue()
        await self.pause(IDLE)  # no connection is kept for longer
        await self.schedule(url, "after", JOB)
        await daemon.says("'after' 'x'.*certificate")
        await self.reload(daemon, r"changed: \[endpoint\] ca\n", endpoint=endpoint, jobs=jobs)
        await self.until_gone(f"{url}/jobs/after/x")
        self.assertEqual([hit.path for hit in self.endpoint.hits], ["before", "after"])


@each_engine(globals(), only=("sqlite",))
class StartTests(ReloadTestCase):
    #: Has a hang-up come when the configuration was read, and before the daemon runs.
    EARLY = """
import os, signal
from dalga import service
make = service.make_service
def early(*arguments):
    made = make(*arguments)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGHUP)
    return made
service.make_service = early"""

    async def test_during_the_start(self) -> None:
        """What has changed since the configuration was read is taken over."""
        ini = self.ini()
        daemon = self.spawn("--config", ini, before=self.EARLY)
        await daemon.url()
        await daemon.says("the configuration was read again; nothing")
        await self.reload(daemon, r"changed: \[jobs\] maxRunning", jobs={"maxRunning": 8})
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)

    #: Has the readings of the configuration wait for a file.
    HELD = """
import os, time
from dalga import service
reread = service.reread
def held(*arguments):
    found = reread(*arguments)
    print("has read", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.05)
    return found
service.reread = held"""

    async def test_one_after_the_other(self) -> None:
        """What changes during a reload is taken over by another one, however many are asked for."""
        daemon = self.spawn("--config", self.ini(), before=self.HELD)
        url = await daemon.url()
        self.ini(jobs={"maxRunning": 6})
        daemon.send(signal.SIGHUP)
        await daemon.says("has read")
        for number in (7, 8):
            self.ini(jobs={"maxRunning": number})
            daemon.send(signal.SIGHUP)
            await self.pause(0.1)
        Path(self.folder, "go").touch()
        await daemon.says("(?s)changed.*changed")
        _, shown = await self.call("GET", f"{url}/metrics")
        self.assertIn("dalga_slots 8.0\n", shown)
        self.assertEqual(daemon.output.count("changed: "), 2)

    async def test_options_and_variables(self) -> None:
        """They go before the file, also when it is read again."""
        ini = self.ini()
        before = "import os; os.environ['DALGA_JOBS_MAXRUNNING'] = '5'"
        daemon = self.spawn("--config", ini, "--debug", before=before)
        url = await daemon.url()
        await self.reload(
            daemon,
            r"changed: \[history\] maxRows\n",
            jobs={"maxRunning": 8},
            history={"maxRows": 5},
            log={"level": "error"},
        )
        _, shown = await self.call("GET", f"{url}/metrics")
        self.assertIn("dalga_slots 5.0\n", shown)

    async def test_twistd(self) -> None:
        """Also where it detaches, and in another folder."""
        self.ini()
        for options in (["-n", "--pidfile="], ["--pidfile=t.pid", "--rundir=/"]):
            log = os.path.join(os.path.abspath(self.folder), f"{len(options[0])}.log")
            path = os.path.join(os.path.abspath(self.folder), "t.pid")
            options = [each.replace("t.pid", path) for each in options]
            daemon = self.spawn(
                *options, f"--logfile={log}", "dalga", "--config", "dalga.ini", twistd=True
            )
            while not os.path.exists(log) or "time zone data" not in Path(log).read_text():
                await self.pause(0.05)
            pid = None
            if "-n" not in options:
                self.assertEqual(await daemon.ended, 0)  # it has detached
                pid = int(Path(path).read_text())
            if pid is not None:
                self.addCleanup(self.end, pid)
            self.ini(jobs={"maxRunning": 8})
            assert daemon.transport is not None
            os.kill(pid or daemon.transport.pid, signal.SIGHUP)
            while "changed: [jobs] maxRunning" not in Path(log).read_text():
                await self.pause(0.05)
            self.ini()
            os.kill(pid or daemon.transport.pid, signal.SIGTERM)
            while "Server Shut Down" not in Path(log).read_text():
                await self.pause(0.05)

    def end(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


@each_engine(globals(), only=("sqlite",))
class TerminalTests(DaemonTestCase):
    """A terminal, and a daemon in its foreground that logs to a file."""

    def in_terminal(self, *before: str) -> tuple[Daemon, Path]:
        """Start it; gives its log, too."""
        daemon = self.spawn(
            "-n",
            "--pidfile=",
            "--logfile=t.log",
            "dalga",
            "--config",
            self.ini(),
            twistd=True,
            terminal=True,
        )
        return daemon, Path(self.folder, "t.log")

    async def until_logged(self, log: Path, pattern: str) -> None:
        while not log.exists() or not re.search(pattern, log.read_text()):
            await self.pause(0.05)

    async def test_a_living_terminal(self) -> None:
        daemon, log = self.in_terminal()
        await self.until_logged(log, "time zone data")
        self.ini(jobs={"maxRunning": 8})
        daemon.send(signal.SIGHUP)
        await self.until_logged(log, r"changed: \[jobs\] maxRunning\n")
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)

    async def test_a_terminal_that_is_closed(self) -> None:
        """The daemon stops in order."""
        daemon, log = self.in_terminal()
        await self.until_logged(log, "time zone data")
        assert daemon.transport is not None
        daemon.transport.loseConnection()
        self.assertEqual(await daemon.ended, 0)
        self.assertIn("stopped\n", log.read_text())
        self.assertNotIn("read again", log.read_text())

    #: A start that takes long.
    SLOW = """
import time
from dalga import service
def slow(*arguments):
    print("begins", flush=True)
    time.sleep(60)
service.make_service = slow"""

    async def test_a_terminal_that_is_closed_during_the_start(self) -> None:
        """It ends the process, as that of any other program."""
        daemon = self.spawn("--config", self.ini(), before=self.SLOW, terminal=True)
        await daemon.says("begins")
        daemon.send(signal.SIGHUP)  # the terminal is there
        await self.pause(0.1)
        self.assertIsNone(daemon.status)
        assert daemon.transport is not None
        daemon.transport.loseConnection()
        self.assertEqual(await daemon.ended, -signal.SIGHUP)


@each_engine(globals(), only=("mariadb",))
class WorkersReloadTests(WorkersTestCase):
    #: A worker whose user may not read the configuration any more.
    BLIND = """
import os
from dalga import service
from dalga.errors import StartupError
reread, supervisor = service.reread, os.getpid()
def blind(*arguments):
    if os.getpid() != supervisor:
        raise StartupError("it can't be read")
    return reread(*arguments)
service.reread = blind"""

    async def until_slots(self, url: str, slots: int) -> None:
        """Until all workers show so many."""
        while True:
            _, shown = await self.call("GET", f"{url}/metrics")
            found = re.findall(r'dalga_slots\{worker="\d"\} (\d+)', shown)
            if found == [str(slots)] * 2:
                return
            await self.pause(0.1)

    async def test_all_of_them(self) -> None:
        """The supervisor says it once, and no worker stops."""
        daemon = self.run_workers()
        url, pids = await self.listening(daemon)
        self.ini(jobs={"maxRunning": 8}, listen={"port": 1})
        daemon.send(signal.SIGHUP)
        await daemon.says(r"\[dalga\.reloading#info\] .*changed: \[jobs\] maxRunning\n")
        await daemon.says(r"\[dalga\.reloading#warn\] \[listen\] port: given otherwise")
        await self.until_slots(url, 8)
        self.assertEqual(daemon.output.count("changed: "), 1)
        self.assertEqual(self.processes(daemon.output), pids)
        Path(self.ini()).write_text("[jobs\n")
        daemon.send(signal.SIGHUP)
        await daemon.says(STAYS)
        self.assertEqual(daemon.output.count(STAYS), 1)
        await self.until_slots(url, 8)
        daemon.send(signal.SIGTERM)
        self.assertEqual(await daemon.ended, 0)
        self.check_lines(daemon.output)

    async def test_a_worker_that_is_dead(self) -> None:
        """The one that takes its place goes by the new configuration."""
        daemon = self.run_workers()
        url, pids = await self.listening(daemon)
        os.kill(pids[2], signal.SIGKILL)
        await daemon.says("a new worker starts")
        self.ini(jobs={"maxRunning": 8})
        daemon.send(signal.SIGHUP)
        await daemon.says(r"changed: \[jobs\] maxRunning\n")
        await daemon.says(r"(?s)a new worker starts.* worker 2 \[\S+ this worker is instance")
        await self.until_slots(url, 8)

    async def test_a_worker_that_can_not(self) -> None:
        """It says so, and goes on as it was."""
        daemon = self.spawn(
            "--config", self.ini(jobs={"maxRunning": 9}), "--workers", "2", before=self.BLIND
        )
        url, _ = await self.listening(daemon)
        self.ini(jobs={"maxRunning": 8})
        daemon.send(signal.SIGHUP)
        for number in (1, 2):
            await daemon.says(
                rf"worker {number} \[dalga\.reloading#error\] {STAYS}it can't be read"
            )
        await self.until_slots(url, 9)

    async def test_a_terminal_that_is_closed(self) -> None:
        """All stop in order, though the hang-up reaches each of them."""
        daemon = self.spawn("--config", self.ini(), "--workers", "2", terminal=True)
        await self.listening(daemon)
        pids = self.processes(daemon.output.replace("\r\n", "\n"))
        self.assertEqual(len(pids), 2)
        assert daemon.transport is not None
        daemon.transport.loseConnection()
        self.assertEqual(await daemon.ended, 0)
        self.assertFalse(any(map(alive, pids.values())))
