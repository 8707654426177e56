"""The newer of two copies of the time zone database is used, by real daemons too."""

from __future__ import annotations

import os
import sys
import zoneinfo
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase
from tzdata import IANA_VERSION

from dalga.model.zone import Zone, check_location, forget_zones
from dalga.zonedata import Copy, ZoneData, use_newest
from tests.daemons import DaemonTestCase

HOUR = timedelta(hours=1)
NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)

PACKAGE = Copy(IANA_VERSION, "the package tzdata")


def make_copy(folder: str, **files_of_it: str) -> str:
    """
    A system's copy in which Vancouver has Tokyo's clock, and there are few other places.

    :param files_of_it: what says the version, by name; with ``_`` for the point or plus.
    """
    data = files("tzdata.zoneinfo")
    for name, source in (("UTC", "UTC"), ("America/Vancouver", "Asia/Tokyo")):
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.joinpath(source).read_bytes())
    for name, text in files_of_it.items():
        Path(folder, {"zi": "tzdata.zi", "version": "+VERSION"}[name]).write_text(text, "ascii")
    return os.path.abspath(folder)


def offset(location: str) -> timedelta:
    return Zone(location).wall(NOON) - NOON.replace(tzinfo=None)


class ChoiceTests(SynchronousTestCase):
    """Which copy is used."""

    def setUp(self) -> None:
        self.addCleanup(use_newest)
        self.addCleanup(zoneinfo.ZoneInfo.clear_cache)
        self.addCleanup(zoneinfo.reset_tzpath)

    def choose(self, *folders: str) -> ZoneData:
        """With Vancouver looked up before, whose clock must be forgotten."""
        zoneinfo.reset_tzpath(to=folders)
        zoneinfo.ZoneInfo.clear_cache()
        forget_zones()
        offset("America/Vancouver")
        return use_newest()

    def test_the_newer(self) -> None:
        """Versions are compared as IANA counts them; where both are one, the system's is used."""
        year = int(IANA_VERSION[:4])
        for text, is_newer in (
            (f"# version {year - 1}z\n# more", False),
            (f"# version {year}\n", False),
            (f"# version {IANA_VERSION}\n", True),
            (f"# version {year}aa\n", True),  # as it goes on after z
            (f"# version {year + 1}a-debian\n", True),
            ("# no version at all\n", False),
            ("", False),
        ):
            folder = make_copy(self.mktemp(), zi=text)
            found = self.choose(folder)
            system = found.used if is_newer else found.left
            assert system is not None
            self.assertEqual(system.where, folder)
            self.assertEqual(found.used if not is_newer else found.left, PACKAGE, text)
            self.assertEqual(offset("America/Vancouver") == 9 * HOUR, is_newer, text)

    def test_a_file_for_the_version(self) -> None:
        """BSD and macOS say it in one."""
        found = self.choose(make_copy(self.mktemp(), version="2999a\n"))
        self.assertEqual(found.version, "2999a")

    def test_unknown(self) -> None:
        """A copy that does not say its version is not used."""
        found = self.choose(make_copy(self.mktemp()))
        self.assertEqual((found.used, found.left and found.left.version), (PACKAGE, None))
        self.assertIn("(not ", str(found))
        self.assertTrue(str(found).endswith(": unknown)"), found)

    def test_without_a_zone_of_its_own_for_utc(self) -> None:
        """Some copies have it as Etc/UTC alone."""
        folder = make_copy(self.mktemp(), zi="# version 2999a\n")
        os.mkdir(os.path.join(folder, "Etc"))
        os.rename(os.path.join(folder, "UTC"), os.path.join(folder, "Etc", "UTC"))
        self.assertEqual(self.choose(folder).version, "2999a")

    def test_a_package_that_is_no_copy(self) -> None:
        """Where what is called tzdata says no version, or is not there, the system's is used."""
        folder = make_copy(self.mktemp(), zi="# version 2001a\n")
        for package in (ModuleType("tzdata"), None):
            with patch.dict(sys.modules, {"tzdata": package}):
                found = self.choose(folder)
            self.assertEqual(found, ZoneData(Copy("2001a", folder), None))

    def test_what_one_lacks(self) -> None:
        """A place that the newer copy has not is the package's."""
        self.choose(make_copy(self.mktemp(), zi="# version 2999a\n"))
        check_location("Europe/Istanbul")
        self.assertEqual(offset("Europe/Istanbul"), 3 * HOUR)

    def test_none(self) -> None:
        """Where the system has none, the package's is used; folders without zones are none."""
        for folders in ((), (os.path.abspath(self.mktemp()),), ("/etc",)):
            found = self.choose(*folders)
            self.assertEqual(found, ZoneData(PACKAGE, None))
            self.assertEqual(str(found), f"{IANA_VERSION}, the package tzdata")

    def test_the_first_on_the_path(self) -> None:
        """That is the one in which zones are looked for first."""
        old, new = (
            make_copy(self.mktemp(), zi=f"# version {version}\n") for version in ("2001a", "2999a")
        )
        self.assertEqual(self.choose(new, old).version, "2999a")
        self.assertEqual(self.choose(old, new).version, IANA_VERSION)

    def test_again(self) -> None:
        """It can be asked for more than once."""
        self.choose(make_copy(self.mktemp(), zi="# version 2001a\n"))
        self.assertEqual(use_newest().version, IANA_VERSION)
        self.choose(make_copy(self.mktemp(), zi="# version 2999a\n"))
        self.assertEqual(use_newest().version, "2999a")


class SQLiteDaemonTests(DaemonTestCase):
    """A daemon."""

    engine = "sqlite"

    async def test_it_runs_by_the_newer(self) -> None:
        """Runs, the log at the start and /status are by the newer copy."""
        own = 9 - offset("America/Vancouver") // HOUR
        for number, (version, used, hour) in enumerate(
            (("2001a", IANA_VERSION, own), ("2999a", "2999a", 0))
        ):
            folder = make_copy(self.mktemp(), zi=f"# version {version}\n")
            self.patch(os, "environ", {**os.environ, "PYTHONTZPATH": folder})
            daemon, url = await self.start(sqlite={"path": f"{number}.sqlite"})
            await daemon.says(rf"time zone data: {used}, .*\(not .*\)")
            status = await self.get(f"{url}/status")
            self.assertEqual(status["tzdata"], used)
            shown = await self.put(
                f"{url}/jobs/a/b?cron=0+9+*+*+*&location=America/Vancouver"
                "&first-run=2030-01-31T00:00:00Z"
            )
            self.assertEqual(shown["next_run"], f"2030-01-31T{hour:02}:00:00Z")
