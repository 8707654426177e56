"""docs/statistics.md says what the daemon does: curl gets what stands there."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.histogram import DURATION_BOUNDS, FACTOR, LATENESS_BOUNDS
from dalga.model.statistics import BUSIEST, FEW, MAX_POINTS, MAX_SUMS, STEPS
from dalga.web.statistics import STATS
from tests.pages import PageTestCase, page
from tests.stores import each_engine

PAGE = page("statistics.md")
#: On one line.
TEXT = " ".join(PAGE.split())


@each_engine(globals())
class CurlTests(PageTestCase):
    """The page's calls, from its top to its end, made of one daemon."""

    async def test_calls(self) -> None:
        self.assertEqual(await self.make_all(PAGE), 4)


class TextTests(SynchronousTestCase):
    """The page's numbers."""

    def test_bounds(self) -> None:
        for name, bounds in (("lateness", LATENESS_BOUNDS), ("duration", DURATION_BOUNDS)):
            self.assertIn(f"| `{name}` | {', '.join(f'{bound:g}' for bound in bounds)} |", PAGE)
        self.assertIn(f"by a factor of less than {FACTOR} ", TEXT)

    def test_numbers(self) -> None:
        for words in (
            f"at most {MAX_POINTS:,} points",
            f"at most {MAX_SUMS:,} sums",
            f"gives {FEW} points or fewer",
            f"its {BUSIEST} busiest paths",
        ):
            self.assertIn(words, TEXT)

    def test_steps(self) -> None:
        minutes = [step.total_seconds() / 60 for step in STEPS]
        self.assertEqual(minutes, [1, 5, 15, 60, 180, 720, 1440, 10080])
        self.assertIn("`1m`, `5m`, `15m`, `1h`, `3h`, `12h`, `24h` and a week", TEXT)

    def test_parameters(self) -> None:
        table = PAGE.partition("| parameter |")[2].partition("\n\n")[0]
        named = re.findall(r"`([a-z]+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.M)))
        self.assertEqual(named, [*STATS])
