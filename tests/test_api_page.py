"""docs/api.md says what the daemon does: curl makes each call, and gets what stands there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase

from dalga.model.fields import FIELDS, READERS
from dalga.operations import Status
from dalga.web.api import Api
from dalga.web.errors import STATUS
from dalga.web.parameters import schedule_request
from tests.daemons import CHECKOUT, DaemonTestCase, Hit
from tests.stores import each_engine

PAGE = (CHECKOUT / "docs" / "api.md").read_text(encoding="utf-8")

#: The time of all answers on the page.
CLOCK = datetime(2026, 12, 1, 9, tzinfo=UTC)

#: Times on the page that are no further than this from `CLOCK` go with it. Other times are exact.
NEAR = timedelta(days=1)

#: How long (seconds) a GET is repeated until its answer is that of the page: the job may have to
#: run first.
PATIENCE = 10

#: Parts of answers that differ from run to run, by kind. Parts of the same text on the page have to
#: be of the same text in the answers, and other parts of another text.
PARTS = {
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z",
    "date": r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT",
    "etag": r'(?<=")[0-9a-f]{13}(?=")',
    "name": r"\b[0-9A-HJKMNP-TV-Z]{26}\b",
    "cursor": r'(?:(?<=cursor=)|(?<="cursor":"))[\w-]+',
    "wait": r"(?:(?<=, in )|(?<=due in ))\d+ (?:min|s)(?: \d+ s)?",
    "instance": r'(?<="instance_id":")[\w.-]+',
    "tzdata": r'(?<="tzdata":")\d{4}[a-z]+',
}
_PART = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in PARTS.items()))

#: Stands where a line of the page is broken: for nothing, or for one space.
_BREAK = "\0"


class Call(NamedTuple):
    """A command on the page, and the answer below it."""

    command: str
    #: With `_BREAK` where a line is broken.
    answer: str


def calls() -> Iterator[Call]:
    """The page's calls, in order: blocks of lines that begin with four spaces."""
    for block in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", PAGE, re.MULTILINE):
        text = re.sub(r"^ {4}", "", block, flags=re.MULTILINE)
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            # A line goes on behind a backslash, and between quotes.
            command = re.match(r"(?:\\\n|'[^']*'|[^\n'])*\n", part)
            assert command is not None
            answer = part[command.end() :].strip("\n")
            yield Call(command[0].strip(), re.sub(r"\n +", _BREAK, answer))


class Differs(Exception):
    """An answer is not that of the page."""


class Told:
    """
    What the parts of the page's answers have come to.

    :param started: the time that is `CLOCK` on the page.
    :param places: texts of the page -> texts of the daemon, such as its URL.
    """

    def __init__(self, started: datetime, places: dict[str, str]) -> None:
        self._started = started
        self._places = places
        self._found: dict[tuple[str, str], str] = {}

    def command(self, text: str) -> str:
        """A command of the page as it is to be run."""

        def meant(part: re.Match[str]) -> str:
            kind, said = str(part.lastgroup), part[0]
            if kind == "time":
                moment = self._moment(said)
                return said if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"
            return self._found.get((kind, said), said)

        for said, there in self._places.items():
            text = text.replace(said, there)
        return _PART.sub(meant, text)

    def check(self, said: str, answer: str, now: datetime) -> None:
        """
        :param said: the answer on the page.
        :param answer: the answer that came.
        :param now: the time after it came.
        :raises Differs: if the one is not the other.
        """
        for on_page, there in self._places.items():
            answer = answer.replace(there, on_page)
        parts: list[tuple[str, str]] = []
        pattern, end = "", 0
        for part in _PART.finditer(said.replace(_BREAK, " ")):
            pattern += _literally(said[end : part.start()]) + f"({PARTS[str(part.lastgroup)]})"
            parts.append((str(part.lastgroup), part[0]))
            end = part.end()
        found = re.fullmatch(pattern + _literally(said[end:]), answer)
        if found is None:
            raise Differs("it is another one")
        known = dict(self._found)
        for (kind, text), came in zip(parts, found.groups(), strict=True):
            if kind in ("time", "date"):
                self._check_time(text, came, now)
            elif kind == "wait":
                self._check_late(_wait(text) - _wait(came), now, text, came)
            elif known.setdefault((kind, text), came) != came:
                raise Differs(f"{text} is {came}")
        if len({*known.values()}) < len(known):
            raise Differs("what differs on the page is the same")
        self._found = known

    def _check_time(self, said: str, came: str, now: datetime) -> None:
        moment = self._moment(said)
        if moment is not None:
            self._check_late(_time(came) - moment, now, said, came)
        elif said != came:
            raise Differs(f"{said} is {came}")

    def _check_late(self, late: timedelta, now: datetime, said: str, came: str) -> None:
        """A call is made as much later than on the page as all calls have taken by then."""
        second = timedelta(seconds=1)  # what is shown is cut off
        if not -second <= late <= now - self._started + second:
            raise Differs(f"{said} is {came}")

    def _moment(self, said: str) -> datetime | None:
        """The time that a time of the page stands for; None for one that is meant as it is."""
        offset = _time(said) - CLOCK
        return self._started + offset if abs(offset) <= NEAR else None


