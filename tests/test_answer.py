"""
What is an answer, and what becomes of its connection: the reader by itself, in tables. That it does
over sockets what it does here is in test_endpoint.
"""

from __future__ import annotations

import tracemalloc

from httptools import HttpParserError, HttpResponseParser
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse
from zope.interface.verify import verifyObject

from dalga.outgoing.answer import KEPT, MAX_BODY, MAX_CHUNKS, MAX_HEAD, Answer, Reader, Then
from dalga.outgoing.failures import BadAnswer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def of_length(size: int) -> bytes:
    """An answer with a body of this length."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * size)


def read(data: bytes, size: int = 0, head_only: bool = False) -> Answer | None:
    """
    What comes of these bytes and the connection's end.

    :param size: of each piece; 0 for all in one.
    """
    reader = Reader()
    reader.begin(head_only)
    for at in range(0, len(data), size or len(data)):
        answer = reader.feed(data[at : at + (size or len(data))])
        if answer is not None:
            return answer
    return reader.end()


def became(data: bytes, size: int = 0) -> object:
    """The status and what is to become of the connection; or the words of a refusal."""
    try:
        answer = read(data, size)
    except BadAnswer as error:
        return str(error)
    return None if answer is None else (answer.code, answer.then)


class Body(Protocol):
    """Collects a body."""

    def __init__(self) -> None:
        self.data = b""
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


class EndTests(SynchronousTestCase):
    """Where an answer ends, and whether its connection is kept."""

    def test_table(self) -> None:
        """P2: kept only where the end is certain; the same in one piece and in single bytes."""
        head = b"HTTP/1.1 200 OK\r\n"
        old = b"HTTP/1.0 200 OK\r\n"
        keep, close, drop = (200, Then.KEEP), (200, Then.CLOSE), (200, Then.DROP)
        for data, expected in (
            (OK, keep),
            (head + b"Content-Length: 0\r\n\r\n", keep),
            (head + b"content-length:2\r\n\r\nok", keep),
            (head + b"CONTENT-LENGTH: \t2\t \r\n\r\nok", close),
            (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", keep),
            (CHUNKED + b'2;a=b;c="d e";f\r\nok\r\n0;last\r\nX: y\r\nZ: \r\n\r\n', keep),
            (head + b"Transfer-Encoding:\tChunked \r\n\r\n0\r\n\r\n", close),
            (head + b"Connection: keep-alive\r\nContent-Length: 2\r\n\r\nok", keep),
            (head + b"X: disclosed\r\nContent-Length: 2\r\n\r\nok", keep),
            *(
                (head + b"Connection: %b\r\nContent-Length: 2\r\n\r\nok" % value, close)
                for value in (b"close", b"CLOSE", b"Close\t", b"x, cLoSe", b"close, x", b"x,,close")
            ),
            (head + b"Connection: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", close),
            (CHUNKED + b"0\r\nConnection: close\r\n\r\n", close),
            (old + b"Content-Length: 2\r\n\r\nok", close),
            (old + b"Connection: keep-alive\r\nContent-Length: 2\r\n\r\nok", keep),
            (old + b"Connection: Keep-Alive, close\r\nContent-Length: 2\r\n\r\nok", close),
            (old + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", close),
            (head + b"\r\nuntil the end", drop),
            (old + b"\r\nuntil the end", drop),
            (head + b"Transfer-Encoding: identity\r\n\r\nuntil the end", drop),
            (head + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", close),
            (head + b"Content-Length: 2, 02\r\n\r\nok", close),
            (head.replace(b"\r", b"") + b"Content-Length: 2\n\nok", close),
            (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK, keep),
            (b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n" + OK, keep),
            (b"HTTP/1.1 102 X\r\nTransfer-Encoding: gzip\r\nContent-Length: x\r\n\r\n" + OK, keep),
            (b"HTTP/1.1 103 X\nLink: y\n\n" + OK, keep),
            (b"HTTP/1.1 204 No\r\n\r\n", (204, Then.CLOSE)),
            (b"HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n", (304, Then.CLOSE)),
            (b"HTTP/1.1 204 No\r\nContent-Length: x\r\n\r\n", (204, Then.CLOSE)),
        ):
            for size in (0, 1, 3):
                self.assertEqual(became(data, size), expected, (data, size))

    def test_what_comes_behind(self) -> None:
        """P2: whatever it is, the connection is not used again."""
        for answer in (OK, CHUNKED + b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"):
            for behind in (OK, b"\r\n", b"\n", b"x", b"\0", b"HTTP/1.1 100 Continue\r\n\r\n"):
                self.assertEqual(became(answer + behind), (200, Then.DROP), (answer, behind))

    def test_one_after_the_other(self) -> None:
        """A reader that has read one answer reads the next, and nothing of the first is left."""
        reader = Reader()
        for code in (200, 500, 404):
            for data in (
                b"HTTP/1.1 %d X\r\nA: b\r\nContent-Length: 3\r\n\r\nabc" % code,
                b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % code,
                b"HTTP/1.1 100 X\r\n\r\nHTTP/1.1 %d X\r\nContent-Length: 3\r\n\r\nabc" % code,
            ):
                reader.begin()
                answer = reader.feed(data)
                assert answer is not None
                self.assertEqual((answer.code, answer.length), (code, 3))

    def test_the_answer_to_a_head(self) -> None:
        """It ends with its headers, whatever they say."""
        for fields in (
            b"Content-Length: 5\r\n",
            b"Content-Length: 0\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"",
        ):
            answer = read(b"HTTP/1.1 200 OK\r\n%b\r\n" % fields, head_only=True)
            assert answer is not None
            self.assertEqual((answer.code, answer.then, answer.length), (200, Then.CLOSE, 0))

    def test_where_llhttp_sees_no_end(self) -> None:
        """P2: the two readers don't agree, so there is no answer."""
        for size in (len(OK), 1):
            reader = Reader()
            reader._parser = HttpResponseParser(object())
            with self.assertRaisesRegex(BadAnswer, "does not end where its headers say"):
                for at in range(0, len(OK), size):
                    reader.feed(OK[at : at + size])

    def test_broken_off(self) -> None:
        """There is no answer before its end."""
        for data in (OK, CHUNKED + b"2\r\nok\r\n0\r\nX: y\r\n\r\n"):
            for end in range(1, len(data)):
                self.assertIsNone(became(data[:end]), data[:end])


