"""
Which copy of the IANA time zone database is used: the system's or the ``tzdata`` package's.

Python's zoneinfo takes the system's copy wherever there is one, however old it is:

    /usr/share/zoneinfo     2025b    a Debian that was not updated
    tzdata                  2026f    installed with Dalga

Here the newer copy is chosen, once, for the whole process, before it looks up any zone.
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

    #: The version as IANA calls it, such as 2026f; None where the copy does not say.
    version: str | None
    #: The path of a folder, or the package's name.
    where: str


class ZoneData(NamedTuple):
    """The copy that is used, and the other copy; each None where there is none."""

    used: Copy | None
    left: Copy | None

    @property
    def version(self) -> str | None:
        return self.used.version if self.used else None

    def __str__(self) -> str:
        """Both copies in words, for the log."""
        if self.used is None:
            return "none: install the package tzdata"
        text = f"{self.used.version or 'of an unknown version'}, {self.used.where}"
        if self.left is None:
            return text
        return f"{text} (not {self.left.where}: {self.left.version or 'unknown'})"


def use_newest() -> ZoneData:
    """
    Have zoneinfo take all zones from the newer copy. A zone that the system's copy lacks still
    comes from the package.

    Of two copies of one version, the system's is taken. Beside the package, a system's copy without
    a version is not taken: nobody could see which rules the runs go by.
    """
    system, package = _system(zoneinfo.TZPATH), _package()
    use_system = package is None or (system is not None and _age(system) >= _age(package))
    if not use_system:
        zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()
    forget_zones()
    return ZoneData(system, package) if use_system else ZoneData(package, system)


def _age(copy: Copy) -> tuple[int, int, str]:
    """
    Sorts copies by their versions: 2025b, 2025z, 2025za, 2026a. An unknown version comes first.
    """
    found = re.match(r"([0-9]{4})([a-z]+)", copy.version or "")
    return (int(found[1]), len(found[2]), found[2]) if found else (0, 0, "")


def _system(folders: Iterable[str]) -> Copy | None:
    """The first copy on zoneinfo's path, which is PYTHONTZPATH where that is set."""
    for folder in map(Path, folders):
        if (folder / "UTC").is_file() or (folder / "Etc" / "UTC").is_file():
            return Copy(_version(folder), str(folder))
    return None


def _version(folder: Path) -> str | None:
    # Linux has all zones' source in one file, whose first line is "# version 2025b". BSD and macOS
    # have a file for the version.
    for name, pattern in (("tzdata.zi", r"# version (\S+)"), ("+VERSION", r"(\S+)")):
        try:
            with (folder / name).open(encoding="ascii", errors="replace") as file:
                if found := re.match(pattern, file.readline(100)):
                    return found[1]
        except OSError:
            pass  # the other file, then
    return None


def _package() -> Copy | None:
    try:
        return Copy(str(import_module("tzdata").IANA_VERSION), "the package tzdata")
    except (ImportError, AttributeError):
        return None
