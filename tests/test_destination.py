"""Where the log goes, and when: ``twistd dalga`` and ``dalga``, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from dalga.destination import of_twistd
from dalga.lines import TextLines
from tests.daemons import Daemon, DaemonTestCase
from tests.stores import each_engine

ROOT = Path(__file__).parent.parent

#: Runs twistd, or dalga, as its arguments say, after what comes before it.
RUN = """
if sys.argv[1] == "dalga":
    from dalga.cli import main
    sys.exit(main([]))
del sys.argv[1]
from twisted.scripts.twistd import run
run()
"""

#: A daemon that stops after a turn with two lines, and a mark that goes past the log.
TWO_LINES = """
import os, sys
from twisted.internet import reactor
from dalga.log import logger

def turn():
    for number in (1, 2):
        logger("dalga.test").info("{number}: g\\xfcnl\\xfck \\udc80", number=number)
    mark()
    reactor.stop()

reactor.callWhenRunning(lambda: reactor.callLater(0.1, turn))
"""

TO_STDOUT = TWO_LINES + "mark = lambda: os.write(1, b'mark\\n')\n"


class ProcessTestCase(SynchronousTestCase):
    #: What happens to each way to run it.
    WAYS = (("dalga",), ("twistd", "-n", "--pidfile=", "dalga"))

    def run_with(
        self, script: str, *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script, and then twistd or dalga, in a folder of its own."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DALGA_")}
        environment |= {
            "DALGA_LISTEN_PORT": "0",
            "PYTHONPATH": os.fspath(ROOT),
            "PYTHONIOENCODING": "ascii",
            **variables,
        }
        environment.pop("PYTHONUNBUFFERED", None)  # what is not flushed is to be lost
        return subprocess.run(
            [sys.executable, "-c", script + RUN, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def twistd(
        self, script: str, *options: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script, and then ``twistd -n options dalga``."""
        return self.run_with(script, "twistd", "-n", "--pidfile=", *options, "dalga", **variables)


