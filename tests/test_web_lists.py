"""The query of a list of jobs: what each parameter says, and which queries are refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.key import Position
from dalga.model.listing import Filters, Query, Sort
from dalga.model.state import State
from dalga.web.cursors import cursor_text
from dalga.web.lists import MAX_TAGS, PAGE, listing, next_page

NEW_YEAR = datetime(2035, 1, 1, tzinfo=UTC)

#: Queries, and the filters that they name.
FILTERS = {
    "": Filters(),
    "path=a%2Fb": Filters(path="a/b"),
    "prefix=a&body=b": Filters(prefix="a", body="b"),
    "endpoint=billing": Filters(endpoint="billing"),
    "tag=a&tag=b": Filters(tags=frozenset({"a", "b"})),
    "state=done&state=problem": Filters(states=frozenset({State.DONE, State.PROBLEM})),
    "due_before=2035-01-01T00:00:00Z": Filters(due_before=NEW_YEAR),
    "due-after=2035-01-01T03:00:00%2B03:00": Filters(due_after=NEW_YEAR),
    "sort=due": Filters(sort=Sort.DUE),
    "contains=%25": Filters(contains="%"),
}


class ListingTests(SynchronousTestCase):
    """`listing`."""

    def test_each_filter(self) -> None:
        for query, filters in FILTERS.items():
            self.assertEqual(listing(query.encode()), Query(filters, limit=PAGE), query)

    def test_the_next_page(self) -> None:
        """A link leads to the same list, behind the place of its cursor."""
        for query in ("tag=a&tag=%26&state=done", "path=%2B&contains=x&limit=7&sort=key"):
            first = listing(query.encode())
            place = Position(b"a", b"b")
            link = next_page(first, cursor_text(place, first.filters))
            target = link.removeprefix("<?").partition(">")[0]
            self.assertEqual(listing(target.encode()), replace(first, after=place))

    def test_refused(self) -> None:
        """With the parameter's name."""
        tags = "&".join(f"tag={number}" for number in range(MAX_TAGS + 1))
        for query, words in {
            "nope=1": "there is no parameter 'nope'",
            "state=x": "state is 'x': it takes problem, disabled, running",
            "state=": "state is ''",
            "state=done,failed": "state is 'done,failed'",
            "tag=": "tag has an empty tag",
            tags: f"there are {MAX_TAGS + 1} tags",
            "path=a&path=b": "path is given twice",
            "path=a&prefix=a": "path and prefix are both given",
            "due_before=x": "due-before is 'x'",
            "due_before=2035-01-01T00:00:00Z&due_after=2035-01-01T00:00:00Z": "not later than",
            "limit=1001": "limit is '1001'",
            "cursor=x": "cursor is 'x', which",
        }.items():
            error = self.assertRaises(InvalidRequest, listing, query.encode())
            self.assertIn(words, str(error), query)
