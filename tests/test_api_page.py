"""docs/api.md says what the daemon does: curl makes each call, and gets what stands there."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.attempt import ErrorKind
from dalga.model.fields import FIELDS, READERS
from dalga.model.record import Result
from dalga.model.runlist import ListedRun
from dalga.operations import Status
from dalga.web.api import Api
from dalga.web.errors import STATUS
from dalga.web.parameters import schedule_request
from dalga.web.runs import FILTERS as FILTERS_OF_RUNS
from dalga.web.runs import run_json
from tests.daemons import Hit
from tests.pages import BREAK, Differs, PageTestCase, Told, page
from tests.stores import each_engine
from tests.test_web_runs import RECORD

PAGE = page("api.md")


def answered(hit: Hit) -> int | tuple[int, str]:
    """What the endpoint answers: jobs of one path fail."""
    return 503 if hit.path == "broken" else 200


@each_engine(globals())
class CurlTests(PageTestCase):
    """The page's calls, from its top to its end, made of one daemon."""

    async def test_calls(self) -> None:
        self.endpoint.answer = answered
        billing = {"baseurl": self.baseurl + "in/", "success": "200-299", "gone": "204,410"}
        billing |= {"giveUp": "400-499", "secrets": f"whsec_{'ab' * 16}"}
        sections = {
            "endpoint": {"baseurl": self.baseurl, "timeout": "10s"},
            "endpoint billing": billing,
            "endpoint billing headers": {"Authorization": "Bearer 5cd1a7"},
        }
        self.assertGreater(await self.make_all(PAGE, **sections), 15)


class ToldTests(SynchronousTestCase):
    """An answer that is not that of the page is seen."""

    def setUp(self) -> None:
        self.started = datetime(2030, 1, 1, tzinfo=UTC)
        self.told = Told(self.started, {"http://page": "http://daemon"})

    def check(self, said: str, answer: str) -> str:
        """The difference; empty if there is none."""
        try:
            self.told.check(said, answer, self.started + timedelta(seconds=3))
        except Differs as differs:
            return str(differs)
        return ""

    def test_texts(self) -> None:
        for said, answer, same in [
            ('{"a":1}', '{"a":1}', True),
            ('{"a":1}', '{"a":2}', False),
            ('{"a":1}', '{"a":1,"b":2}', False),
            (f'{{"a":1,{BREAK}"b":"x{BREAK}y"}}', '{"a":1,"b":"x y"}', True),
            ("http://page/x", "http://daemon/x", True),
            ("http://page/x", "http://elsewhere/x", False),
            ('"cursor":"abc"', '"cursor":""', False),
        ]:
            self.assertEqual(self.check(said, answer) == "", same, said)

    def test_times(self) -> None:
        for said, answer, same in [
            ("2026-12-01T09:01:00Z", "2030-01-01T00:01:00Z", True),
            ("2026-12-01T09:01:00Z", "2030-01-01T00:01:03Z", True),
            ("2026-12-01T09:01:00Z", "2030-01-01T00:01:05Z", False),
            ("2026-12-01T09:01:00Z", "2030-01-01T00:00:30Z", False),
            ("2026-12-01T09:01:00Z", "2026-12-01T09:01:00Z", False),
            ("2035-12-01T09:01:00Z", "2035-12-01T09:01:00Z", True),
            ("2035-12-01T09:01:00Z", "2035-12-01T09:01:01Z", False),
            ("Tue, 01 Dec 2026 09:00:00 GMT", "Tue, 01 Jan 2030 00:00:02 GMT", True),
            ("Tue, 01 Dec 2026 09:00:00 GMT", "Tue, 01 Jan 2030 00:01:00 GMT", False),
            ("due in 1 min 2 s", "due in 59 s", True),
            ("due in 1 min 2 s", "due in 1 min 10 s", False),
            ("due in 1 min 2 s", "due in 50 s", False),
        ]:
            self.assertEqual(self.check(said, answer) == "", same, (said, answer))

    def test_parts(self) -> None:
        """The same text is the same thing, and another text another one."""
        first, second, third = (f'"{number:013x}"' for number in (1, 2, 3))
        self.assertEqual(self.check(f"ETag: {first}", f"ETag: {third}"), "")
        self.assertNotEqual(self.check(f"ETag: {first}", f"ETag: {second}"), "")
        self.assertNotEqual(self.check(f"ETag: {second}", f"ETag: {third}"), "")
        self.assertEqual(self.check(f"ETag: {first}", f"ETag: {third}"), "")
        self.assertEqual(self.told.command(f"-H 'If-Match: {first}'"), f"-H 'If-Match: {third}'")

    def test_commands(self) -> None:
        said = "curl 'http://page/jobs?due_before=2026-12-01T09:05:00Z&x=2035-01-01T00:00:00Z'"
        meant = "curl 'http://daemon/jobs?due_before=2030-01-01T00:05:00Z&x=2035-01-01T00:00:00Z'"
        self.assertEqual(self.told.command(said), meant)


