"""
Read the endpoint's answers: bytes in, an `Answer` or what is wrong with it out.

Each answer is read twice. `Reader` checks the head by the grammar of RFC 9112 (sections 2 to 6) and
finds how the body ends. Then llhttp, by httptools, reads head and body by its own rules. An answer
counts only if both readers take it and see the same end. Otherwise the rest of one answer might be
taken for the answer to the next run (P2).

    the bytes                              what `Reader` does with them
    HTTP/1.1 100 Continue ... CRLF         drops them: an interim answer
    HTTP/1.1 200 OK ... CRLF and its body  makes the `Answer` of them
    anything behind that                   drops them, and has the connection dropped

llhttp's lenient flags are off.
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

from dalga.outgoing.failures import SHOWN, malformed, no_http, start_of, too_long

#: At most this much of an answer's body is read, in bytes. The outcome needs the status alone; the
#: body is read so that the connection can be kept. If a body is longer, the connection is dropped:
#: to connect again costs less than to read on.
MAX_BODY = 64 * 1024

#: At most this much of a body is kept, in bytes: more than anybody looks at (`keeping.py`). All
#: connections may be in the middle of an answer at a time (P10).
KEPT = 16 * 1024

#: At most this much of a body in chunks is read, in bytes, with the chunks' sizes, extensions and
#: trailers. It is enough for a body of `MAX_BODY` in chunks of one byte.
MAX_CHUNKS = 8 * MAX_BODY

#: The status line and headers of an answer are at most this long together, in bytes, with those of
#: interim (1xx) answers before it.
MAX_HEAD = 16 * 1024

#: The statuses of answers that end with their headers, also if a header announces a body (RFC 9112
#: section 6.3).
BODILESS = frozenset((204, 304))

# RFC 9112 section 4 and RFC 9110 section 5.5. A status line may end with the status: some servers
# leave out the space behind it.
_TEXT = rb"[\t -~\x80-\xff]*"
_FIELD = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:" + _TEXT
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: " + _TEXT + rb")?")
_FIELD_LINE = re.compile(_FIELD)
#: A whole head as nearly all answers have it: final, and in HTTP/1.1.
_USUAL_HEAD = re.compile(
    rb"HTTP/1\.1 ([2-9][0-9]{2})(?: " + _TEXT + rb")?\r\n(?:" + _FIELD + rb"\r\n)*\r\n"
)
#: What each status line begins with.
_START = b"HTTP/1."
_NO_TEXT = re.compile(rb"[^\r\n\t -~]")
_END_OF_HEAD = re.compile(rb"\n\r?\n")
#: What looks like a status line, of HTTP or of something else.
_LIKE_STATUS_LINE = re.compile(rb"([^ ]+ [0-9]{3})(?: |$)")

# In a head in lower case. Nearly all answers have one line of the first, or one of the second.
_LENGTH, _CODING = b"\r\ncontent-length:", b"\r\ntransfer-encoding:"
_USUAL_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})\r\n")
_USUAL_CODING = re.compile(rb"\r\ntransfer-encoding: ?chunked\r\n")
_FRAMING_LINES = re.compile(rb"\r\n(?:content-length|transfer-encoding):[^\r]*", re.IGNORECASE)
_NUMBER = re.compile(rb"[0-9]{1,4000}")  # Python's int takes at most 4300 digits
#: llhttp is told this length, in bytes, in place of a longer one, which may overflow its number. A
#: body that is longer than `MAX_BODY` is not read to its end anyway.
_LONGEST = 10**15


#: What a reader has of a body once its answer is whole. Its connection may be idle for a while, and
#: an answer is large (P10). Nothing is added to it.
_NOTHING: list[bytes] = []

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

    #: The end of the answer is certain, and the server keeps the connection, too.
    KEEP = auto()
    #: The answer was read to its end, and the connection is not used again.
    CLOSE = auto()
    #: Bytes of the answer, or bytes behind it, are not read.
    DROP = auto()


@implementer(IResponse)
class Answer:
    """
    One answer, in the form that treq and Twisted have.

    :param head: its status line and headers, each line with its CRLF; without interim answers.
    :param low: the same in lower case.
    :param body: the part of the body that was kept, without chunks' sizes, not decompressed.
    :param is_whole: whether `body` is certainly all of the body.
    """

    __slots__ = ("_body", "_head", "_is_whole", "_low", "code", "previousResponse", "then")
    request = None

    def __init__(
        self, code: int, head: bytes, low: bytes, body: list[bytes], is_whole: bool, then: Then
    ) -> None:
        self.code = code
        self._head = head
        self._low = low
        self._body = body
        self._is_whole = is_whole
        self.then = then
        self.previousResponse: Any = None

    @property
    def headers(self) -> Headers:
        """All headers, in an object of their own, which is made when it is asked for."""
        headers = Headers()
        for name, value in self.fields():
            headers.addRawHeader(name, value)
        return headers

    def fields(self) -> Iterator[tuple[bytes, bytes]]:
        """The names and values of all headers, in order."""
        return _fields(self._head)

    def start(self, most: int) -> bytes:
        """
        The start of the body.

        :param most: in octets.
        """
        found = b""
        for data in self._body:
            found += data[: most - len(found)]
            if len(found) == most:
                break
        return found

    def header(self, name: bytes) -> bytes | None:
        """
        The first value of a header; None if the answer has no such header. To look for one that
        is not there costs less than to make `headers`.

        :param name: in lower case.
        """
        values = self.values(name) if name in self._low else ()
        return values[0] if values else None

    def mentions(self, text: bytes) -> bool:
        """
        Whether the head has these bytes. To look for headers that are mostly not there costs less
        than to read them.

        :param text: in lower case.
        """
        return text in self._low

    def values(self, name: bytes) -> list[bytes]:
        """
        All values of a header, in order.

        :param name: in lower case.
        """
        return [value for field, value in self.fields() if field.lower() == name]

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
        """See `IResponse`. The body has been read already, so there is no transport to pause."""
        for data in self._body:
            protocol.dataReceived(data)
        reason = ResponseDone() if self._is_whole else PotentialDataLoss()
        protocol.connectionLost(Failure(reason))

    def setPreviousResponse(self, response: Any) -> None:
        """See `IResponse`."""
        self.previousResponse = response


def _fields(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names and values of a head's headers."""
    for line in head.split(b"\r\n")[1:-2]:
        name, _, value = line.partition(b":")
        yield name, value.strip(b" \t")


