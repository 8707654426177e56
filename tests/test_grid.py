"""The times of a job with a jitter or a first-run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.duration import duration_from_text
from dalga.model.grid import Grid, offset_of
from dalga.model.job import Job
from dalga.model.key import JobKey
from dalga.model.options import CatchUp, Options
from dalga.model.plan import Plan, plan, times_of
from dalga.model.run import Reschedule, Run, RunPolicy, Skip, judge, missed
from dalga.model.schedule import Calendar, Cron, Every, Schedule
from dalga.model.zone import Dst, Occurrence, Overlap
from tests.examples import (
    DAILY,
    DAY,
    EARLIEST,
    EXACT,
    HOUR,
    LAST,
    MINUTE,
    NOW,
    OK,
    PAST,
    RIGA,
    RUN,
    SECOND,
    asking,
    utc,
)
from tests.strategies import thorough


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
        run = RUN._replace(
            key=self.KEY,
            schedule=planned.schedule,
            options=planned.options,
            anchor=planned.anchor,
            scheduled=planned.first,
            due=planned.first,
            claimed=planned.first,
        )
        return run._replace(**changes)  # type: ignore[arg-type]

    def judged(self, run: Run, policy: RunPolicy = EXACT) -> Reschedule:
        verdict = judge(run, OK, run.claimed + SECOND, policy, Random(1)).verdict
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
                run = run._replace(
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
        st.text(min_size=1, max_size=5),
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
