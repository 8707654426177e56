"""
Durations as text: ISO 8601's, whole seconds, and both back. Pure.

ISO 8601-1:2019 section 5.5.2: ``P1Y2M10DT2H30M``, or ``P2W``, where weeks stand alone. A fraction
is taken of the seconds only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

_NUMBER = r"([0-9]{1,10})"
_ISO = re.compile(
    rf"P(?:{_NUMBER}W|(?=[0-9T])(?:{_NUMBER}Y)?(?:{_NUMBER}M)?(?:{_NUMBER}D)?"
    rf"(?:T(?=[0-9])(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}(?:[.,]([0-9]{{1,6}}))?S)?)?)"
)


@dataclass(frozen=True, slots=True)
class Duration:
    """
    A calendar part, which is as long as the calendar has it, and an exact part, which is elapsed
    time.
    """

    months: int = 0
    days: int = 0
    exact: timedelta = timedelta()
    #: How it is written.
    text: str = "0"

    @property
    def is_exact(self) -> bool:
        """Whether it is as long wherever it begins: hours, minutes and seconds only."""
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
    Read whole seconds (``60``) or an ISO 8601 duration (``PT60S``) in any case.

    Whole seconds in the one form or the other are the same duration, with the same text.

    :raises ValueError: for what is neither; the text says why, and follows on "it ...".
    """
    try:
        if re.fullmatch(r"[0-9]+", text):
            # No more digits than are taken for seconds, or int() is slow, or refuses.
            return seconds(int(text.lstrip("0")[:20] or 0))
        return _iso(text.upper())
    except OverflowError:
        raise ValueError("is longer than any calendar") from None


def _iso(text: str) -> Duration:
    if text.startswith(("-", "P-", "PT-")):
        raise ValueError("is negative: time only goes forward")
    found = _ISO.fullmatch(text)
    if found is None:
        if re.fullmatch(r"P(?=.*W)([0-9]+[YMWD])+(T.*)?", text):
            raise ValueError("mixes weeks with other units, which ISO 8601 does not: write days")
        raise ValueError("is no ISO 8601 duration, such as PT90S, P1D or P1Y2M10DT2H30M")
    weeks, years, months, days, hours, minutes, secs = (int(n or 0) for n in found.groups()[:-1])
    fraction = int((found[8] or "").ljust(6, "0"))
    duration = Duration(
        months=12 * years + months,
        days=7 * weeks + days,
        exact=timedelta(hours=hours, minutes=minutes, seconds=secs, microseconds=fraction),
        text=text.replace(",", "."),
    )
    if not duration:
        raise ValueError("is no time at all")
    if duration.is_exact and not duration.exact.microseconds:
        return seconds(round(duration.exact.total_seconds()))
    return duration
