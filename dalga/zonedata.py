"""
Which copy of the IANA time zone database is used: the system's or the ``tzdata`` package's.

Python's zoneinfo takes the system's wherever there is one, however old it is:

    /usr/share/zoneinfo     2025b    a Debian that was not updated
    tzdata                  2026f    installed with Dalga

Here the newer of the two is chosen, once, for the whole process and before it looks up any zone.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from dalga.model.zone import forget_zones


class Copy(NamedTuple):
    """A copy of the database."""

    #: As IANA calls it, such as 2026f; None where the copy does not say.
    version: str | None
    #: A folder, or the package.
    where: str


class ZoneData(NamedTuple):
    """The copy that is used, and the one that is not; each None where there is none."""

    used: Copy | None
    left: Copy | None

    @property
    def version(self) -> str | None:
        return self.used.version if self.used else None

    def __str__(self) -> str:
        """As the log has it."""
        if self.used is None:
            return "none: install the package tzdata"
        text = f"{self.used.version or 'of an unknown version'}, {self.used.where}"
        if self.left is None:
            return text
        return f"{text} (not {self.left.where}: {self.left.version or 'unknown'})"


def use_newest() -> ZoneData:
    """
    Have zoneinfo take all zones from the newer copy. What one lacks comes from the package still.

    The system's is taken where both are of one version, and is not where it says none: then nobody
    could see what runs go by.
    """
    system, package = _system(zoneinfo.TZPATH), _package()
    use_system = package is None or (system is not None and _age(system) >= _age(package))
    if not use_system:
        zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()
    forget_zones()
    return ZoneData(system, package) if use_system else ZoneData(package, system)


def _age(copy: Copy) -> tuple[int, int, str]:
    """Grows with each version: 2025b, 2025z, 2025za, 2026a; one that is unknown comes before."""
    found = re.match(r"([0-9]{4})([a-z]+)", copy.version or "")
    return (int(found[1]), len(found[2]), found[2]) if found else (0, 0, "")


def _system(folders: Iterable[str]) -> Copy | None:
    """The first copy on zoneinfo's path, which is PYTHONTZPATH where that is set."""
    for folder in map(Path, folders):
        if (folder / "UTC").is_file() or (folder / "Etc" / "UTC").is_file():
            return Copy(_version(folder), str(folder))
    return None


def _version(folder: Path) -> str | None:
    # Linux has the source in one file, "# version 2025b" first; BSD and macOS a file for it.
    for name, pattern in (("tzdata.zi", r"# version (\S+)"), ("+VERSION", r"(\S+)")):
        try:
            with (folder / name).open(encoding="ascii", errors="replace") as file:
                if found := re.match(pattern, file.readline(100)):
                    return found[1]
        except OSError:
            pass  # the other one, then
    return None


def _package() -> Copy | None:
    try:
        return Copy(str(import_module("tzdata").IANA_VERSION), "the package tzdata")
    except (ImportError, AttributeError):
        return None
