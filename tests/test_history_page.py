"""docs/history.md says what the daemon does: curl gets what stands there."""

from __future__ import annotations

from tests.daemons import Answer, Hit
from tests.pages import PageTestCase, page
from tests.stores import each_engine

PAGE = page("history.md")


def answered(hit: Hit) -> Answer:
    """What the endpoint answers: a bill is not sent until its run is replayed."""
    if hit.path == "in/send_bill" and "dalga-replay-of" not in hit.headers:
        body = b'{"error":"no such customer"}'
        headers = {"Server": "billing", "Content-Type": "application/json"}
        return 422, {**headers, "Content-Length": str(len(body))}, body
    return 200


@each_engine(globals())
class CurlTests(PageTestCase):
    """The page's calls, from its top to its end, made of one daemon."""

    async def test_calls(self) -> None:
        self.endpoint.answer = answered
        sections = {
            "endpoint billing": {"baseurl": self.baseurl + "in/", "giveUp": "400-499"},
            "alerts": {"url": self.baseurl + "hooks/dalga"},
        }
        self.assertGreater(await self.make_all(PAGE, **sections), 10)
