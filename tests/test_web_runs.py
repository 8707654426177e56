"""Lists of runs: the query, cursors and links, and the JSON of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlencode

from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.answers import Statuses
from dalga.model.attempt import Attempt, ErrorKind
from dalga.model.key import Position, RawKey
from dalga.model.listing import Filters
from dalga.model.record import Record, Result, Shelf
from dalga.model.run import Cause
from dalga.model.runlist import (
    BEFORE_OPEN,
    ListedRun,
    RunFilters,
    RunPage,
    RunPlace,
    RunQuery,
    RunState,
)
from dalga.web.cursors import (
    _octets,
    _text,
    cursor_from_text,
    cursor_text,
    run_cursor_from_text,
    run_cursor_text,
)
from dalga.web.runs import job_run_list, last_run_members, next_runs, run_json, run_list, runs_json

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
RECORD = Record(
    run_id="0f" * 16 + "-17",
    path="mail",
    body="7",
    endpoint="default",
    trigger=Cause.SCHEDULE,
    scheduled=NOW,
    claimed=NOW + timedelta(milliseconds=2),
    started=NOW + timedelta(milliseconds=4),
    ended=NOW + timedelta(milliseconds=35),
    lateness_ms=4,
    instance="web-1",
    result=Result.SUCCEEDED,
    status=200,
    attempts=(Attempt(1, NOW + timedelta(milliseconds=4), "web-1", 31, 200, None),),
)


class QueryTests(SynchronousTestCase):
    def test_filters(self) -> None:
        for query, filters in [
            ("", RunFilters()),
            ("path=a&body=b&endpoint=billing", RunFilters(path="a", body="b", endpoint="billing")),
            ("prefix=a%2F&tag=x&tag=y", RunFilters(prefix="a/", tags=frozenset({"x", "y"}))),
            (
                "result=Given_Up&result=running",
                RunFilters(
                    results=frozenset({Result.GIVEN_UP}), states=frozenset({RunState.RUNNING})
                ),
            ),
            ("status=500-599,429", RunFilters(statuses=Statuses(((429, 429), (500, 599))))),
            ("error_kind=dns", RunFilters(error_kinds=frozenset({ErrorKind.DNS}))),
            ("error-kind=dns", RunFilters(error_kinds=frozenset({ErrorKind.DNS}))),
            ("since=2026-03-01T09:00:00Z", RunFilters(since=NOW)),
        ]:
            self.assertEqual(run_list(query.encode()), RunQuery(filters))

    def test_of_a_job(self) -> None:
        self.assertEqual(
            job_run_list(b"result=skipped&limit=7", RawKey("a", "b")),
            RunQuery(RunFilters(path="a", body="b", results=frozenset({Result.SKIPPED})), limit=7),
        )

    def test_refusals(self) -> None:
        for query, said in [
            ("limit=0", "limit is '0': it takes a whole number from 1 to 1000"),
            ("result=late", "result is 'late': it takes succeeded, removed, "),
            ("error_kind=503", "error-kind is '503': it takes dns, connect, "),
            ("status=none", "status is 'none', which "),
            ("path=a&prefix=b", "path and prefix are both given: give path for the runs of this "),
            (
                "since=2026-03-01T09:00:00Z&until=2026-03-01T09:00:00Z",
                "until is 2026-03-01T09:00:00Z, which is not later than since, ",
            ),
            ("path=a&path=b", "path is given twice"),
            ("state=running", "there is no parameter 'state'"),
            ("&".join(f"tag={number}" for number in range(11)), "there are 11 tags"),
            ("cursor=abc", "cursor is 'abc', which is none of a list of runs: it takes what the "),
        ]:
            error = self.assertRaises(InvalidRequest, run_list, query.encode())
            self.assertIn(said, str(error))
        for name in ("path", "prefix", "body", "tag"):
            given = f"{name}=a".encode()
            error = self.assertRaises(InvalidRequest, job_run_list, given, RawKey("a", "b"))
            self.assertIn(f"there is no parameter '{name}'", str(error))


class CursorTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        filters = RunFilters(path="a", since=NOW)
        for place in [
            RunPlace(Shelf.FINE, 1772355600000000, 17),
            RunPlace(Shelf.FAILED, 2**63 - 1, 2**63 - 1),
            BEFORE_OPEN,
        ]:
            text = run_cursor_text(place, filters)
            self.assertEqual(run_cursor_from_text(text, filters), place)

    def test_of_another_list(self) -> None:
        text = run_cursor_text(BEFORE_OPEN, RunFilters(path="a"))
        for other in (
            RunFilters(),
            RunFilters(path="b"),
            RunFilters(path="a", body="b"),
            RunFilters(path="a", results=frozenset({Result.SKIPPED})),
            RunFilters(path="a", states=frozenset({RunState.RUNNING})),
            RunFilters(path="a", since=NOW),
            RunFilters(path="a", until=NOW),
            RunFilters(path="a", statuses=Statuses(((500, 599),))),
            RunFilters(path="a", error_kinds=frozenset({ErrorKind.DNS})),
        ):
            error = self.assertRaises(ValueError, run_cursor_from_text, text, other)
            self.assertIn("is of another list", str(error))

    def test_lists_of_jobs_and_of_runs(self) -> None:
        """A cursor of the one is none of the other."""
        text = run_cursor_text(BEFORE_OPEN, RunFilters())
        error = self.assertRaises(ValueError, cursor_from_text, text, Filters())
        self.assertIn("is of a list of runs", str(error))
        text = cursor_text(Position(b"a", b"b"), Filters())
        error = self.assertRaises(ValueError, run_cursor_from_text, text, RunFilters())
        self.assertIn("is none of a list of runs", str(error))

    def test_changed(self) -> None:
        text = run_cursor_text(BEFORE_OPEN, RunFilters())
        for other in (text[:-1], text + "A", text[:10] + "xx" + text[12:], ""):
            self.assertRaises(ValueError, run_cursor_from_text, other, RunFilters())

    def test_made_up(self) -> None:
        """Cursors are no secrets: one that nobody was given is refused, whatever is in it."""
        octets = _octets(run_cursor_text(BEFORE_OPEN, RunFilters()))
        assert octets is not None
        self.assertEqual(run_cursor_from_text(_text(octets), RunFilters()), BEFORE_OPEN)
        for made_up in (
            b"\x00" + octets[1:],
            octets[:1] + b"\x03" + octets[2:],
            octets[:-16] + b"\xff" * 8 + octets[-8:],
            octets[:-8] + b"\xff" * 8,
            octets[:-16] + b"\x00" + octets[-16:],
            octets[:-1],
            octets[:1],
        ):
            error = self.assertRaises(
                ValueError, run_cursor_from_text, _text(made_up), RunFilters()
            )
            self.assertIn("is none", str(error))

    def test_link(self) -> None:
        """The link of a page is a query that gives the same list."""
        asked = {
            "prefix": "a b/",
            "body": "ü",
            "endpoint": "billing",
            "tag": "x",
            "result": "running",
            "status": "500-599",
            "error_kind": "dns",
            "since": "2026-03-01T09:00:00Z",
            "until": "2026-03-01T09:00:00.5Z",
            "limit": "7",
        }
        query = run_list(urlencode(asked).encode())
        cursor = run_cursor_text(BEFORE_OPEN, query.filters)
        link = next_runs(query, cursor, is_of_job=False)
        target, _, rest = link.removeprefix("<?").partition(">")
        self.assertEqual(rest, '; rel="next"')
        self.assertEqual(run_list(target.encode()).filters, query.filters)
        self.assertEqual(run_list(target.encode()).after, BEFORE_OPEN)
        self.assertEqual(dict(parse_qsl(target)).keys(), {*asked, "cursor"})

    def test_link_of_a_job(self) -> None:
        key = RawKey("a", "b")
        query = job_run_list(b"limit=7", key)
        link = next_runs(query, run_cursor_text(BEFORE_OPEN, query.filters), is_of_job=True)
        target = link.removeprefix("<?").partition(">")[0]
        self.assertEqual(job_run_list(target.encode(), key).after, BEFORE_OPEN)


class JsonTests(SynchronousTestCase):
    def test_a_run_that_succeeded(self) -> None:
        self.assertEqual(
            run_json(ListedRun(RECORD)).decode(),
            '{"run_id":"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f-17","path":"mail","body":"7",'
            '"endpoint":"default","trigger":"schedule","scheduled":"2026-03-01T09:00:00Z",'
            '"claimed":"2026-03-01T09:00:00.002Z","started":"2026-03-01T09:00:00.004Z",'
            '"ended":"2026-03-01T09:00:00.035Z","lateness_ms":4,"duration_ms":31,'
            '"instance":"web-1","result":"succeeded","status":200,"error_kind":null,"error":null,'
            '"attempt_count":1,"attempts":[{"n":1,"at":"2026-03-01T09:00:00.004Z",'
            '"instance":"web-1","ms":31,"status":200}]}',
        )

    def test_what_only_some_runs_have(self) -> None:
        failed = replace(
            RECORD,
            result=Result.GIVEN_UP,
            status=503,
            error_kind=ErrorKind.STATUS,
            error="503 Service Unavailable",
            replay_of="00-1",
            response_headers="X-A: 1",
            response_body="no",
        )
        shown = json.loads(run_json(ListedRun(failed)))
        self.assertEqual(shown["hint"], ErrorKind.STATUS.hint)
        self.assertEqual(shown["replay_of"], "00-1")
        self.assertEqual((shown["response_headers"], shown["response_body"]), ("X-A: 1", "no"))
        (listed,) = json.loads(runs_json(RunPage([ListedRun(failed)], None), None))["runs"]
        self.assertEqual(
            listed,
            {name: value for name, value in shown.items() if not name.startswith("response")},
        )
        self.assertEqual(
            last_run_members(failed),
            {name: value for name, value in listed.items() if name not in ("path", "body")},
        )

    def test_runs_that_have_not_ended(self) -> None:
        running = replace(RECORD, result=None, ended=None, attempts=())
        shown = json.loads(run_json(ListedRun(running, RunState.RETRYING, NOW)))
        self.assertEqual(
            (shown["result"], shown["ended"], shown["duration_ms"]), (None, None, None)
        )
        self.assertEqual(shown["state"], "retrying")
        self.assertEqual(shown["next_attempt"], "2026-03-01T09:00:00Z")

    def test_pages(self) -> None:
        self.assertEqual(runs_json(RunPage([], None), None), b'{"runs":[]}')
        self.assertEqual(
            runs_json(RunPage([], BEFORE_OPEN, partial=True), "abc"),
            b'{"runs":[],"cursor":"abc","partial":true}',
        )
