"""
What docs/from-go.md says of Dalga, held against Dalga: each call, parameter, key and option in its
tables is there if the column Dalga says so, and not if it doesn't. And the links of all pages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from werkzeug.exceptions import HTTPException

from dalga.cli import Options
from dalga.config.changes import FIXED
from dalga.config.headers import HEADERS
from dalga.config.load import load_config
from dalga.config.sections import KEYS, Config
from dalga.errors import ConfigError, InvalidRequest
from dalga.metrics import FAMILIES
from dalga.model.attempt import ErrorKind
from dalga.model.fields import READERS
from dalga.model.record import Result
from dalga.operations import Status
from dalga.store import Tally
from dalga.web.api import Api
from dalga.web.errors import UnknownResource
from dalga.web.parameters import job_key, schedule_request

DOCS = Path(__file__).parent.parent / "docs"

FROM_GO = (DOCS / "from-go.md").read_text(encoding="utf-8")

#: The columns of most tables there, after the first.
COLUMNS = ["1.0", "3.1", "4.0", "Dalga", "where it differs, and why"]


def tables(heading: str, first: str) -> Iterator[tuple[str, str]]:
    """
    The first column and the column Dalga of a table, without its header.

    :param heading: what the table is under, with its number signs.
    :param first: the heading of its first column.
    """
    section = FROM_GO.partition(f"\n{heading}\n")[2]
    lines = iter(re.split(r"\n#", section)[0].splitlines())
    header = f"| {' | '.join([first, *COLUMNS])} |"
    for line in lines:
        if line == header:
            break
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        cells = cells_of(line)
        yield cells[0], cells[4]


def cells_of(line: str) -> list[str]:
    """A table's row, cell by cell."""
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def code(cell: str) -> str:
    """What stands between backquotes in a cell, or nothing if it is not all of it."""
    found = re.fullmatch(r"`([^`]+)`", cell)
    return found[1] if found else ""


def is_there(cell: str) -> bool:
    """What the column Dalga says."""
    return cell.startswith(("yes", "differs", "ignored"))


class FromGoTests(SynchronousTestCase):
    """The tables of docs/from-go.md are true of this Dalga."""

    def test_what_dalga_does_is_of_four_kinds(self) -> None:
        """Each row of six columns says "yes", "no", "differs" or "ignored"."""
        rows = [cells for line in FROM_GO.splitlines() if len(cells := cells_of(line)) == 6]
        said = [row[4] for row in rows if row[1:] != COLUMNS and row[4] != "---"]
        self.assertGreater(len(said), 100)
        for cell in said:
            self.assertRegex(cell, r"^(yes|no|differs|ignored)\b")

    def test_calls(self) -> None:
        """A call is answered by a route exactly if the table says so."""
        routes = Api.app.url_map.bind("localhost")
        calls = [(code(cell), answered) for cell, answered in tables("## HTTP", "call")]
        calls = [(call, answered) for call, answered in calls if call.count("/")]
        self.assertGreater(len(calls), 8)
        for call, answered in calls:
            method, _, path = call.partition(" ")
            path = path.replace("<path>", "p").replace("<body>", "b")
            try:
                routes.match(path, method)
                if path.startswith("/jobs/p/"):
                    job_key(re.sub("/(upcoming|runs)$", "", path).encode())
                found = True
            except (HTTPException, UnknownResource):
                found = False
            self.assertEqual(found, is_there(answered), call)

    def test_parameters(self) -> None:
        """A PUT knows a parameter exactly if the table says so."""
        rows = list(tables("## Parameters of PUT", "parameter"))
        self.assertGreater(len(rows), 10)
        for cell, known in rows:
            try:
                schedule_request(f"{code(cell)}=".encode(), None, b"")
                sentence = ""
            except InvalidRequest as error:
                sentence = str(error)
            self.assertEqual("there is no parameter" not in sentence, is_there(known), cell)

    def test_no_parameter_is_left_out(self) -> None:
        """What a PUT knows is in the table."""
        rows = [code(cell) for cell, _ in tables("## Parameters of PUT", "parameter")]
        self.assertEqual(sorted(READERS), sorted(rows))

    def test_keys(self) -> None:
        """
        A configuration key is taken exactly if the table says so, the default that stands there
        is the one that holds, and what is ignored changes nothing.
        """
        rows = list(tables("## Configuration", "key"))
        keys = [row for row in rows if code(row[0]).startswith("[")]
        self.assertGreater(len(keys), 30)
        for cell, taken in keys:
            section, _, key = code(cell).partition(" ")
            default = re.search(r"`(.*)`", taken)
            value = default[1] if default else {"yes": "10s", "ignored": "x"}.get(taken, "")
            found = self.configured(section, f"{key} = {value}")
            self.assertEqual(found is not None, is_there(taken), cell)
            if found is not None:
                self.assertEqual(found, self.configured(section, ""), cell)

    def test_no_key_is_left_out(self) -> None:
        """Each key that the configuration has is in the table, and in dalga.ini.example."""
        keys = {f"[{section}] {key}" for section in KEYS for key in KEYS[section]}
        table = {code(cell) for cell, _ in tables("## Configuration", "key")}
        self.assertEqual(keys - table, set())
        example, section = set(), ""
        text = (DOCS.parent / "dalga.ini.example").read_text(encoding="utf-8")
        for line in text.splitlines():
            if found := re.fullmatch(r";?(\[[\w. ]+\])", line):
                section = found[1]
            elif found := re.fullmatch(r";?([\w-]+) =.*", line):
                example.add(f"{section} {found[1]}")
        free = {f"[{'.'.join(HEADERS)}] Authorization"}
        # The keys of an endpoint with a name are those of [endpoint].
        free |= {"[endpoint billing] baseurl", "[endpoint billing headers] Authorization"}
        free |= {"[alerts ops] url", "[alerts ops] format", "[tokens] ci", "[tokens] file"}
        self.assertEqual(example - free, keys)
        self.assertIn(" ".join([f"[{HEADERS[0]}]", *HEADERS[1:]]), table)

    def configured(self, section: str, line: str) -> Config | None:
        """What a file of one section with one line comes to; None where it is refused."""
        with TemporaryDirectory() as folder:
            path = os.path.join(folder, "dalga.ini")
            Path(path).write_text(f"{section}\n{line}\n", encoding="utf-8")
            try:
                return load_config(path, {})
            except ConfigError as error:
                self.assertRegex(str(error), "there is no section|has no key", line)
                return None

    def test_options(self) -> None:
        """An option of the command is taken, with one dash, exactly if the table says so."""
        rows = list(tables("## Command line", "option"))
        self.assertGreater(len(rows), 4)
        for cell, taken in rows:
            words = [code(cell), "FILE"] if code(cell) == "-config" else [code(cell)]
            options = Options()  # type: ignore[no-untyped-call]
            try:
                with redirect_stdout(StringIO()):  # -version
                    options.parseOptions(words)
                known = 1 in options.values() or options["config"] == "FILE"
            except SystemExit:
                known = True
            except UsageError:
                known = False
            self.assertEqual(known, is_there(taken), cell)

    def test_status(self) -> None:
        """The keys of GET /status are those of the table, in its order."""
        rows = [code(cell) for cell, _ in tables("### /status", "key")]
        self.assertEqual(rows, [field.name for field in fields(Status)])

    def test_settings_of_the_later_releases(self) -> None:
        """What step 4 of the move says is taken, in an ini file as in TOML."""
        block = re.search(r"\n( {7}\[jobs\]\n(?: {7}.*\n)+)", FROM_GO)
        assert block is not None
        lines = [line.strip() for line in block[1].splitlines()]
        config = self.configured(lines[0], "\n".join(lines[1:]))
        assert config is not None
        self.assertFalse(config.jobs.fixed_intervals)
        self.assertEqual(config.jobs.retry.interval, config.jobs.retry.max_interval)
        self.assertEqual((config.jobs.retry.multiplier, config.jobs.retry.jitter), (1, 0))


