#!/usr/bin/env python3
"""
Run the tests with trial and say what they covered.

    DALGA_TEST_ENGINES=sqlite,mariadb .venv/bin/python tests/run.py [--engines-only] [NAME ...]

The engines asked for (sqlite and mariadb where the variable is missing) have to be covered: an
engine on which no test ran is a failure, and so is a skipped test that belongs to one. A test
belongs to an engine by its class's name, which has SQLite, MariaDB or MySQL in it. With
``--engines-only`` no others are run: those that belong to none do not have to be run again for each
engine. ``--jobs N`` has N processes share the tests, each with servers of its own: tests of daemons
mostly wait, and other tests run meanwhile. The classes that take long are run first, so that no
process works alone at the end. The last line is ``N passed, N failed``.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import TestSuite
from zlib import crc32

ROOT = Path(__file__).resolve().parent.parent

#: A test whose time-out is at least this (seconds) may take a minute.
LONG = 300.0


def asked_for(environ: Mapping[str, str]) -> list[str]:
    """The engines that are to be covered."""
    names = environ.get("DALGA_TEST_ENGINES", "sqlite,mariadb").split(",")
    return [name.strip().lower() for name in names if name.strip()]


def engine_of(test: str) -> str | None:
    """The engine that a test (``tests.module.Class.test_name``) belongs to."""
    found = re.search(r"(SQLite|MariaDB|MySQL)\w*\.\w+$", test)
    return found[1].lower() if found else None


def in_order(tests: Iterable[tuple[str, float]]) -> list[str]:
    """
    The classes of tests in the order in which they are run. Those that take long come first, and
    these have a long time-out. The others are mixed, as modules of daemons wait and others work.

    :param tests: each test's name, and its time-out in seconds.
    """
    timeouts = {test.rpartition(".")[0]: timeout for test, timeout in tests}
    return sorted(timeouts, key=lambda name: (timeouts[name] < LONG, crc32(name.encode())))


def load(names: Sequence[str], engines: Sequence[str] | None) -> list[str]:
    """
    What trial is to run of these names.

    :param engines: whose tests are wanted; None if all are, also those of no engine.
    """
    # Not for those who only want to read a report.
    from twisted.trial.runner import ErrorHolder, TestLoader

    tests = list(_each(TestLoader().loadByNames(list(names), recurse=True)))
    # What can't be imported is trial's to report.
    broken = [test.id() for test in tests if isinstance(test, ErrorHolder)]
    timeouts = {
        test.id(): float(getattr(test, "timeout", None) or 0)
        for test in tests
        if not isinstance(test, ErrorHolder)
    }
    wanted = [test for test in timeouts if engines is None or engine_of(test) in engines]
    return in_order((test, timeouts[test]) for test in wanted) + broken


def _each(test: Any) -> Iterator[Any]:
    """The tests of a suite of suites."""
    if isinstance(test, TestSuite):
        for one in test:
            yield from _each(one)
    else:
        yield test


class Report:
    """What trial's ``bwverbose`` reporter says, line by line."""

    def __init__(self) -> None:
        self.started: list[str] = []
        #: The tests that were not run, and why.
        self.skipped: dict[str, str] = {}
        #: The counts of the closing line; None as long as it has not come.
        self.counts: dict[str, int] | None = None
        self._section: list[str] | None = None
        self._ran = False

    def feed(self, line: str) -> None:
        line = line.rstrip("\n")
        if line in ("=" * 79, "-" * 79):
            self._end_section()
            self._section = []
        elif self._section is not None:
            self._section.append(line)
            self._ran = self._ran or re.match(r"Ran \d+ tests in ", line) is not None
        elif started := re.match(r"((?:\w+\.)+\w+) \.\.\. ", line):
            self.started.append(started[1])
        if self._ran and (closing := re.fullmatch(r"(?:PASSED|FAILED)(?: \((.*)\))?", line)):
            pairs = re.findall(r"(\w+)=(\d+)", closing[1] or "")
            self.counts = {name: int(count) for name, count in pairs}

    def _end_section(self) -> None:
        """A section is its kind, then for skips the reason, an empty line and the tests' names."""
        section = self._section or [""]
        if section[0] == "[SKIPPED]" and "" in section:
            blank = len(section) - 1 - section[::-1].index("")
            for test in section[blank + 1 :]:
                self.skipped[test] = " ".join(section[1:blank])

    @property
    def passed(self) -> int:
        return (self.counts or {}).get("successes", 0)

    @property
    def failed(self) -> int:
        """Without a closing line, trial itself broke, which counts as one."""
        if self.counts is None:
            return 1
        kinds = ("failures", "errors", "unexpectedSuccesses")
        return sum(self.counts.get(kind, 0) for kind in kinds)

    def ran_on(self, engine: str) -> int:
        """How many tests that belong to an engine were run and not skipped."""
        return sum(engine_of(test) == engine and test not in self.skipped for test in self.started)


def conclusion(report: Report, engines: Sequence[str]) -> tuple[list[str], int]:
    """
    What is to be said at the end.

    :return: the lines, and the number of failures.
    """
    lines = ["", f"engines asked for: {', '.join(engines) or 'none'}"]
    failed = report.failed
    for engine in engines:
        count = report.ran_on(engine)
        lines.append(f"  {engine}: {count} tests ran")
        if not count:
            lines.append(f"  FAILED: {engine} was asked for, and no test ran on it")
            failed += 1
    by_reason: dict[str, list[str]] = {}
    for test, reason in report.skipped.items():
        by_reason.setdefault(reason, []).append(test)
    for reason, tests in by_reason.items():
        lines.append(f"SKIPPED, {len(tests)} tests: {reason}")
        for test in tests:
            wanted = engine_of(test) in engines
            lines.append(f"  {test}" + (" (FAILED: its engine was asked for)" if wanted else ""))
            failed += wanted
    if report.counts is None:
        lines.append("FAILED: trial ended before the tests did")
    lines.append(f"{report.passed} passed, {failed} failed")
    return lines, failed


def run_trial(names: Iterable[str], jobs: int = 1) -> Report:
    """
    Run trial with its output going through to ours as it comes.

    :param jobs: how many processes share the tests; with one, trial runs them itself.
    """
    report = Report()
    shared = [f"--jobs={jobs}"] if jobs > 1 else []
    process = subprocess.Popen(
        [sys.executable, "-m", "twisted.trial", "--reporter=bwverbose", *shared, *names],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    # Ctrl-C reaches trial as well, which then tidies up and says how far it got.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        report.feed(line)
        if report.counts is not None:
            break  # not at the end of the pipe, which a process left behind would hold open
    try:
        status = process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    if status != 0 and report.failed == 0:
        report.counts = None
    return report


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests/run.py")
    parser.add_argument("--engines-only", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args(arguments)
    engines = asked_for(os.environ)
    names = options.names or ["tests"]
    if options.engines_only or (options.jobs > 1 and not options.names):
        sys.path.insert(0, str(ROOT))
        names = load(names, engines if options.engines_only else None)
        if not names:
            print(f"FAILED: none of these tests belongs to {', '.join(engines) or 'an engine'}")
            return 1
    report = run_trial(names, options.jobs)
    lines, failed = conclusion(report, engines)
    print("\n".join(lines), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
