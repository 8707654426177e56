"""
The house's rules: which room may import which, where the reactor and SQL may be, and that a test
run says what it left out. See docs/architecture.md.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.run import LONG, Report, asked_for, conclusion, engine_of, in_order, load, main

ROOT = Path(__file__).parent.parent

#: Each room comes after the rooms that it may import from. A folder's modules are rooms of their
#: own, but for `store`, which is one room.
MODEL = (
    *("duration", "zone", "cron", "schedule", "retry", "delivery"),
    *(
        "key",
        "runid",
        "name",
        "instance",
        "precondition",
        "idempotency",
        "address",
        "reach",
        "permit",
        "answers",
        "headers",
        "histogram",
    ),
    *("attempt", "options", "agreement", "reading", "reading_delivery", "writing", "fields"),
    *("grid", "lateness", "job", "state", "listing", "why", "run", "alert", "streak"),
    *(
        "record",
        "runlist",
        "action",
        "audit",
        "statistics",
        "plan",
        "patch",
        "replay",
        "setback",
        "trace",
    ),
)
CONFIG = (
    *(
        "content",
        "formats",
        "texts",
        "incoming",
        "outgoing",
        "mistakes",
        "values",
        "keys",
        "sections",
    ),
    *("headers", "endpoints", "targets", "secretfile", "tokens", "names", "links", "given"),
    *("file", "variables", "rules", "load", "changes", "shown"),
)
OUTGOING = (
    *("trust", "lookup", "deadlines", "failures", "answer", "keeping", "steering"),
    *("wire", "tunnel", "pool", "client", "endpoint", "endpoints", "webhook"),
)
DISPATCH = (
    *("agenda", "lead", "claimsize", "shares", "sums", "pulse", "waiting", "outlook", "outages"),
    *("loglines", "elsewhere", "query", "recorder", "posts", "slots", "gauges", "upkeep"),
    *("statistics", "pruning", "sending", "alerts", "acting", "scheduler"),
)
WEB = (
    *("errors", "bodies", "head", "cursors", "conditional", "values", "parameters", "lists"),
    *("presentation", "runs", "actions", "statistics", "alerts", "audit", "needs", "auth"),
    *("origins", "forwarded", "sessions", "page", "request", "api", "server"),
)
FOLDERS = {
    "model": MODEL,
    "config": CONFIG,
    "outgoing": OUTGOING,
    "dispatch": DISPATCH,
    "web": WEB,
}

#: What never imports Twisted, nor anything else that talks to the world.
PURE = (
    "errors",
    *(f"model.{name}" for name in MODEL),
    "signature",
    *(f"config.{name}" for name in CONFIG),
    "metrics",
    "dispatch.agenda",
    "dispatch.lead",
    "dispatch.claimsize",
    "dispatch.shares",
    "dispatch.sums",
    "dispatch.waiting",
    "dispatch.pulse",
    "allowed",
    "web.bodies",
    "web.head",
    "web.cursors",
    "web.conditional",
    "web.values",
    "web.parameters",
    "web.lists",
    "web.presentation",
    "web.needs",
    "web.origins",
    "web.forwarded",
    "web.sessions",
    "web.page",
    "web.runs",
    "web.actions",
    "web.alerts",
    "web.audit",
)
APPLICATION = (
    *(f"dispatch.{name}" for name in DISPATCH),
    "counting",
    "series",
    "allowed",
    "exposition",
    "sharing",
    "health",
    "operations",
    *(f"web.{name}" for name in WEB),
    "files",
    "privileges",
    "endpointstrings",
    "unixsockets",
    "listening",
    "zonedata",
    "database",
    "signals",
    "destination",
    "daemon",
    "forking",
    "workers",
    "settings",
    "checking",
    "reloading",
    "service",
    "tokens_cli",
    "cli",
    "__main__",
)
# `log` has Twisted's logger in it, so no pure room has it; all after them do.
ROOMS = (
    *(room for room in PURE if room not in APPLICATION),
    "log",
    "lines",
    "store",
    *(f"outgoing.{name}" for name in OUTGOING),
    *APPLICATION,
)

#: What talks to the world; never imports each other.
ADAPTERS = ("store", "outgoing")
#: What `web` must ask `operations` for instead.
NOT_FOR_WEB = ("outgoing", "dispatch")
#: Where the parts are built and the reactor is given to them.
BUILDERS = ("service", "cli", "__main__", "plugin")
WORLD = (
    "twisted",
    "treq",
    "klein",
    "werkzeug",
    "zope",
    "prometheus_client",
    "httptools",
    "pymysql",
    "sqlite3",
    "socket",
    "ssl",
)
DATABASES = ("pymysql", "sqlite3", "twisted.enterprise")

SQL = re.compile(
    r"\b(SELECT|INSERT\s+(IGNORE\s+)?INTO|REPLACE\s+INTO|DELETE\s+FROM|(CREATE|ALTER|DROP)\s+TABLE)\b"
    r"|\bUPDATE\b.*\bSET\b",
    re.DOTALL,
)


#: What sharded databases do not take: see docs/architecture.md.
NOT_PORTABLE = re.compile(r"\bREPLACE\s+INTO\b|\bUTC_TIMESTAMP\b.*\bUNION\b", re.DOTALL)


def is_or_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def statements(tree: ast.AST, functions: bool) -> Iterator[ast.AST]:
    """All nodes; without `functions`, those alone that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(node, functions)


