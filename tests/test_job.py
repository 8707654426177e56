"""Requests become first runs, outcomes become verdicts, and paths stay below the base URL."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from urllib.parse import unquote, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.duration import Duration, duration_from_text, seconds
from dalga.model.grid import Grid, offset_of
from dalga.model.job import Failed, Job
from dalga.model.key import MAX_KEY_LENGTH, JobKey, check_length, check_path, target_path
from dalga.model.options import CatchUp, OnFailure, Options
from dalga.model.plan import (
    MAX_COUNTED,
    Plan,
    ScheduleRequest,
    amended,
    check_request,
    plan,
    times_of,
)
from dalga.model.retry import RetryPolicy
from dalga.model.run import (
    Delete,
    GiveBack,
    Outcome,
    Reschedule,
    Retry,
    Run,
    RunPolicy,
    Skip,
    Stop,
    judge,
    missed,
    revised,
)
from dalga.model.schedule import END_OF_TIME, MAX_INTERVAL, Calendar, Cron, Every, Once, Schedule
from dalga.model.zone import Dst, Gap, Occurrence, Overlap, Zone
from dalga.web.parameters import schedule_request
from tests.strategies import thorough

NOW = datetime(2014, 11, 11, 22, 10, 40, tzinfo=UTC)
THEN = datetime(2030, 1, 1, tzinfo=UTC)
PAST = datetime(2001, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
EARLIEST = datetime.min.replace(tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

SIXTY = seconds(60)
DAILY = duration_from_text("P1D")
RIGA = Zone("Europe/Riga")

KEY = JobKey("check_feed", "1234")

EXACT = RunPolicy(RetryPolicy(jitter=0))

RUN = Run(
    row=1,
    token=b"token",
    key=KEY,
    schedule=Every(MINUTE),
    options=Options(),
    anchor=NOW - SECOND,
    scheduled=NOW - SECOND,
    due=NOW - SECOND,
    waited=False,
    id="1",
    attempt=1,
    started=NOW,
    successes=0,
    claimed=NOW,
    lease_ends=20.0,
)
OK = Outcome(200, 0.1)
FAILURE = Outcome(500, 0.1)
ERROR = "500 Internal Server Error"


def asking(**parameters: object) -> ScheduleRequest:
    """What a PUT asks for; an interval in seconds may be a number."""
    interval = parameters.get("interval")
    if isinstance(interval, int):
        parameters["interval"] = seconds(interval)
    if isinstance(interval, str):
        parameters["interval"] = duration_from_text(interval)
    return ScheduleRequest(**parameters)  # type: ignore[arg-type]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class PlanTests(SynchronousTestCase):
    """The parameters of a PUT, row by row of their table."""

    def test_accepted(self) -> None:
        """Each combination that is accepted has its schedule, its anchor and its first run."""
        minute, daily, nine = Every(MINUTE), Calendar(DAILY), Cron("0 9 * * *")
        morning = utc("2014-11-12T09:00")
        for request, schedule, anchor, first in (
            # periodic
            (asking(interval=60), minute, NOW, NOW + MINUTE),
            (asking(interval=60, first_run=THEN), minute, THEN, THEN),
            (asking(interval=60, first_run=PAST), minute, PAST, PAST),
            (asking(interval=60, immediate=True), minute, NOW, NOW),
            (asking(interval="PT60S"), minute, NOW, NOW + MINUTE),
            (asking(interval="P1D"), daily, NOW, NOW + DAY),
            (asking(interval="P1D", first_run=THEN), daily, THEN, THEN),
            (asking(interval="P1D", immediate=True), daily, NOW, NOW),
            (asking(cron="0 9 * * *"), nine, NOW, morning),
            (asking(cron="0 9 * * *", first_run=THEN), nine, THEN, THEN + 9 * HOUR),
            (asking(cron="0 0 * * *", first_run=THEN), Cron("0 0 * * *"), THEN, THEN),
            (asking(cron="0 9 * * *", first_run=PAST), nine, PAST, morning),
            (asking(cron="0 9 * * *", first_run=EARLIEST), nine, EARLIEST, morning),
            (asking(cron="0 9 * * *", immediate=True), nine, NOW, NOW),
            # one-off
            (asking(interval=60, one_off=True), Once(), NOW, NOW + MINUTE),
            (asking(interval=0, one_off=True), Once(), NOW, NOW),
            (asking(interval="P1D", one_off=True), Once(), NOW, NOW + DAY),
            (asking(first_run=THEN, one_off=True), Once(), THEN, THEN),
            (asking(first_run=PAST, one_off=True), Once(), PAST, PAST),
            (asking(one_off=True, immediate=True), Once(), NOW, NOW),
        ):
            check_request(request)
            delay = (request.interval or None) if request.one_off else None
            options = Options(first_run=request.first_run, delay=delay)
            self.assertEqual(plan(request, NOW), Plan(schedule, options, anchor, first), request)

    def test_places(self) -> None:
        """Days, months and cron go by the clock of the location, and by the rules that it got."""
        lisbon = {"location": "Europe/Lisbon", "dst_gap": Gap.SKIP, "dst_overlap": Overlap.LAST}
        zone = Zone("Europe/Lisbon", Gap.SKIP, Overlap.LAST)
        now = utc("2026-03-28T12:00")  # the clocks are set forward in the night that follows
        for parameters, schedule, first in (
            ({"interval": "P1D"}, Calendar(DAILY, zone), "2026-03-29T11:00"),
            ({"cron": "0 9 * * *"}, Cron("0 9 * * *", zone), "2026-03-29T08:00"),
            ({"cron": "30 1 * * *"}, Cron("30 1 * * *", zone), "2026-03-30T00:30"),
            ({"interval": "P1D", "one_off": True}, Once(zone), "2026-03-29T11:00"),
        ):
            planned = plan(asking(**parameters, **lisbon), now)
            self.assertEqual((planned.schedule, planned.first), (schedule, utc(first)))
        elapsed = plan(asking(interval=86400, location="Europe/Lisbon"), now)
        self.assertEqual(elapsed.first, now + DAY)

    def test_options(self) -> None:
        """What else was asked for is kept; what was not is the default."""
        self.assertEqual(plan(asking(interval=60), NOW).options, Options())
        given = {
            "until": THEN,
            "count": 3,
            "catch_up": CatchUp.ALL,
            "max_lateness": MINUTE,
            "on_failure": OnFailure.STOP,
        }
        self.assertEqual(
            plan(asking(interval=60, **given), NOW).options,
            Options(THEN, 3, CatchUp.ALL, MINUTE, OnFailure.STOP),
        )
        once = plan(asking(one_off=True, immediate=True, max_lateness=MINUTE), NOW)
        self.assertEqual(once.options, Options(max_lateness=MINUTE))

    def test_refused(self) -> None:
        """Each combination that contradicts itself is refused, naming the parameter."""
        for named, requests in (
            (
                "interval",
                (
                    asking(),
                    asking(interval=0),
                    asking(interval="PT0.5S"),
                    asking(interval=0, first_run=THEN),
                    asking(first_run=THEN),
                    asking(immediate=True),
                    asking(interval=0, immediate=True),
                    asking(first_run=THEN, immediate=True),
                    asking(one_off=True),
                    asking(interval=60, one_off=True, immediate=True),
                    asking(interval=0, one_off=True, immediate=True),
                    asking(interval=60, first_run=THEN, one_off=True, immediate=True),
                ),
            ),
            (
                "first-run",
                (
                    asking(interval=60, first_run=THEN, immediate=True),
                    asking(cron="0 9 * * *", first_run=THEN, immediate=True),
                    asking(interval=60, first_run=THEN, one_off=True),
                    asking(interval=0, first_run=THEN, one_off=True),
                    asking(first_run=THEN, one_off=True, immediate=True),
                ),
            ),
            (
                "cron",
                (
                    asking(cron="0 9 * * *", interval=60),
                    asking(cron="0 9 * * *", interval=60, one_off=True),
                    asking(cron="0 9 * * *", one_off=True),
                    asking(cron="0 9 * * *", one_off=True, immediate=True),
                ),
            ),
            (
                "one-off",
                (
                    asking(one_off=True, immediate=True, until=THEN),
                    asking(one_off=True, immediate=True, count=1),
                    asking(one_off=True, immediate=True, catch_up=CatchUp.ONE),
                    asking(one_off=True, immediate=True, on_failure=OnFailure.STOP),
                ),
            ),
            ("jitter", (asking(one_off=True, immediate=True, jitter=MINUTE),)),
            (
                "dst-gap",
                (
                    asking(interval=86400, dst_gap=Gap.SHIFT),
                    asking(interval="PT24H", dst_gap=Gap.SKIP, dst_overlap=Overlap.LAST),
                    asking(first_run=THEN, one_off=True, dst_gap=Gap.SKIP),
                ),
            ),
            ("dst-overlap", (asking(interval=60, dst_overlap=Overlap.FIRST),)),
            ("until", (asking(interval=60, first_run=THEN, until=THEN - SECOND),)),
        ):
            for request in requests:
                error = self.assertRaises(InvalidRequest, check_request, request)
                self.assertIn(named, str(error), request)
                self.assertRaises(InvalidRequest, plan, request, NOW)

    def test_the_shortest_interval(self) -> None:
        """A second is accepted, and nothing that is less; of 0 is said what to give instead."""
        for interval in (1, "PT1S", "PT1.000001S"):
            check_request(asking(interval=interval))
        for interval, said in (
            ("PT0.999999S", "interval is 'PT0.999999S': a periodic job takes 1 second or more"),
            (0, "interval is 0: a periodic job takes 1 second or more; one-off=true runs it once"),
        ):
            error = self.assertRaises(InvalidRequest, check_request, asking(interval=interval))
            self.assertEqual(str(error), said)

    def test_variation(self) -> None:
        """The first interval is varied where it is elapsed time from now, and nothing else is."""
        for request in (asking(interval=60), asking(interval=60, until=NOW + 2 * MINUTE)):
            for variation in (0.75, 1.25):
                planned = plan(request, NOW, variation)
                first = NOW + variation * MINUTE
                self.assertEqual((planned.first, planned.anchor), (first, first))
        for request in (
            asking(interval=60, first_run=THEN),
            asking(interval=60, first_run=PAST),
            asking(interval=60, immediate=True),
            asking(interval="P1D"),
            asking(cron="0 9 * * *"),
            asking(one_off=True, interval=60),
            asking(one_off=True, first_run=THEN),
        ):
            self.assertEqual(plan(request, NOW, 1.25), plan(request, NOW), request)

    def test_variation_and_the_end(self) -> None:
        """What is refused is so whatever was drawn; what is drawn comes in time."""
        for variation in (0.5, 1.0, 1.5):
            ends = asking(interval=60, until=NOW + MINUTE)
            self.assertEqual(plan(ends, NOW, variation).first, NOW + min(variation, 1) * MINUTE)
            over = asking(interval=60, until=NOW + MINUTE - SECOND)
            self.assertRaises(InvalidRequest, plan, over, NOW, variation)
        last = asking(interval=60)
        self.assertEqual(plan(last, LAST - MINUTE, 1.5).first, LAST)

    def test_no_run(self) -> None:
        """A request whose job would never run, or never again, is refused."""
        gap_only = {"cron": "30 2 * MAR SUN#2", "location": "America/Los_Angeles"}
        for request, now, problem in (
            (asking(interval=60), LAST, "the first run would be past the year 9999"),
            (asking(interval=60, one_off=True), LAST, "the first run would be past the year 9999"),
            (
                asking(interval=60, first_run=LAST),
                NOW,
                "and first-run 9999-12-31T23:59:59Z: the second run would be past the year 9999",
            ),
            (asking(interval="P8000Y"), NOW, "the first run would be past the year 9999"),
            (asking(interval="P8000Y", immediate=True), NOW, "the second run would be past the"),
            (asking(interval="P1D", first_run=LAST), NOW, "the second run would be past the year"),
            (asking(interval=f"PT{MAX_INTERVAL + 1}S"), NOW, "is longer than 4294967295 seconds"),
            (asking(cron="0 9 * * *"), LAST, "which names a time that does not come in UTC"),
            (
                asking(**gap_only, dst_gap=Gap.SKIP),
                NOW,
                "does not come in America/Los_Angeles within 50 years",
            ),
            (
                asking(**gap_only, dst_gap=Gap.SKIP, immediate=True),
                NOW,
                "does not come in America/Los_Angeles within 50 years",
            ),
            (
                asking(interval="P1D", first_run=EARLIEST, location="America/Lima"),
                NOW,
                "first-run is 0001-01-01T00:00:00Z, which in America/Lima is outside the years",
            ),
            (
                asking(cron="0 9 * * *", first_run=END_OF_TIME, location="Asia/Tokyo"),
                NOW,
                "first-run is 9999-12-31T23:59:59Z, which in Asia/Tokyo is outside the years",
            ),
            (asking(interval=60, until=NOW + MINUTE - SECOND), NOW, "before the first run at"),
            (asking(cron="0 9 * * *", until=NOW + HOUR), NOW, "before the first run at"),
            (asking(interval=60, until=PAST), NOW, "before the first run at 2014-11-11T22:11:40Z"),
            (asking(interval=60, immediate=True, until=PAST), NOW, "before now"),
            (asking(interval=60, first_run=PAST, until=NOW - SECOND), NOW, "before now"),
        ):
            error = self.assertRaises(InvalidRequest, plan, request, now)
            self.assertIn(problem, str(error))
        for request in (
            asking(**gap_only),
            asking(interval=60, until=NOW + MINUTE),
            asking(interval=60, immediate=True, until=NOW),
            asking(interval=60, first_run=PAST, until=NOW),
            asking(interval="P1D", first_run=EARLIEST, location="Asia/Tokyo"),
        ):
            plan(request, NOW)

    def test_bad_input(self) -> None:
        """Whatever is wrong with a parameter, its reader or the plan refuses it in a sentence."""
        for query in (
            *("interval=", "interval=x", "interval=-1", "interval=1,5", "interval=P0D"),
            *("interval=-P1D", "interval=P-1D", "interval=P1M2W", "interval=PT", "interval=P1"),
            *("interval=P8000Y", "interval=P99999999999Y", "interval=PT4294967296S"),
            *(
                "interval=4294967296",
                f"interval={'9' * 300}",
                "interval=P1D&immediate=1&first-run=x",
            ),
            *("cron=", "cron=x", "cron=0 0 30 2 *", "cron=0 0 31 4 *", "cron=* * * *"),
            *("cron=0 9 * * *&interval=60", f"cron={'9 ' * 200}", "cron=60 * * * *"),
            *("interval=60&location=Mars/Phobos", "interval=60&location=", "cron=@reboot"),
            *("interval=60&count=0", "interval=60&count=-1", "interval=60&count=1.0"),
            *("interval=60&count=99999999999", "interval=60&until=tomorrow"),
            "interval=60&first-run=2030-01-02T00:00:00Z&until=2030-01-01T00:00:00Z",
            *("interval=60&until=2000-01-01T00:00:00Z", "interval=60&until="),
            *(
                "interval=60&max-lateness=-1",
                "interval=60&max-lateness=P1M",
                "interval=60&catch-up=2",
            ),
            *("interval=60&max-lateness=", "interval=60&max-lateness=99999999999999999999"),
            *(
                "interval=60&dst-gap=skip",
                "cron=0 9 * * *&dst-gap=x",
                "cron=0 9 * * *&dst-overlap=",
            ),
            *("interval=60&on-failure=never", "interval=60&interval=60", "interval=60&jitter=0"),
        ):
            error = self.assertRaises(InvalidRequest, self._ask, query)
            self.assertLess(len(str(error)), 300)
            self.assertNotIn("\n", str(error))

    def _ask(self, query: str) -> Plan:
        return plan(schedule_request(query.replace(" ", "+").encode(), None, b""), NOW)

    @given(
        st.sampled_from(
            [None, "0", "1", "60", "PT0.5S", str(MAX_INTERVAL), "P1D", "P1M", "P8000Y"]
        ),
        st.sampled_from([None, "* * * * *", "0 0 29 2 *", "30 2 * MAR SUN#2"]),
        st.sampled_from([None, EARLIEST + SECOND, PAST, NOW, THEN, LAST, END_OF_TIME]),
        st.sampled_from([None, EARLIEST, PAST, THEN, LAST, END_OF_TIME]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([None, "Asia/Tokyo", "America/Los_Angeles"]),
        st.sampled_from([None, *Gap]),
        st.sampled_from([EARLIEST + DAY, NOW, LAST, END_OF_TIME]),
    )
    @thorough(500)
    def test_all_combinations(
        self,
        interval: str | None,
        cron: str | None,
        first_run: datetime | None,
        until: datetime | None,
        one_off: bool,
        immediate: bool,
        location: str | None,
        gap: Gap | None,
        now: datetime,
    ) -> None:
        """A request has a first run, and times that go on from there, or is refused."""
        request = ScheduleRequest(
            interval=None
            if interval is None
            else Duration()
            if interval == "0"
            else duration_from_text(interval),
            cron=cron,
            location=location,
            first_run=first_run,
            one_off=one_off,
            immediate=immediate,
            until=until,
            dst_gap=gap,
        )
        try:
            planned = plan(request, now)
        except InvalidRequest:
            return
        self.assertEqual(isinstance(planned.schedule, Once), one_off)
        self.assertTrue(until is None or planned.first <= until)
        self.assertTrue(planned.first >= now or planned.first == first_run)
        times = [time.at for time in islice(planned.times(planned.first - SECOND, now), 5)]
        self.assertEqual(times[0], planned.first)
        self.assertEqual(times, sorted(set(times)))


class TimesTests(SynchronousTestCase):
    """The run times to come of a plan, and of a job."""

    def times(
        self, request: ScheduleRequest, after: datetime, now: datetime = NOW, most: int = 4
    ) -> list[str]:
        times = islice(plan(request, now).times(after, now), most)
        return [f"{time.at:%m-%d %H:%M}{' ' + time.dst if time.dst else ''}" for time in times]

    def test_examples(self) -> None:
        """The first run and those after it, until the end that was asked for."""
        before = NOW - SECOND
        now = utc("2026-01-31T09:00")
        for parameters, after, expected in (
            ({"interval": 3600}, now, "01-31 10:00, 01-31 11:00, 01-31 12:00, 01-31 13:00"),
            ({"interval": "P1M", "immediate": True}, before, "01-31, 02-28, 03-31, 04-30"),
            ({"interval": "P1M"}, now + 40 * DAY, "03-31, 04-30, 05-31, 06-30"),
            ({"interval": "P1M", "first_run": now + DAY}, now, "02-01, 03-01, 04-01, 05-01"),
            ({"interval": "P1M", "until": utc("2026-03-31T09:00")}, now, "02-28, 03-31"),
            ({"interval": "P1M", "until": utc("2026-03-31T08:59")}, now, "02-28"),
            ({"interval": "P1M", "until": utc("2026-03-31")}, now + 90 * DAY, ""),
            ({"interval": "P1M", "count": 3}, now, "02-28, 03-31, 04-30"),
            ({"interval": "P1M", "count": 3}, utc("2026-03-31T09:00"), "04-30"),
            ({"interval": "P1M", "count": 3}, utc("2026-04-30T09:00"), ""),
            ({"interval": "P1M", "count": 2, "immediate": True}, now - DAY, "01-31, 02-28"),
            ({"first_run": now + DAY, "one_off": True}, now, "02-01"),
            ({"first_run": now + DAY, "one_off": True}, now + DAY, ""),
            ({"one_off": True, "immediate": True}, now - DAY, "01-31"),
        ):
            found = ", ".join(self.times(asking(**parameters), after, now))
            self.assertEqual(found.replace(" 09:00", ""), expected, parameters)

    def test_clock_changes(self) -> None:
        """A run that a clock change moved or chose is marked, the first one too."""
        now = utc("2021-03-27T12:00")
        for parameters, expected in (
            ({"cron": "30 3 * * *"}, ["03-28 01:00 gap", "03-29 00:30"]),
            ({"cron": "30 3 * * *", "dst_gap": Gap.SKIP}, ["03-29 00:30", "03-30 00:30"]),
            (
                {"interval": "P1D", "first_run": utc("2021-03-27T01:30")},
                ["03-28 01:00 gap", "03-29 00:30"],
            ),
        ):
            found = self.times(asking(location="Europe/Riga", **parameters), now, now, 2)
            self.assertEqual(found, expected)

    def test_a_first_run_in_the_past(self) -> None:
        """It runs late and once; then come the regular times, and no count of those gone by."""
        count = {"interval": 60, "first_run": PAST, "count": 3}
        regular = ["11-11 22:11", "11-11 22:12"]
        self.assertEqual(self.times(asking(**count), NOW), regular)
        self.assertEqual(self.times(asking(**count), PAST - SECOND), ["01-01 00:00", *regular])

    def test_catch_up(self) -> None:
        """A late job's times are those that it will run at, by what it does about missed ones."""
        now = utc("2026-01-01T12:30")
        hourly = Job(
            RUN.key,
            Every(HOUR),
            Options(),
            anchor=now - 3.5 * HOUR,
            scheduled=now - 3.5 * HOUR,  # 09:00
            due=now - 3.5 * HOUR,
        )
        late, regular = "09:00", ["13:00", "14:00", "15:00"]
        for options, attempts, expected in (
            (Options(), 0, [late, *regular]),
            (Options(catch_up=CatchUp.SKIP), 0, regular),
            (Options(catch_up=CatchUp.SKIP), 1, [late, *regular]),
            (Options(catch_up=CatchUp.ALL), 0, [late, "10:00", "11:00", "12:00"]),
            (Options(max_lateness=HOUR), 0, ["12:00", *regular]),
            (Options(catch_up=CatchUp.ALL, max_lateness=2 * HOUR), 0, ["11:00", "12:00", "13:00"]),
            (Options(count=2), 0, [late, "13:00"]),
            (Options(count=2, catch_up=CatchUp.SKIP), 0, ["13:00", "14:00"]),
            (Options(count=2, catch_up=CatchUp.ALL), 0, [late, "10:00"]),
            (Options(until=now - 2 * HOUR), 0, [late]),
        ):
            job = replace(hourly, options=options, attempts=attempts)
            times = islice(times_of(job, now - 4 * HOUR, now), 9)
            found = [f"{time.at:%H:%M}" for time in times]
            self.assertEqual(found[: len(expected)], expected, options)
            # Of the times gone by only the pending one is run, whatever is asked for.
            since = [f"{time.at:%H:%M}" for time in islice(times_of(job, now - 2 * HOUR, now), 3)]
            self.assertEqual(since, [time for time in found if time > "10:30"][:3])
            # Those up to now are left out where only what is to come was asked for.
            to_come = [f"{time.at:%H:%M}" for time in islice(times_of(job, now, now), 3)]
            self.assertEqual(to_come, [time for time in found if time > "12:30"][:3])

    def test_asked_for_during_a_run(self) -> None:
        """The run that has to wait for one under way will be there, so it is one of the count's."""
        now = utc("2026-01-01T12:30")
        job = Job(
            RUN.key,
            Every(HOUR),
            Options(count=2, max_lateness=MINUTE),
            anchor=now - 10 * MINUTE,
            scheduled=now - 10 * MINUTE,
            due=now + 5 * SECOND,
            running=True,
            waited=True,
        )
        for waits, one in (
            (job, True),
            (replace(job, running=False, due=now - MINUTE), True),
            (replace(job, running=False, due=now - MINUTE - SECOND), False),
            (replace(job, running=False, waited=False, due=now), False),
        ):
            times = [f"{time.at:%H:%M}" for time in times_of(waits, now, now)]
            self.assertEqual(times, ["13:20"] if one else ["13:20", "14:20"], waits)

    def test_a_job(self) -> None:
        """A job has its pending run, and as many more as its count leaves it."""
        job = Job(
            RUN.key,
            Calendar(DAILY, RIGA),
            Options(count=5),
            anchor=utc("2021-03-26T01:30"),
            scheduled=utc("2021-03-28T01:00"),
            due=utc("2021-03-28T01:00"),
            successes=2,
        )
        now = utc("2021-03-27T12:00")
        self.assertEqual(
            list(times_of(job, now, now)),
            [
                Occurrence(utc("2021-03-28T01:00"), Dst.GAP),
                Occurrence(utc("2021-03-29T00:30")),
                Occurrence(utc("2021-03-30T00:30")),
            ],
        )
        self.assertEqual(list(times_of(replace(job, successes=5), now, now)), [])
        for over in (
            replace(job, disabled=True),
            replace(job, disabled=True, due=None),
            replace(job, failed=Failed.STOPPED, due=None),
        ):
            self.assertEqual(list(times_of(over, now, now)), [])

    def test_too_far_to_count(self) -> None:
        """P10: what takes too many steps to count is refused; without a count it is no work."""
        many = asking(cron="* * * * *", count=10**6)
        self.assertEqual(len(self.times(many, NOW + (MAX_COUNTED - 1) * MINUTE)), 4)
        too_far = NOW + MAX_COUNTED * MINUTE
        self.assertRaises(InvalidRequest, self.times, many, too_far)
        error = self.assertRaises(InvalidRequest, self.times, many, THEN)
        self.assertIn("runs up to 2030-01-01T00:00:00Z", str(error))
        self.assertEqual(len(self.times(asking(interval=60), THEN)), 4)
        # A count that is over before is no work either.
        self.assertEqual(self.times(asking(interval=60, count=10), THEN), [])

    def test_counted_without_walking(self) -> None:
        """What a count leaves of an interval of elapsed time is no work, as far ahead as may be."""
        every = asking(interval=60, first_run=NOW, count=10**6)
        last = NOW + (10**6 - 1) * MINUTE
        for past, left in ((0, 10**6 - 1), (999_996, 3), (999_998, 1), (999_999, 0), (10**7, 0)):
            after = NOW + past * MINUTE
            times = list(islice(plan(every, NOW).times(after, NOW), 4))
            self.assertEqual(len(times), min(left, 4), past)
            self.assertEqual(
                [time.at for time in times], [after + n * MINUTE for n in (1, 2, 3, 4)][:left]
            )
            self.assertTrue(all(time.at <= last for time in times))
        # Those that went by are made up for, or are one, which counts as one.
        begun = NOW - 10**6 * MINUTE
        for rule, left in ((CatchUp.ALL, 999), (CatchUp.ONE, 10**6 + 999)):
            of_old = asking(interval=60, first_run=begun, count=10**6 + 1000, catch_up=rule)
            times = list(islice(plan(of_old, begun).times(NOW, NOW), 2000))
            self.assertEqual(len(times), min(left, 2000))

    def test_both_ends_of_time(self) -> None:
        """A first run at the beginning of time is no error, nor are times at its end."""
        once = asking(first_run=EARLIEST, one_off=True)
        self.assertEqual(list(plan(once, NOW).times(EARLIEST, NOW)), [])
        last = list(plan(asking(interval=60), LAST - 2.5 * MINUTE).times(NOW, LAST - 2.5 * MINUTE))
        self.assertEqual([time.at for time in last], [LAST - 1.5 * MINUTE, LAST - 0.5 * MINUTE])


