"""What the runs of a case came to: medians, what is wanted of them, tables and JSON; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from bench.daemon import Figures

AT_LEAST, AT_MOST = "at least", "at most"


class Target(NamedTuple):
    """What is wanted of a figure."""

    figure: str
    #: `AT_LEAST` or `AT_MOST`.
    bound: str
    wanted: float

    def __str__(self) -> str:
        return f"{self.bound} {self.wanted:g}"

    def verdict(self, found: Spread | None) -> str:
        """Whether the median is as wanted."""
        if found is None:
            return "not measured"
        under = found.median < self.wanted
        reached = found.median == self.wanted or under == (self.bound == AT_MOST)
        return "reached" if reached else "missed"


class Spread(NamedTuple):
    """A figure of several runs."""

    median: float
    min: float
    max: float

    def __str__(self) -> str:
        if self.min == self.max:
            return shown(self.median)
        return f"{shown(self.median)} ({shown(self.min)} to {shown(self.max)})"


@dataclass
class Result:
    """A case's runs."""

    engine: str
    #: Of the figures of this checkout.
    targets: Sequence[Target]
    #: Of each figure's quotient: this checkout's, of what the other checkout's was in that turn.
    by_turns: Sequence[Target] = ()
    #: The database's.
    version: str = ""
    runs: list[Figures] = field(default_factory=list)
    #: Those of the other checkout, one before each run; empty without one.
    before: list[Figures] = field(default_factory=list)
    #: Why there are no runs, if there are none.
    missing: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "version": self.version,
            "missing": self.missing,
            "figures": as_json(spreads(self.runs)),
            "targets": judged(self.targets, spreads(self.runs)),
            "before": as_json(spreads(self.before)),
            "quotients": as_json(quotients(self)),
            "by_turns": judged(self.by_turns, quotients(self)),
        }


def spreads(runs: Sequence[Figures]) -> dict[str, Spread]:
    """Each figure's spread."""
    return {key: spread([run[key] for run in runs]) for key in (runs[0] if runs else ())}


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def quotients(result: Result) -> dict[str, Spread]:
    """Of each figure that both checkouts have: now, of what was before in the same turn."""
    turns = list(zip(result.before, result.runs, strict=True)) if result.before else []
    return {
        key: spread([now[key] / before[key] for before, now in turns])
        for key in (turns[0][1] if turns else ())
        if all(before.get(key) for before, _ in turns)
    }


def as_json(found: dict[str, Spread]) -> dict[str, dict[str, float]]:
    return {key: values._asdict() for key, values in found.items()}


def judged(targets: Iterable[Target], found: dict[str, Spread]) -> list[dict[str, Any]]:
    """What is wanted, and what came of it."""
    return [
        {
            "figure": target.figure,
            "wanted": str(target),
            "verdict": target.verdict(found.get(target.figure)),
        }
        for target in targets
    ]


def table(results: dict[str, Result]) -> str:
    """What was measured, as Markdown."""
    lines = ["| case | figure | median (least to most) | wanted | |", "|---|---|---|---|---|"]
    for name, result in results.items():
        if result.missing:
            lines.append(f"| {name} | not measured: {result.missing} | | | |")
            continue
        found = spreads(result.runs)
        for figure, ends in _ends(found, result.targets):
            lines.append(f"| {name} | {figure} | {found.get(figure, '')} | {ends} |")
            name = ""
    return "\n".join(lines)


def table_of_turns(results: dict[str, Result]) -> str:
    """What was measured by turns with another checkout, as Markdown."""
    lines = [
        "| case | figure | turns | before | now | now, of before | wanted | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        before, now, found = spreads(result.before), spreads(result.runs), quotients(result)
        for figure, ends in _ends(found, result.by_turns) if result.runs else ():
            values = " | ".join(str(each.get(figure, "")) for each in (before, now, found))
            turns = len(result.runs) if name else ""
            lines.append(f"| {name} | {figure} | {turns} | {values} | {ends} |")
            name = ""
    return "\n".join(lines)


def _ends(found: dict[str, Spread], targets: Sequence[Target]) -> Iterator[tuple[str, str]]:
    """Each figure, and the last two cells of its row."""
    wanted = {target.figure: target for target in targets}
    for figure in [*found, *(name for name in wanted if name not in found)]:
        target = wanted.get(figure)
        yield figure, f"{target} | {target.verdict(found.get(figure))}" if target else " | "


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
