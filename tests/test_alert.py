"""What an alert says, and where it goes."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.alert import NAMED, Alert, Event, Targets, content, message, slack, summary
from dalga.model.attempt import ErrorKind
from dalga.model.key import RawKey
from tests.examples import NOW

JOB = RawKey("reports", "daily")
FAILING = Alert(
    Event.JOB_FAILING,
    NOW,
    job=JOB,
    endpoint="billing",
    run_id="ab-1",
    scheduled=NOW - timedelta(seconds=9),
    attempt=3,
    streak=3,
    status=500,
    error_kind=ErrorKind.STATUS,
    error="500 Internal Server Error",
    next_run=NOW + timedelta(seconds=1.5),
    since=NOW - timedelta(seconds=8),
)


class ContentTests(SynchronousTestCase):
    def test_standard(self) -> None:
        """The members that docs/alerts.md lists, in its order."""
        self.assertEqual(
            content(FAILING, "0a", "web-1"),
            '{"id":"0a","event":"job.failing","at":"2014-11-11T22:10:40Z",'
            '"message":"The job reports/daily fails: 3 attempts. 500 Internal Server Error.",'
            '"job":{"path":"reports","body":"daily"},"endpoint":"billing","run_id":"ab-1",'
            '"scheduled":"2014-11-11T22:10:31Z","attempt":3,"streak":3,"status":500,'
            '"error_kind":"status","error":"500 Internal Server Error",'
            '"next_run":"2014-11-11T22:10:41.5Z","since":"2014-11-11T22:10:32Z",'
            '"instance":"web-1"}',
        )

    def test_docs(self) -> None:
        """docs/alerts.md shows this alert, and has each member and each event in its tables."""
        page = (Path(__file__).parent.parent / "docs" / "alerts.md").read_text(encoding="utf-8")
        shown = re.search(r'^    (\{"id".*?\})$', page, re.MULTILINE | re.DOTALL)
        assert shown is not None
        members = json.loads(re.sub(r"\n +", "", shown[1]))
        self.assertEqual(list(members), list(json.loads(content(FAILING, "0a", "web-1"))))
        self.assertEqual(members["message"], message(FAILING))
        table = page.partition("| member | |")[2].partition("\n\n")[0]
        rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
        names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
        self.assertEqual(sorted(names), sorted([*members, "counts", "jobs"]))
        events = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", page, re.MULTILINE)
        self.assertEqual(sorted(events), sorted(Event))

    def test_members_are_always_there(self) -> None:
        """So a program can read them without asking whether they are."""
        names = list(json.loads(content(FAILING, "0a", "web-1")))
        for event in Event:
            found = json.loads(content(Alert(event, NOW), "0a", "web-1"))
            more = ["counts", "jobs"] if event is Event.SUMMARY else []
            self.assertEqual(list(found), names + more)

    def test_messages(self) -> None:
        began = NOW - timedelta(hours=1)
        for alert, sentence in [
            (
                FAILING._replace(event=Event.JOB_GIVEN_UP, attempt=1),
                "The job reports/daily has a run that was given up after 1 attempt. 500 Internal "
                "Server Error.",
            ),
            (
                Alert(Event.JOB_RECOVERED, NOW, job=JOB),
                "The job reports/daily is well again: a run has succeeded.",
            ),
            (
                Alert(Event.JOB_REMOVED, NOW, job=JOB),
                "The job reports/daily was removed by an answer of its endpoint.",
            ),
            (
                Alert(Event.JOB_SILENT, NOW, job=JOB, since=began),
                "The job reports/daily has had no success since 2014-11-11T21:10:40Z: its "
                "expect-within is over.",
            ),
            (
                Alert(Event.JOB_PROBLEM, NOW, job=JOB, error="interval is 'x'"),
                "The job reports/daily can't be run, and was set aside: interval is 'x'",
            ),
            (
                Alert(Event.ENDPOINT_DOWN, NOW, endpoint="billing", error="connection refused"),
                "The endpoint billing is down: nearly all attempts fail. connection refused.",
            ),
            (
                Alert(Event.ENDPOINT_UP, NOW, endpoint="billing", since=began),
                "The endpoint billing is up again. It was down since 2014-11-11T21:10:40Z.",
            ),
            (
                Alert(Event.LAGGING, NOW, since=began),
                "Runs are late: due jobs have waited since 2014-11-11T21:10:40Z to be claimed.",
            ),
            (
                Alert(Event.CAUGHT_UP, NOW, since=began),
                "Runs are in time again. They were late since 2014-11-11T21:10:40Z.",
            ),
        ]:
            self.assertEqual(message(alert), sentence)

    def test_summary(self) -> None:
        jobs = [RawKey("p", str(number)) for number in range(12)]
        alert = summary(
            NOW,
            "billing",
            [*(("job.failing", job) for job in jobs), ("job.removed", jobs[0])],
        )
        self.assertEqual(alert.counts, {"job.failing": 12, "job.removed": 1})
        self.assertEqual(alert.jobs, tuple(jobs[:NAMED]))
        self.assertEqual(
            message(alert),
            "13 more alerts of the endpoint billing: 12 job.failing, 1 job.removed. "
            "p/0, p/1, p/2, p/3, p/4, p/5, p/6, p/7, p/8, p/9 and others.",
        )
        more = summary(
            NOW,
            "billing",
            [("job.removed", jobs[1])],
            json.loads(content(alert, "0a", "web-1")),
        )
        self.assertEqual(more.counts, {"job.failing": 12, "job.removed": 2})
        self.assertEqual(more.jobs, alert.jobs)
        odd = {"counts": {"job.failing": "x"}, "jobs": [1, {"path": "p"}, {"path": 1, "body": 2}]}
        for before in (odd, {"counts": 1, "jobs": 1}):  # somebody's SQL (P6)
            found = summary(NOW, None, [("job.failing", jobs[0])], before)
            self.assertEqual(found.counts, {"job.failing": 1})
            self.assertIn(jobs[0], found.jobs)
        few = summary(NOW, None, [("scheduler.lagging", None)])
        self.assertEqual(message(few), "1 more alerts: 1 scheduler.lagging.")

    def test_slack(self) -> None:
        """No name can call people, or end a message."""
        written = content(FAILING._replace(job=RawKey("<!channel>", "a&b")), "0a", "web-1")
        found = json.loads(slack(json.loads(written)))
        text = "The job &lt;!channel&gt;/a&amp;b fails: 3 attempts. 500 Internal Server Error."
        self.assertEqual(found["text"], f"job.failing: {text}")
        section, context = found["blocks"]
        self.assertEqual(section["text"], {"type": "mrkdwn", "text": f"*job.failing* {text}"})
        self.assertIn("endpoint: billing · run_id: ab-1", context["elements"][0]["text"])
        self.assertIn("at: 2014-11-11T22:10:40Z", context["elements"][0]["text"])
        self.assertNotIn("<", json.dumps(found))

    def test_slack_elsewhere(self) -> None:
        """Mattermost and Discord call everybody by a plain word."""
        for word in ("@channel", "@all", "@here", "@everyone", "@Channel"):
            job = RawKey(f"to {word}", "a@example.org")
            written = content(FAILING._replace(job=job), "0a", "web-1")
            text = json.loads(slack(json.loads(written)))["text"]
            self.assertNotIn(word, text)
            self.assertIn(f"to @\u200b{word[1:]}/a@example.org", text)


class TargetsTests(SynchronousTestCase):
    def test_of_a_job(self) -> None:
        targets = Targets(("default", "ops"), {"billing": "ops", "quiet": "none"})
        for chosen, endpoint, expected in [
            (None, "default", "default"),
            (None, "billing", "ops"),
            (None, "quiet", None),
            (None, None, "default"),
            ("ops", "default", "ops"),
            ("default", "billing", "default"),
            ("ops", "quiet", "ops"),
            ("none", "billing", None),
            ("gone", "billing", "ops"),
            ("gone", "quiet", None),
        ]:
            self.assertEqual(targets.of_job(chosen, endpoint), expected, (chosen, endpoint))

    def test_without_a_default_target(self) -> None:
        targets = Targets(("ops",), {"billing": "ops"})
        self.assertEqual(targets.of_endpoint("billing"), "ops")
        self.assertIsNone(targets.of_endpoint("default"))
        self.assertIsNone(targets.of_endpoint(None))
        self.assertIsNone(Targets().of_job("ops", "billing"))