class JudgeTests(SynchronousTestCase):
    """What becomes of a job after an attempt."""

    def judge(
        self,
        outcome: Outcome,
        run: Run = RUN,
        now: datetime = NOW,
        policy: RunPolicy = EXACT,
        random: Random | None = None,
    ) -> object:
        return judge(run, outcome, now, policy, random or Random(1))

    def test_done(self) -> None:
        """A 200 ends the run: a periodic job goes on from its scheduled time (no drift)."""
        self.assertEqual(self.judge(OK), Reschedule(RUN.scheduled + MINUTE, RUN.anchor))
        self.assertEqual(self.judge(OK, replace(RUN, schedule=Once())), Delete())

    def test_calendar_and_cron(self) -> None:
        """They go on from the anchor, and by the clock on the wall."""
        anchor = utc("2021-01-31T01:30")
        for schedule, expected in (
            (Calendar(duration_from_text("P1M"), RIGA), "2021-03-31T00:30"),
            (Cron("30 3 L * *", RIGA), "2021-03-31T00:30"),
        ):
            run = replace(RUN, schedule=schedule, anchor=anchor, scheduled=utc("2021-02-28T01:30"))
            verdict = self.judge(OK, run, utc("2021-02-28T01:31"))
            self.assertEqual(verdict, Reschedule(utc(expected), anchor))

    def test_after_an_outage(self) -> None:
        """P9: however many runs were missed, the next is the next regular time."""
        week = NOW - timedelta(days=7, seconds=1)
        run = replace(RUN, anchor=week, scheduled=week)
        self.assertEqual(self.judge(OK, run), Reschedule(NOW + MINUTE - SECOND, week))
        for schedule, following in (
            (Calendar(DAILY), NOW + DAY - SECOND),
            (Cron("0 9 * * *"), utc("2014-11-12T09:00")),
        ):
            verdict = self.judge(OK, replace(run, schedule=schedule))
            self.assertEqual(verdict, Reschedule(following, week))

    def test_catch_up_all(self) -> None:
        """With catch-up=all it is the time after the one that was run, however long ago."""
        week = NOW - 7 * DAY
        run = replace(RUN, anchor=week, scheduled=week, options=Options(catch_up=CatchUp.ALL))
        for schedule, following in (
            (Every(SECOND), week + SECOND),
            (Calendar(DAILY), week + DAY),
            (Cron("0 9 * * *"), utc("2014-11-05T09:00")),
        ):
            verdict = self.judge(OK, replace(run, schedule=schedule))
            self.assertEqual(verdict, Reschedule(following, week))

    def test_a_clock_that_was_set_back(self) -> None:
        """P8: the next run is later than this one, whatever the database's clock shows by now."""
        self.assertEqual(self.judge(OK, now=PAST), Reschedule(RUN.scheduled + MINUTE, RUN.anchor))

    def test_until(self) -> None:
        """A job whose next run would be after until is over, and one at that time is not."""
        following = RUN.scheduled + MINUTE
        for until, expected in (
            (following, Reschedule(following, RUN.anchor)),
            (following - SECOND, Delete()),
            (PAST, Delete()),
        ):
            run = replace(RUN, options=Options(until=until))
            self.assertEqual(self.judge(OK, run), expected)
        for policy in (
            RunPolicy(fixed_intervals=False),
            RunPolicy(randomization_factor=0.1),
            RunPolicy(randomization_factor=0.1, fixed_intervals=False),
        ):
            run = replace(RUN, options=Options(until=NOW + MINUTE / 2))
            self.assertEqual(self.judge(OK, run, policy=policy), Delete())

    def test_count(self) -> None:
        """After so many successful runs the job is over; those that fail do not count."""
        last = replace(RUN, options=Options(count=3), successes=2)
        self.assertEqual(self.judge(OK, last), Delete())
        following = Reschedule(RUN.scheduled + MINUTE, RUN.anchor)
        self.assertEqual(self.judge(OK, replace(last, successes=1)), following)
        self.assertIsInstance(self.judge(FAILURE, last), Retry)
        policy = RunPolicy(RetryPolicy(jitter=0, stop_after=timedelta()))
        given_up = replace(following, error=ERROR)
        self.assertEqual(self.judge(FAILURE, last, policy=policy), given_up)

    def test_what_can_never_fire_again(self) -> None:
        """A periodic job that has no time any more is removed after its run, without an error."""
        never = Zone("America/Los_Angeles", gap=Gap.SKIP)
        for schedule, now in (
            (Every(MINUTE), LAST),
            (Calendar(DAILY), LAST),
            (Calendar(DAILY, Zone("Asia/Tokyo")), LAST),
            (Calendar(DAILY, Zone("America/Lima")), LAST),
            (Calendar(duration_from_text("P8000Y")), NOW),
            (Cron("0 9 * * *"), LAST),
            (Cron("0 9 * * *", Zone("Asia/Tokyo")), LAST),
            (Cron("30 2 * MAR SUN#2", never), NOW),
        ):
            run = replace(RUN, schedule=schedule, anchor=now, scheduled=now, claimed=now)
            self.assertEqual(self.judge(OK, run, now), Delete(), schedule)
            # But a last run that is given up is kept, to be seen.
            given_up = RunPolicy(RetryPolicy(stop_after=timedelta()))
            self.assertEqual(self.judge(FAILURE, run, now, given_up), Stop(ERROR))
            late = replace(run, options=Options(max_lateness=timedelta()), claimed=now + SECOND / 2)
            self.assertEqual(missed(late), Delete())

    def test_gone(self) -> None:
        """A 204 deletes the job, periodic or not."""
        gone = Outcome(204, 0.1, retry_after=MINUTE)
        for schedule in (Every(MINUTE), Calendar(DAILY), Cron("0 9 * * *"), Once()):
            self.assertEqual(self.judge(gone, replace(RUN, schedule=schedule)), Delete())

    def test_failed(self) -> None:
        """P2: any other answer, or none, is tried again, with the reason kept."""
        retry = NOW + timedelta(seconds=0.5)
        for status, reason in (
            (201, "201 Created"),
            (202, "202 Accepted"),
            (206, "206 Partial Content"),
            (301, "301 Moved Permanently"),
            (303, "303 See Other"),
            (400, "400 Bad Request"),
            (404, "404 Not Found"),
            (410, "410 Gone"),
            (500, "500 Internal Server Error"),
            (799, "799"),
        ):
            self.assertEqual(self.judge(Outcome(status, 0.1)), Retry(retry, reason))
        lost = Outcome(None, 10.0, "no answer within 10 seconds")
        self.assertEqual(self.judge(lost), Retry(retry, "no answer within 10 seconds"))
        once = replace(RUN, schedule=Once())
        self.assertEqual(self.judge(lost, once), Retry(retry, "no answer within 10 seconds"))

    def test_backoff(self) -> None:
        """The delay grows with the attempt's number, which the table keeps."""
        for attempt, delay in ((1, 0.5), (3, 1.125), (10**6, 60)):
            verdict = self.judge(FAILURE, replace(RUN, attempt=attempt))
            self.assertEqual(verdict, Retry(NOW + timedelta(seconds=delay), ERROR))

    def test_retry_after(self) -> None:
        """P8: Retry-After, a delay or a date by the database's clock, holds up to a minute."""
        for asked, delay in (
            (timedelta(seconds=7), 7),
            (timedelta(days=999999), 60),
            (NOW + timedelta(seconds=9), 9),
            (LAST, 60),
            (PAST, 0.5),
            (EARLIEST, 0.5),
        ):
            run = replace(RUN, claimed=PAST)
            verdict = self.judge(Outcome(503, 0.1, retry_after=asked), run)
            assert isinstance(verdict, Retry)
            self.assertEqual(verdict.due, NOW + timedelta(seconds=delay), asked)

    def test_given_up(self) -> None:
        """A run that failed for too long is given up: its job goes on, or stops, but is kept."""
        policy = RunPolicy(RetryPolicy(jitter=0, stop_after=HOUR))
        stop = Options(on_failure=OnFailure.STOP)
        old = replace(RUN, started=NOW - HOUR, attempt=99)
        following = Reschedule(RUN.scheduled + MINUTE, RUN.anchor, ERROR)
        for run, expected in (
            (replace(old, started=NOW - HOUR + MINUTE), Retry(NOW + MINUTE, ERROR)),
            (old, following),
            (replace(old, options=stop), Stop(ERROR)),
            (replace(old, schedule=Once()), Stop(ERROR)),
            (replace(old, options=Options(until=NOW)), Stop(ERROR)),
            (replace(old, options=Options(count=9), successes=8), following),
        ):
            self.assertEqual(self.judge(FAILURE, run, policy=policy), expected)
        # It is not put off until a time at which it would be given up.
        asked = Outcome(503, 0.1, retry_after=MINUTE)
        soon = replace(RUN, started=NOW - HOUR + MINUTE / 2)
        self.assertIsInstance(self.judge(FAILURE, soon, policy=policy), Retry)
        self.assertIsInstance(self.judge(asked, soon, policy=policy), Reschedule)

    def test_a_retry_at_the_end_of_time(self) -> None:
        """P5: a retry that would be past the year 9999 is due now, rather than an error."""
        self.assertEqual(self.judge(FAILURE, now=END_OF_TIME), Retry(END_OF_TIME, ERROR))

    def test_intervals_from_the_end(self) -> None:
        """With fixedIntervals = false an interval is counted from the end of the run before."""
        policy = RunPolicy(fixed_intervals=False)
        end = NOW + timedelta(seconds=7.25)
        for schedule, following, anchor in (
            (Every(MINUTE), end + MINUTE, end),
            (Calendar(DAILY), end + DAY, end),
            # A time of the day is a time of the day.
            (Cron("0 9 * * *"), utc("2014-11-12T09:00"), RUN.anchor),
        ):
            run = replace(RUN, schedule=schedule)
            self.assertEqual(self.judge(OK, run, end, policy), Reschedule(following, anchor))
        self.assertEqual(self.judge(OK, replace(RUN, schedule=Once()), end, policy), Delete())

    def test_one_run_more(self) -> None:
        """
        After a run that was asked for between two times of a calendar or of cron, the next is the
        one that it would have been without; and none comes before first-run.
        """
        asked = utc("2026-03-05T14:37")
        end = asked + SECOND
        monthly = Calendar(duration_from_text("P1M"))
        last_of_month = utc("2026-01-31T09:00")
        first_run = utc("2026-05-31T09:00")
        for schedule, options, anchor, fixed, following in (
            (monthly, Options(), last_of_month, True, "2026-03-31T09:00"),
            (Calendar(DAILY), Options(), last_of_month, True, "2026-03-06T09:00"),
            (Cron("0 9 * * *"), Options(), last_of_month, True, "2026-03-06T09:00"),
            (monthly, Options(first_run=first_run), first_run, True, "2026-05-31T09:00"),
            (monthly, Options(first_run=first_run), first_run, False, "2026-05-31T09:00"),
            (Cron("0 9 * * *"), Options(first_run=first_run), first_run, True, "2026-05-31T09:00"),
            (Cron("0 8 * * *"), Options(first_run=first_run), first_run, True, "2026-06-01T08:00"),
            (monthly, Options(first_run=last_of_month), last_of_month, True, "2026-03-31T09:00"),
        ):
            run = replace(
                RUN,
                schedule=schedule,
                options=options,
                anchor=anchor,
                scheduled=asked,
                claimed=asked,
            )
            policy = RunPolicy(fixed_intervals=fixed)
            expected = Reschedule(utc(following), anchor)
            self.assertEqual(self.judge(OK, run, end, policy), expected, schedule)
            job = Job(KEY, schedule, options, anchor, scheduled=asked, due=asked)
            times = [time.at for time in islice(times_of(job, EARLIEST, asked), 2)]
            self.assertEqual(times, [asked, utc(following)], schedule)
        # From the end of a run, and the month of it, without fixedIntervals.
        run = replace(run, options=Options())
        policy = RunPolicy(fixed_intervals=False)
        self.assertEqual(
            self.judge(OK, run, end, policy), Reschedule(utc("2026-04-05T14:37") + SECOND, end)
        )

    def test_randomization_factor(self) -> None:
        """With a factor f the next run is this one's start plus 1-f to 1+f times the interval."""
        for fixed, end in ((True, 0), (False, 60)):
            random, delays = Random(1), []
            policy = RunPolicy(randomization_factor=0.25, fixed_intervals=fixed)
            for _ in range(500):
                # The scheduled time plays no part, nor does the end where intervals are fixed.
                run = replace(RUN, scheduled=PAST, anchor=PAST)
                verdict = self.judge(OK, run, NOW + MINUTE, policy, random)
                assert isinstance(verdict, Reschedule)
                self.assertEqual(verdict.anchor, verdict.scheduled)
                delays.append((verdict.scheduled - run.claimed).total_seconds() - end)
            self.assertTrue(45 <= min(delays) < 46 and 74 < max(delays) <= 75, fixed)

    def test_randomization_factor_and_the_rest(self) -> None:
        """It is for elapsed time: not for calendars, cron or once; the year 9999 is the end."""
        policy = RunPolicy(randomization_factor=1.0)
        for schedule in (Calendar(DAILY), Cron("0 9 * * *"), Once()):
            run = replace(RUN, schedule=schedule)
            self.assertEqual(self.judge(OK, run, policy=policy), self.judge(OK, run))
        last = replace(RUN, claimed=LAST, schedule=Every(timedelta(days=366)))
        self.assertEqual(self.judge(OK, last, LAST, policy), Delete())