class RunningPageTests(SynchronousTestCase):
    """docs/running.md says what a reload takes over."""

    def test_reload(self) -> None:
        """Each key is in the table, in the column where it belongs."""
        page = (DOCS / "running.md").read_text(encoding="utf-8")
        head = "| section | taken over at a reload | needs a restart |\n|---|---|---|\n"
        found = page.split(head)[1].split("\n\n")[0].splitlines()
        expected = []
        for section, keys in KEYS.items():
            fixed = FIXED.get(section, frozenset())
            more = HEADERS[1:] if section == HEADERS[0] else ()
            taken = ", ".join(f"`{key}`" for key in (*keys, *more) if key not in fixed)
            left = ", ".join(f"`{key}`" for key in keys if key in fixed)
            expected.append(f"| `[{section}]` | {taken} | {left} |")
        self.assertEqual(found, expected)


class MetricsPageTests(SynchronousTestCase):
    """docs/metrics.md has the metrics that there are."""

    def test_table(self) -> None:
        page = (DOCS / "metrics.md").read_text(encoding="utf-8")
        found = [line for line in page.splitlines() if line.startswith("| `dalga_")]
        expected = [
            f"| `{family.name}` | {family.kind} | "
            f"{', '.join(f'`{label}`' for label in family.labels)} | {family.help} |"
            for family in FAMILIES
        ]
        self.assertEqual(found, expected)

    def test_operations(self) -> None:
        """Each transaction's name is told."""
        page = (DOCS / "metrics.md").read_text(encoding="utf-8")
        calls = r"_(?:lane|transactions)\.(?:run|read|run_timed|run_call)\(.*|operation=\"\w+\".*"
        names = {
            name
            for path in (DOCS.parent / "dalga" / "store").glob("*.py")
            for call in re.findall(calls, path.read_text(encoding="utf-8"))
            for name in re.findall(r'"(\w+)"', call)
        }
        self.assertGreater(len(names), 15)
        for name in names:
            self.assertIn(f"`{name}`", page)

    def test_words(self) -> None:
        """Of results and kinds of errors none is left out."""
        page = (DOCS / "metrics.md").read_text(encoding="utf-8")
        for word in (*Result, *ErrorKind, *Tally().by_state):
            word = word if isinstance(word, str) else word[0]
            self.assertIn(f"`{word}`", page)


class LinkTests(SynchronousTestCase):
    """The links of all pages."""

    def test_links(self) -> None:
        """Each goes to a file, and to a heading of a page."""
        pages = [DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md", *DOCS.glob("*.md")]
        self.assertGreater(len(pages), 8)
        for page in pages:
            links = re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8"))
            for name, anchor in links:
                if not name.startswith("http"):
                    there = page.parent / name if name else page
                    self.assertTrue(there.exists(), (page, name))
                    self.assertIn(anchor, ["", *anchors(there)], (page, name))


def anchors(page: Path) -> list[str]:
    """The names by which links go to the headings of a page."""
    if page.suffix != ".md":
        return []
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads]
