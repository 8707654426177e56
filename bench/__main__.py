"""
Measure Dalga: each case some times, as a table and as JSON.

    make bench
    make bench CASE=drain
    .venv/bin/python -m bench drain punctual-burst --runs 5 --json figures.json
    .venv/bin/python -m bench drain --against ../before
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.cases import CASES, Case
from bench.daemon import SCRIPTS, Bench, Program
from bench.databases import running_database
from bench.machine import CHECKOUT, NotHere, OtherWork
from bench.report import Result, shown, table, table_of_turns
from bench.sink import running_sink


def run(name: str, case: Case, engine: str, options: argparse.Namespace) -> Result:
    """Run a case as often as asked for."""
    result = Result(engine, case.targets, case.by_turns)
    with (
        tempfile.TemporaryDirectory(prefix="dalga-bench-") as folder,
        running_database(engine, Path(folder, "database")) as database,
        running_sink(Path(folder, "sink")) as sink,
    ):
        result.version = database.version
        now = Program(script=options.program)
        bench = Bench(database, sink, Path(folder), options.scale, options.profile, now)
        turns = [("", bench, result.runs)]
        if options.against:
            before = replace(now, checkout=options.against)
            turns = [
                (", before", replace(bench, program=before, profile=None), result.before),
                (", now", bench, result.runs),
            ]
        try:
            for number in range(1, options.runs + 1):
                for label, turn, runs in turns:
                    others = OtherWork()
                    figures = case.run(turn)
                    runs.append({**figures, "other_work_percent": others.percent()})
                    found = ", ".join(f"{key} {shown(value)}" for key, value in runs[-1].items())
                    print(f"{name}, run {number} of {options.runs}{label}: {found}", flush=True)
        except NotHere as missing:
            result.missing = str(missing)
            print(f"{name}: not measured: {missing}", flush=True)
    return result


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Dalga.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--runs", type=int, default=3, help="of each case; default 3")
    parser.add_argument("--engine", choices=("sqlite", "mariadb", "mysql"))
    parser.add_argument("--program", choices=SCRIPTS, default="twistd", help="default twistd")
    parser.add_argument("--scale", type=float, default=1.0, help="shorten each case; default 1")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="by turns with the Dalga of a checkout"
    )
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--profile", metavar="FILE", help="write cProfile's data of the last run")
    options = parser.parse_args(arguments)
    for name in options.cases:
        if name not in CASES:
            parser.error(f"there is no case {name!r}: there is {', '.join(CASES)}")
    if options.against:
        options.against = options.against.resolve()
        if not os.access(Program(options.against).python, os.X_OK):
            parser.error(f"--against: {options.against} has no .venv; make it there: make venv")
    options.profile = options.profile and os.path.abspath(options.profile)
    return options


def usual() -> list[str]:
    """The cases that are run if none is named."""
    return [name for name, case in CASES.items() if not case.only_by_name]


def commit(checkout: Path) -> str | None:
    """The commit of a checkout, with "-dirty" behind it if files differ; None without git."""
    command = ["git", "-C", os.fspath(checkout), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def main() -> None:
    options = parse(sys.argv[1:])
    results = {}
    for name in options.cases or usual():
        case = CASES[name]
        results[name] = run(name, case, options.engine or case.engine, options)
    print()
    print(table(results))
    if options.against:
        print()
        print(table_of_turns(results))
    about = {
        "commit": commit(CHECKOUT),
        "against": commit(options.against) if options.against else None,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "runs": options.runs,
        "scale": options.scale,
        "profiled": bool(options.profile),
        "program": options.program,
    }
    cases = {name: result.as_json() for name, result in results.items()}
    report = json.dumps({"about": about, "cases": cases})
    print()
    print(report)
    if options.json:
        options.json.write_text(report + "\n")


if __name__ == "__main__":
    main()
