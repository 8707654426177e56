"""
The arithmetic of schedules against a slow reference, over random places and times.

The reference knows nothing of `dalga`: it counts durations with dateutil, reads cron expressions by
itself, and looks at each minute of the clock on the wall (each second where there are seconds).
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import count, islice, pairwise, takewhile
from random import Random
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from dateutil.relativedelta import relativedelta
from dateutil.rrule import DAILY, MONTHLY, rrule
from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.cron import cron_from_text
from dalga.model.duration import duration_from_text
from dalga.model.key import JobKey
from dalga.model.options import CatchUp, Options
from dalga.model.plan import ScheduleRequest, plan
from dalga.model.run import Outcome, Reschedule, Run, RunPolicy, judge
from dalga.model.schedule import (
    END_OF_TIME,
    MAX_INTERVAL,
    Cron,
    Every,
    Schedule,
    periodic,
    schedule_from_text,
)
from dalga.model.zone import Dst, Gap, Occurrence, Overlap, Zone
from tests.strategies import (
    DAY,
    HOUR,
    SECOND,
    TRICKY,
    Change,
    calendar_parts,
    changes,
    changes_of,
    crons_near,
    crons_with_seconds_near,
    days_of_month,
    days_of_week,
    instants,
    iso,
    locations,
    months,
    near_changes,
    offset,
    recent,
    thorough,
)

MINUTE = timedelta(minutes=1)
MICROSECOND = timedelta(microseconds=1)

gaps = st.sampled_from([None, *Gap])
overlaps = st.sampled_from([None, *Overlap])


# The reference.


def on_the_wall(instant: datetime, location: str) -> datetime:
    return instant.astimezone(ZoneInfo(location)).replace(tzinfo=None)


@lru_cache(maxsize=4096)
def changes_around(day: datetime, location: str) -> list[Change]:
    """The clock changes within two days of a day."""
    return changes(location, day - 2 * DAY, day + 3 * DAY, HOUR)


def shown_at(
    wall: datetime, location: str, gap: Gap | None, overlap: Overlap | None
) -> list[datetime]:
    """The instants at which the clock of a place shows a wall time, as the rules have them."""
    wall = wall.replace(fold=0)
    day = wall.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=UTC)
    near = changes_around(day, location)
    offsets = {offset(location, day), *(o for change in near for o in change[1:])}
    candidates = {(wall - o).replace(tzinfo=UTC) for o in offsets}
    found = sorted(c for c in candidates if on_the_wall(c, location).replace(fold=0) == wall)
    if found:
        choice = {Overlap.LAST: slice(-1, None), Overlap.BOTH: slice(None)}
        return found[choice.get(overlap or Overlap.FIRST, slice(1))]
    if gap is Gap.SKIP:
        return []
    naive = wall.replace(tzinfo=UTC)
    return [at for at, before, after in near if at + before <= naive < at + after]


def calendar_times(anchor: datetime, parts: tuple[int, int, int], zone: Zone) -> Iterator[datetime]:
    """Each duration from the anchor, one after the other, each time once."""
    start, last = on_the_wall(anchor, zone.location), anchor
    more_months, more_days, more_seconds = parts
    for n in count(1):
        wall = start + relativedelta(months=n * more_months)
        wall += relativedelta(days=n * more_days)
        for at in shown_at(wall, zone.location, zone.gap, zone.overlap):
            at += timedelta(seconds=n * more_seconds)
            if at > last:
                last = at
                yield at


_NAMES = {
    4: [month.upper() for month in calendar.month_abbr],
    5: ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
}
_ENDS = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]


class Fields:
    """A cron expression, read by itself: which wall times it names."""

    def __init__(self, text: str) -> None:
        fields = ["*" if field == "?" else field for field in text.upper().split()]
        self.fields = fields if len(fields) == 6 else ["0", *fields]
        terms = [field.split(",") for field in self.fields]
        #: The numbers that each field has.
        self.numbers = [
            {n for n in range(60) for term in terms[which] if self._has(term, which, n)}
            for which in range(6)
        ]
        #: Which days have to do with their month's end, or with its weeks.
        self.special_days = [term for term in terms[3] if term in ("L", "LW")]
        self.special_weekdays = [term for term in terms[5] if term[-1] == "L" or "#" in term]
        self.both = any(self.fields[which].startswith("*") for which in (3, 5))
        self.is_wildcard = any(self.fields[which].startswith("*") for which in (1, 2))

    def names(self, wall: datetime) -> bool:
        seconds, minutes, hours = self.numbers[:3]
        return (
            wall.second in seconds
            and wall.minute in minutes
            and wall.hour in hours
            and self.names_day(wall)
        )

    def names_day(self, wall: datetime) -> bool:
        if wall.month not in self.numbers[4]:
            return False
        of_month = wall.day in self.numbers[3] or any(
            self._is_special_day(term, wall) for term in self.special_days
        )
        of_week = bool({wall.isoweekday(), wall.isoweekday() % 7} & self.numbers[5]) or any(
            self._is_special_weekday(term, wall) for term in self.special_weekdays
        )
        return (of_month and of_week) if self.both else (of_month or of_week)

    def _has(self, term: str, which: int, value: int) -> bool:
        if which in (3, 5) and ("L" in term or "#" in term):
            return False
        span, _, step = term.partition("/")
        first, last = _ENDS[which]
        if span != "*":
            low, _, high = span.partition("-")
            first = self._number(low, which)
            last = self._number(high, which) if high else last if step else first
        return value in self._walk(which, first, last)[:: int(step or 1)]

    def _walk(self, which: int, first: int, last: int) -> list[int]:
        """From one value to another, on from the field's end to its start where that is the way."""
        if first <= last:
            return list(range(first, last + 1))
        low, high = _ENDS[which]
        if which == 5:
            first, last, high = first % 7, last % 7, 6
        found = [first]
        while found[-1] != last:
            found.append(low if found[-1] == high else found[-1] + 1)
        return found

    def _number(self, text: str, which: int) -> int:
        return int(text) if text.isdecimal() else _NAMES[which].index(text[:3])

    def _is_special_day(self, term: str, wall: datetime) -> bool:
        last = calendar.monthrange(wall.year, wall.month)[1]
        days = range(1, last + 1)
        if term == "L":
            return wall.day == last
        weekdays = [day for day in days if wall.replace(day=day).isoweekday() < 6]
        return term == "LW" and wall.day == weekdays[-1]

    def _is_special_weekday(self, term: str, wall: datetime) -> bool:
        name, sharp, which = term.partition("#")
        weekday = self._number(name.removesuffix("L"), 5) % 7
        days = range(1, calendar.monthrange(wall.year, wall.month)[1] + 1)
        alike = [day for day in days if wall.replace(day=day).isoweekday() % 7 == weekday]
        if sharp:
            return int(which) <= len(alike) and wall.day == alike[int(which) - 1]
        return wall.day == alike[-1]


