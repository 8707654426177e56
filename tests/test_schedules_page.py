"""docs/schedules.md says what the code does: each table and each answer in it is held to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from urllib.parse import urlencode

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.cron import MAX_TEXT, cron_from_text
from dalga.model.key import JobKey
from dalga.model.plan import Plan, ScheduleRequest, plan
from dalga.model.run import Outcome, Reschedule, Run, RunPolicy, Skip, Verdict, judge, missed
from dalga.model.schedule import MAX_INTERVAL, YEARS_AHEAD
from dalga.model.zone import Occurrence
from dalga.web.parameters import LISTED, MAX_LISTED, schedule_request
from tests.test_web_api import APITestCase

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
TINY = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)

Row = dict[str, str]


def tables() -> Iterator[list[Row]]:
    """The tables of the page, each row by the heads of its columns, without the backquotes."""
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        head, _, *rows = (
            [cell.strip().strip("`") for cell in line.strip("|").split(" |")]
            for line in block.splitlines()
        )
        yield [dict(zip(head, row, strict=True)) for row in rows]


def tables_with(*columns: str) -> list[Row]:
    """The rows of the tables that have such columns; there has to be one."""
    rows = [row for table in tables() if {*columns} <= {*table[0]} for row in table]
    assert rows, columns
    return rows


def written(plan: Plan, time: Occurrence) -> str:
    """A time of a run as the page has it."""
    local = plan.schedule.zone.local(time.at)
    text = local.isoformat(" ", "seconds" if local.second else "minutes")
    return f"{text} ({time.dst})" if time.dst else text


class TableTests(SynchronousTestCase):
    """The tables."""

    def times(self, row: Row, column: str) -> None:
        """Hold a row to the code; what has no `after` is counted from its first run."""
        said = row[column].split(", ")
        key = JobKey(row["path"], row["body"]) if "path" in row else None
        parameters = {
            name: value
            for name, value in row.items()
            if value and name not in ("path", "body", "after", column)
        }
        first = row.get("first-run") or row["after"]
        after = datetime.fromisoformat(row.get("after") or first)
        if column == "runs" and "after" not in row:
            after -= TINY
        now = min(after, datetime.fromisoformat(first) - TINY).astimezone(UTC)
        request = schedule_request(urlencode(parameters).encode(), None, b"")
        planned = plan(ScheduleRequest.of(request), now, key=key)
        found = [written(planned, time) for time in islice(planned.times(after, now), len(said))]
        if len(found) < len(said):
            found.append("end")
        self.assertEqual(found, said, row)

    def test_intervals(self) -> None:
        """The runs after a first one, by elapsed time, calendar and clock change."""
        rows = tables_with("interval", "runs after it")
        self.assertGreater(len(rows), 12)
        for row in rows:
            self.times(row, "runs after it")

    def test_ends(self) -> None:
        """The runs of jobs with an end."""
        for row in tables_with("interval", "until", "runs"):
            self.times(row, "runs")
            self.assertTrue(row["runs"].endswith(", end"))

    def test_cron(self) -> None:
        """The runs of cron expressions, in places whose clocks change too."""
        rows = tables_with("cron", "after", "runs")
        for row in rows:
            self.times(row, "runs")
        self.assertGreater(len(rows), 35)
        self.assertLessEqual(
            {
                *("Europe/Istanbul", "America/Los_Angeles", "Europe/Riga", "Australia/Lord_Howe"),
                *("Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca"),
            },
            {row.get("location") for row in rows},
        )

    def test_normal_forms(self) -> None:
        """What is shown for what was written."""
        for row in tables_with("written", "shown as"):
            self.assertEqual(cron_from_text(row["written"]), row["shown as"])

    def test_refused(self) -> None:
        """The sentences that answer what is refused."""
        for row in tables_with("parameters", "answer"):
            error = self.assertRaises(InvalidRequest, self._ask, row["parameters"])
            self.assertEqual(str(error), row["answer"])

    def _ask(self, query: str) -> Plan:
        return plan(ScheduleRequest.of(schedule_request(query.encode(), None, b"")), NOW)

    def test_missed_times(self) -> None:
        """What runs after an outage, by catch-up and max-lateness."""
        nine, back = (NOW.replace(hour=hour, minute=minute) for hour, minute in ((9, 0), (12, 20)))
        for row in tables_with("catch-up", "max-lateness"):
            query = {"interval": "3600", **{k: v for k, v in row.items() if v and k != "runs"}}
            request = schedule_request(urlencode(query).encode(), None, b"")
            hourly = plan(replace(ScheduleRequest.of(request), first_run=nine), nine)
            runs = [
                f"that of {run.scheduled:%H:%M} at {run.claimed:%H:%M}"
                for run in life(hourly, RunPolicy(), SECOND, back)
                if run.claimed < NOW.replace(hour=13, minute=30)
            ]
            self.assertEqual(", ".join(runs), row["runs"], row)

    def test_intervals_from_the_end(self) -> None:
        """When runs begin with fixedIntervals, and without."""
        nine = NOW.replace(hour=9)
        request = ScheduleRequest.of(schedule_request(b"interval=60", None, b""))
        minute = plan(replace(request, first_run=nine), nine)
        for row in tables_with("fixedIntervals", "runs"):
            policy = RunPolicy(fixed_intervals=row["fixedIntervals"] == "true")
            runs = islice(life(minute, policy, 5 * SECOND, nine), 4)
            self.assertEqual(", ".join(f"{run.claimed:%H:%M:%S}" for run in runs), row["runs"])

    def test_numbers(self) -> None:
        """The limits that the text has."""
        for text in (
            f"({LISTED} if not given, {MAX_LISTED} at most)",
            f"the longest of elapsed time {MAX_INTERVAL} of them",
            f"does not come within {YEARS_AHEAD} years never comes",
            f"An expression has {MAX_TEXT} characters at most",
        ):
            self.assertIn(text, " ".join(PAGE.split()))


def life(planned: Plan, policy: RunPolicy, lasting: timedelta, start: datetime) -> Iterator[Run]:
    """The runs of a job that succeed, from when there is somebody to run them."""
    scheduled, anchor, now = planned.first, planned.anchor, start
    for _ in range(20):
        now = max(now, scheduled)
        run = Run(
            row=1,
            token=b"",
            key=JobKey("a", "b"),
            schedule=planned.schedule,
            options=planned.options,
            anchor=anchor,
            scheduled=scheduled,
            due=scheduled,
            waited=False,
            id="1",
            attempt=1,
            started=now,
            successes=0,
            claimed=now,
            lease_ends=0.0,
            payload=b"b",
            timeout=10.0,
        )
        verdict: Verdict | None = missed(run)
        if verdict is None:
            yield run
            now += lasting
            verdict = judge(run, Outcome(200, 0.1), now, policy, Random(1)).verdict
        assert isinstance(verdict, Reschedule | Skip)
        scheduled = verdict.scheduled
        if isinstance(verdict, Reschedule):
            anchor = verdict.anchor


class CurlTests(APITestCase):
    """The answers to the page's calls."""

    async def test_answers(self) -> None:
        """Each call is answered with what the page has below it."""
        self.store.time = NOW
        self.store.now = lambda: succeed(NOW)  # type: ignore[method-assign]
        calls = re.findall(r"^    \$ curl (?:-X (\w+) )?'http://[^/]+(.*)'\n    (.*)$", PAGE, re.M)
        self.assertEqual(len(calls), PAGE.count("$ curl"))
        for method, target, said in calls:
            answer = await self.ask(f"{method or 'GET'} {target}".encode())
            self.assertEqual(json.loads(answer.partition(b"\r\n\r\n")[2]), json.loads(said))
            self.assertEqual(answer.partition(b"\r\n\r\n")[2].decode(), said)
