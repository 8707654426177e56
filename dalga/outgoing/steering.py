"""
The headers by which an answer steers what becomes of its run and of its job.

    Dalga-Verdict: fail                       what the answer means, whatever its status
    Dalga-Next-Run: 90                        the job's next run, in seconds from now,
    Dalga-Next-Run: 2030-01-31T09:00:00Z      or at a time

`dalga.model.run.judge` makes a verdict of both. A value that is not understood changes nothing, and
is logged once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

from dalga.errors import InvalidRequest, shown
from dalga.log import logger
from dalga.model.answers import Meaning
from dalga.model.reading import EXAMPLE, instant
from dalga.model.run import Run
from dalga.outgoing.answer import Answer

log = logger(__name__)

T = TypeVar("T")

#: How the lines of these headers begin, in a head in lower case. Few answers have such lines.
PREFIX = b"\r\ndalga-"

#: A next run that is further ahead than this (from the run's claim) is taken for a mistake, such as
#: milliseconds for seconds.
MAX_AHEAD = timedelta(days=366)

#: At most this many different values are logged, each once.
MAX_LOGGED = 100


class Steering(NamedTuple):
    """What an answer asks for; None where it says nothing."""

    meaning: Meaning | None = None
    #: A delay, or an instant (aware, UTC).
    next_run: timedelta | datetime | None = None


#: What most answers ask for.
NOTHING = Steering()


class Steers:
    """Reads the headers of an endpoint's answers, and logs values that it ignores."""

    def __init__(self) -> None:
        #: Values that were logged, by the header's name.
        self._logged: set[tuple[str, str]] = set()

    def read(self, answer: Answer, run: Run) -> Steering:
        """What the answer to a run's POST asks for."""
        return Steering(
            self._read(answer, run, "Dalga-Verdict", meaning_from_text),
            self._read(
                answer, run, "Dalga-Next-Run", lambda text: next_run_from_text(text, run.claimed)
            ),
        )

    def _read(self, answer: Answer, run: Run, name: str, from_text: Callable[[str], T]) -> T | None:
        values = answer.values(name.lower().encode())
        if not values:
            return None
        # A header may be there twice with the same value. With two values it is not understood.
        texts = dict.fromkeys(
            value.decode("ascii", "backslashreplace").strip().lower() for value in values
        )
        text = ", ".join(texts)
        try:
            return from_text(text)
        except ValueError as problem:
            known = name, shown(text)
            if known not in self._logged and len(self._logged) < MAX_LOGGED:
                self._logged.add(known)
                log.warn(
                    "{path!r} {body!r}: the answer's {name} is {value}, and ignored: {problem}",
                    path=run.key.path,
                    body=run.key.body,
                    name=name,
                    value=shown(text),
                    problem=problem,
                )
            return None


def meaning_from_text(text: str) -> Meaning:
    """
    Read a Dalga-Verdict in lower case.

    :raises ValueError: with a sentence that says what would do.
    """
    try:
        return Meaning(text)
    except ValueError:
        *others, last = Meaning
        raise ValueError(f"it takes {', '.join(others)} or {last}") from None


def next_run_from_text(text: str, claimed: datetime) -> timedelta | datetime:
    """
    Read a Dalga-Next-Run: seconds, or an RFC 3339 timestamp.

    :param claimed: when the run was claimed, by the database's clock.
    :raises ValueError: with a sentence that says what would do.
    """
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        # Past nine digits it is too far ahead anyway, and may be more than a timedelta holds.
        whole = text.partition(".")[0].lstrip("0")
        ahead = timedelta(seconds=float(text)) if len(whole) <= 9 else timedelta.max
        at: timedelta | datetime = ahead
    else:
        try:
            at = instant("Dalga-Next-Run", text)
        except InvalidRequest:
            raise ValueError(
                f"it takes seconds, or an RFC 3339 timestamp with a zone, such as {EXAMPLE}"
            ) from None
        ahead = at - claimed
    if ahead > MAX_AHEAD:
        raise ValueError(f"it takes a time up to {MAX_AHEAD.days} days from now")
    return at
