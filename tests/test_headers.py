"""Headers that users give to requests: which names and values they may have."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.headers import (
    MESSAGE_HEADERS,
    is_name,
    is_of_dalga,
    is_of_signature,
    is_value,
    size_of,
)


class HeaderTests(SynchronousTestCase):
    def test_names(self) -> None:
        """A token, so nothing that ends the name or the line."""
        for text in ("X-Key", "x_key", "1", "!#$%&'*+-.^_`|~"):
            self.assertTrue(is_name(text), text)
        for text in (
            "",
            "X Key",
            "X:",
            "X\r",
            "X\n",
            "X\r\nY",
            "X\x00",
            "(X)",
            "Sch\u00e9ma",
            "X\u0660",
        ):
            self.assertFalse(is_name(text), repr(text))

    def test_values(self) -> None:
        """What no server and no proxy can take for the end of the line."""
        for text in ("a", "Bearer a.b-c==", '1; a="b"', "a  b", "~"):
            self.assertTrue(is_value(text), text)
        for text in (
            *("", " ", " a", "a ", "a\tb", "a\n", "a\r", "a\r\nX-Y: z", "a\nb", "a\x00b", "a\x7f"),
            *("\u00e9", "a\x85b", "a\u2028b", "a\ud800", "\u0661"),
        ):
            self.assertFalse(is_value(text), repr(text))

    def test_names_of_dalga(self) -> None:
        """What says how the message goes is Dalga's alone, and so is what says which run it is."""
        for name in (
            *MESSAGE_HEADERS,
            *("Host", "CONTENT-LENGTH", "Transfer-Encoding", "Connection", "TE", "Keep-Alive"),
            *("dalga-run", "Dalga-Sched", "DALGA-ANYTHING", "dalga-"),
            *("Dalga_Run", "content_length", "Transfer_Encoding"),
        ):
            self.assertTrue(is_of_dalga(name), name)
        for name in ("Content-Type", "User-Agent", "Authorization", "X-Dalga-Run", "Dalga"):
            self.assertFalse(is_of_dalga(name), name)

    def test_names_of_signatures(self) -> None:
        for name in (
            "webhook-id",
            "Webhook-Signature",
            "WEBHOOK-TIMESTAMP",
            "webhook-",
            "Webhook_Id",
        ):
            self.assertTrue(is_of_signature(name), name)
        for name in ("webhook", "X-Webhook-Id", "dalga-run"):
            self.assertFalse(is_of_signature(name), name)

    def test_size(self) -> None:
        """As they stand in the head of a request."""
        headers = [("X-Key", "1"), ("A", "b c")]
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.assertEqual(size_of(headers), len(head))
        self.assertEqual(size_of([]), 0)
