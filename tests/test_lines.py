"""The lines of the log as JSON. Those of text, test_log compares with Twisted's own."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from dalga.dispatch.loglines import log, log_end, log_start
from dalga.lines import MEMBERS, JsonLines
from dalga.log import log_from
from dalga.model.answers import Meaning
from dalga.model.attempt import ErrorKind
from dalga.model.delivery import Delivery, Method
from dalga.model.run import End, Outcome, Reschedule, Retry
from tests.examples import NOW, RUN
from tests.fakes import noting

TIME = 1_415_743_900.7519
RUNNING = Path(__file__).parent.parent / "docs" / "running.md"


def shown(event: dict[str, Any], lines: JsonLines | None = None) -> dict[str, Any]:
    """What the line of an event says."""
    line = (lines or JsonLines()).lines(event)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1, line
    assert line.isascii()
    found: dict[str, Any] = json.loads(line, parse_constant=lambda text: 1 / 0)
    return found


def event_of(*arguments: Any, namespace: str = "dalga.x", **fields: Any) -> dict[str, Any]:
    """The event that a logger makes, at `TIME`."""
    events: list[Any] = []
    Logger(namespace, observer=noting(events)).emit(*arguments, **fields)
    [event] = events
    return {**event, "log_time": TIME}


class JsonTests(SynchronousTestCase):
    def test_members(self) -> None:
        """The first four are in each line, in this order."""
        event = event_of(LogLevel.warn, "{path!r}: {what}", path="a", what="b", number=1)
        expected = {
            "time": "2014-11-11T22:11:40.751Z",
            "level": "warn",
            "logger": "dalga.x",
            "message": "'a': b",
            "path": "a",
        }
        self.assertEqual(shown(event), expected)
        self.assertEqual([*shown(event)], [*expected])
        found = shown(event, JsonLines().of_worker(3))
        self.assertEqual(found, {**expected, "worker": 3})

    def test_an_attempt(self) -> None:
        """The fields of its run, and what came of it."""
        events: list[Any] = []
        self.patch(log, "observer", noting(events))
        log_from("debug")
        self.addCleanup(log_from, "info")
        again = Retry(NOW, "why")
        put = RUN._replace(delivery=Delivery(method=Method.PUT))
        failed = Outcome(None, 10.0, "no answer within 10 s", kind=ErrorKind.TIMEOUT)
        log_start(put)
        log_end(End(RUN, Outcome(200, 0.0312500001), Reschedule(NOW, NOW), Meaning.SUCCEED))
        log_end(End(put, Outcome(500, 0.5), again, Meaning.RETRY))
        log_end(End(RUN, failed, again, Meaning.RETRY))
        run = {
            "logger": "dalga.dispatch.loglines",
            **{"path": "check_feed", "body": "1234", "run_id": "1", "attempt": 1},
            "endpoint": "default",
        }
        start, *ends = (
            {name: value for name, value in shown(event).items() if name not in ("time", "message")}
            for event in events
        )
        self.assertEqual(start, {"level": "debug", **run, "method": "PUT"})
        post = {**run, "method": "POST"}
        failure = {"level": "warn", "error_kind": "timeout", "elapsed": 10.0}
        self.assertEqual(
            ends,
            [
                {"level": "info", **post, "status": 200, "elapsed": 0.03125},
                {
                    **{"level": "warn", **run, "method": "PUT", "status": 500},
                    **{"error_kind": "status", "elapsed": 0.5},
                },
                {**post, **failure},
            ],
        )
        self.assertIn("PUT: 500 Internal Server Error, after 0.500 s", shown(events[2])["message"])

    def test_a_failure(self) -> None:
        """Its traceback is a member; the message has none."""
        try:
            raise ValueError("broken\nhere")
        except ValueError:
            failure = Failure()
        found = shown(event_of(LogLevel.critical, "{path!r}: left", path="a", log_failure=failure))
        self.assertEqual((found["level"], found["message"]), ("critical", "'a': left"))
        self.assertIn("ValueError: broken\nhere", found["traceback"])
        self.assertIn("Traceback (most recent call last):", found["traceback"])

    def test_of_others(self) -> None:
        """Twisted's events, new and old, and what is printed. Their fields are their own."""
        found = shown(event_of(LogLevel.info, "a {path}", namespace="twisted.web", path="/x"))
        self.assertEqual((found["logger"], found["message"]), ("twisted.web", "a /x"))
        self.assertNotIn("path", found)
        seen: list[Any] = []
        observer: Any = noting(seen)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        legacy.msg("an old", "message", system="x")
        legacy.err(ValueError("broken"), "why")
        self.flushLoggedErrors(ValueError)
        message, error = map(shown, seen)
        self.assertEqual((message["level"], message["message"]), ("info", "an old message"))
        self.assertEqual(error["level"], "critical")
        self.assertIn("ValueError: broken", error["traceback"])
        self.assertEqual(error["message"], "why")

    def test_events_that_are_wrong(self) -> None:
        """P6: each is a line of JSON all the same."""

        class Odd:
            def __str__(self) -> str:
                raise ValueError("odd")

        self.assertIn("nothing", shown(event_of(LogLevel.info, "{nothing}"))["message"])
        self.assertEqual(shown(event_of(LogLevel.info))["message"], "")
        self.assertEqual(shown({})["time"], "1970-01-01T00:00:00.000Z")
        for wrong in (math.nan, math.inf, -1, 1e300, "x", None):
            self.assertEqual(shown({"log_time": wrong})["time"], "1970-01-01T00:00:00.000Z")
        found = shown(event_of(LogLevel.info, "x", path=Odd(), body=b"\xff", elapsed=math.nan))
        self.assertIn("can't be shown", found["path"])
        failure = shown(event_of(LogLevel.error, "x", log_failure="no failure"))["traceback"]
        self.assertIn("can't be shown", failure)
        self.assertEqual((found["body"], found["elapsed"]), (r"b'\xff'", "nan"))

    @given(
        st.text(),
        st.text(),
        st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(), st.binary()),
    )
    def test_whatever_a_field_is(self, message: str, path: str, value: Any) -> None:
        """No text ends its line, and what a reader gets is what was said."""
        event = event_of(LogLevel.info, "{message}", message=message, path=path, status=value)
        found = shown(event)
        self.assertEqual((found["message"], found["path"]), (message, path))

    def test_docs(self) -> None:
        """The table of docs/running.md has each member, and no other."""
        table = RUNNING.read_text().partition("### Lines as JSON")[2].partition("\n## ")[0]
        names = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
        found = [name for row in names for name in re.findall(r"`(\w+)`", row)]
        first = ["time", "level", "logger", "message"]
        self.assertEqual(sorted(found), sorted([*first, *MEMBERS, "worker", "traceback"]))
