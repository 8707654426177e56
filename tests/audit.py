#!/usr/bin/env python3
"""
Say whether libraries of a lock have known weaknesses, as the package index knows them.

    audit.py PIP_AUDIT LOCK

An index that has no such data, or can't be reached, is no failure: the last line says that nothing
was looked at. The exit status is 1 if there is a weakness, or if pip-audit itself is at a loss.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

#: What pip-audit says where nobody answers, in its last line.
UNREACHED = re.compile(r"connect|time(d )?out|resol|unreachable", re.IGNORECASE)

NOTHING = "audit: nothing was looked at"


def conclusion(output: str, errors: str) -> tuple[list[str], int]:
    """
    What is to be said, and the exit status.

    :param output: of pip-audit: JSON, if it got that far.
    :param errors: what it wrote to its standard error.
    """
    last = errors.strip().rpartition("\n")[2]
    try:
        libraries = json.loads(output)["dependencies"]
    except ValueError:
        if UNREACHED.search(last):
            return [f"{NOTHING}: the package index can't be reached"], 0
        return [errors.strip(), "audit: pip-audit failed"], 1
    unknown = [one["name"] for one in libraries if "skip_reason" in one]
    looked_at = len(libraries) - len(unknown)
    if not looked_at:
        return [f"{NOTHING}: the package index here has no data on weaknesses"], 0
    weak = [line for one in libraries for line in _weaknesses(one)]
    if unknown:
        weak.append(f"no data on {', '.join(unknown)}")
    found = sum("vulns" in one and bool(one["vulns"]) for one in libraries)
    return [*weak, f"audit: {looked_at} libraries looked at, {found} with known weaknesses"], (
        1 if found else 0
    )


def _weaknesses(library: dict[str, Any]) -> Iterator[str]:
    for one in library.get("vulns", ()):
        fixed = ", ".join(one["fix_versions"]) or "none yet"
        yield f"{library['name']} {library['version']}: {one['id']}, fixed in {fixed}"


def main(program: str, lock: str) -> int:
    # All versions are in the lock, so there is nothing to be found out by pip.
    options = ["--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off"]
    ended = subprocess.run([program, *options, "-r", lock], capture_output=True, text=True)
    lines, status = conclusion(ended.stdout, ended.stderr)
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
