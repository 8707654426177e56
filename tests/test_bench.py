"""What the benchmarks (bench/) say: tables, verdicts, checks, and why a case was not measured."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from unittest.mock import ANY

from twisted.trial.unittest import SynchronousTestCase

from bench import machine, peer
from bench.__main__ import parse, usual
from bench.cases import CASES, at_least, at_most
from bench.daemon import SCRIPTS, Bench, Figures, Program
from bench.machine import (
    CHECKOUT,
    NotHere,
    OtherWork,
    Process,
    cpu_of,
    cpu_of_all,
    cpu_of_ours,
    ended,
    wait_until,
)
from bench.report import Result, quotients, shown, spreads, table, table_of_turns
from bench.sink import Arrival, check, rate


def result(*runs: Figures, before: tuple[Figures, ...] = ()) -> Result:
    wanted = (at_least("rate", 100), at_most("late", 5))
    turns = (at_most("late", 0.5),)
    return Result("mariadb", wanted, turns, "10.11", list(runs), list(before))


#: The cases that run only if they are asked for, on MariaDB and on SQLite.
BY_NAME = ("finding", "pruning", "runs-pages")


class ReportTests(SynchronousTestCase):
    """From runs to tables."""

    def test_verdicts(self) -> None:
        """By the median; the bound itself is enough."""
        runs = [{"rate": 90.0, "late": 5.0, "cpu": 0.125}, {"rate": 99.0, "late": 4.0, "cpu": 0.25}]
        runs.append({"rate": 2000.0, "late": 9.0, "cpu": 0.5})
        rows = table({"drain": result(*runs)}).splitlines()[2:]
        self.assertEqual(
            rows,
            [
                "| drain | rate | 99 (90 to 2,000) | at least 100 | missed |",
                "|  | late | 5 (4 to 9) | at most 5 | reached |",
                "|  | cpu | 0.25 (0.125 to 0.5) |  |  |",
            ],
        )

    def test_not_measured(self) -> None:
        """A wanted figure that no run gave is not passed over, nor is a case without runs."""
        rows = table({"drain": result({"rate": 100.0})}).splitlines()[2:]
        self.assertEqual(rows[1], "|  | late |  | at most 5 | not measured |")
        missing = result()
        missing.missing = "there is no java in PATH"
        (row,) = table({"field": missing}).splitlines()[2:]
        self.assertEqual(row, "| field | not measured: there is no java in PATH | | | |")
        self.assertEqual(missing.as_json()["targets"][0]["verdict"], "not measured")

    def test_quotients(self) -> None:
        """
        Each turn's quotient by itself: an hour that grew slow from turn to turn is in both of a
        turn's runs.
        """
        before: tuple[Figures, ...] = ({"late": 10.0}, {"late": 100.0}, {"late": 20.0})
        found = result({"late": 5.0}, {"late": 40.0}, {"late": 14.0}, before=before)
        self.assertEqual(quotients(found)["late"], (0.5, 0.4, 0.7))
        (row,) = table_of_turns({"burst": found}).splitlines()[2:]
        self.assertEqual(
            row,
            "| burst | late | 3 | 20 (10 to 100) | 14 (5 to 40) | 0.5 (0.4 to 0.7)"
            " | at most 0.5 | reached |",
        )

    def test_figures_of_one_checkout(self) -> None:
        """A figure that only one of the checkouts has, or that is 0, has no quotient."""
        before: tuple[Figures, ...] = ({"late": 4.0, "old": 1.0, "cpu": 0.0},)
        found = result({"late": 2.0, "new": 1.0, "cpu": 1.0}, before=before)
        self.assertEqual(list(quotients(found)), ["late"])

    def test_one_run(self) -> None:
        self.assertEqual(str(spreads([{"rate": 12345.6}])["rate"]), "12,346")
        self.assertEqual([shown(value) for value in (0.0123456, 99.94)], ["0.0123", "99.9"])


class CheckTests(SynchronousTestCase):
    """What arrived is checked before there are figures."""

    def test_each_once(self) -> None:
        once = [Arrival(1.0, "job0", "-"), Arrival(1.5, "job1", "-"), Arrival(3.0, "job2", "-")]
        check(once, 3)
        self.assertEqual(rate(once), 1.0)

    def test_one_missing(self) -> None:
        arrivals = [Arrival(1.0, "job0", "-")]
        found = self.assertRaises(SystemExit, check, arrivals, 2)
        self.assertIn("2 jobs were expected, each once; 1 arrived, 0 of them twice", str(found))

    def test_one_twice(self) -> None:
        arrivals = [Arrival(1.0, "job0", "-"), Arrival(2.0, "job0", "-")]
        found = self.assertRaises(SystemExit, check, arrivals, 1)
        self.assertIn("1 arrived, 1 of them twice", str(found))


class ProcessTests(SynchronousTestCase):
    """A daemon's CPU is that of its processes."""

    def test_descendants(self) -> None:
        """A child's children count."""
        inner = "import time; print(flush=True); time.sleep(60)"
        outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
        command = [sys.executable, "-c", outer]
        # A session of its own, as the inner process outlives the outer one.
        child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert child.stdout is not None
        with ended(child), child.stdout:
            child.stdout.readline()
            (grandchild,) = Process(child.pid).descendants()
            self.assertIn(
                grandchild.pid, [found.pid for found in Process(os.getpid()).descendants()]
            )
            os.kill(grandchild.pid, 9)
            wait_until(lambda: not list(Process(child.pid).descendants()), "its end", 0.01)

    def test_ended(self) -> None:
        """A process that has ended since it was found counts no more, and is no error."""
        child = subprocess.Popen([sys.executable, "-c", "pass"])
        child.wait()
        self.assertEqual(cpu_of([Process(child.pid)]), 0.0)

    def test_ours(self) -> None:
        """What a child takes is ours while it runs and once it has ended, and not other work."""
        busy = (
            "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); time.sleep(60)"
        )
        all_before, ours_before = cpu_of_all(), cpu_of_ours()
        child = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
        assert child.stdout is not None
        with ended(child), child.stdout:
            child.stdout.readline()
            self.assertGreaterEqual(cpu_of_ours() - ours_before, 0.25)
        ours = cpu_of_ours() - ours_before
        self.assertGreaterEqual(ours, 0.25)
        # Both are counted in ticks of 10 ms, by core.
        self.assertGreaterEqual(cpu_of_all() - all_before, ours - 0.1)

    def test_other_work(self) -> None:
        """Of all cores, and never less than none."""
        self.patch(machine, "cpu_of_all", iter([100.0, 103.0, 103.0]).__next__)
        self.patch(machine, "cpu_of_ours", iter([10.0, 12.0, 15.0]).__next__)
        self.patch(time, "monotonic", iter([0.0, 2.0, 2.0]).__next__)
        self.patch(os, "cpu_count", lambda: 2)
        others = OtherWork()
        self.assertEqual(others.percent(), 25.0)
        self.assertEqual(others.percent(), 0.0)