class LimitTests(SynchronousTestCase):
    """P10."""

    def test_head(self) -> None:
        """It is as long as the cap, or too long by a byte; interim answers count, too."""
        for start in (b"", b"HTTP/1.1 100 Continue\r\n\r\n"):
            start += b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: "
            for more, expected in (
                (0, (200, Then.KEEP)),
                (1, "the answer's headers are longer than 16 KiB"),
            ):
                data = start + b"x" * (MAX_HEAD - len(start) - 4 + more) + b"\r\n\r\n"
                for size in (0, 1, 1000):
                    self.assertEqual(became(data, size), expected)

    def test_body(self) -> None:
        """What is longer than the cap is cut there, and the connection dropped."""
        for size, then in ((MAX_BODY, Then.KEEP), (MAX_BODY + 1, Then.DROP)):
            body = b"x" * size
            with_length = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
            for data in (with_length + body, CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)):
                for pieces in (0, 5000):
                    self.assertEqual(became(data, pieces), (200, then))

    def test_nothing_is_held(self) -> None:
        """P10: a connection that waits for its next request has nothing of its last answer."""
        field = b"X: " + b"y" * 15_000 + b"\r\n"
        length = b"Content-Length: %d\r\n" % MAX_BODY
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (MAX_BODY, b"z" * MAX_BODY)
        for head, body in (
            (b"HTTP/1.1 500 X\r\n" + field + length, b"z" * MAX_BODY),
            (b"HTTP/1.1 500 X\r\n" + field + b"Transfer-Encoding: chunked\r\n", chunks),
        ):
            for pieces in (0, 5000):
                readers = [Reader() for _ in range(20)]
                tracemalloc.start()
                before, _ = tracemalloc.get_traced_memory()
                for reader in readers:
                    data = head + b"\r\n" + body
                    reader.begin()
                    for at in range(0, len(data), pieces or len(data)):
                        answer = reader.feed(data[at : at + (pieces or len(data))])
                    self.assertIsNotNone(answer)
                del answer, data
                after, _ = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                self.assertLess(after - before, 20 * 2000, (head[-40:], pieces))

    def test_chunks(self) -> None:
        """A body of little in chunks that say much is cut as well."""
        for data in (b"1;" + b"x" * MAX_CHUNKS, b"0\r\nX: " + b"x" * MAX_CHUNKS):
            self.assertEqual(became(CHUNKED + data, 10_000), (200, Then.DROP))
        self.assertEqual(
            became(CHUNKED + b"1\r\nx\r\n" * MAX_BODY + b"0\r\n\r\n"), (200, Then.KEEP)
        )

    def test_lengths(self) -> None:
        """A length may be longer than any body, and than any number that llhttp knows."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 4000 + b"\r\n\r\n"
        self.assertEqual(became(head), None)
        self.assertEqual(became(head + b"x" * (MAX_BODY + 1), 5000), (200, Then.DROP))


class RefusalTests(SynchronousTestCase):
    def test_what_others_may_understand_otherwise(self) -> None:
        """Shapes by which one answer is smuggled into another: no answer, and no connection."""
        ok = b"HTTP/1.1 200 OK\r\n"
        folded = "is no header"
        for data, words in (
            (CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n0\r\n\r\n", "both a Transfer-Encoding"),
            (
                ok + b"Content-Length: 5\r\n" + CHUNKED[17:] + b"0\r\n\r\n",
                "both a Transfer-Encoding",
            ),
            (ok + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nok", "Content-Length is '1, 2'"),
            (ok + b"Content-Length: 1, 2\r\n\r\nok", "Content-Length is '1, 2'"),
            (ok + b"Content-Length: 0x2\r\n\r\nok", "Content-Length is '0x2'"),
            (ok + b"Content-Length: 2 2\r\n\r\nok", "Content-Length is '2 2'"),
            (ok + b"Content-Length: 2,\r\n\r\nok", "Content-Length is '2, '"),
            (ok + b"Content-Length : 2\r\n\r\nok", folded),
            (ok + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding is"),
            (ok + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding is"),
            (ok + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", folded),
            (ok + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", folded),
            (ok + b"Transfer-Encoding: chunked\r\n chunked\r\n\r\n0\r\n\r\n", folded),
            (ok + b"X: y\r\n z\r\nContent-Length: 2\r\n\r\nok", folded),
            (ok + b"X: y\r\n\tz\r\nContent-Length: 2\r\n\r\nok", folded),
            (
                ok + b"X: y\nContent-Length: 2\r\n\r\nok",
                "ends in LF, where other lines end in CRLF",
            ),
            (ok + b"Content-Length: 2\n\nok", "ends in LF, where other lines end in CRLF"),
            (b"HTTP/1.1 200 OK\nX: y\r\nContent-Length: 2\n\nok", folded),
            (ok + b"X: a\rContent-Length: 2\r\n\r\nok", folded),
            (ok + b"X: a\0b\r\nContent-Length: 2\r\n\r\nok", folded),
            (ok + b"X\0: a\r\nContent-Length: 2\r\n\r\nok", folded),
            (ok + b": a\r\nContent-Length: 2\r\n\r\nok", folded),
            *(
                (CHUNKED + chunks, "its body is not in the chunks that its headers announce")
                for chunks in (
                    *(
                        b"2\nok\n0\n\n",
                        b"2\r\nok0\r\n\r\n",
                        b"2 \r\nok\r\n0\r\n\r\n",
                        b"\r\n0\r\n\r\n",
                    ),
                    *(
                        b"0x2\r\nok\r\n0\r\n\r\n",
                        b"+2\r\nok\r\n0\r\n\r\n",
                        b"2\r\nok\r\n0\r\nX y\r\n",
                    ),
                    *(
                        b"2;\0\r\nok\r\n0\r\n\r\n",
                        b"2\r\nok\n0\r\n\r\n",
                        b"0\r\nX: y\r\n z\r\n\r\n",
                    ),
                    *(
                        b"0\r\nContent-Length: 2\r\n\r\n",
                        b"10000000000000000\r\n",
                        b"0\r\nX: \0\r\n",
                    ),
                )
            ),
        ):
            for size in (0, 1):
                found = became(data, size)
                self.assertTrue(
                    str(found).startswith("the answer is malformed HTTP: ") and words in str(found),
                    (data, found),
                )

    def test_what_llhttp_takes(self) -> None:
        """What llhttp takes for an answer, none of its lenient flags set, and this is none."""
        length = b"Content-Length: 0\r\n\r\n"
        for data, words in (
            (b"RTSP/1.0 200 OK\r\n" + length, "is not HTTP: 'RTSP/1.0 200'"),
            (b"ICE/1.0 200 OK\r\n" + length, "is not HTTP: 'ICE/1.0 200'"),
            (b"HTTP/2.0 200 OK\r\n" + length, "is not HTTP: 'HTTP/2.0 200'"),
            (b"HTTP/0.9 200 OK\r\n" + length, "is not HTTP: 'HTTP/0.9 200'"),
            (b"HTTP/1.1 000 OK\r\n" + length, "is not HTTP: 'HTTP/1.1 000'"),
            (b"HTTP/1.1 200 O\0K\r\n" + length, "is not HTTP: 'HTTP/1.1 200 O\\x00K'"),
            (b"\r\n\nHTTP/1.1 200 OK\r\n" + length, "is not HTTP: ''"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding is 'gzip'"),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
                "Transfer-Encoding is 'chunked, gzip'",
            ),
        ):
            HttpResponseParser(object()).feed_data(data)
            for size in (0, 1):
                self.assertIn(words, str(became(data, size)), data)

    def test_what_llhttp_refuses(self) -> None:
        """Its flags are off: what they would let in is refused by it, whoever looks first."""
        for data in (
            b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n",
            CHUNKED + b"2 \r\n",
            CHUNKED + b"2\r\nok0",
        ):
            parser = HttpResponseParser(object())
            self.assertRaises(HttpParserError, parser.feed_data, data)


class ResponseTests(SynchronousTestCase):
    """An answer as `IResponse`."""

    def test_interface(self) -> None:
        answer = read(b"HTTP/1.1 200 Very well\r\nServer: x\r\nContent-Length: 2\r\n\r\nok")
        assert answer is not None
        verifyObject(IResponse, answer)
        self.assertEqual((answer.version, answer.phrase), ((b"HTTP", 1, 1), b"Very well"))
        self.assertEqual((answer.length, answer.previousResponse, answer.request), (2, None, None))
        answer.setPreviousResponse(answer)
        self.assertIs(answer.previousResponse, answer)

    def test_headers(self) -> None:
        """All of them, and one of them: its first value, by its name in any case."""
        answer = read(
            b"HTTP/1.1 200 OK\r\nServer: x-age: 5\r\nX: 1\r\nx:  2 \r\nContent-Length: 2\r\n\r\nok"
        )
        assert answer is not None
        headers = [(b"Server", [b"x-age: 5"]), (b"X", [b"1", b"2"]), (b"Content-Length", [b"2"])]
        self.assertEqual(list(answer.headers.getAllRawHeaders()), headers)
        for name, value in ((b"server", b"x-age: 5"), (b"x", b"1"), (b"x-age", None), (b"a", None)):
            self.assertEqual(answer.header(name), value)

    def test_body(self) -> None:
        """It is delivered as it was read, with what is known of its end."""
        for data, body, why in (
            (OK, b"ok", ResponseDone),
            (CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok", ResponseDone),
            (CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + OK.replace(b"ok", b"no"), b"ok", ResponseDone),
            (b"HTTP/1.1 200 OK\r\n\r\nok", b"ok", PotentialDataLoss),
            (of_length(KEPT), b"x" * KEPT, ResponseDone),
            (of_length(KEPT + 1), b"x" * KEPT, PotentialDataLoss),
            (
                CHUNKED + b"9000\r\n%b\r\n0\r\n\r\n" % (b"x" * 0x9000),
                b"x" * KEPT,
                PotentialDataLoss,
            ),
        ):
            answer = read(data)
            assert answer is not None
            collected = Body()
            answer.deliverBody(collected)
            assert collected.reason is not None
            self.assertEqual((collected.data, collected.reason.type), (body, why))