class JitterTests(SynchronousTestCase):
    """Each run of a job comes later than its schedule's time by the same part of its jitter."""

    #: Its SHA-256 begins with 0.5777 of all there are.
    KEY = JobKey("report", "2")
    OFFSET = timedelta(seconds=2079, microseconds=746273)

    def plan(self, now: datetime = NOW, variation: float = 1.0, **parameters: object) -> Plan:
        return plan(asking(jitter=HOUR, **parameters), now, variation, self.KEY)

    def times(self, planned: Plan, after: datetime = EARLIEST) -> list[datetime]:
        return [time.at for time in islice(planned.times(after, NOW), 3)]

    def test_offset(self) -> None:
        """It is known from the key: on each machine, in each release, whatever else the job has."""
        for path, body, minutes in (
            ("report", "1", 5.0232),
            ("report", "2", 34.6624),
            ("report", "3", 51.6297),
            ("check_feed", "1234", 43.6379),
            ("ü", "🐰", 37.4693),
        ):
            offset = offset_of(JobKey(path, body), Options(jitter=HOUR))
            self.assertAlmostEqual(offset / MINUTE, minutes, 4)
        self.assertEqual(offset_of(self.KEY, Options(jitter=HOUR)), self.OFFSET)
        self.assertEqual(offset_of(self.KEY, Options()), timedelta())
        apart = {
            offset_of(JobKey(*key), Options(jitter=HOUR)) for key in (("a", "bc"), ("ab", "c"))
        }
        self.assertEqual(len(apart), 2)

    def test_ten_thousand_jobs(self) -> None:
        """Those of each full hour are spread over it: in no minute there are many more than 167."""
        minutes = Counter(
            offset_of(JobKey("report", str(number)), Options(jitter=HOUR)) // MINUTE
            for number in range(10_000)
        )
        self.assertEqual(sorted(minutes), list(range(60)))
        self.assertGreater(min(minutes.values()), 120)
        self.assertLess(max(minutes.values()), 220)

    def test_each_kind(self) -> None:
        """The first run and those after it; what is asked for at once comes at once."""
        o, hour = self.OFFSET, utc("2014-11-11T23:00")
        first_run = utc("2014-11-30T09:00")
        for parameters, anchor, expected in (
            ({"cron": "0 * * * *"}, NOW, [hour - HOUR + o, hour + o, hour + HOUR + o]),
            ({"cron": "0 * * * *", "immediate": True}, NOW, [NOW, hour - HOUR + o, hour + o]),
            (
                {"cron": "0 0 * * *", "first_run": first_run},
                first_run,
                [utc("2014-12-01T00:00") + n * DAY + o for n in range(3)],
            ),
            (
                # No time that is before first-run, though its run would come after it.
                {"cron": "0 * * * *", "first_run": first_run + MINUTE},
                first_run + MINUTE,
                [first_run + n * HOUR + o for n in (1, 2, 3)],
            ),
            ({"interval": 60}, NOW, [NOW + n * MINUTE + o for n in (1, 2, 3)]),
            (
                {"interval": 7200, "immediate": True},
                NOW,
                [NOW, NOW + 2 * HOUR + o, NOW + 4 * HOUR + o],
            ),
            (
                {"interval": "P1M", "first_run": utc("2014-12-31T09:00")},
                utc("2014-12-31T09:00"),
                [
                    utc(text) + o
                    for text in ("2014-12-31T09:00", "2015-01-31T09:00", "2015-02-28T09:00")
                ],
            ),
            ({"one_off": True, "first_run": first_run}, first_run, [first_run + o]),
            ({"one_off": True, "interval": 60}, NOW, [NOW + MINUTE + o]),
        ):
            planned = self.plan(**parameters)
            self.assertEqual(self.times(planned), expected, parameters)
            self.assertEqual((planned.anchor, planned.first), (anchor, expected[0]), parameters)
            for n, time in enumerate(expected[:-1], 1):
                self.assertEqual(self.times(planned, time)[: 3 - n], expected[n:], parameters)

    def test_put_again(self) -> None:
        """A PUT between a time of cron and its run does not lose that run."""
        nine = utc("2014-11-12T09:00")
        for now in (nine, nine + MINUTE, nine + self.OFFSET - SECOND):
            self.assertEqual(self.plan(now, cron="0 9 * * *").first, nine + self.OFFSET)
        self.assertEqual(
            self.plan(nine + self.OFFSET, cron="0 9 * * *").first, nine + DAY + self.OFFSET
        )

    def test_clock_changes(self) -> None:
        """They are over before it is added: it is elapsed time, and the run stays marked."""
        now = utc("2021-03-27T12:00")
        planned = self.plan(now, cron="30 3 * * *", location="Europe/Riga")
        self.assertEqual(
            list(islice(planned.times(now, now), 2)),
            [
                Occurrence(utc("2021-03-28T01:00") + self.OFFSET, Dst.GAP),
                Occurrence(utc("2021-03-29T00:30") + self.OFFSET),
            ],
        )

    def test_until_and_count(self) -> None:
        """until is for the runs as they come; count is of runs."""
        first = NOW + MINUTE + self.OFFSET
        self.assertEqual(self.times(self.plan(interval=60, until=first)), [first])
        self.assertRaises(InvalidRequest, self.plan, interval=60, until=first - SECOND)
        self.assertEqual(len(self.times(self.plan(interval=60, count=2))), 2)
        end = asking(one_off=True, first_run=LAST, jitter=HOUR)
        error = self.assertRaises(InvalidRequest, plan, end, NOW, 1.0, self.KEY)
        self.assertIn("past the year 9999", str(error))

    def test_the_ends_of_time(self) -> None:
        """From the year 1 on, and no longer than up to the year 9999, with the offset."""
        grid = Grid(Every(HOUR), Options(), NOW, self.OFFSET)
        self.assertEqual(grid.next_after(EARLIEST), grid.next_after(PAST))
        end = Grid(Every(HOUR), Options(), LAST - 2 * HOUR, self.OFFSET)
        last = LAST - HOUR + self.OFFSET
        self.assertEqual(end.next_after(LAST - HOUR), Occurrence(last))
        self.assertIsNone(end.next_after(last))

    def test_ahead_of_first_run(self) -> None:
        """A run that was asked for ahead of it: elapsed time is counted from that run."""
        begin = NOW + 5 * HOUR
        for schedule, expected in (
            (Every(HOUR), NOW + HOUR),
            (Calendar(DAILY), begin),
            (Cron("40 * * * *"), utc("2014-11-12T03:40")),
        ):
            found = Grid(schedule, Options(first_run=begin), NOW).next_after(NOW)
            self.assertEqual(found, Occurrence(expected))

    def run_of(self, planned: Plan, **changes: object) -> Run:
        """The first run of a plan, claimed at its time."""
        run = replace(
            RUN,
            key=self.KEY,
            schedule=planned.schedule,
            options=planned.options,
            anchor=planned.anchor,
            scheduled=planned.first,
            due=planned.first,
            claimed=planned.first,
        )
        return replace(run, **changes)  # type: ignore[arg-type]

    def judged(self, run: Run, policy: RunPolicy = EXACT) -> Reschedule:
        verdict = judge(run, OK, run.claimed + SECOND, policy, Random(1))
        assert isinstance(verdict, Reschedule)
        return verdict

    def test_the_next_run(self) -> None:
        """A run is followed by the one of the next time, however late it was."""
        hourly = self.plan(cron="0 * * * *")
        self.assertEqual(self.judged(self.run_of(hourly)).scheduled, hourly.first + HOUR)
        late = self.run_of(hourly, claimed=hourly.first + 3.5 * HOUR)
        self.assertEqual(self.judged(late).scheduled, hourly.first + 4 * HOUR)
        every = self.plan(interval=60, catch_up=CatchUp.ALL)
        late = self.run_of(every, claimed=every.first + HOUR)
        self.assertEqual(self.judged(late), Reschedule(every.first + MINUTE, every.anchor))

    def test_missed(self) -> None:
        """A run is late by what is later than its own time, not its schedule's."""
        hourly = self.plan(cron="0 * * * *", max_lateness=MINUTE)
        self.assertIsNone(missed(self.run_of(hourly, claimed=hourly.first + MINUTE)))
        late = self.run_of(hourly, claimed=hourly.first + MINUTE + SECOND)
        self.assertEqual(missed(late), Skip(hourly.first + HOUR))

    def test_intervals_from_the_end(self) -> None:
        """
        Without fixedIntervals the offset is added once, before the first run that was not asked
        for, and is not added to each interval.
        """
        policy = RunPolicy(fixed_intervals=False)
        for parameters in (
            {"interval": 60},
            {"interval": 60, "immediate": True},
            {"interval": "P1D"},
        ):
            planned = self.plan(**parameters)
            step = DAY if parameters["interval"] == "P1D" else MINUTE
            run = self.run_of(planned)
            waits = []
            for _ in range(3):
                verdict = self.judged(run, policy)
                waits.append(verdict.scheduled - run.claimed - SECOND)
                run = replace(
                    run,
                    scheduled=verdict.scheduled,
                    anchor=verdict.anchor,
                    claimed=verdict.scheduled,
                )
                job = Job(
                    self.KEY, run.schedule, run.options, run.anchor, run.scheduled, run.scheduled
                )
                times = [time.at for time in islice(times_of(job, EARLIEST, NOW), 3)]
                self.assertEqual(times, [run.scheduled + n * step for n in range(3)])
            asked = self.OFFSET if "immediate" in parameters else timedelta()
            self.assertEqual(waits, [step + asked, step, step], parameters)

    def test_varied_intervals(self) -> None:
        """With randomizationFactor, too; the list of run times goes on from what was drawn."""
        planned = self.plan(interval=60, variation=1.25)
        self.assertEqual(planned.first, NOW + 1.25 * MINUTE + self.OFFSET)
        run = self.run_of(planned)
        verdict = self.judged(run, RunPolicy(randomization_factor=0.25))
        self.assertLessEqual(abs(verdict.scheduled - run.claimed - MINUTE), MINUTE / 4)
        for scheduled, anchor in (
            (planned.first, planned.anchor),
            (verdict.scheduled, verdict.anchor),
        ):
            job = Job(self.KEY, run.schedule, run.options, anchor, scheduled, scheduled)
            times = [time.at for time in islice(times_of(job, EARLIEST, NOW), 3)]
            self.assertEqual(times, [scheduled + n * MINUTE for n in range(3)])

    @given(
        st.sampled_from(
            [
                *(Every(MINUTE), Every(timedelta(seconds=1.5)), Calendar(DAILY, RIGA)),
                *(
                    Calendar(duration_from_text("P1M")),
                    Cron("0 * * * *"),
                    Cron("*/7 * * * *", RIGA),
                ),
                Cron("30 3 * * *", replace(RIGA, overlap=Overlap.BOTH)),
            ]
        ),
        st.timedeltas(timedelta(milliseconds=1), 40 * DAY),
        st.text(max_size=5),
        st.datetimes(datetime(2021, 3, 20), datetime(2021, 11, 10), timezones=st.just(UTC)),
    )
    @thorough(300)
    def test_one_for_each(
        self, schedule: Schedule, jitter: timedelta, body: str, after: datetime
    ) -> None:
        """
        Whatever the jitter, each time of the schedule has one run, which comes later by less than
        the jitter, in the same order.
        """
        options = Options(jitter=jitter)
        offset = offset_of(JobKey("a", body), options)
        self.assertTrue(timedelta() <= offset < jitter)
        anchor = utc("2021-03-01T00:00")
        own, moved = Grid(schedule, options, anchor), Grid(schedule, options, anchor, offset)
        time = after
        regular = after - offset
        for _ in range(5):
            following, found = own.next_after(regular), moved.next_after(time)
            assert following is not None and found is not None
            self.assertEqual(found, Occurrence(following.at + offset, following.dst))
            self.assertGreater(found.at, time)
            # The one before it, if asked again.
            self.assertEqual(moved.next_after(found.at - SECOND / 1_000_000), found)
            regular, time = following.at, found.at