class ProgramTests(SynchronousTestCase):
    """Which Dalga is measured."""

    def test_this_checkout(self) -> None:
        command = Program().daemon()
        self.assertEqual(command[0], sys.executable)
        self.assertEqual(command[-2:], ["--pidfile=", "dalga"])

    def test_another_checkout(self) -> None:
        """Its own Python, and so its own twistd and Dalga."""
        other = Path(self.mktemp()).resolve()
        command = Program(other, "dalga").daemon()
        bin = other / ".venv" / "bin"
        self.assertEqual(command, [os.fspath(bin / "python"), os.fspath(bin / "dalga")])

    def test_older_checkout(self) -> None:
        """It may lack a module of the bench."""
        found = self.assertRaises(NotHere, Program().run_module, "nothing")
        self.assertEqual(str(found), f"there is no bench/nothing.py in {CHECKOUT}")

    def test_options(self) -> None:
        """A case may want an option that older code has not."""
        for script in SCRIPTS:
            program = Program(script=script)
            self.assertTrue(program.takes("--config"), script)
            self.assertFalse(program.takes("--conf"), script)

    def test_sections(self) -> None:
        """Or a section of the configuration."""
        for name, is_there in (("history", True), ("alerts", True), ("nothing", False)):
            self.assertEqual(Program().has_section(name), is_there, name)
        bench = Bench(ANY, ANY, Path()).with_section("history", mode="off")
        self.assertEqual(
            bench.with_section("alerts", url="u").settings,
            "[history]\nmode = off\n[alerts]\nurl = u\n",
        )
        self.assertRaises(NotHere, bench.with_section, "nothing", mode="off")

    def refused(self, *arguments: str) -> str:
        with redirect_stderr(StringIO()) as said:
            self.assertRaises(SystemExit, parse, arguments)
        return said.getvalue()

    def test_no_checkout(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        said = self.refused("drain", "--against", os.fspath(folder))
        self.assertIn(f"{folder.resolve()} has no .venv; make it there: make venv", said)

    def test_no_case(self) -> None:
        self.assertIn("there is no case 'drian': there is posts, drain", self.refused("drian"))

    def test_usual(self) -> None:
        """A case that takes minutes is run only if it is asked for."""
        only_by_name = {f"{name}{of}" for name in BY_NAME for of in ("", "-sqlite")}
        self.assertEqual(set(CASES) - set(usual()), only_by_name)
        self.assertEqual(parse(["finding"]).cases, ["finding"])

    def test_documented(self) -> None:
        """Each case is in the table of bench/README.md."""
        readme = (CHECKOUT / "bench" / "README.md").read_text(encoding="utf-8")
        rows = [line for line in readme.splitlines() if line.startswith("| `")]
        for name in CASES:
            self.assertTrue(any(f"`{name}`" in row for row in rows), name)


class PeerTests(SynchronousTestCase):
    """Where db-scheduler can't be run, a sentence says why."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.bin = self.folder / "bin"
        self.bin.mkdir(parents=True)
        self.patch(os, "environ", {**os.environ, "PATH": os.fspath(self.bin)})
        self.patch(peer, "CACHE", self.folder / "cache")

    def program(self, name: str, script: str) -> None:
        """Put a program into PATH, where nothing else is."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def jdk(self, version: str) -> None:
        self.program("java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")
        self.program("javac", "exit 0")

    def missing(self) -> str:
        return str(self.assertRaises(NotHere, peer.find_java))

    def test_ended(self) -> None:
        """An order is carried out; once the peer has ended, what it said is shown."""
        errors = self.folder / "errors"
        script = "import sys; print(input(), flush=True); sys.exit('Access denied')"
        with errors.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        assert process.stdin is not None and process.stdout is not None
        with ended(process), process.stdin, process.stdout:
            running = peer.Peer(process, errors)
            running.order("start")
            found = self.assertRaises(SystemExit, running.order, "stop")
        self.assertEqual(str(found), "db-scheduler ended:\nAccess denied\n")

    def test_no_java(self) -> None:
        self.assertIn(
            "there is no java in PATH; db-scheduler needs a JDK of Java 17", self.missing()
        )

    def test_no_maven(self) -> None:
        self.jdk("17.0.15")
        self.assertIn("there is no mvn in PATH", self.missing())

    def test_old_java(self) -> None:
        self.jdk("11.0.2")
        self.program("mvn", "exit 0")
        found = self.missing()
        self.assertIn("needs Java 17 or later", found)
        self.assertIn('java -version says: openjdk version "11.0.2"', found)

    def test_new_java(self) -> None:
        self.jdk("21")
        self.program("mvn", "exit 0")
        self.assertEqual(peer.find_java(), "java")

    def test_no_repository(self) -> None:
        """Maven's first error, without its colours and its advice; the next run asks again."""
        self.program(
            "mvn", "printf '\\033[0m[ERROR] Connection refused -> [Help 1]\\n[ERROR] \\n'; exit 1"
        )
        for _ in range(2):
            found = str(self.assertRaises(NotHere, peer.fetched))
            self.assertEqual(found, "Maven could not fetch db-scheduler: Connection refused")

    def test_maven_says_nothing(self) -> None:
        self.program("mvn", "exit 1")
        self.assertIn("it does not say why", str(self.assertRaises(NotHere, peer.fetched)))

    def test_fetched_once(self) -> None:
        """Until another pom asks for something else."""
        calls = self.folder / "calls"
        self.program("mvn", f"echo \"$@\" >>'{calls}'")
        for _ in range(2):
            self.assertEqual(peer.fetched(), self.folder / "cache" / "lib")
        (call,) = calls.read_text().splitlines()
        self.assertIn(f"-f {peer.FIELD / 'pom.xml'} package", call)
        (self.folder / "cache" / "pom.xml").write_text("another")
        peer.fetched()
        self.assertEqual(len(calls.read_text().splitlines()), 2)
