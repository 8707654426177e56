"""What callers may do: `Operations` with callers of few rights."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import Parameter, iscoroutinefunction, signature
from typing import Any

from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from dalga.errors import Forbidden
from dalga.lines import JsonLines
from dalga.model.action import ActionRequest, Do
from dalga.model.audit import AuditQuery
from dalga.model.key import JobKey
from dalga.model.listing import Filters
from dalga.model.permit import NOBODY, OPEN, Caller, Grant, Scope
from dalga.model.runid import RunId
from dalga.model.runlist import RunFilters, RunQuery
from dalga.model.statistics import stats_query
from dalga.operations import Operations
from tests.fakes import noting
from tests.lists import by_key
from tests.test_jobs import EACH_MINUTE, KEY, JobsTestCase

Call = Callable[[Operations, Caller], Coroutine[Any, Any, Any]]

RUN = RunId(bytes(8), 2)


def action(do: Do) -> Call:
    filters = RunFilters() if do is Do.REPLAY else Filters()
    return lambda jobs, caller: jobs.act(caller, ActionRequest(do, filters, all=True))


#: Each method with the scope that it takes, and whether the path of `KEY` is its limit.
CALLS: dict[str, list[tuple[Call, Scope, bool]]] = {
    "schedule": [(lambda jobs, caller: jobs.schedule(caller, KEY, EACH_MINUTE), Scope.WRITE, True)],
    "patch": [(lambda jobs, caller: jobs.patch(caller, KEY, {}), Scope.WRITE, True)],
    "once": [
        (lambda jobs, caller: jobs.once(caller, KEY.path, EACH_MINUTE, None), Scope.WRITE, True)
    ],
    "get": [(lambda jobs, caller: jobs.get(caller, KEY), Scope.READ, True)],
    "show": [(lambda jobs, caller: jobs.show(caller, KEY), Scope.READ, True)],
    "trigger": [(lambda jobs, caller: jobs.trigger(caller, KEY), Scope.TRIGGER, True)],
    "enable": [(lambda jobs, caller: jobs.enable(caller, KEY), Scope.WRITE, True)],
    "disable": [(lambda jobs, caller: jobs.disable(caller, KEY), Scope.WRITE, True)],
    "why": [(lambda jobs, caller: jobs.why(caller, KEY), Scope.READ, True)],
    "run_times": [(lambda jobs, caller: jobs.run_times(caller, KEY, 1, None), Scope.READ, True)],
    "cancel": [(lambda jobs, caller: jobs.cancel(caller, KEY), Scope.WRITE, True)],
    "preview": [
        (lambda jobs, caller: jobs.preview(caller, EACH_MINUTE, 1, None), Scope.READ, False)
    ],
    "runs": [(lambda jobs, caller: jobs.runs(caller, RunQuery()), Scope.READ, False)],
    "run": [(lambda jobs, caller: jobs.run(caller, RUN), Scope.READ, False)],
    "page": [(lambda jobs, caller: jobs.page(caller, by_key(None, None, 1)), Scope.READ, False)],
    "alerts": [(lambda jobs, caller: jobs.alerts(caller, 1), Scope.READ, False)],
    "replay": [(lambda jobs, caller: jobs.replay(caller, RUN), Scope.TRIGGER, False)],
    "act": [
        (action(Do.REPLAY), Scope.TRIGGER, False),
        (action(Do.TRIGGER), Scope.TRIGGER, False),
        (action(Do.ENABLE), Scope.WRITE, False),
        (action(Do.DISABLE), Scope.WRITE, False),
        (action(Do.DELETE), Scope.WRITE, False),
    ],
    "action": [(lambda jobs, caller: jobs.action(caller, "a"), Scope.READ, False)],
    "actions": [(lambda jobs, caller: jobs.actions(caller, 1), Scope.READ, False)],
    "stop_action": [(lambda jobs, caller: jobs.stop_action(caller, "a"), Scope.WRITE, False)],
    "audit": [(lambda jobs, caller: jobs.audit(caller, AuditQuery()), Scope.ADMIN, False)],
    "status": [(lambda jobs, caller: jobs.status(caller), Scope.READ, False)],
    "statistics": [
        (
            lambda jobs, caller: jobs.statistics(caller, stats_query(jobs.now(), None, None)),
            Scope.READ,
            False,
        )
    ],
    "instances": [(lambda jobs, caller: jobs.instances(caller), Scope.READ, False)],
}


class PermitTests(JobsTestCase):
    def refused(self, call: Call, caller: Caller) -> bool:
        """Whether a call is refused; then nothing has come to the store."""
        calls = len(self.store.calls)
        asked = self.ask(call(self.jobs, caller))
        failures: list[Any] = []
        asked.addErrback(failures.append)
        asked.cancel()
        if failures and failures[0].check(Forbidden):
            self.assertEqual(len(self.store.calls), calls)
            return True
        return False

    def test_each_method_takes_its_caller(self) -> None:
        """P12: and takes it first, without a default, so that none is forgotten."""
        methods = {
            name
            for name, method in vars(Operations).items()
            if iscoroutinefunction(method) and not name.startswith("_")
        }
        self.assertEqual(methods, set(CALLS))
        for name in methods:
            first = list(signature(getattr(Operations, name)).parameters.values())[1]
            self.assertEqual((first.name, first.default), ("caller", Parameter.empty), name)

    def test_scopes(self) -> None:
        """P12: a caller without the scope is refused, and one with it is not."""
        for name, calls in CALLS.items():
            for call, scope, _ in calls:
                self.assertTrue(self.refused(call, NOBODY), name)
                self.assertFalse(self.refused(call, OPEN), name)
                for each in Scope:
                    caller = Caller("ci", (Grant(each),))
                    expected = not caller.may(scope)
                    self.assertIs(self.refused(call, caller), expected, (name, each))

    def test_each_change_has_its_author(self) -> None:
        """What is written comes to the store with the caller's name, if the caller has one."""
        for name, calls in CALLS.items():
            for call, scope, _ in calls:
                for caller in (Caller("ci", (Grant(Scope.ADMIN),), "192.0.2.7"), OPEN):
                    self.store.authors.clear()
                    asked = self.ask(call(self.jobs, caller))
                    asked.addErrback(lambda failure: None)
                    writes = scope in (Scope.WRITE, Scope.TRIGGER)
                    self.assertEqual(self.store.authors, [caller.author] * writes, name)
        self.assertEqual(caller.author, None)

    def test_prefixes(self) -> None:
        """P12: a job outside of the prefixes is out of reach, whether or not there is one."""
        for name, calls in CALLS.items():
            for call, scope, is_by_key in calls:
                if not is_by_key:
                    continue
                inside = Caller("ci", (Grant(scope, (KEY.path[:3],)),))
                outside = Caller("ci", (Grant(scope, ("other",)),))
                self.assertEqual(
                    (self.refused(call, inside), self.refused(call, outside)), (False, True), name
                )
        self.store.insert(KEY.path)
        there = JobKey(KEY.path, "body")
        self.assertTrue(self.refused(lambda jobs, caller: jobs.get(caller, there), outside))


