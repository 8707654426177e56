"""
When an alert about a job is due: an *incident* begins with an alert, and ends with the job's next
success. Pure.

A job's row has its `Streak`: how many attempts have failed in a row, and what was said of the
incident that is open. With ``alert_after = 3``, and a run that is given up after 4 attempts::

    attempt     1     2     3            4             (the next run) 1     2
    answer      500   500   500          500                          500   200
    failed      1     2     3            4                            5     0
    alert                   job.failing  job.given_up                       job.recovered

What always holds: an alert of a kind is due once an incident, whatever restarts in between, as
`told` is written in the transaction that writes the alert.
"""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple

from dalga.model.alert import Event
from dalga.model.answers import FAILURES, Meaning
from dalga.model.run import Delete, End, Retry

#: The longest streak that is counted.
LONGEST = 2**32 - 1


class Told(IntFlag):
    """What was said of an incident. The jobs table has the bits."""

    NOTHING = 0
    FAILING = 1
    GIVEN_UP = 2
    SILENT = 4
    PROBLEM = 8


class Streak(NamedTuple):
    """Of a job."""

    #: How many attempts have failed in a row.
    failed: int = 0
    told: Told = Told.NOTHING


class After(NamedTuple):
    """What becomes of a streak."""

    streak: Streak
    #: The alert that is due.
    event: Event | None = None


def after(end: End, before: Streak, alert_after: int, overridden: bool = False) -> After:
    """
    A job's streak after the end of an attempt.

    :param overridden: whether a user has scheduled or triggered the job during the run, so that no
        failure gives it up.
    """
    if end.outcome is None or end.meaning is Meaning.DISABLE:
        return After(before)
    if end.meaning not in FAILURES:
        if end.meaning is Meaning.REMOVE and isinstance(end.verdict, Delete) and not overridden:
            return After(Streak(), Event.JOB_REMOVED)
        return After(Streak(), Event.JOB_RECOVERED if before.told else None)
    failed = min(before.failed + 1, LONGEST)
    if not isinstance(end.verdict, Retry) and not overridden:
        # Whoever hears this knows that the job fails.
        told = before.told | Told.GIVEN_UP | Told.FAILING
        is_new = not before.told & Told.GIVEN_UP
        return After(Streak(failed, told), Event.JOB_GIVEN_UP if is_new else None)
    if failed >= alert_after and not before.told & Told.FAILING:
        return After(Streak(failed, before.told | Told.FAILING), Event.JOB_FAILING)
    return After(Streak(failed, before.told))