class ExistsTests(SynchronousTestCase):
    """PUTs with if-exists=update on a job that is there."""

    def job(self, request: ScheduleRequest, **state: object) -> Job:
        """What a PUT of long ago has left."""
        planned = plan(request, PAST, key=KEY)
        job = Job(
            KEY, planned.schedule, planned.options, planned.anchor, planned.first, planned.first
        )
        return replace(job, **state)  # type: ignore[arg-type]

    def test_the_same(self) -> None:
        """A schedule is the same however it is written, and whenever it was asked for."""
        for old, new in (
            (asking(interval=60), asking(interval="PT60S")),
            (asking(interval=60), asking(interval="1m", immediate=True)),
            (asking(interval=60), asking(interval=60, location="Asia/Tokyo", count=3)),
            (asking(interval="P7D"), asking(interval="P1W")),
            (asking(interval="P12M"), asking(interval="p1y")),
            (asking(interval="P1M", first_run=THEN), asking(interval="P1M", first_run=THEN)),
            (asking(cron="0 9 * * MON"), asking(cron="0 9 * * mon", max_lateness=MINUTE)),
            (asking(cron="0 9 * * *", jitter=HOUR), asking(cron="0 9 * * *", jitter=HOUR)),
            (asking(one_off=True, interval=60), asking(one_off=True, interval="PT1M")),
            (
                asking(one_off=True, interval=60),
                asking(one_off=True, interval=60, location="Asia/Tokyo"),
            ),
            (asking(one_off=True, interval="P1W"), asking(one_off=True, interval="P7D")),
            (
                asking(one_off=True, first_run=THEN),
                asking(one_off=True, first_run=THEN, location="Asia/Tokyo"),
            ),
            (asking(one_off=True, immediate=True), asking(one_off=True, interval=0)),
        ):
            # A run that was asked for, or that intervals are counted from, is no other schedule.
            job = self.job(old, anchor=NOW - MINUTE, scheduled=NOW + SECOND)
            terms = amended(job, new, NOW)
            assert terms is not None, new
            self.assertEqual((terms.anchor, terms.first), (job.anchor, job.scheduled), new)
            self.assertEqual(terms.options.count, new.count)

    def test_another(self) -> None:
        """It is another by its times, its place, its rules, and by what it was to begin with."""
        for old, new in (
            (asking(interval=60), asking(interval=61)),
            (asking(interval=86400), asking(interval="P1D")),
            (asking(interval="P1M"), asking(interval="P30D")),
            (asking(interval="P1D"), asking(interval="P1D", location="Asia/Tokyo")),
            (asking(interval="P1D"), asking(interval="P1D", dst_gap=Gap.SKIP)),
            (asking(cron="0 9 * * *"), asking(cron="0 10 * * *")),
            (asking(cron="0 9 * * *"), asking(cron="0 9 * * *", location="Asia/Tokyo")),
            (asking(cron="0 9 * * *"), asking(cron="0 9 * * *", dst_overlap=Overlap.LAST)),
            (asking(cron="0 9 * * *"), asking(cron="0 9 * * *", jitter=HOUR)),
            (asking(cron="0 9 * * *", jitter=HOUR), asking(cron="0 9 * * *", jitter=MINUTE)),
            (asking(interval=60), asking(interval=60, first_run=THEN)),
            (asking(interval=60, first_run=THEN), asking(interval=60)),
            (asking(interval=60, first_run=THEN), asking(interval=60, first_run=THEN + SECOND)),
            (asking(interval=60), asking(one_off=True, interval=60)),
            (asking(interval="P1D"), asking(one_off=True, interval="P1D")),
            (asking(one_off=True, interval="P1D"), asking(interval="P1D")),
            (
                asking(one_off=True, interval="P1D"),
                asking(one_off=True, interval="P1D", location="Asia/Tokyo"),
            ),
            (asking(one_off=True, interval=60), asking(one_off=True, interval=61)),
            (asking(one_off=True, interval=60), asking(one_off=True, immediate=True)),
            (asking(one_off=True, first_run=THEN), asking(one_off=True, immediate=True)),
        ):
            self.assertIsNone(amended(self.job(old), new, NOW), (old, new))

    def test_refused(self) -> None:
        """What contradicts itself is refused, and an end that is before the job's next run."""
        job = self.job(asking(interval=60), scheduled=NOW + SECOND)
        for request in (
            asking(interval=0),
            asking(interval=60, until=NOW),
            asking(interval=60, until=PAST),
        ):
            self.assertRaises(InvalidRequest, amended, job, request, NOW)
        until = asking(interval=60, until=NOW + SECOND)
        self.assertRaises(InvalidRequest, plan, until, NOW)
        self.assertIsNotNone(amended(job, until, NOW))

    def test_as_many_as_count_says(self) -> None:
        """That is refused, unless a run is under way: it is not cut off."""
        request = asking(interval=60, count=2)
        for successes, state, refused in (
            (1, {}, False),
            (2, {}, True),
            (3, {}, True),
            (2, {"running": True}, False),  # it was triggered during that run
            (2, {"attempts": 1}, False),
            (2, {"running": True, "attempts": 1}, False),
        ):
            job = self.job(asking(interval=60), successes=successes, **state)  # type: ignore[arg-type]
            if refused:
                self.assertRaises(InvalidRequest, amended, job, request, NOW)
            else:
                self.assertIsNotNone(amended(job, request, NOW))

    def test_a_verdict_by_another_catch_up(self) -> None:
        """Runs that were missed are made up where the new options say so."""
        late = replace(RUN, claimed=NOW)
        made_up = Options(catch_up=CatchUp.ALL)
        now = NOW + 10 * MINUTE
        first = RUN.scheduled + MINUTE
        self.assertLess(first, now - MINUTE)
        self.assertEqual(revised(late, Delete(), made_up, now), Reschedule(first, RUN.anchor))
        all_of_them = replace(late, options=made_up)
        verdict = revised(all_of_them, Delete(), Options(), now)
        assert isinstance(verdict, Reschedule)
        self.assertGreater(verdict.scheduled, now)

    def test_a_verdict_by_other_options(self) -> None:
        """The end of a run goes by the options that hold by then."""
        later, error = NOW + MINUTE - SECOND, ERROR
        goes_on = Reschedule(later, RUN.anchor)
        given_up = Reschedule(later, RUN.anchor, error)
        stop = OnFailure.STOP
        for verdict, options, expected in (
            (Delete(), Options(count=2), goes_on),
            (Delete(), Options(), goes_on),
            (Delete(), Options(count=1), Delete()),
            (Delete(), Options(until=later), goes_on),
            (Delete(), Options(until=later - SECOND), Delete()),
            (goes_on, Options(count=2), goes_on),
            (goes_on, Options(count=1), Delete()),
            (goes_on, Options(until=later), goes_on),
            (goes_on, Options(until=later - SECOND), Delete()),
            (given_up, Options(count=1), given_up),
            (given_up, Options(on_failure=stop), Stop(error)),
            (given_up, Options(until=later - SECOND), Stop(error)),
            (Stop(error), Options(on_failure=stop), Stop(error)),
            (Stop(error), Options(), given_up),
            (Stop(error), Options(until=later - SECOND), Stop(error)),
            (Skip(later), Options(until=later), Skip(later)),
            (Skip(later), Options(until=later - SECOND), Delete()),
            (
                Retry(later, error),
                Options(count=1, until=NOW, on_failure=stop),
                Retry(later, error),
            ),
            (GiveBack(), Options(count=1, until=NOW), GiveBack()),
        ):
            self.assertEqual(revised(RUN, verdict, options, NOW), expected, (verdict, options))
        once = replace(RUN, schedule=Once())
        self.assertEqual(revised(once, Delete(), Options(max_lateness=HOUR), NOW), Delete())
        # It was too late, and would have been the last.
        late = replace(RUN, options=Options(max_lateness=SECOND / 2, until=NOW))
        self.assertEqual(revised(late, Delete(), Options(), NOW), Skip(later))


