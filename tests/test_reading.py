"""
How a parameter is read from what was given, and the sentence for what is refused.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.answers import Statuses
from dalga.model.duration import Duration
from dalga.model.duration import seconds as whole_seconds
from dalga.model.fields import FIELDS, READERS
from dalga.model.options import CatchUp, OnFailure
from dalga.model.reading import (
    MAX_COUNT,
    MAX_LATENESS,
    MIN_LATENESS,
    Members,
    Number,
    Value,
    as_text,
    boolean,
    count,
    cron,
    instant,
    interval,
    jitter,
    lateness,
    location,
    members_of,
    one_of,
    statuses,
    success,
    text_of,
)
from dalga.model.schedule import MAX_INTERVAL
from dalga.model.zone import Gap, Overlap
from tests.strategies import thorough

examples = thorough(300)


#: What a job sends, and what is noted about it: see tests/test_reading_delivery.py.
SAID = {field.name for field in FIELDS if field.place.partition(".")[0] in ("delivery", "notes")}


class ValueTests(SynchronousTestCase):
    """What a form and JSON can say."""

    def test_the_text_of_a_value(self) -> None:
        cases: list[tuple[Value, str]] = [
            ("60", "60"),
            (Number("60"), "60"),
            ("", ""),
            ("null", "null"),
            (True, "true"),
            (False, "false"),
        ]
        for value, text in cases:
            self.assertEqual(text_of("x", value), text)
            self.assertEqual(as_text(value), text)

    def test_what_no_form_can_say_is_refused(self) -> None:
        cases: list[tuple[Value, str]] = [
            (None, "null"),
            ([], "an object or array"),
            (["60"], "an object or array"),
            (Members(), "an object or array"),
            (Members([("a", True), ("a", None)]), "an object or array"),
        ]
        for value, what in cases:
            self.assertEqual(as_text(value), what)
            sentence = f"is {what} in the JSON body: it takes a string, a number or a boolean"
            if value is None:
                sentence += "; leave it out where it has no value"
            error = self.assertRaises(InvalidRequest, text_of, "x", value)
            self.assertEqual(str(error), f"'x' {sentence}")
            for name, read in READERS.items():
                if name in ("success", "gone", "give-up") and type(value) is list:
                    continue  # an array of statuses
                if name in SAID:
                    continue  # each says by itself what it takes
                # GET shows an interval of null beside a cron.
                if not (name == "interval" and value is None):
                    error = self.assertRaises(InvalidRequest, read, name, value)
                    self.assertEqual(str(error), f"{name!r} {sentence}")
        self.assertIsNone(interval("interval", None))

    def test_statuses(self) -> None:
        """A text, a number, or an array of both; ``none`` only where the set may be empty."""
        some = Statuses(((200, 200), (202, 204)))
        given: list[Value] = ["200,202-204", ["200", Number("202"), "203-204"], ["202-204, 200"]]
        for value in given:
            for read in (success, statuses):
                self.assertEqual(read("x", value), some)
        self.assertEqual(success("x", Number("200")), Statuses(((200, 200),)))
        empty: list[Value] = ["none", "NONE", []]
        for value in empty:
            self.assertEqual(statuses("x", value), Statuses(()))
        takes = "it takes statuses from 200 to 599 and ranges, such as 200, 200-299 or 200,202"
        array = "x is an array with other elements than strings and numbers"
        refused: list[tuple[Value, str]] = [
            ("none", "x is 'none', which has 'none', which is no status"),
            ([], "x is '', which has '', which is no status"),
            ("2xx", "x is '2xx', which has '2xx', which is no status (2xx is 200-299)"),
            (Number("100"), "x is '100', which has 100, which is no status of a final answer"),
            (True, "x is 'true', which has 'true', which is no status"),
            ([True], array),
            ([["200"]], array),
            ([Members([("a", "200")])], array),
        ]
        for value, why in refused:
            error = str(self.assertRaises(InvalidRequest, success, "x", value))
            self.assertTrue(error.startswith(why) and error.endswith(takes), error)
        error = str(self.assertRaises(InvalidRequest, statuses, "x", "ok"))
        self.assertTrue(error.endswith(f"{takes}, or none"), error)

    def test_the_members_of_an_object(self) -> None:
        members = Members([("b", Number("1")), ("a", Members())])
        self.assertEqual(members_of("x", members), {"b": "1", "a": []})
        self.assertEqual(members_of("x", Members()), {})
        for value in (None, True, "{}", Number("1"), [], [["a", "b"]]):
            self.assertRaises(InvalidRequest, members_of, "x", value)


#: How each refusal of an interval ends.
INTERVAL_TAKES = (
    "it takes seconds from 0 to 4294967295, or a duration such as 5m, 1h30m, PT90S or P1D"
)


class IntervalTests(SynchronousTestCase):
    def refusal(self, value: str) -> str:
        return str(self.assertRaises(InvalidRequest, interval, "interval", value))

    def test_whole_seconds(self) -> None:
        for value, expected in [
            ("0", 0),
            ("60", 60),
            ("007", 7),
            ("0" * 50 + "7", 7),
            (str(MAX_INTERVAL), MAX_INTERVAL),
        ]:
            self.assertEqual(interval("interval", value), whole_seconds(expected))

    def test_durations(self) -> None:
        for value, expected in [
            ("60.0", whole_seconds(60)),
            ("5m", whole_seconds(300)),
            ("1h30m", whole_seconds(5400)),
            ("PT0.5H", whole_seconds(1800)),
            ("PT1.5M", whole_seconds(90)),
            ("1.5", Duration(exact=timedelta(seconds=1.5), text="PT1.5S")),
            ("PT60S", whole_seconds(60)),
            (f"PT{MAX_INTERVAL}S", whole_seconds(MAX_INTERVAL)),
            ("pt1m", whole_seconds(60)),
            ("PT1.5S", Duration(exact=timedelta(seconds=1.5), text="PT1.5S")),
            ("P1M", Duration(months=1, text="P1M")),
            ("P2W", Duration(days=14, text="P2W")),
            (
                "P1Y2M10DT2H30M",
                Duration(14, 10, timedelta(hours=2, minutes=30), "P1Y2M10DT2H30M"),
            ),
        ]:
            self.assertEqual(interval("interval", value), expected)

    def test_anything_else_is_refused_in_a_sentence(self) -> None:
        for value in [str(MAX_INTERVAL + 1), "99999999999"]:
            self.assertEqual(self.refusal(value), f"interval is '{value}': {INTERVAL_TAKES}")
        none = "is no duration"
        for value, problem in [
            ("-5", "is negative: time only goes forward"),
            ("-P1D", "is negative: time only goes forward"),
            ("P-1D", "is negative: time only goes forward"),
            ("P0D", "is no time at all"),
            ("PT0S", "is no time at all"),
            (
                "P1M2W",
                "mixes weeks with other units, which ISO 8601 does not: write days",
            ),
            ("PT4294967296S", "is longer than 4294967295 seconds"),
            ("P1DT9999999999H", "is longer than 4294967295 seconds"),
            ("", none),
            ("P", none),
            ("PT", none),
            ("P1DT", none),
            (
                "P0.5D",
                "has a fraction of a day or more, which is not always as long: write hours, as "
                "PT12H",
            ),
            ("P1S", none),
            ("P1H", none),
            ("PT5M1H", none),
            ("P99999999999Y", none),
            *((value, none) for value in ("+5", "abc", "1,5", " ", " 5", "5 ", "1_000", "1e3")),
            *((value, none) for value in ("0x10", "\uff11\uff12", "٣", "²", "True", "P²D")),
        ]:
            self.assertEqual(
                self.refusal(value), f"interval is '{value}', which {problem}; {INTERVAL_TAKES}"
            )

    def test_what_was_given_is_repeated_but_not_at_length(self) -> None:
        for value in ["x\n" * 5000, "9" * 5000, "P" + "9" * 5000 + "D", "5\n"]:
            self.assertLess(len(self.refusal(value)), 250)
            self.assertNotIn("\n", self.refusal(value))


class CronTests(SynchronousTestCase):
    def test_an_expression_has_one_space_between_two_fields(self) -> None:
        for value, expected in [
            ("*/5 * * * *", "*/5 * * * *"),
            ("  30  9 * * mon-fri\t", "30 9 * * mon-fri"),
            ("15 0 12 L * *", "15 0 12 L * *"),
            ("0 0 * * 5#2", "0 0 * * 5#2"),
        ]:
            self.assertEqual(cron("cron", value), expected)

    def test_anything_else_is_refused_in_a_sentence(self) -> None:
        for value, problem in [
            ("* * * *", "has 4 fields; write five fields"),
            ("60 * * * *", "has '60' in the minute field, which takes 0-59"),
            ("*/90 * * * *", "has a step of 90 in the minute field"),
            ("0 0 30 2 *", "names a time that never comes"),
            ("² * * * *", "has a letter that is not of the English alphabet"),
        ]:
            self.assertIn(
                f"cron is {value!r}, which {problem}",
                str(self.assertRaises(InvalidRequest, cron, "cron", value)),
            )
        error = self.assertRaises(InvalidRequest, cron, "cron", "*," * 30_000 + "* * * * *")
        self.assertIn("which has 60009 characters, and 255 are the most", str(error))
        self.assertLess(len(str(error)), 200)


class LocationTests(SynchronousTestCase):
    def test_names_of_the_iana_database(self) -> None:
        for value in ["UTC", "Europe/Istanbul", "America/Argentina/Buenos_Aires", "Etc/GMT+3"]:
            self.assertEqual(location("location", value), value)

    def test_anything_else_is_refused_in_a_sentence(self) -> None:
        such = "it takes one such as Europe/Istanbul or UTC"
        for value, advice in [
            ("Mars/Phobos", such),
            ("", such),
            ("/etc/passwd", such),
            ("\0", such),
            ("europe/istanbul", "did you mean Europe/Istanbul?"),
            ("Europe/Instanbul", "did you mean Europe/Istanbul?"),
        ]:
            self.assertEqual(
                str(self.assertRaises(InvalidRequest, location, "location", value)),
                f"location is {value!r}, which is no time zone of the IANA database; {advice}",
            )
        error = self.assertRaises(InvalidRequest, location, "location", "x" * 60_000)
        self.assertLess(len(str(error)), 150)


class CountTests(SynchronousTestCase):
    def test_whole_numbers(self) -> None:
        for value, expected in [("1", 1), ("007", 7), (str(MAX_COUNT), MAX_COUNT)]:
            self.assertEqual(count("count", value), expected)

    def test_anything_else_is_refused_in_a_sentence(self) -> None:
        for value in ["0", "-1", "1.5", "", "1e3", "٣", str(MAX_COUNT + 1), "99999999999"]:
            self.assertEqual(
                str(self.assertRaises(InvalidRequest, count, "count", value)),
                f"count is {value!r}: it takes a whole number from 1 to 4294967295",
            )


class LatenessTests(SynchronousTestCase):
    def test_seconds_iso_8601_and_as_go_writes_it(self) -> None:
        for value, expected in [
            ("0.1", MIN_LATENESS),
            ("100ms", MIN_LATENESS),
            ("90", timedelta(seconds=90)),
            ("1.5", timedelta(seconds=1.5)),
            ("5m", timedelta(minutes=5)),
            ("1h30m", timedelta(hours=1, minutes=30)),
            ("1.5h", timedelta(hours=1, minutes=30)),
            ("2h3m4s500ms", timedelta(hours=2, minutes=3, seconds=4, milliseconds=500)),
            ("PT90S", timedelta(seconds=90)),
            ("pt0.5s", timedelta(seconds=0.5)),
            ("P1D", timedelta(hours=24)),
            ("P2W", timedelta(days=14)),
            ("P1DT12H", timedelta(hours=36)),
            ("P3650D", MAX_LATENESS),
            ("87600h", MAX_LATENESS),
            ("315360000", MAX_LATENESS),
        ]:
            self.assertEqual(lateness("max-lateness", value), expected, value)

    def test_anything_else_is_refused_in_a_sentence(self) -> None:
        none = "is no duration"
        longer = "is longer than 10 years"
        shorter = "is too short: a run is always some milliseconds late"
        for value, problem in [
            ("", none),
            ("m", none),
            ("5M", "is no duration: write 5m for minutes, or P5M for months"),
            ("1m1h", none),
            ("1d", "is no duration: write P1D"),
            ("1.1234567", none),
            (".5", none),
            ("5 m", none),
            ("٣", none),
            ("-5", "is negative: time only goes forward"),
            ("-5m", "is negative: time only goes forward"),
            ("PT0S", "is no time at all"),
            ("P1M", "has years or months, which are not always as long"),
            ("P1Y", "has years or months, which are not always as long"),
            ("P1M2W", "mixes weeks with other units, which ISO 8601 does not: write days"),
            ("0", shorter),
            ("0s", "is no time at all"),
            ("99.999ms", shorter),
            ("0.000001", shorter),
            ("315360000.000001", longer),
            ("9" * 18, "is longer than any calendar"),
            ("9" * 40, "is longer than any calendar"),
            ("9999999999h9999999999m", longer),
            ("P3651D", longer),
            ("P9999999999D", longer),
            ("P999999999DT24H", longer),
            ("PT9999999999H", longer),
        ]:
            self.assertEqual(
                str(self.assertRaises(InvalidRequest, lateness, "max-lateness", value)),
                f"max-lateness is {value!r}, which {problem}; "
                "it takes seconds from 0.1 to 315360000, or a duration such as 5m, 1h30m, PT90S "
                "or P1D",
            )


class ChoiceTests(SynchronousTestCase):
    def test_in_any_case(self) -> None:
        for kind, value, expected in [
            (CatchUp, "one", CatchUp.ONE),
            (CatchUp, "SKIP", CatchUp.SKIP),
            (CatchUp, "All", CatchUp.ALL),
            (OnFailure, "continue", OnFailure.CONTINUE),
            (OnFailure, "sTOP", OnFailure.STOP),
            (Gap, "Shift", Gap.SHIFT),
            (Gap, "skip", Gap.SKIP),
            (Overlap, "first", Overlap.FIRST),
            (Overlap, "LAST", Overlap.LAST),
            (Overlap, "both", Overlap.BOTH),
        ]:
            self.assertIs(one_of(kind)("x", value), expected)

    def test_anything_else_is_refused_with_the_choices(self) -> None:
        for name, value, takes in [
            ("catch-up", "", "one, skip or all"),
            ("catch-up", "true", "one, skip or all"),
            ("on-failure", "retry", "continue or stop"),
            ("dst-gap", "first", "shift or skip"),
            ("dst-overlap", "last ", "first, last or both"),
        ]:
            error = self.assertRaises(InvalidRequest, READERS[name], name, value)
            self.assertEqual(str(error), f"{name} is {value!r}: it takes {takes}")


class FirstRunTests(SynchronousTestCase):
    def test_rfc_3339(self) -> None:
        for value, expected in [
            ("2030-01-31T09:00:00Z", (2030, 1, 31, 9, 0, 0)),
            ("2030-01-31t09:00:00z", (2030, 1, 31, 9, 0, 0)),
            ("2030-01-31 09:00:00Z", (2030, 1, 31, 9, 0, 0)),
            ("2030-01-31T09:00:00+03:00", (2030, 1, 31, 6, 0, 0)),
            ("2030-01-31T23:30:00-23:59", (2030, 2, 1, 23, 29, 0)),
            ("2030-01-31T09:00:00-00:00", (2030, 1, 31, 9, 0, 0)),
            ("1985-04-12T23:20:50.52Z", (1985, 4, 12, 23, 20, 50, 520_000)),
            # Cut off, not rounded.
            ("2030-01-31T09:00:00.9999999999Z", (2030, 1, 31, 9, 0, 0, 999_999)),
            ("2024-02-29T00:00:00Z", (2024, 2, 29)),
            ("0001-01-01T00:00:00Z", (1, 1, 1)),
            ("9999-12-31T23:59:59.999999Z", (9999, 12, 31, 23, 59, 59, 999_999)),
            # RFC 3339 section 5.8's leap seconds.
            ("1990-12-31T23:59:60Z", (1991, 1, 1)),
            ("1990-12-31T15:59:60.5-08:00", (1991, 1, 1, 0, 0, 0, 500_000)),
        ]:
            wanted = datetime(*expected, tzinfo=UTC)  # type: ignore[misc, arg-type]  # 7 at most
            self.assertEqual(instant("first-run", value), wanted, value)

    def test_anything_else_is_refused_with_a_hint(self) -> None:
        example = "such as 2030-01-31T09:00:00Z"
        for value, hint in [
            ("", example),
            ("now", example),
            ("2030-01-31", example),
            ("1893456000", example),
            ("2030-01-31T09:00Z", example),
            ("2030-01-31T09:00:00.Z", example),
            ("2030-01-31T09:00:00+0300", example),
            ("2030-01-31T09:00:00+24:00", example),
            ("2030-01-31T09:00:00+03:60", example),
            ("2030-01-31T09:00:00Z\n", example),
            ("\uff12030-01-31T09:00:00Z", example),
            ("2030-01-31T09:00:00", "the zone is missing"),
            ("2030-01-31T09:00:00.5", "the zone is missing"),
            ("2030-01-31T09:00:00 03:00", "write the plus of a zone as %2B"),
            ("2030-02-30T09:00:00Z", "no such date or time of day"),
            ("2030-13-01T09:00:00Z", "no such date or time of day"),
            ("0000-01-01T00:00:00Z", "no such date or time of day"),
            ("2030-01-31T24:00:00Z", "no such date or time of day"),
            ("2030-01-31T09:00:61Z", "no such date or time of day"),
            ("2030-01-31T09:00:60Z", "a leap second is at 23:59:60 UTC only"),
            ("2030-12-31T23:59:60+01:00", "a leap second is at 23:59:60 UTC only"),
            ("1990-12-31T23:59:60", "a leap second is at 23:59:60 UTC only"),
            ("0001-01-01T00:00:00+03:00", "the years 1 to 9999 UTC"),
            ("9999-12-31T23:59:59-03:00", "the years 1 to 9999 UTC"),
            ("9999-12-31T23:59:60Z", "the years 1 to 9999 UTC"),
        ]:
            error = self.assertRaises(InvalidRequest, instant, "first-run", value)
            self.assertIn("first-run is ", str(error), value)
            self.assertIn(hint, str(error), value)

    @examples
    @given(st.datetimes(timezones=st.just(UTC)))
    def test_what_is_written_is_read(self, moment: datetime) -> None:
        self.assertEqual(instant("first-run", moment.isoformat()), moment)


class BooleanTests(SynchronousTestCase):
    def test_every_spelling_in_any_case(self) -> None:
        for expected, spellings in [
            (True, ["true", "yes", "on", "1", "True", "YES", "oN"]),
            (False, ["false", "no", "off", "0", "False", "NO", "oFf"]),
        ]:
            for value in spellings:
                self.assertIs(boolean("one-off", value), expected, value)

    def test_anything_else_is_refused(self) -> None:
        for value in ["", " ", "t", "y", "2", "-1", "01", "true ", "enabled", "\uff11"]:
            error = self.assertRaises(InvalidRequest, boolean, "one-off", value)
            self.assertIn(f"one-off is {value!r}: it takes true", str(error))


class JitterTests(SynchronousTestCase):
    def test_elapsed_time_in_each_form(self) -> None:
        for value, expected in [
            ("0.001", timedelta(milliseconds=1)),
            ("1ms", timedelta(milliseconds=1)),
            ("90", timedelta(seconds=90)),
            ("5m", timedelta(minutes=5)),
            ("1h30m", timedelta(hours=1.5)),
            ("PT1H", timedelta(hours=1)),
            ("P1D", timedelta(days=1)),
            ("31622400", timedelta(days=366)),
        ]:
            self.assertEqual(jitter("jitter", value), expected, value)

    def test_anything_else_is_refused_in_a_sentence(self) -> None:
        takes = (
            "it takes seconds from 0.001 to 31622400, or a duration such as 5m, 1h30m, PT90S or P1D"
        )
        for value in ("0", "0.0005", "31622400.1", "P367D"):
            error = self.assertRaises(InvalidRequest, jitter, "jitter", value)
            self.assertEqual(str(error), f"jitter is '{value}': {takes}")
        for value, problem in [
            ("PT0S", "is no time at all"),
            ("-5m", "is negative: time only goes forward"),
            ("P1M", "has years or months, which are not always as long"),
        ]:
            error = self.assertRaises(InvalidRequest, jitter, "jitter", value)
            self.assertEqual(str(error), f"jitter is '{value}', which {problem}; {takes}")
