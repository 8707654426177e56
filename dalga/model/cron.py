"""
Cron expressions as people write them -> a normal form, which cronsim reads as it was meant. Pure.

The fields are those of crontab(5) of Debian, with seconds in front if there are six. Other crons'
forms are translated if they can mean only one thing:

    @daily            0 0 * * *
    0 12 ? * Monday   0 12 * * MON
    0 22-2 * * *      0 22-23,0-2 * * *
    0 0 * * SAT-SUN   0 0 * * 6-7
    0 8-8/1 * * *     0 8 * * *           cronsim reads 8-8/1 as 8-23/1
    0 0 * * FRIL      0 0 * * 5L

Every other form is refused with a sentence that says what would do, so that a job never runs at
another time than its user meant. The normal form of a normal form is that form itself.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from cronsim import CronSim, CronSimError

from dalga.model.duration import duration_from_text

#: The longest expression, in characters. The same limit holds for its normal form.
MAX_TEXT = 255

#: Nicknames of crontab(5), each for five fields.
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    #: The number of different values; 0 and 7 are one day of the week.
    size: int
    #: The ISO 8601 duration of {} units, and the unit's name.
    interval: str
    unit: str
    #: The values that the field takes, for sentences.
    takes: str
    #: The values' names in full, from `low` on.
    names: tuple[str, ...] = ()


_MONTHS = (
    *("JANUARY", "FEBRUARY", "MARCH", "APRIL", "MAY", "JUNE"),
    *("JULY", "AUGUST", "SEPTEMBER", "OCTOBER", "NOVEMBER", "DECEMBER"),
)
_DAYS = ("SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY")

_DAY = _Field("day-of-month", 1, 31, 31, "P{}D", "days", "1-31, L and LW")
_WEEKDAY = _Field("day-of-week", 0, 7, 7, "P{}D", "days", "0-7 and SUN-SAT", _DAYS)
_FIELDS = (
    _Field("second", 0, 59, 60, "PT{}S", "seconds", "0-59"),
    _Field("minute", 0, 59, 60, "PT{}M", "minutes", "0-59"),
    _Field("hour", 0, 23, 24, "PT{}H", "hours", "0-23"),
    _DAY,
    _Field("month", 1, 12, 12, "P{}M", "months", "1-12 and JAN-DEC", _MONTHS),
    _WEEKDAY,
)

_EXAMPLE = (
    "write five fields (minute, hour, day of month, month, day of week), or six with seconds in "
    "front, such as 30 9 * * MON-FRI"
)

_ITEM = re.compile(r"(\*|([0-9]+|[A-Za-z]+)(?:-([0-9]+|[A-Za-z]+))?)(?:/([0-9]+))?")
_ZONE = re.compile(r"UTC|GMT|[A-Z][A-Za-z]+(/[A-Z][A-Za-z0-9_+-]+)+")
_YEAR = re.compile(r"[12][0-9]{3}")
#: An item that means the same days here as in Quartz, which counts Sunday as 1.
_NAMED_DAY = re.compile(r"\?|\*(/[0-9]+)?|[A-Z]+(#[0-9]+|-[A-Z]+(/[0-9]+)?)?")


def cron_from_text(text: str, stored: bool = False) -> str:
    """
    Read a cron expression.

    :param stored: whether the text comes from the table. An older version, which checked less, may
        have written it. So a step that is wider than its field is taken, and names the times that
        it named then.
    :return: the normal form, with one space between two fields.
    :raises ValueError: for another text, and for times that never come. The message says what would
        do, and follows on "it ...".
    """
    text = " ".join(text.split())
    _check_length(text)
    if not text.isascii():
        # cronsim turns names into capitals, and the capital of "\u017f" is S.
        raise ValueError(f"has a letter that is not of the English alphabet; {_EXAMPLE}")
    fields = _fields(text.split())
    kinds = _FIELDS[6 - len(fields) :]
    expression = " ".join(
        _field(kind, field, stored) for kind, field in zip(kinds, fields, strict=True)
    )
    _check_length(expression)
    _check_that_it_comes(expression)
    return expression


def _check_length(expression: str) -> None:
    if len(expression) > MAX_TEXT:
        raise ValueError(f"has {len(expression)} characters, and {MAX_TEXT} are the most")


def _check_that_it_comes(expression: str) -> None:
    # The calendar repeats each 28 years from 2000 on, and cronsim looks 50 years ahead.
    try:
        comes = next(CronSim(expression, datetime(2000, 1, 1)), None)
    except CronSimError:  # each field is right by itself, so no month of these has such a day
        comes = None
    if comes is None:
        raise ValueError("names a time that never comes: no such day is in any such month")


# The whole expression.


def _fields(words: list[str]) -> list[str]:
    """:return: the five or six fields that the words of an expression stand for."""
    first = words[0] if words else ""
    if first.startswith("@"):
        return _nickname(first.lower(), words[1:]).split()
    if found := re.fullmatch(r"(?:CRON_)?TZ=[\"']?(.*?)[\"']?", first, re.IGNORECASE):
        zone = found[1] or "Europe/Istanbul"
        raise ValueError(f"has its zone in front: write that as location={zone}, and leave it out")
    if found := re.fullmatch(r"(cron|rate|at)\((.*)\)", " ".join(words), re.IGNORECASE):
        _refuse_amazon(found[1].lower(), found[2].split())
    # One of the two day fields is a ?. In AWS these are the third and the fifth field, in Quartz
    # the fourth and the sixth.
    if len(words) == 6 and "?" in (words[2], words[4]):
        _refuse_amazon("cron", words)
    if len(words) == 6 and "?" in (words[3], words[5]):
        _check_quartz_days(words[5])
    if len(words) > 5 and _ZONE.fullmatch(words[-1]):
        raise ValueError(
            f"has its zone at the end: write that as location={words[-1]}, and leave it out"
        )
    if len(words) == 7 and "?" in (words[3], words[5]):
        _refuse_year([*words[:5], _by_name(words[5])], words[6])
    if len(words) == 7 and _YEAR.match(words[6]):
        _refuse_year(words[:6], words[6])
    if len(words) == 6 and _YEAR.match(words[5]):
        _refuse_year(words[:5], words[5])
    if len(words) not in (5, 6):
        what = f"{len(words)} fields" if len(words) != 1 else "one field"
        more = (
            "leave a crontab's command out, as the job's path and body say what is called; "
            if len(words) > 6
            else ""
        )
        raise ValueError(f"has {what}; {more}{_EXAMPLE}")
    return words


def _nickname(name: str, rest: list[str]) -> str:
    if name in NICKNAMES and not rest:
        return NICKNAMES[name]
    if name == "@every":
        raise ValueError(f"is elapsed time: write interval={_duration(' '.join(rest))} for cron")
    if name == "@reboot":
        raise ValueError(
            "is no time: schedule the job with one-off=true and immediate=true when you start"
        )
    raise ValueError(f"is none of {', '.join(NICKNAMES)}; {_EXAMPLE}")


def _duration(text: str) -> str:
    """`text` if it can be an interval; otherwise an example."""
    try:
        return text if duration_from_text(text) else "5m"
    except ValueError:
        return "5m"


def _refuse_amazon(kind: str, words: list[str]) -> None:
    """Refuse an expression of Amazon's EventBridge, whose sixth field is the year."""
    if kind == "rate":
        number, unit = words if len(words) == 2 else ("5", "minutes")
        letter = {"m": "m", "h": "h"}.get(unit[:1].lower())
        every = f"{number}{letter}" if letter else f"P{number}D"
        raise ValueError(f"is a rate of AWS: write interval={_duration(every)} for cron")
    if kind == "at":
        at = words[0] if words else "2030-01-31T09:00:00"
        raise ValueError(
            f"is a time of AWS: write one-off=true and first-run={at.rstrip('Z')}Z for cron"
        )
    if len(words) != 6:
        raise ValueError(f"is no cron expression, of AWS or another; {_EXAMPLE}")
    *five, year = words
    five[4] = _by_name(five[4])
    raise ValueError(
        "has six fields as AWS writes them, the year last, and here seconds come first: "
        f"write {_normal_or(five, 'the first five of them, and days by their names')}"
        f"{_bounds(year)}"
    )