def code(cell: str) -> list[str]:
    """The texts between backquotes in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def rows(heading: str, header: str) -> list[list[str]]:
    """The cells of a table of the page, row by row, without its header."""
    section = PAGE.partition(f"{heading}\n")[2]
    table = section.partition(f"{header}\n")[2].partition("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[1:]]


class TableTests(SynchronousTestCase):
    """The tables of the page."""

    def test_each_call(self) -> None:
        """The calls are those that have a route."""
        said = [code(row[0])[0] for row in rows("## Calls", "| call | answer |")]
        names = {"<job:target>": "<path>/<body>", "<path:target>": "<path>"}
        routes = []
        for rule in Api.app.url_map.iter_rules():
            path = re.sub("<.*?>", lambda found: names.get(found[0], found[0]), rule.rule)
            routes += [f"{method} {path}" for method in (rule.methods or set()) - {"HEAD"}]
        self.assertEqual(sorted(said), sorted(routes))

    def test_each_parameter(self) -> None:
        """In the order in which a refusal lists them."""
        table = rows("## Parameters of PUT", "| parameter | what it says | example |")
        self.assertEqual([code(row[0])[0] for row in table], [*READERS])

    def test_each_example(self) -> None:
        """A PUT takes it, as text, or as JSON where it is an object."""
        for name, _, examples in rows(
            "## Parameters of PUT", "| parameter | what it says | example |"
        ):
            self.assertTrue(code(examples) or examples == "the same", name)
            for example in code(examples):
                (parameter,) = code(name)
                value = json.loads(example) if example.startswith("{") else example
                body = json.dumps({"location": "Europe/Riga", parameter: value}).encode()
                schedule_request(b"", "application/json", body)

    def test_each_parameter_that_is_not_shown_is_named(self) -> None:
        hidden = [field.name for field in FIELDS if field.read and field.show is None]
        *others, last = (f"`{name}`" for name in hidden)
        sentence = f"with `_` for `-`, but for {', '.join(others)} and {last}"
        self.assertTrue(sentence in " ".join(PAGE.split()), sentence)

    def test_each_kind_of_error(self) -> None:
        """With the sentence that a run shows as its hint."""
        table = rows("### Kinds of errors", "| `error_kind` | what went wrong | what to look at |")
        self.assertEqual(
            [(code(kind)[0], hint) for kind, _, hint in table],
            [(kind, kind.hint) for kind in ErrorKind],
        )

    def test_each_result_of_a_run(self) -> None:
        table = rows("### One run", "| `result` | the run |")
        self.assertEqual([code(row[0])[0] for row in table], [*Result])

    def test_each_filter_of_runs(self) -> None:
        table = rows("## Runs", "| filter | the run's | index |")
        named = {name for row in table for name in code(row[0])}
        self.assertEqual(named, {name.replace("-", "_") for name in FILTERS_OF_RUNS})

    def test_each_member_of_a_run(self) -> None:
        """In their order, the hint and the state beside others."""
        table = rows("### One run", "| member | what it says |")
        said = [name for row in table for name in code(row[0])]
        whole = replace(RECORD, replay_of="0-1", response_headers="X-A: 1", response_body="no")
        shown = json.loads(run_json(ListedRun(whole)))
        self.assertEqual(said, [*shown])

    def test_status(self) -> None:
        """The keys of GET /status, in their order."""
        table = rows("## Counts", "| key | what it says |")
        self.assertEqual(
            [name for row in table for name in code(row[0])], list(Status.__annotations__)
        )

    def test_each_status_of_an_error(self) -> None:
        table = rows("## Errors", "| status | when |")
        said = [int(number) for row in table for number in row[0].split(", ")]
        self.assertEqual(sorted(said), sorted({500, *map(int, STATUS.values())}))
