"""
Measure Dalga: each case some times, as a table and as JSON.

    make bench
    make bench CASE=drain
    .venv/bin/python -m bench drain punctual-burst --runs 5 --json figures.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from bench.cases import AT_LEAST, CASES, Case
from bench.daemon import SCRIPTS, Bench, Figures, Program
from bench.databases import running_database
from bench.sink import running_sink


def run(name: str, case: Case, engine: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a case as often as asked for, and sum it up."""
    runs: list[Figures] = []
    with (
        tempfile.TemporaryDirectory(prefix="dalga-bench-") as folder,
        running_database(engine, Path(folder, "database")) as database,
        running_sink(Path(folder, "sink")) as sink,
    ):
        program = Program(script=options.program)
        bench = Bench(database, sink, Path(folder), options.scale, options.profile, program)
        for number in range(1, options.runs + 1):
            runs.append(case.run(bench))
            found = ", ".join(f"{key} {shown(value)}" for key, value in runs[-1].items())
            print(f"{name}, run {number} of {options.runs}: {found}", flush=True)
        version = database.version
    figures = {
        key: {"median": median(values), "min": min(values), "max": max(values)}
        for key in runs[0]
        for values in [[one[key] for one in runs]]
    }
    targets = [
        {
            "figure": figure,
            "wanted": f"{bound} {wanted:g}",
            "reached": (figures[figure]["median"] >= wanted)
            if bound == AT_LEAST
            else (figures[figure]["median"] <= wanted),
        }
        for figure, bound, wanted in case.targets
    ]
    return {"engine": engine, "version": version, "figures": figures, "targets": targets}


def table(results: dict[str, dict[str, Any]]) -> str:
    """What was measured, as Markdown."""
    lines = ["| case | figure | median | min | max | wanted | |", "|---|---|---|---|---|---|---|"]
    for name, result in results.items():
        wanted = {target["figure"]: target for target in result["targets"]}
        for figure, found in result["figures"].items():
            target = wanted.get(figure, {"wanted": "", "reached": None})
            verdict = {True: "reached", False: "missed", None: ""}[target["reached"]]
            values = " | ".join(shown(found[key]) for key in ("median", "min", "max"))
            lines.append(f"| {name} | {figure} | {values} | {target['wanted']} | {verdict} |")
            name = ""
    return "\n".join(lines)


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Dalga.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--runs", type=int, default=3, help="of each case; default 3")
    parser.add_argument("--engine", choices=("sqlite", "mariadb", "mysql"))
    parser.add_argument("--program", choices=SCRIPTS, default="twistd", help="default twistd")
    parser.add_argument("--scale", type=float, default=1.0, help="shorten each case; default 1")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--profile", metavar="FILE", help="write cProfile's data of the last run")
    options = parser.parse_args()
    for name in options.cases:
        if name not in CASES:
            parser.error(f"there is no case {name!r}: there is {', '.join(CASES)}")
    options.profile = options.profile and os.path.abspath(options.profile)
    return options


def main() -> None:
    options = parse()
    results = {}
    for name in options.cases or CASES:
        case = CASES[name]
        results[name] = run(name, case, options.engine or case.engine, options)
    print()
    print(table(results))
    about = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "runs": options.runs,
        "scale": options.scale,
        "profiled": bool(options.profile),
        "program": options.program,
    }
    report = json.dumps({"about": about, "cases": results})
    print()
    print(report)
    if options.json:
        options.json.write_text(report + "\n")


if __name__ == "__main__":
    main()
