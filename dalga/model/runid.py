"""
The id of a run, as text: ``0f3a...c2-17``. Pure.

It is the token of the run's first claim, in hexadecimal, and the id of the job's row. So it is
unique across databases, and leads to the row.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dalga.errors import RunNotFound

_TEXT = re.compile(r"([0-9a-f]{32})-([1-9][0-9]{0,18})")


class RunId(NamedTuple):
    """The parts of a run's id."""

    token: bytes
    #: The id of the job's row.
    row: int

    def __str__(self) -> str:
        return f"{self.token.hex()}-{self.row}"


def run_not_found(run_id: RunId) -> RunNotFound:
    """The answer where there is no run, and where the caller may not know of the run that is."""
    return RunNotFound(
        f"there is no run {run_id}, or it has no record, or none any more: see mode, keep, "
        "keepFailed and maxRows in [history]"
    )


def run_id_from_text(text: str) -> RunId | None:
    """:return: the parts; None for a text that is no run's id."""
    found = _TEXT.fullmatch(text)
    if found is None or int(found[2]) >= 1 << 63:
        return None
    return RunId(bytes.fromhex(found[1]), int(found[2]))
