"""
A request's body, or its query, as octets -> the names and values in it. Pure.

It knows forms, JSON, content codings, the largest body, and how much room all bodies together have.
It does not know parameters: `dalga.web.parameters` reads the values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from urllib.parse import unquote_to_bytes

from dalga.errors import InvalidRequest, shown
from dalga.model.reading import Members, Number, OddNumber, Value
from dalga.web.errors import BodyTooLarge, NoRoom, UnsupportedMediaType

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
#: RFC 7396.
MERGE_PATCH = "application/merge-patch+json"

#: What all parameters of a job may take in a request body beside its payload, in bytes.
MAX_BODY = 64 * 1024

#: How many values a JSON body may have, and how many parameters a form or a query. To read a value
#: takes up to a microsecond and 150 bytes, and no due run is to wait for more than some 40 ms (P7,
#: P10). A payload of 64 KiB can't have more: each takes two bytes.
MAX_VALUES = 40_000
MAX_PAIRS = 1000

#: How much of each body takes none of the `BodyRoom`, in bytes: most bodies are no longer.
FREE_OF_ROOM = 4 * 1024

#: How much all bodies together may take beyond that, in bytes.
ROOM = 32 * 1024 * 1024


def largest_body(max_payload: int) -> int:
    """
    The largest request body that is taken, in bytes.

    A JSON body has to hold a payload of `max_payload` bytes however it is usually written. In
    base64 that takes 4/3 of its length. With quotes and line ends escaped it takes 2 times as much
    at most, and with all but ASCII escaped 3 times as much (six bytes for the two of an "ğ").
    """
    return MAX_BODY + 3 * max_payload


def too_large(limit: int) -> BodyTooLarge:
    """:param limit: the largest body that is taken, in bytes."""
    return BodyTooLarge(f"the request body is too large: it takes {limit} bytes at most")


def check_payload(body: bytes, limit: int) -> None:
    """
    :param body: that is a payload as it is.
    :param limit: the longest payload, in bytes.
    :raises BodyTooLarge: if it is longer.
    """
    if len(body) > limit:
        raise BodyTooLarge(
            f"the request body has {len(body)} bytes, and is sent to the endpoint: it takes "
            f"{limit} bytes at most (maxPayload in [jobs])"
        )


class BodyRoom:
    """
    How much memory the bodies of all requests take, of those that arrive and of those that are
    being answered (P10).

    Each connection has one request at a time. With 20,000 connections, and `FREE_OF_ROOM` for each,
    bodies take 80 MB at most that are not counted here, and `ROOM` beyond that. `ROOM` is enough
    for 128 bodies of the largest size with a `max_payload` of 64 KiB, and for 10 with one of 1 MiB.
    A body is read, written to the database and answered, and each of the three takes about as much
    again: at 64 MiB a daemon took 200 MB more than when it was idle (*measured*).
    """

    def __init__(self, room: int = ROOM) -> None:
        self._left = room

    def check(self, octets: int) -> None:
        """
        :param octets: the length of a body that is to come.
        :raises NoRoom: if there is no room for it at present.
        """
        if octets - FREE_OF_ROOM > self._left:
            raise NoRoom(
                "too many large requests are under way at once to take this one: try again in a "
                "second"
            )

    def grow(self, held: int, octets: int) -> None:
        """
        A body grows.

        :param held: its length until now.
        :param octets: by how much it grows.
        :raises NoRoom: if there is no room for that. Then the body has taken none of it.
        """
        more = _counted(held + octets) - _counted(held)
        self.check(more + FREE_OF_ROOM)
        self._left -= more

    def give_back(self, held: int) -> None:
        """:param held: the length of a body that is needed no more."""
        self._left += _counted(held)


def _counted(octets: int) -> int:
    return max(0, octets - FREE_OF_ROOM)


def uncoded(octets: bytes, codings: Sequence[bytes]) -> bytes:
    """
    The body itself.

    :param codings: the values of the Content-Encoding headers.
    :raises UnsupportedMediaType: for a body that is compressed.
    """
    coding = b", ".join(codings).decode("latin-1").strip()
    if octets and coding.lower() not in ("", "identity"):
        raise UnsupportedMediaType(
            f"the body's Content-Encoding is {shown(coding)}: send it as it is, without one"
        )
    return octets


def unescaped(escaped: bytes, what: str) -> str:
    """
    Undo the percent-encoding (RFC 3986 section 2.1), once.

    :param what: the noun for `escaped` in a sentence.
    :raises InvalidRequest: for a broken escape, and for octets that are not UTF-8.
    """
    # unquote_to_bytes() leaves broken escapes as they are.
    broken = re.search(rb"%(?![0-9A-Fa-f]{2}).{0,2}", escaped, re.DOTALL)
    if broken is not None:
        raise InvalidRequest(
            f"{what} has the broken escape {shown(broken[0].decode('latin-1'))}: "
            "write % and two hexadecimal digits, and a percent sign itself as %25"
        )
    octets = unquote_to_bytes(escaped)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{what} is not UTF-8: the octet 0x{octets[error.start]:02X} can't be there"
        ) from None


def form_pairs(form: bytes) -> Iterable[tuple[str, str]]:
    """
    The names and values in a query or a form, as https://url.spec.whatwg.org/#urlencoded-parsing
    has them. Unlike there, broken escapes are refused, and more than `MAX_PAIRS`.
    """
    if form.count(b"&") > MAX_PAIRS:
        raise InvalidRequest(f"there are more than {MAX_PAIRS} parameters, and a job has some 40")
    for pair in form.split(b"&"):
        if pair:
            name, _, value = pair.replace(b"+", b" ").partition(b"=")
            text = unescaped(name, "a parameter's name")
            yield text, unescaped(value, f"the parameter {shown(text)}")


def body_pairs(
    content_type: str | None, body: bytes, others: Sequence[str] = ()
) -> Iterable[tuple[str, Value]]:
    """
    The names and values in a body: the pairs of a form, or the members of a JSON object.

    :param others: media types that the request would be read by in another way, for the sentence of
        a refusal.
    :raises InvalidRequest: for a body that is not of its Content-Type.
    :raises UnsupportedMediaType: for a body that is neither a form nor JSON.
    """
    if not body:
        return []
    kind = media_type(content_type)
    if kind == FORM:
        return form_pairs(body)
    if kind == JSON:
        return json_members(body)
    given = shown(content_type) if content_type else "missing"
    *most, last = (*others, FORM, JSON)
    raise UnsupportedMediaType(
        f"the body's Content-Type is {given}: it takes {', '.join(most)} or {last}"
    )


def as_spelled(pointer: str, body: bytes) -> str:
    """
    A JSON pointer to a parameter, by the name that the parameter has in a JSON body: that may have
    dashes for the underlines.
    """
    name, slash, rest = pointer[1:].partition("/")
    if not name.isascii():
        return pointer  # no parameter, and maybe no text that can be encoded
    dashed = name.replace("_", "-")
    if dashed != name and f'"{name}"'.encode() not in body and f'"{dashed}"'.encode() in body:
        return f"/{dashed}{slash}{rest}"
    return pointer


def media_type(content_type: str | None) -> str:
    """A Content-Type without its parameters, in lower case; empty where there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


