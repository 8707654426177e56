"""The fault bench's list of mechanisms goes with the code: what is to be taken out is there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from faults.mutants import CHECKOUT, MUTANTS, mutant


class MutantTests(SynchronousTestCase):
    def test_each_can_be_made(self) -> None:
        """It is Python, and differs from the package in the files that it names, and no others."""
        for name, files in MUTANTS.items():
            with tempfile.TemporaryDirectory() as folder:
                made = mutant(name, Path(folder, "mutant")) / "dalga"
                changed = set()
                for path in made.rglob("*.py"):
                    text = path.read_text()
                    compile(text, str(path), "exec")
                    if text != (CHECKOUT / "dalga" / path.relative_to(made)).read_text():
                        changed.add(str(path.relative_to(made)))
                self.assertEqual(changed, set(files), name)
