"""The locks of the libraries agree with pyproject.toml; what `make audit` concludes."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from twisted.trial.unittest import SynchronousTestCase

from tests.audit import conclusion

CHECKOUT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def locked(name: str) -> dict[str, list[str]]:
    """What stands in a lock: of each library, by its name, its versions."""
    found: dict[str, list[str]] = {}
    for entry in re.split(r"\n(?=\w)", (CHECKOUT / name).read_text(encoding="utf-8")):
        if entry.startswith("#"):
            continue
        requirement = Requirement(entry.partition("\\")[0])
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry
        (version,) = requirement.specifier
        assert version.operator == "==", entry
        found.setdefault(canonicalize_name(requirement.name), []).append(version.version)
    return found


class LockTests(SynchronousTestCase):
    def assert_within(self, requirements: list[str], lock: dict[str, list[str]]) -> None:
        for requirement in map(Requirement, requirements):
            versions = lock.get(canonicalize_name(requirement.name), [])
            self.assertTrue(versions, f"{requirement.name}: make lock")
            for version in versions:
                self.assertIn(version, requirement.specifier, f"{requirement.name}: make lock")

    def test_libraries(self) -> None:
        """Each version in a lock is one that pyproject.toml takes."""
        lock, of_tests = locked("requirements.lock"), locked("requirements-dev.lock")
        needed = PROJECT["dependencies"]
        self.assert_within(needed, lock)
        self.assert_within(needed + PROJECT["optional-dependencies"]["dev"], of_tests)
        self.assertEqual(lock, {name: of_tests[name] for name in lock})

    def test_bounds(self) -> None:
        """Each library has a lowest version, as test-lowest tries these."""
        wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
        bounded = {one.name for one in map(Requirement, wanted) if ">=" in str(one.specifier)}
        self.assertEqual({one.name for one in map(Requirement, wanted)}, bounded)

    def test_no_place(self) -> None:
        """A lock does not say where the libraries come from."""
        for name in ("requirements.lock", "requirements-dev.lock"):
            self.assertNotIn("://", (CHECKOUT / name).read_text(encoding="utf-8"))


class AuditTests(SynchronousTestCase):
    def concluded(self, libraries: list[object], errors: str = "") -> tuple[list[str], int]:
        return conclusion(json.dumps({"dependencies": libraries, "fixes": []}), errors)

    def test_weak(self) -> None:
        weak = {"name": "treq", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": []}]}
        sound = {"name": "klein", "version": "24.8.0", "vulns": []}
        unknown = {"name": "tubes", "skip_reason": "Dependency not found"}
        lines, status = self.concluded([weak, sound, unknown], "Found 1 known vulnerability")
        self.assertEqual(
            lines,
            [
                "treq 1.0: CVE-1, fixed in none yet",
                "no data on tubes",
                "audit: 2 libraries looked at, 1 with known weaknesses",
            ],
        )
        self.assertEqual(status, 1)
        lines, status = self.concluded([sound])
        self.assertEqual(lines, ["audit: 1 libraries looked at, 0 with known weaknesses"])
        self.assertEqual(status, 0)

    def test_no_data(self) -> None:
        """Nothing is called sound that nobody has looked at."""
        unknown = {"name": "treq", "skip_reason": "Dependency not found"}
        for (lines, status), why in (
            (self.concluded([unknown]), "has no data"),
            (conclusion("", "WARNING\nConnectionError: Failed to resolve"), "can't be reached"),
            (conclusion("", "requests.exceptions.ReadTimeout: timed out"), "can't be reached"),
        ):
            self.assertEqual(status, 0, lines)
            self.assertIn("nothing was looked at", lines[-1])
            self.assertIn(why, lines[-1])

    def test_broken(self) -> None:
        """An option or a lock that pip-audit does not take is a failure."""
        lines, status = conclusion("", "ERROR: requirement x is missing a hash")
        self.assertEqual(status, 1)
        self.assertIn("missing a hash", lines[0])
