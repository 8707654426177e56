"""
The same answers, read by Dalga's own reader and by the client that it had before: the same
outcome, or a difference that is listed here. Recorded answers of servers, answers put together by
chance, and both with bytes changed, in pieces of any size.

    python -m tests.test_answer_fuzz SEED COUNT    more of them, and how often each difference came
"""

from __future__ import annotations

import sys
from collections import Counter
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from dalga.outgoing.answer import Reader, Then
from dalga.outgoing.failures import BadAnswer
from tests.twisted_client import TwistedClient

#: What servers say, as it was recorded.
RECORDED = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 30 Nov 2026 05:12:46 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
    b"HTTP/1.1 404 Not Found\r\nX-Powered-By: Express\r\n"
    b"Content-Security-Policy: default-src 'none'\r\nX-Content-Type-Options: nosniff\r\n"
    b"Content-Type: text/html; charset=utf-8\r\n"
    b"Content-Length: 9\r\nDate: Mon, 30 Nov 2026 05:12:46 GMT\r\nConnection: keep-alive\r\n"
    b"Keep-Alive: timeout=5\r\n\r\nnot found",
    b"HTTP/1.1 200 OK\r\nDate: Mon, 30 Nov 2026 05:12:46 GMT\r\nConnection: keep-alive\r\n"
    b"Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 500 Internal Server Error\r\nServer: gunicorn\r\n"
    b"Date: Mon, 30 Nov 2026 05:12:46 GMT\r\nConnection: close\r\n"
    b"Content-Type: text/html\r\nContent-Length: 5\r\n\r\noh no",
    b"HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6 Python/3.11.7\r\n"
    b"Date: Mon, 30 Nov 2026 05:12:46 GMT\r\n"
    b"Content-type: text/html\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\nDate: Mon, 30 Nov 2026 05:12:46 GMT\r\n\r\n",
    b"HTTP/1.1 200 \r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    b'Date: Mon, 30 Nov 2026 05:12:46 GMT\r\n\r\nd\r\n{"done":true}\r\n0\r\n\r\n',
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nServer: Apache\r\nVary: Accept-Encoding\r\nContent-Encoding: gzip\r\n"
    b"Content-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Expires\r\n\r\n"
    b'5;a=b;c="d e"\r\nhello\r\n0;last\r\nExpires: 0\r\nX-Sum: 1\r\n\r\n',
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
)

