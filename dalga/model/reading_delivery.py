"""
What a job sends, and what is noted about a job, as it was given -> its value. Pure.

The readers are like those of `dalga.model.reading`. No sentence repeats a payload or the value of
a header: these may be secrets.
"""

from __future__ import annotations

import json
import re
import unicodedata
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeGuard

from dalga.errors import MOST_MISTAKES, InvalidRequest, all_of, pointer_step, shown
from dalga.model.delivery import (
    DELAYS,
    JITTERS,
    MULTIPLIERS,
    Method,
    Payload,
    PayloadKind,
    Retry,
)
from dalga.model.headers import (
    VALUE,
    is_content_type,
    is_name,
    is_of_dalga,
    is_of_signature,
    is_value,
)
from dalga.model.reading import (
    Members,
    Number,
    Value,
    as_text,
    count,
    elapsed_within,
    in_brief,
    members_of,
    of_text,
    text_of,
)

#: How deep the arrays and objects of a payload may stand in each other.
MAX_NESTING = 100

#: The longest Content-Type, in characters.
MAX_CONTENT_TYPE = 255

#: How many tags a job may have, and how many characters a tag.
MAX_TAGS = 16
MAX_TAG = 64

#: The longest description, in characters.
MAX_DESCRIPTION = 1000

#: The shortest time limit of a request, and the longest that an endpoint may have.
MIN_TIMEOUT = timedelta(milliseconds=100)
MAX_TIMEOUT = timedelta(hours=1)

#: How many names `redact` may have.
MAX_REDACTED = 64

#: RFC 9110 section 8.3.1: a type, a subtype and parameters. Spaces have one place only between two
#: parameters. With two places, there would be 2^n ways to match n spaces, and all would be tried.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # nosec B105  # a token of HTTP's grammar
_PARAMETER = rf' *{_TOKEN}=(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(?: *;(?:{_PARAMETER})?)*")

#: A space where base64 has a +, which a form and a query decode to a space.
_SPACE_FOR_PLUS = re.compile(r"[A-Za-z0-9+/ ]+={0,2}")


# Payload


def payload(name: str, value: Value) -> Payload:
    """:return: a string as it is; any other value but null as JSON."""
    if value is None:
        raise InvalidRequest(
            f"{name} is null: leave it out to send the job's body; null itself is sent by "
            f'{name}="null" with content-type=application/json'
        )
    if _is_string(value):
        check_characters(name, value)
        return Payload(value.encode(), PayloadKind.TEXT)
    return Payload(_json_of(name, value, 0).encode(), PayloadKind.JSON)


def payload_base64(name: str, value: Value) -> Payload:
    """:return: the octets (RFC 4648 section 4)."""
    text = string_of(name, value)
    try:
        return Payload(b64decode(text, validate=True), PayloadKind.BASE64)
    except (NotBase64, ValueError):
        is_form = " " in text and _SPACE_FOR_PLUS.fullmatch(text)
        advice = (
            "a + is a space in a query or a form, so write it as %2B"
            if is_form
            else "it takes base64 with its padding, such as aGVsbG8="
        )
        raise InvalidRequest(f"{name} is no base64: {advice}") from None


def _json_of(name: str, value: Value, depth: int) -> str:
    """
    A value as JSON, numbers as they were written.

    :param depth: how many arrays and objects the value stands in.
    """
    if isinstance(value, Number):
        if not value.written[-1].isdigit():
            raise InvalidRequest(
                f"{name} has {value.written}, which is no JSON: give a number, a string or null"
            )
        return value.written
    if isinstance(value, str):
        check_characters(name, value)
        return _string(value)
    if not isinstance(value, list):
        return as_text(value)
    if depth == MAX_NESTING:
        raise InvalidRequest(
            f"{name} has arrays and objects that stand in more than {MAX_NESTING} others: it takes "
            f"{MAX_NESTING} levels at most"
        )
    if isinstance(value, Members):
        return f"{{{','.join(_members_of(name, value, depth))}}}"
    parts = []
    for place, inner in enumerate(value):
        try:
            parts.append(_json_of(name, inner, depth + 1))
        except InvalidRequest as mistake:
            raise mistake.within(place) from None
    return f"[{','.join(parts)}]"