def _check_quartz_days(field: str) -> None:
    """Refuse numbers for days of the week: ``2`` is Monday in Quartz, and Tuesday here."""
    if _only_names(field):
        return
    named = _by_name(field)
    is_meant = _only_names(named) and _normal_or(["0", "0", "*", "*", named], "")
    example = f"{named} if they are Quartz's" if is_meant else "such as MON-FRI"
    raise ValueError(
        "has six fields and a ?, as Quartz has, where Monday is 2 and not 1 as in cron: write days "
        f"of the week by their names, {example}"
    )


def _only_names(field: str) -> bool:
    return all(_NAMED_DAY.fullmatch(item) for item in field.upper().split(","))


def _refuse_year(fields: list[str], year: str) -> None:
    raise ValueError(
        f"has a field for the year, which Dalga has not: write {_normal_or(fields, 'the others')}"
        f"{_bounds(year)}"
    )


def _bounds(year: str) -> str:
    return "" if year in "*?" else f", and first-run and until for the year {year}"


def _normal_or(fields: list[str], otherwise: str) -> str:
    """The normal form of an expression, to be recommended; `otherwise` if it has none."""
    try:
        return cron_from_text(" ".join(fields))
    except ValueError:
        return otherwise


def _by_name(field: str) -> str:
    """A day-of-week field of Quartz or AWS, with names for its numbers 1 (Sunday) to 7."""
    return re.sub(
        r"(?<![#/0-9])[1-7](?![0-9])", lambda found: _DAYS[int(found[0]) - 1][:3], field.upper()
    )


# The fields.


