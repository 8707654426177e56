"""
Clocks on the wall, and what is done where they change.

`tests.test_schedule_properties` holds all of it to a slow reference; here are the examples.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.zone import Change, Dst, Gap, Overlap, Zone, check_location

HOUR = timedelta(hours=1)
HOWE = "Australia/Lord_Howe"

#: Place, wall time in a gap, and the instant of the clock change.
GAPS = [
    ("Europe/Istanbul", "2007-03-25T03:30", "2007-03-25T01:00"),
    ("Europe/Istanbul", "2011-03-28T03:30", "2011-03-28T01:00"),  # a day late, for an exam
    ("Europe/Istanbul", "2016-03-27T03:00", "2016-03-27T01:00"),  # the last one
    ("America/Los_Angeles", "2026-03-08T02:59:59.999999", "2026-03-08T10:00"),
    ("Europe/Riga", "2021-03-28T03:30", "2021-03-28T01:00"),
    ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30"),
    ("Asia/Kathmandu", "1986-01-01T00:00", "1985-12-31T18:30"),
    ("Asia/Kathmandu", "1986-01-01T00:14", "1985-12-31T18:30"),
    ("Pacific/Apia", "2011-12-30T00:00", "2011-12-30T10:00"),
    ("Pacific/Apia", "2011-12-30T23:59", "2011-12-30T10:00"),
    ("Africa/Casablanca", "2026-03-22T02:30", "2026-03-22T02:00"),  # the end of Ramadan
]

#: Place, wall time in an overlap, and when it is first and last.
OVERLAPS = [
    ("Europe/Istanbul", "2007-10-28T03:30", "2007-10-28T00:30", "2007-10-28T01:30"),
    ("Europe/Istanbul", "2015-11-08T03:30", "2015-11-08T00:30", "2015-11-08T01:30"),
    ("America/Los_Angeles", "2026-11-01T01:00", "2026-11-01T08:00", "2026-11-01T09:00"),
    ("Europe/Riga", "2021-10-31T03:59:59", "2021-10-31T00:59:59", "2021-10-31T01:59:59"),
    ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45", "2026-04-04T15:15"),
    ("Pacific/Apia", "2011-04-02T03:30", "2011-04-02T13:30", "2011-04-02T14:30"),
    ("Africa/Casablanca", "2026-02-15T02:30", "2026-02-15T01:30", "2026-02-15T02:30"),
]

#: Place, wall time that exists once, and when.
PLAIN = [
    ("UTC", "2026-03-29T02:30", "2026-03-29T02:30"),
    ("Europe/Istanbul", "2016-10-30T03:30", "2016-10-30T00:30"),  # no end of summer time any more
    ("Europe/Istanbul", "2021-03-28T03:30", "2021-03-28T00:30"),
    ("Europe/Istanbul", "2015-10-25T03:30", "2015-10-25T00:30"),  # two weeks late that year
    ("America/Los_Angeles", "2026-03-08T01:59:59.999999", "2026-03-08T09:59:59.999999"),
    ("America/Los_Angeles", "2026-03-08T03:00", "2026-03-08T10:00"),
    ("America/Los_Angeles", "2026-11-01T00:59:59", "2026-11-01T07:59:59"),
    ("America/Los_Angeles", "2026-11-01T02:00", "2026-11-01T10:00"),
    ("Australia/Lord_Howe", "2026-10-04T02:30", "2026-10-03T15:30"),
    ("Australia/Lord_Howe", "2026-04-05T02:00", "2026-04-04T15:30"),
    ("Asia/Kathmandu", "1986-01-01T00:15", "1985-12-31T18:30"),
    ("Pacific/Apia", "2011-12-29T23:59", "2011-12-30T09:59"),
    ("Pacific/Apia", "2011-12-31T00:00", "2011-12-30T10:00"),
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class InstantsTests(SynchronousTestCase):
    """When the clock of a place shows a time."""

    def test_gaps(self) -> None:
        """A wall time that does not exist moves to the first that does, or is skipped."""
        for location, text, change in GAPS:
            wall = datetime.fromisoformat(text)
            for gap in (None, Gap.SHIFT):
                for overlap in (None, *Overlap):
                    self.assertEqual(
                        Zone(location, gap, overlap).instants(wall), [(utc(change), Dst.GAP)]
                    )
            self.assertEqual(Zone(location, Gap.SKIP).instants(wall), [])

    def test_overlaps(self) -> None:
        """A wall time that exists twice is its first, its last, or both."""
        for location, text, first, last in OVERLAPS:
            wall = datetime.fromisoformat(text)
            marked = [(utc(first), Dst.OVERLAP), (utc(last), Dst.OVERLAP)]
            for overlap, expected in (
                (None, marked[:1]),
                (Overlap.FIRST, marked[:1]),
                (Overlap.LAST, marked[1:]),
                (Overlap.BOTH, marked),
            ):
                for gap in (None, *Gap):
                    zone = Zone(location, gap, overlap)
                    self.assertEqual(zone.instants(wall), expected, (location, overlap))
                    # In which pass it was taken from the clock plays no part.
                    self.assertEqual(zone.instants(wall.replace(fold=1)), expected)

    def test_plain(self) -> None:
        """Any other is at one instant, which is not marked, whatever the rules are."""
        for location, text, at in PLAIN:
            for zone in (Zone(location), Zone(location, Gap.SKIP, Overlap.BOTH)):
                self.assertEqual(zone.instants(datetime.fromisoformat(text)), [(utc(at), None)])

    def test_ends_of_time(self) -> None:
        """A wall time whose instant is outside the years 1 to 9999 has none."""
        self.assertEqual(Zone("Asia/Tokyo").instants(datetime.min), [])
        self.assertEqual(Zone("America/Lima").instants(datetime.max), [])


class WallTests(SynchronousTestCase):
    """What the clock shows at an instant."""

    def test_fold(self) -> None:
        """The two passes of an overlap show the same time, and the fold tells them apart."""
        for location, text, first, last in OVERLAPS:
            wall = datetime.fromisoformat(text)
            for at, fold in ((first, 0), (last, 1)):
                shown = Zone(location).wall(utc(at))
                self.assertEqual((shown, shown.fold), (wall, fold))

    def test_ends_of_time(self) -> None:
        """Where the place's clock would show a year outside 1 to 9999 UTC's is given instead."""
        for location, at in (
            ("America/Lima", datetime.min.replace(tzinfo=UTC)),
            ("Asia/Tokyo", datetime.max.replace(tzinfo=UTC)),
        ):
            self.assertRaises(OverflowError, Zone(location).wall, at)
            self.assertEqual(Zone(location).local(at), at)
        noon = Zone("Asia/Tokyo").local(utc("2026-01-01T03:00"))
        self.assertEqual(noon.isoformat(), "2026-01-01T12:00:00+09:00")


class ChangeTests(SynchronousTestCase):
    """The clock change in whose gap or overlap a wall time is."""

    def test_examples(self) -> None:
        """It has an instant, and a first wall time in it and one behind it."""
        for location, wall, at, is_gap, start, end in (
            ("Europe/Riga", "2021-03-28T03:30", "2021-03-28T01:00", True, "03:00", "04:00"),
            ("Europe/Riga", "2021-10-31T03:30", "2021-10-31T01:00", False, "03:00", "04:00"),
            ("Australia/Lord_Howe", "2026-10-04T02:01", "2026-10-03T15:30", True, "02:00", "02:30"),
            (
                "Australia/Lord_Howe",
                "2026-04-05T01:31",
                "2026-04-04T15:00",
                False,
                "01:30",
                "02:00",
            ),
        ):
            change = Zone(location).change(datetime.fromisoformat(wall))
            assert change is not None
            self.assertEqual((change.at, change.is_gap), (utc(at), is_gap))
            self.assertEqual(f"{change.start:%H:%M} {change.end:%H:%M}", f"{start} {end}")

    def test_none(self) -> None:
        """What exists once is in none."""
        for location, text, _ in PLAIN:
            self.assertIsNone(Zone(location).change(datetime.fromisoformat(text)))

    def test_a_day(self) -> None:
        """Pacific/Apia went from one side of the date line to the other."""
        change = Zone("Pacific/Apia").change(datetime(2011, 12, 30, 12))
        self.assertEqual(change, Change(utc("2011-12-30T10:00"), -10 * HOUR, 14 * HOUR))


class LocationTests(SynchronousTestCase):
    """Which names are places."""

    def test_accepted(self) -> None:
        """The names of the IANA database are, its old ones and UTC's other names too."""
        for name in ("UTC", "Europe/Istanbul", "Asia/Istanbul", "Turkey", "Etc/GMT+3", "GMT"):
            check_location(name)

    def test_refused(self) -> None:
        """Others are not, nor what each machine may take for something else."""
        for name in (
            *("Mars/Phobos", "", " ", "utc", "europe/istanbul", "Europe/Istanbul "),
            *("+03:00", "EEST", "localtime", "posixrules", "Factory", "Europe", "zone.tab"),
            *("../etc/passwd", "/etc/localtime", "posix/Europe/Riga", "right/Europe/Riga"),
            *("x" * 10_000, "a\0b", "\ud800"),
        ):
            error = self.assertRaises(ValueError, check_location, name)
            self.assertIn("is no time zone of the IANA database", str(error), name)
            self.assertLess(len(str(error)), 120)

    def test_advice(self) -> None:
        """A name that is nearly one is answered with that one, another with an example."""
        for name, advice in (
            ("europe/istanbul", "did you mean Europe/Istanbul?"),
            ("America/Los Angeles", "did you mean America/Los_Angeles?"),
            ("Mars/Phobos", "it takes one such as Europe/Istanbul or UTC"),
        ):
            error = self.assertRaises(ValueError, check_location, name)
            self.assertIn(advice, str(error))