def _members_of(name: str, value: Members, depth: int) -> list[str]:
    parts: dict[str, str] = {}
    for member, inner in value:
        if member in parts:
            raise InvalidRequest(
                f"{name} has an object with {shown(member)} twice: give it once",
                f"/{pointer_step(member)}",
            )
        check_characters(name, member)
        try:
            parts[member] = f"{_string(member)}:{_json_of(name, inner, depth + 1)}"
        except InvalidRequest as mistake:
            raise mistake.within(member) from None
    return list(parts.values())


_string: Callable[[str], str] = json.JSONEncoder(ensure_ascii=False).encode


def check_characters(name: str, text: str) -> None:
    """:raises InvalidRequest: for half a character, which JSON can write and UTF-8 can't."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"\\u{ord(text[error.start]):04x}"
        raise InvalidRequest(
            f"{name} has the lone surrogate {code}, which is half a character: write both halves, "
            "or leave it out"
        ) from None


def _is_string(value: Value) -> TypeGuard[str]:
    """Whether a value was given as a string. A `Number` was given as a number."""
    return isinstance(value, str) and not isinstance(value, Number)


def string_of(name: str, value: Value) -> str:
    """
    A text, for a parameter that takes no JSON number and no boolean.

    :raises InvalidRequest: for another value.
    """
    if not _is_string(value):
        leave_out = "; leave it out where it has no value" if value is None else ""
        raise InvalidRequest(
            f"{name} is {in_brief(value)} in the JSON body: it takes a string{leave_out}"
        )
    check_characters(name, value)
    return value


# The rest of a request


def content_type(name: str, value: Value) -> str:
    """:return: a media type, as it was given."""
    text = string_of(name, value)
    if len(text) > MAX_CONTENT_TYPE:
        raise InvalidRequest(
            f"{name} has {len(text)} characters: it takes {MAX_CONTENT_TYPE} at most"
        )
    if not _MEDIA_TYPE.fullmatch(text) or not is_value(text):
        raise InvalidRequest(
            f"{name} is {shown(text)}: it takes a media type, such as application/json or "
            "text/plain; charset=utf-8"
        )
    return text


def method(name: str, value: Value) -> Method:
    """:return: a method, given in any case."""
    text = string_of(name, value)
    try:
        return Method(text.upper())
    except ValueError:
        *others, last = Method
        raise InvalidRequest(
            f"{name} is {shown(text)}: it takes {', '.join(others)} or {last}"
        ) from None


def headers(name: str, value: Value) -> tuple[tuple[str, str], ...]:
    """:return: names and values; no name twice, in whatever case."""
    found = changed_headers(name, value)
    gone = [member for member, text in found.items() if text is None]
    if gone:
        mistakes = [
            InvalidRequest(
                f"{name} has null for {shown(member)}: a header that is redacted in answers has to "
                "be given again; PATCH leaves it as it is",
            ).within(member)
            for member in gone
        ]
        raise all_of(mistakes)
    return tuple((member, text) for member, text in found.items() if text is not None)


def changed_headers(name: str, value: Value) -> dict[str, str | None]:
    """
    What a merge patch says of headers.

    :return: the values by the names as they were given; None for a header that is removed. No name
        is there twice, in whatever case.
    """
    if _is_string(value):
        raise InvalidRequest(
            f"{name} is a text: it takes a JSON object of names and values, so send the parameters "
            "as JSON"
        )
    found: dict[str, str | None] = {}
    mistakes: list[InvalidRequest] = []
    seen: set[str] = set()
    for member, inner in members_of(name, value).items():
        if len(mistakes) >= MOST_MISTAKES:
            break
        try:
            if member.lower() in seen:
                raise InvalidRequest(
                    f"{name} has {shown(member)} twice, in two cases: give it once"
                )
            seen.add(member.lower())
            found[member] = _header(name, member, inner)
        except InvalidRequest as mistake:
            mistakes.append(mistake.within(member))
    if mistakes:
        raise all_of(mistakes)
    return found


def _header(name: str, member: str, value: Value) -> str | None:
    """The value of a header; None for null."""
    if not is_name(member):
        raise InvalidRequest(
            f"{name} has {shown(member)}, which can't be a header's name: it takes ASCII letters, "
            "digits and -, such as X-Api-Key"
        )
    if is_content_type(member):
        raise InvalidRequest(f"{name} has {shown(member)}: give it as content-type instead")
    if is_of_dalga(member):
        raise InvalidRequest(
            f"{name} has {shown(member)}: Dalga sets this header by itself, leave it out"
        )
    if is_of_signature(member):
        raise InvalidRequest(
            f"{name} has {shown(member)}: headers whose names begin with webhook- sign a request, "
            "leave it out"
        )
    if value is None:
        return None
    if not _is_string(value):
        raise InvalidRequest(f"{name} has a value for {shown(member)} that is no string: {VALUE}")
    if not is_value(value):
        raise InvalidRequest(f"{name} has a value for {shown(member)} (not shown): {VALUE}")
    return value


def timeout(name: str, value: Value) -> timedelta:
    """:return: `MIN_TIMEOUT` to `MAX_TIMEOUT`. The endpoint may have less (`dalga.operations`)."""
    return elapsed_within(name, value, MIN_TIMEOUT, MAX_TIMEOUT)


# Retries


@of_text
def _multiplier(name: str, value: str) -> float:
    return _number(name, value, *MULTIPLIERS, "1.5")


@of_text
def _spread(name: str, value: str) -> float:
    return _number(name, value, *JITTERS, "0.5")


def _number(name: str, value: str, low: int, high: int, such_as: str) -> float:
    if (
        re.fullmatch(r"[0-9]{1,20}(\.[0-9]{0,40})?|\.[0-9]{1,40}", value)
        and low <= float(value) <= high
    ):
        return float(value)
    raise InvalidRequest(
        f"{name} is {shown(value)}: it takes a number from {low} to {high}, such as {such_as}"
    )


def _delay(name: str, value: Value) -> timedelta:
    return elapsed_within(name, value, *DELAYS)


def _stop_after(name: str, value: Value) -> timedelta:
    """0 is never."""
    text = text_of(name, value)
    if re.fullmatch(r"0+", text):
        return timedelta()
    try:
        return elapsed_within(name, text, *DELAYS)
    except InvalidRequest as mistake:
        raise InvalidRequest(f"{mistake}; 0 is for never") from None


#: The members of `retry`, by their names.
RETRY_READERS: Mapping[str, Callable[[str, Value], Any]] = MappingProxyType(
    {
        "interval": _delay,
        "multiplier": _multiplier,
        "max-interval": _delay,
        "jitter": _spread,
        "stop-after": _stop_after,
        "max-attempts": count,
    }
)


def retry(name: str, value: Value) -> Retry:
    """:return: what was given; none of it is null."""
    found = changed_retry(name, value)
    mistakes = [
        InvalidRequest(f"{name}.{member} is null: leave it out where it has no value").within(
            member
        )
        for member, part in found.items()
        if part is None
    ]
    if mistakes:
        raise all_of(mistakes)
    return Retry(**found)


def changed_retry(name: str, value: Value) -> dict[str, Any]:
    """
    What a merge patch says of retries.

    :return: the values by the names of `Retry`; None for a part that is removed.
    """
    if _is_string(value):
        raise InvalidRequest(
            f"{name} is a text: it takes a JSON object; without JSON give "
            f"{', '.join(f'{name}-{member}' for member in RETRY_READERS)}"
        )
    found: dict[str, Any] = {}
    mistakes: list[InvalidRequest] = []
    for spelled, inner in members_of(name, value).items():
        member = spelled.replace("_", "-")
        if len(mistakes) >= MOST_MISTAKES:
            break
        try:
            if member not in RETRY_READERS:
                raise InvalidRequest(
                    f"{name} has no member {shown(spelled)}: it takes {', '.join(RETRY_READERS)}"
                )
            if member.replace("-", "_") in found:
                raise InvalidRequest(f"{name} has {shown(spelled)} twice: give it once")
            read = RETRY_READERS[member]
            part = None if inner is None else read(f"{name}.{member}", inner)
            found[member.replace("-", "_")] = part
        except InvalidRequest as mistake:
            mistakes.append(mistake.within(spelled))
    if mistakes:
        raise all_of(mistakes)
    return found


# Notes


def tags(name: str, value: Value) -> tuple[str, ...]:
    """:return: tags in the order in which they were given, of an array or of text with commas."""
    return _checked(name, value, _texts(name, value), check_tag, MAX_TAGS)


def check_tag(name: str, tag: str) -> None:
    """:raises InvalidRequest: for a text that is no tag."""
    takes = f"a tag takes 1 to {MAX_TAG} characters"
    if not tag:
        raise InvalidRequest(f"{name} has an empty tag: {takes}")
    if len(tag) > MAX_TAG:
        raise InvalidRequest(f"{name} has a tag of {len(tag)} characters: {takes}")
    if character := _unprintable(tag):
        raise InvalidRequest(
            f"{name} has a tag with the control character U+{ord(character):04X}: leave it out"
        )
    if "," in tag:
        raise InvalidRequest(f"{name} has {shown(tag)}: a comma stands between tags, not in one")
    if tag != tag.strip():
        raise InvalidRequest(f"{name} has {shown(tag)}: a tag has no spaces around it")


def description(name: str, value: Value) -> str | None:
    """:return: some text, with line feeds and tabs; None for an empty one."""
    text = string_of(name, value)
    if len(text) > MAX_DESCRIPTION:
        raise InvalidRequest(
            f"{name} has {len(text)} characters: it takes {MAX_DESCRIPTION} at most"
        )
    if character := _unprintable(text, "\n\t\u2028\u2029"):
        what = (
            "a carriage return: end lines with a line feed alone"
            if character == "\r"
            else f"the control character U+{ord(character):04X}: leave it out"
        )
        raise InvalidRequest(f"{name} has {what}")
    return text or None


def redact(name: str, value: Value) -> tuple[str, ...]:
    """:return: ``payload`` and names of headers in lower case, in the order as they were given."""
    found = [each.lower() for each in _texts(name, value)]
    return _checked(name, value, found, _check_redacted, MAX_REDACTED)


def _check_redacted(name: str, text: str) -> None:
    if not is_name(text):
        raise InvalidRequest(
            f"{name} has {shown(text)}: it takes payload and names of headers, such as "
            "payload,x-api-key"
        )


def _texts(name: str, value: Value) -> list[str]:
    """The texts of an array, or of one text with commas between them."""
    if isinstance(value, list) and not isinstance(value, Members):
        wrong = (place for place, each in enumerate(value) if not _is_string(each))
        mistakes = [
            InvalidRequest(f"{name} is an array with an element that is no string").within(place)
            for place in islice(wrong, MOST_MISTAKES)
        ]
        if mistakes:
            raise all_of(mistakes)
        return list(value)
    if not _is_string(value):
        given = "an object" if isinstance(value, Members) else in_brief(value)
        raise InvalidRequest(
            f"{name} is {given} in the JSON body: it takes an array of strings, or a text with "
            "commas between them"
        )
    return [each.strip(" ") for each in value.split(",")] if value else []


def _checked(
    name: str, value: Value, found: list[str], check: Callable[[str, str], None], most: int
) -> tuple[str, ...]:
    """
    Texts that were checked one by one, none of them twice.

    :param value: what was given, which `found` is read from.
    """
    if len(found) > most:
        raise InvalidRequest(f"{name} has {len(found)} elements: it takes {most} at most")
    seen: set[str] = set()
    mistakes: list[InvalidRequest] = []
    for place, each in enumerate(found):
        try:
            check_characters(name, each)
            check(name, each)
            if each in seen:
                raise InvalidRequest(f"{name} has {shown(each)} twice: give it once")
        except InvalidRequest as mistake:
            mistakes.append(mistake.within(place) if isinstance(value, list) else mistake)
        seen.add(each)
    if mistakes:
        raise all_of(mistakes)
    return tuple(found)


def _unprintable(text: str, but: str = "") -> str | None:
    """The first control character of a text, or end of a line; None if there is none."""
    if text.isascii() and text.isprintable():
        return None
    for character in text:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp") and character not in but:
            return character
    return None