def imports(source: str, package: str, functions: bool = True) -> Iterator[str]:
    """
    The modules that a module imports, and ``module.name`` for each name from one.

    :param package: the package that the module is in, for relative imports.
    """
    for node in statements(ast.parse(source), functions):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def texts(source: str) -> Iterator[str]:
    """The string literals but docstrings, an f-string as one with its values left out."""
    tree = ast.parse(source)
    left_out = set()
    for node in ast.walk(tree):
        # A literal that is a statement of its own: a docstring, if anything.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            left_out.add(node.value)
        if isinstance(node, ast.JoinedStr):
            pieces = [piece for piece in node.values if isinstance(piece, ast.Constant)]
            left_out.update(pieces)
            yield "".join(str(piece.value) for piece in pieces)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node not in left_out and isinstance(node.value, str):
            yield node.value


def offences(room: str, source: str, package: str = "dalga") -> list[str]:
    """What a module of that room has in it that it may not have."""
    found = []
    if room not in (*ROOMS, *FOLDERS, "plugin"):
        found.append("has no place in the list of rooms")
    for module in imports(source, package):
        library = module.split(".")[0]
        if room in PURE and library in WORLD:
            found.append(f"is pure and imports {module}")
        if room != "store" and any(is_or_in(module, database) for database in DATABASES):
            found.append(f"is not the store and imports {module}")
        if is_or_in(module, "twisted.internet.reactor") and room not in BUILDERS:
            found.append("reaches for the reactor")
        if library == "dalga" and room in ROOMS:
            other = room_of(module)
            if other is not None and not may_import(room, other):
                found.append(f"imports {module}")
            if is_or_in(room, "web") and is_or_in(module, "dalga.store") and is_inner(module):
                found.append(f"imports {module}, which is inside the store")
    for module in imports(source, package, functions=False):
        if is_or_in(module, "twisted.internet.reactor"):
            found.append("installs the reactor when it is imported")
    if room == "store":
        found += [f"has {text!r}" for text in texts(source) if NOT_PORTABLE.search(text)]
    if room != "store":
        found += [f"has SQL in it: {text!r}" for text in texts(source) if SQL.search(text)]
    return found


def room_of(module: str) -> str | None:
    """The room of ``dalga.room``, ``dalga.folder.room`` or a name in one; None for no room."""
    parts = module.split(".")[1:]
    if parts and parts[0] in FOLDERS:
        return ".".join(parts[:2])
    return parts[0] if parts and parts[0] in ROOMS else None


def may_import(room: str, other: str) -> bool:
    if room == other:
        return True
    ours, theirs = room.split(".")[0], other.split(".")[0]
    if other not in ROOMS:
        return False  # a folder is no room, and has nothing to import
    if ours != theirs and ours in ADAPTERS and theirs in ADAPTERS:
        return False
    if ours == "web" and theirs in NOT_FOR_WEB:
        return False
    return ROOMS.index(other) < ROOMS.index(room)


