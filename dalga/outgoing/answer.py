"""
Read the endpoint's answers: bytes in, an `Answer` or what is wrong with it out.

Each answer is read twice. `Reader` looks at the head by itself, strictly (RFC 9112 sections 2 to
6), and finds how the body ends. Then llhttp, by httptools, reads head and body by its own rules.
Where one of the two refuses, or where they see the end in different places, there is no answer:
what comes behind the end might be taken for the next run's answer (P2).

    the bytes                              what becomes of them
    HTTP/1.1 100 Continue ... CRLF         are dropped
    HTTP/1.1 200 OK ... CRLF and its body  are the answer
    anything behind that                   is dropped, and the connection is not kept

llhttp is given the answer's bytes up to the last one and no further. Its lenient flags are off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any

from httptools import HttpParserError, HttpResponseParser
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

from dalga.outgoing.failures import malformed, no_http, start_of, too_long

#: How much of an answer's body is read, in bytes. Only the status counts: where the body is longer,
#: the connection is dropped, and the rest of the body is not read.
MAX_BODY = 64 * 1024

#: How much is read of a body in chunks, in bytes: `MAX_BODY` in chunks of one byte each, and more.
#: A body that is longer for its chunks' extensions counts as longer than `MAX_BODY`.
MAX_CHUNKS = 8 * MAX_BODY

#: How long an answer's status line and headers may be together, interim (1xx) answers included, in
#: bytes.
MAX_HEAD = 16 * 1024

#: Answers that end with their headers, whatever these say (RFC 9112 section 6.3).
BODILESS = frozenset((204, 304))

# RFC 9112 section 4, whose reason may lack its space here, and RFC 9110 section 5.5.
_TEXT = rb"[\t -~\x80-\xff]*"
_FIELD = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:" + _TEXT
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: " + _TEXT + rb")?")
_FIELD_LINE = re.compile(_FIELD)
#: A whole head as nearly all answers have it: final, and in HTTP/1.1.
_USUAL_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-9][0-9]{2})(?: " + _TEXT + rb")?\r\n(?:" + _FIELD + rb"\r\n)*\r\n"
)
_END_OF_HEAD = re.compile(rb"\n\r?\n")
#: What looks like a status line, of HTTP or of something else.
_LIKE_STATUS_LINE = re.compile(rb"([^ ]+ [0-9]{3})(?: |$)")

# In a head in lower case. Nearly all answers have one line of the first, or one of the second.
_LENGTH, _CODING = b"\r\ncontent-length:", b"\r\ntransfer-encoding:"
_USUAL_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})\r\n")
_USUAL_CODING = re.compile(rb"\r\ntransfer-encoding: ?chunked\r\n")
_FRAMING_LINES = re.compile(rb"\r\n(?:content-length|transfer-encoding):[^\r]*", re.IGNORECASE)
_NUMBER = re.compile(rb"[0-9]{1,4000}")  # of more digits, int makes no number
#: A length above this one (bytes) is written as this one: no such body is read to its end.
_LONGEST = 10**15


_UNREADABLE = "its headers can't be read"
_NO_END = "its body does not end where its headers say"


class End(Enum):
    """How the end of a body is known (RFC 9112 section 6.3)."""

    LENGTH = auto()
    CHUNKS = auto()
    #: With the connection's end.
    CLOSE = auto()


class Then(Enum):
    """What is to become of the connection after an answer."""

    #: The answer has ended for certain, and the other side keeps the connection, too.
    KEEP = auto()
    CLOSE = auto()
    #: There is more of the body, or something behind it, that nobody reads.
    DROP = auto()


@implementer(IResponse)
class Answer:
    """
    One answer, as treq is given it.

    :param head: its status line and headers, each line with its CRLF; without interim answers'.
    :param low: the same in lower case.
    :param body: what was read of it, as it came: not decoded.
    :param is_whole: whether that is all of the body, for certain.
    """

    __slots__ = ("_body", "_head", "_is_whole", "code", "headers", "previousResponse", "then")
    request = None

    def __init__(
        self, code: int, head: bytes, low: bytes, body: list[bytes], is_whole: bool, then: Then
    ) -> None:
        self.code = code
        self.headers = _Fields(head, low)
        if b"\r\ncontent-encoding:" in low:
            self.headers.removeHeader(b"content-encoding")  # or treq would unpack the body (P10)
        self._head = head
        self._body = body
        self._is_whole = is_whole
        self.then = then
        self.previousResponse: Any = None

    @property
    def version(self) -> tuple[bytes, int, int]:
        return (b"HTTP", 1, int(self._head[7:8]))

    @property
    def phrase(self) -> bytes:
        return self._head.partition(b"\r\n")[0][13:]

    @property
    def length(self) -> int:
        return sum(map(len, self._body))

    def deliverBody(self, protocol: Any) -> None:
        """See `IResponse`. All of it is here, so there is no transport that could be paused."""
        for data in self._body:
            protocol.dataReceived(data)
        reason = ResponseDone() if self._is_whole else PotentialDataLoss()
        protocol.connectionLost(Failure(reason))

    def setPreviousResponse(self, response: Any) -> None:
        """See `IResponse`."""
        self.previousResponse = response


class _Fields(Headers):
    """
    An answer's headers. They are read from its head when somebody asks for one that is there.

    treq asks each answer for its Content-Encoding, and sets an empty one where there is none. To
    read all headers for that would take as long as to read the answer.
    """

    def __init__(self, head: bytes, low: bytes) -> None:
        # Headers.__init__ is called when what it sets is missed.
        self._unread: bytes | None = head
        self._low = low

    def __getattr__(self, name: str) -> Any:
        if self._unread is None:
            raise AttributeError(name)
        head, self._unread = self._unread, None
        super().__init__()
        for field, value in _fields(head):
            self.addRawHeader(field, value)
        return getattr(self, name)

    def copy(self) -> Headers:
        return Headers({name: list(values) for name, values in self.getAllRawHeaders()})

    def getRawHeaders(self, name: Any, default: Any = None) -> Any:
        if self._unread is not None and isinstance(name, bytes) and name.lower() not in self._low:
            return default
        return super().getRawHeaders(name, default)

    def setRawHeaders(self, name: Any, values: Any) -> None:
        if self._unread is None or any(values):
            super().setRawHeaders(name, values)


def _fields(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names and values of a head's headers."""
    for line in head.split(b"\r\n")[1:-2]:
        name, _, value = line.partition(b":")
        yield name, value.strip(b" \t")


