"""Requests become first runs, and then run times; a PUT minds the job that is there."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import islice
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.answers import Meaning
from dalga.model.duration import Duration, duration_from_text
from dalga.model.job import Job, Standing
from dalga.model.options import CatchUp, OnEnd, OnFailure, Options
from dalga.model.plan import (
    MAX_COUNTED,
    Plan,
    RawRequest,
    ScheduleRequest,
    amended,
    plan,
    times_of,
)
from dalga.model.retry import RetryPolicy
from dalga.model.run import (
    Delete,
    End,
    Finish,
    GiveBack,
    Outcome,
    Reschedule,
    Retry,
    RunPolicy,
    Skip,
    Stop,
    judge,
    revised,
)
from dalga.model.schedule import END_OF_TIME, MAX_INTERVAL, Calendar, Cron, Every, Once
from dalga.model.zone import Dst, Gap, Occurrence, Overlap, Zone
from dalga.web.parameters import schedule_request
from tests.examples import (
    DAILY,
    DAY,
    EARLIEST,
    ERROR,
    FAILURE,
    HOUR,
    KEY,
    LAST,
    MINUTE,
    NOW,
    OK,
    PAST,
    RIGA,
    RUN,
    SECOND,
    THEN,
    asking,
    asking_anything,
    ended,
    utc,
)
from tests.strategies import thorough


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
                    asking_anything(),
                    asking_anything(interval=0),
                    asking_anything(interval="PT0.5S"),
                    asking_anything(interval=0, first_run=THEN),
                    asking_anything(first_run=THEN),
                    asking_anything(immediate=True),
                    asking_anything(interval=0, immediate=True),
                    asking_anything(first_run=THEN, immediate=True),
                    asking_anything(one_off=True),
                    asking_anything(interval=60, one_off=True, immediate=True),
                    asking_anything(interval=0, one_off=True, immediate=True),
                    asking_anything(interval=60, first_run=THEN, one_off=True, immediate=True),
                ),
            ),
            (
                "first-run",
                (
                    asking_anything(interval=60, first_run=THEN, immediate=True),
                    asking_anything(cron="0 9 * * *", first_run=THEN, immediate=True),
                    asking_anything(interval=60, first_run=THEN, one_off=True),
                    asking_anything(interval=0, first_run=THEN, one_off=True),
                    asking_anything(first_run=THEN, one_off=True, immediate=True),
                ),
            ),
            (
                "cron",
                (
                    asking_anything(cron="0 9 * * *", interval=60),
                    asking_anything(cron="0 9 * * *", interval=60, one_off=True),
                    asking_anything(cron="0 9 * * *", one_off=True),
                    asking_anything(cron="0 9 * * *", one_off=True, immediate=True),
                ),
            ),
            (
                "one-off",
                (
                    asking_anything(one_off=True, immediate=True, until=THEN),
                    asking_anything(one_off=True, immediate=True, count=1),
                    asking_anything(one_off=True, immediate=True, catch_up=CatchUp.ONE),
                    asking_anything(one_off=True, immediate=True, on_failure=OnFailure.STOP),
                ),
            ),
            ("jitter", (asking_anything(one_off=True, immediate=True, jitter=MINUTE),)),
            (
                "dst-gap",
                (
                    asking_anything(interval=86400, dst_gap=Gap.SHIFT),
                    asking_anything(interval="PT24H", dst_gap=Gap.SKIP, dst_overlap=Overlap.LAST),
                    asking_anything(first_run=THEN, one_off=True, dst_gap=Gap.SKIP),
                ),
            ),
            ("dst-overlap", (asking_anything(interval=60, dst_overlap=Overlap.FIRST),)),
            ("until", (asking_anything(interval=60, first_run=THEN, until=THEN - SECOND),)),
        ):
            for request in requests:
                error = self.assertRaises(InvalidRequest, ScheduleRequest.of, request)
                self.assertIn(named, str(error), request)

    def test_the_shortest_interval(self) -> None:
        """A second is accepted, and nothing that is less; of 0 is said what to give instead."""
        for interval in (1, "PT1S", "PT1.000001S"):
            asking(interval=interval)
        for interval, said in (
            ("PT0.999999S", "interval is 'PT0.999999S': a periodic job takes 1 second or more"),
            (
                0,
                "interval is 0: a periodic job takes 1 second or more; "
                "one-off=true runs it once, now",
            ),
        ):
            error = self.assertRaises(InvalidRequest, asking, interval=interval)
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
        raw = schedule_request(query.replace(" ", "+").encode(), None, b"")
        return plan(ScheduleRequest.of(raw), NOW)

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
        raw = RawRequest(
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
            planned = plan(ScheduleRequest.of(raw), now)
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
            replace(job, standing=Standing.STOPPED, due=None),
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
        """An end that is before the job's next run is refused."""
        job = self.job(asking(interval=60), scheduled=NOW + SECOND)
        for request in (asking(interval=60, until=NOW), asking(interval=60, until=PAST)):
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
            job = self.job(asking(interval=60), successes=successes, **state)
            if refused:
                self.assertRaises(InvalidRequest, amended, job, request, NOW)
            else:
                self.assertIsNotNone(amended(job, request, NOW))

    def test_a_verdict_by_another_catch_up(self) -> None:
        """Runs that were missed are made up where the new options say so."""
        late = RUN._replace(claimed=NOW)
        made_up = Options(catch_up=CatchUp.ALL)
        now = NOW + 10 * MINUTE
        first = RUN.scheduled + MINUTE
        self.assertLess(first, now - MINUTE)
        end = revised(ended(late, Delete()), made_up, now)
        self.assertEqual(end.verdict, Reschedule(first, RUN.anchor))
        all_of_them = late._replace(options=made_up)
        verdict = revised(ended(all_of_them, Delete()), Options(), now).verdict
        assert isinstance(verdict, Reschedule)
        self.assertGreater(verdict.scheduled, now)

    def test_a_verdict_off_the_grid(self) -> None:
        """
        Where intervals are counted from the end of a run, or varied, so is the interval after a run
        that is not to be the last any more.
        """
        last, more, end_of_run = Options(count=1), Options(count=2), NOW + 40 * SECOND
        stop, goes_on = Options(on_failure=OnFailure.STOP), Options()
        from_the_end = RunPolicy(RetryPolicy(stop_after=SECOND), fixed_intervals=False)
        varied = RunPolicy(RetryPolicy(stop_after=SECOND), randomization_factor=0.5)
        on_time = RunPolicy(RetryPolicy(stop_after=SECOND))
        calendar = Calendar(DAILY)
        for policy, schedule, expected in (
            (on_time, RUN.schedule, RUN.scheduled + MINUTE),
            (from_the_end, RUN.schedule, end_of_run + MINUTE),
            (from_the_end, calendar, end_of_run + DAY),
            (varied, calendar, RUN.scheduled + DAY),
            (varied, RUN.schedule, None),
        ):
            for before, after, outcome in ((last, more, OK), (stop, goes_on, FAILURE)):
                verdicts = []
                for options in (before, after):
                    run = RUN._replace(schedule=schedule, options=options, started=PAST)
                    end = judge(run, outcome, end_of_run, policy, Random(1))
                    verdicts.append(revised(end, after, end_of_run).verdict)
                # It comes to what it would have come to by those options from the start.
                revised_one, asked_for = verdicts
                self.assertEqual(revised_one, asked_for, (policy, schedule, outcome))
                assert isinstance(revised_one, Reschedule)
                if expected is not None:
                    self.assertEqual(revised_one.scheduled, expected, (policy, schedule))
                else:
                    varied_by = abs(revised_one.scheduled - RUN.claimed - MINUTE)
                    self.assertTrue(SECOND < varied_by < MINUTE / 2, varied_by)
            # An end that has come by then still holds.
            ends = judge(RUN._replace(options=last), OK, end_of_run, policy, Random(1))
            self.assertEqual(revised(ends, Options(until=NOW), end_of_run).verdict, Delete())

    def test_a_verdict_on_a_job_that_is_gone(self) -> None:
        """P4: a 204 does not remove a job that a user changed during the run."""
        gone, now = Outcome(204, 0.1), NOW + 40 * SECOND
        for policy, expected in (
            (RunPolicy(), RUN.scheduled + MINUTE),
            (RunPolicy(fixed_intervals=False), now + MINUTE),
        ):
            end = judge(RUN, gone, now, policy, Random(1))
            self.assertEqual(end.verdict, Delete())
            verdict = revised(end, Options(count=2), now).verdict
            assert isinstance(verdict, Reschedule)
            self.assertEqual(verdict.scheduled, expected)

    def test_a_verdict_by_other_options(self) -> None:
        """The end of a run goes by the options that hold by then."""
        later, error = NOW + MINUTE - SECOND, ERROR
        goes_on = Reschedule(later, RUN.anchor)
        given_up = Reschedule(later, RUN.anchor, error)
        stop, keep = OnFailure.STOP, OnEnd.KEEP
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
            (Delete(), Options(count=1, on_end=keep), Finish()),
            (Delete(), Options(until=later - SECOND, on_end=keep), Finish()),
            (Delete(), Options(on_end=keep), goes_on),
            (Finish(), Options(count=1, on_end=keep), Finish()),
            (Finish(), Options(count=1), Delete()),
            (Finish(), Options(), goes_on),
            (goes_on, Options(count=1, on_end=keep), Finish()),
            (goes_on, Options(until=later - SECOND, on_end=keep), Finish()),
            (given_up, Options(until=later - SECOND, on_end=keep), Stop(error)),
            (Stop(error), Options(until=later - SECOND, on_end=keep), Stop(error)),
            (Skip(later), Options(until=later - SECOND, on_end=keep), Finish()),
        ):
            end = ended(RUN, verdict)
            expected_end = end._replace(verdict=expected)
            self.assertEqual(revised(end, options, NOW), expected_end, (verdict, options))
        once = ended(RUN._replace(schedule=Once()), Delete())
        self.assertEqual(revised(once, Options(max_lateness=HOUR), NOW), once)
        kept = once._replace(verdict=Finish())
        self.assertEqual(revised(once, Options(on_end=OnEnd.KEEP), NOW), kept)
        self.assertEqual(revised(kept, Options(), NOW), once)
        self.assertEqual(revised(kept, Options(on_end=OnEnd.KEEP, gone=None), NOW), kept)
        # A job that its endpoint says is gone is removed, also one that is to be kept at its end.
        gone = once._replace(meaning=Meaning.REMOVE)
        self.assertEqual(revised(gone, Options(on_end=OnEnd.KEEP), NOW), gone)
        # It was too late, and would have been the last.
        late = RUN._replace(options=Options(max_lateness=SECOND / 2, until=NOW))
        skipped = End(late, None, Delete())
        self.assertEqual(revised(skipped, Options(), NOW), End(late, None, Skip(later)))
        finished = skipped._replace(verdict=Finish())
        self.assertEqual(revised(finished, Options(), NOW), End(late, None, Skip(later)))
        still = replace(late.options, on_end=OnEnd.KEEP)
        self.assertEqual(revised(skipped, still, NOW), finished)
