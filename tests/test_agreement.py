"""Which parts of what a job sends go together."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dalga.errors import InvalidRequest
from dalga.model.plan import ScheduleRequest
from dalga.web.bodies import JSON
from dalga.web.parameters import schedule_request


def asked(members: str) -> ScheduleRequest:
    body = f'{{"interval":60,{members}}}'.encode()
    return ScheduleRequest.of(schedule_request(b"", JSON, body))


class AgreementTests(SynchronousTestCase):
    def test_together(self) -> None:
        for members in [
            '"payload":"a","content_type":"text/csv"',
            '"content_type":"text/csv"',
            '"method":"PUT","payload_base64":"","content_type":"image/png"',
            '"method":"DELETE"',
            '"method":"DELETE","payload":{},"content_type":"a/b"',
            '"method":"GET","headers":{"a":"b"}',
            '"method":"HEAD"',
            '"retry":{"interval":5,"max_interval":5}',
            '"retry":{"interval":"8760h"}',
            '"payload":"","redact":["payload"]',
            '"payload_base64":"AAAA","headers":{"X-A":"1"},"redact":["x-a","payload"]',
            '"headers":{"a":"%s"}' % ("x" * (8192 - 5)),
        ]:
            asked(members)

    def test_not_together(self) -> None:
        already = "also if the job has one already, or leave"
        for members, sentence, pointer in [
            (
                '"payload":"a","payload_base64":"AAAA"',
                "payload and payload-base64 both say what is sent; give just one of them",
                "/payload_base64",
            ),
            (
                '"method":"GET","payload":""',
                "payload can't go with method GET, whose requests have no content; leave payload "
                "or method out",
                "/payload",
            ),
            (
                '"method":"HEAD","payload_base64":""',
                "payload-base64 can't go with method HEAD, whose requests have no content; leave "
                "payload-base64 or method out",
                "/payload_base64",
            ),
            (
                '"method":"GET","content_type":"a/b"',
                "content-type can't go with method GET, as there is no content; leave content-type "
                "or method out",
                "/content_type",
            ),
            (
                '"method":"DELETE","content_type":"a/b"',
                "content-type can't go with method DELETE without a payload, as there is no "
                "content; leave content-type or method out",
                "/content_type",
            ),
            (
                '"headers":{"a":"%s"}' % ("x" * (8192 - 4)),
                "headers have 8193 octets, with 4 for each line: it takes 8192 at most",
                "/headers",
            ),
            (
                '"retry":{"interval":"61s","max_interval":"1m"}',
                "retry.interval is 61 s, longer than retry.max-interval, 60 s: make interval "
                "shorter, or max-interval longer",
                "/retry/interval",
            ),
            (
                '"redact":["payload"]',
                f"redact has payload, and no payload is given: give the payload, {already} "
                "payload out of redact; a PATCH keeps the payload",
                "/redact",
            ),
            (
                '"headers":{"X-A":"1"},"redact":["x-a","x-b"]',
                "redact has 'x-b', and headers has no such header: give its value in headers, "
                f"{already} it out of redact; a PATCH keeps the value",
                "/redact",
            ),
        ]:
            error = self.assertRaises(InvalidRequest, asked, members)
            self.assertEqual(str(error), sentence)
            self.assertEqual(error.errors, ((pointer, sentence),))
