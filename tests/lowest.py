#!/usr/bin/env python3
"""
Print, for pip, the lowest version of each library that pyproject.toml lets in.

A library without a lower bound is printed by its name alone. What the tests need beside Dalga's
own libraries comes as it is.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Of the libraries of development, those that tests import.
FOR_TESTS = ("hypothesis", "python-dateutil", "standardwebhooks")


def lowest(pyproject: dict[str, Any]) -> Iterator[str]:
    for requirement in pyproject["project"]["dependencies"]:
        parts = re.fullmatch(r"([\w.-]+(?:\[[\w,-]+\])?)(.*)", requirement)
        assert parts is not None
        name, bound = parts.groups()
        found = re.search(r">=([^,]+)", bound)
        yield f"{name}=={found[1]}" if found else name
    yield from FOR_TESTS


if __name__ == "__main__":
    path = Path(__file__).resolve().parent.parent / "pyproject.toml"
    print(*lowest(tomllib.loads(path.read_text(encoding="utf-8"))), sep="\n")