class LinesTests(ProcessTestCase):
    """What a process has written, and when."""

    def test_twistd_as_dalga(self) -> None:
        """
        To the standard output both write the lines of a turn together, after it; and the same.
        Twisted's observer would have written them before the mark.
        """
        said = []
        for done in (self.run_with(TO_STDOUT, "dalga"), self.twistd(TO_STDOUT)):
            self.assertEqual((done.returncode, done.stderr), (0, ""), done)
            said.append(re.sub(r"(?m)^\S+T\S+ ", "", done.stdout).partition("mark\n"))
        for before, _, after in said:
            self.assertNotIn("dalga.test", before)
            self.assertEqual(
                after.splitlines()[:2],
                [rf"[dalga.test#info] {n}: g\xfcnl\xfck \udc80" for n in (1, 2)],
            )
            self.assertIn("[dalga.service#info] stopped\n", after)
        self.assertIn("[twisted.internet.base#info] Main loop terminated.", said[0][2])
        self.assertTrue(said[1][2].endswith("UnixAppLogger#info] Server Shut Down.\n"), said[1])

    def test_a_file(self) -> None:
        """To a file as well, of whatever name; no line is lost that UTF-8 can't write."""
        script = TWO_LINES + "mark = lambda: os.write(1, open('t.log', 'rb').read())\n"
        done = self.twistd(script, "--logfile=t.log")
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("listens on", done.stdout)
        self.assertNotIn("dalga.test", done.stdout)
        written = (self.folder / "t.log").read_text()
        self.assertIn("[dalga.test#info] 1: g\xfcnl\xfck \\udc80\n", written)
        self.assertTrue(written.endswith("Server Shut Down.\n"), written)

    def test_a_file_by_its_size(self) -> None:
        """A file of a megabyte is full: its name gets a 1, and a new file begins."""
        full = "from pathlib import Path\nPath('t.log').write_bytes(bytes(1_000_000))\n"
        done = self.twistd(TO_STDOUT + full, "--logfile=t.log")
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual((self.folder / "t.log.1").stat().st_size, 1_000_000)
        self.assertIn("listens on", (self.folder / "t.log").read_text())

    def test_a_file_that_can_not_be(self) -> None:
        """It is one line, and the end."""
        done = self.twistd("import sys\n", "--logfile=missing/t.log")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(
            done.stderr,
            "dalga: log file 'missing/t.log' can't be opened (No such file or directory): name "
            "another one with twistd's --logfile, or let this user write to it and to its folder\n",
        )

    def test_a_logger_of_ones_own(self) -> None:
        """``--logger`` gets each event, with its fields, and nothing is written beside it."""
        mine = """
import sys, types
def factory():
    from twisted.logger import ILogObserver
    from zope.interface import implementer
    @implementer(ILogObserver)
    def observer(event):
        line = f"mine: {event['log_format']} {event.get('number')}\\n"
        os.write(1, line.encode("ascii", "replace"))
    return observer
sys.modules["mine"] = module = types.ModuleType("mine")
module.factory = factory
"""
        done = self.twistd(TO_STDOUT + mine, "--logger=mine.factory", "--logfile=t.log")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        before, _, after = done.stdout.partition("mark\n")
        self.assertIn("mine: {number}: g?nl?k ? 2\n", before)
        self.assertIn("mine: stopped None\n", after)
        for line in done.stdout.splitlines():
            self.assertTrue(line.startswith(("mine: ", "mark")), line)
        self.assertFalse((self.folder / "t.log").exists())

    def test_syslog(self) -> None:
        """``--syslog`` gets each line, and nothing is written beside it."""
        fake = """
import syslog
syslog.syslog = lambda *given: os.write(1, f"to syslog: {given[-1]}\\n".encode("ascii", "replace"))
"""
        done = self.twistd(TO_STDOUT + fake, "--syslog")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        before, _, after = done.stdout.partition("mark\n")
        self.assertIn("to syslog: [-] 2: g?nl?k ?\n", before)
        self.assertIn("to syslog: [-] stopped\n", after)
        for line in done.stdout.splitlines():
            self.assertTrue(line.startswith(("to syslog: ", "mark")), line)

    def test_the_standard_output_of_a_daemon(self) -> None:
        """There is none: twistd itself says so."""
        done = self.run_with("import sys\n", "twistd", "--pidfile=", "--logfile=-", "dalga")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr, "Daemons cannot log to stdout, exiting!\n")

    def test_killed_before_the_reactor_runs(self) -> None:
        """What was logged by then is there, although no turn of the reactor came."""
        killed = """
import os, signal, sys
from dalga.service import DalgaService
from dalga.log import logger

def start(self):
    logger("dalga.test").info("the last word")
    os.kill(os.getpid(), signal.SIGKILL)

DalgaService.startService = start
"""
        for way in self.WAYS:
            done = self.run_with(killed, *way)
            self.assertEqual(done.returncode, -signal.SIGKILL, done)
            self.assertIn("[dalga.test#info] the last word\n", done.stdout)

    def test_a_start_that_fails(self) -> None:
        """Its traceback is there."""
        broken = """
import sys
from dalga.service import DalgaService
def start(self):
    raise ZeroDivisionError("broken")
DalgaService.startService = start
"""
        for way in self.WAYS:
            done = self.run_with(broken, *way)
            self.assertEqual(done.returncode, 1, done)
            self.assertIn("ZeroDivisionError: broken", done.stdout + done.stderr)

    def test_a_failure(self) -> None:
        """What a callback raises is logged with its traceback, and the daemon goes on."""
        failing = TO_STDOUT + "reactor.callWhenRunning(lambda: 1 // 0)\n"
        for way in self.WAYS:
            done = self.run_with(failing, *way)
            self.assertEqual(done.returncode, 0, done)
            self.assertIn("\n\tTraceback (most recent call last):", done.stdout)
            self.assertIn("ZeroDivisionError", done.stdout)
            self.assertIn("stopped\n", done.stdout)

    def test_ended_by_its_signal(self) -> None:
        """
        twistd ends itself by a signal that comes before the daemon takes signals. By then the lines
        of the last turn are written, after which there is none.
        """
        early = """
import os, signal, sys
from twisted.internet import reactor, task
from dalga.log import logger

def last():
    return task.deferLater(reactor, 1, logger("dalga.test").info, "the last turn")

reactor.addSystemEventTrigger("before", "shutdown", last)
reactor.addSystemEventTrigger("during", "startup", os.kill, os.getpid(), signal.SIGTERM)
"""
        done = self.twistd(early)
        self.assertEqual(done.returncode, -signal.SIGTERM, done)
        self.assertIn("[dalga.service#info] stopped\n", done.stdout)
        self.assertIn("[dalga.test#info] the last turn\n", done.stdout)
        self.assertTrue(done.stdout.endswith("Server Shut Down.\n"), done.stdout)

    def test_a_second_signal(self) -> None:
        """The lines of the turn that it interrupts are there."""
        signals = """
import signal, time
def mark():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.7)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
"""
        done = self.twistd(TWO_LINES + signals)
        self.assertEqual(done.returncode, 128 + signal.SIGTERM, done)
        self.assertIn("[dalga.test#info] 2:", done.stdout)

    def test_a_reader_that_has_gone(self) -> None:
        """The daemon goes on without, and says nothing of it, which would fail again each turn."""
        gone = """
from twisted.logger import globalLogPublisher

def mark():
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(writer)
    os.close(reader)
    globalLogPublisher.addObserver(lambda event: events.append(event["log_format"]))

def over():
    open("on", "w").write(repr(events))
    reactor.stop()

events = []
"""
        for way in self.WAYS:
            script = TWO_LINES.replace("reactor.stop()", "reactor.callLater(0.3, over)") + gone
            done = self.run_with(script, *way)
            self.assertNotIn("dalga.test", done.stdout)
            self.assertEqual((self.folder / "on").read_text(), "[]")


