"""What a request begins with, before twisted.web reads it; see `dalga.web.head`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import _parseRequestLine

from dalga.errors import DalgaError
from dalga.web.errors import HeadTooLarge, MalformedRequest, TargetTooLong, problem_of
from dalga.web.head import (
    check_beginning,
    check_head,
    check_header_beginning,
    header_refusal,
    line_too_long,
    request_line,
)
from tests.strategies import thorough

#: What came, and what twisted.web is given.
READ = [
    (b"GET /status HTTP/1.1", b"GET /status HTTP/1.1"),
    (b"GET /status HTTP/1.0", b"GET /status HTTP/1.0"),
    (b"GET /status HTTP/1.7", b"GET /status HTTP/1.1"),
    (b"BASELINE-CONTROL * HTTP/1.1", b"BASELINE-CONTROL * HTTP/1.1"),
    (b"X" * 40 + b" / HTTP/1.1", b"X" * 40 + b" / HTTP/1.1"),
    ("PUT /jobs/ö/🐰?x=ü HTTP/1.1".encode(), b"PUT /jobs/%C3%B6/%F0%9F%90%B0?x=%C3%BC HTTP/1.1"),
    (b"GET /\xff%zz\x7f HTTP/1.1", b"GET /%FF%zz%7F HTTP/1.1"),
]

lines = st.binary(max_size=60) | st.builds(
    lambda method, target, version: b"%b %b %b" % (method, target, version),
    st.sampled_from([b"GET", b"PUT", b"", b"G T"]) | st.binary(max_size=45),
    st.binary(max_size=20),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.5", b"HTTP/2.0", b"http/1.1", b""]),
)


class RequestLineTests(SynchronousTestCase):
    def test_what_is_read(self) -> None:
        for line, taken in READ:
            self.assertEqual(request_line(line), taken)

    def test_what_may_become_one_is_waited_for(self) -> None:
        for line, _ in READ:
            for end in range(len(line) + 1):
                check_beginning(line[:end])
            check_beginning(line + b"\r")

    @thorough(300)
    @given(lines)
    def test_twisted_takes_what_is_read_and_all_else_is_a_sentence(self, line: bytes) -> None:
        try:
            taken = request_line(line)
        except DalgaError as error:
            problem = problem_of(error)
            assert problem is not None
            self.assertIn(problem.status, (400, 505))
            self.assertTrue(problem.detail.isprintable())
        else:
            _parseRequestLine(taken)
            # What is read is not refused before its end has come.
            for end in range(len(line) + 1):
                check_beginning(line[:end])

    @thorough(300)
    @given(lines)
    def test_what_is_not_waited_for_could_not_be_read(self, octets: bytes) -> None:
        try:
            check_beginning(octets)
        except DalgaError:
            for end in (b"", b" / HTTP/1.1", b" HTTP/1.1", b"/1.1", b"1"):
                self.assertRaises(DalgaError, request_line, octets + end)

    def test_one_that_takes_no_end(self) -> None:
        for line, kind in [
            (b"GET /" + b"x" * 20_000, TargetTooLong),
            (b"GET / x" + b"x" * 20_000, MalformedRequest),
            (b"\x16\x03" + b"x" * 20_000, MalformedRequest),
            (b"x" * 20_000, MalformedRequest),
        ]:
            self.assertIsInstance(line_too_long(line, 16384, True), kind)
        self.assertIsInstance(line_too_long(b"A: b", 16384, False), HeadTooLarge)


class HeaderTests(SynchronousTestCase):
    def test_each_refusal(self) -> None:
        for line, is_framed, status, sentence in [
            (b"A", False, 400, "the header 'A' has no colon: it takes a name, a colon and a value"),
            (b": b", False, 400, "the header's name '' is none"),
            (b"A : b", False, 400, "the header's name 'A ' is none"),
            (b"\xff: b", False, 400, "the header's name 'ÿ' is none"),
            (b"A: b\rc", False, 400, "the value of the header A has the octet 0x00, a CR or an LF"),
            (
                b"Content-Length: +1",
                True,
                400,
                "Content-Length is '+1': it takes the body's length",
            ),
            (b"CONTENT-LENGTH:", False, 400, "CONTENT-LENGTH is '': it takes the body's length"),
            (b"Content-Length: 1", True, 400, "the body's length is given twice: it takes one"),
            (
                b"transfer-encoding: chunked",
                True,
                400,
                "the body's length is given twice: it takes",
            ),
            (
                b"Transfer-Encoding: gzip, chunked",
                False,
                501,
                "is 'gzip, chunked': it takes chunked",
            ),
            (
                b"Transfer-Encoding: gzip",
                False,
                400,
                "Transfer-Encoding is 'gzip': it takes chunked",
            ),
            (
                b"Transfer-Encoding: chunked, gzip",
                False,
                400,
                "is 'chunked, gzip': it takes chunked",
            ),
            (b"Transfer-Encoding: gzip,Chunked", False, 501, "is 'gzip,Chunked': it takes chunked"),
        ]:
            problem = problem_of(header_refusal(line, is_framed))
            assert problem is not None
            self.assertEqual(problem.status, status, line)
            self.assertIn(sentence, problem.detail)

    def test_host(self) -> None:
        """RFC 9112 section 3.2: one, since HTTP/1.1, that is a host and maybe a port, or empty."""
        for version, hosts in [
            (b"HTTP/1.1", [b"dalga.example:34006"]),
            (b"HTTP/1.1", [b"[fe80::1%25eth0]:1"]),
            (b"HTTP/1.1", [b""]),
            (b"HTTP/1.0", [b"x"]),
            (b"HTTP/1.0", []),
        ]:
            check_head(version, hosts, False)
        for version, hosts in [
            (b"HTTP/1.1", []),
            (b"HTTP/1.1", [b"x", b"x"]),
            (b"HTTP/1.0", [b"x", b"y"]),
            *((b"HTTP/1.1", [value]) for value in (b"\xff", b"a b", b"a/b", b"a@b", b"a,\tb")),
        ]:
            self.assertRaises(MalformedRequest, check_head, version, hosts, False)

    def test_a_coding(self) -> None:
        """RFC 9112 section 6.1: HTTP/1.0 has none."""
        check_head(b"HTTP/1.1", [b"x"], True)
        self.assertRaises(MalformedRequest, check_head, b"HTTP/1.0", [b"x"], True)

    def test_what_is_not_waited_for(self) -> None:
        for octets in (b"", b"A", b"A: b", b"A: b\r", b"\xff\x01"):
            check_header_beginning(octets)
        for octets in (b"A\n", b"\n", b"A: \0"):
            self.assertRaises(MalformedRequest, check_header_beginning, octets)