def _members(head: bytes, name: bytes) -> list[bytes]:
    """
    The members of a header that is a list (RFC 9110 section 5.6.1).

    :param name: in lower case.
    """
    return [member for member in _parts(head, name) if member]


def _parts(head: bytes, name: bytes) -> list[bytes]:
    """The same, with those that are empty."""
    values = b",".join(value for field, value in _fields(head) if field.lower() == name)
    return [member.strip() for member in values.split(b",")]


class Reader:
    """Reads the answers of one connection, one after the other."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self.begin()

    def begin(self, head_only: bool = False) -> None:
        """
        Expect the answer to a request that is about to be sent.

        :param head_only: whether the answer ends with its headers, as that to a HEAD.
        """
        self._head_only = head_only
        #: What has come of a head that is not complete, or not usual.
        self._part: bytearray | None = None
        #: How the body ends, once the head is complete.
        self._end: End | None = None
        self._body: list[bytes] = []
        self._size = 0
        #: What llhttp says: whether all of the answer has come, and whether it ends in keep-alive.
        self._ended = self._may_keep = False

    @property
    def has_begun(self) -> bool:
        """Whether anything of the answer has come."""
        return self._end is not None or self._part is not None

    def feed(self, data: bytes) -> Answer | None:
        """
        Take what has come from the server.

        :return: the answer, once all of it has come that is of interest.
        :raises BadAnswer: for what can't be read.
        """
        if self._end is not None:
            return self._read_body(data)
        if self._part is None:
            usual = _USUAL_HEAD.match(data)
            if usual is not None:
                return self._read_usual(int(usual[1]), usual.end(), data)
            self._part = bytearray()
            self._checked = 0
            self._room = MAX_HEAD
        return self._read_in_pieces(self._part, data)

    def end(self) -> Answer | None:
        """
        Take the end of the connection.

        :return: the answer whose end this is; None for an answer that has broken off.
        """
        return self._answer() if self._end is End.CLOSE else None

    def _read_usual(self, code: int, end: int, data: bytes) -> Answer | None:
        """
        Read an answer as nearly all come: in one piece, with one Content-Length. All others, too.

        :param end: where in `data` its head ends.
        """
        if end > MAX_HEAD:
            raise too_long(MAX_HEAD)
        head = data[:end]
        low = head.lower()
        length = _USUAL_LENGTH.search(low)
        if (
            length is None
            or len(data) - end != int(length[1])
            or len(data) - end > MAX_BODY
            or low.count(_LENGTH) != 1
            or _CODING in low
            or b"close" in low
            or code in BODILESS
            or self._head_only
        ):
            return self._read_final(code, head, low, data[end:])
        self._end = End.LENGTH
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            raise malformed(_UNREADABLE) from error
        if not self._ended:
            raise malformed(_NO_END)
        then = Then.KEEP if self._may_keep else Then.CLOSE
        return Answer(code, head, low, self._body, True, then)

    # The head

    def _read_in_pieces(self, part: bytearray, data: bytes) -> Answer | None:
        """
        Take a head that is not complete yet, or not usual.

        :param part: what has come before, and is still to be read.
        """
        start = max(0, len(part) - 2)
        part += data
        while True:
            found = _END_OF_HEAD.search(part, start)
            if (found.end() if found else len(part)) > self._room:
                raise too_long(MAX_HEAD)
            self._check_lines(part, found.end() if found else part.rfind(b"\n") + 1)
            if found is None:
                return None
            head = bytes(part[: found.end()])
            del part[: found.end()]
            start = self._checked = 0
            status = _STATUS_LINE.match(head)
            assert status is not None
            if int(status[2]) >= 200:
                break
            self._room -= len(head)
        is_plain = b"\r\n" in head
        if not is_plain:
            head = head.replace(b"\n", b"\r\n")
        return self._read_final(int(status[2]), head, head.lower(), bytes(part), is_plain)

    def _check_lines(self, part: bytearray, end: int) -> None:
        """
        Check the lines that are complete and were not checked yet.

        Lines end in CRLF, or all of them in LF (RFC 9112 section 2.2).

        :raises BadAnswer: for the first one that is not in order.
        """
        cr = part[: part.find(b"\n")].endswith(b"\r")
        for line in bytes(part[self._checked : end]).split(b"\n")[:-1]:
            if cr and not line.endswith(b"\r"):
                raise malformed(f"{start_of(line)} ends in LF, where other lines end in CRLF")
            line = line.removesuffix(b"\r") if cr else line
            if self._checked == 0:
                _check_status_line(line)
            elif line and not _FIELD_LINE.fullmatch(line):
                raise malformed(f"{start_of(line)} is no header")
            self._checked += len(line) + 1
        self._checked = max(self._checked, end)

    def _read_final(
        self, code: int, head: bytes, low: bytes, rest: bytes, is_plain: bool = True
    ) -> Answer | None:
        """
        Find how the body ends, and give the answer to llhttp.

        :param head: checked, each line with its CRLF.
        :param low: the same in lower case.
        :param rest: what has come behind it.
        :param is_plain: whether the head has come as it is here.
        """
        self._code = code
        self._head = fed = head
        self._low = low
        self._left = 0
        self._chunks_left = MAX_CHUNKS
        self._surplus = False
        length = _USUAL_LENGTH.search(low)
        if code in BODILESS or self._head_only:
            self._end = End.LENGTH
            fed = _reframed(head, b"Content-Length: 0")
        elif length is not None and low.count(_LENGTH) == 1 and _CODING not in low:
            self._end = End.LENGTH
            self._left = int(length[1])
        elif low.count(_CODING) == 1 and _USUAL_CODING.search(low) and _LENGTH not in low:
            self._end = End.CHUNKS
        else:
            self._end, self._left, fed = _framing(head)
        self._is_plain = is_plain and fed == head
        self._parse(fed)
        return self._read_body(rest) if rest else self._answer_at_end()

    # The body

    def _read_body(self, data: bytes) -> Answer | None:
        if self._end is End.LENGTH:
            if len(data) > self._left:
                self._surplus = True
                data = data[: self._left]
            self._left -= len(data)
            self._parse(data)
        elif self._end is End.CHUNKS:
            # What is complete before its last byte has come has something behind it.
            self._chunks_left -= len(data)
            self._parse(data[:-1])
            if self._ended:
                self._surplus = True
            else:
                self._parse(data[-1:])
        else:
            self._parse(data)
        return self._answer_at_end()

    def _parse(self, data: bytes) -> None:
        """
        Give bytes to llhttp.

        :raises BadAnswer: where llhttp can't read them as a part of the answer.
        """
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            if self._ended:
                return  # it could not read what comes behind the answer
            if self._end is End.CHUNKS:
                raise malformed(
                    "its body is not in the chunks that its headers announce"
                ) from error
            raise malformed(_UNREADABLE) from error

    def on_body(self, data: bytes) -> None:
        """Called by llhttp, for what comes behind the answer as well."""
        if not self._ended:
            self._body.append(data)
            self._size += len(data)

    def on_message_complete(self) -> None:
        """Called by llhttp."""
        if not self._ended:
            self._ended = True
            self._may_keep = self._parser.should_keep_alive()

    # The answer

    def _answer_at_end(self) -> Answer | None:
        if self._ended or self._chunks_left < 0 or self._size > MAX_BODY:
            return self._answer()
        if self._end is End.LENGTH and self._left == 0:
            raise malformed(_NO_END)
        return None

    def _answer(self) -> Answer:
        is_whole = self._ended and self._size <= MAX_BODY
        then = Then.DROP
        if is_whole and not self._surplus:
            then = Then.KEEP if self._may_keep and self._is_kept() else Then.CLOSE
        return Answer(self._code, self._head, self._low, self._body, is_whole, then)

    def _is_kept(self) -> bool:
        """
        Whether the other side keeps the connection too (RFC 9112 section 9.3), and the answer has
        ended for certain.
        """
        if not self._is_plain or self._head_only or self._code in BODILESS:
            return False  # a body that it can't have would be taken for the next run's answer
        is_1_1 = self._head.startswith(b"HTTP/1.1")
        if is_1_1 and b"close" not in self._low:
            return True
        options = _members(self._low, b"connection")
        return b"close" not in options and (
            is_1_1 or (b"keep-alive" in options and self._end is End.LENGTH)
        )


def _check_status_line(line: bytes) -> None:
    """:raises BadAnswer: where it is none of HTTP/1.0 or 1.1."""
    if not _STATUS_LINE.fullmatch(line):
        like = None if _STATUS_LINE.match(line) else _LIKE_STATUS_LINE.match(line)
        raise no_http(like[1] if like else line)


def _framing(head: bytes) -> tuple[End, int, bytes]:
    """
    Find how the body ends, where the headers don't say that in the usual way.

    :return: with the length, and the head as llhttp understands it: with one header that says so.
    :raises BadAnswer: where the headers contradict each other, or say what can't be.
    """
    # "identity" was in HTTP once, and said nothing (RFC 2616 section 3.6; RFC 9112 section 7).
    codings = [each.lower() for each in _members(head, b"transfer-encoding")]
    codings = [each for each in codings if each != b"identity"]
    has_length = _LENGTH in head.lower()
    if codings == [b"chunked"] and has_length:
        raise malformed("it has both a Transfer-Encoding and a Content-Length")
    if codings == [b"chunked"]:
        return End.CHUNKS, 0, _reframed(head, b"Transfer-Encoding: chunked")
    if codings:
        raise malformed(f"its Transfer-Encoding is {start_of(b', '.join(codings))}")
    if not has_length:
        return End.CLOSE, 0, _reframed(head)
    lengths = _parts(head, b"content-length")
    if len({each.lstrip(b"0") for each in lengths}) > 1 or not all(
        _NUMBER.fullmatch(each) for each in lengths
    ):
        raise malformed(f"its Content-Length is {start_of(b', '.join(lengths))}")
    length = min(int(lengths[0]), _LONGEST)
    return End.LENGTH, length, _reframed(head, b"Content-Length: %d" % length)


def _reframed(head: bytes, *line: bytes) -> bytes:
    """A head with this header alone of those that say how long the body is."""
    return b"\r\n".join([_FRAMING_LINES.sub(b"", head)[:-4], *line, b"", b""])