def _list(head: bytes, name: bytes) -> list[bytes]:
    """
    The elements of a header that is a list (RFC 9110 section 5.6.1), without empty ones.

    :param name: in lower case.
    """
    return [element for element in _list_with_gaps(head, name) if element]


def _list_with_gaps(head: bytes, name: bytes) -> list[bytes]:
    """The elements of a header that is a list, with empty ones."""
    values = b",".join(value for field, value in _fields(head) if field.lower() == name)
    return [element.strip() for element in values.split(b",")]


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
        #: The unread bytes of a head that has not come in one piece, or is not a `_USUAL_HEAD`.
        self._part: bytearray | None = None
        #: How the body ends; None before the head is complete.
        self._end: End | None = None
        self._body: list[bytes] = []
        self._size = 0
        #: By llhttp: whether the answer has ended, and whether the server keeps the connection.
        self._ended = self._may_keep = False

    @property
    def has_begun(self) -> bool:
        """Whether anything of the answer has come."""
        return self._end is not None or self._part is not None

    def feed(self, data: bytes) -> Answer | None:
        """
        Take the next bytes from the server.

        :return: the answer, if it has ended with these bytes or is longer than is read; else None.
        :raises BadAnswer: if the bytes are not HTTP by the letter.
        """
        if self._end is not None:
            return self._read_body(data)
        if self._part is None:
            usual = _USUAL_HEAD.match(data)
            if usual is not None:
                return self._read_usual(int(usual[1]), usual.end(), data)
            self._part = bytearray()
            self._checked = 0
            #: How much longer the heads may get, in bytes.
            self._head_left = MAX_HEAD
        return self._read_in_pieces(self._part, data)

    def end(self) -> Answer | None:
        """
        Take the end of the connection.

        :return: the answer whose end this is; None for an answer that has broken off.
        :raises BadAnswer: for what was no HTTP from its start.
        """
        if self._part and not self._checked:
            _check_start(self._part)
        return self._answer() if self._end is End.CLOSE else None

    def _read_usual(self, code: int, end: int, data: bytes) -> Answer | None:
        """
        Read a `_USUAL_HEAD`, and the bytes behind it.

        Nearly all answers come in one piece, with one Content-Length. llhttp is given such an
        answer in one call.

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
        body, self._body = self._body, _NOTHING
        return Answer(code, head, low, body, self._size <= KEPT, then)

    # The head

    def _read_in_pieces(self, part: bytearray, data: bytes) -> Answer | None:
        """
        Take more of a head that has not come in one piece, or is not a `_USUAL_HEAD`.

        :param part: the bytes that came before and are still to be read.
        """
        start = max(0, len(part) - 2)
        part += data
        while True:
            found = _END_OF_HEAD.search(part, start)
            if (found.end() if found else len(part)) > self._head_left:
                raise too_long(MAX_HEAD)
            self._check_lines(part, found.end() if found else part.rfind(b"\n") + 1)
            if found is None:
                if not self._checked and (len(part) >= SHOWN or _NO_TEXT.search(part)):
                    _check_start(part)  # there may never be a line of it
                return None
            head = bytes(part[: found.end()])
            del part[: found.end()]
            start = self._checked = 0
            status = _STATUS_LINE.match(head)
            assert status is not None
            if int(status[2]) >= 200:
                break
            self._head_left -= len(head)
        is_plain = b"\r\n" in head
        if not is_plain:
            head = head.replace(b"\n", b"\r\n")
        self._part = None
        return self._read_final(int(status[2]), head, head.lower(), bytes(part), is_plain)

    def _check_lines(self, part: bytearray, end: int) -> None:
        """
        Check the lines of a head that are complete and were not checked yet.

        Lines end in CRLF, or all of them in LF (RFC 9112 section 2.2).

        :param end: where in `part` the last complete line ends.
        :raises BadAnswer: for the first line that is not in order.
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
        Find how the body ends, and give the head and what follows to llhttp.

        :param head: of a final answer, checked, each line with its CRLF.
        :param low: the same in lower case.
        :param rest: the bytes that came behind the head.
        :param is_plain: whether the server has sent the head with CRLFs.
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
            # If the answer ends before the last of these bytes, there are bytes behind it.
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
                return  # llhttp could not read the bytes behind the answer
            if self._end is End.CHUNKS:
                raise malformed(
                    "its body is not in the chunks that its headers announce"
                ) from error
            raise malformed(_UNREADABLE) from error

    def on_body(self, data: bytes) -> None:
        """Called by llhttp, for what comes behind the answer as well."""
        if not self._ended:
            left = KEPT - self._size
            if left > 0:
                self._body.append(data if len(data) <= left else data[:left])
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
        has_all = is_whole and self._size <= KEPT
        answer = Answer(self._code, self._head, self._low, self._body, has_all, then)
        self._ended = True
        self._head = self._low = b""
        self._body = _NOTHING
        return answer

    def _is_kept(self) -> bool:
        """
        Whether the server keeps the connection too (RFC 9112 section 9.3), and the end of the
        answer is certain.
        """
        if self._head_only or self._code in BODILESS:
            # Some servers send a body with such an answer. It would be taken for the answer to the
            # next run.
            return False
        if not self._is_plain:
            return False  # llhttp was given another head than the server's
        is_1_1 = self._head.startswith(b"HTTP/1.1")
        if is_1_1 and b"close" not in self._low:
            return True
        options = _list(self._low, b"connection")
        return b"close" not in options and (
            is_1_1 or (b"keep-alive" in options and self._end is End.LENGTH)
        )


