"""What callers may do: `Operations` with callers of few rights."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from inspect import Parameter, iscoroutinefunction, signature
from typing import Any

from twisted.internet.defer import fail, succeed
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from dalga.allowed import Allowed, EndpointShown
from dalga.errors import ActionNotFound, Forbidden, JobNotFound, JobSetAside
from dalga.lines import JsonLines
from dalga.model.action import Action, ActionRequest, ActionState, Do
from dalga.model.alert import AlertState, KeptAlert
from dalga.model.audit import AuditQuery
from dalga.model.job import UnreadableJob
from dalga.model.key import JobKey, RawKey
from dalga.model.listing import Filters, Query
from dalga.model.options import Options
from dalga.model.permit import NOBODY, OPEN, Area, Caller, Grant, Limits, Scope
from dalga.model.runid import RunId
from dalga.model.runlist import RunFilters, RunQuery
from dalga.model.statistics import stats_query
from dalga.operations import Operations
from dalga.store import Shown
from dalga.web.alerts import alerts_json
from dalga.web.presentation import job_json
from tests.fakes import EPOCH, noting
from tests.lists import by_key
from tests.test_jobs import EACH_MINUTE, KEY, JobsTestCase
from tests.test_web_runs import RECORD

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
    "stop_action": [(lambda jobs, caller: jobs.stop_action(caller, "a"), Scope.TRIGGER, False)],
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


ACTION = Action(
    id="a",
    request=ActionRequest(Do.TRIGGER, Filters(), all=True),
    state=ActionState.ACTING,
    made=EPOCH,
)

#: The methods about all jobs together.
OF_ALL = {"status", "instances", "audit"}


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
                    self.store.kept_actions["a"] = ACTION
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

    def test_limited_callers(self) -> None:
        """P12: each method but those about all jobs is for them, with their limits."""
        for limited in (("other/",), ()), ((), ("billing",)), (("other/",), ("billing",)):
            for name, calls in CALLS.items():
                for call, scope, is_by_key in calls:
                    caller = Caller("ci", (Grant(scope, *limited),))
                    by_endpoint = bool(limited[1])
                    # A PUT of a job of the default endpoint, and a preview of one.
                    of_default = name in ("schedule", "once", "preview") and by_endpoint
                    is_outside = is_by_key and bool(limited[0])
                    expected = name in OF_ALL or of_default or is_outside
                    self.assertIs(self.refused(call, caller), expected, (name, limited))

    def test_what_comes_to_the_store(self) -> None:
        """P12: the limits of the caller, whichever the request has."""
        whole = Limits((Area(("check",), ("billing",)),))
        caller = Caller("ci", (Grant(Scope.WRITE, *whole.areas[0]),))
        others = (None, Limits((Area(("x",)),)), Limits((Area(),)))
        for limits in others:
            for query in (
                self.jobs.page(caller, Query(Filters(limits=limits))),
                self.jobs.runs(caller, RunQuery(RunFilters(limits=limits))),
            ):
                self.ask(query)
                self.assertEqual(self.store.calls[-1].argument.filters.limits, whole)
            for do, filters in ((Do.DELETE, Filters()), (Do.REPLAY, RunFilters())):
                request = ActionRequest(do, filters, all=True, limits=limits)
                begun = self.successResultOf(self.ask(self.jobs.act(caller, request)))
                assert begun.request is not None
                self.assertEqual(begun.request.limits, whole)
        self.ask(self.jobs.page(OPEN, Query(Filters(limits=whole))))
        self.assertIsNone(self.store.calls[-1].argument.filters.limits)

    def test_jobs_of_other_endpoints(self) -> None:
        """P12: they are as if they were not there; those that are seen are refused aloud."""
        key = self.store.insert(KEY.path, options=Options(endpoint="secret"))
        missing = JobKey(KEY.path, "missing")
        by_key: dict[str, Callable[[Caller, JobKey], Coroutine[Any, Any, Any]]] = {
            "get": self.jobs.get,
            "show": self.jobs.show,
            "why": self.jobs.why,
            "run_times": lambda caller, key: self.jobs.run_times(caller, key, 1, None),
            "trigger": self.jobs.trigger,
            "enable": self.jobs.enable,
            "disable": self.jobs.disable,
            "patch": lambda caller, key: self.jobs.patch(caller, key, {"count": 3}),
        }
        limited = Caller("ci", (Grant(Scope.WRITE, (), ("default",)),))
        reader = Caller("ci", (*limited.grants, Grant(Scope.READ)))
        for name, call in by_key.items():
            errors = [
                str(self.failureResultOf(self.ask(call(limited, each)), JobNotFound).value)
                for each in (key, missing)
            ]
            said = [error.replace("'body'", "").replace("'missing'", "") for error in errors]
            self.assertEqual(said[0], said[1])
            self.assertNotIn("secret", errors[0])
            asked = self.ask(call(reader, key))
            if name in ("get", "show", "why", "run_times"):
                self.successResultOf(asked)
            else:
                self.failureResultOf(asked, Forbidden)

    def test_the_last_run(self) -> None:
        """P12: a job may have had another endpoint when it ran last."""
        key = self.store.insert(KEY.path)
        job = self.successResultOf(self.ask(self.jobs.get(OPEN, key)))
        limited = Caller("ci", (Grant(Scope.READ, (), ("default",)),))
        for endpoint, is_shown in (("default", True), ("secret", False)):
            shown = Shown(job, replace(RECORD, endpoint=endpoint))
            self.store.show = lambda *asked, shown=shown: succeed(shown)  # type: ignore
            found = self.successResultOf(self.ask(self.jobs.show(limited, key)))
            self.assertEqual(found.last_run is not None, is_shown)
            found = self.successResultOf(self.ask(self.jobs.show(OPEN, key)))
            self.assertEqual(found, shown)

    def test_a_change_to_another_endpoint(self) -> None:
        """P12: neither a PUT nor a PATCH gives a job an endpoint that the caller may not use."""
        limited = Caller("ci", (Grant(Scope.WRITE, (), ("default",)),))
        self.jobs.reconfigure(Allowed((endpoint("default"), endpoint("secret"))), lambda: 1.0)
        self.successResultOf(self.ask(self.jobs.schedule(limited, KEY, EACH_MINUTE)))
        for name in ("secret", "unknown"):
            for call in (
                self.jobs.schedule(limited, KEY, replace(EACH_MINUTE, endpoint=name)),
                self.jobs.patch(limited, KEY, {"endpoint": name}),
                self.jobs.once(limited, KEY.path, replace(EACH_MINUTE, endpoint=name), None),
                self.jobs.preview(limited, replace(EACH_MINUTE, endpoint=name), 1, None),
            ):
                error = str(self.failureResultOf(self.ask(call), Forbidden).value)
                # The sentence is the same for an endpoint that is not there.
                self.assertIn(f"does not reach the endpoint {name}", error)
        row = self.store.find(KEY)
        assert row is not None
        self.assertEqual((row.options.endpoint, len(self.store.rows)), ("default", 1))
        self.assertEqual([each.name for each in self.jobs.endpoints(limited)], ["default"])

    def test_what_is_wrong_with_a_row(self) -> None:
        """P12: that may quote the row, so it is for those who may see what the row has."""
        job = UnreadableJob(RawKey(*KEY), "headers has s3cret")
        store: Any = self.store
        store.get = lambda key: succeed(job)
        refusal = JobSetAside("it can't be understood (headers has s3cret)")
        for name in ("put", "patch", "trigger", "replay"):
            setattr(store, name, lambda *given, **named: fail(refusal))
        kept = KeptAlert(
            {"event": "job.problem", "job": None, "error": "s3cret", "message": "s3cret"},
            *("t", AlertState.SENT, 1, None, None),
        )
        for scope, expected in ((Scope.WRITE, False), (Scope.ADMIN, True)):
            caller = Caller("ci", (Grant(scope),))
            why = self.successResultOf(self.ask(self.jobs.why(caller, RawKey(*KEY))))
            self.assertIs("s3cret" in why.sentence, expected)
            for call in (
                self.jobs.schedule(caller, KEY, EACH_MINUTE),
                self.jobs.patch(caller, KEY, {}),
                self.jobs.trigger(caller, KEY),
                self.jobs.replay(caller, RUN),
                self.jobs.run_times(caller, KEY, 1, None),
            ):
                failure = self.failureResultOf(self.ask(call), JobSetAside)
                self.assertIs("s3cret" in str(failure.value), expected)

            def has_secrets(path: str, endpoint: str | None, is_boss: bool = expected) -> bool:
                return is_boss

            self.assertIs(b"s3cret" in alerts_json([kept], has_secrets), expected)
            self.assertIs(b"s3cret" in job_json(job, has_secrets=has_secrets), expected)

    def test_actions_of_others(self) -> None:
        """P12: an action is for those who may see all that it is done to."""
        limits = Limits((Area(("team/a/",), ("billing",)),))
        for number, (do, of) in enumerate(
            [(Do.TRIGGER, None), (Do.TRIGGER, limits), (Do.DELETE, limits)]
        ):
            request = ActionRequest(do, Filters(), all=True, limits=of)
            self.store.kept_actions[f"{number}"] = replace(ACTION, id=f"{number}", request=request)
        self.store.kept_actions["3"] = replace(ACTION, id="3", request=None)
        for grants, seen, stopped in [
            ((Grant(Scope.ADMIN),), "0123", "0123"),
            ((Grant(Scope.WRITE, ("team/",)),), "12", "12"),
            ((Grant(Scope.WRITE, ("team/a/",), ("billing", "other")),), "12", "12"),
            ((Grant(Scope.WRITE, ("team/a/b",)),), "", ""),
            ((Grant(Scope.WRITE, ("team/a/",), ("other",)),), "", ""),
            ((Grant(Scope.READ), Grant(Scope.TRIGGER, ("team/",))), "0123", "1"),
            ((Grant(Scope.TRIGGER, (), ("billing",)),), None, "1"),
        ]:
            caller = Caller("ci", grants)
            if seen is not None:
                listed = self.successResultOf(self.ask(self.jobs.actions(caller, 100)))
                self.assertEqual("".join(sorted(each.id for each in listed)), seen)
            for id in "0123x":
                found: list[Any] = []
                self.ask(self.jobs.action(caller, id)).addBoth(found.append)
                if seen is not None:
                    self.assertIs(isinstance(found[0], Action), id in seen, (grants, id))
                    if id not in seen:
                        found[0].trap(ActionNotFound)
                self.ask(self.jobs.stop_action(caller, id)).addBoth(found.append)
                self.assertIs(isinstance(found[1], Action), id in stopped, (grants, id))
                if id not in stopped:
                    is_seen = seen is not None and id in seen
                    found[1].trap(Forbidden if is_seen else ActionNotFound)
                    self.assertNotIn("billing", str(found[1].value).partition("has")[0])

    def test_alerts_of_others(self) -> None:
        """P12: those of jobs within the limits; those of all jobs are for callers without."""
        self.store.outbox.newest = lambda limit: succeed(kept)  # type: ignore[method-assign]
        kept = [
            KeptAlert(
                {"job": job and {"path": job, "body": "1"}, "endpoint": of, "id": f"{n}"},
                "t",
                AlertState.SENT,
                1,
                None,
                None,
            )
            for n, (job, of) in enumerate(
                [
                    ("team/a", "default"),
                    ("team/a", "billing"),
                    ("x", "billing"),
                    (None, "billing"),
                    ("team/a", None),
                    (None, None),
                ]
            )
        ]
        for grant, expected in [
            (Grant(Scope.READ), "012345"),
            (Grant(Scope.READ, ("team/",)), "014"),
            (Grant(Scope.READ, (), ("billing",)), "123"),
            (Grant(Scope.READ, ("team/",), ("billing",)), "1"),
        ]:
            found = self.successResultOf(self.ask(self.jobs.alerts(Caller("ci", (grant,)), 100)))
            self.assertEqual("".join(each.members["id"] for each in found), expected)
            found = self.successResultOf(self.ask(self.jobs.alerts(Caller("ci", (grant,)), 1)))
            if grant.area != Area():
                self.assertEqual("".join(each.members["id"] for each in found), expected[:1])


def endpoint(name: str) -> EndpointShown:
    return EndpointShown(name, "http://x/", 9, "", (), "200", "204", "")


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