def _field(kind: _Field, field: str, stored: bool) -> str:
    if field == "?":
        if kind in (_DAY, _WEEKDAY):
            return "*"
        raise ValueError(f"has ? in the {kind.name} field: it is for the two day fields; write *")
    return ",".join(_item(kind, item, stored) for item in field.split(","))


def _item(kind: _Field, item: str, stored: bool) -> str:
    """One item of a field's list."""
    special = _special(kind, item.upper(), stored)
    if special is not None:
        return special
    found = _ITEM.fullmatch(item)
    if found is None:
        raise _unreadable(kind, item)
    span, first, last, step = found.groups()
    tail = "" if step is None else f"/{_step(kind, step, stored)}"
    if span == "*":
        return f"*{tail}"
    if last is None:
        return _name(kind, first, item) + tail
    return _range(kind, item, first, last, tail)


def _special(kind: _Field, item: str, stored: bool) -> str | None:
    """The normal form of an item with L, LW or #; None for an item that may be numbers or names."""
    if re.match(r"H(\(|/|$)", item) or "~" in item:
        raise ValueError(
            f"has {item[:20]!r} in the {kind.name} field, for which some crons choose a value: "
            f"write one ({kind.takes}), and jitter=1h or the like to spread jobs"
        )
    if kind is _DAY:
        if item in ("L", "LW"):
            return item
        if stored and re.fullmatch(r"LW?/[0-9]+", item):
            return item.partition("/")[0]
        if re.fullmatch(r"L-[0-9]+W?", item):
            raise ValueError(
                f"has {item[:20]!r} in the day-of-month field: no day is counted back from the "
                "month's end; write L for the last, or a number such as 28"
            )
        if re.fullmatch(r"[0-9]+W|W", item):
            raise ValueError(
                f"has {item[:20]!r} in the day-of-month field: W is known in LW only, the last "
                "from Monday to Friday; write a day such as 15, or one such as MON#3 for the "
                "day of the week"
            )
    if kind is _WEEKDAY:
        if item == "L":
            raise ValueError(
                "has L alone in the day-of-week field: write SAT for each Saturday, SATL for the "
                "month's last"
            )
        if found := re.fullmatch(r"([0-7]|[A-Z]{3,})#L", item):
            raise ValueError(f"has {item[:20]!r} in the day-of-week field: write {found[1]}L")
        if found := re.fullmatch(r"(0*[0-7]|[A-Z]{3,})L", item):
            return f"{_number(kind, found[1], item)}L"
        if found := re.fullmatch(r"(0*[0-7]|[A-Z]+)#(0*[1-5])", item):
            return f"{_name(kind, found[1], item)}#{found[2]}"
    return None


def _range(kind: _Field, item: str, first: str, last: str, tail: str) -> str:
    start, end = _number(kind, first, item), _number(kind, last, item)
    names = _name(kind, first, item), _name(kind, last, item)
    if start == end:
        return names[0]
    if start < end:
        return f"{names[0]}-{names[1]}{tail}"
    if kind is _WEEKDAY:
        # 7 and 0 are both Sunday: a range from 7 begins at 0, and a range to 0 ends at 7.
        if start == 7:
            return f"0-{end}{tail}" if end else "0"
        if end == 0:
            return f"{start}-7{tail}"
    highest = kind.low + kind.size - 1
    if tail:
        values = [*range(start, highest + 1), *range(kind.low, end + 1)]
        return ",".join(map(str, values[:: int(tail[1:])]))
    return f"{_span(start, highest)},{_span(kind.low, end)}"


def _span(start: int, end: int) -> str:
    return str(start) if start == end else f"{start}-{end}"


def _step(kind: _Field, step: str, stored: bool) -> int:
    width = int(step)
    if width == 0:
        raise ValueError(f"has a step of 0 in the {kind.name} field: write 1 to {kind.size}")
    if width > kind.size:
        if stored:
            return kind.size
        raise ValueError(
            f"has a step of {width} in the {kind.name} field, which has {kind.size} values: "
            f"write interval={kind.interval.format(width)} for each {width} {kind.unit}"
        )
    return width


def _number(kind: _Field, word: str, item: str) -> int:
    """The value of a number or a name."""
    if word.isdecimal():
        number = int(word)
        if not kind.low <= number <= kind.high:
            raise _unreadable(kind, item)
        return number
    name = word.upper()
    for number, full in enumerate(kind.names, kind.low):
        if len(name) >= 3 and full.startswith(name):
            return number
    raise _unreadable(kind, item)


def _name(kind: _Field, word: str, item: str) -> str:
    """A number or a name as cronsim takes it: a name by its first three letters."""
    _number(kind, word, item)
    return word if word.isdecimal() or len(word) == 3 else word[:3].upper()


def _unreadable(kind: _Field, item: str) -> ValueError:
    return ValueError(
        f"has {item[:20]!r} in the {kind.name} field, which takes {kind.takes}, ranges, lists, "
        "steps and *"
    )