def _check_start(start: bytearray) -> None:
    """
    :param start: what has come of a first line.
    :raises BadAnswer: if no status line begins so.
    """
    if not start.startswith(_START[: len(start)]):
        raise no_http(bytes(start))


def _check_status_line(line: bytes) -> None:
    """:raises BadAnswer: unless the line is a status line of HTTP/1.0 or 1.1."""
    if not _STATUS_LINE.fullmatch(line):
        like = None if _STATUS_LINE.match(line) else _LIKE_STATUS_LINE.match(line)
        raise no_http(like[1] if like else line)


def _framing(head: bytes) -> tuple[End, int, bytes]:
    """
    Find how the body ends, for heads with other framing headers than one usual line.

    :return: how it ends; its length in bytes, or 0; and the head for llhttp, in which at most one
        header says how the body ends.
    :raises BadAnswer: if the headers contradict each other, or no body ends as they say.
    """
    # "identity" stood for no coding at all in RFC 2616 section 3.6, and is gone from RFC 9112
    # section 7. Some servers still send it.
    codings = [each.lower() for each in _list(head, b"transfer-encoding")]
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
    lengths = _list_with_gaps(head, b"content-length")
    if len({each.lstrip(b"0") for each in lengths}) > 1 or not all(
        _NUMBER.fullmatch(each) for each in lengths
    ):
        raise malformed(f"its Content-Length is {start_of(b', '.join(lengths))}")
    length = min(int(lengths[0]), _LONGEST)
    return End.LENGTH, length, _reframed(head, b"Content-Length: %d" % length)


def _reframed(head: bytes, *line: bytes) -> bytes:
    """The head, with this line in place of all headers that say how the body ends."""
    return b"\r\n".join([_FRAMING_LINES.sub(b"", head)[:-4], *line, b"", b""])
