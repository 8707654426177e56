"""
Whether nearly all attempts of an endpoint fail, by what this instance has seen. Pure.

A look, every 5 s or so, takes how many attempts there were in all, and how many of them failed.
What came since the look before is a *beat*::

    at      0 s   5 s    10 s   15 s
    all     40    44     52     52
    failed  1     5      13     13
    beat          4/4    8/8    none

    down at 10 s: of the last 12 attempts, in two beats, all have failed

The beats of the last 5 minutes are kept, at most 64 of each endpoint (P10).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

#: A beat that is older (seconds) says nothing any more.
LASTS = 300.0

#: An endpoint is down if of so many attempts, or more, at least `DOWN` have failed, in so many
#: beats or more: the restart of an endpoint takes one.
ENOUGH = 10
BEATS = 2
DOWN = 0.9

#: It is up if of its last `ENOUGH` attempts no larger part has failed.
UP = 0.5


class Tally(NamedTuple):
    """Attempts, and those of them that failed."""

    attempts: int = 0
    failed: int = 0

    @property
    def ratio(self) -> float:
        """Which part of them failed."""
        return self.failed / self.attempts if self.attempts else 0.0


class Pulse:
    """Times are in seconds of the steady clock."""

    def __init__(self) -> None:
        self._totals: dict[str, Tally] = {}
        self._beats: dict[str, deque[tuple[float, Tally]]] = {}

    def take(self, now: float, totals: Mapping[str, Tally]) -> None:
        """:param totals: of all attempts since the process began, by endpoint."""
        for endpoint, total in totals.items():
            before = self._totals.get(endpoint, Tally())
            beat = Tally(total.attempts - before.attempts, total.failed - before.failed)
            if beat.attempts:
                self._beats.setdefault(endpoint, deque(maxlen=64)).append((now, beat))
        self._totals = dict(totals)

    def forget(self, endpoint: str) -> None:
        """An incident began or ended: what was before says nothing of it any more."""
        self._beats.pop(endpoint, None)

    @property
    def endpoints(self) -> list[str]:
        """Those that had attempts lately."""
        return list(self._beats)

    def is_down(self, endpoint: str, now: float) -> bool:
        """Whether nearly all of its last attempts failed."""
        found, beats = Tally(), 0
        for beat in self._latest(endpoint, now):
            found, beats = _plus(found, beat), beats + 1
            if found.attempts >= ENOUGH and beats >= BEATS:
                return found.ratio >= DOWN and not self.is_up(endpoint, now)
        return False

    def is_up(self, endpoint: str, now: float) -> bool:
        """Whether half of its last attempts succeeded; not, where there were none."""
        found = Tally()
        for beat in self._latest(endpoint, now):
            found = _plus(found, beat)
            if found.attempts >= ENOUGH:
                break
        return found.attempts > 0 and found.ratio <= UP

    def _latest(self, endpoint: str, now: float) -> Iterator[Tally]:
        """The beats that still say something, the last one first."""
        for at, beat in reversed(self._beats.get(endpoint, ())):
            if now - at > LASTS:
                return
            yield beat


def _plus(one: Tally, other: Tally) -> Tally:
    return Tally(one.attempts + other.attempts, one.failed + other.failed)