def json_members(body: bytes, example: str = '{"interval":60}') -> Members:
    """
    The members of the JSON object that a body is.

    :raises InvalidRequest: for what is no JSON object, and for more than `MAX_VALUES` values.
    """
    if len(body) > MAX_VALUES:
        _check_values(body)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("the JSON body is not UTF-8") from None
    try:
        # Numbers stay text, so that they are read by the same rules as a form's.
        members = json.loads(
            text,
            object_pairs_hook=Members,
            parse_int=Number,
            parse_float=_fraction,
            parse_constant=Number,
        )
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {_mistake(text, error)}") from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(members, Members):
        raise InvalidRequest(f"the JSON body is not an object: it takes one such as {example}")
    return members


#: A JSON string, or what is left of the body where a string does not end. If such a string did not
#: match, each quote in it would be looked at as the beginning of another one.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)

#: What begins many values in each other: `_NESTED` of these, without what may stand between them.
_NESTED = b"[" * 1000
_OPENING = bytes.maketrans(b"{", b"[")
_BETWEEN = b" \t\n\r\v\f:"


def _check_values(body: bytes) -> None:
    """
    Count the values of a JSON body, in a fraction of the time that it takes to read them.

    :raises InvalidRequest: for more than `MAX_VALUES`.
    """
    # Each string has two quotes that are not escaped. A string is a value or a member's name.
    rest = b""
    values = (body.count(b'"') - body.count(b'\\"')) // 4
    if values <= MAX_VALUES:
        rest = _STRING.sub(b"", body)
        values = sum(map(rest.count, (b",", b"[", b"{")))
    if _NESTED in rest.translate(_OPENING, _BETWEEN):
        raise _too_deep()
    if values > MAX_VALUES:
        raise InvalidRequest(
            f"the JSON body has more than {MAX_VALUES} values: give a payload of that many as a "
            "string, with content_type application/json"
        )


def _too_deep() -> InvalidRequest:
    return InvalidRequest(
        "the JSON body is nested too deeply: its arrays and objects may stand in 100 others"
    )


def _mistake(text: str, error: json.JSONDecodeError) -> str:
    """
    What is wrong with `text`, and where, as the rest of a sentence.

    Python's own words for a mistake differ from version to version.
    """
    if text.startswith("\ufeff"):
        return "it begins with a byte order mark: send it without one"
    rest = text[error.pos :]
    if not rest.strip():
        return "it ends before it is complete"
    # Within the body there may be a payload, or the value of a header, which no answer shows (P12).
    at = shown(rest if error.pos == 0 else rest[0])
    return f"line {error.lineno}, column {error.colno}, at {at}, can't be read"


def _fraction(written: str) -> Number:
    """
    A JSON number with a fraction or an exponent, in digits: 60.0 and 6e1 are 60.

    Past 20 digits it stays as it was written.
    """
    if len(written) < 20 and "e" not in written and "E" not in written:
        # As below, in a fraction of the time: a body may have thousands.
        digits = written.rstrip("0").rstrip(".")
        return OddNumber.of("0" if digits == "-0" else digits, written)
    try:
        number = Decimal(written)
    except InvalidOperation:  # an exponent past all reason
        return Number(written)
    if not number:
        return OddNumber.of("0", written)
    if not -20 < number.adjusted() < 20:
        return Number(written)
    plain = f"{number:f}"
    digits = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return OddNumber.of(digits, written)