class JsonTests(ProcessTestCase):
    """The same as JSON, wherever the lines go: each is an object, whoever says it."""

    #: What the daemon's script says before its first turn: a line of two, and a failure.
    SAYS = """
def say():
    logger("dalga.test").warn("two\\nlines", path="a", run_id="1-2")
    print("printed")
    1 // 0

reactor.callWhenRunning(say)
"""

    def check(self, text: str, printed: bool = False) -> None:
        """Each line has the members; those that are to be there, are."""
        found = [json.loads(line) for line in text.splitlines() if line != "mark"]
        for members in found:
            self.assertEqual([*members][:4], ["time", "level", "logger", "message"])
            self.assertRegex(members["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        messages = [members["message"] for members in found]
        self.assertIn("1: g\xfcnl\xfck \udc80", messages)
        self.assertEqual(messages.count("stopped"), 1)
        [began] = [members for members in found if "listens on" in members["message"]]
        self.assertIn(f"({began['instance']})", began["message"])
        [warned] = [members for members in found if members["level"] == "warn"]
        expected = {"logger": "dalga.test", "message": "two\nlines", "path": "a", "run_id": "1-2"}
        self.assertEqual({name: warned[name] for name in expected}, expected)
        [broken] = [members for members in found if "traceback" in members]
        self.assertEqual(broken["level"], "critical")
        self.assertIn("ZeroDivisionError", broken["traceback"])
        self.assertNotIn("Traceback", broken["message"])
        if printed:
            self.assertIn("printed", messages)
            self.assertIn("Server Shut Down.", messages)

    def test_standard_output(self) -> None:
        script = TO_STDOUT + self.SAYS
        done = self.run_with(script, "dalga", DALGA_LOG_FORMAT="json")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        self.check(done.stdout.replace("printed\n", ""))
        done = self.twistd(script, DALGA_LOG_FORMAT="json")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        self.check(done.stdout, printed=True)

    def test_a_file_of_json(self) -> None:
        done = self.twistd(TO_STDOUT + self.SAYS, "--logfile=t.log", DALGA_LOG_FORMAT="json")
        self.assertEqual((done.returncode, done.stdout), (0, "mark\n"), done)
        self.check((self.folder / "t.log").read_text(), printed=True)

    def test_syslog_of_json(self) -> None:
        """A message for each line, with the priority of its level, under twistd's prefix."""
        fake = """
import syslog
syslog.syslog = lambda *given: os.write(1, f"{given[0]} {given[1]}\\n".encode())
syslog.openlog = lambda *given: os.write(1, f"{given[0]} opened\\n".encode())
"""
        script = TO_STDOUT.replace("import os, sys", "import os, sys" + fake, 1) + self.SAYS
        done = self.twistd(script, "--syslog", "--prefix=mine", DALGA_LOG_FORMAT="json")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        opened, *lines = done.stdout.replace("mark\n", "").splitlines()
        self.assertEqual(opened, "mine opened")
        priorities = {"info": "6", "warn": "4", "critical": "2"}
        for line in lines:
            priority, _, text = line.partition(" ")
            self.assertEqual(priorities[json.loads(text)["level"]], priority)
        self.check("\n".join(line.partition(" ")[2] for line in lines), printed=True)

    def test_level(self) -> None:
        """Of lines below it there is none, not of Twisted's either; --debug goes before it."""
        script = TO_STDOUT + self.SAYS
        for way in self.WAYS:
            done = self.run_with(script, *way, DALGA_LOG_LEVEL="warn")
            self.assertEqual(done.returncode, 0, done)
            said = done.stdout.replace("mark\n", "").replace("printed\n", "")
            levels = re.findall(r"(?m)^\S+T\S+ \[\S+#(\w+)\]", said)
            self.assertEqual(levels, ["warn", "critical"], said)
        fake = (
            "import syslog\nsyslog.syslog = lambda *given: os.write(1, b'%a\\n' % (given[-1],))\n"
        )
        quiet = script.replace("import os, sys", f"import os, sys\n{fake}", 1)
        done = self.twistd(quiet, "--syslog", DALGA_LOG_LEVEL="warn")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        quietly = [line for line in done.stdout.splitlines() if line != "mark"]
        self.assertEqual(quietly[:2], ["'[-] two'", "'[-] \\tlines'"])
        self.assertIn("ZeroDivisionError", quietly[-1])
        self.assertFalse([line for line in quietly if "Server Shut Down" in line or "1: g" in line])
        later = script + "reactor.callWhenRunning(logger('dalga.test').debug, 'detail')\n"
        done = self.run_with(
            later,
            "twistd",
            "-n",
            "--pidfile=",
            "dalga",
            "--debug",
            DALGA_LOG_LEVEL="error",
            DALGA_LOG_FORMAT="json",
        )
        found = [json.loads(line) for line in done.stdout.splitlines() if line != "mark"]
        self.assertEqual(
            {members["level"] for members in found}, {"debug", "info", "warn", "critical"}, found
        )


class ThreadTests(SynchronousTestCase):
    def test_another_thread(self) -> None:
        """A line of another thread wakes the reactor, which would wait for its next timer."""

        class Reactor:
            running = True

            def __init__(self) -> None:
                self.woken: list[Callable[[], None]] = []
                self.callFromThread = self.woken.append

            def addSystemEventTrigger(self, *_: object) -> None:
                pass

        reactor = Reactor()
        path = self.mktemp()
        options = {"nodaemon": True, "logger": None, "syslog": False, "logfile": path}
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        observer: Any = of_twistd(options, reactor, TextLines())
        log = Logger("dalga", observer=observer)
        thread = threading.Thread(target=log.info, args=("from a thread",))
        thread.start()
        thread.join()
        (flush,) = reactor.woken
        flush()
        self.assertIn("from a thread", Path(path).read_text())

    def test_another_program(self) -> None:
        """Options that are not twistd's say nothing of where its lines go."""
        self.assertIsNone(of_twistd({"logFile": None}, None, TextLines()))
        self.assertIsNone(of_twistd({}, None, TextLines()))


@each_engine(globals(), only=("sqlite",))
class RotationTests(DaemonTestCase):
    """``twistd`` with a file, in the foreground and detached."""

    def log(self, name: str) -> str:
        path = Path(self.folder, name)
        return path.read_text() if path.exists() else ""

    async def until_logged(self, name: str, pattern: str) -> re.Match[str]:
        """Wait for a line in a file."""
        while not (found := re.search(pattern, self.log(name))):
            await self.pause(0.02)
        return found

    async def check(self, name: str, pid: int) -> None:
        """SIGUSR1 begins a new file, to which the daemon goes on to write; no line is lost."""
        url = (await self.until_logged(name, r"listens on (http://\S+)/,"))[1]
        os.kill(pid, signal.SIGUSR1)
        while not self.log(f"{name}.1"):
            await self.pause(0.02)
        await self.put(f"{url}/jobs/a/b?one-off=1&immediate=1")
        await self.until_logged(name, "'a' 'b': 200 OK")
        os.kill(pid, signal.SIGTERM)
        await self.until_logged(name, "Server Shut Down.\n$")
        both = self.log(f"{name}.1") + self.log(name)
        for line in ("starting up", "listens on", "'a' 'b': 200", "stopped\n", "Server Shut Down."):
            self.assertEqual(both.count(line), 1, both)
        self.assertNotIn("Traceback", both)

    async def test_foreground(self) -> None:
        """``twistd -n --logfile``."""
        options = ["-n", "--pidfile=", "--logfile=t.log", "dalga", "--config", self.ini()]
        daemon: Daemon = self.spawn(*options, twistd=True)
        assert daemon.transport is not None
        pid = daemon.transport.pid
        assert pid is not None
        await self.check("t.log", pid)
        self.assertEqual((await daemon.ended, daemon.output), (0, ""))

    async def test_detached(self) -> None:
        """A daemon that is told no file has ``twistd.log``."""
        starter = self.spawn("--pidfile=t.pid", "dalga", "--config", self.ini(), twistd=True)
        self.assertEqual((await starter.ended, starter.output), (0, ""))
        pid = int(Path(self.folder, "t.pid").read_text())
        try:
            await self.check("twistd.log", pid)
        finally:
            if Path(self.folder, "t.pid").exists():
                os.kill(pid, signal.SIGTERM)
        while Path(self.folder, "t.pid").exists():
            await self.pause(0.02)