class MissedTests(SynchronousTestCase):
    """Runs that are claimed too late to begin."""

    def missed(
        self, late: timedelta, schedule: Schedule = RUN.schedule, **options: object
    ) -> object:
        """What becomes of a run that is so late."""
        scheduled = NOW - late
        return missed(
            replace(
                RUN,
                schedule=schedule,
                anchor=scheduled,
                scheduled=scheduled,
                options=Options(**options),  # type: ignore[arg-type]
            )
        )

    def test_in_time(self) -> None:
        """However late, a run is posted, unless something else was asked for."""
        self.assertIsNone(self.missed(-HOUR))
        self.assertIsNone(self.missed(900 * DAY))
        self.assertIsNone(self.missed(900 * DAY, catch_up=CatchUp.ALL))
        self.assertIsNone(self.missed(HOUR, max_lateness=HOUR))
        self.assertIsNone(self.missed(MINUTE, catch_up=CatchUp.SKIP))

    def test_too_late(self) -> None:
        """Past max-lateness it is skipped: the next is the first that is not too late itself."""
        tiny = timedelta(microseconds=1)
        for late, options, expected in (
            # Of runs each minute: the last is no more than so late.
            (HOUR + tiny, {"max_lateness": HOUR}, NOW - HOUR + MINUTE - tiny),
            (3 * HOUR, {"max_lateness": HOUR}, NOW - HOUR),
            (3 * HOUR - 15 * SECOND, {"max_lateness": 30 * SECOND}, NOW + 15 * SECOND),
            (tiny, {"max_lateness": timedelta()}, NOW + MINUTE - tiny),
            # catch-up=skip lets a run begin a minute late.
            (MINUTE + tiny, {"catch_up": CatchUp.SKIP}, NOW - tiny),
            (HOUR, {"catch_up": CatchUp.SKIP}, NOW - MINUTE),
            (HOUR, {"catch_up": CatchUp.SKIP, "max_lateness": SECOND}, NOW),
            (HOUR, {"catch_up": CatchUp.ALL, "max_lateness": 5 * MINUTE}, NOW - 5 * MINUTE),
        ):
            self.assertEqual(self.missed(late, **options), Skip(expected), (late, options))

    def test_calendar_and_cron(self) -> None:
        """The same for days and for cron."""
        for schedule, expected in (
            (Calendar(DAILY), NOW + DAY / 2),
            (Cron("0 9 * * *"), utc("2014-11-12T09:00")),
        ):
            self.assertEqual(self.missed(7.5 * DAY, schedule, max_lateness=HOUR), Skip(expected))

    def test_the_last(self) -> None:
        """A job of which nothing is left is removed: one-off, or at its end."""
        self.assertEqual(self.missed(HOUR, Once(), max_lateness=MINUTE), Delete())
        self.assertEqual(self.missed(HOUR, max_lateness=SECOND, until=NOW - SECOND), Delete())
        self.assertEqual(self.missed(HOUR, max_lateness=SECOND, until=NOW), Skip(NOW))

    def test_asked_for_during_a_run(self) -> None:
        """One that had to wait for the run before is as late as it is since that was over."""
        options = Options(max_lateness=SECOND)
        waited = replace(RUN, scheduled=PAST, due=NOW - SECOND, waited=True, options=options)
        self.assertIsNone(missed(waited))
        self.assertIsInstance(missed(replace(waited, waited=False)), Skip)
        self.assertIsInstance(missed(replace(waited, due=NOW - 2 * SECOND)), Skip)

    def test_begun(self) -> None:
        """A run that was attempted before is never too late: it is tried until done or given up."""
        run = replace(RUN, scheduled=PAST, options=Options(max_lateness=SECOND))
        self.assertIsInstance(missed(run), Skip)
        self.assertIsNone(missed(replace(run, attempt=2)))