def is_inner(module: str) -> bool:
    """Whether it is a module, or a name from one, inside a room that is a package."""
    parts = module.split(".")
    if len(parts) > 3:
        return True
    path = ROOT.joinpath(*parts)
    return len(parts) == 3 and (path.is_dir() or path.with_suffix(".py").exists())


def brings_twisted(statement: str) -> bool:
    """Whether Twisted is loaded once a new interpreter has run a statement."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys; print('twisted' in sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip() == "True"


def files() -> Iterator[tuple[str, str, Path]]:
    """Each module as its room, its package and its file."""
    for path in sorted((ROOT / "dalga").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1:] == ("__init__",):
            continue
        in_folder = parts[1] in FOLDERS and parts[2] != "__init__"
        yield ".".join(parts[1:3]) if in_folder else parts[1], ".".join(parts[:-1]), path
    for path in sorted((ROOT / "twisted").rglob("*.py")):
        yield "plugin", "twisted.plugins", path


class HouseTests(SynchronousTestCase):
    """The rules, held against the house as it stands."""

    def test_every_module(self) -> None:
        found = {
            str(path.relative_to(ROOT)): broken
            for room, package, path in files()
            if (broken := offences(room, path.read_text(encoding="utf-8"), package))
        }
        self.assertEqual(found, {})

    def test_pure_rooms_are_there(self) -> None:
        """Else a renamed one would go unseen."""
        self.assertEqual(set(PURE) - {room for room, _, _ in files()}, set())

    def test_pure_rooms_load_without_twisted(self) -> None:
        """Nor does anything that they import bring it."""
        for room in PURE:
            self.assertFalse(brings_twisted(f"import dalga.{room}"), room)
        self.assertTrue(brings_twisted("import treq"))

    def test_sql_files(self) -> None:
        for path in (ROOT / "dalga").rglob("*.sql"):
            self.assertEqual(path.parent.name, "store", path)

    def test_no_wall_clock(self) -> None:
        """
        P8: nobody asks this machine what time it is, but for the file that lives on it, for the
        time that a line of the log begins with, and to tell how far its clock is from the
        database's.
        """
        asking = re.compile(r"\btime\.time\(|\bnow\(UTC\)|\butcnow\(|\bdatetime\.now\(|\btoday\(")
        found = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / "dalga").rglob("*.py")
            if asking.search(path.read_text(encoding="utf-8"))
        }
        self.assertEqual(found, {"dalga/store/sqlite.py", "dalga/store/clock.py", "dalga/log.py"})

    def test_no_private_parts(self) -> None:
        """No library's private module is imported."""
        found = {
            (path.relative_to(ROOT).as_posix(), module)
            for _, package, path in files()
            for module in imports(path.read_text(encoding="utf-8"), package)
            if re.search(r"\._[^_]", module)
        }
        self.assertEqual(found, set())

    def test_transactions_are_named(self) -> None:
        """Each says what it does, so that the metrics can tell one from another."""
        places = {"run": 1, "read": 2, "run_timed": 2, "run_call": 2}
        nameless = [
            f"{path.name}:{node.lineno}"
            for path in (ROOT / "dalga" / "store").glob("*.py")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and re.search(r"_(lane|transactions)\.\w+$", ast.unparse(node.func))
            and (place := places.get(node.func.attr)) is not None
            and len(node.args) <= place
            and not any(keyword.arg == "operation" for keyword in node.keywords)
        ]
        self.assertEqual(nameless, [])

    def test_upper_bounds(self) -> None:
        """
        Libraries of which Dalga asks what these have not documented have an upper bound, and so
        have those whose next major version says that something is different.
        """
        required = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        bounded = {
            re.split(r"[^A-Za-z0-9.-]", requirement)[0].lower()
            for requirement in required["project"]["dependencies"]
            if ",<" in requirement
        }
        undocumented = {"twisted", "treq", "httptools", "klein", "pymysql"}
        by_major = {"cronsim", "prometheus-client", "pyyaml", "werkzeug"}
        self.assertEqual(bounded, undocumented | by_major)

    def test_plugin_folder(self) -> None:
        """With an ``__init__.py``, it would stand in for Twisted itself, or hide its plugins."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])


class RuleTests(SynchronousTestCase):
    """Each rule finds what breaks it and leaves alone what does not."""

    def test_broken(self) -> None:
        for room, source, expected in [
            ("model.job", "import twisted", "is pure and imports twisted"),
            (
                "model.job",
                "from twisted.python import log",
                "is pure and imports twisted.python.log",
            ),
            ("dispatch.agenda", "import treq", "is pure and imports treq"),
            ("config.load", "def f():\n import klein", "is pure and imports klein"),
            (
                "model.retry",
                "try:\n import pymysql.err\nexcept E: pass",
                "is pure and imports pymysql",
            ),
            ("model.schedule", "from dalga.model.job import Job", "imports dalga.model.job.Job"),
            ("model.job", "from dalga.dispatch import agenda", "imports dalga.dispatch.agenda"),
            ("model.job", "from dalga.store import Store", "imports dalga.store.Store"),
            ("model.job", "from dalga.model import x", "imports dalga.model.x"),
            ("config.load", "import dalga.service", "imports dalga.service"),
            ("config.load", "from dalga.log import logger", "imports dalga.log.logger"),
            ("store", "from dalga.outgoing import endpoint", "imports dalga.outgoing.endpoint"),
            ("outgoing.endpoint", "from dalga.store import Store", "imports dalga.store.Store"),
            (
                "outgoing.lookup",
                "from dalga.outgoing.endpoint import E",
                "imports dalga.outgoing.endpoint.E",
            ),
            (
                "outgoing.endpoint",
                "from dalga.operations import Operations",
                "imports dalga.operations.Operations",
            ),
            ("dispatch.scheduler", "from dalga.web import server", "imports dalga.web.server"),
            (
                "dispatch.shares",
                "from dalga.dispatch.scheduler import S",
                "imports dalga.dispatch.scheduler.S",
            ),
            ("web.api", "import dalga.outgoing.endpoint", "imports dalga.outgoing.endpoint"),
            (
                "web.api",
                "from dalga.dispatch.scheduler import D",
                "imports dalga.dispatch.scheduler.D",
            ),
            ("web.api", "from dalga.store.table import T", "dalga.store.table.T, which is inside"),
            ("web.api", "from dalga.store import clock", "dalga.store.clock, which is inside"),
            ("web.api", "import dalga.store.clock", "dalga.store.clock, which is inside"),
            ("operations", "import pymysql", "is not the store and imports pymysql"),
            ("service", "from sqlite3 import connect", "is not the store and imports sqlite3"),
            ("operations", "from twisted.enterprise import adbapi", "is not the store and imports"),
            (
                "operations",
                "def f():\n from twisted.internet import reactor",
                "reaches for the reactor",
            ),
            ("store", "import twisted.internet.reactor", "reaches for the reactor"),
            ("cli", "from twisted.internet import reactor", "installs the reactor when"),
            ("cli", "class C:\n from twisted.internet import reactor", "installs the reactor when"),
            ("plugin", "from twisted.internet.reactor import run", "installs the reactor when"),
            ("operations", "q = 'SELECT 1'", "has SQL in it: 'SELECT 1'"),
            ("operations", "q = f'UPDATE {t} SET x = 1'", "has SQL in it: 'UPDATE  SET x = 1'"),
            ("web.api", "run('INSERT INTO ' + table)", "has SQL in it"),
            ("cli", "def f():\n return '''\n DELETE FROM t'''", "has SQL in it"),
            ("service", "X = ['CREATE TABLE t']", "has SQL in it"),
            ("store", "q = f'REPLACE INTO {t} VALUES (1)'", "has 'REPLACE INTO  VALUES (1)'"),
            ("store", "q = '''SELECT UTC_TIMESTAMP(6)\nUNION ALL SELECT 1'''", "has 'SELECT UTC_"),
            ("helpers", "", "has no place in the list of rooms"),
        ]:
            found = offences(room, source)
            self.assertTrue(any(expected in offence for offence in found), (source, found))

    def test_kept(self) -> None:
        for room, source in [
            ("model.job", "from dalga.errors import DalgaError\nimport dalga.model.schedule"),
            ("model.job", "from dalga.model import retry"),
            ("store", "import pymysql\nfrom dalga.model.job import Job\nq = 'SELECT 1 FROM t'"),
            ("store", "from dalga.store.clock import C\nfrom twisted.enterprise import adbapi"),
            ("outgoing.endpoint", "import treq\nfrom dalga.model.run import Outcome, Run"),
            ("outgoing.endpoint", "from dalga.outgoing.trust import Trust"),
            (
                "dispatch.scheduler",
                "from dalga.dispatch.agenda import A\nfrom dalga.store import S",
            ),
            ("operations", "from dalga import __version__\nfrom dalga.store import Store"),
            (
                "web.api",
                "from dalga.store import Counts\nfrom dalga.operations import J\nimport klein",
            ),
            ("web.api", "from dalga.web.errors import answer"),
            ("operations", "from twisted.internet.interfaces import IReactorTime"),
            ("cli", "def main():\n from twisted.internet import reactor"),
            ("operations", '"""SELECT x FROM t"""\nx = "select one, or UPDATE it; DELETE a job"'),
        ]:
            self.assertEqual(offences(room, source), [], source)

    def test_relative_imports_inside_a_package(self) -> None:
        source = "from ..outgoing.endpoint import post\nfrom .clock import C"
        found = offences("store", source, "dalga.store")
        self.assertEqual(found, ["imports dalga.outgoing.endpoint.post"])
        self.assertEqual(
            offences("model.job", "from .plan import plan", "dalga.model"),
            ["imports dalga.model.plan.plan"],
        )


class RunTests(SynchronousTestCase):
    """``tests/run.py`` does not let a test be left out in silence."""

    def conclude(
        self, engines: list[str], tests: list[str], skipped: list[str], closing: str | None
    ) -> tuple[str, int]:
        report = Report()
        lines = [f"{test} ... [OK]" for test in tests]
        if skipped:
            lines += ["=" * 79, "[SKIPPED]", "no server", "on this machine", "", *skipped]
        lines += ["-" * 79, f"Ran {len(tests)} tests in 0.1s", ""]
        for line in [*lines, *([closing] if closing else [])]:
            report.feed(f"{line}\n")
        said, failed = conclusion(report, engines)
        return "\n".join(said), failed

    def test_covered(self) -> None:
        tests = [
            "tests.test_a.SQLiteTests.test_x",
            "tests.test_a.MariaDBTests.test_x",
            "tests.b.C.t",
        ]
        said, failed = self.conclude(["sqlite", "mariadb"], tests, [], "PASSED (successes=3)")
        self.assertEqual(failed, 0)
        self.assertIn("engines asked for: sqlite, mariadb", said)
        self.assertIn("sqlite: 1 tests ran", said)
        self.assertIn("mariadb: 1 tests ran", said)
        self.assertTrue(said.endswith("\n3 passed, 0 failed"))

    def test_engine_without_a_test(self) -> None:
        said, failed = self.conclude(
            ["mysql"], ["tests.a.SQLiteTests.t"], [], "PASSED (successes=1)"
        )
        self.assertEqual(failed, 1)
        self.assertIn("FAILED: mysql was asked for, and no test ran on it", said)
        self.assertTrue(said.endswith("\n1 passed, 1 failed"))

    def test_skipped(self) -> None:
        tests = ["tests.a.MySQLTests.t", "tests.a.MySQLTests.u", "tests.a.SQLiteTests.t"]
        closing = "PASSED (skips=2, successes=1)"
        said, failed = self.conclude(["mysql"], tests, tests[1:], closing)
        self.assertEqual(failed, 1)
        self.assertIn("mysql: 1 tests ran", said)
        self.assertIn("SKIPPED, 2 tests: no server on this machine", said)
        self.assertIn("tests.a.MySQLTests.u (FAILED: its engine was asked for)", said)
        self.assertIn("tests.a.SQLiteTests.t\n", said)

    def test_failures(self) -> None:
        closing = "FAILED (failures=1, errors=2, unexpectedSuccesses=1, successes=5)"
        said, failed = self.conclude([], ["tests.a.B.c"], [], closing)
        self.assertEqual(failed, 4)
        self.assertTrue(said.endswith("\n5 passed, 4 failed"))

    def test_trial_broke(self) -> None:
        said, failed = self.conclude([], ["tests.a.B.c"], [], None)
        self.assertEqual(failed, 1)
        self.assertIn("FAILED: trial ended before the tests did", said)
        self.assertTrue(said.endswith("\n0 passed, 1 failed"))

    def test_closing_line_from_a_test(self) -> None:
        """A test may print what it likes."""
        report = Report()
        for line in ("tests.a.B.c ... PASSED", "PASSED", "PASSED (successes=1)"):
            report.feed(line)
        self.assertIsNone(report.counts)

    def test_engines_only(self) -> None:
        """The classes of an engine's tests, each once."""
        folder = Path(self.mktemp())
        folder.mkdir()
        case = "(TestCase):\n    def test_a(self): ...\n    test_MySQL = test_a\n"
        (folder / "test_with_engines.py").write_text(
            "from unittest import TestCase\n"
            + "".join(f"class {name}{case}" for name in ("MySQLTests", "SQLiteTests", "Tests"))
        )
        self.patch(sys, "path", [*sys.path, str(folder.absolute())])
        for engines, expected in (
            (["mysql"], ["MySQLTests"]),
            (["sqlite", "mysql"], ["MySQLTests", "SQLiteTests"]),
            (None, ["MySQLTests", "SQLiteTests", "Tests"]),
        ):
            found = load(["test_with_engines"], engines)
            names = [f"test_with_engines.{name}" for name in expected]
            self.assertEqual(sorted(found), names)

    def test_order(self) -> None:
        """The classes that take long come first, and the same order comes of any order."""
        tests = [(f"tests.a.Class{number}.test", 60.0) for number in range(9)]
        tests += [("tests.b.Long.test", LONG), ("tests.b.Long.test_other", LONG)]
        first, *others = in_order(tests)
        self.assertEqual(first, "tests.b.Long")
        self.assertEqual(sorted(others), [f"tests.a.Class{number}" for number in range(9)])
        self.assertEqual(in_order(reversed(tests)), [first, *others])

    def test_none_of_the_engines(self) -> None:
        """Trial is not asked to run nothing, which would be all."""
        self.patch(os, "environ", {**os.environ, "DALGA_TEST_ENGINES": "mysql"})
        self.patch(sys, "path", sys.path.copy())
        said = StringIO()
        with redirect_stdout(said):
            self.assertEqual(main(["--engines-only", "tests.test_house"]), 1)
        self.assertEqual(said.getvalue(), "FAILED: none of these tests belongs to mysql\n")

    def test_what_cannot_be_imported(self) -> None:
        """It is left for trial to fail with, though it has no engine."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "test_broken_module.py").write_text("import no_such_module\n")
        self.patch(sys, "path", [*sys.path, str(folder.absolute())])
        self.assertEqual(load(["test_broken_module"], ["mysql"]), ["test_broken_module"])

    def test_names(self) -> None:
        for test, engine in [
            ("tests.test_store.MariaDBTests.test_x", "mariadb"),
            ("tests.test_store.ContractOnSQLite.test_x", "sqlite"),
            ("tests.test_store.StoreMySQLTests.test_x", "mysql"),
            ("tests.test_store.StoreTests.test_MySQL", None),
        ]:
            self.assertEqual(engine_of(test), engine, test)
        self.assertEqual(asked_for({}), ["sqlite", "mariadb"])
        asked = asked_for({"DALGA_TEST_ENGINES": "SQLite, mariadb,"})
        self.assertEqual(asked, ["sqlite", "mariadb"])