def cron_times(
    text: str, zone: Zone, after: datetime, until: datetime, step: timedelta
) -> Iterator[datetime]:
    """Look at each minute or second of a while, and at those that clock changes left out of it."""
    fields = Fields(text)
    gap = zone.gap or (Gap.SKIP if fields.is_wildcard else Gap.SHIFT)
    overlap = zone.overlap or (Overlap.BOTH if fields.is_wildcard else Overlap.FIRST)
    near = changes(zone.location, after - 2 * DAY, until + 2 * DAY, HOUR)
    jumps = {change.at: change for change in near if change.before < change.after}
    backs = [change for change in near if change.before > change.after]
    at = after.replace(second=0, microsecond=0)
    # A step is a whole number of all clock changes' seconds, or the scan would miss them.
    while at <= until:
        wall = on_the_wall(at, zone.location)
        passes = [
            Overlap.LAST if at >= change.at else Overlap.FIRST
            for change in backs
            if change.after <= wall.replace(tzinfo=UTC, fold=0) - change.at < change.before
        ]
        is_named = fields.names(wall) and (
            not passes or overlap is Overlap.BOTH or overlap is passes[0]
        )
        if not is_named and gap is Gap.SHIFT and at in jumps:
            lost = jumps[at].after - jumps[at].before
            is_named = any(fields.names(wall - n * step) for n in range(1, lost // step + 1))
        if is_named and at > after:
            yield at
        at += step


# The properties.


def times(schedule: Schedule, anchor: datetime, after: datetime) -> Iterator[datetime]:
    """The times of a schedule, one after the other."""
    found = schedule.next_after(anchor, after)
    while found is not None:
        yield found.at
        found = schedule.next_after(anchor, found.at)


@st.composite
def calendars(draw: st.DrawFn) -> tuple[datetime, tuple[int, int, int], Zone]:
    """An anchor and a duration, so that one of the first times is near a clock change."""
    zone = Zone(draw(locations), draw(gaps), draw(overlaps))
    parts = draw(calendar_parts)
    n = draw(st.integers(0, 12))
    months, days, seconds = (n * part for part in parts)
    wall = on_the_wall(draw(near_changes(zone.location)), zone.location).replace(fold=0)
    wall -= timedelta(days=days, seconds=seconds) + relativedelta(months=months)
    anchor = wall.replace(tzinfo=ZoneInfo(zone.location), fold=draw(st.integers(0, 1)))
    return anchor.astimezone(UTC), parts, zone


class ZoneTests(SynchronousTestCase):
    """What clocks show."""

    def test_each_change_of_tricky_places(self) -> None:
        """Before, in and behind each gap and overlap a wall time is where it should be."""
        for location in TRICKY:
            for change in changes_of(location):
                start, end = sorted(change.at + o for o in change[1:])
                self._check_around(location, start, end)

    def _check_around(self, location: str, start: datetime, end: datetime) -> None:
        for wall in (start - SECOND, start, start + (end - start) / 2, end - SECOND, end):
            for gap in Gap:
                for overlap in Overlap:
                    naive = wall.replace(tzinfo=None)
                    found = [time.at for time in Zone(location, gap, overlap).instants(naive)]
                    self.assertEqual(
                        found, shown_at(naive, location, gap, overlap), (location, naive)
                    )

    @given(st.data(), locations, gaps, overlaps)
    @thorough(300)
    def test_any_time(
        self, data: st.DataObject, location: str, gap: Gap | None, overlap: Overlap | None
    ) -> None:
        """So is any wall time anywhere, and it is marked where the clock change had a say."""
        instant = data.draw(near_changes(location))
        zone = Zone(location, gap, overlap)
        naive = instant.replace(tzinfo=None) + offset(location, instant)
        for wall in (zone.wall(instant), naive + data.draw(st.timedeltas(-2 * HOUR, 2 * HOUR))):
            found = zone.instants(wall)
            expected = shown_at(wall, location, gap, overlap)
            self.assertEqual([time.at for time in found], expected)
            for time in found:
                shows = zone.wall(time.at).replace(fold=0) == wall.replace(fold=0)
                both = shown_at(wall, location, Gap.SKIP, Overlap.BOTH)
                mark = Dst.OVERLAP if len(both) == 2 else None
                self.assertEqual(time.dst, mark if shows else Dst.GAP)

    @given(instants, locations)
    @thorough(300)
    def test_there_and_back(self, instant: datetime, location: str) -> None:
        """What the clock shows at an instant is shown then, and maybe once more."""
        zone = Zone(location, overlap=Overlap.BOTH)
        try:
            wall = zone.wall(instant)
        except OverflowError:
            self.assertLess(min(instant - instants_start, END_OF_TIME - instant), DAY)
            return
        found = zone.instants(wall)
        self.assertIn(instant, [time.at for time in found])
        self.assertEqual(found[wall.fold].at, instant)


instants_start = datetime.min.replace(tzinfo=UTC)


class CalendarTests(SynchronousTestCase):
    """Intervals of days and more."""

    @given(calendars())
    @thorough(400)
    def test_as_counted_by_hand(self, example: tuple[datetime, tuple[int, int, int], Zone]) -> None:
        """The times are those that dateutil and the reference have, one by one."""
        anchor, parts, zone = example
        schedule = periodic(duration_from_text(iso(*parts)), zone)
        expected = list(islice(calendar_times(anchor, parts, zone), 16))
        self.assertEqual(list(islice(times(schedule, anchor, anchor), 16)), expected)

    @given(
        recent,
        locations,
        st.integers(1, 400),
        st.sampled_from([DAILY, MONTHLY]),
    )
    @thorough(150)
    def test_as_rrule(self, anchor: datetime, location: str, each: int, unit: int) -> None:
        """Days, and months with their last days, are as dateutil's rrule has them (RFC 5545)."""
        start = on_the_wall(anchor, location).replace(fold=0)
        if unit == DAILY:
            walls = rrule(DAILY, start, interval=each)
        else:
            each = each % 30 + 1
            # The anchor's day, or the last that the month has.
            days = range(min(28, start.day), start.day + 1)
            walls = rrule(MONTHLY, start, interval=each, bymonthday=days, bysetpos=-1)
        text = f"P{each}{'D' if unit == DAILY else 'M'}"
        expected = (
            at
            for wall in walls  # rrule has no microseconds
            for at in shown_at(wall + start.microsecond * MICROSECOND, location, None, None)
        )
        schedule = periodic(duration_from_text(text), Zone(location))
        self.assertEqual(
            list(islice(times(schedule, anchor, anchor), 24)),
            list(islice((at for at in expected if at > anchor), 24)),
        )

    @given(calendars(), st.timedeltas(-10 * DAY, 3000 * DAY))
    @thorough(300)
    def test_after_any_stop(
        self, example: tuple[datetime, tuple[int, int, int], Zone], stop: timedelta
    ) -> None:
        """From the text in the table, after a stop at any time, the same times go on."""
        anchor, parts, zone = example
        schedule = periodic(duration_from_text(iso(*parts)), zone)
        found = schedule_from_text(schedule.text, zone).next_after(anchor, anchor + stop)
        assert found is not None
        self.assertGreater(found.at, anchor + stop)
        self.assertGreater(found.at, anchor)
        before = takewhile(lambda at: at <= found.at, times(schedule, anchor, anchor))
        *passed, last = before
        self.assertEqual(last, found.at)
        self.assertTrue(not passed or passed[-1] <= anchor + stop)


@st.composite
def cronsims(draw: st.DrawFn) -> str:
    """Five fields, most of which cronsim takes; no equal ends with a step."""
    numbers = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
    spelled = {"SUN": "", "sat": "6", "JAN": "1", "dec": "12"}
    fields = []
    for low, high in numbers:
        words = st.integers(low, high).map(str) | st.sampled_from(["*", "*", f"0{high}"])
        if low == 1:
            words |= st.sampled_from(["L", "LW", "l"] if high == 31 else ["JAN", "dec"])
        if high == 7:
            words |= st.sampled_from(["SUN", "sat", "5L", "00L", "MON#2", "07#03"])
        first, last = draw(words), draw(words)
        values = [spelled.get(word, word.lstrip("0")) for word in (first, last)]
        ends = draw(st.sampled_from(["", f"-{last}"])) if values[0] != values[1] else ""
        step = draw(st.sampled_from(["", "", "/1", "/2", "/007", f"/{high + 1}", "/90"]))
        more = draw(st.sampled_from(["", "", f",{draw(words)}"]))
        fields.append(f"{first}{ends}{step}{more}")
    return " ".join(fields)


class CronTests(SynchronousTestCase):
    """Cron expressions."""

    def _check(
        self, text: str, zone: Zone, after: datetime, span: timedelta, step: timedelta
    ) -> None:
        expected = list(cron_times(text, zone, after, after + span, step))
        schedule = schedule_from_text(self._valid(text), zone)
        self.assertEqual(schedule.text, cron_from_text(schedule.text))
        found = takewhile(lambda at: at <= after + span, times(schedule, after, after))
        self.assertEqual(list(found), expected, (text, zone, after))

    def _valid(self, text: str) -> str:
        try:
            return cron_from_text(text)
        except ValueError as problem:
            assume("never comes" not in str(problem))
            raise

    @given(st.data(), locations, gaps, overlaps)
    @thorough(250)
    def test_as_scanned_by_the_minute(
        self, data: st.DataObject, location: str, gap: Gap | None, overlap: Overlap | None
    ) -> None:
        """Five fields name the minutes that a look at each of them finds."""
        change = data.draw(whole_minute_changes(location))
        after = change.at - data.draw(st.timedeltas(timedelta(), 6 * HOUR))
        text = data.draw(crons_near(data.draw(walls_about(change))))
        self._check(text, Zone(location, gap, overlap), after, 28 * HOUR, MINUTE)

    @given(st.data(), locations, gaps, overlaps)
    @thorough(120)
    def test_as_scanned_by_the_second(
        self, data: st.DataObject, location: str, gap: Gap | None, overlap: Overlap | None
    ) -> None:
        """Six fields name the seconds that a look at each of them finds."""
        change = data.draw(whole_minute_changes(location))
        after = change.at - data.draw(st.timedeltas(timedelta(), 20 * MINUTE))
        text = data.draw(crons_with_seconds_near(data.draw(walls_about(change))))
        self._check(text, Zone(location, gap, overlap), after, 70 * MINUTE, SECOND)

    @given(days_of_month, months, days_of_week, recent)
    @thorough(300)
    def test_days(self, of_month: str, month: str, of_week: str, after: datetime) -> None:
        """The day fields name the days that a look at each day of twelve years finds."""
        written = f"30 9 {of_month} {month} {of_week}"
        text, fields = self._valid(written), Fields(written)
        first = after.replace(hour=9, minute=30, second=0, microsecond=0)
        days = [first + n * DAY for n in range(12 * 366)]
        expected = (day for day in days if day > after and fields.names_day(day))
        found = takewhile(lambda at: at <= days[-1], times(Cron(text), after, after))
        self.assertEqual(list(islice(found, 40)), list(islice(expected, 40)))

    @given(st.data(), locations, gaps, overlaps, st.timedeltas(timedelta(), 40 * DAY))
    @thorough(150)
    def test_after_any_stop(
        self,
        data: st.DataObject,
        location: str,
        gap: Gap | None,
        overlap: Overlap | None,
        stop: timedelta,
    ) -> None:
        """After a stop at any time the same times go on: the anchor and the past play no part."""
        change = data.draw(whole_minute_changes(location))
        start = change.at - data.draw(st.timedeltas(timedelta(), 6 * HOUR))
        text = self._valid(data.draw(crons_near(data.draw(walls_about(change)))))
        schedule = Cron(text, Zone(location, gap, overlap))
        near = list(islice(times(schedule, start, start), 50))
        for earlier, later in pairwise(near):
            self.assertLess(earlier, later)
            between = earlier + (later - earlier) * data.draw(st.floats(0, 0.99))
            self.assertEqual(
                schedule.next_after(start, between), schedule.next_after(start, earlier)
            )
        found = schedule.next_after(start, start + stop)
        self.assertTrue(found is None or found.at > start + stop)

    @given(st.text(st.sampled_from("0123456789*/-,L#WMONFEBSU? \t?@\u00b2\u017f"), max_size=40))
    @thorough(500)
    def test_any_text(self, text: str) -> None:
        """Any text is refused with a sentence, or has a time to come."""
        try:
            expression = cron_from_text(text)
        except ValueError:
            return
        self.assertIsNotNone(Cron(expression).next_after(*2 * [datetime(2026, 1, 1, tzinfo=UTC)]))

    @given(cronsims())
    @thorough(200)
    def test_what_cronsim_takes(self, text: str) -> None:
        """
        What was handed to cronsim as it was written is taken back from the table, and read as
        cronsim reads it, but for equal ends with a step, which it takes for no end.
        """
        try:
            read = CronSim(text, datetime(2026, 1, 1))
        except CronSimError:
            assume(False)
        assume(next(read, None) is not None)
        again = CronSim(cron_from_text(text, stored=True), datetime(2026, 1, 1))
        for field in ("seconds", "minutes", "hours", "days", "months", "day_and"):
            self.assertEqual(getattr(again, field), getattr(read, field), (text, field))
        days = [
            {day % 7 if isinstance(day, int) else (day[0] % 7, day[1]) for day in cron.weekdays}
            for cron in (again, read)
        ]
        self.assertEqual(days[0], days[1], text)


def whole_minute_changes(location: str) -> st.SearchStrategy[Change]:
    """Clock changes of a place, or what is none; those that a scan by the minute can see."""
    nothing = Change(datetime(2026, 1, 1, tzinfo=UTC), timedelta(), timedelta())
    known = [c for c in changes_of(location) if not any(o % MINUTE for o in c[1:])]
    return st.sampled_from(known or [nothing])


@st.composite
def walls_about(draw: st.DrawFn, change: Change) -> datetime:
    """A wall time about that of a clock change, by the clock before it or after it."""
    wall: datetime = change.at + draw(st.sampled_from(change[1:]))
    return wall.replace(tzinfo=None) + draw(st.timedeltas(-HOUR, HOUR))


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Anything that comes more than once."""
    zone = Zone(draw(locations), draw(gaps), draw(overlaps))
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return Every(timedelta(seconds=draw(st.integers(1, MAX_INTERVAL))))
    if kind == 1:
        return periodic(duration_from_text(iso(*draw(calendar_parts))), zone)
    text = draw(crons_near(datetime(2026, 1, 1, 2, 30)))
    try:
        return Cron(cron_from_text(text), zone)
    except ValueError:
        return Cron("30 2 * * *", zone)


class AnyScheduleTests(SynchronousTestCase):
    """What holds for all of them."""

    @given(schedules(), instants, instants)
    @thorough(500)
    @example(Every(timedelta(seconds=1)), END_OF_TIME, END_OF_TIME)
    @example(Cron("* * * * *", Zone("Asia/Tokyo")), END_OF_TIME - DAY, END_OF_TIME - DAY)
    @example(Cron("* * * * *", Zone("Asia/Tokyo")), END_OF_TIME, END_OF_TIME)
    @example(Cron("* * * * *", Zone("America/Lima")), END_OF_TIME - HOUR, END_OF_TIME - HOUR)
    @example(Cron("* * * * *", Zone("America/Lima")), END_OF_TIME, END_OF_TIME)
    def test_strictly_later(self, schedule: Schedule, anchor: datetime, after: datetime) -> None:
        """To both ends of time, the next time is later than the one before, or there is none."""
        found = schedule.next_after(anchor, after)
        if found is not None:
            self.assertGreater(found.at, after)
            self.assertIs(found.at.tzinfo, UTC)
            following = schedule.next_after(anchor, found.at)
            self.assertTrue(following is None or following.at > found.at)

    @given(schedules(), recent, recent)
    @thorough(200)
    def test_text(self, schedule: Schedule, anchor: datetime, after: datetime) -> None:
        """The text in the table says the same times."""
        again = schedule_from_text(schedule.text, schedule.zone)
        self.assertEqual(again.text, schedule.text)
        self.assertEqual(again.next_after(anchor, after), schedule.next_after(anchor, after))

    @given(schedules(), recent, st.lists(st.timedeltas(timedelta(), 900 * DAY), max_size=8))
    @thorough(200)
    def test_a_life_with_outages(
        self, schedule: Schedule, anchor: datetime, outages: list[timedelta]
    ) -> None:
        """
        P9: a run ends late, after outages, again and again; each time the next is a regular time,
        later than now, and no regular time lies between the two.
        """
        now = anchor
        time = schedule.next_after(anchor, anchor)
        for outage in outages:
            if time is None:
                break
            now = max(now, time.at) + outage
            end = judge(run_of(schedule, anchor, time.at), DONE, now, RunPolicy(), Random(1))
            time = schedule.next_after(anchor, max(time.at, now))
            if time is not None:
                self.assertEqual(end.verdict, Reschedule(time.at, anchor))
                self.assertGreater(time.at, now)

    @given(schedules(), recent, st.timedeltas(timedelta(), 30 * DAY))
    @thorough(100)
    def test_a_life_that_makes_up_for_all(
        self, schedule: Schedule, anchor: datetime, outage: timedelta
    ) -> None:
        """With catch-up=all each regular time is run once, in order, however late."""
        options = Options(catch_up=CatchUp.ALL)
        regular = list(islice(times(schedule, anchor, anchor), 10))
        made_up = regular[:1]
        for _ in regular[1:]:
            run = run_of(schedule, anchor, made_up[-1], options)
            verdict = judge(run, DONE, made_up[0] + outage, RunPolicy(), Random(1)).verdict
            assert isinstance(verdict, Reschedule)
            made_up.append(verdict.scheduled)
        self.assertEqual(made_up, regular)

    @given(schedules(), recent, st.timedeltas(-30 * DAY, 900 * DAY), st.integers(0, 400))
    @thorough(150)
    def test_what_is_listed_is_what_is_run(
        self, schedule: Schedule, now: datetime, ahead: timedelta, passed: int
    ) -> None:
        """A preview lists the times of the runs, whatever the time after which it begins."""
        request = ScheduleRequest(
            interval=None if isinstance(schedule, Cron) else duration_from_text(schedule.text),
            cron=schedule.text if isinstance(schedule, Cron) else None,
            location=schedule.zone.location,
            dst_gap=None if isinstance(schedule, Every) else schedule.zone.gap,
            dst_overlap=None if isinstance(schedule, Every) else schedule.zone.overlap,
        )
        found = schedule.next_after(now, now)
        assume(found is not None)
        planned = plan(request, now)
        listed = list(islice(planned.times(now + ahead, now), 5))
        expected: list[Occurrence] = []
        time = schedule.next_after(now, max(now, now + ahead))
        while time is not None and len(expected) < 5:
            expected.append(time)
            time = schedule.next_after(now, time.at)
        self.assertEqual(listed, expected)


DONE = Outcome(200, 0.1)
NO_OPTIONS = Options()


def run_of(
    schedule: Schedule, anchor: datetime, scheduled: datetime, options: Options = NO_OPTIONS
) -> Run:
    return Run(
        row=1,
        token=b"token",
        key=JobKey("a", "b"),
        schedule=schedule,
        options=options,
        anchor=anchor,
        scheduled=scheduled,
        due=scheduled,
        waited=False,
        id="1",
        attempt=1,
        started=scheduled,
        successes=0,
        claimed=scheduled,
        lease_ends=0.0,
        payload=b"1234",
        timeout=10.0,
    )