STATUS_LINES = (
    *(b"HTTP/1.1 %d X\r\n" % status for status in (200, 200, 204, 304, 404, 429, 500, 999)),
    *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 X\r\nContent-Length: 3\r\n\r\n"),
    *(b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200\r\n", b"HTTP/1.1 200 \r\n", b"HTTP/1.1 200 OK\n"),
    *(
        b"HTTP/2.0 200 OK\r\n",
        b"HTTP/1.2 200 OK\r\n",
        b"HTTP/0.9 200 OK\r\n",
        b"RTSP/1.0 200 OK\r\n",
    ),
    *(b"HTTP/1.1 099 X\r\n", b"HTTP/1.1 20 X\r\n", b"HTTP/1.1  200 X\r\n", b"http/1.1 200 X\r\n"),
    *(b"\r\nHTTP/1.1 200 OK\r\n", b"ICY 200 OK\r\n", b"HTTP/1.1 200 O\x00K\r\n", b"SSH-2.0-x\r\n"),
)
FIELDS = (
    *(b"Content-Length: %d\r\n" % length for length in (0, 1, 2, 5, 5, 5)),
    *(b"content-length:5\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: 05\r\n"),
    *(b"Content-Length: +5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 5 5\r\n"),
    *(
        b"Content-Length:\r\n",
        b"Content-Length : 5\r\n",
        b"Content-Length: 99999999999999999999\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: CHUNKED \r\n"),
    *(b"transfer-encoding: identity\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(b"Transfer-Encoding: chunked, gzip\r\n", b"Transfer-Encoding:\r\n", b"TE: chunked\r\n"),
    *(b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding: xchunked\r\n"),
    *(b"Transfer-Encoding: identity, chunked\r\n", b"Transfer-Encoding:\tchunked\t\r\n"),
    *(b"Connection: close\r\n", b"Connection: Close\t\r\n", b"Connection: x, CLOSE\r\n"),
    *(b"Connection: keep-alive\r\n", b"Connection: Keep-Alive, x\r\n", b"Connection: upgrade\r\n"),
    *(
        b"Upgrade: h2c\r\n",
        b"X: y\r\n",
        b"X:y\r\n",
        b"X: \r\n",
        b"X: disclose\r\n",
        b"X-\xe9: y\r\n",
    ),
    *(b" folded\r\n", b"X: y\n", b"X: a\x00b\r\n", b"X: a\rb\r\n", b"no colon\r\n", b": y\r\n"),
    *(b"X Y: z\r\n", b"X: \x01\r\n", b"X: \x7f\r\n", b"X: \xe9\r\n"),
)
BODIES = (
    *(b"", b"h", b"ok", b"hello", b"hello", b"hello, and more", b"\r\n", b"hello\r\n"),
    *(b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    *(b"5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n", b"05\r\nhello\r\n000\r\n\r\n", b"0\r\n\r\n"),
    *(b"5\nhello\n0\n\n", b"5 \r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n", b"5\r\nhello0\r\n\r\n"),
    *(
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\nhello",
        b"5\r\nhello\r\n0\r\nX y\r\n\r\n",
    ),
    *(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
)
ODD = (
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"5",
    b"\xff",
    b"\r\n\r\n",
)


def an_answer(random: Random) -> bytes:
    """One of the recorded answers, or one of pieces; often with some bytes changed."""
    if random.random() < 0.3:
        answer = random.choice(RECORDED)
    else:
        count = random.choice((0, 1, 1, 2, 2, 3, 4))
        fields = b"".join(random.choice(FIELDS) for _ in range(count))
        answer = random.choice(STATUS_LINES[: random.choice((8, len(STATUS_LINES)))])
        if answer.endswith(b"\r\n\r\n"):
            answer += b"HTTP/1.1 200 OK\r\n"
        answer += fields + b"\r\n" + random.choice(BODIES)
    for _ in range(random.choice((0, 0, 1, 1, 2, 5))):
        at, count = random.randrange(len(answer) + 1), random.choice((0, 0, 1, 1, 3))
        answer = answer[:at] + random.choice(ODD) + answer[at + count :]
    if random.random() < 0.1:
        answer = answer[: random.randrange(len(answer) + 1)]
    return answer


def in_pieces(random: Random, answer: bytes) -> list[bytes]:
    """What comes of it, a piece at a time: all, single bytes, or some."""
    size = random.choice((len(answer) or 1, 1, random.randint(1, 40)))
    return [answer[at : at + size] for at in range(0, len(answer), size)]


def ours(pieces: list[bytes]) -> tuple[int | None, str, bool]:
    """The status, or words on why there is none, and whether the connection was kept."""
    reader = Reader()
    try:
        for number, piece in enumerate(pieces):
            answer = reader.feed(piece)
            if answer is not None:
                # More is for a connection that nobody waits on, which ends it.
                kept = answer.then is Then.KEEP and number == len(pieces) - 1
                return answer.code, "", kept
        answer = reader.end()
    except BadAnswer as error:
        return None, str(error), False
    if answer is None:
        return None, "broken off", False
    return answer.code, "", False


def theirs(pieces: list[bytes]) -> tuple[int | None, str, bool]:
    client = TwistedClient()
    for piece in pieces:
        client.feed(piece)
    client.end()
    return client.status, client.trouble or "", client.kept


#: Where Dalga's reader has no answer and the client before had one: what its words have in them.
STRICTER = {
    "is no header": "a header that RFC 9110 does not know: folded, without a name, with control "
    "characters",
    "is not HTTP: ": "a status line that RFC 9112 does not know, or a version not 1.0 or 1.1",
    "ends in LF, where": "a line end that others might not take for one",
    "both a Transfer-Encoding and a Content-Length": "two lengths, of which others may take either",
    "not in the chunks": "chunks that llhttp does not take",
}


def difference(answer: bytes, pieces: list[bytes]) -> str | None:
    """
    What differs, of what may differ; None for nothing.

    :raises AssertionError: for any other difference.
    """
    (status, words, kept), (before, _, was_kept) = ours(pieces), theirs(pieces)
    assert was_kept or not kept, "kept a connection that was not kept before"
    if status == before:
        return "the connection is not kept" if was_kept and not kept else None
    if status is None:
        for part, why in STRICTER.items():
            if part in words:
                return why
    raise AssertionError(f"{status} {words!r}, and before {before}")


def run(seed: int, count: int) -> Counter[str | None]:
    """:raises AssertionError: with the answer that made the difference."""
    random = Random(seed)
    found: Counter[str | None] = Counter()
    for _ in range(count):
        answer = an_answer(random)
        pieces = in_pieces(random, answer)
        try:
            found[difference(answer, pieces)] += 1
        except AssertionError as error:
            raise AssertionError(f"{error}: {pieces!r}") from error
    return found


class FuzzTests(SynchronousTestCase):
    def test_like_the_client_before(self) -> None:
        """P2: the same outcome, or a listed reason; never is a connection kept that was not."""
        found = run(seed=20261130, count=4_000)
        self.assertGreater(found[None], 1_500)
        self.assertEqual(set(STRICTER.values()) - set(found), set())

    def test_as_the_answer_to_a_head(self) -> None:
        """
        P2, P3: it is over where its headers are, with nothing of what comes behind, and the
        connection is not kept. Its status is that of the same answer to a POST, if that has one.
        """
        random = Random(20261130)
        found: Counter[str] = Counter()
        for _ in range(4_000):
            answer = an_answer(random)
            pieces = in_pieces(random, answer)
            reader = Reader()
            reader.begin(head_only=True)
            read = None
            try:
                for piece in pieces:
                    read = read or reader.feed(piece)
                read = read or reader.end()
            except BadAnswer:
                found["refused"] += 1
                # Of a POST's answer more may be wrong, and nothing less.
                self.assertIsNone(ours(pieces)[0], pieces)
                continue
            if read is None:
                found["broken off"] += 1
                self.assertIsNone(ours(pieces)[0], pieces)
                continue
            found["answered"] += 1
            self.assertEqual(read.length, 0, pieces)
            self.assertIsNot(read.then, Then.KEEP, pieces)
            self.assertIn(ours(pieces)[0], (read.code, None), pieces)
        self.assertGreater(min(found.values()), 100, found)
        self.assertEqual(len(found), 3)

    def test_recorded(self) -> None:
        """What servers say is read as before, and their connections are kept as before."""
        for answer in RECORDED:
            for size in (1, 2, 7, len(answer)):
                pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
                self.assertEqual(difference(answer, pieces), None, answer)
                self.assertIsNotNone(ours(pieces)[0])


if __name__ == "__main__":
    for key, value in run(int(sys.argv[1]), int(sys.argv[2])).most_common():
        print(f"{value:8}  {key or 'no difference'}")
