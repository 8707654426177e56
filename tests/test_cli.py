"""The ``dalga`` command's last moments: a second signal, with lines that are not written yet."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dalga.service import YOUNG
from dalga.signals import AT_ONCE, LAST_LINES

ROOT = Path(__file__).parent.parent

#: A daemon that logs so many lines in one turn of the reactor, and tells on its standard error when
#: it begins with that and when it is through.
CROWDED = f"""
import os, signal, sys, time
from twisted.internet import reactor
from dalga.cli import main
from dalga.log import logger

def turn():
    print("begins", file=sys.stderr, flush=True)
    for number in range(int(sys.argv[1])):
        logger("dalga.test").info("line {{number}}", number=number)
    if sys.argv[2] == "signals":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep({AT_ONCE} + 0.1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

reactor.callWhenRunning(lambda: reactor.callLater(0.1, turn))
main([])
"""


class MainTests(SynchronousTestCase):
    """What `main` sets the process to."""

    def run_with(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script in a folder of its own, with an output that has ASCII alone."""
        folder = self.mktemp()
        os.mkdir(folder)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DALGA_")}
        environment |= {
            "DALGA_LISTEN_PORT": "0",
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "ascii",
        }
        return subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_a_letter_that_the_output_has_not(self) -> None:
        """The line is there all the same."""
        done = self.run_with(
            "from twisted.internet import reactor\n"
            "from dalga.cli import main\n"
            "from dalga.log import logger\n"
            "def turn():\n"
            "    logger('dalga.test').info('a {word} line', word='g\\xfcnl\\xfck')\n"
            "    reactor.stop()\n"
            "reactor.callWhenRunning(lambda: reactor.callLater(0.1, turn))\n"
            "main([])\n"
        )
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("a g\\xfcnl\\xfck line", done.stdout)

    def test_ctrl_c_during_the_start(self) -> None:
        """It ends the process as it does any other, without a traceback."""
        done = self.run_with(
            "import os, signal, time\n"
            "from dalga import cli\n"
            "def start(*_):\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
            "    time.sleep(30)\n"
            "cli._service = start\n"
            "cli.main([])\n"
        )
        self.assertEqual((done.returncode, done.stderr), (-signal.SIGINT, ""))


class CollectorTests(SynchronousTestCase):
    def test_quiet(self) -> None:
        """P7: a full collection passes over what the start has made, and is rarely begun."""
        folder = self.mktemp()
        os.mkdir(folder)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DALGA_")}
        program = """
import gc, os, signal
from twisted.internet import reactor
from dalga.cli import main

def look():
    print(len(gc.get_objects()) < 5_000 < gc.get_freeze_count(), gc.get_threshold()[0])
    os.kill(os.getpid(), signal.SIGTERM)

reactor.callWhenRunning(reactor.callLater, 0, look)
main([])
"""
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            env=environment | {"DALGA_LISTEN_PORT": "0", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.assertIn(f"True {YOUNG}\n", done.stdout)


class HangUpTests(SynchronousTestCase):
    """SIGHUP is passed on to the service, which alone decides what it means."""

    #: A daemon that has something to do at a hang-up, and then goes on.
    PROGRAM = """
from dalga.cli import main
from dalga.service import DalgaService

def hang_up(self, stop):
    hang_ups.append(stop)
    print(len(hang_ups), "hang-ups", flush=True)
    if len(hang_ups) == 3:
        stop()

hang_ups = []
DalgaService.hang_up = hang_up
main([])
"""

    def start(self, *before: str) -> subprocess.Popen[str]:
        """Start it in a folder of its own, by a command before it."""
        folder = self.mktemp()
        os.mkdir(folder)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DALGA_")}
        environment |= {"DALGA_LISTEN_PORT": "0", "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [*before, sys.executable, "-c", self.PROGRAM],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_under_nohup(self) -> None:
        """A hang-up that nohup(1) has had ignored stays ignored."""
        process = self.start("nohup")
        assert process.stdout is not None
        with process.stdout as output:
            said = iter(output.readline, "")
            next(line for line in said if "time zone data" in line)
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            left = "".join(said)
        self.assertIn("stopped\n", left)
        self.assertNotIn("hang-ups", left)

    def test_the_service_decides(self) -> None:
        """It may go on, as often as it likes, or stop as SIGTERM would, with status 0."""
        process = self.start()
        assert process.stdout is not None
        with process.stdout as output:
            said = iter(output.readline, "")
            next(line for line in said if "time zone data" in line)
            for number in (1, 2, 3):
                process.send_signal(signal.SIGHUP)
                self.assertEqual(next(said), f"{number} hang-ups\n")
            self.assertIn("stopped\n", "".join(said))
        self.assertEqual(process.wait(timeout=60), 0)


class SecondSignalTests(SynchronousTestCase):
    def crowded(
        self, lines: int, *arguments: str, output: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Start it in a folder of its own."""
        folder = self.mktemp()
        os.mkdir(folder)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DALGA_")}
        environment |= {"DALGA_LISTEN_PORT": "0", "PYTHONPATH": str(ROOT)}
        environment.pop("PYTHONUNBUFFERED", None)
        process = subprocess.Popen(
            [sys.executable, "-c", CROWDED, str(lines), *arguments],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_no_line_is_lost(self) -> None:
        """What was logged in the same turn of the reactor is written before the process ends."""
        process = self.crowded(5000, "signals")
        output, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM, errors)
        numbers = [line.split()[-1] for line in output.splitlines() if "dalga.test" in line]
        self.assertEqual(numbers, [str(number) for number in range(5000)])
        self.assertIn("asked to stop again: not waiting any longer\n", errors)

    def test_nobody_reads(self) -> None:
        """A log that can't be written does not hold up the end for longer than a second."""
        reader, output = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, output)
        process = self.crowded(5000, "", output=output)
        assert process.stderr is not None
        while process.stderr.readline() != "begins\n":
            self.assertIsNone(process.poll())
        # The pipe takes a part of the lines; the write of the rest never ends.
        while select.select([], [output], [], 0)[1]:
            self.assertIsNone(process.poll())
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        time.sleep(AT_ONCE + 0.1)
        self.assertIsNone(process.poll())
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 128 + signal.SIGTERM)
        self.assertLess(time.monotonic() - before, LAST_LINES + 1)
