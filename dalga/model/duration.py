"""
Text -> a duration. Pure.

The text is in one of three forms:

| seconds | `60`, `1.5` |
| Go's | `5m`, `1h30m`, `300ms`: `1m` is a minute |
| ISO 8601's | `P1Y2M10DT2H30M`, or `P2W`, where weeks stand alone: `P1M` is a month |

In ISO 8601 (8601-1:2019 section 5.5.2), the last of the hours, minutes and seconds may have a
fraction: ``PT0.5H`` is half an hour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction

_WHOLE = r"([0-9]{1,10})"
# 14 digits of seconds are more than any calendar has.
_NUMBER = r"([0-9]{1,14}(?:\.[0-9]{1,6})?)"
_ISO = re.compile(
    rf"P(?:{_WHOLE}W|(?=[0-9T])(?:{_WHOLE}Y)?(?:{_WHOLE}M)?(?:{_WHOLE}D)?"
    rf"(T(?=[0-9])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?)"
)
_NUMBER_OF_GO = r"([0-9]{1,10}(?:\.[0-9]{1,6})?)"
#: Seconds with a fraction, or Go's form: the units from hours to milliseconds, in this order.
_ELAPSED = re.compile(
    rf"{_NUMBER_OF_GO}|(?=.)"
    + "".join(f"(?:{_NUMBER_OF_GO}{unit})?" for unit in ("h", "m", "s", "ms"))
)
#: Of hours, minutes, seconds and milliseconds, in microseconds.
_UNITS = (3_600_000_000, 60_000_000, 1_000_000, 1_000)


@dataclass(frozen=True, slots=True)
class Duration:
    """
    A calendar part (months and days), whose length depends on where it begins, and an exact part,
    which is elapsed time.
    """

    months: int = 0
    days: int = 0
    exact: timedelta = timedelta()
    #: Elapsed time in its normal form; another duration as it was given, in capitals.
    text: str = "0"

    @property
    def is_exact(self) -> bool:
        """Whether there is no calendar part: the length is the same wherever it begins."""
        return not self.months and not self.days

    def __bool__(self) -> bool:
        return bool(self.months or self.days or self.exact)


def seconds(count: int) -> Duration:
    """
    A duration of whole seconds.

    :raises OverflowError: for more than `timedelta` takes.
    """
    return Duration(exact=timedelta(seconds=count), text=str(count))


def duration_from_text(text: str) -> Duration:
    """
    Read a duration in any of the three forms; ISO 8601's in any case.

    Elapsed time has one normal form: ``60``, ``1m`` and ``PT60S`` are equal, and have the same
    `text`.

    :raises ValueError: for another text. No time at all is refused as well, unless it is written as
        seconds: ``0``. The message says why, and follows on "it ...".
    """
    duration = _read(text)
    # 0 seconds are "now". The caller says whether that can be.
    if not duration and not re.fullmatch(r"[0-9]+", text):
        raise ValueError("is no time at all")
    return duration


def elapsed_from_text(text: str) -> timedelta:
    """
    Read a duration as elapsed time. A day of it is 24 hours, and it may be no time at all.

    :raises ValueError: as `duration_from_text` does, and for years and months.
    """
    duration = _read(text)
    if duration.months:
        raise ValueError("has years or months, which are not always as long")
    try:
        return timedelta(days=duration.days) + duration.exact
    except OverflowError:
        raise ValueError(_TOO_LONG) from None


_TOO_LONG = "is longer than any calendar"


def _read(text: str) -> Duration:
    """See `duration_from_text`. The duration may be no time at all, in any form."""
    try:
        if re.fullmatch(r"[0-9]+", text):
            # At most 20 digits: int() is slow for many digits, and refuses very many.
            return seconds(int(text.lstrip("0")[:20] or 0))
        if found := _ELAPSED.fullmatch(text):
            secs, *parts = found.groups()
            return _elapsed(_sum([None, None, secs, None] if secs else parts))
        return _iso(text)
    except OverflowError:
        raise ValueError(_TOO_LONG) from None


def _elapsed(exact: timedelta) -> Duration:
    whole, rest = divmod(exact, timedelta(seconds=1))
    if not rest:
        return seconds(whole)
    return Duration(exact=exact, text=f"PT{whole}.{rest.microseconds:06}".rstrip("0") + "S")


def _sum(parts: list[str | None]) -> timedelta:
    """The sum of hours, minutes, seconds and milliseconds, each with or without a fraction."""
    numbers = (Fraction(part or 0) for part in parts)
    total = sum(number * unit for number, unit in zip(numbers, _UNITS, strict=True))
    return timedelta(microseconds=round(total))


def _iso(given: str) -> Duration:
    text = given.upper().replace(",", ".")
    found = _ISO.fullmatch(text)
    if found is None:
        raise ValueError(_no_duration(given))
    weeks, years, months, days = (int(number or 0) for number in found.groups()[:4])
    time, parts = found[5] or "", list(found.groups()[5:])
    if re.search(r"\.[0-9]+[HM].", time):
        raise ValueError("has a fraction that is not of its smallest unit, as ISO 8601 wants it")
    exact = _sum([*parts, None])
    if not (weeks or years or months or days):
        return _elapsed(exact)
    if re.search(r"\.[0-9]+[HM]", time):
        # In the normal form only seconds have a fraction.
        text = text.removesuffix(time) + f"T{_elapsed(exact).text.removeprefix('PT')}"
        text += "" if text.endswith("S") else "S"
    return Duration(12 * years + months, 7 * weeks + days, exact, text)


def _no_duration(text: str) -> str:
    """Why a text is no duration."""
    capitals = text.upper()
    if capitals.startswith(("-", "P-", "PT-")):
        return "is negative: time only goes forward"
    if re.fullmatch(r"P(?=.*W)([0-9]+[YMWD])+(T.*)?", capitals):
        return "mixes weeks with other units, which ISO 8601 does not: write days"
    if re.fullmatch(r"P.*[0-9][.,][0-9]+[YMWD].*", capitals.partition("T")[0]):
        return "has a fraction of a day or more, which is not always as long: write hours, as PT12H"
    if found := re.fullmatch(r"([0-9]{1,10})([DWY])", capitals):
        return f"is no duration: write P{found[1]}{found[2]}"
    if re.fullmatch(r"([0-9.]+(MS|[YWDHMS]))*[0-9.]+[YWD]([0-9.]+(MS|[HMS]))*", capitals):
        return "is no duration: write days and more as ISO 8601 has them, such as P2DT4H"
    if found := re.fullmatch(r"([0-9]{1,10})M", text):
        return f"is no duration: write {found[1]}m for minutes, or P{found[1]}M for months"
    return "is no duration"
