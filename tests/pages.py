"""Pages of docs/ whose calls of curl(1) are made of a daemon, and get what stands on the page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from twisted.internet.utils import getProcessOutputAndValue

from tests.daemons import CHECKOUT, DaemonTestCase

#: The time of all answers on the page.
CLOCK = datetime(2026, 12, 1, 9, tzinfo=UTC)

#: Times on the page that are no further than this from `CLOCK` go with it. Other times are exact.
NEAR = timedelta(days=1)

#: How long (seconds) a GET is repeated until its answer is that of the page: the job may have to
#: run first.
PATIENCE = 10

#: The longest step of statistics on a page.
STEP = timedelta(hours=1)

#: Parts of answers that differ from run to run, by kind. Parts of the same text on the page have to
#: be of the same text in the answers, and other parts of another text.
PARTS = {
    # A time that is moved to the beginning of a step, up to an hour.
    "step": r'(?:(?<="from":")|(?<="points":\[\{"at":"))\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ',
    # A percentile, or a duration.
    "seconds": r'(?:(?<="p\d\d":)|(?<="heartbeat_age":)|(?<="clock_offset":)|(?<=_latency":))'
    r"(?:-?[\d.]+(?:e-\d+)?|null)",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z",
    "date": r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT",
    "etag": r'(?<=")[0-9a-f]{13}(?=")',
    "name": r"\b[0-9A-HJKMNP-TV-Z]{26}\b",
    "run": r"\b[0-9a-f]{32}-\d+\b",
    "alert": r'(?<="id":")[0-9a-f]{32}',
    "ms": r'(?<=ms":)\d+',
    "cursor": r'(?:(?<=cursor=)|(?<="cursor":"))[\w-]+',
    "wait": r"(?:(?<=, in )|(?<=due in ))\d+ (?:min|s)(?: \d+ s)?",
    "instance": r'(?:(?<="instance_id":")|(?<="instance":"))[\w.-]+',
    "tzdata": r'(?<="tzdata":")\d{4}[a-z]+',
}
_PART = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in PARTS.items()))

#: Stands where a line of the page is broken: for nothing, or for one space.
BREAK = "\0"


class Call(NamedTuple):
    """A command on the page, and the answer below it."""

    command: str
    #: With `BREAK` where a line is broken.
    answer: str


def calls(page: str) -> Iterator[Call]:
    """The page's calls, in order: blocks of lines that begin with four spaces."""
    for block in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", page, re.MULTILINE):
        text = re.sub(r"^ {4}", "", block, flags=re.MULTILINE)
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            # A line goes on behind a backslash, and between quotes.
            command = re.match(r"(?:\\\n|'[^']*'|[^\n'])*\n", part)
            assert command is not None
            answer = part[command.end() :].strip("\n")
            yield Call(command[0].strip(), re.sub(r"\n +", BREAK, answer))


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
        for part in _PART.finditer(said.replace(BREAK, " ")):
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
            elif kind == "ms":
                self._check_late(timedelta(milliseconds=int(came)), now, text, came)
            elif kind == "step":
                late = _time(came) - _time(text) + CLOCK - self._started
                self._check_late(late + STEP, now + STEP, text, came)
            elif kind == "seconds":
                pass  # as long as it took
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
    return re.escape(text).replace(re.escape(BREAK), " ?")


def page(name: str) -> str:
    """The text of a page of docs/."""
    return (CHECKOUT / "docs" / name).read_text(encoding="utf-8")


class PageTestCase(DaemonTestCase):
    """A page's calls, from its top to its end, made of one daemon."""

    async def make_all(self, page: str, **sections: Any) -> int:
        """
        Make the calls of a page.

        :param sections: of the daemon's configuration.
        :return: how many there were.
        """
        self.assertTrue(shutil.which("curl"), "this test needs curl")
        _, url = await self.start(**sections)
        self.told = Told(
            datetime.now(UTC),
            {"http://127.0.0.1:34006": url, "http://127.0.0.1:5000/": self.baseurl},
        )
        with open(f"{self.folder}/.curlrc", "w", encoding="ascii") as file:
            file.write("silent\nshow-error\nnoproxy = *\n")
        made = 0
        for call in calls(page):
            await self.make(call)
            made += 1
        self.assertEqual(made, len(re.findall(r"^    \$ ", page, re.MULTILINE)))
        return made

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
                    said = call.answer.replace(BREAK, "\n ")
                    self.fail(f"{differs}\n$ {call.command}\n{said}\n-- came: --\n{answer}")
            await self.pause(0.05)