def _time(text: str) -> datetime:
    return parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(text)


def _wait(text: str) -> timedelta:
    """How long a text such as ``2 min 5 s`` says."""
    parts = dict(part[::-1] for part in re.findall(r"(\d+) (min|s)", text))
    return timedelta(minutes=int(parts.get("min", 0)), seconds=int(parts.get("s", 0)))


def _literally(text: str) -> str:
    return re.escape(text).replace(re.escape(_BREAK), " ?")


def answered(hit: Hit) -> int | tuple[int, str]:
    """What the endpoint answers: jobs of one path fail."""
    return 503 if hit.path == "broken" else 200


@each_engine(globals())
class CurlTests(DaemonTestCase):
    """The page's calls, from its top to its end, made of one daemon."""

    async def test_calls(self) -> None:
        self.assertTrue(shutil.which("curl"), "this test needs curl")
        self.endpoint.answer = answered
        billing = {"baseurl": self.baseurl + "in/", "success": "200-299", "gone": "204,410"}
        billing |= {"giveUp": "400-499"}
        headers = {"Authorization": "secret"}
        _, url = await self.start(
            **{"endpoint billing": billing, "endpoint billing headers": headers}
        )
        self.told = Told(
            datetime.now(UTC),
            {"http://127.0.0.1:34006": url, "http://127.0.0.1:5000/": self.baseurl},
        )
        with open(f"{self.folder}/.curlrc", "w", encoding="ascii") as file:
            file.write("silent\nshow-error\nnoproxy = *\n")
        made = 0
        for call in calls():
            await self.make(call)
            made += 1
        self.assertEqual(made, len(re.findall(r"^    \$ ", PAGE, re.MULTILINE)))
        self.assertGreater(made, 15)

    async def make(self, call: Call) -> None:
        """Make a call. Its answer has to be that of the page."""
        command = self.told.command(call.command)
        # What only reads may be asked again.
        until = self.reactor.seconds() + (0 if re.search("-X|-d|--data", command) else PATIENCE)
        while True:
            out, errors, status = await getProcessOutputAndValue(
                "/bin/sh", ["-c", command], {"HOME": self.folder, "PATH": "/usr/bin:/bin"}
            )
            self.assertEqual(status, 0, errors.decode())
            answer = out.decode().replace("\r\n", "\n").strip("\n")
            try:
                self.told.check(call.answer, answer, datetime.now(UTC))
                return
            except Differs as differs:
                if self.reactor.seconds() >= until:
                    said = call.answer.replace(_BREAK, "\n ")
                    self.fail(f"{differs}\n$ {call.command}\n{said}\n-- came: --\n{answer}")
            await self.pause(0.05)


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
            (f'{{"a":1,{_BREAK}"b":"x{_BREAK}y"}}', '{"a":1,"b":"x y"}', True),
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
