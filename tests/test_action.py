"""Actions on many: what goes together, and what is kept of them as text."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.action import (
    Action,
    ActionRequest,
    ActionState,
    AnyFilters,
    Do,
    filter_to_json,
    place_from_text,
    place_to_text,
    request_from_text,
    request_to_json,
)
from dalga.model.answers import statuses_from_text
from dalga.model.attempt import ErrorKind
from dalga.model.key import Position
from dalga.model.listing import Driver, Filters
from dalga.model.permit import Area, Limits
from dalga.model.record import Result, Shelf
from dalga.model.runlist import RunFilters, RunPlace, RunState
from dalga.model.state import State
from tests.examples import HOUR, NOW

#: Filters, and their JSON. The first of each kind has all that there are.
FILTERS: list[tuple[AnyFilters, dict[str, object]]] = [
    (
        Filters(
            path="p",
            prefix="x",
            body="ğ",
            endpoint="billing",
            tags=frozenset({"b", "a"}),
            states=frozenset({State.FAILED, State.DONE}),
            due_before=NOW,
            due_after=NOW - timedelta(microseconds=1),
            contains="c",
        ),
        {
            "path": "p",
            "prefix": "x",
            "body": "ğ",
            "endpoint": "billing",
            "tag": ["a", "b"],
            "state": ["done", "failed"],
            "due_before": "2014-11-11T22:10:40Z",
            "due_after": "2014-11-11T22:10:39.999999Z",
            "contains": "c",
        },
    ),
    (Filters(), {}),
    (
        RunFilters(
            path="p",
            prefix="x",
            body="b",
            endpoint="billing",
            tags=frozenset({"a"}),
            results=frozenset({Result.GIVEN_UP, Result.CANCELLED}),
            statuses=statuses_from_text("500-599,404"),
            error_kinds=frozenset({ErrorKind.TIMEOUT, ErrorKind.DNS}),
            since=NOW,
            until=NOW + HOUR,
        ),
        {
            "path": "p",
            "prefix": "x",
            "body": "b",
            "endpoint": "billing",
            "tag": ["a"],
            "result": ["cancelled", "given_up"],
            "status": "404,500-599",
            "error_kind": ["dns", "timeout"],
            "since": "2014-11-11T22:10:40Z",
            "until": "2014-11-11T23:10:40Z",
        },
    ),
    (RunFilters(), {}),
]


LIMITS = Limits((Area(("a/", "ö")), Area((), ("x",))))


class RequestTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        for filters, members in FILTERS:
            self.assertEqual(filter_to_json(filters), members)
            do = Do.REPLAY if isinstance(filters, RunFilters) else Do.DISABLE
            for more in ({}, {"dry_run": True, "expect_at_most": 0, "reason": "a sale"}):
                more |= {} if members else {"all": True}
                request = ActionRequest(do, filters, **more)  # type: ignore[arg-type]
                expected = {"do": do, "filter": members, **more}
                self.assertEqual(request_to_json(request), expected)
                self.assertEqual(request_from_text(json.dumps(expected)), request)
                limited = replace(request, limits=LIMITS)
                self.assertEqual(
                    request_to_json(limited), {**expected, "limits": ["a/,%C3%B6", "endpoint=x"]}
                )
                text = json.dumps(request_to_json(limited))
                self.assertEqual(request_from_text(text), limited)

    def test_each_filter_has_a_member(self) -> None:
        for filters, members in FILTERS[::2]:
            names = {"limits", "sort" if isinstance(filters, Filters) else "states"}
            slots = set(type(filters).__slots__)
            self.assertEqual(len(members), len(slots - names))

    def test_what_does_not_go_together(self) -> None:
        jobs, runs = Filters(path="p"), RunFilters(states=frozenset({RunState.RUNNING}))
        for do, filters, is_all, words, pointer in [
            (Do.DELETE, Filters(), False, "so delete would be done to all jobs: give", "/filter"),
            (Do.REPLAY, RunFilters(), False, "so replay would be done to all runs: ", "/filter"),
            (Do.DELETE, jobs, True, "all is true, and filter leaves jobs out: give", "/all"),
            (Do.REPLAY, runs, False, "and no such run can be replayed", "/filter/result"),
        ]:
            error = self.assertRaises(InvalidRequest, ActionRequest, do, filters, is_all)
            self.assertIn(words, str(error))
            self.assertEqual([pointer], [each for each, _ in error.errors])

    def test_text_that_nobody_can_have_written(self) -> None:
        """P6: it is told, and is no other error."""
        for text in (
            *("", "[]", "1", "{}", '{"do":"x","filter":{}}', '{"do":"delete","filter":{}}'),
            *('{"do":"delete"}', '{"do":"delete","filter":1}', '{"do":"delete","filter":{"x":1}}'),
            '{"do":"delete","filter":{"path":1}}',
            '{"do":"delete","filter":{"result":["given_up"]}}',
            '{"do":"replay","filter":{"state":["failed"]}}',
            '{"do":"delete","filter":{"state":["x"]}}',
            '{"do":"delete","filter":{"state":"failed"}}',
            '{"do":"delete","filter":{"due_before":"2014-11-11T22:10:40"}}',
            '{"do":"delete","filter":{"due_before":"0001-01-01T00:00:00+14:00"}}',
            '{"do":"delete","filter":{"path":"\\ud800"}}',
            *(f'{{"do":"replay","filter":{{"{name}":""}}}}' for name in ("path", "prefix")),
            '{"do":"delete","filter":{"path":"p"},"x":1}',
            '{"do":"delete","filter":{"path":"p"},"expect_at_most":"5"}',
            '{"do":"delete","filter":{"path":"p"},"expect_at_most":Infinity}',
            '{"do":"delete","filter":{"path":"p"},"dry_run":"no"}',
            '{"do":"delete","filter":{"path":"p"},"reason":["r"]}',
            # No limits, or such as no token has, are no reason to act on all.
            *(
                f'{{"do":"delete","filter":{{"path":"p"}},"limits":{limits}}}'
                for limits in ("[]", '[""]', '["a",""]', "[1]", '"a"', "null", '["endpoint=X X"]')
            ),
            "[" * 100_000,
        ):
            self.assertRaises(ValueError, request_from_text, text)

    def test_the_walk(self) -> None:
        """In an order that no batch changes; and of runs that had ended by then."""
        failed = ActionRequest(Do.TRIGGER, Filters(states=frozenset({State.FAILED})))
        walked = failed.walked(NOW)
        assert isinstance(walked, Filters)
        self.assertEqual((walked.driver, walked.states), (Driver.KEY, {State.FAILED}))
        for until, expected in [(None, NOW), (NOW - HOUR, NOW - HOUR), (NOW + HOUR, NOW)]:
            found = ActionRequest(Do.REPLAY, RunFilters(path="p", until=until)).walked(NOW)
            self.assertEqual(found, RunFilters(path="p", until=expected))

    def test_how_many_are_left(self) -> None:
        for most, done, failed, left in [
            (None, 1, 1, None),
            (5, 2, 1, 2),
            (0, 0, 0, 0),
            (1, 2, 0, 0),
        ]:
            request = ActionRequest(Do.DELETE, Filters(path="p"), expect_at_most=most)
            action = Action(
                id="1",
                request=request,
                state=ActionState.ACTING,
                made=NOW,
                done=done,
                failed=failed,
            )
            self.assertEqual(action.left, left)


class PlaceTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        for place in (
            None,
            Position(b"a\xff", b"\0"),
            Position(b"", b"", True, False),
            RunPlace(Shelf.FINE, 2**60, 2**62),
            RunPlace(Shelf.FAILED, 0, 1),
        ):
            self.assertEqual(place_from_text(place_to_text(place)), place)

    def test_text_that_nobody_can_have_written(self) -> None:
        for text in (
            "x",
            "1",
            "[]",
            "[1]",
            "[1,2]",
            "[9,2,3]",
            "[1,Infinity,3]",
            "[1,-1,3]",
            *(f"[1,2,{2**63}]",),
            '["zz","",false,false]',
            '["",""]',
        ):
            self.assertRaises(ValueError, place_from_text, text)