class JobTests(SynchronousTestCase):
    """A job as it stands in the table."""

    def test_next_run(self) -> None:
        """While a run is under way the next run is that one's time, not the end of its lease."""
        job = Job(
            RUN.key, Every(MINUTE), Options(), NOW, scheduled=NOW, due=NOW + MINUTE, running=True
        )
        for state, expected in (
            (job, NOW),
            (replace(job, running=False), NOW + MINUTE),
            (replace(job, disabled=True), None),
            (replace(job, disabled=True, running=False, due=None), None),
            (replace(job, running=False, due=None, failed=Failed.STOPPED), None),
        ):
            self.assertEqual(state.next_run, expected)


class PathTests(SynchronousTestCase):
    """P11: which paths a job may have, and what becomes of them."""

    def test_refused(self) -> None:
        """P11: what could leave the base URL or forge a header is refused, and named."""
        for path in ("..", ".", "../x", "a/..", "a/../b", "./a", "a/.", "/..", "//.."):
            error = self.assertRaises(InvalidRequest, check_path, path)
            self.assertIn("segment", str(error))
            leaves = ".." in path.split("/")
            self.assertEqual("would leave the endpoint's base URL" in str(error), leaves, path)
        for character in ("\0", "\t", "\r", "\n", "\x7f", "\x85", "\u2028", "\u2029"):
            error = self.assertRaises(InvalidRequest, check_path, f"a{character}b")
            self.assertIn(f"U+{ord(character):04X}", str(error))

    def test_accepted(self) -> None:
        """Everything else is accepted: dots within names, spaces, other scripts, URLs as text."""
        for path in (
            "a",
            "a.b",
            "...",
            "..a",
            "a..",
            "a/b//c/",
            "/a",
            " ",
            "jób",
            "http://x/y",
            "%2e%2e",
        ):
            check_path(path)

    def test_target(self) -> None:
        """P11: a path is put behind the base URL with one slash, its segments percent-encoded."""
        for path, target in (
            ("check_feed", "/check_feed"),
            ("a/b", "/a/b"),
            ("/a", "/a"),
            ("//evil.example/x", "/evil.example/x"),
            ("http://evil.example", "/http%3A//evil.example"),
            ("@evil.example", "/%40evil.example"),
            ("a?b=c#d", "/a%3Fb%3Dc%23d"),
            ("%2e%2e/x", "/%252e%252e/x"),
            ("..\\x", "/..%5Cx"),
            ("j\u00f3b x", "/j%C3%B3b%20x"),
            ("-._~", "/-._~"),
            ("a b", "/a%20b"),
            ("a/", "/a/"),
        ):
            self.assertEqual(target_path(path), target)

    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=MAX_KEY_LENGTH))
    @thorough(200)
    def test_never_elsewhere(self, path: str) -> None:
        """P11: no accepted path changes scheme, host, port, query or fragment, or climbs up."""
        try:
            check_path(path)
        except InvalidRequest:
            return
        url = urlsplit("http://example.com:81/base" + target_path(path))
        self.assertEqual((url.scheme, url.netloc), ("http", "example.com:81"))
        self.assertEqual((url.query, url.fragment), ("", ""))
        self.assertTrue(url.path.startswith("/base/") and url.path.isascii())
        self.assertFalse({".", ".."} & set(unquote(url.path).split("/")))
        self.assertEqual(unquote(url.path), "/base/" + path.lstrip("/"))

    def test_length(self) -> None:
        """A path or body has 1 to 255 characters, however many bytes they take."""
        check_length("path", "a")
        check_length("body", "\U0001f600" * MAX_KEY_LENGTH)
        for text in ("", "a" * (MAX_KEY_LENGTH + 1)):
            for name in ("path", "body"):
                error = self.assertRaises(InvalidRequest, check_length, name, text)
                self.assertIn(name, str(error))