class NameTests(JobsTestCase):
    """Who has changed a job stands in the log."""

    def setUp(self) -> None:
        super().setUp()
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(noting(self.events))
        self.addCleanup(globalLogPublisher.removeObserver, noting(self.events))

    def change(self, caller: Caller) -> list[LogEvent]:
        """The events of some changes."""
        self.events.clear()
        for call in (
            self.jobs.schedule(caller, KEY, EACH_MINUTE),
            self.jobs.patch(caller, KEY, {"interval": 5}),
            self.jobs.disable(caller, KEY, "holidays"),
            self.jobs.enable(caller, KEY),
            self.jobs.trigger(caller, KEY),
            self.jobs.cancel(caller, KEY),
            self.jobs.act(caller, ActionRequest(Do.TRIGGER, Filters(), all=True)),
        ):
            self.ask(call).addErrback(lambda _: None)
        return [event for event in self.events if event["log_namespace"] == "dalga.operations"]

    def test_with_a_name(self) -> None:
        events = self.change(Caller("ci", OPEN.grants))
        lines = [formatEvent(event) for event in events]
        self.assertEqual(
            [line.partition(":")[0] for line in lines[:-1]],
            ["'check_feed' '1234' by ci"] * (len(lines) - 1),
        )
        self.assertRegex(lines[-1], "^action [0-9A-Z]{26} by ci: trigger of ")
        self.assertTrue(lines[0].startswith("'check_feed' '1234' by ci: scheduled every 60 s"))
        self.assertIn("'check_feed' '1234' by ci: disabled: holidays", lines)
        self.assertIn('"by": "ci"', JsonLines().lines(events[0]))

    def test_without_tokens(self) -> None:
        """The lines are as they were before there were tokens."""
        events = self.change(OPEN)
        self.assertIn("'check_feed' '1234': triggered", [formatEvent(event) for event in events])
        self.assertNotIn('"by"', "".join(map(JsonLines().lines, events)))
